//! What is published for chosen people only: a list of its own for each who may see it.
//!
//! Nothing of it lies where all look, so that no count, no order and no cursor of anybody else tells that it is
//! there. Names are compared one by one: what is for one person is little.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::index::{Count, NameId, Rank};
use super::registry::Place;
use super::roster::PeerNumber;
use crate::wire::control::{Audience, Publication};
use crate::wire::id::{ContentId, PeerId};
use crate::wire::text::{fold, without_accents};

/// Names that one look compares. A millisecond or so.
const STEP: usize = 10_000;

/// Files of one peer for one other person: who gets them did not ask for them, and finds them first.
pub(super) const MAX_PARCELS: usize = 1000;

/// A file of one owner, as each who may see it has it on its list.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) file: Publication,
    folded: String,
    /// Without accents, where that differs.
    bare: Option<String>,
}

/// What an owner keeps of a parcel: where it lies, to take it out again.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) audience: Audience,
    /// Who has it on the list, the owner too, and under which number.
    readers: Vec<(PeerId, u64)>,
}

impl Sent {
    /// How much room it takes.
    pub(super) const fn weight(&self) -> usize {
        self.audience.peers().len()
    }
}

/// Whose list, whose file, and its number among those.
type Key = (PeerId, PeerNumber, u64);

/// A parcel with its owner and its place, or where a walk had better go on later.
pub(super) type Found<'a> = Result<(Place, PeerNumber, &'a Parcel), Place>;

/// All lists.
#[derive(Default)]
pub(super) struct Parcels {
    parcels: BTreeMap<Key, Arc<Parcel>>,
    /// The length that the owner says.
    by_content: BTreeMap<(PeerId, ContentId, PeerNumber, u64), u64>,
    /// How many are on each list, in all and of each owner: asked for with every page.
    counts: BTreeMap<PeerId, usize>,
    counts_of: BTreeMap<(PeerId, PeerNumber), usize>,
}

/// Adds one, or takes one off; what is none has no entry.
fn count_on<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, is_more: bool) {
    let count = counts.entry(key);
    match count {
        Entry::Occupied(mut count) if is_more => *count.get_mut() += 1,
        Entry::Occupied(count) if *count.get() <= 1 => drop(count.remove()),
        Entry::Occupied(mut count) => *count.get_mut() -= 1,
        Entry::Vacant(count) if is_more => drop(count.insert(1)),
        Entry::Vacant(_) => {}
    }
}

/// A term as names are compared with it.
struct Term {
    folded: String,
    bare: String,
}

