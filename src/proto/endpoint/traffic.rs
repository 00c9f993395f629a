//! Datagrams of the sessions, in and out: opened, answered, pushed; and RESUME.

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use siphasher::sip::SipHasher24;

use super::super::limiter::Source;
use super::super::sessions::{Cold, Miss, Session, Slot, Stage};
use super::{
    BUDGET_PER_TICK, Endpoint, Event, Found, Heard, MAX_AGE, MAX_BUDGET, MAX_PENDING, Outgoing,
    PENDING_LIFE, Return, Tally, caller, millis, ticks,
};
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::ticket::{InvalidTicket, TicketContent};
use crate::wire::control::{
    Head, HeartbeatAck, Kind, PathToken, Plaintext, Refusal, Request, Response, split,
};
use crate::wire::id::{RequestId, SessionId};
use crate::wire::packet::{
    DATAGRAM_HEADER_LEN, DATAGRAM_OVERHEAD, DataHeader, Datagram, RESUME_LEN, RESUMED_LEN,
};

/// Why a RESUME is not answered.
enum NotResumed {
    /// Its ticket is void, or not that of whoever sent it, or it came before.
    Worthless,
    /// Its peer has resumed too often lately.
    TooOften,
    /// There is no place for it at present.
    NotNow,
}

impl From<InvalidTicket> for NotResumed {
    fn from(_: InvalidTicket) -> Self {
        Self::Worthless
    }
}

impl Endpoint {
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
        let tick = self.tick();
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

    /// May a RESUME from there be looked at? Too many that came to nothing, and it costs no more than this.
    #[must_use]
    pub fn may_resume(&self, from: SocketAddr, tally: &mut Tally) -> bool {
        let source = Source::of(from.ip());
        let may = !self.failed_resumes.is_full(&source, self.tick());
        tally.limited += u64::from(!may);
        may
    }

    fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
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
        let resumed = self.try_resume(unix_ms, from, datagram, may_return, random);
        let worthless = match resumed {
            Ok(answer) => {
                tally.resumed += 1;
                // Shorter than what came, so it may go to an address without proof.
                out[..RESUMED_LEN].copy_from_slice(&answer);
                return Some(RESUMED_LEN);
            }
            Err(NotResumed::TooOften) => {
                tally.limited += 1;
                return None;
            }
            Err(NotResumed::NotNow) => false,
            Err(NotResumed::Worthless) => true,
        };
        tally.not_resumed += 1;
        if worthless {
            let source = Source::of(from.ip());
            self.failed_resumes.note(&source, self.tick());
        }
        None
    }

    fn try_resume(
        &self,
        unix_ms: u64,
        from: SocketAddr,
        datagram: &[u8; RESUME_LEN],
        may_return: &dyn Fn(&TicketContent) -> bool,
        random: &mut dyn Random,
    ) -> Result<[u8; RESUMED_LEN], NotResumed> {
        if self.resumes().0.total >= MAX_PENDING {
            return Err(NotResumed::NotNow);
        }
        let claim = self.office.read(datagram, unix_ms)?;
        let tick = self.tick();
        // Before the Diffie-Hellman: neither what was recorded nor who resumes without end gets that far.
        if !self.resumes().1.is_later(claim.ticket.id, claim.claimed_ms) {
            return Err(NotResumed::Worthless);
        }
        if self.used_by.is_full(&claim.ticket.peer, tick) {
            return Err(NotResumed::TooOften);
        }
        let mut id = SessionId::from_bytes(random_bytes(random));
        while self.sessions.contains(id) {
            id = SessionId::from_bytes(random_bytes(random));
        }
        let resumption = self.office.resume(claim, unix_ms, id, random)?;
        let (peer, claimed_ms) = (resumption.ticket.peer, resumption.claimed_ms);
        self.used_by.note(&peer, tick);
        // Whoever may not come back gets no answer: the handshake that follows tells him why.
        if !may_return(&resumption.ticket) {
            return Err(NotResumed::NotNow);
        }
        let oldest = {
            let (pending, used) = &mut *self.resumes();
            if !used.note(resumption.ticket.id, claimed_ms) {
                return Err(NotResumed::Worthless);
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
            guest: None,
        };
        let stage = Stage::Pending;
        if let Err(cold) = self.insert(id, &resumption.keys, stage, PENDING_LIFE, cold) {
            self.resumes().0.remove(cold.peer, id);
            return Err(NotResumed::NotNow);
        }
        Ok(resumption.answer)
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

    /// Derived, so that nothing is kept for an address that only claims to be one.
    pub(super) fn path_token(&self, session: SessionId, address: SocketAddr) -> PathToken {
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
}

/// Reads the request of a [`Heard::Request`].
///
/// # Errors
/// With the refusal that is its answer, when it makes no sense.
pub fn read_request(head: &Head, body: &[u8]) -> Result<Request, Refusal> {
    Request::decode(head, body).map_err(|_| Refusal::Malformed)
}

/// Where in a datagram its plaintext is written before it is sealed.
pub fn plaintext_of(out: &mut Outgoing) -> &mut Plaintext {
    out[DATAGRAM_HEADER_LEN..]
        .first_chunk_mut()
        .expect("a datagram holds a header, a plaintext and a tag")
}
