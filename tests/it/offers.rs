//! Files and folders for one person: offered, accepted or not, fetched like any other, and told of at both ends.

use serde_json::Value;

use crate::support::{Group, PATIENCE, Process, assert_same, names_in, wait_until};

const MIB: u64 = 1 << 20;

fn shares_nothing(group: &Group, name: &str) -> bool {
    group.objects(name, &["list"]).is_empty()
}

fn pair(group: &Group, address: &str, more: &[&str]) -> (Process, Process) {
    let ana = group.peer("ana", address, &[]);
    (ana, group.peer("bob", address, more))
}

#[test]
fn what_is_accepted_gets_there_and_both_sides_hear_of_it() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let (mut ana, mut bob) = pair(&group, &address, &[]);
    let _eve = group.peer("eve", &address, &[]);
    let film = group.file("film.mkv", 3 * MIB, 1);
    ana.say("/send bob film.mkv");
    ana.wait_for("film.mkv, 3.0 MiB, is offered to bob");
    let question = bob.wait_for("ana");
    assert!(
        question.contains("film.mkv") && question.contains("3.0 MiB"),
        "{question}"
    );
    let hidden = group.through("eve", &["search", "film"]);
    assert_eq!(hidden.status.code(), Some(5), "{hidden:?}");
    assert!(names_in(&group.path("bob")).is_empty());
    bob.say("yes");
    bob.wait_for("Fetching film.mkv, which ana sends you");
    ana.wait_for("bob has accepted film.mkv");
    bob.wait_for("Download successful");
    ana.wait_for("bob has all of film.mkv");
    assert_same(&group.path("bob/downloaded_film.mkv"), &film, 3 * MIB);
    wait_until("the share to end", || shares_nothing(&group, "ana"));
    // It came for bob alone.
    let own = group.objects("bob", &["list"]);
    assert_eq!(own[0]["for"], serde_json::json!([]));
    let hidden = group.through("eve", &["search", "film"]);
    assert_eq!(hidden.status.code(), Some(5), "{hidden:?}");
    // A folder; always: the next one comes without a question.
    let note = group.file("talks/note.txt", 700, 2);
    group.file("talks/deep/talk.mp4", 2 * MIB, 3);
    ana.say("send bob talks");
    let question = bob.wait_for("talks/");
    assert!(question.contains("2 files"), "{question}");
    bob.say("always");
    ana.wait_for("bob has all of talks/");
    assert_same(&group.path("bob/downloaded_talks/note.txt"), &note, 700);
    let sent = group.objects("ana", &["send", "bob", "talks/note.txt"]);
    assert_eq!(sent.last().unwrap()["done"], true, "{sent:?}");
    assert_same(&group.path("bob/downloaded_note.txt"), &note, 700);
    wait_until("the shares to end", || shares_nothing(&group, "ana"));
}

