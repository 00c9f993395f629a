//! Every byte of `tests/vectors/protocol.json`, made again, and what must not pass for a handshake.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use data_encoding::HEXLOWER;
use serde_json::Value;

use super::beacon::BeaconKey;
use super::envelope::{Opener, Sealer};
use super::handshake::{
    Accepted, Initiator, InitiatorError, Keys, Local, Refusal, Responder, ResponderError,
};
use super::identity::Identity;
use super::kdf::{EnvelopeKeys, Group, MemberKey, NetworkName, TrackerSeed, expand};
use super::random::{OsRandom, Random};
use super::secret::{Passphrase, Secret};
use super::stream::{FrameSealer, Suite};
use super::ticket::{
    InvalidTicket, Resumable, Resumed, Resuming, Resumption, Roll, TICKET_LIFE_MS, TicketContent,
    TicketOffice,
};
use super::{cpace, label};
use crate::wire::beacon::{BEACON_BODY_LEN, Beacon};
use crate::wire::control::Ticket;
use crate::wire::id::SessionId;
use crate::wire::packet::{CONFIRM_LEN, Datagram, HELLO_LEN, RESUME_LEN, Role};
use crate::wire::text::UserName;

static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../tests/vectors/protocol.json")).unwrap()
});
static GROUP: LazyLock<Group> = LazyLock::new(|| group("correct horse battery staple", "p2pfs"));
static OTHER_GROUP: LazyLock<Group> =
    LazyLock::new(|| group("wrong horse battery staple", "p2pfs"));

fn group(passphrase: &str, network: &str) -> Group {
    Group::derive(
        &Passphrase::parse(passphrase).unwrap(),
        network.parse().unwrap(),
    )
}

/// The bytes at a path such as `handshake/ya`.
fn bytes(path: &str) -> Vec<u8> {
    let value = VECTORS.pointer(&format!("/{path}")).and_then(Value::as_str);
    HEXLOWER
        .decode(value.unwrap_or_else(|| panic!("no {path}")).as_bytes())
        .unwrap()
}

fn array<const N: usize>(path: &str) -> [u8; N] {
    bytes(path).try_into().unwrap()
}

fn secret(path: &str) -> Secret<32> {
    Secret::new(array(path))
}

/// Gives out prepared bytes, in the order in which the code draws them.
struct Script(VecDeque<Vec<u8>>);

impl Script {
    fn of(paths: &[&str]) -> Self {
        Self(paths.iter().map(|path| bytes(path)).collect())
    }
}

impl Random for Script {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.pop_front().expect("as many draws as in the vectors"));
    }
}

fn seed() -> TrackerSeed {
    TrackerSeed(secret("member/tracker_seed"))
}

#[test]
fn keys_from_the_passphrase() {
    assert_eq!(GROUP.pw().expose(), &array("argon2/pw"));
    let member_key = GROUP.member_key(&seed());
    assert_eq!(member_key.0.expose(), &array("member/mk"));
    let closed = EnvelopeKeys::closed(&member_key);
    assert_eq!(closed.m1.expose(), &array("member/closed_m1"));
    assert_eq!(closed.m2.expose(), &array("member/closed_m2"));
    let open = EnvelopeKeys::open(&GROUP);
    assert_eq!(open.m1.expose(), &array("open_keys/m1"));
    assert_eq!(open.m2.expose(), &array("open_keys/m2"));
}

#[test]
fn a_beacon() {
    let key = BeaconKey::of(GROUP.network());
    assert_eq!(key.0.expose(), &array("open_keys/beacon"));
    let plaintext: [u8; BEACON_BODY_LEN] = array("beacon/plaintext");
    let beacon = Beacon::parse(&plaintext).unwrap();
    assert_eq!(beacon.to_bytes(), plaintext);
    let datagram = key.seal(beacon, &mut Script::of(&["beacon/nonce"]));
    assert_eq!(datagram.as_slice(), bytes("beacon/datagram"));
    assert_eq!(key.open(&datagram), Some(beacon));
    for at in 0..datagram.len() {
        let mut changed = datagram;
        changed[at] ^= 1;
        assert_eq!(key.open(&changed), None, "byte {at}");
        assert_eq!(key.open(&datagram[..at]), None, "cut at {at}");
    }
    let other = BeaconKey::of(&"hikers".parse().unwrap());
    assert_eq!(other.open(&datagram), None);
}

