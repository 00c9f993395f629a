//! The tracker: opens its ports, and runs workers, clerks and the sweep over one engine.

mod accept;
mod catalog;
mod clerk;
pub mod credentials;
pub mod desk;
pub mod engine;
pub mod exposition;
mod failures;
pub mod hashing;
pub mod index;
pub mod labels;
pub mod logins;
pub mod metrics;
pub mod notices;
mod overflow;
mod pages;
mod parcels;
pub mod reach;
pub mod registry;
pub mod reload;
mod reserved;
mod roster;
pub mod scrape;
pub mod service;
mod sets;
mod small;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::accept::{Lobby, accept_all};
use self::clerk::Clerks;
use self::credentials::{Credentials, CredentialsError, Users};
use self::engine::{Engine, Job, Scratch};
use self::hashing::{Outcome, Pool};
use self::labels::Shaken;
use self::logins::Logins;
use self::metrics::{Counters, Metrics, SAMPLE_EVERY};
use self::overflow::Overflow;
use self::reach::{interfaces, interfaces_and_links, loopback_like};
use self::reload::Watched;
use self::scrape::Scrape;
use self::service::Service;
use self::worker::{Rounds, Worker};
use crate::crypto::identity::Identity;
use crate::crypto::kdf::{Group, TrackerSeed};
use crate::crypto::random::OsRandom;
use crate::crypto::ticket::TicketOffice;
use crate::keyfile::{self, KeyFileError};
use crate::net::{CAN_SPREAD, Sharing, bind_udp, granted_buffer_bytes, listen_tcp, unix_ms};
use crate::proto::endpoint::{Endpoint, SWEEP};
use crate::proto::session::Rhythm;
use crate::wire::id::PeerId;

/// Room for datagrams that come while the tracker is busy.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Most workers.
pub const MAX_WORKERS: usize = 16;
/// Time between two lines about how the tracker does.
const SUMMARY_EVERY: Duration = Duration::from_secs(600);
/// Sweeps between two looks at what the system dropped.
const OVERFLOW_EVERY: u32 = 4;
/// Outcomes of password checks that may wait for a clerk; more than are under way there never are.
const OUTCOME_QUEUE: usize = 256;
/// Tries to find one port number that is free for TCP and UDP, when any will do.
const PORT_TRIES: usize = 16;

/// How a tracker runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on; all, IPv6 and IPv4, when absent.
    pub bind: Option<IpAddr>,
    /// TCP and UDP port; 0 for any.
    pub port: u16,
    /// Threads that answer datagrams, each with a socket of its own; as many as there are cores, up to
    /// sixteen, when absent.
    pub workers: Option<usize>,
    /// Time between heartbeats, while peers are few.
    pub heartbeat: Duration,
    /// Silence after which a peer is hidden, while peers are few.
    pub silence: Duration,
    /// Most peers at the same time.
    pub max_peers: usize,
    /// Where identity and seed lie.
    pub state_dir: PathBuf,
    /// The file of users; without one a name is whoever's comes first.
    pub credentials: Option<PathBuf>,
    /// Where its numbers can be read over HTTP; nowhere when absent.
    pub metrics: Option<SocketAddr>,
}

impl Settings {
    fn workers(&self) -> usize {
        if !CAN_SPREAD {
            return 1;
        }
        let cores = || thread::available_parallelism().map_or(1, NonZero::get);
        let workers = self.workers.unwrap_or_else(cores);
        workers.clamp(1, MAX_WORKERS)
    }
}

/// Why a tracker does not start.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// Its port cannot be had.
    #[error("port {port}: {reason}")]
    Port {
        /// Which.
        port: u16,
        /// Why, and what to do.
        reason: String,
    },
    /// The address for metrics cannot be had.
    #[error("metrics on {address}: {reason}")]
    Metrics {
        /// Which.
        address: SocketAddr,
        /// Why, and what to do.
        reason: String,
    },
    /// Its keys cannot be had.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// Its users cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No threads to check passwords with.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
}

