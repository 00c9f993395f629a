//! Drives one swarm: sources on one side, the store on the other.
//!
//! The swarm decides; this file dials, asks, and tells people how far it is. A download ends with the
//! whole file under its final name, or with nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use tokio_util::task::TaskTracker;

use super::control::Control;
use super::event::{DownloadError, Event, Progress, RequestError};
use super::listing::holders;
use super::membership::Membership;
use super::shares::Shares;
use super::source::{self, Ask, Goal, Report};
use super::store::{Partial, StoreError, write_at};
use super::{Downloaded, Wanted};
use crate::crypto::content::{PartialTree, hash_piece};
use crate::disk::survive_size_limit;
use crate::proto::backoff::{Backoff, Retry};
use crate::proto::swarm::{Arrival, Swarm};
use crate::wire::control::Holder;
use crate::wire::id::{ContentId, PeerId};
use crate::wire::pieces::{Layout, PieceIndex};
use crate::wire::text::UserName;
use crate::wire::transfer::HashPage;

/// Sources at the same time.
const MAX_SOURCES: usize = 16;
/// Reports and asks that may wait.
const QUEUE: usize = 64;
/// How often stalls are looked for and progress is told.
const TICK: Duration = Duration::from_millis(250);
/// While it runs, new sources are asked for this often.
const LOCATE_EVERY: Duration = Duration::from_secs(5);
/// A source that went is dialled again after this long.
const REDIAL_AFTER: Duration = Duration::from_secs(3);
/// A download that has begun is not given up before nothing came for so long: networks come back.
const OUTAGE: Duration = Duration::from_secs(30);
/// A page of hashes that does not come is asked of somebody else after this long.
const PAGE_PATIENCE: Duration = Duration::from_secs(2);

/// What downloads of a peer work with.
#[derive(Clone, Debug)]
pub struct Downloads {
    /// Who has what.
    pub control: Control,
    /// What we greet with.
    pub membership: Membership,
    /// What is here already.
    pub shares: Shares,
    /// What names begin with.
    pub prefix: String,
    /// How often to try.
    pub retry: Retry,
    /// Where to tell what happens.
    pub events: mpsc::Sender<Event>,
}

impl Downloads {
    /// Fetches `wanted` into `dir`. Dropping the future gives up and leaves nothing behind.
    ///
    /// # Errors
    /// When no source delivers it, or it cannot be written.
    pub async fn fetch(&self, wanted: &Wanted, dir: &Path) -> Result<Downloaded, DownloadError> {
        survive_size_limit();
        let started = Instant::now();
        let (file, name) = (&wanted.file, &wanted.file.name);
        let layout =
            Layout::new(file.len).map_err(|_| DownloadError::Corrupt { name: name.clone() })?;
        let (place, content) = (dir.to_owned(), file.content);
        let partial = blocking(move || Partial::create(&place, content, layout, rand::random()))
            .await?
            .map_err(local)?;
        let sources = if layout.is_empty() {
            let is_right = content.0 == *blake3::hash(b"").as_bytes();
            if !is_right {
                return Err(DownloadError::Corrupt { name: name.clone() });
            }
            0
        } else if self.copy_own(content, layout, &partial).await? {
            0
        } else {
            Driver::new(self, wanted, layout, &partial).run().await?
        };
        let (prefix, name) = (self.prefix.clone(), name.clone());
        let path = blocking(move || partial.finish(&prefix, &name))
            .await?
            .map_err(local)?;
        Ok(Downloaded {
            path,
            file: file.clone(),
            elapsed: started.elapsed(),
            sources,
        })
    }

    /// Takes a content that we share ourselves from there. Each piece is verified all the same: the file
    /// may be changing under our hands.
    async fn copy_own(
        &self,
        content: ContentId,
        layout: Layout,
        partial: &Partial,
    ) -> Result<bool, DownloadError> {
        let (shares, file) = (self.shares.clone(), partial.file());
        let copying = blocking(move || -> io::Result<bool> {
            let Some(serving) = shares.open(&content) else {
                return Ok(false);
            };
            let tree = serving.tree();
            // Somebody may have published our content with a length that it does not have.
            if tree.layout() != layout {
                return Ok(false);
            }
            let mut buffer = Vec::new();
            for piece in layout.pieces() {
                buffer.resize(layout.piece_len(piece), 0);
                let is_read = serving.read_at(&mut buffer, layout.offset(piece)).is_ok();
                if !is_read || tree.hash_of(piece) != Some(hash_piece(layout, piece, &buffer)) {
                    return Ok(false);
                }
                write_at(&file, &buffer, layout.offset(piece))?;
            }
            Ok(true)
        });
        copying
            .await?
            .map_err(|error| disk_error(PathBuf::from("."), &error))
    }
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DownloadError> {
    spawn_blocking(job)
        .await
        .map_err(|error| DownloadError::Local {
            path: PathBuf::from("."),
            reason: error.to_string(),
        })
}

fn local(error: StoreError) -> DownloadError {
    DownloadError::Local {
        path: error.path,
        reason: error.reason,
    }
}

fn disk_error(path: PathBuf, error: &io::Error) -> DownloadError {
    DownloadError::Local {
        path,
        reason: super::store::explain(error),
    }
}

/// A source that is being dialled or connected; its task ends with it.
struct Link {
    user: UserName,
    asks: mpsc::Sender<Ask>,
    is_connected: bool,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the tracker says about who has the content.
type Found = Result<Vec<Holder>, RequestError>;

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        if let Some(locating) = &self.locating {
            locating.abort();
        }
    }
}

