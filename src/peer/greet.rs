//! Greets whoever is heard on the local network: joins its small tracker, and keeps that session.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::control::{Control, Setup};
use super::enrol::Target;
use super::event::{Event, JoinError};
use super::listing;
use super::membership::Membership;
use super::neighbours::{Neighbour, Neighbours};
use crate::lan::{self, Beacons};
use crate::proto::backoff::Retry;
use crate::proto::neighbours::{self as machine, Dialed, Seeks};
use crate::wire::beacon::Instance;
use crate::wire::packet::Role;

/// Words of sessions that may wait.
const QUEUE: usize = 256;
/// Events of one session that may wait.
const SESSION_QUEUE: usize = 32;
/// While nobody new is dialled, whoever has joined us is looked for this often.
const VOUCH_EVERY: Duration = Duration::from_secs(5);

/// Opens the ports on which we are shown and hear others.
///
/// # Errors
/// When they cannot be had.
pub fn open(
    settings: lan::Settings,
    membership: &Membership,
    tracker_port: u16,
) -> Result<Beacons, JoinError> {
    let network = membership.local().group.network();
    let own = (Role::Peer, tracker_port);
    Beacons::open(settings, network, own, Seeks::Peers).map_err(|error| JoinError::Listen {
        address: format!("UDP port {}, for beacons", settings.port),
        reason: format!("{error}; set discovery.port to the same other number everywhere"),
    })
}

/// What it needs to greet somebody.
pub struct Greeter {
    /// Who is heard.
    pub beacons: Beacons,
    /// Who is met.
    pub neighbours: Neighbours,
    /// The way to our own small tracker.
    pub control: Control,
    /// What we greet with.
    pub membership: Membership,
    /// Where we listen for peers.
    pub listening_port: u16,
    /// Where to tell who comes and goes.
    pub events: mpsc::Sender<Event>,
    /// Ends it.
    pub shutdown: CancellationToken,
}

/// What comes of one greeting, and of the session after it.
enum Word {
    Greeted(Result<Neighbour, Dialed>),
    Silent,
    Back,
    Left,
}

/// The sessions, and what they tell.
struct Sessions {
    open: BTreeMap<Instance, CancellationToken>,
    words: mpsc::Sender<(Instance, Word)>,
    tasks: TaskTracker,
    greeting: usize,
}

