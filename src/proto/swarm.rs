//! One download: who has what, whom to ask, what to do with a slow one or a liar.
//!
//! It handles numbers and verdicts, never the bytes. Each source has a few pieces asked of it at a time,
//! more of them the faster it is; one from which nothing comes loses all but one of them to the others;
//! and when nothing is left to ask for, an idle source doubles what another would deliver later than it
//! would itself, so that no single one holds the last piece.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::meter::Meter;
use super::picker::{Picker, Stock};
use crate::wire::MAX_CANDIDATES;
use crate::wire::id::PeerId;
use crate::wire::pieces::{Bitfield, Layout, PIECE_LEN, PieceIndex};

/// Pieces asked of one source at a time: at least, of one whose rate is not known yet, and at the most.
const MIN_DEPTH: usize = 2;
const EARLY_DEPTH: usize = 8;
const MAX_DEPTH: usize = 32;
/// A source is asked for as much as it delivers in this time: longer than round trips are.
const HORIZON: Duration = Duration::from_millis(400);
/// A source that was asked and sends nothing for this long is stalled.
const STALL: Duration = Duration::from_secs(2);
/// A source that was asked and sends nothing for this long is given up; its connection may be dead.
const GIVE_UP: Duration = Duration::from_secs(20);
/// A source that delivers no piece for this long does not count when pieces are doubled.
const CREDIT: Duration = Duration::from_secs(10);
/// A source that lacked a piece is tried again after this long when nobody else has it, then after twice as long.
const LACK: Duration = Duration::from_secs(2);
const MAX_LACK: Duration = Duration::from_secs(60);
/// Sources that may be asked for the same piece in the end game.
const MAX_ASKED: usize = 2;

/// A piece that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// The first copy; these others were asked for it as well and need not send it.
    New(Vec<PeerId>),
    /// It was here already.
    Duplicate,
}

#[derive(Debug)]
struct Source {
    has: Stock,
    /// What it owes, in the order in which it was asked.
    owes: VecDeque<PieceIndex>,
    last_sign: Instant,
    delivered: u64,
    meter: Meter,
    /// When it last delivered a piece, or began to owe one.
    last_piece: Instant,
    is_stalled: bool,
    /// It sends, but no piece became whole for long.
    is_slow: bool,
    /// Another one was faster with what it owed, and it has delivered nothing since.
    is_outrun: bool,
    /// What it had not when it was asked: until when, and for how long it is not asked again.
    lacks: BTreeMap<PieceIndex, (Instant, Duration)>,
    /// What it may send in the place of a piece that it owes: nobody else is asked for it meanwhile.
    instead: BTreeMap<PieceIndex, Vec<PieceIndex>>,
}

/// The machine; the download drives it.
#[derive(Debug)]
pub struct Swarm {
    layout: Layout,
    picker: Picker,
    done: Bitfield,
    sources: BTreeMap<PeerId, Source>,
    /// Which sources were asked for a piece that is not here yet.
    asked: BTreeMap<PieceIndex, BTreeSet<PeerId>>,
    liars: BTreeSet<PeerId>,
}

impl Swarm {
    /// A download of which the pieces `done` are here.
    #[must_use]
    pub fn new(layout: Layout, random: u32, done: Bitfield) -> Self {
        let mut picker = Picker::new(layout, random);
        for piece in done.iter() {
            picker.remove(piece);
        }
        Self {
            layout,
            picker,
            done,
            sources: BTreeMap::new(),
            asked: BTreeMap::new(),
            liars: BTreeSet::new(),
        }
    }

