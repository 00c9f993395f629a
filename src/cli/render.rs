//! Listings, progress and results to text, and to objects for scripts.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::peer::{Downloaded, Event, Progress, Shared};
use crate::wire::control::{Hit, Holder, PeerEntry, Publication};
use crate::wire::id::ContentId;
use crate::wire::text::{UserName, safe};

/// A size as people read it: `173.0 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Rows under a header, in columns; the last column is not padded.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |row: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (number, cell) in row.enumerate() {
            text.push_str(cell);
            if number + 1 < columns {
                text.extend(std::iter::repeat_n(' ', widths[number] - cell.width() + 3));
            }
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines.join("\n")
}

/// Hits of a search or a listing.
#[must_use]
pub fn hits(hits: &[Hit]) -> String {
    let rows: Vec<_> = hits
        .iter()
        .map(|hit| {
            vec![
                hit.file.name.to_string(),
                size(hit.file.len),
                hit.holders.to_string(),
                hit.file.content.short(),
                owners(hit),
            ]
        })
        .collect();
    table(&["NAME", "SIZE", "PEERS", "ID", "WHO"], &rows)
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
pub fn shares(shares: &[Shared]) -> String {
    let rows: Vec<_> = shares
        .iter()
        .map(|shared| {
            let path = safe(&shared.path.to_string_lossy());
            vec![
                shared.file.name.to_string(),
                size(shared.file.len),
                shared.file.content.short(),
                path,
            ]
        })
        .collect();
    table(&["NAME", "SIZE", "ID", "PATH"], &rows)
}

/// People who are here.
#[must_use]
pub fn peers(peers: &[PeerEntry]) -> String {
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
    table(&["USER", "FILES", "SINCE", "ADDRESS"], &rows)
}

/// Those who have a file.
#[must_use]
pub fn holders(holders: &[Holder]) -> String {
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
    table(&["USER", "ADDRESS", "KEY"], &rows)
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
    format!(
        "Sharing {}, {}, {}",
        shared.file.name,
        size(shared.file.len),
        shared.file.content.short()
    )
}

/// The closing line of a download.
#[must_use]
pub fn downloaded(done: &Downloaded) -> String {
    let rate = rate_of(done.file.len, done.elapsed);
    let sources = match done.sources {
        0 => "from this machine".to_owned(),
        1 => "from 1 peer".to_owned(),
        many => format!("from {many} peers"),
    };
    format!(
        "Download successful: {} as {}, {} in {:.1} s, {}/s, {sources}, verified",
        done.file.name,
        safe(&done.path.to_string_lossy()),
        size(done.file.len),
        done.elapsed.as_secs_f64(),
        size(rate),
    )
}

fn rate_of(bytes: u64, elapsed: Duration) -> u64 {
    let ms = elapsed.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / ms).unwrap_or(u64::MAX)
}

/// `↓ talk.mp4  41 %  118.0 MiB/s  00:12  3 peers`
#[must_use]
pub fn progress(progress: &Progress) -> String {
    let percent = percent(progress);
    let left = match progress
        .len
        .saturating_sub(progress.done)
        .checked_div(progress.rate)
    {
        Some(seconds) if progress.done < progress.len => {
            format!("  {:02}:{:02}", seconds / 60, seconds % 60)
        }
        _ => String::new(),
    };
    let peers = if progress.sources == 1 {
        "1 peer".to_owned()
    } else {
        format!("{} peers", progress.sources)
    };
    format!(
        "↓ {}  {percent} %  {}/s{left}  {peers}",
        progress.name,
        size(progress.rate)
    )
}

/// How much of a download is here, in percent.
#[must_use]
pub fn percent(progress: &Progress) -> u64 {
    if progress.len == 0 {
        return 100;
    }
    let percent = u128::from(progress.done) * 100 / u128::from(progress.len);
    u64::try_from(percent).unwrap_or(100)
}

/// Where progress cannot be redrawn: a line each 10 % or 10 s.
#[derive(Debug, Default)]
pub struct Milestones {
    last: Option<(ContentId, u64, Instant)>,
}

impl Milestones {
    /// Is it time for a line? The end has its own.
    pub fn is_next(&mut self, progress: &Progress) -> bool {
        let (tenth, now) = (percent(progress) / 10, Instant::now());
        let is_next = match self.last {
            Some((content, last, at)) if content == progress.content => {
                tenth > last || now.duration_since(at) >= Duration::from_secs(10)
            }
            _ => {
                self.last = Some((progress.content, tenth, now));
                false
            }
        };
        if is_next {
            self.last = Some((progress.content, tenth, now));
        }
        is_next && progress.done < progress.len
    }
}

/// An event as a line; `None` for what is shown in another way.
#[must_use]
pub fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::Progress(_) => return None,
        Event::TrackerLost { reason } => {
            format!("! the tracker is lost: {}; trying on", safe(reason))
        }
        Event::TrackerBack => "! the tracker is back".to_owned(),
        Event::Waiting { name, reason } => {
            format!("! {name}: waiting for a seeder ({})", safe(reason))
        }
        Event::SourceDropped { name, user, reason } => {
            format!("! {name}: {user} is put aside: {}", safe(reason))
        }
        Event::Withdrawn { name, reason } => {
            format!("! {name} is not shared any more: {}", safe(reason))
        }
        Event::Warning { text } => format!("! {}", safe(text)),
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

/// The object of a file.
#[must_use]
pub fn file_json(file: &Publication) -> Value {
    json!({
        "v": 1, "type": "file", "name": file.name.as_str(), "size": file.len,
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

/// The object of progress.
#[must_use]
pub fn progress_json(progress: &Progress) -> Value {
    json!({
        "v": 1, "type": "progress", "id": progress.content.to_string(), "name": progress.name.as_str(),
        "done": progress.done, "total": progress.len, "rate": progress.rate, "peers": progress.sources,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(name: &str) -> Hit {
        let file = Publication {
            name: name.parse().unwrap(),
            content: ContentId([0x9f; 32]),
            len: 181_403_648,
        };
        Hit {
            file,
            owners: vec!["hans".parse().unwrap(), "yoda".parse().unwrap()],
            holders: 3,
        }
    }

    #[test]
    fn a_search_reads_as_a_table() {
        let text = hits(&[hit("talk.mp4"), hit("名前.txt")]);
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
    fn hostile_names_stay_on_their_line() {
        let text = hits(&[hit("a\u{202e}gpj.exe")]);
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
        };
        assert_eq!(
            progress(&state),
            "↓ talk.mp4  41 %  118.0 MiB/s  00:00  3 peers"
        );
        (state.rate, state.sources) = (0, 1);
        assert_eq!(progress(&state), "↓ talk.mp4  41 %  0 B/s  1 peer");
        (state.done, state.len) = (0, 0);
        assert_eq!(percent(&state), 100);
    }
}
