//! Files that are being fetched: a hidden part file, and at the end the final name.
//!
//! The part file lies in the target directory, so that the last step is a rename which never replaces
//! anything. Until then nothing bears the final name: whatever is killed, `downloaded_*` is whole or not
//! there. The one place where a foreign name becomes the name of a file is [`safe_file_name`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;

use crate::disk;
use crate::wire::id::ContentId;
use crate::wire::pieces::Layout;
use crate::wire::text::FileName;

const PART_PREFIX: &str = ".p2pfs-";
const PART_SUFFIX: &str = ".part";
/// Longest name of a file, in bytes, on every system that matters.
const MAX_NAME_LEN: usize = 255;
/// Windows drops these at the end of a name.
const ENDS_NO_NAME: [char; 2] = ['.', ' '];
/// Part files that are tried when others clear them away.
const PART_TRIES: u32 = 8;
/// Numbers that are tried when a name is taken.
const MAX_COPIES: u32 = 10_000;

/// Why a file cannot be written. The words follow "cannot write PATH:".
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct StoreError {
    /// File or directory.
    pub path: PathBuf,
    /// Why, and what to do.
    pub reason: String,
}

/// A file of which parts are here; removed when dropped before [`Partial::finish`].
#[derive(Debug)]
pub struct Partial {
    file: Arc<File>,
    dir: PathBuf,
    part: String,
    is_finished: bool,
}

impl Partial {
    /// A place for `content` in `dir`, with room for all of it.
    ///
    /// # Errors
    /// When the directory is missing, not writable or full.
    pub fn create(
        dir: &Path,
        content: ContentId,
        layout: Layout,
        random: u32,
    ) -> Result<Self, StoreError> {
        let fail = |error: &io::Error| StoreError {
            path: dir.to_owned(),
            reason: explain(error),
        };
        let free = disk::free_space(dir).map_err(|error| fail(&error))?;
        if free < layout.len() {
            let (need, free) = (ByteSize(layout.len()), ByteSize(free));
            let reason = format!("it needs {need}, {free} are free there");
            return Err(StoreError {
                path: dir.to_owned(),
                reason,
            });
        }
        let prefix = format!(
            "{PART_PREFIX}{}-",
            &content.to_hex()[..ContentId::SHORT_LEN]
        );
        disk::remove_abandoned(dir, &prefix, PART_SUFFIX);
        let partial = (0..PART_TRIES)
            .find_map(|number| {
                Self::open_part(dir, format!("{prefix}{random:08x}{number}{PART_SUFFIX}"))
                    .transpose()
            })
            .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
            .map_err(|error| fail(&error))?;
        disk::reserve(&partial.file, layout.len()).map_err(|error| fail(&error))?;
        Ok(partial)
    }

    /// Creates a part file and holds it; `None` when somebody took it for an abandoned one meanwhile.
    fn open_part(dir: &Path, part: String) -> io::Result<Option<Self>> {
        let file = disk::create_new(dir, &part)?;
        // Held as long as this process lives: others may remove what nobody holds.
        let is_held = file.try_lock().is_ok();
        let is_there = std::fs::symlink_metadata(dir.join(&part)).is_ok();
        let partial = Self {
            file: Arc::new(file),
            dir: dir.to_owned(),
            part,
            is_finished: false,
        };
        Ok((is_held && is_there).then_some(partial))
    }

