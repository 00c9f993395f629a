//! Walks a folder that is to be shared: which files lie in it, and what is passed over.
//!
//! No link is followed, whether it leads out, in a circle, or to a neighbour: what is shared is what
//! lies in the folder.

use std::collections::HashSet;
use std::fs::{DirEntry, FileType};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::hashing::explain;
use super::store::HIDDEN_PREFIX;
use crate::keyfile::holds_keys;
use crate::wire::folder::{Entry, FolderPath, MAX_ENTRIES, Node};

/// Lines about what is passed over; a summary follows them.
const MAX_LINES: usize = 20;
/// Why nothing is shared of a directory in which p2pfs keeps its keys.
pub const KEYS: &str = "p2pfs keeps its keys there";

/// What was found.
#[derive(Debug, Default)]
pub struct Walked {
    /// Regular files: where in the folder, and where on this machine.
    pub files: Vec<(FolderPath, PathBuf)>,
    /// Bytes of them, as far as the walk saw.
    pub len: u64,
    /// Folders.
    pub folders: Vec<FolderPath>,
    /// Everything else.
    pub skipped: Skipped,
}

/// What is not shared although it lies there.
#[derive(Debug, Default)]
pub struct Skipped {
    lines: Vec<String>,
    more: usize,
}

impl Skipped {
    /// Passes over the file at `path`.
    pub fn add(&mut self, path: &Path, reason: &str) {
        if self.lines.len() < MAX_LINES {
            self.lines
                .push(format!("{} is skipped: {reason}", path.display()));
        } else {
            self.more += 1;
        }
    }

    /// What people should know of it.
    pub fn into_lines(self) -> impl Iterator<Item = String> {
        let more = self.more;
        let summary = (more > 0).then(|| format!("and {more} more are skipped"));
        self.lines.into_iter().chain(summary)
    }
}

/// Walks the folder `root`. Blocking.
///
/// # Errors
/// When it cannot be read, or holds too much.
pub fn walk(root: &Path) -> Result<Walked, String> {
    let mut walked = Walked::default();
    let mut left: Vec<(Option<FolderPath>, PathBuf)> = vec![(None, root.to_owned())];
    while let Some((place, dir)) = left.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if place.is_none() => return Err(explain(&error)),
            Err(error) => {
                walked.skipped.add(&dir, &explain(&error));
                continue;
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    walked.skipped.add(&dir, &explain(&error));
                    break;
                }
            };
            let path = entry.path();
            match judge(&entry, place.as_ref()) {
                Ok(Some((below, kind))) if kind.is_dir() => left.push((Some(below), path)),
                Ok(Some((below, _))) => {
                    walked.len += entry.metadata().map_or(0, |found| found.len());
                    walked.files.push((below, path));
                }
                Ok(None) => {}
                Err(reason) => walked.skipped.add(&path, &reason),
            }
            if walked.files.len() + walked.folders.len() + left.len() > MAX_ENTRIES {
                return Err(format!("it holds more than {MAX_ENTRIES} files"));
            }
        }
        walked.folders.extend(place);
    }
    Ok(walked)
}

/// Where the entry stands in the listing; `None` for what is ours and no file yet.
fn judge(
    entry: &DirEntry,
    parent: Option<&FolderPath>,
) -> Result<Option<(FolderPath, FileType)>, String> {
    let name = entry.file_name();
    let name = name.to_str().ok_or("its name is not UTF-8")?;
    if name.starts_with(HIDDEN_PREFIX) {
        return Ok(None);
    }
    let kind = entry.file_type().map_err(|error| explain(&error))?;
    let reason = match kind {
        _ if kind.is_dir() && holds_keys(&entry.path()) => Some(KEYS),
        _ if kind.is_file() || kind.is_dir() => None,
        _ if kind.is_symlink() => Some("it is a link"),
        _ if kind.is_fifo() => Some("it is a FIFO"),
        _ if kind.is_socket() => Some("it is a socket"),
        _ => Some("it is a device"),
    };
    if let Some(reason) = reason {
        return Err(reason.to_owned());
    }
    let below = parent.map_or_else(
        || name.to_owned(),
        |parent| format!("{}/{name}", parent.as_str()),
    );
    let below = below.parse().map_err(|_| "it lies too deep")?;
    Ok(Some((below, kind)))
}

