//! Files that are locked with a password, in the format of age: what seals them, and what opens them again.
//!
//! ```text
//! age-encryption.org/v1
//! -> scrypt SALT WORK          the only recipient; WORK is the logarithm of what a guess costs
//! FILE KEY, sealed
//! --- MAC
//! nonce 16 │ chunk 65536, tag 16 │ chunk, tag │ … │ last chunk, tag
//! ```
//! Whoever knows the password opens such a file with `age -d` as well (<https://c2sp.org/age>). Of foreign files the
//! header is judged before anything is computed, so that nobody else says what opening costs here; keys and
//! plugins of age are never used, and no program is started. The library draws salt, key and nonce itself.

use std::io::{self, Cursor, Read, Write};
use std::iter;

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, scrypt};
use zeroize::Zeroizing;

use crate::wire::password::Password;

/// The logarithm of what a guess at our files costs, as with `age -p`: 2^18 rounds, each of 1 KiB that has to be
/// remembered, which is less than a second on most machines.
pub const WORK_FACTOR: u8 = 18;
/// Files that cost more are not opened: 2^20 rounds take 1 GiB and a few seconds.
pub const MAX_WORK_FACTOR: u8 = 20;
/// Longer than any header with one recipient, in bytes.
const MAX_HEADER_LEN: usize = 4096;
/// What is sealed at a time, and what that adds, in bytes.
const CHUNK_LEN: u64 = 64 << 10;
const TAG_LEN: u64 = 16;

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";

/// Why a file is not locked, or not opened. The words complete "NAME …".
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The result cannot be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// It has another format.
    #[error("is not locked")]
    NotLocked,
    /// Its bytes are written as letters.
    #[error("is a locked file in the form of text, which only age -d opens")]
    Armored,
    /// No password opens it.
    #[error("is locked with keys of age, not with a password; age -d opens it")]
    Keys,
    /// Its header asks for more work than anybody should do for it.
    #[error("asks for too much work, 2^{0}; at most 2^{MAX_WORK_FACTOR} is done for a file")]
    TooMuchWork(u32),
    /// It is not what was sealed.
    #[error("is damaged: it was cut off or changed after it was locked")]
    Damaged,
    /// Another password opens it, or its header was changed.
    #[error("does not open with this password")]
    WrongPassword,
}

/// Seals what `from` has, with `password`, into `to`, a chunk at a time.
///
/// # Errors
/// When it cannot be read or written; what was written is of no use then.
pub fn seal(password: &Password, from: impl Read, to: impl Write) -> Result<(), LockError> {
    seal_with(WORK_FACTOR, password, from, to)
}

fn seal_with(
    work_factor: u8,
    password: &Password,
    mut from: impl Read,
    to: impl Write,
) -> Result<(), LockError> {
    let mut recipient = scrypt::Recipient::new(secret_of(password));
    recipient.set_work_factor(work_factor);
    let recipients = iter::once(&recipient as &dyn age::Recipient);
    let sealing = Encryptor::with_recipients(recipients)
        .map_err(|error| LockError::Write(io::Error::other(error.to_string())))?;
    let mut to = sealing.wrap_output(to).map_err(LockError::Write)?;
    copy(&mut from, &mut to, LockError::Read)?;
    let mut to = to.finish().map_err(LockError::Write)?;
    to.flush().map_err(LockError::Write)
}

/// At least as long as `len` bytes become when they are sealed.
#[must_use]
pub const fn sealed_len(len: u64) -> u64 {
    let chunks = len.div_ceil(CHUNK_LEN);
    len.saturating_add((chunks + 1) * TAG_LEN + 256)
}

/// A locked file, of which the header was read and found to be one that may be worked on.
pub struct Locked<R: Read>(Decryptor<io::Chain<Cursor<Vec<u8>>, R>>);

impl<R: Read> Locked<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is none that a password opens, or asks for too much.
    pub fn read(mut from: R) -> Result<Self, LockError> {
        let mut head = Vec::with_capacity(MAX_HEADER_LEN);
        let mut limited = from.by_ref().take(MAX_HEADER_LEN as u64);
        limited.read_to_end(&mut head).map_err(LockError::Read)?;
        judge(&head)?;
        let whole = Cursor::new(head).chain(from);
        let decryptor =
            Decryptor::new(whole).map_err(|error| meaning(error, LockError::Damaged))?;
        Ok(Self(decryptor))
    }

    /// Tries a password, for as long as the header says. Blocking.
    ///
    /// # Errors
    /// When it is wrong, or the header was changed.
    pub fn unlock(self, password: &Password) -> Result<Unlocked<impl Read + use<R>>, LockError> {
        let mut identity = scrypt::Identity::new(secret_of(password));
        identity.set_max_work_factor(MAX_WORK_FACTOR);
        let identities = iter::once(&identity as &dyn age::Identity);
        let opened = self.0.decrypt(identities);
        let stream = opened.map_err(|error| meaning(error, LockError::WrongPassword))?;
        Ok(Unlocked(stream))
    }
}

