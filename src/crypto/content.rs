//! BLAKE3 of pieces and of the whole: does this piece belong to this id?
//!
//! A piece's hash is the chaining value of its subtree; 1024 of them make a page, and a page folds to one
//! value of the level above, up to the file's id. So each page and each piece from a stranger proves
//! itself, and the id is what `b3sum` prints. (BLAKE3 specification, § 2.1; blake3's `hazmat`.)

use std::collections::HashMap;

use blake3::Hasher;
use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::wire::id::ContentId;
use crate::wire::pieces::{Layout, PAGE_ENTRIES, PieceIndex};
use crate::wire::transfer::HashPage;

/// Bytes of a hash.
pub const HASH_LEN: usize = 32;

/// A chaining value; the id itself where the tree has but one piece.
pub type Hash = [u8; HASH_LEN];

/// The hash of one piece of a file with this layout.
#[must_use]
pub fn hash_piece(layout: Layout, piece: PieceIndex, bytes: &[u8]) -> Hash {
    let mut hasher = PieceHasher::new(layout, piece);
    hasher.update(bytes);
    hasher.finish()
}

/// The hash of one piece whose bytes come little by little.
#[derive(Debug, Clone)]
pub struct PieceHasher {
    hasher: Hasher,
    is_all: bool,
}

impl PieceHasher {
    /// Nothing of `piece` has come yet.
    #[must_use]
    pub fn new(layout: Layout, piece: PieceIndex) -> Self {
        let is_all = layout.count() == 1;
        let mut hasher = Hasher::new();
        hasher.set_input_offset(layout.offset(piece));
        Self { hasher, is_all }
    }

    /// What comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash of what came.
    #[must_use]
    pub fn finish(&self) -> Hash {
        if self.is_all {
            return *self.hasher.finalize().as_bytes();
        }
        self.hasher.finalize_non_root()
    }
}

/// All hashes of a file that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    layout: Layout,
    id: ContentId,
    /// By level; empty when the file has at most one piece.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over the hashes of all pieces, in order.
    ///
    /// # Panics
    /// When there are not as many hashes as pieces.
    #[must_use]
    pub fn new(layout: Layout, pieces: Vec<Hash>) -> Self {
        assert_eq!(
            pieces.len(),
            layout.count() as usize,
            "one hash for each piece"
        );
        match pieces.as_slice() {
            [] => Self {
                layout,
                id: ContentId(*blake3::hash(b"").as_bytes()),
                levels: Vec::new(),
            },
            [only] => Self {
                layout,
                id: ContentId(*only),
                levels: Vec::new(),
            },
            _ => {
                let mut levels = vec![pieces];
                while levels.len() < usize::from(layout.levels()) {
                    let below = levels.last().map_or(&[][..], Vec::as_slice);
                    levels.push(below.chunks(PAGE_LEN).map(fold).collect());
                }
                let id = fold_root(levels.last().map_or(&[], Vec::as_slice));
                Self { layout, id, levels }
            }
        }
    }

    /// How the file is cut.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The file's id.
    #[must_use]
    pub const fn id(&self) -> ContentId {
        self.id
    }

    /// The hash of a piece of this file.
    #[must_use]
    pub fn hash_of(&self, piece: PieceIndex) -> Option<Hash> {
        match self.levels.first() {
            Some(pieces) => pieces.get(piece.as_usize()).copied(),
            None => Some(self.id.0),
        }
    }

    /// The entries of a page, one after the other, if the tree has it.
    #[must_use]
    pub fn page(&self, page: HashPage) -> Option<&[u8]> {
        let entries = self.layout.page_entries(page.level, page.index)?;
        let start = page.index as usize * PAGE_LEN;
        Some(
            self.levels
                .get(usize::from(page.level))?
                .get(start..start + entries)?
                .as_flattened(),
        )
    }
}

const PAGE_LEN: usize = 1024;
const _: () = assert!(PAGE_LEN as u64 == PAGE_ENTRIES);

/// A page that does not fold to the value known for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hashes that do not belong to this id")]
pub struct ForeignPage;

