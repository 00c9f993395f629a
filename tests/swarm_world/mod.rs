//! Whole swarms on a network of numbers: real `Swarm` machines, an invented clock, no sockets and no bytes.
//!
//! Each peer sends on one line that its connections share in turn, and receives on another. Whatever happens
//! comes from the seed.

pub(crate) mod driver;
pub(crate) mod plan;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use p2pfs::wire::id::PeerId;
use p2pfs::wire::pieces::{Bitfield, Layout, PieceIndex};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use driver::{Driver, Effect, TICK};
use plan::{Conduct, Fault, KIB, MIB, Member, Plan};

const MS: Duration = Duration::from_millis(1);
/// As in `peer/upload.rs`, `peer/source.rs` and `peer/dial.rs`.
const TELL_EVERY: Duration = Duration::from_millis(200);
const SIGN_EVERY: Duration = Duration::from_millis(500);
const DIAL_TIME: Duration = Duration::from_secs(5);
const DEAD_AFTER: Duration = Duration::from_secs(120);
/// What lies in the buffers of a connection: so many parts of a second at the sender's rate, within bounds.
const WINDOWS_PER_S: u64 = 3;
const MIN_WINDOW: u64 = 256 * KIB;
const MAX_WINDOW: u64 = 4 * MIB;
/// A peer that says nothing any more is hidden by the tracker after this long.
const TRACKER_PATIENCE: Duration = Duration::from_secs(3);
/// A request to a tracker that is out fails after this long.
const REQUEST_TIME: Duration = Duration::from_secs(5);
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Nobody waits longer while somebody reachable could deliver.
const PATIENCE: Duration = Duration::from_secs(30);
/// A run that takes longer hangs.
const END: Duration = Duration::from_secs(1800);

enum What {
    Come(usize),
    Fault(Fault),
    GoOn(usize),
    Watch,
    Tick(usize, u32),
    Located(usize, u32, Option<Vec<usize>>),
    DialTime(usize),
    /// Nothing came for so long that the reading half says so.
    Dead(usize),
    Up(usize, Up),
    Down(usize, Down),
    /// The line of this peer is free again.
    Sent(usize, u32),
    Tell(usize),
    Listed(usize, u32),
    Hidden(usize, u32),
}

/// To whoever serves.
enum Up {
    Open,
    Page,
    Request(u32, Vec<PieceIndex>),
    Cancel(u32),
    Closed,
}

/// To whoever downloads.
enum Down {
    Opened(Bitfield),
    Absent,
    Page,
    Have(Vec<PieceIndex>),
    Chunk(Chunk),
    Closed,
}

struct Chunk {
    request: u32,
    piece: PieceIndex,
    len: u64,
    is_right: bool,
}

/// A piece that somebody asked for: one of these, chosen when its turn comes.
struct Job {
    request: u32,
    candidates: Vec<PieceIndex>,
    begun: Option<Begun>,
}

#[derive(Clone, Copy)]
struct Begun {
    piece: PieceIndex,
    left: u64,
    is_right: bool,
}

struct Connection {
    from: usize,
    to: usize,
    is_connected: bool,
    is_closed: bool,
    is_swallowed: bool,
    /// The side that serves.
    jobs: VecDeque<Job>,
    under_way: u64,
    told: Option<Bitfield>,
    is_telling: bool,
    next_dribble: Instant,
    /// The side that downloads.
    last_request: u32,
    begun: BTreeMap<u32, (PieceIndex, u64)>,
    last_sign: Instant,
}

struct Node {
    member: Member,
    id: PeerId,
    is_there: bool,
    /// Grows with each start and stop: what was meant for an earlier life is moot.
    life: u32,
    stopped_until: Option<Option<Instant>>,
    disk_full_until: Instant,
    here: Bitfield,
    unsynced: Vec<PieceIndex>,
    driver: Option<Driver>,
    is_announced: bool,
    is_listed: bool,
    is_sending: bool,
    /// Whose turn it is.
    turns: VecDeque<usize>,
    down_free: Instant,
    links: BTreeMap<PeerId, usize>,
    last_progress: Instant,
    able_since: Option<Instant>,
    figures: Figures,
    /// How often it sent each piece.
    sent: BTreeMap<PieceIndex, u32>,
}

