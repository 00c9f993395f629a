//! What is shared with chosen people only: they get it, and to everybody else it is not there.

use std::fs;

use p2pfs::peer::connection::{Reader, Writer};
use p2pfs::wire::id::ContentId;
use p2pfs::wire::transfer::{Frame, Wanted};
use serde_json::Value;

use crate::support::member::Member;
use crate::support::{Group, Process, assert_same, names_in, text, wait_until};

const MIB: u64 = 1 << 20;

/// What `name` shares under this name.
fn own(group: &Group, name: &str, file: &str) -> Value {
    let mut shared = group.objects(name, &["list"]).into_iter();
    shared.find(|shared| shared["name"] == file).unwrap()
}

fn content_of(object: &Value) -> ContentId {
    object["id"].as_str().unwrap().parse().unwrap()
}

/// How `name` finds nothing of a file by any command, nor gets anything of it.
fn assert_hidden(group: &Group, name: &str, file: &str, id: ContentId) {
    let id = id.to_string();
    for args in [
        &["search", file][..],
        &["search", &file[..3]],
        &["info", file],
        &["info", &id],
        &["get", file],
        &["get", &id],
        &["get", "--id", &id[..11]],
        &["get", "--all-matching", &file[..3]],
    ] {
        let output = group.through(name, args);
        assert_eq!(output.status.code(), Some(5), "{args:?}: {output:?}");
    }
    for args in [
        &["files"][..],
        &["list", "ana"],
        &["list", "--all"],
        &["lap"],
    ] {
        let output = group.through(name, &[args, &["--json"]].concat());
        let said = text(&output.stdout);
        assert!(
            !said.contains(file) && !said.contains(&id),
            "{args:?}: {said}"
        );
    }
    assert!(names_in(&group.path(name)).is_empty());
}

/// How many files `name` is told that somebody shares.
fn count_of(group: &Group, name: &str, whose: &str) -> u64 {
    let mut peers = group.objects(name, &["lap"]).into_iter();
    let peer = peers.find(|peer| peer["user"] == whose).unwrap();
    peer["files"].as_u64().unwrap()
}

fn open(member: &Member, stream: &mut (Reader, Writer), file: u32, content: ContentId) -> bool {
    member.block_on(async {
        let (reader, writer) = stream;
        writer.send(&Frame::Open { file, content }).await.unwrap();
        match reader.next().await.unwrap() {
            Some(Frame::Opened { .. }) => true,
            Some(Frame::Absent { .. }) => false,
            other => panic!("{other:?}"),
        }
    })
}

/// Does `user` serve this content to `member`, which asks on a connection of its own?
fn serves(member: &Member, user: &str, content: ContentId) -> bool {
    let mut stream = member.call(&member.find(user)).unwrap();
    open(member, &mut stream, 0, content)
}

fn restart(group: &Group, mut peer: Process, name: &str, address: &str, more: &[&str]) -> Process {
    peer.kill();
    group.peer(name, address, more)
}

