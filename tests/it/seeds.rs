//! The sessions of the programs that p2pfs unites, as their users typed them, with three processes.

use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::{Group, PASSPHRASE, assert_same, names_in, text};

#[test]
fn peer_connect_fs_line_by_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("song.mp3", 3_000_000, 1);
    let mut yoda = group.peer("yoda", &address, &[]);
    let mut hans = group.peer("hans", &address, &[]);

    yoda.say("pub song.mp3");
    yoda.wait_for("Sharing song.mp3, 2.9 MiB, b3:");
    yoda.say("lpf");
    yoda.wait_for("song.mp3");

    hans.say("lap");
    hans.wait_for("hans");
    hans.wait_for("yoda");
    hans.say("sch ONG.M");
    let hit = hans.wait_for("song.mp3");
    assert!(hit.contains("yoda"), "{hit}");
    hans.say("get song.mp3");
    let done = hans.wait_for("Download successful: song.mp3");
    assert!(
        done.contains("from 1 peer") && done.contains("verified"),
        "{done}"
    );
    assert_same(&group.path("hans/downloaded_song.mp3"), &file, 3_000_000);

    yoda.say("unp song.mp3");
    yoda.wait_for("Not sharing song.mp3 any more");
    hans.say("unp song.mp3");
    hans.wait_for("Not sharing song.mp3 any more");
    hans.say("sch song");
    hans.wait_for("nothing matches \"song\"");

    yoda.say("xit");
    assert_eq!(yoda.exit_within(Duration::from_secs(5)), Some(0));
    hans.say("lap");
    hans.wait_for("USER");
    hans.wait_for("hans");
    hans.say("sch x");
    hans.wait_for("nothing matches");
    let after = hans.output();
    let last_table = after.rsplit("USER").next().unwrap();
    assert!(
        !last_table.contains("yoda"),
        "who left is gone at once:\n{after}"
    );
}

#[test]
fn p2p_file_transfer_line_by_line() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("report.pdf", 1_234_567, 2);
    let mut seeder = group.peer("seeder", &address, &[]);
    let mut leecher = group.peer("leecher", &address, &[]);

    seeder.say("add report.pdf");
    seeder.wait_for("Sharing report.pdf, 1.2 MiB, b3:");
    seeder.say("list");
    seeder.wait_for("1.2 MiB");

    leecher.say("search report");
    leecher.wait_for("report.pdf");
    leecher.say("peers");
    leecher.wait_for("report.pdf is at:");
    leecher.wait_for("seeder");
    leecher.say("all_files");
    leecher.wait_for("report.pdf");
    leecher.say("download report.pdf");
    leecher.wait_for("Download successful: report.pdf");
    assert_same(
        &group.path("leecher/downloaded_report.pdf"),
        &file,
        1_234_567,
    );
    leecher.say("list");
    leecher.wait_for("downloaded_report.pdf");
    leecher.say("download nothing.txt");
    leecher.wait_for("nobody shares \"nothing.txt\"");
    leecher.say("help");
    leecher.wait_for("all_files");
    leecher.say("quit");
    assert_eq!(leecher.exit_within(Duration::from_secs(5)), Some(0));
    seeder.end_input();
    assert_eq!(
        seeder.exit_within(Duration::from_secs(5)),
        Some(0),
        "the end of the input is a goodbye"
    );
}

