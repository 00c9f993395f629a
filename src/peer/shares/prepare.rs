//! Hashes what is to be shared: a file, or all files of a folder and its listing.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::offers::{Entry, ListingBytes, Local};
use super::{Contents, Shared, Shares, Subject};
use crate::keyfile::holds_keys;
use crate::peer::event::{Event, ShareError};
use crate::peer::hashing::{Hashed, Looked, explain, hash_all};
use crate::peer::meter::Meter;
use crate::peer::readers::Readers;
use crate::peer::walk::{KEYS, empty_folders, walk};
use crate::wire::control::{Publication, PublicationKind};
use crate::wire::folder::{self, FileEntry, Listing, MAX_LISTING_LEN, Modified, Node};
use crate::wire::text::FileName;

/// Why what lies behind a link is not shared.
const ELSEWHERE: &str = "it leads elsewhere now; add it again to share that";

impl Shares {
    /// Hashes a file or folder, to be offered by [`Self::replace`]. Bytes of what did not change are not
    /// read. Dropping the future gives up.
    ///
    /// # Errors
    /// As [`Self::add`]; and when something else lies in the place of what was shared before.
    pub async fn prepare(&self, subject: Subject) -> Result<Entry, ShareError> {
        let meter = Arc::new(Meter::default());
        let path = subject.path().to_owned();
        let (shares, job_meter) = (self.clone(), Arc::clone(&meter));
        let job = move || shares.hash(&subject, &job_meter);
        let job = tokio::task::spawn_blocking(job);
        let fail = |reason| ShareError::Local {
            path: path.clone(),
            reason,
        };
        let events = self.0.background.events.as_ref();
        let done = meter.in_view(&path, events, job).await;
        let done = done.map_err(|error| fail(error.to_string()))?;
        done.map_err(fail)
    }

    /// What is to be hashed, as it can be told of before that. Blocking.
    ///
    /// # Errors
    /// When it cannot be shared.
    pub fn unhashed(subject: &Subject) -> Result<Publication, String> {
        let Seen {
            name, found, kind, ..
        } = look(subject)?;
        let len = if kind.is_folder() { 0 } else { found.len() };
        Ok(Publication::being_hashed(name, len, kind))
    }

    fn hash(&self, subject: &Subject, meter: &Meter) -> Result<Entry, String> {
        let seen = look(subject)?;
        let mut entry = if seen.found.is_dir() {
            self.hash_folder(seen, meter)?
        } else {
            self.hash_file(seen, meter)?
        };
        entry.shared.is_download = subject.is_download();
        entry.shared.readers = subject.readers().clone();
        Ok(entry)
    }

    fn hash_file(&self, seen: Seen, meter: &Meter) -> Result<Entry, String> {
        let Seen {
            path,
            real,
            found,
            name,
            kind,
        } = seen;
        meter.len.store(found.len(), Ordering::Relaxed);
        let paths = [real.clone()];
        let hashed = self.hash_files(&path, &paths, meter).pop();
        let (hashed, _) = hashed.ok_or("it could not be hashed")??;
        let (content, len) = (hashed.tree.id(), hashed.stamp.len);
        let file = Publication {
            name,
            content,
            len,
            kind,
        };
        Ok(Entry::of_file(file, path, real, hashed))
    }

    fn hash_folder(&self, seen: Seen, meter: &Meter) -> Result<Entry, String> {
        let Seen {
            path, real, name, ..
        } = seen;
        let walked = walk(&real)?;
        meter.len.store(walked.len, Ordering::Relaxed);
        let (places, paths): (Vec<_>, Vec<_>) = walked.files.into_iter().unzip();
        let results = self.hash_files(&path, &paths, meter);
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
        let len = bytes.len() as u64;
        let listing = ListingBytes::new(bytes)?;
        let file = Publication {
            name,
            content: listing.content(),
            len,
            kind: PublicationKind::Folder,
        };
        Ok(Entry {
            shared: Shared {
                file,
                path,
                real,
                is_download: false,
                readers: Readers::Everybody,
                contents,
            },
            files,
            listing: Some(listing),
            is_adopted: false,
        })
    }

    /// Hashes the files at `paths`, which belong to what is shared at `root`. Each comes with whether its
    /// owner may run it.
    fn hash_files(
        &self,
        root: &Path,
        paths: &[PathBuf],
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
        let looked = hash_all(paths, &known, meter);
        let fresh = looked.iter().flatten().filter(|looked| !looked.is_kept);
        hashes.keep(fresh.map(|looked| looked.hashed.clone()));
        let read = meter.read.load(Ordering::Relaxed);
        self.0.read_bytes.fetch_add(read, Ordering::Relaxed);
        let with_mode = |looked: Looked| {
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
}

/// What is to be shared.
struct Seen {
    /// As it was named.
    path: PathBuf,
    /// Where that leads, without any link.
    real: PathBuf,
    found: Metadata,
    name: FileName,
    kind: PublicationKind,
}

fn look(subject: &Subject) -> Result<Seen, String> {
    let path = std::path::absolute(subject.path()).map_err(|error| explain(&error))?;
    let lies_at = subject.copy().unwrap_or(&path);
    let real = lies_at.canonicalize().map_err(|error| explain(&error))?;
    let found = std::fs::symlink_metadata(&real).map_err(|error| explain(&error))?;
    let own_name = || {
        let name = path.file_name().or(real.file_name())?;
        FileName::from_local(&name.to_string_lossy())
    };
    let name = match subject {
        Subject::Named(_, name, _) | Subject::Locked { name, .. } => name.clone().or_else(own_name),
        Subject::Downloaded(_, name, _) => {
            if path.is_symlink() {
                return Err(ELSEWHERE.to_owned());
            }
            Some(name.clone())
        }
        Subject::Before(shared) => {
            // Nobody has said that this is for others.
            if real != shared.real {
                return Err(ELSEWHERE.to_owned());
            }
            if found.is_dir() != shared.file.kind.is_folder() {
                let now = if found.is_dir() {
                    "a folder"
                } else {
                    "no folder"
                };
                return Err(format!("it is {now} now; add it again to share that"));
            }
            Some(shared.file.name.clone())
        }
    };
    let name = name.ok_or("it has no name to share it under; give one with --as")?;
    let kind = match subject {
        _ if found.is_dir() => PublicationKind::Folder,
        Subject::Locked { .. } => PublicationKind::LockedFile,
        // What came as a locked file, or was locked here, is one as long as it is the same.
        Subject::Before(shared) if shared.file.kind.is_locked() => PublicationKind::LockedFile,
        _ => PublicationKind::File,
    };
    let home = if found.is_dir() {
        Some(real.as_path())
    } else {
        real.parent()
    };
    // A locked copy lies elsewhere than what it was made of, which may be gone since.
    let origin = subject.copy().and_then(|_| path.canonicalize().ok());
    let origin = origin.as_deref().and_then(Path::parent);
    if home.into_iter().chain(origin).any(holds_keys) {
        return Err(KEYS.to_owned());
    }
    Ok(Seen {
        path,
        real,
        found,
        name,
        kind,
    })
}
