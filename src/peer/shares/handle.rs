//! What a peer can be asked to do about shares.

use std::path::Path;
use std::time::Duration;

use super::Serving;
use crate::peer::locker::{LockedCopy, Locker};
use crate::peer::readers::{Reader, Readers};
use crate::peer::{Peer, RequestError, Restart, ShareError, Shared};
use crate::wire::id::ContentId;
use crate::wire::text::FileName;

impl Peer {
    /// Hashes the file or folder at `path` and publishes it for `readers`, under its own name or `name`.
    ///
    /// # Errors
    /// When it cannot be read, or the tracker does not take it; it is then announced later.
    pub async fn share(
        &self,
        path: &Path,
        name: Option<FileName>,
        readers: Readers,
    ) -> Result<Shared, ShareError> {
        let shared = self.0.keeper.share(path, name, readers).await?;
        self.0.keeper.stay(&shared);
        Ok(shared)
    }

    /// The same, until `time` has passed or this peer ends: the next start does not share it again.
    ///
    /// # Errors
    /// As [`Self::share`].
    pub async fn share_for(
        &self,
        path: &Path,
        name: Option<FileName>,
        readers: Readers,
        time: Duration,
    ) -> Result<Shared, ShareError> {
        let shared = self.0.keeper.share(path, name, readers).await?;
        let shutdown = self.0.shutdown.clone();
        self.0.keeper.pass(shared.clone(), time, shutdown);
        Ok(shared)
    }

    /// Where locked copies are.
    #[must_use]
    pub fn locker(&self) -> &Locker {
        &self.0.keeper.locker
    }

    /// Publishes a locked copy of the file at `path`, under its own name or `name`, in the place of what was shared
    /// of it: for good, or for this time.
    ///
    /// # Errors
    /// As [`Self::share`].
    pub async fn share_locked(
        &self,
        path: &Path,
        name: Option<FileName>,
        readers: Readers,
        copy: LockedCopy,
        time: Option<Duration>,
    ) -> Result<Shared, ShareError> {
        let keeper = &self.0.keeper;
        let shared = keeper.share_locked(path, name, readers, copy).await?;
        match time {
            None => self.0.keeper.stay(&shared),
            Some(time) => {
                let shutdown = self.0.shutdown.clone();
                self.0.keeper.pass(shared.clone(), time, shutdown);
            }
        }
        Ok(shared)
    }

    /// Opens something that we share, if it is still the same. Blocking.
    #[must_use]
    pub fn open_share(&self, content: &ContentId) -> Option<Serving> {
        self.0.keeper.shares.open(content, Reader::Own)
    }

    /// Is what was downloaded shared on, also after the next start?
    #[must_use]
    pub fn shares_on(&self) -> bool {
        self.0.settings.seed && self.0.settings.restart == Restart::Restores
    }

    /// Withdraws what `selects`; returns it.
    ///
    /// # Errors
    /// When the tracker does not answer; nothing of it is served any more all the same.
    pub async fn unshare(
        &self,
        selects: impl Fn(&Shared) -> bool,
    ) -> Result<Vec<Shared>, RequestError> {
        self.0.keeper.unshare(selects).await
    }

    /// What we share, by name; also what was shared at the last start and is still being read.
    #[must_use]
    pub fn shares(&self) -> Vec<Shared> {
        self.0.keeper.shares.list_all()
    }
}
