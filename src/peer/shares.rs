//! What this peer offers: files and folders, what serves each content, and what had to be taken back.
//!
//! A file is served as long as it is the file that was hashed: same length, time of change and inode.
//! One that changed is withdrawn, with a line; its old id never names other bytes. The files of a folder
//! are served by their contents, under the folder's name alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::bundle::Unfolded;
use super::changes::Changes;
use super::event::{Event, Hashing, ShareError};
use super::hash_store::HashStore;
use super::hashing::{Hashed, Links, Meter, Stamp, explain, hash_all, is_lasting, open_plain};
use super::kept::Kept;
use super::walk::{KEYS, empty_folders, walk};
use crate::crypto::content::{Tree, hash_piece};
use crate::keyfile::holds_keys;
use crate::wire::control::{Publication, PublicationKind};
use crate::wire::folder::{self, FileEntry, Listing, MAX_LISTING_LEN, Modified, Node};
use crate::wire::id::ContentId;
use crate::wire::pieces::Layout;
use crate::wire::text::FileName;

/// How often is told how far the hashing is; what is done before the first time is not worth a line.
const TELL_AFTER: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Copies of one content in one folder that are remembered: another serves when one is gone.
const MAX_COPIES: usize = 4;

/// A file or folder that we share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Name, id and length, as others see them.
    pub file: Publication,
    /// Where it lies.
    pub path: PathBuf,
    /// What is in it.
    pub contents: Contents,
}

/// How much somebody gets who downloads a share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Files: one, or those of a folder.
    pub files: usize,
    /// Bytes of them.
    pub len: u64,
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
type Key = (FileName, ContentId);

/// All shares of a peer; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    offers: Mutex<Offers>,
    withdrawn: mpsc::UnboundedSender<Withdrawn>,
    background: Background,
    read_bytes: AtomicU64,
    /// What people were told of each folder: after a change they are told what is new.
    told: Mutex<HashMap<PathBuf, HashSet<String>>>,
}

/// What shares are hashed with, kept in, and told to.
#[derive(Clone, Debug, Default)]
pub struct Background {
    /// What is known of files that did not change.
    pub hashes: HashStore,
    /// What is to be shared again.
    pub kept: Kept,
    /// What may have changed.
    pub changes: Changes,
    /// Who is told of progress and of what is passed over.
    pub events: Option<mpsc::Sender<Event>>,
}

#[derive(Debug, Default)]
struct Offers {
    entries: BTreeMap<Key, Arc<Entry>>,
    /// What serves each content.
    places: HashMap<ContentId, Vec<Place>>,
}

/// A share with all that serves it.
#[derive(Debug)]
pub struct Entry {
    shared: Shared,
    files: Vec<Local>,
    /// Of a folder.
    listing: Option<ListingBytes>,
    /// It came as a download, verified piece by piece.
    is_adopted: bool,
}

#[derive(Debug)]
struct Local {
    path: PathBuf,
    hashed: Hashed,
}

#[derive(Debug)]
struct ListingBytes {
    bytes: Vec<u8>,
    tree: Arc<Tree>,
    /// As long as somebody fetches from it: one for all of them, for it may be large.
    unfolded: Mutex<Weak<Unfolded>>,
}

/// Something with a content: a file of an entry, or its listing.
#[derive(Clone, Debug)]
struct Place {
    entry: Arc<Entry>,
    file: Option<usize>,
}

/// A shared content, open for serving.
#[derive(Debug)]
pub struct Serving {
    place: Place,
    tree: Arc<Tree>,
    /// Absent for a listing, which lies in memory.
    file: Option<File>,
    shares: Shares,
}

/// The file is not what it was; it has been withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file is here no longer")]
pub struct Gone;

impl Entry {
    /// What others see of it.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    fn key(&self) -> Key {
        let file = &self.shared.file;
        (file.name.clone(), file.content)
    }

    /// Was it offered because it was downloaded? It is then not read once more as long as it looks as it did.
    #[must_use]
    pub const fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    /// Is it a file that is not what was hashed? Folders are looked through to know.
    #[must_use]
    pub fn is_changed_file(&self) -> bool {
        let is_same = |local: &Local| {
            let found = std::fs::metadata(&local.path);
            found.is_ok_and(|found| Stamp::of(&found).has_bytes_of(&local.hashed.stamp))
        };
        self.listing.is_none() && !self.files.iter().all(is_same)
    }
}

