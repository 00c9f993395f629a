//! Reads the file of users again when it changed, or when SIGHUP says so.
//!
//! A version that cannot be used leaves the one before in force, with one line. One that names nobody puts
//! everybody out: that is what taking out the last user means. It has to be the same at two looks, or SIGHUP
//! has to say so, for a file that is just being written is empty for a moment, too.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::credentials::{CredentialsError, Users, read, report};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What tells one version of a file from another: device, inode, length, mode, and both times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([i64; 8]);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some(Stamp([
        found.dev().cast_signed(),
        found.ino().cast_signed(),
        found.len().cast_signed(),
        i64::from(found.mode()),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ]))
}

/// The file, as it was when it was read last.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
    /// It named nobody when it was seen last.
    may_be_empty: bool,
    /// Heard from the first on: who says SIGHUP right after the start must not end the tracker.
    hangups: Option<Signal>,
}

impl Watched {
    /// To be called before the file is read: what changes after that is noticed.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let seen = stamp(&path);
        let hangups = signal(SignalKind::hangup())
            .inspect_err(|error| warn!(%error, "SIGHUP is not heard"))
            .ok();
        Self {
            path,
            seen,
            may_be_empty: false,
            hangups,
        }
    }

    /// Reads the file when it changed, or in any case when `is_asked`; `None` when the users stay.
    fn look(&mut self, is_asked: bool) -> Option<Users> {
        let now = stamp(&self.path);
        let is_same = now == self.seen;
        if is_same && !is_asked && !self.may_be_empty {
            return None;
        }
        let was_empty = std::mem::take(&mut self.may_be_empty);
        self.seen = now;
        match read(&self.path) {
            Err(CredentialsError::Empty(path)) if is_asked || (is_same && was_empty) => {
                warn!(
                    "{} names nobody: nobody can log in any more",
                    path.display()
                );
                Some(Users::default())
            }
            Err(CredentialsError::Empty(_)) => {
                self.may_be_empty = true;
                None
            }
            Ok((users, skipped)) => {
                report(&self.path, &skipped);
                info!(users = users.len(), "credentials read again");
                Some(users)
            }
            Err(error) => {
                warn!("{error}; the users of before stay");
                None
            }
        }
    }

    /// Looks until `shutdown`, and tells `changed` new users.
    pub async fn run(mut self, changed: mpsc::Sender<Users>, shutdown: CancellationToken) {
        let mut hangups = self.hangups.take();
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            let is_asked = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = hangup => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let looking = tokio::task::spawn_blocking(move || {
                let users = self.look(is_asked);
                (self, users)
            });
            let Ok((watched, users)) = looking.await else {
                return;
            };
            self = watched;
            if let Some(users) = users
                && changed.send(users).await.is_err()
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write_private;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$O5EH4ljNFKZ/INmDTO5lGg$zYqv0s5Cvo/mQvWPeXeT+hT4KJlQ99QSrp5U249Rz2c";

    #[tokio::test]
    async fn a_broken_version_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        write_private(&path, format!("ana:{HASH}\n").as_bytes()).unwrap();
        let mut watched = Watched::new(path.clone());
        assert!(watched.look(false).is_none(), "nothing changed");
        assert_eq!(watched.look(true).unwrap().len(), 1, "but it was asked");
        write_private(&path, format!("ana:{HASH}\nbob:{HASH}\n").as_bytes()).unwrap();
        assert_eq!(watched.look(false).unwrap().len(), 2);
        assert!(watched.look(false).is_none());
        write_private(&path, b"garbage\n").unwrap();
        assert!(watched.look(false).is_none() && watched.look(true).is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(watched.look(false).is_none(), "it is gone");
        write_private(&path, format!("bob:{HASH}\n").as_bytes()).unwrap();
        assert_eq!(watched.look(false).unwrap().len(), 1, "and back");
    }

    #[tokio::test]
    async fn a_file_that_names_nobody_counts_when_it_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let full = format!("ana:{HASH}\n");
        write_private(&path, full.as_bytes()).unwrap();
        let mut watched = Watched::new(path.clone());
        write_private(&path, b"# users\n").unwrap();
        assert!(watched.look(false).is_none(), "it may be half written");
        write_private(&path, full.as_bytes()).unwrap();
        assert_eq!(watched.look(false).unwrap().len(), 1, "and it was");
        write_private(&path, b"").unwrap();
        assert!(watched.look(false).is_none());
        write_private(&path, b"# ours\n").unwrap();
        assert!(watched.look(false).is_none(), "another one");
        assert!(watched.look(false).unwrap().is_empty(), "the same twice");
        assert!(watched.look(false).is_none(), "told once");
        write_private(&path, full.as_bytes()).unwrap();
        assert_eq!(watched.look(false).unwrap().len(), 1);
        write_private(&path, b"").unwrap();
        assert!(watched.look(true).unwrap().is_empty(), "SIGHUP says so");
    }
}
