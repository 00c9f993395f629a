//! Which handshakes a listener takes on: how many at a time, how often from one source, and how many
//! wrong guesses of the passphrase in all.
//!
//! A guess counts as failed when m2 was sent and no valid m3 came, for whatever reason: who tests m2
//! alone and goes away has guessed as well. Completed handshakes earn some failures back, so that a crowd
//! with a bad network does not lock itself out.

use std::collections::{BTreeMap, HashMap};
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
    /// Handshakes in progress, the oldest first.
    places: BTreeMap<PassId, Place>,
    next: u64,
    failures: Bucket,
    failures_by_source: Buckets<Source>,
    banned: HashMap<Source, Instant>,
}

#[derive(Debug)]
struct Place {
    source: Source,
    /// m1 came: from now on the handshake is not given up for another one.
    has_spoken: bool,
}

/// A handshake that was let through; to be handed back when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PassId(u64);

/// A handshake that may begin, and the one that has to end for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The new one.
    pub pass: PassId,
    /// The oldest that has not said anything yet, when places are short.
    pub evicted: Option<PassId>,
}

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
            places: BTreeMap::new(),
            next: 0,
            failures: Bucket::new(FAILURES, now),
            failures_by_source: Buckets::new(FAILURES_PER_SOURCE, MAX_SOURCES),
            banned: HashMap::new(),
        }
    }

    /// May a connection from `ip` begin? `None`: close it.
    pub fn enter(&mut self, now: Instant, ip: IpAddr) -> Option<Entry> {
        let source = Source::of(ip);
        if self.banned.get(&source).is_some_and(|until| now < *until) {
            return None;
        }
        self.banned.remove(&source);
        let here = self
            .places
            .values()
            .filter(|place| place.source == source)
            .count();
        // Those who keep silent make room for those who may not: from the same source first.
        let evicted = if here >= MAX_PER_SOURCE {
            Some(self.oldest_mute(|place| place.source == source)?)
        } else if self.places.len() >= MAX_IN_PROGRESS {
            Some(self.oldest_mute(|_| true)?)
        } else {
            None
        };
        if let Some(evicted) = evicted {
            self.places.remove(&evicted);
        }
        let pass = PassId(self.next);
        self.next += 1;
        self.places.insert(
            pass,
            Place {
                source,
                has_spoken: false,
            },
        );
        Some(Entry { pass, evicted })
    }

    /// m1 came in full.
    pub fn note_m1(&mut self, pass: PassId) {
        if let Some(place) = self.places.get_mut(&pass) {
            place.has_spoken = true;
        }
    }

    fn oldest_mute(&self, is_meant: impl Fn(&Place) -> bool) -> Option<PassId> {
        let mut mute = self
            .places
            .iter()
            .filter(|(_, place)| !place.has_spoken && is_meant(place));
        mute.next().map(|(pass, _)| *pass)
    }

    /// May m2 be sent, which allows one guess? It is counted at once, and given back when the handshake
    /// is completed.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn take_guess(&mut self, now: Instant) -> Result<(), Duration> {
        if self.failures.take(now) {
            Ok(())
        } else {
            Err(self.failures.wait(now))
        }
    }

    /// A handshake is over; one that was evicted has left already.
    pub fn leave(&mut self, now: Instant, pass: PassId, outcome: Outcome) {
        let Some(Place { source, .. }) = self.places.remove(&pass) else {
            return;
        };
        match outcome {
            Outcome::Completed => self.failures.give(1.0 + 1.0 / COMPLETED_PER_FAILURE),
            Outcome::Failed => self.count_failure(now, source),
            Outcome::Unanswered => {}
        }
    }

    fn count_failure(&mut self, now: Instant, source: Source) {
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
    fn one_source_has_its_places_and_the_mute_make_room() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        let entries: Vec<_> = (0..100).map(|_| gate.enter(now, ip(1)).unwrap()).collect();
        assert!(
            entries[..MAX_PER_SOURCE]
                .iter()
                .all(|entry| entry.evicted.is_none())
        );
        assert_eq!(entries[MAX_PER_SOURCE].evicted, Some(entries[0].pass));
        assert_eq!(gate.places.len(), MAX_PER_SOURCE);
        for entry in &entries {
            gate.note_m1(entry.pass);
        }
        assert_eq!(
            gate.enter(now, ip(1)),
            None,
            "who has spoken is not given up"
        );
        assert!(gate.enter(now, ip(2)).is_some());
        gate.leave(now, entries[0].pass, Outcome::Failed);
        assert_eq!(
            gate.enter(now, ip(1)),
            None,
            "the evicted one had no place to give back"
        );
        gate.leave(now, entries[99].pass, Outcome::Unanswered);
        assert!(gate.enter(now, ip(1)).is_some());
    }

    #[test]
    fn all_places_are_bounded() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        for n in 0..1000 {
            assert!(gate.enter(now, ip(n)).is_some());
            assert!(gate.places.len() <= MAX_IN_PROGRESS);
        }
    }

    #[test]
    fn a_guesser_is_turned_away_for_a_minute() {
        let now = Instant::now();
        let mut gate = Gate::new(now);
        let mut guesses = 0;
        while let Some(entry) = gate.enter(now, ip(1)) {
            gate.leave(now, entry.pass, Outcome::Failed);
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
            let entry = gate.enter(now, ip(n)).unwrap();
            assert_eq!(gate.take_guess(now), Ok(()));
            gate.leave(now, entry.pass, Outcome::Failed);
        }
        assert_eq!(gate.take_guess(now), Err(SECOND / 5));
        let later = now + SECOND / 5;
        assert_eq!(gate.take_guess(later), Ok(()), "five a second");
        assert!(gate.take_guess(later).is_err());
        let entry = gate.enter(later, ip(999)).unwrap();
        gate.leave(later, entry.pass, Outcome::Completed);
        assert_eq!(
            gate.take_guess(later),
            Ok(()),
            "a completed handshake was no guess"
        );
        for n in 0..10 {
            let entry = gate.enter(later, ip(1000 + n)).unwrap();
            gate.leave(later, entry.pass, Outcome::Completed);
        }
        let given_back = (0..20).filter(|_| gate.take_guess(later).is_ok()).count();
        assert_eq!(given_back, 11, "and ten of them earn one more");
    }
}