#[test]
fn the_whole_handshake() {
    let (initiator_identity, responder_identity) = (
        Identity::from_private(secret("handshake/initiator/static_private")),
        Identity::from_private(secret("handshake/responder/static_private")),
    );
    assert_eq!(
        initiator_identity.id().0,
        array("handshake/initiator_static_public")
    );
    assert_eq!(
        responder_identity.id().0,
        array("handshake/responder_static_public")
    );
    let initiator_side = Local {
        group: &GROUP,
        identity: &initiator_identity,
        role: Role::Peer,
        has_aes: true,
    };
    let responder_side = Local {
        group: &GROUP,
        identity: &responder_identity,
        role: Role::Tracker,
        has_aes: true,
    };
    let envelope = EnvelopeKeys::open(&GROUP);
    let mut script = Script::of(&[
        "handshake/initiator/envelope_nonce",
        "handshake/initiator/sid",
        "handshake/initiator/cpace_scalar_wide",
        "handshake/initiator/mlkem_seed_d_z",
        "handshake/initiator/noise_ephemeral_private",
    ]);
    let (initiator, m1) = Initiator::start(initiator_side, Role::Tracker, &envelope, &mut script);
    assert_eq!(m1.as_slice(), bytes("handshake/m1_wire"));

    let mut script = Script::of(&[
        "handshake/responder/envelope_nonce",
        "handshake/responder/cpace_scalar_wide",
        "handshake/responder/mlkem_m",
        "handshake/responder/noise_ephemeral_private",
    ]);
    let unix_ms = u64::from_be_bytes(
        array::<64>("handshake/responder/p2")[..8]
            .try_into()
            .unwrap(),
    );
    let (responder, m2) =
        Responder::answer(responder_side, &[envelope], &m1, unix_ms, &mut script).unwrap();
    assert_eq!(m2.as_slice(), bytes("handshake/m2_wire"));

    let answered = initiator.read_answer(&m2).unwrap();
    assert_eq!(answered.remote(), responder_identity.id());
    assert_eq!(answered.remote_unix_ms(), unix_ms);
    let (m3, ours) = answered.confirm(Role::Peer, Some(8001));
    assert_eq!(m3.as_slice(), bytes("handshake/m3_wire"));
    let Accepted {
        keys: theirs,
        role,
        listening_port,
    } = responder.finish(&m3).unwrap();
    assert_eq!((role, listening_port), (Role::Peer, Some(8001)));
    assert_eq!(theirs.remote, initiator_identity.id());

    assert_eq!(ours.stream.suite, Suite::Aes);
    for (path, key, same_key) in [
        ("tcp_i_r", &ours.stream.send, &theirs.stream.receive),
        ("tcp_r_i", &ours.stream.receive, &theirs.stream.send),
        ("udp_i_r", &ours.datagram.send, &theirs.datagram.receive),
        ("udp_r_i", &ours.datagram.receive, &theirs.datagram.send),
        ("resume_secret", &ours.resume, &theirs.resume),
    ] {
        assert_eq!(key.expose(), &array(&format!("session/{path}")), "{path}");
        assert_eq!(key, same_key, "{path}");
    }
}

#[test]
fn the_passwords_exchange() {
    let channel = bytes("handshake/ci");
    let sid = bytes("handshake/initiator/sid");
    let exchange = |path| cpace::Exchange::new(GROUP.pw().expose(), &channel, &sid, array(path));
    let a = exchange("handshake/initiator/cpace_scalar_wide");
    let b = exchange("handshake/responder/cpace_scalar_wide");
    assert_eq!(a.share, array("handshake/ya"));
    assert_eq!(b.share, array("handshake/yb"));
    assert_eq!(a.agree(&b.share), b.agree(&a.share));
}

