//! First Ctrl-C asks all tasks to finish, the second ends at once.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::termios::tcgetattr;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a program that was interrupted ends with: 128 and the signal's number.
const SIGINT_CODE: i32 = 130;
const SIGTERM_CODE: i32 = 143;

/// How long the end may take. What hangs then, on a terminal that takes nothing for instance, is left.
const LONGEST_END: Duration = Duration::from_secs(5);
/// How long a terminal that takes nothing may hold up its own repair.
const LONGEST_REPAIR: Duration = Duration::from_millis(300);

/// The wish to end, seen by whoever holds a clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    code: Arc<AtomicI32>,
    outlives_hangups: Arc<AtomicBool>,
}

impl Shutdown {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on. `repair` runs before the second one, or a first one
    /// that comes to nothing, ends the program: it leaves the terminal as it was.
    ///
    /// # Errors
    /// When the system does not let signals be handled.
    pub fn on_signals(repair: fn()) -> io::Result<Self> {
        let shutdown = Self {
            token: CancellationToken::new(),
            code: Arc::new(AtomicI32::new(0)),
            outlives_hangups: Arc::new(AtomicBool::new(false)),
        };
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let mut hangup = Hangup::new()?;
        let told = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let code = tokio::select! {
                    // Of two that came while nobody looked, this is the one that scripts send.
                    biased;
                    _ = terminate.recv() => SIGTERM_CODE,
                    _ = interrupt.recv() => SIGINT_CODE,
                    () = hangup.recv(&told) => {
                        // The system sends one and the shell another: only a person asks twice.
                        if told.token.is_cancelled() {
                            continue;
                        }
                        SIGTERM_CODE
                    }
                };
                if told.token.is_cancelled() {
                    end(code, repair);
                }
                told.code.store(code, Ordering::Relaxed);
                told.token.cancel();
                let _ = thread::Builder::new().spawn(move || {
                    thread::sleep(LONGEST_END);
                    end(code, repair);
                });
            }
        });
        Ok(shutdown)
    }

    /// From now on SIGHUP is somebody else's, who reads files again, unless it says that the terminal is gone.
    pub fn outlive_hangups(&self) {
        self.outlives_hangups.store(true, Ordering::Relaxed);
    }

    /// For those who wait for it.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The exit code that the signal stands for; 0 when none came.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code.load(Ordering::Relaxed)
    }
}

fn end(code: i32, repair: fn()) -> ! {
    let (done, waits) = mpsc::channel();
    let repairing = thread::Builder::new().spawn(move || {
        repair();
        let _ = done.send(());
    });
    if repairing.is_ok() {
        let _ = waits.recv_timeout(LONGEST_REPAIR);
    }
    std::process::exit(code)
}

/// SIGHUP, as far as it is a wish to end.
struct Hangup {
    /// Absent where `nohup` or the like says that it does not matter.
    signal: Option<Signal>,
    had_terminal: bool,
}

impl Hangup {
    fn new() -> io::Result<Self> {
        Ok(Self {
            signal: if is_hangup_ignored() {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
            had_terminal: io::stdin().is_terminal(),
        })
    }

    async fn recv(&mut self, shutdown: &Shutdown) {
        if let Some(signal) = &mut self.signal {
            while signal.recv().await.is_some() {
                let is_gone = self.had_terminal && tcgetattr(io::stdin()).is_err();
                if is_gone || !shutdown.outlives_hangups.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
        std::future::pending::<()>().await;
    }
}

/// Was this program started so that SIGHUP does nothing to it?
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = SignalKind::hangup().as_raw_value() - 1;
    ignored.is_some_and(|mask| mask >> bit & 1 == 1)
}
