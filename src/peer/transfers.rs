//! The downloads of this peer: numbered, queued, paused, resumed, cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;

use super::Downloaded;
use super::event::Progress;
use super::unfinished::{Record, Unfinished};
use crate::wire::control::Publication;
use crate::wire::id::PeerId;

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
    /// They send little.
    pub is_slow: bool,
}

impl Transfer {
    /// It does something else than to fetch.
    fn rest(&mut self, state: State) {
        (self.rate, self.sources, self.is_slow) = (0, 0, false);
        self.state = state;
    }
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
    /// Somebody may have a place now.
    turn: Arc<Notify>,
    unfinished: Unfinished,
}

#[derive(Debug, Default)]
struct Table {
    last: TransferId,
    running: BTreeMap<TransferId, Entry>,
    /// Places that nobody has.
    free: usize,
    /// Who waits for a place; the oldest is next.
    waiting: BTreeSet<TransferId>,
}

#[derive(Debug)]
struct Entry {
    shown: Transfer,
    aim: Aim,
    orders: watch::Sender<Order>,
    outcome: watch::Sender<Outcome>,
}

/// What one download brings, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    /// What is fetched.
    pub file: Publication,
    /// Only from this peer.
    pub from: Option<PeerId>,
    /// Where to, as an absolute path.
    pub dir: PathBuf,
}

/// What became of a download, for those who wait for another one's end.
#[derive(Clone, Debug, Default)]
pub enum Outcome {
    /// It is under way, or was let go of.
    #[default]
    Open,
    /// It is there.
    Done(Arc<Downloaded>),
    /// It failed, and said why.
    Failed,
}

/// A download that was asked for.
#[derive(Debug)]
pub enum Begun {
    /// It begins, as soon as it gets a place.
    New(Handle, Orders),
    /// Another one brings the same to the same place.
    Joins(Joined),
    /// The one of this number would bring the same, but from one person only.
    Blocked(TransferId),
}

/// Waits for the end of a download that another one has begun.
#[derive(Debug)]
pub struct Joined {
    /// Its number.
    pub id: TransferId,
    outcome: watch::Receiver<Outcome>,
}

impl Joined {
    /// What became of it; [`Outcome::Open`] when it was cancelled.
    pub async fn end(mut self) -> Outcome {
        let is_over = |now: &Outcome| !matches!(now, Outcome::Open);
        let ended = self.outcome.wait_for(is_over).await;
        ended.map_or(Outcome::Open, |ended| ended.clone())
    }
}

impl Transfers {
    /// None yet; `places` of them run at the same time. Those that do not end are kept in `unfinished`.
    #[must_use]
    pub fn new(places: usize, unfinished: Unfinished) -> Self {
        let table = Table {
            free: places,
            ..Table::default()
        };
        Self {
            table: Arc::new(Mutex::new(table)),
            turn: Arc::default(),
            unfinished,
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
            if order == Order::Pause {
                // At once, although it may still be busy with the disk.
                entry.shown.rest(State::Paused);
            }
            let (done, len) = (entry.shown.done, entry.shown.len);
            self.unfinished.change(id, |record| {
                record.is_paused = order == Order::Pause;
                (record.done, record.len) = (done, len);
            });
        }
        true
    }

    /// A download begins, unless another one brings the same.
    #[must_use]
    pub fn begin(&self, aim: Aim) -> Begun {
        let mut table = self.table();
        let same = table.running.iter().find(|(_, entry)| {
            let (theirs, ours) = (&entry.aim.file, &aim.file);
            (theirs.content, theirs.kind, &entry.aim.dir) == (ours.content, ours.kind, &aim.dir)
                && *entry.orders.borrow() != Order::Cancel
        });
        if let Some((&id, entry)) = same {
            if entry.aim.from.is_some() && entry.aim.from != aim.from {
                return Begun::Blocked(id);
            }
            let outcome = entry.outcome.subscribe();
            return Begun::Joins(Joined { id, outcome });
        }
        let id = loop {
            table.last += 1;
            if !self.unfinished.is_taken(table.last) {
                break table.last;
            }
        };
        let record = Record::new(&aim);
        self.unfinished.note(id, record.clone());
        let (handle, orders) = self.enter(&mut table, id, aim, &record);
        Begun::New(handle, orders)
    }

