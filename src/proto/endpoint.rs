//! All sessions behind the tracker's one UDP port: routes, resumes; silence to everybody else.
//!
//! Nothing here answers a datagram that does not open. An address gets no more bytes than came from it
//! until it has sent back the path token that we sent there; the address of a session follows the newest
//! datagram that proves it. A session that falls silent is first hidden, then kept for a minute, so that
//! a short outage costs neither a resumption nor a second announcement.
//!
//! Several workers call it at the same time; each call takes the lock of one session's shard, for as long
//! as opening or sealing one datagram takes. Heartbeats are answered here, without an allocation and
//! without any other lock. The age of a session is counted in sweeps, which are made only when all that
//! has come was heard: a tracker which did not run for a while ages nobody.

mod traffic;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::traffic::{plaintext_of, read_request};
use super::crowd::{Fading, Present};
use super::limiter::Source;
use super::resumes::{Pending, UsedTickets};
use super::session::Rhythm;
use super::sessions::{Cold, Hot, Session, Sessions, Slot, Stage};
use super::tempo::Tempo;
use crate::crypto::envelope::DatagramKeys;
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::secret::Secret;
use crate::crypto::ticket::{TicketContent, TicketOffice};
use crate::wire::MAX_DATAGRAM_LEN;
use crate::wire::control::{Head, PathToken};
use crate::wire::id::{PeerId, RequestId, SessionId};
use crate::wire::packet::DataHeader;

/// Time between two sweeps, and so what a tick lasts at least.
pub const SWEEP: Duration = Duration::from_millis(250);
const TICKS_PER_SECOND: u16 = 4;
/// A session that never sent anything is forgotten after this many ticks.
const UNUSED_LIFE: u16 = 10 * TICKS_PER_SECOND;
/// A resumed session must be used within this many.
const PENDING_LIFE: u16 = 5 * TICKS_PER_SECOND;
/// Silent sessions are kept for this many after they were hidden.
const KEPT: u16 = 60 * TICKS_PER_SECOND;
/// A session is used for this many; peers renew theirs at half of it.
const MAX_AGE: u32 = 2 * 3600 * TICKS_PER_SECOND as u32;
/// Resumptions that may wait for their first use.
const MAX_PENDING: usize = 65_536;
/// A generation of used tickets lasts as long as a RESUME may be off in time, in both directions.
const TICKS_PER_GENERATION: u32 = 600 * TICKS_PER_SECOND as u32;
/// Requests of one session: 5000 a second, 10 000 at once.
const BUDGET_PER_TICK: u16 = 5_000 / TICKS_PER_SECOND;
const MAX_BUDGET: u16 = 10_000;

/// RESUMEs of one source that may come to nothing: so many at once, and so many with each tick.
const FAILED_RESUMES: (u32, u32) = (64, 2);
/// Tickets of one peer that may be used: so many at once, and so many with each tick.
const RESUMES_OF_ONE: (u32, u32) = (32, 1);
/// Sessions of one source that have shaken hands and are not logged in.
const GUESTS_PER_SOURCE: u32 = 2048;

/// Room for one datagram that is sent: a worker has one and uses it for all of its answers.
pub type Outgoing = [u8; MAX_DATAGRAM_LEN];

/// What the tracker's memory of peers has to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A session that was hidden, or has just been resumed, is alive.
    Shown(Caller),
    /// A peer has proved to be at another address.
    Moved(SessionId, PeerId, IpAddr),
    /// A session fell silent.
    Hidden(PeerId),
    /// A session ended.
    Ended(PeerId),
}

/// Who asks, and whence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The session.
    pub session: SessionId,
    /// The key of its peer.
    pub peer: PeerId,
    /// The address that the datagram came from; anybody may have written it there.
    pub from: SocketAddr,
    /// The address that the peer has proved to have.
    pub ip: IpAddr,
    /// Where the peer listens.
    pub listening_port: Option<u16>,
    /// Has it logged in?
    pub is_member: bool,
    /// Who it is logged in as, when a ticket says so.
    pub ticket: Option<Arc<TicketContent>>,
}

/// Where an answer goes, and how long it may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Return {
    session: SessionId,
    /// The request that it answers.
    pub request: RequestId,
    /// The token of the address that the request came from.
    pub token: PathToken,
    asked_len: usize,
}

/// A peer that has just shaken hands.
#[derive(Debug)]
pub struct Admission {
    /// Its proved key.
    pub peer: PeerId,
    /// Keys of the session, tracker's side.
    pub keys: DatagramKeys,
    /// The resumption secret of the handshake.
    pub resume: Secret<32>,
    /// Where its handshake came from, which TCP has proved.
    pub ip: IpAddr,
    /// Where it listens.
    pub listening_port: Option<u16>,
}

