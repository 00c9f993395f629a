//! What is downloaded gets a name that is harmless on every system, whatever it is called elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use super::store::{HIDDEN_PREFIX, StoreError};
use crate::disk;
use crate::wire::text::{FileName, is_invisible};

/// Longest name of a file, in bytes, on every system that matters.
const MAX_NAME_LEN: usize = 255;
/// Windows drops these at the end of a name.
const ENDS_NO_NAME: [char; 2] = ['.', ' '];
/// Numbers that are tried when a name is taken.
const MAX_COPIES: u32 = 10_000;

/// Gives what lies at `hidden` its name in `dir`: a prefix and a foreign name, or with a number behind it
/// when that is taken. `fail` says what it means that the system does not do it. Blocking.
///
/// # Errors
/// When the disk fails.
pub fn name_anew(
    hidden: &Path,
    dir: &Path,
    (prefix, name): (&str, &FileName),
    fail: impl Fn(&Path, &io::Error) -> StoreError,
) -> Result<PathBuf, StoreError> {
    let rename = |path: &Path| disk::rename_new(hidden, path);
    name_by(dir, (prefix, name.as_str()), fail, rename)
}

/// The same by another call, which must refuse a name that is taken. Blocking.
///
/// # Errors
/// As [`name_anew`].
pub fn name_by(
    dir: &Path,
    (prefix, name): (&str, &str),
    fail: impl Fn(&Path, &io::Error) -> StoreError,
    mut rename: impl FnMut(&Path) -> io::Result<()>,
) -> Result<PathBuf, StoreError> {
    for copy in 1..=MAX_COPIES {
        let path = dir.join(safe_file_name(prefix, name, copy));
        match rename(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fail(&path, &error)),
        }
    }
    let path = dir.join(safe_file_name(prefix, name, 1));
    let reason = "too many have this name there; move some of them away";
    Err(StoreError::lasting(&path, reason))
}

/// The name on disk of the `copy`th file with a foreign `name`: harmless on every system, whatever the
/// name is, and with its ending in sight.
#[must_use]
pub fn safe_file_name(prefix: &str, name: &str, copy: u32) -> String {
    use sanitise_file_name::{Options, sanitise_with_options};
    let number = if copy == 1 {
        String::new()
    } else {
        format!(" ({copy})")
    };
    let room = MAX_NAME_LEN.saturating_sub(prefix.len() + number.len());
    // What changes the reading direction would hide the real ending.
    let plain: String = name
        .chars()
        .map(|c| if is_invisible(c) { '_' } else { c })
        .collect();
    let options = Options {
        length_limit: room,
        trim_more_punctuation: false,
        ..Options::DEFAULT
    };
    let trimmed = plain.trim_end_matches(ENDS_NO_NAME);
    let mut cleaned = sanitise_with_options(trimmed, &options);
    cleaned.truncate(cleaned.trim_end_matches(ENDS_NO_NAME).len());
    if cleaned.is_empty() {
        cleaned.push('_');
    }
    if prefix.is_empty() && cleaned.starts_with(['.', '-', '~']) {
        cleaned.replace_range(..1, "_");
    }
    format!("{prefix}{cleaned}{number}")
}

/// The same for a name inside a folder, where a dot, a dash or a tilde may stand first: a repository is of no
/// use without its `.git`. Our own hidden names stay ours.
#[must_use]
pub fn safe_inner_name(name: &str, copy: u32) -> String {
    let first = name.chars().next().filter(|c| matches!(c, '.' | '-' | '~'));
    let rest = first.map_or(name, |first| &name[first.len_utf8()..]);
    if first.is_none() || rest.chars().all(|c| c == '.') {
        return safe_file_name("", name, copy);
    }
    let own = safe_file_name(&String::from_iter(first), rest, copy);
    // What was cleaned away may have stood before it.
    if own.starts_with(HIDDEN_PREFIX) {
        return safe_file_name("", name, copy);
    }
    own
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_harmless_on_every_system() {
        for name in [
            "..\\x",
            "C:\\x",
            "\\\\h\\s",
            "x:y",
            "CON",
            "com1.txt",
            "COM¹",
            "x.",
            "x ",
            "a\u{202e}gpj.exe",
            "-x",
            ".bashrc",
            "~",
            "a*b?c",
            "nul",
            "aux.h",
            "\u{feff}x",
        ] {
            let safe = safe_file_name("", name, 1);
            assert!(
                !safe.is_empty() && !safe.starts_with(['.', '-', '~']),
                "{name:?} became {safe:?}"
            );
            assert!(
                !safe.contains(['\\', ':', '*', '?', '\u{202e}']),
                "{name:?} became {safe:?}"
            );
            assert!(!safe.ends_with(['.', ' ']), "{name:?} became {safe:?}");
            assert!(
                !["con", "nul"].contains(&safe.to_lowercase().as_str()),
                "{name:?} became {safe:?}"
            );
        }
        assert_eq!(
            safe_file_name("downloaded_", "report.pdf", 1),
            "downloaded_report.pdf"
        );
        assert_eq!(
            safe_file_name("downloaded_", "Ωμέγα 1.txt", 2),
            "downloaded_Ωμέγα 1.txt (2)"
        );
        let long = safe_file_name("downloaded_", &format!("{}.tar.gz", "ä".repeat(120)), 12);
        assert!(
            long.len() <= MAX_NAME_LEN && long.ends_with(".gz (12)"),
            "{long}"
        );
    }

    #[test]
    fn inside_a_folder_names_keep_their_first_letter() {
        for name in [".git", ".bashrc", "-x", "~draft", "readme"] {
            assert_eq!(safe_inner_name(name, 1), name);
        }
        for name in [
            ".",
            "..",
            "...",
            ".p2pfs-1234.part",
            "..p2pfs-1234.part",
            ". .p2pfs-1234.part",
            ".\u{202e}",
            ".x:y",
            "-.",
        ] {
            let safe = safe_inner_name(name, 1);
            assert!(
                !safe.starts_with(HIDDEN_PREFIX) && safe.parse::<FileName>().is_ok(),
                "{safe}"
            );
            assert_ne!(safe, name);
        }
    }

    proptest! {
        #[test]
        fn a_name_in_a_folder_is_one_component(name in "[.~-]?\\PC{1,300}", copy in 1_u32..30) {
            let safe = safe_inner_name(&name, copy);
            prop_assert!(safe.len() <= MAX_NAME_LEN);
            prop_assert!(safe.parse::<FileName>().is_ok(), "{:?}", safe);
        }

        #[test]
        fn no_name_in_a_folder_becomes_a_hidden_one_of_ours(lead in "[ .~-]{0,4}", rest in "\\PC{0,20}") {
            let safe = safe_inner_name(&format!("{lead}p2pfs-{rest}"), 1);
            prop_assert!(!safe.starts_with(HIDDEN_PREFIX), "{:?}", safe);
        }

        #[test]
        fn a_name_on_disk_is_one_component(name in "\\PC{1,300}", copy in 1_u32..30) {
            let safe = safe_file_name("downloaded_", &name, copy);
            prop_assert!(safe.len() <= MAX_NAME_LEN);
            prop_assert!(safe.parse::<FileName>().is_ok(), "{:?}", safe);
        }
    }
}
