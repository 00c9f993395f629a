//! Locked copies of files that are shared: made in a private folder, and gone with their share.
//!
//! What is shared of a locked file is such a copy; the file itself is never served. A copy is written under a
//! hidden name and holds nothing but what is sealed already. It is held by a lock of the system until it is a
//! share, so that whoever cleans up at a start leaves it alone.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use data_encoding::HEXLOWER;
use tokio_util::sync::CancellationToken;

use super::event::ShareError;
use super::hashing::{Stamp, explain, open_plain};
use super::shares::Shared;
use super::store::check_space;
use super::unlock::Waited;
use super::walk::KEYS;
use crate::crypto::lock::{LockError, seal, sealed_len};
use crate::crypto::random::{OsRandom, random_bytes};
use crate::disk;
use crate::keyfile::holds_keys;
use crate::wire::password::Password;

/// Where copies lie, in the state directory.
const DIR: &str = "locked";
/// What names of copies end in; of those that are being made, too.
const SUFFIX: &str = ".age";

/// The folder; cheap to clone.
#[derive(Clone, Debug)]
pub struct Locker(Arc<Place>);

#[derive(Debug)]
enum Place {
    /// In the state directory.
    Kept(PathBuf),
    /// For as long as this lives.
    Passing(OnceLock<tempfile::TempDir>),
}

/// A locked copy of a file; gone when this is dropped, unless it was [kept](LockedCopy::keep).
#[derive(Debug)]
pub struct LockedCopy {
    path: PathBuf,
    /// Locked as long as nobody else needs the copy.
    _file: File,
    is_kept: bool,
}

impl LockedCopy {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It is shared, or somebody else answers for it.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for LockedCopy {
    fn drop(&mut self) {
        if !self.is_kept {
            disk::remove(&self.path);
        }
    }
}

impl Locker {
    /// In this state directory, or in a folder for the life of this process.
    #[must_use]
    pub fn new(state_dir: Option<&Path>) -> Self {
        let place = match state_dir {
            Some(dir) => Place::Kept(dir.join(DIR)),
            None => Place::Passing(OnceLock::new()),
        };
        Self(Arc::new(place))
    }

    /// The folder, which is made at first use.
    fn dir(&self) -> io::Result<PathBuf> {
        match &*self.0 {
            Place::Kept(dir) => {
                disk::create_private_dir(dir)?;
                dir.canonicalize()
            }
            Place::Passing(made) => {
                if made.get().is_none() {
                    let new = tempfile::Builder::new()
                        .prefix("p2pfs-locked-")
                        .permissions(std::fs::Permissions::from_mode(0o700))
                        .tempdir()?;
                    // Somebody else may have been faster.
                    drop(made.set(new));
                }
                let dir = made.get().ok_or_else(|| io::Error::other("it is gone"))?;
                dir.path().canonicalize()
            }
        }
    }