/// What is known of the tree of a file that is being fetched: pages, each proved by the one above.
#[derive(Debug)]
pub struct PartialTree {
    layout: Layout,
    id: ContentId,
    pages: HashMap<HashPage, Vec<Hash>>,
}

impl PartialTree {
    /// Nothing but the id.
    #[must_use]
    pub fn new(layout: Layout, id: ContentId) -> Self {
        Self {
            layout,
            id,
            pages: HashMap::new(),
        }
    }

    /// The page that has to be fetched next before `piece` can be verified; `None` when it can be.
    #[must_use]
    pub fn missing_page(&self, piece: PieceIndex) -> Option<HashPage> {
        let offset = self.layout.offset(piece);
        (0..self.layout.levels())
            .rev()
            .map(|level| HashPage {
                level,
                index: Layout::page_over(level, offset),
            })
            .find(|page| !self.pages.contains_key(page))
    }

    /// Takes a page over when it proves itself.
    ///
    /// # Errors
    /// When it does not; nothing changes then.
    pub fn insert(&mut self, page: HashPage, bytes: &[u8]) -> Result<(), ForeignPage> {
        let entries = self
            .layout
            .page_entries(page.level, page.index)
            .ok_or(ForeignPage)?;
        let (hashes, rest) = bytes.as_chunks::<HASH_LEN>();
        if hashes.len() != entries || !rest.is_empty() {
            return Err(ForeignPage);
        }
        let is_proved = if page.level + 1 == self.layout.levels() {
            fold_root(hashes) == self.id
        } else {
            self.entry(page.level + 1, page.index) == Some(&fold(hashes))
        };
        if !is_proved {
            return Err(ForeignPage);
        }
        self.pages.insert(page, hashes.to_vec());
        Ok(())
    }

    /// The entries of a page, one after the other, once it is there.
    #[must_use]
    pub fn page(&self, page: HashPage) -> Option<Vec<u8>> {
        Some(self.pages.get(&page)?.as_flattened().to_vec())
    }

    /// The hash that `piece` must have, once its page is there.
    #[must_use]
    pub fn expected(&self, piece: PieceIndex) -> Option<&Hash> {
        if self.layout.levels() == 0 {
            return Some(&self.id.0);
        }
        self.entry(0, piece.get())
    }

    fn entry(&self, level: u8, number: u32) -> Option<&Hash> {
        let (index, entry) = (number / 1024, number as usize % PAGE_LEN);
        self.pages.get(&HashPage { level, index })?.get(entry)
    }
}

/// The chaining value over a run of sibling subtrees: the left half is the largest power of two.
fn fold(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => [0; HASH_LEN],
        [only] => *only,
        _ => {
            let (left, right) = hashes.split_at(left_len(hashes.len()));
            merge_subtrees_non_root(&fold(left), &fold(right), Mode::Hash)
        }
    }
}

/// The same for the top, of at least two entries, which yields the id.
fn fold_root(hashes: &[Hash]) -> ContentId {
    let (left, right) = hashes.split_at(left_len(hashes.len()));
    ContentId(*merge_subtrees_root(&fold(left), &fold(right), Mode::Hash).as_bytes())
}

