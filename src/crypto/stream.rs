//! Seals and opens the frames of one stream: counter, FINAL, key epochs.
//!
//! ```text
//! │ flags 1 │ length 3 │ ciphertext │ tag 16 │     the first four bytes are associated data
//! ```
//! The nonce is the count of frames; after 2^20 frames both ends step to the next key by themselves. The
//! end of a stream is a frame with FINAL: a stream that ends without one was cut.

use ring::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, NONCE_LEN, Nonce, NonceSequence, OpeningKey,
    SealingKey, UnboundKey,
};
use ring::error::Unspecified;

use super::kdf::expand_secret;
use super::label;
use super::secret::Secret;
use crate::wire::packet::{FRAME_HEADER_LEN, FrameHeader, TAG_LEN};

/// Frames under one key, as a power of two: at most 64 GiB.
const EPOCH_BITS: u32 = 20;

/// The AEAD of a stream, agreed in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha,
    /// AES-256-GCM (NIST SP 800-38D), when both ends have it in hardware.
    Aes,
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaCha => &CHACHA20_POLY1305,
            Self::Aes => &AES_256_GCM,
        }
    }
}

/// Does this machine have AES-GCM in hardware? Without it AES is slow, and hard to keep constant in time.
#[must_use]
pub fn has_aes_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

/// The first secrets of a stream's two directions, from our side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamKeys {
    /// For what we send.
    pub send: Secret<32>,
    /// For what we receive.
    pub receive: Secret<32>,
    /// The AEAD of both.
    pub suite: Suite,
}

impl StreamKeys {
    /// The two halves of the stream.
    #[must_use]
    pub fn into_halves(self) -> (FrameSealer, FrameOpener) {
        (
            FrameSealer::new(self.send, self.suite),
            FrameOpener::new(self.receive, self.suite),
        )
    }
}

/// Why a stream ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Forged, swapped, repeated, cut, or of another stream.
    #[error("a frame does not open")]
    Open,
    /// A frame after FINAL.
    #[error("a frame after the end of the stream")]
    AfterFinal,
}

/// Counts the frames of one direction; each nonce is given out once.
struct Counter(u64);

impl NonceSequence for Counter {
    fn advance(&mut self) -> Result<Nonce, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.0.to_be_bytes());
        self.0 = self.0.checked_add(1).ok_or(Unspecified)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// The secret of the current epoch and the place in it.
struct Epoch {
    secret: Secret<32>,
    suite: Suite,
    /// Frames sealed or opened so far, in all epochs.
    count: u64,
    is_finished: bool,
}

impl Epoch {
    fn new(secret: Secret<32>, suite: Suite) -> Self {
        Self {
            secret,
            suite,
            count: 0,
            is_finished: false,
        }
    }

    /// The key of this epoch, with its nonces from here on.
    fn key<K: ring::aead::BoundKey<Counter>>(&self) -> K {
        let key = expand_secret(&self.secret, label::STREAM_KEY);
        let key =
            UnboundKey::new(self.suite.algorithm(), key.expose()).expect("the key has 32 bytes");
        K::new(key, Counter(self.count))
    }

    /// Counts one frame; the next epoch's key when it was the last of this one.
    fn step<K: ring::aead::BoundKey<Counter>>(&mut self) -> Option<K> {
        self.count += 1;
        if !self.count.is_multiple_of(1 << EPOCH_BITS) {
            return None;
        }
        self.secret = expand_secret(&self.secret, label::STREAM_NEXT);
        Some(self.key())
    }
}

/// The sending half of a stream.
pub struct FrameSealer {
    epoch: Epoch,
    key: SealingKey<Counter>,
}

impl FrameSealer {
    /// The half that begins with this secret.
    #[must_use]
    pub fn new(secret: Secret<32>, suite: Suite) -> Self {
        let epoch = Epoch::new(secret, suite);
        Self {
            key: epoch.key(),
            epoch,
        }
    }

    /// Seals in place. `frame` has 4 bytes for the header, the plaintext, and 16 bytes for the tag;
    /// header and tag are written here.
    ///
    /// # Errors
    /// After FINAL.
    ///
    /// # Panics
    /// When `frame` is shorter than header and tag or longer than the largest frame.
    pub fn seal(&mut self, is_final: bool, frame: &mut [u8]) -> Result<(), StreamError> {
        if self.epoch.is_finished {
            return Err(StreamError::AfterFinal);
        }
        let len = frame.len() - FRAME_HEADER_LEN - TAG_LEN;
        let header = FrameHeader { is_final, len }.to_bytes();
        let (head, rest) = frame.split_at_mut(FRAME_HEADER_LEN);
        let (plaintext, place_of_tag) = rest.split_at_mut(len);
        let tag = self
            .key
            .seal_in_place_separate_tag(Aad::from(header), plaintext)
            .map_err(|Unspecified| StreamError::AfterFinal)?;
        head.copy_from_slice(&header);
        place_of_tag.copy_from_slice(tag.as_ref());
        self.epoch.is_finished = is_final;
        if let Some(key) = self.epoch.step() {
            self.key = key;
        }
        Ok(())
    }
}

/// The receiving half of a stream.
pub struct FrameOpener {
    epoch: Epoch,
    key: OpeningKey<Counter>,
}

