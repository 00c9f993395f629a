//! The outside: what a stranger on the wire sees of a datagram or a frame.
//!
//! ```text
//! datagram  │ type 1 │ session 7 │ counter 8 │ ciphertext 64, 128, 256, 512 or 1200 │ tag 16 │
//! frame     │ flags 1 │ length 3 │ ciphertext, `length` bytes │ tag 16 │
//! ```
//! Integers are big endian. The header is associated data of the seal, so nothing here is trusted before
//! the envelope opened.

use super::codec::DecodeError;
use super::id::SessionId;
use super::{MAX_DATAGRAM_LEN, MAX_FRAME_LEN};

/// Bytes of an AEAD tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a datagram's header.
pub const DATAGRAM_HEADER_LEN: usize = 16;
/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: usize = 4;
/// Bytes that a datagram has beyond its plaintext.
pub const DATAGRAM_OVERHEAD: usize = DATAGRAM_HEADER_LEN + TAG_LEN;
/// Bytes of the handshake's first and second message.
pub const HELLO_LEN: usize = 1336;
/// Bytes of the handshake's third message.
pub const CONFIRM_LEN: usize = 128;
/// Bytes of a RESUME datagram.
pub const RESUME_LEN: usize = 304;
/// Bytes of a RESUMED datagram.
pub const RESUMED_LEN: usize = 296;

/// The sizes to which plaintexts are padded, so that a datagram's length says little.
pub const CLASSES: [usize; 5] = [64, 128, 256, 512, 1200];

/// The smallest class that holds `len` bytes of plaintext, or `None` when none does.
#[must_use]
pub fn class_for(len: usize) -> Option<usize> {
    CLASSES.into_iter().find(|class| *class >= len)
}

/// What a program on the network is, as the handshake names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Knows who is here and who has what.
    Tracker,
    /// Shares and downloads.
    Peer,
}

impl Role {
    /// The byte on the wire.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Tracker => 1,
            Self::Peer => 2,
        }
    }

    /// The role of a byte on the wire.
    ///
    /// # Errors
    /// For every byte but 1 and 2.
    pub const fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        match byte {
            1 => Ok(Self::Tracker),
            2 => Ok(Self::Peer),
            _ => Err(DecodeError("role")),
        }
    }
}

/// A datagram, sorted by its first byte and its length; everything else is dropped unread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Datagram {
    /// `0x14`: a sealed control message of a session.
    Data(DataHeader),
    /// `0x12`: a peer with a ticket wants a new session.
    Resume,
    /// `0x13`: the tracker's answer to it.
    Resumed,
}

const TYPE_RESUME: u8 = 0x12;
const TYPE_RESUMED: u8 = 0x13;
const TYPE_DATA: u8 = 0x14;

impl Datagram {
    /// Sorts `bytes`.
    ///
    /// # Errors
    /// When type and length fit none of the three kinds.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        match (bytes.first(), bytes.len()) {
            (Some(&TYPE_DATA), len) if CLASSES.contains(&len.wrapping_sub(DATAGRAM_OVERHEAD)) => {
                DataHeader::parse(bytes).map(Self::Data)
            }
            (Some(&TYPE_RESUME), RESUME_LEN) => Ok(Self::Resume),
            (Some(&TYPE_RESUMED), RESUMED_LEN) => Ok(Self::Resumed),
            _ => Err(DecodeError("no datagram of ours")),
        }
    }
}

/// The readable beginning of a DATA datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataHeader {
    /// Whose datagram it claims to be.
    pub session: SessionId,
    /// The sender's count of datagrams: the nonce.
    pub counter: u64,
}

