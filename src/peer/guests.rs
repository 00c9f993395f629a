//! Who is served at the moment: so many at a time, so many connections of each, and who makes room for others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::wire::id::PeerId;

/// Connections that are served at the same time.
const MAX_CONNECTIONS: usize = 200;
/// Connections of one peer.
const MAX_PER_PEER: usize = 16;
/// Who was asked for nothing for so long makes room when there is none.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// Since when nothing is asked for over a connection, if that is so; cheap to clone.
#[derive(Clone, Debug)]
pub struct Idle(Arc<Mutex<Option<Instant>>>);

impl Idle {
    /// From now on.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Some(now))))
    }

    /// Everything that was asked for is answered.
    pub fn begin(&self, now: Instant) {
        self.state().get_or_insert(now);
    }

    /// Something is asked for.
    pub fn end(&self) {
        *self.state() = None;
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        *self.state()
    }

    fn state(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All connections that are served; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    seats: BTreeMap<u64, Seat>,
}

#[derive(Debug)]
struct Seat {
    peer: PeerId,
    idle: Idle,
    leaving: CancellationToken,
}

/// One connection, until it is dropped.
#[derive(Debug)]
pub struct Guest {
    guests: Guests,
    number: u64,
}

impl Guests {
    /// A connection of `peer` that ends when `leaving` says so. `None` when the peer has as many as it may, or all
    /// are taken: whoever did nothing for longest makes room, but nobody who did something lately.
    #[must_use]
    pub fn enter(
        &self,
        now: Instant,
        peer: PeerId,
        idle: Idle,
        leaving: CancellationToken,
    ) -> Option<Guest> {
        let mut table = self.table();
        let own = table.seats.values().filter(|seat| seat.peer == peer);
        if own.count() >= MAX_PER_PEER {
            return None;
        }
        if table.seats.len() >= MAX_CONNECTIONS {
            table.make_room(now)?;
        }
        table.last += 1;
        let number = table.last;
        let seat = Seat {
            peer,
            idle,
            leaving,
        };
        table.seats.insert(number, seat);
        drop(table);
        Some(Guest {
            guests: self.clone(),
            number,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn make_room(&mut self, now: Instant) -> Option<()> {
        let seats = self.seats.iter();
        let idle = seats.filter_map(|(number, seat)| Some((seat.idle.since()?, *number)));
        let long = idle.filter(|(since, _)| now.saturating_duration_since(*since) >= MAX_IDLE);
        let (_, number) = long.min()?;
        self.seats.remove(&number)?.leaving.cancel();
        Some(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.table().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(guests: &Guests, now: Instant, peer: u8) -> Option<(Guest, Idle, CancellationToken)> {
        let (idle, leaving) = (Idle::new(now), CancellationToken::new());
        let guest = guests.enter(now, PeerId([peer; 32]), idle.clone(), leaving.clone())?;
        Some((guest, idle, leaving))
    }

    #[test]
    fn one_peer_does_not_take_all_places() {
        let (guests, now) = (Guests::default(), Instant::now());
        let mut own: Vec<_> = std::iter::from_fn(|| enter(&guests, now, 1)).collect();
        assert_eq!(own.len(), MAX_PER_PEER);
        assert!(enter(&guests, now, 2).is_some());
        own.pop();
        assert!(enter(&guests, now, 1).is_some());
        drop(own);
        assert!(guests.table().seats.is_empty());
    }

    #[test]
    fn who_does_nothing_makes_room_for_others() {
        let (guests, start) = (Guests::default(), Instant::now());
        let taken: Vec<_> = (0_u8..=255)
            .map_while(|number| {
                let now = start + Duration::from_millis(u64::from(number));
                enter(&guests, now, number / 16)
            })
            .collect();
        assert_eq!(taken.len(), MAX_CONNECTIONS);
        let gone = || -> Vec<usize> {
            let taken = taken.iter().enumerate();
            let gone = taken.filter(|(_, (_, _, leaving))| leaving.is_cancelled());
            gone.map(|(number, _)| number).collect()
        };
        // The first is at work, and the second was a moment ago.
        taken[0].1.end();
        taken[1].1.end();
        taken[1].1.begin(start + MAX_IDLE);
        let early = start + MAX_IDLE + Duration::from_millis(1);
        assert!(enter(&guests, early, 77).is_none() && gone().is_empty());
        let later = start + MAX_IDLE + Duration::from_millis(3);
        let new = [enter(&guests, later, 77), enter(&guests, later, 77)];
        assert!(new.iter().all(Option::is_some));
        assert_eq!(gone(), [2, 3]);
        assert!(enter(&guests, later, 77).is_none());
        // What makes room has no place that it could give back.
        drop(taken);
        assert_eq!(guests.table().seats.len(), 2);
    }
}
