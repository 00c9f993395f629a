//! The only file that creates, writes, syncs and renames.
//!
//! Private files are created unreadable to others by the very call that makes them; nothing here ever
//! follows or replaces what was there before, but for our own state files, which change atomically.

mod nameless;

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use zeroize::Zeroizing;

pub use self::nameless::Nameless;

/// Larger than any private file of ours, in bytes.
const MAX_PRIVATE_LEN: u64 = 1 << 20;
/// Damaged files that are kept beside the one in use.
const MAX_ASIDE: u32 = 5;

/// Why a private file is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// Group or others may read or write it.
    #[error("{} can be read by others; repair: chmod 600 {}", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// It belongs to somebody else.
    #[error("{} belongs to another user; repair: chown it, or move it away", .0.display())]
    Foreign(PathBuf),
    /// Not a plain file, or far too large.
    #[error("{} is not a file of p2pfs; move it away", .0.display())]
    NotOurs(PathBuf),
    /// The system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Creates `dir` and its parents, for the owner alone.
///
/// # Errors
/// What the system says.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Reads a file that only its owner may read; `None` when there is none.
///
/// # Errors
/// When it is exposed, foreign, no plain file, or cannot be read.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, PrivateFileError> {
    let io = |source| PrivateFileError::Io {
        path: path.to_owned(),
        source,
    };
    // O_NONBLOCK: a FIFO in its place must not hang us.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let found = file.metadata().map_err(io)?;
    if found.len() > MAX_PRIVATE_LEN {
        return Err(PrivateFileError::NotOurs(path.to_owned()));
    }
    check_private(path, &found)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(found.len()).unwrap_or(0),
    ));
    file.take(MAX_PRIVATE_LEN)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    Ok(Some(bytes))
}

/// Replaces `path` by a private file with `bytes`: after a crash it is the old one or the new one.
///
/// # Errors
/// What the system says; the old file is still there then.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, None)
}

/// Replaces `path` by a file with `bytes` and the rights that the user's other new files have, at most `mode`.
///
/// # Errors
/// As [`write_private`].
pub fn write_shown(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace(path, bytes, Some(mode))
}

fn replace(path: &Path, bytes: &[u8], mode: Option<u32>) -> io::Result<()> {
    let dir = path.parent().filter(|dir| *dir != Path::new(""));
    let dir = dir.unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".p2pfs-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    if let Some(mode) = mode {
        make_public(file.as_file(), mode);
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_dir(dir)
}

/// Waits for its turn to change `path`, until the returned file is dropped. The lock is a file beside it, for
/// the file itself is replaced.
///
/// # Errors
/// What the system says.
pub fn lock_private(path: &Path) -> io::Result<File> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.with_file_name(name))?;
    file.lock()?;
    Ok(file)
}

/// Opens a private file for reading and writing, and creates it when there is none.
///
/// # Errors
/// When it is exposed, foreign, no plain file, or cannot be opened.
pub fn open_private(path: &Path) -> Result<File, PrivateFileError> {
    let io = |source| PrivateFileError::Io {
        path: path.to_owned(),
        source,
    };
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .map_err(io)?;
    check_private(path, &file.metadata().map_err(io)?)?;
    Ok(file)
}

fn check_private(path: &Path, found: &Metadata) -> Result<(), PrivateFileError> {
    if !found.is_file() {
        return Err(PrivateFileError::NotOurs(path.to_owned()));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(PrivateFileError::Foreign(path.to_owned()));
    }
    if found.permissions().mode() & 0o077 != 0 {
        return Err(PrivateFileError::Exposed(path.to_owned()));
    }
    Ok(())
}

/// Opens a file of ours to which lines are added, and makes it one that others cannot read. It follows no link.
///
/// # Errors
/// What the system says; also when it is no plain file, somebody else's, or has another name as well.
pub fn append_private(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    // Where others may write, a name may be a trap: what is appended would go to another file.
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if found.nlink() > 1 {
        return Err(io::Error::other("it has another name as well"));
    }
    if found.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Gives the file at `path` the name `path.1`, the one that had it `path.2`, and so on; `keep` of them stay.
///
/// # Errors
/// What the system says.
pub fn rotate(path: &Path, keep: usize) -> io::Result<()> {
    if keep == 0 {
        return std::fs::remove_file(path);
    }
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..keep).rev() {
        match std::fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))
}