    /// Is everything here?
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.done.is_full()
    }

    /// Does nobody owe anything, although something is missing? Then no source has any of it.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.asked.is_empty() && !self.is_complete()
    }

    /// Bytes that are here.
    #[must_use]
    pub fn done_bytes(&self) -> u64 {
        if self.is_complete() {
            return self.layout.len();
        }
        self.done
            .iter()
            .map(|piece| self.layout.piece_len(piece) as u64)
            .sum()
    }

    /// Sources that are connected.
    #[must_use]
    pub fn source_count(&self) -> usize {
        self.sources.len()
    }

    /// Sources that sent at least one good piece and are still here.
    #[must_use]
    pub fn sending_count(&self) -> usize {
        self.sources
            .values()
            .filter(|source| source.delivered > 0 && !source.is_stalled)
            .count()
    }

    /// Is something owed, and everybody who owes it so slow that nothing became whole for long?
    #[must_use]
    pub fn is_slow(&self) -> bool {
        let mut owing = self
            .sources
            .values()
            .filter(|source| !source.owes.is_empty());
        !self.asked.is_empty() && owing.all(|source| source.is_slow)
    }

    /// Did this peer send wrong bytes before?
    #[must_use]
    pub fn is_liar(&self, peer: &PeerId) -> bool {
        self.liars.contains(peer)
    }

    /// How many sent wrong bytes.
    #[must_use]
    pub fn liar_count(&self) -> usize {
        self.liars.len()
    }

    /// Is this peer a source already?
    #[must_use]
    pub fn has_source(&self, peer: &PeerId) -> bool {
        self.sources.contains_key(peer)
    }

    /// Does this source have this piece?
    #[must_use]
    pub fn has_piece(&self, peer: &PeerId, piece: PieceIndex) -> bool {
        self.sources
            .get(peer)
            .is_some_and(|source| self.picker.is_in(&source.has, piece))
    }

    /// A source is connected and has these pieces.
    pub fn add_source(&mut self, now: Instant, peer: PeerId, has: Bitfield) {
        if self.liars.contains(&peer) || self.sources.contains_key(&peer) {
            return;
        }
        let source = Source {
            has: self.picker.add_stock(&has),
            owes: VecDeque::new(),
            last_sign: now,
            delivered: 0,
            meter: Meter::new(now),
            last_piece: now,
            is_stalled: false,
            is_slow: false,
            is_outrun: false,
            lacks: BTreeMap::new(),
            instead: BTreeMap::new(),
        };
        self.sources.insert(peer, source);
    }

    /// A source has these pieces, too.
    pub fn source_has(&mut self, peer: &PeerId, pieces: impl IntoIterator<Item = PieceIndex>) {
        let Some(source) = self.sources.get_mut(peer) else {
            return;
        };
        for piece in pieces {
            source.lacks.remove(&piece);
            self.picker.add_piece(&mut source.has, piece);
        }
    }

    /// A source does not have this piece after all, or not all of it: it is asked again when it says that it has
    /// it, and after a while when nobody else has it.
    pub fn source_lacks(&mut self, now: Instant, peer: &PeerId, piece: PieceIndex) {
        if let Some(source) = self.sources.get_mut(peer)
            && self.picker.remove_piece(&mut source.has, piece)
        {
            let before = source.lacks.get(&piece);
            let wait = before.map_or(LACK, |(_, wait)| wait.saturating_mul(2).min(MAX_LACK));
            source.lacks.insert(piece, (now + wait, wait));
            self.forget_owed(peer, piece);
            self.release(*peer, piece);
        }
    }

    /// A source is gone; what it owed is free again.
    pub fn remove_source(&mut self, peer: &PeerId) {
        let Some(source) = self.sources.remove(peer) else {
            return;
        };
        self.picker.remove_stock(&source.has);
        let instead = source.instead.into_values().flatten();
        for piece in source.owes.into_iter().chain(instead) {
            self.release(*peer, piece);
        }
    }

    /// All sources are gone.
    pub fn remove_sources(&mut self) {
        for peer in self.sources.keys().copied().collect::<Vec<_>>() {
            self.remove_source(&peer);
        }
    }

    /// The next piece to ask of `peer`, if it shall have more to do.
    pub fn next_request(&mut self, now: Instant, peer: &PeerId) -> Option<PieceIndex> {
        let source = self.sources.get_mut(peer)?;
        if source.owes.len() >= source.depth() {
            return None;
        }
        let piece = match self.picker.take(&source.has) {
            Some(piece) => piece,
            None if source.owes.is_empty() => self.piece_to_double(now, peer)?,
            None => return None,
        };
        let source = self.sources.get_mut(peer)?;
        if source.owes.is_empty() {
            source.last_sign = now;
            source.last_piece = now;
            source.meter.skip(now);
        }
        source.owes.push_back(piece);
        self.asked.entry(piece).or_default().insert(*peer);
        Some(piece)
    }

    /// What `peer` may send in the place of `piece`, which it owes. In a crowd the source knows best what was sent to
    /// others, so that they can have it from each other.
    pub fn candidates(
        &mut self,
        peer: &PeerId,
        piece: PieceIndex,
        is_known: impl Fn(PieceIndex) -> bool,
    ) -> Vec<PieceIndex> {
        let Some(source) = self.sources.get_mut(peer) else {
            return Vec::new();
        };
        let mut others = Vec::new();
        let is_one = !self.picker.has_crowd() || source.instead.contains_key(&piece);
        // What waits for a choice must not leave other sources without work.
        while !is_one
            && others.len() + 1 < MAX_CANDIDATES
            && self.picker.free_count() > self.asked.len()
        {
            let Some(other) = self.picker.take(&source.has) else {
                break;
            };
            if !is_known(other) {
                self.picker.put_back(other);
                break;
            }
            self.asked.entry(other).or_default().insert(*peer);
            others.push(other);
        }
        if !others.is_empty() {
            source.instead.insert(piece, others.clone());
        }
        others
    }

    /// In the place of `piece`, `peer` sends `chosen`, which may be the same: the others are free again.
    pub fn piece_chosen(&mut self, peer: &PeerId, piece: PieceIndex, chosen: PieceIndex) {
        let source = self.sources.get_mut(peer);
        let Some((source, mut others)) = source.and_then(|source| {
            let others = source.instead.remove(&piece)?;
            Some((source, others))
        }) else {
            return;
        };
        if let Some(place) = others.iter_mut().find(|other| **other == chosen) {
            *place = piece;
            for owed in source.owes.iter_mut().filter(|owed| **owed == piece) {
                *owed = chosen;
            }
        }
        for other in others {
            self.release(*peer, other);
        }
        // It came from elsewhere before anybody knew of the choice: it was cancelled.
        if self.done.has(chosen) {
            self.forget_owed(peer, chosen);
        }
    }

    /// Does `peer` still owe this piece?
    #[must_use]
    pub fn owes(&self, peer: &PeerId, piece: PieceIndex) -> bool {
        self.sources
            .get(peer)
            .is_some_and(|source| source.owes.contains(&piece))
    }

    /// Some of what `peer` owes is arriving.
    pub fn note_sign(&mut self, now: Instant, peer: &PeerId) {
        if let Some(source) = self.sources.get_mut(peer) {
            source.last_sign = now;
            source.is_stalled = false;
        }
    }

    /// A piece arrived from `peer` and is right.
    pub fn piece_arrived(&mut self, now: Instant, peer: &PeerId, piece: PieceIndex) -> Arrival {
        self.forget_owed(peer, piece);
        if let Some(source) = self.sources.get_mut(peer) {
            match self.layout.piece_len(piece) {
                len if len as u64 == PIECE_LEN => source.meter.add(now, len),
                // The way there and back is most of what the short one at the end takes.
                _ => source.meter.skip(now),
            }
            source.delivered += 1;
            source.last_sign = now;
            source.last_piece = now;
            source.is_stalled = false;
            source.is_slow = false;
            source.is_outrun = false;
        }
        if !self.done.insert(piece) {
            return Arrival::Duplicate;
        }
        self.picker.remove(piece);
        let mut others = self.asked.remove(&piece).unwrap_or_default();
        others.remove(peer);
        for other in &others {
            self.forget_owed(other, piece);
            if let Some(source) = self.sources.get_mut(other) {
                source.is_outrun = true;
            }
        }
        Arrival::New(others.into_iter().collect())
    }

    /// A piece came that could not be kept: `peer` no longer owes it, and somebody is asked again.
    pub fn piece_was_lost(&mut self, peer: &PeerId, piece: PieceIndex) {
        self.forget_owed(peer, piece);
        self.release(*peer, piece);
    }

    /// Pieces that counted as here are not: they are asked for again.
    pub fn forget(&mut self, pieces: impl IntoIterator<Item = PieceIndex>) {
        for piece in pieces {
            if self.done.remove(piece) {
                self.picker.put_back(piece);
            }
        }
    }

    /// What arrived from `peer` is wrong: it is dropped, and never asked again.
    pub fn piece_was_wrong(&mut self, peer: &PeerId) {
        self.liars.insert(*peer);
        self.remove_source(peer);
    }

    /// Sources that owe something and have sent nothing for too long.
    #[must_use]
    pub fn silent(&self, now: Instant) -> Vec<PeerId> {
        let is_silent = |source: &Source| {
            !source.owes.is_empty() && now.saturating_duration_since(source.last_sign) >= GIVE_UP
        };
        self.sources
            .iter()
            .filter(|(_, source)| is_silent(source))
            .map(|(peer, _)| *peer)
            .collect()
    }

    /// The source that was of no use for longest, if that is long: it makes room for one that may be.
    #[must_use]
    pub fn useless(&self, now: Instant) -> Option<PeerId> {
        let is_useless = |source: &Source| {
            source.owes.is_empty() && now.saturating_duration_since(source.last_piece) >= CREDIT
        };
        let useless = self.sources.iter().filter(|(_, source)| is_useless(source));
        let (peer, _) = useless.min_by_key(|(_, source)| source.last_piece)?;
        Some(*peer)
    }

    /// A deadline passed: what stalled and slow sources owe, all but one piece each, may be asked of others.
    /// Returns them, so that those sources need not send them any more.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(PeerId, PieceIndex)> {
        self.try_lacking(now);
        let mut released = Vec::new();
        for (peer, source) in &mut self.sources {
            if source.owes.is_empty() {
                continue;
            }
            let since = |at: Instant| now.saturating_duration_since(at);
            source.is_stalled |= since(source.last_sign) >= STALL;
            source.is_slow |= since(source.last_piece) >= CREDIT;
            while source.owes.len() > 1 && (source.is_stalled || source.is_slow) {
                released.extend(source.owes.pop_back().map(|piece| (*peer, piece)));
            }
        }
        for (peer, piece) in &released {
            self.forget_owed(peer, *piece);
            self.release(*peer, *piece);
        }
        released
    }

    /// Whoever lacked a piece that nobody has may have it now.
    fn try_lacking(&mut self, now: Instant) {
        let is_due = |source: &Source| source.lacks.values().any(|(until, _)| *until <= now);
        let due: Vec<_> = self
            .sources
            .iter()
            .filter(|(_, source)| is_due(source))
            .flat_map(|(peer, source)| source.lacks.iter().map(|lack| (*peer, lack)))
            .filter(|(_, (piece, (until, _)))| *until <= now && !self.done.has(**piece))
            .map(|(peer, (piece, _))| (peer, *piece))
            .collect();
        for (peer, piece) in due {
            if !self
                .sources
                .keys()
                .any(|other| self.has_piece(other, piece))
                && let Some(source) = self.sources.get_mut(&peer)
            {
                self.picker.add_piece(&mut source.has, piece);
            }
        }
    }

    /// `peer` owes this piece no longer, nor another one in its place.
    fn forget_owed(&mut self, peer: &PeerId, piece: PieceIndex) {
        let Some(source) = self.sources.get_mut(peer) else {
            return;
        };
        source.owes.retain(|owed| *owed != piece);
        for other in source.instead.remove(&piece).unwrap_or_default() {
            self.release(*peer, other);
        }
    }

    fn release(&mut self, peer: PeerId, piece: PieceIndex) {
        let Some(asked) = self.asked.get_mut(&piece) else {
            return;
        };
        asked.remove(&peer);
        if asked.is_empty() {
            self.asked.remove(&piece);
            if !self.done.has(piece) {
                self.picker.put_back(piece);
            }
        }
    }

    /// The piece that would come last from whoever owes it, if `peer` has it and would be twice as fast: what
    /// is gained must be more than what two of them send in vain. Those who have delivered nothing for long do
    /// not count: they shall not keep it to themselves, not even from one that was slow before.
    fn piece_to_double(&self, now: Instant, peer: &PeerId) -> Option<PieceIndex> {
        let source = self.sources.get(peer)?;
        let own_time = source.meter.time_for(PIECE_LEN).unwrap_or(STALL);
        let is_credible = |owner: &&PeerId| {
            let owner = self.sources.get(*owner);
            owner.is_some_and(|owner| {
                !owner.is_stalled && now.saturating_duration_since(owner.last_piece) < CREDIT
            })
        };
        // One that proved slower shall not take the second place from one that is faster.
        let most = if source.is_outrun || source.is_slow {
            1
        } else {
            MAX_ASKED
        };
        let owed = self.asked.iter().filter(|(piece, asked)| {
            self.picker.is_in(&source.has, **piece)
                && !asked.contains(peer)
                && asked.iter().filter(is_credible).count() < most
        });
        let expected = |piece: PieceIndex, asked: &BTreeSet<PeerId>| {
            let owners = asked.iter().filter(is_credible);
            let owners = owners.filter_map(|owner| self.sources.get(owner));
            let times = owners.map(|owner| owner.time_until(now, piece));
            times.min().unwrap_or(Duration::MAX)
        };
        owed.map(|(piece, asked)| (expected(*piece, asked), *piece))
            .max_by_key(|(expected, _)| *expected)
            .filter(|(expected, _)| *expected > own_time.saturating_mul(2))
            .map(|(_, piece)| piece)
    }
}

