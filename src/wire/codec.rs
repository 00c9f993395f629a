//! Bounded reading of foreign bytes: integers, lists, and the one error of all parsers.
//!
//! Nothing here allocates from a length field: a list grows only as far as bytes are there for it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Bytes that are not the message they claim to be. Which rule they broke is for the log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct DecodeError(pub &'static str);

/// Takes the first `N` bytes off `bytes`.
///
/// # Errors
/// When fewer are left.
pub fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, tail) = bytes
        .split_first_chunk::<N>()
        .ok_or(DecodeError("cut short"))?;
    *bytes = tail;
    Ok(*head)
}

/// Reads a body written by [`encode`]. Bytes behind the known fields are left to later versions.
///
/// # Errors
/// When the bytes are not a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    postcard::take_from_bytes(bytes)
        .map(|(value, _later_fields)| value)
        .map_err(|_| DecodeError("body"))
}

/// The same, with the bytes behind the known fields.
///
/// # Errors
/// As [`decode`].
pub fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(|_| DecodeError("body"))
}

/// Appends a text that nobody may see, as [`encode`] does, and leaves no copy behind. `out` must have room.
pub fn encode_secret(text: &str, out: &mut Vec<u8>) {
    let mut len = text.len();
    while len > 0x7f {
        out.push(u8::try_from(len & 0x7f).expect("seven bits") | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).expect("seven bits"));
    out.extend_from_slice(text.as_bytes());
}

/// Appends `value` in postcard's format (<https://postcard.jamesmunns.com/wire-format>).
pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let bytes = postcard::to_stdvec(value)
        .expect("messages are plain data with known lengths, which postcard always writes");
    out.extend_from_slice(&bytes);
}

/// Writes `value` in the same format to the beginning of `out`: how many bytes, or `None` when they are
/// more than it has.
pub fn write<T: Serialize>(value: &T, out: &mut [u8]) -> Option<usize> {
    postcard::to_slice(value, out).ok().map(|bytes| bytes.len())
}

/// Deserialises a list of at most `MAX` entries; for `#[serde(deserialize_with = "codec::list::<MAX, _, _>")]`.
///
/// # Errors
/// When an entry is malformed or there are more than `MAX`.
pub fn list<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Bounded<const MAX: usize, T>(PhantomData<T>);
    impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Bounded<MAX, T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} entries")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
            // Not with_capacity: the claimed length is the sender's word.
            let mut values = Vec::new();
            while let Some(value) = entries.next_element()? {
                if values.len() == MAX {
                    return Err(serde::de::Error::invalid_length(MAX + 1, &self));
                }
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_seq(Bounded::<MAX, T>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Three(#[serde(deserialize_with = "list::<3, _, _>")] Vec<u16>);

    #[test]
    fn a_list_keeps_its_bound() {
        let mut bytes = Vec::new();
        encode(&Three(vec![1, 2, 3]), &mut bytes);
        assert_eq!(decode::<Three>(&bytes), Ok(Three(vec![1, 2, 3])));
        bytes.clear();
        encode(&Three(vec![1, 2, 3, 4]), &mut bytes);
        assert!(decode::<Three>(&bytes).is_err());
    }

    #[test]
    fn a_claimed_length_without_bytes_is_refused() {
        assert!(decode::<Three>(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }

    #[test]
    fn bytes_behind_the_known_fields_are_left_alone() {
        assert_eq!(decode::<u8>(&[7, 1, 2, 3]), Ok(7));
    }

    #[test]
    fn a_secret_is_written_like_any_text() {
        for len in [0, 1, 127, 128, 255, 256, 20_000] {
            let (text, mut plain, mut secret) = ("x".repeat(len), Vec::new(), Vec::new());
            encode(&text, &mut plain);
            encode_secret(&text, &mut secret);
            assert_eq!(plain, secret, "{len}");
        }
    }

    #[test]
    fn take_refuses_what_is_not_there() {
        let mut bytes: &[u8] = &[1, 2, 3];
        assert_eq!(take::<2>(&mut bytes), Ok([1, 2]));
        assert_eq!(take::<2>(&mut bytes), Err(DecodeError("cut short")));
        assert_eq!(bytes, &[3]);
    }
}
