//! A file without a name: gone with the process, unless it gets one at the end.
//!
//! What must not lie around when the process is killed is written here. Where the file system knows no such
//! files it is a hidden one, which is removed with its last user, and by the next one after a kill.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;

/// What hidden names begin with; the number of the process follows.
const PREFIX: &str = ".p2pfs-open-";
/// Where the system shows open files.
const OPEN_FILES: &str = "/proc/self/fd";

/// The file; for its owner alone until [`super::make_public`].
#[derive(Debug)]
pub struct Nameless {
    file: File,
    /// Where there are no files without a name.
    hidden: Option<PathBuf>,
}

impl Nameless {
    /// A new one, which can get a name in `dir` later.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        if Path::new(OPEN_FILES).is_dir() {
            match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600)) {
                Ok(file) => {
                    let file = file.into();
                    return Ok(Self { file, hidden: None });
                }
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::ISDIR | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Self::create_hidden(dir)
    }

    fn create_hidden(dir: &Path) -> io::Result<Self> {
        remove_left(dir);
        let pid = std::process::id();
        for number in 0..100 {
            let name = format!("{PREFIX}{pid}-{number}");
            let file = match super::create_new(dir, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created?,
            };
            // Whoever looks for what was left does not take it for that.
            file.try_lock()?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600))?;
            let hidden = Some(dir.join(name));
            return Ok(Self { file, hidden });
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// What it holds.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Gives it the name `to`, in the directory that it was made for, unless that is taken: the system call itself decides.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; else what the system says. It may be tried again.
    pub fn name(&mut self, to: &Path) -> io::Result<()> {
        match &self.hidden {
            Some(hidden) => {
                super::rename_new(hidden, to)?;
                self.hidden = None;
            }
            None => {
                let open = format!("{OPEN_FILES}/{}", self.file.as_raw_fd());
                linkat(CWD, open, CWD, to, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        Ok(())
    }
}

impl Drop for Nameless {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            super::remove(hidden);
        }
    }
}

/// Removes what killed processes have left.
fn remove_left(dir: &Path) {
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        if let Ok(Some(file)) = super::open_own(dir, name)
            && file.try_lock().is_ok()
        {
            super::remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = dir.read_dir().unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_no_name_until_it_gets_one_and_takes_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("taken"), "old").unwrap();
        for is_hidden in [false, true] {
            let create = || match is_hidden {
                true => Nameless::create_hidden(dir.path()),
                false => Nameless::create(dir.path()),
            };
            let mut nameless = create().unwrap();
            nameless.file().write_all(b"new").unwrap();
            if nameless.hidden.is_none() {
                assert_eq!(names(dir.path()), ["taken"]);
            }
            let error = nameless.name(&dir.path().join("taken")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            nameless.name(&dir.path().join("x")).unwrap();
            drop(nameless);
            assert_eq!(names(dir.path()), ["taken", "x"]);
            assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"new");
            assert_eq!(std::fs::read(dir.path().join("taken")).unwrap(), b"old");
            std::fs::remove_file(dir.path().join("x")).unwrap();
            drop(create().unwrap());
            assert_eq!(names(dir.path()), ["taken"], "one that got no name is gone");
        }
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(format!("{PREFIX}1-0")), "plain").unwrap();
        let first = Nameless::create_hidden(dir.path()).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        let second = Nameless::create_hidden(dir.path()).unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        drop((first, second));
        assert!(names(dir.path()).is_empty());
    }
}
