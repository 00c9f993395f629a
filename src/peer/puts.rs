//! Pieces on their way to the disk, and who puts them there.
//!
//! A system lets one thread at a time write to a file, and has the others burn processor time until it is
//! their turn. So the pieces of a file wait here, and one thread takes them as they come; it ends when there
//! are none. Small files are written several at a time.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::target::{Target, Verdict};
use crate::crypto::content::Hash;
use crate::wire::pieces::PieceIndex;

/// Threads that write small files.
const FOLDER_THREADS: usize = 3;

/// Where the sources of one download put what came; cheap to clone.
#[derive(Clone, Debug)]
pub struct Puts {
    queue: Arc<Queue>,
    /// Also pieces of sources that are gone.
    underway: TaskTracker,
}

#[derive(Debug)]
struct Queue {
    target: Target,
    max_threads: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
}

/// A piece that is to be put.
#[derive(Debug)]
struct Job {
    piece: PieceIndex,
    came: Came,
    hash: Hash,
    done: mpsc::UnboundedSender<Put>,
    _underway: TaskTrackerToken,
}

/// What came of a piece.
#[derive(Debug)]
pub struct Came {
    /// As many bytes as it has.
    pub bytes: Vec<u8>,
    /// What was passed over in them.
    pub gaps: Vec<Range<usize>>,
}

/// What became of a piece, and its buffer for the next one.
#[derive(Debug)]
pub struct Put {
    /// Which.
    pub piece: PieceIndex,
    /// The buffer.
    pub bytes: Vec<u8>,
    /// Is it there?
    pub result: io::Result<Verdict>,
}

impl Puts {
    /// For the pieces of `target`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        let max_threads = match &target {
            Target::Content(_) => 1,
            Target::Folder(_) => FOLDER_THREADS,
        };
        Self {
            queue: Arc::new(Queue {
                target,
                max_threads,
                state: Mutex::default(),
            }),
            underway: TaskTracker::new(),
        }
    }

    /// Puts a piece that has this hash, in its turn, and tells `done`. Whoever asks for it bounds how many wait.
    pub fn put(&self, piece: PieceIndex, came: Came, hash: Hash, done: mpsc::UnboundedSender<Put>) {
        let mut state = self.queue.state();
        state.waiting.push_back(Job {
            piece,
            came,
            hash,
            done,
            _underway: self.underway.token(),
        });
        if state.threads < self.queue.max_threads {
            state.threads += 1;
            let thread = Thread(Arc::clone(&self.queue));
            spawn_blocking(move || thread.run());
        }
    }

    /// Until nothing is on its way any more.
    pub async fn wait(&self) {
        self.underway.close();
        self.underway.wait().await;
        self.underway.reopen();
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that puts pieces. Dropped in a panic it leaves what waits to another one.
struct Thread(Arc<Queue>);

impl Thread {
    fn run(self) {
        loop {
            let mut state = self.0.state();
            let Some(job) = state.waiting.pop_front() else {
                // Under the lock: whoever puts the next piece must see it.
                state.threads -= 1;
                drop(state);
                std::mem::forget(self);
                return;
            };
            drop(state);
            let result = self
                .0
                .target
                .put(job.piece, &job.came.bytes, &job.came.gaps, &job.hash);
            // A source that is gone needs no answer.
            let _ = job.done.send(Put {
                piece: job.piece,
                bytes: job.came.bytes,
                result,
            });
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.waiting.is_empty() {
            state.threads -= 1;
        } else {
            let next = Self(Arc::clone(&self.0));
            spawn_blocking(move || next.run());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::growing::tests::fixture;
    use super::*;
    use crate::crypto::content::hash_piece;
    use crate::wire::pieces::Layout;

    /// Several sources put all pieces, the last one of them twice; then the queue is empty and serves again.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_put_is_there_when_nothing_is_on_its_way() {
        let fixture = fixture(5 << 20);
        let (growing, layout) = (&fixture.growing, fixture.growing.layout());
        let puts = Puts::new(Target::Content(Arc::clone(growing)));
        for round in 1..=2 {
            let (done, mut outcomes) = mpsc::unbounded_channel();
            for (piece, bytes) in layout.pieces().zip(fixture.bytes.chunks(1 << 20)) {
                let hash = hash_piece(layout, piece, bytes);
                let came = Came {
                    bytes: bytes.to_vec(),
                    gaps: Vec::new(),
                };
                puts.put(piece, came, hash, done.clone());
            }
            drop(done);
            puts.wait().await;
            assert!(growing.here().is_full(), "round {round}");
            // The last one ends a moment after its piece is there.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while puts.queue.state().threads > 0 {
                assert!(std::time::Instant::now() < deadline, "round {round}");
                tokio::task::yield_now().await;
            }
            let mut count = 0;
            while let Some(put) = outcomes.recv().await {
                assert_eq!(put.result.unwrap(), Verdict::Right);
                count += 1;
            }
            assert_eq!(count, layout.count());
        }
        assert_eq!(growing.whole_tree().unwrap().id(), growing.content());
    }

    /// A piece that breaks its thread, which a length that does not fit does, holds up nobody who waits.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_that_breaks_leaves_what_waits_to_the_next_one() {
        let fixture = fixture(2 << 20);
        let (growing, layout) = (&fixture.growing, fixture.growing.layout());
        let beyond = Layout::new(9 << 20).unwrap().piece(8).unwrap();
        let puts = Puts::new(Target::Content(Arc::clone(growing)));
        let (done, _outcomes) = mpsc::unbounded_channel();
        for _ in 0..3 {
            let mut pieces: Vec<_> = layout.pieces().zip(fixture.bytes.chunks(1 << 20)).collect();
            pieces.insert(0, (beyond, &[]));
            for (piece, bytes) in pieces {
                let came = Came {
                    bytes: bytes.to_vec(),
                    gaps: Vec::new(),
                };
                let hash = [0; 32];
                puts.put(piece, came, hash, done.clone());
            }
        }
        let soon = std::time::Duration::from_secs(10);
        tokio::time::timeout(soon, puts.wait()).await.unwrap();
        assert!(growing.here().is_full());
    }
}
