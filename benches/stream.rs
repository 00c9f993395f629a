//! A content from one peer's disk to another's over loopback, beside a plain copy of the same bytes.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up shall stop"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use p2pfs::crypto::content::hash_piece;
use p2pfs::crypto::identity::Identity;
use p2pfs::crypto::kdf::{Group, NetworkName};
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::Passphrase;
use p2pfs::peer::{Origin, Peer, Restart, Settings, Wanted};
use p2pfs::proto::backoff::Retry;
use p2pfs::tracker::{self, Tracker};
use p2pfs::wire::pieces::Layout;
use tokio_util::sync::CancellationToken;

const LEN: usize = 256 << 20;

fn settings(name: &str, port: u16, downloads: &Path) -> Settings {
    Settings {
        tracker_host: "127.0.0.1".to_owned(),
        tracker_port: port,
        tracker_key: None,
        tracker_pin: None,
        lan: None,
        user: name.parse().unwrap(),
        password: None,
        ports: (0, 0),
        bind: Some([127, 0, 0, 1].into()),
        downloads: downloads.to_owned(),
        prefix: "downloaded_".to_owned(),
        seed: false,
        limits: p2pfs::peer::Limits::default(),
        simultaneous: 8,
        retry: Retry::default(),
        accept: p2pfs::peer::Accept::None,
        deny_for: Duration::ZERO,
        state_dir: None,
        restart: Restart::Ignores,
        unfinished: Restart::Ignores,
    }
}

/// Sends a file through a plain TCP connection into another file.
fn plain_copy(from: &Path, to: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut source = File::open(from).unwrap();
    let sender = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match source.read(&mut buffer).unwrap() {
                0 => break,
                len => stream.write_all(&buffer[..len]).unwrap(),
            }
        }
    });
    let mut stream = listener.accept().unwrap().0;
    let mut target = File::create(to).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            len => target.write_all(&buffer[..len]).unwrap(),
        }
    }
    sender.join().unwrap();
}

fn transfer(criterion: &mut Criterion) {
    // In memory where there is such a place: what is measured is the program, not the disk.
    let place = if Path::new("/dev/shm").is_dir() {
        Path::new("/dev/shm")
    } else {
        Path::new(".")
    };
    let dir = tempfile::tempdir_in(place).unwrap();
    let source = dir.path().join("content.bin");
    let mut bytes = vec![0; LEN];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    std::fs::write(&source, &bytes).unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let passphrase = Passphrase::parse("a passphrase for benches").unwrap();
    let group = Group::derive(&passphrase, NetworkName::default());
    let shutdown = CancellationToken::new();
    let (leecher, wanted) = runtime.block_on(async {
        let tracker = tracker::Settings {
            bind: Some([127, 0, 0, 1].into()),
            port: 0,
            workers: Some(1),
            heartbeat: Duration::from_secs(2),
            silence: Duration::from_secs(3),
            max_peers: 10,
            // Nothing is shared from where keys lie.
            state_dir: dir.path().join("tracker"),
            credentials: None,
            metrics: None,
        };
        std::fs::create_dir(&tracker.state_dir).unwrap();
        let tracker = Tracker::bind(tracker, group.clone()).unwrap();
        let port = tracker.port();
        tokio::spawn(tracker.run(shutdown.clone()));
        let identity = || Identity::generate(&mut OsRandom::new());
        let (seeder, _events) = Peer::join(
            settings("seeder", port, dir.path()),
            group.clone(),
            identity(),
        )
        .await
        .unwrap();
        let shared = seeder
            .share(&source, None, p2pfs::peer::Readers::Everybody)
            .await
            .unwrap();
        let (leecher, _events) = Peer::join(
            settings("leecher", port, dir.path()),
            group.clone(),
            identity(),
        )
        .await
        .unwrap();
        std::mem::forget(seeder);
        (
            leecher,
            Wanted {
                file: shared.file,
                from: None,
                directory: None,
                waits: false,
                origin: Origin::Asked,
                is_restricted: false,
            },
        )
    });

    let mut bench = criterion.benchmark_group("transfer");
    bench.throughput(Throughput::Bytes(LEN as u64));
    bench.sample_size(10);
    bench.bench_function("p2pfs, sealed and verified", |bencher| {
        bencher.iter(|| {
            let done = runtime.block_on(leecher.download(&wanted)).unwrap();
            std::fs::remove_file(done.path).unwrap();
        });
    });
    let copy = dir.path().join("copy.bin");
    bench.bench_function("plain copy over TCP", |bencher| {
        bencher.iter(|| {
            plain_copy(&source, &copy);
            std::fs::remove_file(&copy).unwrap();
        });
    });
    bench.bench_function("hashing alone", |bencher| {
        let layout = Layout::new(LEN as u64).unwrap();
        bencher.iter(|| {
            for (piece, bytes) in layout.pieces().zip(bytes.chunks(1 << 20)) {
                std::hint::black_box(hash_piece(layout, piece, bytes));
            }
        });
    });
    bench.finish();
    shutdown.cancel();
}

criterion_group!(benches, transfer);
criterion_main!(benches);
