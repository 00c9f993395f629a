//! How a folder that was fetched ends: under its final name, or left hidden for the next time.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::Unpacking;
use crate::disk;
use crate::peer::name::name_anew;
use crate::peer::store::{PART_IS_GONE, StoreError, is_part};
use crate::wire::folder::Node;
use crate::wire::text::FileName;

impl Unpacking {
    /// Has somebody removed it, or a folder in it? What is only away, with the directory that it grows in,
    /// may come back. Blocking.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        let folders: BTreeSet<_> = self.paths.iter().filter_map(|path| path.parent()).collect();
        let lacks_folders = || {
            let mut folders = folders.iter().map(|folder| self.root.join(folder));
            !folders.all(|folder| folder.is_dir())
        };
        // It may go and come back at any moment.
        if lacks_folders() && !self.is_away() && lacks_folders() {
            return true;
        }
        let is_replaced = || self.root.symlink_metadata().is_ok() && self.is_away();
        self.is_away() && (disk::is_removed(&self.lock) || is_replaced())
    }

    /// Is it not to be found where it grows?
    fn is_away(&self) -> bool {
        !disk::is_at(&self.lock, &self.root)
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
            self.sync_name()?;
            return Ok(path);
        }
        let is_whole = self.is_whole();
        if self.is_away() {
            return Err(fail(&self.dir, &io::ErrorKind::NotFound.into()));
        }
        if !is_whole {
            return Err(StoreError::lasting(&self.dir, PART_IS_GONE));
        }
        self.open_up()
            .and_then(|()| disk::sync_file_system(&self.lock))
            .map_err(|error| fail(&self.dir, &error))?;
        let path = name_anew(&self.root, &self.dir, (prefix, name), fail)?;
        self.state().named = Some(path.clone());
        self.sync_name()?;
        Ok(path)
    }

    /// Makes the final name durable.
    fn sync_name(&self) -> Result<(), StoreError> {
        let synced = disk::sync_dir(&self.dir);
        synced.map_err(|error| StoreError::new(&self.dir, &error))
    }

    /// Gives its folders the rights that the user's other new folders have.
    fn open_up(&self) -> io::Result<()> {
        let folders: BTreeSet<_> = self
            .paths
            .iter()
            .flat_map(|path| path.ancestors())
            // The folder itself, also when nothing lies in it.
            .chain([Path::new("")])
            .collect();
        for folder in folders {
            let path = self.root.join(folder);
            if path.is_dir() {
                disk::make_public(&File::open(path)?, 0o777);
            }
        }
        Ok(())
    }

    /// Nobody writes to it from here on, and another run may begin: sources that are let go of may hold this
    /// for a moment longer. Nothing stays when nothing of it is here. Blocking.
    pub fn close(&self) {
        *self
            .is_closed
            .write()
            .unwrap_or_else(PoisonError::into_inner) = true;
        // Whoever removed it may have begun once more.
        let is_own = self.state().named.is_none() && !self.is_away();
        if is_own && !self.holds_bytes() {
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
}
