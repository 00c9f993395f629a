//! Requests under way: at most so many at a time, repeated until answered, given up in the end.
//!
//! They outlive the session that they were first sent in: every request is idempotent, so what a lost
//! session left unanswered is simply asked again in the next one.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::wire::MAX_OUTSTANDING_REQUESTS;
use crate::wire::control::Request;
use crate::wire::id::RequestId;

/// Waits between the first repetitions; the last one goes on.
const REPEATS_MS: [u64; 4] = [200, 200, 400, 600];
/// Wait between repetitions on a path that loses datagrams.
const LOSSY_REPEAT: Duration = Duration::from_millis(200);
/// A request without an answer fails after this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// A request that does not get its turn fails after this long.
const QUEUE_PATIENCE: Duration = Duration::from_secs(30);
/// Requests that may wait for their turn.
const MAX_QUEUED: usize = 4096;

/// All requests of one peer to its tracker.
#[derive(Debug, Default)]
pub struct Requests {
    outstanding: BTreeMap<RequestId, Outstanding>,
    queued: VecDeque<(RequestId, Request, Instant)>,
    last: u32,
}

#[derive(Debug)]
struct Outstanding {
    request: Request,
    sends: usize,
    next_send: Instant,
    gives_up: Instant,
}

impl Outstanding {
    /// Sends at once and counts from the beginning: nothing was lost.
    fn hasten(&mut self, now: Instant) {
        self.next_send = now;
        self.sends = 0;
    }
}

impl Requests {
    /// A number that no other request of this peer has.
    pub fn fresh_id(&mut self) -> RequestId {
        self.last = self.last.wrapping_add(1);
        RequestId(self.last)
    }

    /// Takes a request; `None` when too many wait already.
    pub fn push(&mut self, now: Instant, request: Request) -> Option<RequestId> {
        if self.queued.len() >= MAX_QUEUED {
            return None;
        }
        let id = self.fresh_id();
        self.queued.push_back((id, request, now + QUEUE_PATIENCE));
        Some(id)
    }

    /// The next request that is to be sent now; `again` tells whether it is a repetition.
    pub fn poll_due(
        &mut self,
        now: Instant,
        is_lossy: bool,
    ) -> Option<(RequestId, &Request, Again)> {
        if let Some(id) = self.due(now) {
            let entry = self.outstanding.get_mut(&id)?;
            entry.next_send = now + repeat_after(entry.sends, is_lossy);
            entry.sends += 1;
            let again = if entry.sends == 1 {
                Again::First
            } else {
                Again::Repeated
            };
            return Some((id, &entry.request, again));
        }
        if self.outstanding.len() >= MAX_OUTSTANDING_REQUESTS {
            return None;
        }
        let (id, request, _) = self.queued.pop_front()?;
        let next_send = now + repeat_after(0, is_lossy);
        let entry = Outstanding {
            request,
            sends: 1,
            next_send,
            gives_up: now + PATIENCE,
        };
        let entry = self.outstanding.entry(id).or_insert(entry);
        Some((id, &entry.request, Again::First))
    }

    /// An answer came; `None` when nobody waits for it (any more).
    pub fn finish(&mut self, id: RequestId) -> Option<Request> {
        self.outstanding.remove(&id).map(|entry| entry.request)
    }

    /// Send this one again at once: the tracker wants proof of our address first.
    pub fn hasten(&mut self, now: Instant, id: RequestId) {
        if let Some(entry) = self.outstanding.get_mut(&id) {
            entry.hasten(now);
        }
    }

    /// Send all again at once: a new session began.
    pub fn hasten_all(&mut self, now: Instant) {
        for entry in self.outstanding.values_mut() {
            entry.hasten(now);
        }
    }

    /// The next request that got no answer in time; it is forgotten.
    pub fn poll_failed(&mut self, now: Instant) -> Option<(RequestId, Request)> {
        if let Some((id, request, _)) = self
            .queued
            .pop_front_if(|(_, _, gives_up)| *gives_up <= now)
        {
            return Some((id, request));
        }
        let (id, _) = self
            .outstanding
            .iter()
            .find(|(_, entry)| entry.gives_up <= now)?;
        self.outstanding
            .remove_entry(&id.clone())
            .map(|(id, entry)| (id, entry.request))
    }

