//! The listing of a shared folder: what lies in it, each file with the id of its content.
//!
//! ```text
//! │ "p2pfsdir" 8 │ version 1 │ bytes of all files │ entries │ entry … │
//! entry: │ kind 1 │ shared │ length │ the rest of the path │
//! kind 0 file, 1 program: │ length │ seconds │ nanoseconds │ content id 32 │     kind 2: an empty folder
//! ```
//! Numbers without a width are LEB128; seconds are zigzagged before. Of each path only what differs from
//! the one before is written. Entries stand in the order of their paths, component by component, so that
//! what lies under a path follows it at once. A folder has one listing and a listing one folder: what is
//! accepted encodes to the same bytes again, and its BLAKE3 hash is the folder's id.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::MAX_FILE_LEN;
use super::codec::{DecodeError, take};
use super::id::ContentId;
use super::pieces::PIECE_LEN;
use super::text::safe;

const MAGIC: [u8; 8] = *b"p2pfsdir";
const VERSION: u8 = 1;

/// Most files and empty folders of one folder, and most folders in which they lie.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Largest listing, in bytes; of more than that nothing is fetched.
pub const MAX_LISTING_LEN: u64 = 128 << 20;
/// Most bytes of all paths together: shared beginnings are written once, but kept for each.
const MAX_PATHS_LEN: usize = 128 << 20;
/// Folders in folders.
pub const MAX_DEPTH: usize = 64;
/// Longest path below the folder, in bytes: what systems take, less room for where it is put.
pub const MAX_PATH_LEN: usize = 3072;
/// Longest component of a path, in bytes.
pub const MAX_COMPONENT_LEN: usize = 255;

/// Most bytes of a run of small files; a larger file travels alone, by its pieces.
pub const MAX_RUN_LEN: u64 = PIECE_LEN;
/// Most files of a run.
pub const MAX_RUN_FILES: usize = 1024;

/// Nanoseconds of a second.
const NANOS: u32 = 1_000_000_000;

/// A path below a shared folder: names with slashes between, and no way out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FolderPath(Box<str>);

impl FolderPath {
    /// The path as text; not yet safe to print (use `Display`).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names, from the outermost on.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    fn lies_in(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(&*folder.0);
        rest.is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for FolderPath {
    type Err = DecodeError;
    fn from_str(text: &str) -> Result<Self, DecodeError> {
        if text.len() > MAX_PATH_LEN {
            return Err(DecodeError("path too long"));
        }
        let mut depth = 0;
        for name in text.split('/') {
            depth += 1;
            if matches!(name, "" | "." | "..") || name.contains('\0') {
                return Err(DecodeError("path"));
            }
            if name.len() > MAX_COMPONENT_LEN {
                return Err(DecodeError("name too long"));
            }
        }
        if depth > MAX_DEPTH {
            return Err(DecodeError("path too deep"));
        }
        Ok(Self(text.into()))
    }
}

impl Ord for FolderPath {
    /// By components: a slash comes before every other byte.
    fn cmp(&self, other: &Self) -> Ordering {
        let common = common_len(&self.0, &other.0);
        let key = |path: &Self| {
            let byte = path.0.as_bytes().get(common).copied();
            byte.map(|byte| if byte == b'/' { 0 } else { byte })
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for FolderPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for FolderPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&safe(&self.0))
    }
}

impl fmt::Debug for FolderPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// When a file was changed last: seconds since 1970, and nanoseconds of the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Modified {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Less than a billion.
    pub nanos: u32,
}

/// A file in a folder.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FileEntry {
    /// Its length in bytes, at most [`MAX_FILE_LEN`].
    pub len: u64,
    /// The hash of its bytes.
    pub content: ContentId,
    /// Its owner may run it.
    pub is_executable: bool,
    /// When it was changed last.
    pub modified: Modified,
}

/// What lies at a path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Node {
    /// A regular file.
    File(FileEntry),
    /// A folder with nothing in it; all others follow from what lies in them.
    EmptyFolder,
}

/// One line of a listing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Where, below the folder.
    pub path: FolderPath,
    /// What.
    pub node: Node,
}

