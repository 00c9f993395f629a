//! What a peer can be asked to do about talks.

use std::sync::PoisonError;

use tokio::sync::mpsc;

use super::{OfferNews, TalkError};
use crate::peer::Peer;
use crate::peer::people::PeopleError;
use crate::proto::talk::{Accept, Delivery, OfferId, Question, QuestionId, Talk, Verdict};
use crate::wire::id::PeerId;
use crate::wire::talk::{Offer, OfferState};
use crate::wire::text::{ChatText, UserName};

impl Peer {
    /// Asks `user` to talk, and waits for the answer, for a minute at most.
    ///
    /// # Errors
    /// When nobody of that name is here, is reached, or says yes; when the name has another key than before.
    pub async fn connect(&self, user: &UserName) -> Result<(), TalkError> {
        self.look_around().await;
        self.0.talker.connect(user).await.map(drop)
    }

    /// Ends the talk with `user`, or all; who that was. Calls that wait for an answer are given up, too.
    pub fn disconnect(&self, user: Option<&UserName>) -> Vec<UserName> {
        self.0.talker.disconnect(user)
    }

    /// Says something to `user`, who is asked to talk first if that was not so; what became of it.
    ///
    /// # Errors
    /// As [`Self::connect`]; also when too many messages are on their way.
    pub async fn say(&self, user: &UserName, text: ChatText) -> Result<Delivery, TalkError> {
        self.look_around().await;
        self.0.talker.say_to(user, text).await
    }

    /// Says something to everybody to whom we talk: a copy for each, and what became of it.
    pub async fn say_all(&self, text: ChatText) -> Vec<(UserName, Result<Delivery, TalkError>)> {
        self.0.talker.say_all(&text).await
    }

    /// To whom we talk, in the order in which it began.
    #[must_use]
    pub fn talks(&self) -> Vec<Talk> {
        self.0.talker.talks()
    }

    /// What waits for an answer of the person here, the question that is to be asked first.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        self.0.talker.questions()
    }

    /// Answers a question; `false` when it is moot. Who is let in for ever is trusted from now on.
    ///
    /// # Errors
    /// When that cannot be remembered; the question waits on. When the key was blocked since it asked, or the
    /// name has another one by now: the answer is no then.
    pub async fn answer(&self, id: QuestionId, verdict: Verdict) -> Result<bool, PeopleError> {
        self.0.talker.answer(id, verdict).await
    }

    /// From now on this key reaches us under no name: its talk ends, and nobody is asked about it any more.
    ///
    /// # Errors
    /// When there is no room, or the file cannot be written; it holds until the end of this peer then.
    pub async fn block(&self, key: PeerId) -> Result<(), PeopleError> {
        self.0.talker.block(key).await
    }

    /// Who is let in from now on, without or with a question.
    pub fn set_accept(&self, accept: Accept) {
        self.0.talker.set_accept(accept);
    }

    /// Offers something that is shared to `user`, who is asked to talk first if that was not so, and waits
    /// until it is accepted, for ten minutes at most. Dropping the future takes the offer back.
    ///
    /// # Errors
    /// As [`Self::connect`]; also when it is not accepted.
    pub async fn offer(&self, user: &UserName, what: Offer) -> Result<OfferId, TalkError> {
        self.look_around().await;
        self.0.talker.offer(user, what).await
    }

    /// Tells the other side how far an accepted offer is, ours or theirs, or how it ended; `false` when there
    /// is nobody to tell.
    pub fn tell_state(&self, offer: OfferId, done: u64, state: OfferState) -> bool {
        self.0.talker.tell_state(offer, done, state)
    }

    /// The offers that are accepted here, and what becomes of all accepted ones; for the first who asks.
    #[must_use]
    pub fn offer_news(&self) -> Option<mpsc::Receiver<OfferNews>> {
        let news = &self.0.talker.0.news;
        news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
