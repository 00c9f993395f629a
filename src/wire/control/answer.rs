//! What the tracker answers: the bodies of its answers, and every reason for a no.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::super::codec::{self, DecodeError};
use super::super::id::PeerId;
use super::super::text::UserName;
use super::super::{MAX_ADDRESSES, MAX_OWNERS_PER_HIT, MAX_PAGE_ENTRIES};
use super::question::{Cursor, Publication, file_len};

/// A sealed ticket: proof of a login, opaque to its holder (`docs/protocol.md` § Tickets).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Ticket(pub [u8; Self::LEN]);

impl Ticket {
    /// Bytes of a ticket.
    pub const LEN: usize = 208;
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket(..)")
    }
}

impl From<Ticket> for Vec<u8> {
    fn from(ticket: Ticket) -> Self {
        ticket.0.to_vec()
    }
}

impl TryFrom<Vec<u8>> for Ticket {
    type Error = DecodeError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        Ok(Self(
            bytes.try_into().map_err(|_| DecodeError("ticket length"))?,
        ))
    }
}

/// The answer to LOGIN.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoggedIn {
    /// What brings the peer back without a new handshake.
    pub ticket: Ticket,
    /// The address that the tracker sees.
    pub observed: SocketAddr,
}

/// The answer to HEARTBEAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// Time between heartbeats, in ms.
    pub interval_ms: u32,
    /// Silence after which a peer counts as gone, in ms.
    pub silence_ms: u32,
    /// Files that the tracker has of this peer.
    pub published: u32,
    /// XOR of their [`Publication::mark`]s: a peer that counts otherwise announces again.
    pub digest: u64,
}

/// One page of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries that fitted.
    #[serde(bound(deserialize = "T: Deserialize<'de>"))]
    #[serde(deserialize_with = "codec::list::<MAX_PAGE_ENTRIES, _, _>")]
    pub entries: Vec<T>,
    /// Where the next page begins; absent on the last.
    pub next: Option<Cursor>,
    /// Entries of all pages; with [`AT_LEAST`] if they were not counted to the end.
    pub total: u32,
}

/// Set in a total that is only a lower bound.
pub const AT_LEAST: u32 = 1 << 31;

/// A published name and content, with some of those who have it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hit {
    /// The file.
    pub file: Publication,
    /// The first few who published it under this name.
    #[serde(deserialize_with = "codec::list::<MAX_OWNERS_PER_HIT, _, _>")]
    pub owners: Vec<UserName>,
    /// How many there are.
    pub holders: u32,
    /// Is it for chosen people only, the asker among them?
    pub is_restricted: bool,
}

impl Hit {
    /// Takes in another hit of the same file: what one has for everybody is not for chosen people only.
    pub fn merge(&mut self, mut other: Self) {
        self.is_restricted &= other.is_restricted;
        if other.holders > self.holders {
            std::mem::swap(&mut self.owners, &mut other.owners);
            std::mem::swap(&mut self.holders, &mut other.holders);
        }
        // Where not all are named, whoever is added may be one of them.
        let counts = self.holders as usize == self.owners.len();
        for owner in other.owners {
            if self.owners.contains(&owner) {
                continue;
            }
            self.holders = self.holders.saturating_add(u32::from(counts));
            if self.owners.len() < MAX_OWNERS_PER_HIT {
                self.owners.push(owner);
            }
        }
    }
}

/// A peer that has a content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Who it is logged in as.
    pub user: UserName,
    /// The key that its handshake must show.
    pub peer: PeerId,
    /// Length of the content in bytes, as this peer published it.
    #[serde(deserialize_with = "file_len")]
    pub len: u64,
    /// Where it listens, as the tracker saw it, the likeliest first.
    #[serde(deserialize_with = "codec::list::<MAX_ADDRESSES, _, _>")]
    pub addresses: Vec<SocketAddr>,
}

/// The same, borrowed from where the tracker keeps it.
#[derive(Serialize)]
pub struct HolderRef<'a> {
    /// [`Holder::user`], as text: a name is serialised through a copy of it.
    pub user: &'a str,
    /// [`Holder::peer`].
    pub peer: PeerId,
    /// [`Holder::len`].
    pub len: u64,
    /// [`Holder::addresses`].
    pub addresses: &'a [SocketAddr],
}

/// A peer that is here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Who it is logged in as.
    pub user: UserName,
    /// Its key.
    pub peer: PeerId,
    /// Where it listens, as the tracker saw it.
    #[serde(deserialize_with = "codec::list::<MAX_ADDRESSES, _, _>")]
    pub addresses: Vec<SocketAddr>,
    /// Files that it shares.
    pub files: u32,
    /// Seconds since it came.
    pub since_s: u32,
}

/// Why the tracker does not do what was asked. New reasons are added at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// The request was not understood.
    Malformed,
    /// LOGIN comes first.
    NotLoggedIn,
    /// Somebody else is here under this name.
    NameInUse {
        /// For how long, in seconds.
        since_s: u32,
        /// From where.
        from: IpAddr,
    },
    /// The name was first used with another key.
    NameReserved,
    /// Too many requests of this kind.
    TooFast {
        /// When to ask again, in ms.
        wait_ms: u32,
    },
    /// The peer has published as many files as one may.
    TooManyFiles {
        /// How many that is.
        limit: u32,
    },
    /// The tracker has as many peers as it may.
    Full,
    /// Nobody of that name is here.
    NoSuchUser,
    /// LOGIN needs a password.
    PasswordNeeded,
    /// User and password do not fit; which of them is wrong is not said.
    WrongLogin,
    /// Too many logins failed.
    LoginTooOften {
        /// When to try again, in ms.
        wait_ms: u32,
    },
    /// The login was ended: its user is gone or has another password.
    LoginVoid,
}
