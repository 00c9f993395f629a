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
mod tests;