/// What lies behind the lock.
pub struct Unlocked<R: Read>(R);

impl<R: Read> Unlocked<R> {
    /// The same, whatever it is read from.
    #[must_use]
    pub fn boxed(self) -> Unlocked<Box<dyn Read + Send>>
    where
        R: Send + 'static,
    {
        Unlocked(Box::new(self.0))
    }

    /// Writes all of it into `to`. Each chunk is authentic; that they are all of the file is known only at the end.
    ///
    /// # Errors
    /// When it was cut off or changed, or cannot be read or written. What was written before must not be used.
    pub fn copy_to(mut self, mut to: impl Write) -> Result<u64, LockError> {
        copy(&mut self.0, &mut to, |error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => LockError::Damaged,
            _ => LockError::Read(error),
        })
    }
}

fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    unread: impl Fn(io::Error) -> LockError,
) -> Result<u64, LockError> {
    let mut buffer = Zeroizing::new(vec![0; 64 << 10]);
    let mut len = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(len),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unread(error)),
        };
        to.write_all(&buffer[..read]).map_err(LockError::Write)?;
        len += read as u64;
    }
}

/// Without a copy that stays behind: the library wipes this one.
fn secret_of(password: &Password) -> SecretString {
    SecretString::from(Box::<str>::from(password.expose()))
}

/// Is this the beginning of a file that may be worked on?
fn judge(head: &[u8]) -> Result<(), LockError> {
    if head.starts_with(ARMOR) {
        return Err(LockError::Armored);
    }
    let Some(rest) = head.strip_prefix(VERSION) else {
        let is_cut = !head.is_empty() && VERSION.starts_with(head);
        return Err(if is_cut {
            LockError::Damaged
        } else {
            LockError::NotLocked
        });
    };
    let mut stanzas = Vec::new();
    let mut lines = rest.split_inclusive(|byte| *byte == b'\n');
    let is_whole = lines.any(|line| {
        stanzas.extend(line.strip_prefix(b"-> ").map(<[u8]>::trim_ascii_end));
        line.starts_with(b"--- ") && line.ends_with(b"\n")
    });
    if !is_whole && head.len() < MAX_HEADER_LEN {
        return Err(LockError::Damaged);
    }
    let words = |stanza: &[u8]| -> Vec<Vec<u8>> {
        stanza
            .split(|byte| *byte == b' ')
            .map(<[u8]>::to_vec)
            .collect()
    };
    match stanzas.first().map(|stanza| words(stanza)).as_deref() {
        Some([tag, _, work]) if tag == b"scrypt" => {
            let work = std::str::from_utf8(work).ok();
            let digits = work.filter(|work| work.bytes().all(|byte| byte.is_ascii_digit()));
            let digits = digits
                .filter(|work| !work.is_empty())
                .ok_or(LockError::Damaged)?;
            let work = digits.parse().unwrap_or(u32::MAX);
            if work == 0 {
                return Err(LockError::Damaged);
            }
            if work > u32::from(MAX_WORK_FACTOR) {
                return Err(LockError::TooMuchWork(work));
            }
        }
        Some([tag, ..]) if tag == b"scrypt" => return Err(LockError::Damaged),
        Some(_) => return Err(LockError::Keys),
        None => return Err(LockError::Damaged),
    }
    // A password stands alone, or somebody else could have sealed it.
    if !is_whole || stanzas.len() != 1 {
        return Err(LockError::Damaged);
    }
    Ok(())
}

