//! The words that two people read to each other: a slow hash over both their keys.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::digest;

use crate::wire::id::PeerId;

/// Words that are read out. Each stands for 11 bits: its place in a list of 2048.
pub const WORDS: usize = 8;
const BITS: usize = 11;
/// As slow as a group's passphrase: 64 MiB, three passes, one lane.
const ARGON2_KIB: u32 = 64 * 1024;
const ARGON2_PASSES: u32 = 3;
const ARGON2_LANES: u32 = 1;

/// Places in the list of words, the same for both people. Takes 64 MiB and a tenth of a second.
///
/// Somebody who sits in between shows each of the two a key of his own, and wants two of them with the same
/// words: of 2^44 keys on either side a pair fits, and each costs one such hash (`docs/protocol.md` § Identities).
#[must_use]
pub fn spoken(one: &PeerId, other: &PeerId) -> [u16; WORDS] {
    let keys = [one.min(other).0, one.max(other).0].concat();
    let salt = digest::digest(&digest::SHA256, b"p2pfs/1 words\0");
    const LEN: usize = WORDS * BITS / 8;
    let params = Params::new(ARGON2_KIB, ARGON2_PASSES, ARGON2_LANES, Some(LEN))
        .expect("the constants are within Argon2's bounds");
    let mut hash = [0; LEN];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(&keys, &salt.as_ref()[..16], &mut hash)
        .expect("keys, salt and output are within Argon2's bounds");
    std::array::from_fn(|word| {
        let bits = word * BITS..(word + 1) * BITS;
        bits.fold(0, |place, bit| {
            place << 1 | u16::from(hash[bit / 8] >> (7 - bit % 8) & 1)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_read_the_same_and_nobody_else_does() {
        let (ana, bob, eve) = (PeerId([1; 32]), PeerId([2; 32]), PeerId([3; 32]));
        let words = spoken(&ana, &bob);
        assert_eq!(words, spoken(&bob, &ana));
        // Made with another implementation of Argon2 as well.
        assert_eq!(words, [1067, 88, 1087, 133, 641, 147, 491, 1738]);
        assert_ne!(words, spoken(&ana, &eve));
    }
}
