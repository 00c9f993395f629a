//! Any error to one line and one exit code.

use serde_json::{Value, json};

use crate::config::ConfigError;
use crate::disk::{LockError, PrivateFileError};
use crate::keyfile::KeyFileError;
use crate::peer::unlock::UnlockError;
use crate::peer::{DownloadError, JoinError, RequestError, ShareError};
use crate::tracker::TrackerError;
use crate::tracker::credentials::{CredentialsError, EditError};

/// What went wrong, as far as a script wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Anything else.
    Failed = 1,
    /// Wrong usage or configuration; input needed but not to be had.
    Usage = 2,
    /// Wrong passphrase, key or name.
    Login = 3,
    /// Tracker or peers not reachable.
    Network = 4,
    /// No such file, user or match.
    NotFound = 5,
    /// Refused by the other side.
    Refused = 6,
    /// Hash or seal wrong, or the password of a locked file.
    Integrity = 7,
    /// A local file: permission, full disk.
    Local = 8,
    /// Some of several items failed.
    Partly = 9,
    /// Another p2pfs holds the state directory.
    Held = 10,
    /// Interrupted by SIGINT before the work was done.
    Interrupted = 130,
    /// Interrupted by SIGTERM before the work was done.
    Terminated = 143,
}

impl Class {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// All classes.
    pub const ALL: [Self; 12] = [
        Self::Failed,
        Self::Usage,
        Self::Login,
        Self::Network,
        Self::NotFound,
        Self::Refused,
        Self::Integrity,
        Self::Local,
        Self::Partly,
        Self::Held,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The class of an exit code.
    #[must_use]
    pub fn of_code(code: u8) -> Self {
        let mut all = Self::ALL.into_iter();
        all.find(|class| class.code() == code)
            .unwrap_or(Self::Failed)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Failed | Self::Partly | Self::Held => "other",
            Self::Usage => "usage",
            Self::Login => "auth",
            Self::Network => "network",
            Self::NotFound | Self::Local => "file",
            Self::Refused => "refused",
            Self::Integrity => "integrity",
            Self::Interrupted | Self::Terminated => "interrupted",
        }
    }
}

/// What a person is told, and what the program ends with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For scripts.
    pub class: Class,
    /// What failed and why, on one line.
    pub message: String,
    /// What to do, if there is something.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            hint: None,
        }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message)
    }

    /// The one line.
    #[must_use]
    pub fn line(&self) -> String {
        let line = match &self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        };
        crate::wire::text::safe(&line)
    }

    /// The object of `--json`.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "v": 1, "type": "error", "class": self.class.name(), "code": self.class.code(),
            "message": self.message, "hint": self.hint,
        })
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let message = error.to_string();
        match error {
            JoinError::WrongPassphrase { .. } => {
                Self::new(Class::Login, message).hint("all members must use the same passphrase")
            }
            JoinError::Pins(_) | JoinError::People(_) => Self::new(Class::Local, message),
            JoinError::Unreachable { .. } | JoinError::Listen { .. } => {
                Self::new(Class::Network, message)
            }
            JoinError::OtherKey {
                found, pinned_in, ..
            } => {
                let hint = match pinned_in {
                    Some(path) => format!(
                        "if that is meant to be, remove its line from {} and join with --tracker-key {found}",
                        path.display()
                    ),
                    None => "check the key print with whoever runs the tracker".to_owned(),
                };
                Self::new(Class::Login, message).hint(hint)
            }
            JoinError::Refused(_) | JoinError::WrongLogin | JoinError::LoginTooOften(_) => {
                Self::new(Class::Login, message)
            }
            JoinError::PasswordNeeded { .. } => Self::new(Class::Login, message)
                .hint("give --login USER and --password-file FILE, or run in a terminal"),
        }
    }
}

