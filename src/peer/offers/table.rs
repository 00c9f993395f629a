//! What is being sent, by number, and what the other side says of it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{SendError, SendId, Sending};
use crate::peer::TransferId;
use crate::proto::talk::OfferId;
use crate::wire::id::PeerId;
use crate::wire::talk::OfferState;
use crate::wire::text::UserName;

/// Things that are being sent at the same time.
pub(super) const MAX_SENDS: usize = 64;
/// States that came before anybody knew what they are about.
const MAX_EARLY: usize = 64;

/// All that is being sent, and the offers that are being fetched here; cheap to clone.
#[derive(Clone, Default)]
pub(in crate::peer) struct Sends(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    last: SendId,
    running: BTreeMap<SendId, Entry>,
    early: HashMap<OfferId, Told>,
    fetched: HashMap<OfferId, TransferId>,
}

pub(super) struct Entry {
    pub(super) shown: Sending,
    key: PeerId,
    path: PathBuf,
    offer: Option<OfferId>,
    told: watch::Sender<Told>,
    pub(super) taken_back: CancellationToken,
}

/// What the other side said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    State(u64, OfferState),
    Lost,
}

/// It is in the table as long as this lives.
pub(super) struct Listed {
    sends: Sends,
    pub(super) id: SendId,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.sends.lock().running.remove(&self.id);
    }
}

impl Sends {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(&self) -> Vec<Sending> {
        let table = self.lock();
        let running = table.running.values();
        running.map(|entry| entry.shown.clone()).collect()
    }

    pub(super) fn begin(
        &self,
        (user, key): (UserName, PeerId),
        path: PathBuf,
        name: String,
    ) -> Result<(Listed, CancellationToken), SendError> {
        let mut table = self.lock();
        let mut running = table.running.values();
        if running.any(|entry| entry.key == key && entry.path == path) {
            return Err(SendError::Already { user, name });
        }
        if table.running.len() >= MAX_SENDS {
            return Err(SendError::TooMany);
        }
        table.last += 1;
        let (id, taken_back) = (table.last, CancellationToken::new());
        let shown = Sending {
            id,
            user,
            name,
            content: None,
            len: 0,
            done: 0,
            is_accepted: false,
        };
        let entry = Entry {
            shown,
            key,
            path,
            offer: None,
            told: watch::channel(Told::Nothing).0,
            taken_back: taken_back.clone(),
        };
        table.running.insert(id, entry);
        drop(table);
        let sends = self.clone();
        Ok((Listed { sends, id }, taken_back))
    }

    pub(super) fn change<T>(&self, id: SendId, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.lock().running.get_mut(&id).map(change)
    }

    /// From now on it is known which offer it is; what was said of that meanwhile counts.
    pub(super) fn accept(&self, id: SendId, offer: OfferId) -> Option<watch::Receiver<Told>> {
        let mut table = self.lock();
        let early = table.early.remove(&offer);
        let entry = table.running.get_mut(&id)?;
        (entry.offer, entry.shown.is_accepted) = (Some(offer), true);
        if let Some(told) = early {
            entry.told.send_replace(told);
        }
        Some(entry.told.subscribe())
    }

    fn hear(&self, offer: OfferId, told: Told) {
        let mut table = self.lock();
        let found = table
            .running
            .values()
            .find(|entry| entry.offer == Some(offer));
        if let Some(entry) = found {
            entry.told.send_replace(told);
        } else {
            if table.early.len() >= MAX_EARLY {
                // What nobody asked about for so long is about nothing.
                table.early.clear();
            }
            table.early.insert(offer, told);
        }
    }

    /// The other side says how far it is with an offer of ours.
    pub(in crate::peer) fn note_state(&self, offer: OfferId, done: u64, state: OfferState) {
        self.hear(offer, Told::State(done, state));
    }

    /// Nothing more is heard of an offer.
    pub(in crate::peer) fn note_lost(&self, offer: OfferId) {
        self.hear(offer, Told::Lost);
    }

    /// An offer of theirs is fetched by this download, or no longer.
    pub(in crate::peer) fn set_fetched(&self, offer: OfferId, by: Option<TransferId>) {
        let mut table = self.lock();
        match by {
            Some(transfer) => drop(table.fetched.insert(offer, transfer)),
            None => drop(table.fetched.remove(&offer)),
        }
    }

    /// The download that fetches an offer of theirs.
    pub(in crate::peer) fn fetched_by(&self, offer: OfferId) -> Option<TransferId> {
        self.lock().fetched.get(&offer).copied()
    }
}
