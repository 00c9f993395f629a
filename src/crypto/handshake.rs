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

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ml_kem::array::Array;
use ml_kem::kem::{Decapsulate as _, KeyExport as _, TryKeyInit as _};
use ml_kem::{MlKem768, ml_kem_768};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::cpace::{self, Exchange};
use super::envelope::DatagramKeys;
use super::identity::Identity;
use super::kdf::{EnvelopeKeys, Group, expand, extract, hkdf};
use super::label;
use super::random::{Random, random_bytes};
use super::secret::Secret;
use super::stream::{StreamKeys, Suite};
use crate::wire::PROTOCOL_VERSION;
use crate::wire::id::PeerId;
use crate::wire::packet::{CONFIRM_LEN, HELLO_LEN, Role, TAG_LEN};

const NOISE: &str = "Noise_XXpsk2_25519_ChaChaPoly_SHA256";
const ENVELOPE_NONCE_LEN: usize = 24;
/// Plaintext of m1 and m2.
const PLAIN_LEN: usize = HELLO_LEN - ENVELOPE_NONCE_LEN - TAG_LEN;
/// Where m1's Noise message begins; all before it is Noise's prologue.
const M1_NOISE: usize = 1248;
/// Where m2's Noise message begins; all before it enters CPace's transcript.
const M2_NOISE: usize = 1136;
/// Payload of m2's and m3's Noise messages.
const PAYLOAD_LEN: usize = 64;
const SUITE_CHACHA: u8 = 1;
const SUITE_AES: u8 = 2;
/// Reasons of a refusal.
const REFUSED_VERSION: u8 = 1;
const REFUSED_BUSY: u8 = 2;
const REFUSED_ROLE: u8 = 3;

type Hello = Box<[u8; HELLO_LEN]>;
type Plain = Box<[u8; PLAIN_LEN]>;

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

/// Why the initiator stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InitiatorError {
    /// The envelope does not open, or the answer breaks a rule of the format.
    #[error("the answer is not one of p2pfs")]
    NotOurs,
    /// The other side proved no knowledge of the passphrase.
    #[error("the passphrase differs")]
    WrongPassphrase,
    /// The responder would not go on; a hint that nobody vouches for.
    #[error("it refuses: {0}")]
    Refused(Refusal),
    /// The other side has our own key.
    #[error("this is our own address")]
    Loop,
}

/// The hint in a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It speaks these versions, highest and lowest.
    #[error("it speaks version {0}")]
    Version(u8, u8),
    /// Too many handshakes at the same time.
    #[error("it is busy, try again later")]
    Busy,
    /// It is not what was wanted.
    #[error("it is no tracker or peer, as was expected")]
    WrongRole,
}

/// The dialling side, waiting for m2.
pub struct Initiator {
    envelope: EnvelopeKeys,
    m1: Plain,
    exchange: Exchange,
    kem: ml_kem_768::DecapsulationKey,
    noise: HandshakeState,
    ours: PeerId,
}

impl Initiator {
    /// Makes m1, which asks for a `wanted` under `envelope`.
    #[must_use]
    pub fn start(
        local: Local<'_>,
        wanted: Role,
        envelope: &EnvelopeKeys,
        random: &mut dyn Random,
    ) -> (Self, Hello) {
        let nonce = random_bytes(random);
        let sid: [u8; 16] = random_bytes(random);
        let channel = channel(local.group, wanted);
        let exchange = Exchange::new(
            local.group.pw().expose(),
            &channel,
            &sid,
            random_bytes(random),
        );
        let kem = kem_from_seed(random_bytes(random));
        let ephemeral = Zeroizing::new(random_bytes::<32>(random));

        let mut m1: Plain = Box::new([0; PLAIN_LEN]);
        let suites = SUITE_CHACHA | if local.has_aes { SUITE_AES } else { 0 };
        m1[..4].copy_from_slice(&[PROTOCOL_VERSION, PROTOCOL_VERSION, wanted.to_byte(), suites]);
        m1[16..32].copy_from_slice(&sid);
        m1[32..64].copy_from_slice(&exchange.share);
        m1[64..M1_NOISE].copy_from_slice(&kem.encapsulation_key().to_bytes());
        let prologue = prologue(&m1);
        let mut noise = noise(local.identity, &prologue, &ephemeral)
            .build_initiator()
            .expect("pattern, keys and prologue are complete");
        noise
            .write_message(&[], &mut m1[M1_NOISE..])
            .expect("the first message of XX is 48 bytes, for which there is room");
        let wire = seal(&envelope.m1, nonce, &m1);
        (
            Self {
                envelope: envelope.clone(),
                m1,
                exchange,
                kem,
                noise,
                ours: local.identity.id(),
            },
            wire,
        )
    }

