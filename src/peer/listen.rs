//! Accepts peers; each that shakes hands is served.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connection::split;
use super::event::JoinError;
use super::membership::Membership;
use super::upload::{Offers, serve};
use crate::crypto::handshake::Local;
use crate::crypto::kdf::EnvelopeKeys;
use crate::net::{Doorkeeper, Host, listen_tcp};
use crate::wire::id::PeerId;
use crate::wire::packet::Role;

/// Peers that are served at the same time.
const MAX_CONNECTIONS: usize = 200;
/// Connections of one of them.
const MAX_PER_PEER: usize = 16;
/// Pause after the system gave no connection, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When this peer leaves, those whom it serves are told within this time.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// A bound port, on which nobody is served yet.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Host for Membership {
    fn local(&self) -> Local<'_> {
        self.local()
    }

    fn envelopes(&self) -> Vec<EnvelopeKeys> {
        self.envelopes()
    }
}

impl Listener {
    /// Takes the first free port from `ports.0` to `ports.1`; any when both are 0.
    ///
    /// # Errors
    /// When none is free or allowed.
    pub fn bind(bind: Option<IpAddr>, ports: (u16, u16)) -> Result<Self, JoinError> {
        let mut last_error = io::Error::from(io::ErrorKind::AddrInUse);
        for port in ports.0..=ports.1 {
            match listen_tcp(bind, port) {
                Ok(listener) => {
                    let port = listener.local_addr().map_or(port, |address| address.port());
                    return Ok(Self { listener, port });
                }
                Err(error) => last_error = error,
            }
        }
        let address = match ports {
            (first, last) if first == last => format!("port {first}"),
            (first, last) => format!("any port from {first} to {last}"),
        };
        let reason = match last_error.kind() {
            io::ErrorKind::AddrInUse => "in use: choose another with --port".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a right of their own".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
            _ => last_error.to_string(),
        };
        Err(JoinError::Listen { address, reason })
    }

    /// The port that it took.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Serves until `shutdown`.
    pub async fn run(self, membership: Membership, offers: Offers, shutdown: CancellationToken) {
        let door = Doorkeeper::new();
        let host = Arc::new(membership);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let guests = Guests::default();
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((mut stream, from)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Some(visitor) = door.enter(from.ip()) else {
                continue;
            };
            let (host, offers, places) = (Arc::clone(&host), offers.clone(), Arc::clone(&places));
            let guests = Arc::clone(&guests);
            let leaving = shutdown.clone();
            let serving = async move {
                let Some(accepted) = visitor.shake_hands(&mut stream, host).await else {
                    return;
                };
                // One beyond the limit is told by the end of the connection, and comes back later.
                let Ok(_place) = places.try_acquire() else {
                    return;
                };
                if accepted.role != Role::Peer || stream.set_nodelay(true).is_err() {
                    return;
                }
                let peer = accepted.keys.remote;
                let Some(_own) = Guest::enter(&guests, peer) else {
                    return;
                };
                let (reader, writer) = split(stream, accepted.keys.stream);
                debug!(?peer, "serving");
                match serve(peer, reader, writer, offers, leaving).await {
                    Ok(()) => debug!(?peer, "served"),
                    Err(error) => debug!(?peer, %error, "connection ended"),
                }
            };
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = async {
                        shutdown.cancelled().await;
                        tokio::time::sleep(LAST_FRAMES).await;
                    } => {}
                    () = serving => {}
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}

/// Connections of each peer.
type Guests = Arc<Mutex<HashMap<PeerId, usize>>>;

/// One connection of a peer, until it is dropped.
struct Guest {
    guests: Guests,
    peer: PeerId,
}

impl Guest {
    /// `None` when the peer has as many as it may: nobody shall take all places.
    fn enter(guests: &Guests, peer: PeerId) -> Option<Self> {
        let mut counts = guests.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_insert(0);
        if *count >= MAX_PER_PEER {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Self {
            guests: Arc::clone(guests),
            peer,
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_does_not_take_all_places() {
        let guests = Guests::default();
        let peer = PeerId([1; 32]);
        let mut own: Vec<_> = std::iter::from_fn(|| Guest::enter(&guests, peer)).collect();
        assert_eq!(own.len(), MAX_PER_PEER);
        assert!(Guest::enter(&guests, PeerId([2; 32])).is_some());
        own.pop();
        assert!(Guest::enter(&guests, peer).is_some());
        drop(own);
        assert!(guests.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_range_of_ports_is_tried_in_order() {
        let loopback = Some("127.0.0.1".parse().unwrap());
        let first = Listener::bind(loopback, (0, 0)).unwrap();
        let taken = first.port();
        let error = Listener::bind(loopback, (taken, taken))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("in use") && error.contains("--port"),
            "{error}"
        );
        let next = Listener::bind(loopback, (taken, taken.saturating_add(50))).unwrap();
        assert!(next.port() > taken);
    }
}
