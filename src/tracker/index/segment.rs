//! A run of names in the order of their ids: folded, as shown, and without accents where that differs.

use std::borrow::Cow;

use super::postings::CAPACITY;
use super::query::Query;
use super::spelling;
use super::texts::{Budget, Texts};
use super::{NameId, Rank};
use crate::wire::text::{FileName, fold, without_accents};

/// Bytes of spellings after which no further name is taken.
const MAX_SPELLINGS: usize = 8 << 20;

/// A name in the forms that the index keeps.
pub(super) struct Forms<T> {
    /// As shown.
    pub(super) shown: T,
    /// What is compared.
    pub(super) folded: T,
    /// The same without accents.
    pub(super) bare: T,
}

impl Forms<String> {
    pub(super) fn of(name: &FileName) -> Self {
        let shown = name.as_str().to_owned();
        let folded = fold(&shown);
        let bare = without_accents(&folded);
        Self {
            shown,
            folded,
            bare,
        }
    }
}

impl<T: AsRef<[u8]>> Forms<T> {
    pub(super) fn bytes(&self) -> Forms<&[u8]> {
        Forms {
            shown: self.shown.as_ref(),
            folded: self.folded.as_ref(),
            bare: self.bare.as_ref(),
        }
    }
}

/// Names, at most 2^16; the text of one that was taken out stays until the segment is cleaned.
pub(super) struct Segment {
    first: u64,
    /// From `first`; absent when each id follows the one before it.
    offsets: Option<Vec<u32>>,
    folded: Texts,
    /// Only of those names that have accents, whose positions `bare_of` holds.
    bare: Texts,
    bare_of: Vec<u16>,
    /// Only of those names that folding changed, whose positions `spelling_of` holds.
    spellings: Vec<u8>,
    spelling_starts: Vec<u32>,
    spelling_of: Vec<u16>,
    dead: Vec<u64>,
    live: usize,
}

impl Segment {
    /// For ids from `first` on, each following the one before it.
    pub(super) fn consecutive(first: NameId) -> Self {
        Self {
            first: first.0,
            offsets: None,
            folded: Texts::default(),
            bare: Texts::default(),
            bare_of: Vec::new(),
            spellings: Vec::new(),
            spelling_starts: Vec::new(),
            spelling_of: Vec::new(),
            dead: Vec::new(),
            live: 0,
        }
    }

    /// For some of the ids from `first` on.
    pub(super) fn with_gaps(first: NameId) -> Self {
        Self {
            offsets: Some(Vec::new()),
            ..Self::consecutive(first)
        }
    }

    /// The least id that it may hold.
    pub(super) fn first(&self) -> NameId {
        NameId(self.first)
    }

    /// Names that came, also those that were taken out.
    pub(super) fn len(&self) -> usize {
        self.folded.len()
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn byte_len(&self) -> usize {
        self.folded.byte_len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.folded.is_full() || self.spellings.len() >= MAX_SPELLINGS || self.bare.is_full()
    }

    /// Adds a name, whose id is above all that are there; there is room for it.
    pub(super) fn push(&mut self, id: NameId, forms: &Forms<&[u8]>) {
        let position = self.len();
        let short = u16::try_from(position).expect("a full segment takes no more");
        if let Some(offsets) = &mut self.offsets {
            let offset = u32::try_from(id.0 - self.first);
            offsets.push(offset.expect("segments far apart are not joined"));
        }
        self.folded.push(forms.folded);
        if forms.bare != forms.folded {
            self.bare.push(forms.bare);
            self.bare_of.push(short);
        }
        if forms.shown != forms.folded {
            let start = u32::try_from(self.spellings.len()).expect("a full segment takes no more");
            self.spelling_starts.push(start);
            self.spelling_of.push(short);
            spelling::encode(forms.shown, forms.folded, &mut self.spellings);
        }
        self.dead.resize(position / 64 + 1, 0);
        self.live += 1;
    }

    /// Takes the name at `position` out; says whether it was there.
    pub(super) fn kill(&mut self, position: usize) -> bool {
        let was_live = self.is_live(position);
        self.dead[position / 64] |= 1 << (position % 64);
        self.live -= usize::from(was_live);
        was_live
    }

    pub(super) fn is_live(&self, position: usize) -> bool {
        self.dead[position / 64] >> (position % 64) & 1 == 0
    }

    pub(super) fn id(&self, position: usize) -> NameId {
        let offset = match &self.offsets {
            None => position as u64,
            Some(offsets) => u64::from(offsets[position]),
        };
        NameId(self.first + offset)
    }

    /// Where the ids from `id` on begin.
    pub(super) fn position_from(&self, id: NameId) -> usize {
        let offset = id.0.saturating_sub(self.first);
        match &self.offsets {
            None => usize::try_from(offset).map_or(self.len(), |offset| offset.min(self.len())),
            Some(offsets) => offsets.partition_point(|there| u64::from(*there) < offset),
        }
    }

    /// Where `id` is.
    pub(super) fn position(&self, id: NameId) -> Option<usize> {
        let position = self.position_from(id);
        (position < self.len() && self.id(position) == id).then_some(position)
    }

    pub(super) fn folded(&self, position: usize) -> &[u8] {
        self.folded.get(position)
    }

    pub(super) fn shown(&self, position: usize) -> Cow<'_, [u8]> {
        let folded = self.folded(position);
        let Some(number) = number_of(&self.spelling_of, position) else {
            return Cow::Borrowed(folded);
        };
        let next = self.spelling_starts.get(number + 1);
        let end = next.map_or(self.spellings.len(), |next| *next as usize);
        let start = self.spelling_starts[number] as usize;
        spelling::decode(&self.spellings[start..end], folded)
    }

