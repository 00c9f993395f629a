//! The tracker's sessions in many small shards: the record that every datagram touches, and the rest.
//!
//! ```text
//! session id ─▶ shard (1024, a mutex each) ─▶ slot ─▶ Hot    128 bytes, two cache lines: keys, window, digest
//!                                                  ─▶ Pulse    8 bytes, side by side: when it was heard
//!                                                  ─▶ Cold     what only logins, listings and searches need
//! ```
//! Ids are random and ours, so they are their own hash. A heartbeat touches one table entry, one `Hot` and
//! one `Pulse`; a sweep reads the `Pulse`s one after the other and nothing else of whoever is not due.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::crowd::Spot;
use crate::crypto::envelope::{DatagramKeys, FlatOpener, FlatSealer};
use crate::crypto::secret::Secret;
use crate::crypto::ticket::TicketContent;
use crate::wire::control::PathToken;
use crate::wire::id::{PeerId, SessionId};
use crate::wire::packet::DataHeader;

/// Shards: with sixteen workers two meet in one of them once in a hundred datagrams.
const SHARDS: usize = 1024;
/// A `Pulse` whose limit is this belongs to nobody.
const NOBODY: u16 = u16::MAX;

/// Where a session stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Stage {
    /// The place of a session that is over.
    #[default]
    Over,
    /// Admitted, nothing came yet.
    Unused,
    /// Resumed, nothing came yet: the peer's older session stays until something does.
    Pending,
    Live,
    Hidden,
}

/// What a heartbeat needs of its session.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Hot {
    pub(super) opener: FlatOpener,
    /// XOR of the marks of what its peer publishes, and how many that are: a heartbeat's answer.
    pub(super) digest: u64,
    /// Token of the address to which anything may be sent: it came back from there.
    pub(super) proved: PathToken,
    pub(super) sealer: FlatSealer,
    pub(super) published: u32,
    /// Has its peer logged in?
    pub(super) is_member: bool,
    /// Was its peer put out? Then its heartbeats are not answered here.
    pub(super) is_void: bool,
    /// Tick at which it began.
    pub(super) began: u32,
    pub(super) id: SessionId,
    pub(super) stage: Stage,
    /// Silence in ticks that it was last told to keep below.
    pub(super) told: u16,
}

const _: () = assert!(size_of::<Hot>() == 128);

/// Signs of life, and what they may cost.
#[derive(Clone, Copy)]
pub(super) struct Pulse {
    /// Tick at which it was last heard.
    pub(super) seen: u32,
    /// Ticks of silence after which something happens to it.
    pub(super) limit: u16,
    /// Requests that it may make before the next tick.
    pub(super) budget: u16,
}

/// What the other requests need.
pub(super) struct Cold {
    pub(super) peer: PeerId,
    pub(super) listening_port: Option<u16>,
    /// Where the peer is: from its handshake, its resumption, or its latest proof.
    pub(super) ip: IpAddr,
    /// The address to which words may be sent that were not asked for.
    pub(super) proved: Option<SocketAddr>,
    pub(super) ticket: Option<Arc<TicketContent>>,
    pub(super) resume: Option<Secret<32>>,
    /// Where it is counted as long as it is not logged in.
    pub(super) guest: Option<Spot>,
}

/// One session's records, while its shard is locked.
pub(super) struct Session<'a> {
    pub(super) hot: &'a mut Hot,
    pub(super) pulse: &'a mut Pulse,
    pub(super) cold: &'a mut Cold,
}

/// A place in a shard. It may belong to another session by the time it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(u32);

/// Why a datagram is of no session.
pub(super) enum Miss {
    /// There is none of this id.
    Unknown,
    /// Its counter was used before, or is too old.
    Replayed,
}

#[derive(Default)]
struct Shard {
    slots: HashMap<SessionId, u32, BuildHasherDefault<IdHasher>>,
    hot: Vec<Hot>,
    pulses: Vec<Pulse>,
    cold: Vec<Option<Cold>>,
    free: Vec<u32>,
}

