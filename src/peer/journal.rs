//! Which pieces of a part file are right, written beside it: what a download that was killed goes on from.
//!
//! A head names the content; records follow, written behind each other and never changed. PIECE says that
//! a piece was verified and written, with its hash. SYNCED says that the part file was made durable after
//! so many records, and holds the hash over them: those pieces are trusted, after a power cut too. What
//! comes behind the last SYNCED is read and hashed again before it counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::crypto::content::{HASH_LEN, Hash};
use crate::disk;
use crate::wire::id::ContentId;
use crate::wire::pieces::{Layout, PieceIndex};

const MAGIC: [u8; 8] = *b"p2pfs-j1";
const HEAD_LEN: usize = MAGIC.len() + 32 + 8;
const RECORD_LEN: usize = 8 + HASH_LEN;
const KIND_PIECE: u8 = 1;
const KIND_SYNCED: u8 = 2;
/// Records that are read for each piece, and in any case: a journal is no place to hide gigabytes in.
const MAX_RECORDS_PER_PIECE: u64 = 4;
const MIN_RECORDS: u64 = 1 << 16;

/// A journal, open for more records. Several threads may write.
#[derive(Debug)]
pub struct Journal {
    file: File,
    layout: Layout,
    tail: Mutex<Tail>,
}

/// What comes next.
#[derive(Debug)]
struct Tail {
    /// Where the next record belongs: one that was cut short by a full disk is written over.
    end: u64,
    /// Over all records before it.
    hasher: blake3::Hasher,
    /// It belongs to somebody else now.
    is_closed: bool,
}

impl Tail {
    /// Behind these records.
    fn after(records: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(records);
        Self {
            end: (HEAD_LEN + records.len()) as u64,
            hasher,
            is_closed: false,
        }
    }

    /// SYNCED of all records so far.
    fn synced(&self) -> io::Result<(u32, Hash)> {
        let count = (self.end - HEAD_LEN as u64) / RECORD_LEN as u64;
        let count = u32::try_from(count).map_err(io::Error::other)?;
        Ok((count, *self.hasher.finalize().as_bytes()))
    }
}

/// What a journal says of its part file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Pieces that are there for good.
    pub durable: BTreeMap<PieceIndex, Hash>,
    /// Pieces that were written and may be lost.
    pub doubtful: BTreeMap<PieceIndex, Hash>,
}

impl Journal {
    /// A new journal `name` in `dir`.
    ///
    /// # Errors
    /// When the name is taken, or the system says no.
    pub fn create(dir: &Path, name: &str, content: ContentId, layout: Layout) -> io::Result<Self> {
        let file = disk::create_new(dir, name)?;
        file.write_all_at(&head(content, layout), 0)?;
        Ok(Self {
            file,
            layout,
            tail: Mutex::new(Tail::after(&[])),
        })
    }

