//! The downloads of this peer: numbered, queued, paused, resumed, cancelled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::task::TaskTracker;

use super::event::Progress;
use crate::wire::control::Publication;

/// Number of a download, as people type it.
pub type TransferId = u32;

/// A download as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Its number.
    pub id: TransferId,
    /// What is fetched.
    pub file: Publication,
    /// What it is doing.
    pub state: State,
    /// Verified bytes.
    pub done: u64,
    /// All bytes, as far as known: those of a folder stand in its listing.
    pub len: u64,
    /// Bytes a second.
    pub rate: u64,
    /// Peers that are sending.
    pub sources: usize,
}

/// What a download is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits until others are done; so many come before it.
    Queued(usize),
    /// It runs.
    Running,
    /// It waits, for a seeder or for the disk.
    Waiting(String),
    /// It was paused.
    Paused,
}

/// What people want of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Run,
    /// Let go of everything until told to go on.
    Pause,
    /// End, and keep nothing.
    Cancel,
}

/// All downloads; cheap to clone.
#[derive(Clone, Debug)]
pub struct Transfers {
    table: Arc<Mutex<Table>>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Table {
    last: TransferId,
    running: BTreeMap<TransferId, Entry>,
}

#[derive(Debug)]
struct Entry {
    shown: Transfer,
    orders: watch::Sender<Order>,
}

impl Transfers {
    /// None yet; `places` of them run at the same time.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self {
            table: Arc::default(),
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Transfer> {
        let mut before = 0;
        let table = self.table();
        let shown = table.running.values().map(|entry| {
            let mut shown = entry.shown.clone();
            if let State::Queued(place) = &mut shown.state {
                before += 1;
                *place = before - 1;
            }
            shown
        });
        shown.collect()
    }

    /// Tells a download what to do; `false` when there is none of this number.
    #[must_use]
    pub fn order(&self, id: TransferId, order: Order) -> bool {
        let mut table = self.table();
        let Some(entry) = table.running.get_mut(&id) else {
            return false;
        };
        if *entry.orders.borrow() != Order::Cancel {
            entry.orders.send_replace(order);
        }
        true
    }

    /// A download begins, as soon as it gets a place.
    #[must_use]
    pub fn begin(&self, file: Publication) -> (Handle, Orders) {
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        let orders = watch::Sender::new(Order::Run);
        let watching = Orders(orders.subscribe());
        let shown = Transfer {
            id,
            state: State::Queued(0),
            done: 0,
            len: file.len,
            file,
            rate: 0,
            sources: 0,
        };
        table.running.insert(id, Entry { shown, orders });
        drop(table);
        let jobs = TaskTracker::new();
        jobs.close();
        let handle = Handle {
            transfers: self.clone(),
            id,
            jobs,
        };
        (handle, watching)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A download's own entry, there until this is dropped.
#[derive(Debug)]
pub struct Handle {
    transfers: Transfers,
    id: TransferId,
    jobs: TaskTracker,
}

/// What people want of one download.
#[derive(Debug)]
pub struct Orders(watch::Receiver<Order>);

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
    /// Waits for one of the places; `None` once nothing is left to run for.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.set_state(State::Queued(0));
        let place = Arc::clone(&self.transfers.places).acquire_owned().await;
        self.set_state(State::Running);
        place.ok()
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

    /// Until no job runs any more.
    pub async fn settle(&self) {
        self.jobs.wait().await;
    }

    /// How far it is.
    pub fn note_progress(&self, progress: &Progress) {
        self.change(|shown| {
            (shown.done, shown.len) = (progress.done, progress.len);
            shown.rate = progress.rate;
            shown.sources = progress.sources;
            if progress.sources > 0 {
                shown.state = State::Running;
            }
        });
    }

    /// What it is doing.
    pub fn set_state(&self, state: State) {
        self.change(|shown| {
            if state != State::Running {
                (shown.rate, shown.sources) = (0, 0);
            }
            shown.state = state;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Transfer)) {
        if let Some(entry) = self.transfers.table().running.get_mut(&self.id) {
            change(&mut entry.shown);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.transfers.table().running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::id::ContentId;

    fn file() -> Publication {
        Publication {
            name: "x".parse().unwrap(),
            content: ContentId([1; 32]),
            len: 10,
            kind: crate::wire::control::PublicationKind::File,
        }
    }

    #[tokio::test]
    async fn places_are_given_in_turn_and_the_queue_is_numbered() {
        let transfers = Transfers::new(1);
        let handles: Vec<_> = (0..3).map(|_| transfers.begin(file()).0).collect();
        let place = handles[0].place().await;
        let states = || -> Vec<_> {
            transfers
                .list()
                .into_iter()
                .map(|transfer| transfer.state)
                .collect()
        };
        assert_eq!(
            states(),
            [State::Running, State::Queued(0), State::Queued(1)]
        );
        drop(place);
        let _place = handles[1].place().await;
        let mut handles = handles.into_iter();
        drop(handles.next());
        assert_eq!(states(), [State::Running, State::Queued(0)]);
        assert_eq!(transfers.list()[0].id, 2, "numbers stay");
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_any_more_is_settled_before_the_next_one() {
        let (handle, _orders) = Transfers::new(1).begin(file());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let kept = Arc::new(());
        let held = Arc::clone(&kept);
        let job = handle.run_blocking(move || (wait.recv().is_ok(), held));
        assert!(
            tokio::time::timeout(std::time::Duration::ZERO, job)
                .await
                .is_err()
        );
        tokio::join!(handle.settle(), async { go.send(()).unwrap() });
        assert_eq!(Arc::strong_count(&kept), 1, "what it returned is gone, too");
    }

    #[tokio::test]
    async fn orders_reach_their_download_and_a_cancelled_one_stays_so() {
        let transfers = Transfers::new(1);
        let (_handle, mut orders) = transfers.begin(file());
        assert!(transfers.order(1, Order::Pause) && !transfers.order(2, Order::Pause));
        assert_eq!(orders.until_other_than(Order::Run).await, Order::Pause);
        assert!(transfers.order(1, Order::Cancel) && transfers.order(1, Order::Run));
        assert_eq!(orders.current(), Order::Cancel);
    }
}
