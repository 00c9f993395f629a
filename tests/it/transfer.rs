//! Files that travel between real peers, and what must not stop or spoil them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Group, assert_same, hash, names_in, text, wait_until};

const MIB: u64 = 1 << 20;

#[test]
fn row_56_files_of_every_size_arrive_whole() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut seeder = group.peer("seeder", &address, &[]);
    let mut leecher = group.peer("leecher", &address, &[]);
    for len in [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7] {
        let name = format!("f{len}");
        let file = group.file(&name, len, 1);
        seeder.say(&format!("add {name}"));
        let sharing = seeder.wait_for("Sharing ");
        assert!(sharing.contains(&hash(&file).to_hex()[..8]), "{sharing}");
        leecher.say(&format!("download {name}"));
        leecher.wait_for("Download successful");
        assert_same(
            &group.path(&format!("leecher/downloaded_{name}")),
            &file,
            len,
        );
    }
    let zeros = group.path("zeros");
    File::create(&zeros).unwrap().set_len(5 * MIB).unwrap();
    seeder.say("add zeros");
    seeder.wait_for("Sharing ");
    leecher.say("download zeros");
    leecher.wait_for("Download successful");
    assert_same(&group.path("leecher/downloaded_zeros"), &zeros, 5 * MIB);
    assert!(
        names_in(&group.path("leecher"))
            .iter()
            .all(|name| name.starts_with("downloaded_"))
    );
}

#[test]
fn a_file_of_5_gib_arrives_whole_in_little_memory() {
    const LEN: u64 = 5 << 30;
    let group = Group::new();
    let (tracker, address) = group.tracker();
    let path = group.path("large.bin");
    let file = File::create(&path).unwrap();
    file.set_len(LEN).unwrap();
    // Mostly a hole, with marks where counters of 32 bits and pages of hashes end.
    for at in [
        0,
        MIB - 3,
        (1 << 30) - 5,
        (1 << 32) - 7,
        (1 << 32) + 9,
        LEN - 11,
    ] {
        file.write_all_at(format!("mark {at}").as_bytes(), at.min(LEN - 16))
            .unwrap();
    }
    let mut seeder = group.peer("seeder", &address, &[]);
    let mut leecher = group.peer("leecher", &address, &["--no-seed"]);
    // The key derivation at the start needs its 64 MiB once; what counts is the work after it.
    for process in [&tracker, &seeder, &leecher] {
        process.reset_peak();
    }
    seeder.say("add large.bin");
    let sharing = seeder.wait_for("Sharing large.bin, 5.0 GiB");
    leecher.say("download large.bin");
    let done = leecher.wait_for("Download successful");
    assert!(done.contains("verified"), "{done}");
    for (name, process) in [
        ("tracker", &tracker),
        ("seeder", &seeder),
        ("leecher", &leecher),
    ] {
        let peak = process.peak_kib();
        assert!(peak < 64 * 1024, "{name}: {peak} KiB");
    }
    let copy = group.path("leecher/downloaded_large.bin");
    assert_eq!(copy.metadata().unwrap().len(), LEN);
    let id = hash(&path).to_hex();
    assert_eq!(hash(&copy).to_hex(), id);
    assert!(
        sharing.contains(&id[..8]),
        "{sharing} is not what b3sum prints: {id}"
    );
}

#[test]
fn row_46_two_seeders_share_the_work_and_one_may_die() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("shared.bin", 300 * MIB, 5);
    let mut one = group.peer("one", &address, &["--share", file.to_str().unwrap()]);
    let mut two = group.peer("two", &address, &["--share", file.to_str().unwrap()]);
    one.wait_for("Sharing");
    two.wait_for("Sharing");
    let mut leecher = group.peer("leecher", &address, &["--no-seed"]);
    leecher.say("download shared.bin");
    let done = leecher.wait_for("Download successful");
    assert!(done.contains("from 2 peers"), "{done}");
    fs::remove_file(group.path("leecher/downloaded_shared.bin")).unwrap();

    leecher.say("download shared.bin");
    wait_until("the download has begun", || {
        names_in(&group.path("leecher"))
            .iter()
            .any(|name| name.ends_with(".part"))
    });
    one.kill();
    leecher.wait_for("Download successful");
    assert_same(
        &group.path("leecher/downloaded_shared.bin"),
        &file,
        300 * MIB,
    );
}

