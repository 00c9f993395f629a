//! Search over published names, and what it costs to keep them, beside a plain scan of them all.
//!
//! `cargo bench --bench search [-- NAMES]` prints a table. A term is looked for once in each pass, in an
//! order of that pass and among thousands of others: what a first search finds in the caches is what
//! others left there. `again` is the same search at once once more. With `--test` it only shows that it runs.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

mod names;
mod scan;
mod times;

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use p2pfs::tracker::index::{Index, Query, START};

use self::names::{Draw, name};
use self::scan::Scan;
use self::times::Times;

/// Hits of one page.
const PAGE: usize = 20;
/// Hits that a search counts.
const COUNTED: usize = 1000;
/// Terms of each kind that the scan looks for.
const SCANNED: usize = 30;
/// Names among which names are taken out: enough of one segment that it is cleaned.
const MAX_CHANGED: u64 = 1_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_test = arguments.iter().any(|argument| argument == "--test");
    let wanted = arguments.iter().find_map(|argument| argument.parse().ok());
    let (names, terms) = if is_test {
        (2000, 200)
    } else {
        (wanted.unwrap_or(1_000_000), 12_000)
    };

    // What the measure itself needs is there before.
    let mut inserts = Times::with_room_for(names);
    let before = resident();
    let mut index = Index::default();
    for number in 0..names {
        let name = name(number);
        inserts.time(|| index.insert(&name));
    }
    let index_len = resident().saturating_sub(before);

    let before = resident();
    let mut scan = Scan::default();
    for number in 0..names {
        scan.insert(&name(number));
    }
    let scan_len = resident().saturating_sub(before);
    let each = |bytes: usize| bytes / index.len().max(1);
    println!(
        "{} names; bytes of each: {} in the index, {} in the scan",
        index.len(),
        each(index_len),
        each(scan_len)
    );
    inserts.print("insert, from none on");

    search(&index, &scan, &mut Draw(7), terms, names);
    let before = resident();
    let gone = change(&mut index, names);
    println!(
        "{gone} more went than came: {} KiB before, {} KiB after",
        before / 1024,
        resident() / 1024
    );
}

/// Kinds of terms.
const CLASSES: [&str; 6] = [
    "no hit",
    "1 to 20 hits",
    "21 to 1000 hits",
    "more hits",
    "one letter",
    "two letters",
];

fn class_of(index: &Index, term: &str) -> usize {
    match (term.chars().count(), hits(index, term, COUNTED + 1)) {
        (1, _) => 4,
        (2, _) => 5,
        (_, 0) => 0,
        (_, 1..=PAGE) => 1,
        (_, ..=COUNTED) => 2,
        _ => 3,
    }
}

fn hits(index: &Index, term: &str, most: usize) -> usize {
    let (mut count, mut next) = (0, Some(START));
    while let Some(from) = next.take().filter(|_| count < most) {
        for found in index.search(black_box(term), from).take(most - count) {
            match found {
                Ok(_) => count += 1,
                Err(place) => next = Some(place),
            }
        }
    }
    count
}

fn search(index: &Index, scan: &Scan, draw: &mut Draw, count: usize, names: u64) {
    // Ordered, so that every run draws the same.
    let drawn: BTreeSet<String> = (0..count).map(|_| any_term(draw, names)).collect();
    let mut terms: Vec<String> = drawn.into_iter().collect();
    let mut table: [[Times; 5]; 6] = Default::default();
    // Nobody looked for any of them before, so that what kind a term is of is found out later.
    shuffle(&mut terms, draw);
    let mut first: Vec<[Duration; 2]> = Vec::new();
    for term in &terms {
        first.push([(); 2].map(|()| {
            let start = Instant::now();
            black_box(hits(index, term, PAGE));
            start.elapsed()
        }));
    }
    for (term, [first, again]) in terms.iter().zip(first) {
        let times = &mut table[class_of(index, term)];
        times[0].add(first);
        times[1].add(again);
    }
    shuffle(&mut terms, draw);
    for term in &terms {
        let longest = longest_step(index, term);
        table[class_of(index, term)][2].add(longest);
    }
    shuffle(&mut terms, draw);
    for term in &terms {
        let mut counted = Times::default();
        counted.time(|| index.count(black_box(term), COUNTED));
        table[class_of(index, term)][3].append(&counted);
    }
    shuffle(&mut terms, draw);
    for term in &terms {
        let plain = &mut table[class_of(index, term)][4];
        if plain.len() < SCANNED {
            plain.time(|| scan.search(black_box(term), PAGE).len());
        }
    }
    println!(
        "\n{:<16} {:>5} {:>21} {:>17} {:>20} {:>20} {:>24} {:>8}",
        "µs: p50 p99 most",
        "terms",
        "first page",
        "again",
        "longest step",
        "count",
        "plain scan",
        "÷ scan"
    );
    for (class, times) in CLASSES.iter().zip(&mut table) {
        let ratio = times[0].median() / times[4].median();
        let terms = times[0].len();
        let [first, again, step, count, plain] = times.each_mut().map(Times::columns);
        println!(
            "{class:<16} {terms:>5} {first:>21} {again:>17} {step:>20} {count:>20} {plain:>24} {ratio:>8.4}"
        );
    }
    println!();
}

fn shuffle(terms: &mut [String], draw: &mut Draw) {
    for last in (1..terms.len()).rev() {
        terms.swap(last, draw.number(last + 1));
    }
}

fn any_term(draw: &mut Draw, names: u64) -> String {
    match draw.below(12) {
        0 => part(draw, names, 1),
        1 => part(draw, names, 2),
        2 => letters(draw),
        // Hardly any name holds both, each has its list.
        3 => part(draw, names, 4) + &part(draw, names, 4),
        4 => part(draw, names, 3),
        _ => {
            let len = 3 + draw.number(12);
            part(draw, names, len)
        }
    }
}

/// A part of a name.
fn part(draw: &mut Draw, names: u64, len: usize) -> String {
    let name: Vec<char> = name(draw.below(names)).as_str().chars().collect();
    let first = draw.number(name.len().saturating_sub(len) + 1);
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

/// Changes while segments are cleaned: about two of five names go, in no order, and new ones come. Says how
/// many more went than came.
fn change(index: &mut Index, names: u64) -> usize {
    let among = names.min(MAX_CHANGED);
    let count = among / 2;
    let (mut inserts, mut removes, mut again) = (
        Times::with_room_for(count),
        Times::with_room_for(count),
        Times::with_room_for(count),
    );
    let (before, mut draw) = (index.len(), Draw(9));
    for number in 0..count {
        let old = name(draw.below(among));
        if let Some(id) = index.find(&old) {
            removes.time(|| index.remove(id));
        }
        if number % 8 == 0 {
            let new = name(names + number);
            inserts.time(|| index.insert(&new));
            again.time(|| index.insert(&new));
        }
    }
    inserts.print("insert, while cleaning");
    again.print("insert what is there");
    removes.print("remove, while cleaning");
    before.saturating_sub(index.len())
}

/// Bytes of memory that this program has, where the system tells.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
}
