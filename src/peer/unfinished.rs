//! Downloads that are not done, here and at the next start.
//!
//! A record is written when its download begins, is paused or goes on, is about to get its final name, and
//! is removed when it ends. What is read at a start is either what was written or passed over:
//!
//! ```text
//! │ version 1 │ BLAKE3 of the body 8 │ body: postcard of Record │
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::ReadableTable as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::database::{DOWNLOADS, Memory};
use super::keeper::Restart;
use super::store::is_part_left;
use super::transfers::{Aim, TransferId};
use super::unpack;
use crate::wire::codec;
use crate::wire::control::Publication;
use crate::wire::id::PeerId;

const VERSION: u8 = 1;
const CHECK_LEN: usize = 8;
/// A number beyond it was not written by us: numbers are counted on from the largest.
const MAX_ID: TransferId = TransferId::MAX / 2;

/// What the next start needs to go on with a download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    file: Publication,
    from: Option<PeerId>,
    dir: Vec<u8>,
    /// It waits until somebody says that it shall go on.
    pub is_paused: bool,
    /// It may have its final name already.
    pub is_finishing: bool,
    /// Verified bytes when it was paused.
    pub done: u64,
    /// All bytes, as far as known then.
    pub len: u64,
    /// It is for chosen people only. Written behind the rest, where it is so.
    #[serde(skip)]
    is_restricted: bool,
}

impl Record {
    /// Of a download that begins.
    #[must_use]
    pub fn new(aim: &Aim) -> Self {
        Self {
            file: aim.file.clone(),
            from: aim.from,
            dir: aim.dir.clone().into_os_string().into_vec(),
            is_paused: false,
            is_finishing: false,
            done: 0,
            len: aim.file.len,
            is_restricted: aim.is_restricted,
        }
    }

    /// What it brings.
    #[must_use]
    pub fn aim(&self) -> Aim {
        Aim {
            file: self.file.clone(),
            from: self.from,
            dir: self.dir().to_owned(),
            is_restricted: self.is_restricted,
        }
    }

    fn dir(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.dir))
    }

    /// Did the last run end between the final name and the moment when it would have been forgotten?
    fn has_ended(&self) -> bool {
        let is_left = if self.file.kind.is_folder() {
            unpack::is_left
        } else {
            is_part_left
        };
        let dir = self.dir();
        self.is_finishing && dir.is_dir() && !is_left(dir, self.file.content)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        codec::encode(self, &mut body);
        if self.is_restricted {
            codec::encode(&true, &mut body);
        }
        let mut bytes = vec![VERSION];
        bytes.extend(check(&body));
        bytes.extend(body);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (version, rest) = bytes.split_first().ok_or(Unreadable::Damaged)?;
        if *version > VERSION {
            return Err(Unreadable::Newer);
        }
        let (found, body) = rest
            .split_first_chunk::<CHECK_LEN>()
            .ok_or(Unreadable::Damaged)?;
        if *found != check(body) {
            return Err(Unreadable::Damaged);
        }
        let (mut record, rest): (Self, _) =
            codec::decode_first(body).map_err(|_| Unreadable::Damaged)?;
        record.is_restricted = !rest.is_empty();
        let is_ours = record.dir().is_absolute();
        is_ours.then_some(record).ok_or(Unreadable::Damaged)
    }
}

fn check(body: &[u8]) -> [u8; CHECK_LEN] {
    let hash = *blake3::hash(body).as_bytes();
    *hash.first_chunk().expect("a hash has 32 bytes")
}

enum Unreadable {
    /// A later version wrote it: it is left to that.
    Newer,
    /// It is not what was written.
    Damaged,
}

/// What the last start has left.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The downloads in the order of their numbers.
    pub records: Vec<(TransferId, Record)>,
    /// What people should know of those that cannot be gone on with.
    pub line: Option<String>,
}

/// All of them; cheap to clone.
#[derive(Clone, Debug)]
pub struct Unfinished(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Memory,
    /// Whether what this peer begins is gone on with.
    restart: Restart,
    state: Mutex<State>,
    /// Who writes is alone: an older state must not come after a newer one.
    writing: Mutex<()>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<TransferId, Record>,
    /// Not written yet.
    changed: BTreeSet<TransferId>,
    /// Numbers of records that are left alone.
    taken: BTreeSet<TransferId>,
}

impl Unfinished {
    /// Kept in `memory`, unless this peer has one thing to do.
    #[must_use]
    pub fn new(memory: Memory, restart: Restart) -> Self {
        Self(Arc::new(Inner {
            memory,
            restart,
            state: Mutex::default(),
            writing: Mutex::default(),
            news: Notify::new(),
        }))
    }

