//! A tracker and its peers on a network that loses, delays, doubles and cuts, with time of its own.
//!
//! The machines are the real ones, with real keys; sockets, clock and randomness are made here from a
//! seed. A seed that fails is printed; `P2PFS_SEEDS=1000` tries as many.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]
#![expect(
    clippy::print_stdout,
    reason = "the seed of a failure is shown with it"
)]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{LazyLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use p2pfs::crypto::envelope::DatagramKeys;
use p2pfs::crypto::kdf::{Group, NetworkName, TrackerSeed};
use p2pfs::crypto::random::{Random, random_bytes};
use p2pfs::crypto::secret::{Passphrase, Secret};
use p2pfs::crypto::ticket::TicketOffice;
use p2pfs::proto::announce::Announce;
use p2pfs::proto::attachment::{Attachment, DialFailure, Established, Event};
use p2pfs::proto::endpoint::{Admission, Endpoint, SWEEP};
use p2pfs::proto::session::Rhythm;
use p2pfs::tracker::engine::{Busy, Engine, Job, Outlet, Scratch, Spot};
use p2pfs::tracker::registry::{Place, Registry};
use p2pfs::tracker::service::Service;
use p2pfs::wire::control::{
    Audience, Cursor, Files, Publication, PublicationKind, Request, Response, Search,
};
use p2pfs::wire::id::{ContentId, PeerId};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const UNIX_MS: u64 = 1_790_000_000_000;
/// Time for a handshake over TCP: more round trips than RESUME needs.
const DIAL: Duration = Duration::from_millis(150);
const FILES: u8 = 15;

static GROUP: LazyLock<Group> = LazyLock::new(|| {
    Group::derive(
        &Passphrase::parse("a passphrase for simulations").unwrap(),
        NetworkName::default(),
    )
});

struct Seeded(StdRng);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// What the network does to a datagram.
#[derive(Clone, Copy)]
struct Weather {
    loss: f64,
    double: f64,
    delay_ms: (u64, u64),
}

const FINE: Weather = Weather {
    loss: 0.0,
    double: 0.0,
    delay_ms: (1, 2),
};

enum What {
    ToTracker {
        from: usize,
        bytes: Vec<u8>,
    },
    ToPeer {
        to: usize,
        bytes: Vec<u8>,
    },
    /// A dial that found the tracker's port open, or closed, is over.
    Dialed {
        peer: usize,
        was_open: bool,
    },
}

struct Peer {
    attachment: Attachment,
    announce: Announce,
    announcing: usize,
    next_search: Instant,
    answered: u32,
    failed: u32,
    /// Those that led to a login.
    handshakes: u32,
}

struct Tracker {
    engine: Engine,
    random: Seeded,
    scratch: Scratch,
    next_sweep: Instant,
}

/// What the tracker sent, and what it left for later.
#[derive(Default)]
struct Post {
    sent: Vec<(SocketAddr, Vec<u8>)>,
    jobs: VecDeque<Job>,
}

impl Outlet for Post {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.sent.push((to, datagram.to_vec()));
    }

    fn hand_over(&mut self, job: Job) -> Result<(), Busy> {
        self.jobs.push_back(job);
        Ok(())
    }
}

impl Tracker {
    /// One datagram, to the last job that comes of it.
    fn hear(
        &mut self,
        times: (Instant, u64),
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut post = Post::default();
        let mut spots = [Spot::new(0, datagram.len(), from)];
        let Self {
            engine,
            random,
            scratch,
            ..
        } = self;
        engine.handle(times.0, datagram, &mut spots, scratch, &mut post);
        while let Some(job) = post.jobs.pop_front() {
            engine.work(times, job, random, scratch, &mut post);
        }
        post.sent
    }

    fn sweep(&mut self, now: Instant) {
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.engine.sweep((now, UNIX_MS), &mut self.scratch);
        }
    }

    fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.engine.service().registry()
    }
}

struct World {
    seed: u64,
    random: StdRng,
    start: Instant,
    now: Instant,
    weather: Weather,
    is_cut: bool,
    tracker: Option<Tracker>,
    /// A tracker that is stopped gets its datagrams later.
    is_stopped: bool,
    peers: Vec<Peer>,
    queue: BTreeMap<(Instant, u64), What>,
    next: u64,
    hidden: u32,
    log: Vec<String>,
}

