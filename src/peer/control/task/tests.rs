//! The task, against a tracker that is one socket.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::super::Control;
use super::*;
use crate::crypto::envelope::{DatagramKeys, FlatOpener, FlatSealer};
use crate::crypto::identity::Identity;
use crate::crypto::kdf::{Group, MemberKey, NetworkName};
use crate::crypto::secret::{Passphrase, Secret};
use crate::peer::enrol::Target;
use crate::peer::membership::Membership;
use crate::proto::attachment::Established;
use crate::proto::backoff::Retry;
use crate::proto::endpoint::plaintext_of;
use crate::proto::session::Rhythm;
use crate::wire::control::{
    Audience, Cursor, HeartbeatAck, LoggedIn, Page, Publication, PublicationKind, Search, Ticket,
    split,
};
use crate::wire::id::{ContentId, PeerId, SessionId};
use crate::wire::packet::{DATAGRAM_OVERHEAD, Datagram};

const SESSION: SessionId = SessionId::from_bytes([7; 7]);

/// What the tracker knows, and how it is.
#[derive(Default)]
struct Known {
    files: HashSet<Publication>,
    /// So many times it has no time for PUBLISH.
    refusals: usize,
    /// It does not answer PUBLISH.
    is_mute: bool,
    /// It was asked to.
    was_told: bool,
}

impl Known {
    fn answer(&mut self, request: Request) -> Option<Response> {
        Some(match request {
            Request::Login(_) => Response::LoggedIn(LoggedIn {
                ticket: Ticket([0; Ticket::LEN]),
                observed: SocketAddr::from(([127, 0, 0, 1], 1)),
            }),
            Request::Heartbeat => Response::Heartbeat(HeartbeatAck {
                interval_ms: 200,
                silence_ms: 60_000,
                published: u32::try_from(self.files.len()).unwrap(),
                digest: self
                    .files
                    .iter()
                    .fold(0, |digest, file| digest ^ file.mark(&Audience::EVERYBODY)),
            }),
            Request::Publish(_) if self.is_mute => {
                self.was_told = true;
                return None;
            }
            Request::Publish(_) if self.refusals > 0 => {
                self.refusals -= 1;
                Response::Refused(Refusal::TooFast { wait_ms: 1 })
            }
            Request::Publish(files) => {
                self.files.extend(files.files);
                Response::Published
            }
            Request::Search(_) => Response::Found(Page {
                entries: Vec::new(),
                next: None,
                total: 0,
            }),
            other => panic!("{other:?}"),
        })
    }
}

async fn serve(socket: UdpSocket, keys: [Secret<32>; 2], known: Arc<Mutex<Known>>) {
    let (mut opener, mut sealer) = (FlatOpener::new(&keys[0]), FlatSealer::new(&keys[1]));
    let (mut bytes, mut out) = ([0; 2048], [0; MAX_DATAGRAM_LEN]);
    loop {
        let (len, from) = socket.recv_from(&mut bytes).await.unwrap();
        let Ok(Datagram::Data(header)) = Datagram::parse(&bytes[..len]) else {
            continue;
        };
        let opened = opener.open(header, &mut bytes[..len]).unwrap();
        let (head, body) = split(opened.plaintext).unwrap();
        let request = Request::decode(&head, body).unwrap();
        let Some(response) = known.lock().unwrap().answer(request) else {
            continue;
        };
        let class = response.write(head.request, [1; 8], plaintext_of(&mut out));
        let len = class.unwrap() + DATAGRAM_OVERHEAD;
        sealer.seal(SESSION, &mut out[..len]).unwrap();
        socket.send_to(&out[..len], from).await.unwrap();
    }
}

/// A peer that shares `files`, which its tracker has not heard of.
async fn peer(files: Vec<Publication>, known: &Arc<Mutex<Known>>) -> Control {
    let [up, down] = [1, 2].map(|byte| Secret::new([byte; 32]));
    let tracker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = tracker.local_addr().unwrap();
    let keys = [up.clone(), down.clone()];
    tokio::spawn(serve(tracker, keys, Arc::clone(known)));
    let passphrase = Passphrase::parse("a passphrase for tests").unwrap();
    let group = Group::derive(&passphrase, NetworkName::default());
    let setup = Setup {
        target: Target {
            host: "127.0.0.1".to_owned(),
            port: address.port(),
            key: None,
            pin: None,
            pins: None,
        },
        membership: Membership::new(group, Identity::generate(&mut OsRandom::new())),
        user: "ana".parse().unwrap(),
        password: None,
        listening_port: 8001,
        retry: Retry::default(),
        is_neighbour: false,
        events: mpsc::channel(1).0,
        shutdown: tokio_util::sync::CancellationToken::new(),
    };
    let enrolled = Enrolled {
        established: Established {
            session: SESSION,
            keys: DatagramKeys {
                send: up,
                receive: down,
            },
            resume: Secret::new([3; 32]),
            rhythm: Rhythm::new(Duration::from_millis(200), Duration::from_secs(60)),
            tracker_unix_ms: 1,
        },
        member_key: MemberKey(Secret::new([4; 32])),
        address,
        tracker: PeerId([5; 32]),
        needs_password: false,
    };
    let socket = bind_towards(address).await.unwrap();
    let (sender, messages) = mpsc::channel(256);
    let (out, logged_out) = watch::channel(None);
    let control = Control {
        messages: sender.clone(),
        tracker: enrolled.tracker,
        address,
        has_password: false,
        logged_out,
        neighbours: None,
    };
    let mut task = Task::new(setup, enrolled, socket, (sender, messages), out);
    for file in files {
        task.announce.publish(file, Audience::EVERYBODY);
    }
    tokio::spawn(task.run());
    control
}

fn file(number: u32) -> Publication {
    Publication {
        // Four of them fill a request.
        name: format!("{number:0>240}").parse().unwrap(),
        content: ContentId([8; 32]),
        len: 5,
        kind: PublicationKind::File,
    }
}

fn search() -> Request {
    Request::Search(Search {
        term: "song".to_owned(),
        cursor: Cursor::default(),
    })
}

/// More requests than may wait for their turn.
#[tokio::test]
async fn however_much_is_announced_again_all_of_it_is_and_searches_are_answered_meanwhile() {
    const FILES: u32 = 17_000;
    let known = Arc::new(Mutex::new(Known::default()));
    let control = peer((0..FILES).map(file).collect(), &known).await;
    let is_known = || known.lock().unwrap().files.len() == FILES as usize;
    while !is_known() {
        control.ask(search()).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_busy_tracker_does_not_take_is_no_error_and_told_again() {
    let known = Arc::new(Mutex::new(Known {
        refusals: 2,
        ..Known::default()
    }));
    let control = peer(Vec::new(), &known).await;
    assert_eq!(control.publish(file(1), Audience::EVERYBODY).await, Ok(()));
    while known.lock().unwrap().files.is_empty() {
        control.ask(search()).await.unwrap();
    }
}

/// The rest is told later: so many files take a tracker without an answer longer than the test runs.
#[tokio::test]
async fn a_search_does_not_wait_until_everything_is_announced_again() {
    let known = Arc::new(Mutex::new(Known {
        is_mute: true,
        ..Known::default()
    }));
    let control = peer((0..17_000).map(file).collect(), &known).await;
    let began = async {
        // The answers of before the first heartbeat are given at once.
        while control.ask(search()).await.is_ok() && !known.lock().unwrap().was_told {}
        control.ask(search()).await
    };
    let answered = tokio::time::timeout(Duration::from_secs(20), began).await;
    answered.expect("it waits").unwrap();
    assert!(known.lock().unwrap().files.is_empty());
}
