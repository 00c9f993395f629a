//! Part files on a real disk: what the next run finds, and what bears a final name.

use super::*;

fn layout(len: u64) -> Layout {
    Layout::new(len).unwrap()
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn id(bytes: &[u8]) -> ContentId {
    ContentId(*blake3::hash(bytes).as_bytes())
}

fn put(partial: &Partial, bytes: &[u8], numbers: &[u32]) {
    let layout = partial.part.layout();
    for number in numbers {
        let piece = layout.piece(*number).unwrap();
        let start = usize::try_from(layout.offset(piece)).unwrap();
        let bytes = &bytes[start..start + layout.piece_len(piece)];
        let hash = hash_piece(layout, piece, bytes);
        partial.part.put(piece, bytes, &hash).unwrap();
    }
}

fn numbers(here: &Here) -> Vec<u32> {
    here.keys().map(|piece| piece.get()).collect()
}

fn fetch(dir: &Path, bytes: &[u8]) -> PathBuf {
    let layout = layout(bytes.len() as u64);
    let (mut partial, _) = Partial::open(dir, id(bytes), layout).unwrap();
    put(&partial, bytes, if bytes.is_empty() { &[] } else { &[0] });
    partial
        .finish("downloaded_", &"x.txt".parse().unwrap())
        .unwrap()
}

#[test]
fn nothing_is_ever_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    for (text, name) in [
        ("one", "downloaded_x.txt"),
        ("two", "downloaded_x.txt (2)"),
        ("", "downloaded_x.txt (3)"),
    ] {
        let path = fetch(dir.path(), text.as_bytes());
        assert_eq!(path, dir.path().join(name));
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }
    assert_eq!(names_in(dir.path()).len(), 3);
}

#[test]
fn a_link_in_the_way_is_neither_followed_nor_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/nonexistent", dir.path().join("downloaded_x.txt")).unwrap();
    let path = fetch(dir.path(), b"one");
    assert_eq!(path, dir.path().join("downloaded_x.txt (2)"));
    assert!(dir.path().join("downloaded_x.txt").is_symlink());
}

#[test]
fn what_has_nothing_or_is_discarded_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![7; 2 << 20];
    let open = || {
        Partial::open(dir.path(), id(&bytes), layout(2 << 20))
            .unwrap()
            .0
    };
    let partial = open();
    let names = names_in(dir.path());
    assert!(names.len() == 2 && names.iter().all(|name| name.starts_with('.')));
    drop(partial);
    assert!(names_in(dir.path()).is_empty());
    let mut partial = open();
    put(&partial, &bytes, &[0]);
    partial.discard();
    drop(partial);
    assert!(names_in(dir.path()).is_empty());
}

#[test]
fn the_next_run_goes_on_with_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0_u32..5 << 18).flat_map(u32::to_le_bytes).collect();
    let layout = layout(bytes.len() as u64);
    let open = || Partial::open(dir.path(), id(&bytes), layout).unwrap();
    let (partial, here) = open();
    assert!(here.is_empty());
    put(&partial, &bytes, &[0, 3]);
    partial.part.sync().unwrap();
    put(&partial, &bytes, &[1, 4]);
    // A power cut took what was not synced.
    partial
        .part
        .file
        .write_all_at(&[0; 4096], layout.offset(layout.piece(1).unwrap()))
        .unwrap();
    drop(partial);
    let (mut partial, here) = open();
    assert_eq!(numbers(&here), [0, 3, 4]);
    put(&partial, &bytes, &[1, 2]);
    let path = partial
        .finish("downloaded_", &"x".parse().unwrap())
        .unwrap();
    drop(partial);
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert_eq!(names_in(dir.path()), ["downloaded_x"]);
}

#[test]
fn a_part_without_its_journal_or_the_other_way_round_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![7; 3 << 20];
    let open = || Partial::open(dir.path(), id(&bytes), layout(3 << 20)).unwrap();
    for suffix in [PART_SUFFIX, JOURNAL_SUFFIX] {
        let (partial, _) = open();
        put(&partial, &bytes, &[0, 1]);
        partial.part.sync().unwrap();
        drop(partial);
        let stem = hidden_stem(id(&bytes), 1);
        std::fs::remove_file(dir.path().join(format!("{stem}{suffix}"))).unwrap();
        let (_, here) = open();
        assert!(here.is_empty(), "without {suffix}");
    }
}

#[test]
fn two_runs_at_a_time_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![7; 2 << 20];
    let open = || Partial::open(dir.path(), id(&bytes), layout(2 << 20)).unwrap();
    let (first, _) = open();
    put(&first, &bytes, &[0]);
    let (second, here) = open();
    assert!(here.is_empty() && second.stem != first.stem);
    drop((first, second));
    assert_eq!(numbers(&open().1), [0]);
}