fn rhythm() -> Rhythm {
    Rhythm::new(2 * SECOND, 3 * SECOND)
}

fn address(peer: usize) -> SocketAddr {
    let last = u8::try_from(peer).unwrap() + 1;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), 7000)
}

fn peer_of(address: SocketAddr) -> usize {
    let IpAddr::V4(ip) = address.ip() else {
        panic!("only IPv4 here")
    };
    usize::from(ip.octets()[3]) - 1
}

fn id(peer: usize) -> PeerId {
    PeerId([u8::try_from(peer).unwrap(); 32])
}

fn file(peer: usize, number: u8) -> Publication {
    // Zeros are no id.
    let mut content = [u8::try_from(peer).unwrap() + 1; 32];
    content[0] = number;
    Publication {
        name: format!("file {peer} {number}").parse().unwrap(),
        content: ContentId(content),
        len: u64::from(number),
        kind: PublicationKind::File,
    }
}

impl World {
    fn new(seed: u64, peers: usize, weather: Weather) -> Self {
        let start = Instant::now();
        let mut world = Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            start,
            now: start,
            weather,
            is_cut: false,
            tracker: None,
            is_stopped: false,
            peers: Vec::new(),
            queue: BTreeMap::new(),
            next: 0,
            hidden: 0,
            log: Vec::new(),
        };
        world.start_tracker();
        for number in 0..peers {
            world.add_peer(number);
        }
        world
    }

    fn seeded(&mut self) -> Seeded {
        Seeded(StdRng::seed_from_u64(self.random.next_u64()))
    }

    fn start_tracker(&mut self) {
        let office = TicketOffice::new(&GROUP, &TrackerSeed(Secret::new([7; 32])));
        let mut random = self.seeded();
        let endpoint = Endpoint::new(office, rhythm(), 1, &mut random);
        self.tracker = Some(Tracker {
            engine: Engine::new(endpoint, Service::new(1000, Vec::new()), None),
            random,
            scratch: Scratch::default(),
            next_sweep: self.now + SWEEP,
        });
    }

    /// What a handshake leaves on both sides; `None` when there is no tracker to shake hands with.
    fn shake_hands(&mut self, peer: usize) -> Option<Established> {
        let mut random = self.seeded();
        let [up, down, resume] = [0; 3].map(|_| Secret::new(random_bytes::<32>(&mut random)));
        let tracker = self
            .tracker
            .as_mut()
            .filter(|_| !self.is_cut && !self.is_stopped)?;
        let admission = Admission {
            peer: id(peer),
            keys: DatagramKeys {
                send: down.clone(),
                receive: up.clone(),
            },
            resume: resume.clone(),
            ip: address(peer).ip(),
            listening_port: Some(8001),
        };
        let session = tracker.engine.admit(admission, &mut tracker.random)?;
        let keys = DatagramKeys {
            send: up,
            receive: down,
        };
        Some(Established {
            session,
            keys,
            resume,
            rhythm: rhythm(),
            tracker_unix_ms: self.unix_ms(),
        })
    }

    fn unix_ms(&self) -> u64 {
        UNIX_MS + u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    fn add_peer(&mut self, number: usize) {
        let established = self.shake_hands(number).unwrap();
        let user = format!("peer{number}").parse().unwrap();
        let random = Box::new(self.seeded());
        let mut peer = Peer {
            attachment: Attachment::new(self.now, established, user, 8001, random),
            announce: Announce::default(),
            announcing: 0,
            next_search: self.now + SECOND,
            answered: 0,
            failed: 0,
            handshakes: 0,
        };
        for request in
            (0..FILES).filter_map(|n| peer.announce.publish(file(number, n), Audience::EVERYBODY))
        {
            peer.attachment.request(self.now, request).unwrap();
            peer.announcing += 1;
        }
        self.peers.push(peer);
    }

    /// Lets `span` pass.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    fn step(&mut self, end: Instant) -> bool {
        let mut at = end;
        if let Some(((first, _), _)) = self.queue.first_key_value() {
            at = at.min(*first);
        }
        if let Some(tracker) = self.tracker.as_ref().filter(|_| !self.is_stopped) {
            at = at.min(tracker.next_sweep);
        }
        for peer in &self.peers {
            at = at
                .min(peer.attachment.poll_timeout(self.now))
                .min(peer.next_search);
        }
        self.now = at.max(self.now);
        if at >= end {
            return false;
        }
        while let Some(entry) = self
            .queue
            .first_entry()
            .filter(|entry| entry.key().0 <= self.now)
        {
            let what = entry.remove();
            self.deliver(what);
        }
        if !self.is_stopped {
            self.sweep();
        }
        for number in 0..self.peers.len() {
            self.run_peer(number);
        }
        true
    }

    fn deliver(&mut self, what: What) {
        match what {
            What::ToTracker { from, mut bytes } => {
                if self.is_stopped {
                    // It lies in the socket until the tracker goes on.
                    self.enqueue(100 * MS, What::ToTracker { from, bytes });
                    return;
                }
                let (now, unix_ms) = (self.now, self.unix_ms());
                let Some(tracker) = &mut self.tracker else {
                    return;
                };
                for (to, bytes) in tracker.hear((now, unix_ms), address(from), &mut bytes) {
                    let to = peer_of(to);
                    self.send(What::ToPeer { to, bytes });
                }
            }
            What::ToPeer { to, mut bytes } => {
                let now = self.now;
                self.peers[to].attachment.handle_datagram(now, &mut bytes);
            }
            What::Dialed { peer, was_open } => {
                let established = if was_open {
                    self.shake_hands(peer)
                } else {
                    None
                };
                let now = self.now;
                let attachment = &mut self.peers[peer].attachment;
                match established {
                    Some(established) => attachment.attach(now, established),
                    None => attachment.dial_failed(now, DialFailure::Unreachable),
                }
            }
        }
    }

    fn sweep(&mut self) {
        let now = self.now;
        let Some(tracker) = &mut self.tracker else {
            return;
        };
        let before = tracker.registry().peer_count();
        tracker.sweep(now);
        self.hidden += before - tracker.registry().peer_count();
    }

    fn run_peer(&mut self, number: usize) {
        let now = self.now;
        let peer = &mut self.peers[number];
        if peer.next_search <= now {
            peer.next_search = now + 5 * SECOND;
            let term = format!("FILE {number} ");
            peer.attachment
                .request(
                    now,
                    Request::Search(Search {
                        term,
                        cursor: Cursor::default(),
                    }),
                )
                .unwrap();
        }
        peer.attachment.handle_timeout(now);
        let mut out = Vec::new();
        let mut needs_handshake = false;
        loop {
            let mut bytes = Vec::new();
            while peer.attachment.poll_transmit(now, &mut bytes) {
                out.push(What::ToTracker {
                    from: number,
                    bytes: std::mem::take(&mut bytes),
                });
            }
            let Some(event) = peer.attachment.poll_event() else {
                break;
            };
            match event {
                Event::Answered(_, request @ (Request::Publish(_) | Request::Unpublish(_)), _) => {
                    peer.announcing -= 1;
                    peer.announce.confirm(&request);
                }
                Event::Answered(_, _, response) => {
                    peer.answered += u32::from(matches!(*response, Response::Found(_)));
                }
                Event::Failed(_, Request::Publish(_) | Request::Unpublish(_)) => {
                    peer.announcing -= 1;
                }
                Event::Failed(..) => peer.failed += 1,
                Event::Acknowledged(ack) if peer.announcing == 0 && !peer.announce.agrees(&ack) => {
                    peer.announce.repeat();
                    while let Some(request) = peer.announce.poll_repeat() {
                        peer.attachment.request(now, request).unwrap();
                        peer.announcing += 1;
                    }
                }
                Event::NeedHandshake => needs_handshake = true,
                Event::LoginWaits => {}
                Event::LoggedOut(refusal) | Event::LoginRefused(refusal) => {
                    panic!("seed {}: {refusal:?}", self.seed)
                }
                Event::Lost | Event::Back => self
                    .log
                    .push(format!("{:?} {number} {event:?}", now - self.start)),
                Event::LoggedIn => peer.handshakes += 1,
                Event::Acknowledged(_) | Event::Began => {}
            }
        }
        if needs_handshake {
            let was_open = self.tracker.is_some() && !self.is_cut;
            self.enqueue(
                DIAL,
                What::Dialed {
                    peer: number,
                    was_open,
                },
            );
        }
        for what in out {
            self.send(what);
        }
    }

    fn send(&mut self, what: What) {
        let Weather {
            loss,
            double,
            delay_ms: (least, most),
        } = self.weather;
        if self.is_cut || self.random.random_bool(loss) {
            return;
        }
        if self.random.random_bool(double) {
            let copy = match &what {
                What::ToTracker { from, bytes } => What::ToTracker {
                    from: *from,
                    bytes: bytes.clone(),
                },
                What::ToPeer { to, bytes } => What::ToPeer {
                    to: *to,
                    bytes: bytes.clone(),
                },
                What::Dialed { .. } => return,
            };
            let delay = self.random.random_range(least..=most * 3);
            self.enqueue(Duration::from_millis(delay), copy);
        }
        let delay = self.random.random_range(least..=most);
        self.enqueue(Duration::from_millis(delay), what);
    }

    fn enqueue(&mut self, delay: Duration, what: What) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), what);
    }

    /// Files of `peer` that a search finds now.
    fn found(&self, peer: usize) -> usize {
        let Some(tracker) = &self.tracker else {
            return 0;
        };
        tracker
            .registry()
            .search(id(peer), &format!("file {peer} "), Place::START)
            .filter(Result::is_ok)
            .count()
    }

    fn everybody_is_there(&self) -> bool {
        (0..self.peers.len()).all(|peer| self.found(peer) == usize::from(FILES))
    }
}