    /// What the last start has left. Blocking.
    #[must_use]
    pub fn load(&self) -> Loaded {
        let mut loaded = Loaded::default();
        if self.0.restart == Restart::Ignores {
            return loaded;
        }
        let database = self.0.memory.existing();
        let read = database.and_then(|database| {
            database.read(|now| {
                let mut read = Vec::new();
                for entry in now.open_table(DOWNLOADS)?.iter()? {
                    let (id, value) = entry?;
                    let is_ours = id.value() <= MAX_ID;
                    let record = Record::parse(value.value());
                    let record = record
                        .and_then(|record| is_ours.then_some(record).ok_or(Unreadable::Damaged));
                    read.push((id.value(), record));
                }
                Ok(read)
            })
        });
        let (mut newer, mut damaged) = (0, 0);
        let mut state = self.state();
        for (id, record) in read.unwrap_or_default() {
            match record {
                Ok(record) if record.has_ended() => drop(state.changed.insert(id)),
                Ok(record) => {
                    state.records.insert(id, record.clone());
                    loaded.records.push((id, record));
                }
                Err(Unreadable::Newer) => {
                    newer += 1;
                    state.taken.insert(id);
                }
                Err(Unreadable::Damaged) => {
                    damaged += 1;
                    state.changed.insert(id);
                }
            }
        }
        let line = |count: u32, why: &str| {
            (count > 0).then(|| format!("unfinished downloads that {why}: {count}"))
        };
        let lines = [
            line(newer, "a newer p2pfs has to go on with"),
            line(damaged, "were damaged and are forgotten"),
        ];
        let lines: Vec<_> = lines.into_iter().flatten().collect();
        loaded.line = (!lines.is_empty()).then(|| lines.join("; "));
        drop(state);
        self.0.news.notify_one();
        loaded
    }

    /// Is this number that of a record that is left alone?
    #[must_use]
    pub fn is_taken(&self, id: TransferId) -> bool {
        self.state().taken.contains(&id)
    }

    /// A download begins.
    pub fn note(&self, id: TransferId, record: Record) {
        if self.0.restart == Restart::Restores {
            let mut state = self.state();
            state.records.insert(id, record);
            state.changed.insert(id);
            drop(state);
            self.0.news.notify_one();
        }
    }

    /// Something of a download has changed.
    pub fn change(&self, id: TransferId, change: impl FnOnce(&mut Record)) {
        let mut state = self.state();
        if let Some(record) = state.records.get_mut(&id) {
            change(record);
            state.changed.insert(id);
            drop(state);
            self.0.news.notify_one();
        }
    }

    /// A download has ended.
    pub fn forget(&self, id: TransferId) {
        let mut state = self.state();
        if state.records.remove(&id).is_some() {
            state.changed.insert(id);
            drop(state);
            self.0.news.notify_one();
        }
    }

    /// A peer that has one thing to do has done what an earlier one left: nobody goes on with it. Blocking.
    pub fn forget_done(&self, aim: &Aim) {
        if self.0.restart == Restart::Restores {
            return;
        }
        let Some(database) = self.0.memory.existing() else {
            return;
        };
        let is_done = |value: &[u8]| {
            Record::parse(value).is_ok_and(|record| {
                let (theirs, ours) = (&record.file, &aim.file);
                (theirs.content, theirs.kind, record.dir()) == (ours.content, ours.kind, &aim.dir)
            })
        };
        let any = database.read(|now| {
            let mut found = Vec::new();
            for entry in now.open_table(DOWNLOADS)?.iter()? {
                let (id, value) = entry?;
                found.extend(is_done(value.value()).then(|| id.value()));
            }
            Ok(found)
        });
        let found = any.unwrap_or_default();
        if !found.is_empty() {
            database.write(|transaction| {
                let mut table = transaction.open_table(DOWNLOADS)?;
                for id in found {
                    table.remove(id)?;
                }
                Ok(())
            });
        }
    }

    /// Waits until there is something to write.
    pub async fn changed(&self) {
        self.0.news.notified().await;
    }

