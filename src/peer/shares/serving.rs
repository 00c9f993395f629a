//! A shared content that is open for serving, as long as it is what was hashed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::Shares;
use super::offers::Place;
use crate::crypto::content::Tree;
use crate::peer::bundle::Unfolded;
use crate::peer::hashing::{explain, is_lasting};
use crate::peer::readers::Reader;

/// A shared content, open for serving.
#[derive(Debug)]
pub struct Serving {
    pub(super) place: Place,
    pub(super) tree: Arc<Tree>,
    /// Absent for a listing, which lies in memory.
    pub(super) file: Option<File>,
    /// For whom it was opened.
    pub(super) reader: Reader,
    pub(super) shares: Shares,
}

/// The file is not what it was; it has been withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file is here no longer")]
pub struct Gone;

impl Serving {
    /// The hashes of the content.
    #[must_use]
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// For whom it was opened.
    #[must_use]
    pub const fn reader(&self) -> Reader {
        self.reader
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
        self.place.listing()?.unfold()
    }

    fn read_listing(&self, bytes: &mut [u8], offset: u64) -> Option<()> {
        let listing = self.place.listing()?;
        let start = usize::try_from(offset).ok()?;
        let found = listing.bytes.get(start..start.checked_add(bytes.len())?)?;
        bytes.copy_from_slice(found);
        Some(())
    }

    /// Is it still what was hashed? Asked for each piece, so that a changed file is noticed before its
    /// bytes are taken for wrong ones.
    ///
    /// # Errors
    /// When it is not, or is offered no longer to the one for whom it was opened.
    pub fn check(&self) -> Result<(), Gone> {
        if let (Some(file), Some(local)) = (&self.file, self.place.local()) {
            let found = file.metadata();
            if !found.is_ok_and(|found| local.is_still(&found)) {
                let reason = "it changed on disk".to_owned();
                self.shares.withdraw(&self.place, reason);
                return Err(Gone);
            }
        }
        // Of the same folder there may be a newer listing: what matters is that somebody offers it.
        let offers = self.shares.offers();
        let mut places = offers.places.get(&self.tree.id()).into_iter().flatten();
        let is_offered = places.any(|place| self.shares.is_for(place, self.reader));
        is_offered.then_some(()).ok_or(Gone)
    }
}
