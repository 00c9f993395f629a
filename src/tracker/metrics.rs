//! What the tracker counts: each loop for itself, summed by whoever asks.
//!
//! A loop writes numbers that nobody else writes, so that counting is a load and a store in its own cache
//! lines: no lock, no atomic addition. No number says who: neither names nor addresses are counted here.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::labels::{Asked, Dropped, Refused, Resumption, Shaken, Stage};
use crate::net::Turned;
use crate::proto::endpoint::{Census, Tally};
use crate::wire::control::{Refusal, Request};

/// Upper bounds of the histograms, in seconds.
pub const BOUNDS: [f64; BUCKETS - 1] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.5, 1.0,
];
/// One more than there are bounds: for what is beyond the last.
const BUCKETS: usize = 16;
/// A loop that did not turn for so long hangs.
const STUCK_MS: u64 = 5_000;
/// The last minute is told by totals that are taken this far apart.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// A minute of them, and the one that it began with.
const SAMPLES: usize = 13;

/// Durations, by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram<T> {
    /// How many fell below each bound and not below the one before; the last has no bound.
    pub buckets: [T; BUCKETS],
    /// All of them together, in nanoseconds.
    pub sum_ns: T,
}

/// Everything that is counted by a loop, as its cells or as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers<T> {
    /// By [`Asked`].
    pub requests: [T; Asked::ALL.len()],
    /// By [`Refused`].
    pub refusals: [T; Refused::ALL.len()],
    /// By [`Dropped`].
    pub drops: [T; Dropped::ALL.len()],
    /// By [`Resumption`].
    pub resumptions: [T; Resumption::ALL.len()],
    /// Bytes that came.
    pub received_bytes: T,
    /// Bytes that left.
    pub sent_bytes: T,
    /// From a datagram to its answer.
    pub latency: Histogram<T>,
    /// Of a search alone.
    pub search: Histogram<T>,
    /// By [`Stage`], now.
    pub sessions: [T; Stage::ALL.len()],
    /// Peers that are here and not silent, now.
    pub peers: T,
    /// Names that are published, now.
    pub names: T,
    /// What all peers publish together, now.
    pub files: T,
}

/// One loop's numbers, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cells {
    numbers: Numbers<AtomicU64>,
    /// When the loop turned last, in ms since the start.
    turned_ms: AtomicU64,
}

/// What one loop counts with: the only one that writes its numbers, hence not to be shared.
#[derive(Debug)]
pub struct Counters {
    cells: Arc<Cells>,
    started: Instant,
    _not_shared: PhantomData<Cell<()>>,
}

/// Everything that is counted; shared by reference.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    heartbeat_ms: AtomicU64,
    loops: Mutex<Vec<Arc<Cells>>>,
    handshakes: [AtomicU64; Shaken::ALL.len()],
    password_checks: AtomicU64,
    logins_waiting: AtomicU64,
    /// When, and how many requests had come by then; the newest last.
    samples: Mutex<Vec<(Instant, u64)>>,
}

fn add(cell: &AtomicU64, more: u64) {
    if more > 0 {
        // Nobody else writes it.
        cell.store(
            cell.load(Ordering::Relaxed).wrapping_add(more),
            Ordering::Relaxed,
        );
    }
}

