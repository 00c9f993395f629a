//! One worker: a thread, a socket and a loop that never waits for anything but them.
//!
//! It takes what has come in batches, hands it to the engine and sends what that answers. Now and then it
//! says that its socket is empty; when all workers have said so, a tick has passed.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant as Deadline, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::clerk::Clerks;
use super::engine::{Busy, Engine, Job, Outlet, Scratch, Spot};
use super::metrics::Counters;
use crate::proto::endpoint::{Census, SWEEP};
use crate::wire::MAX_DATAGRAM_LEN;

/// Batches that are heard before the clock and the end have their turn.
const BATCHES: usize = 64;
/// A steady flood shall not stop the sweeps; they count themselves, so that being late ages nobody.
const OVERDUE: Duration = Duration::from_secs(1);
/// Room for one datagram: one byte more than the largest, so that a larger one does not look like it.
const SINGLE: usize = MAX_DATAGRAM_LEN + 1;
/// Room for what the system has put together from datagrams of one source.
const COMBINED: usize = 65_535;
/// Buffers that begin at multiples of a page would all fall into the same few lines of the cache.
const OFFSET: usize = 5 * 64;

/// Who has read its socket empty, and how often.
pub(super) struct Rounds {
    made: Vec<AtomicU32>,
    sweeper: Thread,
}

impl Rounds {
    pub(super) fn new(workers: usize, sweeper: Thread) -> Self {
        Self {
            made: (0..workers).map(|_| AtomicU32::new(0)).collect(),
            sweeper,
        }
    }

    fn note(&self, worker: usize) {
        self.made[worker].fetch_add(1, Ordering::Release);
        self.sweeper.unpark();
    }

    /// Rounds that all workers have made.
    pub(super) fn complete(&self) -> u32 {
        let made = self.made.iter().map(|made| made.load(Ordering::Acquire));
        made.min().unwrap_or(0)
    }
}

/// What a worker works with.
pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) engine: Arc<Engine>,
    pub(super) clerks: Arc<Clerks>,
    pub(super) rounds: Arc<Rounds>,
    pub(super) socket: std::net::UdpSocket,
    pub(super) counters: Counters,
}

impl Worker {
    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// When the system has no room for one more event loop.
    pub(super) fn run(self, shutdown: &CancellationToken) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        runtime.block_on(async {
            let inbox = Inbox::new(UdpSocket::from_std(self.socket)?)?;
            let serving = Loop {
                number: self.number,
                engine: self.engine,
                rounds: self.rounds,
                inbox,
                clerks: self.clerks,
                counters: self.counters,
                scratch: Scratch::default(),
            };
            serving.run(shutdown).await;
            Ok(())
        })
    }
}

struct Loop {
    number: usize,
    engine: Arc<Engine>,
    rounds: Arc<Rounds>,
    inbox: Inbox,
    clerks: Arc<Clerks>,
    counters: Counters,
    scratch: Scratch,
}

impl Loop {
    async fn run(mut self, shutdown: &CancellationToken) {
        let mut cancelled = pin!(shutdown.cancelled());
        let mut next_round = Deadline::now() + SWEEP;
        let mut alarm = pin!(sleep_until(next_round));
        loop {
            tokio::select! {
                () = &mut cancelled => return,
                ready = self.inbox.socket.readable() => {
                    if let Err(error) = ready {
                        warn!(%error, "the UDP socket fails");
                    }
                }
                () = &mut alarm => {}
            }
            let is_drained = self.receive();
            let now = Instant::now();
            let due = next_round.into_std();
            if now >= due && (is_drained || now > due + OVERDUE) {
                self.rounds.note(self.number);
                self.counters.turned(now, Census::default());
                next_round = Deadline::from_std(now) + SWEEP;
                alarm.as_mut().reset(next_round);
            } else if now >= due {
                alarm.as_mut().reset(Deadline::from_std(now));
            }
        }
    }

    /// Reads what has come; `false` when there may be more.
    fn receive(&mut self) -> bool {
        for _ in 0..BATCHES {
            match self.inbox.receive() {
                Ok(len) => self.counters.received(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // Word of an earlier datagram that did not arrive: nothing to do.
                Err(_) => continue,
            }
            let Inbox {
                socket,
                buffer,
                spots,
                ..
            } = &mut self.inbox;
            let now = Instant::now();
            let mut outlet = Mail {
                socket,
                clerks: &self.clerks,
                counters: &self.counters,
                sent: 0,
            };
            self.engine
                .handle(now, buffer, spots, &mut self.scratch, &mut outlet);
            let sent = outlet.sent;
            self.counters.answered(now.elapsed(), sent);
            self.counters.tally(self.scratch.take_tally());
        }
        false
    }
}

/// A socket, and what was read from it last.
struct Inbox {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Vec<u8>,
    stride: usize,
    metas: [RecvMeta; BATCH_SIZE],
    spots: Vec<Spot>,
}

impl Inbox {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let room = if state.gro_segments() > 1 {
            COMBINED
        } else {
            SINGLE
        };
        let stride = room.next_multiple_of(64) + OFFSET;
        let segments = room.div_ceil(64).min(state.gro_segments());
        Ok(Self {
            socket,
            state,
            buffer: vec![0; stride * BATCH_SIZE],
            stride,
            metas: [RecvMeta::default(); BATCH_SIZE],
            spots: Vec::with_capacity(BATCH_SIZE * segments),
        })
    }

    /// Reads one batch: how many bytes it has.
    fn receive(&mut self) -> io::Result<usize> {
        let mut received = 0;
        self.spots.clear();
        let mut chunks = self.buffer.chunks_exact_mut(self.stride);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let (socket, state, metas) = (&self.socket, &self.state, &mut self.metas);
        let count = socket.try_io(Interest::READABLE, || {
            state.recv(socket.into(), &mut slices, metas)
        })?;
        for (number, meta) in self.metas[..count].iter().enumerate() {
            received += meta.len;
            let start = number * self.stride;
            let step = meta.stride.max(1);
            for offset in (0..meta.len).step_by(step) {
                let len = step.min(meta.len - offset);
                self.spots.push(Spot::new(start + offset, len, meta.addr));
            }
        }
        Ok(received)
    }
}

struct Mail<'a> {
    socket: &'a UdpSocket,
    clerks: &'a Clerks,
    counters: &'a Counters,
    sent: u64,
}

impl Outlet for Mail<'_> {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self.socket.try_send_to(datagram, to) {
            Ok(len) => {
                self.counters.sent(len);
                self.sent += 1;
            }
            Err(error) => {
                let is_full = error.kind() == io::ErrorKind::WouldBlock;
                self.counters.not_sent(is_full);
            }
        }
    }

    fn hand_over(&mut self, job: Job) -> Result<(), Busy> {
        self.clerks.hand_over(job)
    }

    fn counters(&self) -> Option<&Counters> {
        Some(self.counters)
    }
}
