//! Serves the pieces that another peer asks for.
//!
//! For each run of frames: one positioned read for each frame, straight behind its head; sealed in place;
//! one write of them all. One thread that may wait for the disk does it all, run after run without handing
//! anything over, as long as the connection takes it; what is left of a run when it takes no more is sent
//! by the task, which waits without a thread.

mod commands;
mod file;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::commands::{Command, read_commands};
use self::file::File;
use super::bundle::{Bundle, FRAME_OVERHEAD, Unserved};
use super::connection::{ConnectionError, PING_AFTER, Reader, Writer};
use super::growing::Nursery;
use super::guests::Idle;
use super::origin::{Begun, Origin, Run};
use super::readers;
use super::shares::Shares;
use super::spread::Spread;
use super::throttle::{Place, Throttle};
use crate::wire::id::{ContentId, PeerId};
use crate::wire::transfer::{Frame, HashPage, MAX_HAVE, Wanted, WantedFiles};
use crate::wire::{MAX_CHUNK_LEN, MAX_OPEN_FILES, MAX_QUEUED_PIECES};

/// Bytes that are read, sealed and written at a time: what a connection that is never read from holds.
const MAX_RUN_LEN: usize = 8 * MAX_CHUNK_LEN;
/// Under a limit that is divided among others too, at most this share of a second's bytes goes at a time,
/// but never less than so many.
const RUNS_PER_S: u64 = 16;
const MIN_RUN_LEN: usize = 4 << 10;
/// Pieces that came meanwhile are told this often.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// So long a thread sends, and waits for the connection, before the task looks after the rest: others
/// need threads, too.
const TURN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_millis(10);

/// What can be served, and how fast; cheap to clone.
#[derive(Debug, Clone)]
pub struct Offers {
    /// Whole files.
    pub shares: Shares,
    /// Files that are being fetched.
    pub nursery: Nursery,
    /// Of all uploads together.
    pub throttle: Throttle,
    /// What all who fetch a content were sent of it.
    pub spread: Spread,
}

