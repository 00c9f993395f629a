//! Who is on the local network: whose beacons were heard, when to send our own, whom to dial.
//!
//! ```text
//! beacon ─▶ near? not too often? ─▶ opened ─▶ heard ──may dial──▶ dialled ──▶ met, until its session ends
//!                                               ▲                    │
//!                                               └── waits longer ◀── failed
//! ```
//! A beacon proves nothing: whoever knows the network's name can make one. It costs its sender's address a dial,
//! and how often that may fail is bounded, for each address and for all.

mod dials;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use self::dials::Dials;
use super::limiter::{Buckets, Rate};
use crate::crypto::random::{Random, random_bytes};
use crate::wire::beacon::{Beacon, Instance};
use crate::wire::packet::Role;

/// Time between two beacons, more or less a fifth of it.
pub const EVERY: Duration = Duration::from_secs(5);
/// Pauses between the first beacons, at the start and when addresses change: the first may be lost.
const BURST: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];
/// Somebody new hears of us within this time.
const REPLY_WITHIN: Duration = Duration::from_millis(400);
/// However many are new, our own beacons are this far apart.
const REPLY_PAUSE: Duration = Duration::from_millis(500);
/// Whoever missed three beacons, and has no session with us, is forgotten.
const STALE: Duration = Duration::from_secs(18);
/// An address from which nothing came for so long is not dialled any more.
const FRESH: Duration = Duration::from_secs(12);
/// Most difference between two clocks, in seconds.
const MAX_CLOCK_DIFFERENCE: u64 = 60;

/// Most who are remembered.
pub const MAX_HEARD: usize = 256;
/// Most of them from one address.
const MAX_OF_SOURCE: usize = 8;
/// Most addresses of one.
const MAX_ADDRESSES: usize = 4;
/// Dials at the same time.
const MAX_DIALS: usize = 8;
/// Beacons of one address that are opened.
const OPEN_RATE: Rate = Rate::new(10.0, 40.0);
/// Addresses that are told apart for it.
const MAX_SOURCES: usize = 1024;

/// Whom we look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeks {
    /// Nobody: we only show that we are here.
    Nobody,
    /// Trackers; they are listed, never dialled by this machine.
    Trackers,
    /// Peers without a tracker; they are dialled.
    Peers,
}

/// What our own beacons say.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// What we are.
    pub role: Role,
    /// Where our tracker listens, TCP and UDP; 0 for nowhere.
    pub port: u16,
    /// Drawn for this start.
    pub instance: Instance,
}

/// What a driver shall do, or tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Dial the tracker there, and call [`Neighbours::handle_dialed`].
    Dial(Instance, SocketAddr),
    /// Somebody there answers with another passphrase; told once in a while.
    OtherPassphrase(IpAddr),
    /// So many did that nobody new is dialled for this long.
    Paused(Duration),
}

/// What came of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialed {
    /// It is one of us: there is a session.
    Met,
    /// Nobody answers there, or it does not let us in.
    Failed,
    /// It has another passphrase.
    OtherPassphrase,
    /// It is met already, or it is ourselves.
    Known,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Heard,
    Dialing(SocketAddr),
    Met,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    /// Where it was heard, with the port that its beacon told.
    at: SocketAddr,
    heard: Instant,
    /// This instance is not to be found there.
    is_wrong: bool,
}

#[derive(Debug)]
struct Neighbour {
    role: Role,
    /// The first is from where it was heard first.
    addresses: Vec<Address>,
    heard: Instant,
    state: State,
}

/// The machine; a driver with sockets runs it.
pub struct Neighbours {
    own: Own,
    seeks: Seeks,
    heard: BTreeMap<Instance, Neighbour>,
    opened: Buckets<IpAddr>,
    dials: Dials,
    next_beacon: Instant,
    sent: Option<Instant>,
    burst: usize,
    events: VecDeque<Event>,
    random: Box<dyn Random>,
}

impl Neighbours {
    /// Nobody was heard yet; our first beacon is due.
    #[must_use]
    pub fn new(now: Instant, own: Own, seeks: Seeks, random: Box<dyn Random>) -> Self {
        Self {
            own,
            seeks,
            heard: BTreeMap::new(),
            opened: Buckets::new(OPEN_RATE, MAX_SOURCES),
            dials: Dials::default(),
            next_beacon: now,
            sent: None,
            burst: 0,
            events: VecDeque::new(),
            random,
        }
    }

