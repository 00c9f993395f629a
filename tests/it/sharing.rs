//! What a peer shares: folders, what is in them, and what is left of it at the next start.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use crate::support::{Group, Process, hash, need, text, wait_until};

/// Waits until nothing below `dir` is so young that its hash would not be kept.
fn settle(dir: &Path) {
    let is_old = |path: &Path| {
        let found = path.symlink_metadata().unwrap();
        let age = SystemTime::now().duration_since(found.modified().unwrap());
        age.is_ok_and(|age| age > Duration::from_millis(3100))
    };
    wait_until("old files", || {
        let mut entries = fs::read_dir(dir).unwrap();
        entries.all(|entry| is_old(&entry.unwrap().path()))
    });
}

fn quit(peer: &mut Process) {
    peer.say("quit");
    assert_eq!(peer.exit_within(Duration::from_secs(10)), Some(0));
}

/// Ana has shared x.bin, and has left.
fn shared_before(group: &Group, address: &str) {
    let file = group.file("x.bin", 1000, 1);
    quit(&mut group.sharer("ana", address, &[&file], &[]));
}

#[test]
fn shares_are_back_at_the_next_start_and_nothing_is_read_again() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("own/x.bin", 3 << 20, 1);
    group.file("own/talks/a.bin", 1 << 20, 2);
    group.file("own/talks/b.bin", 5000, 3);
    settle(&group.path("own"));
    settle(&group.path("own/talks"));
    let mut ana = group.peer("ana", &address, &[]);
    ana.say("add own/x.bin");
    ana.wait_for("Sharing x.bin, 3.0 MiB");
    ana.say("add own/x.bin --as other.bin");
    ana.wait_for("Sharing other.bin");
    ana.say("add own/talks");
    ana.wait_for("Sharing talks/, 2 files, 1.0 MiB");
    ana.say("remove other.bin");
    ana.wait_for("Not sharing other.bin");
    quit(&mut ana);

    let mut ana = group.peer("ana", &address, &[]);
    let line = ana.wait_for("sharing what was shared before");
    assert!(line.contains("before: 2; 0 B"), "{line}");
    let listed = text(&group.once(&address, &["list", "ana"]).stdout);
    assert!(
        listed.contains("talks/ ") && listed.contains("x.bin"),
        "{listed}"
    );
    assert!(!listed.contains("other.bin"), "{listed}");
    let got = group.once(&address, &["get", "x.bin"]);
    assert!(got.status.success(), "{}", text(&got.stderr));
    assert_eq!(hash(&group.path("downloaded_x.bin")), hash(&file));
    quit(&mut ana);

    fs::remove_file(&file).unwrap();
    let mut ana = group.peer("ana", &address, &[]);
    let line = ana.wait_for("not shared again");
    assert!(line.contains("x.bin: there is no such file"), "{line}");
    ana.wait_for("before: 1; 0 B");
    // It is only away; it is forgotten when somebody says so.
    ana.say("remove x.bin");
    ana.wait_for("Not sharing x.bin");
    ana.say("remove talks");
    ana.wait_for("Not sharing talks/");
    quit(&mut ana);
    let mut ana = group.peer("ana", &address, &[]);
    ana.say("list");
    ana.wait_for("You share nothing");
    assert!(!ana.output().contains("shared again"), "{}", ana.output());
}

#[test]
fn a_command_for_once_shares_nothing_of_before() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    shared_before(&group, &address);
    let output = group
        .command("ana.state")
        .args(["files", "--tracker", &address, "--name", "ana"])
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("nothing is shared"), "{said}");
}

#[test]
fn a_listing_tells_scripts_what_is_a_folder() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("talks/a.bin", 1000, 1);
    group.file("talks.bin", 1000, 1);
    let mut ana = group.peer("ana", &address, &["--share", "talks", "talks.bin"]);
    ana.wait_for("Sharing talks/, 1 file, 1000 B");
    ana.wait_for("Sharing talks.bin, 1000 B");
    let output = group.once(&address, &["search", "--json", "talks"]);
    let said = text(&output.stdout);
    for (name, kind) in [("talks", "folder"), ("talks.bin", "file")] {
        let is_it = |line: &&str| line.contains(&format!("\"name\":\"{name}\""));
        let line = said.lines().find(is_it).unwrap();
        assert!(line.contains(&format!("\"kind\":\"{kind}\"")), "{line}");
    }
    let output = group.once(&address, &["search", "talks"]);
    let said = text(&output.stdout);
    assert!(
        said.contains("talks/ ") && said.contains("folder"),
        "{said}"
    );
}

