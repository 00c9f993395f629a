//! The token of the HTTP interface: made at first use, kept for its owner alone, and renewed when somebody says so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::crypto::random::{OsRandom, Random as _};
use crate::crypto::secret::Secret;
use crate::disk::{PrivateFileError, read_private, write_private};

/// Its file in the state directory.
const FILE: &str = "web.token";
/// Bytes of it, and letters.
const LEN: usize = 32;
const LETTERS: usize = 43;

/// The token as it holds now; cheap to clone.
#[derive(Clone, Debug)]
pub struct Token {
    path: PathBuf,
    now: Arc<RwLock<Secret<LETTERS>>>,
}

impl Token {
    /// That of the state directory `dir`, which is made when there is none.
    ///
    /// # Errors
    /// When its file is not private, or cannot be had.
    pub fn open(dir: &Path) -> Result<Self, PrivateFileError> {
        let path = dir.join(FILE);
        let kept = read_private(&path)?.and_then(|bytes| {
            let letters = bytes.trim_ascii_end();
            // What is no token of ours opens nothing.
            let is_ours =
                letters.len() == LETTERS && BASE64URL_NOPAD.decode_len(LETTERS) == Ok(LEN);
            is_ours.then(|| Secret::from_fn(|place| place.copy_from_slice(letters)))
        });
        let now = match kept {
            Some(kept) => kept,
            None => make(&path)?,
        };
        let now = Arc::new(RwLock::new(now));
        Ok(Self { path, now })
    }

    /// From now on another one holds.
    ///
    /// # Errors
    /// When it cannot be kept; the old one holds then.
    pub fn reset(&self) -> Result<(), PrivateFileError> {
        let new = make(&self.path)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Is this the token? It takes the same time for all that are as long.
    #[must_use]
    pub fn fits(&self, shown: &[u8]) -> bool {
        if shown.len() != LETTERS {
            return false;
        }
        let shown = Secret::from_fn(|place| place.copy_from_slice(shown));
        *self.now.read().unwrap_or_else(PoisonError::into_inner) == shown
    }

    /// Its letters, for the person whose it is.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        Zeroizing::new(String::from_utf8_lossy(now.expose()).into_owned())
    }
}

fn make(path: &Path) -> Result<Secret<LETTERS>, PrivateFileError> {
    let bytes = Secret::from_fn(|place: &mut [u8; LEN]| OsRandom::new().fill(place));
    let letters = Secret::from_fn(|place: &mut [u8; LETTERS]| {
        BASE64URL_NOPAD.encode_mut(bytes.expose(), place);
    });
    write_private(path, letters.expose()).map_err(|source| PrivateFileError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_kept_for_its_owner_alone_until_it_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::open(dir.path()).unwrap();
        let first = token.expose();
        let mode = dir
            .path()
            .join(FILE)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!((mode & 0o777, first.len()), (0o600, LETTERS));
        let again = Token::open(dir.path()).unwrap();
        assert!(again.fits(first.as_bytes()) && !format!("{token:?}").contains(&*first));
        for wrong in [&b""[..], b"x", &first.as_bytes()[1..], &[b'x'; LETTERS]] {
            assert!(!token.fits(wrong));
        }
        token.reset().unwrap();
        assert!(!token.fits(first.as_bytes()) && token.fits(token.expose().as_bytes()));
        let kept = Token::open(dir.path()).unwrap();
        assert!(kept.fits(token.expose().as_bytes()));
        std::fs::write(dir.path().join(FILE), "short").unwrap();
        assert_eq!(Token::open(dir.path()).unwrap().expose().len(), LETTERS);
    }
}
