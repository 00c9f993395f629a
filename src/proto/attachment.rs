//! A peer's hold on its tracker: the session of now, its renewal by ticket, and when only a new
//! handshake helps.
//!
//! ```text
//! handshake ─▶ LOGIN ─▶ live ──unanswered──▶ RESUME, three tries ──▶ handshake, then wait longer each time
//!                        ▲                        │
//!                        └──────── answered ──────┘      and after 55 to 60 min RESUME for fresh keys
//! ```
//! The old session stays good while its successor is asked for: a tracker that was only slow is heard.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::requests::{Again, Requests};
use super::session::{Rhythm, Session};
use crate::crypto::envelope::DatagramKeys;
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::secret::Secret;
use crate::crypto::ticket::{Resumable, Resuming};
use crate::wire::control::{HeartbeatAck, Login, Refusal, Request, Response};
use crate::wire::id::{RequestId, SessionId};
use crate::wire::packet::{Datagram, RESUMED_LEN};
use crate::wire::password::Password;
use crate::wire::text::UserName;

/// Waits after each try to resume.
const RESUME_WAITS: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Longest wait between two rounds of trying.
const MAX_WAIT: Duration = Duration::from_secs(6);
/// Keys are renewed at this age, less up to a twelfth.
const RENEW_AFTER: Duration = Duration::from_secs(3600);
/// After a wrong passphrase only so often: whoever sits in between must not get guesses from us.
const WAIT_AFTER_WRONG_PASSPHRASE: Duration = Duration::from_secs(12 * 60);

/// A refused LOGIN is said again after this long: the name may be free by then.
const WAIT_AFTER_REFUSAL: Duration = Duration::from_secs(30);
/// While a password is being checked LOGIN is said again after what the tracker says, within these bounds.
const LOGIN_WAIT_BOUNDS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// What a finished handshake and its WELCOME brought.
#[derive(Debug)]
pub struct Established {
    /// The new session.
    pub session: SessionId,
    /// Its keys.
    pub keys: DatagramKeys,
    /// The secret that will go with the session's ticket.
    pub resume: Secret<32>,
    /// The times that the tracker asked for.
    pub rhythm: Rhythm,
    /// The tracker's clock, Unix time in ms.
    pub tracker_unix_ms: u64,
}

/// What happened, for the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A request was answered.
    Answered(RequestId, Request, Box<Response>),
    /// A request was not answered in time.
    Failed(RequestId, Request),
    /// A session began in the place of the one before: until a heartbeat of it is answered, nobody knows
    /// which of our files its tracker has.
    Began,
    /// LOGIN was accepted.
    LoggedIn,
    /// LOGIN was refused.
    LoginRefused(Refusal),
    /// The tracker is checking our password.
    LoginWaits,
    /// The tracker does not take this user and password, or not any more: nothing is sent until
    /// [`Attachment::log_in`].
    LoggedOut(Refusal),
    /// A heartbeat was answered.
    Acknowledged(HeartbeatAck),
    /// The tracker has been silent for longer than the silence limit.
    Lost,
    /// It answers again.
    Back,
    /// Dial the tracker and call [`Attachment::attach`] or [`Attachment::dial_failed`].
    NeedHandshake,
}

/// Why a dial led to no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// Not reached, or broken off.
    Unreachable,
    /// The other side has another passphrase or another key.
    Rejected,
}

#[derive(Debug)]
enum Phase {
    /// The session answers.
    Live,
    /// RESUME goes out at `next`, for the `tries`th time of this round.
    Resuming { tries: usize, next: Instant },
    /// The driver dials; a last RESUME runs beside it and usually wins, when the tracker is back.
    Dialing { has_resumed: bool },
    /// A round failed; the next one begins at `next`.
    Waiting { next: Instant },
    /// The tracker wants another password than ours.
    LoggedOut,
}

/// The machine; the peer's control task drives it.
pub struct Attachment {
    session: Session,
    resume_secret: Option<Secret<32>>,
    resumable: Option<Resumable>,
    /// The tries of this round; any of them may be answered.
    resuming: Vec<Resuming>,
    requests: Requests,
    /// LOGIN of a session that began with a handshake, until it is answered.
    login: Option<RequestId>,
    user: UserName,
    password: Option<Password>,
    listening_port: u16,
    phase: Phase,
    failed_rounds: u32,
    renew_at: Instant,
    /// The tracker's Unix time in ms, and when it was that.
    tracker_clock: (u64, Instant),
    is_lost: bool,
    /// The session of before is of no use, until a handshake has brought another.
    is_out: bool,
    events: VecDeque<Event>,
    random: Box<dyn Random>,
}

