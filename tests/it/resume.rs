//! Downloads that are killed, paused, or meet a full disk, and go on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use p2pfs::peer::database::Memory;
use p2pfs::peer::keeper::Restart;
use p2pfs::peer::transfers::TransferId;
use p2pfs::peer::unfinished::Unfinished;

use crate::support::{Group, Process, assert_same, joining, names_in, only_fetching, wait_until};

const MIB: u64 = 1 << 20;
/// Head and record of a journal, in bytes, and what a record of a piece begins with.
const HEAD: usize = 48;
const RECORD: usize = 40;
const PIECE: u8 = 1;

/// Pieces that the journal in `dir` speaks of, if there is one.
fn journalled(dir: &Path) -> Option<u64> {
    let journal = names_in(dir)
        .into_iter()
        .find(|name| name.ends_with(".journal"))?;
    let bytes = fs::read(dir.join(journal)).ok()?;
    let records = bytes.get(HEAD..).unwrap_or_default().chunks_exact(RECORD);
    Some(records.filter(|record| record[0] == PIECE).count() as u64)
}

fn get(group: &Group, address: &str, out: &Path, state: &str) -> Process {
    let get = ["get", "shared.bin", "--json"];
    let args = [&get[..], &only_fetching(address, "bob", out)].concat();
    group.start(state, &args)
}

