//! The tracker as its peers see it: silence, restart, stalls, names.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use p2pfs::wire::id::ContentId;

use crate::support::member::Member;
use crate::support::{Group, Process, assert_same, text, wait_until};

const FILES: usize = 100;

/// The people that `lap` lists, asked by `process`.
fn people(process: &mut Process) -> String {
    process.say("lap");
    process.wait_for("USER");
    process.say("id");
    process.wait_for("tracker  ");
    let output = process.output();
    output
        .rsplit("USER")
        .next()
        .unwrap()
        .split("you ")
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn row_32_a_restarted_tracker_has_everybody_back_and_transfers_never_stop() {
    let group = Group::new();
    let (mut tracker, address) = group.tracker();
    let large = group.file("large.bin", 600 << 20, 1);
    let mut peers = Vec::new();
    for name in ["ana", "bob", "eve"] {
        let mut peer = group.peer(name, &address, &["--no-seed"]);
        for number in 0..FILES {
            group.file(
                &format!("{name}.d/{name}-{number}.txt"),
                10 + number as u64,
                1,
            );
            peer.say(&format!("add {name}.d/{name}-{number}.txt"));
        }
        peer.wait_for(&format!("Sharing {name}-{}.txt", FILES - 1));
        peers.push(peer);
    }
    peers[0].say(&format!("add {}", large.display()));
    peers[0].wait_for("Sharing large.bin");
    peers[1].say("download large.bin");
    wait_until("the transfer runs", || peers[1].written_bytes() > 20 << 20);

    tracker.kill();
    let done = peers[1].wait_for("Download successful");
    assert!(done.contains("from 1 peer"), "{done}");
    assert_same(&group.path("bob/downloaded_large.bin"), &large, 600 << 20);
    peers[2].wait_for("the tracker is lost");

    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    let (_tracker, _) = group.tracker_on(port);
    let restarted = Instant::now();
    for name in ["ana", "bob", "eve"] {
        loop {
            let listed = text(&group.once(&address, &["list", name]).stdout);
            let found = listed
                .lines()
                .filter(|line| line.contains(&format!("{name}-")))
                .count();
            if found == FILES {
                break;
            }
            assert!(
                restarted.elapsed() < Duration::from_secs(15),
                "{name}: {found} files after 15 s"
            );
        }
    }
}

/// What a peer shares is found by itself also in the first moment after the tracker came back.
#[test]
fn a_search_that_meets_a_restart_finds_what_the_peer_itself_shares() {
    let group = Group::new();
    let (mut tracker, address) = group.tracker();
    group.file("big.bin", 10, 1);
    let mut bob = group.peer("bob", &address, &["--share", "big.bin"]);
    bob.wait_for("Sharing big.bin");
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    let search = |bob: &mut Process| {
        bob.say("search big.bin");
        bob.say("id");
    };
    let found = |bob: &Process| {
        let said = bob.output();
        assert!(!said.contains("nothing matches"), "{said}");
        let is_hit = |line: &&str| line.starts_with("big.bin ") && line.ends_with(" bob");
        said.lines().filter(is_hit).count()
    };
    for times in 1..=3 {
        tracker.kill();
        search(&mut bob);
        (tracker, _) = group.tracker_on(port);
        bob.wait_for("tracker  ");
        // It may have given up before the tracker was there.
        while found(&bob) < times {
            search(&mut bob);
            bob.wait_for("tracker  ");
        }
    }
}

#[test]
fn a_killed_peer_is_gone_within_the_silence_limit() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.txt", 10, 1);
    let mut ana = group.sharer("ana", &address, &[&file], &[]);
    let mut bob = group.peer("bob", &address, &[]);
    assert!(people(&mut bob).contains("ana"));
    ana.kill();
    let killed = Instant::now();
    wait_until("who was killed is gone", || {
        !people(&mut bob).contains("ana")
    });
    let lasted = killed.elapsed();
    assert!(lasted > Duration::from_millis(500), "{lasted:?}");
    assert!(
        lasted < Duration::from_secs(6),
        "3 s of silence, and a sweep: {lasted:?}"
    );
    bob.say("search x.txt");
    bob.wait_for("nothing matches \"x.txt\"");
}

#[test]
fn a_peer_that_was_stopped_comes_back_with_all_its_files() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.txt", 10, 1);
    let ana = group.sharer("ana", &address, &[&file], &[]);
    let mut bob = group.peer("bob", &address, &[]);
    ana.signal(Signal::STOP);
    wait_until("a silent peer is hidden", || {
        !people(&mut bob).contains("ana")
    });
    ana.signal(Signal::CONT);
    wait_until("it is back", || people(&mut bob).contains("ana"));
    bob.say("search x.txt");
    bob.wait_for("ana");
}

#[test]
fn a_tracker_that_was_stopped_loses_nobody() {
    let group = Group::new();
    let (tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    let mut bob = group.peer("bob", &address, &[]);
    assert!(people(&mut bob).contains("ana"));
    tracker.signal(Signal::STOP);
    ana.wait_for("the tracker is lost");
    bob.wait_for("the tracker is lost");
    tracker.signal(Signal::CONT);
    ana.wait_for("the tracker is back");
    bob.wait_for("the tracker is back");
    let people = people(&mut bob);
    assert!(people.contains("ana") && people.contains("bob"), "{people}");
}

#[test]
fn row_18_a_name_in_use_is_refused_with_since_and_whence() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let _ana = group.peer("ana", &address, &[]);
    let args = [
        "peers",
        "--tracker",
        &address,
        "--port",
        "0",
        "--name",
        "ANA",
    ];
    let output = group.command("thief").args(args).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("in use") && said.contains("127.0.0.1") && said.contains("--name"),
        "{said}"
    );
}

#[test]
fn row_38_a_member_that_asks_too_fast_is_told_so() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut ana = group.peer("ana", &address, &[]);
    for _ in 0..200 {
        ana.say("search x");
    }
    ana.wait_for("too fast, wait");
    let mut bob = group.peer("bob", &address, &[]);
    bob.say("search x");
    bob.wait_for("nothing matches \"x\"");
}

#[test]
fn what_a_search_does_not_count_to_the_end_is_shown_as_a_lower_bound() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let member = Member::join(&address, "member");
    let publish = |number: u64| {
        member.publish(&format!("talk {number}.txt"), ContentId([1; 32]), 1);
    };
    let told = |more: &str| {
        let output = group.once(&address, &["search", "talk", "--limit", "20"]);
        let shown = text(&output.stdout);
        let line = shown.lines().find(|line| line.starts_with('\u{2026}'));
        let wanted = format!("\u{2026} and {more} more: refine, or give --limit");
        assert_eq!(line, Some(wanted.as_str()), "{shown}");
    };
    (0..1000).for_each(publish);
    told("980");
    publish(1000);
    told("980+");
}

#[test]
fn a_transfer_goes_on_while_the_tracker_is_away() {
    // A question to a tracker that is away takes seconds to fail; pieces must not wait for that.
    let group = Group::new();
    let (mut tracker, address) = group.tracker();
    let file = group.path("large.bin");
    let large = std::fs::File::create(&file).unwrap();
    large.set_len(3 << 30).unwrap();
    let mut seeder = group.peer("seeder", &address, &["--share", file.to_str().unwrap()]);
    seeder.wait_for("Sharing");
    let mut leecher = group.peer("leecher", &address, &["--no-seed"]);
    leecher.say("download large.bin");
    wait_until("the transfer runs", || leecher.written_bytes() > 20 << 20);
    tracker.kill();
    leecher.wait_for("Download successful");
}
