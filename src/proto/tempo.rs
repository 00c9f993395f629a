//! How often peers shall say that they are still here: the more they are, the seldomer.
//!
//! A fifth of what a core can answer goes to heartbeats at most. Each answer tells the interval, and each
//! session is judged by the one that it was told last, so a change harms nobody.

use std::time::Duration;

use super::session::Rhythm;

/// Heartbeats a second that one worker shall get.
const BEATS_PER_WORKER: u64 = 60_000;
/// However many peers there are: what stands between them and the tracker forgets a path after about half
/// a minute.
const MAX_INTERVAL: Duration = Duration::from_secs(25);

/// The times of one tracker.
#[derive(Debug)]
pub struct Tempo {
    least: Rhythm,
    workers: u64,
    now: Rhythm,
}

impl Tempo {
    /// Never faster than `least`, which is also where it begins.
    #[must_use]
    pub const fn new(least: Rhythm, workers: usize) -> Self {
        Self {
            least,
            workers: if workers == 0 { 1 } else { workers as u64 },
            now: least,
        }
    }

    /// What peers are told now.
    #[must_use]
    pub const fn rhythm(&self) -> Rhythm {
        self.now
    }

    /// Takes `peers` into account; small changes are none.
    pub fn update(&mut self, peers: usize) {
        let wanted = Duration::from_millis(peers as u64 * 1000 / (BEATS_PER_WORKER * self.workers));
        let wanted = wanted.clamp(self.least.interval, MAX_INTERVAL.max(self.least.interval));
        let now = self.now.interval;
        if wanted.abs_diff(now) > now / 4 {
            self.now = self.at(wanted);
        }
    }

    fn at(&self, interval: Duration) -> Rhythm {
        if interval == self.least.interval {
            return self.least;
        }
        let grace = Duration::from_secs(1).max(interval / 4);
        Rhythm::new(interval, self.least.silence.max(interval + grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn tempo(workers: usize) -> Tempo {
        Tempo::new(Rhythm::new(2000 * MS, 3000 * MS), workers)
    }

    #[test]
    fn a_crowd_beats_seldomer() {
        // peers, workers, interval and silence in ms
        for (peers, workers, interval, silence) in [
            (0, 2, 2000, 3000),
            (240_000, 2, 2000, 3000),
            (1_000_000, 2, 8333, 10_416),
            (600_000, 2, 5000, 6250),
            (2_000_000, 2, 16_666, 20_832),
            (10_000_000, 2, 25_000, 31_250),
            (1_000_000, 16, 2000, 3000),
        ] {
            let mut tempo = tempo(workers);
            tempo.update(peers);
            let Rhythm {
                interval: i,
                silence: s,
            } = tempo.rhythm();
            assert_eq!(i, interval * MS, "{peers} peers, {workers} workers");
            assert!(s.abs_diff(silence * MS) < 2 * MS, "{peers} peers: {s:?}");
        }
    }

    #[test]
    fn it_changes_only_by_more_than_a_quarter() {
        let mut tempo = tempo(1);
        let mut at = |peers| {
            tempo.update(peers);
            tempo.rhythm().interval
        };
        assert_eq!(at(145_000), 2000 * MS, "2.4 s would be no change");
        assert_eq!(at(180_000), 3000 * MS);
        assert_eq!(at(215_000), 3000 * MS);
        assert_eq!(at(140_000), 3000 * MS);
        assert_eq!(at(130_000), 2166 * MS);
        assert_eq!(at(0), 2166 * MS, "near enough");
        assert_eq!(at(1_000_000), 16_666 * MS);
        assert_eq!(at(0), 2000 * MS);
    }
}
