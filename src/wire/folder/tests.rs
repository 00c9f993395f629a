//! Listings of folders, their exact bytes and what is refused.

use proptest::prelude::*;

use super::*;

fn file(path: &str, len: u64) -> Entry {
    Entry {
        path: path.parse().unwrap(),
        node: Node::File(FileEntry {
            len,
            content: ContentId([7; 32]),
            is_executable: false,
            modified: Modified::default(),
        }),
    }
}

fn empty(path: &str) -> Entry {
    Entry {
        path: path.parse().unwrap(),
        node: Node::EmptyFolder,
    }
}

#[test]
fn a_listing_has_these_bytes() {
    let mut program = file("a/run", 300);
    if let Node::File(file) = &mut program.node {
        file.is_executable = true;
        file.modified = Modified {
            seconds: -1,
            nanos: 128,
        };
    }
    let listing = Listing::new(vec![empty("b"), file("a/readme", 5), program]).unwrap();
    assert_eq!(listing.total_len(), 305);
    let mut expected = b"p2pfsdir\x01\xb1\x02\x03".to_vec();
    expected.extend_from_slice(b"\x00\x00\x08a/readme\x05\x00\x00");
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(b"\x01\x03\x02un\xac\x02\x01\x80\x01");
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(b"\x02\x00\x01b");
    assert_eq!(listing.encode(), expected);
    assert_eq!(Listing::decode(&expected), Ok(listing));
}

#[test]
fn a_path_leads_nowhere_else() {
    let long = "x".repeat(256);
    let deep = vec!["d"; MAX_DEPTH + 1].join("/");
    let far = vec!["x".repeat(200); 20].join("/");
    for text in [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0", &long, &deep, &far,
    ] {
        assert!(text.parse::<FolderPath>().is_err(), "{text:?}");
    }
    for text in [
        "a",
        "a/b",
        "...",
        "a\nb",
        "a\\b",
        "-x",
        &deep[2..],
        &long[1..],
    ] {
        assert!(text.parse::<FolderPath>().is_ok(), "{text:?}");
    }
    let path: FolderPath = "a\n\u{202e}".parse().unwrap();
    assert_eq!(path.to_string(), "a\\n\\u{202e}");
}

#[test]
fn what_cannot_lie_beside_each_other_is_refused() {
    for entries in [
        vec![file("a", 1), file("a", 1)],
        vec![file("a", 1), empty("a")],
        vec![file("a/b", 1), file("a-b", 1), file("a", 1)],
        vec![empty("a"), file("a/b", 1)],
        vec![file("a", MAX_FILE_LEN + 1)],
    ] {
        assert!(Listing::new(entries.clone()).is_err(), "{entries:?}");
    }
    let beside = vec![file("a-b", 1), file("a/b", 1), file("a.b", 1)];
    assert!(Listing::new(beside).is_ok());
}

