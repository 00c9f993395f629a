//! All sessions behind the tracker's one UDP socket: routes, resumes; silence to everybody else.
//!
//! Nothing here answers a datagram that does not open. An address gets no more bytes than came from it
//! until it has sent back the path token that we sent there; the address of a session follows the newest
//! datagram that proves it. A session that falls silent is first hidden, then kept for a minute, so that
//! a short outage costs neither a resumption nor a second announcement.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::limiter::{Bucket, Rate};
use crate::crypto::envelope::{DatagramKeys, Opener, Sealer};
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::secret::Secret;
use crate::crypto::ticket::{TicketContent, TicketOffice};
use crate::wire::control::{PathToken, Request, Response, split};
use crate::wire::id::{PeerId, RequestId, SessionId};
use crate::wire::packet::{DATAGRAM_OVERHEAD, DataHeader, Datagram, RESUME_LEN};

/// Time between two sweeps; the age of a session is counted in sweeps, so that a tracker which did not
/// run for a while ages nobody.
pub const SWEEP: Duration = Duration::from_millis(250);
/// A session that never sent anything is forgotten after this long.
const UNUSED_LIFE: Duration = Duration::from_secs(10);
/// A resumed session must be used within this time.
const PENDING_LIFE: Duration = Duration::from_secs(5);
/// Silent sessions are kept for this long after they were hidden.
const KEPT: Duration = Duration::from_secs(60);
/// A session is used for this long; peers renew theirs at half of it.
const MAX_AGE: Duration = Duration::from_secs(2 * 3600);
/// Resumptions that may wait for their first use.
const MAX_PENDING: usize = 65_536;
/// Tickets whose last use is remembered, so that a recorded RESUME is not taken twice.
const MAX_USED_TICKETS: usize = 65_536;
/// Requests of one session.
const BUDGET: Rate = Rate::new(5_000.0, 10_000.0);

/// What the tracker's driver is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A request came; to be answered by [`Endpoint::respond`].
    Request(Caller, RequestId, Request),
    /// A session that was hidden, or has just been resumed, is alive.
    Shown(Caller),
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
    /// The address that the datagram came from.
    pub from: SocketAddr,
    /// Where the peer listens.
    pub listening_port: Option<u16>,
    /// Who it is logged in as, when a ticket says so.
    pub ticket: Option<TicketContent>,
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
    /// Where it listens.
    pub listening_port: Option<u16>,
}

struct Session {
    peer: PeerId,
    sealer: Sealer,
    opener: Opener,
    budget: Bucket,
    listening_port: Option<u16>,
    /// The address that has proved itself.
    address: Option<SocketAddr>,
    ticket: Option<TicketContent>,
    resume: Option<Secret<32>>,
    stage: Stage,
    /// Sweep at which it was last heard, and at which it began.
    seen: u64,
    began: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Admitted, nothing came yet.
    Unused,
    /// Resumed, nothing came yet: the peer's older session stays until something does.
    Pending,
    Live,
    Hidden,
}

/// The machine; the tracker's loop drives it.
pub struct Endpoint {
    sessions: HashMap<SessionId, Session>,
    /// The one session of each peer that is in use.
    current: HashMap<PeerId, SessionId>,
    pending: usize,
    used_tickets: HashMap<[u8; 8], (u64, u64)>,
    office: TicketOffice,
    token_key: [u8; 32],
    silence: Duration,
    sweeps: u64,
    next_sweep: Instant,
    events: VecDeque<Event>,
    transmits: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Of the request that is being answered: how many bytes it had.
    asked: HashMap<(SessionId, RequestId), (SocketAddr, usize)>,
    random: Box<dyn Random>,
}

impl Endpoint {
    /// No sessions; peers silent for `silence` will be hidden.
    #[must_use]
    pub fn new(
        now: Instant,
        office: TicketOffice,
        silence: Duration,
        mut random: Box<dyn Random>,
    ) -> Self {
        Self {
            sessions: HashMap::new(),
            current: HashMap::new(),
            pending: 0,
            used_tickets: HashMap::new(),
            office,
            token_key: random_bytes(&mut *random),
            silence,
            sweeps: 0,
            next_sweep: now + SWEEP,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            asked: HashMap::new(),
            random,
        }
    }