    /// Locks what lies at `path` with `password`. Blocking, for as long as the file is large; gives up when
    /// nobody waits for it.
    ///
    /// # Errors
    /// When it is no file, cannot be read, changes meanwhile, or the disk does not take the copy.
    pub fn lock(
        &self,
        path: &Path,
        password: &Password,
        given_up: &CancellationToken,
    ) -> Result<LockedCopy, String> {
        let real = path.canonicalize().map_err(|error| explain(&error))?;
        if real.is_dir() {
            return Err("a folder cannot be locked; lock its files, or pack it before".to_owned());
        }
        if real.parent().is_some_and(holds_keys) {
            return Err(KEYS.to_owned());
        }
        let file = open_plain(&real).map_err(|error| explain(&error))?;
        let found = file.metadata().map_err(|error| explain(&error))?;
        let before = Stamp::of(&found);
        let unmade = |error: &io::Error| format!("its locked copy cannot be made: {error}");
        let dir = self.dir().map_err(|error| unmade(&error))?;
        check_space(&dir, sealed_len(found.len())).map_err(|error| {
            let dir = dir.display();
            format!("its locked copy does not fit into {dir}: {}", error.reason)
        })?;
        let name = HEXLOWER.encode(&random_bytes::<16>(&mut OsRandom::new())) + SUFFIX;
        let new = disk::create_new(&dir, &name).map_err(|error| unmade(&error))?;
        let copy = LockedCopy {
            path: dir.join(name),
            _file: new.try_clone().map_err(|error| unmade(&error))?,
            is_kept: false,
        };
        new.try_lock().map_err(|error| unmade(&error.into()))?;
        let reading = Waited {
            from: &file,
            given_up: given_up.clone(),
        };
        seal(password, reading, &new).map_err(|error| match error {
            LockError::Read(_) if given_up.is_cancelled() => "it was cancelled".to_owned(),
            LockError::Read(error) => explain(&error),
            LockError::Write(error) => unmade(&error),
            other => format!("it {other}"),
        })?;
        let after = file.metadata().map(|found| Stamp::of(&found));
        if !after.is_ok_and(|after| after.has_bytes_of(&before)) {
            return Err("it changed while it was locked; try again".to_owned());
        }
        let synced = new.sync_all().and_then(|()| disk::sync_dir(&dir));
        synced.map_err(|error| unmade(&error))?;
        Ok(copy)
    }

    /// The same on a thread that may wait; dropping the future gives up.
    ///
    /// # Errors
    /// As [`Self::lock`].
    pub async fn make(&self, path: &Path, password: Password) -> Result<LockedCopy, ShareError> {
        let (own, path) = (self.clone(), path.to_owned());
        let given_up = CancellationToken::new();
        let _until = given_up.clone().drop_guard();
        let file = path.clone();
        let locking = move || own.lock(&file, &password, &given_up);
        let locked = tokio::task::spawn_blocking(locking).await;
        let locked = locked.unwrap_or_else(|error| Err(error.to_string()));
        locked.map_err(|reason| ShareError::Local { path, reason })
    }

    /// A copy that another process of ours has made here; `None` when it lies elsewhere. Blocking.
    #[must_use]
    pub fn take(&self, path: &Path) -> Option<LockedCopy> {
        let real = path.canonicalize().ok()?;
        let is_ours = self.is_here(&real) && path.is_absolute();
        let _file = is_ours.then(|| open_plain(&real).ok()).flatten()?;
        Some(LockedCopy {
            path: real,
            _file,
            is_kept: false,
        })
    }

    /// Removes the copy of a share that is none any more. Blocking.
    pub fn discard(&self, gone: &Shared) {
        if gone.is_locked_copy() && self.is_here(&gone.real) {
            disk::remove(&gone.real);
        }
    }

    /// Removes copies that belong to none of these shares: of earlier starts, which were killed, or shared
    /// something for a time. Blocking.
    pub fn clean(&self, shared: &[Shared]) {
        let Place::Kept(dir) = &*self.0 else { return };
        // Before the first locked file there is none.
        let Ok(dir) = dir.canonicalize() else { return };
        let used: HashSet<&Path> = shared.iter().map(|shared| shared.real.as_path()).collect();
        for entry in dir.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            let is_copy = path.extension().is_some_and(|end| end == &SUFFIX[1..]);
            if !is_copy || used.contains(path.as_path()) {
                continue;
            }
            // One that is being made is held.
            if open_plain(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                disk::remove(&path);
            }
        }
    }

