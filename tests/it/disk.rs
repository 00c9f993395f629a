//! Downloads that meet disks which are full, fail, go away, or lose what was not synced.
//! The numbers are rows of `docs/bad-inputs.md`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::support::failing::{ANY, Failing, Faults, RENAME, SYNC_ALL, SYNC_DATA, WRITE};
use crate::support::mounts::{Mounts, fill};
use crate::support::terminal::Terminal;
use crate::support::{
    Group, Process, assert_same, names_in, need, only_fetching, text, wait_until,
};

const MIB: u64 = 1 << 20;

/// A seeder of x.bin and of a folder with it, and bob, who downloads it into a directory where calls fail as told.
struct FailingDisk {
    _tracker: Process,
    _seeder: Process,
    bob: Process,
    faults: Faults,
    file: PathBuf,
    out: PathBuf,
}

impl FailingDisk {
    fn new(group: &Group, len: u64) -> Self {
        let (tracker, address) = group.tracker();
        let file = group.file("x.bin", len, 1);
        let folder = group.folder("talks");
        fs::copy(&file, folder.join("x.bin")).unwrap();
        let seeder = group.sharer("seeder", &address, &[&file, &folder], &[]);
        let (failing, out) = (Failing::new(group), group.folder("out"));
        let mut command = group.command("bob");
        let faults = failing.prepare(&mut command, &out);
        command
            .arg("peer")
            .args(only_fetching(&address, "bob", &out));
        let mut bob = group.spawn("bob", command);
        bob.wait_for("Joined");
        Self {
            _tracker: tracker,
            _seeder: seeder,
            bob,
            faults,
            file,
            out,
        }
    }
}

/// Bytes that the part file in `dir` takes on disk.
fn part_bytes(dir: &Path) -> u64 {
    let parts = names_in(dir)
        .into_iter()
        .filter(|name| name.ends_with(".part"));
    let found = parts.filter_map(|name| fs::metadata(dir.join(name)).ok());
    found.map(|found| found.blocks() * 512).sum()
}

fn count(output: &str, words: &str) -> usize {
    output.lines().filter(|line| line.contains(words)).count()
}

fn assert_calm(output: &str) {
    assert!(!output.contains("panicked"), "{output}");
}

/// Shows: row 59. A disk that fills up in the middle pauses one download, with one line, until there is room.
/// How: a small disk, filled by another file at a third of the download; meanwhile another one goes elsewhere.
#[test]
fn row_62_a_download_waits_while_the_disk_is_full() {
    const LEN: u64 = 100 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let other = group.file("other.bin", 3 * MIB, 2);
    let _seeder = group.sharer("seeder", &address, &[&file, &other], &[]);
    let mounts = Mounts::new();
    let (out, elsewhere) = (group.folder("out"), group.folder("elsewhere"));
    mounts.run(&format!(
        "mount -t tmpfs -o size=110m tmpfs {}",
        out.display()
    ));
    let seen = mounts.see(&out);
    let args = [
        &["peer", "--down-limit", "30MiB"][..],
        &only_fetching(&address, "bob", &out),
    ]
    .concat();
    let mut bob = mounts.start(&group, "bob", &args);
    bob.wait_for("Joined");
    bob.say("download -b x.bin");
    wait_until("a third is there", || part_bytes(&seen) > LEN * 3 / 10);
    let filler = fill(&seen);
    bob.say("limit down off");
    let line = bob.wait_for("paused");
    assert!(line.contains("the disk is full"), "{line}");
    bob.say("transfers");
    let line = bob.wait_for("waiting");
    assert!(line.contains("the disk is full"), "{line}");
    bob.say(&format!("download other.bin --out {}", elsewhere.display()));
    bob.wait_for("Download successful: other.bin");
    assert_same(&elsewhere.join("downloaded_other.bin"), &other, 3 * MIB);
    fs::remove_file(filler).unwrap();
    bob.wait_for("Download successful: x.bin");
    assert_same(&seen.join("downloaded_x.bin"), &file, LEN);
    let said = bob.output();
    assert_eq!(count(&said, "paused"), 1, "{said}");
    assert_eq!(count(&said, "put aside"), 0, "{said}");
    let written = bob.written_bytes() - 3 * MIB;
    assert!(written < LEN * 11 / 10, "{written} bytes for {LEN}");
    assert_eq!(names_in(&seen), ["downloaded_x.bin"]);
}

