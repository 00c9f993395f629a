//! Whole swarms, from one peer to fifty, on a network that breaks, stops, lies and drips, with time of its own.
//!
//! A seed that fails is printed with the line that repeats it; `P2PFS_SEEDS=100000` tries as many.

#![expect(
    clippy::print_stdout,
    reason = "the seed of a failure is shown with it"
)]

mod swarm_world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use swarm_world::World;
use swarm_world::plan::{Conduct, Fault, MIB, Plan, downloader, member, seeder};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Checks so many seeds, or as many as `P2PFS_SEEDS` says, or the one of `P2PFS_SEED`.
fn for_seeds(test: &str, least: u64, check: impl Fn(u64) + Sync) {
    let seeds = match number("P2PFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("P2PFS_SEEDS").unwrap_or(least),
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let check_every = |first: usize| {
        for seed in seeds.clone().skip(first).step_by(threads) {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(seed))) {
                println!("P2PFS_SEED={seed} cargo test --test swarm_simulation {test}");
                resume_unwind(panic);
            }
        }
    };
    thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || check_every(first));
        }
    });
}

#[test]
fn whatever_goes_wrong_everybody_who_stays_ends() {
    for_seeds("whatever_goes_wrong", 4000, |seed| {
        World::new(Plan::troubled(seed, 7, 20)).run();
    });
}

#[test]
fn large_crowds_in_trouble_end_too() {
    for_seeds("large_crowds_in_trouble", 60, |seed| {
        World::new(Plan::troubled(seed, 50, 30)).run();
    });
}

#[test]
fn where_nothing_goes_wrong_hardly_anything_comes_twice() {
    for_seeds("where_nothing_goes_wrong", 300, |seed| {
        let mut world = World::new(Plan::calm(seed, 8, 24));
        let figures = world.run();
        for (peer, figures) in figures.iter().enumerate() {
            let least = world.pieces() / 10 + 2 * figures.sources;
            assert!(
                figures.duplicates <= least,
                "{} of {} pieces came twice to {peer}",
                figures.duplicates,
                world.pieces()
            );
        }
        let sources: u32 = figures.iter().map(|figures| figures.sources).sum();
        let received: u64 = figures.iter().map(|figures| figures.received).sum();
        let fetching = figures.iter().filter(|figures| figures.received > 0);
        let needed = fetching.count() as u64 * world.len();
        let most = needed + needed / 10 + u64::from(4 * sources) * MIB;
        assert!(
            received <= most,
            "{received} bytes came, {needed} were needed"
        );
    });
}

#[test]
fn a_crowd_has_it_in_twice_the_time_of_one_copy() {
    for_seeds("a_crowd_has_it", 6, |seed| {
        let (rate, pieces) = (4 * MIB, 80);
        let mut members = vec![seeder(rate)];
        members.extend((0..8).map(|_| downloader(20 * MIB, 40 * MIB)));
        let mut world = World::new(Plan::new(seed, pieces, members));
        let figures = world.run();
        let one_copy = world.len() as f64 / rate as f64;
        let took = world.elapsed().as_secs_f64() / one_copy;
        let copies = figures[0].sent as f64 / world.len() as f64;
        println!("{took:.2} times as long, {copies:.2} copies");
        assert!(took <= 1.5, "it took {took:.2} times as long as one copy");
        assert!(copies < 1.5, "the seeder sent {copies:.2} copies");
    });
}

#[test]
fn four_seeders_are_nearly_four_times_as_fast() {
    for_seeds("four_seeders", 6, |seed| {
        let rate = 5 * MIB;
        let time = |count: usize| {
            let mut members = vec![seeder(rate); count];
            members.push(downloader(rate, 100 * MIB));
            let mut world = World::new(Plan::new(seed, 200, members));
            world.run();
            world.elapsed().as_secs_f64()
        };
        let gain = time(1) / time(4);
        println!("{gain:.2} times as fast");
        assert!(gain >= 3.6, "{gain:.2} times as fast");
    });
}

#[test]
fn one_of_two_seeders_stops_for_ever_near_the_end() {
    for_seeds("one_of_two_seeders", 20, |seed| {
        let (rate, pieces) = (2 * MIB, 60);
        let members = vec![seeder(rate), seeder(rate), downloader(rate, 100 * MIB)];
        let mut plan = Plan::new(seed, pieces, members);
        let at = Duration::from_secs_f64(0.85 * (pieces * MIB) as f64 / (2 * rate) as f64);
        plan.faults.push((at, Fault::Stop(1, None)));
        let mut world = World::new(plan);
        world.run();
        let rest = Duration::from_secs_f64(0.2 * (pieces * MIB) as f64 / rate as f64);
        let took = world.elapsed() - at;
        println!("{took:?} after it stopped");
        assert!(took <= rest + Duration::from_secs(30), "{took:?}");
    });
}

