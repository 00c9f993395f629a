//! The labels of what the tracker counts: kinds of requests, reasons of refusals and drops, ends of handshakes.

use crate::net::Turned;
use crate::wire::control::{Refusal, Request};

/// Values of one label.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each stands beside its label, and docs/operating.md explains it")]
        pub enum $name { $($variant),* }
        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];
            /// The value of the label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

labels! {
    /// What was asked.
    Asked {
        Login = "login", Heartbeat = "heartbeat", Leave = "leave", Publish = "publish",
        Unpublish = "unpublish", Search = "search", Locate = "locate", ListPeers = "list_peers",
        ListFiles = "list_files", Who = "who",
    }
}

labels! {
    /// Why a request was refused.
    Refused {
        Malformed = "malformed", NotLoggedIn = "not_logged_in", NameInUse = "name_in_use",
        NameReserved = "name_reserved", TooFast = "too_fast", TooManyFiles = "too_many_files",
        Full = "full", NoSuchUser = "no_such_user", PasswordNeeded = "password_needed",
        WrongLogin = "wrong_login", LoginTooOften = "login_too_often", LoginVoid = "login_void",
    }
}

labels! {
    /// Why a datagram came to nothing.
    Dropped {
        Malformed = "malformed", UnknownSession = "unknown_session", Unopened = "unopened",
        Replayed = "replayed", OverBudget = "over_budget", Limited = "limited",
        ReceiveBufferFull = "receive_buffer_full", SendBufferFull = "send_buffer_full",
        SendFailed = "send_failed",
    }
}

labels! {
    /// How a handshake ended.
    Shaken {
        Completed = "completed", WrongPassphrase = "wrong_passphrase", Refused = "refused",
        Limited = "limited", Busy = "busy", Silent = "silent",
    }
}

labels! {
    /// How a resumption ended.
    Resumption { Completed = "completed", Refused = "refused" }
}

labels! {
    /// Sessions by what they wait for.
    Stage { Unused = "unused", Pending = "pending", Live = "live", Hidden = "hidden" }
}

impl Asked {
    pub(super) const fn of(request: &Request) -> Self {
        match request {
            Request::Login(_) => Self::Login,
            Request::Heartbeat => Self::Heartbeat,
            Request::Leave => Self::Leave,
            Request::Publish(_) => Self::Publish,
            Request::Unpublish(_) => Self::Unpublish,
            Request::Search(_) => Self::Search,
            Request::Locate(_) => Self::Locate,
            Request::ListPeers(_) => Self::ListPeers,
            Request::ListFiles(_) => Self::ListFiles,
            Request::Who(_) => Self::Who,
        }
    }
}

impl Refused {
    pub(super) const fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::Malformed,
            Refusal::NotLoggedIn => Self::NotLoggedIn,
            Refusal::NameInUse { .. } => Self::NameInUse,
            Refusal::NameReserved => Self::NameReserved,
            Refusal::TooFast { .. } => Self::TooFast,
            Refusal::TooManyFiles { .. } => Self::TooManyFiles,
            Refusal::Full => Self::Full,
            Refusal::NoSuchUser => Self::NoSuchUser,
            Refusal::PasswordNeeded => Self::PasswordNeeded,
            Refusal::WrongLogin => Self::WrongLogin,
            Refusal::LoginTooOften { .. } => Self::LoginTooOften,
            Refusal::LoginVoid => Self::LoginVoid,
        }
    }
}

impl Shaken {
    pub(super) const fn of(why: Turned) -> Self {
        match why {
            Turned::Limited => Self::Limited,
            Turned::Silent => Self::Silent,
            Turned::Refused => Self::Refused,
            Turned::Busy => Self::Busy,
            Turned::Unproved => Self::WrongPassphrase,
        }
    }
}
