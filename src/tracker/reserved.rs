//! Whose name is whose: the key that used it first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::wire::id::PeerId;

/// Names whose first key is remembered.
const MAX_RESERVED: usize = 100_000;
/// Names that one key may have.
const MAX_RESERVED_BY_ONE: u32 = 8;

/// Folded names, each with the key that used it first.
#[derive(Default)]
pub(super) struct Reserved {
    owners: HashMap<String, PeerId>,
    order: VecDeque<String>,
    of_one: HashMap<PeerId, u32>,
}

impl Reserved {
    /// Does the name belong to another key?
    pub(super) fn is_foreign(&self, folded: &str, peer: &PeerId) -> bool {
        self.owners.get(folded).is_some_and(|first| first != peer)
    }

    /// Remembers whose name it is. A key that changes its name often keeps only so many: nobody shall push
    /// out what others have.
    pub(super) fn reserve(&mut self, folded: String, peer: PeerId) {
        if self.owners.contains_key(&folded) {
            return;
        }
        let own = self.of_one.entry(peer).or_insert(0);
        if *own >= MAX_RESERVED_BY_ONE {
            return;
        }
        *own += 1;
        self.owners.insert(folded.clone(), peer);
        self.order.push_back(folded);
        if self.order.len() > MAX_RESERVED {
            let oldest = self.order.pop_front();
            let owner = oldest.and_then(|oldest| self.owners.remove(&oldest));
            if let Some(Entry::Occupied(mut left)) = owner.map(|owner| self.of_one.entry(owner)) {
                *left.get_mut() -= 1;
                if *left.get() == 0 {
                    left.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> PeerId {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        PeerId(key)
    }

    #[test]
    fn one_key_cannot_push_out_the_names_of_others() {
        let mut reserved = Reserved::default();
        reserved.reserve("ana".to_owned(), key(1));
        for number in 0..100 {
            reserved.reserve(format!("name{number}"), key(3));
        }
        assert_eq!(reserved.of_one[&key(3)], MAX_RESERVED_BY_ONE);
        assert_eq!(reserved.owners.len(), 1 + MAX_RESERVED_BY_ONE as usize);
        assert!(reserved.is_foreign("ana", &key(3)) && !reserved.is_foreign("ana", &key(1)));
    }

    #[test]
    fn so_many_names_are_remembered_and_the_oldest_is_free_again() {
        let mut reserved = Reserved::default();
        for number in 0..=MAX_RESERVED {
            reserved.reserve(format!("name{number}"), key(number));
        }
        assert_eq!(reserved.owners.len(), MAX_RESERVED);
        assert_eq!(reserved.of_one.len(), MAX_RESERVED);
        assert!(!reserved.is_foreign("name0", &key(7)));
        assert!(reserved.is_foreign("name1", &key(7)));
    }
}
