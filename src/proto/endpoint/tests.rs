//! What a stranger and a member who never stops can make the endpoint do.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::crypto::envelope::Sealer;
use crate::crypto::kdf::{Group, NetworkName, TrackerSeed};
use crate::crypto::random::OsRandom;
use crate::crypto::secret::Passphrase;
use crate::crypto::ticket::{Resumable, Resuming, TICKET_LIFE_MS};
use crate::wire::MAX_DATAGRAM_LEN;
use crate::wire::control::Request;
use crate::wire::packet::RESUME_LEN;

const UNIX_MS: u64 = 1_790_000_000_000;

/// Counts what is drawn: a Diffie-Hellman takes 32 bytes.
struct Counted(OsRandom, usize);

impl Random for Counted {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.1 += bytes.len();
        self.0.fill(bytes);
    }
}

struct World {
    endpoint: Endpoint,
    tally: Tally,
    drawn: usize,
    claimed_ms: u64,
    may_return: bool,
}

/// A peer with a session.
struct Guest {
    sealer: Sealer,
    requests: u32,
}

impl World {
    fn new() -> Self {
        let passphrase = Passphrase::parse("a passphrase for tests").unwrap();
        let group = Group::derive(&passphrase, NetworkName::default());
        let office = TicketOffice::new(&group, &TrackerSeed(Secret::new([7; 32])));
        let rhythm = Rhythm::new(Duration::from_secs(2), Duration::from_secs(3));
        Self {
            endpoint: Endpoint::new(office, rhythm, 1, &mut OsRandom::new()),
            tally: Tally::default(),
            drawn: 0,
            claimed_ms: UNIX_MS,
            may_return: true,
        }
    }

    /// A RESUME with a ticket of its own.
    fn ticket(&mut self, peer: u8) -> [u8; RESUME_LEN] {
        let random = &mut OsRandom::new();
        let content = TicketContent {
            user: format!("user{peer}").parse().unwrap(),
            peer: PeerId([peer; 32]),
            has_password: false,
            credential_mark: [0; 8],
            issued_ms: UNIX_MS,
            expires_ms: UNIX_MS + TICKET_LIFE_MS,
            id: random_bytes(random),
            resume: Secret::new([peer; 32]),
        };
        let resumable = Resumable {
            ticket: self.endpoint.office().issue(&content, random),
            resume: content.resume,
        };
        self.claimed_ms += 1;
        Resuming::start(&resumable, self.claimed_ms, None, random).1
    }

    fn resume(&mut self, from: SocketAddr, datagram: &[u8; RESUME_LEN]) -> bool {
        if !self.endpoint.may_resume(from, &mut self.tally) {
            return false;
        }
        let mut out = [0; MAX_DATAGRAM_LEN];
        let mut random = Counted(OsRandom::new(), 0);
        let tools = (&mut random as &mut dyn Random, &mut out, &mut self.tally);
        let answer = self
            .endpoint
            .resume(UNIX_MS, from, datagram, &|_| self.may_return, tools);
        self.drawn = random.1;
        answer.is_some()
    }

    fn sweep(&self, ticks: u16) {
        for _ in 0..ticks {
            self.endpoint.sweep(&mut Vec::new());
        }
    }

    fn guest(&self, peer: u16) -> (SessionId, Guest) {
        let session = self.admit(peer, from(1).ip());
        let mut key = [0; 32];
        key[..2].copy_from_slice(&peer.to_be_bytes());
        let guest = Guest {
            sealer: Sealer::new(session, Secret::new(key)),
            requests: 0,
        };
        (session, guest)
    }