impl Source {
    fn depth(&self) -> usize {
        if self.is_stalled || self.is_slow {
            return 1;
        }
        let Some(rate) = self.meter.rate() else {
            // Deeper with each delivery: a source that works is kept busy across the round trip.
            let delivered = usize::try_from(self.delivered).unwrap_or(EARLY_DEPTH);
            return delivered.saturating_add(MIN_DEPTH).min(EARLY_DEPTH);
        };
        let ahead = u128::from(rate) * HORIZON.as_millis() / 1000 / u128::from(PIECE_LEN);
        usize::try_from(ahead)
            .unwrap_or(MAX_DEPTH)
            .saturating_add(1)
            .clamp(MIN_DEPTH, MAX_DEPTH)
    }

    /// How long it will probably take until `piece` comes from here; the longer nothing came, the longer.
    fn time_until(&self, now: Instant, piece: PieceIndex) -> Duration {
        let waited = now.saturating_duration_since(self.last_piece);
        let before = self.owes.iter().take_while(|owed| **owed != piece).count();
        let pieces = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
        let each = self.meter.time_for(PIECE_LEN).unwrap_or(STALL);
        let all = each.saturating_mul(pieces);
        match all.checked_sub(waited) {
            Some(left) if !left.is_zero() => left,
            _ => each.saturating_add(waited),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(pieces: u64) -> Layout {
        Layout::new(pieces << 20).unwrap()
    }

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn swarm(pieces: u64, sources: u8, now: Instant) -> Swarm {
        let layout = layout(pieces);
        let mut swarm = Swarm::new(layout, 0, Bitfield::empty(layout));
        for number in 0..sources {
            swarm.add_source(now, peer(number), Bitfield::full(layout));
        }
        swarm
    }

    fn ask_all(swarm: &mut Swarm, now: Instant, source: u8) -> Vec<PieceIndex> {
        std::iter::from_fn(|| swarm.next_request(now, &peer(source))).collect()
    }

    #[test]
    fn the_work_is_split_and_nothing_is_asked_twice() {
        let now = Instant::now();
        let mut swarm = swarm(100, 2, now);
        let (one, two) = (ask_all(&mut swarm, now, 0), ask_all(&mut swarm, now, 1));
        assert_eq!((one.len(), two.len()), (MIN_DEPTH, MIN_DEPTH));
        assert!(one.iter().all(|piece| !two.contains(piece)));
    }

    #[test]
    fn what_a_lost_source_owed_is_asked_of_the_other() {
        let now = Instant::now();
        let mut swarm = swarm(3, 2, now);
        let owed = ask_all(&mut swarm, now, 0);
        swarm.remove_source(&peer(0));
        for _ in 0..3 {
            let piece = swarm.next_request(now, &peer(1)).unwrap();
            assert_eq!(
                swarm.piece_arrived(now, &peer(1), piece),
                Arrival::New(vec![])
            );
        }
        assert!(swarm.is_complete() && !owed.is_empty());
    }

    #[test]
    fn a_silent_source_never_holds_the_last_piece() {
        let now = Instant::now();
        let mut swarm = swarm(2, 2, now);
        let held = ask_all(&mut swarm, now, 0);
        assert_eq!(held.len(), 2);
        assert_eq!(swarm.next_request(now, &peer(1)), None, "it may be coming");
        let now = now + 3 * STALL;
        let first = swarm
            .next_request(now, &peer(1))
            .expect("an idle source doubles what is owed");
        assert_eq!(swarm.next_request(now, &peer(1)), None, "one at a time");
        assert_eq!(
            swarm.piece_arrived(now, &peer(1), first),
            Arrival::New(vec![peer(0)])
        );
        let second = swarm.next_request(now, &peer(1)).unwrap();
        swarm.piece_arrived(now, &peer(1), second);
        assert!(swarm.is_complete());
        assert_eq!(
            swarm.piece_arrived(now, &peer(0), first),
            Arrival::Duplicate
        );
    }

    #[test]
    fn a_stalled_source_keeps_one_piece_and_recovers() {
        let now = Instant::now();
        let mut swarm = swarm(10, 1, now);
        let owed = ask_all(&mut swarm, now, 0);
        let later = now + STALL;
        swarm.handle_timeout(later);
        assert_eq!(swarm.sources[&peer(0)].owes.len(), 1);
        assert!(ask_all(&mut swarm, later, 0).is_empty());
        swarm.piece_arrived(later, &peer(0), owed[0]);
        assert!(!ask_all(&mut swarm, later, 0).is_empty());
    }

    #[test]
    fn downloaders_that_lack_the_same_starve_until_somebody_has_it() {
        let now = Instant::now();
        let layout = layout(4);
        let mut swarm = Swarm::new(layout, 0, Bitfield::empty(layout));
        swarm.add_source(now, peer(0), Bitfield::empty(layout));
        assert!(ask_all(&mut swarm, now, 0).is_empty() && swarm.is_starved());
        let last = layout.piece(3).unwrap();
        swarm.source_has(&peer(0), [last]);
        assert!(swarm.has_piece(&peer(0), last) && !swarm.has_piece(&peer(1), last));
        assert_eq!(ask_all(&mut swarm, now, 0), [last]);
        assert!(!swarm.is_starved());
    }

    #[test]
    fn a_source_that_sends_nothing_is_given_up() {
        let now = Instant::now();
        let mut swarm = swarm(10, 2, now);
        ask_all(&mut swarm, now, 0);
        assert_eq!(swarm.silent(now + GIVE_UP / 2), []);
        swarm.handle_timeout(now + STALL);
        assert_eq!(
            swarm.silent(now + GIVE_UP),
            [peer(0)],
            "who owes nothing may be silent"
        );
        swarm.note_sign(now + STALL, &peer(0));
        assert_eq!(swarm.silent(now + GIVE_UP), []);
    }

    /// One whole source, and a crowd around.
    fn crowd(pieces: u64, now: Instant) -> Swarm {
        let mut swarm = swarm(pieces, 2, now);
        swarm.add_source(now, peer(9), Bitfield::empty(layout(pieces)));
        swarm
    }

    #[test]
    fn in_a_crowd_a_source_chooses_and_the_rest_is_free_again() {
        let now = Instant::now();
        let mut swarm = crowd(100, now);
        let piece = swarm.next_request(now, &peer(0)).unwrap();
        let others = swarm.candidates(&peer(0), piece, |_| true);
        assert_eq!(others.len() + 1, MAX_CANDIDATES);
        assert!(
            swarm.candidates(&peer(0), piece, |_| true).is_empty(),
            "once"
        );
        assert_eq!(
            swarm.picker.free_count(),
            96,
            "nobody else is asked for them"
        );
        swarm.piece_chosen(&peer(0), piece, others[1]);
        assert_eq!(swarm.picker.free_count(), 99);
        assert!(swarm.owes(&peer(0), others[1]) && !swarm.owes(&peer(0), piece));
        swarm.piece_arrived(now, &peer(0), others[1]);
        assert_eq!(swarm.picker.free_count(), 99);

        let piece = swarm.next_request(now, &peer(0)).unwrap();
        swarm.candidates(&peer(0), piece, |_| true);
        swarm.piece_chosen(&peer(0), piece, piece);
        assert!(swarm.owes(&peer(0), piece) && swarm.picker.free_count() == 98);
    }

    /// It came from another source while the choice was on its way.
    #[test]
    fn a_chosen_piece_that_is_here_is_not_owed() {
        let now = Instant::now();
        let mut swarm = crowd(100, now);
        let piece = swarm.next_request(now, &peer(0)).unwrap();
        let others = swarm.candidates(&peer(0), piece, |_| true);
        swarm.piece_arrived(now, &peer(1), others[0]);
        swarm.piece_chosen(&peer(0), piece, others[0]);
        assert!(!swarm.owes(&peer(0), others[0]) && !swarm.owes(&peer(0), piece));
        assert_eq!(swarm.silent(now + GIVE_UP), []);
        assert_eq!(swarm.picker.free_count(), 99);
    }

    #[test]
    fn when_all_are_let_go_of_everything_is_free_and_they_may_come_again() {
        let now = Instant::now();
        let mut swarm = crowd(100, now);
        for piece in ask_all(&mut swarm, now, 0) {
            swarm.candidates(&peer(0), piece, |_| true);
        }
        swarm.remove_sources();
        assert_eq!((swarm.picker.free_count(), swarm.source_count()), (100, 0));
        swarm.add_source(now, peer(9), Bitfield::full(layout(100)));
        assert!(
            swarm.next_request(now, &peer(9)).is_some(),
            "it has more now"
        );
    }

    #[test]
    fn what_waited_for_a_choice_is_free_when_the_source_goes_or_stalls() {
        let now = Instant::now();
        for is_stalled in [false, true] {
            let mut swarm = crowd(100, now);
            for piece in ask_all(&mut swarm, now, 0) {
                swarm.candidates(&peer(0), piece, |_| true);
            }
            assert_eq!(swarm.picker.free_count(), 100 - MIN_DEPTH * MAX_CANDIDATES);
            if is_stalled {
                swarm.handle_timeout(now + STALL);
                assert_eq!(swarm.picker.free_count(), 100 - MAX_CANDIDATES);
            }
            swarm.remove_source(&peer(0));
            assert_eq!(swarm.picker.free_count(), 100);
        }
    }

    #[test]
    fn no_choice_without_a_crowd_without_hashes_or_near_the_end() {
        let now = Instant::now();
        let mut alone = swarm(100, 1, now);
        let piece = alone.next_request(now, &peer(0)).unwrap();
        assert!(alone.candidates(&peer(0), piece, |_| true).is_empty());
        let mut many = crowd(100, now);
        let piece = many.next_request(now, &peer(0)).unwrap();
        assert!(many.candidates(&peer(0), piece, |_| false).is_empty());
        assert_eq!(many.picker.free_count(), 99);
        let mut few = crowd(4, now);
        let piece = few.next_request(now, &peer(0)).unwrap();
        assert_eq!(few.candidates(&peer(0), piece, |_| true).len(), 1);
        let piece = few.next_request(now, &peer(1)).unwrap();
        assert!(few.candidates(&peer(1), piece, |_| true).is_empty());
        assert_eq!(few.picker.free_count(), 1, "others shall have work, too");
    }

    #[test]
    fn who_lacked_a_piece_is_asked_again_when_it_has_it() {
        let now = Instant::now();
        let mut swarm = swarm(1, 1, now);
        let [piece] = ask_all(&mut swarm, now, 0)[..] else {
            panic!("one piece");
        };
        swarm.source_lacks(now, &peer(0), piece);
        assert!(swarm.is_starved() && ask_all(&mut swarm, now, 0).is_empty());
        swarm.source_has(&peer(0), [piece]);
        assert_eq!(ask_all(&mut swarm, now, 0), [piece]);
    }

    #[test]
    fn who_lacked_what_nobody_has_is_tried_again_ever_later() {
        let mut now = Instant::now();
        let mut swarm = swarm(1, 1, now);
        let piece = layout(1).piece(0).unwrap();
        let mut waits = vec![LACK, 2 * LACK, 4 * LACK];
        waits.extend([MAX_LACK; 2]);
        for (number, wait) in waits.into_iter().enumerate() {
            if number == 3 {
                let lacks = &mut swarm.sources.get_mut(&peer(0)).unwrap().lacks;
                lacks.insert(piece, (now, MAX_LACK - LACK));
            }
            assert_eq!(swarm.next_request(now, &peer(0)), Some(piece));
            swarm.source_lacks(now, &peer(0), piece);
            swarm.handle_timeout(now + wait - LACK / 2);
            assert_eq!(swarm.next_request(now, &peer(0)), None, "{wait:?}");
            now += wait;
            swarm.handle_timeout(now);
        }
    }

    #[test]
    fn who_lacked_what_another_has_is_left_alone() {
        let now = Instant::now();
        let mut swarm = swarm(1, 2, now);
        let piece = swarm.next_request(now, &peer(0)).unwrap();
        swarm.source_lacks(now, &peer(0), piece);
        swarm.handle_timeout(now + MAX_LACK);
        assert!(!swarm.has_piece(&peer(0), piece));
        swarm.remove_source(&peer(1));
        swarm.handle_timeout(now + MAX_LACK);
        assert_eq!(swarm.next_request(now, &peer(0)), Some(piece));
    }

    #[test]
    fn one_that_drips_keeps_one_piece_and_is_called_slow() {
        let start = Instant::now();
        let mut swarm = swarm(9, 2, start);
        swarm.remove_source(&peer(1));
        let owed = ask_all(&mut swarm, start, 0);
        assert!(owed.len() > 1 && !swarm.is_slow());
        let mut now = start;
        let mut released = Vec::new();
        while now < start + CREDIT {
            assert!(!swarm.is_slow());
            now += STALL / 2;
            swarm.note_sign(now, &peer(0));
            released.extend(swarm.handle_timeout(now));
        }
        assert_eq!(released.len(), owed.len() - 1);
        assert!(swarm.is_slow() && ask_all(&mut swarm, now, 0).is_empty());
        swarm.add_source(now, peer(1), Bitfield::full(layout(9)));
        assert!(!ask_all(&mut swarm, now, 1).is_empty());
        assert!(!swarm.is_slow(), "somebody else may be faster");
        swarm.remove_source(&peer(1));
        swarm.piece_arrived(now, &peer(0), owed[0]);
        assert!(ask_all(&mut swarm, now, 0).len() > 1 && !swarm.is_slow());
    }

    #[test]
    fn who_has_nothing_that_is_missing_makes_room() {
        let now = Instant::now();
        let layout = layout(9);
        let mut swarm = swarm(9, 1, now);
        swarm.add_source(now + STALL, peer(1), Bitfield::empty(layout));
        swarm.add_source(now, peer(2), Bitfield::empty(layout));
        ask_all(&mut swarm, now, 0);
        assert_eq!(swarm.useless(now + CREDIT / 2), None);
        assert_eq!(swarm.useless(now + 2 * CREDIT), Some(peer(2)));
        swarm.remove_source(&peer(2));
        assert_eq!(swarm.useless(now + CREDIT), None);
        assert_eq!(swarm.useless(now + 2 * CREDIT), Some(peer(1)));
    }

    #[test]
    fn two_that_drip_do_not_keep_the_last_piece_to_themselves() {
        let now = Instant::now();
        let mut swarm = swarm(1, 3, now);
        let last = swarm.next_request(now, &peer(0)).unwrap();
        let now = now + 3 * STALL;
        assert_eq!(swarm.next_request(now, &peer(1)), Some(last));
        assert_eq!(swarm.next_request(now, &peer(2)), None, "two at a time");
        let later = now + CREDIT;
        swarm.note_sign(later, &peer(0));
        swarm.note_sign(later, &peer(1));
        assert_eq!(swarm.next_request(later, &peer(2)), Some(last));
    }

    #[test]
    fn one_that_was_outrun_leaves_the_second_place_to_others() {
        let start = Instant::now();
        let mut swarm = swarm(2, 3, start);
        let owed = [0, 1].map(|source| swarm.next_request(start, &peer(source)).unwrap());
        let now = start + 3 * STALL;
        let first = swarm.next_request(now, &peer(2)).unwrap();
        let (outrun, last) = match first == owed[0] {
            true => (peer(0), owed[1]),
            false => (peer(1), owed[0]),
        };
        swarm.piece_arrived(now, &peer(2), first);
        assert_eq!(swarm.next_request(now, &outrun), None);
        assert_eq!(swarm.next_request(now, &peer(2)), Some(last));
        swarm.remove_source(&peer(2));
        let later = start + CREDIT;
        let again = swarm.next_request(later, &outrun);
        assert_eq!(again, Some(last), "nobody else delivers");
    }

    #[test]
    fn one_that_was_slow_before_still_helps_out() {
        let now = Instant::now();
        let mut swarm = swarm(2, 2, now);
        let slow = swarm.next_request(now, &peer(0)).unwrap();
        let held = swarm.next_request(now, &peer(1)).unwrap();
        let later = now + 10 * CREDIT;
        swarm.piece_arrived(later, &peer(0), slow);
        swarm.note_sign(later, &peer(1));
        assert_eq!(swarm.next_request(later, &peer(0)), Some(held));
    }

    #[test]
    fn what_comes_in_time_is_not_asked_of_a_second() {
        let start = Instant::now();
        let mut swarm = swarm(10, 2, start);
        for turn in 0..4 {
            let now = start + turn * STALL / 4;
            for source in 0..2 {
                let piece = swarm.next_request(now, &peer(source)).unwrap();
                swarm.piece_arrived(now + STALL / 4, &peer(source), piece);
            }
        }
        let now = start + STALL;
        let (one, two) = (ask_all(&mut swarm, now, 0), ask_all(&mut swarm, now, 1));
        assert_eq!((one.len(), two.len()), (2, 0));
        assert!(ask_all(&mut swarm, now + STALL / 8, 1).is_empty());
    }

    #[test]
    fn a_short_piece_says_nothing_about_speed() {
        let now = Instant::now();
        let layout = Layout::new(PIECE_LEN + 1).unwrap();
        let mut swarm = Swarm::new(layout, 1, Bitfield::empty(layout));
        swarm.add_source(now, peer(0), Bitfield::full(layout));
        swarm.add_source(now, peer(1), Bitfield::full(layout));
        let short = swarm.next_request(now, &peer(0)).unwrap();
        let held = swarm.next_request(now, &peer(1)).unwrap();
        assert_eq!(layout.piece_len(short), 1);
        let later = now + 4 * STALL;
        swarm.piece_arrived(later, &peer(0), short);
        assert_eq!(swarm.next_request(later, &peer(0)), Some(held));
    }

    #[test]
    fn a_liar_is_dropped_and_never_asked_again() {
        let now = Instant::now();
        let mut swarm = swarm(4, 2, now);
        let owed = ask_all(&mut swarm, now, 0);
        swarm.piece_was_wrong(&peer(0));
        assert!(swarm.is_liar(&peer(0)) && !swarm.has_source(&peer(0)));
        swarm.add_source(now, peer(0), Bitfield::full(layout(4)));
        assert_eq!(swarm.next_request(now, &peer(0)), None);
        let mut asked = Vec::new();
        while let Some(piece) = swarm.next_request(now, &peer(1)) {
            swarm.piece_arrived(now, &peer(1), piece);
            asked.push(piece);
        }
        assert!(asked.contains(&owed[0]), "what it owed is free again");
        assert!(swarm.is_complete() && !swarm.is_starved());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// Sources come, go, stall, lie and deliver in any order; in the end an honest one finishes it.
        #[test]
        fn whatever_happens_one_honest_source_ends_it(
            pieces in 1_u64..40, steps in prop::collection::vec((0_u8..6, 0_u8..5), 0..200),
        ) {
            let layout = layout(pieces);
            let mut now = Instant::now();
            let mut swarm = Swarm::new(layout, 7, Bitfield::empty(layout));
            swarm.add_source(now, peer(6), Bitfield::empty(layout));
            let mut arrived = 0;
            for (source, action) in steps {
                now += Duration::from_millis(300);
                match action {
                    0 => swarm.add_source(now, peer(source), Bitfield::full(layout)),
                    1 => swarm.remove_source(&peer(source)),
                    2 => swarm.piece_was_wrong(&peer(source)),
                    3 => drop(swarm.handle_timeout(now)),
                    _ => if let Some(mut piece) = swarm.next_request(now, &peer(source))
                        && {
                            let others = swarm.candidates(&peer(source), piece, |other| other.get() % 7 != 0);
                            if let Some(other) = others.last().filter(|other| other.get() % 3 > 0) {
                                swarm.piece_chosen(&peer(source), piece, *other);
                                piece = *other;
                            }
                            piece.get() % 2 == 0
                        } {
                            arrived += u32::from(swarm.piece_arrived(now, &peer(source), piece) != Arrival::Duplicate);
                        },
                }
                for source in swarm.sources.values() {
                    prop_assert!(source.owes.len() <= MAX_DEPTH);
                }
            }
            for source in 0..7 {
                swarm.remove_source(&peer(source));
            }
            swarm.add_source(now, peer(99), Bitfield::full(layout));
            while let Some(piece) = swarm.next_request(now, &peer(99)) {
                prop_assert_ne!(swarm.piece_arrived(now, &peer(99), piece), Arrival::Duplicate);
                arrived += 1;
            }
            prop_assert!(swarm.is_complete());
            prop_assert_eq!(arrived, layout.count());
            prop_assert!(swarm.asked.is_empty());
        }
    }
}
