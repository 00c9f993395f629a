//! Many sets of numbers, four bytes each as long as they have one member.
//!
//! Most names have one content, and most contents one holder. Whoever inserts says where, so that each
//! table keeps its own order.

/// A set in a [`Sets`]: its only member, the place of its list, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Set(u32);

impl Set {
    pub(super) const EMPTY: Self = Self(u32::MAX);
    /// From here on a number is the place of a list.
    const LISTS: u32 = 1 << 31;

    /// # Panics
    /// For a number of 2^31 or more: there is no memory for so many of anything.
    pub(super) fn of(number: u32) -> Self {
        assert!(number < Self::LISTS, "two thousand million fit no machine");
        Self(number)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }
}

/// The lists of all sets that have more than one member.
#[derive(Default)]
pub(super) struct Sets {
    lists: Vec<Vec<u32>>,
    free: Vec<u32>,
}

impl Sets {
    /// The members, in their order.
    pub(super) fn members<'a>(&'a self, set: &'a Set) -> &'a [u32] {
        if set.is_empty() {
            &[]
        } else if set.0 < Set::LISTS {
            std::slice::from_ref(&set.0)
        } else {
            &self.lists[(set.0 - Set::LISTS) as usize]
        }
    }

    /// Adds `number`, as the member number `position`.
    pub(super) fn insert(&mut self, set: &mut Set, position: usize, number: u32) {
        let added = Set::of(number);
        if set.is_empty() {
            *set = added;
        } else if set.0 < Set::LISTS {
            let mut list = Vec::with_capacity(2);
            list.push(set.0);
            list.insert(position, number);
            let place = self.free.pop().unwrap_or_else(|| {
                self.lists.push(Vec::new());
                u32::try_from(self.lists.len() - 1).expect("there are fewer lists than numbers")
            });
            self.lists[place as usize] = list;
            *set = Set(Set::LISTS + place);
        } else {
            self.lists[(set.0 - Set::LISTS) as usize].insert(position, number);
        }
    }

    /// Takes out the member number `position`.
    pub(super) fn remove(&mut self, set: &mut Set, position: usize) {
        if set.0 < Set::LISTS || set.is_empty() {
            *set = Set::EMPTY;
            return;
        }
        let place = set.0 - Set::LISTS;
        let list = &mut self.lists[place as usize];
        list.remove(position);
        if let [last] = list[..] {
            *list = Vec::new();
            self.free.push(place);
            *set = Set(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sets_hold_what_vectors_hold(steps in prop::collection::vec((0_usize..4, 0_u32..6), 0..200)) {
            let mut sets = Sets::default();
            let mut ours = [Set::EMPTY; 4];
            let mut theirs: [Vec<u32>; 4] = Default::default();
            for (which, number) in steps {
                match theirs[which].binary_search(&number) {
                    Ok(position) => {
                        theirs[which].remove(position);
                        sets.remove(&mut ours[which], position);
                    }
                    Err(position) => {
                        theirs[which].insert(position, number);
                        sets.insert(&mut ours[which], position, number);
                    }
                }
                for (our, their) in ours.iter().zip(&theirs) {
                    prop_assert_eq!(sets.members(our), &their[..]);
                }
                let lists = theirs.iter().filter(|list| list.len() > 1).count();
                prop_assert_eq!(sets.lists.len() - sets.free.len(), lists);
            }
        }
    }
}
