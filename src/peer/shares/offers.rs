//! What is offered, and where the bytes of each content lie.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Contents, Shared};
use crate::crypto::content::{Tree, hash_piece};
use crate::peer::bundle::Unfolded;
use crate::peer::hashing::{Hashed, Stamp};
use crate::peer::readers::Readers;
use crate::wire::control::Publication;
use crate::wire::id::ContentId;
use crate::wire::pieces::Layout;
use crate::wire::text::FileName;

/// Copies of one content in one folder that are remembered: another serves when one is gone.
pub(super) const MAX_COPIES: usize = 4;

/// By name and content: two contents may bear one name.
type Key = (FileName, ContentId);

#[derive(Debug, Default)]
pub(super) struct Offers {
    pub(super) entries: BTreeMap<Key, Arc<Entry>>,
    /// What serves each content.
    pub(super) places: HashMap<ContentId, Vec<Place>>,
}

/// A share with all that serves it.
#[derive(Debug)]
pub struct Entry {
    pub(super) shared: Shared,
    pub(super) files: Vec<Local>,
    /// Of a folder.
    pub(super) listing: Option<ListingBytes>,
    /// It came as a download, verified piece by piece.
    pub(super) is_adopted: bool,
}

/// A file on this machine, and what it was when it was hashed.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) path: PathBuf,
    pub(super) hashed: Hashed,
}

/// The listing of a folder.
#[derive(Debug)]
pub(super) struct ListingBytes {
    pub(super) bytes: Vec<u8>,
    tree: Arc<Tree>,
    /// As long as somebody fetches from it: one for all of them, for it may be large.
    unfolded: Mutex<Weak<Unfolded>>,
}

/// Something with a content: a file of an entry, or its listing.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) entry: Arc<Entry>,
    /// Its number in the entry; absent for the listing.
    file: Option<usize>,
}

impl Entry {
    /// The file at `path`, which leads to `real`, shared by itself.
    pub(super) fn of_file(file: Publication, path: PathBuf, real: PathBuf, hashed: Hashed) -> Self {
        let (files, len) = (1, file.len);
        let shared = Shared {
            file,
            path,
            real: real.clone(),
            is_download: false,
            readers: Readers::Everybody,
            contents: Contents { files, len },
        };
        Self {
            shared,
            files: vec![Local { path: real, hashed }],
            listing: None,
            is_adopted: false,
        }
    }

    /// What others see of it.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn key(&self) -> Key {
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
            let found = std::fs::symlink_metadata(&local.path);
            found.is_ok_and(|found| local.is_still(&found))
        };
        self.listing.is_none() && !self.files.iter().all(is_same)
    }
}

impl Place {
    pub(super) fn tree(&self) -> Option<&Arc<Tree>> {
        match self.file {
            Some(index) => self.entry.files.get(index).map(|local| &local.hashed.tree),
            None => self.entry.listing.as_ref().map(|listing| &listing.tree),
        }
    }

    /// The listing, if it is that.
    pub(super) fn listing(&self) -> Option<&ListingBytes> {
        let listing = self.entry.listing.as_ref();
        listing.filter(|_| self.file.is_none())
    }

    /// The file, if it is one.
    pub(super) fn local(&self) -> Option<&Local> {
        self.entry.files.get(self.file?)
    }
}

impl Offers {
    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
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

    pub(super) fn remove(&mut self, entry: &Arc<Entry>) -> bool {
        let key = entry.key();
        let is_here = self.is_here(entry);
        if is_here {
            self.entries.remove(&key);
            self.forget_places(entry);
        }
        is_here
    }

    pub(super) fn is_here(&self, entry: &Arc<Entry>) -> bool {
        let here = self.entries.get(&entry.key());
        here.is_some_and(|other| Arc::ptr_eq(other, entry))
    }

    /// What is offered under `name`.
    pub(super) fn named(&self, name: &FileName) -> impl Iterator<Item = &Arc<Entry>> {
        let first = (name.clone(), ContentId([0; 32]));
        let entries = self.entries.range(first..);
        let entries = entries.take_while(move |((other, _), _)| other == name);
        entries.map(|(_, entry)| entry)
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

impl Local {
    /// Are these the bytes that were hashed?
    pub(super) fn is_still(&self, found: &Metadata) -> bool {
        Stamp::of(found).has_bytes_of(&self.hashed.stamp)
    }
}

impl ListingBytes {
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, String> {
        Ok(Self {
            tree: Arc::new(tree_of(&bytes)?),
            bytes,
            unfolded: Mutex::default(),
        })
    }

    /// What it is the content of.
    pub(super) fn content(&self) -> ContentId {
        self.tree.id()
    }

    /// The folder's files and runs: the same for all who fetch from it.
    pub(super) fn unfold(&self) -> Option<Arc<Unfolded>> {
        let unfolded = self.unfolded.lock();
        let mut unfolded = unfolded.unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = unfolded.upgrade() {
            return Some(known);
        }
        let new = Arc::new(Unfolded::new(&self.bytes)?);
        *unfolded = Arc::downgrade(&new);
        drop(unfolded);
        Some(new)
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
