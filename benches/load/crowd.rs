//! Peers that are a few hundred bytes each, on a few sockets.

use std::collections::HashMap;
use std::fmt;
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use p2pfs::crypto::envelope::{Opener, Sealer};
use p2pfs::crypto::random::{OsRandom, Random as _, random_bytes};
use p2pfs::crypto::secret::Secret;
use p2pfs::crypto::ticket::{Resumable, Resuming, TICKET_LIFE_MS, TicketContent};
use p2pfs::wire::control::{
    Audience, Cursor, Locate, PathToken, Publication, PublicationKind, Request, Response, Search,
    batches, split,
};
use p2pfs::wire::id::{ContentId, PeerId, RequestId};
use p2pfs::wire::packet::{Datagram, RESUMED_LEN};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rand::RngExt as _;

use super::target::Target;

/// Sockets, so that several workers have something to do.
const SOCKETS: usize = 64;
/// RESUMEs under way.
const GATHERING: usize = 64;
/// What is not answered within this time is lost.
const LOST: Duration = Duration::from_secs(1);
/// One answer in so many is opened and looked at.
const SAMPLE: u64 = 64;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Heartbeat,
    Locate,
    Search,
    Publish,
}

/// Kinds with their shares.
#[derive(Clone, Debug)]
pub(crate) struct Mix(Vec<(Kind, u32)>);

impl Mix {
    pub(crate) fn only(kind: Kind) -> Self {
        Self(vec![(kind, 1)])
    }

    fn draw(&self) -> Kind {
        let total = self.0.iter().map(|(_, share)| share).sum();
        let mut left = rand::rng().random_range(0..total);
        for (kind, share) in &self.0 {
            if left < *share {
                return *kind;
            }
            left -= share;
        }
        unreachable!("less than the sum of the shares was drawn")
    }
}

impl FromStr for Mix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (name, share) = part.split_once('=').ok_or("KIND=SHARE,…")?;
            let kind = match name {
                "heartbeat" => Kind::Heartbeat,
                "locate" => Kind::Locate,
                "search" => Kind::Search,
                "publish" => Kind::Publish,
                _ => return Err(format!("no kind \"{name}\"")),
            };
            let share = share.parse().map_err(|_| format!("share \"{share}\""))?;
            Ok((kind, share))
        };
        text.split(',')
            .map(part)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What came of asking for a while.
pub(crate) struct Outcome {
    answered: u64,
    lost: u64,
    refused: u64,
    sampled: u64,
    took: Duration,
    cpu_s: f64,
    waits_us: Vec<u32>,
}

impl Outcome {
    /// Processor time of the other side for one request, in µs.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.answered as f64
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut waits = self.waits_us.clone();
        waits.sort_unstable();
        let at = |of_thousand: usize| waits[(waits.len() - 1) * of_thousand / 1000];
        write!(
            f,
            "{:.0}/s, {:.0} for each CPU second; answered after {} / {} / {} µs (p50, p99, p99.9)",
            self.answered as f64 / self.took.as_secs_f64(),
            self.answered as f64 / self.cpu_s,
            at(500),
            at(990),
            at(999),
        )?;
        if self.lost + self.refused > 0 {
            let (lost, refused) = (self.lost, self.refused);
            write!(
                f,
                "; {lost} lost, {refused} of {} looked at refused",
                self.sampled
            )?;
        }
        Ok(())
    }
}

struct Peer {
    sealer: Sealer,
    opener: Opener,
    token: PathToken,
    /// When it asked what is not answered yet.
    asked: Option<Instant>,
}

struct Line {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// All peers, in the order in which they came.
pub(crate) struct Crowd {
    target: SocketAddr,
    office: p2pfs::crypto::ticket::TicketOffice,
    lines: Vec<Line>,
    peers: Vec<Peer>,
    by_session: HashMap<[u8; 7], usize>,
    wanted: usize,
    names: u32,
    request: u32,
    buffer: Vec<u8>,
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn content(peer: usize, name: u32) -> ContentId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(peer as u64).to_be_bytes());
    bytes[8..12].copy_from_slice(&name.to_be_bytes());
    ContentId(*blake3::hash(&bytes).as_bytes())
}

