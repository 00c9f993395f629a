//! `p2pfs status`: what runs with this state directory, asked through its socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::args::Global;
use super::exit::{Class, Failure};
use super::render;
use super::screen::Screen;
use super::setup;
use crate::ipc::{self, AskError, End, Host, Replies, Request};
use crate::peer::{Event, Peer, State};
use crate::tracker::Tracker;
use crate::tracker::labels::{Dropped, Shaken};
use crate::tracker::metrics::Metrics;
use crate::wire::text::safe;

/// The command that asks for it.
pub const COMMAND: &str = "status";

/// Answers for a tracker.
pub struct TrackerHost {
    metrics: Arc<Metrics>,
    since: Timestamp,
    /// What does not change.
    fixed: Value,
}

impl TrackerHost {
    /// For `tracker`, which starts now.
    #[must_use]
    pub fn new(tracker: &Tracker, network: &str) -> Self {
        let addresses = tracker.addresses();
        Self {
            metrics: Arc::clone(tracker.metrics()),
            since: Timestamp::now(),
            fixed: json!({
                "addresses": addresses, "port": tracker.port(), "network": network,
                "key": tracker.id().fingerprint().to_string(), "metrics": tracker.metrics_address(),
            }),
        }
    }

    fn object(&self) -> Value {
        let (now, numbers) = (Instant::now(), self.metrics.numbers());
        let drops = Dropped::ALL
            .map(Dropped::label)
            .into_iter()
            .zip(numbers.drops);
        let drops: Map<_, _> = drops
            .map(|(why, count)| (why.to_owned(), count.into()))
            .collect();
        let fixed = &self.fixed;
        json!({
            "v": 1, "type": "status", "role": "tracker", "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"), "since": self.since.to_string(),
            "uptime_s": self.metrics.uptime(now).as_secs(), "addresses": fixed["addresses"],
            "port": fixed["port"], "network": fixed["network"], "key": fixed["key"],
            "metrics": fixed["metrics"], "peers": numbers.peers, "files": numbers.files,
            "names": numbers.names, "requests": numbers.all_requests(),
            "requests_per_s": self.metrics.requests_per_second(now), "drops": drops,
            "wrong_passphrases": self.metrics.handshakes(Shaken::WrongPassphrase),
        })
    }
}

impl Host for TrackerHost {
    async fn answer(&self, request: Request, replies: Replies) -> End {
        if request.command != COMMAND {
            return unknown(&request.command);
        }
        replies.send(self.object()).await;
        End::OK
    }
}

/// What answers a command that there is not.
#[must_use]
pub fn unknown(command: &str) -> End {
    let message = format!("\"{command}\" is not known to what runs");
    End::failed(Class::Usage.code(), message)
}

/// Whether a peer has its tracker, and since when.
#[derive(Debug)]
pub struct Presence(Mutex<(bool, Timestamp)>);

impl Default for Presence {
    fn default() -> Self {
        Self(Mutex::new((true, Timestamp::now())))
    }
}

impl Presence {
    /// Follows what the peer tells.
    pub fn hear(&self, event: &Event) {
        let is_joined = match event {
            Event::TrackerLost { .. } => false,
            Event::TrackerBack => true,
            _ => return,
        };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 != is_joined {
            *state = (is_joined, Timestamp::now());
        }
    }

