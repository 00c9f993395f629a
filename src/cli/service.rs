//! What systemd is told: that everything runs, and that it ends.

use sd_notify::NotifyState;
use tracing::warn;

/// It runs: units that wait for it may start. Without systemd this does nothing.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It ends because it was asked to.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd cannot be told");
    }
}
