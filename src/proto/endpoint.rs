//! All sessions behind the tracker's one UDP socket: routes, resumes; silence to everybody else.
//!
//! Nothing here answers a datagram that does not open. An address gets no more bytes than came from it
//! until it has sent back the path token that we sent there; the address of a session follows the newest
//! datagram that proves it. A session that falls silent is first hidden, then kept for a minute, so that
//! a short outage costs neither a resumption nor a second announcement.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use zeroize::Zeroize as _;

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
/// Resumptions of one peer that may wait; the oldest makes room.
const MAX_PENDING_PER_PEER: usize = 4;
/// Tickets whose last use is remembered in one generation.
const MAX_USED_TICKETS: usize = 65_536;
/// A generation lasts as long as a RESUME may be off in time, in both directions.
const SWEEPS_PER_GENERATION: u64 = 4 * 600;
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
    /// The address that the datagram came from; anybody may have written it there.
    pub from: SocketAddr,
    /// The address that the peer has proved to have.
    pub ip: IpAddr,
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
    /// Where its handshake came from, which TCP has proved.
    pub ip: IpAddr,
    /// Where it listens.
    pub listening_port: Option<u16>,
}

/// What happened since it was last asked: numbers, for whoever runs the tracker.
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

/// Sessions of each kind, as the last sweep found them.
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

struct Session {
    peer: PeerId,
    sealer: Sealer,
    opener: Opener,
    budget: Bucket,
    listening_port: Option<u16>,
    /// The address to which anything may be sent: it has sent our token back.
    address: Option<SocketAddr>,
    /// Where the peer is: from its handshake, its resumption, or its latest proof.
    ip: IpAddr,
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
    pending: Pending,
    used_tickets: UsedTickets,
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
    tally: Tally,
    census: Census,
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
            pending: Pending::default(),
            used_tickets: UsedTickets::default(),
            office,
            token_key: random_bytes(&mut *random),
            silence,
            sweeps: 0,
            next_sweep: now + SWEEP,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            asked: HashMap::new(),
            random,
            tally: Tally::default(),
            census: Census::default(),
        }
    }

    /// What happened since this was last asked.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The sessions, as the last sweep found them.
    #[must_use]
    pub const fn census(&self) -> Census {
        self.census
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
            ip,
            listening_port,
        } = admission;
        let mut session =
            self.new_session(now, id, Stage::Unused, (peer, ip, listening_port), keys);
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
    ///
    /// `may_return` is asked whether the holder of a ticket may come back under its name.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        unix_ms: u64,
        from: SocketAddr,
        datagram: &mut [u8],
        may_return: &dyn Fn(&TicketContent) -> bool,
    ) {
        match Datagram::parse(datagram) {
            Ok(Datagram::Data(header)) => self.handle_data(now, from, header, datagram),
            Ok(Datagram::Resume) => self.handle_resume(now, unix_ms, from, datagram, may_return),
            Ok(Datagram::Resumed) | Err(_) => self.tally.malformed += 1,
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

    /// Sends an answer that was not asked for just now, or an unasked word (request 0): only to an address
    /// that is proved. Who does not get it hears the same when it asks again.
    pub fn push(&mut self, id: SessionId, request: RequestId, response: &Response) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(to) = session.address else { return };
        let token = path_token(&self.token_key, id, to);
        let Some(plaintext) = response.encode(request, token) else {
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
            if session.stage == Stage::Pending {
                self.pending.remove(session.peer, id);
            }
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
            self.tally.unknown_session += 1;
            return;
        };
        let Ok(opened) = session.opener.open(header, datagram) else {
            if session.opener.has_seen(header) {
                self.tally.replayed += 1;
            } else {
                self.tally.unopened += 1;
            }
            return;
        };
        let is_newest = opened.is_newest;
        let Ok((head, body)) = split(opened.plaintext) else {
            self.tally.malformed += 1;
            return;
        };
        session.seen = self.sweeps;
        if is_newest && head.token == path_token(&self.token_key, header.session, from) {
            session.address = Some(from);
            session.ip = from.ip();
        }
        let is_within_budget = session.budget.take(now);
        let request = Request::decode(&head, body);
        if matches!(request, Ok(Request::Login(_))) {
            // The password in it; the buffer lives on.
            datagram.zeroize();
        }
        self.mark_alive(header.session, from);
        if !is_within_budget {
            self.tally.over_budget += 1;
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
                self.tally.not_understood += 1;
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
        let peer = session.peer;
        if before == Stage::Pending {
            self.pending.remove(peer, id);
        }
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
            ip: session.ip.to_canonical(),
            listening_port: session.listening_port,
            ticket: session.ticket.clone(),
        })
    }

    fn handle_resume(
        &mut self,
        now: Instant,
        unix_ms: u64,
        from: SocketAddr,
        datagram: &[u8],
        may_return: &dyn Fn(&TicketContent) -> bool,
    ) {
        let Ok(datagram) = <&[u8; RESUME_LEN]>::try_from(datagram) else {
            self.tally.malformed += 1;
            return;
        };
        // Until it has come to an end.
        self.tally.not_resumed += 1;
        if self.pending.total >= MAX_PENDING {
            return;
        }
        let id = self.fresh_id();
        let Ok(resumption) = self.office.resume(datagram, unix_ms, id, &mut *self.random) else {
            return;
        };
        // Whoever may not come back gets no answer: the handshake that follows tells him why.
        let is_new = self
            .used_tickets
            .note(resumption.ticket.id, resumption.claimed_ms);
        if !is_new || !may_return(&resumption.ticket) {
            return;
        }
        let (peer, port) = (resumption.ticket.peer, resumption.listening_port);
        // The answer goes to this address, and only who reads it there can use the session.
        let who = (peer, from.ip(), port);
        let mut session = self.new_session(now, id, Stage::Pending, who, resumption.keys);
        session.ticket = Some(resumption.ticket);
        if let Some(oldest) = self.pending.add(peer, id) {
            self.sessions.remove(&oldest);
        }
        self.sessions.insert(id, session);
        // Shorter than what came, so it may go to an address without proof.
        self.transmits.push_back((from, resumption.answer.to_vec()));
        self.tally.not_resumed -= 1;
        self.tally.resumed += 1;
    }

    fn new_session(
        &self,
        now: Instant,
        id: SessionId,
        stage: Stage,
        (peer, ip, listening_port): (PeerId, IpAddr, Option<u16>),
        keys: DatagramKeys,
    ) -> Session {
        Session {
            peer,
            sealer: Sealer::new(id, keys.send),
            opener: Opener::new(keys.receive),
            budget: Bucket::new(BUDGET, now),
            listening_port,
            address: None,
            ip,
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
        if sweeps.is_multiple_of(SWEEPS_PER_GENERATION) {
            self.used_tickets.turn();
        }
        let mut ended = Vec::new();
        let mut census = Census::default();
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
                continue;
            }
            if session.stage == Stage::Live && silent > self.silence {
                session.stage = Stage::Hidden;
                self.events.push_back(Event::Hidden(session.peer));
            }
            *match session.stage {
                Stage::Unused => &mut census.unused,
                Stage::Pending => &mut census.pending,
                Stage::Live => &mut census.live,
                Stage::Hidden => &mut census.hidden,
            } += 1;
        }
        self.census = census;
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

