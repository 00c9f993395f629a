//! Keeps the session with the tracker; publishes again after a restart.
//!
//! One task owns all that the session needs; everybody else holds a [`Control`] and sends it messages.

mod refusals;
mod task;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::refusals::{join_error, login_error};
use self::task::{Task, bind_towards};
use super::enrol::{EnrolError, Enrolled, Target, enrol};
use super::event::{Event, JoinError, RequestError};
use super::membership::Membership;
use super::neighbours::{Neighbour, Neighbours};
use crate::proto::backoff::{Backoff, Retry};
use crate::wire::control::{Audience, Publication, Request, Response};
use crate::wire::id::PeerId;
use crate::wire::password::Password;
use crate::wire::text::UserName;

/// Joining ends with an error line within this time, whatever the network does.
const JOIN_DEADLINE: Duration = Duration::from_secs(9);
/// Longest wait for a password to be checked, as long as the tracker says that it is at it.
const LOGIN_DEADLINE: Duration = Duration::from_secs(60);
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
    /// Those of a peer whose tracker is its own small one.
    neighbours: Option<Neighbours>,
}

/// Where the answer to a request goes.
type Reply = oneshot::Sender<Result<Response, RequestError>>;

#[derive(Debug)]
enum Message {
    Ask(Request, Reply),
    Publish(Publication, Audience, Reply),
    Withdraw(Publication, Reply),
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
    /// It is the small one of a neighbour: when it is silent we wait to be shown where it is now.
    pub is_neighbour: bool,
    /// Where to tell what happens.
    pub events: mpsc::Sender<Event>,
    /// Ends the task, which says goodbye first.
    pub shutdown: CancellationToken,
}

impl Setup {
    /// Takes over the member key.
    fn learn(&self, enrolled: &Enrolled) {
        let key = enrolled.member_key.clone();
        if self.is_neighbour {
            self.membership.learn_of(enrolled.tracker, key);
        } else {
            self.membership.learn(key);
        }
    }
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
        setup.learn(&enrolled);
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
            neighbours: None,
        };
        let mut task = Task::new(setup, enrolled, socket, (sender, messages), out);
        task.log_in(deadline)
            .await
            .ok_or_else(|| {
                unreachable("TCP works, but UDP datagrams to that port are not answered".to_owned())
            })?
            .map_err(|refusal| login_error(&tracker, &refusal, task.account()))?;
        Ok((control, tokio::spawn(task.run())))
    }

    /// What is not at this tracker, which is our own small one, is at those of our neighbours.
    #[must_use]
    pub fn with_neighbours(self, neighbours: Neighbours) -> Self {
        Self {
            neighbours: Some(neighbours),
            ..self
        }
    }

    /// Who is near, for a peer without a tracker; `None` for one that has a tracker.
    #[must_use]
    pub fn neighbours(&self) -> Option<Vec<Neighbour>> {
        self.neighbours.as_ref().map(Neighbours::list)
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

    /// Publishes `file` for `audience`, now and after every restart of the tracker. A tracker that is too busy for it is told
    /// again soon.
    ///
    /// # Errors
    /// When the tracker does not answer, or refuses; the file is announced again later all the same.
    pub async fn publish(&self, file: Publication, audience: Audience) -> Result<(), RequestError> {
        self.tell(|reply| Message::Publish(file, audience, reply))
            .await
    }

    /// Takes a published file back, as [`Control::publish`] publishes it.
    ///
    /// # Errors
    /// When the tracker does not answer; it is told again later all the same.
    pub async fn withdraw(&self, file: Publication) -> Result<(), RequestError> {
        self.tell(|reply| Message::Withdraw(file, reply)).await
    }

    async fn tell(&self, message: impl FnOnce(Reply) -> Message) -> Result<(), RequestError> {
        match self.send(message).await {
            Err(RequestError::TooFast(_)) => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn send(&self, message: impl FnOnce(Reply) -> Message) -> Result<Response, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.messages
            .send(message(reply))
            .await
            .map_err(|_| RequestError::NoAnswer)?;
        answer.await.map_err(|_| RequestError::NoAnswer)?
    }
}

#[cfg(test)]
impl Control {
    /// A tracker that answers so.
    pub(super) fn answering(
        mut answer: impl FnMut(Request) -> Result<Response, RequestError> + Send + 'static,
    ) -> Self {
        let (messages, mut asked) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some(Message::Ask(request, reply)) = asked.recv().await {
                let _ = reply.send(answer(request));
            }
        });
        Self {
            messages,
            tracker: PeerId([0; 32]),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            has_password: false,
            logged_out: watch::channel(None).1,
            neighbours: None,
        }
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

#[cfg(test)]
impl Control {
    /// To a tracker that is gone.
    pub fn to_nobody() -> Self {
        Self {
            messages: mpsc::channel(1).0,
            tracker: PeerId([0; 32]),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            has_password: false,
            logged_out: watch::channel(None).1,
            neighbours: None,
        }
    }

    /// One whose tracker is a test: it hears whether a file is published or taken back, which one, and answers.
    pub fn of_a_test() -> (
        Self,
        mpsc::UnboundedReceiver<(bool, Publication, oneshot::Sender<()>)>,
    ) {
        let (messages, mut queue) = mpsc::channel(QUEUE);
        let (told, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = queue.recv().await {
                let (is_here, file, reply) = match message {
                    Message::Publish(file, _, reply) => (true, file, reply),
                    Message::Withdraw(file, reply) => (false, file, reply),
                    _ => continue,
                };
                let (answer, answered) = oneshot::channel();
                let _ = told.send((is_here, file, answer));
                tokio::spawn(async move {
                    let answer = answered.await.map(|()| Response::Published);
                    let _ = reply.send(answer.map_err(|_| RequestError::NoAnswer));
                });
            }
        });
        let control = Self {
            messages,
            ..Self::to_nobody()
        };
        (control, heard)
    }
}
