//! The inside of a control datagram, peer and tracker: requests and their answers.
//!
//! ```text
//! │ kind 1 │ flags 1 │ body length 2 │ request id 4 │ path token 8 │ body │ zeros up to the class │
//! ```
//! Integers are big endian; bodies are in postcard's format; structures grow at their end only. Every
//! request is idempotent, so an answer that was lost is asked for again. The exact bytes are pinned by
//! `tests/vectors/control.json`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::codec::{self, DecodeError, take};
use super::id::{ContentId, PeerId, RequestId};
use super::packet::class_for;
use super::password::Password;
use super::text::{FileName, UserName};
use super::{
    MAX_ADDRESSES, MAX_BODY_LEN, MAX_CURSOR_LEN, MAX_FILE_LEN, MAX_FILES_PER_REQUEST,
    MAX_OWNERS_PER_HIT, MAX_PAGE_ENTRIES, MAX_TERM_LEN,
};

/// Bytes of the head of every control message.
pub const HEAD_LEN: usize = 16;

/// Proof, inside a session, that datagrams to an address arrive there (`docs/protocol.md` § Path token).
pub type PathToken = [u8; 8];

/// The kinds of requests. An answer bears its request's kind with bit 7 set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Who I am; the answer carries a ticket.
    Login = 1,
    /// Still here.
    Heartbeat = 2,
    /// Gone, now.
    Leave = 3,
    /// I have these files.
    Publish = 4,
    /// I have these no longer.
    Unpublish = 5,
    /// Names that contain a text.
    Search = 6,
    /// Who has this content.
    Locate = 7,
    /// Who is here.
    ListPeers = 8,
    /// What one user, or everybody, shares.
    ListFiles = 9,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Login,
        Self::Heartbeat,
        Self::Leave,
        Self::Publish,
        Self::Unpublish,
        Self::Search,
        Self::Locate,
        Self::ListPeers,
        Self::ListFiles,
    ];

    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or(DecodeError("kind"))
    }
}

/// Bytes to which the plaintext of a LOGIN is padded.
const LOGIN_CLASS: usize = 512;
const ANSWER_BIT: u8 = 0x80;
const KIND_WAIT: u8 = 0xfd;
const KIND_AGAIN: u8 = 0xfe;
const KIND_REFUSED: u8 = 0xff;

/// The head of a control message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    kind: u8,
    body_len: usize,
    /// Which request this is, or which it answers.
    pub request: RequestId,
    /// The last token seen (peer), or the token of the address (tracker).
    pub token: PathToken,
}

impl Head {
    /// Does it announce a request of this kind?
    #[must_use]
    pub const fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }
}

/// Splits an opened plaintext into head and body.
///
/// # Errors
/// When it is shorter than its head says, or a flag is set.
pub fn split(plaintext: &[u8]) -> Result<(Head, &[u8]), DecodeError> {
    let mut rest = plaintext;
    let [kind, flags] = take(&mut rest)?;
    let body_len = usize::from(u16::from_be_bytes(take(&mut rest)?));
    let request = RequestId(u32::from_be_bytes(take(&mut rest)?));
    let token = take(&mut rest)?;
    if flags != 0 {
        return Err(DecodeError("flags"));
    }
    let body = rest.get(..body_len).ok_or(DecodeError("body length"))?;
    Ok((
        Head {
            kind,
            body_len,
            request,
            token,
        },
        body,
    ))
}

/// Who wants to log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// The name under which others see this peer.
    pub user: UserName,
    /// What this user knows, for a tracker that asks for it.
    pub password: Option<Password>,
}

impl Login {
    fn encode(&self, out: &mut Vec<u8>) {
        codec::encode(&self.user, out);
        if let Some(password) = &self.password {
            codec::encode_secret(password.expose(), out);
        }
    }

    fn decode(body: &[u8]) -> Result<Self, DecodeError> {
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
    /// A folder; the content is its listing ([`super::folder`]).
    Folder,
}

/// A file or folder that a peer offers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Publication {
    /// The name that others search for.
    pub name: FileName,
    /// The hash of its bytes; of a folder, of its listing.
    pub content: ContentId,
    /// The length of the content in bytes, at most [`MAX_FILE_LEN`].
    #[serde(deserialize_with = "file_len")]
    pub len: u64,
    /// What it is.
    pub kind: PublicationKind,
}

