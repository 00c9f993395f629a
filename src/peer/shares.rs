//! What this peer offers: files and folders, what serves each content, and what had to be taken back.
//!
//! A file is served as long as it is the file that was hashed: same length, time of change and inode.
//! One that changed is withdrawn, with a line; its old id never names other bytes. The files of a folder
//! are served by their contents, under the folder's name alone.

mod handle;
mod offers;
mod prepare;
mod serving;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

pub use self::offers::Entry;
use self::offers::{Offers, Place};
pub use self::serving::{Gone, Serving};
use super::changes::Changes;
use super::event::{Event, ShareError};
use super::hash_store::HashStore;
use super::hashing::{Hashed, Stamp, explain, open_plain};
use super::kept::Kept;
use super::readers::{Reader, Readers};
use crate::crypto::content::Tree;
use crate::wire::control::{Audience, Publication};
use crate::wire::id::ContentId;
use crate::wire::text::FileName;

/// A file or folder that we share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Name, id and length, as others see them.
    pub file: Publication,
    /// Where it lies, as it was named.
    pub path: PathBuf,
    /// Where that led when it was named, without any link. What lies behind other links later is not what
    /// somebody wanted to share. Of a locked file of ours it is the copy.
    pub real: PathBuf,
    /// It came as a download: whoever deletes it wants it to be shared no longer.
    pub is_download: bool,
    /// Whom it is for.
    pub readers: Readers,
    /// What is in it.
    pub contents: Contents,
}

impl Shared {
    /// Is it shared as a locked copy, which lies elsewhere than at the path?
    #[must_use]
    pub const fn is_locked_copy(&self) -> bool {
        self.file.kind.is_locked() && !self.is_download
    }
}

/// How much somebody gets who downloads a share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Files: one, or those of a folder.
    pub files: usize,
    /// Bytes of them.
    pub len: u64,
}

/// What is to be hashed.
#[derive(Clone, Debug)]
pub enum Subject {
    /// What somebody names at this moment, under its own name or this one, for these. Links are followed.
    Named(PathBuf, Option<FileName>, Readers),
    /// What was downloaded a moment ago, under its name, for these. A link in its place is not followed.
    Downloaded(PathBuf, FileName, Readers),
    /// What was shared before: it has to lie where it lay, and to be a file or a folder as it was.
    Before(Shared),
    /// A file that somebody names, under its own name or this one, in the form of its locked copy.
    Locked {
        /// Where the file lies.
        path: PathBuf,
        /// Its name for others.
        name: Option<FileName>,
        /// The copy.
        copy: PathBuf,
        /// Whom it is for.
        readers: Readers,
    },
}

/// A share that had to be taken back, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// What it was.
    pub shared: Shared,
    /// What happened to it.
    pub reason: String,
}

/// A share that is offered now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What it is, and for whom.
    pub shared: Shared,
    /// What was offered in its place, or shall now be published for others.
    pub gone: Vec<Shared>,
}

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

