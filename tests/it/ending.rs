//! How it ends: by signals, by streams that nobody reads, by a terminal that goes. The numbers are rows of
//! `docs/bad-inputs.md`.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::CommandFactory as _;
use p2pfs::cli::args::Cli;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Group, Process, joining, text, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A tracker, a seeder that sends slowly, and `big.bin` at it.
fn slow_world() -> (Group, Process, Process, String) {
    let group = Group::new();
    let (tracker, address) = group.tracker();
    group.file("big.bin", 20 << 20, 1);
    let slow = ["--up-limit", "512KiB", "--share", "big.bin"];
    let mut seeder = group.peer("ana", &address, &slow);
    seeder.wait_for("Sharing");
    (group, tracker, seeder, address)
}

/// Is any of this download on disk?
fn has_begun(dir: &std::path::Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"))
        .any(|entry| entry.metadata().is_ok_and(|found| found.len() > 0))
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).unwrap()
}

#[test]
fn row_12_commands_that_are_interrupted_say_so_and_what_stays_ends_well() {
    let (group, mut tracker, seeder, address) = slow_world();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143)] {
        let out = group.folder(&format!("{code}{signal:?}"));
        let out = out.to_str().unwrap();
        let base = ["--tracker", &address, "--port", "0", "--bind", "127.0.0.1"];
        let get = [
            &["get", "big.bin", "--out", out, "--name", "bob", "--json"],
            &base[..],
        ]
        .concat();
        let mut get = group.start("once", &get);
        // A piece is there.
        get.wait_for("\"done\":1048576");
        get.signal(signal);
        assert_eq!(get.exit_within(SOON), Some(code), "{}", get.output());
        assert!(has_begun(out.as_ref()), "what came is kept");
        let output = get.output();
        let lines: Vec<_> = output
            .lines()
            .filter(|line| !line.starts_with('{'))
            .collect();
        let told = "p2pfs: interrupted; 1 download is not done: it goes on from there when asked for again";
        assert_eq!(lines.last(), Some(&told), "{output}");
        assert!(output.contains("\"class\":\"interrupted\""), "{output}");
        let stays = [&["peer", "--no-prompt", "--name", "eva"], &base[..]].concat();
        let mut stays = group.start("stays", &stays);
        stays.wait_for("Joined");
        stays.signal(signal);
        if signal == Signal::HUP {
            // The system and a shell say so, each for itself.
            while stays.child.try_wait().unwrap().is_none() {
                stays.signal(signal);
            }
        }
        assert_eq!(stays.exit_within(SOON), Some(0), "{}", stays.output());
        assert!(!stays.output().contains("p2pfs:"), "{}", stays.output());
    }
    drop(seeder);
    let mut demo = group.start("demo", &["demo"]);
    demo.wait_for("p2pfs tracker");
    demo.signal(Signal::TERM);
    assert_eq!(demo.exit_within(SOON), Some(143), "{}", demo.output());
    tracker.signal(Signal::INT);
    assert_eq!(tracker.exit_within(SOON), Some(0));
}

#[test]
fn whoever_leaves_is_told_that_downloads_go_on() {
    let (group, _tracker, _seeder, address) = slow_world();
    for (name, more, told) in [
        (
            "bob",
            &[][..],
            "1 download is not done: it goes on at the next start of p2pfs peer",
        ),
        (
            "eva",
            &["--exit", "--get", "big.bin"],
            "1 download is not done: it goes on from there when asked for again",
        ),
    ] {
        let mut peer = group.peer(name, &address, more);
        if more.is_empty() {
            peer.say("download -b big.bin");
        }
        wait_until("some of it", || has_begun(&group.path(name)));
        if more.is_empty() {
            peer.say("quit");
        } else {
            peer.signal(Signal::INT);
        }
        let code = if more.is_empty() { 0 } else { 130 };
        assert_eq!(peer.exit_within(SOON), Some(code), "{}", peer.output());
        let output = peer.output();
        assert!(
            output.contains(told) && !output.contains("cancelled"),
            "{output}"
        );
    }
}

/// Shows: row 12, where standard output takes nothing any more, as after Ctrl-S.
#[test]
fn row_12_what_hangs_is_left_after_a_while_or_at_the_second_signal() {
    let (group, _tracker, _seeder, address) = slow_world();
    let stuck = |name: &str| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        while writer.write(&[b'.'; 4096]).is_ok() {}
        rustix::fs::fcntl_setfl(&writer, flags).unwrap();
        let mut command = group.command(name);
        command
            .args(["peer", "--tracker", &address, "--name", name])
            .args(["--port", "0", "--bind", "127.0.0.1"])
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        // Then it wants to say that it has joined.
        wait_until("joined", || {
            let people = group.once(&address, &["peers", "--all"]);
            text(&people.stdout).contains(&format!("{name} "))
        });
        (child, reader)
    };
    let (mut child, _reader) = stuck("eva");
    kill_process(pid(child.id()), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let (mut child, _reader) = stuck("bob");
    kill_process(pid(child.id()), Signal::TERM).unwrap();
    // Of two that wait the system hands over the one with the lower number first.
    wait_until("the first one has come", || {
        !is_pending(&child, Signal::TERM)
    });
    let mut status = None;
    wait_until("ended", || {
        let _ = kill_process(pid(child.id()), Signal::INT);
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130), "the second one did it");
}

