//! The only place that writes to the terminal: results to stdout, everything else to stderr.
//!
//! `println!` panics on a closed pipe; here a closed pipe ends the program quietly, and a full disk with
//! one line. While a line is edited, what is written goes to the [`Board`] above it, results as well: then
//! stdout and stderr are the same terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rustix::fd::AsFd;
use rustix::termios::tcgetwinsize;
use serde_json::Value;

use super::client::{Kind, Outlet, hand};
use super::exit::{Class, Failure};
use super::live::{Board, MIN_ROWS, Posted, Resizing, Size};
use super::modes;
use super::opener::LockedFile;
use crate::logging::{Level, Stamps};
use crate::wire::text::{safe, safe_json};

/// Columns of a terminal that does not tell how many it has.
const USUAL_WIDTH: usize = 80;
/// Rows of such a terminal.
const USUAL_HEIGHT: usize = 24;

/// While it lives, no line is begun.
type Turn<'a> = std::sync::MutexGuard<'a, super::live::Waiting>;

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// How events of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogStyle {
    Plain,
    /// The level has a colour.
    Colour,
    /// The level is a number in front, as journald takes it.
    Journal,
}

impl LogStyle {
    fn of_stderr() -> Self {
        let is_set = |key: &str| std::env::var_os(key).is_some_and(|value| !value.is_empty());
        if is_journal() {
            Self::Journal
        } else if io::stderr().is_terminal()
            && !is_set("NO_COLOR")
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
        {
            Self::Colour
        } else {
            Self::Plain
        }
    }

    fn line(self, level: Level, event: &str) -> String {
        let (colour, number) = match level {
            Level::ERROR => ("31", 3),
            Level::WARN => ("33", 4),
            Level::INFO => ("32", 6),
            _ => ("2", 7),
        };
        match self {
            Self::Plain => event.to_owned(),
            Self::Journal => format!("<{number}>{event}"),
            Self::Colour => {
                let word = level.as_str();
                // Before it stands only the time.
                event.replacen(word, &format!("\x1b[{colour}m{word}\x1b[0m"), 1)
            }
        }
    }
}

/// Does standard error go to the journal of systemd? It says which file that is.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}

/// The terminal, shared by all tasks.
#[derive(Clone, Debug)]
pub struct Screen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    style: Style,
    quiet: bool,
    /// Standard error is a terminal on which a line can be drawn again.
    is_live: bool,
    log_style: LogStyle,
    /// A prompt stands on the last line: what is printed goes above it, and it is printed again.
    prompt: Mutex<Option<&'static str>>,
    /// A line on stderr is being redrawn.
    has_live_line: AtomicBool,
    /// Where all goes while lines are edited, and never is there before.
    board: OnceLock<Arc<Board>>,
    failed: AtomicBool,
    /// What is shown is another process's terminal.
    outlet: Option<Outlet>,
    /// Stdout is for something else.
    results_to_stderr: bool,
}

impl Screen {
    /// A screen that shows results in `style`; `quiet` leaves out everything that is not one.
    #[must_use]
    pub fn new(style: Style, quiet: bool) -> Self {
        Self::with_outlet(style, quiet, None)
    }

    /// The screen of somebody who asks through the socket.
    #[must_use]
    pub fn of_client(style: Style, quiet: bool, outlet: Outlet) -> Self {
        Self::with_outlet(style, quiet, Some(outlet))
    }

    fn with_outlet(style: Style, quiet: bool, outlet: Option<Outlet>) -> Self {
        Self(Arc::new(Inner {
            style,
            quiet,
            is_live: io::stderr().is_terminal()
                && std::env::var_os("TERM").is_some_and(|term| term != "dumb"),
            log_style: LogStyle::of_stderr(),
            prompt: Mutex::new(None),
            has_live_line: AtomicBool::new(false),
            board: OnceLock::new(),
            failed: AtomicBool::new(false),
            outlet,
            results_to_stderr: false,
        }))
    }

