//! Commands without a prompt: through the socket of a running peer, and by a peer of their own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Group, assert_same, names_in, text, wait_until};

/// Runs a command in the state directory of `name`, whose peer is to be asked: without any passphrase.
fn ask(group: &Group, name: &str, args: &[&str]) -> Output {
    let mut command = group.command(&format!("{name}.state"));
    command
        .args(args)
        .env_remove("P2PFS_PASSPHRASE_FILE")
        .stdin(Stdio::null());
    command.output().unwrap()
}

/// The same, which must do well; its standard output.
fn told(group: &Group, name: &str, args: &[&str]) -> String {
    let output = ask(group, name, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    text(&output.stdout)
}

fn objects(output: &str) -> Vec<Value> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

/// Shows: a path that is not there is told before anything is shared or anybody joined, whoever shares; several
/// that are there get one line for others. How: both without a peer that runs, the first also through one.
#[test]
fn a_slip_in_a_path_shares_nothing_of_the_others() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("good one", 10, 1);
    group.file("other", 10, 2);
    let join = ["--tracker", &address, "--port", "0"];
    let slip = |state: &str, tracker: &str| {
        let mut command = group.command(state);
        let share = command.args(["share", "good one", "missing"]).args([
            "--tracker",
            tracker,
            "--port",
            "0",
        ]);
        let output = share.stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{said}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(
            said.lines().count() == 1
                && said.contains("missing: there is no such file; nothing was shared"),
            "{said}"
        );
    };
    slip("alone", "127.0.0.1:1");
    let mut ana = group.peer("ana", &address, &[]);
    slip("ana.state", &address);
    ana.say("add 'good one' missing");
    ana.wait_for("nothing was shared");
    ana.say("list");
    ana.wait_for("You share nothing");
    let mut share = group.start(
        "share",
        &[&["share", "good one", "other"], &join[..]].concat(),
    );
    let line = share.wait_for("Others get it with");
    assert!(
        line.contains("p2pfs get 'good one' other --tracker"),
        "{line}"
    );
    share.signal(Signal::INT);
    assert_eq!(share.exit_within(Duration::from_secs(10)), Some(0));
    assert_eq!(share.output().matches("Others get").count(), 1);
}

/// Shows: whoever asks a running peer reads what a peer of his own would have told: the same text, objects and
/// exit codes. How: each command both ways, the first without a passphrase.
#[test]
fn a_running_peer_answers_as_a_peer_of_its_own_does() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut bob = group.peer("bob", &address, &[]);
    for (name, len) in [
        ("talk.mp4", 3 << 20),
        ("small talk.txt", 10),
        ("other.bin", 7),
    ] {
        group.file(name, len, 1);
        bob.say(&format!("add '{name}'"));
        bob.wait_for("Sharing");
    }
    let _ana = group.peer("ana", &address, &[]);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["search", "TALK"], 0, "small talk.txt"),
        (&["sch", "talk", "--limit", "1"], 0, "1 more"),
        (&["search", "talk", "--ext", "mp4"], 0, "talk.mp4"),
        (&["search", "t", "--min-size", "1MiB"], 0, "talk.mp4"),
        (&["search", "t", "--sort", "size"], 0, "talk.mp4"),
        (&["search", "no such thing"], 5, "nothing matches"),
        (&["list", "bob"], 0, "other.bin"),
        (&["list", "nobody"], 5, "nobody"),
        (&["ls", "--all", "--sort", "size", "--long"], 0, "3145728"),
        (&["files"], 0, "other.bin"),
        (&["info", "talk.mp4"], 0, "BLAKE3"),
        (&["info", "gone"], 5, "nobody shares"),
        (&["list", "a/b"], 2, "a/b"),
    ];
    for (args, code, wanted) in cases {
        for more in [&[][..], &["--json"]] {
            let args = [args, more].concat();
            let through = ask(&group, "ana", &args);
            let alone = group.once(&address, &[&args[..], &["--standalone"]].concat());
            for output in [&through, &alone] {
                assert_eq!(output.status.code(), Some(*code), "{args:?}: {output:?}");
            }
            assert_eq!(text(&through.stdout), text(&alone.stdout), "{args:?}");
            assert_eq!(text(&through.stderr), text(&alone.stderr), "{args:?}");
            let all = [through.stdout, through.stderr].concat();
            if more.is_empty() {
                assert!(text(&all).contains(wanted), "{args:?}: {}", text(&all));
            } else {
                assert!(
                    !objects(text(&alone.stdout).trim_end()).is_empty(),
                    "{args:?}"
                );
            }
        }
    }
    let first = told(&group, "ana", &["search", "t", "--sort", "size"]);
    assert!(
        first.lines().nth(1).unwrap().starts_with("talk.mp4"),
        "{first}"
    );
    // What was searched last through the socket is remembered there, and is not the prompt's.
    told(&group, "ana", &["search", "other"]);
    assert!(told(&group, "ana", &["peers"]).contains("other.bin is at:"));
    assert!(told(&group, "ana", &["peers", "--all"]).contains("ana"));
    assert!(told(&group, "ana", &["lap"]).contains("bob"));
}

