//! Peers without a tracker, on networks of their own.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use p2pfs::crypto::beacon::BeaconKey;
use p2pfs::crypto::kdf::NetworkName;
use p2pfs::crypto::random::OsRandom;
use p2pfs::wire::beacon::{Beacon, Instance};
use p2pfs::wire::packet::Role;

use crate::support::network::{Families, Network};
use crate::support::{Group, PATIENCE, Process, assert_same, names_in, text, wait_until};

/// UDP port of beacons.
const PORT: u16 = 9009;
/// Counts who knocks at a host.
const WATCH: &str = "table inet watch {
    counter knocks {}
    chain in { type filter hook input priority 0; tcp flags & (syn|ack) == syn counter name knocks; }
}";

/// A peer without a tracker, which downloads into a folder of its name.
fn peer(network: &Network, group: &Group, host: usize, name: &str, more: &[&str]) -> Process {
    let out = group.folder(name);
    let args = ["peer", "--tracker", "none", "--name", name, "--out"];
    let args = [&args[..], &[out.to_str().unwrap()], more].concat();
    let mut peer = network.start(group, host, &format!("{name}.state"), &args);
    peer.wait_for("Joined the local network");
    peer
}

/// The same, which shares this file.
fn sharer(network: &Network, group: &Group, host: usize, name: &str, file: &Path) -> Process {
    let mut peer = peer(
        network,
        group,
        host,
        name,
        &["--share", file.to_str().unwrap()],
    );
    peer.wait_for("Sharing");
    peer
}

/// The lines that `command` prints up to a mark.
fn ask(peer: &mut Process, command: &str) -> String {
    let before = peer.output().len();
    peer.say(command);
    peer.say("nonsense");
    peer.wait_for("nonsense");
    peer.output()[before..].to_owned()
}

