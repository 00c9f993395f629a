//! Seals and opens: datagrams, frames beside plain ring, and what a join costs.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up shall stop"
)]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use p2pfs::crypto::envelope::{Opener, Sealer};
use p2pfs::crypto::handshake::{Initiator, Local, Responder};
use p2pfs::crypto::identity::Identity;
use p2pfs::crypto::kdf::{EnvelopeKeys, Group, NetworkName};
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::{Passphrase, Secret};
use p2pfs::crypto::stream::{FrameOpener, FrameSealer, Suite};
use p2pfs::wire::MAX_CHUNK_LEN;
use p2pfs::wire::id::SessionId;
use p2pfs::wire::packet::{Datagram, FRAME_HEADER_LEN, FrameHeader, Role, TAG_LEN};
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

const KEY: [u8; 32] = [7; 32];

fn datagrams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("datagram");
    for len in [64, 256, 1200] {
        group.throughput(Throughput::Bytes(len as u64));
        let plaintext = vec![1; len];
        let session = SessionId::from_bytes([1; 7]);
        group.bench_function(BenchmarkId::new("seal", len), |bencher| {
            let mut sealer = Sealer::new(session, Secret::new(KEY));
            let mut out = Vec::with_capacity(2048);
            bencher.iter(|| {
                out.clear();
                sealer.seal(black_box(&plaintext), &mut out).unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("open", len), |bencher| {
            let mut sealer = Sealer::new(session, Secret::new(KEY));
            let mut opener = Opener::new(Secret::new(KEY));
            let sealed = || {
                let mut out = Vec::new();
                sealer.seal(&plaintext, &mut out).unwrap();
                out
            };
            let open = |mut datagram: Vec<u8>| {
                let Ok(Datagram::Data(header)) = Datagram::parse(&datagram) else {
                    panic!("a datagram")
                };
                opener.open(header, &mut datagram).unwrap().plaintext.len()
            };
            bencher.iter_batched(sealed, open, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// What ring alone needs for the same bytes, in the same run: the floor.
fn plain_ring(algorithm: &'static Algorithm) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, &KEY).unwrap())
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(MAX_CHUNK_LEN as u64));
    for (suite, name, algorithm) in [
        (Suite::Aes, "aes-256-gcm", &AES_256_GCM),
        (Suite::ChaCha, "chacha20-poly1305", &CHACHA20_POLY1305),
    ] {
        group.bench_function(BenchmarkId::new("seal", name), |bencher| {
            let mut sealer = FrameSealer::new(Secret::new(KEY), suite);
            let mut frame = vec![1; FRAME_HEADER_LEN + MAX_CHUNK_LEN + TAG_LEN];
            bencher.iter(|| sealer.seal(false, black_box(&mut frame)).unwrap());
        });
        group.bench_function(BenchmarkId::new("seal, ring alone", name), |bencher| {
            let key = plain_ring(algorithm);
            let mut bytes = vec![1; MAX_CHUNK_LEN];
            let mut counter = 0;
            bencher.iter(|| {
                counter += 1;
                let sealed = key.seal_in_place_separate_tag(
                    nonce(counter),
                    Aad::empty(),
                    black_box(&mut bytes),
                );
                let _tag = black_box(sealed.unwrap());
            });
        });
        group.bench_function(BenchmarkId::new("seal and open", name), |bencher| {
            let mut sealer = FrameSealer::new(Secret::new(KEY), suite);
            let mut opener = FrameOpener::new(Secret::new(KEY), suite);
            let mut frame = vec![1; FRAME_HEADER_LEN + MAX_CHUNK_LEN + TAG_LEN];
            let header = FrameHeader {
                is_final: false,
                len: MAX_CHUNK_LEN,
            };
            bencher.iter(|| {
                sealer.seal(false, &mut frame).unwrap();
                opener
                    .open(header, black_box(&mut frame[FRAME_HEADER_LEN..]))
                    .unwrap();
            });
        });
        group.bench_function(
            BenchmarkId::new("seal and open, ring alone", name),
            |bencher| {
                let key = plain_ring(algorithm);
                let mut bytes = vec![1; MAX_CHUNK_LEN + TAG_LEN];
                let mut counter = 0;
                bencher.iter(|| {
                    counter += 1;
                    let plaintext = &mut bytes[..MAX_CHUNK_LEN];
                    let tag = key
                        .seal_in_place_separate_tag(nonce(counter), Aad::empty(), plaintext)
                        .unwrap();
                    bytes[MAX_CHUNK_LEN..].copy_from_slice(tag.as_ref());
                    key.open_in_place(nonce(counter), Aad::empty(), black_box(&mut bytes))
                        .unwrap();
                });
            },
        );
    }
    group.finish();
}

fn joining(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("join");
    bench.sample_size(10);
    let passphrase = Passphrase::parse("a passphrase for benches").unwrap();
    bench.bench_function("derive the group key", |bencher| {
        bencher.iter(|| Group::derive(&passphrase, NetworkName::default()));
    });
    let group = Group::derive(&passphrase, NetworkName::default());
    let random = &mut OsRandom::new();
    let (ours, theirs) = (Identity::generate(random), Identity::generate(random));
    let here = Local {
        group: &group,
        identity: &ours,
        role: Role::Peer,
        has_aes: true,
    };
    let there = Local {
        group: &group,
        identity: &theirs,
        role: Role::Tracker,
        has_aes: true,
    };
    let envelopes = [EnvelopeKeys::open(&group)];
    bench.bench_function("handshake, both sides", |bencher| {
        bencher.iter(|| {
            let (initiator, m1) =
                Initiator::start(here, Role::Tracker, &envelopes[0], &mut OsRandom::new());
            let Ok((responder, m2)) =
                Responder::answer(there, &envelopes, &m1, 1, &mut OsRandom::new())
            else {
                panic!("an answer")
            };
            let (m3, keys) = initiator
                .read_answer(&m2)
                .unwrap()
                .confirm(Role::Peer, None);
            (keys, responder.finish(&m3).unwrap())
        });
    });
    bench.finish();
}

criterion_group!(benches, datagrams, frames, joining);
criterion_main!(benches);
