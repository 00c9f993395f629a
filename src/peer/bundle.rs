//! A run of small files of a shared folder, read and sealed in one go.

use std::sync::{Arc, OnceLock};

use super::shares::{Gone, Serving, Shares};
use crate::crypto::stream::FrameSealer;
use crate::wire::MAX_CHUNK_LEN;
use crate::wire::folder::{Listing, Run};
use crate::wire::frame::FRAME_HEAD_LEN;
use crate::wire::packet::{FRAME_HEADER_LEN, TAG_LEN};
use crate::wire::transfer::{WantedFiles, chunk_head};

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
    /// The run, or which of its files.
    pub wanted: WantedFiles,
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
        let run = unfolded.runs.get(self.wanted.run as usize);
        let run = run.ok_or(Unserved::Violation("a run beyond the end"))?;
        let stretches = self.read(&unfolded.listing, run);
        frames.clear();
        let chunk_len = self.chunk_len.clamp(1, MAX_CHUNK_LEN);
        let chunks = stretches.iter().flat_map(|stretch| {
            let offsets = (stretch.offset..).step_by(chunk_len);
            offsets.zip(stretch.bytes.chunks(chunk_len))
        });
        let mut chunks = chunks.peekable();
        // Of none of the files is anything here: that, too, is an answer.
        let mut next = Some(chunks.next().unwrap_or_default());
        while let Some((offset, chunk)) = next {
            next = chunks.next();
            let head = chunk_head(self.request, offset, next.is_none());
            let at = frames.len();
            frames.resize(at + FRAME_HEADER_LEN, 0);
            frames.extend(head.to_bytes());
            frames.extend_from_slice(chunk);
            frames.resize(frames.len() + TAG_LEN, 0);
            sealer.seal(false, &mut frames[at..]).map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// The files that are wanted and still here.
    fn read(&self, listing: &Listing, run: &Run) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut end = 0;
        for (number, (_, file)) in listing.files_of(run).enumerate() {
            let offset = end;
            end += file.len;
            let wanted = self.wanted.files.as_ref();
            if wanted.is_some_and(|wanted| !wanted.has(number)) {
                continue;
            }
            let Some(serving) = self.shares.open(&file.content, self.listing.reader()) else {
                continue;
            };
            if stretches.last().is_none_or(|last| last.end() != offset) {
                let bytes = Vec::new();
                stretches.push(Stretch { offset, bytes });
            }
            let Some(Stretch { bytes, .. }) = stretches.last_mut() else {
                continue;
            };
            let at = bytes.len();
            bytes.resize(at + usize::try_from(file.len).unwrap_or_default(), 0);
            let is_here = serving.tree().layout().len() == file.len
                && serving.read_at(&mut bytes[at..], 0).is_ok()
                && serving.check().is_ok();
            if !is_here {
                bytes.truncate(at);
            }
        }
        stretches.retain(|stretch| !stretch.bytes.is_empty());
        stretches
    }
}

/// Files of a run that lie beside each other.
#[derive(Debug, PartialEq, Eq)]
struct Stretch {
    /// Bytes of the run before it.
    offset: u64,
    bytes: Vec<u8>,
}

impl Stretch {
    const fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::readers::Reader;
    use super::super::shares::Background;
    use super::*;

    /// What is gone, and what is not asked for, is passed over; what is behind it still comes.
    #[tokio::test]
    async fn a_file_that_is_gone_leaves_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("talks");
        std::fs::create_dir(&root).unwrap();
        for (name, bytes) in [("a", "one"), ("b", "three"), ("c", "two"), ("d", "four")] {
            std::fs::write(root.join(name), bytes).unwrap();
        }
        let (shares, _withdrawn) = Shares::new(Background::default());
        let shared = shares.add(&root, None).await.unwrap();
        let listing = Arc::new(shares.open(&shared.file.content, Reader::Own).unwrap());
        let unfolded = listing.unfold().unwrap();
        let read = |files: Option<[bool; 4]>| {
            let wanted = WantedFiles {
                file: 0,
                run: 0,
                files: files.map(|files| files.into_iter().collect()),
            };
            let bundle = Bundle {
                shares: shares.clone(),
                listing: Arc::clone(&listing),
                unfolded: Arc::default(),
                request: 1,
                chunk_len: 4,
                wanted,
            };
            let stretches = bundle.read(&unfolded.listing, &unfolded.runs[0]);
            let text =
                |stretch: Stretch| (stretch.offset, String::from_utf8(stretch.bytes).unwrap());
            stretches.into_iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(read(None), [(0, "onethreetwofour".to_owned())]);
        let some = read(Some([true, false, true, true]));
        assert_eq!(some, [(0, "one".to_owned()), (8, "twofour".to_owned())]);
        std::fs::remove_file(root.join("a")).unwrap();
        std::fs::write(root.join("c"), "2").unwrap();
        assert_eq!(
            read(None),
            [(3, "three".to_owned()), (11, "four".to_owned())]
        );
        assert_eq!(read(Some([true, false, true, false])), []);
    }
}