#[test]
fn rows_66_and_67_what_is_no_file_is_skipped_with_a_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("mix/good.bin", 1000, 1);
    let at = |name: &str| group.path("mix").join(name);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    symlink("/etc/hostname", at("out")).unwrap();
    symlink("..", at("circle")).unwrap();
    fs::write(group.path("mix").join(OsStr::from_bytes(b"\xff")), "x").unwrap();
    let mut skipped = 5;
    let locked = group.file("mix/locked.bin", 10, 2);
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o0)).unwrap();
    // Nothing is locked for root.
    let is_locked = fs::read(&locked).is_err();
    skipped += usize::from(is_locked);
    let mut ana = group.peer("ana", &address, &[]);
    ana.say("add mix");
    let files = if is_locked { "1 file," } else { "2 files," };
    ana.wait_for(&format!("Sharing mix/, {files}"));
    let said = ana.output();
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.contains("is skipped"))
        .collect();
    assert_eq!(lines.len(), skipped, "{said}");
    for words in ["FIFO", "socket", "link", "not UTF-8"] {
        assert!(lines.iter().any(|line| line.contains(words)), "{said}");
    }
    for device in ["/dev/zero", "/dev/null"] {
        ana.say(&format!("add {device}"));
        ana.wait_for(&format!("cannot share {device}: it is not a plain file"));
    }
}

#[test]
fn row_58_a_changed_folder_is_shared_under_a_new_id() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("talks/a.bin", 1000, 1);
    symlink("a.bin", group.path("talks/link")).unwrap();
    let mut ana = group.peer("ana", &address, &["--share", "talks"]);
    let line = ana.wait_for("Sharing talks/");
    let id = |line: &str| line.rsplit(", ").next().unwrap().trim().to_owned();
    let first = id(&line);
    group.file("talks/new/b.bin", 2000, 2);
    let line = ana.wait_for("shared again: talks/, 2 files, 2.9 KiB");
    assert_ne!(id(&line), first);
    group.file("talks/new/c.bin", 3000, 3);
    ana.wait_for("shared again: talks/, 3 files, 5.9 KiB");
    let skipped = ana.output().matches("link is skipped").count();
    assert_eq!(skipped, 1, "{}", ana.output());
    wait_until("the tracker has the new id only", || {
        let found = text(&group.once(&address, &["search", "talks"]).stdout);
        found.lines().filter(|line| line.contains("talks/")).count() == 1 && !found.contains(&first)
    });
    fs::remove_dir_all(group.path("talks")).unwrap();
    ana.wait_for("talks/ is not shared any more: ");
    group.file("talks/a.bin", 1000, 1);
    ana.wait_for("shared again: talks/, 1 file, 1000 B");
}

