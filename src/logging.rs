//! The log on the console, behind one filter.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How much is told, from `-q` and `-v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity(pub i8);

/// Begins to log to stderr: warnings, or what `-v` and `P2PFS_LOG` say. Called once.
///
/// # Errors
/// When `P2PFS_LOG` is no filter; the words complete "P2PFS_LOG …".
pub fn start(verbosity: Verbosity) -> Result<(), String> {
    let level = match verbosity.0 {
        ..=-1 => "error",
        0 => "warn",
        1 => "p2pfs=info,warn",
        2 => "p2pfs=debug,info",
        _ => "p2pfs=trace,debug",
    };
    let filter = match std::env::var_os("P2PFS_LOG") {
        None => EnvFilter::new(level),
        Some(text) => {
            let text = text.into_string().map_err(|_| "is not text".to_owned())?;
            // Snow and others may log what they hold; only our own words go beyond info.
            EnvFilter::try_new(&text).map_err(|error| format!("is no filter: {error}"))?
        }
    };
    let has_colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colours)
        .with_target(false)
        .try_init()
        .map_err(|error| error.to_string())
}
