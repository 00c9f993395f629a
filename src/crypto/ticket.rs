//! Login ticket and resumption: sealed, bound to user and key, expiring.
//!
//! ```text
//! ticket   │ day 4 │ nonce 24 │ sealed: 164 │ tag 16 │
//! RESUME   │ 0x12 │ id 7 │ tracker's ms 8 │ ticket 208 │ noise e, payload 32: 80 │
//! RESUMED  │ 0x13 │ id 7 │ zero 8 │ noise e, ee, payload 232: 280 │
//! ```
//! A ticket is opaque to its holder and good for one day, across restarts of the tracker. Only together
//! with the session's resumption secret, the psk of Noise_NNpsk0, does it open a new session; a fresh
//! Diffie-Hellman keeps that one's traffic safe even when ticket keys leak later.

mod holder;

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ring::hmac;
use snow::Builder;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use self::holder::{Resumable, Resumed, Resuming};
use super::envelope::DatagramKeys;
use super::handshake::{End, SessionKeys};
use super::kdf::{Group, TrackerSeed, hkdf};
use super::label;
use super::random::{Random, random_bytes};
use super::secret::Secret;
use crate::wire::codec::{DecodeError, take};
use crate::wire::control::Ticket;
use crate::wire::id::{PeerId, SessionId};
use crate::wire::packet::{RESUME_LEN, RESUMED_LEN, TAG_LEN};
use crate::wire::text::UserName;

/// How long a ticket is good, in ms: 24 hours.
pub const TICKET_LIFE_MS: u64 = 24 * 3600 * 1000;

/// How far the peer's idea of the tracker's time may be off, in ms.
const MAX_SKEW_MS: u64 = 300_000;
const MS_PER_DAY: u64 = 24 * 3600 * 1000;
const NOISE: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
const PLAIN_LEN: usize = 164;
const NONCE_LEN: usize = 24;
const USER_LEN: usize = 64;
const FLAG_PASSWORD: u8 = 1;
const TYPE_RESUME: u8 = 0x12;
const TYPE_RESUMED: u8 = 0x13;
/// Where RESUME's Noise message begins; all before it is Noise's prologue.
const RESUME_NOISE: usize = 224;
const RESUMED_NOISE: usize = 16;
const RESUME_PAYLOAD_LEN: usize = 32;
const RESUMED_PAYLOAD_LEN: usize = 232;

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketContent {
    /// Who is logged in.
    pub user: UserName,
    /// With which identity.
    pub peer: PeerId,
    /// Was a password asked for?
    pub has_password: bool,
    /// Changes with the user's password; zero without one.
    pub credential_mark: [u8; 8],
    /// Unix time in ms.
    pub issued_ms: u64,
    /// Unix time in ms.
    pub expires_ms: u64,
    /// Random; repetitions of one ticket are told by it.
    pub id: [u8; 8],
    /// The secret that its holder must know.
    pub resume: Secret<32>,
}

/// Expired, forged, foreign, or used at a wrong time: silence is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ticket is not valid")]
pub struct InvalidTicket;

/// The users of a tracker that wants passwords, as they are now.
pub trait Roll: Send + Sync {
    /// The PHC form of this user's password hash.
    fn hash_of(&self, user: &UserName) -> Option<String>;
}

/// Makes tickets and answers those who come back with one: the tracker's side.
#[derive(Clone)]
pub struct TicketOffice {
    secret: Secret<64>,
    roll: Option<Arc<dyn Roll>>,
}

/// A RESUME that was read as far as its ticket.
#[derive(Debug)]
pub struct Claim<'a> {
    /// The ticket that it carries.
    pub ticket: TicketContent,
    /// What the sender takes for the tracker's time, in ms.
    pub claimed_ms: u64,
    datagram: &'a [u8; RESUME_LEN],
}

/// A RESUME that is in order.
#[derive(Debug)]
pub struct Resumption {
    /// The ticket that it carried.
    pub ticket: TicketContent,
    /// What the peer takes for the tracker's time, in ms: it grows with each use of one ticket.
    pub claimed_ms: u64,
    /// Where the peer listens.
    pub listening_port: Option<u16>,
    /// Keys of the new session, tracker's side.
    pub keys: DatagramKeys,
    /// RESUMED, ready to be sent.
    pub answer: [u8; RESUMED_LEN],
}