impl Attachment {
    /// How often the session says that it is still here.
    #[must_use]
    pub const fn rhythm(&self) -> Rhythm {
        self.session.rhythm()
    }

    /// A peer that has just shaken hands; LOGIN goes out first.
    #[must_use]
    pub fn new(
        now: Instant,
        established: Established,
        user: UserName,
        listening_port: u16,
        random: Box<dyn Random>,
    ) -> Self {
        let Established {
            session,
            keys,
            resume,
            rhythm,
            tracker_unix_ms,
        } = established;
        let mut attachment = Self {
            session: Session::new(now, session, keys, rhythm),
            resume_secret: Some(resume),
            resumable: None,
            resuming: Vec::new(),
            requests: Requests::default(),
            login: None,
            user,
            password: None,
            listening_port,
            phase: Phase::Live,
            failed_rounds: 0,
            renew_at: now,
            tracker_clock: (tracker_unix_ms, now),
            is_lost: false,
            is_out: false,
            events: VecDeque::new(),
            random,
        };
        attachment.renew_at = attachment.next_renewal(now);
        attachment.login = Some(attachment.requests.fresh_id());
        attachment
    }

    /// The handshake asked for by [`Event::NeedHandshake`] succeeded; it is let go when the tracker has
    /// answered in another way meanwhile.
    pub fn attach(&mut self, now: Instant, established: Established) {
        if !matches!(self.phase, Phase::Dialing { .. }) {
            return;
        }
        let Established {
            session,
            keys,
            resume,
            rhythm,
            tracker_unix_ms,
        } = established;
        self.tracker_clock = (tracker_unix_ms, now);
        self.resume_secret = Some(resume);
        self.login = Some(self.requests.fresh_id());
        self.begin(now, Session::new(now, session, keys, rhythm));
    }

    /// The handshake asked for by [`Event::NeedHandshake`] failed.
    pub fn dial_failed(&mut self, now: Instant, failure: DialFailure) {
        if !matches!(self.phase, Phase::Dialing { .. }) {
            return;
        }
        let wait = match failure {
            DialFailure::Rejected => WAIT_AFTER_WRONG_PASSPHRASE,
            DialFailure::Unreachable => {
                let exponential = Duration::from_secs(1 << self.failed_rounds.min(4)).min(MAX_WAIT);
                // Spread: a restarted tracker must not meet all its peers in the same instant.
                exponential.mul_f64(0.5 + 0.5 * self.fraction())
            }
        };
        self.failed_rounds += 1;
        self.phase = Phase::Waiting { next: now + wait };
    }

    /// What LOGIN says besides the name, from now on: nothing to a tracker that does not ask for it.
    pub fn set_password(&mut self, password: Option<Password>) {
        self.password = password;
    }

    /// Has the tracker put us out, until somebody logs in again?
    #[must_use]
    pub const fn is_logged_out(&self) -> bool {
        matches!(self.phase, Phase::LoggedOut)
    }

    /// Logs in again after [`Event::LoggedOut`], in a new session.
    pub fn log_in(&mut self) {
        let is_refused = self.login.is_some() && !matches!(self.phase, Phase::Dialing { .. });
        if self.is_logged_out() || is_refused {
            self.is_out = true;
            self.dial();
        }
    }

    fn log_out(&mut self, refusal: Refusal) {
        if self.is_logged_out() {
            return;
        }
        (self.phase, self.is_out) = (Phase::LoggedOut, true);
        (self.login, self.resumable, self.password) = (None, None, None);
        self.resuming.clear();
        while let Some((id, request)) = self.requests.poll_any() {
            self.events.push_back(Event::Failed(id, request));
        }
        self.events.push_back(Event::LoggedOut(refusal));
    }

    /// Asks the tracker; the answer, or its absence, comes as an event. `None` when far too many wait.
    pub fn request(&mut self, now: Instant, request: Request) -> Option<RequestId> {
        self.requests.push(now, request)
    }