    /// Reads m2.
    ///
    /// # Errors
    /// When it proves no knowledge of the passphrase, or is no answer to this m1.
    pub fn read_answer(mut self, m2: &[u8; HELLO_LEN]) -> Result<Answered, InitiatorError> {
        use InitiatorError::{Loop, NotOurs, WrongPassphrase};
        let m2 = open(&self.envelope.m2, m2).ok_or(NotOurs)?;
        let suite = self.check_header(&m2)?;
        let share: &[u8; 32] = m2[16..48].try_into().expect("32 bytes");
        let secret = self.exchange.agree(share).map_err(|_| NotOurs)?;
        let ciphertext =
            Array::try_from(&m2[48..M2_NOISE]).expect("1088 bytes, as ML-KEM-768 has them");
        let kem_secret = Zeroizing::new(self.kem.decapsulate(&ciphertext));
        let psk = psk(&self.m1, &m2, &secret, kem_secret.as_slice());
        self.noise
            .set_psk(2, psk.expose())
            .expect("XXpsk2 has its psk in the second message");
        let mut payload = [0; PAYLOAD_LEN];
        self.noise
            .read_message(&m2[M2_NOISE..], &mut payload)
            .map_err(|_| WrongPassphrase)?;
        let remote = remote_static(&self.noise);
        if remote == self.ours {
            return Err(Loop);
        }
        let remote_unix_ms = u64::from_be_bytes(*payload.first_chunk().expect("64 bytes"));
        Ok(Answered {
            noise: self.noise,
            suite,
            remote,
            remote_unix_ms,
        })
    }

    fn check_header(&self, m2: &[u8; PLAIN_LEN]) -> Result<Suite, InitiatorError> {
        let [version, role, suite, reason] = *m2.first_chunk().expect("longer than four bytes");
        if version == 0 {
            return Err(InitiatorError::Refused(match reason {
                REFUSED_VERSION => Refusal::Version(role, suite),
                REFUSED_BUSY => Refusal::Busy,
                REFUSED_ROLE => Refusal::WrongRole,
                _ => return Err(InitiatorError::NotOurs),
            }));
        }
        let has_aes = self.m1[3] & SUITE_AES != 0;
        match (version, suite) {
            _ if role != self.m1[2] => Err(InitiatorError::NotOurs),
            (PROTOCOL_VERSION, SUITE_CHACHA) => Ok(Suite::ChaCha),
            (PROTOCOL_VERSION, SUITE_AES) if has_aes => Ok(Suite::Aes),
            _ => Err(InitiatorError::NotOurs),
        }
    }
}

/// The dialling side after m2: the other side has proved the passphrase and its key.
pub struct Answered {
    noise: HandshakeState,
    suite: Suite,
    remote: PeerId,
    remote_unix_ms: u64,
}

impl Answered {
    /// The key that the other side proved; to be compared before [`Answered::confirm`].
    #[must_use]
    pub const fn remote(&self) -> PeerId {
        self.remote
    }

    /// The other side's clock, Unix time in ms.
    #[must_use]
    pub const fn remote_unix_ms(&self) -> u64 {
        self.remote_unix_ms
    }

