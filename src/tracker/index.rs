//! Substring search over published names.
//!
//! All names lie folded in one text, a line each, and are found by a plain scan: exact names first, then
//! those that begin with the term, then the rest. A name has a serial number that is never used again;
//! it says where a listing goes on, also after the text was compacted.

use std::collections::HashMap;

use memchr::memmem::Finder;

use crate::wire::text::{FileName, fold};

/// Ends each name in the text; no name holds it.
const END: u8 = b'\n';
/// The text is compacted when more names than these, and more than half of all, are dead.
const MIN_DEAD: usize = 1024;

/// A name in the index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NameId(u64);

impl NameId {
    /// As it stands in a cursor.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// From a cursor; any number is a place to go on from.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }
}

/// How well a name fits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// It is the term.
    Exact,
    /// It begins with the term.
    Prefix,
    /// It contains the term.
    Inside,
}

impl Rank {
    /// As it stands in a cursor.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self as u8
    }

    /// From a cursor; unknown numbers count as the last rank.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Exact,
            1 => Self::Prefix,
            _ => Self::Inside,
        }
    }
}

struct Line {
    id: NameId,
    start: usize,
    name: Option<FileName>,
}

/// The names, each once.
#[derive(Default)]
pub struct Index {
    text: Vec<u8>,
    lines: Vec<Line>,
    ids: HashMap<FileName, NameId>,
    folded: HashMap<String, Vec<NameId>>,
    dead: usize,
    next: u64,
}

impl Index {
    /// Names in the index.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// No names?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The name of `id`, while it is in the index.
    #[must_use]
    pub fn name(&self, id: NameId) -> Option<&FileName> {
        self.lines[self.line_of(id)?].name.as_ref()
    }

