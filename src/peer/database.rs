//! The file in which a peer remembers things across starts; a damaged one is put aside, never trusted.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use redb::backends::FileBackend;
use redb::{Builder, ReadTransaction, ReadableDatabase as _, TableDefinition, WriteTransaction};

use tokio::sync::mpsc;

use super::event::Event;
use crate::disk::{is_at, open_private, put_aside, remove, rename_new, sync_dir};

const FILE: &str = "shares.redb";
/// Its name until it is complete: whoever is ended while he makes it leaves no damaged one.
const NEW_FILE: &str = "shares.redb.new";
/// Memory for pages that were read or are to be written, in bytes.
const CACHE_LEN: usize = 16 << 20;

/// Hashes of files, by their stamps.
pub const HASHES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("hashes 1");
/// What is shared, by name and path.
pub const SHARES: TableDefinition<'static, (&str, &[u8]), &[u8]> = TableDefinition::new("shares 1");
/// Downloads that are not done, by their numbers.
pub const DOWNLOADS: TableDefinition<'static, u32, &[u8]> = TableDefinition::new("downloads 1");

/// The database of a peer, opened when it is needed first; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    state_dir: Option<PathBuf>,
    database: OnceLock<Option<Database>>,
    events: Option<mpsc::Sender<Event>>,
}

impl Memory {
    /// Kept in `state_dir`; without one nothing is kept. What people should know comes as an event.
    #[must_use]
    pub fn new(state_dir: Option<PathBuf>, events: mpsc::Sender<Event>) -> Self {
        Self(Arc::new(Slot {
            state_dir,
            database: OnceLock::new(),
            events: Some(events),
        }))
    }

    /// The database, if there is one. Blocking, the first time.
    #[must_use]
    pub fn database(&self) -> Option<&Database> {
        let slot = &*self.0;
        let open = || {
            let (mut database, line) = Database::open(slot.state_dir.as_deref()?);
            if let (Some(text), Some(events)) = (line, &slot.events) {
                let _ = events.try_send(Event::Warning { text });
            }
            if let Some(database) = &mut database {
                database.events.clone_from(&slot.events);
            }
            database
        };
        slot.database.get_or_init(open).as_ref()
    }

    /// The database, if there was one at the start of this peer or it was opened since. Blocking.
    #[must_use]
    pub fn existing(&self) -> Option<&Database> {
        let is_there = |dir: &PathBuf| dir.join(FILE).exists();
        let state_dir = self.0.state_dir.as_ref().filter(|dir| is_there(dir));
        state_dir.and_then(|_| self.database())
    }

    /// The database, if it was opened.
    #[must_use]
    pub fn opened(&self) -> Option<&Database> {
        self.0.database.get()?.as_ref()
    }
}

/// An open database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    file: Arc<Guarded>,
    /// It failed once: it is left alone until the next start.
    is_broken: Arc<AtomicBool>,
    /// Where it should lie, and what does.
    path: PathBuf,
    opened: Arc<File>,
    /// Who is told when it fails.
    events: Option<mpsc::Sender<Event>>,
}

impl Database {
    /// The one in `state_dir`, and what people should know of it: when it is damaged there is a new one,
    /// when it cannot be had there is none. Blocking.
    #[must_use]
    pub fn open(state_dir: &Path) -> (Option<Self>, Option<String>) {
        let reason = match open(state_dir) {
            Ok(database) => return (Some(database), None),
            Err(Failure::Refused(reason)) => {
                let line =
                    format!("{reason}: hashes, shares and unfinished downloads will be forgotten");
                return (None, Some(line));
            }
            Err(Failure::Damaged(reason)) => reason,
        };
        let opened = put_aside(state_dir, FILE)
            .map_err(|error| error.to_string())
            .and_then(|aside| Ok((aside, open(state_dir).map_err(Failure::text)?)));
        match opened {
            Ok((aside, database)) => {
                let line = format!(
                    "hashes, shares and unfinished downloads were lost: {FILE} was damaged ({reason}); it is kept as {}",
                    aside.display()
                );
                (Some(database), Some(line))
            }
            Err(error) => {
                let line = format!(
                    "{FILE} is damaged ({reason}) and cannot be replaced ({error}): hashes, shares and unfinished downloads will be forgotten"
                );
                (None, Some(line))
            }
        }
    }

