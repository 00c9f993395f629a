//! A download that was begun: it runs, pauses, ends, and goes on at the next start when it did not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::download::{Downloads, Fetched};
use super::event::{DownloadError, Event};
use super::readers::Readers;
use super::transfers::{self, Aim, Handle, Joined, Order, Orders, Outcome, State};
use super::{Downloaded, Origin, Peer, Wanted};
use crate::wire::control::PublicationKind;

/// A download in its place in the queue; nothing is done before [`Begun::finish`].
#[must_use]
pub struct Begun {
    peer: Peer,
    wanted: Wanted,
    dir: PathBuf,
    begun: transfers::Begun,
}

/// The peer leaves: what is not done stays for the next start.
struct Leaving;

impl Peer {
    /// Downloads to the end; progress comes as events. Dropping the future keeps what came, for the next time.
    ///
    /// # Errors
    /// When no source delivers it, or it cannot be written.
    pub async fn download(&self, wanted: &Wanted) -> Result<Downloaded, DownloadError> {
        self.begin(wanted.clone()).finish().await
    }

    /// Takes its place in the queue. When the same is being downloaded to the same directory, it is waited for.
    pub fn begin(&self, wanted: Wanted) -> Begun {
        let inner = &self.0;
        let dir = wanted.directory.as_deref();
        let dir = dir.unwrap_or(&inner.settings.downloads).to_owned();
        let aim = Aim {
            file: wanted.file.clone(),
            from: wanted.from,
            dir: std::path::absolute(&dir).unwrap_or_else(|_| dir.clone()),
            is_restricted: wanted.is_restricted,
        };
        Begun {
            peer: self.clone(),
            begun: inner.transfers.begin(aim),
            wanted,
            dir,
        }
    }

    /// Goes on with what the last start has left.
    pub(super) async fn take_up_unfinished(&self) {
        let unfinished = self.0.keeper.unfinished.clone();
        let loaded = spawn_blocking(move || unfinished.load()).await;
        let loaded = loaded.unwrap_or_default();
        if let Some(text) = loaded.line {
            self.tell(Event::Warning { text });
        }
        let (mut running, mut paused) = (0, 0);
        for (id, record) in &loaded.records {
            *if record.is_paused {
                &mut paused
            } else {
                &mut running
            } += 1;
            let (handle, orders) = self.0.transfers.take_up(*id, record);
            let Aim {
                file,
                from,
                dir,
                is_restricted,
            } = record.aim();
            let begun = Begun {
                peer: self.clone(),
                wanted: Wanted {
                    file,
                    from,
                    directory: Some(dir.clone()),
                    waits: true,
                    origin: Origin::Resumed,
                    is_restricted,
                },
                dir,
                begun: transfers::Begun::New(handle, orders),
            };
            let events = self.0.keeper.events.clone();
            tokio::spawn(async move {
                let event = match begun.finish().await {
                    Ok(downloaded) => Event::Fetched(downloaded),
                    Err(DownloadError::Cancelled { .. }) => return,
                    Err(error) => Event::Warning {
                        text: error.to_string(),
                    },
                };
                let _ = events.send(event).await;
            });
        }
        if !loaded.records.is_empty() {
            self.tell(Event::TakenUp { running, paused });
        }
    }

    pub(super) fn tell(&self, event: Event) {
        let _ = self.0.keeper.events.try_send(event);
    }
}

impl Begun {
    /// Until it is there, or ends in another way.
    ///
    /// # Errors
    /// As [`Peer::download`].
    pub async fn finish(self) -> Result<Downloaded, DownloadError> {
        let Self {
            peer,
            wanted,
            dir,
            begun,
        } = self;
        let name = wanted.file.name.clone();
        let run = Run { peer, wanted, dir };
        let (handle, orders) = match begun {
            transfers::Begun::New(handle, orders) => (handle, orders),
            transfers::Begun::Joins(joined) => return run.join(joined).await,
            transfers::Begun::Blocked(id) => return Err(DownloadError::Busy { name, id }),
        };
        let Ok(ended) = run.steer(&handle, orders).await else {
            return Err(DownloadError::Cancelled { name });
        };
        handle.end(match &ended {
            Ok(downloaded) => Outcome::Done(Arc::new(downloaded.clone())),
            Err(DownloadError::Cancelled { .. }) => Outcome::Open,
            Err(_) => Outcome::Failed,
        });
        if ended.is_ok() {
            run.forget_done().await;
        }
        ended
    }
}

