//! From the tracker's host name to a control session: look up, connect, shake hands, hear WELCOME.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::membership::Membership;
use super::pins::{Pin, Pins};
use crate::crypto::handshake::{Initiator, InitiatorError, Keys, Refusal};
use crate::crypto::kdf::{EnvelopeKeys, MemberKey};
use crate::crypto::random::OsRandom;
use crate::crypto::secret::Secret;
use crate::crypto::stream::FrameSealer;
use crate::disk::PrivateFileError;
use crate::proto::attachment::Established;
use crate::proto::session::Rhythm;
use crate::wire::MAX_FRAME_LEN;
use crate::wire::frame::Welcome;
use crate::wire::id::{Fingerprint, PeerId};
use crate::wire::packet::{FRAME_HEADER_LEN, FrameHeader, HELLO_LEN, Role, TAG_LEN};

/// The next of several addresses is tried after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The tracker answers a handshake within this time, or not at all.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the tracker is, and who it must be.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// TCP and UDP port.
    pub port: u16,
    /// The key print that was typed, if any.
    pub key: Option<Fingerprint>,
    /// Under which name its key is remembered; its address when absent.
    pub pin: Option<String>,
    /// What is known of trackers met before; absent for a peer that keeps nothing.
    pub pins: Option<Pins>,
}

impl Target {
    /// Whoever listens at this address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            other => other.ip().to_canonical().to_string(),
        };
        Self {
            host,
            port: address.port(),
            key: None,
            pin: None,
            pins: None,
        }
    }

    /// Under which name its key is remembered.
    #[must_use]
    pub fn pinned_as(&self) -> String {
        self.pin.clone().unwrap_or_else(|| self.address())
    }

    /// `host:port`, with brackets around an IPv6 address: as people type it, and the pin's name.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No name, no route, nobody listening, or broken off.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing came back.
    #[error(
        "no answer; check address, port and network name, and that TCP and UDP of that port are open"
    )]
    Silent,
    /// The tracker has another passphrase.
    #[error("the passphrase differs")]
    WrongPassphrase,
    /// The tracker has another key than it should.
    #[error("the tracker has the key {found}, expected {expected}")]
    OtherKey {
        /// What it showed.
        found: Fingerprint,
        /// What was typed or known.
        expected: Fingerprint,
        /// Where the expected key is kept; absent when it was typed.
        pinned_in: Option<std::path::PathBuf>,
    },
    /// It says that it speaks no version of ours.
    #[error("it speaks version {theirs}, this is version 1: update the older one")]
    OtherVersion {
        /// Its highest version.
        theirs: u8,
    },
    /// The file of known trackers is of no use.
    #[error(transparent)]
    Pins(#[from] PrivateFileError),
}

/// A tracker that let us in.
#[derive(Debug)]
pub struct Enrolled {
    /// The control session.
    pub established: Established,
    /// The key under which members greet each other.
    pub member_key: MemberKey,
    /// Where the tracker answered.
    pub address: SocketAddr,
    /// Its long-term key.
    pub tracker: PeerId,
    /// It wants a password at LOGIN.
    pub needs_password: bool,
}

/// Dials `target` and shakes hands.
///
/// # Errors
/// When no address answers, or the one that does is not the tracker that it should be.
pub async fn enrol(
    target: &Target,
    membership: &Membership,
    listening_port: u16,
) -> Result<Enrolled, EnrolError> {
    let stream = connect(target).await?;
    let address = stream
        .peer_addr()
        .map_err(|error| EnrolError::Unreachable(error.to_string()))?;
    let handshake = shake_hands(stream, target, membership, listening_port);
    let (keys, welcome) = timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| EnrolError::Silent)??;
    Ok(Enrolled {
        tracker: keys.remote,
        needs_password: welcome.needs_password,
        member_key: MemberKey(Secret::new(welcome.member_key)),
        address,
        established: Established {
            session: welcome.session,
            keys: keys.datagram,
            resume: keys.resume,
            rhythm: Rhythm::new(welcome.heartbeat, welcome.silence),
            tracker_unix_ms: welcome.unix_ms,
        },
    })
}

