//! Who is here, what they publish, until when they count as gone.
//!
//! Everything is in memory and comes from the peers themselves; after a restart they tell it again. A
//! peer is its key, not its name; only it can change what it published.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Instant;

use super::index::{Count, Index, NameId, Rank};
use crate::wire::MAX_OWNERS_PER_HIT;
use crate::wire::control::{Hit, Publication, PublicationKind, Refusal};
use crate::wire::id::{ContentId, PeerId, SessionId};
use crate::wire::text::UserName;

/// Files that one peer may publish.
pub const MAX_FILES_PER_PEER: usize = 100_000;
/// Names whose first key is remembered.
const MAX_RESERVED: usize = 100_000;
/// Names that one key may have.
const MAX_RESERVED_BY_ONE: u32 = 8;

/// A peer that is logged in.
#[derive(Debug)]
pub struct Record {
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
    /// By `Publication::mark`, which also says where a listing goes on.
    files: BTreeMap<u64, Publication>,
    /// Under how many names each content is shared.
    names_of: HashMap<ContentId, u32>,
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

/// What bears one name, and who has it.
type Entries = BTreeMap<Claim, Vec<PeerId>>;

/// A content, with the length and kind that are claimed of it.
type Claim = (ContentId, u64, PublicationKind);

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
    peers: BTreeMap<PeerId, Record>,
    users: HashMap<String, PeerId>,
    reserved: HashMap<String, PeerId>,
    reserved_order: VecDeque<String>,
    reserved_by: HashMap<PeerId, u32>,
    contents: HashMap<ContentId, BTreeMap<PeerId, u64>>,
    entries: HashMap<NameId, Entries>,
    /// What all peers publish together.
    files: usize,
    index: Index,
    max_peers: usize,
    /// Does a name belong to the key that used it first?
    reserves_names: bool,
}

impl Registry {
    /// Nobody is here; at most `max_peers` will be.
    #[must_use]
    pub fn new(max_peers: usize) -> Self {
        Self {
            peers: BTreeMap::new(),
            users: HashMap::new(),
            reserved: HashMap::new(),
            reserved_order: VecDeque::new(),
            reserved_by: HashMap::new(),
            contents: HashMap::new(),
            entries: HashMap::new(),
            files: 0,
            index: Index::default(),
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
        let owner = self.users.get(&arrival.user.folded()).copied();
        if let Some(owner) = owner.filter(|owner| !self.reserves_names && *owner != arrival.peer)
            && self
                .peers
                .get(&owner)
                .is_some_and(|record| !record.is_visible)
        {
            self.leave(owner);
        }
        self.check_name(now, &arrival)?;
        if self
            .peers
            .get(&arrival.peer)
            .is_some_and(|record| record.session != arrival.session)
        {
            self.forget_files(arrival.peer);
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
        if let Some(record) = self.peers.get_mut(&peer) {
            record.is_visible = false;
        }
    }

    /// Forgets a peer and its files.
    pub fn leave(&mut self, peer: PeerId) -> Option<Record> {
        self.forget_files(peer);
        let record = self.peers.remove(&peer)?;
        self.users.remove(&record.user.folded());
        Some(record)
    }

    /// The record of a peer that is logged in.
    #[must_use]
    pub fn record(&self, peer: &PeerId) -> Option<&Record> {
        self.peers.get(peer)
    }

    /// Follows a peer to its latest address.
    pub fn follow(&mut self, peer: PeerId, ip: IpAddr) {
        if let Some(record) = self.peers.get_mut(&peer) {
            record.ip = ip;
        }
    }

    /// Adds files of `peer`; those that are there already stay.
    ///
    /// # Errors
    /// When it has too many; what still fitted was added.
    pub fn publish(&mut self, peer: PeerId, files: Vec<Publication>) -> Result<(), Refusal> {
        for file in files {
            let Some(record) = self.peers.get_mut(&peer) else {
                return Err(Refusal::NotLoggedIn);
            };
            let mark = file.mark();
            if record.files.contains_key(&mark) {
                continue;
            }
            if record.files.len() >= MAX_FILES_PER_PEER {
                let limit = u32::try_from(MAX_FILES_PER_PEER).unwrap_or(u32::MAX);
                return Err(Refusal::TooManyFiles { limit });
            }
            record.files.insert(mark, file.clone());
            record.digest ^= mark;
            self.files += 1;
            *record.names_of.entry(file.content).or_insert(0) += 1;
            self.contents
                .entry(file.content)
                .or_default()
                .insert(peer, file.len);
            let entries = self
                .entries
                .entry(self.index.insert(&file.name))
                .or_default();
            entries.entry(claim_of(&file)).or_default().push(peer);
        }
        Ok(())
    }

    /// Takes out files of `peer`; those of others stay.
    pub fn unpublish(&mut self, peer: PeerId, files: &[Publication]) {
        for file in files {
            let Some(record) = self.peers.get_mut(&peer) else {
                return;
            };
            let mark = file.mark();
            if record.files.remove(&mark).is_none() {
                continue;
            }
            record.digest ^= mark;
            self.files -= 1;
            let names = record.names_of.entry(file.content).or_insert(1);
            *names -= 1;
            if *names == 0 {
                record.names_of.remove(&file.content);
                self.drop_holder(peer, file.content);
            }
            self.drop_entry(peer, file);
        }
    }

    /// Peers that are here, after `after`, in the order of their keys.
    pub fn peers(&self, after: Option<PeerId>) -> impl Iterator<Item = (&PeerId, &Record)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.peers
            .range((from, Bound::Unbounded))
            .filter(|(_, record)| record.is_visible)
    }

    /// How many are here.
    #[must_use]
    pub fn peer_count(&self) -> u32 {
        u32::try_from(self.peers(None).count()).unwrap_or(u32::MAX)
    }

    /// Who has `content`, after `after`, with the length that each says.
    pub fn holders(
        &self,
        content: &ContentId,
        after: Option<PeerId>,
    ) -> impl Iterator<Item = (&PeerId, &Record, u64)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let holders = self.contents.get(content).into_iter();
        holders
            .flat_map(move |holders| holders.range((from, Bound::Unbounded)))
            .filter_map(|(peer, len)| Some((peer, self.peers.get(peer)?, *len)))
            .filter(|(_, record, _)| record.is_visible)
    }

