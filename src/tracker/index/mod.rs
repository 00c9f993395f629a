//! Substring search over published names, by the three bytes that names hold.
//!
//! Names lie folded in segments of up to 2^16, in the order in which they came; a name has a serial number
//! that is never used again and says where a listing goes on, whatever changed meanwhile. Each segment has
//! a list of its names for every three bytes (a trigram index): a term is looked up in the shortest lists of
//! its own, and what is on all of them is compared. Names with accents are indexed a second time without.
//!
//! Exact names come first, then those that begin with the term, then the rest; then, in the same order,
//! those that differ in accents. A search is a series of short steps, and after a few of them whoever changes
//! the index may have a turn: a name that is there all the time is found exactly once. Removed names are marked, and taken out of
//! memory a few at a time.

mod cleaning;
mod names;
mod postings;
mod query;
mod segment;
mod spelling;
mod texts;

pub use self::query::{Count, Query, START};

use self::cleaning::Cleaner;
use self::names::Names;
use self::postings::CAPACITY;
use self::segment::{Forms, Segments};
use crate::wire::text::{FileName, fold};

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
    /// It is the term, but for the accents of either.
    BareExact,
    /// It begins with the term, but for those.
    BarePrefix,
    /// It contains the term, but for those.
    BareInside,
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
            2 => Self::Inside,
            3 => Self::BareExact,
            4 => Self::BarePrefix,
            _ => Self::BareInside,
        }
    }
}

/// The names, each once.
pub struct Index {
    segments: Segments,
    names: Names,
    cleaner: Cleaner,
    len: usize,
    next: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self::with_segments_of(CAPACITY)
    }
}

impl Index {
    fn with_segments_of(capacity: usize) -> Self {
        Self {
            segments: Segments::of(capacity),
            names: Names::default(),
            cleaner: Cleaner::default(),
            len: 0,
            next: 0,
        }
    }

    /// Names in the index.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// No names?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name of `id`, while it is in the index.
    #[must_use]
    pub fn name(&self, id: NameId) -> Option<FileName> {
        let (number, position) = self.live_place(id)?;
        let shown = self.segments.all[number].shown(position);
        str::from_utf8(&shown).ok()?.parse().ok()
    }

    /// The id of `name`, which is added if it is new.
    pub fn insert(&mut self, name: &FileName) -> NameId {
        let forms = Forms::of(name);
        let bytes = forms.bytes();
        if let Some(id) = self.names.find(&self.segments, bytes.folded, bytes.shown) {
            return id;
        }
        let id = NameId(self.next);
        self.next += 1;
        let before = self.segments.all.len();
        self.segments.open(id).push(id, &bytes);
        if self.segments.all.len() > before && before > 0 {
            // Names that were taken out while it was open count from now on.
            self.cleaner.consider(&self.segments, before - 1);
        }
        self.names.insert(&self.segments, id);
        self.len += 1;
        self.cleaner.work(&mut self.segments);
        id
    }

    /// The id of `name`, if it is there.
    #[must_use]
    pub fn find(&self, name: &FileName) -> Option<NameId> {
        let folded = fold(name.as_str());
        let shown = name.as_str().as_bytes();
        self.names.find(&self.segments, folded.as_bytes(), shown)
    }

    /// Takes a name out.
    pub fn remove(&mut self, id: NameId) {
        let Some((number, position)) = self.live_place(id) else {
            return;
        };
        self.names.remove(&self.segments, id);
        self.segments.all[number].kill(position);
        self.len -= 1;
        self.cleaner.taken_out(id);
        self.cleaner.consider(&self.segments, number);
        self.cleaner.work(&mut self.segments);
    }

    /// The names from `from` on, in the order in which they came.
    pub fn all(&self, from: NameId) -> impl Iterator<Item = NameId> {
        let first = self.segments.number_of(from);
        self.segments
            .all
            .iter()
            .skip(first)
            .flat_map(move |segment| {
                (segment.position_from(from)..segment.len())
                    .filter(|position| segment.is_live(*position))
                    .map(|position| segment.id(position))
            })
    }

