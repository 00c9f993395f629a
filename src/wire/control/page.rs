//! What fits one datagram: pages of answers, and batches of publications.

use serde::Serialize;

use super::super::codec;
use super::super::{MAX_BODY_LEN, MAX_CURSOR_LEN, MAX_FILES_PER_REQUEST, MAX_PAGE_ENTRIES};
use super::{
    ANSWER_BIT, Audience, Files, HEAD_LEN, Kind, PathToken, Plaintext, Publication, enclose,
};
use crate::wire::id::RequestId;

/// Writes an answer of one page, entry by entry, where it will be sealed. What it writes is what
/// [`Response::write`](super::Response::write) makes of the same [`Page`](super::Page).
pub struct PageWriter<'a> {
    plaintext: &'a mut Plaintext,
    /// Where the next entry begins: behind the head and the one byte that counts them.
    end: usize,
    entries: u8,
}

impl<'a> PageWriter<'a> {
    /// An empty page.
    pub const fn new(plaintext: &'a mut Plaintext) -> Self {
        Self {
            plaintext,
            end: HEAD_LEN + 1,
            entries: 0,
        }
    }

    /// Adds `entry`; `false` when the page is full.
    pub fn push(&mut self, entry: &impl Serialize) -> bool {
        let most = HEAD_LEN + 1 + PAGE_BUDGET;
        if usize::from(self.entries) >= MAX_PAGE_ENTRIES {
            return false;
        }
        let Some(len) = codec::write(entry, &mut self.plaintext[self.end..most]) else {
            return false;
        };
        self.end += len;
        self.entries += 1;
        true
    }

    /// Ends the page, which answers request `id` of `kind`: how many bytes of the plaintext it takes.
    /// Without `total` it says how many entries it has itself.
    #[must_use]
    pub fn finish(
        self,
        kind: Kind,
        (id, token): (RequestId, PathToken),
        next: Option<&[u8]>,
        total: Option<u32>,
    ) -> usize {
        self.plaintext[HEAD_LEN] = self.entries;
        let total = total.unwrap_or_else(|| self.entries.into());
        let tail = codec::write(&(next, total), &mut self.plaintext[self.end..])
            .expect("the page's budget leaves room for a cursor and a count");
        let body_len = self.end + tail - HEAD_LEN;
        enclose(kind as u8 | ANSWER_BIT, id, token, body_len, self.plaintext)
    }
}

const _: () = assert!(
    MAX_PAGE_ENTRIES < 128,
    "a page's count is one byte in postcard's format"
);

/// Bytes that `entry` takes in a body.
#[must_use]
pub fn encoded_len<T: Serialize>(entry: &T) -> usize {
    let mut bytes = Vec::new();
    codec::encode(entry, &mut bytes);
    bytes.len()
}

/// Bytes that the entries of one page may take together, leaving room for its cursor and count.
pub const PAGE_BUDGET: usize = MAX_BODY_LEN - MAX_CURSOR_LEN - 16;

/// Groups `files`, all for `audience`, into bodies of PUBLISH or UNPUBLISH that each fit a datagram.
#[must_use]
pub fn batches(files: impl IntoIterator<Item = Publication>, audience: &Audience) -> Vec<Files> {
    let budget = PAGE_BUDGET - audience.encoded_len();
    let mut batches: Vec<Files> = Vec::new();
    let mut left = 0;
    for file in files {
        let len = encoded_len(&file);
        match batches.last_mut() {
            Some(batch) if len <= left && batch.files.len() < MAX_FILES_PER_REQUEST => {
                batch.files.push(file);
                left -= len;
            }
            _ => {
                batches.push(Files {
                    files: vec![file],
                    audience: audience.clone(),
                });
                left = budget.saturating_sub(len);
            }
        }
    }
    batches
}
