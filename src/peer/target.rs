//! What one swarm fetches: a content by its pieces, or the small files of a folder by runs.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::growing::Growing;
use super::unpack::Unpacking;
use crate::crypto::content::{ForeignPage, HASH_LEN, Hash, PieceHasher};
use crate::wire::id::ContentId;
use crate::wire::pieces::{Bitfield, Layout, PieceIndex};
use crate::wire::transfer::{Frame, HashPage, Wanted, WantedFiles};

/// Shared by the download and its sources.
#[derive(Clone, Debug)]
pub enum Target {
    /// A content, by its pieces.
    Content(Arc<Growing>),
    /// The small files of a folder. To the swarm, each run is a piece.
    Folder(Arc<Unpacking>),
}

/// What became of something that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is right, and written.
    Right,
    /// It is not what was asked for.
    Wrong,
    /// So many files came and are right, not all: the source has the rest no longer.
    Short(usize),
}

/// How many pieces became durable; if they did not, why, and which ones count no longer.
pub type Synced = Result<usize, (io::Error, Vec<PieceIndex>)>;

impl Target {
    /// What is opened at a source.
    #[must_use]
    pub fn content(&self) -> ContentId {
        match self {
            Self::Content(growing) => growing.content(),
            Self::Folder(folder) => folder.content(),
        }
    }

    /// The length of what is opened at a source, in bytes.
    #[must_use]
    pub fn opened_len(&self) -> u64 {
        match self {
            Self::Content(growing) => growing.layout().len(),
            Self::Folder(folder) => folder.listing_len(),
        }
    }

    /// The pieces as the swarm counts them.
    #[must_use]
    pub fn layout(&self) -> Layout {
        match self {
            Self::Content(growing) => growing.layout(),
            Self::Folder(folder) => folder.layout(),
        }
    }

    /// The pieces that are here.
    #[must_use]
    pub fn here(&self) -> Bitfield {
        match self {
            Self::Content(growing) => growing.here(),
            Self::Folder(folder) => folder.here(),
        }
    }

    /// Is this piece here?
    #[must_use]
    pub fn has(&self, piece: PieceIndex) -> bool {
        match self {
            Self::Content(growing) => growing.has(piece),
            Self::Folder(folder) => folder.has(piece),
        }
    }

    /// Bytes that are here.
    #[must_use]
    pub fn done_len(&self) -> u64 {
        match self {
            Self::Content(growing) => growing.done_len(),
            Self::Folder(folder) => folder.done_len(),
        }
    }

    /// Which pieces a source has that told `bits` of it; all of them when it told none.
    ///
    /// # Errors
    /// When the bits do not fit.
    pub fn pieces_at(
        &self,
        bits: Option<&[u8]>,
    ) -> Result<Bitfield, crate::wire::codec::DecodeError> {
        match (self, bits) {
            (_, None) => Ok(Bitfield::full(self.layout())),
            (Self::Content(growing), Some(bits)) => Bitfield::from_bytes(growing.layout(), bits),
            // Who has parts of a listing has no files of it.
            (Self::Folder(folder), Some(_)) => Ok(Bitfield::empty(folder.layout())),
        }
    }

    /// The pieces of these numbers, which a source has now, too; `None` when there is none of a number.
    #[must_use]
    pub fn pieces_named(&self, numbers: &[u32]) -> Option<Vec<PieceIndex>> {
        match self {
            Self::Content(growing) => {
                let layout = growing.layout();
                numbers.iter().map(|number| layout.piece(*number)).collect()
            }
            // They are pieces of its listing, and no runs.
            Self::Folder(_) => Some(Vec::new()),
        }
    }

    /// Bytes of a piece.
    #[must_use]
    pub fn piece_len(&self, piece: PieceIndex) -> usize {
        match self {
            Self::Content(growing) => growing.layout().piece_len(piece),
            Self::Folder(folder) => folder.run_len(piece),
        }
    }

