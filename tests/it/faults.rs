//! What the machines around p2pfs do wrong: disks, names, routers, other members.
//! The numbers are rows of `docs/bad-inputs.md`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use p2pfs::crypto::identity::Identity;
use p2pfs::crypto::kdf::NetworkName;
use p2pfs::crypto::random::OsRandom;
use p2pfs::crypto::secret::Passphrase;
use p2pfs::peer::dial::dial;
use p2pfs::peer::enrol::{Target, enrol};
use p2pfs::peer::membership::Membership;
use p2pfs::wire::control::Holder;
use p2pfs::wire::id::ContentId;
use p2pfs::wire::transfer::{Frame, Wanted};
use p2pfs::{crypto, keyfile};

use crate::support::failing::library;
use crate::support::network::Network;
use crate::support::{Group, PASSPHRASE, assert_same, hash, need, text, wait_until};

/// One line on stderr that begins with `p2pfs: `, and this exit code.
fn assert_one_line(output: &Output, code: i32, words: &[&str]) {
    assert_line(&text(&output.stderr), output.status.code(), code, words);
}

fn assert_line(said: &str, found: Option<i32>, code: i32, words: &[&str]) {
    assert_eq!(found, Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("p2pfs: "), "{said}");
    for word in words {
        assert!(said.contains(word), "\"{word}\" is missing in: {said}");
    }
}

/// Shows: row 10, for root as well, whom no mode bits stop.
/// How: a mount namespace in which the state directory is read-only: an empty one, and one with keys.
#[test]
fn row_10_a_state_directory_that_cannot_be_written() {
    need("unshare");
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    assert!(group.once(&address, &["peers"]).status.success());
    let serve = ["tracker", "--bind", "127.0.0.1", "--port", "0"];
    let mut other = group.start("once", &serve);
    other.wait_for("Tracker listening on ");
    drop(other);
    for (state, mount) in [
        ("empty", "mount -t tmpfs -o ro tmpfs"),
        ("once", "mount --bind -o ro \"$P2PFS_STATE_DIR\""),
    ] {
        group.folder(state);
        let script = format!("{mount} \"$P2PFS_STATE_DIR\" && exec \"$0\" \"$@\"");
        let wrapper = ["unshare", "-m", "sh", "-c", &script];
        let read_only = |args: &[&str]| {
            let mut command = group.command_under(state, &wrapper);
            command.args(args).stdin(Stdio::null()).output().unwrap()
        };
        assert_one_line(&read_only(&serve), 8, &[state, "Read-only", "--state-dir"]);

        let peer = ["peers", "--tracker", &address, "--port", "0"];
        let output = read_only(&[&peer[..], &["--name", "ana"]].concat());
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in [state, "Read-only", "identity", "will be forgotten"] {
            assert!(said.contains(word), "\"{word}\" is missing in: {said}");
        }
        let listed = text(&output.stdout);
        assert!(
            listed.contains("ana-"),
            "nobody takes a name for good who will be forgotten: {listed}"
        );
    }
}

