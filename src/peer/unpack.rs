//! A folder that is being fetched: hidden until all of it is here, checked file by file.
//!
//! It grows under a hidden name in the target directory and gets its final one when everything in it is
//! durable. A run that was killed is gone on with: `peer/salvage` finds what is right of what lies there.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::places::places;
use super::shares::Contents;
use super::store::{PART_IS_GONE, StoreError, hidden_stem, is_part, safe_file_name};
use super::target::{Synced, Verdict};
use crate::disk;
use crate::wire::control::Publication;
use crate::wire::folder::{FileEntry, Listing, Node, Run};
use crate::wire::id::ContentId;
use crate::wire::pieces::{Bitfield, Layout, PIECE_LEN, PieceIndex};
use crate::wire::text::FileName;
use crate::wire::transfer::FileSet;

const FOLDER_SUFFIX: &str = ".folder";
/// Names that are tried when a folder's is taken.
const MAX_COPIES: u32 = 10_000;
/// Locks that runs share: those that are written at the same time are few.
const WRITERS: usize = 16;

/// A folder of which parts are here.
#[derive(Debug)]
pub struct Unpacking {
    file: Publication,
    listing: Listing,
    runs: Vec<Run>,
    dir: PathBuf,
    /// Where it grows.
    root: PathBuf,
    /// Held as long as this lives, so that no other process works on it.
    lock: File,
    /// Where each entry goes, below the root.
    paths: Vec<PathBuf>,
    renamed: usize,
    /// Shared by those who write; once it is true, nobody writes any more.
    is_closed: RwLock<bool>,
    /// Who writes a run is alone with it: a copy that comes second must not take a half file for whole.
    writing: [Mutex<()>; WRITERS],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    runs: Bitfield,
    /// Runs that a power cut could take.
    unsynced: Vec<PieceIndex>,
    /// Its final name, once it has that.
    named: Option<PathBuf>,
    /// Entries that are here and right.
    files: HashSet<usize>,
    done_len: u64,
}

impl Unpacking {
    /// Has an earlier run begun the folder with this id in `dir`?
    #[must_use]
    pub fn is_begun(dir: &Path, content: ContentId) -> bool {
        root_of(dir, content).exists()
    }

    /// The place for the folder `file` with this listing in `dir`. Nothing counts as here before
    /// [`salvage`](super::salvage::salvage) looked. Blocking.
    ///
    /// # Errors
    /// When the directory cannot be written, or another process is at it.
    pub fn open(dir: &Path, file: Publication, listing: Listing) -> Result<Self, StoreError> {
        let fail = |error: &io::Error| StoreError::new(dir, error);
        let runs = listing.runs();
        let layout = layout_of(&runs).map_err(|error| fail(&error))?;
        let root = root_of(dir, file.content);
        disk::create_dir(&root).map_err(|error| fail(&error))?;
        let Some(lock) = disk::open_own_dir(&root).map_err(|error| fail(&error))? else {
            let reason = format!("{} is in the way, and not yours", root.display());
            return Err(StoreError::lasting(dir, reason));
        };
        if lock.try_lock().is_err() {
            let reason = "this folder is being fetched there already";
            return Err(StoreError::lasting(dir, reason));
        }
        let (paths, renamed) = places(&listing);
        Ok(Self {
            file,
            runs,
            dir: dir.to_owned(),
            root,
            lock,
            paths,
            renamed,
            is_closed: RwLock::new(false),
            writing: Default::default(),
            state: Mutex::new(State {
                runs: Bitfield::empty(layout),
                unsynced: Vec::new(),
                named: None,
                files: HashSet::new(),
                done_len: 0,
            }),
            listing,
        })
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_folders(&self) -> io::Result<()> {
        let mut made = HashSet::new();
        for (entry, path) in self.listing.entries().iter().zip(&self.paths) {
            let below = match &entry.node {
                Node::File(_) => path.parent().unwrap_or(Path::new("")),
                Node::EmptyFolder => path.as_path(),
            };
            let parents: Vec<_> = below.ancestors().collect();
            for folder in parents.into_iter().rev() {
                if !folder.as_os_str().is_empty() && made.insert(folder.to_owned()) {
                    disk::create_dir(&self.root.join(folder))?;
                }
            }
        }
        Ok(())
    }

    /// Makes an empty file, unless it is here.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_empty(&self, index: usize, file: &FileEntry) -> io::Result<()> {
        if !self.path(index).exists() {
            self.write(index, file, b"")?;
        }
        self.note(index, file);
        Ok(())
    }

