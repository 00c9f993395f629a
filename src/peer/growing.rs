//! Contents that are being fetched, as far as they are here: written by downloads, served to others at once.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::store::{Here, Part};
use super::target::Synced;
use crate::crypto::content::{ForeignPage, HASH_LEN, Hash, PartialTree, Tree};
use crate::wire::control::Publication;
use crate::wire::id::ContentId;
use crate::wire::pieces::{Bitfield, Layout, PAGE_ENTRIES, PIECE_LEN, PieceIndex};
use crate::wire::text::FileName;
use crate::wire::transfer::HashPage;

/// Pieces that a page of hashes is about.
const PAGE_PIECES: u32 = 1024;
const _: () = assert!(PAGE_PIECES as u64 == PAGE_ENTRIES);

/// One content of which some pieces are here.
#[derive(Debug)]
pub struct Growing {
    content: ContentId,
    part: Arc<Part>,
    state: Mutex<State>,
    /// Shared by those who write; alone is who finds out what a failed sync has lost.
    writing: RwLock<()>,
    /// Once nobody offers it any more, its file may be anything: it has its final name, or was discarded.
    is_offered: AtomicBool,
}

#[derive(Debug)]
struct State {
    tree: PartialTree,
    has: Bitfield,
    /// Of the pieces that are here.
    hashes: Vec<Hash>,
    /// Pieces that a power cut could take.
    unsynced: Vec<PieceIndex>,
    /// Pieces in the order in which they could be served; one that was lost, and came again, twice.
    servable: Vec<PieceIndex>,
}

impl State {
    fn is_servable(&self, piece: PieceIndex) -> bool {
        self.has.has(piece) && self.tree.missing_page(piece).is_none()
    }
}

impl Growing {
    /// `content`, of which the pieces `here` lie in `part`.
    #[must_use]
    pub fn new(content: ContentId, part: Arc<Part>, here: &Here) -> Self {
        let layout = part.layout();
        let mut has = Bitfield::empty(layout);
        let mut hashes = vec![[0; HASH_LEN]; layout.count() as usize];
        for (piece, hash) in here {
            has.insert(*piece);
            hashes[piece.as_usize()] = *hash;
        }
        let state = State {
            tree: PartialTree::new(layout, content),
            has,
            hashes,
            unsynced: Vec::new(),
            servable: Vec::new(),
        };
        Self {
            content,
            part,
            state: Mutex::new(state),
            writing: RwLock::default(),
            is_offered: AtomicBool::new(false),
        }
    }

    /// What it is.
    #[must_use]
    pub const fn content(&self) -> ContentId {
        self.content
    }

