//! How a file is cut: pieces, hash pages, and who has which.
//!
//! A piece is the unit of asking and of verifying. Its hash is the chaining value of its BLAKE3 subtree,
//! so a page of 1024 of them folds to one value of the level above, and the top folds to the file's id.

use super::MAX_FILE_LEN;
use super::codec::DecodeError;

/// Length of every piece but the last, in bytes: a power of two of BLAKE3 chunks, so that each piece is
/// one subtree.
pub const PIECE_LEN: u64 = 1 << 20;

/// Hashes in one page; a page of level 0 covers 1 GiB.
pub const PAGE_ENTRIES: u64 = 1024;

/// A piece that exists in some [`Layout`]; made by it alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The number, from 0.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number, as an index of a table.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// The pieces of a file of one length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    len: u64,
}

impl Layout {
    /// The layout of a file of `len` bytes.
    ///
    /// # Errors
    /// When the file is larger than [`MAX_FILE_LEN`].
    pub const fn new(len: u64) -> Result<Self, DecodeError> {
        if len > MAX_FILE_LEN {
            Err(DecodeError("file too large"))
        } else {
            Ok(Self { len })
        }
    }

    /// Length of the file in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.len
    }

    /// A file without bytes has no pieces.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Number of pieces.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "MAX_FILE_LEN / PIECE_LEN fits u32"
    )]
    pub const fn count(self) -> u32 {
        self.len.div_ceil(PIECE_LEN) as u32
    }

    /// The piece with number `index`, if the file has it.
    #[must_use]
    pub fn piece(self, index: u32) -> Option<PieceIndex> {
        (index < self.count()).then_some(PieceIndex(index))
    }

    /// All pieces, in order.
    pub fn pieces(self) -> impl ExactSizeIterator<Item = PieceIndex> {
        (0..self.count()).map(PieceIndex)
    }

    /// Where `piece` begins in the file, in bytes.
    #[must_use]
    pub const fn offset(self, piece: PieceIndex) -> u64 {
        piece.0 as u64 * PIECE_LEN
    }

    /// How many bytes `piece` has.
    #[must_use]
    pub fn piece_len(self, piece: PieceIndex) -> usize {
        (self.len - self.offset(piece)).min(PIECE_LEN) as usize
    }

    /// Levels of hash pages: none for a file of at most one piece (its hash is its id), one up to 1 GiB,
    /// two up to 1 TiB, three up to 1 PiB.
    #[must_use]
    pub const fn levels(self) -> u8 {
        match self.len.div_ceil(PIECE_LEN) {
            0 | 1 => 0,
            2..=PAGE_ENTRIES => 1,
            n if n <= PAGE_ENTRIES * PAGE_ENTRIES => 2,
            _ => 3,
        }
    }

    /// Bytes that one entry of a page of `level` covers, when it is not the last.
    #[must_use]
    pub const fn entry_len(level: u8) -> u64 {
        PIECE_LEN * PAGE_ENTRIES.pow(level as u32)
    }

    /// The page of `level` that holds the entry over `offset`.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most MAX_FILE_LEN / 1 GiB"
    )]
    pub const fn page_over(level: u8, offset: u64) -> u32 {
        (offset / (Self::entry_len(level) * PAGE_ENTRIES)) as u32
    }

    /// Number of entries of the page, or `None` when the file has no such page.
    #[must_use]
    pub fn page_entries(self, level: u8, page: u32) -> Option<usize> {
        if level >= self.levels() {
            return None;
        }
        let entries = self.len.div_ceil(Self::entry_len(level));
        let left = entries
            .checked_sub(u64::from(page) * PAGE_ENTRIES)
            .filter(|left| *left > 0)?;
        usize::try_from(left.min(PAGE_ENTRIES)).ok()
    }
}

/// Which pieces somebody has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    count: u32,
}

impl Bitfield {
    /// Nothing of `layout`.
    #[must_use]
    pub fn empty(layout: Layout) -> Self {
        let len = layout.count();
        Self {
            words: vec![0; len.div_ceil(64) as usize],
            len,
            count: 0,
        }
    }

    /// All of `layout`.
    #[must_use]
    pub fn full(layout: Layout) -> Self {
        let mut field = Self::empty(layout);
        for piece in layout.pieces() {
            field.insert(piece);
        }
        field
    }

