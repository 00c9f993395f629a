//! Takes files in over HTTP: streamed to the disk, shared when all of it is there, gone when it is cut off.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::multipart::Field;
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::{BoxError, Json};
use hyper::body::{Frame, SizeHint};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Sleep, sleep};

use super::Shared;
use super::answer::Refusal;
use crate::disk::{self, Nameless};
use crate::peer::ShareError;
use crate::peer::name::safe_file_name;
use crate::peer::readers::Readers;
use crate::peer::store::check_space;

/// The next bytes come within this time.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Bytes between two things that are of any use: heads of parts, and fields that are no files.
const MAX_BETWEEN: usize = 1 << 20;
/// Parts of a form.
const MAX_PARTS: usize = 64;
/// Parts of a file that wait for the disk.
const QUEUE: usize = 16;

/// `POST /upload`: the first file of a form is kept, and shared.
///
/// # Errors
/// When there is none, its name is taken, there is no room, or it does not come to its end.
pub async fn upload(
    State(shared): State<Shared>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let said = request.headers().get(CONTENT_LENGTH);
    let len = said
        .and_then(|len| len.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let dir = shared.uploads.clone();
    let checking = spawn_blocking(move || check_space(&dir, len));
    if let Ok(Err(error)) = checking.await {
        return Err(Refusal::new(StatusCode::INSUFFICIENT_STORAGE, error.reason));
    }
    let between = Arc::new(AtomicUsize::new(0));
    let request = request.map(|body| Body::new(Measured::new(body, Arc::clone(&between))));
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|_| Refusal::nonsense("send it as multipart/form-data"))?;
    for _ in 0..MAX_PARTS {
        between.store(0, Ordering::Relaxed);
        let field = form.next_field().await.map_err(|_| broken())?;
        let Some(field) = field else {
            return Err(Refusal::nonsense("there is no file in it"));
        };
        let Some(name) = field.file_name().filter(|name| !name.is_empty()) else {
            continue;
        };
        let name = safe_file_name("", name, 1);
        let path = keep(field, shared.uploads.clone(), name, &between).await?;
        // When the tracker does not answer now, it is announced later.
        match shared.peer.share(&path, None, Readers::Everybody).await {
            Err(ShareError::Local { reason, .. }) => {
                let line = format!("it is here, and cannot be shared: {reason}");
                return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, line));
            }
            Ok(_) | Err(ShareError::Request(_)) => {}
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let message = "File uploaded successfully";
        return Ok(Json(json!({"message": message, "filename": name})));
    }
    Err(Refusal::nonsense("there are too many parts in it"))
}

fn broken() -> Refusal {
    Refusal::nonsense("the upload broke off, or came too slowly")
}

/// What goes to the disk.
enum Part {
    Bytes(Bytes),
    /// All of it is there.
    End,
}

/// Writes a file to the disk; it has a name when all of it is there.
async fn keep(
    mut field: Field<'_>,
    dir: PathBuf,
    name: String,
    between: &AtomicUsize,
) -> Result<PathBuf, Refusal> {
    let (parts, written) = mpsc::channel(QUEUE);
    let writing = spawn_blocking(move || write(&dir, &name, written));
    loop {
        between.store(0, Ordering::Relaxed);
        // Dropping the sender without an end lets go of what came.
        let part = match field.chunk().await.map_err(|_| broken())? {
            Some(bytes) => Part::Bytes(bytes),
            None => Part::End,
        };
        let is_end = matches!(part, Part::End);
        // Who cannot write says why below.
        if parts.send(part).await.is_err() || is_end {
            break;
        }
    }
    drop(parts);
    let failed = |error: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    let written = writing.await.map_err(|error| failed(error.to_string()))?;
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let line = "a file of this name is here already; nothing was changed";
            Refusal::new(StatusCode::CONFLICT, line)
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "there is no room for it")
        }
        io::ErrorKind::UnexpectedEof => broken(),
        _ => failed(format!("it cannot be written: {error}")),
    })
}

fn write(dir: &Path, name: &str, mut parts: mpsc::Receiver<Part>) -> io::Result<PathBuf> {
    let path = dir.join(name);
    // Before all of it has come for nothing; the call that names it decides.
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut new = Nameless::create(dir)?;
    loop {
        match parts.blocking_recv() {
            Some(Part::Bytes(bytes)) => new.file().write_all(&bytes)?,
            Some(Part::End) => break,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    disk::make_public(new.file(), 0o666);
    new.file().sync_all()?;
    new.name(&path)?;
    disk::sync_dir(dir)?;
    Ok(path)
}

/// A body that comes in small parts and without long pauses, and whose reader tells when something came of it:
/// the reader of forms keeps all that is ready until it finds the end of a head.
struct Measured {
    body: Body,
    between: Arc<AtomicUsize>,
    until: Pin<Box<Sleep>>,
    has_rested: bool,
}

impl Measured {
    fn new(body: Body, between: Arc<AtomicUsize>) -> Self {
        Self {
            body,
            between,
            until: Box::pin(sleep(BODY_TIME)),
            has_rested: true,
        }
    }
}

impl hyper::body::Body for Measured {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let own = self.get_mut();
        if !own.has_rested {
            own.has_rested = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut own.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                own.has_rested = false;
                own.until.as_mut().reset(Instant::now() + BODY_TIME);
                let len = frame.data_ref().map_or(0, Bytes::len);
                if own.between.fetch_add(len, Ordering::Relaxed) + len > MAX_BETWEEN {
                    return Poll::Ready(Some(Err("too much that is no file".into())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match own.until.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err("too slow".into()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