    /// Is a datagram from there worth opening? Nobody far away has a say, and nobody very often.
    pub fn may_open(&mut self, now: Instant, from: IpAddr) -> bool {
        let from = from.to_canonical();
        is_near(from)
            && self
                .opened
                .of(from, now)
                .is_some_and(|bucket| bucket.take(now))
    }

    /// A beacon came from there; `unix_s` is our own clock.
    pub fn handle_beacon(&mut self, now: Instant, unix_s: u64, from: SocketAddr, beacon: Beacon) {
        let is_own = beacon.instance == self.own.instance;
        if is_own || beacon.unix_s.abs_diff(unix_s) > MAX_CLOCK_DIFFERENCE || !is_near(from.ip()) {
            return;
        }
        // Its word, where it listens; the address is the one that it was heard from.
        let mut at = from;
        at.set_port(beacon.tcp_port);
        if let Some(known) = self.heard.get_mut(&beacon.instance) {
            known.hear(now, at);
        } else if self.has_room(now, from.ip()) {
            let neighbour = Neighbour {
                role: beacon.role,
                addresses: vec![Address::new(now, at)],
                heard: now,
                state: State::Heard,
            };
            self.heard.insert(beacon.instance, neighbour);
            self.reply_soon(now);
        }
        self.dial(now, beacon.instance);
    }

    /// The dial of this instance came to this.
    pub fn handle_dialed(&mut self, now: Instant, instance: Instance, dialed: Dialed) {
        let Some(neighbour) = self.heard.get_mut(&instance) else {
            return;
        };
        let State::Dialing(at) = neighbour.state else {
            return;
        };
        neighbour.state = State::Heard;
        match dialed {
            Dialed::Met => {
                neighbour.state = State::Met;
                self.dials.succeeded(at.ip());
            }
            Dialed::Known => neighbour.mark_wrong(at),
            Dialed::Failed => self.dials.failed(now, at.ip()),
            Dialed::OtherPassphrase => {
                neighbour.mark_wrong(at);
                let guessed = self.dials.guessed(now, at.ip());
                if guessed.is_news {
                    self.events.push_back(Event::OtherPassphrase(at.ip()));
                }
                if let Some(pause) = guessed.pause {
                    self.events.push_back(Event::Paused(pause));
                }
            }
        }
    }

    /// The session with this instance ended. If it is still there, its next beacon is that of somebody new.
    pub fn handle_gone(&mut self, instance: Instance) {
        self.heard.remove(&instance);
    }

    /// Somebody there has proved to be one of us: there is no guess in dialling it.
    pub fn vouch_for(&mut self, ip: IpAddr) {
        self.dials.vouch_for(ip.to_canonical());
    }

    /// Our own addresses are others now: whoever can hear us now shall not wait.
    pub const fn handle_change(&mut self, now: Instant) {
        (self.burst, self.next_beacon) = (0, now);
    }

