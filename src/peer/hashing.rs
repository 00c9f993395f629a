//! Reads files and hashes them, on all cores; one that did not change is not read again.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use super::hash_store::Known;
use super::meter::Meter;
use crate::crypto::content::{Hash, Tree, hash_piece};
use crate::wire::pieces::Layout;

/// Files from here on are read by all threads together, shorter ones by one thread each; in bytes.
const LARGE_LEN: u64 = 64 << 20;
/// Pieces that a thread takes at a time: what it reads lies together.
const RUN_PIECES: u32 = 8;
/// Most threads that read.
const MAX_THREADS: usize = 16;
/// A file that was changed less than this many seconds before it was read may be changed again with the
/// same times: file systems count in steps of up to two seconds.
const SETTLED_S: i64 = 2;

/// What tells that a file is still the one that was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Length in bytes.
    pub len: u64,
    /// When its bytes changed: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When anything of it changed, its name or its rights too.
    pub changed: (i64, i64),
    /// Device and inode.
    pub inode: (u64, u64),
}

impl Stamp {
    /// The stamp of what was found.
    #[must_use]
    pub fn of(found: &Metadata) -> Self {
        Self {
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            inode: (found.dev(), found.ino()),
        }
    }

    /// Are these the same bytes of the same file? A new name or other rights do not matter.
    #[must_use]
    pub fn has_bytes_of(&self, other: &Self) -> bool {
        let changed = other.changed;
        Self { changed, ..*self } == *other
    }

    /// All of it, as a key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 56] {
        let parts = [
            self.inode.0,
            self.inode.1,
            self.len,
            self.modified.0.cast_unsigned(),
            self.modified.1.cast_unsigned(),
            self.changed.0.cast_unsigned(),
            self.changed.1.cast_unsigned(),
        ];
        let mut bytes = [0; 56];
        for (part, place) in parts.iter().zip(bytes.as_chunks_mut().0) {
            *place = part.to_be_bytes();
        }
        bytes
    }

    /// Was it changed long enough before now that a later change will show?
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs().cast_signed());
        let is_old = |time: i64| now.saturating_sub(time).saturating_abs() > SETTLED_S;
        is_old(self.modified.0) && is_old(self.changed.0)
    }
}

/// A file that was hashed.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// When it was hashed, it was this.
    pub stamp: Stamp,
    /// Its stamp will differ after every later change.
    pub is_settled: bool,
    /// Its hashes.
    pub tree: Arc<Tree>,
}

/// A file that was looked at.
#[derive(Debug)]
pub struct Looked {
    /// Its hashes.
    pub hashed: Hashed,
    /// What else the system tells of it.
    pub found: Metadata,
    /// It is in the store, marked as seen today.
    pub is_kept: bool,
}

/// Hashes the files at `paths`, in their order; a link in the place of one is refused. Blocking.
#[must_use]
pub fn hash_all(paths: &[PathBuf], known: &Known, meter: &Meter) -> Vec<Result<Looked, String>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(MAX_THREADS);
    let mut results: Vec<Option<Result<Looked, String>>> = Vec::new();
    results.resize_with(paths.len(), || None);
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut buffer, mut done) = (Vec::new(), Vec::new());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(index) else {
                return done;
            };
            match look(path, known, meter, &mut buffer) {
                Ok(Some(looked)) => done.push((index, Ok(looked))),
                Ok(None) => {}
                Err(reason) => done.push((index, Err(reason))),
            }
        }
    };
    if paths.len() == 1 || threads == 1 {
        collect(&mut results, work());
    } else {
        let all = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(paths.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let ended = workers.into_iter().map(thread::ScopedJoinHandle::join);
            ended.flat_map(Result::unwrap_or_default).collect()
        });
        collect(&mut results, all);
    }
    // What is left is large, and each is the work of all threads.
    let large = paths.iter().zip(&mut results).filter(|(_, r)| r.is_none());
    for (path, result) in large {
        *result = Some(read_large(path, threads, meter));
    }
    let missing = || Err("it could not be hashed".to_owned());
    let results = results.into_iter();
    results
        .map(|result| result.unwrap_or_else(missing))
        .collect()
}