#[test]
fn frames() {
    for (suite, path) in [
        (Suite::Aes, "tcp/frame0_hello_aes"),
        (Suite::ChaCha, "tcp/frame0_hello_chacha"),
    ] {
        let mut sealer = FrameSealer::new(secret("session/tcp_i_r"), suite);
        let mut frame = [&[0; 4][..], b"hello", &[0; 16]].concat();
        sealer.seal(false, &mut frame).unwrap();
        assert_eq!(frame, bytes(path));
        if suite == Suite::ChaCha {
            let mut last = [0; 20];
            sealer.seal(true, &mut last).unwrap();
            assert_eq!(last.as_slice(), bytes("tcp/frame1_final_chacha"));
        }
    }
}

#[test]
fn the_first_frame_of_the_second_epoch() {
    let mut sealer = FrameSealer::new(secret("session/tcp_i_r"), Suite::ChaCha);
    for _ in 0..1 << 20 {
        sealer.seal(false, &mut [0; 20]).unwrap();
    }
    let mut frame = [&[0; 4][..], b"hello", &[0; 16]].concat();
    sealer.seal(false, &mut frame).unwrap();
    assert_eq!(frame, bytes("tcp/frame_2_20_hello_chacha"));
}

#[test]
fn a_datagram() {
    let session = SessionId::from_bytes(array("udp_data/session"));
    let mut datagram = Vec::new();
    Sealer::new(session, secret("session/udp_i_r"))
        .seal(&bytes("udp_data/plaintext"), &mut datagram)
        .unwrap();
    assert_eq!(datagram, bytes("udp_data/datagram"));
    let Ok(Datagram::Data(header)) = Datagram::parse(&datagram) else {
        panic!("a datagram of ours")
    };
    let mut opener = Opener::new(secret("session/udp_i_r"));
    assert_eq!(
        opener.open(header, &mut datagram).unwrap().plaintext,
        bytes("udp_data/plaintext")
    );
}

/// Unix time at which the vectors' ticket was issued.
const ISSUED_MS: u64 = 0x0199_c82c_c000;

fn office() -> TicketOffice {
    TicketOffice::new(&GROUP, &seed())
}

fn ticket_content() -> TicketContent {
    office()
        .open(&Ticket(array("ticket/ticket")), ISSUED_MS)
        .unwrap()
}

#[test]
fn a_ticket() {
    let content = ticket_content();
    assert_eq!(content.user.as_str(), "alice");
    assert_eq!(content.resume, secret("session/resume_secret"));
    assert_eq!(content.peer.0, array("handshake/initiator_static_public"));
    assert_eq!(
        (content.issued_ms, content.expires_ms),
        (ISSUED_MS, ISSUED_MS + TICKET_LIFE_MS)
    );
    let ticket = office().issue(&content, &mut Script::of(&["ticket/nonce"]));
    assert_eq!(ticket.0, array("ticket/ticket"));
}

#[test]
fn a_resumption() {
    let resumable = Resumable {
        ticket: Ticket(array("ticket/ticket")),
        resume: secret("session/resume_secret"),
    };
    let r1: [u8; 304] = array("resume/r1");
    let mut script = Script(VecDeque::from([
        r1[1..8].to_vec(),
        bytes("resume/initiator_ephemeral_private"),
    ]));
    let claimed_ms = u64::from_be_bytes(r1[8..16].try_into().unwrap());
    let (mut resuming, datagram) = Resuming::start(&resumable, claimed_ms, Some(8001), &mut script);
    assert_eq!(datagram, r1);
    let resumed = resuming.finish(&array("resume/r2")).unwrap();
    let prk = ring::hkdf::Prk::new_less_safe(ring::hkdf::HKDF_SHA256, &bytes("resume/session_prk"));
    assert_eq!(resumed.keys.send, expand(&prk, label::UDP_FROM_INITIATOR));
    assert_eq!(
        resumed.keys.receive,
        expand(&prk, label::UDP_FROM_RESPONDER)
    );

    // The tracker's side; its new ticket is opened and sealed again to show that it is the vectors' one.
    let renewed = office().open(&resumed.resumable.ticket, ISSUED_MS).unwrap();
    let sealed_again = office().issue(&renewed, &mut Script::of(&["resume/new_ticket_nonce"]));
    assert_eq!(sealed_again, resumed.resumable.ticket);
    let answer = answer_resume(
        &r1,
        &resumable.resume,
        &resumed,
        &bytes("resume/responder_ephemeral_private"),
    );
    assert_eq!(answer.as_slice(), bytes("resume/r2"));
}

