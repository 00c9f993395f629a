//! Which addresses may be dialled by themselves: each failure makes its address wait longer, and wrong
//! passphrases are few in all.
//!
//! Whoever answers a dial tests one guess of our passphrase. People dial as often as they like; beacons make us
//! dial only so often.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An address where nobody answered is not dialled for so long; twice as long each time. The first is short: a
/// network that is just coming up loses a dial or two.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The same, where the passphrase was another one.
const FIRST_WAIT_WRONG: Duration = Duration::from_secs(30);
const MAX_WAIT: Duration = Duration::from_secs(64 * 60);
/// So many wrong passphrases …
const MAX_GUESSES: usize = 5;
/// … within this time …
const GUESS_WINDOW: Duration = Duration::from_secs(600);
/// … end dialling for this long.
const PAUSE: Duration = Duration::from_secs(600);
/// What is told of them is told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(600);
/// Most addresses that are remembered, of each kind.
const MAX_ADDRESSES: usize = 1024;

#[derive(Debug)]
struct Failed {
    times: u32,
    until: Instant,
}

/// A wrong passphrase was noted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Guessed {
    /// Nobody was told lately.
    pub(super) is_news: bool,
    /// With this one dialling ends for so long.
    pub(super) pause: Option<Duration>,
}

/// What failed, and when.
#[derive(Debug, Default)]
pub(super) struct Dials {
    failed: BTreeMap<IpAddr, Failed>,
    guesses: VecDeque<Instant>,
    paused_until: Option<Instant>,
    told: Option<Instant>,
    /// Addresses of members, as far as we know: no guess is lost on them.
    vouched: BTreeSet<IpAddr>,
}

impl Dials {
    /// May this address be dialled now?
    pub(super) fn may_dial(&self, now: Instant, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_paused = self.paused_until.is_some_and(|until| now < until);
        let rests = self.failed.get(&ip).is_some_and(|it| now < it.until);
        !rests && (!is_paused || self.vouched.contains(&ip))
    }

    /// Nobody answers at this address, or nobody who lets us in.
    pub(super) fn failed(&mut self, now: Instant, ip: IpAddr) {
        self.rest(now, ip, FIRST_WAIT);
    }

    fn rest(&mut self, now: Instant, ip: IpAddr, first: Duration) {
        let ip = ip.to_canonical();
        if self.failed.len() >= MAX_ADDRESSES && !self.failed.contains_key(&ip) {
            self.make_room(now);
        }
        let failed = self.failed.entry(ip).or_insert(Failed {
            times: 0,
            until: now,
        });
        let wait = first.saturating_mul(2_u32.saturating_pow(failed.times));
        failed.until = now + wait.min(MAX_WAIT);
        failed.times = failed.times.saturating_add(1);
    }

    /// Those whose wait is over first; if nobody's is, whoever waits shortest.
    fn make_room(&mut self, now: Instant) {
        self.failed.retain(|_, failed| now < failed.until);
        if self.failed.len() >= MAX_ADDRESSES {
            let soonest = self.failed.iter().min_by_key(|(_, failed)| failed.until);
            if let Some(soonest) = soonest.map(|(ip, _)| *ip) {
                self.failed.remove(&soonest);
            }
        }
    }

    /// A dial of this address led to somebody of ours.
    pub(super) fn succeeded(&mut self, ip: IpAddr) {
        self.failed.remove(&ip.to_canonical());
    }

    /// Somebody answered there with another passphrase.
    pub(super) fn guessed(&mut self, now: Instant, ip: IpAddr) -> Guessed {
        self.rest(now, ip, FIRST_WAIT_WRONG);
        while let Some(first) = self.guesses.front()
            && now >= *first + GUESS_WINDOW
        {
            self.guesses.pop_front();
        }
        self.guesses.push_back(now);
        let is_news = self.told.is_none_or(|told| now >= told + TELL_AGAIN);
        if is_news {
            self.told = Some(now);
        }
        let is_too_many = self.guesses.len() >= MAX_GUESSES;
        if is_too_many {
            self.guesses.clear();
            self.paused_until = Some(now + PAUSE);
        }
        Guessed {
            is_news,
            pause: is_too_many.then_some(PAUSE),
        }
    }

    /// Somebody of ours has this address.
    pub(super) fn vouch_for(&mut self, ip: IpAddr) {
        if self.vouched.len() >= MAX_ADDRESSES {
            self.vouched.clear();
        }
        self.vouched.insert(ip.to_canonical());
    }
}
