//! A mount namespace of our own: small disks, and disks that lose what was not synced.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Group, Process, need, text};

/// What is mounted in it is gone with the last process in it.
pub(crate) struct Mounts {
    /// Keeps the namespace until its input ends.
    holder: Child,
}

impl Mounts {
    pub(crate) fn new() -> Self {
        need("unshare");
        need("nsenter");
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(holder.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "\n", "root is needed");
        Self { holder }
    }

    /// Runs a line of shell inside.
    pub(crate) fn run(&self, line: &str) {
        let output = Command::new("nsenter")
            .args(["-m", "-t", &self.holder.id().to_string()])
            .args(["sh", "-c", line])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{line}: {} (root is needed)",
            text(&output.stderr)
        );
    }

    /// `path` as it is inside.
    pub(crate) fn see(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(path.strip_prefix("/").unwrap())
    }

    /// p2pfs inside.
    pub(crate) fn command(&self, group: &Group, state: &str) -> Command {
        let pid = self.holder.id().to_string();
        group.command_under(state, &["nsenter", "-m", "-t", &pid])
    }

    pub(crate) fn start(&self, group: &Group, state: &str, args: &[&str]) -> Process {
        let mut command = self.command(group, state);
        command.args(args);
        group.spawn(state, command)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Fills the disk at `dir` to the last byte; with what.
pub(crate) fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut filler = File::create(&path).unwrap();
    for len in [1 << 16, 1 << 12, 1] {
        let full = loop {
            if let Err(error) = filler.write_all(&vec![1; len]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
    path
}
