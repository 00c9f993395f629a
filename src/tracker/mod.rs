//! The tracker: its loop feeds endpoint and service from one UDP socket.
//!
//! It never waits for anything but its socket, its deadlines and new handshakes, and after it did not run
//! for a while it reads its socket empty before it counts anybody as silent.

mod accept;
pub mod credentials;
pub mod desk;
pub mod exposition;
pub mod hashing;
pub mod index;
pub mod logins;
pub mod metrics;
pub mod notices;
pub mod reach;
pub mod registry;
pub mod reload;
pub mod scrape;
pub mod service;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::accept::{Admit, Lobby, accept_all};
use self::credentials::{Credentials, CredentialsError, Users};
use self::hashing::{Outcome, Pool};
use self::logins::{Logins, Ruling};
use self::metrics::{Counters, Metrics, SAMPLE_EVERY, Shaken};
use self::reach::{interfaces, loopback_like};
use self::reload::Watched;
use self::scrape::Scrape;
use self::service::{Moment, Service};
use crate::crypto::kdf::Group;
use crate::crypto::random::OsRandom;
use crate::crypto::ticket::{TicketContent, TicketOffice};
use crate::keyfile::{self, KeyFileError};
use crate::net::{bind_udp, listen_tcp, unix_ms};
use crate::proto::endpoint::{Caller, Endpoint, Event};
use crate::proto::session::Rhythm;
use crate::wire::MAX_DATAGRAM_LEN;
use crate::wire::control::{Refusal, Request, Response};
use crate::wire::id::{PeerId, RequestId};

/// Room for datagrams that come while the tracker is busy.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Datagrams read before the others have their turn.
const BATCH: usize = 256;
/// A steady flood shall not stop the sweeps; they count themselves, so that being late ages nobody.
const OVERDUE: Duration = Duration::from_secs(1);
/// Time between two looks at numbers that nobody adds up as they change.
const COUNT_EVERY: Duration = Duration::from_millis(500);
/// Time between two lines about how the tracker does.
const SUMMARY_EVERY: Duration = Duration::from_secs(600);
/// Handshakes that may wait for the loop.
const ADMIT_QUEUE: usize = 256;
/// Outcomes of password checks that may wait for the loop; more than are under way there never are.
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
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a peer is hidden.
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
    office: TicketOffice,
    listener: TcpListener,
    socket: UdpSocket,
    port: u16,
    doorman: Option<Doorman>,
    metrics: Arc<Metrics>,
    scrape: Option<Scrape>,
}

/// What logs users in, before the loop runs.
struct Doorman {
    logins: Logins,
    outcomes: mpsc::Receiver<Outcome>,
    watched: Watched,
}

