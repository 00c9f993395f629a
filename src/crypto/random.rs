//! Where keys, nonces and tokens come from: an argument of everything below the drivers.

use ring::rand::SecureRandom as _;

/// A source of random bytes. Drivers pass [`OsRandom`]; tests and the simulation pass a seeded one.
pub trait Random: Send {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// An array of random bytes.
#[must_use]
pub fn random_bytes<const N: usize>(random: &mut dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

/// The operating system's generator, through ring.
#[derive(Clone, Debug)]
pub struct OsRandom(ring::rand::SystemRandom);

impl OsRandom {
    /// The generator; nothing is opened or kept.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default that is not deterministic would surprise"
    )]
    pub fn new() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Random for OsRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0
            .fill(bytes)
            .expect("without the system's random numbers there is nothing safe to do");
    }
}
