//! Clerks do what a worker must not wait for: searches, changes of the registry, resumptions.
//!
//! Each clerk is a thread with a queue of its own. Jobs of one session go to the same clerk and are done in
//! their order. The queues are bounded: when one is full, whoever asks is told to come back later.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::engine::{Busy, Engine, Job, Outlet, Scratch};
use super::metrics::Counters;
use crate::crypto::random::OsRandom;
use crate::net::unix_ms;
use crate::proto::endpoint::Census;
use crate::wire::control::Request;

/// Requests that may wait at all clerks together.
const MAX_WAITING: usize = 1024;
/// Resumptions that may wait besides: most of them may be garbage, which takes a microsecond each.
const MAX_WAITING_RESUMES: usize = 4096;

/// A clerk without work says this often that it is there.
const TURN: Duration = Duration::from_millis(500);

/// All clerks.
pub(super) struct Clerks {
    queues: Vec<Waiting>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    resumes: VecDeque<Job>,
    is_asleep: bool,
    is_closed: bool,
}

impl Clerks {
    pub(super) fn new(count: usize) -> Self {
        Self {
            queues: (0..count.max(1)).map(|_| Waiting::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.queues.len()
    }

    /// Puts a job into the queue of its clerk.
    ///
    /// # Errors
    /// When that is full.
    pub(super) fn hand_over(&self, job: Job) -> Result<(), Busy> {
        let clerk = match job.session() {
            Some(session) => usize::from(session.to_bytes()[0]),
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
        let waiting = &self.queues[clerk % self.queues.len()];
        let mut queue = waiting.lock();
        let (lane, most) = match &job {
            Job::Answer(..) => (&mut queue.jobs, MAX_WAITING / self.queues.len()),
            Job::Resume(..) => (&mut queue.resumes, MAX_WAITING_RESUMES / self.queues.len()),
            _ => (&mut queue.jobs, usize::MAX),
        };
        if lane.len() >= most {
            return Err(Busy);
        }
        lane.push_back(job);
        if queue.is_asleep {
            queue.is_asleep = false;
            drop(queue);
            waiting.wake.notify_one();
        }
        Ok(())
    }

    /// Lets all clerks end when their queues are empty.
    pub(super) fn close(&self) {
        for waiting in &self.queues {
            waiting.lock().is_closed = true;
            waiting.wake.notify_one();
        }
    }

    /// Does the jobs of clerk `number` until it is closed.
    pub(super) fn work(
        self: Arc<Self>,
        number: usize,
        engine: &Engine,
        socket: UdpSocket,
        counters: Counters,
    ) {
        let mut random = OsRandom::new();
        let mut scratch = Scratch::default();
        let mut post = Post {
            socket,
            clerks: Arc::clone(&self),
            counters,
        };
        loop {
            let next = self.queues[number].next();
            let now = Instant::now();
            post.counters.turned(now, Census::default());
            let job = match next {
                Ok(Some(job)) => job,
                Ok(None) => continue,
                Err(Closed) => return,
            };
            let asked = match &job {
                Job::Answer(.., request, came) => {
                    Some((*came, matches!(request, Request::Search(_))))
                }
                _ => None,
            };
            engine.work((now, unix_ms()), job, &mut random, &mut scratch, &mut post);
            post.counters.tally(scratch.take_tally());
            if let Some((came, is_search)) = asked {
                post.counters.answered(came.elapsed(), 1);
                if is_search {
                    post.counters.searched(now.elapsed());
                }
            }
        }
    }
}

/// There will be no more jobs.
struct Closed;

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests of members before resumptions, which a stranger may have made.
    /// Without one for a while, it is none.
    fn next(&self) -> Result<Option<Job>, Closed> {
        let mut queue = self.lock();
        let mut has_waited = false;
        loop {
            let job = queue.jobs.pop_front();
            if let Some(job) = job.or_else(|| queue.resumes.pop_front()) {
                return Ok(Some(job));
            }
            if queue.is_closed {
                return Err(Closed);
            }
            if has_waited {
                return Ok(None);
            }
            queue.is_asleep = true;
            let woken = self.wake.wait_timeout(queue, TURN);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
            queue.is_asleep = false;
            has_waited = true;
        }
    }
}

struct Post {
    socket: UdpSocket,
    clerks: Arc<Clerks>,
    counters: Counters,
}

impl Outlet for Post {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self.socket.send_to(datagram, to) {
            Ok(len) => self.counters.sent(len),
            Err(error) => self
                .counters
                .not_sent(error.kind() == ErrorKind::WouldBlock),
        }
    }

    fn counters(&self) -> Option<&Counters> {
        Some(&self.counters)
    }

    fn hand_over(&mut self, job: Job) -> Result<(), Busy> {
        self.clerks.hand_over(job)
    }
}