    /// Makes m3, which says who we are and where we listen for peers, and the keys.
    #[must_use]
    pub fn confirm(mut self, role: Role, listening_port: Option<u16>) -> ([u8; CONFIRM_LEN], Keys) {
        let mut payload = [0; PAYLOAD_LEN];
        payload[0] = role.to_byte();
        payload[1..3].copy_from_slice(&listening_port.unwrap_or(0).to_be_bytes());
        let mut m3 = [0; CONFIRM_LEN];
        self.noise
            .write_message(&payload, &mut m3)
            .expect("the third message of XX with 64 bytes of payload is 128 bytes");
        (
            m3,
            Keys::derive(&mut self.noise, End::Initiator, self.suite, self.remote),
        )
    }
}

/// The listening side, waiting for m3.
pub struct Responder {
    noise: HandshakeState,
    suite: Suite,
    ours: PeerId,
}

/// Why the responder does not go on.
#[derive(Debug)]
pub enum ResponderError {
    /// Say nothing: read on, and close at the deadline.
    Silence,
    /// Send this m2, then close.
    Refuse(Hello),
}

/// An initiator that has proved the passphrase and its key.
#[derive(Debug)]
pub struct Accepted {
    /// The session's keys, and who the initiator is.
    pub keys: Keys,
    /// What it is.
    pub role: Role,
    /// Where it listens for peers.
    pub listening_port: Option<u16>,
}

/// m3 did not open, or breaks a rule: a wrong guess, as far as anybody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the third message of the handshake does not open")]
pub struct InvalidConfirm;

impl Responder {
    /// Reads m1 under whichever of `envelopes` opens it, and makes m2. `unix_ms` is told to the initiator.
    ///
    /// # Errors
    /// When nothing opens it or it breaks a rule: silence. When it wants another version or role: a
    /// refusal.
    pub fn answer(
        local: Local<'_>,
        envelopes: &[EnvelopeKeys],
        m1: &[u8; HELLO_LEN],
        unix_ms: u64,
        random: &mut dyn Random,
    ) -> Result<(Self, Hello), ResponderError> {
        use ResponderError::{Refuse, Silence};
        let (envelope, m1) = open_any(envelopes, m1).ok_or(Silence)?;
        let nonce = random_bytes(random);
        let [highest, lowest, wanted, suites] = *m1.first_chunk().expect("longer than four bytes");
        if !(lowest..=highest).contains(&PROTOCOL_VERSION) {
            return Err(Refuse(refusal(envelope, nonce, REFUSED_VERSION)));
        }
        if wanted != local.role.to_byte() {
            return Err(Refuse(refusal(envelope, nonce, REFUSED_ROLE)));
        }
        let suite = if suites & SUITE_AES != 0 && local.has_aes {
            Suite::Aes
        } else {
            Suite::ChaCha
        };

        let sid = &m1[16..32];
        let channel = channel(local.group, local.role);
        let exchange = Exchange::new(
            local.group.pw().expose(),
            &channel,
            sid,
            random_bytes(random),
        );
        let share: &[u8; 32] = m1[32..64].try_into().expect("32 bytes");
        let secret = exchange.agree(share).map_err(|_| Silence)?;
        let (ciphertext, kem_secret) =
            encapsulate(&m1[64..M1_NOISE], random_bytes(random)).ok_or(Silence)?;

        let ephemeral = Zeroizing::new(random_bytes::<32>(random));
        let prologue = prologue(&m1);
        let mut noise = noise(local.identity, &prologue, &ephemeral)
            .build_responder()
            .expect("pattern, keys and prologue are complete");
        noise
            .read_message(&m1[M1_NOISE..], &mut [])
            .map_err(|_| Silence)?;

        let mut m2: Plain = Box::new([0; PLAIN_LEN]);
        let suite_byte = if suite == Suite::Aes {
            SUITE_AES
        } else {
            SUITE_CHACHA
        };
        m2[..3].copy_from_slice(&[PROTOCOL_VERSION, local.role.to_byte(), suite_byte]);
        m2[16..48].copy_from_slice(&exchange.share);
        m2[48..M2_NOISE].copy_from_slice(&ciphertext);
        let psk = psk(&m1, &m2, &secret, kem_secret.as_slice());
        noise
            .set_psk(2, psk.expose())
            .expect("XXpsk2 has its psk in the second message");
        let mut payload = [0; PAYLOAD_LEN];
        payload[..8].copy_from_slice(&unix_ms.to_be_bytes());
        noise
            .write_message(&payload, &mut m2[M2_NOISE..])
            .map_err(|_| Silence)?;
        let wire = seal(&envelope.m2, nonce, &m2);
        Ok((
            Self {
                noise,
                suite,
                ours: local.identity.id(),
            },
            wire,
        ))
    }