impl Subject {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Named(path, ..) | Self::Downloaded(path, ..) | Self::Locked { path, .. } => path,
            Self::Before(shared) => &shared.path,
        }
    }

    /// Whom it is for.
    #[must_use]
    pub const fn readers(&self) -> &Readers {
        match self {
            Self::Named(.., readers) | Self::Downloaded(.., readers) => readers,
            Self::Locked { readers, .. } => readers,
            Self::Before(shared) => &shared.readers,
        }
    }

    /// The locked copy that is shared in the place of what lies at the path.
    pub(super) fn copy(&self) -> Option<&Path> {
        match self {
            Self::Locked { copy, .. } => Some(copy),
            Self::Before(shared) if shared.is_locked_copy() => Some(&shared.real),
            _ => None,
        }
    }

    const fn is_download(&self) -> bool {
        match self {
            Self::Named(..) | Self::Locked { .. } => false,
            Self::Downloaded(..) => true,
            Self::Before(shared) => shared.is_download,
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

    /// Hashes the file or folder at `path` and offers it to everybody, under its own name or `name`.
    ///
    /// # Errors
    /// When it is neither, cannot be read, or changes meanwhile.
    pub async fn add(&self, path: &Path, name: Option<FileName>) -> Result<Shared, ShareError> {
        let subject = Subject::Named(path.to_owned(), name, Readers::Everybody);
        self.take(subject).await.map(|taken| taken.shared)
    }

    /// Hashes and offers it, in the place of all that is offered of its path under its name.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn take(&self, subject: Subject) -> Result<Taken, ShareError> {
        if let Ok(path) = std::path::absolute(subject.path()) {
            self.told().remove(&path);
        }
        let is_decision = matches!(subject, Subject::Named(..) | Subject::Locked { .. });
        let entry = self.prepare(subject).await?;
        let mut offers = self.offers();
        if is_decision {
            self.0.background.kept.decide(&entry.shared);
        }
        Ok(self.put(&mut offers, entry))
    }

    fn put(&self, offers: &mut Offers, entry: Entry) -> Taken {
        let kept = &self.0.background.kept;
        let before = kept.add(&entry.shared);
        let (key, entry) = (entry.key(), Arc::new(entry));
        let shared = &entry.shared;
        let same_name = offers.named(&shared.file.name);
        let others = same_name.filter(|old| old.shared.path == shared.path && old.key() != key);
        let others: Vec<_> = others.cloned().collect();
        let mut gone = Vec::new();
        for old in others {
            offers.remove(&old);
            self.look_at_others(&old.shared);
            gone.push(old.shared.clone());
        }
        offers.insert(Arc::clone(&entry));
        gone.extend(before.filter(|old| {
            let old_key = (old.file.name.clone(), old.file.content);
            // It may be for others now that it is not shared from here.
            let is_elsewhere = old_key != key && offers.entries.contains_key(&old_key);
            is_elsewhere || old.is_locked_copy() && old.real != shared.real
        }));
        let mut shared = shared.clone();
        shared.readers = kept.readers_of(&shared.file);
        Taken { shared, gone }
    }

    /// Offers the file at `path` to `readers`. Its hashes are known: it was verified piece by piece as it came.
    /// Blocking.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn adopt(
        &self,
        path: &Path,
        file: Publication,
        tree: Arc<Tree>,
        readers: Readers,
    ) -> Result<Taken, ShareError> {
        let fail = |error: std::io::Error| ShareError::Local {
            path: path.to_owned(),
            reason: explain(&error),
        };
        let path = std::path::absolute(path).map_err(fail)?;
        let real = path.canonicalize().map_err(fail)?;
        let opened = open_plain(&path);
        let found = opened.and_then(|file| file.metadata()).map_err(fail)?;
        let hashed = Hashed {
            stamp: Stamp::of(&found),
            // It was written a moment ago: its times cannot tell it from what is written next.
            is_settled: false,
            tree,
        };
        let mut entry = Entry::of_file(file, path, real, hashed);
        entry.is_adopted = true;
        entry.shared.is_download = true;
        entry.shared.readers = readers;
        Ok(self.put(&mut self.offers(), entry))
    }

    /// Is this offered, and does it still lie where it was? Blocking.
    #[must_use]
    pub fn lies_here(&self, file: &Publication) -> bool {
        let key = (file.name.clone(), file.content);
        let entry = self.offers().entries.get(&key).cloned();
        entry.is_some_and(|entry| entry.shared.real.exists() && !entry.is_changed_file())
    }

    /// For whom this is to be published; absent when it is not.
    #[must_use]
    pub fn audience_of(&self, file: &Publication) -> Option<Audience> {
        let key = (file.name.clone(), file.content);
        let offers = self.offers();
        let entry = offers.entries.get(&key)?;
        self.readers_of(entry).audience()
    }

    /// From wherever else it is shared, whether that is offered or not.
    fn readers_of(&self, entry: &Entry) -> Readers {
        self.0.background.kept.readers_of(&entry.shared.file)
    }

    /// May `reader` have it?
    fn is_for(&self, place: &Place, reader: Reader) -> bool {
        self.readers_of(&place.entry).has(reader)
    }

    /// Offers what was prepared of something that was shared before, for whom that is now. Nothing happens when
    /// nobody wants it any more, or something else in its place: it was decided upon after this was begun.
    #[must_use]
    pub fn replace(&self, mut entry: Entry) -> Option<Taken> {
        let mut offers = self.offers();
        let now = self.0.background.kept.now(&entry.shared)?;
        let shared = &mut entry.shared;
        let is_same_subject = now.real == shared.real
            && now.file.kind == shared.file.kind
            && now.is_download == shared.is_download;
        if !is_same_subject {
            return None;
        }
        shared.readers = now.readers;
        Some(self.put(&mut offers, entry))
    }

    /// Offers it no longer; was it offered? It is shared again when it is back.
    pub fn take_out(&self, entry: &Arc<Entry>) -> bool {
        let was_offered = self.offers().remove(entry);
        if was_offered {
            self.look_at_others(&entry.shared);
        }
        was_offered
    }

    /// What lies elsewhere with the same name and content is offered now, if it was shared too.
    fn look_at_others(&self, gone: &Shared) {
        for other in self.0.background.kept.others(gone) {
            self.0.background.changes.mark(&other);
        }
    }

    /// What is offered of `path` under `name`.
    #[must_use]
    pub fn at(&self, path: &Path, name: &FileName) -> Vec<Arc<Entry>> {
        let offers = self.offers();
        let entries = offers.named(name);
        let entries = entries.filter(|entry| entry.shared.path == path);
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
        for entry in &gone {
            self.look_at_others(&entry.shared);
        }
        let offered = gone.iter().map(|entry| entry.shared.clone());
        offered.chain(waiting).collect()
    }

    /// What is offered, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Shared> {
        self.offers()
            .entries
            .values()
            .map(|entry| Shared {
                readers: self.readers_of(entry),
                ..entry.shared.clone()
            })
            .collect()
    }

    /// The same, with what was shared at the last start and is still to be read: without an id.
    #[must_use]
    pub fn list_all(&self) -> Vec<Shared> {
        let unread = self.0.background.kept.unread();
        let mut all = self.list();
        for mut shared in unread {
            let is_same =
                |other: &Shared| other.path == shared.path && other.file.name == shared.file.name;
            if !all.iter().any(is_same) {
                let Publication {
                    name, len, kind, ..
                } = shared.file;
                let files = usize::from(!kind.is_folder());
                let len = if kind.is_folder() { 0 } else { len };
                shared.contents = Contents { files, len };
                shared.file = Publication::being_hashed(name, len, kind);
                all.push(shared);
            }
        }
        all.sort_by(|a, b| a.file.name.cmp(&b.file.name));
        all
    }

    /// Bytes that were read to be hashed, since the start.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.0.read_bytes.load(Ordering::Relaxed)
    }

    /// Opens something with this content, if it is offered to `reader` and still the same. Blocking.
    #[must_use]
    pub fn open(&self, content: &ContentId, reader: Reader) -> Option<Serving> {
        let places = self.offers().places.get(content).cloned();
        let places = places.into_iter().flatten();
        let mut places = places.filter(|place| self.is_for(place, reader));
        places.find_map(|place| {
            let file = match place.local() {
                None => None,
                Some(local) => match open_plain(&local.path) {
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
                reader,
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

#[cfg(test)]
mod tests;
