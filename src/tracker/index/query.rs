//! A search in short steps: each goes through as many segments as it can in half a millisecond or so, and a
//! walk is a few of them.

use super::texts::{Budget, END, Fit, Needle};
use super::{Index, NameId, Rank};
use crate::wire::text::{fold, without_accents};

/// Work of one step. Of a hundred first steps for different terms one takes longer than 0.3 ms among a million
/// names, than 0.65 ms among ten million.
const STEP: Budget = Budget(2000);
/// Hits that the first step of a listing gathers; later ones gather more.
const FIRST_HITS: usize = 32;
const MORE_HITS: usize = 256;
/// Steps of one walk.
const MAX_STEPS: usize = 8;
/// Steps of one count.
const MAX_COUNT_STEPS: usize = 3;

/// A term, ready to be looked for.
pub struct Query {
    folded: Option<Needle>,
    bare: Option<Needle>,
    has_accents: bool,
}

impl Query {
    /// For `term`, whatever its case, composition and accents.
    #[must_use]
    pub fn new(term: &str) -> Self {
        let folded = fold(term);
        let bare = without_accents(&folded);
        let has_accents = bare != folded;
        let needle = |text: String| {
            let is_term = !text.is_empty() && !text.as_bytes().contains(&END);
            is_term.then(|| Needle::new(&text))
        };
        Self {
            folded: needle(folded),
            bare: needle(bare),
            has_accents,
        }
    }

    pub(super) const fn folded(&self) -> Option<&Needle> {
        self.folded.as_ref()
    }

    pub(super) const fn bare(&self) -> Option<&Needle> {
        self.bare.as_ref()
    }

    pub(super) const fn has_accents(&self) -> bool {
        self.has_accents
    }
}

/// Names that were counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// As many at least.
    pub names: usize,
    /// There are no others.
    pub is_all: bool,
}

/// Where every listing begins.
pub const START: (Rank, NameId) = (Rank::Exact, NameId(0));

impl Index {
    /// Adds the names that fit, from `from` on, to `hits`, until there are `limit`, or for half a millisecond
    /// or so. Gives the place to go on from, when something may be left; the index may have changed until then.
    pub fn step(
        &self,
        query: &Query,
        from: (Rank, NameId),
        limit: usize,
        hits: &mut Vec<(Rank, NameId)>,
    ) -> Option<(Rank, NameId)> {
        self.step_within(STEP, query, from, (limit.max(1), hits))
    }

    pub(super) fn step_within(
        &self,
        mut budget: Budget,
        query: &Query,
        from: (Rank, NameId),
        (limit, hits): (usize, &mut Vec<(Rank, NameId)>),
    ) -> Option<(Rank, NameId)> {
        let needle = query.folded()?;
        let (mut rank, mut id) = from;
        loop {
            let left = if rank == Rank::Exact {
                self.step_exact(needle, id, limit, hits)
            } else {
                self.step_rank(query, (rank, id), &mut budget, (limit, hits))
            };
            if let Some(next) = left {
                return Some((rank, next));
            }
            (rank, id) = (rank.next()?, NameId(0));
            if hits.len() >= limit {
                return Some((rank, id));
            }
        }
    }

    fn step_exact(
        &self,
        needle: &Needle,
        from: NameId,
        limit: usize,
        hits: &mut Vec<(Rank, NameId)>,
    ) -> Option<NameId> {
        let ids = self.names.ids(&self.segments, needle.term())?;
        let ids = ids.as_slice();
        let ids = &ids[ids.partition_point(|id| *id < from)..];
        let (now, later) = ids.split_at(ids.len().min(limit.saturating_sub(hits.len())));
        hits.extend(now.iter().map(|id| (Rank::Exact, *id)));
        later.first().copied()
    }

    fn step_rank(
        &self,
        query: &Query,
        (rank, from): (Rank, NameId),
        budget: &mut Budget,
        (limit, hits): (usize, &mut Vec<(Rank, NameId)>),
    ) -> Option<NameId> {
        let mut segments = self.segments.all
            [self.segments.number_of(from).min(self.segments.all.len())..]
            .iter()
            .peekable();
        while let Some(segment) = segments.next() {
            let from = from.max(segment.first());
            budget.spend(1);
            let left = segment.walk(query, rank, from, budget, (limit, hits));
            let next = segments.peek().map(|next| next.first());
            if left.is_some() {
                return left;
            }
            if hits.len() >= limit || budget.is_spent() {
                return next;
            }
        }
        None
    }