    /// The id of `name`, which is added if it is new.
    pub fn insert(&mut self, name: &FileName) -> NameId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = NameId(self.next);
        self.next += 1;
        let folded = fold(name.as_str());
        self.lines.push(Line {
            id,
            start: self.text.len(),
            name: Some(name.clone()),
        });
        self.text.extend_from_slice(folded.as_bytes());
        self.text.push(END);
        self.ids.insert(name.clone(), id);
        self.folded.entry(folded).or_default().push(id);
        id
    }

    /// The id of `name`, if it is there.
    #[must_use]
    pub fn find(&self, name: &FileName) -> Option<NameId> {
        self.ids.get(name).copied()
    }

    /// Takes a name out.
    pub fn remove(&mut self, id: NameId) {
        let Some(line) = self.line_of(id) else { return };
        let Some(name) = self.lines[line].name.take() else {
            return;
        };
        self.ids.remove(&name);
        let folded = fold(name.as_str());
        if let Some(ids) = self.folded.get_mut(&folded) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.folded.remove(&folded);
            }
        }
        self.dead += 1;
        if self.dead > MIN_DEAD && self.dead > self.lines.len() / 2 {
            self.compact();
        }
    }

    /// The names from `from` on, in the order in which they came.
    pub fn all(&self, from: NameId) -> impl Iterator<Item = NameId> {
        let first = self.lines.partition_point(|line| line.id < from);
        self.lines[first..]
            .iter()
            .filter(|line| line.name.is_some())
            .map(|line| line.id)
    }

    /// The names that contain `term`, whatever its case, best first, from a place of an earlier walk on.
    pub fn search(&self, term: &str, from: (Rank, NameId)) -> impl Iterator<Item = (Rank, NameId)> {
        let term = fold(term);
        let is_term = !term.is_empty() && !term.as_bytes().contains(&END);
        let ranks = [Rank::Exact, Rank::Prefix, Rank::Inside].into_iter();
        ranks
            .filter(move |rank| is_term && *rank >= from.0)
            .flat_map(move |rank| {
                let first = if rank == from.0 { from.1 } else { NameId(0) };
                self.of_rank(&term, rank, first).map(move |id| (rank, id))
            })
    }

    fn of_rank(
        &self,
        term: &str,
        rank: Rank,
        from: NameId,
    ) -> Box<dyn Iterator<Item = NameId> + '_> {
        if rank == Rank::Exact {
            let ids = self.folded.get(term).cloned().unwrap_or_default();
            return Box::new(ids.into_iter().filter(move |id| *id >= from));
        }
        let finder = Finder::new(term).into_owned();
        let len = term.len();
        let mut line = self.lines.partition_point(|line| line.id < from);
        Box::new(std::iter::from_fn(move || {
            loop {
                let start = self.lines.get(line)?.start;
                let found = start + finder.find(&self.text[start..])?;
                line = self.lines.partition_point(|line| line.start <= found) - 1;
                let hit = &self.lines[line];
                line += 1;
                let end = self
                    .lines
                    .get(line)
                    .map_or(self.text.len(), |next| next.start)
                    - 1;
                let found_rank = match (found == hit.start, found + len == end) {
                    (true, true) => Rank::Exact,
                    (true, false) => Rank::Prefix,
                    (false, _) => Rank::Inside,
                };
                if found_rank == rank && hit.name.is_some() {
                    return Some(hit.id);
                }
            }
        }))
    }

    fn line_of(&self, id: NameId) -> Option<usize> {
        self.lines.binary_search_by_key(&id, |line| line.id).ok()
    }

    fn compact(&mut self) {
        let mut text = Vec::with_capacity(self.text.len() / 2);
        let mut lines = Vec::with_capacity(self.ids.len());
        for line in self.lines.drain(..).filter(|line| line.name.is_some()) {
            let rest = &self.text[line.start..];
            let len = memchr::memchr(END, rest).map_or(rest.len(), |end| end + 1);
            lines.push(Line {
                start: text.len(),
                ..line
            });
            text.extend_from_slice(&rest[..len]);
        }
        (self.text, self.lines, self.dead) = (text, lines, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: (Rank, NameId) = (Rank::Exact, NameId(0));

    fn index(names: &[&str]) -> Index {
        let mut index = Index::default();
        for name in names {
            index.insert(&name.parse().unwrap());
        }
        index
    }

    fn found(index: &Index, term: &str) -> Vec<String> {
        let names = index
            .search(term, START)
            .map(|(_, id)| index.name(id).unwrap().as_str().to_owned());
        names.collect()
    }

    #[test]
    fn the_best_names_come_first() {
        let index = index(&[
            "my report",
            "report.pdf",
            "REPORT",
            "xreport",
            "Report",
            "nothing",
        ]);
        assert_eq!(
            found(&index, "report"),
            ["REPORT", "Report", "report.pdf", "my report", "xreport"]
        );
        assert_eq!(
            found(&index, "REP"),
            ["report.pdf", "REPORT", "Report", "my report", "xreport"]
        );
        assert_eq!(found(&index, "t.p"), ["report.pdf"]);
        assert!(found(&index, "zebra").is_empty());
        assert!(found(&index, "").is_empty() && found(&index, "\n").is_empty());
    }

    #[test]
    fn a_term_does_not_match_across_two_names() {
        let index = index(&["abc", "def"]);
        assert!(found(&index, "cd").is_empty() && found(&index, "c\nd").is_empty());
    }

    #[test]
    fn a_name_is_found_once_however_often_it_matches() {
        assert_eq!(found(&index(&["aaaa", "baaa"]), "aa"), ["aaaa", "baaa"]);
    }

    #[test]
    fn removed_names_are_gone_also_after_compaction() {
        let mut index = Index::default();
        let ids: Vec<_> = (0..5000)
            .map(|n| index.insert(&format!("name {n} x").parse().unwrap()))
            .collect();
        for id in &ids[..4000] {
            index.remove(*id);
            index.remove(*id);
        }
        assert_eq!(index.len(), 1000);
        assert!(index.lines.len() < 5000, "it was compacted");
        assert_eq!(found(&index, "name").len(), 1000);
        assert_eq!(found(&index, "name 4321 x"), ["name 4321 x"]);
        let half = index.search("name", (Rank::Prefix, ids[4500])).count();
        assert_eq!(half, 500, "a cursor from before still fits");
    }

    proptest! {
        #[test]
        fn it_finds_what_a_comparison_of_all_names_finds(
            names in prop::collection::hash_set("[abAB]{1,6}", 1..40), term in "[abAB]{1,3}",
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let index = index(&names);
            let mut found = found(&index, &term);
            let mut expected: Vec<_> =
                names.iter().filter(|name| fold(name).contains(&fold(&term))).map(|n| (*n).to_owned()).collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
