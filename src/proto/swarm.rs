//! One download: who has what, whom to ask, what to do with a slow one or a liar.
//!
//! It handles numbers and verdicts, never the bytes. Each source has a few pieces asked of it at a time,
//! more of them the faster it is; one from which nothing comes loses all but one of them to the others;
//! and when nothing is left to ask for, an idle source doubles what another would deliver later than it
//! would itself, so that no single one holds the last piece.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use self::source::Source;
use super::picker::Picker;
use crate::wire::MAX_CANDIDATES;
use crate::wire::id::PeerId;
use crate::wire::pieces::{Bitfield, Layout, PieceIndex};

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

    /// Does this piece count as here?
    #[must_use]
    pub fn is_here(&self, piece: PieceIndex) -> bool {
        self.done.has(piece)
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

    /// Sources that have something to send, and are at it as far as anybody can tell.
    #[must_use]
    pub fn asked_count(&self) -> usize {
        self.sources
            .values()
            .filter(|source| !source.is_stalled)
            .filter(|source| source.delivered > 0 || !source.owes.is_empty())
            .count()
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
        let source = Source::new(now, self.picker.add_stock(&has));
        self.sources.insert(peer, source);
    }

    /// A source has these pieces, too.
    pub fn source_has(&mut self, peer: &PeerId, pieces: impl IntoIterator<Item = PieceIndex>) {
        let Some(source) = self.sources.get_mut(peer) else {
            return;
        };
        for piece in pieces {
            self.picker.add_piece(&mut source.has, piece);
        }
    }

    /// A source does not have this piece after all, or not all of it: it is asked again when it says that it has
    /// it, and after a while when nobody else has it.
    pub fn source_lacks(&mut self, now: Instant, peer: &PeerId, piece: PieceIndex) {
        if let Some(source) = self.sources.get_mut(peer)
            && self.picker.remove_piece(&mut source.has, piece)
        {
            source.note_lack(now, piece);
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
        source.note_request(now, piece);
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
            source.note_sign(now);
        }
    }

    /// A piece arrived from `peer` and is right.
    pub fn piece_arrived(&mut self, now: Instant, peer: &PeerId, piece: PieceIndex) -> Arrival {
        self.forget_owed(peer, piece);
        if let Some(source) = self.sources.get_mut(peer) {
            source.note_piece(now, self.layout.piece_len(piece));
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
        let sources = self.sources.iter();
        let silent = sources.filter(|(_, source)| source.is_silent(now));
        silent.map(|(peer, _)| *peer).collect()
    }

    /// The source that was of no use for longest, if that is long: it makes room for one that may be.
    #[must_use]
    pub fn useless(&self, now: Instant) -> Option<PeerId> {
        let sources = self.sources.iter();
        let useless = sources.filter(|(_, source)| source.is_useless(now));
        let (peer, _) = useless.min_by_key(|(_, source)| source.last_piece)?;
        Some(*peer)
    }

    /// A deadline passed: what stalled and slow sources owe, all but one piece each, may be asked of others.
    /// Returns them, so that those sources need not send them any more.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(PeerId, PieceIndex)> {
        self.try_lacking(now);
        let mut released = Vec::new();
        for (peer, source) in &mut self.sources {
            let pieces = source.handle_timeout(now).into_iter();
            released.extend(pieces.rev().map(|piece| (*peer, piece)));
        }
        for (peer, piece) in &released {
            self.forget_owed(peer, *piece);
            self.release(*peer, *piece);
        }
        released
    }

    /// Whoever lacked a piece that nobody has may have it now.
    fn try_lacking(&mut self, now: Instant) {
        let sources = self.sources.iter();
        let due = sources.flat_map(|(peer, source)| {
            let missing = source.may_have(now).filter(|piece| !self.done.has(*piece));
            missing.map(|piece| (*peer, piece))
        });
        let due: Vec<_> = due.collect();
        for (peer, piece) in due {
            let mut others = self.sources.keys();
            if !others.any(|other| self.has_piece(other, piece))
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
        let own_time = source.piece_time();
        let is_credible = |owner: &&PeerId| {
            let owner = self.sources.get(*owner);
            owner.is_some_and(|owner| owner.is_credible(now))
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

#[cfg(test)]
mod tests;
