//! Keeps the session with the tracker; publishes again after a restart.
//!
//! One task owns the UDP socket, the attachment and the announced files; everybody else holds a
//! [`Control`] and sends it messages.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::enrol::{EnrolError, Enrolled, Target, enrol};
use super::event::{Event, JoinError, RequestError};
use super::membership::Membership;
use crate::crypto::random::OsRandom;
use crate::proto::announce::Announce;
use crate::proto::attachment::{self, Attachment, DialFailure};
use crate::proto::backoff::{Backoff, Retry};
use crate::wire::MAX_DATAGRAM_LEN;
use crate::wire::control::{Publication, Refusal, Request, Response};
use crate::wire::id::{PeerId, RequestId};
use crate::wire::password::Password;
use crate::wire::text::UserName;

/// Joining ends with an error line within this time, whatever the network does.
const JOIN_DEADLINE: Duration = Duration::from_secs(9);
/// Longest wait for a password to be checked, as long as the tracker says that it is at it.
const LOGIN_DEADLINE: Duration = Duration::from_secs(60);
/// Pause before files are sent again that the tracker refused for coming too fast.
const MAX_REFUSAL_WAIT: Duration = Duration::from_secs(10);
/// Messages that may wait for the control task.
const QUEUE: usize = 256;

/// The way to the tracker, for everybody in the peer.
#[derive(Clone, Debug)]
pub struct Control {
    messages: mpsc::Sender<Message>,
    tracker: PeerId,
    address: SocketAddr,
    has_password: bool,
    /// Why we are logged out, while we are.
    logged_out: watch::Receiver<Option<String>>,
}

#[derive(Debug)]
enum Message {
    Ask(Request, oneshot::Sender<Result<Response, RequestError>>),
    Publish(Publication, oneshot::Sender<Result<Response, RequestError>>),
    Withdraw(Publication, oneshot::Sender<Result<Response, RequestError>>),
    Dialed(Box<Result<Enrolled, EnrolError>>),
    LogIn(Password, oneshot::Sender<Result<(), JoinError>>),
}

/// What a control task works with.
pub struct Setup {
    /// Where the tracker is.
    pub target: Target,
    /// What we greet with.
    pub membership: Membership,
    /// Our name.
    pub user: UserName,
    /// Our password, for a tracker that wants one.
    pub password: Option<Password>,
    /// Where we listen for peers.
    pub listening_port: u16,
    /// How often to try at first.
    pub retry: Retry,
    /// Where to tell what happens.
    pub events: mpsc::Sender<Event>,
    /// Ends the task, which says goodbye first.
    pub shutdown: CancellationToken,
}

impl Control {
    /// Joins the tracker and logs in; the returned task then keeps the session until `shutdown`.
    ///
    /// # Errors
    /// When the tracker is not reached within the retries, or does not let us in.
    pub async fn join(setup: Setup) -> Result<(Self, JoinHandle<()>), JoinError> {
        let tracker = setup.target.address();
        let unreachable = |reason: String| JoinError::Unreachable {
            tracker: tracker.clone(),
            reason,
        };
        let deadline = tokio::time::Instant::now() + JOIN_DEADLINE;
        let enrolled = enrol_with_retries(&setup, deadline)
            .await
            .map_err(|error| join_error(&tracker, error))?;
        setup.membership.learn(enrolled.member_key.clone());
        if enrolled.needs_password && setup.password.is_none() {
            return Err(JoinError::PasswordNeeded { tracker });
        }
        let socket = bind_towards(enrolled.address)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let (sender, messages) = mpsc::channel(QUEUE);
        let (out, logged_out) = watch::channel(None);
        let control = Self {
            messages: sender.clone(),
            tracker: enrolled.tracker,
            address: enrolled.address,
            has_password: enrolled.needs_password,
            logged_out,
        };
        let mut task = Task::new(setup, enrolled, socket, (sender, messages), out);
        task.log_in(deadline)
            .await
            .ok_or_else(|| {
                unreachable("TCP works, but UDP datagrams to that port are not answered".to_owned())
            })?
            .map_err(|refusal| login_error(&tracker, &refusal))?;
        Ok((control, tokio::spawn(task.run())))
    }

    /// Did the tracker want a password?
    #[must_use]
    pub const fn has_password(&self) -> bool {
        self.has_password
    }

