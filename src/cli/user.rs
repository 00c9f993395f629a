//! `p2pfs user`: keeps the file of users with their passwords.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{UserAction, UserTarget};
use super::ask::{self, Dialog};
use super::dialog::{self, Asker, Person};
use super::exit::{Class, Failure};
use super::passphrase::rate_password;
use super::screen::Screen;
use super::setup::Setup;
use super::{Context, executor};
use crate::crypto::password::PasswordHash;
use crate::crypto::random::OsRandom;
use crate::tracker::credentials::{Edit, EditError, Skipped, Users, edit, read};
use crate::wire::password::Password;
use crate::wire::text::{UserName, safe};

impl Context {
    pub(super) async fn user(&self, action: UserAction) -> Result<(), Failure> {
        let (dialog, screen) = (self.dialog(), self.screen.clone());
        let credentials = match &action {
            UserAction::Add(target)
            | UserAction::Passwd(target)
            | UserAction::Remove(target)
            | UserAction::Verify(target) => target.credentials.as_ref(),
            UserAction::List { credentials } => credentials.as_ref(),
        };
        let path = path(&self.setup, credentials)?;
        // Questions and Argon2 do not belong on the tasks' threads.
        let work = tokio::task::spawn_blocking(move || run(&action, &path, dialog, &screen));
        tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            done = work => done.map_err(|error| Failure::new(Class::Failed, error.to_string()))?,
        }
    }
}

/// The flag's file, the configuration's, or the usual one.
fn path(setup: &Setup, flag: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    let configured = setup.config.tracker.credentials.as_ref();
    let given = flag
        .or(configured)
        .filter(|path| !path.as_os_str().is_empty());
    given
        .cloned()
        .or_else(|| setup.usual_credentials())
        .ok_or_else(|| {
            Failure::usage("there is no home directory to keep users in")
                .hint("give --credentials FILE")
        })
}

fn run(action: &UserAction, path: &Path, dialog: Dialog, screen: &Screen) -> Result<(), Failure> {
    let shown = safe(&path.to_string_lossy());
    match action {
        UserAction::Add(target) => {
            let user = executor::parse_user(&target.name)?;
            // Before the question: an answer for nothing is annoying.
            if read(path).is_ok_and(|(users, _)| users.find(&user).is_some()) {
                return Err(EditError::Exists(user).into());
            }
            let hash = new_hash(target, &user, dialog, screen)?;
            if let Some(dir) = path.parent().filter(|dir| *dir != Path::new("")) {
                let made = crate::disk::create_private_dir(dir);
                made.map_err(|error| {
                    Failure::new(Class::Local, format!("{}: {error}", dir.display()))
                })?;
            }
            edit(path, &user, Edit::Add(&hash))?;
            done(screen, "add", &user, &format!("Added {user} to {shown}"))
        }
        UserAction::Passwd(target) => {
            let user = executor::parse_user(&target.name)?;
            let hash = new_hash(target, &user, dialog, screen)?;
            edit(path, &user, Edit::Change(&hash))?;
            done(
                screen,
                "passwd",
                &user,
                &format!("{user} has a new password"),
            )
        }
        UserAction::Remove(target) => {
            let user = executor::parse_user(&target.name)?;
            let left = edit(path, &user, Edit::Remove)?;
            if left.is_empty() {
                screen.note(
                    "! that was the last user: a running tracker keeps the users of before until there is one again",
                );
            }
            done(
                screen,
                "remove",
                &user,
                &format!("Removed {user} from {shown}"),
            )
        }
        UserAction::List { .. } => list(path, screen),
        UserAction::Verify(target) => {
            let password = known_password(target, dialog, screen)?;
            let (users, _) = read(path).map_err(Failure::from)?;
            let user = target.name.parse().ok();
            let hash = user.as_ref().and_then(|user: &UserName| users.find(user));
            match (user.as_ref(), hash) {
                (Some(user), Some(hash)) if hash.fits(&password) => done(
                    screen,
                    "verify",
                    user,
                    &format!("{user}: this password fits"),
                ),
                _ => Err(Failure::new(Class::Login, "wrong user or password")),
            }
        }
    }
}

fn done(screen: &Screen, what: &str, user: &UserName, line: &str) -> Result<(), Failure> {
    screen.text(line)?;
    screen.object(&json!({
        "v": 1, "type": "result", "command": format!("user {what}"), "ok": true, "user": user.as_str(),
    }))
}

fn list(path: &Path, screen: &Screen) -> Result<(), Failure> {
    let bytes = crate::disk::read_private(path)?.ok_or_else(|| {
        Failure::new(Class::NotFound, format!("there is no {}", path.display()))
            .hint("p2pfs user add NAME makes it")
    })?;
    let (users, skipped) = Users::parse(&bytes, &mut OsRandom::new());
    for Skipped { line, reason } in skipped {
        screen.note(&format!(
            "! {}:{line}: skipped: {}",
            path.display(),
            safe(&reason)
        ));
    }
    for user in users.names() {
        screen.text(&user.to_string())?;
        screen.object(&json!({ "v": 1, "type": "user", "user": user.as_str() }))?;
    }
    Ok(())
}

fn new_hash(
    target: &UserTarget,
    user: &UserName,
    dialog: Dialog,
    screen: &Screen,
) -> Result<PasswordHash, Failure> {
    let password = match ask::password_file(target.password_file.as_deref(), screen)? {
        Some(password) => password,
        None if dialog == Dialog::Terminal => new_password(&mut Person, user)?,
        None => return Err(no_password()),
    };
    if let Some(hint) = weakness(&password, user) {
        screen.note(&format!("! {hint}"));
    }
    Ok(PasswordHash::new(&password, &mut OsRandom::new()))
}

fn known_password(
    target: &UserTarget,
    dialog: Dialog,
    screen: &Screen,
) -> Result<Password, Failure> {
    match ask::password_file(target.password_file.as_deref(), screen)? {
        Some(password) => Ok(password),
        None if dialog == Dialog::Terminal => dialog::password(&mut Person, "Password"),
        None => Err(no_password()),
    }
}

fn no_password() -> Failure {
    Failure::usage("no password")
        .hint("give --password-file FILE, set P2PFS_PASSWORD_FILE, or run in a terminal")
}

/// Asks twice, so that a slip locks nobody out.
fn new_password(asker: &mut dyn Asker, user: &UserName) -> Result<Password, Failure> {
    for _ in 0..dialog::MAX_ANSWERS {
        let password = dialog::password(asker, &format!("New password for {user}"))?;
        let again = dialog::hidden(asker, "The same again")?;
        if Password::parse(&again).is_ok_and(|again| again == password) {
            return Ok(password);
        }
        asker.tell("  these two differ");
    }
    Err(Failure::usage("no password: nothing was done"))
}

fn weakness(password: &Password, user: &UserName) -> Option<String> {
    let rating = rate_password(password, user);
    (!rating.is_enough()).then(|| {
        format!(
            "this password can be guessed (about 10^{} guesses); \"p2pfs passphrase\" makes better ones",
            rating.guesses_log10
        )
    })
}
