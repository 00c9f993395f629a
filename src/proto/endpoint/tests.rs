//! What a stranger and a member who never stops can make the endpoint do.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::crypto::kdf::{Group, NetworkName, TrackerSeed};
use crate::crypto::random::OsRandom;
use crate::crypto::secret::Passphrase;
use crate::crypto::ticket::{Resumable, Resuming, TICKET_LIFE_MS};
use crate::wire::MAX_DATAGRAM_LEN;
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
            .resume(UNIX_MS, from, datagram, &|_| true, tools);
        self.drawn = random.1;
        answer.is_some()
    }

    fn sweep(&self, ticks: u16) {
        for _ in 0..ticks {
            self.endpoint.sweep(&mut Vec::new());
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
