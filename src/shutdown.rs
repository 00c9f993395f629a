//! First Ctrl-C asks all tasks to finish, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a program that was interrupted ends with: 128 and the signal's number.
const SIGINT_CODE: i32 = 130;
const SIGTERM_CODE: i32 = 143;

/// The wish to end, seen by whoever holds a clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    code: Arc<AtomicI32>,
}

impl Shutdown {
    /// Listens for SIGINT and SIGTERM from now on. `at_once` runs before the second one ends the program,
    /// to leave the terminal as it was.
    ///
    /// # Errors
    /// When the system does not let signals be handled.
    pub fn on_signals(at_once: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shutdown = Self {
            token: CancellationToken::new(),
            code: Arc::new(AtomicI32::new(0)),
        };
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let told = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let code = tokio::select! {
                    _ = interrupt.recv() => SIGINT_CODE,
                    _ = terminate.recv() => SIGTERM_CODE,
                };
                if told.token.is_cancelled() {
                    at_once();
                    std::process::exit(code);
                }
                told.code.store(code, Ordering::Relaxed);
                told.token.cancel();
            }
        });
        Ok(shutdown)
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
