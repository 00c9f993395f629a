//! Who was wrong how often with a password, and how long he has to wait for it.
//!
//! Failures are counted where they come from, never for a name alone: a flood in somebody's name from
//! elsewhere does not lock him out. An identity that has logged in as this user before (by password or with
//! a ticket) answers only for its own failures; a stranger answers for those of his source, and for those of
//! his source with this name. A right password forgives what was wrong with the same name from there, not
//! what the source did to others.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::desk::Attempt;
use crate::proto::limiter::Source;
use crate::wire::id::PeerId;
use crate::wire::text::UserName;

/// Failures that cost nothing: everybody mistypes.
const FREE_FAILURES: u32 = 5;
/// Longest wait after a failure.
const MAX_PENALTY: Duration = Duration::from_secs(60);
/// Failures are forgotten when none came for so long.
pub(super) const MEMORY: Duration = Duration::from_secs(15 * 60);
/// Places whose failures are remembered, and identities that are known to be somebody's.
const MAX_REMEMBERED: usize = 65_536;

/// Who answers for a failure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Blame {
    Source(Source),
    NameAt(String, Source),
    Peer(PeerId),
}

#[derive(Debug)]
struct Count {
    count: u32,
    last: Instant,
}

impl Count {
    fn blocked_until(&self) -> Option<Instant> {
        let over = self.count.checked_sub(FREE_FAILURES)?;
        let penalty = Duration::from_secs(1 << over.min(6)).min(MAX_PENALTY);
        Some(self.last + penalty)
    }
}

/// What is remembered of all of them.
#[derive(Debug, Default)]
pub(super) struct Failures {
    counts: HashMap<Blame, Count>,
    known: HashMap<(PeerId, String), Instant>,
}

impl Failures {
    /// Is this identity known to be this user's?
    pub(super) fn is_known(&self, attempt: &Attempt) -> bool {
        self.known
            .contains_key(&(attempt.peer, attempt.user.folded()))
    }

    /// From now on it is.
    pub(super) fn remember(&mut self, now: Instant, peer: PeerId, user: &UserName) {
        let key = (peer, user.folded());
        if !self.known.contains_key(&key) {
            make_place(&mut self.known, |since| *since);
        }
        self.known.insert(key, now);
    }

    /// How long it has to wait.
    pub(super) fn penalty(&self, now: Instant, attempt: &Attempt) -> Option<Duration> {
        let blamed = self.blamed(attempt);
        let failures = blamed.iter().filter_map(|blame| self.counts.get(blame));
        let until = failures.filter_map(Count::blocked_until).max()?;
        (until > now).then(|| until - now)
    }

    /// Its password was wrong.
    pub(super) fn blame(&mut self, now: Instant, attempt: &Attempt) {
        for blame in self.blamed(attempt) {
            if !self.counts.contains_key(&blame) {
                make_place(&mut self.counts, |failures| failures.last);
            }
            let failures = self.counts.entry(blame).or_insert(Count {
                count: 0,
                last: now,
            });
            if now > failures.last + MEMORY {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last = now;
        }
    }

    /// Its password was right.
    pub(super) fn forgive(&mut self, attempt: &Attempt) {
        let source = attempt.source;
        if self.is_known(attempt) {
            // Not what strangers there did in the same name.
            self.counts.remove(&Blame::Peer(attempt.peer));
            return;
        }
        let own = self
            .counts
            .remove(&Blame::NameAt(attempt.user.folded(), source));
        if let (Some(own), Some(all)) = (own, self.counts.get_mut(&Blame::Source(source))) {
            all.count = all.count.saturating_sub(own.count);
        }
    }

    fn blamed(&self, attempt: &Attempt) -> Vec<Blame> {
        if self.is_known(attempt) {
            vec![Blame::Peer(attempt.peer)]
        } else {
            let source = attempt.source;
            vec![
                Blame::NameAt(attempt.user.folded(), source),
                Blame::Source(source),
            ]
        }
    }
}

/// Room for one more in a table of things that age: the oldest goes.
fn make_place<K: Clone + Eq + Hash, V>(table: &mut HashMap<K, V>, age: impl Fn(&V) -> Instant) {
    if table.len() < MAX_REMEMBERED {
        return;
    }
    let oldest = table
        .iter()
        .min_by_key(|(_, value)| age(value))
        .map(|(key, _)| key.clone());
    if let Some(oldest) = oldest {
        table.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::id::{RequestId, SessionId};

    fn attempt(number: u32, user: &str) -> Attempt {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Attempt {
            peer: PeerId(key),
            session: SessionId::from_bytes([1; 7]),
            request: RequestId(1),
            source: Source::of((0x0a00_0000 + number).to_be_bytes().into()),
            user: user.parse().unwrap(),
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let at = |number: u32| start + Duration::from_millis(number.into());
        let most = u32::try_from(MAX_REMEMBERED).unwrap();
        // All but full, as the search for the oldest takes its time.
        for number in 0..most {
            let blame = Blame::Source(attempt(number, "ana").source);
            let count = Count {
                count: 100,
                last: at(number),
            };
            failures.counts.insert(blame, count);
            let known = (attempt(number, "ana").peer, "ana".to_owned());
            failures.known.insert(known, at(number));
        }
        let now = at(most);
        for number in most..most + 4 {
            failures.blame(now, &attempt(number, "bob"));
            failures.remember(now, attempt(number, "bob").peer, &"bob".parse().unwrap());
        }
        assert_eq!(failures.counts.len(), MAX_REMEMBERED);
        assert_eq!(failures.known.len(), MAX_REMEMBERED);
        let is_known = |number| failures.is_known(&attempt(number, "ana"));
        assert!(!is_known(0) && !is_known(3) && is_known(4) && is_known(most - 1));
        let slowed = |number| failures.penalty(now, &attempt(number, "eve")).is_some();
        assert!(!slowed(0) && slowed(most - 1));
    }
}