    /// The names that contain `term`, whatever its case, best first, from a place of an earlier walk on. A
    /// walk is a few steps; when something may be left, it ends with an error: the place to go on from.
    pub fn search(
        &self,
        term: &str,
        from: (Rank, NameId),
    ) -> impl Iterator<Item = Result<(Rank, NameId), (Rank, NameId)>> {
        let query = Query::new(term);
        let (mut hits, mut next, mut steps) = (Vec::new(), Some(from), 0);
        std::iter::from_fn(move || {
            while hits.is_empty() {
                let from = next.take()?;
                if steps == MAX_STEPS {
                    return Some(Err(from));
                }
                let limit = if steps == 0 { FIRST_HITS } else { MORE_HITS };
                next = self.step(&query, from, limit, &mut hits);
                hits.reverse();
                steps += 1;
            }
            hits.pop().map(Ok)
        })
    }

    /// How many names contain `term`: all of them up to `limit`, unless that takes more
    /// than a few steps.
    #[must_use]
    pub fn count(&self, term: &str, limit: usize) -> Count {
        let query = Query::new(term);
        let (mut hits, mut next) = (Vec::new(), Some(START));
        for _ in 0..MAX_COUNT_STEPS {
            let Some(from) = next else { break };
            next = self.step(&query, from, limit + 1, &mut hits);
            if hits.len() > limit {
                break;
            }
        }
        Count {
            names: hits.len().min(limit),
            is_all: next.is_none() && hits.len() <= limit,
        }
    }
}

impl Rank {
    /// How the term stands in names of this rank.
    pub(super) const fn fit(self) -> Fit {
        match self {
            Self::Exact | Self::BareExact => Fit::Whole,
            Self::Prefix | Self::BarePrefix => Fit::Start,
            Self::Inside | Self::BareInside => Fit::Inside,
        }
    }

    /// Only without accents?
    pub(super) fn is_bare(self) -> bool {
        self >= Self::BareExact
    }

    /// The one after it.
    pub(in crate::tracker) const fn next(self) -> Option<Self> {
        Some(match self {
            Self::Exact => Self::Prefix,
            Self::Prefix => Self::Inside,
            Self::Inside => Self::BareExact,
            Self::BareExact => Self::BarePrefix,
            Self::BarePrefix => Self::BareInside,
            Self::BareInside => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that are made of `before`, a number and `after`.
    fn numbered(count: usize, segments_of: usize, before: &str, after: &str) -> Index {
        let mut index = Index::with_segments_of(segments_of);
        for number in 0..count {
            index.insert(&format!("{before} {number}{after}").parse().unwrap());
        }
        index
    }

    /// Each name is on the lists of the term, and none holds it.
    fn near_misses(count: usize) -> Index {
        numbered(count, 1 << 16, "abc", " bcd")
    }

    #[test]
    fn a_step_looks_at_no_more_names_than_its_budget_says() {
        const NAMES: usize = 6000;
        const UNITS: usize = 100;
        let cases = [
            // Lists of numbers, and bitmaps.
            (1000, "abc", " bcd", "abcd"),
            (1 << 16, "abc", " bcd", "abcd"),
            // The lines themselves.
            (1 << 16, "ab", "", "ab"),
            (1 << 16, "a", "", "a"),
        ];
        for (segments_of, before, after, term) in cases {
            let index = numbered(NAMES, segments_of, before, after);
            let query = Query::new(term);
            let (mut hits, mut steps, mut next) = (Vec::new(), 0, Some(START));
            while let Some(from) = next {
                let limit = (usize::MAX, &mut hits);
                next = index.step_within(Budget(UNITS), &query, from, limit);
                steps += 1;
            }
            // Once for those that begin with the term, once for the others.
            assert!(steps >= 2 * NAMES / UNITS, "{term:?}: {steps} steps");
        }
    }

    #[test]
    fn a_step_ends_though_it_found_nothing() {
        let (index, mut hits) = (near_misses(3 * STEP.0), Vec::new());
        let next = index.step(&Query::new("abcd"), START, 20, &mut hits);
        assert!(hits.is_empty() && next.is_some_and(|next| next > START));
    }

    #[test]
    fn a_walk_ends_though_it_found_nothing_and_says_where_to_go_on() {
        let index = near_misses((MAX_STEPS + 1) * STEP.0);
        let found: Vec<_> = index.search("abcd", START).collect();
        assert!(matches!(found[..], [Err(next)] if next > START));
    }

    #[test]
    fn a_count_ends_though_not_all_names_were_looked_at() {
        let count = |names| near_misses(names).count("abcd", 1000);
        let nothing = |is_all| Count { names: 0, is_all };
        assert_eq!(count(STEP.0), nothing(true));
        assert_eq!(count((MAX_COUNT_STEPS + 1) * STEP.0), nothing(false));
    }
}
