//! Files that are being fetched: a hidden part file, and at the end the final name.
//!
//! The part file lies in the target directory with a journal beside it, so that the next run goes on where
//! this one was killed, and the last step is a rename which never replaces anything. Until then nothing
//! bears the final name: whatever is killed, `downloaded_*` is whole or not there.

mod error;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;

pub use self::error::{PART_IS_GONE, StoreError, explain, is_lasting};
use super::journal::{Journal, Records};
use super::name::name_anew;
use crate::crypto::content::{Hash, hash_piece};
use crate::disk;
use crate::wire::id::ContentId;
use crate::wire::pieces::{Layout, PieceIndex};
use crate::wire::text::FileName;

/// What the names of files begin with that are being fetched.
pub const HIDDEN_PREFIX: &str = ".p2pfs-";
const PART_SUFFIX: &str = ".part";
const JOURNAL_SUFFIX: &str = ".journal";
/// Hex digits of the id in hidden names.
const HIDDEN_DIGITS: usize = 16;
/// Part files that are tried when other processes hold them.
const PART_TRIES: u32 = 8;
/// The bytes of a file of which parts are here; written by several threads.
#[derive(Debug)]
pub struct Part {
    file: File,
    journal: Journal,
}

impl Part {
    /// How the file is cut.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.journal.layout()
    }

    /// Writes a piece that was verified, and that it is here. Blocking.
    ///
    /// # Errors
    /// What the system says; the piece does not count then.
    pub fn put(&self, piece: PieceIndex, bytes: &[u8], hash: &Hash) -> io::Result<()> {
        self.file.write_all_at(bytes, self.layout().offset(piece))?;
        self.journal.note_piece(piece, hash)
    }

    /// Reads exactly `bytes.len()` bytes from `offset` on. Blocking.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Begins the journal anew with `pieces`: what else was put may be lost, although it can still be read.
    pub fn restart<'a>(&self, pieces: impl IntoIterator<Item = (PieceIndex, &'a Hash)>) {
        self.journal.restart(pieces);
    }

    /// Has somebody removed the file? It can then never get a name again.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        disk::is_removed(&self.file)
    }

    /// Makes durable what was put. Blocking, for as long as the disk takes.
    ///
    /// # Errors
    /// What the system says: what was put since the last success may be lost then.
    pub fn sync(&self) -> io::Result<()> {
        self.journal.sync(&self.file)
    }

    /// Those of these pieces whose bytes are right. Blocking.
    fn check(&self, pieces: BTreeMap<PieceIndex, Hash>) -> BTreeMap<PieceIndex, Hash> {
        let layout = self.layout();
        let mut bytes = Vec::new();
        let mut is_right = |piece, hash: &Hash| {
            bytes.resize(layout.piece_len(piece), 0);
            let is_read = self.read_at(&mut bytes, layout.offset(piece)).is_ok();
            is_read && hash_piece(layout, piece, &bytes) == *hash
        };
        let mut pieces = pieces;
        pieces.retain(|piece, hash| is_right(*piece, hash));
        pieces
    }
}

/// Pieces that are here, and their hashes.
pub type Here = BTreeMap<PieceIndex, Hash>;

/// A file that is being fetched. Dropped before [`Partial::finish`], it stays hidden on disk for the next
/// time, unless nothing of it is here.
#[derive(Debug)]
pub struct Partial {
    part: Arc<Part>,
    dir: PathBuf,
    /// Name of part file and journal, without what they end in.
    stem: String,
    ending: Ending,
    /// Its final name, once it has that.
    named: Option<PathBuf>,
}

/// What becomes of the hidden files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Stays,
    IsFinished,
    IsDiscarded,
}

