//! Every setting once: meaning, unit, default; flag > environment > file > default.
//!
//! Files are TOML; an unknown key is an error with its line, since a setting that is silently ignored is
//! worse than none. `config/p2pfs.toml` shows every key with its default, and a test keeps it so.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::nearest::nearest;
use crate::wire::id::Fingerprint;
use crate::wire::text::UserName;

/// Larger than any configuration, in bytes.
const MAX_LEN: u64 = 1 << 20;
/// The system's file, under the user's.
pub const SYSTEM_FILE: &str = "/etc/p2pfs/config.toml";
/// Every key with its default.
pub const TEMPLATE: &str = include_str!("../config/p2pfs.toml");

/// A slower transfer would look like a dead one.
const MIN_RATE: u64 = 16 << 10;

/// One file's settings; what it does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which group.
    pub group: GroupSection,
    /// The tracker: where it listens, or where it is.
    pub tracker: TrackerSection,
    /// The peer.
    pub peer: PeerSection,
    /// The local network.
    pub discovery: DiscoverySection,
    /// How much at a time.
    pub limits: LimitsSection,
    /// What is tried again, and how often.
    pub retry: RetrySection,
    /// The HTTP interface of a peer.
    pub web: WebSection,
    /// What is logged, and where.
    pub log: LogSection,
}

/// `[group]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupSection {
    /// Separates groups; not a secret.
    pub network: Option<String>,
}

/// `[tracker]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerSection {
    /// Where peers find it: `host` or `host:port`.
    pub address: Option<String>,
    /// Its key print; empty for the one met first.
    #[serde(deserialize_with = "a_key")]
    pub key: Option<String>,
    /// Address to listen on; empty for all.
    #[serde(deserialize_with = "a_bind")]
    pub bind: Option<String>,
    /// Port to listen on, TCP and UDP.
    pub port: Option<u16>,
    /// Threads that answer datagrams; 0: one for each core, up to 16.
    pub workers: Option<usize>,
    /// Time between heartbeats.
    pub heartbeat: Option<Span>,
    /// Silence after which a peer counts as gone.
    pub timeout: Option<Span>,
    /// Most peers at the same time.
    pub max_peers: Option<usize>,
    /// File of users with passwords; empty for none.
    pub credentials: Option<PathBuf>,
    /// Address under which its numbers can be read over HTTP; empty for none.
    pub metrics: Option<String>,
}

/// `[peer]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerSection {
    /// Name under which others see this peer; empty for the login name.
    #[serde(deserialize_with = "a_name")]
    pub name: Option<String>,
    /// Port to listen on: a number, a range, or 0 for any.
    #[serde(deserialize_with = "ports")]
    pub port: Option<String>,
    /// Address to listen on; empty for all.
    #[serde(deserialize_with = "a_bind")]
    pub bind: Option<String>,
    /// Where downloads go.
    pub downloads: Option<PathBuf>,
    /// What their names begin with.
    pub prefix: Option<String>,
    /// Share on what was downloaded.
    pub seed: Option<bool>,
    /// Who may talk to this peer and offer it files: `ask`, `trusted`, `all` or `none`.
    #[serde(deserialize_with = "an_accept")]
    pub accept: Option<String>,
    /// For how long whoever was denied is not asked about again.
    pub deny_for: Option<Span>,
    /// Ring the terminal's bell for messages and questions.
    pub bell: Option<bool>,
    /// File to which everything that is said is added; empty for none.
    pub chat_file: Option<PathBuf>,
    /// Keep what is said to others out of the prompt's history.
    pub history_private: Option<bool>,
}

/// `[discovery]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverySection {
    /// Show a tracker to the local network, and let peers look for one there.
    pub lan: Option<bool>,
    /// UDP port of beacons.
    pub port: Option<u16>,
}