/// A tracker that listens, but does not answer yet.
pub struct Tracker {
    settings: Settings,
    lobby: Lobby,
    engine: Arc<Engine>,
    listener: TcpListener,
    sockets: Vec<UdpSocket>,
    port: u16,
    doorman: Option<Doorman>,
    metrics: Arc<Metrics>,
    scrape: Option<Scrape>,
}

/// What is its own for good, or for as long as it runs.
struct Keys {
    identity: Identity,
    seed: TrackerSeed,
}

/// What tells the logins of checked passwords and changed users.
struct Doorman {
    outcomes: mpsc::Receiver<Outcome>,
    watched: Watched,
}

impl Doorman {
    /// Reads the users; tickets of `office` are good for them alone from now on.
    fn new(
        path: PathBuf,
        office: &mut TicketOffice,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, Logins), TrackerError> {
        let watched = Watched::new(path.clone());
        let (users, skipped) = credentials::read(&path)?;
        credentials::report(&path, &skipped);
        info!(users = users.len(), "logins need a password");
        let credentials = Arc::new(Credentials::new(users));
        office.ask_for_passwords(credentials.clone());
        let (sender, outcomes) = mpsc::channel(OUTCOME_QUEUE);
        let pool = Pool::start(&sender, metrics).map_err(TrackerError::Threads)?;
        let logins = Logins::new(credentials, office.clone(), pool, Arc::clone(metrics));
        Ok((Self { outcomes, watched }, logins))
    }
}

impl Tracker {
    /// Reads the keys and opens both ports.
    ///
    /// # Errors
    /// When either fails.
    pub fn bind(settings: Settings, group: Group) -> Result<Self, TrackerError> {
        let random = &mut OsRandom::new();
        let keys = Keys {
            identity: keyfile::identity(&settings.state_dir, random)?,
            seed: keyfile::tracker_seed(&settings.state_dir, random)?,
        };
        Self::open(settings, group, keys, None)
    }

    /// Opens both ports; with an `owner` nobody else publishes here.
    fn open(
        settings: Settings,
        group: Group,
        keys: Keys,
        owner: Option<PeerId>,
    ) -> Result<Self, TrackerError> {
        let Keys { identity, seed } = keys;
        let random = &mut OsRandom::new();
        let (listener, sockets, port) =
            open_ports(&settings).map_err(|error| TrackerError::Port {
                port: settings.port,
                reason: explain(&error),
            })?;
        let scrape = settings.metrics.map(|address| {
            Scrape::bind(address).map_err(|error| TrackerError::Metrics {
                address,
                reason: error.to_string(),
            })
        });
        let scrape = scrape.transpose()?;
        let rhythm = Rhythm::new(settings.heartbeat, settings.silence);
        let (mut office, member_key) = (TicketOffice::new(&group, &seed), group.member_key(&seed));
        let metrics = Arc::new(Metrics::new(Instant::now(), rhythm.interval));
        let path = settings.credentials.clone();
        let doorman = path
            .map(|path| Doorman::new(path, &mut office, &metrics))
            .transpose()?;
        let (doorman, logins) = doorman.unzip();
        let mut lobby = Lobby::new(group, identity, member_key, Arc::clone(&metrics));
        lobby.needs_password = doorman.is_some();
        lobby.is_watched = owner.is_none();
        let endpoint = Endpoint::new(office, rhythm, sockets.len(), random);
        let mut service = Service::new(settings.max_peers, interfaces_and_links());
        service.set_owner(owner);
        Ok(Self {
            settings,
            lobby,
            engine: Arc::new(Engine::new(endpoint, service, logins)),
            listener,
            sockets,
            port,
            doorman,
            metrics,
            scrape,
        })
    }