    /// One heartbeat: was it answered, or handed on as a request?
    fn beat(&mut self, guest: &mut Guest) -> Option<bool> {
        guest.requests += 1;
        let plaintext = Request::Heartbeat.encode(RequestId(guest.requests), [0; 8]);
        let mut datagram = Vec::new();
        guest
            .sealer
            .seal(&plaintext.unwrap(), &mut datagram)
            .unwrap();
        let found = self.endpoint.find(&datagram, &mut self.tally)?;
        let Found::Data(header, slot) = found else {
            panic!("{found:?}")
        };
        let mut out = [0; MAX_DATAGRAM_LEN];
        let notes = (&mut Vec::new(), &mut self.tally);
        let heard = (self.endpoint).open((header, slot), from(1), &mut datagram, &mut out, notes);
        match heard {
            Heard::Nothing => None,
            Heard::Answer(_) => Some(true),
            Heard::Request(..) => Some(false),
        }
    }

    fn admit(&self, peer: u16, ip: IpAddr) -> SessionId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&peer.to_be_bytes());
        let keys = DatagramKeys {
            send: Secret::new(key),
            receive: Secret::new(key),
        };
        let admission = Admission {
            peer: PeerId(key),
            keys,
            resume: Secret::new(key),
            ip,
            listening_port: None,
        };
        self.endpoint.admit(admission, &mut OsRandom::new())
    }
}

fn from(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7000))
}

#[test]
fn a_source_of_worthless_tickets_is_looked_at_so_often_only() {
    let mut world = World::new();
    let mut garbage = world.ticket(1);
    garbage[100] ^= 1;
    for _ in 0..1000 {
        assert!(!world.resume(from(1), &garbage));
    }
    let (most, per_tick) = (u64::from(FAILED_RESUMES.0), u64::from(FAILED_RESUMES.1));
    assert_eq!(
        (world.tally.not_resumed, world.tally.limited),
        (most, 1000 - most)
    );
    let good = world.ticket(2);
    assert!(!world.resume(from(1), &good), "nobody from there");
    let mapped = SocketAddr::new("::ffff:10.0.0.1".parse().unwrap(), 7000);
    assert!(!world.resume(mapped, &good), "the same source");
    assert!(world.resume(from(2), &good), "others are not concerned");
    world.sweep(1);
    let before = world.tally.not_resumed;
    for _ in 0..1000 {
        world.resume(from(1), &garbage);
    }
    assert_eq!(world.tally.not_resumed - before, per_tick);
    world.sweep(1);
    let good = world.ticket(3);
    assert!(world.resume(from(1), &good), "and that is not for ever");
}

#[test]
fn a_recorded_resume_gets_no_diffie_hellman_and_a_forged_time_locks_nobody_out() {
    let mut world = World::new();
    let recorded = world.ticket(1);
    assert!(world.resume(from(1), &recorded));
    assert!(world.drawn > 32);
    assert!(!world.resume(from(2), &recorded));
    assert_eq!(world.drawn, 0, "the ticket was opened, and nothing made");
    let mut forged = world.ticket(2);
    let honest = forged;
    forged[8..16].copy_from_slice(&(world.claimed_ms + 1000).to_be_bytes());
    assert!(!world.resume(from(2), &forged));
    assert!(world.resume(from(1), &honest));
}

#[test]
fn who_resumes_without_end_is_stopped_and_nobody_else() {
    let mut world = World::new();
    let resumed = (0..100).filter(|_| {
        let ticket = world.ticket(1);
        world.resume(from(1), &ticket)
    });
    let (most, per_tick) = (RESUMES_OF_ONE.0 as usize, RESUMES_OF_ONE.1 as usize);
    assert_eq!(resumed.count(), most);
    assert_eq!(world.tally.limited, 100 - most as u64);
    let other = world.ticket(2);
    assert!(world.resume(from(1), &other), "of the same source");
    world.sweep(1);
    let resumed = (0..100).filter(|_| {
        let ticket = world.ticket(1);
        world.resume(from(1), &ticket)
    });
    assert_eq!(resumed.count(), per_tick);
}