impl Place {
    fn tree(&self) -> Option<&Arc<Tree>> {
        match self.file {
            Some(index) => self.entry.files.get(index).map(|local| &local.hashed.tree),
            None => self.entry.listing.as_ref().map(|listing| &listing.tree),
        }
    }

    fn local(&self) -> Option<&Local> {
        self.entry.files.get(self.file?)
    }
}

impl Offers {
    fn insert(&mut self, entry: Arc<Entry>) {
        if let Some(before) = self.entries.insert(entry.key(), Arc::clone(&entry)) {
            self.forget_places(&before);
        }
        let files = (0..entry.files.len()).map(Some);
        let listing = entry.listing.iter().map(|_| None);
        for file in files.chain(listing) {
            let entry = Arc::clone(&entry);
            let place = Place { entry, file };
            let Some(content) = place.tree().map(|tree| tree.id()) else {
                continue;
            };
            let places = self.places.entry(content).or_default();
            let mut last = places.iter().rev().take(MAX_COPIES);
            let is_common = places.len() >= MAX_COPIES
                && last.all(|other| Arc::ptr_eq(&other.entry, &place.entry));
            if !is_common {
                places.push(place);
            }
        }
    }

    fn remove(&mut self, entry: &Arc<Entry>) -> bool {
        let key = entry.key();
        let is_here = self.is_here(entry);
        if is_here {
            self.entries.remove(&key);
            self.forget_places(entry);
        }
        is_here
    }

    fn is_here(&self, entry: &Arc<Entry>) -> bool {
        let here = self.entries.get(&entry.key());
        here.is_some_and(|other| Arc::ptr_eq(other, entry))
    }

    fn forget_places(&mut self, entry: &Arc<Entry>) {
        let files = entry.files.iter().map(|local| local.hashed.tree.id());
        let listing = entry.listing.iter().map(|listing| listing.tree.id());
        for content in files.chain(listing) {
            if let Some(places) = self.places.get_mut(&content) {
                places.retain(|place| !Arc::ptr_eq(&place.entry, entry));
                if places.is_empty() {
                    self.places.remove(&content);
                }
            }
        }
    }
}

