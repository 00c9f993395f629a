//! Neighbours with an invented clock: who is heard, who is dialled, and what forged beacons cost.

use proptest::prelude::*;

use super::*;
use crate::crypto::random::OsRandom;

const UNIX_S: u64 = 1_800_000_000;

struct World {
    now: Instant,
    machine: Neighbours,
}

/// A peer without a tracker.
fn world() -> World {
    let now = Instant::now();
    let own = Own {
        role: Role::Peer,
        port: 4000,
        instance: Instance([0; 8]),
    };
    let mut machine = Neighbours::new(now, own, Seeks::Peers, Box::new(OsRandom::new()));
    while machine.poll_beacon(now) {}
    World { now, machine }
}

fn instance(number: u64) -> Instance {
    Instance(number.to_be_bytes())
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    fn hear(&mut self, number: u64, from: &str) {
        self.hear_beacon(from, |beacon| beacon.instance = instance(number));
    }

    fn hear_beacon(&mut self, from: &str, change: impl FnOnce(&mut Beacon)) {
        let mut beacon = Beacon {
            role: Role::Peer,
            tcp_port: 4001,
            udp_port: 4001,
            instance: instance(1),
            unix_s: UNIX_S,
        };
        change(&mut beacon);
        self.machine
            .handle_beacon(self.now, UNIX_S, at(from), beacon);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.machine.handle_timeout(self.now);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.machine.poll_event()).collect()
    }

    fn dialed(&mut self, number: u64, dialed: Dialed) {
        self.machine
            .handle_dialed(self.now, instance(number), dialed);
    }
}

#[test]
fn whoever_is_heard_is_dialled_where_it_was_heard() {
    let mut world = world();
    world.hear(1, "10.77.0.2:7777");
    assert_eq!(
        world.events(),
        [Event::Dial(instance(1), at("10.77.0.2:4001"))]
    );
    world.hear(1, "10.77.0.2:7777");
    assert_eq!(world.events(), [], "it is under way");
    world.dialed(1, Dialed::Met);
    world.hear(1, "10.77.0.2:7777");
    world.pass(Duration::from_secs(3600));
    assert_eq!((world.events(), world.machine.count()), (vec![], 1));
    world.machine.handle_gone(instance(1));
    world.hear(1, "10.77.0.2:7777");
    assert_eq!(world.events().len(), 1, "it is heard anew");
}

#[test]
fn a_scope_is_kept_and_a_beacon_from_elsewhere_adds_an_address_and_no_dial() {
    let mut world = world();
    world.hear(1, "[fe80::2%3]:7777");
    let scoped = SocketAddr::V6(std::net::SocketAddrV6::new(
        "fe80::2".parse().unwrap(),
        4001,
        0,
        3,
    ));
    assert_eq!(world.events(), [Event::Dial(instance(1), scoped)]);
    world.hear(1, "10.77.0.2:7777");
    assert_eq!(world.events(), []);
    world.dialed(1, Dialed::Failed);
    world.hear(1, "10.77.0.2:7777");
    assert_eq!(
        world.events(),
        [Event::Dial(instance(1), at("10.77.0.2:4001"))],
        "the other way"
    );
}

#[test]
fn own_beacons_far_senders_wrong_clocks_and_other_roles_lead_to_nothing() {
    let mut world = world();
    world.hear(0, "10.77.0.2:7777");
    for far in [
        "8.8.8.8:7777",
        "[2001:db8::1]:7777",
        "[::ffff:8.8.8.8]:7777",
    ] {
        world.hear(1, far);
        assert!(!world.machine.may_open(world.now, at(far).ip()), "{far}");
    }
    for clock in [UNIX_S - 61, UNIX_S + 61, 0, u64::MAX] {
        world.hear_beacon("10.77.0.2:7777", |beacon| beacon.unix_s = clock);
    }
    assert_eq!((world.events(), world.machine.count()), (vec![], 0));
    // They are heard, for our own beacon follows; dialled they are not.
    world.hear_beacon("10.77.0.3:7777", |beacon| beacon.role = Role::Tracker);
    world.hear_beacon("10.77.0.4:7777", |beacon| {
        (beacon.instance, beacon.tcp_port, beacon.udp_port) = (instance(2), 0, 0);
    });
    assert_eq!((world.events(), world.machine.count()), (vec![], 2));
    world.hear_beacon("10.77.0.5:7777", |beacon| {
        (beacon.instance, beacon.unix_s) = (instance(3), UNIX_S - 60);
    });
    assert_eq!(world.events().len(), 1);
}

