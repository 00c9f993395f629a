//! Makes durable what came, and remembers when the disk takes nothing.

use std::io;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::peer::target::{Synced, Target};

/// What came is made durable this often.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// The sync under way, the next one, and what the latest ones came to.
pub(super) struct Syncing {
    task: Option<JoinHandle<Synced>>,
    next: Instant,
    trouble: Option<Trouble>,
}

/// The disk takes nothing.
struct Trouble {
    since: Instant,
    is_full: bool,
    /// A piece was written since; when that is durable, too, the trouble is over.
    has_written: bool,
}

impl Syncing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            task: None,
            next: now + SYNC_EVERY,
            trouble: None,
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.task.is_some()
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_running() && (self.next <= now || self.is_in_trouble())
    }

    pub(super) fn start(&mut self, target: Target) {
        self.task = Some(spawn_blocking(move || target.sync()));
    }

    /// What became of the sync, or never when none runs. An error is a panic: nobody knows what was synced, and
    /// the next sync would not tell.
    pub(super) async fn outcome(&mut self) -> Result<Synced, JoinError> {
        let Some(task) = &mut self.task else {
            return std::future::pending().await;
        };
        let synced = task.await;
        self.task = None;
        self.next = Instant::now() + SYNC_EVERY;
        synced
    }

    pub(super) const fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Is the trouble that the disk is full?
    pub(super) fn is_disk_full(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.is_full)
    }

    /// The disk took nothing; for how long it has not by now.
    pub(super) fn note_failure(&mut self, now: Instant, error: &io::Error) -> Duration {
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        self.trouble = Some(Trouble {
            since,
            is_full: full.contains(&error.kind()),
            has_written: false,
        });
        now.saturating_duration_since(since)
    }

    /// The disk took a piece.
    pub(super) const fn note_written(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.has_written = true;
        }
    }

    /// Pieces are durable; does that end a trouble?
    pub(super) fn note_durable(&mut self) -> bool {
        let over = self.trouble.take_if(|trouble| trouble.has_written);
        over.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sync_that_breaks_off_is_not_taken_for_one_that_is_done() {
        let mut syncing = Syncing::new(Instant::now());
        let breaking = || -> Synced { panic!("a test breaks it off") };
        syncing.task = Some(spawn_blocking(breaking));
        assert!(syncing.outcome().await.is_err() && !syncing.is_running());
        let failing = || -> Synced { Err((io::ErrorKind::StorageFull.into(), Vec::new())) };
        syncing.task = Some(spawn_blocking(failing));
        assert!(matches!(syncing.outcome().await, Ok(Err(_))));
    }
}