/// `[web]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSection {
    /// Address of loopback to listen on; empty for none.
    pub listen: Option<String>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Bytes a second that leave; empty for no limit.
    #[serde(deserialize_with = "a_rate")]
    pub up: Option<String>,
    /// Bytes a second that come; empty for no limit.
    #[serde(deserialize_with = "a_rate")]
    pub down: Option<String>,
    /// Downloads at the same time.
    pub downloads: Option<usize>,
}

/// `[retry]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySection {
    /// Attempts in all.
    pub attempts: Option<u32>,
    /// Wait after the first.
    pub first: Option<Span>,
    /// How much longer each later wait is.
    pub factor: Option<f64>,
    /// Longest wait.
    pub most: Option<Span>,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// File to which events are added; empty for the console.
    pub file: Option<PathBuf>,
    /// Least level; empty for what is usual there.
    #[serde(deserialize_with = "a_level")]
    pub level: Option<String>,
    /// Form of an event.
    #[serde(deserialize_with = "a_format")]
    pub format: Option<String>,
    /// Older files that stay.
    pub keep: Option<u16>,
}

/// Who may talk to a peer: what `peer.accept` and `--accept` may be.
pub const ACCEPT: [&str; 4] = ["ask", "trusted", "all", "none"];

/// The text of a setting, which must make sense, or be empty where that means something.
fn checked<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.is_empty() {
        parse(&text).map_err(D::Error::custom)?;
    }
    Ok(Some(text))
}

/// One of these words.
fn one_of(text: &str, words: &[&str]) -> Result<(), String> {
    let list = words.join(", ");
    let is_one = words.contains(&text);
    is_one
        .then_some(())
        .ok_or_else(|| format!("\"{text}\" is none of {list}"))
}

fn a_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        one_of(text, &["error", "warn", "info", "debug", "trace"])
    })
}

fn a_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| one_of(text, &["text", "json"]))
}

fn an_accept<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    one_of(&text, &ACCEPT).map_err(D::Error::custom)?;
    Ok(Some(text))
}

fn a_bind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, parse_bind)
}

fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, parse_ports)
}

fn a_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, parse_rate)
}

fn a_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        let parsed: Result<Fingerprint, _> = text.parse();
        parsed.map_err(|error| format!("\"{text}\" is {error}"))
    })
}

fn a_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |text| {
        let parsed: Result<UserName, _> = text.parse();
        parsed.map_err(|error| format!("the name \"{text}\" {error}"))
    })
}

/// A duration as people write it: `2s`, `1m 30s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .parse::<SignedDuration>()
            .ok()
            .and_then(|span| Duration::try_from(span).ok());
        parsed
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is not a duration; write 2s, 500ms or 1m 30s"))
    }
}

/// Why a configuration file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It says something that is not understood.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What, and what was probably meant.
        message: String,
    },
}

impl ConfigError {
    /// There is no such file.
    #[must_use]
    pub fn missing(path: &Path) -> Self {
        Self::Read {
            path: path.to_owned(),
            reason: "there is no such file".to_owned(),
        }
    }
}

impl Config {
    /// The layers of files: `explicit` (must exist), then the user's, then the system's.
    ///
    /// # Errors
    /// When one of them cannot be read or understood.
    pub fn load(explicit: Option<&Path>, user_file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = match explicit {
            Some(path) => Self::read(path)?.ok_or_else(|| ConfigError::missing(path))?,
            None => Self::default(),
        };
        for path in user_file.into_iter().chain([Path::new(SYSTEM_FILE)]) {
            if let Some(lower) = Self::read(path)? {
                config = config.over(lower);
            }
        }
        Ok(config)
    }

    fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        match read_text(path)? {
            Some(text) => Self::parse(&text, path).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// When it is not understood; the line is named.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            ConfigError::Syntax {
                path: path.to_owned(),
                line,
                message: explain(error.message()),
            }
        })
    }

    /// What `self` does not say, `lower` says.
    fn over(self, lower: Self) -> Self {
        macro_rules! over {
            ($section:ident { $($key:ident),* }, $upper:expr, $lower:expr) => {
                $section { $($key: $upper.$key.or($lower.$key)),* }
            };
        }
        Self {
            group: over!(GroupSection { network }, self.group, lower.group),
            tracker: over!(
                TrackerSection {
                    address,
                    key,
                    bind,
                    port,
                    workers,
                    heartbeat,
                    timeout,
                    max_peers,
                    credentials,
                    metrics
                },
                self.tracker,
                lower.tracker
            ),
            peer: over!(
                PeerSection {
                    name,
                    port,
                    bind,
                    downloads,
                    prefix,
                    seed,
                    accept,
                    deny_for,
                    bell,
                    chat_file,
                    history_private
                },
                self.peer,
                lower.peer
            ),
            discovery: over!(
                DiscoverySection { lan, port },
                self.discovery,
                lower.discovery
            ),
            limits: over!(
                LimitsSection {
                    up,
                    down,
                    downloads
                },
                self.limits,
                lower.limits
            ),
            retry: over!(
                RetrySection {
                    attempts,
                    first,
                    factor,
                    most
                },
                self.retry,
                lower.retry
            ),
            web: over!(WebSection { listen }, self.web, lower.web),
            log: over!(
                LogSection {
                    file,
                    level,
                    format,
                    keep
                },
                self.log,
                lower.log
            ),
        }
    }
}

/// The text of a configuration file; `None` where there is none.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read_text(path: &Path) -> Result<Option<String>, ConfigError> {
    let fail = |reason: String| ConfigError::Read {
        path: path.to_owned(),
        reason,
    };
    // O_NONBLOCK: a FIFO in its place must not hang us.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        // A home that is no directory (/dev/null, for services) holds no file either.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(fail(error.to_string())),
    };
    let found = file.metadata().map_err(|error| fail(error.to_string()))?;
    if !found.is_file() || found.len() > MAX_LEN {
        return Err(fail("it is not a configuration file".to_owned()));
    }
    let mut text = String::new();
    file.take(MAX_LEN)
        .read_to_string(&mut text)
        .map_err(|error| fail(error.to_string()))?;
    Ok(Some(text))
}

/// The parser's words on one line, and for an unknown key the nearest one.
fn explain(message: &str) -> String {
    let line = message.replace('\n', " ");
    let mut quoted = line.split('`').skip(1).step_by(2);
    let Some(unknown) = line
        .starts_with("unknown field")
        .then(|| quoted.next())
        .flatten()
    else {
        return line;
    };
    match nearest(unknown, quoted) {
        Some(known) => format!("unknown key \"{unknown}\"; did you mean \"{known}\"?"),
        None => format!("unknown key \"{unknown}\""),
    }
}

/// An address from a setting in which an empty text means all.
///
/// # Errors
/// When it is no address; the words say so.
pub fn parse_bind(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| format!("\"{text}\" is not an IP address"))
}

/// A port, a range of ports, or 0 for any.
///
/// # Errors
/// When it is neither; the words say so.
pub fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("\"{text}\" is not a port; write 8001, 8001-8100 or 0");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (
        first.trim().parse().map_err(|_| wrong())?,
        last.trim().parse().map_err(|_| wrong())?,
    );
    if first > last || (first == 0 && last != 0) {
        Err(wrong())
    } else {
        Ok((first, last))
    }
}

