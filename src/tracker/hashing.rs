//! Threads that check passwords, so that nobody who receives datagrams ever does.
//!
//! A check is its own permit: it comes back exactly once, whatever happens to it, so that the desk counts
//! right how many are under way and memory is bounded by that number.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};

use tokio::sync::mpsc;
use tracing::error;

use super::desk::{Check, CheckId};
use super::metrics::Metrics;
use crate::crypto::password::{Memory, PasswordHash};

/// What a check found.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub id: CheckId,
    /// The hash that the password fits, if it does.
    pub fits: Option<Arc<PasswordHash>>,
}

/// The threads; they end when this is dropped.
#[derive(Debug)]
pub struct Pool {
    tasks: blocking::Sender<(Check, Arc<PasswordHash>, bool)>,
    lanes: usize,
}

impl Pool {
    /// As many threads as the machine has cores; each tells its outcomes to `outcomes`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        outcomes: &mpsc::Sender<Outcome>,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let lanes = std::thread::available_parallelism().map_or(1, usize::from);
        let (tasks, queue) = blocking::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..lanes {
            let (queue, outcomes) = (Arc::clone(&queue), outcomes.clone());
            let metrics = Arc::clone(metrics);
            std::thread::Builder::new()
                .name("password".to_owned())
                .spawn(move || work(&queue, &outcomes, &metrics))?;
        }
        Ok(Self { tasks, lanes })
    }

    /// How many checks run at the same time.
    #[must_use]
    pub const fn lanes(&self) -> usize {
        self.lanes
    }

    /// Checks a password against `measure`; only when `is_users` can it fit.
    pub fn check(&self, check: Check, measure: Arc<PasswordHash>, is_users: bool) {
        // The threads live as long as this does.
        let _ = self.tasks.send((check, measure, is_users));
    }
}

type Queue = Mutex<blocking::Receiver<(Check, Arc<PasswordHash>, bool)>>;

fn work(queue: &Queue, outcomes: &mpsc::Sender<Outcome>, metrics: &Metrics) {
    // Behind those who receive and answer; Linux counts this for the one thread.
    let _ = rustix::process::nice(5);
    let mut memory = Memory::default();
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((check, measure, is_users)) = task else {
            return;
        };
        let fits = catch_unwind(AssertUnwindSafe(|| {
            measure.fits_in(&check.password, &mut memory)
        }));
        let fits = fits.unwrap_or_else(|_| {
            error!("a password could not be checked");
            false
        });
        metrics.password_checked();
        let outcome = Outcome {
            id: check.id,
            fits: (fits && is_users).then_some(measure),
        };
        if outcomes.blocking_send(outcome).is_err() {
            return;
        }
    }
}
