//! Seals and opens one datagram; the outside is associated data.
//!
//! ChaCha20-Poly1305 (RFC 8439) under one key for each direction. The nonce is the header's counter,
//! which lives inside [`Sealer`] and only grows, so no nonce is used twice; the keys differ, so a
//! datagram that is sent back to its sender does not open.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::ZeroizeOnDrop;

use super::replay::ReplayWindow;
use super::secret::Secret;
use crate::wire::id::SessionId;
use crate::wire::packet::{DATAGRAM_HEADER_LEN, DataHeader, TAG_LEN};

/// Datagrams that one key may seal.
const MAX_COUNTER: u64 = 1 << 48;

/// The two keys of a UDP session, from our side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramKeys {
    /// What we seal with.
    pub send: Secret<32>,
    /// What we open with.
    pub receive: Secret<32>,
}

/// The sending half of a session.
#[derive(Debug)]
pub struct Sealer {
    session: SessionId,
    key: Secret<32>,
    counter: u64,
}

/// As many datagrams were sealed as one key may seal; the session must be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session's key is used up")]
pub struct Exhausted;

impl Sealer {
    /// The sending half of `session`, which has sent nothing yet.
    #[must_use]
    pub const fn new(session: SessionId, key: Secret<32>) -> Self {
        Self {
            session,
            key,
            counter: 0,
        }
    }

    /// Appends header, ciphertext and tag to `out`. `plaintext` is padded to one of `packet::CLASSES`.
    ///
    /// # Errors
    /// After 2^48 datagrams.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), Exhausted> {
        if self.counter >= MAX_COUNTER {
            return Err(Exhausted);
        }
        let header = DataHeader {
            session: self.session,
            counter: self.counter,
        };
        self.counter += 1;
        let start = out.len();
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(plaintext);
        out.extend_from_slice(&[0; TAG_LEN]);
        seal(self.key.expose(), header, &mut out[start..]);
        Ok(())
    }
}

/// Forged, repeated, too old, or of another session: which of them stays inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the datagram does not open")]
pub struct OpenError;

/// The receiving half of a session, with its replay window.
#[derive(Debug)]
pub struct Opener {
    key: Secret<32>,
    window: ReplayWindow,
}

/// A datagram that opened.
#[derive(Debug)]
pub struct Opened<'a> {
    /// The padded plaintext.
    pub plaintext: &'a [u8],
    /// No datagram with a higher counter came before: its source is the sender's latest address.
    pub is_newest: bool,
}

impl Opener {
    /// The receiving half of a session that has received nothing yet.
    #[must_use]
    pub fn new(key: Secret<32>) -> Self {
        Self {
            key,
            window: ReplayWindow::default(),
        }
    }

    /// Opens the whole datagram, header included, in place.
    ///
    /// # Errors
    /// When it is not a new datagram of the other side; nothing changes then.
    pub fn open<'a>(
        &mut self,
        header: DataHeader,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenError> {
        open(self.key.expose(), &mut self.window, header, datagram)
    }

    /// Has this counter been used, or is it too old to tell? For those who count; a forgery may say any.
    #[must_use]
    pub fn has_seen(&self, header: DataHeader) -> bool {
        !self.window.accepts(header.counter)
    }
}

/// The sending half of a session in a table of a million: its key lies in the record itself, which wipes
/// it, and the table does not move a record without leaving zeros behind.
#[derive(Default, ZeroizeOnDrop)]
pub struct FlatSealer {
    key: [u8; 32],
    /// At most 2^32 datagrams; a session sends a hundredth of that in its life.
    counter: u32,
}

impl FlatSealer {
    /// The sending half of a session that has sent nothing yet.
    #[must_use]
    pub fn new(key: &Secret<32>) -> Self {
        Self {
            key: *key.expose(),
            counter: 0,
        }
    }

    /// Seals what lies in `datagram` between header and tag, and writes both.
    ///
    /// # Errors
    /// When the key is used up.
    pub fn seal(&mut self, session: SessionId, datagram: &mut [u8]) -> Result<(), Exhausted> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(Exhausted)?;
        let header = DataHeader {
            session,
            counter: counter.into(),
        };
        seal(&self.key, header, datagram);
        Ok(())
    }
}

/// The receiving half of such a session.
#[derive(Default, ZeroizeOnDrop)]
pub struct FlatOpener {
    #[zeroize(skip)]
    window: ReplayWindow,
    key: [u8; 32],
}

impl FlatOpener {
    /// The receiving half of a session that has received nothing yet.
    #[must_use]
    pub fn new(key: &Secret<32>) -> Self {
        Self {
            window: ReplayWindow::default(),
            key: *key.expose(),
        }
    }

