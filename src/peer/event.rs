//! What a peer tells by itself, and every way in which what it was asked for can fail.

use std::path::PathBuf;
use std::time::Duration;

use super::offers::{SendNews, Sending};
use super::shares::Shared;
use super::{Downloaded, TransferId};
use crate::disk::PrivateFileError;
use crate::proto::talk::{End, Question, QuestionId};
use crate::wire::id::{ContentId, Fingerprint, PeerId};
use crate::wire::text::{ChatText, FileName, UserName};

/// What happens by itself, for prompt and log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The tracker does not answer; we try on.
    TrackerLost {
        /// What is known of the cause.
        reason: String,
    },
    /// It answers again.
    TrackerBack,
    /// Somebody was met on the local network, without a tracker.
    NeighbourMet {
        /// Who, as it says.
        user: UserName,
        /// Its key.
        key: PeerId,
    },
    /// Somebody who was met there is gone.
    NeighbourGone {
        /// Who, as it said.
        user: UserName,
        /// Its key.
        key: PeerId,
        /// It said so.
        has_left: bool,
    },
    /// How far a download is; a few times a second.
    Progress(Progress),
    /// How far the hashing is of what is to be shared, or of what is here of a folder; a few times a second, when it takes long.
    Hashing(Hashing),
    /// A share changed on disk and is offered as it is now.
    Changed {
        /// As it is now.
        shared: Shared,
    },
    /// What was shared at the last start is shared again.
    Restored {
        /// How many files and folders.
        shares: usize,
        /// Bytes that had to be read for it.
        read: u64,
    },
    /// Downloads that were not done at the last start are there again.
    TakenUp {
        /// How many go on.
        running: usize,
        /// How many wait until somebody resumes them.
        paused: usize,
    },
    /// One of those is done.
    Fetched(Downloaded),
    /// What somebody wants is being downloaded already.
    Joined {
        /// Name of what is wanted.
        name: FileName,
        /// The download that brings it.
        id: TransferId,
        /// It was paused, and goes on now.
        was_paused: bool,
    },
    /// No source delivers now; the download goes on when one appears.
    Waiting {
        /// Name of the file.
        name: FileName,
        /// Why.
        reason: String,
    },
    /// The disk takes nothing now; the download goes on when it does.
    Stuck {
        /// Name of the file.
        name: FileName,
        /// Why.
        reason: String,
    },
    /// A source has left, as it should.
    SourceLeft {
        /// Name of the file.
        name: FileName,
        /// Who.
        user: UserName,
    },
    /// A source lied or broke off.
    SourceDropped {
        /// Name of the file.
        name: FileName,
        /// Who.
        user: UserName,
        /// Why.
        reason: String,
        /// It lied.
        is_liar: bool,
    },
    /// The tracker has ended our login; nothing is asked of it until [`super::Peer::log_in`].
    LoggedOut {
        /// Why, and what to do.
        reason: String,
    },
    /// We are logged in again.
    LoggedIn,
    /// A shared file changed or vanished on disk: it is shared no longer.
    Withdrawn {
        /// Its name, as people see it.
        name: String,
        /// Why.
        reason: String,
    },
    /// Somebody asks to talk or offers something; one question at a time, answered with
    /// [`super::Peer::answer`].
    Asked(Question),
    /// The question that was asked is moot: whoever asked is gone, or it was settled otherwise.
    Unasked(QuestionId),
    /// Somebody said something.
    Said {
        /// Who.
        user: UserName,
        /// Under this key.
        key: PeerId,
        /// Others were told the same.
        to_all: bool,
        /// What.
        text: ChatText,
    },
    /// A talk began.
    TalkBegan {
        /// With whom.
        user: UserName,
        /// Under this key.
        key: PeerId,
    },
    /// A talk ended.
    TalkEnded {
        /// With whom.
        user: UserName,
        /// Under this key.
        key: PeerId,
        /// Why.
        end: End,
    },
    /// A name that we know came with another key, and was not let in; told once.
    OtherKey {
        /// The name.
        user: UserName,
        /// The key that we know.
        known: PeerId,
        /// The key that came.
        found: PeerId,
    },
    /// Somebody wanted to talk under a name that is not his at the tracker; told once.
    WrongName {
        /// The name.
        user: UserName,
        /// The key that came.
        key: PeerId,
    },
    /// How something goes on that is sent to one person.
    Sending {
        /// What, and to whom.
        sending: Sending,
        /// How it goes on.
        news: SendNews,
    },
    /// What somebody offered was accepted, and is being fetched.
    Receiving {
        /// Who.
        user: UserName,
        /// Its name, as people see it.
        name: String,
    },
    /// The peer has left; no event follows.
    Left,
    /// Something that people should know, as one line.
    Warning {
        /// The line.
        text: String,
    },
}

