//! Uploads over a real connection: what leaves, in which order, and how it ends.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::super::connection::tests::connected;
use super::super::growing::Offered;
use super::super::growing::tests::{Fixture, fixture};
use super::super::shares::Background;
use super::*;
use crate::disk;
use crate::wire::control::{Publication, PublicationKind};

/// Two and a half pieces.
const LEN: usize = 5 << 19;
const PIECE: usize = 1 << 20;
/// A run is sent in about a sixteenth of a second.
const SLOW: u64 = 2 << 20;

/// What a downloader hears; of a chunk its request, its offset, its length, and whether it is the last one.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Opened(u64),
    Absent,
    Chunk(u32, u64, usize, bool),
    Pong,
    Final,
}

/// One who serves a content that is whole and still growing, and whoever fetches it.
struct Pair {
    fixture: Fixture,
    content: ContentId,
    offered: Option<Offered>,
    offers: Offers,
    idle: Idle,
    leaving: CancellationToken,
    reader: Reader,
    writer: Writer,
    serving: JoinHandle<Result<(), ConnectionError>>,
}

impl Pair {
    async fn new() -> Self {
        Self::with(3).await
    }

    /// Only the first so many pieces are here.
    async fn with(count: u32) -> Self {
        let fixture = fixture(LEN);
        let growing = Arc::clone(&fixture.growing);
        for number in 0..count {
            fixture.put(number);
        }
        let page = HashPage { level: 0, index: 0 };
        growing.insert_page(page, &fixture.page()).unwrap();
        let (shares, _withdrawn) = Shares::new(Background::default());
        let offers = Offers {
            shares,
            nursery: Nursery::default(),
            throttle: Throttle::default(),
            spread: Spread::default(),
        };
        let file = Publication {
            name: "x".parse().unwrap(),
            content: growing.content(),
            len: LEN as u64,
            kind: PublicationKind::File,
        };
        let offered = Some(offers.nursery.offer(&file, &growing));
        let ((reader, writer), (their_reader, their_writer)) = connected().await;
        let (idle, leaving) = (Idle::new(Instant::now()), CancellationToken::new());
        let serving = serve(
            PeerId([1; 32]),
            their_reader,
            their_writer,
            offers.clone(),
            (idle.clone(), leaving.clone()),
        );
        Self {
            content: growing.content(),
            fixture,
            offered,
            offers,
            idle,
            leaving,
            reader,
            writer,
            serving: tokio::spawn(serving),
        }
    }

    async fn say(&mut self, frame: Frame<'_>) {
        self.writer.send(&frame).await.unwrap();
    }

    async fn open(&mut self, file: u32, content: ContentId) {
        self.say(Frame::Open { file, content }).await;
    }

    async fn request(&mut self, request: u32, piece: u32) {
        let wanted = Wanted {
            file: 0,
            candidates: vec![piece],
        };
        self.say(Frame::Request { request, wanted }).await;
    }

    /// The next frame; chunks must hold what the content has there.
    async fn hear(&mut self) -> Heard {
        let next = timeout(Duration::from_secs(10), self.reader.next());
        match next.await.unwrap().unwrap() {
            Some(Frame::Opened { opened, .. }) => Heard::Opened(opened.len),
            Some(Frame::Absent { .. }) => Heard::Absent,
            Some(Frame::Pong) => Heard::Pong,
            None => Heard::Final,
            Some(Frame::Chunk {
                request,
                offset,
                is_last,
                bytes,
            }) => {
                let start = usize::try_from(offset).unwrap();
                assert!(
                    bytes == &self.fixture.bytes[start..start + bytes.len()],
                    "{start}"
                );
                Heard::Chunk(request, offset, bytes.len(), is_last)
            }
            Some(other) => panic!("{other:?}"),
        }
    }

    /// Everything up to the answer to a question that overtakes pieces.
    async fn hear_until_pong(&mut self) -> Vec<Heard> {
        self.say(Frame::Ping).await;
        let mut heard = Vec::new();
        loop {
            match self.hear().await {
                Heard::Pong => return heard,
                other => heard.push(other),
            }
        }
    }
}

/// What was read may be what others have made of it: none of it leaves, and what comes after is sealed in order.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_that_goes_while_it_is_read_nothing_leaves() {
    let mut pair = Pair::new().await;
    pair.open(0, pair.content).await;
    assert_eq!(pair.hear().await, Heard::Opened(LEN as u64));
    pair.request(1, 1).await;
    let mut len = 0;
    while len < PIECE {
        let Heard::Chunk(1, at, some, _) = pair.hear().await else {
            panic!("a chunk is missing")
        };
        assert_eq!(at, (PIECE + len) as u64);
        len += some;
    }
    drop(pair.offered.take());
    pair.request(2, 0).await;
    pair.request(3, 1).await;
    assert_eq!(pair.hear().await, Heard::Absent);
    assert_eq!(pair.hear_until_pong().await, []);
    pair.open(0, pair.content).await;
    assert_eq!(pair.hear().await, Heard::Absent);
    pair.writer.finish().await;
    assert_eq!(pair.hear().await, Heard::Final);
    pair.serving.await.unwrap().unwrap();
}