#[test]
fn a_running_peer_shares_and_stops_for_those_who_ask() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let file = group.file("files/report.pdf", 1000, 1);
    group.file("files/other.pdf", 1000, 2);
    let shared = told(
        &group,
        "ana",
        &["share", "files/report.pdf", "--as", "r.pdf"],
    );
    assert!(shared.starts_with("Sharing r.pdf, 1000 B, b3:"), "{shared}");
    let list = told(&group, "ana", &["list"]);
    assert!(
        list.contains("r.pdf") && list.contains(file.to_str().unwrap()),
        "{list}"
    );
    assert_eq!(
        objects(&told(&group, "ana", &["lpf", "--json"]))[0]["total"],
        1000
    );
    let partly = ask(&group, "ana", &["add", "files/other.pdf", "/dev/null"]);
    assert_eq!(partly.status.code(), Some(9), "{partly:?}");
    assert!(text(&partly.stderr).contains("/dev/null"));
    let gone = told(
        &group,
        "ana",
        &["unp", "r.pdf", "files/other.pdf", "--json"],
    );
    assert_eq!(objects(&gone)[1]["name"], "other.pdf");
    assert_eq!(
        ask(&group, "ana", &["unshare", "r.pdf"]).status.code(),
        Some(5)
    );
    // For a while: it goes by itself, and the next start does not share it either.
    told(&group, "ana", &["share", "files/report.pdf", "--for", "1h"]);
    told(&group, "ana", &["share", "files/other.pdf", "--for", "1s"]);
    ana.wait_for("other.pdf is not shared any more: its time is over");
    let list = told(&group, "ana", &["list"]);
    assert!(
        list.contains("report.pdf") && !list.contains("other.pdf"),
        "{list}"
    );
    told(&group, "ana", &["share", "files/other.pdf"]);
    ana.end_input();
    assert_eq!(ana.exit_within(Duration::from_secs(10)), Some(0));
    let mut ana = group.peer("ana", &address, &[]);
    ana.wait_for("sharing what was shared before: 1;");
    assert!(told(&group, "ana", &["list"]).contains("other.pdf"));
}

