//! Which handshakes a listener takes on: how many at a time, how often from one source, and how many
//! wrong guesses of the passphrase in all.
//!
//! A guess counts as failed when m2 was sent and no valid m3 came, for whatever reason: who tests m2
//! alone and goes away has guessed as well. Completed handshakes earn some failures back, so that a crowd
//! with a bad network does not lock itself out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::limiter::{Bucket, Buckets, Rate, Source};

/// Handshakes in progress, in all and from one source.
const MAX_IN_PROGRESS: usize = 512;
const MAX_PER_SOURCE: usize = 32;
/// Failed handshakes of one source: 20 a minute, then it is turned away.
const FAILURES_PER_SOURCE: Rate = Rate::new(20.0 / 60.0, 20.0);
/// For how long it is turned away then.
const BAN: Duration = Duration::from_secs(60);
/// Failed handshakes in all.
const FAILURES: Rate = Rate::new(5.0, 200.0);
/// Completed handshakes that earn one failure back.
const COMPLETED_PER_FAILURE: f64 = 10.0;
/// Sources that are told apart.
const MAX_SOURCES: usize = 65_536;

/// The limits of one listener.
#[derive(Debug)]
pub struct Gate {
    in_progress: HashMap<Source, usize>,
    total: usize,
    failures: Bucket,
    failures_by_source: Buckets<Source>,
    banned: HashMap<Source, Instant>,
}

/// A handshake that was let through; to be handed back when it is over.
#[derive(Debug)]
pub struct Pass(Source);

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a session.
    Completed,
    /// After m2 was sent, without one: a guess.
    Failed,
    /// Before m2 was sent: nothing was learned.
    Unanswered,
}

impl Gate {
    /// Nobody knocks.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            in_progress: HashMap::new(),
            total: 0,
            failures: Bucket::new(FAILURES, now),
            failures_by_source: Buckets::new(FAILURES_PER_SOURCE, MAX_SOURCES),
            banned: HashMap::new(),
        }
    }

    /// May a connection from `ip` begin? `None`: close it.
    pub fn enter(&mut self, now: Instant, ip: IpAddr) -> Option<Pass> {
        let source = Source::of(ip);
        if self.banned.get(&source).is_some_and(|until| now < *until) {
            return None;
        }
        self.banned.remove(&source);
        let here = self.in_progress.entry(source).or_insert(0);
        if self.total >= MAX_IN_PROGRESS || *here >= MAX_PER_SOURCE {
            if *here == 0 {
                self.in_progress.remove(&source);
            }
            return None;
        }
        *here += 1;
        self.total += 1;
        Some(Pass(source))
    }

    /// How long an m1 has to wait before it is answered: not at all, as long as failures are few.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.failures.wait(now)
    }

    /// A handshake is over.
    pub fn leave(&mut self, now: Instant, Pass(source): Pass, outcome: Outcome) {
        self.total -= 1;
        if let Some(here) = self.in_progress.get_mut(&source) {
            *here -= 1;
            if *here == 0 {
                self.in_progress.remove(&source);
            }
        }
        match outcome {
            Outcome::Completed => self.failures.give(1.0 / COMPLETED_PER_FAILURE),
            Outcome::Failed => self.count_failure(now, source),
            Outcome::Unanswered => {}
        }
    }

    fn count_failure(&mut self, now: Instant, source: Source) {
        self.failures.take(now);
        let has_guesses_left = match self.failures_by_source.of(source, now) {
            Some(bucket) => bucket.take(now) && bucket.has_token(now),
            None => false,
        };
        if !has_guesses_left {
            self.banned.retain(|_, until| now < *until);
            if self.banned.len() < MAX_SOURCES {
                self.banned.insert(source, now + BAN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(last: u16) -> IpAddr {
        IpAddr::from([10, 0, last.to_be_bytes()[0], last.to_be_bytes()[1]])
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        let passes: Vec<_> = (0..100).filter_map(|_| gate.enter(now, ip(1))).collect();
        assert_eq!(passes.len(), MAX_PER_SOURCE);
        assert!(gate.enter(now, ip(2)).is_some());
        for pass in passes {
            gate.leave(now, pass, Outcome::Unanswered);
        }
        assert!(gate.enter(now, ip(1)).is_some());
    }

    #[test]
    fn all_places_are_bounded() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        let taken = (0..1000).filter_map(|n| gate.enter(now, ip(n))).count();
        assert_eq!(taken, MAX_IN_PROGRESS);
        assert!(gate.in_progress.len() <= MAX_IN_PROGRESS);
    }

    #[test]
    fn a_guesser_is_turned_away_for_a_minute() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        let mut guesses = 0;
        while let Some(pass) = gate.enter(now, ip(1)) {
            gate.leave(now, pass, Outcome::Failed);
            guesses += 1;
        }
        assert_eq!(guesses, 20);
        assert!(gate.enter(now + 59 * SECOND, ip(1)).is_none());
        assert!(gate.enter(now, ip(2)).is_some(), "others are not concerned");
        assert!(gate.enter(now + 60 * SECOND, ip(1)).is_some());
    }

    #[test]
    fn many_sources_together_get_five_guesses_a_second() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        for n in 0..200 {
            assert!(gate.wait(now).is_zero());
            let pass = gate.enter(now, ip(n)).unwrap();
            gate.leave(now, pass, Outcome::Failed);
        }
        assert!(!gate.wait(now).is_zero());
        assert!(gate.wait(now + SECOND / 5).is_zero());
        for n in 0..10 {
            let pass = gate.enter(now, ip(1000 + n)).unwrap();
            gate.leave(now, pass, Outcome::Completed);
        }
        assert!(
            gate.wait(now + SECOND / 1000).is_zero(),
            "ten completed ones earned one"
        );
    }
}
