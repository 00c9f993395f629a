//! Takes the texts of dead names out of memory, a few at a time, at the expense of whoever changes a name.
//!
//! The survivors of a segment of which a third is dead, and of neighbours that fit in with them, are copied
//! in their order into a fresh one, which then takes their place: ids and the order of listings stay.

use std::ops::Range;

use super::NameId;
use super::segment::{Segment, Segments};

/// Names copied at each change, and positions that are looked at for them.
const NAMES_AT_ONCE: usize = 4;
const POSITIONS_AT_ONCE: usize = 512;
/// Segments are joined up to so many bytes.
const MAX_JOINED_BYTES: usize = 3 << 20;

/// A copy under way.
struct Copy {
    segments: Range<usize>,
    fresh: Segment,
    /// Segment and position of the next name.
    next: (usize, usize),
}

/// The work that is left.
#[derive(Default)]
pub(super) struct Cleaner {
    copy: Option<Copy>,
    /// What was replaced, to be freed piece by piece.
    old: Vec<Segment>,
}

impl Cleaner {
    /// A name was taken out, of which there may be a copy.
    pub(super) fn taken_out(&mut self, id: NameId) {
        let Some(copy) = &mut self.copy else { return };
        if let Some(position) = copy.fresh.position(id) {
            copy.fresh.kill(position);
        }
    }

    /// Does a little.
    pub(super) fn work(&mut self, segments: &mut Segments) {
        if let Some(last) = self.old.last_mut()
            && !last.free_some()
        {
            self.old.pop();
        }
        let Some(copy) = &mut self.copy else { return };
        if copy.go_on(segments) {
            return;
        }
        let Copy {
            segments: range,
            fresh,
            ..
        } = self.copy.take().expect("it was there above");
        let fresh = Some(fresh).filter(|fresh| fresh.len() > 0);
        self.old.extend(segments.all.splice(range, fresh));
        if let Some(number) = (0..segments.all.len()).find(|number| is_due(segments, *number)) {
            self.begin(segments, number);
        }
    }

    /// Looks whether the segment `number` has too many dead.
    pub(super) fn consider(&mut self, segments: &Segments, number: usize) {
        if self.copy.is_none() && is_due(segments, number) {
            self.begin(segments, number);
        }
    }

    fn begin(&mut self, segments: &Segments, number: usize) {
        let closed = segments.all.len() - 1;
        let mut range = number..number + 1;
        loop {
            let right = range.start..range.end + 1;
            let left = range.start.saturating_sub(1)..range.end;
            if range.end < closed && may_join(segments, &range, range.end, &right) {
                range = right;
            } else if range.start > 0 && may_join(segments, &range, left.start, &left) {
                range = left;
            } else {
                break;
            }
        }
        self.copy = Some(Copy {
            fresh: Segment::with_gaps(segments.all[range.start].first()),
            next: (range.start, 0),
            segments: range,
        });
    }

    /// Segments that are being copied, or wait to be freed.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.copy.is_none() && self.old.is_empty()
    }
}

impl Copy {
    /// Copies a few names; says whether there are more.
    fn go_on(&mut self, segments: &Segments) -> bool {
        let (mut copied, mut seen) = (0, 0);
        while self.next.0 < self.segments.end {
            let (number, position) = self.next;
            let segment = &segments.all[number];
            if position >= segment.len() {
                self.next = (number + 1, 0);
                continue;
            }
            if copied == NAMES_AT_ONCE || seen == POSITIONS_AT_ONCE {
                return true;
            }
            if segment.is_live(position) {
                let forms = segment.forms(position);
                self.fresh.push(segment.id(position), &forms.bytes());
                copied += 1;
            }
            seen += 1;
            self.next.1 += 1;
        }
        false
    }
}

/// May the segment `number` be cleaned with those in `range`, so that these are `all`? A large neighbour is
/// left alone: few dead names shall not have many copied.
fn may_join(segments: &Segments, range: &Range<usize>, number: usize, all: &Range<usize>) -> bool {
    // Not as many as would fit: a segment that is as full as that is not joined again soon.
    let max_live = segments.capacity / 4 * 3;
    let live = |range: &Range<usize>| -> usize {
        let joined = segments.all[range.clone()].iter();
        joined.map(Segment::live).sum()
    };
    let joined = &segments.all[all.clone()];
    let bytes: usize = joined.iter().map(Segment::byte_len).sum();
    let last = &joined[joined.len() - 1];
    let span = last.id(last.len() - 1).0 - joined[0].first().0;
    live(&(number..number + 1)) <= 2 * live(range)
        && live(all) <= max_live
        && bytes <= MAX_JOINED_BYTES
        && u32::try_from(span).is_ok()
}

/// A third of it is dead, and no name will be added to it.
fn is_due(segments: &Segments, number: usize) -> bool {
    let is_closed = number + 1 < segments.all.len();
    let segment = &segments.all[number];
    is_closed && (segment.len() - segment.live()) * 3 > segment.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::index::Index;

    fn with_names(count: usize, segments_of: usize) -> (Index, Vec<NameId>) {
        let mut index = Index::with_segments_of(segments_of);
        let names = (0..count).map(|number| format!("name {number}").parse().unwrap());
        let ids = names.map(|name| index.insert(&name)).collect();
        (index, ids)
    }

    /// Changes until `is_done`.
    fn changes(index: &mut Index, is_done: impl Fn(&Cleaner) -> bool) -> usize {
        let mut changes = 0;
        while !is_done(&index.cleaner) {
            let id = index.insert(&"one more".parse().unwrap());
            index.remove(id);
            changes += 2;
        }
        changes
    }

    #[test]
    fn a_change_copies_and_frees_only_a_little() {
        let (mut index, ids) = with_names(2000, 1000);
        // More than a third with the last one.
        for id in ids.iter().take(1000).step_by(3) {
            assert!(index.cleaner.is_idle());
            index.remove(*id);
        }
        let copying = changes(&mut index, |cleaner| cleaner.copy.is_none());
        assert!(copying >= 666 / NAMES_AT_ONCE - 1, "{copying} changes");
        assert_eq!(index.segments.all[0].len(), 666);
        let freeing = changes(&mut index, Cleaner::is_idle);
        assert!(freeing > 32, "{freeing} changes");
    }

    #[test]
    fn a_change_looks_at_some_dead_names_only() {
        let dead = POSITIONS_AT_ONCE + 1;
        let (mut index, ids) = with_names(3 * POSITIONS_AT_ONCE + 1, 3 * POSITIONS_AT_ONCE);
        for id in &ids[..dead] {
            index.remove(*id);
        }
        let copy = index.cleaner.copy.as_ref().unwrap();
        let copied = copy.fresh.len();
        assert_eq!((copy.next, copied), ((0, POSITIONS_AT_ONCE), 0));
    }
}
