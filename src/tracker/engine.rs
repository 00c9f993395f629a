//! Endpoint and service together: datagrams in, answers out, and what had better be done elsewhere.
//!
//! A worker never waits: heartbeats are answered by the endpoint alone, and LOCATE by the registry if
//! nobody is changing it. Everything else becomes a [`Job`], which a clerk carries out. Time, randomness
//! and the way out are arguments, so a simulation drives the same machine as the sockets do.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::debug;
use zeroize::Zeroize as _;

use super::credentials::Users;
use super::hashing::Outcome;
use super::logins::{Logins, Ruling};
use super::metrics::Counters;
use super::service::{Moment, Service, Written};
use crate::crypto::random::Random;
use crate::crypto::ticket::TicketContent;
use crate::proto::endpoint::{
    Admission, Caller, Endpoint, Event, Found, Heard, Outgoing, Return, Tally, plaintext_of,
    read_request,
};
use crate::wire::MAX_DATAGRAM_LEN;
use crate::wire::control::{Kind, Refusal, Request, Response};
use crate::wire::id::{RequestId, SessionId};
use crate::wire::packet::RESUME_LEN;

/// What a busy tracker says: come back after so many ms.
const COME_LATER: Refusal = Refusal::TooFast { wait_ms: 1000 };

/// Sessions beside two for each peer that there may be: one in use, one that begins.
const SPARE_SESSIONS: u64 = 4096;

/// A farewell is said so often: nobody answers it.
const FAREWELLS: usize = 2;

/// One datagram of a batch: where it lies, whence it came, and what it may be.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    start: usize,
    len: usize,
    from: SocketAddr,
    found: Option<Found>,
}

impl Spot {
    /// `len` bytes from `start` on came from `from`.
    #[must_use]
    pub const fn new(start: usize, len: usize, from: SocketAddr) -> Self {
        Self {
            start,
            len,
            from,
            found: None,
        }
    }
}

/// What a worker does not do itself.
#[derive(Debug)]
pub enum Job {
    /// Answers a request that came then.
    Answer(Caller, Return, Request, Instant),
    /// Answers a RESUME that came from there.
    Resume(SocketAddr, Box<[u8; RESUME_LEN]>),
    /// Tells the registry.
    Note(Event),
    /// A password was checked.
    Checked(Outcome),
    /// Other users are in force.
    Replace(Users),
    /// This tracker ends for good: all who are here are told.
    Farewell,
}

impl Job {
    /// Jobs of the same session are done in the order in which they came.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Answer(caller, ..) | Self::Note(Event::Shown(caller)) => Some(caller.session),
            Self::Note(Event::Moved(session, ..)) => Some(*session),
            _ => None,
        }
    }
}

/// Too many jobs are waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many jobs are waiting")]
pub struct Busy;

/// Where answers and jobs go.
pub trait Outlet {
    /// Sends `datagram`; a full send buffer may drop it, and the peer asks again.
    fn send(&mut self, to: SocketAddr, datagram: &[u8]);
    /// Hands a job to a clerk.
    ///
    /// # Errors
    /// When too many are waiting. Only requests and resumptions can be too many.
    fn hand_over(&mut self, job: Job) -> Result<(), Busy>;
    /// Counts what goes through here.
    fn counters(&self) -> Option<&Counters> {
        None
    }
}

/// What one thread that calls the engine keeps for it.
pub struct Scratch {
    out: Box<Outgoing>,
    events: Vec<Event>,
    tally: Tally,
}

impl Scratch {
    /// What came to nothing since this was last asked.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            out: Box::new([0; MAX_DATAGRAM_LEN]),
            events: Vec::new(),
            tally: Tally::default(),
        }
    }
}

/// A tracker without its sockets.
pub struct Engine {
    endpoint: Endpoint,
    service: Service,
    logins: Option<Mutex<Logins>>,
    max_sessions: u64,
}

impl Engine {
    /// Its parts, used from now on through this. Without `logins` a name needs no password.
    #[must_use]
    pub fn new(endpoint: Endpoint, mut service: Service, logins: Option<Logins>) -> Self {
        if logins.is_some() {
            service.leave_names_to_passwords();
        }
        let max_peers = service.registry().max_peers() as u64;
        Self {
            endpoint,
            service,
            max_sessions: max_peers.saturating_mul(2).saturating_add(SPARE_SESSIONS),
            logins: logins.map(Mutex::new),
        }
    }

