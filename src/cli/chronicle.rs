//! What was said, added to a private file when somebody wants that.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::disk::{append_private, rotate};
use crate::wire::text::safe;

/// A longer file becomes FILE.1, which replaces the one before.
const MAX_LEN: u64 = 16 << 20;
const KEPT: usize = 1;

/// A file to which lines are added; cheap to clone.
#[derive(Clone, Debug)]
pub struct Chronicle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// It failed, and that was said.
    has_failed: Mutex<bool>,
}

impl Chronicle {
    /// The file at `path`; it is made when something is said.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(Arc::new(Inner {
            path,
            has_failed: Mutex::default(),
        }))
    }

    /// Adds a line, whatever is in it. What cannot be written is told once, by the line that is returned.
    pub fn add(&self, line: &str) -> Option<String> {
        let mut has_failed = self
            .0
            .has_failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let path = &self.0.path;
        let write = || {
            let mut file = append_private(path)?;
            if file.metadata()?.len() > MAX_LEN {
                drop(file);
                rotate(path, KEPT)?;
                file = append_private(path)?;
            }
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
            writeln!(file, "{now} {}", safe(line))
        };
        let error = write().err();
        let is_news = error.is_some() && !*has_failed;
        *has_failed = error.is_some();
        let error = error.filter(|_| is_news)?;
        let path = safe(&path.display().to_string());
        Some(format!("! what is said is not kept: {path}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_said_is_a_line_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat");
        let chronicle = Chronicle::at(path.clone());
        assert_eq!(chronicle.add("<vader> hi\n<eva> forged"), None);
        assert_eq!(chronicle.add("<vader> there"), None);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with("Z <vader> hi\\n<eva> forged"), "{text}");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let chronicle = Chronicle::at(dir.path().join("no/such/dir"));
        assert!(chronicle.add("hi").unwrap().contains("is not kept"));
        assert_eq!(chronicle.add("hi"), None);
    }
}
