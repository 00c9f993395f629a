//! A piece on its way: its chunks, put together as they come.

use std::ops::Range;

use crate::crypto::content::{Hash, PieceHasher};
use crate::peer::connection::ConnectionError;
use crate::peer::target::Target;
use crate::wire::folder::MAX_RUN_FILES;
use crate::wire::pieces::PieceIndex;

/// A piece on its way.
pub(super) struct Assembly {
    pub(super) piece: PieceIndex,
    pub(super) expected: Hash,
    /// Of what came; absent where whoever writes it looks at it.
    pub(super) hasher: Option<PieceHasher>,
    /// What may come in its place, until something comes.
    pub(super) instead: Vec<(PieceIndex, Hash)>,
    /// What was asked for in the first place.
    pub(super) asked: PieceIndex,
    pub(super) bytes: Vec<u8>,
    /// What was passed over.
    pub(super) gaps: Vec<Range<usize>>,
}

impl Assembly {
    /// Nothing of it came.
    pub(super) fn new(
        target: &Target,
        piece: PieceIndex,
        expected: Hash,
        instead: Vec<(PieceIndex, Hash)>,
    ) -> Self {
        Self {
            piece,
            expected,
            hasher: target.hasher(piece),
            instead,
            asked: piece,
            bytes: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// The first chunk tells by its offset which candidate was chosen; with what was asked for in the first place.
    pub(super) fn choose(
        &mut self,
        target: &Target,
        offset: u64,
    ) -> Option<(PieceIndex, PieceIndex)> {
        let instead = std::mem::take(&mut self.instead);
        if instead.is_empty() {
            return None;
        }
        let chosen = instead
            .iter()
            .find(|(piece, _)| target.offset(*piece) == offset);
        if let Some((piece, expected)) = chosen {
            (self.piece, self.expected) = (*piece, *expected);
            self.hasher = target.hasher(*piece);
        }
        Some((self.asked, self.piece))
    }

    /// Puts a chunk in its place; is that all of it?
    pub(super) fn add(
        &mut self,
        target: &Target,
        offset: u64,
        is_last: bool,
        chunk: &[u8],
    ) -> Result<bool, ConnectionError> {
        let len = target.piece_len(self.piece);
        let may_have_gaps = target.may_have_gaps();
        let unfit = || ConnectionError::Violation("a chunk that does not fit");
        let start = offset.checked_sub(target.offset(self.piece));
        let start = start.and_then(|start| usize::try_from(start).ok());
        let start = start.ok_or_else(unfit)?;
        let here = self.bytes.len();
        let fits = start.checked_add(chunk.len()).is_some_and(|end| end <= len);
        let follows = start == here || start > here && may_have_gaps;
        if !fits || !follows || chunk.is_empty() && !(is_last && may_have_gaps) {
            return Err(unfit());
        }
        self.bytes.reserve_exact(len - here);
        if start > here {
            // No more than there are files between them.
            if self.gaps.len() == MAX_RUN_FILES {
                return Err(unfit());
            }
            self.gaps.push(here..start);
            self.bytes.resize(start, 0);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(chunk);
        }
        self.bytes.extend_from_slice(chunk);
        match (is_last, self.bytes.len() == len) {
            (true, true) => Ok(true),
            (true, false) if may_have_gaps => Ok(true),
            (false, false) => Ok(false),
            _ => Err(ConnectionError::Violation("a piece of another length")),
        }
    }
}