    fn now(&self) -> (bool, Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a peer is.
#[must_use]
pub fn of_peer(peer: &Peer, presence: &Presence, since: Timestamp) -> Value {
    let (is_joined, joined_since) = presence.now();
    let moved = peer.moved();
    let transfers = peer.transfers();
    let running = transfers
        .iter()
        .filter(|transfer| transfer.state == State::Running);
    let uptime = Timestamp::now().duration_since(since).as_secs();
    let tracker = peer.tracker();
    json!({
        "v": 1, "type": "status", "role": "peer", "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"), "since": since.to_string(), "uptime_s": uptime,
        "user": peer.user().as_str(), "key": peer.id().fingerprint().to_string(), "port": peer.port(),
        "tracker": tracker.map(|_| peer.tracker_address()),
        "tracker_key": tracker.map(|(_, key)| key.fingerprint().to_string()),
        "neighbours": peer.is_alone().then(|| peer.neighbour_count()),
        "joined": is_joined, "joined_since": joined_since.to_string(), "shares": peer.shares().len(),
        "transfers": transfers.len(), "running": running.count(), "up": moved.up, "down": moved.down,
    })
}

/// Asks tracker and peer of this state directory, and shows those that run.
///
/// # Errors
/// When neither runs, or one does not answer.
pub async fn run(global: &Global, screen: &Screen) -> Result<(), Failure> {
    let mut dirs = Vec::new();
    let mut shown = 0;
    for role in ["tracker", "peer"] {
        let Some(dir) = setup::state_dir(global, role) else {
            continue;
        };
        let mut lines = Vec::new();
        match ipc::ask(&dir, &Request::new(COMMAND), |line| lines.push(line)).await {
            Ok(End { code: 0, .. }) => {}
            Ok(End { message, .. }) => {
                let message = message.unwrap_or_else(|| format!("the {role} does not tell"));
                return Err(Failure::new(Class::Failed, message));
            }
            Err(AskError::Nobody(dir)) => {
                dirs.push(dir);
                continue;
            }
            Err(error) => return Err(Failure::from(error)),
        }
        for line in lines {
            if shown > 0 {
                screen.text("")?;
            }
            shown += 1;
            screen.text(&describe(&line))?;
            screen.object(&line)?;
        }
    }
    if shown > 0 {
        return Ok(());
    }
    let dirs: Vec<_> = dirs
        .iter()
        .filter_map(|dir: &PathBuf| dir.parent())
        .collect();
    let failure = match dirs.first() {
        Some(root) => Failure::new(
            Class::NotFound,
            format!("neither a tracker nor a peer runs with {}", root.display()),
        ),
        None => Failure::new(Class::NotFound, "there is no state directory"),
    };
    Err(failure.hint("start one with p2pfs tracker or p2pfs peer, or give its --state-dir"))
}

/// A status for people.
fn describe(status: &Value) -> String {
    let text = |key: &str| match &status[key] {
        Value::String(text) => safe(text),
        Value::Null => "-".to_owned(),
        other => safe(&other.to_string()),
    };
    let number = |key: &str| status[key].as_u64().unwrap_or(0);
    let uptime = render::span(Duration::from_secs(number("uptime_s")));
    let runs = format!(
        "since {} ({uptime}), p2pfs {}, pid {}",
        moment(&status["since"]),
        text("version"),
        text("pid")
    );
    let rows = if status["role"] == "tracker" {
        let first = status["addresses"][0]
            .as_str()
            .map(safe)
            .unwrap_or_default();
        let address = match first.parse() {
            Ok(ip) => super::with_port(ip, u16::try_from(number("port")).unwrap_or(0)),
            Err(_) => text("port"),
        };
        let drops = status["drops"].as_object().into_iter().flatten();
        let drops: Vec<_> = drops
            .filter(|(_, count)| count.as_u64() != Some(0))
            .map(|(why, count)| format!("{count} {}", safe(&why.replace('_', " "))))
            .collect();
        vec![
            ("Tracker", format!("{address}, {runs}")),
            ("Key", text("key")),
            ("Network", text("network")),
            ("Peers", text("peers")),
            (
                "Files",
                format!(
                    "{}, {}",
                    text("files"),
                    render::counted(
                        usize::try_from(number("names")).unwrap_or(usize::MAX),
                        "name"
                    )
                ),
            ),
            (
                "Requests",
                format!(
                    "{:.1} a second over the last minute, {} in all",
                    status["requests_per_s"].as_f64().unwrap_or(0.0),
                    text("requests")
                ),
            ),
            (
                "Drops",
                if drops.is_empty() {
                    "none".to_owned()
                } else {
                    drops.join(", ")
                },
            ),
            (
                "Guesses",
                format!("{} wrong passphrases", text("wrong_passphrases")),
            ),
            (
                "Metrics",
                if status["metrics"].is_null() {
                    "off".to_owned()
                } else {
                    format!("http://{}/metrics", text("metrics"))
                },
            ),
        ]
    } else {
        let since = moment(&status["joined_since"]);
        let tracker = if let Some(neighbours) = status["neighbours"].as_u64() {
            format!("none; {neighbours} others here on the local network")
        } else if status["joined"] == true {
            format!("{}, joined since {since}", text("tracker"))
        } else {
            format!("{}, lost since {since}", text("tracker"))
        };
        vec![
            (
                "Peer",
                format!("{}, port {}, {runs}", text("user"), text("port")),
            ),
            ("Key", text("key")),
            ("Tracker", tracker),
            ("Its key", text("tracker_key")),
            ("Shares", text("shares")),
            (
                "Downloads",
                format!("{} running, {} in all", text("running"), text("transfers")),
            ),
            (
                "Moved",
                format!(
                    "{} up, {} down",
                    render::size(number("up")),
                    render::size(number("down"))
                ),
            ),
        ]
    };
    let lines: Vec<_> = rows
        .iter()
        .map(|(key, value)| format!("{key:<11}{value}"))
        .collect();
    lines.join("\n")
}

/// A point in time, as people of this place read it.
fn moment(value: &Value) -> String {
    let parsed = value
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map_or_else(
        || "-".to_owned(),
        |time| {
            time.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%F %T")
                .to_string()
        },
    )
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let class = match error {
            AskError::Nobody(_) => Class::NotFound,
            AskError::Foreign(_) => Class::Refused,
            AskError::Mute { .. } => Class::Network,
            AskError::Io { .. } => Class::Local,
        };
        Self::new(class, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_status_holds_each_fact_stays_on_its_line() {
        let status = json!({
            "role": "peer", "user": "a\nb\u{1b}[2J", "port": 8001, "since": "x", "joined": false,
            "joined_since": null, "tracker": {"a": "\u{202e}"}, "up": 2048,
        });
        let shown = describe(&status);
        assert_eq!(shown.lines().count(), 7, "{shown}");
        assert!(
            !shown.contains('\u{1b}') && !shown.contains('\u{202e}'),
            "{shown}"
        );
        assert!(shown.contains("2.0 KiB up, 0 B down"), "{shown}");
        assert_eq!(describe(&json!({"role": "tracker"})).lines().count(), 9);
    }
}
