//! The log on the console, behind one filter: one event, one line.
//!
//! Names and texts of others reach the log as fields. An event goes out as a whole, so that the screen can
//! escape it as a whole: no field can begin a second line or colour the first. That is also why the colours
//! are the screen's, and the events have none. Where others can cause many lines, the lines of each level are
//! so many a second, and those that were left out are counted.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub use tracing::Level;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines of one level: at once, and a second. Whoever wants to see `debug` wants to see all of it.
const BURST: f64 = 200.0;
const PER_SECOND: f64 = 20.0;

/// How much is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Everything from this level on.
    Level(String),
    /// More or less than warnings, from `-v` and `-q`.
    Steps(i8),
}

impl Verbosity {
    fn filter(&self) -> &str {
        match self {
            Self::Level(level) => match level.as_str() {
                // Others may log what they hold; only our own words go beyond info.
                "info" => "p2pfs=info,warn",
                "debug" => "p2pfs=debug,info",
                "trace" => "p2pfs=trace,debug",
                level => level,
            },
            Self::Steps(..=-1) => "error",
            Self::Steps(0) => "warn",
            Self::Steps(1) => "p2pfs=info,warn",
            Self::Steps(2) => "p2pfs=debug,info",
            Self::Steps(_) => "p2pfs=trace,debug",
        }
    }
}

/// The form of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line for people
    #[default]
    Text,
    /// An object
    Json,
}

impl Format {
    /// A line of the log about the log, which looks as the others do.
    #[must_use]
    pub fn remark(self, stamps: Stamps, level: Level, text: &str) -> String {
        let now = format!("{:.6}", jiff::Timestamp::now());
        match (self, stamps) {
            (Self::Json, _) => serde_json::json!({
                "timestamp": now, "level": level.as_str(), "message": text,
            })
            .to_string(),
            (Self::Text, Stamps::Own) => format!("{now} {level:>5} {text}"),
            (Self::Text, Stamps::Journal) => text.to_owned(),
        }
    }
}

/// Takes one event of the log, without its end of line, and escapes what acts on a terminal.
pub type Sink = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// Does an event say when it happened?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamps {
    /// Each begins with the time.
    Own,
    /// Whoever takes them writes it down: the journal.
    Journal,
}

/// Begins to log to `sink`: what `P2PFS_LOG` says, or else `verbosity`. Called once.
///
/// # Errors
/// When `P2PFS_LOG` is no filter; the words complete "P2PFS_LOG …".
pub fn start(
    verbosity: &Verbosity,
    format: Format,
    stamps: Stamps,
    sink: Sink,
) -> Result<(), String> {
    let filter = match std::env::var_os("P2PFS_LOG").filter(|text| !text.is_empty()) {
        None => EnvFilter::new(verbosity.filter()),
        Some(text) => {
            let text = text.into_string().map_err(|_| "is not text".to_owned())?;
            EnvFilter::try_new(&text).map_err(|error| format!("is no filter: {error}"))?
        }
    };
    // The line editor would log how it paints the line that it is then told to paint.
    let quiet = "rustyline=warn".parse().map_err(|_| "is no filter")?;
    let filter = filter.add_directive(quiet);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines::new(format, stamps, sink))
        .with_ansi(false)
        .with_target(false);
    match (format, stamps) {
        (Format::Json, _) => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        (Format::Text, Stamps::Own) => lines.try_init(),
        (Format::Text, Stamps::Journal) => lines.without_time().with_level(false).try_init(),
    }
    .map_err(|error| error.to_string())
}

struct Lines {
    sink: Sink,
    format: Format,
    stamps: Stamps,
    /// Of errors, warnings and info: what may still be told, and what was left out.
    levels: Arc<[Mutex<Allowance>; 3]>,
}

impl Lines {
    fn new(format: Format, stamps: Stamps, sink: Sink) -> Self {
        let now = Instant::now();
        let levels = [(); 3].map(|()| Mutex::new(Allowance::new(now)));
        Self {
            sink,
            format,
            stamps,
            levels: Arc::new(levels),
        }
    }
}

/// How many lines may be told now.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
    left_out: u64,
}

impl Allowance {
    const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
            left_out: 0,
        }
    }

    /// May a line be told? With it, how many were left out before.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND;
        (self.left, self.at) = ((self.left + earned).min(BURST), now);
        if self.left < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        self.line(Level::ERROR)
    }
    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        self.line(*event.level())
    }
}

impl Lines {
    fn line(&self, level: Level) -> Line {
        Line {
            sink: Arc::clone(&self.sink),
            format: self.format,
            stamps: self.stamps,
            levels: Arc::clone(&self.levels),
            level,
            text: Vec::new(),
        }
    }
}

/// One event: collected, and told when complete.
struct Line {
    sink: Sink,
    format: Format,
    stamps: Stamps,
    levels: Arc<[Mutex<Allowance>; 3]>,
    level: Level,
    text: Vec<u8>,
}

impl Line {
    /// How many lines were left out before this one; `None` when this one is left out as well.
    fn allowance(&self) -> Option<u64> {
        let level = match self.level {
            Level::ERROR => &self.levels[0],
            Level::WARN => &self.levels[1],
            Level::INFO => &self.levels[2],
            _ => return Some(0),
        };
        let mut level = level.lock().unwrap_or_else(PoisonError::into_inner);
        level.take(Instant::now())
    }
}

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.text.is_empty() {
            return;
        }
        let Some(left_out) = self.allowance() else {
            return;
        };
        if left_out > 0 {
            let text = format!("{left_out} lines of this level were left out: too many a second");
            let remark = self.format.remark(self.stamps, self.level, &text);
            (self.sink)(self.level, &remark);
        }
        (self.sink)(self.level, String::from_utf8_lossy(&self.text).trim_end());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Heard = Arc<Mutex<Vec<(Level, String)>>>;

    fn listening(log: impl FnOnce()) -> Vec<(Level, String)> {
        let heard = Heard::default();
        let ear = Arc::clone(&heard);
        let lines = Lines::new(
            Format::Text,
            Stamps::Own,
            Arc::new(move |level, line: &str| {
                ear.lock().unwrap().push((level, line.to_owned()));
            }),
        );
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines)
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let heard = heard.lock().unwrap();
        heard.clone()
    }

    #[test]
    fn one_event_is_told_once_whatever_its_fields_hold() {
        let heard = listening(|| {
            tracing::warn!(name = %"a\nERROR forged\x1b[2J", "peer \u{202e}left");
        });
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0].0, Level::WARN);
        assert!(
            heard[0].1.contains("forged") && heard[0].1.contains("left"),
            "{heard:?}"
        );
    }

    #[test]
    fn a_flood_is_cut_short_and_hides_nothing_worse() {
        let heard = listening(|| {
            for _ in 0..10_000 {
                tracing::info!("flood");
            }
            tracing::warn!("worse");
        });
        assert!(heard.len() < 1000, "{}", heard.len());
        assert!(heard.last().unwrap().1.contains("worse"));
        let start = Instant::now();
        let mut level = Allowance::new(start);
        let told = (0..1000).filter(|_| level.take(start).is_some()).count();
        assert_eq!(told, 200);
        let later = start + Duration::from_secs(1);
        assert_eq!(level.take(later), Some(800), "and says so");
        assert_eq!(level.take(later), Some(0));
    }
}
