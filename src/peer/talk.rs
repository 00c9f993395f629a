//! Talks with other people: connections, names and questions for the machine that decides about them.
//!
//! All of it is one machine behind a mutex, which nobody holds while he waits for anything: whoever learns
//! something tells it, and carries out at once what it wants. One task keeps its time.

mod error;
mod handle;
mod link;
mod outcome;
mod wishes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

pub use self::error::TalkError;
use self::link::Link;
pub use self::outcome::OfferNews;
use self::outcome::Waiting;
use super::connection::{Reader, Writer};
use super::control::Control;
use super::dial::dial;
use super::event::{Event, RequestError};
use super::listing;
use super::membership::Membership;
use super::people::People;
pub use crate::proto::talk::Delivery;
use crate::proto::talk::{Accept, Action, Checked, Known, LinkId, Regard, Talks, Transmit};
use crate::wire::control::{Holder, PeerEntry};
use crate::wire::id::PeerId;
use crate::wire::talk::Frame;
use crate::wire::text::UserName;

/// The first frame of a talk comes within this time.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// Without a tracker: who has met us is met by us within this time, as a rule, and looked for so often.
const MEETING: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// News of offers that wait to be read.
const OFFER_NEWS: usize = 1024;
/// Tasks at the same time, those of connections among them that only wait for a last word.
const MAX_TASKS: usize = 2048;

/// What all talks work with.
pub struct Setup {
    /// Our name.
    pub user: UserName,
    /// What we greet with.
    pub membership: Membership,
    /// Who says whose a name is.
    pub control: Control,
    /// Whom we know.
    pub people: People,
    /// Who is let in.
    pub accept: Accept,
    /// For how long a denial is remembered.
    pub deny_for: Duration,
    /// Where to tell what happens.
    pub events: mpsc::Sender<Event>,
    /// Ends all talks.
    pub shutdown: CancellationToken,
}

/// All talks of this peer; cheap to clone.
#[derive(Clone)]
pub struct Talker(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    membership: Membership,
    control: Control,
    people: People,
    events: mpsc::Sender<Event>,
    /// Something may be due earlier than before.
    hurry: Notify,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    news: Mutex<Option<mpsc::Receiver<OfferNews>>>,
}

struct State {
    machine: Talks,
    links: HashMap<LinkId, Link>,
    last_link: u64,
    /// Where those are whom somebody wants to call now.
    entries: HashMap<PeerId, PeerEntry>,
    waiting: Waiting,
    news: mpsc::Sender<OfferNews>,
}

