//! Drives one swarm: sources on one side, what is here of its target on the other.
//!
//! The swarm decides; this file dials, asks, and tells people how far it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{AbortHandle, JoinError, JoinHandle, spawn_blocking};

use super::Wanted;
use super::control::Control;
use super::download::{Announcement, DISK_PATIENCE, Downloads};
use super::event::{DownloadError, Event, Progress, RequestError};
use super::listing::{holders, search};
use super::puts::Puts;
use super::source::{self, Ask, Goal, Report};
use super::store::{PART_IS_GONE, explain, is_lasting};
use super::target::{Synced, Target};
use super::transfers::{Handle, State};
use crate::crypto::content::Hash;
use crate::disk;
use crate::proto::backoff::Backoff;
use crate::proto::meter::Meter;
use crate::proto::swarm::{Arrival, Swarm};
use crate::wire::control::{Hit, Holder, Publication, PublicationKind};
use crate::wire::id::{ContentId, PeerId};
use crate::wire::pieces::{PIECE_LEN, PieceIndex};
use crate::wire::text::{FileName, UserName};
use crate::wire::transfer::HashPage;

/// Sources at the same time.
const MAX_SOURCES: usize = 16;
/// Reports that may wait.
const QUEUE: usize = 64;
/// Asks that may wait for one source: several times what it may owe.
const ASKS: usize = 256;
/// How often stalls are looked for and progress is told.
const TICK: Duration = Duration::from_millis(250);
/// While it runs, new sources are asked for: soon in the beginning, when a crowd gathers, then less often.
const FIRST_LOCATE: Duration = Duration::from_millis(500);
const LOCATE_EVERY: Duration = Duration::from_secs(5);
/// A source that went is dialled again after this long.
const REDIAL_AFTER: Duration = Duration::from_secs(3);
/// A download that has begun is not given up before nothing came for so long: networks come back.
const OUTAGE: Duration = Duration::from_secs(30);
/// People are told when for so long no source has anything that is missing.
const STARVED: Duration = Duration::from_secs(3);
/// One that had nothing to offer, after this long.
const REST_OF_USELESS: Duration = Duration::from_secs(30);
/// A page of hashes that does not come is asked of everybody after this long.
const PAGE_PATIENCE: Duration = Duration::from_secs(2);
/// Hits that are looked through for another content of one name.
const MAX_NAMESAKES: usize = 100;
/// What came is made durable this often.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// A disk that took nothing is tried again after this long, when so much is free.
const DISK_PAUSE: Duration = Duration::from_secs(2);
const MIN_FREE: u64 = 4 * PIECE_LEN;

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
type Found = Result<Located, RequestError>;

/// Who has a content.
#[derive(Debug)]
struct Located {
    holders: Vec<Holder>,
    /// When nobody else has all of it: what bears its name now.
    now: Option<ContentId>,
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        if let Some(locating) = &self.locating {
            locating.abort();
        }
    }
}

/// The download that something is fetched for.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// What people wanted; whoever publishes it has what is fetched.
    pub wanted: &'a Wanted,
    /// Where it goes.
    pub dir: &'a Path,
    /// Where it is shown.
    pub handle: &'a Handle,
    /// Bytes of it that are here besides what is fetched.
    pub before: u64,
    /// All its bytes.
    pub whole: u64,
}

