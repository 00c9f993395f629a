//! Who may knock, and how often; whom we said no to lately; what was told once.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::event::Accept;
use crate::proto::limiter::{Bucket, Buckets, Rate};
use crate::wire::id::PeerId;

/// Requests of one key that are looked at.
const KNOCK_RATE: Rate = Rate::new(0.5, 5.0);
/// Requests of all keys that are looked at: the tracker is asked about each.
const KNOCK_RATE_OF_ALL: Rate = Rate::new(5.0, 40.0);
/// Keys that are told apart.
const MAX_KNOCKING: usize = 4096;
/// Denials that are remembered, and calls that came to nothing.
const MAX_DENIED: usize = 4096;
/// Whoever was called in vain may call back for so long.
const CALL_BACK_TIME: Duration = Duration::from_secs(60);
/// A key whose name was refused gives no other one for so long.
const DOUBT_TIME: Duration = Duration::from_secs(30);
/// One key is told of once in this time.
const WARN_TIME: Duration = Duration::from_secs(600);
/// Warnings in all: anybody can have many keys.
const WARN_RATE: Rate = Rate::new(1.0 / 60.0, 10.0);

/// What was denied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Denied {
    /// To talk.
    Talk,
    /// Something that was offered.
    Offer,
    /// The name that was given.
    Name,
}

/// The memory of the door.
pub(super) struct Door {
    pub(super) accept: Accept,
    deny_for: Duration,
    denied: HashMap<(PeerId, Denied), Instant>,
    called: HashMap<PeerId, Instant>,
    knocks: Buckets<PeerId>,
    all_knocks: Bucket,
    warned: HashMap<PeerId, Instant>,
    warnings: Bucket,
}

impl Door {
    pub(super) fn new(accept: Accept, deny_for: Duration, now: Instant) -> Self {
        Self {
            accept,
            deny_for,
            denied: HashMap::new(),
            called: HashMap::new(),
            knocks: Buckets::new(KNOCK_RATE, MAX_KNOCKING),
            all_knocks: Bucket::new(KNOCK_RATE_OF_ALL, now),
            warned: HashMap::new(),
            warnings: Bucket::new(WARN_RATE, now),
        }
    }

    /// Is there time for another request of this key?
    pub(super) fn may_knock(&mut self, now: Instant, key: PeerId) -> bool {
        let own = self.knocks.of(key, now).is_some_and(|own| own.take(now));
        own && self.all_knocks.take(now)
    }

    /// The person here said no.
    pub(super) fn deny(&mut self, now: Instant, key: PeerId, what: Denied) {
        make_room(&mut self.denied, now);
        self.denied.insert((key, what), now + self.deny_for);
    }

    /// The name that this key gave was not its own.
    pub(super) fn doubt(&mut self, now: Instant, key: PeerId) {
        make_room(&mut self.denied, now);
        self.denied.insert((key, Denied::Name), now + DOUBT_TIME);
    }

    /// We called this key, and did not get through.
    pub(super) fn miss(&mut self, now: Instant, key: PeerId) {
        make_room(&mut self.called, now);
        self.called.insert(key, now + CALL_BACK_TIME);
    }

    /// Did we call it in vain a moment ago?
    pub(super) fn is_missed(&self, now: Instant, key: &PeerId) -> bool {
        let until = self.called.get(key);
        until.is_some_and(|until| *until > now)
    }

    /// Was this denied lately?
    pub(super) fn is_denied(&self, now: Instant, key: PeerId, what: Denied) -> bool {
        let until = self.denied.get(&(key, what));
        until.is_some_and(|until| *until > now)
    }

    /// The person here changed his mind.
    pub(super) fn forgive(&mut self, key: PeerId) {
        self.denied.remove(&(key, Denied::Talk));
        self.denied.remove(&(key, Denied::Offer));
        self.denied.remove(&(key, Denied::Name));
    }

    /// Is it time to tell of this key, under whatever name?
    pub(super) fn warns(&mut self, now: Instant, key: PeerId) -> bool {
        let is_told = self.warned.get(&key).is_some_and(|until| *until > now);
        if is_told || !self.warnings.take(now) {
            return false;
        }
        make_room(&mut self.warned, now);
        self.warned.insert(key, now + WARN_TIME);
        true
    }
}

/// What is over goes; if nothing is, what would be over first.
fn make_room<K: Copy + Eq + Hash>(times: &mut HashMap<K, Instant>, now: Instant) {
    if times.len() < MAX_DENIED {
        return;
    }
    times.retain(|_, until| *until > now);
    if times.len() >= MAX_DENIED {
        // A good part at once: this looks at all of them.
        let mut ends: Vec<Instant> = times.values().copied().collect();
        let (_, middle, _) = ends.select_nth_unstable(MAX_DENIED / 8);
        let middle = *middle;
        times.retain(|_, until| *until > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> PeerId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        PeerId(key)
    }

    #[test]
    fn a_denial_is_remembered_for_its_time_by_key_and_by_what_it_was_about() {
        let start = Instant::now();
        let mut door = Door::new(Accept::Ask, Duration::from_secs(300), start);
        door.deny(start, key(1), Denied::Talk);
        let late = start + Duration::from_secs(299);
        assert!(door.is_denied(late, key(1), Denied::Talk));
        assert!(!door.is_denied(late, key(1), Denied::Offer));
        assert!(!door.is_denied(late, key(2), Denied::Talk));
        assert!(!door.is_denied(late + Duration::from_secs(1), key(1), Denied::Talk));
        door.deny(late, key(1), Denied::Talk);
        door.forgive(key(1));
        assert!(!door.is_denied(late, key(1), Denied::Talk));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes() {
        let start = Instant::now();
        let mut door = Door::new(Accept::Ask, Duration::from_secs(300), start);
        for number in 0..10_000_u32 {
            let now = start + Duration::from_millis(u64::from(number));
            door.deny(now, key(number), Denied::Talk);
        }
        assert!(door.denied.len() <= MAX_DENIED);
        let now = start + Duration::from_secs(10);
        assert!(door.is_denied(now, key(9999), Denied::Talk));
        assert!(!door.is_denied(now, key(0), Denied::Talk));
    }

    #[test]
    fn one_key_is_told_of_seldom_and_many_keys_are_not_told_of_without_end() {
        let start = Instant::now();
        let mut door = Door::new(Accept::Ask, Duration::ZERO, start);
        assert!(door.warns(start, key(0)));
        let hour = (0..3600).map(|second| start + Duration::from_secs(second));
        let told = hour.clone().filter(|now| door.warns(*now, key(0))).count();
        assert_eq!(told, 5);
        let many = hour
            .zip(1..)
            .filter(|(now, number)| door.warns(*now, key(*number)));
        assert!(many.count() <= 71);
    }

    #[test]
    fn one_key_that_knocks_without_end_does_not_use_up_what_others_have() {
        let start = Instant::now();
        let mut door = Door::new(Accept::Ask, Duration::ZERO, start);
        let looked_at = (0..1000).filter(|_| door.may_knock(start, key(1))).count();
        assert_eq!(looked_at, 5);
        assert!(door.may_knock(start, key(2)));
        let others = (3..1000).filter(|number| door.may_knock(start, key(*number)));
        assert_eq!(others.count(), 34);
    }
}