/// Shows: row 59 and row 60. Calls that fail for a while cost time and no download.
/// How: a library lets writes, syncs and the last rename fail, each a few times, with what disks say.
#[test]
fn row_62_a_download_goes_on_after_a_disk_that_failed_for_a_while() {
    const LEN: u64 = 10 * MIB;
    let group = Group::new();
    let mut world = FailingDisk::new(&group, LEN);
    let (bob, faults) = (&mut world.bob, &world.faults);
    let (file, out) = (&world.file, &world.out);
    for (kinds, first, times, errno, words) in [
        (WRITE, 6, 5, Errno::DQUOT, "quota"),
        (WRITE, 6, 3, Errno::IO, "Input/output error"),
        (WRITE, 6, 1, Errno::NOSPC, "the disk is full"),
        // The error of writes that were said to be done: everything since the last sync comes again.
        (SYNC_DATA, 1, 1, Errno::IO, "Input/output error"),
        (SYNC_DATA, 1, 3, Errno::NOSPC, "the disk is full"),
        (SYNC_ALL, 1, 1, Errno::IO, "Input/output error"),
        // After the rename: the directory.
        (SYNC_ALL, 2, 1, Errno::IO, "Input/output error"),
        (RENAME, 1, 1, Errno::NOSPC, "the disk is full"),
    ] {
        let (before, written) = (bob.output().len(), bob.written_bytes());
        faults.set(kinds, first, times, errno);
        bob.say("download x.bin");
        bob.wait_for("Download successful");
        let said = bob.output().split_off(before);
        assert_eq!(faults.failed(), times, "{said}");
        assert_eq!(count(&said, "paused"), 1, "{said}");
        assert!(said.contains(words), "\"{words}\" is missing in: {said}");
        assert_same(&out.join("downloaded_x.bin"), file, LEN);
        assert_eq!(names_in(out), ["downloaded_x.bin"]);
        fs::remove_file(out.join("downloaded_x.bin")).unwrap();
        let written = bob.written_bytes() - written;
        if kinds == SYNC_DATA {
            assert!(written >= 2 * LEN, "{written}: nothing was fetched again");
        }
    }
    assert_calm(&bob.output());
}

/// Shows: row 60. A disk that never syncs is no endless transfer, and no line a second.
/// How: all syncs fail, until somebody has seen the download wait for a while.
#[test]
fn row_62_a_disk_that_never_syncs_is_one_line() {
    const LEN: u64 = 10 * MIB;
    let group = Group::new();
    let mut world = FailingDisk::new(&group, LEN);
    let (bob, faults) = (&mut world.bob, &world.faults);
    let (file, out) = (&world.file, &world.out);
    faults.set(SYNC_DATA, 1, u32::MAX, Errno::IO);
    bob.say("download x.bin");
    wait_until("several tries", || faults.failed() >= 4);
    faults.end();
    bob.wait_for("Download successful");
    assert_same(&out.join("downloaded_x.bin"), file, LEN);
    let said = bob.output();
    assert_eq!(count(&said, "paused"), 1, "{said}");

    // What is not durable gets no final name.
    fs::remove_file(out.join("downloaded_x.bin")).unwrap();
    faults.set(SYNC_ALL, 1, u32::MAX, Errno::IO);
    bob.say("download x.bin");
    wait_until("a second try", || faults.failed() >= 2);
    assert!(!out.join("downloaded_x.bin").exists());
    faults.end();
    bob.wait_for("Download successful");
    assert_eq!(names_in(out), ["downloaded_x.bin"]);

    // A name that is not durable is not told of as done.
    faults.set(SYNC_ALL, 1, u32::MAX, Errno::IO);
    bob.say("download talks");
    wait_until("a second try", || faults.failed() >= 2);
    assert_eq!(names_in(&out.join("downloaded_talks")), ["x.bin"]);
    assert!(!bob.output().contains("successful: talks"));
    faults.end();
    bob.wait_for("Download successful: talks");
}

