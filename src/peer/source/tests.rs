//! Sources over a real connection: what is taken of what they send.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::super::connection::tests::connected;
use super::super::growing::Growing;
use super::super::growing::tests::{Fixture, fixture};
use super::super::store::Partial;
use super::super::unpack::tests::{entry, unpacking};
use super::*;
use crate::crypto::content::hash_piece;
use crate::crypto::identity::Identity;
use crate::crypto::kdf::{Group, NetworkName};
use crate::crypto::random::OsRandom;
use crate::crypto::secret::Passphrase;
use crate::wire::MAX_CHUNK_LEN;
use crate::wire::folder::{Listing, MAX_RUN_FILES};
use crate::wire::transfer::Opened;

/// Four and a half pieces.
const LEN: usize = 9 << 19;
const PIECE: usize = 1 << 20;

type Ended = Result<&'static str, ConnectionError>;

/// A download of one content, and a source that does what the test says.
struct Pair {
    _dir: tempfile::TempDir,
    partial: Partial,
    bytes: Vec<u8>,
    growing: Arc<Growing>,
    asks: mpsc::Sender<Ask>,
    reports: mpsc::Receiver<(PeerId, Report)>,
    put: mpsc::UnboundedSender<Put>,
    reader: Reader,
    writer: Writer,
    running: JoinHandle<Ended>,
}

fn goal(target: Target, reports: mpsc::Sender<(PeerId, Report)>) -> Goal {
    let secret = Passphrase::parse("correct horse battery staple").unwrap();
    let group = Group::derive(&secret, NetworkName::default());
    Goal {
        flow: Arc::new(Flow::new(Instant::now())),
        membership: Membership::new(group, Identity::generate(&mut OsRandom::new())),
        puts: Puts::new(target.clone()),
        target,
        throttle: Throttle::default(),
        reports,
    }
}

impl Pair {
    /// `unwritten` pieces are on their way to the disk.
    async fn new(unwritten: usize) -> Self {
        let Fixture {
            dir,
            partial,
            bytes,
            growing,
        } = fixture(LEN);
        let ((reader, writer), (their_reader, their_writer)) = connected().await;
        let (reporting, reports) = mpsc::channel(64);
        let goal = goal(Target::Content(Arc::clone(&growing)), reporting);
        let mut source = Source::new(goal, PeerId([1; 32]), writer);
        source.unwritten = unwritten;
        let put = source.put.clone();
        let (asks, asked) = mpsc::channel(64);
        let running = tokio::spawn(async move {
            Ok(match source.run(reader, asked).await? {
                End::Lacks => "lacks",
                End::Left => "left",
                End::Unneeded => "unneeded",
            })
        });
        let mut pair = Self {
            _dir: dir,
            partial,
            bytes,
            growing,
            asks,
            reports,
            put,
            reader: their_reader,
            writer: their_writer,
            running,
        };
        let Some(Frame::Open { file, .. }) = pair.reader.next().await.unwrap() else {
            panic!("nothing was opened")
        };
        let opened = Opened {
            len: LEN as u64,
            pieces: None,
        };
        pair.say(Frame::Opened { file, opened }).await;
        if unwritten < MAX_UNWRITTEN {
            assert!(matches!(pair.report().await, Report::Connected(_)));
        }
        pair
    }

    fn piece(&self, number: u32) -> (PieceIndex, Hash) {
        let layout = self.growing.layout();
        let piece = layout.piece(number).unwrap();
        (piece, hash_piece(layout, piece, self.bytes_of(number)))
    }

    /// The disk has it, and it was right.
    fn put_right(&self, number: u32) -> PieceIndex {
        let (piece, _) = self.piece(number);
        let put = Put {
            piece,
            bytes: Vec::new(),
            result: Ok(Verdict::Right),
        };
        self.put.send(put).unwrap();
        piece
    }

    fn bytes_of(&self, number: u32) -> &[u8] {
        let start = number as usize * PIECE;
        &self.bytes[start..(start + PIECE).min(LEN)]
    }

    /// Asks for a piece or one in its place; the request that reaches the source.
    async fn ask(&mut self, number: u32, instead: &[u32]) -> u32 {
        let (piece, hash) = self.piece(number);
        let instead: Vec<_> = instead.iter().map(|number| self.piece(*number)).collect();
        let named: Vec<u32> = instead.iter().map(|(piece, _)| piece.get()).collect();
        let ask = Ask::Piece(piece, hash, instead);
        self.asks.send(ask).await.unwrap();
        let (request, candidates) = self.hear().await;
        assert_eq!(candidates, [vec![number], named].concat());
        request
    }

