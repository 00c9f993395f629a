//! A folder that is being fetched: hidden until all of it is here, checked file by file.
//!
//! It grows under a hidden name in the target directory and gets its final one when everything in it is
//! durable. A run that was killed is gone on with: `peer/salvage` finds what is right of what lies there.

mod ending;
mod preparing;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::places::places;
use super::shares::Contents;
use super::store::{StoreError, hidden_stem};
use super::target::{Synced, Verdict};
use crate::disk;
use crate::wire::control::Publication;
use crate::wire::folder::{FileEntry, Listing, Run};
use crate::wire::id::ContentId;
use crate::wire::pieces::{Bitfield, Layout, PIECE_LEN, PieceIndex};
use crate::wire::transfer::FileSet;

const FOLDER_SUFFIX: &str = ".folder";
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

    /// What lies in it.
    #[must_use]
    pub const fn listing(&self) -> &Listing {
        &self.listing
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
pub(super) mod tests;
