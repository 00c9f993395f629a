//! A long-term X25519 key pair: who a peer or a tracker is.

use curve25519_dalek::montgomery::MontgomeryPoint;

use super::random::Random;
use super::secret::Secret;
use crate::wire::id::PeerId;

/// Our own identity; its private half never leaves this machine.
#[derive(Clone, Debug)]
pub struct Identity {
    private: Secret<32>,
    public: PeerId,
}

impl Identity {
    /// A new identity.
    #[must_use]
    pub fn generate(random: &mut dyn Random) -> Self {
        Self::from_private(Secret::from_fn(|key| random.fill(key)))
    }

    /// The identity with this private key.
    #[must_use]
    pub fn from_private(private: Secret<32>) -> Self {
        let public = PeerId(MontgomeryPoint::mul_base_clamped(*private.expose()).to_bytes());
        Self { private, public }
    }

    /// The private key, for the handshake and for the file that keeps it.
    #[must_use]
    pub const fn private(&self) -> &Secret<32> {
        &self.private
    }

    /// The public key.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.public
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::OsRandom;

    #[test]
    fn two_identities_differ_and_are_silent() {
        let (one, two) = (
            Identity::generate(&mut OsRandom::new()),
            Identity::generate(&mut OsRandom::new()),
        );
        assert_ne!(one.id(), two.id());
        assert!(format!("{one:?}").contains("Secret(..)"));
    }
}