fn answer_resume(
    r1: &[u8; 304],
    resume: &Secret<32>,
    resumed: &Resumed,
    ephemeral: &[u8],
) -> [u8; 296] {
    let mut script = Script(VecDeque::from([ephemeral.to_vec()]));
    super::ticket::answer_with(
        r1,
        resume,
        (
            resumed.session,
            resumed.tracker_unix_ms,
            resumed.resumable.ticket.clone(),
        ),
        &mut script,
    )
    .unwrap()
}

/// The two sides of a test's handshakes, each with an identity of its own.
struct Pair {
    initiator: Identity,
    responder: Identity,
}

impl Pair {
    fn new() -> Self {
        let random = &mut OsRandom::new();
        Self {
            initiator: Identity::generate(random),
            responder: Identity::generate(random),
        }
    }

    fn dials<'a>(&'a self, group: &'a Group) -> Local<'a> {
        Local {
            group,
            identity: &self.initiator,
            role: Role::Peer,
            has_aes: true,
        }
    }

    fn listens<'a>(&'a self, group: &'a Group, role: Role) -> Local<'a> {
        Local {
            group,
            identity: &self.responder,
            role,
            has_aes: true,
        }
    }
}

fn closed() -> EnvelopeKeys {
    EnvelopeKeys::closed(&MemberKey(Secret::new([9; 32])))
}

/// Both sides in full, as `wanted`; `tamper` changes m1, m2 and m3 (numbers 0, 1, 2) on their way.
fn shake(
    pair: &Pair,
    (dialling, listening): (Local<'_>, Local<'_>),
    envelope: &EnvelopeKeys,
    tamper: impl Fn(usize, &mut [u8]),
) -> Result<(Keys, Keys), &'static str> {
    let random = &mut OsRandom::new();
    let _ = pair;
    let (initiator, mut m1) = Initiator::start(dialling, listening.role, envelope, random);
    tamper(0, &mut m1[..]);
    let (responder, mut m2) =
        Responder::answer(listening, std::slice::from_ref(envelope), &m1, 1, random)
            .map_err(|_| "m1")?;
    tamper(1, &mut m2[..]);
    let answered = initiator.read_answer(&m2).map_err(|_| "m2")?;
    let (mut m3, ours) = answered.confirm(dialling.role, None);
    tamper(2, &mut m3[..]);
    let theirs = responder.finish(&m3).map_err(|_| "m3")?.keys;
    Ok((ours, theirs))
}

#[test]
fn both_sides_agree_under_either_envelope_and_suite() {
    let pair = Pair::new();
    for (envelope, role) in [
        (EnvelopeKeys::open(&GROUP), Role::Tracker),
        (closed(), Role::Peer),
    ] {
        for (here, there, suite) in [
            (true, true, Suite::Aes),
            (true, false, Suite::ChaCha),
            (false, true, Suite::ChaCha),
        ] {
            let dialling = Local {
                has_aes: here,
                ..pair.dials(&GROUP)
            };
            let listening = Local {
                has_aes: there,
                ..pair.listens(&GROUP, role)
            };
            let (ours, theirs) = shake(&pair, (dialling, listening), &envelope, |_, _| {}).unwrap();
            assert_eq!(ours.stream.suite, suite);
            assert_eq!(ours.stream.send, theirs.stream.receive);
            assert_eq!(ours.datagram.receive, theirs.datagram.send);
            assert_eq!(ours.resume, theirs.resume);
            assert_eq!(
                (ours.remote, theirs.remote),
                (pair.responder.id(), pair.initiator.id())
            );
        }
    }
}

