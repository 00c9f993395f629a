//! Listings, results and events to text.
//!
//! A `width` is that of the terminal, in columns; without one nothing is cut.

mod objects;
mod progress;
mod talk;

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;

pub use self::objects::{
    downloaded_json, fetched_json, file_json, hit_json, peer_json, progress_json, sending_json,
    share_json, transfer_json,
};
use self::progress::percent_of;
pub use self::progress::{Milestones, hashing, percent, progress, progress_of_more};
pub use self::talk::{ago, rows, said, short_name, talk_began, talk_ended, ways};
use super::table::{Column, table};
use crate::peer::{
    Downloaded, Event, Listing, Readers, SendNews, Sending, Shared, State, Transfer,
};
use crate::wire::control::{Hit, Holder, PeerEntry, Publication, PublicationKind};
use crate::wire::text::{UserName, safe};

/// A size as people read it: `173.0 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// The size of a file; how large a folder is stands in its listing only. Here, and not in its name, stands that
/// a file is locked: names are others' to choose.
#[must_use]
pub fn size_of(file: &Publication) -> String {
    if file.kind.is_folder() {
        "folder".to_owned()
    } else {
        size(file.len) + lock_of(file)
    }
}

/// What is said behind the size of a locked file.
const fn lock_of(file: &Publication) -> &'static str {
    if file.kind.is_locked() {
        ", locked"
    } else {
        ""
    }
}

/// The short id of a file, or that it has none yet.
fn id_of(file: &Publication, is_long: bool) -> String {
    match (file.kind.is_hashed(), is_long) {
        (false, _) => "being hashed".to_owned(),
        (true, true) => file.content.to_string(),
        (true, false) => file.content.short(),
    }
}

/// How many hits of a search are not shown, as far as the tracker counted them.
#[must_use]
pub fn not_shown(listing: &Listing) -> Option<String> {
    let more = (listing.total as usize).saturating_sub(listing.hits.len());
    let count = match (more, listing.is_partial) {
        (0, false) => return None,
        (0, true) => "more".to_owned(),
        (more, false) => format!("{more} more"),
        (more, true) => format!("{more}+ more"),
    };
    Some(format!("… and {count}: refine, or give --limit"))
}

/// Whose files a listing shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's: each with how many have it.
    Everybody,
    /// One user's: the tracker counts nobody else there.
    One,
}

/// Hits of a search or a listing; when `is_long`, with whole ids and sizes in bytes.
#[must_use]
pub fn hits(hits: &[Hit], scope: Scope, is_long: bool, width: Option<usize>) -> String {
    let counts = scope == Scope::Everybody;
    let rows: Vec<_> = hits
        .iter()
        .map(|hit| {
            let size = match hit.file.kind {
                kind if is_long && kind.is_file() => hit.file.len.to_string() + lock_of(&hit.file),
                _ => size_of(&hit.file),
            };
            let holders = counts.then(|| hit.holders.to_string());
            [hit.file.shown_name(), size]
                .into_iter()
                .chain(holders)
                .chain([id_of(&hit.file, is_long), shown_owners(hit)])
                .collect()
        })
        .collect();
    // A name may mislead: who offers it, and above all its id, stay beside it as long as they can.
    let columns: Vec<_> = [Column::cut("NAME", 0), Column::whole("SIZE", 3)]
        .into_iter()
        .chain(counts.then(|| Column::whole("PEERS", 4)))
        .chain([Column::whole("ID", 1), Column::cut("WHO", 2)])
        .collect();
    table(&columns, &rows, width)
}

/// Who offers it.
#[must_use]
pub fn owners(hit: &Hit) -> String {
    let mut names: Vec<String> = hit.owners.iter().map(UserName::to_string).collect();
    let unnamed = (hit.holders as usize).saturating_sub(names.len());
    if unnamed > 0 {
        names.push(format!("and {unnamed} more"));
    }
    names.join(", ")
}