#[test]
fn the_questions_of_p2p_file_transfer_at_a_terminal() {
    let group = Group::new();
    let here = [("P2PFS_PORT", "0"), ("P2PFS_BIND", "127.0.0.1")];
    let mut tracker = Terminal::start_in(&group, "tracker", &[], &here);
    tracker.wait_for("Passphrase");
    tracker.type_line(PASSPHRASE);
    tracker.wait_for("Run as (t)racker or (p)eer?");
    tracker.type_line("x");
    tracker.wait_for("Run as (t)racker or (p)eer?");
    tracker.type_line("t");
    // It is new here: a passphrase that was mistyped once would lock everybody out.
    tracker.wait_for("good enough: score 4 of 4");
    tracker.wait_for("The same again");
    tracker.type_line(PASSPHRASE);
    tracker.wait_for("Others join with:  ");
    let line = tracker.wait_for("\r\n");
    let tracker_at = line.split(' ').nth(3).unwrap();
    assert!(!tracker.screen.contains("zebra"));

    let file = group.file("talk.mp4", 100_000, 3);
    let mut seeder = group.peer("seeder", tracker_at, &[]);
    seeder.say(&format!("add {}", file.display()));
    seeder.wait_for("Sharing talk.mp4");

    let mut peer = Terminal::start_in(&group, "peer", &[], &here);
    peer.wait_for("Passphrase");
    peer.type_line(PASSPHRASE);
    peer.wait_for("(p)eer?");
    peer.type_line("p");
    peer.wait_for("Tracker host");
    // As it was copied from the tracker, its key included.
    peer.type_line(&format!("Others join with:  {line}"));
    peer.wait_for("Your name");
    peer.type_line("vader");
    peer.wait_for(&format!("Joined {tracker_at} as vader"));
    peer.wait_for("P2P> ");
    peer.type_line("search TALK");
    peer.wait_for("talk.mp4");
    peer.type_line("download talk.mp4");
    peer.wait_for("Download successful: talk.mp4");
    peer.type_line("quit");
    let status = peer.process.wait().unwrap();
    assert!(
        matches!(status, rexpect::process::WaitStatus::Exited(_, 0)),
        "{status:?}"
    );
    assert!(names_in(group.dir.path()).contains(&"downloaded_talk.mp4".to_owned()));
}

#[test]
fn the_commands_of_peer_connect_fs_at_a_terminal() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("song.mp3", 3_000_000, 5);
    let out = group.folder("out");
    let join = |name: &str| {
        let mut args = vec!["peer", "--tracker", &address, "--bind", "127.0.0.1"];
        args.extend([
            "--port",
            "0",
            "--name",
            name,
            "--out",
            out.to_str().unwrap(),
        ]);
        let mut peer = Terminal::start(&group, name, &args);
        peer.wait_for("Passphrase");
        peer.type_line(PASSPHRASE);
        peer.wait_for(&format!("Joined {address} as {name}"));
        peer.wait_for("P2P> ");
        peer
    };
    let (mut yoda, mut hans) = (join("yoda"), join("hans"));

    yoda.type_line("pub song.mp3");
    yoda.wait_for("Sharing song.mp3, 2.9 MiB, b3:");
    yoda.type_line("lpf");
    yoda.wait_for("NAME");
    yoda.wait_for("song.mp3   2.9 MiB");

    hans.type_line("lap");
    hans.wait_for("USER");
    hans.wait_for("hans ");
    hans.wait_for("yoda ");
    hans.type_line("sch ONG.M");
    hans.wait_for("song.mp3   2.9 MiB");
    hans.wait_for("yoda");
    hans.type_line("get song.mp3");
    hans.wait_for("Download successful: song.mp3");
    hans.wait_for("verified");
    assert_same(&out.join("downloaded_song.mp3"), &file, 3_000_000);

    yoda.type_line("unp song.mp3");
    yoda.wait_for("Not sharing song.mp3 any more");
    yoda.type_line("lpf");
    yoda.wait_for("You share nothing");
    for mut peer in [yoda, hans] {
        peer.type_line("xit");
        let status = peer.process.wait().unwrap();
        assert!(
            matches!(status, rexpect::process::WaitStatus::Exited(_, 0)),
            "{status:?}"
        );
    }
}

