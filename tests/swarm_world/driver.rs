//! The driver of one swarm as `peer/drive.rs` has it, with effects instead of sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use p2pfs::proto::backoff::{Backoff, Retry};
use p2pfs::proto::swarm::{Arrival, Swarm};
use p2pfs::wire::id::PeerId;
use p2pfs::wire::pieces::{Bitfield, Layout, PieceIndex};

pub(crate) const TICK: Duration = Duration::from_millis(250);
const MAX_SOURCES: usize = 16;
const FIRST_LOCATE: Duration = Duration::from_millis(500);
const LOCATE_EVERY: Duration = Duration::from_secs(5);
const REDIAL_AFTER: Duration = Duration::from_secs(3);
const PAGE_PATIENCE: Duration = Duration::from_secs(2);
const SYNC_EVERY: Duration = Duration::from_secs(5);
const DISK_PAUSE: Duration = Duration::from_secs(2);
/// What `proto/swarm.rs` promises.
const MAX_ASKED: usize = 2;
const STALL: Duration = Duration::from_secs(2);
const CREDIT: Duration = Duration::from_secs(10);

/// What the world has to do for the driver.
#[derive(Debug)]
pub(crate) enum Effect {
    Locate,
    Dial(PeerId),
    Hang(PeerId),
    AskPage(PeerId),
    /// One of these.
    Ask(PeerId, Vec<PieceIndex>),
    Cancel(PeerId, PieceIndex),
    /// What is written is durable.
    Synced,
    /// There is nobody left to ask but liars.
    GivesUp,
}

struct Link {
    is_connected: bool,
    /// As far as can be seen from outside, for the promise on who is asked.
    owes: BTreeSet<PieceIndex>,
    last_piece: Instant,
    last_sign: Instant,
    is_stalled: bool,
}

pub(crate) struct Driver {
    pub(crate) swarm: Swarm,
    pub(crate) has_page: bool,
    pub(crate) effects: Vec<Effect>,
    pub(crate) duplicates: u32,
    /// Those that sent something wrong, as the simulation knows.
    pub(crate) caught: BTreeSet<PeerId>,
    layout: Layout,
    links: BTreeMap<PeerId, Link>,
    resting: BTreeMap<PeerId, Instant>,
    held: Vec<(PeerId, PieceIndex)>,
    page_asked: Option<(PeerId, Instant)>,
    backoff: Backoff,
    next_locate: Instant,
    locate_every: Duration,
    is_locating: bool,
    is_resting: bool,
    found: Vec<PeerId>,
    next_sync: Instant,
}

impl Driver {
    pub(crate) fn new(now: Instant, layout: Layout, random: u32, here: Bitfield) -> Self {
        Self {
            swarm: Swarm::new(layout, random, here),
            has_page: layout.levels() == 0,
            effects: Vec::new(),
            duplicates: 0,
            caught: BTreeSet::new(),
            layout,
            links: BTreeMap::new(),
            resting: BTreeMap::new(),
            held: Vec::new(),
            page_asked: None,
            backoff: Backoff::new(Retry::default()),
            next_locate: now,
            locate_every: FIRST_LOCATE,
            is_locating: false,
            is_resting: true,
            found: Vec::new(),
            next_sync: now + SYNC_EVERY,
        }
    }

    /// The head of the loop: after everything that happened.
    pub(crate) fn turn(&mut self, now: Instant) {
        if self.swarm.is_complete() {
            return;
        }
        if self.links.is_empty() && !self.is_locating && !self.is_resting {
            self.attempt_failed(now);
        }
        if self.next_locate <= now && !self.is_locating {
            self.is_locating = true;
            self.is_resting = false;
            self.effects.push(Effect::Locate);
        }
    }

    fn attempt_failed(&mut self, now: Instant) {
        if self.knows_only_liars() {
            self.effects.push(Effect::GivesUp);
            return;
        }
        self.is_resting = true;
        self.resting.clear();
        let wait = self.backoff.fail(0.5);
        self.next_locate = now + wait.unwrap_or(LOCATE_EVERY);
    }

    fn knows_only_liars(&self) -> bool {
        !self.found.is_empty() && self.found.iter().all(|peer| self.swarm.is_liar(peer))
    }

