//! Machines that are connected by wires of memory, with an invented clock, in an order that a seed chooses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use super::super::*;
use crate::wire::talk::Offer;
use crate::wire::text::ChatText;

pub(super) fn key(number: usize) -> PeerId {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(number as u64).to_be_bytes());
    PeerId(key)
}

pub(super) fn name(number: usize) -> UserName {
    format!("u{number}").parse().unwrap()
}

pub(super) fn text(said: &str) -> ChatText {
    said.parse().unwrap()
}

fn number_of(key: PeerId) -> usize {
    let number = u64::from_be_bytes(*key.0.first_chunk().unwrap());
    usize::try_from(number).unwrap()
}

/// What is thought of keys.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<PeerId, Note>>>);

/// What is thought of a key, and whether it was met under its name.
#[derive(Clone, Copy)]
struct Note(Regard, bool);

impl Known for Notes {
    fn regard(&self, _: &UserName, key: PeerId) -> Regard {
        let notes = self.0.lock().unwrap();
        notes.get(&key).map_or(Regard::Unknown, |note| note.0)
    }

    fn key_of(&self, user: &UserName) -> Option<PeerId> {
        let notes = self.0.lock().unwrap();
        let met = notes.iter().filter(|(_, note)| note.1);
        let mut met = met.map(|(key, _)| *key);
        met.find(|key| name(number_of(*key)) == *user)
    }
}

pub(super) struct Side {
    pub(super) machine: Talks,
    pub(super) events: Vec<Event>,
    /// From whom, and what.
    pub(super) heard: Vec<(usize, String)>,
    /// Does its program take what is said?
    pub(super) shows: bool,
    known: Notes,
}

impl Side {
    fn new(number: usize, now: Instant) -> Self {
        let known = Notes::default();
        let policy = (Accept::Ask, Duration::from_secs(300));
        let own = (name(number), key(number));
        Self {
            machine: Talks::new(own, Box::new(known.clone()), policy, now),
            events: Vec::new(),
            heard: Vec::new(),
            shows: true,
            known,
        }
    }

    pub(super) fn count(&self, fits: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| fits(event)).count()
    }

    pub(super) fn asked(&self) -> usize {
        self.count(|event| matches!(event, Event::Asked(_)))
    }

    pub(super) fn taken(&self) -> Vec<OfferId> {
        let taken = self.events.iter().filter_map(|event| match event {
            Event::OfferTaken { offer, .. } => Some(*offer),
            _ => None,
        });
        taken.collect()
    }

    pub(super) fn deliveries(&self, place: (LinkId, u32)) -> Vec<Delivery> {
        let told = self.events.iter().filter_map(|event| match event {
            Event::Delivery {
                link,
                number,
                delivery,
            } if (*link, *number) == place => Some(*delivery),
            _ => None,
        });
        told.collect()
    }

    pub(super) fn delivery(&self, place: (LinkId, u32)) -> Option<Delivery> {
        self.deliveries(place).first().copied()
    }
}

/// What is on its way.
enum Passing {
    Dial(usize, usize),
    Check(usize, LinkId, UserName),
    Frame(LinkId, usize, Frame),
    Final(LinkId, usize),
    Cut(LinkId, usize),
}

/// A connection: who dialled and who listens; whom it still reaches.
struct Wire {
    ends: [usize; 2],
    open: [bool; 2],
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) sides: Vec<Side>,
    pub(super) sent: Vec<Frame>,
    /// What the tracker says of every name, if not the truth.
    pub(super) checks: Option<Checked>,
    /// Nobody reaches these.
    pub(super) unreachable: BTreeSet<usize>,
    /// Everybody says something when a talk begins.
    pub(super) greets: bool,
    /// Nothing arrives.
    pub(super) is_stalled: bool,
    /// All connections are cut after so many frames.
    pub(super) cut_after: Option<usize>,
    wires: BTreeMap<LinkId, Wire>,
    passing: VecDeque<Passing>,
    last: u64,
    seed: Option<u64>,
}

impl World {
    pub(super) fn new(sides: usize) -> Self {
        let now = super::start();
        Self {
            now,
            sides: (0..sides).map(|number| Side::new(number, now)).collect(),
            sent: Vec::new(),
            checks: None,
            unreachable: BTreeSet::new(),
            greets: false,
            is_stalled: false,
            cut_after: None,
            wires: BTreeMap::new(),
            passing: VecDeque::new(),
            last: 1000,
            seed: None,
        }
    }

    pub(super) fn shuffle(&mut self, seed: u64) {
        self.seed = Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    }

    pub(super) fn call(&mut self, from: usize, to: usize) {
        let _ = self.sides[from].machine.call(self.now, &name(to), key(to));
    }

