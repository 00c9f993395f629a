//! Drives one swarm: sources on one side, what is here of its target on the other.
//!
//! The swarm decides; this file dials, asks, and tells people how far it is.

mod asking;
mod gathering;
mod links;
mod locating;
mod news;
mod pages;
mod patience;
mod syncing;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinError;

use self::links::{Link, Links};
use self::locating::Locating;
use self::news::News;
use self::pages::Pages;
use self::patience::Patience;
use self::syncing::Syncing;
use super::download::{Announcement, DISK_PATIENCE, Downloads};
use super::event::{DownloadError, Event};
use super::job::{Job, Pace};
use super::puts::Puts;
use super::source::{Ask, Goal, Report};
use super::store::{PART_IS_GONE, explain, is_lasting};
use super::target::{Synced, Target};
use crate::proto::swarm::{Arrival, Swarm};
use crate::wire::id::PeerId;

/// Reports that may wait.
const QUEUE: usize = 64;
/// How often stalls are looked for and progress is told.
const TICK: Duration = Duration::from_millis(250);
/// A source that went is dialled again after this long.
const REDIAL_AFTER: Duration = Duration::from_secs(3);
/// A disk that took nothing is tried again after this long.
const DISK_PAUSE: Duration = Duration::from_secs(2);

/// Drives the swarm of one target.
pub struct Driver<'a> {
    downloads: &'a Downloads,
    job: Job<'a>,
    target: Target,
    goal: Goal,
    reports: mpsc::Receiver<(PeerId, Report)>,
    swarm: Swarm,
    links: Links,
    pages: Pages,
    locating: Locating,
    patience: Patience,
    syncing: Syncing,
    news: News<'a>,
    /// Whoever sent the part before is taken to send this one, until somebody is asked.
    is_beginning: bool,
    delivered_by: BTreeSet<PeerId>,
    /// Whom the tracker's last answer named.
    found: Vec<PeerId>,
    /// The attempt failed, and the next one begins with the next question to the tracker.
    is_resting: bool,
    announcement: Option<Announcement>,
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
            flow: Arc::clone(job.handle.flow()),
        };
        Self {
            downloads,
            job,
            goal,
            reports,
            swarm: Swarm::new(target.layout(), rand::random(), target.here()),
            target,
            links: Links::default(),
            pages: Pages::default(),
            locating: Locating::new(now),
            patience: Patience::new(downloads.retry.clone()),
            syncing: Syncing::new(now),
            news: News::new(&downloads.events, job),
            is_beginning: true,
            delivered_by: BTreeSet::new(),
            found: Vec::new(),
            is_resting: true,
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
            let now = Instant::now();
            if !self.swarm.is_complete() {
                let is_idle = self.links.is_empty() && !self.locating.is_under_way();
                if is_idle && !self.is_resting {
                    self.attempt_failed(now)?;
                }
                if self.locating.is_due(now) {
                    self.locate(now);
                }
            }
            tokio::select! {
                Some((peer, report)) = self.reports.recv() => self.handle(peer, report)?,
                found = self.locating.answer() => self.handle_found(found),
                synced = self.syncing.outcome() => self.handle_synced(synced)?,
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
        if !self.swarm.is_complete() || self.syncing.is_running() {
            return Ok(false);
        }
        self.links.clear();
        // A copy that came second may still be on its way to the disk.
        self.goal.puts.wait().await;
        self.syncing.start(self.target.clone());
        let synced = self.syncing.outcome().await;
        self.handle_synced(synced)?;
        Ok(self.swarm.is_complete())
    }

    /// Lets go of all sources; what they owed is free again.
    fn let_go(&mut self) {
        self.locating.stop();
        self.links.clear();
        self.links.end_rest();
        self.swarm.remove_sources();
        self.pages.clear();
    }

    /// Others may have what is here.
    fn announce(&mut self) {
        let Target::Content(growing) = &self.target else {
            return;
        };
        let file = &self.job.wanted.file;
        // Whoever has no more of a folder than its listing does not have the folder.
        let is_published = growing.content() == file.content && file.kind.is_file();
        let may_seed = self.downloads.seeds && !self.job.wanted.is_restricted;
        if may_seed && is_published && self.announcement.is_none() {
            self.announcement = Some(self.downloads.announce(file.clone(), growing));
            // A crowd that began together is offered together.
            self.locating.hurry(Instant::now());
        }
    }

    fn handle_synced(&mut self, synced: Result<Synced, JoinError>) -> Result<(), DownloadError> {
        let Ok(synced) = synced else {
            // A bug: there is no telling what is on disk.
            return Err(self.local("the work on it broke off; download it again".to_owned()));
        };
        match synced {
            Ok(0) => Ok(()),
            Ok(_) => {
                if self.syncing.note_durable() {
                    self.news.end_wait();
                }
                Ok(())
            }
            Err((error, lost)) => {
                self.swarm.forget(lost);
                self.disk_failed(&error)
            }
        }
    }

    fn local(&self, reason: String) -> DownloadError {
        DownloadError::Local {
            path: self.job.dir.to_owned(),
            reason,
        }
    }

    /// Nothing is fetched that the disk does not take. It is tried again, with a few pieces, until it does.
    fn disk_failed(&mut self, error: &io::Error) -> Result<(), DownloadError> {
        let now = Instant::now();
        self.let_go();
        self.is_resting = true;
        self.locating.wait_until(now + DISK_PAUSE);
        if self.target.is_removed() {
            return Err(self.local(PART_IS_GONE.to_owned()));
        }
        let lasted = self.syncing.note_failure(now, error);
        let is_over = is_lasting(error) || lasted >= DISK_PATIENCE;
        let reason = explain(error);
        if is_over && !self.job.wanted.waits {
            return Err(self.local(reason));
        }
        let reason = format!("cannot write to {}: {reason}", self.job.dir.display());
        let stuck = |name, reason| Event::Stuck { name, reason };
        self.news.tell_waiting(reason, stuck);
        Ok(())
    }

    fn handle(&mut self, peer: PeerId, report: Report) -> Result<(), DownloadError> {
        let now = Instant::now();
        match report {
            Report::Connected(has) => {
                if self.links.connect(&peer) {
                    self.is_beginning = false;
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
                self.pages.note_answer(&page);
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
                self.note_delivery(now, peer);
                if !self.syncing.is_in_trouble() {
                    self.news.end_wait();
                } else if self.links.has(&peer) {
                    // What an old source still reports was written before.
                    self.syncing.note_written();
                }
                self.announce();
                if let Arrival::New(others) = self.swarm.piece_arrived(now, &peer, piece) {
                    for other in others {
                        self.send(other, Ask::Cancel(piece));
                    }
                }
                self.feed(now, peer);
            }
            Report::Lacks(piece, files) => {
                if files > 0 {
                    self.note_delivery(now, peer);
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

    fn note_delivery(&mut self, now: Instant, peer: PeerId) {
        self.patience.note_piece(now);
        self.delivered_by.insert(peer);
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
        if self.syncing.is_due(now) {
            self.syncing.start(self.target.clone());
        }
        self.note_starvation(now)?;
        self.tell_progress();
        Ok(())
    }

    fn lose(&mut self, now: Instant, peer: PeerId, reason: String) {
        let Some(link) = self.let_go_of(now, peer) else {
            return;
        };
        self.patience.blame(format!("{}: {reason}", link.user));
        if link.is_connected && !self.swarm.is_complete() {
            self.news.tell_dropped(link.user.clone(), reason, false);
        }
    }

    /// A source has left, and did nothing wrong.
    fn see_off(&mut self, now: Instant, peer: PeerId) {
        let Some(link) = self.let_go_of(now, peer) else {
            return;
        };
        self.patience.blame(format!("{} has left", link.user));
        if !self.swarm.is_complete() {
            self.news.tell_left(link.user.clone());
        }
    }

    fn let_go_of(&mut self, now: Instant, peer: PeerId) -> Option<Link> {
        self.swarm.remove_source(&peer);
        self.pages.forget(&peer);
        self.links.retire(now, peer, REDIAL_AFTER)
    }

    fn drop_liar(&mut self, peer: PeerId, reason: &str) {
        self.swarm.piece_was_wrong(&peer);
        self.downloads.liars.note(Instant::now(), peer);
        self.pages.forget(&peer);
        if let Some(link) = self.links.remove(&peer) {
            self.news
                .tell_dropped(link.user.clone(), reason.to_owned(), true);
        }
    }

    fn tell_progress(&self) {
        let (asked, sending) = match self.swarm.is_starved() {
            true => (0, 0),
            false => (self.swarm.asked_count(), self.swarm.sending_count()),
        };
        let (flow, limit) = (self.job.handle.flow(), self.downloads.throttle.rate());
        let rate = flow.rate(Instant::now(), limit);
        let sources = flow.sources(asked, self.is_beginning);
        let pace = Pace {
            // What came from those who are gone says nothing of what comes.
            rate: if sources == 0 { 0 } else { rate },
            sources,
            is_coming: sending > 0,
            // Under a limit of our own nobody else is to blame.
            is_slow: self.swarm.is_slow() && limit.is_none(),
        };
        let done = self.target.done_len();
        self.job.tell_progress(&self.downloads.events, done, pace);
    }
}