    /// A download of an earlier start is there again, under its number.
    #[must_use]
    pub fn take_up(&self, id: TransferId, record: &Record) -> (Handle, Orders) {
        let mut table = self.table();
        table.last = table.last.max(id);
        self.enter(&mut table, id, record.aim(), record)
    }

    fn enter(
        &self,
        table: &mut Table,
        id: TransferId,
        aim: Aim,
        record: &Record,
    ) -> (Handle, Orders) {
        let (order, state) = if record.is_paused {
            (Order::Pause, State::Paused)
        } else {
            table.waiting.insert(id);
            (Order::Run, State::Queued(0))
        };
        let orders = watch::Sender::new(order);
        let watching = Orders(orders.subscribe());
        let shown = Transfer {
            id,
            state,
            done: record.done,
            len: record.len,
            file: aim.file.clone(),
            rate: 0,
            sources: 0,
            is_slow: false,
        };
        let entry = Entry {
            shown,
            aim,
            orders,
            outcome: watch::Sender::default(),
        };
        table.running.insert(id, entry);
        let jobs = TaskTracker::new();
        jobs.close();
        let handle = Handle {
            transfers: self.clone(),
            id,
            jobs,
            naming: watch::Sender::new(false),
        };
        (handle, watching)
    }

    /// Takes a place when it is the turn of `id`.
    fn take_place(&self, id: TransferId) -> bool {
        let mut table = self.table();
        let is_next = table.free > 0 && table.waiting.first() == Some(&id);
        table.free -= usize::from(is_next);
        is_next
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A download's own entry, there until this is dropped. Who is dropped without [`Handle::end`] goes on at the
/// next start.
#[derive(Debug)]
pub struct Handle {
    transfers: Transfers,
    id: TransferId,
    jobs: TaskTracker,
    /// Is it getting its final name, or has it that?
    naming: watch::Sender<bool>,
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
    /// Its number.
    #[must_use]
    pub const fn id(&self) -> TransferId {
        self.id
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
            shown.is_slow = progress.is_slow;
            if progress.sources > 0 {
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

#[cfg(test)]
mod tests {
    use super::super::database::Memory;
    use super::super::keeper::Restart;
    use super::*;
    use crate::wire::id::ContentId;

    fn transfers(places: usize) -> Transfers {
        let unfinished = Unfinished::new(Memory::default(), Restart::Restores);
        Transfers::new(places, unfinished)
    }

    fn aim(number: u8) -> Aim {
        Aim {
            file: Publication {
                name: "x".parse().unwrap(),
                content: ContentId([number; 32]),
                len: 10,
                kind: crate::wire::control::PublicationKind::File,
            },
            from: None,
            dir: "/x".into(),
        }
    }

    fn begin(transfers: &Transfers, number: u8) -> (Handle, Orders) {
        match transfers.begin(aim(number)) {
            Begun::New(handle, orders) => (handle, orders),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn places_are_given_in_turn_and_the_queue_is_numbered() {
        let transfers = transfers(1);
        let handles: Vec<_> = (0..3).map(|number| begin(&transfers, number).0).collect();
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
        // The youngest asks first, and waits all the same.
        let (mut youngest, mut next) = (Box::pin(handles[2].place()), Box::pin(handles[1].place()));
        let soon = std::time::Duration::from_millis(10);
        let early = tokio::time::timeout(soon, youngest.as_mut()).await;
        assert!(early.is_err());
        drop(place);
        let early = tokio::time::timeout(soon, youngest.as_mut()).await;
        assert!(early.is_err());
        let place = next.as_mut().await;
        drop((place, next));
        let _place = youngest.as_mut().await;
        drop(youngest);
        let mut handles = handles.into_iter();
        drop(handles.next());
        assert_eq!(states(), [State::Running, State::Running]);
        assert_eq!(transfers.list()[0].id, 2, "numbers stay");
    }

    #[tokio::test]
    async fn who_lets_go_of_the_queue_makes_room_for_the_next() {
        let transfers = transfers(1);
        let [first, second, third] = [1, 2, 3].map(|number| begin(&transfers, number).0);
        let place = first.place().await;
        let mut waiting = Box::pin(second.place());
        let soon = std::time::Duration::from_millis(10);
        let early = tokio::time::timeout(soon, waiting.as_mut()).await;
        assert!(early.is_err());
        drop((waiting, place));
        let _place = third.place().await;
    }

    #[tokio::test]
    async fn the_same_is_fetched_once_and_whoever_wants_it_too_hears_of_its_end() {
        let transfers = transfers(1);
        let (handle, _orders) = begin(&transfers, 1);
        let Begun::Joins(joined) = transfers.begin(aim(1)) else {
            panic!("it would be fetched twice")
        };
        assert_eq!(joined.id, handle.id());
        let elsewhere = Aim {
            dir: "/y".into(),
            ..aim(1)
        };
        assert!(matches!(transfers.begin(elsewhere), Begun::New(..)));
        handle.end(Outcome::Failed);
        assert!(matches!(joined.end().await, Outcome::Failed));
        let only = Aim {
            from: Some(PeerId([1; 32])),
            ..aim(1)
        };
        let Begun::New(handle, _orders) = transfers.begin(only.clone()) else {
            panic!("the first one has ended")
        };
        assert!(matches!(transfers.begin(aim(1)), Begun::Blocked(_)));
        let Begun::Joins(joined) = transfers.begin(only) else {
            panic!("it would be fetched twice")
        };
        drop(handle);
        assert!(matches!(joined.end().await, Outcome::Open));
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_any_more_is_settled_before_the_next_one() {
        let (handle, _orders) = begin(&transfers(1), 1);
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
        let transfers = transfers(1);
        let (_handle, mut orders) = begin(&transfers, 1);
        assert!(transfers.order(1, Order::Pause) && !transfers.order(2, Order::Pause));
        assert_eq!(orders.until_other_than(Order::Run).await, Order::Pause);
        assert!(transfers.order(1, Order::Cancel) && transfers.order(1, Order::Run));
        assert_eq!(orders.current(), Order::Cancel);
    }

    /// Also one whose program is killed the moment after.
    #[tokio::test]
    async fn a_paused_download_is_paused_at_the_next_start_and_may_have_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let unfinished = || {
            let (events, _) = tokio::sync::mpsc::channel(1);
            let memory = Memory::new(Some(dir.path().to_owned()), events);
            Unfinished::new(memory, Restart::Restores)
        };
        let transfers = Transfers::new(1, unfinished());
        let (handle, orders) = begin(&transfers, 1);
        assert!(transfers.order(1, Order::Pause));
        handle.note_finishing().await;
        drop((handle, orders, transfers));
        let unfinished = unfinished();
        let loaded = unfinished.load();
        let [(id, record)] = &loaded.records[..] else {
            panic!("{loaded:?}")
        };
        assert!(record.is_paused && record.is_finishing);
        let transfers = Transfers::new(1, unfinished);
        let (_handle, orders) = transfers.take_up(*id, record);
        assert_eq!(orders.current(), Order::Pause);
        assert_eq!(transfers.list()[0].state, State::Paused);
    }

    #[tokio::test]
    async fn who_is_paused_before_its_turn_keeps_nobody_waiting() {
        let transfers = transfers(1);
        let [first, second] = [1, 2].map(|number| begin(&transfers, number).0);
        first.pause();
        let soon = std::time::Duration::from_secs(5);
        let place = tokio::time::timeout(soon, second.place()).await;
        assert!(place.is_ok());
    }

    #[tokio::test]
    async fn what_is_getting_its_name_is_let_go_of_only_when_that_fails() {
        use std::time::Duration;
        let transfers = transfers(1);
        let (handle, mut orders) = begin(&transfers, 1);
        handle.set_naming(true);
        assert!(transfers.order(1, Order::Pause));
        let mut letting_go = Box::pin(handle.until_let_go(&mut orders));
        let soon = Duration::from_millis(10);
        let early = tokio::time::timeout(soon, letting_go.as_mut()).await;
        assert!(early.is_err());
        assert!(transfers.order(1, Order::Run));
        handle.set_naming(false);
        let early = tokio::time::timeout(soon, letting_go.as_mut()).await;
        assert!(early.is_err(), "it shall go on");
        assert!(transfers.order(1, Order::Cancel));
        letting_go.await;
    }
}
