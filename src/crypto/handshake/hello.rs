//! The envelope of m1 and m2: nothing of a handshake can be told from noise without the network's name.

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::crypto::kdf::EnvelopeKeys;
use crate::crypto::secret::Secret;
use crate::wire::PROTOCOL_VERSION;
use crate::wire::packet::{HELLO_LEN, TAG_LEN};

const ENVELOPE_NONCE_LEN: usize = 24;
/// Plaintext of m1 and m2.
pub(super) const PLAIN_LEN: usize = HELLO_LEN - ENVELOPE_NONCE_LEN - TAG_LEN;
/// Reasons of a refusal.
pub(super) const REFUSED_VERSION: u8 = 1;
pub(super) const REFUSED_BUSY: u8 = 2;
pub(super) const REFUSED_ROLE: u8 = 3;

pub(super) type Hello = Box<[u8; HELLO_LEN]>;
pub(super) type Plain = Box<[u8; PLAIN_LEN]>;

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

pub(super) fn refusal(
    envelope: &EnvelopeKeys,
    nonce: [u8; ENVELOPE_NONCE_LEN],
    reason: u8,
) -> Hello {
    let mut m2: Plain = Box::new([0; PLAIN_LEN]);
    m2[..4].copy_from_slice(&[0, PROTOCOL_VERSION, PROTOCOL_VERSION, reason]);
    seal(&envelope.m2, nonce, &m2)
}

pub(super) fn seal(
    key: &Secret<32>,
    nonce: [u8; ENVELOPE_NONCE_LEN],
    plain: &[u8; PLAIN_LEN],
) -> Hello {
    let sealed = XChaCha20Poly1305::new(key.expose().into())
        .encrypt(&XNonce::from(nonce), &plain[..])
        .expect("a message of this length can be sealed");
    let mut wire = Box::new([0; HELLO_LEN]);
    wire[..ENVELOPE_NONCE_LEN].copy_from_slice(&nonce);
    wire[ENVELOPE_NONCE_LEN..].copy_from_slice(&sealed);
    wire
}

pub(super) fn open(key: &Secret<32>, wire: &[u8; HELLO_LEN]) -> Option<Plain> {
    let (nonce, sealed) = wire.split_first_chunk::<ENVELOPE_NONCE_LEN>()?;
    let plain = XChaCha20Poly1305::new(key.expose().into())
        .decrypt(&XNonce::from(*nonce), sealed)
        .ok()?;
    plain.into_boxed_slice().try_into().ok()
}

pub(super) fn open_any<'a>(
    envelopes: &'a [EnvelopeKeys],
    m1: &[u8; HELLO_LEN],
) -> Option<(&'a EnvelopeKeys, Plain)> {
    envelopes
        .iter()
        .find_map(|envelope| Some((envelope, open(&envelope.m1, m1)?)))
}
