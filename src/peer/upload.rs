//! Serves the pieces that another peer asks for.
//!
//! For each piece: one positioned read for each frame, straight behind its head; sealed in place; one
//! write of them all. While one piece is being written the next is read and sealed, on a thread that may
//! wait for the disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::connection::{ConnectionError, PING_AFTER, Reader, Writer};
use super::shares::{Gone, Serving, Shares};
use crate::crypto::stream::FrameSealer;
use crate::wire::frame::FRAME_HEAD_LEN;
use crate::wire::id::ContentId;
use crate::wire::packet::{FRAME_HEADER_LEN, TAG_LEN};
use crate::wire::pieces::PieceIndex;
use crate::wire::transfer::{Frame, HashPage, Opened, Wanted, chunk_head};
use crate::wire::{MAX_CHUNK_LEN, MAX_OPEN_FILES, MAX_QUEUED_PIECES};

/// What the reading half hands to the writing half.
enum Command {
    Open { file: u32, content: ContentId },
    Hashes { file: u32, page: HashPage },
    Piece { request: u32, wanted: Wanted },
    Cancel { request: u32 },
    Close { file: u32 },
    Pong,
}

/// Serves until the other side ends the connection.
///
/// # Errors
/// When it breaks the protocol, or the connection breaks.
pub async fn serve(reader: Reader, writer: Writer, shares: Shares) -> Result<(), ConnectionError> {
    // Bounded: whoever asks and does not read is not read from any more.
    let (sender, commands) = mpsc::channel(MAX_QUEUED_PIECES);
    let reading = read_commands(reader, sender);
    let uploading = Upload {
        writer,
        shares,
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

struct File {
    serving: Arc<Serving>,
    /// How often each piece was sent here; the candidate that was sent least is served.
    sent: HashMap<PieceIndex, u32>,
}

struct Upload {
    writer: Writer,
    shares: Shares,
    files: HashMap<u32, File>,
    queue: VecDeque<(u32, Wanted)>,
    commands: mpsc::Receiver<Command>,
}

/// A piece that is read and sealed, or the news that it cannot be.
struct Prepared {
    sealer: FrameSealer,
    frames: Vec<u8>,
    result: Result<(), Gone>,
    file: u32,
}

impl Upload {
    async fn run(mut self) -> Result<(), ConnectionError> {
        let mut ready: Option<Vec<u8>> = None;
        let mut spare = Vec::new();
        loop {
            // What came meanwhile is handled first: a cancel must overtake the pieces before it.
            while self.queue.len() < MAX_QUEUED_PIECES {
                match self.commands.try_recv() {
                    Ok(command) => self.handle(command, &mut ready).await?,
                    Err(_) => break,
                }
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
                    match timeout(PING_AFTER, self.commands.recv()).await {
                        Ok(Some(command)) => self.handle(command, &mut ready).await?,
                        Ok(None) => {
                            self.writer.finish().await;
                            return Ok(());
                        }
                        Err(_) => self.writer.send(&Frame::Ping).await?,
                    }
                    continue;
                }
            };
            ready = self.take_prepared(prepared).await?;
        }
    }

    /// Starts reading and sealing the next piece that is asked for.
    fn start_next(
        &mut self,
        buffer: Vec<u8>,
    ) -> Result<Option<JoinHandle<Prepared>>, ConnectionError> {
        while let Some((request, wanted)) = self.queue.pop_front() {
            // A file that was closed meanwhile: its requests are moot.
            let Some(file) = self.files.get_mut(&wanted.file) else {
                continue;
            };
            let piece = file.choose(&wanted)?;
            let Some(sealer) = self.writer.lend_sealer() else {
                return Err(ConnectionError::Violation("a stream that was ended"));
            };
            let (serving, number) = (Arc::clone(&file.serving), wanted.file);
            let job = move || prepare(sealer, buffer, &serving, number, request, piece);
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
        } = prepared.map_err(unsealed)?;
        self.writer.return_sealer(sealer);
        if result == Err(Gone) {
            self.files.remove(&file);
            self.writer.send(&Frame::Absent { file }).await?;
            return Ok(None);
        }
        Ok(Some(frames))
    }

    async fn handle(
        &mut self,
        command: Command,
        ready: &mut Option<Vec<u8>>,
    ) -> Result<(), ConnectionError> {
        match command {
            Command::Piece { request, wanted } => {
                self.queue.push_back((request, wanted));
                return Ok(());
            }
            Command::Cancel { request } => {
                self.queue.retain(|(queued, _)| *queued != request);
                return Ok(());
            }
            Command::Close { file } => {
                self.files.remove(&file);
                return Ok(());
            }
            Command::Open { .. } | Command::Hashes { .. } | Command::Pong => {}
        }
        // Frames must leave in the order in which they were sealed.
        if let Some(frames) = ready.take() {
            self.writer.send_sealed(&frames).await?;
        }
        match command {
            Command::Open { file, content } => self.open(file, content).await,
            Command::Hashes { file, page } => self.send_hashes(file, page).await,
            _ => self.writer.send(&Frame::Pong).await,
        }
    }

    async fn open(&mut self, file: u32, content: ContentId) -> Result<(), ConnectionError> {
        if self.files.len() >= MAX_OPEN_FILES || self.files.contains_key(&file) {
            return Err(ConnectionError::Violation("too many open files"));
        }
        let shares = self.shares.clone();
        let serving = spawn_blocking(move || shares.open(&content))
            .await
            .ok()
            .flatten();
        let Some(serving) = serving else {
            return self.writer.send(&Frame::Absent { file }).await;
        };
        let opened = Opened {
            len: serving.tree().layout().len(),
            pieces: None,
        };
        self.files.insert(
            file,
            File {
                serving: Arc::new(serving),
                sent: HashMap::new(),
            },
        );
        self.writer.send(&Frame::Opened { file, opened }).await
    }

    async fn send_hashes(&mut self, file: u32, page: HashPage) -> Result<(), ConnectionError> {
        let Some(open) = self.files.get(&file) else {
            return Ok(());
        };
        let tree = Arc::clone(open.serving.tree());
        let hashes = tree.page(page).ok_or(ConnectionError::Violation(
            "a page that the file does not have",
        ))?;
        self.writer
            .send(&Frame::Hashes { file, page, hashes })
            .await
    }
}

impl File {
    fn choose(&mut self, wanted: &Wanted) -> Result<PieceIndex, ConnectionError> {
        let layout = self.serving.tree().layout();
        let mut candidates = Vec::with_capacity(wanted.candidates.len());
        for index in &wanted.candidates {
            candidates.push(
                layout
                    .piece(*index)
                    .ok_or(ConnectionError::Violation("a piece beyond the end"))?,
            );
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

fn prepare(
    mut sealer: FrameSealer,
    mut frames: Vec<u8>,
    serving: &Serving,
    file: u32,
    request: u32,
    piece: PieceIndex,
) -> Prepared {
    let mut fill = || -> Result<(), Gone> {
        let layout = serving.tree().layout();
        let (offset, len) = (layout.offset(piece), layout.piece_len(piece));
        let overhead = FRAME_HEADER_LEN + FRAME_HEAD_LEN + TAG_LEN;
        frames.resize(len + len.div_ceil(MAX_CHUNK_LEN) * overhead, 0);
        // All are read before the first is sealed: a file that fails half-way must not use up nonces.
        for (number, frame) in frames.chunks_mut(MAX_CHUNK_LEN + overhead).enumerate() {
            let at = offset + (number * MAX_CHUNK_LEN) as u64;
            let end = frame.len() - TAG_LEN;
            serving.read_at(&mut frame[FRAME_HEADER_LEN + FRAME_HEAD_LEN..end], at)?;
        }
        // After the read, not before: what was read may be what it was changed to.
        serving.check()?;
        let last = len.div_ceil(MAX_CHUNK_LEN) - 1;
        for (number, frame) in frames.chunks_mut(MAX_CHUNK_LEN + overhead).enumerate() {
            let at = offset + (number * MAX_CHUNK_LEN) as u64;
            let head = chunk_head(request, at, number == last).to_bytes();
            frame[FRAME_HEADER_LEN..FRAME_HEADER_LEN + FRAME_HEAD_LEN].copy_from_slice(&head);
            sealer.seal(false, frame).map_err(|_| Gone)?;
        }
        Ok(())
    };
    let result = fill();
    Prepared {
        sealer,
        frames,
        result,
        file,
    }
}
