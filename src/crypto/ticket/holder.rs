//! The peer's side of a resumption: what it keeps, what it sends, and what it reads in the answer.

use snow::HandshakeState;
use zeroize::Zeroizing;

use super::{
    Grant, RESUME_NOISE, RESUME_PAYLOAD_LEN, RESUMED_NOISE, RESUMED_PAYLOAD_LEN, TYPE_RESUME,
    TYPE_RESUMED, noise, prologue,
};
use crate::crypto::envelope::DatagramKeys;
use crate::crypto::handshake::{End, SessionKeys};
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::secret::Secret;
use crate::wire::control::Ticket;
use crate::wire::id::SessionId;
use crate::wire::packet::{RESUME_LEN, RESUMED_LEN};

/// What a peer keeps, in memory only, to come back without a handshake.
#[derive(Debug, Clone)]
pub struct Resumable {
    /// Opaque to us.
    pub ticket: Ticket,
    /// The secret that goes with it: that of the session in which the peer logged in.
    pub resume: Secret<32>,
}

/// One try to resume, waiting for its answer: the peer's side.
pub struct Resuming {
    noise: Option<HandshakeState>,
    id: [u8; 7],
    resume: Secret<32>,
}

/// What RESUMED brought.
#[derive(Debug)]
pub struct Resumed {
    /// The new session.
    pub session: SessionId,
    /// Its keys, peer's side.
    pub keys: DatagramKeys,
    /// For the next time.
    pub resumable: Resumable,
    /// The tracker's clock, Unix time in ms.
    pub tracker_unix_ms: u64,
}

impl Resuming {
    /// Makes a RESUME. `tracker_ms` is the tracker's time as far as we know it.
    #[must_use]
    pub fn start(
        resumable: &Resumable,
        tracker_ms: u64,
        listening_port: Option<u16>,
        random: &mut dyn Random,
    ) -> (Self, [u8; RESUME_LEN]) {
        let id = random_bytes(random);
        let ephemeral = Zeroizing::new(random_bytes::<32>(random));
        let mut datagram = [0; RESUME_LEN];
        datagram[0] = TYPE_RESUME;
        datagram[1..8].copy_from_slice(&id);
        datagram[8..16].copy_from_slice(&tracker_ms.to_be_bytes());
        datagram[16..RESUME_NOISE].copy_from_slice(&resumable.ticket.0);
        let prologue = prologue(&datagram);
        let mut noise = noise(&resumable.resume, &prologue, &ephemeral)
            .build_initiator()
            .expect("pattern, psk and prologue are complete");
        let mut payload = [0; RESUME_PAYLOAD_LEN];
        payload[..2].copy_from_slice(&listening_port.unwrap_or(0).to_be_bytes());
        noise
            .write_message(&payload, &mut datagram[RESUME_NOISE..])
            .expect("the first message of NN with 32 bytes of payload is 80 bytes");
        (
            Self {
                noise: Some(noise),
                id,
                resume: resumable.resume.clone(),
            },
            datagram,
        )
    }

    /// Reads a RESUMED; `None` when it answers another try.
    pub fn finish(&mut self, datagram: &[u8; RESUMED_LEN]) -> Option<Resumed> {
        if datagram[0] != TYPE_RESUMED || datagram[1..8] != self.id {
            return None;
        }
        // A forged answer must not spoil the try: snow takes a failed message back.
        let noise = self.noise.as_mut()?;
        let mut payload = [0; RESUMED_PAYLOAD_LEN];
        noise
            .read_message(&datagram[RESUMED_NOISE..], &mut payload)
            .ok()?;
        let keys = SessionKeys::derive(noise, End::Initiator).datagram;
        self.noise = None;
        let Grant {
            session,
            tracker_unix_ms,
            ticket,
        } = Grant::decode(&payload).ok()?;
        let resumable = Resumable {
            ticket,
            resume: self.resume.clone(),
        };
        Some(Resumed {
            session,
            keys,
            resumable,
            tracker_unix_ms,
        })
    }
}
