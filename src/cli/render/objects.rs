//! Listings, results and progress to objects, for scripts.

use serde_json::{Value, json};

use crate::peer::{Downloaded, Progress, Sending, Shared, State, Transfer};
use crate::wire::control::{Hit, PeerEntry, Publication};
use crate::wire::text::UserName;

/// What is told of a finished download, as part of a result.
#[must_use]
pub fn downloaded_json(done: &Downloaded, sha256: Option<String>) -> Value {
    json!({
        "name": done.file.name.as_str(), "path": done.path.to_string_lossy(),
        "id": done.file.content.to_string(), "sha256": sha256, "size": done.contents.len,
        "files": done.contents.files, "seconds": done.elapsed.as_secs_f64(), "peers": done.sources,
    })
}

/// The object of downloads that are done.
#[must_use]
pub fn fetched_json(files: &[Value]) -> Value {
    json!({
        "v": 1, "type": "result", "command": "get", "ok": true, "files": files,
    })
}

/// The object of a hit.
#[must_use]
pub fn hit_json(hit: &Hit) -> Value {
    let owners: Vec<_> = hit.owners.iter().map(UserName::as_str).collect();
    let mut object = file_json(&hit.file);
    object["peers"] = json!(owners);
    object["holders"] = json!(hit.holders);
    object["restricted"] = json!(hit.is_restricted);
    object
}

/// The object of an own share.
#[must_use]
pub fn share_json(shared: &Shared) -> Value {
    let mut object = file_json(&shared.file);
    object["files"] = json!(shared.contents.files);
    object["total"] = json!(shared.contents.len);
    let names = shared.readers.names();
    object["for"] =
        json!(names.map(|names| names.into_iter().map(UserName::as_str).collect::<Vec<_>>()));
    object
}

/// The object of a file or folder; the size is that of its content, which of a folder is the listing.
#[must_use]
pub fn file_json(file: &Publication) -> Value {
    let kind = if file.kind.is_folder() {
        "folder"
    } else {
        "file"
    };
    let is_hashed = file.kind.is_hashed();
    let id = is_hashed.then(|| file.content.to_string());
    // What a folder's listing takes is known when it is made.
    let size = (is_hashed || !file.kind.is_folder()).then_some(file.len);
    json!({
        "v": 1, "type": "file", "kind": kind, "name": file.name.as_str(), "size": size,
        "id": id, "hashing": !is_hashed, "locked": file.kind.is_locked(),
    })
}

/// The object of a person.
#[must_use]
pub fn peer_json(peer: &PeerEntry) -> Value {
    json!({
        "v": 1, "type": "peer", "user": peer.user.as_str(), "files": peer.files,
        "since_s": peer.since_s, "addresses": peer.addresses, "key": peer.peer.fingerprint().to_string(),
    })
}

/// The object of a download.
#[must_use]
pub fn transfer_json(transfer: &Transfer) -> Value {
    let (state, reason) = match &transfer.state {
        State::Queued(_) => ("queued", None),
        State::Running => ("running", None),
        State::Waiting(reason) => ("waiting", Some(reason)),
        State::Paused => ("paused", None),
    };
    json!({
        "v": 1, "type": "transfer", "no": transfer.id, "name": transfer.file.name.as_str(),
        "id": transfer.file.content.to_string(), "state": state, "reason": reason,
        "done": transfer.done, "total": transfer.len, "rate": transfer.rate,
        "peers": transfer.sources,
    })
}

/// The object of something that is sent to one person.
#[must_use]
pub fn sending_json(sending: &Sending) -> Value {
    let state = match (sending.content, sending.is_accepted) {
        (None, _) => "hashing",
        (_, false) => "offered",
        (_, true) => "accepted",
    };
    json!({
        "v": 1, "type": "sending", "no": format!("s{}", sending.id), "user": sending.user.as_str(),
        "name": sending.name, "id": sending.content.map(|id| id.to_string()), "state": state,
        "done": sending.done, "total": sending.len,
    })
}

/// The object of progress.
#[must_use]
pub fn progress_json(progress: &Progress) -> Value {
    json!({
        "v": 1, "type": "progress", "id": progress.content.to_string(), "name": progress.name.as_str(),
        "done": progress.done, "total": progress.len, "rate": progress.rate, "peers": progress.sources,
        "slow": progress.is_slow,
    })
}