/// Drives the swarm of one target.
pub struct Driver<'a> {
    downloads: &'a Downloads,
    job: Job<'a>,
    target: Target,
    goal: Goal,
    reports: mpsc::Receiver<(PeerId, Report)>,
    swarm: Swarm,
    links: BTreeMap<PeerId, Link>,
    /// When a source may be dialled again.
    resting: HashMap<PeerId, Instant>,
    /// Pieces that wait for their page of hashes, and of whom they are to be asked.
    held: Vec<(PeerId, PieceIndex)>,
    pages_asked: HashMap<HashPage, (PeerId, Instant)>,
    delivered_by: BTreeSet<PeerId>,
    backoff: Backoff,
    /// Since when no source has anything that is missing.
    starved_since: Option<Instant>,
    /// When the latest piece came.
    last_piece: Option<Instant>,
    next_locate: Instant,
    locate_every: Duration,
    /// The question under way. It never holds up the transfer: a lost tracker takes seconds to answer.
    locating: Option<JoinHandle<Found>>,
    /// Whom the last answer named.
    found: Vec<PeerId>,
    /// The attempt failed and the next one begins at `next_locate`.
    is_resting: bool,
    meter: Meter,
    last_failure: String,
    /// What bears the name of what is fetched, which nobody has any more.
    successor: Option<ContentId>,
    is_waiting: bool,
    trouble: Option<Trouble>,
    next_sync: Instant,
    syncing: Option<JoinHandle<Synced>>,
    announcement: Option<Announcement>,
}

/// The disk takes nothing.
struct Trouble {
    since: Instant,
    is_full: bool,
    /// A piece was written since; when that is durable, too, the trouble is over.
    has_written: bool,
}

/// What came from others, and what keeps the content offered until it is shared as a whole.
#[derive(Debug, Default)]
pub struct Driven {
    /// Bytes that came.
    pub fetched: u64,
    /// Peers that sent some of it.
    pub sources: usize,
    /// Dropped when others need to know no longer that it is here.
    pub announcement: Option<Announcement>,
}

impl<'a> Driver<'a> {
    /// Nobody is asked yet.
    #[must_use]
    pub fn new(downloads: &'a Downloads, job: Job<'a>, target: Target) -> Self {
        let now = Instant::now();
        let (sender, reports) = mpsc::channel(QUEUE);
        let goal = Goal {
            membership: downloads.membership.clone(),
            target: target.clone(),
            throttle: downloads.throttle.clone(),
            reports: sender,
            puts: Puts::new(target.clone()),
        };
        Self {
            downloads,
            job,
            goal,
            reports,
            swarm: Swarm::new(target.layout(), rand::random(), target.here()),
            target,
            links: BTreeMap::new(),
            resting: HashMap::new(),
            held: Vec::new(),
            pages_asked: HashMap::new(),
            delivered_by: BTreeSet::new(),
            backoff: Backoff::new(downloads.retry.clone()),
            starved_since: None,
            last_piece: None,
            next_locate: now,
            locate_every: FIRST_LOCATE,
            locating: None,
            found: Vec::new(),
            is_resting: true,
            meter: Meter::new(now),
            last_failure: "nobody has it now".to_owned(),
            successor: None,
            is_waiting: false,
            trouble: None,
            next_sync: now + SYNC_EVERY,
            syncing: None,
            announcement: None,
        }
    }

