//! The downloads of this peer: numbered, queued, paused, resumed, cancelled.

mod handle;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

pub use self::handle::{Handle, Later, Orders, Place};
use super::Downloaded;
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
    /// It is for chosen people only: others get nothing of it from here.
    pub is_restricted: bool,
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
        (Handle::new(self.clone(), id), watching)
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

#[cfg(test)]
pub(super) mod tests;