#[test]
fn what_is_for_one_is_found_and_fetched_by_that_one_only() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let (_bob, _eve) = (
        group.peer("bob", &address, &[]),
        group.peer("eve", &address, &[]),
    );
    let mallory = Member::join(&address, "mallory");
    let secret = group.file("secret.bin", 3 * MIB, 1);
    group.file("open.bin", MIB, 2);
    ana.say("add secret.bin --for BOB");
    ana.wait_for("only for BOB");
    ana.say("add open.bin");
    ana.wait_for("Sharing open.bin");
    let shared = own(&group, "ana", "secret.bin");
    assert_eq!(shared["for"], serde_json::json!(["BOB"]));
    let (id, open_id) = (
        content_of(&shared),
        content_of(&own(&group, "ana", "open.bin")),
    );
    assert_hidden(&group, "eve", "secret.bin", id);
    assert_eq!(
        [
            count_of(&group, "eve", "ana"),
            count_of(&group, "bob", "ana")
        ],
        [1, 2]
    );
    assert!(!serves(&mallory, "ana", id) && serves(&mallory, "ana", open_id));

    let found = group.objects("bob", &["search", "secret"]);
    assert_eq!((found.len(), &found[0]["restricted"]), (1, &true.into()));
    let got = group.through("bob", &["get", "secret.bin"]);
    assert_eq!(got.status.code(), Some(0), "{got:?}");
    assert_same(&group.path("bob/downloaded_secret.bin"), &secret, 3 * MIB);
    // It is not shared on: neither told of nor served, and the list says for whom it is.
    assert_eq!(
        own(&group, "bob", "secret.bin")["for"],
        serde_json::json!([])
    );
    assert!(text(&group.through("bob", &["list"]).stdout).contains("only you"));
    assert_eq!(count_of(&group, "ana", "bob"), 0);
    assert!(!serves(&mallory, "bob", id));
    assert_hidden(&group, "eve", "secret.bin", id);

    ana.say("quit");
    ana.exit_within(crate::support::PATIENCE).unwrap();
    let mut ana = group.peer("ana", &address, &[]);
    ana.wait_for("sharing what was shared before: 2");
    let is_found = |name| group.through(name, &["search", "secret"]).status.code() == Some(0);
    wait_until("what is shared again to be found", || is_found("bob"));
    assert_eq!(
        own(&group, "ana", "secret.bin")["for"],
        serde_json::json!(["BOB"])
    );
    assert_hidden(&group, "eve", "secret.bin", id);
    assert!(!serves(&mallory, "ana", id));

    // Changed on disk, it is for the same people.
    group.file("secret.bin", 2 * MIB, 3);
    ana.wait_for("changed on disk, shared again: secret.bin");
    let id = content_of(&own(&group, "ana", "secret.bin"));
    assert_eq!(
        own(&group, "ana", "secret.bin")["for"],
        serde_json::json!(["BOB"])
    );
    assert_hidden(&group, "eve", "secret.bin", id);
    assert!(is_found("bob") && !serves(&mallory, "ana", id));

    ana.say("add secret.bin --for eve");
    ana.wait_for("only for eve");
    assert!(is_found("eve") && !is_found("bob"));
    ana.say("add secret.bin");
    ana.wait_for("Sharing secret.bin");
    assert!(is_found("eve") && is_found("bob") && serves(&mallory, "ana", id));
}

#[test]
fn whoever_may_see_it_no_longer_gets_nothing_more_over_an_open_connection() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let _bob = group.peer("bob", &address, &[]);
    let carl = Member::join(&address, "carl");
    group.file("secret.bin", 3 * MIB, 1);
    ana.say("add secret.bin --for carl,bob");
    ana.wait_for("only for bob, carl");
    let id = content_of(&own(&group, "ana", "secret.bin"));
    let mut stream = carl.call(&carl.find("ana")).unwrap();
    assert!(open(&carl, &mut stream, 0, id));
    ana.say("add secret.bin --for bob");
    ana.wait_for("only for bob");
    assert!(!open(&carl, &mut stream, 1, id));
    let request = Frame::Request {
        request: 1,
        wanted: Wanted {
            file: 0,
            candidates: vec![0],
        },
    };
    carl.block_on(async {
        stream.1.send(&request).await.unwrap();
        let answer = stream.0.next().await.unwrap();
        assert!(
            matches!(answer, Some(Frame::Absent { file: 0 })),
            "{answer:?}"
        );
    });
}

#[test]
fn whoever_fetches_it_serves_nothing_of_it_meanwhile_nor_after_a_restart() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let slow = ["--down-limit", "300K"];
    let mut bob = group.peer("bob", &address, &slow);
    let mallory = Member::join(&address, "mallory");
    let (secret, _) = (
        group.file("secret.bin", 8 * MIB, 1),
        group.file("open.bin", 8 * MIB, 2),
    );
    ana.say("add secret.bin --for bob");
    ana.wait_for("only for bob");
    ana.say("add open.bin");
    ana.wait_for("Sharing open.bin");
    let id = content_of(&own(&group, "ana", "secret.bin"));
    let open_id = content_of(&own(&group, "ana", "open.bin"));
    bob.say("get -b secret.bin");
    bob.wait_for("secret.bin is for chosen people");
    bob.say("get -b open.bin");
    let out = group.path("bob");
    // What everybody may have is served from the first piece on: then the other is under way as well.
    wait_until("both to be under way", || {
        names_in(&out)
            .iter()
            .filter(|name| name.ends_with(".part"))
            .count()
            == 2
            && serves(&mallory, "bob", open_id)
    });
    assert!(!serves(&mallory, "bob", id));
    assert_eq!(count_of(&group, "ana", "bob"), 1);
    let mut bob = restart(&group, bob, "bob", &address, &slow);
    wait_until("the other one to be served again", || {
        serves(&mallory, "bob", open_id)
    });
    assert!(!serves(&mallory, "bob", id));
    bob.say("limit off");
    bob.wait_for("secret.bin");
    wait_until("all of it to be there", || {
        out.join("downloaded_secret.bin").exists() && out.join("downloaded_open.bin").exists()
    });
    assert_same(&out.join("downloaded_secret.bin"), &secret, 8 * MIB);
    wait_until("both to be shares", || {
        group.objects("bob", &["list"]).len() == 2
    });
    assert_eq!(
        own(&group, "bob", "secret.bin")["for"],
        serde_json::json!([])
    );
    assert!(!serves(&mallory, "bob", id) && serves(&mallory, "bob", open_id));
    assert_eq!(count_of(&group, "ana", "bob"), 1);
}

