//! The `P2P>` prompt: lines from a terminal or from a pipe.
//!
//! At a terminal a command that takes as long as a file is large runs behind the prompt, which takes the next
//! line at once; the others are answered in the order in which they were typed or pasted. From a pipe each
//! command is finished before the next one begins, so that scripts can rely on the order.

use std::io::BufRead as _;
use std::time::Duration;

use rustix::termios::{QueueSelector, tcflush};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::ask::Dialog;
use super::command::{Command, parse};
use super::dialog::Silent;
use super::executor::Executor;
use super::exit::{Class, Failure};
use super::screen::Screen;
use crate::peer::JoinError;
use crate::wire::password::{Password, PasswordError};

const PROMPT: &str = "P2P> ";
/// Wrong passwords after which the question is not asked again by itself.
const MAX_FAILURES: u32 = 5;
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
    let mut login = Relogin::default();
    loop {
        let line = tokio::select! {
            _ = executor.peer().logged_out(), if is_typed && login.may_ask() => {
                login.ask(screen);
                continue;
            }
            line = lines.recv() => line.map(Zeroizing::new),
        };
        let Some(line) = line else { break };
        // Enter was pressed: what is printed now stands on lines of its own.
        screen.prompt(None);
        end = End::Asked;
        if login.is_asking() {
            login.take(executor, screen, &line).await;
            if is_typed && !login.is_asking() {
                screen.prompt(Some(PROMPT));
            }
            continue;
        }
        match parse(&line) {
            Ok(None) => {}
            Ok(Some(Command::Login)) if is_typed && login.is_declined() => {
                login = Relogin::default();
                continue;
            }
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

/// The question for the password, after the tracker has ended the login.
#[derive(Default)]
struct Relogin {
    /// Lives while the question stands: nothing that is typed is shown.
    silent: Option<Silent>,
    failures: u32,
    is_declined: bool,
}

impl Relogin {
    fn may_ask(&self) -> bool {
        !self.is_asking() && !self.is_declined
    }

    const fn is_asking(&self) -> bool {
        self.silent.is_some()
    }

    const fn is_declined(&self) -> bool {
        self.is_declined
    }

    fn ask(&mut self, screen: &Screen) {
        screen.prompt(None);
        screen.end_line();
        match Silent::begin() {
            Ok(silent) => {
                // Half of a command is no part of a password.
                let _ = tcflush(std::io::stdin(), QueueSelector::IFlush);
                self.silent = Some(silent);
                screen.prompt(Some("Password (Enter alone: later): "));
            }
            Err(_) => self.is_declined = true,
        }
    }

    /// What was typed at the question.
    async fn take(&mut self, executor: &Executor, screen: &Screen, line: &str) {
        self.silent = None;
        screen.note("[hidden]");
        let password = match Password::parse(line) {
            Ok(password) => password,
            Err(PasswordError::Empty) => return self.decline(screen),
            Err(error) => {
                screen.failure(&Failure::usage(format!("the password {error}")));
                return;
            }
        };
        let Err(error) = executor.peer().log_in(password).await else {
            self.failures = 0;
            return;
        };
        let least = match &error {
            JoinError::LoginTooOften(wait) => *wait,
            _ => Duration::ZERO,
        };
        screen.tell(&Failure::from(error));
        self.failures += 1;
        if self.failures >= MAX_FAILURES {
            return self.decline(screen);
        }
        tokio::time::sleep(least.max(Duration::from_secs(1 << (self.failures - 1)))).await;
    }

    fn decline(&mut self, screen: &Screen) {
        self.is_declined = true;
        screen.note("Not logged in; type login to log in again");
    }
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