impl Publication {
    /// The name as people see it: a folder's ends with a slash, which no name holds itself.
    #[must_use]
    pub fn shown_name(&self) -> String {
        match self.kind {
            PublicationKind::File => self.name.to_string(),
            PublicationKind::Folder => format!("{}/", self.name),
        }
    }

    /// This publication's share of a [`HeartbeatAck::digest`].
    #[must_use]
    pub fn mark(&self) -> u64 {
        let mut bytes = Vec::with_capacity(320);
        codec::encode(self, &mut bytes);
        let hash = blake3::hash(&bytes);
        u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("BLAKE3 has 32 bytes"))
    }
}

fn file_len<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
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

/// A peer's question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Who I am. Padded to 512 bytes, so that its answer may go to an address not yet confirmed.
    Login(Login),
    /// Still here.
    Heartbeat,
    /// Gone, now.
    Leave,
    /// I have these files; those named before stay.
    Publish(Files),
    /// I have these no longer.
    Unpublish(Files),
    /// Names that contain a text, in any case.
    Search(Search),
    /// Who has this content.
    Locate(Locate),
    /// Who is here.
    ListPeers(ListPeers),
    /// What one user, or everybody, shares.
    ListFiles(ListFiles),
}

/// The body of PUBLISH and UNPUBLISH.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Files {
    /// The files meant.
    #[serde(deserialize_with = "codec::list::<MAX_FILES_PER_REQUEST, _, _>")]
    pub files: Vec<Publication>,
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

/// The tracker's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// To LOGIN.
    LoggedIn(LoggedIn),
    /// To HEARTBEAT.
    Heartbeat(HeartbeatAck),
    /// To LEAVE.
    Left,
    /// To PUBLISH.
    Published,
    /// To UNPUBLISH.
    Unpublished,
    /// To SEARCH.
    Found(Page<Hit>),
    /// To LOCATE.
    Located(Page<Holder>),
    /// To LIST_PEERS.
    Peers(Page<PeerEntry>),
    /// To LIST_FILES.
    Files(Page<Hit>),
    /// To LOGIN, while the password is being checked: ask again after so many ms.
    Wait(u32),
    /// The answer is larger than what an address without proof may get: ask again with the token.
    Again,
    /// No, and why.
    Refused(Refusal),
}

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

impl Request {
    /// What is asked.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Login(_) => Kind::Login,
            Self::Heartbeat => Kind::Heartbeat,
            Self::Leave => Kind::Leave,
            Self::Publish(_) => Kind::Publish,
            Self::Unpublish(_) => Kind::Unpublish,
            Self::Search(_) => Kind::Search,
            Self::Locate(_) => Kind::Locate,
            Self::ListPeers(_) => Kind::ListPeers,
            Self::ListFiles(_) => Kind::ListFiles,
        }
    }

    /// The padded plaintext of this request, or `None` when the body is larger than a datagram.
    #[must_use]
    pub fn encode(&self, id: RequestId, token: PathToken) -> Option<Zeroizing<Vec<u8>>> {
        // Wiped, and large enough never to move: a password may be in it.
        let mut body = Zeroizing::new(Vec::with_capacity(LOGIN_CLASS));
        match self {
            Self::Login(login) => login.encode(&mut body),
            Self::Heartbeat | Self::Leave => {}
            Self::Publish(files) | Self::Unpublish(files) => codec::encode(files, &mut body),
            Self::Search(search) => codec::encode(search, &mut body),
            Self::Locate(locate) => codec::encode(locate, &mut body),
            Self::ListPeers(list) => codec::encode(list, &mut body),
            Self::ListFiles(list) => codec::encode(list, &mut body),
        }
        let least = if matches!(self, Self::Login(_)) {
            LOGIN_CLASS
        } else {
            0
        };
        pad(self.kind() as u8, id, token, &body, least).map(Zeroizing::new)
    }

    /// Reads the request that `head` announces.
    ///
    /// # Errors
    /// When the kind is unknown or the body is not of that kind.
    pub fn decode(head: &Head, body: &[u8]) -> Result<Self, DecodeError> {
        Ok(match Kind::from_byte(head.kind)? {
            Kind::Login => Self::Login(Login::decode(body)?),
            Kind::Heartbeat => Self::Heartbeat,
            Kind::Leave => Self::Leave,
            Kind::Publish => Self::Publish(codec::decode(body)?),
            Kind::Unpublish => Self::Unpublish(codec::decode(body)?),
            Kind::Search => Self::Search(codec::decode(body)?),
            Kind::Locate => Self::Locate(codec::decode(body)?),
            Kind::ListPeers => Self::ListPeers(codec::decode(body)?),
            Kind::ListFiles => Self::ListFiles(codec::decode(body)?),
        })
    }
}