    /// Why we are logged out, as soon as we are.
    pub async fn logged_out(&self) -> String {
        let mut logged_out = self.logged_out.clone();
        match logged_out.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The peer has left: no word comes any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Logs in again, after the tracker ended our login.
    ///
    /// # Errors
    /// When it does not take this password either, or does not answer.
    pub async fn log_in(&self, password: Password) -> Result<(), JoinError> {
        let unreachable = || JoinError::Unreachable {
            tracker: self.address.to_string(),
            reason: "it does not answer".to_owned(),
        };
        let (reply, answer) = oneshot::channel();
        self.messages
            .send(Message::LogIn(password, reply))
            .await
            .map_err(|_| unreachable())?;
        let answer = tokio::time::timeout(LOGIN_DEADLINE, answer).await;
        answer
            .map_err(|_| unreachable())?
            .map_err(|_| unreachable())?
    }

    /// The tracker's long-term key.
    #[must_use]
    pub fn tracker(&self) -> PeerId {
        self.tracker
    }

    /// Where the tracker answered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks the tracker.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub async fn ask(&self, request: Request) -> Result<Response, RequestError> {
        self.send(|reply| Message::Ask(request, reply)).await
    }

    /// Publishes `file`, now and after every restart of the tracker.
    ///
    /// # Errors
    /// When the tracker does not answer, or refuses; the file is announced again later all the same.
    pub async fn publish(&self, file: Publication) -> Result<(), RequestError> {
        self.send(|reply| Message::Publish(file, reply))
            .await
            .map(drop)
    }

    /// Takes a published file back.
    ///
    /// # Errors
    /// When the tracker does not answer; it is told again later all the same.
    pub async fn withdraw(&self, file: Publication) -> Result<(), RequestError> {
        self.send(|reply| Message::Withdraw(file, reply))
            .await
            .map(drop)
    }

    async fn send(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<Response, RequestError>>) -> Message,
    ) -> Result<Response, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.messages
            .send(message(reply))
            .await
            .map_err(|_| RequestError::NoAnswer)?;
        answer.await.map_err(|_| RequestError::NoAnswer)?
    }
}

/// What the tracker's no means, as one line.
#[must_use]
pub fn explain(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Malformed => {
            "the tracker does not understand this request: is one of the two older?".to_owned()
        }
        Refusal::NotLoggedIn => "the tracker wants a login first".to_owned(),
        Refusal::NameInUse { since_s, from } => {
            format!("this name is in use, for {since_s} s, from {from}; choose another with --name")
        }
        Refusal::NameReserved => {
            "this name belongs to somebody with another key; choose another with --name".to_owned()
        }
        Refusal::TooFast { wait_ms } => format!("too fast, wait {} s", wait_ms.div_ceil(1000)),
        Refusal::TooManyFiles { limit } => {
            format!("the tracker takes at most {limit} files of one peer")
        }
        Refusal::Full => "the tracker has as many peers as it may".to_owned(),
        Refusal::NoSuchUser => "nobody of that name is here".to_owned(),
        Refusal::PasswordNeeded => "the tracker wants a password".to_owned(),
        Refusal::WrongLogin => "wrong user or password".to_owned(),
        Refusal::LoginTooOften { wait_ms } => {
            format!("too many wrong logins: wait {} s", wait_ms.div_ceil(1000))
        }
        Refusal::LoginVoid => {
            "the tracker ended this login: the password was changed, or the user removed".to_owned()
        }
    }
}

fn login_error(tracker: &str, refusal: &Refusal) -> JoinError {
    match refusal {
        Refusal::PasswordNeeded => JoinError::PasswordNeeded {
            tracker: tracker.to_owned(),
        },
        Refusal::WrongLogin | Refusal::LoginVoid => JoinError::WrongLogin,
        Refusal::LoginTooOften { wait_ms } => {
            JoinError::LoginTooOften(Duration::from_millis(u64::from(*wait_ms)))
        }
        refusal => JoinError::Refused(explain(refusal)),
    }
}