    /// Takes a file whose bytes may be the right ones. Nobody else writes yet.
    ///
    /// # Errors
    /// What the system says.
    pub fn take(&self, index: usize, file: &FileEntry, bytes: &[u8]) -> io::Result<()> {
        if *blake3::hash(bytes).as_bytes() == file.content.0 {
            self.write(index, file, bytes)?;
            self.note(index, file);
        }
        Ok(())
    }

    /// A file lies at its path with the right bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn settle(&self, index: usize, file: &FileEntry) -> io::Result<()> {
        let own = File::open(self.path(index))?;
        disk::set_mode_and_time(&own, file.is_executable, time_of(file))?;
        self.note(index, file);
        Ok(())
    }

    /// Removes what is not right.
    pub fn clear(&self, index: usize) {
        disk::remove(&self.path(index));
    }

    /// The runs of which all files are here count as such.
    pub fn count_runs(&self) {
        let mut state = self.state();
        for (piece, run) in self.layout().pieces().zip(&self.runs) {
            let mut files = self.listing.files_of(run);
            if files.all(|(index, _)| state.files.contains(&index)) && state.runs.insert(piece) {
                state.unsynced.push(piece);
            }
        }
    }

    fn note(&self, index: usize, file: &FileEntry) {
        let mut state = self.state();
        if state.files.insert(index) {
            state.done_len += file.len;
        }
    }

    fn write(&self, index: usize, file: &FileEntry, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(index);
        disk::write_new(&path, bytes, file.is_executable, time_of(file))
    }

    /// The id of the listing.
    #[must_use]
    pub const fn content(&self) -> ContentId {
        self.file.content
    }

    /// Bytes of the listing.
    #[must_use]
    pub const fn listing_len(&self) -> u64 {
        self.file.len
    }

    /// What is in it.
    #[must_use]
    pub fn contents(&self) -> Contents {
        Contents {
            files: self.listing.files().count(),
            len: self.listing.total_len(),
        }
    }

    /// Entries that bear another name here than where they come from.
    #[must_use]
    pub const fn renamed(&self) -> usize {
        self.renamed
    }

    /// Runs, as pieces.
    #[must_use]
    pub fn layout(&self) -> Layout {
        layout_of(&self.runs).expect("it was one when this was opened")
    }

    /// The runs that are here.
    #[must_use]
    pub fn here(&self) -> Bitfield {
        self.state().runs.clone()
    }

    /// Bytes of files that are here.
    #[must_use]
    pub fn done_len(&self) -> u64 {
        self.state().done_len
    }

    /// Bytes of a run.
    #[must_use]
    pub fn run_len(&self, run: PieceIndex) -> usize {
        let run = self.runs.get(run.as_usize());
        run.map_or(0, |run| usize::try_from(run.len).unwrap_or_default())
    }

    /// Which files of a run are missing; `None` when all are.
    #[must_use]
    pub fn wanted_of(&self, run: PieceIndex) -> Option<FileSet> {
        let run = self.runs.get(run.as_usize())?;
        let state = self.state();
        let files = || self.listing.files_of(run);
        let is_missing = |(index, _): (usize, &FileEntry)| !state.files.contains(&index);
        if files().all(is_missing) {
            return None;
        }
        Some(files().map(is_missing).collect())
    }

    /// Checks and writes the files of a run. Its bytes between `gaps`, in their order, and to the end came.
    /// Blocking.
    ///
    /// # Errors
    /// What the system says; files that were written count all the same.
    pub fn put(
        &self,
        piece: PieceIndex,
        bytes: &[u8],
        gaps: &[Range<usize>],
    ) -> io::Result<Verdict> {
        let Some(run) = self.runs.get(piece.as_usize()) else {
            return Ok(Verdict::Wrong);
        };
        let is_closed = self
            .is_closed
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if *is_closed {
            return Ok(Verdict::Short(0));
        }
        let writing = &self.writing[piece.as_usize() % WRITERS];
        let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut start, mut missing, mut came) = (0_usize, 0_usize, 0_usize);
        for (index, file) in self.listing.files_of(run) {
            let len = usize::try_from(file.len).unwrap_or(usize::MAX);
            let place = start..start.saturating_add(len);
            start = place.end;
            // A run that was doubled comes twice.
            if self.state().files.contains(&index) {
                continue;
            }
            // The first gap that does not end before it.
            let gap = gaps.get(gaps.partition_point(|gap| gap.end <= place.start));
            let is_cut = gap.is_some_and(|gap| gap.start < place.end);
            let is_absent = gap.is_some_and(|gap| gap.start <= place.start && place.end <= gap.end);
            match bytes.get(place.clone()) {
                Some(own) if !is_cut => {
                    if *blake3::hash(own).as_bytes() != file.content.0 {
                        return Ok(Verdict::Wrong);
                    }
                    self.write(index, file, own)?;
                    self.note(index, file);
                    came += 1;
                }
                _ if is_absent || place.start >= bytes.len() => missing += 1,
                _ => return Ok(Verdict::Wrong),
            }
        }
        if missing > 0 {
            return Ok(Verdict::Short(came));
        }
        let mut state = self.state();
        if state.runs.insert(piece) {
            state.unsynced.push(piece);
        }
        Ok(Verdict::Right)
    }

    /// Is this run here?
    #[must_use]
    pub fn has(&self, run: PieceIndex) -> bool {
        self.state().runs.has(run)
    }

    /// Makes durable what came, once all runs are here; how many came since the last time. Blocking.
    ///
    /// # Errors
    /// What the system says, and which runs count no longer: nobody knows whether they reached the disk, and
    /// the next sync would not tell.
    pub fn sync(&self) -> Synced {
        let (unsynced, is_full) = {
            let state = self.state();
            (state.unsynced.clone(), state.runs.is_full())
        };
        if unsynced.is_empty() || !is_full {
            return Ok(unsynced.len());
        }
        let synced = disk::sync_file_system(&self.lock);
        let is_closed = self
            .is_closed
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        self.state().unsynced.clear();
        let Err(error) = synced else {
            return Ok(unsynced.len());
        };
        // Once it is closed the files may be those of the next download.
        for piece in unsynced.iter().filter(|_| !*is_closed) {
            self.forget(*piece);
        }
        Err((error, unsynced))
    }

    /// Removes the files of a run, to be fetched again.
    fn forget(&self, piece: PieceIndex) {
        let writing = &self.writing[piece.as_usize() % WRITERS];
        let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let run = self.runs.get(piece.as_usize());
        for (index, file) in run.into_iter().flat_map(|run| self.listing.files_of(run)) {
            disk::remove(&self.path(index));
            let mut state = self.state();
            if state.files.remove(&index) {
                state.done_len -= file.len;
            }
        }
        self.state().runs.remove(piece);
    }

    /// Files of runs that are not here yet.
    #[must_use]
    pub fn missing_small(&self) -> Vec<(usize, &FileEntry)> {
        let state = self.state();
        let entries = self.listing.entries().iter().enumerate();
        let small = entries.filter_map(|(index, entry)| Some((index, entry.small_file()?)));
        small
            .filter(|(index, _)| !state.files.contains(index))
            .collect()
    }

    /// Files that travel alone and are not here yet: each as something to fetch, and where to.
    #[must_use]
    pub fn missing_large(&self) -> Vec<(usize, FileEntry)> {
        let state = self.state();
        let entries = self.listing.entries().iter().enumerate();
        let missing = entries.filter_map(|(index, entry)| match &entry.node {
            Node::File(file) if !state.files.contains(&index) && entry.small_file().is_none() => {
                Some((index, file.clone()))
            }
            _ => None,
        });
        missing.collect()
    }

    /// Nobody writes to it from here on, and another run may begin: sources that are let go of may hold this
    /// for a moment longer. Nothing stays when nothing of it is here. Blocking.
    pub fn close(&self) {
        *self
            .is_closed
            .write()
            .unwrap_or_else(PoisonError::into_inner) = true;
        if self.state().named.is_none() && !self.holds_bytes() {
            disk::remove_tree(&self.root);
        }
        let _ = self.lock.unlock();
    }

    /// Does anything lie there that took time to fetch, looked at or not?
    fn holds_bytes(&self) -> bool {
        let has_bytes = |path: PathBuf| path.symlink_metadata().is_ok_and(|found| found.len() > 0);
        let files = self.listing.entries().iter().enumerate();
        let mut files = files.filter(|(_, entry)| matches!(entry.node, Node::File(_)));
        self.parts().next().is_some() || files.any(|(index, _)| has_bytes(self.path(index)))
    }

    /// Bytes on disk of large files that are not complete.
    #[must_use]
    pub fn parts_len(&self) -> u64 {
        let found = self.parts().filter_map(|path| path.metadata().ok());
        found
            .map(|found| found.len().min(found.blocks() * 512))
            .sum()
    }

    fn parts(&self) -> impl Iterator<Item = PathBuf> {
        let entries = self.root.read_dir().into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| is_part(path))
    }

    /// What lies in it.
    #[must_use]
    pub const fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Has somebody removed it, or a folder in it? Blocking.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        let folders: BTreeSet<_> = self.paths.iter().filter_map(|path| path.parent()).collect();
        let mut folders = folders.into_iter().map(|folder| self.root.join(folder));
        !disk::is_at(&self.lock, &self.root) || !folders.all(|folder| folder.is_dir())
    }

    /// Does all of it lie there? What somebody removed would be missing under the final name. Blocking.
    fn is_whole(&self) -> bool {
        let mut entries = self.listing.entries().iter().enumerate();
        entries.all(|(index, entry)| {
            let found = self.path(index).symlink_metadata();
            found.is_ok_and(|found| match &entry.node {
                Node::File(file) => found.is_file() && found.len() == file.len,
                Node::EmptyFolder => found.is_dir(),
            })
        })
    }

    /// Where it grows.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an entry is.
    #[must_use]
    pub fn path(&self, index: usize) -> PathBuf {
        self.root.join(&self.paths[index])
    }

    /// A file that travels alone has arrived at its path. Blocking.
    ///
    /// # Errors
    /// What the system says.
    pub fn note_large(&self, index: usize, file: &FileEntry) -> Result<(), StoreError> {
        let path = self.path(index);
        self.settle(index, file)
            .map_err(|error| StoreError::new(&path, &error))
    }

    /// Makes all of it durable and gives it its name. Blocking. May be tried again after it failed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(&self, prefix: &str, name: &FileName) -> Result<PathBuf, StoreError> {
        let fail = |path: &Path, error: &io::Error| {
            if self.is_removed() {
                return StoreError::lasting(path, PART_IS_GONE);
            }
            StoreError::new(path, error)
        };
        let named = self.state().named.clone();
        if let Some(path) = named {
            let synced = disk::sync_dir(&self.dir);
            synced.map_err(|error| StoreError::new(&self.dir, &error))?;
            return Ok(path);
        }
        if !self.is_whole() {
            return Err(StoreError::lasting(&self.dir, PART_IS_GONE));
        }
        self.open_up()
            .and_then(|()| disk::sync_file_system(&self.lock))
            .map_err(|error| fail(&self.dir, &error))?;
        for copy in 1..=MAX_COPIES {
            let name = safe_file_name(prefix, name.as_str(), copy);
            let path = self.dir.join(&name);
            match disk::rename_new(&self.root, &path) {
                Ok(()) => {
                    self.state().named = Some(path.clone());
                    let synced = disk::sync_dir(&self.dir);
                    synced.map_err(|error| StoreError::new(&self.dir, &error))?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fail(&path, &error)),
            }
        }
        let reason = "there are too many folders of this name";
        Err(StoreError::lasting(&self.dir, reason))
    }

    /// Gives its folders the rights that the user's other new folders have.
    fn open_up(&self) -> io::Result<()> {
        let folders: BTreeSet<_> = self
            .paths
            .iter()
            .flat_map(|path| path.ancestors())
            .collect();
        for folder in folders {
            let path = self.root.join(folder);
            if path.is_dir() {
                disk::make_public(&File::open(path)?, 0o777);
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn time_of(file: &FileEntry) -> (i64, u32) {
    (file.modified.seconds, file.modified.nanos)
}

/// Where the folder with this id grows in `dir`.
fn root_of(dir: &Path, content: ContentId) -> PathBuf {
    dir.join(format!("{}{FOLDER_SUFFIX}", hidden_stem(content, 1)))
}

/// Is there something in `dir` of a folder that is being fetched? Blocking.
#[must_use]
pub fn is_left(dir: &Path, content: ContentId) -> bool {
    root_of(dir, content).symlink_metadata().is_ok()
}

/// Removes what is in `dir` of a folder that nobody wants any more, unless another process is at it. Blocking.
pub fn discard(dir: &Path, content: ContentId) {
    let root = root_of(dir, content);
    let lock = disk::open_own_dir(&root).ok().flatten();
    if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
        disk::remove_tree(&root);
    }
}

fn layout_of(runs: &[Run]) -> io::Result<Layout> {
    Layout::new(runs.len() as u64 * PIECE_LEN).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::super::meter::Meter;
    use super::super::salvage::salvage;
    use super::super::shares::{Background, Shares};
    use super::*;
    use crate::wire::control::PublicationKind;
    use crate::wire::folder::{Entry, Modified};

    fn entry(path: &str, bytes: &[u8]) -> Entry {
        Entry {
            path: path.parse().unwrap(),
            node: Node::File(FileEntry {
                len: bytes.len() as u64,
                content: ContentId(*blake3::hash(bytes).as_bytes()),
                is_executable: path.ends_with(".sh"),
                modified: Modified {
                    seconds: 1_000_000_000,
                    nanos: 5,
                },
            }),
        }
    }

    fn open(dir: &Path, listing: &Listing) -> Unpacking {
        let bytes = listing.encode();
        let file = Publication {
            name: "talks".parse().unwrap(),
            content: ContentId(*blake3::hash(&bytes).as_bytes()),
            len: bytes.len() as u64,
            kind: PublicationKind::Folder,
        };
        let folder = Unpacking::open(dir, file, listing.clone()).unwrap();
        let (shares, _withdrawn) = Shares::new(Background::default());
        salvage(&folder, &shares, &Meter::default()).unwrap();
        folder
    }

    fn listing() -> Listing {
        let folder = Entry {
            path: "hollow".parse().unwrap(),
            node: Node::EmptyFolder,
        };
        let entries = vec![
            entry("a/one.txt", b"one"),
            entry("a/run.sh", b"two"),
            entry("empty", b""),
            folder,
        ];
        Listing::new(entries).unwrap()
    }

    #[test]
    fn a_folder_is_hidden_until_all_of_it_is_here() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        assert_eq!((folder.layout().count(), folder.run_len(run)), (1, 6));
        assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Right);
        assert!(folder.here().is_full() && folder.done_len() == 6);
        let path = folder
            .finish("downloaded_", &"talks".parse().unwrap())
            .unwrap();
        assert_eq!(path, dir.path().join("downloaded_talks"));
        assert_eq!(std::fs::read(path.join("a/one.txt")).unwrap(), b"one");
        assert_eq!(path.join("empty").metadata().unwrap().len(), 0);
        assert!(path.join("hollow").is_dir());
        let script = path.join("a/run.sh").metadata().unwrap();
        assert_eq!((script.mtime(), script.mtime_nsec()), (1_000_000_000, 5));
        assert!(script.permissions().mode() & 0o100 != 0);
        let plain = path.join("a/one.txt").metadata().unwrap();
        assert!(plain.permissions().mode() & 0o111 == 0);
    }

    #[test]
    fn wrong_bytes_are_noticed_and_what_came_before_an_early_end_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        assert_eq!(folder.put(run, b"onetw", &[]).unwrap(), Verdict::Wrong);
        assert_eq!(folder.put(run, b"onetw0", &[]).unwrap(), Verdict::Wrong);
        assert_eq!(folder.put(run, b"one", &[]).unwrap(), Verdict::Short(0));
        assert!(!folder.here().is_full() && folder.done_len() == 3);
        assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Right);
    }

    /// Two sources lack different files of one run: each is asked for what is missing, and both together have it.
    #[test]
    fn gaps_are_asked_of_the_next_source() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c", "d"];
        let entries = names.map(|name| entry(name, name.repeat(3).as_bytes()));
        let folder = open(dir.path(), &Listing::new(entries.to_vec()).unwrap());
        let run = folder.layout().piece(0).unwrap();
        assert_eq!(folder.wanted_of(run), None);
        let wanted = |folder: &Unpacking| {
            let wanted = folder.wanted_of(run).unwrap();
            (0..4).filter(|file| wanted.has(*file)).collect::<Vec<_>>()
        };
        let first = folder.put(run, b"\0\0\0bbb\0\0\0ddd", &[0..3, 6..9]);
        assert_eq!(first.unwrap(), Verdict::Short(2));
        assert_eq!((wanted(&folder), folder.done_len()), (vec![0, 2], 6));
        let cut = folder.put(run, b"\0\0\0\0\0\0ccc", &[0..2, 3..6]);
        assert_eq!(cut.unwrap(), Verdict::Wrong, "half a file is nothing");
        let nothing = folder.put(run, b"", &[]);
        assert_eq!(nothing.unwrap(), Verdict::Short(0));
        let second = folder.put(run, b"aaa\0\0\0", &[3..5, 5..6]);
        assert_eq!(second.unwrap(), Verdict::Short(1));
        assert_eq!(wanted(&folder), [2]);
        let third = folder.put(run, b"\0\0\0\0\0\0ccc", &[0..3, 3..6]);
        assert_eq!(third.unwrap(), Verdict::Right);
        assert!(folder.here().is_full() && folder.done_len() == 12);
        assert_eq!(std::fs::read(folder.path(2)).unwrap(), b"ccc");
    }

    #[test]
    fn a_folder_of_which_nothing_came_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        folder.close();
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let folder = open(dir.path(), &listing());
        std::fs::write(folder.root().join(".p2pfs-1.part"), "").unwrap();
        folder.close();
        assert!(folder.root().exists(), "a large file had begun");
        let folder = open(dir.path(), &listing());
        std::fs::remove_file(folder.root().join(".p2pfs-1.part")).unwrap();
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"one", &[]).unwrap();
        folder.close();
        assert!(folder.root().exists(), "a small file is here");
    }

    #[test]
    fn the_next_run_keeps_what_is_right_and_clears_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"onetwo", &[]).unwrap();
        std::fs::write(folder.path(1), b"tw0").unwrap();
        let root = folder.root().to_owned();
        drop(folder);
        let folder = open(dir.path(), &listing());
        assert_eq!((folder.root(), folder.done_len()), (root.as_path(), 3));
        assert!(!folder.here().is_full());
        assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Right);
        assert_eq!(std::fs::read(folder.path(1)).unwrap(), b"two");
        let content = folder.content();
        discard(dir.path(), content);
        assert!(folder.root().exists(), "somebody is at it");
        folder.close();
        assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Short(0));
        discard(dir.path(), content);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    /// Two sources send one run at the same time: nobody takes what the other has half written for whole.
    #[test]
    fn copies_of_a_run_that_come_at_a_time_are_written_once() {
        let bytes = [vec![1; 300_000], vec![2; 300_000]];
        let entries = vec![entry("a", &bytes[0]), entry("b", &bytes[1])];
        let listing = Listing::new(entries).unwrap();
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let folder = open(dir.path(), &listing);
            let run = folder.layout().piece(0).unwrap();
            let start = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        start.wait();
                        let verdict = folder.put(run, &bytes.concat(), &[]).unwrap();
                        assert_eq!(verdict, Verdict::Right);
                        for (index, bytes) in bytes.iter().enumerate() {
                            let written = std::fs::read(folder.path(index)).unwrap();
                            assert!(written == *bytes, "{} bytes", written.len());
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn what_lies_in_the_way_is_never_taken_for_right() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        std::fs::write(folder.path(1), b"tw0").unwrap();
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"onetwo", &[]).unwrap_err();
        assert!(!folder.has(run));
    }

    #[test]
    fn what_a_failed_sync_may_have_lost_is_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"onetwo", &[]).unwrap();
        assert_eq!(folder.sync().unwrap(), 1);
        assert_eq!(folder.sync().unwrap(), 0);
        folder.forget(run);
        assert!(!folder.has(run) && folder.done_len() == 0 && !folder.path(0).exists());
        assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Right);
        assert!(folder.here().is_full() && folder.done_len() == 6);
    }

    #[test]
    fn a_folder_that_has_its_name_keeps_it_and_one_that_is_gone_gets_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"onetwo", &[]).unwrap();
        let name = "talks".parse().unwrap();
        let path = folder.finish("", &name).unwrap();
        assert_eq!(folder.finish("", &name).unwrap(), path);
        let folder = open(dir.path(), &listing());
        std::fs::remove_dir_all(folder.root()).unwrap();
        let error = folder.finish("", &name).unwrap_err();
        assert!(error.is_hopeless(), "{error}");
    }

    /// What somebody took out of the hidden folder, or cut short, would be missing under the final name.
    #[test]
    fn a_folder_that_lost_a_file_gets_no_name() {
        let name = "talks".parse().unwrap();
        for is_cut in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let folder = open(dir.path(), &listing());
            let run = folder.layout().piece(0).unwrap();
            folder.put(run, b"onetwo", &[]).unwrap();
            std::fs::remove_file(folder.path(0)).unwrap();
            if is_cut {
                std::fs::write(folder.path(0), b"on").unwrap();
            }
            let error = folder.finish("", &name).unwrap_err();
            assert!(error.is_hopeless(), "{error}");
            assert!(!dir.path().join("talks").exists());
        }
    }

    #[test]
    fn no_two_work_on_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &listing());
        let file = first.file.clone();
        let error = Unpacking::open(dir.path(), file, listing()).unwrap_err();
        assert!(error.reason.contains("already"), "{error}");
    }
}
