//! Serves the pieces that another peer asks for.
//!
//! For each run of frames: one positioned read for each frame, straight behind its head; sealed in place;
//! one write of them all. While one run is being written the next is read and sealed, on a thread that may
//! wait for the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::bundle::{Bundle, FRAME_OVERHEAD, Unfolded, Unserved};
use super::connection::{ConnectionError, PING_AFTER, Reader, Writer};
use super::growing::{Growing, Nursery};
use super::shares::{Gone, Serving, Shares};
use super::throttle::{Place, Throttle};
use crate::crypto::stream::FrameSealer;
use crate::wire::frame::FRAME_HEAD_LEN;
use crate::wire::id::{ContentId, PeerId};
use crate::wire::packet::{FRAME_HEADER_LEN, TAG_LEN};
use crate::wire::pieces::{Bitfield, Layout, PieceIndex};
use crate::wire::transfer::{
    Frame, HashPage, MAX_HAVE, Opened, PieceSet, Wanted, WantedFiles, chunk_head,
};
use crate::wire::{MAX_CHUNK_LEN, MAX_OPEN_FILES, MAX_QUEUED_PIECES};

/// Bytes that are read, sealed and written at a time: what a connection that is never read from holds, twice.
const MAX_RUN_LEN: usize = 8 * MAX_CHUNK_LEN;
/// Under a limit that is divided among others too, at most this share of a second's bytes goes at a time,
/// but never less than so many.
const RUNS_PER_S: u64 = 16;
const MIN_RUN_LEN: usize = 4 << 10;
/// Pieces that came meanwhile are told this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// What can be served, and how fast; cheap to clone.
#[derive(Debug, Clone)]
pub struct Offers {
    /// Whole files.
    pub shares: Shares,
    /// Files that are being fetched.
    pub nursery: Nursery,
    /// Of all uploads together.
    pub throttle: Throttle,
}

/// What the reading half hands to the writing half.
enum Command {
    Open { file: u32, content: ContentId },
    Hashes { file: u32, page: HashPage },
    Piece { request: u32, wanted: Wanted },
    Files { request: u32, wanted: WantedFiles },
    Cancel { request: u32 },
    Close { file: u32 },
    Pong,
}

/// Serves `peer` until it ends the connection.
///
/// # Errors
/// When it breaks the protocol, or the connection breaks.
pub async fn serve(
    peer: PeerId,
    reader: Reader,
    writer: Writer,
    offers: Offers,
) -> Result<(), ConnectionError> {
    // Bounded: whoever asks and does not read is not read from any more.
    let (sender, commands) = mpsc::channel(MAX_QUEUED_PIECES);
    let reading = read_commands(reader, sender);
    let uploading = Upload {
        place: offers.throttle.place(peer),
        writer,
        offers,
        files: HashMap::new(),
        queue: VecDeque::new(),
        commands,
    }
    .run();
    tokio::pin!(reading, uploading);
    tokio::select! {
        done = &mut uploading => done,
        done = &mut reading => {
            // Nothing more will be asked; an error says that nobody waits for answers either.
            done?;
            uploading.await
        }
    }
}

