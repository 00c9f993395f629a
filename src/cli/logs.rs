//! Where the log goes: the console, or a file that is renewed when it has grown, or was moved away.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::args::Global;
use super::exit::{Class, Failure};
use super::screen::Screen;
use super::setup::Setup;
use crate::config::Config;
use crate::disk;
use crate::logging::{self, Format, Level, Sink, Stamps, Verbosity};
use crate::wire::text::{safe, safe_json};

/// A file of the log is put aside when it is longer, in bytes.
const MAX_LEN: u64 = 10 << 20;
/// Files that were put aside, unless the configuration says how many.
const DEFAULT_KEEP: usize = 7;

/// Begins to log. Called once.
///
/// # Errors
/// When the file cannot be had, or `P2PFS_LOG` is no filter.
pub fn start(global: &Global, screen: &Screen) -> Result<(), Failure> {
    // Whoever needs the configuration tells what is wrong with it.
    let config =
        Setup::new(global.clone()).map_or_else(|_| Config::default(), |setup| setup.config);
    let signed = |count: u8| i8::try_from(count).unwrap_or(i8::MAX);
    let verbosity = signed(global.verbose).saturating_sub(signed(global.quiet));
    let is_json = config.log.format.as_deref() == Some("json");
    let configured = if is_json { Format::Json } else { Format::Text };
    let format = global.log_format.unwrap_or(configured);
    let file = global.log_file.clone().or(config.log.file);
    let file = file.filter(|path| !path.as_os_str().is_empty());
    let level = config.log.level.filter(|level| !level.is_empty());
    let (sink, stamps): (Sink, _) = match &file {
        Some(path) => {
            let log = LogFile::open(
                path,
                format,
                config.log.keep.map_or(DEFAULT_KEEP, usize::from),
                MAX_LEN,
            )
            .map_err(|error| {
                let line = format!("cannot write the log to {}: {error}", path.display());
                Failure::new(Class::Local, line)
            })?;
            let sink = move |_: Level, event: &str| log.write(&escaped(format, event));
            (Arc::new(sink), Stamps::Own)
        }
        None => {
            let log = screen.clone();
            let sink = move |level: Level, event: &str| match format {
                Format::Text => log.log(level, event),
                Format::Json => log.relay(&safe_json(event)),
            };
            (Arc::new(sink), screen.stamps())
        }
    };
    let quiet_level = if file.is_some() { "info" } else { "warn" };
    let verbosity = match verbosity {
        0 => Verbosity::Level(level.unwrap_or_else(|| quiet_level.to_owned())),
        steps => Verbosity::Steps(steps),
    };
    logging::start(&verbosity, format, stamps, sink)
        .map_err(|reason| Failure::usage(format!("P2PFS_LOG {reason}")))
}

fn escaped(format: Format, event: &str) -> String {
    match format {
        Format::Text => safe(event),
        Format::Json => safe_json(event),
    }
}

/// A file to which lines are added. One that was moved away or removed is begun anew with the next line, so
/// that others can rotate it as well, without a signal.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    format: Format,
    keep: usize,
    max_len: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    len: u64,
    /// Lines that the disk did not take.
    lost: u64,
}

impl LogFile {
    fn open(path: &Path, format: Format, keep: usize, max_len: u64) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let (file, len) = open(&path)?;
        Ok(Self {
            path,
            format,
            keep,
            max_len,
            state: Mutex::new(State { file, len, lost: 0 }),
        })
    }

    /// Adds a line; one that the disk does not take is counted and told of later.
    fn write(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.add(&mut state, line).is_err() {
            state.lost += 1;
        }
    }

    fn add(&self, state: &mut State, line: &str) -> io::Result<()> {
        if state.len >= self.max_len && disk::is_at(&state.file, &self.path) {
            // In a directory that is not ours to change it grows, rather than be lost.
            let _ = disk::rotate(&self.path, self.keep);
        }
        if !disk::is_at(&state.file, &self.path) {
            (state.file, state.len) = open(&self.path)?;
        }
        let mut text = format!("{line}\n");
        if state.lost > 0 {
            let remark = format!("{} lines were lost: they could not be written", state.lost);
            text.insert_str(0, &(self.format.remark(Level::WARN, &remark) + "\n"));
        }
        state.file.write_all(text.as_bytes())?;
        state.len += text.len() as u64;
        state.lost = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = disk::append_private(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_log_is_bounded_private_and_begun_anew_when_it_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p2pfs.log");
        std::fs::write(&path, "before\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let log = LogFile::open(&path, Format::Text, 2, 100).unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let number = |n: usize| dir.path().join(format!("p2pfs.log.{n}"));
        log.write("first");
        assert_eq!(read(&path), "before\nfirst\n");
        for line in 0..9 {
            log.write(&format!("{line}{}", "x".repeat(60)));
        }
        assert!(read(&path).len() < 200 && read(&number(1)).contains('x'));
        assert!(
            number(2).exists() && !number(3).exists(),
            "so many are kept"
        );
        for path in [&path, &number(1)] {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        log.write("anew");
        assert_eq!(read(&path), "anew\n");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("link")).unwrap();
        assert!(LogFile::open(&dir.path().join("link"), Format::Text, 2, 100).is_err());
        assert!(LogFile::open(dir.path(), Format::Text, 2, 100).is_err());
    }

    #[test]
    fn what_the_disk_does_not_take_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        let log = LogFile::open(&sub.join("log"), Format::Text, 2, 100).unwrap();
        std::fs::remove_dir_all(&sub).unwrap();
        log.write("lost");
        log.write("lost as well");
        std::fs::create_dir(&sub).unwrap();
        log.write("back");
        let text = std::fs::read_to_string(sub.join("log")).unwrap();
        assert_eq!(text, "2 lines were lost: they could not be written\nback\n");
    }
}
