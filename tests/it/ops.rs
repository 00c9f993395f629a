//! What whoever runs a tracker sees of it: numbers, state, log.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::scrape::{exchange, get, number, numbers};
use crate::support::terminal::Terminal;
use crate::support::{Group, PASSPHRASE, Process, need, text, wait_until};

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
    let mut ana = group.sharer("ana", &address, &[&file], &[]);
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
fn what_the_system_drops_before_the_tracker_reads_it_is_told() {
    let group = Group::new();
    let (tracker, address, metrics) = tracker(&group, &[]);
    let drops = "p2pfs_tracker_drops_total{reason=\"receive_buffer_full\"}";
    assert_eq!(number(metrics, drops), 0.0);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    tracker.signal(Signal::STOP);
    // More than the largest buffer holds.
    for _ in 0..60_000 {
        let _ = socket.send_to(&[0; 1000], &address);
    }
    tracker.signal(Signal::CONT);
    wait_until("the drops are counted", || number(metrics, drops) > 0.0);
    let shown = status(&group, "tracker", &[]);
    assert!(
        text(&shown.stdout).contains(" receive buffer full"),
        "{shown:?}"
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
    let with = |headers| {
        let more = "X: x\r\n".repeat(headers);
        let many = format!("GET /metrics HTTP/1.1\r\nHost: {own}\r\n{more}\r\n");
        exchange(metrics, many.as_bytes()).contains("200 OK")
    };
    assert!(with(63) && !with(64), "with Host, 64 lines at most");
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

fn status(group: &Group, state: &str, more: &[&str]) -> Output {
    group
        .command(state)
        .arg("status")
        .args(more)
        .output()
        .unwrap()
}

fn status_json(group: &Group, state: &str) -> Value {
    let output = status(group, state, &["--json"]);
    let out = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{out}{}",
        text(&output.stderr)
    );
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn status_tells_of_the_tracker() {
    let group = Group::new();
    let (tracker, address, metrics) = tracker(&group, &[]);
    let file = group.file("report.txt", 1000, 1);
    let _ana = group.sharer("ana", &address, &[&file], &[]);
    wait_until("it is counted", || {
        status_json(&group, "tracker")["files"] == 1
    });
    let status_of = status_json(&group, "tracker");
    assert_eq!(
        (status_of["type"].as_str(), status_of["role"].as_str()),
        (Some("status"), Some("tracker"))
    );
    assert_eq!(status_of["pid"], tracker.pid());
    assert_eq!(address, format!("127.0.0.1:{}", status_of["port"]));
    assert_eq!(status_of["addresses"][0], "127.0.0.1");
    assert_eq!(status_of["metrics"], metrics.to_string());
    assert_eq!(
        (&status_of["peers"], &status_of["names"]),
        (&1.into(), &1.into())
    );
    assert!(
        tracker
            .output()
            .contains(status_of["key"].as_str().unwrap())
    );
    assert!(
        status_of["requests_per_s"].as_f64().unwrap() > 0.0,
        "{status_of}"
    );
    assert_eq!(status_of["drops"]["malformed"], 0);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"not of this world", &address).unwrap();
    wait_until("garbage is counted", || {
        status_json(&group, "tracker")["drops"]["malformed"] == 1
    });

    let output = status(&group, "tracker", &[]);
    let shown = text(&output.stdout);
    for part in [
        format!("{address}, since "),
        "1 malformed".to_owned(),
        "a second".to_owned(),
        format!("pid {}", tracker.pid()),
    ] {
        assert!(shown.contains(&part), "{part} in {shown}");
    }
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn status_tells_of_a_peer_and_whether_it_has_its_tracker() {
    let group = Group::new();
    let (mut tracker, address, _) = tracker(&group, &[]);
    let file = group.file("large.bin", 3 << 20, 1);
    let mut ana = group.sharer("ana", &address, &[&file], &[]);
    let mut bob = group.peer("bob", &address, &["--no-seed"]);
    bob.say("download large.bin");
    bob.wait_for("Download successful");
    let (seeder, leecher) = (
        status_json(&group, "ana.state"),
        status_json(&group, "bob.state"),
    );
    assert_eq!(seeder["role"], "peer");
    assert_eq!(
        (&seeder["user"], &seeder["shares"]),
        (&"ana".into(), &1.into())
    );
    assert_eq!(
        (&seeder["tracker"], &seeder["joined"]),
        (&address.as_str().into(), &true.into())
    );
    assert!(
        ana.output()
            .contains(&format!("listening on {}", seeder["port"]))
    );
    for (status, key) in [(&seeder, "up"), (&leecher, "down")] {
        let moved = status[key].as_u64().unwrap();
        assert!((3 << 20..4 << 20).contains(&moved), "{key}: {status}");
    }
    assert_eq!((&seeder["down"], &leecher["up"]), (&0.into(), &0.into()));
    assert_eq!(
        (&leecher["transfers"], &leecher["running"]),
        (&0.into(), &0.into())
    );

    tracker.kill();
    ana.wait_for("the tracker is lost");
    let lost = status_json(&group, "ana.state");
    assert_eq!(lost["joined"], false);
    assert!(
        lost["joined_since"].as_str() > seeder["joined_since"].as_str(),
        "{lost}"
    );
    let shown = text(&status(&group, "ana.state", &[]).stdout);
    assert!(
        shown.contains("lost since") && shown.contains("3.0 MiB up"),
        "{shown}"
    );
}

#[test]
fn status_of_nothing_is_one_line_and_a_code_of_its_own() {
    let group = Group::new();
    for more in [&[][..], &["--json"]] {
        let output = status(&group, "nobody", more);
        assert_eq!(output.status.code(), Some(5));
        let said = text(&output.stderr);
        assert!(
            said.contains("neither a tracker nor a peer runs with"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!group.path("nobody").exists(), "and nothing is made");
    }
}

#[test]
fn a_socket_that_a_killed_tracker_left_is_replaced() {
    let group = Group::new();
    let (mut first, ..) = tracker(&group, &[]);
    let socket = group.path("tracker").join("tracker/control.sock");
    let mode = std::fs::symlink_metadata(&socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let dir = std::fs::metadata(socket.parent().unwrap()).unwrap();
    assert_eq!(dir.permissions().mode() & 0o777, 0o700);
    first.kill();
    assert!(socket.exists());
    assert_eq!(status(&group, "tracker", &[]).status.code(), Some(5));
    let (second, ..) = tracker(&group, &[]);
    assert_eq!(status_json(&group, "tracker")["pid"], second.pid());
    // One that may not run does not take the socket either.
    let third = group
        .command("tracker")
        .args(["tracker", "--port", "0"])
        .output()
        .unwrap();
    assert_eq!(third.status.code(), Some(10), "{}", text(&third.stderr));
    assert_eq!(status_json(&group, "tracker")["pid"], second.pid());
    // A tracker that was asked to end takes it away.
    second.signal(Signal::TERM);
    wait_until("it is gone", || !socket.exists());
}

#[test]
fn a_stopped_tracker_keeps_status_waiting_for_seconds_only() {
    let group = Group::new();
    let (tracker, ..) = tracker(&group, &[]);
    tracker.signal(Signal::STOP);
    let begin = Instant::now();
    let output = status(&group, "tracker", &[]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("does not answer"));
    assert!(begin.elapsed() < Duration::from_secs(20));
    tracker.signal(Signal::CONT);
    assert_eq!(status(&group, "tracker", &[]).status.code(), Some(0));
}

#[test]
fn another_user_gets_no_answer_even_where_modes_would_let_him() {
    if !rustix::process::geteuid().is_root() {
        // Only root can be another user; the rule itself has its test beside the code.
        return;
    }
    need("perl");
    let group = Group::new();
    let (mut tracker, ..) = tracker(&group, &[]);
    let dir = group.path("tracker").join("tracker");
    let socket = dir.join("control.sock");
    let ask = |uid: u32| {
        let script = r#"use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;
            connect($s, pack_sockaddr_un($ARGV[0])) or die "connect: $!";
            syswrite($s, qq({"v":1,"command":"status"}\n)); local $/; print <$s>;"#;
        let mut perl = Command::new("perl");
        perl.args(["-e", script])
            .arg(&socket)
            .current_dir("/")
            .uid(uid);
        perl.output().unwrap()
    };
    let kept_out = ask(65_534);
    assert!(
        text(&kept_out.stderr).contains("Permission denied"),
        "{kept_out:?}"
    );
    for open in [group.dir.path(), &group.path("tracker"), &dir, &socket] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let stranger = ask(65_534);
    assert_eq!(
        (text(&stranger.stdout), text(&stranger.stderr)),
        (String::new(), String::new())
    );
    tracker.wait_for("another user was turned away");
    assert!(text(&ask(0).stdout).contains("\"role\":\"tracker\""));
}

#[test]
fn the_log_tells_who_comes_and_who_guesses() {
    let group = Group::new();
    let (mut tracker, address, _) = tracker(&group, &["-v"]);
    let start = tracker.wait_for("the tracker starts");
    for part in [
        " INFO ",
        &format!("address={address}"),
        "key=",
        "network=",
        "rights=700",
        "uid=",
    ] {
        assert!(start.contains(part), "{part} in {start}");
    }
    let ana = group.peer("ana", &address, &[]);
    let joined = tracker.wait_for("peer joined");
    assert!(
        joined.contains("user=ana")
            && joined.contains("peer=")
            && joined.contains("from=127.0.0.1:"),
        "{joined}"
    );
    drop(ana);
    tracker.wait_for("peer is silent");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .send_to(b"\x1b[2Jnot of this world", &address)
        .unwrap();
    group.write_private("passphrase", "another passphrase that nobody knows of");
    for _ in 0..5 {
        assert_eq!(group.once(&address, &["peers"]).status.code(), Some(3));
    }
    let wrong = tracker.wait_for("wrong passphrase");
    assert!(
        wrong.contains(" WARN ") && wrong.contains("from=127.0.0.1"),
        "{wrong}"
    );
    let output = tracker.output();
    assert_eq!(
        output.matches("wrong passphrase").count(),
        1,
        "summed up later:\n{output}"
    );
    assert!(!output.contains('\x1b'), "a file has no colours:\n{output}");
    assert!(!output.contains("another passphrase") && !output.contains(PASSPHRASE));
}

#[test]
fn the_journal_gets_levels_and_no_times_and_a_terminal_colours() {
    let group = Group::new();
    let log = std::fs::File::create(group.path("tracker.log"))
        .unwrap()
        .metadata()
        .unwrap();
    let mut command = group.command("tracker");
    command
        .args(["tracker", "-v", "--bind", "127.0.0.1", "--port", "0"])
        .env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino()));
    let mut tracker = group.spawn("tracker", command);
    let line = tracker.wait_for("the tracker starts");
    assert!(line.starts_with("<6>the tracker starts"), "{line}");
    tracker.kill();
    for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let group = Group::new();
        let passphrase = group.path("passphrase").display().to_string();
        let args = [
            "tracker",
            "-v",
            "--bind",
            "127.0.0.1",
            "--port",
            "0",
            "--passphrase-file",
            &passphrase,
        ];
        let mut terminal = Terminal::start_in(&group, "tracker", &args, variables);
        let before = terminal.wait_for("the tracker starts");
        assert_eq!(
            before.contains("\x1b[32mINFO\x1b[0m"),
            is_coloured,
            "{before:?}"
        );
    }
}

/// Shows: a log in a file is one event a line, its owner's alone, without a secret, and begun anew when it was
/// moved away.
#[test]
fn the_log_goes_to_a_file_that_may_be_moved_away() {
    let group = Group::new();
    let mut command = group.command("tracker");
    command.env("P2PFS_LOG", "p2pfs=trace,debug");
    let here = ["tracker", "--bind", "127.0.0.1", "--port", "0", "-vv"];
    command
        .args(here)
        .args(["--log-file", "t.log", "--log-format", "json"]);
    let mut tracker = group.spawn("tracker", command);
    let line = tracker.wait_for("Tracker listening on ");
    let address = line
        .split(" on ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap();
    let log = group.path("t.log");
    let events = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(!text.contains("zebra"), "no secret");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    };
    let told = |message: &str| {
        events()
            .into_iter()
            .find(|event| event["message"] == message)
    };
    assert_eq!(told("the tracker starts").unwrap()["level"], "INFO");
    assert_eq!(group.once(address, &["peers"]).status.code(), Some(0));
    wait_until("somebody came", || told("peer joined").is_some());
    assert_eq!(told("peer joined").unwrap()["user"], "once");
    assert_eq!(
        std::fs::metadata(&log).unwrap().permissions().mode() & 0o777,
        0o600
    );
    std::fs::rename(&log, group.path("t.log.old")).unwrap();
    // As logrotate may say: it ends nothing, and nothing more is needed.
    tracker.signal(Signal::HUP);
    group.write_private("passphrase", "abandon zebra stable horse battle zoo");
    assert_eq!(group.once(address, &["peers"]).status.code(), Some(3));
    wait_until("it is begun anew", || told("wrong passphrase").is_some());
    let shown = tracker.output();
    assert!(
        !shown.contains("peer joined") && !shown.contains("{"),
        "{shown}"
    );
    assert!(tracker.child.try_wait().unwrap().is_none());
}

/// Shows: a log file that cannot be had stops no command: the log goes to the console, and one line says so.
#[test]
fn a_log_file_that_cannot_be_had_stops_nothing() {
    let group = Group::new();
    group.folder(".config/p2pfs");
    let config = ".config/p2pfs/config.toml";
    group.write_private(config, "[log]\nfile = \"/proc/none/x\"\n");
    let one_line = |args: &[&str], code: i32| {
        let output = group.command("other").args(args).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        let first = said.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("p2pfs: cannot write the log to /proc/none/x: "),
            "{args:?}: {said}"
        );
        assert_eq!(said.lines().count(), 1 + usize::from(code != 0), "{said}");
    };
    one_line(&["config", "get", "log.file"], 0);
    one_line(&["passphrase"], 0);
    one_line(&["status"], 5);
    let mut tracker = group.start(
        "t",
        &["tracker", "-v", "--bind", "127.0.0.1", "--port", "0"],
    );
    tracker.wait_for("cannot write the log");
    tracker.wait_for("the tracker starts");
    // What is set right again is used.
    let fixed = ["config", "set", "log.file", "good.log"];
    let output = group.command("other").args(fixed).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        group
            .command("other")
            .args(["passphrase"])
            .status()
            .unwrap()
            .success()
    );
    assert!(group.path("good.log").exists());
}
