//! What `p2pfs doctor` sees without asking anybody: files, disks, limits and the clock.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access};

use super::Finding;
use crate::cli::args::Global;
use crate::cli::exit::{Class, Failure};
use crate::cli::{own_binary, render, setup};
use crate::config::Config;
use crate::crypto::kdf::NetworkName;
use crate::peer::people::People;
use crate::peer::pins::Pins;
use crate::{disk, keyfile, net};

/// With less free space than this something will fail soon.
const TOO_LITTLE: u64 = 16 << 20;
/// With less than this it is worth a word.
const LITTLE: u64 = 1 << 30;
/// Files and connections that a busy peer has open.
const ENOUGH_FILES: u64 = 1024;
/// Fewer than this are used up at once.
const TOO_FEW_FILES: u64 = 128;
/// Beyond this the tracker does not take up a session again after a break.
const MOST_SKEW: Duration = Duration::from_secs(300);
/// Time zones and file systems without them may be that far apart.
const A_DAY: Duration = Duration::from_secs(86_400);

/// The settings that hold, and whether they make sense.
pub(super) fn configuration(global: &Global) -> (Config, Finding) {
    let user = setup::user_file();
    match Config::load(global.config.as_deref(), user.as_deref()) {
        Err(error) => (Config::default(), Finding::Wrong(error.into())),
        Ok(config) => {
            let files = global.config.iter().chain(&user);
            let there: Vec<_> = files
                .filter(|path| path.exists())
                .map(|path| path.display().to_string())
                .collect();
            let said = match there.is_empty() {
                true => "no file of yours: the defaults hold".to_owned(),
                false => format!("{} can be read", there.join(", ")),
            };
            let found = Finding::of(setup::check(&config).map(|()| said));
            (config, found)
        }
    }
}

/// Is what lies in a state directory ours, and nobody else's to read?
pub(super) fn state(dir: &Path) -> Finding {
    let local = |what: String| Failure::new(Class::Local, format!("{} {what}", dir.display()));
    let found = match std::fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = existing(dir);
            return match access(parent, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => {
                    let line = format!(
                        "{} is not there yet: the first start makes it",
                        dir.display()
                    );
                    Finding::Fine(line)
                }
                Err(error) => Finding::Wrong(
                    local(format!("cannot be made: {}: {error}", parent.display()))
                        .hint("keep keys elsewhere with --state-dir DIR"),
                ),
            };
        }
        Err(error) => return Finding::Wrong(local(format!("cannot be read: {error}"))),
        Ok(found) => found,
    };
    let shown = dir.display();
    if !found.is_dir() {
        return Finding::Wrong(local("is no directory".to_owned()).hint("move it away"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        let hint = "run p2pfs doctor as that user, or give --state-dir DIR";
        return Finding::Wrong(local("belongs to another user".to_owned()).hint(hint));
    }
    let repair = format!("repair: chmod 700 {shown}");
    if found.mode() & 0o022 != 0 {
        return Finding::Wrong(local("can be written to by others".to_owned()).hint(repair));
    }
    if let Err(error) = access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        return Finding::Wrong(local(format!("cannot be written to: {error}")).hint(repair));
    }
    let keys = match keyfile::check(dir) {
        Ok(keys) => keys,
        Err(error) => return Finding::Wrong(error.into()),
    };
    if let Err(error) = disk::read_private(Pins::in_dir(dir).path()) {
        return Finding::Wrong(error.into());
    }
    if let Err(error) = People::open(Some(dir), NetworkName::default()) {
        return Finding::Wrong(error.into());
    }
    if found.mode() & 0o077 != 0 {
        return Finding::Warning(format!("{shown} can be looked into by others"), repair);
    }
    match disk::free_space(dir) {
        Err(error) => Finding::Wrong(local(error.to_string())),
        Ok(free) => {
            let what = match keys.is_empty() {
                true => "holds no key yet".to_owned(),
                false => format!("and {} are yours alone", keys.join(", ")),
            };
            room(format!("{shown} {what}"), free, TOO_LITTLE * 4)
        }
    }
}

/// The nearest directory of a path that is there.
fn existing(path: &Path) -> &Path {
    let mut all = path.ancestors().filter(|path| *path != Path::new(""));
    all.find(|path| path.exists()).unwrap_or(Path::new("."))
}

/// `fine` when there is enough space left.
fn room(fine: String, free: u64, little: u64) -> Finding {
    let shown = render::size(free);
    let hint = "make room on that disk".to_owned();
    if free < TOO_LITTLE {
        let line = format!("{fine}, with only {shown} free");
        Finding::Wrong(Failure::new(Class::Local, line).hint(hint))
    } else if free < little {
        Finding::Warning(format!("{fine}, with only {shown} free"), hint)
    } else {
        Finding::Fine(format!("{fine}, {shown} free"))
    }
}

/// Can downloads go there?
pub(super) fn downloads(dir: &Path) -> Finding {
    let wrong = |reason: String| {
        let line = format!("no downloads to {}: {reason}", dir.display());
        Finding::Wrong(Failure::new(Class::Local, line).hint("give another --out DIR"))
    };
    if !dir.is_dir() {
        return wrong("there is no such directory".to_owned());
    }
    if let Err(error) = access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        return wrong(error.to_string());
    }
    match disk::free_space(dir) {
        Ok(free) => room(format!("go to {}", dir.display()), free, LITTLE),
        Err(error) => wrong(error.to_string()),
    }
}

/// May this process have enough files and connections open?
pub(super) fn open_files() -> Finding {
    let Some(most) = net::descriptor_limit() else {
        return Finding::Fine("as many as the system has".to_owned());
    };
    let (line, hint) = (
        format!("at most {most}"),
        "raise it: ulimit -n 4096".to_owned(),
    );
    if most < TOO_FEW_FILES {
        Finding::Wrong(Failure::new(Class::Failed, line).hint(hint))
    } else if most < ENOUGH_FILES {
        Finding::Warning(line, hint)
    } else {
        Finding::Fine(line)
    }
}

/// Is it later than this program was made, and as late as at the tracker?
pub(super) fn clock(now: SystemTime, tracker_unix_ms: Option<u64>) -> Finding {
    let hint = "set it, or let the system keep it: timedatectl set-ntp true";
    let made = own_binary()
        .ok()
        .and_then(|path| path.metadata().ok()?.modified().ok());
    if made.is_some_and(|made| now + A_DAY < made) {
        let line = "it is earlier than this program was made";
        return Finding::Wrong(Failure::new(Class::Failed, line).hint(hint));
    }
    let Some(theirs) = tracker_unix_ms else {
        return Finding::Fine("plausible; the tracker's was not asked".to_owned());
    };
    let own = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let apart = own.abs_diff(Duration::from_millis(theirs));
    let line = format!("{} from the tracker's", render::span(apart));
    if apart > MOST_SKEW {
        Finding::Warning(line, hint.to_owned())
    } else {
        Finding::Fine(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_and_a_disk_are_judged() {
        let now = SystemTime::now();
        let ms = net::unix_ms();
        assert_eq!(clock(now, None).state(), "ok");
        assert_eq!(clock(now, Some(ms + 60_000)).state(), "ok");
        assert_eq!(clock(now, Some(ms - 3_600_000)).state(), "warning");
        assert_eq!(clock(now, Some(u64::MAX)).state(), "warning");
        assert_eq!(clock(UNIX_EPOCH, None).state(), "failed");
        for (free, state) in [(0, "failed"), (LITTLE - 1, "warning"), (LITTLE, "ok")] {
            assert_eq!(room(String::new(), free, LITTLE).state(), state, "{free}");
        }
    }
}