/// The largest power of two below `len`.
fn left_len(len: usize) -> usize {
    len.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    fn bytes(len: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Hasher::new_keyed(&[seed; 32])
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn tree(bytes: &[u8]) -> Tree {
        let layout = Layout::new(bytes.len() as u64).unwrap();
        let pieces = layout.pieces().zip(bytes.chunks(MIB));
        Tree::new(
            layout,
            pieces
                .map(|(piece, bytes)| hash_piece(layout, piece, bytes))
                .collect(),
        )
    }

    #[test]
    fn the_id_is_what_b3sum_prints() {
        for len in [
            0,
            1,
            1023,
            1024,
            1025,
            MIB - 1,
            MIB,
            MIB + 1,
            2 * MIB,
            3 * MIB,
            5 * MIB + 7,
            8 * MIB,
        ] {
            let bytes = bytes(len, 1);
            assert_eq!(
                tree(&bytes).id().0,
                *blake3::hash(&bytes).as_bytes(),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn pages_and_pieces_prove_themselves() {
        let bytes = bytes(5 * MIB + 7, 1);
        let tree = tree(&bytes);
        let layout = tree.layout();
        let mut partial = PartialTree::new(layout, tree.id());
        let piece = layout.piece(5).unwrap();
        let page = partial.missing_page(piece).unwrap();
        assert_eq!(page, HashPage { level: 0, index: 0 });
        assert_eq!(partial.expected(piece), None);

        let honest = tree.page(page).unwrap().to_vec();
        for at in (0..honest.len()).step_by(7) {
            let mut forged = honest.clone();
            forged[at] ^= 1;
            assert_eq!(partial.insert(page, &forged), Err(ForeignPage));
        }
        assert_eq!(partial.insert(page, &honest[..HASH_LEN]), Err(ForeignPage));
        assert_eq!(partial.insert(page, &[]), Err(ForeignPage));
        assert_eq!(
            partial.insert(HashPage { level: 0, index: 1 }, &honest),
            Err(ForeignPage)
        );
        assert_eq!(
            partial.insert(
                HashPage {
                    level: 255,
                    index: u32::MAX
                },
                &honest
            ),
            Err(ForeignPage)
        );

        assert_eq!(partial.insert(page, &honest), Ok(()));
        assert_eq!(partial.missing_page(piece), None);
        assert_eq!(
            partial.expected(piece),
            Some(&hash_piece(layout, piece, &bytes[5 * MIB..]))
        );
    }

    #[test]
    fn a_file_of_one_piece_needs_no_pages() {
        for len in [1, MIB] {
            let bytes = bytes(len, 1);
            let (tree, layout) = (tree(&bytes), Layout::new(len as u64).unwrap());
            let partial = PartialTree::new(layout, tree.id());
            let piece = layout.piece(0).unwrap();
            assert_eq!(partial.missing_page(piece), None);
            assert_eq!(
                partial.expected(piece),
                Some(&hash_piece(layout, piece, &bytes))
            );
            assert_eq!(tree.page(HashPage { level: 0, index: 0 }), None);
        }
    }

    /// Trees of two and three levels, over made-up hashes: their pages must lead to each piece.
    #[test]
    fn large_files_have_pages_over_pages() {
        for (len, levels) in [((1 << 30) + 1, 2), (5 << 30, 2), ((1_u64 << 40) + 1, 3)] {
            let layout = Layout::new(len).unwrap();
            let hashes = layout
                .pieces()
                .map(|piece| *blake3::hash(&piece.get().to_be_bytes()).as_bytes());
            let hashes: Vec<Hash> = hashes.collect();
            let tree = Tree::new(layout, hashes.clone());
            let whole = fold_root(&hashes);
            assert_eq!(tree.id(), whole, "pages or not, the id is the same");
            let mut partial = PartialTree::new(layout, tree.id());
            for index in [0, layout.count() / 2, layout.count() - 1] {
                let piece = layout.piece(index).unwrap();
                let mut fetched = 0;
                while let Some(page) = partial.missing_page(piece) {
                    partial.insert(page, tree.page(page).unwrap()).unwrap();
                    fetched += 1;
                }
                assert!(fetched <= levels);
                assert_eq!(partial.expected(piece), Some(&hashes[index as usize]));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_length_has_the_plain_hash(len in 0_usize..4 * MIB, seed: u8) {
            let bytes = bytes(len, seed);
            prop_assert_eq!(tree(&bytes).id().0, *blake3::hash(&bytes).as_bytes());
        }

        #[test]
        fn a_piece_hashes_alike_in_whatever_parts_it_comes(
            len in 1_usize..3 * MIB,
            parts in proptest::collection::vec(1_usize..200_000, 1..20),
        ) {
            let bytes = bytes(len, 1);
            let tree = tree(&bytes);
            for (piece, bytes) in tree.layout().pieces().zip(bytes.chunks(MIB)) {
                let (mut hasher, mut rest) = (PieceHasher::new(tree.layout(), piece), bytes);
                for part in parts.iter().cycle() {
                    let (now, later) = rest.split_at(rest.len().min(*part));
                    hasher.update(now);
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
                prop_assert_eq!(Some(hasher.finish()), tree.hash_of(piece));
            }
        }
    }
}
