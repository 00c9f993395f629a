//! How long each of many things took.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// In nanoseconds, up to four seconds each.
#[derive(Default)]
pub(crate) struct Times(Vec<u32>);

impl Times {
    /// None yet. The memory for `count` is taken, and touched, at once.
    pub(crate) fn with_room_for(count: u64) -> Self {
        let mut room = vec![1; usize::try_from(count).unwrap_or(0)];
        black_box(&mut room).clear();
        Self(room)
    }

    pub(crate) fn time<T>(&mut self, what: impl FnOnce() -> T) {
        let start = Instant::now();
        black_box(what());
        self.add(start.elapsed());
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0
            .push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
    }

    pub(crate) fn append(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median(&mut self) -> f64 {
        self.0.sort_unstable();
        self.at(500)
    }

    /// Median, the one that a hundredth exceeds, and the longest.
    pub(crate) fn columns(&mut self) -> String {
        self.0.sort_unstable();
        format!(
            "{:.1} {:.1} {:.1}",
            self.at(500),
            self.at(990),
            self.at(1000)
        )
    }

    /// Everything that is known of a change.
    pub(crate) fn print(&mut self, what: &str) {
        self.0.sort_unstable();
        let sum: f64 = self.0.iter().copied().map(f64::from).sum();
        let mean = sum / 1000.0 / self.0.len().max(1) as f64;
        let long = self.0.iter().filter(|time| **time > 1_000_000).count();
        println!(
            "{what}: µs: mean {mean:.2}, p50 {:.1}, p99 {:.1}, p99.9 {:.1}, most {:.1}; {long} of {} above 1 ms",
            self.at(500),
            self.at(990),
            self.at(999),
            self.at(1000),
            self.len()
        );
    }

    /// In microseconds, the one that so many thousandths do not exceed; they are sorted.
    fn at(&self, thousandths: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let time = self.0.get((last * thousandths).div_ceil(1000));
        time.map_or(f64::NAN, |time| f64::from(*time) / 1000.0)
    }
}
