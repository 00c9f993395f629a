//! Shares files with a lock: whence the password, and who makes the locked copies.
//!
//! The process that has the password makes them, so that it goes through no socket: a running peer gets copies that
//! lie in its own folder already.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Context;
use super::args::ShareArgs;
use super::ask::{self, Dialog};
use super::command::Command;
use super::dialog::{self, Person};
use super::executor::Executor;
use super::exit::{Class, Failure};
use super::opener::Asking;
use super::options::AddArgs;
use super::screen::Screen;
use super::{render, setup, status};
use crate::ipc::{self, Request};
use crate::peer::locker::{LockedCopy, Locker};
use crate::peer::{Readers, ShareError, Shared};
use crate::wire::password::Password;
use crate::wire::text::{FileName, safe};

/// Longer files take a while: people are told.
const LARGE_LEN: u64 = 256 << 20;

/// With what files are locked.
pub(super) enum Lock {
    /// Copies are made with this password.
    Password(Password),
    /// They were made before; what is not shared of them in the end is gone with this.
    Copies(Vec<Option<LockedCopy>>),
}

/// Can each of these be locked? Asked before a password is: a folder cannot.
///
/// # Errors
/// The first that cannot.
pub(super) fn all_lockable(paths: &[PathBuf]) -> Result<(), Failure> {
    let Some(folder) = paths.iter().find(|path| path.is_dir()) else {
        return Ok(());
    };
    let shown = safe(&folder.to_string_lossy());
    Err(
        Failure::usage(format!("{shown} is a folder: a lock is for files"))
            .hint("lock its files one by one, or pack it into one before"),
    )
}

/// Asks twice for the password of a new lock. Blocking.
///
/// # Errors
/// When there are no answers, or never two that are one.
pub(super) fn ask_twice() -> Result<Password, Failure> {
    for _ in 0..dialog::MAX_ANSWERS {
        let password = dialog::password(&mut Person, "Password for the lock")?;
        if *dialog::hidden(&mut Person, "The same again")? == *password.expose() {
            return Ok(password);
        }
        dialog::Asker::tell(&mut Person, "  these two differ");
    }
    Err(Failure::usage("no password: nothing was shared"))
}

fn no_password() -> Failure {
    Failure::usage("no password for the lock")
        .hint("give --lock-password-file FILE, or run in a terminal")
}

async fn asked() -> Result<Password, Failure> {
    let asking = tokio::task::spawn_blocking(ask_twice);
    let asked = asking.await;
    asked.unwrap_or_else(|error| Err(Failure::new(Class::Failed, error.to_string())))
}

/// Says that a large file is being locked.
fn tell_large(path: &Path, screen: &Screen) {
    if let Ok(found) = path.metadata()
        && found.len() >= LARGE_LEN
    {
        let shown = safe(&path.to_string_lossy());
        screen.note(&format!("locking {shown}, {}", render::size(found.len())));
    }
}

impl Executor {
    /// The copies that came with a command: from now on it answers for them, whatever becomes of it.
    pub(super) fn copies_of(&self, args: &AddArgs) -> Vec<Option<LockedCopy>> {
        let copies = args.copies.iter();
        copies.map(|copy| self.peer.locker().take(copy)).collect()
    }

    /// What the files of a command are to be locked with; `None` when they are not.
    ///
    /// # Errors
    /// When something cannot be locked, or there is no password.
    pub(super) async fn lock_of(
        &self,
        args: &AddArgs,
        copies: Vec<Option<LockedCopy>>,
    ) -> Result<Option<Lock>, Failure> {
        if !args.lock {
            return Ok(None);
        }
        all_lockable(&args.paths)?;
        if !copies.is_empty() {
            if copies.len() != args.paths.len() {
                return Err(Failure::usage("for each file one copy is needed"));
            }
            return Ok(Some(Lock::Copies(copies)));
        }
        let password = match (&args.secret, &args.lock_password_file, self.asking) {
            (Some(password), ..) => password.clone(),
            (None, Some(file), _) => ask::lock_password_of(file, Class::Usage, &self.screen)?,
            (None, None, Asking::AtOnce) => asked().await?,
            (None, None, _) => return Err(no_password()),
        };
        Ok(Some(Lock::Password(password)))
    }

    /// Shares the `number`th file of a command with a lock.
    ///
    /// # Errors
    /// When it cannot be shared.
    pub(super) async fn share_locked(
        &self,
        (lock, number): (&mut Lock, usize),
        path: &Path,
        (name, readers): (Option<FileName>, Readers),
        time: Option<Duration>,
    ) -> Result<Shared, ShareError> {
        let copy = match lock {
            Lock::Password(password) => {
                tell_large(path, &self.screen);
                self.peer.locker().make(path, password.clone()).await?
            }
            Lock::Copies(copies) => {
                let taken = copies.get_mut(number).and_then(Option::take);
                taken.ok_or_else(|| ShareError::Local {
                    path: path.to_owned(),
                    reason: "its locked copy is not there".to_owned(),
                })?
            }
        };
        self.peer
            .share_locked(path, name, readers, copy, time)
            .await
    }
}

impl Context {
    /// Shares with a lock: copies are made here, for the running peer or for one of its own.
    pub(super) async fn share_with_lock(
        &self,
        args: &ShareArgs,
        mut what: AddArgs,
    ) -> Result<(), Failure> {
        all_lockable(&what.paths)?;
        let password = match (what.lock_password_file.take(), self.dialog()) {
            (Some(file), _) => {
                let screen = self.screen.clone();
                let reading = move || ask::lock_password(&file, Class::Usage, &screen);
                self.asked(reading).await?
            }
            (None, Dialog::Terminal) => self.asked(ask_twice).await?,
            (None, Dialog::None) => return Err(no_password()),
        };
        if !args.once.standalone
            && let Some(dir) = self.running_peer().await
        {
            let locker = Locker::new(Some(&dir));
            let locking = self.copies(&locker, &what.paths, &password);
            let copies = tokio::select! {
                () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
                copies = locking => copies?,
            };
            let mut asked = what.clone();
            asked.copies = copies.iter().map(|copy| copy.path().to_owned()).collect();
            if let Some(done) = self.through_peer(&args.once, &Command::Add(asked)).await {
                let is_refused = |failure: &Failure| failure.class == Class::Usage;
                if !done.as_ref().is_err_and(is_refused) {
                    // What it did not share it has removed itself.
                    copies.into_iter().for_each(LockedCopy::keep);
                }
                return done;
            }
        }
        what.secret = Some(password);
        self.share_here(&args.once, &what).await
    }

    async fn copies(
        &self,
        locker: &Locker,
        paths: &[PathBuf],
        password: &Password,
    ) -> Result<Vec<LockedCopy>, Failure> {
        let mut copies = Vec::new();
        for path in paths {
            tell_large(path, &self.screen);
            copies.push(locker.make(path, password.clone()).await?);
        }
        Ok(copies)
    }

    /// The directory of the peer that runs here.
    async fn running_peer(&self) -> Option<PathBuf> {
        let dir = setup::state_dir(self.global(), "peer")?;
        let asked = ipc::ask(&dir, &Request::new(status::COMMAND), |_| {}).await;
        asked.is_ok().then_some(dir)
    }
}
