//! What is secret stays so: files, memory and output, whatever surrounds the program.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{Group, Process, joining, text, wait_until};

/// Somebody who is not root, for tests that are.
const NOBODY: u32 = 65534;

fn status_of(process: &Process, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim().to_owned()
}

/// All that lies below, directories too.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
            found.push(entry.path());
        }
        found.push(dir);
    }
    found
}

/// The kernel's own word for it: with this mask no call that creates a file can make it readable to others, so
/// that there is no moment in which one is. What widens rights later is seen at the end.
#[test]
fn every_file_is_its_owners_alone_from_the_first_moment_whatever_the_umask_is() {
    let group = Group::new();
    let open = ["sh", "-c", r#"umask 000; exec "$@""#, "sh"];
    let mut command = group.command_under("tracker", &open);
    command.args(["tracker", "--bind", "127.0.0.1", "--port", "0"]);
    let mut tracker = group.spawn("tracker", command);
    let line = tracker.wait_for("Tracker listening on ");
    let address = line.split([' ', ',']).nth(3).unwrap().to_owned();
    group.file("big.bin", 8 << 20, 1);
    group.file("small.bin", 1000, 1);
    let slow = ["--up-limit", "256KiB", "--share", "big.bin", "small.bin"];
    let mut seeder = group.peer("ana", &address, &slow);
    seeder.wait_for("Sharing small.bin");
    let mut command = group.command_under("bob.state", &open);
    let out = group.folder("out");
    command.arg("peer").args(joining(&address, "bob", &out));
    let mut bob = group.spawn("bob", command);
    bob.wait_for("Joined");
    bob.say("download -b big.bin");
    bob.say("add small.bin");
    bob.wait_for("Sharing");
    let hidden = || -> Vec<PathBuf> {
        let all = below(&out).into_iter();
        all.filter(|path| path.is_file()).collect()
    };
    wait_until("a part and its journal", || hidden().len() == 2);
    for process in [&tracker, &bob] {
        assert_eq!(status_of(process, "Umask:"), "0077");
    }
    let mut files = 0;
    for path in [group.path("tracker"), group.path("bob.state")]
        .iter()
        .flat_map(|dir| below(dir))
        .chain(hidden())
    {
        let found = fs::symlink_metadata(&path).unwrap();
        let wanted = if found.is_dir() { 0o700 } else { 0o600 };
        files += u32::from(found.is_file() || found.file_type().is_socket());
        let mode = found.mode() & 0o777;
        assert_eq!(mode, wanted, "{mode:o} {}", path.display());
    }
    assert!(
        files >= 10,
        "{files}: keys, locks, sockets, pins, store, parts"
    );
    bob.say("cancel 1");
    bob.say("download small.bin");
    bob.wait_for("Download successful");
    let done = fs::metadata(out.join("downloaded_small.bin")).unwrap();
    assert_eq!(done.mode() & 0o777, 0o666, "as the user's other files");
}

#[test]
fn nobody_else_looks_into_its_memory_and_no_core_is_dumped() {
    let group = Group::new();
    let is_root = rustix::process::geteuid().is_root();
    // To root's processes the kernel's answer looks the same either way.
    let mut command = group.command("s");
    if is_root {
        let (dir, program) = (group.path("away"), group.path("away/p2pfs"));
        fs::create_dir(&dir).unwrap();
        fs::copy(command.get_program(), &program).unwrap();
        for path in [group.dir.path(), &dir, &program, &group.path("passphrase")] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut other = std::process::Command::new(program);
        other
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .current_dir(group.dir.path())
            .uid(NOBODY)
            .gid(NOBODY);
        command = other;
    }
    command.args(["tracker", "--bind", "127.0.0.1", "--port", "0"]);
    let mut tracker = group.spawn("tracker", command);
    tracker.wait_for("Tracker listening on ");
    let proc = PathBuf::from(format!("/proc/{}", tracker.pid()));
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
    // What may not be dumped belongs to root there, whoever runs it.
    assert_eq!(fs::metadata(proc.join("mem")).unwrap().uid(), 0);
    let own = fs::metadata("/proc/self/mem").unwrap().uid();
    assert_eq!(
        own,
        rustix::process::geteuid().as_raw(),
        "others are their own"
    );
}

#[test]
fn no_object_no_help_and_no_trace_holds_the_passphrase() {
    let group = Group::new();
    let secret = "zebra abandon stable horse battle zoo";
    let mut command = group.command("tracker");
    command
        .args(["tracker", "--bind", "127.0.0.1", "--port", "0", "--json"])
        .env("P2PFS_LOG", "trace")
        .env("P2PFS_PASSPHRASE", secret)
        .env_remove("P2PFS_PASSPHRASE_FILE");
    let mut tracker = group.spawn("tracker", command);
    let object = tracker.wait_for("\"tracker\"");
    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
    let address = format!("127.0.0.1:{}", object["port"]);
    let join = ["--tracker", &address, "--port", "0", "--bind", "127.0.0.1"];
    let mut seen = 0;
    for args in [
        &[
            &["peer", "-c", "id", "-c", "help json", "--json"],
            &join[..],
        ]
        .concat()[..],
        &[&["search", "x", "--json"], &join[..]].concat(),
        &["status", "--json"],
        &["passphrase", "check", "--json"],
        &["--help"],
        &["tracker", "--help"],
        &["peer", "-h"],
        &["help", "environment"],
        &["completions", "zsh"],
    ] {
        let mut command = group.command("tracker");
        command
            .args(args)
            .env("P2PFS_LOG", "trace")
            .env("P2PFS_PASSPHRASE", secret)
            .env_remove("P2PFS_PASSPHRASE_FILE")
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        for stream in [&output.stdout, &output.stderr] {
            let said = text(stream);
            seen += said.len();
            assert!(
                !said.contains("zebra") && !said.contains("stable"),
                "{args:?}: {said}"
            );
        }
    }
    assert!(seen > 10_000, "{seen} bytes");
    assert!(!tracker.output().contains("zebra"));
}