impl Response {
    fn kind_byte(&self) -> u8 {
        let kind = match self {
            Self::LoggedIn(_) => Kind::Login,
            Self::Heartbeat(_) => Kind::Heartbeat,
            Self::Left => Kind::Leave,
            Self::Published => Kind::Publish,
            Self::Unpublished => Kind::Unpublish,
            Self::Found(_) => Kind::Search,
            Self::Located(_) => Kind::Locate,
            Self::Peers(_) => Kind::ListPeers,
            Self::Files(_) => Kind::ListFiles,
            Self::Wait(_) => return KIND_WAIT,
            Self::Again => return KIND_AGAIN,
            Self::Refused(_) => return KIND_REFUSED,
        };
        kind as u8 | ANSWER_BIT
    }

    /// The padded plaintext of this answer to request `id`, or `None` when the body is larger than a
    /// datagram: the caller makes pages that fit.
    #[must_use]
    pub fn encode(&self, id: RequestId, token: PathToken) -> Option<Vec<u8>> {
        let mut plaintext = [0; MAX_PLAINTEXT_LEN];
        let len = self.write(id, token, &mut plaintext)?;
        Some(plaintext[..len].to_vec())
    }

    /// The same into `plaintext`, without an allocation: how many bytes of it are the answer.
    pub fn write(
        &self,
        id: RequestId,
        token: PathToken,
        plaintext: &mut Plaintext,
    ) -> Option<usize> {
        let body = &mut plaintext[HEAD_LEN..];
        let body_len = match self {
            Self::LoggedIn(answer) => codec::write(answer, body)?,
            Self::Heartbeat(answer) => codec::write(answer, body)?,
            Self::Left | Self::Published | Self::Unpublished | Self::Again => 0,
            Self::Found(page) | Self::Files(page) => codec::write(page, body)?,
            Self::Located(page) => codec::write(page, body)?,
            Self::Peers(page) => codec::write(page, body)?,
            Self::Wait(wait_ms) => codec::write(wait_ms, body)?,
            Self::Refused(refusal) => codec::write(refusal, body)?,
        };
        Some(enclose(self.kind_byte(), id, token, body_len, plaintext))
    }

    /// Reads the answer that `head` announces.
    ///
    /// # Errors
    /// When the kind is unknown or the body is not of that kind.
    pub fn decode(head: &Head, body: &[u8]) -> Result<Self, DecodeError> {
        match head.kind {
            KIND_AGAIN => return Ok(Self::Again),
            KIND_WAIT => return codec::decode(body).map(Self::Wait),
            KIND_REFUSED => return codec::decode(body).map(Self::Refused),
            kind if kind & ANSWER_BIT == 0 => return Err(DecodeError("not an answer")),
            _ => {}
        }
        Ok(match Kind::from_byte(head.kind & !ANSWER_BIT)? {
            Kind::Login => Self::LoggedIn(codec::decode(body)?),
            Kind::Heartbeat => Self::Heartbeat(codec::decode(body)?),
            Kind::Leave => Self::Left,
            Kind::Publish => Self::Published,
            Kind::Unpublish => Self::Unpublished,
            Kind::Search => Self::Found(codec::decode(body)?),
            Kind::Locate => Self::Located(codec::decode(body)?),
            Kind::ListPeers => Self::Peers(codec::decode(body)?),
            Kind::ListFiles => Self::Files(codec::decode(body)?),
        })
    }
}

/// Bytes of the largest padded plaintext.
const MAX_PLAINTEXT_LEN: usize = HEAD_LEN + MAX_BODY_LEN;

/// Room for the plaintext of any control message.
pub type Plaintext = [u8; MAX_PLAINTEXT_LEN];

/// Writes an answer of one page, entry by entry, where it will be sealed. What it writes is what
/// [`Response::write`] makes of the same [`Page`].
pub struct PageWriter<'a> {
    plaintext: &'a mut Plaintext,
    /// Where the next entry begins: behind the head and the one byte that counts them.
    end: usize,
    entries: u8,
}

