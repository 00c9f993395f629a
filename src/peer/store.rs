//! Files that are being fetched: a hidden part file, and at the end the final name.
//!
//! The part file lies in the target directory with a journal beside it, so that the next run goes on where
//! this one was killed, and the last step is a rename which never replaces anything. Until then nothing
//! bears the final name: whatever is killed, `downloaded_*` is whole or not there. The one place where a foreign name becomes the name of a file is [`safe_file_name`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;

use super::journal::{Journal, Records};
use crate::crypto::content::{Hash, hash_piece};
use crate::disk;
use crate::wire::id::ContentId;
use crate::wire::pieces::{Layout, PieceIndex};
use crate::wire::text::FileName;

const HIDDEN_PREFIX: &str = ".p2pfs-";
const PART_SUFFIX: &str = ".part";
const JOURNAL_SUFFIX: &str = ".journal";
/// Hex digits of the id in hidden names.
const HIDDEN_DIGITS: usize = 16;
/// Longest name of a file, in bytes, on every system that matters.
const MAX_NAME_LEN: usize = 255;
/// Windows drops these at the end of a name.
const ENDS_NO_NAME: [char; 2] = ['.', ' '];
/// Part files that are tried when other processes hold them.
const PART_TRIES: u32 = 8;
/// Why there is nothing left to write to.
pub const PART_IS_GONE: &str = "somebody removed what was there of it; download it again";
/// Numbers that are tried when a name is taken.
const MAX_COPIES: u32 = 10_000;

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
        let free = disk::free_space(dir).map_err(fail)?;
        let need = layout.len() - here_len;
        if free < need {
            let (need, free) = (ByteSize(need), ByteSize(free));
            let reason = format!("it needs {need}, {free} are free there");
            return Err(StoreError::lasting(dir, reason));
        }
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
        let hidden = self.dir.join(format!("{}{PART_SUFFIX}", self.stem));
        disk::rename_new(&hidden, path).map_err(|error| match error.kind() {
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
                self.rename(prefix, name, fail)?
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

    fn rename(
        &self,
        prefix: &str,
        name: &FileName,
        fail: impl Fn(&Path, &io::Error) -> StoreError,
    ) -> Result<PathBuf, StoreError> {
        let hidden = self.dir.join(format!("{}{PART_SUFFIX}", self.stem));
        for copy in 1..=MAX_COPIES {
            let name = safe_file_name(prefix, name.as_str(), copy);
            let path = self.dir.join(&name);
            match disk::rename_new(&hidden, &path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fail(&path, &error)),
            }
        }
        let path = self.dir.join(safe_file_name(prefix, name.as_str(), 1));
        let reason = "there are too many files of this name";
        Err(StoreError::lasting(&path, reason))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let is_finished = self.ending == Ending::IsFinished;
        let is_discarded = self.ending == Ending::IsDiscarded || self.part.journal.is_empty();
        if is_discarded && !is_finished {
            disk::remove(&self.dir.join(format!("{}{PART_SUFFIX}", self.stem)));
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

/// The name on disk of the `copy`th file with a foreign `name`: harmless on every system, whatever the
/// name is, and with its ending in sight.
#[must_use]
pub fn safe_file_name(prefix: &str, name: &str, copy: u32) -> String {
    use sanitise_file_name::{Options, sanitise_with_options};
    let number = if copy == 1 {
        String::new()
    } else {
        format!(" ({copy})")
    };
    let room = MAX_NAME_LEN.saturating_sub(prefix.len() + number.len());
    // What changes the reading direction would hide the real ending.
    let plain: String = name
        .chars()
        .map(|c| {
            if crate::wire::text::is_invisible(c) {
                '_'
            } else {
                c
            }
        })
        .collect();
    let options = Options {
        length_limit: room,
        trim_more_punctuation: false,
        ..Options::DEFAULT
    };
    let trimmed = plain.trim_end_matches(ENDS_NO_NAME);
    let mut cleaned = sanitise_with_options(trimmed, &options);
    cleaned.truncate(cleaned.trim_end_matches(ENDS_NO_NAME).len());
    if cleaned.is_empty() {
        cleaned.push('_');
    }
    if prefix.is_empty() && cleaned.starts_with(['.', '-', '~']) {
        cleaned.replace_range(..1, "_");
    }
    format!("{prefix}{cleaned}{number}")
}

/// The same for a name inside a folder, where a dot, a dash or a tilde may stand first: a repository is of no
/// use without its `.git`. Our own hidden names stay ours.
#[must_use]
pub fn safe_inner_name(name: &str, copy: u32) -> String {
    let first = name.chars().next().filter(|c| matches!(c, '.' | '-' | '~'));
    let rest = first.map_or(name, |first| &name[first.len_utf8()..]);
    if first.is_none() || rest.chars().all(|c| c == '.') || name.starts_with(HIDDEN_PREFIX) {
        return safe_file_name("", name, copy);
    }
    safe_file_name(&String::from_iter(first), rest, copy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(len: u64) -> Layout {
        Layout::new(len).unwrap()
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = dir
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn id(bytes: &[u8]) -> ContentId {
        ContentId(*blake3::hash(bytes).as_bytes())
    }

    fn put(partial: &Partial, bytes: &[u8], numbers: &[u32]) {
        let layout = partial.part.layout();
        for number in numbers {
            let piece = layout.piece(*number).unwrap();
            let start = usize::try_from(layout.offset(piece)).unwrap();
            let bytes = &bytes[start..start + layout.piece_len(piece)];
            let hash = hash_piece(layout, piece, bytes);
            partial.part.put(piece, bytes, &hash).unwrap();
        }
    }

    fn numbers(here: &Here) -> Vec<u32> {
        here.keys().map(|piece| piece.get()).collect()
    }

    fn fetch(dir: &Path, bytes: &[u8]) -> PathBuf {
        let layout = layout(bytes.len() as u64);
        let (mut partial, _) = Partial::open(dir, id(bytes), layout).unwrap();
        put(&partial, bytes, if bytes.is_empty() { &[] } else { &[0] });
        partial
            .finish("downloaded_", &"x.txt".parse().unwrap())
            .unwrap()
    }

    #[test]
    fn nothing_is_ever_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for (text, name) in [
            ("one", "downloaded_x.txt"),
            ("two", "downloaded_x.txt (2)"),
            ("", "downloaded_x.txt (3)"),
        ] {
            let path = fetch(dir.path(), text.as_bytes());
            assert_eq!(path, dir.path().join(name));
            assert_eq!(std::fs::read_to_string(path).unwrap(), text);
        }
        assert_eq!(names_in(dir.path()).len(), 3);
    }

    #[test]
    fn a_link_in_the_way_is_neither_followed_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("downloaded_x.txt")).unwrap();
        let path = fetch(dir.path(), b"one");
        assert_eq!(path, dir.path().join("downloaded_x.txt (2)"));
        assert!(dir.path().join("downloaded_x.txt").is_symlink());
    }

    #[test]
    fn what_has_nothing_or_is_discarded_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 2 << 20];
        let open = || {
            Partial::open(dir.path(), id(&bytes), layout(2 << 20))
                .unwrap()
                .0
        };
        let partial = open();
        let names = names_in(dir.path());
        assert!(names.len() == 2 && names.iter().all(|name| name.starts_with('.')));
        drop(partial);
        assert!(names_in(dir.path()).is_empty());
        let mut partial = open();
        put(&partial, &bytes, &[0]);
        partial.discard();
        drop(partial);
        assert!(names_in(dir.path()).is_empty());
    }

    #[test]
    fn the_next_run_goes_on_with_what_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0_u32..5 << 18).flat_map(u32::to_le_bytes).collect();
        let layout = layout(bytes.len() as u64);
        let open = || Partial::open(dir.path(), id(&bytes), layout).unwrap();
        let (partial, here) = open();
        assert!(here.is_empty());
        put(&partial, &bytes, &[0, 3]);
        partial.part.sync().unwrap();
        put(&partial, &bytes, &[1, 4]);
        // A power cut took what was not synced.
        partial
            .part
            .file
            .write_all_at(&[0; 4096], layout.offset(layout.piece(1).unwrap()))
            .unwrap();
        drop(partial);
        let (mut partial, here) = open();
        assert_eq!(numbers(&here), [0, 3, 4]);
        put(&partial, &bytes, &[1, 2]);
        let path = partial
            .finish("downloaded_", &"x".parse().unwrap())
            .unwrap();
        drop(partial);
        assert_eq!(std::fs::read(path).unwrap(), bytes);
        assert_eq!(names_in(dir.path()), ["downloaded_x"]);
    }

    #[test]
    fn a_part_without_its_journal_or_the_other_way_round_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 3 << 20];
        let open = || Partial::open(dir.path(), id(&bytes), layout(3 << 20)).unwrap();
        for suffix in [PART_SUFFIX, JOURNAL_SUFFIX] {
            let (partial, _) = open();
            put(&partial, &bytes, &[0, 1]);
            partial.part.sync().unwrap();
            drop(partial);
            let stem = hidden_stem(id(&bytes), 1);
            std::fs::remove_file(dir.path().join(format!("{stem}{suffix}"))).unwrap();
            let (_, here) = open();
            assert!(here.is_empty(), "without {suffix}");
        }
    }

    #[test]
    fn two_runs_at_a_time_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 2 << 20];
        let open = || Partial::open(dir.path(), id(&bytes), layout(2 << 20)).unwrap();
        let (first, _) = open();
        put(&first, &bytes, &[0]);
        let (second, here) = open();
        assert!(here.is_empty() && second.stem != first.stem);
        drop((first, second));
        assert_eq!(numbers(&open().1), [0]);
    }

    #[test]
    fn a_place_is_free_once_its_download_ended_also_while_others_still_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 2 << 20];
        let open = || Partial::open(dir.path(), id(&bytes), layout(2 << 20)).unwrap();
        let (partial, _) = open();
        put(&partial, &bytes, &[0]);
        let (stem, served) = (partial.stem.clone(), partial.part());
        drop(partial);
        let (partial, here) = open();
        assert_eq!((&partial.stem, numbers(&here)), (&stem, vec![0]));
        let late = served.put(
            layout(2 << 20).piece(1).unwrap(),
            &bytes[..1 << 20],
            &[0; 32],
        );
        assert!(late.is_err(), "the journal has another owner now");
        drop(partial);
        Partial::discard_left(dir.path(), id(&bytes), layout(2 << 20));
        assert!(names_in(dir.path()).is_empty());
    }

    #[test]
    fn what_cannot_have_a_journal_leaves_no_part_either() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = format!("{}{JOURNAL_SUFFIX}", hidden_stem(id(b"x"), 1));
        std::fs::create_dir(dir.path().join(&in_the_way)).unwrap();
        Partial::open(dir.path(), id(b"x"), layout(1)).unwrap_err();
        assert_eq!(names_in(dir.path()), [in_the_way]);
    }

    #[test]
    fn what_somebody_removed_cannot_be_finished() {
        let dir = tempfile::tempdir().unwrap();
        let (mut partial, _) = Partial::open(dir.path(), id(b"x"), layout(1)).unwrap();
        put(&partial, b"x", &[0]);
        std::fs::remove_file(dir.path().join(format!("{}{PART_SUFFIX}", partial.stem))).unwrap();
        let error = partial.finish("", &"x".parse().unwrap()).unwrap_err();
        assert!(error.is_lasting && error.reason == PART_IS_GONE, "{error}");
    }

    #[test]
    fn a_directory_that_will_not_do_is_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (dir, reason) in [
            (dir.path().join("gone"), "no such"),
            (file, "not a directory"),
        ] {
            let error = Partial::open(&dir, ContentId([1; 32]), layout(1)).unwrap_err();
            assert!(error.reason.contains(reason), "{error}");
        }
        let error = Partial::open(dir.path(), ContentId([1; 32]), layout(1 << 50)).unwrap_err();
        assert!(error.reason.contains("are free"), "{error}");
        assert_eq!(names_in(dir.path()), ["file"]);
    }

    #[test]
    fn names_are_harmless_on_every_system() {
        for name in [
            "..\\x",
            "C:\\x",
            "\\\\h\\s",
            "x:y",
            "CON",
            "com1.txt",
            "COM¹",
            "x.",
            "x ",
            "a\u{202e}gpj.exe",
            "-x",
            ".bashrc",
            "~",
            "a*b?c",
            "nul",
            "aux.h",
            "\u{feff}x",
        ] {
            let safe = safe_file_name("", name, 1);
            assert!(
                !safe.is_empty() && !safe.starts_with(['.', '-', '~']),
                "{name:?} became {safe:?}"
            );
            assert!(
                !safe.contains(['\\', ':', '*', '?', '\u{202e}']),
                "{name:?} became {safe:?}"
            );
            assert!(!safe.ends_with(['.', ' ']), "{name:?} became {safe:?}");
            assert!(
                !["con", "nul"].contains(&safe.to_lowercase().as_str()),
                "{name:?} became {safe:?}"
            );
        }
        assert_eq!(
            safe_file_name("downloaded_", "report.pdf", 1),
            "downloaded_report.pdf"
        );
        assert_eq!(
            safe_file_name("downloaded_", "Ωμέγα 1.txt", 2),
            "downloaded_Ωμέγα 1.txt (2)"
        );
        let long = safe_file_name("downloaded_", &format!("{}.tar.gz", "ä".repeat(120)), 12);
        assert!(
            long.len() <= MAX_NAME_LEN && long.ends_with(".gz (12)"),
            "{long}"
        );
    }

    #[test]
    fn inside_a_folder_names_keep_their_first_letter() {
        for name in [".git", ".bashrc", "-x", "~draft", "readme"] {
            assert_eq!(safe_inner_name(name, 1), name);
        }
        for name in [
            ".",
            "..",
            "...",
            ".p2pfs-1234.part",
            ".\u{202e}",
            ".x:y",
            "-.",
        ] {
            let safe = safe_inner_name(name, 1);
            assert!(
                !safe.starts_with(HIDDEN_PREFIX) && safe.parse::<FileName>().is_ok(),
                "{safe}"
            );
            assert_ne!(safe, name);
        }
    }

    proptest! {
        #[test]
        fn a_name_in_a_folder_is_one_component(name in "[.~-]?\\PC{1,300}", copy in 1_u32..30) {
            let safe = safe_inner_name(&name, copy);
            prop_assert!(safe.len() <= MAX_NAME_LEN);
            prop_assert!(safe.parse::<FileName>().is_ok(), "{:?}", safe);
        }

        #[test]
        fn a_name_on_disk_is_one_component(name in "\\PC{1,300}", copy in 1_u32..30) {
            let safe = safe_file_name("downloaded_", &name, copy);
            prop_assert!(safe.len() <= MAX_NAME_LEN);
            prop_assert!(safe.parse::<FileName>().is_ok(), "{:?}", safe);
        }
    }
}