    fn is_here(&self, real: &Path) -> bool {
        let dir = self.dir().ok();
        let is_copy = real.extension().is_some_and(|end| end == &SUFFIX[1..]);
        is_copy && dir.is_some() && real.parent() == dir.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::shares::Contents;
    use crate::wire::control::{Publication, PublicationKind};
    use crate::wire::id::ContentId;

    fn password() -> Password {
        Password::parse("open sesame").unwrap()
    }

    fn shared(copy: &LockedCopy) -> Shared {
        Shared {
            file: Publication {
                name: "x".parse().unwrap(),
                content: ContentId([1; 32]),
                len: 1,
                kind: PublicationKind::LockedFile,
            },
            path: "/elsewhere/x".into(),
            real: copy.path().to_owned(),
            is_download: false,
            readers: crate::peer::Readers::Everybody,
            contents: Contents::default(),
        }
    }

    #[test]
    fn a_copy_is_sealed_private_and_gone_with_its_share() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("x");
        std::fs::write(&plain, "some very plain text").unwrap();
        for state in [Some(dir.path()), None] {
            let locker = Locker::new(state);
            let waiting = CancellationToken::new();
            let copy = locker.lock(&plain, &password(), &waiting).unwrap();
            let bytes = std::fs::read(copy.path()).unwrap();
            assert!(bytes.starts_with(b"age-encryption.org/v1\n"));
            assert!(!bytes.windows(5).any(|bytes| bytes == b"plain"));
            let folder = copy.path().parent().unwrap().to_owned();
            let mode = folder.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o}");
            let (share, path) = (shared(&copy), copy.path().to_owned());
            copy.keep();
            locker.clean(std::slice::from_ref(&share));
            assert!(path.exists());
            locker.discard(&Shared {
                is_download: true,
                ..share.clone()
            });
            assert!(path.exists(), "a download is nobody's copy");
            locker.discard(&share);
            assert!(!path.exists());
            let dropped = locker.lock(&plain, &password(), &waiting).unwrap();
            let path = dropped.path().to_owned();
            drop(dropped);
            assert!(!path.exists(), "what became no share is gone");
            drop(locker);
            assert_eq!(folder.exists(), state.is_some());
        }
    }

    #[test]
    fn copies_of_nothing_are_cleaned_away_and_what_is_being_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("x");
        std::fs::write(&plain, "text").unwrap();
        let locker = Locker::new(Some(dir.path()));
        locker.clean(&[]);
        let waiting = CancellationToken::new();
        let held = locker.lock(&plain, &password(), &waiting).unwrap();
        let orphan = dir.path().join(DIR).join("0011.age");
        let other = dir.path().join(DIR).join("notes.txt");
        for path in [&orphan, &other] {
            std::fs::write(path, "x").unwrap();
        }
        locker.clean(&[]);
        assert!(held.path().exists() && other.exists() && !orphan.exists());
    }

    #[test]
    fn nothing_is_locked_that_lies_where_keys_are() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = state.path().join("link");
        for name in ["identity.key", "x"] {
            std::fs::write(dir.path().join(name), "secret").unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("identity.key"), &link).unwrap();
        let (locker, waiting) = (Locker::new(Some(state.path())), CancellationToken::new());
        for path in [dir.path().join("identity.key"), dir.path().join("x"), link] {
            let refused = locker.lock(&path, &password(), &waiting).unwrap_err();
            assert_eq!(refused, KEYS);
        }
        assert!(!state.path().join(DIR).exists(), "nothing was sealed");
    }

    #[test]
    fn only_files_are_locked_and_only_copies_of_ours_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let locker = Locker::new(Some(dir.path()));
        let waiting = CancellationToken::new();
        let refused = locker.lock(dir.path(), &password(), &waiting).unwrap_err();
        assert!(refused.contains("folder cannot be locked"), "{refused}");
        let plain = dir.path().join("x.age");
        std::fs::write(&plain, "text").unwrap();
        let locked = locker.lock(&plain, &password(), &waiting).unwrap();
        assert!(locker.take(locked.path()).is_some());
        assert!(!locked.path().exists(), "whoever took it answered for it");
        assert!(locker.take(&plain).is_none());
        let way_out = dir.path().join(DIR).join("../x.age");
        assert!(locker.take(&way_out).is_none() && plain.exists());
        waiting.cancel();
        let refused = locker.lock(&plain, &password(), &waiting).unwrap_err();
        assert!(refused.contains("cancelled"), "{refused}");
        assert_eq!(dir.path().join(DIR).read_dir().unwrap().count(), 0);
    }
}