#[test]
fn a_changed_byte_anywhere_ends_the_handshake() {
    let pair = Pair::new();
    let sides = || (pair.dials(&GROUP), pair.listens(&GROUP, Role::Peer));
    for (message, len, step) in [(0, HELLO_LEN, 13), (1, HELLO_LEN, 13), (2, CONFIRM_LEN, 1)] {
        for at in (0..len).step_by(step) {
            let flip = |number: usize, bytes: &mut [u8]| {
                if number == message {
                    bytes[at] ^= 0x40;
                }
            };
            assert!(
                shake(&pair, sides(), &closed(), flip).is_err(),
                "m{} byte {at}",
                message + 1
            );
        }
    }
}

#[test]
fn a_wrong_passphrase_is_told_apart_from_noise() {
    let pair = Pair::new();
    let random = &mut OsRandom::new();
    let envelope = EnvelopeKeys::open(&GROUP);
    let (initiator, m1) = Initiator::start(pair.dials(&GROUP), Role::Tracker, &envelope, random);
    let listening = pair.listens(&OTHER_GROUP, Role::Tracker);
    let (_, m2) = Responder::answer(listening, &[envelope], &m1, 1, random).unwrap();
    assert_eq!(
        initiator.read_answer(&m2).err(),
        Some(InitiatorError::WrongPassphrase)
    );
}

#[test]
fn another_network_or_envelope_meets_silence() {
    let pair = Pair::new();
    let random = &mut OsRandom::new();
    let other_network: NetworkName = "lab".parse().unwrap();
    assert_ne!(&other_network, GROUP.network());
    let (_, m1) = Initiator::start(pair.dials(&GROUP), Role::Peer, &closed(), random);
    let listening = pair.listens(&GROUP, Role::Peer);
    let lab = group("correct horse battery staple", "lab");
    for envelopes in [
        vec![],
        vec![EnvelopeKeys::open(&GROUP)],
        vec![EnvelopeKeys::open(&lab)],
    ] {
        let answer = Responder::answer(listening, &envelopes, &m1, 1, random);
        assert!(matches!(answer, Err(ResponderError::Silence)));
        assert!(Responder::busy(&envelopes, &m1, random).is_none());
    }
    let envelopes = [EnvelopeKeys::open(&GROUP), closed()];
    assert!(
        Responder::answer(listening, &envelopes, &m1, 1, random).is_ok(),
        "each key has its turn"
    );
}

#[test]
fn refusals_are_hints() {
    let pair = Pair::new();
    let random = &mut OsRandom::new();
    let envelope = EnvelopeKeys::open(&GROUP);
    let start = |random: &mut OsRandom| {
        Initiator::start(pair.dials(&GROUP), Role::Tracker, &envelope, random)
    };
    let (initiator, m1) = start(random);
    let envelopes = [envelope.clone()];
    let Err(ResponderError::Refuse(m2)) =
        Responder::answer(pair.listens(&GROUP, Role::Peer), &envelopes, &m1, 1, random)
    else {
        panic!("a peer is no tracker")
    };
    assert_eq!(
        initiator.read_answer(&m2).err(),
        Some(InitiatorError::Refused(Refusal::WrongRole))
    );
    let (initiator, m1) = start(random);
    let m2 = Responder::busy(&envelopes, &m1, random).unwrap();
    assert_eq!(
        initiator.read_answer(&m2).err(),
        Some(InitiatorError::Refused(Refusal::Busy))
    );
}

#[test]
fn our_own_address_is_noticed() {
    let pair = Pair::new();
    let ourselves = Local {
        identity: &pair.initiator,
        ..pair.listens(&GROUP, Role::Peer)
    };
    assert_eq!(
        shake(&pair, (pair.dials(&GROUP), ourselves), &closed(), |_, _| {}).err(),
        Some("m2")
    );
}