/// Waits until `command` prints `wanted`.
fn wait_to_see(peer: &mut Process, command: &str, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = ask(peer, command);
        if shown.contains(wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "no {wanted} in: {shown}");
        // Not waiting for anything: who asks without a pause is told to wait.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Shows: three peers without any tracker find each other over IPv4 alone, over IPv6 alone and over both; who is
/// here, what there is and who has it is as with a tracker; what one has the others download, also by a command
/// for once. Whoever leaves is gone at once.
#[test]
fn three_peers_without_a_tracker_find_each_other_and_share() {
    for families in [Families::OnlyV4, Families::OnlyV6, Families::Both] {
        let group = Group::new();
        let network = Network::with(3, families);
        let file = group.file("talk.txt", 3_000_000, 1);
        let mut ana = sharer(&network, &group, 1, "ana", &file);
        let mut bob = peer(&network, &group, 2, "bob", &[]);
        bob.wait_for("ana is here");
        let mut carl = peer(&network, &group, 3, "carl", &[]);
        carl.wait_for("is here");
        carl.wait_for("is here");
        ana.wait_for("is here");
        ana.wait_for("is here");
        let here = ask(&mut carl, "peers --all");
        for name in ["ana", "bob", "carl"] {
            assert!(here.contains(name), "{families:?}: {here}");
        }
        let found = ask(&mut carl, "search talk");
        assert!(
            found.contains("talk.txt") && found.contains("ana"),
            "{found}"
        );
        bob.say("download talk.txt");
        bob.wait_for("Download successful");
        assert_same(&file, &group.path("bob/downloaded_talk.txt"), 3_000_000);
        // Both have it now.
        let holders = ask(&mut carl, "search talk");
        assert!(holders.contains("ana, bob"), "{holders}");
        assert!(holders.contains(" 2 "), "{holders}");
        assert!(ask(&mut carl, "list bob").contains("talk.txt"));
        assert!(ask(&mut carl, "list nobody").contains("nobody"));

        let out = group.folder("once");
        let mut once = network.command(&group, 3, "once.state", &[]);
        once.args(["get", "talk.txt", "--tracker", "none", "--name", "once"]);
        let done = once
            .args(["--out", out.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_same(&file, &out.join("downloaded_talk.txt"), 3_000_000);

        wait_until("the one that has left is not counted", || {
            let mut status = network.command(&group, 2, "bob.state", &[]);
            let told = status.arg("status").output().unwrap();
            text(&told.stdout).contains("none; 2 others")
        });
        ana.say("quit");
        bob.wait_for("ana has left");
        assert!(
            !ask(&mut bob, "peers --all").contains("ana"),
            "{families:?}"
        );
        let known = std::fs::exists(group.path("bob.state/peer/known_trackers")).unwrap();
        assert!(!known, "no key of a port that is gone tomorrow");
    }
}

/// Shows: whoever is killed is gone after the usual silence, and is met again when it is back.
#[test]
fn whoever_is_killed_is_gone_and_comes_back() {
    let group = Group::new();
    let network = Network::with(2, Families::Both);
    let file = group.file("talk.txt", 1000, 1);
    let mut ana = sharer(&network, &group, 1, "ana", &file);
    let mut bob = peer(&network, &group, 2, "bob", &[]);
    bob.wait_for("ana is here");
    ana.kill();
    bob.wait_for("ana does not answer any more");
    assert!(!ask(&mut bob, "peers --all").contains("ana"));
    assert!(!ask(&mut bob, "search talk").contains("talk.txt"));
    let _ana = sharer(&network, &group, 1, "ana", &file);
    bob.wait_for("ana is here");
    wait_to_see(&mut bob, "search talk", "talk.txt");
}

/// Shows: only those on a network of one's own are found; a machine on two networks sees both.
#[test]
fn on_two_networks_only_the_near_ones_are_found() {
    let group = Group::new();
    let mut network = Network::with(2, Families::Both);
    let behind = network.add_host_behind(2);
    let mut ana = peer(&network, &group, 1, "ana", &[]);
    let mut carl = peer(&network, &group, behind, "carl", &[]);
    let mut bob = peer(&network, &group, 2, "bob", &[]);
    bob.wait_for("is here");
    bob.wait_for("is here");
    ana.wait_for("bob is here");
    carl.wait_for("bob is here");
    let seen = ask(&mut ana, "peers --all");
    assert!(seen.contains("bob") && !seen.contains("carl"), "{seen}");
    let seen = ask(&mut carl, "peers --all");
    assert!(seen.contains("bob") && !seen.contains("ana"), "{seen}");
}

/// Shows: row 79. Groups with different passphrases on one network never meet, and one line tells.
#[test]
fn row_79_two_groups_on_one_network_never_meet() {
    let (group, others) = (Group::new(), Group::new());
    others.write_private("passphrase", "quite another passphrase, for other people");
    let network = Network::with(3, Families::Both);
    let file = group.file("talk.txt", 1000, 1);
    let mut ana = sharer(&network, &group, 1, "ana", &file);
    let mut eve = peer(&network, &others, 3, "eve", &[]);
    let told = eve.wait_for("answers with another passphrase");
    assert!(told.starts_with("! someone on this network"), "{told}");
    ana.wait_for("answers with another passphrase");
    let mut bob = peer(&network, &group, 2, "bob", &[]);
    bob.wait_for("ana is here");
    wait_to_see(&mut bob, "search talk", "talk.txt");
    for (peer, stranger) in [(&mut ana, "eve"), (&mut bob, "eve"), (&mut eve, "ana")] {
        assert!(!ask(peer, "peers --all").contains(&format!("{stranger} ")));
    }
    assert!(!ask(&mut eve, "search talk").contains("talk.txt"));
    assert!(!eve.output().contains("is here"), "{}", eve.output());
}

/// Shows: row 80. A recorded beacon that comes from elsewhere leads nowhere while its sender is here, and to a
/// bounded number of dials when it is not.
#[test]
fn row_80_a_beacon_replayed_from_another_address_leads_to_nothing() {
    let group = Group::new();
    let network = Network::with(3, Families::OnlyV4);
    network.rules(3, WATCH);
    let mut ana = peer(&network, &group, 1, "ana", &[]);
    let beacons = network.on_host(3, || record("10.77.0.1", 3));
    let mut bob = peer(&network, &group, 2, "bob", &[]);
    bob.wait_for("ana is here");
    let replay = || {
        network.on_host(3, || {
            for beacon in beacons.iter().cycle().take(300) {
                shouting().send_to(beacon, ("10.77.0.255", PORT)).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    };
    replay();
    assert_eq!(network.counted(3, "knocks"), 0);
    assert_eq!(bob.output().matches("is here").count(), 1);
    ana.kill();
    bob.wait_for("ana does not answer any more");
    replay();
    assert!(network.counted(3, "knocks") <= 2);
    assert!(!ask(&mut bob, "peers --all").contains("ana"));
}

/// Shows: row 79. 10 000 datagrams a second, of garbage and of beacons that anybody could make, keep nobody from
/// meeting, cost their sender few dials, and no memory.
#[test]
fn row_79_ten_thousand_forged_beacons_a_second_keep_nobody_from_meeting() {
    let group = Group::new();
    let network = Network::with(3, Families::OnlyV4);
    network.rules(3, WATCH);
    let file = group.file("talk.txt", 1_000_000, 1);
    let _ana = sharer(&network, &group, 1, "ana", &file);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| network.on_host(3, || flood(Duration::from_secs(15))));
        let mut bob = peer(&network, &group, 2, "bob", &[]);
        bob.wait_for("ana is here");
        bob.reset_peak();
        let before = bob.peak_kib();
        bob.say("download talk.txt");
        bob.wait_for("Download successful");
        while began.elapsed() < Duration::from_secs(12) {
            wait_to_see(&mut bob, "search talk", "talk.txt");
        }
        let grown = bob.peak_kib().saturating_sub(before);
        assert!(grown < 64 << 10, "{grown} KiB");
        assert_eq!(bob.output().matches("is here").count(), 1);
        let sent = flooding.join().unwrap();
        assert!(sent > 100_000, "{sent}");
        let knocks = network.counted(3, "knocks");
        assert!(knocks <= 2 * 10, "{knocks} dials");
    });
}

/// Shows: a download goes on after a restart when its source is heard again, and waits for it until then, in
/// sight.
#[test]
fn a_download_goes_on_when_its_source_is_heard_again() {
    let group = Group::new();
    let network = Network::with(2, Families::Both);
    let file = group.file("film.mp4", 30_000_000, 1);
    let slow = ["--share", file.to_str().unwrap(), "--up-limit", "4MiB"];
    let mut ana = peer(&network, &group, 1, "ana", &slow);
    ana.wait_for("Sharing");
    let mut bob = peer(&network, &group, 2, "bob", &[]);
    bob.wait_for("ana is here");
    bob.say("download film.mp4 --background");
    wait_until("some of it is here", || {
        let shown = ask(&mut bob, "transfers");
        (5..70).any(|percent| shown.contains(&format!(" {percent} %")))
    });
    bob.kill();
    ana.kill();
    let mut bob = peer(&network, &group, 2, "bob", &[]);
    bob.wait_for("waiting for a seeder");
    let _ana = peer(&network, &group, 1, "ana", &slow[..2]);
    bob.wait_for("ana is here");
    let fetched = group.path("bob/downloaded_film.mp4");
    wait_until("all of it is here", || fetched.exists());
    assert_same(&file, &fetched, 30_000_000);
}

/// Shows: chat needs no tracker either: one asks, the other says yes, what is said arrives, over IPv4 and over
/// IPv6 alone; whoever is not of the group is not there to be asked.
#[test]
fn neighbours_talk_without_a_tracker() {
    for families in [Families::OnlyV4, Families::OnlyV6] {
        let group = Group::new();
        let network = Network::with(2, families);
        let mut ana = peer(&network, &group, 1, "ana", &[]);
        let mut bob = peer(&network, &group, 2, "bob", &[]);
        bob.wait_for("ana is here");
        ana.wait_for("bob is here");
        let through = |host: usize, name: &str, args: &[&str]| {
            let mut command = network.command(&group, host, &format!("{name}.state"), &[]);
            command.args(args).stdin(std::process::Stdio::null());
            let done = command.output().unwrap();
            assert!(done.status.success(), "{args:?}: {}", text(&done.stderr));
        };
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| through(2, "bob", &["connect", "ana"]));
            ana.wait_for("? bob");
            through(1, "ana", &["accept"]);
            asking.join().unwrap();
        });
        through(2, "bob", &["msg", "ana", "hi", "there"]);
        ana.wait_for("<bob> hi there");
        through(1, "ana", &["msg", "--all", "to", "everybody"]);
        bob.wait_for("<ana to all> to everybody");
        through(1, "ana", &["disconnect", "bob"]);
        bob.wait_for("ana has ended the talk");
        // A command that joins by itself looks around before it says that nobody is here.
        let args = [
            "msg",
            "ana",
            "in passing",
            "--tracker",
            "none",
            "--name",
            "carl",
        ];
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| through(2, "once", &args));
            ana.wait_for("? carl");
            through(1, "ana", &["accept"]);
            asking.join().unwrap();
        });
        ana.wait_for("<carl> in passing");
    }
}

