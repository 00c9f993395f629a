//! Who somebody is: keys that are trusted, blocked, compared by voice, and changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::{Group, text};

/// A command that asks the peer of this state directory, where one runs.
fn ask(group: &Group, state: &str, args: &[&str]) -> Output {
    let mut command = group.command(state);
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

/// Its one object.
fn object(group: &Group, state: &str, args: &[&str]) -> Value {
    let output = ask(group, state, &[args, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn print_of(group: &Group, state: &str) -> String {
    let id = object(group, state, &["id"]);
    id["key"].as_str().unwrap().to_owned()
}

#[test]
fn two_people_read_the_same_words_and_trust_sticks_to_the_key() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let _ana = group.peer("ana", &address, &[]);
    let _bob = group.peer("bob", &address, &[]);
    let (at_ana, at_bob) = (
        object(&group, "ana.state", &["verify", "bob"]),
        object(&group, "bob.state", &["verify", "ANA"]),
    );
    assert_eq!(at_ana["words"], at_bob["words"]);
    assert_eq!(at_ana["words"].as_array().unwrap().len(), 8);
    assert_eq!(at_ana["key"], at_bob["own_key"]);
    assert_eq!(at_ana["key"], print_of(&group, "bob.state").as_str());
    assert_eq!(
        object(&group, "ana.state", &["trust", "bob"])["user"],
        "bob"
    );
    let known = object(&group, "ana.state", &["trust"]);
    assert_eq!(
        (&known["standing"], &known["key"]),
        (&"trusted".into(), &at_ana["key"])
    );
    let file = group.path("ana.state/peer/known_people");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (args, code, why) in [
        (&["trust", "ana"][..], 2, "ana is you"),
        (&["trust", "eva"], 5, "nobody named eva is here"),
        (&["verify", "eva"], 5, "nobody named eva is here"),
        (&["untrust", "eva"], 5, "you know nobody"),
        (&["block", "eva"], 5, "nobody here is \"eva\""),
        (&["trust", "bob", "xyz"], 2, "not a key print"),
        (&["trust", "bob", "aaaa-aaaa-aaaa-aaaa"], 3, "not aaaa-"),
    ] {
        let output = ask(&group, "ana.state", args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
    }
}

/// Shows: a name with another key is shown with both key prints, and trusted by the print of the new one only.
/// How: the same name, with another state directory, at another tracker.
#[test]
fn a_name_with_another_key_is_trusted_by_its_print_only() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let bob = group.peer("bob", &address, &[]);
    object(&group, "ana.state", &["trust", "bob"]);
    let first = print_of(&group, "bob.state");
    ana.say("quit");
    ana.exit_within(crate::support::PATIENCE).unwrap();
    drop(bob);
    fs::rename(group.path("bob.state"), group.path("old.state")).unwrap();
    fs::rename(group.path("tracker"), group.path("tracker.old")).unwrap();
    let (_tracker, address) = group.tracker();
    let _bob = group.peer("bob", &address, &[]);
    let mut ana = group.peer("ana", &address, &[]);
    let second = print_of(&group, "bob.state");
    assert_ne!(first, second);
    let output = ask(&group, "ana.state", &["trust", "bob"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = text(&output.stderr);
    let accepting = format!("trust bob {}", &second[..19]);
    for part in [&first, &second, &accepting] {
        assert!(said.contains(part.as_str()), "{said}");
    }
    assert_eq!(
        object(&group, "ana.state", &["trust"])["key"],
        first.as_str()
    );
    ana.say("verify bob");
    ana.wait_for(&format!("bob had another key before:  {first}"));
    let words = object(&group, "ana.state", &["verify", "bob"]);
    assert_eq!(words["known_key"], first.as_str());
    ana.say(&format!("TRUST bob {}", &second[..19]));
    ana.wait_for(&format!("You trust bob, key {second}"));
    let known = object(&group, "ana.state", &["trust"]);
    assert_eq!(known["key"], second.as_str());
}

#[test]
fn what_needs_nobody_else_works_without_a_peer() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let bob = group.peer("bob", &address, &[]);
    let print = print_of(&group, "bob.state");
    ana.say("block bob");
    ana.wait_for(&format!("You block bob, key {print}, under every name"));
    ana.say("untrust bob");
    ana.wait_for("bob is not trusted");
    ana.say("quit");
    ana.exit_within(crate::support::PATIENCE).unwrap();
    let known = object(&group, "ana.state", &["trust"]);
    assert_eq!(
        (&known["user"], &known["standing"]),
        (&"bob".into(), &"blocked".into())
    );
    let output = ask(&group, "ana.state", &["unblock", &print[..19]]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = ask(&group, "ana.state", &["trust"]);
    assert!(text(&output.stdout).contains("bob    met"), "{output:?}");
    // Somebody has to be found: a peer of its own joins, under the identity that stays.
    let join = ["--tracker", &address, "--bind", "127.0.0.1", "--port", "0"];
    let trust = [&["trust", "bob", "--name", "ana"], &join[..]].concat();
    let output = ask(&group, "ana.state", &trust);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let block = [&["block", "bob", "--name", "ana"], &join[..]].concat();
    assert_eq!(ask(&group, "ana.state", &block).status.code(), Some(0));
    let output = ask(&group, "ana.state", &trust);
    assert!(
        text(&output.stdout).contains("and block it no longer"),
        "{output:?}"
    );
    drop(bob);
    let known = object(&group, "ana.state", &["trust"]);
    assert_eq!(known["key"], print.as_str());
    object(&group, "ana.state", &["untrust", "bob"]);
    let known = object(&group, "ana.state", &["trust"]);
    assert_eq!(known["standing"], "met");
}
