//! One control session at the peer's end: keys, path token, heartbeats, and whether anybody answers.
//!
//! A heartbeat that stays unanswered is repeated at short spacing, and whoever lost one beats faster for
//! a minute, so that a silence limit of 3 s survives one datagram in five being lost both ways.

use std::time::{Duration, Instant};

use crate::crypto::envelope::{DatagramKeys, Exhausted, Opener, Sealer};
use crate::wire::control::{HeartbeatAck, PathToken, Request, Response, split};
use crate::wire::id::{RequestId, SessionId};
use crate::wire::packet::{DataHeader, Datagram};

/// First repetition of an unanswered heartbeat.
const FIRST_REPEAT: Duration = Duration::from_millis(200);
/// Spacing of its later repetitions.
const REPEAT: Duration = Duration::from_millis(150);
/// Repetitions after the silence limit: the tracker is gone, no need to hurry.
const SLOW_REPEAT: Duration = Duration::from_secs(1);
/// Time between heartbeats after a loss.
const LOSSY_INTERVAL: Duration = Duration::from_millis(500);
/// How long a loss is remembered.
const LOSS_MEMORY: Duration = Duration::from_secs(60);
/// A tracker may ask for heartbeats between these bounds, whatever it says.
const INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// Times that a tracker tells its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Between heartbeats.
    pub interval: Duration,
    /// Silence after which either end counts the other as gone.
    pub silence: Duration,
}

impl Rhythm {
    /// What a tracker asks for, within bounds that keep a peer from spinning or sleeping.
    #[must_use]
    pub fn new(interval: Duration, silence: Duration) -> Self {
        let interval = interval.clamp(INTERVAL_BOUNDS.0, INTERVAL_BOUNDS.1);
        Self {
            interval,
            silence: silence.clamp(interval, interval * 4),
        }
    }

    /// A peer that heard nothing for this long tries its ticket, before the tracker gives it up.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.silence * 5 / 6
    }
}

/// One session under one pair of keys.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    sealer: Sealer,
    opener: Opener,
    /// The last token that the tracker sent; it goes back with every datagram.
    token: PathToken,
    rhythm: Rhythm,
    began: Instant,
    last_heard: Instant,
    next_beat: Instant,
    /// The heartbeat that waits for its answer.
    awaited: Option<Awaited>,
    lossy_until: Option<Instant>,
    /// Was no heartbeat answered yet?
    is_first: bool,
}

#[derive(Debug)]
struct Awaited {
    request: RequestId,
    since: Instant,
    is_repeated: bool,
}

impl Session {
    /// A session that begins at `now`; its first heartbeat is due at once.
    #[must_use]
    pub fn new(now: Instant, id: SessionId, keys: DatagramKeys, rhythm: Rhythm) -> Self {
        Self {
            id,
            sealer: Sealer::new(id, keys.send),
            opener: Opener::new(keys.receive),
            token: [0; 8],
            rhythm,
            began: now,
            last_heard: now,
            next_beat: now,
            awaited: None,
            lossy_until: None,
            is_first: true,
        }
    }

    /// When its keys were agreed.
    #[must_use]
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// The last time that the tracker proved to be there.
    #[must_use]
    pub const fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// The times that the tracker asked for.
    #[must_use]
    pub const fn rhythm(&self) -> Rhythm {
        self.rhythm
    }

    /// Was a datagram lost in the last minute?
    #[must_use]
    pub fn is_lossy(&self, now: Instant) -> bool {
        self.lossy_until.is_some_and(|until| now < until)
    }

    /// Remembers that a datagram was lost.
    pub fn note_loss(&mut self, now: Instant) {
        self.lossy_until = Some(now + LOSS_MEMORY);
    }

    /// Appends the sealed request to `out`; `false` when its body is too large for a datagram.
    ///
    /// # Errors
    /// When the session's key is used up.
    pub fn seal(
        &mut self,
        id: RequestId,
        request: &Request,
        out: &mut Vec<u8>,
    ) -> Result<bool, Exhausted> {
        let Some(plaintext) = request.encode(id, self.token) else {
            return Ok(false);
        };
        self.sealer.seal(&plaintext, out)?;
        Ok(true)
    }

    /// Opens an answer. Anything that is not one of this session changes nothing.
    pub fn open(&mut self, now: Instant, datagram: &mut [u8]) -> Option<(RequestId, Response)> {
        let header: DataHeader = match Datagram::parse(datagram) {
            Ok(Datagram::Data(header)) if header.session == self.id => header,
            _ => return None,
        };
        let opened = self.opener.open(header, datagram).ok()?;
        self.last_heard = now;
        let (head, body) = split(opened.plaintext).ok()?;
        if opened.is_newest {
            self.token = head.token;
        }
        Some((head.request, Response::decode(&head, body).ok()?))
    }

    /// Takes over what a heartbeat's answer says; a late answer to an earlier one counts as well.
    pub fn handle_ack(&mut self, now: Instant, request: RequestId, ack: HeartbeatAck) {
        let millis = |ms: u32| Duration::from_millis(u64::from(ms));
        self.rhythm = Rhythm::new(millis(ack.interval_ms), millis(ack.silence_ms));
        let Some(awaited) = self.awaited.take_if(|awaited| awaited.request == request) else {
            return;
        };
        if awaited.is_repeated {
            self.note_loss(now);
        }
        let interval = if self.is_lossy(now) {
            LOSSY_INTERVAL
        } else {
            self.rhythm.interval
        };
        let mut pause = interval.min(self.rhythm.interval);
        if std::mem::take(&mut self.is_first) {
            // Peers who came together, after a restart say, do not beat together from now on.
            let [.., share] = self.id.to_bytes();
            pause -= pause * u32::from(share) / 320;
        }
        self.next_beat = awaited.since + pause;
    }