/// Shows: row 33. A seed or a key that is not what the tracker wrote is refused, named and left alone.
/// How: both are cut, overwritten, made a directory and given away, one after the other.
#[test]
fn row_33_state_of_the_tracker_that_is_damaged_is_named_and_kept() {
    let group = Group::new();
    drop(group.tracker());
    for name in ["identity.key", "tracker.seed"] {
        let path = group.path(&format!("tracker/tracker/{name}"));
        let good = fs::read(&path).unwrap();
        assert_eq!(good.len(), 32);
        let refused = |word: &str| {
            let args = ["tracker", "--bind", "127.0.0.1", "--port", "0"];
            let mut tracker = group.start("tracker", &args);
            let code = tracker.exit_within(Duration::from_secs(20));
            assert_line(&tracker.output(), code, 8, &[name, word]);
        };
        let garbage = "no key\n".repeat(20).into_bytes();
        for damaged in [&good[..0], &good[..31], &garbage, &vec![0; 3 << 20]] {
            fs::write(&path, damaged).unwrap();
            refused("move it away");
            assert_eq!(fs::read(&path).unwrap(), damaged, "kept as it was");
        }
        fs::write(&path, &good).unwrap();
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        refused("belongs to another user");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("move it away");
        assert!(path.is_dir());
        fs::remove_dir(&path).unwrap();
        group.write_private(&format!("tracker/tracker/{name}"), "");
        fs::write(&path, &good).unwrap();
        drop(group.tracker());
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}

/// Shows: row 44. The next address of a name is tried when the first swallows everything.
/// How: a hosts file with two addresses, of which the first is dropped on the way; then a name server
/// that never answers, and one that does not exist.
#[test]
fn row_44_a_dead_address_of_the_tracker_costs_seconds_and_a_dead_name_is_a_line() {
    let group = Group::new();
    let network = Network::new(3);
    let mut tracker = network.start(&group, 1, "tracker", &["tracker"]);
    tracker.wait_for("Tracker listening on ");
    network.rules(
        3,
        "table inet watch {
            counter dead { }
            chain in { type filter hook input priority 0; ip daddr 10.77.0.3 counter name dead drop; }
        }",
    );
    fs::write(
        group.path("hosts"),
        "10.77.0.3 hub\n10.77.0.1 hub\n127.0.0.1 localhost\n",
    )
    .unwrap();
    fs::write(group.path("resolv.conf"), "nameserver 10.77.0.3\n").unwrap();
    let script = "mount --bind hosts /etc/hosts && mount --bind resolv.conf /etc/resolv.conf \
                  && exec \"$0\" \"$@\"";
    let timed = |tracker: &str| {
        let mut command = network.command(&group, 2, "peer", &["sh", "-c", script]);
        let began = Instant::now();
        let args = ["peers", "--tracker", tracker, "--name", "ana"];
        let output = command.args(args).stdin(Stdio::null()).output().unwrap();
        (output, began.elapsed())
    };
    let (output, took) = timed("hub");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(network.counted(3, "dead") > 0, "the dead one was tried");
    assert!(took < Duration::from_secs(5), "{took:?}");

    let (output, took) = timed("no-such-host.test");
    assert_one_line(&output, 4, &["no-such-host.test:9000", "name server"]);
    assert!(took < Duration::from_secs(10), "{took:?}");
    fs::write(group.path("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let (output, took) = timed("no-such-host.test");
    assert_one_line(&output, 4, &["no-such-host.test:9000", "unknown host"]);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Shows: row 34. A session follows its peer to another address and port, without a login.
/// How: a router between peer and tracker loses its mappings and makes others, first from other ports,
/// then from another address; the tracker's host counts what comes whence.
#[test]
fn row_34_a_session_follows_a_mapping_that_changes() {
    let group = Group::new();
    let mut network = Network::new(3);
    let (router, inside) = (3, network.add_host_behind(3));
    let masquerade = |ports: &str| {
        format!(
            "table ip nat {{
                chain out {{
                    type nat hook postrouting priority 100;
                    ip saddr 10.78.0.0/24 meta l4proto {{ tcp, udp }} masquerade to :{ports};
                }}
            }}"
        )
    };
    network.rules(router, &masquerade("20000-20099"));
    network.rules(
        1,
        "table inet watch {
            counter first { }
            counter second { }
            counter third { }
            counter handshakes { }
            counter resumes { }
            chain in {
                type filter hook input priority 0;
                ip saddr 10.77.0.3 udp sport 20000-20099 counter name first
                ip saddr 10.77.0.3 udp sport 30000-30099 counter name second
                ip saddr 10.77.0.9 udp sport 30000-30099 counter name third
                ip saddr != 10.77.0.2 tcp flags & (syn | ack) == syn counter name handshakes
                ip saddr != 10.77.0.2 udp length 312 counter name resumes
            }
        }",
    );
    let mut tracker = network.start(&group, 1, "tracker", &["tracker"]);
    tracker.wait_for("Tracker listening on ");
    let mut peers = [(2, "ana"), (inside, "bob")].map(|(host, name)| {
        let file = group.file(&format!("of-{name}.txt"), 3_000_000, 1);
        let out = group.folder(name);
        let mut args = vec!["peer", "--tracker", "10.77.0.1", "--name", name];
        args.extend(["--out", out.to_str().unwrap(), "--share"]);
        args.push(file.to_str().unwrap());
        let mut peer = network.start(&group, host, name, &args);
        peer.wait_for("Sharing of-");
        peer
    });
    let mut find_each_other = || {
        let [ana, bob] = &mut peers;
        bob.say("search of-ana");
        bob.wait_for("of-ana.txt   2.9 MiB");
        ana.say("search of-bob");
        ana.wait_for("of-bob.txt   2.9 MiB");
        ana.say("lap");
        ana.wait_for("USER");
        ana.wait_for("bob ");
    };
    find_each_other();
    assert!(network.counted(1, "first") > 0);

    // An interface that goes down takes its masqueraded mappings along.
    network.rules(router, "delete table ip nat");
    network.rules(router, &masquerade("30000-30099"));
    network.ip(router, "link set eth0 down");
    network.ip(router, "link set eth0 up");
    find_each_other();
    assert!(network.counted(1, "second") > 0);

    network.ip(router, "addr del 10.77.0.3/24 dev eth0");
    network.ip(router, "addr add 10.77.0.9/24 dev eth0");
    find_each_other();
    assert!(network.counted(1, "third") > 0);

    peers[1].say("download of-ana.txt");
    peers[1].wait_for("Download successful");
    for peer in &peers {
        assert!(!peer.output().contains("lost"), "{}", peer.output());
    }
    assert_eq!(network.counted(1, "handshakes"), 1, "one login is enough");
    assert_eq!(network.counted(1, "resumes"), 0);
}
/// Shows: row 53. A download whose connection is cut, and whose network is then away, goes on by itself.
/// How: the downloader's host resets the connection in the middle, loses its cable for 15 s, gets it back.
#[test]
fn row_53_a_download_goes_on_when_the_network_is_back() {
    const LEN: u64 = 400 << 20;
    let group = Group::new();
    let network = Network::new(3);
    let mut tracker = network.start(&group, 1, "tracker", &["tracker"]);
    tracker.wait_for("Tracker listening on ");
    let file = group.file("x.bin", LEN, 1);
    let join = |name: &'static str| ["peer", "--tracker", "10.77.0.1", "--name", name];
    let share = ["--share", file.to_str().unwrap()];
    let mut seeder = network.start(&group, 2, "seeder", &[&join("ana")[..], &share].concat());
    seeder.wait_for("Sharing");
    let out = group.folder("out");
    let fetch = ["--no-seed", "--out", out.to_str().unwrap()];
    let mut leecher = network.start(&group, 3, "leecher", &[&join("bob")[..], &fetch].concat());
    leecher.wait_for("Joined");
    leecher.say("download x.bin");
    wait_until("the download runs", || leecher.written_bytes() > 20 << 20);

    network.rules(
        3,
        "table inet cut {
            chain out { type filter hook output priority 0; tcp dport 8001 reject with tcp reset; }
        }",
    );
    leecher.wait_for("is put aside");
    network.plug(3, "down");
    network.rules(3, "delete table inet cut");
    // The outage itself, longer than the tracker's silence limit and a peer's patience.
    std::thread::sleep(Duration::from_secs(15));
    assert!(leecher.written_bytes() < LEN, "it was cut in the middle");
    network.plug(3, "up");
    leecher.wait_for("Download successful");
    assert_same(&out.join("downloaded_x.bin"), &file, LEN);
}

