//! Who is logged in: a record of each, by its number, its key and its name.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use hashbrown::HashTable;

use super::catalog::Files;
use super::parcels::Sent;
use crate::wire::control::Publication;
use crate::wire::id::{PeerId, SessionId};
use crate::wire::text::UserName;

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
    /// For everybody.
    pub(super) files: Files,
    /// For chosen people only.
    pub(super) parcels: HashMap<Publication, Sent>,
    /// On how many lists of others those stand.
    pub(super) weight: usize,
    pub(super) digest: u64,
}

impl Record {
    /// Files that this peer shares, with whomever.
    #[must_use]
    pub fn file_count(&self) -> u32 {
        let count = self.files.len() + self.parcels.len();
        u32::try_from(count).unwrap_or(u32::MAX)
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

/// Records of peers, each found in three ways.
#[derive(Default)]
pub(super) struct Roster {
    /// By their numbers; a number is free again when its peer has left.
    records: Vec<Option<Record>>,
    free: Vec<PeerNumber>,
    by_key: HashTable<PeerNumber>,
    by_user: HashTable<PeerNumber>,
    hashes: RandomState,
    visible: u32,
}

impl Roster {
    /// How many there are, silent ones too.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// How many are here.
    pub(super) const fn visible(&self) -> u32 {
        self.visible
    }

    /// The record of this number.
    pub(super) fn numbered(&self, number: PeerNumber) -> Option<&Record> {
        self.records.get(number as usize)?.as_ref()
    }

    /// The same, to be changed; not what it is found by, nor whether it is visible.
    pub(super) fn numbered_mut(&mut self, number: PeerNumber) -> Option<&mut Record> {
        self.records.get_mut(number as usize)?.as_mut()
    }

    /// The number of a key.
    pub(super) fn number_of(&self, peer: &PeerId) -> Option<PeerNumber> {
        let is_it = |number: &PeerNumber| {
            let record = self.numbered(*number);
            record.is_some_and(|record| record.peer == *peer)
        };
        self.by_key.find(self.hashes.hash_one(peer), is_it).copied()
    }

    /// The record of a key.
    pub(super) fn of(&self, peer: &PeerId) -> Option<&Record> {
        self.numbered(self.number_of(peer)?)
    }

    /// The same, to be changed like [`Roster::numbered_mut`].
    pub(super) fn of_mut(&mut self, peer: &PeerId) -> Option<&mut Record> {
        self.numbered_mut(self.number_of(peer)?)
    }

    /// The record of a name, in any case.
    pub(super) fn named(&self, user: &UserName) -> Option<&Record> {
        let folded = user.folded();
        let is_it = |number: &PeerNumber| {
            let record = self.numbered(*number);
            record.is_some_and(|record| record.user.folded() == folded)
        };
        let hash = self.hashes.hash_one(&folded);
        self.numbered(*self.by_user.find(hash, is_it)?)
    }

    /// Records of peers that are here, after `after`, each with its number.
    pub(super) fn after(
        &self,
        after: Option<PeerNumber>,
    ) -> impl Iterator<Item = (PeerNumber, &Record)> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let numbers = first..u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        numbers
            .filter_map(|number| Some((number, self.numbered(number)?)))
            .filter(|(_, record)| record.is_visible)
    }

    /// Somebody is here, under a name that nobody else has: as before, or anew.
    pub(super) fn arrive(&mut self, now: Instant, arrival: Arrival) {
        let Arrival {
            peer,
            user,
            session,
            ip,
            port,
        } = arrival;
        let folded = user.folded();
        self.hide(&peer);
        let number = if let Some(number) = self.number_of(&peer)
            && let Some(record) = self.numbered_mut(number)
        {
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
                parcels: HashMap::new(),
                weight: 0,
                digest: 0,
            };
            self.add(record)
        };
        self.visible += 1;
        let Self {
            by_user,
            records,
            hashes,
            ..
        } = self;
        by_user.insert_unique(hashes.hash_one(&folded), number, |number| {
            let user = records[*number as usize]
                .as_ref()
                .map(|record| record.user.folded());
            hashes.hash_one(user.unwrap_or_default())
        });
    }

    /// Somebody is silent.
    pub(super) fn hide(&mut self, peer: &PeerId) {
        let Some(record) = self.of_mut(peer) else {
            return;
        };
        if std::mem::take(&mut record.is_visible) {
            self.visible -= 1;
        }
    }

    /// Somebody has left.
    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<Record> {
        self.hide(peer);
        let number = self.number_of(peer)?;
        let hash = self.hashes.hash_one(peer);
        if let Ok(found) = self.by_key.find_entry(hash, |other| *other == number) {
            found.remove();
        }
        let record = self.records[number as usize].take()?;
        self.drop_user(number, &record.user);
        self.free.push(number);
        Some(record)
    }

    fn add(&mut self, record: Record) -> PeerNumber {
        let peer = record.peer;
        let number = self.free.pop().unwrap_or_else(|| {
            self.records.push(None);
            u32::try_from(self.records.len() - 1).expect("there are at most max_peers")
        });
        self.records[number as usize] = Some(record);
        let Self {
            by_key,
            records,
            hashes,
            ..
        } = self;
        by_key.insert_unique(hashes.hash_one(peer), number, |number| {
            let key = records[*number as usize].as_ref().map(|record| record.peer);
            hashes.hash_one(key.unwrap_or(PeerId([0; 32])))
        });
        number
    }

    /// Frees a name that `number` had.
    fn drop_user(&mut self, number: PeerNumber, user: &UserName) {
        let hash = self.hashes.hash_one(user.folded());
        if let Ok(found) = self.by_user.find_entry(hash, |other| *other == number) {
            found.remove();
        }
    }
}
