//! How it starts, and what it says when it cannot. The numbers are rows of `docs/bad-inputs.md`.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::terminal::Terminal;
use crate::support::{Group, PASSPHRASE, text};

/// One line on stderr that begins with `p2pfs: `, and this exit code.
fn assert_one_line(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("p2pfs: "), "{said}");
    assert!(!said.contains('\x1b'), "{said:?}");
    for word in words {
        assert!(said.contains(word), "\"{word}\" is missing in: {said}");
    }
}

#[test]
fn row_1_without_terminal_and_passphrase_it_ends_at_once() {
    let group = Group::new();
    for args in [
        &["tracker"][..],
        &["peer", "--tracker", "127.0.0.1"],
        &["search", "x", "--tracker", "h"],
    ] {
        let mut command = group.command("s");
        let output = command
            .args(args)
            .env_remove("P2PFS_PASSPHRASE_FILE")
            .stdin(Stdio::null())
            .output();
        let ways = ["--passphrase-file", "P2PFS_PASSPHRASE", "terminal"];
        assert_one_line(&output.unwrap(), 2, &ways);
    }
    let output = group.command("s").stdin(Stdio::null()).output().unwrap();
    assert_one_line(&output, 2, &["p2pfs peer --tracker"]);
}

#[test]
fn row_2_a_full_or_closed_output_is_no_panic() {
    let group = Group::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = group
        .command("s")
        .args(["passphrase"])
        .stdout(full)
        .output()
        .unwrap();
    assert_one_line(&output, 8, &["standard output"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = group
        .command("s")
        .args(["help", "json"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

#[test]
fn row_3_no_argument_is_a_secret() {
    let group = Group::new();
    let output = group
        .command("s")
        .args(["tracker", "--passphrase", "x"])
        .output()
        .unwrap();
    assert_one_line(&output, 2, &["--passphrase-file"]);
    let mut command = group.command("s");
    let output = command
        .args(["tracker", "--help"])
        .env("P2PFS_PASSPHRASE", PASSPHRASE)
        .output()
        .unwrap();
    assert!(output.status.success() && !text(&output.stdout).contains("zebra"));
}

#[test]
fn row_4_slips_in_arguments_are_named() {
    let group = Group::new();
    for (args, words) in [
        (&["trakcer"][..], &["tracker"][..]),
        (&["tracker", "--prot", "1"], &["--port"]),
        (&["tracker", "--port", "65536"], &["65536"]),
        (&["tracker", "--port", "-1"], &["-1"]),
        (&["tracker", "--port", "abc"], &["abc"]),
        (&["tracker", "--port"], &["--port"]),
        (&["tracker", "--heartbeat", "soon"], &["soon"]),
        (
            &["tracker", "--heartbeat", "5s", "--timeout", "1s"],
            &["--timeout"],
        ),
        (&["search"], &["TEXT"]),
        (&["peer", "--tracker", "a b"], &["a b"]),
        (&["peer"], &["--tracker"]),
        (
            &["get", "x", "--tracker", "h", "--tracker-key", "zz"],
            &["key print"],
        ),
        (&["peer", "--tracker", "h", "--name", "a/b"], &["a/b"]),
        (&["help", "exit-kodes"], &["exit-kodes"]),
        (&["peer", "--tracker", ""], &["--tracker"]),
        (&["peer", "--tracker", "h:70000"], &["h:70000"]),
        (&["peer", "-t", "h", "--tracker", "h"], &["--tracker"]),
        (&["peer", "-t", "h", "--port", "9-3"], &["9-3"]),
        (&["peer", "-t", "h", "--port", "65536"], &["65536"]),
        (&["peer", "-t", "h", "--bind", "x"], &["x"]),
        (&["peer", "-t", "h", "--login", "a/b"], &["a/b"]),
        (&["peer", "-t", "h", "--up-limit", "fast"], &["fast"]),
        (&["peer", "-t", "h", "--down-limit", "1"], &["16"]),
        (
            &["peer", "-t", "h", "--password-file", "absent"],
            &["absent"],
        ),
        (&["peer", "-t", "h", "--network", "A b"], &["A b"]),
        (&["peer", "-t", "h", "--config", "absent"], &["absent"]),
        (
            &["peer", "-t", "h", "--passphrase-file", "absent"],
            &["absent"],
        ),
        (&["tracker", "--workers", "-1"], &["-1"]),
        (&["tracker", "--workers", "many"], &["many"]),
        (&["tracker", "--max-peers", "all"], &["all"]),
        (&["tracker", "--heartbeat", "0s"], &["--heartbeat"]),
        (&["tracker", "--timeout", "1h"], &["--timeout"]),
        (&["tracker", "--metrics", "x"], &["x"]),
        (&["tracker", "--bind", "::1::"], &["::1::"]),
        (&["tracker", "--credentials"], &["--credentials"]),
        (&["search", "x", "--limit", "-3"], &["-3"]),
        (&["passphrase", "--words", "3"], &["3"]),
        (&["passphrase", "--words", "25"], &["25"]),
        (&["passphrase", "chekc"], &["check"]),
        (&["completions", "tcsh"], &["tcsh"]),
        (&["user", "add", "a/b"], &["a/b"]),
        (&["user", "ad", "ana"], &["add"]),
        (&["get"], &["NAME"]),
        (&["share"], &["PATH"]),
        (&["man"], &["DIR"]),
        (&["tracker", "\u{1b}[31m\nx"], &["unexpected"]),
        (&["--color", "always"], &["--color"]),
    ] {
        let output = group
            .command("s")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_one_line(&output, 2, words);
    }
}

#[test]
fn a_variable_that_is_set_to_nothing_counts_as_unset() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.folder(".config/p2pfs");
    let settings = format!("[tracker]\naddress = \"{address}\"\n[peer]\nname = \"ana\"\n");
    group.write_private(".config/p2pfs/config.toml", &settings);
    let mut command = group.command("s");
    for key in [
        "CONFIG",
        "STATE_DIR",
        "NETWORK",
        "TRACKER",
        "NAME",
        "PORT",
        "BIND",
        "OUT",
        "NO_INPUT",
        "LOG",
        "PASSPHRASE_FILE",
    ] {
        command.env(format!("P2PFS_{key}"), "");
    }
    let output = command
        .args(["peer", "--command", "id"])
        .env("P2PFS_PASSPHRASE", PASSPHRASE)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("you      ana "), "{output:?}");
    let output = group
        .command("s")
        .args(["tracker", "--port", "0"])
        .env("P2PFS_PORT", "")
        .env("P2PFS_PASSPHRASE", "")
        .env_remove("P2PFS_PASSPHRASE_FILE")
        .stdin(Stdio::null())
        .output();
    assert_one_line(&output.unwrap(), 2, &["no passphrase"]);
}

#[test]
fn row_5_bytes_that_are_no_text_and_no_home() {
    let group = Group::new();
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let commands = [
        "tracker",
        "peer",
        "share",
        "get",
        "search",
        "list",
        "files",
        "peers",
        "info",
        "status",
        "passphrase",
        "user",
        "demo",
        "completions",
        "man",
        "help",
        "--config",
        "--passphrase-file",
        "-c",
    ];
    for command in commands {
        let mut odd_one = group.command("s");
        let output = odd_one
            .args([command.as_ref(), odd])
            .env("P2PFS_TRACKER", "127.0.0.1:1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        let code = output.status.code();
        assert!(
            matches!(code, Some(2 | 4 | 8)),
            "{command}: {code:?} {said}"
        );
        assert_eq!(said.lines().count(), 1, "{command}: {said}");
    }
    let mut command = group.command("s");
    command
        .env_remove("HOME")
        .env_remove("P2PFS_STATE_DIR")
        .env("P2PFS_NAME", odd);
    let output = command
        .args(["search", "x", "--tracker", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(matches!(output.status.code(), Some(2 | 4)), "{output:?}");
    let (_tracker, address) = group.tracker();
    let mut command = group.command("s");
    command.env_remove("HOME").env_remove("P2PFS_STATE_DIR");
    let output = command
        .args(["peers", "--tracker", &address, "--port", "0"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn row_6_a_broken_configuration_is_named_with_its_line() {
    let group = Group::new();
    let config = group.write_private("c.toml", "[tracker]\nprot = 9000\n");
    let args = ["tracker", "--config", config.to_str().unwrap()];
    assert_one_line(
        &group.command("s").args(args).output().unwrap(),
        2,
        &["c.toml:2", "port"],
    );
    let args = ["tracker", "--config", group.dir.path().to_str().unwrap()];
    assert_one_line(
        &group.command("s").args(args).output().unwrap(),
        2,
        &["not a configuration file"],
    );
    // Sparse: it costs nothing to have, and must cost nothing to look at.
    let huge = fs::File::create(group.path("huge.toml")).unwrap();
    huge.set_len(1 << 30).unwrap();
    let args = ["tracker", "--config", "huge.toml"];
    let output = group.command("s").args(args).output().unwrap();
    assert_one_line(&output, 2, &["huge.toml", "not a configuration file"]);
}

#[test]
fn row_7_a_port_in_use_is_a_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let port = address.rsplit(':').next().unwrap();
    let args = ["tracker", "--bind", "127.0.0.1", "--port", port];
    let output = group.command("other").args(args).output().unwrap();
    assert_one_line(&output, 4, &[port, "in use", "--port"]);
    let args = [
        "peer",
        "--tracker",
        &address,
        "--bind",
        "127.0.0.1",
        "--port",
        port,
    ];
    let output = group
        .command("peer")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_one_line(&output, 4, &[port, "in use"]);
}

#[test]
fn row_8_a_second_program_on_the_same_state_is_told_so() {
    let group = Group::new();
    let (tracker, _address) = group.tracker();
    let args = ["tracker", "--bind", "127.0.0.1", "--port", "0"];
    let output = group.command("tracker").args(args).output().unwrap();
    assert_one_line(
        &output,
        10,
        &[&format!("pid {}", tracker.pid()), "--state-dir"],
    );
}

#[test]
fn row_9_a_key_file_that_is_not_right_is_never_replaced() {
    let group = Group::new();
    drop(group.tracker());
    let key = group.path("tracker/tracker/identity.key");
    let good = fs::read(&key).unwrap();
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let start = || start_tracker(&group);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_one_line(&start(), 8, &["chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    for damaged in [&b""[..], &good[..31]] {
        fs::write(&key, damaged).unwrap();
        assert_one_line(&start(), 8, &["damaged"]);
        assert_eq!(fs::read(&key).unwrap(), damaged);
    }
}

/// A tracker that does not start, to its end.
fn start_tracker(group: &Group) -> Output {
    let args = ["tracker", "--bind", "127.0.0.1", "--port", "0"];
    let mut command = group.command("tracker");
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn row_11_weak_empty_and_mistyped_passphrases() {
    let group = Group::new();
    let start = |passphrase: &str| {
        group.write_private("passphrase", passphrase);
        start_tracker(&group)
    };
    assert_one_line(&start(""), 2, &["empty"]);
    assert_one_line(
        &start("password"),
        2,
        &["can be guessed", "--allow-weak-passphrase"],
    );
    assert_one_line(
        &start("zebra abandon stbale horse battle zoo"),
        2,
        &["\"stbale\"", "\"stable\""],
    );
    assert_one_line(&start("a\tb"), 2, &["control character"]);
}

#[test]
fn row_12_a_signal_ends_it_in_time() {
    let group = Group::new();
    let (mut tracker, address) = group.tracker();
    let mut peer = group.peer("ana", &address, &[]);
    let mut watcher = group.peer("bob", &address, &[]);
    peer.signal(rustix::process::Signal::INT);
    assert_eq!(peer.exit_within(Duration::from_secs(5)), Some(0));
    watcher.say("lap");
    watcher.wait_for("bob");
    assert!(
        !watcher.output().contains("ana "),
        "the tracker knows at once:\n{}",
        watcher.output()
    );
    tracker.signal(rustix::process::Signal::TERM);
    assert_eq!(tracker.exit_within(Duration::from_secs(5)), Some(0));
}

#[test]
fn row_16_a_wrong_passphrase_is_one_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.write_private("passphrase", "abandon zebra stable horse battle zoo");
    let output = group.once(&address, &["search", "x"]);
    assert_one_line(&output, 3, &["does not accept this passphrase", &address]);
}

#[test]
fn an_absent_tracker_is_one_line_within_ten_seconds() {
    let group = Group::new();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for address in [
        closed.to_string(),
        mute.local_addr().unwrap().to_string(),
        "nowhere.invalid:1".into(),
    ] {
        let started = Instant::now();
        let output = group.once(&address, &["search", "x"]);
        assert_one_line(&output, 4, &[&address]);
        assert!(started.elapsed() < Duration::from_secs(10), "{address}");
    }
}

#[test]
fn another_tracker_under_a_known_address_is_refused() {
    let group = Group::new();
    let (mut tracker, address) = group.tracker();
    assert!(group.once(&address, &["peers"]).status.success());
    // What cannot be read is no fault of the tracker's.
    let known = group.path("once/peer/known_trackers");
    let kept = known.with_extension("kept");
    fs::rename(&known, &kept).unwrap();
    fs::create_dir(&known).unwrap();
    let output = group.once(&address, &["peers"]);
    assert_one_line(&output, 8, &["known_trackers is not a file of p2pfs"]);
    fs::remove_dir(&known).unwrap();
    fs::rename(&kept, &known).unwrap();
    tracker.kill();
    fs::remove_dir_all(group.path("tracker/tracker")).unwrap();
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    let (mut tracker, _) = group.tracker_on(port);
    let output = group.once(&address, &["peers"]);
    assert_one_line(&output, 3, &["has the key", "expected", "known_trackers"]);
    let join = tracker.wait_for("Others join with:");
    let key = join.rsplit(' ').next().unwrap();
    assert!(
        group
            .once(&address, &["peers", "--tracker-key", key])
            .status
            .success(),
        "a typed key outranks it"
    );
    let wrong = "aaaa-aaaa-aaaa-aaaa";
    assert_one_line(
        &group.once(&address, &["peers", "--tracker-key", wrong]),
        3,
        &[wrong],
    );
}

#[test]
fn the_join_line_works_when_it_is_pasted() {
    let group = Group::new();
    let (mut tracker, _address) = group.tracker();
    let line = tracker.wait_for("Others join with:");
    let words: Vec<_> = line.split("p2pfs ").nth(1).unwrap().split(' ').collect();
    let mut peer = group.start("pasted", &[&words[..], &["--port", "0"]].concat());
    peer.wait_for("Joined ");
}

#[test]
fn the_join_line_can_be_a_qr_code_where_there_is_room() {
    let group = Group::new();
    let args = ["tracker", "--bind", "127.0.0.1", "--port", "0", "--qr"];
    let mut tracker = group.start("wide", &args);
    tracker.wait_for("Its key");
    let output = tracker.output();
    let drawn = output.lines().filter(|line| line.contains('█')).count();
    assert!(drawn > 15 && !output.contains('\u{1b}'), "{output}");
    let more = [("P2PFS_PASSPHRASE", PASSPHRASE)];
    // On a terminal it has colours of its own: black on white, whatever the terminal's are.
    let mut terminal = Terminal::start_in(&group, "coloured", &args, &more);
    terminal.wait_for("\u{1b}[38;5;16;48;5;231m");
    terminal.wait_for("Its key");
    let waiting = ["sh", "-c", r#"read go; exec "$@""#, "sh"];
    let mut narrow = group.command_under("narrow", &waiting);
    narrow.args(args).env("P2PFS_PASSPHRASE", PASSPHRASE);
    let mut narrow = Terminal::run(narrow);
    narrow.set_width(30);
    narrow.type_line("");
    narrow.wait_for("columns, and the terminal ");
    narrow.wait_for("Its key");
    assert!(!narrow.shown().contains('█'));
}

#[test]
fn the_passphrase_is_nowhere_to_be_found() {
    let group = Group::new();
    let mut command = group.command("tracker");
    command
        .args(["tracker", "--bind", "127.0.0.1", "--port", "0", "-vv"])
        .env("P2PFS_LOG", "trace");
    let mut tracker = group.spawn("tracker", command);
    let address = tracker
        .wait_for("listening on ")
        .split(" on ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .to_owned();
    let peer = group.peer("ana", &address, &["-vv"]);
    for process in [&tracker, &peer] {
        let arguments = fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap();
        assert!(!text(&arguments).contains("zebra"));
        assert!(!process.output().contains("zebra"), "in the log");
    }
    let mut searched = 0;
    let mut folders = vec![group.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file() && entry.file_name() != "passphrase" {
                searched += 1;
                assert!(
                    !text(&fs::read(entry.path()).unwrap()).contains("zebra"),
                    "{}",
                    entry.path().display()
                );
            }
        }
    }
    assert!(searched >= 6, "keys, locks, logs, pins");
}

#[test]
fn objects_for_scripts_are_one_a_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("a.txt", 10, 1);
    let mut ana = group.peer("ana", &address, &[]);
    ana.say("add a.txt");
    ana.wait_for("Sharing");
    let objects = |output: &Output| -> Vec<serde_json::Value> {
        text(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    };
    let found = objects(&group.once(&address, &["search", "A.T", "--json"]));
    assert_eq!(
        (found[0]["v"].as_u64(), found[0]["type"].as_str()),
        (Some(1), Some("file"))
    );
    assert_eq!(
        (found[0]["name"].as_str(), found[0]["size"].as_u64()),
        (Some("a.txt"), Some(10))
    );
    assert_eq!(found[0]["peers"][0], "ana");
    let out = group.folder("out");
    let got = objects(&group.once(
        &address,
        &["get", "a.txt", "--json", "--out", out.to_str().unwrap()],
    ));
    let last = got.last().unwrap();
    assert_eq!(
        (last["type"].as_str(), last["ok"].as_bool()),
        (Some("result"), Some(true))
    );
    let failed = group.once(&address, &["search", "zzz", "--json"]);
    let last = objects(&failed).pop().unwrap();
    assert_eq!(
        (last["type"].as_str(), last["code"].as_u64()),
        (Some("error"), Some(5))
    );
    assert_eq!(failed.status.code(), Some(5));
}

#[test]
fn a_setting_is_told_with_who_said_it() {
    let group = Group::new();
    group.folder(".config/p2pfs");
    group.write_private(
        ".config/p2pfs/config.toml",
        "[peer]\nname = \"ana\"\nport = \"0\"\n",
    );
    let over = group.write_private("over.toml", "[peer]\nname = \"bob\"\n");
    let over = over.to_str().unwrap();
    let show = |args: &[&str]| {
        let mut command = group.command("s");
        command
            .args(args)
            .env("P2PFS_OUT", "/there")
            .env("P2PFS_NETWORK", "others");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        text(&output.stdout)
    };
    let all = show(&[
        "config",
        "show",
        "--origin",
        "--config",
        over,
        "--network",
        "friends",
    ]);
    for (start, end) in [
        ("name = \"bob\"", "over.toml"),
        ("port = \"0\"", ".config/p2pfs/config.toml"),
        ("downloads = \"/there\"", "# $P2PFS_OUT"),
        ("network = \"friends\"", "# --network"),
        ("heartbeat = \"2s\"", "# default"),
    ] {
        let line = all.lines().find(|line| line.starts_with(start));
        assert!(
            line.is_some_and(|line| line.ends_with(end)),
            "{start} … {end} in\n{all}"
        );
    }
    // What is shown can be used as a file.
    let shown = show(&["config", "show"]);
    let copy = group.write_private("copy.toml", &shown);
    assert_eq!(
        show(&["config", "show", "-C", copy.to_str().unwrap()]),
        shown
    );
    assert_eq!(show(&["config", "get", "peer.name", "-C", over]), "bob\n");
    assert_eq!(show(&["config", "path", "-C", over]), format!("{over}\n"));
    show(&["config", "set", "limits.up", "5MiB"]);
    assert_eq!(show(&["config", "get", "limits.up"]), "5MiB\n");
    let slip = group
        .command("s")
        .args(["config", "get", "limits.op"])
        .output();
    assert_one_line(&slip.unwrap(), 2, &["limits.up"]);
}
