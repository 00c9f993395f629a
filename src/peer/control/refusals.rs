//! What it means to a person that the tracker does not let us in, or says no.

use std::time::Duration;

use crate::peer::enrol::EnrolError;
use crate::peer::event::JoinError;
use crate::wire::control::Refusal;
use crate::wire::text::UserName;

/// What the tracker's no means, as one line.
pub(super) fn explain(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Malformed => {
            "the tracker does not understand this request: is one of the two older?".to_owned()
        }
        Refusal::NotLoggedIn => "the tracker wants a login first".to_owned(),
        Refusal::NameInUse { since_s, from } => {
            format!("this name is in use, for {since_s} s, from {from}; choose another with --name")
        }
        Refusal::NameReserved => {
            "this name belongs to somebody with another key, until the tracker is \
             started anew; choose another with --name, or ask its operator to restart it"
                .to_owned()
        }
        Refusal::TooFast { wait_ms } => format!("too fast, wait {} s", wait_ms.div_ceil(1000)),
        Refusal::TooManyFiles { limit } => {
            format!("the tracker takes at most {limit} such files of one peer")
        }
        Refusal::Full => "the tracker has as many peers as it may".to_owned(),
        Refusal::NoSuchUser => "nobody of that name is here".to_owned(),
        Refusal::PasswordNeeded => "the tracker wants a password".to_owned(),
        Refusal::WrongLogin => "wrong user or password".to_owned(),
        Refusal::LoginTooOften { wait_ms } => {
            format!("too many wrong logins: wait {} s", wait_ms.div_ceil(1000))
        }
        Refusal::LoginVoid => {
            "the tracker ended this login: the password was changed, or the user removed".to_owned()
        }
    }
}

/// The same of a LOGIN: an `account` is somebody's, and no other name will do.
pub(super) fn explain_login(refusal: &Refusal, account: Option<&UserName>) -> String {
    match (refusal, account) {
        (Refusal::NameInUse { since_s, from }, Some(user)) => format!(
            "{user} is logged in since {since_s} s ago, from {from}; quit there first, or log in as somebody else"
        ),
        _ => explain(refusal),
    }
}

/// Why a login fails that `tracker` refuses.
pub(super) fn login_error(
    tracker: &str,
    refusal: &Refusal,
    account: Option<&UserName>,
) -> JoinError {
    match refusal {
        Refusal::PasswordNeeded => JoinError::PasswordNeeded {
            tracker: tracker.to_owned(),
        },
        Refusal::WrongLogin | Refusal::LoginVoid => JoinError::WrongLogin,
        Refusal::LoginTooOften { wait_ms } => {
            JoinError::LoginTooOften(Duration::from_millis(u64::from(*wait_ms)))
        }
        refusal => JoinError::Refused(explain_login(refusal, account)),
    }
}

/// Why nobody joins `tracker`, which is not reached or not the right one.
pub(super) fn join_error(tracker: &str, error: EnrolError) -> JoinError {
    let tracker = tracker.to_owned();
    match error {
        EnrolError::WrongPassphrase => JoinError::WrongPassphrase { tracker },
        EnrolError::OtherKey {
            found,
            expected,
            pinned_in,
        } => JoinError::OtherKey {
            tracker,
            found,
            expected,
            pinned_in,
        },
        EnrolError::Pins(error) => JoinError::Pins(error),
        other => JoinError::Unreachable {
            tracker,
            reason: other.to_string(),
        },
    }
}