impl Talker {
    /// Nobody talks. The future keeps time until the setup's `shutdown`, and says goodbye then.
    pub fn new(setup: Setup) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let people = setup.people.clone();
        let own = setup.membership.local().identity.id();
        let machine = Talks::new(
            (setup.user, own),
            Box::new(people),
            (setup.accept, setup.deny_for),
            Instant::now(),
        );
        let (news, receiver) = mpsc::channel(OFFER_NEWS);
        let state = State {
            machine,
            links: HashMap::new(),
            last_link: 0,
            entries: HashMap::new(),
            waiting: Waiting::default(),
            news,
        };
        let talker = Self(Arc::new(Shared {
            state: Mutex::new(state),
            membership: setup.membership,
            control: setup.control,
            people: setup.people,
            events: setup.events,
            hurry: Notify::new(),
            shutdown: setup.shutdown,
            tasks: TaskTracker::new(),
            news: Mutex::new(Some(receiver)),
        }));
        let keeping = talker.clone().keep_time();
        (talker, keeping)
    }

    /// A peer has dialled us, and what it says first begins a talk.
    pub async fn receive(&self, key: PeerId, mut reader: Reader, writer: Writer) {
        let first = tokio::time::timeout(FIRST_FRAME, reader.next_talk()).await;
        let Ok(Ok(Some(Frame::Connect { user, offers }))) = first else {
            return debug!(?key, "a talk that does not begin");
        };
        if self.0.tasks.len() >= MAX_TASKS {
            return debug!(?key, "too many talks begin");
        }
        self.act(|state, now| {
            if let Some(link) = self.adopt(state, reader, writer) {
                let machine = &mut state.machine;
                machine.handle_knock(now, link, key, user, offers);
            }
        });
    }

    fn handle_frame(&self, link: LinkId, frame: Frame) -> Duration {
        self.act(|state, now| state.machine.handle_frame(now, link, frame))
    }

    fn handle_closed(&self, link: LinkId, broken: Option<String>) {
        self.act(|state, now| {
            state.links.remove(&link);
            state.machine.handle_closed(now, link, broken);
        });
    }

    /// Tells the machine something, and carries out what it wants.
    fn act<T>(&self, tell: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.lock();
        let told = tell(&mut state, Instant::now());
        self.flush(&mut state);
        drop(state);
        self.0.hurry.notify_one();
        told
    }

    fn flush(&self, state: &mut State) {
        loop {
            if let Some(transmit) = state.machine.poll_transmit() {
                state.transmit(transmit);
            } else if let Some(action) = state.machine.poll_action() {
                self.carry_out(state, action);
            } else if let Some(event) = state.machine.poll_event() {
                self.tell(state, event);
            } else {
                break;
            }
        }
        // Whoever is to be dialled was.
        state.entries.clear();
    }

    fn carry_out(&self, state: &mut State, action: Action) {
        let talker = self.clone();
        match action {
            Action::Dial(key) => {
                let Some(entry) = state.entries.remove(&key) else {
                    let reason = Err("its address is not known".to_owned());
                    return state.machine.handle_dialled(Instant::now(), key, reason);
                };
                self.0.tasks.spawn(async move { talker.dial(entry).await });
            }
            Action::Check { link, user } => {
                self.0
                    .tasks
                    .spawn(async move { talker.check(link, user).await });
            }
        }
    }

    async fn dial(self, entry: PeerEntry) {
        let holder = Holder {
            user: entry.user,
            peer: entry.peer,
            len: 0,
            addresses: entry.addresses,
        };
        let dialled = tokio::select! {
            () = self.0.shutdown.cancelled() => return,
            dialled = dial(&self.0.membership, &holder) => dialled,
        };
        self.act(|state, now| {
            let dialled = match dialled {
                Ok((reader, writer)) => match self.adopt(state, reader, writer) {
                    Some(link) => Ok(link),
                    None => Err("this peer is leaving".to_owned()),
                },
                Err(error) => Err(error.to_string()),
            };
            state.machine.handle_dialled(now, holder.peer, dialled);
        });
    }

    async fn check(self, link: LinkId, user: UserName) {
        let key = self.lock().machine.key_of(link);
        let who = tokio::select! {
            () = self.0.shutdown.cancelled() => return,
            who = self.bearer(&user, key) => who,
        };
        self.act(|state, now| {
            let checked = match who {
                Ok(Some(entry)) if Some(entry.peer) == key => Checked::Fits(entry.user),
                Ok(Some(_)) => Checked::WrongName,
                Ok(None) => Checked::Nobody,
                Err(_) => Checked::Unknown,
            };
            state.machine.handle_checked(now, link, checked);
        });
    }

    /// Who bears the name of whoever has this key. Without a tracker a neighbour may have met us before we have
    /// met it: it gets a moment.
    async fn bearer(
        &self,
        user: &UserName,
        key: Option<PeerId>,
    ) -> Result<Option<PeerEntry>, RequestError> {
        let until = tokio::time::Instant::now() + MEETING;
        loop {
            let who = listing::who(&self.0.control, user).await;
            let fits = matches!(&who, Ok(Some(entry)) if Some(entry.peer) == key);
            let is_over = tokio::time::Instant::now() >= until;
            if fits || is_over || self.0.control.neighbours().is_none() {
                return who;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes a connection on; `None` when this peer is leaving.
    fn adopt(&self, state: &mut State, reader: Reader, writer: Writer) -> Option<LinkId> {
        if self.0.shutdown.is_cancelled() {
            return None;
        }
        state.last_link += 1;
        let id = LinkId(state.last_link);
        let link = Link::start(self, id, (reader, writer), &self.0.tasks);
        state.links.insert(id, link);
        Some(id)
    }

    async fn keep_time(self) {
        loop {
            let next = self.lock().machine.poll_timeout();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.shutdown.cancelled() => break,
                () = self.0.hurry.notified() => {}
                () = due => self.act(|state, now| state.machine.handle_timeout(now)),
            }
        }
        self.act(|state, now| {
            state.machine.close(now);
            state.waiting.clear();
        });
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn transmit(&mut self, transmit: Transmit) {
        match transmit {
            Transmit::Send(id, frame) => {
                let link = self.links.get(&id);
                if link.is_some_and(|link| !link.send(frame)) {
                    if let Some(link) = self.links.remove(&id) {
                        link.abort();
                    }
                    let why = "the other side does not read what is sent".to_owned();
                    self.machine.handle_closed(Instant::now(), id, Some(why));
                }
            }
            Transmit::Finish(id) => drop(self.links.remove(&id)),
            Transmit::Abort(id) => {
                if let Some(link) = self.links.remove(&id) {
                    link.abort();
                }
            }
        }
    }
}

impl Known for People {
    fn regard(&self, user: &UserName, key: PeerId) -> Regard {
        Self::regard(self, user, key)
    }

    fn key_of(&self, user: &UserName) -> Option<PeerId> {
        Self::key_of(self, user)
    }
}

#[cfg(test)]
mod tests;