fn for_seeds(least: u64, check: impl Fn(u64)) {
    let seeds = std::env::var("P2PFS_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(least);
    for seed in 0..seeds {
        // Shown only when the test fails: the seed to repeat it with is the last one.
        println!("seed {seed}");
        check(seed);
    }
}

/// Shows: row 25. Every fifth datagram lost both ways, 50 ms of round trip, twenty peers, ten minutes: no
/// file is missing from a search for longer than the silence limit, and no search fails.
#[test]
fn a_fifth_of_all_datagrams_may_be_lost() {
    for_seeds(4, |seed| {
        let weather = Weather {
            loss: 0.2,
            double: 0.0,
            delay_ms: (20, 30),
        };
        let mut world = World::new(seed, 20, weather);
        world.run(10 * SECOND);
        let mut missing_since = vec![None; world.peers.len()];
        for _ in 0..590 * 4 {
            world.run(SECOND / 4);
            for (peer, since) in missing_since.iter_mut().enumerate() {
                if world.found(peer) == usize::from(FILES) {
                    *since = None;
                } else {
                    let missing = world.now - *since.get_or_insert(world.now);
                    assert!(
                        missing <= 3 * SECOND,
                        "the files of peer {peer} are missing for {missing:?}"
                    );
                }
            }
        }
        let answered: u32 = world.peers.iter().map(|peer| peer.answered).sum();
        let failed: u32 = world.peers.iter().map(|peer| peer.failed).sum();
        assert_eq!(failed, 0, "failed searches");
        assert!(answered > 20 * 115, "{answered} answered searches");
        assert!(
            world.peers.iter().all(|peer| peer.handshakes == 1),
            "no session was lost"
        );
    });
}

#[test]
fn doubled_and_reordered_datagrams_change_nothing() {
    for_seeds(10, |seed| {
        let mut world = World::new(
            seed,
            5,
            Weather {
                loss: 0.1,
                double: 0.3,
                delay_ms: (1, 200),
            },
        );
        world.run(120 * SECOND);
        assert!(world.everybody_is_there());
        assert!(
            world
                .peers
                .iter()
                .all(|peer| peer.failed == 0 && peer.handshakes == 1)
        );
    });
}

#[test]
fn a_restarted_tracker_has_everybody_back_by_their_tickets() {
    for loss in [0.0, 0.05] {
        for_seeds(20, |seed| {
            let mut world = World::new(
                seed,
                20,
                Weather {
                    loss,
                    double: 0.0,
                    delay_ms: (5, 40),
                },
            );
            world.run(5 * SECOND);
            assert!(world.everybody_is_there());
            world.tracker = None;
            world.run(Duration::from_millis(500 + 700 * (seed % 40)));
            let logins: u32 = world.peers.iter().map(|peer| peer.handshakes).sum();
            world.start_tracker();
            world.run(15 * SECOND);
            assert!(world.everybody_is_there(), "15 s after the restart");
            let again: u32 = world.peers.iter().map(|peer| peer.handshakes).sum();
            // Where every RESUME of a round is lost, a handshake helps.
            assert!(
                loss > 0.0 || again == logins,
                "{} logged in anew",
                again - logins
            );
        });
    }
}

#[test]
fn a_tracker_that_did_not_run_for_a_while_ages_nobody() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed, 10, FINE);
        world.run(5 * SECOND);
        world.is_stopped = true;
        world.run(10 * SECOND);
        world.is_stopped = false;
        world.run(5 * SECOND);
        assert_eq!(world.hidden, 0, "nobody was taken for silent");
        assert!(world.everybody_is_there());
    });
}

