//! How often each of very many has done something lately, counted in a table that never grows.
//!
//! Who falls into one place of the table shares it. Places are drawn with a secret, so that nobody chooses
//! with whom; and there are so many that a flood in the names of all fills none of them much.

use std::hash::{Hash, Hasher as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use siphasher::sip::SipHasher24;

use crate::crypto::random::{Random, random_bytes};

/// Places of a table.
const PLACES: usize = 1 << 16;

fn place_of(key: &[u8; 16], who: &impl Hash) -> usize {
    let mut hasher = SipHasher24::new_with_key(key);
    who.hash(&mut hasher);
    usize::try_from(hasher.finish() % PLACES as u64).unwrap_or(0)
}

/// What fades: how often, in the last moments.
pub(super) struct Fading {
    key: [u8; 16],
    /// When it was counted last, and how much that was by then.
    places: Box<[AtomicU64]>,
    /// What may have been counted at most before it is too much.
    most: u32,
    /// What is forgotten with each tick.
    per_tick: u32,
}

impl Fading {
    /// `most` at once, and `per_tick` from then on.
    pub(super) fn new(most: u32, per_tick: u32, random: &mut dyn Random) -> Self {
        Self {
            key: random_bytes(random),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            most,
            per_tick,
        }
    }

    /// Has it been too much?
    pub(super) fn is_full(&self, who: &impl Hash, tick: u32) -> bool {
        let place = &self.places[place_of(&self.key, who)];
        self.faded(place.load(Ordering::Relaxed), tick) >= self.most
    }

    /// It has happened once more. Two at the same moment may count as one.
    pub(super) fn note(&self, who: &impl Hash, tick: u32) {
        let place = &self.places[place_of(&self.key, who)];
        let count = self.faded(place.load(Ordering::Relaxed), tick);
        let count = count.saturating_add(1).min(self.most);
        place.store(u64::from(tick) << 32 | u64::from(count), Ordering::Relaxed);
    }

    fn faded(&self, packed: u64, tick: u32) -> u32 {
        let [at, count] = [packed >> 32, packed & u64::from(u32::MAX)];
        let [at, count] = [at, count].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        count.saturating_sub(tick.wrapping_sub(at).saturating_mul(self.per_tick))
    }
}

/// What is there: how many each has now.
pub(super) struct Present {
    key: [u8; 16],
    places: Box<[AtomicU32]>,
}

/// Where one was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot(u16);

impl Present {
    /// Nothing is there.
    pub(super) fn new(random: &mut dyn Random) -> Self {
        Self {
            key: random_bytes(random),
            places: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// How many are there of this one.
    pub(super) fn count(&self, who: &impl Hash) -> u32 {
        self.places[place_of(&self.key, who)].load(Ordering::Relaxed)
    }

    /// One more; to be taken out again.
    pub(super) fn add(&self, who: &impl Hash) -> Spot {
        let place = place_of(&self.key, who);
        self.places[place].fetch_add(1, Ordering::Relaxed);
        Spot(u16::try_from(place).expect("there are 2^16 places"))
    }

    /// One less.
    pub(super) fn remove(&self, spot: Spot) {
        self.places[usize::from(spot.0)].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::OsRandom;

    #[test]
    fn what_is_too_much_fades_and_is_nobody_elses() {
        let fading = Fading::new(8, 2, &mut OsRandom::new());
        let mut tick = u32::MAX - 1;
        for _ in 0..8 {
            assert!(!fading.is_full(&"ana", tick));
            fading.note(&"ana", tick);
        }
        for _ in 0..100 {
            fading.note(&"ana", tick);
        }
        assert!(fading.is_full(&"ana", tick));
        let full = (0..1000_u32).filter(|who| fading.is_full(who, tick));
        assert!(full.count() < 5, "others have places of their own");
        tick = tick.wrapping_add(1);
        assert!(
            !fading.is_full(&"ana", tick),
            "a flood is not remembered longer than its end"
        );
        fading.note(&"ana", tick);
        fading.note(&"ana", tick);
        assert!(fading.is_full(&"ana", tick), "two a tick");
        for who in 0..PLACES {
            fading.note(&who, tick);
        }
        let full = (0..PLACES).filter(|who| fading.is_full(who, tick));
        assert!(full.count() < PLACES / 20, "once each fills few");
    }

    #[test]
    fn what_goes_is_there_no_longer() {
        let present = Present::new(&mut OsRandom::new());
        let spots: Vec<_> = (0..10).map(|_| present.add(&"ana")).collect();
        assert_eq!(present.count(&"ana"), 10);
        for spot in spots {
            present.remove(spot);
        }
        assert_eq!(present.count(&"ana"), 0);
    }
}