#[test]
fn messages_of_one_session_are_worthless_in_another() {
    let pair = Pair::new();
    let random = &mut OsRandom::new();
    let envelopes = [closed()];
    let (dialling, listening) = (pair.dials(&GROUP), pair.listens(&GROUP, Role::Peer));
    let (first, m1) = Initiator::start(dialling, Role::Peer, &envelopes[0], random);
    let (second, other_m1) = Initiator::start(dialling, Role::Peer, &envelopes[0], random);
    let (responder, m2) = Responder::answer(listening, &envelopes, &m1, 1, random).unwrap();
    let (other_responder, _) =
        Responder::answer(listening, &envelopes, &other_m1, 1, random).unwrap();
    assert!(second.read_answer(&m2).is_err(), "m2 of another session");
    let (m3, _) = first.read_answer(&m2).unwrap().confirm(Role::Peer, None);
    assert!(
        other_responder.finish(&m3).is_err(),
        "m3 of another session"
    );
    assert!(responder.finish(&m3).is_ok());
    let (third, m1) = Initiator::start(dialling, Role::Peer, &envelopes[0], random);
    assert_eq!(
        third.read_answer(&m1).err(),
        Some(InitiatorError::NotOurs),
        "m1 reflected as m2"
    );
}

#[test]
fn tickets_are_good_for_their_time_and_place_only() {
    let content = ticket_content();
    let ticket = office().issue(&content, &mut OsRandom::new());
    let hour = 3_600_000;
    assert!(office().open(&ticket, ISSUED_MS + 23 * hour).is_ok());
    assert!(
        office().open(&ticket, ISSUED_MS + 24 * hour).is_err(),
        "expired"
    );
    assert!(
        office().open(&ticket, ISSUED_MS + 72 * hour).is_err(),
        "a key of long ago"
    );
    let long_lived = TicketContent {
        expires_ms: u64::MAX,
        ..content.clone()
    };
    let long_lived = office().issue(&long_lived, &mut OsRandom::new());
    assert!(
        office().open(&long_lived, ISSUED_MS + 72 * hour).is_err(),
        "the day before yesterday"
    );
    assert!(
        TicketOffice::new(&OTHER_GROUP, &seed())
            .open(&ticket, ISSUED_MS)
            .is_err(),
        "another passphrase"
    );
    let other_seed = TrackerSeed(Secret::new([1; 32]));
    assert!(
        TicketOffice::new(&GROUP, &other_seed)
            .open(&ticket, ISSUED_MS)
            .is_err(),
        "another tracker"
    );
    for bit in (0..Ticket::LEN * 8).step_by(7) {
        let mut forged = ticket.clone();
        forged.0[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            office().open(&forged, ISSUED_MS),
            Err(InvalidTicket),
            "bit {bit}"
        );
    }
}

/// One user, with this hash.
struct One(&'static str);

impl Roll for One {
    fn hash_of(&self, user: &UserName) -> Option<String> {
        (user.as_str() == ticket_content().user.as_str()).then(|| self.0.to_owned())
    }
}

#[test]
fn a_ticket_is_good_as_long_as_its_password() {
    let with = |roll: &'static str| {
        let mut office = office();
        office.ask_for_passwords(Arc::new(One(roll)));
        office
    };
    let plain = TicketContent {
        has_password: false,
        credential_mark: [0; 8],
        ..ticket_content()
    };
    assert!(office().renew(&plain, ISSUED_MS).is_ok());
    assert!(with("a").renew(&plain, ISSUED_MS).is_err(), "no password");
    let ticket = TicketContent {
        has_password: true,
        credential_mark: office().credential_mark("a", ISSUED_MS),
        ..plain.clone()
    };
    let forged = TicketContent {
        has_password: false,
        ..ticket.clone()
    };
    assert!(with("a").renew(&forged, ISSUED_MS).is_err());
    assert!(with("b").renew(&ticket, ISSUED_MS).is_err(), "another one");
    let eve = TicketContent {
        user: "eve".parse().unwrap(),
        ..ticket.clone()
    };
    assert!(with("a").renew(&eve, ISSUED_MS).is_err(), "nobody");
    // Over midnight the mark is made anew, under the next day's key, and is good again.
    let tomorrow = ISSUED_MS + 86_400_000 - 1;
    let renewed = with("a").renew(&ticket, tomorrow).unwrap();
    assert_ne!(renewed.credential_mark, ticket.credential_mark);
    assert!(with("a").renew(&renewed, tomorrow + 1).is_ok());
    let random = &mut OsRandom::new();
    let sealed = with("a").issue(&ticket, random);
    let resumable = Resumable {
        ticket: sealed,
        resume: ticket.resume,
    };
    let (_, datagram) = Resuming::start(&resumable, ISSUED_MS, None, random);
    let session = SessionId::from_bytes([3; 7]);
    for (roll, is_good) in [("a", true), ("b", false)] {
        let resumed = resume(&with(roll), &datagram, ISSUED_MS, session);
        assert_eq!(resumed.is_ok(), is_good, "{roll}");
    }
}

