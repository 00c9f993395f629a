//! The local network: trackers that are found on it.

use std::net::UdpSocket;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::network::{Families, Network};
use crate::support::{Group, Process, text};

/// UDP port of beacons.
const PORT: u16 = 9009;

/// Joins whatever tracker answers, and downloads into a folder of its name.
fn looking<'a>(name: &'a str, out: &'a std::path::Path) -> Vec<&'a str> {
    vec![
        "peer",
        "--tracker",
        "auto",
        "--name",
        name,
        "--out",
        out.to_str().unwrap(),
    ]
}

fn tracker_on(network: &Network, group: &Group, host: usize, state: &str) -> Process {
    let mut tracker = network.start(group, host, state, &["tracker"]);
    tracker.wait_for("Tracker listening on ");
    tracker
}

/// A command on a host, to its end.
fn once(network: &Network, group: &Group, host: usize, args: &[&str]) -> Output {
    let mut command = network.command(group, host, "once", &[]);
    command.args(args).stdin(std::process::Stdio::null());
    command.output().unwrap()
}

/// Shows: a tracker is found over IPv4 alone, over IPv6 alone, and over both, within seconds; what is shared at
/// it is downloaded; the one that is met first is known again.
#[test]
fn a_tracker_on_the_local_network_is_found_over_either_kind_of_address() {
    for families in [Families::OnlyV4, Families::OnlyV6, Families::Both] {
        let group = Group::new();
        let network = Network::with(2, families);
        let _tracker = tracker_on(&network, &group, 1, "tracker");
        let (here, there) = (group.folder("ana"), group.folder("bob"));
        let mut ana = network.start(&group, 1, "ana.state", &looking("ana", &here));
        ana.wait_for("Joined ");
        let file = group.file("talk.txt", 300_000, 1);
        ana.say(&format!("add {}", file.display()));
        ana.wait_for("Sharing talk.txt");
        let mut bob = network.start(&group, 2, "bob.state", &looking("bob", &there));
        let joined = bob.wait_for("Joined ");
        let is_v6 = joined.contains("Joined [fe80::");
        assert_eq!(is_v6, families == Families::OnlyV6, "{joined}");
        bob.say("download talk.txt");
        bob.wait_for("Download successful");
        let known = std::fs::read_to_string(group.path("bob.state/peer/known_trackers")).unwrap();
        assert!(known.starts_with("auto p2pfs "), "{families:?}: {known}");
    }
}

/// Shows: a tracker that shall not be shown is not found, and the line says what to do; exit code 4.
#[test]
fn where_no_tracker_shows_itself_the_line_says_what_to_do() {
    let group = Group::new();
    let network = Network::with(2, Families::OnlyV4);
    let mut hidden = network.start(&group, 1, "tracker", &["tracker", "--no-beacon"]);
    hidden.wait_for("Tracker listening on ");
    let output = once(&network, &group, 2, &["peers", "--tracker", "auto"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(
        told.contains("no tracker answers on the local network"),
        "{told}"
    );
    assert!(told.contains("--tracker HOST"), "{told}");
}

/// Shows: of several trackers the one is joined whose key is known; who knows none is told which there are.
#[test]
fn of_several_trackers_the_known_one_is_joined_and_nobody_guesses() {
    let group = Group::new();
    let network = Network::with(3, Families::OnlyV4);
    let _first = tracker_on(&network, &group, 1, "one");
    let out = group.folder("ana");
    let mut ana = network.start(&group, 3, "ana.state", &looking("ana", &out));
    let joined = ana.wait_for("Joined ");
    assert!(joined.contains("Joined 10.77.0.1:9000"), "{joined}");
    ana.say("quit");
    assert_eq!(ana.exit_within(Duration::from_secs(20)), Some(0));
    let _second = tracker_on(&network, &group, 2, "two");
    let mut ana = network.start(&group, 3, "ana.state", &looking("ana", &out));
    let joined = ana.wait_for("Joined ");
    assert!(joined.contains("Joined 10.77.0.1:9000"), "{joined}");
    let output = once(&network, &group, 3, &["peers", "--tracker", "auto"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("10.77.0.1:9000") && told.contains("10.77.0.2:9000"),
        "{told}"
    );
    // The one that is known is gone: another one is not taken for it.
    drop(_first);
    ana.kill();
    let mut ana = network.start(&group, 3, "ana.state", &looking("ana", &out));
    ana.wait_for("has the key");
}

/// Shows: a flood of garbage and of beacons that anybody could have recorded keeps nobody from finding the
/// tracker.
#[test]
fn a_tracker_is_found_under_a_flood_of_garbage() {
    let group = Group::new();
    let network = Network::with(3, Families::OnlyV4);
    let _tracker = tracker_on(&network, &group, 1, "tracker");
    let out = group.folder("ana");
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| network.on_host(3, || flood(Duration::from_secs(5))));
        let mut ana = network.start(&group, 2, "ana.state", &looking("ana", &out));
        ana.wait_for("Joined ");
        assert!(flooding.join().unwrap() > 10_000);
    });
}

/// Sends garbage of the length of beacons, as fast as it goes; how many.
fn flood(time: Duration) -> usize {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_broadcast(true).unwrap();
    let (began, mut sent) = (Instant::now(), 0_usize);
    while began.elapsed() < time {
        let mut garbage = [0x5a; 73];
        garbage[0] = 0x11;
        garbage[1..9].copy_from_slice(&sent.to_be_bytes());
        sent += usize::from(socket.send_to(&garbage, ("10.77.0.255", PORT)).is_ok());
    }
    sent
}