type Indexed = Vec<(usize, Result<Looked, String>)>;

fn collect(results: &mut [Option<Result<Looked, String>>], done: Indexed) {
    for (index, result) in done {
        if let Some(place) = results.get_mut(index) {
            *place = Some(result);
        }
    }
}

/// Hashes one file, unless it is known or large.
fn look(
    path: &Path,
    known: &Known,
    meter: &Meter,
    buffer: &mut Vec<u8>,
) -> Result<Option<Looked>, String> {
    let found = path.symlink_metadata().map_err(|error| explain(&error))?;
    let stamp = Stamp::of(&found);
    if let Some(same) = known.find(&stamp).filter(|_| found.is_file()) {
        meter.count(stamp.len)?;
        let hashed = Hashed {
            stamp,
            is_settled: true,
            tree: same.tree,
        };
        return Ok(Some(Looked {
            hashed,
            found,
            is_kept: same.is_marked,
        }));
    }
    let file = open_plain(path).map_err(|error| explain(&error))?;
    let found = file.metadata().map_err(|error| explain(&error))?;
    let stamp = Stamp::of(&found);
    if stamp.len >= LARGE_LEN {
        return Ok(None);
    }
    let is_settled = stamp.is_settled();
    let layout = layout_of(stamp.len)?;
    let mut hashes = Vec::with_capacity(layout.count() as usize);
    read_run(
        &file,
        layout,
        0..layout.count(),
        meter,
        buffer,
        |_, hash| {
            hashes.push(hash);
        },
    )?;
    finish(&file, found, stamp, is_settled, Tree::new(layout, hashes)).map(Some)
}

fn read_large(path: &Path, threads: usize, meter: &Meter) -> Result<Looked, String> {
    let file = open_plain(path).map_err(|error| explain(&error))?;
    let found = file.metadata().map_err(|error| explain(&error))?;
    let stamp = Stamp::of(&found);
    let is_settled = stamp.is_settled();
    let layout = layout_of(stamp.len)?;
    let next = AtomicU32::new(0);
    let work = || {
        let (mut buffer, mut done) = (Vec::new(), Vec::new());
        loop {
            let start = next.fetch_add(RUN_PIECES, Ordering::Relaxed);
            if start >= layout.count() {
                return Ok(done);
            }
            let run = start..start.saturating_add(RUN_PIECES).min(layout.count());
            read_run(&file, layout, run, meter, &mut buffer, |index, hash| {
                done.push((index, hash));
            })?;
        }
    };
    let mut hashes = vec![[0; 32]; layout.count() as usize];
    let ended: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    for worker in ended {
        let done: Vec<(u32, Hash)> =
            worker.unwrap_or_else(|_| Err("it could not be hashed".to_owned()))?;
        for (index, hash) in done {
            hashes[index as usize] = hash;
        }
    }
    finish(&file, found, stamp, is_settled, Tree::new(layout, hashes))
}

fn layout_of(len: u64) -> Result<Layout, String> {
    Layout::new(len).map_err(|_| "it is larger than 1 PiB".to_owned())
}

fn read_run(
    file: &File,
    layout: Layout,
    run: std::ops::Range<u32>,
    meter: &Meter,
    buffer: &mut Vec<u8>,
    mut take: impl FnMut(u32, Hash),
) -> Result<(), String> {
    for piece in run.filter_map(|index| layout.piece(index)) {
        let len = layout.piece_len(piece);
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        let bytes = &mut buffer[..len];
        file.read_exact_at(bytes, layout.offset(piece))
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => "it became shorter while it was read".to_owned(),
                _ => explain(&error),
            })?;
        take(piece.get(), hash_piece(layout, piece, bytes));
        meter.read.fetch_add(len as u64, Ordering::Relaxed);
        meter.count(len as u64)?;
    }
    Ok(())
}

