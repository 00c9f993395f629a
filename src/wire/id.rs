//! Names of things that are numbers: content, identities, sessions, requests.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::digest;
use serde::{Deserialize, Serialize};

/// The plain BLAKE3 hash of a file's bytes: what `b3sum` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentId(pub [u8; 32]);

impl ContentId {
    /// In the place of an id that is not known yet. No bytes hash to it.
    pub const NONE: Self = Self([0; 32]);
    /// Hex digits of the short form, which people see beside a name.
    pub const SHORT_LEN: usize = 8;

    /// The 64 hex digits that `b3sum` prints.
    #[must_use]
    pub fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// The first eight hex digits behind `b3:`, for tables.
    #[must_use]
    pub fn short(self) -> String {
        format!("b3:{}", &self.to_hex()[..Self::SHORT_LEN])
    }
}

/// `b3:` and 64 hex digits.
impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b3:{}", self.to_hex())
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {0}")]
pub struct ParseIdError(&'static str);

/// Accepts 64 hex digits in either case, with or without `b3:`.
impl FromStr for ContentId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        const WANTED: ParseIdError = ParseIdError("a content id (64 hex digits, as b3sum prints)");
        let digits = text.strip_prefix("b3:").unwrap_or(text);
        let bytes = HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .map_err(|_| WANTED)?;
        Ok(Self(bytes.try_into().map_err(|_| WANTED)?))
    }
}

/// A long-term X25519 public key: who a peer or a tracker is. Trust and pins stick to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub [u8; 32]);

impl PeerId {
    /// The form of this key that people read, type and compare (`docs/protocol.md` § Identities).
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"p2pfs/1 id\0");
        context.update(&self.0);
        let hash = context.finish();
        let bytes = hash.as_ref()[..Fingerprint::LEN]
            .try_into()
            .expect("SHA-256 has 32 bytes");
        Fingerprint {
            bytes,
            len: Fingerprint::LEN,
        }
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fingerprint().brief())
    }
}

/// A key print: SHA-256 of a public key, cut to 160 bits, in base32 groups of four; a typed one may
/// stop after any group from the fourth on (80 bits).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    bytes: [u8; Self::LEN],
    len: usize,
}

impl Fingerprint {
    const LEN: usize = 20;
    const MIN_LEN: usize = 10;

    /// The first four groups (80 bits): enough for a line that is pasted.
    #[must_use]
    pub fn brief(&self) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..Self::MIN_LEN].copy_from_slice(&self.bytes[..Self::MIN_LEN]);
        Self {
            bytes,
            len: Self::MIN_LEN,
        }
    }

    /// Is this the print of `key`, as far as it goes?
    #[must_use]
    pub fn is_of(&self, key: &PeerId) -> bool {
        key.fingerprint().bytes[..self.len] == self.bytes[..self.len]
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32_NOPAD
            .encode(&self.bytes[..self.len])
            .to_ascii_lowercase();
        for (index, digit) in text.chars().enumerate() {
            if index > 0 && index % 4 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        const WANTED: ParseIdError =
            ParseIdError("a key print (4 to 8 groups of 4 letters and digits)");
        let digits: String = text
            .chars()
            .filter(|c| *c != '-')
            .collect::<String>()
            .to_ascii_uppercase();
        // Whole groups of four digits are 20 bits each; base32 needs an even number of them for whole bytes.
        let decoded = BASE32_NOPAD.decode(digits.as_bytes()).map_err(|_| WANTED)?;
        if !(Self::MIN_LEN..=Self::LEN).contains(&decoded.len()) {
            return Err(WANTED);
        }
        let mut bytes = [0; Self::LEN];
        bytes[..decoded.len()].copy_from_slice(&decoded);
        Ok(Self {
            bytes,
            len: decoded.len(),
        })
    }
}

/// A control session: 56 random bits, chosen by the tracker, the same in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SessionId([u8; 7]);

impl SessionId {
    /// The id with these bytes, as it stands on the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 7]) -> Self {
        Self(bytes)
    }

    /// As it stands on the wire.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 7] {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A request of one session, numbered by the asker; its repetitions bear the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u32);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_content_id_is_read_as_b3sum_prints_it() {
        let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        let id: ContentId = hex.parse().unwrap();
        assert_eq!(id.0, *blake3::hash(b"").as_bytes());
        assert_eq!(id.to_string(), format!("b3:{hex}"));
        assert_eq!(id.short(), "b3:af1349b9");
        assert_eq!(hex.to_uppercase().parse(), Ok(id));
        assert!(hex[1..].parse::<ContentId>().is_err());
        assert!("".parse::<ContentId>().is_err());
    }

    #[test]
    fn a_key_print_matches_its_key_only() {
        let (key, other) = (PeerId([7; 32]), PeerId([8; 32]));
        let print = key.fingerprint();
        assert_eq!(print.to_string().len(), 39);
        assert!(print.is_of(&key) && !print.is_of(&other));
        assert!(print.brief().is_of(&key) && !print.brief().is_of(&other));
        assert_eq!(print.brief().to_string().parse(), Ok(print.brief()));
        assert_eq!(print.to_string().to_uppercase().parse(), Ok(print));
    }

    #[test]
    fn a_key_print_of_less_than_80_bits_is_refused() {
        let text = PeerId([7; 32]).fingerprint().to_string();
        for short in ["", &text[..4], &text[..14], "not-a-key-print!"] {
            assert!(short.parse::<Fingerprint>().is_err(), "{short:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_survive_their_text(bytes: [u8; 32]) {
            prop_assert_eq!(ContentId(bytes).to_string().parse(), Ok(ContentId(bytes)));
            let print = PeerId(bytes).fingerprint();
            prop_assert_eq!(print.to_string().parse(), Ok(print));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = text.parse::<ContentId>();
            let _ = text.parse::<Fingerprint>();
        }
    }
}
