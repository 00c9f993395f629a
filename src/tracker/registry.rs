//! Who is here, what they publish, until when they count as gone.
//!
//! Everything is in memory and comes from the peers themselves; after a restart they tell it again. A
//! peer is its key, not its name; only it can change what it published.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use hashbrown::HashTable;

use super::catalog::{Catalog, Claim, Files};
use super::index::{Count, NameId, Rank};
use crate::wire::MAX_OWNERS_PER_HIT;
use crate::wire::control::{Hit, Publication, Refusal};
use crate::wire::id::{ContentId, PeerId, SessionId};
use crate::wire::text::UserName;

/// Files that one peer may publish.
pub const MAX_FILES_PER_PEER: usize = 100_000;
/// Names whose first key is remembered.
const MAX_RESERVED: usize = 100_000;
/// Names that one key may have.
const MAX_RESERVED_BY_ONE: u32 = 8;

/// A place in the registry: a peer's, until it leaves.
pub type PeerNumber = u32;

/// A peer that is logged in.
#[derive(Debug)]
pub struct Record {
    /// Its key.
    pub peer: PeerId,
    /// Under this name.
    pub user: UserName,
    /// In this session.
    pub session: SessionId,
    /// Since then.
    pub since: Instant,
    /// Seen at this address.
    pub ip: IpAddr,
    /// Listening there.
    pub port: Option<u16>,
    /// Silent peers are hidden, with their files.
    pub is_visible: bool,
    files: Files,
    digest: u64,
}

impl Record {
    /// Files that this peer shares.
    #[must_use]
    pub fn file_count(&self) -> u32 {
        u32::try_from(self.files.len()).unwrap_or(u32::MAX)
    }

    /// XOR of their marks.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }
}

/// Who logs in, and how.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its key.
    pub peer: PeerId,
    /// The name that it wants.
    pub user: UserName,
    /// Its session.
    pub session: SessionId,
    /// Where it was seen.
    pub ip: IpAddr,
    /// Where it listens.
    pub port: Option<u16>,
}

/// The first bytes of a content's id: enough to say where a listing goes on.
pub type ContentPrefix = [u8; 16];

/// Where a listing of hits goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Rank of the name.
    pub rank: Rank,
    /// The name.
    pub name: NameId,
    /// The content from which to go on.
    pub content: ContentPrefix,
}

impl Place {
    /// Where every listing begins.
    pub const START: Self = Self {
        rank: Rank::Exact,
        name: NameId::from_bytes([0; 8]),
        content: [0; 16],
    };
}

