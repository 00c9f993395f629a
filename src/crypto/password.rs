//! Hashes of users' passwords: Argon2id in PHC form, which carries its own parameters and salt.
//!
//! A hash costs as much as its parameters say, whatever the password; bounds keep a foreign line from
//! asking for a machine's whole memory. A decoy costs the same and fits nothing: who is checked against one
//! learns from the time that it takes no more than from the answer.

use std::fmt;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash as Phc, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::random::{Random, random_bytes};
use crate::wire::password::Password;

/// Argon2id of new hashes: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// The most that a hash may cost to check.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 16;
/// As much memory as a new hash needs is kept from check to check, in blocks of 1 KiB.
const KEPT_BLOCKS: usize = MEMORY_KIB as usize;
const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;
/// Shorter outputs could be met by chance.
const MIN_HASH_LEN: usize = 16;

/// Why a text is not a hash of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// It is no PHC string of Argon2id in version 19, with salt and hash.
    #[error("no Argon2id hash")]
    Form,
    /// Checking it would take too long, or too much memory.
    #[error("Argon2id parameters above 256 MiB, t=10 or p=16")]
    TooCostly,
}

/// What Argon2 works in.
#[derive(Default)]
pub struct Memory(Vec<Block>);

/// The hash of one password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    text: String,
    salt: Vec<u8>,
    output: Vec<u8>,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PasswordHash {
    /// Hashes `password` with the parameters of new hashes. Takes 19 MiB and some 20 ms.
    #[must_use]
    pub fn new(password: &Password, random: &mut dyn Random) -> Self {
        let mut hash = Self {
            text: String::new(),
            salt: random_bytes::<SALT_LEN>(random).to_vec(),
            output: vec![0; HASH_LEN],
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
        };
        hash.output = hash.compute(password).to_vec();
        hash.with_text()
    }

    /// Reads a hash in PHC form.
    ///
    /// # Errors
    /// When it is none, or costs too much.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let phc = Phc::new(text).map_err(|_| HashError::Form)?;
        let version = phc.version.unwrap_or_default();
        if phc.algorithm != ARGON2ID_IDENT || version != u32::from(Version::V0x13) {
            return Err(HashError::Form);
        }
        let number = |name: &str| phc.params.get_decimal(name).ok_or(HashError::Form);
        let (memory_kib, passes, lanes) = (number("m")?, number("t")?, number("p")?);
        // Before anything is made of them.
        if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
            return Err(HashError::TooCostly);
        }
        let (salt, output) = (
            phc.salt.ok_or(HashError::Form)?,
            phc.hash.ok_or(HashError::Form)?,
        );
        let has_others = phc
            .params
            .iter()
            .any(|(name, _)| !["m", "t", "p"].contains(&name.as_str()));
        let salt_len = salt.as_ref().len();
        if has_others || salt_len < argon2::MIN_SALT_LEN || output.len() < MIN_HASH_LEN {
            return Err(HashError::Form);
        }
        Params::new(memory_kib, passes, lanes, Some(output.len())).map_err(|_| HashError::Form)?;
        Ok(Self {
            text: text.to_owned(),
            salt: salt.as_ref().to_vec(),
            output: output.as_bytes().to_vec(),
            memory_kib,
            passes,
            lanes,
        })
    }

    /// A hash that fits no password and costs as much as this one.
    #[must_use]
    pub fn decoy(&self, random: &mut dyn Random) -> Self {
        let output = std::iter::repeat_with(|| random_bytes::<1>(random)[0])
            .take(self.output.len())
            .collect();
        let decoy = Self {
            salt: random_bytes::<SALT_LEN>(random).to_vec(),
            output,
            ..self.clone()
        };
        decoy.with_text()
    }

    /// Does it fit this password? Takes as long as the parameters say.
    #[must_use]
    pub fn fits(&self, password: &Password) -> bool {
        self.compute(password).ct_eq(&self.output).into()
    }

    /// The same in memory that is used again, so that many checks need no more of it than one.
    #[must_use]
    pub fn fits_in(&self, password: &Password, memory: &mut Memory) -> bool {
        let params = self.params();
        memory.0.resize(params.block_count(), Block::new());
        let mut output = Zeroizing::new(vec![0; self.output.len()]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                password.expose().as_bytes(),
                &self.salt,
                &mut output,
                &mut memory.0[..],
            )
            .expect("salt, output and password were checked against Argon2's bounds");
        if memory.0.len() > KEPT_BLOCKS {
            memory.0 = Vec::new();
        }
        output.ct_eq(&self.output).into()
    }

    /// The PHC form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn compute(&self, password: &Password) -> Zeroizing<Vec<u8>> {
        let mut output = Zeroizing::new(vec![0; self.output.len()]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params())
            .hash_password_into(password.expose().as_bytes(), &self.salt, &mut output)
            .expect("salt, output and password were checked against Argon2's bounds");
        output
    }

    fn params(&self) -> Params {
        Params::new(
            self.memory_kib,
            self.passes,
            self.lanes,
            Some(self.output.len()),
        )
        .expect("they were checked when the hash was made or read")
    }

    fn with_text(mut self) -> Self {
        let phc = Phc {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&self.params()).expect("three numbers"),
            salt: Some(Salt::new(&self.salt).expect("a salt of 8 to 48 bytes")),
            hash: Some(Output::new(&self.output).expect("an output of 16 to 64 bytes")),
        };
        self.text = phc.to_string();
        self
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::OsRandom;

    /// `rose-tinted-otter`, as another program made it.
    const ANA: &str = "$argon2id$v=19$m=19456,t=2,p=1$O5EH4ljNFKZ/INmDTO5lGg$zYqv0s5Cvo/mQvWPeXeT+hT4KJlQ99QSrp5U249Rz2c";

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    #[test]
    fn a_hash_fits_its_password_and_no_other() {
        let foreign = PasswordHash::parse(ANA).unwrap();
        assert!(foreign.fits(&password("rose-tinted-otter")));
        assert!(!foreign.fits(&password("rose-tinted-otters")));
        let memory = &mut Memory::default();
        for (text, fits) in [
            ("rose-tinted-otter", true),
            ("x", false),
            ("rose-tinted-otter", true),
        ] {
            assert_eq!(foreign.fits_in(&password(text), memory), fits, "{text}");
        }
        let own = PasswordHash::new(&password("x"), &mut OsRandom::new());
        assert!(own.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        let read = PasswordHash::parse(own.as_str()).unwrap();
        assert_eq!(read, own);
        assert!(read.fits(&password("x")) && !read.fits(&password("X")));
        assert_eq!(format!("{own:?}"), "PasswordHash(..)");
    }

    #[test]
    fn a_decoy_costs_the_same_and_fits_nothing() {
        let cheap = ANA.replace("m=19456,t=2", "m=64,t=3");
        let decoy = PasswordHash::parse(&cheap)
            .unwrap()
            .decoy(&mut OsRandom::new());
        assert!(decoy.as_str().starts_with("$argon2id$v=19$m=64,t=3,p=1$"));
        assert!(!decoy.fits(&password("rose-tinted-otter")));
        assert!(PasswordHash::parse(decoy.as_str()).is_ok());
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_refused() {
        let with = |params: &str| ANA.replace("m=19456,t=2,p=1", params);
        for params in ["m=262144,t=10,p=1", "m=8,t=1,p=1", "m=128,t=1,p=16"] {
            assert!(PasswordHash::parse(&with(params)).is_ok(), "{params}");
        }
        for params in [
            "m=262145,t=2,p=1",
            "m=19456,t=11,p=1",
            "m=4096,t=1,p=17",
            "m=4294967295,t=1,p=1",
        ] {
            assert_eq!(
                PasswordHash::parse(&with(params)),
                Err(HashError::TooCostly),
                "{params}"
            );
        }
        for text in [
            "",
            "secret",
            &ANA.replace("argon2id", "argon2i"),
            &ANA.replace("v=19", "v=16"),
            &with("m=19456,t=2"),
            &with("m=7,t=1,p=1"),
            &with("m=19456,t=0,p=1"),
            &with("m=19456,t=2,p=1,keyid=Zm9v"),
            "$argon2id$v=19$m=19456,t=2,p=1$O5EH4ljNFKZ/INmDTO5lGg",
            "$2b$12$abcdefghijklmnopqrstuuJ7o1zU5n5Q3v5Q9cF3l1m5Yl2bGqS2",
        ] {
            assert_eq!(PasswordHash::parse(text), Err(HashError::Form), "{text}");
        }
    }
}
