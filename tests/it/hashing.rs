//! What others see of a file while it is being hashed.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::support::failing::library;
use crate::support::{Group, Process, assert_same, joining, text, wait_until};

const MIB: u64 = 1 << 20;

/// Holds up whoever reads from a file in a directory by its position, while there is a file `hold`.
const HOLD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
ssize_t pread64(int fd, void *buffer, size_t len, off64_t at) {
    const char *dir = getenv("HOLD_DIR");
    char link[64], path[4200] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0 && !strncmp(path, dir, strlen(dir)))
        while (!access(getenv("HOLD"), F_OK)) usleep(10000);
    return ((ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64"))(fd, buffer, len, at);
}
"#;

/// A configuration with which a script looks again very often.
fn patient(group: &Group) -> String {
    let text = "[retry]\nattempts = 10000\nfirst = \"100ms\"\nmost = \"200ms\"\n";
    group
        .write_private("patient.toml", text)
        .display()
        .to_string()
}

/// A peer whose hashing takes as long as a test wants.
struct Slow {
    peer: Process,
    hold: PathBuf,
}

impl Slow {
    fn new(group: &Group, address: &str) -> Self {
        let (own, out, hold) = (group.folder("own"), group.folder("ana"), group.path("hold"));
        let mut command = group.command("ana.state");
        command
            .env("LD_PRELOAD", library(group, "hold", HOLD))
            .env("HOLD_DIR", own)
            .env("HOLD", &hold);
        command.arg("peer").args(joining(address, "ana", &out));
        let mut peer = group.spawn("ana", command);
        peer.wait_for("Joined");
        Self { peer, hold }
    }

    /// Begins to share what does not get hashed before [`Self::go_on`].
    fn begin(&mut self, path: &str) {
        fs::write(&self.hold, "").unwrap();
        self.peer.say(&format!("add {path}"));
    }

    fn go_on(&mut self) {
        fs::remove_file(&self.hold).unwrap();
        self.peer.wait_for("Sharing");
    }
}

/// Shows: a file and a folder can be found by their names while they are hashed, with no id that is not proved, and
/// a download of them waits, says so, and goes on by itself.
/// How: a library holds up the reads of whoever shares them.
#[test]
fn what_is_being_hashed_is_found_by_its_name_and_comes_when_it_has_an_id() {
    const LEN: u64 = 3 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("own/x.bin", LEN, 1);
    group.file("own/talks/a.bin", LEN, 2);
    let mut ana = Slow::new(&group, &address);
    let config = patient(&group);
    let mut bob = group.peer("bob", &address, &["--no-seed", "--config", &config]);
    let found = |name: &str| text(&group.once(&address, &["search", name]).stdout);

    ana.begin("own/x.bin");
    wait_until("its name is known", || {
        found("x.bin").contains("being hashed")
    });
    assert!(found("x.bin").contains("3.0 MiB"), "{}", found("x.bin"));
    let told = group.once(&address, &["search", "x.bin", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert!(
        object["id"].is_null() && object["hashing"] == true,
        "{object}"
    );
    assert_eq!(
        (&object["size"], &object["kind"]),
        (&LEN.into(), &"file".into())
    );
    let zeros = "0".repeat(64);
    for (item, words) in [
        ("x.bin", "x.bin is still being hashed at ana"),
        ("x.bin#0000", "nobody shares"),
        ("b3:00000000", "nobody has"),
        (&zeros, "nobody has"),
    ] {
        let told = group.once(&address, &["info", item]);
        let line = text(&told.stderr);
        assert_eq!(told.status.code(), Some(5), "{line}");
        assert!(line.contains(words), "{line}");
    }
    bob.say("search x.bin");
    bob.wait_for("being hashed");
    bob.say("peers");
    bob.wait_for("SINCE");
    bob.say("download x.bin");
    let line = bob.wait_for("x.bin is still being hashed at ana");
    assert!(line.contains("it comes when that is done"), "{line}");
    ana.go_on();
    bob.wait_for("Download successful: x.bin");
    assert_same(&group.path("bob/downloaded_x.bin"), &file, LEN);
    wait_until("only what has an id is left", || {
        let rows = found("x.bin");
        rows.matches("x.bin").count() == 1 && !rows.contains("being hashed")
    });

    ana.begin("own/talks");
    wait_until("its name is known", || {
        let row = found("talks");
        row.contains("talks/") && row.contains("being hashed")
    });
    ana.go_on();
    bob.say("download talks");
    bob.wait_for("Download successful: talks");

    // Whoever has it already is not waited with.
    let other = group.file("zed/x.bin", 2 * MIB, 3);
    group.file("own/other.bin", LEN, 4);
    ana.begin("own/other.bin --as y.bin");
    wait_until("its name is known", || {
        found("y.bin").contains("being hashed")
    });
    let mut zed = group.peer("zed", &address, &[]);
    zed.say("add zed/x.bin --as y.bin");
    zed.wait_for("Sharing");
    bob.say("download y.bin");
    bob.wait_for("Download successful: y.bin");
    assert_same(&group.path("bob/downloaded_y.bin"), &other, 2 * MIB);
    ana.peer.kill();
}

/// Shows: a script that wants what is still being hashed looks as often as `[retry]` says, then ends with one line and
/// exit code 5; while it waits, a tracker that is silent for a while ends nothing.
/// How: as above, with a tracker that is stopped until a question to it came to nothing.
#[test]
fn a_script_does_not_wait_without_end_for_what_is_being_hashed() {
    let group = Group::new();
    let (tracker, address) = group.tracker();
    let file = group.file("own/x.bin", MIB, 1);
    let mut ana = Slow::new(&group, &address);
    ana.begin("own/x.bin");
    let found = || text(&group.once(&address, &["search", "x.bin"]).stdout);
    wait_until("its name is known", || found().contains("being hashed"));
    let hasty = group.write_private("hasty.toml", "[retry]\nattempts = 2\nfirst = \"10ms\"\n");
    let hasty = ["get", "x.bin", "--config", hasty.to_str().unwrap()];
    let told = group.once(&address, &hasty);
    let said = text(&told.stderr);
    assert_eq!(told.status.code(), Some(5), "{said}");
    let line = "p2pfs: x.bin is still being hashed at ana; try again when that is done";
    assert_eq!(said.lines().last(), Some(line), "{said}");

    let config = patient(&group);
    let mut bob = group.peer("bob", &address, &["--config", &config, "-vv"]);
    bob.say("download x.bin");
    bob.wait_for("x.bin is still being hashed at ana");
    tracker.signal(Signal::STOP);
    bob.wait_for("the tracker is asked again soon");
    tracker.signal(Signal::CONT);
    ana.go_on();
    bob.wait_for("Download successful: x.bin");
    assert_same(&group.path("bob/downloaded_x.bin"), &file, MIB);
}