/// What came to nothing, and what did not: numbers, for whoever runs the tracker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams of no known form or length.
    pub malformed: u64,
    /// Datagrams of a session that is not here.
    pub unknown_session: u64,
    /// Datagrams that did not open.
    pub unopened: u64,
    /// Datagrams whose counter was used before, or is too old.
    pub replayed: u64,
    /// Requests of a session that asks too often.
    pub over_budget: u64,
    /// RESUMEs of a source from which too many came to nothing, or of a peer that resumes without end.
    pub limited: u64,
    /// Requests that opened and were not understood.
    pub not_understood: u64,
    /// Sessions that began with a ticket.
    pub resumed: u64,
    /// Tickets that did not open, were used before, or whose holder may not return.
    pub not_resumed: u64,
}

/// Sessions of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// After a handshake, and nothing came yet.
    pub unused: u64,
    /// After a resumption, and nothing came yet.
    pub pending: u64,
    /// In use.
    pub live: u64,
    /// Silent, but kept for a while.
    pub hidden: u64,
}

impl Census {
    /// Of all kinds.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.unused + self.pending + self.live + self.hidden
    }
}

/// A datagram that may be ours, by its outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Of this session.
    Data(DataHeader, Slot),
    /// A peer with a ticket wants a new session.
    Resume,
}

/// What came of a datagram.
#[derive(Debug)]
pub enum Heard<'a> {
    /// It was not for us, repeated, or one too many.
    Nothing,
    /// So many bytes are to be sent back.
    Answer(usize),
    /// A request of this kind, to be answered by [`Endpoint::respond`].
    Request(Caller, Return, Head, &'a [u8]),
}

/// The machine; the tracker's workers drive it.
pub struct Endpoint {
    sessions: Sessions,
    /// The one session of each peer that is in use.
    current: Mutex<HashMap<PeerId, SessionId>>,
    resumes: Mutex<(Pending, UsedTickets)>,
    /// RESUMEs that came to nothing, by source; and tickets that were used, by peer.
    failed_resumes: Fading,
    used_by: Fading,
    /// Sessions that are not logged in, by the source of their handshake.
    guests: Present,
    office: TicketOffice,
    token_key: [u8; 16],
    tick: AtomicU32,
    tempo: Mutex<Tempo>,
    /// Of the tempo: interval and silence, in ms.
    rhythm: AtomicU64,
}

impl Endpoint {
    /// No sessions. `workers` will drive it, and peers are told `rhythm` as long as they are few.
    #[must_use]
    pub fn new(
        office: TicketOffice,
        rhythm: Rhythm,
        workers: usize,
        random: &mut dyn Random,
    ) -> Self {
        Self {
            sessions: Sessions::new(),
            current: Mutex::default(),
            resumes: Mutex::default(),
            failed_resumes: Fading::new(FAILED_RESUMES.0, FAILED_RESUMES.1, random),
            used_by: Fading::new(RESUMES_OF_ONE.0, RESUMES_OF_ONE.1, random),
            guests: Present::new(random),
            office,
            token_key: random_bytes(random),
            tick: AtomicU32::new(0),
            tempo: Mutex::new(Tempo::new(rhythm, workers)),
            rhythm: AtomicU64::new(pack(rhythm)),
        }
    }

    /// Makes tickets.
    #[must_use]
    pub const fn office(&self) -> &TicketOffice {
        &self.office
    }

    /// The secret that goes with a ticket given in `session`, if that began with a handshake.
    #[must_use]
    pub fn resume_secret(&self, session: SessionId) -> Option<Secret<32>> {
        self.sessions
            .with(session, |session| session.cold.resume.clone())?
    }

    /// What peers are told now.
    #[must_use]
    pub fn rhythm(&self) -> Rhythm {
        unpack(self.rhythm.load(Ordering::Relaxed))
    }

    /// Begins a session after a handshake.
    pub fn admit(&self, admission: Admission, random: &mut dyn Random) -> SessionId {
        let Admission {
            peer,
            keys,
            resume,
            ip,
            listening_port,
        } = admission;
        loop {
            let id = SessionId::from_bytes(random_bytes(random));
            let cold = Cold {
                peer,
                listening_port,
                ip,
                proved: None,
                ticket: None,
                resume: Some(resume.clone()),
                guest: Some(self.guests.add(&Source::of(ip))),
            };
            match self.insert(id, &keys, Stage::Unused, UNUSED_LIFE, cold) {
                Ok(()) => return id,
                Err(cold) => self.see_off(&cold),
            }
        }
    }

    /// May somebody from there shake hands? Sessions that are not logged in take place, too.
    #[must_use]
    pub fn has_room_for(&self, ip: IpAddr) -> bool {
        self.guests.count(&Source::of(ip)) < GUESTS_PER_SOURCE
    }

    /// A session is over, or logged in: it is no guest any more.
    fn see_off(&self, cold: &Cold) {
        if let Some(spot) = cold.guest {
            self.guests.remove(spot);
        }
    }