    /// Published files whose name contains `term`, best first, from `place` on, each with its place.
    pub fn search(&self, term: &str, place: Place) -> impl Iterator<Item = (Place, Hit)> {
        let matches = self.index.search(term, (place.rank, place.name));
        matches.flat_map(move |(rank, name)| self.hits(rank, name, place))
    }

    /// All published files, from `place` on, each with its place.
    pub fn files(&self, place: Place) -> impl Iterator<Item = (Place, Hit)> {
        self.index
            .all(place.name)
            .flat_map(move |name| self.hits(Rank::Exact, name, place))
    }

    /// What one user shares, after the file with mark `after`, each with its mark.
    #[must_use]
    pub fn files_of(
        &self,
        user: &UserName,
        after: Option<u64>,
    ) -> Option<impl Iterator<Item = (u64, Hit)>> {
        let record = self
            .peers
            .get(self.users.get(&user.folded())?)
            .filter(|record| record.is_visible)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let files = record.files.range((from, Bound::Unbounded));
        Some(files.map(|(mark, file)| {
            (
                *mark,
                Hit {
                    file: file.clone(),
                    owners: vec![record.user.clone()],
                    holders: 1,
                },
            )
        }))
    }

    /// How many files that user shares.
    #[must_use]
    pub fn file_count_of(&self, user: &UserName) -> u32 {
        let peer = self.users.get(&user.folded());
        peer.and_then(|peer| self.peers.get(peer))
            .map_or(0, Record::file_count)
    }

    fn hits(&self, rank: Rank, name: NameId, from: Place) -> impl Iterator<Item = (Place, Hit)> {
        let mut first = [0; 32];
        if (rank, name) == (from.rank, from.name) {
            first[..16].copy_from_slice(&from.content);
        }
        let entries = self.entries.get(&name).into_iter();
        entries
            .flat_map(move |entries| entries.range((ContentId(first), 0, PublicationKind::File)..))
            .filter_map(move |(claim, holders)| {
                let prefix = *claim.0.0.first_chunk().expect("an id has 32 bytes");
                let hit = self.hit(name, *claim, holders)?;
                Some((
                    Place {
                        rank,
                        name,
                        content: prefix,
                    },
                    hit,
                ))
            })
    }

