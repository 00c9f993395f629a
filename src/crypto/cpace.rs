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
        let mut compressed = secret.compress();
        secret.zeroize();
        let shared = Secret::from_fn(|place| *place = *compressed.as_bytes());
        compressed.zeroize();
        Ok(shared)
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
    Secret::from_fn(|place| *place = sha512(&input))
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

    // draft-irtf-cfrg-cpace-21, appendix B.3.
    const SID: &str = "7e4b4791d6a8ef019b936c79fb7f2c57";
    const GENERATOR: &str = "222b6b195fe84b1652badb6f6a3ae3d24341e7306967f0b8115b40d5698c7e56";
    const SCALARS: [&str; 2] = [
        "da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4ff0976d08",
        "d2316b454718c35362d83d69df6320f38578ed5984651435e2949762d900b80d",
    ];
    const SHARES: [&str; 2] = [
        "d6bac480f2c386c394efc7c47adb9925dcd2630b64f240c50f8d0eec482b9157",
        "3ea7e0b19560d7c0b0f5734f63b955286dfa8232b5ebe63324e2d9e7433f7258",
    ];
    const POINT: &str = "80b69a8a76457ab6a4d7f887a4bf6b55a2f80ac19c333f917a05fc9887c8b40f";
    const ISK: &str = "b69effbf61b51d56401c0f65601abe428de8206feaaf0e32198896dcae7b35cd\
                       2b38950a39dfd5d4a79164614c2984f7daa460b588c1e80c3fa2068af7900447";
    // B.3.10 and B.3.11: one multiplication that is valid, one point that is not.
    const SCALAR: &str = "7cd0e075fa7955ba52c02759a6c90dbbfc10e6d40aea8d283e407d88cf538a05";
    const VALID: &str = "2c3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c";
    const PRODUCT: &str = "7c13645fe790a468f62c39beb7388e541d8405d1ade69d1778c5fe3e7f6b600e";
    const INVALID: &str = "2b3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c";

    fn hex(digits: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
    }

    fn bytes(digits: &str) -> [u8; 32] {
        hex(digits).try_into().unwrap()
    }

    /// An exchange with a scalar of the draft; it is below the order, so that reduction leaves it as it is.
    fn of_the_draft(scalar: &str) -> Exchange {
        let mut wide = [0; 64];
        wide[..32].copy_from_slice(&hex(scalar));
        Exchange::new(
            b"Password",
            b"\x0bA_initiator\x0bB_responder",
            &hex(SID),
            wide,
        )
    }

    #[test]
    fn it_computes_what_the_draft_computes() {
        let generator = generator(b"Password", b"\x0bA_initiator\x0bB_responder", &hex(SID));
        assert_eq!(generator.compress().to_bytes(), bytes(GENERATOR));
        let [a, b] = SCALARS.map(of_the_draft);
        assert_eq!([a.share, b.share], SHARES.map(bytes));
        let secret = a.agree(&b.share).unwrap();
        assert_eq!(secret.expose(), &bytes(POINT));
        assert_eq!(b.agree(&a.share), Ok(secret.clone()));
        let isk = session_key(&hex(SID), &secret, (&a.share, b"ADa"), (&b.share, b"ADb"));
        assert_eq!(isk.expose().as_slice(), hex(ISK));
        assert_eq!(
            of_the_draft(SCALAR).agree(&bytes(VALID)).unwrap().expose(),
            &bytes(PRODUCT)
        );
        assert_eq!(
            of_the_draft(SCALAR).agree(&bytes(INVALID)),
            Err(InvalidShare)
        );
        assert_eq!(
            of_the_draft(&"00".repeat(32)).agree(&bytes(VALID)),
            Err(InvalidShare),
            "scalar zero"
        );
    }

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