    /// Forgets who is gone.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.heard.retain(|_, neighbour| {
            neighbour.state != State::Heard || now < neighbour.heard + STALE
        });
    }

    /// Is our own beacon due? It counts as sent.
    pub fn poll_beacon(&mut self, now: Instant) -> bool {
        if now < self.next_beacon {
            return false;
        }
        let jitter = 0.8 + 0.4 * self.fraction();
        let pause = BURST.get(self.burst).copied().unwrap_or(EVERY);
        self.burst = (self.burst + 1).min(BURST.len());
        (self.sent, self.next_beacon) = (Some(now), now + pause.mul_f64(jitter));
        true
    }

    /// What it says.
    #[must_use]
    pub const fn beacon(&self, unix_s: u64) -> Beacon {
        Beacon {
            role: self.own.role,
            tcp_port: self.own.port,
            udp_port: self.own.port,
            instance: self.own.instance,
            unix_s,
        }
    }

    /// What to do, and what to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to come back.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.next_beacon
    }

    /// The trackers that are heard now, each with the addresses that it was heard from, best first.
    #[must_use]
    pub fn trackers(&self) -> Vec<Vec<SocketAddr>> {
        let trackers = self.heard.values();
        let trackers = trackers.filter(|neighbour| neighbour.role == Role::Tracker);
        let addresses = |it: &Neighbour| {
            let mut addresses: Vec<_> = it.addresses.iter().map(|address| address.at).collect();
            // One that is good on a single link or machine last: others would be told of it.
            addresses.sort_by_key(|at| match at.ip() {
                IpAddr::V4(v4) => (v4.is_loopback(), false),
                IpAddr::V6(v6) => (v6.is_loopback(), v6.is_unicast_link_local()),
            });
            addresses
        };
        trackers.map(addresses).collect()
    }

    /// How many are remembered, of whatever kind.
    #[must_use]
    pub fn count(&self) -> usize {
        self.heard.len()
    }

    /// Makes room for somebody new from there, if there may be one more.
    fn has_room(&mut self, now: Instant, source: IpAddr) -> bool {
        self.handle_timeout(now);
        let of_source = |it: &&Neighbour| {
            let first = it.addresses.first();
            first.is_some_and(|first| first.at.ip() == source)
        };
        if self.heard.values().filter(of_source).count() >= MAX_OF_SOURCE {
            return false;
        }
        if self.heard.len() < MAX_HEARD {
            return true;
        }
        let idle = self.heard.iter();
        let idle = idle.filter(|(_, neighbour)| neighbour.state == State::Heard);
        let oldest = idle.min_by_key(|(_, neighbour)| neighbour.heard);
        let oldest = oldest.map(|(instance, _)| *instance);
        oldest.is_some_and(|oldest| self.heard.remove(&oldest).is_some())
    }

    fn reply_soon(&mut self, now: Instant) {
        let wait = REPLY_WITHIN.mul_f64(self.fraction());
        let pause = self.sent.map_or(now, |sent| sent + REPLY_PAUSE);
        self.next_beacon = self.next_beacon.min((now + wait).max(pause));
    }

    /// Dials it, where it was heard lately and may be dialled.
    fn dial(&mut self, now: Instant, instance: Instance) {
        let states = self.heard.values().map(|neighbour| neighbour.state);
        let under_way = states.filter(|state| matches!(state, State::Dialing(_)));
        let is_busy = under_way.count() >= MAX_DIALS;
        let Some(neighbour) = self.heard.get_mut(&instance) else {
            return;
        };
        let is_sought = self.seeks == Seeks::Peers && neighbour.role == Role::Peer;
        if !is_sought || is_busy || neighbour.state != State::Heard {
            return;
        }
        let fits = |address: &&Address| {
            let is_fresh = now < address.heard + FRESH;
            let is_usable = is_fresh && !address.is_wrong && address.at.port() != 0;
            is_usable && self.dials.may_dial(now, address.at.ip())
        };
        if let Some(at) = neighbour.addresses.iter().find(fits).map(|it| it.at) {
            neighbour.state = State::Dialing(at);
            self.events.push_back(Event::Dial(instance, at));
        }
    }

    fn fraction(&mut self) -> f64 {
        f64::from(u32::from_be_bytes(random_bytes(&mut *self.random))) / f64::from(u32::MAX)
    }
}

impl Neighbour {
    /// Its beacon came again, maybe from elsewhere.
    fn hear(&mut self, now: Instant, at: SocketAddr) {
        self.heard = now;
        let from = |address: &&mut Address| address.at.ip() == at.ip();
        if let Some(known) = self.addresses.iter_mut().find(from) {
            known.heard = now;
            if known.at != at {
                *known = Address::new(now, at);
            }
            return;
        }
        if self.addresses.len() >= MAX_ADDRESSES {
            let oldest = self.addresses.iter().enumerate();
            let oldest = oldest.min_by_key(|(_, address)| address.heard);
            if let Some(oldest) = oldest.map(|(place, _)| place) {
                self.addresses.remove(oldest);
            }
        }
        self.addresses.push(Address::new(now, at));
    }

    fn mark_wrong(&mut self, at: SocketAddr) {
        for address in self.addresses.iter_mut().filter(|it| it.at == at) {
            address.is_wrong = true;
        }
    }
}

impl Address {
    const fn new(now: Instant, at: SocketAddr) -> Self {
        Self {
            at,
            heard: now,
            is_wrong: false,
        }
    }
}

/// Can somebody with this address be on a network of ours? Loopback is, for several on one machine.
#[must_use]
pub fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unique_local() || v6.is_loopback(),
    }
}
