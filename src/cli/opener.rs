//! Opens locked files: with a password from a file, or from a person, who may try several times.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use super::Context;
use super::args::UnlockArgs;
use super::ask::{self, Dialog};
use super::dialog::{Interrupt, ask_hidden};
use super::executor::{Executor, sha256_of};
use super::exit::{Class, Failure};
use super::options::DownloadOptions;
use super::quests::Quest;
use super::render;
use super::screen::{Screen, Style};
use crate::disk;
use crate::peer::unlock::{self, Opened, UnlockError};
use crate::wire::password::{Password, PasswordError};
use crate::wire::text::safe;

/// Wrong passwords after which a person is not asked again.
pub(super) const MAX_TRIES: u32 = 5;

/// Who is asked for a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Nobody is there.
    Nobody,
    /// The person at this terminal, who waits for the command.
    AtOnce,
    /// The person at the prompt, between two lines.
    AtPrompt,
}

/// A locked file on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedFile {
    /// Where it lies.
    pub path: PathBuf,
    /// It is not removed when it was opened: it is shared on, or somebody's own.
    pub stays: bool,
}

/// A file of which the password is known; given up when the guard is dropped.
pub(super) struct Tried(Opened, DropGuard);

impl LockedFile {
    /// What a person does about it later.
    #[must_use]
    pub fn how_to_open(&self) -> String {
        let quoted = self.path.to_string_lossy();
        let quoted = safe(&shell_words::quote(&quoted));
        format!("locked: open it with p2pfs unlock {quoted}, or with age -d")
    }

    fn shown(&self) -> String {
        safe(&self.path.to_string_lossy())
    }

    /// Tries a password.
    ///
    /// # Errors
    /// When it is wrong, or the file does not open with any.
    pub(super) async fn try_password(&self, password: Password) -> Result<Tried, UnlockError> {
        let (path, given_up) = (self.path.clone(), CancellationToken::new());
        let guard = given_up.clone().drop_guard();
        let trying = spawn_blocking(move || unlock::open(&path, &password, &given_up));
        let opened = trying
            .await
            .unwrap_or_else(|error| Err(self.broke_off(error)));
        Ok(Tried(opened?, guard))
    }

    /// Writes what is in it beside it, and says so.
    ///
    /// # Errors
    /// When it was changed after it was locked, or cannot be written.
    pub(super) async fn save(&self, tried: Tried, screen: &Screen) -> Result<(), Failure> {
        let Tried(opened, _guard) = tried;
        let saving = spawn_blocking(move || opened.save());
        let plain = saving
            .await
            .unwrap_or_else(|error| Err(self.broke_off(error)))?;
        if !self.stays {
            disk::remove(&self.path);
        }
        let path = plain.path.to_string_lossy().into_owned();
        screen.text(&format!(
            "Unlocked {} as {}, {}",
            self.shown(),
            safe(&path),
            render::size(plain.len)
        ))?;
        let sha256 = match screen.style() {
            Style::Json => Some(sha256_of(plain.path).await?),
            Style::Text => None,
        };
        screen.object(&json!({
            "v": 1, "type": "result", "command": "unlock", "ok": true,
            "path": path, "size": plain.len, "sha256": sha256,
        }))
    }

    /// Opens it with a password that nobody has to be asked for.
    ///
    /// # Errors
    /// When it does not open.
    pub(super) async fn open_with(
        &self,
        password: Password,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let tried = self.try_password(password).await;
        self.save(tried.map_err(Failure::from)?, screen).await
    }

