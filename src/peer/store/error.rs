//! Why a file cannot be written, and what that means to a person.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is nothing left to write to.
pub const PART_IS_GONE: &str = "somebody removed what was there of it; download it again";

/// Why a file cannot be written. The words follow "cannot write PATH:".
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct StoreError {
    /// File or directory.
    pub path: PathBuf,
    /// Why, and what to do.
    pub reason: String,
    /// Nothing that passes by itself.
    pub is_lasting: bool,
}

impl StoreError {
    /// What the system said of `path`.
    #[must_use]
    pub fn new(path: &Path, error: &io::Error) -> Self {
        Self {
            path: path.to_owned(),
            reason: explain(error),
            is_lasting: is_lasting(error),
        }
    }

    /// Is there nothing left to write to, so that waiting is of no use?
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.reason == PART_IS_GONE
    }

    /// Something that does not pass by itself.
    #[must_use]
    pub fn lasting(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.into(),
            is_lasting: true,
        }
    }
}

/// Is this more than a disk that is full or fails for a while?
#[must_use]
pub fn is_lasting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::FileTooLarge
    )
}

/// What the system's no means to a person.
#[must_use]
pub fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such directory".to_owned(),
        io::ErrorKind::NotADirectory => "it is not a directory".to_owned(),
        io::ErrorKind::PermissionDenied => "it is not yours to write to".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "it is on a read-only file system".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        io::ErrorKind::QuotaExceeded => "your quota is used up".to_owned(),
        io::ErrorKind::FileTooLarge => "files may not become so large there".to_owned(),
        _ => error.to_string(),
    }
}