/// Shows: row 61. What is known not to fit is not begun.
/// How: a disk of 8 MiB, with and without room for anything at all.
#[test]
fn row_61_too_little_space_is_a_line_and_leaves_nothing() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", 10 * MIB, 1);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let mounts = Mounts::new();
    let out = group.folder("out");
    mounts.run(&format!(
        "mount -t tmpfs -o size=8m tmpfs {}",
        out.display()
    ));
    let seen = mounts.see(&out);
    for words in [&["needs 10.0 MiB", "8.0 MiB are free"][..], &["full"]] {
        let mut get = mounts.command(&group, "bob");
        get.args(["get", "x.bin"])
            .args(only_fetching(&address, "bob", &out));
        let output = get.stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "\"{word}\" is missing in: {said}");
        }
        assert!(
            names_in(&seen).iter().all(|name| name == "filler"),
            "{:?}",
            names_in(&seen)
        );
        fill(&seen);
    }
}

/// Shows: row 74. A directory that is removed, renamed or turns read-only in the middle is one line and exit 8.
/// How: each of that while a slow download runs.
#[test]
fn row_63_a_directory_that_goes_in_the_middle_is_one_line() {
    const LEN: u64 = 20 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let mounts = Mounts::new();
    let image = group.path("image");
    File::create(&image).unwrap().set_len(64 * MIB).unwrap();
    let disk = group.folder("disk");
    let (image, mounted) = (image.display(), disk.display());
    mounts.run(&format!(
        "mkfs.ext4 -q {image} && mount -o loop {image} {mounted}"
    ));
    let slow = ["get", "x.bin", "--down-limit", "5MiB"];
    for (name, parent, line, words) in [
        (
            "removed",
            group.dir.path(),
            "rm -r DIR",
            "download it again",
        ),
        (
            "renamed",
            group.dir.path(),
            "mv DIR DIR.away",
            "no such directory",
        ),
        ("abort", &disk, "mount -o remount,abort DISK", "read-only"),
    ] {
        let out = parent.join(name);
        fs::create_dir(mounts.see(&out)).unwrap();
        let args = [&slow[..], &only_fetching(&address, name, &out)].concat();
        let mut get = mounts.start(&group, &format!("{name}.state"), &args);
        wait_until("it runs", || part_bytes(&mounts.see(&out)) > MIB);
        let line = line.replace("DIR", out.to_str().unwrap());
        mounts.run(&line.replace("DISK", disk.to_str().unwrap()));
        let code = get.exit_within(Duration::from_secs(30));
        let said = get.output();
        assert_eq!(code, Some(8), "{name}: {said}");
        assert_eq!(count(&said, "cannot write"), 1, "{said}");
        assert!(said.contains(words), "\"{words}\" is missing in: {said}");
        assert_calm(&said);
    }
}

