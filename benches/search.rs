//! Substring search over published names, and what it costs to keep them.
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use p2pfs::tracker::index::{Index, NameId, Rank};
use p2pfs::wire::text::FileName;

const START: (Rank, NameId) = (Rank::Exact, NameId::from_bytes([0; 8]));
/// Hits of one page.
const PAGE: usize = 20;

/// Names as people have them: photos, music, series, documents.
fn name(number: u64) -> FileName {
    let hash = blake3::hash(&number.to_be_bytes());
    let pick =
        |index: usize, words: [&'static str; 8]| words[usize::from(hash.as_bytes()[index] % 8)];
    let first = pick(
        0,
        [
            "holiday", "concert", "lecture", "Report", "minutes", "IMG", "backup", "episode",
        ],
    );
    let second = pick(
        1,
        [
            "berlin",
            "winter",
            "final",
            "Österreich",
            "draft",
            "linux",
            "team",
            "remix",
        ],
    );
    let ending = pick(2, ["jpg", "mp4", "pdf", "flac", "zip", "iso", "txt", "mkv"]);
    format!("{first} {second} {number:07}.{ending}")
        .parse()
        .expect("letters and digits")
}

fn search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    group.sample_size(20);
    for count in [10_000_u64, 100_000, 1_000_000] {
        let mut index = Index::default();
        for number in 0..count {
            index.insert(&name(number));
        }
        group.throughput(Throughput::Elements(count));
        for (hits, term) in [("none", "zzzq"), ("one", "0004711."), ("many", "inter")] {
            group.bench_function(BenchmarkId::new(hits, count), |bencher| {
                bencher.iter(|| index.search(black_box(term), START).take(PAGE).count());
            });
        }
    }
    group.finish();
}

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish and unpublish");
    group.throughput(Throughput::Elements(1));
    let mut index = Index::default();
    for number in 0..100_000 {
        index.insert(&name(number));
    }
    let mut number = 100_000;
    group.bench_function("100000", |bencher| {
        bencher.iter(|| {
            number += 1;
            let id = index.insert(&name(number));
            index.remove(id);
        });
    });
    group.finish();
}

criterion_group!(benches, search, change);
criterion_main!(benches);