    /// Sessions in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Is nobody here?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sessions.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            unused: self.sessions.count(Stage::Unused),
            pending: self.sessions.count(Stage::Pending),
            live: self.sessions.count(Stage::Live),
            hidden: self.sessions.count(Stage::Hidden),
        }
    }

    /// The peer of `session` has logged in, and publishes so much: what heartbeats are told.
    pub fn set_published(&self, session: SessionId, count: u32, digest: u64) {
        self.sessions.with(session, |session| {
            (session.hot.published, session.hot.digest) = (count, digest);
            (session.hot.is_member, session.hot.is_void) = (true, false);
            self.see_off(session.cold);
            session.cold.guest = None;
        });
    }

    /// The peer of `session` was put out: it has to log in again, and its heartbeats are no longer answered
    /// as if nothing had happened.
    pub fn set_void(&self, session: SessionId) {
        self.sessions.with(session, |session| {
            (session.hot.is_member, session.hot.is_void) = (false, true);
        });
    }

    /// The session in which `peer` is, and whether it was heard lately.
    #[must_use]
    pub fn presence(&self, peer: &PeerId) -> Option<(SessionId, bool)> {
        let id = *self.current().get(peer)?;
        let is_live = |session: Session<'_>| session.hot.stage == Stage::Live;
        Some((id, self.sessions.with(id, is_live)?))
    }

    /// Ends a session at once.
    pub fn end(&self, id: SessionId, events: &mut Vec<Event>) {
        let Some((stage, cold)) = self.sessions.remove(id) else {
            return;
        };
        self.see_off(&cold);
        if stage == Stage::Pending {
            self.resumes().0.remove(cold.peer, id);
        }
        let mut current = self.current();
        if current.get(&cold.peer) == Some(&id) {
            current.remove(&cold.peer);
            events.push(Event::Ended(cold.peer));
        }
    }

    /// One more tick has passed. The driver has emptied its sockets before.
    pub fn sweep(&self, events: &mut Vec<Event>) {
        let tick = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        if tick.is_multiple_of(TICKS_PER_GENERATION) {
            self.resumes().1.turn();
        }
        let mut ended = Vec::new();
        let count = self.sessions.sweep(tick, |session| {
            let Session { hot, pulse, cold } = session;
            if hot.stage == Stage::Live {
                self.sessions.promote(hot, Stage::Hidden);
                pulse.limit = pulse.limit.saturating_add(KEPT);
                events.push(Event::Hidden(cold.peer));
            } else {
                ended.push(hot.id);
            }
        });
        for id in ended {
            self.end(id, events);
        }
        let mut tempo = self.tempo.lock().unwrap_or_else(PoisonError::into_inner);
        tempo.update(count);
        self.rhythm.store(pack(tempo.rhythm()), Ordering::Relaxed);
    }

    fn insert(
        &self,
        id: SessionId,
        keys: &DatagramKeys,
        stage: Stage,
        life: u16,
        cold: Cold,
    ) -> Result<(), Cold> {
        let tick = self.tick.load(Ordering::Relaxed);
        let told = ticks(self.rhythm().silence);
        self.sessions
            .insert(id, keys, (stage, tick, life, told, MAX_BUDGET), cold)
    }

    /// The session was heard: it is shown again, and takes the place of its peer's older one.
    fn wake(&self, id: SessionId, before: Stage, from: SocketAddr, events: &mut Vec<Event>) {
        let found = self.sessions.with(id, |session| {
            let Session { hot, cold, .. } = session;
            caller(hot, cold, from)
        });
        let Some(caller) = found else {
            return;
        };
        if before == Stage::Pending {
            self.resumes().0.remove(caller.peer, id);
        }
        let older = self.current().insert(caller.peer, id);
        if let Some(older) = older.filter(|older| *older != id)
            && let Some((_, cold)) = self.sessions.remove(older)
        {
            self.see_off(&cold);
        }
        if before != Stage::Unused {
            events.push(Event::Shown(caller));
        }
    }

    fn current(&self) -> MutexGuard<'_, HashMap<PeerId, SessionId>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resumes(&self) -> MutexGuard<'_, (Pending, UsedTickets)> {
        self.resumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn caller(hot: &Hot, cold: &Cold, from: SocketAddr) -> Caller {
    Caller {
        session: hot.id,
        peer: cold.peer,
        from,
        ip: cold.ip.to_canonical(),
        listening_port: cold.listening_port,
        is_member: hot.is_member,
        ticket: cold.ticket.clone(),
    }
}

/// A silence in ticks, the one that has begun not counted.
fn ticks(silence: Duration) -> u16 {
    let ticks = silence.as_millis() / SWEEP.as_millis();
    u16::try_from(ticks).unwrap_or(u16::MAX - KEPT - 1)
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn pack(rhythm: Rhythm) -> u64 {
    u64::from(millis(rhythm.interval)) << 32 | u64::from(millis(rhythm.silence))
}

fn unpack(packed: u64) -> Rhythm {
    Rhythm {
        interval: Duration::from_millis(packed >> 32),
        silence: Duration::from_millis(packed & u64::from(u32::MAX)),
    }
}

#[cfg(test)]
mod tests;