    pub(crate) fn located(&mut self, now: Instant, found: Option<&[PeerId]>) {
        self.is_locating = false;
        self.next_locate = now + self.locate_every;
        self.locate_every = (self.locate_every * 2).min(LOCATE_EVERY);
        let Some(found) = found else { return };
        self.found = found.to_vec();
        for peer in found {
            let may_dial = self.resting.get(peer).is_none_or(|until| *until <= now);
            if !may_dial || self.swarm.is_liar(peer) || self.links.contains_key(peer) {
                continue;
            }
            if self.links.len() >= MAX_SOURCES {
                match self.swarm.useless(now) {
                    Some(useless) => self.lose(now, useless),
                    None => return,
                }
            }
            let link = Link {
                is_connected: false,
                owes: BTreeSet::new(),
                last_piece: now,
                last_sign: now,
                is_stalled: false,
            };
            self.links.insert(*peer, link);
            self.effects.push(Effect::Dial(*peer));
        }
    }

    pub(crate) fn connected(&mut self, now: Instant, peer: PeerId, has: Bitfield) {
        self.swarm.add_source(now, peer, has);
        if let Some(link) = self.links.get_mut(&peer) {
            link.is_connected = true;
        }
        self.feed(now, peer);
        self.feed_idle(now);
    }

    pub(crate) fn source_has(&mut self, now: Instant, peer: PeerId, pieces: Vec<PieceIndex>) {
        self.swarm.source_has(&peer, pieces);
        self.feed(now, peer);
        self.feed_idle(now);
    }

    pub(crate) fn sign(&mut self, now: Instant, peer: PeerId) {
        self.note_sign(now, peer);
        self.feed_idle(now);
    }

    fn note_sign(&mut self, now: Instant, peer: PeerId) {
        self.swarm.note_sign(now, &peer);
        if let Some(link) = self.links.get_mut(&peer) {
            (link.last_sign, link.is_stalled) = (now, false);
        }
    }

    /// In the place of the piece that was asked for comes another one.
    pub(crate) fn chosen(
        &mut self,
        now: Instant,
        peer: PeerId,
        piece: PieceIndex,
        chosen: PieceIndex,
    ) {
        self.swarm.piece_chosen(&peer, piece, chosen);
        if let Some(link) = self.links.get_mut(&peer)
            && link.owes.remove(&piece)
        {
            link.owes.insert(chosen);
        }
        self.feed_idle(now);
    }

    pub(crate) fn page(&mut self, now: Instant, peer: PeerId) {
        self.note_sign(now, peer);
        self.page_asked = None;
        self.has_page = true;
        self.ask_held(now);
        self.feed_idle(now);
    }

    /// A piece came, is right and written; tells whether it is new.
    pub(crate) fn piece(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) -> bool {
        self.backoff.succeed();
        if let Some(link) = self.links.get_mut(&peer) {
            (link.last_piece, link.last_sign, link.is_stalled) = (now, now, false);
            link.owes.remove(&piece);
        }
        let arrival = self.swarm.piece_arrived(now, &peer, piece);
        match &arrival {
            Arrival::New(others) => {
                for other in others {
                    self.cancel(*other, piece);
                }
            }
            Arrival::Duplicate => self.duplicates += 1,
        }
        self.feed(now, peer);
        self.feed_idle(now);
        arrival != Arrival::Duplicate
    }

    pub(crate) fn wrong_piece(&mut self, now: Instant, peer: PeerId) {
        self.caught.insert(peer);
        self.swarm.piece_was_wrong(&peer);
        if self.page_asked.is_some_and(|(asked, _)| asked == peer) {
            self.page_asked = None;
        }
        if self.links.remove(&peer).is_some() {
            self.effects.push(Effect::Hang(peer));
        }
        self.feed_idle(now);
    }

    pub(crate) fn not_written(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) {
        self.swarm.piece_was_lost(&peer, piece);
        self.disk_failed(now);
        self.feed_idle(now);
    }

    pub(crate) fn not_durable(&mut self, now: Instant, lost: Vec<PieceIndex>) {
        self.next_sync = now + SYNC_EVERY;
        self.swarm.forget(lost);
        self.disk_failed(now);
    }