/// What a download works with while it is under way.
struct Run {
    peer: Peer,
    wanted: Wanted,
    dir: PathBuf,
}

impl Run {
    fn cancelled(&self) -> DownloadError {
        DownloadError::Cancelled {
            name: self.wanted.file.name.clone(),
        }
    }

    /// Another download brings it.
    async fn join(self, joined: Joined) -> Result<Downloaded, DownloadError> {
        let (id, file) = (joined.id, self.wanted.file.clone());
        let name = file.name.clone();
        let shown = self.peer.transfers().into_iter();
        let mut same = shown.filter(|transfer| transfer.id == id);
        let was_paused = same.any(|transfer| transfer.state == State::Paused);
        if was_paused {
            // Whoever asks for it wants it.
            let _ = self.peer.order(id, Order::Run);
        }
        self.peer.tell(Event::Joined {
            name: name.clone(),
            id,
            was_paused,
        });
        let ended = tokio::select! {
            () = self.peer.0.shutdown.cancelled() => Outcome::Open,
            ended = joined.end() => ended,
        };
        match ended {
            Outcome::Done(done) => Ok(Downloaded {
                file,
                fetched: 0,
                elapsed: Duration::ZERO,
                sources: 0,
                brought_by: Some(id),
                ..Downloaded::clone(&done)
            }),
            Outcome::Failed => Err(DownloadError::OtherFailed { name, id }),
            Outcome::Open => Err(self.cancelled()),
        }
    }

    /// Fetches when it shall, and lets go when it shall not.
    async fn steer(
        &self,
        handle: &Handle,
        mut orders: Orders,
    ) -> Result<Result<Downloaded, DownloadError>, Leaving> {
        let shutdown = &self.peer.0.shutdown;
        let mut wanted = self.wanted.clone();
        loop {
            if orders.current() == Order::Run {
                tokio::select! {
                    () = shutdown.cancelled() => return Err(Leaving),
                    () = handle.until_let_go(&mut orders) => {}
                    done = self.fetch(&wanted, handle) => {
                        handle.settle().await;
                        return Ok(done);
                    }
                }
                // What it was doing with the disk is over before the next one looks at what is there.
                handle.settle().await;
            }
            if orders.current() == Order::Pause {
                handle.pause();
                wanted.origin = Origin::Resumed;
                tokio::select! {
                    () = shutdown.cancelled() => return Err(Leaving),
                    _ = orders.until_other_than(Order::Pause) => {}
                }
            }
            if orders.current() == Order::Cancel {
                Downloads::discard(&wanted, &self.dir).await;
                return Ok(Err(self.cancelled()));
            }
        }
    }

    async fn fetch(&self, wanted: &Wanted, handle: &Handle) -> Result<Downloaded, DownloadError> {
        let _place = handle.place().await;
        let (dir, inner): (&Path, _) = (&self.dir, &self.peer.0);
        let readers = if wanted.is_restricted {
            Readers::Nobody
        } else {
            Readers::Everybody
        };
        if wanted.file.kind == PublicationKind::Folder {
            let downloaded = inner.downloads.fetch_folder(wanted, dir, handle).await?;
            if inner.settings.seed {
                let (keeper, path) = (inner.keeper.clone(), downloaded.path.clone());
                let file = downloaded.file.clone();
                // Nobody waits for it: all of it is hashed once more.
                tokio::spawn(async move { keeper.adopt_folder(&path, &file, readers).await });
            }
            return Ok(downloaded);
        }
        let Fetched {
            downloaded,
            tree,
            announcement,
        } = inner.downloads.fetch(wanted, dir, handle).await?;
        if inner.settings.seed {
            let (path, file) = (downloaded.path.clone(), downloaded.file.clone());
            inner.keeper.adopt(&path, file, tree, readers).await;
        }
        drop(announcement);
        Ok(downloaded)
    }

    /// Whoever has one thing to do may have done what an earlier peer has left.
    async fn forget_done(&self) {
        let unfinished = self.peer.0.keeper.unfinished.clone();
        let aim = Aim {
            file: self.wanted.file.clone(),
            from: None,
            dir: std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone()),
            is_restricted: self.wanted.is_restricted,
        };
        let _ = spawn_blocking(move || unfinished.forget_done(&aim)).await;
    }
}
