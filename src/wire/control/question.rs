//! What peers ask: the bodies of their requests.

use serde::{Deserialize, Serialize};

use super::super::codec::{self, DecodeError};
use super::super::id::ContentId;
use super::super::password::Password;
use super::super::text::{FileName, UserName};
use super::super::{MAX_CURSOR_LEN, MAX_FILE_LEN, MAX_FILES_PER_REQUEST, MAX_TERM_LEN};
use super::audience::Audience;

/// Who wants to log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// The name under which others see this peer.
    pub user: UserName,
    /// What this user knows, for a tracker that asks for it.
    pub password: Option<Password>,
}

impl Login {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        codec::encode(&self.user, out);
        if let Some(password) = &self.password {
            codec::encode_secret(password.expose(), out);
        }
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (user, rest) = codec::decode_first(body)?;
        let password = match rest {
            [] => None,
            rest => Some(codec::decode(rest)?),
        };
        Ok(Self { user, password })
    }
}

/// What a publication is. New kinds are added at the end.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum PublicationKind {
    /// One file; the content is its bytes.
    #[default]
    File,
    /// A folder; the content is its listing ([`crate::wire::folder`]).
    Folder,
    /// A file that is being hashed: it has a name and a length, and no id yet.
    HashingFile,
    /// A folder that is being hashed: it has a name.
    HashingFolder,
    /// One file that is locked with a password of its own; the content is its bytes, in the format of age.
    LockedFile,
}

impl PublicationKind {
    /// Is it a folder, hashed or not?
    #[must_use]
    pub const fn is_folder(self) -> bool {
        matches!(self, Self::Folder | Self::HashingFolder)
    }

    /// Is its id known? What is still being hashed can be found, and not be fetched.
    #[must_use]
    pub const fn is_hashed(self) -> bool {
        matches!(self, Self::File | Self::LockedFile | Self::Folder)
    }

    /// Is it one file whose id is known?
    #[must_use]
    pub const fn is_file(self) -> bool {
        matches!(self, Self::File | Self::LockedFile)
    }

    /// Does what is fetched open with a password only?
    #[must_use]
    pub const fn is_locked(self) -> bool {
        matches!(self, Self::LockedFile)
    }
}

/// A file or folder that a peer offers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Publication {
    /// The name that others search for.
    pub name: FileName,
    /// The hash of its bytes; of a folder, of its listing. [`ContentId::NONE`] while it is being hashed.
    pub content: ContentId,
    /// The length of the content in bytes, at most [`MAX_FILE_LEN`].
    pub len: u64,
    /// What it is.
    pub kind: PublicationKind,
}

/// A publication as it came.
#[derive(Deserialize)]
struct Unchecked {
    name: FileName,
    content: ContentId,
    #[serde(deserialize_with = "file_len")]
    len: u64,
    kind: PublicationKind,
}

impl TryFrom<Unchecked> for Publication {
    type Error = DecodeError;

    /// An id belongs to what was hashed, and to nothing else.
    fn try_from(came: Unchecked) -> Result<Self, DecodeError> {
        let Unchecked {
            name,
            content,
            len,
            kind,
        } = came;
        if kind.is_hashed() == (content == ContentId::NONE) {
            return Err(DecodeError("id of what is being hashed"));
        }
        Ok(Self {
            name,
            content,
            len,
            kind,
        })
    }
}

impl Publication {
    /// What is being hashed under this name.
    #[must_use]
    pub const fn being_hashed(name: FileName, len: u64, kind: PublicationKind) -> Self {
        Self {
            name,
            content: ContentId::NONE,
            len,
            kind: if kind.is_folder() {
                PublicationKind::HashingFolder
            } else {
                PublicationKind::HashingFile
            },
        }
    }

    /// The name as people see it: a folder's ends with a slash, which no name holds itself.
    #[must_use]
    pub fn shown_name(&self) -> String {
        if self.kind.is_folder() {
            format!("{}/", self.name)
        } else {
            self.name.to_string()
        }
    }

    /// The share of a [`super::HeartbeatAck::digest`] that this publication has when it is for `audience`.
    #[must_use]
    pub fn mark(&self, audience: &Audience) -> u64 {
        let mut bytes = Vec::with_capacity(320);
        codec::encode(self, &mut bytes);
        audience.append(&mut bytes);
        let hash = blake3::hash(&bytes);
        u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("BLAKE3 has 32 bytes"))
    }
}

pub(super) fn file_len<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let len = u64::deserialize(deserializer)?;
    if len > MAX_FILE_LEN {
        Err(serde::de::Error::custom("file too large"))
    } else {
        Ok(len)
    }
}

/// Where a listing goes on; opaque to the asker.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cursor(#[serde(deserialize_with = "codec::list::<MAX_CURSOR_LEN, _, _>")] pub Vec<u8>);

/// The body of PUBLISH and UNPUBLISH.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The files meant.
    pub files: Vec<Publication>,
    /// Whom all of them are for. UNPUBLISH means them whomever they are for.
    pub audience: Audience,
}

#[derive(Deserialize)]
struct Listed(
    #[serde(deserialize_with = "codec::list::<MAX_FILES_PER_REQUEST, _, _>")] Vec<Publication>,
);

impl Files {
    /// These files, for everybody.
    #[must_use]
    pub const fn for_everybody(files: Vec<Publication>) -> Self {
        Self {
            files,
            audience: Audience::EVERYBODY,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        codec::encode(&self.files, out);
        self.audience.append(out);
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (Listed(files), rest) = codec::decode_first(body)?;
        Ok(Self {
            files,
            audience: Audience::parse(rest)?,
        })
    }
}

/// The body of SEARCH.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Search {
    /// The text that names shall contain; empty finds nothing.
    #[serde(deserialize_with = "term")]
    pub term: String,
    /// Where to go on; empty at first.
    pub cursor: Cursor,
}

fn term<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let term = String::deserialize(deserializer)?;
    if term.len() > MAX_TERM_LEN {
        Err(serde::de::Error::custom("term too long"))
    } else {
        Ok(term)
    }
}

/// The body of LOCATE.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Locate {
    /// The content wanted.
    pub content: ContentId,
    /// Where to go on; empty at first.
    pub cursor: Cursor,
}

/// The body of LIST_PEERS.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListPeers {
    /// Where to go on; empty at first.
    pub cursor: Cursor,
}

/// The body of LIST_FILES.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListFiles {
    /// Whose files; everybody's when absent.
    pub user: Option<UserName>,
    /// Where to go on; empty at first.
    pub cursor: Cursor,
}

/// The body of WHO.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Who {
    /// The name, in any case.
    pub user: UserName,
}
