//! What stands above a half-typed line: messages that wait to be shown, and lines that are drawn again.
//!
//! While the line editor holds the terminal, nobody else writes to it. What is said meanwhile waits here, and
//! the editor's own thread writes it whenever it paints its prompt, in one piece and from the prompt's first
//! column on: up over the live lines, erase, the messages, the live lines again. So nothing can come between
//! counting the rows and moving over them. Messages are never dropped; of live lines only the newest counts.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use unicode_width::UnicodeWidthStr as _;

use super::render;
use super::table::cut;
use crate::peer::{Progress, State as Doing, Transfer};

/// Live lines at most.
pub const MAX_LINES: usize = 4;
/// In a terminal with fewer rows there are none.
pub const MIN_ROWS: usize = 10;
/// Messages that wait at most; whoever has another one waits, too.
const MAX_MESSAGES: usize = 4096;
/// A passing line that nobody renewed for so long is over.
const PASSING: Duration = Duration::from_secs(2);

/// Rows and columns of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

/// What a terminal does with lines that a new width does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resizing {
    /// Breaks them anew; nearly all do.
    Reflows,
    /// Cuts them.
    Cuts,
}

/// Who may write to the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Whoever has something to say: no line is being typed.
    Anybody,
    /// The line editor, on this thread.
    Editor(ThreadId),
}

/// What became of a message.
pub enum Posted<'a> {
    /// The editor shows it above the line.
    Taken,
    /// No line is being typed: write it now; none is begun while this lives.
    Yours(MutexGuard<'a, Waiting>),
}

/// The place above the line that is being typed.
#[derive(Debug)]
pub struct Board {
    waiting: Mutex<Waiting>,
    /// There is something to draw, or the end has come.
    changed: Condvar,
    /// There is room for messages again, or nobody holds the terminal any more.
    room: Condvar,
    resizing: Resizing,
}

/// What waits to be drawn, and what was.
#[derive(Debug)]
pub struct Waiting {
    holder: Holder,
    is_over: bool,
    messages: VecDeque<String>,
    live: Vec<String>,
    passing: Option<(String, Instant)>,
    is_dirty: bool,
    /// Widths of the live lines that stand right above the prompt now.
    drawn: Vec<usize>,
    /// Columns of the terminal when they were drawn.
    columns: usize,
}

impl Board {
    /// Nothing stands there yet.
    #[must_use]
    pub fn new(resizing: Resizing) -> Self {
        let waiting = Waiting {
            holder: Holder::Anybody,
            is_over: false,
            messages: VecDeque::new(),
            live: Vec::new(),
            passing: None,
            is_dirty: false,
            drawn: Vec::new(),
            columns: 0,
        };
        Self {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
            room: Condvar::new(),
            resizing,
        }
    }

    /// The thread of the caller begins to edit a line; `false` when that is over for good.
    #[must_use]
    pub fn hold(&self) -> bool {
        let mut waiting = self.lock();
        if waiting.is_over {
            return false;
        }
        waiting.holder = Holder::Editor(std::thread::current().id());
        waiting.drawn.clear();
        waiting.is_dirty = !waiting.live.is_empty();
        self.changed.notify_all();
        true
    }

    /// The line is complete. What waits is written by `write`, before anything that is said later.
    pub fn release(&self, write: impl FnOnce(&str)) {
        let mut waiting = self.lock();
        waiting.release(|text| {
            if !text.is_empty() {
                write(text);
            }
        });
        self.room.notify_all();
    }

    /// No line is edited any more, now and later. `write` ends the one that was, and tells what waits.
    pub fn close(&self, write: impl FnOnce(&str)) {
        let mut waiting = self.lock();
        let was_held = waiting.holder != Holder::Anybody;
        waiting.is_over = true;
        waiting.release(|text| {
            if was_held {
                write(&format!("\n\x1b[J{text}"));
            }
        });
        self.changed.notify_all();
        self.room.notify_all();
    }

