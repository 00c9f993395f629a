//! The exact bytes of every message, as `tests/vectors/control.json`, `transfer.json` and `talk.json` pin them.
//!
//! A message that encodes to other bytes than before is another protocol: these files change with the
//! version, and `docs/protocol.md` quotes them as its examples.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use data_encoding::HEXLOWER;
use p2pfs::wire::control::{
    self, Audience, Cursor, Files, HeartbeatAck, Hit, Holder, ListFiles, ListPeers, Locate,
    LoggedIn, Login, Page, PeerEntry, Publication, PublicationKind, Refusal, Request, Response,
    Search, Ticket, Who,
};
use p2pfs::wire::frame::Welcome;
use p2pfs::wire::id::{ContentId, PeerId, RequestId, SessionId};
use p2pfs::wire::packet::{DataHeader, FrameHeader};
use p2pfs::wire::password::Password;
use p2pfs::wire::talk::{self, Answer, Offer, OfferAnswer, OfferState, Receipt, Whose};
use p2pfs::wire::text::{FileName, UserName};
use p2pfs::wire::transfer::{Frame, HashPage, Opened, PieceSet, Wanted, WantedFiles};
use serde_json::{Map, Value, json};

const ID: RequestId = RequestId(0x0102_0304);
const TOKEN: control::PathToken = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7];

#[test]
fn control_messages_have_these_bytes() {
    let mut requests = Map::new();
    for (name, request) in requests_by_name() {
        let plaintext = request.encode(ID, TOKEN).expect("it fits a datagram");
        let (head, body) = control::split(&plaintext).unwrap();
        assert_eq!((head.request, head.token), (ID, TOKEN), "{name}");
        assert_eq!(
            Request::decode(&head, body).as_ref(),
            Ok(&request),
            "{name}"
        );
        requests.insert(name.to_owned(), padded(&plaintext));
    }
    let mut responses = Map::new();
    for (name, response) in responses_by_name() {
        let plaintext = response.encode(ID, TOKEN).expect("it fits a datagram");
        let (head, body) = control::split(&plaintext).unwrap();
        assert_eq!(
            Response::decode(&head, body).as_ref(),
            Ok(&response),
            "{name}"
        );
        responses.insert(name.to_owned(), padded(&plaintext));
    }
    compare(
        include_str!("vectors/control.json"),
        json!({
            "note": "Plaintexts of control messages: head and body in hex, then zeros up to padded_len bytes. \
                     Request id 01020304, path token a0..a7.",
            "datagram_header": hex(&datagram_header().to_bytes()),
            "requests": requests,
            "responses": responses,
        }),
    );
}

#[test]
fn an_id_belongs_to_what_was_hashed_and_to_nothing_else() {
    let unproved = Publication {
        content: content(1),
        ..hashing("x", 1, PublicationKind::File)
    };
    let nameless = Publication {
        content: ContentId::NONE,
        ..folder("x", 1, 1)
    };
    for file in [unproved, nameless] {
        let request = Request::Publish(Files::for_everybody(vec![file]));
        let plaintext = request.encode(ID, TOKEN).unwrap();
        let (head, body) = control::split(&plaintext).unwrap();
        assert!(Request::decode(&head, body).is_err(), "{request:?}");
    }
}

#[test]
fn frames_have_these_bytes() {
    let mut frames = Map::new();
    for (name, frame) in frames_by_name() {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(Frame::decode(&bytes).as_ref(), Ok(&frame), "{name}");
        frames.insert(name.to_owned(), hex(&bytes));
    }
    let welcome = welcome().encode();
    assert!(Welcome::decode(&welcome).is_ok());
    compare(
        include_str!("vectors/transfer.json"),
        json!({
            "note": "Plaintexts of frames: head and body in hex. The header is that of the outside.",
            "frame_header_of_the_last_frame": hex(&FrameHeader { is_final: true, len: 72 }.to_bytes()),
            "welcome": hex(&welcome),
            "frames": frames,
        }),
    );
}