/// All sessions.
pub(super) struct Sessions {
    shards: Box<[Mutex<Shard>]>,
    /// How many are at each [`Stage`].
    census: [AtomicU64; 5],
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            census: Default::default(),
        }
    }

    /// The place of the session whose datagram this may be. Reads what opening it will need, so that the
    /// misses of many datagrams' records overlap.
    pub(super) fn find(&self, header: &DataHeader) -> Result<Slot, Miss> {
        let shard = self.shard(header.session);
        let slot = *shard.slots.get(&header.session).ok_or(Miss::Unknown)?;
        if shard.hot[slot as usize].opener.accepts(header.counter) {
            Ok(Slot(slot))
        } else {
            Err(Miss::Replayed)
        }
    }

    /// Does something with a session whose place is known already.
    pub(super) fn at<R>(
        &self,
        id: SessionId,
        slot: Slot,
        act: impl FnOnce(Session<'_>) -> R,
    ) -> Option<R> {
        let mut shard = self.shard(id);
        let session = shard.session(slot.0)?;
        (session.hot.id == id).then(|| act(session))
    }

    /// Does something with a session, if it is there.
    pub(super) fn with<R>(&self, id: SessionId, act: impl FnOnce(Session<'_>) -> R) -> Option<R> {
        let mut shard = self.shard(id);
        let slot = *shard.slots.get(&id)?;
        shard.session(slot).map(act)
    }

    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.shard(id).slots.contains_key(&id)
    }

    /// Adds a session, unless its id is taken.
    pub(super) fn insert(
        &self,
        id: SessionId,
        keys: &DatagramKeys,
        (stage, tick, limit, told, budget): (Stage, u32, u16, u16, u16),
        cold: Cold,
    ) -> Result<(), Cold> {
        let mut shard = self.shard(id);
        if shard.slots.contains_key(&id) {
            return Err(cold);
        }
        let slot = shard.place();
        shard.slots.insert(id, slot);
        let session = slot as usize;
        shard.hot[session] = Hot {
            opener: FlatOpener::new(&keys.receive),
            sealer: FlatSealer::new(&keys.send),
            began: tick,
            id,
            stage,
            told,
            ..Hot::default()
        };
        shard.pulses[session] = Pulse {
            seen: tick,
            limit,
            budget,
        };
        shard.cold[session] = Some(cold);
        self.census[stage as usize].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a session out and wipes its keys.
    pub(super) fn remove(&self, id: SessionId) -> Option<(Stage, Cold)> {
        let mut shard = self.shard(id);
        let slot = shard.slots.remove(&id)?;
        let session = slot as usize;
        let stage = mem::take(&mut shard.hot[session]).stage;
        self.census[stage as usize].fetch_sub(1, Ordering::Relaxed);
        shard.pulses[session].limit = NOBODY;
        shard.free.push(slot);
        let cold = shard.cold[session].take()?;
        Some((stage, cold))
    }

    /// Moves a session to another stage.
    pub(super) fn promote(&self, hot: &mut Hot, stage: Stage) -> Stage {
        let before = mem::replace(&mut hot.stage, stage);
        self.census[stage as usize].fetch_add(1, Ordering::Relaxed);
        self.census[before as usize].fetch_sub(1, Ordering::Relaxed);
        before
    }

    /// How many sessions are at a stage.
    pub(super) fn count(&self, stage: Stage) -> u64 {
        self.census[stage as usize].load(Ordering::Relaxed)
    }

    /// Sessions that are there.
    pub(super) fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| lock(shard).slots.len()).sum()
    }

    /// Looks at each session that was silent for longer than its limit, one shard after the other; and
    /// counts all.
    pub(super) fn sweep(&self, tick: u32, mut act: impl FnMut(Session<'_>)) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            let shard = &mut *lock(shard);
            count += shard.slots.len();
            for (slot, pulse) in shard.pulses.iter_mut().enumerate() {
                if tick.wrapping_sub(pulse.seen) > u32::from(pulse.limit)
                    && pulse.limit != NOBODY
                    && let Some(cold) = &mut shard.cold[slot]
                {
                    let hot = &mut shard.hot[slot];
                    act(Session { hot, pulse, cold });
                }
            }
        }
        count
    }

    fn shard(&self, id: SessionId) -> MutexGuard<'_, Shard> {
        let [.., high, low] = id.to_bytes();
        lock(&self.shards[usize::from(u16::from_be_bytes([high, low])) % SHARDS])
    }
}

