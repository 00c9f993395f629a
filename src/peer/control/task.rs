//! The task that owns the UDP socket, the attachment and the announced files.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::refusals::{explain, explain_login, login_error};
use super::{JOIN_DEADLINE, LOGIN_DEADLINE, Message, Reply, Setup};
use crate::crypto::random::OsRandom;
use crate::peer::enrol::{EnrolError, Enrolled, enrol};
use crate::peer::event::{Event, JoinError, RequestError};
use crate::proto::announce::Announce;
use crate::proto::attachment::{self, Attachment, DialFailure};
use crate::wire::control::{Refusal, Request, Response};
use crate::wire::id::RequestId;
use crate::wire::text::UserName;
use crate::wire::{MAX_DATAGRAM_LEN, MAX_OUTSTANDING_REQUESTS};

/// Pause before files are sent again that the tracker refused for coming too fast.
const MAX_REFUSAL_WAIT: Duration = Duration::from_secs(10);

/// So many heartbeats a question waits at the most until the tracker knows our files, and never longer than this.
const MAX_HASTE_BEATS: u32 = 2;
const MAX_HASTE: Duration = Duration::from_secs(10);

/// PUBLISH and UNPUBLISH under way while all is announced again: the rest of what may be is left to others.
const MAX_ANNOUNCING: usize = MAX_OUTSTANDING_REQUESTS / 2;

/// What the tracker knows of our files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// All that it is to know now.
    Known,
    /// Since it, or the session, began anew that is open.
    Open,
    /// It is being told all of them.
    Told,
}

