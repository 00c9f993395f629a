//! CPace, ML-KEM and Noise in m1, m2, m3: [`Initiator`] and [`Responder`] become [`Keys`].
//!
//! ```text
//! initiator                                                       responder
//! m1 = seal( header 16, sid 16, Ya 32, ek 1184, noise e 48 )          ──1336──▶
//!                     ◀──1336──  m2 = seal( header 16, Yb 32, ct 1088, noise e, ee, s, es, psk 160 )
//! m3 = noise s, se 128                                                 ──128──▶
//! ```
//! Noise_XXpsk2 proves the long-term keys; its psk comes from CPace, which proves the passphrase, and from
//! ML-KEM-768, which keeps recorded traffic safe from later machines. Whoever wants the session's keys has
//! to break all three. All messages have fixed sizes: nothing is parsed before authentication. The
//! passphrase is confirmed to the initiator by m2's last tag, to the responder by m3.

mod hello;
mod initiator;
mod responder;

use ml_kem::array::Array;
use ml_kem::kem::TryKeyInit as _;
use ml_kem::{MlKem768, ml_kem_768};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use self::hello::PLAIN_LEN;
pub use self::hello::Refusal;
pub use self::initiator::{Answered, Initiator, InitiatorError};
pub use self::responder::{Accepted, InvalidConfirm, Responder, ResponderError};
use super::cpace;
use super::envelope::DatagramKeys;
use super::identity::Identity;
use super::kdf::{Group, expand, extract, hkdf};
use super::label;
use super::secret::Secret;
use super::stream::{StreamKeys, Suite};
use crate::wire::id::PeerId;
use crate::wire::packet::Role;

const NOISE: &str = "Noise_XXpsk2_25519_ChaChaPoly_SHA256";
/// Where m1's Noise message begins; all before it is Noise's prologue.
const M1_NOISE: usize = 1248;
/// Where m2's Noise message begins; all before it enters CPace's transcript.
const M2_NOISE: usize = 1136;
/// Payload of m2's and m3's Noise messages.
const PAYLOAD_LEN: usize = 64;
const SUITE_CHACHA: u8 = 1;
const SUITE_AES: u8 = 2;

/// Our side of any handshake.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// Network name and `PW`.
    pub group: &'a Group,
    /// Our long-term key pair.
    pub identity: &'a Identity,
    /// What we are.
    pub role: Role,
    /// AES-256-GCM runs in hardware here ([`super::stream::has_aes_hardware`]).
    pub has_aes: bool,
}

/// What a finished handshake leaves behind.
#[derive(Debug)]
pub struct Keys {
    /// Of the TCP stream.
    pub stream: StreamKeys,
    /// Of the UDP session, between a peer and its tracker.
    pub datagram: DatagramKeys,
    /// What a ticket of this session is worth, together with it.
    pub resume: Secret<32>,
    /// The other side's long-term key, proved.
    pub remote: PeerId,
}

/// Which end of the handshake we are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Initiator,
    Responder,
}

impl Keys {
    fn derive(noise: &mut HandshakeState, end: End, suite: Suite, remote: PeerId) -> Self {
        let session = SessionKeys::derive(noise, end);
        let stream = StreamKeys {
            send: session.tcp.0,
            receive: session.tcp.1,
            suite,
        };
        Self {
            stream,
            datagram: session.datagram,
            resume: session.resume,
            remote,
        }
    }
}

/// The five secrets of a session (`docs/protocol.md` § Key schedule).
pub(super) struct SessionKeys {
    tcp: (Secret<32>, Secret<32>),
    pub(super) datagram: DatagramKeys,
    pub(super) resume: Secret<32>,
}

impl SessionKeys {
    pub(super) fn derive(noise: &mut HandshakeState, end: End) -> Self {
        let (one, two) = noise.dangerously_get_raw_split();
        let (one, two) = (Zeroizing::new(one), Zeroizing::new(two));
        let prk = extract(noise.get_handshake_hash(), &[&*one, &*two]);
        let ours_and_theirs = |from_initiator, from_responder| match end {
            End::Initiator => (expand(&prk, from_initiator), expand(&prk, from_responder)),
            End::Responder => (expand(&prk, from_responder), expand(&prk, from_initiator)),
        };
        let (send, receive) = ours_and_theirs(label::UDP_FROM_INITIATOR, label::UDP_FROM_RESPONDER);
        Self {
            tcp: ours_and_theirs(label::TCP_FROM_INITIATOR, label::TCP_FROM_RESPONDER),
            datagram: DatagramKeys { send, receive },
            resume: expand(&prk, label::RESUME),
        }
    }
}

fn noise<'a>(identity: &'a Identity, prologue: &'a [u8], ephemeral: &'a [u8; 32]) -> Builder<'a> {
    Builder::new(NOISE.parse().expect("a pattern that snow knows"))
        .local_private_key(identity.private().expose())
        .and_then(|builder| builder.prologue(prologue))
        .expect("each is set once")
        // Randomness is our argument; snow's own source is not used.
        .fixed_ephemeral_key_for_testing_only(ephemeral)
}

fn remote_static(noise: &HandshakeState) -> PeerId {
    let key = noise.get_remote_static().expect("XX has sent it by now");
    PeerId(key.try_into().expect("X25519 keys have 32 bytes"))
}

fn prologue(m1: &[u8; PLAIN_LEN]) -> Vec<u8> {
    [b"p2pfs/1\0", &m1[..M1_NOISE]].concat()
}

/// The channel identifier of CPace: which protocol, network and role the exchange is for.
fn channel(group: &Group, wanted: Role) -> Vec<u8> {
    [
        b"p2pfs/1\0",
        group.network().as_str().as_bytes(),
        &[0, wanted.to_byte()],
    ]
    .concat()
}

/// The psk of Noise: fresh for each session, from the passphrase's exchange and the KEM.
fn psk(
    m1: &[u8; PLAIN_LEN],
    m2: &[u8; PLAIN_LEN],
    secret: &Secret<32>,
    kem_secret: &[u8],
) -> Secret<32> {
    let (sid, initiator, responder) = (&m1[16..32], &m1[32..64], &m2[16..48]);
    let isk = cpace::session_key(
        sid,
        secret,
        (initiator, &m1[..]),
        (responder, &m2[..M2_NOISE]),
    );
    hkdf(label::PSK, &[isk.expose(), kem_secret], b"")
}

fn kem_from_seed(seed: [u8; 64]) -> ml_kem_768::DecapsulationKey {
    let seed = Zeroizing::new(seed);
    ml_kem::DecapsulationKey::<MlKem768>::from_seed(Array::from(*seed))
}

/// `None` when `key` is no encapsulation key (FIPS 203 § 7.2).
fn encapsulate(key: &[u8], message: [u8; 32]) -> Option<([u8; 1088], Zeroizing<Vec<u8>>)> {
    let key = ml_kem_768::EncapsulationKey::new_from_slice(key).ok()?;
    let message = Zeroizing::new(message);
    let (ciphertext, mut secret) = key.encapsulate_deterministic(&Array::from(*message));
    let kept = Zeroizing::new(secret.to_vec());
    zeroize::Zeroize::zeroize(secret.as_mut_slice());
    Some((ciphertext.as_slice().try_into().ok()?, kept))
}
