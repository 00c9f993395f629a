//! Keeps a rate: bytes a second, of all transfers of this program together.
//!
//! Whoever is to move bytes waits for its turn. People take turns, whatever number of connections each of
//! them has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as Turn;
use tokio::time::{Instant, sleep};

use crate::wire::id::PeerId;

/// What may pass at once after a pause.
const BURST: Duration = Duration::from_millis(100);
/// A new rate counts at the latest after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A rate for one direction; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Throttle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Bytes a second; 0 for none.
    rate: AtomicU64,
    /// Bytes that passed since the start, under a limit or not.
    moved: AtomicU64,
    account: Turn<Option<Account>>,
    people: Mutex<HashMap<PeerId, std::sync::Weak<Turn<()>>>>,
}

/// What may pass now; in debt after something large passed.
#[derive(Debug, Clone, Copy)]
struct Account {
    bytes: i64,
    at: Instant,
    /// Under this rate: what is owed under another one is forgiven, for it could take for ever.
    rate: i64,
}

impl Account {
    const fn new(now: Instant, rate: i64) -> Self {
        Self {
            bytes: 0,
            at: now,
            rate,
        }
    }

    fn refill(&mut self, now: Instant) {
        let rate = self.rate;
        let earned = |time: Duration| {
            let bytes = i128::from(rate) * i128::try_from(time.as_micros()).unwrap_or(i128::MAX)
                / 1_000_000;
            i64::try_from(bytes).unwrap_or(i64::MAX)
        };
        let new = earned(now.saturating_duration_since(self.at));
        if new > 0 {
            self.bytes = self.bytes.saturating_add(new).min(earned(BURST));
            self.at = now;
        }
    }

    /// How long until nothing is owed.
    fn time_left(&self) -> Duration {
        let micros = i128::from(-self.bytes) * 1_000_000 / i128::from(self.rate);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0).saturating_add(1))
    }
}

/// One person's place at a throttle.
#[derive(Debug, Clone)]
pub struct Place {
    throttle: Throttle,
    person: Arc<Turn<()>>,
}

impl Throttle {
    /// Sets the rate, in bytes a second; `None` lifts the limit.
    pub fn set(&self, rate: Option<u64>) {
        self.0.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    /// The rate, in bytes a second.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        Some(self.0.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// Bytes passed.
    pub fn note(&self, bytes: usize) {
        self.0.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that passed since the start.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }

    /// The place of `person`.
    #[must_use]
    pub fn place(&self, person: PeerId) -> Place {
        let mut people = self.0.people.lock().unwrap_or_else(PoisonError::into_inner);
        people.retain(|_, turn| turn.strong_count() > 0);
        let known = people.get(&person).and_then(std::sync::Weak::upgrade);
        let turn = known.unwrap_or_default();
        people.insert(person, Arc::downgrade(&turn));
        drop(people);
        Place {
            throttle: self.clone(),
            person: turn,
        }
    }
}

impl Place {
    /// Waits until `bytes` may pass.
    pub async fn pass(&self, bytes: usize) {
        let inner = &self.throttle.0;
        if self.throttle.rate().is_none() {
            return;
        }
        // Both queues are first come, first served: one person holds one place in the second.
        let _own = self.person.lock().await;
        let mut account = inner.account.lock().await;
        while let Some(rate) = self.throttle.rate() {
            let rate = i64::try_from(rate).unwrap_or(i64::MAX);
            let now = Instant::now();
            let account = account.get_or_insert(Account::new(now, rate));
            if account.rate != rate {
                *account = Account::new(now, rate);
            }
            account.refill(now);
            if account.bytes >= 0 {
                account.bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
                return;
            }
            // Not longer: the rate may be changed meanwhile.
            sleep(account.time_left().min(LOOK_AGAIN)).await;
        }
        *account = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass_all(place: Place, times: usize) -> Instant {
        for _ in 0..times {
            place.pass(100_000).await;
        }
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_lifted() {
        let throttle = Throttle::default();
        let place = throttle.place(PeerId([1; 32]));
        let start = Instant::now();
        assert_eq!(pass_all(place.clone(), 50).await, start, "no limit");
        throttle.set(Some(1_000_000));
        let took = pass_all(place.clone(), 50).await - start;
        assert!((4700..5100).contains(&took.as_millis()), "{took:?}");
        throttle.set(None);
        let start = Instant::now();
        assert_eq!(pass_all(place, 50).await, start);
    }

    #[tokio::test(start_paused = true)]
    async fn people_take_turns_however_many_connections_they_have() {
        let throttle = Throttle::default();
        throttle.set(Some(1_000_000));
        let start = Instant::now();
        let greedy: Vec<_> = (0..15)
            .map(|_| tokio::spawn(pass_all(throttle.place(PeerId([1; 32])), 10)))
            .collect();
        let modest = tokio::spawn(pass_all(throttle.place(PeerId([2; 32])), 10));
        let took = modest.await.unwrap() - start;
        assert!(took < Duration::from_millis(2300), "{took:?}");
        for task in greedy {
            task.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_counts_for_those_who_wait() {
        let throttle = Throttle::default();
        throttle.set(Some(1000));
        let place = throttle.place(PeerId([1; 32]));
        place.pass(1_000_000).await;
        let start = Instant::now();
        let waiting = tokio::spawn(async move { place.pass(1).await });
        sleep(Duration::from_secs(1)).await;
        throttle.set(None);
        waiting.await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_rate_forgives_what_was_owed_under_a_lower_one() {
        let throttle = Throttle::default();
        throttle.set(Some(1000));
        let place = throttle.place(PeerId([1; 32]));
        place.pass(1_000_000).await;
        let start = Instant::now();
        throttle.set(Some(2000));
        place.pass(1).await;
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
