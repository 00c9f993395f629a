//! One connection: where it stands, its signs of life, and the numbers of its messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::event::{Checked, Talk};
use crate::proto::limiter::{Bucket, Rate};
use crate::wire::id::PeerId;
use crate::wire::talk::{Offer, Receipt};
use crate::wire::text::UserName;

/// After this long without a frame the other side is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(30);
/// After this long without a frame the connection is dead.
const DEAD_AFTER: Duration = Duration::from_secs(120);
/// The tracker has this long to say whose a name is.
const CHECK_TIME: Duration = Duration::from_secs(15);
/// They have this long to say what became of a message.
const RECEIPT_TIME: Duration = Duration::from_secs(30);
/// Messages on their way at the same time.
const MAX_UNCONFIRMED: usize = 64;
/// Receipts that are remembered, for messages that come twice.
const MAX_RECEIPTS: usize = 32;
/// Frames of all kinds.
const FRAME_RATE: Rate = Rate::new(50.0, 200.0);

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// They ask, and the tracker is asked about their name.
    Checking,
    /// They ask, and their name fits.
    Waiting,
    /// We ask.
    Calling,
    /// Both said yes.
    Open,
}

/// One connection.
pub(super) struct Line {
    pub(super) key: PeerId,
    /// As they say, until the tracker has spoken.
    pub(super) user: UserName,
    pub(super) stage: Stage,
    pub(super) since: Instant,
    /// An offer shall come before the answer.
    pub(super) awaits_offer: bool,
    pub(super) early_offer: Option<(u32, Offer)>,
    /// What the tracker said before that offer came.
    pub(super) checked: Option<Checked>,
    /// Our offer for which we asked, and which we took back before the answer.
    pub(super) withdrawn: Option<u32>,
    /// Somebody waits for the proof that this connection is alive.
    pub(super) probe_until: Option<Instant>,
    heard: Instant,
    pinged: Instant,
    said: Instant,
    frames: Bucket,
    last_sent: u32,
    unconfirmed: BTreeMap<u32, Instant>,
    last_came: u32,
    receipts: VecDeque<(u32, Receipt)>,
    pub(super) last_offer_sent: u32,
    pub(super) last_offer_came: u32,
}

impl Line {
    pub(super) const fn new(key: PeerId, user: UserName, stage: Stage, now: Instant) -> Self {
        Self {
            key,
            user,
            stage,
            since: now,
            awaits_offer: false,
            early_offer: None,
            checked: None,
            withdrawn: None,
            probe_until: None,
            heard: now,
            pinged: now,
            said: now,
            frames: Bucket::new(FRAME_RATE, now),
            last_sent: 0,
            unconfirmed: BTreeMap::new(),
            last_came: 0,
            receipts: VecDeque::new(),
            last_offer_sent: 0,
            last_offer_came: 0,
        }
    }

    pub(super) const fn open(&mut self, now: Instant) {
        self.stage = Stage::Open;
        self.since = now;
        self.said = now;
        self.awaits_offer = false;
    }

    /// A frame came: how long to read no other.
    pub(super) fn hear(&mut self, now: Instant) -> Duration {
        self.heard = now;
        self.pinged = now;
        if self.frames.take(now) {
            Duration::ZERO
        } else {
            self.frames.wait(now)
        }
    }

    pub(super) fn is_dead(&self, now: Instant) -> bool {
        let is_unchecked = self.stage == Stage::Checking && now >= self.since + CHECK_TIME;
        let is_mute = self.probe_until.is_some_and(|until| until <= now);
        is_unchecked || is_mute || now >= self.heard + DEAD_AFTER
    }

    pub(super) fn must_ping(&mut self, now: Instant) -> bool {
        let must = now >= self.pinged + PING_AFTER;
        if must {
            self.pinged = now;
        }
        must
    }

    pub(super) fn next_timeout(&self) -> Instant {
        let check = (self.stage == Stage::Checking).then(|| self.since + CHECK_TIME);
        let receipt = self.unconfirmed.values().min().copied();
        let signs = (self.pinged + PING_AFTER).min(self.heard + DEAD_AFTER);
        let others = [check, receipt, self.probe_until];
        others.into_iter().flatten().fold(signs, Instant::min)
    }

    /// The number of the next message, unless too many are on their way.
    pub(super) fn number_next(&mut self, now: Instant) -> Option<u32> {
        if self.unconfirmed.len() >= MAX_UNCONFIRMED {
            return None;
        }
        let number = self.last_sent.checked_add(1)?;
        self.last_sent = number;
        self.unconfirmed.insert(number, now + RECEIPT_TIME);
        self.said = now;
        Some(number)
    }

    /// They say what became of a message; `false` when they were not asked.
    pub(super) fn confirm(&mut self, number: u32) -> bool {
        self.unconfirmed.remove(&number).is_some()
    }

    /// Messages of which nothing was heard in time.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<u32> {
        let late = self.unconfirmed.extract_if(.., |_, until| *until <= now);
        late.map(|(number, _)| number).collect()
    }

    pub(super) fn unconfirmed(&self) -> Vec<u32> {
        self.unconfirmed.keys().copied().collect()
    }

    /// A message of this number came. What was said of it when it came before; `None` for a new one.
    pub(super) fn came_before(&mut self, now: Instant, number: u32) -> Option<Receipt> {
        if number > self.last_came {
            self.last_came = number;
            self.said = now;
            return None;
        }
        let known = self.receipts.iter().find(|(known, _)| *known == number);
        Some(known.map_or(Receipt::NotShown, |(_, receipt)| *receipt))
    }

    pub(super) fn note_receipt(&mut self, number: u32, receipt: Receipt) {
        if self.receipts.len() >= MAX_RECEIPTS {
            self.receipts.pop_front();
        }
        self.receipts.push_back((number, receipt));
    }

    pub(super) fn to_talk(&self, now: Instant) -> Talk {
        Talk {
            user: self.user.clone(),
            key: self.key,
            since: now.saturating_duration_since(self.since),
            idle: now.saturating_duration_since(self.said),
        }
    }
}