#[test]
fn a_cut_network_heals() {
    for seconds in [1, 3, 10, 70, 400] {
        for_seeds(4, |seed| {
            let mut world = World::new(seed, 8, FINE);
            world.run(5 * SECOND);
            world.is_cut = true;
            world.run(seconds * SECOND);
            world.is_cut = false;
            world.run(15 * SECOND);
            assert!(world.everybody_is_there(), "after {seconds} s");
            let peers = world.tracker.as_ref().unwrap().registry().peer_count();
            assert_eq!(peers, 8, "none is there twice");
        });
    }
}

#[test]
fn sessions_are_renewed_every_hour_without_a_handshake() {
    for_seeds(2, |seed| {
        let mut world = World::new(seed, 3, FINE);
        world.run(5 * 3600 * SECOND);
        assert!(world.everybody_is_there());
        assert!(
            world
                .peers
                .iter()
                .all(|peer| peer.handshakes == 1 && peer.failed == 0)
        );
        assert_eq!(world.hidden, 0);
        assert!(world.log.is_empty(), "{:?}", world.log);
    });
}

/// Shows: row 37. Where a peer is follows proof, not the source that somebody wrote on a datagram.
#[test]
fn a_forged_source_is_never_handed_out() {
    let mut world = World::new(1, 2, FINE);
    world.run(5 * SECOND);
    let thief: SocketAddr = "198.51.100.99:7000".parse().unwrap();
    let (now, unix_ms) = (world.now, world.unix_ms());
    for _ in 0..20 {
        // The largest answer there is must not go to an address without proof.
        let request = Request::Search(Search {
            term: "file".to_owned(),
            cursor: Cursor::default(),
        });
        world.peers[0].attachment.request(now, request).unwrap();
    }
    let mut forged = Vec::new();
    let mut bytes = Vec::new();
    while world.peers[0].attachment.poll_transmit(now, &mut bytes) {
        forged.push(std::mem::take(&mut bytes));
    }
    assert!(!forged.is_empty());
    let sent: usize = forged.iter().map(Vec::len).sum();
    let tracker = world.tracker.as_mut().unwrap();
    let mut answered = 0;
    for mut datagram in forged {
        for (to, bytes) in tracker.hear((now, unix_ms), thief, &mut datagram) {
            assert_eq!(to, thief);
            answered += bytes.len();
        }
    }
    assert!(
        answered > 0 && answered <= sent,
        "{answered} bytes for {sent}"
    );
    assert_eq!(
        tracker.registry().record(&id(0)).unwrap().ip,
        address(0).ip()
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let mut world = World::new(
            7,
            6,
            Weather {
                loss: 0.4,
                double: 0.1,
                delay_ms: (1, 90),
            },
        );
        world.run(60 * SECOND);
        world.is_cut = true;
        world.run(20 * SECOND);
        world.is_cut = false;
        world.run(60 * SECOND);
        let counts: Vec<_> = world
            .peers
            .iter()
            .map(|peer| (peer.answered, peer.failed, peer.handshakes))
            .collect();
        (world.log, counts, world.next)
    };
    let (one, two) = (run(), run());
    assert_eq!(one, two);
    assert!(!one.0.is_empty(), "something happened");
}

