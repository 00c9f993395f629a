//! One source of one download: its connection, and the pieces that are coming from it.
//!
//! Chunks are hashed as they come and gathered to a piece; one that is right is written by a thread that
//! may wait for the disk, and only the verdict goes to the download.

mod assembly;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;

use self::assembly::Assembly;
use super::connection::{ConnectionError, PING_AFTER, Reader, Writer};
use super::dial::dial;
use super::job::Flow;
use super::membership::Membership;
use super::puts::{Came, Put, Puts};
use super::target::{Target, Verdict};
use super::throttle::{Place, Throttle};
use crate::crypto::content::Hash;
use crate::wire::control::Holder;
use crate::wire::id::PeerId;
use crate::wire::pieces::{Bitfield, PieceIndex};
use crate::wire::transfer::{Frame, HashPage};

/// The number of the one file on a connection of ours.
const FILE: u32 = 0;
/// OPEN is answered within this time.
const OPEN_TIME: Duration = Duration::from_secs(10);
/// What a source said before its connection broke is read within this time.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Pieces that may be on their way to the disk at the same time.
const MAX_UNWRITTEN: usize = 3;
/// Pieces that one source may have begun at the same time; ours come one after the other.
const MAX_BEGUN: usize = 4;
/// Cancelled requests that are remembered; the uploader has forgotten older ones as well.
const MAX_CANCELLED: usize = 64;
/// Signs of life are reported this often.
const SIGN_EVERY: Duration = Duration::from_millis(500);

/// What the download wants of a source.
#[derive(Debug)]
pub enum Ask {
    /// A page of hashes.
    Page(HashPage),
    /// A piece, or one of these in its place; each must have its hash.
    Piece(PieceIndex, Hash, Vec<(PieceIndex, Hash)>),
    /// That piece no longer.
    Cancel(PieceIndex),
}

/// What a source tells the download.
#[derive(Debug)]
pub enum Report {
    /// It is connected and has these pieces.
    Connected(Bitfield),
    /// It has these, too.
    Has(Vec<PieceIndex>),
    /// A page of hashes came.
    Page(HashPage, Vec<u8>),
    /// Something of what it owes is coming.
    Sign,
    /// In the place of the first piece the second one is coming, which may be the same.
    Chose(PieceIndex, PieceIndex),
    /// A piece came, is right and on disk.
    Piece(PieceIndex),
    /// It has not all of this piece; so many files of it came.
    Lacks(PieceIndex, usize),
    /// A piece came and is wrong.
    WrongPiece,
    /// A piece came that cannot be written to disk.
    Disk(PieceIndex, io::Error),
    /// It is gone, for this reason.
    Gone(String),
    /// It ended the connection as it should.
    Left,
}

/// How a connection ended that was not cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The source does not have the content, or has it no longer.
    Lacks,
    /// The source ended it.
    Left,
    /// It is not needed any more.
    Unneeded,
}

/// What every source of one download works with.
#[derive(Clone, Debug)]
pub struct Goal {
    /// What we greet with.
    pub membership: Membership,
    /// What is wanted, and where it goes.
    pub target: Target,
    /// How fast it may come.
    pub throttle: Throttle,
    /// Pieces on their way to the disk, also those of sources that are gone.
    pub puts: Puts,
    /// Where what comes is counted.
    pub flow: Arc<Flow>,
    /// Where to report to.
    pub reports: mpsc::Sender<(PeerId, Report)>,
}

/// Dials `holder` and fetches what is asked for, until nothing can be asked any more.
pub async fn run(goal: Goal, holder: Holder, asks: mpsc::Receiver<Ask>) {
    let peer = holder.peer;
    let reports = goal.reports.clone();
    let report = match fetch(goal, &holder, asks).await {
        Ok(End::Left) => Report::Left,
        Ok(End::Lacks | End::Unneeded) => Report::Gone("it has it no longer".to_owned()),
        Err(reason) => Report::Gone(reason),
    };
    let _ = reports.send((peer, report)).await;
}

async fn fetch(goal: Goal, holder: &Holder, asks: mpsc::Receiver<Ask>) -> Result<End, String> {
    let (reader, writer) = dial(&goal.membership, holder)
        .await
        .map_err(|error| error.to_string())?;
    Source::new(goal, holder.peer, writer)
        .run(reader, asks)
        .await
        .map_err(|error| match error.is_broken() {
            true => ConnectionError::Cut.to_string(),
            false => error.to_string(),
        })
}

struct Source {
    peer: PeerId,
    goal: Goal,
    place: Place,
    writer: Writer,
    begun: HashMap<u32, Assembly>,
    /// Requests that were cancelled, and how many bytes may still come of each.
    cancelled: BTreeMap<u32, usize>,
    last_request: u32,
    spare: Vec<Vec<u8>>,
    unwritten: usize,
    put: mpsc::UnboundedSender<Put>,
    written: mpsc::UnboundedReceiver<Put>,
    last_sign: Instant,
    /// Under a limit: what came last waits for its turn, and who is not read from sends no faster.
    passing: Option<Passing>,
}