fn meaning(error: DecryptError, otherwise: LockError) -> LockError {
    match error {
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            LockError::Read(error)
        }
        DecryptError::ExcessiveWork { required, .. } => LockError::TooMuchWork(required.into()),
        DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed
        | DecryptError::NoMatchingKeys => otherwise,
        _ => LockError::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    fn sealed(bytes: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        seal_with(4, &password("open sesame"), bytes, &mut sealed).unwrap();
        sealed
    }

    fn opened(bytes: &[u8], typed: &str) -> Result<Vec<u8>, LockError> {
        let mut plain = Vec::new();
        let unlocked = Locked::read(bytes)?.unlock(&password(typed))?;
        unlocked.copy_to(&mut plain)?;
        Ok(plain)
    }

    fn header(stanzas: &str) -> Vec<u8> {
        let mac = "A".repeat(43);
        format!("age-encryption.org/v1\n{stanzas}--- {mac}\n0123456789abcdef").into_bytes()
    }

    fn scrypt_stanza(work: &str) -> String {
        format!("-> scrypt {} {work}\n{}\n", "A".repeat(22), "A".repeat(43))
    }

    #[test]
    fn what_is_locked_opens_with_its_password_alone() {
        for len in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let bytes: Vec<u8> = (0_u32..len).map(|i| i.to_le_bytes()[0] ^ 7).collect();
            let sealed = sealed(&bytes);
            assert!(
                sealed.len() as u64 <= sealed_len(bytes.len() as u64),
                "{len}"
            );
            assert_eq!(opened(&sealed, "open sesame").unwrap(), bytes, "{len}");
            let wrong = opened(&sealed, "open sesamf").unwrap_err();
            assert!(matches!(wrong, LockError::WrongPassword), "{wrong}");
        }
        assert_ne!(
            sealed(b"same"),
            sealed(b"same"),
            "nobody sees that two are one"
        );
    }

    #[test]
    fn a_guess_at_our_files_costs_what_it_is_said_to_cost() {
        let mut sealed = Vec::new();
        seal(&password("open sesame"), &b"x"[..], &mut sealed).unwrap();
        let head = String::from_utf8_lossy(&sealed);
        let stanza = head.lines().nth(1).unwrap();
        assert!(
            stanza.starts_with("-> scrypt ") && stanza.ends_with(" 18"),
            "{stanza}"
        );
        assert_eq!(opened(&sealed, "open sesame").unwrap(), b"x");
    }

    #[test]
    fn a_locked_file_that_was_cut_swapped_or_changed_does_not_open() {
        let bytes = vec![7; 3 * 65_536 + 10];
        let good = sealed(&bytes);
        let body = good.len() - (3 * (65_536 + 16) + 10 + 16);
        let damaged = |bytes: &[u8]| match opened(bytes, "open sesame") {
            Err(LockError::Damaged) => {}
            other => panic!("{other:?}"),
        };
        // Cut inside a chunk, and between two of them.
        for len in [
            body,
            body + 5,
            body + 65_552,
            body + 2 * 65_552,
            good.len() - 1,
        ] {
            damaged(&good[..len]);
        }
        for len in 0..body {
            let cut = opened(&good[..len], "open sesame").unwrap_err();
            assert!(
                matches!(cut, LockError::Damaged | LockError::NotLocked),
                "{len}: {cut}"
            );
        }
        let mut swapped = good.clone();
        let (first, second) = swapped[body..].split_at_mut(65_552);
        first.swap_with_slice(&mut second[..65_552]);
        damaged(&swapped);
        let mut longer = good.clone();
        longer.push(0);
        damaged(&longer);
        for at in [body - 16, body, body + 70_000, good.len() - 1] {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            damaged(&flipped);
        }
        // In the header nothing tells a changed byte from another password.
        for at in [0, 25, 40, body - 30] {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            opened(&flipped, "open sesame").unwrap_err();
        }
    }

    /// Without the judgement the library would work for hours, or take all memory there is.
    #[test]
    fn row_90_the_work_that_a_foreign_file_asks_for_is_bounded_before_any_is_done() {
        for work in [
            "21",
            "22",
            "40",
            "63",
            "64",
            "255",
            "256",
            "4294967296",
            "99999999999999",
        ] {
            let refused = Locked::read(&header(&scrypt_stanza(work))[..])
                .err()
                .unwrap();
            assert!(
                matches!(refused, LockError::TooMuchWork(n) if n > 20),
                "{work}: {refused}"
            );
        }
        for work in ["", "0", "-1", "1e1", "+7", "0x9"] {
            let refused = Locked::read(&header(&scrypt_stanza(work))[..])
                .err()
                .unwrap();
            assert!(matches!(refused, LockError::Damaged), "{work}: {refused}");
        }
        assert!(Locked::read(&header(&scrypt_stanza("20"))[..]).is_ok());
    }

    #[test]
    fn row_91_keys_and_plugins_in_a_header_are_refused_and_start_nothing() {
        let x25519 = format!("-> X25519 {}\n{}\n", "A".repeat(43), "A".repeat(43));
        let plugin = format!("-> yubikey x\n{}\n", "A".repeat(43));
        for stanzas in [x25519.clone(), plugin.clone()] {
            let refused = Locked::read(&header(&stanzas)[..]).err().unwrap();
            assert!(matches!(refused, LockError::Keys), "{refused}");
        }
        let own = scrypt_stanza("10");
        for stanzas in [
            own.clone() + &x25519,
            own.clone() + &plugin,
            own.clone() + &own,
            plugin.repeat(1000),
            String::new(),
        ] {
            Locked::read(&header(&stanzas)[..]).err().unwrap();
        }
        let endless = [VERSION, own.as_bytes(), &[b'A'; 100_000]].concat();
        let refused = Locked::read(&endless[..]).err().unwrap();
        assert!(matches!(refused, LockError::Damaged), "{refused}");
    }

    #[test]
    fn what_is_no_locked_file_is_told_apart() {
        for (bytes, is_it) in [
            (&b""[..], LockError::NotLocked),
            (b"%PDF-1.7", LockError::NotLocked),
            (b"age-encryption.org/v2\n", LockError::NotLocked),
            (b"age-encryption.org", LockError::Damaged),
            (
                b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl",
                LockError::Armored,
            ),
        ] {
            let refused = Locked::read(bytes).err().unwrap();
            assert_eq!(refused.to_string(), is_it.to_string());
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), own in any::<bool>()) {
            let head = if own { [VERSION, b"-> scrypt ", &bytes[..]].concat() } else { bytes };
            let _ = Locked::read(&head[..]);
        }
    }
}