/// Shows: what takes the place of a share is not published, here or at the next start, until somebody adds it.
/// How: a file, a folder, and a link that was added, each led to something else.
#[test]
fn row_58_a_link_in_the_place_of_a_share_is_not_followed() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    group.file("secret/x.bin", 1000, 1);
    group.file("first.bin", 2000, 2);
    group.file("rep/file.bin", 3000, 3);
    group.file("rep/folder/a.bin", 4000, 4);
    symlink(group.path("first.bin"), group.path("rep/link.bin")).unwrap();
    let mut ana = group.peer("ana", &address, &[]);
    for name in ["file.bin", "folder", "link.bin"] {
        ana.say(&format!("add rep/{name}"));
        ana.wait_for(&format!("Sharing {name}"));
    }
    for (name, other) in [
        ("file.bin", "secret/x.bin"),
        ("folder/", "secret"),
        ("link.bin", "secret/x.bin"),
    ] {
        let plain = name.trim_end_matches('/');
        let path = group.path("rep").join(plain);
        fs::rename(&path, group.path(plain)).unwrap();
        symlink(group.path(other), &path).unwrap();
        ana.wait_for(&format!(
            "{name} is not shared any more: it leads elsewhere now"
        ));
    }
    let is_shared = || !text(&group.once(&address, &["list", "ana"]).stdout).contains("nothing");
    wait_until("nothing is published", || !is_shared());
    quit(&mut ana);
    let mut ana = group.peer("ana", &address, &[]);
    for _ in 0..3 {
        ana.wait_for("it leads elsewhere now");
    }
    assert!(!is_shared(), "{}", ana.output());
    ana.say("add rep/file.bin");
    ana.wait_for("Sharing file.bin, 1000 B");
    fs::remove_file(group.path("rep/link.bin")).unwrap();
    fs::rename(group.path("link.bin"), group.path("rep/link.bin")).unwrap();
    ana.wait_for("shared again: link.bin, 2.0 KiB");
}

/// Shows: who fetches what he shares goes on sharing the original, whatever becomes of the copy; and of two that
/// he added himself, the other is shared when one is gone.
#[test]
fn a_copy_does_not_take_the_place_of_the_original() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let orig = group.file("files/x.bin", 3000, 1);
    group.file("files/talks/a.bin", 4000, 2);
    let fold = group.path("files/talks");
    let mut ana = group.sharer("ana", &address, &[&orig, &fold], &[]);
    let _bob = group.sharer("bob", &address, &[&orig, &fold], &[]);
    for (name, copy) in [("x.bin", "downloaded_x.bin"), ("talks", "downloaded_talks")] {
        ana.say(&format!("download {name}"));
        ana.wait_for("Download successful");
        let copy = group.path("ana").join(copy);
        assert!(copy.exists());
        let _ = fs::remove_file(&copy).or_else(|_| fs::remove_dir_all(&copy));
    }
    let copy = group.file("copy/x.bin", 3000, 1);
    ana.say("add copy/x.bin");
    ana.wait_for("Sharing x.bin");
    ana.say("list");
    let line = ana.wait_for("talks/");
    assert!(line.contains("files/talks"), "{line}");
    ana.wait_for("copy/x.bin");
    fs::remove_file(copy).unwrap();
    ana.wait_for("x.bin is not shared any more: there is no such file");
    ana.wait_for("shared again: x.bin");
    assert_eq!(ana.output().matches("not shared any more").count(), 1);
    ana.say("list");
    ana.wait_for("files/x.bin");
}

#[test]
fn a_deleted_download_is_forgotten_with_one_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let (file, own) = (group.file("x.bin", 3000, 1), group.file("own.bin", 500, 3));
    group.file("talks/a.bin", 4000, 2);
    let _ana = group.sharer("ana", &address, &[&file, &group.path("talks")], &[]);
    let mut bob = group.sharer("bob", &address, &[&own], &[]);
    for name in ["x.bin", "talks"] {
        bob.say(&format!("download {name}"));
        bob.wait_for("Download successful");
    }
    wait_until("the folder to be shared on", || {
        bob.say("list");
        bob.output().contains("talks/ ")
    });
    quit(&mut bob);
    fs::remove_file(group.path("bob/downloaded_x.bin")).unwrap();
    fs::remove_dir_all(group.path("bob/downloaded_talks")).unwrap();
    fs::remove_file(own).unwrap();
    let mut bob = group.peer("bob", &address, &[]);
    bob.wait_for("own.bin: there is no such file");
    bob.wait_for("2 downloads are gone and not shared any more: talks/, x.bin");
    assert_eq!(bob.output().matches("no such file").count(), 1);
    quit(&mut bob);
    let mut bob = group.peer("bob", &address, &[]);
    bob.wait_for("own.bin: there is no such file");
    bob.say("list");
    bob.wait_for("You share nothing");
    assert!(!bob.output().contains("gone"), "{}", bob.output());
}