/// All that a peer and its tracker have to say to each other at this moment.
fn talk(tracker: &mut Tracker, now: Instant, number: usize, peer: &mut Attachment) -> Vec<Event> {
    let (mut events, mut bytes) = (Vec::new(), Vec::new());
    peer.handle_timeout(now);
    while peer.poll_transmit(now, &mut bytes) {
        for (_, mut answer) in tracker.hear((now, UNIX_MS), address(number), &mut bytes) {
            peer.handle_datagram(now, &mut answer);
        }
        bytes.clear();
    }
    events.extend(std::iter::from_fn(|| peer.poll_event()));
    events
}

/// A tracker that asks for passwords, as far as names go, and two machines of one user.
fn two_machines() -> (World, [Attachment; 2]) {
    let mut world = World::new(1, 0, FINE);
    let office = TicketOffice::new(&GROUP, &TrackerSeed(Secret::new([7; 32])));
    let endpoint = Endpoint::new(office, rhythm(), 1, &mut world.seeded());
    let mut service = Service::new(1000, Vec::new());
    service.leave_names_to_passwords();
    let engine = Engine::new(endpoint, service, None);
    world.tracker.as_mut().unwrap().engine = engine;
    let machines = [0, 1].map(|number| {
        let (established, random) = (world.shake_hands(number).unwrap(), world.seeded());
        let user = "ana".parse().unwrap();
        Attachment::new(world.now, established, user, 8001, Box::new(random))
    });
    (world, machines)
}

