//! Search over published names, and what it costs to keep them.
//!
//! `cargo bench --bench search [-- NAMES]` prints a table; each term is looked for once, so that nothing of
//! it is in the caches. With `--test` it only shows that it runs.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

mod names;
mod scan;

use std::hint::black_box;
use std::time::{Duration, Instant};

use p2pfs::tracker::index::{Index, Query, START};

use self::names::{Draw, name};
use self::scan::Scan;

/// Hits of one page.
const PAGE: usize = 20;
/// Hits that a search counts.
const COUNTED: usize = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_test = arguments.iter().any(|argument| argument == "--test");
    let wanted = arguments.iter().find_map(|argument| argument.parse().ok());
    let names = if is_test {
        2000
    } else {
        wanted.unwrap_or(1_000_000)
    };
    let terms = if is_test { 20 } else { 1000 };

    let before = resident();
    let mut index = Index::default();
    let mut inserts = Times::default();
    for number in 0..names {
        let name = name(number);
        inserts.time(|| index.insert(&name));
    }
    let bytes = resident().saturating_sub(before);
    println!(
        "{} names, {} bytes each",
        index.len(),
        bytes / index.len().max(1)
    );
    inserts.print("insert, from none on");

    let mut scan = Scan::default();
    for number in 0..names {
        scan.insert(&name(number));
    }
    search(&index, &scan, names, terms);
    change(&mut index, names);
}

/// Terms by how many names they are in.
fn search(index: &Index, scan: &Scan, names: u64, terms: usize) {
    let mut draw = Draw(7);
    let mut classes = [
        ("no hit", Vec::new()),
        ("1 to 20 hits", Vec::new()),
        ("21 to 1000 hits", Vec::new()),
        ("more hits", Vec::new()),
        ("one letter", Vec::new()),
        ("two letters", Vec::new()),
    ];
    for _ in 0..terms * 60 {
        let term = match draw.below(10) {
            0 => term(&mut draw, names, 1),
            1 => term(&mut draw, names, 2),
            2 => letters(&mut draw),
            _ => {
                let len = 3 + draw.below(10);
                term(&mut draw, names, usize::try_from(len).unwrap_or(3))
            }
        };
        let class = match (
            term.chars().count(),
            index.search(&term, START).take(COUNTED + 1).count(),
        ) {
            (1, _) => 4,
            (2, _) => 5,
            (_, 0) => 0,
            (_, 1..=PAGE) => 1,
            (_, ..=COUNTED) => 2,
            _ => 3,
        };
        if classes[class].1.len() < terms {
            classes[class].1.push(term);
        }
        if classes.iter().all(|(_, found)| found.len() >= terms) {
            break;
        }
    }
    println!(
        "\n{:<18} {:>6} {:>22} {:>22} {:>22} {:>22}",
        "µs, p50 p99 most", "terms", "first page", "longest step", "count", "plain scan"
    );
    for (class, terms) in &classes {
        let [mut page, mut step, mut count, mut plain] = [(); 4].map(|()| Times::default());
        for term in terms {
            page.time(|| index.search(black_box(term), START).take(PAGE).count());
        }
        for term in terms {
            step.0.push(longest_step(index, term));
        }
        for term in terms {
            count.time(|| index.count(black_box(term), COUNTED));
        }
        for term in &terms[..terms.len().min(30)] {
            plain.time(|| scan.search(black_box(term), PAGE).len());
        }
        let columns = [&mut page, &mut step, &mut count, &mut plain].map(Times::columns);
        println!(
            "{class:<18} {:>6} {:>22} {:>22} {:>22} {:>22}",
            terms.len(),
            columns[0],
            columns[1],
            columns[2],
            columns[3]
        );
    }
    println!();
}

/// A part of a name.
fn term(draw: &mut Draw, names: u64, len: usize) -> String {
    let name: Vec<char> = name(draw.below(names)).as_str().chars().collect();
    let last = name.len().saturating_sub(len) as u64;
    let first = usize::try_from(draw.below(last + 1)).unwrap_or(0);
    name[first..].iter().take(len).collect()
}

/// What hardly any name holds.
fn letters(draw: &mut Draw) -> String {
    let count = 3 + draw.below(6);
    (0..count)
        .map(|_| char::from(b'a' + u8::try_from(draw.below(26)).unwrap_or(0)))
        .collect()
}

/// The longest step of one page.
fn longest_step(index: &Index, term: &str) -> Duration {
    let query = Query::new(term);
    let (mut hits, mut next, mut longest) = (Vec::new(), Some(START), Duration::ZERO);
    while let Some(from) = next.filter(|_| hits.len() < PAGE) {
        let start = Instant::now();
        next = index.step(&query, from, PAGE, &mut hits);
        longest = longest.max(start.elapsed());
    }
    longest
}

/// Changes while segments are cleaned: two of five names go, in no order, and new ones come.
fn change(index: &mut Index, names: u64) {
    let (mut inserts, mut removes, mut again) =
        (Times::default(), Times::default(), Times::default());
    let mut draw = Draw(9);
    let count = names / 5 * 2;
    for number in 0..count {
        let old = name(draw.below(names));
        if let Some(id) = index.find(&old) {
            removes.time(|| index.remove(id));
        }
        if number % 4 == 0 {
            let new = name(names + number);
            inserts.time(|| index.insert(&new));
            again.time(|| index.insert(&new));
        }
    }
    inserts.print("insert, while cleaning");
    again.print("insert what is there");
    removes.print("remove, while cleaning");
}

/// How long each of many things took.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn time<T>(&mut self, what: impl FnOnce() -> T) {
        let start = Instant::now();
        black_box(what());
        self.0.push(start.elapsed());
    }

    /// Median, the one that a hundredth exceeds, and the longest.
    fn columns(&mut self) -> String {
        self.0.sort_unstable();
        let at = |part: f64| {
            let last = self.0.len().saturating_sub(1) as f64;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of an element"
            )]
            let time = self.0.get((last * part).round() as usize);
            time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        format!("{:.1} {:.1} {:.1}", at(0.5), at(0.99), at(1.0))
    }

    fn print(&mut self, what: &str) {
        let mean = self.0.iter().sum::<Duration>().as_secs_f64() * 1e6 / self.0.len().max(1) as f64;
        println!(
            "{what}: mean {mean:.2} µs; p50 p99 most: {}",
            self.columns()
        );
    }
}

/// Bytes of memory that this program has, where the system tells.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
}
