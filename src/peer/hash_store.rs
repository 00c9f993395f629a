//! Hashes of files that did not change since they were read, so that nothing is read twice.
//!
//! A file is known again by its stamp: device, inode, length, and both its times to the nanosecond. One
//! that was changed less than two seconds before it was read is not kept: the next change may have left
//! the same stamp.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::ReadOnlyTable;

use super::database::{Database, HASHES, Memory};
use super::hashing::{Hashed, Stamp};
use crate::crypto::content::{Hash, Tree};
use crate::wire::id::ContentId;
use crate::wire::pieces::Layout;

/// Days after which the hashes of a file that was not seen again are forgotten.
const KEPT_DAYS: u32 = 30;
/// Pieces of the largest file whose hashes are kept: 4 TiB.
const MAX_PIECES: u32 = 1 << 22;
const CHECK_LEN: usize = 8;

/// The key under which stands when old entries were looked for last; no stamp is as short.
const PRUNED: &[u8] = b"pruned";

/// The hashes kept in a database; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HashStore {
    memory: Memory,
    /// Not written yet: one step for many files.
    pending: Arc<Mutex<Vec<Hashed>>>,
}

/// What is known of files at one moment.
#[derive(Default)]
pub struct Known {
    kept: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    today: u32,
    /// Of what is shared now, for peers that keep nothing.
    shared: HashMap<Stamp, Arc<Tree>>,
}

/// The hashes of a file that did not change.
pub struct Found {
    /// They.
    pub tree: Arc<Tree>,
    /// It was told today that the file is still in use.
    pub is_marked: bool,
}

impl HashStore {
    /// Those in `memory`.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        Self {
            memory,
            pending: Arc::default(),
        }
    }

    /// What is known now. Blocking.
    #[must_use]
    pub fn known(&self) -> Known {
        let today = today();
        let kept = self.memory.database().and_then(|database| {
            prune(database, today);
            database.read(|now| Ok(now.open_table(HASHES)?))
        });
        Known {
            kept,
            today,
            shared: HashMap::new(),
        }
    }

    /// Keeps the hashes of these files from the next [`Self::flush`] on.
    pub fn keep(&self, files: impl Iterator<Item = Hashed>) {
        if self.memory.opened().is_some() {
            let is_kept =
                |file: &Hashed| file.is_settled && file.tree.layout().count() <= MAX_PIECES;
            self.pending().extend(files.filter(is_kept));
        }
    }

    /// Writes what is to be kept, in one step. Blocking.
    pub fn flush(&self) {
        let files = std::mem::take(&mut *self.pending());
        let Some(database) = self.memory.opened().filter(|_| !files.is_empty()) else {
            return;
        };
        let today = today();
        database.write(|transaction| {
            let mut table = transaction.open_table(HASHES)?;
            let mut value = Vec::new();
            for file in files {
                let key = file.stamp.to_bytes();
                encode(&key, today, &file.tree, &mut value);
                table.insert(&key[..], value.as_slice())?;
            }
            Ok(())
        });
    }

    fn pending(&self) -> MutexGuard<'_, Vec<Hashed>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what was not seen for long; once a day.
fn prune(database: &Database, today: u32) {
    let day = today.to_le_bytes();
    let is_done = database.read(|now| {
        let pruned = now.open_table(HASHES)?.get(PRUNED)?;
        Ok(pruned.is_some_and(|pruned| pruned.value() == day))
    });
    if is_done != Some(false) {
        return;
    }
    database.write(|transaction| {
        let mut table = transaction.open_table(HASHES)?;
        table.retain(|key, value| {
            parse(key, value).is_some_and(|(day, ..)| day.saturating_add(KEPT_DAYS) >= today)
        })?;
        table.insert(PRUNED, &day[..])?;
        Ok(())
    });
}

impl Known {
    /// Adds what is known of a file that is shared now.
    pub fn add(&mut self, file: &Hashed) {
        if file.is_settled {
            self.shared.insert(file.stamp, Arc::clone(&file.tree));
        }
    }

    /// The hashes of the file with this stamp.
    #[must_use]
    pub fn find(&self, stamp: &Stamp) -> Option<Found> {
        let kept = || {
            let key = stamp.to_bytes();
            let value = self.kept.as_ref()?.get(&key[..]).ok()??;
            let (day, id, hashes) = parse(&key, value.value())?;
            Some(Found {
                tree: Arc::new(tree(stamp.len, id, hashes)?),
                is_marked: day == self.today,
            })
        };
        let shared = || {
            let tree = Arc::clone(self.shared.get(stamp)?);
            let is_marked = true;
            Some(Found { tree, is_marked })
        };
        kept().or_else(shared)
    }
}

fn encode(key: &[u8], day: u32, tree: &Tree, value: &mut Vec<u8>) {
    value.clear();
    value.extend_from_slice(&[0; CHECK_LEN]);
    value.extend_from_slice(&day.to_le_bytes());
    value.extend_from_slice(&tree.id().0);
    if tree.layout().count() > 1 {
        let hashes = tree
            .layout()
            .pieces()
            .filter_map(|piece| tree.hash_of(piece));
        hashes.for_each(|hash| value.extend_from_slice(&hash));
    }
    let check = check_of(key, &value[CHECK_LEN..]);
    value[..CHECK_LEN].copy_from_slice(&check);
}

