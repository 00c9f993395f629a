//! What shall be shared, here and at the next start.
//!
//! A path stays in it while it is gone or cannot be read: it is shared again when it is back, and
//! forgotten when somebody says so.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::ReadableTable as _;

use super::database::{Memory, SHARES};
use super::readers::Readers;
use super::shares::{Contents, Shared};
use crate::wire::codec;
use crate::wire::control::Publication;
use crate::wire::id::ContentId;
use crate::wire::text::FileName;

type Key = (FileName, PathBuf);

/// Names and paths; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Absent when nothing is to outlive this peer.
    memory: Option<Memory>,
    wanted: Arc<Mutex<Wanted>>,
}

#[derive(Debug, Default)]
struct Wanted {
    /// As they were published last.
    shares: BTreeMap<Key, Shared>,
    /// The same by content: what lies at several paths is one publication.
    by_content: BTreeSet<(ContentId, Key)>,
    /// Not written yet.
    changed: BTreeSet<Key>,
    /// What the next start does not share again, each with the mark of who said so last.
    passing: BTreeMap<Key, u64>,
    last_mark: u64,
    /// Those of the last start that nobody has looked at yet.
    unread: BTreeSet<Key>,
}

impl Kept {
    /// Kept in `memory`.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        Self {
            memory: Some(memory),
            wanted: Arc::default(),
        }
    }

    /// Knows what was shared at the last start, which is [`Self::unread`] from then on. Blocking.
    pub fn load(&self) {
        let database = self.memory.as_ref().and_then(Memory::database);
        let loaded = database.and_then(|database| {
            database.read(|now| {
                let mut loaded = Vec::new();
                for entry in now.open_table(SHARES)?.iter()? {
                    let (key, value) = entry?;
                    let (name, path) = key.value();
                    loaded.extend(parse(name, path, value.value()));
                }
                Ok(loaded)
            })
        });
        let loaded = loaded.unwrap_or_default();
        let mut wanted = self.wanted();
        for shared in loaded {
            let key = key_of(&shared);
            wanted.unread.insert(key.clone());
            if !wanted.shares.contains_key(&key) {
                wanted.insert(shared);
            }
        }
    }

    /// What was shared at the last start, as far as nobody has looked at it since.
    #[must_use]
    pub fn unread(&self) -> Vec<Shared> {
        let wanted = self.wanted();
        let unread = wanted.unread.iter();
        unread
            .filter_map(|key| wanted.shares.get(key))
            .cloned()
            .collect()
    }

    /// Somebody has looked at it.
    pub fn set_read(&self, shared: &Shared) {
        self.wanted().unread.remove(&key_of(shared));
    }

    /// Shares it at the next start too, from the next [`Self::flush`] on; returns what was shared of its path
    /// under its name before.
    pub fn add(&self, shared: &Shared) -> Option<Shared> {
        let mut wanted = self.wanted();
        let before = wanted.insert(shared.clone());
        let is_same = |before: &Shared| Record::of(before) == Record::of(shared);
        if !before.as_ref().is_some_and(is_same) {
            wanted.changed.insert(key_of(shared));
        }
        before
    }

    /// What shall be shared now of its path under its name.
    #[must_use]
    pub fn now(&self, shared: &Shared) -> Option<Shared> {
        self.wanted().shares.get(&key_of(shared)).cloned()
    }

    /// For whom this name and content are, from wherever they are shared: see [`Readers::of_all`].
    #[must_use]
    pub fn readers_of(&self, file: &Publication) -> Readers {
        let wanted = self.wanted();
        Readers::of_all(wanted.same(file).map(|shared| &shared.readers))
    }

    /// Forgets where else the same lies that was downloaded for us alone: somebody has decided whom it is for.
    pub fn decide(&self, shared: &Shared) {
        let mut wanted = self.wanted();
        let same = wanted.same(&shared.file);
        let own = same.filter(|other| other.path != shared.path);
        let own = own.filter(|other| other.readers == Readers::Nobody);
        let own: Vec<_> = own.map(key_of).collect();
        for key in own {
            wanted.remove(&key);
            wanted.changed.insert(key);
        }
    }

    /// The next start shares it again.
    pub fn stay(&self, shared: &Shared) {
        let mut wanted = self.wanted();
        let key = key_of(shared);
        if wanted.passing.remove(&key).is_some() {
            wanted.changed.insert(key);
        }
    }

    /// The next start does not share it again; returns a mark for [`Self::is_passing`].
    #[must_use]
    pub fn pass(&self, shared: &Shared) -> u64 {
        let mut wanted = self.wanted();
        let key = key_of(shared);
        wanted.last_mark += 1;
        let mark = wanted.last_mark;
        wanted.passing.insert(key.clone(), mark);
        wanted.changed.insert(key);
        mark
    }

    /// Did nobody share it anew since it got this mark?
    #[must_use]
    pub fn is_passing(&self, shared: &Shared, mark: u64) -> bool {
        self.wanted().passing.get(&key_of(shared)) == Some(&mark)
    }

    /// Forgets what is selected; returns it.
    pub fn remove(&self, selects: impl Fn(&Shared) -> bool) -> Vec<Shared> {
        let mut wanted = self.wanted();
        let selected = wanted.shares.values().filter(|shared| selects(shared));
        let keys: Vec<_> = selected.map(key_of).collect();
        let mut gone = Vec::new();
        for key in keys {
            gone.extend(wanted.remove(&key));
            wanted.passing.remove(&key);
            wanted.changed.insert(key);
        }
        gone
    }

    /// What shall be shared of the path, under each of its names.
    #[must_use]
    pub fn at(&self, path: &Path) -> Vec<Shared> {
        let wanted = self.wanted();
        let shares = wanted.shares.values();
        shares
            .filter(|shared| shared.path == path)
            .cloned()
            .collect()
    }

    /// Where else the same content shall be shared under the same name.
    #[must_use]
    pub fn others(&self, shared: &Shared) -> Vec<PathBuf> {
        let wanted = self.wanted();
        let same = wanted
            .shares
            .values()
            .filter(|other| other.file == shared.file);
        let others = same.filter(|other| other.path != shared.path);
        others.map(|other| other.path.clone()).collect()
    }

    /// Writes what changed, in one step. Blocking.
    pub fn flush(&self) {
        let changes: Vec<_> = {
            let mut wanted = self.wanted();
            let changed = std::mem::take(&mut wanted.changed);
            let with_record = changed.into_iter().map(|key| {
                let is_passing = wanted.passing.contains_key(&key);
                let shared = wanted.shares.get(&key).filter(|_| !is_passing);
                let record = shared.map(Record::of);
                (key, record)
            });
            with_record.collect()
        };
        if changes.is_empty() {
            return;
        }
        let Some(database) = self.memory.as_ref().and_then(Memory::database) else {
            return;
        };
        database.write(|transaction| {
            let mut table = transaction.open_table(SHARES)?;
            for ((name, path), record) in changes {
                let key = (name.as_str(), path.as_os_str().as_bytes());
                if let Some(record) = record {
                    table.insert(key, record.to_bytes().as_slice())?;
                } else {
                    table.remove(key)?;
                }
            }
            Ok(())
        });
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn insert(&mut self, shared: Shared) -> Option<Shared> {
        let key = key_of(&shared);
        let before = self.remove(&key);
        self.by_content.insert((shared.file.content, key.clone()));
        self.shares.insert(key, shared);
        before
    }

    fn remove(&mut self, key: &Key) -> Option<Shared> {
        let gone = self.shares.remove(key)?;
        self.by_content.remove(&(gone.file.content, key.clone()));
        Some(gone)
    }

    /// All that has this name and content.
    fn same(&self, file: &Publication) -> impl Iterator<Item = &Shared> {
        let first = (file.content, (file.name.clone(), PathBuf::new()));
        let same = self.by_content.range(first..);
        let same =
            same.take_while(|(content, (name, _))| *content == file.content && *name == file.name);
        same.filter_map(|(_, key)| self.shares.get(key))
    }
}