fn finish(
    file: &File,
    found: Metadata,
    stamp: Stamp,
    is_settled: bool,
    tree: Tree,
) -> Result<Looked, String> {
    let is_same = file
        .metadata()
        .is_ok_and(|now| Stamp::of(&now).has_bytes_of(&stamp));
    if !is_same {
        return Err("it changed while it was read; share it again when it is complete".to_owned());
    }
    let hashed = Hashed {
        stamp,
        is_settled,
        tree: Arc::new(tree),
    };
    Ok(Looked {
        hashed,
        found,
        is_kept: false,
    })
}

/// Opens a plain file; devices and the like are refused without waiting for them, and links are not followed.
///
/// # Errors
/// When it is none, or the system says no.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let flags = flags.bits().cast_signed();
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file");
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        // A socket.
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => no_file(),
        _ => error,
    })?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"));
    }
    if !kind.is_file() {
        return Err(no_file());
    }
    Ok(file)
}

/// Does this tell something of the file, and not of a lack that passes?
#[must_use]
pub fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind::{
        InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, UnexpectedEof,
    };
    let lasting = [
        InvalidInput,
        IsADirectory,
        NotADirectory,
        NotFound,
        PermissionDenied,
        UnexpectedEof,
    ];
    lasting.contains(&error.kind())
}

/// Why a file cannot be shared, for people.
#[must_use]
pub fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "it is not yours to read".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        io::ErrorKind::UnexpectedEof => "it became shorter".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_its_own_hash_however_many_threads_read() {
        let dir = tempfile::tempdir().unwrap();
        let lens = [0, 1, 1 << 20, (1 << 20) + 1, LARGE_LEN, LARGE_LEN + 77];
        let paths: Vec<_> = lens
            .into_iter()
            .enumerate()
            .map(|(number, len)| {
                let path = dir.path().join(number.to_string());
                let file = File::create(&path).unwrap();
                file.set_len(len).unwrap();
                file.write_all_at(&number.to_le_bytes()[..1], len / 2)
                    .unwrap();
                path
            })
            .collect();
        let meter = Meter::default();
        let looked = hash_all(&paths, &Known::default(), &meter);
        let mut total = 0;
        for (path, looked) in paths.iter().zip(looked) {
            let bytes = std::fs::read(path).unwrap();
            total += bytes.len() as u64;
            let id = looked.unwrap().hashed.tree.id();
            assert_eq!(id.0, *blake3::hash(&bytes).as_bytes(), "{}", path.display());
        }
        assert_eq!(meter.done.load(Ordering::Relaxed), total);
        assert_eq!(meter.read.load(Ordering::Relaxed), total);
    }

    #[test]
    fn what_is_known_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "bytes").unwrap();
        let (mut known, meter) = (Known::default(), Meter::default());
        let paths = [path];
        let first = hash_all(&paths, &known, &meter).pop().unwrap().unwrap();
        assert!(!first.hashed.is_settled, "it was made just now");
        known.add(&Hashed {
            is_settled: true,
            ..first.hashed.clone()
        });
        let second = hash_all(&paths, &known, &meter).pop().unwrap().unwrap();
        assert_eq!(second.hashed.tree, first.hashed.tree);
        assert_eq!(meter.read.load(Ordering::Relaxed), 5);
        assert_eq!(meter.done.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn who_gives_up_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        File::create(&path).unwrap().set_len(LARGE_LEN).unwrap();
        let meter = Meter::default();
        meter.is_cancelled.store(true, Ordering::Relaxed);
        let done = hash_all(&[path], &Known::default(), &meter);
        assert!(done[0].as_ref().unwrap_err().contains("cancelled"));
        assert!(meter.read.load(Ordering::Relaxed) < LARGE_LEN);
    }
}