impl Entry {
    /// The file, if it travels in a run. Empty ones need not travel.
    #[must_use]
    pub fn small_file(&self) -> Option<&FileEntry> {
        match &self.node {
            Node::File(file) if (1..=MAX_RUN_LEN).contains(&file.len) => Some(file),
            Node::File(_) | Node::EmptyFolder => None,
        }
    }
}

/// Small files that travel together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The entries among which they are.
    pub entries: Range<usize>,
    /// How many they are.
    pub files: usize,
    /// Bytes of them all.
    pub len: u64,
}

/// All that lies in a folder, in the order of the paths.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    entries: Vec<Entry>,
    total: u64,
}

impl Listing {
    /// The listing of a folder with these entries, in any order.
    ///
    /// # Errors
    /// When a path stands twice or lies in a file, a number is out of its bounds, or there are too many.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, DecodeError> {
        if entries.len() > MAX_ENTRIES {
            return Err(DecodeError("too many entries"));
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let (mut bounds, mut previous) = (Bounds::default(), None);
        for entry in &entries {
            bounds.check(previous, entry)?;
            previous = Some(&entry.path);
        }
        let total = bounds.total;
        Ok(Self { entries, total })
    }

    /// What lies in the folder, in the order of the paths.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The files among it.
    pub fn files(&self) -> impl Iterator<Item = (&FolderPath, &FileEntry)> {
        self.entries.iter().filter_map(|entry| match &entry.node {
            Node::File(file) => Some((&entry.path, file)),
            Node::EmptyFolder => None,
        })
    }

    /// Bytes of all files together.
    #[must_use]
    pub const fn total_len(&self) -> u64 {
        self.total
    }

    /// The runs in which its small files travel, in order: each as many as fit.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let Some(file) = entry.small_file() else {
                continue;
            };
            match runs.last_mut() {
                Some(run) if run.files < MAX_RUN_FILES && run.len + file.len <= MAX_RUN_LEN => {
                    run.entries.end = index + 1;
                    run.files += 1;
                    run.len += file.len;
                }
                _ => runs.push(Run {
                    entries: index..index + 1,
                    files: 1,
                    len: file.len,
                }),
            }
        }
        runs
    }

    /// The files of a run, each with its number among the entries.
    pub fn files_of(&self, run: &Run) -> impl Iterator<Item = (usize, &FileEntry)> {
        let entries = self.entries.iter().enumerate();
        let entries = entries.take(run.entries.end).skip(run.entries.start);
        entries.filter_map(|(index, entry)| Some((index, entry.small_file()?)))
    }

    /// The bytes whose hash is the folder's id.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 64);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        write_number(self.total, &mut out);
        write_number(self.entries.len() as u64, &mut out);
        let mut before = "";
        for entry in &self.entries {
            let path = entry.path.as_str();
            out.push(match &entry.node {
                Node::File(file) => u8::from(file.is_executable),
                Node::EmptyFolder => KIND_FOLDER,
            });
            let shared = common_len(before, path);
            write_number(shared as u64, &mut out);
            write_number((path.len() - shared) as u64, &mut out);
            out.extend_from_slice(&path.as_bytes()[shared..]);
            if let Node::File(file) = &entry.node {
                write_number(file.len, &mut out);
                write_number(zigzag(file.modified.seconds), &mut out);
                write_number(u64::from(file.modified.nanos), &mut out);
                out.extend_from_slice(&file.content.0);
            }
            before = path;
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() as u64 > MAX_LISTING_LEN {
            return Err(DecodeError("listing too large"));
        }
        let mut rest = bytes;
        if take::<8>(&mut rest)? != MAGIC {
            return Err(DecodeError("not a listing"));
        }
        if take::<1>(&mut rest)? != [VERSION] {
            return Err(DecodeError("listing of another version"));
        }
        let (total, count) = (read_number(&mut rest)?, read_number(&mut rest)?);
        // The entries themselves say where the end is; both numbers are compared with them there.
        let (mut entries, mut bounds) = (Vec::<Entry>::new(), Bounds::default());
        while !rest.is_empty() {
            if entries.len() == MAX_ENTRIES {
                return Err(DecodeError("too many entries"));
            }
            let before = entries.last().map(|entry| &entry.path);
            let entry = read_entry(before.map_or("", FolderPath::as_str), &mut rest)?;
            bounds.check(before, &entry)?;
            entries.push(entry);
        }
        if total != bounds.total || count != entries.len() as u64 {
            return Err(DecodeError("sums of a listing"));
        }
        Ok(Self { entries, total })
    }
}

