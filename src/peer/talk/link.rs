//! The two tasks of one connection: one reads what comes, the other sends what waits.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Talker;
use crate::peer::connection::{ConnectionError, Reader, Writer};
use crate::proto::talk::LinkId;
use crate::wire::talk::Frame;

/// Frames that wait to be sent: whoever has more to hear does not read.
const QUEUE: usize = 256;
/// After our goodbye theirs is waited for so long, so that ours arrives.
const FAREWELL: Duration = Duration::from_secs(2);

/// What waits when we let go of a connection, and our goodbye, are sent within this time or not at all.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A connection, as long as it is used.
pub(super) struct Link {
    frames: mpsc::Sender<Frame>,
    /// Says goodbye when it is dropped, without waiting for it; see [`Link::abort`].
    leaving: CancellationToken,
    abort: CancellationToken,
}

impl Link {
    /// Begins to read and write.
    pub(super) fn start(
        talker: &Talker,
        id: LinkId,
        (reader, writer): (Reader, Writer),
        tasks: &TaskTracker,
    ) -> Self {
        let (frames, waiting) = mpsc::channel(QUEUE);
        let [leaving, abort] = [(), ()].map(|()| CancellationToken::new());
        let reading = read(talker.clone(), id, reader, leaving.clone());
        let writing = write(talker.clone(), id, writer, waiting, leaving.clone());
        let aborted = abort.clone();
        tasks.spawn(async move {
            tokio::select! { () = aborted.cancelled() => {} () = reading => {} }
        });
        let aborted = abort.clone();
        tasks.spawn(async move {
            tokio::select! { () = aborted.cancelled() => {} () = writing => {} }
        });
        Self {
            frames,
            leaving,
            abort,
        }
    }

    /// Sends a frame when its turn comes; `false` when too many wait.
    pub(super) fn send(&self, frame: Frame) -> bool {
        self.frames.try_send(frame).is_ok()
    }

    /// Ends it without a goodbye.
    pub(super) fn abort(self) {
        self.abort.cancel();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.leaving.cancel();
    }
}

async fn read(talker: Talker, id: LinkId, mut reader: Reader, leaving: CancellationToken) {
    let broken = loop {
        let next = tokio::select! {
            biased;
            () = leaving.cancelled() => break None,
            next = reader.next_talk() => next,
        };
        match next {
            Ok(Some(frame)) => {
                // Nothing is read meanwhile: whoever sends too much waits at his own end.
                let pause = talker.handle_frame(id, frame);
                if !pause.is_zero() {
                    tokio::select! {
                        () = leaving.cancelled() => break None,
                        () = sleep(pause) => {}
                    }
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    if !leaving.is_cancelled() {
        return talker.handle_closed(id, broken);
    }
    // What comes now is read and forgotten: closing on it would take our last words away.
    let rest = async { while let Ok(Some(_)) = reader.next_talk().await {} };
    let _ = timeout(FAREWELL, rest).await;
}

async fn write(
    talker: Talker,
    id: LinkId,
    mut writer: Writer,
    mut frames: mpsc::Receiver<Frame>,
    leaving: CancellationToken,
) {
    let sending = async {
        while let Some(frame) = frames.recv().await {
            writer.send_talk(&frame).await?;
        }
        writer.finish().await;
        Ok::<(), ConnectionError>(())
    };
    // Whoever reads a byte a minute holds nothing of ours for hours.
    let too_late = async {
        leaving.cancelled().await;
        sleep(LAST_WORDS).await;
    };
    tokio::select! {
        sent = sending => if let Err(error) = sent {
            talker.handle_closed(id, Some(error.to_string()));
        },
        () = too_late => {}
    }
}