impl Shares {
    /// Nothing is shared; what has to be withdrawn later is told through the receiver.
    #[must_use]
    pub fn new(background: Background) -> (Self, mpsc::UnboundedReceiver<Withdrawn>) {
        let (withdrawn, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            offers: Mutex::default(),
            withdrawn,
            background,
            read_bytes: AtomicU64::new(0),
            told: Mutex::default(),
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// Hashes the file or folder at `path` and offers it, under its own name or `name`.
    ///
    /// # Errors
    /// When it is neither, cannot be read, or changes meanwhile.
    pub async fn add(&self, path: &Path, name: Option<FileName>) -> Result<Shared, ShareError> {
        if let Ok(path) = std::path::absolute(path) {
            self.told().remove(&path);
        }
        let entry = Arc::new(self.prepare(path, name).await?);
        self.0.background.kept.add(&entry.shared);
        self.offers().insert(Arc::clone(&entry));
        Ok(entry.shared.clone())
    }

    /// Hashes the file or folder at `path`, to be offered by [`Self::replace`]. Bytes of what did not
    /// change are not read. Dropping the future gives up.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn prepare(&self, path: &Path, name: Option<FileName>) -> Result<Entry, ShareError> {
        struct Cancel(Arc<Meter>);
        impl Drop for Cancel {
            fn drop(&mut self) {
                self.0.is_cancelled.store(true, Ordering::Relaxed);
            }
        }
        let meter = Arc::new(Meter::default());
        let _cancel = Cancel(Arc::clone(&meter));
        let (shares, job_path, job_meter) = (self.clone(), path.to_owned(), Arc::clone(&meter));
        let job = move || shares.hash(&job_path, name, &job_meter);
        let mut job = tokio::task::spawn_blocking(job);
        let mut ticks = interval_at(Instant::now() + TELL_AFTER, TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let fail = |reason| ShareError::Local {
            path: path.to_owned(),
            reason,
        };
        loop {
            tokio::select! {
                done = &mut job => {
                    let done = done.map_err(|error| fail(error.to_string()))?;
                    return done.map_err(fail);
                }
                _ = ticks.tick() => self.tell(Event::Hashing(Hashing {
                    path: path.to_owned(),
                    done: meter.done.load(Ordering::Relaxed),
                    len: meter.len.load(Ordering::Relaxed),
                })),
            }
        }
    }

    /// Offers the file at `path`, whose hashes are known: it was verified piece by piece as it came. Blocking.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn adopt(
        &self,
        path: &Path,
        file: Publication,
        tree: Arc<Tree>,
    ) -> Result<Shared, ShareError> {
        let fail = |error: std::io::Error| ShareError::Local {
            path: path.to_owned(),
            reason: explain(&error),
        };
        let path = std::path::absolute(path).map_err(fail)?;
        let opened = open_plain(&path, Links::Refuse);
        let found = opened.and_then(|file| file.metadata()).map_err(fail)?;
        let hashed = Hashed {
            stamp: Stamp::of(&found),
            // It was written a moment ago: its times cannot tell it from what is written next.
            is_settled: false,
            tree,
        };
        let len = file.len;
        let shared = Shared {
            file,
            path: path.clone(),
            contents: Contents { files: 1, len },
        };
        let entry = Entry {
            shared: shared.clone(),
            files: vec![Local { path, hashed }],
            listing: None,
            is_adopted: true,
        };
        self.0.background.kept.add(&shared);
        self.offers().insert(Arc::new(entry));
        Ok(shared)
    }

    /// Is this offered?
    #[must_use]
    pub fn has(&self, file: &Publication) -> bool {
        let key = (file.name.clone(), file.content);
        self.offers().entries.contains_key(&key)
    }

    /// Offers what was prepared, in the place of `before`; says which of those were taken back. Nothing
    /// happens when nobody wants it any more.
    pub fn replace(&self, before: &[Arc<Entry>], entry: Entry) -> Option<Vec<Shared>> {
        let kept = &self.0.background.kept;
        let mut offers = self.offers();
        if !kept.is_wanted(&entry.shared) {
            return None;
        }
        kept.add(&entry.shared);
        let entry = Arc::new(entry);
        let mut gone = Vec::new();
        for old in before {
            let is_other = old.key() != entry.key();
            if offers.remove(old) && is_other {
                gone.push(old.shared.clone());
            }
        }
        offers.insert(entry);
        Some(gone)
    }

    /// Offers it no longer; was it offered? It is shared again when it is back.
    pub fn take_out(&self, entry: &Arc<Entry>) -> bool {
        self.offers().remove(entry)
    }

    /// What is offered of `path` under `name`.
    #[must_use]
    pub fn at(&self, path: &Path, name: &FileName) -> Vec<Arc<Entry>> {
        let offers = self.offers();
        let entries = offers.entries.values().filter(|entry| {
            let shared = &entry.shared;
            shared.path == path && shared.file.name == *name
        });
        entries.cloned().collect()
    }

    /// Takes back what is selected, for good; returns it.
    pub fn remove(&self, selects: impl Fn(&Shared) -> bool) -> Vec<Shared> {
        let mut offers = self.offers();
        let forgotten = self.0.background.kept.remove(&selects);
        let entries = offers.entries.values();
        let gone: Vec<_> = entries
            .filter(|entry| selects(&entry.shared))
            .cloned()
            .collect();
        for entry in &gone {
            offers.remove(entry);
            self.told().remove(&entry.shared.path);
        }
        // What is gone from the disk was not offered, yet it is not wanted any more either.
        let is_offered = |other: &Shared| {
            let same = |entry: &Arc<Entry>| {
                entry.shared.path == other.path && entry.shared.file.name == other.file.name
            };
            gone.iter().any(same)
        };
        let waiting = forgotten.into_iter().filter(|other| !is_offered(other));
        let offered = gone.iter().map(|entry| entry.shared.clone());
        offered.chain(waiting).collect()
    }

    /// What is offered, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Shared> {
        self.offers()
            .entries
            .values()
            .map(|entry| entry.shared.clone())
            .collect()
    }

