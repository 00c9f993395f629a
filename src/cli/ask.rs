//! Whether somebody can be asked, and where the passphrase comes from.
//!
//! A question is asked only of a terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::dialog::{self, Person};
use super::exit::{Class, Failure};
use super::passphrase::{find_slip, rate};
use super::screen::Screen;
use crate::crypto::secret::Passphrase;
use crate::wire::password::Password;
use crate::wire::text::safe;

/// Longer than any passphrase in a file, in bytes.
const MAX_FILE_LEN: u64 = 4096;
/// For as much, and for what the standard library wants to be free when it looks whether that was all.
const ROOM: usize = 4096 + 64;

/// May questions be asked?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialog {
    /// Somebody sits there.
    Terminal,
    /// A script does: fail instead.
    None,
}

impl Dialog {
    /// A terminal on both sides, unless `--no-input` forbids.
    #[must_use]
    pub fn detect(no_input: bool) -> Self {
        if !no_input && io::stdin().is_terminal() && io::stderr().is_terminal() {
            Self::Terminal
        } else {
            Self::None
        }
    }
}

/// What the passphrase is for: a tracker's must be strong, since everybody's depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To begin a group.
    Tracker {
        /// `--allow-weak-passphrase`
        allow_weak: bool,
        /// No tracker ever ran here: its passphrase is made now.
        is_new: bool,
    },
    /// To join one.
    Join,
}

/// The passphrase, from the file of the flag, of the environment, the environment itself, systemd's
/// credentials, or a question, in this order.
///
/// # Errors
/// When there is none, or it will not do.
pub fn passphrase(
    file: Option<&Path>,
    dialog: Dialog,
    purpose: Purpose,
    screen: &Screen,
) -> Result<Passphrase, Failure> {
    if let Some(passphrase) = given_passphrase(file, purpose, screen)? {
        return Ok(passphrase);
    }
    if dialog == Dialog::None {
        return Err(Failure::usage("no passphrase").hint(
            "give --passphrase-file FILE, set P2PFS_PASSPHRASE_FILE or P2PFS_PASSPHRASE, or run in a terminal",
        ));
    }
    let person = &mut Person;
    match purpose {
        Purpose::Join => dialog::known_passphrase(person, None),
        Purpose::Tracker {
            allow_weak,
            is_new: true,
        } => dialog::new_passphrase(person, allow_weak, None),
        Purpose::Tracker { is_new: false, .. } => {
            let passphrase = dialog::known_passphrase(person, None)?;
            judge(&passphrase, purpose)?;
            Ok(passphrase)
        }
    }
}

/// A passphrase that is only to be rated: no question of strength.
///
/// # Errors
/// As [`passphrase`].
pub fn passphrase_to_rate(
    file: Option<&Path>,
    dialog: Dialog,
    screen: &Screen,
) -> Result<Passphrase, Failure> {
    match given(file, screen)? {
        Some(text) => check(&text),
        None if dialog == Dialog::Terminal => check(&dialog::hidden(&mut Person, "Passphrase")?),
        None => Err(Failure::usage("no passphrase")
            .hint("give --passphrase-file FILE, or run in a terminal")),
    }
}

/// Is there a passphrase that nobody has to be asked for?
#[must_use]
pub fn is_given(file: Option<&Path>) -> bool {
    let is_set = |key| variable(key).is_some();
    file.is_some()
        || is_set("P2PFS_PASSPHRASE_FILE")
        || is_set("P2PFS_PASSPHRASE")
        || credential().is_some()
}

/// The passphrase that was given without a question, judged for `purpose`.
///
/// # Errors
/// When it will not do.
pub fn given_passphrase(
    file: Option<&Path>,
    purpose: Purpose,
    screen: &Screen,
) -> Result<Option<Passphrase>, Failure> {
    let Some(text) = given(file, screen)? else {
        return Ok(None);
    };
    let passphrase = check(&text)?;
    judge(&passphrase, purpose)?;
    // A script cannot be asked again: only a slip in what is surely one of ours stops it.
    if let Some(slip) = find_slip(&passphrase).filter(|slip| slip.is_sure) {
        return Err(Failure::usage(dialog::describe(&slip)));
    }
    Ok(Some(passphrase))
}

fn given(file: Option<&Path>, screen: &Screen) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(path) = file {
        return read(path, "passphrase", screen).map(Some);
    }
    if let Some(path) = variable("P2PFS_PASSPHRASE_FILE") {
        return read(Path::new(&path), "passphrase", screen).map(Some);
    }
    if let Some(text) = variable("P2PFS_PASSPHRASE") {
        let text = text
            .into_string()
            .map_err(|_| Failure::usage("P2PFS_PASSPHRASE is not UTF-8 text"))?;
        return Ok(Some(Zeroizing::new(text)));
    }
    // Whoever reads it is systemd's to choose: its rights may name the service's user apart.
    credential()
        .map(|path| {
            open(&path, "passphrase").and_then(|file| first_part(file, &path, "passphrase"))
        })
        .transpose()
}

