//! What is published: each name once, each content once, and who has which under which.
//!
//! ```text
//! name ─▶ its entries, by content    Entry    24 bytes: name, content, length and kind, holders
//! content id ─▶ Content              Content  36 bytes: id, holders
//! peer ─▶ its files                  8 bytes each: content, entry
//! ```
//! Names themselves lie in the index only. Tables hold numbers and compare what these stand for, so an id
//! is kept once; a set of one holder or one entry is its number.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use super::index::{Index, NameId};
use super::registry::{ContentPrefix, PeerNumber, prefix_of};
use super::sets::{Set, Sets};
use crate::wire::control::{Publication, PublicationKind};
use crate::wire::id::ContentId;

/// The upper bits of a length say that it is a folder's, or of what is being hashed: lengths end far below them.
const FOLDER: u64 = 1 << 63;
const HASHING: u64 = 1 << 62;
const LOCKED: u64 = 1 << 61;
const KIND: u64 = FOLDER | HASHING | LOCKED;

struct Content {
    id: ContentId,
    /// In the order of their numbers.
    holders: Set,
}

struct Entry {
    name: NameId,
    len_and_kind: u64,
    content: u32,
    /// In the order of their numbers.
    holders: Set,
}

/// What one peer publishes: content and entry of each file, in this order.
pub(super) type Files = Vec<u64>;

/// One file of a peer: where it stands among its files.
fn place(content: u32, entry: u32) -> u64 {
    u64::from(content) << 32 | u64::from(entry)
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of it")]
const fn parts(place: u64) -> (u32, u32) {
    ((place >> 32) as u32, place as u32)
}

/// A name with a content, and who has it.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) content: ContentId,
    pub(super) len: u64,
    pub(super) kind: PublicationKind,
    pub(super) holders: &'a [PeerNumber],
}

/// All that is published.
#[derive(Default)]
pub(super) struct Catalog {
    contents: Vec<Content>,
    free_contents: Vec<u32>,
    entries: Vec<Entry>,
    free_entries: Vec<u32>,
    sets: Sets,
    by_content: HashTable<u32>,
    /// The entries of each name, in the order of their contents' ids, lengths and kinds.
    by_name: HashTable<Set>,
    hashes: RandomState,
    index: Index,
}

impl Catalog {
    /// The names.
    pub(super) const fn index(&self) -> &Index {
        &self.index
    }

    /// Does `peer` publish this?
    pub(super) fn has(&self, peer: PeerNumber, file: &Publication) -> bool {
        let entry = self.find(file).map(|entry| &self.entries[entry as usize]);
        entry.is_some_and(|entry| {
            let holders = self.sets.members(&entry.holders);
            holders.binary_search(&peer).is_ok()
        })
    }

    /// Adds a file of `peer`, which it does not publish yet.
    pub(super) fn add(&mut self, peer: PeerNumber, files: &mut Files, file: &Publication) {
        let name = self.index.insert(&file.name);
        let content = self.content_of(file.content);
        let entry = self.entry_of(name, content, len_and_kind(file));
        let holders = &mut self.entries[entry as usize].holders;
        insert_sorted(&mut self.sets, holders, peer);
        let holders = &mut self.contents[content as usize].holders;
        insert_sorted(&mut self.sets, holders, peer);
        let place = place(content, entry);
        if let Err(position) = files.binary_search(&place) {
            files.insert(position, place);
        }
    }

    /// Takes out a file of `peer`; `false` when it does not publish that.
    pub(super) fn remove(
        &mut self,
        peer: PeerNumber,
        files: &mut Files,
        file: &Publication,
    ) -> bool {
        let Some(entry) = self.find(file) else {
            return false;
        };
        let place = place(self.entries[entry as usize].content, entry);
        let Ok(position) = files.binary_search(&place) else {
            return false;
        };
        files.remove(position);
        let content = parts(place).0;
        let is_same = |neighbour: Option<&u64>| {
            neighbour.is_some_and(|neighbour| parts(*neighbour).0 == content)
        };
        let has_it_still = is_same(files.get(position))
            || is_same(position.checked_sub(1).and_then(|n| files.get(n)));
        self.leave(peer, place, has_it_still);
        true
    }

