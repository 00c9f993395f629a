//! Our own requests to talk.

use std::time::{Duration, Instant};

use super::line::{Line, Stage};
use super::{
    Action, CallEnd, Event, LinkId, MAX_TALKS, OfferEnd, Party, Regard, TalkRefusal, Talks,
    Transmit,
};
use crate::wire::id::PeerId;
use crate::wire::talk::{Answer, Frame};
use crate::wire::text::UserName;

/// They have this long to answer.
const CALL_TIME: Duration = Duration::from_secs(60);

/// Our request to one key.
pub(super) struct Call {
    pub(super) user: UserName,
    pub(super) until: Instant,
    pub(super) stage: CallStage,
    /// Somebody wants to talk, and not only to offer something.
    pub(super) is_for_talk: bool,
}

/// Where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallStage {
    /// There is no connection yet.
    Dialling,
    /// The question was sent.
    Asking(LinkId),
}

impl Talks {
    /// Asks whether this key, under this name, will talk to us: `true` when we do already, else what comes of
    /// it is an event.
    ///
    /// # Errors
    /// When it is ourselves, blocked, known with another key, or too many talks are under way.
    pub fn call(
        &mut self,
        now: Instant,
        user: &UserName,
        key: PeerId,
    ) -> Result<bool, TalkRefusal> {
        let called = self.call_quietly(now, user, key);
        let party = self.parties.get_mut(&key);
        if let Some(call) = party.and_then(|party| party.call.as_mut()) {
            call.is_for_talk = true;
        }
        self.show_next();
        called
    }

    pub(super) fn call_quietly(
        &mut self,
        now: Instant,
        user: &UserName,
        key: PeerId,
    ) -> Result<bool, TalkRefusal> {
        if key == self.own {
            return Err(TalkRefusal::Oneself);
        }
        match self.regard(user, key) {
            Regard::Blocked => return Err(TalkRefusal::Blocked),
            Regard::OtherKey { known } => {
                self.warn_of_other_key(now, user, known, key);
                return Err(TalkRefusal::OtherKey { known });
            }
            Regard::Unknown | Regard::Met | Regard::Trusted => {}
        }
        self.door.forgive(key);
        let party = self.parties.get(&key);
        if party.is_some_and(|party| party.talk.is_some()) {
            return Ok(true);
        }
        if party.is_some_and(|party| party.call.is_some()) {
            return Ok(false);
        }
        // Whoever asks us is answered by it.
        if let Some(link) = party.and_then(|party| party.asks)
            && self.accept(now, link)
        {
            return Ok(true);
        }
        let is_taken = |party: &&Party| party.call.is_some() || party.talk.is_some();
        if self.parties.values().filter(is_taken).count() >= MAX_TALKS {
            return Err(TalkRefusal::TooMany);
        }
        self.parties.entry(key).or_default().call = Some(Call {
            user: user.clone(),
            until: now + CALL_TIME,
            stage: CallStage::Dialling,
            is_for_talk: false,
        });
        self.actions.push_back(Action::Dial(key));
        Ok(false)
    }

    /// This key was reached over a new connection, or was not, and why.
    pub fn handle_dialled(&mut self, now: Instant, key: PeerId, dialled: Result<LinkId, String>) {
        let party = self.parties.get_mut(&key);
        let call = party.and_then(|party| party.call.as_mut());
        let call = call.filter(|call| call.stage == CallStage::Dialling);
        match (call, dialled) {
            (Some(call), Ok(link)) => {
                call.stage = CallStage::Asking(link);
                let user = call.user.clone();
                let line = Line::new(key, user, Stage::Calling, now);
                self.lines.insert(link, line);
                let connect = Frame::Connect {
                    user: self.user.clone(),
                    offers: self.offers.has_pending(&key),
                };
                self.send(link, connect);
                self.send_first_offer(key, link);
            }
            // Settled meanwhile, over a connection of theirs.
            (None, Ok(link)) => self.transmits.push_back(Transmit::Finish(link)),
            (Some(_), Err(reason)) => self.end_call(now, key, &CallEnd::Unreachable(reason)),
            (None, Err(_)) => {}
        }
        self.show_next();
    }

    pub(super) fn handle_answer(&mut self, now: Instant, link: LinkId, answer: Answer) {
        let Some(key) = self.lines.get(&link).map(|line| line.key) else {
            return;
        };
        if answer == Answer::Yes {
            return self.open(now, link);
        }
        self.end_call(now, key, &CallEnd::Refused(answer));
    }

    /// Our request came to nothing over its own connection. Whoever asks us meanwhile is let in all the same,
    /// unless we gave it up ourselves.
    pub(super) fn end_call(&mut self, now: Instant, key: PeerId, why: &CallEnd) {
        let Some(party) = self.parties.get_mut(&key) else {
            return;
        };
        let Some(call) = party.call.take() else {
            return;
        };
        let asks = party.asks;
        if matches!(why, CallEnd::NoAnswer | CallEnd::Unreachable(_)) {
            self.door.miss(now, key);
        }
        if let CallStage::Asking(link) = call.stage {
            self.offers.put_back(link);
            if self.lines.remove(&link).is_some() {
                self.transmits.push_back(Transmit::Finish(link));
            }
        }
        if let Some(link) = asks {
            if *why == CallEnd::Cancelled {
                self.decide(now, link);
            } else if self.accept(now, link) {
                return;
            }
        }
        self.events.push_back(Event::CallFailed {
            key,
            why: why.clone(),
        });
        for offer in self.offers.drop_pending(&key) {
            let why = OfferEnd::NoTalk(why.clone());
            self.events.push_back(Event::OfferEnded { offer, why });
        }
        self.tidy(key);
    }

    pub(super) fn expire_calls(&mut self, now: Instant) {
        let calls = self.parties.iter();
        let late = calls.filter(|(_, party)| {
            let call = party.call.as_ref();
            call.is_some_and(|call| call.until <= now)
        });
        let late: Vec<PeerId> = late.map(|(key, _)| *key).collect();
        for key in late {
            self.end_call(now, key, &CallEnd::NoAnswer);
        }
    }

    pub(super) fn warn_of_other_key(
        &mut self,
        now: Instant,
        user: &UserName,
        known: PeerId,
        found: PeerId,
    ) {
        if self.door.warns(now, found) {
            let user = user.clone();
            self.events
                .push_back(Event::OtherKey { user, known, found });
        }
    }
}