#[test]
fn a_place_is_free_once_its_download_ended_also_while_others_still_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![7; 2 << 20];
    let open = || Partial::open(dir.path(), id(&bytes), layout(2 << 20)).unwrap();
    let (partial, _) = open();
    put(&partial, &bytes, &[0]);
    let (stem, served) = (partial.stem.clone(), partial.part());
    drop(partial);
    let (partial, here) = open();
    assert_eq!((&partial.stem, numbers(&here)), (&stem, vec![0]));
    let late = served.put(
        layout(2 << 20).piece(1).unwrap(),
        &bytes[..1 << 20],
        &[0; 32],
    );
    assert!(late.is_err(), "the journal has another owner now");
    drop(partial);
    Partial::discard_left(dir.path(), id(&bytes), layout(2 << 20));
    assert!(names_in(dir.path()).is_empty());
}

#[test]
fn what_cannot_have_a_journal_leaves_no_part_either() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = format!("{}{JOURNAL_SUFFIX}", hidden_stem(id(b"x"), 1));
    std::fs::create_dir(dir.path().join(&in_the_way)).unwrap();
    Partial::open(dir.path(), id(b"x"), layout(1)).unwrap_err();
    assert_eq!(names_in(dir.path()), [in_the_way]);
}

#[test]
fn what_somebody_removed_cannot_be_finished() {
    let dir = tempfile::tempdir().unwrap();
    let (mut partial, _) = Partial::open(dir.path(), id(b"x"), layout(1)).unwrap();
    put(&partial, b"x", &[0]);
    std::fs::remove_file(dir.path().join(format!("{}{PART_SUFFIX}", partial.stem))).unwrap();
    let error = partial.finish("", &"x".parse().unwrap()).unwrap_err();
    assert!(error.is_lasting && error.reason == PART_IS_GONE, "{error}");
}

/// Somebody removed it and began once more: the second one is not done, and stays as it is.
#[test]
fn what_lies_in_the_place_of_a_removed_part_is_left_alone() {
    let bytes = vec![7; 2 << 20];
    for inner in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let open = || Partial::open(dir.path(), id(&bytes), layout(2 << 20)).unwrap();
        let (mut first, _) = open();
        put(&first, &bytes, &[0, 1]);
        std::fs::remove_file(dir.path().join(format!("{}{PART_SUFFIX}", first.stem))).unwrap();
        let (second, _) = open();
        assert_eq!(second.stem, first.stem);
        put(&second, &bytes, &[0]);
        let before = names_in(dir.path());
        let finished = match inner {
            false => first.finish("", &"x".parse().unwrap()).map(drop),
            true => first.finish_as(&dir.path().join("x")),
        };
        let error = finished.unwrap_err();
        assert!(error.is_lasting && error.reason == PART_IS_GONE, "{error}");
        first.discard();
        drop(first);
        assert_eq!(names_in(dir.path()), before);
        drop(second);
        assert_eq!(numbers(&open().1), [0]);
    }
}

#[test]
fn a_directory_that_will_not_do_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (dir, reason) in [
        (dir.path().join("gone"), "no such"),
        (file, "not a directory"),
    ] {
        let error = Partial::open(&dir, ContentId([1; 32]), layout(1)).unwrap_err();
        assert!(error.reason.contains(reason), "{error}");
    }
    let error = Partial::open(dir.path(), ContentId([1; 32]), layout(1 << 50)).unwrap_err();
    assert!(error.reason.contains("are free"), "{error}");
    assert_eq!(names_in(dir.path()), ["file"]);
}

const UNSYNCABLE_JOURNAL: &str = "journal";

impl Part {
    /// One whose disk takes what is written, and fails when that is to be made durable.
    pub fn that_cannot_be_synced(dir: &Path, content: ContentId, layout: Layout) -> Self {
        let file = File::options().read(true).write(true).open("/dev/null");
        Self {
            file: file.unwrap(),
            journal: Journal::create(dir, UNSYNCABLE_JOURNAL, content, layout).unwrap(),
        }
    }

    /// Nothing is noted in its journal before this is dropped.
    pub fn hold_journal(&self) -> impl Drop + '_ {
        self.journal.hold()
    }

    /// What the next run would read in its journal.
    pub fn records_on_disk(&self, dir: &Path, content: ContentId) -> Records {
        let opened = Journal::open(dir, UNSYNCABLE_JOURNAL, content, self.layout());
        opened.unwrap().unwrap().1
    }
}