    /// How it is cut.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.part.layout()
    }

    /// The pieces that are here.
    #[must_use]
    pub fn here(&self) -> Bitfield {
        self.state().has.clone()
    }

    /// Bytes that are here.
    #[must_use]
    pub fn done_len(&self) -> u64 {
        let (state, layout) = (self.state(), self.layout());
        let count = layout.count();
        let last = count.checked_sub(1).and_then(|last| layout.piece(last));
        let missing = last
            .filter(|last| state.has.has(*last))
            .map_or(0, |last| PIECE_LEN - layout.piece_len(last) as u64);
        u64::from(state.has.count()) * PIECE_LEN - missing
    }

    /// Is this piece here?
    #[must_use]
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.state().has.has(piece)
    }

    /// May others be served from here?
    #[must_use]
    pub fn is_offered(&self) -> bool {
        self.is_offered.load(Ordering::Acquire)
    }

    /// Takes a page of hashes over when it proves itself.
    ///
    /// # Errors
    /// When it does not.
    pub fn insert_page(&self, page: HashPage, hashes: &[u8]) -> Result<(), ForeignPage> {
        let mut state = self.state();
        let is_new = state.tree.page(page).is_none();
        state.tree.insert(page, hashes)?;
        // One of another level proves no piece.
        if is_new && page.level == 0 {
            let layout = self.layout();
            let first = page.index.saturating_mul(PAGE_PIECES);
            let numbers = first..first.saturating_add(PAGE_PIECES);
            let proved = numbers.filter_map(|number| layout.piece(number));
            let proved: Vec<_> = proved.filter(|piece| state.has.has(*piece)).collect();
            state.servable.extend(proved);
        }
        Ok(())
    }

    /// The hash that `piece` must have, or the page to fetch before that is known.
    ///
    /// # Errors
    /// The page.
    pub fn expected(&self, piece: PieceIndex) -> Result<Hash, HashPage> {
        let state = self.state();
        match (state.tree.missing_page(piece), state.tree.expected(piece)) {
            (None, Some(hash)) => Ok(*hash),
            (missing, _) => Err(missing.unwrap_or(HashPage { level: 0, index: 0 })),
        }
    }

    /// Writes a piece that was verified. Blocking.
    ///
    /// # Errors
    /// What the system says; the piece does not count then.
    pub fn put(&self, piece: PieceIndex, bytes: &[u8], hash: &Hash) -> io::Result<()> {
        let _writing = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        if self.is_removed() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.part.put(piece, bytes, hash)?;
        let mut state = self.state();
        state.hashes[piece.as_usize()] = *hash;
        state.unsynced.push(piece);
        if state.has.insert(piece) && state.is_servable(piece) {
            state.servable.push(piece);
        }
        Ok(())
    }

    /// Has somebody removed the file below?
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.part.is_removed()
    }

    /// Makes durable what came; how many pieces that were. Blocking.
    ///
    /// # Errors
    /// What the system says, and which pieces count no longer: nobody knows whether they reached the disk,
    /// and the next sync would not tell.
    pub fn sync(&self) -> Synced {
        let mut unsynced = std::mem::take(&mut self.state().unsynced);
        if unsynced.is_empty() {
            return Ok(0);
        }
        let Err(error) = self.part.sync() else {
            return Ok(unsynced.len());
        };
        // Also what was written while the sync ran is lost with it.
        let _alone = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        unsynced.append(&mut state.unsynced);
        for piece in &unsynced {
            state.has.remove(*piece);
        }
        let left = state.has.iter();
        let left: Here = left
            .map(|piece| (piece, state.hashes[piece.as_usize()]))
            .collect();
        // Others ask for it meanwhile: a journal may be long.
        drop(state);
        self.part
            .restart(left.iter().map(|(piece, hash)| (*piece, hash)));
        Err((error, unsynced))
    }

    /// The whole tree, when all pieces are here; `None` when they do not fold to the content's id.
    #[must_use]
    pub fn whole_tree(&self) -> Option<Tree> {
        let state = self.state();
        if !state.has.is_full() {
            return None;
        }
        let tree = Tree::new(self.layout(), state.hashes.clone());
        (tree.id() == self.content).then_some(tree)
    }

    /// The pieces that can be served: here, and with hashes that others can check. And where the news begin.
    #[must_use]
    pub fn offered(&self) -> (Bitfield, usize) {
        let state = self.state();
        let mut offered = Bitfield::empty(self.layout());
        for piece in state.has.iter().filter(|piece| state.is_servable(*piece)) {
            offered.insert(piece);
        }
        (offered, state.servable.len())
    }

    /// The pieces that could be served since the first `seen` ones; of what was lost meanwhile some come twice.
    #[must_use]
    pub fn news(&self, seen: usize) -> Vec<PieceIndex> {
        let state = self.state();
        state.servable.get(seen..).unwrap_or_default().to_vec()
    }

    /// The entries of a page, one after the other, if they are known.
    #[must_use]
    pub fn page(&self, page: HashPage) -> Option<Vec<u8>> {
        self.state().tree.page(page)
    }

    /// Reads from a piece that is here. Blocking.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.part.read_at(bytes, offset)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All contents that are being fetched and may be served; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Nursery(Arc<Mutex<Contents>>);

/// Several downloads may fetch one content, under one name or several.
type Contents = HashMap<ContentId, Vec<(FileName, Arc<Growing>)>>;

impl Nursery {
    /// Offers `growing` as `file` until the guard is dropped.
    #[must_use]
    pub fn offer(&self, file: &Publication, growing: &Arc<Growing>) -> Offered {
        growing.is_offered.store(true, Ordering::Release);
        self.contents()
            .entry(growing.content())
            .or_default()
            .push((file.name.clone(), Arc::clone(growing)));
        Offered {
            nursery: self.clone(),
            growing: Arc::clone(growing),
        }
    }

    /// The content, if it is being fetched.
    #[must_use]
    pub fn get(&self, content: &ContentId) -> Option<Arc<Growing>> {
        let contents = self.contents();
        let (_, growing) = contents.get(content)?.last()?;
        Some(Arc::clone(growing))
    }

