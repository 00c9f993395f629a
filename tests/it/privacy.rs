//! Who holds what: what two people send each other is theirs alone.

use crate::support::memory::holds;
use crate::support::{Group, assert_same};

/// Shows: neither the tracker nor another member ever has a byte of a file that goes from one peer to another,
/// or a word that one says to the other.
/// How: a file of one phrase is shared, found, fetched, and spoken of; then the memory of everybody else is
/// searched for both. That the name is found at the tracker shows that the search finds what is there.
#[test]
fn what_two_peers_send_each_other_is_in_nobody_elses_memory() {
    let group = Group::new();
    let (tracker, address) = group.tracker();
    let phrase = "eleven owls read what only ana and bob have ";
    let path = group.path("unmistakable-name.txt");
    std::fs::write(&path, phrase.repeat(100_000)).unwrap();
    let mut eva = group.peer("eva", &address, &[]);
    let mut ana = group.peer("ana", &address, &["--share", path.to_str().unwrap()]);
    ana.wait_for("Sharing");
    let mut bob = group.peer("bob", &address, &["--no-seed", "--accept", "all"]);
    bob.say("download unmistakable-name.txt");
    bob.wait_for("Download successful");
    assert_same(
        &group.path("bob/downloaded_unmistakable-name.txt"),
        &path,
        path.metadata().unwrap().len(),
    );
    let words = "the owls are not what they seem";
    ana.say(&format!("msg bob {words}"));
    bob.wait_for(&format!("<ana> {words}"));
    ana.wait_for("elivered");
    eva.say("search unmistakable");
    eva.wait_for("unmistakable-name.txt");

    assert!(holds(tracker.pid(), b"unmistakable-name.txt"));
    assert!(holds(eva.pid(), b"unmistakable-name.txt"));
    for (who, pid) in [("the tracker", tracker.pid()), ("eva", eva.pid())] {
        assert!(!holds(pid, phrase.as_bytes()), "{who} has some of the file");
        assert!(!holds(pid, words.as_bytes()), "{who} has what was said");
    }
}