    /// Hands in a message.
    pub fn post(&self, text: &str) -> Posted<'_> {
        let mut waiting = self.lock();
        while let Holder::Editor(editor) = waiting.holder {
            // The editor's own thread would wait for itself.
            let has_room =
                waiting.messages.len() < MAX_MESSAGES || editor == std::thread::current().id();
            if has_room {
                waiting.messages.push_back(text.to_owned());
                waiting.is_dirty = true;
                self.changed.notify_all();
                return Posted::Taken;
            }
            waiting = self
                .room
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Posted::Yours(waiting)
    }

    /// The lines of the downloads as they are now.
    pub fn set_live(&self, lines: Vec<String>, size: Size, now: Instant) {
        let mut waiting = self.lock();
        let is_past = waiting
            .passing
            .as_ref()
            .is_some_and(|(_, since)| now.duration_since(*since) > PASSING);
        if is_past {
            waiting.passing = None;
        }
        let before = std::mem::replace(&mut waiting.live, lines);
        // Where there is no room for them, nothing changes.
        let is_visible = size.rows >= MIN_ROWS || !waiting.drawn.is_empty();
        if is_visible && (is_past || waiting.live != before) {
            waiting.is_dirty = true;
            self.changed.notify_all();
        }
    }

    /// A line of something else, which goes when it is not renewed.
    pub fn set_passing(&self, line: &str, now: Instant) {
        let mut waiting = self.lock();
        waiting.passing = Some((line.to_owned(), now));
        waiting.is_dirty = true;
        self.changed.notify_all();
    }

