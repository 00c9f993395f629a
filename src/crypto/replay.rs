//! Sliding window of counters already seen (as in RFC 6479, with one word).

/// Counters behind the highest one that can still be told apart.
pub const WINDOW: u64 = 128;

/// Remembers which of the last [`WINDOW`] counters came.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    /// The next counter above all that came; zero when none did.
    end: u64,
    /// Bit `n` stands for counter `end - 1 - n`. Two halves, the lower first: a `u128` would make every
    /// record that holds a window eight bytes longer.
    halves: [u64; 2],
}

impl ReplayWindow {
    /// Might a datagram with this counter be new? Asked before it is opened.
    #[must_use]
    pub fn accepts(&self, counter: u64) -> bool {
        let Some(age) = self
            .end
            .checked_sub(1)
            .and_then(|highest| highest.checked_sub(counter))
        else {
            return counter < u64::MAX;
        };
        age < WINDOW && self.seen() >> age & 1 == 0
    }

    /// Marks a counter whose datagram opened; `true` when it is the highest so far. After the open, not
    /// before: a forged counter must not move the window.
    pub fn mark(&mut self, counter: u64) -> bool {
        if counter >= self.end {
            let shift = counter - self.end + 1;
            let moved = if shift < WINDOW {
                self.seen() << shift
            } else {
                0
            };
            self.set_seen(moved | 1);
            self.end = counter.saturating_add(1);
            return true;
        }
        let age = self.end - 1 - counter;
        if age < WINDOW {
            self.set_seen(self.seen() | 1 << age);
        }
        false
    }

    fn seen(&self) -> u128 {
        u128::from(self.halves[0]) | u128::from(self.halves[1]) << 64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves of it")]
    const fn set_seen(&mut self, seen: u128) {
        self.halves = [seen as u64, (seen >> 64) as u64];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_window_at_its_edges() {
        let mut window = ReplayWindow::default();
        assert!(window.accepts(0) && window.accepts(1 << 40) && !window.accepts(u64::MAX));
        assert!(window.mark(1000));
        assert!(!window.accepts(1000), "seen");
        assert!(
            window.accepts(1000 - WINDOW + 1) && !window.accepts(1000 - WINDOW),
            "too old"
        );
        assert!(!window.mark(999));
        assert!(!window.accepts(999) && window.accepts(998));
        assert!(window.mark(1000 + (1 << 20)));
        assert!(!window.accepts(1000) && window.accepts((1 << 20) + 999));
    }

    proptest! {
        #[test]
        fn nothing_is_accepted_twice(counters in prop::collection::vec(0_u64..400, 0..600)) {
            let mut window = ReplayWindow::default();
            let mut seen = HashSet::new();
            let mut highest = None;
            for counter in counters {
                let is_recent = highest.is_none_or(|highest| counter + WINDOW > highest);
                prop_assert_eq!(window.accepts(counter), is_recent && !seen.contains(&counter));
                if window.accepts(counter) {
                    window.mark(counter);
                    seen.insert(counter);
                    highest = highest.max(Some(counter));
                }
            }
        }
    }
}