/// Names as people have them: words that many share, and a number that few do.
fn name(peer: usize, name: u32) -> String {
    const WORDS: [&str; 16] = [
        "holiday", "report", "Final", "music", "Lecture", "scan", "Photo", "notes", "draft",
        "Berlin", "backup", "family", "invoice", "Season", "live", "project",
    ];
    let hash = blake3::hash(&[(peer as u64).to_be_bytes(), u64::from(name).to_be_bytes()].concat());
    let bytes = hash.as_bytes();
    let word = |n: usize| WORDS[usize::from(bytes[n]) % WORDS.len()];
    format!("{} {} {} {name} {peer}.mkv", word(0), word(1), word(2))
}

impl Crowd {
    pub(crate) fn new(tracker: &Target, wanted: usize, names: u32) -> Self {
        let line = |_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let state = UdpSocketState::new((&socket).into()).unwrap();
            Line { socket, state }
        };
        Self {
            target: tracker.address(),
            office: tracker.office(),
            lines: (0..SOCKETS).map(line).collect(),
            peers: Vec::with_capacity(wanted),
            by_session: HashMap::with_capacity(wanted),
            wanted,
            names,
            request: 0,
            buffer: vec![0; 2048 * BATCH_SIZE],
        }
    }

    /// Every peer resumes a session that it never had.
    pub(crate) fn gather(&mut self) -> Duration {
        let began = Instant::now();
        let mut random = OsRandom::new();
        let mut under_way: HashMap<[u8; 7], (Resuming, Instant)> = HashMap::new();
        let (mut started, mut beaten) = (0, 0);
        while self.peers.len() < self.wanted {
            under_way.retain(|_, (_, since)| since.elapsed() < LOST);
            while under_way.len() < GATHERING && self.peers.len() + under_way.len() < self.wanted {
                let content = TicketContent {
                    user: format!("user{started}").parse().unwrap(),
                    peer: PeerId(random_bytes(&mut random)),
                    has_password: false,
                    credential_mark: [0; 8],
                    issued_ms: unix_ms(),
                    expires_ms: unix_ms() + TICKET_LIFE_MS,
                    id: random_bytes(&mut random),
                    resume: Secret::new(random_bytes(&mut random)),
                };
                let resumable = Resumable {
                    ticket: self.office.issue(&content, &mut random),
                    resume: content.resume.clone(),
                };
                let (resuming, datagram) =
                    Resuming::start(&resumable, unix_ms(), Some(8001), &mut random);
                let id = *datagram[1..].first_chunk().unwrap();
                let line = &self.lines[started % SOCKETS].socket;
                let _ = line.send_to(&datagram, self.target);
                under_way.insert(id, (resuming, Instant::now()));
                started += 1;
            }
            let mut resumed = Vec::new();
            self.read(|datagram| {
                let Ok(answer) = <&[u8; RESUMED_LEN]>::try_from(&*datagram) else {
                    return;
                };
                let id: [u8; 7] = *answer[1..].first_chunk().unwrap();
                let Some((mut resuming, _)) = under_way.remove(&id) else {
                    return;
                };
                resumed.extend(resuming.finish(answer));
            });
            for resumed in resumed {
                let id = resumed.session;
                self.by_session.insert(id.to_bytes(), self.peers.len());
                self.peers.push(Peer {
                    sealer: Sealer::new(id, resumed.keys.send),
                    opener: Opener::new(resumed.keys.receive),
                    token: [0; 8],
                    asked: None,
                });
            }
            // What is not used at once is forgotten.
            for peer in beaten..self.peers.len() {
                self.send(peer, &Request::Heartbeat, self.target);
            }
            beaten = self.peers.len();
        }
        // Each proves its address by what the answer to its first heartbeat says.
        self.everybody(|_, _| vec![Request::Heartbeat]);
        self.everybody(|_, _| vec![Request::Heartbeat]);
        began.elapsed()
    }

    /// Every peer tells its names.
    pub(crate) fn publish(&mut self) -> Duration {
        let began = Instant::now();
        self.everybody(|peer, names| {
            let files = (0..names).map(|number| Publication {
                name: name(peer, number).parse().unwrap(),
                content: content(peer, number),
                len: 1_000_000 + u64::from(number),
                kind: PublicationKind::File,
            });
            batches(files, &Audience::EVERYBODY)
                .into_iter()
                .map(Request::Publish)
                .collect()
        });
        began.elapsed()
    }

    /// Each peer asks some things, again until they are answered.
    fn everybody(&mut self, requests: impl Fn(usize, u32) -> Vec<Request>) {
        let mut under_way: HashMap<usize, (Vec<Request>, Instant)> = HashMap::new();
        let mut next = 0;
        while next < self.peers.len() || !under_way.is_empty() {
            while next < self.peers.len() && under_way.len() < 256 {
                let mut asked = requests(next, self.names);
                asked.reverse();
                if let Some(request) = asked.last() {
                    self.send(next, request, self.target);
                    under_way.insert(next, (asked, Instant::now()));
                }
                next += 1;
            }
            let mut answered = Vec::new();
            let mut crowd = std::mem::take(&mut self.peers);
            let by_session = std::mem::take(&mut self.by_session);
            self.read(|datagram| {
                let Some(number) = session_of(datagram, &by_session) else {
                    return;
                };
                match open(&mut crowd[number], datagram) {
                    Some(Response::Again | Response::Refused(_)) | None => {}
                    Some(_) => answered.push(number),
                }
            });
            (self.peers, self.by_session) = (crowd, by_session);
            for number in answered {
                let Some((asked, since)) = under_way.get_mut(&number) else {
                    continue;
                };
                asked.pop();
                *since = Instant::now();
                match asked.last().cloned() {
                    Some(request) => self.send(number, &request, self.target),
                    None => drop(under_way.remove(&number)),
                }
            }
            let late = |since: &Instant| since.elapsed() > Duration::from_millis(200);
            let again: Vec<_> = under_way
                .iter_mut()
                .filter(|(_, (_, since))| late(since))
                .map(|(number, (asked, since))| {
                    *since = Instant::now();
                    (*number, asked[asked.len() - 1].clone())
                })
                .collect();
            for (number, request) in again {
                self.send(number, &request, self.target);
            }
        }
    }

    /// Peers drawn at random ask for `span`, `window` at a time.
    pub(crate) fn ask(
        &mut self,
        tracker: &Target,
        mix: &Mix,
        span: Duration,
        window: usize,
    ) -> Outcome {
        let names = self.names;
        self.drive(tracker, span, window, true, |crowd, number, to| {
            let count = crowd.peers.len();
            let request = match mix.draw() {
                Kind::Heartbeat => Request::Heartbeat,
                Kind::Locate => Request::Locate(Locate {
                    content: content((number + 1) % count, rand::rng().random_range(0..names)),
                    cursor: Cursor::default(),
                }),
                Kind::Search => Request::Search(Search {
                    term: format!(" {}", rand::rng().random_range(0..count)),
                    cursor: Cursor::default(),
                }),
                Kind::Publish => {
                    let other = rand::rng().random_range(0..u32::MAX);
                    let file = Publication {
                        name: name(number, other).parse().unwrap(),
                        content: content(number, other),
                        len: 5,
                        kind: PublicationKind::File,
                    };
                    Request::Publish(batches([file], &Audience::EVERYBODY).remove(0))
                }
            };
            crowd.send(number, &request, to);
        })
    }

    /// The same load on an echo.
    pub(crate) fn shout(&mut self, echo: &Target, span: Duration, window: usize) -> Outcome {
        self.drive(echo, span, window, false, |crowd, number, to| {
            crowd.send(number, &Request::Heartbeat, to);
        })
    }

    fn drive(
        &mut self,
        target: &Target,
        span: Duration,
        window: usize,
        opens: bool,
        mut ask: impl FnMut(&mut Self, usize, SocketAddr),
    ) -> Outcome {
        let window = window.min(self.peers.len());
        let (began, cpu) = (Instant::now(), target.cpu_s());
        let mut outcome = Outcome {
            answered: 0,
            lost: 0,
            refused: 0,
            sampled: 0,
            took: Duration::ZERO,
            cpu_s: 0.0,
            waits_us: Vec::new(),
        };
        let mut under_way = 0;
        let mut looked = began;
        while began.elapsed() < span {
            while under_way < window {
                let number = rand::rng().random_range(0..self.peers.len());
                if self.peers[number].asked.is_some() {
                    continue;
                }
                ask(self, number, target.address());
                self.peers[number].asked = Some(Instant::now());
                under_way += 1;
            }
            let mut crowd = std::mem::take(&mut self.peers);
            let by_session = std::mem::take(&mut self.by_session);
            self.read(|datagram| {
                let number = session_of(datagram, &by_session);
                let Some(asked) = number.and_then(|number| crowd[number].asked.take()) else {
                    return;
                };
                under_way -= 1;
                outcome.answered += 1;
                let wait = asked.elapsed().as_micros();
                outcome.waits_us.push(u32::try_from(wait).unwrap_or(u32::MAX));
                if opens && outcome.answered.is_multiple_of(SAMPLE) {
                    let peer = &mut crowd[number.expect("it had asked")];
                    let response = open(peer, datagram);
                    outcome.sampled += 1;
                    let is_refused =
                        matches!(response, None | Some(Response::Again | Response::Refused(_)));
                    let is_empty = matches!(&response, Some(Response::Located(page)) if page.entries.is_empty());
                    outcome.refused += u64::from(is_refused || is_empty);
                }
            });
            (self.peers, self.by_session) = (crowd, by_session);
            if looked.elapsed() > LOST {
                looked = Instant::now();
                for peer in &mut self.peers {
                    if peer.asked.is_some_and(|asked| asked.elapsed() > LOST) {
                        peer.asked = None;
                        under_way -= 1;
                        outcome.lost += 1;
                    }
                }
            }
        }
        outcome.took = began.elapsed();
        outcome.cpu_s = target.cpu_s() - cpu;
        for peer in &mut self.peers {
            peer.asked = None;
        }
        // What still comes belongs to nobody.
        std::thread::sleep(Duration::from_millis(50));
        self.read(|_| {});
        outcome
    }

    fn send(&mut self, number: usize, request: &Request, to: SocketAddr) {
        self.request = self.request.wrapping_add(1);
        let peer = &mut self.peers[number];
        let plaintext = request.encode(RequestId(self.request), peer.token).unwrap();
        let mut datagram = Vec::with_capacity(plaintext.len() + 32);
        peer.sealer.seal(&plaintext, &mut datagram).unwrap();
        let _ = self.lines[number % SOCKETS].socket.send_to(&datagram, to);
    }

    /// Takes what has come.
    fn read(&mut self, mut take: impl FnMut(&mut [u8])) {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        for line in &self.lines {
            loop {
                let mut chunks = self.buffer.chunks_exact_mut(2048);
                let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                    std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap()));
                let read = line
                    .state
                    .recv((&line.socket).into(), &mut slices, &mut metas);
                let Ok(count) = read else { break };
                for (number, meta) in metas[..count].iter().enumerate() {
                    take(&mut self.buffer[number * 2048..][..meta.len]);
                }
                if count < BATCH_SIZE {
                    break;
                }
            }
        }
    }
}