#[test]
fn row_45_a_killed_downloader_leaves_nothing_wrong_under_the_final_name() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("shared.bin", 200 * MIB, 6);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let out = group.folder("out");
    let mut kills = 0;
    for pause_ms in [0, 10, 30, 60, 100, 160, 250, 400] {
        let args = [
            "get",
            "shared.bin",
            "--tracker",
            &address,
            "--port",
            "0",
            "--out",
            out.to_str().unwrap(),
            "--no-seed",
            "--name",
            "bob",
        ];
        let mut leecher = group.start("bob", &args);
        // Argon2 first; then the moment is drawn from all phases of a download.
        std::thread::sleep(Duration::from_millis(300 + pause_ms));
        kills += u32::from(leecher.child.try_wait().unwrap().is_none());
        leecher.kill();
        for name in names_in(&out) {
            if name.starts_with("downloaded_") {
                assert_same(&out.join(&name), &file, 200 * MIB);
                fs::remove_file(out.join(name)).unwrap();
            } else {
                assert!(
                    name.starts_with(".p2pfs-")
                        && (name.ends_with(".part") || name.ends_with(".journal")),
                    "{name}"
                );
            }
        }
    }
    assert!(kills > 0, "none was killed in time");
    let output = group.once(
        &address,
        &[
            "get",
            "shared.bin",
            "--out",
            out.to_str().unwrap(),
            "--no-seed",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        names_in(&out),
        ["downloaded_shared.bin"],
        "what the killed ones left is used up"
    );
}

#[test]
fn row_64_nothing_that_exists_is_overwritten() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.txt", 1000, 7);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let out = group.folder("out");
    fs::write(out.join("downloaded_x.txt"), "mine").unwrap();
    let output = group.once(&address, &["get", "x.txt", "--out", out.to_str().unwrap()]);
    assert!(output.status.success());
    assert_eq!(
        fs::read_to_string(out.join("downloaded_x.txt")).unwrap(),
        "mine"
    );
    assert_same(&out.join("downloaded_x.txt (2)"), &file, 1000);
}

