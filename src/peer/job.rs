//! The download that something is fetched for, and where people see how far it is.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Wanted;
use super::event::{Event, Progress};
use super::transfers::Handle;
use crate::proto::meter::Meter;
use crate::wire::MAX_CHUNK_LEN;

/// Under a limit of ours the next chunk may take as long as so many of them.
const CHUNKS_AT_A_TIME: u64 = 8;
/// Longest time after which a rate that nothing renews is one.
const MAX_STANDSTILL: Duration = Duration::from_secs(60);

/// What comes from others for one download, all its parts together, whether it proves right or not.
#[derive(Debug)]
pub struct Flow {
    /// Bytes that the meter has not seen.
    came: AtomicUsize,
    meter: Mutex<(Meter, Instant)>,
    /// Peers that sent when it was last told.
    sources: AtomicUsize,
}

impl Flow {
    /// Nothing came.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            came: AtomicUsize::new(0),
            meter: Mutex::new((Meter::new(now), now)),
            sources: AtomicUsize::new(0),
        }
    }

    /// So many bytes came.
    pub fn note(&self, bytes: usize) {
        self.came.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes a second, under a limit of so many. What comes slowly comes in jumps: between them it goes on.
    pub fn rate(&self, now: Instant, limit: Option<u64>) -> u64 {
        let came = self.came.swap(0, Ordering::Relaxed);
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let (meter, last) = &mut *meter;
        let chunks = CHUNKS_AT_A_TIME * MAX_CHUNK_LEN as u64;
        let pause = limit.map_or(Duration::ZERO, |limit| {
            Duration::from_secs(chunks / limit.max(1)).min(MAX_STANDSTILL)
        });
        if came > 0 {
            *last = now;
            meter.add(now, came);
        } else if now.saturating_duration_since(*last) >= pause {
            meter.handle_timeout(now);
        }
        meter.rate().unwrap_or(0)
    }

    /// Peers that send now: those of the part before while nobody has been asked for the next one.
    pub fn sources(&self, sources: usize, is_beginning: bool) -> usize {
        if sources == 0 && is_beginning {
            return self.sources.load(Ordering::Relaxed);
        }
        self.sources.store(sources, Ordering::Relaxed);
        sources
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
    /// Nothing of what is fetched is a part of it: it only tells what is.
    pub is_listing: bool,
}

/// How the rest of something comes.
#[derive(Clone, Copy, Default)]
pub struct Pace {
    /// Bytes a second.
    pub rate: u64,
    /// Peers that are to send it.
    pub sources: usize,
    /// Has one of them delivered?
    pub is_coming: bool,
    /// Do all of them take long?
    pub is_slow: bool,
}

impl<'a> Job<'a> {
    /// All of `wanted`, which goes into `dir`.
    #[must_use]
    pub const fn new(wanted: &'a Wanted, dir: &'a Path, handle: &'a Handle) -> Self {
        Self {
            wanted,
            dir,
            handle,
            before: 0,
            whole: wanted.file.len,
            is_listing: false,
        }
    }

    /// Tells that `done` bytes of what is fetched are here.
    pub fn tell_progress(self, events: &mpsc::Sender<Event>, done: u64, pace: Pace) {
        let done = if self.is_listing { 0 } else { done };
        let progress = Progress {
            content: self.wanted.file.content,
            name: self.wanted.file.name.clone(),
            is_folder: self.wanted.file.kind.is_folder(),
            done: self.before + done,
            len: self.whole,
            rate: pace.rate,
            sources: pace.sources,
            is_slow: pace.is_slow,
        };
        self.handle.note_progress(&progress, pace.is_coming);
        // Events are for people: when nobody reads them they are dropped, never waited for.
        let _ = events.try_send(Event::Progress(progress));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::super::transfers::tests::{begin, transfers};
    use super::*;
    use crate::wire::control::{Publication, PublicationKind};
    use crate::wire::id::ContentId;

    #[tokio::test]
    async fn of_a_folder_nothing_is_here_when_its_listing_is() {
        let file = Publication {
            name: "talks".parse().unwrap(),
            content: ContentId([1; 32]),
            len: 395,
            kind: PublicationKind::Folder,
        };
        let wanted = Wanted {
            file,
            from: None,
            directory: None,
            waits: false,
            origin: Origin::Asked,
            is_restricted: false,
        };
        let (handle, _orders) = begin(&transfers(1), 1);
        let (events, mut told) = mpsc::channel(2);
        let job = Job::new(&wanted, Path::new("/x"), &handle);
        for (is_listing, done) in [(true, 0), (false, 395)] {
            let job = Job { is_listing, ..job };
            job.tell_progress(&events, 395, Pace::default());
            let Some(Event::Progress(progress)) = told.recv().await else {
                panic!("nothing was told");
            };
            assert!(progress.is_folder && progress.done == done, "{progress:?}");
        }
    }

    #[test]
    fn what_comes_slowly_under_a_limit_has_a_rate_all_the_time() {
        const LIMIT: u64 = 16 << 10;
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (limited, free) = (Flow::new(start), Flow::new(start));
        for seconds in 1..=100 {
            // A chunk each eight seconds: half of what may come.
            if seconds % 8 == 0 {
                limited.note(MAX_CHUNK_LEN);
                free.note(MAX_CHUNK_LEN);
            }
            let rates = [
                limited.rate(at(seconds), Some(LIMIT)),
                free.rate(at(seconds), None),
            ];
            if seconds >= 16 {
                assert!((LIMIT / 4..=LIMIT).contains(&rates[0]), "{rates:?}");
            }
            assert!(seconds % 8 != 7 || rates[1] == 0, "{rates:?}");
        }
        assert_eq!(limited.rate(at(200), Some(LIMIT)), 0);
    }

    #[test]
    fn the_next_part_of_a_folder_begins_with_the_sources_of_the_one_before() {
        let flow = Flow::new(Instant::now());
        assert_eq!(flow.sources(0, true), 0);
        assert_eq!(flow.sources(3, false), 3);
        assert_eq!(flow.sources(0, true), 3);
        assert_eq!(flow.sources(0, false), 0);
        assert_eq!(flow.sources(0, true), 0);
    }
}
