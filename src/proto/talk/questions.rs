//! What the person here is asked: a bounded queue, of which one question is shown at a time.

use std::collections::VecDeque;
use std::time::Instant;

use super::event::{LinkId, OfferId, Question, QuestionId, QuestionKind};
use crate::wire::id::PeerId;
use crate::wire::talk::Offer;
use crate::wire::text::UserName;

/// Questions that wait at the same time.
pub(super) const MAX_QUESTIONS: usize = 64;
/// Of one key.
const MAX_OF_ONE: usize = 8;

/// A question that waits.
pub(super) struct Entry {
    pub(super) id: QuestionId,
    pub(super) link: LinkId,
    pub(super) user: UserName,
    pub(super) key: PeerId,
    pub(super) kind: QuestionKind,
    /// The offer that it is about, when the talk is there already; else the question is the connection's own.
    pub(super) offer: Option<OfferId>,
    pub(super) until: Instant,
}

/// All of them.
#[derive(Default)]
pub(super) struct Questions {
    last: u64,
    queue: VecDeque<Entry>,
    shown: Option<QuestionId>,
    /// When the first one, which nobody saw, is to be shown again.
    again: Option<Instant>,
}

impl Questions {
    /// May this key ask one more?
    pub(super) fn has_room(&self, key: &PeerId) -> bool {
        let own = self.queue.iter().filter(|entry| entry.key == *key);
        self.queue.len() < MAX_QUESTIONS && own.count() < MAX_OF_ONE
    }

    /// Puts a question at the end; its number is chosen here.
    pub(super) fn push(&mut self, entry: Entry) {
        self.last += 1;
        let id = QuestionId(self.last);
        self.queue.push_back(Entry { id, ..entry });
    }

    /// The question of this connection is about an offer; left as it is when somebody has seen it.
    pub(super) fn tell_of_offer(&mut self, link: LinkId, offer: Offer) {
        let shown = self.shown;
        let own = |entry: &&mut Entry| entry.link == link && shown != Some(entry.id);
        if let Some(entry) = self.queue.iter_mut().find(own) {
            entry.kind = QuestionKind::Offer(offer);
        }
    }

    /// Takes out the question of this number, to be answered.
    pub(super) fn take(&mut self, id: QuestionId) -> Option<Entry> {
        self.take_first(|entry| entry.id == id)
    }

    /// Takes out one that `fits`, whether it was shown or not.
    fn take_first(&mut self, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let place = self.queue.iter().position(fits)?;
        self.queue.remove(place)
    }

    /// Takes out the question whether this connection may become a talk; its number, if it was shown.
    pub(super) fn remove_of_link(&mut self, link: LinkId) -> Option<QuestionId> {
        let entry = self.take_first(|entry| entry.link == link && entry.offer.is_none())?;
        self.unshow(entry.id)
    }

    /// Takes out the question about this offer; its number, if it was shown.
    pub(super) fn remove_of_offer(&mut self, offer: OfferId) -> Option<QuestionId> {
        let entry = self.take_first(|entry| entry.offer == Some(offer))?;
        self.unshow(entry.id)
    }

    /// Takes out all questions of a talk; the one that was shown.
    pub(super) fn remove_of_talk(&mut self, link: LinkId) -> Option<QuestionId> {
        self.queue.retain(|entry| entry.link != link);
        let shown = self.shown?;
        let is_there = self.queue.iter().any(|entry| entry.id == shown);
        if is_there { None } else { self.unshow(shown) }
    }

    /// Takes out one that `fits`; its number, if it was shown.
    pub(super) fn take_shown(
        &mut self,
        fits: impl Fn(&Entry) -> bool,
    ) -> Option<(Entry, Option<QuestionId>)> {
        let entry = self.take_first(fits)?;
        let shown = self.unshow(entry.id);
        Some((entry, shown))
    }

    /// This question was not shown after all.
    pub(super) fn show_again(&mut self, id: QuestionId, at: Instant) {
        if self.unshow(id).is_some() {
            self.again = Some(at);
        }
    }

    /// The first question, if it was not shown yet.
    pub(super) fn show_next(&mut self) -> Option<Question> {
        self.again = None;
        let first = self.queue.front()?;
        if self.shown == Some(first.id) {
            return None;
        }
        self.shown = Some(first.id);
        Some(self.to_question(0, first))
    }

    pub(super) fn list(&self) -> Vec<Question> {
        let queue = self.queue.iter().enumerate();
        queue
            .map(|(place, entry)| self.to_question(place, entry))
            .collect()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let ends = self.queue.iter().map(|entry| entry.until);
        ends.chain(self.again).min()
    }

    fn to_question(&self, place: usize, entry: &Entry) -> Question {
        Question {
            id: entry.id,
            user: entry.user.clone(),
            key: entry.key,
            kind: entry.kind.clone(),
            more: self.queue.len() - place - 1,
        }
    }

    fn unshow(&mut self, id: QuestionId) -> Option<QuestionId> {
        self.shown.take_if(|shown| *shown == id)
    }
}