impl Doorman {
    /// Reads the users; tickets of `office` are good for them alone from now on.
    fn new(
        path: PathBuf,
        office: &mut TicketOffice,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, TrackerError> {
        let watched = Watched::new(path.clone());
        let (users, skipped) = credentials::read(&path)?;
        credentials::report(&path, &skipped);
        info!(users = users.len(), "logins need a password");
        let credentials = Arc::new(Credentials::new(users));
        office.ask_for_passwords(credentials.clone());
        let (sender, outcomes) = mpsc::channel(OUTCOME_QUEUE);
        let pool = Pool::start(&sender, metrics).map_err(TrackerError::Threads)?;
        let logins = Logins::new(credentials, office.clone(), pool, Arc::clone(metrics));
        Ok(Self {
            logins,
            outcomes,
            watched,
        })
    }
}

impl Tracker {
    /// Reads the keys and opens both ports.
    ///
    /// # Errors
    /// When either fails.
    pub fn bind(settings: Settings, group: Group) -> Result<Self, TrackerError> {
        let random = &mut OsRandom::new();
        let identity = keyfile::identity(&settings.state_dir, random)?;
        let seed = keyfile::tracker_seed(&settings.state_dir, random)?;
        let (listener, socket, port) =
            open_ports(settings.bind, settings.port).map_err(|error| TrackerError::Port {
                port: settings.port,
                reason: explain(&error),
            })?;
        // The kernel counts its own overhead as well: it grants twice what may be used.
        let granted = SockRef::from(&socket).recv_buffer_size().unwrap_or(0) / 2;
        if granted < RECEIVE_BUFFER {
            info!(
                granted,
                wanted = RECEIVE_BUFFER,
                "the UDP receive buffer is small; for thousands of peers: sysctl -w net.core.rmem_max={RECEIVE_BUFFER}"
            );
        }
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
        let mut lobby = Lobby::new(group, identity, member_key, rhythm, Arc::clone(&metrics));
        lobby.needs_password = doorman.is_some();
        Ok(Self {
            settings,
            lobby,
            office,
            listener,
            socket,
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
        let now = Instant::now();
        let random = Box::new(OsRandom::new());
        let rhythm = self.lobby.rhythm;
        let (admit, admissions) = mpsc::channel(ADMIT_QUEUE);
        let lobby = Arc::new(self.lobby);
        let accepting = accept_all(self.listener, Arc::clone(&lobby), admit, shutdown.clone());
        let accepting = tokio::spawn(accepting);
        let mut service = Service::new(self.settings.max_peers, rhythm, interfaces());
        let (changed, users) = mpsc::channel(1);
        let (logins, outcomes) = match self.doorman {
            Some(doorman) => {
                service.leave_names_to_passwords();
                tokio::spawn(doorman.watched.run(changed, shutdown.clone()));
                (Some(doorman.logins), doorman.outcomes)
            }
            None => (None, mpsc::channel(1).1),
        };
        if let Some(scrape) = self.scrape {
            let address = scrape.address();
            if !address.ip().is_loopback() {
                warn!(%address, "metrics can be read by everybody who reaches this address");
            }
            tokio::spawn(scrape.run(Arc::clone(&self.metrics), shutdown.clone()));
        }
        tokio::spawn(tell(Arc::clone(&self.metrics), lobby, shutdown.clone()));
        let serving = Loop {
            endpoint: Endpoint::new(now, self.office, rhythm.silence, random),
            service,
            logins,
            outcomes,
            users,
            socket: self.socket,
            buffer: vec![0; 2 * MAX_DATAGRAM_LEN],
            counters: self.metrics.counters(),
            next_count: now,
            answering: Vec::new(),
        };
        serving.run(admissions, shutdown).await;
        let _ = accepting.await;
    }
}

struct Loop {
    endpoint: Endpoint,
    service: Service,
    logins: Option<Logins>,
    outcomes: mpsc::Receiver<Outcome>,
    users: mpsc::Receiver<Users>,
    socket: UdpSocket,
    buffer: Vec<u8>,
    counters: Counters,
    next_count: Instant,
    /// When the requests came whose answers have not been sent yet.
    answering: Vec<Instant>,
}

impl Loop {
    async fn run(mut self, mut admissions: mpsc::Receiver<Admit>, shutdown: CancellationToken) {
        loop {
            let deadline = self.endpoint.poll_timeout();
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some((admission, reply)) = admissions.recv() => {
                    let _ = reply.send(self.endpoint.admit(Instant::now(), admission));
                }
                Some(outcome) = self.outcomes.recv() => self.finish_login(outcome),
                Some(users) = self.users.recv() => self.replace_users(users),
                ready = self.socket.readable() => {
                    if let Err(error) = ready {
                        warn!(%error, "the UDP socket fails");
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            let is_drained = self.receive();
            // Before anybody counts as silent, everything that has come must be heard.
            let is_overdue = Instant::now() > deadline + OVERDUE;
            if is_drained || is_overdue {
                let now = Instant::now();
                self.endpoint.handle_timeout(now);
                self.handle_events(now);
                if now >= self.next_count {
                    self.count(now);
                }
            }
            self.transmit().await;
        }
    }

    /// Reads what has come; `false` when there may be more.
    fn receive(&mut self) -> bool {
        for _ in 0..BATCH {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((len, from)) => {
                    let now = Instant::now();
                    self.counters.received(len);
                    let datagram = &mut self.buffer[..len];
                    let service = &self.service;
                    let may_return = |ticket: &TicketContent| service.may_return(ticket);
                    self.endpoint
                        .handle_datagram(now, unix_ms(), from, datagram, &may_return);
                    self.handle_events(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // Word of an earlier datagram that did not arrive: nothing to do.
                Err(_) => {}
            }
        }
        false
    }

    /// For whoever asks; in between these stand still.
    fn count(&mut self, now: Instant) {
        self.next_count = now + COUNT_EVERY;
        let registry = self.service.registry();
        let (names, files) = (registry.name_count(), registry.file_count());
        self.counters
            .population(registry.peer_count(), names, files);
        self.counters.tally(self.endpoint.take_tally());
        self.counters.turned(now, self.endpoint.census());
    }

    /// `now`: when the datagram came that they are about.
    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request(caller, id, request) => {
                    self.counters.request(&request);
                    self.answering.push(now);
                    self.handle_request(&caller, id, request);
                }
                Event::Shown(caller) => {
                    let (now, unix_ms) = (Instant::now(), unix_ms());
                    let mut logins = self.logins.as_mut();
                    if !logins
                        .as_mut()
                        .is_none_or(|logins| logins.may_show(now, unix_ms, &caller))
                    {
                        debug!("a session cannot come back: its ticket is void by now");
                    } else if let Err(refusal) = self.service.show(Instant::now(), &caller) {
                        debug!(?refusal, "a session cannot come back");
                        self.endpoint.end(caller.session);
                    }
                }
                Event::Hidden(peer) => self.service.hide(peer),
                Event::Ended(peer) => {
                    self.service.end(peer);
                    if let Some(logins) = &mut self.logins {
                        logins.forget(&peer);
                    }
                }
            }
        }
    }

    fn handle_request(&mut self, caller: &Caller, id: RequestId, request: Request) {
        let (now, unix_ms) = (Instant::now(), unix_ms());
        let is_leaving = request == Request::Leave;
        let ruling = match &mut self.logins {
            Some(logins) => logins.receive(now, unix_ms, caller, id, request),
            None => Ruling::Pass(request, None),
        };
        let response = match ruling {
            Ruling::Answer(response) => response,
            Ruling::Pass(request, credential_mark) => {
                let user = match &request {
                    Request::Login(login) => Some(login.user.clone()),
                    _ => None,
                };
                let (office, random, resume) = self.endpoint.login_tools(caller.session);
                let moment = Moment {
                    now,
                    unix_ms,
                    office,
                    random,
                    resume,
                    credential_mark,
                };
                let is_search = matches!(request, Request::Search(_));
                let response = self.service.answer(moment, caller, request);
                if is_search {
                    self.counters.searched(now.elapsed());
                }
                if let (Response::LoggedIn(_), Some(user), Some(logins)) =
                    (&response, user, &mut self.logins)
                {
                    logins.note_login(now, caller, &user);
                }
                response
            }
        };
        if let Response::Refused(refusal) = &response {
            self.counters.refusal(refusal);
        }
        self.endpoint.respond(caller.session, id, &response);
        if is_leaving {
            self.endpoint.end(caller.session);
        }
    }

    fn finish_login(&mut self, outcome: Outcome) {
        let logins = self.logins.as_mut();
        let told = logins.and_then(|logins| logins.finish(Instant::now(), outcome));
        if let Some((session, request, response)) = told {
            self.endpoint.push(session, request, &response);
        }
    }

    fn replace_users(&mut self, users: Users) {
        let Some(logins) = &mut self.logins else {
            return;
        };
        for (peer, session) in logins.replace(Instant::now(), users) {
            self.service.end(peer);
            let void = Response::Refused(Refusal::LoginVoid);
            self.endpoint.push(session, RequestId(0), &void);
        }
    }

    async fn transmit(&mut self) {
        while let Some((to, datagram)) = self.endpoint.poll_transmit() {
            match self.socket.try_send_to(&datagram, to) {
                Ok(len) => self.counters.sent(len),
                // A full send buffer drops the answer, and the peer asks again.
                Err(error) => {
                    self.counters
                        .not_sent(error.kind() == io::ErrorKind::WouldBlock);
                    tokio::task::yield_now().await;
                }
            }
        }
        if !self.answering.is_empty() {
            let now = Instant::now();
            for came in self.answering.drain(..) {
                self.counters.answered(now.saturating_duration_since(came));
            }
        }
    }
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
            notice.log();
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

/// TCP first: it is the lock that makes a second tracker on the port fail.
fn open_ports(bind: Option<IpAddr>, port: u16) -> io::Result<(TcpListener, UdpSocket, u16)> {
    let mut tries = 0;
    loop {
        let listener = listen_tcp(bind, port)?;
        let chosen = listener.local_addr()?.port();
        tries += 1;
        match bind_udp(bind, chosen, RECEIVE_BUFFER) {
            Ok(socket) => return Ok((listener, socket, chosen)),
            Err(error) if port != 0 || tries == PORT_TRIES => return Err(error),
            Err(_) => {}
        }
    }
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
