//! The inside, peer and peer: what is asked and answered on the stream between two of them.
//!
//! A connection has open files; each bears the number that its OPEN chose. A request names up to four
//! candidate pieces of an open file, and the uploader serves one of them. `docs/protocol.md` § Transfer.

use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError};
use super::folder::MAX_RUN_FILES;
use super::frame::{FRAME_HEAD_LEN, FrameHead};
use super::id::ContentId;
use super::{MAX_CANDIDATES, MAX_CHUNK_LEN, MAX_FILE_LEN};

const KIND_PING: u8 = 0x02;
const KIND_PONG: u8 = 0x03;
const KIND_OPEN: u8 = 0x10;
const KIND_OPENED: u8 = 0x11;
const KIND_ABSENT: u8 = 0x12;
const KIND_ASK_HASHES: u8 = 0x13;
const KIND_HASHES: u8 = 0x14;
const KIND_REQUEST: u8 = 0x15;
const KIND_CHUNK: u8 = 0x16;
const KIND_CANCEL: u8 = 0x17;
const KIND_HAVE: u8 = 0x18;
const KIND_CLOSE: u8 = 0x19;
const KIND_ASK_FILES: u8 = 0x1a;

/// Bit of a chunk's flags: the piece ends here.
const FLAG_LAST_CHUNK: u8 = 1;

/// One frame between two peers. Borrowed bytes lie in the buffer that the frame was opened in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// Is somebody there?
    Ping,
    /// Yes.
    Pong,
    /// Downloader: I want this content; it shall be `file` from now on.
    Open {
        /// Number of the file on this connection.
        file: u32,
        /// The content wanted.
        content: ContentId,
    },
    /// Uploader: here it is.
    Opened {
        /// Number of the file on this connection.
        file: u32,
        /// Its length and which pieces are here.
        opened: Opened,
    },
    /// Uploader: not here, or no longer. The number is free again.
    Absent {
        /// Number of the file on this connection.
        file: u32,
    },
    /// Downloader: I want a page of hashes.
    AskHashes {
        /// Number of the file on this connection.
        file: u32,
        /// Which page.
        page: HashPage,
    },
    /// Uploader: 32 bytes for each entry of the page.
    Hashes {
        /// Number of the file on this connection.
        file: u32,
        /// Which page.
        page: HashPage,
        /// The entries, one after the other.
        hashes: &'a [u8],
    },
    /// Downloader: send one of these pieces.
    Request {
        /// Number of the request, free again when the piece is complete.
        request: u32,
        /// What is wanted.
        wanted: Wanted,
    },
    /// Uploader: a part of a piece; the first one tells by its offset which candidate was chosen.
    Chunk {
        /// The request that it answers.
        request: u32,
        /// Where it belongs in the file, in bytes.
        offset: u64,
        /// The piece is complete with it.
        is_last: bool,
        /// The bytes, at most 64 KiB.
        bytes: &'a [u8],
    },
    /// Downloader: send a run of small files of a folder, or some of it. They come as chunks whose offsets
    /// count from the first file on; what is passed over is not here, or was not asked for.
    AskFiles {
        /// Number of the request, free again when the run is complete.
        request: u32,
        /// Which files.
        wanted: WantedFiles,
    },
    /// Downloader: no longer wanted. What is on the way still comes.
    Cancel {
        /// The request meant.
        request: u32,
    },
    /// Uploader: pieces that are here now, too.
    Have {
        /// Number of the file on this connection.
        file: u32,
        /// Their numbers.
        pieces: Vec<u32>,
    },
    /// Downloader: the number is free again.
    Close {
        /// Number of the file on this connection.
        file: u32,
    },
}

/// Most pieces of one HAVE.
pub const MAX_HAVE: usize = 1024;

/// The body of OPENED.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// Length of the file in bytes.
    pub len: u64,
    /// The pieces that are here, as `Bitfield::to_bytes` writes them; absent when all are.
    pub pieces: Option<PieceSet>,
}

