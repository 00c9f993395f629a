//! Folders on a real disk: what counts as here, and what bears a final name.

use super::*;
use crate::peer::meter::Meter;
use crate::peer::salvage::salvage;
use crate::peer::shares::{Background, Shares};
use crate::peer::store::PART_IS_GONE;
use crate::wire::control::PublicationKind;
use crate::wire::folder::{Entry, Modified, Node};

/// A file with these bytes, in a listing.
pub(in crate::peer) fn entry(path: &str, bytes: &[u8]) -> Entry {
    Entry {
        path: path.parse().unwrap(),
        node: Node::File(FileEntry {
            len: bytes.len() as u64,
            content: ContentId(*blake3::hash(bytes).as_bytes()),
            is_executable: path.ends_with(".sh"),
            modified: Modified {
                seconds: 1_000_000_000,
                nanos: 5,
            },
        }),
    }
}

/// The place in `dir` for a folder with this listing; nothing of it was looked for.
pub(in crate::peer) fn unpacking(dir: &Path, listing: &Listing) -> Unpacking {
    let bytes = listing.encode();
    let file = Publication {
        name: "talks".parse().unwrap(),
        content: ContentId(*blake3::hash(&bytes).as_bytes()),
        len: bytes.len() as u64,
        kind: PublicationKind::Folder,
    };
    Unpacking::open(dir, file, listing.clone()).unwrap()
}

impl Unpacking {
    /// It is written to until this is dropped.
    pub(in crate::peer) fn hold(&self) -> impl Drop + '_ {
        self.is_closed.read().unwrap()
    }
}

fn open(dir: &Path, listing: &Listing) -> Unpacking {
    let folder = unpacking(dir, listing);
    let (shares, _withdrawn) = Shares::new(Background::default());
    salvage(&folder, &shares, &Meter::default()).unwrap();
    folder
}

fn listing() -> Listing {
    let folder = Entry {
        path: "hollow".parse().unwrap(),
        node: Node::EmptyFolder,
    };
    let entries = vec![
        entry("a/one.txt", b"one"),
        entry("a/run.sh", b"two"),
        entry("empty", b""),
        folder,
    ];
    Listing::new(entries).unwrap()
}

/// Somebody removed it and began once more: that is another download's.
#[test]
fn what_lies_in_the_place_of_a_removed_folder_is_left_alone() {
    let (dir, listing) = (tempfile::tempdir().unwrap(), listing());
    let first = open(dir.path(), &listing);
    std::fs::remove_dir_all(first.root()).unwrap();
    let second = open(dir.path(), &listing);
    for (name, bytes) in [("a/one.txt", b"one"), ("a/run.sh", b"two")] {
        std::fs::write(second.root().join(name), bytes).unwrap();
    }
    let error = first.finish("", &"x".parse().unwrap()).unwrap_err();
    assert!(error.is_lasting && error.reason == PART_IS_GONE, "{error}");
    for name in ["a/one.txt", "a/run.sh"] {
        std::fs::remove_file(second.root().join(name)).unwrap();
    }
    first.close();
    assert!(second.root().exists());
}

#[test]
fn a_folder_is_hidden_until_all_of_it_is_here() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path(), &listing());
    let run = folder.layout().piece(0).unwrap();
    assert_eq!((folder.layout().count(), folder.run_len(run)), (1, 6));
    assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Right);
    assert!(folder.here().is_full() && folder.done_len() == 6);
    let path = folder
        .finish("downloaded_", &"talks".parse().unwrap())
        .unwrap();
    assert_eq!(path, dir.path().join("downloaded_talks"));
    assert_eq!(std::fs::read(path.join("a/one.txt")).unwrap(), b"one");
    assert_eq!(path.join("empty").metadata().unwrap().len(), 0);
    assert!(path.join("hollow").is_dir());
    let script = path.join("a/run.sh").metadata().unwrap();
    assert_eq!((script.mtime(), script.mtime_nsec()), (1_000_000_000, 5));
    assert!(script.permissions().mode() & 0o100 != 0);
    let plain = path.join("a/one.txt").metadata().unwrap();
    assert!(plain.permissions().mode() & 0o111 == 0);
}

#[test]
fn wrong_bytes_are_noticed_and_what_came_before_an_early_end_stays() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path(), &listing());
    let run = folder.layout().piece(0).unwrap();
    assert_eq!(folder.put(run, b"onetw", &[]).unwrap(), Verdict::Wrong);
    assert_eq!(folder.put(run, b"onetw0", &[]).unwrap(), Verdict::Wrong);
    assert_eq!(folder.put(run, b"one", &[]).unwrap(), Verdict::Short(0));
    assert!(!folder.here().is_full() && folder.done_len() == 3);
    assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Right);
}