    pub(super) fn offer(&mut self, from: usize, to: usize, what: Offer) -> OfferId {
        let machine = &mut self.sides[from].machine;
        machine.offer(self.now, &name(to), key(to), what).unwrap()
    }

    pub(super) fn say(&mut self, from: usize, to: usize, said: &str) -> Option<(LinkId, u32)> {
        let machine = &mut self.sides[from].machine;
        machine.say(self.now, &key(to), false, text(said)).ok()
    }

    /// Answers the question that is shown, if one is.
    pub(super) fn answer(&mut self, side: usize, verdict: Verdict) {
        let machine = &mut self.sides[side].machine;
        if let Some(question) = machine.questions().first() {
            assert!(machine.answer(self.now, question.id, verdict));
        }
    }

    pub(super) fn regard(&mut self, side: usize, of: usize, regard: Regard) {
        let mut notes = self.sides[side].known.0.lock().unwrap();
        notes.insert(key(of), Note(regard, true));
    }

    /// As [`World::regard`], of a key that was never met under its name.
    pub(super) fn regard_nameless(&mut self, side: usize, of: usize, regard: Regard) {
        let mut notes = self.sides[side].known.0.lock().unwrap();
        notes.insert(key(of), Note(regard, false));
    }

    /// Do both talk over the same connection?
    pub(super) fn talks(&self, one: usize, other: usize) -> bool {
        let there = self.sides[one].machine.talk_with(&key(other));
        let back = self.sides[other].machine.talk_with(&key(one));
        there.is_some() && there == back
    }

    /// The first connection of this side.
    pub(super) fn link(&self, side: usize) -> LinkId {
        *self.sides[side].machine.lines.keys().next().unwrap()
    }

    pub(super) fn open_wires(&self) -> usize {
        let both = |wire: &&Wire| wire.open == [true, true];
        self.wires.values().filter(both).count()
    }

    /// Cuts all connections of a side.
    pub(super) fn cut(&mut self, side: usize) {
        let own = |(_, wire): &(&LinkId, &Wire)| wire.ends.contains(&side);
        let links: Vec<LinkId> = self
            .wires
            .iter()
            .filter(own)
            .map(|(link, _)| *link)
            .collect();
        for link in links {
            self.cut_wire(link);
        }
    }

    fn cut_wire(&mut self, link: LinkId) {
        let Some(wire) = self.wires.remove(&link) else {
            return;
        };
        for end in wire.ends {
            self.passing.push_back(Passing::Cut(link, end));
        }
    }

    /// A side forgets everything, and whoever it talked to is not told.
    pub(super) fn restart(&mut self, side: usize) {
        self.sides[side] = Side::new(side, self.now);
        for wire in self.wires.values_mut() {
            for (end, open) in wire.ends.into_iter().zip(&mut wire.open) {
                *open &= end != side;
            }
        }
    }