/// Bytes a second, as people write them: `500K`, `5MB`, `5MiB/s`; `off` and `0` for no limit.
///
/// # Errors
/// One line that says what is wrong with it.
pub fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    let plain = text.trim().trim_end_matches("/s");
    if matches!(plain, "off" | "none" | "0") {
        return Ok(None);
    }
    let rate: ByteSize = plain
        .parse()
        .map_err(|_| format!("\"{text}\" is no rate; write 500K, 5MB or 5MiB a second, or off"))?;
    if rate.as_u64() < MIN_RATE {
        return Err(format!(
            "\"{text}\" is too slow: 16KiB a second is the least"
        ));
    }
    Ok(Some(rate.as_u64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("p2pfs.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_beside_the_source_names_every_key() {
        let config = parse(TEMPLATE).unwrap();
        // A key that is missing there would show as None.
        let shown = format!("{config:?}");
        assert!(!shown.contains("None"), "{shown}");
        assert_eq!(config.tracker.port, Some(9000));
        assert_eq!(config.tracker.heartbeat, Some(Span(Duration::from_secs(2))));
        assert_eq!(config.peer.prefix.as_deref(), Some("downloaded_"));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, wanted) in [
            (
                "[tracker]\nprot = 9000\n",
                "p2pfs.toml:2: unknown key \"prot\"; did you mean \"port\"?",
            ),
            ("[tracker]\n\nport = \"x\"\n", "p2pfs.toml:3: "),
            ("[tracker]\nport = 65536\n", "p2pfs.toml:2: "),
            ("[tracker]\nport = -1\n", "p2pfs.toml:2: "),
            (
                "[peers]\n",
                "p2pfs.toml:1: unknown key \"peers\"; did you mean \"peer\"?",
            ),
            (
                "[tracker]\nheartbeat = \"soon\"\n",
                "p2pfs.toml:2: \"soon\" is not a duration",
            ),
            (
                "[peer]\nport = \"9-8\"\n",
                "p2pfs.toml:2: \"9-8\" is not a port",
            ),
            (
                "[limits]\n\nup = \"fast\"\n",
                "p2pfs.toml:3: \"fast\" is no rate",
            ),
            (
                "[peer]\nbind = \"here\"\n",
                "p2pfs.toml:2: \"here\" is not an IP",
            ),
            ("[tracker]\nkey = \"zz\"\n", "p2pfs.toml:2: \"zz\" is "),
            (
                "[log]\nlevel = \"wran\"\n",
                "p2pfs.toml:2: \"wran\" is none of error",
            ),
            (
                "[log]\nformat = \"xml\"\n",
                "p2pfs.toml:2: \"xml\" is none of text",
            ),
            ("[peer]\nname = \"a/b\"\n", "p2pfs.toml:2: the name \"a/b\""),
            ("[tracker\n", "p2pfs.toml:1: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        assert_eq!(parse_rate("5MiB/s"), Ok(Some(5 << 20)));
        assert_eq!(parse_rate("500K"), Ok(Some(500_000)));
        assert_eq!(parse_rate("off"), Ok(None));
        assert!(parse_rate("1K").unwrap_err().contains("too slow"));
        assert!(parse_rate("fast").unwrap_err().contains("no rate"));
    }

    #[test]
    fn upper_layers_win_key_by_key() {
        let upper = parse("[peer]\nname = \"ana\"\n").unwrap();
        let lower = parse("[peer]\nname = \"bob\"\nseed = false\n[tracker]\nport = 1\n").unwrap();
        let both = upper.over(lower);
        assert_eq!(both.peer.name.as_deref(), Some("ana"));
        assert_eq!((both.peer.seed, both.tracker.port), (Some(false), Some(1)));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Config::load(Some(dir.path()), None),
            Err(ConfigError::Read { .. })
        ));
        let gone = dir.path().join("gone.toml");
        assert!(Config::load(Some(&gone), None).is_err());
        assert!(
            Config::load(None, Some(&gone)).is_ok(),
            "the user's file need not exist"
        );
        let huge = dir.path().join("huge.toml");
        std::fs::File::create(&huge)
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        assert!(Config::load(Some(&huge), None).is_err());
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::from_bits_truncate(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(
            Config::load(Some(&fifo), None).is_err(),
            "and does not wait"
        );
        assert!(
            Config::load(None, Some(&huge.join("config.toml"))).is_ok(),
            "nor need its directory be one"
        );
    }

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse_ports("8001"), Ok((8001, 8001)));
        assert_eq!(parse_ports("8001-8100"), Ok((8001, 8100)));
        assert_eq!(parse_ports("0"), Ok((0, 0)));
        for wrong in ["", "x", "-1", "65536", "9-8", "0-9", "8001-"] {
            assert!(parse_ports(wrong).is_err(), "{wrong}");
        }
    }
}
