//! A run of small files of a shared folder, read and sealed in one go.

use std::sync::{Arc, OnceLock};

use super::shares::{Gone, Serving, Shares};
use crate::crypto::stream::FrameSealer;
use crate::wire::MAX_CHUNK_LEN;
use crate::wire::folder::{Listing, Run};
use crate::wire::frame::FRAME_HEAD_LEN;
use crate::wire::packet::{FRAME_HEADER_LEN, TAG_LEN};
use crate::wire::transfer::chunk_head;

/// Bytes that a frame needs besides a chunk.
pub const FRAME_OVERHEAD: usize = FRAME_HEADER_LEN + FRAME_HEAD_LEN + TAG_LEN;

/// Why there is nothing to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// It is here no longer.
    Gone,
    /// Nobody may ask for it.
    Violation(&'static str),
}

impl From<Gone> for Unserved {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// A folder's files and runs.
#[derive(Debug)]
pub struct Unfolded {
    listing: Listing,
    runs: Vec<Run>,
}

impl Unfolded {
    /// `None` when these bytes are no listing.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let listing = Listing::decode(bytes).ok()?;
        let runs = listing.runs();
        Some(Self { listing, runs })
    }
}

/// A run of small files that is read and sealed in one go.
#[derive(Debug)]
pub struct Bundle {
    /// Where the files are.
    pub shares: Shares,
    /// The folder's listing.
    pub listing: Arc<Serving>,
    /// What is in it, once somebody looked.
    pub unfolded: Arc<OnceLock<Arc<Unfolded>>>,
    /// The request that it answers.
    pub request: u32,
    /// Most bytes of a chunk.
    pub chunk_len: usize,
    /// Number of the run.
    pub run: u32,
}

impl Bundle {
    /// Fills `frames` with the run, sealed. Blocking.
    ///
    /// # Errors
    /// When there is no such run, or the folder is here no longer.
    pub fn fill(&self, sealer: &mut FrameSealer, frames: &mut Vec<u8>) -> Result<(), Unserved> {
        let unfolded = match self.unfolded.get() {
            Some(unfolded) => unfolded,
            None => {
                let no_folder = Unserved::Violation("a run of what is no folder");
                let unfolded = self.listing.unfold().ok_or(no_folder)?;
                self.unfolded.get_or_init(|| unfolded)
            }
        };
        let run = unfolded.runs.get(self.run as usize);
        let run = run.ok_or(Unserved::Violation("a run beyond the end"))?;
        let bytes = self.read(&unfolded.listing, run);
        frames.clear();
        let chunk_len = self.chunk_len.clamp(1, MAX_CHUNK_LEN);
        let count = bytes.len().div_ceil(chunk_len).max(1);
        for number in 0..count {
            let start = number * chunk_len;
            let chunk = &bytes[start..bytes.len().min(start + chunk_len)];
            let head = chunk_head(self.request, start as u64, number + 1 == count);
            let at = frames.len();
            frames.resize(at + FRAME_HEADER_LEN, 0);
            frames.extend(head.to_bytes());
            frames.extend_from_slice(chunk);
            frames.resize(frames.len() + TAG_LEN, 0);
            sealer.seal(false, &mut frames[at..]).map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// The files one behind the other, up to the first that is here no longer.
    fn read(&self, listing: &Listing, run: &Run) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(run.len).unwrap_or_default());
        for (_, file) in listing.files_of(run) {
            let Some(serving) = self.shares.open(&file.content) else {
                break;
            };
            let at = bytes.len();
            bytes.resize(at + usize::try_from(file.len).unwrap_or_default(), 0);
            let is_here = serving.tree().layout().len() == file.len
                && serving.read_at(&mut bytes[at..], 0).is_ok()
                && serving.check().is_ok();
            if !is_here {
                bytes.truncate(at);
                break;
            }
        }
        bytes
    }
}
