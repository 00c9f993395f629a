//! Who talks to whom: requests in and out, one connection for each pair, what is said and what becomes of it.
//!
//! All talks of one peer are one machine, for what counts is decided between them: questions wait in one
//! queue, and two people who call each other at the same time shall end with one connection. The rule for
//! that: of two connections on which both asked, the one that the smaller key dialled stays. The larger key
//! says yes on it and lets go of its own at once; the smaller key holds the other one in reserve until its
//! own is answered or fails. Nothing is said before a yes, so no message is lost with the one that goes.
//!
//! ```text
//! they dial │ Checking ─▶ Waiting ─yes─▶ Open          we dial │ Dialling ─▶ Calling ─yes─▶ Open
//!             is it that   a question, or in reserve             a link?      what do they say?
//!             name's key?  for a talk that may be dead
//! ```

mod door;
mod ending;
mod event;
mod incoming;
mod line;
mod messages;
mod offers;
mod outgoing;
mod questions;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use self::door::Door;
pub use self::event::{
    Accept, Action, CallEnd, Checked, Delivery, End, Event, LinkId, OfferEnd, OfferId, Question,
    QuestionId, QuestionKind, Regard, Talk, TalkRefusal, Transmit, Verdict,
};
use self::line::{Line, Stage};
use self::offers::Offers;
use self::outgoing::{Call, CallStage};
use self::questions::Questions;
use super::limiter::{Buckets, Rate};
use crate::wire::id::PeerId;
use crate::wire::talk::{Answer, Frame};
use crate::wire::text::UserName;

/// Connections of talks at the same time, those that only ask among them.
const MAX_LINES: usize = 256;
/// Talks, and calls of ours, at the same time.
const MAX_TALKS: usize = 128;
/// Messages of one sender, over all his connections.
const TEXT_RATE: Rate = Rate::new(5.0, 20.0);
/// Senders whose rates are told apart.
const MAX_SENDERS: usize = 1024;
/// A reserve takes over when the connection that it is for does not answer for so long.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// Whom we know; looked up whenever it counts.
pub trait Known: Send {
    /// What we think of whoever has this name and this key now.
    fn regard(&self, user: &UserName, key: PeerId) -> Regard;

    /// The key with which this name was met.
    fn key_of(&self, user: &UserName) -> Option<PeerId>;
}

/// All talks of one peer.
pub struct Talks {
    user: UserName,
    own: PeerId,
    known: Box<dyn Known>,
    lines: BTreeMap<LinkId, Line>,
    parties: HashMap<PeerId, Party>,
    door: Door,
    questions: Questions,
    offers: Offers,
    texts: Buckets<PeerId>,
    transmits: VecDeque<Transmit>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

/// What there is between us and one key.
#[derive(Default)]
struct Party {
    /// We want to talk.
    call: Option<Call>,
    /// They want to: a connection that was checked and waits.
    asks: Option<LinkId>,
    /// We talk.
    talk: Option<LinkId>,
}

impl Talks {
    /// Of whoever has this name and this key: nobody talks. A denial is remembered for `deny_for`.
    #[must_use]
    pub fn new(
        (user, own): (UserName, PeerId),
        known: Box<dyn Known>,
        (accept, deny_for): (Accept, Duration),
        now: Instant,
    ) -> Self {
        Self {
            user,
            own,
            known,
            lines: BTreeMap::new(),
            parties: HashMap::new(),
            door: Door::new(accept, deny_for, now),
            questions: Questions::default(),
            offers: Offers::default(),
            texts: Buckets::new(TEXT_RATE, MAX_SENDERS),
            transmits: VecDeque::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Who is let in from now on.
    pub const fn set_accept(&mut self, accept: Accept) {
        self.door.accept = accept;
    }

    /// A frame came. Nothing more shall be read from that connection for the time that is returned.
    #[must_use]
    pub fn handle_frame(&mut self, now: Instant, link: LinkId, frame: Frame) -> Duration {
        let Some(line) = self.lines.get_mut(&link) else {
            return Duration::ZERO;
        };
        let mut pause = line.hear(now);
        if line.stage == Stage::Open {
            let (user, key) = (line.user.clone(), line.key);
            if self.shuts_out(&user, key).is_some() {
                // Since the talk began the key was blocked, or its name given to another one.
                self.hang_up(now, &key);
                return pause;
            }
        }
        let Some(line) = self.lines.get_mut(&link) else {
            return pause;
        };
        match (line.stage, frame) {
            // Nothing is queued for whoever was not let in.
            (Stage::Checking | Stage::Waiting, Frame::Ping) => {}
            (_, Frame::Ping) => self.send(link, Frame::Pong),
            (_, Frame::Pong) => self.handle_pong(link),
            (Stage::Checking | Stage::Waiting, Frame::Offer { number, offer }) => {
                self.handle_early_offer(now, link, number, offer);
            }
            (Stage::Calling, Frame::Answer(answer)) => self.handle_answer(now, link, answer),
            (
                Stage::Open,
                Frame::Text {
                    number,
                    to_all,
                    text,
                },
            ) => pause = pause.max(self.handle_text(now, link, number, to_all, text)),
            (Stage::Open, Frame::Received { number, receipt }) => {
                self.handle_receipt(link, number, receipt);
            }
            (Stage::Open, Frame::Offer { number, offer }) => {
                self.handle_offer(now, link, number, offer);
            }
            (Stage::Open, Frame::OfferAnswer { number, answer }) => {
                self.handle_offer_answer(link, number, answer);
            }
            (
                Stage::Open,
                Frame::OfferState {
                    whose,
                    number,
                    done,
                    state,
                },
            ) => self.handle_offer_state(link, (whose, number), done, state),
            _ => self.abort(now, link, "a frame where none of its kind belongs"),
        }
        self.show_next();
        pause
    }

    /// A connection ended: with a goodbye, or for this reason.
    pub fn handle_closed(&mut self, now: Instant, link: LinkId, broken: Option<String>) {
        let end = broken.map_or(End::There, End::Broken);
        self.end_line(now, link, &end);
        self.show_next();
    }

    /// Some time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_calls(now);
        self.expire_questions(now);
        self.expire_offers(now);
        let links: Vec<LinkId> = self.lines.keys().copied().collect();
        for link in links {
            let Some(line) = self.lines.get_mut(&link) else {
                continue;
            };
            for number in line.overdue(now) {
                self.report(link, number, Delivery::Unknown);
            }
            let Some(line) = self.lines.get_mut(&link) else {
                continue;
            };
            if line.is_dead(now) {
                self.transmits.push_back(Transmit::Abort(link));
                let end = End::Broken("the other side fell silent".to_owned());
                self.end_line(now, link, &end);
            } else if line.must_ping(now) {
                self.send(link, Frame::Ping);
            }
        }
        self.show_next();
    }

    /// When [`Talks::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lines = self.lines.values().map(Line::next_timeout);
        let calls = self
            .parties
            .values()
            .filter_map(|party| party.call.as_ref());
        let calls = calls.map(|call| call.until);
        let others = [self.questions.next_timeout(), self.offers.next_timeout()];
        lines.chain(calls).chain(others.into_iter().flatten()).min()
    }

