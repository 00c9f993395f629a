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

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::resumes::{Pending, UsedTickets};
use super::session::Rhythm;
use super::sessions::{Cold, Hot, Miss, Session, Sessions, Slot, Stage};
use super::tempo::Tempo;
use crate::crypto::envelope::DatagramKeys;
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::secret::Secret;
use crate::crypto::ticket::{TicketContent, TicketOffice};
use crate::wire::MAX_DATAGRAM_LEN;
use crate::wire::control::{
    Head, HeartbeatAck, Kind, PathToken, Plaintext, Refusal, Request, Response, split,
};
use crate::wire::id::{PeerId, RequestId, SessionId};
use crate::wire::packet::{
    DATAGRAM_HEADER_LEN, DATAGRAM_OVERHEAD, DataHeader, Datagram, RESUME_LEN, RESUMED_LEN,
};

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
            };
            if self.insert(id, &keys, Stage::Unused, UNUSED_LIFE, cold) {
                return id;
            }
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

    /// What a datagram may be, by its outside and by what we know of its session. First asked of a whole
    /// batch, then each is opened: what is fetched from memory for one comes while the next is looked for.
    #[must_use]
    pub fn find(&self, datagram: &[u8], tally: &mut Tally) -> Option<Found> {
        let header = match Datagram::parse(datagram) {
            Ok(Datagram::Data(header)) => header,
            Ok(Datagram::Resume) => return Some(Found::Resume),
            Ok(Datagram::Resumed) | Err(_) => {
                tally.malformed += 1;
                return None;
            }
        };
        match self.sessions.find(&header) {
            Ok(slot) => return Some(Found::Data(header, slot)),
            Err(Miss::Unknown) => tally.unknown_session += 1,
            Err(Miss::Replayed) => tally.replayed += 1,
        }
        None
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

    /// Opens a datagram where it lies. Heartbeats are answered into `out` at once.
    pub fn open<'a>(
        &self,
        (header, slot): (DataHeader, Slot),
        from: SocketAddr,
        datagram: &'a mut [u8],
        out: &mut Outgoing,
        (events, tally): (&mut Vec<Event>, &mut Tally),
    ) -> Heard<'a> {
        let id = header.session;
        let asked_len = datagram.len();
        let tick = self.tick.load(Ordering::Relaxed);
        let token = self.path_token(id, from);
        let (mut woken, mut is_over) = (None, false);
        let heard = self.sessions.at(id, slot, |session| {
            let Session { hot, pulse, cold } = session;
            if tick.wrapping_sub(hot.began) > MAX_AGE {
                is_over = true;
                return Heard::Nothing;
            }
            let Ok(opened) = hot.opener.open(header, datagram) else {
                if hot.opener.accepts(header.counter) {
                    tally.unopened += 1;
                } else {
                    tally.replayed += 1;
                }
                return Heard::Nothing;
            };
            let is_newest = opened.is_newest;
            let Ok((head, body)) = split(opened.plaintext) else {
                tally.malformed += 1;
                return Heard::Nothing;
            };
            let passed = tick.wrapping_sub(pulse.seen);
            if passed > 0 {
                let more = u32::from(BUDGET_PER_TICK).saturating_mul(passed);
                let budget = u32::from(pulse.budget).saturating_add(more);
                pulse.budget =
                    u16::try_from(budget).map_or(MAX_BUDGET, |budget| budget.min(MAX_BUDGET));
                pulse.seen = tick;
            }
            if is_newest && head.token == token && hot.proved != token {
                hot.proved = token;
                cold.proved = Some(from);
                if cold.ip != from.ip() {
                    cold.ip = from.ip();
                    events.push(Event::Moved(id, cold.peer, from.ip().to_canonical()));
                }
            }
            if hot.stage != Stage::Live {
                woken = Some(self.sessions.promote(hot, Stage::Live));
                pulse.limit = hot.told;
            }
            if pulse.budget == 0 {
                tally.over_budget += 1;
                return Heard::Nothing;
            }
            pulse.budget -= 1;
            if head.is(Kind::Heartbeat) && !hot.is_void {
                let rhythm = self.rhythm();
                hot.told = ticks(rhythm.silence);
                pulse.limit = hot.told;
                let ack = HeartbeatAck {
                    interval_ms: millis(rhythm.interval),
                    silence_ms: millis(rhythm.silence),
                    published: hot.published,
                    digest: hot.digest,
                };
                let class = Response::Heartbeat(ack).write(head.request, token, plaintext_of(out));
                let len = class.expect("a heartbeat's answer fits") + DATAGRAM_OVERHEAD;
                // As long as the shortest request: it may go to any address.
                return match hot.sealer.seal(id, &mut out[..len]) {
                    Ok(()) => Heard::Answer(len),
                    Err(_) => Heard::Nothing,
                };
            }
            let caller = caller(hot, cold, from);
            let back = Return {
                session: id,
                request: head.request,
                token,
                asked_len,
            };
            Heard::Request(caller, back, head, body)
        });
        if is_over {
            self.end(id, events);
        }
        if let Some(before) = woken {
            self.wake(id, before, from, events);
        }
        heard.unwrap_or(Heard::Nothing)
    }

    /// Seals into `out` what `write` writes, which is told its length: an answer that is larger than what
    /// may go to an address without proof becomes AGAIN, and the peer repeats its request with the token.
    /// How many bytes are to be sent; none when the session is over.
    pub fn respond(
        &self,
        back: &Return,
        out: &mut Outgoing,
        write: impl FnOnce(&mut Plaintext) -> Option<usize>,
    ) -> Option<usize> {
        let again =
            |out: &mut Outgoing| Response::Again.write(back.request, back.token, plaintext_of(out));
        let class = write(plaintext_of(out)).or_else(|| again(out))?;
        self.sessions.with(back.session, |session| {
            let hot = session.hot;
            let mut len = class + DATAGRAM_OVERHEAD;
            if len > back.asked_len && hot.proved != back.token {
                len = again(out)? + DATAGRAM_OVERHEAD;
            }
            hot.sealer.seal(back.session, &mut out[..len]).ok()?;
            Some(len)
        })?
    }

    /// Answers RESUME into `out`. `unix_ms` is this machine's clock; `may_return` is asked whether the
    /// holder of a ticket may come back under its name.
    pub fn resume(
        &self,
        unix_ms: u64,
        from: SocketAddr,
        datagram: &[u8; RESUME_LEN],
        may_return: &dyn Fn(&TicketContent) -> bool,
        (random, out, tally): (&mut dyn Random, &mut Outgoing, &mut Tally),
    ) -> Option<usize> {
        // Until it has come to an end.
        tally.not_resumed += 1;
        if self.resumes().0.total >= MAX_PENDING {
            return None;
        }
        let mut id = SessionId::from_bytes(random_bytes(random));
        while self.sessions.contains(id) {
            id = SessionId::from_bytes(random_bytes(random));
        }
        let resumption = self.office.resume(datagram, unix_ms, id, random).ok()?;
        // Whoever may not come back gets no answer: the handshake that follows tells him why.
        if !may_return(&resumption.ticket) {
            return None;
        }
        let (peer, claimed_ms) = (resumption.ticket.peer, resumption.claimed_ms);
        let oldest = {
            let (pending, used) = &mut *self.resumes();
            if !used.note(resumption.ticket.id, claimed_ms) {
                return None;
            }
            pending.add(peer, id)
        };
        if let Some(oldest) = oldest {
            self.sessions.remove(oldest);
        }
        let cold = Cold {
            peer,
            listening_port: resumption.listening_port,
            // The answer goes to this address, and only who reads it there can use the session.
            ip: from.ip(),
            proved: None,
            ticket: Some(Arc::new(resumption.ticket)),
            resume: None,
        };
        if !self.insert(id, &resumption.keys, Stage::Pending, PENDING_LIFE, cold) {
            self.resumes().0.remove(peer, id);
            return None;
        }
        tally.not_resumed -= 1;
        tally.resumed += 1;
        // Shorter than what came, so it may go to an address without proof.
        out[..RESUMED_LEN].copy_from_slice(&resumption.answer);
        Some(RESUMED_LEN)
    }

    /// The peer of `session` has logged in, and publishes so much: what heartbeats are told.
    pub fn set_published(&self, session: SessionId, count: u32, digest: u64) {
        self.sessions.with(session, |session| {
            (session.hot.published, session.hot.digest) = (count, digest);
            (session.hot.is_member, session.hot.is_void) = (true, false);
        });
    }

    /// The peer of `session` was put out: it has to log in again, and its heartbeats are no longer answered
    /// as if nothing had happened.
    pub fn set_void(&self, session: SessionId) {
        self.sessions.with(session, |session| {
            (session.hot.is_member, session.hot.is_void) = (false, true);
        });
    }

    /// Seals into `out` an answer that was not asked for just now, or an unasked word (request 0): only for
    /// an address that is proved. Where it goes, and how many bytes it has. Who does not get it hears the
    /// same when it asks again.
    pub fn push(
        &self,
        id: SessionId,
        request: RequestId,
        response: &Response,
        out: &mut Outgoing,
    ) -> Option<(SocketAddr, usize)> {
        let to = self.sessions.with(id, |session| session.cold.proved)??;
        let token = self.path_token(id, to);
        let len = response.write(request, token, plaintext_of(out))? + DATAGRAM_OVERHEAD;
        let sealed = |session: Session<'_>| session.hot.sealer.seal(id, &mut out[..len]);
        self.sessions.with(id, sealed)?.ok()?;
        Some((to, len))
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
    ) -> bool {
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
        if let Some(older) = older.filter(|older| *older != id) {
            self.sessions.remove(older);
        }
        if before != Stage::Unused {
            events.push(Event::Shown(caller));
        }
    }

    /// Derived, so that nothing is kept for an address that only claims to be one.
    fn path_token(&self, session: SessionId, address: SocketAddr) -> PathToken {
        let mut bytes = [0; 25];
        bytes[..7].copy_from_slice(&session.to_bytes());
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        bytes[7..23].copy_from_slice(&ip.octets());
        bytes[23..].copy_from_slice(&address.port().to_be_bytes());
        let mut hasher = SipHasher24::new_with_key(&self.token_key);
        hasher.write(&bytes);
        // Never the zeros with which every peer begins.
        hasher.finish().max(1).to_be_bytes()
    }

    fn current(&self) -> MutexGuard<'_, HashMap<PeerId, SessionId>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resumes(&self) -> MutexGuard<'_, (Pending, UsedTickets)> {
        self.resumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the request of a [`Heard::Request`].
///
/// # Errors
/// With the refusal that is its answer, when it makes no sense.
pub fn read_request(head: &Head, body: &[u8]) -> Result<Request, Refusal> {
    Request::decode(head, body).map_err(|_| Refusal::Malformed)
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

/// Where in a datagram its plaintext is written before it is sealed.
pub fn plaintext_of(out: &mut Outgoing) -> &mut Plaintext {
    out[DATAGRAM_HEADER_LEN..]
        .first_chunk_mut()
        .expect("a datagram holds a header, a plaintext and a tag")
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