/// What the first line of progress in `output` says is there.
fn first_progress(output: &str) -> Option<u64> {
    let line = output
        .lines()
        .find(|line| line.contains(r#""type":"progress""#))?;
    let object: serde_json::Value = serde_json::from_str(line).ok()?;
    object["done"].as_u64()
}

#[test]
fn row_45_a_killed_download_goes_on_where_it_was() {
    const LEN: u64 = 300 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("shared.bin", LEN, 6);
    let limit = ["--up-limit", "100MiB"];
    let mut seeder = group.sharer("seeder", &address, &[&file], &limit);
    let out = group.folder("out");
    let mut here = 0;
    for step in 0..20 {
        let mut leecher = get(&group, &address, &out, "bob");
        // Some are killed after a few pieces, some at once.
        let until = here + step % 4 * 5;
        wait_until("pieces to come", || {
            journalled(&out).is_some_and(|now| now >= until)
        });
        let verified = journalled(&out).unwrap_or_default();
        leecher.kill();
        if let Some(resumed) = first_progress(&leecher.output()) {
            assert!(
                resumed / MIB * 100 >= here * 95,
                "{resumed} bytes of {here} pieces"
            );
        }
        assert!(
            names_in(&out)
                .iter()
                .all(|name| name.starts_with(".p2pfs-"))
        );
        here = verified;
    }
    assert!(
        (50..295).contains(&here),
        "{here} pieces after the last kill"
    );
    seeder.say("limit up off");
    let mut leecher = get(&group, &address, &out, "bob");
    assert_eq!(
        leecher.exit_within(Duration::from_secs(60)),
        Some(0),
        "{}",
        leecher.output()
    );
    let resumed = first_progress(&leecher.output()).unwrap_or(LEN);
    assert!(
        resumed / MIB * 100 >= here * 95,
        "{resumed} bytes of {here} pieces"
    );
    assert_same(&out.join("downloaded_shared.bin"), &file, LEN);
    assert_eq!(names_in(&out), ["downloaded_shared.bin"]);
}

/// What a peer says of its downloads.
fn transfers(peer: &mut Process) -> Vec<String> {
    let before = peer.output().len();
    peer.say("transfers");
    peer.say("limit");
    peer.wait_for("Uploads: ");
    let said = peer.output().split_off(before);
    let is_row = |line: &&str| line.contains(" %");
    said.lines().filter(is_row).map(str::to_owned).collect()
}

/// Downloads that the next start with this state directory would find, and whether they are paused.
fn left_by(state: &Path) -> Vec<(TransferId, bool)> {
    // The store belongs to the peer that runs.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(state.join("shares.redb"), copy.path().join("shares.redb")).unwrap();
    let (events, _told) = tokio::sync::mpsc::channel(1);
    let memory = Memory::new(Some(copy.path().to_owned()), events);
    let loaded = Unfinished::new(memory, Restart::Restores).load();
    let records = loaded.records.iter();
    records
        .map(|(id, record)| (*id, record.is_paused))
        .collect()
}

/// Shows: what was not done when a peer ended, or was killed, goes on by itself, what was paused stays so,
/// and what was cancelled or done is forgotten. In their order, with the numbers that they had.
#[test]
fn row_45_unfinished_downloads_are_there_at_the_next_start() {
    const LEN: u64 = 40 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut seeder = group.peer("seeder", &address, &["--up-limit", "15MiB"]);
    let names = ["done.bin", "one.bin", "two.bin", "gone.bin", "talks"];
    group.file("own/done.bin", 1000, 9);
    for (number, name) in (0..).zip(&names[1..4]) {
        group.file(&format!("own/{name}"), LEN, number);
    }
    group.file("own/talks/big.bin", LEN, 8);
    group.file("own/talks/small.txt", 1000, 8);
    for name in names {
        seeder.say(&format!("add own/{name}"));
        seeder.wait_for("Sharing");
    }
    let config = group.path("p2pfs.toml");
    fs::write(&config, "[limits]\ndownloads = 2\n").unwrap();
    let more = ["--config", config.to_str().unwrap(), "--no-seed"];
    let elsewhere = group.folder("elsewhere");
    let mut bob = group.peer("bob", &address, &more);
    bob.say("download done.bin");
    bob.wait_for("Download successful");
    bob.say("download -b one.bin two.bin gone.bin");
    wait_until("all are begun", || transfers(&mut bob).len() == 3);
    bob.say(&format!("download -b talks --out {}", elsewhere.display()));
    wait_until("all are begun", || transfers(&mut bob).len() == 4);
    let rows = transfers(&mut bob);
    assert!(rows[2].contains("next in line"), "{rows:?}");
    wait_until("the first runs", || {
        journalled(&group.path("bob")).is_some_and(|now| now > 3)
    });
    bob.say("pause 3");
    bob.wait_for("Paused 3, two.bin");
    bob.say("cancel 4");
    bob.wait_for("Cancelled 4, gone.bin");
    wait_until("the folder runs", || !names_in(&elsewhere).is_empty());
    wait_until("it is away", || transfers(&mut bob).len() == 3);
    assert!(!bob.output().contains("gone.bin: "), "cancel answers once");
    wait_until("what is left is on the disk", || {
        left_by(&group.path("bob.state/peer")) == [(2, false), (3, true), (5, false)]
    });
    bob.kill();

    for is_killed in [true, false] {
        let mut bob = group.peer("bob", &address, &more);
        let line = bob.wait_for("of before");
        assert!(line.contains("going on with 2 downloads"), "{line}");
        assert!(line.contains("1 download of before paused"), "{line}");
        let rows = transfers(&mut bob);
        let has = |row: usize, words: [&str; 2]| {
            let found = words.iter().all(|word| rows[row].contains(word));
            assert!(found, "{words:?} in {rows:?}");
        };
        assert_eq!(rows.len(), 3, "{rows:?}");
        has(0, ["2 ", "one.bin"]);
        has(1, ["two.bin", "  paused"]);
        has(2, ["5 ", "talks/"]);
        if is_killed {
            bob.kill();
        } else {
            bob.say("quit");
            assert_eq!(bob.exit_within(Duration::from_secs(10)), Some(0));
        }
    }
    seeder.say("limit off");
    let line = seeder.wait_for("Both directions");
    assert!(
        line.contains("Uploads: no limit; downloads: no limit"),
        "{line}"
    );
    let mut bob = group.peer("bob", &address, &more);
    for name in ["one.bin", "talks/"] {
        let has = || bob.output().contains(&format!("successful: {name}"));
        wait_until(name, has);
    }
    let rows = transfers(&mut bob);
    assert!(rows.len() == 1 && rows[0].contains("two.bin"), "{rows:?}");
    bob.say("resume 3");
    bob.wait_for("Download successful: two.bin");
    let own = |name: &str| group.path(&format!("own/{name}"));
    let dir = group.path("bob");
    for name in ["one.bin", "two.bin"] {
        assert_same(&dir.join(format!("downloaded_{name}")), &own(name), LEN);
    }
    let there = [
        "downloaded_done.bin",
        "downloaded_one.bin",
        "downloaded_two.bin",
    ];
    assert_eq!(names_in(&dir), there);
    assert_eq!(names_in(&elsewhere), ["downloaded_talks"]);
    let big = elsewhere.join("downloaded_talks/big.bin");
    assert_same(&big, &own("talks/big.bin"), LEN);
    bob.kill();
    let mut bob = group.peer("bob", &address, &more);
    assert_eq!(transfers(&mut bob), [""; 0], "{}", bob.output());
}

/// A directory that has vanished is waited for, and a command for once neither goes on with what an earlier
/// peer left nor leaves anything, but what it has done is not done again.
#[test]
fn row_45_a_vanished_directory_is_waited_for_and_commands_for_once_leave_nothing() {
    const LEN: u64 = 30 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let files = ["x.bin", "y.bin"].map(|name| group.file(name, LEN, name.as_bytes()[0]));
    let [x, y] = files.each_ref().map(|file| file.to_str().unwrap());
    let limit = ["--share", x, y, "--up-limit", "5MiB"];
    let mut seeder = group.peer("seeder", &address, &limit);
    seeder.wait_for("Sharing");
    seeder.wait_for("Sharing");
    let (out, away) = (group.folder("out"), group.path("away"));
    let mut bob = group.peer("bob", &address, &[]);
    let to = out.display();
    bob.say(&format!("download -b x.bin y.bin --out {to}"));
    wait_until("both run", || names_in(&out).len() == 4);
    wait_until("it runs", || journalled(&out).is_some_and(|now| now > 1));
    bob.kill();

    // For once, in the same directory and under the same identity.
    let once = |args: &[&str]| {
        let join = ["--tracker", &address, "--port", "0", "--bind", "127.0.0.1"];
        let mut command = group.command("bob.state");
        command.args(args).args(join).args(["--name", "bob"]);
        command.stdin(std::process::Stdio::null()).output().unwrap()
    };
    seeder.say("limit off");
    let got = once(&["get", "y.bin", "--out", out.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&got.stderr).into_owned();
    assert!(got.status.success() && !said.contains("x.bin"), "{said}");
    let told = once(&["peer", "-c", "transfers"]);
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(said.contains("Nothing is being downloaded"), "{said}");

    fs::rename(&out, &away).unwrap();
    let mut bob = group.peer("bob", &address, &[]);
    bob.wait_for("going on with 1 download of before");
    let line = bob.wait_for("paused: ");
    assert!(
        line.contains("x.bin") && line.contains("no such directory"),
        "{line}"
    );
    assert!(
        transfers(&mut bob)[0].contains("waiting: "),
        "{}",
        bob.output()
    );
    fs::rename(&away, &out).unwrap();
    bob.wait_for("Download successful: x.bin");
    assert_eq!(bob.output().matches("paused: ").count(), 1);
    assert_same(&out.join("downloaded_x.bin"), &files[0], LEN);
    assert_eq!(names_in(&out), ["downloaded_x.bin", "downloaded_y.bin"]);
}

/// Shows: row 57. What is wanted twice in one place comes once, also when it is paused meanwhile.
#[test]
fn row_57_two_downloads_of_one_content_are_one() {
    const LEN: u64 = 30 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let mut seeder = group.peer("seeder", &address, &["--up-limit", "10MiB"]);
    seeder.say("add x.bin");
    seeder.wait_for("Sharing");
    seeder.say("add x.bin --as same.bin");
    seeder.wait_for("Sharing");
    let mut bob = group.peer("bob", &address, &[]);
    let dir = group.path("bob");
    let is_begun = || journalled(&dir).is_some();
    bob.say("download -b x.bin x.bin");
    bob.wait_for("x.bin is being downloaded already, as 1: nothing comes twice");
    wait_until("it runs", is_begun);
    bob.say("pause");
    bob.wait_for("Paused 1");
    bob.say("download -b same.bin");
    bob.wait_for("same.bin is being downloaded already, as 1, which goes on now");
    assert_eq!(transfers(&mut bob).len(), 1);
    seeder.say("limit off");
    bob.wait_for("Download successful: x.bin");
    let said = || bob.output();
    wait_until("both are told", || {
        said().matches("as download 1 brought it").count() == 2
    });
    assert_eq!(said().matches("successful").count(), 1, "{}", said());
    assert_same(&dir.join("downloaded_x.bin"), &file, LEN);
    assert_eq!(names_in(&dir), ["downloaded_x.bin"]);

    // What others have left there, and nobody holds, is gone with it.
    seeder.say("limit 10MiB");
    seeder.wait_for("Both directions. Uploads: 10.0 MiB/s; downloads: 10.0 MiB/s");
    let mut carl = group.peer("carl", &address, &["--no-seed"]);
    let dir = group.path("carl");
    carl.say("download -b x.bin --from seeder");
    wait_until("it is begun", || transfers(&mut carl).len() == 1);
    carl.say("download -b x.bin");
    let line = carl.wait_for("is being downloaded already");
    assert!(line.contains("from one person only; cancel 1"), "{line}");
    wait_until("it runs", || journalled(&dir).is_some());
    let part = names_in(&dir)
        .into_iter()
        .find(|name| name.ends_with(".part"))
        .unwrap();
    let other = part.replace(".part", "-2.part");
    fs::write(dir.join(&other), "left").unwrap();
    carl.say("cancel 1");
    carl.wait_for("Cancelled 1");
    wait_until("nothing is left", || names_in(&dir).is_empty());
    fs::write(dir.join(&other), "left").unwrap();
    seeder.say("limit off");
    carl.say("download x.bin");
    carl.wait_for("Download successful");
    assert_eq!(names_in(&dir), ["downloaded_x.bin"]);
}

/// A version that is withdrawn while it is fetched, file or folder: whoever fetches it is told, with what there
/// is now and how to get it.
#[test]
fn row_58_whoever_fetches_what_was_withdrawn_is_told_of_the_newer_version() {
    const LEN: u64 = 20 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    group.file("talks/big.bin", LEN, 2);
    let limit = ["--up-limit", "2MiB"];
    let ana = group.sharer("ana", &address, &[&file, &group.path("talks")], &limit);
    // Somebody who waits: at a terminal, or for what was begun before.
    let mut bob = group.peer("bob", &address, &[]);
    bob.say("download -b x.bin talks");
    let dir = group.path("bob");
    wait_until("both run", || {
        transfers(&mut bob)
            .iter()
            .filter(|row| row.contains("/s from"))
            .count()
            == 2
    });
    wait_until("it runs", || journalled(&dir).is_some());
    bob.kill();
    let mut bob = group.peer("bob", &address, &[]);
    bob.wait_for("going on with 2 downloads of before");
    wait_until("both run", || {
        transfers(&mut bob)
            .iter()
            .filter(|row| row.contains("/s from"))
            .count()
            == 2
    });
    fs::write(&file, "a newer one").unwrap();
    fs::write(group.path("talks/big.bin"), "newer, too").unwrap();
    for name in ["x.bin", "talks"] {
        let id = |line: &str| line.rsplit(", ").next().unwrap().trim().to_owned();
        let is_again = |line: &&str| line.contains(&format!("shared again: {name}"));
        let shared = || ana.output().lines().find(is_again).map(id);
        wait_until("it is shared again", || shared().is_some());
        let id = shared().unwrap();
        let digits = id.strip_prefix("b3:").unwrap();
        let words = [
            format!(
                "{name}: waiting for a seeder (nobody has all of this version any more; {name} is {id} now"
            ),
            format!("download '{name}#{}' gets it", &digits[..4]),
        ];
        let is_told = || {
            let said = bob.output();
            said.lines()
                .any(|line| words.iter().all(|words| line.contains(words)))
        };
        wait_until(&words[0], is_told);
        let rows = transfers(&mut bob);
        assert!(
            rows.iter()
                .any(|row| row.contains("waiting: nobody has all")),
            "{rows:?}"
        );
    }
    bob.say("download x.bin");
    bob.wait_for("Download successful: x.bin");
    assert_eq!(
        fs::read(dir.join("downloaded_x.bin")).unwrap(),
        b"a newer one"
    );
}

/// A folder of which somebody removes a part while it is fetched ends with one line, and the next download of it
/// brings what is missing.
#[test]
fn row_63_a_hidden_folder_that_loses_a_part_is_one_line_and_mended_by_the_next_download() {
    const LEN: u64 = 20 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    for (name, seed) in [("a/small.txt", 1), ("b/large.bin", 2), ("c/large.bin", 3)] {
        group.file(
            &format!("talks/{name}"),
            if seed > 1 { LEN } else { 1000 },
            seed,
        );
    }
    let mut ana = group.peer(
        "ana",
        &address,
        &["--share", "talks", "--up-limit", "10MiB"],
    );
    ana.wait_for("Sharing talks/");
    for (lost, name) in [("b", "bob"), ("a", "carl")] {
        ana.say("limit up 10MiB");
        ana.wait_for("Uploads: 10.0 MiB/s");
        let mut peer = group.peer(name, &address, &["--no-seed"]);
        let dir = group.path(name);
        let is_hidden = |name: &String| name.ends_with(".folder");
        let hidden = || names_in(&dir).into_iter().find(is_hidden);
        peer.say("download -b talks");
        let runs = |root: &Path| {
            let is_large = journalled(root).is_some_and(|now| now > 1);
            is_large && root.join("a/small.txt").exists()
        };
        wait_until("a large one runs", || {
            hidden().is_some_and(|name| runs(&dir.join(name)))
        });
        fs::remove_dir_all(dir.join(hidden().unwrap()).join(lost)).unwrap();
        ana.say("limit up off");
        let line = peer.wait_for("p2pfs: cannot write");
        assert!(line.contains("download it again"), "{line}");
        assert!(transfers(&mut peer).is_empty(), "{}", peer.output());
        peer.say("download talks");
        peer.wait_for("Download successful: talks/");
        let files = [
            ("a/small.txt", 1000),
            ("b/large.bin", LEN),
            ("c/large.bin", LEN),
        ];
        for (name, len) in files {
            let one = dir.join("downloaded_talks").join(name);
            assert_same(&one, &group.path("talks").join(name), len);
        }
    }
}

/// A piece takes half a minute, and the download is seen to run all the time.
#[test]
fn a_slow_download_is_seen_to_run_before_its_first_piece() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", 3 * MIB, 1);
    let _ana = group.sharer("ana", &address, &[&file], &[]);
    let mut bob = group.peer("bob", &address, &["--no-seed", "--down-limit", "32KiB"]);
    bob.say("download -b x.bin");
    wait_until("it is seen to run", || {
        let rows = transfers(&mut bob);
        let is_seen = |row: &String| row.contains(" 0 % ") && row.contains("KiB/s from 1 peer");
        rows.len() == 1 && rows.iter().all(is_seen)
    });
}

/// Eight downloads hear of it, and people once.
#[test]
fn who_leaves_is_said_to_have_left_once() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let names = [1, 2, 3, 4, 5, 6, 7, 8].map(|number| format!("q{number}.bin"));
    let mut eva = group.peer("eva", &address, &["--up-limit", "1MiB"]);
    for (name, seed) in names.iter().zip(1..) {
        group.file(name, 20 * MIB, seed);
        eva.say(&format!("add {name}"));
        eva.wait_for("Sharing");
    }
    let config = group.path("p2pfs.toml");
    fs::write(&config, "[limits]\ndownloads = 8\n").unwrap();
    let args = ["--no-seed", "--config", config.to_str().unwrap()];
    let mut bob = group.peer("bob", &address, &args);
    bob.say(&format!("download -b {}", names.join(" ")));
    wait_until("all run", || {
        let rows = transfers(&mut bob);
        rows.len() == 8 && rows.iter().all(|row| row.contains("from 1 peer"))
    });
    eva.say("quit");
    assert_eq!(eva.exit_within(Duration::from_secs(10)), Some(0));
    bob.wait_for("! eva has left");
    wait_until("all have heard of it", || {
        let rows = transfers(&mut bob);
        rows.iter().all(|row| !row.contains("from 1 peer"))
    });
    bob.say("quit");
    bob.exit_within(Duration::from_secs(10));
    let said = bob.output();
    let (before, after) = said.split_once("eva has left").unwrap();
    // What it had no time to end may be heard of first.
    assert!(before.matches("put aside").count() <= 1, "{said}");
    assert!(
        !after.contains("put aside") && !after.contains("has left"),
        "{said}"
    );
    assert!(!said.contains("os error"), "{said}");
}

/// A seeder that leaves as it should has not been cut off, and what lies here is copied with its speed.
#[test]
fn who_leaves_is_said_to_have_left_and_a_copy_shows_its_speed() {
    const LEN: u64 = 400 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let limit = ["--up-limit", "10MiB"];
    let mut ana = group.sharer("ana", &address, &[&file], &limit);
    let mut bob = group.peer("bob", &address, &[]);
    bob.say("download -b x.bin");
    wait_until("it runs", || {
        journalled(&group.path("bob")).is_some_and(|now| now > 1)
    });
    ana.say("quit");
    assert_eq!(ana.exit_within(Duration::from_secs(10)), Some(0));
    bob.wait_for("! ana has left");
    assert!(!bob.output().contains("put aside"), "{}", bob.output());
    bob.kill();

    let out = group.folder("carl");
    let share = ["peer", "--share", file.to_str().unwrap()];
    let fetch = ["--json", "--get", "x.bin", "--exit"];
    let args = [&share[..], &fetch, &joining(&address, "carl", &out)].concat();
    let mut carl = group.start("carl.state", &args);
    assert_eq!(
        carl.exit_within(Duration::from_secs(60)),
        Some(0),
        "{}",
        carl.output()
    );
    let said = carl.output();
    let objects = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut progress = objects.filter(|object| object["type"] == "progress");
    assert!(
        progress.any(|object| object["rate"].as_u64() > Some(1 << 20) && object["peers"] == 0),
        "{said}"
    );
    assert_same(&out.join("downloaded_x.bin"), &file, LEN);
}
