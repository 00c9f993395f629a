//! The socket in a state directory: one line asks, lines answer, the last one ends it.
//!
//! Whoever runs with a state directory listens there, so that another p2pfs of the same user can ask it. A
//! request is one JSON object, `{"v":1,"command":"status"}`; each line of the answer is one as well, and the
//! last has the type `end` and the exit code. While an answer takes long, lines of the type `wait` say that it
//! is still to come. Nobody else gets that far: the directory and the socket are their owner's, and both sides
//! look at who the other one is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, fchmod, openat};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::disk::{self, DirLock};

/// The version of requests and answers.
const VERSION: u32 = 1;
/// Name of the socket.
const NAME: &str = "control.sock";
/// Longest request, in bytes: more than a command line may have.
const MAX_REQUEST: u64 = 4 << 20;
/// Longest line of an answer, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// A request comes, and a line of an answer is taken, within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// A line of an answer comes within this time; then the one who asks gives up.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How often somebody who waits for an answer is told that it is still to come.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// Clients at the same time; others wait. A download that somebody waits for is one of them.
const MAX_CLIENTS: usize = 64;
/// Lines of an answer that nobody has taken yet.
const QUEUE: usize = 16;
/// Pause after the system gave no connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest path that the system takes for a socket, in bytes.
const MAX_PATH: usize = 107;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The version of its form.
    pub v: u32,
    /// What to do.
    pub command: String,
    /// With what.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub arguments: Value,
    /// For whom.
    #[serde(default)]
    pub client: Client,
}

/// What an answer has to know of the one who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Wants objects instead of text.
    #[serde(default)]
    pub json: bool,
    /// Wants results only.
    #[serde(default)]
    pub quiet: bool,
    /// Columns for a listing; absent where nothing is to be cut.
    #[serde(default)]
    pub width: Option<usize>,
    /// Columns of a line that is drawn again and again; absent where it cannot be.
    #[serde(default)]
    pub live_width: Option<usize>,
    /// The tracker that is meant, if one was named.
    #[serde(default)]
    pub tracker: Option<String>,
    /// The network that is meant, if one was named.
    #[serde(default)]
    pub network: Option<String>,
}

impl Request {
    /// A command without arguments.
    #[must_use]
    pub fn new(command: &str) -> Self {
        Self {
            v: VERSION,
            command: command.to_owned(),
            arguments: Value::Null,
            client: Client::default(),
        }
    }
}

/// The last line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The exit code that the command would have had.
    pub code: u8,
    /// What went wrong, as one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl End {
    /// All went well.
    pub const OK: Self = Self {
        code: 0,
        message: None,
        hint: None,
    };

    /// Something did not.
    #[must_use]
    pub fn failed(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
            hint: None,
        }
    }
}

/// The last line of an answer, as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    v: u32,
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    end: End,
}

/// Where a command puts the lines of its answer.
#[derive(Clone, Debug)]
pub struct Replies(mpsc::Sender<Value>);

impl Replies {
    /// Sends a line; `false` when nobody listens any more.
    pub async fn send(&self, line: Value) -> bool {
        self.0.send(line).await.is_ok()
    }
}

/// Carries out commands for those who ask.
pub trait Host: Send + Sync + 'static {
    /// Carries out one.
    fn answer(&self, request: Request, replies: Replies) -> impl Future<Output = End> + Send;
}

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("nothing runs with {}", .0.display())]
    Nobody(PathBuf),
    /// The socket is somebody else's.
    #[error("the socket in {} belongs to another user", .0.display())]
    Foreign(PathBuf),
    /// It takes the question and does not answer it, or turns us away.
    #[error("what runs with {} does not answer: {reason}", dir.display())]
    Mute {
        /// The directory.
        dir: PathBuf,
        /// How.
        reason: String,
    },
    /// The system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A socket that listens in a state directory; removed when dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        disk::remove(&self.path);
    }
}