/// Shows: a download that was asked for is the running peer's. It is seen, paused, limited and cancelled from
/// outside, and goes on when the one who waits for it leaves.
#[test]
fn a_running_peer_downloads_for_those_who_ask() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut bob = group.peer("bob", &address, &[]);
    let film = group.file("film.mkv", 16 << 20, 1);
    let song = group.file("song.ogg", 8 << 20, 2);
    for name in ["film.mkv", "song.ogg"] {
        bob.say(&format!("add {name}"));
        bob.wait_for("Sharing");
    }
    let mut ana = group.peer("ana", &address, &["--down-limit", "512KiB"]);
    assert!(told(&group, "ana", &["transfers"]).contains("Nothing is being"));
    let (here, there) = (group.folder("here"), group.folder("there"));
    let get = |name: &str, dir: &std::path::Path| {
        let mut command = group.command("ana.state");
        command.args(["get", name, "--out", dir.to_str().unwrap()]);
        command.env_remove("P2PFS_PASSPHRASE_FILE");
        group.spawn(&format!("get-{name}"), command)
    };
    let mut waiting = get("film.mkv", &here);
    let of = |name: &str| {
        let all = objects(&told(&group, "ana", &["transfers", "--json"]));
        all.into_iter().find(|one| one["name"] == name)
    };
    wait_until("it has begun", || {
        of("film.mkv").is_some_and(|one| one["done"].as_u64() > Some(0))
    });
    let number = of("film.mkv").unwrap()["no"].to_string();
    waiting.signal(Signal::INT);
    assert_eq!(waiting.exit_within(Duration::from_secs(5)), Some(130));
    assert!(
        waiting.output().contains("goes on with it"),
        "{}",
        waiting.output()
    );
    assert!(told(&group, "ana", &["pause"]).contains(&format!("Paused {number}, film.mkv")));
    wait_until("it is paused", || {
        of("film.mkv").unwrap()["state"] == "paused"
    });
    assert_eq!(
        told(&group, "ana", &["resume", &number]),
        format!("Resumed {number}, film.mkv\n")
    );
    // Who waits for what somebody else cancels is told so.
    let mut second = get("song.ogg", &there);
    wait_until("the other has begun", || of("song.ogg").is_some());
    let other = of("song.ogg").unwrap()["no"].to_string();
    let limits = told(&group, "ana", &["limit", "--json"]);
    assert_eq!(objects(&limits)[0]["down"], 512 << 10);
    let cancelled = told(&group, "ana", &["cancel", &other, "--json"]);
    assert_eq!(objects(&cancelled)[0]["command"], "cancel");
    assert_eq!(second.exit_within(Duration::from_secs(10)), Some(130));
    assert!(
        second.output().contains("song.ogg: cancelled"),
        "{}",
        second.output()
    );
    assert!(told(&group, "ana", &["limit", "down", "off"]).contains("downloads: no limit"));
    ana.wait_for("Download successful: film.mkv");
    assert_same(&film, &here.join("downloaded_film.mkv"), 16 << 20);
    assert!(told(&group, "ana", &["transfers", "--watch"]).contains("Nothing is being"));
    // To its end, and everything that fits: only what is not here comes.
    let all = ask(
        &group,
        "ana",
        &["get", "g", "--all-matching", "--json", "-o", "there"],
    );
    assert_eq!(all.status.code(), Some(0), "{all:?}");
    let result = objects(&text(&all.stdout)).pop().unwrap();
    assert_eq!(result["files"][0]["name"], "song.ogg");
    assert_eq!(result["files"].as_array().unwrap().len(), 1);
    assert_same(&song, &there.join("downloaded_song.ogg"), 8 << 20);
    assert_eq!(
        names_in(&there),
        ["downloaded_song.ogg"],
        "what was cancelled left nothing"
    );
    assert_eq!(
        ask(&group, "ana", &["get", "--id", "film.mkv"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn what_only_a_running_peer_can_do_needs_one() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let lines: &[&[&str]] = &[
        &["transfers"],
        &["transfers", "--watch"],
        &["pause"],
        &["resume"],
        &["cancel", "1"],
        &["limit"],
        &["unshare", "x"],
    ];
    let none = |wanted: &str| {
        for line in lines {
            let output = ask(&group, "ana", line);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(5), "{line:?}: {said}");
            assert!(said.lines().count() == 1 && said.contains(wanted), "{said}");
        }
    };
    none("no peer runs with");
    // What has one thing to do takes no commands: others go on without it.
    let mut share = group.start(
        "ana.state",
        &[
            "share",
            "passphrase",
            "--as",
            "p",
            "--tracker",
            &address,
            "--port",
            "0",
        ],
    );
    share.wait_for("Others get it with");
    none("no peer runs with");
    let mut beside = group.command("ana.state");
    let join = ["--tracker", &address, "--port", "0"];
    let output = beside.args(["search", "p"]).args(join).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    share.signal(Signal::INT);
    assert_eq!(share.exit_within(Duration::from_secs(10)), Some(0));
    // Another tracker than the one that the peer has joined is no question for it.
    let _ana = group.peer("ana", &address, &[]);
    let other = ask(&group, "ana", &["search", "p", "--tracker", "127.0.0.1:1"]);
    assert_eq!(other.status.code(), Some(2), "{other:?}");
    assert!(text(&other.stderr).contains("--standalone"), "{other:?}");
    let localhost = address.replace("127.0.0.1", "localhost");
    for same in [&address, &localhost] {
        let code = ask(&group, "ana", &["search", "p", "--tracker", same])
            .status
            .code();
        assert_eq!(code, Some(5), "{same} is the same");
    }
    let other = ask(&group, "ana", &["search", "p", "--network", "friends"]);
    assert_eq!(other.status.code(), Some(2), "{other:?}");
}

#[test]
fn one_file_goes_to_standard_output_and_nothing_of_it_stays() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut bob = group.peer("bob", &address, &[]);
    let file = group.file("talk.mp4", 3 << 20, 1);
    group.file("folder/x", 3, 1);
    for name in ["talk.mp4", "folder"] {
        bob.say(&format!("add {name}"));
        bob.wait_for("Sharing");
    }
    let out = group.folder("out");
    let get = |args: &[&str]| {
        let base = ["get", "--stdout", "--out", out.to_str().unwrap()];
        group.once(&address, &[&base[..], args].concat())
    };
    let got = get(&["talk.mp4"]);
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert!(
        got.stdout == fs::read(file).unwrap(),
        "{} bytes",
        got.stdout.len()
    );
    assert!(text(&got.stderr).contains("Download successful"));
    for (args, code) in [
        (&["folder"][..], 2),
        (&["talk.mp4", "--json"], 2),
        (&["talk.mp4", "folder"], 2),
        (&["gone"], 5),
    ] {
        let got = get(args);
        assert_eq!(got.status.code(), Some(code), "{args:?}: {got:?}");
    }
    assert_eq!(names_in(&out), Vec::<String>::new());
}

