//! What one download holds of the table: its entry, its place, and what people want of it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;

use super::{Order, Outcome, State, Transfer, TransferId, Transfers};
use crate::peer::event::Progress;
use crate::peer::job::Flow;

/// A download's own entry, there until this is dropped. Who is dropped without [`Handle::end`] goes on at the
/// next start.
#[derive(Debug)]
pub struct Handle {
    transfers: Transfers,
    id: TransferId,
    /// What it does on disk.
    jobs: TaskTracker,
    /// Is it getting its final name, or has it that?
    naming: watch::Sender<bool>,
    flow: Arc<Flow>,
}

/// Takes what a download leaves to be done on disk when it lets go of something; cheap to clone.
#[derive(Debug, Clone)]
pub struct Later(TaskTracker);

impl Later {
    /// Runs a job that waits for the disk; [`Handle::settle`] waits for it, nobody else does.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(self.0.spawn_blocking_on(job, &runtime)),
            // Everything ends: nothing is held up any more.
            Err(_) => job(),
        }
    }
}

/// One of the places; free again when it is dropped.
#[derive(Debug)]
pub struct Place(Transfers);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.table().free += 1;
        self.0.turn.notify_waiters();
    }
}

/// Who waits for a place until this is dropped.
struct Waiting<'a>(&'a Handle);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.transfers.table().waiting.remove(&self.0.id);
        // Who was behind it may be next.
        self.0.transfers.turn.notify_waiters();
    }
}

/// What people want of one download.
#[derive(Debug)]
pub struct Orders(pub(super) watch::Receiver<Order>);

impl Orders {
    /// What is wanted now.
    #[must_use]
    pub fn current(&self) -> Order {
        *self.0.borrow()
    }

    /// Waits until something else is wanted than `order`.
    pub async fn until_other_than(&mut self, order: Order) -> Order {
        let changed = self.0.wait_for(|now| *now != order).await;
        if let Ok(now) = changed.map(|now| *now) {
            return now;
        }
        // The entry is gone, and with it whoever could want something.
        std::future::pending().await
    }
}

impl Handle {
    /// Of the download of this number, which is entered.
    pub(super) fn new(transfers: Transfers, id: TransferId) -> Self {
        let jobs = TaskTracker::new();
        jobs.close();
        Self {
            transfers,
            id,
            jobs,
            naming: watch::Sender::new(false),
            flow: Arc::new(Flow::new(Instant::now())),
        }
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> TransferId {
        self.id
    }

    /// What comes for it.
    #[must_use]
    pub const fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Waits for one of the places. The oldest of those who wait gets the next one.
    pub async fn place(&self) -> Place {
        self.set_state(State::Queued(0));
        self.transfers.table().waiting.insert(self.id);
        let waiting = Waiting(self);
        let place = loop {
            let turn = self.transfers.turn.notified();
            tokio::pin!(turn);
            // From here on nothing is missed.
            turn.as_mut().enable();
            if self.transfers.take_place(self.id) {
                break Place(self.transfers.clone());
            }
            turn.await;
        };
        drop(waiting);
        self.set_state(State::Running);
        place
    }

    /// It is paused; the next one in the queue need not wait for it.
    pub fn pause(&self) {
        drop(Waiting(self));
        self.set_state(State::Paused);
    }

    /// Until something else is wanted than to run, and it is not getting its final name: what has that is done.
    pub async fn until_let_go(&self, orders: &mut Orders) {
        let mut naming = self.naming.subscribe();
        loop {
            orders.until_other_than(Order::Run).await;
            // It fails when nobody can change it any more, which is as long as this handle lives.
            let _ = naming.wait_for(|is_naming| !is_naming).await;
            if orders.current() != Order::Run {
                return;
            }
        }
    }

    /// It is getting its final name, or that failed.
    pub fn set_naming(&self, is_naming: bool) {
        self.naming.send_replace(is_naming);
    }

    /// From here on it may have its final name.
    pub async fn note_finishing(&self) {
        let unfinished = self.transfers.unfinished.clone();
        unfinished.change(self.id, |record| record.is_finishing = true);
        let _ = spawn_blocking(move || unfinished.flush()).await;
    }

    /// It has ended, and does not go on at the next start.
    pub fn end(&self, outcome: Outcome) {
        self.transfers.unfinished.forget(self.id);
        let mut table = self.transfers.table();
        if let Some(entry) = table.running.remove(&self.id) {
            entry.outcome.send_replace(outcome);
        }
    }

    /// Runs a job of this download that waits for the disk; `None` when it did not come to an end. Whoever
    /// drops the future does not end the job.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, done) = oneshot::channel();
        // What nobody takes is dropped here, within the job.
        self.jobs.spawn_blocking(move || drop(sender.send(job())));
        done.await.ok()
    }

    /// For what is done on disk when something is dropped.
    #[must_use]
    pub fn later(&self) -> Later {
        Later(self.jobs.clone())
    }

    /// Until no job runs any more.
    pub async fn settle(&self) {
        self.jobs.wait().await;
    }

    /// How far it is; it runs, whatever it waited for, when it is coming.
    pub fn note_progress(&self, progress: &Progress, is_coming: bool) {
        self.change(|shown| {
            (shown.done, shown.len) = (progress.done, progress.len);
            shown.rate = progress.rate;
            shown.sources = progress.sources;
            shown.is_slow = progress.is_slow;
            if is_coming {
                shown.state = State::Running;
            }
        });
    }

    /// What it is doing.
    pub fn set_state(&self, state: State) {
        self.change(|shown| match state {
            State::Running => shown.state = State::Running,
            state => shown.rest(state),
        });
    }

    fn change(&self, change: impl FnOnce(&mut Transfer)) {
        let mut table = self.transfers.table();
        let entry = table.running.get_mut(&self.id);
        // Who pauses it wants to see nothing else of it.
        if let Some(entry) = entry.filter(|entry| *entry.orders.borrow() != Order::Pause) {
            change(&mut entry.shown);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut table = self.transfers.table();
        table.running.remove(&self.id);
        table.waiting.remove(&self.id);
        drop(table);
        self.transfers.turn.notify_waiters();
    }
}
