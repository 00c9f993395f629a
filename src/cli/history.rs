//! Lines that were typed at earlier prompts, kept in a private file.
//!
//! Only commands are kept: what is typed or pasted there by mistake, a passphrase above all, is no command
//! and never reaches the file, and what is said to others only on request. What begins with a blank is not even
//! remembered.

use std::path::PathBuf;

use super::command::{self, Command};
use crate::disk::{PrivateFileError, read_private, write_private};
use crate::wire::text::safe;

/// Name of the file in the state directory.
pub const FILE: &str = "history";
/// Lines that are kept.
const MAX_LINES: usize = 500;
/// A longer line is remembered until the end, and not kept.
const MAX_LEN: usize = 1000;

/// What was typed, the newest last, each line once.
#[derive(Debug, Default)]
pub struct History {
    lines: Vec<String>,
    file: Option<PathBuf>,
    keeps: Keeps,
}

/// What reaches the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// Commands, but nothing that is said to others.
    #[default]
    Commands,
    /// That, too.
    WhatIsSaid,
}

impl History {
    /// What the file says; without one, nothing is kept.
    ///
    /// # Errors
    /// When others can read the file, or it cannot be read: then nothing is kept either.
    pub fn load(file: Option<PathBuf>, keeps: Keeps) -> (Self, Result<(), PrivateFileError>) {
        let Some(path) = file else {
            return (Self::default(), Ok(()));
        };
        let bytes = match read_private(&path) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return (Self::default(), Err(error)),
        };
        let mut history = Self {
            keeps,
            ..Self::default()
        };
        for line in String::from_utf8_lossy(&bytes).lines() {
            history.remember(line);
        }
        history.file = Some(path);
        (history, Ok(()))
    }

    /// All lines, the oldest first.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Adds a line; an older one that is the same goes.
    pub fn add(&mut self, line: &str) {
        self.remember(line);
        let Some(path) = &self.file else {
            return;
        };
        let mut text = String::new();
        for line in self.lines.iter().filter(|line| self.is_kept(line)) {
            text.push_str(line);
            text.push('\n');
        }
        // A full disk costs the memory of a line, no more.
        if let Err(error) = write_private(path, text.as_bytes()) {
            tracing::debug!(%error, "cannot keep the history");
        }
    }

    fn is_kept(&self, line: &str) -> bool {
        let is_said =
            |command: &Command| matches!(command, Command::Msg { .. } | Command::Everybody { .. });
        line.len() <= MAX_LEN
            && matches!(command::parse(line), Ok(Some(command))
                if self.keeps == Keeps::WhatIsSaid || !is_said(&command))
    }

    fn remember(&mut self, line: &str) {
        // What cannot be shown is not offered again.
        if line.trim().is_empty() || line.starts_with(char::is_whitespace) || safe(line) != line {
            return;
        }
        let line = line.trim_end();
        self.lines.retain(|known| known != line);
        self.lines.push(line.to_owned());
        if self.lines.len() > MAX_LINES {
            self.lines.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_are_kept_once_bounded_and_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let many = (0..MAX_LINES + 10).map(|number| format!("search {number}\n"));
        write_private(&path, many.collect::<String>().as_bytes()).unwrap();
        let (mut history, _) = History::load(Some(path.clone()), Keeps::Commands);
        history.add("search 300");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (again, read) = History::load(Some(path), Keeps::Commands);
        assert!(read.is_ok());
        assert_eq!(again.lines().len(), MAX_LINES);
        assert_eq!(again.lines().last().unwrap(), "search 300");
        let count = |line| again.lines().iter().filter(|known| *known == line).count();
        assert_eq!((count("search 300"), count("search 9")), (1, 0));
    }

    #[test]
    fn what_is_no_command_never_reaches_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let (mut history, _) = History::load(Some(path.clone()), Keeps::Commands);
        let passphrase = "zebra abandon stable horse battle zoo";
        for line in [passphrase, " search hidden", "", "lls", "ls"] {
            history.add(line);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ls\n");
        // Until the end, a slip can be corrected.
        assert_eq!(history.lines(), [passphrase, "lls", "ls"]);
    }

    #[test]
    fn what_is_said_to_others_reaches_the_file_on_request_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let lines = ["MSG vader secret", "/all secret", "msg vader", "who"];
        for (keeps, kept) in [
            (Keeps::Commands, "who\n"),
            (Keeps::WhatIsSaid, "MSG vader secret\n/all secret\nwho\n"),
        ] {
            let (mut history, _) = History::load(Some(path.clone()), keeps);
            lines.iter().for_each(|line| history.add(line));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, "search planted\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (mut history, read) = History::load(Some(path.clone()), Keeps::Commands);
        assert!(read.is_err() && history.lines().is_empty());
        history.add("ls");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "search planted\n");
    }
}