    /// Nothing is awaited any more; the next heartbeat is due at `next`.
    pub fn reset_heartbeat(&mut self, next: Instant) {
        self.awaited = None;
        self.next_beat = next;
    }

    /// The heartbeat that is due, if any: its number is `fresh()` or, when repeated, the one it had.
    pub fn poll_heartbeat(
        &mut self,
        now: Instant,
        fresh: impl FnOnce() -> RequestId,
    ) -> Option<RequestId> {
        if now < self.next_beat {
            return None;
        }
        let Some(awaited) = &mut self.awaited else {
            let request = fresh();
            self.awaited = Some(Awaited {
                request,
                since: now,
                is_repeated: false,
            });
            self.next_beat = now + FIRST_REPEAT;
            return Some(request);
        };
        awaited.is_repeated = true;
        let request = awaited.request;
        let is_hopeless = now.duration_since(self.last_heard) > self.rhythm.silence;
        self.next_beat = now + if is_hopeless { SLOW_REPEAT } else { REPEAT };
        Some(request)
    }

    /// When the next heartbeat is due.
    #[must_use]
    pub const fn next_beat(&self) -> Instant {
        self.next_beat
    }

    /// Since when the tracker owes an answer to a heartbeat.
    #[must_use]
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.awaited
            .as_ref()
            .map(|awaited| awaited.since.max(self.last_heard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::Secret;

    const MS: Duration = Duration::from_millis(1);

    fn session(now: Instant) -> Session {
        session_with_id(now, 0)
    }

    fn session_with_id(now: Instant, last: u8) -> Session {
        let keys = DatagramKeys {
            send: Secret::new([1; 32]),
            receive: Secret::new([2; 32]),
        };
        Session::new(
            now,
            SessionId::from_bytes([7, 7, 7, 7, 7, 7, last]),
            keys,
            Rhythm::new(2000 * MS, 3000 * MS),
        )
    }

    fn ack(interval_ms: u32) -> HeartbeatAck {
        HeartbeatAck {
            interval_ms,
            silence_ms: interval_ms + 1000,
            published: 0,
            digest: 0,
        }
    }

    /// The times in ms at which heartbeats go out while `answers` says which are answered at once.
    fn beats(until_ms: u32, answers: impl Fn(u32) -> bool) -> Vec<u32> {
        let start = Instant::now();
        let mut session = session(start);
        let mut next_id = 0;
        let mut sent = Vec::new();
        for ms in 0..until_ms {
            let now = start + ms * MS;
            let fresh = || {
                next_id += 1;
                RequestId(next_id)
            };
            if let Some(id) = session.poll_heartbeat(now, fresh) {
                sent.push(ms);
                if answers(ms) {
                    session.handle_ack(now, id, ack(2000));
                }
            }
        }
        sent
    }

    #[test]
    fn an_answered_heartbeat_comes_every_interval() {
        assert_eq!(beats(8001, |_| true), [0, 2000, 4000, 6000, 8000]);
    }

    #[test]
    fn second_heartbeats_are_spread_over_most_of_the_interval() {
        let start = Instant::now();
        let mut seconds: Vec<_> = (0..=255)
            .map(|last| {
                let mut session = session_with_id(start, last);
                let id = session.poll_heartbeat(start, || RequestId(1)).unwrap();
                session.handle_ack(start, id, ack(2000));
                session.next_beat() - start
            })
            .collect();
        seconds.sort();
        assert!(
            seconds[0] > 400 * MS && seconds[0] < 450 * MS,
            "{seconds:?}"
        );
        assert_eq!(seconds[255], 2000 * MS);
        let widest = seconds.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest < Some(10 * MS), "{widest:?}");
    }

    #[test]
    fn an_unanswered_heartbeat_is_repeated_closely() {
        assert_eq!(beats(700, |_| false), [0, 200, 350, 500, 650]);
    }

    #[test]
    fn after_a_loss_heartbeats_come_closer_for_a_minute() {
        let sent = beats(70_000, |ms| ms != 2000);
        assert_eq!(sent[..6], [0, 2000, 2200, 2500, 3000, 3500]);
        let gaps: Vec<u32> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps.last(), Some(&2000), "the loss is forgotten at the end");
    }

    #[test]
    fn a_tracker_cannot_make_a_peer_spin_or_sleep() {
        let rhythm = Rhythm::new(Duration::ZERO, Duration::ZERO);
        assert!(rhythm.interval >= 200 * MS && rhythm.silence >= rhythm.interval);
        let rhythm = Rhythm::new(Duration::MAX, Duration::MAX);
        assert!(
            rhythm.interval <= Duration::from_secs(60)
                && rhythm.silence <= Duration::from_secs(240)
        );
    }

    #[test]
    fn foreign_datagrams_change_nothing() {
        let start = Instant::now();
        let mut session = session(start);
        for len in [0, 1, 96, 160, 1232] {
            assert!(
                session
                    .open(start + 50 * MS, &mut vec![0x14; len])
                    .is_none()
            );
        }
        assert_eq!(session.last_heard(), start);
    }
}