    fn live_place(&self, id: NameId) -> Option<(usize, usize)> {
        let place = self.segments.place(id);
        place.filter(|(number, position)| self.segments.all[*number].is_live(*position))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::texts::Budget;
    use super::*;
    use crate::wire::text::without_accents;

    fn index(names: &[&str]) -> Index {
        let mut index = Index::default();
        for name in names {
            index.insert(&name.parse().unwrap());
        }
        index
    }

    /// All walks of one search.
    fn walked(index: &Index, term: &str) -> Vec<(Rank, NameId)> {
        let (mut all, mut next) = (Vec::new(), Some(START));
        while let Some(from) = next.take() {
            for found in index.search(term, from) {
                found.map_or_else(|place| next = Some(place), |hit| all.push(hit));
            }
        }
        all
    }

    fn found(index: &Index, term: &str) -> Vec<String> {
        let names = walked(index, term);
        let names = names.iter().map(|(_, id)| index.name(*id).unwrap());
        names.map(|name| name.as_str().to_owned()).collect()
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
    fn signs_are_letters_like_others() {
        let index = index(&["100%", "a*b", "a.b", "axb", "(c) [d]?", "%"]);
        assert_eq!(found(&index, "%"), ["%", "100%"]);
        assert_eq!(found(&index, "*"), ["a*b"]);
        assert_eq!(found(&index, "a.b"), ["a.b"]);
        assert_eq!(found(&index, "[d]?"), ["(c) [d]?"]);
    }

    #[test]
    fn names_that_differ_in_accents_come_last() {
        let (composed, apart) = ("\u{c9}t\u{e9}.jpg", "e\u{301}te\u{301} b.jpg");
        let index = index(&[
            composed,
            apart,
            "ete.jpg",
            "x ete",
            "Un \u{e9}t\u{e9}",
            "ete et été",
        ]);
        assert_eq!(
            found(&index, "ete"),
            [
                "ete.jpg",
                "ete et été",
                "x ete",
                composed,
                apart,
                "Un \u{e9}t\u{e9}"
            ]
        );
        for term in ["\u{e9}t\u{e9}", "E\u{301}TE\u{301}"] {
            assert_eq!(
                found(&index, term),
                [
                    composed,
                    apart,
                    "Un \u{e9}t\u{e9}",
                    "ete et été",
                    "ete.jpg",
                    "x ete"
                ],
            );
        }
        assert_eq!(found(&index, "ETE.JPG"), ["ete.jpg", composed]);
        assert_eq!(found(&index, "\u{301}"), [""; 0]);
    }

    #[test]
    fn spellings_of_one_name_are_found_each_by_itself() {
        let spellings = ["read me", "Read me", "READ ME", "read ME"];
        let mut index = index(&spellings);
        let ids: Vec<_> = spellings
            .iter()
            .map(|name| index.find(&name.parse().unwrap()).unwrap())
            .collect();
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(found(&index, "read me"), spellings[number..]);
            index.remove(*id);
            assert_eq!(index.find(&spellings[number].parse().unwrap()), None);
        }
        let again = index.insert(&"READ me".parse().unwrap());
        assert!(again > ids[3] && found(&index, "read me") == ["READ me"]);
    }

    #[test]
    fn what_is_counted_is_said_to_be_all_or_not() {
        let mut index = Index::default();
        let count = |index: &Index| index.count("name", 1000);
        for number in 0..1000 {
            index.insert(&format!("name {number}").parse().unwrap());
        }
        let all = |names, is_all| Count { names, is_all };
        assert_eq!(count(&index), all(1000, true));
        index.insert(&"one more name".parse().unwrap());
        assert_eq!(count(&index), all(1000, false));
        assert_eq!(index.count("", 10), all(0, true));
    }

    /// The names that shall be there, each with what it is compared by.
    type Known = BTreeMap<NameId, (FileName, String, String)>;

    fn forms(text: &str) -> (String, String) {
        let folded = fold(text);
        let bare = without_accents(&folded);
        (folded, bare)
    }

    fn known(name: FileName) -> (FileName, String, String) {
        let (folded, bare) = forms(name.as_str());
        (name, folded, bare)
    }

    /// What a comparison of all names finds, in order.
    fn compared(names: &Known, term: &str) -> Vec<(Rank, NameId)> {
        let (term, bare) = forms(term);
        let fit = |text: &str, term: &str, ranks: [Rank; 3]| match text.find(term) {
            _ if term.is_empty() => None,
            Some(0) if text == term => Some(ranks[0]),
            Some(0) => Some(ranks[1]),
            found => found.map(|_| ranks[2]),
        };
        let mut found: Vec<_> = names
            .iter()
            .filter_map(|(id, (_, name, bare_name))| {
                let rank =
                    fit(name, &term, [Rank::Exact, Rank::Prefix, Rank::Inside]).or_else(|| {
                        let ranks = [Rank::BareExact, Rank::BarePrefix, Rank::BareInside];
                        fit(bare_name, &bare, ranks)
                    })?;
                Some((rank, *id))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// All hits, in steps of `budget` and pages of `limit`.
    fn stepped(index: &Index, term: &str, budget: usize, limit: usize) -> Vec<(Rank, NameId)> {
        let query = Query::new(term);
        let (mut all, mut next) = (Vec::new(), Some(START));
        while let Some(from) = next {
            let mut page = Vec::new();
            next = index.step_within(Budget(budget), &query, from, (limit, &mut page));
            assert!(page.len() <= limit && next.is_none_or(|next| next > from));
            all.append(&mut page);
        }
        all
    }

    fn check(index: &Index, names: &Known, term: &str) {
        let found = walked(index, term);
        assert_eq!(found, compared(names, term), "{term:?}");
    }

    fn check_all(index: &Index, names: &Known) {
        assert_eq!(index.len(), names.len());
        assert!(index.all(START.1).eq(names.keys().copied()));
        for (id, (name, ..)) in names {
            assert_eq!(index.name(*id).as_ref(), Some(name));
            assert_eq!(index.find(name), Some(*id));
        }
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert(String),
        Remove(prop::sample::Index),
    }

    fn a_name() -> impl Strategy<Value = String> {
        "[abAB.%eéÉèßs\u{301}]{1,7}"
    }

    fn changes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            3 => a_name().prop_map(Change::Insert),
            2 => any::<prop::sample::Index>().prop_map(Change::Remove),
        ];
        prop::collection::vec(change, len)
    }

    fn apply(index: &mut Index, names: &mut Known, change: &Change) {
        match change {
            Change::Insert(name) => {
                let name: FileName = name.parse().unwrap_or_else(|_| "other".parse().unwrap());
                let id = index.insert(&name);
                let before = names.insert(id, known(name.clone()));
                assert!(
                    before.is_none_or(|(before, ..)| before == name),
                    "an id is used once"
                );
            }
            Change::Remove(which) if !names.is_empty() => {
                let id = *which.get(&names.keys().copied().collect::<Vec<_>>());
                index.remove(id);
                index.remove(id);
                let (name, ..) = names.remove(&id).unwrap();
                assert!(index.name(id).is_none() && index.find(&name).is_none());
            }
            Change::Remove(_) => {}
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_comparison_of_all_names_finds(
            changes in changes(1..300),
            terms in prop::collection::vec("[abAB.%eéÉèßs\u{301}]{1,4}", 1..8),
            (budget, limit) in (1_usize..30, 1_usize..6),
        ) {
            let (mut index, mut names) = (Index::with_segments_of(16), BTreeMap::new());
            for (number, change) in changes.iter().enumerate() {
                apply(&mut index, &mut names, change);
                if number % 16 == 0 {
                    check(&index, &names, &terms[number / 16 % terms.len()]);
                }
            }
            check_all(&index, &names);
            for term in &terms {
                check(&index, &names, term);
                prop_assert_eq!(stepped(&index, term, budget, limit), compared(&names, term));
            }
        }

        #[test]
        fn a_name_that_is_there_all_the_time_is_found_once_whatever_changes_between_pages(
            before in changes(50..200), between in changes(200..300),
            term in "[abeé]{1,2}", per_page in 1_usize..12, limit in 1_usize..4,
        ) {
            let (mut index, mut names) = (Index::with_segments_of(16), BTreeMap::new());
            for change in &before {
                apply(&mut index, &mut names, change);
            }
            let mut stayed = names.clone();
            let query = Query::new(&term);
            let (mut found, mut next, mut between) = (Vec::new(), Some(START), between.iter());
            while let Some(from) = next {
                let mut page = Vec::new();
                next = index.step_within(Budget(5), &query, from, (limit, &mut page));
                for (_, id) in &page {
                    prop_assert!(names.contains_key(id), "it was there");
                }
                found.append(&mut page);
                for change in between.by_ref().take(per_page) {
                    apply(&mut index, &mut names, change);
                }
                stayed.retain(|id, _| names.contains_key(id));
            }
            prop_assert!(found.is_sorted_by(|a, b| a < b));
            found.retain(|(_, id)| stayed.contains_key(id));
            prop_assert_eq!(found, compared(&stayed, &term));
        }

        #[test]
        fn no_text_is_too_strange(names in prop::collection::vec(".{1,60}", 1..20), terms in prop::collection::vec(".{0,6}", 5)) {
            let (mut index, mut there) = (Index::with_segments_of(4), BTreeMap::new());
            for name in names.iter().filter_map(|name| FileName::from_local(name)) {
                there.insert(index.insert(&name), known(name));
            }
            for term in &terms {
                check(&index, &there, term);
            }
            for name in &names {
                check(&index, &there, name);
            }
            check_all(&index, &there);
        }

        #[test]
        fn any_place_is_one_to_go_on_from(rank: u8, id: u64, term in "[ab]{1,3}") {
            let index = index(&["ab", "abc", "xab", "b"]);
            let from = (Rank::from_byte(rank), NameId(id));
            prop_assert!(index.search(&term, from).all(|found| found.is_ok_and(|place| place >= from)));
            prop_assert!(index.all(NameId(id)).all(|there| there.0 >= id));
        }
    }

    /// Segments of their real size, with lists of every kind; removals until all were cleaned.
    #[test]
    fn large_segments_find_the_same_before_and_after_cleaning() {
        let (mut index, mut names) = (Index::default(), BTreeMap::new());
        let mut state = 1_u64;
        let mut random = move |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let words = ["img", "holiday", "été", "Rock", "xyz", "2024", "ete"];
        for number in 0..80_000_u64 {
            let word = words[random(7)];
            let name = format!(
                "{word} {:x}{number}.{}",
                random(4096),
                ["jpg", "PDF"][random(2)]
            );
            let name: FileName = name.parse().unwrap();
            names.insert(index.insert(&name), known(name));
        }
        let terms = [
            "i",
            "7",
            "q",
            "xy",
            "9.",
            "img",
            "jpg",
            "zzz",
            "été",
            "ete",
            " 1",
            "777",
            "9.jpg",
            "holiday 1",
            "rock abc",
            "et",
            "é",
            "img 12",
            "x",
            "4.p",
        ];
        let few = |names: &Known, index: &Index| {
            check_all(index, names);
            for term in terms {
                check(index, names, term);
                assert_eq!(
                    stepped(index, term, 300, 1000),
                    compared(names, term),
                    "{term:?}"
                );
            }
        };
        few(&names, &index);
        let segments = index.segments.all.len();
        let ids: Vec<_> = names.keys().copied().collect();
        for id in ids.iter().filter(|id| id.0 % 10 != 3) {
            index.remove(*id);
            names.remove(id);
        }
        few(&names, &index);
        for number in 0..65_536 {
            let id = index.insert(&format!("filler {number}").parse().unwrap());
            index.remove(id);
        }
        while !index.cleaner.is_idle() {
            let id = index.insert(&"filler".parse().unwrap());
            index.remove(id);
        }
        few(&names, &index);
        let closed = &index.segments.all[..index.segments.all.len() - 1];
        let kept: usize = closed.iter().map(segment::Segment::len).sum();
        assert!(
            segments > 1 && (8000..12_000).contains(&kept),
            "{kept} names are kept"
        );
    }
}
