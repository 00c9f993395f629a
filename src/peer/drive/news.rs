//! What people are told of a transfer while it runs.

use tokio::sync::mpsc;

use crate::peer::event::Event;
use crate::peer::job::Job;
use crate::peer::transfers::State;
use crate::wire::text::{FileName, UserName};

/// Tells it, each thing once.
pub(super) struct News<'a> {
    events: &'a mpsc::Sender<Event>,
    job: Job<'a>,
    /// They know that nothing comes.
    is_waiting: bool,
}

impl<'a> News<'a> {
    pub(super) const fn new(events: &'a mpsc::Sender<Event>, job: Job<'a>) -> Self {
        Self {
            events,
            job,
            is_waiting: false,
        }
    }

    /// A source left, and did nothing wrong.
    pub(super) fn tell_left(&self, user: UserName) {
        let name = self.name();
        self.tell(Event::SourceLeft { name, user });
    }

    /// A source was let go of, for this reason.
    pub(super) fn tell_dropped(&self, user: UserName, reason: String, is_liar: bool) {
        let name = self.name();
        self.tell(Event::SourceDropped {
            name,
            user,
            reason,
            is_liar,
        });
    }

    /// Nothing comes, for this reason: people are told once, until something does.
    pub(super) fn tell_waiting(&mut self, reason: String, event: fn(FileName, String) -> Event) {
        self.job.handle.set_state(State::Waiting(reason.clone()));
        if !self.is_waiting {
            self.is_waiting = true;
            self.tell(event(self.name(), reason));
        }
    }

    /// Something came, or there is a reason that they did not hear yet.
    pub(super) const fn end_wait(&mut self) {
        self.is_waiting = false;
    }

    fn name(&self) -> FileName {
        self.job.wanted.file.name.clone()
    }

    /// Events are for people: when nobody reads them they are dropped, never waited for.
    fn tell(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}
