//! The log on the console, behind one filter: one event, one line.
//!
//! Names and texts of others reach the log as fields. An event goes out as a whole, so that the screen can
//! escape it as a whole: no field can begin a second line or colour the first. That is also why the log has
//! no colours of its own.

use std::io;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How much is told, from `-q` and `-v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity(pub i8);

/// Takes one event of the log, without its end of line, and escapes what acts on a terminal.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// Begins to log to `sink`: warnings, or what `-v` and `P2PFS_LOG` say. Called once.
///
/// # Errors
/// When `P2PFS_LOG` is no filter; the words complete "P2PFS_LOG …".
pub fn start(verbosity: Verbosity, sink: Sink) -> Result<(), String> {
    let level = match verbosity.0 {
        ..=-1 => "error",
        0 => "warn",
        1 => "p2pfs=info,warn",
        2 => "p2pfs=debug,info",
        _ => "p2pfs=trace,debug",
    };
    let filter = match std::env::var_os("P2PFS_LOG").filter(|text| !text.is_empty()) {
        None => EnvFilter::new(level),
        Some(text) => {
            let text = text.into_string().map_err(|_| "is not text".to_owned())?;
            // Snow and others may log what they hold; only our own words go beyond info.
            EnvFilter::try_new(&text).map_err(|error| format!("is no filter: {error}"))?
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines(sink))
        .with_ansi(false)
        .with_target(false)
        .try_init()
        .map_err(|error| error.to_string())
}

struct Lines(Sink);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line {
            sink: Arc::clone(&self.0),
            text: Vec::new(),
        }
    }
}

/// One event: collected, and told when complete.
struct Line {
    sink: Sink,
    text: Vec<u8>,
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
        if !self.text.is_empty() {
            (self.sink)(String::from_utf8_lossy(&self.text).trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn one_event_is_told_once_whatever_its_fields_hold() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ear = Arc::clone(&heard);
        let lines = Lines(Arc::new(move |line: &str| {
            ear.lock().unwrap().push(line.to_owned());
        }));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines)
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(name = %"a\nERROR forged\x1b[2J", "peer \u{202e}left");
        });
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(
            heard[0].contains("forged") && heard[0].contains("left"),
            "{heard:?}"
        );
    }
}
