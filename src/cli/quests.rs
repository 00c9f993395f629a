//! Questions for the passwords of locked files: they wait for their turn, between two lines of the prompt.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::{QueueSelector, tcflush};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::command::Command;
use super::dialog::{Interrupt, Silent};
use super::executor::{Executor, all_there};
use super::exit::Failure;
use super::locking::all_lockable;
use super::modes;
use super::opener::{Asking, LockedFile, MAX_TRIES, hidden};
use super::options::AddArgs;
use super::screen::Screen;
use crate::peer::unlock::UnlockError;
use crate::wire::password::{Password, PasswordError};
use crate::wire::text::safe;

/// Most questions that wait; what comes beyond them is told how it is opened later.
const MAX_WAITING: usize = 100;

/// What a password is wanted for.
#[derive(Debug)]
pub enum Quest {
    /// Files are to be shared with a lock.
    Lock {
        /// Which.
        args: Box<AddArgs>,
        /// The answer that is to be repeated.
        first: Option<Password>,
    },
    /// A locked file is to be opened.
    Open {
        /// Which.
        locked: LockedFile,
        /// Wrong answers.
        tries: u32,
    },
}

/// Questions that wait; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Quests(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    queue: Mutex<VecDeque<Quest>>,
    added: Notify,
}

impl Quests {
    /// Asks when it is its turn; `false` when too many wait.
    #[must_use]
    pub fn push(&self, quest: Quest) -> bool {
        let mut queue = self.queue();
        let has_room = queue.len() < MAX_WAITING;
        if has_room {
            queue.push_back(quest);
            self.0.added.notify_one();
        }
        has_room
    }

    /// Does one wait?
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue().is_empty()
    }

    fn pop(&self) -> Option<Quest> {
        self.queue().pop_front()
    }

    /// The next one, as soon as there is one.
    pub async fn next(&self) -> Quest {
        loop {
            let added = self.0.added.notified();
            if let Some(quest) = self.pop() {
                return quest;
            }
            added.await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Quest>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks between two lines that are edited, until no question waits.
    pub async fn ask_between(&self, executor: &Executor, screen: &Screen, tasks: &TaskTracker) {
        let mut current = None;
        while let Some(quest) = current.take().or_else(|| self.pop()) {
            quest.introduce(screen);
            // A question is typed as anywhere else.
            modes::restore();
            let prompt = quest.prompt().trim_end_matches(": ").to_owned();
            let asked = hidden(prompt, Interrupt::Cancels).await;
            modes::quieten();
            match asked {
                Ok(Some(line)) => current = quest.answer(executor, screen, tasks, &line).await,
                _ => quest.decline(screen),
            }
        }
    }
}

/// A question that stands in the place of a plain prompt; nothing that is typed is shown.
pub struct Standing {
    quest: Quest,
    _silent: Silent,
}

impl Standing {
    /// Asks; the next line is the answer, for [`Self::take`]. `None` where nothing can be hidden.
    #[must_use]
    pub fn ask(quest: Quest, screen: &Screen) -> Option<Self> {
        screen.prompt(None);
        screen.end_line();
        let Ok(silent) = Silent::begin() else {
            quest.decline(screen);
            return None;
        };
        // Half of a command is no part of a password.
        let _ = tcflush(std::io::stdin(), QueueSelector::IFlush);
        quest.introduce(screen);
        screen.prompt(Some(quest.prompt()));
        Some(Self {
            quest,
            _silent: silent,
        })
    }

    /// What was typed; the question that follows from it, if one does.
    pub async fn take(
        self,
        executor: &Executor,
        screen: &Screen,
        tasks: &TaskTracker,
        line: &str,
    ) -> Option<Self> {
        screen.note("[hidden]");
        let next = self.quest.answer(executor, screen, tasks, line).await?;
        Self::ask(next, screen)
    }
}

impl Quest {
    fn introduce(&self, screen: &Screen) {
        if let Self::Open { locked, tries: 0 } = self {
            let shown = safe(&locked.path.to_string_lossy());
            screen.note(&format!("{shown} is locked"));
        }
    }

    const fn prompt(&self) -> &'static str {
        match self {
            Self::Lock { first: None, .. } => "Password for the lock: ",
            Self::Lock { first: Some(_), .. } => "The same again: ",
            Self::Open { .. } => "Password (Enter alone: later): ",
        }
    }

    fn decline(self, screen: &Screen) {
        match self {
            Self::Lock { .. } => screen.note("nothing was shared"),
            Self::Open { locked, .. } => screen.note(&locked.how_to_open()),
        }
    }

    /// Takes an answer; the question that follows from it, if one does. What takes long goes among `tasks`.
    async fn answer(
        self,
        executor: &Executor,
        screen: &Screen,
        tasks: &TaskTracker,
        line: &str,
    ) -> Option<Self> {
        let password = match Password::parse(line) {
            Ok(password) => password,
            Err(PasswordError::Empty) => {
                self.decline(screen);
                return None;
            }
            Err(error) => {
                screen.failure(&Failure::usage(format!("the password {error}")));
                return Some(self);
            }
        };
        match self {
            Self::Lock { args, first: None } => Some(Self::Lock {
                args,
                first: Some(password),
            }),
            Self::Lock {
                args,
                first: Some(first),
            } if first != password => {
                screen.note("these two differ");
                Some(Self::Lock { args, first: None })
            }
            Self::Lock { mut args, .. } => {
                args.secret = Some(password);
                let (executor, screen) = (executor.clone(), screen.clone());
                tasks.spawn(async move {
                    if let Err(failure) = executor.share(&args).await {
                        screen.failure(&failure);
                    }
                });
                None
            }
            Self::Open { locked, tries } => match locked.try_password(password).await {
                Ok(tried) => {
                    let screen = screen.clone();
                    tasks.spawn(async move {
                        if let Err(failure) = locked.save(tried, &screen).await {
                            screen.failure(&failure);
                        }
                    });
                    None
                }
                Err(error @ UnlockError::WrongPassword(_)) => {
                    screen.tell(&Failure::from(error));
                    let quest = Self::Open {
                        locked,
                        tries: tries + 1,
                    };
                    if tries + 1 < MAX_TRIES {
                        return Some(quest);
                    }
                    quest.decline(screen);
                    None
                }
                Err(error) => {
                    screen.failure(&Failure::from(error));
                    None
                }
            },
        }
    }
}

impl Executor {
    /// Asks for the password that a command typed at the prompt lacks, before it is carried out; `None` when the
    /// question stands for the command.
    ///
    /// # Errors
    /// When there is something that no password would help with.
    pub(super) fn ask_first(&self, command: Command) -> Result<Option<Command>, Failure> {
        if self.asking != Asking::AtPrompt {
            return Ok(Some(command));
        }
        let quest = match command {
            Command::Add(args)
                if args.lock && args.lock_password_file.is_none() && args.secret.is_none() =>
            {
                all_there(&args.paths)?;
                all_lockable(&args.paths)?;
                let args = Box::new(args);
                Quest::Lock { args, first: None }
            }
            Command::Unlock {
                file: path,
                password_file: None,
            } => Quest::Open {
                locked: LockedFile { path, stays: true },
                tries: 0,
            },
            other => return Ok(Some(other)),
        };
        if !self.quests.push(quest) {
            return Err(Failure::usage("too many questions for passwords wait"));
        }
        Ok(None)
    }
}