#[test]
fn talks_have_these_bytes() {
    let mut frames = Map::new();
    for (name, frame) in talks_by_name() {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(talk::Frame::decode(&bytes).as_ref(), Ok(&frame), "{name}");
        assert_eq!(
            talk::begins_talk(&bytes),
            matches!(frame, talk::Frame::Connect { .. }),
            "{name}"
        );
        frames.insert(name.to_owned(), hex(&bytes));
    }
    compare(
        include_str!("vectors/talk.json"),
        json!({
            "note": "Plaintexts of frames of talks: head and body in hex.",
            "frames": frames,
        }),
    );
}

fn compare(expected: &str, actual: Value) {
    let expected: Value = serde_json::from_str(expected).unwrap();
    let pretty = serde_json::to_string_pretty(&actual).unwrap();
    assert!(expected == actual, "the bytes are now\n{pretty}");
}

fn hex(bytes: &[u8]) -> Value {
    HEXLOWER.encode(bytes).into()
}

/// Head and body, and how long the plaintext is with its padding.
fn padded(plaintext: &[u8]) -> Value {
    let body_len = usize::from(u16::from_be_bytes([plaintext[2], plaintext[3]]));
    let (message, padding) = plaintext.split_at(control::HEAD_LEN + body_len);
    assert!(padding.iter().all(|byte| *byte == 0));
    json!({ "bytes": hex(message), "padded_len": plaintext.len() })
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn file(name: &str, first: u8, len: u64) -> Publication {
    let name: FileName = name.parse().unwrap();
    Publication {
        name,
        content: content(first),
        len,
        kind: PublicationKind::File,
    }
}

fn folder(name: &str, first: u8, len: u64) -> Publication {
    Publication {
        kind: PublicationKind::Folder,
        ..file(name, first, len)
    }
}

fn locked(name: &str, first: u8, len: u64) -> Publication {
    Publication {
        kind: PublicationKind::LockedFile,
        ..file(name, first, len)
    }
}

fn hashing(name: &str, len: u64, kind: PublicationKind) -> Publication {
    Publication::being_hashed(name.parse().unwrap(), len, kind)
}

fn content(first: u8) -> ContentId {
    ContentId(std::array::from_fn(|n| {
        first.wrapping_add(u8::try_from(n).unwrap())
    }))
}

fn peer(byte: u8) -> PeerId {
    PeerId([byte; 32])
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn datagram_header() -> DataHeader {
    DataHeader {
        session: SessionId::from_bytes([1, 2, 3, 4, 5, 6, 7]),
        counter: 258,
    }
}

fn welcome() -> Welcome {
    Welcome {
        session: SessionId::from_bytes([1, 2, 3, 4, 5, 6, 7]),
        member_key: [9; 32],
        unix_ms: 1_760_000_000_000,
        heartbeat: Duration::from_secs(2),
        silence: Duration::from_secs(3),
        needs_password: false,
    }
}

fn requests_by_name() -> Vec<(&'static str, Request)> {
    let start = Cursor::default;
    vec![
        (
            "login",
            Request::Login(Login {
                user: user("ana"),
                password: None,
            }),
        ),
        (
            "login_composed",
            Request::Login(Login {
                user: user("zoë"),
                password: None,
            }),
        ),
        (
            "login_with_password",
            Request::Login(Login {
                user: user("ana"),
                password: Some(Password::parse("rose-tinted-otter").unwrap()),
            }),
        ),
        ("heartbeat", Request::Heartbeat),
        ("leave", Request::Leave),
        (
            "publish_nothing",
            Request::Publish(Files::for_everybody(vec![])),
        ),
        (
            "publish",
            Request::Publish(Files::for_everybody(vec![
                file("talk.mp4", 0x10, 181_403_648),
                file("empty", 0x80, 0),
            ])),
        ),
        (
            "publish_largest",
            Request::Publish(Files::for_everybody(vec![file("a", 0, 1 << 50)])),
        ),
        (
            "publish_folder",
            Request::Publish(Files::for_everybody(vec![folder("talks", 0x10, 4096)])),
        ),
        (
            "publish_for_two",
            Request::Publish(Files {
                files: vec![file("talk.mp4", 0x10, 181_403_648)],
                audience: Audience::of([peer(0xbb), peer(0xaa)]).unwrap(),
            }),
        ),
        (
            "publish_locked",
            Request::Publish(Files::for_everybody(vec![locked(
                "report.pdf",
                0x10,
                1_204_311,
            )])),
        ),
        (
            "publish_being_hashed",
            Request::Publish(Files::for_everybody(vec![
                hashing("talk.mp4", 181_403_648, PublicationKind::File),
                hashing("talks", 0, PublicationKind::Folder),
            ])),
        ),
        (
            "unpublish",
            Request::Unpublish(Files::for_everybody(vec![file(
                "talk.mp4",
                0x10,
                181_403_648,
            )])),
        ),
        (
            "search",
            Request::Search(Search {
                term: "talk".to_owned(),
                cursor: start(),
            }),
        ),
        (
            "search_next_page",
            Request::Search(Search {
                term: "Größe".to_owned(),
                cursor: Cursor(vec![2, 0, 0xff]),
            }),
        ),
        (
            "locate",
            Request::Locate(Locate {
                content: content(0x10),
                cursor: start(),
            }),
        ),
        (
            "list_peers",
            Request::ListPeers(ListPeers { cursor: start() }),
        ),
        (
            "list_peers_next_page",
            Request::ListPeers(ListPeers {
                cursor: Cursor(vec![7; 32]),
            }),
        ),
        (
            "list_files_of_all",
            Request::ListFiles(ListFiles {
                user: None,
                cursor: start(),
            }),
        ),
        (
            "list_files_of_one",
            Request::ListFiles(ListFiles {
                user: Some(user("ana")),
                cursor: start(),
            }),
        ),
        ("who", Request::Who(Who { user: user("ana") })),
    ]
}

fn responses_by_name() -> Vec<(&'static str, Response)> {
    let hit = Hit {
        file: file("talk.mp4", 0x10, 181_403_648),
        owners: vec![user("ana"), user("bob")],
        holders: 300,
        is_restricted: false,
    };
    let holder = Holder {
        user: user("ana"),
        peer: peer(0xaa),
        len: 181_403_648,
        addresses: vec![address("192.168.1.7:8001"), address("[2001:db8::7]:8001")],
    };
    let entry = PeerEntry {
        user: user("bob"),
        peer: peer(0xbb),
        addresses: vec![address("10.0.0.2:8002")],
        files: 3,
        since_s: 3600,
    };
    let refused = Response::Refused;
    vec![
        (
            "logged_in",
            Response::LoggedIn(LoggedIn {
                ticket: Ticket([0x5a; Ticket::LEN]),
                observed: address("192.168.1.7:40000"),
            }),
        ),
        (
            "logged_in_over_ipv6",
            Response::LoggedIn(LoggedIn {
                ticket: Ticket([0x5a; Ticket::LEN]),
                observed: address("[2001:db8::7]:40000"),
            }),
        ),
        (
            "heartbeat",
            Response::Heartbeat(HeartbeatAck {
                interval_ms: 2000,
                silence_ms: 3000,
                published: 2,
                digest: 0x0123_4567_89ab_cdef,
            }),
        ),
        ("left", Response::Left),
        ("published", Response::Published),
        ("unpublished", Response::Unpublished),
        (
            "found_nothing",
            Response::Found(Page {
                entries: vec![],
                next: None,
                total: 0,
            }),
        ),
        (
            "found",
            Response::Found(Page {
                entries: vec![hit.clone()],
                next: Some(Cursor(vec![1, 2, 3])),
                total: 41,
            }),
        ),
        (
            "found_for_chosen_people",
            Response::Found(Page {
                entries: vec![Hit {
                    owners: vec![user("ana")],
                    holders: 1,
                    is_restricted: true,
                    ..hit.clone()
                }],
                next: None,
                total: 1,
            }),
        ),
        (
            "found_being_hashed",
            Response::Found(Page {
                entries: vec![Hit {
                    file: hashing("talk.mp4", 181_403_648, PublicationKind::File),
                    owners: vec![user("ana")],
                    holders: 1,
                    is_restricted: false,
                }],
                next: None,
                total: 1,
            }),
        ),
        (
            "found_locked",
            Response::Found(Page {
                entries: vec![Hit {
                    file: locked("report.pdf", 0x10, 1_204_311),
                    owners: vec![user("ana")],
                    holders: 1,
                    is_restricted: false,
                }],
                next: None,
                total: 1,
            }),
        ),
        (
            "located",
            Response::Located(Page {
                entries: vec![holder],
                next: None,
                total: 1,
            }),
        ),
        (
            "peers",
            Response::Peers(Page {
                entries: vec![entry.clone()],
                next: None,
                total: 1,
            }),
        ),
        ("who", Response::Who(entry)),
        (
            "files",
            Response::Files(Page {
                entries: vec![hit],
                next: None,
                total: 1,
            }),
        ),
        ("wait", Response::Wait(250)),
        ("again", Response::Again),
        ("refused_malformed", refused(Refusal::Malformed)),
        ("refused_not_logged_in", refused(Refusal::NotLoggedIn)),
        (
            "refused_name_in_use",
            refused(Refusal::NameInUse {
                since_s: 300,
                from: ip("10.0.0.2"),
            }),
        ),
        (
            "refused_name_in_use_over_ipv6",
            refused(Refusal::NameInUse {
                since_s: 0,
                from: ip("2001:db8::7"),
            }),
        ),
        ("refused_name_reserved", refused(Refusal::NameReserved)),
        (
            "refused_too_fast",
            refused(Refusal::TooFast { wait_ms: 1000 }),
        ),
        (
            "refused_too_many_files",
            refused(Refusal::TooManyFiles { limit: 100_000 }),
        ),
        ("refused_full", refused(Refusal::Full)),
        ("refused_no_such_user", refused(Refusal::NoSuchUser)),
        ("refused_password_needed", refused(Refusal::PasswordNeeded)),
        ("refused_wrong_login", refused(Refusal::WrongLogin)),
        (
            "refused_login_too_often",
            refused(Refusal::LoginTooOften { wait_ms: 4000 }),
        ),
        ("refused_login_void", refused(Refusal::LoginVoid)),
    ]
}

fn frames_by_name() -> Vec<(&'static str, Frame<'static>)> {
    let page = HashPage { level: 1, index: 2 };
    vec![
        ("ping", Frame::Ping),
        ("pong", Frame::Pong),
        (
            "open",
            Frame::Open {
                file: 7,
                content: content(0x10),
            },
        ),
        (
            "opened_whole",
            Frame::Opened {
                file: 7,
                opened: Opened {
                    len: 181_403_648,
                    pieces: None,
                },
            },
        ),
        (
            "opened_in_part",
            Frame::Opened {
                file: 7,
                opened: Opened {
                    len: 3 << 20,
                    pieces: Some(PieceSet(vec![0b1010_0000])),
                },
            },
        ),
        ("absent", Frame::Absent { file: 7 }),
        ("ask_hashes", Frame::AskHashes { file: 7, page }),
        (
            "hashes",
            Frame::Hashes {
                file: 7,
                page,
                hashes: &[0xcc; 64],
            },
        ),
        (
            "request",
            Frame::Request {
                request: 9,
                wanted: Wanted {
                    file: 7,
                    candidates: vec![0, 172, 300],
                },
            },
        ),
        (
            "chunk",
            Frame::Chunk {
                request: 9,
                offset: 300 << 20,
                is_last: false,
                bytes: b"hello",
            },
        ),
        (
            "chunk_last",
            Frame::Chunk {
                request: 9,
                offset: 1 << 40,
                is_last: true,
                bytes: b"!",
            },
        ),
        (
            "ask_files",
            Frame::AskFiles {
                request: 9,
                wanted: WantedFiles {
                    file: 7,
                    run: 300,
                    files: None,
                },
            },
        ),
        (
            "ask_some_files",
            Frame::AskFiles {
                request: 9,
                wanted: WantedFiles {
                    file: 7,
                    run: 300,
                    files: Some((0..10).map(|number| [2, 9].contains(&number)).collect()),
                },
            },
        ),
        ("cancel", Frame::Cancel { request: 9 }),
        (
            "have",
            Frame::Have {
                file: 7,
                pieces: vec![3, 128],
            },
        ),
        ("close", Frame::Close { file: 7 }),
    ]
}

fn talks_by_name() -> Vec<(&'static str, talk::Frame)> {
    use talk::Frame;
    let connect = |offers| Frame::Connect {
        user: user("ana"),
        offers,
    };
    let said = |to_all, text: &str| Frame::Text {
        number: 258,
        to_all,
        text: text.parse().unwrap(),
    };
    let received = |receipt| Frame::Received {
        number: 258,
        receipt,
    };
    let offer = |publication, files, size| Frame::Offer {
        number: 3,
        offer: Offer {
            publication,
            files,
            size,
        },
    };
    let offer_answer = |answer| Frame::OfferAnswer { number: 3, answer };
    let offer_state = |whose, done, state| Frame::OfferState {
        whose,
        number: 3,
        done,
        state,
    };
    vec![
        ("ping", Frame::Ping),
        ("pong", Frame::Pong),
        ("connect", connect(false)),
        ("connect_to_offer", connect(true)),
        ("answer_yes", Frame::Answer(Answer::Yes)),
        ("answer_no", Frame::Answer(Answer::No)),
        ("answer_unanswered", Frame::Answer(Answer::Unanswered)),
        ("answer_busy", Frame::Answer(Answer::Busy)),
        ("answer_not_accepting", Frame::Answer(Answer::NotAccepting)),
        ("answer_other_key", Frame::Answer(Answer::OtherKey)),
        ("answer_wrong_name", Frame::Answer(Answer::WrongName)),
        ("answer_unchecked", Frame::Answer(Answer::Unchecked)),
        ("answer_elsewhere", Frame::Answer(Answer::Elsewhere)),
        ("text", said(false, "hi, Zoë")),
        ("text_to_all", said(true, "hi")),
        ("received_shown", received(Receipt::Shown)),
        (
            "received_too_fast",
            received(Receipt::TooFast { wait_ms: 200 }),
        ),
        ("received_not_shown", received(Receipt::NotShown)),
        (
            "offer_file",
            offer(file("talk.mp4", 0x10, 181_403_648), 1, 181_403_648),
        ),
        (
            "offer_folder",
            offer(folder("talks", 0x10, 4096), 300, 1 << 40),
        ),
        ("offer_accepted", offer_answer(OfferAnswer::Accepted)),
        ("offer_denied", offer_answer(OfferAnswer::Denied)),
        ("offer_busy", offer_answer(OfferAnswer::Busy)),
        (
            "offer_not_accepting",
            offer_answer(OfferAnswer::NotAccepting),
        ),
        (
            "state_running",
            offer_state(Whose::Yours, 90_701_824, OfferState::Running),
        ),
        (
            "state_done",
            offer_state(Whose::Yours, 181_403_648, OfferState::Done),
        ),
        (
            "state_failed",
            offer_state(Whose::Yours, 0, OfferState::Failed),
        ),
        (
            "state_cancelled",
            offer_state(Whose::Yours, 0, OfferState::Cancelled),
        ),
        (
            "state_withdrawn",
            offer_state(Whose::Own, 0, OfferState::Withdrawn),
        ),
    ]
}
