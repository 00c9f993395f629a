//! The small tracker that a peer runs for itself when there is no other: it knows that peer's files and
//! presence, and who has joined it.
//!
//! Neighbours join it as any tracker. They publish nothing there, and nothing of it outlives the process.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Keys, Settings, Tracker, TrackerError};
use crate::crypto::identity::Identity;
use crate::crypto::kdf::{Group, TrackerSeed};
use crate::crypto::random::{OsRandom, Random as _};
use crate::crypto::secret::Secret;

/// Neighbours at the same time, and some that come again before they are known to be gone.
const MAX_PEERS: usize = 512;
/// Time between heartbeats, and silence after which somebody is hidden: as at any tracker.
const HEARTBEAT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(3);

impl Tracker {
    /// The one of the peer with this identity, on a port that the system chooses.
    ///
    /// # Errors
    /// When there is no port.
    pub fn small(
        bind: Option<IpAddr>,
        group: Group,
        identity: Identity,
    ) -> Result<Self, TrackerError> {
        let seed = Secret::from_fn(|seed| OsRandom::new().fill(seed));
        let settings = Settings {
            bind,
            port: 0,
            workers: Some(1),
            heartbeat: HEARTBEAT,
            silence: SILENCE,
            max_peers: MAX_PEERS,
            state_dir: PathBuf::new(),
            credentials: None,
            metrics: None,
        };
        let owner = Some(identity.id());
        let keys = Keys {
            identity,
            seed: TrackerSeed(seed),
        };
        Self::open(settings, group, keys, owner)
    }
}