    /// Reads what [`Bitfield::to_bytes`] writes.
    ///
    /// # Errors
    /// When the length does not fit `layout` or a bit behind the last piece is set.
    pub fn from_bytes(layout: Layout, bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() != layout.count().div_ceil(8) as usize {
            return Err(DecodeError("bitfield length"));
        }
        let mut field = Self::empty(layout);
        for (byte_index, byte) in (0_u32..).zip(bytes) {
            for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                let piece = layout
                    .piece(byte_index * 8 + bit)
                    .ok_or(DecodeError("bitfield padding"))?;
                field.insert(piece);
            }
        }
        Ok(field)
    }

    /// One bit a piece, the first in the highest bit of the first byte; zero behind the last.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len.div_ceil(8) as usize];
        for piece in self.iter() {
            bytes[piece.as_usize() / 8] |= 0x80 >> (piece.get() % 8);
        }
        bytes
    }

    /// Marks `piece`; tells whether it was new. A piece of a larger file is ignored.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        if piece.0 >= self.len || self.has(piece) {
            return false;
        }
        self.words[piece.as_usize() / 64] |= 1 << (piece.0 % 64);
        self.count += 1;
        true
    }

    /// Takes the mark off `piece`; tells whether it was there.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        let had = self.has(piece);
        if had {
            self.words[piece.as_usize() / 64] &= !(1 << (piece.0 % 64));
            self.count -= 1;
        }
        had
    }

    /// Is `piece` marked?
    #[must_use]
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.words
            .get(piece.as_usize() / 64)
            .is_some_and(|word| word >> (piece.0 % 64) & 1 == 1)
    }

    /// Number of marked pieces.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Are all pieces marked?
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// The marked pieces, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> {
        (0..self.len)
            .map(PieceIndex)
            .filter(|piece| self.has(*piece))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn layouts_at_their_edges() {
        // length, pieces, bytes of the last piece, levels of hash pages
        for (len, count, last, levels) in [
            (0, 0, 0, 0),
            (1, 1, 1, 0),
            (MIB - 1, 1, MIB - 1, 0),
            (MIB, 1, MIB, 0),
            (MIB + 1, 2, 1, 1),
            (GIB, 1024, MIB, 1),
            (GIB + 1, 1025, 1, 2),
            (1 << 32, 4096, MIB, 2),
            (1 << 40, 1 << 20, MIB, 2),
            ((1 << 40) + 1, (1 << 20) + 1, 1, 3),
            (MAX_FILE_LEN, 1 << 30, MIB, 3),
        ] {
            let layout = Layout::new(len).unwrap();
            assert_eq!(layout.count(), count, "{len}");
            assert_eq!(layout.levels(), levels, "{len}");
            assert_eq!(layout.piece(count), None, "{len}");
            if let Some(piece) = count.checked_sub(1).and_then(|index| layout.piece(index)) {
                assert_eq!(layout.piece_len(piece) as u64, last, "{len}");
                assert_eq!(layout.offset(piece) + last, len);
            }
        }
        assert!(Layout::new(MAX_FILE_LEN + 1).is_err());
        assert!(Layout::new(u64::MAX).is_err());
    }

    #[test]
    fn pages_cover_the_file_and_no_more() {
        let layout = Layout::new(5 * GIB + 1).unwrap();
        assert_eq!(layout.page_entries(0, 0), Some(1024));
        assert_eq!(layout.page_entries(0, 5), Some(1));
        assert_eq!(layout.page_entries(0, 6), None);
        assert_eq!(layout.page_entries(1, 0), Some(6));
        assert_eq!(layout.page_entries(1, 1), None);
        assert_eq!(layout.page_entries(2, 0), None);
        assert_eq!(layout.page_entries(0, u32::MAX), None);
        assert_eq!(Layout::page_over(0, 5 * GIB), 5);
        assert_eq!(Layout::page_over(1, 5 * GIB), 0);
    }

    proptest! {
        #[test]
        fn a_bitfield_survives_the_wire(len in 0_u64..3000 * MIB, picks: Vec<u32>) {
            let layout = Layout::new(len).unwrap();
            let mut field = Bitfield::empty(layout);
            for pick in picks {
                if layout.count() > 0 {
                    field.insert(layout.piece(pick % layout.count()).unwrap());
                }
            }
            prop_assert_eq!(field.iter().count(), field.count() as usize);
            prop_assert_eq!(Bitfield::from_bytes(layout, &field.to_bytes()), Ok(field));
        }

        #[test]
        fn foreign_bitfields_never_panic(len in 0_u64..100 * MIB, bytes: Vec<u8>) {
            let _ = Bitfield::from_bytes(Layout::new(len).unwrap(), &bytes);
        }
    }

    #[test]
    fn a_bit_behind_the_last_piece_is_refused() {
        let layout = Layout::new(3 * MIB).unwrap();
        assert!(
            Bitfield::from_bytes(layout, &[0b1110_0000])
                .unwrap()
                .is_full()
        );
        assert!(Bitfield::from_bytes(layout, &[0b0001_0000]).is_err());
        assert!(Bitfield::from_bytes(layout, &[0, 0]).is_err());
        assert!(Bitfield::full(layout).is_full());
    }
}
