//! Locked files: shared and downloaded, opened with the right password alone, and by age as well.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::terminal::Terminal;
use crate::support::{
    Group, Process, assert_same, joining, names_in, need, only_fetching, text, wait_until,
};

/// Stands in the plain files, and nowhere else.
const MARK: &str = "plain-text-that-nobody-may-see";

/// A group with a tracker, a file with the mark, and files with the right and a wrong password.
fn world() -> (Group, Process, String) {
    let group = Group::new();
    let (tracker, address) = group.tracker();
    fs::write(group.path("x.txt"), MARK.repeat(3000)).unwrap();
    group.write_private("right", "open sesame\n");
    group.write_private("wrong", "open barley\n");
    (group, tracker, address)
}

fn run(group: &Group, state: &str, args: &[&str]) -> Output {
    let mut command = group.command(state);
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

/// `p2pfs get` by somebody who shares nothing, into a folder of this name.
fn get(group: &Group, address: &str, out: &str, more: &[&str]) -> Output {
    let dir = group.folder(out);
    let args = [&["get"][..], more, &only_fetching(address, out, &dir)].concat();
    run(group, &format!("{out}.state"), &args)
}

fn unlock(group: &Group, file: &Path, password: &str) -> Output {
    let file = file.to_str().unwrap();
    run(group, "u", &["unlock", file, "--password-file", password])
}

/// Ana shares x.txt with a lock.
fn ana(group: &Group, address: &str) -> Process {
    let mut ana = group.peer("ana", address, &[]);
    ana.say("add x.txt --lock --lock-password-file right");
    let line = ana.wait_for("Sharing x.txt");
    assert!(line.contains("KiB, locked, b3:"), "{line}");
    ana
}

fn copies(group: &Group) -> PathBuf {
    group.path("ana.state/peer/locked")
}

/// Files below `dir` in which the mark stands.
fn marked(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = left.pop() {
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            let mark = MARK.as_bytes();
            if bytes.windows(mark.len()).any(|part| part == mark) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn objects(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn rows_89_and_92_a_locked_file_comes_out_with_its_password_alone() {
    let (group, _tracker, address) = world();
    let _ana = ana(&group, &address);
    group.write_private("empty", "\n");
    for (password, left) in [("wrong", &["downloaded_x.txt.age"][..]), ("empty", &[])] {
        let out = format!("{password}.out");
        let more = ["x.txt", "--lock-password-file", password];
        let output = get(&group, &address, &out, &more);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("password"), "{said}");
        assert_eq!(names_in(&group.path(&out)), left);
    }
    // Nobody can be asked: it stays as it came, and a line says what to do with it.
    let output = get(&group, &address, "later", &["x.txt", "--no-input"]);
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains("p2pfs unlock ") && said.contains("age -d"),
        "{said}"
    );
    let locked = group.path("later/downloaded_x.txt.age");
    assert_eq!(
        marked(group.dir.path()),
        [group.path("x.txt")],
        "nothing is open yet"
    );

    let output = unlock(&group, &locked, "wrong");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(
        text(&output.stderr).contains("wrong password"),
        "{output:?}"
    );
    let output = unlock(&group, &locked, "right");
    assert!(output.status.success(), "{output:?}");
    let len = fs::metadata(group.path("x.txt")).unwrap().len();
    assert_same(
        &group.path("x.txt"),
        &group.path("later/downloaded_x.txt"),
        len,
    );
    assert!(locked.exists(), "what somebody names is his own");

    let output = get(
        &group,
        &address,
        "right.out",
        &["x.txt", "--lock-password-file", "right", "--json"],
    );
    assert!(output.status.success(), "{output:?}");
    let out = group.path("right.out");
    assert_eq!(names_in(&out), ["downloaded_x.txt"]);
    assert_same(&group.path("x.txt"), &out.join("downloaded_x.txt"), len);
    let told = objects(&output);
    let opened = told
        .iter()
        .find(|object| object["command"] == "unlock")
        .unwrap();
    assert_eq!(opened["size"], len, "{opened}");
    for command in ["search", "files"] {
        let what = if command == "search" {
            "x.txt"
        } else {
            "--long"
        };
        let output = group.once(&address, &[command, "--json", what]);
        let found = objects(&output);
        assert_eq!(found[0]["locked"], true, "{found:?}");
        let output = group.once(&address, &[command, what]);
        assert!(text(&output.stdout).contains(", locked"), "{output:?}");
    }
}

#[test]
fn a_locked_file_goes_to_standard_output_once_all_of_it_was_found_right() {
    let (group, _tracker, address) = world();
    let _ana = ana(&group, &address);
    let output = group.once(
        &address,
        &["get", "x.txt", "--stdout", "--lock-password-file", "right"],
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, fs::read(group.path("x.txt")).unwrap());
    let output = group.once(
        &address,
        &["get", "x.txt", "--stdout", "--lock-password-file", "wrong"],
    );
    assert_eq!((output.status.code(), output.stdout.len()), (Some(7), 0));
    // Without a password it is for age.
    let output = group.once(&address, &["get", "x.txt", "--stdout"]);
    assert!(output.stdout.starts_with(b"age-encryption.org/v1\n"));
}

#[test]
fn a_running_peer_never_sees_the_password_of_a_command() {
    let (group, _tracker, address) = world();
    let mut ana = group.peer("ana", &address, &[]);
    let share = ["share", "x.txt", "--lock", "--lock-password-file", "right"];
    let output = run(&group, "ana.state", &share);
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains(", locked, "), "{output:?}");
    assert_eq!(names_in(&copies(&group)).len(), 1);
    // The same once more: the older copy is gone, and there is one hit.
    assert!(run(&group, "ana.state", &share).status.success());
    assert_eq!(names_in(&copies(&group)).len(), 1);
    let bob_out = group.folder("bob");
    let mut bob = group.peer("bob", &address, &[]);
    let out = bob_out.to_str().unwrap();
    let args = [
        "get",
        "x.txt",
        "--out",
        out,
        "--lock-password-file",
        "right",
    ];
    let output = run(&group, "bob.state", &args);
    assert!(output.status.success(), "{output:?}");
    // It is shared on in its locked form, so that stays.
    assert_eq!(
        names_in(&bob_out),
        ["downloaded_x.txt", "downloaded_x.txt.age"]
    );
    let found = group.once(&address, &["search", "x.txt", "--json"]);
    let found = objects(&found);
    assert_eq!(
        (found.len(), &found[0]["holders"]),
        (1, &2.into()),
        "{found:?}"
    );
    assert_eq!(marked(&group.path("bob.state")), Vec::<PathBuf>::new());
    for peer in [&mut ana, &mut bob] {
        peer.say("quit");
        assert_eq!(peer.exit_within(Duration::from_secs(10)), Some(0));
    }
}

#[test]
fn a_copy_that_the_running_peer_does_not_share_is_gone() {
    let (group, _tracker, address) = world();
    let mut peer = group.peer("ana", &address, &[]);
    fs::write(group.path("more.txt"), "more").unwrap();
    let args = [
        "share",
        "more.txt",
        "--lock",
        "--lock-password-file",
        "right",
        "--for",
    ];
    let output = run(&group, "ana.state", &[&args[..], &["nobody-here"]].concat());
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(names_in(&copies(&group)).len(), 0, "{output:?}");
    peer.say("quit");
    assert_eq!(peer.exit_within(Duration::from_secs(10)), Some(0));
}

#[test]
fn a_locked_share_is_back_at_the_next_start_and_its_copy_goes_with_it() {
    let (group, _tracker, address) = world();
    let mut first = ana(&group, &address);
    // A folder, and a file that is shared plain: what is locked takes its place.
    first.say("add x.txt --as y.txt");
    first.wait_for("Sharing y.txt");
    first.say("add x.txt --as y.txt --lock --lock-password-file right");
    first.wait_for("Sharing y.txt");
    let found = objects(&group.once(&address, &["search", "y.txt", "--json"]));
    assert_eq!(
        (found.len(), &found[0]["locked"]),
        (1, &true.into()),
        "{found:?}"
    );
    group.folder("some");
    first.say("add some --lock --lock-password-file right");
    first.wait_for("is a folder: a lock is for files");
    first.say("add x.txt --lock");
    first.wait_for("no password for the lock");
    assert_eq!(names_in(&copies(&group)).len(), 2);
    let mode = copies(&group).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    first.say("quit");
    assert_eq!(first.exit_within(Duration::from_secs(10)), Some(0));

    fs::write(
        copies(&group).join("00.age"),
        "left by somebody who was killed",
    )
    .unwrap();
    fs::remove_file(group.path("x.txt")).unwrap();
    let mut again = group.peer("ana", &address, &[]);
    again.wait_for("sharing what was shared before: 2");
    assert_eq!(names_in(&copies(&group)).len(), 2, "the orphan is gone");
    let output = get(
        &group,
        &address,
        "bob",
        &["x.txt", "--lock-password-file", "right"],
    );
    assert!(output.status.success(), "{output:?}");
    let opened = fs::read_to_string(group.path("bob/downloaded_x.txt")).unwrap();
    assert_eq!(opened, MARK.repeat(3000));
    for name in ["x.txt", "y.txt"] {
        again.say(&format!("remove {name}"));
        again.wait_for("Not sharing");
    }
    wait_until("no copies", || names_in(&copies(&group)).is_empty());
}

#[test]
fn at_the_prompt_passwords_are_asked_between_two_lines() {
    let (group, _tracker, address) = world();
    let variables = [(
        "P2PFS_PASSPHRASE_FILE",
        group.path("passphrase").to_str().unwrap().to_owned(),
    )];
    let variables: Vec<_> = variables
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    let terminal = |name: &str| {
        let out = group.folder(name);
        let args = [&["peer"][..], &joining(&address, name, &out)].concat();
        let state = format!("{name}.state");
        let mut terminal = Terminal::start_in(&group, &state, &args, &variables);
        terminal.wait_end("P2P>");
        terminal
    };
    let mut ana = terminal("ana");
    ana.type_line("add x.txt --lock");
    for (question, answer) in [
        ("Password for the lock: ", "open sesame"),
        ("The same again: ", "open barley"),
        ("Password for the lock: ", "open sesame"),
        ("The same again: ", "open sesame"),
    ] {
        ana.wait_for(question);
        ana.type_line(answer);
    }
    ana.wait_for("Sharing x.txt");
    assert!(!ana.record().contains("sesame"), "{}", ana.record());
    ana.type_line("add x.txt --as z.txt --lock");
    ana.wait_for("Password for the lock: ");
    ana.type_line("");
    ana.wait_for("nothing was shared");
    // Ctrl-C takes back the question alone, also behind half of an answer.
    for (question, half) in [(0, ""), (0, "open"), (1, "open")] {
        ana.type_line("add x.txt --as z.txt --lock");
        ana.wait_for("Password for the lock: ");
        if question == 1 {
            ana.type_line("open sesame");
            ana.wait_for("The same again: ");
        }
        ana.press(&format!("{half}\x03"));
        ana.wait_for("nothing was shared");
    }

    let mut bob = terminal("bob");
    bob.type_line("download x.txt");
    bob.press("search x");
    bob.wait_for("is locked; press Enter to type its password");
    // The half-typed line is still there, and is what Enter is for first.
    bob.wait_end("P2P> search x");
    bob.press("\r");
    bob.wait_for("NAME");
    bob.wait_for("Password (Enter alone: later): ");
    bob.type_line("open barley");
    bob.wait_for("wrong password");
    bob.wait_for("Password (Enter alone: later): ");
    bob.type_line("open sesame");
    bob.wait_for("Unlocked ");
    assert!(!bob.record().contains("barley"), "{}", bob.record());
    let out = group.path("bob");
    assert_eq!(names_in(&out), ["downloaded_x.txt", "downloaded_x.txt.age"]);
    bob.type_line("unlock bob/downloaded_x.txt.age");
    bob.wait_for("Password (Enter alone: later): ");
    bob.type_line("");
    bob.wait_for("p2pfs unlock bob/downloaded_x.txt.age");
    for terminal in [&mut ana, &mut bob] {
        terminal.type_line("quit");
        terminal.process.wait().unwrap();
    }

    // A command asks at its end.
    let out = group.folder("eva");
    let args = [&["get", "x.txt"][..], &only_fetching(&address, "eva", &out)].concat();
    let mut ana = group.peer("ana", &address, &[]);
    ana.wait_for("sharing what was shared before");
    let mut eva = Terminal::start_in(&group, "eva.state", &args, &variables);
    eva.wait_for("(Enter alone: later)");
    eva.type_line("open barley");
    eva.wait_for("wrong password");
    eva.wait_for("(Enter alone: later)");
    eva.type_line("open sesame");
    eva.wait_for("Unlocked ");
    eva.process.wait().unwrap();
    assert_eq!(names_in(&out), ["downloaded_x.txt"]);
}

/// `age` at a terminal, with these answers to its questions.
fn age(group: &Group, args: &[&str], answers: usize) {
    let mut command = Command::new("age");
    command.args(args).current_dir(group.dir.path());
    let mut age = Terminal::run(command);
    for _ in 0..answers {
        age.wait_for("passphrase");
        age.wait_for(": ");
        age.type_line("open sesame");
    }
    let ended = age.end_within(Duration::from_secs(60));
    assert!(ended.is_some(), "{}", age.shown());
}

#[test]
fn age_opens_our_locked_files_and_we_open_those_of_age() {
    need("age");
    let (group, _tracker, address) = world();
    let _ana = ana(&group, &address);
    assert!(
        get(&group, &address, "bob", &["x.txt", "--no-input"])
            .status
            .success()
    );
    age(
        &group,
        &["-d", "-o", "opened", "bob/downloaded_x.txt.age"],
        1,
    );
    let plain = fs::read(group.path("x.txt")).unwrap();
    assert_eq!(fs::read(group.path("opened")).unwrap(), plain);

    for name in ["empty", "x.txt"] {
        let path = group.path(name);
        if name == "empty" {
            fs::write(&path, "").unwrap();
        }
        let locked = format!("{name}.by.age");
        age(&group, &["-p", "-o", &locked, name], 2);
        let output = unlock(&group, &group.path(&locked), "right");
        assert!(output.status.success(), "{output:?}");
        let opened = group.path(&format!("{name}.by"));
        assert_eq!(fs::read(opened).unwrap(), fs::read(path).unwrap());
    }
}

#[test]
fn rows_90_and_91_what_is_not_as_it_was_locked_leaves_nothing() {
    let (group, _tracker, address) = world();
    let _ana = ana(&group, &address);
    assert!(
        get(&group, &address, "bob", &["x.txt", "--no-input"])
            .status
            .success()
    );
    let good = fs::read(group.path("bob/downloaded_x.txt.age")).unwrap();
    let chunk = 65_536 + 16;
    let body = good.len() - (MARK.len() * 3000) - 2 * 16;
    let mut swapped = good.clone();
    swapped[body..body + 2 * 1000].rotate_left(1000);
    let mut flipped = good.clone();
    flipped[body + chunk + 5] ^= 1;
    let work = |factor: &str| {
        let (salt, key) = ("A".repeat(22), "A".repeat(43));
        format!(
            "age-encryption.org/v1\n-> scrypt {salt} {factor}\n{key}\n--- {key}\n0123456789abcdef"
        )
    };
    let plugin = work("10").replace("-> scrypt", "-> spy");
    // A plugin of age that tells when it is started.
    let spy = group.folder("bin").join("age-plugin-spy");
    fs::write(&spy, "#!/bin/sh\ntouch started\n").unwrap();
    fs::set_permissions(&spy, fs::Permissions::from_mode(0o755)).unwrap();
    let dir = group.folder("bad");
    for (name, bytes, line) in [
        ("cut", good[..good.len() - 1].to_vec(), "is damaged"),
        ("between", good[..body + chunk].to_vec(), "is damaged"),
        ("head", good[..60].to_vec(), "is damaged"),
        ("swapped", swapped, "is damaged"),
        ("flipped", flipped, "is damaged"),
        (
            "work",
            work("40").into_bytes(),
            "asks for too much work, 2^40",
        ),
        (
            "memory",
            work("21").into_bytes(),
            "asks for too much work, 2^21",
        ),
        ("plugin", plugin.into_bytes(), "is locked with keys of age"),
        ("other", b"%PDF-1.7".to_vec(), "is not locked"),
    ] {
        let path = dir.join(format!("{name}.age"));
        fs::write(&path, bytes).unwrap();
        let mut command = group.command("u");
        let found = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{found}", group.path("bin").display()));
        command
            .arg("unlock")
            .arg(&path)
            .args(["--password-file", "right"]);
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{name}: {said}");
        assert!(
            said.contains(line) && said.lines().count() == 1,
            "{name}: {said}"
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(names_in(&dir), Vec::<String>::new(), "{name}");
    }
    assert!(!group.path("started").exists());
}

#[test]
fn row_92_a_kill_while_locking_or_opening_leaves_no_plain_text() {
    let (group, _tracker, address) = world();
    let line = format!("{MARK}\n");
    let large = line.repeat((64 << 20) / line.len());
    fs::write(group.path("large.txt"), &large).unwrap();
    let mut killed = group.peer("ana", &address, &[]);
    killed.say("add large.txt --lock --lock-password-file right");
    let dir = copies(&group);
    let half_made = || {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        entries
            .into_iter()
            .any(|entry| entry.metadata().is_ok_and(|found| found.len() > 1 << 20))
    };
    wait_until("a part of the copy", half_made);
    killed.kill();
    assert_eq!(marked(&group.path("ana.state")), Vec::<PathBuf>::new());
    let mut ana = group.peer("ana", &address, &[]);
    wait_until("it is cleaned away", || names_in(&dir).is_empty());
    ana.say("add large.txt --lock --lock-password-file right");
    ana.wait_for("Sharing large.txt");
    let share = names_in(&dir).remove(0);
    let out = group.folder("out");
    fs::copy(dir.join(share), out.join("large.txt.age")).unwrap();

    let mut command = group.command("u");
    command.args(["unlock", "out/large.txt.age", "--password-file", "right"]);
    let mut opening = group.spawn("u", command);
    let fds = PathBuf::from(format!("/proc/{}/fd", opening.pid()));
    let writes = || {
        let entries = fs::read_dir(&fds).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| {
            let is_there = fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(&out));
            let found = fs::metadata(entry.path());
            is_there && found.is_ok_and(|found| found.len() > 0 && found.len() < large.len() as u64)
        })
    };
    wait_until("a part of the plain text", writes);
    opening.kill();
    let left = names_in(&out);
    assert_eq!(left, ["large.txt.age"]);
    assert_eq!(marked(&out), Vec::<PathBuf>::new());
}