/// Ends when something may pass.
type Passing = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Source {
    fn new(goal: Goal, peer: PeerId, writer: Writer) -> Self {
        let (put, written) = mpsc::unbounded_channel();
        Self {
            peer,
            place: goal.throttle.place(peer),
            goal,
            writer,
            begun: HashMap::new(),
            cancelled: BTreeMap::new(),
            last_request: 0,
            spare: Vec::new(),
            unwritten: 0,
            put,
            written,
            last_sign: Instant::now(),
            passing: None,
        }
    }

    async fn run(
        &mut self,
        mut reader: Reader,
        asks: mpsc::Receiver<Ask>,
    ) -> Result<End, ConnectionError> {
        let ended = match self.take_all(&mut reader, asks).await {
            Err(error) if error.is_broken() && is_ended(&mut reader).await => Ok(End::Left),
            ended => ended,
        };
        // What came last counts, too.
        while self.unwritten > 0
            && let Some(put) = self.written.recv().await
        {
            self.report_put(put).await;
        }
        ended
    }

    async fn take_all(
        &mut self,
        reader: &mut Reader,
        mut asks: mpsc::Receiver<Ask>,
    ) -> Result<End, ConnectionError> {
        if !self.open(reader).await? {
            return Ok(End::Lacks);
        }
        // Who only waits for pieces says nothing else, and would be taken for dead.
        let mut pings = tokio::time::interval(PING_AFTER);
        let mut signs = tokio::time::interval(SIGN_EVERY);
        signs.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pings.tick() => self.writer.send(&Frame::Ping).await?,
                Some(put) = self.written.recv() => self.report_put(put).await,
                ask = asks.recv() => match ask {
                    Some(ask) => self.ask(ask).await?,
                    None => {
                        self.writer.finish().await;
                        return Ok(End::Unneeded);
                    }
                },
                () = passed(&mut self.passing) => self.passing = None,
                // It is our limit that holds it up: it must not be taken for one that sends nothing.
                _ = signs.tick(), if self.passing.is_some() => self.report(Report::Sign).await,
                frame = reader.next(), if self.may_read() => {
                    let Some(frame) = frame? else {
                        return Ok(End::Left);
                    };
                    if !self.handle(frame).await? {
                        return Ok(End::Lacks);
                    }
                    if let Some(end) = self.handle_rest(reader).await? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    const fn may_read(&self) -> bool {
        self.unwritten < MAX_UNWRITTEN && self.passing.is_none()
    }

    /// Handles what came together with the last frame; tells whether that was the end.
    async fn handle_rest(&mut self, reader: &mut Reader) -> Result<Option<End>, ConnectionError> {
        while self.may_read() && reader.has_next() {
            let Some(frame) = reader.next().await? else {
                return Ok(Some(End::Left));
            };
            if !self.handle(frame).await? {
                return Ok(Some(End::Lacks));
            }
        }
        Ok(None)
    }

    /// `false` when the content is not here.
    async fn open(&mut self, reader: &mut Reader) -> Result<bool, ConnectionError> {
        self.writer
            .send(&Frame::Open {
                file: FILE,
                content: self.goal.target.content(),
            })
            .await?;
        let target = self.goal.target.clone();
        let answer = timeout(OPEN_TIME, reader.next())
            .await
            .map_err(|_| ConnectionError::Silent)??;
        let has = match answer {
            Some(Frame::Opened { opened, .. }) if opened.len != target.opened_len() => {
                return Err(ConnectionError::Violation(
                    "another length than it published",
                ));
            }
            Some(Frame::Opened { opened, .. }) => {
                let bits = opened.pieces.as_ref().map(|pieces| pieces.0.as_slice());
                target.pieces_at(bits)?
            }
            Some(Frame::Absent { .. }) | None => return Ok(false),
            Some(_) => return Err(ConnectionError::Violation("an answer to no question")),
        };
        self.report(Report::Connected(has)).await;
        Ok(true)
    }

    async fn ask(&mut self, ask: Ask) -> Result<(), ConnectionError> {
        match ask {
            Ask::Page(page) => {
                self.writer
                    .send(&Frame::AskHashes { file: FILE, page })
                    .await
            }
            Ask::Piece(piece, expected, instead) => {
                self.last_request = self.last_request.wrapping_add(1);
                let request = self.last_request;
                let frame = self.goal.target.ask(FILE, request, piece, &instead);
                let assembly = Assembly::new(&self.goal.target, piece, expected, instead);
                self.begun.insert(request, assembly);
                self.writer.send(&frame).await
            }
            Ask::Cancel(piece) => {
                if let Some((request, begun)) = self.take_begun(piece) {
                    let pieces = std::iter::once(begun.piece);
                    let pieces = pieces.chain(begun.instead.iter().map(|(piece, _)| *piece));
                    let len = pieces.map(|piece| self.goal.target.piece_len(piece)).max();
                    self.cancelled.insert(request, len.unwrap_or(0));
                    self.writer.send(&Frame::Cancel { request }).await?;
                }
                while self.cancelled.len() > MAX_CANCELLED {
                    self.cancelled.pop_first();
                }
                Ok(())
            }
        }
    }

    /// The request that the download knows by `piece`. When another piece came in the place of this one, it may have
    /// been asked for once more: the last one is meant.
    fn take_begun(&mut self, piece: PieceIndex) -> Option<(u32, Assembly)> {
        let is_meant = |begun: &Assembly| begun.piece == piece || begun.asked == piece;
        let meant = self.begun.iter().filter(|(_, begun)| is_meant(begun));
        let request = meant.map(|(request, _)| *request).max()?;
        self.begun.remove_entry(&request)
    }

    /// `false` when the source has the content no longer.
    async fn handle(&mut self, frame: Frame<'_>) -> Result<bool, ConnectionError> {
        match frame {
            Frame::Chunk {
                request,
                offset,
                is_last,
                bytes,
            } => {
                let len = bytes.len();
                self.goal.flow.note(len);
                if let Some((asked, chosen)) = self.note_choice(request, offset) {
                    self.report(Report::Chose(asked, chosen)).await;
                }
                if let Some(whole) = self.gather(request, offset, is_last, bytes)? {
                    self.write(whole).await;
                }
                self.goal.throttle.note(len);
                if self.goal.throttle.rate().is_some() {
                    let place = self.place.clone();
                    self.passing = Some(Box::pin(async move { place.pass(len).await }));
                }
                if self.last_sign.elapsed() >= SIGN_EVERY {
                    self.last_sign = Instant::now();
                    self.report(Report::Sign).await;
                }
            }
            Frame::Hashes { page, hashes, .. } => {
                let hashes = hashes.to_vec();
                self.report(Report::Page(page, hashes)).await;
            }
            Frame::Ping => self.writer.send(&Frame::Pong).await?,
            Frame::Pong => {}
            Frame::Have { pieces, .. } => {
                let pieces = self.goal.target.pieces_named(&pieces);
                let beyond = ConnectionError::Violation("a piece beyond the end");
                self.report(Report::Has(pieces.ok_or(beyond)?)).await;
            }
            Frame::Absent { .. } => return Ok(false),
            _ => return Err(ConnectionError::Violation("a question to the downloader")),
        }
        Ok(true)
    }

    fn note_choice(&mut self, request: u32, offset: u64) -> Option<(PieceIndex, PieceIndex)> {
        let begun = self.begun.get_mut(&request)?;
        begun.choose(&self.goal.target, offset)
    }

    /// Puts a chunk in its place; the assembly when the piece is whole.
    fn gather(
        &mut self,
        request: u32,
        offset: u64,
        is_last: bool,
        chunk: &[u8],
    ) -> Result<Option<Assembly>, ConnectionError> {
        if let Some(left) = self.cancelled.get_mut(&request) {
            // What was on the way still comes, but no more than the piece had.
            *left = left
                .checked_sub(chunk.len())
                .ok_or(ConnectionError::Violation("a piece without end"))?;
            if is_last {
                self.cancelled.remove(&request);
            }
            return Ok(None);
        }
        let begun = self
            .begun
            .values()
            .filter(|begun| !begun.bytes.is_empty())
            .count();
        let target = &self.goal.target;
        let assembly = self
            .begun
            .get_mut(&request)
            .ok_or(ConnectionError::Violation("a piece nobody asked for"))?;
        if assembly.bytes.is_empty() {
            if begun >= MAX_BEGUN {
                return Err(ConnectionError::Violation("too many pieces at a time"));
            }
            assembly.bytes = self.spare.pop().unwrap_or_default();
            assembly.bytes.clear();
        }
        let is_whole = assembly.add(target, offset, is_last, chunk)?;
        Ok(if is_whole {
            self.begun.remove(&request)
        } else {
            None
        })
    }

    /// Has a piece written, if it is right.
    async fn write(&mut self, assembly: Assembly) {
        let Assembly {
            piece,
            expected,
            hasher,
            bytes,
            gaps,
            ..
        } = assembly;
        if hasher.is_some_and(|hasher| hasher.finish() != expected) {
            return self.report(Report::WrongPiece).await;
        }
        self.unwritten += 1;
        let came = Came { bytes, gaps };
        self.goal.puts.put(piece, came, expected, self.put.clone());
    }

    async fn report_put(&mut self, put: Put) {
        self.unwritten -= 1;
        let piece = put.piece;
        self.spare.push(put.bytes);
        self.report(match put.result {
            Ok(Verdict::Right) => Report::Piece(piece),
            Ok(Verdict::Wrong) => Report::WrongPiece,
            Ok(Verdict::Short(files)) => Report::Lacks(piece, files),
            Err(error) => Report::Disk(piece, error),
        })
        .await;
    }

    async fn report(&mut self, report: Report) {
        let _ = self.goal.reports.send((self.peer, report)).await;
    }
}

/// Nothing can be written to a source: did it end the connection as it should? What it said before is still
/// to be read, and of no use.
async fn is_ended(reader: &mut Reader) -> bool {
    let last_words = async {
        loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    };
    timeout(LAST_WORDS, last_words).await.unwrap_or(false)
}

/// Until what came last may pass, or for ever when nothing waits.
async fn passed(passing: &mut Option<Passing>) {
    match passing {
        Some(passing) => passing.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
