//! The question for the password, after the tracker has ended the login.

use std::time::Duration;

use rustix::termios::{QueueSelector, tcflush};

use super::dialog::{Interrupt, Silent};
use super::executor::Executor;
use super::exit::Failure;
use super::modes;
use super::opener::hidden;
use super::screen::Screen;
use crate::peer::JoinError;
use crate::wire::password::{Password, PasswordError};

/// Wrong passwords after which the question is not asked again by itself.
const MAX_FAILURES: u32 = 5;

/// How far the question is.
#[derive(Default)]
pub struct Relogin {
    /// Lives while the question stands at a plain prompt: nothing that is typed is shown.
    silent: Option<Silent>,
    failures: u32,
    is_declined: bool,
}

impl Relogin {
    /// May it be asked now?
    #[must_use]
    pub const fn may_ask(&self) -> bool {
        !self.is_asking() && !self.is_declined
    }

    /// Does it stand?
    #[must_use]
    pub const fn is_asking(&self) -> bool {
        self.silent.is_some()
    }

    /// Was it answered with nothing, or wrongly too often?
    #[must_use]
    pub const fn is_declined(&self) -> bool {
        self.is_declined
    }

    /// Asks in the place of a plain prompt; the next line is the answer, for [`Relogin::take`].
    pub fn ask(&mut self, screen: &Screen) {
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
    pub async fn take(&mut self, executor: &Executor, screen: &Screen, line: &str) {
        self.silent = None;
        screen.note("[hidden]");
        self.answer(executor, screen, line).await;
    }

    /// Will it be asked after this line?
    pub async fn is_due(&self, executor: &Executor) -> bool {
        let out = executor.peer().logged_out();
        self.may_ask() && tokio::time::timeout(Duration::ZERO, out).await.is_ok()
    }

    /// Asks between two lines that are edited, until the login stands again or nobody wants it to.
    pub async fn ask_between(&mut self, executor: &Executor, screen: &Screen) {
        while self.is_due(executor).await {
            // A question is typed as anywhere else.
            modes::restore();
            let prompt = "Password (Enter alone: later)".to_owned();
            let asked = hidden(prompt, Interrupt::Cancels).await;
            modes::quieten();
            match asked {
                Ok(Some(line)) => self.answer(executor, screen, &line).await,
                _ => self.decline(screen),
            }
        }
    }

    async fn answer(&mut self, executor: &Executor, screen: &Screen, line: &str) {
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
