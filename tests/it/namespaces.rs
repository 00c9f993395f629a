//! A network of our own: addresses that others can reach, and datagrams that get lost.

use std::time::{Duration, Instant};

use crate::support::Group;
use crate::support::network::Network;

/// Shows: rows 25 and 35. A peer on the tracker's machine is handed out under an address that others can
/// reach, and with every fifth datagram lost both ways no search fails and no file disappears.
/// How: three hosts on a bridge; the tracker's host drops datagrams; the other two search for a while.
#[test]
fn peers_reach_each_other_and_lost_datagrams_cost_nothing() {
    let group = Group::new();
    let network = Network::new(3);
    let mut tracker = network.start(&group, 1, "tracker", &["tracker"]);
    let line = tracker.wait_for("Tracker listening on ");
    assert!(line.contains("10.77.0.1:9000"), "{line}");

    let file = group.file("near.txt", 3_000_000, 1);
    let share = [
        "peer",
        "--tracker",
        "localhost",
        "--name",
        "near",
        "--share",
        file.to_str().unwrap(),
    ];
    let mut near = network.start(&group, 1, "near", &share);
    near.wait_for("Sharing near.txt");
    let out = group.folder("far");
    let join = [
        "peer",
        "--tracker",
        "10.77.0.1",
        "--name",
        "far",
        "--out",
        out.to_str().unwrap(),
    ];
    let mut far = network.start(&group, 2, "far", &join);
    far.wait_for("Joined ");
    far.say("search near");
    far.wait_for("near.txt");
    far.say("peers");
    let holder = far.wait_for("near ");
    assert!(holder.contains("10.77.0.1:8001"), "{holder}");
    far.say("download near.txt");
    far.wait_for("Download successful");

    network.lose_datagrams(1);
    let other = ["peer", "--tracker", "10.77.0.1", "--name", "other"];
    let mut other = network.start(&group, 3, "other", &other);
    other.wait_for("Joined ");
    // Several times the silence after which somebody who is not heard would be gone.
    let began = Instant::now();
    let mut searches = 0;
    while began.elapsed() < Duration::from_secs(20) {
        for peer in [&mut far, &mut other] {
            peer.say("search near.txt");
            let line = peer.wait_for("near");
            assert!(line.contains("near.txt   2.9 MiB"), "{line}");
            searches += 1;
        }
        // Not waiting for anything: who asks without a pause is told to wait.
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(searches > 50, "{searches}");
}
