//! How long a tracker takes to say no: to a wrong password, and to a user that it does not have.
//!
//! Both kinds take turns, each attempt from an address of its own, at the machine that answers LOGIN, with
//! its threads that hash; only the network is missing. What matters is the ratio of the two medians, beside
//! that of the even and the odd attempts of one kind, which is what chance makes of two equal things.
//! `--rounds N` attempts of each kind, among `--users N` users; without them as many as take seconds.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot be set up shall stop, and its figures are for people"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2pfs::crypto::kdf::{Group, NetworkName, TrackerSeed};
use p2pfs::crypto::password::PasswordHash;
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::{Passphrase, Secret};
use p2pfs::crypto::ticket::TicketOffice;
use p2pfs::proto::endpoint::Caller;
use p2pfs::tracker::credentials::{Credentials, Users};
use p2pfs::tracker::hashing::{Outcome, Pool};
use p2pfs::tracker::logins::{Logins, Ruling};
use p2pfs::tracker::metrics::Metrics;
use p2pfs::wire::control::{Login, Refusal, Request, Response};
use p2pfs::wire::id::{PeerId, RequestId, SessionId};
use p2pfs::wire::password::Password;
use tokio::sync::mpsc;

const UNIX_MS: u64 = 1_790_000_000_000;

struct Bench {
    logins: Logins,
    outcomes: mpsc::Receiver<Outcome>,
    attempts: u32,
}

impl Bench {
    fn new(users: usize) -> Self {
        let random = &mut OsRandom::new();
        let hash = PasswordHash::new(&Password::parse("the right one").unwrap(), random);
        let text: String = (0..users)
            .map(|number| format!("user{number}:{}\n", hash.as_str()))
            .collect();
        let (users, _) = Users::parse(text.as_bytes(), random);
        let passphrase = Passphrase::parse("a passphrase for a bench").unwrap();
        let group = Group::derive(&passphrase, NetworkName::default());
        let credentials = Arc::new(Credentials::new(users));
        let mut office = TicketOffice::new(&group, &TrackerSeed(Secret::new([7; 32])));
        office.ask_for_passwords(credentials.clone());
        let metrics = Arc::new(Metrics::new(Instant::now(), Duration::from_secs(2)));
        let (sender, outcomes) = mpsc::channel(16);
        let pool = Pool::start(&sender, &metrics).unwrap();
        Self {
            logins: Logins::new(credentials, office, pool, metrics),
            outcomes,
            attempts: 0,
        }
    }

    /// From LOGIN to its refusal.
    fn refuse(&mut self, user: &str) -> Duration {
        self.attempts += 1;
        let ip = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + self.attempts));
        let mut key = [0; 32];
        key[..4].copy_from_slice(&self.attempts.to_be_bytes());
        let caller = Caller {
            session: SessionId::from_bytes([1; 7]),
            peer: PeerId(key),
            from: SocketAddr::new(ip, 7000),
            ip,
            listening_port: None,
            is_member: false,
            ticket: None,
        };
        let request = Request::Login(Login {
            user: user.parse().unwrap(),
            password: Some(Password::parse("a wrong one").unwrap()),
        });
        let began = Instant::now();
        let ruling = self
            .logins
            .receive(began, UNIX_MS, &caller, RequestId(1), request);
        assert!(matches!(ruling, Ruling::Answer(Response::Wait(_))));
        let outcome = self.outcomes.blocking_recv().unwrap();
        let (.., response) = self.logins.finish(Instant::now(), outcome).unwrap();
        let took = began.elapsed();
        assert_eq!(response, Response::Refused(Refusal::WrongLogin));
        took
    }
}

fn micros(times: &[Duration], share: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6
}

fn every_other(times: &[Duration], first: usize) -> f64 {
    let times: Vec<_> = times.iter().copied().skip(first).step_by(2).collect();
    micros(&times, 50)
}

fn argument(name: &str, usual: usize) -> usize {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next().map_or(usual, |value| value.parse().unwrap())
}

fn main() {
    let (rounds, users) = (argument("--rounds", 200), argument("--users", 100));
    let mut bench = Bench::new(users);
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let somebody = format!("user{}", round * 7 % users);
        let nobody = format!("nobody{round}");
        // Whoever comes second finds the caches warm.
        if round % 2 == 0 {
            wrong.push(bench.refuse(&somebody));
            unknown.push(bench.refuse(&nobody));
        } else {
            unknown.push(bench.refuse(&nobody));
            wrong.push(bench.refuse(&somebody));
        }
    }
    println!("{rounds} attempts of each kind, {users} users; µs: median (10th to 90th percentile)");
    for (what, times) in [("wrong password", &wrong), ("unknown user", &unknown)] {
        println!(
            "{what:<15} {:8.0} ({:.0} to {:.0}); even ÷ odd attempts {:.4}",
            micros(times, 50),
            micros(times, 10),
            micros(times, 90),
            every_other(times, 0) / every_other(times, 1),
        );
    }
    let ratio = micros(&unknown, 50) / micros(&wrong, 50);
    println!("unknown user ÷ wrong password {ratio:.4}");
}