impl From<crate::peer::TalkError> for Failure {
    fn from(error: crate::peer::TalkError) -> Self {
        use crate::peer::TalkError as E;
        let class = match &error {
            E::NotHere(_) | E::NotOpen(_) => Class::NotFound,
            E::Tracker(_) | E::NoAnswer(_) | E::Unreachable(..) | E::OfferLost(_) => Class::Network,
            E::Oneself => Class::Usage,
            E::OtherKey { .. } => Class::Login,
            E::Blocked(_) | E::Refused(..) | E::TooMany | E::OfferRefused(..) => Class::Refused,
            E::Cancelled | E::Leaving => Class::Interrupted,
        };
        let failure = Self::new(class, error.to_string());
        match error {
            E::OtherKey { user, found, .. } => {
                failure.hint(format!("trust {user} {}", found.brief()))
            }
            _ => failure,
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let class = match error {
            RequestError::NoAnswer => Class::Network,
            RequestError::NoSuchUser => Class::NotFound,
            RequestError::TooFast(_) | RequestError::Refused(_) => Class::Refused,
        };
        Self::new(class, error.to_string())
    }
}

impl From<ShareError> for Failure {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::Local { .. } => Self::new(Class::Local, error.to_string()),
            ShareError::Request(error) => Self::from(error),
        }
    }
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        let class = match error {
            DownloadError::NoSource { .. } => Class::Network,
            DownloadError::Corrupt { .. } => Class::Integrity,
            DownloadError::Local { .. } => Class::Local,
            DownloadError::Busy { .. } | DownloadError::OtherFailed { .. } => Class::Failed,
            DownloadError::Cancelled { .. } => Class::Interrupted,
        };
        Self::new(class, error.to_string())
    }
}

impl From<UnlockError> for Failure {
    fn from(error: UnlockError) -> Self {
        let class = match error {
            UnlockError::WrongPassword(_) | UnlockError::Unfit { .. } => Class::Integrity,
            UnlockError::Local { .. } => Class::Local,
            UnlockError::Cancelled(_) => Class::Interrupted,
        };
        Self::new(class, error.to_string())
    }
}

impl From<TrackerError> for Failure {
    fn from(error: TrackerError) -> Self {
        match error {
            TrackerError::Port { .. } | TrackerError::Metrics { .. } => {
                Self::new(Class::Network, error.to_string())
            }
            TrackerError::Keys(error) => Self::from(error),
            TrackerError::Credentials(error) => Self::from(error),
            TrackerError::Threads(_) => Self::new(Class::Failed, error.to_string()),
        }
    }
}

impl From<CredentialsError> for Failure {
    fn from(error: CredentialsError) -> Self {
        Self::new(Class::Local, error.to_string())
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        let message = error.to_string();
        match error {
            EditError::File(_) => Self::new(Class::Local, message),
            EditError::Exists(user) => Self::new(Class::Local, message)
                .hint(format!("p2pfs user passwd {user} gives another password")),
            EditError::Missing(_) => Self::new(Class::NotFound, message),
        }
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::new(Class::Local, error.to_string())
    }
}

impl From<PrivateFileError> for Failure {
    fn from(error: PrivateFileError) -> Self {
        Self::new(Class::Local, error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { .. } => Self::new(Class::Held, error.to_string())
                .hint("for another one on this machine give --state-dir DIR"),
            LockError::Io { .. } => Self::new(Class::Local, error.to_string())
                .hint("keep keys elsewhere with --state-dir DIR"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_it_quotes() {
        let failure =
            Failure::new(Class::NotFound, "nothing matches \"a\x1b[31m\nb\"").hint("look again");
        assert_eq!(
            failure.line(),
            "nothing matches \"a\\u{1b}[31m\\nb\"; look again"
        );
    }

    #[test]
    fn the_object_for_scripts_has_its_fields() {
        let json = Failure::from(JoinError::WrongPassphrase {
            tracker: "h:9000".into(),
        })
        .json();
        assert_eq!(json["v"], 1);
        assert_eq!(json["type"], "error");
        assert_eq!(
            (json["class"].as_str(), json["code"].as_u64()),
            (Some("auth"), Some(3))
        );
        assert!(json["hint"].is_string());
    }
}
