//! Whom a publication is for: everybody, or a few identities.

use super::super::MAX_AUDIENCE;
use super::super::codec::{self, DecodeError};
use super::super::id::PeerId;

/// Keys in ascending order, each once; none: everybody.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Audience(Vec<PeerId>);

impl Audience {
    /// Whoever is in the group.
    pub const EVERYBODY: Self = Self(Vec::new());

    /// These only. `None` for nobody, or for more than [`MAX_AUDIENCE`].
    #[must_use]
    pub fn of(peers: impl IntoIterator<Item = PeerId>) -> Option<Self> {
        let mut peers: Vec<_> = peers.into_iter().collect();
        peers.sort_unstable();
        peers.dedup();
        (1..=MAX_AUDIENCE)
            .contains(&peers.len())
            .then_some(Self(peers))
    }

    /// Is nobody left out?
    #[must_use]
    pub const fn is_everybody(&self) -> bool {
        self.0.is_empty()
    }

    /// Who is meant; nobody in particular when everybody is.
    #[must_use]
    pub const fn peers(&self) -> &[PeerId] {
        self.0.as_slice()
    }

    /// Is it for `peer`?
    #[must_use]
    pub fn has(&self, peer: &PeerId) -> bool {
        self.is_everybody() || self.0.binary_search(peer).is_ok()
    }

    /// Bytes that [`Audience::append`] writes at most.
    pub(super) const fn encoded_len(&self) -> usize {
        if self.is_everybody() {
            0
        } else {
            1 + 32 * self.0.len()
        }
    }

    /// Everybody needs no bytes.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        if !self.is_everybody() {
            codec::encode(&self.0, out);
        }
    }

    /// Reads what [`Audience::append`] wrote. What is there and is no audience is never taken for everybody.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        #[derive(serde::Deserialize)]
        struct Peers(#[serde(deserialize_with = "codec::list::<MAX_AUDIENCE, _, _>")] Vec<PeerId>);
        if bytes.is_empty() {
            return Ok(Self::EVERYBODY);
        }
        let Peers(peers) = codec::decode(bytes)?;
        let is_sorted = peers.windows(2).all(|two| two[0] < two[1]);
        if peers.is_empty() || !is_sorted {
            return Err(DecodeError("audience"));
        }
        Ok(Self(peers))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    #[test]
    fn it_is_for_those_who_were_named_and_for_nobody_else() {
        let few = Audience::of([peer(3), peer(1), peer(3)]).unwrap();
        assert_eq!(few.peers(), [peer(1), peer(3)]);
        assert!(few.has(&peer(1)) && !few.has(&peer(2)) && !few.is_everybody());
        assert!(Audience::EVERYBODY.has(&peer(2)));
        assert_eq!(Audience::of([]), None, "nobody is not everybody");
        assert_eq!(Audience::of((0..17).map(peer)), None);
        assert!(Audience::of((0..16).map(peer)).is_some());
    }

    #[test]
    fn what_is_broken_is_not_taken_for_everybody() {
        let bytes = |peers: &[PeerId]| {
            let mut bytes = Vec::new();
            codec::encode(&peers, &mut bytes);
            bytes
        };
        let many: Vec<_> = (0..17).map(peer).collect();
        for broken in [
            vec![0],
            vec![1],
            vec![1; 20],
            bytes(&[peer(2), peer(1)]),
            bytes(&[peer(1), peer(1)]),
            bytes(&many),
        ] {
            assert!(Audience::parse(&broken).is_err(), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(numbers in prop::collection::vec(any::<u8>(), 0..20)) {
            let audience = Audience::of(numbers.into_iter().map(peer)).unwrap_or_default();
            let mut bytes = Vec::new();
            audience.append(&mut bytes);
            prop_assert_eq!(bytes.len(), audience.encoded_len());
            prop_assert_eq!(Audience::parse(&bytes), Ok(audience));
        }
    }
}
