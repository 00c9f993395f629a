//! Listings, progress and results to text, and to objects for scripts.
//!
//! A `width` is that of the terminal, in columns; without one nothing is cut.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use super::table::{Column, cut, table};
use crate::peer::{Downloaded, Event, Hashing, Listing, Progress, Shared, State, Transfer};
use crate::wire::control::{Hit, Holder, PeerEntry, Publication, PublicationKind};
use crate::wire::text::{UserName, safe};

/// Fewest columns to which the name in a line of progress is cut while facts could go instead.
const MIN_NAME: usize = 8;

/// A size as people read it: `173.0 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// The size of a file; how large a folder is stands in its listing only.
#[must_use]
pub fn size_of(file: &Publication) -> String {
    match file.kind {
        PublicationKind::File => size(file.len),
        PublicationKind::Folder => "folder".to_owned(),
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

/// Hits of a search or a listing.
#[must_use]
pub fn hits(hits: &[Hit], width: Option<usize>) -> String {
    let rows: Vec<_> = hits
        .iter()
        .map(|hit| {
            vec![
                hit.file.shown_name(),
                size_of(&hit.file),
                hit.holders.to_string(),
                hit.file.content.short(),
                owners(hit),
            ]
        })
        .collect();
    // A name may mislead: who offers it, and above all its id, stay beside it as long as they can.
    let columns = [
        Column::cut("NAME", 0),
        Column::whole("SIZE", 3),
        Column::whole("PEERS", 4),
        Column::whole("ID", 1),
        Column::cut("WHO", 2),
    ];
    table(&columns, &rows, width)
}

fn owners(hit: &Hit) -> String {
    let mut names: Vec<String> = hit.owners.iter().map(UserName::to_string).collect();
    let unnamed = (hit.holders as usize).saturating_sub(names.len());
    if unnamed > 0 {
        names.push(format!("and {unnamed} more"));
    }
    names.join(", ")
}

/// Own shares.
#[must_use]
pub fn shares(shares: &[Shared], width: Option<usize>) -> String {
    let rows: Vec<_> = shares
        .iter()
        .map(|shared| {
            let path = safe(&shared.path.to_string_lossy());
            vec![
                shared.file.shown_name(),
                size(shared.contents.len),
                shared.file.content.short(),
                path,
            ]
        })
        .collect();
    let columns = [
        Column::cut("NAME", 0),
        Column::whole("SIZE", 2),
        Column::whole("ID", 1),
        Column::cut("PATH", 3),
    ];
    table(&columns, &rows, width)
}

/// People who are here.
#[must_use]
pub fn peers(peers: &[PeerEntry], width: Option<usize>) -> String {
    let rows: Vec<_> = peers
        .iter()
        .map(|peer| {
            let address = peer
                .addresses
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            let since = Duration::from_secs(u64::from(peer.since_s));
            vec![
                peer.user.to_string(),
                peer.files.to_string(),
                span(since),
                address,
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
            let address = holder
                .addresses
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            vec![
                holder.user.to_string(),
                address,
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
    if count == 1 {
        "1 peer".to_owned()
    } else {
        format!("{count} peers")
    }
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
    format!("Sharing {}", what(shared))
}

/// `report.pdf, 1.2 MiB, b3:9f2c41d0`; of a folder with the number of its files.
fn what(shared: &Shared) -> String {
    let (name, id) = (shared.file.shown_name(), shared.file.content.short());
    let size = size(shared.contents.len);
    match (shared.file.kind, shared.contents.files) {
        (PublicationKind::File, _) => format!("{name}, {size}, {id}"),
        (PublicationKind::Folder, 1) => format!("{name}, 1 file, {size}, {id}"),
        (PublicationKind::Folder, files) => format!("{name}, {files} files, {size}, {id}"),
    }
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
    let files = match done.file.kind {
        PublicationKind::File => String::new(),
        PublicationKind::Folder => format!(", {} files", done.contents.files),
    };
    format!(
        "Download successful: {} as {}{files}, {} in {:.1} s, {sources}, verified",
        done.file.shown_name(),
        safe(&done.path.to_string_lossy()),
        size(done.contents.len),
        done.elapsed.as_secs_f64(),
    )
}

fn rate_of(bytes: u64, elapsed: Duration) -> u64 {
    let ms = elapsed.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / ms).unwrap_or(u64::MAX)
}

/// `↓ talk.mp4  41 %  118.0 MiB/s  00:12  3 peers`; where that is too wide, the name is cut and facts go.
#[must_use]
pub fn progress(progress: &Progress, width: Option<usize>) -> String {
    let mut facts = facts(progress.done, progress.len, progress.rate);
    if progress.rate == 0 && progress.sources == 0 && progress.done >= progress.len {
        facts.truncate(1);
    }
    match progress.sources {
        0 if progress.rate > 0 => facts.push("  from this machine".to_owned()),
        0 if progress.done >= progress.len => {}
        sources => facts.push(format!("  {}", people(sources))),
    }
    if progress.is_slow {
        // Said before anything else gives way to it.
        facts.insert(1, "  slow source".to_owned());
    }
    with_facts(&progress.name.to_string(), facts, width)
}

/// `↓ 3 more files  41 %  118.0 MiB/s  00:12`: downloads that have no line of their own.
#[must_use]
pub fn progress_of_more(
    count: usize,
    (done, len): (u64, u64),
    rate: u64,
    width: Option<usize>,
) -> String {
    with_facts(
        &format!("{count} more files"),
        facts(done, len, rate),
        width,
    )
}

fn facts(done: u64, len: u64, rate: u64) -> Vec<String> {
    let mut facts = vec![
        format!("  {} %", percent_of(done, len)),
        format!("  {}/s", size(rate)),
    ];
    let left = len.saturating_sub(done);
    if let Some(seconds) = left.checked_div(rate).filter(|_| left > 0) {
        facts.push(format!("  {:02}:{:02}", seconds / 60, seconds % 60));
    }
    facts
}

fn with_facts(name: &str, mut facts: Vec<String>, width: Option<usize>) -> String {
    let Some(width) = width else {
        return format!("↓ {name}{}", facts.concat());
    };
    let room = |facts: &[String]| width.saturating_sub("↓ ".width() + facts.concat().width());
    while facts.len() > 1 && room(&facts) < name.width().min(MIN_NAME) {
        facts.pop();
    }
    let line = format!("↓ {}{}", cut(name, room(&facts)), facts.concat());
    cut(&line, width)
}

/// How much of a download is here, in percent.
#[must_use]
pub fn percent(progress: &Progress) -> u64 {
    percent_of(progress.done, progress.len)
}

fn percent_of(done: u64, len: u64) -> u64 {
    if len == 0 {
        return 100;
    }
    let percent = u128::from(done) * 100 / u128::from(len);
    u64::try_from(percent).unwrap_or(100)
}

/// `# talks  41 %  of 118.0 GiB read`
#[must_use]
pub fn hashing(hashing: &Hashing) -> String {
    let name = hashing.path.file_name().unwrap_or(hashing.path.as_os_str());
    let percent = percent_of(hashing.done, hashing.len);
    format!(
        "# {}  {percent} %  of {} read",
        safe(&name.to_string_lossy()),
        size(hashing.len)
    )
}

/// Where progress cannot be redrawn: a line each 10 % or 10 s, of each download.
#[derive(Debug, Default)]
pub struct Milestones {
    last: HashMap<String, (u64, Instant)>,
}

impl Milestones {
    /// Is it time for a line? The end has its own.
    pub fn is_next(&mut self, progress: &Progress) -> bool {
        let key = progress.content.to_hex();
        if progress.done >= progress.len {
            self.last.remove(&key);
            return false;
        }
        self.is_next_of(key, percent(progress))
    }

    /// The same for a hashing.
    pub fn is_next_hashed(&mut self, hashing: &Hashing) -> bool {
        let key = hashing.path.to_string_lossy().into_owned();
        self.is_next_of(key, percent_of(hashing.done, hashing.len))
    }

    fn is_next_of(&mut self, key: String, percent: u64) -> bool {
        let (tenth, now) = (percent / 10, Instant::now());
        let (last, at) = self.last.entry(key).or_insert((tenth, now));
        let is_next = tenth > *last || now.duration_since(*at) >= Duration::from_secs(10);
        if is_next {
            (*last, *at) = (tenth, now);
        }
        is_next
    }
}

/// An event as a line; `None` for what is shown in another way.
#[must_use]
pub fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::Progress(_)
        | Event::Hashing(_)
        | Event::Restored { shares: 0, .. }
        | Event::Fetched(_)
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
        Event::SourceLeft { name, user } => format!("! {name}: {user} has left"),
        Event::SourceDropped { name, user, reason } => {
            format!("! {name}: {user} is put aside: {}", safe(reason))
        }
        Event::Withdrawn { name, reason } => {
            format!("! {name} is not shared any more: {}", safe(reason))
        }
        Event::Warning { text } => format!("! {}", safe(text)),
    })
}

fn downloads(count: usize) -> String {
    if count == 1 {
        "1 download".to_owned()
    } else {
        format!("{count} downloads")
    }
}

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
    object
}

/// The object of an own share.
#[must_use]
pub fn share_json(shared: &Shared) -> Value {
    let mut object = file_json(&shared.file);
    object["files"] = json!(shared.contents.files);
    object["total"] = json!(shared.contents.len);
    object
}

/// The object of a file or folder; the size is that of its content, which of a folder is the listing.
#[must_use]
pub fn file_json(file: &Publication) -> Value {
    let kind = match file.kind {
        PublicationKind::File => "file",
        PublicationKind::Folder => "folder",
    };
    json!({
        "v": 1, "type": "file", "kind": kind, "name": file.name.as_str(), "size": file.len,
        "id": file.content.to_string(), "locked": false,
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

/// The object of progress.
#[must_use]
pub fn progress_json(progress: &Progress) -> Value {
    json!({
        "v": 1, "type": "progress", "id": progress.content.to_string(), "name": progress.name.as_str(),
        "done": progress.done, "total": progress.len, "rate": progress.rate, "peers": progress.sources,
        "slow": progress.is_slow,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::id::ContentId;

    fn hit(name: &str) -> Hit {
        let file = Publication {
            name: name.parse().unwrap(),
            content: ContentId([0x9f; 32]),
            len: 181_403_648,
            kind: PublicationKind::File,
        };
        Hit {
            file,
            owners: vec!["hans".parse().unwrap(), "yoda".parse().unwrap()],
            holders: 3,
        }
    }

    #[test]
    fn a_folder_is_as_large_as_its_files_once_its_listing_is_here() {
        let mut file = hit("talks").file;
        (file.kind, file.len) = (PublicationKind::Folder, 395);
        let mut transfer = Transfer {
            id: 4,
            state: State::Paused,
            done: 0,
            len: file.len,
            rate: 0,
            sources: 0,
            file,
            is_slow: false,
        };
        let row = |transfer: &Transfer| {
            let shown = transfers(std::slice::from_ref(transfer), None);
            shown.lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(row(&transfer), "4    talks/   0 %    folder   paused");
        (transfer.done, transfer.len) = (30 << 20, 60 << 20);
        assert_eq!(row(&transfer), "4    talks/   50 %   60.0 MiB   paused");
        assert_eq!(transfer_json(&transfer)["total"], 60 << 20);
    }

    #[test]
    fn a_search_reads_as_a_table() {
        let text = hits(&[hit("talk.mp4"), hit("名前.txt")], None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "NAME       SIZE        PEERS   ID            WHO");
        assert_eq!(
            lines[1],
            "talk.mp4   173.0 MiB   3       b3:9f9f9f9f   hans, yoda, and 1 more"
        );
        assert_eq!(
            lines[2],
            "名前.txt   173.0 MiB   3       b3:9f9f9f9f   hans, yoda, and 1 more"
        );
    }

    #[test]
    fn what_is_not_shown_is_told_as_far_as_it_was_counted() {
        let line = |total, is_partial| {
            let hits = vec![hit("talk.mp4")];
            not_shown(&Listing {
                hits,
                total,
                is_partial,
            })
        };
        let told = |count: &str| Some(format!("… and {count}: refine, or give --limit"));
        assert_eq!(line(1, false), None);
        assert_eq!(line(38, false), told("37 more"));
        assert_eq!(line(1000, true), told("999+ more"));
        assert_eq!(line(1, true), told("more"));
    }

    #[test]
    fn in_20_columns_a_name_and_its_id_remain() {
        let text = hits(
            &[hit("a talk of many words.mp4"), hit("名前.txt")],
            Some(20),
        );
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "NAME     ID");
        assert_eq!(lines[1], "a t….mp4 b3:9f9f9f9f");
        assert_eq!(lines[2], "名前.txt b3:9f9f9f9f");
    }

    #[test]
    fn a_folder_shows_as_one() {
        let mut folder = hit("talks");
        folder.file.kind = PublicationKind::Folder;
        let text = hits(&[folder.clone()], None);
        assert!(text.contains("\ntalks/ "), "{text}");
        assert_eq!(file_json(&folder.file)["kind"], "folder");
        assert_eq!(file_json(&folder.file)["name"], "talks");
        assert_eq!(file_json(&hit("x").file)["kind"], "file");
    }

    #[test]
    fn hostile_names_stay_on_their_line() {
        let text = hits(&[hit("a\u{202e}gpj.exe")], None);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("a\\u{202e}gpj.exe"));
        let warning = event(&Event::Warning {
            text: "a\x1b[2J\nb".into(),
        })
        .unwrap();
        assert_eq!(warning, "! a\\u{1b}[2J\\nb");
    }

    #[test]
    fn progress_is_one_short_line() {
        let mut state = Progress {
            content: ContentId([1; 32]),
            name: "talk.mp4".parse().unwrap(),
            done: 41 << 20,
            len: 100 << 20,
            rate: 118 << 20,
            sources: 3,
            is_slow: false,
        };
        assert_eq!(
            progress(&state, None),
            "↓ talk.mp4  41 %  118.0 MiB/s  00:00  3 peers"
        );
        for (width, line) in [
            (46, "↓ talk.mp4  41 %  118.0 MiB/s  00:00  3 peers"),
            (44, "↓ talk.mp4  41 %  118.0 MiB/s  00:00"),
            (19, "↓ talk.mp4  41 %"),
            (12, "↓ t…p4  41 %"),
            (5, "↓ … %"),
        ] {
            assert_eq!(progress(&state, Some(width)), line);
        }
        (state.rate, state.sources) = (0, 1);
        assert_eq!(progress(&state, None), "↓ talk.mp4  41 %  0 B/s  1 peer");
        state.is_slow = true;
        assert_eq!(
            progress(&state, None),
            "↓ talk.mp4  41 %  slow source  0 B/s  1 peer"
        );
        assert_eq!(progress_json(&state)["slow"], true);
        (state.done, state.len) = (0, 0);
        assert_eq!(percent(&state), 100);
    }
}
