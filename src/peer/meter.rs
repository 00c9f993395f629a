//! How far it is to hash something: told to people, and given up when nobody waits.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::event::{Event, Hashing};

/// How often is told how far it is; what is done before the first time is not worth a line.
const TELL_AFTER: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_millis(250);

/// How far the work is, for those who wait; who gives up says so here.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes of all files.
    pub len: AtomicU64,
    /// Bytes of those that are done.
    pub done: AtomicU64,
    /// Bytes that were read, and not known before.
    pub read: AtomicU64,
    /// Nobody waits any more.
    pub is_cancelled: AtomicBool,
}

impl Meter {
    /// Nothing is done yet, of another try.
    pub fn restart(&self) {
        for counter in [&self.len, &self.done, &self.read] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self, bytes: u64) -> Result<(), String> {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if self.is_cancelled.load(Ordering::Relaxed) {
            Err("it was cancelled".to_owned())
        } else {
            Ok(())
        }
    }

    /// Tells people how far `work` on `path` is, as long as it runs. Dropped, it gives up.
    pub async fn in_view<T>(
        &self,
        path: &Path,
        events: Option<&mpsc::Sender<Event>>,
        work: impl Future<Output = T>,
    ) -> T {
        let _cancel = CancelOnDrop(self);
        tokio::pin!(work);
        let mut ticks = interval_at(Instant::now() + TELL_AFTER, TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => {
                    let hashing = Event::Hashing(Hashing {
                        path: path.to_owned(),
                        done: self.done.load(Ordering::Relaxed),
                        len: self.len.load(Ordering::Relaxed),
                    });
                    // Events are for people: when nobody reads them they are dropped, never waited for.
                    if let Some(events) = events {
                        let _ = events.try_send(hashing);
                    }
                }
            }
        }
    }
}

/// Ends the work on what it counts for.
struct CancelOnDrop<'a>(&'a Meter);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }
}