#[test]
fn row_15_listings_fit_a_terminal_of_20_columns() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut seeder = group.peer("a-person-with-a-long-name", &address, &[]);
    for name in ["a talk of many words 名前👍🏽.mp4", "x.txt"] {
        group.file(name, 100_000, 6);
        seeder.say(&format!("add \"{name}\""));
        seeder.wait_for("Sharing");
    }
    let mut args = vec!["peer", "--tracker", &address, "--bind", "127.0.0.1"];
    args.extend(["--port", "0", "--name", "ana"]);
    let dumb = [("TERM", "dumb"), ("NO_COLOR", "1")];
    for variables in [&[][..], &dumb] {
        let mut narrow = Terminal::start_in(&group, "narrow", &args, variables);
        narrow.set_width(20);
        narrow.wait_for("Passphrase");
        narrow.type_line(PASSPHRASE);
        narrow.wait_for("P2P> ");
        for (command, header, wanted) in [
            ("all_files", "NAME", &["a t….mp4 b3:", "x.txt    b3:"][..]),
            ("lap", "USER", &["ana ", "a-p…name 2"]),
        ] {
            narrow.type_line(command);
            narrow.wait_for(header);
            let is_done = |narrow: &Terminal| narrow.shown().ends_with("\nP2P>");
            let shown = narrow.wait_until("answered", is_done);
            let listing = shown.rsplit_once(header).unwrap().1;
            assert!(listing.lines().count() > 2, "{listing}");
            let rows = narrow.rows();
            let first = rows.iter().rposition(|row| row.contains(header));
            let wrapped = narrow.wrapped_rows();
            // A line that this pty does not echo leaves the prompt before the header.
            assert!(wrapped.iter().all(|row| Some(*row) <= first), "{shown}");
            for part in wanted {
                assert!(listing.contains(part), "\"{part}\" is missing in {listing}");
            }
        }
        narrow.type_line("quit");
        narrow.process.wait().unwrap();
    }
    let whole = text(&group.once(&address, &["files"]).stdout);
    assert!(
        whole.contains("a talk of many words 名前👍🏽.mp4   97.7 KiB"),
        "{whole}"
    );
}

#[test]
fn enter_alone_answers_with_what_the_environment_says() {
    let group = Group::new();
    let here = ("P2PFS_BIND", "127.0.0.1");
    let passphrase = ("P2PFS_PASSPHRASE", PASSPHRASE);
    let variables = [here, passphrase, ("P2PFS_PORT", "0")];
    let mut tracker = Terminal::start_in(&group, "tracker", &[], &variables);
    tracker.wait_for("(p)eer?");
    tracker.type_line("t");
    tracker.wait_for("Tracker listening on ");
    let address = tracker.wait_for(",");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    group.file("a.txt", 10, 1);
    let mut seeder = group.peer("seeder", &address, &["--share", "a.txt"]);
    seeder.wait_for("Sharing a.txt");

    let out = group.folder("out");
    let variables = [
        here,
        passphrase,
        ("P2PFS_TRACKER", &address),
        ("P2PFS_PORT", "0"),
        ("P2PFS_NAME", "vader"),
        ("P2PFS_OUT", out.to_str().unwrap()),
    ];
    let mut peer = Terminal::start_in(&group, "peer", &[], &variables);
    peer.wait_for("(p)eer?");
    peer.type_line("p");
    for question in [&format!("Tracker host [{address}]"), "Your name [vader]"] {
        peer.wait_for(question);
        peer.type_line("");
    }
    peer.wait_for(&format!("Joined {address} as vader, listening on "));
    let port: u16 = peer.wait_for(".").parse().unwrap();
    assert!(!(8001..=8100).contains(&port), "{port}");
    peer.type_line("get a.txt");
    peer.wait_for("Download successful: a.txt");
    assert_eq!(names_in(&out), ["downloaded_a.txt"]);
}

#[test]
fn the_demo_shows_every_step() {
    let group = Group::new();
    let file = group.file("a picture.png", 2_000_000, 4);
    let output = group
        .command("demo")
        .args(["demo", file.to_str().unwrap()])
        .output()
        .unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    for step in [
        "Tracker listening on",
        "Sharing a picture.png",
        "Download successful",
        "equal on both sides",
        "machine 3:",
    ] {
        assert!(shown.contains(step), "{step} is missing in:\n{shown}");
    }
}