#[test]
fn other_bytes_for_the_same_folder_are_refused() {
    let listing = Listing::new(vec![file("a", 1), file("ab", 1)]).unwrap();
    let bytes = listing.encode();
    assert_eq!(Listing::decode(&bytes).as_ref(), Ok(&listing));
    let (total, count, second) = (9, 10, bytes.len() - 39);
    for (at, byte) in [(total, 3), (count, 1), (count, 3), (8, 2)] {
        let mut other = bytes.clone();
        other[at] = byte;
        assert!(Listing::decode(&other).is_err(), "byte {at}");
    }
    let mut longer = bytes.clone();
    longer.splice(total..=total, [0x82, 0x00]);
    assert!(Listing::decode(&longer).is_err(), "a number in two bytes");
    let mut unshared = bytes.clone();
    unshared.splice(second + 1..second + 4, *b"\x00\x02ab");
    assert!(Listing::decode(&unshared).is_err(), "a path in full");
    for cut in 0..bytes.len() {
        assert!(Listing::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

/// Each entry is a hundred bytes on the wire and sixty folders on disk.
#[test]
fn folders_are_counted_too() {
    let deep = |number: usize| empty(&format!("{number}{}", "/a".repeat(60)));
    let folders = |count| Listing::new((0..count).map(deep).collect()).map(|_| ());
    assert_eq!(folders(16_666), Ok(()));
    assert_eq!(folders(16_667), Err(DecodeError("too many folders")));
    let beside = (0..20_000).map(|number| empty(&format!("a{}/{number}", "/a".repeat(60))));
    assert!(Listing::new(beside.collect()).is_ok());
}

/// Each entry is a few bytes on the wire and repeats a long path in memory.
#[test]
fn shared_beginnings_cannot_fill_the_memory() {
    let long = vec!["x".repeat(240); 12].join("/");
    let mut bytes = [&MAGIC[..], &[VERSION, 0, 0]].concat();
    bytes.push(KIND_FOLDER);
    bytes.push(0);
    write_number(long.len() as u64, &mut bytes);
    bytes.extend_from_slice(long.as_bytes());
    for number in 0..100_000 {
        let name = format!("{number:06}");
        let before = format!("{:06}", number - 1);
        let shared = if number == 0 {
            0
        } else {
            common_len(&before, &name)
        };
        bytes.push(KIND_FOLDER);
        write_number((long.len() + shared) as u64, &mut bytes);
        write_number((name.len() - shared) as u64, &mut bytes);
        bytes.extend_from_slice(&name.as_bytes()[shared..]);
    }
    assert!(bytes.len() < 1 << 20);
    assert_eq!(Listing::decode(&bytes), Err(DecodeError("paths too long")));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let path = proptest::collection::vec("[a-c./é\n]{1,3}", 1..4);
    let node = any::<(bool, u64, [u8; 32], bool, i64, u32)>();
    (path, node).prop_filter_map("a path", |(names, node)| {
        let (is_file, len, content, is_executable, seconds, nanos) = node;
        let file = FileEntry {
            len: len % MAX_FILE_LEN,
            content: ContentId(content),
            is_executable,
            modified: Modified {
                seconds,
                nanos: nanos % NANOS,
            },
        };
        Some(Entry {
            path: names.join("/").parse().ok()?,
            node: if is_file {
                Node::File(file)
            } else {
                Node::EmptyFolder
            },
        })
    })
}

#[test]
fn small_files_travel_in_runs_that_hold_each_of_them_once() {
    let mut entries: Vec<_> = (0..3000).map(|n| file(&format!("{n:04}"), 300)).collect();
    entries.extend([file("0500a", 0), file("1500a", 2 << 20), empty("2500a")]);
    entries.extend((0..3).map(|n| file(&format!("large/{n}"), 600 << 10)));
    let listing = Listing::new(entries).unwrap();
    let runs = listing.runs();
    let mut held = Vec::new();
    for run in &runs {
        let files: Vec<_> = listing.files_of(run).collect();
        assert_eq!(files.len(), run.files);
        assert_eq!(files.iter().map(|(_, file)| file.len).sum::<u64>(), run.len);
        assert!(run.len <= MAX_RUN_LEN && run.files <= MAX_RUN_FILES);
        held.extend(files.into_iter().map(|(index, _)| index));
    }
    assert!(held.is_sorted() && held.len() == 3003, "{}", held.len());
    assert_eq!(runs.len(), 3 + 2, "by number, then by length");
}

proptest! {
    #[test]
    fn what_was_written_is_read(entries in proptest::collection::vec(any_entry(), 0..12)) {
        if let Ok(listing) = Listing::new(entries) {
            prop_assert_eq!(Listing::decode(&listing.encode()), Ok(listing));
        }
    }

    #[test]
    fn what_is_accepted_has_these_bytes_only(
        entries in proptest::collection::vec(any_entry(), 0..6),
        changes in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
    ) {
        if let Ok(listing) = Listing::new(entries) {
            let mut bytes = listing.encode();
            for (at, byte) in changes {
                *at.get_mut(&mut bytes) = byte;
            }
            if let Ok(other) = Listing::decode(&bytes) {
                prop_assert_eq!(other.encode(), bytes);
            }
        }
    }

    #[test]
    fn no_bytes_are_a_panic(tail: Vec<u8>) {
        let bytes = [&MAGIC[..], &[VERSION], &tail].concat();
        if let Ok(listing) = Listing::decode(&bytes) {
            prop_assert_eq!(listing.encode(), bytes);
        }
        let _ = Listing::decode(&tail);
    }

    #[test]
    fn paths_are_in_the_order_of_their_components(one in any_entry(), two in any_entry()) {
        let by_names = one.path.components().cmp(two.path.components());
        prop_assert_eq!(one.path.cmp(&two.path), by_names);
    }
}
