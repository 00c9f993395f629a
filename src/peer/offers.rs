//! What is sent to one person: offered, shared with that one as long as it takes, and told of.
//!
//! Nothing of it leaves before it is accepted: only who accepts asks for it, and it is an ordinary download then.
//! The share that is made for it ends with it; one that was there before stays as it was.

mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(super) use self::table::Sends;
use self::table::{Listed, MAX_SENDS, Told};
use super::event::{Event, ShareError};
use super::readers::{Reader, Readers};
use super::talk::TalkError;
use super::{Peer, Shared};
use crate::proto::talk::OfferId;
use crate::wire::id::{ContentId, PeerId};
use crate::wire::talk::{Offer, OfferState};
use crate::wire::text::{FileName, UserName};

/// Names one of the things that are being sent.
pub type SendId = u64;

/// Something that is being sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Its number.
    pub id: SendId,
    /// To whom.
    pub user: UserName,
    /// Its name, as people see it.
    pub name: String,
    /// What it is; absent while it is being hashed.
    pub content: Option<ContentId>,
    /// Bytes of it.
    pub len: u64,
    /// Bytes that are there.
    pub done: u64,
    /// Was it accepted?
    pub is_accepted: bool,
}

/// How a sending went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendNews {
    /// It waits for an answer.
    Offered,
    /// It will be fetched.
    Accepted,
    /// So much of a hundred is there.
    Percent(u64),
    /// All of it is there.
    Done,
    /// Nothing more is heard of it; it stays shared for that person.
    OutOfReach,
    /// It ended without.
    Ended(SendError),
}

/// How a sending that was accepted ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it is there.
    Done,
    /// Nothing more is heard of it; it stays shared for that person.
    OutOfReach,
}

/// Why something was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It cannot be shared.
    #[error("{0}")]
    Share(String),
    /// Nobody took it.
    #[error(transparent)]
    Talk(#[from] TalkError),
    /// It is on its way already.
    #[error("{name} is being sent to {user} already")]
    Already {
        /// To whom.
        user: UserName,
        /// What.
        name: String,
    },
    /// As many things are being sent as may be.
    #[error("{MAX_SENDS} things are being sent: wait until one of them is there")]
    TooMany,
    /// It is for as many people as may be.
    #[error("{0} is shared with as many people as may be")]
    TooManyReaders(String),
    /// It was taken back here.
    #[error("it was taken back")]
    TakenBack,
    /// Whoever accepted it wants it no longer.
    #[error("{0} wants it no longer")]
    Cancelled(UserName),
    /// Whoever accepted it could not fetch it.
    #[error("{0} could not fetch it")]
    Failed(UserName),
}

/// A share for one person, and whether that one is in it for the sake of an offer.
struct Lent {
    shared: Shared,
    is_added: bool,
    is_new: bool,
}

impl Peer {
    /// What is being sent.
    #[must_use]
    pub fn sends(&self) -> Vec<Sending> {
        self.0.sends.list()
    }

    /// Takes something back that is being sent; `false` when there is none of this number.
    #[must_use]
    pub fn take_back(&self, id: SendId) -> bool {
        let taken = self.0.sends.change(id, |entry| entry.taken_back.cancel());
        taken.is_some()
    }

    /// Offers the file or folder at `path` to somebody, who has so long for an answer, and waits until all of it is
    /// there. Dropping the future ends the waiting only.
    ///
    /// # Errors
    /// When it cannot be shared, is not accepted, or does not get there.
    pub async fn send(
        &self,
        to: (UserName, PeerId),
        path: &Path,
        wait: Duration,
    ) -> Result<Sent, SendError> {
        let local = |reason: String| SendError::Share(format!("{}: {reason}", path.display()));
        let path = std::path::absolute(path).map_err(|error| local(error.to_string()))?;
        let name = path.file_name().unwrap_or_default();
        let name = FileName::from_local(&name.to_string_lossy());
        let name = name.ok_or_else(|| local("it has no name to share it under".to_owned()))?;
        let begun = self
            .0
            .sends
            .begin(to.clone(), path.clone(), name.to_string());
        let (listed, taken_back) = begun?;
        let peer = self.clone();
        let sending = tokio::spawn(async move {
            let run = Run {
                peer,
                listed,
                to,
                path,
                name,
                taken_back,
            };
            let ended = run.send(wait).await;
            match &ended {
                Ok(Sent::Done) => run.tell(SendNews::Done),
                Ok(Sent::OutOfReach) => run.tell(SendNews::OutOfReach),
                Err(error) => run.tell(SendNews::Ended(error.clone())),
            }
            ended
        });
        sending.await.unwrap_or(Err(SendError::TakenBack))
    }
}

/// One sending under way.
struct Run {
    peer: Peer,
    listed: Listed,
    to: (UserName, PeerId),
    path: PathBuf,
    name: FileName,
    taken_back: CancellationToken,
}