/// The same, with what is not for everybody told apart.
fn shown_owners(hit: &Hit) -> String {
    let owners = owners(hit);
    if hit.is_restricted {
        format!("{owners} (not for all)")
    } else {
        owners
    }
}

/// Whom a share is for: `everybody`, `ana, bob`.
fn readers(shared: &Shared) -> String {
    match shared.readers.names() {
        None => "everybody".to_owned(),
        Some(names) if names.is_empty() => "only you".to_owned(),
        Some(names) => {
            let names: Vec<_> = names.into_iter().map(UserName::to_string).collect();
            names.join(", ")
        }
    }
}

/// Own shares; when `is_long`, with whole ids and sizes in bytes.
#[must_use]
pub fn shares(shares: &[Shared], is_long: bool, width: Option<usize>) -> String {
    let is_open = |shared: &Shared| shared.readers == Readers::Everybody;
    let all_open = shares.iter().all(is_open);
    let rows: Vec<_> = shares
        .iter()
        .map(|shared| {
            let path = safe(&shared.path.to_string_lossy());
            let size = match shared.file.kind {
                PublicationKind::HashingFolder => "folder".to_owned(),
                _ if is_long => shared.contents.len.to_string() + lock_of(&shared.file),
                _ => size(shared.contents.len) + lock_of(&shared.file),
            };
            let readers = (!all_open).then(|| readers(shared));
            [shared.file.shown_name(), size]
                .into_iter()
                .chain(readers)
                .chain([id_of(&shared.file, is_long), path])
                .collect()
        })
        .collect();
    let columns: Vec<_> = [Column::cut("NAME", 0), Column::whole("SIZE", 3)]
        .into_iter()
        .chain((!all_open).then(|| Column::cut("FOR", 1)))
        .chain([Column::whole("ID", 2), Column::cut("PATH", 4)])
        .collect();
    table(&columns, &rows, width)
}

/// People who are here.
#[must_use]
pub fn peers(peers: &[PeerEntry], width: Option<usize>) -> String {
    let rows: Vec<_> = peers
        .iter()
        .map(|peer| {
            let since = Duration::from_secs(u64::from(peer.since_s));
            vec![
                peer.user.to_string(),
                peer.files.to_string(),
                span(since),
                first(&peer.addresses),
            ]
        })
        .collect();
    let columns = [
        Column::cut("USER", 0),
        Column::whole("FILES", 1),
        Column::whole("SINCE", 2),
        Column::cut("ADDRESS", 3),
    ];
    table(&columns, &rows, width)
}

/// Those who have a file.
#[must_use]
pub fn holders(holders: &[Holder], width: Option<usize>) -> String {
    let rows: Vec<_> = holders
        .iter()
        .map(|holder| {
            vec![
                holder.user.to_string(),
                first(&holder.addresses),
                holder.peer.fingerprint().brief().to_string(),
            ]
        })
        .collect();
    let columns = [
        Column::cut("USER", 0),
        Column::cut("ADDRESS", 1),
        Column::whole("KEY", 2),
    ];
    table(&columns, &rows, width)
}

/// Where somebody is most likely reached.
fn first(addresses: &[SocketAddr]) -> String {
    let first = addresses.first();
    first.map(ToString::to_string).unwrap_or_default()
}

/// Downloads that run, wait or are paused.
#[must_use]
pub fn transfers(transfers: &[Transfer], width: Option<usize>) -> String {
    let rows: Vec<_> = transfers
        .iter()
        .map(|transfer| {
            let percent = percent_of(transfer.done, transfer.len);
            // Until its listing is here, nobody knows how large a folder is.
            let size = if transfer.len == transfer.file.len {
                size_of(&transfer.file)
            } else {
                size(transfer.len)
            };
            vec![
                transfer.id.to_string(),
                transfer.file.shown_name(),
                format!("{percent} %"),
                size,
                doing(transfer),
            ]
        })
        .collect();
    let columns = [
        Column::whole("NO", 1),
        Column::cut("NAME", 0),
        Column::whole("DONE", 2),
        Column::whole("SIZE", 4),
        Column::cut("STATE", 3),
    ];
    table(&columns, &rows, width)
}