    /// Bytes came from the tracker's address, or claim to.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8]) {
        if self.is_out {
            return;
        }
        if matches!(Datagram::parse(datagram), Ok(Datagram::Resumed)) {
            self.handle_resumed(now, datagram);
        } else if let Some((id, response)) = self.session.open(now, datagram) {
            self.handle_life(now);
            self.handle_response(now, id, response);
        }
    }

    /// A deadline passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_out {
            if matches!(self.phase, Phase::Waiting { next } if now >= next) {
                self.dial();
            }
            return;
        }
        while let Some((id, request)) = self.requests.poll_failed(now) {
            self.events.push_back(Event::Failed(id, request));
        }
        let unanswered = self
            .session
            .unanswered_since()
            .map(|since| now.saturating_duration_since(since));
        if unanswered.is_some_and(|silence| silence > self.session.rhythm().silence)
            && !self.is_lost
        {
            self.is_lost = true;
            self.events.push_back(Event::Lost);
        }
        match self.phase {
            Phase::Live
                if unanswered
                    .is_some_and(|silence| silence >= self.session.rhythm().patience()) =>
            {
                self.start_round(now);
            }
            Phase::Live if now >= self.renew_at => self.start_round(now),
            Phase::Waiting { next } if now >= next => self.start_round(now),
            Phase::Resuming { tries, next } if now >= next && tries >= RESUME_WAITS.len() => {
                self.dial();
            }
            _ => {}
        }
    }

    /// The next datagram to send, appended to `out`; `false` when there is none.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.is_out {
            return false;
        }
        self.poll_resume(now, out)
            || self.poll_login(now, out)
            || self.poll_heartbeat(now, out)
            || self.poll_request(now, out)
    }

    /// What happened since.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to come back.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Instant {
        let phase = match self.phase {
            Phase::Waiting { next } if self.is_out => return next,
            _ if self.is_out => return now + RENEW_AFTER,
            Phase::LoggedOut => now + RENEW_AFTER,
            Phase::Live => self.renew_at,
            Phase::Resuming { next, .. } | Phase::Waiting { next } => next,
            Phase::Dialing { has_resumed: false } => now,
            Phase::Dialing { .. } => now + RENEW_AFTER,
        };
        let rhythm = self.session.rhythm();
        let silence = self.session.unanswered_since().and_then(|since| {
            let limits = [rhythm.patience(), rhythm.silence + Duration::from_millis(1)];
            limits
                .into_iter()
                .map(|limit| since + limit)
                .find(|at| *at > now)
        });
        let requests = if self.login.is_some() {
            self.requests.poll_queue_timeout()
        } else {
            self.requests.poll_timeout()
        };
        let queued = (self.login.is_none() && self.requests.has_queued()).then_some(now);
        [
            Some(phase),
            Some(self.session.next_beat()),
            silence,
            requests,
            queued,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now + MAX_WAIT)
    }

    /// LEAVE, three times over: nobody waits for its answer.
    pub fn poll_farewell(&mut self, out: &mut Vec<u8>) -> bool {
        let id = self.requests.fresh_id();
        matches!(self.session.seal(id, &Request::Leave, out), Ok(true))
    }

    fn handle_life(&mut self, now: Instant) {
        if self.is_lost {
            self.is_lost = false;
            self.events.push_back(Event::Back);
        }
        // A renewal that is under way goes on; a rescue is no longer needed.
        if now < self.renew_at && !matches!(self.phase, Phase::Live) {
            self.phase = Phase::Live;
            self.resuming.clear();
            self.failed_rounds = 0;
        }
    }

    fn handle_response(&mut self, now: Instant, id: RequestId, response: Response) {
        match response {
            Response::Heartbeat(ack) => {
                self.session.handle_ack(now, id, ack);
                self.events.push_back(Event::Acknowledged(ack));
            }
            Response::LoggedIn(answer) if self.login == Some(id) => {
                self.login = None;
                if let Some(resume) = self.resume_secret.take() {
                    self.resumable = Some(Resumable {
                        ticket: answer.ticket,
                        resume,
                    });
                }
                self.requests.hasten_all(now);
                // At once, for its answer tells which of our files the tracker knows.
                self.session.reset_heartbeat(now);
                self.events.push_back(Event::LoggedIn);
            }
            // Whatever it answers: it ends what we had.
            Response::Refused(refusal @ Refusal::LoginVoid) => self.log_out(refusal),
            Response::Refused(refusal @ (Refusal::WrongLogin | Refusal::PasswordNeeded))
                if self.login == Some(id) =>
            {
                self.log_out(refusal);
            }
            Response::Refused(refusal) if self.login == Some(id) => {
                self.session.reset_heartbeat(now + WAIT_AFTER_REFUSAL);
                self.events.push_back(Event::LoginRefused(refusal));
            }
            Response::Wait(wait_ms) if self.login == Some(id) => {
                let (least, most) = LOGIN_WAIT_BOUNDS;
                let wait = Duration::from_millis(u64::from(wait_ms)).clamp(least, most);
                // Spread, so that a crowd that was told the same comes back one after the other.
                let spread = wait.mul_f64(0.25 * self.fraction());
                self.session.reset_heartbeat(now + wait + spread);
                self.events.push_back(Event::LoginWaits);
            }
            Response::Again => self.requests.hasten(now, id),
            response => {
                if let Some(request) = self.requests.finish(id) {
                    self.events
                        .push_back(Event::Answered(id, request, Box::new(response)));
                }
            }
        }
    }

    fn handle_resumed(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(datagram) = <&[u8; RESUMED_LEN]>::try_from(datagram) else {
            return;
        };
        let Some(resumed) = self
            .resuming
            .iter_mut()
            .find_map(|resuming| resuming.finish(datagram))
        else {
            return;
        };
        self.tracker_clock = (resumed.tracker_unix_ms, now);
        self.resumable = Some(resumed.resumable);
        self.login = None;
        let rhythm = self.session.rhythm();
        self.begin(
            now,
            Session::new(now, resumed.session, resumed.keys, rhythm),
        );
    }

    fn begin(&mut self, now: Instant, session: Session) {
        self.is_out = false;
        self.session = session;
        self.phase = Phase::Live;
        self.resuming.clear();
        self.failed_rounds = 0;
        self.renew_at = self.next_renewal(now);
        self.events.push_back(Event::Began);
        self.requests.hasten_all(now);
        self.handle_life(now);
    }

    fn start_round(&mut self, now: Instant) {
        self.resuming.clear();
        if self.resumable.is_none() {
            self.dial();
            return;
        }
        let spread = Duration::from_millis(500).mul_f64(self.fraction());
        self.phase = Phase::Resuming {
            tries: 0,
            next: now + spread,
        };
    }

    fn dial(&mut self) {
        self.phase = Phase::Dialing {
            has_resumed: self.resumable.is_none(),
        };
        self.events.push_back(Event::NeedHandshake);
    }

    fn poll_resume(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let Some(resumable) = &self.resumable else {
            return false;
        };
        let after = match self.phase {
            Phase::Resuming { tries, next } if now >= next => match RESUME_WAITS.get(tries) {
                Some(wait) => Phase::Resuming {
                    tries: tries + 1,
                    next: now + *wait,
                },
                None => return false,
            },
            Phase::Dialing { has_resumed: false } => Phase::Dialing { has_resumed: true },
            _ => return false,
        };
        let (unix_ms, at) = self.tracker_clock;
        let passed =
            u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX);
        let port = Some(self.listening_port);
        let (resuming, datagram) = Resuming::start(
            resumable,
            unix_ms.saturating_add(passed),
            port,
            &mut *self.random,
        );
        self.resuming.push(resuming);
        out.extend_from_slice(&datagram);
        self.phase = after;
        true
    }

    /// LOGIN goes out with every heartbeat until it is answered: it needs no schedule of its own.
    fn poll_login(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let Some(id) = self.login else { return false };
        if now < self.session.next_beat() {
            return false;
        }
        self.session.poll_heartbeat(now, || id);
        let login = Request::Login(Login {
            user: self.user.clone(),
            password: self.password.clone(),
        });
        matches!(self.session.seal(id, &login, out), Ok(true))
    }

    fn poll_heartbeat(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let requests = &mut self.requests;
        let Some(id) = self.session.poll_heartbeat(now, || requests.fresh_id()) else {
            return false;
        };
        matches!(self.session.seal(id, &Request::Heartbeat, out), Ok(true))
    }

    fn poll_request(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.login.is_some() {
            return false;
        }
        let is_lossy = self.session.is_lossy(now);
        let Some((id, request, again)) = self.requests.poll_due(now, is_lossy) else {
            return false;
        };
        let is_sealed = matches!(self.session.seal(id, request, out), Ok(true));
        if again == Again::Repeated && !is_lossy {
            self.session.note_loss(now);
        }
        if let Some(request) = (!is_sealed).then(|| self.requests.finish(id)).flatten() {
            self.events.push_back(Event::Failed(id, request));
        }
        is_sealed
    }

    fn next_renewal(&mut self, now: Instant) -> Instant {
        now + RENEW_AFTER - (RENEW_AFTER / 12).mul_f64(self.fraction())
    }

    /// A random number from 0 to 1, for spreading in time.
    fn fraction(&mut self) -> f64 {
        f64::from(u32::from_be_bytes(random_bytes(&mut *self.random))) / f64::from(u32::MAX)
    }
}
