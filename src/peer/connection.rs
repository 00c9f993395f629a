//! One sealed stream between two peers, as a reading and a writing half.
//!
//! Frames are opened in the buffer that they arrived in, and sealed in the buffer that they leave from.

use std::io;
use std::ops::Range;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use zeroize::Zeroize as _;

use crate::crypto::stream::{FrameOpener, FrameSealer, StreamError, StreamKeys};
use crate::wire::MAX_FRAME_LEN;
use crate::wire::codec::DecodeError;
use crate::wire::packet::{FRAME_HEADER_LEN, FrameHeader, TAG_LEN};
use crate::wire::talk::{self, MAX_TALK_LEN};
use crate::wire::transfer::Frame;

/// Largest frame on the wire.
const MAX_WIRE_LEN: usize = FRAME_HEADER_LEN + MAX_FRAME_LEN + TAG_LEN;
/// Several frames are read at a time.
const READ_BUFFER: usize = 8 * MAX_WIRE_LEN;
/// After this long without a frame the other side is asked whether it is there.
pub const PING_AFTER: Duration = Duration::from_secs(30);
/// After this long without a frame the connection is dead.
const DEAD_AFTER: Duration = Duration::from_secs(120);
/// A write that moves nothing for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// FINAL is sent within this time, or not at all.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The network broke it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ended without FINAL.
    #[error("the connection was cut")]
    Cut,
    /// What came was not sealed by the other side.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// What came is no message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Nothing came for too long.
    #[error("the other side fell silent")]
    Silent,
    /// The other side broke a rule.
    #[error("the other side broke the protocol: {0}")]
    Violation(&'static str),
}

impl ConnectionError {
    /// Is the other side gone, as far as the system knows?
    #[must_use]
    pub fn is_broken(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        let Self::Io(error) = self else { return false };
        matches!(
            error.kind(),
            BrokenPipe | ConnectionReset | ConnectionAborted
        )
    }
}

/// Splits a stream under the keys of its handshake.
#[must_use]
pub fn split(stream: TcpStream, keys: StreamKeys) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    let (sealer, opener) = keys.into_halves();
    let buffer = vec![0; READ_BUFFER].into_boxed_slice();
    (
        Reader {
            read,
            opener,
            buffer,
            start: 0,
            end: 0,
            opened: None,
        },
        Writer {
            write,
            sealer,
            frame: Vec::new(),
        },
    )
}

/// The reading half.
#[derive(Debug)]
pub struct Reader {
    read: OwnedReadHalf,
    opener: FrameOpener,
    buffer: Box<[u8]>,
    /// Bytes that came and were not opened yet.
    start: usize,
    end: usize,
    /// Where the plaintext of a frame lies that was opened and not taken yet.
    opened: Option<Range<usize>>,
}