    /// Opens the journal `name` in `dir`; `None` when there is none of this content.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(
        dir: &Path,
        name: &str,
        content: ContentId,
        layout: Layout,
    ) -> io::Result<Option<(Self, Records)>> {
        let Some(file) = disk::open_own(dir, name)? else {
            return Ok(None);
        };
        let most = (u64::from(layout.count()) * MAX_RECORDS_PER_PIECE).max(MIN_RECORDS);
        let len = file
            .metadata()?
            .len()
            .min(HEAD_LEN as u64 + most * RECORD_LEN as u64);
        let bytes = read(&file, len)?;
        let Some(records) = bytes.strip_prefix(head(content, layout).as_slice()) else {
            return Ok(None);
        };
        let whole = &records[..records.len() / RECORD_LEN * RECORD_LEN];
        let tail = Mutex::new(Tail::after(whole));
        let records = parse(layout, whole);
        let journal = Self { file, layout, tail };
        Ok(Some((journal, records)))
    }

    /// Has no piece been written yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tail().end == HEAD_LEN as u64
    }

    /// A piece was verified and written.
    ///
    /// # Errors
    /// What the system says.
    pub fn note_piece(&self, piece: PieceIndex, hash: &Hash) -> io::Result<()> {
        self.append(&mut self.tail(), KIND_PIECE, piece.get(), hash)
    }

    /// Makes `part` durable, then says so. Blocking, for as long as the disk takes.
    ///
    /// # Errors
    /// What the system says: whatever was written since the last success may be lost then.
    pub fn sync(&self, part: &File) -> io::Result<()> {
        self.sync_by(|| part.sync_data())
    }

    fn sync_by(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // Taken before the sync: what is written meanwhile is not covered by it.
        let covered = self.tail().synced();
        sync()?;
        // A journal that cannot be written costs the next run some reading, and nobody a piece.
        let _ = covered.and_then(|covered| self.note_synced(covered));
        Ok(())
    }

    /// Begins anew with `pieces`: what else was noted may be lost, although it can still be read.
    pub fn restart<'a>(&self, pieces: impl IntoIterator<Item = (PieceIndex, &'a Hash)>) {
        let mut tail = self.tail();
        if tail.is_closed {
            return;
        }
        // What stays behind the end when this fails counts for no more than doubtful.
        let _ = self.file.set_len(HEAD_LEN as u64);
        *tail = Tail::after(&[]);
        for (piece, hash) in pieces {
            // A piece that cannot be noted costs the next run another transfer.
            let _ = self.append(&mut tail, KIND_PIECE, piece.get(), hash);
        }
    }

    /// Takes no more records: whoever opens it next is alone with it.
    pub fn close(&self) {
        self.tail().is_closed = true;
    }

    /// Is this what lies at `path`?
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        disk::is_at(&self.file, path)
    }

    fn note_synced(&self, (count, hash): (u32, Hash)) -> io::Result<()> {
        self.append(&mut self.tail(), KIND_SYNCED, count, &hash)?;
        self.file.sync_data()
    }

    /// How the file is cut that this journal is about.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    fn append(&self, tail: &mut Tail, kind: u8, number: u32, hash: &Hash) -> io::Result<()> {
        if tail.is_closed {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let record = record(kind, number, hash);
        self.file.write_all_at(&record, tail.end)?;
        tail.end += RECORD_LEN as u64;
        tail.hasher.update(&record);
        Ok(())
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn head(content: ContentId, layout: Layout) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(&MAGIC);
    head[8..40].copy_from_slice(&content.0);
    head[40..].copy_from_slice(&layout.len().to_be_bytes());
    head
}

fn record(kind: u8, number: u32, hash: &Hash) -> [u8; RECORD_LEN] {
    let mut record = [0; RECORD_LEN];
    record[0] = kind;
    record[4..8].copy_from_slice(&number.to_be_bytes());
    record[8..].copy_from_slice(hash);
    record
}