/// A bitfield on its way; as large as one frame at most, so up to 512 GiB can be shared in parts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PieceSet(
    #[serde(deserialize_with = "codec::list::<{ MAX_CHUNK_LEN - 64 }, _, _>")] pub Vec<u8>,
);

impl PieceSet {
    /// Most pieces that it can speak of.
    pub const MAX_COUNT: usize = (MAX_CHUNK_LEN - 64) * 8;
}

/// Names a page of hashes; `Layout` says which there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HashPage {
    /// 0 for the hashes of pieces, 1 for those of level 0's pages, and so on.
    pub level: u8,
    /// Number of the page on its level.
    pub index: u32,
}

/// The body of REQUEST.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// Number of the file on this connection.
    pub file: u32,
    /// One to four pieces, of which one is served.
    #[serde(deserialize_with = "codec::list::<MAX_CANDIDATES, _, _>")]
    pub candidates: Vec<u32>,
}

/// The body of ASK_FILES.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WantedFiles {
    /// Number of the folder's listing on this connection.
    pub file: u32,
    /// Number of the run, as `Listing::runs` counts them.
    pub run: u32,
    /// Which of its files; absent when all are wanted.
    pub files: Option<FileSet>,
}

/// Some files of a run: a bit for each, the first one in the highest bit of the first byte.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileSet(
    #[serde(deserialize_with = "codec::list::<{ MAX_RUN_FILES / 8 }, _, _>")] Vec<u8>,
);

impl FileSet {
    /// Is the file of this number in it, counted within the run?
    #[must_use]
    pub fn has(&self, number: usize) -> bool {
        let byte = self.0.get(number / 8);
        byte.is_some_and(|byte| byte << (number % 8) & 0x80 != 0)
    }
}

impl FromIterator<bool> for FileSet {
    fn from_iter<I: IntoIterator<Item = bool>>(files: I) -> Self {
        let mut bytes = Vec::new();
        for (number, is_in) in files.into_iter().enumerate() {
            if number % 8 == 0 {
                bytes.push(0);
            }
            if let Some(last) = bytes.last_mut().filter(|_| is_in) {
                *last |= 0x80 >> (number % 8);
            }
        }
        Self(bytes)
    }
}