    /// Time passes, in small steps.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run();
        loop {
            let timeouts = self
                .sides
                .iter()
                .filter_map(|side| side.machine.poll_timeout());
            let next = timeouts.min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            for side in &mut self.sides {
                side.machine.handle_timeout(self.now);
            }
            self.run();
        }
        self.now = self.now.max(end);
    }

    /// Everything arrives that is on its way.
    pub(super) fn run(&mut self) {
        loop {
            self.drain();
            if self.is_stalled || self.passing.is_empty() {
                break;
            }
            let place = self.choose();
            let passing = self.passing.remove(place).unwrap();
            self.arrive(passing);
        }
    }

    pub(super) fn assert_idle(&self) {
        for (number, side) in self.sides.iter().enumerate() {
            let machine = &side.machine;
            let is_idle = machine.lines.is_empty() && machine.parties.is_empty();
            assert!(is_idle, "u{number} still has connections");
            assert!(machine.questions().is_empty(), "u{number} still asks");
            assert_eq!(machine.poll_timeout(), None, "u{number} still waits");
        }
    }

    /// What arrives next: any that no other thing of the same connection and direction stands before.
    fn choose(&mut self) -> usize {
        let Some(seed) = &mut self.seed else { return 0 };
        let lane = |passing: &Passing| match passing {
            Passing::Frame(link, to, _) | Passing::Final(link, to) | Passing::Cut(link, to) => {
                Some((*link, *to))
            }
            Passing::Dial(..) | Passing::Check(..) => None,
        };
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        let count = self.passing.len() as u64;
        let place = usize::try_from(*seed % count).unwrap();
        let Some(wanted) = lane(&self.passing[place]) else {
            return place;
        };
        let first = |passing: &Passing| lane(passing) == Some(wanted);
        self.passing.iter().position(first).unwrap()
    }

    fn arrive(&mut self, passing: Passing) {
        let now = self.now;
        match passing {
            Passing::Dial(from, to) if self.unreachable.contains(&to) => {
                let machine = &mut self.sides[from].machine;
                machine.handle_dialled(now, key(to), Err("no route".to_owned()));
            }
            Passing::Dial(from, to) => {
                self.last += 1;
                let link = LinkId(self.last);
                let wire = Wire {
                    ends: [from, to],
                    open: [true, true],
                };
                self.wires.insert(link, wire);
                let machine = &mut self.sides[from].machine;
                machine.handle_dialled(now, key(to), Ok(link));
            }
            Passing::Check(side, link, user) => {
                let checked = self.checks.clone().unwrap_or(Checked::Fits(user));
                self.sides[side].machine.handle_checked(now, link, checked);
            }
            Passing::Frame(link, to, frame) => self.frame(link, to, frame),
            Passing::Final(link, to) => {
                if self.close_end(link, to) {
                    self.sides[to].machine.handle_closed(now, link, None);
                }
            }
            Passing::Cut(link, to) => {
                let why = Some("cut".to_owned());
                self.sides[to].machine.handle_closed(now, link, why);
            }
        }
    }

    fn frame(&mut self, link: LinkId, to: usize, frame: Frame) {
        let Some(from) = self.other_end(link, to) else {
            return;
        };
        if !self.is_open(link, to) {
            return;
        }
        let (now, machine) = (self.now, &mut self.sides[to].machine);
        match frame {
            Frame::Connect { user, offers } => {
                machine.handle_knock(now, link, key(from), user, offers);
            }
            frame => drop(machine.handle_frame(now, link, frame)),
        }
        if let Some(left) = &mut self.cut_after {
            if *left == 0 {
                self.cut_after = None;
                self.cut(0);
            } else {
                *left -= 1;
            }
        }
    }

    /// One end lets go; `true` when it had not yet.
    fn close_end(&mut self, link: LinkId, side: usize) -> bool {
        let Some(wire) = self.wires.get_mut(&link) else {
            return false;
        };
        let ends = wire.ends.into_iter().zip(&mut wire.open);
        let mut was_open = false;
        for (_, open) in ends.filter(|(end, _)| *end == side) {
            was_open |= std::mem::take(open);
        }
        was_open
    }

    fn is_open(&self, link: LinkId, side: usize) -> bool {
        let wire = self.wires.get(&link);
        wire.is_some_and(|wire| {
            let mut ends = wire.ends.iter().zip(wire.open);
            ends.any(|(end, open)| *end == side && open)
        })
    }

    fn other_end(&self, link: LinkId, side: usize) -> Option<usize> {
        let ends = self.wires.get(&link)?.ends;
        ends.into_iter().find(|end| *end != side)
    }

    fn drain(&mut self) {
        for number in 0..self.sides.len() {
            while let Some(event) = self.sides[number].machine.poll_event() {
                self.happen(number, event);
            }
            while let Some(transmit) = self.sides[number].machine.poll_transmit() {
                self.transmit(number, transmit);
            }
            while let Some(action) = self.sides[number].machine.poll_action() {
                self.passing.push_back(match action {
                    Action::Dial(to) => Passing::Dial(number, number_of(to)),
                    Action::Check { link, user } => Passing::Check(number, link, user),
                });
            }
        }
    }

    fn happen(&mut self, number: usize, event: Event) {
        let (now, greets) = (self.now, self.greets);
        let side = &mut self.sides[number];
        match &event {
            Event::Said {
                link,
                number,
                key,
                text,
                ..
            } => {
                if side.shows {
                    side.heard.push((number_of(*key), text.as_str().to_owned()));
                }
                side.machine.handle_shown(*link, *number, side.shows);
            }
            Event::Asked(question) if !side.shows => {
                return side.machine.handle_unshown(now, question.id);
            }
            Event::Began { key, .. } if greets => {
                let hello = text(&format!("hello from u{number}"));
                let said = side.machine.say(now, key, false, hello);
                assert!(said.is_ok());
            }
            _ => {}
        }
        side.events.push(event);
    }

    fn transmit(&mut self, number: usize, transmit: Transmit) {
        match transmit {
            Transmit::Send(link, frame) => {
                self.sent.push(frame.clone());
                if let Some(to) = self.other_end(link, number) {
                    self.passing.push_back(Passing::Frame(link, to, frame));
                }
            }
            Transmit::Finish(link) => {
                if let Some(to) = self.other_end(link, number) {
                    self.close_end(link, number);
                    self.passing.push_back(Passing::Final(link, to));
                }
            }
            Transmit::Abort(link) => {
                if let Some(to) = self.other_end(link, number) {
                    self.wires.remove(&link);
                    self.passing.push_back(Passing::Cut(link, to));
                }
            }
        }
    }
}
