//! Hundreds of users at once, on one socket: what the tracker needs for them, and who waits meanwhile.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use p2pfs::crypto::identity::Identity;
use p2pfs::crypto::kdf::{Group as Keys, NetworkName};
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::{Passphrase, Secret};
use p2pfs::crypto::ticket::{Resumable, Resuming};
use p2pfs::peer::enrol::{Enrolled, Target, enrol};
use p2pfs::peer::membership::Membership;
use p2pfs::proto::session::Session;
use p2pfs::wire::control::{Login, Refusal, Request, Response, Ticket};
use p2pfs::wire::id::{RequestId, SessionId};
use p2pfs::wire::packet::Datagram;
use p2pfs::wire::password::Password;

use super::{hash, hashes, tracker};
use crate::support::scrape::{count, metrics_of};
use crate::support::{Group, PASSPHRASE};

const HERE: usize = 100;
const NEW: usize = 500;
/// Everybody who comes back after a restart.
const ALL: usize = 1000;
const BEAT: Duration = Duration::from_millis(500);
const LOGIN: RequestId = RequestId(1);

struct Client {
    session: Session,
    id: SessionId,
    number: usize,
    resume: Secret<32>,
    ticket: Option<Ticket>,
    unix_ms: u64,
    /// When LOGIN goes out; absent while it must not, and when it was answered.
    login_at: Option<Instant>,
    beat_at: Instant,
    beats: u32,
    awaited: Option<(RequestId, Instant)>,
}

struct Crowd {
    socket: UdpSocket,
    tracker: SocketAddr,
    clients: Vec<Client>,
    of: HashMap<SessionId, usize>,
    slowest_beat: Duration,
}