#[derive(Serialize, Deserialize)]
struct Pieces(#[serde(deserialize_with = "codec::list::<MAX_HAVE, _, _>")] Vec<u32>);

/// The head of a chunk that holds `bytes.len()` bytes of a file from `offset` on. Uploaders write it in
/// front of bytes read straight from disk.
#[must_use]
pub const fn chunk_head(request: u32, offset: u64, is_last: bool) -> FrameHead {
    FrameHead {
        kind: KIND_CHUNK,
        flags: if is_last { FLAG_LAST_CHUNK } else { 0 },
        id: request,
        offset,
    }
}

impl<'a> Frame<'a> {
    /// Appends head and body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let head = |kind, id, offset| {
            FrameHead {
                kind,
                flags: 0,
                id,
                offset,
            }
            .to_bytes()
        };
        match self {
            Self::Ping => out.extend(head(KIND_PING, 0, 0)),
            Self::Pong => out.extend(head(KIND_PONG, 0, 0)),
            Self::Open { file, content } => {
                out.extend(head(KIND_OPEN, *file, 0));
                out.extend(content.0);
            }
            Self::Opened { file, opened } => {
                out.extend(head(KIND_OPENED, *file, 0));
                codec::encode(opened, out);
            }
            Self::Absent { file } => out.extend(head(KIND_ABSENT, *file, 0)),
            Self::AskHashes { file, page } => {
                out.extend(head(KIND_ASK_HASHES, *file, page.to_offset()));
            }
            Self::Hashes { file, page, hashes } => {
                out.extend(head(KIND_HASHES, *file, page.to_offset()));
                out.extend_from_slice(hashes);
            }
            Self::Request { request, wanted } => {
                out.extend(head(KIND_REQUEST, *request, 0));
                codec::encode(wanted, out);
            }
            Self::Chunk {
                request,
                offset,
                is_last,
                bytes,
            } => {
                out.extend(chunk_head(*request, *offset, *is_last).to_bytes());
                out.extend_from_slice(bytes);
            }
            Self::AskFiles { request, wanted } => {
                out.extend(head(KIND_ASK_FILES, *request, 0));
                codec::encode(wanted, out);
            }
            Self::Cancel { request } => out.extend(head(KIND_CANCEL, *request, 0)),
            Self::Have { file, pieces } => {
                out.extend(head(KIND_HAVE, *file, 0));
                codec::encode(pieces, out);
            }
            Self::Close { file } => out.extend(head(KIND_CLOSE, *file, 0)),
        }
    }

    /// Reads an opened plaintext.
    ///
    /// # Errors
    /// When it is no frame of this list.
    pub fn decode(plaintext: &'a [u8]) -> Result<Self, DecodeError> {
        let (head, body) = FrameHead::split(plaintext)?;
        let id = head.id;
        Ok(match head.kind {
            KIND_PING => Self::Ping,
            KIND_PONG => Self::Pong,
            KIND_OPEN => {
                let content = ContentId(body.try_into().map_err(|_| DecodeError("content id"))?);
                Self::Open { file: id, content }
            }
            KIND_OPENED => {
                let opened: Opened = codec::decode(body)?;
                if opened.len > MAX_FILE_LEN {
                    return Err(DecodeError("file too large"));
                }
                Self::Opened { file: id, opened }
            }
            KIND_ABSENT => Self::Absent { file: id },
            KIND_ASK_HASHES => Self::AskHashes {
                file: id,
                page: HashPage::from_offset(head.offset)?,
            },
            KIND_HASHES if body.len().is_multiple_of(32) => Self::Hashes {
                file: id,
                page: HashPage::from_offset(head.offset)?,
                hashes: body,
            },
            KIND_REQUEST => {
                let wanted: Wanted = codec::decode(body)?;
                if wanted.candidates.is_empty() {
                    return Err(DecodeError("request without pieces"));
                }
                Self::Request {
                    request: id,
                    wanted,
                }
            }
            KIND_CHUNK if body.len() <= MAX_CHUNK_LEN => {
                let is_last = match head.flags {
                    0 => false,
                    FLAG_LAST_CHUNK => true,
                    _ => return Err(DecodeError("chunk flags")),
                };
                Self::Chunk {
                    request: id,
                    offset: head.offset,
                    is_last,
                    bytes: body,
                }
            }
            KIND_ASK_FILES => Self::AskFiles {
                request: id,
                wanted: codec::decode(body)?,
            },
            KIND_CANCEL => Self::Cancel { request: id },
            KIND_HAVE => Self::Have {
                file: id,
                pieces: codec::decode::<Pieces>(body)?.0,
            },
            KIND_CLOSE => Self::Close { file: id },
            _ => return Err(DecodeError("frame kind")),
        })
    }
}

impl HashPage {
    /// Level in the highest byte, number in the lowest four.
    fn to_offset(self) -> u64 {
        u64::from(self.level) << 56 | u64::from(self.index)
    }

    fn from_offset(offset: u64) -> Result<Self, DecodeError> {
        let [level, 0, 0, 0, index @ ..] = offset.to_be_bytes() else {
            return Err(DecodeError("hash page"));
        };
        Ok(Self {
            level,
            index: u32::from_be_bytes(index),
        })
    }
}

