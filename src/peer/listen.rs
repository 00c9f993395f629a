//! Accepts peers; each that shakes hands is served.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connection::split;
use super::event::JoinError;
use super::guests::{Guests, Idle};
use super::membership::Membership;
use super::talk::Talker;
use super::upload::{Offers, serve};
use crate::crypto::handshake::Local;
use crate::crypto::kdf::EnvelopeKeys;
use crate::net::{Doorkeeper, Host, listen_tcp};
use crate::wire::packet::Role;

/// Pause after the system gave no connection, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When this peer leaves, or ends a connection, those whom it serves are told within this time.
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
    pub async fn run(
        self,
        membership: Membership,
        offers: Offers,
        talker: Talker,
        shutdown: CancellationToken,
    ) {
        let door = Doorkeeper::new();
        let host = Arc::new(membership);
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
            let (host, offers, guests) = (Arc::clone(&host), offers.clone(), guests.clone());
            let talker = talker.clone();
            let leaving = shutdown.child_token();
            let ending = leaving.clone();
            let serving = async move {
                let Some(accepted) = visitor.shake_hands(&mut stream, host).await else {
                    return;
                };
                if accepted.role != Role::Peer || stream.set_nodelay(true).is_err() {
                    return;
                }
                let peer = accepted.keys.remote;
                let idle = Idle::new(Instant::now());
                let entered = guests.enter(Instant::now(), peer, idle.clone(), leaving.clone());
                // One beyond the limit is told by the end of the connection, and comes back later.
                let Some(place) = entered else {
                    return;
                };
                let (mut reader, writer) = split(stream, accepted.keys.stream);
                let is_talk = tokio::select! {
                    () = leaving.cancelled() => Ok(false),
                    is_talk = reader.begins_talk() => is_talk,
                };
                match is_talk {
                    Ok(false) => {}
                    Ok(true) => {
                        // Those who talk take no place of those who download.
                        drop(place);
                        return talker.receive(peer, reader, writer).await;
                    }
                    Err(error) => return debug!(?peer, %error, "connection ended"),
                }
                debug!(?peer, "serving");
                match serve(peer, reader, writer, offers, (idle, leaving)).await {
                    Ok(()) => debug!(?peer, "served"),
                    Err(error) => debug!(?peer, %error, "connection ended"),
                }
            };
            tasks.spawn(async move {
                tokio::select! {
                    () = async {
                        ending.cancelled().await;
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

#[cfg(test)]
mod tests {
    use super::*;

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
