//! The PAKE over ristretto255, as in draft-irtf-cfrg-cpace-21, with its vectors.
//!
//! Suite CPACE-RISTR255-SHA512 in initiator/responder mode. Each side multiplies a generator that only
//! the passphrase yields; who guesses wrong learns nothing but that, and one guess costs one session.

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use ring::digest;
use zeroize::{Zeroize as _, Zeroizing};

use super::secret::Secret;

const DSI: &[u8] = b"CPaceRistretto255";
const DSI_ISK: &[u8] = b"CPaceRistretto255_ISK";
/// Input block of SHA-512, which the generator string's first block fills with the password.
const HASH_BLOCK_LEN: usize = 128;

/// The other side's share is no point, or one that yields nothing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidShare;

/// One side of one exchange.
pub(super) struct Exchange {
    scalar: Zeroizing<Scalar>,
    /// Our share, for the other side.
    pub(super) share: [u8; 32],
}

impl Exchange {
    /// Begins with 64 random bytes, reduced to a scalar.
    pub(super) fn new(password: &[u8], channel: &[u8], session: &[u8], wide: [u8; 64]) -> Self {
        let wide = Zeroizing::new(wide);
        let scalar = Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide));
        let share = (generator(password, channel, session) * *scalar)
            .compress()
            .to_bytes();
        Self { scalar, share }
    }

    /// The secret point, from the other side's share.
    pub(super) fn agree(&self, share: &[u8; 32]) -> Result<Secret<32>, InvalidShare> {
        let point = CompressedRistretto(*share)
            .decompress()
            .ok_or(InvalidShare)?;
        let mut secret = point * *self.scalar;
        if secret == RistrettoPoint::identity() {
            return Err(InvalidShare);
        }
        let bytes = secret.compress().to_bytes();
        secret.zeroize();
        Ok(Secret::new(bytes))
    }
}

/// The intermediate session key: the secret point, bound to the whole transcript.
pub(super) fn session_key(
    session: &[u8],
    secret: &Secret<32>,
    (share_a, data_a): (&[u8], &[u8]),
    (share_b, data_b): (&[u8], &[u8]),
) -> Secret<64> {
    let mut input = Zeroizing::new(Vec::with_capacity(3072));
    for part in [
        DSI_ISK,
        session,
        secret.expose(),
        share_a,
        data_a,
        share_b,
        data_b,
    ] {
        prepend_len(&mut input, part);
    }
    Secret::new(sha512(&input))
}

fn generator(password: &[u8], channel: &[u8], session: &[u8]) -> RistrettoPoint {
    let mut input = Zeroizing::new(Vec::with_capacity(256));
    prepend_len(&mut input, DSI);
    prepend_len(&mut input, password);
    // The zeros fill the hash's first block, so that all that depends on the password is in it.
    let zeros = vec![0; (HASH_BLOCK_LEN - 1).saturating_sub(input.len())];
    prepend_len(&mut input, &zeros);
    prepend_len(&mut input, channel);
    prepend_len(&mut input, session);
    let hash = Zeroizing::new(sha512(&input));
    RistrettoPoint::from_uniform_bytes(&hash)
}

/// `lv(x)` of the draft: the length in LEB128, then the bytes.
fn prepend_len(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut len = bytes.len();
    loop {
        let digit = u8::try_from(len & 0x7f).expect("seven bits");
        len >>= 7;
        out.push(if len > 0 { digit | 0x80 } else { digit });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(bytes);
}

fn sha512(input: &[u8]) -> [u8; 64] {
    let hash = digest::digest(&digest::SHA512, input);
    hash.as_ref().try_into().expect("SHA-512 has 64 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(password: &[u8], byte: u8) -> Exchange {
        Exchange::new(password, b"channel", b"session", [byte; 64])
    }

    #[test]
    fn both_sides_agree_when_the_passwords_do() {
        let (a, b, c) = (
            exchange(b"right", 1),
            exchange(b"right", 2),
            exchange(b"wrong", 2),
        );
        assert_eq!(a.agree(&b.share), b.agree(&a.share));
        assert_ne!(a.agree(&c.share), c.agree(&a.share));
    }

    #[test]
    fn shares_that_yield_nothing_secret_are_refused() {
        let ours = exchange(b"right", 1);
        assert_eq!(ours.agree(&[0; 32]), Err(InvalidShare), "the identity");
        assert_eq!(
            ours.agree(&[0xff; 32]),
            Err(InvalidShare),
            "no encoding of a point"
        );
        let mut negative = exchange(b"right", 2).share;
        negative[0] ^= 1;
        assert_eq!(
            ours.agree(&negative),
            Err(InvalidShare),
            "not the canonical encoding"
        );
    }

    #[test]
    fn lengths_are_told_apart() {
        let mut one = Vec::new();
        prepend_len(&mut one, &[7; 200]);
        assert_eq!(one[..3], [0xc8, 0x01, 7]);
    }
}