/// Gives a file of ours that is damaged another name, for whoever wants to look at it.
///
/// # Errors
/// What the system says; it has its old name then.
pub fn put_aside(dir: &Path, name: &str) -> io::Result<PathBuf> {
    for number in 1..=MAX_ASIDE {
        let other = format!("{name}.damaged-{number}");
        match rename_new(&dir.join(name), &dir.join(&other)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done.map(|()| dir.join(other)),
        }
    }
    // Nobody looked at the others either.
    let other = format!("{name}.damaged-{MAX_ASIDE}");
    std::fs::rename(dir.join(name), dir.join(&other)).map(|()| dir.join(other))
}

/// Makes the names in `dir` survive a power cut.
///
/// # Errors
/// What the system says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Bytes that may still be written into `dir`.
///
/// # Errors
/// What the system says.
pub fn free_space(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Creates a new file in `dir` with this name, for positioned writes; it never opens one that is there.
///
/// # Errors
/// When the name is taken, or the system says no.
pub fn create_new(dir: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(dir.join(name))
}

/// Opens a file of ours in `dir` for reading and writing; `None` when there is no plain file of this name.
///
/// # Errors
/// What the system says.
pub fn open_own(dir: &Path, name: &str) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(dir.join(name));
    match opened {
        Ok(file) => {
            let found = file.metadata()?;
            let is_ours = found.is_file() && is_ours(&found, dir)?;
            Ok(is_ours.then_some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A link in its place.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens a directory of ours, and keeps it to us; `None` when what lies there is none.
///
/// # Errors
/// What the system says.
pub fn open_own_dir(path: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let dir = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let found = dir.metadata()?;
    if !is_ours(&found, parent.unwrap_or(Path::new(".")))? {
        return Ok(None);
    }
    let mode = 0o700 | found.mode() & 0o2000;
    let _ = dir.set_permissions(std::fs::Permissions::from_mode(mode));
    Ok(Some(dir))
}

/// Did we make what was found in `dir`? Where others may write, they may have put it there, and could change
/// it later. Where they may not, a file system may name whom it likes as the owner.
fn is_ours(found: &Metadata, dir: &Path) -> io::Result<bool> {
    let is_own = found.uid() == rustix::process::geteuid().as_raw();
    Ok(is_own || std::fs::metadata(dir)?.mode() & 0o022 == 0)
}

/// Creates a directory; one that is there is fine, anything else in its place is not.
///
/// # Errors
/// What the system says.
pub fn create_dir(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_dir = std::fs::symlink_metadata(path)?.is_dir();
            is_dir.then_some(()).ok_or(error)
        }
        created => created,
    }
}

/// Writes a new file, with what a folder's listing says of it; it never opens one that is there.
///
/// # Errors
/// When the name is taken, or the system says no; nothing is left then.
pub fn write_new(
    path: &Path,
    bytes: &[u8],
    is_executable: bool,
    modified: (i64, u32),
) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(path)?;
    file.write_all(bytes)
        .and_then(|()| set_mode_and_time(&file, is_executable, modified))
        .inspect_err(|_| remove(path))
}

/// Sets what a folder's listing says of a file: may it be run, by those who may read it, and when it was
/// changed last, in seconds and nanoseconds since 1970.
///
/// # Errors
/// What the system says.
pub fn set_mode_and_time(file: &File, is_executable: bool, modified: (i64, u32)) -> io::Result<()> {
    use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};
    use rustix::io::Errno;
    make_public(file, if is_executable { 0o777 } else { 0o666 });
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.0,
            tv_nsec: modified.1.into(),
        },
    };
    match futimens(file, &times) {
        // A file system that does not know such a time.
        Err(Errno::INVAL | Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        done => Ok(done?),
    }
}

/// What the user's umask was before [`keep_private`].
static UMASK: OnceLock<u32> = OnceLock::new();

/// From now on, what this process creates is for the owner alone, until [`make_public`].
pub fn keep_private() {
    let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let _ = UMASK.set(before.bits());
}

/// Gives a finished download the rights that the user's other new files have, at most `mode`, where the file
/// system knows of rights.
pub fn make_public(file: &File, mode: u32) {
    let umask = UMASK.get().copied().unwrap_or(0o077);
    // What is made in a folder of a group belongs to that group.
    let group = file.metadata().map_or(0, |found| found.mode() & 0o2000);
    let _ = file.set_permissions(std::fs::Permissions::from_mode(mode & !umask | group));
}

