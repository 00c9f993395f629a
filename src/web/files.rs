//! What is shared here, over HTTP: the list of files, and the bytes of each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
    RANGE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::Shared;
use super::answer::Refusal;
use super::range::{Asked, asked};
use crate::peer::shares::Serving;
use crate::peer::unlock;
use crate::wire::control::Publication;
use crate::wire::text::FileName;

/// What is read at a time, in bytes.
const READ_LEN: u64 = 256 << 10;
/// So much is read ahead of what was sent.
const QUEUE: usize = 2;

/// `GET /list_files`: the names of all files that this peer shares.
pub async fn list(State(shared): State<Shared>) -> Json<Value> {
    let shares = shared.peer.shares().into_iter();
    let files = shares.filter(|share| share.file.kind.is_file());
    let mut names: Vec<_> = files.map(|share| share.file.name.to_string()).collect();
    names.dedup();
    Json(json!({"files": names}))
}

/// `GET /download/NAME`: a file that this peer shares, or a range of it.
///
/// # Errors
/// When there is none of this name, or it changed on disk.
pub async fn download(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(name) = name.map_err(|_| Refusal::nonsense("the name is not UTF-8 text"))?;
    let name: FileName = name
        .parse()
        .map_err(|error| Refusal::nonsense(format!("the name {error}")))?;
    let missing = || Refusal::new(StatusCode::NOT_FOUND, format!("{name} is not shared here"));
    let mut shares = shared.peer.shares().into_iter();
    let found = shares.find(|share| share.file.kind.is_file() && share.file.name == name);
    let file = found.ok_or_else(missing)?.file;
    let (peer, content) = (shared.peer.clone(), file.content);
    let opening = spawn_blocking(move || peer.open_share(&content));
    let serving = opening.await.ok().flatten().ok_or_else(missing)?;
    let etag = format!("\"{}\"", file.content);
    let fixed: [(HeaderName, String); 4] = [
        (ETAG, etag.clone()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, attachment(&file)),
    ];
    if names(&headers, &IF_NONE_MATCH, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, fixed).into_response());
    }
    // A part of another version than the one that was begun would be of no use.
    let is_same = !headers.contains_key(IF_RANGE) || names(&headers, &IF_RANGE, &etag);
    let range = headers.get(RANGE).filter(|_| is_same);
    let len = file.len;
    match asked(range.map(axum::http::HeaderValue::as_bytes), len) {
        Asked::All => Ok((fixed, read(serving, 0, len)).into_response()),
        Asked::Part(range) => {
            let part = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            let body = read(serving, range.start, range.end - range.start);
            let status = StatusCode::PARTIAL_CONTENT;
            Ok((status, fixed, [(CONTENT_RANGE, part)], body).into_response())
        }
        Asked::Beyond => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let line = format!("{name} has {len} bytes");
            let all = [(CONTENT_RANGE, format!("bytes */{len}"))];
            Ok((all, Refusal::new(status, line)).into_response())
        }
    }
}

/// Is this tag among those of the header?
fn names(headers: &HeaderMap, header: &HeaderName, etag: &str) -> bool {
    let values = headers.get_all(header).iter();
    let mut tags = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|tags| tags.split(','));
    tags.any(|tag| tag.trim() == etag || tag.trim() == "*")
}

/// To be kept, never to be shown: whatever is in it acts in no page.
fn attachment(file: &Publication) -> String {
    let ending = if file.kind.is_locked() {
        unlock::SUFFIX
    } else {
        ""
    };
    let name = format!("{}{ending}", file.name);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_. ".contains(c);
    let plain: String = name
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    let mut exact = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            exact.push(char::from(byte));
        } else {
            exact.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

/// `len` bytes of a share from `offset` on, read as they are taken.
fn read(serving: Serving, offset: u64, len: u64) -> Body {
    let (sender, parts) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let serving = Arc::new(serving);
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let part_len = READ_LEN.min(end - at);
            let (serving, from) = (Arc::clone(&serving), at);
            let reading = spawn_blocking(move || {
                let mut bytes = vec![0; usize::try_from(part_len).unwrap_or(0)];
                let read = serving
                    .check()
                    .and_then(|()| serving.read_at(&mut bytes, from));
                read.map(|()| Bytes::from(bytes)).map_err(io::Error::other)
            });
            let part = reading
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)));
            let is_over = part.is_err();
            if sender.send(part).await.is_err() || is_over {
                return;
            }
            at += part_len;
        }
    });
    Body::new(Reading { parts, left: len })
}

/// A body of known length. It breaks off when the file changes: whoever reads sees that it is too short.
struct Reading {
    parts: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl hyper::body::Body for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let part = ready!(self.parts.poll_recv(context));
        Poll::Ready(part.map(|part| {
            let bytes = part?;
            self.left = self.left.saturating_sub(bytes.len() as u64);
            Ok(Frame::data(bytes))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::PublicationKind;
    use crate::wire::id::ContentId;

    #[test]
    fn whatever_a_name_holds_it_stays_inside_its_header() {
        for (name, header) in [
            (
                "a b.txt",
                "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt",
            ),
            (
                "\"é\";x",
                "attachment; filename=\"____x\"; filename*=UTF-8''%22%C3%A9%22%3Bx",
            ),
        ] {
            let file = Publication {
                name: name.parse().unwrap(),
                content: ContentId([1; 32]),
                len: 1,
                kind: PublicationKind::File,
            };
            assert_eq!(attachment(&file), header);
        }
    }
}