impl Crowd {
    fn enrol(tracker: SocketAddr, count: usize) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let secret = Passphrase::parse(PASSPHRASE).unwrap();
        let keys = Keys::derive(&secret, NetworkName::default());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (clients, of) = (Vec::new(), HashMap::new());
        let slowest_beat = Duration::ZERO;
        let mut crowd = Self {
            socket,
            tracker,
            clients,
            of,
            slowest_beat,
        };
        while crowd.clients.len() < count {
            let join = async {
                let mut joining = tokio::task::JoinSet::new();
                for _ in 0..16 {
                    let identity = Identity::generate(&mut OsRandom::new());
                    let membership = Membership::new(keys.clone(), identity);
                    let target = Target {
                        host: tracker.ip().to_string(),
                        port: tracker.port(),
                        key: None,
                        pin: None,
                        pins: None,
                    };
                    joining.spawn(async move { enrol(&target, &membership, 9).await.unwrap() });
                }
                joining.join_all().await
            };
            for enrolled in runtime.block_on(join) {
                crowd.add(enrolled);
            }
            // An unused session is forgotten after ten seconds: heartbeats keep those that wait.
            crowd.turn();
        }
        crowd
    }

    fn add(&mut self, enrolled: Enrolled) {
        assert!(enrolled.needs_password);
        let (established, now) = (enrolled.established, Instant::now());
        let (id, number) = (established.session, self.clients.len());
        self.of.insert(id, number);
        self.clients.push(Client {
            session: Session::new(now, id, established.keys, established.rhythm),
            id,
            number,
            resume: established.resume,
            ticket: None,
            unix_ms: established.tracker_unix_ms,
            login_at: None,
            beat_at: now,
            beats: 1,
            awaited: None,
        });
    }

    /// Sends what is due and takes what came.
    fn turn(&mut self) {
        let now = Instant::now();
        for client in &mut self.clients {
            let mut out = Vec::new();
            if client.login_at.is_some_and(|at| at <= now) {
                client.login_at = Some(now + Duration::from_millis(500));
                let login = Request::Login(Login {
                    user: format!("user{}", client.number).parse().unwrap(),
                    password: Some(Password::parse("the same for all").unwrap()),
                });
                assert!(client.session.seal(LOGIN, &login, &mut out).unwrap());
                let _ = self.socket.send_to(&out, self.tracker);
                out.clear();
            }
            if client.beat_at <= now {
                client.beat_at = now + BEAT;
                if client.awaited.is_none() {
                    client.beats += 1;
                    client.awaited = Some((RequestId(client.beats), now));
                }
                let id = RequestId(client.beats);
                assert!(
                    client
                        .session
                        .seal(id, &Request::Heartbeat, &mut out)
                        .unwrap()
                );
                let _ = self.socket.send_to(&out, self.tracker);
            }
        }
        let mut datagram = [0; 2048];
        while let Ok(len) = self.socket.recv(&mut datagram) {
            self.take(&mut datagram[..len]);
        }
        for client in &self.clients[..HERE.min(self.clients.len())] {
            if let Some((_, since)) = client.awaited {
                self.slowest_beat = self.slowest_beat.max(since.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }

    fn take(&mut self, datagram: &mut [u8]) {
        let Ok(Datagram::Data(header)) = Datagram::parse(datagram) else {
            return;
        };
        let Some(number) = self.of.get(&header.session) else {
            return;
        };
        let (client, now) = (&mut self.clients[*number], Instant::now());
        match client.session.open(now, datagram) {
            Some((id, Response::Heartbeat(_))) => {
                if let Some((_, since)) = client.awaited.take_if(|(awaited, _)| *awaited == id)
                    && *number < HERE
                {
                    self.slowest_beat = self.slowest_beat.max(since.elapsed());
                }
            }
            Some((LOGIN, Response::LoggedIn(answer))) => {
                (client.login_at, client.ticket) = (None, Some(answer.ticket));
            }
            Some((LOGIN, Response::Wait(ms))) if client.ticket.is_none() => {
                client.login_at = Some(now + Duration::from_millis(u64::from(ms).max(20)));
            }
            Some((_, Response::Again)) => {}
            Some((id, Response::Refused(Refusal::TooFast { .. }))) => panic!("{id:?} too fast"),
            Some((_, other)) => panic!("{number}: {other:?}"),
            None => {}
        }
    }

    fn log_in(&mut self, which: std::ops::Range<usize>) {
        let (now, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(120));
        for client in &mut self.clients[which.clone()] {
            client.login_at = Some(now);
        }
        while self.clients[which.clone()]
            .iter()
            .any(|client| client.ticket.is_none())
        {
            assert!(Instant::now() < deadline, "somebody is never served");
            self.turn();
        }
    }

    /// Everybody comes back with a ticket, to a tracker that knows nobody.
    fn resume(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut missing: Vec<usize> = (0..self.clients.len()).collect();
        let mut tries = Vec::new();
        while !missing.is_empty() {
            assert!(
                Instant::now() < deadline,
                "{} are never back",
                missing.len()
            );
            for number in &missing {
                let client = &self.clients[*number];
                let resumable = Resumable {
                    ticket: client.ticket.clone().unwrap(),
                    resume: client.resume.clone(),
                };
                let now_ms = client.unix_ms
                    + u64::try_from(client.session.began().elapsed().as_millis()).unwrap();
                let (resuming, datagram) =
                    Resuming::start(&resumable, now_ms, Some(9), &mut OsRandom::new());
                tries.push((*number, resuming));
                let _ = self.socket.send_to(&datagram, self.tracker);
            }
            let wait = Instant::now() + Duration::from_secs(1);
            let mut datagram = [0; 2048];
            while Instant::now() < wait && !missing.is_empty() {
                let Ok(len) = self.socket.recv(&mut datagram) else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let Ok(datagram) = (&datagram[..len]).try_into() else {
                    continue;
                };
                let found = tries
                    .iter_mut()
                    .find_map(|(number, resuming)| Some((*number, resuming.finish(datagram)?)));
                if let Some((number, resumed)) = found {
                    missing.retain(|other| *other != number);
                    let (now, client) = (Instant::now(), &mut self.clients[number]);
                    let rhythm = client.session.rhythm();
                    client.session = Session::new(now, resumed.session, resumed.keys, rhythm);
                    (client.id, client.ticket) = (resumed.session, Some(resumed.resumable.ticket));
                    (client.beat_at, client.awaited) = (now, None);
                    self.of.insert(client.id, number);
                }
            }
        }
    }
}

#[test]
fn row_19_five_hundred_logins_at_once_and_a_restart_without_a_hash() {
    let group = Group::new();
    let (all, line) = (HERE + NEW, hash("the same for all"));
    let text: String = (0..ALL + 16)
        .map(|number| format!("user{number}:{line}\n"))
        .collect();
    let credentials = group.write_private("users", &text);
    let (mut first, address) = tracker(&group, &credentials, "0");
    let mut crowd = Crowd::enrol(address.parse().unwrap(), ALL);
    crowd.clients.truncate(ALL);
    crowd.of.retain(|_, number| *number < ALL);
    first.reset_peak();
    let before = first.peak_kib() >> 10;
    crowd.log_in(0..HERE);
    assert_eq!(hashes(&first), HERE);

    crowd.slowest_beat = Duration::ZERO;
    let began = Instant::now();
    crowd.log_in(HERE..all);
    let (elapsed, peak) = (began.elapsed(), first.peak_kib() >> 10);
    let seen = format!(
        "{elapsed:?}, {before} to {peak} MiB, {:?}",
        crowd.slowest_beat
    );
    assert_eq!(
        hashes(&first),
        all,
        "one hash for each, however often it asked"
    );
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(peak < before + 48 + 20 * cores as u64, "{seen}");
    assert!(
        crowd.slowest_beat < Duration::from_secs(2),
        "{:?}",
        crowd.slowest_beat
    );

    crowd.log_in(all..ALL);
    assert_eq!(hashes(&first), ALL);
    first.kill();
    let port = address.rsplit(':').next().unwrap();
    let (second, _) = tracker(&group, &credentials, port);
    let began = Instant::now();
    crowd.resume();
    let deadline = Instant::now() + Duration::from_secs(30);
    let metrics = metrics_of(&second);
    while count(metrics, "p2pfs_tracker_peers") < ALL {
        assert!(Instant::now() < deadline, "not all are back");
        crowd.turn();
    }
    println!("{ALL} are back after {:?}", began.elapsed());
    assert_eq!(hashes(&second), 0);
}