    /// Might a datagram with this counter open?
    #[must_use]
    pub fn accepts(&self, counter: u64) -> bool {
        self.window.accepts(counter)
    }

    /// Opens the whole datagram, header included, in place.
    ///
    /// # Errors
    /// When it is not a new datagram of the other side; nothing changes then.
    pub fn open<'a>(
        &mut self,
        header: DataHeader,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenError> {
        open(&self.key, &mut self.window, header, datagram)
    }
}

fn open<'a>(
    key: &[u8; 32],
    window: &mut ReplayWindow,
    header: DataHeader,
    datagram: &'a mut [u8],
) -> Result<Opened<'a>, OpenError> {
    let sealed = datagram.get_mut(DATAGRAM_HEADER_LEN..).ok_or(OpenError)?;
    if header.counter >= MAX_COUNTER || !window.accepts(header.counter) || sealed.len() < TAG_LEN {
        return Err(OpenError);
    }
    let plaintext = usable(key)
        .open_in_place(nonce(header), aad(header), sealed)
        .map_err(|_| OpenError)?;
    let is_newest = window.mark(header.counter);
    Ok(Opened {
        plaintext,
        is_newest,
    })
}

/// Header, plaintext and room for the tag become a datagram.
fn seal(key: &[u8; 32], header: DataHeader, datagram: &mut [u8]) {
    let (head, rest) = datagram.split_at_mut(DATAGRAM_HEADER_LEN);
    let (plaintext, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
    head.copy_from_slice(&header.to_bytes());
    let sealed = usable(key)
        .seal_in_place_separate_tag(nonce(header), aad(header), plaintext)
        .expect("a datagram is far shorter than what ChaCha20-Poly1305 can seal");
    tag.copy_from_slice(sealed.as_ref());
}

/// A key is kept as 32 bytes and made usable when used: ring's object is seventeen times as large and
/// costs some ten nanoseconds.
fn usable(key: &[u8; 32]) -> LessSafeKey {
    let unbound = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes");
    LessSafeKey::new(unbound)
}

fn nonce(header: DataHeader) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&header.counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn aad(header: DataHeader) -> Aad<[u8; DATAGRAM_HEADER_LEN]> {
    Aad::from(header.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::Datagram;

    const KEY: [u8; 32] = [7; 32];

    fn halves() -> (Sealer, Opener) {
        let session = SessionId::from_bytes([1, 2, 3, 4, 5, 6, 7]);
        (
            Sealer::new(session, Secret::new(KEY)),
            Opener::new(Secret::new(KEY)),
        )
    }

    fn sealed(sealer: &mut Sealer, byte: u8) -> Vec<u8> {
        let mut out = Vec::new();
        sealer.seal(&[byte; 64], &mut out).unwrap();
        out
    }

    fn open(opener: &mut Opener, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
        let Ok(Datagram::Data(header)) = Datagram::parse(datagram) else {
            return Err(OpenError);
        };
        opener
            .open(header, &mut datagram.to_vec())
            .map(|opened| opened.plaintext.to_vec())
    }

    #[test]
    fn a_datagram_opens_once() {
        let (mut sealer, mut opener) = halves();
        let datagram = sealed(&mut sealer, 1);
        assert_eq!(open(&mut opener, &datagram), Ok(vec![1; 64]));
        assert_eq!(open(&mut opener, &datagram), Err(OpenError));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed_and_moves_nothing() {
        let (mut sealer, mut opener) = halves();
        let datagram = sealed(&mut sealer, 1);
        for bit in 0..datagram.len() * 8 {
            let mut forged = datagram.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&mut opener, &forged), Err(OpenError), "bit {bit}");
        }
        assert_eq!(
            open(&mut opener, &datagram),
            Ok(vec![1; 64]),
            "no forgery burned the counter"
        );
    }

    #[test]
    fn datagrams_may_come_in_any_order_within_the_window() {
        let (mut sealer, mut opener) = halves();
        let datagrams: Vec<_> = (0..200).map(|byte| sealed(&mut sealer, byte)).collect();
        assert!(open(&mut opener, &datagrams[150]).is_ok());
        assert!(open(&mut opener, &datagrams[149]).is_ok());
        assert!(
            open(&mut opener, &datagrams[23]).is_ok(),
            "the oldest in the window"
        );
        assert!(open(&mut opener, &datagrams[22]).is_err(), "one older");
        assert!(open(&mut opener, &datagrams[199]).is_ok());
    }

    #[test]
    fn a_used_up_key_seals_no_more() {
        let (mut sealer, _) = halves();
        sealer.counter = MAX_COUNTER - 1;
        assert_eq!(sealer.seal(&[0; 64], &mut Vec::new()), Ok(()));
        assert_eq!(sealer.seal(&[0; 64], &mut Vec::new()), Err(Exhausted));
    }
}