#[test]
fn row_78_of_what_is_not_accepted_not_one_byte_is_written() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let (mut ana, mut bob) = pair(&group, &address, &[]);
    group.file("film.mkv", 3 * MIB, 1);
    let is_untouched = || names_in(&group.path("bob")).is_empty() && shares_nothing(&group, "ana");
    ana.say("send bob film.mkv");
    bob.wait_for("film.mkv");
    bob.say("no");
    ana.wait_for("film.mkv did not get to bob: bob does not");
    wait_until("nothing to be left of it", is_untouched);
    // Denied ones are denied for a while, without a question.
    let denied = group.through("ana", &["send", "bob", "film.mkv"]);
    assert_eq!(denied.status.code(), Some(6), "{denied:?}");
    assert!(is_untouched());
    // Who waits no longer, and who takes it back.
    let carl = group.peer("carl", &address, &[]);
    let waited = group.through("ana", &["send", "carl", "film.mkv", "--wait", "1s"]);
    assert_eq!(waited.status.code(), Some(4), "{waited:?}");
    ana.say("send carl film.mkv");
    let sending = || group.objects("ana", &["transfers"]);
    wait_until("it is offered once more", || {
        let sending = sending();
        sending
            .first()
            .is_some_and(|sending| sending["state"] == "offered")
    });
    let number = sending()[0]["no"].as_str().unwrap().to_owned();
    let cancelled = group.through("ana", &["cancel", &number]);
    assert_eq!(cancelled.status.code(), Some(0), "{cancelled:?}");
    ana.wait_for("film.mkv did not get to carl: it was taken back");
    assert!(names_in(&group.path("carl")).is_empty());
    wait_until("nothing to be left of it", is_untouched);
    drop(carl);
    for (args, code) in [
        (&["send", "eva", "film.mkv"][..], 5),
        (&["send", "ana", "film.mkv"], 2),
        (&["send", "bob", "no such file"], 8),
    ] {
        let output = group.through("ana", args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
    // What is shared with all stays so, whatever becomes of the offer.
    ana.say("add film.mkv");
    ana.wait_for("Sharing film.mkv");
    let denied = group.through("ana", &["send", "bob", "film.mkv"]);
    assert_eq!(denied.status.code(), Some(6), "{denied:?}");
    assert_eq!(group.objects("ana", &["list"])[0]["for"], Value::Null);
}

#[test]
fn who_is_accepted_is_a_matter_of_settings_and_keys() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let _ana = group.peer("ana", &address, &[]);
    group.file("a.txt", 700, 1);
    let send = || {
        group
            .through("ana", &["send", "bob", "a.txt"])
            .status
            .code()
    };
    let out = group.folder("bob");
    let mut bob = group.peer("bob", &address, &["--accept", "none"]);
    assert_eq!((send(), names_in(&out).len()), (Some(6), 0));
    let mut restart = |accept: &str| {
        bob.say("quit");
        bob.exit_within(PATIENCE).unwrap();
        bob = group.peer("bob", &address, &["--accept", accept]);
    };
    restart("trusted");
    assert_eq!((send(), names_in(&out).len()), (Some(6), 0));
    assert_eq!(
        group.through("bob", &["trust", "ana"]).status.code(),
        Some(0)
    );
    assert_eq!((send(), names_in(&out).len()), (Some(0), 1));
    assert_eq!(
        group.through("bob", &["block", "ana"]).status.code(),
        Some(0)
    );
    // The talk ends with it: at once, or while the offer is on its way.
    assert!(matches!((send(), names_in(&out).len()), (Some(4 | 6), 1)));
    restart("all");
    assert_eq!((send(), names_in(&out).len()), (Some(6), 1), "blocked");
    assert_eq!(
        group.through("bob", &["unblock", "ana"]).status.code(),
        Some(0)
    );
    assert_eq!((send(), names_in(&out).len()), (Some(0), 2));
}

#[test]
fn a_receiver_that_is_killed_goes_on_with_what_it_accepted() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let slow = ["--accept", "all", "--down-limit", "2MiB"];
    let (mut ana, mut bob) = pair(&group, &address, &slow);
    let film = group.file("film.mkv", 12 * MIB, 1);
    ana.say("send bob film.mkv");
    ana.wait_for("bob has accepted film.mkv");
    ana.wait_for("% of film.mkv");
    bob.kill();
    let out = group.path("bob");
    assert!(
        names_in(&out)
            .iter()
            .all(|name| name.starts_with(".p2pfs-"))
    );
    ana.wait_for("nothing more is heard of film.mkv");
    let mut bob = group.peer("bob", &address, &["--accept", "all"]);
    bob.wait_for("Download successful");
    assert_same(&out.join("downloaded_film.mkv"), &film, 12 * MIB);
}

#[test]
fn a_sender_that_is_killed_goes_on_with_what_was_accepted() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let slow = ["--accept", "all", "--down-limit", "2MiB"];
    let (mut ana, mut bob) = pair(&group, &address, &slow);
    let film = group.file("film.mkv", 12 * MIB, 1);
    ana.say("send bob film.mkv");
    ana.wait_for("% of film.mkv");
    ana.wait_for("% of film.mkv");
    ana.kill();
    let mut ana = group.peer("ana", &address, &[]);
    ana.wait_for("sharing what was shared before: 1");
    assert_eq!(
        group.objects("ana", &["list"])[0]["for"],
        serde_json::json!(["bob"])
    );
    bob.wait_for("Download successful");
    assert_same(&group.path("bob/downloaded_film.mkv"), &film, 12 * MIB);
}