/// What is counted of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) duplicates: u32,
    pub(crate) sources: u32,
    pub(crate) finished_after: Option<Duration>,
}

pub(crate) struct World {
    plan: Plan,
    layout: Layout,
    random: StdRng,
    start: Instant,
    now: Instant,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    queue: BTreeMap<(Instant, u64), What>,
    next: u64,
    tracker_out_until: Instant,
    pub(crate) events: u64,
}

fn id(number: usize) -> PeerId {
    // Not in the order in which they come.
    let number = u8::try_from(number).expect("small swarms");
    PeerId([number.wrapping_mul(167).wrapping_add(91); 32])
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut random = StdRng::seed_from_u64(plan.seed ^ 0x0077_6f72_6c64);
        let layout = Layout::new(plan.len).expect("small files");
        let start = Instant::now();
        let nodes = plan.members.iter().enumerate().map(|(number, member)| {
            let mut here = Bitfield::empty(layout);
            for piece in layout.pieces() {
                if random.random_range(0..100) < member.has {
                    here.insert(piece);
                }
            }
            Node {
                member: member.clone(),
                id: id(number),
                is_there: false,
                life: 0,
                stopped_until: None,
                disk_full_until: start,
                here,
                unsynced: Vec::new(),
                driver: None,
                is_announced: false,
                is_listed: false,
                is_sending: false,
                turns: VecDeque::new(),
                down_free: start,
                links: BTreeMap::new(),
                last_progress: start,
                able_since: None,
                figures: Figures::default(),
                sent: BTreeMap::new(),
            }
        });
        let nodes = nodes.collect();
        let mut world = Self {
            layout,
            random,
            start,
            now: start,
            nodes,
            connections: Vec::new(),
            queue: BTreeMap::new(),
            next: 0,
            tracker_out_until: start,
            events: 0,
            plan,
        };
        for number in 0..world.nodes.len() {
            world.after(world.plan.members[number].comes_at, What::Come(number));
        }
        for (at, fault) in std::mem::take(&mut world.plan.faults) {
            world.after(at, What::Fault(fault));
        }
        world.after(WATCH_EVERY, What::Watch);
        world
    }

    /// Until everybody who stays has everything; what was counted of each.
    pub(crate) fn run(&mut self) -> Vec<Figures> {
        while !self.is_over() {
            let Some(((at, _), what)) = self.queue.pop_first() else {
                panic!("nothing happens any more");
            };
            self.now = at;
            assert!(at - self.start < END, "it does not end: {}", self.state());
            self.handle(what);
            self.events += 1;
        }
        self.nodes.iter().map(|node| node.figures).collect()
    }

    pub(crate) fn len(&self) -> u64 {
        self.layout.len()
    }

    pub(crate) fn pieces(&self) -> u32 {
        self.layout.count()
    }

    /// Simulated time that passed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn is_over(&self) -> bool {
        let returns = |what: &What| {
            matches!(what, What::Come(_))
                || matches!(what, What::Fault(Fault::Crash { member, back_after: Some(_), .. }) if self.nodes[*member].driver.is_some())
        };
        self.nodes.iter().all(|node| !self.is_working(node)) && !self.queue.values().any(returns)
    }

    fn is_working(&self, node: &Node) -> bool {
        node.is_there && node.driver.is_some() && node.stopped_until != Some(None)
    }

    fn state(&self) -> String {
        let of = |(number, node): (usize, &Node)| {
            let driver = node.driver.as_ref();
            format!(
                "\n  {number}: {:?}, there {}, stopped {:?}, listed {}, {} of {} pieces, downloads {}, sources {}",
                node.member.conduct,
                node.is_there,
                node.stopped_until
                    .map(|until| until.map(|until| until - self.start)),
                node.is_listed,
                node.here.count(),
                self.layout.count(),
                driver.is_some(),
                driver.map_or(0, |driver| driver.swarm.source_count()),
            )
        };
        let nodes: String = self.nodes.iter().enumerate().map(of).collect();
        format!("after {:?}{nodes}", self.elapsed())
    }

    fn after(&mut self, wait: Duration, what: What) {
        self.next += 1;
        self.queue.insert((self.now + wait, self.next), what);
    }

    /// Whose business this is: it waits while that peer is stopped.
    fn owner(&self, what: &What) -> Option<usize> {
        match what {
            What::Tick(node, _) | What::Located(node, ..) | What::Sent(node, _) => Some(*node),
            What::DialTime(connection) | What::Dead(connection) | What::Down(connection, _) => {
                Some(self.connections[*connection].from)
            }
            What::Up(connection, _) | What::Tell(connection) => {
                Some(self.connections[*connection].to)
            }
            _ => None,
        }
    }

    fn handle(&mut self, what: What) {
        let owner = self.owner(&what);
        if let Some(until) = owner.and_then(|owner| self.nodes[owner].stopped_until) {
            if let Some(until) = until {
                self.after(until - self.now, what);
            }
            return;
        }
        match what {
            What::Come(node) => self.come(node),
            What::Fault(fault) => self.fault(fault),
            What::GoOn(node) => self.nodes[node].stopped_until = None,
            What::Watch => self.watch(),
            What::Tick(node, life) if self.nodes[node].life == life => self.tick(node),
            What::Located(node, life, found) if self.nodes[node].life == life => {
                let found = found.map(|found| found.into_iter().map(id).collect::<Vec<_>>());
                let now = self.now;
                self.drive(node, |driver| driver.located(now, found.as_deref()));
            }
            What::DialTime(connection) => {
                let Connection { is_connected, .. } = self.connections[connection];
                if !is_connected {
                    self.gone(connection);
                }
            }
            What::Dead(connection) => self.gone(connection),
            What::Up(connection, up) => self.up(connection, up),
            What::Down(connection, down) => self.down(connection, down),
            What::Sent(node, life) if self.nodes[node].life == life => {
                self.nodes[node].is_sending = false;
                self.send_next(node);
            }
            What::Tell(connection) => self.tell(connection),
            What::Listed(node, life) if self.nodes[node].life == life => {
                self.nodes[node].is_listed = true;
            }
            What::Hidden(node, life) if self.nodes[node].life == life => {
                self.nodes[node].is_listed = false;
            }
            // Of an earlier life.
            What::Tick(..)
            | What::Located(..)
            | What::Sent(..)
            | What::Listed(..)
            | What::Hidden(..) => {}
        }
    }

    fn come(&mut self, number: usize) {
        let (now, layout, random) = (self.now, self.layout, self.random.next_u32());
        let node = &mut self.nodes[number];
        if node.is_there {
            return;
        }
        node.is_there = true;
        node.life += 1;
        node.last_progress = now;
        node.able_since = None;
        let life = node.life;
        if !node.here.is_full() && node.member.conduct == Conduct::Honest {
            node.driver = Some(Driver::new(now, layout, random, node.here.clone()));
            self.after(MS, What::Tick(number, life));
        }
        let node = &self.nodes[number];
        if node.here.count() > 0 || node.member.conduct != Conduct::Honest {
            self.announce(number);
        }
    }

    fn announce(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if !std::mem::replace(&mut node.is_announced, true) {
            let life = node.life;
            self.after(self.plan.tracker_delay, What::Listed(number, life));
        }
    }

    fn tick(&mut self, number: usize) {
        if self.nodes[number].driver.is_none() {
            return;
        }
        let (now, life) = (self.now, self.nodes[number].life);
        self.after(TICK, What::Tick(number, life));
        self.drive(number, |driver| driver.tick(now));
    }

    /// Tells the driver something, and does what it wants then.
    fn drive<T>(&mut self, number: usize, tell: impl FnOnce(&mut Driver) -> T) -> Option<T> {
        let now = self.now;
        let driver = self.nodes[number].driver.as_mut()?;
        let told = tell(driver);
        driver.turn(now);
        for effect in std::mem::take(&mut driver.effects) {
            self.carry_out(number, effect);
        }
        self.finish(number);
        Some(told)
    }

    fn carry_out(&mut self, number: usize, effect: Effect) {
        match effect {
            Effect::Locate => {
                let life = self.nodes[number].life;
                if self.now < self.tracker_out_until {
                    self.after(REQUEST_TIME, What::Located(number, life, None));
                } else {
                    let mut found: Vec<usize> = (0..self.nodes.len())
                        .filter(|other| *other != number && self.nodes[*other].is_listed)
                        .collect();
                    found.sort_by_key(|node| id(*node));
                    self.after(20 * MS, What::Located(number, life, Some(found)));
                }
            }
            Effect::Dial(peer) => self.dial(number, peer),
            Effect::Hang(peer) => {
                if let Some(connection) = self.nodes[number].links.remove(&peer) {
                    self.close(connection);
                }
            }
            Effect::AskPage(peer) => self.send_up(number, peer, |_| Up::Page),
            Effect::Ask(peer, pieces) => self.send_up(number, peer, |connection| {
                connection.last_request += 1;
                let request = connection.last_request;
                connection.begun.insert(request, (pieces[0], 0));
                Up::Request(request, pieces)
            }),
            Effect::Cancel(peer, piece) => {
                let Some(link) = self.nodes[number].links.get(&peer) else {
                    return;
                };
                let begun = &self.connections[*link].begun;
                let request = begun.iter().find(|(_, (begun, _))| *begun == piece);
                if let Some(request) = request.map(|(request, _)| *request) {
                    self.send_up(number, peer, |connection| {
                        connection.begun.remove(&request);
                        Up::Cancel(request)
                    });
                }
            }
            Effect::Synced => {
                let (now, node) = (self.now, &mut self.nodes[number]);
                let unsynced = std::mem::take(&mut node.unsynced);
                if !unsynced.is_empty() && now < node.disk_full_until {
                    for piece in &unsynced {
                        node.here.remove(*piece);
                    }
                    self.drive(number, |driver| driver.not_durable(now, unsynced));
                }
            }
            Effect::GivesUp => {
                let knows = |node: &Node| node.is_listed && node.member.conduct == Conduct::Honest;
                let others = self.nodes.iter().enumerate();
                let mut honest = others.filter(|(other, node)| *other != number && knows(node));
                // The tracker may know meanwhile; only whoever was told of nobody else gives up.
                assert!(honest.next().is_none() || self.plan.tracker_delay > Duration::ZERO);
                let wait = Duration::from_secs(1);
                self.end_life(number, Some(wait));
            }
        }
    }

    fn finish(&mut self, number: usize) {
        let elapsed = self.elapsed();
        let node = &mut self.nodes[number];
        let Some(driver) = node.driver.as_ref() else {
            return;
        };
        driver.check_done(&node.here);
        if !driver.swarm.is_complete() {
            return;
        }
        assert!(node.here.is_full(), "complete without all pieces");
        node.figures.duplicates += driver.duplicates;
        node.figures.finished_after = Some(elapsed);
        node.driver = None;
        node.unsynced.clear();
        for connection in std::mem::take(&mut node.links).into_values() {
            self.close(connection);
        }
    }

    fn latency(&self, connection: usize) -> Duration {
        let Connection { from, to, .. } = self.connections[connection];
        self.nodes[from].member.latency + self.nodes[to].member.latency + MS
    }

    fn dial(&mut self, number: usize, peer: PeerId) {
        let to = self.nodes.iter().position(|node| node.id == peer);
        let to = to.expect("the tracker knows nobody else");
        let connection = self.connections.len();
        self.connections.push(Connection {
            from: number,
            to,
            is_connected: false,
            is_closed: false,
            is_swallowed: false,
            jobs: VecDeque::new(),
            under_way: 0,
            told: None,
            is_telling: false,
            next_dribble: self.now,
            last_request: 0,
            begun: BTreeMap::new(),
            last_sign: self.now,
        });
        self.nodes[number].links.insert(peer, connection);
        // Connection, handshake, OPEN.
        let way = self.latency(connection);
        self.after(5 * way, What::Up(connection, Up::Open));
        self.after(DIAL_TIME, What::DialTime(connection));
    }

    fn send_up(&mut self, number: usize, peer: PeerId, make: impl FnOnce(&mut Connection) -> Up) {
        let Some(connection) = self.nodes[number].links.get(&peer).copied() else {
            return;
        };
        let up = make(&mut self.connections[connection]);
        self.after(self.latency(connection), What::Up(connection, up));
    }

    fn send_down(&mut self, connection: usize, down: Down) {
        self.after(self.latency(connection), What::Down(connection, down));
    }

    /// One side ended it; the other hears of it.
    fn close(&mut self, connection: usize) {
        self.connections[connection].is_closed = true;
        self.after(self.latency(connection), What::Up(connection, Up::Closed));
    }

    fn gone(&mut self, connection: usize) {
        let Connection { from, to, .. } = self.connections[connection];
        let (now, peer) = (self.now, self.nodes[to].id);
        if self.nodes[from].links.get(&peer) == Some(&connection) {
            self.drive(from, |driver| driver.gone(now, peer));
        }
    }

    fn serves(&self, number: usize) -> Option<(Bitfield, bool)> {
        let node = &self.nodes[number];
        let whole = || Some((Bitfield::full(self.layout), false));
        match (node.member.conduct, &node.driver) {
            _ if !node.is_there => None,
            (Conduct::Boasts | Conduct::Mute | Conduct::Drips, _) => whole(),
            _ if node.here.is_full() => whole(),
            (_, None) => Some((node.here.clone(), true)),
            (_, Some(driver)) if driver.has_page && node.is_announced => {
                Some((node.here.clone(), true))
            }
            (_, Some(_)) => node
                .is_announced
                .then(|| (Bitfield::empty(self.layout), true)),
        }
    }

    fn up(&mut self, connection: usize, up: Up) {
        let Connection {
            to,
            is_closed,
            is_swallowed,
            ..
        } = self.connections[connection];
        if is_swallowed {
            return;
        }
        if is_closed {
            self.connections[connection].jobs.clear();
            return;
        }
        if !self.nodes[to].is_there {
            self.send_down(connection, Down::Closed);
            return;
        }
        match up {
            Up::Open => {
                let down = match self.serves(to) {
                    None => Down::Absent,
                    Some((pieces, grows)) => {
                        self.connections[connection].told = grows.then(|| pieces.clone());
                        self.nodes[to].turns.push_back(connection);
                        Down::Opened(pieces)
                    }
                };
                self.send_down(connection, down);
            }
            Up::Page if self.nodes[to].member.conduct == Conduct::Mute => {}
            Up::Page => self.send_down(connection, Down::Page),
            Up::Request(request, candidates) => {
                self.connections[connection].jobs.push_back(Job {
                    request,
                    candidates,
                    begun: None,
                });
                self.send_next(to);
            }
            Up::Cancel(request) => {
                let jobs = &mut self.connections[connection].jobs;
                jobs.retain(|job| job.request != request);
            }
            Up::Closed => self.connections[connection].jobs.clear(),
        }
    }

    fn will_be_right(&mut self, connection: usize, piece: PieceIndex) -> bool {
        let Connection { to, told, .. } = &self.connections[connection];
        let node = &self.nodes[*to];
        match node.member.conduct {
            Conduct::Lies(percent) => self.random.random_range(0..100) >= percent,
            Conduct::Boasts | Conduct::Mute | Conduct::Drips => node.here.has(piece),
            Conduct::Honest => {
                let was_told = told.as_ref().is_none_or(|told| told.has(piece));
                assert!(was_told, "asked for a piece that it never claimed");
                true
            }
        }
    }

    /// The line is given to the next connection that has something to send.
    fn send_next(&mut self, number: usize) {
        let node = &self.nodes[number];
        if node.is_sending || node.member.conduct == Conduct::Mute {
            return;
        }
        let drips = node.member.conduct == Conduct::Drips;
        let up = node.member.up;
        let window = (up / WINDOWS_PER_S).clamp(MIN_WINDOW, MAX_WINDOW);
        let mut turns = std::mem::take(&mut self.nodes[number].turns);
        turns.retain(|connection| !self.connections[*connection].is_closed);
        let now = self.now;
        let next = turns.iter().position(|connection| {
            let connection = &self.connections[*connection];
            let may = !connection.jobs.is_empty() && connection.under_way < window;
            may && (!drips || connection.next_dribble <= now)
        });
        let next = next.and_then(|next| turns.remove(next));
        turns.extend(next);
        self.nodes[number].turns = turns;
        let life = self.nodes[number].life;
        let Some(next) = next else {
            return;
        };
        let run = if drips {
            KIB
        } else if up < MIB {
            64 * KIB
        } else {
            256 * KIB
        };
        let mut begun = self.begin(number, next);
        let connection = &mut self.connections[next];
        let job = connection.jobs.front_mut().expect("looked at above");
        let len = begun.left.min(run);
        begun.left -= len;
        job.begun = Some(begun);
        let chunk = Chunk {
            request: job.request,
            piece: begun.piece,
            len,
            is_right: begun.is_right,
        };
        if begun.left == 0 {
            connection.jobs.pop_front();
        }
        connection.under_way += len;
        let mut spent = time_for(len, up);
        if drips {
            connection.next_dribble = now + Duration::from_millis(900);
            spent = Duration::from_millis(900);
        }
        let from = connection.from;
        let latency = self.latency(next);
        let downloader = &mut self.nodes[from];
        let arrives = if drips {
            // Too little to be in the way of anything.
            spent + latency
        } else {
            let begins = (now + spent + latency).max(downloader.down_free);
            downloader.down_free = begins + time_for(len, downloader.member.down);
            downloader.down_free - now
        };
        self.nodes[number].is_sending = true;
        self.nodes[number].figures.sent += len;
        self.after(spent, What::Sent(number, life));
        self.after(arrives, What::Down(next, Down::Chunk(chunk)));
    }

    /// The piece that is being sent on this connection, or the candidate that was sent least so far.
    fn begin(&mut self, number: usize, connection: usize) -> Begun {
        let job = self.connections[connection].jobs.front();
        let job = job.expect("somebody asked");
        if let Some(begun) = job.begun {
            return begun;
        }
        let sent = &mut self.nodes[number].sent;
        let count = |piece: &&PieceIndex| sent.get(*piece).copied().unwrap_or(0);
        let piece = *job
            .candidates
            .iter()
            .min_by_key(count)
            .expect("at least one");
        *sent.entry(piece).or_insert(0_u32) += 1;
        Begun {
            piece,
            left: self.layout.piece_len(piece) as u64,
            is_right: self.will_be_right(connection, piece),
        }
    }

    fn down(&mut self, number: usize, down: Down) {
        let connection = &mut self.connections[number];
        let (from, to) = (connection.from, connection.to);
        let (now, peer) = (self.now, self.nodes[to].id);
        if let Down::Chunk(chunk) = &down {
            connection.under_way -= chunk.len;
            let is_closed = connection.is_closed;
            self.send_next(to);
            if !is_closed {
                self.nodes[from].figures.received += chunk.len;
            }
        }
        let Connection {
            is_closed,
            is_swallowed,
            ..
        } = self.connections[number];
        if is_closed || is_swallowed {
            return;
        }
        match down {
            Down::Opened(pieces) => {
                if self.nodes[from].links.get(&peer) != Some(&number) {
                    return;
                }
                self.connections[number].is_connected = true;
                self.nodes[from].figures.sources += 1;
                self.drive(from, |driver| driver.connected(now, peer, pieces));
            }
            Down::Absent | Down::Closed => self.gone(number),
            Down::Page => {
                self.drive(from, |driver| driver.page(now, peer));
            }
            Down::Have(pieces) => {
                self.drive(from, |driver| driver.source_has(now, peer, pieces));
            }
            Down::Chunk(chunk) => {
                let (now, connection) = (self.now, &mut self.connections[number]);
                if now - connection.last_sign >= SIGN_EVERY {
                    connection.last_sign = now;
                    self.drive(from, |driver| driver.sign(now, peer));
                }
                self.chunk(number, &chunk);
            }
        }
    }

    fn chunk(&mut self, number: usize, chunk: &Chunk) {
        let connection = &mut self.connections[number];
        let (from, to) = (connection.from, connection.to);
        let Some((piece, len)) = connection.begun.get_mut(&chunk.request) else {
            return;
        };
        let asked = std::mem::replace(piece, chunk.piece);
        if *len == 0 {
            let (now, peer) = (self.now, self.nodes[to].id);
            self.drive(from, |driver| driver.chosen(now, peer, asked, chunk.piece));
        }
        let connection = &mut self.connections[number];
        let Some((piece, len)) = connection.begun.get_mut(&chunk.request) else {
            return;
        };
        let piece = *piece;
        *len += chunk.len;
        if *len < self.layout.piece_len(piece) as u64 {
            return;
        }
        connection.begun.remove(&chunk.request);
        let (now, peer) = (self.now, self.nodes[to].id);
        if !chunk.is_right {
            let is_honest = self.nodes[to].member.conduct == Conduct::Honest;
            assert!(!is_honest, "an honest peer is taken for a liar");
            self.drive(from, |driver| driver.wrong_piece(now, peer));
            return;
        }
        if now < self.nodes[from].disk_full_until {
            self.drive(from, |driver| driver.not_written(now, peer, piece));
            return;
        }
        let node = &mut self.nodes[from];
        if node.here.insert(piece) {
            node.unsynced.push(piece);
            node.last_progress = now;
        }
        self.announce(from);
        self.news(from);
        self.drive(from, |driver| driver.piece(now, peer, piece));
    }

    /// Those who download from this one hear soon what came.
    fn news(&mut self, number: usize) {
        for connection in self.nodes[number].turns.clone() {
            let telling = &mut self.connections[connection];
            if telling.told.is_some() && !std::mem::replace(&mut telling.is_telling, true) {
                self.after(TELL_EVERY, What::Tell(connection));
            }
        }
    }

    fn tell(&mut self, number: usize) {
        let offered = self.serves(self.connections[number].to);
        let connection = &mut self.connections[number];
        connection.is_telling = false;
        let (Some(told), Some((offered, _))) = (&mut connection.told, offered) else {
            return;
        };
        let news: Vec<_> = offered.iter().filter(|piece| told.insert(*piece)).collect();
        if !news.is_empty() && !connection.is_swallowed {
            self.send_down(number, Down::Have(news));
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Stop(number, span) => {
                let node = &mut self.nodes[number];
                if node.stopped_until.is_some() {
                    return;
                }
                node.stopped_until = Some(span.map(|span| self.now + span));
                if let Some(span) = span {
                    self.after(span, What::GoOn(number));
                }
            }
            Fault::Crash {
                member,
                is_power_cut,
                back_after,
            } => {
                if self.nodes[member].stopped_until.is_none() && self.nodes[member].is_there {
                    self.crash(member, is_power_cut);
                    self.end_life(member, back_after);
                }
            }
            Fault::Break(one, other) => {
                for number in self.between(one, other) {
                    self.send_down(number, Down::Closed);
                    self.after(self.latency(number), What::Up(number, Up::Closed));
                }
            }
            Fault::Swallow(one, other) => {
                for number in self.between(one, other) {
                    self.swallow(number);
                }
            }
            Fault::TrackerOut(span) => self.tracker_out_until = self.now + span,
            Fault::DiskFull(number, span) => self.nodes[number].disk_full_until = self.now + span,
        }
    }

    fn between(&self, one: usize, other: usize) -> Vec<usize> {
        let pairs = [(one, other), (other, one)];
        let is_meant = |number: &usize| {
            let connection = &self.connections[*number];
            pairs.contains(&(connection.from, connection.to)) && !connection.is_closed
        };
        (0..self.connections.len()).filter(is_meant).collect()
    }

    fn swallow(&mut self, number: usize) {
        self.connections[number].is_swallowed = true;
        self.connections[number].jobs.clear();
        self.after(DEAD_AFTER, What::Dead(number));
    }

    /// Of what was not durable some is lost in a power cut.
    fn crash(&mut self, number: usize, is_power_cut: bool) {
        let node = &mut self.nodes[number];
        for piece in std::mem::take(&mut node.unsynced) {
            if is_power_cut && self.random.random_bool(0.5) {
                node.here.remove(piece);
            }
        }
        for connection in 0..self.connections.len() {
            let Connection {
                from,
                to,
                is_closed,
                ..
            } = self.connections[connection];
            if to == number && !is_closed {
                if is_power_cut {
                    self.swallow(connection);
                } else {
                    self.send_down(connection, Down::Closed);
                    self.connections[connection].jobs.clear();
                }
            } else if from == number && !is_closed && !is_power_cut {
                self.close(connection);
            }
        }
    }

    fn end_life(&mut self, number: usize, back_after: Option<Duration>) {
        let node = &mut self.nodes[number];
        if let Some(driver) = node.driver.take() {
            node.figures.duplicates += driver.duplicates;
        }
        node.is_there = false;
        node.life += 1;
        node.is_sending = false;
        node.is_announced = false;
        node.turns.clear();
        let life = node.life;
        for connection in std::mem::take(&mut node.links).into_values() {
            self.close(connection);
        }
        self.after(TRACKER_PATIENCE, What::Hidden(number, life));
        if let Some(back_after) = back_after {
            self.after(back_after, What::Come(number));
        }
    }

    /// Nobody waits for long while somebody could deliver.
    fn watch(&mut self) {
        self.after(WATCH_EVERY, What::Watch);
        let now = self.now;
        for number in 0..self.nodes.len() {
            let is_able = self.is_working(&self.nodes[number])
                && self.nodes[number].stopped_until.is_none()
                && self.nodes[number].disk_full_until + Duration::from_secs(2) < now
                && self.tracker_out_until + REQUEST_TIME < now
                && (0..self.nodes.len()).any(|other| self.could_deliver(number, other));
            let node = &mut self.nodes[number];
            if !is_able {
                node.able_since = None;
                continue;
            }
            let since = *node.able_since.get_or_insert(now);
            let waited = now - since.max(node.last_progress);
            assert!(
                waited <= PATIENCE,
                "{number} waits for {waited:?}: {}",
                self.state()
            );
        }
    }

    fn could_deliver(&self, number: usize, other: usize) -> bool {
        let (node, source) = (&self.nodes[number], &self.nodes[other]);
        let is_there = number != other
            && source.member.conduct == Conduct::Honest
            && source.is_listed
            && source.stopped_until.is_none()
            && self
                .serves(other)
                .is_some_and(|(offered, _)| offered.iter().any(|piece| !node.here.has(piece)));
        let link = node.links.get(&source.id);
        let is_swallowed = link.is_some_and(|link| self.connections[*link].is_swallowed);
        is_there && !is_swallowed
    }
}

fn time_for(len: u64, rate: u64) -> Duration {
    Duration::from_micros(len * 1_000_000 / rate)
}
