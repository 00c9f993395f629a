//! Who sent wrong bytes lately: nobody asks them again for an hour.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::id::PeerId;

/// A disk that rots may be replaced, and a program that errs be mended.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Beyond it the oldest is forgotten: whoever makes new keys without end shall not fill our memory.
const MAX_LIARS: usize = 1024;

/// Of all downloads of this peer; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Liars(Arc<Mutex<HashMap<PeerId, Instant>>>);

impl Liars {
    /// This peer sent wrong bytes.
    pub fn note(&self, now: Instant, peer: PeerId) {
        let mut liars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        liars.insert(peer, now);
        while liars.len() > MAX_LIARS {
            let oldest = liars.iter().min_by_key(|(_, at)| **at);
            let Some(oldest) = oldest.map(|(peer, _)| *peer) else {
                return;
            };
            liars.remove(&oldest);
        }
    }

    /// Did this peer send wrong bytes less than an hour ago?
    #[must_use]
    pub fn has(&self, now: Instant, peer: &PeerId) -> bool {
        let liars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = liars.get(peer);
        at.is_some_and(|at| now.saturating_duration_since(*at) < REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        PeerId(id)
    }

    #[test]
    fn a_liar_is_remembered_for_an_hour() {
        let (liars, now) = (Liars::default(), Instant::now());
        liars.note(now, peer(1));
        let soon = now + REMEMBERED - Duration::from_secs(1);
        assert!(liars.has(soon, &peer(1)) && !liars.has(soon, &peer(2)));
        assert!(!liars.has(now + REMEMBERED, &peer(1)));
    }

    #[test]
    fn many_keys_take_the_place_of_the_oldest() {
        let (liars, now) = (Liars::default(), Instant::now());
        for number in 0..=MAX_LIARS {
            liars.note(now + Duration::from_millis(number as u64), peer(number));
        }
        let later = now + Duration::from_secs(10);
        assert!(!liars.has(later, &peer(0)) && liars.has(later, &peer(1)));
        assert_eq!(liars.0.lock().unwrap().len(), MAX_LIARS);
    }
}
