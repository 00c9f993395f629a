//! Which key comes from which, and every label of a derivation.
//!
//! ```text
//! passphrase ──Argon2id──▶ PW ──CPace──▶ ISK ┐
//!                                  ML-KEM ─ ss ┴▶ psk ─▶ Noise XXpsk2 ─▶ PRK ─▶ tcp i>r, tcp r>i   frames
//! seed, PW ─▶ member key ─▶ closed m1, m2                                 ├▶ udp i>r, udp r>i   datagrams
//! network name ───────────▶ open m1, m2                                   └▶ resume             ticket
//! seed, PW, day ──────────▶ ticket key                      resume ─▶ Noise NNpsk0 ─▶ PRK, as above
//! ```
//! Derivations are HKDF-SHA256 (RFC 5869) with 32 bytes of output. A passphrase, or what comes from it
//! alone, never keys anything that a stranger can test a guess against (`docs/protocol.md` § Keys).

pub mod beacon;
pub mod content;
pub mod cpace;
pub mod envelope;
pub mod handshake;
pub mod identity;
pub mod kdf;
pub mod lock;
pub mod password;
pub mod random;
pub mod replay;
pub mod secret;
pub mod stream;
pub mod ticket;
#[cfg(test)]
mod vectors;
pub mod words;

/// Every label of this version of the protocol; a label is used for one purpose only.
mod label {
    pub(super) const OPEN: &[u8] = b"p2pfs/1 open";
    pub(super) const MEMBER: &[u8] = b"p2pfs/1 member";
    pub(super) const CLOSED: &[u8] = b"p2pfs/1 closed";
    pub(super) const PSK: &[u8] = b"p2pfs/1 psk";
    pub(super) const TICKET: &[u8] = b"p2pfs/1 ticket";
    pub(super) const TCP_FROM_INITIATOR: &[u8] = b"p2pfs/1 tcp i>r";
    pub(super) const TCP_FROM_RESPONDER: &[u8] = b"p2pfs/1 tcp r>i";
    pub(super) const UDP_FROM_INITIATOR: &[u8] = b"p2pfs/1 udp i>r";
    pub(super) const UDP_FROM_RESPONDER: &[u8] = b"p2pfs/1 udp r>i";
    pub(super) const RESUME: &[u8] = b"p2pfs/1 resume";
    pub(super) const STREAM_KEY: &[u8] = b"key";
    pub(super) const STREAM_NEXT: &[u8] = b"next";
}