/// Two sources lack different files of one run: each is asked for what is missing, and both together have it.
#[test]
fn gaps_are_asked_of_the_next_source() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d"];
    let entries = names.map(|name| entry(name, name.repeat(3).as_bytes()));
    let folder = open(dir.path(), &Listing::new(entries.to_vec()).unwrap());
    let run = folder.layout().piece(0).unwrap();
    assert_eq!(folder.wanted_of(run), None);
    let wanted = |folder: &Unpacking| {
        let wanted = folder.wanted_of(run).unwrap();
        (0..4).filter(|file| wanted.has(*file)).collect::<Vec<_>>()
    };
    let first = folder.put(run, b"\0\0\0bbb\0\0\0ddd", &[0..3, 6..9]);
    assert_eq!(first.unwrap(), Verdict::Short(2));
    assert_eq!((wanted(&folder), folder.done_len()), (vec![0, 2], 6));
    let cut = folder.put(run, b"\0\0\0\0\0\0ccc", &[0..2, 3..6]);
    assert_eq!(cut.unwrap(), Verdict::Wrong, "half a file is nothing");
    let nothing = folder.put(run, b"", &[]);
    assert_eq!(nothing.unwrap(), Verdict::Short(0));
    let second = folder.put(run, b"aaa\0\0\0", &[3..5, 5..6]);
    assert_eq!(second.unwrap(), Verdict::Short(1));
    assert_eq!(wanted(&folder), [2]);
    let third = folder.put(run, b"\0\0\0\0\0\0ccc", &[0..3, 3..6]);
    assert_eq!(third.unwrap(), Verdict::Right);
    assert!(folder.here().is_full() && folder.done_len() == 12);
    assert_eq!(std::fs::read(folder.path(2)).unwrap(), b"ccc");
}

#[test]
fn a_folder_of_which_nothing_came_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path(), &listing());
    folder.close();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    let folder = open(dir.path(), &listing());
    std::fs::write(folder.root().join(".p2pfs-1.part"), "").unwrap();
    folder.close();
    assert!(folder.root().exists(), "a large file had begun");
    let folder = open(dir.path(), &listing());
    std::fs::remove_file(folder.root().join(".p2pfs-1.part")).unwrap();
    let run = folder.layout().piece(0).unwrap();
    folder.put(run, b"one", &[]).unwrap();
    folder.close();
    assert!(folder.root().exists(), "a small file is here");
}

#[test]
fn the_next_run_keeps_what_is_right_and_clears_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path(), &listing());
    let run = folder.layout().piece(0).unwrap();
    folder.put(run, b"onetwo", &[]).unwrap();
    std::fs::write(folder.path(1), b"tw0").unwrap();
    let root = folder.root().to_owned();
    drop(folder);
    let folder = open(dir.path(), &listing());
    assert_eq!((folder.root(), folder.done_len()), (root.as_path(), 3));
    assert!(!folder.here().is_full());
    assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Right);
    assert_eq!(std::fs::read(folder.path(1)).unwrap(), b"two");
    let content = folder.content();
    discard(dir.path(), content);
    assert!(folder.root().exists(), "somebody is at it");
    folder.close();
    assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Short(0));
    discard(dir.path(), content);
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

/// Two sources send one run at the same time: nobody takes what the other has half written for whole.
#[test]
fn copies_of_a_run_that_come_at_a_time_are_written_once() {
    let bytes = [vec![1; 300_000], vec![2; 300_000]];
    let entries = vec![entry("a", &bytes[0]), entry("b", &bytes[1])];
    let listing = Listing::new(entries).unwrap();
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing);
        let run = folder.layout().piece(0).unwrap();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    let verdict = folder.put(run, &bytes.concat(), &[]).unwrap();
                    assert_eq!(verdict, Verdict::Right);
                    for (index, bytes) in bytes.iter().enumerate() {
                        let written = std::fs::read(folder.path(index)).unwrap();
                        assert!(written == *bytes, "{} bytes", written.len());
                    }
                });
            }
        });
    }
}

#[test]
fn what_lies_in_the_way_is_never_taken_for_right() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path(), &listing());
    std::fs::write(folder.path(1), b"tw0").unwrap();
    let run = folder.layout().piece(0).unwrap();
    folder.put(run, b"onetwo", &[]).unwrap_err();
    assert!(!folder.has(run));
}

#[test]
fn what_a_failed_sync_may_have_lost_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path(), &listing());
    let run = folder.layout().piece(0).unwrap();
    folder.put(run, b"onetwo", &[]).unwrap();
    assert_eq!(folder.sync().unwrap(), 1);
    assert_eq!(folder.sync().unwrap(), 0);
    folder.forget(run);
    assert!(!folder.has(run) && folder.done_len() == 0 && !folder.path(0).exists());
    assert_eq!(folder.put(run, b"onetwo", &[]).unwrap(), Verdict::Right);
    assert!(folder.here().is_full() && folder.done_len() == 6);
}

#[test]
fn a_folder_that_has_its_name_keeps_it_and_one_that_is_gone_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let folder = open(dir.path(), &listing());
    let run = folder.layout().piece(0).unwrap();
    folder.put(run, b"onetwo", &[]).unwrap();
    let name = "talks".parse().unwrap();
    let path = folder.finish("", &name).unwrap();
    assert_eq!(folder.finish("", &name).unwrap(), path);
    let folder = open(dir.path(), &listing());
    std::fs::remove_dir_all(folder.root()).unwrap();
    let error = folder.finish("", &name).unwrap_err();
    assert!(error.is_hopeless(), "{error}");
}

/// What somebody took out of the hidden folder, or cut short, would be missing under the final name.
#[test]
fn a_folder_that_lost_a_file_gets_no_name() {
    let name = "talks".parse().unwrap();
    for is_cut in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), &listing());
        let run = folder.layout().piece(0).unwrap();
        folder.put(run, b"onetwo", &[]).unwrap();
        std::fs::remove_file(folder.path(0)).unwrap();
        if is_cut {
            std::fs::write(folder.path(0), b"on").unwrap();
        }
        let error = folder.finish("", &name).unwrap_err();
        assert!(error.is_hopeless(), "{error}");
        assert!(!dir.path().join("talks").exists());
    }
}

#[test]
fn no_two_work_on_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), &listing());
    let file = first.file.clone();
    let error = Unpacking::open(dir.path(), file, listing()).unwrap_err();
    assert!(error.reason.contains("already"), "{error}");
}
