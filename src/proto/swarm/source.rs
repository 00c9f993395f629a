//! One source, as the swarm sees it: what it has and owes, and how fast it delivers.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::proto::meter::Meter;
use crate::proto::picker::Stock;
use crate::wire::pieces::{PIECE_LEN, PieceIndex};

/// Pieces asked of one source at a time: at least, of one whose rate is not known yet, and at the most.
pub(super) const MIN_DEPTH: usize = 2;
const EARLY_DEPTH: usize = 8;
pub(super) const MAX_DEPTH: usize = 32;
/// A source is asked for as much as it delivers in this time: longer than round trips are.
const HORIZON: Duration = Duration::from_millis(400);
/// A source that was asked and sends nothing for this long is stalled.
pub(super) const STALL: Duration = Duration::from_secs(2);
/// A source that was asked and sends nothing for this long is given up; its connection may be dead.
pub(super) const GIVE_UP: Duration = Duration::from_secs(20);
/// A source that delivers no piece for this long does not count when pieces are doubled.
pub(super) const CREDIT: Duration = Duration::from_secs(10);
/// A source that lacked a piece is tried again after this long when nobody else has it, then after twice as long.
pub(super) const LACK: Duration = Duration::from_secs(2);
pub(super) const MAX_LACK: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) has: Stock,
    /// What it owes, in the order in which it was asked.
    pub(super) owes: VecDeque<PieceIndex>,
    pub(super) last_sign: Instant,
    pub(super) delivered: u64,
    pub(super) meter: Meter,
    /// When it last delivered a piece, or began to owe one.
    pub(super) last_piece: Instant,
    pub(super) is_stalled: bool,
    /// It sends, but no piece became whole for long.
    pub(super) is_slow: bool,
    /// Another one was faster with what it owed, and it has delivered nothing since.
    pub(super) is_outrun: bool,
    /// What it had not when it was asked: until when, and for how long it is not asked again.
    pub(super) lacks: BTreeMap<PieceIndex, (Instant, Duration)>,
    /// What it may send in the place of a piece that it owes: nobody else is asked for it meanwhile.
    pub(super) instead: BTreeMap<PieceIndex, Vec<PieceIndex>>,
}

impl Source {
    /// It owes nothing yet.
    pub(super) fn new(now: Instant, has: Stock) -> Self {
        Self {
            has,
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
        }
    }

    /// It owes this piece from now on.
    pub(super) fn note_request(&mut self, now: Instant, piece: PieceIndex) {
        if self.owes.is_empty() {
            self.last_sign = now;
            self.last_piece = now;
            self.meter.skip(now);
        }
        self.owes.push_back(piece);
    }

    /// Some of what it owes is arriving.
    pub(super) const fn note_sign(&mut self, now: Instant) {
        self.last_sign = now;
        self.is_stalled = false;
    }

    /// A piece of so many bytes arrived, and is right.
    pub(super) fn note_piece(&mut self, now: Instant, len: usize) {
        if len as u64 == PIECE_LEN {
            self.meter.add(now, len);
        } else {
            // The way there and back is most of what the short one at the end takes.
            self.meter.skip(now);
        }
        self.note_sign(now);
        self.delivered += 1;
        self.last_piece = now;
        self.is_slow = false;
        self.is_outrun = false;
    }

    /// It has not all of this piece: after a while it may be asked again.
    pub(super) fn note_lack(&mut self, now: Instant, piece: PieceIndex) {
        let before = self.lacks.get(&piece);
        let wait = before.map_or(LACK, |(_, wait)| wait.saturating_mul(2).min(MAX_LACK));
        self.lacks.insert(piece, (now + wait, wait));
    }

    /// What it lacked, and may have by now.
    pub(super) fn may_have(&self, now: Instant) -> impl Iterator<Item = PieceIndex> {
        let due = self
            .lacks
            .iter()
            .filter(move |(_, (until, _))| *until <= now);
        due.map(|(piece, _)| *piece)
    }

    /// Is it to be given up?
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        !self.owes.is_empty() && now.saturating_duration_since(self.last_sign) >= GIVE_UP
    }

    /// Was it of no use for long?
    pub(super) fn is_useless(&self, now: Instant) -> bool {
        self.owes.is_empty() && !self.delivered_lately(now)
    }

    /// Does it count as one that delivers what it owes?
    pub(super) fn is_credible(&self, now: Instant) -> bool {
        !self.is_stalled && self.delivered_lately(now)
    }

    fn delivered_lately(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_piece) < CREDIT
    }

    /// Looks at the clock; what one that is too slow owes, all but one piece, it owes no longer.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> VecDeque<PieceIndex> {
        if self.owes.is_empty() {
            return VecDeque::new();
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        self.is_stalled |= since(self.last_sign) >= STALL;
        self.is_slow |= since(self.last_piece) >= CREDIT;
        if self.is_stalled || self.is_slow {
            self.owes.split_off(1)
        } else {
            VecDeque::new()
        }
    }

    /// How long it takes for one piece.
    pub(super) fn piece_time(&self) -> Duration {
        self.meter.time_for(PIECE_LEN).unwrap_or(STALL)
    }

    /// Pieces that it shall owe.
    pub(super) fn depth(&self) -> usize {
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
    pub(super) fn time_until(&self, now: Instant, piece: PieceIndex) -> Duration {
        let waited = now.saturating_duration_since(self.last_piece);
        let before = self.owes.iter().take_while(|owed| **owed != piece).count();
        let pieces = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
        let each = self.piece_time();
        let all = each.saturating_mul(pieces);
        match all.checked_sub(waited) {
            Some(left) if !left.is_zero() => left,
            _ => each.saturating_add(waited),
        }
    }
}