/// Shows: what the users of P2P Chat and File Transfer typed does what it did, without a tracker: who is here, a
/// connection that is approved or denied, messages to one and to all, a file that is accepted, paused, resumed and
/// checked, and the end.
#[test]
fn p2p_chat_and_file_transfer_line_by_line() {
    let group = Group::new();
    let network = Network::with(3, Families::Both);
    let film = group.file("film.mkv", 6 << 20, 1);
    let mut ana = peer(&network, &group, 1, "ana", &[]);
    let mut bob = peer(&network, &group, 2, "bob", &["--down-limit", "1MiB"]);
    let mut eva = peer(&network, &group, 3, "eva", &[]);
    for _ in 0..2 {
        ana.wait_for("is here");
        bob.wait_for("is here");
        eva.wait_for("is here");
    }
    let people = ask(&mut ana, "/list");
    assert!(
        ["ana", "bob", "eva"]
            .iter()
            .all(|name| people.contains(name)),
        "{people}"
    );

    ana.say("/connect bob");
    bob.wait_for("? ana");
    bob.say("/yes");
    ana.wait_for("You talk with bob");
    bob.wait_for("You talk with ana");
    ana.say("/connect eva");
    eva.wait_for("? ana");
    eva.say("/no");
    ana.wait_for("eva");
    ana.say("/msg bob is \"this\" the place?");
    bob.wait_for("<ana> is \"this\" the place?");
    bob.say("/all it is");
    ana.wait_for("<bob to all> it is");

    ana.say("/send bob film.mkv");
    bob.wait_for("wants to send film.mkv, 6.0 MiB");
    assert!(
        names_in(&group.path("bob")).is_empty(),
        "nothing is there before it is accepted"
    );
    bob.say("/yes");
    ana.wait_for("bob has accepted film.mkv");
    wait_to_see(&mut bob, "/transfers", "1 peer");
    bob.say("/pause 1");
    bob.wait_for("Paused 1");
    wait_to_see(&mut bob, "/transfers", "paused");
    bob.say("/resume 1");
    bob.say("/limit off");
    bob.wait_for("Download successful: film.mkv");
    assert_same(&film, &group.path("bob/downloaded_film.mkv"), 6 << 20);
    ana.wait_for("bob has all of film.mkv");

    ana.say("/disconnect bob");
    bob.wait_for("ana has ended the talk");
    assert!(ask(&mut bob, "/help").contains("connect"));
    ana.say("/exit");
    assert_eq!(ana.exit_within(Duration::from_secs(10)), Some(0));
    bob.wait_for("ana has left");
}

