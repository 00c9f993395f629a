//! Machines on a network of our own: namespaces with addresses, a bridge, and rules about what gets lost.

use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Group, Process, need, text};

/// Networks of this process so far: tests may run side by side.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// The kinds of addresses that hosts have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Families {
    Both,
    OnlyV4,
    OnlyV6,
}

/// A bridge with hosts on it, `10.77.0.1` and so on; all of it is gone when dropped.
pub(crate) struct Network {
    tag: String,
    hosts: Vec<String>,
}

fn run(line: &str) {
    run_words(&line.split(' ').collect::<Vec<_>>());
}

fn run_words(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {} (root is needed)",
        text(&output.stderr)
    );
}

impl Network {
    pub(crate) fn new(hosts: usize) -> Self {
        Self::with(hosts, Families::Both)
    }

    /// The same with these kinds of addresses; those of IPv6 are the ones that each host gives itself.
    pub(crate) fn with(hosts: usize, families: Families) -> Self {
        need("ip");
        need("nft");
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let tag = format!("p{}n{number}", std::process::id() % 100_000);
        run(&format!("ip netns add {tag}sw"));
        run(&format!("ip -n {tag}sw link add name br0 type bridge"));
        run(&format!("ip -n {tag}sw link set br0 up"));
        let mut network = Self {
            tag,
            hosts: Vec::new(),
        };
        for number in 1..=hosts {
            let name = network.add_host();
            let tag = &network.tag;
            run(&format!(
                "ip -n {name} link add name eth0 type veth peer name v{number} netns {tag}sw"
            ));
            run(&format!("ip -n {tag}sw link set v{number} master br0 up"));
            // An address of the link is good at once, and not when nobody else turns out to have it.
            let plain = "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad";
            network.shell(number, plain);
            if families == Families::OnlyV4 {
                network.shell(number, "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6");
            }
            if families != Families::OnlyV6 {
                // With its broadcast address, as DHCP and network managers give it.
                network.ip(
                    number,
                    &format!("addr add 10.77.0.{number}/24 brd + dev eth0"),
                );
            }
            network.ip(number, "link set eth0 up");
        }
        network
    }

    /// Runs a line of shell on host `number`.
    pub(crate) fn shell(&self, number: usize, line: &str) {
        let name = &self.hosts[number - 1];
        run_words(&["ip", "netns", "exec", name, "sh", "-c", line]);
    }

    /// Runs `work` in a thread of this process that lives on host `number`.
    pub(crate) fn on_host<T: Send>(&self, number: usize, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.hosts[number - 1]);
        let host = std::fs::File::open(path).unwrap();
        std::thread::scope(|scope| {
            let working = scope.spawn(move || {
                let kind = rustix::thread::ThreadNameSpaceType::NETWORK;
                rustix::thread::move_into_thread_name_spaces(host.as_fd(), kind).unwrap();
                work()
            });
            working.join().unwrap()
        })
    }

    fn add_host(&mut self) -> String {
        let name = format!("{}h{}", self.tag, self.hosts.len() + 1);
        run(&format!("ip netns add {name}"));
        self.hosts.push(name.clone());
        run(&format!("ip -n {name} link set lo up"));
        name
    }

    /// One more host, `10.78.0.2`, whose only way out is over host `router`; its number.
    pub(crate) fn add_host_behind(&mut self, router: usize) -> usize {
        let inside = self.add_host();
        let router = &self.hosts[router - 1];
        run(&format!(
            "ip -n {inside} link add name eth0 type veth peer name eth1 netns {router}"
        ));
        run(&format!("ip -n {inside} addr add 10.78.0.2/24 dev eth0"));
        run(&format!("ip -n {router} addr add 10.78.0.1/24 dev eth1"));
        run(&format!("ip -n {inside} link set eth0 up"));
        run(&format!("ip -n {router} link set eth1 up"));
        run(&format!("ip -n {inside} route add default via 10.78.0.1"));
        let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward";
        run_words(&["ip", "netns", "exec", router, "sh", "-c", forward]);
        self.hosts.len()
    }

    /// p2pfs on host `number`, from 1.
    pub(crate) fn start(
        &self,
        group: &Group,
        number: usize,
        state: &str,
        args: &[&str],
    ) -> Process {
        let mut command = self.command(group, number, state, &[]);
        command.args(args);
        group.spawn(state, command)
    }

    /// p2pfs on host `number`, run by `wrapper`.
    pub(crate) fn command(
        &self,
        group: &Group,
        number: usize,
        state: &str,
        wrapper: &[&str],
    ) -> Command {
        let enter = ["ip", "netns", "exec", &self.hosts[number - 1]];
        group.command_under(state, &[&enter, wrapper].concat())
    }

    /// Changes an interface, an address or a route of host `number`.
    pub(crate) fn ip(&self, number: usize, change: &str) {
        run(&format!("ip -n {} {change}", self.hosts[number - 1]));
    }

    /// Takes the cable out of host `number`, or puts it back.
    pub(crate) fn plug(&self, number: usize, state: &str) {
        run(&format!("ip -n {}sw link set v{number} {state}", self.tag));
    }

    /// Gives host `number` these rules of nftables.
    pub(crate) fn rules(&self, number: usize, rules: &str) {
        let name = &self.hosts[number - 1];
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

    /// Packets that the named counter of table `inet watch` on host `number` has seen.
    pub(crate) fn counted(&self, number: usize, counter: &str) -> u64 {
        self.count(number, counter, "packets ")
    }

    /// Bytes that the named counter of table `inet watch` on host `number` has seen.
    pub(crate) fn counted_bytes(&self, number: usize, counter: &str) -> u64 {
        self.count(number, counter, "bytes ")
    }

    fn count(&self, number: usize, counter: &str, what: &str) -> u64 {
        let name = &self.hosts[number - 1];
        let output = Command::new("ip")
            .args(["netns", "exec", name, "nft", "list", "counter", "inet"])
            .args(["watch", counter])
            .output()
            .unwrap();
        let listed = text(&output.stdout);
        let after = listed.split(what).nth(1).unwrap();
        let end = after.find(|digit: char| !digit.is_ascii_digit());
        after[..end.unwrap()].parse().unwrap()
    }

    /// Host `number` loses one UDP datagram in five, in either direction.
    pub(crate) fn lose_datagrams(&self, number: usize) {
        self.rules(number, "table inet loss {
            chain in { type filter hook input priority 0; meta l4proto udp numgen random mod 100 < 20 drop; }
            chain out { type filter hook output priority 0; meta l4proto udp numgen random mod 100 < 20 drop; }
        }");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let switch = format!("{}sw", self.tag);
        for name in self.hosts.iter().chain([&switch]) {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}