    async fn cancel(&mut self, number: u32) -> u32 {
        let (piece, _) = self.piece(number);
        self.asks.send(Ask::Cancel(piece)).await.unwrap();
        let (request, candidates) = self.hear().await;
        assert!(candidates.is_empty(), "{candidates:?}");
        request
    }

    /// What it is asked, but whether it is there: of a piece the request, and what may come.
    async fn hear(&mut self) -> (u32, Vec<u32>) {
        loop {
            let next = timeout(Duration::from_secs(10), self.reader.next());
            match next.await.unwrap().unwrap() {
                Some(Frame::Ping) => {}
                Some(Frame::Request { request, wanted }) => return (request, wanted.candidates),
                Some(Frame::Cancel { request }) => return (request, Vec::new()),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn say(&mut self, frame: Frame<'_>) {
        self.writer.send(&frame).await.unwrap();
    }

    async fn chunk(&mut self, request: u32, offset: usize, bytes: &[u8], is_last: bool) {
        let offset = offset as u64;
        self.say(Frame::Chunk {
            request,
            offset,
            is_last,
            bytes,
        })
        .await;
    }

    /// Sends `bytes` as the piece of this number, but for the first `skipped`.
    async fn send(&mut self, request: u32, number: u32, bytes: &[u8], skipped: usize) {
        let start = number as usize * PIECE;
        let mut at = skipped;
        while at < bytes.len() {
            let end = (at + MAX_CHUNK_LEN).min(bytes.len());
            let is_last = end == bytes.len();
            self.chunk(request, start + at, &bytes[at..end], is_last)
                .await;
            at = end;
        }
    }

    async fn report(&mut self) -> Report {
        loop {
            let (_, report) = timeout(Duration::from_secs(10), self.reports.recv())
                .await
                .unwrap()
                .unwrap();
            if !matches!(report, Report::Sign) {
                return report;
            }
        }
    }

    async fn violation(self) -> &'static str {
        let ended = timeout(Duration::from_secs(10), self.running).await;
        match ended.unwrap().unwrap() {
            Err(ConnectionError::Violation(rule)) => rule,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_chooses_among_what_was_offered() {
    let mut pair = Pair::new(0).await;
    // The short one at the end: another length, another hash, another place.
    let request = pair.ask(0, &[2, 4]).await;
    let bytes = pair.bytes_of(4).to_vec();
    pair.send(request, 4, &bytes, 0).await;
    let chosen = (pair.piece(0).0, pair.piece(4).0);
    let report = pair.report().await;
    assert!(
        matches!(report, Report::Chose(asked, came) if (asked, came) == chosen),
        "{report:?}"
    );
    let report = pair.report().await;
    assert!(
        matches!(report, Report::Piece(came) if came == chosen.1),
        "{report:?}"
    );
    assert!(pair.growing.here().iter().eq([chosen.1]));
    let mut read = vec![0; bytes.len()];
    pair.growing.read_at(&mut read, 4 << 20).unwrap();
    assert_eq!(read, bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_offered_is_refused() {
    let mut pair = Pair::new(0).await;
    let request = pair.ask(0, &[2]).await;
    let bytes = pair.bytes_of(1)[..100].to_vec();
    pair.chunk(request, PIECE, &bytes, false).await;
    assert_eq!(pair.violation().await, "a chunk that does not fit");
}

/// Not even for a moment: the part file may be served.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_never_written() {
    let mut pair = Pair::new(0).await;
    let request = pair.ask(1, &[]).await;
    let mut bytes = pair.bytes_of(1).to_vec();
    bytes[PIECE - 1] ^= 1;
    pair.send(request, 1, &bytes, 0).await;
    let report = pair.report().await;
    assert!(matches!(report, Report::WrongPiece), "{report:?}");
    assert!(pair.growing.here().iter().next().is_none());
    let mut read = vec![1; PIECE];
    pair.partial
        .part()
        .read_at(&mut read, PIECE as u64)
        .unwrap();
    assert!(read.iter().all(|byte| *byte == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_of_a_file_comes_without_gaps() {
    let mut pair = Pair::new(0).await;
    let request = pair.ask(1, &[]).await;
    let bytes = pair.bytes_of(1)[..100].to_vec();
    pair.chunk(request, PIECE + 1, &bytes[1..], false).await;
    assert_eq!(pair.violation().await, "a chunk that does not fit");
}

/// Who is not read from sends no faster than the disk takes it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_while_the_disk_has_enough_to_do() {
    let mut pair = Pair::new(MAX_UNWRITTEN).await;
    assert!(matches!(pair.report().await, Report::Connected(_)));
    let request = pair.ask(1, &[]).await;
    let bytes = pair.bytes_of(1)[..100].to_vec();
    pair.chunk(request, PIECE, &bytes, false).await;
    let early = timeout(Duration::from_millis(300), pair.reports.recv()).await;
    let (file, pieces) = (0, vec![3]);
    assert!(early.is_err(), "{early:?}");
    pair.say(Frame::Have { file, pieces }).await;
    let early = timeout(Duration::from_millis(300), pair.reports.recv()).await;
    assert!(early.is_err(), "{early:?}");
    pair.put_right(2);
    assert!(matches!(pair.report().await, Report::Piece(_)));
    assert!(matches!(pair.report().await, Report::Has(_)));
}

/// The disk still has to answer for it: it counts, and is not fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_last_from_one_that_goes_counts() {
    for leaves in [true, false] {
        let mut pair = Pair::new(1).await;
        if leaves {
            pair.writer.finish().await;
        } else {
            pair.chunk(7, 0, b"unasked", false).await;
        }
        let early = timeout(Duration::from_millis(300), &mut pair.running).await;
        assert!(early.is_err(), "{early:?}");
        let piece = pair.put_right(2);
        let report = pair.report().await;
        assert!(matches!(report, Report::Piece(came) if came == piece));
        assert_eq!(pair.running.await.unwrap().is_ok(), leaves);
    }
}

/// One that sends piece 2 in the place of piece 0 is asked for that once more, and then no longer.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_piece_spares_what_came_in_its_place_before() {
    let mut pair = Pair::new(0).await;
    let first = pair.ask(0, &[2]).await;
    let bytes = pair.bytes_of(2).to_vec();
    pair.chunk(first, 2 * PIECE, &bytes[..100], false).await;
    assert!(matches!(pair.report().await, Report::Chose(..)));
    let second = pair.ask(0, &[]).await;
    assert_eq!(pair.cancel(0).await, second);
    pair.send(first, 2, &bytes, 100).await;
    let report = pair.report().await;
    let (piece, _) = pair.piece(2);
    assert!(
        matches!(report, Report::Piece(came) if came == piece),
        "{report:?}"
    );
    let third = pair.ask(0, &[3]).await;
    assert_eq!(pair.cancel(0).await, third, "nothing was chosen yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_comes_to_an_end() {
    let mut pair = Pair::new(0).await;
    let request = pair.ask(1, &[]).await;
    assert_eq!(pair.cancel(1).await, request);
    let bytes = vec![0; MAX_CHUNK_LEN];
    for _ in 0..=PIECE / MAX_CHUNK_LEN {
        pair.chunk(request, PIECE, &bytes, false).await;
    }
    assert_eq!(pair.violation().await, "a piece without end");
}

/// A run of small files has no more gaps than there may be files in it.
#[tokio::test]
async fn gaps_of_a_run_are_counted() {
    let entry = |number: u8| entry(&number.to_string(), &[number; 1000]);
    let listing = Listing::new((0..10).map(entry).collect()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(unpacking(dir.path(), &listing));
    let piece = folder.layout().piece(0).unwrap();
    let ((_reader, writer), _theirs) = connected().await;
    let goal = goal(Target::Folder(folder), mpsc::channel(1).0);
    let mut source = Source::new(goal, PeerId([1; 32]), writer);
    source
        .ask(Ask::Piece(piece, [0; 32], Vec::new()))
        .await
        .unwrap();
    let mut gather = |number: usize| source.gather(1, 2 * number as u64 + 1, false, &[7]);
    for number in 0..MAX_RUN_FILES {
        assert!(matches!(gather(number), Ok(None)), "{number}");
    }
    assert!(matches!(
        gather(MAX_RUN_FILES),
        Err(ConnectionError::Violation(_))
    ));
}

/// Each one takes memory for a whole piece.
#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_pieces_come_at_a_time() {
    let mut pair = Pair::new(0).await;
    let mut requests = Vec::new();
    for _ in 0..=MAX_BEGUN {
        requests.push(pair.ask(1, &[]).await);
    }
    let bytes = pair.bytes_of(1)[..100].to_vec();
    for request in requests {
        pair.chunk(request, PIECE, &bytes, false).await;
    }
    assert_eq!(pair.violation().await, "too many pieces at a time");
}
