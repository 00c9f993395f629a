//! What is wanted of talks: to begin and end them, to say something, to offer something.

use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};

use super::{State, TalkError, Talker};
use crate::peer::listing;
use crate::peer::people::PeopleError;
use crate::proto::talk::{Accept, Delivery, OfferId, Question, QuestionId, Talk, Verdict};
use crate::wire::control::PeerEntry;
use crate::wire::id::PeerId;
use crate::wire::talk::{Offer, OfferState};
use crate::wire::text::{ChatText, UserName};

impl Talker {
    /// Whoever is here under this name.
    async fn find(&self, user: &UserName) -> Result<PeerEntry, TalkError> {
        let found = listing::who(&self.0.control, user).await?;
        found.ok_or_else(|| TalkError::NotHere(user.clone()))
    }

    /// The key of whoever bears this name, of those to whom we talk.
    fn key_of(&self, user: &UserName) -> Option<PeerId> {
        let talks = self.lock().machine.talks(Instant::now());
        let folded = user.folded();
        let talk = talks.into_iter().find(|talk| talk.user.folded() == folded);
        talk.map(|talk| talk.key)
    }

    /// Asks somebody to talk, if that was not so; his key.
    /// Dropping the future gives up.
    pub(super) async fn connect(&self, user: &UserName) -> Result<PeerId, TalkError> {
        if let Some(key) = self.key_of(user) {
            return Ok(key);
        }
        let entry = self.find(user).await?;
        let (user, key) = (entry.user.clone(), entry.peer);
        let (reply, answer) = oneshot::channel();
        let is_open = self.act(|state, now| {
            state.entries.insert(key, entry);
            let called = state.machine.call(now, &user, key);
            if called == Ok(false) {
                state.waiting.for_talk(key, user.clone(), reply);
            }
            called
        });
        match is_open {
            Ok(true) => Ok(key),
            Ok(false) => {
                let _until = GivingUp { talker: self, key };
                let answer = answer.await.unwrap_or(Err(TalkError::Leaving));
                answer.map(|()| key)
            }
            Err(refusal) => Err(TalkError::refused(&user, &key, refusal)),
        }
    }

    async fn say(
        &self,
        (user, key): (&UserName, PeerId),
        to_all: bool,
        text: ChatText,
    ) -> Result<Delivery, TalkError> {
        let (reply, answer) = oneshot::channel();
        self.act(|state, now| {
            let place = state.machine.say(now, &key, to_all, text)?;
            state.waiting.for_delivery(place, reply);
            Ok(())
        })
        .map_err(|refusal| TalkError::refused(user, &key, refusal))?;
        Ok(answer.await.unwrap_or(Delivery::Unknown))
    }

    pub(super) fn disconnect(&self, user: Option<&UserName>) -> Vec<UserName> {
        let folded = user.map(UserName::folded);
        self.act(|state, now| state.hang_up(now, folded.as_deref()))
    }

    pub(super) async fn say_to(
        &self,
        user: &UserName,
        text: ChatText,
    ) -> Result<Delivery, TalkError> {
        let key = self.connect(user).await?;
        self.say((user, key), false, text).await
    }

    pub(super) async fn say_all(
        &self,
        text: &ChatText,
    ) -> Vec<(UserName, Result<Delivery, TalkError>)> {
        let mut copies = JoinSet::new();
        for talk in self.talks() {
            let (talker, text) = (self.clone(), text.clone());
            copies.spawn(async move {
                let said = talker.say((&talk.user, talk.key), true, text).await;
                (talk.user, said)
            });
        }
        let mut said = copies.join_all().await;
        said.sort_by(|(one, _), (other, _)| one.cmp(other));
        said
    }

    pub(super) fn talks(&self) -> Vec<Talk> {
        self.lock().machine.talks(Instant::now())
    }

    pub(super) fn questions(&self) -> Vec<Question> {
        self.lock().machine.questions()
    }

    pub(super) async fn answer(
        &self,
        id: QuestionId,
        verdict: Verdict,
    ) -> Result<bool, PeopleError> {
        if verdict == Verdict::Always {
            let questions = self.questions();
            let Some(question) = questions.into_iter().find(|question| question.id == id) else {
                return Ok(false);
            };
            let people = self.0.people.clone();
            let trusting = move || people.trust_still(&question.user, question.key);
            if let Ok(trusted) = spawn_blocking(trusting).await {
                if let Err(PeopleError::Changed(_)) = trusted {
                    self.act(|state, now| state.machine.answer(now, id, Verdict::No));
                }
                trusted?;
            }
        }
        Ok(self.act(|state, now| state.machine.answer(now, id, verdict)))
    }

    /// Blocks this key; whatever there is between us ends.
    pub(super) async fn block(&self, key: PeerId) -> Result<(), PeopleError> {
        let people = self.0.people.clone();
        let blocking = move || people.block(key);
        let blocked = spawn_blocking(blocking).await.unwrap_or(Ok(()));
        // It holds also where it could not be written.
        if !matches!(blocked, Err(PeopleError::Full)) {
            self.act(|state, now| state.machine.shut_out(now, &key));
        }
        blocked
    }

    pub(super) fn set_accept(&self, accept: Accept) {
        self.act(|state, _| state.machine.set_accept(accept));
    }

    pub(super) async fn offer(&self, user: &UserName, what: Offer) -> Result<OfferId, TalkError> {
        let (user, key, entry) = match self.key_of(user) {
            Some(key) => (user.clone(), key, None),
            None => {
                let entry = self.find(user).await?;
                (entry.user.clone(), entry.peer, Some(entry))
            }
        };
        let (reply, answer) = oneshot::channel();
        let offered = self.act(|state, now| {
            state.entries.extend(entry.map(|entry| (key, entry)));
            let offered = state.machine.offer(now, &user, key, what);
            if let Ok(id) = offered {
                state.waiting.for_offer(id, user.clone(), reply);
            }
            offered
        });
        let id = offered.map_err(|refusal| TalkError::refused(&user, &key, refusal))?;
        let mut withdrawal = Withdrawal {
            talker: self,
            offer: Some(id),
        };
        let answer = answer.await.unwrap_or(Err(TalkError::Leaving));
        withdrawal.offer = None;
        answer.map(|()| id)
    }

    pub(super) fn tell_state(&self, offer: OfferId, done: u64, state: OfferState) -> bool {
        self.act(|talks, now| talks.machine.tell_state(now, offer, done, state))
    }
}

impl State {
    fn hang_up(&mut self, now: Instant, folded: Option<&str>) -> Vec<UserName> {
        let mut ended = Vec::new();
        for talk in self.machine.talks(now) {
            if folded.is_none_or(|folded| talk.user.folded() == folded) {
                self.machine.hang_up(now, &talk.key);
                ended.push(talk.user);
            }
        }
        for key in self.waiting.called(folded) {
            self.machine.hang_up(now, &key);
        }
        ended
    }
}

/// Ends a call for whose answer nobody waits any more.
struct GivingUp<'a> {
    talker: &'a Talker,
    key: PeerId,
}

impl Drop for GivingUp<'_> {
    fn drop(&mut self) {
        self.talker.act(|state, now| {
            if !state.waiting.is_awaited(&self.key) {
                state.machine.give_up(now, &self.key);
            }
        });
    }
}

/// Takes an offer back for which nobody waits any more.
struct Withdrawal<'a> {
    talker: &'a Talker,
    offer: Option<OfferId>,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.offer {
            self.talker.act(|state, now| {
                state.machine.tell_state(now, id, 0, OfferState::Withdrawn);
                state.waiting.forget_offer(id);
            });
        }
    }
}