    /// Any request that has no answer yet; it is forgotten.
    pub fn poll_any(&mut self) -> Option<(RequestId, Request)> {
        let outstanding = self.outstanding.pop_first();
        outstanding
            .map(|(id, entry)| (id, entry.request))
            .or_else(|| {
                self.queued
                    .pop_front()
                    .map(|(id, request, _)| (id, request))
            })
    }

    /// When to come back.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let outstanding = self
            .outstanding
            .values()
            .map(|entry| entry.next_send.min(entry.gives_up))
            .min();
        outstanding
            .into_iter()
            .chain(self.poll_queue_timeout())
            .min()
    }

    /// When a request that waits for its turn is given up.
    #[must_use]
    pub fn poll_queue_timeout(&self) -> Option<Instant> {
        self.queued.front().map(|(_, _, gives_up)| *gives_up)
    }

    /// Is there a request that was never sent and may be?
    #[must_use]
    pub fn has_queued(&self) -> bool {
        !self.queued.is_empty() && self.outstanding.len() < MAX_OUTSTANDING_REQUESTS
    }

    fn due(&self, now: Instant) -> Option<RequestId> {
        self.outstanding
            .iter()
            .find(|(_, entry)| entry.next_send <= now)
            .map(|(id, _)| *id)
    }
}

/// Was a request sent before?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// No.
    First,
    /// Yes, and it was not answered.
    Repeated,
}

fn repeat_after(sends: usize, is_lossy: bool) -> Duration {
    if is_lossy {
        return LOSSY_REPEAT;
    }
    Duration::from_millis(REPEATS_MS[sends.min(REPEATS_MS.len() - 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The times in ms at which one unanswered request is sent, and when it fails.
    fn sends(is_lossy: bool) -> (Vec<u32>, u32) {
        let start = Instant::now();
        let mut requests = Requests::default();
        requests.push(Instant::now(), Request::Leave).unwrap();
        let mut sent = Vec::new();
        for ms in 0.. {
            let now = start + ms * MS;
            if requests.poll_failed(now).is_some() {
                return (sent, ms);
            }
            while requests.poll_due(now, is_lossy).is_some() {
                sent.push(ms);
            }
        }
        unreachable!()
    }

    #[test]
    fn an_unanswered_request_is_repeated_and_fails_in_the_end() {
        let (sent, failed) = sends(false);
        assert_eq!(sent, [0, 200, 400, 800, 1400, 2000, 2600, 3200, 3800, 4400]);
        assert_eq!(failed, 5000);
        assert_eq!(sends(true).0.len(), 25);
    }

    #[test]
    fn no_more_than_the_limit_is_outstanding() {
        let now = Instant::now();
        let mut requests = Requests::default();
        let ids: Vec<_> = (0..40)
            .map(|_| requests.push(Instant::now(), Request::Leave).unwrap())
            .collect();
        let mut sent = 0;
        while requests.poll_due(now, false).is_some() {
            sent += 1;
        }
        assert_eq!(sent, MAX_OUTSTANDING_REQUESTS);
        assert!(requests.finish(ids[0]).is_some());
        assert!(requests.finish(ids[0]).is_none(), "an answer counts once");
        assert_eq!(
            requests.poll_due(now, false).map(|(id, ..)| id),
            Some(ids[32])
        );
        assert!(requests.poll_due(now, false).is_none());
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut requests = Requests::default();
        assert!((0..MAX_QUEUED).all(|_| requests.push(Instant::now(), Request::Leave).is_some()));
        assert_eq!(requests.push(Instant::now(), Request::Leave), None);
    }

    #[test]
    fn a_request_that_never_gets_its_turn_fails_too() {
        let now = Instant::now();
        let mut requests = Requests::default();
        let id = requests.push(now, Request::Leave).unwrap();
        assert_eq!(requests.poll_failed(now + QUEUE_PATIENCE - MS), None);
        assert_eq!(
            requests.poll_failed(now + QUEUE_PATIENCE),
            Some((id, Request::Leave))
        );
        assert_eq!(requests.poll_timeout(), None);
    }

    #[test]
    fn a_new_session_asks_everything_again_at_once() {
        let now = Instant::now();
        let mut requests = Requests::default();
        let id = requests.push(Instant::now(), Request::Leave).unwrap();
        assert!(requests.poll_due(now, false).is_some());
        assert!(requests.poll_due(now + MS, false).is_none());
        requests.hasten_all(now + MS);
        assert_eq!(
            requests
                .poll_due(now + MS, false)
                .map(|(id, _, again)| (id, again)),
            Some((id, Again::First))
        );
    }
}
