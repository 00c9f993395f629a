//! Seals and opens beacons, under a key that everybody has who knows the name of the network.

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::kdf::{NetworkName, hkdf};
use super::label;
use super::random::{Random, random_bytes};
use super::secret::Secret;
use crate::wire::beacon::{BEACON_LEN, BEACON_NONCE_LEN, Beacon, TYPE_BEACON};

/// The key of one network's beacons: form, not secrecy. Nothing of the passphrase is in it.
#[derive(Clone, Debug)]
pub struct BeaconKey(pub(super) Secret<32>);

impl BeaconKey {
    /// Of this network.
    #[must_use]
    pub fn of(network: &NetworkName) -> Self {
        Self(hkdf(label::OPEN, &[network.as_str().as_bytes()], b"beacon"))
    }

    /// A whole datagram.
    #[must_use]
    pub fn seal(&self, beacon: Beacon, random: &mut dyn Random) -> [u8; BEACON_LEN] {
        let nonce: [u8; BEACON_NONCE_LEN] = random_bytes(random);
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), beacon.to_bytes().as_slice())
            .expect("32 bytes are far from what XChaCha20-Poly1305 cannot seal");
        let mut datagram = [0; BEACON_LEN];
        datagram[0] = TYPE_BEACON;
        datagram[1..=BEACON_NONCE_LEN].copy_from_slice(&nonce);
        datagram[1 + BEACON_NONCE_LEN..].copy_from_slice(&sealed);
        datagram
    }

    /// What a datagram says, if it is a beacon of this network.
    #[must_use]
    pub fn open(&self, datagram: &[u8]) -> Option<Beacon> {
        let datagram: &[u8; BEACON_LEN] = datagram.try_into().ok()?;
        let (kind, rest) = datagram.split_first()?;
        let (nonce, sealed) = rest.split_first_chunk::<BEACON_NONCE_LEN>()?;
        if *kind != TYPE_BEACON {
            return None;
        }
        let opened = self.cipher().decrypt(&XNonce::from(*nonce), sealed).ok()?;
        Beacon::parse(opened.as_slice().try_into().ok()?).ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.expose().into())
    }
}