#[test]
fn what_a_fast_one_owed_when_it_stopped_is_taken_over_at_once() {
    for_seeds("what_a_fast_one_owed", 6, |seed| {
        let (rate, pieces) = (40 * MIB, 400);
        let mut members = vec![seeder(rate), seeder(rate), downloader(rate, 200 * MIB)];
        for member in &mut members {
            member.latency = Duration::from_millis(40);
        }
        let mut plan = Plan::new(seed, pieces, members);
        let at = Duration::from_secs(4);
        plan.faults.push((at, Fault::Stop(1, None)));
        let mut world = World::new(plan);
        world.run();
        println!("{:?} in all", world.elapsed());
        assert!(
            world.elapsed() < Duration::from_secs(12),
            "{:?}",
            world.elapsed()
        );
    });
}

#[test]
fn a_connection_that_carries_nothing_any_more_is_made_anew() {
    for_seeds("a_connection_that_carries", 20, |seed| {
        let mut plan = Plan::new(seed, 40, vec![seeder(4 * MIB), downloader(MIB, 4 * MIB)]);
        let at = Duration::from_secs(2);
        plan.faults.push((at, Fault::Swallow(0, 1)));
        let mut world = World::new(plan);
        world.run();
        let most = Duration::from_secs(10 + 20 + 3 + 5 + 1);
        assert!(world.elapsed() < most, "{:?}", world.elapsed());
    });
}

/// The rarest go first: what nobody else has is fetched of the seeder before it leaves.
#[test]
fn what_only_the_seeder_has_is_fetched_before_it_leaves() {
    for_seeds("what_only_the_seeder_has", 6, |seed| {
        let mut members = vec![seeder(4 * MIB)];
        members.extend((0..4).map(|_| member(Conduct::Honest, 60, 2 * MIB, 20 * MIB)));
        let mut plan = Plan::new(seed, 100, members);
        let leaves = Fault::Crash {
            member: 0,
            is_power_cut: false,
            back_after: None,
        };
        plan.faults.push((Duration::from_secs(8), leaves));
        World::new(plan).run();
    });
}

/// What the seeder sends is soon a copy of everything.
#[test]
fn a_seeder_may_leave_a_crowd_after_less_than_two_copies() {
    for_seeds("a_seeder_may_leave", 6, |seed| {
        let (rate, pieces) = (4 * MIB, 80);
        let mut members = vec![seeder(rate)];
        members.extend((0..8).map(|_| downloader(20 * MIB, 40 * MIB)));
        let mut plan = Plan::new(seed, pieces, members);
        let leaves = Fault::Crash {
            member: 0,
            is_power_cut: false,
            back_after: None,
        };
        plan.faults.push((Duration::from_secs(34), leaves));
        let figures = World::new(plan).run();
        assert!(
            figures
                .iter()
                .skip(1)
                .all(|peer| peer.finished_after.is_some())
        );
    });
}

/// Everybody has sixteen sources that all lack the same half when the one comes that has it.
#[test]
fn a_seeder_that_comes_late_to_a_full_house_is_found() {
    for_seeds("a_seeder_that_comes_late", 6, |seed| {
        let mut members = vec![seeder(10 * MIB)];
        members[0].comes_at = Duration::from_secs(20);
        members.extend((0..30).map(|_| member(Conduct::Honest, 50, 10 * MIB, 20 * MIB)));
        let mut world = World::new(Plan::new(seed, 20, members));
        world.run();
    });
}

#[test]
fn liars_and_drippers_alone_beside_one_honest_source_hold_nobody_up() {
    for_seeds("liars_and_drippers", 60, |seed| {
        let mut members = vec![seeder(MIB), downloader(MIB, 20 * MIB)];
        for conduct in [
            Conduct::Drips,
            Conduct::Mute,
            Conduct::Lies(100),
            Conduct::Lies(30),
            Conduct::Boasts,
        ] {
            members.push(member(conduct, 50, 4 * MIB, MIB));
            members.push(member(conduct, 100, 4 * MIB, MIB));
        }
        let mut world = World::new(Plan::new(seed, 20, members));
        world.run();
        assert!(
            world.elapsed() < Duration::from_secs(60),
            "{:?}",
            world.elapsed()
        );
    });
}

/// Who drips has some pieces of the fast one's, and not for longer than that one needs for the rest.
#[test]
fn one_that_drips_beside_a_fast_one_does_not_delay_the_end() {
    for_seeds("one_that_drips", 20, |seed| {
        let time = |drippers: usize, pieces| {
            let mut members = vec![seeder(10 * MIB), downloader(MIB, 40 * MIB)];
            members.extend(vec![member(Conduct::Drips, 100, MIB, MIB); drippers]);
            let mut world = World::new(Plan::new(seed, pieces, members));
            world.run();
            world.elapsed().as_secs_f64()
        };
        for pieces in [4, 40, 400] {
            let (alone, beside) = (time(0, pieces), time(3, pieces));
            println!("{pieces} pieces: {alone:.2} s alone, {beside:.2} s beside three that drip");
            assert!(beside < 1.1 * alone + 1.0, "{alone} s, {beside} s");
        }
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let mut world = World::new(Plan::troubled(7, 12, 20));
        (world.run(), world.elapsed(), world.events)
    };
    assert_eq!(run(), run());
}