    /// The same with results on stderr, where stdout is for something else.
    #[must_use]
    pub fn results_to_stderr(&self) -> Self {
        let Inner { style, quiet, .. } = &*self.0;
        let mut screen = Self::with_outlet(*style, *quiet, None);
        if let Some(inner) = Arc::get_mut(&mut screen.0) {
            inner.results_to_stderr = true;
        }
        screen
    }

    /// Is there nobody any more who would read it?
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.outlet.as_ref().is_some_and(Outlet::is_gone)
    }

    /// Is it the screen of somebody who asks through the socket?
    #[must_use]
    pub fn is_client(&self) -> bool {
        self.0.outlet.is_some()
    }

    /// Is everything left out that is no result?
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.0.quiet
    }

    /// How results are shown.
    #[must_use]
    pub fn style(&self) -> Style {
        self.0.style
    }

    /// Columns that a listing may take; `None` where no terminal shows it.
    #[must_use]
    pub fn width(&self) -> Option<usize> {
        match &self.0.outlet {
            Some(outlet) => outlet.width,
            None => columns(io::stdout()),
        }
    }

    /// Columns that a live line may take. In the last one the cursor stands.
    #[must_use]
    pub fn live_width(&self) -> Option<usize> {
        match &self.0.outlet {
            Some(outlet) => outlet.live_width,
            None => columns(io::stderr()).map(|columns| columns - 1),
        }
    }

    /// Can a line on stderr be drawn again and again?
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.0.is_live
    }

    /// Did writing a result fail?
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Writes a result.
    ///
    /// # Errors
    /// When stdout does not take it.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        self.write_out(text)
    }

    /// Writes a result as an object, where objects are wanted.
    ///
    /// # Errors
    /// When stdout does not take it.
    pub fn object(&self, object: &Value) -> Result<(), Failure> {
        match self.0.style {
            Style::Json => self.write_out(&one_line(object)),
            Style::Text => Ok(()),
        }
    }

    /// Writes text, where text is wanted.
    ///
    /// # Errors
    /// When stdout does not take it.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        match self.0.style {
            Style::Text => self.write_out(text),
            Style::Json => Ok(()),
        }
    }

    /// Says something that is no result; lost when nobody can hear it.
    pub fn note(&self, text: &str) {
        if !self.0.quiet {
            self.write_err(text);
        }
    }

    /// A line for stderr that was made elsewhere: by the peer that was asked.
    pub fn relay(&self, text: &str) {
        self.write_err(text);
    }

    /// Leaves a locked file to the one who asked for it through the socket; `false` where nobody did.
    #[must_use]
    pub fn hand_over(&self, locked: &LockedFile) -> bool {
        let outlet = self.0.outlet.as_ref().filter(|outlet| !outlet.is_gone());
        if let Some(outlet) = outlet {
            outlet.send(Kind::Locked, &hand(locked));
        }
        outlet.is_some()
    }

    /// Says what went wrong when it is not the end: scripts are not told.
    pub fn tell(&self, failure: &Failure) {
        self.write_err(&format!("p2pfs: {}", failure.line()));
    }

    /// An event of the log, which has its own filter: one line, whatever others put into it.
    pub fn log(&self, level: Level, event: &str) {
        self.write_err(&self.0.log_style.line(level, &safe(event)));
    }

    /// Who writes down when an event happened.
    #[must_use]
    pub fn stamps(&self) -> Stamps {
        match self.0.log_style {
            LogStyle::Journal => Stamps::Journal,
            LogStyle::Plain | LogStyle::Colour => Stamps::Own,
        }
    }

    /// Says what went wrong.
    pub fn failure(&self, failure: &Failure) {
        if self.0.style == Style::Json {
            let _ = self.object(&failure.json());
        }
        self.tell(failure);
    }

    /// Redraws one line on stderr, if that is a terminal; tells whether it is. Above a line that is edited it
    /// goes when it is not renewed.
    pub fn live(&self, text: &str) -> bool {
        if let Some(outlet) = &self.0.outlet {
            if !self.0.quiet && outlet.live_width.is_some() {
                outlet.send(Kind::Live, text);
            }
            return self.0.quiet || outlet.live_width.is_some();
        }
        if self.0.quiet || !self.0.is_live {
            return self.0.quiet;
        }
        if let Some(board) = self.0.board.get() {
            let has_room = terminal_size().rows >= MIN_ROWS;
            if has_room {
                board.set_passing(text, Instant::now());
            }
            return has_room;
        }
        let prompt = self.lock();
        if prompt.is_none() {
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
            self.0.has_live_line.store(true, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// Do downloads have lines of their own, above the one that is edited? See [`set_live`](Self::set_live).
    #[must_use]
    pub fn has_live_lines(&self) -> bool {
        self.0.board.get().is_some() && (self.0.quiet || terminal_size().rows >= MIN_ROWS)
    }

    /// The lines of the downloads as they are now.
    pub fn set_live(&self, lines: Vec<String>) {
        if let Some(board) = self.0.board.get().filter(|_| !self.0.quiet) {
            board.set_live(lines, terminal_size(), Instant::now());
        }
    }

    /// Are lines edited here?
    #[must_use]
    pub fn is_edited(&self) -> bool {
        self.0.board.get().is_some()
    }

    /// From now on lines are edited; `None` where that cannot be.
    #[must_use]
    pub fn begin_editing(&self) -> Option<Arc<Board>> {
        if !modes::can_edit() {
            return None;
        }
        let board = self
            .0
            .board
            .get_or_init(|| Arc::new(Board::new(resizing())));
        Some(Arc::clone(board))
    }

    /// No line is edited any more: the terminal is as it was found.
    pub fn end_editing(&self) {
        if let Some(board) = self.0.board.get() {
            board.close(write_terminal);
            modes::restore();
        }
    }

    /// Shows the prompt and keeps it below what is printed from now on; `None` takes it away. It goes where
    /// questions go: `p2pfs peer > list.txt` has results in its file and nothing else.
    pub fn prompt(&self, prompt: Option<&'static str>) {
        let mut state = self.lock();
        *state = prompt;
        show(prompt);
    }

    /// Ends the line of the prompt for the person.
    pub fn end_line(&self) {
        if self.lock().take().is_some() {
            let _ = writeln!(io::stderr());
        }
    }

    fn write_out(&self, text: &str) -> Result<(), Failure> {
        if let Some(outlet) = &self.0.outlet {
            outlet.send(Kind::Out, text);
            return Ok(());
        }
        if self.0.results_to_stderr {
            self.note(text);
            return Ok(());
        }
        let Some(_turn) = self.turn(text) else {
            return Ok(());
        };
        let prompt = self.lock();
        self.clear_line(*prompt);
        let mut out = io::stdout().lock();
        let written = writeln!(out, "{text}").and_then(|()| out.flush());
        show(*prompt);
        written.map_err(|error| {
            self.0.failed.store(true, Ordering::Relaxed);
            match error.kind() {
                // Whoever reads has had enough; that is no failure.
                io::ErrorKind::BrokenPipe => Failure::new(Class::Failed, ""),
                _ => Failure::new(
                    Class::Local,
                    format!("cannot write to standard output: {error}"),
                ),
            }
        })
    }

    fn write_err(&self, text: &str) {
        if let Some(outlet) = &self.0.outlet {
            outlet.send(Kind::Err, text);
            return;
        }
        let Some(_turn) = self.turn(text) else {
            return;
        };
        let prompt = self.lock();
        self.clear_line(*prompt);
        let _ = writeln!(io::stderr(), "{text}");
        show(*prompt);
    }

    /// Waits for the right to write `text`; `None` when it is shown above a line that is edited.
    fn turn(&self, text: &str) -> Option<Option<Turn<'_>>> {
        match self.0.board.get().map(|board| board.post(text)) {
            None => Some(None),
            Some(Posted::Yours(turn)) => Some(Some(turn)),
            Some(Posted::Taken) => None,
        }
    }

    /// Takes away what stands on the last line of the terminal.
    fn clear_line(&self, prompt: Option<&str>) {
        let has_line = self.0.has_live_line.swap(false, Ordering::Relaxed) || prompt.is_some();
        if has_line {
            let end = if self.0.is_live { "\r\x1b[K" } else { "\n" };
            let _ = write!(io::stderr(), "{end}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<&'static str>> {
        self.0.prompt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Columns and rows of the terminal, or what is usual where it does not tell.
#[must_use]
pub fn terminal_size() -> Size {
    let known = |cells: u16, usual: usize| match usize::from(cells) {
        0 => usual,
        cells => cells,
    };
    let (columns, rows) =
        tcgetwinsize(io::stdout()).map_or((0, 0), |size| (size.ws_col, size.ws_row));
    Size {
        columns: known(columns, USUAL_WIDTH),
        rows: known(rows, USUAL_HEIGHT),
    }
}

/// What this terminal does with lines that are too long for a new width. Those that cut them are known; to
/// take one of the others for one of these leaves a stale line, the reverse would erase a message.
fn resizing() -> Resizing {
    let is = |key, wanted: &str| std::env::var_os(key).is_some_and(|value| value == wanted);
    let is_set = |key| std::env::var_os(key).is_some();
    let is_screen = is_set("STY") && !is_set("TMUX");
    if is_set("XTERM_VERSION") || is_screen || is("TERM", "linux") {
        Resizing::Cuts
    } else {
        Resizing::Reflows
    }
}

pub(super) fn write_terminal(text: &str) {
    let mut terminal = io::stdout();
    let _ = terminal
        .write_all(text.as_bytes())
        .and_then(|()| terminal.flush());
}

fn columns(stream: impl AsFd) -> Option<usize> {
    let size = tcgetwinsize(stream).ok()?;
    match usize::from(size.ws_col) {
        0 => Some(USUAL_WIDTH),
        columns => Some(columns),
    }
}

fn show(prompt: Option<&str>) {
    if let Some(prompt) = prompt {
        let _ = write!(io::stderr(), "{prompt}");
    }
}

/// The object with `v` and `type` before all else, so that a reader of lines knows at once what it has; and
/// harmless to a terminal that shows it as it is.
fn one_line(object: &Value) -> String {
    let Value::Object(fields) = object else {
        return safe_json(&object.to_string());
    };
    let first = ["v", "type"];
    let rest = fields
        .iter()
        .filter(|(key, _)| !first.contains(&key.as_str()));
    let ordered = first
        .iter()
        .filter_map(|key| fields.get_key_value(*key))
        .chain(rest)
        .map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())));
    safe_json(&format!("{{{}}}", ordered.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_shows_its_level_as_whoever_reads_it_takes_it() {
        let event = "2026-11-21T14:00:00Z  WARN wrong passphrase from=192.0.2.7 name=WARN";
        let line = |style: LogStyle| style.line(Level::WARN, event);
        assert_eq!(line(LogStyle::Plain), event);
        assert_eq!(line(LogStyle::Journal), format!("<4>{event}"));
        let coloured = line(LogStyle::Colour);
        assert_eq!(
            coloured,
            event.replacen("WARN", "\x1b[33mWARN\x1b[0m", 1),
            "{coloured:?}"
        );
    }

    #[test]
    fn an_object_begins_with_its_version_and_type() {
        let object = json!({"a": [1], "type": "file", "name": "x\"\n", "v": 1});
        let line = one_line(&object);
        assert!(line.starts_with(r#"{"v":1,"type":"file","#), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), object);
        let marks = "\u{301}".repeat(60);
        let object = json!({"name": format!("a\x1b\r\u{202e}\u{9b}\u{7f}{marks}")});
        let line = one_line(&object);
        let shown = |c: &char| c.is_ascii_graphic() || *c == '\u{301}';
        assert!(line.chars().all(|c| shown(&c)), "{line:?}");
        assert_eq!(line.matches('\u{301}').count(), 8, "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), object);
    }
}