struct Driver<'a> {
    downloads: &'a Downloads,
    wanted: &'a Wanted,
    layout: Layout,
    goal: Goal,
    reports: mpsc::Receiver<(PeerId, Report)>,
    swarm: Swarm,
    tree: PartialTree,
    links: BTreeMap<PeerId, Link>,
    /// When a source may be dialled again.
    resting: HashMap<PeerId, Instant>,
    /// Pieces that wait for their page of hashes, and of whom they are to be asked.
    held: Vec<(PeerId, PieceIndex)>,
    pages_asked: HashMap<HashPage, (PeerId, Instant)>,
    delivered_by: BTreeSet<PeerId>,
    backoff: Backoff,
    /// When the latest piece came.
    last_piece: Option<Instant>,
    next_locate: Instant,
    /// The question under way. It never holds up the transfer: a lost tracker takes seconds to answer.
    locating: Option<JoinHandle<Found>>,
    /// Whom the last answer named.
    found: Vec<PeerId>,
    /// The attempt failed and the next one begins at `next_locate`.
    is_resting: bool,
    meter: Meter,
    last_failure: String,
    is_waiting: bool,
}

impl<'a> Driver<'a> {
    fn new(
        downloads: &'a Downloads,
        wanted: &'a Wanted,
        layout: Layout,
        partial: &Partial,
    ) -> Self {
        let (sender, reports) = mpsc::channel(QUEUE);
        let goal = Goal {
            membership: downloads.membership.clone(),
            content: wanted.file.content,
            layout,
            file: partial.file(),
            reports: sender,
            checks: TaskTracker::new(),
        };
        Self {
            downloads,
            wanted,
            layout,
            goal,
            reports,
            swarm: Swarm::new(layout, rand::random()),
            tree: PartialTree::new(layout, wanted.file.content),
            links: BTreeMap::new(),
            resting: HashMap::new(),
            held: Vec::new(),
            pages_asked: HashMap::new(),
            delivered_by: BTreeSet::new(),
            backoff: Backoff::new(downloads.retry.clone()),
            last_piece: None,
            next_locate: Instant::now(),
            locating: None,
            found: Vec::new(),
            is_resting: true,
            meter: Meter::new(Instant::now()),
            last_failure: "nobody has it now".to_owned(),
            is_waiting: false,
        }
    }