fn doing(transfer: &Transfer) -> String {
    match &transfer.state {
        State::Queued(0) => "next in line".to_owned(),
        State::Queued(before) => format!("in line, {before} before it"),
        State::Running if transfer.sources == 0 && transfer.rate > 0 => {
            format!("{}/s from this machine", size(transfer.rate))
        }
        State::Running if transfer.sources == 0 => "looking for peers".to_owned(),
        State::Running => format!(
            "{}/s from {}",
            size(transfer.rate),
            people(transfer.sources)
        ),
        State::Waiting(reason) => format!("waiting: {}", safe(reason)),
        State::Paused => "paused".to_owned(),
    }
}

fn people(count: usize) -> String {
    counted(count, "peer")
}

/// `1 file`, `2 files`
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A duration as people read it.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `Sharing report.pdf, 1.2 MiB, b3:9f2c41d0`
#[must_use]
pub fn sharing(shared: &Shared) -> String {
    match &shared.readers {
        Readers::Everybody => format!("Sharing {}", what(shared)),
        _ => format!("Sharing {}, only for {}", what(shared), readers(shared)),
    }
}

/// `report.pdf, 1.2 MiB, b3:9f2c41d0`; of a folder with the number of its files.
fn what(shared: &Shared) -> String {
    let (name, id) = (shared.file.shown_name(), shared.file.content.short());
    let size = size(shared.contents.len);
    if shared.file.kind.is_folder() {
        let files = counted(shared.contents.files, "file");
        format!("{name}, {files}, {size}, {id}")
    } else {
        format!("{name}, {size}{}, {id}", lock_of(&shared.file))
    }
}

/// How something goes on that is sent to one person.
fn sending_line(sending: &Sending, news: &SendNews) -> String {
    let Sending { id, user, name, .. } = sending;
    match news {
        SendNews::Offered => {
            let size = size(sending.len);
            format!("{name}, {size}, is offered to {user} (cancel s{id} takes it back)")
        }
        SendNews::Accepted => format!("{user} has accepted {name}"),
        SendNews::Percent(percent) => format!("{user} has {percent} % of {name}"),
        SendNews::Done => format!("{user} has all of {name}"),
        SendNews::OutOfReach => format!(
            "! nothing more is heard of {name}, which {user} fetches; it stays shared for {user} (remove ends that)"
        ),
        SendNews::Ended(error) => format!(
            "! {name} did not get to {user}: {}",
            safe(&error.to_string())
        ),
    }
}

/// What is being sent.
#[must_use]
pub fn sends(sends: &[Sending], width: Option<usize>) -> String {
    let rows: Vec<_> = sends
        .iter()
        .map(|sending| {
            let percent = sending.done.saturating_mul(100) / sending.len.max(1);
            let state = match (sending.content, sending.is_accepted) {
                (None, _) => "being hashed".to_owned(),
                (_, false) => "offered".to_owned(),
                (_, true) => format!("{percent} %"),
            };
            vec![
                format!("s{}", sending.id),
                sending.name.clone(),
                size(sending.len),
                state,
                sending.user.to_string(),
            ]
        })
        .collect();
    let columns = [
        Column::whole("NO", 0),
        Column::cut("NAME", 1),
        Column::whole("SIZE", 4),
        Column::whole("STATE", 2),
        Column::cut("TO", 3),
    ];
    table(&columns, &rows, width)
}