    /// Is this being fetched, under this name?
    #[must_use]
    pub fn has(&self, file: &Publication) -> bool {
        let contents = self.contents();
        let offered = contents.get(&file.content);
        offered.is_some_and(|offered| offered.iter().any(|(name, _)| *name == file.name))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A content is offered as long as this lives.
#[derive(Debug)]
pub struct Offered {
    nursery: Nursery,
    growing: Arc<Growing>,
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.growing.is_offered.store(false, Ordering::Release);
        let mut contents = self.nursery.contents();
        if let Some(offered) = contents.get_mut(&self.growing.content()) {
            offered.retain(|(_, growing)| !Arc::ptr_eq(growing, &self.growing));
            if offered.is_empty() {
                contents.remove(&self.growing.content());
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::store::Partial;
    use super::*;
    use crate::crypto::content::hash_piece;

    /// A content that is being fetched, and what it will be.
    pub(in crate::peer) struct Fixture {
        pub(in crate::peer) dir: tempfile::TempDir,
        pub(in crate::peer) partial: Partial,
        pub(in crate::peer) bytes: Vec<u8>,
        pub(in crate::peer) growing: Arc<Growing>,
    }

    /// `len` bytes, of which nothing is here.
    pub(in crate::peer) fn fixture(len: usize) -> Fixture {
        let words = u32::try_from(len / 4).unwrap();
        let bytes: Vec<u8> = (0..words).flat_map(u32::to_le_bytes).collect();
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(bytes.len() as u64).unwrap();
        let content = ContentId(*blake3::hash(&bytes).as_bytes());
        let (partial, here) = Partial::open(dir.path(), content, layout).unwrap();
        let growing = Arc::new(Growing::new(content, partial.part(), &here));
        Fixture {
            dir,
            partial,
            bytes,
            growing,
        }
    }

    impl Fixture {
        /// A piece, its bytes and its hash.
        pub(in crate::peer) fn piece(&self, number: u32) -> (PieceIndex, &[u8], Hash) {
            let layout = self.growing.layout();
            let piece = layout.piece(number).unwrap();
            let start = usize::try_from(layout.offset(piece)).unwrap();
            let bytes = &self.bytes[start..start + layout.piece_len(piece)];
            (piece, bytes, hash_piece(layout, piece, bytes))
        }

        /// It came.
        pub(in crate::peer) fn put(&self, number: u32) {
            let (piece, bytes, hash) = self.piece(number);
            self.growing.put(piece, bytes, &hash).unwrap();
        }

        /// The hashes of three pieces.
        pub(in crate::peer) fn page(&self) -> Vec<u8> {
            (0..3).flat_map(|number| self.piece(number).2).collect()
        }
    }

    /// Bytes of three pieces.
    const LEN: usize = 3 << 20;
    const PAGE: HashPage = HashPage { level: 0, index: 0 };

    #[test]
    fn what_came_is_offered_once_others_can_check_it() {
        let fixture = fixture(LEN);
        let offered = || {
            let (pieces, seen) = fixture.growing.offered();
            let pieces: Vec<u32> = pieces.iter().map(PieceIndex::get).collect();
            (pieces, seen)
        };
        let news = |seen| -> Vec<u32> {
            let news = fixture.growing.news(seen).into_iter();
            news.map(PieceIndex::get).collect()
        };
        fixture.put(1);
        assert_eq!(offered(), (vec![], 0), "no hashes to show");
        assert!(news(0).is_empty());
        assert_eq!(fixture.growing.page(PAGE), None);
        for _ in 0..2 {
            fixture.growing.insert_page(PAGE, &fixture.page()).unwrap();
            assert_eq!((offered(), news(0)), ((vec![1], 1), vec![1]));
        }
        assert_eq!(fixture.growing.page(PAGE), Some(fixture.page()));
        let (_, bytes, _) = fixture.piece(1);
        let mut read = vec![0; bytes.len()];
        fixture.growing.read_at(&mut read, 1 << 20).unwrap();
        assert_eq!(read, bytes);
        fixture.put(1);
        assert_eq!(news(1), [0_u32; 0], "it was here already");
        fixture.put(0);
        assert_eq!((offered(), news(1)), ((vec![0, 1], 2), vec![0]));
        assert_eq!(news(9), [0_u32; 0]);
    }

    #[test]
    fn the_tree_is_there_when_all_pieces_are() {
        let fixture = fixture(LEN);
        fixture.put(0);
        fixture.put(2);
        assert_eq!(fixture.growing.whole_tree(), None);
        fixture.put(1);
        let tree = fixture.growing.whole_tree().unwrap();
        assert_eq!(tree.id(), fixture.growing.content());
    }

    #[test]
    fn hashes_that_do_not_fold_to_the_id_are_noticed() {
        let fixture = fixture(LEN);
        fixture.put(0);
        fixture.put(1);
        let (piece, bytes, _) = fixture.piece(2);
        fixture.growing.put(piece, bytes, &[1; 32]).unwrap();
        assert_eq!(fixture.growing.whole_tree(), None);
    }

    #[test]
    fn a_content_is_offered_as_long_as_a_guard_lives() {
        let (one, two) = (fixture(LEN).growing, fixture(LEN).growing);
        let content = one.content();
        let file = |name: &str| Publication {
            name: name.parse().unwrap(),
            content,
            len: one.layout().len(),
            kind: crate::wire::control::PublicationKind::File,
        };
        let nursery = Nursery::default();
        let first = nursery.offer(&file("x"), &one);
        let second = nursery.offer(&file("y"), &two);
        assert!(one.is_offered() && nursery.has(&file("x")));
        drop(first);
        assert!(!one.is_offered() && !nursery.has(&file("x")));
        assert!(
            nursery
                .get(&content)
                .is_some_and(|now| Arc::ptr_eq(&now, &two))
        );
        assert!(nursery.has(&file("y")));
        drop(second);
        assert!(nursery.get(&content).is_none());
    }

    /// Nobody knows what the disk has of it: it is fetched again, and the next run does not count on it either.
    #[test]
    fn what_a_failed_sync_may_have_lost_counts_no_more() {
        let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::new(3 << 20).unwrap());
        let content = ContentId([7; 32]);
        let [one, two, three] = [0, 1, 2].map(|number| layout.piece(number).unwrap());
        let part = Arc::new(Part::that_cannot_be_synced(dir.path(), content, layout));
        let durable = Here::from([(three, [3; 32])]);
        let growing = Growing::new(content, Arc::clone(&part), &durable);
        growing.put(one, &[1; 1 << 20], &[1; 32]).unwrap();
        let lost = std::thread::scope(|scope| {
            // The sync has failed and waits for those who write.
            let writing = growing.writing.read().unwrap();
            let syncing = scope.spawn(|| growing.sync().unwrap_err().1);
            while !growing.state().unsynced.is_empty() {
                std::thread::yield_now();
            }
            part.put(two, &[2; 1 << 20], &[2; 32]).unwrap();
            let mut state = growing.state();
            state.has.insert(two);
            state.unsynced.push(two);
            drop((state, writing));
            syncing.join().unwrap()
        });
        assert_eq!(lost, [one, two]);
        assert_eq!(growing.here().iter().collect::<Vec<_>>(), [three]);
        assert_eq!(growing.sync().unwrap(), 0, "what is lost is not synced");
        let records = part.records_on_disk(dir.path(), content);
        assert_eq!((records.durable, records.doubtful), (Here::new(), durable));
    }

    /// Uploads and the download ask for it all the time, and a journal may be long.
    #[test]
    fn what_is_here_can_be_asked_for_while_the_journal_is_written_anew() {
        let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::new(3 << 20).unwrap());
        let content = ContentId([7; 32]);
        let part = Arc::new(Part::that_cannot_be_synced(dir.path(), content, layout));
        let growing = Growing::new(content, Arc::clone(&part), &Here::new());
        let piece = layout.piece(0).unwrap();
        growing.put(piece, &[1; 1 << 20], &[1; 32]).unwrap();
        std::thread::scope(|scope| {
            let writing = growing.writing.read().unwrap();
            scope.spawn(|| growing.sync().unwrap_err());
            // The sync has failed and waits for those who write: it needs the journal for nothing but to restart.
            while growing.writing.try_read().is_ok() {
                std::thread::yield_now();
            }
            let journal = part.hold_journal();
            drop(writing);
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            let is_answered = loop {
                let state = growing.state.try_lock();
                if state.is_ok_and(|state| !state.has.has(piece)) {
                    break true;
                }
                if std::time::Instant::now() > deadline {
                    break false;
                }
                std::thread::yield_now();
            };
            drop(journal);
            assert!(is_answered);
        });
    }
}