    fn logins(&self) -> Option<MutexGuard<'_, Logins>> {
        let logins = self.logins.as_ref()?;
        Some(logins.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sessions.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Answers, and what they are made from.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// May somebody from there shake hands, or are there too many sessions already?
    #[must_use]
    pub fn has_room_for(&self, ip: IpAddr) -> bool {
        self.endpoint.census().all() < self.max_sessions && self.endpoint.has_room_for(ip)
    }

    /// Begins a session after a handshake; none when there are too many.
    pub fn admit(&self, admission: Admission, random: &mut dyn Random) -> Option<SessionId> {
        let has_room = self.has_room_for(admission.ip);
        has_room.then(|| self.endpoint.admit(admission, random))
    }

    /// Hears a batch of datagrams, which lie in `bytes`. Two passes: all are looked up, and then each is
    /// opened, so that the processor waits for memory once for many and not once for each.
    pub fn handle(
        &self,
        now: Instant,
        bytes: &mut [u8],
        spots: &mut [Spot],
        scratch: &mut Scratch,
        outlet: &mut dyn Outlet,
    ) {
        for spot in &mut *spots {
            let datagram = &bytes[spot.start..][..spot.len];
            spot.found = self.endpoint.find(datagram, &mut scratch.tally);
        }
        for spot in spots {
            let datagram = &mut bytes[spot.start..][..spot.len];
            match spot.found {
                Some(Found::Data(header, slot)) => {
                    let Scratch { out, events, tally } = &mut *scratch;
                    let notes = (&mut *events, tally);
                    let heard = self
                        .endpoint
                        .open((header, slot), spot.from, datagram, out, notes);
                    // Whoever was shown again may ask at once: the registry hears of it first.
                    for event in events.drain(..) {
                        let _ = outlet.hand_over(Job::Note(event));
                    }
                    match heard {
                        Heard::Nothing => {}
                        Heard::Answer(len) => {
                            if let Some(counters) = outlet.counters() {
                                counters.request(&Request::Heartbeat);
                            }
                            outlet.send(spot.from, &out[..len]);
                        }
                        Heard::Request(caller, back, head, body) => {
                            let request = read_request(&head, body);
                            if matches!(request, Ok(Request::Login(_))) {
                                // The password in it; the buffer lives on.
                                datagram.zeroize();
                            }
                            let asked = (caller, back, now);
                            if let Some(len) = self.ask(asked, request, out, outlet) {
                                outlet.send(spot.from, &out[..len]);
                            }
                        }
                    }
                }
                Some(Found::Resume) => {
                    if let Ok(datagram) = <[u8; RESUME_LEN]>::try_from(&*datagram)
                        && self.endpoint.may_resume(spot.from, &mut scratch.tally)
                    {
                        // When too many wait, this one is dropped, and the peer tries again.
                        let _ = outlet.hand_over(Job::Resume(spot.from, Box::new(datagram)));
                    }
                }
                None => {}
            }
        }
    }

    /// Answers at once what takes no time, and hands over the rest.
    fn ask(
        &self,
        (caller, back, now): (Caller, Return, Instant),
        request: Result<Request, Refusal>,
        out: &mut Outgoing,
        outlet: &mut dyn Outlet,
    ) -> Option<usize> {
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return self.refuse(&back, refusal, out, outlet),
        };
        if let Some(counters) = outlet.counters() {
            counters.request(&request);
        }
        if let Request::Locate(locate) = &request
            && caller.is_member
        {
            let answer = (back.request, back.token);
            let plaintext = plaintext_of(out);
            let class = self.service.try_locate(&caller, locate, answer, plaintext);
            if class.is_some() {
                return self.endpoint.respond(&back, out, |_| class);
            }
        }
        match outlet.hand_over(Job::Answer(caller, back, request, now)) {
            Ok(()) => None,
            Err(Busy) => self.refuse(&back, COME_LATER, out, outlet),
        }
    }

    fn refuse(
        &self,
        back: &Return,
        refusal: Refusal,
        out: &mut Outgoing,
        outlet: &dyn Outlet,
    ) -> Option<usize> {
        if let Some(counters) = outlet.counters() {
            counters.refusal(&refusal);
        }
        let refused = Response::Refused(refusal);
        self.endpoint.respond(back, out, |plaintext| {
            refused.write(back.request, back.token, plaintext)
        })
    }

    /// Does a job, and sends its answer if it has one.
    pub fn work(
        &self,
        (now, unix_ms): (Instant, u64),
        job: Job,
        random: &mut dyn Random,
        scratch: &mut Scratch,
        outlet: &mut dyn Outlet,
    ) {
        let out = &mut *scratch.out;
        let (to, len) = match job {
            Job::Answer(caller, back, request, _) => {
                let is_leaving = request == Request::Leave;
                let was_member = caller.is_member;
                let times = (now, unix_ms);
                let written = self.write_answer(times, &caller, &back, request, (random, out));
                if let (Some(refusal), Some(counters)) = (&written.refusal, outlet.counters()) {
                    counters.refusal(refusal);
                }
                let len = self.endpoint.respond(&back, out, |_| written.class);
                // Who takes itself for logged in, and is not, joins again when its session does not answer.
                let is_stray = was_member && written.refusal == Some(Refusal::NotLoggedIn);
                if is_leaving || is_stray {
                    self.endpoint.end(caller.session, &mut scratch.events);
                }
                (caller.from, len)
            }
            Job::Resume(from, datagram) => {
                let may_return = |ticket: &TicketContent| self.service.may_return(ticket);
                let tools = (random, out, &mut scratch.tally);
                let len = self
                    .endpoint
                    .resume(unix_ms, from, &datagram, &may_return, tools);
                (from, len)
            }
            Job::Note(event) => {
                self.note((now, unix_ms), event, &mut scratch.events);
                return self.settle((now, unix_ms), scratch);
            }
            Job::Checked(outcome) => {
                // Held until it is sent: whoever asks meanwhile hears of it after this.
                if let Some(mut logins) = self.logins()
                    && let Some((session, request, response)) = logins.finish(now, outcome)
                {
                    self.push(session, request, &response, out, outlet);
                }
                return;
            }
            Job::Farewell => {
                let members = self.service.registry().sessions();
                let word = Response::Refused(Refusal::LoginVoid);
                for _ in 0..FAREWELLS {
                    for session in &members {
                        self.push(*session, RequestId(0), &word, out, outlet);
                    }
                }
                return;
            }
            Job::Replace(users) => {
                let Some(mut logins) = self.logins() else {
                    return;
                };
                for (peer, session) in logins.replace(now, users) {
                    self.service.end(peer, || true);
                    self.endpoint.set_void(session);
                    let word = Response::Refused(Refusal::LoginVoid);
                    self.push(session, RequestId(0), &word, out, outlet);
                }
                return;
            }
        };
        if let Some(len) = len {
            outlet.send(to, &scratch.out[..len]);
        }
        self.settle((now, unix_ms), scratch);
    }

