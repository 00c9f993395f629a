//! Requests and arrivals of one download, and whole crowds on a network of numbers.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up shall stop"
)]

#[expect(dead_code, reason = "the simulation needs more of it")]
#[path = "../tests/swarm_world/mod.rs"]
mod swarm_world;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use p2pfs::proto::swarm::Swarm;
use p2pfs::wire::id::PeerId;
use p2pfs::wire::pieces::{Bitfield, Layout, PIECE_LEN};

use swarm_world::World;
use swarm_world::plan::{MIB, Plan, downloader, seeder};

fn peer(number: u64) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    PeerId(bytes)
}

/// A download of so many pieces, from so many sources that have every so-manieth of them each, piece by
/// piece to the last.
fn download(pieces: u64, sources: u64, parts: u64) {
    let layout = Layout::new(pieces * PIECE_LEN).unwrap();
    let mut now = Instant::now();
    let mut swarm = Swarm::new(layout, 1, Bitfield::empty(layout));
    for source in 0..sources {
        let mut has = Bitfield::empty(layout);
        for piece in layout.pieces() {
            // Neighbours have the same, so that sources run dry while others have plenty.
            if u64::from(piece.get()) * parts / pieces == source % parts {
                has.insert(piece);
            }
        }
        swarm.add_source(now, peer(source), has);
    }
    while !swarm.is_complete() {
        for source in 0..sources {
            let source = peer(source);
            now += Duration::from_micros(100);
            // In turn: the first must not clear the way for the next.
            if let Some(piece) = swarm.next_request(now, &source) {
                swarm.piece_arrived(now, &source, piece);
            }
        }
    }
}

fn machine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("swarm");
    group.sample_size(10);
    for pieces in [1000, 20_000] {
        group.throughput(Throughput::Elements(pieces));
        group.bench_function(BenchmarkId::new("one full source", pieces), |bencher| {
            bencher.iter(|| download(pieces, 1, 1));
        });
        group.bench_function(BenchmarkId::new("50 partial sources", pieces), |bencher| {
            bencher.iter(|| download(pieces, 50, 25));
        });
    }
    group.finish();
}

fn crowd(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crowd");
    group.sample_size(10);
    for downloaders in [8, 49] {
        group.throughput(Throughput::Elements(downloaders as u64 * 80));
        group.bench_function(BenchmarkId::new("80 pieces", downloaders), |bencher| {
            bencher.iter(|| {
                let mut members = vec![seeder(4 * MIB)];
                members.extend((0..downloaders).map(|_| downloader(20 * MIB, 40 * MIB)));
                World::new(Plan::new(1, 80, members)).run()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, machine, crowd);
criterion_main!(benches);
