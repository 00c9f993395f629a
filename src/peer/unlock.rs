//! Opens a locked file beside itself: what comes out has a name only when all of it was right.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::hashing::{explain, open_plain};
use super::name::name_by;
use super::store::{StoreError, check_space};
use crate::crypto::lock::{self, LockError};
use crate::disk::{self, Nameless};
use crate::wire::password::Password;

/// What the name of a locked file ends in.
pub const SUFFIX: &str = ".age";
/// What is put behind a name that does not.
const OPENED: &str = ".unlocked";
/// One guess takes up to 1 GiB: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Why a locked file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// Another password opens it.
    #[error("wrong password for {}", .0.display())]
    WrongPassword(PathBuf),
    /// It is not one that a password opens, or not as it was made.
    #[error("{} {reason}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// It cannot be read, or what is in it cannot be written.
    #[error("cannot unlock {}: {reason}", path.display())]
    Local {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nobody waited for it.
    #[error("{} was not unlocked: cancelled", .0.display())]
    Cancelled(PathBuf),
}

/// A file of which the password is known.
pub struct Opened {
    path: PathBuf,
    len: u64,
    plain: lock::Unlocked<Box<dyn Read + Send>>,
    given_up: CancellationToken,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes.
    pub len: u64,
}

/// Tries `password` at the file at `path`. Blocking, for up to some seconds.
///
/// # Errors
/// When it is wrong, or the file is none that it could open.
pub fn open(
    path: &Path,
    password: &Password,
    given_up: &CancellationToken,
) -> Result<Opened, UnlockError> {
    let unread = |error: &io::Error| local(path, explain(error));
    // A link to a file is as good as the file.
    let real = path.canonicalize().map_err(|error| unread(&error))?;
    let file = open_plain(&real).map_err(|error| unread(&error))?;
    let len = file.metadata().map_err(|error| unread(&error))?.len();
    let waited = Waited {
        from: file,
        given_up: given_up.clone(),
    };
    let unfit = |error| meaning(path, error, given_up);
    let locked = lock::Locked::read(io::BufReader::new(waited)).map_err(unfit)?;
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let plain = locked.unlock(password).map_err(unfit)?;
    drop(turn);
    Ok(Opened {
        path: path.to_owned(),
        len,
        plain: plain.boxed(),
        given_up: given_up.clone(),
    })
}

impl Opened {
    /// Writes what is in it beside the file, under the name that it had. Blocking, for as long as it is large.
    ///
    /// # Errors
    /// When it was cut off or changed, or the disk fails; nothing is left then.
    pub fn save(self) -> Result<Plain, UnlockError> {
        let Self {
            path,
            len,
            plain,
            given_up,
        } = self;
        let dir = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        check_space(dir, len).map_err(|error| local(dir, error.reason))?;
        let failed = |error: &io::Error| local(dir, StoreError::new(dir, error).reason);
        let mut new = Nameless::create(dir).map_err(|error| failed(&error))?;
        let len = plain
            .copy_to(new.file())
            .map_err(|error| meaning(&path, error, &given_up))?;
        disk::make_public(new.file(), 0o666);
        let synced = new.file().sync_all();
        synced.map_err(|error| failed(&error))?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let named = name_by(
            dir,
            ("", &plain_name(&file_name)),
            StoreError::new,
            |name| new.name(name),
        );
        let path = named.map_err(|error| local(&error.path, error.reason))?;
        disk::sync_dir(dir).map_err(|error| failed(&error))?;
        Ok(Plain { path, len })
    }

    /// Writes what is in it to `to`; some of it may have been written when it turns out that more is missing.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn copy_to(self, to: impl Write) -> Result<u64, UnlockError> {
        let copied = self.plain.copy_to(to);
        copied.map_err(|error| meaning(&self.path, error, &self.given_up))
    }
}

/// The name of what is in the locked file of this name.
fn plain_name(name: &str) -> String {
    // What was numbered, since the name was taken, has its number behind all of it.
    let (stem, number) = match name.rfind(" (") {
        Some(at) if name.ends_with(')') => name.split_at(at),
        _ => (name, ""),
    };
    match stem.strip_suffix(SUFFIX).filter(|stem| !stem.is_empty()) {
        Some(stem) => format!("{stem}{number}"),
        None => format!("{name}{OPENED}"),
    }
}

fn meaning(path: &Path, error: LockError, given_up: &CancellationToken) -> UnlockError {
    match error {
        LockError::Read(_) if given_up.is_cancelled() => UnlockError::Cancelled(path.to_owned()),
        LockError::Read(error) | LockError::Write(error) => {
            local(path, StoreError::new(path, &error).reason)
        }
        LockError::WrongPassword => UnlockError::WrongPassword(path.to_owned()),
        other => UnlockError::Unfit {
            path: path.to_owned(),
            reason: other.to_string(),
        },
    }
}

fn local(path: &Path, reason: String) -> UnlockError {
    UnlockError::Local {
        path: path.to_owned(),
        reason,
    }
}

/// Reads as long as somebody waits.
pub(super) struct Waited<R> {
    pub(super) from: R,
    pub(super) given_up: CancellationToken,
}

impl<R: Read> Read for Waited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given_up.is_cancelled() {
            return Err(io::Error::other("nobody waits for it"));
        }
        self.from.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = dir.read_dir().unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_locked_comes_out_under_its_name_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let password = Password::parse("open sesame").unwrap();
        let (path, waiting) = (dir.path().join("x.age"), CancellationToken::new());
        let mut sealed = Vec::new();
        lock::seal(&password, &b"plain"[..], &mut sealed).unwrap();
        std::fs::write(&path, &sealed).unwrap();
        std::fs::write(dir.path().join("x"), "old").unwrap();
        let wrong = Password::parse("wrong").unwrap();
        let error = open(&path, &wrong, &waiting).err().unwrap();
        assert!(matches!(error, UnlockError::WrongPassword(_)), "{error}");
        let done = open(&path, &password, &waiting).unwrap().save().unwrap();
        assert_eq!(done.path, dir.path().join("x (2)"));
        assert_eq!(std::fs::read(&done.path).unwrap(), b"plain");
        assert_eq!(names(dir.path()), ["x", "x (2)", "x.age"]);
        // Cut between its header and its end: the password is right, and nothing comes out.
        std::fs::write(&path, &sealed[..sealed.len() - 1]).unwrap();
        let error = open(&path, &password, &waiting)
            .unwrap()
            .save()
            .unwrap_err();
        assert!(matches!(error, UnlockError::Unfit { .. }), "{error}");
        std::fs::write(&path, &sealed).unwrap();
        let opened = open(&path, &password, &waiting).unwrap();
        waiting.cancel();
        let cancelled = opened.save().err();
        assert!(!matches!(cancelled, Some(UnlockError::Unfit { .. })));
        assert!(names(dir.path()).starts_with(&["x".into(), "x (2)".into()]));
    }

    #[test]
    fn the_name_of_what_comes_out_is_the_one_that_went_in() {
        for (locked, plain) in [
            ("downloaded_x.pdf.age", "downloaded_x.pdf"),
            ("downloaded_x.pdf.age (2)", "downloaded_x.pdf (2)"),
            ("x (1).age", "x (1)"),
            ("x", "x.unlocked"),
            ("x (2)", "x (2).unlocked"),
            (".age", ".age.unlocked"),
        ] {
            assert_eq!(plain_name(locked), plain);
        }
    }
}
