//! Passphrase to group key (Argon2id); every labelled key after it (HKDF).

use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use ring::{digest, hkdf};

use super::label;
use super::secret::{Passphrase, Secret};

/// Argon2id of every p2pfs/1 group: 64 MiB, three passes, one lane (RFC 9106, second recommendation).
const ARGON2_KIB: u32 = 64 * 1024;
const ARGON2_PASSES: u32 = 3;
const ARGON2_LANES: u32 = 1;

/// Separates groups; not secret, never sent: 1 to 63 of `a-z`, `0-9` and `-`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkName(String);

/// A text that is not a network name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network name has 1 to 63 of a-z, 0-9 and -")]
pub struct NetworkNameError;

impl NetworkName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NetworkName {
    fn default() -> Self {
        Self("p2pfs".to_owned())
    }
}

impl FromStr for NetworkName {
    type Err = NetworkNameError;
    fn from_str(text: &str) -> Result<Self, NetworkNameError> {
        let is_plain = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if is_plain && (1..=63).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NetworkNameError)
        }
    }
}

/// What every member holds: the network name, and `PW`, which Argon2id made of the passphrase.
#[derive(Clone, Debug)]
pub struct Group {
    network: NetworkName,
    pw: Secret<32>,
}

impl Group {
    /// Derives `PW`; takes 64 MiB and a tenth of a second, once for each start of the program.
    #[must_use]
    pub fn derive(passphrase: &Passphrase, network: NetworkName) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"p2pfs/1 passphrase\0");
        context.update(network.as_str().as_bytes());
        let salt = context.finish();
        let params = Params::new(ARGON2_KIB, ARGON2_PASSES, ARGON2_LANES, Some(32))
            .expect("the constants are within Argon2's bounds");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let (passphrase, salt) = (passphrase.expose().as_bytes(), &salt.as_ref()[..16]);
        let pw = Secret::from_fn(|pw| {
            argon2
                .hash_password_into(passphrase, salt, pw)
                .expect("passphrase, salt and output are within Argon2's bounds");
        });
        Self { network, pw }
    }

    /// The network name.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        &self.network
    }

    /// `PW`, which enters the PAKE.
    pub(super) const fn pw(&self) -> &Secret<32> {
        &self.pw
    }

    /// The key under which the members of a tracker with this seed greet each other.
    #[must_use]
    pub fn member_key(&self, seed: &TrackerSeed) -> MemberKey {
        MemberKey(hkdf(
            label::MEMBER,
            &[seed.0.expose(), self.pw.expose()],
            self.network.0.as_bytes(),
        ))
    }
}

/// 32 random bytes of a tracker, kept in its state directory.
#[derive(Clone, Debug)]
pub struct TrackerSeed(pub Secret<32>);

/// `MK`: random to everybody but members, so it keys what strangers see without being an oracle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberKey(pub Secret<32>);

/// The keys that seal m1 and m2 of a handshake.
#[derive(Clone, Debug)]
pub struct EnvelopeKeys {
    pub(super) m1: Secret<32>,
    pub(super) m2: Secret<32>,
}

impl EnvelopeKeys {
    /// For dialling a tracker: known to whoever knows the network name. Form, not secrecy.
    #[must_use]
    pub fn open(group: &Group) -> Self {
        let key = |direction| hkdf(label::OPEN, &[group.network.0.as_bytes()], direction);
        Self {
            m1: key(b"m1"),
            m2: key(b"m2"),
        }
    }

    /// For dialling a peer: known to members only.
    #[must_use]
    pub fn closed(key: &MemberKey) -> Self {
        let derive = |direction| hkdf(label::CLOSED, &[key.0.expose()], direction);
        Self {
            m1: derive(b"m1"),
            m2: derive(b"m2"),
        }
    }
}

/// `HKDF(salt, ikm, info)` with 32 bytes of output; `ikm` is the concatenation of its parts.
pub(super) fn hkdf(salt: &[u8], ikm: &[&[u8]], info: &[u8]) -> Secret<32> {
    expand(&extract(salt, ikm), info)
}

/// HKDF-Extract over the concatenation of the parts of `ikm`.
pub(super) fn extract(salt: &[u8], ikm: &[&[u8]]) -> hkdf::Prk {
    let ikm = zeroize::Zeroizing::new(ikm.concat());
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&ikm)
}

/// HKDF-Expand to 32 bytes.
pub(super) fn expand(prk: &hkdf::Prk, info: &[u8]) -> Secret<32> {
    Secret::from_fn(|key| {
        prk.expand(&[info], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(key))
            .expect("32 bytes are one block of HKDF-SHA256");
    })
}

/// HKDF-Expand from a secret of 32 bytes that serves as PRK itself.
pub(super) fn expand_secret(secret: &Secret<32>, info: &[u8]) -> Secret<32> {
    expand(
        &hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret.expose()),
        info,
    )
}
