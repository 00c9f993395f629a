//! What whoever runs a tracker sees of it: numbers, state, log.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::support::{Group, Process, text, wait_until};

const DOCS: &str = include_str!("../../docs/operating.md");

/// A tracker with metrics; where it listens, and where its numbers are.
fn tracker(group: &Group, more: &[&str]) -> (Process, String, SocketAddr) {
    let base = [
        "tracker",
        "--bind",
        "127.0.0.1",
        "--port",
        "0",
        "--metrics",
        "0",
    ];
    let mut tracker = group.start("tracker", &[&base[..], more].concat());
    let line = tracker.wait_for("Tracker listening on ");
    let address = line.split(" on ").nth(1).unwrap();
    let address = address.split(',').next().unwrap().to_owned();
    let line = tracker.wait_for("Metrics at ");
    let metrics = line.split("http://").nth(1).unwrap();
    let metrics = metrics.strip_suffix("/metrics").unwrap().parse().unwrap();
    (tracker, address, metrics)
}

/// Sends bytes, and reads all that comes until the other side closes.
fn exchange(to: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // It may close before it has read all of what is too long.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

fn get(from: SocketAddr, path: &str, host: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let answer = exchange(from, request.as_bytes());
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn numbers(from: SocketAddr) -> BTreeMap<String, f64> {
    let (status, body) = get(from, "/metrics", &from.to_string());
    assert_eq!(status, 200, "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn number(from: SocketAddr, name: &str) -> f64 {
    let numbers = numbers(from);
    *numbers
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {numbers:#?}"))
}

#[test]
fn the_metrics_are_those_of_the_documentation() {
    let group = Group::new();
    let (_tracker, _, metrics) = tracker(&group, &[]);
    let (_, body) = get(metrics, "/metrics", &metrics.to_string());
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let served: BTreeSet<String> = types.map(str::to_owned).collect();
    let rows = DOCS
        .lines()
        .filter_map(|line| line.strip_prefix("| `p2pfs_"));
    let documented: BTreeSet<String> = rows
        .map(|row| {
            let (name, rest) = row.split_once("` | ").unwrap();
            format!("p2pfs_{name} {}", rest.split(" | ").next().unwrap())
        })
        .collect();
    assert!(served.len() > 10, "{body}");
    assert_eq!(served, documented);
    for line in body
        .lines()
        .filter(|line| line.contains("reason=\"") && line.contains("_drops_"))
    {
        let reason = line.split('"').nth(1).unwrap();
        assert!(DOCS.contains(&format!("| `{reason}` |")), "{reason}");
    }
}

#[test]
fn numbers_move_when_things_happen() {
    let group = Group::new();
    let (_tracker, address, metrics) = tracker(&group, &[]);
    let file = group.file("of the group.txt", 1000, 1);
    let mut ana = group.peer("ana", &address, &["--share", file.to_str().unwrap()]);
    ana.wait_for("Sharing");
    wait_until("the peer and its file count", || {
        let numbers = numbers(metrics);
        let names = [
            "p2pfs_tracker_peers",
            "p2pfs_tracker_files",
            "p2pfs_tracker_names",
            "p2pfs_tracker_sessions{state=\"live\"}",
        ];
        names.iter().all(|name| numbers[*name] == 1.0)
    });
    assert_eq!(
        number(
            metrics,
            "p2pfs_tracker_handshakes_total{outcome=\"completed\"}"
        ),
        1.0
    );
    assert!(number(metrics, "p2pfs_tracker_requests_total{kind=\"login\"}") >= 1.0);

    let searches = "p2pfs_tracker_requests_total{kind=\"search\"}";
    assert_eq!(number(metrics, searches), 0.0);
    ana.say("search group");
    ana.wait_for("of the group.txt");
    assert_eq!(number(metrics, searches), 1.0);
    assert_eq!(
        number(metrics, "p2pfs_tracker_search_duration_seconds_count"),
        1.0
    );
    let all = numbers(metrics);
    let requests: f64 = all
        .iter()
        .filter(|(name, _)| name.starts_with("p2pfs_tracker_requests_total"))
        .map(|(_, count)| count)
        .sum();
    let timed = all["p2pfs_tracker_request_duration_seconds_count"];
    assert!(timed > 2.0 && timed <= requests, "{timed} of {requests}");
    assert!(all["p2pfs_tracker_request_duration_seconds_sum"] > 0.0);
    assert!(all["p2pfs_tracker_received_bytes_total"] > 500.0);
    assert!(all["p2pfs_tracker_sent_bytes_total"] > 200.0);

    ana.say("list nobody-of-that-name");
    ana.wait_for("nobody");
    assert_eq!(
        number(
            metrics,
            "p2pfs_tracker_refusals_total{reason=\"no_such_user\"}"
        ),
        1.0
    );

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let drops = |reason: &str| {
        number(
            metrics,
            &format!("p2pfs_tracker_drops_total{{reason=\"{reason}\"}}"),
        )
    };
    assert_eq!(drops("malformed") + drops("unknown_session"), 0.0);
    socket.send_to(b"not of this world", &address).unwrap();
    wait_until("garbage is counted", || drops("malformed") == 1.0);

    group.write_private("passphrase", "another passphrase that nobody knows of");
    let wrong = group.once(&address, &["peers"]);
    assert_eq!(wrong.status.code(), Some(3), "{}", text(&wrong.stderr));
    wait_until("the wrong passphrase is counted", || {
        number(
            metrics,
            "p2pfs_tracker_handshakes_total{outcome=\"wrong_passphrase\"}",
        ) == 1.0
    });

    // Who is here, and with what, stands nowhere among them.
    let (_, body) = get(metrics, "/metrics", &metrics.to_string());
    assert!(
        !body.contains("ana") && !body.contains("of the group") && !body.contains("127.0.0.1"),
        "{body}"
    );
}

#[test]
fn a_web_page_elsewhere_cannot_read_the_numbers() {
    let group = Group::new();
    let (mut tracker, _, metrics) = tracker(&group, &[]);
    let port = metrics.port();
    for host in [metrics.to_string(), format!("localhost:{port}")] {
        assert_eq!(get(metrics, "/metrics", &host).0, 200, "{host}");
        assert_eq!(get(metrics, "/healthz", &host), (200, "ok\n".to_owned()));
        assert_eq!(get(metrics, "/nothing", &host).0, 404);
    }
    for host in [
        format!("evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        "127.0.0.1:1".to_owned(),
        String::new(),
    ] {
        let (status, body) = get(metrics, "/metrics", &host);
        assert_eq!(status, 421, "{host}");
        assert!(!body.contains("p2pfs_"), "{host}: {body}");
    }
    let own = metrics.to_string();
    let post = format!("POST /metrics HTTP/1.1\r\nHost: {own}\r\nContent-Length: 0\r\n\r\n");
    assert!(exchange(metrics, post.as_bytes()).starts_with("HTTP/1.1 405"));
    assert!(exchange(metrics, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 421"));
    assert!(
        !exchange(
            metrics,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"
        )
        .contains("200")
    );
    assert!(tracker.exit_within(Duration::from_millis(50)).is_none());
}

#[test]
fn a_scraper_that_is_too_long_too_slow_or_too_many_is_let_go() {
    let group = Group::new();
    let (_tracker, _, metrics) = tracker(&group, &[]);
    let own = metrics.to_string();
    let long = format!(
        "GET /metrics HTTP/1.1\r\nHost: {own}\r\nX: {}\r\n\r\n",
        "x".repeat(100 << 10)
    );
    assert!(!exchange(metrics, long.as_bytes()).contains("200 OK"));
    let many = format!(
        "GET /metrics HTTP/1.1\r\nHost: {own}\r\n{}\r\n",
        "X: x\r\n".repeat(200)
    );
    assert!(!exchange(metrics, many.as_bytes()).contains("200 OK"));
    // All places are taken by those who say nothing; after a few seconds they are free again.
    let begin = Instant::now();
    let mute: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(metrics).unwrap())
        .collect();
    let status = || {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {own}\r\n\r\n");
        exchange(metrics, request.as_bytes())
    };
    wait_until("others are kept out", || status().is_empty());
    wait_until("the mute ones are let go", || status().contains("200 OK"));
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    drop(mute);
}

#[test]
fn metrics_are_on_loopback_unless_an_address_is_given_plainly() {
    let group = Group::new();
    let (mut tracker, _, metrics) = tracker(&group, &[]);
    assert!(metrics.ip().is_loopback());
    assert!(!tracker.output().contains("everybody who reaches"));
    tracker.kill();
    let args = [
        "tracker",
        "--bind",
        "127.0.0.1",
        "--port",
        "0",
        "--metrics",
        "0.0.0.0:0",
    ];
    let mut open = group.start("tracker", &args);
    open.wait_for("Metrics at ");
    open.wait_for("everybody who reaches");
    let wrong = group
        .command("other")
        .args(["tracker", "--metrics", "hub:9100"])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
    assert!(text(&wrong.stderr).contains("no address for metrics"));
    let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = here.local_addr().unwrap().to_string();
    let mut command = group.command("other");
    command.args(["tracker", "--bind", "127.0.0.1", "--port", "0"]);
    let output = command.env("P2PFS_METRICS", &taken).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&format!("metrics on {taken}")));
}
