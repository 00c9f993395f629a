//! A user's password on its way to the tracker: checked at the door, wiped when dropped, never shown.

use std::fmt;

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::text::nfc;

/// What a user knows: Unicode NFC, 1 to 256 bytes, no control characters.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// Why a text is not a password. The words complete "the password …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// No characters.
    #[error("is empty")]
    Empty,
    /// More than 256 bytes.
    #[error("is longer than 256 bytes")]
    TooLong,
    /// A control character, a line break among them.
    #[error("holds a control character")]
    Control,
}

impl Password {
    /// Longest password, in bytes: with it a LOGIN still fits its size.
    pub const MAX_LEN: usize = 256;

    /// Checks and normalises what was typed; one line ending at the end is not part of it.
    ///
    /// # Errors
    /// When it is empty, too long, or holds control characters.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        // Before the normalisation, which may allocate three times as much.
        if line.len() > Self::MAX_LEN {
            return Err(PasswordError::TooLong);
        }
        let text = Zeroizing::new(nfc(line));
        if text.is_empty() {
            return Err(PasswordError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(PasswordError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PasswordError::Control);
        }
        Ok(Self(text))
    }

    /// The text, for hashing and rating.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let password = Self::parse(&text).map_err(serde::de::Error::custom)?;
        if password.expose() == *text {
            Ok(password)
        } else {
            Err(serde::de::Error::custom("not in its normal form"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_same_however_it_was_typed_and_shown_nowhere() {
        let password = Password::parse("caf\u{e9}").unwrap();
        for text in ["cafe\u{301}", "caf\u{e9}\n", "caf\u{e9}\r\n"] {
            assert_eq!(Password::parse(text).unwrap(), password, "{text:?}");
        }
        assert_ne!(Password::parse("cafe").unwrap(), password);
        assert_eq!(format!("{password:?}"), "Password(..)");
    }

    #[test]
    fn what_is_no_password_is_refused() {
        for (text, error) in [
            ("", PasswordError::Empty),
            ("\r\n", PasswordError::Empty),
            ("a\tb", PasswordError::Control),
            ("a\n\n", PasswordError::Control),
            (&"x".repeat(257), PasswordError::TooLong),
        ] {
            assert_eq!(Password::parse(text), Err(error), "{text:?}");
        }
        assert!(Password::parse(&"x".repeat(256)).is_ok());
        assert!(Password::parse(" with blanks ").is_ok());
    }
}