/// It overtakes the pieces before it, and ends one that is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_is_not_sent() {
    let mut pair = Pair::new().await;
    pair.offers.throttle.set(Some(SLOW));
    pair.open(0, pair.content).await;
    assert_eq!(pair.hear().await, Heard::Opened(LEN as u64));
    for (request, piece) in [(1, 0), (2, 1), (3, 2)] {
        pair.request(request, piece).await;
    }
    assert!(matches!(pair.hear().await, Heard::Chunk(1, 0, ..)));
    pair.say(Frame::Cancel { request: 2 }).await;
    pair.say(Frame::Cancel { request: 1 }).await;
    let mut of_the_first = 0;
    loop {
        let Heard::Chunk(request, _, len, is_last) = pair.hear().await else {
            panic!("a chunk is missing")
        };
        assert_ne!(request, 2);
        of_the_first += if request == 1 { len } else { 0 };
        if request == 3 && is_last {
            break;
        }
    }
    assert!(of_the_first < PIECE / 2, "{of_the_first}");
    assert_eq!(pair.hear_until_pong().await, []);
}

/// The other side knows that nothing is missing, and did nothing wrong.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_ends_the_stream_as_it_should() {
    for is_busy in [false, true] {
        let mut pair = Pair::new().await;
        pair.offers.throttle.set(Some(SLOW));
        pair.open(0, pair.content).await;
        assert_eq!(pair.hear().await, Heard::Opened(LEN as u64));
        if is_busy {
            pair.request(1, 0).await;
            pair.request(2, 1).await;
            assert!(matches!(pair.hear().await, Heard::Chunk(1, 0, ..)));
        }
        pair.leaving.cancel();
        let mut came = 0;
        loop {
            match pair.hear().await {
                Heard::Chunk(_, _, len, _) => came += len,
                Heard::Final => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(came < PIECE / 2, "{came}");
        pair.serving.await.unwrap().unwrap();
    }
}

/// What was asked of a file does not become something asked of the next one that has its number.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_a_file_ends_with_it() {
    let mut pair = Pair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small");
    disk::write_new(&path, &pair.fixture.bytes[..100], false, (0, 0)).unwrap();
    let small = pair.offers.shares.add(&path, None).await.unwrap();
    pair.offers.throttle.set(Some(SLOW));
    pair.open(0, pair.content).await;
    assert_eq!(pair.hear().await, Heard::Opened(LEN as u64));
    pair.request(1, 1).await;
    pair.request(2, 0).await;
    assert!(matches!(pair.hear().await, Heard::Chunk(1, ..)));
    pair.say(Frame::Close { file: 0 }).await;
    pair.open(0, small.file.content).await;
    while let heard = pair.hear().await
        && heard != Heard::Opened(100)
    {
        assert!(matches!(heard, Heard::Chunk(1, _, _, false)), "{heard:?}");
    }
    assert_eq!(pair.hear_until_pong().await, []);
    pair.request(3, 0).await;
    assert_eq!(pair.hear().await, Heard::Chunk(3, 0, 100, true));
}

#[tokio::test]
async fn only_so_much_is_taken_from_who_asks_without_end() {
    let pair = Pair::new().await;
    let (sender, commands) = mpsc::channel(1000);
    let peer = PeerId([1; 32]);
    let mut upload = Upload::new(
        peer,
        pair.writer,
        pair.offers,
        commands,
        (pair.idle, pair.leaving),
    );
    for request in 0..1000 {
        let wanted = Wanted {
            file: 0,
            candidates: vec![0],
        };
        let asked = sender.try_send(Command::Piece { request, wanted });
        assert!(asked.is_ok());
    }
    upload.take_commands();
    upload.take_commands();
    assert_eq!(upload.queue.len(), MAX_QUEUED_PIECES);
}

/// What changed after it was shared is not sent under its old id, and neither is a half of it.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_shared_file_that_changed_nothing_leaves() {
    let mut pair = Pair::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small");
    disk::write_new(&path, &pair.fixture.bytes[..100], false, (0, 0)).unwrap();
    let small = pair.offers.shares.add(&path, None).await.unwrap();
    pair.open(0, small.file.content).await;
    assert_eq!(pair.hear().await, Heard::Opened(100));
    pair.request(1, 0).await;
    assert_eq!(pair.hear().await, Heard::Chunk(1, 0, 100, true));
    let file = disk::open_own(dir.path(), "small").unwrap().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"other", 0).unwrap();
    pair.request(2, 0).await;
    assert_eq!(pair.hear().await, Heard::Absent);
    assert_eq!(pair.hear_until_pong().await, []);
}

/// What is not here yet is nothing but room on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_more_than_it_was_told_of_is_cut_off() {
    let mut pair = Pair::with(2).await;
    pair.open(0, pair.content).await;
    assert_eq!(pair.hear().await, Heard::Opened(LEN as u64));
    pair.request(1, 2).await;
    let ended = timeout(Duration::from_secs(10), pair.serving).await;
    let error = ended.unwrap().unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            ConnectionError::Violation("a piece that is not here")
        ),
        "{error}"
    );
}

/// Who only says that it is there may lose its place to others; who waits for a slow answer does not.
#[tokio::test(flavor = "multi_thread")]
async fn only_who_asks_for_something_is_not_idle() {
    let mut pair = Pair::new().await;
    let start = pair.idle.since().unwrap();
    pair.offers.throttle.set(Some(SLOW));
    pair.open(0, pair.content).await;
    assert_eq!(pair.hear().await, Heard::Opened(LEN as u64));
    assert_eq!(pair.hear_until_pong().await, []);
    assert_eq!(pair.idle.since(), Some(start));
    pair.request(1, 0).await;
    while let Heard::Chunk(_, at, _, is_last) = pair.hear().await
        && !is_last
    {
        // Of what is sent at a time more has left than was heard.
        assert!(pair.idle.since().is_none() || at >= PIECE as u64 / 2);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while pair.idle.since().is_none_or(|since| since <= start) {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}