    /// Bytes that were read to be hashed, since the start.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.0.read_bytes.load(Ordering::Relaxed)
    }

    /// Opens something with this content, if it is offered and still the same. Blocking.
    #[must_use]
    pub fn open(&self, content: &ContentId) -> Option<Serving> {
        let places = self.offers().places.get(content).cloned();
        places.into_iter().flatten().find_map(|place| {
            let file = match place.local() {
                None => None,
                Some(local) => match open_plain(&local.path, place.links()) {
                    Ok(file) => Some(file),
                    Err(error) => {
                        self.withdraw(&place, error.to_string());
                        return None;
                    }
                },
            };
            let serving = Serving {
                tree: Arc::clone(place.tree()?),
                place,
                file,
                shares: self.clone(),
            };
            serving.check().is_ok().then_some(serving)
        })
    }

    /// Takes back a file that is not what it was; of a folder the listing has to be made anew.
    fn withdraw(&self, place: &Place, reason: String) {
        let shared = &place.entry.shared;
        self.0.background.changes.mark(&shared.path);
        if place.entry.listing.is_none() && self.take_out(&place.entry) {
            let _ = self.0.withdrawn.send(Withdrawn {
                shared: shared.clone(),
                reason,
            });
        }
    }

    fn hash(&self, path: &Path, name: Option<FileName>, meter: &Meter) -> Result<Entry, String> {
        let path = std::path::absolute(path).map_err(|error| explain(&error))?;
        let found = std::fs::metadata(&path).map_err(|error| explain(&error))?;
        let named = |name: FileName| Ok::<_, String>(name);
        let own_name = || {
            let name = path.canonicalize().ok();
            let name = path.file_name().or(name.as_deref()?.file_name())?;
            FileName::from_local(&name.to_string_lossy())
        };
        let name = name.map_or_else(
            || own_name().ok_or("it has no name to share it under; give one with --as".to_owned()),
            named,
        )?;
        let real = path.canonicalize().map_err(|error| explain(&error))?;
        let home = if found.is_dir() {
            Some(real.as_path())
        } else {
            real.parent()
        };
        if home.is_some_and(holds_keys) {
            return Err(KEYS.to_owned());
        }
        if found.is_dir() {
            return self.hash_folder(path, name, meter);
        }
        meter.len.store(found.len(), Ordering::Relaxed);
        let paths = [path.clone()];
        let hashed = self.hash_files(&path, &paths, Links::Follow, meter).pop();
        let (hashed, _) = hashed.ok_or("it could not be hashed")??;
        let (content, len) = (hashed.tree.id(), hashed.stamp.len);
        let file = Publication {
            name,
            content,
            len,
            kind: PublicationKind::File,
        };
        let local = Local {
            path: path.clone(),
            hashed,
        };
        Ok(Entry {
            shared: Shared {
                file,
                path,
                contents: Contents { files: 1, len },
            },
            files: vec![local],
            listing: None,
            is_adopted: false,
        })
    }

    fn hash_folder(&self, path: PathBuf, name: FileName, meter: &Meter) -> Result<Entry, String> {
        let walked = walk(&path)?;
        meter.len.store(walked.len, Ordering::Relaxed);
        let (places, paths): (Vec<_>, Vec<_>) = walked.files.into_iter().unzip();
        let results = self.hash_files(&path, &paths, Links::Refuse, meter);
        if meter.is_cancelled.load(Ordering::Relaxed) {
            return Err("it was cancelled".to_owned());
        }
        let (mut skipped, mut files, mut entries) = (walked.skipped, Vec::new(), Vec::new());
        for ((place, path), result) in places.into_iter().zip(paths).zip(results) {
            match result {
                Ok((hashed, is_executable)) => {
                    let (seconds, nanos) = hashed.stamp.modified;
                    let file = FileEntry {
                        len: hashed.stamp.len,
                        content: hashed.tree.id(),
                        is_executable,
                        modified: Modified {
                            seconds,
                            nanos: u32::try_from(nanos).unwrap_or(0),
                        },
                    };
                    entries.push(folder::Entry {
                        path: place,
                        node: Node::File(file),
                    });
                    files.push(Local { path, hashed });
                }
                Err(reason) => skipped.add(&path, &reason),
            }
        }
        self.tell_skipped(&path, skipped.into_lines().collect());
        entries.extend(empty_folders(walked.folders, &entries));
        let listing = Listing::new(entries).map_err(|error| error.to_string())?;
        let bytes = listing.encode();
        if bytes.len() as u64 > MAX_LISTING_LEN {
            return Err("its listing is larger than 128 MiB".to_owned());
        }
        let contents = Contents {
            files: files.len(),
            len: listing.total_len(),
        };
        let tree = tree_of(&bytes)?;
        let file = Publication {
            name,
            content: tree.id(),
            len: bytes.len() as u64,
            kind: PublicationKind::Folder,
        };
        let tree = Arc::new(tree);
        Ok(Entry {
            shared: Shared {
                file,
                path,
                contents,
            },
            files,
            listing: Some(ListingBytes {
                bytes,
                tree,
                unfolded: Mutex::default(),
            }),
            is_adopted: false,
        })
    }

    /// Hashes the files at `paths`, which belong to what is shared at `root`. Each comes with whether its
    /// owner may run it.
    fn hash_files(
        &self,
        root: &Path,
        paths: &[PathBuf],
        links: Links,
        meter: &Meter,
    ) -> Vec<Result<(Hashed, bool), String>> {
        let hashes = &self.0.background.hashes;
        let mut known = hashes.known();
        let before: Vec<_> = {
            let offers = self.offers();
            let entries = offers.entries.values();
            let same = entries.filter(|entry| entry.shared.path == root);
            same.cloned().collect()
        };
        for local in before.iter().flat_map(|entry| &entry.files) {
            known.add(&local.hashed);
        }
        let looked = hash_all(paths, links, &known, meter);
        let fresh = looked.iter().flatten().filter(|looked| !looked.is_kept);
        hashes.keep(fresh.map(|looked| looked.hashed.clone()));
        let read = meter.read.load(Ordering::Relaxed);
        self.0.read_bytes.fetch_add(read, Ordering::Relaxed);
        let with_mode = |looked: super::hashing::Looked| {
            let is_executable = looked.found.mode() & 0o100 != 0;
            (looked.hashed, is_executable)
        };
        looked
            .into_iter()
            .map(|looked| looked.map(with_mode))
            .collect()
    }

    fn tell_skipped(&self, folder: &Path, lines: Vec<String>) {
        let known: HashSet<_> = lines.iter().cloned().collect();
        let before = self.told().insert(folder.to_owned(), known);
        let before = before.unwrap_or_default();
        for text in lines {
            if !before.contains(&text) {
                self.tell(Event::Warning { text });
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, HashMap<PathBuf, HashSet<String>>> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &self.0.background.events {
            let _ = events.try_send(event);
        }
    }

    fn offers(&self) -> MutexGuard<'_, Offers> {
        self.0.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn links(&self) -> Links {
        match self.entry.listing {
            Some(_) => Links::Refuse,
            None => Links::Follow,
        }
    }
}

impl Serving {
    /// The hashes of the content.
    #[must_use]
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Reads exactly `bytes.len()` bytes from `offset` on. Blocking.
    ///
    /// # Errors
    /// When the file is not what it was.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), Gone> {
        let Some(file) = &self.file else {
            return self.read_listing(bytes, offset).ok_or(Gone);
        };
        file.read_exact_at(bytes, offset).map_err(|error| {
            if is_lasting(&error) {
                self.shares.withdraw(&self.place, explain(&error));
            }
            Gone
        })
    }

    /// Files and runs of a folder that we share; `None` for everything else, whatever is in it. Blocking.
    #[must_use]
    pub fn unfold(&self) -> Option<Arc<Unfolded>> {
        let listing = self.place.entry.listing.as_ref();
        let listing = listing.filter(|_| self.place.file.is_none())?;
        let unfolded = listing.unfolded.lock();
        let mut unfolded = unfolded.unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = unfolded.upgrade() {
            return Some(known);
        }
        let new = Arc::new(Unfolded::new(&listing.bytes)?);
        *unfolded = Arc::downgrade(&new);
        drop(unfolded);
        Some(new)
    }

    fn read_listing(&self, bytes: &mut [u8], offset: u64) -> Option<()> {
        let listing = self.place.entry.listing.as_ref()?;
        let start = usize::try_from(offset).ok()?;
        let found = listing.bytes.get(start..start.checked_add(bytes.len())?)?;
        bytes.copy_from_slice(found);
        Some(())
    }

    /// Is it still what was hashed? Asked for each piece, so that a changed file is noticed before its
    /// bytes are taken for wrong ones.
    ///
    /// # Errors
    /// When it is not, or is offered no longer.
    pub fn check(&self) -> Result<(), Gone> {
        if let (Some(file), Some(local)) = (&self.file, self.place.local()) {
            let is_same = file
                .metadata()
                .is_ok_and(|found| Stamp::of(&found).has_bytes_of(&local.hashed.stamp));
            if !is_same {
                self.shares
                    .withdraw(&self.place, "it changed on disk".to_owned());
                return Err(Gone);
            }
        }
        // Of the same folder there may be a newer listing: what matters is that somebody offers it.
        if self.shares.offers().places.contains_key(&self.tree.id()) {
            Ok(())
        } else {
            Err(Gone)
        }
    }
}