impl FrameOpener {
    /// The half that begins with this secret.
    #[must_use]
    pub fn new(secret: Secret<32>, suite: Suite) -> Self {
        let epoch = Epoch::new(secret, suite);
        Self {
            key: epoch.key(),
            epoch,
        }
    }

    /// Opens in place; `body` is what follows the header: ciphertext and tag.
    ///
    /// # Errors
    /// When it is not the next frame of this stream; nothing after it will open either.
    pub fn open<'a>(
        &mut self,
        header: FrameHeader,
        body: &'a mut [u8],
    ) -> Result<&'a mut [u8], StreamError> {
        if self.epoch.is_finished {
            return Err(StreamError::AfterFinal);
        }
        if body.len() != header.len + TAG_LEN {
            return Err(StreamError::Open);
        }
        let plaintext = self
            .key
            .open_in_place(Aad::from(header.to_bytes()), body)
            .map_err(|Unspecified| StreamError::Open)?;
        self.epoch.is_finished = header.is_final;
        if let Some(key) = self.epoch.step() {
            self.key = key;
        }
        Ok(plaintext)
    }

    /// Did FINAL come? If not, the end of the connection is a cut.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.epoch.is_finished
    }
}

impl std::fmt::Debug for FrameSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "FrameSealer({:?}, {} frames)",
            self.epoch.suite, self.epoch.count
        )
    }
}

impl std::fmt::Debug for FrameOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "FrameOpener({:?}, {} frames)",
            self.epoch.suite, self.epoch.count
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITES: [Suite; 2] = [Suite::ChaCha, Suite::Aes];

    fn halves(suite: Suite) -> (FrameSealer, FrameOpener) {
        (
            FrameSealer::new(Secret::new([7; 32]), suite),
            FrameOpener::new(Secret::new([7; 32]), suite),
        )
    }

    fn seal(sealer: &mut FrameSealer, is_final: bool, text: &[u8]) -> Vec<u8> {
        let mut frame = [&[0; FRAME_HEADER_LEN], text, &[0; TAG_LEN]].concat();
        sealer.seal(is_final, &mut frame).unwrap();
        frame
    }

    fn open(opener: &mut FrameOpener, frame: &[u8]) -> Result<Vec<u8>, StreamError> {
        let (header, body) = frame.split_first_chunk().unwrap();
        let header = FrameHeader::parse(*header).map_err(|_| StreamError::Open)?;
        opener
            .open(header, &mut body.to_vec())
            .map(|plaintext| plaintext.to_vec())
    }

    #[test]
    fn frames_open_in_their_order_until_final() {
        for suite in SUITES {
            let (mut sealer, mut opener) = halves(suite);
            for text in [&b""[..], b"hello", &[9; 65_552]] {
                let frame = seal(&mut sealer, false, text);
                assert_eq!(open(&mut opener, &frame).as_deref(), Ok(text));
            }
            assert!(!opener.is_finished());
            let last = seal(&mut sealer, true, b"");
            assert!(open(&mut opener, &last).is_ok() && opener.is_finished());
            assert_eq!(open(&mut opener, &last), Err(StreamError::AfterFinal));
            assert_eq!(
                sealer.seal(false, &mut [0; 20]),
                Err(StreamError::AfterFinal)
            );
        }
    }

    #[test]
    fn a_frame_that_is_dropped_doubled_swapped_or_changed_ends_the_stream() {
        for suite in SUITES {
            let (mut sealer, mut opener) = halves(suite);
            let frames: Vec<_> = (0..3)
                .map(|n| seal(&mut sealer, n == 2, &[n; 40]))
                .collect();
            assert!(
                open(&mut opener, &frames[1]).is_err(),
                "one was dropped, or two swapped"
            );
            let (_, mut opener) = halves(suite);
            assert!(open(&mut opener, &frames[0]).is_ok());
            assert!(open(&mut opener, &frames[0]).is_err(), "doubled");
            for bit in 0..frames[0].len() * 8 {
                let (_, mut opener) = halves(suite);
                let mut forged = frames[0].clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                // A changed length would ask for another number of bytes from the connection.
                if !(8..32).contains(&bit) {
                    assert!(open(&mut opener, &forged).is_err(), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn the_two_directions_have_keys_of_their_own() {
        let keys = StreamKeys {
            send: Secret::new([1; 32]),
            receive: Secret::new([2; 32]),
            suite: Suite::ChaCha,
        };
        let (mut sealer, mut opener) = keys.into_halves();
        let frame = seal(&mut sealer, false, b"reflected");
        assert!(open(&mut opener, &frame).is_err());
    }

    #[test]
    fn both_ends_step_to_the_next_key_together() {
        for suite in SUITES {
            let (mut sealer, mut opener) = halves(suite);
            let first_secret = sealer.epoch.secret.clone();
            for epoch in [&mut sealer.epoch, &mut opener.epoch] {
                epoch.count = (1 << EPOCH_BITS) - 2;
            }
            sealer.key = sealer.epoch.key();
            opener.key = opener.epoch.key();
            for n in 0..4 {
                let frame = seal(&mut sealer, false, &[n; 5]);
                assert_eq!(open(&mut opener, &frame), Ok(vec![n; 5]));
            }
            assert_ne!(sealer.epoch.secret, first_secret);
            assert_eq!(
                sealer.epoch.secret,
                expand_secret(&first_secret, label::STREAM_NEXT)
            );
        }
    }
}