async fn read_commands(
    mut reader: Reader,
    commands: mpsc::Sender<Command>,
) -> Result<(), ConnectionError> {
    while let Some(frame) = reader.next().await? {
        let command = match frame {
            Frame::Ping => Command::Pong,
            Frame::Pong => continue,
            Frame::Open { file, content } => Command::Open { file, content },
            Frame::AskHashes { file, page } => Command::Hashes { file, page },
            Frame::Request { request, wanted } => Command::Piece { request, wanted },
            Frame::AskFiles { request, wanted } => Command::Files { request, wanted },
            Frame::Cancel { request } => Command::Cancel { request },
            Frame::Close { file } => Command::Close { file },
            Frame::Opened { .. }
            | Frame::Absent { .. }
            | Frame::Hashes { .. }
            | Frame::Chunk { .. }
            | Frame::Have { .. } => {
                return Err(ConnectionError::Violation("an answer to no question"));
            }
        };
        if commands.send(command).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Where the bytes of an open file come from.
#[derive(Debug, Clone)]
enum Origin {
    Whole(Arc<Serving>),
    Growing(Arc<Growing>),
}

impl Origin {
    fn find(offers: &Offers, content: &ContentId) -> Option<Self> {
        let whole = offers.shares.open(content).map(Arc::new).map(Self::Whole);
        let growing = || {
            let growing = offers.nursery.get(content)?;
            let can_be_told = growing.layout().count() as usize <= PieceSet::MAX_COUNT;
            can_be_told.then_some(Self::Growing(growing))
        };
        whole.or_else(growing)
    }

    fn layout(&self) -> Layout {
        match self {
            Self::Whole(serving) => serving.tree().layout(),
            Self::Growing(growing) => growing.layout(),
        }
    }

    fn page(&self, page: HashPage) -> Option<Vec<u8>> {
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

    /// Were the bytes that were read of `piece` the announced ones?
    fn check(&self, piece: PieceIndex) -> Result<(), Gone> {
        match self {
            Self::Whole(serving) => serving.check(),
            Self::Growing(growing) if growing.is_offered() && growing.has(piece) => Ok(()),
            Self::Growing(_) => Err(Gone),
        }
    }

    /// What a download has become that ended: a file that others may change, and that is watched as such.
    fn successor(&self, shares: &Shares) -> Option<Self> {
        match self {
            Self::Growing(growing) if !growing.is_offered() => shares
                .open(&growing.content())
                .map(Arc::new)
                .map(Self::Whole),
            _ => None,
        }
    }
}

struct File {
    origin: Origin,
    /// How often each piece was sent here; the candidate that was sent least is served.
    sent: HashMap<PieceIndex, u32>,
    /// What the other side knows that we have; absent when that is everything.
    told: Option<Told>,
    /// Its files and runs, once it proved to be a folder's listing.
    unfolded: Arc<OnceLock<Arc<Unfolded>>>,
}

struct Told {
    pieces: Bitfield,
    news: watch::Receiver<u64>,
}

struct Upload {
    writer: Writer,
    offers: Offers,
    place: Place,
    files: HashMap<u32, File>,
    queue: VecDeque<Job>,
    commands: mpsc::Receiver<Command>,
}

/// What is asked for.
struct Job {
    request: u32,
    file: u32,
    task: Task,
}

enum Task {
    /// One of these pieces.
    Piece(Wanted),
    /// A piece, and how much of it was sent.
    Rest(Begun),
    /// A run of small files.
    Files(u32),
}

#[derive(Clone, Copy)]
struct Begun {
    piece: PieceIndex,
    sent: usize,
}

/// Frames that are read and sealed, or the news that they cannot be.
struct Prepared {
    sealer: FrameSealer,
    frames: Vec<u8>,
    result: Result<(), Unserved>,
    file: u32,
    /// Where the bytes of the file come from now, if that is somewhere else than before.
    origin: Option<Origin>,
}

impl Upload {
    async fn run(mut self) -> Result<(), ConnectionError> {
        let mut ready: Option<Vec<u8>> = None;
        let mut spare = Vec::new();
        let mut tell_at = Instant::now();
        loop {
            // What came meanwhile is handled first: a cancel must overtake the pieces before it.
            while self.queue.len() < MAX_QUEUED_PIECES {
                match self.commands.try_recv() {
                    Ok(command) => self.handle(command, &mut ready).await?,
                    Err(_) => break,
                }
            }
            if tell_at <= Instant::now() {
                tell_at = Instant::now() + TELL_EVERY;
                self.tell_news(&mut ready).await?;
            }
            let job = self.start_next(std::mem::take(&mut spare))?;
            let prepared = match (job, ready.take()) {
                (Some(job), Some(frames)) => {
                    let (prepared, sent) = tokio::join!(job, self.writer.send_sealed(&frames));
                    sent?;
                    spare = frames;
                    prepared
                }
                (Some(job), None) => job.await,
                (None, Some(frames)) => {
                    self.writer.send_sealed(&frames).await?;
                    spare = frames;
                    continue;
                }
                (None, None) => {
                    let patience = if self.has_growing() {
                        TELL_EVERY
                    } else {
                        PING_AFTER
                    };
                    match timeout(patience, self.commands.recv()).await {
                        Ok(Some(command)) => self.handle(command, &mut ready).await?,
                        Ok(None) => {
                            self.writer.finish().await;
                            return Ok(());
                        }
                        Err(_) if patience == PING_AFTER => self.writer.send(&Frame::Ping).await?,
                        Err(_) => {}
                    }
                    continue;
                }
            };
            ready = self.take_prepared(prepared).await?;
            if let Some(frames) = &mut ready {
                self.send_begin(frames).await?;
                self.place.pass(frames.len()).await;
            }
        }
    }

    /// A slow rate moves little at a time, so that there is always a sign of life in time.
    fn run_len(&self) -> usize {
        let Some(rate) = self.offers.throttle.rate() else {
            return MAX_RUN_LEN;
        };
        let share = usize::try_from(rate / RUNS_PER_S).unwrap_or(MAX_RUN_LEN);
        share.clamp(MIN_RUN_LEN, MAX_RUN_LEN)
    }

    /// A run of small files is prepared as a whole: under a limit it is sent little by little all the same.
    async fn send_begin(&mut self, frames: &mut Vec<u8>) -> Result<(), ConnectionError> {
        let mut sent = 0;
        while self.offers.throttle.rate().is_some() {
            let (left, len) = (&frames[sent..], self.run_len() + FRAME_OVERHEAD);
            if left.len() <= 2 * len {
                break;
            }
            self.place.pass(len).await;
            self.writer.send_sealed(&left[..len]).await?;
            sent += len;
        }
        frames.drain(..sent);
        Ok(())
    }

    fn has_growing(&self) -> bool {
        let is_growing = |told: &Told| !told.pieces.is_full();
        self.files
            .values()
            .any(|file| file.told.as_ref().is_some_and(is_growing))
    }

    /// Tells of pieces that came since they were last told of.
    async fn tell_news(&mut self, ready: &mut Option<Vec<u8>>) -> Result<(), ConnectionError> {
        let mut news = Vec::new();
        for (number, file) in &mut self.files {
            let Some(told) = file.told.as_mut().filter(|told| !told.pieces.is_full()) else {
                continue;
            };
            let offered = match &file.origin {
                Origin::Whole(serving) => Bitfield::full(serving.tree().layout()),
                Origin::Growing(growing) if told.news.has_changed().unwrap_or(false) => {
                    told.news.mark_unchanged();
                    growing.offered()
                }
                Origin::Growing(_) => continue,
            };
            let mut new: Vec<_> = offered.iter().collect();
            new.retain(|piece| told.pieces.insert(*piece));
            let new: Vec<u32> = new.into_iter().map(PieceIndex::get).collect();
            news.extend(
                new.chunks(MAX_HAVE)
                    .map(|pieces| (*number, pieces.to_vec())),
            );
        }
        if news.is_empty() {
            return Ok(());
        }
        self.send_ready(ready).await?;
        for (file, pieces) in news {
            self.writer.send(&Frame::Have { file, pieces }).await?;
        }
        Ok(())
    }

    /// Starts reading and sealing the next frames that are asked for.
    fn start_next(
        &mut self,
        buffer: Vec<u8>,
    ) -> Result<Option<JoinHandle<Prepared>>, ConnectionError> {
        let run_len = self.run_len();
        while let Some(Job {
            request,
            file: number,
            task,
        }) = self.queue.pop_front()
        {
            // A file that was closed meanwhile: its requests are moot.
            let Some(file) = self.files.get_mut(&number) else {
                continue;
            };
            let begun = match task {
                Task::Piece(wanted) => Begun {
                    piece: file.choose(&wanted)?,
                    sent: 0,
                },
                Task::Rest(begun) => begun,
                Task::Files(run) => {
                    let Some(sealer) = self.writer.lend_sealer() else {
                        return Err(ConnectionError::Violation("a stream that was ended"));
                    };
                    let Origin::Whole(listing) = &file.origin else {
                        return Err(ConnectionError::Violation("a run of what is not here"));
                    };
                    let bundle = Bundle {
                        shares: self.offers.shares.clone(),
                        listing: Arc::clone(listing),
                        unfolded: Arc::clone(&file.unfolded),
                        request,
                        chunk_len: run_len,
                        run,
                    };
                    let job =
                        move || prepare(sealer, buffer, number, |s, f| (bundle.fill(s, f), None));
                    return Ok(Some(spawn_blocking(job)));
                }
            };
            let Some(sealer) = self.writer.lend_sealer() else {
                return Err(ConnectionError::Violation("a stream that was ended"));
            };
            let run = Run {
                origin: file.origin.clone(),
                shares: self.offers.shares.clone(),
                request,
                begun,
                max_len: run_len,
            };
            let sent = begun.sent + run_len;
            if sent < file.origin.layout().piece_len(begun.piece) {
                self.queue.push_front(Job {
                    request,
                    file: number,
                    task: Task::Rest(Begun { sent, ..begun }),
                });
            }
            let job = move || prepare(sealer, buffer, number, |s, f| run.fill(s, f));
            return Ok(Some(spawn_blocking(job)));
        }
        Ok(None)
    }

    async fn take_prepared(
        &mut self,
        prepared: Result<Prepared, JoinError>,
    ) -> Result<Option<Vec<u8>>, ConnectionError> {
        let unsealed = |_| ConnectionError::Violation("a piece that could not be sealed");
        let Prepared {
            sealer,
            frames,
            result,
            file,
            origin,
        } = prepared.map_err(unsealed)?;
        self.writer.return_sealer(sealer);
        if let (Some(origin), Some(open)) = (origin, self.files.get_mut(&file)) {
            open.origin = origin;
        }
        match result {
            Ok(()) => Ok(Some(frames)),
            Err(Unserved::Gone) => {
                self.files.remove(&file);
                self.writer.send(&Frame::Absent { file }).await?;
                Ok(None)
            }
            Err(Unserved::Violation(rule)) => Err(ConnectionError::Violation(rule)),
        }
    }

    /// Frames must leave in the order in which they were sealed.
    async fn send_ready(&mut self, ready: &mut Option<Vec<u8>>) -> Result<(), ConnectionError> {
        match ready.take() {
            Some(frames) => self.writer.send_sealed(&frames).await,
            None => Ok(()),
        }
    }

    async fn handle(
        &mut self,
        command: Command,
        ready: &mut Option<Vec<u8>>,
    ) -> Result<(), ConnectionError> {
        match command {
            Command::Piece { request, wanted } => self.queue.push_back(Job {
                request,
                file: wanted.file,
                task: Task::Piece(wanted),
            }),
            Command::Files { request, wanted } => self.queue.push_back(Job {
                request,
                file: wanted.file,
                task: Task::Files(wanted.run),
            }),
            Command::Cancel { request } => self.queue.retain(|job| job.request != request),
            Command::Close { file } => {
                self.files.remove(&file);
            }
            Command::Open { file, content } => {
                self.send_ready(ready).await?;
                self.open(file, content).await?;
            }
            Command::Hashes { file, page } => {
                self.send_ready(ready).await?;
                self.send_hashes(file, page).await?;
            }
            Command::Pong => {
                self.send_ready(ready).await?;
                self.writer.send(&Frame::Pong).await?;
            }
        }
        Ok(())
    }

    async fn open(&mut self, file: u32, content: ContentId) -> Result<(), ConnectionError> {
        if self.files.len() >= MAX_OPEN_FILES || self.files.contains_key(&file) {
            return Err(ConnectionError::Violation("too many open files"));
        }
        let offers = self.offers.clone();
        let found = spawn_blocking(move || Origin::find(&offers, &content)).await;
        let Some(origin) = found.ok().flatten() else {
            return self.writer.send(&Frame::Absent { file }).await;
        };
        let told = match &origin {
            Origin::Whole(_) => None,
            Origin::Growing(growing) => {
                let news = growing.watch();
                Some(Told {
                    pieces: growing.offered(),
                    news,
                })
            }
        };
        let opened = Opened {
            len: origin.layout().len(),
            pieces: told.as_ref().map(|told| PieceSet(told.pieces.to_bytes())),
        };
        self.files.insert(
            file,
            File {
                origin,
                sent: HashMap::new(),
                told,
                unfolded: Arc::default(),
            },
        );
        self.writer.send(&Frame::Opened { file, opened }).await
    }

    async fn send_hashes(&mut self, file: u32, page: HashPage) -> Result<(), ConnectionError> {
        let Some(open) = self.files.get(&file) else {
            return Ok(());
        };
        let hashes = open
            .origin
            .page(page)
            .ok_or(ConnectionError::Violation("a page that is not here"))?;
        self.writer
            .send(&Frame::Hashes {
                file,
                page,
                hashes: &hashes,
            })
            .await
    }
}

impl File {
    fn choose(&mut self, wanted: &Wanted) -> Result<PieceIndex, ConnectionError> {
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
        let sent = |piece: &PieceIndex| self.sent.get(piece).copied().unwrap_or(0);
        let piece = candidates
            .into_iter()
            .min_by_key(sent)
            .ok_or(ConnectionError::Violation("no candidate"))?;
        *self.sent.entry(piece).or_insert(0) += 1;
        Ok(piece)
    }
}

/// Reads and seals what is to be sent next. Blocking.
fn prepare(
    mut sealer: FrameSealer,
    mut frames: Vec<u8>,
    file: u32,
    fill: impl FnOnce(&mut FrameSealer, &mut Vec<u8>) -> (Result<(), Unserved>, Option<Origin>),
) -> Prepared {
    let (result, origin) = fill(&mut sealer, &mut frames);
    Prepared {
        sealer,
        frames,
        result,
        file,
        origin,
    }
}

/// Frames of one piece that are read and sealed together.
struct Run {
    origin: Origin,
    shares: Shares,
    request: u32,
    begun: Begun,
    max_len: usize,
}

impl Run {
    fn fill(
        &self,
        sealer: &mut FrameSealer,
        frames: &mut Vec<u8>,
    ) -> (Result<(), Unserved>, Option<Origin>) {
        let result = self.fill_from(&self.origin, sealer, frames);
        let successor = match result {
            Err(Unserved::Gone) => self.origin.successor(&self.shares),
            _ => None,
        };
        match successor {
            Some(successor) => {
                let result = self.fill_from(&successor, sealer, frames);
                (result, Some(successor))
            }
            None => (result, None),
        }
    }

    fn fill_from(
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