#[test]
fn what_lies_in_a_folder_for_one_is_served_to_nobody_else() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let _bob = group.peer("bob", &address, &[]);
    let mallory = Member::join(&address, "mallory");
    let files = [("talks/small.txt", 700), ("talks/large.bin", 3 * MIB)];
    let paths = files.map(|(name, len)| group.file(name, len, 5));
    ana.say("add talks --for bob");
    ana.wait_for("only for bob");
    let id = content_of(&own(&group, "ana", "talks"));
    let contents = paths
        .each_ref()
        .map(|path| ContentId(*crate::support::hash(path).as_bytes()));
    for content in [id, contents[0], contents[1]] {
        assert!(!serves(&mallory, "ana", content), "{content}");
    }
    let got = group.through("bob", &["get", "talks"]);
    assert_eq!(got.status.code(), Some(0), "{got:?}");
    for ((name, len), path) in files.iter().zip(&paths) {
        let name = name.strip_prefix("talks/").unwrap();
        assert_same(&group.path("bob/downloaded_talks").join(name), path, *len);
    }
    for content in [id, contents[0], contents[1]] {
        assert!(!serves(&mallory, "bob", content), "{content}");
    }
    // The same file, shared with all as well, is for all.
    ana.say("add talks/small.txt");
    ana.wait_for("Sharing small.txt");
    assert!(serves(&mallory, "ana", contents[0]) && !serves(&mallory, "ana", contents[1]));
}

#[test]
fn whom_it_is_for_has_to_be_somebody_and_the_one_who_was_met() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let mut bob = group.peer("bob", &address, &[]);
    group.file("a.txt", 10, 1);
    let many: Vec<_> = (0..17).map(|number| format!("user{number}")).collect();
    let many = many.join(",");
    for (args, code, why) in [
        (&["--for", "eva"][..], 5, "nobody named eva is here"),
        (&["--for", "ana"], 2, "ana is you"),
        (&["--for", "@2h"], 5, "nobody named 2h is here"),
        (&["--for", "2h", "--time", "1h"], 2, "more than one time"),
        (&["--for", &many], 5, "nobody named user0 is here"),
        (&["--for", "bob", "eva"], 8, "eva"),
    ] {
        let output = group.through("ana", &[&["share", "a.txt"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(text(&output.stderr).contains(why), "{output:?}");
    }
    assert!(
        group.objects("ana", &["list"]).is_empty(),
        "nothing was shared"
    );
    for is_new in [true, false] {
        let output = group.through("ana", &["share", "a.txt", "--for", "bob"]);
        let told = text(&output.stderr).contains("bob was not met before and has the key ");
        assert_eq!(
            (output.status.success(), told),
            (true, is_new),
            "{output:?}"
        );
    }
    ana.say("add a.txt --for 2h");
    ana.wait_for("for 2 h");
    assert_eq!(own(&group, "ana", "a.txt")["for"], Value::Null);
    ana.say("add a.txt --for bob --time 1h");
    ana.wait_for("only for bob, for 1 h");
    // A person whose name reads as a time.
    let two = group.peer("2h", &address, &[]);
    let output = group.through("ana", &["share", "a.txt", "--for", "2h"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    ana.say("add a.txt --for @2h");
    ana.wait_for("only for 2h");
    drop(two);
    // Somebody who was met may be away; somebody else under the name is refused.
    bob.say("quit");
    bob.exit_within(crate::support::PATIENCE).unwrap();
    ana.say("add a.txt --for bob");
    ana.wait_for("only for bob");
    ana.say("block bob");
    ana.wait_for("You block bob");
    let output = group.through("ana", &["share", "a.txt", "--for", "bob"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    ana.say("unblock bob");
    ana.wait_for("do not block bob");
    fs::rename(group.path("bob.state"), group.path("old.state")).unwrap();
    fs::rename(group.path("tracker"), group.path("tracker.old")).unwrap();
    ana.say("quit");
    ana.exit_within(crate::support::PATIENCE).unwrap();
    let (_tracker, address) = group.tracker();
    let _bob = group.peer("bob", &address, &[]);
    let _ana = group.peer("ana", &address, &[]);
    let output = group.through("ana", &["share", "a.txt", "--for", "bob"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(text(&output.stderr).contains("another key"), "{output:?}");
}