impl Run {
    async fn send(&self, wait: Duration) -> Result<Sent, SendError> {
        let lent = tokio::select! {
            lent = self.lend() => lent?,
            () = self.taken_back.cancelled() => return Err(SendError::TakenBack),
        };
        let (sends, id) = (&self.peer.0.sends, self.listed.id);
        let contents = lent.shared.contents;
        let file = lent.shared.file.clone();
        sends.change(id, |entry| {
            entry.shown.name = file.shown_name();
            (entry.shown.content, entry.shown.len) = (Some(file.content), contents.len);
        });
        let what = Offer {
            publication: file,
            files: u32::try_from(contents.files).unwrap_or(u32::MAX),
            size: contents.len,
        };
        self.tell(SendNews::Offered);
        let user = &self.to.0;
        let offered = tokio::select! {
            offered = timeout(wait, self.peer.offer(user, what)) => match offered {
                Ok(offered) => offered.map_err(SendError::from),
                Err(_) => Err(TalkError::NoAnswer(user.clone()).into()),
            },
            () = self.taken_back.cancelled() => Err(SendError::TakenBack),
            () = self.peer.0.shutdown.cancelled() => Err(SendError::TakenBack),
        };
        let offer = match offered {
            Ok(offer) => offer,
            Err(error) => {
                self.end(&lent).await;
                return Err(error);
            }
        };
        if lent.is_new {
            // The next start goes on with it.
            self.peer.0.keeper.stay(&lent.shared);
        }
        let told = sends.accept(id, offer);
        self.tell(SendNews::Accepted);
        let ended = match told {
            Some(told) => self.follow(offer, told, contents.len).await,
            None => Err(SendError::TakenBack),
        };
        if ended != Ok(Sent::OutOfReach) {
            self.end(&lent).await;
        }
        ended
    }

    /// Until the other side says how it ended.
    async fn follow(
        &self,
        offer: OfferId,
        mut told: watch::Receiver<Told>,
        len: u64,
    ) -> Result<Sent, SendError> {
        let (user, mut quarters) = (self.to.0.clone(), 0);
        loop {
            let now = *told.borrow_and_update();
            match now {
                Told::Nothing => {}
                Told::Lost => return Ok(Sent::OutOfReach),
                Told::State(_, OfferState::Done) => return Ok(Sent::Done),
                Told::State(_, OfferState::Failed) => return Err(SendError::Failed(user)),
                Told::State(_, OfferState::Cancelled | OfferState::Withdrawn) => {
                    return Err(SendError::Cancelled(user));
                }
                Told::State(done, OfferState::Running) => {
                    let done = done.min(len);
                    let sends = &self.peer.0.sends;
                    sends.change(self.listed.id, |entry| entry.shown.done = done);
                    let percent = done.saturating_mul(100) / len.max(1);
                    if percent / 25 > quarters && percent < 100 {
                        quarters = percent / 25;
                        self.tell(SendNews::Percent(percent));
                    }
                }
            }
            tokio::select! {
                changed = told.changed() => if changed.is_err() {
                    return Ok(Sent::OutOfReach);
                },
                () = self.taken_back.cancelled() => {
                    self.peer.tell_state(offer, 0, OfferState::Withdrawn);
                    return Err(SendError::TakenBack);
                }
                // The share is there again at the next start.
                () = self.peer.0.shutdown.cancelled() => return Ok(Sent::OutOfReach),
            }
        }
    }

    fn tell(&self, news: SendNews) {
        let sends = &self.peer.0.sends;
        let shown = sends.change(self.listed.id, |entry| entry.shown.clone());
        if let Some(sending) = shown {
            let event = Event::Sending { sending, news };
            let _ = self.peer.0.keeper.events.try_send(event);
        }
    }

    fn kept(&self) -> Option<Shared> {
        let kept = self.peer.0.keeper.background.kept.at(&self.path);
        let mut same = kept.into_iter();
        same.find(|shared| shared.file.name == self.name && !shared.is_locked_copy())
    }

    /// Shares it with that one, as well as with those who have it already.
    async fn lend(&self) -> Result<Lent, SendError> {
        let (user, key) = self.to.clone();
        let keeper = &self.peer.0.keeper;
        let before = self.kept();
        let is_new = before.is_none();
        let (readers, is_added) = match before.map(|shared| shared.readers) {
            None | Some(Readers::Nobody) => (Readers::of([(key, user)]), true),
            Some(readers) if readers.has(Reader::Peer(key)) => (Some(readers), false),
            Some(Readers::Chosen(people)) => {
                (Readers::of(people.into_iter().chain([(key, user)])), true)
            }
            Some(Readers::Everybody) => (Some(Readers::Everybody), false),
        };
        let full = || SendError::TooManyReaders(self.name.to_string());
        let readers = readers.ok_or_else(full)?;
        let offered = keeper.shares.at(&self.path, &self.name);
        let whole = offered.iter().find(|entry| !entry.is_changed_file());
        if let Some(entry) = whole.filter(|_| !is_added) {
            let shared = entry.shared().clone();
            return Ok(Lent {
                shared,
                is_added,
                is_new,
            });
        }
        let shared = match keeper.share(&self.path, None, readers).await {
            Ok(shared) => shared,
            Err(error) => {
                if is_added {
                    self.leave(key).await;
                }
                return Err(match error {
                    ShareError::Local { .. } => SendError::Share(error.to_string()),
                    ShareError::Request(error) => TalkError::Tracker(error).into(),
                });
            }
        };
        if is_new {
            // Until it is accepted the next start knows nothing of it.
            let _mark = keeper.background.kept.pass(&shared);
        }
        Ok(Lent {
            shared,
            is_added,
            is_new,
        })
    }

    async fn end(&self, lent: &Lent) {
        if lent.is_added {
            self.leave(self.to.1).await;
        }
    }

    /// It is for the others only, or for nobody. What somebody has shared anew meanwhile stays as it is.
    async fn leave(&self, key: PeerId) {
        let keeper = &self.peer.0.keeper;
        let Some(shared) = self.kept() else { return };
        let Readers::Chosen(mut people) = shared.readers else {
            return;
        };
        if people.remove(&key).is_none() {
            return;
        }
        // When the tracker does not answer now, the next announcement says it.
        match Readers::of(people) {
            Some(rest) => drop(keeper.share(&self.path, None, rest).await),
            None => {
                let is_it = |other: &Shared| {
                    other.path == self.path
                        && other.file.name == self.name
                        && !other.is_locked_copy()
                };
                let _ = keeper.unshare(is_it).await;
            }
        }
    }
}
