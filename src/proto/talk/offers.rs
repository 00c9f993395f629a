//! Files and folders for one person: offered, accepted or not, and how far they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::door::Denied;
use super::questions::Entry;
use super::{
    Accept, Event, LinkId, OfferEnd, OfferId, QuestionId, QuestionKind, Regard, TalkRefusal, Talks,
};
use crate::proto::talk::line::Stage;
use crate::wire::id::PeerId;
use crate::wire::talk::{Frame, Offer, OfferAnswer, OfferState, Whose};
use crate::wire::text::UserName;

/// An offer waits so long for an answer.
const OFFER_TIME: Duration = Duration::from_secs(600);
/// Offers to one key that are not done, and as many of it.
const MAX_OFFERS: usize = 32;

/// All that are not done.
#[derive(Default)]
pub(super) struct Offers {
    last: u64,
    table: BTreeMap<OfferId, Record>,
}

struct Record {
    user: UserName,
    key: PeerId,
    whose: Whose,
    what: Offer,
    /// Over which connection it was made, and its number there; absent until there is one.
    place: Option<(LinkId, u32)>,
    is_accepted: bool,
    until: Instant,
}

impl Offers {
    fn add(&mut self, record: Record) -> OfferId {
        self.last += 1;
        let id = OfferId(self.last);
        self.table.insert(id, record);
        id
    }

    fn find(&self, whose: Whose, place: (LinkId, u32)) -> Option<OfferId> {
        let fits = |record: &Record| record.whose == whose && record.place == Some(place);
        let found = self.table.iter().find(|(_, record)| fits(record));
        found.map(|(id, _)| *id)
    }

    fn has_room(&self, key: &PeerId, whose: Whose) -> bool {
        let own = |record: &&Record| record.key == *key && record.whose == whose;
        self.table.values().filter(own).count() < MAX_OFFERS
    }

    /// Offers to this key for which there is no connection.
    fn pending(&self, key: &PeerId) -> Vec<OfferId> {
        let is_pending = |record: &Record| record.key == *key && record.place.is_none();
        let table = self.table.iter().filter(|(_, record)| is_pending(record));
        table.map(|(id, _)| *id).collect()
    }

    /// Does an offer of ours to this key wait for an answer?
    pub(super) fn wait_for(&self, key: &PeerId) -> bool {
        let waits = |record: &Record| {
            record.key == *key && record.whose == Whose::Own && !record.is_accepted
        };
        self.table.values().any(waits)
    }

    pub(super) fn has_pending(&self, key: &PeerId) -> bool {
        !self.pending(key).is_empty()
    }

    /// What was offered over this connection, which goes before it was answered, is offered over the next.
    pub(super) fn put_back(&mut self, link: LinkId) {
        for record in self.table.values_mut() {
            record.place.take_if(|place| place.0 == link);
        }
    }

    /// Forgets what was offered over this connection.
    pub(super) fn lose(&mut self, link: LinkId) -> Vec<OfferId> {
        let is_its = |record: &Record| record.place.is_some_and(|place| place.0 == link);
        let lost = self.table.extract_if(.., |_, record| is_its(record));
        lost.map(|(id, _)| id).collect()
    }

    /// Forgets what would have been offered.
    pub(super) fn drop_pending(&mut self, key: &PeerId) -> Vec<OfferId> {
        let pending = self.pending(key);
        for id in &pending {
            self.table.remove(id);
        }
        pending
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let waiting = |record: &&Record| !record.is_accepted && record.whose == Whose::Own;
        let waiting = self.table.values().filter(waiting);
        waiting.map(|record| record.until).min()
    }
}

impl Talks {
    /// Offers something to this key, under this name; it is called first, when there is no talk. What comes
    /// of it are events.
    ///
    /// # Errors
    /// As [`Talks::call`].
    pub fn offer(
        &mut self,
        now: Instant,
        user: &UserName,
        key: PeerId,
        what: Offer,
    ) -> Result<OfferId, TalkRefusal> {
        if !self.offers.has_room(&key, Whose::Own) {
            return Err(TalkRefusal::TooMany);
        }
        let id = self.offers.add(Record {
            user: user.clone(),
            key,
            whose: Whose::Own,
            what,
            place: None,
            is_accepted: false,
            until: now + OFFER_TIME,
        });
        if let Err(refusal) = self.call_quietly(now, user, key) {
            self.offers.table.remove(&id);
            return Err(refusal);
        }
        if let Some(link) = self.talk_with(&key) {
            self.send_offers(key, link);
        }
        self.show_next();
        Ok(id)
    }