/// Shows: row 60. Whichever call fails: no wrong file, no panic, and the next run is right.
/// How: of all calls that a download makes on its directory, the first fails, then only the second, and so on.
#[test]
fn row_62_any_call_may_fail() {
    const LEN: u64 = 3 * MIB + 7;
    const WORKERS: u32 = 6;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let failing = Failing::new(&group);
    let codes = Mutex::new(Vec::new());
    let next = AtomicU32::new(0);
    // `false` when there are fewer calls than `nth`.
    let fails = |nth: u32, errno: Errno| {
        let name = format!("n{nth}e{}", errno.raw_os_error());
        let out = group.folder(&format!("out-{name}"));
        let mut get = group.command(&format!("{name}.state"));
        let faults = failing.prepare(&mut get, &out);
        get.args(["get", "x.bin"])
            .args(only_fetching(&address, &name, &out));
        get.stdin(Stdio::null());
        faults.set(ANY, nth, 1, errno);
        let mut run = || {
            let output = get.output().unwrap();
            let (code, said) = (output.status.code(), text(&output.stderr));
            assert_calm(&said);
            for name in names_in(&out) {
                assert!(
                    name.starts_with(".p2pfs-") || name == "downloaded_x.bin",
                    "{name}"
                );
            }
            if out.join("downloaded_x.bin").exists() {
                assert_same(&out.join("downloaded_x.bin"), &file, LEN);
            }
            (code, said)
        };
        let (code, said) = run();
        let has_failed = faults.failed() > 0;
        if code != Some(0) {
            assert_eq!(code, Some(8), "{nth}, {errno}: {said}");
            assert!(said.contains("cannot write"), "{nth}, {errno}: {said}");
            assert!(has_failed, "{said}");
            faults.end();
            assert_eq!(run().0, Some(0), "{nth}, {errno}");
        }
        assert_eq!(
            names_in(&out),
            ["downloaded_x.bin"],
            "{nth}, {errno}: {said}"
        );
        codes.lock().unwrap().extend(code);
        has_failed
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let errno = [Errno::NOSPC, Errno::IO][number as usize % 2];
                    if !fails(number / 2 + 1, errno) {
                        return;
                    }
                }
            });
        }
    });
    let codes = codes.into_inner().unwrap();
    assert!(codes.len() > 30, "{} runs", codes.len());
    assert!(codes.contains(&8), "some calls cannot be done without");
}

/// Cuts the power of an ext4 file system: nothing more reaches the disk, what was not synced is gone.
const CUT: &str = r#"
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
int main(int count, char **words) {
    uint32_t without_journal = 2;
    return ioctl(open(words[count - 1], O_RDONLY), _IOR('X', 125, uint32_t), &without_journal);
}
"#;

/// Shows: row 45. What was called finished survives a power cut, and nothing wrong ever does.
/// How: a file system in a file is shut down as a power cut would, at moments of all phases and at once after
/// "Download successful".
#[test]
fn row_45_a_power_cut_takes_nothing_that_was_finished() {
    const LEN: u64 = 40 * MIB;
    need("cc");
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let mut seeder = group.sharer("seeder", &address, &[&file], &[]);
    seeder.say("limit up 25MiB");
    let mounts = Mounts::new();
    let (image, out) = (group.path("image"), group.folder("out"));
    File::create(&image).unwrap().set_len(160 * MIB).unwrap();
    let seen = mounts.see(&out);
    let mount = format!("mount -o loop {} {}", image.display(), out.display());
    mounts.run(&format!("mkfs.ext4 -q {} && {mount}", image.display()));
    let cut = group.path("cut");
    fs::write(group.path("cut.c"), CUT).unwrap();
    let compiled = Command::new("cc")
        .arg("-o")
        .args([&cut, &group.path("cut.c")])
        .status();
    assert!(compiled.unwrap().success());

    let get = [&["get", "x.bin"][..], &only_fetching(&address, "bob", &out)].concat();
    let fetch_until = |what: &str, is_so: &dyn Fn(&Process) -> bool| {
        let mut get = mounts.start(&group, "bob", &get);
        wait_until(what, || is_so(&get));
        mounts.run(&format!("{} {}", cut.display(), out.display()));
        get.kill();
        assert_calm(&get.output());
        mounts.run(&format!("umount {} && {mount}", out.display()));
    };
    let finished = seen.join("downloaded_x.bin");
    let remove = || {
        fs::remove_file(&finished).unwrap();
        // Or the next cut would bring it back.
        File::open(&seen).unwrap().sync_all().unwrap();
    };
    let is_hidden = |name: &String| name.starts_with(".p2pfs-") || name == "lost+found";
    let (mut early, mut cuts) = (0, 0);
    for moment in [0, 1, 7, 20, 33, 39, 40, 41, 41, 41] {
        fetch_until("the moment", &|_| match moment {
            41 => names_in(&seen)
                .iter()
                .any(|name| name.starts_with("downloaded_")),
            0 => names_in(&seen).iter().any(|name| name.ends_with(".part")),
            _ => part_bytes(&seen) >= moment * MIB || finished.exists(),
        });
        if finished.exists() {
            assert_same(&finished, &file, LEN);
            remove();
        } else {
            early += 1;
        }
        assert!(
            names_in(&seen).iter().all(is_hidden),
            "{:?}",
            names_in(&seen)
        );

        fetch_until("the end", &|get| {
            get.output().contains("Download successful")
        });
        assert_same(&finished, &file, LEN);
        remove();
        assert!(
            names_in(&seen).iter().all(is_hidden),
            "{:?}",
            names_in(&seen)
        );
        cuts += 2;
    }
    assert!(
        early >= 5 && cuts >= 10,
        "{early} of {cuts} cuts came before the end"
    );
}

