//! A network of our own: addresses that others can reach, and datagrams that get lost.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Group, Process, need, text};

/// A network namespace with one address on a bridge; gone when dropped.
struct Host {
    name: String,
}

fn run(line: &str) {
    let words: Vec<_> = line.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {} (root is needed)",
        text(&output.stderr)
    );
}

/// A bridge with hosts on it; all of it is gone when dropped.
struct Network {
    tag: String,
    hosts: Vec<Host>,
}

impl Network {
    fn new(hosts: usize) -> Self {
        need("ip");
        need("nft");
        let tag = format!("p{}", std::process::id() % 100_000);
        run(&format!("ip netns add {tag}sw"));
        run(&format!("ip -n {tag}sw link add name br0 type bridge"));
        run(&format!("ip -n {tag}sw link set br0 up"));
        let mut network = Self {
            tag,
            hosts: Vec::new(),
        };
        for number in 1..=hosts {
            network.add_host(number);
        }
        network
    }

    fn add_host(&mut self, number: usize) {
        let tag = &self.tag;
        let name = format!("{tag}h{number}");
        run(&format!("ip netns add {name}"));
        self.hosts.push(Host { name: name.clone() });
        run(&format!(
            "ip -n {name} link add name eth0 type veth peer name v{number} netns {tag}sw"
        ));
        run(&format!("ip -n {tag}sw link set v{number} master br0 up"));
        run(&format!(
            "ip -n {name} addr add 10.77.0.{number}/24 dev eth0"
        ));
        run(&format!("ip -n {name} link set eth0 up"));
        run(&format!("ip -n {name} link set lo up"));
    }

    /// p2pfs on host `number`, from 1.
    fn start(&self, group: &Group, number: usize, state: &str, args: &[&str]) -> Process {
        let plain = group.command(state);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.hosts[number - 1].name])
            .arg(plain.get_program())
            .args(args);
        for (key, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.current_dir(group.dir.path());
        group.spawn(state, command)
    }

    /// Host `number` loses one UDP datagram in five, in either direction.
    fn lose_datagrams(&self, number: usize) {
        let rules = "table inet loss {
            chain in { type filter hook input priority 0; meta l4proto udp numgen random mod 100 < 20 drop; }
            chain out { type filter hook output priority 0; meta l4proto udp numgen random mod 100 < 20 drop; }
        }";
        let name = &self.hosts[number - 1].name;
        let mut nft = Command::new("ip")
            .args(["netns", "exec", name, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut nft.stdin.take().unwrap(), rules.as_bytes()).unwrap();
        assert!(
            nft.wait().unwrap().success(),
            "nft: is it installed, and are we root?"
        );
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = Command::new("ip")
                .args(["netns", "del", &host.name])
                .status();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &format!("{}sw", self.tag)])
            .status();
    }
}

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