    /// `None` when all who have it are hidden.
    fn hit(&self, name: NameId, (content, len, kind): Claim, holders: &[PeerId]) -> Option<Hit> {
        let holders = holders.iter().filter_map(|peer| self.peers.get(peer));
        let visible: Vec<_> = holders.filter(|record| record.is_visible).collect();
        let owners: Vec<_> = visible
            .iter()
            .take(MAX_OWNERS_PER_HIT)
            .map(|record| record.user.clone())
            .collect();
        let file = Publication {
            name: self.index.name(name)?,
            content,
            len,
            kind,
        };
        let holders = u32::try_from(visible.len()).unwrap_or(u32::MAX);
        (holders > 0).then_some(Hit {
            file,
            owners,
            holders,
        })
    }

    /// Names that contain `term`, whether somebody who has them is here or not, up to `limit`.
    #[must_use]
    pub fn count(&self, term: &str, limit: usize) -> Count {
        self.index.count(term, limit)
    }

    /// All names that are published.
    #[must_use]
    pub fn name_count(&self) -> usize {
        self.index.len()
    }

    /// What all peers publish together: a file of two people counts twice.
    #[must_use]
    pub const fn file_count(&self) -> usize {
        self.files
    }

    /// May this peer come back under this name?
    #[must_use]
    pub fn may_return(&self, peer: &PeerId, user: &UserName) -> bool {
        let folded = user.folded();
        let is_owner = |owner: Option<&PeerId>| owner.is_none_or(|owner| owner == peer);
        let has_place = self.peers.contains_key(peer) || self.peers.len() < self.max_peers;
        is_owner(self.users.get(&folded)) && is_owner(self.reserved.get(&folded)) && has_place
    }

    fn check_name(&self, now: Instant, arrival: &Arrival) -> Result<(), Refusal> {
        let folded = arrival.user.folded();
        let owner = self
            .users
            .get(&folded)
            .filter(|owner| **owner != arrival.peer);
        if let Some(record) = owner.and_then(|owner| self.peers.get(owner)) {
            let since = now.saturating_duration_since(record.since).as_secs();
            let since_s = u32::try_from(since).unwrap_or(u32::MAX);
            return Err(Refusal::NameInUse {
                since_s,
                from: record.ip,
            });
        }
        if self
            .reserved
            .get(&folded)
            .is_some_and(|first| *first != arrival.peer)
        {
            return Err(Refusal::NameReserved);
        }
        let is_new = !self.peers.contains_key(&arrival.peer);
        if is_new && self.peers.len() >= self.max_peers {
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
        if let Some(record) = self.peers.get_mut(&peer) {
            self.users.remove(&record.user.folded());
            (record.user, record.session, record.ip, record.port) = (user, session, ip, port);
            record.is_visible = true;
        } else {
            let (files, names_of, digest) = (BTreeMap::new(), HashMap::new(), 0);
            let record = Record {
                user,
                session,
                since: now,
                ip,
                port,
                is_visible: true,
                files,
                names_of,
                digest,
            };
            self.peers.insert(peer, record);
        }
        self.users.insert(folded.clone(), peer);
        self.reserve(folded, peer);
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

    fn forget_files(&mut self, peer: PeerId) {
        let Some(record) = self.peers.get_mut(&peer) else {
            return;
        };
        record.digest = 0;
        record.names_of.clear();
        let files = std::mem::take(&mut record.files);
        self.files -= files.len();
        for content in files
            .values()
            .map(|file| file.content)
            .collect::<BTreeSet<_>>()
        {
            self.drop_holder(peer, content);
        }
        for file in files.values() {
            self.drop_entry(peer, file);
        }
    }

    fn drop_holder(&mut self, peer: PeerId, content: ContentId) {
        if let Some(holders) = self.contents.get_mut(&content) {
            holders.remove(&peer);
            if holders.is_empty() {
                self.contents.remove(&content);
            }
        }
    }

    fn drop_entry(&mut self, peer: PeerId, file: &Publication) {
        let Some(name) = self.index.find(&file.name) else {
            return;
        };
        let Some(entries) = self.entries.get_mut(&name) else {
            return;
        };
        let key = claim_of(file);
        if let Some(holders) = entries.get_mut(&key) {
            holders.retain(|holder| *holder != peer);
            if holders.is_empty() {
                entries.remove(&key);
            }
        }
        if entries.is_empty() {
            self.entries.remove(&name);
            self.index.remove(name);
        }
    }
}

fn claim_of(file: &Publication) -> Claim {
    (file.content, file.len, file.kind)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
        assert!(found(&registry, "talk").is_empty() && registry.index.is_empty());
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
        assert!(
            registry.entries.is_empty()
                && registry.contents.is_empty()
                && registry.index.is_empty()
        );
        assert!(registry.leave(peer(1)).is_none());
    }
}