fn read(file: &File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Reads records; those that make no sense are as good as absent, a SYNCED that does not fit too.
fn parse(layout: Layout, bytes: &[u8]) -> Records {
    let (records, _) = bytes.as_chunks::<RECORD_LEN>();
    let mut durable = BTreeMap::new();
    let mut doubtful = BTreeMap::new();
    let mut hasher = blake3::Hasher::new();
    let mut hashed = 0;
    for (at, record) in records.iter().enumerate() {
        let [kind, _, _, _, a, b, c, d, hash @ ..] = *record;
        let number = u32::from_be_bytes([a, b, c, d]);
        match kind {
            KIND_PIECE => {
                if let Some(piece) = layout.piece(number) {
                    // Written anew: what was durable of it is no more.
                    durable.remove(&piece);
                    doubtful.insert(piece, (at, hash));
                }
            }
            KIND_SYNCED if (hashed..=at).contains(&(number as usize)) => {
                let covered = number as usize;
                hasher.update(records[hashed..covered].as_flattened());
                hashed = covered;
                if *hasher.finalize().as_bytes() == hash {
                    let settled = doubtful.extract_if(.., |_, (at, _)| *at < covered);
                    durable.extend(settled.map(|(piece, (_, hash))| (piece, hash)));
                }
            }
            _ => {}
        }
    }
    let doubtful = doubtful
        .into_iter()
        .map(|(piece, (_, hash))| (piece, hash))
        .collect();
    Records { durable, doubtful }
}

#[cfg(test)]
impl Journal {
    /// Nothing is noted before this is dropped.
    pub fn hold(&self) -> impl Drop + '_ {
        self.tail()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONTENT: ContentId = ContentId([9; 32]);

    fn layout() -> Layout {
        Layout::new(10 << 20).unwrap()
    }

    fn piece(number: u32) -> PieceIndex {
        layout().piece(number).unwrap()
    }

    fn numbers(pieces: &BTreeMap<PieceIndex, Hash>) -> Vec<u32> {
        pieces.keys().map(|piece| piece.get()).collect()
    }

    struct Fixture {
        dir: tempfile::TempDir,
        part: File,
        journal: Journal,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let part = disk::create_new(dir.path(), "part").unwrap();
            let journal = Journal::create(dir.path(), "journal", CONTENT, layout()).unwrap();
            Self { dir, part, journal }
        }

        fn note(&self, number: u32) {
            let hash = [u8::try_from(number).unwrap(); 32];
            self.journal.note_piece(piece(number), &hash).unwrap();
        }

        fn reopen(&self) -> Option<(Journal, Records)> {
            Journal::open(self.dir.path(), "journal", CONTENT, layout()).unwrap()
        }

        fn records(&self) -> (Vec<u32>, Vec<u32>) {
            let (_, records) = self.reopen().unwrap();
            (numbers(&records.durable), numbers(&records.doubtful))
        }
    }

    /// It vouches for what was noted, and does not read it again.
    #[test]
    fn a_record_that_was_damaged_before_the_sync_is_not_vouched_for() {
        for is_taken_up in [false, true] {
            let mut fixture = Fixture::new();
            fixture.note(1);
            if is_taken_up {
                fixture.journal = fixture.reopen().unwrap().0;
            }
            fixture.note(2);
            let damaged = (HEAD_LEN + RECORD_LEN - 1) as u64;
            fixture.journal.file.write_all_at(&[77], damaged).unwrap();
            fixture.journal.sync(&fixture.part).unwrap();
            assert_eq!(fixture.records(), (vec![], vec![1, 2]));
        }
    }

    #[test]
    fn what_was_synced_is_trusted_and_what_came_after_is_doubted() {
        let fixture = Fixture::new();
        assert!(fixture.journal.is_empty());
        fixture.note(3);
        fixture.note(1);
        fixture.journal.sync(&fixture.part).unwrap();
        fixture.note(7);
        assert_eq!(fixture.records(), (vec![1, 3], vec![7]));
        let (_, records) = fixture.reopen().unwrap();
        assert_eq!(records.durable[&piece(3)], [3; 32]);
        fixture.note(3);
        assert_eq!(fixture.records(), (vec![1], vec![3, 7]), "written anew");
        fixture.journal.sync(&fixture.part).unwrap();
        assert_eq!(fixture.records(), (vec![1, 3, 7], vec![]));
    }

    #[test]
    fn a_record_that_was_cut_short_is_written_over() {
        let fixture = Fixture::new();
        fixture.note(1);
        let len = fixture.journal.tail().end;
        fixture.note(2);
        fixture.journal.file.set_len(len + 17).unwrap();
        let (reopened, records) = fixture.reopen().unwrap();
        assert_eq!(numbers(&records.doubtful), [1]);
        reopened.note_piece(piece(4), &[4; 32]).unwrap();
        assert_eq!(fixture.records(), (vec![], vec![1, 4]));
    }

    #[test]
    fn what_was_lost_is_named_no_more_and_what_comes_later_is_synced_again() {
        let fixture = Fixture::new();
        fixture.note(1);
        fixture.journal.sync(&fixture.part).unwrap();
        fixture.note(2);
        fixture.journal.restart([(piece(1), &[1; 32])]);
        assert_eq!(fixture.records(), (vec![], vec![1]));
        fixture.note(3);
        fixture.journal.sync(&fixture.part).unwrap();
        assert_eq!(fixture.records(), (vec![1, 3], vec![]));
    }

    #[test]
    fn a_closed_journal_takes_nothing_more() {
        let fixture = Fixture::new();
        fixture.note(1);
        fixture.journal.close();
        assert!(fixture.journal.note_piece(piece(2), &[2; 32]).is_err());
        fixture.journal.sync(&fixture.part).unwrap();
        fixture.journal.restart([]);
        assert_eq!(fixture.records(), (vec![], vec![1]));
    }

    #[test]
    fn a_journal_of_another_content_or_length_is_none() {
        let fixture = Fixture::new();
        let open = |content, layout| {
            Journal::open(fixture.dir.path(), "journal", content, layout)
                .unwrap()
                .is_some()
        };
        assert!(open(CONTENT, layout()));
        assert!(!open(ContentId([8; 32]), layout()));
        assert!(!open(CONTENT, Layout::new(11 << 20).unwrap()));
        fixture.journal.file.set_len(20).unwrap();
        assert!(!open(CONTENT, layout()));
    }

    #[test]
    fn a_changed_byte_before_a_sync_makes_it_worthless() {
        let fixture = Fixture::new();
        fixture.note(1);
        fixture.note(2);
        fixture.journal.sync(&fixture.part).unwrap();
        fixture
            .journal
            .file
            .write_all_at(&[0xff], HEAD_LEN as u64 + 20)
            .unwrap();
        assert_eq!(fixture.records(), (vec![], vec![1, 2]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(0_u8..4, 0..1000)) {
            let records = parse(layout(), &bytes);
            prop_assert!(records.durable.keys().all(|piece| !records.doubtful.contains_key(piece)));
        }

        /// Wherever a power cut ends the journal: nothing is trusted that was not synced before.
        #[test]
        fn a_journal_that_is_cut_anywhere_trusts_only_what_was_synced(
            steps in prop::collection::vec(prop::option::of(0_u32..10), 0..60), cut: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            // Behind so many bytes, these are durable.
            let mut truth = vec![(0, BTreeMap::new())];
            let mut written = BTreeMap::new();
            for step in steps {
                match step {
                    Some(number) => {
                        bytes.extend(record(KIND_PIECE, number, &[7; 32]));
                        written.insert(piece(number), [7; 32]);
                        let mut left: BTreeMap<_, _> = truth.last().unwrap().1.clone();
                        left.remove(&piece(number));
                        truth.push((bytes.len(), left));
                    }
                    None => {
                        let count = u32::try_from(bytes.len() / RECORD_LEN).unwrap();
                        let hash = *blake3::hash(&bytes).as_bytes();
                        bytes.extend(record(KIND_SYNCED, count, &hash));
                        truth.push((bytes.len(), written.clone()));
                    }
                }
            }
            let cut = cut.index(bytes.len() + 1);
            let expected = &truth.iter().rev().find(|(len, _)| *len <= cut).unwrap().1;
            prop_assert_eq!(&parse(layout(), &bytes[..cut]).durable, expected);
        }
    }

    /// What the disk did not take is not said to be durable.
    #[test]
    fn nothing_is_durable_before_the_disk_says_so() {
        let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::new(1 << 20).unwrap());
        let content = ContentId([7; 32]);
        let journal = Journal::create(dir.path(), "j", content, layout).unwrap();
        let piece = layout.piece(0).unwrap();
        journal.note_piece(piece, &[1; 32]).unwrap();
        // Nothing that can be made durable.
        let part = File::open("/dev/null").unwrap();
        assert!(journal.sync(&part).is_err());
        drop(journal);
        let opened = Journal::open(dir.path(), "j", content, layout).unwrap();
        let (_, records) = opened.unwrap();
        assert!(records.durable.is_empty() && records.doubtful.len() == 1);
    }

    #[test]
    fn what_is_written_while_a_sync_runs_is_not_covered_by_it() {
        let fixture = Fixture::new();
        fixture.note(1);
        let sync = || {
            fixture.note(2);
            Ok(())
        };
        fixture.journal.sync_by(sync).unwrap();
        assert_eq!(fixture.records(), (vec![1], vec![2]));
    }
}