#[test]
fn three_beacons_come_at_once_then_one_every_five_seconds_and_one_soon_for_somebody_new() {
    let mut world = world();
    let started = world.now;
    let mut sent = vec![started];
    let run = |world: &mut World, sent: &mut Vec<Instant>, until: Instant| {
        while world.machine.poll_timeout() < until {
            world.now = world.machine.poll_timeout();
            assert!(world.machine.poll_beacon(world.now));
            sent.push(world.now);
        }
        world.now = until;
    };
    run(&mut world, &mut sent, started + Duration::from_secs(1000));
    assert!(
        sent[2] < started + Duration::from_millis(1300),
        "three at once"
    );
    for pair in sent[2..].windows(2) {
        let pause = pair[1] - pair[0];
        assert!((4.0..=6.0).contains(&pause.as_secs_f64()), "{pause:?}");
    }
    assert!(sent.len() > 180, "{}", sent.len());
    let now = world.now;
    world.hear(1, "10.77.0.2:7777");
    assert!(world.machine.poll_timeout() <= now + REPLY_WITHIN.max(REPLY_PAUSE));
    // A thousand new ones a second make two beacons a second, not a thousand.
    sent.clear();
    for number in 0..1000 {
        world.pass(Duration::from_millis(1));
        world.hear(100 + number, &format!("10.77.{}.9:7777", number % 250));
        if world.machine.poll_beacon(world.now) {
            sent.push(world.now);
        }
    }
    assert!((1..=4).contains(&sent.len()), "{}", sent.len());
    world.machine.handle_change(world.now);
    assert!(
        world.machine.poll_beacon(world.now),
        "our addresses changed"
    );
}

#[test]
fn three_missed_beacons_without_a_session_are_the_end() {
    let mut world = world();
    world.hear(1, "10.77.0.2:7777");
    world.dialed(1, Dialed::Failed);
    world.pass(Duration::from_secs(17));
    assert_eq!(world.machine.count(), 1);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.machine.count(), 0);
}

