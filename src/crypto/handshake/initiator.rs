//! The side that dials: makes m1, reads m2, makes m3.

use ml_kem::array::Array;
use ml_kem::kem::{Decapsulate as _, KeyExport as _};
use ml_kem::ml_kem_768;
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::hello::{
    Hello, PLAIN_LEN, Plain, REFUSED_BUSY, REFUSED_ROLE, REFUSED_VERSION, Refusal, open, seal,
};
use super::{
    End, Keys, Local, M1_NOISE, M2_NOISE, PAYLOAD_LEN, SUITE_AES, SUITE_CHACHA, channel,
    kem_from_seed, noise, prologue, psk, remote_static,
};
use crate::crypto::cpace::Exchange;
use crate::crypto::kdf::EnvelopeKeys;
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::stream::Suite;
use crate::wire::PROTOCOL_VERSION;
use crate::wire::id::PeerId;
use crate::wire::packet::{CONFIRM_LEN, HELLO_LEN, Role};

/// Why the initiator stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InitiatorError {
    /// The envelope does not open, or the answer breaks a rule of the format.
    #[error("the answer is not one of p2pfs")]
    NotOurs,
    /// The other side proved no knowledge of the passphrase.
    #[error("the passphrase differs")]
    WrongPassphrase,
    /// The responder would not go on; a hint that nobody vouches for.
    #[error("it refuses: {0}")]
    Refused(Refusal),
    /// The other side has our own key.
    #[error("this is our own address")]
    Loop,
}

/// The dialling side, waiting for m2.
pub struct Initiator {
    envelope: EnvelopeKeys,
    m1: Plain,
    exchange: Exchange,
    kem: ml_kem_768::DecapsulationKey,
    noise: HandshakeState,
    ours: PeerId,
    may_be_us: bool,
}

impl Initiator {
    /// Makes m1, which asks for a `wanted` under `envelope`.
    #[must_use]
    pub fn start(
        local: Local<'_>,
        wanted: Role,
        envelope: &EnvelopeKeys,
        random: &mut dyn Random,
    ) -> (Self, Hello) {
        let nonce = random_bytes(random);
        let sid: [u8; 16] = random_bytes(random);
        let channel = channel(local.group, wanted);
        let exchange = Exchange::new(
            local.group.pw().expose(),
            &channel,
            &sid,
            random_bytes(random),
        );
        let kem = kem_from_seed(random_bytes(random));
        let ephemeral = Zeroizing::new(random_bytes::<32>(random));

        let mut m1: Plain = Box::new([0; PLAIN_LEN]);
        let suites = SUITE_CHACHA | if local.has_aes { SUITE_AES } else { 0 };
        m1[..4].copy_from_slice(&[PROTOCOL_VERSION, PROTOCOL_VERSION, wanted.to_byte(), suites]);
        m1[16..32].copy_from_slice(&sid);
        m1[32..64].copy_from_slice(&exchange.share);
        m1[64..M1_NOISE].copy_from_slice(&kem.encapsulation_key().to_bytes());
        let prologue = prologue(&m1);
        let mut noise = noise(local.identity, &prologue, &ephemeral)
            .build_initiator()
            .expect("pattern, keys and prologue are complete");
        noise
            .write_message(&[], &mut m1[M1_NOISE..])
            .expect("the first message of XX is 48 bytes, for which there is room");
        let wire = seal(&envelope.m1, nonce, &m1);
        (
            Self {
                envelope: envelope.clone(),
                m1,
                exchange,
                kem,
                noise,
                ours: local.identity.id(),
                may_be_us: false,
            },
            wire,
        )
    }

    /// The other side may have our own key: a peer without a tracker runs a small one itself.
    #[must_use]
    pub const fn to_itself(mut self) -> Self {
        self.may_be_us = true;
        self
    }

    /// Reads m2.
    ///
    /// # Errors
    /// When it proves no knowledge of the passphrase, or is no answer to this m1.
    pub fn read_answer(mut self, m2: &[u8; HELLO_LEN]) -> Result<Answered, InitiatorError> {
        use InitiatorError::{Loop, NotOurs, WrongPassphrase};
        let m2 = open(&self.envelope.m2, m2).ok_or(NotOurs)?;
        let suite = self.check_header(&m2)?;
        let share: &[u8; 32] = m2[16..48].try_into().expect("32 bytes");
        let secret = self.exchange.agree(share).map_err(|_| NotOurs)?;
        let ciphertext =
            Array::try_from(&m2[48..M2_NOISE]).expect("1088 bytes, as ML-KEM-768 has them");
        let kem_secret = Zeroizing::new(self.kem.decapsulate(&ciphertext));
        let psk = psk(&self.m1, &m2, &secret, kem_secret.as_slice());
        self.noise
            .set_psk(2, psk.expose())
            .expect("XXpsk2 has its psk in the second message");
        let mut payload = [0; PAYLOAD_LEN];
        self.noise
            .read_message(&m2[M2_NOISE..], &mut payload)
            .map_err(|_| WrongPassphrase)?;
        let remote = remote_static(&self.noise);
        if remote == self.ours && !self.may_be_us {
            return Err(Loop);
        }
        let remote_unix_ms = u64::from_be_bytes(*payload.first_chunk().expect("64 bytes"));
        Ok(Answered {
            noise: self.noise,
            suite,
            remote,
            remote_unix_ms,
        })
    }

    fn check_header(&self, m2: &[u8; PLAIN_LEN]) -> Result<Suite, InitiatorError> {
        let [version, role, suite, reason] = *m2.first_chunk().expect("longer than four bytes");
        if version == 0 {
            return Err(InitiatorError::Refused(match reason {
                REFUSED_VERSION => Refusal::Version(role, suite),
                REFUSED_BUSY => Refusal::Busy,
                REFUSED_ROLE => Refusal::WrongRole,
                _ => return Err(InitiatorError::NotOurs),
            }));
        }
        let has_aes = self.m1[3] & SUITE_AES != 0;
        match (version, suite) {
            _ if role != self.m1[2] => Err(InitiatorError::NotOurs),
            (PROTOCOL_VERSION, SUITE_CHACHA) => Ok(Suite::ChaCha),
            (PROTOCOL_VERSION, SUITE_AES) if has_aes => Ok(Suite::Aes),
            _ => Err(InitiatorError::NotOurs),
        }
    }
}

/// The dialling side after m2: the other side has proved the passphrase and its key.
pub struct Answered {
    noise: HandshakeState,
    suite: Suite,
    remote: PeerId,
    remote_unix_ms: u64,
}

impl Answered {
    /// The key that the other side proved; to be compared before [`Answered::confirm`].
    #[must_use]
    pub const fn remote(&self) -> PeerId {
        self.remote
    }

    /// The other side's clock, Unix time in ms.
    #[must_use]
    pub const fn remote_unix_ms(&self) -> u64 {
        self.remote_unix_ms
    }

    /// Makes m3, which says who we are and where we listen for peers, and the keys.
    #[must_use]
    pub fn confirm(mut self, role: Role, listening_port: Option<u16>) -> ([u8; CONFIRM_LEN], Keys) {
        let mut payload = [0; PAYLOAD_LEN];
        payload[0] = role.to_byte();
        payload[1..3].copy_from_slice(&listening_port.unwrap_or(0).to_be_bytes());
        let mut m3 = [0; CONFIRM_LEN];
        self.noise
            .write_message(&payload, &mut m3)
            .expect("the third message of XX with 64 bytes of payload is 128 bytes");
        (
            m3,
            Keys::derive(&mut self.noise, End::Initiator, self.suite, self.remote),
        )
    }
}