/// The day, the id, and the hashes of all pieces where there are several; `None` for anything else than
/// what [`encode`] wrote under this key.
fn parse<'a>(key: &[u8], value: &'a [u8]) -> Option<(u32, ContentId, &'a [Hash])> {
    let (check, rest) = value.split_first_chunk::<CHECK_LEN>()?;
    if *check != check_of(key, rest) {
        return None;
    }
    let (day, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (hashes, rest) = rest.as_chunks();
    rest.is_empty()
        .then_some((u32::from_le_bytes(*day), ContentId(*id), hashes))
}

fn check_of(key: &[u8], rest: &[u8]) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key).update(rest);
    let hash = hasher.finalize();
    *hash.as_bytes().first_chunk().expect("BLAKE3 has 32 bytes")
}

fn tree(len: u64, id: ContentId, hashes: &[Hash]) -> Option<Tree> {
    let layout = Layout::new(len).ok()?;
    let hashes = if layout.count() == 1 && hashes.is_empty() {
        vec![id.0]
    } else {
        hashes.to_vec()
    };
    let is_complete = hashes.len() == layout.count() as usize;
    let tree = is_complete.then(|| Tree::new(layout, hashes))?;
    (tree.id() == id).then_some(tree)
}

/// Days since 1970.
fn today() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let days = since.map_or(0, |since| since.as_secs() / 86_400);
    u32::try_from(days).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &tempfile::TempDir) -> HashStore {
        let (events, _) = tokio::sync::mpsc::channel(1);
        let store = HashStore::new(Memory::new(Some(dir.path().to_owned()), events));
        let _ = store.known();
        store
    }

    fn keep(store: &HashStore, file: &Hashed) {
        store.keep([file.clone()].into_iter());
        store.flush();
    }

    fn hashed(len: u64, inode: u64) -> Hashed {
        let layout = Layout::new(len).unwrap();
        let hashes = layout.pieces().map(|piece| {
            let number = piece.get().to_le_bytes();
            *blake3::hash(&number).as_bytes()
        });
        Hashed {
            stamp: Stamp {
                len,
                modified: (1_000_000, 5),
                changed: (1_000_000, 6),
                inode: (1, inode),
            },
            is_settled: true,
            tree: Arc::new(Tree::new(layout, hashes.collect())),
        }
    }

    #[test]
    fn hashes_are_found_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> = [0, 1, 1 << 20, (1 << 20) + 1, (1 << 30) + 1]
            .into_iter()
            .map(|len| hashed(len, len))
            .collect();
        let store_of_now = store(&dir);
        store_of_now.keep(files.iter().cloned());
        store_of_now.flush();
        drop(store_of_now);
        let store_of_later = store(&dir);
        let known = store_of_later.known();
        for file in &files {
            let found = known.find(&file.stamp).unwrap();
            assert_eq!(found.tree, file.tree);
            assert!(found.is_marked);
        }
    }

    #[test]
    fn any_other_stamp_is_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        let file = hashed(5, 1);
        keep(&store, &file);
        let known = store.known();
        assert!(known.find(&file.stamp).is_some());
        let other = |change: fn(&mut Stamp)| {
            let mut stamp = file.stamp;
            change(&mut stamp);
            known.find(&stamp).is_none()
        };
        assert!(other(|stamp| stamp.len += 1));
        assert!(other(|stamp| stamp.modified.1 += 1));
        assert!(other(|stamp| stamp.changed.1 += 1));
        assert!(other(|stamp| stamp.inode.0 += 1));
        assert!(other(|stamp| stamp.inode.1 += 1));
    }

    #[test]
    fn what_was_read_right_after_a_change_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut file) = (store(&dir), hashed(5, 1));
        file.is_settled = false;
        keep(&store, &file);
        let mut known = store.known();
        known.add(&file);
        assert!(known.find(&file.stamp).is_none());
    }

    #[test]
    fn what_was_not_seen_for_a_month_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (store, file) = (store(&dir), hashed(5, 1));
        keep(&store, &file);
        prune(store.memory.opened().unwrap(), today() + KEPT_DAYS);
        assert!(store.known().find(&file.stamp).is_some());
        prune(store.memory.opened().unwrap(), today() + KEPT_DAYS + 1);
        assert!(store.known().find(&file.stamp).is_none());
    }

    #[test]
    fn a_turned_bit_is_never_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let (store, file) = (store(&dir), hashed((1 << 20) + 1, 1));
        let key = file.stamp.to_bytes();
        let mut value = Vec::new();
        encode(&key, today(), &file.tree, &mut value);
        for at in 0..value.len() {
            let mut other = value.clone();
            other[at] ^= 1;
            store.memory.opened().unwrap().write(|transaction| {
                let mut table = transaction.open_table(HASHES)?;
                table.insert(&key[..], other.as_slice())?;
                Ok(())
            });
            assert!(store.known().find(&file.stamp).is_none(), "byte {at}");
        }
    }
}