/// How far a hashing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// Of what.
    pub path: PathBuf,
    /// Bytes that are done.
    pub done: u64,
    /// All bytes.
    pub len: u64,
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is downloaded.
    pub content: ContentId,
    /// Its name.
    pub name: FileName,
    /// Is it a folder?
    pub is_folder: bool,
    /// Verified bytes.
    pub done: u64,
    /// All bytes.
    pub len: u64,
    /// Bytes a second, over the last seconds.
    pub rate: u64,
    /// Peers that send, or are asked to.
    pub sources: usize,
    /// They send, but so little that nothing was complete for long.
    pub is_slow: bool,
}

/// Why there is no running peer.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The tracker has another passphrase.
    #[error("the tracker at {tracker} does not accept this passphrase")]
    WrongPassphrase {
        /// Its address, as typed.
        tracker: String,
    },
    /// Not found, not listening, or not answering.
    #[error("cannot reach the tracker at {tracker}: {reason}")]
    Unreachable {
        /// Its address, as typed.
        tracker: String,
        /// Why.
        reason: String,
    },
    /// What is known of trackers cannot be read or written here.
    #[error(transparent)]
    Pins(PrivateFileError),
    /// Whom we know cannot be read here.
    #[error(transparent)]
    People(PrivateFileError),
    /// The tracker has another key than it should.
    #[error("the tracker at {tracker} has the key {found}, expected {expected}")]
    OtherKey {
        /// Its address, as typed.
        tracker: String,
        /// What it showed.
        found: Fingerprint,
        /// What was typed or known.
        expected: Fingerprint,
        /// Where the expected key is kept; absent when it was typed.
        pinned_in: Option<PathBuf>,
    },
    /// The tracker does not take this login.
    #[error("{0}")]
    Refused(String),
    /// The tracker wants a password, and there is none.
    #[error("the tracker at {tracker} wants a user name and a password")]
    PasswordNeeded {
        /// Its address, as typed.
        tracker: String,
    },
    /// User and password do not fit.
    #[error("wrong user or password")]
    WrongLogin,
    /// Too many logins failed.
    #[error("too many wrong logins: wait {} s", .0.as_millis().div_ceil(1000).max(1))]
    LoginTooOften(Duration),
    /// No port to listen on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Address and port, or range of ports.
        address: String,
        /// Why.
        reason: String,
    },
}

/// Why the tracker gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is silent.
    #[error("the tracker does not answer")]
    NoAnswer,
    /// Too many questions at a time.
    #[error("too fast, wait {} s", .0.as_secs().max(1))]
    TooFast(Duration),
    /// It knows nobody of that name who is here.
    #[error("nobody of that name is here")]
    NoSuchUser,
    /// It said no, and why.
    #[error("{0}")]
    Refused(String),
}

/// Why a file cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Its own fault.
    #[error("cannot share {}: {reason}", path.display())]
    Local {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The tracker was not told.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a download ended without a file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Nobody has it, or none who has it can be reached.
    #[error("{name}: {reason}")]
    NoSource {
        /// Name of the file.
        name: FileName,
        /// Why.
        reason: String,
    },
    /// Whoever has it sent wrong bytes.
    #[error("{name}: what its sources sent does not fit its id; nothing was kept")]
    Corrupt {
        /// Name of the file.
        name: FileName,
    },
    /// It cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Local {
        /// File or directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The same is being downloaded already, from one person only.
    #[error(
        "{name} is being downloaded already, from one person only; cancel {id} to get it from anybody"
    )]
    Busy {
        /// Name of the file.
        name: FileName,
        /// That download.
        id: TransferId,
    },
    /// Another download that would have brought it has failed.
    #[error("{name}: download {id}, which was to bring it, failed")]
    OtherFailed {
        /// Name of the file.
        name: FileName,
        /// That download.
        id: TransferId,
    },
    /// It was told to stop.
    #[error("{name}: cancelled")]
    Cancelled {
        /// Name of the file.
        name: FileName,
    },
}
