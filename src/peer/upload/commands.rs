//! What the other side asks of an upload.

use tokio::sync::mpsc;

use crate::peer::connection::{ConnectionError, Reader};
use crate::wire::id::ContentId;
use crate::wire::transfer::{Frame, HashPage, Wanted, WantedFiles};

/// What the reading half hands to the writing half.
pub(super) enum Command {
    Open { file: u32, content: ContentId },
    Hashes { file: u32, page: HashPage },
    Piece { request: u32, wanted: Wanted },
    Files { request: u32, wanted: WantedFiles },
    Cancel { request: u32 },
    Close { file: u32 },
    Pong,
}

impl Command {
    /// Does it ask for something of a content?
    pub(super) const fn asks(&self) -> bool {
        matches!(
            self,
            Self::Piece { .. } | Self::Files { .. } | Self::Hashes { .. }
        )
    }
}

/// Hands over what is asked, until nothing is any more.
pub(super) async fn read_commands(
    mut reader: Reader,
    commands: mpsc::Sender<Command>,
) -> Result<(), ConnectionError> {
    while let Some(frame) = reader.next().await? {
        let command = match frame {
            Frame::Ping => Command::Pong,
            Frame::Pong => continue,
            Frame::Open { file, content } => Command::Open { file, content },
            Frame::AskHashes { file, page } => Command::Hashes { file, page },
            Frame::Request { request, wanted } => Command::Piece { request, wanted },
            Frame::AskFiles { request, wanted } => Command::Files { request, wanted },
            Frame::Cancel { request } => Command::Cancel { request },
            Frame::Close { file } => Command::Close { file },
            Frame::Opened { .. }
            | Frame::Absent { .. }
            | Frame::Hashes { .. }
            | Frame::Chunk { .. }
            | Frame::Have { .. } => {
                return Err(ConnectionError::Violation("an answer to no question"));
            }
        };
        if commands.send(command).await.is_err() {
            break;
        }
    }
    Ok(())
}
