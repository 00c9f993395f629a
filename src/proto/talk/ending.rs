//! How connections of talks end, and what follows from it.

use std::time::Instant;

use super::line::{Line, Stage};
use super::{CallEnd, Delivery, End, Event, LinkId, OfferEnd, Talks, Transmit};
use crate::wire::id::PeerId;
use crate::wire::talk::{Answer, Frame};

impl Talks {
    /// Ends the talk with this key, and every call to it; `true` when there was a talk.
    pub fn hang_up(&mut self, now: Instant, key: &PeerId) -> bool {
        if self
            .parties
            .get(key)
            .is_some_and(|party| party.call.is_some())
        {
            self.end_call(now, *key, &CallEnd::Cancelled);
        }
        let talk = self.talk_with(key);
        if let Some(link) = talk {
            self.transmits.push_back(Transmit::Finish(link));
            self.end_line(now, link, &End::Here);
        }
        self.show_next();
        talk.is_some()
    }

    /// This key was blocked: what it asks is taken out, and what there is between us ends.
    pub fn shut_out(&mut self, now: Instant, key: &PeerId) {
        let asks = |line: &Line| matches!(line.stage, Stage::Checking | Stage::Waiting);
        let own = self.lines.iter();
        let own = own.filter(|(_, line)| line.key == *key && asks(line));
        let asking: Vec<LinkId> = own.map(|(link, _)| *link).collect();
        for link in asking {
            self.turn_away(link, Answer::No);
        }
        self.hang_up(now, key);
    }

    /// Nobody waits any more for a talk, unless an offer does.
    pub fn give_up(&mut self, now: Instant, key: &PeerId) {
        let party = self.parties.get_mut(key);
        if let Some(call) = party.and_then(|party| party.call.as_mut()) {
            call.is_for_talk = false;
            self.end_idle_call(now, *key);
        }
    }

    /// Ends a call for which nobody waits, and no offer.
    pub(super) fn end_idle_call(&mut self, now: Instant, key: PeerId) {
        let party = self.parties.get(&key);
        let call = party.and_then(|party| party.call.as_ref());
        let is_idle = call.is_some_and(|call| !call.is_for_talk) && !self.offers.wait_for(&key);
        if is_idle {
            self.end_call(now, key, &CallEnd::Cancelled);
            self.show_next();
        }
    }

    /// Ends everything, with a goodbye.
    pub fn close(&mut self, now: Instant) {
        let keys: Vec<PeerId> = self.parties.keys().copied().collect();
        for key in keys {
            self.hang_up(now, &key);
        }
        let links: Vec<LinkId> = self.lines.keys().copied().collect();
        for link in links {
            self.transmits.push_back(Transmit::Finish(link));
            self.end_line(now, link, &End::Here);
        }
    }

    /// Says no to a connection, in these words, and lets go of it. Its question, if it has one, is moot.
    pub(super) fn turn_away(&mut self, link: LinkId, answer: Answer) {
        self.send(link, Frame::Answer(answer));
        self.transmits.push_back(Transmit::Finish(link));
        self.forget_line(link);
    }

    pub(super) fn abort(&mut self, now: Instant, link: LinkId, rule: &str) {
        self.transmits.push_back(Transmit::Abort(link));
        let end = End::Broken(format!("the other side broke the protocol: {rule}"));
        self.end_line(now, link, &end);
    }

    /// Takes a connection that asks out of everything that knows of it.
    pub(super) fn forget_line(&mut self, link: LinkId) -> Option<Line> {
        let line = self.lines.remove(&link)?;
        if let Some(question) = self.questions.remove_of_link(link) {
            self.events.push_back(Event::Unasked(question));
        }
        if let Some(party) = self.parties.get_mut(&line.key)
            && party.asks == Some(link)
        {
            party.asks = None;
            if let Some(talk) = party.talk.and_then(|talk| self.lines.get_mut(&talk)) {
                talk.probe_until = None;
            }
        }
        self.tidy(line.key);
        Some(line)
    }

    /// What follows from the end of a connection.
    pub(super) fn end_line(&mut self, now: Instant, link: LinkId, end: &End) {
        let Some(line) = self.forget_line(link) else {
            return;
        };
        let key = line.key;
        match line.stage {
            Stage::Checking | Stage::Waiting => {}
            Stage::Calling => {
                self.offers.put_back(link);
                let why = match end {
                    End::Broken(reason) => CallEnd::Unreachable(reason.clone()),
                    End::Here | End::There => CallEnd::Unreachable("they hung up".to_owned()),
                };
                self.end_call(now, key, &why);
            }
            Stage::Open => {
                self.end_talk(link, &line, end);
                self.take_reserve(now, key, end);
            }
        }
    }

    fn end_talk(&mut self, link: LinkId, line: &Line, end: &End) {
        if let Some(party) = self.parties.get_mut(&line.key) {
            party.talk = None;
        }
        for number in line.unconfirmed() {
            self.report(link, number, Delivery::Unknown);
        }
        if let Some(question) = self.questions.remove_of_talk(link) {
            self.events.push_back(Event::Unasked(question));
        }
        for offer in self.offers.lose(link) {
            self.events.push_back(Event::OfferEnded {
                offer,
                why: OfferEnd::TalkEnded,
            });
        }
        self.events.push_back(Event::Ended {
            user: line.user.clone(),
            key: line.key,
            end: end.clone(),
        });
        self.tidy(line.key);
    }

    /// A talk ended while its other side had another connection ready. If it was cut, that one goes on with
    /// it; if somebody ended it, it is a request like any other.
    fn take_reserve(&mut self, now: Instant, key: PeerId, end: &End) {
        let Some(link) = self.parties.get(&key).and_then(|party| party.asks) else {
            return;
        };
        match end {
            End::Broken(_) => {
                self.accept(now, link);
            }
            End::Here | End::There => self.decide(now, link),
        }
    }
}
