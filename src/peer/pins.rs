//! The trackers that this peer has met, each with the key that it had then: a change is never accepted
//! in silence.
//!
//! One line a tracker: address as typed, network, key in hex. The file may be edited by hand.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

use crate::crypto::kdf::NetworkName;
use crate::disk::{PrivateFileError, read_private, write_private};
use crate::wire::id::PeerId;

const FILE: &str = "known_trackers";

/// What is known of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// It has this key, as it always had.
    Known,
    /// Never met.
    New,
    /// It had another key.
    Changed(PeerId),
}

/// The file of pins in a state directory.
#[derive(Debug, Clone)]
pub struct Pins {
    path: PathBuf,
}

impl Pins {
    /// The pins kept in `state_dir`.
    #[must_use]
    pub fn in_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(FILE),
        }
    }

    /// Where they are kept, for the line that tells how to forget one.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compares `key` with what is known of the tracker at `address` (`host:port`).
    ///
    /// # Errors
    /// When the file cannot be read or is not private.
    pub fn check(
        &self,
        address: &str,
        network: &NetworkName,
        key: &PeerId,
    ) -> Result<Pin, PrivateFileError> {
        let text = self.read()?;
        let known = text
            .lines()
            .filter_map(parse)
            .find(|line| line.address == address && line.network == network.as_str());
        Ok(match known {
            None => Pin::New,
            Some(line) if line.key == *key => Pin::Known,
            Some(line) => Pin::Changed(line.key),
        })
    }

    /// Remembers a tracker that was met for the first time.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(
        &self,
        address: &str,
        network: &NetworkName,
        key: &PeerId,
    ) -> Result<(), PrivateFileError> {
        let mut text = self.read()?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!(
            "{address} {} {}\n",
            network.as_str(),
            HEXLOWER.encode(&key.0)
        ));
        write_private(&self.path, text.as_bytes()).map_err(|source| PrivateFileError::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn read(&self) -> Result<String, PrivateFileError> {
        let bytes = read_private(&self.path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

struct Line<'a> {
    address: &'a str,
    network: &'a str,
    key: PeerId,
}

/// `None` for comments and for lines that somebody broke: they pin nothing.
fn parse(line: &str) -> Option<Line<'_>> {
    let mut words = line.split_whitespace();
    let (address, network, key) = (words.next()?, words.next()?, words.next()?);
    let key = HEXLOWER.decode(key.as_bytes()).ok()?.try_into().ok()?;
    Some(Line {
        address,
        network,
        key: PeerId(key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_key_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::in_dir(dir.path());
        let (network, key, other) = (NetworkName::default(), PeerId([7; 32]), PeerId([8; 32]));
        assert_eq!(pins.check("hub:9000", &network, &key).unwrap(), Pin::New);
        pins.add("hub:9000", &network, &key).unwrap();
        assert_eq!(pins.check("hub:9000", &network, &key).unwrap(), Pin::Known);
        assert_eq!(
            pins.check("hub:9000", &network, &other).unwrap(),
            Pin::Changed(key)
        );
        assert_eq!(pins.check("hub:9001", &network, &other).unwrap(), Pin::New);
        let lab = "lab".parse().unwrap();
        assert_eq!(
            pins.check("hub:9000", &lab, &other).unwrap(),
            Pin::New,
            "another network, another tracker"
        );
    }

    #[test]
    fn broken_lines_pin_nothing_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::in_dir(dir.path());
        write_private(pins.path(), b"# mine\nhub:9000 p2pfs nonsense\n\xff\xfe").unwrap();
        let (network, key) = (NetworkName::default(), PeerId([7; 32]));
        assert_eq!(pins.check("hub:9000", &network, &key).unwrap(), Pin::New);
        pins.add("hub:9000", &network, &key).unwrap();
        assert_eq!(pins.check("hub:9000", &network, &key).unwrap(), Pin::Known);
        assert!(
            read_private(pins.path())
                .unwrap()
                .unwrap()
                .starts_with(b"# mine\n")
        );
    }
}
