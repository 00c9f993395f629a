//! How fast something moves: bytes a second, over about the last second.

use std::time::{Duration, Instant};

/// A rate is taken over at least this long.
const WINDOW: Duration = Duration::from_millis(200);
/// When nothing moved for this long, the rate is what moved since then.
const STALE: Duration = Duration::from_secs(2);

/// A smoothed rate; the time is an argument.
#[derive(Debug, Clone)]
pub struct Meter {
    /// Bytes a second, once a window has passed.
    rate: Option<u64>,
    bytes: u64,
    since: Instant,
}

impl Meter {
    /// Nothing moved yet.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            rate: None,
            bytes: 0,
            since: now,
        }
    }

    /// So many bytes moved.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.settle(now, WINDOW);
    }

    /// What passed until now was a pause and does not count.
    pub const fn skip(&mut self, now: Instant) {
        self.since = now;
        self.bytes = 0;
    }

    /// Time passed; without this a rate outlives a standstill.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now, STALE);
    }

    /// Bytes a second, once it is known.
    #[must_use]
    pub const fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// How long so many bytes take at this rate, once it is known.
    #[must_use]
    pub fn time_for(&self, bytes: u64) -> Option<Duration> {
        let rate = self.rate?.max(1);
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
        Some(Duration::from_micros(
            u64::try_from(micros).unwrap_or(u64::MAX),
        ))
    }

    fn settle(&mut self, now: Instant, after: Duration) {
        let passed = now.saturating_duration_since(self.since);
        if passed < after {
            return;
        }
        let latest = u128::from(self.bytes) * 1000 / passed.as_millis().max(1);
        let latest = u64::try_from(latest).unwrap_or(u64::MAX);
        self.rate = Some(match self.rate {
            Some(rate) if passed < STALE => (rate / 2).saturating_add(latest / 2),
            _ => latest,
        });
        self.skip(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_steady_flow_is_measured() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        assert_eq!((meter.rate(), meter.time_for(1)), (None, None));
        for step in 1..=100 {
            meter.add(start + Duration::from_millis(100) * step, MIB);
        }
        let rate = meter.rate().unwrap();
        assert!((9 * MIB as u64..=11 * MIB as u64).contains(&rate), "{rate}");
        let second = meter.time_for(10 << 20).unwrap();
        assert!((900..1100).contains(&second.as_millis()), "{second:?}");
    }

    #[test]
    fn a_standstill_shows_and_a_pause_does_not() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.add(start + WINDOW, MIB);
        let rate = meter.rate().unwrap();
        meter.skip(start + Duration::from_secs(60));
        meter.add(start + Duration::from_secs(60) + WINDOW, MIB);
        assert!(meter.rate().unwrap().abs_diff(rate) <= 1);
        meter.handle_timeout(start + Duration::from_secs(70));
        assert_eq!(meter.rate(), Some(0));
    }
}
