//! The processes under load: a tracker, and echoes that do nothing else.

use std::io::{BufRead as _, BufReader, IoSliceMut, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use clap::ValueEnum;
use p2pfs::crypto::kdf::{Group, NetworkName};
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::Passphrase;
use p2pfs::crypto::ticket::TicketOffice;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use tokio::io::Interest;

const PASSPHRASE: &str = "correct horse battery staple of the load generator";

/// How an echo reads its datagrams.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Echo {
    /// One at a time, blocking.
    Plain,
    /// As the tracker does.
    Batched,
}

impl Echo {
    pub(crate) fn run(self) -> ! {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        println!("{}", socket.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        match self {
            Self::Plain => {
                let mut buffer = [0; 2048];
                loop {
                    let (len, from) = socket.recv_from(&mut buffer).unwrap();
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
            Self::Batched => tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .unwrap()
                .block_on(echo_batches(socket)),
        }
    }
}

async fn echo_batches(socket: UdpSocket) -> ! {
    const ROOM: usize = 65_536;
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    let state = UdpSocketState::new((&socket).into()).unwrap();
    let mut buffer = vec![0; (ROOM + 320) * BATCH_SIZE];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    loop {
        socket.readable().await.unwrap();
        loop {
            let mut chunks = buffer.chunks_exact_mut(ROOM + 320);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap()));
            let read = socket.try_io(Interest::READABLE, || {
                state.recv((&socket).into(), &mut slices, &mut metas)
            });
            let Ok(count) = read else { break };
            for (number, meta) in metas[..count].iter().enumerate() {
                let chunk = &buffer[number * (ROOM + 320)..][..meta.len];
                for datagram in chunk.chunks(meta.stride.max(1)) {
                    let _ = socket.try_send_to(datagram, meta.addr);
                }
            }
        }
    }
}

/// A process that answers datagrams; it ends with this.
pub(crate) struct Target {
    child: Child,
    address: SocketAddr,
    /// Of a tracker: where its seed lies, and who its members are.
    tracker: Option<(tempfile::TempDir, Group)>,
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    /// A tracker that waits long for heartbeats, so that only the load's own come.
    pub(crate) fn tracker(binary: &Path, peers: usize, workers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(binary)
            .args([
                "tracker",
                "--bind",
                "127.0.0.1",
                "--port",
                "0",
                "--no-input",
            ])
            .args(["--heartbeat", "60s", "--timeout", "240s"])
            .args(["--max-peers", &(peers + 10).to_string()])
            .args(["--workers", &workers.to_string()])
            .arg("--state-dir")
            .arg(dir.path())
            .env("P2PFS_PASSPHRASE", PASSPHRASE)
            .env("P2PFS_LOG", "error")
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(',').next().unwrap().parse().unwrap();
            }
        };
        // Whatever else it says, nobody reads; it must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        let passphrase = Passphrase::parse(PASSPHRASE).unwrap();
        let group = Group::derive(&passphrase, NetworkName::default());
        Self {
            child,
            address,
            tracker: Some((dir, group)),
        }
    }

    pub(crate) fn echo(kind: Echo) -> Self {
        let name = kind.to_possible_value().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--echo", name.get_name()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            child,
            address: line.trim().parse().unwrap(),
            tracker: None,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes tickets that this tracker takes for its own.
    pub(crate) fn office(&self) -> TicketOffice {
        let (dir, group) = self.tracker.as_ref().expect("an echo takes no tickets");
        let place = seed_dir(dir.path()).expect("a tracker that listens has a seed");
        let seed = p2pfs::keyfile::tracker_seed(&place, &mut OsRandom::new()).unwrap();
        TicketOffice::new(group, &seed)
    }

    /// Processor time that it has used, in seconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11..13]
            .iter()
            .map(|f| f.parse::<u64>().unwrap())
            .sum();
        ticks as f64 / 100.0
    }

    /// Memory that it has now.
    pub(crate) fn memory_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn seed_dir(dir: &Path) -> Option<std::path::PathBuf> {
    if p2pfs::keyfile::holds_keys(dir) {
        return Some(dir.to_owned());
    }
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .find_map(|path| seed_dir(&path))
}