impl TicketOffice {
    /// The office of one tracker for one passphrase: with another of either, all tickets are void.
    #[must_use]
    pub fn new(group: &Group, seed: &TrackerSeed) -> Self {
        let secret = Secret::from_fn(|secret| {
            secret[..32].copy_from_slice(seed.0.expose());
            secret[32..].copy_from_slice(group.pw().expose());
        });
        Self { secret, roll: None }
    }

    /// From now on a ticket is good only while its user is on `roll` with the same password.
    pub fn ask_for_passwords(&mut self, roll: Arc<dyn Roll>) {
        self.roll = Some(roll);
    }

    /// What a ticket that is issued at `issued_ms` says of a password: it changes with the hash, and tells
    /// nothing of it.
    #[must_use]
    pub fn credential_mark(&self, hash: &str, issued_ms: u64) -> [u8; 8] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.day_key(day_of(issued_ms)).expose());
        *hmac::sign(&key, hash.as_bytes())
            .as_ref()
            .first_chunk()
            .expect("HMAC-SHA256 has 32 bytes")
    }

    /// The same ticket as if it were issued at `unix_ms`.
    ///
    /// # Errors
    /// When its user is gone, has another password, or never showed one.
    pub fn renew(
        &self,
        ticket: &TicketContent,
        unix_ms: u64,
    ) -> Result<TicketContent, InvalidTicket> {
        let mut renewed = TicketContent {
            issued_ms: unix_ms,
            expires_ms: unix_ms.saturating_add(TICKET_LIFE_MS),
            ..ticket.clone()
        };
        if let Some(roll) = &self.roll {
            let hash = roll.hash_of(&ticket.user).ok_or(InvalidTicket)?;
            let mark = self.credential_mark(&hash, ticket.issued_ms);
            let is_same = mark.ct_eq(&ticket.credential_mark);
            if !ticket.has_password || !bool::from(is_same) {
                return Err(InvalidTicket);
            }
            renewed.credential_mark = self.credential_mark(&hash, unix_ms);
        } else {
            (renewed.has_password, renewed.credential_mark) = (false, [0; 8]);
        }
        Ok(renewed)
    }

    /// Seals `content` under the key of the day on which it is issued.
    #[must_use]
    pub fn issue(&self, content: &TicketContent, random: &mut dyn Random) -> Ticket {
        let day = day_of(content.issued_ms);
        let nonce: [u8; NONCE_LEN] = random_bytes(random);
        let plain = encode(content);
        let sealed = self
            .cipher(day)
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: &*plain,
                    aad: &day,
                },
            )
            .expect("a ticket's length can be sealed");
        let mut ticket = [0; Ticket::LEN];
        ticket[..4].copy_from_slice(&day);
        ticket[4..28].copy_from_slice(&nonce);
        ticket[28..].copy_from_slice(&sealed);
        Ticket(ticket)
    }

    /// Opens a ticket at `unix_ms`.
    ///
    /// # Errors
    /// When it is not ours, older than yesterday's key, or expired.
    pub fn open(&self, ticket: &Ticket, unix_ms: u64) -> Result<TicketContent, InvalidTicket> {
        let mut rest = &ticket.0[..];
        let day: [u8; 4] = take(&mut rest).map_err(|_| InvalidTicket)?;
        let nonce: [u8; NONCE_LEN] = take(&mut rest).map_err(|_| InvalidTicket)?;
        if day != day_of(unix_ms) && day != day_of(unix_ms.saturating_sub(MS_PER_DAY)) {
            return Err(InvalidTicket);
        }
        let plain = self
            .cipher(day)
            .decrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: rest,
                    aad: &day,
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| InvalidTicket)?;
        let content = decode(&plain).map_err(|_| InvalidTicket)?;
        if unix_ms >= content.expires_ms {
            Err(InvalidTicket)
        } else {
            Ok(content)
        }
    }

    /// Reads a RESUME as far as its ticket, which whoever sends it need not own: [`TicketOffice::resume`]
    /// finds that out.
    ///
    /// # Errors
    /// When the ticket is not valid, or the time is off.
    pub fn read<'a>(
        &self,
        datagram: &'a [u8; RESUME_LEN],
        unix_ms: u64,
    ) -> Result<Claim<'a>, InvalidTicket> {
        let claimed_ms = u64::from_be_bytes(*datagram[8..].first_chunk().expect("304 bytes"));
        if datagram[0] != TYPE_RESUME || claimed_ms.abs_diff(unix_ms) > MAX_SKEW_MS {
            return Err(InvalidTicket);
        }
        let ticket = Ticket(*datagram[16..].first_chunk().expect("304 bytes"));
        let ticket = self.open(&ticket, unix_ms)?;
        Ok(Claim {
            ticket,
            claimed_ms,
            datagram,
        })
    }

    /// Answers a RESUME with `session` and a new ticket for the same user and key.
    ///
    /// # Errors
    /// When the user is gone or has another password, or the sender does not know the ticket's secret.
    pub fn resume(
        &self,
        claim: Claim<'_>,
        unix_ms: u64,
        session: SessionId,
        random: &mut dyn Random,
    ) -> Result<Resumption, InvalidTicket> {
        let Claim {
            ticket,
            claimed_ms,
            datagram,
        } = claim;
        let renewed = TicketContent {
            id: random_bytes(random),
            ..self.renew(&ticket, unix_ms)?
        };
        let renewed = self.issue(&renewed, random);
        let grant = Grant {
            session,
            tracker_unix_ms: unix_ms,
            ticket: renewed,
        };
        let (request, keys, answer) = answer(datagram, &ticket.resume, &grant, random)?;
        let port = u16::from_be_bytes([request[0], request[1]]);
        let listening_port = (port != 0).then_some(port);
        Ok(Resumption {
            ticket,
            claimed_ms,
            listening_port,
            keys,
            answer,
        })
    }

    fn cipher(&self, day: [u8; 4]) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.day_key(day).expose().into())
    }

    fn day_key(&self, day: [u8; 4]) -> Secret<32> {
        hkdf(label::TICKET, &[self.secret.expose()], &day)
    }
}