    /// The name at `position`, as it was pushed.
    pub(super) fn forms(&self, position: usize) -> Forms<Cow<'_, [u8]>> {
        let bare = number_of(&self.bare_of, position);
        let folded = self.folded(position);
        Forms {
            shown: self.shown(position),
            folded: Cow::Borrowed(folded),
            bare: Cow::Borrowed(bare.map_or(folded, |number| self.bare.get(number))),
        }
    }

    /// Adds the names of `rank` from `from` on to `hits`, until there are `limit`. Gives the id to go on
    /// from, when something is left.
    pub(super) fn walk(
        &self,
        query: &Query,
        rank: Rank,
        from: NameId,
        budget: &mut Budget,
        (limit, hits): (usize, &mut Vec<(Rank, NameId)>),
    ) -> Option<NameId> {
        let from = self.position_from(from);
        if rank.is_bare() {
            return self.walk_bare(query, rank, from, budget, (limit, hits));
        }
        let is_live = |position| self.is_live(position);
        let found = |position| {
            hits.push((rank, self.id(position)));
            hits.len() < limit
        };
        let needle = query.folded()?;
        let next = self
            .folded
            .walk(needle, rank.fit(), from, budget, is_live, found)?;
        (next < self.len()).then(|| self.id(next))
    }

    /// The same for names that hold the term only without their accents, or without its own.
    fn walk_bare(
        &self,
        query: &Query,
        rank: Rank,
        from: usize,
        budget: &mut Budget,
        (limit, hits): (usize, &mut Vec<(Rank, NameId)>),
    ) -> Option<NameId> {
        let (term, bare, fit) = (query.folded()?, query.bare()?, rank.fit());
        let is_new = |position: usize| self.is_live(position) && !term.is_in(self.folded(position));
        let room = limit.saturating_sub(hits.len()).max(1);
        let (mut positions, mut end) = (Vec::new(), usize::MAX);
        // Each of the two walks has the whole budget: else the second would end where it begins.
        let whole = *budget;
        let mut own = whole;
        if query.has_accents() {
            let next = self.folded.walk(
                bare,
                fit,
                from,
                &mut own,
                |position| number_of(&self.bare_of, position).is_none() && is_new(position),
                |position| {
                    positions.push(position);
                    positions.len() < room
                },
            );
            end = end.min(next.unwrap_or(usize::MAX));
        }
        budget.spend(whole.0 - own.0);
        own = whole;
        let before = positions.len();
        let owner = |number: usize| usize::from(self.bare_of[number]);
        let first = self.bare_of.partition_point(|of| usize::from(*of) < from);
        let next = self.bare.walk(
            bare,
            fit,
            first,
            &mut own,
            |number| is_new(owner(number)),
            |number| {
                positions.push(owner(number));
                positions.len() < before + room
            },
        );
        if let Some(next) = next.filter(|next| *next < self.bare_of.len()) {
            end = end.min(owner(next));
        }
        budget.spend(whole.0 - own.0);
        positions.sort_unstable();
        if let Some(more) = positions.get(room) {
            end = end.min(*more);
        }
        let wanted = positions.iter().take_while(|position| **position < end);
        hits.extend(wanted.map(|position| (rank, self.id(*position))));
        (end < self.len()).then(|| self.id(end))
    }

    /// Frees a part of it; says whether something is left.
    pub(super) fn free_some(&mut self) -> bool {
        self.folded.free_some() || self.bare.free_some()
    }
}

fn number_of(owners: &[u16], position: usize) -> Option<usize> {
    let position = u16::try_from(position).ok()?;
    owners.binary_search(&position).ok()
}

/// All names, in segments whose ids ascend.
pub(super) struct Segments {
    pub(super) all: Vec<Segment>,
    /// Names in each.
    pub(super) capacity: usize,
}

impl Segments {
    /// None, of at most `capacity` names each.
    pub(super) fn of(capacity: usize) -> Self {
        Self {
            all: Vec::new(),
            capacity: capacity.min(CAPACITY),
        }
    }

    /// The number of the segment in which `id` is, if it is anywhere.
    pub(super) fn number_of(&self, id: NameId) -> usize {
        let after = self.all.partition_point(|segment| segment.first() <= id);
        after.saturating_sub(1)
    }

    /// Segment and position of `id`, whether it was taken out or not.
    pub(super) fn place(&self, id: NameId) -> Option<(usize, usize)> {
        let number = self.number_of(id);
        Some((number, self.all.get(number)?.position(id)?))
    }

    /// The folded text of a name that is there.
    pub(super) fn folded(&self, id: NameId) -> &[u8] {
        let place = self.place(id);
        place.map_or(&[], |(number, position)| self.all[number].folded(position))
    }

    /// As it is shown.
    pub(super) fn shown(&self, id: NameId) -> Cow<'_, [u8]> {
        let place = self.place(id);
        place.map_or(Cow::Borrowed(&[]), |(number, position)| {
            self.all[number].shown(position)
        })
    }

    /// The segment that takes the name `next`.
    pub(super) fn open(&mut self, next: NameId) -> &mut Segment {
        let is_full = |last: &Segment| last.is_full() || last.len() >= self.capacity;
        if self.all.last().is_none_or(is_full) {
            self.all.push(Segment::consecutive(next));
        }
        self.all
            .last_mut()
            .expect("one was pushed if there was none")
    }
}