    /// What LOGIN in `session` needs: the office that makes tickets, randomness for it, and the secret
    /// that goes with the ticket, if the session began with a handshake.
    pub fn login_tools(
        &mut self,
        session: SessionId,
    ) -> (&TicketOffice, &mut dyn Random, Option<&Secret<32>>) {
        let resume = self
            .sessions
            .get(&session)
            .and_then(|session| session.resume.as_ref());
        (&self.office, &mut *self.random, resume)
    }

    /// Begins a session after a handshake.
    pub fn admit(&mut self, now: Instant, admission: Admission) -> SessionId {
        let id = self.fresh_id();
        let Admission {
            peer,
            keys,
            resume,
            listening_port,
        } = admission;
        let mut session = self.new_session(now, id, peer, keys, listening_port, Stage::Unused);
        session.resume = Some(resume);
        self.sessions.insert(id, session);
        id
    }

    /// Sessions in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Is nobody here?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Bytes came from `from`. `unix_ms` is this machine's clock, for tickets.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        unix_ms: u64,
        from: SocketAddr,
        datagram: &mut [u8],
    ) {
        match Datagram::parse(datagram) {
            Ok(Datagram::Data(header)) => self.handle_data(now, from, header, datagram),
            Ok(Datagram::Resume) => self.handle_resume(now, unix_ms, from, datagram),
            Ok(Datagram::Resumed) | Err(_) => {}
        }
    }

    /// Answers a request. An answer that is larger than what may go to an address without proof becomes
    /// AGAIN, and the peer repeats its request with the token.
    pub fn respond(&mut self, id: SessionId, request: RequestId, response: &Response) {
        let Some((to, asked_len)) = self.asked.remove(&(id, request)) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let token = path_token(&self.token_key, id, to);
        let is_proved = session.address == Some(to);
        let plaintext = response
            .encode(request, token)
            .filter(|plaintext| is_proved || plaintext.len() + DATAGRAM_OVERHEAD <= asked_len);
        let Some(plaintext) = plaintext.or_else(|| Response::Again.encode(request, token)) else {
            return;
        };
        let mut out = Vec::with_capacity(plaintext.len() + DATAGRAM_OVERHEAD);
        if session.sealer.seal(&plaintext, &mut out).is_ok() {
            self.transmits.push_back((to, out));
        }
    }

    /// Ends a session at once.
    pub fn end(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.pending -= usize::from(session.stage == Stage::Pending);
            if self.current.get(&session.peer) == Some(&id) {
                self.current.remove(&session.peer);
                self.events.push_back(Event::Ended(session.peer));
            }
        }
    }

    /// A deadline passed. The driver has emptied its socket before.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        self.sweeps += 1;
        self.sweep();
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// What happened since.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to come back.
    #[must_use]
    pub const fn poll_timeout(&self) -> Instant {
        self.next_sweep
    }

    fn handle_data(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: DataHeader,
        datagram: &mut [u8],
    ) {
        let datagram_len = datagram.len();
        let Some(session) = self.sessions.get_mut(&header.session) else {
            return;
        };
        let Ok(opened) = session.opener.open(header, datagram) else {
            return;
        };
        let is_newest = opened.is_newest;
        let Ok((head, body)) = split(opened.plaintext) else {
            return;
        };
        session.seen = self.sweeps;
        if is_newest && head.token == path_token(&self.token_key, header.session, from) {
            session.address = Some(from);
        }
        let is_within_budget = session.budget.take(now);
        let request = Request::decode(&head, body);
        self.mark_alive(header.session, from);
        if !is_within_budget {
            return;
        }
        self.asked
            .insert((header.session, head.request), (from, datagram_len));
        match request {
            Ok(request) => {
                if let Some(caller) = self.caller(header.session, from) {
                    self.events
                        .push_back(Event::Request(caller, head.request, request));
                }
            }
            Err(_) => {
                let refusal = Response::Refused(crate::wire::control::Refusal::Malformed);
                self.respond(header.session, head.request, &refusal);
            }
        }
    }

    /// The session was heard: it is shown again, and takes the place of its peer's older one.
    fn mark_alive(&mut self, id: SessionId, from: SocketAddr) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut session.stage, Stage::Live);
        if before == Stage::Live {
            return;
        }
        self.pending -= usize::from(before == Stage::Pending);
        let peer = session.peer;
        if let Some(older) = self.current.insert(peer, id).filter(|older| *older != id) {
            self.sessions.remove(&older);
        }
        if before != Stage::Unused {
            self.events.extend(self.caller(id, from).map(Event::Shown));
        }
    }

    fn caller(&self, id: SessionId, from: SocketAddr) -> Option<Caller> {
        let session = self.sessions.get(&id)?;
        Some(Caller {
            session: id,
            peer: session.peer,
            from,
            listening_port: session.listening_port,
            ticket: session.ticket.clone(),
        })
    }

    fn handle_resume(&mut self, now: Instant, unix_ms: u64, from: SocketAddr, datagram: &[u8]) {
        let Ok(datagram) = <&[u8; RESUME_LEN]>::try_from(datagram) else {
            return;
        };
        if self.pending >= MAX_PENDING {
            return;
        }
        let id = self.fresh_id();
        let Ok(resumption) = self.office.resume(datagram, unix_ms, id, &mut *self.random) else {
            return;
        };
        let last_use = self
            .used_tickets
            .get(&resumption.ticket.id)
            .map(|(claimed_ms, _)| *claimed_ms);
        let is_repeated = last_use.is_some_and(|claimed_ms| resumption.claimed_ms <= claimed_ms);
        if is_repeated || self.used_tickets.len() >= MAX_USED_TICKETS {
            return;
        }
        self.used_tickets
            .insert(resumption.ticket.id, (resumption.claimed_ms, self.sweeps));
        let (peer, port) = (resumption.ticket.peer, resumption.listening_port);
        let mut session = self.new_session(now, id, peer, resumption.keys, port, Stage::Pending);
        session.ticket = Some(resumption.ticket);
        self.pending += 1;
        self.sessions.insert(id, session);
        // Shorter than what came, so it may go to an address without proof.
        self.transmits.push_back((from, resumption.answer.to_vec()));
    }

    fn new_session(
        &self,
        now: Instant,
        id: SessionId,
        peer: PeerId,
        keys: DatagramKeys,
        listening_port: Option<u16>,
        stage: Stage,
    ) -> Session {
        Session {
            peer,
            sealer: Sealer::new(id, keys.send),
            opener: Opener::new(keys.receive),
            budget: Bucket::new(BUDGET, now),
            listening_port,
            address: None,
            ticket: None,
            resume: None,
            stage,
            seen: self.sweeps,
            began: self.sweeps,
        }
    }

    fn sweep(&mut self) {
        self.asked.clear();
        let sweeps = self.sweeps;
        let age = |since: u64| SWEEP * u32::try_from(sweeps - since).unwrap_or(u32::MAX);
        self.used_tickets
            .retain(|_, (_, used)| age(*used) < 2 * Duration::from_secs(300));
        let mut ended = Vec::new();
        for (id, session) in &mut self.sessions {
            let silent = age(session.seen);
            let is_over = match session.stage {
                Stage::Unused => silent > UNUSED_LIFE,
                Stage::Pending => silent > PENDING_LIFE,
                Stage::Live | Stage::Hidden => {
                    silent > self.silence + KEPT || age(session.began) > MAX_AGE
                }
            };
            if is_over {
                ended.push(*id);
            } else if session.stage == Stage::Live && silent > self.silence {
                session.stage = Stage::Hidden;
                self.events.push_back(Event::Hidden(session.peer));
            }
        }
        for id in ended {
            self.end(id);
        }
    }

    fn fresh_id(&mut self) -> SessionId {
        loop {
            let id = SessionId::from_bytes(random_bytes(&mut *self.random));
            if !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

/// Derived, so that nothing is kept for an address that only claims to be one.
fn path_token(key: &[u8; 32], session: SessionId, address: SocketAddr) -> PathToken {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&session.to_bytes());
    match address.ip() {
        IpAddr::V4(ip) => hasher.update(&ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => hasher.update(&ip.octets()),
    };
    hasher.update(&address.port().to_be_bytes());
    *hasher
        .finalize()
        .as_bytes()
        .first_chunk()
        .expect("BLAKE3 has 32 bytes")
}