impl Shard {
    fn session(&mut self, slot: u32) -> Option<Session<'_>> {
        let slot = slot as usize;
        Some(Session {
            hot: self.hot.get_mut(slot)?,
            pulse: self.pulses.get_mut(slot)?,
            cold: self.cold.get_mut(slot)?.as_mut()?,
        })
    }

    /// A place for one more.
    fn place(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.hot.len() == self.hot.capacity() {
            self.grow();
        }
        let slot =
            u32::try_from(self.hot.len()).expect("a shard holds a thousandth of all sessions");
        self.hot.push(Hot::default());
        self.pulses.push(Pulse {
            seen: 0,
            limit: NOBODY,
            budget: 0,
        });
        self.cold.push(None);
        slot
    }

    /// Moves the records by hand: what a vector leaves behind when it grows would still hold keys.
    fn grow(&mut self) {
        let mut grown = Vec::with_capacity(self.hot.len() * 5 / 4 + 4);
        grown.extend(self.hot.iter_mut().map(mem::take));
        self.hot = grown;
        let more = self.hot.capacity() - self.hot.len();
        self.pulses.reserve_exact(more);
        self.cold.reserve_exact(more);
    }
}

/// A panic elsewhere leaves a shard as it was before or after one step, each of which is whole.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session id is seven random bytes that we chose: spread over a word they are a hash.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
        self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, _len: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: u8) -> DatagramKeys {
        DatagramKeys {
            send: Secret::new([byte; 32]),
            receive: Secret::new([byte; 32]),
        }
    }

    fn cold() -> Cold {
        Cold {
            peer: PeerId([1; 32]),
            listening_port: None,
            ip: "10.0.0.1".parse().unwrap(),
            proved: None,
            ticket: None,
            resume: None,
            guest: None,
        }
    }

    fn id(number: u64) -> SessionId {
        let spread = (number + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_be_bytes();
        SessionId::from_bytes(*spread.first_chunk().unwrap())
    }

    #[test]
    fn sessions_are_found_after_others_came_and_went() {
        let sessions = Sessions::new();
        for number in 0..20_000 {
            let session = (Stage::Live, 0, 10, 10, 0);
            assert!(
                sessions
                    .insert(id(number), &keys(1), session, cold())
                    .is_ok()
            );
        }
        let session = (Stage::Live, 0, 10, 10, 0);
        assert!(sessions.insert(id(7), &keys(1), session, cold()).is_err());
        for number in 0..10_000 {
            assert_eq!(sessions.remove(id(number)).unwrap().0, Stage::Live);
            assert!(sessions.remove(id(number)).is_none());
        }
        assert_eq!(sessions.len(), 10_000);
        let header = |number| DataHeader {
            session: id(number),
            counter: 0,
        };
        assert!((0..10_000).all(|number| sessions.find(&header(number)).is_err()));
        assert!((10_000..20_000).all(|number| sessions.find(&header(number)).is_ok()));
    }

    #[test]
    fn a_place_is_not_mistaken_for_its_former_session() {
        let sessions = Sessions::new();
        let [old, new] = [[1, 0, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 0, 7]].map(SessionId::from_bytes);
        assert!(
            sessions
                .insert(old, &keys(1), (Stage::Live, 0, 10, 10, 0), cold())
                .is_ok()
        );
        let slot = sessions
            .find(&DataHeader {
                session: old,
                counter: 0,
            })
            .ok()
            .unwrap();
        sessions.remove(old);
        assert!(
            sessions
                .insert(new, &keys(2), (Stage::Live, 0, 10, 10, 0), cold())
                .is_ok()
        );
        assert!(sessions.at(old, slot, |_| ()).is_none());
        assert!(
            sessions.at(new, slot, |_| ()).is_some(),
            "it took that place"
        );
    }

    #[test]
    fn a_sweep_sees_who_was_silent_for_too_long_and_nobody_who_is_gone() {
        let sessions = Sessions::new();
        for number in 0..100 {
            let limit = if number < 50 { 10 } else { 20 };
            assert!(
                sessions
                    .insert(id(number), &keys(1), (Stage::Live, 5, limit, 10, 0), cold())
                    .is_ok()
            );
        }
        sessions.remove(id(0));
        let due = |tick| {
            let mut due = 0;
            assert_eq!(sessions.sweep(tick, |_| due += 1), 99);
            due
        };
        assert_eq!([due(15), due(16), due(26)], [0, 49, 99]);
    }
}