fn resume(
    office: &TicketOffice,
    datagram: &[u8; RESUME_LEN],
    unix_ms: u64,
    session: SessionId,
) -> Result<Resumption, InvalidTicket> {
    let claim = office.read(datagram, unix_ms)?;
    office.resume(claim, unix_ms, session, &mut OsRandom::new())
}

#[test]
fn a_peer_resumes_and_nobody_else_does() {
    let random = &mut OsRandom::new();
    let content = ticket_content();
    let ticket = office().issue(&content, random);
    let resumable = Resumable {
        ticket,
        resume: content.resume.clone(),
    };
    let session = SessionId::from_bytes([3; 7]);
    let (mut resuming, datagram) =
        Resuming::start(&resumable, ISSUED_MS + 5000, Some(8001), random);
    let resumption = resume(&office(), &datagram, ISSUED_MS + 5100, session).unwrap();
    assert_eq!(resumption.listening_port, Some(8001));
    assert_eq!(resumption.ticket, content);

    let mut forged = resumption.answer;
    forged[100] ^= 1;
    assert!(resuming.finish(&forged).is_none());
    let resumed = resuming
        .finish(&resumption.answer)
        .expect("a forged answer did not spoil the try");
    assert_eq!(resumed.session, session);
    assert_eq!(resumed.keys.send, resumption.keys.receive);
    assert_eq!(resumed.keys.receive, resumption.keys.send);
    let renewed = office()
        .open(&resumed.resumable.ticket, ISSUED_MS + 5100)
        .unwrap();
    assert_eq!(renewed.resume, resumed.resumable.resume);
    assert_ne!(renewed.id, content.id);

    for (skew, is_good) in [(299_999, true), (300_000, true), (300_001, false)] {
        for now in [ISSUED_MS + 5000 + skew, ISSUED_MS + 5000 - skew] {
            let is_valid = resume(&office(), &datagram, now, session).is_ok();
            assert_eq!(is_valid, is_good, "{skew} ms off");
        }
    }
    let thief = Resumable {
        resume: Secret::new([0; 32]),
        ..resumable
    };
    let (_, datagram) = Resuming::start(&thief, ISSUED_MS, None, random);
    assert!(
        resume(&office(), &datagram, ISSUED_MS, session).is_err(),
        "a ticket without its secret"
    );
}

#[test]
fn no_secret_shows_itself() {
    let pair = Pair::new();
    let (ours, _) = shake(
        &pair,
        (pair.dials(&GROUP), pair.listens(&GROUP, Role::Peer)),
        &closed(),
        |_, _| {},
    )
    .unwrap();
    let sealer = FrameSealer::new(ours.stream.send.clone(), Suite::Aes);
    let shown = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        *GROUP,
        pair.initiator,
        ours,
        sealer,
        office()
    );
    let shown = format!("{shown} {:?} {:?}", ticket_content(), seed());
    for secret in [
        GROUP.pw(),
        &ours.resume,
        &ours.datagram.send,
        &ours.stream.send,
        &seed().0,
    ] {
        let hex = HEXLOWER.encode(secret.expose());
        let decimal = format!("{:?}", secret.expose());
        assert!(!shown.contains(&hex) && !shown.contains(&decimal));
        assert!(!shown.contains(&decimal[1..40]));
    }
}
