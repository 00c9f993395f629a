//! The tracker's parts together, without its sockets.

use std::net::{IpAddr, SocketAddr};

use super::engine::{Busy, Outlet, Spot};
use super::*;
use crate::crypto::envelope::DatagramKeys;
use crate::crypto::kdf::{NetworkName, TrackerSeed};
use crate::crypto::secret::{Passphrase, Secret};
use crate::proto::endpoint::Admission;
use crate::wire::packet::RESUME_LEN;

const MS: Duration = Duration::from_millis(1);

fn engine(max_peers: usize, rhythm: Rhythm) -> Engine {
    let passphrase = Passphrase::parse("a passphrase for tests").expect("long enough");
    let group = Group::derive(&passphrase, NetworkName::default());
    let office = TicketOffice::new(&group, &TrackerSeed(Secret::new([7; 32])));
    let endpoint = Endpoint::new(office, rhythm, 1, &mut OsRandom::new());
    Engine::new(endpoint, Service::new(max_peers, Vec::new()), None)
}

/// Admits one more session of a source of its own.
fn admit(engine: &Engine, number: u32) -> bool {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let admission = Admission {
        peer: PeerId(key),
        keys: DatagramKeys {
            send: Secret::new(key),
            receive: Secret::new(key),
        },
        resume: Secret::new(key),
        ip: IpAddr::from((0x0a00_0000 + number).to_be_bytes()),
        listening_port: None,
    };
    engine.admit(admission, &mut OsRandom::new()).is_some()
}

#[test]
fn sessions_are_bounded_in_all() {
    let engine = engine(10, Rhythm::new(2000 * MS, 3000 * MS));
    let admitted = (0..10_000).take_while(|number| admit(&engine, *number));
    assert_eq!(admitted.count(), 2 * 10 + 4096);
    assert!(!engine.has_room_for(IpAddr::from([192, 0, 2, 1])));
}

#[test]
fn the_metrics_tell_the_interval_that_peers_are_told() {
    let engine = engine(10_000, Rhythm::new(100 * MS, 300 * MS));
    let metrics = Metrics::new(Instant::now(), 100 * MS);
    let counters = metrics.counters();
    assert!((0..20_000).all(|number| admit(&engine, number)));
    engine.sweep((Instant::now(), unix_ms()), &mut Scratch::default());
    take_stock(&engine, &metrics, &counters);
    assert_eq!(metrics.heartbeat(), 333 * MS, "60 000 a second");
    assert_eq!(metrics.numbers().sessions.iter().sum::<u64>(), 20_000);
}

/// Jobs that were handed over.
#[derive(Default)]
struct Post(Vec<Job>);

impl Outlet for Post {
    fn send(&mut self, _to: SocketAddr, _datagram: &[u8]) {}

    fn hand_over(&mut self, job: Job) -> Result<(), Busy> {
        self.0.push(job);
        Ok(())
    }
}

#[test]
fn worthless_tickets_of_one_source_stop_reaching_the_clerks() {
    let engine = engine(10, Rhythm::new(2000 * MS, 3000 * MS));
    let (mut scratch, mut post, now) = (Scratch::default(), Post::default(), Instant::now());
    let mut looked_at = 0;
    for _ in 0..500 {
        let mut datagram = [0x12; RESUME_LEN];
        let from = SocketAddr::from(([192, 0, 2, 1], 7000));
        let mut spots = [Spot::new(0, RESUME_LEN, from)];
        engine.handle(now, &mut datagram, &mut spots, &mut scratch, &mut post);
        for job in std::mem::take(&mut post.0) {
            looked_at += 1;
            let random = &mut OsRandom::new();
            engine.work((now, unix_ms()), job, random, &mut scratch, &mut post);
        }
    }
    let tally = scratch.take_tally();
    assert_eq!(
        (tally.not_resumed, tally.limited),
        (looked_at, 500 - looked_at)
    );
    assert!(looked_at < 100, "{looked_at}");
}
