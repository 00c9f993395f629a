//! Folders that travel between real peers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use crate::support::{Group, names_in, text, wait_until};

const MIB: u64 = 1 << 20;

/// Everything below `dir`: of files their bytes, time and executable bit.
type Tree = BTreeMap<String, Option<(blake3::Hash, i64, i64, bool)>>;

fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            let known = path.symlink_metadata().unwrap();
            if known.is_dir() {
                found.insert(name, None);
                folders.push(path);
            } else {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(File::open(&path).unwrap()).unwrap();
                let is_executable = known.permissions().mode() & 0o100 != 0;
                let facts = (
                    hasher.finalize(),
                    known.mtime(),
                    known.mtime_nsec(),
                    is_executable,
                );
                found.insert(name, Some(facts));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn assert_equal(one: &Tree, two: &Tree) {
    let differs = |(name, facts): &(&String, _)| two.get(*name) != Some(*facts);
    let differing: Vec<_> = one.iter().filter(differs).map(|(name, _)| name).collect();
    assert!(
        differing.is_empty() && one.len() == two.len(),
        "{differing:?}"
    );
}

/// A folder of many small files, a few large ones, empty ones, deep ones, and one that can be run.
fn make_folder(group: &Group) -> std::path::PathBuf {
    let root = group.folder("talks");
    for number in 0_u64..1500 {
        let name = format!("talks/{}/{number}", number % 7);
        group.file(&name, 1 + number * 7 % 5000, 3);
    }
    group.file("talks/large/one", 3 * MIB + 5, 4);
    group.file("talks/large/two", MIB + 1, 5);
    group.file("talks/a/b/c/d/exactly", MIB, 6);
    File::create(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("hollow/inside")).unwrap();
    let tool = group.file("talks/tool.sh", 20, 7);
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    File::open(&tool)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 7))
        .unwrap();
    root
}

#[test]
fn a_folder_arrives_as_one_and_equal() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let mut seeder = group.peer("seeder", &address, &["--share", root.to_str().unwrap()]);
    seeder.wait_for("Sharing talks/, 1505 files");
    let mut leecher = group.peer("leecher", &address, &[]);
    leecher.say("download talks");
    let said = leecher.wait_for("Download successful");
    assert!(
        said.contains("1505 files") && said.contains("from 1 peer, verified"),
        "{said}"
    );
    let fetched = group.path("leecher/downloaded_talks");
    assert_equal(&tree(&fetched), &tree(&root));
    assert_eq!(names_in(&group.path("leecher")), ["downloaded_talks"]);

    // It is shared on under its name, and what is there is not replaced.
    seeder.say("quit");
    seeder.exit_within(Duration::from_secs(5));
    wait_until("the folder to be shared on", || {
        leecher.say("list");
        leecher.output().contains("talks/")
    });
    let out = group.folder("out");
    fs::write(out.join("downloaded_talks"), "mine").unwrap();
    let output = group.once(&address, &["get", "talks", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_equal(&tree(&out.join("downloaded_talks (2)")), &tree(&root));
    assert_eq!(
        fs::read_to_string(out.join("downloaded_talks")).unwrap(),
        "mine"
    );
}

#[test]
fn row_66_a_key_is_never_shared() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("home/file", 10, 1);
    group.file("home/state/peer/identity.key", 32, 2);
    let mut ana = group.peer("ana", &address, &[]);
    ana.say("add home");
    ana.wait_for("home/state/peer is skipped: p2pfs keeps its keys there");
    ana.wait_for("Sharing home/, 1 file, 10 B");
    for path in ["home/state/peer", "home/state/peer/identity.key"] {
        ana.say(&format!("add {path}"));
        ana.wait_for(&format!("{path}: p2pfs keeps its keys there"));
    }
}

#[test]
fn a_killed_download_of_a_folder_goes_on_and_ends_right() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let rate = ["--up-limit", "4MiB"];
    let share = ["--share", root.to_str().unwrap()];
    let mut seeder = group.peer("seeder", &address, &[&share[..], &rate].concat());
    seeder.wait_for("Sharing");
    let out = group.folder("out");
    let args = [
        "get",
        "talks",
        "--tracker",
        &address,
        "--port",
        "0",
        "--name",
        "bob",
        "--out",
        out.to_str().unwrap(),
        "--json",
    ];
    let mut here = 0;
    for _ in 0..3 {
        let mut leecher = group.start("bob", &args);
        wait_until("files to come", || files_below(&out) > here + 100);
        leecher.kill();
        assert!(
            names_in(&out)
                .iter()
                .all(|name| name.starts_with(".p2pfs-"))
        );
        let now = files_below(&out);
        assert!(now >= here, "{now} files of {here}");
        here = now;
    }
    seeder.say("limit up off");
    let output = group.once(&address, &["get", "talks", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("were here"),
        "{}",
        text(&output.stdout)
    );
    assert_equal(&tree(&out.join("downloaded_talks")), &tree(&root));
    assert_eq!(names_in(&out), ["downloaded_talks"]);
}

fn files_below(dir: &Path) -> usize {
    let mut count = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => count += 1,
            }
        }
    }
    count
}

#[test]
fn two_peers_share_the_work_on_a_folder_and_one_may_lose_a_file() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let copy = group.path("copy/talks");
    fs::create_dir_all(&copy).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(root.join("."))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let mut one = group.peer("one", &address, &["--share", root.to_str().unwrap()]);
    let mut two = group.peer("two", &address, &["--share", copy.to_str().unwrap()]);
    one.wait_for("Sharing");
    two.wait_for("Sharing");
    let expected = tree(&root);
    // Gone behind the back of the one that shares it: it cannot serve the whole run any more.
    fs::remove_file(root.join("3/3")).unwrap();
    let out = group.folder("out");
    let output = group.once(&address, &["get", "talks", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_equal(&tree(&out.join("downloaded_talks")), &expected);
}

#[test]
fn cancelling_a_folder_leaves_nothing() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let root = make_folder(&group);
    let mut seeder = group.peer(
        "seeder",
        &address,
        &["--share", root.to_str().unwrap(), "--up-limit", "1MiB"],
    );
    seeder.wait_for("Sharing");
    let mut leecher = group.peer("leecher", &address, &[]);
    leecher.say("download -b talks");
    let dir = group.path("leecher");
    wait_until("files to come", || files_below(&dir) > 10);
    leecher.say("transfers");
    leecher.wait_for("talks");
    leecher.say("cancel 1");
    leecher.wait_for("Cancelled 1, talks");
    wait_until("all of it to be gone", || names_in(&dir).is_empty());
}
