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

/// The file that was asked for, if one was.
pub(super) fn file_of(global: &Global, config: &Config) -> Option<PathBuf> {
    let file = global.log_file.as_ref().or(config.log.file.as_ref());
    file.filter(|path| !path.as_os_str().is_empty()).cloned()
}

/// Can lines be added there?
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    open(path)
        .map(drop)
        .map_err(|error| cannot_log(path, &error))
}

fn cannot_log(path: &Path, error: &io::Error) -> Failure {
    let line = format!("cannot write the log to {}: {error}", path.display());
    Failure::new(Class::Local, line).hint("name another file with --log-file or in [log]")
}

/// Begins to log. Called once. Where the file cannot be had, the log goes to the console, and a line says so.
///
/// # Errors
/// When `P2PFS_LOG` is no filter.
pub fn start(global: &Global, screen: &Screen) -> Result<(), Failure> {
    // Whoever needs the configuration tells what is wrong with it.
    let config =
        Setup::new(global.clone()).map_or_else(|_| Config::default(), |setup| setup.config);
    let signed = |count: u8| i8::try_from(count).unwrap_or(i8::MAX);
    let verbosity = signed(global.verbose).saturating_sub(signed(global.quiet));
    let is_json = config.log.format.as_deref() == Some("json");
    let configured = if is_json { Format::Json } else { Format::Text };
    let format = global.log_format.unwrap_or(configured);
    let keep = config.log.keep.map_or(DEFAULT_KEEP, usize::from);
    let file = file_of(global, &config).and_then(|path| {
        let opened = LogFile::open(&path, format, keep, MAX_LEN);
        opened
            .inspect_err(|error| {
                let failure = cannot_log(&path, error);
                screen.tell(&failure);
            })
            .ok()
    });
    let level = config.log.level.filter(|level| !level.is_empty());
    let quiet_level = if file.is_some() { "info" } else { "warn" };
    let (sink, stamps): (Sink, _) = match file {
        Some(log) => {
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
            text.insert_str(
                0,
                &(self.format.remark(Stamps::Own, Level::WARN, &remark) + "\n"),
            );
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
        let told = " WARN 2 lines were lost: they could not be written\nback\n";
        let time = text.strip_suffix(told).expect(&text).trim_end();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{text}");
    }

    #[test]
    fn a_remark_of_the_log_says_when_as_any_line_does() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        let log = LogFile::open(&sub.join("log"), Format::Json, 2, 100).unwrap();
        std::fs::remove_dir_all(&sub).unwrap();
        log.write("{}");
        std::fs::create_dir(&sub).unwrap();
        log.write("{}");
        let text = std::fs::read_to_string(sub.join("log")).unwrap();
        let remark: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let time = remark["timestamp"].as_str().unwrap();
        assert!(time.len() == 27 && time.parse::<jiff::Timestamp>().is_ok());
        assert_eq!(remark["level"], "WARN");
    }

    /// Shows: a log that somebody else put there, or that is another file's second name, is not written.
    /// How: as root, who alone can give files away.
    #[test]
    fn a_log_that_leads_to_another_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, trap) = (dir.path().join("keys"), dir.path().join("trap"));
        std::fs::write(&keys, "theirs\n").unwrap();
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::hard_link(&keys, &trap).unwrap();
        let refused = |path: &Path, words: &str| {
            let error = LogFile::open(path, Format::Text, 2, 100).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        };
        refused(&trap, "another name");
        std::fs::remove_file(&trap).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&keys, Some(65534), None).unwrap();
            refused(&keys, "another user");
        }
        let mode = std::fs::metadata(&keys).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "and stays as it was");
        assert_eq!(std::fs::read_to_string(&keys).unwrap(), "theirs\n");
    }
}