    /// Asks the person at this terminal until it opens, or nobody wants it to; was it opened?
    ///
    /// # Errors
    /// When all answers were wrong, or it does not open with any.
    pub(super) async fn ask(&self, screen: &Screen) -> Result<bool, Failure> {
        let mut tries = 0;
        loop {
            let question = format!("Password of {} (Enter alone: later)", self.shown());
            let asked = hidden(question, Interrupt::Ends).await;
            let Some(line) = asked.map_err(|error| cannot_ask(&error))? else {
                return Ok(false);
            };
            let password = match Password::parse(&line) {
                Ok(password) => password,
                Err(PasswordError::Empty) => return Ok(false),
                Err(error) => {
                    screen.tell(&Failure::usage(format!("the password {error}")));
                    continue;
                }
            };
            match self.try_password(password).await {
                Ok(tried) => return self.save(tried, screen).await.map(|()| true),
                Err(error @ UnlockError::WrongPassword(_)) => {
                    tries += 1;
                    let failure = Failure::from(error);
                    if tries >= MAX_TRIES {
                        return Err(failure);
                    }
                    screen.tell(&failure);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The same for a command that has nothing else to do.
    ///
    /// # Errors
    /// Also when nobody answers.
    async fn ask_to_the_end(&self, screen: &Screen) -> Result<(), Failure> {
        let is_open = self.ask(screen).await?;
        let nothing = || Failure::usage("no password: nothing was done");
        is_open.then_some(()).ok_or_else(nothing)
    }

    /// Opens what was downloaded, with this password or a person's, or says how that is done later.
    ///
    /// # Errors
    /// When it does not open.
    pub(super) async fn open(
        &self,
        password: Option<&Password>,
        asking: Asking,
        screen: &Screen,
    ) -> Result<(), Failure> {
        let later = |failure: Failure| match failure.class {
            Class::Integrity => failure.hint(format!("{} stays as it is", self.shown())),
            _ => failure,
        };
        let is_open = match (password, asking) {
            (Some(password), _) => {
                let opened = self.open_with(password.clone(), screen).await;
                return opened.map_err(later);
            }
            (None, Asking::AtOnce) => self.ask(screen).await.map_err(later)?,
            (None, _) => false,
        };
        if !is_open {
            screen.note(&self.how_to_open());
        }
        Ok(())
    }

    fn broke_off(&self, error: tokio::task::JoinError) -> UnlockError {
        UnlockError::Local {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}

impl Executor {
    /// The password that was given with a download.
    ///
    /// # Errors
    /// When its file cannot be read, or has none.
    pub(super) fn password_of(
        &self,
        options: &DownloadOptions,
    ) -> Result<Option<Password>, Failure> {
        if let Some(password) = &options.secret {
            return Ok(Some(password.clone()));
        }
        let file = options.lock_password_file.as_deref();
        let read = file.map(|file| ask::lock_password_of(file, Class::Integrity, &self.screen));
        read.transpose()
    }

    /// Opens what was downloaded, leaves that to the one who asked for it, or says how it is done later.
    ///
    /// # Errors
    /// When it does not open.
    pub(super) async fn open(
        &self,
        locked: LockedFile,
        password: Option<&Password>,
    ) -> Result<(), Failure> {
        if password.is_some() || self.asking != Asking::AtPrompt {
            if password.is_none() && self.screen.hand_over(&locked) {
                return Ok(());
            }
            return locked.open(password, self.asking, &self.screen).await;
        }
        let (shown, later) = (locked.shown(), locked.how_to_open());
        if !self.quests.push(Quest::Open { locked, tries: 0 }) {
            self.screen.note(&later);
        } else if self.screen.is_edited() {
            // A question never steals a half-typed line.
            let line = format!("! {shown} is locked; press Enter to type its password");
            self.screen.note(&line);
        }
        Ok(())
    }

    /// Opens a locked file of this disk.
    ///
    /// # Errors
    /// When it does not open, or there is no password.
    pub(super) async fn unlock(
        &self,
        path: PathBuf,
        password_file: Option<&Path>,
    ) -> Result<(), Failure> {
        let locked = LockedFile { path, stays: true };
        match (password_file, self.asking) {
            (Some(file), _) => {
                let password = ask::lock_password_of(file, Class::Integrity, &self.screen)?;
                locked.open_with(password, &self.screen).await
            }
            (None, Asking::AtOnce) => locked.ask_to_the_end(&self.screen).await,
            (None, _) => Err(no_password()),
        }
    }
}

impl Context {
    /// `p2pfs unlock`
    pub(super) async fn unlock(&self, args: UnlockArgs) -> Result<(), Failure> {
        let locked = LockedFile {
            path: args.file,
            stays: true,
        };
        let (file, screen) = (args.password_file, self.screen.clone());
        let work = async {
            match (file, self.asking()) {
                (Some(file), _) => {
                    let reading = move || ask::lock_password(&file, Class::Integrity, &screen);
                    let password = self.asked(reading).await?;
                    locked.open_with(password, &self.screen).await
                }
                (None, Asking::AtOnce) => locked.ask_to_the_end(&self.screen).await,
                (None, _) => Err(no_password()),
            }
        };
        tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            done = work => done,
        }
    }

    /// Who is asked for passwords of locked files by a command: scripts get no questions.
    pub(super) fn asking(&self) -> Asking {
        match (self.dialog(), self.screen.style()) {
            (Dialog::Terminal, Style::Text) => Asking::AtOnce,
            _ => Asking::Nobody,
        }
    }

    /// Opens what a running peer has downloaded for this command.
    ///
    /// # Errors
    /// The first that does not open.
    pub(super) async fn open_all(
        &self,
        locked: Vec<LockedFile>,
        password: Option<&Password>,
    ) -> Result<(), Failure> {
        let mut done = Ok(());
        for locked in locked {
            let opening = locked.open(password, self.asking(), &self.screen);
            let opened = tokio::select! {
                () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
                opened = opening => opened,
            };
            done = done.and(opened);
        }
        done
    }
}

fn no_password() -> Failure {
    Failure::usage("no password").hint("give --password-file FILE, or run in a terminal")
}

/// Writes what is in the locked file at `path` to standard output, once all of it was found to be right. Blocking.
///
/// # Errors
/// When it does not open, or nobody reads.
pub(super) fn copy_out(
    path: &Path,
    password: &Password,
    to: impl io::Write,
) -> Result<(), Failure> {
    let waiting = CancellationToken::new();
    // Twice: whether it was cut off is known at its end only.
    unlock::open(path, password, &waiting)?.copy_to(io::sink())?;
    unlock::open(path, password, &waiting)?.copy_to(to)?;
    Ok(())
}

/// Asks the person at this terminal for one hidden line.
pub(super) async fn hidden(
    question: String,
    interrupt: Interrupt,
) -> io::Result<Option<Zeroizing<String>>> {
    let asking = spawn_blocking(move || ask_hidden(&question, interrupt));
    asking
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

pub(super) fn cannot_ask(error: &io::Error) -> Failure {
    Failure::usage(format!("cannot ask for the password: {error}"))
}
