//! Peer: the one handle for prompt and web; requests in, events out.
//!
//! ```text
//! Peer ─▶ control ─▶ the tracker        listen ─▶ upload ◀─ shares
//!      └▶ download ─▶ dial ─▶ other peers' uploads; store ─▶ disk
//! ```

mod accepted;
pub mod begun;
pub mod bundle;
pub mod changes;
pub mod connection;
pub mod control;
pub mod database;
pub mod dial;
pub mod download;
pub mod drive;
pub mod enrol;
pub mod event;
pub mod folder;
pub mod greet;
pub mod growing;
pub mod guests;
pub mod hash_store;
pub mod hashing;
pub mod inquiry;
pub mod job;
pub mod journal;
pub mod keeper;
pub mod kept;
pub mod liars;
pub mod listen;
pub mod listing;
pub mod locker;
pub mod membership;
pub mod meter;
pub mod name;
pub mod neighbours;
pub mod offers;
pub mod origin;
pub mod people;
pub mod pins;
pub mod places;
pub mod puts;
pub mod readers;
pub mod salvage;
pub mod shares;
pub mod source;
pub mod spread;
pub mod store;
pub mod talk;
pub mod target;
pub mod throttle;
pub mod transfers;
pub mod unfinished;
pub mod unlock;
pub mod unpack;
pub mod upload;
pub mod walk;
pub mod watch;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::begun::Begun;
use self::changes::Changes;
use self::control::{Control, Setup};
use self::database::Memory;
use self::download::Downloads;
use self::enrol::Target;
pub use self::event::{
    DownloadError, Event, Hashing, JoinError, Progress, RequestError, ShareError,
};
use self::greet::Greeter;
use self::growing::Nursery;
use self::hash_store::HashStore;
use self::keeper::Keeper;
pub use self::keeper::Restart;
use self::kept::Kept;
use self::liars::Liars;
pub use self::listing::Listing;
use self::locker::Locker;
use self::membership::Membership;
use self::neighbours::Neighbours;
use self::offers::Sends;
pub use self::offers::{SendError, SendId, SendNews, Sending, Sent};
use self::people::People;
use self::pins::Pins;
pub use self::readers::Readers;
use self::shares::{Background, Shares};
pub use self::shares::{Contents, Shared};
use self::spread::Spread;
use self::talk::Talker;
pub use self::talk::{Delivery, OfferNews, TalkError};
use self::throttle::Throttle;
use self::transfers::Transfers;
pub use self::transfers::{Order, State, Transfer, TransferId};
use self::unfinished::Unfinished;
use self::upload::Offers;
use self::watch::Watch;
use crate::crypto::identity::Identity;
use crate::crypto::kdf::Group;
use crate::lan;
use crate::proto::backoff::Retry;
pub use crate::proto::talk::{
    Accept, End, OfferId, Question, QuestionId, QuestionKind, Talk, Verdict,
};
use crate::wire::control::Publication;
use crate::wire::id::{Fingerprint, PeerId};
use crate::wire::password::Password;
use crate::wire::text::UserName;

/// Events that nobody has read yet; progress beyond it is dropped.
const EVENT_QUEUE: usize = 1024;
/// A peer ends within this time, whatever hangs.
const FAREWELL: Duration = Duration::from_secs(4);