/// Hidden files in `dir`.
fn hidden_in(dir: &Path) -> Vec<String> {
    let names = names_in(dir).into_iter();
    names.filter(|name| name.starts_with(".p2pfs-")).collect()
}

/// What is paused stands still and goes on where it was, what is cancelled is gone: also while somebody else
/// is fetching from it.
#[test]
fn a_paused_download_goes_on_where_it_was_and_a_cancelled_one_leaves_nothing() {
    const LEN: u64 = 60 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let files = ["x.bin", "y.bin"].map(|name| group.file(name, LEN, name.as_bytes()[0]));
    let small = group.file("small.bin", 3 * MIB, 3);
    let _seeder = group.sharer("seeder", &address, &[&files[0], &files[1], &small], &[]);
    let mut bob = group.peer("bob", &address, &["--down-limit", "10MiB"]);
    let mut carl = group.peer("carl", &address, &["--no-seed", "--down-limit", "1MiB"]);
    let dir = group.path("bob");
    let mut begin = |bob: &mut Process, name: &str| {
        bob.say(&format!("download -b {name}"));
        wait_until("it runs", || part_bytes(&dir) > 5 * MIB);
        wait_until("others know", || {
            text(&group.once(&address, &["list", "bob"]).stdout).contains(name)
        });
        let before = part_bytes(&group.path("carl"));
        carl.say(&format!("download -b {name} --from bob"));
        wait_until("carl fetches", || part_bytes(&group.path("carl")) > before);
    };
    begin(&mut bob, "x.bin");
    bob.say("pause");
    bob.wait_for("Paused 1, x.bin");
    bob.say("transfers");
    bob.wait_for("  paused");
    let mut paused = Vec::new();
    for _ in 0..2 {
        bob.say("download small.bin");
        bob.wait_for("Download successful: small.bin");
        paused.push(part_bytes(&dir));
    }
    assert_eq!(paused[0], paused[1], "bytes came while it was paused");
    bob.say("resume 1");
    bob.wait_for("Resumed 1, x.bin");
    wait_until("it goes on", || part_bytes(&dir) > paused[1]);
    assert_eq!(hidden_in(&dir).len(), 2, "{:?}", hidden_in(&dir));
    bob.say("limit down off");
    bob.wait_for("downloads: no limit");
    let done = bob.wait_for("Download successful: x.bin");
    assert!(done.contains("were here"), "{done}");
    assert_same(&dir.join("downloaded_x.bin"), &files[0], LEN);

    bob.say("limit down 10MiB");
    bob.wait_for("downloads: 10.0 MiB/s");
    for (number, is_paused) in [(4, false), (5, true)] {
        begin(&mut bob, "y.bin");
        if is_paused {
            bob.say(&format!("pause {number}"));
            bob.wait_for("Paused");
        }
        bob.say(&format!("cancel {number}"));
        bob.wait_for(&format!("Cancelled {number}, y.bin"));
        wait_until("nothing is left", || hidden_in(&dir).is_empty());
    }
    bob.say("transfers");
    bob.wait_for("Nothing is being downloaded");
    assert_calm(&bob.output());
}