impl fmt::Debug for TicketOffice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketOffice(..)")
    }
}

fn day_of(unix_ms: u64) -> [u8; 4] {
    u32::try_from(unix_ms / MS_PER_DAY)
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}

/// What RESUMED carries.
struct Grant {
    session: SessionId,
    tracker_unix_ms: u64,
    ticket: Ticket,
}

impl Grant {
    fn encode(&self) -> [u8; RESUMED_PAYLOAD_LEN] {
        let mut bytes = [0; RESUMED_PAYLOAD_LEN];
        bytes[1..8].copy_from_slice(&self.session.to_bytes());
        bytes[8..16].copy_from_slice(&self.tracker_unix_ms.to_be_bytes());
        bytes[16..16 + Ticket::LEN].copy_from_slice(&self.ticket.0);
        bytes
    }

    fn decode(bytes: &[u8; RESUMED_PAYLOAD_LEN]) -> Result<Self, DecodeError> {
        let mut rest = &bytes[..];
        let [status] = take(&mut rest)?;
        if status != 0 {
            return Err(DecodeError("status of RESUMED"));
        }
        let session = SessionId::from_bytes(take(&mut rest)?);
        let tracker_unix_ms = u64::from_be_bytes(take(&mut rest)?);
        Ok(Self {
            session,
            tracker_unix_ms,
            ticket: Ticket(take(&mut rest)?),
        })
    }
}

type Answer = ([u8; RESUME_PAYLOAD_LEN], DatagramKeys, [u8; RESUMED_LEN]);