    /// Is a line being edited?
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lock().holder != Holder::Anybody
    }

    /// Something else was on the screen: nothing of ours stands above the prompt any more.
    pub fn forget(&self) {
        let mut waiting = self.lock();
        waiting.drawn.clear();
        waiting.is_dirty = true;
        self.changed.notify_all();
    }

    /// Waits until the editor has something to draw; `false` in the end.
    #[must_use]
    pub fn wait(&self) -> bool {
        let mut waiting = self.lock();
        loop {
            if waiting.is_over {
                return false;
            }
            if waiting.is_dirty && waiting.holder != Holder::Anybody {
                return true;
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the editor writes where its prompt begins, before the prompt, if anything. The cursor was `typed`
    /// columns behind that place.
    #[must_use]
    pub fn draw(&self, size: Size, typed: usize) -> Option<String> {
        let mut waiting = self.lock();
        if waiting.holder == Holder::Anybody {
            return None;
        }
        let is_resized = waiting.columns != 0 && waiting.columns != size.columns;
        if !waiting.is_dirty && !is_resized {
            return None;
        }
        let mut text = waiting.way_up(size.columns, typed, self.resizing);
        text.push_str("\r\x1b[J");
        for message in waiting.messages.drain(..) {
            text.push_str(&message);
            text.push('\n');
        }
        let lines = waiting.lines(size);
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        waiting.drawn = lines.iter().map(|line| line.width()).collect();
        waiting.columns = size.columns;
        waiting.is_dirty = false;
        self.room.notify_all();
        Some(text)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn release(&mut self, write: impl FnOnce(&str)) {
        self.holder = Holder::Anybody;
        // What stood there stays as it was at that moment.
        self.drawn.clear();
        let mut text = String::new();
        for message in self.messages.drain(..) {
            text.push_str(&message);
            text.push('\n');
        }
        write(&text);
    }

    fn lines(&self, size: Size) -> Vec<String> {
        if size.rows < MIN_ROWS {
            return Vec::new();
        }
        let passing = self.passing.iter().map(|(line, _)| line);
        let lines = passing.chain(&self.live).take(MAX_LINES);
        // In the last column a terminal may already be on the next line.
        lines
            .map(|line| cut(line, size.columns.saturating_sub(1)))
            .collect()
    }

    /// From where the prompt begins to the first live line, in relative moves.
    fn way_up(&self, columns: usize, typed: usize, resizing: Resizing) -> String {
        let is_reflowed =
            self.columns != 0 && self.columns != columns && resizing == Resizing::Reflows;
        if !is_reflowed {
            return up(self.drawn.len());
        }
        let rows_of = |width: &usize| width.div_ceil(columns.max(1)).max(1);
        let live: usize = self.drawn.iter().map(rows_of).sum();
        // The editor went up by as many rows as the cursor was down before the terminal broke the line anew.
        let (before, after) = (typed / self.columns.max(1), typed / columns.max(1));
        match (live + after).checked_sub(before) {
            Some(rows) => up(rows),
            None => format!("\x1b[{}B", before - live - after),
        }
    }
}

fn up(rows: usize) -> String {
    match rows {
        0 => String::new(),
        rows => format!("\x1b[{rows}A"),
    }
}

/// A line for each download that runs, as far as there are lines.
#[must_use]
pub fn lines(transfers: &[Transfer], width: Option<usize>) -> Vec<String> {
    let running: Vec<Progress> = transfers
        .iter()
        .filter(|transfer| transfer.state == Doing::Running)
        .map(progress_of)
        .collect();
    if running.len() <= MAX_LINES {
        return running
            .iter()
            .map(|progress| render::progress(progress, width))
            .collect();
    }
    let (shown, rest) = running.split_at(MAX_LINES - 1);
    let mut lines: Vec<String> = shown
        .iter()
        .map(|progress| render::progress(progress, width))
        .collect();
    let sum = |what: fn(&Progress) -> u64| rest.iter().map(what).fold(0, u64::saturating_add);
    lines.push(render::progress_of_more(
        rest.len(),
        (sum(|progress| progress.done), sum(|progress| progress.len)),
        sum(|progress| progress.rate),
        width,
    ));
    lines
}

fn progress_of(transfer: &Transfer) -> Progress {
    Progress {
        content: transfer.file.content,
        name: transfer.file.name.clone(),
        is_folder: transfer.file.kind.is_folder(),
        done: transfer.done,
        len: transfer.len,
        rate: transfer.rate,
        sources: transfer.sources,
        is_slow: transfer.is_slow,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::sync::Arc;

    use super::*;

    const SIZE: Size = Size {
        columns: 40,
        rows: 12,
    };

    /// A terminal that is painted as rustyline does it, with a line of one row.
    struct Painted(vt100::Parser);

    impl Painted {
        fn new() -> Self {
            let cells = |count| NonZeroU16::new(count).unwrap();
            Self(vt100::Parser::new(cells(12), cells(40), 0))
        }

        fn paint(&mut self, board: &Board) {
            let above = board.draw(SIZE, 9).unwrap_or_default();
            let text = format!("\r\x1b[K{above}P2P> half");
            self.0.process(text.replace('\n', "\r\n").as_bytes());
        }

        fn shown(&self) -> String {
            let contents = self.0.screen().contents();
            contents.trim_end().to_owned()
        }
    }

    fn board() -> Board {
        let board = Board::new(Resizing::Reflows);
        assert!(board.hold());
        board
    }

    fn live(board: &Board, lines: &[&str]) {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        board.set_live(lines, SIZE, Instant::now());
    }

    fn posted(board: &Board, text: &str) -> bool {
        matches!(board.post(text), Posted::Taken)
    }

    #[test]
    fn messages_stand_above_live_lines_and_those_above_the_line() {
        let (board, mut terminal) = (board(), Painted::new());
        live(&board, &["one 1 %", "two 1 %"]);
        terminal.paint(&board);
        assert!(posted(&board, "first\nof two rows") && posted(&board, "second"));
        live(&board, &["one 2 %", "two 2 %"]);
        terminal.paint(&board);
        live(&board, &["two 3 %"]);
        terminal.paint(&board);
        let shown = "first\nof two rows\nsecond\ntwo 3 %\nP2P> half";
        assert_eq!(terminal.shown(), shown);
        // Without news nothing is painted.
        assert_eq!(board.draw(SIZE, 9), None);
        for number in 0..20 {
            assert!(posted(&board, &format!("message {number}")));
            terminal.paint(&board);
        }
        let shown = terminal.shown();
        assert!(shown.ends_with("message 19\ntwo 3 %\nP2P> half"), "{shown}");
        assert_eq!(shown.matches('%').count(), 1, "{shown}");
    }

    #[test]
    fn lines_are_cut_and_left_out_where_there_is_no_room() {
        let board = board();
        live(&board, &["名".repeat(60).as_str(), "2", "3", "4", "5"]);
        let text = board.draw(SIZE, 9).unwrap();
        let widths: Vec<usize> = text
            .lines()
            .map(|line| line.trim_start_matches("\r\x1b[J").width())
            .collect();
        assert_eq!(widths, [39, 1, 1, 1], "{text}");
        let low = Size {
            rows: MIN_ROWS - 1,
            ..SIZE
        };
        board.forget();
        assert_eq!(board.draw(low, 9).unwrap(), "\r\x1b[J");
    }

    #[test]
    fn after_a_resize_the_way_up_is_as_long_as_the_terminal_made_it() {
        let wide = Size {
            columns: 100,
            rows: 24,
        };
        let narrow = Size {
            columns: 30,
            rows: 24,
        };
        let line = "x".repeat(70);
        // Two lines of 70 columns are three rows each; the cursor after 95 columns was in the first row and
        // is in the fourth.
        for (resizing, typed, wanted) in [
            (Resizing::Reflows, 9, "\x1b[6A\r"),
            (Resizing::Reflows, 95, "\x1b[9A\r"),
            (Resizing::Cuts, 95, "\x1b[2A\r"),
        ] {
            let board = Board::new(resizing);
            assert!(board.hold());
            board.set_live(vec![line.clone(), line.clone()], wide, Instant::now());
            let _ = board.draw(wide, typed);
            let text = board.draw(narrow, typed).unwrap();
            assert!(text.starts_with(wanted), "{resizing:?} {typed}: {text:?}");
        }
        // Wider again: the editor went up by three rows, where there is none any more.
        let board = Board::new(Resizing::Reflows);
        assert!(board.hold());
        board.set_live(vec!["a".to_owned()], narrow, Instant::now());
        let _ = board.draw(narrow, 95);
        assert!(board.draw(wide, 95).unwrap().starts_with("\x1b[2B\r"));
    }

    #[test]
    fn no_message_is_dropped_and_none_is_waited_for_by_the_editor_itself() {
        let board = Arc::new(board());
        for number in 0..MAX_MESSAGES {
            assert!(posted(&board, &number.to_string()));
        }
        // The editor's own thread is this one.
        assert!(posted(&board, "from the editor"));
        let other = Arc::clone(&board);
        let waiting = std::thread::spawn(move || posted(&other, "late"));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished(), "there is no room");
        let text = board.draw(SIZE, 9).unwrap();
        assert_eq!(text.lines().count(), MAX_MESSAGES + 1);
        assert!(waiting.join().unwrap());
        assert!(board.draw(SIZE, 9).unwrap().contains("late\n"));
    }

    #[test]
    fn what_waits_when_the_line_ends_is_written_before_what_comes_later() {
        let board = Arc::new(board());
        assert!(posted(&board, "early"));
        let mut written = String::new();
        board.release(|text| written.push_str(text));
        assert_eq!(written, "early\n");
        assert_eq!(board.draw(SIZE, 9), None, "nobody edits");
        let turn = board.post("now");
        assert!(matches!(turn, Posted::Yours(_)));
        let other = Arc::clone(&board);
        let next = std::thread::spawn(move || other.hold());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!next.is_finished(), "the line begins when it is written");
        drop(turn);
        assert!(next.join().unwrap());
        for number in 0..=MAX_MESSAGES {
            // The last one waits for room, and must not wait for ever.
            let other = Arc::clone(&board);
            if number == MAX_MESSAGES {
                let stuck = std::thread::spawn(move || !posted(&other, "last"));
                std::thread::sleep(Duration::from_millis(50));
                board.close(|text| written = text.to_owned());
                assert!(stuck.join().unwrap(), "it is the caller's to write");
            } else {
                assert!(posted(&board, "x"));
            }
        }
        assert!(written.starts_with("\n\x1b[Jx\n") && !board.hold() && !board.wait());
    }

    #[test]
    fn a_passing_line_goes_when_it_is_not_renewed() {
        let board = board();
        let now = Instant::now();
        board.set_passing("# reading", now);
        assert!(board.draw(SIZE, 9).unwrap().contains("# reading"));
        board.set_live(Vec::new(), SIZE, now + PASSING);
        assert_eq!(board.draw(SIZE, 9), None);
        board.set_live(Vec::new(), SIZE, now + PASSING + Duration::from_millis(1));
        assert_eq!(board.draw(SIZE, 9).unwrap(), "\x1b[1A\r\x1b[J");
    }
}
