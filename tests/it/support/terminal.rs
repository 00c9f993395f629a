//! A p2pfs at a terminal: what is typed, and what the screen shows.

use std::io::{Read as _, Write as _};

use rexpect::process::PtyProcess;

use crate::support::Group;

/// A terminal with a p2pfs in it.
pub(crate) struct Terminal {
    pub(crate) process: PtyProcess,
    pub(crate) screen: String,
}

impl Terminal {
    pub(crate) fn start(group: &Group, state: &str, args: &[&str]) -> Self {
        Self::start_in(group, state, args, &[])
    }

    /// With more variables in its environment.
    pub(crate) fn start_in(
        group: &Group,
        state: &str,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = group.command(state);
        command
            .args(args)
            .env("TERM", "xterm")
            .env_remove("P2PFS_PASSPHRASE_FILE")
            .envs(variables.iter().copied());
        let process = PtyProcess::new(command).unwrap();
        Self {
            process,
            screen: String::new(),
        }
    }

    /// Waits until `text` is shown; tells what came before it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let mut handle = self.process.get_file_handle().unwrap();
        let mut bytes = [0; 4096];
        while !self.screen.contains(text) {
            match handle.read(&mut bytes) {
                Ok(len) if len > 0 => self
                    .screen
                    .push_str(&String::from_utf8_lossy(&bytes[..len])),
                _ => panic!("no \"{text}\" on the screen:\n{}", self.screen),
            }
        }
        let start = self.screen.find(text).unwrap();
        let before = self.screen[..start].to_owned();
        self.screen.drain(..start + text.len());
        before
    }

    pub(crate) fn set_width(&self, columns: u16) {
        let handle = self.process.get_file_handle().unwrap();
        let mut size = rustix::termios::tcgetwinsize(&handle).unwrap();
        size.ws_col = columns;
        rustix::termios::tcsetwinsize(&handle, size).unwrap();
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        let mut handle = self.process.get_file_handle().unwrap();
        handle.write_all(format!("{line}\r").as_bytes()).unwrap();
    }
}
