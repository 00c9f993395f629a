//! The tracker's hot path: heartbeats and locates take no memory and wait for nobody.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use p2pfs::crypto::envelope::{DatagramKeys, Opener, Sealer};
use p2pfs::crypto::kdf::{Group, NetworkName, TrackerSeed};
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::{Passphrase, Secret};
use p2pfs::crypto::ticket::TicketOffice;
use p2pfs::proto::endpoint::{Admission, Endpoint};
use p2pfs::proto::session::Rhythm;
use p2pfs::tracker::engine::{Busy, Engine, Job, Outlet, Scratch, Spot};
use p2pfs::tracker::service::Service;
use p2pfs::wire::control::{
    Audience, Cursor, Files, Locate, Login, PathToken, Publication, PublicationKind, Refusal,
    Request, Response, Search, split,
};
use p2pfs::wire::id::{ContentId, PeerId, RequestId};
use p2pfs::wire::packet::Datagram;

struct Peer {
    sealer: Sealer,
    opener: Opener,
    token: PathToken,
    from: SocketAddr,
    requests: u32,
}

/// The last answer, and what a worker left to others.
struct Post {
    answer: [u8; 1232],
    len: usize,
    jobs: Vec<Job>,
    /// Too many jobs wait.
    is_full: bool,
}

impl Outlet for Post {
    fn send(&mut self, _to: SocketAddr, datagram: &[u8]) {
        self.answer[..datagram.len()].copy_from_slice(datagram);
        self.len = datagram.len();
    }

    fn hand_over(&mut self, job: Job) -> Result<(), Busy> {
        if self.is_full {
            return Err(Busy);
        }
        self.jobs.push(job);
        Ok(())
    }
}

struct World {
    engine: Engine,
    scratch: Scratch,
    post: Post,
}

impl World {
    fn new() -> Self {
        let passphrase = Passphrase::parse("a passphrase for tests").unwrap();
        let group = Group::derive(&passphrase, NetworkName::default());
        let office = TicketOffice::new(&group, &TrackerSeed(Secret::new([7; 32])));
        let rhythm = Rhythm::new(Duration::from_secs(2), Duration::from_secs(3));
        let endpoint = Endpoint::new(office, rhythm, 1, &mut OsRandom::new());
        Self {
            engine: Engine::new(endpoint, Service::new(100, Vec::new()), None),
            scratch: Scratch::default(),
            post: Post {
                answer: [0; 1232],
                len: 0,
                jobs: Vec::new(),
                is_full: false,
            },
        }
    }

    fn join(&mut self, number: u8) -> Peer {
        let key = || Secret::new([number; 32]);
        let from = SocketAddr::new([10, 0, 0, number].into(), 7000);
        let admission = Admission {
            peer: PeerId([number; 32]),
            keys: DatagramKeys {
                send: key(),
                receive: key(),
            },
            resume: key(),
            ip: from.ip(),
            listening_port: Some(8001),
        };
        let session = self.engine.admit(admission, &mut OsRandom::new()).unwrap();
        let mut peer = Peer {
            sealer: Sealer::new(session, key()),
            opener: Opener::new(key()),
            token: [0; 8],
            from,
            requests: 0,
        };
        let user = format!("peer{number}").parse().unwrap();
        let answer = self
            .ask(
                &mut peer,
                &Request::Login(Login {
                    user,
                    password: None,
                }),
            )
            .1;
        assert!(matches!(answer, Response::LoggedIn(_)), "{answer:?}");
        peer
    }

    /// Allocations that the tracker makes for one request, and its answer.
    fn ask(&mut self, peer: &mut Peer, request: &Request) -> (u64, Response) {
        peer.requests += 1;
        let number = RequestId(peer.requests);
        let plaintext = request.encode(number, peer.token).unwrap();
        let mut datagram = Vec::new();
        peer.sealer.seal(&plaintext, &mut datagram).unwrap();
        let mut spots = [Spot::new(0, datagram.len(), peer.from)];
        let Self {
            engine,
            scratch,
            post,
        } = self;
        let counted = allocation_counter::measure(|| {
            engine.handle(Instant::now(), &mut datagram, &mut spots, scratch, post);
        });
        while let Some(job) = post.jobs.pop() {
            let times = (Instant::now(), 1_790_000_000_000);
            engine.work(times, job, &mut OsRandom::new(), scratch, post);
        }
        let answer = &mut post.answer[..post.len];
        let Ok(Datagram::Data(header)) = Datagram::parse(answer) else {
            panic!("no answer");
        };
        let opened = peer.opener.open(header, answer).unwrap();
        let (head, body) = split(opened.plaintext).unwrap();
        assert_eq!(head.request, number);
        peer.token = head.token;
        let response = Response::decode(&head, body).unwrap();
        (counted.count_total, response)
    }
}