impl Partial {
    /// The place for `content` in `dir`, and what an earlier run left there of it. Blocking: what may have
    /// been lost is read and hashed again.
    ///
    /// # Errors
    /// When the directory is missing, not writable or full.
    pub fn open(
        dir: &Path,
        content: ContentId,
        layout: Layout,
    ) -> Result<(Self, Here), StoreError> {
        let fail = |error: io::Error| StoreError::new(dir, &error);
        let (partial, records) = Self::open_any(dir, content, layout)?;
        let here = partial.recover(records);
        let here_len: u64 = here
            .keys()
            .map(|piece| layout.piece_len(*piece) as u64)
            .sum();
        check_space(dir, layout.len() - here_len)?;
        // Fails at once where files may not become so large.
        let sized = partial.part.file.set_len(layout.len());
        sized.map_err(fail)?;
        Ok((partial, here))
    }

    /// Removes what earlier runs, which have ended, left in `dir` of `content`. Blocking.
    pub fn discard_left(dir: &Path, content: ContentId, layout: Layout) {
        for number in (1..=PART_TRIES).filter(|number| is_there(dir, content, *number)) {
            // What cannot be opened cannot be removed either.
            if let Ok(Some((mut partial, _))) = Self::open_numbered(dir, content, layout, number) {
                partial.discard();
            }
        }
    }

    /// The first place that no other process has.
    fn open_any(
        dir: &Path,
        content: ContentId,
        layout: Layout,
    ) -> Result<(Self, Records), StoreError> {
        for number in 1..=PART_TRIES {
            let opened = Self::open_numbered(dir, content, layout, number);
            if let Some(opened) = opened.map_err(|error| StoreError::new(dir, &error))? {
                return Ok(opened);
            }
        }
        let reason = "too many programs are fetching this file there";
        Err(StoreError::lasting(dir, reason))
    }

    /// What is here for good: what may have been lost is read, hashed and made durable.
    fn recover(&self, records: Records) -> Here {
        let Records {
            durable: mut here,
            doubtful,
        } = records;
        let found = self.part.check(doubtful);
        if found.is_empty() {
            return here;
        }
        match self.part.sync() {
            Ok(()) => here.extend(found),
            Err(_) => self
                .part
                .restart(here.iter().map(|(piece, hash)| (*piece, hash))),
        }
        here
    }

