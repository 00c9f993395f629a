//! Pages of answers: as much as fits a datagram, and the cursor that says where the next one begins.

use serde::Serialize;

use super::index::{NameId, Rank};
use super::registry::{FilePlace, PeerNumber, Place};
use crate::wire::MAX_PAGE_ENTRIES;
use crate::wire::codec::{DecodeError, take};
use crate::wire::control::{Cursor, Hit, PAGE_BUDGET, Page, encoded_len};

/// Set beside a rank for what is for chosen people only.
const PARCEL: u8 = 1 << 7;

/// As many entries as one datagram holds; the cursor names the last one.
pub(super) fn fill<K, T: Serialize>(
    mut entries: impl Iterator<Item = (K, T)>,
    cursor: impl Fn(&K) -> Cursor,
) -> Page<T> {
    let mut page = Page {
        entries: Vec::new(),
        next: None,
        total: 0,
    };
    let (mut left, mut last) = (PAGE_BUDGET, None);
    for (key, entry) in entries.by_ref() {
        let len = encoded_len(&entry);
        if len > left || page.entries.len() >= MAX_PAGE_ENTRIES {
            page.next = last.as_ref().map(&cursor);
            break;
        }
        left -= len;
        last = Some(key);
        page.entries.push(entry);
    }
    page.total = u32::try_from(page.entries.len()).unwrap_or(u32::MAX);
    page
}

/// The same for hits, whose cursor names the next one.
pub(super) fn page_of_hits(hits: impl Iterator<Item = Result<(Place, Hit), Place>>) -> Page<Hit> {
    let mut page = Page {
        entries: Vec::new(),
        next: None,
        total: 0,
    };
    let mut left = PAGE_BUDGET;
    for found in hits {
        let (place, hit) = match found {
            Ok(found) => found,
            Err(place) => {
                page.next = Some(cursor_of(place));
                break;
            }
        };
        let len = encoded_len(&hit);
        if len > left || page.entries.len() >= MAX_PAGE_ENTRIES {
            page.next = Some(cursor_of(place));
            break;
        }
        left -= len;
        page.entries.push(hit);
    }
    page.total = clamp(page.entries.len());
    page
}

pub(super) fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn cursor_of(place: Place) -> Cursor {
    let mut bytes = vec![place.rank.to_byte() | if place.is_parcel { PARCEL } else { 0 }];
    bytes.extend(place.name.to_bytes());
    bytes.extend(place.content);
    bytes.extend(place.given.to_be_bytes());
    Cursor(bytes)
}

/// The place that a cursor names, and whether it is the beginning. A broken one begins anew.
pub(super) fn place_of(cursor: &Cursor) -> (Place, bool) {
    let parse = || -> Result<Place, DecodeError> {
        let mut rest = cursor.0.as_slice();
        let [rank] = take(&mut rest)?;
        let name = NameId::from_bytes(take(&mut rest)?);
        let content = take(&mut rest)?;
        let given = u32::from_be_bytes(take(&mut rest)?);
        Ok(Place {
            rank: Rank::from_byte(rank & !PARCEL),
            name,
            content,
            given,
            is_parcel: rank & PARCEL != 0,
        })
    };
    parse().map_or((Place::START, true), |place| (place, false))
}

pub(super) fn cursor_of_file(place: &FilePlace) -> Cursor {
    Cursor(match place {
        FilePlace::Open(place) => place.to_be_bytes().to_vec(),
        FilePlace::Parcel(place) => [&[PARCEL][..], &place.to_be_bytes()].concat(),
    })
}

/// The place that a cursor names; none is the beginning.
pub(super) fn file_place_of(cursor: &Cursor) -> Option<FilePlace> {
    let open = read_cursor(cursor).map(u64::from_be_bytes);
    let parcel = || {
        let [_, place @ ..] = read_cursor::<9>(cursor)?;
        Some(FilePlace::Parcel(u64::from_be_bytes(place)))
    };
    open.map(FilePlace::Open).or_else(parcel)
}

pub(super) fn read_number(cursor: &Cursor) -> Option<PeerNumber> {
    read_cursor(cursor).map(PeerNumber::from_be_bytes)
}

fn read_cursor<const N: usize>(cursor: &Cursor) -> Option<[u8; N]> {
    cursor.0.as_slice().try_into().ok()
}