    /// Until everything is here; how many peers delivered.
    async fn run(mut self) -> Result<usize, DownloadError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.swarm.is_complete() {
            if self.links.is_empty() && self.locating.is_none() && !self.is_resting {
                self.attempt_failed()?;
            }
            if self.next_locate <= Instant::now() && self.links.len() < MAX_SOURCES {
                self.locate();
            }
            tokio::select! {
                Some((peer, report)) = self.reports.recv() => self.handle(peer, report).await?,
                found = answer(&mut self.locating) => {
                    self.locating = None;
                    self.handle_found(found);
                }
                _ = ticks.tick() => self.tick().await,
            }
        }
        self.tell_progress();
        // A copy that came second may still be on its way to the disk.
        self.goal.checks.close();
        self.goal.checks.wait().await;
        Ok(self.delivered_by.len())
    }

    /// Asks who has the content, unless that is asked already.
    fn locate(&mut self) {
        if self.locating.is_none() {
            let (control, content) = (self.downloads.control.clone(), self.wanted.file.content);
            self.locating = Some(tokio::spawn(
                async move { holders(&control, content).await },
            ));
            self.is_resting = false;
        }
    }

    fn handle_found(&mut self, found: Found) {
        let now = Instant::now();
        self.next_locate = now + LOCATE_EVERY;
        match found {
            Ok(holders) => self.dial(now, holders),
            Err(error) => self.last_failure = error.to_string(),
        }
    }

    /// Nobody is dialled or connected: tries again after a while, waits, or gives up.
    fn attempt_failed(&mut self) -> Result<(), DownloadError> {
        if self.knows_only_liars() {
            return Err(self.give_up());
        }
        let now = Instant::now();
        self.is_resting = true;
        // The next attempt dials whoever is there, also those who went a moment ago.
        self.resting.clear();
        match self.backoff.fail(rand::random()) {
            Some(wait) => self.next_locate = now + wait,
            None if self.wanted.waits => {
                self.next_locate = now + LOCATE_EVERY;
                self.tell_waiting();
            }
            None if self.is_fresh(now) => self.next_locate = now + REDIAL_AFTER,
            None => return Err(self.give_up()),
        }
        Ok(())
    }

    /// Did anything come lately?
    fn is_fresh(&self, now: Instant) -> bool {
        self.last_piece
            .is_some_and(|at| now.saturating_duration_since(at) < OUTAGE)
    }

    fn dial(&mut self, now: Instant, mut holders: Vec<Holder>) {
        if holders.is_empty() {
            "nobody has it now".clone_into(&mut self.last_failure);
        }
        self.found = holders.iter().map(|holder| holder.peer).collect();
        holders.retain(|holder| {
            let is_meant = self.wanted.from.is_none_or(|from| from == holder.peer);
            let may_dial = self
                .resting
                .get(&holder.peer)
                .is_none_or(|until| *until <= now);
            is_meant
                && may_dial
                && holder.len == self.layout.len()
                && !self.swarm.is_liar(&holder.peer)
        });
        for holder in holders {
            if self.links.len() >= MAX_SOURCES {
                return;
            }
            if self.links.contains_key(&holder.peer) {
                continue;
            }
            let (peer, user) = (holder.peer, holder.user.clone());
            let (asks, receiver) = mpsc::channel(QUEUE);
            let task =
                tokio::spawn(source::run(self.goal.clone(), holder, receiver)).abort_handle();
            self.links.insert(
                peer,
                Link {
                    user,
                    asks,
                    is_connected: false,
                    task,
                },
            );
        }
    }

    async fn handle(&mut self, peer: PeerId, report: Report) -> Result<(), DownloadError> {
        let now = Instant::now();
        match report {
            Report::Connected(has) => {
                self.swarm.add_source(now, peer, has);
                if let Some(link) = self.links.get_mut(&peer) {
                    link.is_connected = true;
                }
                self.is_waiting = false;
                self.feed(now, peer).await;
            }
            Report::Sign => self.swarm.note_sign(now, &peer),
            Report::Page(page, hashes) => {
                self.swarm.note_sign(now, &peer);
                self.pages_asked.remove(&page);
                match self.tree.insert(page, &hashes) {
                    Ok(()) => self.ask_held(now).await,
                    Err(error) => self.drop_liar(peer, &error.to_string()),
                }
            }
            Report::Piece(piece) => {
                self.backoff.succeed();
                self.last_piece = Some(now);
                self.delivered_by.insert(peer);
                if let Arrival::New(others) = self.swarm.piece_arrived(now, &peer, piece) {
                    self.meter.add(self.layout.piece_len(piece));
                    for other in others {
                        self.send(other, Ask::Cancel(piece)).await;
                    }
                }
                self.feed(now, peer).await;
            }
            Report::WrongPiece => self.drop_liar(peer, "it sent wrong data"),
            Report::Disk(error) => return Err(disk_error(self.wanted_path(), &error)),
            Report::Gone(reason) => self.lose(now, peer, reason),
        }
        self.feed_idle(now).await;
        Ok(())
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        for (peer, piece) in self.swarm.handle_timeout(now) {
            self.send(peer, Ask::Cancel(piece)).await;
        }
        for peer in self.swarm.silent(now) {
            self.lose(now, peer, "it sends nothing".to_owned());
        }
        self.feed_idle(now).await;
        self.ask_held(now).await;
        self.meter.tick(now);
        self.tell_progress();
    }

    /// Asks `peer` for as much as it shall have to do.
    async fn feed(&mut self, now: Instant, peer: PeerId) {
        while let Some(piece) = self.swarm.next_request(now, &peer) {
            self.ask_piece(now, peer, piece).await;
        }
    }

    async fn feed_idle(&mut self, now: Instant) {
        let connected = self.links.iter().filter(|(_, link)| link.is_connected);
        for peer in connected.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.feed(now, peer).await;
        }
    }

    async fn ask_piece(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) {
        if let Some(expected) = self.tree.expected(piece).copied() {
            self.send(peer, Ask::Piece(piece, expected)).await;
            return;
        }
        self.held.push((peer, piece));
        let Some(page) = self.tree.missing_page(piece) else {
            return;
        };
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < PAGE_PATIENCE;
        let asked = match self.pages_asked.get(&page) {
            Some((_, at)) if is_fresh(*at) => return,
            // Whoever left it unanswered is not asked again before all others were.
            Some((last, _)) => self.next_source_after(*last).unwrap_or(peer),
            None => peer,
        };
        self.pages_asked.insert(page, (asked, now));
        self.send(asked, Ask::Page(page)).await;
    }

    /// The connected source that follows `last` in a round of all.
    fn next_source_after(&self, last: PeerId) -> Option<PeerId> {
        let connected = || {
            self.links
                .iter()
                .filter(|(_, link)| link.is_connected)
                .map(|(peer, _)| *peer)
        };
        connected()
            .find(|peer| *peer > last)
            .or_else(|| connected().next())
    }

    /// Goes through the pieces that waited for hashes.
    async fn ask_held(&mut self, now: Instant) {
        for (peer, piece) in std::mem::take(&mut self.held) {
            if self.swarm.owes(&peer, piece) {
                self.ask_piece(now, peer, piece).await;
            }
        }
    }

    async fn send(&mut self, peer: PeerId, ask: Ask) {
        if let Some(link) = self.links.get(&peer) {
            // A source that ended has reported it, or will.
            let _ = link.asks.send(ask).await;
        }
    }

    fn lose(&mut self, now: Instant, peer: PeerId, reason: String) {
        self.swarm.remove_source(&peer);
        self.pages_asked.retain(|_, (asked, _)| *asked != peer);
        let Some(link) = self.links.remove(&peer) else {
            return;
        };
        self.resting.insert(peer, now + REDIAL_AFTER);
        self.last_failure = format!("{}: {reason}", link.user);
        if link.is_connected && !self.swarm.is_complete() {
            self.tell_dropped(link.user.clone(), reason);
        }
    }

    fn drop_liar(&mut self, peer: PeerId, reason: &str) {
        self.swarm.piece_was_wrong(&peer);
        self.pages_asked.retain(|_, (asked, _)| *asked != peer);
        if let Some(link) = self.links.remove(&peer) {
            self.tell_dropped(link.user.clone(), reason.to_owned());
        }
    }

    fn give_up(&self) -> DownloadError {
        let name = self.wanted.file.name.clone();
        let nobody_was_honest = self.swarm.liar_count() > 0 && self.delivered_by.is_empty();
        if nobody_was_honest || self.knows_only_liars() {
            return DownloadError::Corrupt { name };
        }
        DownloadError::NoSource {
            name,
            reason: self.last_failure.clone(),
        }
    }

    fn knows_only_liars(&self) -> bool {
        !self.found.is_empty() && self.found.iter().all(|peer| self.swarm.is_liar(peer))
    }

    fn wanted_path(&self) -> PathBuf {
        self.wanted
            .directory
            .clone()
            .unwrap_or_else(|| PathBuf::from(self.wanted.file.name.to_string()))
    }

    fn tell_dropped(&self, user: UserName, reason: String) {
        self.tell(Event::SourceDropped {
            name: self.wanted.file.name.clone(),
            user,
            reason,
        });
    }

    fn tell_waiting(&mut self) {
        if !self.is_waiting {
            self.is_waiting = true;
            let (name, reason) = (self.wanted.file.name.clone(), self.last_failure.clone());
            self.tell(Event::Waiting { name, reason });
        }
    }

    fn tell_progress(&self) {
        self.tell(Event::Progress(Progress {
            content: self.wanted.file.content,
            name: self.wanted.file.name.clone(),
            done: self.swarm.done_bytes(),
            len: self.layout.len(),
            rate: self.meter.rate,
            sources: self.swarm.sending_count(),
        }));
    }

    /// Events are for people: when nobody reads them they are dropped, never waited for.
    fn tell(&self, event: Event) {
        let _ = self.downloads.events.try_send(event);
    }
}

/// Bytes a second, over about the last two seconds.
struct Meter {
    bytes: u64,
    rate: u64,
    measured_at: Instant,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self {
            bytes: 0,
            rate: 0,
            measured_at: now,
        }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn tick(&mut self, now: Instant) {
        let passed = now
            .saturating_duration_since(self.measured_at)
            .as_millis()
            .max(1);
        let latest = u64::try_from(u128::from(self.bytes) * 1000 / passed).unwrap_or(u64::MAX);
        self.rate = if self.rate == 0 {
            latest
        } else {
            (self.rate / 8).saturating_mul(7) + latest / 8
        };
        (self.bytes, self.measured_at) = (0, now);
    }
}

/// The answer, or never when nothing was asked.
async fn answer(locating: &mut Option<JoinHandle<Found>>) -> Found {
    match locating {
        Some(locating) => locating.await.unwrap_or(Err(RequestError::NoAnswer)),
        None => std::future::pending().await,
    }
}