    /// `None` when another process is at it.
    fn open_numbered(
        dir: &Path,
        content: ContentId,
        layout: Layout,
        number: u32,
    ) -> io::Result<Option<(Self, Records)>> {
        let stem = hidden_stem(content, number);
        let (part, journal) = (
            format!("{stem}{PART_SUFFIX}"),
            format!("{stem}{JOURNAL_SUFFIX}"),
        );
        let file = match disk::open_own(dir, &part)? {
            Some(file) => file,
            None => match disk::create_new(dir, &part) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                created => created?,
            },
        };
        // Held as long as this process lives.
        let is_held = file.try_lock().is_ok() && disk::is_at(&file, &dir.join(&part));
        if !is_held {
            return Ok(None);
        }
        let left = if file.metadata()?.len() == layout.len() {
            Journal::open(dir, &journal, content, layout)?
        } else {
            None
        };
        let (journal, records) = match left {
            Some(left) => left,
            None => {
                disk::remove(&dir.join(&journal));
                let created = Journal::create(dir, &journal, content, layout);
                if created.is_err() {
                    // Without a journal nobody can go on with what is there.
                    disk::remove(&dir.join(&journal));
                    disk::remove(&dir.join(&part));
                }
                (created?, Records::default())
            }
        };
        let partial = Self {
            part: Arc::new(Part { file, journal }),
            dir: dir.to_owned(),
            stem,
            ending: Ending::Stays,
            named: None,
        };
        Ok(Some((partial, records)))
    }

    /// The bytes, for those who write and serve them.
    #[must_use]
    pub fn part(&self) -> Arc<Part> {
        Arc::clone(&self.part)
    }

    fn hidden(&self) -> PathBuf {
        self.dir.join(format!("{}{PART_SUFFIX}", self.stem))
    }

    /// Does something else lie there now? Whoever removed the part may have begun once more.
    fn is_replaced(&self) -> bool {
        let hidden = self.hidden();
        hidden.symlink_metadata().is_ok() && !disk::is_at(&self.part.file, &hidden)
    }

    /// Nothing of it shall stay.
    pub const fn discard(&mut self) {
        self.ending = Ending::IsDiscarded;
    }

    /// Gives the file the name `path`, where nothing is. Blocking. It is not made durable. May be tried again.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish_as(&mut self, path: &Path) -> Result<(), StoreError> {
        if self.ending == Ending::IsFinished {
            return Ok(());
        }
        if self.is_replaced() {
            return Err(StoreError::lasting(path, PART_IS_GONE));
        }
        disk::rename_new(&self.hidden(), path).map_err(|error| match error.kind() {
            _ if self.part.is_removed() => StoreError::lasting(path, PART_IS_GONE),
            _ => StoreError::new(path, &error),
        })?;
        self.ending = Ending::IsFinished;
        Ok(())
    }

    /// Makes the file durable and gives it its name: `prefix` and `name`, or with a number behind it when
    /// that is taken. Blocking. May be tried again after it failed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(&mut self, prefix: &str, name: &FileName) -> Result<PathBuf, StoreError> {
        let fail = |path: &Path, error: &io::Error| {
            if self.part.is_removed() {
                return StoreError::lasting(path, PART_IS_GONE);
            }
            StoreError::new(path, error)
        };
        let named = match self.named.take() {
            Some(path) => path,
            None => {
                disk::make_public(&self.part.file, 0o666);
                let synced = self.part.file.sync_all();
                synced.map_err(|error| fail(&self.dir, &error))?;
                // Now, and not before: that may have taken long.
                if self.is_replaced() {
                    return Err(StoreError::lasting(&self.dir, PART_IS_GONE));
                }
                name_anew(&self.hidden(), &self.dir, (prefix, name), fail)?
            }
        };
        self.ending = Ending::IsFinished;
        let synced = disk::sync_dir(&self.dir);
        if let Err(error) = synced {
            self.named = Some(named);
            return Err(StoreError::new(&self.dir, &error));
        }
        Ok(named)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let is_finished = self.ending == Ending::IsFinished;
        let is_discarded = self.ending == Ending::IsDiscarded || self.part.journal.is_empty();
        if is_discarded && !is_finished && !self.is_replaced() {
            disk::remove(&self.hidden());
        }
        let journal = self.dir.join(format!("{}{JOURNAL_SUFFIX}", self.stem));
        // Once the part file has its final name, another process may have begun the next journal.
        if (is_discarded || is_finished) && self.part.journal.is_at(&journal) {
            disk::remove(&journal);
        }
        // Others may still hold the part, to write a last piece or to serve what is there: whoever comes
        // next need not wait for them.
        self.part.journal.close();
        let _ = self.part.file.unlock();
    }
}

/// Is there room in `dir` for so many bytes more? Blocking.
///
/// # Errors
/// When there is not.
pub fn check_space(dir: &Path, need: u64) -> Result<(), StoreError> {
    let free = disk::free_space(dir).map_err(|error| StoreError::new(dir, &error))?;
    if free < need {
        let (need, free) = (ByteSize(need), ByteSize(free));
        let reason = format!("it needs {need}, {free} are free there");
        return Err(StoreError::lasting(dir, reason));
    }
    Ok(())
}

/// Is this a part file, by its name?
#[must_use]
pub fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(HIDDEN_PREFIX) && name.ends_with(PART_SUFFIX))
}

/// Name of the hidden files of a content: the same in each run, so that the next one finds them.
#[must_use]
pub fn hidden_stem(content: ContentId, number: u32) -> String {
    let digits = &content.to_hex()[..HIDDEN_DIGITS];
    if number == 1 {
        format!("{HIDDEN_PREFIX}{digits}")
    } else {
        format!("{HIDDEN_PREFIX}{digits}-{number}")
    }
}

/// Is there something in `dir` of a content that is being fetched? Blocking.
#[must_use]
pub fn is_part_left(dir: &Path, content: ContentId) -> bool {
    (1..=PART_TRIES).any(|number| is_there(dir, content, number))
}

fn is_there(dir: &Path, content: ContentId, number: u32) -> bool {
    let name = format!("{}{PART_SUFFIX}", hidden_stem(content, number));
    dir.join(name).symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests;