#[test]
fn guests_of_one_source_are_bounded_until_they_log_in_or_go() {
    let world = World::new();
    let [crowded, other] = [from(1).ip(), from(2).ip()];
    let most = u16::try_from(GUESTS_PER_SOURCE).unwrap();
    let guests: Vec<_> = (0..most).map(|peer| world.admit(peer, crowded)).collect();
    let has_room = || world.endpoint.has_room_for(crowded);
    assert!(!has_room() && world.endpoint.has_room_for(other));
    // Logged in: counted once, however often it is told, and however it ends.
    world.endpoint.set_published(guests[0], 0, 0);
    assert!(has_room());
    world.admit(most, crowded);
    assert!(!has_room());
    for _ in 0..3 {
        world.endpoint.set_published(guests[0], 0, 0);
        world.endpoint.set_void(guests[0]);
    }
    world.endpoint.end(guests[0], &mut Vec::new());
    assert!(!has_room());
    world.endpoint.end(guests[1], &mut Vec::new());
    assert!(has_room());
    world.admit(most + 1, crowded);
    world.sweep(UNUSED_LIFE + 2);
    let all = (0..most).map(|peer| world.admit(peer, crowded));
    assert_eq!(all.count(), usize::from(most));
    assert!(!has_room(), "none was forgotten, and none was left over");
}

#[test]
fn nobody_resumes_who_may_not_return_or_when_too_many_do() {
    let mut world = World::new();
    let ticket = world.ticket(1);
    world.may_return = false;
    assert!(
        !world.resume(from(1), &ticket),
        "the name is somebody else's"
    );
    world.may_return = true;
    world.endpoint.resumes().0.total = MAX_PENDING;
    assert!(!world.resume(from(1), &ticket));
    world.endpoint.resumes().0.total = 0;
    assert!(world.resume(from(1), &ticket));
    assert_eq!((world.tally.resumed, world.tally.not_resumed), (1, 2));
}

#[test]
fn a_session_has_a_budget_and_an_end() {
    let mut world = World::new();
    let (session, mut guest) = world.guest(1);
    for _ in 0..MAX_BUDGET {
        assert_eq!(world.beat(&mut guest), Some(true));
    }
    assert_eq!((world.beat(&mut guest), world.tally.over_budget), (None, 1));
    world.sweep(1);
    let more = (0..MAX_BUDGET).filter(|_| world.beat(&mut guest).is_some());
    assert_eq!(more.count(), usize::from(BUDGET_PER_TICK));
    world
        .endpoint
        .tick
        .fetch_add(MAX_AGE - 1, Ordering::Relaxed);
    assert_eq!(world.beat(&mut guest), Some(true), "of the last moment");
    world.endpoint.tick.fetch_add(1, Ordering::Relaxed);
    assert_eq!(world.beat(&mut guest), None);
    assert!(!world.endpoint.sessions.contains(session));
}

#[test]
fn who_was_put_out_is_not_answered_as_if_nothing_had_happened() {
    let mut world = World::new();
    let (session, mut guest) = world.guest(1);
    assert_eq!(world.beat(&mut guest), Some(true));
    world.endpoint.set_void(session);
    assert_eq!(world.beat(&mut guest), Some(false));
}

#[test]
fn each_session_is_judged_by_the_silence_that_it_was_told_last() {
    let mut world = World::new();
    let (before, mut early) = world.guest(1);
    let (after, mut late) = world.guest(2);
    assert!(world.beat(&mut early).is_some() && world.beat(&mut late).is_some());
    let slow = Rhythm::new(Duration::from_secs(20), Duration::from_secs(25));
    world.endpoint.rhythm.store(pack(slow), Ordering::Relaxed);
    assert!(world.beat(&mut late).is_some(), "it is told");
    world.sweep(ticks(Duration::from_secs(3)) + 2);
    let stage = |id| {
        let stage = world
            .endpoint
            .sessions
            .with(id, |session| session.hot.stage);
        stage.unwrap()
    };
    assert_eq!((stage(before), stage(after)), (Stage::Hidden, Stage::Live));
}