fn session_of(datagram: &[u8], by_session: &HashMap<[u8; 7], usize>) -> Option<usize> {
    let id: &[u8; 7] = datagram.get(1..)?.first_chunk()?;
    by_session.get(id).copied()
}

fn open(peer: &mut Peer, datagram: &mut [u8]) -> Option<Response> {
    let Ok(Datagram::Data(header)) = Datagram::parse(datagram) else {
        return None;
    };
    let opened = peer.opener.open(header, datagram).ok()?;
    let (head, body) = split(opened.plaintext).ok()?;
    peer.token = head.token;
    Response::decode(&head, body).ok()
}

/// A stranger that shouts.
pub(crate) struct Garbage {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize)>,
}

impl Garbage {
    /// Sends `rate` datagrams a second, of every kind and length that could be one of ours.
    pub(crate) fn start(target: SocketAddr, rate: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let sockets: Vec<_> = (0..SOCKETS)
                .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
                .collect();
            let mut random = OsRandom::new();
            let mut bytes = [0; 1500];
            random.fill(&mut bytes);
            let (began, mut sent) = (Instant::now(), 0_usize);
            while !over.load(Ordering::Relaxed) {
                let due = began.elapsed().as_millis() * u128::from(rate) / 1000;
                while (sent as u128) < due {
                    let kinds = [
                        (0x14, 96),
                        (0x14, 160),
                        (0x12, 304),
                        (0x14, 1232),
                        (0xff, 20),
                    ];
                    let (first, len) = kinds[sent % kinds.len()];
                    bytes[0] = first;
                    bytes[1..9].copy_from_slice(
                        &(sent as u64)
                            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                            .to_be_bytes(),
                    );
                    let _ = sockets[sent % SOCKETS].send_to(&bytes[..len], target);
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(100));
            let mut answered = 0;
            for socket in &sockets {
                socket.set_nonblocking(true).unwrap();
                while socket.recv(&mut bytes).is_ok() {
                    answered += 1;
                }
            }
            (sent, answered)
        });
        Self { is_over, thread }
    }

    /// Datagrams that were sent, and answers to them.
    pub(crate) fn stop(self) -> (usize, usize) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