const KIND_FOLDER: u8 = 2;

/// What holds for all entries together.
#[derive(Default)]
struct Bounds {
    total: u64,
    paths_len: usize,
    folders: usize,
}

impl Bounds {
    fn check(&mut self, before: Option<&FolderPath>, entry: &Entry) -> Result<(), DecodeError> {
        if let Some(before) = before {
            // What lies under `before` would follow it at once, and it is a file or empty.
            if *before >= entry.path || entry.path.lies_in(before) {
                return Err(DecodeError("order of paths"));
            }
        }
        self.paths_len += entry.path.as_str().len();
        if self.paths_len > MAX_PATHS_LEN {
            return Err(DecodeError("paths too long"));
        }
        // Those of the path before it are counted; in this order no folder comes twice.
        let path = entry.path.as_str();
        let common = before.map_or(0, |before| common_len(before.as_str(), path));
        let rest = path.as_bytes().get(common..).unwrap_or_default();
        self.folders += rest.iter().filter(|byte| **byte == b'/').count();
        if self.folders > MAX_ENTRIES {
            return Err(DecodeError("too many folders"));
        }
        if let Node::File(file) = &entry.node {
            if file.len > MAX_FILE_LEN {
                return Err(DecodeError("file too large"));
            }
            if file.modified.nanos >= NANOS {
                return Err(DecodeError("time"));
            }
            let total = self.total.checked_add(file.len);
            self.total = total.ok_or(DecodeError("folder too large"))?;
        }
        Ok(())
    }
}

fn read_entry(before: &str, rest: &mut &[u8]) -> Result<Entry, DecodeError> {
    let [kind] = take(rest)?;
    let shared = read_len(rest, before.len())?;
    let own = read_len(rest, MAX_PATH_LEN - shared)?;
    let (own, behind) = rest.split_at_checked(own).ok_or(DecodeError("cut short"))?;
    *rest = behind;
    let shared_bytes = before.as_bytes().get(..shared).unwrap_or_default();
    let path = [shared_bytes, own].concat();
    let path: FolderPath = std::str::from_utf8(&path)
        .map_err(|_| DecodeError("path is no text"))?
        .parse()?;
    if common_len(before, path.as_str()) != shared {
        return Err(DecodeError("shared beginning"));
    }
    let node = match kind {
        0 | 1 => Node::File(FileEntry {
            is_executable: kind == 1,
            len: read_number(rest)?,
            modified: Modified {
                seconds: unzigzag(read_number(rest)?),
                nanos: u32::try_from(read_number(rest)?).map_err(|_| DecodeError("time"))?,
            },
            content: ContentId(take(rest)?),
        }),
        KIND_FOLDER => Node::EmptyFolder,
        _ => return Err(DecodeError("kind of an entry")),
    };
    Ok(Entry { path, node })
}

/// How many bytes both begin with.
fn common_len(one: &str, two: &str) -> usize {
    const RUN: usize = 32;
    let runs = one.as_bytes().as_chunks::<RUN>().0.iter();
    let equal_runs = runs
        .zip(two.as_bytes().as_chunks::<RUN>().0)
        .take_while(|(a, b)| a == b)
        .count();
    let start = equal_runs * RUN;
    let rest = one.as_bytes()[start..].iter();
    start
        + rest
            .zip(&two.as_bytes()[start..])
            .take_while(|(a, b)| a == b)
            .count()
}

const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

fn write_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// A number in its one shortest form.
fn read_number(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            let is_shortest = byte != 0 || shift == 0;
            return is_shortest.then_some(number).ok_or(DecodeError("number"));
        }
    }
    Err(DecodeError("number"))
}

fn read_len(rest: &mut &[u8], most: usize) -> Result<usize, DecodeError> {
    let len = usize::try_from(read_number(rest)?).ok();
    len.filter(|len| *len <= most).ok_or(DecodeError("length"))
}

#[cfg(test)]
mod tests {
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
            "", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0", &long, &deep,
            &far,
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
}