    /// What it counts.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Where its numbers can be read.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.scrape.as_ref().map(Scrape::address)
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its long-term key.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.lobby.identity.id()
    }

    /// Addresses under which others may reach it, the likeliest first; loopback when there is no other.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.settings.bind {
            Some(ip) if !ip.is_unspecified() => vec![ip],
            bound => {
                let mut ips: Vec<_> = interfaces().iter().map(|interface| interface.ip).collect();
                if ips.is_empty() {
                    ips.push(loopback_like(bound.unwrap_or(IpAddr::from([0, 0, 0, 0]))));
                }
                ips
            }
        }
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            lobby,
            engine,
            listener,
            sockets,
            ..
        } = self;
        let lobby = Arc::new(lobby);
        let clerks = Arc::new(Clerks::new(sockets.len()));
        let accepting = accept_all(
            listener,
            Arc::clone(&lobby),
            Arc::clone(&engine),
            shutdown.clone(),
        );
        let accepting = tokio::spawn(accepting);
        if let Some(doorman) = self.doorman {
            let (changed, users) = mpsc::channel(1);
            tokio::spawn(doorman.watched.run(changed, shutdown.clone()));
            let clerks = Arc::clone(&clerks);
            tokio::spawn(hand_over_logins(doorman.outcomes, users, clerks));
        }
        if let Some(scrape) = self.scrape {
            let address = scrape.address();
            if !address.ip().is_loopback() {
                warn!(%address, "metrics can be read by everybody who reaches this address");
            }
            tokio::spawn(scrape.run(Arc::clone(&self.metrics), shutdown.clone()));
        }
        tokio::spawn(tell(Arc::clone(&self.metrics), lobby, shutdown.clone()));
        let metrics = self.metrics;
        let serving = tokio::task::spawn_blocking(move || {
            serve(&engine, &clerks, sockets, &metrics, &shutdown)
        });
        let _ = accepting.await;
        if let Ok(Err(error)) = serving.await {
            error!(%error, "the tracker cannot serve");
        }
    }
}

/// Checked passwords and changed users are work for clerks.
async fn hand_over_logins(
    mut outcomes: mpsc::Receiver<Outcome>,
    mut users: mpsc::Receiver<Users>,
    clerks: Arc<Clerks>,
) {
    loop {
        let job = tokio::select! {
            Some(outcome) = outcomes.recv() => Job::Checked(outcome),
            Some(users) = users.recv() => Job::Replace(users),
            else => return,
        };
        // Such jobs are always taken.
        let _ = clerks.hand_over(job);
    }
}

/// Runs workers, clerks and the sweep, each in a thread of its own, until `shutdown`.
fn serve(
    engine: &Arc<Engine>,
    clerks: &Arc<Clerks>,
    sockets: Vec<UdpSocket>,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let rounds = Arc::new(Rounds::new(sockets.len(), thread::current()));
    let overflow = Overflow::of(&sockets);
    let voices = (0..clerks.count()).map(|_| sockets[0].try_clone());
    let voices: Vec<_> = voices.collect::<Result<_, _>>()?;
    thread::scope(|scope| {
        for (number, socket) in voices.into_iter().enumerate() {
            let (clerks, counters) = (Arc::clone(clerks), metrics.counters());
            scope.spawn(move || clerks.work(number, engine, socket, counters));
        }
        for (number, socket) in sockets.into_iter().enumerate() {
            let worker = Worker {
                number,
                engine: Arc::clone(engine),
                clerks: Arc::clone(clerks),
                rounds: Arc::clone(&rounds),
                socket,
                counters: metrics.counters(),
            };
            scope.spawn(move || {
                if let Err(error) = worker.run(shutdown) {
                    error!(%error, "a worker cannot run");
                    shutdown.cancel();
                }
            });
        }
        let counters = metrics.counters();
        let mut sweeps = 0_u32;
        sweep(engine, &rounds, shutdown, || {
            take_stock(engine, metrics, &counters);
            if sweeps.is_multiple_of(OVERFLOW_EVERY) {
                counters.overflowed(overflow.count());
            }
            sweeps = sweeps.wrapping_add(1);
        });
        if engine.service().has_owner() {
            // It does not come back: whoever is here shall not wait for it.
            let _ = clerks.hand_over(Job::Farewell);
        }
        clerks.close();
    });
    Ok(())
}