    fn push(
        &self,
        session: SessionId,
        request: RequestId,
        response: &Response,
        out: &mut Outgoing,
        outlet: &mut dyn Outlet,
    ) {
        if let Some((to, len)) = self.endpoint.push(session, request, response, out) {
            outlet.send(to, &out[..len]);
        }
    }

    fn write_answer(
        &self,
        (now, unix_ms): (Instant, u64),
        caller: &Caller,
        back: &Return,
        request: Request,
        (random, out): (&mut dyn Random, &mut Outgoing),
    ) -> Written {
        let answer = (back.request, back.token);
        let kind = request.kind();
        let mut logins = self.logins();
        let ruling = match &mut logins {
            Some(logins) => logins.receive(now, unix_ms, caller, back.request, request),
            None => Ruling::Pass(request, None),
        };
        // Users may not change between the ruling on a LOGIN and its note; the others need not wait.
        let logins = logins.filter(|_| kind == Kind::Login);
        let (request, credential_mark) = match ruling {
            Ruling::Pass(request, mark) => (request, mark),
            Ruling::Answer(response) => {
                return Written::new(response, answer, plaintext_of(out));
            }
        };
        let user = match &request {
            Request::Login(login) => Some(login.user.clone()),
            _ => None,
        };
        let moment = Moment {
            now,
            unix_ms,
            office: self.endpoint.office(),
            random,
            resume: self.endpoint.resume_secret(caller.session),
            credential_mark,
        };
        let plaintext = plaintext_of(out);
        let written = self
            .service
            .answer(moment, caller, request, answer, plaintext);
        if let (true, Some(user), Some(mut logins)) = (written.logged_in, user, logins) {
            logins.note_login(now, caller, &user);
        }
        if matches!(kind, Kind::Login | Kind::Publish | Kind::Unpublish) {
            self.tell_published(caller);
        }
        written
    }

    /// A tick has passed: whoever was silent for too long is hidden, and then forgotten.
    pub fn sweep(&self, times: (Instant, u64), scratch: &mut Scratch) {
        self.endpoint.sweep(&mut scratch.events);
        self.settle(times, scratch);
    }

    fn settle(&self, times: (Instant, u64), scratch: &mut Scratch) {
        while !scratch.events.is_empty() {
            for event in std::mem::take(&mut scratch.events) {
                self.note(times, event, &mut scratch.events);
            }
        }
    }

    /// Workers, clerks and the sweep each bring their events, and not in the order in which they happened:
    /// what counts is how things are by the time the registry is changed.
    fn note(&self, (now, unix_ms): (Instant, u64), event: Event, events: &mut Vec<Event>) {
        match event {
            Event::Shown(caller) => {
                let may_show =
                    |mut logins: MutexGuard<'_, Logins>| logins.may_show(now, unix_ms, &caller);
                if !self.logins().is_none_or(may_show) {
                    debug!("a session cannot come back: its ticket is void by now");
                    return self.endpoint.set_void(caller.session);
                }
                let is_live = || matches!(self.endpoint.presence(&caller.peer), Some((_, true)));
                match self.service.show(now, &caller, is_live) {
                    Ok(()) => self.tell_published(&caller),
                    Err(refusal) => {
                        debug!(?refusal, "a session cannot come back");
                        self.endpoint.end(caller.session, events);
                    }
                }
            }
            Event::Moved(_, peer, ip) => self.service.follow(peer, ip),
            Event::Hidden(peer) => self.service.hide(peer, || {
                matches!(self.endpoint.presence(&peer), Some((_, false)))
            }),
            Event::Ended(peer) => {
                let is_gone = || self.endpoint.presence(&peer).is_none();
                self.service.end(peer, is_gone);
                if let Some(mut logins) = self.logins()
                    && is_gone()
                {
                    logins.forget(&peer);
                }
            }
        }
    }

    fn tell_published(&self, caller: &Caller) {
        self.service.with_published(&caller.peer, |count, digest| {
            self.endpoint.set_published(caller.session, count, digest);
        });
    }
}