/// Looks the tracker up and connects to the first of its addresses that answers.
///
/// # Errors
/// When none does.
pub async fn connect(target: &Target) -> Result<TcpStream, EnrolError> {
    let lookup = tokio::net::lookup_host((target.host.as_str(), target.port));
    // An address with the number of an interface is none to a name server.
    let scoped: Result<SocketAddr, _> = target.address().parse();
    let lookup = async {
        match scoped {
            Ok(address) => Ok(vec![address]),
            Err(_) => lookup.await.map(Iterator::collect),
        }
    };
    let addresses: Vec<SocketAddr> = match timeout(HANDSHAKE_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Err(EnrolError::Unreachable(format!("unknown host: {error}"))),
        Err(_) => {
            return Err(EnrolError::Unreachable(
                "the name server does not answer".to_owned(),
            ));
        }
    };
    let mut reason = "the name has no address".to_owned();
    for address in addresses {
        reason = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "connection refused; is the tracker running there?".to_owned()
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out".to_owned(),
        };
    }
    Err(EnrolError::Unreachable(reason))
}

async fn shake_hands(
    mut stream: TcpStream,
    target: &Target,
    membership: &Membership,
    listening_port: u16,
) -> Result<(Keys, Welcome), EnrolError> {
    let local = membership.local();
    let envelope = EnvelopeKeys::open(local.group);
    let (initiator, m1) = Initiator::start(local, Role::Tracker, &envelope, &mut OsRandom::new());
    let is_own = target
        .key
        .is_some_and(|key| key.is_of(&local.identity.id()));
    let initiator = if is_own {
        initiator.to_itself()
    } else {
        initiator
    };
    stream.write_all(&*m1).await.map_err(broken)?;
    let mut m2 = Box::new([0; HELLO_LEN]);
    stream.read_exact(&mut *m2).await.map_err(broken)?;
    let answered = initiator.read_answer(&m2).map_err(|error| match error {
        InitiatorError::WrongPassphrase => EnrolError::WrongPassphrase,
        InitiatorError::Refused(Refusal::Version(theirs, _)) => EnrolError::OtherVersion { theirs },
        other => EnrolError::Unreachable(other.to_string()),
    })?;
    // Before m3: an impostor learns neither that we are here nor who we are.
    check_key(target, membership, &answered.remote())?;
    let (m3, keys) = answered.confirm(local.role, Some(listening_port));
    stream.write_all(&m3).await.map_err(broken)?;
    let (mut sealer, mut opener) = keys.stream.clone().into_halves();
    let mut header = [0; FRAME_HEADER_LEN];
    stream.read_exact(&mut header).await.map_err(broken)?;
    let header =
        FrameHeader::parse(header).map_err(|error| EnrolError::Unreachable(error.to_string()))?;
    let mut body = vec![0; header.len.min(MAX_FRAME_LEN) + TAG_LEN];
    stream.read_exact(&mut body).await.map_err(broken)?;
    let plaintext = opener
        .open(header, &mut body)
        .map_err(|error| EnrolError::Unreachable(error.to_string()))?;
    let welcome =
        Welcome::decode(plaintext).map_err(|error| EnrolError::Unreachable(error.to_string()))?;
    say_goodbye(&mut stream, &mut sealer).await;
    Ok((keys, welcome))
}

/// FINAL, as every direction ends; the session lives on UDP, so a loss here does no harm.
async fn say_goodbye(stream: &mut TcpStream, sealer: &mut FrameSealer) {
    let mut frame = [0; FRAME_HEADER_LEN + TAG_LEN];
    if sealer.seal(true, &mut frame).is_ok() {
        let _ = stream.write_all(&frame).await;
        let _ = stream.shutdown().await;
    }
}

fn check_key(target: &Target, membership: &Membership, found: &PeerId) -> Result<(), EnrolError> {
    if let Some(expected) = target.key
        && !expected.is_of(found)
    {
        return Err(EnrolError::OtherKey {
            found: found.fingerprint(),
            expected,
            pinned_in: None,
        });
    }
    let Some(pins) = &target.pins else {
        return Ok(());
    };
    let address = target.pinned_as();
    let network = membership.local().group.network();
    match pins.check(&address, network, found)? {
        Pin::Known => Ok(()),
        Pin::New => Ok(pins.add(&address, network, found)?),
        // A typed key print outranks what was met before: it is how a change is accepted.
        Pin::Changed(_) if target.key.is_some() => Ok(()),
        Pin::Changed(known) => Err(EnrolError::OtherKey {
            found: found.fingerprint(),
            expected: known.fingerprint(),
            pinned_in: Some(pins.path().to_owned()),
        }),
    }
}

/// A connection that ends before the handshake does was, most likely, mute on purpose.
fn broken(error: io::Error) -> EnrolError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => EnrolError::Silent,
        _ => EnrolError::Unreachable(error.to_string()),
    }
}
