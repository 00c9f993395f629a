//! The `P2P>` prompt: lines from a terminal or from a pipe.
//!
//! At a terminal a command that takes as long as a file is large runs behind the prompt, which takes the next
//! line at once; the others are answered in the order in which they were typed or pasted. From a pipe each
//! command is finished before the next one begins, so that scripts can rely on the order.

use std::io::BufRead as _;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::ask::Dialog;
use super::command::{Command, parse};
use super::executor::Executor;
use super::exit::{Class, Failure};
use super::screen::Screen;

const PROMPT: &str = "P2P> ";
/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// Why no more commands come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody asked for it.
    Asked,
    /// There was no input at all: standard input is closed, or `/dev/null`.
    NoInput,
}

/// Reads and runs commands until `quit` or the end of the input.
///
/// # Errors
/// When results cannot be written any more.
pub async fn run(executor: &Executor, screen: &Screen, dialog: Dialog) -> Result<End, Failure> {
    let (sender, mut lines) = mpsc::channel(1);
    // A thread of its own: reading from a terminal cannot be interrupted.
    std::thread::spawn(move || read_lines(&sender));
    let tasks = TaskTracker::new();
    let is_typed = dialog == Dialog::Terminal;
    // Ctrl-D at a terminal is a wish, the end of what was never there is none.
    let mut end = if is_typed { End::Asked } else { End::NoInput };
    if is_typed {
        screen.prompt(Some(PROMPT));
    }
    let mut is_quit = false;
    while let Some(line) = lines.recv().await {
        // Enter was pressed: what is printed now stands on lines of its own.
        screen.prompt(None);
        end = End::Asked;
        match parse(&line) {
            Ok(None) => {}
            Ok(Some(Command::Quit)) => {
                is_quit = true;
                break;
            }
            Ok(Some(command)) if is_typed && command.is_long() => {
                let (executor, screen) = (executor.clone(), screen.clone());
                tasks.spawn(async move {
                    if let Err(failure) = executor.run(command).await {
                        screen.failure(&failure);
                    }
                });
            }
            Ok(Some(command)) => {
                if let Err(failure) = executor.run(command).await {
                    screen.failure(&failure);
                }
            }
            Err(message) => screen.failure(&Failure::usage(message)),
        }
        if screen.has_failed() {
            return Err(Failure::new(Class::Failed, ""));
        }
        if is_typed {
            screen.prompt(Some(PROMPT));
        }
    }
    if !is_typed && !is_quit {
        // A script that says no more wants what it asked for all the same.
        executor.finish_background().await;
    }
    if is_typed && !is_quit {
        // Ctrl-D leaves the cursor behind the prompt.
        screen.end_line();
    }
    screen.prompt(None);
    Ok(end)
}

/// Runs commands that were given as arguments, one after the other.
///
/// # Errors
/// The first failure; the commands after it are not run.
pub async fn run_lines(
    executor: &Executor,
    screen: &Screen,
    lines: &[String],
) -> Result<(), Failure> {
    for line in lines {
        match parse(line) {
            Ok(None) => {}
            Ok(Some(Command::Quit)) => break,
            Ok(Some(command)) => executor.run(command).await?,
            Err(message) => return Err(Failure::usage(message)),
        }
        if screen.has_failed() {
            return Err(Failure::new(Class::Failed, ""));
        }
    }
    executor.finish_background().await;
    Ok(())
}

fn read_lines(lines: &mpsc::Sender<String>) {
    let mut input = std::io::stdin().lock();
    loop {
        let mut bytes = Vec::new();
        match std::io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&bytes).into_owned();
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}