impl Parcels {
    pub(super) fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.counts.is_empty() && self.counts_of.is_empty()
    }

    /// Adds a file of `owner` to the lists of `audience` and its own.
    pub(super) fn add(
        &mut self,
        (owner, key): (PeerNumber, PeerId),
        file: &Publication,
        audience: Audience,
    ) -> Sent {
        let folded = fold(file.name.as_str());
        let bare = without_accents(&folded);
        let parcel = Arc::new(Parcel {
            file: file.clone(),
            bare: (bare != folded).then_some(bare),
            folded,
        });
        let others = audience.peers().iter().copied().filter(|peer| *peer != key);
        let readers = others.chain([key]).map(|reader| {
            let list = (reader, owner, 0)..=(reader, owner, u64::MAX);
            let last = self.parcels.range(list).next_back();
            let number = last.map_or(1, |((.., number), _)| number + 1);
            let lies = (reader, file.content, owner, number);
            self.parcels
                .insert((reader, owner, number), Arc::clone(&parcel));
            self.by_content.insert(lies, file.len);
            count_on(&mut self.counts, reader, true);
            count_on(&mut self.counts_of, (reader, owner), true);
            (reader, number)
        });
        let readers = readers.collect();
        Sent { audience, readers }
    }

    /// Takes a file of `owner` off all lists.
    pub(super) fn remove(&mut self, owner: PeerNumber, file: &Publication, sent: &Sent) {
        for (reader, number) in &sent.readers {
            if self.parcels.remove(&(*reader, owner, *number)).is_some() {
                count_on(&mut self.counts, *reader, false);
                count_on(&mut self.counts_of, (*reader, owner), false);
            }
            self.by_content
                .remove(&(*reader, file.content, owner, *number));
        }
    }

    /// What `reader` may see of `owner`, after the file of that number.
    pub(super) fn of(
        &self,
        reader: PeerId,
        owner: PeerNumber,
        after: u64,
    ) -> impl Iterator<Item = (u64, &Parcel)> {
        let numbers = (reader, owner, after.saturating_add(1))..=(reader, owner, u64::MAX);
        let parcels = self.parcels.range(numbers);
        parcels.map(|((.., number), parcel)| (*number, &**parcel))
    }

    /// Who shows `content` to `reader`, after `after`, each with the length that it says.
    pub(super) fn holders(
        &self,
        reader: PeerId,
        content: ContentId,
        after: Option<PeerNumber>,
    ) -> impl Iterator<Item = (PeerNumber, u64)> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let all = (reader, content, first, 0)..=(reader, content, PeerNumber::MAX, u64::MAX);
        let mut last = None;
        let entries = self.by_content.range(all);
        entries.filter_map(move |((_, _, owner, _), len)| {
            // It may have it under several names.
            let is_new = last.replace(*owner) != Some(*owner);
            is_new.then_some((*owner, *len))
        })
    }

    /// All that `reader` may see, from `place` on. An error is the last of them: the rest had better wait.
    pub(super) fn all(&self, reader: PeerId, place: Place) -> impl Iterator<Item = Found<'_>> {
        let list = self.parcels.range(list_from(reader, place));
        list.map(|(key, parcel)| Ok((place_of(Rank::Exact, *key), key.1, &**parcel)))
    }

    /// What `reader` may see whose name contains `term`, best first, from `place` on, as [`Parcels::all`] gives it.
    pub(super) fn search(
        &self,
        reader: PeerId,
        term: &str,
        place: Place,
    ) -> impl Iterator<Item = Found<'_>> {
        let term = Term::new(term);
        let (mut rank, mut left) = (Some(place.rank), STEP);
        let mut list = self.parcels.range(list_from(reader, place));
        std::iter::from_fn(move || {
            loop {
                let now = rank?;
                let Some((key, parcel)) = list.next() else {
                    rank = now.next();
                    list = self.parcels.range(list_from(reader, Place::START));
                    continue;
                };
                if left == 0 {
                    rank = None;
                    return Some(Err(place_of(now, *key)));
                }
                left -= 1;
                if term.rank(parcel) == Some(now) {
                    return Some(Ok((place_of(now, *key), key.1, &**parcel)));
                }
            }
        })
    }

    /// How many names of what `reader` may see contain `term`, as far as one look reaches.
    pub(super) fn count(&self, reader: PeerId, term: &str) -> Count {
        let (term, mut list) = (
            Term::new(term),
            self.parcels.range(list_from(reader, Place::START)),
        );
        let looked = list.by_ref().take(STEP);
        let names = looked.filter(|(_, parcel)| term.rank(parcel).is_some());
        Count {
            names: names.count(),
            is_all: list.next().is_none(),
        }
    }

    /// How many files `reader` may see.
    pub(super) fn len(&self, reader: PeerId) -> usize {
        self.counts.get(&reader).copied().unwrap_or_default()
    }

    /// How many files of `owner` `reader` may see.
    pub(super) fn len_of(&self, reader: PeerId, owner: PeerNumber) -> usize {
        let count = self.counts_of.get(&(reader, owner));
        count.copied().unwrap_or_default()
    }
}

impl Term {
    fn new(term: &str) -> Self {
        let folded = fold(term);
        let bare = without_accents(&folded);
        Self { folded, bare }
    }

    /// How the name fits, in the order of the [index](super::index).
    fn rank(&self, parcel: &Parcel) -> Option<Rank> {
        let fit = |name: &str, term: &str, [whole, start, inside]: [Rank; 3]| match name.find(term)
        {
            _ if term.is_empty() => None,
            Some(0) if name.len() == term.len() => Some(whole),
            Some(0) => Some(start),
            found => found.map(|_| inside),
        };
        if self.folded.is_empty() {
            return None;
        }
        let ranks = [Rank::Exact, Rank::Prefix, Rank::Inside];
        fit(&parcel.folded, &self.folded, ranks).or_else(|| {
            let bare = parcel.bare.as_ref().unwrap_or(&parcel.folded);
            let ranks = [Rank::BareExact, Rank::BarePrefix, Rank::BareInside];
            fit(bare, &self.bare, ranks)
        })
    }
}

/// The list of `reader` from `place` on.
fn list_from(reader: PeerId, place: Place) -> std::ops::RangeInclusive<Key> {
    let owner = place.content.first_chunk().copied().unwrap_or_default();
    let owner = PeerNumber::from_be_bytes(owner);
    let number = u64::from_be_bytes(place.name.to_bytes());
    (reader, owner, number)..=(reader, PeerNumber::MAX, u64::MAX)
}

/// Where a parcel stands: among lists a number of the owner's is what a name is elsewhere.
fn place_of(rank: Rank, (_, owner, number): Key) -> Place {
    let mut content = [0; 16];
    content[..4].copy_from_slice(&owner.to_be_bytes());
    Place {
        rank,
        name: NameId::from_bytes(number.to_be_bytes()),
        content,
        given: 0,
        is_parcel: true,
    }
}
