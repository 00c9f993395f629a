//! What this peer offers: add, hash, notice a change, remove.
//!
//! A file is served as long as it is the file that was hashed: same length, time of change and inode.
//! One that changed is withdrawn, with a line; its old id never names other bytes.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::event::ShareError;
use crate::crypto::content::{Tree, hash_piece};
use crate::wire::control::{Publication, PublicationKind};
use crate::wire::id::ContentId;
use crate::wire::pieces::Layout;
use crate::wire::text::FileName;

/// A file that we share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Name, id and length, as others see them.
    pub file: Publication,
    /// Where it lies.
    pub path: PathBuf,
}

/// A share that had to be taken back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// What it was.
    pub shared: Shared,
    /// What happened to it.
    pub reason: String,
}

/// By name and content: two contents may bear one name.
type Entries = BTreeMap<(FileName, ContentId), Arc<Entry>>;

/// All shares of a peer; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares {
    entries: Arc<Mutex<Entries>>,
    withdrawn: mpsc::UnboundedSender<Withdrawn>,
}

#[derive(Debug)]
struct Entry {
    shared: Shared,
    stamp: Stamp,
    tree: Arc<Tree>,
}

/// What tells that a file is still the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            inode: (found.dev(), found.ino()),
        }
    }
}

/// A shared file, open for serving.
#[derive(Debug)]
pub struct Serving {
    entry: Arc<Entry>,
    file: File,
    shares: Shares,
}

/// The file is not what it was; it has been withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file is here no longer")]
pub struct Gone;

impl Shares {
    /// Nothing is shared; what has to be withdrawn later is told through the receiver.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Withdrawn>) {
        let (withdrawn, receiver) = mpsc::unbounded_channel();
        (
            Self {
                entries: Arc::default(),
                withdrawn,
            },
            receiver,
        )
    }

    /// Hashes the file at `path` and offers it, under its own name or `name`.
    ///
    /// # Errors
    /// When it is no plain file, cannot be read, or changes meanwhile.
    pub async fn add(&self, path: &Path, name: Option<FileName>) -> Result<Shared, ShareError> {
        let path = path.to_owned();
        let hashing = tokio::task::spawn_blocking(move || hash_file(&path, name));
        let entry = hashing.await.unwrap_or_else(|error| {
            Err(ShareError::Local {
                path: PathBuf::new(),
                reason: error.to_string(),
            })
        })?;
        let shared = entry.shared.clone();
        let key = (shared.file.name.clone(), shared.file.content);
        self.entries().insert(key, Arc::new(entry));
        Ok(shared)
    }

    /// Offers the file at `path`, whose hashes are known: it was verified piece by piece as it came. Blocking.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn adopt(&self, path: &Path, file: Publication, tree: Tree) -> Result<Shared, ShareError> {
        let fail = |error: io::Error| ShareError::Local {
            path: path.to_owned(),
            reason: explain(&error),
        };
        let path = std::path::absolute(path).map_err(fail)?;
        let stamp = Stamp::of(
            &open_plain(&path)
                .and_then(|file| file.metadata())
                .map_err(fail)?,
        );
        let shared = Shared { file, path };
        let key = (shared.file.name.clone(), shared.file.content);
        let entry = Entry {
            shared: shared.clone(),
            stamp,
            tree: Arc::new(tree),
        };
        self.entries().insert(key, Arc::new(entry));
        Ok(shared)
    }

    /// Is this offered?
    #[must_use]
    pub fn has(&self, file: &Publication) -> bool {
        self.entries()
            .contains_key(&(file.name.clone(), file.content))
    }

    /// Takes back what is selected; returns it.
    pub fn remove(&self, selects: impl Fn(&Shared) -> bool) -> Vec<Shared> {
        let mut entries = self.entries();
        let gone = entries.extract_if(.., |_, entry| selects(&entry.shared));
        gone.map(|(_, entry)| entry.shared.clone()).collect()
    }

    /// What is offered, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Shared> {
        self.entries()
            .values()
            .map(|entry| entry.shared.clone())
            .collect()
    }

    /// Opens a file with this content, if one is offered and still the same. Blocking.
    #[must_use]
    pub fn open(&self, content: &ContentId) -> Option<Serving> {
        let candidates: Vec<_> = self
            .entries()
            .values()
            .filter(|entry| entry.shared.file.content == *content)
            .cloned()
            .collect();
        candidates
            .into_iter()
            .find_map(|entry| match open_plain(&entry.shared.path) {
                Ok(file) => {
                    let serving = Serving {
                        entry,
                        file,
                        shares: self.clone(),
                    };
                    serving.check().is_ok().then_some(serving)
                }
                Err(error) => {
                    self.withdraw(&entry, error.to_string());
                    None
                }
            })
    }

    fn withdraw(&self, entry: &Entry, reason: String) {
        let key = (entry.shared.file.name.clone(), entry.shared.file.content);
        if self.entries().remove(&key).is_some() {
            let _ = self.withdrawn.send(Withdrawn {
                shared: entry.shared.clone(),
                reason,
            });
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serving {
    /// The hashes of the file.
    #[must_use]
    pub fn tree(&self) -> &Arc<Tree> {
        &self.entry.tree
    }

    /// Reads exactly `bytes.len()` bytes from `offset` on. Blocking.
    ///
    /// # Errors
    /// When the file is not what it was.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), Gone> {
        self.file.read_exact_at(bytes, offset).map_err(|error| {
            if is_lasting(&error) {
                self.shares.withdraw(&self.entry, explain(&error));
            }
            Gone
        })
    }

    /// Is it still the file that was hashed? Asked for each piece, so that a changed file is noticed
    /// before its bytes are taken for wrong ones.
    ///
    /// # Errors
    /// When it is not, or is offered no longer.
    pub fn check(&self) -> Result<(), Gone> {
        let is_same = self
            .file
            .metadata()
            .is_ok_and(|found| Stamp::of(&found) == self.entry.stamp);
        if !is_same {
            self.shares
                .withdraw(&self.entry, "it changed on disk".to_owned());
        }
        let key = (
            self.entry.shared.file.name.clone(),
            self.entry.shared.file.content,
        );
        let is_offered = self
            .shares
            .entries()
            .get(&key)
            .is_some_and(|entry| Arc::ptr_eq(entry, &self.entry));
        if is_same && is_offered {
            Ok(())
        } else {
            Err(Gone)
        }
    }
}

fn hash_file(path: &Path, name: Option<FileName>) -> Result<Entry, ShareError> {
    let fail = |reason: &str| ShareError::Local {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let io_error = |error: io::Error| fail(&explain(&error));
    let path = std::path::absolute(path).map_err(io_error)?;
    let file = open_plain(&path).map_err(io_error)?;
    let name = match name {
        Some(name) => name,
        None => path
            .file_name()
            .and_then(|name| FileName::from_local(&name.to_string_lossy()))
            .ok_or_else(|| fail("it has no name to share it under; give one with --as"))?,
    };
    let found = file.metadata().map_err(io_error)?;
    let stamp = Stamp::of(&found);
    let layout = Layout::new(found.len()).map_err(|_| fail("it is larger than 1 PiB"))?;
    let mut buffer = vec![0; layout.piece(0).map_or(0, |first| layout.piece_len(first))];
    let mut hashes = Vec::with_capacity(layout.count() as usize);
    for piece in layout.pieces() {
        let bytes = &mut buffer[..layout.piece_len(piece)];
        file.read_exact_at(bytes, layout.offset(piece))
            .map_err(|_| fail("it became shorter while it was read"))?;
        hashes.push(hash_piece(layout, piece, bytes));
    }
    if file
        .metadata()
        .is_ok_and(|found| Stamp::of(&found) != stamp)
    {
        return Err(fail(
            "it changed while it was read; share it again when it is complete",
        ));
    }
    let tree = Tree::new(layout, hashes);
    let file = Publication {
        name,
        content: tree.id(),
        len: layout.len(),
        kind: PublicationKind::File,
    };
    Ok(Entry {
        shared: Shared { file, path },
        stamp,
        tree: Arc::new(tree),
    })
}

/// Opens a plain file; devices and the like are refused without waiting for them.
fn open_plain(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"));
    }
    if !kind.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a plain file",
        ));
    }
    Ok(file)
}

