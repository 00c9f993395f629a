//! One request through the tracker without its socket: open, decide, seal.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up shall stop"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use p2pfs::crypto::envelope::{DatagramKeys, Sealer};
use p2pfs::crypto::kdf::{Group, NetworkName, TrackerSeed};
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::{Passphrase, Secret};
use p2pfs::crypto::ticket::TicketOffice;
use p2pfs::proto::endpoint::{Admission, Endpoint};
use p2pfs::proto::session::Rhythm;
use p2pfs::tracker::engine::{Busy, Engine, Job, Outlet, Scratch, Spot};
use p2pfs::tracker::service::Service;
use p2pfs::wire::control::{Cursor, Files, Login, Publication, PublicationKind, Request, Search};
use p2pfs::wire::id::{ContentId, PeerId, RequestId};

const UNIX_MS: u64 = 1_790_000_000_000;

struct Bench {
    engine: Engine,
    scratch: Scratch,
    peers: Vec<(Sealer, SocketAddr)>,
    now: Instant,
    request: u32,
}

impl Bench {
    fn new(group: &Group, peers: u32) -> Self {
        let now = Instant::now();
        let office = TicketOffice::new(group, &TrackerSeed(Secret::new([7; 32])));
        let rhythm = Rhythm::new(Duration::from_secs(2), Duration::from_secs(3));
        let endpoint = Endpoint::new(office, rhythm, 1, &mut OsRandom::new());
        let service = Service::new(1_000_000, Vec::new());
        let mut bench = Self {
            engine: Engine::new(endpoint, service, None),
            scratch: Scratch::default(),
            peers: Vec::new(),
            now,
            request: 0,
        };
        for number in 0..peers {
            bench.join(number);
        }
        bench
    }

    fn join(&mut self, number: u32) {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let admission = Admission {
            peer: PeerId(key),
            keys: DatagramKeys {
                send: Secret::new(key),
                receive: Secret::new(key),
            },
            resume: Secret::new([2; 32]),
            ip: Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
            listening_port: Some(8001),
        };
        let session = self.engine.admit(admission, &mut OsRandom::new()).unwrap();
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number)), 7000);
        self.peers
            .push((Sealer::new(session, Secret::new(key)), address));
        let user = format!("user{number}").parse().unwrap();
        self.ask(
            number as usize,
            &Request::Login(Login {
                user,
                password: None,
            }),
        );
        let name = format!("holiday {number}.jpg").parse().unwrap();
        let files = vec![Publication {
            name,
            content: ContentId(key),
            len: 1,
            kind: PublicationKind::File,
        }];
        self.ask(
            number as usize,
            &Request::Publish(Files::for_everybody(files)),
        );
    }

    /// One request of one peer, to the last byte of its answer.
    fn ask(&mut self, peer: usize, request: &Request) {
        self.request = self.request.wrapping_add(1);
        let (sealer, from) = &mut self.peers[peer];
        let plaintext = request.encode(RequestId(self.request), [0; 8]).unwrap();
        let mut datagram = Vec::with_capacity(1232);
        sealer.seal(&plaintext, &mut datagram).unwrap();
        let mut spots = [Spot::new(0, datagram.len(), *from)];
        let mut post = Post::default();
        let (engine, scratch) = (&self.engine, &mut self.scratch);
        engine.handle(
            Instant::now(),
            &mut datagram,
            &mut spots,
            scratch,
            &mut post,
        );
        while let Some(job) = post.jobs.pop() {
            let times = (self.now, UNIX_MS);
            engine.work(times, job, &mut OsRandom::new(), scratch, &mut post);
        }
        assert_eq!(post.answers, 1, "{request:?}");
    }
}

/// Counts answers, and keeps what is to be done later.
#[derive(Default)]
struct Post {
    answers: usize,
    jobs: Vec<Job>,
}

impl Outlet for Post {
    fn send(&mut self, _to: SocketAddr, _datagram: &[u8]) {
        self.answers += 1;
    }

    fn hand_over(&mut self, job: Job) -> Result<(), Busy> {
        self.jobs.push(job);
        Ok(())
    }
}

fn requests(criterion: &mut Criterion) {
    let passphrase = Passphrase::parse("a passphrase for benches").unwrap();
    let group = Group::derive(&passphrase, NetworkName::default());
    let mut bench = criterion.benchmark_group("request");
    bench.throughput(Throughput::Elements(1));
    bench.sample_size(20);
    for peers in [1, 1000, 100_000] {
        let mut tracker = Bench::new(&group, peers);
        let mut turn = 0;
        let mut next = |tracker: &mut Bench| {
            // Each a little later, and a tick now and then, so that no budget is the limit.
            tracker.now += Duration::from_millis(1);
            if turn % (1024 * peers) == 0 {
                tracker
                    .engine
                    .sweep((tracker.now, UNIX_MS), &mut tracker.scratch);
            }
            turn += 7919;
            (turn % peers) as usize
        };
        bench.bench_function(BenchmarkId::new("heartbeat", peers), |bencher| {
            bencher.iter(|| {
                let peer = next(&mut tracker);
                tracker.ask(peer, &Request::Heartbeat);
            });
        });
        let search = Request::Search(Search {
            term: "day 7".to_owned(),
            cursor: Cursor::default(),
        });
        bench.bench_function(BenchmarkId::new("search", peers), |bencher| {
            bencher.iter(|| {
                let peer = next(&mut tracker);
                tracker.now += Duration::from_millis(50);
                tracker.ask(peer, &search);
            });
        });
    }
    bench.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
