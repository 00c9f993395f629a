//! Names by their whole text, as shown and folded: a number of each, the text stays where it is.
//!
//! Most folded texts are those of one name. Those of several lead to a group, and its members stand in a
//! second table by what they are shown as, so that many spellings of one name cost no more than others.
//! The tables are many small ones: none grows long enough for anybody to notice.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::NameId;
use super::segment::Segments;

/// Tables, a power of two.
const SHARDS: usize = 1024;
/// Bits of an id, or of the number of a group: at ten thousand new names a second, 27 years.
const VALUE_BITS: u32 = 43;
const VALUE: u64 = (1 << VALUE_BITS) - 1;
const IS_GROUP: u64 = 1 << VALUE_BITS;
const HASH_SHIFT: u32 = VALUE_BITS + 1;

/// `hash 20 │ is it a group 1 │ id or number of the group 43`
#[derive(Clone, Copy)]
struct Slot(u64);

impl Slot {
    fn id(self) -> NameId {
        NameId(self.0 & VALUE)
    }

    fn group(self) -> Option<usize> {
        let number = usize::try_from(self.0 & VALUE).ok();
        number.filter(|_| self.0 & IS_GROUP != 0)
    }
}

#[derive(Default)]
struct Shard {
    folded: HashTable<Slot>,
    /// Members of groups only.
    shown: HashTable<Slot>,
    /// Ascending, two at least; none in a free one.
    groups: Vec<Vec<NameId>>,
    free: Vec<usize>,
}

/// The names that bear one folded text, ascending.
pub(super) enum Ids<'a> {
    One([NameId; 1]),
    Many(&'a [NameId]),
}

impl Ids<'_> {
    pub(super) fn as_slice(&self) -> &[NameId] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// The tables.
pub(super) struct Names {
    shards: Vec<Shard>,
    hasher: RandomState,
}

impl Default for Names {
    fn default() -> Self {
        let mut shards = Vec::new();
        shards.resize_with(SHARDS, Shard::default);
        Self {
            shards,
            hasher: RandomState::new(),
        }
    }
}

/// Which table, and what is kept of the hash there.
#[derive(Clone, Copy)]
struct Hash {
    shard: usize,
    kept: u64,
}

impl Names {
    /// The names whose folded text is `folded`.
    pub(super) fn ids(&self, segments: &Segments, folded: &[u8]) -> Option<Ids<'_>> {
        let hash = self.hash(folded);
        let shard = &self.shards[hash.shard];
        let slot = shard.folded.find(spread(hash.kept), |slot| {
            shard.is(*slot, hash, segments, folded)
        })?;
        Some(match slot.group() {
            Some(group) => Ids::Many(&shard.groups[group]),
            None => Ids::One([slot.id()]),
        })
    }

    /// The name that is shown as `shown`.
    pub(super) fn find(&self, segments: &Segments, folded: &[u8], shown: &[u8]) -> Option<NameId> {
        match self.ids(segments, folded)? {
            Ids::One([id]) => (*segments.shown(id) == *shown).then_some(id),
            Ids::Many(_) => {
                let hash = self.hash(shown);
                self.shards[hash.shard]
                    .shown
                    .find(spread(hash.kept), |slot| {
                        slot.0 >> HASH_SHIFT == hash.kept && *segments.shown(slot.id()) == *shown
                    })
                    .map(|slot| slot.id())
            }
        }
    }

    /// Adds a name, which is in `segments` and greater than all.
    pub(super) fn insert(&mut self, segments: &Segments, id: NameId) {
        let folded = segments.folded(id);
        let hash = self.hash(folded);
        let shard = &mut self.shards[hash.shard];
        let found = shard.folded.find(spread(hash.kept), |slot| {
            shard.is(*slot, hash, segments, folded)
        });
        let Some(slot) = found.copied() else {
            insert(&mut shard.folded, hash.slot(id.0));
            return;
        };
        if let Some(group) = slot.group() {
            shard.groups[group].push(id);
        } else {
            let members = vec![slot.id(), id];
            let group = shard.free.pop().unwrap_or_else(|| {
                shard.groups.push(Vec::new());
                shard.groups.len() - 1
            });
            shard.groups[group] = members;
            remove(&mut shard.folded, slot);
            insert(&mut shard.folded, hash.slot(group as u64 | IS_GROUP));
            self.insert_shown(segments, slot.id());
        }
        self.insert_shown(segments, id);
    }

    /// Takes out a name, which is still in `segments`.
    pub(super) fn remove(&mut self, segments: &Segments, id: NameId) {
        let folded = segments.folded(id);
        let hash = self.hash(folded);
        let shard = &mut self.shards[hash.shard];
        let found = shard.folded.find(spread(hash.kept), |slot| {
            shard.is(*slot, hash, segments, folded)
        });
        let Some(slot) = found.copied() else { return };
        let Some(group) = slot.group() else {
            remove(&mut shard.folded, slot);
            return;
        };
        let members = &mut shard.groups[group];
        if let Ok(number) = members.binary_search(&id) {
            members.remove(number);
        }
        if let [last] = members[..] {
            *members = Vec::new();
            shard.free.push(group);
            remove(&mut shard.folded, slot);
            insert(&mut shard.folded, hash.slot(last.0));
            self.remove_shown(segments, last);
        }
        self.remove_shown(segments, id);
    }

    fn insert_shown(&mut self, segments: &Segments, id: NameId) {
        let hash = self.hash(&segments.shown(id));
        insert(&mut self.shards[hash.shard].shown, hash.slot(id.0));
    }

    fn remove_shown(&mut self, segments: &Segments, id: NameId) {
        let hash = self.hash(&segments.shown(id));
        remove(&mut self.shards[hash.shard].shown, hash.slot(id.0));
    }

    fn hash(&self, text: &[u8]) -> Hash {
        let hash = self.hasher.hash_one(text);
        Hash {
            shard: usize::try_from(hash & (SHARDS as u64 - 1)).unwrap_or(0),
            kept: hash >> HASH_SHIFT,
        }
    }
}

impl Hash {
    fn slot(self, value: u64) -> Slot {
        Slot(self.kept << HASH_SHIFT | value)
    }
}

impl Shard {
    /// Does `slot` stand for `folded`?
    fn is(&self, slot: Slot, hash: Hash, segments: &Segments, folded: &[u8]) -> bool {
        let id = || match slot.group() {
            Some(group) => self.groups[group].first().copied(),
            None => Some(slot.id()),
        };
        slot.0 >> HASH_SHIFT == hash.kept && id().is_some_and(|id| segments.folded(id) == folded)
    }
}

/// What is kept of a hash, as the table wants it: its tag is taken from the high bits.
fn spread(kept: u64) -> u64 {
    kept.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn insert(table: &mut HashTable<Slot>, slot: Slot) {
    let hash = |slot: &Slot| spread(slot.0 >> HASH_SHIFT);
    table.insert_unique(hash(&slot), slot, hash);
}

fn remove(table: &mut HashTable<Slot>, slot: Slot) {
    let hash = spread(slot.0 >> HASH_SHIFT);
    if let Ok(entry) = table.find_entry(hash, |other| other.0 == slot.0) {
        entry.remove();
    }
}