fn set(cell: &AtomicU64, value: u64) {
    cell.store(value, Ordering::Relaxed);
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Histogram<AtomicU64> {
    fn note(&self, span: Duration, count: u64) {
        let seconds = span.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        add(&self.buckets[bucket], count);
        let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        add(&self.sum_ns, ns.saturating_mul(count));
    }
}

impl Histogram<u64> {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Counters {
    /// A datagram came.
    pub fn received(&self, len: usize) {
        add(&self.cells.numbers.received_bytes, len as u64);
    }

    /// A datagram left.
    pub fn sent(&self, len: usize) {
        add(&self.cells.numbers.sent_bytes, len as u64);
    }

    /// The system did not take a datagram.
    pub fn not_sent(&self, is_buffer_full: bool) {
        let why = if is_buffer_full {
            Dropped::SendBufferFull
        } else {
            Dropped::SendFailed
        };
        add(&self.cells.numbers.drops[why as usize], 1);
    }

    /// So many datagrams were dropped before anybody could read them, since the start.
    pub fn overflowed(&self, count: u64) {
        let cell = &self.cells.numbers.drops[Dropped::ReceiveBufferFull as usize];
        set(cell, count);
    }

    /// A request came.
    pub fn request(&self, request: &Request) {
        add(&self.cells.numbers.requests[Asked::of(request) as usize], 1);
    }

    /// A request was refused.
    pub fn refusal(&self, refusal: &Refusal) {
        add(
            &self.cells.numbers.refusals[Refused::of(refusal) as usize],
            1,
        );
    }

    /// So many answers left `span` after their requests had come.
    pub fn answered(&self, span: Duration, count: u64) {
        self.cells.numbers.latency.note(span, count);
    }

    /// A search took so long.
    pub fn searched(&self, span: Duration) {
        self.cells.numbers.search.note(span, 1);
    }

    /// What the endpoint counted since the last time.
    pub fn tally(&self, tally: Tally) {
        let numbers = &self.cells.numbers;
        for (why, count) in [
            (Dropped::Malformed, tally.malformed),
            (Dropped::UnknownSession, tally.unknown_session),
            (Dropped::Unopened, tally.unopened),
            (Dropped::Replayed, tally.replayed),
            (Dropped::OverBudget, tally.over_budget),
            (Dropped::Limited, tally.limited),
        ] {
            add(&numbers.drops[why as usize], count);
        }
        add(
            &numbers.refusals[Refused::Malformed as usize],
            tally.not_understood,
        );
        add(
            &numbers.resumptions[Resumption::Completed as usize],
            tally.resumed,
        );
        add(
            &numbers.resumptions[Resumption::Refused as usize],
            tally.not_resumed,
        );
    }

    /// The loop turns; these are its sessions.
    pub fn turned(&self, now: Instant, census: Census) {
        let counts = [census.unused, census.pending, census.live, census.hidden];
        for (cell, count) in self.cells.numbers.sessions.iter().zip(counts) {
            set(cell, count);
        }
        set(
            &self.cells.turned_ms,
            millis(now.saturating_duration_since(self.started)),
        );
    }

    /// What is here now. Where loops share it, one of them tells.
    pub fn population(&self, peers: u32, names: usize, files: usize) {
        set(&self.cells.numbers.peers, peers.into());
        set(&self.cells.numbers.names, names as u64);
        set(&self.cells.numbers.files, files as u64);
    }
}

impl Numbers<u64> {
    /// Of all kinds.
    #[must_use]
    pub fn all_requests(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// For all reasons.
    #[must_use]
    pub fn all_drops(&self) -> u64 {
        self.drops.iter().sum()
    }

    fn add(&mut self, cells: &Numbers<AtomicU64>) {
        let Numbers {
            requests,
            refusals,
            drops,
            resumptions,
            received_bytes,
            sent_bytes,
            latency,
            search,
            sessions,
            peers,
            names,
            files,
        } = cells;
        let each = |sums: &mut [u64], cells: &[AtomicU64]| {
            for (sum, cell) in sums.iter_mut().zip(cells) {
                *sum += cell.load(Ordering::Relaxed);
            }
        };
        let one = |sum: &mut u64, cell: &AtomicU64| *sum += cell.load(Ordering::Relaxed);
        each(&mut self.requests, requests);
        each(&mut self.refusals, refusals);
        each(&mut self.drops, drops);
        each(&mut self.resumptions, resumptions);
        one(&mut self.received_bytes, received_bytes);
        one(&mut self.sent_bytes, sent_bytes);
        each(&mut self.latency.buckets, &latency.buckets);
        one(&mut self.latency.sum_ns, &latency.sum_ns);
        each(&mut self.search.buckets, &search.buckets);
        one(&mut self.search.sum_ns, &search.sum_ns);
        each(&mut self.sessions, sessions);
        one(&mut self.peers, peers);
        one(&mut self.names, names);
        one(&mut self.files, files);
    }
}

impl Metrics {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(started: Instant, heartbeat: Duration) -> Self {
        Self {
            started,
            heartbeat_ms: AtomicU64::new(millis(heartbeat)),
            loops: Mutex::default(),
            handshakes: Default::default(),
            password_checks: AtomicU64::new(0),
            logins_waiting: AtomicU64::new(0),
            samples: Mutex::new(vec![(started, 0)]),
        }
    }

    /// What one more loop counts with.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let cells = Arc::<Cells>::default();
        lock(&self.loops).push(Arc::clone(&cells));
        Counters {
            cells,
            started: self.started,
            _not_shared: PhantomData,
        }
    }

    /// The numbers of all loops together.
    #[must_use]
    pub fn numbers(&self) -> Numbers<u64> {
        let mut sum = Numbers::default();
        for cells in lock(&self.loops).iter() {
            sum.add(&cells.numbers);
        }
        sum
    }

    /// A handshake was completed.
    pub fn welcomed(&self) {
        self.handshakes[Shaken::Completed as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A handshake came to nothing.
    pub fn turned_away(&self, why: Turned) {
        self.handshakes[Shaken::of(why) as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes that ended so.
    #[must_use]
    pub fn handshakes(&self, how: Shaken) -> u64 {
        self.handshakes[how as usize].load(Ordering::Relaxed)
    }

    /// A password was hashed.
    pub fn password_checked(&self) {
        self.password_checks.fetch_add(1, Ordering::Relaxed);
    }

    /// Passwords that were hashed since the start.
    #[must_use]
    pub fn password_checks(&self) -> u64 {
        self.password_checks.load(Ordering::Relaxed)
    }

    /// So many logins wait for their turn to be checked, now.
    pub fn set_logins_waiting(&self, count: usize) {
        set(&self.logins_waiting, count as u64);
    }

    /// Logins that wait for their turn.
    #[must_use]
    pub fn logins_waiting(&self) -> u64 {
        self.logins_waiting.load(Ordering::Relaxed)
    }

    /// How long it runs.
    #[must_use]
    pub fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Time between heartbeats, as peers are told it now.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.load(Ordering::Relaxed))
    }

    /// From now on peers are told this.
    pub fn set_heartbeat(&self, interval: Duration) {
        set(&self.heartbeat_ms, millis(interval));
    }

    /// Do all loops turn?
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        let now_ms = millis(self.uptime(now));
        lock(&self.loops)
            .iter()
            .all(|cells| now_ms.saturating_sub(cells.turned_ms.load(Ordering::Relaxed)) < STUCK_MS)
    }

    /// Remembers how many requests have come by now; to be called each [`SAMPLE_EVERY`].
    pub fn sample(&self, now: Instant) {
        let count = self.numbers().all_requests();
        let mut samples = lock(&self.samples);
        if samples.len() == SAMPLES {
            samples.remove(0);
        }
        samples.push((now, count));
    }

    /// Requests a second over the last minute, or since the start.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn requests_per_second(&self, now: Instant) -> f64 {
        let (since, before) = lock(&self.samples)
            .first()
            .copied()
            .unwrap_or((self.started, 0));
        let count = self.numbers().all_requests().saturating_sub(before);
        count as f64 / now.saturating_duration_since(since).as_secs_f64().max(1.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_numbers_of_all_loops_are_summed() {
        let start = Instant::now();
        let metrics = Metrics::new(start, SECOND);
        let loops = [metrics.counters(), metrics.counters()];
        for counters in &loops {
            counters.request(&Request::Heartbeat);
            counters.received(100);
            counters.not_sent(true);
            counters.refusal(&Refusal::Full);
            counters.tally(Tally {
                malformed: 2,
                resumed: 1,
                not_understood: 3,
                ..Tally::default()
            });
        }
        loops[0].population(7, 5, 6);
        let numbers = metrics.numbers();
        assert_eq!(numbers.requests[Asked::Heartbeat as usize], 2);
        assert_eq!(numbers.received_bytes, 200);
        assert_eq!(numbers.drops[Dropped::SendBufferFull as usize], 2);
        assert_eq!(numbers.all_drops(), 6);
        assert_eq!(numbers.refusals[Refused::Malformed as usize], 6);
        assert_eq!(numbers.refusals[Refused::Full as usize], 2);
        assert_eq!(numbers.resumptions[Resumption::Completed as usize], 2);
        assert_eq!((numbers.peers, numbers.names, numbers.files), (7, 5, 6));
    }

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let metrics = Metrics::new(Instant::now(), SECOND);
        let counters = metrics.counters();
        for micros in [10, 11, 1_000_000, 1_000_001] {
            counters.answered(Duration::from_micros(micros), 1);
        }
        let latency = metrics.numbers().latency;
        assert_eq!((latency.buckets[0], latency.buckets[1]), (1, 1));
        assert_eq!(latency.buckets[BUCKETS - 2..], [1, 1]);
        assert_eq!((latency.count(), latency.sum_ns), (4, 2_000_022_000));
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let start = Instant::now();
        let metrics = Metrics::new(start, SECOND);
        let counters = metrics.counters();
        for _ in 0..600 {
            counters.request(&Request::Heartbeat);
        }
        let rate = |now| metrics.requests_per_second(now).round();
        assert!(rate(start + SECOND * 10) == 60.0, "since the start");
        for sample in 1..=24 {
            metrics.sample(start + SAMPLE_EVERY * sample);
        }
        assert!(rate(start + SECOND * 120) == 0.0, "all of it was before");
    }

    #[test]
    fn a_loop_that_does_not_turn_is_noticed() {
        let start = Instant::now();
        let metrics = Metrics::new(start, SECOND);
        let loops = [metrics.counters(), metrics.counters()];
        assert!(metrics.is_alive(start + SECOND));
        for counters in &loops {
            counters.turned(start + SECOND * 10, Census::default());
        }
        assert!(metrics.is_alive(start + SECOND * 12));
        loops[0].turned(start + SECOND * 20, Census::default());
        assert!(
            !metrics.is_alive(start + SECOND * 20),
            "the other one hangs"
        );
    }
}