impl Reader {
    /// The next frame; `None` after FINAL. May be dropped and called again at any time.
    ///
    /// # Errors
    /// When the connection is cut or dead, or the other side breaks the protocol.
    pub async fn next(&mut self) -> Result<Option<Frame<'_>>, ConnectionError> {
        match self.next_plaintext().await? {
            Some(plaintext) => Ok(Some(Frame::decode(plaintext)?)),
            None => Ok(None),
        }
    }

    /// Waits for the first frame, which is still the next one then: does it begin a talk? May be dropped
    /// and called again.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn begins_talk(&mut self) -> Result<bool, ConnectionError> {
        if self.opened.is_none() && !self.opener.is_finished() {
            let header = self.fill_frame().await?;
            let start = self.start + FRAME_HEADER_LEN;
            let opened = self.open(header)?.map(|plaintext| plaintext.len());
            self.opened = opened.map(|len| start..start + len);
        }
        let opened = self.opened.clone();
        Ok(opened.is_some_and(|opened| talk::begins_talk(&self.buffer[opened])))
    }

    /// The next frame of a talk, as [`Reader::next`] gives those of a transfer. What was read is wiped.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn next_talk(&mut self) -> Result<Option<talk::Frame>, ConnectionError> {
        if self.opened.is_none() && self.start == self.end {
            // Talks are short and many: most of the buffer is never touched.
            (self.start, self.end) = (0, 0);
        }
        let Some(plaintext) = self.next_plaintext().await? else {
            return Ok(None);
        };
        let frame = talk::Frame::decode(plaintext);
        plaintext.zeroize();
        Ok(Some(frame?))
    }

    async fn next_plaintext(&mut self) -> Result<Option<&mut [u8]>, ConnectionError> {
        if let Some(opened) = self.opened.take() {
            return Ok(Some(&mut self.buffer[opened]));
        }
        if self.opener.is_finished() {
            return Ok(None);
        }
        let header = self.fill_frame().await?;
        self.open(header)
    }

    /// Is the next frame here, so that it need not be waited for?
    #[must_use]
    pub fn has_next(&self) -> bool {
        let here = &self.buffer[self.start..self.end];
        let header = here
            .first_chunk()
            .and_then(|header| FrameHeader::parse(*header).ok());
        header.is_some_and(|header| here.len() >= FRAME_HEADER_LEN + header.len + TAG_LEN)
    }

    fn open(&mut self, header: FrameHeader) -> Result<Option<&mut [u8]>, ConnectionError> {
        let body_start = self.start + FRAME_HEADER_LEN;
        let body_end = body_start + header.len + TAG_LEN;
        self.start = body_end;
        let plaintext = self
            .opener
            .open(header, &mut self.buffer[body_start..body_end])?;
        if header.is_final && plaintext.is_empty() {
            return Ok(None);
        }
        Ok(Some(plaintext))
    }

    async fn fill_frame(&mut self) -> Result<FrameHeader, ConnectionError> {
        loop {
            let here = &self.buffer[self.start..self.end];
            if let Some(header) = here.first_chunk::<FRAME_HEADER_LEN>() {
                let header = FrameHeader::parse(*header)?;
                let len = FRAME_HEADER_LEN + header.len + TAG_LEN;
                if here.len() >= len {
                    return Ok(header);
                }
                if self.start + len > self.buffer.len() {
                    self.make_room();
                }
            } else if self.start + MAX_WIRE_LEN > self.buffer.len() {
                self.make_room();
            }
            let read = timeout(DEAD_AFTER, self.read.read(&mut self.buffer[self.end..]));
            match read.await.map_err(|_| ConnectionError::Silent)?? {
                0 => return Err(ConnectionError::Cut),
                len => self.end += len,
            }
        }
    }

    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}

/// The writing half.
#[derive(Debug)]
pub struct Writer {
    write: OwnedWriteHalf,
    sealer: FrameSealer,
    frame: Vec<u8>,
}

impl Writer {
    /// Sends one frame.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub async fn send(&mut self, frame: &Frame<'_>) -> Result<(), ConnectionError> {
        self.frame.clear();
        self.frame.resize(FRAME_HEADER_LEN, 0);
        frame.encode(&mut self.frame);
        self.frame.resize(self.frame.len() + TAG_LEN, 0);
        self.sealer.seal(false, &mut self.frame)?;
        write_all(&mut self.write, &self.frame).await
    }

    /// Sends one frame of a talk.
    ///
    /// # Errors
    /// When the connection does not take it.
    pub async fn send_talk(&mut self, frame: &talk::Frame) -> Result<(), ConnectionError> {
        self.frame.clear();
        // Sealed where it was written: no plaintext is left in memory that was given back.
        self.frame
            .reserve(FRAME_HEADER_LEN + MAX_TALK_LEN + TAG_LEN);
        self.frame.resize(FRAME_HEADER_LEN, 0);
        frame.encode(&mut self.frame);
        self.frame.resize(self.frame.len() + TAG_LEN, 0);
        self.sealer.seal(false, &mut self.frame)?;
        write_all(&mut self.write, &self.frame).await
    }

    /// Sends frames that were sealed with this half's sealer.
    ///
    /// # Errors
    /// When the connection does not take them.
    pub async fn send_sealed(&mut self, frames: &[u8]) -> Result<(), ConnectionError> {
        write_all(&mut self.write, frames).await
    }

    /// Sends of frames that were sealed with this half's sealer what the connection takes before it takes
    /// nothing for `patience`; how many bytes that were. Blocking.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send_now(&self, frames: &[u8], patience: Duration) -> Result<usize, ConnectionError> {
        let socket: &TcpStream = self.write.as_ref();
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut sent = 0;
        while sent < frames.len() {
            // Not through the runtime: it would not try before another thread has told it that it may.
            match rustix::net::send(socket, &frames[sent..], SendFlags::NOSIGNAL) {
                Ok(0) => return Err(ConnectionError::Cut),
                Ok(len) => sent += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut waiting = [PollFd::new(socket, PollFlags::OUT)];
                    match poll(&mut waiting, Some(&patience)) {
                        Ok(0) => break,
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(io::Error::from(error).into()),
                    }
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(sent)
    }

    /// Seals frames for [`Writer::send_now`] and [`Writer::send_sealed`], in the order in which they go.
    pub const fn sealer(&mut self) -> &mut FrameSealer {
        &mut self.sealer
    }

    /// Ends this direction: the other side knows that nothing is missing.
    pub async fn finish(&mut self) {
        let mut frame = [0; FRAME_HEADER_LEN + TAG_LEN];
        if self.sealer.seal(true, &mut frame).is_ok() {
            let _ = timeout(CLOSE_TIMEOUT, self.write.write_all(&frame)).await;
            let _ = timeout(CLOSE_TIMEOUT, self.write.shutdown()).await;
        }
    }
}