const _: () = assert!(MAX_CHUNK_LEN + FRAME_HEAD_LEN == super::MAX_FRAME_LEN);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    #[test]
    fn every_kind_survives_the_wire() {
        let page = HashPage {
            level: 2,
            index: 0x0102_0304,
        };
        let frames = [
            Frame::Ping,
            Frame::Pong,
            Frame::Open {
                file: 1,
                content: ContentId([7; 32]),
            },
            Frame::Opened {
                file: 1,
                opened: Opened {
                    len: 5,
                    pieces: None,
                },
            },
            Frame::Opened {
                file: 1,
                opened: Opened {
                    len: 1 << 40,
                    pieces: Some(PieceSet(vec![0x80])),
                },
            },
            Frame::Absent { file: 1 },
            Frame::AskHashes { file: 1, page },
            Frame::Hashes {
                file: 1,
                page,
                hashes: &[1; 64],
            },
            Frame::Request {
                request: 2,
                wanted: Wanted {
                    file: 1,
                    candidates: vec![0, 7, u32::MAX],
                },
            },
            Frame::Chunk {
                request: 2,
                offset: 1 << 40,
                is_last: true,
                bytes: b"hello",
            },
            Frame::Chunk {
                request: 2,
                offset: 0,
                is_last: false,
                bytes: &[0; MAX_CHUNK_LEN],
            },
            Frame::AskFiles {
                request: 2,
                wanted: WantedFiles {
                    file: 1,
                    run: 7,
                    files: None,
                },
            },
            Frame::AskFiles {
                request: 2,
                wanted: WantedFiles {
                    file: 1,
                    run: 7,
                    files: Some([false, true, true].into_iter().collect()),
                },
            },
            Frame::Cancel { request: 2 },
            Frame::Have {
                file: 1,
                pieces: vec![3, 4],
            },
            Frame::Close { file: 1 },
        ];
        for frame in frames {
            assert_eq!(Frame::decode(&bytes_of(&frame)), Ok(frame.clone()));
        }
    }

    #[test]
    fn a_request_on_the_wire() {
        let frame = Frame::Request {
            request: 2,
            wanted: Wanted {
                file: 1,
                candidates: vec![300],
            },
        };
        let head = [0x15, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes_of(&frame), [&head[..], &[1, 1, 0xac, 0x02]].concat());
    }

    #[test]
    fn some_files_of_a_run_are_bits() {
        for count in [0, 1, 8, 9, MAX_RUN_FILES] {
            let files: FileSet = (0..count).map(|number| number % 3 == 1).collect();
            let is_in = |number: &usize| files.has(*number);
            let found: Vec<_> = (0..count + 20).filter(is_in).collect();
            assert!(found.into_iter().eq((0..count).filter(|n| n % 3 == 1)));
            let wanted = WantedFiles {
                file: 1,
                run: 7,
                files: Some(files),
            };
            let frame = Frame::AskFiles { request: 2, wanted };
            assert_eq!(Frame::decode(&bytes_of(&frame)), Ok(frame));
        }
        let files = Some((0..=MAX_RUN_FILES).map(|_| true).collect());
        let wanted = WantedFiles {
            file: 1,
            run: 7,
            files,
        };
        let frame = Frame::AskFiles { request: 2, wanted };
        assert!(Frame::decode(&bytes_of(&frame)).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let request = |candidates| {
            bytes_of(&Frame::Request {
                request: 2,
                wanted: Wanted {
                    file: 1,
                    candidates,
                },
            })
        };
        assert!(Frame::decode(&request(vec![])).is_err());
        assert!(Frame::decode(&request(vec![1, 2, 3, 4])).is_ok());
        assert!(Frame::decode(&request(vec![1, 2, 3, 4, 5])).is_err());
        let opened = Opened {
            len: MAX_FILE_LEN + 1,
            pieces: None,
        };
        assert!(Frame::decode(&bytes_of(&Frame::Opened { file: 1, opened })).is_err());
        let too_long = Frame::Chunk {
            request: 0,
            offset: 0,
            is_last: true,
            bytes: &[0; MAX_CHUNK_LEN + 1],
        };
        assert!(Frame::decode(&bytes_of(&too_long)).is_err());
    }

    proptest! {
        #[test]
        fn foreign_frames_never_panic(kind in 0_u8..0x20, rest: Vec<u8>) {
            let mut bytes = vec![kind, 0, 0, 0];
            bytes.extend(rest);
            let _ = Frame::decode(&bytes);
        }
    }
}
