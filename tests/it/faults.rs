//! What the machines around p2pfs do wrong: disks, names, routers, other members.
//! The numbers are rows of `docs/bad-inputs.md`.

use std::fs;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::network::Network;
use crate::support::{Group, need, text};

/// One line on stderr that begins with `p2pfs: `, and this exit code.
fn assert_one_line(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
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
        let refused = |words: &[&str]| {
            let args = ["tracker", "--bind", "127.0.0.1", "--port", "0"];
            let mut command = group.command("tracker");
            let output = command.args(args).stdin(Stdio::null()).output().unwrap();
            assert_one_line(&output, 8, &[&[name][..], words].concat());
        };
        let garbage = "no key\n".repeat(20).into_bytes();
        for damaged in [&good[..0], &good[..31], &garbage, &vec![0; 3 << 20]] {
            fs::write(&path, damaged).unwrap();
            refused(&["move it away"]);
            assert_eq!(fs::read(&path).unwrap(), damaged, "kept as it was");
        }
        fs::write(&path, &good).unwrap();
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        refused(&["belongs to another user"]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused(&["move it away"]);
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
