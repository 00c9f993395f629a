//! What a run is made of: who is there, how fast, how honest, and what goes wrong when.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// How a peer behaves that serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Conduct {
    Honest,
    /// So many pieces of a hundred are wrong.
    Lies(u32),
    /// Says that it has all, and sends wrong pieces for those that it lacks.
    Boasts,
    /// Says that it has all, and sends none of it.
    Mute,
    /// Sends a little now and then, so that it is never silent.
    Drips,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) conduct: Conduct,
    /// Pieces of a hundred that it has when it comes.
    pub(crate) has: u32,
    /// Bytes a second.
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// To the middle of the network.
    pub(crate) latency: Duration,
    pub(crate) comes_at: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It stops, and goes on after a while or never.
    Stop(usize, Option<Duration>),
    /// It ends with all its connections; a power cut also takes what was not durable, and tells nobody.
    Crash {
        member: usize,
        is_power_cut: bool,
        back_after: Option<Duration>,
    },
    /// All connections between the two end.
    Break(usize, usize),
    /// All connections between the two carry nothing any more, and do not end.
    Swallow(usize, usize),
    TrackerOut(Duration),
    DiskFull(usize, Duration),
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) len: u64,
    pub(crate) members: Vec<Member>,
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// How long the tracker takes to tell of a new holder.
    pub(crate) tracker_delay: Duration,
}

pub(crate) fn member(conduct: Conduct, has: u32, up: u64, down: u64) -> Member {
    Member {
        conduct,
        has,
        up,
        down,
        latency: Duration::from_millis(5),
        comes_at: Duration::ZERO,
    }
}

pub(crate) fn seeder(up: u64) -> Member {
    member(Conduct::Honest, 100, up, up)
}

pub(crate) fn downloader(up: u64, down: u64) -> Member {
    member(Conduct::Honest, 0, up, down)
}

impl Plan {
    pub(crate) fn new(seed: u64, pieces: u64, members: Vec<Member>) -> Self {
        Self {
            seed,
            len: pieces * MIB,
            members,
            faults: Vec::new(),
            tracker_delay: Duration::from_millis(20),
        }
    }

    /// Anything may go wrong, except that member 0 has all, is honest, and stays.
    pub(crate) fn troubled(seed: u64, most_members: usize, most_pieces: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut plan = Self::calm(seed, most_members, most_pieces);
        for member in plan.members.iter_mut().skip(2) {
            member.conduct = match random.random_range(0..12) {
                0 => Conduct::Lies(100),
                1 => Conduct::Lies(random.random_range(1..60)),
                2 => Conduct::Boasts,
                3 => Conduct::Mute,
                4 => Conduct::Drips,
                _ => Conduct::Honest,
            };
            if member.conduct != Conduct::Honest && random.random_bool(0.7) {
                member.has = 100;
            }
        }
        plan.tracker_delay = Duration::from_millis(random.random_range(10..8000));
        for _ in 0..random.random_range(0..8) {
            let at = Duration::from_millis(random.random_range(0..20_000));
            let fault = plan.fault(&mut random);
            plan.faults.push((at, fault));
        }
        plan
    }

    /// Honest peers of all kinds, and nothing goes wrong.
    pub(crate) fn calm(seed: u64, most_members: usize, most_pieces: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
        let count = random.random_range(2..=most_members);
        let rate = |random: &mut StdRng, least: u64| least << random.random_range(0..6);
        let members = (0..count).map(|number| Member {
            conduct: Conduct::Honest,
            has: match (number, random.random_range(0..6)) {
                (0, _) | (2.., 0) => 100,
                (2.., 1) => random.random_range(1..100),
                _ => 0,
            },
            up: rate(&mut random, 400 * KIB),
            down: rate(&mut random, MIB),
            latency: Duration::from_millis(random.random_range(0..60)),
            comes_at: Duration::from_millis(match number {
                0 => 0,
                _ => random.random_range(0..6000),
            }),
        });
        let members = members.collect();
        let mut plan = Self::new(seed, random.random_range(1..=most_pieces), members);
        plan.len -= random.random_range(0..MIB);
        plan
    }

    fn fault(&self, random: &mut StdRng) -> Fault {
        let count = self.members.len();
        let (one, other) = (random.random_range(0..count), random.random_range(0..count));
        let span = Duration::from_millis(random.random_range(100..30_000));
        let may_end = one != 0;
        match random.random_range(0..8) {
            0 => Fault::Stop(one, (!may_end || random.random_bool(0.7)).then_some(span)),
            1 | 2 if may_end => Fault::Crash {
                member: one,
                is_power_cut: random.random_bool(0.5),
                back_after: random.random_bool(0.8).then_some(span),
            },
            3 => Fault::Swallow(one, other),
            4 => Fault::TrackerOut(span),
            5 => Fault::DiskFull(one, span),
            _ => Fault::Break(one, other),
        }
    }
}