    /// Looks at one state of it. `None` when that fails, which is told once.
    pub fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Option<T> {
        self.guarded(|| look(&self.file.get()?.begin_read()?))
    }

    /// Changes it, all at once or not at all. `None` when that fails, which is told once.
    pub fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Option<T> {
        self.guarded(|| {
            let transaction = self.file.get()?.begin_write()?;
            let changed = change(&transaction)?;
            transaction.commit()?;
            if is_at(&self.opened, &self.path) {
                Ok(changed)
            } else {
                // What is written there, nobody finds at the next start.
                let gone = std::io::Error::other("somebody removed it");
                Err(redb::Error::Io(gone))
            }
        })
    }

    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, redb::Error>) -> Option<T> {
        if self.is_broken.load(Ordering::Relaxed) {
            return None;
        }
        match without_panic(work) {
            Ok(done) => Some(done),
            Err(failure) => {
                let reason = failure.text();
                tracing::debug!(%reason, "{FILE} fails and is left alone until the next start");
                if !self.is_broken.swap(true, Ordering::Relaxed)
                    && let Some(events) = &self.events
                {
                    let reason = reason.strip_prefix(&format!("{FILE}: ")).unwrap_or(&reason);
                    let text = format!(
                        "{} fails ({reason}): from now on, hashes, shares and unfinished downloads will be forgotten",
                        self.path.display()
                    );
                    let _ = events.try_send(Event::Warning { text });
                }
                None
            }
        }
    }
}

/// Closing a damaged one may fail as well.
#[derive(Debug)]
struct Guarded(Option<redb::Database>);

impl Guarded {
    fn get(&self) -> Result<&redb::Database, redb::Error> {
        let closed = || redb::Error::Corrupted("it is closed".to_owned());
        self.0.as_ref().ok_or_else(closed)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let file = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(file)));
    }
}

/// Why there is no database.
enum Failure {
    /// The system, or somebody's rights, stand in the way.
    Refused(String),
    /// What it holds is not what was written.
    Damaged(String),
}

impl Failure {
    fn text(self) -> String {
        match self {
            Self::Refused(text) | Self::Damaged(text) => text,
        }
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => {
                Self::Refused(format!("{FILE}: {error}"))
            }
            other => Self::Damaged(other.to_string()),
        }
    }
}

fn open(state_dir: &Path) -> Result<Database, Failure> {
    let path = state_dir.join(FILE);
    if path.symlink_metadata().is_ok() {
        return open_at(&path);
    }
    let new = state_dir.join(NEW_FILE);
    remove(&new);
    let mut database = open_at(&new)?;
    let refused = |error| Failure::Refused(format!("{}: {error}", path.display()));
    rename_new(&new, &path)
        .and_then(|()| sync_dir(state_dir))
        .map_err(refused)?;
    database.path = path;
    Ok(database)
}

fn open_at(path: &Path) -> Result<Database, Failure> {
    let file = open_private(path).map_err(|error| Failure::Refused(error.to_string()))?;
    without_panic(|| {
        let opened = Arc::new(file.try_clone()?);
        let file = Builder::new()
            .set_cache_size(CACHE_LEN)
            .create_with_backend(FileBackend::new(file)?)?;
        let transaction = file.begin_write()?;
        transaction.open_table(HASHES)?;
        transaction.open_table(SHARES)?;
        transaction.open_table(DOWNLOADS)?;
        transaction.commit()?;
        Ok(Database {
            file: Arc::new(Guarded(Some(file))),
            is_broken: Arc::default(),
            path: path.to_owned(),
            opened,
            events: None,
        })
    })
}