/// The machine's memory of its group.
pub struct Registry {
    /// By their numbers; a number is free again when its peer has left.
    peers: Vec<Option<Record>>,
    free: Vec<PeerNumber>,
    by_key: HashTable<PeerNumber>,
    by_user: HashTable<PeerNumber>,
    hashes: RandomState,
    visible: u32,
    reserved: HashMap<String, PeerId>,
    reserved_order: VecDeque<String>,
    reserved_by: HashMap<PeerId, u32>,
    catalog: Catalog,
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
            peers: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            by_user: HashTable::new(),
            hashes: RandomState::new(),
            visible: 0,
            reserved: HashMap::new(),
            reserved_order: VecDeque::new(),
            reserved_by: HashMap::new(),
            catalog: Catalog::default(),
            files: 0,
            max_peers,
            reserves_names: true,
        }
    }

    /// From now on a name is whoever's password fits: no key keeps it, and a silent one gives it back.
    pub fn leave_names_to_passwords(&mut self) {
        self.reserves_names = false;
    }

    /// Lets a peer in after LOGIN. A new session begins with no files: the peer tells them again.
    ///
    /// # Errors
    /// When the name is in use or belongs to another key, or there are too many peers.
    pub fn log_in(&mut self, now: Instant, arrival: Arrival) -> Result<(), Refusal> {
        let owner = self.number_of_user(&arrival.user);
        let owner = owner.and_then(|owner| self.numbered(owner));
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
        let Some((_, record)) = self.record_mut(&peer) else {
            return;
        };
        if std::mem::take(&mut record.is_visible) {
            self.visible -= 1;
        }
    }

    /// Forgets a peer and its files.
    pub fn leave(&mut self, peer: PeerId) -> Option<Record> {
        self.forget_files(&peer);
        self.hide(peer);
        let number = self.number_of(&peer)?;
        let hash = self.hashes.hash_one(peer);
        if let Ok(found) = self.by_key.find_entry(hash, |other| *other == number) {
            found.remove();
        }
        let record = self.peers[number as usize].take()?;
        self.drop_user(number, &record.user);
        self.free.push(number);
        Some(record)
    }

    /// The record of a peer that is logged in.
    #[must_use]
    pub fn record(&self, peer: &PeerId) -> Option<&Record> {
        self.numbered(self.number_of(peer)?)
    }

    /// Follows a peer to its latest address.
    pub fn follow(&mut self, peer: PeerId, ip: IpAddr) {
        if let Some((_, record)) = self.record_mut(&peer) {
            record.ip = ip;
        }
    }

    /// Adds files of `peer`; those that are there already stay.
    ///
    /// # Errors
    /// When it has too many; what still fitted was added.
    pub fn publish(&mut self, peer: PeerId, files: Vec<Publication>) -> Result<(), Refusal> {
        let number = self.number_of(&peer).ok_or(Refusal::NotLoggedIn)?;
        let record = self.peers[number as usize]
            .as_mut()
            .ok_or(Refusal::NotLoggedIn)?;
        for file in files {
            if self.catalog.has(number, &file) {
                continue;
            }
            if record.files.len() >= MAX_FILES_PER_PEER {
                let limit = u32::try_from(MAX_FILES_PER_PEER).unwrap_or(u32::MAX);
                return Err(Refusal::TooManyFiles { limit });
            }
            self.catalog.add(number, &mut record.files, &file);
            record.digest ^= file.mark();
            self.files += 1;
        }
        Ok(())
    }

    /// Takes out files of `peer`; those of others stay.
    pub fn unpublish(&mut self, peer: PeerId, files: &[Publication]) {
        let Some(number) = self.number_of(&peer) else {
            return;
        };
        let Some(record) = self.peers[number as usize].as_mut() else {
            return;
        };
        for file in files {
            if self.catalog.remove(number, &mut record.files, file) {
                record.digest ^= file.mark();
                self.files -= 1;
            }
        }
    }

    /// Peers that are here, after `after`, each with its number.
    pub fn peers(&self, after: Option<PeerNumber>) -> impl Iterator<Item = (PeerNumber, &Record)> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let numbers = first..u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        numbers
            .filter_map(|number| Some((number, self.numbered(number)?)))
            .filter(|(_, record)| record.is_visible)
    }

    /// How many are here.
    #[must_use]
    pub const fn peer_count(&self) -> u32 {
        self.visible
    }

    /// Who has `content`, after `after`, each with its number and the length that it says.
    pub fn holders(
        &self,
        content: &ContentId,
        after: Option<PeerNumber>,
    ) -> impl Iterator<Item = (PeerNumber, &Record, u64)> {
        let (content, holders) = self.catalog.holders(content, after);
        holders
            .iter()
            .filter_map(|number| Some((*number, self.numbered(*number)?)))
            .filter(|(_, record)| record.is_visible)
            .filter_map(move |(number, record)| {
                let len = self.catalog.len_of(content, &record.files)?;
                Some((number, record, len))
            })
    }

    /// Published files whose name contains `term`, best first, from `place` on, each with its place.
    pub fn search(&self, term: &str, place: Place) -> impl Iterator<Item = (Place, Hit)> {
        let matches = self.catalog.index().search(term, (place.rank, place.name));
        matches.flat_map(move |(rank, name)| self.hits(rank, name, place))
    }

    /// All published files, from `place` on, each with its place.
    pub fn files(&self, place: Place) -> impl Iterator<Item = (Place, Hit)> {
        self.catalog
            .index()
            .all(place.name)
            .flat_map(move |name| self.hits(Rank::Exact, name, place))
    }

    /// What one user shares, after the file at `after`, each with its place.
    #[must_use]
    pub fn files_of(
        &self,
        user: &UserName,
        after: Option<u64>,
    ) -> Option<impl Iterator<Item = (u64, Hit)>> {
        let record = self
            .numbered(self.number_of_user(user)?)
            .filter(|record| record.is_visible)?;
        let files = self.catalog.files_after(&record.files, after);
        Some(files.filter_map(|(place, name, claim)| {
            let hit = Hit {
                file: self.publication(name, &claim)?,
                owners: vec![record.user.clone()],
                holders: 1,
            };
            Some((place, hit))
        }))
    }

    /// How many files that user shares.
    #[must_use]
    pub fn file_count_of(&self, user: &UserName) -> u32 {
        let peer = self.number_of_user(user);
        peer.and_then(|peer| self.numbered(peer))
            .map_or(0, Record::file_count)
    }

    fn hits(&self, rank: Rank, name: NameId, from: Place) -> impl Iterator<Item = (Place, Hit)> {
        let mut first = [0; 32];
        if (rank, name) == (from.rank, from.name) {
            first[..16].copy_from_slice(&from.content);
        }
        let claims = self.catalog.claims(name, ContentId(first));
        claims.filter_map(move |claim| {
            let content = *claim.content.0.first_chunk().expect("an id has 32 bytes");
            let place = Place {
                rank,
                name,
                content,
            };
            Some((place, self.hit(name, &claim)?))
        })
    }

    /// `None` when all who have it are hidden.
    fn hit(&self, name: NameId, claim: &Claim<'_>) -> Option<Hit> {
        let holders = claim.holders.iter();
        let visible = holders
            .filter_map(|peer| self.numbered(*peer))
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

    /// Names that contain `term`, whether somebody who has them is here or not, up to `limit`.
    #[must_use]
    pub fn count(&self, term: &str, limit: usize) -> Count {
        self.catalog.index().count(term, limit)
    }

    /// All names that are published.
    #[must_use]
    pub fn name_count(&self) -> usize {
        self.catalog.index().len()
    }

    /// What all peers publish together: a file of two people counts twice.
    #[must_use]
    pub const fn file_count(&self) -> usize {
        self.files
    }

    /// May this peer come back under this name?
    #[must_use]
    pub fn may_return(&self, peer: &PeerId, user: &UserName) -> bool {
        let is_owner = |owner: Option<&PeerId>| owner.is_none_or(|owner| owner == peer);
        let user_of = self
            .number_of_user(user)
            .and_then(|owner| self.numbered(owner));
        let has_place = self.number_of(peer).is_some() || self.len() < self.max_peers;
        is_owner(user_of.map(|record| &record.peer))
            && is_owner(self.reserved.get(&user.folded()))
            && has_place
    }

    fn check_name(&self, now: Instant, arrival: &Arrival) -> Result<(), Refusal> {
        let owner = self.number_of_user(&arrival.user);
        let owner = owner.and_then(|owner| self.numbered(owner));
        if let Some(record) = owner.filter(|owner| owner.peer != arrival.peer) {
            let since = now.saturating_duration_since(record.since).as_secs();
            let since_s = u32::try_from(since).unwrap_or(u32::MAX);
            return Err(Refusal::NameInUse {
                since_s,
                from: record.ip,
            });
        }
        if self
            .reserved
            .get(&arrival.user.folded())
            .is_some_and(|first| *first != arrival.peer)
        {
            return Err(Refusal::NameReserved);
        }
        let is_new = self.number_of(&arrival.peer).is_none();
        if is_new && self.len() >= self.max_peers {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    fn arrive(&mut self, now: Instant, arrival: Arrival) {
        let Arrival {
            peer,
            user,
            session,
            ip,
            port,
        } = arrival;
        let folded = user.folded();
        self.hide(peer);
        let number = if let Some((number, record)) = self.record_mut(&peer) {
            let before = std::mem::replace(&mut record.user, user);
            (record.session, record.ip, record.port) = (session, ip, port);
            record.is_visible = true;
            self.drop_user(number, &before);
            number
        } else {
            let record = Record {
                peer,
                user,
                session,
                since: now,
                ip,
                port,
                is_visible: true,
                files: Files::new(),
                digest: 0,
            };
            self.add(record)
        };
        self.visible += 1;
        let Self {
            by_user,
            peers,
            hashes,
            ..
        } = self;
        by_user.insert_unique(hashes.hash_one(&folded), number, |number| {
            let user = peers[*number as usize]
                .as_ref()
                .map(|record| record.user.folded());
            hashes.hash_one(user.unwrap_or_default())
        });
        self.reserve(folded, peer);
    }

    fn add(&mut self, record: Record) -> PeerNumber {
        let peer = record.peer;
        let number = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            u32::try_from(self.peers.len() - 1).expect("there are at most max_peers")
        });
        self.peers[number as usize] = Some(record);
        let Self {
            by_key,
            peers,
            hashes,
            ..
        } = self;
        by_key.insert_unique(hashes.hash_one(peer), number, |number| {
            let key = peers[*number as usize].as_ref().map(|record| record.peer);
            hashes.hash_one(key.unwrap_or(PeerId([0; 32])))
        });
        number
    }

    fn len(&self) -> usize {
        self.by_key.len()
    }

    fn numbered(&self, number: PeerNumber) -> Option<&Record> {
        self.peers.get(number as usize)?.as_ref()
    }

    fn number_of(&self, peer: &PeerId) -> Option<PeerNumber> {
        let is_it = |number: &PeerNumber| {
            let record = self.numbered(*number);
            record.is_some_and(|record| record.peer == *peer)
        };
        self.by_key.find(self.hashes.hash_one(peer), is_it).copied()
    }

    fn number_of_user(&self, user: &UserName) -> Option<PeerNumber> {
        let folded = user.folded();
        let is_it = |number: &PeerNumber| {
            let record = self.numbered(*number);
            record.is_some_and(|record| record.user.folded() == folded)
        };
        let hash = self.hashes.hash_one(&folded);
        self.by_user.find(hash, is_it).copied()
    }

    fn record_mut(&mut self, peer: &PeerId) -> Option<(PeerNumber, &mut Record)> {
        let number = self.number_of(peer)?;
        Some((number, self.peers[number as usize].as_mut()?))
    }

    /// Frees a name that `number` had.
    fn drop_user(&mut self, number: PeerNumber, user: &UserName) {
        let hash = self.hashes.hash_one(user.folded());
        if let Ok(found) = self.by_user.find_entry(hash, |other| *other == number) {
            found.remove();
        }
    }

    /// Remembers whose name it is. A key that changes its name often keeps only so many: nobody shall push
    /// out what others have.
    fn reserve(&mut self, folded: String, peer: PeerId) {
        if !self.reserves_names {
            return;
        }
        let own = self.reserved_by.entry(peer).or_insert(0);
        if self.reserved.contains_key(&folded) || *own >= MAX_RESERVED_BY_ONE {
            return;
        }
        *own += 1;
        self.reserved.insert(folded.clone(), peer);
        self.reserved_order.push_back(folded);
        if self.reserved_order.len() > MAX_RESERVED {
            let oldest = self.reserved_order.pop_front();
            let owner = oldest.and_then(|oldest| self.reserved.remove(&oldest));
            let left = owner.and_then(|owner| self.reserved_by.get_mut(&owner));
            if let Some(left) = left {
                *left -= 1;
            }
            self.reserved_by.retain(|_, left| *left > 0);
        }
    }

    fn forget_files(&mut self, peer: &PeerId) {
        let Some(number) = self.number_of(peer) else {
            return;
        };
        if let Some(record) = self.peers[number as usize].as_mut() {
            record.digest = 0;
            self.files -= record.files.len();
            self.catalog.remove_all(number, &mut record.files);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::control::PublicationKind;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn arrival(number: u8, user: &str, session: u8) -> Arrival {
        Arrival {
            peer: peer(number),
            user: user.parse().unwrap(),
            session: SessionId::from_bytes([session; 7]),
            ip: "10.0.0.1".parse().unwrap(),
            port: Some(8001),
        }
    }

    fn file(name: &str, content: u8) -> Publication {
        Publication {
            name: name.parse().unwrap(),
            content: ContentId([content; 32]),
            len: 5,
            kind: PublicationKind::File,
        }
    }

    fn registry() -> Registry {
        let mut registry = Registry::new(10);
        registry
            .log_in(Instant::now(), arrival(1, "ana", 1))
            .unwrap();
        registry
            .log_in(Instant::now(), arrival(2, "bob", 2))
            .unwrap();
        registry
    }

    fn found(registry: &Registry, term: &str) -> Vec<(String, u32)> {
        let hits = registry.search(term, Place::START);
        hits.map(|(_, hit)| (hit.file.name.as_str().to_owned(), hit.holders))
            .collect()
    }

    #[test]
    fn same_name_and_content_is_one_hit_everything_else_is_apart() {
        let mut registry = registry();
        registry
            .publish(
                peer(1),
                vec![
                    file("talk.mp4", 1),
                    file("talk.mp4", 2),
                    file("copy.mp4", 1),
                ],
            )
            .unwrap();
        registry
            .publish(peer(2), vec![file("talk.mp4", 1), file("talk.mp4", 1)])
            .unwrap();
        assert_eq!(
            found(&registry, "talk"),
            [("talk.mp4".into(), 2), ("talk.mp4".into(), 1)]
        );
        assert_eq!(registry.holders(&ContentId([1; 32]), None).count(), 2);
        registry.unpublish(peer(1), &[file("copy.mp4", 1)]);
        assert_eq!(
            registry.holders(&ContentId([1; 32]), None).count(),
            2,
            "it has it under another name"
        );
        registry.unpublish(peer(1), &[file("talk.mp4", 1)]);
        assert_eq!(registry.holders(&ContentId([1; 32]), None).count(), 1);
    }

    #[test]
    fn nobody_can_take_out_what_another_published() {
        let mut registry = registry();
        registry
            .publish(peer(1), vec![file("talk.mp4", 1)])
            .unwrap();
        registry.unpublish(peer(2), &[file("talk.mp4", 1)]);
        assert_eq!(found(&registry, "talk"), [("talk.mp4".into(), 1)]);
    }

    #[test]
    fn a_silent_peer_is_hidden_and_comes_back_with_everything() {
        let mut registry = registry();
        registry
            .publish(peer(1), vec![file("talk.mp4", 1)])
            .unwrap();
        registry.hide(peer(1));
        assert!(found(&registry, "talk").is_empty());
        assert_eq!(registry.peer_count(), 1);
        assert_eq!(registry.holders(&ContentId([1; 32]), None).count(), 0);
        registry
            .come_back(Instant::now(), arrival(1, "ana", 1))
            .unwrap();
        assert_eq!(found(&registry, "talk"), [("talk.mp4".into(), 1)]);
    }

    #[test]
    fn a_new_login_begins_without_files_a_repeated_one_changes_nothing() {
        let mut registry = registry();
        registry
            .publish(peer(1), vec![file("talk.mp4", 1)])
            .unwrap();
        registry
            .log_in(Instant::now(), arrival(1, "ana", 1))
            .unwrap();
        assert_eq!(registry.record(&peer(1)).unwrap().file_count(), 1);
        registry
            .log_in(Instant::now(), arrival(1, "ana", 9))
            .unwrap();
        assert_eq!(registry.record(&peer(1)).unwrap().file_count(), 0);
        assert_eq!(registry.record(&peer(1)).unwrap().digest(), 0);
        assert!(found(&registry, "talk").is_empty() && registry.catalog.is_empty());
    }

    #[test]
    fn names_belong_to_whoever_came_first() {
        let mut registry = registry();
        let later = Instant::now() + Duration::from_secs(60);
        let refused = registry.log_in(later, arrival(3, "ANA", 3));
        assert!(
            matches!(
                refused,
                Err(Refusal::NameInUse {
                    since_s: 59..=61,
                    ..
                })
            ),
            "{refused:?}"
        );
        registry.leave(peer(1));
        assert_eq!(
            registry.log_in(later, arrival(3, "ana", 3)),
            Err(Refusal::NameReserved)
        );
        assert_eq!(registry.log_in(later, arrival(1, "ana", 3)), Ok(()));
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_known_before_the_answer() {
        let mut registry = registry();
        let name = |text: &str| text.parse().unwrap();
        assert!(
            registry.may_return(&peer(1), &name("ana"))
                && registry.may_return(&peer(3), &name("eve"))
        );
        assert!(!registry.may_return(&peer(3), &name("ANA")), "in use");
        registry.leave(peer(1));
        assert!(!registry.may_return(&peer(3), &name("ana")), "reserved");
    }

    #[test]
    fn one_key_cannot_push_out_the_names_of_others() {
        let mut registry = registry();
        for number in 0..100 {
            registry
                .log_in(Instant::now(), arrival(3, &format!("name{number}"), 3))
                .unwrap();
        }
        assert_eq!(registry.reserved_by[&peer(3)], MAX_RESERVED_BY_ONE);
        assert_eq!(registry.reserved.len(), 2 + MAX_RESERVED_BY_ONE as usize);
    }

    #[test]
    fn many_files_of_one_name_are_walked_once_each_also_while_some_go() {
        let mut registry = registry();
        let files: Vec<_> = (0..=255).map(|content| file("same.txt", content)).collect();
        registry.publish(peer(1), files.clone()).unwrap();
        let places: Vec<_> = registry.search("same", Place::START).collect();
        assert_eq!(places.len(), 256);
        let (place, next) = &places[100];
        registry.unpublish(peer(1), &files[..50]);
        let (_, hit) = registry.search("same", *place).next().unwrap();
        assert_eq!(hit, *next, "a place stays what it was");
    }

    #[test]
    fn limits_hold() {
        let mut registry = registry();
        for number in 3..=10 {
            registry
                .log_in(
                    Instant::now(),
                    arrival(number, &format!("user{number}"), number),
                )
                .unwrap();
        }
        assert_eq!(
            registry.log_in(Instant::now(), arrival(11, "late", 11)),
            Err(Refusal::Full)
        );
        assert_eq!(
            registry.log_in(Instant::now(), arrival(10, "user10", 12)),
            Ok(()),
            "already counted"
        );
        let many = (0..=MAX_FILES_PER_PEER)
            .map(|n| file(&format!("f{n}"), 1))
            .collect();
        assert!(matches!(
            registry.publish(peer(1), many),
            Err(Refusal::TooManyFiles { .. })
        ));
        assert_eq!(
            registry.record(&peer(1)).unwrap().file_count() as usize,
            MAX_FILES_PER_PEER
        );
    }

    #[test]
    fn leaving_leaves_nothing_behind() {
        let mut registry = registry();
        registry
            .publish(
                peer(1),
                (0..200).map(|n| file(&format!("f{n}"), n)).collect(),
            )
            .unwrap();
        registry.leave(peer(1)).unwrap();
        assert!(registry.catalog.is_empty() && registry.peer_count() == 1);
        assert!(registry.leave(peer(1)).is_none());
    }
}
