//! What a beacon on the local network says: what somebody is, and where it listens.
//!
//! ```text
//! UDP │ type 1 │ nonce 24 │ sealed: 32 │ tag 16 │
//! ```
//! It names no person and no key: whoever knows the name of the network can open it. An address is not in it
//! either; where it came from is the only one that counts.

use super::codec::{DecodeError, take};
use super::packet::{Role, TAG_LEN};

/// First byte of the datagram.
pub const TYPE_BEACON: u8 = 0x11;
/// Bytes of the nonce behind it.
pub const BEACON_NONCE_LEN: usize = 24;
/// Bytes of what is sealed.
pub const BEACON_BODY_LEN: usize = 32;
/// Bytes of the whole datagram.
pub const BEACON_LEN: usize = 1 + BEACON_NONCE_LEN + BEACON_BODY_LEN + TAG_LEN;

const VERSION: u8 = 1;

/// Drawn at each start of a program: tells it from all others, and nothing of who runs it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instance(pub [u8; 8]);

/// The inside of a beacon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beacon {
    /// What sends it.
    pub role: Role,
    /// Where the tracker takes handshakes: a whole one, or a peer's own small one. 0 for somebody who only asks
    /// who is there.
    pub tcp_port: u16,
    /// Where it takes datagrams.
    pub udp_port: u16,
    /// Which start of which program sends it.
    pub instance: Instance,
    /// The sender's clock, Unix time in seconds.
    pub unix_s: u64,
}

impl Beacon {
    /// The bytes that are sealed.
    #[must_use]
    pub fn to_bytes(self) -> [u8; BEACON_BODY_LEN] {
        let mut bytes = [0; BEACON_BODY_LEN];
        bytes[..2].copy_from_slice(&[VERSION, self.role.to_byte()]);
        bytes[2..4].copy_from_slice(&self.tcp_port.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.udp_port.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.instance.0);
        bytes[16..24].copy_from_slice(&self.unix_s.to_be_bytes());
        bytes
    }

    /// Reads what was sealed. Flags and the bytes at the end are left to later versions.
    ///
    /// # Errors
    /// For another version, an unknown role, or a tracker without ports.
    pub fn parse(bytes: &[u8; BEACON_BODY_LEN]) -> Result<Self, DecodeError> {
        let mut rest = bytes.as_slice();
        let [version, role] = take(&mut rest)?;
        if version != VERSION {
            return Err(DecodeError("version of a beacon"));
        }
        let role = Role::from_byte(role)?;
        let tcp_port = u16::from_be_bytes(take(&mut rest)?);
        let udp_port = u16::from_be_bytes(take(&mut rest)?);
        let _flags: [u8; 2] = take(&mut rest)?;
        let beacon = Self {
            role,
            tcp_port,
            udp_port,
            instance: Instance(take(&mut rest)?),
            unix_s: u64::from_be_bytes(take(&mut rest)?),
        };
        let asks_only = tcp_port == 0 && udp_port == 0 && role == Role::Peer;
        if (tcp_port == 0 || udp_port == 0) && !asks_only {
            return Err(DecodeError("ports of a beacon"));
        }
        Ok(beacon)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEACON: Beacon = Beacon {
        role: Role::Tracker,
        tcp_port: 9000,
        udp_port: 9000,
        instance: Instance([0xd1; 8]),
        unix_s: 0x68e7_7800,
    };

    #[test]
    fn a_beacon_is_these_bytes() {
        let mut bytes = [0; BEACON_BODY_LEN];
        bytes[..8].copy_from_slice(&[1, 1, 0x23, 0x28, 0x23, 0x28, 0, 0]);
        bytes[8..16].fill(0xd1);
        bytes[20..24].copy_from_slice(&[0x68, 0xe7, 0x78, 0x00]);
        assert_eq!(BEACON.to_bytes(), bytes);
        assert_eq!(Beacon::parse(&bytes), Ok(BEACON));
        assert_eq!(BEACON_LEN, 73);
    }

    #[test]
    fn a_beacon_of_another_kind_is_refused() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = BEACON.to_bytes();
            bytes[at] = byte;
            Beacon::parse(&bytes)
        };
        assert!(changed(0, 2).is_err(), "a later version");
        assert!(changed(1, 3).is_err(), "an unknown role");
        assert!(changed(6, 1).is_ok() && changed(31, 1).is_ok(), "for later");
        let asks = Beacon {
            role: Role::Peer,
            tcp_port: 0,
            udp_port: 0,
            ..BEACON
        };
        assert_eq!(Beacon::parse(&asks.to_bytes()), Ok(asks));
        for (role, tcp_port) in [(Role::Tracker, 0), (Role::Peer, 1)] {
            let half = Beacon {
                role,
                tcp_port,
                udp_port: 0,
                ..BEACON
            };
            assert!(Beacon::parse(&half.to_bytes()).is_err(), "{half:?}");
        }
    }

    proptest! {
        #[test]
        fn foreign_beacons_never_panic_and_read_back(bytes: [u8; BEACON_BODY_LEN]) {
            if let Ok(beacon) = Beacon::parse(&bytes) {
                prop_assert_eq!(Beacon::parse(&beacon.to_bytes()), Ok(beacon));
            }
        }
    }
}