    /// Tells the other side how far an accepted offer is; an offer of ours may also be taken back before.
    /// `false` when there is nobody to tell, or nothing to tell it about.
    pub fn tell_state(&mut self, now: Instant, id: OfferId, done: u64, state: OfferState) -> bool {
        let Some(record) = self.offers.table.get(&id) else {
            return false;
        };
        let (key, whose, place) = (record.key, record.whose, record.place);
        let takes_back = whose == Whose::Own && state == OfferState::Withdrawn;
        if !record.is_accepted && !takes_back {
            return false;
        }
        if is_last(state) {
            self.offers.table.remove(&id);
        }
        let Some((link, number)) = place else {
            self.end_idle_call(now, key);
            return true;
        };
        if self.talk_with(&key) == Some(link) {
            let frame = Frame::OfferState {
                whose,
                number,
                done,
                state,
            };
            self.send(link, frame);
        } else {
            // They may have seen it: they are told when they say yes, and the call goes on for others.
            if let Some(line) = self.lines.get_mut(&link) {
                line.withdrawn = Some(number);
            }
            self.end_idle_call(now, key);
        }
        true
    }

    /// The offer for which we called is taken back, if nobody here wanted it any more before they said yes.
    pub(super) fn take_back_withdrawn(&mut self, link: LinkId) {
        let line = self.lines.get_mut(&link);
        if let Some(number) = line.and_then(|line| line.withdrawn.take()) {
            let frame = Frame::OfferState {
                whose: Whose::Own,
                number,
                done: 0,
                state: OfferState::Withdrawn,
            };
            self.send(link, frame);
        }
    }

    /// What waits for a talk with this key goes over it.
    pub(super) fn send_offers(&mut self, key: PeerId, link: LinkId) {
        for id in self.offers.pending(&key) {
            self.send_offer(id, link);
        }
    }

    /// The offer for which we call.
    pub(super) fn send_first_offer(&mut self, key: PeerId, link: LinkId) {
        if let Some(id) = self.offers.pending(&key).first() {
            self.send_offer(*id, link);
        }
    }

    fn send_offer(&mut self, id: OfferId, link: LinkId) {
        let (line, record) = (self.lines.get_mut(&link), self.offers.table.get_mut(&id));
        let (Some(line), Some(record)) = (line, record) else {
            return;
        };
        line.last_offer_sent = line.last_offer_sent.saturating_add(1);
        let number = line.last_offer_sent;
        record.place = Some((link, number));
        let offer = record.what.clone();
        self.send(link, Frame::Offer { number, offer });
    }

    pub(super) fn handle_offer(&mut self, now: Instant, link: LinkId, number: u32, what: Offer) {
        let Some(line) = self.lines.get_mut(&link) else {
            return;
        };
        if number <= line.last_offer_came {
            return;
        }
        line.last_offer_came = number;
        let (user, key) = (line.user.clone(), line.key);
        let regard = self.regard(&user, key);
        let answer = match (self.door.accept, regard) {
            (_, Regard::Blocked | Regard::OtherKey { .. }) => OfferAnswer::Denied,
            _ if !self.offers.has_room(&key, Whose::Yours) => OfferAnswer::Busy,
            (Accept::All, _) | (Accept::Ask | Accept::Trusted, Regard::Trusted) => {
                return self.take_offer(link, number, what);
            }
            (Accept::Trusted | Accept::None, _) => OfferAnswer::NotAccepting,
            _ if self.door.is_denied(now, key, Denied::Offer) => OfferAnswer::Denied,
            _ if !self.questions.has_room(&key) => OfferAnswer::Busy,
            (Accept::Ask, _) => {
                let until = now + OFFER_TIME;
                let offer = self.offers.add(Record {
                    user: user.clone(),
                    key,
                    whose: Whose::Yours,
                    what: what.clone(),
                    place: Some((link, number)),
                    is_accepted: false,
                    until,
                });
                self.questions.push(Entry {
                    id: QuestionId(0),
                    link,
                    user,
                    key,
                    kind: QuestionKind::Offer(what),
                    offer: Some(offer),
                    until,
                });
                return;
            }
        };
        self.send(link, Frame::OfferAnswer { number, answer });
    }

