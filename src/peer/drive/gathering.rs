//! Gathers sources: asks the tracker for them, dials, tries again, and gives up.

use std::time::{Duration, Instant};

use super::locating::{Found, LOCATE_EVERY};
use super::patience::OUTAGE;
use super::{DISK_PAUSE, Driver, REDIAL_AFTER};
use crate::disk;
use crate::peer::event::{DownloadError, Event};
use crate::peer::source::Ask;
use crate::proto::swarm::Arrival;
use crate::wire::control::Holder;
use crate::wire::id::PeerId;
use crate::wire::pieces::PIECE_LEN;

/// A source that had nothing to offer is dialled again after this long.
const REST_OF_USELESS: Duration = Duration::from_secs(30);
/// A full disk is tried again when so much is free.
const MIN_FREE: u64 = 4 * PIECE_LEN;

impl Driver<'_> {
    /// A full disk is not tried before there is room again.
    fn has_room(&self) -> bool {
        let need = self.target.whole_len() - self.target.done_len();
        let is_short = |free| free < MIN_FREE.min(need);
        !self.syncing.is_disk_full() || !disk::free_space(self.job.dir).is_ok_and(is_short)
    }

    /// Asks who has the content.
    pub(super) fn locate(&mut self, now: Instant) {
        if !self.has_room() {
            self.locating.wait_until(now + DISK_PAUSE);
            return;
        }
        self.count_unreported();
        let (control, file) = (self.downloads.control.clone(), self.job.wanted.file.clone());
        let lack = self.patience.is_starved();
        self.locating.ask(control, file, self.own(), lack);
        self.is_resting = false;
    }

    fn own(&self) -> PeerId {
        self.downloads.membership.local().identity.id()
    }

    /// Pieces that were on their way to the disk when their sources were let go of.
    fn count_unreported(&mut self) {
        let (now, nobody) = (Instant::now(), self.downloads.control.tracker());
        for piece in self.target.here().iter() {
            if !self.swarm.is_here(piece)
                && let Arrival::New(others) = self.swarm.piece_arrived(now, &nobody, piece)
            {
                for other in others {
                    self.send(other, Ask::Cancel(piece));
                }
            }
        }
    }

    pub(super) fn handle_found(&mut self, found: Found) {
        match found {
            Ok(located) => {
                self.dial(Instant::now(), located.holders);
                let file = &self.job.wanted.file;
                if self.patience.note_successor(file, located.successor) {
                    self.news.end_wait();
                }
            }
            Err(error) => self.patience.blame(error.to_string()),
        }
    }

    /// Nobody is dialled or connected: tries again after a while, waits, or gives up.
    pub(super) fn attempt_failed(&mut self, now: Instant) -> Result<(), DownloadError> {
        (self.is_resting, self.is_beginning) = (true, false);
        // The next attempt dials whoever is there.
        self.links.end_rest();
        let wait = match self.patience.fail(rand::random()) {
            Some(wait) => wait,
            // An honest one may have been silent for a moment; not for all attempts.
            None if self.knows_only_liars() => return Err(self.give_up()),
            None if self.job.wanted.waits => {
                self.tell_waiting();
                LOCATE_EVERY
            }
            None if self.patience.is_fresh(now) => REDIAL_AFTER,
            None => return Err(self.give_up()),
        };
        self.locating.wait_until(now + wait);
        Ok(())
    }

    fn dial(&mut self, now: Instant, mut holders: Vec<Holder>) {
        let own = self.own();
        holders.retain(|holder| holder.peer != own);
        if holders.is_empty() {
            self.patience.blame_nobody();
        }
        self.found = holders.iter().map(|holder| holder.peer).collect();
        let wanted = self.job.wanted;
        for holder in holders {
            let peer = holder.peer;
            if self.downloads.liars.has(now, &peer) {
                let reason = format!("{} sent wrong data less than an hour ago", holder.user);
                self.patience.blame(reason);
                continue;
            }
            let is_meant = wanted.from.is_none_or(|from| from == peer);
            let is_fit = holder.len == wanted.file.len && !self.swarm.is_liar(&peer);
            if !is_meant || !is_fit || !self.links.may_dial(now, &peer) {
                continue;
            }
            if self.links.is_full() && !self.make_room(now) {
                return;
            }
            self.links.dial(self.goal.clone(), holder);
        }
    }

    /// Lets go of a source that has nothing that is missing here.
    fn make_room(&mut self, now: Instant) -> bool {
        let Some(useless) = self.swarm.useless(now) else {
            return false;
        };
        self.swarm.remove_source(&useless);
        self.links.retire(now, useless, REST_OF_USELESS).is_some()
    }

    /// Downloaders that are left among themselves have each what the others have: they wait, and say so.
    pub(super) fn note_starvation(&mut self, now: Instant) -> Result<(), DownloadError> {
        let is_starved = self.swarm.is_starved() && self.links.connected().next().is_some();
        let Some(lasted) = self.patience.note_starvation(now, is_starved) else {
            return Ok(());
        };
        if self.job.wanted.waits {
            self.tell_waiting();
        } else if lasted >= OUTAGE {
            return Err(self.give_up());
        }
        Ok(())
    }

    fn give_up(&self) -> DownloadError {
        let name = self.job.wanted.file.name.clone();
        let nobody_was_honest = self.swarm.liar_count() > 0 && self.delivered_by.is_empty();
        if nobody_was_honest || self.knows_only_liars() {
            return DownloadError::Corrupt { name };
        }
        DownloadError::NoSource {
            name,
            reason: self.patience.reason().to_owned(),
        }
    }

    fn knows_only_liars(&self) -> bool {
        !self.found.is_empty() && self.found.iter().all(|peer| self.swarm.is_liar(peer))
    }

    fn tell_waiting(&mut self) {
        let reason = self.patience.reason().to_owned();
        let waiting = |name, reason| Event::Waiting { name, reason };
        self.news.tell_waiting(reason, waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::peer::download::tests::{downloads, wanted};
    use crate::peer::growing::Growing;
    use crate::peer::job::Job;
    use crate::peer::store::Partial;
    use crate::peer::target::Target;
    use crate::peer::transfers::tests::{begin, transfers};
    use crate::wire::pieces::Layout;

    /// Its source was given up while the disk was slow, and nobody reports it.
    #[tokio::test]
    async fn what_reached_the_disk_after_its_source_went_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (downloads, wanted) = (downloads(), wanted(b"one"));
        let (content, layout) = (wanted.file.content, Layout::new(3).unwrap());
        let (partial, here) = Partial::open(dir.path(), content, layout).unwrap();
        let growing = Arc::new(Growing::new(content, partial.part(), &here));
        let transfers = transfers(1);
        let (handle, _orders) = begin(&transfers, 1);
        let job = Job::new(&wanted, dir.path(), &handle);
        let target = Target::Content(Arc::clone(&growing));
        let mut driver = Driver::new(&downloads, job, target);
        let piece = layout.piece(0).unwrap();
        growing.put(piece, b"one", &content.0).unwrap();
        assert!(!driver.swarm.is_complete());
        driver.locate(Instant::now());
        assert!(driver.swarm.is_complete());
    }
}