/// Shows: of several that are there and of which one cannot be shared, the output says in this order what is
/// shared, what is not, and what the end is; exit code 9. How: without a peer that runs.
#[test]
fn a_share_that_fails_in_part_says_what_is_and_what_is_not() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("good", 10, 1);
    let join = ["--tracker", &address, "--port", "0", "--bind", "127.0.0.1"];
    let args = [&["share", "good", "/dev/null"], &join[..]].concat();
    let mut share = group.start("share", &args);
    let code = share.exit_within(crate::support::PATIENCE);
    let output = share.output();
    assert_eq!(code, Some(9), "{output}");
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert!(lines[0].starts_with("Sharing good"), "{output}");
    assert!(lines[1].starts_with("p2pfs: cannot share /dev/null: "));
    assert!(lines[2].starts_with("p2pfs: 1 of 2 failed; the others are not"));
}

/// Shows: whatever comes through the socket, nothing of it acts on the terminal of the one who asks: root may ask the
/// peer of anybody. How: somebody else listens there, and answers with escapes.
#[test]
fn what_comes_through_a_socket_is_shown_harmlessly() {
    let group = Group::new();
    let dir = group.folder("ana.state/peer");
    let socket = UnixListener::bind(dir.join("control.sock")).unwrap();
    let evil = "x\u{1b}]0;title\u{7}\r\u{9b}2J\u{202e}y";
    let line = |kind: &str, more: Value| {
        let mut line = serde_json::json!({"v": 1, "type": kind});
        let more = more.as_object().unwrap().clone();
        line.as_object_mut().unwrap().extend(more);
        format!("{line}\n")
    };
    let said = line("out", serde_json::json!({"text": evil}))
        + &line("err", serde_json::json!({"text": evil}))
        + &line(
            "tracker",
            serde_json::json!({"role": "peer", "user": evil, "port": evil}),
        )
        + &line(
            "end",
            serde_json::json!({"code": 5, "message": evil, "hint": evil}),
        );
    std::thread::spawn(move || {
        while let Ok((stream, _)) = socket.accept() {
            let mut question = String::new();
            let _ = BufReader::new(&stream).read_line(&mut question);
            let _ = (&stream).write_all(said.as_bytes());
        }
    });
    for args in [
        &["search", "x"][..],
        &["search", "x", "--json"],
        &["transfers"],
        &["transfers", "--watch"],
        &["status"],
        &["status", "--json"],
        &["doctor", "--no-input"],
    ] {
        let output = ask(&group, "ana", args);
        let all = text(&[&output.stdout[..], &output.stderr].concat());
        assert!(all.contains("title"), "{args:?}: {all:?}");
        let acts = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!all.contains(acts), "{args:?}: {all:?}");
        if args.contains(&"--json") {
            let last = text(&output.stdout).lines().last().unwrap().to_owned();
            objects(&last);
        }
    }
}