/// The closing line of a download.
#[must_use]
pub fn downloaded(done: &Downloaded) -> String {
    if let Some(id) = done.brought_by {
        let (name, path) = (done.file.shown_name(), done.path.to_string_lossy());
        return format!(
            "{name} is there: {}, as download {id} brought it",
            safe(&path)
        );
    }
    let rate = size(rate_of(done.fetched, done.elapsed));
    let mut sources = match done.sources {
        0 => "from this machine".to_owned(),
        many => format!("{rate}/s, from {}", people(many)),
    };
    let before = done.contents.len.saturating_sub(done.fetched);
    if done.sources > 0 && before > 0 {
        sources.push_str(&format!(", {} were here", size(before)));
    }
    let files = if done.file.kind.is_folder() {
        format!(", {}", counted(done.contents.files, "file"))
    } else {
        String::new()
    };
    format!(
        "Download successful: {} as {}{files}, {}{} in {:.1} s, {sources}, verified",
        done.file.shown_name(),
        safe(&done.path.to_string_lossy()),
        size(done.contents.len),
        lock_of(&done.file),
        done.elapsed.as_secs_f64(),
    )
}

fn rate_of(bytes: u64, elapsed: Duration) -> u64 {
    let ms = elapsed.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / ms).unwrap_or(u64::MAX)
}

/// An event as a line; `None` for what is shown in another way.
#[must_use]
pub fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::Progress(_)
        | Event::Hashing(_)
        | Event::Restored { shares: 0, .. }
        | Event::Fetched(_)
        | Event::Asked(_)
        | Event::Unasked(_)
        | Event::Said { .. }
        | Event::TalkBegan { .. }
        | Event::TalkEnded { .. }
        | Event::OtherKey { .. }
        | Event::WrongName { .. }
        | Event::Left => return None,
        Event::Changed { shared } => format!("! changed on disk, shared again: {}", what(shared)),
        Event::Restored { shares, read } => format!(
            "sharing what was shared before: {shares}; {} had to be read again",
            size(*read)
        ),
        Event::TakenUp { running, paused } => {
            let mut parts = Vec::new();
            if *running > 0 {
                parts.push(format!("going on with {} of before", downloads(*running)));
            }
            if *paused > 0 {
                let paused = downloads(*paused);
                parts.push(format!("{paused} of before paused: resume goes on"));
            }
            parts.join("; ")
        }
        Event::Joined {
            name,
            id,
            was_paused,
        } => {
            let resumed = if *was_paused {
                ", which goes on now"
            } else {
                ""
            };
            format!("! {name} is being downloaded already, as {id}{resumed}: nothing comes twice")
        }
        Event::TrackerLost { reason } => {
            format!("! the tracker is lost: {}; trying on", safe(reason))
        }
        Event::TrackerBack => "! the tracker is back".to_owned(),
        Event::NeighbourMet { user, .. } => format!("! {user} is here"),
        Event::NeighbourGone { user, has_left, .. } => match has_left {
            true => format!("! {user} has left"),
            false => format!("! {user} does not answer any more"),
        },
        Event::LoggedOut { reason } => format!("! {}", safe(reason)),
        Event::LoggedIn => "Logged in again".to_owned(),
        Event::Waiting { name, reason } => {
            format!("! {name}: waiting for a seeder ({})", safe(reason))
        }
        Event::Stuck { name, reason } => {
            format!(
                "! {name}: paused: {}; it goes on by itself when that is mended",
                safe(reason)
            )
        }
        Event::SourceLeft { user, .. } => format!("! {user} has left"),
        Event::SourceDropped {
            name, user, reason, ..
        } => {
            format!("! {name}: {user} is put aside: {}", safe(reason))
        }
        Event::Withdrawn { name, reason } => {
            format!("! {name} is not shared any more: {}", safe(reason))
        }
        Event::Sending { sending, news } => return Some(sending_line(sending, news)),
        Event::Receiving { user, name } => format!("Fetching {name}, which {user} sends you"),
        Event::Warning { text } => format!("! {}", safe(text)),
    })
}

fn downloads(count: usize) -> String {
    counted(count, "download")
}

#[cfg(test)]
mod tests;