    fn disk_failed(&mut self, now: Instant) {
        for peer in std::mem::take(&mut self.links).into_keys() {
            self.swarm.remove_source(&peer);
            self.effects.push(Effect::Hang(peer));
        }
        self.held.clear();
        self.page_asked = None;
        self.resting.clear();
        self.is_locating = false;
        self.is_resting = true;
        self.next_locate = now + DISK_PAUSE;
    }

    pub(crate) fn gone(&mut self, now: Instant, peer: PeerId) {
        self.lose(now, peer);
        self.feed_idle(now);
    }

    fn lose(&mut self, now: Instant, peer: PeerId) {
        self.swarm.remove_source(&peer);
        if self.page_asked.is_some_and(|(asked, _)| asked == peer) {
            self.page_asked = None;
        }
        if self.links.remove(&peer).is_some() {
            self.resting.insert(peer, now + REDIAL_AFTER);
            self.effects.push(Effect::Hang(peer));
        }
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            let is_silent = now.saturating_duration_since(link.last_sign) >= STALL;
            link.is_stalled |= is_silent && !link.owes.is_empty();
        }
        for (peer, piece) in self.swarm.handle_timeout(now) {
            self.cancel(peer, piece);
        }
        for peer in self.swarm.silent(now) {
            self.lose(now, peer);
        }
        self.feed_idle(now);
        self.ask_held(now);
        if self.next_sync <= now {
            self.next_sync = now + SYNC_EVERY;
            self.effects.push(Effect::Synced);
        }
    }

    fn feed(&mut self, now: Instant, peer: PeerId) {
        while let Some(piece) = self.swarm.next_request(now, &peer) {
            self.check_request(now, peer, piece);
            self.ask_piece(now, peer, piece);
        }
    }

    fn feed_idle(&mut self, now: Instant) {
        let connected = self.links.iter().filter(|(_, link)| link.is_connected);
        for peer in connected.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.feed(now, peer);
        }
    }

    /// No piece is asked of a liar, nor of more than two who seem to deliver it.
    fn check_request(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) {
        assert!(!self.caught.contains(&peer), "a liar is asked again");
        let is_credible = |link: &&Link| {
            link.owes.contains(&piece)
                && now.saturating_duration_since(link.last_piece) < CREDIT
                && !link.is_stalled
        };
        let askers = self.links.values().filter(is_credible).count();
        assert!(
            askers < MAX_ASKED,
            "{askers} are asked for {piece:?} already"
        );
        let link = self.links.get_mut(&peer).expect("only links are fed");
        if link.owes.is_empty() {
            (link.last_piece, link.last_sign) = (now, now);
        }
        assert!(link.owes.insert(piece), "asked twice of one source");
    }

    fn cancel(&mut self, peer: PeerId, piece: PieceIndex) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.owes.remove(&piece);
        }
        self.effects.push(Effect::Cancel(peer, piece));
    }

    fn ask_piece(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) {
        if self.has_page {
            let mut candidates = vec![piece];
            candidates.extend(self.swarm.candidates(&peer, piece, |_| true));
            self.effects.push(Effect::Ask(peer, candidates));
            return;
        }
        self.held.push((peer, piece));
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < PAGE_PATIENCE;
        let asked = match self.page_asked {
            Some((_, at)) if is_fresh(at) => return,
            Some((last, _)) => self.next_source_after(last).unwrap_or(peer),
            None => peer,
        };
        self.page_asked = Some((asked, now));
        self.effects.push(Effect::AskPage(asked));
    }

    fn next_source_after(&self, last: PeerId) -> Option<PeerId> {
        let connected = || {
            let connected = self.links.iter().filter(|(_, link)| link.is_connected);
            connected.map(|(peer, _)| *peer)
        };
        connected()
            .find(|peer| *peer > last)
            .or_else(|| connected().next())
    }

    fn ask_held(&mut self, now: Instant) {
        for (peer, piece) in std::mem::take(&mut self.held) {
            if self.swarm.owes(&peer, piece) {
                self.ask_piece(now, peer, piece);
            }
        }
    }

    /// All that is here is what the swarm believes to be here.
    pub(crate) fn check_done(&self, here: &Bitfield) {
        let bytes: u64 = here
            .iter()
            .map(|piece| self.layout.piece_len(piece) as u64)
            .sum();
        assert_eq!(self.swarm.done_bytes(), bytes, "what counts as done");
    }
}
