//! Up to 2^16 folded texts, a line each, and where in them three bytes stand.
//!
//! ```text
//! │ \n │ first text │ \n │ second text │ \n │ …        no text holds the byte that ends it
//! ```
//!
//! The key of three bytes may hold an end: `\nab` are the texts that begin with `ab`, `yz\n` those that end
//! with `yz`. A term of one or two bytes is looked for among all keys that it begins, or in the lines
//! themselves when it is so frequent that the next hit is near.

use memchr::memmem::Finder;

use super::postings::{CAPACITY, List, Postings, WORDS, anchor, trigram};

/// Ends each text.
pub(super) const END: u8 = b'\n';
/// Bytes after which no further text is taken: one walk through them is one step.
const MAX_BYTES: usize = 4 << 20;
/// Lists that one term is looked up in.
const MAX_KEYS: usize = 10;
/// Above so many positions a short term is frequent.
const FREQUENT: usize = CAPACITY / 32;

/// How a term stands in a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// It is the text.
    Whole,
    /// The text begins with it, and goes on.
    Start,
    /// It stands further inside only.
    Inside,
}

/// What is left of a step. A unit is one look at a name or a list: up to a third of a microsecond when it has
/// to come from memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget(pub(super) usize);

impl Budget {
    /// Takes `units`, as far as they are there.
    pub(super) fn spend(&mut self, units: usize) {
        self.0 = self.0.saturating_sub(units);
    }

    /// Nothing left?
    pub(super) fn is_spent(self) -> bool {
        self.0 == 0
    }
}

/// A folded term, ready to be looked for.
pub(super) struct Needle {
    /// Finds it anywhere.
    inside: Finder<'static>,
    /// Finds it at the beginning of a line.
    start: Finder<'static>,
    whole_keys: Vec<u32>,
    start_keys: Vec<u32>,
    inside_keys: Vec<u32>,
}

impl Needle {
    pub(super) fn new(term: &str) -> Self {
        let term = term.as_bytes();
        let line = [&[END], term, &[END]].concat();
        let first = term.first_chunk().copied().map(anchor);
        let with_first = |keys: Vec<u32>| first.into_iter().chain(keys).collect();
        Self {
            inside: Finder::new(term).into_owned(),
            start: Finder::new(&line[..=term.len()]).into_owned(),
            whole_keys: with_first(keys(&line)),
            // The key of three bytes is sharper than that of an end and two.
            start_keys: match first {
                Some(_) => with_first(keys(term.get(1..).unwrap_or_default())),
                None => keys(&line[..=term.len()]),
            },
            inside_keys: keys(term),
        }
    }

    /// The bytes of the term.
    pub(super) fn term(&self) -> &[u8] {
        self.inside.needle()
    }

    /// Does `text` hold it?
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        self.inside.find(text).is_some()
    }

    fn fits(&self, text: &[u8], fit: Fit) -> bool {
        match fit {
            Fit::Whole => text == self.term(),
            Fit::Start => text.len() > self.term().len() && text.starts_with(self.term()),
            Fit::Inside => !text.starts_with(self.term()) && self.is_in(text),
        }
    }
}

/// Keys of a text, some of them when it is long.
fn keys(text: &[u8]) -> Vec<u32> {
    let all: Vec<u32> = text
        .windows(3)
        .map(|three| trigram([three[0], three[1], three[2]]))
        .collect();
    let chosen = all.len().min(MAX_KEYS);
    (0..chosen)
        .map(|number| all[number * all.len() / chosen])
        .collect()
}

/// The texts.
pub(super) struct Texts {
    lines: Vec<u8>,
    starts: Vec<u32>,
    postings: Postings,
    /// Which bytes follow which: a bit for each pair.
    pairs: Vec<u64>,
    /// Which bytes there are.
    bytes: [u64; 4],
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            lines: vec![END],
            starts: Vec::new(),
            postings: Postings::default(),
            pairs: Vec::new(),
            bytes: [0; 4],
        }
    }
}

