//! A search in short steps: each goes through as many segments as it can in about a fifth of a millisecond.

use super::texts::{Budget, END, Fit, Needle};
use super::{Index, NameId, Rank};
use crate::wire::text::{fold, without_accents};

/// Work of one step, about 200 µs.
const STEP: Budget = Budget(2000);
/// Hits that the first step of a listing gathers; later ones gather more.
const FIRST_HITS: usize = 32;
const MORE_HITS: usize = 256;
/// Steps of one count.
const MAX_COUNT_STEPS: usize = 5;

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
    /// Adds the names that fit, from `from` on, to `hits`, until there are `limit`, or for about 200 µs.
    /// Gives the place to go on from, when something may be left; the index may have changed until then.
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

    /// The names that contain `term`, whatever its case, best first, from a place of an earlier walk on.
    pub fn search(&self, term: &str, from: (Rank, NameId)) -> impl Iterator<Item = (Rank, NameId)> {
        let query = Query::new(term);
        let (mut hits, mut next, mut limit) = (Vec::new(), Some(from), FIRST_HITS);
        std::iter::from_fn(move || {
            while hits.is_empty() {
                next = self.step(&query, next?, limit, &mut hits);
                hits.reverse();
                limit = MORE_HITS;
            }
            hits.pop()
        })
    }

    /// How many names contain `term`: all of them up to `limit`, unless that takes longer than a
    /// millisecond or so.
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

    const fn next(self) -> Option<Self> {
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