/// The hashes of bytes that are here.
fn tree_of(bytes: &[u8]) -> Result<Tree, String> {
    let layout = Layout::new(bytes.len() as u64).map_err(|error| error.to_string())?;
    let hashes = layout.pieces().map(|piece| {
        let start = usize::try_from(layout.offset(piece)).unwrap_or(usize::MAX);
        let piece_bytes = bytes.get(start..).unwrap_or_default();
        let len = layout.piece_len(piece).min(piece_bytes.len());
        hash_piece(layout, piece, &piece_bytes[..len])
    });
    Ok(Tree::new(layout, hashes.collect()))
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
        let (shares, _withdrawn) = Shares::new(Background::default());
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
        let (shares, mut withdrawn) = Shares::new(Background::default());
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
        let (shares, mut withdrawn) = Shares::new(Background::default());
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
        let (shares, _withdrawn) = Shares::new(Background::default());
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
        let (shares, _withdrawn) = Shares::new(Background::default());
        for (path, reason) in [
            (fifo, "not a plain file"),
            (dir.path().join("gone"), "no such file"),
            (PathBuf::from("/dev/zero"), "not a plain file"),
        ] {
            let error = shares.add(&path, None).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(shares.list().is_empty());
    }

    fn read_all(shares: &Shares, content: &ContentId) -> Vec<u8> {
        let serving = shares.open(content).unwrap();
        let layout = serving.tree().layout();
        let mut bytes = vec![0; usize::try_from(layout.len()).unwrap()];
        serving.read_at(&mut bytes, 0).unwrap();
        assert_eq!(*blake3::hash(&bytes).as_bytes(), content.0);
        bytes
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("talks/old/empty")).unwrap();
        for name in ["talks/a.txt", "talks/b.txt", "talks/old/a.txt"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::copy(
            dir.path().join("talks/a.txt"),
            dir.path().join("talks/copy"),
        )
        .unwrap();
        dir
    }

    #[tokio::test]
    async fn a_folder_is_one_share_and_serves_all_that_lies_in_it() {
        let dir = folder();
        let run = dir.path().join("talks/b.txt");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&run, mode).unwrap();
        let (shares, _withdrawn) = Shares::new(Background::default());
        let shared = share(&shares, &dir.path().join("talks")).await;
        assert_eq!(shares.list(), std::slice::from_ref(&shared));
        assert_eq!(shared.file.kind, PublicationKind::Folder);
        assert_eq!(shared.file.name.as_str(), "talks");
        let bytes = read_all(&shares, &shared.file.content);
        assert_eq!(bytes.len() as u64, shared.file.len);
        let listing = Listing::decode(&bytes).unwrap();
        let total = "talks/a.txt".len() * 3 + "talks/old/a.txt".len();
        assert_eq!(shared.contents.len, total as u64);
        assert_eq!(
            (listing.total_len(), shared.contents.files),
            (total as u64, 4)
        );
        let paths: Vec<_> = listing
            .entries()
            .iter()
            .map(|entry| entry.path.as_str())
            .collect();
        assert_eq!(paths, ["a.txt", "b.txt", "copy", "old/a.txt", "old/empty"]);
        for (path, file) in listing.files() {
            let local = dir.path().join("talks").join(path.as_str());
            let served = read_all(&shares, &file.content);
            assert_eq!(served, std::fs::read(&local).unwrap());
            let found = local.metadata().unwrap();
            assert_eq!(file.is_executable, path.as_str() == "b.txt");
            assert_eq!(file.modified.seconds, found.mtime());
            assert_eq!(i64::from(file.modified.nanos), found.mtime_nsec());
        }
        assert_eq!(shares.remove(|other| *other == shared).len(), 1);
        assert!(shares.open(&shared.file.content).is_none());
        for (_, file) in listing.files() {
            assert!(shares.open(&file.content).is_none());
        }
        assert!(shares.offers().places.is_empty());
    }

    #[tokio::test]
    async fn a_changed_file_of_a_folder_is_not_served_and_the_folder_is_looked_at_again() {
        let dir = folder();
        let path = dir.path().join("talks");
        let background = Background::default();
        let (shares, mut withdrawn) = Shares::new(background.clone());
        let shared = share(&shares, &path).await;
        let listing = read_all(&shares, &shared.file.content);
        let listing = Listing::decode(&listing).unwrap();
        let content_of = |wanted: &str| {
            let mut files = listing.files();
            let found = files.find(|(path, _)| path.as_str() == wanted);
            found.unwrap().1.content
        };
        std::fs::write(path.join("b.txt"), "another").unwrap();
        std::fs::remove_file(path.join("a.txt")).unwrap();
        assert!(shares.open(&content_of("b.txt")).is_none());
        assert!(
            shares.open(&content_of("a.txt")).is_some(),
            "there is a copy of it"
        );
        assert!(withdrawn.try_recv().is_err(), "the folder is still there");
        assert_eq!(background.changes.next().await, path);
        let before = shares.at(&path, &shared.file.name);
        let read = shares.read_bytes();
        let entry = shares.prepare(&path, Some(shared.file.name.clone()));
        let gone = shares.replace(&before, entry.await.unwrap()).unwrap();
        assert_eq!(gone, std::slice::from_ref(&shared));
        assert!(shares.read_bytes() > read);
        let now = shares.list();
        assert_eq!(now.len(), 1);
        assert_ne!(now[0].file.content, shared.file.content);
        assert!(shares.open(&shared.file.content).is_none());
    }

    #[tokio::test]
    async fn what_nobody_wants_any_more_is_not_offered_when_it_is_ready() {
        let dir = folder();
        let path = dir.path().join("talks");
        let (shares, _withdrawn) = Shares::new(Background::default());
        let shared = share(&shares, &path).await;
        let name = Some(shared.file.name.clone());
        let entry = shares.prepare(&path, name).await.unwrap();
        shares.remove(|_| true);
        assert_eq!(shares.replace(&[], entry), None);
        assert!(shares.list().is_empty());
    }

    #[tokio::test]
    async fn a_thousand_equal_files_are_remembered_a_few_times() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..1000 {
            std::fs::write(dir.path().join(number.to_string()), "same").unwrap();
        }
        let (shares, _withdrawn) = Shares::new(Background::default());
        let shared = share(&shares, dir.path()).await;
        assert_eq!(shared.contents.files, 1000);
        let content = ContentId(*blake3::hash(b"same").as_bytes());
        assert_eq!(shares.offers().places[&content].len(), MAX_COPIES);
        shares.remove(|_| true);
        assert!(shares.offers().places.is_empty());
    }
}