/// Writes all, as long as something moves.
async fn write_all(write: &mut OwnedWriteHalf, mut bytes: &[u8]) -> Result<(), ConnectionError> {
    while !bytes.is_empty() {
        let written = timeout(WRITE_TIMEOUT, write.write(bytes))
            .await
            .map_err(|_| ConnectionError::Silent)??;
        if written == 0 {
            return Err(ConnectionError::Cut);
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::crypto::secret::Secret;
    use crate::crypto::stream::Suite;
    use crate::wire::transfer::chunk_head;

    /// Both ends of a connection.
    pub(in crate::peer) async fn connected() -> ((Reader, Writer), (Reader, Writer)) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        let (dialled, accepted) = tokio::join!(dialled, listener.accept());
        let keys = |send, receive| StreamKeys {
            send: Secret::new([send; 32]),
            receive: Secret::new([receive; 32]),
            suite: Suite::ChaCha,
        };
        let one = split(dialled.unwrap(), keys(1, 2));
        (one, split(accepted.unwrap().0, keys(2, 1)))
    }

    /// A run of two frames, each with a chunk full of `number`.
    fn run(writer: &mut Writer, number: u8) -> Vec<u8> {
        let mut frames = Vec::new();
        for _ in 0..2 {
            let at = frames.len();
            frames.resize(at + FRAME_HEADER_LEN, 0);
            frames.extend(chunk_head(7, u64::from(number), false).to_bytes());
            frames.resize(frames.len() + (1 << 16), number);
            frames.resize(frames.len() + TAG_LEN, 0);
            writer.sealer().seal(false, &mut frames[at..]).unwrap();
        }
        frames
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_full_connection_does_not_take_now_is_sent_later() {
        let ((_reader, mut writer), (mut reader, _writer)) = connected().await;
        let patience = Duration::from_millis(20);
        let (mut count, rest) = (
            0_u8,
            loop {
                // Nobody reads: it has an end.
                let frames = run(&mut writer, 0);
                let sent = writer.send_now(&frames, patience).unwrap();
                if sent < frames.len() {
                    break frames[sent..].to_vec();
                }
            },
        );
        let reading = tokio::spawn(async move {
            while let Some(Frame::Chunk { bytes, offset, .. }) = reader.next().await.unwrap() {
                assert!(bytes.iter().all(|byte| u64::from(*byte) == offset));
                count = bytes[0];
            }
            count
        });
        writer.send_sealed(&rest).await.unwrap();
        for number in 1..=50 {
            let frames = run(&mut writer, number);
            let sent = writer.send_now(&frames, patience).unwrap();
            writer.send_sealed(&frames[sent..]).await.unwrap();
        }
        writer.finish().await;
        assert_eq!(reading.await.unwrap(), 50);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_said_is_left_in_no_buffer() {
        let said = "only for your ears";
        let ((_reader, mut writer), (mut reader, _writer)) = connected().await;
        let frame = talk::Frame::Text {
            number: 1,
            to_all: false,
            text: said.parse().unwrap(),
        };
        writer.send_talk(&frame).await.unwrap();
        assert!(!reader.begins_talk().await.unwrap());
        let holds = |bytes: &[u8]| {
            bytes
                .windows(said.len())
                .any(|part| part == said.as_bytes())
        };
        assert!(holds(&reader.buffer), "it was opened where it came");
        assert_eq!(reader.next_talk().await.unwrap(), Some(frame));
        assert!(!holds(&reader.buffer) && !holds(&writer.frame));
        // The frame that was looked at is not lost to a transfer either.
        writer.send(&Frame::Ping).await.unwrap();
        writer.finish().await;
        assert!(!reader.begins_talk().await.unwrap());
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Ping));
        assert!(!reader.begins_talk().await.unwrap());
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_is_gone_takes_nothing() {
        let ((_reader, mut writer), theirs) = connected().await;
        drop(theirs);
        let sent = (0..1000).try_for_each(|_| {
            let frames = run(&mut writer, 1);
            writer.send_now(&frames, Duration::ZERO).map(drop)
        });
        assert!(matches!(sent, Err(ConnectionError::Io(_))), "{sent:?}");
    }
}
