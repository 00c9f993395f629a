//! The download that something is fetched for, and where people see how far it is.

use std::path::Path;

use tokio::sync::mpsc;

use super::Wanted;
use super::event::{Event, Progress};
use super::transfers::Handle;

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

/// How the rest of something comes.
#[derive(Clone, Copy, Default)]
pub struct Pace {
    /// Bytes a second.
    pub rate: u64,
    /// Peers that send it.
    pub sources: usize,
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
        }
    }

    /// Tells that `done` bytes of what is fetched are here.
    pub fn tell_progress(self, events: &mpsc::Sender<Event>, done: u64, pace: Pace) {
        let progress = Progress {
            content: self.wanted.file.content,
            name: self.wanted.file.name.clone(),
            done: self.before + done,
            len: self.whole,
            rate: pace.rate,
            sources: pace.sources,
            is_slow: pace.is_slow,
        };
        self.handle.note_progress(&progress);
        // Events are for people: when nobody reads them they are dropped, never waited for.
        let _ = events.try_send(Event::Progress(progress));
    }
}
