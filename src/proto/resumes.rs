//! Resumptions that nobody has used yet, and when each ticket was last used.

use std::collections::{HashMap, VecDeque};

use crate::wire::id::{PeerId, SessionId};

/// Resumptions of one peer that may wait; the oldest makes room.
const MAX_PENDING_PER_PEER: usize = 4;
/// Tickets whose last use is remembered in one generation.
const MAX_USED_TICKETS: usize = 65_536;

/// Resumed sessions that nobody has used yet.
#[derive(Default)]
pub(super) struct Pending {
    of: HashMap<PeerId, VecDeque<SessionId>>,
    pub(super) total: usize,
}

impl Pending {
    /// Adds one; the peer's oldest one when it has too many.
    pub(super) fn add(&mut self, peer: PeerId, id: SessionId) -> Option<SessionId> {
        let ids = self.of.entry(peer).or_default();
        ids.push_back(id);
        if ids.len() > MAX_PENDING_PER_PEER {
            return ids.pop_front();
        }
        self.total += 1;
        None
    }

    pub(super) fn remove(&mut self, peer: PeerId, id: SessionId) {
        let Some(ids) = self.of.get_mut(&peer) else {
            return;
        };
        let before = ids.len();
        ids.retain(|other| *other != id);
        self.total -= before - ids.len();
        if ids.is_empty() {
            self.of.remove(&peer);
        }
    }
}

/// When each ticket was last used, by its holder's reckoning: a recorded RESUME is not taken twice. Two
/// generations, of which the older one is forgotten when the younger one is full or old: forgetting early
/// costs one Diffie-Hellman for each repetition, refusing would lock members out.
#[derive(Default)]
pub(super) struct UsedTickets {
    younger: HashMap<[u8; 8], u64>,
    older: HashMap<[u8; 8], u64>,
}

impl UsedTickets {
    /// Is it later than the last use?
    pub(super) fn is_later(&self, ticket: [u8; 8], claimed_ms: u64) -> bool {
        let last = self.younger.get(&ticket);
        let last = last.or_else(|| self.older.get(&ticket));
        last.is_none_or(|last| claimed_ms > *last)
    }

    /// Remembers a use; `false` when it is not later than the last one.
    pub(super) fn note(&mut self, ticket: [u8; 8], claimed_ms: u64) -> bool {
        if !self.is_later(ticket, claimed_ms) {
            return false;
        }
        if self.younger.len() >= MAX_USED_TICKETS {
            self.turn();
        }
        self.younger.insert(ticket, claimed_ms);
        true
    }

    pub(super) fn turn(&mut self) {
        self.older = std::mem::take(&mut self.younger);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_taken_later_each_time_and_nobody_is_locked_out() {
        let mut used = UsedTickets::default();
        assert!(used.note([1; 8], 10));
        assert!(
            !used.note([1; 8], 10) && !used.note([1; 8], 9),
            "a repetition"
        );
        assert!(used.note([1; 8], 11));
        for number in 0..3 * MAX_USED_TICKETS as u64 {
            assert!(
                used.note((number + 1_000_000).to_be_bytes(), 5),
                "a flood of one member"
            );
            assert!(used.younger.len() <= MAX_USED_TICKETS && used.older.len() <= MAX_USED_TICKETS);
        }
        assert!(used.note([2; 8], 1), "another member's first");
    }

    #[test]
    fn one_peer_has_few_resumptions_pending() {
        let mut pending = Pending::default();
        let id = |number: u8| SessionId::from_bytes([number; 7]);
        for number in 0..4 {
            assert_eq!(pending.add(PeerId([1; 32]), id(number)), None);
        }
        assert_eq!(pending.add(PeerId([1; 32]), id(4)), Some(id(0)));
        assert_eq!(pending.add(PeerId([2; 32]), id(5)), None);
        assert_eq!(pending.total, 5);
        for number in 0..6 {
            pending.remove(PeerId([1; 32]), id(number));
            pending.remove(PeerId([2; 32]), id(number));
        }
        assert_eq!(pending.total, 0);
        assert!(pending.of.is_empty());
    }
}