    /// An m2 that says "busy", under the envelope that opens `m1`; `None` when none does.
    #[must_use]
    pub fn busy(
        envelopes: &[EnvelopeKeys],
        m1: &[u8; HELLO_LEN],
        random: &mut dyn Random,
    ) -> Option<Hello> {
        let (envelope, _) = open_any(envelopes, m1)?;
        Some(refusal(envelope, random_bytes(random), REFUSED_BUSY))
    }

    /// Reads m3.
    ///
    /// # Errors
    /// When it does not open; this counts as a failed guess.
    pub fn finish(mut self, m3: &[u8; CONFIRM_LEN]) -> Result<Accepted, InvalidConfirm> {
        let mut payload = [0; PAYLOAD_LEN];
        self.noise
            .read_message(m3, &mut payload)
            .map_err(|_| InvalidConfirm)?;
        let remote = remote_static(&self.noise);
        if remote == self.ours {
            return Err(InvalidConfirm);
        }
        let role = Role::from_byte(payload[0]).map_err(|_| InvalidConfirm)?;
        let port = u16::from_be_bytes([payload[1], payload[2]]);
        let keys = Keys::derive(&mut self.noise, End::Responder, self.suite, remote);
        Ok(Accepted {
            keys,
            role,
            listening_port: (port != 0).then_some(port),
        })
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

fn refusal(envelope: &EnvelopeKeys, nonce: [u8; ENVELOPE_NONCE_LEN], reason: u8) -> Hello {
    let mut m2: Plain = Box::new([0; PLAIN_LEN]);
    m2[..4].copy_from_slice(&[0, PROTOCOL_VERSION, PROTOCOL_VERSION, reason]);
    seal(&envelope.m2, nonce, &m2)
}

fn seal(key: &Secret<32>, nonce: [u8; ENVELOPE_NONCE_LEN], plain: &[u8; PLAIN_LEN]) -> Hello {
    let sealed = XChaCha20Poly1305::new(key.expose().into())
        .encrypt(&XNonce::from(nonce), &plain[..])
        .expect("a message of this length can be sealed");
    let mut wire = Box::new([0; HELLO_LEN]);
    wire[..ENVELOPE_NONCE_LEN].copy_from_slice(&nonce);
    wire[ENVELOPE_NONCE_LEN..].copy_from_slice(&sealed);
    wire
}

fn open(key: &Secret<32>, wire: &[u8; HELLO_LEN]) -> Option<Plain> {
    let (nonce, sealed) = wire.split_first_chunk::<ENVELOPE_NONCE_LEN>()?;
    let plain = XChaCha20Poly1305::new(key.expose().into())
        .decrypt(&XNonce::from(*nonce), sealed)
        .ok()?;
    plain.into_boxed_slice().try_into().ok()
}

fn open_any<'a>(
    envelopes: &'a [EnvelopeKeys],
    m1: &[u8; HELLO_LEN],
) -> Option<(&'a EnvelopeKeys, Plain)> {
    envelopes
        .iter()
        .find_map(|envelope| Some((envelope, open(&envelope.m1, m1)?)))
}