    /// Where the chunks of a piece begin to count.
    #[must_use]
    pub fn offset(&self, piece: PieceIndex) -> u64 {
        match self {
            Self::Content(growing) => growing.layout().offset(piece),
            Self::Folder(_) => 0,
        }
    }

    /// May an answer leave out a part of its piece?
    #[must_use]
    pub const fn may_have_gaps(&self) -> bool {
        matches!(self, Self::Folder(_))
    }

    /// May a source choose which piece it sends?
    #[must_use]
    pub const fn has_candidates(&self) -> bool {
        matches!(self, Self::Content(_))
    }

    /// Asks for a piece of what was opened as `file`, or for one of others in its place.
    #[must_use]
    pub fn ask(
        &self,
        file: u32,
        request: u32,
        piece: PieceIndex,
        instead: &[(PieceIndex, Hash)],
    ) -> Frame<'static> {
        match self {
            Self::Content(_) => Frame::Request {
                request,
                wanted: Wanted {
                    file,
                    candidates: std::iter::once(piece)
                        .chain(instead.iter().map(|(piece, _)| *piece))
                        .map(PieceIndex::get)
                        .collect(),
                },
            },
            Self::Folder(folder) => Frame::AskFiles {
                request,
                wanted: WantedFiles {
                    file,
                    run: piece.get(),
                    files: folder.wanted_of(piece),
                },
            },
        }
    }

    /// The hash that `piece` must have, or the page to fetch before that is known.
    ///
    /// # Errors
    /// The page.
    pub fn expected(&self, piece: PieceIndex) -> Result<Hash, HashPage> {
        match self {
            Self::Content(growing) => growing.expected(piece),
            // Its files prove themselves, one by one.
            Self::Folder(_) => Ok([0; HASH_LEN]),
        }
    }

    /// Takes a page of hashes over when it proves itself.
    ///
    /// # Errors
    /// When it does not, or belongs to nothing here.
    pub fn insert_page(&self, page: HashPage, hashes: &[u8]) -> Result<(), ForeignPage> {
        match self {
            Self::Content(growing) => growing.insert_page(page, hashes),
            Self::Folder(_) => Err(ForeignPage),
        }
    }

    /// What proves a piece while it comes; `None` where [`Target::put`] looks at it.
    #[must_use]
    pub fn hasher(&self, piece: PieceIndex) -> Option<PieceHasher> {
        match self {
            Self::Content(growing) => Some(PieceHasher::new(growing.layout(), piece)),
            Self::Folder(_) => None,
        }
    }

    /// Writes a piece whose hasher found `hash`, or checks and writes what came of one without, all but
    /// `gaps`. Blocking.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(
        &self,
        piece: PieceIndex,
        bytes: &[u8],
        gaps: &[Range<usize>],
        hash: &Hash,
    ) -> io::Result<Verdict> {
        match self {
            Self::Content(growing) => {
                growing.put(piece, bytes, hash)?;
                Ok(Verdict::Right)
            }
            Self::Folder(folder) => folder.put(piece, bytes, gaps),
        }
    }

    /// Makes durable what came. Blocking.
    ///
    /// # Errors
    /// What the system says, and which pieces count no longer.
    pub fn sync(&self) -> Synced {
        match self {
            Self::Content(growing) => growing.sync(),
            Self::Folder(folder) => folder.sync(),
        }
    }

    /// Has somebody removed what is here below it?
    #[must_use]
    pub fn is_removed(&self) -> bool {
        match self {
            Self::Content(growing) => growing.is_removed(),
            Self::Folder(folder) => folder.is_removed(),
        }
    }

    /// Bytes of all of it.
    #[must_use]
    pub fn whole_len(&self) -> u64 {
        match self {
            Self::Content(growing) => growing.layout().len(),
            Self::Folder(folder) => folder.contents().len,
        }
    }
}
