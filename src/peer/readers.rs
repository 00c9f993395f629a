//! Whom a share is for, by the names that they had when it was shared.

use std::collections::BTreeMap;

use crate::wire::MAX_AUDIENCE;
use crate::wire::codec::{self, DecodeError};
use crate::wire::control::Audience;
use crate::wire::id::PeerId;
use crate::wire::text::UserName;

/// Whom a share is for. Keys count; names are for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// The whole group.
    #[default]
    Everybody,
    /// These only.
    Chosen(BTreeMap<PeerId, UserName>),
    /// Nobody: it came here for us alone.
    Nobody,
}

/// Who asks for a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// We ourselves.
    Own,
    /// Another peer.
    Peer(PeerId),
}

impl Readers {
    /// These people. `None` for none, or more than an audience may have.
    #[must_use]
    pub fn of(people: impl IntoIterator<Item = (PeerId, UserName)>) -> Option<Self> {
        let people: BTreeMap<_, _> = people.into_iter().collect();
        (1..=MAX_AUDIENCE)
            .contains(&people.len())
            .then_some(Self::Chosen(people))
    }

    /// Whom something is for that is shared from several places under one name, each time for these. Wherever it
    /// was shared for chosen people, it is for all of those and nobody else; what came for us alone does not
    /// become everybody's. No order counts, so that it is the same after each change and each start.
    #[must_use]
    pub fn of_all<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut chosen = BTreeMap::new();
        let (mut is_open, mut is_ours) = (false, false);
        for readers in all {
            match readers {
                Self::Everybody => is_open = true,
                Self::Nobody => is_ours = true,
                Self::Chosen(people) => chosen.extend(people.clone()),
            }
        }
        while chosen.len() > MAX_AUDIENCE {
            chosen.pop_last();
        }
        match Self::of(chosen) {
            Some(chosen) => chosen,
            None if is_open && !is_ours => Self::Everybody,
            None => Self::Nobody,
        }
    }

    /// Is it for `reader`?
    #[must_use]
    pub fn has(&self, reader: Reader) -> bool {
        match (self, reader) {
            (_, Reader::Own) | (Self::Everybody, _) => true,
            (Self::Chosen(people), Reader::Peer(peer)) => people.contains_key(&peer),
            (Self::Nobody, Reader::Peer(_)) => false,
        }
    }

    /// For whom it is published; absent when it is not.
    #[must_use]
    pub fn audience(&self) -> Option<Audience> {
        match self {
            Self::Everybody => Some(Audience::EVERYBODY),
            Self::Chosen(people) => Audience::of(people.keys().copied()),
            Self::Nobody => None,
        }
    }

    /// Who they are, by name; absent when everybody is.
    #[must_use]
    pub fn names(&self) -> Option<Vec<&UserName>> {
        let mut names: Vec<_> = match self {
            Self::Everybody => return None,
            Self::Chosen(people) => people.values().collect(),
            Self::Nobody => Vec::new(),
        };
        names.sort();
        Some(names)
    }

    /// Everybody needs no bytes.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        match self {
            Self::Everybody => {}
            Self::Chosen(people) => codec::encode(&people.iter().collect::<Vec<_>>(), out),
            Self::Nobody => codec::encode(&Vec::<(PeerId, UserName)>::new(), out),
        }
    }

    /// Reads what [`Readers::append`] wrote. What is there and cannot be read is never everybody.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Ok(Self::Everybody);
        }
        let people: Vec<(PeerId, UserName)> = codec::decode(bytes)?;
        if people.is_empty() {
            return Ok(Self::Nobody);
        }
        Self::of(people).ok_or(DecodeError("readers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(number: u8) -> (PeerId, UserName) {
        let name = format!("user{number}").parse().unwrap();
        (PeerId([number; 32]), name)
    }

    #[test]
    fn it_is_for_whom_it_says_and_nobody_is_not_everybody() {
        let few = Readers::of([person(1), person(2)]).unwrap();
        let asks = |readers: &Readers, number| readers.has(Reader::Peer(PeerId([number; 32])));
        assert!(asks(&few, 1) && !asks(&few, 3) && few.has(Reader::Own));
        assert!(!asks(&Readers::Nobody, 1) && Readers::Nobody.has(Reader::Own));
        assert!(asks(&Readers::Everybody, 3) && Readers::Nobody.audience().is_none());
        assert_eq!(Readers::of([]), None);
        assert_eq!(Readers::of((0..17).map(person)), None);
    }

    #[test]
    fn what_is_shared_from_several_places_is_for_the_chosen_only() {
        let chosen = |numbers: std::ops::Range<u8>| Readers::of(numbers.map(person)).unwrap();
        let of_all = |all: &[&Readers]| Readers::of_all(all.iter().copied());
        let (all, own) = (Readers::Everybody, Readers::Nobody);
        let (one, two) = (chosen(1..2), chosen(2..3));
        assert_eq!(of_all(&[&all, &all]), all);
        assert_eq!(of_all(&[&all, &one, &all]), one);
        assert_eq!(of_all(&[&one, &all, &two]), chosen(1..3));
        assert_eq!(of_all(&[&own, &one]), one);
        assert_eq!((of_all(&[&all, &own]), of_all(&[])), (own.clone(), own));
        assert_eq!(of_all(&[&chosen(0..10), &chosen(10..20)]), chosen(0..16));
    }

    #[test]
    fn what_is_kept_is_read_again_and_what_is_broken_is_not_for_everybody() {
        let all = [
            Readers::Everybody,
            Readers::of([person(1), person(2)]).unwrap(),
            Readers::Nobody,
        ];
        for readers in all {
            let mut bytes = Vec::new();
            readers.append(&mut bytes);
            assert_eq!(Readers::parse(&bytes), Ok(readers));
            if bytes.len() > 1 {
                bytes.pop();
                assert!(Readers::parse(&bytes).is_err());
            }
        }
    }
}