/// The tracker's half of the resumption handshake.
fn answer(
    datagram: &[u8; RESUME_LEN],
    resume: &Secret<32>,
    grant: &Grant,
    random: &mut dyn Random,
) -> Result<Answer, InvalidTicket> {
    let ephemeral = Zeroizing::new(random_bytes::<32>(random));
    let prologue = prologue(datagram);
    let mut noise = noise(resume, &prologue, &ephemeral)
        .build_responder()
        .expect("pattern, psk and prologue are complete");
    let mut request = [0; RESUME_PAYLOAD_LEN];
    noise
        .read_message(&datagram[RESUME_NOISE..], &mut request)
        .map_err(|_| InvalidTicket)?;
    let mut answer = [0; RESUMED_LEN];
    answer[0] = TYPE_RESUMED;
    answer[1..8].copy_from_slice(&datagram[1..8]);
    noise
        .write_message(&grant.encode(), &mut answer[RESUMED_NOISE..])
        .expect("the second message of NN with 232 bytes of payload is 280 bytes");
    Ok((
        request,
        SessionKeys::derive(&mut noise, End::Responder).datagram,
        answer,
    ))
}

/// The tracker's answer with everything given, for the vectors.
#[cfg(test)]
pub(super) fn answer_with(
    datagram: &[u8; RESUME_LEN],
    resume: &Secret<32>,
    (session, tracker_unix_ms, ticket): (SessionId, u64, Ticket),
    random: &mut dyn Random,
) -> Option<[u8; RESUMED_LEN]> {
    let grant = Grant {
        session,
        tracker_unix_ms,
        ticket,
    };
    answer(datagram, resume, &grant, random)
        .ok()
        .map(|(_, _, answer)| answer)
}

fn noise<'a>(resume: &'a Secret<32>, prologue: &'a [u8], ephemeral: &'a [u8; 32]) -> Builder<'a> {
    Builder::new(NOISE.parse().expect("a pattern that snow knows"))
        .psk(0, resume.expose())
        .and_then(|builder| builder.prologue(prologue))
        .expect("each is set once")
        // Randomness is our argument; snow's own source is not used.
        .fixed_ephemeral_key_for_testing_only(ephemeral)
}

fn prologue(datagram: &[u8; RESUME_LEN]) -> Vec<u8> {
    [b"p2pfs/1 resume\0", &datagram[..RESUME_NOISE]].concat()
}

fn encode(content: &TicketContent) -> Zeroizing<[u8; PLAIN_LEN]> {
    let user = content.user.as_str().as_bytes();
    let mut bytes = Zeroizing::new([0; PLAIN_LEN]);
    bytes[0] = 1;
    bytes[1] = if content.has_password {
        FLAG_PASSWORD
    } else {
        0
    };
    bytes[2] = u8::try_from(user.len()).expect("user names have at most 64 bytes");
    bytes[4..12].copy_from_slice(&content.issued_ms.to_be_bytes());
    bytes[12..20].copy_from_slice(&content.expires_ms.to_be_bytes());
    bytes[20..28].copy_from_slice(&content.id);
    bytes[28..36].copy_from_slice(&content.credential_mark);
    bytes[36..68].copy_from_slice(content.resume.expose());
    bytes[68..100].copy_from_slice(&content.peer.0);
    bytes[100..100 + user.len()].copy_from_slice(user);
    bytes
}

fn decode(plain: &[u8]) -> Result<TicketContent, DecodeError> {
    let mut rest = plain;
    let [version, flags, user_len, _zero] = take(&mut rest)?;
    if version != 1 {
        return Err(DecodeError("version of a ticket"));
    }
    let issued_ms = u64::from_be_bytes(take(&mut rest)?);
    let expires_ms = u64::from_be_bytes(take(&mut rest)?);
    let id = take(&mut rest)?;
    let credential_mark = take(&mut rest)?;
    let (secret, mut rest) = rest.split_first_chunk().ok_or(DecodeError("cut short"))?;
    let resume = Secret::from_fn(|place| *place = *secret);
    let peer = PeerId(take(&mut rest)?);
    let user: [u8; USER_LEN] = take(&mut rest)?;
    let user = user
        .get(..usize::from(user_len))
        .and_then(|user| std::str::from_utf8(user).ok());
    let user = user
        .and_then(|user| user.parse().ok())
        .ok_or(DecodeError("user of a ticket"))?;
    let has_password = flags & FLAG_PASSWORD != 0;
    Ok(TicketContent {
        user,
        peer,
        has_password,
        credential_mark,
        issued_ms,
        expires_ms,
        id,
        resume,
    })
}

const _: () = assert!(4 + NONCE_LEN + PLAIN_LEN + TAG_LEN == Ticket::LEN);