/// Shows: row 57. Runs of one download in one directory, which do not know of each other, and one of which is
/// killed: what it leaves goes with the others.
#[test]
fn row_45_two_runs_of_one_download_do_not_meet() {
    const LEN: u64 = 20 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let out = group.folder("out");
    let [mut killed, mut runs @ ..] = ["carl", "ana", "bob"].map(|name| {
        let slow = ["get", "x.bin", "--down-limit", "5MiB"];
        group.start(
            name,
            &[&slow[..], &only_fetching(&address, name, &out)].concat(),
        )
    });
    wait_until("all run", || hidden_in(&out).len() == 6);
    killed.kill();
    for run in &mut runs {
        run.wait_for("Download successful");
        assert_eq!(run.exit_within(Duration::from_secs(10)), Some(0));
    }
    let names = ["downloaded_x.bin", "downloaded_x.bin (2)"];
    assert_eq!(names_in(&out), names);
    for name in names {
        assert_same(&out.join(name), &file, LEN);
    }
}

/// Shows: row 74. Whoever sits there is told once of a directory that is away, and it goes on when it is back;
/// what is typed steers a download meanwhile.
#[test]
fn row_63_at_a_terminal_a_download_waits_for_its_directory() {
    const LEN: u64 = 20 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 1);
    let _seeder = group.sharer("seeder", &address, &[&file], &[]);
    let (out, away) = (group.folder("out"), group.path("away"));
    let passphrase = group.path("passphrase");
    let variables = [("P2PFS_PASSPHRASE_FILE", passphrase.to_str().unwrap())];
    let args = [
        &["peer", "--down-limit", "5MiB"][..],
        &only_fetching(&address, "bob", &out),
    ]
    .concat();
    let mut bob = Terminal::start_in(&group, "bob", &args, &variables);
    bob.wait_for("Joined");
    bob.type_line("download x.bin");
    wait_until("it runs", || part_bytes(&out) > MIB);
    bob.type_line("pause");
    bob.wait_for("Paused 1, x.bin");
    bob.type_line("resume");
    bob.wait_for("Resumed 1, x.bin");
    bob.type_line("limit down off");
    bob.wait_for("downloads: no limit");
    wait_until("it runs", || part_bytes(&out) > 3 * MIB);
    fs::rename(&out, &away).unwrap();
    bob.wait_for("paused: ");
    bob.wait_for("no such directory");
    bob.type_line("transfers");
    bob.wait_for("waiting: ");
    fs::rename(&away, &out).unwrap();
    let before = bob.wait_for("Download successful");
    assert!(!before.contains("paused: "), "{before}");
    assert_same(&out.join("downloaded_x.bin"), &file, LEN);
    assert_eq!(names_in(&out), ["downloaded_x.bin"]);
}

/// Shows: row 56. Many downloads at once stay within bounded memory.
#[test]
fn row_56_fifty_downloads_at_once_in_little_memory() {
    const COUNT: u64 = 50;
    const LEN: u64 = 6 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut seeder = group.peer("seeder", &address, &[]);
    for number in 0..COUNT {
        group.file(
            &format!("many/f{number}"),
            LEN,
            u8::try_from(number).unwrap(),
        );
        seeder.say(&format!("add many/f{number}"));
        seeder.wait_for("Sharing");
    }
    let config = group.path("p2pfs.toml");
    fs::write(&config, "[limits]\ndownloads = 50\n").unwrap();
    let more = [
        "--config",
        config.to_str().unwrap(),
        "--no-seed",
        "--down-limit",
        "20MiB",
    ];
    let mut bob = group.peer("bob", &address, &more);
    bob.reset_peak();
    for number in 0..COUNT {
        bob.say(&format!("download -b f{number}"));
    }
    let parts = || hidden_in(&group.path("bob")).len() as u64 / 2;
    wait_until("all run", || parts() == COUNT);
    bob.say("limit down off");
    for _ in 0..COUNT {
        bob.wait_for("Download successful");
    }
    let peak = bob.peak_kib();
    for number in 0..COUNT {
        let [one, two] = [
            format!("bob/downloaded_f{number}"),
            format!("many/f{number}"),
        ];
        assert_same(&group.path(&one), &group.path(&two), LEN);
    }
    assert!(peak < 150 * 1024, "{peak} KiB");
}
