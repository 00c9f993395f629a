//! The line editor of the prompt, on a thread of its own.
//!
//! rustyline edits; what others have to say meanwhile stands on the [`Board`] and is written when rustyline
//! paints its prompt: [`Highlighter::highlight_prompt`] puts it in front. A second thread wakes the editor up
//! through rustyline's printer when there is something to paint. All that is written while a line is edited
//! is written by the editor's thread.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use rustyline::completion::Completer;
use rustyline::config::{BellStyle, ColorMode, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::{History as _, MemHistory};
use rustyline::validate::Validator;
use rustyline::{
    Cmd, ConditionalEventHandler, Context, Editor, Event, EventContext, EventHandler,
    ExternalPrinter, Helper, KeyEvent, Movement, RepeatCount,
};
use tokio::sync::mpsc;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::completion::{self, Known};
use super::history::History;
use super::live::Board;
use super::modes;
use super::screen::{terminal_size, write_terminal as write};
use super::talking::Talking;
use crate::wire::text::is_invisible;

/// Where the prompt stands again after the printer's text: rustyline ends that with a new line.
const WAKE: &str = "\x1b[A\n";
/// What comes within this time is painted at once.
const MERGING: Duration = Duration::from_millis(25);
/// For so long Esc may be the beginning of another key, in milliseconds.
const ESCAPE_MS: u16 = 500;
/// A pasted text of more lines is no list of commands.
const MAX_LINES: usize = 1000;

/// What somebody entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Lines: one, or those that were pasted.
    Lines(Vec<String>),
    /// Ctrl-D on an empty line, or the terminal is gone.
    End,
}

/// Begins to edit; entries come until the receiver is dropped. After each one the next line is begun when
/// [`Typing::next`] says so.
///
/// # Errors
/// When this terminal cannot be edited in.
pub fn start(
    prompt: &'static str,
    board: Arc<Board>,
    known: impl Known + Send + 'static,
    talking: Talking,
    history: History,
) -> Result<Typing, ReadlineError> {
    let config = Config::builder()
        // Otherwise rustyline leaves its helper out, and with it all that others say.
        .color_mode(ColorMode::Forced)
        .completion_type(CompletionType::List)
        .bell_style(BellStyle::None)
        // Until the end of what Esc may begin, rustyline hears nothing else.
        .keyseq_timeout(Some(ESCAPE_MS))
        // The marks of a paste stay on between two lines: see `modes`.
        .bracketed_paste(false)
        .build();
    let lines = MemHistory::with_config(&config);
    let mut editor: Editor<Aid, MemHistory> = Editor::with_history(config, lines)?;
    let typed = Arc::new(AtomicUsize::new(0));
    editor.set_helper(Some(Aid {
        board: Arc::clone(&board),
        known: Box::new(known),
        talking: talking.clone(),
        typed: Arc::clone(&typed),
        prompt_width: prompt.width(),
        has_styles: modes::has_styles(),
    }));
    for (key, handler) in [
        ('C', Key::Interrupt),
        ('Z', Key::Stop(Arc::clone(&board), typed)),
        ('L', Key::Clear(Arc::clone(&board))),
    ] {
        let handler = EventHandler::Conditional(Box::new(handler));
        editor.bind_sequence(KeyEvent::ctrl(key), handler);
    }
    let mut printer = editor.create_external_printer()?;
    modes::quieten();
    let (entries, received) = mpsc::channel(1);
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let waiting = Arc::clone(&board);
    std::thread::spawn(move || {
        while waiting.wait() {
            if printer.print(WAKE.to_owned()).is_err() {
                return;
            }
            std::thread::sleep(MERGING);
        }
    });
    std::thread::spawn(move || {
        let places = (&*board, &talking);
        edit(editor, prompt, places, history, &entries, &may_go_on);
    });
    Ok(Typing {
        entries: received,
        go_on,
    })
}

/// What is typed at the prompt.
#[derive(Debug)]
pub struct Typing {
    entries: mpsc::Receiver<Entry>,
    go_on: std::sync::mpsc::Sender<()>,
}

impl Typing {
    /// Shows the prompt and waits for what is entered.
    pub async fn next(&mut self) -> Entry {
        let _ = self.go_on.send(());
        self.entries.recv().await.unwrap_or(Entry::End)
    }
}