#[test]
fn heartbeats_and_locates_take_no_memory() {
    let mut world = World::new();
    let mut peers: Vec<_> = (1..=20).map(|number| world.join(number)).collect();
    let content = ContentId([9; 32]);
    let file = Publication {
        name: "shared by all.txt".parse().unwrap(),
        content,
        len: 5,
        kind: PublicationKind::File,
    };
    for peer in &mut peers {
        let files = vec![file.clone()];
        let (_, answer) = world.ask(peer, &Request::Publish(Files::for_everybody(files)));
        assert_eq!(answer, Response::Published);
    }
    let secret = ContentId([8; 32]);
    let for_one = Files {
        files: vec![Publication {
            content: secret,
            ..file.clone()
        }],
        audience: Audience::of([PeerId([1; 32])]).unwrap(),
    };
    let mut owner = peers.pop().unwrap();
    let (_, answer) = world.ask(&mut owner, &Request::Publish(for_one));
    assert_eq!(answer, Response::Published);
    for (number, peer) in peers.iter_mut().enumerate() {
        let (content, cursor) = (secret, Cursor::default());
        let locate = Request::Locate(Locate { content, cursor });
        let (taken, answer) = world.ask(peer, &locate);
        let Response::Located(page) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(page.entries.len(), usize::from(number == 0));
        assert_eq!(taken, 0, "allocations of a LOCATE of what is for one");
    }
    for _ in 0..100 {
        for peer in &mut peers {
            let (taken, answer) = world.ask(peer, &Request::Heartbeat);
            assert!(
                matches!(answer, Response::Heartbeat(ack) if ack.published == 1 && ack.digest == file.mark(&Audience::EVERYBODY)),
                "{answer:?}"
            );
            assert_eq!(taken, 0, "allocations of a heartbeat");
            let locate = Request::Locate(Locate {
                content,
                cursor: Cursor::default(),
            });
            let (taken, answer) = world.ask(peer, &locate);
            let Response::Located(page) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(
                (page.entries.len(), page.total),
                (19, 19),
                "all but the asker"
            );
            assert_eq!(taken, 0, "allocations of a LOCATE");
        }
    }
    let search = Request::Search(Search {
        term: "all".to_owned(),
        cursor: Cursor::default(),
    });
    let (taken, _) = world.ask(&mut peers[0], &search);
    assert!(taken > 0, "what takes memory is seen");
}

#[test]
fn a_busy_tracker_says_so_and_answers_heartbeats() {
    let mut world = World::new();
    let mut peer = world.join(1);
    world.ask(&mut peer, &Request::Heartbeat);
    world.post.is_full = true;
    let search = Request::Search(Search {
        term: "anything".to_owned(),
        cursor: Cursor::default(),
    });
    let (_, answer) = world.ask(&mut peer, &search);
    assert!(
        matches!(answer, Response::Refused(Refusal::TooFast { .. })),
        "{answer:?}"
    );
    let (_, answer) = world.ask(&mut peer, &Request::Heartbeat);
    assert!(matches!(answer, Response::Heartbeat(_)), "{answer:?}");
    world.post.is_full = false;
    let (_, answer) = world.ask(&mut peer, &search);
    assert!(matches!(answer, Response::Found(_)), "{answer:?}");
}

#[test]
fn a_page_of_holders_goes_on_where_it_stopped() {
    let mut world = World::new();
    let mut peers: Vec<_> = (1..=90).map(|number| world.join(number)).collect();
    let content = ContentId([9; 32]);
    for (number, peer) in (1..).zip(&mut peers) {
        let files = vec![Publication {
            name: "shared by all.txt".parse().unwrap(),
            content,
            len: number,
            kind: PublicationKind::File,
        }];
        world.ask(peer, &Request::Publish(Files::for_everybody(files)));
    }
    let (mut cursor, mut seen) = (Cursor::default(), Vec::new());
    let mut pages = 0;
    loop {
        let locate = Request::Locate(Locate { content, cursor });
        let (_, answer) = world.ask(&mut peers[0], &locate);
        let Response::Located(page) = answer else {
            panic!("{answer:?}");
        };
        pages += 1;
        seen.extend(
            page.entries
                .iter()
                .map(|holder| (holder.peer.0[0], holder.len)),
        );
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let expected: Vec<_> = (2..=90).map(|number| (number, u64::from(number))).collect();
    assert_eq!(seen, expected);
    assert!(pages > 2, "{pages} pages");
}