impl DataHeader {
    /// The header's bytes, also the seal's associated data.
    #[must_use]
    pub fn to_bytes(self) -> [u8; DATAGRAM_HEADER_LEN] {
        let mut bytes = [0; DATAGRAM_HEADER_LEN];
        bytes[0] = TYPE_DATA;
        bytes[1..8].copy_from_slice(&self.session.to_bytes());
        bytes[8..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (session, rest) = bytes[1..]
            .split_first_chunk::<7>()
            .ok_or(DecodeError("cut short"))?;
        let counter = rest.first_chunk::<8>().ok_or(DecodeError("cut short"))?;
        Ok(Self {
            session: SessionId::from_bytes(*session),
            counter: u64::from_be_bytes(*counter),
        })
    }
}

/// The readable beginning of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The last frame of this direction.
    pub is_final: bool,
    /// Bytes of ciphertext that follow, without the tag.
    pub len: usize,
}

impl FrameHeader {
    /// The header's bytes, also the seal's associated data.
    ///
    /// # Panics
    /// When `len` is above [`MAX_FRAME_LEN`], which no frame of ours is.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEADER_LEN] {
        assert!(
            self.len <= MAX_FRAME_LEN,
            "frames are cut to MAX_FRAME_LEN before they are sealed"
        );
        let len = u32::try_from(self.len)
            .expect("checked above")
            .to_be_bytes();
        [u8::from(self.is_final), len[1], len[2], len[3]]
    }

    /// Reads a header.
    ///
    /// # Errors
    /// When an unknown flag is set or the length is above [`MAX_FRAME_LEN`].
    pub fn parse(bytes: [u8; FRAME_HEADER_LEN]) -> Result<Self, DecodeError> {
        let [flags, len @ ..] = bytes;
        let len = u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize;
        if flags > 1 {
            return Err(DecodeError("frame flags"));
        }
        if len > MAX_FRAME_LEN {
            return Err(DecodeError("frame length"));
        }
        Ok(Self {
            is_final: flags == 1,
            len,
        })
    }
}

const _: () = assert!(CLASSES[4] + DATAGRAM_OVERHEAD == MAX_DATAGRAM_LEN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_exact_lengths_are_read() {
        for len in 0..=1500 {
            for first in 0..=255_u8 {
                let mut bytes = vec![0xaa; len];
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                let wanted = match first {
                    0x14 => [96, 160, 288, 544, 1232].contains(&len),
                    0x12 => len == 304,
                    0x13 => len == 296,
                    _ => false,
                };
                assert_eq!(
                    Datagram::parse(&bytes).is_ok(),
                    wanted,
                    "type {first:#x}, {len} bytes"
                );
            }
        }
    }

    #[test]
    fn a_data_header_on_the_wire() {
        let header = DataHeader {
            session: SessionId::from_bytes([1, 2, 3, 4, 5, 6, 7]),
            counter: 258,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [0x14, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 1, 2]);
        let mut datagram = bytes.to_vec();
        datagram.resize(96, 0);
        assert_eq!(Datagram::parse(&datagram), Ok(Datagram::Data(header)));
    }

    #[test]
    fn a_frame_header_at_its_edges() {
        let largest = FrameHeader {
            is_final: true,
            len: MAX_FRAME_LEN,
        };
        assert_eq!(largest.to_bytes(), [1, 1, 0, 16]);
        assert_eq!(FrameHeader::parse([1, 1, 0, 16]), Ok(largest));
        assert!(FrameHeader::parse([0, 1, 0, 17]).is_err());
        assert!(FrameHeader::parse([0, 255, 255, 255]).is_err());
        for flags in 2..=255 {
            assert!(FrameHeader::parse([flags, 0, 0, 0]).is_err());
        }
    }

    proptest! {
        #[test]
        fn foreign_datagrams_never_panic(bytes: Vec<u8>) {
            let _ = Datagram::parse(&bytes);
        }

        #[test]
        fn frame_headers_that_parse_are_canonical(bytes: [u8; 4]) {
            if let Ok(header) = FrameHeader::parse(bytes) {
                prop_assert_eq!(header.to_bytes(), bytes);
            }
        }
    }
}