/// Resumed sessions that nobody has used yet.
#[derive(Default)]
struct Pending {
    of: HashMap<PeerId, VecDeque<SessionId>>,
    total: usize,
}

impl Pending {
    /// Adds one; the peer's oldest one when it has too many.
    fn add(&mut self, peer: PeerId, id: SessionId) -> Option<SessionId> {
        let ids = self.of.entry(peer).or_default();
        ids.push_back(id);
        if ids.len() > MAX_PENDING_PER_PEER {
            return ids.pop_front();
        }
        self.total += 1;
        None
    }

    fn remove(&mut self, peer: PeerId, id: SessionId) {
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
struct UsedTickets {
    younger: HashMap<[u8; 8], u64>,
    older: HashMap<[u8; 8], u64>,
}

impl UsedTickets {
    /// Remembers a use; `false` when it is not later than the last one.
    fn note(&mut self, ticket: [u8; 8], claimed_ms: u64) -> bool {
        let last = self
            .younger
            .get(&ticket)
            .or_else(|| self.older.get(&ticket));
        if last.is_some_and(|last| claimed_ms <= *last) {
            return false;
        }
        if self.younger.len() >= MAX_USED_TICKETS {
            self.turn();
        }
        self.younger.insert(ticket, claimed_ms);
        true
    }

    fn turn(&mut self) {
        self.older = std::mem::take(&mut self.younger);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kdf::{Group, NetworkName, TrackerSeed};
    use crate::crypto::random::OsRandom;

    #[test]
    fn whatever_comes_to_nothing_is_counted_under_its_reason() {
        let now = Instant::now();
        let passphrase =
            crate::crypto::secret::Passphrase::parse("zebra abandon stable horse").unwrap();
        let group = Group::derive(&passphrase, NetworkName::default());
        let office = TicketOffice::new(&group, &TrackerSeed(Secret::new([7; 32])));
        let silence = Duration::from_secs(3);
        let mut endpoint = Endpoint::new(now, office, silence, Box::new(OsRandom::new()));
        let from: SocketAddr = "192.0.2.7:9".parse().unwrap();
        let session = endpoint.admit(
            now,
            Admission {
                peer: PeerId([1; 32]),
                keys: DatagramKeys {
                    send: Secret::new([1; 32]),
                    receive: Secret::new([2; 32]),
                },
                resume: Secret::new([3; 32]),
                ip: from.ip(),
                listening_port: None,
            },
        );
        let mut sealer = Sealer::new(session, Secret::new([2; 32]));
        let mut sealed = || {
            let mut out = Vec::new();
            let plaintext = Request::Heartbeat.encode(RequestId(1), [0; 8]).unwrap();
            sealer.seal(&plaintext, &mut out).unwrap();
            out
        };
        let mut come = |mut datagram: Vec<u8>| {
            endpoint.handle_datagram(now, 0, from, &mut datagram, &|_| true);
            while endpoint.poll_event().is_some() {}
            endpoint.take_tally()
        };
        let none = Tally::default();
        let first = sealed();
        assert_eq!(come(first.clone()), none);
        assert_eq!(
            come(first),
            Tally {
                replayed: 1,
                ..none
            }
        );
        let mut forged = sealed();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(
            come(forged),
            Tally {
                unopened: 1,
                ..none
            }
        );
        let mut other = sealed();
        other[1] ^= 1;
        assert_eq!(
            come(other),
            Tally {
                unknown_session: 1,
                ..none
            }
        );
        assert_eq!(
            come(b"garbage".to_vec()),
            Tally {
                malformed: 1,
                ..none
            }
        );
        let mut resume = vec![0; RESUME_LEN];
        resume[0] = 0x12;
        assert_eq!(
            come(resume),
            Tally {
                not_resumed: 1,
                ..none
            }
        );
        let over = (0..20_000).map(|_| come(sealed()).over_budget).sum::<u64>();
        assert!((9_000..11_000).contains(&over), "{over}");
        endpoint.handle_timeout(now + SWEEP);
        assert_eq!(
            endpoint.census(),
            Census {
                live: 1,
                ..Census::default()
            }
        );
    }

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