    /// The file, for positioned writes by several threads.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Makes the file durable and gives it its name: `prefix` and `name`, or with a number behind it when
    /// that is taken. Blocking.
    ///
    /// # Errors
    /// When the disk fails; the part file is removed then.
    pub fn finish(mut self, prefix: &str, name: &FileName) -> Result<PathBuf, StoreError> {
        let fail = |path: &Path, error: &io::Error| StoreError {
            path: path.to_owned(),
            reason: explain(error),
        };
        self.file
            .sync_all()
            .map_err(|error| fail(&self.dir, &error))?;
        for copy in 1..=MAX_COPIES {
            let name = safe_file_name(prefix, name.as_str(), copy);
            let path = self.dir.join(&name);
            match disk::rename_new(&self.dir, &self.part, &name) {
                Ok(()) => {
                    self.is_finished = true;
                    disk::sync_dir(&self.dir).map_err(|error| fail(&self.dir, &error))?;
                    return Ok(path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fail(&path, &error)),
            }
        }
        let reason = "there are too many files of this name".to_owned();
        Err(StoreError {
            path: self.dir.join(safe_file_name(prefix, name.as_str(), 1)),
            reason,
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_finished {
            disk::remove(&self.dir.join(&self.part));
        }
    }
}

/// Writes `bytes` at `offset`. Blocking.
///
/// # Errors
/// What the system says.
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// What the system's no means to a person.
#[must_use]
pub fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such directory".to_owned(),
        io::ErrorKind::NotADirectory => "it is not a directory".to_owned(),
        io::ErrorKind::PermissionDenied => "it is not yours to write to".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "it is on a read-only file system".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        io::ErrorKind::QuotaExceeded => "your quota is used up".to_owned(),
        io::ErrorKind::FileTooLarge => "files may not become so large there".to_owned(),
        _ => error.to_string(),
    }
}

/// The name on disk of the `copy`th file with a foreign `name`: harmless on every system, whatever the
/// name is, and with its ending in sight.
#[must_use]
pub fn safe_file_name(prefix: &str, name: &str, copy: u32) -> String {
    use sanitise_file_name::{Options, sanitise_with_options};
    let number = if copy == 1 {
        String::new()
    } else {
        format!(" ({copy})")
    };
    let room = MAX_NAME_LEN.saturating_sub(prefix.len() + number.len());
    // What changes the reading direction would hide the real ending.
    let plain: String = name
        .chars()
        .map(|c| {
            if crate::wire::text::is_invisible(c) {
                '_'
            } else {
                c
            }
        })
        .collect();
    let options = Options {
        length_limit: room,
        trim_more_punctuation: false,
        ..Options::DEFAULT
    };
    let trimmed = plain.trim_end_matches(ENDS_NO_NAME);
    let mut cleaned = sanitise_with_options(trimmed, &options);
    cleaned.truncate(cleaned.trim_end_matches(ENDS_NO_NAME).len());
    if cleaned.is_empty() {
        cleaned.push('_');
    }
    if prefix.is_empty() && cleaned.starts_with(['.', '-', '~']) {
        cleaned.replace_range(..1, "_");
    }
    format!("{prefix}{cleaned}{number}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(len: u64) -> Layout {
        Layout::new(len).unwrap()
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = dir
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn fetch(dir: &Path, bytes: &[u8]) -> PathBuf {
        let id = ContentId(*blake3::hash(bytes).as_bytes());
        let partial = Partial::create(dir, id, layout(bytes.len() as u64), 7).unwrap();
        write_at(&partial.file(), bytes, 0).unwrap();
        partial
            .finish("downloaded_", &"x.txt".parse().unwrap())
            .unwrap()
    }

    #[test]
    fn nothing_is_ever_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        for (text, name) in [
            ("one", "downloaded_x.txt"),
            ("two", "downloaded_x.txt (2)"),
            ("", "downloaded_x.txt (3)"),
        ] {
            let path = fetch(dir.path(), text.as_bytes());
            assert_eq!(path, dir.path().join(name));
            assert_eq!(std::fs::read_to_string(path).unwrap(), text);
        }
        assert_eq!(names_in(dir.path()).len(), 3);
    }

    #[test]
    fn a_link_in_the_way_is_neither_followed_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("downloaded_x.txt")).unwrap();
        let path = fetch(dir.path(), b"one");
        assert_eq!(path, dir.path().join("downloaded_x.txt (2)"));
        assert!(dir.path().join("downloaded_x.txt").is_symlink());
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let partial = Partial::create(dir.path(), ContentId([1; 32]), layout(5 << 20), 7).unwrap();
        let names = names_in(dir.path());
        assert!(names[0].starts_with('.') && names.len() == 1, "{names:?}");
        drop(partial);
        assert!(names_in(dir.path()).is_empty());
    }

    #[test]
    fn leftovers_of_a_killed_run_are_cleared_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let id = ContentId([1; 32]);
        std::fs::write(dir.path().join(".p2pfs-01010101-deadbeef.part"), "left").unwrap();
        std::fs::write(
            dir.path().join(".p2pfs-02020202-deadbeef.part"),
            "of another content",
        )
        .unwrap();
        let running = Partial::create(dir.path(), id, layout(1), 1).unwrap();
        let _second = Partial::create(dir.path(), id, layout(1), 2).unwrap();
        assert_eq!(
            names_in(dir.path()).len(),
            3,
            "what a running process holds stays"
        );
        assert!(dir.path().join(&running.part).exists());
    }

    #[test]
    fn a_directory_that_will_not_do_is_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (dir, reason) in [
            (dir.path().join("gone"), "no such"),
            (file, "not a directory"),
        ] {
            let error = Partial::create(&dir, ContentId([1; 32]), layout(1), 7).unwrap_err();
            assert!(error.reason.contains(reason), "{error}");
        }
        let error =
            Partial::create(dir.path(), ContentId([1; 32]), layout(1 << 50), 7).unwrap_err();
        assert!(error.reason.contains("are free"), "{error}");
        assert_eq!(names_in(dir.path()), ["file"]);
    }

    #[test]
    fn names_are_harmless_on_every_system() {
        for name in [
            "..\\x",
            "C:\\x",
            "\\\\h\\s",
            "x:y",
            "CON",
            "com1.txt",
            "COM¹",
            "x.",
            "x ",
            "a\u{202e}gpj.exe",
            "-x",
            ".bashrc",
            "~",
            "a*b?c",
            "nul",
            "aux.h",
            "\u{feff}x",
        ] {
            let safe = safe_file_name("", name, 1);
            assert!(
                !safe.is_empty() && !safe.starts_with(['.', '-', '~']),
                "{name:?} became {safe:?}"
            );
            assert!(
                !safe.contains(['\\', ':', '*', '?', '\u{202e}']),
                "{name:?} became {safe:?}"
            );
            assert!(!safe.ends_with(['.', ' ']), "{name:?} became {safe:?}");
            assert!(
                !["con", "nul"].contains(&safe.to_lowercase().as_str()),
                "{name:?} became {safe:?}"
            );
        }
        assert_eq!(
            safe_file_name("downloaded_", "report.pdf", 1),
            "downloaded_report.pdf"
        );
        assert_eq!(
            safe_file_name("downloaded_", "Ωμέγα 1.txt", 2),
            "downloaded_Ωμέγα 1.txt (2)"
        );
        let long = safe_file_name("downloaded_", &format!("{}.tar.gz", "ä".repeat(120)), 12);
        assert!(
            long.len() <= MAX_NAME_LEN && long.ends_with(".gz (12)"),
            "{long}"
        );
    }

    proptest! {
        #[test]
        fn a_name_on_disk_is_one_component(name in "\\PC{1,300}", copy in 1_u32..30) {
            let safe = safe_file_name("downloaded_", &name, copy);
            prop_assert!(safe.len() <= MAX_NAME_LEN);
            prop_assert!(safe.parse::<FileName>().is_ok(), "{:?}", safe);
        }
    }
}