fn join_error(tracker: &str, error: EnrolError) -> JoinError {
    let tracker = tracker.to_owned();
    match error {
        EnrolError::WrongPassphrase => JoinError::WrongPassphrase { tracker },
        EnrolError::OtherKey {
            found,
            expected,
            pinned_in,
        } => JoinError::OtherKey {
            tracker,
            found,
            expected,
            pinned_in,
        },
        other => JoinError::Unreachable {
            tracker,
            reason: other.to_string(),
        },
    }
}

async fn enrol_with_retries(
    setup: &Setup,
    deadline: tokio::time::Instant,
) -> Result<Enrolled, EnrolError> {
    let mut backoff = Backoff::new(setup.retry.clone());
    let mut error = EnrolError::Unreachable("timed out".to_owned());
    loop {
        let trying = enrol(&setup.target, &setup.membership, setup.listening_port);
        error = match tokio::time::timeout_at(deadline, trying).await {
            Ok(Err(error @ EnrolError::Unreachable(_))) => error,
            // Neither a wrong passphrase nor a mute port gets better by asking again.
            Ok(done) => return done,
            // Why the try before failed says more than that this one took too long.
            Err(_) => return Err(error),
        };
        let Some(wait) = backoff.fail(rand::random()) else {
            return Err(error);
        };
        debug!(%error, ?wait, "the tracker is not reached yet");
        let again = tokio::time::Instant::now() + wait;
        tokio::time::sleep_until(again.min(deadline)).await;
    }
}

async fn bind_towards(tracker: SocketAddr) -> std::io::Result<UdpSocket> {
    match tracker {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await,
    }
}

struct Task {
    setup: Setup,
    socket: UdpSocket,
    address: SocketAddr,
    attachment: Attachment,
    announce: Announce,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    waiting: BTreeMap<RequestId, oneshot::Sender<Result<Response, RequestError>>>,
    /// PUBLISH and UNPUBLISH under way: until they are answered the tracker's count may lag behind.
    announcing: usize,
    announce_not_before: Option<Instant>,
    is_logged_in: bool,
    login_refusal: Option<Refusal>,
    /// The tracker said that our password is being checked.
    login_waits: bool,
    /// Who waits for a login to succeed.
    logging_in: Option<oneshot::Sender<Result<(), JoinError>>>,
    logged_out: watch::Sender<Option<String>>,
    datagram: Vec<u8>,
}

impl Task {
    fn new(
        setup: Setup,
        enrolled: Enrolled,
        socket: UdpSocket,
        (sender, messages): (mpsc::Sender<Message>, mpsc::Receiver<Message>),
        logged_out: watch::Sender<Option<String>>,
    ) -> Self {
        let random = Box::new(OsRandom::new());
        let (user, port) = (setup.user.clone(), setup.listening_port);
        let mut attachment =
            Attachment::new(Instant::now(), enrolled.established, user, port, random);
        // To nobody who does not ask for it.
        attachment.set_password(setup.password.clone().filter(|_| enrolled.needs_password));
        Self {
            setup,
            socket,
            address: enrolled.address,
            attachment,
            announce: Announce::default(),
            sender,
            messages,
            waiting: BTreeMap::new(),
            announcing: 0,
            announce_not_before: None,
            is_logged_in: false,
            login_refusal: None,
            login_waits: false,
            logging_in: None,
            logged_out,
            datagram: vec![0; 2048],
        }
    }

    /// `None` when the tracker falls silent.
    async fn log_in(&mut self, mut deadline: tokio::time::Instant) -> Option<Result<(), Refusal>> {
        let last = tokio::time::Instant::now() + LOGIN_DEADLINE;
        while !self.is_logged_in {
            tokio::time::timeout_at(deadline, self.step()).await.ok()?;
            if let Some(refusal) = self.login_refusal.take() {
                return Some(Err(refusal));
            }
            if std::mem::take(&mut self.login_waits) {
                deadline = last.min(tokio::time::Instant::now() + JOIN_DEADLINE);
            }
        }
        Some(Ok(()))
    }