/// Is this signal sent, and not handed over yet?
fn is_pending(child: &Child, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let masks = status.lines().filter_map(|line| {
        let mask = line
            .strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask) >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn row_2_whoever_reads_only_the_first_line_gets_it_quietly() {
    let (group, _tracker, _seeder, address) = slow_world();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = group.command("s");
    command
        .args(["peer", "--tracker", &address, "--name", "bob"])
        .args(["--port", "0", "--bind", "127.0.0.1"])
        .args(["-c", "help json"].repeat(100))
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("Joined "), "{line}");
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

#[test]
fn row_2_a_full_disk_behind_standard_output_is_a_line_for_every_command() {
    let (group, _tracker, _seeder, address) = slow_world();
    let join = ["--tracker", &address, "--port", "0", "--bind", "127.0.0.1"];
    let here = ["tracker", "--port", "0", "--bind", "127.0.0.1"];
    for args in [
        &["--help"][..],
        &["--version"],
        &["help", "get"],
        &["help", "json"],
        &["completions", "bash"],
        &["passphrase", "check"],
        &here,
        &[&["peer"], &join[..]].concat(),
        &[&["search", "big"], &join[..]].concat(),
        &[&["search", "big", "--json"], &join[..]].concat(),
        &[&["files"], &join[..]].concat(),
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = group.command("full");
        command.args(args).stdin(Stdio::null()).stdout(full);
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.contains("cannot write to standard output"), "{said}");
    }
}

#[test]
fn a_hangup_ends_nobody_who_was_told_to_ignore_it_and_no_tracker() {
    let (group, mut tracker, _seeder, address) = slow_world();
    tracker.signal(Signal::HUP);
    let ignoring = ["sh", "-c", r#"trap "" HUP; exec "$@""#, "sh"];
    let mut command = group.command_under("bob", &ignoring);
    let out = group.folder("out");
    command.arg("peer").args(joining(&address, "bob", &out));
    let mut bob = group.spawn("bob", command);
    bob.wait_for("Joined");
    // The second answer comes long after the first signal: both still do what they are there for.
    for _ in 0..2 {
        bob.signal(Signal::HUP);
        bob.say("lap");
        bob.wait_for("bob ");
    }
    tracker.signal(Signal::TERM);
    assert_eq!(tracker.exit_within(SOON), Some(0), "{}", tracker.output());
}

/// Shows: row 12. `script` is a terminal that can be killed.
#[test]
fn row_12_a_terminal_that_goes_takes_its_tracker_and_its_peer_along() {
    let (group, _tracker, _seeder, address) = slow_world();
    for (state, role, line) in [
        (
            "away",
            "tracker",
            "tracker --bind 127.0.0.1 --port 0".to_owned(),
        ),
        (
            "gone",
            "peer",
            format!("peer --tracker {address} --bind 127.0.0.1 --port 0 --name bob"),
        ),
    ] {
        let plain = group.command(state);
        let program = plain.get_program().to_str().unwrap();
        let mut script = Command::new("script");
        script
            .args(["-qfc", &format!("exec {program} {line}"), "/dev/null"])
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut script = script.spawn().unwrap();
        let lock = group.path(&format!("{state}/{role}/lock"));
        let mut number: Option<u32> = None;
        wait_until("running", || {
            // Who answers there has handled its signals for long.
            let is_up = lock.with_file_name("control.sock").exists();
            let found = fs::read_to_string(&lock).unwrap_or_default();
            number = found.trim().parse().ok().filter(|_| is_up);
            number.is_some()
        });
        script.kill().unwrap();
        script.wait().unwrap();
        let status = format!("/proc/{}/status", number.unwrap_or(0));
        wait_until("ended", || {
            let status = fs::read_to_string(&status).unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        });
    }
}

/// Shows: without input, and without anything to read its output, each command ends by itself, with one line at the
/// most and without a panic. How: every command that there is, twice.
#[test]
fn every_command_ends_by_itself_without_input_or_reader() {
    let group = Group::new();
    let program = Cli::command();
    let names = program.get_subcommands().filter(|it| !it.is_hide_set());
    let names: Vec<_> = names.map(|it| it.get_name().to_owned()).collect();
    assert!(names.len() > 20, "{names:?}");
    let run = |args: &[&str], code: &dyn Fn(i32) -> bool| {
        for has_reader in [true, false] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let mut command = group.command("s");
            command
                .args(args)
                .env("P2PFS_TRACKER", "127.0.0.1:1")
                .env_remove("P2PFS_PASSPHRASE_FILE")
                .stdin(Stdio::null())
                .stdout(writer)
                .stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            drop(command);
            if has_reader {
                std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
            }
            drop(reader);
            let output = child.wait_with_output().unwrap();
            let said = text(&output.stderr);
            assert!(code(output.status.code().unwrap()), "{args:?}: {output:?}");
            assert!(!said.contains("panicked"), "{args:?}: {said}");
            assert!(said.lines().count() <= 1, "{args:?}: {said}");
        }
    };
    for name in &names {
        // It asks nobody, and runs others that say more.
        if name != "demo" {
            run(&[name], &|code| matches!(code, 0 | 1 | 2 | 4 | 5));
        }
        run(&[name, "--help"], &|code| code == 0);
        run(&["help", name], &|code| code == 0);
    }
    for args in [
        &["config", "show"][..],
        &["config", "show", "--json"],
        &["passphrase", "--words", "24"],
        &["completions", "zsh"],
        &["help", "json"],
    ] {
        run(args, &|code| code == 0);
    }
}
