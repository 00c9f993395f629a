//! How long a transfer waits for sources, and why nothing comes.

use std::time::{Duration, Instant};

use crate::proto::backoff::{Backoff, Retry};
use crate::wire::control::Publication;
use crate::wire::id::ContentId;

/// A download that has begun is not given up before nothing came for so long: networks come back.
pub(super) const OUTAGE: Duration = Duration::from_secs(30);
/// People are told when for so long no source has anything that is missing.
const STARVED: Duration = Duration::from_secs(3);
/// Why nothing comes, when nobody is known to have it.
const NOBODY: &str = "nobody has it now";

/// What was tried, and what came of it.
pub(super) struct Patience {
    backoff: Backoff,
    /// When the latest piece came.
    last_piece: Option<Instant>,
    /// Since when no source has anything that is missing.
    starved_since: Option<Instant>,
    /// What bears the name of what is fetched, which nobody has any more.
    successor: Option<ContentId>,
    reason: String,
}

impl Patience {
    pub(super) fn new(retry: Retry) -> Self {
        Self {
            backoff: Backoff::new(retry),
            last_piece: None,
            starved_since: None,
            successor: None,
            reason: NOBODY.to_owned(),
        }
    }

    /// Why nothing comes, as far as is known.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// The latest thing that stood in the way.
    pub(super) fn blame(&mut self, reason: String) {
        self.reason = reason;
    }

    /// The tracker names nobody.
    pub(super) fn blame_nobody(&mut self) {
        NOBODY.clone_into(&mut self.reason);
    }

    /// An attempt failed: the wait before the next one, or `None` when it was the last.
    pub(super) fn fail(&mut self, jitter: f64) -> Option<Duration> {
        self.backoff.fail(jitter)
    }

    /// Something came.
    pub(super) fn note_piece(&mut self, now: Instant) {
        self.backoff.succeed();
        self.last_piece = Some(now);
    }

    /// Did anything come lately?
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.last_piece
            .is_some_and(|at| now.saturating_duration_since(at) < OUTAGE)
    }

    pub(super) const fn is_starved(&self) -> bool {
        self.starved_since.is_some()
    }

    /// Does no source have anything that is missing? Once that has lasted: for how long.
    pub(super) fn note_starvation(&mut self, now: Instant, is_starved: bool) -> Option<Duration> {
        if !is_starved {
            self.starved_since = None;
            return None;
        }
        let since = *self.starved_since.get_or_insert(now);
        let lasted = now.saturating_duration_since(since);
        if lasted < STARVED {
            return None;
        }
        if self.successor.is_none() {
            "nobody who is here has the rest".clone_into(&mut self.reason);
        }
        Some(lasted)
    }

    /// What bears the name of `file` now is another content: this one was taken back. Is that new?
    pub(super) fn note_successor(
        &mut self,
        file: &Publication,
        successor: Option<ContentId>,
    ) -> bool {
        let before = std::mem::replace(&mut self.successor, successor);
        let Some(content) = successor else {
            return false;
        };
        let name = &file.name;
        let digits = &content.to_hex()[..ContentId::SHORT_LEN / 2];
        let choice = shell_words::join([format!("{name}#{digits}")]);
        self.reason = format!(
            "nobody has all of this version any more; {name} is {} now: download {choice} gets it",
            content.short()
        );
        before != successor
    }
}
