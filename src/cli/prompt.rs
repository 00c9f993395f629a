//! The `P2P>` prompt: lines from the editor, from a plain terminal, or from a pipe.
//!
//! At a terminal a command that takes as long as a file is large runs behind the prompt, which takes the next
//! line at once; the others are answered in the order in which they were typed. From a pipe each command is
//! finished before the next one begins, so that scripts can rely on the order. Lines are edited where all
//! three streams are one terminal that is not dumb; elsewhere a simple prompt stands on stderr.

use std::io::BufRead;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::ask::Dialog;
use super::command::{Command, parse};
use super::editor::{self, Entry, Typing};
use super::executor::Executor;
use super::exit::{Class, Failure};
use super::history::History;
use super::quests::Standing;
use super::relogin::Relogin;
use super::screen::Screen;
use super::{live, modes};
use crate::wire::text::safe;

const PROMPT: &str = "P2P> ";
/// Longest line that is read, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// How often the lines of downloads are drawn anew.
const FRAME: Duration = Duration::from_millis(250);

/// Why no more commands come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody asked for it.
    Asked,
    /// There was no input at all: standard input is closed, or `/dev/null`.
    NoInput,
}

/// Does the next line follow?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Next,
    Quit,
}

/// Reads and runs commands until `quit` or the end of the input.
///
/// # Errors
/// When results cannot be written any more.
pub async fn run(executor: &Executor, screen: &Screen, dialog: Dialog) -> Result<End, Failure> {
    let is_typed = dialog == Dialog::Terminal;
    let tasks = TaskTracker::new();
    if is_typed && let Some((mut typing, _editing)) = edit(executor, screen) {
        let mut login = Relogin::default();
        while let Entry::Lines(lines) = typing.next().await {
            let is_pasted = lines.len() > 1;
            for line in lines {
                // Enter alone is an answer, an empty line of a text is none.
                if is_pasted && line.trim().is_empty() {
                    continue;
                }
                let done = step(executor, screen, &line, Some(&tasks), &mut login).await?;
                if done == Step::Quit {
                    return Ok(End::Asked);
                }
            }
            // Not before Enter: a question never steals a half-typed line.
            login.ask_between(executor, screen).await;
            executor.quests.ask_between(executor, screen, &tasks).await;
        }
        return Ok(End::Asked);
    }
    let (sender, mut lines) = mpsc::channel(1);
    // A thread of its own: reading from a terminal cannot be interrupted.
    std::thread::spawn(move || read_lines(std::io::stdin().lock(), &sender));
    // Ctrl-D at a terminal is a wish, the end of what was never there is none.
    let mut end = if is_typed { End::Asked } else { End::NoInput };
    if is_typed {
        screen.prompt(Some(PROMPT));
    }
    let mut is_quit = false;
    let mut login = Relogin::default();
    let mut standing: Option<Standing> = None;
    loop {
        let line = tokio::select! {
            _ = executor.peer().logged_out(), if is_typed && login.may_ask() && standing.is_none() => {
                login.ask(screen);
                continue;
            }
            quest = executor.quests.next(), if is_typed && !login.is_asking() && standing.is_none() => {
                standing = Standing::ask(quest, screen);
                if standing.is_none() {
                    screen.prompt(Some(PROMPT));
                }
                continue;
            }
            line = lines.recv() => line.map(|line| line.map(Zeroizing::new)),
        };
        let Some(line) = line else { break };
        // Enter was pressed: what is printed now stands on lines of its own.
        screen.prompt(None);
        end = End::Asked;
        let line = match line {
            Ok(line) => line,
            Err(TooLong) => {
                let limit = MAX_LINE / 1024;
                screen.failure(&Failure::usage(format!("a line has at most {limit} KiB")));
                if is_typed {
                    screen.prompt(Some(PROMPT));
                }
                continue;
            }
        };
        if login.is_asking() {
            login.take(executor, screen, &line).await;
            if is_typed && !login.is_asking() {
                screen.prompt(Some(PROMPT));
            }
            continue;
        }
        if let Some(asked) = standing.take() {
            standing = asked.take(executor, screen, &tasks, &line).await;
            if standing.is_none() {
                screen.prompt(Some(PROMPT));
            }
            continue;
        }
        let tasks = is_typed.then_some(&tasks);
        if step(executor, screen, &line, tasks, &mut login).await? == Step::Quit {
            is_quit = true;
            break;
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

/// Runs one line; a long command among `tasks`, if there are any.
async fn step(
    executor: &Executor,
    screen: &Screen,
    line: &str,
    tasks: Option<&TaskTracker>,
    login: &mut Relogin,
) -> Result<Step, Failure> {
    match (parse(line), tasks) {
        (Ok(None), Some(_)) if line.trim().is_empty() => {
            // Where a password is waited for, Enter asks for it and answers nobody.
            let is_for_password = executor.quests.is_waiting() || login.is_due(executor).await;
            if !is_for_password && let Err(failure) = executor.enter_alone().await {
                screen.failure(&failure);
            }
        }
        (Ok(None), _) => {}
        (Ok(Some(Command::Login)), Some(_)) if login.is_declined() => *login = Relogin::default(),
        (Ok(Some(Command::Quit)), _) => return Ok(Step::Quit),
        (Ok(Some(command)), Some(tasks)) if command.is_long() => {
            let command = match executor.ask_first(command) {
                Ok(Some(command)) => command,
                Ok(None) => return Ok(Step::Next),
                Err(failure) => {
                    screen.failure(&failure);
                    return Ok(Step::Next);
                }
            };
            let (executor, screen) = (executor.clone(), screen.clone());
            let mut running = Box::pin(async move {
                if let Err(failure) = executor.run(command).await {
                    screen.failure(&failure);
                }
            });
            // Begun here, so that what is said is said in the order in which it was typed.
            tokio::select! {
                biased;
                () = &mut running => {}
                () = std::future::ready(()) => drop(tasks.spawn(running)),
            }
        }
        (Ok(Some(command)), _) => {
            if let Err(failure) = executor.run(command).await {
                screen.failure(&failure);
            }
        }
        (Err(message), _) => screen.failure(&Failure::usage(message)),
    }
    if screen.has_failed() {
        return Err(Failure::new(Class::Failed, ""));
    }
    Ok(Step::Next)
}

/// While it lives, lines are edited; then the terminal is as it was found.
struct Editing {
    screen: Screen,
    tasks: Vec<AbortHandle>,
}

impl Drop for Editing {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.screen.end_editing();
    }
}

/// Begins to edit, where that is possible.
fn edit(executor: &Executor, screen: &Screen) -> Option<(Typing, Editing)> {
    let board = screen.begin_editing()?;
    let (history, read) = History::load(executor.history.clone(), executor.keeps);
    if let Err(error) = read {
        screen.note(&safe(&format!("! what you type is not kept: {error}")));
    }
    let mut editing = Editing {
        screen: screen.clone(),
        tasks: Vec::new(),
    };
    let (known, talking) = (executor.clone(), executor.talking.clone());
    let typing = editor::start(PROMPT, board.clone(), known, talking, history);
    let typing = match typing {
        Ok(typing) => typing,
        Err(error) => {
            tracing::warn!(%error, "lines cannot be edited here");
            return None;
        }
    };
    let (told, shown) = (screen.clone(), executor.clone());
    editing.tasks.push(spawn(async move {
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            frames.tick().await;
            told.set_live(live::lines(&shown.peer().transfers(), told.live_width()));
        }
    }));
    if let Ok(mut continued) = signal(SignalKind::from_raw(Signal::CONT.as_raw())) {
        editing.tasks.push(spawn(async move {
            while continued.recv().await.is_some() {
                modes::go_on(board.is_held());
                board.forget();
            }
        }));
    }
    Some((typing, editing))
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tokio::spawn(task).abort_handle()
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

fn read_lines(mut input: impl BufRead, lines: &mpsc::Sender<Result<String, TooLong>>) {
    loop {
        let mut bytes = Vec::new();
        let part = |input: &mut _, bytes: &mut Vec<u8>| {
            bytes.clear();
            std::io::Read::take(input, MAX_LINE as u64).read_until(b'\n', bytes)
        };
        match part(&mut input, &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let is_whole = |bytes: &[u8]| bytes.len() < MAX_LINE || bytes.ends_with(b"\n");
        let line = if is_whole(&bytes) {
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        } else {
            // What is behind it belongs to it, and is no command of its own.
            while !is_whole(&bytes) && part(&mut input, &mut bytes).is_ok() {}
            Err(TooLong)
        };
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

/// A line that is longer than any command, and was passed over.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_one_line_all_the_same() {
        let long = "x".repeat(5 * MAX_LINE);
        let just = "y".repeat(MAX_LINE - 1);
        let text = format!("ls\n{long}\nid\n{just}\nwho");
        let (sender, mut lines) = mpsc::channel(10);
        read_lines(text.as_bytes(), &sender);
        drop(sender);
        let mut read = Vec::new();
        while let Ok(line) = lines.try_recv() {
            read.push(line.map(|line| line.trim_end().to_owned()));
        }
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(
            read,
            [ok("ls"), Err(TooLong), ok("id"), ok(&just), ok("who")]
        );
    }
}