impl Texts {
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= CAPACITY || self.lines.len() >= MAX_BYTES
    }

    pub(super) fn byte_len(&self) -> usize {
        self.lines.len()
    }

    /// The text at `position`.
    pub(super) fn get(&self, position: usize) -> &[u8] {
        let next = self.starts.get(position + 1);
        let end = next.map_or(self.lines.len(), |next| *next as usize);
        &self.lines[self.starts[position] as usize..end - 1]
    }

    /// Adds a text; there is room for it.
    pub(super) fn push(&mut self, text: &[u8]) {
        let id = u16::try_from(self.len()).expect("a full segment takes no more");
        let start = self.lines.len();
        self.starts
            .push(u32::try_from(start).expect("a full segment takes no more"));
        self.lines.extend_from_slice(text);
        self.lines.push(END);
        let line = &self.lines[start - 1..];
        if let Some(first) = text.first_chunk() {
            self.postings.push(anchor(*first), id);
        }
        for three in line.windows(3) {
            self.postings
                .push(trigram([three[0], three[1], three[2]]), id);
        }
        self.pairs.resize(WORDS, 0);
        for two in line.windows(2) {
            let pair = usize::from(two[0]) << 8 | usize::from(two[1]);
            self.pairs[pair / 64] |= 1 << (pair % 64);
            self.bytes[usize::from(two[0]) / 64] |= 1 << (two[0] % 64);
        }
    }

    /// Frees a part of it; says whether something is left.
    pub(super) fn free_some(&mut self) -> bool {
        self.postings.free_some()
    }

    /// Hands the positions from `from` on at which the term fits to `found`, in ascending order, until that
    /// says that it is enough. `is_live` is asked before a text is looked at. Gives the position to go on
    /// from, when something is left.
    pub(super) fn walk(
        &self,
        needle: &Needle,
        fit: Fit,
        from: usize,
        budget: &mut Budget,
        is_live: impl Fn(usize) -> bool,
        mut found: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        if from >= self.len() {
            return None;
        }
        let mut look = |position: usize, budget: &mut Budget, is_sure: bool| {
            if !is_live(position) {
                return true;
            }
            if !is_sure {
                budget.spend(1);
            }
            !(is_sure || needle.fits(self.get(position), fit)) || found(position)
        };
        match (fit, needle.term().len()) {
            (_, 0) => None,
            (Fit::Start, 1) => {
                let pair = [END, needle.term()[0]];
                self.walk_short(&needle.start, &pair, from, budget, look)
            }
            (Fit::Inside, 1) => {
                let byte = needle.term()[0];
                if self.bytes[usize::from(byte) / 64] >> (byte % 64) & 1 == 0 {
                    return None;
                }
                self.scan(&needle.inside, from, budget, look)
            }
            (Fit::Inside, 2) => {
                let pair = [needle.term()[0], needle.term()[1]];
                self.walk_short(&needle.inside, &pair, from, budget, look)
            }
            (Fit::Inside, 3) => {
                budget.spend(2);
                let list = self.postings.get(needle.inside_keys[0])?;
                // Those that begin with it are known without a look at them.
                let not = self.postings.get(needle.whole_keys[0]);
                each(list, &[], not, from, budget, |position, budget| {
                    look(position, budget, true)
                })
            }
            _ => {
                let keys = match fit {
                    Fit::Whole => &needle.whole_keys,
                    Fit::Start => &needle.start_keys,
                    Fit::Inside => &needle.inside_keys,
                };
                budget.spend(keys.len());
                let mut lists = Vec::with_capacity(keys.len());
                for key in keys {
                    lists.push(self.postings.get(*key)?);
                }
                lists.sort_unstable_by_key(|list| list.len());
                let (least, others) = lists.split_first()?;
                each(least, others, None, from, budget, |position, budget| {
                    look(position, budget, false)
                })
            }
        }
    }

    /// Texts that hold a pair of bytes, by the keys that it begins.
    fn walk_short(
        &self,
        finder: &Finder<'_>,
        pair: &[u8; 2],
        from: usize,
        budget: &mut Budget,
        mut look: impl FnMut(usize, &mut Budget, bool) -> bool,
    ) -> Option<usize> {
        budget.spend(1);
        if !self.has_pair(*pair) {
            return None;
        }
        let (mut lists, mut sum) = (Vec::new(), 0);
        for next in 0..=u8::MAX {
            if self.has_pair([pair[1], next]) {
                budget.spend(1);
                let list = self.postings.get(trigram([pair[0], pair[1], next]));
                sum += list.map_or(0, List::len);
                lists.extend(list);
            }
            if sum > FREQUENT {
                return self.scan(finder, from, budget, look);
            }
        }
        budget.spend(WORDS / 32 + sum / 32);
        let mut all = [0; WORDS];
        for list in lists {
            list.add_to(&mut all);
        }
        bits(
            |word| all[word],
            from,
            budget,
            |position, budget| look(position, budget, false),
        )
    }

    fn has_pair(&self, pair: [u8; 2]) -> bool {
        let pair = usize::from(u16::from_be_bytes(pair));
        let word = self.pairs.get(pair / 64);
        word.is_some_and(|word| word >> (pair % 64) & 1 == 1)
    }

    /// Looks at every text that `finder` finds.
    fn scan(
        &self,
        finder: &Finder<'_>,
        from: usize,
        budget: &mut Budget,
        mut look: impl FnMut(usize, &mut Budget, bool) -> bool,
    ) -> Option<usize> {
        /// Bytes that take about as long as one unit of the budget.
        const BYTES_PER_UNIT: usize = 2048;
        let mut position = from;
        while position < self.len() {
            // With the end before it, which belongs to a needle that begins a line.
            let start = self.starts[position] as usize - 1;
            let offset = finder.find(&self.lines[start..])?;
            budget.spend(1 + offset / BYTES_PER_UNIT);
            // The last byte of what was found is in the text itself, also when the first ends another.
            let last = start + offset + finder.needle().len() - 1;
            let hit = position
                + self.starts[position..].partition_point(|start| *start as usize <= last)
                - 1;
            position = hit + 1;
            if !look(hit, budget, false) || budget.is_spent() {
                return (position < self.len()).then_some(position);
            }
        }
        None
    }
}

