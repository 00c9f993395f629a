//! What the bytes mean: the first floor, which names nothing else of the crate.
//!
//! Every message is parsed once, here, into types that cannot hold nonsense; behind this door nobody
//! looks again. All sizes that bound what a stranger or a member can make us keep stand in this file.
//! The whole format is told in `docs/protocol.md`; this is its code.
//!
//! ```text
//! UDP │ type 1 │ session 7 │ counter 8 │ sealed: head 16, body, padding │ tag 16 │     packet, control
//! TCP │ flags 1 │ length 3 │ sealed: head 16, body │ tag 16 │                         packet, frame, transfer, talk
//! ```

pub mod beacon;
pub mod codec;
pub mod control;
pub mod folder;
pub mod frame;
pub mod id;
pub mod packet;
pub mod password;
pub mod pieces;
pub mod talk;
pub mod text;
pub mod transfer;

/// The protocol version that this program speaks; it stands in byte 0 of the handshake's first message
/// and in the high nibble of every datagram's type.
pub const PROTOCOL_VERSION: u8 = 1;

/// Largest UDP payload that is ever sent, in bytes: it passes every IPv6 path without fragments
/// (1280 − 40 − 8).
pub const MAX_DATAGRAM_LEN: usize = 1232;

/// Largest body of a control message, in bytes.
pub const MAX_BODY_LEN: usize = 1184;

/// Largest share of a piece that one frame carries, in bytes.
pub const MAX_CHUNK_LEN: usize = 64 * 1024;

/// Largest plaintext of a frame, in bytes: its head and one chunk.
pub const MAX_FRAME_LEN: usize = MAX_CHUNK_LEN + frame::FRAME_HEAD_LEN;

/// Largest file that can be shared, in bytes (1 PiB): three levels of hash pages of 1024 entries.
pub const MAX_FILE_LEN: u64 = 1 << 50;

/// Most files that one PUBLISH or UNPUBLISH names; fewer fit when names are long.
pub const MAX_FILES_PER_REQUEST: usize = 64;

/// Most people whom one publication may be for.
pub const MAX_AUDIENCE: usize = 16;

/// Most entries of one page of a listing; fewer fit when names are long.
pub const MAX_PAGE_ENTRIES: usize = 64;

/// Most owners named in one search hit; the count tells how many there are.
pub const MAX_OWNERS_PER_HIT: usize = 4;

/// Most addresses told for one peer.
pub const MAX_ADDRESSES: usize = 4;

/// Largest search term, in bytes.
pub const MAX_TERM_LEN: usize = 255;

/// Largest cursor of a paged listing, in bytes.
pub const MAX_CURSOR_LEN: usize = 32;

/// Requests that one asker may have outstanding on one session.
pub const MAX_OUTSTANDING_REQUESTS: usize = 32;

/// Candidate pieces that one piece request may name.
pub const MAX_CANDIDATES: usize = 4;

/// Piece requests that one downloader may have queued at one uploader.
pub const MAX_QUEUED_PIECES: usize = 64;

/// Largest text of one chat message, in bytes.
pub const MAX_CHAT_LEN: usize = 8 * 1024;

/// Bytes to a multiple of which the text of a chat message is padded.
pub const CHAT_CLASS: usize = 256;

/// Files that one connection may have open at the same time: each costs a descriptor.
pub const MAX_OPEN_FILES: usize = 16;
