//! Lays out a folder before it is fetched: what is in it, what is here of it, and what is missing.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;

use super::{Unpacking, time_of};
use crate::disk;
use crate::peer::store::StoreError;
use crate::wire::folder::{FileEntry, Node};

impl Unpacking {
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

    /// A file that travels alone has arrived at its path. Blocking.
    ///
    /// # Errors
    /// What the system says.
    pub fn note_large(&self, index: usize, file: &FileEntry) -> Result<(), StoreError> {
        let path = self.path(index);
        self.settle(index, file)
            .map_err(|error| StoreError::new(&path, &error))
    }
}