/// Hands over what is on `least`, on all `others` and not on `not`, as [`Texts::walk`] does.
fn each(
    least: &List,
    others: &[&List],
    not: Option<&List>,
    from: usize,
    budget: &mut Budget,
    mut look: impl FnMut(usize, &mut Budget) -> bool,
) -> Option<usize> {
    let Some(ids) = least.ids() else {
        // All are bitmaps, since they are sorted.
        let words = |list: &&List, word: usize| match list {
            List::Bits { words, .. } => words[word],
            _ => 0,
        };
        return bits(
            |word| {
                let both = others
                    .iter()
                    .fold(words(&least, word), |both, list| both & words(list, word));
                both & !not.map_or(0, |not| not_word(not, word, both))
            },
            from,
            budget,
            look,
        );
    };
    let first = ids.partition_point(|id| usize::from(*id) < from);
    let mut others: Vec<Seek<'_>> = others.iter().map(|list| Seek::new(list)).collect();
    for (number, id) in ids.iter().enumerate().skip(first) {
        if number % 8 == 0 {
            budget.spend(1);
        }
        let is_wanted = others.iter_mut().all(|list| list.has(*id))
            && !not.is_some_and(|not| not.contains(*id));
        if (is_wanted && !look(usize::from(*id), budget)) || budget.is_spent() {
            return ids.get(number + 1).map(|next| usize::from(*next));
        }
    }
    None
}

/// Those of the positions `of` in one word of a bitmap that are on `list`.
fn not_word(list: &List, word: usize, of: u64) -> u64 {
    if let List::Bits { words, .. } = list {
        return words[word];
    }
    let ids = list.ids().unwrap_or_default();
    let first = ids.partition_point(|id| usize::from(*id) < word * 64);
    let inside = ids[first..]
        .iter()
        .take_while(|id| usize::from(**id) / 64 == word);
    inside.fold(0, |bits, id| bits | (1 << (id % 64))) & of
}

/// The same for a bitmap, a word at a time.
fn bits(
    word_at: impl Fn(usize) -> u64,
    from: usize,
    budget: &mut Budget,
    mut look: impl FnMut(usize, &mut Budget) -> bool,
) -> Option<usize> {
    for number in from / 64..WORDS {
        let mut word = word_at(number);
        if number == from / 64 {
            word &= u64::MAX << (from % 64);
        }
        if number % 32 == 0 {
            budget.spend(1);
        }
        while word != 0 {
            let position = number * 64 + word.trailing_zeros() as usize;
            word &= word - 1;
            if !look(position, budget) || budget.is_spent() {
                return Some(position + 1);
            }
        }
    }
    None
}

/// Goes forward through one list.
struct Seek<'a> {
    list: &'a List,
    rest: &'a [u16],
}

impl<'a> Seek<'a> {
    fn new(list: &'a List) -> Self {
        let rest = list.ids().unwrap_or_default();
        Self { list, rest }
    }

    /// Is `id` on it? The ids asked for ascend.
    fn has(&mut self, id: u16) -> bool {
        if let List::Bits { .. } = self.list {
            return self.list.contains(id);
        }
        let mut width = 1;
        while self.rest.get(width).is_some_and(|there| *there < id) {
            width *= 2;
        }
        let near = &self.rest[..self.rest.len().min(width + 1)];
        self.rest = &self.rest[near.partition_point(|there| *there < id)..];
        self.rest.first() == Some(&id)
    }
}