/// Serves `peer` until it ends the connection, or this peer is `leaving`; tells when nothing is asked for.
///
/// # Errors
/// When it breaks the protocol, or the connection breaks.
pub async fn serve(
    peer: PeerId,
    reader: Reader,
    writer: Writer,
    offers: Offers,
    (idle, leaving): (Idle, CancellationToken),
) -> Result<(), ConnectionError> {
    // Bounded: whoever asks and does not read is not read from any more.
    let (sender, commands) = mpsc::channel(MAX_QUEUED_PIECES);
    let reading = read_commands(reader, sender);
    let uploading = Upload::new(peer, writer, offers, commands, (idle, leaving)).run();
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

struct Upload {
    /// Who asks.
    reader: readers::Reader,
    writer: Writer,
    offers: Offers,
    place: Place,
    files: HashMap<u32, File>,
    queue: VecDeque<Job>,
    commands: mpsc::Receiver<Command>,
    /// What has to be answered before anything else.
    postponed: Option<Command>,
    /// The run of frames that is being sent, and how much of it went.
    frames: Vec<u8>,
    sent: usize,
    /// For whoever looks for one that needs its place no longer.
    idle: Idle,
    /// This peer leaves: the other side is told that the stream ends here.
    leaving: CancellationToken,
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
    Files(WantedFiles),
}

/// What is to be sent next.
enum Filled {
    /// Nothing is asked for.
    Nothing,
    /// A run of frames.
    Run,
    /// The news that the file of this number is here no longer.
    Gone(u32),
}

impl Filled {
    const fn from_result(file: u32, result: Result<(), Unserved>) -> Result<Self, ConnectionError> {
        match result {
            Ok(()) => Ok(Self::Run),
            Err(Unserved::Gone) => Ok(Self::Gone(file)),
            Err(Unserved::Violation(rule)) => Err(ConnectionError::Violation(rule)),
        }
    }
}

impl Upload {
    fn new(
        peer: PeerId,
        writer: Writer,
        offers: Offers,
        commands: mpsc::Receiver<Command>,
        (idle, leaving): (Idle, CancellationToken),
    ) -> Self {
        Self {
            place: offers.throttle.place(peer),
            reader: readers::Reader::Peer(peer),
            writer,
            offers,
            files: HashMap::new(),
            queue: VecDeque::new(),
            commands,
            postponed: None,
            frames: Vec::new(),
            sent: 0,
            idle,
            leaving,
        }
    }

    async fn run(mut self) -> Result<(), ConnectionError> {
        let mut tell_at = Instant::now();
        loop {
            if self.leaving.is_cancelled() {
                self.writer.finish().await;
                return Ok(());
            }
            self.take_commands();
            while let Some(command) = self.postponed.take() {
                self.answer(command).await?;
                self.take_commands();
            }
            if tell_at <= Instant::now() {
                tell_at = Instant::now() + TELL_EVERY;
                self.tell_news().await?;
            }
            if self.queue.is_empty() {
                self.idle.begin(Instant::now());
                if !self.wait_for_command().await? {
                    return Ok(());
                }
                continue;
            }
            let sending = spawn_blocking(move || {
                let gone = self.send_pieces();
                (self, gone)
            });
            let unsent = |_| ConnectionError::Violation("a piece that could not be sealed");
            let (upload, gone) = sending.await.map_err(unsent)?;
            self = upload;
            let gone = gone?;
            self.send_rest().await?;
            if let Some(file) = gone {
                self.close(file);
                self.writer.send(&Frame::Absent { file }).await?;
            }
        }
    }

    /// `false` when nothing more will be asked.
    async fn wait_for_command(&mut self) -> Result<bool, ConnectionError> {
        let patience = if self.files.values().any(File::is_growing) {
            TELL_EVERY
        } else {
            PING_AFTER
        };
        let command = tokio::select! {
            () = self.leaving.cancelled() => return Ok(true),
            command = timeout(patience, self.commands.recv()) => command,
        };
        match command {
            Ok(Some(command)) => self.postponed = self.enqueue(command),
            Ok(None) => {
                self.writer.finish().await;
                return Ok(false);
            }
            Err(_) if patience == PING_AFTER => self.writer.send(&Frame::Ping).await?,
            Err(_) => {}
        }
        Ok(true)
    }

    /// Takes what was asked meanwhile, up to the first that needs an answer before what follows: a cancel
    /// must overtake the pieces before it.
    fn take_commands(&mut self) {
        while self.postponed.is_none() && self.queue.len() < MAX_QUEUED_PIECES {
            match self.commands.try_recv() {
                Ok(command) => self.postponed = self.enqueue(command),
                Err(_) => break,
            }
        }
    }

    /// Gives back what has to be answered.
    fn enqueue(&mut self, command: Command) -> Option<Command> {
        if command.asks() {
            self.idle.end();
        }
        match command {
            Command::Piece { request, wanted } => self.queue.push_back(Job {
                request,
                file: wanted.file,
                task: Task::Piece(wanted),
            }),
            Command::Files { request, wanted } => self.queue.push_back(Job {
                request,
                file: wanted.file,
                task: Task::Files(wanted),
            }),
            Command::Cancel { request } => self.queue.retain(|job| job.request != request),
            Command::Close { file } => self.close(file),
            other => return Some(other),
        }
        None
    }

    /// What was asked of it is moot: its number may be that of another file from here on.
    fn close(&mut self, file: u32) {
        self.files.remove(&file);
        self.queue.retain(|job| job.file != file);
    }

    /// Sends runs until the connection takes no more, the turn is over, or there is something to answer.
    /// The number of a file that is here no longer. Blocking.
    fn send_pieces(&mut self) -> Result<Option<u32>, ConnectionError> {
        let until = Instant::now() + TURN;
        loop {
            match self.fill_next()? {
                Filled::Nothing => return Ok(None),
                Filled::Run => {}
                Filled::Gone(file) => {
                    // What was read is not sealed.
                    self.frames.clear();
                    return Ok(Some(file));
                }
            }
            if self.offers.throttle.rate().is_some() {
                return Ok(None);
            }
            self.sent = self.writer.send_now(&self.frames, PATIENCE)?;
            self.offers.throttle.note(self.sent);
            if self.sent < self.frames.len() || until <= Instant::now() {
                return Ok(None);
            }
            self.take_commands();
            if self.postponed.is_some() {
                return Ok(None);
            }
        }
    }

    /// Sends what is left of the run; under a limit that is all of it, and it goes little by little.
    async fn send_rest(&mut self) -> Result<(), ConnectionError> {
        while self.sent < self.frames.len() {
            let (left, some) = (
                self.frames.len() - self.sent,
                self.run_len() + FRAME_OVERHEAD,
            );
            let is_limited = self.offers.throttle.rate().is_some();
            let len = if is_limited && left > 2 * some {
                some
            } else {
                left
            };
            self.place.pass(len).await;
            self.offers.throttle.note(len);
            let end = self.sent + len;
            self.writer
                .send_sealed(&self.frames[self.sent..end])
                .await?;
            self.sent = end;
        }
        Ok(())
    }

    /// A slow rate moves little at a time, so that there is always a sign of life in time.
    fn run_len(&self) -> usize {
        let Some(rate) = self.offers.throttle.rate() else {
            return MAX_RUN_LEN;
        };
        let share = usize::try_from(rate / RUNS_PER_S).unwrap_or(MAX_RUN_LEN);
        share.clamp(MIN_RUN_LEN, MAX_RUN_LEN)
    }

    /// Tells of pieces that came since they were last told of.
    async fn tell_news(&mut self) -> Result<(), ConnectionError> {
        for (number, file) in &mut self.files {
            let news = file.take_news();
            for pieces in news.chunks(MAX_HAVE) {
                let (file, pieces) = (*number, pieces.to_vec());
                self.writer.send(&Frame::Have { file, pieces }).await?;
            }
        }
        Ok(())
    }

    /// Reads and seals the next frames that are asked for. Blocking.
    fn fill_next(&mut self) -> Result<Filled, ConnectionError> {
        let run_len = self.run_len();
        self.frames.clear();
        self.sent = 0;
        while let Some(Job {
            request,
            file: number,
            task,
        }) = self.queue.pop_front()
        {
            // One that was never opened, or closed before this was asked.
            let Some(file) = self.files.get_mut(&number) else {
                continue;
            };
            let (sealer, frames) = (self.writer.sealer(), &mut self.frames);
            let begun = match task {
                Task::Piece(wanted) => Begun {
                    piece: file.choose(&wanted)?,
                    sent: 0,
                },
                Task::Rest(begun) => begun,
                Task::Files(wanted) => {
                    let Origin::Whole(listing) = &file.origin else {
                        return Err(ConnectionError::Violation("a run of what is not here"));
                    };
                    let bundle = Bundle {
                        shares: self.offers.shares.clone(),
                        listing: Arc::clone(listing),
                        unfolded: Arc::clone(&file.unfolded),
                        request,
                        chunk_len: run_len,
                        wanted,
                    };
                    return Filled::from_result(number, bundle.fill(sealer, frames));
                }
            };
            let run = Run {
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
            let mut filled = run.fill(&file.origin, sealer, frames);
            if let Err(Unserved::Gone) = filled
                && let Some(successor) = file.origin.successor(&self.offers.shares, self.reader)
            {
                filled = run.fill(&successor, sealer, frames);
                file.origin = successor;
            }
            return Filled::from_result(number, filled);
        }
        Ok(Filled::Nothing)
    }

    /// Answers what cannot wait behind pieces.
    async fn answer(&mut self, command: Command) -> Result<(), ConnectionError> {
        match command {
            Command::Open { file, content } => self.open(file, content).await,
            Command::Hashes { file, page } => self.send_hashes(file, page).await,
            Command::Pong => self.writer.send(&Frame::Pong).await,
            // Those were put into the queue.
            Command::Piece { .. }
            | Command::Files { .. }
            | Command::Cancel { .. }
            | Command::Close { .. } => Ok(()),
        }
    }

    async fn open(&mut self, file: u32, content: ContentId) -> Result<(), ConnectionError> {
        if self.files.len() >= MAX_OPEN_FILES || self.files.contains_key(&file) {
            return Err(ConnectionError::Violation("too many open files"));
        }
        let (offers, reader) = (self.offers.clone(), self.reader);
        let found = spawn_blocking(move || Origin::find(&offers, &content, reader)).await;
        let Some(origin) = found.ok().flatten() else {
            return self.writer.send(&Frame::Absent { file }).await;
        };
        let open = File::new(origin, self.offers.spread.of(content));
        let opened = open.opened();
        self.files.insert(file, open);
        self.writer.send(&Frame::Opened { file, opened }).await
    }

    async fn send_hashes(&mut self, file: u32, page: HashPage) -> Result<(), ConnectionError> {
        let Some(open) = self.files.get(&file) else {
            return Ok(());
        };
        if !open.origin.is_offered() {
            self.close(file);
            return self.writer.send(&Frame::Absent { file }).await;
        }
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

#[cfg(test)]
mod tests;
