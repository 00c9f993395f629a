//! Bytes that nobody may see: wiped when dropped, compared in constant time, silent in `Debug`.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, Zeroizing};

use crate::wire::text::nfc;

/// `N` secret bytes.
#[derive(Clone)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// A copy of `bytes`. What is secret already leaves no other copy with [`Secret::from_fn`].
    #[must_use]
    pub fn new(bytes: [u8; N]) -> Self {
        Self::from_fn(|place| *place = bytes)
    }

    /// What `fill` writes over the zeros that it is given: it is made where it stays.
    #[must_use]
    pub fn from_fn(fill: impl FnOnce(&mut [u8; N])) -> Self {
        // Boxed, so that moving a secret leaves no copy behind.
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// The bytes, for the one line that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What the members of a group know: Unicode NFC, 1 to 1024 bytes, no control characters.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

/// Why a text is not a passphrase. The words complete "the passphrase …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// No characters.
    #[error("is empty")]
    Empty,
    /// More than 1024 bytes.
    #[error("is longer than 1024 bytes")]
    TooLong,
    /// A control character, a line break among them.
    #[error("holds a control character")]
    Control,
}

impl Passphrase {
    /// Longest passphrase, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// Checks and normalises what was typed; one line ending at the end is not part of it.
    ///
    /// # Errors
    /// When it is empty, too long, or holds control characters.
    pub fn parse(text: &str) -> Result<Self, PassphraseError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        // Before the normalisation, which may allocate three times as much.
        if line.len() > Self::MAX_LEN {
            return Err(PassphraseError::TooLong);
        }
        let text = Zeroizing::new(nfc(line));
        if text.is_empty() {
            return Err(PassphraseError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(PassphraseError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PassphraseError::Control);
        }
        Ok(Self(text))
    }

    /// The text, for derivation and rating.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_what_was_written_where_it_stays() {
        let secret = Secret::from_fn(|place: &mut [u8; 4]| place[1..].fill(7));
        assert_eq!(*secret.expose(), [0, 7, 7, 7]);
        assert!(secret == Secret::new([0, 7, 7, 7]) && secret != Secret::new([0; 4]));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Secret::new([0x41; 32])), "Secret(..)");
        assert_eq!(
            format!("{:?}", Passphrase::parse("open sesame").unwrap()),
            "Passphrase(..)"
        );
    }

    #[test]
    fn a_passphrase_is_the_same_however_it_was_typed() {
        let composed = Passphrase::parse("caf\u{e9}").unwrap();
        for text in ["cafe\u{301}", "caf\u{e9}\n", "caf\u{e9}\r\n"] {
            assert_eq!(
                Passphrase::parse(text).unwrap().expose(),
                composed.expose(),
                "{text:?}"
            );
        }
        assert_ne!(
            Passphrase::parse(" caf\u{e9}").unwrap().expose(),
            composed.expose()
        );
    }

    #[test]
    fn what_is_no_passphrase_is_refused() {
        assert_eq!(Passphrase::parse("").unwrap_err(), PassphraseError::Empty);
        assert_eq!(Passphrase::parse("\n").unwrap_err(), PassphraseError::Empty);
        assert_eq!(
            Passphrase::parse("a\nb").unwrap_err(),
            PassphraseError::Control
        );
        assert_eq!(
            Passphrase::parse("a\n\n").unwrap_err(),
            PassphraseError::Control
        );
        assert_eq!(
            Passphrase::parse(&"x".repeat(1025)).unwrap_err(),
            PassphraseError::TooLong
        );
        assert!(Passphrase::parse(&"x".repeat(1024)).is_ok());
    }
}
