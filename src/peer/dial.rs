//! Reaches a peer at the addresses that the tracker knows of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::{Reader, Writer, split};
use super::membership::Membership;
use crate::crypto::handshake::Initiator;
use crate::crypto::random::OsRandom;
use crate::wire::control::Holder;
use crate::wire::id::PeerId;
use crate::wire::packet::{HELLO_LEN, Role};

/// Connection and handshake, with all addresses of a peer.
const DIAL_TIME: Duration = Duration::from_secs(5);
/// The next address is tried after this long (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// Why a peer was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address answers.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// Something else answers there.
    #[error("another peer answers at its address")]
    OtherPeer,
    /// No member key was told to us yet.
    #[error("not joined")]
    NotJoined,
}

/// Connects to `holder` and shakes hands, as its peer and no other.
///
/// # Errors
/// When no address answers in time, or another peer does.
pub async fn dial(membership: &Membership, holder: &Holder) -> Result<(Reader, Writer), DialError> {
    let dialling = async {
        let stream = connect(&holder.addresses).await?;
        shake_hands(membership, stream, holder.peer).await
    };
    timeout(DIAL_TIME, dialling)
        .await
        .unwrap_or_else(|_| Err(DialError::Unreachable("it does not answer".to_owned())))
}

/// The first of `addresses` that takes a connection; each has a head start over the next.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut tries = JoinSet::new();
    for (number, address) in (0_u32..).zip(addresses.iter().copied().filter(may_dial)) {
        tries.spawn(async move {
            sleep(STAGGER * number).await;
            TcpStream::connect(address).await
        });
    }
    let mut reason = "it has no address that can be dialled".to_owned();
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reason = error.to_string(),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(DialError::Unreachable(reason))
}

/// Addresses at which no peer can be are never dialled, whoever names them.
fn may_dial(address: &SocketAddr) -> bool {
    let is_host = match address.ip().to_canonical() {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    };
    is_host && address.port() != 0
}

async fn shake_hands(
    membership: &Membership,
    mut stream: TcpStream,
    expected: PeerId,
) -> Result<(Reader, Writer), DialError> {
    let unreachable = |error: std::io::Error| DialError::Unreachable(error.to_string());
    stream.set_nodelay(true).map_err(unreachable)?;
    let envelope = membership
        .envelope_for(&expected)
        .ok_or(DialError::NotJoined)?;
    let local = membership.local();
    let (initiator, m1) = Initiator::start(local, Role::Peer, &envelope, &mut OsRandom::new());
    stream.write_all(&*m1).await.map_err(unreachable)?;
    let mut m2 = Box::new([0; HELLO_LEN]);
    stream.read_exact(&mut *m2).await.map_err(unreachable)?;
    let answered = initiator
        .read_answer(&m2)
        .map_err(|error| DialError::Unreachable(error.to_string()))?;
    // Before m3: an impostor shall not learn who we are.
    if answered.remote() != expected {
        return Err(DialError::OtherPeer);
    }
    let (m3, keys) = answered.confirm(Role::Peer, None);
    stream.write_all(&m3).await.map_err(unreachable)?;
    Ok(split(stream, keys.stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_where_nobody_can_be_are_not_dialled() {
        for (address, may) in [
            ("10.0.0.1:8001", true),
            ("[fd00::1]:8001", true),
            ("10.0.0.1:0", false),
            ("0.0.0.0:8001", false),
            ("[::]:8001", false),
            ("255.255.255.255:8001", false),
            ("224.0.0.1:8001", false),
            ("[ff02::1]:8001", false),
            ("[::ffff:224.0.0.1]:8001", false),
        ] {
            assert_eq!(may_dial(&address.parse().unwrap()), may, "{address}");
        }
    }
}
