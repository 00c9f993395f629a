//! The inside of a control datagram, peer and tracker: requests and their answers.
//!
//! ```text
//! │ kind 1 │ flags 1 │ body length 2 │ request id 4 │ path token 8 │ body │ zeros up to the class │
//! ```
//! Integers are big endian; bodies are in postcard's format; structures grow at their end only. Every
//! request is idempotent, so an answer that was lost is asked for again. The exact bytes are pinned by
//! `tests/vectors/control.json`.

mod answer;
mod audience;
mod page;
mod question;

use zeroize::Zeroizing;

pub use self::answer::{
    AT_LEAST, HeartbeatAck, Hit, Holder, HolderRef, LoggedIn, Page, PeerEntry, Refusal, Ticket,
};
pub use self::audience::Audience;
pub use self::page::{PAGE_BUDGET, PageWriter, batches, encoded_len};
pub use self::question::{
    Cursor, Files, ListFiles, ListPeers, Locate, Login, Publication, PublicationKind, Search, Who,
};
use super::MAX_BODY_LEN;
use super::codec::{self, DecodeError, take};
use super::id::RequestId;
use super::packet::class_for;

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
    /// Who bears this name, and where.
    Who = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Login,
        Self::Heartbeat,
        Self::Leave,
        Self::Publish,
        Self::Unpublish,
        Self::Search,
        Self::Locate,
        Self::ListPeers,
        Self::ListFiles,
        Self::Who,
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
    /// Who bears this name, and where.
    Who(Who),
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
    /// To WHO.
    Who(PeerEntry),
    /// To LOGIN, while the password is being checked: ask again after so many ms.
    Wait(u32),
    /// The answer is larger than what an address without proof may get: ask again with the token.
    Again,
    /// No, and why.
    Refused(Refusal),
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
            Self::Who(_) => Kind::Who,
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
            Self::Publish(files) | Self::Unpublish(files) => files.encode(&mut body),
            Self::Search(search) => codec::encode(search, &mut body),
            Self::Locate(locate) => codec::encode(locate, &mut body),
            Self::ListPeers(list) => codec::encode(list, &mut body),
            Self::ListFiles(list) => codec::encode(list, &mut body),
            Self::Who(who) => codec::encode(who, &mut body),
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
            Kind::Publish => Self::Publish(Files::decode(body)?),
            Kind::Unpublish => Self::Unpublish(Files::decode(body)?),
            Kind::Search => Self::Search(codec::decode(body)?),
            Kind::Locate => Self::Locate(codec::decode(body)?),
            Kind::ListPeers => Self::ListPeers(codec::decode(body)?),
            Kind::ListFiles => Self::ListFiles(codec::decode(body)?),
            Kind::Who => Self::Who(codec::decode(body)?),
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
            Self::Who(_) => Kind::Who,
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
            Self::Who(entry) => codec::write(entry, body)?,
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
            Kind::Who => Self::Who(codec::decode(body)?),
        })
    }
}

/// Bytes of the largest padded plaintext.
const MAX_PLAINTEXT_LEN: usize = HEAD_LEN + MAX_BODY_LEN;

/// Room for the plaintext of any control message.
pub type Plaintext = [u8; MAX_PLAINTEXT_LEN];

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