    /// Takes out all files of `peer`.
    pub(super) fn remove_all(&mut self, peer: PeerNumber, files: &mut Files) {
        let files = std::mem::take(files);
        for (number, file) in files.iter().enumerate() {
            let next = files.get(number + 1);
            let has_it_still = next.is_some_and(|next| parts(*next).0 == parts(*file).0);
            self.leave(peer, *file, has_it_still);
        }
    }

    /// Who has a content, in the order of their numbers; and the content's own number.
    pub(super) fn holders(&self, id: &ContentId) -> (u32, &[PeerNumber]) {
        let hash = self.hashes.hash_one(id);
        let is_it = |number: &u32| self.contents[*number as usize].id == *id;
        let Some(number) = self.by_content.find(hash, is_it) else {
            return (0, &[]);
        };
        let holders = self.sets.members(&self.contents[*number as usize].holders);
        (*number, holders)
    }

    /// The length that a peer with these files says a content has.
    pub(super) fn len_of(&self, content: u32, files: &Files) -> Option<u64> {
        let first = files.partition_point(|file| *file < place(content, 0));
        let (found, entry) = parts(*files.get(first)?);
        (found == content).then(|| self.entries[entry as usize].len_and_kind & !KIND)
    }

    /// What bears a name, from the contents with a prefix on, but for the first so many of those.
    pub(super) fn claims(
        &self,
        name: NameId,
        (prefix, given): (ContentPrefix, u32),
    ) -> impl Iterator<Item = Claim<'_>> {
        let found = self
            .by_name
            .find(self.hashes.hash_one(name), |set| self.name_of(set) == name);
        let entries = found.map_or(&[][..], |set| self.sets.members(set));
        let first = entries.partition_point(|entry| self.prefix(*entry) < prefix);
        let same = entries[first..].partition_point(|entry| self.prefix(*entry) == prefix);
        let first = first + same.min(given as usize);
        entries[first..].iter().map(|entry| self.claim(*entry).1)
    }

    /// One file of a peer after `after`: its place, its name and the rest.
    pub(super) fn files_after(
        &self,
        files: &Files,
        after: Option<u64>,
    ) -> impl Iterator<Item = (u64, NameId, Claim<'_>)> {
        let first = after.map_or(0, |after| files.partition_point(|file| *file <= after));
        files[first..].iter().map(|file| {
            let (name, claim) = self.claim(parts(*file).1);
            (*file, name, claim)
        })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_content.is_empty()
            && self.by_name.is_empty()
            && self.index.is_empty()
            && self.entries.len() == self.free_entries.len()
            && self.contents.len() == self.free_contents.len()
    }

    fn claim(&self, entry: u32) -> (NameId, Claim<'_>) {
        let entry = &self.entries[entry as usize];
        let kind = match entry.len_and_kind & KIND {
            0 => PublicationKind::File,
            FOLDER => PublicationKind::Folder,
            HASHING => PublicationKind::HashingFile,
            LOCKED => PublicationKind::LockedFile,
            _ => PublicationKind::HashingFolder,
        };
        let claim = Claim {
            content: self.contents[entry.content as usize].id,
            len: entry.len_and_kind & !KIND,
            kind,
            holders: self.sets.members(&entry.holders),
        };
        (entry.name, claim)
    }

    /// What the entries of one name are sorted by.
    fn key(&self, entry: u32) -> (ContentId, u64) {
        let entry = &self.entries[entry as usize];
        (self.contents[entry.content as usize].id, entry.len_and_kind)
    }

    fn prefix(&self, entry: u32) -> ContentPrefix {
        prefix_of(&self.key(entry).0)
    }

    fn name_of(&self, set: &Set) -> NameId {
        let first = self.sets.members(set)[0];
        self.entries[first as usize].name
    }

    fn find(&self, file: &Publication) -> Option<u32> {
        let name = self.index.find(&file.name)?;
        let hash = self.hashes.hash_one(name);
        let set = self.by_name.find(hash, |set| self.name_of(set) == name)?;
        let wanted = (file.content, len_and_kind(file));
        let entries = self.sets.members(set);
        let position = entries.binary_search_by_key(&wanted, |entry| self.key(*entry));
        Some(entries[position.ok()?])
    }

    fn content_of(&mut self, id: ContentId) -> u32 {
        let Self {
            contents, hashes, ..
        } = self;
        let hash = hashes.hash_one(id);
        let is_it = |number: &u32| contents[*number as usize].id == id;
        let hash_of = |number: &u32| hashes.hash_one(contents[*number as usize].id);
        match self.by_content.entry(hash, is_it, hash_of) {
            TableEntry::Occupied(found) => *found.get(),
            TableEntry::Vacant(vacant) => {
                let content = Content {
                    id,
                    holders: Set::EMPTY,
                };
                let number = keep(&mut self.contents, &mut self.free_contents, content);
                vacant.insert(number);
                number
            }
        }
    }

    fn entry_of(&mut self, name: NameId, content: u32, len_and_kind: u64) -> u32 {
        let hash = self.hashes.hash_one(name);
        let found = self.by_name.find(hash, |set| self.name_of(set) == name);
        let wanted = (self.contents[content as usize].id, len_and_kind);
        let position = found.map(|set| {
            let entries = self.sets.members(set);
            let found = entries.binary_search_by_key(&wanted, |entry| self.key(*entry));
            found.map(|position| entries[position])
        });
        if let Some(Ok(entry)) = position {
            return entry;
        }
        let entry = Entry {
            name,
            len_and_kind,
            content,
            holders: Set::EMPTY,
        };
        let number = keep(&mut self.entries, &mut self.free_entries, entry);
        let Self {
            entries,
            sets,
            hashes,
            by_name,
            ..
        } = self;
        let name_of = |sets: &Sets, set: &Set| entries[sets.members(set)[0] as usize].name;
        if let Some(Err(position)) = position {
            let set = by_name.find_mut(hash, |set| name_of(sets, set) == name);
            let set = set.expect("it was found a moment ago");
            sets.insert(set, position, number);
        } else {
            by_name.insert_unique(hash, Set::of(number), |set| {
                hashes.hash_one(name_of(sets, set))
            });
        }
        number
    }

    /// `peer` has the file at `place` no longer, and perhaps its content no longer.
    fn leave(&mut self, peer: PeerNumber, place: u64, has_it_still: bool) {
        let (content, number) = parts(place);
        let entry = &mut self.entries[number as usize];
        remove_sorted(&mut self.sets, &mut entry.holders, peer);
        if entry.holders.is_empty() {
            self.drop_entry(number);
        }
        if has_it_still {
            return;
        }
        let Content { id, holders } = &mut self.contents[content as usize];
        remove_sorted(&mut self.sets, holders, peer);
        if holders.is_empty() {
            let hash = self.hashes.hash_one(*id);
            if let Ok(found) = self.by_content.find_entry(hash, |other| *other == content) {
                found.remove();
            }
            self.free_contents.push(content);
        }
    }

    fn drop_entry(&mut self, number: u32) {
        let name = self.entries[number as usize].name;
        let hash = self.hashes.hash_one(name);
        let found = self.by_name.find(hash, |set| self.name_of(set) == name);
        let position = found.and_then(|set| {
            let key = self.key(number);
            let members = self.sets.members(set);
            members
                .binary_search_by_key(&key, |entry| self.key(*entry))
                .ok()
        });
        let Self {
            entries,
            sets,
            by_name,
            ..
        } = self;
        let is_it = |set: &Set| entries[sets.members(set)[0] as usize].name == name;
        if let (Ok(mut found), Some(position)) = (by_name.find_entry(hash, is_it), position) {
            sets.remove(found.get_mut(), position);
            if found.get().is_empty() {
                found.remove();
                self.index.remove(name);
            }
        }
        self.free_entries.push(number);
    }
}

