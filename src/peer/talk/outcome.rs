//! What the machine tells, and who waits for it: the program's people, a call, a message, an offer.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tracing::debug;

use super::{Event, State, TalkError, Talker};
use crate::proto::talk::{self, Delivery, LinkId, OfferEnd, OfferId};
use crate::wire::id::PeerId;
use crate::wire::talk::{Offer, OfferState};
use crate::wire::text::UserName;

/// Calls to one key that wait for the same answer.
const MAX_CALLERS: usize = 64;

/// What happens to offers that were accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferNews {
    /// One of theirs was accepted here: it is to be fetched.
    Taken {
        /// Its number, for [`Peer::tell_state`](crate::peer::Peer::tell_state).
        offer: OfferId,
        /// Who offers it.
        user: UserName,
        /// Under this key.
        key: PeerId,
        /// What it is.
        what: Offer,
    },
    /// The other side says how far one is, ours or theirs.
    State {
        /// Its number.
        offer: OfferId,
        /// Who says so.
        user: UserName,
        /// Bytes that are there.
        done: u64,
        /// What it does.
        state: OfferState,
    },
    /// The talk ended: nothing more is heard of it, whatever becomes of its transfer.
    Lost {
        /// Its number.
        offer: OfferId,
    },
}

type Reply<T> = oneshot::Sender<T>;
/// Where it is told whether somebody said yes.
type Answer = Reply<Result<(), TalkError>>;

/// Who waits for what.
#[derive(Default)]
pub(super) struct Waiting {
    talks: HashMap<PeerId, (UserName, Vec<Answer>)>,
    deliveries: HashMap<(LinkId, u32), Reply<Delivery>>,
    offers: HashMap<OfferId, (UserName, Answer)>,
}

impl Waiting {
    pub(super) fn for_talk(&mut self, key: PeerId, user: UserName, reply: Answer) {
        let (_, replies) = self.talks.entry(key).or_insert_with(|| (user, Vec::new()));
        if replies.len() < MAX_CALLERS {
            replies.push(reply);
        } else {
            let _ = reply.send(Err(TalkError::TooMany));
        }
    }

    pub(super) fn for_delivery(&mut self, place: (LinkId, u32), reply: Reply<Delivery>) {
        self.deliveries.insert(place, reply);
    }

    pub(super) fn for_offer(&mut self, offer: OfferId, user: UserName, reply: Answer) {
        self.offers.insert(offer, (user, reply));
    }

    pub(super) fn forget_offer(&mut self, offer: OfferId) {
        self.offers.remove(&offer);
    }

    /// Does somebody wait for what this key says?
    pub(super) fn is_awaited(&mut self, key: &PeerId) -> bool {
        let Some((_, replies)) = self.talks.get_mut(key) else {
            return false;
        };
        replies.retain(|reply| !reply.is_closed());
        let is_awaited = !replies.is_empty();
        if !is_awaited {
            self.talks.remove(key);
        }
        is_awaited
    }

    /// Whom we call who bears this name, or everybody whom we call.
    pub(super) fn called(&self, folded: Option<&str>) -> Vec<PeerId> {
        let fits = |user: &UserName| folded.is_none_or(|folded| user.folded() == folded);
        let called = self.talks.iter().filter(|(_, (user, _))| fits(user));
        called.map(|(key, _)| *key).collect()
    }

    /// Nobody hears anything more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn settle_talk(&mut self, key: &PeerId, answer: impl Fn(&UserName) -> Result<(), TalkError>) {
        if let Some((user, replies)) = self.talks.remove(key) {
            for reply in replies {
                let _ = reply.send(answer(&user));
            }
        }
    }

    fn settle_offer(&mut self, id: OfferId, why: Option<&OfferEnd>) {
        if let Some((user, reply)) = self.offers.remove(&id) {
            let answer = why.map_or(Ok(()), |why| Err(TalkError::of_offer(&user, why)));
            let _ = reply.send(answer);
        }
    }
}

impl Talker {
    /// Passes on what the machine tells.
    pub(super) fn tell(&self, state: &mut State, event: talk::Event) {
        use talk::Event as Told;
        match event {
            Told::Asked(question) => {
                let id = question.id;
                if !self.show(Event::Asked(question)) {
                    state.machine.handle_unshown(Instant::now(), id);
                }
            }
            Told::Unasked(id) => {
                self.show(Event::Unasked(id));
            }
            Told::Said {
                link,
                number,
                user,
                key,
                to_all,
                text,
            } => {
                let said = Event::Said {
                    user,
                    key,
                    to_all,
                    text,
                };
                let is_shown = self.0.events.try_send(said).is_ok();
                state.machine.handle_shown(link, number, is_shown);
            }
            Told::Began {
                user,
                key,
                is_wanted,
            } => {
                debug!(%user, ?key, "talk began");
                if is_wanted {
                    self.0.people.meet(&user, key);
                } else {
                    self.0.people.meet_caller(&user, key, Instant::now());
                }
                state.waiting.settle_talk(&key, |_| Ok(()));
                self.show(Event::TalkBegan { user, key });
            }
            Told::Ended { user, key, end } => {
                debug!(%user, ?key, ?end, "talk ended");
                self.show(Event::TalkEnded { user, key, end });
            }
            Told::CallFailed { key, why } => {
                let answer = |user: &UserName| Err(TalkError::of_call(user, &why));
                state.waiting.settle_talk(&key, answer);
            }
            Told::Delivery {
                link,
                number,
                delivery,
            } => {
                if let Some(reply) = state.waiting.deliveries.remove(&(link, number)) {
                    let _ = reply.send(delivery);
                }
            }
            Told::OtherKey { user, known, found } => {
                self.show(Event::OtherKey { user, known, found });
            }
            Told::WrongName { user, key } => {
                self.show(Event::WrongName { user, key });
            }
            Told::OfferTaken {
                offer,
                user,
                key,
                what,
            } => {
                let taken = OfferNews::Taken {
                    offer,
                    user,
                    key,
                    what,
                };
                if !self.is_news_read() || state.news.try_send(taken).is_err() {
                    // Nobody fetches it.
                    let now = Instant::now();
                    state.machine.tell_state(now, offer, 0, OfferState::Failed);
                }
            }
            Told::OfferAccepted(id) => state.waiting.settle_offer(id, None),
            Told::OfferEnded { offer, why } => {
                state.waiting.settle_offer(offer, Some(&why));
                if why == OfferEnd::TalkEnded {
                    let _ = state.news.try_send(OfferNews::Lost { offer });
                }
            }
            Told::OfferState {
                offer,
                user,
                done,
                state: how,
            } => {
                let _ = state.news.try_send(OfferNews::State {
                    offer,
                    user,
                    done,
                    state: how,
                });
            }
        }
    }

    fn is_news_read(&self) -> bool {
        let news = self.0.news.lock();
        news.unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Events are for people: when nobody reads them they are dropped, never waited for. `false` when there
    /// was no room for this one.
    fn show(&self, event: Event) -> bool {
        let sent = self.0.events.try_send(event);
        !matches!(sent, Err(TrySendError::Full(_)))
    }
}