    async fn run(mut self) {
        let shutdown = self.setup.shutdown.clone();
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.step() => {}
            }
        }
        self.say_goodbye().await;
    }

    /// Sends what is due, then waits for the next thing to happen and handles it.
    async fn step(&mut self) {
        self.transmit().await;
        let wake = self.attachment.poll_timeout(Instant::now());
        tokio::select! {
            received = self.socket.recv_from(&mut self.datagram) => {
                // An error here is an ICMP message about an earlier datagram: the timers know better.
                if let Ok((len, _)) = received {
                    self.attachment.handle_datagram(Instant::now(), &mut self.datagram[..len]);
                }
            }
            Some(message) = self.messages.recv() => self.handle_message(message).await,
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        self.attachment.handle_timeout(Instant::now());
        while let Some(event) = self.attachment.poll_event() {
            self.handle_event(event);
        }
    }

    async fn transmit(&mut self) {
        let mut out = Vec::with_capacity(MAX_DATAGRAM_LEN);
        while self.attachment.poll_transmit(Instant::now(), &mut out) {
            // A datagram that the system does not take is one that was lost.
            let _ = self.socket.send_to(&out, self.address).await;
            out.clear();
        }
        while let Some(event) = self.attachment.poll_event() {
            self.handle_event(event);
        }
    }

    async fn handle_message(&mut self, message: Message) {
        match message {
            Message::Ask(request, reply) => self.ask(request, Some(reply)),
            Message::Publish(file, reply) => match self.announce.publish(file) {
                Some(request) => self.ask(request, Some(reply)),
                None => drop(reply.send(Ok(Response::Published))),
            },
            Message::Withdraw(file, reply) => match self.announce.withdraw(&file) {
                Some(request) => self.ask(request, Some(reply)),
                None => drop(reply.send(Ok(Response::Unpublished))),
            },
            Message::Dialed(result) => self.handle_dialed(*result).await,
            Message::LogIn(password, reply) => {
                self.setup.password = Some(password);
                self.logging_in = Some(reply);
                self.attachment.log_in();
            }
        }
    }

    fn ask(
        &mut self,
        request: Request,
        reply: Option<oneshot::Sender<Result<Response, RequestError>>>,
    ) {
        let announces = is_announcement(&request);
        if self.attachment.is_logged_out() {
            let refused = RequestError::Refused(explain(&Refusal::NotLoggedIn));
            if let Some(reply) = reply {
                let _ = reply.send(Err(refused));
            }
            return;
        }
        match (self.attachment.request(Instant::now(), request), reply) {
            (Some(id), reply) => {
                self.announcing += usize::from(announces);
                if let Some(reply) = reply {
                    self.waiting.insert(id, reply);
                }
            }
            (None, Some(reply)) => drop(reply.send(Err(RequestError::NoAnswer))),
            (None, None) => {}
        }
    }

    fn handle_event(&mut self, event: attachment::Event) {
        match event {
            attachment::Event::Answered(id, request, response) => {
                self.handle_answer(id, &request, *response);
            }
            attachment::Event::Failed(id, request) => {
                self.announcing = self
                    .announcing
                    .saturating_sub(usize::from(is_announcement(&request)));
                if let Some(reply) = self.waiting.remove(&id) {
                    let _ = reply.send(Err(RequestError::NoAnswer));
                }
            }
            attachment::Event::LoggedIn => {
                self.is_logged_in = true;
                if self.logged_out.send_replace(None).is_some() {
                    self.tell(Event::LoggedIn);
                }
                if let Some(reply) = self.logging_in.take() {
                    let _ = reply.send(Ok(()));
                }
            }
            attachment::Event::LoginWaits => self.login_waits = true,
            attachment::Event::LoggedOut(refusal) => {
                // Not again by itself: it is wrong, and each try counts.
                self.setup.password = None;
                if let Some(reply) = self.logging_in.take() {
                    let tracker = self.setup.target.address();
                    let _ = reply.send(Err(login_error(&tracker, &refusal)));
                } else if self.is_logged_in {
                    let reason = explain(&refusal);
                    self.logged_out.send_replace(Some(reason.clone()));
                    self.tell(Event::LoggedOut { reason });
                }
                self.login_refusal = Some(refusal);
            }
            attachment::Event::LoginRefused(refusal) => {
                if let Some(reply) = self.logging_in.take() {
                    let tracker = self.setup.target.address();
                    let _ = reply.send(Err(login_error(&tracker, &refusal)));
                } else if self.is_logged_in {
                    self.tell(Event::Warning {
                        text: explain(&refusal),
                    });
                }
                self.login_refusal = Some(refusal);
            }
            attachment::Event::Acknowledged(ack) => {
                let may_announce = self
                    .announce_not_before
                    .is_none_or(|at| at <= Instant::now());
                if self.announcing == 0 && may_announce && !self.announce.agrees(&ack) {
                    info!(
                        known = ack.published,
                        "the tracker does not know all our files: announcing"
                    );
                    for request in self.announce.repeat() {
                        self.ask(request, None);
                    }
                }
            }
            attachment::Event::Lost => {
                self.tell(Event::TrackerLost {
                    reason: "it does not answer".to_owned(),
                });
            }
            attachment::Event::Back => self.tell(Event::TrackerBack),
            attachment::Event::NeedHandshake => self.dial(),
        }
    }

    fn handle_answer(&mut self, id: RequestId, request: &Request, response: Response) {
        if is_announcement(request) {
            self.announcing = self.announcing.saturating_sub(1);
            match &response {
                Response::Refused(Refusal::TooFast { wait_ms }) => {
                    let wait = Duration::from_millis(u64::from(*wait_ms)).min(MAX_REFUSAL_WAIT);
                    self.announce_not_before = Some(Instant::now() + wait);
                }
                Response::Refused(refusal) => {
                    // A limit does not go away by itself: say it, and ask again seldom.
                    self.announce_not_before = Some(Instant::now() + 6 * MAX_REFUSAL_WAIT);
                    self.tell(Event::Warning {
                        text: explain(refusal),
                    });
                }
                _ => self.announce.confirm(request),
            }
        }
        let Some(reply) = self.waiting.remove(&id) else {
            return;
        };
        let _ = reply.send(match response {
            Response::Refused(Refusal::TooFast { .. }) if is_announcement(request) => {
                Ok(Response::Published)
            }
            Response::Refused(Refusal::TooFast { wait_ms }) => Err(RequestError::TooFast(
                Duration::from_millis(u64::from(wait_ms)),
            )),
            Response::Refused(refusal) => Err(RequestError::Refused(explain(&refusal))),
            response => Ok(response),
        });
    }

    fn dial(&self) {
        let (target, membership) = (self.setup.target.clone(), self.setup.membership.clone());
        let (sender, port) = (self.sender.clone(), self.setup.listening_port);
        tokio::spawn(async move {
            let result = enrol(&target, &membership, port).await;
            let _ = sender.send(Message::Dialed(Box::new(result))).await;
        });
    }

    async fn handle_dialed(&mut self, result: Result<Enrolled, EnrolError>) {
        let now = Instant::now();
        match result {
            Ok(enrolled) => {
                self.setup.membership.learn(enrolled.member_key);
                if enrolled.address.is_ipv4() != self.address.is_ipv4() {
                    match bind_towards(enrolled.address).await {
                        Ok(socket) => self.socket = socket,
                        Err(_) => {
                            return self.attachment.dial_failed(now, DialFailure::Unreachable);
                        }
                    }
                }
                self.address = enrolled.address;
                let password = self.setup.password.clone();
                self.attachment
                    .set_password(password.filter(|_| enrolled.needs_password));
                self.attachment.attach(now, enrolled.established);
            }
            Err(error @ (EnrolError::WrongPassphrase | EnrolError::OtherKey { .. })) => {
                warn!(%error, "the tracker does not let us in again");
                self.tell(Event::TrackerLost {
                    reason: error.to_string(),
                });
                self.attachment.dial_failed(now, DialFailure::Rejected);
            }
            Err(error) => {
                debug!(%error, "the tracker is not reached");
                self.attachment.dial_failed(now, DialFailure::Unreachable);
            }
        }
    }

    /// The tracker knows at once; three datagrams, since nobody waits for an answer.
    async fn say_goodbye(&mut self) {
        for _ in 0..3 {
            let mut out = Vec::new();
            if self.attachment.poll_farewell(&mut out) {
                let _ = self.socket.send_to(&out, self.address).await;
            }
        }
    }

    /// Events are for people: when nobody reads them they are dropped, never waited for.
    fn tell(&self, event: Event) {
        let _ = self.setup.events.try_send(event);
    }
}

fn is_announcement(request: &Request) -> bool {
    matches!(request, Request::Publish(_) | Request::Unpublish(_))
}