    /// It is accepted as it comes.
    pub(super) fn take_offer(&mut self, link: LinkId, number: u32, what: Offer) {
        let line = self.lines.get_mut(&link);
        let Some(line) = line.filter(|line| line.stage == Stage::Open) else {
            return;
        };
        line.last_offer_came = line.last_offer_came.max(number);
        let (user, key) = (line.user.clone(), line.key);
        let id = self.offers.add(Record {
            user,
            key,
            whose: Whose::Yours,
            what,
            place: Some((link, number)),
            is_accepted: false,
            until: line.since,
        });
        self.settle_offer(id, true);
    }

    /// The person here, or what is known of theirs, has decided about an offer.
    pub(super) fn settle_offer(&mut self, id: OfferId, is_yes: bool) {
        let Some(record) = self.offers.table.get_mut(&id) else {
            return;
        };
        record.is_accepted = is_yes;
        let place = record.place;
        if is_yes {
            self.events.push_back(Event::OfferTaken {
                offer: id,
                user: record.user.clone(),
                key: record.key,
                what: record.what.clone(),
            });
        } else {
            self.offers.table.remove(&id);
        }
        if let Some((link, number)) = place {
            let answer = if is_yes {
                OfferAnswer::Accepted
            } else {
                OfferAnswer::Denied
            };
            self.send(link, Frame::OfferAnswer { number, answer });
        }
    }

    pub(super) fn handle_offer_answer(&mut self, link: LinkId, number: u32, answer: OfferAnswer) {
        let Some(id) = self.offers.find(Whose::Own, (link, number)) else {
            return;
        };
        match (self.offers.table.get_mut(&id), answer) {
            (Some(record), _) if record.is_accepted => {}
            (Some(record), OfferAnswer::Accepted) => {
                record.is_accepted = true;
                self.events.push_back(Event::OfferAccepted(id));
            }
            _ => {
                self.offers.table.remove(&id);
                let why = OfferEnd::Refused(answer);
                self.events.push_back(Event::OfferEnded { offer: id, why });
            }
        }
    }

    pub(super) fn handle_offer_state(
        &mut self,
        link: LinkId,
        (theirs, number): (Whose, u32),
        done: u64,
        state: OfferState,
    ) {
        let whose = match theirs {
            Whose::Own => Whose::Yours,
            Whose::Yours => Whose::Own,
        };
        let found = self.offers.find(whose, (link, number));
        let Some(record) = found.and_then(|id| self.offers.table.get(&id)) else {
            return;
        };
        let (is_accepted, user) = (record.is_accepted, record.user.clone());
        let takes_back = whose == Whose::Yours && state == OfferState::Withdrawn;
        let Some(offer) = found.filter(|_| is_accepted || takes_back) else {
            return;
        };
        if is_last(state) {
            self.offers.table.remove(&offer);
        }
        if let Some(question) = self.questions.remove_of_offer(offer) {
            self.events.push_back(Event::Unasked(question));
        }
        if is_accepted {
            self.events.push_back(Event::OfferState {
                offer,
                user,
                done,
                state,
            });
        }
    }

    pub(super) fn expire_offers(&mut self, now: Instant) {
        let is_late = |record: &Record| {
            record.whose == Whose::Own && !record.is_accepted && record.until <= now
        };
        let table = self.offers.table.iter();
        let late: Vec<OfferId> = table
            .filter(|(_, record)| is_late(record))
            .map(|(id, _)| *id)
            .collect();
        for offer in late {
            // It may have ended with the one before.
            if !self.offers.table.contains_key(&offer) {
                continue;
            }
            self.tell_state(now, offer, 0, OfferState::Withdrawn);
            let why = OfferEnd::NoAnswer;
            self.events.push_back(Event::OfferEnded { offer, why });
        }
    }
}

/// Is nothing more said of it after that?
const fn is_last(state: OfferState) -> bool {
    !matches!(state, OfferState::Running)
}