impl Greeter {
    /// Until the peer leaves; each session says goodbye then.
    pub async fn run(mut self) {
        let (words, mut heard) = mpsc::channel(QUEUE);
        let mut sessions = Sessions {
            open: BTreeMap::new(),
            words,
            tasks: TaskTracker::new(),
            greeting: 0,
        };
        let mut vouching: Option<(Instant, Instant)> = None;
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some((instance, word)) = heard.recv() => self.handle(&mut sessions, instance, word),
                () = self.beacons.step() => {}
            }
            while let Some(event) = self.beacons.machine().poll_event() {
                match event {
                    machine::Event::Dial(instance, at) => self.greet(&mut sessions, instance, at),
                    machine::Event::OtherPassphrase(ip) => self.tell(Event::Warning {
                        text: format!(
                            "someone on this network, at {ip}, answers with another passphrase: not of this group, or one of you has mistyped it"
                        ),
                    }),
                    machine::Event::Paused(time) => {
                        vouching = Some((Instant::now(), Instant::now() + time));
                        self.tell(Event::Warning {
                            text: format!(
                                "too many on this network answer with another passphrase: for {} minutes only those are met who meet us first",
                                time.as_secs() / 60
                            ),
                        });
                    }
                }
            }
            if let Some((next, end)) = vouching
                && Instant::now() >= next
            {
                self.vouch().await;
                let next = Instant::now() + VOUCH_EVERY;
                vouching = (next < end).then_some((next, end));
            }
        }
        sessions.tasks.close();
        sessions.tasks.wait().await;
    }

    /// Whoever has joined our small tracker knows the passphrase.
    async fn vouch(&mut self) {
        let joined = listing::peers_at(&self.control).await.unwrap_or_default();
        for address in joined.iter().flat_map(|entry| &entry.addresses) {
            self.beacons.machine().vouch_for(address.ip());
        }
    }

    fn greet(&self, sessions: &mut Sessions, instance: Instance, at: SocketAddr) {
        let token = self.shutdown.child_token();
        sessions.open.insert(instance, token.clone());
        sessions.greeting += 1;
        self.neighbours.note_greeting(sessions.greeting);
        let (events, mut told) = mpsc::channel(SESSION_QUEUE);
        // The key is its name there: several may bear the name that people see.
        let own = self.membership.local().identity.id();
        let Ok(user) = own.fingerprint().to_string().parse() else {
            return;
        };
        let setup = Setup {
            target: Target::at(at),
            membership: self.membership.clone(),
            user,
            password: None,
            listening_port: self.listening_port,
            retry: Retry {
                attempts: 1,
                ..Retry::default()
            },
            is_neighbour: true,
            events,
            shutdown: token.clone(),
        };
        let words = sessions.words.clone();
        sessions.tasks.spawn(async move {
            let joining = async {
                let (control, task) = Control::join(setup).await.map_err(|error| {
                    debug!(%error, %at, "somebody on this network is not met");
                    match error {
                        JoinError::WrongPassphrase { .. } => Dialed::OtherPassphrase,
                        _ => Dialed::Failed,
                    }
                })?;
                if control.tracker() == own {
                    return Err(Dialed::Known);
                }
                let neighbour = introduce(control, instance).await.ok_or(Dialed::Failed)?;
                Ok((neighbour, task))
            };
            let joined = tokio::select! {
                () = token.cancelled() => return,
                joined = joining => joined,
            };
            let (greeted, task) = match joined {
                Ok((neighbour, task)) => (Ok(neighbour), Some(task)),
                Err(dialed) => (Err(dialed), None),
            };
            let _ = words.send((instance, Word::Greeted(greeted))).await;
            let Some(task) = task else {
                token.cancel();
                return;
            };
            while let Some(event) = told.recv().await {
                let word = match event {
                    Event::TrackerLost { .. } => Word::Silent,
                    Event::TrackerBack => Word::Back,
                    Event::LoggedOut { .. } => Word::Left,
                    _ => continue,
                };
                if words.send((instance, word)).await.is_err() {
                    break;
                }
            }
            let _ = task.await;
        });
    }

    fn handle(&mut self, sessions: &mut Sessions, instance: Instance, word: Word) {
        let now = std::time::Instant::now();
        match word {
            Word::Greeted(greeted) => {
                sessions.greeting = sessions.greeting.saturating_sub(1);
                match greeted {
                    Ok(neighbour) => {
                        let (user, key) = (neighbour.user.clone(), neighbour.peer);
                        info!(%user, at = %neighbour.address(), "met on the local network");
                        let machine = self.beacons.machine();
                        machine.handle_dialed(now, instance, Dialed::Met);
                        // The same one, started anew.
                        if let Some(before) = self.neighbours.insert(neighbour) {
                            self.beacons.machine().handle_gone(before);
                            sessions.end(&before);
                        }
                        self.tell(Event::NeighbourMet { user, key });
                    }
                    Err(dialed) => {
                        self.beacons.machine().handle_dialed(now, instance, dialed);
                        sessions.end(&instance);
                    }
                }
                self.neighbours.note_greeting(sessions.greeting);
            }
            Word::Silent => self.neighbours.set_silent(instance, true),
            Word::Back => self.neighbours.set_silent(instance, false),
            Word::Left => {
                sessions.end(&instance);
                self.beacons.machine().handle_gone(instance);
                if let Some((neighbour, was_silent)) = self.neighbours.remove(instance) {
                    self.membership.forget(&neighbour.peer);
                    self.tell(Event::NeighbourGone {
                        user: neighbour.user,
                        key: neighbour.peer,
                        has_left: !was_silent,
                    });
                }
            }
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}

impl Sessions {
    fn end(&mut self, instance: &Instance) {
        if let Some(token) = self.open.remove(instance) {
            token.cancel();
        }
    }
}

/// Asks the tracker of somebody who that is.
async fn introduce(control: Control, instance: Instance) -> Option<Neighbour> {
    let entries = listing::peers_at(&control).await.ok()?;
    let peer = control.tracker();
    let own = entries.into_iter().find(|entry| entry.peer == peer)?;
    Some(Neighbour {
        user: own.user,
        peer,
        control,
        port: own.addresses.first()?.port(),
        instance,
    })
}
