//! The sources of one swarm that are dialled or connected, and when one that went may be dialled again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;

use crate::peer::source::{self, Ask, Goal};
use crate::wire::control::Holder;
use crate::wire::id::PeerId;
use crate::wire::text::UserName;

/// Sources at the same time.
const MAX_SOURCES: usize = 16;
/// Asks that may wait for one source: several times what it may owe.
const ASKS: usize = 256;

/// One source; its task ends with it.
pub(super) struct Link {
    /// Who it is.
    pub(super) user: UserName,
    /// Is it more than dialled?
    pub(super) is_connected: bool,
    asks: mpsc::Sender<Ask>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Links {
    open: BTreeMap<PeerId, Link>,
    /// When a source may be dialled again.
    resting: HashMap<PeerId, Instant>,
}

impl Links {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= MAX_SOURCES
    }

    /// Is it dialled or connected?
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.open.contains_key(peer)
    }

    /// Who is dialled or connected.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.open.keys().copied()
    }

    /// Who is connected.
    pub(super) fn connected(&self) -> impl Iterator<Item = PeerId> {
        let connected = self.open.iter().filter(|(_, link)| link.is_connected);
        connected.map(|(peer, _)| *peer)
    }

    pub(super) fn may_dial(&self, now: Instant, peer: &PeerId) -> bool {
        let is_resting = self.resting.get(peer).is_some_and(|until| *until > now);
        !is_resting && !self.has(peer)
    }

    pub(super) fn dial(&mut self, goal: Goal, holder: Holder) {
        let (peer, user) = (holder.peer, holder.user.clone());
        let (asks, receiver) = mpsc::channel(ASKS);
        let task = tokio::spawn(source::run(goal, holder, receiver)).abort_handle();
        let link = Link {
            user,
            is_connected: false,
            asks,
            task,
        };
        self.open.insert(peer, link);
    }

    /// It is connected; `false` when it was let go of meanwhile.
    pub(super) fn connect(&mut self, peer: &PeerId) -> bool {
        let link = self.open.get_mut(peer);
        link.map(|link| link.is_connected = true).is_some()
    }

    /// Asks a source; `false` when it takes no more.
    pub(super) fn send(&self, peer: &PeerId, ask: Ask) -> bool {
        let Some(link) = self.open.get(peer) else {
            return true;
        };
        // Never waited for: the source may itself be waiting until its report is read. One that ended has
        // reported it, or will.
        !matches!(link.asks.try_send(ask), Err(TrySendError::Full(_)))
    }

    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<Link> {
        self.open.remove(peer)
    }

    /// Takes it away, and does not dial it for a while.
    pub(super) fn retire(&mut self, now: Instant, peer: PeerId, rest: Duration) -> Option<Link> {
        let link = self.open.remove(&peer)?;
        self.resting.insert(peer, now + rest);
        Some(link)
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// Whoever is there may be dialled, also those who went a moment ago.
    pub(super) fn end_rest(&mut self) {
        self.resting.clear();
    }
}
