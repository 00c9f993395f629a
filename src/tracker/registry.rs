//! Who is here, what they publish, until when they count as gone.
//!
//! Everything is in memory and comes from the peers themselves; after a restart they tell it again. A
//! peer is its key, not its name; only it can change what it published.

use std::iter;
use std::net::IpAddr;
use std::time::Instant;

use super::catalog::{Catalog, Claim};
use super::index::{Count, NameId, Rank};
use super::parcels::{Found, MAX_PARCELS, Parcel, Parcels};
use super::reserved::Reserved;
use super::roster::Roster;
pub use super::roster::{Arrival, PeerNumber, Record};
use crate::wire::MAX_OWNERS_PER_HIT;
use crate::wire::control::{Audience, Files, Hit, Publication, Refusal};
use crate::wire::id::{ContentId, PeerId, SessionId};
use crate::wire::text::UserName;

/// Files that one peer may publish; one for chosen people counts once for each of them.
pub const MAX_FILES_PER_PEER: usize = 100_000;

/// The first bytes of a content's id: enough to say where a listing goes on.
pub type ContentPrefix = [u8; 16];

/// Of the id of `content`.
pub(super) fn prefix_of(content: &ContentId) -> ContentPrefix {
    *content.0.first_chunk().expect("an id has 32 bytes")
}

/// What one look at a listing spends on files that nobody here has: each costs one, and one for each of its
/// holders. Half a millisecond or so.
const STEP: usize = 4000;

/// Set in the place of a holder who shows a content to chosen people only. Peers are fewer.
const HOLDS_PARCEL: u32 = 1 << 31;

/// Where the listing of what one user shares goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilePlace {
    /// Behind this one of what is for chosen people only.
    Parcel(u64),
    /// Behind this one of what is for everybody.
    Open(u64),
}

/// Where a listing of hits goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Rank of the name.
    pub rank: Rank,
    /// The name.
    pub name: NameId,
    /// The content from which to go on.
    pub content: ContentPrefix,
    /// How many of the name's files whose contents begin like that were given already.
    pub given: u32,
    /// Among what is for chosen people only, which comes first.
    pub is_parcel: bool,
}

impl Place {
    /// Where every listing begins.
    pub const START: Self = Self {
        rank: Rank::Exact,
        name: NameId::from_bytes([0; 8]),
        content: [0; 16],
        given: 0,
        is_parcel: true,
    };

    /// Where what is for everybody begins.
    const FOR_EVERYBODY: Self = Self::first_of(Rank::Exact, NameId::from_bytes([0; 8]));

    /// Where the files of a name begin.
    const fn first_of(rank: Rank, name: NameId) -> Self {
        Self {
            rank,
            name,
            is_parcel: false,
            ..Self::START
        }
    }

    /// Where to begin in the catalog.
    const fn in_catalog(self) -> Self {
        if self.is_parcel {
            Self::FOR_EVERYBODY
        } else {
            self
        }
    }
}

/// The machine's memory of its group.
pub struct Registry {
    roster: Roster,
    reserved: Reserved,
    /// What is for everybody.
    catalog: Catalog,
    /// What is for chosen people only.
    parcels: Parcels,
    /// What all peers publish together.
    files: usize,
    max_peers: usize,
    /// Does a name belong to the key that used it first?
    reserves_names: bool,
}

impl Registry {
    /// Nobody is here; at most `max_peers` will be.
    #[must_use]
    pub fn new(max_peers: usize) -> Self {
        Self {
            roster: Roster::default(),
            reserved: Reserved::default(),
            catalog: Catalog::default(),
            parcels: Parcels::default(),
            files: 0,
            max_peers,
            reserves_names: true,
        }
    }

    /// From now on a name is whoever's password fits: no key keeps it, and a silent one gives it back.
    pub fn leave_names_to_passwords(&mut self) {
        self.reserves_names = false;
    }

    /// How many may be here.
    #[must_use]
    pub const fn max_peers(&self) -> usize {
        self.max_peers
    }