/// Owns all that the session needs.
pub(super) struct Task {
    setup: Setup,
    socket: UdpSocket,
    address: SocketAddr,
    /// The tracker wants a password of each.
    has_users: bool,
    attachment: Attachment,
    announce: Announce,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    waiting: BTreeMap<RequestId, Reply>,
    /// PUBLISH and UNPUBLISH under way: until they are answered the tracker's count may lag behind.
    announcing: usize,
    standing: Standing,
    /// Questions that it answered before it knew our files: they are asked again.
    hasty: Vec<(Request, Reply)>,
    /// When the first of them is answered all the same.
    hasty_until: Option<Instant>,
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
    pub(super) fn new(
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
            has_users: enrolled.needs_password,
            attachment,
            announce: Announce::default(),
            sender,
            messages,
            waiting: BTreeMap::new(),
            announcing: 0,
            standing: Standing::Known,
            hasty: Vec::new(),
            hasty_until: None,
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
    pub(super) async fn log_in(
        &mut self,
        mut deadline: tokio::time::Instant,
    ) -> Option<Result<(), Refusal>> {
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

    /// Who we are to a tracker that knows its users.
    pub(super) fn account(&self) -> Option<&UserName> {
        Some(&self.setup.user).filter(|_| self.has_users)
    }

    pub(super) async fn run(mut self) {
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
        let wake = self.hasty_until.map_or(wake, |until| until.min(wake));
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
        self.announce_more();
        // Telling all may take longer than anybody wants to wait for an answer.
        if self
            .hasty_until
            .is_some_and(|until| until <= Instant::now())
        {
            self.settle_standing();
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
            Message::Publish(file, audience, reply) => {
                match self.announce.publish(file, audience) {
                    Some(request) => self.ask(request, Some(reply)),
                    None => drop(reply.send(Ok(Response::Published))),
                }
            }
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

    fn ask(&mut self, request: Request, reply: Option<Reply>) {
        let announces = is_announcement(&request);
        let asked = if self.attachment.is_logged_out() {
            let reason = explain(&Refusal::NotLoggedIn);
            Err(RequestError::Refused(reason))
        } else {
            let id = self.attachment.request(Instant::now(), request);
            id.ok_or(RequestError::NoAnswer)
        };
        match (asked, reply) {
            (Ok(id), reply) => {
                self.announcing += usize::from(announces);
                self.waiting.extend(reply.map(|reply| (id, reply)));
            }
            (Err(error), Some(reply)) => drop(reply.send(Err(error))),
            (Err(_), None) => {}
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
            attachment::Event::Began if self.announce.is_empty() => {}
            attachment::Event::Began => self.standing = Standing::Open,
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
                self.settle_standing();
                // Not again by itself: it is wrong, and each try counts.
                self.setup.password = None;
                if let Some(reason) = self.handle_refusal(refusal) {
                    self.logged_out.send_replace(Some(reason.clone()));
                    self.tell(Event::LoggedOut { reason });
                }
            }
            attachment::Event::LoginRefused(refusal) => {
                if let Some(text) = self.handle_refusal(refusal) {
                    self.tell(Event::Warning { text });
                }
            }
            attachment::Event::Acknowledged(ack) => {
                let is_quiet = self.announcing == 0 && !self.announce.is_repeating();
                if is_quiet && self.may_announce() && !self.announce.agrees(&ack) {
                    info!(
                        known = ack.published,
                        "the tracker does not know all our files: announcing"
                    );
                    self.announce.repeat();
                    self.standing = Standing::Told;
                } else if is_quiet {
                    self.settle_standing();
                }
            }
            attachment::Event::Lost => {
                self.settle_standing();
                self.tell(Event::TrackerLost {
                    reason: "it does not answer".to_owned(),
                });
            }
            attachment::Event::Back => self.tell(Event::TrackerBack),
            attachment::Event::NeedHandshake => self.dial(),
        }
    }

    fn may_announce(&self) -> bool {
        self.announce_not_before
            .is_none_or(|at| at <= Instant::now())
    }

    /// Goes on with announcing everything, as far as the tracker has answered what was said of it.
    fn announce_more(&mut self) {
        while self.announcing < MAX_ANNOUNCING
            && self.may_announce()
            && !self.attachment.is_logged_out()
            && let Some(request) = self.announce.poll_repeat()
        {
            self.ask(request, None);
        }
        let goes_on = self.announce.is_repeating() && self.may_announce();
        if self.standing == Standing::Told && self.announcing == 0 && !goes_on {
            self.settle_standing();
        }
    }

    /// The tracker knows our files, as far as it will soon: what it answered before is asked again.
    fn settle_standing(&mut self) {
        self.standing = Standing::Known;
        self.hasty_until = None;
        for (request, reply) in std::mem::take(&mut self.hasty) {
            self.ask(request, Some(reply));
        }
    }

    /// A login is refused: whoever asked for it hears why. What people are to be told when nobody did.
    fn handle_refusal(&mut self, refusal: Refusal) -> Option<String> {
        let asked = self.logging_in.take();
        let is_news = asked.is_none() && self.is_logged_in;
        if let Some(reply) = asked {
            let tracker = self.setup.target.address();
            let _ = reply.send(Err(login_error(&tracker, &refusal, self.account())));
        }
        let reason = is_news.then(|| explain_login(&refusal, self.account()));
        self.login_refusal = Some(refusal);
        reason
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
        let is_hasty = self.standing != Standing::Known && asks_for_files(request);
        if is_hasty && !matches!(response, Response::Refused(_)) {
            let patience = self.attachment.rhythm().interval * MAX_HASTE_BEATS;
            let until = Instant::now() + patience.min(MAX_HASTE);
            self.hasty_until.get_or_insert(until);
            return self.hasty.push((request.clone(), reply));
        }
        let _ = reply.send(match response {
            Response::Refused(Refusal::TooFast { wait_ms }) => Err(RequestError::TooFast(
                Duration::from_millis(u64::from(wait_ms)),
            )),
            Response::Refused(Refusal::NoSuchUser) => Err(RequestError::NoSuchUser),
            Response::Refused(refusal) => Err(RequestError::Refused(explain(&refusal))),
            response => Ok(response),
        });
    }

    fn dial(&self) {
        if self.setup.is_neighbour {
            // Its beacons say where it is, if it still is.
            let reason = "it does not answer".to_owned();
            return self.tell(Event::LoggedOut { reason });
        }
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
                self.setup.learn(&enrolled);
                if enrolled.address.is_ipv4() != self.address.is_ipv4() {
                    match bind_towards(enrolled.address).await {
                        Ok(socket) => self.socket = socket,
                        Err(_) => {
                            return self.attachment.dial_failed(now, DialFailure::Unreachable);
                        }
                    }
                }
                self.address = enrolled.address;
                self.has_users = enrolled.needs_password;
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

/// Does the answer say who has which files?
fn asks_for_files(request: &Request) -> bool {
    matches!(
        request,
        Request::Search(_) | Request::ListFiles(_) | Request::Locate(_)
    )
}

/// A socket of the address family of `tracker`.
pub(super) async fn bind_towards(tracker: SocketAddr) -> std::io::Result<UdpSocket> {
    match tracker {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await,
    }
}

#[cfg(test)]
mod tests;
