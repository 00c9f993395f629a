//! What is on this disk already of a folder: left by an earlier run, or shared from here. On all cores.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::hash_store::Known;
use super::hashing::hash_all;
use super::meter::Meter;
use super::readers::Reader;
use super::shares::Shares;
use super::unpack::Unpacking;
use crate::wire::folder::Node;

/// Files that are looked at in one go: of all of them the hashes are in memory.
const BATCH: usize = 4096;
/// Most threads that copy; each holds one small file.
const MAX_THREADS: usize = 16;

/// Prepares `folder` and finds what is here of it. Blocking; whoever sets the meter's `is_cancelled` ends it.
///
/// # Errors
/// What the system says; `Interrupted` when nobody waits any more.
pub fn salvage(folder: &Unpacking, shares: &Shares, meter: &Meter) -> io::Result<()> {
    folder.make_folders()?;
    check_left(folder, meter)?;
    // A disk that is full fails again where it is waited for.
    match copy_own(folder, shares, meter) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
        _ => folder.count_runs(),
    }
    Ok(())
}

/// Hashes what an earlier run left; what is not right is cleared away, and fetched again.
fn check_left(folder: &Unpacking, meter: &Meter) -> io::Result<()> {
    let mut left = Vec::new();
    for (index, entry) in folder.listing().entries().iter().enumerate() {
        let Node::File(file) = &entry.node else {
            continue;
        };
        if file.len == 0 {
            folder.make_empty(index, file)?;
        } else if let Ok(found) = folder.path(index).symlink_metadata() {
            if found.is_file() && found.len() == file.len {
                meter.len.fetch_add(file.len, Ordering::Relaxed);
                left.push((index, file));
            } else {
                folder.clear(index);
            }
        }
    }
    for batch in left.chunks(BATCH) {
        let paths: Vec<PathBuf> = batch.iter().map(|(index, _)| folder.path(*index)).collect();
        let found = hash_all(&paths, &Known::default(), meter);
        give_up(meter)?;
        for ((index, file), found) in batch.iter().zip(found) {
            let is_right = found.is_ok_and(|found| {
                let tree = &found.hashed.tree;
                tree.layout().len() == file.len && tree.id() == file.content
            });
            if is_right {
                folder.settle(*index, file)?;
            } else {
                folder.clear(*index);
            }
        }
    }
    Ok(())
}

/// Takes small files that we share ourselves from there. Each is verified: it may be changing under our hands.
fn copy_own(folder: &Unpacking, shares: &Shares, meter: &Meter) -> io::Result<()> {
    let missing = folder.missing_small();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut bytes = Vec::new();
        while let Some((index, file)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            give_up(meter)?;
            let Some(serving) = shares.open(&file.content, Reader::Own) else {
                continue;
            };
            if serving.tree().layout().len() != file.len {
                continue;
            }
            meter.len.fetch_add(file.len, Ordering::Relaxed);
            bytes.resize(usize::try_from(file.len).unwrap_or_default(), 0);
            if serving.read_at(&mut bytes, 0).is_ok() {
                folder.take(*index, file, &bytes)?;
            }
            meter.done.fetch_add(file.len, Ordering::Relaxed);
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(MAX_THREADS).min(missing.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut ended = workers.into_iter().map(thread::ScopedJoinHandle::join);
        ended.try_for_each(|ended| ended.unwrap_or(Ok(())))
    })
}

fn give_up(meter: &Meter) -> io::Result<()> {
    if meter.is_cancelled.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::shares::Background;
    use super::super::unpack::tests::{entry, unpacking};
    use super::*;
    use crate::wire::folder::Listing;

    const LARGE_LEN: usize = 3 << 20;

    fn bytes_of(number: usize) -> Vec<u8> {
        let len = if number == 0 { LARGE_LEN } else { 100 };
        number.to_le_bytes().into_iter().cycle().take(len).collect()
    }

    /// One large file and so many small ones.
    fn listing(small: usize) -> Listing {
        let entry = |number| entry(&format!("f{number}"), &bytes_of(number));
        Listing::new((0..=small).map(entry).collect()).unwrap()
    }

    fn nothing_shared() -> Shares {
        Shares::new(Background::default()).0
    }

    #[test]
    fn what_is_left_is_hashed_in_view_of_who_waits_and_only_the_right_stays() {
        let (dir, listing) = (tempfile::tempdir().unwrap(), listing(BATCH + 10));
        let folder = unpacking(dir.path(), &listing);
        folder.make_folders().unwrap();
        let mut right = 0;
        for (index, entry) in listing.entries().iter().enumerate() {
            let number: usize = entry.path.as_str()[1..].parse().unwrap();
            let mut bytes = bytes_of(number);
            match number % 5 {
                1 => bytes[7] ^= 1,
                2 => bytes.push(0),
                3 => continue,
                _ => right += bytes.len() as u64,
            }
            std::fs::write(folder.path(index), bytes).unwrap();
        }
        let meter = Meter::default();
        salvage(&folder, &nothing_shared(), &meter).unwrap();
        assert_eq!(folder.done_len(), right);
        let (done, len) = (meter.done.into_inner(), meter.len.into_inner());
        assert!(done == len && len > right, "{done} of {len}");
        for (index, entry) in listing.entries().iter().enumerate() {
            let number: usize = entry.path.as_str()[1..].parse().unwrap();
            let is_right = matches!(number % 5, 0 | 4);
            assert_eq!(folder.path(index).exists(), is_right, "{number}");
        }
    }

    #[test]
    fn who_gives_up_ends_it_and_loses_nothing() {
        let (dir, listing) = (tempfile::tempdir().unwrap(), listing(10));
        let folder = unpacking(dir.path(), &listing);
        for (index, entry) in listing.entries().iter().enumerate() {
            let number: usize = entry.path.as_str()[1..].parse().unwrap();
            std::fs::write(folder.path(index), bytes_of(number)).unwrap();
        }
        let meter = Meter::default();
        meter.is_cancelled.store(true, Ordering::Relaxed);
        let error = salvage(&folder, &nothing_shared(), &meter).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        let read = meter.read.into_inner();
        assert!(read < LARGE_LEN as u64, "{read}");
        salvage(&folder, &nothing_shared(), &Meter::default()).unwrap();
        assert_eq!(folder.done_len(), LARGE_LEN as u64 + 1000);
        assert!(folder.here().is_full());
    }

    #[tokio::test]
    async fn small_files_that_are_shared_here_are_taken_from_there() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        std::fs::create_dir(&own).unwrap();
        for number in 1..=4 {
            std::fs::write(own.join(format!("other {number}")), bytes_of(number)).unwrap();
        }
        let (shares, _withdrawn) = Shares::new(Background::default());
        shares.add(&own, None).await.unwrap();
        // Changed since it was hashed: its old id names nothing any more.
        std::fs::write(own.join("other 2"), "other").unwrap();
        let folder = unpacking(dir.path(), &listing(5));
        salvage(&folder, &shares, &Meter::default()).unwrap();
        assert_eq!(folder.done_len(), 300);
        let missing: Vec<_> = folder
            .missing_small()
            .into_iter()
            .map(|(index, _)| index)
            .collect();
        assert_eq!(missing, [2, 5]);
        assert_eq!(std::fs::read(folder.path(3)).unwrap(), bytes_of(3));
        let file = folder.missing_small()[0].1;
        folder.take(2, file, &bytes_of(9)).unwrap();
        assert!(!folder.path(2).exists(), "whoever reads it, it is verified");
    }
}
