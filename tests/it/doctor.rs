//! `p2pfs doctor` finds what is wrong, and nothing where all is well.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Group, names_in, text};

/// The exit code, and each check with its state and what is said of it.
fn examine(group: &Group, state: &str, args: &[&str]) -> (i32, BTreeMap<String, (String, String)>) {
    let mut command = group.command(state);
    command.args(["doctor", "--json", "--bind", "127.0.0.1"]);
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    let objects = text(&output.stdout);
    let objects = objects
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).expect(line) });
    let checks = objects
        .filter(|object| object["type"] == "check")
        .map(|check| {
            let word = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            // Of the two state directories the one that is worse.
            (
                word("name"),
                (
                    word("state"),
                    format!("{}; {}", word("message"), word("hint")),
                ),
            )
        });
    let mut worst = BTreeMap::new();
    for (name, found) in checks {
        let old = worst.entry(name).or_insert_with(|| found.clone());
        if old.0 == "ok" {
            *old = found;
        }
    }
    (output.status.code().unwrap(), worst)
}

/// Shows: where all is well nothing fails and nothing is changed; each simple mistake fails its own check alone, with
/// what to do, and exit code 1. How: real processes; a tracker, a peer that runs, and one mistake after the other.
#[test]
fn the_doctor_names_each_mistake_and_no_other() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let there = ["--tracker", &address];
    let any = [&there[..], &["--port", "0"]].concat();
    let failed = |state: &str, args: &[&str]| {
        let (code, checks) = examine(&group, state, args);
        let failed: BTreeMap<_, _> = checks
            .into_iter()
            .filter(|(_, found)| found.0 == "failed")
            .collect();
        assert_eq!(code, i32::from(!failed.is_empty()), "{failed:?}");
        failed
    };
    let only = |failed: &BTreeMap<String, (String, String)>, name: &str, words: &str| {
        assert_eq!(failed.keys().collect::<Vec<_>>(), [name], "{failed:?}");
        assert!(failed[name].1.contains(words), "{failed:?}");
    };

    let (code, checks) = examine(&group, "new", &any);
    assert_eq!(code, 0, "{checks:?}");
    for name in [
        "configuration",
        "state",
        "peer port",
        "tracker",
        "passphrase",
        "clock",
    ] {
        assert_eq!(checks[name].0, "ok", "{checks:?}");
    }
    assert_eq!(checks["tracker key"].0, "warning", "{checks:?}");
    assert!(!group.path("new").exists(), "it makes nothing");

    let mut ana = group.peer("ana", &address, &[]);
    let (code, checks) = examine(&group, "ana.state", &there);
    assert_eq!(code, 0, "{checks:?}");
    assert_eq!(checks["tracker key"].0, "ok", "{checks:?}");
    assert!(
        checks["peer port"].1.contains("the peer that runs here"),
        "{checks:?}"
    );
    let (_, checks) = examine(&group, "tracker", &any);
    assert!(
        checks["tracker port"]
            .1
            .contains("the tracker that runs here"),
        "{checks:?}"
    );
    ana.end_input();
    ana.exit_within(crate::support::PATIENCE);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    only(
        &failed("ana.state", &[&there[..], &["--port", &port]].concat()),
        "peer port",
        "--port",
    );
    drop(taken);
    only(
        &failed("ana.state", &["--port", "0", "--tracker", "127.0.0.1:1"]),
        "tracker",
        "is the tracker running",
    );
    let other = group.write_private("other", "another one that nobody here has");
    let other = ["--passphrase-file", other.to_str().unwrap()];
    only(
        &failed("ana.state", &[&any[..], &other].concat()),
        "passphrase",
        "same passphrase",
    );
    let print = "aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa";
    let print = ["--tracker-key", print];
    only(
        &failed("ana.state", &[&any[..], &print].concat()),
        "tracker key",
        "check the key print",
    );
    let out = ["--out", "nowhere"];
    only(
        &failed("ana.state", &[&any[..], &out].concat()),
        "downloads",
        "--out",
    );
    let broken = group.write_private("broken.toml", "[peer]\nnane = \"ana\"\n");
    let broken = ["--config", broken.to_str().unwrap()];
    only(
        &failed("ana.state", &[&any[..], &broken].concat()),
        "configuration",
        "name",
    );

    let log = group.write_private("log.toml", "[log]\nfile = \"nowhere/p2pfs.log\"\n");
    let log = ["--config", log.to_str().unwrap()];
    only(
        &failed("ana.state", &[&any[..], &log].concat()),
        "log",
        "--log-file",
    );
    let (_, checks) = examine(&group, "ana.state", &["--log-file", "here.log"]);
    assert_eq!(checks["log"].0, "ok", "{checks:?}");

    let dir = group.path("ana.state/peer");
    let rights = |name: &str, mode: u32| {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let before = names_in(&dir);
    for name in ["identity.key", "known_trackers"] {
        rights(name, 0o644);
        let found = failed("ana.state", &["--port", "0"]);
        only(&found, "state", "chmod 600");
        assert!(found["state"].1.contains(name), "{found:?}");
        rights(name, 0o600);
    }
    rights("", 0o777);
    only(&failed("ana.state", &["--port", "0"]), "state", "chmod 700");
    rights("", 0o700);
    let known = fs::read_to_string(dir.join("known_trackers")).unwrap();
    let key = known.split_whitespace().last().unwrap();
    let changed = known.replace(key, &"7".repeat(key.len()));
    fs::write(dir.join("known_trackers"), changed).unwrap();
    only(
        &failed("ana.state", &any),
        "tracker key",
        "--tracker-key accepts it",
    );
    assert!(
        failed("ana.state", &["--port", "0"]).is_empty(),
        "no tracker is no mistake"
    );
    assert_eq!(names_in(&dir), before);
}