fn edit(
    mut editor: Editor<Aid, MemHistory>,
    prompt: &str,
    (board, talking): (&Board, &Talking),
    mut history: History,
    entries: &mpsc::Sender<Entry>,
    may_go_on: &std::sync::mpsc::Receiver<()>,
) {
    while may_go_on.recv().is_ok() && board.hold() {
        // Both are in memory; only the number of lines is bounded.
        let _ = editor.history_mut().clear();
        for line in history.lines() {
            let _ = editor.history_mut().add(line);
        }
        talking.typed("");
        let read = editor.readline(prompt);
        board.release(write);
        let entry = match read {
            // Enter alone is a line, too: it may be an answer.
            Ok(text) if text.is_empty() => Entry::Lines(vec![text]),
            Ok(text) => Entry::Lines(text.lines().take(MAX_LINES).map(str::to_owned).collect()),
            // What Ctrl-C does is decided below; nothing else interrupts.
            Err(ReadlineError::Interrupted) => Entry::Lines(Vec::new()),
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                write("! that is no UTF-8 text; type the line again\n");
                Entry::Lines(Vec::new())
            }
            // A terminal that is gone, too: there is nobody to ask again.
            Err(_) => Entry::End,
        };
        let is_end = entry == Entry::End;
        let lines = match &entry {
            Entry::Lines(lines) => lines.clone(),
            Entry::End => Vec::new(),
        };
        if entries.blocking_send(entry).is_err() || is_end {
            return;
        }
        for line in &lines {
            history.add(line);
        }
    }
}

/// The keys that do something else here.
enum Key {
    /// Clears a line, or leaves.
    Interrupt,
    Stop(Arc<Board>, Arc<AtomicUsize>),
    Clear(Arc<Board>),
}

impl ConditionalEventHandler for Key {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, line: &EventContext<'_>) -> Option<Cmd> {
        match self {
            Self::Interrupt if line.line().is_empty() => {
                // One way to leave: as from anywhere else, and at once when it comes again.
                let _ = kill_process(getpid(), Signal::INT);
                Some(Cmd::Noop)
            }
            Self::Interrupt => Some(Cmd::Kill(Movement::WholeBuffer)),
            Self::Stop(board, typed) => {
                write("\n");
                modes::stop();
                board.forget();
                // The editor will go up by as many rows as its line has before the cursor.
                let columns = terminal_size().columns.max(1);
                write(&"\n".repeat(typed.load(Ordering::Relaxed) / columns));
                Some(Cmd::Repaint)
            }
            Self::Clear(board) => {
                board.forget();
                Some(Cmd::ClearScreen)
            }
        }
    }
}

/// What the editor asks while a line is typed.
struct Aid {
    board: Arc<Board>,
    known: Box<dyn Known + Send>,
    /// Told of each change of the line.
    talking: Talking,
    /// Columns from the beginning of the prompt to the cursor, as last seen.
    typed: Arc<AtomicUsize>,
    prompt_width: usize,
    has_styles: bool,
}

impl Helper for Aid {}

impl Validator for Aid {}

impl Highlighter for Aid {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _is_default: bool,
    ) -> Cow<'b, str> {
        let typed = self.typed.load(Ordering::Relaxed);
        match self.board.draw(terminal_size(), typed) {
            Some(above) => Cow::Owned(above + prompt),
            None => Cow::Borrowed(prompt),
        }
    }

    // A pasted or recalled line may hold anything. What is left out here has no width.
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        let acts = |c: char| {
            (c.is_control() && !matches!(c, '\n' | '\t'))
                || (is_invisible(c) && c.width().unwrap_or(0) == 0)
        };
        if line.contains(acts) {
            Cow::Owned(line.replace(acts, ""))
        } else {
            Cow::Borrowed(line)
        }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

/// Shown behind the line, never part of it.
struct Shown(String);

impl Hint for Shown {
    fn display(&self) -> &str {
        &self.0
    }
    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Aid {
    type Hint = Shown;
    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Shown> {
        self.talking.typed(line);
        let typed = self.prompt_width + line.get(..pos).unwrap_or(line).width();
        self.typed.store(typed, Ordering::Relaxed);
        if !self.has_styles || pos < line.len() {
            return None;
        }
        let hint = completion::hint(line)?;
        // Only what fits behind the cursor: a hint must not move anything.
        let columns = terminal_size().columns.max(1);
        let room = (columns - typed % columns).saturating_sub(1);
        (hint.width() <= room).then_some(Shown(hint))
    }
}

impl Completer for Aid {
    type Candidate = String;
    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let done = completion::complete(line.get(..pos).unwrap_or(line), &*self.known);
        if let Some((start, text)) = done.replacement {
            return Ok((start, vec![text]));
        }
        if !done.shown.is_empty() {
            // Above the line, like all that is said while it is typed: rustyline's own list would hold up
            // what others say, and paints over its end when the line has several rows.
            let list = completion::columns(&done.shown, terminal_size().columns);
            let _ = self.board.post(&list);
        }
        Ok((pos, Vec::new()))
    }
}