fn key_of(shared: &Shared) -> Key {
    (shared.file.name.clone(), shared.path.clone())
}

/// What is written of a share, beside its name and path.
#[derive(PartialEq, Eq)]
struct Record {
    file: Publication,
    /// Absent where no link was followed.
    real: Option<PathBuf>,
    is_download: bool,
    readers: Readers,
}

impl Record {
    fn of(shared: &Shared) -> Self {
        let real = Some(&shared.real).filter(|real| **real != shared.path);
        Self {
            file: shared.file.clone(),
            real: real.cloned(),
            is_download: shared.is_download,
            readers: shared.readers.clone(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode(&self.file, &mut bytes);
        let real = self.real.as_ref().map(|real| real.as_os_str().as_bytes());
        codec::encode(&(real, self.is_download), &mut bytes);
        self.readers.append(&mut bytes);
        bytes
    }
}

/// `None` for what we did not write.
fn parse(name: &str, path: &[u8], value: &[u8]) -> Option<Shared> {
    let (file, value) = codec::decode_first::<Publication>(value).ok()?;
    type More = (Option<Vec<u8>>, bool);
    let ((real, is_download), readers): (More, _) = match value {
        [] => Default::default(),
        value => codec::decode_first(value).ok()?,
    };
    let readers = Readers::parse(readers).ok()?;
    let as_path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let path = as_path(path);
    let is_ours = file.name.as_str() == name && path.is_absolute();
    is_ours.then(|| Shared {
        file,
        real: real.map_or_else(|| path.clone(), |real| as_path(&real)),
        path,
        is_download,
        readers,
        contents: Contents::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::PublicationKind;
    use crate::wire::id::ContentId;

    fn kept(dir: &tempfile::TempDir) -> Kept {
        let (events, _) = tokio::sync::mpsc::channel(1);
        Kept::new(Memory::new(Some(dir.path().to_owned()), events))
    }

    fn shared(name: &str, path: &[u8]) -> Shared {
        let file = Publication {
            name: name.parse().unwrap(),
            content: ContentId([7; 32]),
            len: 5,
            kind: PublicationKind::Folder,
        };
        let path = PathBuf::from(OsStr::from_bytes(path));
        Shared {
            file,
            real: path.clone(),
            path,
            is_download: name == "odd",
            readers: Readers::Everybody,
            contents: Contents::default(),
        }
    }

    #[test]
    fn what_was_shared_is_known_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let first = kept(&dir);
        let mut all = [
            shared("a", b"/x/a"),
            shared("a", b"/y/a"),
            shared("odd", b"/x/\xff"),
        ];
        let bob = (crate::wire::id::PeerId([2; 32]), "bob".parse().unwrap());
        (all[0].readers, all[2].readers) = (Readers::of([bob]).unwrap(), Readers::Nobody);
        all[2].real = Path::new(OsStr::from_bytes(b"/y/\xfe")).to_owned();
        for shared in &all {
            first.add(shared);
        }
        first.flush();
        assert_eq!(first.remove(|shared| shared.path == all[1].path).len(), 1);
        first.flush();
        drop(first);
        let second = kept(&dir);
        second.load();
        assert_eq!(second.unread(), [all[0].clone(), all[2].clone()]);
        second.set_read(&all[0]);
        assert_eq!(second.unread(), [all[2].clone()]);
        assert_eq!(second.now(&all[0]), Some(all[0].clone()));
        assert_eq!(second.now(&all[1]), None);
        assert_eq!(second.at(&all[2].path), [all[2].clone()]);
    }

    #[test]
    fn what_passes_is_unknown_at_the_next_start_unless_it_was_shared_anew() {
        let dir = tempfile::tempdir().unwrap();
        let first = kept(&dir);
        let all = [shared("a", b"/x/a"), shared("b", b"/x/b")];
        for shared in &all {
            first.add(shared);
        }
        first.flush();
        let marks = all.each_ref().map(|shared| first.pass(shared));
        assert!(first.now(&all[0]).is_some(), "for now");
        first.stay(&all[1]);
        first.flush();
        assert!(first.is_passing(&all[0], marks[0]) && !first.is_passing(&all[1], marks[1]));
        let again = first.pass(&all[0]);
        assert!(first.is_passing(&all[0], again) && !first.is_passing(&all[0], marks[0]));
        drop(first);
        let second = kept(&dir);
        second.load();
        assert_eq!(second.unread(), [all[1].clone()]);
    }

    #[test]
    fn without_a_state_directory_it_is_known_to_this_peer_only() {
        let kept = Kept::default();
        kept.add(&shared("a", b"/x/a"));
        kept.flush();
        assert_eq!(kept.at(Path::new("/x/a")).len(), 1);
        kept.load();
        assert!(kept.unread().is_empty());
    }
}