    /// Lets a peer in after LOGIN. A new session begins with no files: the peer tells them again.
    ///
    /// # Errors
    /// When the name is in use or belongs to another key, or there are too many peers.
    pub fn log_in(&mut self, now: Instant, arrival: Arrival) -> Result<(), Refusal> {
        let owner = self.roster.named(&arrival.user);
        let gives_back = |owner: &&Record| owner.peer != arrival.peer && !owner.is_visible;
        if let Some(silent) = owner.filter(gives_back).map(|owner| owner.peer)
            && !self.reserves_names
        {
            self.leave(silent);
        }
        self.check_name(now, &arrival)?;
        let is_new_session = |record: &Record| record.session != arrival.session;
        if self.record(&arrival.peer).is_some_and(is_new_session) {
            self.forget_files(&arrival.peer);
        }
        self.arrive(now, arrival);
        Ok(())
    }

    /// Lets a peer in that came back with a ticket; what it published is still there, unless we restarted.
    ///
    /// # Errors
    /// As [`Registry::log_in`].
    pub fn come_back(&mut self, now: Instant, arrival: Arrival) -> Result<(), Refusal> {
        self.check_name(now, &arrival)?;
        self.arrive(now, arrival);
        Ok(())
    }

    /// Hides a peer that fell silent.
    pub fn hide(&mut self, peer: PeerId) {
        self.roster.hide(&peer);
    }

    /// Forgets a peer and its files.
    pub fn leave(&mut self, peer: PeerId) -> Option<Record> {
        self.forget_files(&peer);
        self.roster.remove(&peer)
    }

    /// The record of a peer that is logged in.
    #[must_use]
    pub fn record(&self, peer: &PeerId) -> Option<&Record> {
        self.roster.of(peer)
    }

    /// Follows a peer to its latest address.
    pub fn follow(&mut self, peer: PeerId, ip: IpAddr) {
        if let Some(record) = self.roster.of_mut(&peer) {
            record.ip = ip;
        }
    }

    /// Adds files of `peer`; those that are there already stay, and are for whom this says.
    ///
    /// # Errors
    /// When it has too many, in all or for one of these people; what still fitted was added.
    pub fn publish(&mut self, peer: PeerId, files: Files) -> Result<(), Refusal> {
        let Files { files, audience } = files;
        let number = self.roster.number_of(&peer);
        let number = number.ok_or(Refusal::NotLoggedIn)?;
        let record = self.roster.numbered_mut(number);
        let record = record.ok_or(Refusal::NotLoggedIn)?;
        for file in files {
            let sent = record.parcels.get(&file);
            let is_so = match sent {
                Some(sent) => sent.audience == audience,
                None => audience.is_everybody() && self.catalog.has(number, &file),
            };
            if is_so {
                continue;
            }
            // Whom it was for counts no longer, whether it fits anew or not.
            let lists = (&mut self.catalog, &mut self.parcels);
            self.files -= usize::from(take_out((number, record), &file, lists));
            let mut others = audience.peers().iter().filter(|reader| **reader != peer);
            if others.any(|reader| self.parcels.len_of(*reader, number) >= MAX_PARCELS) {
                let limit = u32::try_from(MAX_PARCELS).unwrap_or(u32::MAX);
                return Err(Refusal::TooManyFiles { limit });
            }
            let weight = audience.peers().len().max(1);
            if record.files.len() + record.weight + weight > MAX_FILES_PER_PEER {
                let limit = u32::try_from(MAX_FILES_PER_PEER).unwrap_or(u32::MAX);
                return Err(Refusal::TooManyFiles { limit });
            }
            record.digest ^= file.mark(&audience);
            self.files += 1;
            if audience.is_everybody() {
                self.catalog.add(number, &mut record.files, &file);
            } else {
                record.weight += weight;
                let sent = self.parcels.add((number, peer), &file, audience.clone());
                record.parcels.insert(file, sent);
            }
        }
        Ok(())
    }

    /// Takes out files of `peer`; those of others stay.
    pub fn unpublish(&mut self, peer: PeerId, files: &[Publication]) {
        let Some(number) = self.roster.number_of(&peer) else {
            return;
        };
        let Some(record) = self.roster.numbered_mut(number) else {
            return;
        };
        for file in files {
            let lists = (&mut self.catalog, &mut self.parcels);
            self.files -= usize::from(take_out((number, record), file, lists));
        }
    }

    /// Peers that are here, after `after`, each with its number.
    pub fn peers(&self, after: Option<PeerNumber>) -> impl Iterator<Item = (PeerNumber, &Record)> {
        self.roster.after(after)
    }