    /// Writes what changed, in one step. Blocking.
    pub fn flush(&self) {
        let _alone = self
            .0
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let changes: Vec<_> = {
            let mut state = self.state();
            let changed = std::mem::take(&mut state.changed);
            let with_record = |id| (id, state.records.get(&id).map(Record::to_bytes));
            changed.into_iter().map(with_record).collect()
        };
        if changes.is_empty() {
            return;
        }
        let Some(database) = self.0.memory.database() else {
            return;
        };
        database.write(|transaction| {
            let mut table = transaction.open_table(DOWNLOADS)?;
            for (id, bytes) in changes {
                match bytes {
                    Some(bytes) => drop(table.insert(id, bytes.as_slice())?),
                    None => drop(table.remove(id)?),
                }
            }
            Ok(())
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::PublicationKind;
    use crate::wire::id::ContentId;

    fn open(dir: &tempfile::TempDir, restart: Restart) -> Unfinished {
        let (events, _) = tokio::sync::mpsc::channel(1);
        Unfinished::new(Memory::new(Some(dir.path().to_owned()), events), restart)
    }

    fn aim(number: u8, dir: &Path) -> Aim {
        Aim {
            file: Publication {
                name: "talk.mp4".parse().unwrap(),
                content: ContentId([number; 32]),
                len: 5,
                kind: PublicationKind::File,
            },
            from: Some(PeerId([number; 32])),
            dir: dir.to_owned(),
            is_restricted: number == 3,
        }
    }

    fn numbers(loaded: &Loaded) -> Vec<TransferId> {
        loaded.records.iter().map(|(id, _)| *id).collect()
    }

    /// Writes bytes as the record of this number.
    fn put(dir: &tempfile::TempDir, id: TransferId, bytes: &[u8]) {
        let unfinished = open(dir, Restart::Restores);
        let database = unfinished.0.memory.database().unwrap();
        let written = database.write(|transaction| {
            transaction.open_table(DOWNLOADS)?.insert(id, bytes)?;
            Ok(())
        });
        assert_eq!(written, Some(()));
    }

    #[test]
    fn what_did_not_end_is_there_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let odd = Path::new(OsStr::from_bytes(b"/x/\xff"));
        let first = open(&dir, Restart::Restores);
        for number in 1..=4 {
            first.note(number.into(), Record::new(&aim(number, odd)));
        }
        first.flush();
        first.change(2, |record| record.is_paused = true);
        first.forget(3);
        first.flush();
        drop(first);
        let second = open(&dir, Restart::Restores);
        let loaded = second.load();
        assert_eq!((numbers(&loaded), &loaded.line), (vec![1, 2, 4], &None));
        for (id, record) in &loaded.records {
            assert_eq!(record.aim(), aim(u8::try_from(*id).unwrap(), odd));
            assert_eq!(record.is_paused, *id == 2);
        }
    }

    #[test]
    fn who_has_one_thing_to_do_leaves_nothing_and_forgets_what_it_has_done() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (Path::new("/here"), Path::new("/there"));
        let once = open(&dir, Restart::Ignores);
        once.note(1, Record::new(&aim(1, here)));
        once.flush();
        once.forget_done(&aim(1, here));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "not even a file");
        drop(once);
        let stays = open(&dir, Restart::Restores);
        stays.note(1, Record::new(&aim(1, here)));
        stays.note(2, Record::new(&aim(1, there)));
        stays.note(3, Record::new(&aim(3, here)));
        stays.flush();
        drop(stays);
        let once = open(&dir, Restart::Ignores);
        assert!(once.load().records.is_empty());
        once.forget_done(&Aim {
            from: None,
            ..aim(1, here)
        });
        drop(once);
        assert_eq!(numbers(&open(&dir, Restart::Restores).load()), [2, 3]);
    }

    #[test]
    fn a_download_that_has_its_final_name_is_not_begun_again() {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = open(&dir, Restart::Restores);
        let gone = out.path().join("gone");
        for (number, dir) in [
            (1, out.path()),
            (2, out.path()),
            (3, out.path()),
            (4, &gone),
        ] {
            let mut record = Record::new(&aim(number, dir));
            record.is_finishing = number != 3;
            first.note(number.into(), record);
        }
        first.flush();
        drop(first);
        let part = crate::peer::store::hidden_stem(ContentId([2; 32]), 1) + ".part";
        std::fs::write(out.path().join(part), "here").unwrap();
        let left = numbers(&open(&dir, Restart::Restores).load());
        assert_eq!(
            left,
            [2, 3, 4],
            "nobody knows what is in a place that is away"
        );
    }

    #[test]
    fn a_damaged_record_is_forgotten_with_a_line_and_a_newer_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let sound = Record::new(&aim(1, Path::new("/x"))).to_bytes();
        put(&dir, 1, &sound);
        put(&dir, 2, &[VERSION + 1, 1, 2, 3]);
        put(&dir, TransferId::MAX, &sound);
        put(&dir, 9, b"");
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x41;
            if bytes[0] <= VERSION {
                put(&dir, 10 + TransferId::try_from(at).unwrap(), &bytes);
            }
        }
        let unfinished = open(&dir, Restart::Restores);
        let loaded = unfinished.load();
        assert_eq!(numbers(&loaded), [1]);
        let line = loaded.line.unwrap();
        assert!(line.contains("newer p2pfs has to go on with: 1"), "{line}");
        let damaged = sound.len() + 1;
        assert!(line.contains(&format!("forgotten: {damaged}")), "{line}");
        assert!(unfinished.is_taken(2) && !unfinished.is_taken(9));
        unfinished.flush();
        drop(unfinished);
        let line = open(&dir, Restart::Restores).load().line.unwrap();
        assert!(
            !line.contains("damaged") && line.contains("newer"),
            "{line}"
        );
    }

    /// It would go to wherever the program happens to be started.
    #[test]
    fn a_place_that_depends_on_where_we_are_is_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        put(&dir, 1, &Record::new(&aim(1, Path::new("x"))).to_bytes());
        let loaded = open(&dir, Restart::Restores).load();
        assert!(loaded.records.is_empty() && loaded.line.is_some());
    }
}