#[test]
fn who_wakes_after_its_user_logged_in_elsewhere_is_not_taken_for_logged_in() {
    let (mut world, [mut first, mut second]) = two_machines();
    let now = world.now;
    let tracker = world.tracker.as_mut().unwrap();
    let is_in = |events: &[Event]| events.contains(&Event::LoggedIn);
    first.request(
        now,
        Request::Publish(Files::for_everybody(vec![file(0, 1)])),
    );
    assert!(is_in(&talk(tracker, now, 0, &mut first)));
    for _ in 0..20 {
        tracker.engine.sweep((now, UNIX_MS), &mut tracker.scratch);
    }
    assert!(
        is_in(&talk(tracker, now, 1, &mut second)),
        "the silent one gives the name back"
    );
    // Its clock stood still with it.
    let ends = |event: &Event| matches!(event, Event::Lost | Event::NeedHandshake);
    let hears = (0..100).any(|tenth| {
        let now = now + tenth * SECOND / 10;
        talk(tracker, now, 0, &mut first).iter().any(ends)
    });
    assert!(
        hears,
        "its heartbeats were answered as if nothing had happened"
    );
    assert_eq!(tracker.registry().peer_count(), 1);
}

#[test]
fn a_request_of_a_session_whose_login_is_gone_ends_that_session() {
    let mut world = World::new(1, 1, FINE);
    world.run(5 * SECOND);
    assert!(world.everybody_is_there());
    let tracker = world.tracker.as_ref().unwrap();
    tracker.engine.service().end(id(0), || true);
    assert_eq!(world.found(0), 0);
    // It searches every five seconds, and comes back by its ticket.
    world.run(15 * SECOND);
    assert!(world.everybody_is_there());
}

#[test]
fn a_farewell_of_an_older_session_does_not_end_the_newer_one() {
    let (mut world, [mut older, _]) = two_machines();
    let now = world.now;
    let tracker = world.tracker.as_mut().unwrap();
    talk(tracker, now, 0, &mut older);
    // The farewell is opened, and waits for its clerk meanwhile.
    let mut farewell = Vec::new();
    assert!(older.poll_farewell(&mut farewell));
    let (mut post, mut later) = (Post::default(), VecDeque::new());
    let mut spots = [Spot::new(0, farewell.len(), address(0))];
    let scratch = &mut tracker.scratch;
    tracker
        .engine
        .handle(now, &mut farewell, &mut spots, scratch, &mut post);
    std::mem::swap(&mut post.jobs, &mut later);
    assert_eq!(later.len(), 1);
    let (established, random) = (world.shake_hands(0).unwrap(), world.seeded());
    let user = "ana".parse().unwrap();
    let mut newer = Attachment::new(now, established, user, 8001, Box::new(random));
    let tracker = world.tracker.as_mut().unwrap();
    let events = talk(tracker, now, 0, &mut newer);
    assert!(events.contains(&Event::LoggedIn));
    let job = later.pop_front().unwrap();
    let Tracker {
        engine,
        random,
        scratch,
        ..
    } = tracker;
    engine.work((now, UNIX_MS), job, random, scratch, &mut post);
    assert_eq!(tracker.registry().peer_count(), 1);
}