/// How a peer joins and works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host name or address of the tracker.
    pub tracker_host: String,
    /// Its port, TCP and UDP.
    pub tracker_port: u16,
    /// The key that it must have, if one was typed.
    pub tracker_key: Option<Fingerprint>,
    /// Under which name its key is remembered; its address when absent.
    pub tracker_pin: Option<String>,
    /// The tracker is our own small one, and there are neighbours on this network.
    pub lan: Option<lan::Settings>,
    /// Our name.
    pub user: UserName,
    /// Our password, for a tracker that wants one.
    pub password: Option<Password>,
    /// First and last port to listen on; (0, 0) for any.
    pub ports: (u16, u16),
    /// Address to listen on; all when absent.
    pub bind: Option<IpAddr>,
    /// Where downloads go.
    pub downloads: PathBuf,
    /// What their names begin with.
    pub prefix: String,
    /// Share on what was downloaded.
    pub seed: bool,
    /// How fast it may be.
    pub limits: Limits,
    /// Downloads that run at the same time.
    pub simultaneous: usize,
    /// Of joining and downloading.
    pub retry: Retry,
    /// Where known trackers and people, hashes, shares and unfinished downloads are kept; absent for a peer that keeps nothing.
    pub state_dir: Option<PathBuf>,
    /// Who may talk to us and offer us something, without or with a question.
    pub accept: Accept,
    /// For how long a denial is remembered.
    pub deny_for: Duration,
    /// What becomes of the shares of the last start.
    pub restart: Restart,
    /// What becomes of unfinished downloads: those of the last start, and those that this one leaves.
    pub unfinished: Restart,
}

/// What to download, and how.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Name, id and length.
    pub file: Publication,
    /// Only from this peer.
    pub from: Option<PeerId>,
    /// Another directory than the settings'.
    pub directory: Option<PathBuf>,
    /// When nobody delivers, wait for somebody instead of giving up.
    pub waits: bool,
    /// Whether somebody has just asked for it.
    pub origin: Origin,
    /// It is for chosen people only: others get nothing of it from here.
    pub is_restricted: bool,
}

/// Where a wish comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody asks for it: what stands in its way from the first is told at once, and ends it.
    Asked,
    /// It was under way before. What stands in its way is waited for.
    Resumed,
}

/// Bytes a second of all transfers together; absent for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of uploads.
    pub up: Option<u64>,
    /// Of downloads.
    pub down: Option<u64>,
}

/// Bytes that moved since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// To others.
    pub up: u64,
    /// From others.
    pub down: u64,
}

/// A finished download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Where it is now.
    pub path: PathBuf,
    /// Name, id and length.
    pub file: Publication,
    /// What is in it.
    pub contents: Contents,
    /// Bytes that came from others now; the rest was here.
    pub fetched: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Peers that sent some of it.
    pub sources: usize,
    /// Another download of the same was under way and brought it.
    pub brought_by: Option<TransferId>,
}