    /// The sessions of those who are here.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionId> {
        self.peers(None).map(|(_, record)| record.session).collect()
    }

    /// How many are here.
    #[must_use]
    pub const fn peer_count(&self) -> u32 {
        self.roster.visible()
    }

    /// Who shows `content` to `reader`, after `after`, each with its place and the length that it says: first
    /// those who show it to everybody.
    pub fn holders(
        &self,
        reader: PeerId,
        content: &ContentId,
        after: Option<u32>,
    ) -> impl Iterator<Item = (u32, &Record, u64)> {
        let in_catalog = after.filter(|after| *after < HOLDS_PARCEL);
        let is_over = after.is_some() && in_catalog.is_none();
        let (number, all) = self.catalog.holders(content);
        let given = match in_catalog {
            _ if is_over => all.len(),
            None => 0,
            Some(after) => all.partition_point(|owner| *owner <= after),
        };
        let open = all[given..]
            .iter()
            .filter_map(|owner| Some((*owner, self.roster.numbered(*owner)?)))
            .filter_map(move |(owner, record)| {
                let len = self.catalog.len_of(number, &record.files)?;
                Some((owner, record, len))
            });
        let after = after.filter(|_| is_over).map(|after| after & !HOLDS_PARCEL);
        let parcels = self.parcels.holders(reader, *content, after);
        let parcels = parcels.filter_map(move |(owner, len)| {
            let record = self.roster.numbered(owner)?;
            let is_told = all.binary_search(&owner).is_ok();
            (!is_told).then_some((owner | HOLDS_PARCEL, record, len))
        });
        open.chain(parcels)
            .filter(|(_, record, _)| record.is_visible)
    }

    /// What `reader` may see whose name contains `term`, from `place` on, each with its place: first what is for
    /// chosen people only, then the rest, of both the best first. An error is the last of them: so much was looked
    /// at in vain that the rest, from there on, had better wait.
    pub fn search(
        &self,
        reader: PeerId,
        term: &str,
        place: Place,
    ) -> impl Iterator<Item = Result<(Place, Hit), Place>> {
        let parcels = self.is_at_parcels(place).then(|| {
            let found = self.parcels.search(reader, term, place);
            self.parcel_hits(found)
        });
        let place = place.in_catalog();
        let names = self.catalog.index().search(term, (place.rank, place.name));
        let hits = self.hits(names, place);
        parcels.into_iter().flatten().chain(hits)
    }

    /// All that `reader` may see, from `place` on, as [`Registry::search`] gives it.
    pub fn files(
        &self,
        reader: PeerId,
        place: Place,
    ) -> impl Iterator<Item = Result<(Place, Hit), Place>> {
        let parcels = self.is_at_parcels(place).then(|| {
            let found = self.parcels.all(reader, place);
            self.parcel_hits(found)
        });
        let place = place.in_catalog();
        let names = self.catalog.index().all(place.name);
        let hits = self.hits(names.map(|name| Ok((Rank::Exact, name))), place);
        parcels.into_iter().flatten().chain(hits)
    }

    fn is_at_parcels(&self, place: Place) -> bool {
        place.is_parcel && !self.parcels.is_empty()
    }

    /// What one user shows to `reader`, after the file at `after`, each with its place.
    #[must_use]
    pub fn files_of(
        &self,
        reader: PeerId,
        user: &UserName,
        after: Option<FilePlace>,
    ) -> Option<impl Iterator<Item = (FilePlace, Hit)>> {
        let owner = self.roster.named(user).map(|record| record.peer);
        let number = self.roster.number_of(&owner?)?;
        let record = self.roster.numbered(number);
        let record = record.filter(|record| record.is_visible)?;
        let (given, after) = match after {
            None => (Some(0), None),
            Some(FilePlace::Parcel(after)) => (Some(after), None),
            Some(FilePlace::Open(after)) => (None, Some(after)),
        };
        let parcels = given.map(|given| self.parcels.of(reader, number, given));
        let parcels = parcels.into_iter().flatten();
        let parcels =
            parcels.map(|(place, parcel)| (FilePlace::Parcel(place), parcel_hit(record, parcel)));
        let files = self.catalog.files_after(&record.files, after);
        let files = files.filter_map(|(place, name, claim)| {
            let hit = Hit {
                file: self.publication(name, &claim)?,
                owners: vec![record.user.clone()],
                holders: 1,
                is_restricted: false,
            };
            Some((FilePlace::Open(place), hit))
        });
        Some(parcels.chain(files))
    }

    /// Whoever is here under that name.
    #[must_use]
    pub fn named(&self, user: &UserName) -> Option<&Record> {
        let record = self.roster.named(user);
        record.filter(|record| record.is_visible)
    }

    /// How many files that user shows to `reader`.
    #[must_use]
    pub fn file_count_of(&self, reader: PeerId, user: &UserName) -> u32 {
        let owner = self.roster.named(user).map(|record| record.peer);
        let number = owner.and_then(|owner| self.roster.number_of(&owner));
        number.map_or(0, |number| self.file_count_at(reader, number))
    }

    /// The same of the peer with this number.
    #[must_use]
    pub fn file_count_at(&self, reader: PeerId, number: PeerNumber) -> u32 {
        let record = self.roster.numbered(number);
        let open = record.map_or(0, |record| record.files.len());
        let parcels = self.parcels.len_of(reader, number);
        u32::try_from(open + parcels).unwrap_or(u32::MAX)
    }

    fn parcel_hits<'a>(
        &'a self,
        mut found: impl Iterator<Item = Found<'a>>,
    ) -> impl Iterator<Item = Result<(Place, Hit), Place>> {
        let (mut left, mut is_over) = (STEP, false);
        iter::from_fn(move || {
            while !is_over {
                let (place, owner, parcel) = match found.next()? {
                    Ok(found) if left > 0 => found,
                    Ok((place, ..)) | Err(place) => {
                        is_over = true;
                        return Some(Err(place));
                    }
                };
                let record = self.roster.numbered(owner);
                if let Some(record) = record.filter(|record| record.is_visible) {
                    return Some(Ok((place, parcel_hit(record, parcel))));
                }
                left -= 1;
            }
            None
        })
    }

    fn hits(
        &self,
        names: impl Iterator<Item = Result<(Rank, NameId), (Rank, NameId)>>,
        from: Place,
    ) -> impl Iterator<Item = Result<(Place, Hit), Place>> {
        let mut claims = names.flat_map(move |found| {
            let (claims, end) = match found {
                Ok((rank, name)) => (Some(self.claims(rank, name, from)), None),
                Err((rank, name)) => (None, Some(Place::first_of(rank, name))),
            };
            claims.into_iter().flatten().map(Ok).chain(end.map(Err))
        });
        let (mut left, mut is_over) = (STEP, false);
        iter::from_fn(move || {
            while !is_over {
                let (place, claim) = match claims.next()? {
                    Ok((place, claim)) if left > 0 => (place, claim),
                    Ok((place, _)) | Err(place) => {
                        is_over = true;
                        return Some(Err(place));
                    }
                };
                if let Some(hit) = self.hit(place.name, &claim) {
                    return Some(Ok((place, hit)));
                }
                left = left.saturating_sub(1 + claim.holders.len());
            }
            None
        })
    }

    /// The files of one name, from `from` on if that is in it.
    fn claims(
        &self,
        rank: Rank,
        name: NameId,
        from: Place,
    ) -> impl Iterator<Item = (Place, Claim<'_>)> {
        let is_in_it = (rank, name) == (from.rank, from.name);
        let mut next = if is_in_it {
            from
        } else {
            Place::first_of(rank, name)
        };
        let claims = self.catalog.claims(name, (next.content, next.given));
        claims.map(move |claim| {
            let content = prefix_of(&claim.content);
            if content != next.content {
                (next.content, next.given) = (content, 0);
            }
            let place = next;
            next.given = next.given.saturating_add(1);
            (place, claim)
        })
    }

    /// `None` when all who have it are hidden.
    fn hit(&self, name: NameId, claim: &Claim<'_>) -> Option<Hit> {
        let holders = claim.holders.iter();
        let visible = holders
            .filter_map(|peer| self.roster.numbered(*peer))
            .filter(|record| record.is_visible);
        let (mut owners, mut count) = (Vec::new(), 0_u32);
        for record in visible {
            if owners.len() < MAX_OWNERS_PER_HIT {
                owners.push(record.user.clone());
            }
            count = count.saturating_add(1);
        }
        if count == 0 {
            return None;
        }
        Some(Hit {
            file: self.publication(name, claim)?,
            owners,
            holders: count,
            is_restricted: false,
        })
    }

    fn publication(&self, name: NameId, claim: &Claim<'_>) -> Option<Publication> {
        Some(Publication {
            name: self.catalog.index().name(name)?,
            content: claim.content,
            len: claim.len,
            kind: claim.kind,
        })
    }

    /// Names that contain `term` and that `reader` may see, whether somebody who has them is here or not, up to
    /// `limit`.
    #[must_use]
    pub fn count(&self, reader: PeerId, term: &str, limit: usize) -> Count {
        let open = self.catalog.index().count(term, limit);
        let parcels = self.parcels.count(reader, term);
        let names = open.names + parcels.names;
        Count {
            names: names.min(limit),
            is_all: open.is_all && parcels.is_all && names <= limit,
        }
    }

    /// All names that are published for everybody.
    #[must_use]
    pub fn name_count(&self) -> usize {
        self.catalog.index().len()
    }

    /// All names that `reader` may see.
    #[must_use]
    pub fn name_count_for(&self, reader: PeerId) -> usize {
        self.name_count() + self.parcels.len(reader)
    }

    /// What all peers publish together: a file of two people counts twice.
    #[must_use]
    pub const fn file_count(&self) -> usize {
        self.files
    }

    /// May this peer come back under this name?
    #[must_use]
    pub fn may_return(&self, peer: &PeerId, user: &UserName) -> bool {
        let owner = self.roster.named(user);
        let has_place = self.record(peer).is_some() || self.roster.len() < self.max_peers;
        owner.is_none_or(|owner| owner.peer == *peer)
            && !self.reserved.is_foreign(&user.folded(), peer)
            && has_place
    }

    fn check_name(&self, now: Instant, arrival: &Arrival) -> Result<(), Refusal> {
        let owner = self.roster.named(&arrival.user);
        if let Some(record) = owner.filter(|owner| owner.peer != arrival.peer) {
            let since = now.saturating_duration_since(record.since).as_secs();
            let since_s = u32::try_from(since).unwrap_or(u32::MAX);
            return Err(Refusal::NameInUse {
                since_s,
                from: record.ip,
            });
        }
        let folded = arrival.user.folded();
        if self.reserved.is_foreign(&folded, &arrival.peer) {
            return Err(Refusal::NameReserved);
        }
        let is_new = self.record(&arrival.peer).is_none();
        if is_new && self.roster.len() >= self.max_peers {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    fn arrive(&mut self, now: Instant, arrival: Arrival) {
        if self.reserves_names {
            self.reserved.reserve(arrival.user.folded(), arrival.peer);
        }
        self.roster.arrive(now, arrival);
    }

    fn forget_files(&mut self, peer: &PeerId) {
        let Some(number) = self.roster.number_of(peer) else {
            return;
        };
        if let Some(record) = self.roster.numbered_mut(number) {
            (record.digest, record.weight) = (0, 0);
            self.files -= record.files.len() + record.parcels.len();
            self.catalog.remove_all(number, &mut record.files);
            for (file, sent) in record.parcels.drain() {
                self.parcels.remove(number, &file, &sent);
            }
        }
    }
}

/// Takes a file of a peer off all lists, whomever it was for; was it there?
fn take_out(
    (number, record): (PeerNumber, &mut Record),
    file: &Publication,
    (catalog, parcels): (&mut Catalog, &mut Parcels),
) -> bool {
    if let Some(sent) = record.parcels.remove(file) {
        record.weight -= sent.weight();
        record.digest ^= file.mark(&sent.audience);
        parcels.remove(number, file, &sent);
        return true;
    }
    let was_there = catalog.remove(number, &mut record.files, file);
    if was_there {
        record.digest ^= file.mark(&Audience::EVERYBODY);
    }
    was_there
}

fn parcel_hit(record: &Record, parcel: &Parcel) -> Hit {
    Hit {
        file: parcel.file.clone(),
        owners: vec![record.user.clone()],
        holders: 1,
        is_restricted: true,
    }
}

#[cfg(test)]
mod tests;
