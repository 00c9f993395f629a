//! The head of every frame's plaintext, and WELCOME, the tracker's one frame.
//!
//! ```text
//! │ kind 1 │ flags 1 │ zero 2 │ request id 4 │ offset 8 │ body │     big endian
//! ```

use std::time::Duration;

use super::MAX_DATAGRAM_LEN;
use super::codec::{DecodeError, take};
use super::id::SessionId;

/// Bytes of the head of every frame.
pub const FRAME_HEAD_LEN: usize = 16;

/// Kind byte of WELCOME, by which a tracker ends its handshake.
pub const KIND_WELCOME: u8 = 1;

/// The head of a frame. What `id` and `offset` mean is told with each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHead {
    /// What the body is.
    pub kind: u8,
    /// Bits that belong to the kind.
    pub flags: u8,
    /// The file or request that is meant.
    pub id: u32,
    /// A place in a file, in bytes.
    pub offset: u64,
}

impl FrameHead {
    /// As it stands in front of the body.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEAD_LEN] {
        let mut bytes = [0; FRAME_HEAD_LEN];
        bytes[0] = self.kind;
        bytes[1] = self.flags;
        bytes[4..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// Splits an opened plaintext into head and body.
    ///
    /// # Errors
    /// When it is shorter than a head or the reserved bytes are set.
    pub fn split(plaintext: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut rest = plaintext;
        let [kind, flags] = take(&mut rest)?;
        if take::<2>(&mut rest)? != [0, 0] {
            return Err(DecodeError("reserved bytes of a frame"));
        }
        let id = u32::from_be_bytes(take(&mut rest)?);
        let offset = u64::from_be_bytes(take(&mut rest)?);
        Ok((
            Self {
                kind,
                flags,
                id,
                offset,
            },
            rest,
        ))
    }
}

/// What a tracker tells a member at the end of the handshake, sealed: 56 bytes.
pub struct Welcome {
    /// The control session that begins now.
    pub session: SessionId,
    /// The member key, under which peers greet each other.
    pub member_key: [u8; 32],
    /// The tracker's clock, Unix time in ms.
    pub unix_ms: u64,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a peer counts as gone.
    pub silence: Duration,
    /// The tracker wants a password at LOGIN.
    pub needs_password: bool,
}

impl Welcome {
    /// Bytes of the body.
    pub const LEN: usize = 56;

    /// The whole plaintext, head and body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = FrameHead {
            kind: KIND_WELCOME,
            flags: 0,
            id: 0,
            offset: 0,
        };
        let mut bytes = Vec::with_capacity(FRAME_HEAD_LEN + Self::LEN);
        bytes.extend_from_slice(&head.to_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&self.session.to_bytes());
        bytes.extend_from_slice(&self.member_key);
        bytes.extend_from_slice(&self.unix_ms.to_be_bytes());
        bytes.extend_from_slice(&millis(self.heartbeat).to_be_bytes());
        bytes.extend_from_slice(&millis(self.silence).to_be_bytes());
        bytes.extend_from_slice(
            &u16::try_from(MAX_DATAGRAM_LEN)
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        bytes.extend_from_slice(&[u8::from(self.needs_password), 0]);
        bytes
    }

    /// Reads a WELCOME.
    ///
    /// # Errors
    /// When the frame is another one or is cut short.
    pub fn decode(plaintext: &[u8]) -> Result<Self, DecodeError> {
        let (head, mut rest) = FrameHead::split(plaintext)?;
        if head.kind != KIND_WELCOME {
            return Err(DecodeError("no WELCOME"));
        }
        let [_zero] = take::<1>(&mut rest)?;
        let session = SessionId::from_bytes(take(&mut rest)?);
        let member_key = take(&mut rest)?;
        let unix_ms = u64::from_be_bytes(take(&mut rest)?);
        let heartbeat = Duration::from_millis(u64::from(u16::from_be_bytes(take(&mut rest)?)));
        let silence = Duration::from_millis(u64::from(u16::from_be_bytes(take(&mut rest)?)));
        let _largest_datagram: [u8; 2] = take(&mut rest)?;
        let [flags, _zero] = take(&mut rest)?;
        if heartbeat.is_zero() || silence <= heartbeat {
            return Err(DecodeError("heartbeat and silence of WELCOME"));
        }
        Ok(Self {
            session,
            member_key,
            unix_ms,
            heartbeat,
            silence,
            needs_password: flags & 1 == 1,
        })
    }
}

fn millis(duration: Duration) -> u16 {
    u16::try_from(duration.as_millis()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn welcome() -> Welcome {
        Welcome {
            session: SessionId::from_bytes([1, 2, 3, 4, 5, 6, 7]),
            member_key: [9; 32],
            unix_ms: 1_760_000_000_000,
            heartbeat: Duration::from_secs(2),
            silence: Duration::from_secs(3),
            needs_password: false,
        }
    }

    #[test]
    fn welcome_on_the_wire() {
        let bytes = welcome().encode();
        assert_eq!(bytes.len(), FRAME_HEAD_LEN + Welcome::LEN);
        assert_eq!(
            bytes[..16],
            [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(bytes[16..24], [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(bytes[24..56], [9; 32]);
        assert_eq!(bytes[64..], [0x07, 0xd0, 0x0b, 0xb8, 0x04, 0xd0, 0, 0]);
        let read = Welcome::decode(&bytes).unwrap();
        assert_eq!(read.heartbeat, Duration::from_secs(2));
        assert_eq!(read.member_key, [9; 32]);
    }

    #[test]
    fn a_welcome_that_would_make_peers_spin_is_refused() {
        for (heartbeat, silence) in [(0, 3000), (2000, 2000), (2000, 0)] {
            let (heartbeat, silence) = (
                Duration::from_millis(heartbeat),
                Duration::from_millis(silence),
            );
            assert!(
                Welcome::decode(
                    &Welcome {
                        heartbeat,
                        silence,
                        ..welcome()
                    }
                    .encode()
                )
                .is_err()
            );
        }
    }

    proptest! {
        #[test]
        fn foreign_frames_never_panic(bytes: Vec<u8>) {
            let _ = FrameHead::split(&bytes);
            let _ = Welcome::decode(&bytes);
        }

        #[test]
        fn a_head_survives_the_wire(kind: u8, flags: u8, id: u32, offset: u64) {
            let head = FrameHead { kind, flags, id, offset };
            let bytes = head.to_bytes();
            let (read, body) = FrameHead::split(&bytes).unwrap();
            prop_assert_eq!(read, head);
            prop_assert!(body.is_empty());
        }
    }
}