/// A running peer; cheap to clone.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    settings: Settings,
    people: People,
    membership: Membership,
    neighbours: Neighbours,
    control: Control,
    keeper: Keeper,
    downloads: Downloads,
    offers: Offers,
    transfers: Transfers,
    talker: Talker,
    sends: Sends,
    port: u16,
    shutdown: CancellationToken,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Peer {
    /// Listens, joins the tracker and logs in, with retries; what happens later comes as events.
    ///
    /// # Errors
    /// When there is no port to listen on, or the tracker is not reached or does not let us in.
    pub async fn join(
        mut settings: Settings,
        group: Group,
        identity: Identity,
    ) -> Result<(Self, mpsc::Receiver<Event>), JoinError> {
        let people = People::open(settings.state_dir.as_deref(), group.network().clone())
            .map_err(JoinError::People)?;
        let membership = Membership::new(group, identity);
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let shutdown = CancellationToken::new();
        let listener = listen::Listener::bind(settings.bind, settings.ports)?;
        let port = listener.port();
        let setup = Setup {
            target: target(&settings),
            membership: membership.clone(),
            user: settings.user.clone(),
            password: settings.password.clone(),
            listening_port: port,
            retry: settings.retry.clone(),
            is_neighbour: false,
            events: events.clone(),
            shutdown: shutdown.clone(),
        };
        // From here on it is the control task's.
        settings.password = None;
        let (mut control, control_task) = Control::join(setup).await?;
        let neighbours = Neighbours::default();
        let greeting = match settings.lan {
            None => None,
            Some(lan) => {
                let beacons = greet::open(lan, &membership, settings.tracker_port)?;
                let greeter = Greeter {
                    beacons,
                    neighbours: neighbours.clone(),
                    control: control.clone(),
                    membership: membership.clone(),
                    listening_port: port,
                    events: events.clone(),
                    shutdown: shutdown.clone(),
                };
                control = control.with_neighbours(neighbours.clone());
                Some(greeter.run())
            }
        };
        let memory = Memory::new(settings.state_dir.clone(), events.clone());
        let background = Background {
            hashes: HashStore::new(memory.clone()),
            kept: match settings.restart {
                Restart::Restores => Kept::new(memory.clone()),
                Restart::Ignores => Kept::default(),
            },
            changes: Changes::default(),
            events: Some(events.clone()),
        };
        // Before anybody asks what is shared, or wants to share some of it no longer.
        let kept = background.kept.clone();
        let (locker, own) = (Locker::new(settings.state_dir.as_deref()), memory.clone());
        let cleaner = (settings.restart == Restart::Restores).then(|| locker.clone());
        let loading = move || {
            kept.load();
            // What cannot be read now may be read at the next start.
            if let Some(locker) = cleaner.filter(|_| own.database().is_some()) {
                locker.clean(&kept.unread());
            }
        };
        let _ = tokio::task::spawn_blocking(loading).await;
        let unfinished = Unfinished::new(memory, settings.unfinished);
        let (shares, withdrawn) = Shares::new(background.clone());
        let offers = Offers {
            shares: shares.clone(),
            nursery: Nursery::default(),
            throttle: Throttle::default(),
            spread: Spread::default(),
        };
        offers.throttle.set(settings.limits.up);
        let downloads = Downloads {
            control: control.clone(),
            membership: membership.clone(),
            shares: shares.clone(),
            nursery: offers.nursery.clone(),
            liars: Liars::default(),
            throttle: Throttle::default(),
            prefix: settings.prefix.clone(),
            seeds: settings.seed,
            retry: settings.retry.clone(),
            events: events.clone(),
        };
        downloads.throttle.set(settings.limits.down);
        let (talker, talking) = Talker::new(talk::Setup {
            user: settings.user.clone(),
            membership: membership.clone(),
            control: control.clone(),
            people: people.clone(),
            accept: settings.accept,
            deny_for: settings.deny_for,
            events: events.clone(),
            shutdown: shutdown.clone(),
        });
        let listening = listener.run(
            membership.clone(),
            offers.clone(),
            talker.clone(),
            shutdown.clone(),
        );
        let keeper = Keeper {
            watch: Watch::new(background.changes.clone()),
            locker,
            warned: Arc::default(),
            shares,
            background,
            unfinished: unfinished.clone(),
            control: control.clone(),
            events,
        };
        let keeping = keeper
            .clone()
            .run(settings.restart, withdrawn, shutdown.clone());
        let mut tasks = vec![
            control_task,
            tokio::spawn(listening),
            tokio::spawn(keeping),
            tokio::spawn(talking),
        ];
        tasks.extend(greeting.map(tokio::spawn));
        let tasks = std::sync::Mutex::new(tasks);
        let inner = Inner {
            transfers: Transfers::new(settings.simultaneous, unfinished),
            settings,
            people,
            membership,
            neighbours,
            control,
            keeper,
            downloads,
            offers,
            talker,
            sends: Sends::default(),
            port,
            shutdown,
            tasks,
        };
        let peer = Self(Arc::new(inner));
        if let (Some(news), Ok(tasks)) = (peer.offer_news(), &mut peer.0.tasks.lock()) {
            tasks.push(tokio::spawn(peer.clone().follow_offers(news)));
        }
        peer.take_up_unfinished().await;
        Ok((peer, receiver))
    }

    /// The port on which we listen for peers.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Our name.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.0.settings.user
    }

    /// Our long-term key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.membership.local().identity.id()
    }

    /// Whom we know.
    #[must_use]
    pub fn people(&self) -> &People {
        &self.0.people
    }

    /// Has it no tracker but its own?
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.0.settings.lan.is_some()
    }

    /// How many neighbours are here, of a peer without a tracker.
    #[must_use]
    pub fn neighbour_count(&self) -> usize {
        self.0.neighbours.list().len()
    }

    /// At the start, waits until those who are near are met, as far as they answer within seconds; not at all
    /// where there is a tracker.
    async fn look_around(&self) {
        if self.is_alone() {
            self.0.neighbours.settle().await;
        }
    }

    /// The tracker's address as it was typed, with its port.
    #[must_use]
    pub fn tracker_address(&self) -> String {
        target(&self.0.settings).address()
    }

    /// What it has joined, for people: the tracker's address as it was typed, or the local network.
    #[must_use]
    pub fn whereabouts(&self) -> String {
        if self.is_alone() {
            "the local network".to_owned()
        } else {
            self.tracker_address()
        }
    }

    /// Where the tracker answered, and its long-term key; `None` for a peer that does without one.
    #[must_use]
    pub fn tracker(&self) -> Option<(SocketAddr, PeerId)> {
        let control = &self.0.control;
        (!self.is_alone()).then(|| (control.address(), control.tracker()))
    }

    /// Did the tracker want a password?
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.0.control.has_password()
    }

    /// How often it tries what fails.
    #[must_use]
    pub fn retry(&self) -> &Retry {
        &self.0.settings.retry
    }

    /// Why the tracker has ended our login, as soon as it has.
    pub async fn logged_out(&self) -> String {
        self.0.control.logged_out().await
    }

    /// Logs in again, after the tracker ended our login.
    ///
    /// # Errors
    /// When it does not take this password either, or does not answer.
    pub async fn log_in(&self, password: Password) -> Result<(), JoinError> {
        self.0.control.log_in(password).await
    }

    /// Where downloads go.
    #[must_use]
    pub fn downloads_dir(&self) -> &Path {
        &self.0.settings.downloads
    }

    /// The downloads that run, wait or are paused.
    #[must_use]
    pub fn transfers(&self) -> Vec<Transfer> {
        self.0.transfers.list()
    }

    /// Pauses, resumes or cancels a download; `false` when there is none of this number.
    #[must_use]
    pub fn order(&self, id: TransferId, order: Order) -> bool {
        self.0.transfers.order(id, order)
    }

    /// Most bytes a second that leave and that come; absent for no limit.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            up: self.0.offers.throttle.rate(),
            down: self.0.downloads.throttle.rate(),
        }
    }

    /// What uploads and downloads have moved since the start, those under way as well.
    #[must_use]
    pub fn moved(&self) -> Moved {
        Moved {
            up: self.0.offers.throttle.moved(),
            down: self.0.downloads.throttle.moved(),
        }
    }

    /// Sets both limits, from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.0.offers.throttle.set(limits.up);
        self.0.downloads.throttle.set(limits.down);
    }

    /// Says goodbye to the tracker and ends all tasks, within seconds.
    pub async fn leave(&self) {
        self.0.shutdown.cancel();
        let tasks = std::mem::take(
            &mut *self
                .0
                .tasks
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let deadline = tokio::time::Instant::now() + FAREWELL;
        for task in tasks {
            let _ = tokio::time::timeout_at(deadline, task).await;
        }
        if self.0.settings.restart == Restart::Ignores {
            let discarding = self.0.keeper.discard_all_copies();
            let _ = tokio::time::timeout_at(deadline, discarding).await;
        }
        let people = self.0.people.clone();
        let written = tokio::task::spawn_blocking(move || people.write());
        if let Ok(Ok(Err(error))) = tokio::time::timeout_at(deadline, written).await {
            tracing::warn!(%error, "whom we met is not remembered");
        }
        let _ = tokio::time::timeout_at(deadline, self.0.keeper.events.send(Event::Left)).await;
    }
}

fn target(settings: &Settings) -> Target {
    Target {
        host: settings.tracker_host.clone(),
        port: settings.tracker_port,
        key: settings.tracker_key,
        pin: settings.tracker_pin.clone(),
        // Our own small one has another port each time, and is known by our own key.
        pins: match settings.lan {
            None => settings.state_dir.as_deref().map(Pins::in_dir),
            Some(_) => None,
        },
    }
}
