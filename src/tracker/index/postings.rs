//! Which names hold which three bytes: one ascending list of positions for each key.
//!
//! A segment has 2^16 positions, so that a position is two bytes, and a list that more than a sixteenth of
//! all names are on is smaller as a bitmap. Lists of rare keys lie inside the table.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Names in one segment, at most.
pub(super) const CAPACITY: usize = 1 << 16;
/// Words of a bitmap of all positions.
pub(super) const WORDS: usize = CAPACITY / 64;
/// More positions than these are a bitmap.
const MAX_IDS: usize = CAPACITY / 16;
/// Positions that fit into the table itself.
const FEW: usize = 7;
/// Tables of one segment: a small one grows without a pause.
const TABLES: usize = 64;
/// Marks the first three bytes of a name.
const ANCHOR: u32 = 1 << 24;

/// Three bytes anywhere in a name.
pub(super) fn trigram(bytes: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

/// Three bytes at the beginning of a name.
pub(super) fn anchor(bytes: [u8; 3]) -> u32 {
    ANCHOR | trigram(bytes)
}

/// Ascending positions.
pub(super) enum List {
    /// Inside the table.
    Few { len: u8, ids: [u16; FEW] },
    /// Outside.
    Ids(Vec<u16>),
    /// A bit for each position.
    Bits { words: Box<[u64; WORDS]>, len: u32 },
}

impl List {
    /// How many.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few { len, .. } => usize::from(*len),
            Self::Ids(ids) => ids.len(),
            Self::Bits { len, .. } => *len as usize,
        }
    }

    /// The positions, unless they are a bitmap.
    pub(super) fn ids(&self) -> Option<&[u16]> {
        match self {
            Self::Few { len, ids } => Some(&ids[..usize::from(*len)]),
            Self::Ids(ids) => Some(ids),
            Self::Bits { .. } => None,
        }
    }

    /// Is `id` on it?
    pub(super) fn contains(&self, id: u16) -> bool {
        match self {
            Self::Bits { words, .. } => has_bit(&words[..], id),
            list => list.ids().is_some_and(|ids| ids.binary_search(&id).is_ok()),
        }
    }

    /// Adds its positions to a bitmap.
    pub(super) fn add_to(&self, all: &mut [u64; WORDS]) {
        match self {
            Self::Bits { words, .. } => {
                for (all, word) in all.iter_mut().zip(words.iter()) {
                    *all |= word;
                }
            }
            list => {
                for id in list.ids().unwrap_or_default() {
                    set_bit(all, *id);
                }
            }
        }
    }

    /// Adds `id`, which is not below any that is there.
    fn push(&mut self, id: u16) {
        if self.ids().is_some_and(|ids| ids.last() == Some(&id)) {
            return;
        }
        match self {
            Self::Few { len, ids } if usize::from(*len) < FEW => {
                ids[usize::from(*len)] = id;
                *len += 1;
            }
            Self::Few { ids, .. } => {
                let mut more = Vec::with_capacity(FEW + 5);
                more.extend_from_slice(ids);
                more.push(id);
                *self = Self::Ids(more);
            }
            Self::Ids(ids) if ids.len() < MAX_IDS => {
                if ids.len() == ids.capacity() {
                    ids.reserve_exact(ids.len() / 10 + 4);
                }
                ids.push(id);
            }
            Self::Ids(ids) => {
                let mut words = Box::new([0; WORDS]);
                for id in ids.iter().copied().chain([id]) {
                    set_bit(&mut words, id);
                }
                let len = u32::try_from(ids.len() + 1).unwrap_or(u32::MAX);
                *self = Self::Bits { words, len };
            }
            Self::Bits { words, len } => {
                *len += u32::from(!has_bit(&words[..], id));
                set_bit(words, id);
            }
        }
    }
}

fn has_bit(words: &[u64], id: u16) -> bool {
    words[usize::from(id) / 64] >> (id % 64) & 1 == 1
}

/// Sets the bit of a position.
pub(super) fn set_bit(words: &mut [u64; WORDS], id: u16) {
    words[usize::from(id) / 64] |= 1 << (id % 64);
}

struct Posting {
    key: u32,
    list: List,
}

/// The lists of one text.
#[derive(Default)]
pub(super) struct Postings {
    tables: Vec<HashTable<Posting>>,
    /// Odd, and nobody's to know: whoever could choose where his names lie could make them collide.
    factor: u64,
}

impl Postings {
    /// Adds `id`, the greatest so far, to the list of `key`.
    pub(super) fn push(&mut self, key: u32, id: u16) {
        if self.tables.is_empty() {
            self.tables.resize_with(TABLES, HashTable::new);
            self.factor = RandomState::new().hash_one(0) | 1;
        }
        let (factor, hash) = (self.factor, self.hash(key));
        let entry = self.tables[table_of(hash)].entry(
            hash,
            |posting| posting.key == key,
            |posting| hash_of(posting.key, factor),
        );
        match entry {
            Entry::Occupied(entry) => entry.into_mut().list.push(id),
            Entry::Vacant(entry) => {
                let mut ids = [0; FEW];
                ids[0] = id;
                let list = List::Few { len: 1, ids };
                entry.insert(Posting { key, list });
            }
        }
    }

    /// The list of `key`.
    pub(super) fn get(&self, key: u32) -> Option<&List> {
        let hash = self.hash(key);
        self.tables
            .get(table_of(hash))?
            .find(hash, |posting| posting.key == key)
            .map(|posting| &posting.list)
    }

    /// Frees a part of it; says whether something is left. It has thousands of lists.
    pub(super) fn free_some(&mut self) -> bool {
        self.tables.pop().is_some()
    }

    fn hash(&self, key: u32) -> u64 {
        hash_of(key, self.factor)
    }
}

fn hash_of(key: u32, factor: u64) -> u64 {
    let product = u64::from(key + 1).wrapping_mul(factor);
    // The table takes its place from the low bits, which know little of the key's high ones.
    product ^ (product >> 32) ^ (product >> 15)
}

/// By bits that the table itself hardly uses.
fn table_of(hash: u64) -> usize {
    (hash >> 40) as usize % TABLES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_what_it_was_given_as_it_grows() {
        for step in [1, 3, 15, 16, 17, 400] {
            let mut postings = Postings::default();
            let ids: Vec<u16> = (0..=u16::MAX).step_by(step).collect();
            for id in &ids {
                postings.push(7, *id);
                postings.push(7, *id);
            }
            let list = postings.get(7).unwrap();
            assert_eq!(list.len(), ids.len());
            assert_eq!(list.ids().is_none(), ids.len() > MAX_IDS, "{step}");
            let mut bits = [0; WORDS];
            list.add_to(&mut bits);
            for id in 0..=u16::MAX {
                let is_there = usize::from(id) % step == 0;
                assert_eq!(list.contains(id), is_there);
                assert_eq!(has_bit(&bits, id), is_there);
            }
            assert!(postings.get(8).is_none());
        }
    }

    #[test]
    fn a_place_in_the_table_is_as_small_as_it_can_be() {
        assert_eq!(size_of::<List>(), 24);
        assert_eq!(size_of::<Posting>(), 32);
    }
}
