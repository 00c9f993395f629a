//! Requests of others: who is turned away at the door, who is let in, and whom a person decides about.

use std::time::{Duration, Instant};

use super::door::Denied;
use super::line::{Line, Stage};
use super::questions::Entry;
use super::{
    Accept, Action, Checked, Event, LinkId, MAX_LINES, MAX_TALKS, PROBE_TIME, QuestionId,
    QuestionKind, Regard, Talks, Transmit, Verdict,
};
use crate::wire::id::PeerId;
use crate::wire::talk::{Answer, Frame, Offer};
use crate::wire::text::UserName;

/// A question that nobody answers is answered for him after this time; whoever asks has given up by then.
const QUESTION_TIME: Duration = Duration::from_secs(120);
/// A question that could not be shown is told of again after this time.
const SHOW_AGAIN: Duration = Duration::from_secs(1);

impl Talks {
    /// This key asks over a new connection, by this name, whether we will talk.
    pub fn handle_knock(
        &mut self,
        now: Instant,
        link: LinkId,
        key: PeerId,
        user: UserName,
        offers: bool,
    ) {
        if let Some(answer) = self.at_the_door(now, key, &user) {
            self.send(link, Frame::Answer(answer));
            self.transmits.push_back(Transmit::Finish(link));
            return;
        }
        let mut line = Line::new(key, user.clone(), Stage::Checking, now);
        line.awaits_offer = offers;
        self.lines.insert(link, line);
        self.actions.push_back(Action::Check { link, user });
    }

    /// What needs neither the tracker nor a person.
    fn at_the_door(&mut self, now: Instant, key: PeerId, user: &UserName) -> Option<Answer> {
        let party = self.parties.get(&key);
        let is_wanted = party.is_some_and(|party| party.call.is_some() || party.talk.is_some())
            || self.door.is_missed(now, &key);
        let waits = party.is_some_and(|party| party.asks.is_some());
        let regard = self.regard(user, key);
        if key == self.own || regard == Regard::Blocked {
            return Some(Answer::No);
        }
        if !is_wanted && self.door.is_denied(now, key, Denied::Talk) {
            return Some(Answer::No);
        }
        if !is_wanted && self.door.is_denied(now, key, Denied::Name) {
            return Some(Answer::WrongName);
        }
        let is_closed = match self.door.accept {
            Accept::None => true,
            Accept::Trusted => !matches!(regard, Regard::Trusted | Regard::OtherKey { .. }),
            Accept::Ask | Accept::All => false,
        };
        if is_closed && !is_wanted {
            return Some(Answer::NotAccepting);
        }
        let is_own = |line: &Line| line.key == key && line.stage == Stage::Checking;
        let is_busy = waits
            || self.lines.len() >= MAX_LINES
            || self.lines.values().any(is_own)
            || !self.door.may_knock(now, key);
        is_busy.then_some(Answer::Busy)
    }

    /// The tracker said whose the name is that was given over this connection.
    pub fn handle_checked(&mut self, now: Instant, link: LinkId, checked: Checked) {
        let line = self.lines.get_mut(&link);
        if let Some(line) = line.filter(|line| line.stage == Stage::Checking) {
            if line.awaits_offer
                && line.early_offer.is_none()
                && matches!(checked, Checked::Fits(_))
            {
                // Nobody is asked about a talk who is to be asked about the offer.
                line.checked = Some(checked);
                return;
            }
            let key = line.key;
            if let Checked::Fits(user) = &checked {
                line.user = user.clone();
            }
            let user = line.user.clone();
            // Whom we know we know without a tracker: this name with this key.
            let is_known = self.known.key_of(&user) == Some(key);
            match (checked, self.regard(&user, key)) {
                (Checked::WrongName, _) => self.refuse_name(now, link, user, key),
                (_, Regard::Blocked) => self.turn_away(link, Answer::No),
                (Checked::Nobody, _) if !is_known => self.refuse_name(now, link, user, key),
                (_, Regard::OtherKey { known }) => {
                    self.warn_of_other_key(now, &user, known, key);
                    self.turn_away(link, Answer::OtherKey);
                }
                (Checked::Unknown, _) if !is_known => self.turn_away(link, Answer::Unchecked),
                (_, Regard::Unknown | Regard::Met | Regard::Trusted) => self.admit(now, link, key),
            }
        }
        self.show_next();
    }

    /// The name is not theirs. The next one that this key gives is not asked about for a while.
    fn refuse_name(&mut self, now: Instant, link: LinkId, user: UserName, key: PeerId) {
        self.door.doubt(now, key);
        if self.door.warns(now, key) {
            self.events.push_back(Event::WrongName { user, key });
        }
        self.turn_away(link, Answer::WrongName);
    }

    /// The name is right: what else is there between us?
    fn admit(&mut self, now: Instant, link: LinkId, key: PeerId) {
        if let Some(line) = self.lines.get_mut(&link) {
            line.stage = Stage::Waiting;
        }
        let party = self.parties.entry(key).or_default();
        party.asks = Some(link);
        if let Some(talk) = party.talk {
            // Either it was dialled before the talk began, or the talk is dead over there.
            if let Some(line) = self.lines.get_mut(&talk) {
                line.probe_until = Some(now + PROBE_TIME);
            }
            self.send(talk, Frame::Ping);
        } else if party.call.is_none() {
            self.decide(now, link);
        } else if self.own > key {
            // Both ask, and theirs is the one that stays.
            let _ = self.accept(now, link);
        }
    }

