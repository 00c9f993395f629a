//! A whole session, captured: nothing of it can be read.

use std::net::UdpSocket;
use std::process::{Command, Stdio};

use crate::support::{Group, assert_same, need, wait_until};

/// Shows: a capture of everything on loopback holds no name, no text and no byte of a file.
/// How: tshark records while three processes share, search and fetch a file full of one phrase, and talk.
#[test]
fn a_capture_holds_nothing_that_can_be_read() {
    need("tshark");
    let group = Group::new();
    let capture = group.path("capture.pcapng");
    let mut tshark = Command::new("tshark")
        .args([
            "-i",
            "lo",
            "-w",
            capture.to_str().unwrap(),
            "-q",
            "-B",
            "64",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("tshark records", || {
        capture.metadata().is_ok_and(|found| found.len() > 0)
    });

    let (_tracker, address) = group.tracker();
    let phrase = "the quick brown phrase that only this file holds ";
    let path = group.path("unmistakable-name.txt");
    std::fs::write(&path, phrase.repeat(60_000)).unwrap();
    let mut seeder = group.peer("seederella", &address, &["--share", path.to_str().unwrap()]);
    seeder.wait_for("Sharing");
    let mut leecher = group.peer("leecherella", &address, &["--accept", "all"]);
    leecher.say("search unmistakable");
    leecher.wait_for("unmistakable-name.txt");
    leecher.say("download unmistakable-name.txt");
    leecher.wait_for("Download successful");
    let len = path.metadata().unwrap().len();
    assert_same(
        &group.path("leecherella/downloaded_unmistakable-name.txt"),
        &path,
        len,
    );

    let words = "words for one pair of ears";
    seeder.say(&format!("msg leecherella {words}"));
    leecher.wait_for(&format!("<seederella> {words}"));

    // What is recorded comes in order: with this all that was sent before it is in the file.
    let last_words = b"nothing comes after this";
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let here = socket.local_addr().unwrap();
    socket.send_to(last_words, here).unwrap();
    wait_until("the capture holds what was sent last", || {
        contains(&std::fs::read(&capture).unwrap(), last_words)
    });
    let pid = rustix::process::Pid::from_child(&tshark);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    wait_until("tshark has written everything", || {
        tshark.try_wait().unwrap().is_some()
    });
    let captured = std::fs::read(&capture).unwrap();
    assert!(captured.len() as u64 > len, "the transfer is in it");
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    assert!(
        contains(&captured, &port.to_be_bytes()),
        "our own traffic is in it"
    );
    for text in [
        phrase,
        words,
        "unmistakable",
        "seederella",
        "leecherella",
        "zebra",
        "abandon stable",
        "p2pfs",
    ] {
        assert!(
            !contains(&captured, text.as_bytes()),
            "\"{text}\" can be read on the wire"
        );
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}