/// Makes everything durable on the file system of `file`.
///
/// # Errors
/// What the system says.
pub fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

/// Removes a folder of ours with all that is in it; what is a link is removed, not followed.
pub fn remove_tree(path: &Path) {
    let _ = std::fs::remove_dir_all(path);
}

/// Is `path` still a name of `file`?
#[must_use]
pub fn is_at(file: &File, path: &Path) -> bool {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return false;
    };
    file.metadata()
        .is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

/// Has `file` no name any more?
#[must_use]
pub fn is_removed(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.nlink() == 0)
}

/// Gives the file or folder `from` the name `to`, unless that is taken: the system call itself decides.
///
/// # Errors
/// `AlreadyExists` when the name is taken; else what the system says.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, linkat, renameat_with, unlinkat};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that does not know the flag: a link does not replace anything either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            if std::fs::symlink_metadata(from)?.is_dir() {
                return rename_new_dir(from, to);
            }
            linkat(CWD, from, CWD, to, rustix::fs::AtFlags::empty())?;
            Ok(unlinkat(CWD, from, rustix::fs::AtFlags::empty())?)
        }
        done => Ok(done?),
    }
}

/// Folders cannot be linked: this takes the place of an empty one that we made.
fn rename_new_dir(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    std::fs::rename(from, to).inspect_err(|_| drop(std::fs::remove_dir(to)))
}

/// Removes a file of ours; one that is gone already is fine.
pub fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// The state directory is ours while this lives; the system frees it when the process ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another p2pfs holds it.
    #[error("already running (pid {pid}) with {}", dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The other process, as far as it wrote its number.
        pid: String,
    },
    /// The system said no.
    #[error("{}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Takes the state directory `dir` for this process.
///
/// # Errors
/// When another process holds it, or the system says no.
pub fn lock_dir(dir: &Path) -> Result<DirLock, LockError> {
    let io = |source| LockError::Io {
        dir: dir.to_owned(),
        source,
    };
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(20).read_to_string(&mut pid);
            return Err(LockError::Held {
                dir: dir.to_owned(),
                pid: pid.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(DirLock { _file: file })
}

/// Lets a write beyond the process's file size limit fail, instead of ending the process.
pub fn survive_size_limit() {
    use tokio::signal::unix::{SignalKind, signal};
    // The handler stays for the life of the process; what it would tell, the failed write tells.
    let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn private_files_are_private_and_survive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        assert!(read_private(&path).unwrap().is_none());
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_private(&path).unwrap().unwrap().as_slice(), b"two");
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(
            dir.path().read_dir().unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn an_exposed_private_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        write_private(&path, b"secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            read_private(&path),
            Err(PrivateFileError::Exposed(_))
        ));
        assert!(matches!(
            read_private(dir.path()),
            Err(PrivateFileError::NotOurs(_))
        ));
    }

    #[test]
    fn what_is_put_aside_replaces_nothing_and_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MAX_ASIDE + 2 {
            write_private(&dir.path().join("x"), &[0; 3]).unwrap();
            let aside = put_aside(dir.path(), "x").unwrap();
            let expected = format!("x.damaged-{}", (number + 1).min(MAX_ASIDE));
            assert!(aside.ends_with(expected), "{}", aside.display());
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), MAX_ASIDE as usize);
    }

    #[test]
    fn a_folder_gets_its_name_where_the_system_cannot_refuse_to_replace() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::write(from.join("x"), "1").unwrap();
        std::fs::create_dir(&to).unwrap();
        let error = rename_new_dir(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_dir(&to).unwrap();
        rename_new_dir(&from, &to).unwrap();
        assert!(to.join("x").exists() && !from.exists());
    }

    #[test]
    fn what_somebody_else_put_where_all_may_write_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        open_own_dir(&link).unwrap_err();
        let found = Path::new("/").metadata().unwrap();
        let is_own = found.uid() == rustix::process::geteuid().as_raw();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(is_ours(&found, dir.path()).unwrap(), is_own);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_ours(&found, dir.path()).unwrap());
    }

    #[test]
    fn a_state_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        create_private_dir(&state).unwrap();
        assert_eq!(mode_of(&state), 0o700);
        let lock = lock_dir(&state).unwrap();
        let Err(LockError::Held { pid, .. }) = lock_dir(&state) else {
            panic!("taken twice")
        };
        assert_eq!(pid, std::process::id().to_string());
        drop(lock);
        lock_dir(&state).unwrap();
    }
}
