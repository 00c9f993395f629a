//! A folder that is being fetched: hidden until all of it is here, checked file by file.
//!
//! It grows under a hidden name in the target directory and gets its final one when everything in it is
//! durable. A run that was killed is gone on with: what lies there is hashed, and fetched again when it is
//! not right.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::shares::Contents;
use super::store::{PART_IS_GONE, StoreError, hidden_stem, safe_file_name, safe_inner_name};
use super::target::{Synced, Verdict};
use crate::disk;
use crate::wire::control::Publication;
use crate::wire::folder::{FileEntry, Listing, Node, Run};
use crate::wire::id::ContentId;
use crate::wire::pieces::{Bitfield, Layout, PIECE_LEN, PieceIndex};
use crate::wire::text::{FileName, fold};

const FOLDER_SUFFIX: &str = ".folder";
/// Names that are tried at a time when two of a folder are one on some systems.
const MAX_CLASHES: u32 = 16;
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
    /// The place for the folder `file` with this listing in `dir`, and what an earlier run left there of it.
    /// Blocking: what is there is hashed.
    ///
    /// # Errors
    /// When the directory cannot be written, or another process is at it.
    pub fn open(dir: &Path, file: Publication, listing: Listing) -> Result<Self, StoreError> {
        let fail = |error: &io::Error| StoreError::new(dir, error);
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
        let runs = listing.runs();
        let layout = layout_of(&runs).map_err(|error| fail(&error))?;
        let (paths, renamed) = places(&listing);
        let folder = Self {
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
        };
        folder.prepare().map_err(|error| fail(&error))?;
        Ok(folder)
    }

    /// Makes the folders and the empty files, and looks for what is here.
    fn prepare(&self) -> io::Result<()> {
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
        for (index, entry) in self.listing.entries().iter().enumerate() {
            if let Node::File(file) = &entry.node {
                self.look_for(index, file)?;
            }
        }
        let mut state = self.state();
        for (number, run) in self.runs.iter().enumerate() {
            let mut files = self.listing.files_of(run);
            let piece = u32::try_from(number).ok();
            let piece = piece.and_then(|number| self.layout().piece(number));
            if let Some(piece) =
                piece.filter(|_| files.all(|(index, _)| state.files.contains(&index)))
            {
                state.runs.insert(piece);
                state.unsynced.push(piece);
            }
        }
        Ok(())
    }

    /// An earlier run may have left it; what is not right is cleared away.
    fn look_for(&self, index: usize, file: &FileEntry) -> io::Result<()> {
        let path = self.path(index);
        if file.len == 0 {
            if !path.exists() {
                self.write(index, file, b"")?;
            }
            self.note(index, file);
        } else if disk::hash_of(&path, file.len)? == Some(file.content.0) {
            self.settle(index, file)?;
        } else {
            disk::remove(&path);
        }
        Ok(())
    }

    /// A file lies at its path with the right bytes.
    fn settle(&self, index: usize, file: &FileEntry) -> io::Result<()> {
        let own = File::open(self.path(index))?;
        disk::set_mode_and_time(&own, file.is_executable, time_of(file))?;
        self.note(index, file);
        Ok(())
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

    /// Checks and writes the files of a run, as far as it goes. Blocking.
    ///
    /// # Errors
    /// What the system says; files that were written count all the same.
    pub fn put(&self, piece: PieceIndex, mut bytes: &[u8]) -> io::Result<Verdict> {
        let Some(run) = self.runs.get(piece.as_usize()) else {
            return Ok(Verdict::Wrong);
        };
        let is_closed = self
            .is_closed
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if *is_closed {
            return Ok(Verdict::Short);
        }
        let writing = &self.writing[piece.as_usize() % WRITERS];
        let _alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, file) in self.listing.files_of(run) {
            let len = usize::try_from(file.len).unwrap_or(usize::MAX);
            let Some((own, rest)) = bytes.split_at_checked(len) else {
                let is_between = bytes.is_empty();
                return Ok(if is_between {
                    Verdict::Short
                } else {
                    Verdict::Wrong
                });
            };
            bytes = rest;
            if *blake3::hash(own).as_bytes() != file.content.0 {
                return Ok(Verdict::Wrong);
            }
            // A run that was doubled comes twice.
            if !self.state().files.contains(&index) {
                self.write(index, file, own)?;
                self.note(index, file);
            }
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
    /// for a moment longer.
    pub fn close(&self) {
        *self
            .is_closed
            .write()
            .unwrap_or_else(PoisonError::into_inner) = true;
        let _ = self.lock.unlock();
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

/// Where each entry goes: names that are harmless on every system, and no two that are one on some.
fn places(listing: &Listing) -> (Vec<PathBuf>, usize) {
    // What each foreign folder is called here, and the names that are taken in each of ours.
    let mut folders: HashMap<String, PathBuf> = HashMap::from([(String::new(), PathBuf::new())]);
    let mut taken: HashSet<(PathBuf, String)> = HashSet::new();
    // Which number a name gets that clashes.
    let mut copies: HashMap<(PathBuf, String), u32> = HashMap::new();
    let mut renamed = 0;
    let mut paths = Vec::with_capacity(listing.entries().len());
    for entry in listing.entries() {
        let (mut foreign, mut own) = (String::new(), PathBuf::new());
        let mut components = entry.path.components().peekable();
        while let Some(component) = components.next() {
            if !foreign.is_empty() {
                foreign.push('/');
            }
            foreign.push_str(component);
            let is_folder = components.peek().is_some() || entry.node == Node::EmptyFolder;
            if let Some(known) = folders.get(&foreign).filter(|_| is_folder) {
                own.clone_from(known);
                continue;
            }
            let plain = (own.clone(), fold(&safe_inner_name(component, 1)));
            let next = copies.entry(plain).or_insert(1);
            let mut is_free = |name: &String| taken.insert((own.clone(), fold(name)));
            let name = (*next..next.saturating_add(MAX_CLASHES))
                .map(|copy| safe_inner_name(component, copy))
                .inspect(|_| *next += 1)
                .find(&mut is_free);
            // Names that are made to clash: told apart by where they stand.
            let name = name.unwrap_or_else(|| {
                let mut others = (0_u32..).map(|number| format!("_{}_{number}", paths.len()));
                others.find(&mut is_free).unwrap_or_default()
            });
            renamed += usize::from(name != component);
            own.push(name);
            if is_folder {
                folders.insert(foreign.clone(), own.clone());
            }
        }
        paths.push(own);
    }
    (paths, renamed)
}

#[cfg(test)]
mod tests {
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
        Unpacking::open(dir, file, listing.clone()).unwrap()
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
        assert_eq!(folder.put(run, b"onetwo").unwrap(), Verdict::Right);
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
    fn wrong_bytes_are_noticed_and_an_early_end_keeps_what_came() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        assert_eq!(folder.put(run, b"onetw0").unwrap(), Verdict::Wrong);
        assert_eq!(folder.put(run, b"onetw").unwrap(), Verdict::Wrong);
        assert_eq!(folder.put(run, b"one").unwrap(), Verdict::Short);
        assert!(!folder.here().is_full() && folder.done_len() == 3);
        assert_eq!(folder.put(run, b"onetwo").unwrap(), Verdict::Right);
    }

    #[test]
    fn the_next_run_keeps_what_is_right_and_clears_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"onetwo").unwrap();
        std::fs::write(folder.path(1), b"tw0").unwrap();
        let root = folder.root().to_owned();
        drop(folder);
        let folder = open(dir.path(), &listing());
        assert_eq!((folder.root(), folder.done_len()), (root.as_path(), 3));
        assert!(!folder.here().is_full());
        assert_eq!(folder.put(run, b"onetwo").unwrap(), Verdict::Right);
        assert_eq!(std::fs::read(folder.path(1)).unwrap(), b"two");
        let content = folder.content();
        discard(dir.path(), content);
        assert!(folder.root().exists(), "somebody is at it");
        folder.close();
        assert_eq!(folder.put(run, b"onetwo").unwrap(), Verdict::Short);
        discard(dir.path(), content);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn names_are_harmless_and_no_two_are_one() {
        let names = ["A", "a", "CON", "x:y", "x?y", "\\up", "dir/A", "DIR/a"];
        let listing = Listing::new(names.iter().map(|name| entry(name, b"1")).collect()).unwrap();
        let (paths, renamed) = places(&listing);
        let folded: HashSet<_> = paths
            .iter()
            .map(|path| fold(&path.to_string_lossy()))
            .collect();
        assert_eq!(folded.len(), names.len(), "{paths:?}");
        assert!(renamed >= 5, "{paths:?}");
        for path in &paths {
            assert!(path.components().count() <= 2, "{path:?}");
            assert!(
                !path.to_string_lossy().contains([':', '\\', '?']),
                "{path:?}"
            );
        }
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
                        let verdict = folder.put(run, &bytes.concat()).unwrap();
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
        folder.put(run, b"onetwo").unwrap_err();
        assert!(!folder.has(run));
    }

    #[test]
    fn what_a_failed_sync_may_have_lost_is_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"onetwo").unwrap();
        assert_eq!(folder.sync().unwrap(), 1);
        assert_eq!(folder.sync().unwrap(), 0);
        folder.forget(run);
        assert!(!folder.has(run) && folder.done_len() == 0 && !folder.path(0).exists());
        assert_eq!(folder.put(run, b"onetwo").unwrap(), Verdict::Right);
        assert!(folder.here().is_full() && folder.done_len() == 6);
    }

    #[test]
    fn a_folder_that_has_its_name_keeps_it_and_one_that_is_gone_gets_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"onetwo").unwrap();
        let name = "talks".parse().unwrap();
        let path = folder.finish("", &name).unwrap();
        assert_eq!(folder.finish("", &name).unwrap(), path);
        let folder = open(dir.path(), &listing());
        std::fs::remove_dir_all(folder.root()).unwrap();
        let error = folder.finish("", &name).unwrap_err();
        assert!(error.is_hopeless(), "{error}");
    }

    #[test]
    fn many_names_that_clash_are_told_apart() {
        // All of them become underscores.
        let odd = ['?', '*', '|', '<', '>', '"', ':', '\\'];
        let name =
            |number: usize| -> String { (0..4).map(|at| odd[number >> (3 * at) & 7]).collect() };
        let mut entries: Vec<_> = (0..4096).map(|number| entry(&name(number), b"1")).collect();
        entries.extend((0..4096).map(|number| entry(&number.to_string(), b"1")));
        let listing = Listing::new(entries).unwrap();
        let (paths, _) = places(&listing);
        let different: HashSet<_> = paths.iter().collect();
        assert_eq!(different.len(), 8192);
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