    /// What to do with connections, in this order.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What to find out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// With whom we talk, in the order in which it began.
    #[must_use]
    pub fn talks(&self, now: Instant) -> Vec<Talk> {
        let open = |line: &&Line| line.stage == Stage::Open;
        let mut lines: Vec<&Line> = self.lines.values().filter(open).collect();
        lines.sort_by_key(|line| line.since);
        lines.into_iter().map(|line| line.to_talk(now)).collect()
    }

    /// The questions that wait for an answer, the one to be asked first.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        self.questions.list()
    }

    /// Do we talk to this key?
    #[must_use]
    pub fn is_open(&self, key: &PeerId) -> bool {
        self.talk_with(key).is_some()
    }

    /// Whose connection it is.
    #[must_use]
    pub fn key_of(&self, link: LinkId) -> Option<PeerId> {
        self.lines.get(&link).map(|line| line.key)
    }

    fn talk_with(&self, key: &PeerId) -> Option<LinkId> {
        self.parties.get(key)?.talk
    }

    fn regard(&self, user: &UserName, key: PeerId) -> Regard {
        self.known.regard(user, key)
    }

    /// The answer to whoever is not talked to under this name with this key, whatever was asked or said before.
    fn shuts_out(&self, user: &UserName, key: PeerId) -> Option<Answer> {
        match self.regard(user, key) {
            Regard::Blocked => Some(Answer::No),
            Regard::OtherKey { .. } => Some(Answer::OtherKey),
            Regard::Unknown | Regard::Met | Regard::Trusted => None,
        }
    }

    fn send(&mut self, link: LinkId, frame: Frame) {
        self.transmits.push_back(Transmit::Send(link, frame));
    }

    /// Says yes on a connection that waits, unless what we think of its key has changed: `false` then.
    fn accept(&mut self, now: Instant, link: LinkId) -> bool {
        let Some(line) = self.lines.get(&link) else {
            return false;
        };
        if let Some(answer) = self.shuts_out(&line.user, line.key) {
            self.turn_away(link, answer);
            return false;
        }
        self.send(link, Frame::Answer(Answer::Yes));
        self.open(now, link);
        true
    }

    /// Both sides said yes: whatever else there is between the two goes.
    fn open(&mut self, now: Instant, link: LinkId) {
        let Some(line) = self.lines.get_mut(&link) else {
            return;
        };
        line.open(now);
        let (key, user, early) = (line.key, line.user.clone(), line.early_offer.take());
        let question = self.questions.remove_of_link(link);
        let party = self.parties.entry(key).or_default();
        party.talk = Some(link);
        let asks = party.asks.take().filter(|asks| *asks != link);
        let call = party.call.take();
        let is_wanted = call.is_some();
        if let Some(question) = question {
            self.events.push_back(Event::Unasked(question));
        }
        if let Some(other) = asks {
            self.turn_away(other, Answer::Elsewhere);
        }
        if let Some(CallStage::Asking(other)) = call.map(|call| call.stage)
            && other != link
        {
            self.offers.put_back(other);
            self.transmits.push_back(Transmit::Finish(other));
            self.forget_line(other);
        }
        self.events.push_back(Event::Began {
            user,
            key,
            is_wanted,
        });
        self.take_back_withdrawn(link);
        self.send_offers(key, link);
        if let Some((number, offer)) = early {
            self.handle_offer(now, link, number, offer);
        }
    }

    fn handle_pong(&mut self, link: LinkId) {
        let Some(line) = self.lines.get_mut(&link) else {
            return;
        };
        // Whoever answers here has no need of the other connection.
        if line.probe_until.take().is_some()
            && let Some(reserve) = self.parties.get(&line.key).and_then(|party| party.asks)
        {
            self.turn_away(reserve, Answer::Elsewhere);
        }
    }

    fn show_next(&mut self) {
        if let Some(question) = self.questions.show_next() {
            self.events.push_back(Event::Asked(question));
        }
    }

    fn tidy(&mut self, key: PeerId) {
        let is_over =
            |party: &Party| party.call.is_none() && party.asks.is_none() && party.talk.is_none();
        if self.parties.get(&key).is_some_and(is_over) {
            self.parties.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