/// Does this tell something of the file, and not of a lack that passes?
fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind::{
        InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, UnexpectedEof,
    };
    let lasting = [
        InvalidInput,
        IsADirectory,
        NotADirectory,
        NotFound,
        PermissionDenied,
        UnexpectedEof,
    ];
    lasting.contains(&error.kind())
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "it is not yours to read".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder; share the files in it".to_owned(),
        io::ErrorKind::UnexpectedEof => "it became shorter".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn share(shares: &Shares, path: &Path) -> Shared {
        shares.add(path, None).await.unwrap()
    }

    #[tokio::test]
    async fn a_share_has_the_id_that_b3sum_prints() {
        let dir = tempfile::tempdir().unwrap();
        let (shares, _withdrawn) = Shares::new();
        for len in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20] {
            let path = dir.path().join(format!("file {len}"));
            std::fs::write(&path, vec![7; len]).unwrap();
            let shared = share(&shares, &path).await;
            assert_eq!(
                shared.file.content.0,
                *blake3::hash(&vec![7; len]).as_bytes()
            );
            let serving = shares.open(&shared.file.content).unwrap();
            let mut bytes = vec![0; len];
            serving.read_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, vec![7; len]);
        }
        assert_eq!(shares.list().len(), 6);
    }

    #[tokio::test]
    async fn a_file_that_changes_is_withdrawn_and_never_served_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "before").unwrap();
        let (shares, mut withdrawn) = Shares::new();
        let shared = share(&shares, &path).await;
        let serving = shares.open(&shared.file.content).unwrap();
        std::fs::write(&path, "after, and longer").unwrap();
        assert_eq!(serving.check(), Err(Gone));
        assert!(shares.open(&shared.file.content).is_none() && shares.list().is_empty());
        assert_eq!(withdrawn.try_recv().unwrap().shared, shared);
        assert!(withdrawn.try_recv().is_err(), "told once");
    }

    #[tokio::test]
    async fn a_deleted_file_is_withdrawn_when_somebody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "here").unwrap();
        let (shares, mut withdrawn) = Shares::new();
        let shared = share(&shares, &path).await;
        std::fs::remove_file(&path).unwrap();
        assert!(shares.open(&shared.file.content).is_none());
        assert_eq!(withdrawn.try_recv().unwrap().shared, shared);
    }

    #[tokio::test]
    async fn what_is_removed_is_not_served_even_when_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "here").unwrap();
        let (shares, _withdrawn) = Shares::new();
        let shared = share(&shares, &path).await;
        let serving = shares.open(&shared.file.content).unwrap();
        assert_eq!(shares.remove(|other| *other == shared), [shared]);
        assert_eq!(serving.check(), Err(Gone));
    }

    #[tokio::test]
    async fn only_plain_files_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let (shares, _withdrawn) = Shares::new();
        for (path, reason) in [
            (dir.path().to_owned(), "folder"),
            (fifo, "not a plain file"),
            (dir.path().join("gone"), "no such file"),
            (PathBuf::from("/dev/zero"), "not a plain file"),
        ] {
            let error = shares.add(&path, None).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(shares.list().is_empty());
    }
}
