//! The files that hold long-term keys: an identity, and a tracker's seed.

use std::path::Path;

use crate::crypto::identity::Identity;
use crate::crypto::kdf::TrackerSeed;
use crate::crypto::random::Random;
use crate::crypto::secret::Secret;
use crate::disk::{PrivateFileError, read_private, write_private};

const IDENTITY_FILE: &str = "identity.key";
const SEED_FILE: &str = "tracker.seed";

/// Does `dir` hold such a file? What lies there is for nobody else.
#[must_use]
pub fn holds_keys(dir: &Path) -> bool {
    [IDENTITY_FILE, SEED_FILE]
        .iter()
        .any(|name| dir.join(name).is_file())
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file is exposed, foreign or unreadable.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The file does not hold what it should; a new key in silence would be another person.
    #[error("{} is damaged: restore it from a copy, or move it away to become somebody new", .0.display())]
    Damaged(std::path::PathBuf),
}

/// The identity kept in `dir`; made there at first use.
///
/// # Errors
/// When the file is damaged or not private, or cannot be written.
pub fn identity(dir: &Path, random: &mut dyn Random) -> Result<Identity, KeyFileError> {
    key(&dir.join(IDENTITY_FILE), random).map(Identity::from_private)
}

/// The tracker's seed kept in `dir`; made there at first use.
///
/// # Errors
/// As [`identity`].
pub fn tracker_seed(dir: &Path, random: &mut dyn Random) -> Result<TrackerSeed, KeyFileError> {
    key(&dir.join(SEED_FILE), random).map(TrackerSeed)
}

/// Which keys are in `dir`; none is made.
///
/// # Errors
/// When one is damaged or not private.
pub fn check(dir: &Path) -> Result<Vec<&'static str>, KeyFileError> {
    let mut found = Vec::new();
    for name in [IDENTITY_FILE, SEED_FILE] {
        if read(&dir.join(name))?.is_some() {
            found.push(name);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Option<Secret<32>>, KeyFileError> {
    let Some(bytes) = read_private(path)? else {
        return Ok(None);
    };
    let key = <&[u8; 32]>::try_from(bytes.as_slice())
        .map_err(|_| KeyFileError::Damaged(path.to_owned()))?;
    Ok(Some(Secret::from_fn(|place| *place = *key)))
}

fn key(path: &Path, random: &mut dyn Random) -> Result<Secret<32>, KeyFileError> {
    if let Some(key) = read(path)? {
        return Ok(key);
    }
    let key = Secret::from_fn(|key| random.fill(key));
    write_private(path, key.expose()).map_err(|source| PrivateFileError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::OsRandom;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let random = &mut OsRandom::new();
        let seed = tracker_seed(dir.path(), random).unwrap();
        assert_eq!(tracker_seed(dir.path(), random).unwrap().0, seed.0);
    }

    #[test]
    fn a_damaged_key_is_never_replaced_in_silence() {
        for bytes in [&b""[..], &[7; 31], &[7; 33]] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(SEED_FILE);
            write_private(&path, bytes).unwrap();
            assert!(matches!(
                tracker_seed(dir.path(), &mut OsRandom::new()),
                Err(KeyFileError::Damaged(_))
            ));
            assert_eq!(read_private(&path).unwrap().unwrap().as_slice(), bytes);
        }
    }
}