impl<'a> PageWriter<'a> {
    /// An empty page.
    pub const fn new(plaintext: &'a mut Plaintext) -> Self {
        Self {
            plaintext,
            end: HEAD_LEN + 1,
            entries: 0,
        }
    }

    /// Adds `entry`; `false` when the page is full.
    pub fn push(&mut self, entry: &impl Serialize) -> bool {
        let most = HEAD_LEN + 1 + PAGE_BUDGET;
        if usize::from(self.entries) >= MAX_PAGE_ENTRIES {
            return false;
        }
        let Some(len) = codec::write(entry, &mut self.plaintext[self.end..most]) else {
            return false;
        };
        self.end += len;
        self.entries += 1;
        true
    }

    /// Ends the page, which answers request `id` of `kind`: how many bytes of the plaintext it takes.
    /// Without `total` it says how many entries it has itself.
    #[must_use]
    pub fn finish(
        self,
        kind: Kind,
        (id, token): (RequestId, PathToken),
        next: Option<&[u8]>,
        total: Option<u32>,
    ) -> usize {
        self.plaintext[HEAD_LEN] = self.entries;
        let total = total.unwrap_or_else(|| self.entries.into());
        let tail = codec::write(&(next, total), &mut self.plaintext[self.end..])
            .expect("the page's budget leaves room for a cursor and a count");
        let body_len = self.end + tail - HEAD_LEN;
        enclose(kind as u8 | ANSWER_BIT, id, token, body_len, self.plaintext)
    }
}

/// Puts the head before a body that is there and zeros behind it: how many bytes that makes.
fn enclose(
    kind: u8,
    id: RequestId,
    token: PathToken,
    body_len: usize,
    plaintext: &mut Plaintext,
) -> usize {
    let end = HEAD_LEN + body_len;
    let class = class_for(end).expect("no plaintext is longer than the largest class");
    let len = u16::try_from(body_len).expect("a body has at most MAX_BODY_LEN bytes");
    plaintext[..2].copy_from_slice(&[kind, 0]);
    plaintext[2..4].copy_from_slice(&len.to_be_bytes());
    plaintext[4..8].copy_from_slice(&id.0.to_be_bytes());
    plaintext[8..HEAD_LEN].copy_from_slice(&token);
    plaintext[end..class].fill(0);
    class
}

const _: () = assert!(
    MAX_PAGE_ENTRIES < 128,
    "a page's count is one byte in postcard's format"
);

/// Bytes that `entry` takes in a body.
#[must_use]
pub fn encoded_len<T: Serialize>(entry: &T) -> usize {
    let mut bytes = Vec::new();
    codec::encode(entry, &mut bytes);
    bytes.len()
}

/// Bytes that the entries of one page may take together, leaving room for its cursor and count.
pub const PAGE_BUDGET: usize = MAX_BODY_LEN - MAX_CURSOR_LEN - 16;

/// Groups `files` into bodies of PUBLISH or UNPUBLISH that each fit a datagram.
#[must_use]
pub fn batches(files: impl IntoIterator<Item = Publication>) -> Vec<Files> {
    let mut batches: Vec<Files> = Vec::new();
    let mut left = 0;
    for file in files {
        let len = encoded_len(&file);
        match batches.last_mut() {
            Some(batch) if len <= left && batch.files.len() < MAX_FILES_PER_REQUEST => {
                batch.files.push(file);
                left -= len;
            }
            _ => {
                batches.push(Files { files: vec![file] });
                left = PAGE_BUDGET.saturating_sub(len);
            }
        }
    }
    batches
}

fn pad(kind: u8, id: RequestId, token: PathToken, body: &[u8], least: usize) -> Option<Vec<u8>> {
    let body_len = u16::try_from(body.len())
        .ok()
        .filter(|len| usize::from(*len) <= MAX_BODY_LEN)?;
    let class = class_for((HEAD_LEN + body.len()).max(least))?;
    let mut bytes = Vec::with_capacity(class);
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&body_len.to_be_bytes());
    bytes.extend_from_slice(&id.0.to_be_bytes());
    bytes.extend_from_slice(&token);
    bytes.extend_from_slice(body);
    bytes.resize(class, 0);
    Some(bytes)
}
