//! A file that the other side has opened: what it knows of it, and which piece it gets.

use std::sync::{Arc, OnceLock};

use crate::peer::bundle::Unfolded;
use crate::peer::connection::ConnectionError;
use crate::peer::origin::Origin;
use crate::peer::spread::Sent;
use crate::wire::pieces::{Bitfield, PieceIndex};
use crate::wire::transfer::{Opened, PieceSet, Wanted};

/// Open until it is closed, or here no longer.
pub(super) struct File {
    /// Where its bytes come from.
    pub(super) origin: Origin,
    /// The candidate that was sent least is served.
    sent: Arc<Sent>,
    /// What the other side knows that we have; absent when that is everything.
    told: Option<Told>,
    /// Its files and runs, once it proved to be a folder's listing.
    pub(super) unfolded: Arc<OnceLock<Arc<Unfolded>>>,
}

struct Told {
    pieces: Bitfield,
    /// How many of its news.
    seen: usize,
}

impl File {
    /// Its pieces are counted in `sent`.
    pub(super) fn new(origin: Origin, sent: Arc<Sent>) -> Self {
        let told = match &origin {
            Origin::Whole(_) => None,
            Origin::Growing(growing) => {
                let (pieces, seen) = growing.offered();
                Some(Told { pieces, seen })
            }
        };
        Self {
            origin,
            sent,
            told,
            unfolded: Arc::default(),
        }
    }

    /// What the other side is told of it at first.
    pub(super) fn opened(&self) -> Opened {
        Opened {
            len: self.origin.layout().len(),
            pieces: self
                .told
                .as_ref()
                .map(|told| PieceSet(told.pieces.to_bytes())),
        }
    }

    /// May there be more of it to tell of?
    pub(super) fn is_growing(&self) -> bool {
        self.told
            .as_ref()
            .is_some_and(|told| !told.pieces.is_full())
    }

    /// Pieces that came since the other side was last told of any.
    pub(super) fn take_news(&mut self) -> Vec<u32> {
        let Some(told) = self.told.as_mut().filter(|told| !told.pieces.is_full()) else {
            return Vec::new();
        };
        let mut new = match &self.origin {
            Origin::Whole(serving) => serving.tree().layout().pieces().collect(),
            Origin::Growing(growing) => growing.news(told.seen),
        };
        told.seen += new.len();
        new.retain(|piece| told.pieces.insert(*piece));
        new.into_iter().map(PieceIndex::get).collect()
    }

    /// Which of the pieces that are wanted is sent.
    pub(super) fn choose(&self, wanted: &Wanted) -> Result<PieceIndex, ConnectionError> {
        let layout = self.origin.layout();
        let mut candidates = Vec::with_capacity(wanted.candidates.len());
        for index in &wanted.candidates {
            let piece = layout.piece(*index).filter(|piece| {
                self.told
                    .as_ref()
                    .is_none_or(|told| told.pieces.has(*piece))
            });
            candidates.push(piece.ok_or(ConnectionError::Violation("a piece that is not here"))?);
        }
        let chosen = self.sent.choose(candidates);
        chosen.ok_or(ConnectionError::Violation("no candidate"))
    }
}