#[test]
fn row_58_a_file_that_changes_is_withdrawn_with_a_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.txt", 1000, 7);
    let mut seeder = group.sharer("seeder", &address, &[&file], &[]);
    let old_id = hash(&file).to_hex().to_string();
    fs::write(&file, "something else").unwrap();
    let output = group.once(&address, &["get", &old_id]);
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(4 | 5)), "{said}");
    assert!(
        !names_in(group.dir.path())
            .iter()
            .any(|name| name.starts_with("downloaded_"))
    );
    seeder.wait_for("shared again: x.txt, 14 B");
    let output = group.once(&address, &["get", "x.txt"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let copy = fs::read_to_string(group.path("downloaded_x.txt")).unwrap();
    assert_eq!(copy, "something else");

    fs::remove_file(&file).unwrap();
    let output = group.once(&address, &["get", "x.txt"]);
    assert!(!output.status.success());
    seeder.wait_for("x.txt is not shared any more: ");
    let search = group.once(&address, &["search", "x.txt"]);
    assert_eq!(search.status.code(), Some(5));
}

#[test]
fn row_63_a_download_directory_that_will_not_do_is_one_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.txt", 1000, 7);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    for (out, words) in [
        ("gone", "no such directory"),
        ("x.txt", "not a directory"),
        ("/proc", "cannot write"),
    ] {
        let output = group.once(&address, &["get", "x.txt", "--out", out]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{said}");
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn row_40_two_contents_of_one_name_are_a_question() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let (one, two) = (
        group.file("one/talk.mp4", 1000, 1),
        group.file("two/talk.mp4", 2000, 2),
    );
    let mut ana = group.peer("ana", &address, &["--share", one.to_str().unwrap()]);
    let mut bob = group.peer("bob", &address, &["--share", two.to_str().unwrap()]);
    ana.wait_for("Sharing");
    bob.wait_for("Sharing");
    let output = group.once(&address, &["get", "talk.mp4"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let choice = format!("talk.mp4#{}", &hash(&two).to_hex()[..4]);
    assert!(said.contains(&choice), "{said}");
    let out = group.folder("out");
    assert!(
        group
            .once(&address, &["get", &choice, "--out", out.to_str().unwrap()])
            .status
            .success()
    );
    assert_same(&out.join("downloaded_talk.mp4"), &two, 2000);
    let from = [
        "get",
        "talk.mp4",
        "--from",
        "ana",
        "--out",
        out.to_str().unwrap(),
    ];
    assert!(group.once(&address, &from).status.success());
    assert_same(&out.join("downloaded_talk.mp4 (2)"), &one, 1000);
    let listed = text(&group.once(&address, &["list", "ana"]).stdout);
    assert!(
        listed.contains("talk.mp4") && listed.contains(&hash(&one).to_hex()[..8]),
        "{listed}"
    );
    let info = text(&group.once(&address, &["info", &choice]).stdout);
    assert!(info.contains(hash(&two).to_hex().as_str()), "{info}");
}

#[test]
fn rows_67_to_71_odd_names_are_harmless() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut seeder = group.peer("seeder", &address, &[]);
    let out = group.folder("out");
    for (local, shown, saved) in [
        ("a b.txt", "a b.txt", "downloaded_a b.txt"),
        ("-x", "-x", "downloaded_-x"),
        ("$(x)`y`", "$(x)`y`", "downloaded_$(x)`y`"),
        ("line\nbreak", "line_break", "downloaded_line_break"),
        ("esc\x1b[31m", "esc_[31m", "downloaded_esc_[31m"),
        ("gpj\u{202e}exe", "gpj\\u{202e}exe", "downloaded_gpj_exe"),
    ] {
        let path = group.file(&format!("odd/{local}"), 100, 9);
        // A name with a line break cannot be typed; it is shared by an argument.
        let args = [
            "share",
            "--tracker",
            &address,
            "--port",
            "0",
            "--name",
            "odd",
            "--",
            path.to_str().unwrap(),
        ];
        let mut odd = group.start("odd", &args);
        let line = odd.wait_for("Sharing ");
        assert!(line.contains(&format!("Sharing {shown},")), "{line}");
        let id = hash(&path).to_hex().to_string();
        let output = group.once(
            &address,
            &["get", &id, "--out", out.to_str().unwrap(), "--no-seed"],
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(
            names_in(&out).contains(&saved.to_owned()),
            "{:?}",
            names_in(&out)
        );
        let printed = text(&output.stdout) + &text(&output.stderr);
        assert!(
            !printed.contains('\x1b') && !printed.contains('\u{202e}'),
            "{printed:?}"
        );
        odd.signal(rustix::process::Signal::INT);
        assert_eq!(odd.exit_within(Duration::from_secs(5)), Some(0));
    }
    seeder.say("quit");
}

#[test]
fn row_68_rights_of_the_source_are_not_taken_over() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("tool", 100, 1);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let out = group.folder("out");
    assert!(
        group
            .once(&address, &["get", "tool", "--out", out.to_str().unwrap()])
            .status
            .success()
    );
    fs::write(out.join("plain"), "").unwrap();
    let mode = |name| out.join(name).metadata().unwrap().permissions().mode();
    let (mode, plain) = (mode("downloaded_tool"), mode("plain"));
    assert_eq!(mode & 0o7111, 0, "{mode:o}");
    assert_eq!(mode, plain, "as any other new file of the user");
}

/// Turns a bit of a shared file without a trace in its times, and through another name, so that nobody
/// hears of it: a disk that rots, or a seeder that lies.
pub(crate) fn rot(path: &Path, offset: u64) {
    let elsewhere = tempfile::tempdir_in(path.ancestors().nth(2).unwrap()).unwrap();
    let link = elsewhere.path().join("link");
    fs::hard_link(path, &link).unwrap();
    let file = File::options().read(true).write(true).open(link).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn row_47_a_lying_seeder_is_put_aside_and_when_all_lie_nothing_is_kept() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut seeders = ["liar", "honest"].map(|name| {
        let file = group.file(&format!("{name}.d/x.bin"), 40 * MIB, 9);
        let mut seeder = group.peer(name, &address, &["--share", file.to_str().unwrap()]);
        seeder.wait_for("Sharing");
        seeder
    });
    for piece in 0..40 {
        rot(&group.path("liar.d/x.bin"), piece * MIB + 77);
    }
    let out = group.folder("out");
    let get = ["get", "x.bin", "--out", out.to_str().unwrap()];
    let output = group.once(&address, &get);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (fetched, right) = (out.join("downloaded_x.bin"), group.path("honest.d/x.bin"));
    assert_same(&fetched, &right, 40 * MIB);
    fs::remove_file(fetched).unwrap();

    seeders[1].say("quit");
    seeders[1].exit_within(Duration::from_secs(5));
    let output = group.once(&address, &get);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("wrong data"), "{said}");
    assert!(names_in(&out).is_empty(), "{:?}", names_in(&out));
}

#[test]
fn a_listed_peer_that_takes_no_connection_ends_a_download_with_a_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", MIB, 3);
    let seeder = group.sharer("seeder", &address, &[&file], &[]);
    // Without another descriptor it goes on greeting the tracker, but accepts nobody.
    let pid = rustix::process::Pid::from_child(&seeder.child);
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Nofile, none).unwrap();
    let begin = Instant::now();
    let output = group.once(&address, &["get", "x.bin"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("not reachable"), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn row_62_a_file_size_limit_is_a_line_and_not_the_end_by_a_signal() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", 5 * MIB, 3);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let out = group.folder("out");
    let limited = group.command("limited");
    let mut shell = Command::new("sh");
    for (name, value) in limited.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    let output = shell
        .args(["-c", "ulimit -f 1000; exec \"$0\" \"$@\""])
        .arg(limited.get_program())
        .args(["get", "x.bin", "--tracker", &address, "--name", "limited"])
        .args(["--out", out.to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("may not become so large"), "{said}");
    assert!(names_in(&out).is_empty(), "{:?}", names_in(&out));
}