    /// Lets somebody in who waits, or turns him away, or asks the person here.
    pub(super) fn decide(&mut self, now: Instant, link: LinkId) {
        let Some(line) = self.lines.get(&link) else {
            return;
        };
        let (key, user) = (line.key, line.user.clone());
        // It may have waited for long.
        if let Some(answer) = self.shuts_out(&user, key) {
            return self.turn_away(link, answer);
        }
        let is_trusted = self.regard(&user, key) == Regard::Trusted;
        let is_open = |line: &&Line| line.stage == Stage::Open;
        if self.lines.values().filter(is_open).count() >= MAX_TALKS {
            return self.turn_away(link, Answer::Busy);
        }
        match self.door.accept {
            _ if self.door.is_missed(now, &key) => {
                self.accept(now, link);
            }
            Accept::All => {
                self.accept(now, link);
            }
            Accept::Ask | Accept::Trusted if is_trusted => {
                self.accept(now, link);
            }
            Accept::None | Accept::Trusted => self.turn_away(link, Answer::NotAccepting),
            Accept::Ask => self.ask(now, link, user, key),
        }
    }

    fn ask(&mut self, now: Instant, link: LinkId, user: UserName, key: PeerId) {
        let offer = self
            .lines
            .get(&link)
            .and_then(|line| line.early_offer.as_ref());
        let kind = match offer {
            Some((_, offer)) => QuestionKind::Offer(offer.clone()),
            None => QuestionKind::Talk,
        };
        let is_offer = matches!(kind, QuestionKind::Offer(_));
        if self.door.is_denied(now, key, Denied::Talk)
            || is_offer && self.door.is_denied(now, key, Denied::Offer)
        {
            return self.turn_away(link, Answer::No);
        }
        if !self.questions.has_room(&key) {
            return self.turn_away(link, Answer::Busy);
        }
        self.questions.push(Entry {
            id: QuestionId(0),
            link,
            user,
            key,
            kind,
            offer: None,
            until: now + QUESTION_TIME,
        });
    }

    /// An offer for which somebody wants to talk to us.
    pub(super) fn handle_early_offer(
        &mut self,
        now: Instant,
        link: LinkId,
        number: u32,
        offer: Offer,
    ) {
        let line = self.lines.get_mut(&link);
        let is_due = |line: &&mut Line| line.awaits_offer && line.early_offer.is_none();
        let Some(line) = line.filter(is_due) else {
            return self.abort(now, link, "an offer before it was let in");
        };
        line.early_offer = Some((number, offer.clone()));
        if let Some(checked) = line.checked.take() {
            return self.handle_checked(now, link, checked);
        }
        // A question that nobody has seen yet can still say what it is about.
        self.questions.tell_of_offer(link, offer);
    }

    /// The program that shows questions took no more when this one came: it is told of again.
    pub fn handle_unshown(&mut self, now: Instant, id: QuestionId) {
        self.questions.show_again(id, now + SHOW_AGAIN);
    }

    /// The person here has answered: `false` when that question is moot.
    pub fn answer(&mut self, now: Instant, id: QuestionId, verdict: Verdict) -> bool {
        let Some(entry) = self.questions.take(id) else {
            return false;
        };
        let key = entry.key;
        if verdict == Verdict::Always {
            self.door.forgive(key);
        }
        let about = entry.offer.map_or(Denied::Talk, |_| Denied::Offer);
        if verdict == Verdict::No {
            self.door.deny(now, key, about);
        }
        self.settle(now, entry, verdict);
        // What else he asks of the kind is answered with it.
        let is_answered = |other: &Entry| {
            other.key == key
                && match verdict {
                    Verdict::Yes => false,
                    Verdict::Always => true,
                    Verdict::No => about == Denied::Talk || other.offer.is_some(),
                }
        };
        while let Some((other, shown)) = self.questions.take_shown(is_answered) {
            self.events.extend(shown.map(Event::Unasked));
            self.settle(now, other, verdict);
        }
        self.show_next();
        true
    }

    fn settle(&mut self, now: Instant, entry: Entry, verdict: Verdict) {
        // The name may have been given to another key since it was asked about.
        let is_shut_out = self.shuts_out(&entry.user, entry.key).is_some();
        let is_yes = verdict != Verdict::No && !is_shut_out;
        if let Some(offer) = entry.offer {
            return self.settle_offer(offer, is_yes);
        }
        if !is_yes {
            return self.turn_away(entry.link, Answer::No);
        }
        let line = self.lines.get_mut(&entry.link);
        let early = match entry.kind {
            // Yes to just what was shown.
            QuestionKind::Offer(_) => line.and_then(|line| line.early_offer.take()),
            QuestionKind::Talk => None,
        };
        let is_in = self.accept(now, entry.link);
        if is_in && let Some((number, what)) = early {
            self.take_offer(entry.link, number, what);
        }
    }

    pub(super) fn expire_questions(&mut self, now: Instant) {
        while let Some((entry, shown)) = self.questions.take_shown(|entry| entry.until <= now) {
            self.events.extend(shown.map(Event::Unasked));
            match entry.offer {
                Some(offer) => self.settle_offer(offer, false),
                None => self.turn_away(entry.link, Answer::Unanswered),
            }
        }
    }
}
