//! The modes of the terminal: as it was found, quiet between two lines, raw while one is edited.
//!
//! The line editor makes a quiet terminal raw and quiet again, line by line. Being quiet in between, what is
//! typed ahead is neither shown twice nor changed on its way, and a paste arrives as one. Whoever stops the
//! program gets the terminal as it was found.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

static FOUND: OnceLock<Termios> = OnceLock::new();
/// A paste arrives with marks around it.
static HAS_MARKS: AtomicBool = AtomicBool::new(false);
/// How often the program went on after it had been stopped.
static CONTINUED: AtomicU64 = AtomicU64::new(0);
/// A stop that was asked for and does not come within this time never comes: nobody could undo it.
const STOPPING: Duration = Duration::from_millis(300);
/// Changes of the modes, one at a time.
static CHANGING: Mutex<()> = Mutex::new(());

/// Remembers how the terminal is, for [`restore`].
pub fn keep() {
    if let Ok(found) = tcgetattr(io::stdin()) {
        let _ = FOUND.set(found);
    }
}

/// Puts the terminal back as it was: echo on, cursor shown.
pub fn restore() {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = FOUND.get() {
        if HAS_MARKS.swap(false, Ordering::Relaxed) {
            tell("\x1b[?2004l");
        }
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, found);
        let _ = console::Term::stderr().show_cursor();
    }
}

/// While this lives, the terminal is restored in any case: by a panic, too.
#[derive(Debug)]
pub struct Restoring;

impl Drop for Restoring {
    fn drop(&mut self) {
        restore();
    }
}

/// Can lines be edited here? Input and output are one terminal that understands relative moves.
#[must_use]
pub fn can_edit() -> bool {
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    if !input.is_terminal() || !output.is_terminal() || !errors.is_terminal() {
        return false;
    }
    let device = |found: rustix::io::Result<rustix::fs::Stat>| found.ok().map(|stat| stat.st_rdev);
    let terminal = device(rustix::fs::fstat(input));
    // Messages that belong on another terminal must not appear above the line.
    terminal == device(rustix::fs::fstat(output))
        && terminal == device(rustix::fs::fstat(errors))
        && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && !is_dumb(&term))
}

/// May text be dimmed?
#[must_use]
pub fn has_styles() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn is_dumb(term: &std::ffi::OsStr) -> bool {
    // Those that the line editor does not edit in, either.
    term.to_str().is_some_and(|term| {
        ["dumb", "cons25", "emacs"].contains(&term.to_ascii_lowercase().as_str())
    })
}

/// Between two lines: no echo, nothing held back until its line is complete; Ctrl-C is a signal.
pub fn quieten() {
    set(|modes| {
        modes
            .input_modes
            .remove(InputModes::ICRNL | InputModes::INLCR | InputModes::IXON);
        modes
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON);
    });
}

/// As the line editor sets them: Ctrl-C is a key.
fn make_raw() {
    set(|modes| {
        modes.input_modes.remove(
            InputModes::BRKINT
                | InputModes::ICRNL
                | InputModes::INPCK
                | InputModes::ISTRIP
                | InputModes::IXON,
        );
        modes
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG);
    });
}

fn set(change: impl FnOnce(&mut Termios)) {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut modes) = FOUND.get().cloned() else {
        return;
    };
    change(&mut modes);
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &modes);
    if !HAS_MARKS.swap(true, Ordering::Relaxed) {
        tell("\x1b[?2004h");
    }
}

/// Stops the program as Ctrl-Z does, while a line is edited; returns when it goes on.
pub fn stop() {
    let before = CONTINUED.load(Ordering::Relaxed);
    restore();
    let _ = rustix::process::kill_current_process_group(Signal::TSTP);
    // Another thread may take the signal: this one must not be raw again before all are stopped.
    let since = Instant::now();
    while CONTINUED.load(Ordering::Relaxed) == before && since.elapsed() < STOPPING {
        std::thread::sleep(Duration::from_millis(5));
    }
    make_raw();
}

/// The program goes on: whoever had the terminal meanwhile changed it.
pub fn go_on(is_editing: bool) {
    CONTINUED.fetch_add(1, Ordering::Relaxed);
    HAS_MARKS.store(false, Ordering::Relaxed);
    if is_editing { make_raw() } else { quieten() }
}

fn tell(sequence: &str) {
    let mut terminal = io::stdout();
    let _ = terminal
        .write_all(sequence.as_bytes())
        .and_then(|()| terminal.flush());
}