/// Bytes that somebody changed may lead the library to a panic instead of an error.
fn without_panic<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Damaged("it makes no sense".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use redb::ReadableTableMetadata as _;

    use super::*;

    fn fill(database: &Database, entries: u32) {
        let filled = database.write(|transaction| {
            let mut table = transaction.open_table(HASHES)?;
            for number in 0..entries {
                table.insert(&number.to_le_bytes()[..], &[7; 100][..])?;
            }
            Ok(())
        });
        assert_eq!(filled, Some(()));
    }

    fn count(database: &Database) -> Option<u64> {
        database.read(|transaction| Ok(transaction.open_table(HASHES)?.len()?))
    }

    #[test]
    fn what_was_written_is_there_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let (database, line) = Database::open(dir.path());
        assert_eq!(line, None);
        fill(&database.unwrap(), 10);
        let (database, line) = Database::open(dir.path());
        assert_eq!((count(&database.unwrap()), line), (Some(10), None));
    }

    /// What a first start leaves that is ended at any moment.
    #[test]
    fn what_was_not_made_to_its_end_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        drop(Database::open(dir.path()));
        let (path, new) = (dir.path().join(FILE), dir.path().join(NEW_FILE));
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 1, 512, whole.len() / 2, whole.len()] {
            std::fs::remove_file(&path).unwrap();
            crate::disk::write_private(&new, &whole[..len]).unwrap();
            let (database, line) = Database::open(dir.path());
            assert_eq!((count(&database.unwrap()), line), (Some(0), None), "{len}");
            assert!(path.exists() && !new.exists(), "{len}");
        }
    }

    #[test]
    fn a_damaged_store_is_kept_aside_and_a_fresh_one_takes_its_place() {
        let garbage: &[u8] = &[0x5a; 9000];
        for (number, bytes) in [garbage, b"", b"p2pfs"].into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            fill(&Database::open(dir.path()).0.unwrap(), 10);
            crate::disk::write_private(&dir.path().join(FILE), bytes).unwrap();
            let (database, line) = Database::open(dir.path());
            let database = database.unwrap();
            assert_eq!(count(&database), Some(0), "case {number}");
            fill(&database, 3);
            if !bytes.is_empty() {
                let line = line.unwrap();
                assert!(line.contains("damaged-1") && !line.contains('\n'), "{line}");
                let aside = dir.path().join("shares.redb.damaged-1");
                assert_eq!(std::fs::read(aside).unwrap(), bytes);
            }
        }
    }

    /// Bits turn anywhere, the end is cut off anywhere: there is a database all the same, at the latest
    /// at the next start.
    #[test]
    fn whatever_is_damaged_there_is_a_store() {
        let dir = tempfile::tempdir().unwrap();
        fill(&Database::open(dir.path()).0.unwrap(), 200);
        let path = dir.path().join(FILE);
        let sound = std::fs::read(&path).unwrap();
        let step = sound.len() / 60;
        for at in (0..sound.len()).step_by(step) {
            for is_cut in [false, true] {
                let mut bytes = sound.clone();
                if is_cut {
                    bytes.truncate(at);
                } else {
                    bytes[at] ^= 0x81;
                }
                crate::disk::write_private(&path, &bytes).unwrap();
                let (database, _line) = Database::open(dir.path());
                let database = database.unwrap();
                let _ = count(&database);
                let _ = database.write(|transaction| {
                    transaction.open_table(HASHES)?.insert(&[1][..], &[1][..])?;
                    Ok(())
                });
            }
        }
    }

    #[test]
    fn who_loses_the_store_while_it_is_in_use_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        crate::disk::create_private_dir(&state).unwrap();
        let (events, mut told) = mpsc::channel(8);
        let memory = Memory::new(Some(state.clone()), events);
        fill(memory.database().unwrap(), 3);
        assert!(told.try_recv().is_err());
        std::fs::remove_dir_all(&state).unwrap();
        let change = |_: &WriteTransaction| Ok(());
        for _ in 0..3 {
            assert_eq!(memory.database().unwrap().write(change), None);
        }
        let Ok(Event::Warning { text }) = told.try_recv() else {
            panic!("nothing is told")
        };
        assert!(
            text.contains("will be forgotten") && !text.contains('\n'),
            "{text}"
        );
        assert!(told.try_recv().is_err(), "told twice");
    }

    #[test]
    fn a_store_that_others_can_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        drop(Database::open(dir.path()));
        let path = dir.path().join(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (database, line) = Database::open(dir.path());
        assert!(database.is_none());
        assert!(line.unwrap().contains("chmod 600"));
    }
}
