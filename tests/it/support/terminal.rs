//! A p2pfs at a terminal: what is typed, and what the screen shows.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rexpect::process::{PtyProcess, WaitStatus};
use rustix::termios::{InputModes, LocalModes, Winsize, tcgetattr, tcgetwinsize, tcsetwinsize};

use crate::support::{Group, PATIENCE};

/// Columns and rows of a new terminal.
const SIZE: (u16, u16) = (80, 24);
/// Rows that stay when they have left the screen.
const SCROLLBACK: usize = 5000;

/// A terminal with a p2pfs in it.
pub(crate) struct Terminal {
    pub(crate) process: PtyProcess,
    /// What was written and not waited for yet, escapes and all.
    pub(crate) screen: String,
    emulator: vt100::Parser,
    written: Receiver<Vec<u8>>,
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
            // The emulator does as this one does: it cuts lines that a new width does not hold.
            .env("XTERM_VERSION", "XTerm(390)")
            .env_remove("P2PFS_PASSPHRASE_FILE")
            .envs(variables.iter().copied());
        Self::run(command)
    }

    /// Any program.
    pub(crate) fn run(command: std::process::Command) -> Self {
        let process = PtyProcess::new(command).unwrap();
        let handle = process.get_file_handle().unwrap();
        let (sender, written) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut handle, mut bytes) = (handle, [0; 4096]);
            while let Ok(len @ 1..) = handle.read(&mut bytes) {
                if sender.send(bytes[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut terminal = Self {
            process,
            screen: String::new(),
            emulator: vt100::Parser::new(cells(SIZE.1), cells(SIZE.0), SCROLLBACK),
            written,
        };
        terminal.set_size(SIZE.0, SIZE.1);
        terminal
    }

    /// Reads what is written until then; `false` when nothing was.
    fn read(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(bytes) = self.written.recv_timeout(left) else {
            return false;
        };
        self.emulator.process(&bytes);
        self.screen.push_str(&String::from_utf8_lossy(&bytes));
        true
    }

    /// Waits until `text` was written; tells what came before it.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !self.screen.contains(text) {
            assert!(
                self.read(deadline),
                "no \"{text}\" on the screen:\n{}",
                self.shown()
            );
        }
        let start = self.screen.find(text).unwrap();
        let before = self.screen[..start].to_owned();
        self.screen.drain(..start + text.len());
        before
    }

    /// What the screen shows, row by row.
    pub(crate) fn rows(&self) -> Vec<String> {
        let screen = self.emulator.screen();
        let columns = screen.size().1.get();
        screen
            .rows(0, columns)
            .map(|row| row.trim_end().to_owned())
            .collect()
    }

    /// The same without the empty rows at its end.
    pub(crate) fn shown(&self) -> String {
        self.rows().join("\n").trim_end().to_owned()
    }

    /// Rows whose line goes on in the next one.
    pub(crate) fn wrapped_rows(&self) -> Vec<usize> {
        let screen = self.emulator.screen();
        let rows = 0..screen.size().0.get();
        rows.filter(|row| screen.row_wrapped(*row))
            .map(usize::from)
            .collect()
    }

    /// All that was shown, what left the screen as well.
    pub(crate) fn record(&mut self) -> String {
        let mut rows = Vec::new();
        let mut back = usize::MAX;
        self.emulator.screen_mut().set_scrollback(back);
        back = self.emulator.screen().scrollback();
        while back > 0 {
            self.emulator.screen_mut().set_scrollback(back);
            rows.push(self.rows()[0].clone());
            back -= 1;
        }
        self.emulator.screen_mut().set_scrollback(0);
        rows.extend(self.rows());
        rows.join("\n").trim_end().to_owned()
    }

    /// Waits until the screen is as it shall be; tells what it shows then.
    pub(crate) fn wait_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(self.read(deadline), "not {what}:\n{}", self.shown());
        }
        self.shown()
    }

    /// Waits until the screen ends with these rows.
    pub(crate) fn wait_end(&mut self, end: &str) -> String {
        self.wait_until(&format!("ending with \"{end}\""), |terminal| {
            terminal.shown().ends_with(end)
        })
    }

    /// Reads for this long what is written.
    pub(crate) fn read_for(&mut self, span: Duration) {
        let until = Instant::now() + span;
        while self.read(until) {}
    }

    /// How the program ended, within this time.
    pub(crate) fn end_within(&mut self, limit: Duration) -> Option<WaitStatus> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            match self.process.status() {
                None | Some(WaitStatus::StillAlive) => {
                    self.read_for(Duration::from_millis(20));
                }
                ended => {
                    self.read_for(Duration::from_millis(100));
                    return ended;
                }
            }
        }
        None
    }

    /// Where the cursor is: row and column, from 0.
    pub(crate) fn cursor(&self) -> (u16, u16) {
        self.emulator.screen().cursor_position()
    }

    /// Will a paste come with marks around it?
    pub(crate) fn has_paste_marks(&self) -> bool {
        self.emulator.screen().bracketed_paste()
    }

    /// Is any character dimmed?
    pub(crate) fn has_dimmed(&self) -> bool {
        let (rows, columns) = self.emulator.screen().size();
        (0..rows.get()).any(|row| {
            (0..columns.get()).any(|column| {
                let cell = self.emulator.screen().cell(row, column);
                cell.is_some_and(|cell| cell.dim() && cell.has_contents())
            })
        })
    }

    pub(crate) fn set_width(&mut self, columns: u16) {
        self.set_size(columns, SIZE.1);
    }

    pub(crate) fn set_size(&mut self, columns: u16, rows: u16) {
        let handle = self.process.get_file_handle().unwrap();
        let size = tcgetwinsize(&handle).unwrap();
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ..size
        };
        self.emulator
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        tcsetwinsize(&handle, size).unwrap();
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }

    /// Keys, without Enter.
    pub(crate) fn press(&mut self, keys: &str) {
        self.press_bytes(keys.as_bytes());
    }

    pub(crate) fn press_bytes(&mut self, keys: &[u8]) {
        let mut handle = self.process.get_file_handle().unwrap();
        handle.write_all(keys).unwrap();
    }

    /// Text from the clipboard, as a terminal hands it over.
    pub(crate) fn paste(&mut self, text: &str) {
        assert!(self.has_paste_marks());
        self.press(&format!("\x1b[200~{text}\x1b[201~"));
    }

    /// What is not as a shell leaves it.
    pub(crate) fn changed_modes(&self) -> Vec<&'static str> {
        let handle = self.process.get_file_handle().unwrap();
        let now = tcgetattr(&handle).unwrap();
        let all = [
            ("echo", now.local_modes.contains(LocalModes::ECHO)),
            ("lines", now.local_modes.contains(LocalModes::ICANON)),
            ("signals", now.local_modes.contains(LocalModes::ISIG)),
            ("Enter", now.input_modes.contains(InputModes::ICRNL)),
            ("plain pastes", !self.has_paste_marks()),
            ("cursor", !self.emulator.screen().hide_cursor()),
        ];
        let changed = all.into_iter().filter(|(_, is_there)| !is_there);
        changed.map(|(name, _)| name).collect()
    }
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}