impl Listener {
    /// Listens in `dir`, which is ours: `_lock` says that whatever socket lies there is of a process that
    /// ended.
    ///
    /// # Errors
    /// What the system says.
    pub fn bind(dir: &Path, _lock: &DirLock) -> io::Result<Self> {
        let path = dir.join(NAME);
        disk::remove(&path);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // What bind creates has the rights that the socket has before.
        fchmod(&socket, Mode::from_bits_truncate(0o600))?;
        with_short_path(dir, |short| socket.bind(&SockAddr::unix(short)?))?;
        socket.listen(i32::try_from(MAX_CLIENTS).unwrap_or(i32::MAX))?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self { listener, path })
    }

    /// Answers until `shutdown`.
    pub async fn run(self, host: Arc<impl Host>, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = accept(&self.listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let (host, shutdown) = (Arc::clone(&host), shutdown.clone());
                    tokio::spawn(async move {
                        let _place = place;
                        tokio::select! {
                            () = shutdown.cancelled() => {}
                            served = serve(stream, &*host) => {
                                if let Err(error) = served {
                                    debug!(%error, "a question through the socket came to nothing");
                                }
                            }
                        }
                    });
                }
                Err(error) => {
                    debug!(%error, "cannot accept at the socket now");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn serve(mut stream: UnixStream, host: &impl Host) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let uid = stream.peer_cred()?.uid();
    if !may_ask(uid, own) {
        warn!(uid, "another user was turned away at the socket");
        return Ok(());
    }
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    if !line.ends_with(b"\n") {
        return Err(io::Error::other("it did not end, or was too long"));
    }
    let end = match serde_json::from_slice::<Request>(&line) {
        Ok(request) if request.v == VERSION => {
            let (replies, mut lines) = mpsc::channel(QUEUE);
            let answering = host.answer(request, Replies(replies));
            tokio::pin!(answering);
            let mut life = interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
            let gone = until_closed(reader.into_inner().into_inner());
            tokio::pin!(gone);
            let end = loop {
                tokio::select! {
                    biased;
                    () = &mut gone => return Err(io::ErrorKind::ConnectionAborted.into()),
                    Some(line) = lines.recv() => write_line(&mut writer, &line).await?,
                    end = &mut answering => break end,
                    _ = life.tick() => write_line(&mut writer, &json!({"v": VERSION, "type": "wait"})).await?,
                }
            };
            while let Ok(line) = lines.try_recv() {
                write_line(&mut writer, &line).await?;
            }
            end
        }
        Ok(_) => End::failed(
            2,
            "this version of p2pfs is another one than the running one",
        ),
        Err(_) => End::failed(2, "this is no request"),
    };
    let last = Last {
        v: VERSION,
        kind: "end".to_owned(),
        end,
    };
    write_line(&mut writer, &serde_json::to_value(last)?).await
}

/// Whoever closes his end has gone; nothing else is expected of him.
async fn until_closed(mut reader: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = [0; 64];
    while reader.read(&mut rest).await.is_ok_and(|len| len > 0) {}
}

async fn write_line(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    line: &Value,
) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    timeout(PATIENCE, writer.write_all(&bytes)).await?
}

/// Our own user, and the one who may do everything anyway.
const fn may_ask(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

/// Is whoever listens there meant: our own user, or for root the owner of the directory?
const fn is_meant(uid: u32, own: u32, owner: u32) -> bool {
    uid == own || (own == 0 && uid == owner)
}

/// Asks whoever runs with `dir`; `heard` gets each line of the answer.
///
/// # Errors
/// When nobody runs there, or does not answer.
pub async fn ask(
    dir: &Path,
    request: &Request,
    mut heard: impl FnMut(Value),
) -> Result<End, AskError> {
    let mute = |reason: String| AskError::Mute {
        dir: dir.to_owned(),
        reason,
    };
    let stream = connect(dir)?;
    let own = rustix::process::geteuid().as_raw();
    let listening = stream
        .peer_cred()
        .map_err(|error| mute(error.to_string()))?;
    let owner = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(dir).map_err(|error| mute(error.to_string()))?,
    );
    if !is_meant(listening.uid(), own, owner) {
        return Err(AskError::Foreign(dir.to_owned()));
    }
    let (reader, mut writer) = stream.into_split();
    let question = serde_json::to_value(request).map_err(|error| mute(error.to_string()))?;
    // Whoever turns us away does so without reading; the answer tells.
    let _ = write_line(&mut writer, &question).await;
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(MAX_LINE);
        let read = timeout(ANSWER_TIME, limited.read_until(b'\n', &mut line)).await;
        match read {
            Err(_) => return Err(mute("it takes too long".to_owned())),
            Ok(Err(error)) => return Err(mute(error.to_string())),
            Ok(Ok(_)) if !line.ends_with(b"\n") => {
                return Err(mute("it ended the connection".to_owned()));
            }
            Ok(Ok(_)) => {}
        }
        let line: Value = serde_json::from_slice(&line).map_err(|error| mute(error.to_string()))?;
        if line["type"] == "end" {
            let last: Last =
                serde_json::from_value(line).map_err(|error| mute(error.to_string()))?;
            return Ok(last.end);
        }
        if line["type"] != "wait" {
            heard(line);
        }
    }
}

fn connect(dir: &Path) -> Result<UnixStream, AskError> {
    let connecting = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A queue that is full must not hold us up.
        socket.set_nonblocking(true)?;
        with_short_path(dir, |short| socket.connect(&SockAddr::unix(short)?))?;
        UnixStream::from_std(socket.into())
    };
    connecting().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::NotADirectory => AskError::Nobody(dir.to_owned()),
        io::ErrorKind::WouldBlock => AskError::Mute {
            dir: dir.to_owned(),
            reason: "too many ask at the same time".to_owned(),
        },
        _ => AskError::Io {
            path: dir.join(NAME),
            source,
        },
    })
}

/// Does `with` the socket's path; where the system does not take one so long, with another one for it.
fn with_short_path<T>(dir: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(NAME);
    if path.as_os_str().len() <= MAX_PATH {
        return with(&path);
    }
    let opened = openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&opened);
    with(
        &Path::new("/proc/self/fd")
            .join(number.to_string())
            .join(NAME),
    )
}

#[cfg(test)]
mod tests;