#[test]
fn row_65_a_damaged_store_is_a_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    shared_before(&group, &address);
    let store = group.path("ana.state/peer/shares.redb");
    assert_eq!(
        store.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::write(&store, [0x5a; 5000]).unwrap();
    let mut ana = group.peer("ana", &address, &["--share", "x.bin"]);
    let line = ana.wait_for("was damaged");
    assert!(line.contains("shares.redb.damaged-1"), "{line}");
    ana.wait_for("Sharing x.bin");
    quit(&mut ana);
    let mut ana = group.peer("ana", &address, &[]);
    ana.wait_for("sharing what was shared before: 1");
}

#[test]
fn row_57_a_folder_of_ten_thousand_files_is_one_share() {
    const FILES: u64 = 10_000;
    let group = Group::new();
    let (tracker, address) = group.tracker();
    for number in 0..FILES {
        let dir = group.path(&format!("many/{:02}", number % 50));
        if number < 50 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(
            dir.join(number.to_string()),
            number.to_le_bytes().repeat(64),
        )
        .unwrap();
    }
    let mut ana = group.peer("ana", &address, &[]);
    for process in [&tracker, &ana] {
        process.reset_peak();
    }
    let begin = Instant::now();
    ana.say("add many");
    ana.wait_for("Sharing many/, 10000 files");
    assert!(begin.elapsed() < Duration::from_secs(20));
    for process in [&tracker, &ana] {
        assert!(process.peak_kib() < 64 * 1024, "{} KiB", process.peak_kib());
    }
    let listed = text(&group.once(&address, &["list", "ana"]).stdout);
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

#[test]
fn row_58_without_watches_a_change_is_noticed_when_somebody_asks() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", 1000, 1);
    need("unshare");
    let usual = group.command("ana.state");
    let mut command = Command::new("unshare");
    for (name, value) in usual.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    command
        .args(["--user", "--map-root-user", "sh", "-c", limit])
        .arg(usual.get_program())
        .args([
            "peer",
            "--tracker",
            &address,
            "--name",
            "ana",
            "--port",
            "0",
        ])
        .args(["--bind", "127.0.0.1", "--share", "x.bin"])
        .current_dir(group.dir.path());
    let mut ana = group.spawn("ana", command);
    ana.wait_for("changes are noticed only when somebody asks for a file: ");
    ana.wait_for("Sharing x.bin");
    let old_id = hash(&file).to_hex().to_string();
    fs::write(&file, "something else").unwrap();
    assert!(!group.once(&address, &["get", &old_id]).status.success());
    ana.wait_for("x.bin is not shared any more: it changed on disk");
    ana.wait_for("shared again: x.bin, 14 B");
}

/// Shows: what was downloaded is watched from then on, and its own last steps are no change.
/// How: another share in the same folder makes all that happens there heard of; whoever read the download once
/// more would have read its bytes.
#[test]
fn row_58_a_finished_download_is_watched_like_any_other_share() {
    const LEN: u64 = 30 << 20;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let mut ana = group.peer("ana", &address, &["--share", "x.bin"]);
    ana.wait_for("Sharing x.bin");
    let other = group.file("bob/other.txt", 1000, 2);
    let mut bob = group.peer("bob", &address, &["--share", other.to_str().unwrap()]);
    bob.wait_for("Sharing other.txt");
    bob.say("download x.bin");
    bob.wait_for("Download successful");
    let read = bob.read_bytes();
    fs::write(&other, "another one").unwrap();
    bob.wait_for("shared again: other.txt, 11 B");
    let read = bob.read_bytes() - read;
    assert!(read < LEN, "{read} bytes were read after the download");
    assert!(!bob.output().contains("x.bin is not"), "{}", bob.output());
    assert!(!bob.output().contains("again: x.bin"), "{}", bob.output());

    let got = group.path("bob/downloaded_x.bin");
    assert_eq!(hash(&got), hash(&file));
    fs::write(&got, "something else").unwrap();
    bob.wait_for("shared again: x.bin, 14 B");
    let is_told = || {
        let listed = text(&group.once(&address, &["list", "bob"]).stdout);
        listed.contains("14 B") && listed.lines().count() == 3
    };
    wait_until("the tracker has the new one only", is_told);
}
