//! Where the bytes of an upload come from: a shared file, or one that is being fetched.

use std::sync::Arc;

use super::bundle::{FRAME_OVERHEAD, Unserved};
use super::growing::Growing;
use super::readers::Reader;
use super::shares::{Gone, Serving, Shares};
use super::upload::Offers;
use crate::crypto::stream::FrameSealer;
use crate::wire::MAX_CHUNK_LEN;
use crate::wire::frame::FRAME_HEAD_LEN;
use crate::wire::id::ContentId;
use crate::wire::packet::{FRAME_HEADER_LEN, TAG_LEN};
use crate::wire::pieces::{Layout, PieceIndex};
use crate::wire::transfer::{HashPage, PieceSet, chunk_head};

/// Where the bytes of an open file come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A file that is shared.
    Whole(Arc<Serving>),
    /// One that is being fetched, as far as it is here.
    Growing(Arc<Growing>),
}

impl Origin {
    /// What serves this content here to `reader`.
    #[must_use]
    pub fn find(offers: &Offers, content: &ContentId, reader: Reader) -> Option<Self> {
        let whole = offers.shares.open(content, reader);
        let whole = whole.map(Arc::new).map(Self::Whole);
        let growing = || {
            let growing = offers.nursery.get(content)?;
            let can_be_told = growing.layout().count() as usize <= PieceSet::MAX_COUNT;
            can_be_told.then_some(Self::Growing(growing))
        };
        whole.or_else(growing)
    }

    /// How it is cut.
    #[must_use]
    pub fn layout(&self) -> Layout {
        match self {
            Self::Whole(serving) => serving.tree().layout(),
            Self::Growing(growing) => growing.layout(),
        }
    }

    /// The entries of a page of hashes, one after the other, if they are known.
    #[must_use]
    pub fn page(&self, page: HashPage) -> Option<Vec<u8>> {
        match self {
            Self::Whole(serving) => serving.tree().page(page).map(<[u8]>::to_vec),
            Self::Growing(growing) => growing.page(page),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), Gone> {
        match self {
            Self::Whole(serving) => serving.read_at(bytes, offset),
            Self::Growing(growing) => growing.read_at(bytes, offset).map_err(|_| Gone),
        }
    }

    /// Is it still offered to whoever opened it? What is being fetched may have become a share.
    #[must_use]
    pub fn is_offered(&self) -> bool {
        match self {
            Self::Whole(serving) => serving.check().is_ok(),
            Self::Growing(_) => true,
        }
    }

    /// Were the bytes that were read of `piece` the announced ones?
    fn check(&self, piece: PieceIndex) -> Result<(), Gone> {
        match self {
            Self::Whole(serving) => serving.check(),
            Self::Growing(growing) if growing.is_offered() && growing.has(piece) => Ok(()),
            Self::Growing(_) => Err(Gone),
        }
    }

    /// What a download has become that ended: a file that others may change, and that is watched as such.
    #[must_use]
    pub fn successor(&self, shares: &Shares, reader: Reader) -> Option<Self> {
        match self {
            Self::Growing(growing) if !growing.is_offered() => shares
                .open(&growing.content(), reader)
                .map(Arc::new)
                .map(Self::Whole),
            _ => None,
        }
    }
}

/// A piece, and how much of it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// Which.
    pub piece: PieceIndex,
    /// Bytes of it.
    pub sent: usize,
}

/// Frames of one piece that are read and sealed together.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// The request that it answers.
    pub request: u32,
    /// From where on.
    pub begun: Begun,
    /// Most bytes of the file.
    pub max_len: usize,
}

impl Run {
    /// Fills `frames` with the run, sealed. Blocking.
    ///
    /// # Errors
    /// When the bytes are no longer there or no longer those that were announced.
    pub fn fill(
        &self,
        origin: &Origin,
        sealer: &mut FrameSealer,
        frames: &mut Vec<u8>,
    ) -> Result<(), Unserved> {
        let layout = origin.layout();
        let Begun { piece, sent } = self.begun;
        let left = layout.piece_len(piece).saturating_sub(sent);
        let (offset, len) = (layout.offset(piece) + sent as u64, left.min(self.max_len));
        frames.resize(len + len.div_ceil(MAX_CHUNK_LEN) * FRAME_OVERHEAD, 0);
        // All are read before the first is sealed: a file that fails half-way must not use up nonces.
        for (number, frame) in frames
            .chunks_mut(MAX_CHUNK_LEN + FRAME_OVERHEAD)
            .enumerate()
        {
            let at = offset + (number * MAX_CHUNK_LEN) as u64;
            let end = frame.len() - TAG_LEN;
            origin.read_at(&mut frame[FRAME_HEADER_LEN + FRAME_HEAD_LEN..end], at)?;
        }
        // After the read, not before: what was read may be what it was changed to.
        origin.check(piece)?;
        let last = (len == left).then(|| len.div_ceil(MAX_CHUNK_LEN) - 1);
        for (number, frame) in frames
            .chunks_mut(MAX_CHUNK_LEN + FRAME_OVERHEAD)
            .enumerate()
        {
            let at = offset + (number * MAX_CHUNK_LEN) as u64;
            let head = chunk_head(self.request, at, last == Some(number)).to_bytes();
            frame[FRAME_HEADER_LEN..FRAME_HEADER_LEN + FRAME_HEAD_LEN].copy_from_slice(&head);
            sealer.seal(false, frame).map_err(|_| Gone)?;
        }
        Ok(())
    }
}
