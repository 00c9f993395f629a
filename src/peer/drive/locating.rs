//! Asks the tracker who has what is fetched, and what bears its name when nobody else has all of it.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::peer::control::Control;
use crate::peer::event::RequestError;
use crate::peer::listing::{holders, search};
use crate::wire::control::{Hit, Holder, Publication};
use crate::wire::id::{ContentId, PeerId};

/// While it runs, new sources are asked for: soon in the beginning, when a crowd gathers, then less often.
const FIRST_LOCATE: Duration = Duration::from_millis(500);
pub(super) const LOCATE_EVERY: Duration = Duration::from_secs(5);
/// Hits that are looked through for another content of one name.
const MAX_NAMESAKES: usize = 100;

/// What the tracker says about who has the content.
pub(super) type Found = Result<Located, RequestError>;

/// Who has a content.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) holders: Vec<Holder>,
    /// When nobody else has all of it: what bears its name now.
    pub(super) successor: Option<ContentId>,
}

/// One question at a time, and when the next one is due. It never holds up the transfer: a lost tracker takes
/// seconds to answer.
pub(super) struct Locating {
    asked: Option<JoinHandle<Found>>,
    next: Instant,
    every: Duration,
}

impl Drop for Locating {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Locating {
    /// The first question is due.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            asked: None,
            next: now,
            every: FIRST_LOCATE,
        }
    }

    pub(super) const fn is_under_way(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_under_way() && self.next <= now
    }

    pub(super) const fn wait_until(&mut self, next: Instant) {
        self.next = next;
    }

    /// Others begin at the same time: asks soon, and often in the beginning.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.every = FIRST_LOCATE;
        self.next = self.next.min(now + FIRST_LOCATE);
    }

    /// Asks who has `file`; when only `own` has it, or those who do `lack` something, what bears its name.
    pub(super) fn ask(&mut self, control: Control, file: Publication, own: PeerId, lack: bool) {
        self.stop();
        self.asked = Some(tokio::spawn(async move {
            let holders = holders(&control, file.content).await?;
            let is_alone = holders.iter().all(|holder| holder.peer == own);
            let successor = if is_alone || lack {
                successor(&control, &file).await
            } else {
                None
            };
            Ok(Located { holders, successor })
        }));
    }

    /// The answer, or never when nothing was asked.
    pub(super) async fn answer(&mut self) -> Found {
        let Some(asked) = &mut self.asked else {
            return std::future::pending().await;
        };
        let found = asked.await.unwrap_or(Err(RequestError::NoAnswer));
        self.asked = None;
        self.next = Instant::now() + self.every;
        self.every = (self.every * 2).min(LOCATE_EVERY);
        found
    }

    /// The answer is of no use any more.
    pub(super) fn stop(&mut self) {
        if let Some(asked) = self.asked.take() {
            asked.abort();
        }
    }
}

/// The one other content that is published under the name of `file`, if there is just one.
async fn successor(control: &Control, file: &Publication) -> Option<ContentId> {
    let found = search(control, file.name.as_str(), MAX_NAMESAKES)
        .await
        .ok()?;
    let is_namesake = |hit: &&Hit| hit.file.name == file.name && hit.file.kind == file.kind;
    let others = found.hits.iter().filter(is_namesake);
    let mut others = others
        .map(|hit| hit.file.content)
        .filter(|other| *other != file.content);
    let only = others.next()?;
    others.all(|other| other == only).then_some(only)
}
