//! Pages of hashes that are asked for, and the pieces that wait for them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::wire::id::PeerId;
use crate::wire::pieces::PieceIndex;
use crate::wire::transfer::HashPage;

/// A page that does not come is asked of everybody after this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What waits, and for what.
#[derive(Default)]
pub(super) struct Pages {
    /// Pieces, and of whom they are to be asked.
    held: Vec<(PeerId, PieceIndex)>,
    asked: HashMap<HashPage, (PeerId, Instant)>,
}

impl Pages {
    /// A piece that is to be asked of `peer` waits for `page`: who shall be asked for that. `holders` are all
    /// that offer the piece.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        (peer, piece): (PeerId, PieceIndex),
        page: HashPage,
        holders: impl FnOnce() -> Vec<PeerId>,
    ) -> Vec<PeerId> {
        self.held.push((peer, piece));
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < PATIENCE;
        let whom = match self.asked.get(&page) {
            Some((_, at)) if is_fresh(*at) => return Vec::new(),
            // Whoever offers the piece has the hashes that prove it. One that keeps them back shall not be
            // followed by another one that does.
            Some(_) => holders(),
            None => vec![peer],
        };
        self.asked.insert(page, (peer, now));
        whom
    }

    /// The pieces that waited: they are asked for once more.
    pub(super) fn take_held(&mut self) -> Vec<(PeerId, PieceIndex)> {
        std::mem::take(&mut self.held)
    }

    /// A page came, right or wrong.
    pub(super) fn note_answer(&mut self, page: &HashPage) {
        self.asked.remove(page);
    }

    /// Nothing comes from this source any more.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.asked.retain(|_, (asked, _)| asked != peer);
    }

    /// Nothing comes from anybody any more.
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.asked.clear();
    }
}