/// Records so many beacons that come from an address.
fn record(from: &str, count: usize) -> Vec<Vec<u8>> {
    let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    let mut beacons = Vec::new();
    while beacons.len() < count {
        let mut buffer = [0; 100];
        let (len, sender) = socket.recv_from(&mut buffer).unwrap();
        if sender.ip().to_string() == from {
            beacons.push(buffer[..len].to_vec());
        }
    }
    beacons
}

fn shouting() -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_broadcast(true).unwrap();
    socket
}

/// Sends garbage, and beacons of peers that there are not, 10 000 a second together; how many.
fn flood(time: Duration) -> usize {
    let socket = shouting();
    let key = BeaconKey::of(&NetworkName::default());
    let (began, mut sent) = (Instant::now(), 0_usize);
    while began.elapsed() < time {
        let mut instance = [7; 8];
        instance[..4].copy_from_slice(&u32::try_from(sent).unwrap().to_be_bytes());
        let beacon = Beacon {
            role: Role::Peer,
            tcp_port: 4000,
            udp_port: 4000,
            instance: Instance(instance),
            unix_s: p2pfs::net::unix_ms() / 1000,
        };
        let mut datagram = key.seal(beacon, &mut OsRandom::new());
        if sent.is_multiple_of(2) {
            datagram[40] ^= 1;
        }
        sent += usize::from(socket.send_to(&datagram, ("10.77.0.255", PORT)).is_ok());
        if began.elapsed().as_millis() * 10 < sent as u128 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    sent
}