/// Shows: row 30. Garbage at the tracker's port costs its members nothing, and nobody answers it.
/// How: four threads send 400 000 datagrams that look like everything from 1 000 sources, 50 000 a second
/// where the machine lets them, while members search. `benches/load --flood` tells how long answers take.
#[test]
fn row_30_a_flood_of_garbage_costs_members_nothing() {
    const EACH: usize = 100_000;
    const A_BURST: usize = 25;
    let group = Group::new();
    let (tracker, address) = group.tracker();
    let file = group.file("x.txt", 3_000_000, 1);
    let mut ana = group.sharer("ana", &address, &[&file], &[]);
    let mut bob = group.peer("bob", &address, &[]);
    tracker.reset_peak();
    let before = tracker.peak_kib();

    let flooders: Vec<_> = (0..4_u8)
        .map(|seed| {
            let address = address.clone();
            std::thread::spawn(move || {
                let sockets: Vec<_> = (0..250)
                    .map(|host| {
                        let socket =
                            UdpSocket::bind((Ipv4Addr::new(127, 1, seed, host), 0)).unwrap();
                        socket.connect(&address).unwrap();
                        socket
                    })
                    .collect();
                let mut bytes = vec![0; 1 << 16];
                blake3::Hasher::new_keyed(&[seed; 32])
                    .finalize_xof()
                    .fill(&mut bytes);
                let mut sent = 0_usize;
                while sent < EACH {
                    // Lengths and first bytes of what is valid, among all others.
                    let at = sent * 7 % 60_000;
                    let lens = [0, 1, 96, 160, 288, 296, 304, 544, 1232, 1400];
                    let len = lens[sent % lens.len()];
                    let datagram = &mut bytes[at..at + len];
                    if let Some(first) = datagram.first_mut() {
                        *first = 0x10 + u8::try_from(sent / lens.len() % 8).unwrap();
                    }
                    // A full queue refuses some; they count as sent, or a slow machine would take for ever.
                    let _ = sockets[sent % sockets.len()].send(datagram);
                    sent += 1;
                    if sent.is_multiple_of(A_BURST) {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
                for socket in sockets {
                    socket.set_nonblocking(true).unwrap();
                    let answer = socket.recv(&mut [0; 2048]).map_err(|error| error.kind());
                    assert_eq!(answer, Err(io::ErrorKind::WouldBlock), "nobody answers");
                }
            })
        })
        .collect();
    let mut searches = 0;
    while !flooders.iter().all(JoinHandle::is_finished) || searches < 20 {
        for peer in [&mut ana, &mut bob] {
            peer.say("search x.txt");
            let line = peer.wait_for("x");
            assert!(line.contains("x.txt   2.9 MiB"), "{line}");
            searches += 1;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for flooder in flooders {
        flooder.join().unwrap();
    }
    for peer in [&ana, &bob] {
        assert!(!peer.output().contains("lost"), "{}", peer.output());
    }
    let more = tracker.peak_kib() - before;
    assert!(more <= 16 * 1024, "{more} KiB");
}

/// Shows: row 55. Downloaders that ask and never read cost a bounded amount of memory, and nobody else waits.
/// How: twenty members, made of the library, open a large file, ask for many pieces and stop reading.
#[test]
fn row_55_downloaders_that_never_read_cost_little() {
    const DEAF: u64 = 20;
    const LEN: u64 = 200 << 20;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let content = ContentId(*hash(&file).as_bytes());
    let seeder = group.sharer("ana", &address, &[&file], &[]);
    seeder.reset_peak();
    let before = seeder.peak_kib();

    let (host, port) = address.split_once(':').unwrap();
    let target = Target {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        key: None,
        pin: None,
        pins: None,
    };
    let secret = Passphrase::parse(PASSPHRASE).unwrap();
    let keys = crypto::kdf::Group::derive(&secret, NetworkName::default());
    let said = seeder.output();
    let listens_on = said.split("listening on ").nth(1).unwrap();
    let listens_on = listens_on.split('.').next().unwrap();
    let holder = Holder {
        user: "ana".parse().unwrap(),
        peer: keyfile::identity(&group.path("ana.state/peer"), &mut OsRandom::new())
            .unwrap()
            .id(),
        len: LEN,
        addresses: vec![format!("127.0.0.1:{listens_on}").parse().unwrap()],
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut deaf = Vec::new();
    runtime.block_on(async {
        for _ in 0..DEAF {
            let identity = Identity::generate(&mut OsRandom::new());
            let membership = Membership::new(keys.clone(), identity);
            let enrolled = enrol(&target, &membership, 1).await.unwrap();
            membership.learn(enrolled.member_key);
            let (mut reader, mut writer) = dial(&membership, &holder).await.unwrap();
            writer
                .send(&Frame::Open { file: 0, content })
                .await
                .unwrap();
            assert!(matches!(
                reader.next().await.unwrap(),
                Some(Frame::Opened { .. })
            ));
            for request in 0..150 {
                let wanted = Wanted {
                    file: 0,
                    candidates: vec![request],
                };
                writer
                    .send(&Frame::Request { request, wanted })
                    .await
                    .unwrap();
            }
            let served = reader.next().await.unwrap();
            assert!(matches!(served, Some(Frame::Chunk { .. })));
            deaf.push((reader, writer));
        }
    });
    let out = group.folder("out");
    let get = ["get", "x.bin", "--no-seed", "--out", out.to_str().unwrap()];
    let output = group.once(&address, &get);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_same(&out.join("downloaded_x.bin"), &file, LEN);
    let grown = seeder.peak_kib() - before;

    assert!(grown < (DEAF + 2) * 3 * 1024, "{grown} KiB");
}

/// Takes a part of what a file shall get or give, and is interrupted every third time.
const STUTTER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
static _Atomic unsigned *counts;
static atomic_uint calls;
__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("STUTTER"), O_RDWR);
    counts = mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
}
static long part(int fd, size_t len) {
    struct stat found;
    if (len < 2 || fstat(fd, &found) || !S_ISREG(found.st_mode)) return len;
    if (calls++ % 3 == 2) { counts[0]++; errno = EINTR; return -1; }
    counts[1]++;
    return len > 50000 ? 50000 : len / 2;
}
#define STUTTER(name, type, more, args) \
    ssize_t name(int fd, type buffer, size_t len more) { \
        long now = part(fd, len); \
        if (now < 0) return -1; \
        len = now; \
        return ((ssize_t (*)(int, type, size_t more))dlsym(RTLD_NEXT, #name)) args; \
    }
#define NONE
#define AT , off64_t at
STUTTER(read, void *, NONE, (fd, buffer, len))
STUTTER(write, const void *, NONE, (fd, buffer, len))
STUTTER(pread64, void *, AT, (fd, buffer, len, at))
STUTTER(pwrite64, const void *, AT, (fd, buffer, len, at))
"#;

/// Shows: row 65. Files are whole although the system takes parts and interrupts.
/// How: a library in front of the system's own calls shortens and interrupts what seeder, downloader and
/// their key files read and write, and counts it.
#[test]
fn row_65_short_and_interrupted_reads_and_writes_change_nothing() {
    const LEN: u64 = (20 << 20) + 7;
    let group = Group::new();
    let library = library(&group, "stutter", STUTTER);
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let out = group.folder("out");
    let start = |name: &str, args: &[&str]| {
        let counts = group.path(&format!("{name}.counts"));
        fs::write(&counts, [0; 8]).unwrap();
        let mut command = group.command(name);
        command
            .env("LD_PRELOAD", &library)
            .env("STUTTER", &counts)
            .args(args)
            .args(["--tracker", &address, "--port", "0", "--name", name]);
        group.spawn(name, command)
    };
    let mut seeder = start("seeder", &["share", file.to_str().unwrap()]);
    seeder.wait_for("Sharing");
    let get = ["get", "x.bin", "--no-seed", "--out", out.to_str().unwrap()];
    let mut leecher = start("leecher", &get);
    leecher.wait_for("Download successful");
    assert_same(&out.join("downloaded_x.bin"), &file, LEN);
    for name in ["seeder", "leecher"] {
        let counts = fs::read(group.path(&format!("{name}.counts"))).unwrap();
        let [interrupted, short] =
            [0, 4].map(|at| u32::from_ne_bytes(counts[at..at + 4].try_into().unwrap()));
        assert!(
            interrupted > 200 && short > 400,
            "{name}: {interrupted} interrupted, {short} short"
        );
        let key = group.path(&format!("{name}/peer/identity.key"));
        assert_eq!(key.metadata().unwrap().len(), 32);
    }
}