#[test]
fn a_failed_dial_makes_its_address_wait_twice_as_long_each_time() {
    let mut world = world();
    let mut waits = Vec::new();
    let mut last = world.now;
    for _ in 0..100_000 {
        world.hear(1, "10.77.0.2:7777");
        if !world.events().is_empty() {
            waits.push((world.now - last).as_secs());
            last = world.now;
            world.dialed(1, Dialed::Failed);
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(waits[..9], [0, 2, 4, 8, 16, 32, 64, 128, 256]);
    assert!(waits[13..].iter().all(|wait| *wait == 3840), "{waits:?}");
    world.hear(2, "10.77.0.3:7777");
    assert_eq!(world.events().len(), 1, "others do not wait for it");
}

#[test]
fn five_wrong_passphrases_end_dialling_for_a_while_but_for_those_who_are_vouched_for() {
    let mut world = world();
    for number in 1..=5 {
        world.hear(number, &format!("10.77.0.{number}:7777"));
        assert_eq!(world.events().len(), 1);
        world.dialed(number, Dialed::OtherPassphrase);
        let told = world.events();
        let is_told = told.contains(&Event::OtherPassphrase("10.77.0.1".parse().unwrap()));
        let is_paused = told.iter().any(|event| matches!(event, Event::Paused(_)));
        assert_eq!((is_told, is_paused), (number == 1, number == 5), "{told:?}");
    }
    world.hear(6, "10.77.0.6:7777");
    assert_eq!(world.events(), []);
    world.machine.vouch_for("10.77.0.6".parse().unwrap());
    world.hear(6, "10.77.0.6:7777");
    assert_eq!(world.events().len(), 1, "one who has joined us is no guess");
    world.pass(Duration::from_secs(601));
    world.hear(7, "10.77.0.7:7777");
    assert_eq!(world.events().len(), 1);
}

#[test]
fn whoever_has_another_passphrase_is_not_dialled_again_under_the_same_beacon() {
    let mut world = world();
    let mut dials = 0;
    for _ in 0..7200 {
        world.hear(1, "10.77.0.2:7777");
        for event in world.events() {
            if matches!(event, Event::Dial(..)) {
                dials += 1;
                world.dialed(1, Dialed::OtherPassphrase);
            }
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(dials, 1);
}

/// Shows: row 79. What 10 000 forged beacons a second cost for ten minutes.
#[test]
fn row_79_forged_beacons_cost_few_dials_and_bounded_memory() {
    let mut world = world();
    world.hear(1, "10.77.0.2:7777");
    world.dialed(1, Dialed::Met);
    let _ = world.events();
    let (mut opened, mut dials) = (0, 0);
    for number in 0..600_000_u64 {
        let from = format!("10.77.0.{}:7777", 10 + number % 3);
        if world.machine.may_open(world.now, at(&from).ip()) {
            opened += 1;
            world.hear(1000 + number, &from);
        }
        for event in world.events() {
            if let Event::Dial(instance, _) = event {
                dials += 1;
                world
                    .machine
                    .handle_dialed(world.now, instance, Dialed::OtherPassphrase);
            }
        }
        assert!(world.machine.count() <= 1 + 3 * MAX_OF_SOURCE);
        if number % 100 == 0 {
            world.now += Duration::from_millis(10);
        }
    }
    assert!(opened < 3 * (40 + 10 * 61), "{opened} were opened");
    assert!(dials <= 5, "{dials} guesses");
    world.machine.handle_gone(instance(1));
    assert!(
        world.machine.count() <= 3 * MAX_OF_SOURCE,
        "who was met stayed"
    );
}

/// Shows: row 79. Sources may be invented, too: what is remembered stays bounded, and whoever is met stays.
#[test]
fn row_79_beacons_from_everywhere_push_nobody_out_who_is_met() {
    let mut world = world();
    world.hear(1, "10.77.0.2:7777");
    world.dialed(1, Dialed::Met);
    for number in 0..20_000_u64 {
        let [.., a, b, c] = number.to_be_bytes();
        world.hear(1000 + number, &format!("10.{a}.{b}.{c}:7777"));
        assert!(world.machine.count() <= MAX_HEARD);
    }
    let dials = world.events().len();
    assert!(dials <= 1 + MAX_DIALS, "{dials} dials at the same time");
    let before = world.machine.count();
    world.machine.handle_gone(instance(1));
    assert_eq!(world.machine.count(), before - 1);
}

proptest! {
    /// Whatever is heard, and whatever comes of it: all stays bounded, and our own beacons go on.
    #[test]
    fn nothing_that_is_heard_breaks_it(
        steps: Vec<(u8, u8, bool, u16, u8, u16)>
    ) {
        let mut world = world();
        for (number, source, is_peer, port, outcome, passed) in steps {
            world.hear_beacon(&format!("192.168.0.{source}:7777"), |beacon| {
                beacon.instance = instance(u64::from(number % 16));
                beacon.role = if is_peer { Role::Peer } else { Role::Tracker };
                (beacon.tcp_port, beacon.udp_port) = (port, port);
            });
            for event in world.events() {
                if let Event::Dial(instance, _) = event {
                    let dialed = [Dialed::Met, Dialed::Failed, Dialed::OtherPassphrase, Dialed::Known];
                    let dialed = dialed[usize::from(outcome % 4)];
                    world.machine.handle_dialed(world.now, instance, dialed);
                }
            }
            if outcome > 200 {
                world.machine.handle_gone(instance(u64::from(number % 16)));
            }
            world.pass(Duration::from_millis(passed.into()));
            prop_assert!(world.machine.count() <= 16);
            world.machine.poll_beacon(world.now);
            prop_assert!(world.machine.poll_timeout() <= world.now + EVERY.mul_f64(1.2));
        }
    }
}
