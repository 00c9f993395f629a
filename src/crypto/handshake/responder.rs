//! The side that listens: reads m1, makes m2, reads m3.

use snow::HandshakeState;
use zeroize::Zeroizing;

use super::hello::{
    Hello, PLAIN_LEN, Plain, REFUSED_BUSY, REFUSED_ROLE, REFUSED_VERSION, open_any, refusal, seal,
};
use super::{
    End, Keys, Local, M1_NOISE, M2_NOISE, PAYLOAD_LEN, SUITE_AES, SUITE_CHACHA, channel,
    encapsulate, noise, prologue, psk, remote_static,
};
use crate::crypto::cpace::Exchange;
use crate::crypto::kdf::EnvelopeKeys;
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::stream::Suite;
use crate::wire::PROTOCOL_VERSION;
use crate::wire::id::PeerId;
use crate::wire::packet::{CONFIRM_LEN, HELLO_LEN, Role};

/// The listening side, waiting for m3.
pub struct Responder {
    noise: HandshakeState,
    suite: Suite,
    ours: PeerId,
    role: Role,
}

/// Why the responder does not go on.
#[derive(Debug)]
pub enum ResponderError {
    /// Say nothing: read on, and close at the deadline.
    Silence,
    /// Send this m2, then close.
    Refuse(Hello),
}

/// An initiator that has proved the passphrase and its key.
#[derive(Debug)]
pub struct Accepted {
    /// The session's keys, and who the initiator is.
    pub keys: Keys,
    /// What it is.
    pub role: Role,
    /// Where it listens for peers.
    pub listening_port: Option<u16>,
}

/// m3 did not open, or breaks a rule: a wrong guess, as far as anybody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the third message of the handshake does not open")]
pub struct InvalidConfirm;

impl Responder {
    /// Reads m1 under whichever of `envelopes` opens it, and makes m2. `unix_ms` is told to the initiator.
    ///
    /// # Errors
    /// When nothing opens it or it breaks a rule: silence. When it wants another version or role: a
    /// refusal.
    pub fn answer(
        local: Local<'_>,
        envelopes: &[EnvelopeKeys],
        m1: &[u8; HELLO_LEN],
        unix_ms: u64,
        random: &mut dyn Random,
    ) -> Result<(Self, Hello), ResponderError> {
        use ResponderError::{Refuse, Silence};
        let (envelope, m1) = open_any(envelopes, m1).ok_or(Silence)?;
        let nonce = random_bytes(random);
        let [highest, lowest, wanted, suites] = *m1.first_chunk().expect("longer than four bytes");
        if !(lowest..=highest).contains(&PROTOCOL_VERSION) {
            return Err(Refuse(refusal(envelope, nonce, REFUSED_VERSION)));
        }
        if wanted != local.role.to_byte() {
            return Err(Refuse(refusal(envelope, nonce, REFUSED_ROLE)));
        }
        let suite = if suites & SUITE_AES != 0 && local.has_aes {
            Suite::Aes
        } else {
            Suite::ChaCha
        };

        let sid = &m1[16..32];
        let channel = channel(local.group, local.role);
        let exchange = Exchange::new(
            local.group.pw().expose(),
            &channel,
            sid,
            random_bytes(random),
        );
        let share: &[u8; 32] = m1[32..64].try_into().expect("32 bytes");
        let secret = exchange.agree(share).map_err(|_| Silence)?;
        let (ciphertext, kem_secret) =
            encapsulate(&m1[64..M1_NOISE], random_bytes(random)).ok_or(Silence)?;

        let ephemeral = Zeroizing::new(random_bytes::<32>(random));
        let prologue = prologue(&m1);
        let mut noise = noise(local.identity, &prologue, &ephemeral)
            .build_responder()
            .expect("pattern, keys and prologue are complete");
        noise
            .read_message(&m1[M1_NOISE..], &mut [])
            .map_err(|_| Silence)?;

        let mut m2: Plain = Box::new([0; PLAIN_LEN]);
        let suite_byte = if suite == Suite::Aes {
            SUITE_AES
        } else {
            SUITE_CHACHA
        };
        m2[..3].copy_from_slice(&[PROTOCOL_VERSION, local.role.to_byte(), suite_byte]);
        m2[16..48].copy_from_slice(&exchange.share);
        m2[48..M2_NOISE].copy_from_slice(&ciphertext);
        let psk = psk(&m1, &m2, &secret, kem_secret.as_slice());
        noise
            .set_psk(2, psk.expose())
            .expect("XXpsk2 has its psk in the second message");
        let mut payload = [0; PAYLOAD_LEN];
        payload[..8].copy_from_slice(&unix_ms.to_be_bytes());
        noise
            .write_message(&payload, &mut m2[M2_NOISE..])
            .map_err(|_| Silence)?;
        let wire = seal(&envelope.m2, nonce, &m2);
        Ok((
            Self {
                noise,
                suite,
                ours: local.identity.id(),
                role: local.role,
            },
            wire,
        ))
    }

    /// An m2 that says "busy", under the envelope that opens `m1`; `None` when none does.
    #[must_use]
    pub fn busy(
        envelopes: &[EnvelopeKeys],
        m1: &[u8; HELLO_LEN],
        random: &mut dyn Random,
    ) -> Option<Hello> {
        let (envelope, _) = open_any(envelopes, m1)?;
        Some(refusal(envelope, random_bytes(random), REFUSED_BUSY))
    }

    /// Reads m3.
    ///
    /// # Errors
    /// When it does not open; this counts as a failed guess.
    pub fn finish(mut self, m3: &[u8; CONFIRM_LEN]) -> Result<Accepted, InvalidConfirm> {
        let mut payload = [0; PAYLOAD_LEN];
        self.noise
            .read_message(m3, &mut payload)
            .map_err(|_| InvalidConfirm)?;
        let remote = remote_static(&self.noise);
        let role = Role::from_byte(payload[0]).map_err(|_| InvalidConfirm)?;
        // A peer without a tracker is a member of its own small one.
        if remote == self.ours && role == self.role {
            return Err(InvalidConfirm);
        }
        let port = u16::from_be_bytes([payload[1], payload[2]]);
        let keys = Keys::derive(&mut self.noise, End::Responder, self.suite, remote);
        Ok(Accepted {
            keys,
            role,
            listening_port: (port != 0).then_some(port),
        })
    }
}