/// A tick passes when all workers have read their sockets empty: before anybody counts as silent,
/// everything that has come must be heard. However late this is, it is one tick.
fn sweep(
    engine: &Engine,
    rounds: &Rounds,
    shutdown: &CancellationToken,
    mut and_then: impl FnMut(),
) {
    let mut scratch = Scratch::default();
    let mut swept = rounds.complete();
    while !shutdown.is_cancelled() {
        thread::park_timeout(SWEEP);
        let complete = rounds.complete();
        if complete != swept {
            swept = complete;
            engine.sweep((Instant::now(), unix_ms()), &mut scratch);
        }
        and_then();
    }
}

/// What is here now, for the metrics.
fn take_stock(engine: &Engine, metrics: &Metrics, counters: &Counters) {
    let registry = engine.service().registry();
    let (names, files) = (registry.name_count(), registry.file_count());
    counters.population(registry.peer_count(), names, files);
    counters.turned(Instant::now(), engine.endpoint().census());
    metrics.set_heartbeat(engine.endpoint().rhythm().interval);
}

/// What is told from time to time, until `shutdown`.
async fn tell(metrics: Arc<Metrics>, lobby: Arc<Lobby>, shutdown: CancellationToken) {
    let mut next_summary = Instant::now() + SUMMARY_EVERY;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
        let now = Instant::now();
        metrics.sample(now);
        for notice in lobby.notices.sum(now) {
            notice.log(lobby.is_watched);
        }
        if now >= next_summary {
            next_summary = now + SUMMARY_EVERY;
            let numbers = metrics.numbers();
            let (requests, drops) = (numbers.all_requests(), numbers.all_drops());
            let rate = metrics.requests_per_second(now).round();
            let wrong = metrics.handshakes(Shaken::WrongPassphrase);
            info!(
                peers = numbers.peers,
                files = numbers.files,
                requests,
                a_second = rate,
                drops,
                wrong_passphrases = wrong,
                "the tracker runs"
            );
        }
    }
}

/// TCP first: it is the lock that makes a second tracker on the port fail, which the shared UDP port would
/// not.
fn open_ports(settings: &Settings) -> io::Result<(TcpListener, Vec<UdpSocket>, u16)> {
    let Settings { bind, port, .. } = *settings;
    let mut tries = 0;
    loop {
        let listener = listen_tcp(bind, port)?;
        let chosen = listener.local_addr()?.port();
        tries += 1;
        match open_sockets(bind, chosen, settings.workers()) {
            Ok(sockets) => return Ok((listener, sockets, chosen)),
            Err(error) if port != 0 || tries == PORT_TRIES => return Err(error),
            Err(_) => {}
        }
    }
}

fn open_sockets(bind: Option<IpAddr>, port: u16, workers: usize) -> io::Result<Vec<UdpSocket>> {
    // Alone at first: whoever else has the port, shared or not, makes this fail.
    drop(bind_udp(bind, port, RECEIVE_BUFFER, Sharing::Alone)?);
    let sharing = if workers > 1 {
        Sharing::Spread
    } else {
        Sharing::Alone
    };
    let mut sockets = Vec::with_capacity(workers);
    for number in 0..workers {
        let socket = bind_udp(bind, port, RECEIVE_BUFFER, sharing)?;
        let granted = granted_buffer_bytes(&socket);
        if number == 0 && granted < RECEIVE_BUFFER {
            info!(
                granted,
                wanted = RECEIVE_BUFFER,
                "the UDP receive buffer is small; for thousands of peers: sysctl -w net.core.rmem_max={RECEIVE_BUFFER}"
            );
        }
        sockets.push(socket.into());
    }
    Ok(sockets)
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "it is in use: choose another with --port".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right of their own: choose another with --port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address of --bind".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