/// Those of `folders` in which nothing lies, as entries of a listing that holds `entries`.
#[must_use]
pub fn empty_folders(folders: Vec<FolderPath>, entries: &[Entry]) -> Vec<Entry> {
    let parent = |path: &FolderPath| {
        let parent = path.as_str().rsplit_once('/');
        parent.map(|(parent, _)| parent.to_owned())
    };
    let files = entries.iter().filter_map(|entry| parent(&entry.path));
    let full: HashSet<String> = files.chain(folders.iter().filter_map(parent)).collect();
    let empty = folders
        .into_iter()
        .filter(|path| !full.contains(path.as_str()));
    empty
        .map(|path| Entry {
            path,
            node: Node::EmptyFolder,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn paths(walked: &Walked) -> Vec<String> {
        let paths = walked.files.iter().map(|(path, _)| path.to_string());
        let mut paths: Vec<_> = paths.collect();
        paths.sort();
        paths
    }

    fn fifo(path: &Path) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }

    #[test]
    fn regular_files_and_empty_folders_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        for name in ["x", "a/y", "a/b/z", ".hidden", "d/.p2pfs-77.part"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let walked = walk(dir.path()).unwrap();
        assert_eq!(paths(&walked), [".hidden", "a/b/z", "a/y", "x"]);
        assert_eq!(walked.len, 7 + 5 + 3 + 1);
        assert_eq!(walked.skipped.into_lines().count(), 0);
        let entries: Vec<_> = ["a/b/z", "a/y", "x"].map(entry).into();
        let mut empty: Vec<_> = empty_folders(walked.folders, &entries)
            .into_iter()
            .map(|entry| entry.path.to_string())
            .collect();
        empty.sort();
        assert_eq!(empty, ["a/b/c", "d"]);
    }

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.parse().unwrap(),
            node: Node::EmptyFolder,
        }
    }

    #[test]
    fn what_is_no_file_is_passed_over_with_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        fifo(&at("fifo"));
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink("/etc", at("out")).unwrap();
        symlink(".", at("circle")).unwrap();
        symlink("file", at("neighbour")).unwrap();
        fs::write(dir.path().join(OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
        let walked = walk(dir.path()).unwrap();
        assert_eq!(paths(&walked), ["file"]);
        let lines: Vec<_> = walked.skipped.into_lines().collect();
        assert_eq!(lines.len(), 6, "{lines:?}");
        for words in ["FIFO", "socket", "link", "UTF-8"] {
            assert!(lines.iter().any(|line| line.contains(words)), "{lines:?}");
        }
    }

    #[test]
    fn keys_are_passed_over_with_all_that_lies_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        for (role, key) in [("peer", "identity.key"), ("tracker", "tracker.seed")] {
            let home = dir.path().join("state").join(role);
            fs::create_dir_all(&home).unwrap();
            fs::write(home.join(key), [7; 32]).unwrap();
            fs::write(home.join("beside"), "x").unwrap();
        }
        fs::write(dir.path().join("file"), "x").unwrap();
        let walked = walk(dir.path()).unwrap();
        assert_eq!(paths(&walked), ["file"]);
        let lines: Vec<_> = walked.skipped.into_lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.contains(KEYS)), "{lines:?}");
    }

    #[test]
    fn many_lines_end_in_a_summary() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..30 {
            symlink("gone", dir.path().join(number.to_string())).unwrap();
        }
        let lines: Vec<_> = walk(dir.path()).unwrap().skipped.into_lines().collect();
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines[MAX_LINES], "and 10 more are skipped");
    }

    #[test]
    fn what_lies_too_deep_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join(vec!["d"; 64].join("/"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        let walked = walk(dir.path()).unwrap();
        assert_eq!((walked.files.len(), walked.folders.len()), (0, 64));
        let lines: Vec<_> = walked.skipped.into_lines().collect();
        assert!(lines[0].contains("too deep"), "{lines:?}");
    }
}