    /// Until everything is here, and on disk for good.
    ///
    /// # Errors
    /// When nobody delivers, or the disk does not take it, and the wish is not to wait; when cancelled.
    pub async fn run(mut self) -> Result<Driven, DownloadError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let before = self.target.done_len();
        if before > 0 && !self.swarm.is_complete() {
            self.announce();
        }
        while !self.is_done().await? {
            let is_idle = self.links.is_empty() && self.locating.is_none();
            if is_idle && !self.is_resting && !self.swarm.is_complete() {
                self.attempt_failed()?;
            }
            if self.next_locate <= Instant::now() && self.may_locate() {
                self.locate();
            }
            tokio::select! {
                Some((peer, report)) = self.reports.recv() => self.handle(peer, report)?,
                found = answer(&mut self.locating) => {
                    self.locating = None;
                    self.handle_found(found);
                }
                synced = outcome(&mut self.syncing) => {
                    self.syncing = None;
                    let synced = synced.map_err(|_| self.broke_off())?;
                    self.handle_synced(synced)?;
                }
                _ = ticks.tick() => self.tick()?,
            }
        }
        self.tell_progress();
        Ok(Driven {
            fetched: self.target.done_len().saturating_sub(before),
            sources: self.delivered_by.len(),
            announcement: self.announcement.take(),
        })
    }

    /// Is all here, and durable? What is not durable yet is made so.
    async fn is_done(&mut self) -> Result<bool, DownloadError> {
        if !self.swarm.is_complete() || self.syncing.is_some() {
            return Ok(false);
        }
        self.links.clear();
        // A copy that came second may still be on its way to the disk.
        self.goal.puts.wait().await;
        let target = self.target.clone();
        let synced = spawn_blocking(move || target.sync()).await;
        let synced = synced.map_err(|_| self.broke_off())?;
        self.handle_synced(synced)?;
        Ok(self.swarm.is_complete())
    }

    fn may_locate(&self) -> bool {
        !self.swarm.is_complete()
    }

    /// Lets go of all sources; what they owed is free again.
    fn let_go(&mut self) {
        if let Some(locating) = self.locating.take() {
            locating.abort();
        }
        self.links.clear();
        self.swarm.remove_sources();
        self.held.clear();
        self.pages_asked.clear();
        self.resting.clear();
    }

    /// Others may have what is here.
    fn announce(&mut self) {
        let Target::Content(growing) = &self.target else {
            return;
        };
        let file = &self.job.wanted.file;
        // Whoever has no more of a folder than its listing does not have the folder.
        let is_published = growing.content() == file.content && file.kind == PublicationKind::File;
        if self.downloads.seeds && is_published && self.announcement.is_none() {
            self.announcement = Some(self.downloads.announce(file.clone(), growing));
            // A crowd that began together is offered together.
            self.locate_every = FIRST_LOCATE;
            self.next_locate = self.next_locate.min(Instant::now() + FIRST_LOCATE);
        }
    }

    fn handle_synced(&mut self, synced: Synced) -> Result<(), DownloadError> {
        self.next_sync = Instant::now() + SYNC_EVERY;
        match synced {
            Ok(0) => Ok(()),
            Ok(_) => {
                if self
                    .trouble
                    .take_if(|trouble| trouble.has_written)
                    .is_some()
                {
                    self.is_waiting = false;
                }
                Ok(())
            }
            Err((error, lost)) => {
                self.swarm.forget(lost);
                self.disk_failed(&error)
            }
        }
    }

    /// A bug: there is no telling what is on disk.
    fn broke_off(&self) -> DownloadError {
        DownloadError::Local {
            path: self.job.dir.to_owned(),
            reason: "the work on it broke off; download it again".to_owned(),
        }
    }

    /// Nothing is fetched that the disk does not take. It is tried again, with a few pieces, until it does.
    fn disk_failed(&mut self, error: &io::Error) -> Result<(), DownloadError> {
        let now = Instant::now();
        self.let_go();
        self.is_resting = true;
        self.next_locate = now + DISK_PAUSE;
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        let reason = explain(error);
        let path = self.job.dir.to_owned();
        if self.target.is_removed() {
            let reason = PART_IS_GONE.to_owned();
            return Err(DownloadError::Local { path, reason });
        }
        let is_over = is_lasting(error) || now.saturating_duration_since(since) >= DISK_PATIENCE;
        if is_over && !self.job.wanted.waits {
            return Err(DownloadError::Local { path, reason });
        }
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        let is_full = full.contains(&error.kind());
        self.trouble = Some(Trouble {
            since,
            is_full,
            has_written: false,
        });
        let reason = format!("cannot write to {}: {reason}", self.job.dir.display());
        self.tell_waiting(reason, |name, reason| Event::Stuck { name, reason });
        Ok(())
    }

    /// A full disk is not tried before there is room again.
    fn is_disk_full(&self) -> bool {
        let is_full = self.trouble.as_ref().is_some_and(|trouble| trouble.is_full);
        let need = self.target.whole_len() - self.target.done_len();
        is_full && disk::free_space(self.job.dir).is_ok_and(|free| free < MIN_FREE.min(need))
    }

    /// Asks who has the content, unless that is asked already.
    fn locate(&mut self) {
        if self.is_disk_full() {
            self.next_locate = Instant::now() + DISK_PAUSE;
        } else if self.locating.is_none() {
            self.count_unreported();
            let (control, file) = (self.downloads.control.clone(), self.job.wanted.file.clone());
            let own = self.downloads.membership.local().identity.id();
            let is_starved = self.starved_since.is_some();
            self.locating = Some(tokio::spawn(async move {
                let holders = holders(&control, file.content).await?;
                let is_alone = holders.iter().all(|holder| holder.peer == own);
                let now = if is_alone || is_starved {
                    successor(&control, &file).await
                } else {
                    None
                };
                Ok(Located { holders, now })
            }));
            self.is_resting = false;
        }
    }

    /// Pieces that were on their way to the disk when their sources were let go of.
    fn count_unreported(&mut self) {
        if self.trouble.is_some() {
            let (now, nobody) = (Instant::now(), self.downloads.control.tracker());
            for piece in self.target.here().iter() {
                let _ = self.swarm.piece_arrived(now, &nobody, piece);
            }
        }
    }

    fn handle_found(&mut self, found: Found) {
        let now = Instant::now();
        self.next_locate = now + self.locate_every;
        self.locate_every = (self.locate_every * 2).min(LOCATE_EVERY);
        match found {
            Ok(located) => {
                self.dial(now, located.holders);
                self.note_successor(located.now);
            }
            Err(error) => self.last_failure = error.to_string(),
        }
    }

    /// What bears the name now is another content: this one was taken back.
    fn note_successor(&mut self, now: Option<ContentId>) {
        if now.is_some() && self.successor != now {
            // A reason that people did not hear yet.
            self.is_waiting = false;
        }
        self.successor = now;
        if let Some(content) = now {
            let name = &self.job.wanted.file.name;
            let digits = &content.to_hex()[..ContentId::SHORT_LEN / 2];
            let choice = shell_words::join([format!("{name}#{digits}")]);
            self.last_failure = format!(
                "nobody has all of this version any more; {name} is {} now: download {choice} gets it",
                content.short()
            );
        }
    }

    /// Nobody is dialled or connected: tries again after a while, waits, or gives up.
    fn attempt_failed(&mut self) -> Result<(), DownloadError> {
        let now = Instant::now();
        self.is_resting = true;
        // The next attempt dials whoever is there, also those who went a moment ago.
        self.resting.clear();
        match self.backoff.fail(rand::random()) {
            Some(wait) => self.next_locate = now + wait,
            // An honest one may have been silent for a moment; not for all attempts.
            None if self.knows_only_liars() => return Err(self.give_up()),
            None if self.job.wanted.waits => {
                self.next_locate = now + LOCATE_EVERY;
                let reason = self.last_failure.clone();
                self.tell_waiting(reason, |name, reason| Event::Waiting { name, reason });
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
        let own = self.downloads.membership.local().identity.id();
        holders.retain(|holder| holder.peer != own);
        if holders.is_empty() {
            "nobody has it now".clone_into(&mut self.last_failure);
        }
        self.found = holders.iter().map(|holder| holder.peer).collect();
        let liars = &self.downloads.liars;
        for liar in holders.extract_if(.., |holder| liars.has(now, &holder.peer)) {
            self.last_failure = format!("{} sent wrong data less than an hour ago", liar.user);
        }
        holders.retain(|holder| {
            let is_meant = self.job.wanted.from.is_none_or(|from| from == holder.peer);
            let may_dial = self
                .resting
                .get(&holder.peer)
                .is_none_or(|until| *until <= now);
            is_meant
                && may_dial
                && holder.len == self.job.wanted.file.len
                && !self.swarm.is_liar(&holder.peer)
        });
        for holder in holders {
            if self.links.contains_key(&holder.peer) {
                continue;
            }
            if self.links.len() >= MAX_SOURCES && !self.make_room(now) {
                return;
            }
            let (peer, user) = (holder.peer, holder.user.clone());
            let (asks, receiver) = mpsc::channel(ASKS);
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

    /// Lets go of a source that has nothing that is missing here.
    fn make_room(&mut self, now: Instant) -> bool {
        let Some(useless) = self.swarm.useless(now) else {
            return false;
        };
        self.swarm.remove_source(&useless);
        self.resting.insert(useless, now + REST_OF_USELESS);
        self.links.remove(&useless).is_some()
    }

    fn handle(&mut self, peer: PeerId, report: Report) -> Result<(), DownloadError> {
        let now = Instant::now();
        match report {
            Report::Connected(has) => {
                // Nobody that was let go of meanwhile.
                if let Some(link) = self.links.get_mut(&peer) {
                    link.is_connected = true;
                    self.swarm.add_source(now, peer, has);
                }
                self.feed(now, peer);
            }
            Report::Has(pieces) => {
                self.swarm.source_has(&peer, pieces);
                self.feed(now, peer);
            }
            Report::Sign => self.swarm.note_sign(now, &peer),
            Report::Page(page, hashes) => {
                self.swarm.note_sign(now, &peer);
                self.pages_asked.remove(&page);
                match self.target.insert_page(page, &hashes) {
                    Ok(()) => self.ask_held(now),
                    Err(error) => self.drop_liar(peer, &error.to_string()),
                }
            }
            Report::Chose(asked, chosen) => self.swarm.piece_chosen(&peer, asked, chosen),
            // A sync that failed has taken it back before we heard of it.
            Report::Piece(piece) if !self.target.has(piece) => {
                self.swarm.piece_was_lost(&peer, piece);
            }
            Report::Piece(piece) => {
                self.backoff.succeed();
                self.last_piece = Some(now);
                match &mut self.trouble {
                    // What an old source still reports was written before.
                    Some(trouble) => trouble.has_written |= self.links.contains_key(&peer),
                    None => self.is_waiting = false,
                }
                self.delivered_by.insert(peer);
                self.announce();
                if let Arrival::New(others) = self.swarm.piece_arrived(now, &peer, piece) {
                    self.meter.add(now, self.target.piece_len(piece));
                    for other in others {
                        self.send(other, Ask::Cancel(piece));
                    }
                }
                self.feed(now, peer);
            }
            Report::Lacks(piece, files) => {
                if files > 0 {
                    self.backoff.succeed();
                    self.last_piece = Some(now);
                    self.delivered_by.insert(peer);
                }
                self.swarm.source_lacks(now, &peer, piece);
                self.feed(now, peer);
            }
            Report::WrongPiece => self.drop_liar(peer, "it sent wrong data"),
            Report::Disk(piece, error) => {
                self.swarm.piece_was_lost(&peer, piece);
                self.disk_failed(&error)?;
            }
            Report::Gone(reason) => self.lose(now, peer, reason),
            Report::Left => self.see_off(now, peer),
        }
        self.feed_idle(now);
        Ok(())
    }

    fn tick(&mut self) -> Result<(), DownloadError> {
        let now = Instant::now();
        for (peer, piece) in self.swarm.handle_timeout(now) {
            self.send(peer, Ask::Cancel(piece));
        }
        for peer in self.swarm.silent(now) {
            self.lose(now, peer, "it sends nothing".to_owned());
        }
        self.feed_idle(now);
        self.ask_held(now);
        self.meter.handle_timeout(now);
        let is_due = self.next_sync <= now || self.trouble.is_some();
        if is_due && self.syncing.is_none() {
            let target = self.target.clone();
            self.syncing = Some(spawn_blocking(move || target.sync()));
        }
        self.note_starvation(now)?;
        self.tell_progress();
        Ok(())
    }

    /// Downloaders that are left among themselves have each what the others have: they wait, and say so.
    fn note_starvation(&mut self, now: Instant) -> Result<(), DownloadError> {
        if !self.swarm.is_starved() || !self.links.values().any(|link| link.is_connected) {
            self.starved_since = None;
            return Ok(());
        }
        let since = *self.starved_since.get_or_insert(now);
        let lasted = now.saturating_duration_since(since);
        if lasted < STARVED {
            return Ok(());
        }
        if self.successor.is_none() {
            "nobody who is here has the rest".clone_into(&mut self.last_failure);
        }
        if self.job.wanted.waits {
            let reason = self.last_failure.clone();
            self.tell_waiting(reason, |name, reason| Event::Waiting { name, reason });
        } else if lasted >= OUTAGE {
            return Err(self.give_up());
        }
        Ok(())
    }

    /// Asks `peer` for as much as it shall have to do.
    fn feed(&mut self, now: Instant, peer: PeerId) {
        while let Some(piece) = self.swarm.next_request(now, &peer) {
            self.ask_piece(now, peer, piece);
        }
    }

    fn feed_idle(&mut self, now: Instant) {
        let connected = self.links.iter().filter(|(_, link)| link.is_connected);
        for peer in connected.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.feed(now, peer);
        }
    }

    fn ask_piece(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) {
        let page = match self.target.expected(piece) {
            Ok(expected) => {
                let instead = self.candidates(&peer, piece);
                return self.send(peer, Ask::Piece(piece, expected, instead));
            }
            Err(page) => page,
        };
        self.held.push((peer, piece));
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < PAGE_PATIENCE;
        let mut asked = vec![peer];
        match self.pages_asked.get(&page) {
            Some((_, at)) if is_fresh(*at) => return,
            // Whoever offers the piece has the hashes that prove it. One that keeps them back shall not be
            // followed by another one that does.
            Some(_) => {
                asked = self.links.keys().copied().collect();
                asked.retain(|peer| self.swarm.has_piece(peer, piece));
            }
            None => {}
        }
        self.pages_asked.insert(page, (peer, now));
        for peer in asked {
            self.send(peer, Ask::Page(page));
        }
    }

    /// What may come from `peer` in the place of `piece`, with its hashes.
    fn candidates(&mut self, peer: &PeerId, piece: PieceIndex) -> Vec<(PieceIndex, Hash)> {
        let target = &self.target;
        if !target.has_candidates() {
            return Vec::new();
        }
        let is_known = |piece| target.expected(piece).is_ok();
        let candidates = self.swarm.candidates(peer, piece, is_known);
        let expected = |piece| Some((piece, target.expected(piece).ok()?));
        candidates.into_iter().filter_map(expected).collect()
    }

    /// Goes through the pieces that waited for hashes.
    fn ask_held(&mut self, now: Instant) {
        for (peer, piece) in std::mem::take(&mut self.held) {
            if self.swarm.owes(&peer, piece) {
                self.ask_piece(now, peer, piece);
            }
        }
    }

    fn send(&mut self, peer: PeerId, ask: Ask) {
        let Some(link) = self.links.get(&peer) else {
            return;
        };
        // Never waited for: the source may itself be waiting until its report is read. One that ended has
        // reported it, or will.
        if let Err(TrySendError::Full(_)) = link.asks.try_send(ask) {
            self.lose(Instant::now(), peer, "it takes no requests".to_owned());
        }
    }

    fn lose(&mut self, now: Instant, peer: PeerId, reason: String) {
        let Some(link) = self.let_go_of(now, peer) else {
            return;
        };
        self.last_failure = format!("{}: {reason}", link.user);
        if link.is_connected && !self.swarm.is_complete() {
            self.tell_dropped(link.user.clone(), reason);
        }
    }

    /// A source has left, and did nothing wrong.
    fn see_off(&mut self, now: Instant, peer: PeerId) {
        let Some(link) = self.let_go_of(now, peer) else {
            return;
        };
        self.last_failure = format!("{} has left", link.user);
        if !self.swarm.is_complete() {
            let (name, user) = (self.job.wanted.file.name.clone(), link.user.clone());
            self.tell(Event::SourceLeft { name, user });
        }
    }

    fn let_go_of(&mut self, now: Instant, peer: PeerId) -> Option<Link> {
        self.swarm.remove_source(&peer);
        self.pages_asked.retain(|_, (asked, _)| *asked != peer);
        let link = self.links.remove(&peer)?;
        self.resting.insert(peer, now + REDIAL_AFTER);
        Some(link)
    }

    fn drop_liar(&mut self, peer: PeerId, reason: &str) {
        self.swarm.piece_was_wrong(&peer);
        self.downloads.liars.note(Instant::now(), peer);
        self.pages_asked.retain(|_, (asked, _)| *asked != peer);
        if let Some(link) = self.links.remove(&peer) {
            self.tell_dropped(link.user.clone(), reason.to_owned());
        }
    }

    fn give_up(&self) -> DownloadError {
        let name = self.job.wanted.file.name.clone();
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

    fn tell_dropped(&self, user: UserName, reason: String) {
        self.tell(Event::SourceDropped {
            name: self.job.wanted.file.name.clone(),
            user,
            reason,
        });
    }

    /// Nothing comes, for this reason: people are told once, until something does.
    fn tell_waiting(&mut self, reason: String, event: fn(FileName, String) -> Event) {
        self.job.handle.set_state(State::Waiting(reason.clone()));
        if !self.is_waiting {
            self.is_waiting = true;
            self.tell(event(self.job.wanted.file.name.clone(), reason));
        }
    }

    fn tell_progress(&self) {
        let progress = Progress {
            content: self.job.wanted.file.content,
            name: self.job.wanted.file.name.clone(),
            done: self.job.before + self.target.done_len(),
            len: self.job.whole,
            rate: self.meter.rate().unwrap_or(0),
            sources: if self.swarm.is_starved() {
                0
            } else {
                self.swarm.sending_count()
            },
            // Under a limit of our own nobody else is to blame.
            is_slow: self.swarm.is_slow() && self.downloads.throttle.rate().is_none(),
        };
        self.job.handle.note_progress(&progress);
        self.tell(Event::Progress(progress));
    }

    /// Events are for people: when nobody reads them they are dropped, never waited for.
    fn tell(&self, event: Event) {
        let _ = self.downloads.events.try_send(event);
    }
}

/// The one other content that is published under the name of `file`, if there is just one.
async fn successor(control: &Control, file: &Publication) -> Option<ContentId> {
    let found = search(control, file.name.as_str(), MAX_NAMESAKES)
        .await
        .ok()?;
    let is_namesake = |hit: &&Hit| hit.file.name == file.name && hit.file.kind == file.kind;
    let others = found.hits.iter().filter(is_namesake);
    let mut others = others
        .map(|hit| hit.file.content)
        .filter(|other| *other != file.content);
    let only = others.next()?;
    others.all(|other| other == only).then_some(only)
}

/// The answer, or never when nothing was asked.
async fn answer(locating: &mut Option<JoinHandle<Found>>) -> Found {
    match locating {
        Some(locating) => locating.await.unwrap_or(Err(RequestError::NoAnswer)),
        None => std::future::pending().await,
    }
}

/// What became of the sync, or never when none runs. An error is a panic: nobody knows what was synced, and
/// the next sync would not tell.
async fn outcome(syncing: &mut Option<JoinHandle<Synced>>) -> Result<Synced, JoinError> {
    match syncing {
        Some(syncing) => syncing.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sync_that_breaks_off_is_not_taken_for_one_that_is_done() {
        let breaking = || -> Synced { panic!("a test breaks it off") };
        assert!(outcome(&mut Some(spawn_blocking(breaking))).await.is_err());
        let failing = || -> Synced { Err((io::ErrorKind::StorageFull.into(), Vec::new())) };
        let failed = outcome(&mut Some(spawn_blocking(failing))).await;
        assert!(matches!(failed, Ok(Err(_))));
    }
}