fn len_and_kind(file: &Publication) -> u64 {
    match file.kind {
        PublicationKind::File => file.len,
        PublicationKind::Folder => file.len | FOLDER,
        PublicationKind::HashingFile => file.len | HASHING,
        PublicationKind::HashingFolder => file.len | FOLDER | HASHING,
        PublicationKind::LockedFile => file.len | LOCKED,
    }
}

fn insert_sorted(sets: &mut Sets, set: &mut Set, number: u32) {
    if let Err(position) = sets.members(set).binary_search(&number) {
        sets.insert(set, position, number);
    }
}

fn remove_sorted(sets: &mut Sets, set: &mut Set, number: u32) {
    if let Ok(position) = sets.members(set).binary_search(&number) {
        sets.remove(set, position);
    }
}

/// Puts `value` into a free place, or a new one.
fn keep<T>(values: &mut Vec<T>, free: &mut Vec<u32>, value: T) -> u32 {
    if let Some(number) = free.pop() {
        values[number as usize] = value;
        return number;
    }
    values.push(value);
    u32::try_from(values.len() - 1).expect("two thousand million fit no machine")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn file(name: u8, content: u8) -> Publication {
        Publication {
            name: format!("name {name}").parse().unwrap(),
            content: ContentId([content; 32]),
            len: u64::from(content) + 1,
            kind: kind_of(name),
        }
    }

    const fn kind_of(name: u8) -> PublicationKind {
        match name {
            0 => PublicationKind::Folder,
            1 => PublicationKind::HashingFile,
            2 => PublicationKind::HashingFolder,
            3 => PublicationKind::LockedFile,
            _ => PublicationKind::File,
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_list_of_triples_holds(
            steps in prop::collection::vec((0_u32..4, 0_u8..5, 0_u8..5), 0..120),
        ) {
            let mut catalog = Catalog::default();
            let mut files: [Files; 4] = Default::default();
            let mut model = BTreeSet::new();
            for (peer, name, content) in steps {
                let (file, own) = (file(name, content), &mut files[peer as usize]);
                prop_assert_eq!(catalog.has(peer, &file), model.contains(&(peer, name, content)));
                if model.remove(&(peer, name, content)) {
                    prop_assert!(catalog.remove(peer, own, &file));
                } else {
                    prop_assert!(!catalog.remove(peer, own, &file));
                    catalog.add(peer, own, &file);
                    model.insert((peer, name, content));
                }
                for content in 0..5 {
                    let having: BTreeSet<_> =
                        model.iter().filter(|(_, _, c)| *c == content).map(|(p, ..)| *p).collect();
                    let (number, holders) = catalog.holders(&ContentId([content; 32]));
                    prop_assert_eq!(holders, &having.iter().copied().collect::<Vec<_>>()[..]);
                    for holder in holders {
                        let len = catalog.len_of(number, &files[*holder as usize]);
                        prop_assert_eq!(len, Some(u64::from(content) + 1));
                    }
                }
                for name in 0..5 {
                    let contents: BTreeSet<_> =
                        model.iter().filter(|(_, n, _)| *n == name).map(|(_, _, c)| *c).collect();
                    let id = catalog.index.find(&file_name(name));
                    prop_assert_eq!(id.is_some(), !contents.is_empty());
                    let claims = id.into_iter().flat_map(|id| catalog.claims(id, ([0; 16], 0)));
                    let claims = claims.inspect(|claim| assert_eq!(claim.kind, kind_of(name)));
                    let found: Vec<_> = claims.map(|claim| claim.content.0[0]).collect();
                    prop_assert_eq!(found, contents.into_iter().collect::<Vec<_>>());
                }
                for (peer, own) in (0..).zip(&files) {
                    let count = model.iter().filter(|(p, ..)| *p == peer).count();
                    prop_assert_eq!(catalog.files_after(own, None).count(), count);
                    let second = catalog.files_after(own, None).next().map(|(place, ..)| place);
                    prop_assert_eq!(catalog.files_after(own, second).count(), count.saturating_sub(1));
                }
            }
            for (peer, own) in (0..).zip(&mut files) {
                catalog.remove_all(peer, own);
            }
            prop_assert!(catalog.is_empty());
        }
    }

    fn file_name(name: u8) -> crate::wire::text::FileName {
        file(name, 0).name
    }

    #[test]
    fn the_records_are_as_small_as_they_are_said_to_be() {
        assert_eq!((size_of::<Entry>(), size_of::<Content>()), (24, 36));
    }
}