/// A user's password, from the file of the flag or of the environment.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn password_file(file: Option<&Path>, screen: &Screen) -> Result<Option<Password>, Failure> {
    let path = file.map(Path::to_owned);
    let path = path.or_else(|| variable("P2PFS_PASSWORD_FILE").map(PathBuf::from));
    let Some(path) = path else { return Ok(None) };
    let text = read(&path, "password", screen)?;
    // Only the first line, as people write such files.
    let line = text.split_inclusive('\n').next().unwrap_or_default();
    Password::parse(line)
        .map(Some)
        .map_err(|error| Failure::usage(format!("the password {error}")))
}

/// The password of a locked file, from a file or from standard input; `class` is that of one that will not do.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn lock_password(path: &Path, class: Class, screen: &Screen) -> Result<Password, Failure> {
    let text = read(path, "password", screen)?;
    let line = text.split_inclusive('\n').next().unwrap_or_default();
    Password::parse(line).map_err(|error| Failure::new(class, format!("the password {error}")))
}

/// The same where standard input has other things to say.
///
/// # Errors
/// As [`lock_password`].
pub fn lock_password_of(path: &Path, class: Class, screen: &Screen) -> Result<Password, Failure> {
    if path == Path::new("-") {
        return Err(
            Failure::usage("commands come from standard input, no password")
                .hint("give --lock-password-file FILE"),
        );
    }
    lock_password(path, class, screen)
}

/// What an environment variable says; set to nothing it says nothing.
fn variable(key: &str) -> Option<OsString> {
    std::env::var_os(key).filter(|value| !value.is_empty())
}

/// The passphrase among systemd's credentials, if it is there.
fn credential() -> Option<PathBuf> {
    let path = Path::new(&variable("CREDENTIALS_DIRECTORY")?).join("passphrase");
    path.exists().then_some(path)
}

fn read(path: &Path, what: &str, screen: &Screen) -> Result<Zeroizing<String>, Failure> {
    if path == Path::new("-") {
        let mut text = room();
        let read = io::stdin().lock().take(MAX_FILE_LEN).read_line(&mut text);
        read.map_err(|error| Failure::usage(format!("no {what} on standard input: {error}")))?;
        return Ok(text);
    }
    let file = open(path, what)?;
    let found = file.metadata();
    if found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o077 != 0) {
        let shown = safe(&path.to_string_lossy());
        screen.note(&format!(
            "! {shown} can be read by others; repair: chmod 600 {shown}"
        ));
    }
    first_part(file, path, what)
}

fn first_part(file: File, path: &Path, what: &str) -> Result<Zeroizing<String>, Failure> {
    read_all(file).map_err(|error| unreadable(path, what, &error))
}

fn open(path: &Path, what: &str) -> Result<File, Failure> {
    File::open(path).map_err(|error| unreadable(path, what, &error))
}

fn unreadable(path: &Path, what: &str, error: &io::Error) -> Failure {
    let path = safe(&path.to_string_lossy());
    Failure::usage(format!("cannot read the {what} from {path}: {error}"))
}

fn read_all(source: impl io::Read) -> io::Result<Zeroizing<String>> {
    let mut text = room();
    source.take(MAX_FILE_LEN).read_to_string(&mut text)?;
    Ok(text)
}

/// For all that is read: a text that grows leaves what was in it behind.
fn room() -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(ROOM))
}

fn check(text: &str) -> Result<Passphrase, Failure> {
    Passphrase::parse(text).map_err(|error| Failure::usage(format!("the passphrase {error}")))
}

/// Refuses a passphrase that will not do for its purpose.
///
/// # Errors
/// When a tracker would start with one that can be guessed.
pub fn judge(passphrase: &Passphrase, purpose: Purpose) -> Result<(), Failure> {
    match purpose {
        Purpose::Tracker {
            allow_weak: false, ..
        } if !rate(passphrase).is_enough() => Err(Failure::usage("this passphrase can be guessed")
            .hint("take one from \"p2pfs passphrase\", or give --allow-weak-passphrase")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_read_stays_where_it_was_begun() {
        let (room, long) = (room().capacity(), "x".repeat(10_000));
        assert!(room >= ROOM);
        for len in [0, 31, 4095, 4096, 10_000] {
            let text = read_all(&long.as_bytes()[..len]).unwrap();
            assert_eq!((text.len(), text.capacity()), (len.min(4096), room));
        }
    }
}
