//! Many peers and one file: who serves whom, how fast, and what is left when some of them go or lie.

#![expect(
    clippy::print_stdout,
    reason = "what is measured is for people to read"
)]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use p2pfs::peer::connection::{Reader, Writer};
use p2pfs::wire::id::ContentId;
use p2pfs::wire::transfer::{Frame, Opened, PieceSet, Wanted};

use crate::support::member::Member;
use crate::support::network::Network;
use crate::support::terminal::Terminal;
use crate::support::{Group, PASSPHRASE, Process, assert_same, hash, names_in, wait_until};
use crate::transfer::rot;

const MIB: u64 = 1 << 20;

/// The part file in `dir`, once there is one.
fn part_in(dir: &Path) -> Option<PathBuf> {
    let name = names_in(dir)
        .into_iter()
        .find(|name| name.ends_with(".part"))?;
    Some(dir.join(name))
}

/// Which pieces of `right` lie in the part file in `dir`; all once there is no part file any more.
fn pieces_in(dir: &Path, right: &[u8]) -> Vec<bool> {
    let len = usize::try_from(MIB).unwrap();
    let read = part_in(dir).and_then(|part| fs::read(part).ok());
    let right = right.chunks(len);
    match read {
        Some(part) if !part.is_empty() => right
            .zip(part.chunks(len))
            .map(|(right, here)| right == here)
            .collect(),
        _ => {
            let is_done = names_in(dir)
                .iter()
                .any(|name| name.starts_with("downloaded_"));
            right.map(|_| is_done).collect()
        }
    }
}

fn count(pieces: &[bool]) -> usize {
    pieces.iter().filter(|is_here| **is_here).count()
}

/// The rate of a closing line, in MiB a second.
fn mib_per_s(line: &str) -> f64 {
    let words: Vec<_> = line.split([' ', ',']).collect();
    let unit = words.iter().position(|word| word.ends_with("/s")).unwrap();
    let number: f64 = words[unit - 1].parse().unwrap();
    match words[unit] {
        "MiB/s" => number,
        "KiB/s" => number / 1024.0,
        other => panic!("{other} in {line}"),
    }
}

/// Shows: what came is served at once. Two downloaders take from each other what the seeder sent only once,
/// and end without it.
/// How: all three are slow; the seeder is killed as soon as each piece is with one of the two.
#[test]
fn two_downloaders_end_from_each_other_when_the_seeder_dies() {
    const PIECES: u64 = 40;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("shared.bin", PIECES * MIB, 5);
    let right = fs::read(&file).unwrap();
    let share = ["--share", file.to_str().unwrap(), "--up-limit", "8MiB"];
    let mut seeder = group.peer("seeder", &address, &share);
    seeder.wait_for("Sharing");
    let mut pair = ["ana", "bob"].map(|name| group.peer(name, &address, &["--up-limit", "2MiB"]));
    let here = |name| pieces_in(&group.path(name), &right);
    pair[0].say("download shared.bin");
    wait_until("pieces to come", || count(&here("ana")) > 2);
    pair[1].say("download shared.bin");
    let mut here_then = Vec::new();
    wait_until("each piece to be with one of the two", || {
        here_then = vec![here("ana"), here("bob")];
        (0..right.len() / (1 << 20)).all(|piece| here_then.iter().any(|here| here[piece]))
    });
    seeder.kill();
    let counts: Vec<_> = here_then.iter().map(|here| count(here)).collect();
    println!("when the seeder died: {counts:?} of {PIECES} pieces");
    assert!(counts.iter().any(|count| *count < 40), "{counts:?}");
    for (peer, name) in pair.iter_mut().zip(["ana", "bob"]) {
        let line = peer.wait_for("Download successful");
        assert!(
            line.contains("from 2 peers") && line.contains("verified"),
            "{line}"
        );
        assert_same(
            &group.path(&format!("{name}/downloaded_shared.bin")),
            &file,
            PIECES * MIB,
        );
    }
}

/// `p2pfs get` of `shared.bin` on host `number`, from the tracker on host 1.
fn get(network: &Network, group: &Group, number: usize, name: &str) -> Process {
    let out = group.folder(name);
    let out = out.to_str().unwrap();
    let args = ["get", "shared.bin", "--tracker", "10.77.0.1", "--port", "0"];
    network.start(
        group,
        number,
        name,
        &[&args[..], &["--name", name, "--out", out]].concat(),
    )
}

/// Shows: a crowd costs a seeder little more than one copy, and each about as long as if it were alone.
/// How: a seeder with a limit on a host of its own, on which the bytes it sends are counted.
#[test]
fn a_crowd_serves_itself() {
    const LEN: u64 = 60_000_000;
    let group = Group::new();
    let network = Network::new(2);
    let file = group.file("shared.bin", LEN, 5);
    let mut tracker = network.start(&group, 1, "tracker", &["tracker"]);
    tracker.wait_for("Tracker listening on ");
    let join = ["share", file.to_str().unwrap(), "--tracker", "10.77.0.1"];
    let limit = ["--up-limit", "6MB", "--port", "8001", "--name", "seeder"];
    let mut seeder = network.start(&group, 1, "seeder", &[&join[..], &limit].concat());
    seeder.wait_for("Sharing");
    network.rules(
        1,
        "table inet watch {
            counter sent { }
            chain out { type filter hook output priority 0; tcp sport 8001 counter name sent; }
        }",
    );
    let timed = |names: &[String]| {
        let began = Instant::now();
        let mut peers: Vec<_> = names
            .iter()
            .map(|name| (name, get(&network, &group, 2, name)))
            .collect();
        for (name, peer) in &mut peers {
            let line = peer.wait_for("Download successful");
            println!("{line}");
            assert_same(&group.path(name).join("downloaded_shared.bin"), &file, LEN);
        }
        began.elapsed().as_secs_f64()
    };
    let alone = timed(&["alone".to_owned()]);
    let before = network.counted_bytes(1, "sent");
    assert!(before > LEN && before < LEN * 11 / 10, "{before}");
    let crowd: Vec<_> = (0..8).map(|number| format!("crowd{number}")).collect();
    let together = timed(&crowd);
    let sent = network.counted_bytes(1, "sent") - before;
    let copies = sent as f64 / LEN as f64;
    println!(
        "one: {alone:.1} s; eight: {together:.1} s, {:.2} times; the seeder sent {copies:.2} copies",
        together / alone
    );
    assert!(copies < 2.0, "{copies} copies");
    assert!(
        together < 3.0 * alone,
        "{together} s for eight, {alone} s for one"
    );
}

/// Shows: the rates of several seeders add up.
#[test]
fn four_slow_seeders_are_nearly_four_times_as_fast_as_one() {
    const LEN: u64 = 160 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("shared.bin", LEN, 5);
    let share = ["--share", file.to_str().unwrap(), "--up-limit", "20MB"];
    let mut seeders = Vec::new();
    let mut rates = Vec::new();
    for wanted in [1, 4] {
        while seeders.len() < wanted {
            let mut seeder = group.peer(&format!("seeder{}", seeders.len()), &address, &share);
            seeder.wait_for("Sharing");
            seeders.push(seeder);
        }
        let mut leecher = group.peer(&format!("leecher{wanted}"), &address, &["--no-seed"]);
        leecher.say("download shared.bin");
        let line = leecher.wait_for("Download successful");
        println!("{line}");
        rates.push(mib_per_s(&line));
    }
    let times = rates[1] / rates[0];
    println!("four seeders: {times:.2} times one");
    assert!(times > 2.5, "{rates:?}");
}

/// Shows: row 46, with seeders that stop and that die when most is here: the other ends it soon.
/// How: one of two slow seeders gets SIGSTOP, or SIGKILL, at 85 %.
#[test]
fn row_46_a_seeder_that_stops_late_holds_nothing_up() {
    const PIECES: u64 = 100;
    const RATE: u64 = 5;
    for signal in [Signal::STOP, Signal::KILL] {
        let group = Group::new();
        let (_tracker, address) = group.tracker();
        let file = group.file("shared.bin", PIECES * MIB, 5);
        let right = fs::read(&file).unwrap();
        let share = ["--share", file.to_str().unwrap(), "--up-limit", "5MiB"];
        let seeders = ["one", "two"].map(|name| {
            let mut seeder = group.peer(name, &address, &share);
            seeder.wait_for("Sharing");
            seeder
        });
        let mut leecher = group.peer("leecher", &address, &["--no-seed"]);
        leecher.say("download shared.bin");
        let out = group.path("leecher");
        wait_until("85 %", || count(&pieces_in(&out, &right)) >= 85);
        seeders[0].signal(signal);
        let began = Instant::now();
        let line = leecher.wait_for("Download successful");
        let took = began.elapsed();
        println!("{signal:?}: {took:?} for the rest; {line}");
        assert!(
            took < Duration::from_secs(30 + (PIECES - 85) / RATE),
            "{took:?}"
        );
        assert_same(&out.join("downloaded_shared.bin"), &file, PIECES * MIB);
    }
}

/// Shows: a download outlives its only seeder. It says that it waits, and goes on when another one comes.
#[test]
fn a_download_waits_for_the_next_seeder_and_says_so() {
    waits_for_the_next_seeder(&[]);
}

/// Shows: the same of downloaders that are left among themselves: none has what the others lack.
#[test]
fn downloads_that_are_left_among_themselves_wait_and_say_so() {
    waits_for_the_next_seeder(&["ana", "bob"]);
}

fn waits_for_the_next_seeder(others: &[&str]) {
    const LEN: u64 = 20 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("shared.bin", LEN, 5);
    let right = fs::read(&file).unwrap();
    let share = ["--share", file.to_str().unwrap(), "--up-limit", "2MiB"];
    let mut first = group.peer("first", &address, &share);
    first.wait_for("Sharing");
    let out = group.folder("out");
    let join = ["peer", "--tracker", &address, "--name", "vader"];
    let here = ["--port", "0", "--out", out.to_str().unwrap()];
    let mut leecher = Terminal::start(&group, "vader", &[&join[..], &here].concat());
    leecher.wait_for("Passphrase");
    leecher.type_line(PASSPHRASE);
    leecher.wait_for("Type help for commands");
    leecher.type_line("get shared.bin");
    let mut others: Vec<_> = others
        .iter()
        .map(|name| group.peer(name, &address, &[]))
        .collect();
    for other in &mut others {
        other.say("download shared.bin");
    }
    wait_until("pieces to come", || count(&pieces_in(&out, &right)) > 3);
    first.kill();
    leecher.wait_for("shared.bin: waiting for a seeder");
    if !others.is_empty() {
        leecher.wait_for("nobody who is here has the rest");
    }
    assert!(part_in(&out).is_some(), "what came is kept");
    let mut second = group.peer("second", &address, &share[..2]);
    second.wait_for("Sharing");
    leecher.wait_for("Download successful");
    assert_same(&out.join("downloaded_shared.bin"), &file, LEN);
    for other in &mut others {
        other.wait_for("Download successful");
    }
}

/// Shows: row 47, for one wrong piece of a hundred: the liar is named, the file is right, and the liar is not
/// asked for other files either.
/// How: the honest seeder stands still until the liar was caught.
#[test]
fn row_47_one_lie_in_a_hundred_pieces_is_named_and_remembered() {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let other = group.file("other.bin", 3 * MIB, 8);
    let [mut liar, mut honest] = ["liar", "honest"].map(|name| {
        let file = group.file(&format!("{name}.d/x.bin"), 100 * MIB, 9);
        let mut seeder = group.peer(name, &address, &["--share", file.to_str().unwrap()]);
        seeder.wait_for("Sharing");
        seeder
    });
    liar.say(&format!("add {}", other.to_str().unwrap()));
    liar.wait_for("Sharing");
    rot(&group.path("liar.d/x.bin"), 37 * MIB + 77);
    let mut leecher = group.peer("leecher", &address, &[]);
    honest.signal(Signal::STOP);
    leecher.say("download x.bin");
    let line = leecher.wait_for("put aside");
    assert!(
        line.contains("x.bin: liar is put aside: it sent wrong data"),
        "{line}"
    );
    honest.signal(Signal::CONT);
    let line = leecher.wait_for("Download successful");
    assert!(line.contains("verified"), "{line}");
    let right = group.path("honest.d/x.bin");
    assert_same(&group.path("leecher/downloaded_x.bin"), &right, 100 * MIB);

    leecher.say("download other.bin");
    leecher.wait_for("other.bin: liar sent wrong data less than an hour ago");
    honest.say(&format!("add {}", other.to_str().unwrap()));
    honest.wait_for("Sharing");
    leecher.say("download other.bin");
    let line = leecher.wait_for("Download successful");
    assert!(line.contains("from 1 peer,"), "{line}");
}

/// Shows: row 58, while three peers load the file: it is withdrawn, they get the rest elsewhere, and what they
/// get is right. Whoever withdrew is not taken for a liar.
#[test]
fn row_58_a_file_that_changes_under_three_downloads_harms_none() {
    const LEN: u64 = 30 * MIB;
    for change in ["truncated", "overwritten", "replaced"] {
        let group = Group::new();
        let (_tracker, address) = group.tracker();
        let file = group.file("x.bin", LEN, 5);
        let copy = group.file("copy/x.bin", LEN, 5);
        let right = fs::read(&copy).unwrap();
        let share = ["--share", file.to_str().unwrap(), "--up-limit", "6MiB"];
        let mut seeder = group.peer("seeder", &address, &share);
        seeder.wait_for("Sharing");
        let names = ["ana", "bob", "cid"];
        let mut peers = names.map(|name| group.peer(name, &address, &["--up-limit", "1MiB"]));
        for peer in &mut peers {
            peer.say("download x.bin");
        }
        wait_until("pieces to come", || {
            names
                .iter()
                .all(|name| count(&pieces_in(&group.path(name), &right)) > 2)
        });
        match change {
            "truncated" => fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_len(MIB)
                .unwrap(),
            "overwritten" => drop(group.file("x.bin", LEN, 6)),
            _ => fs::rename(group.file("new.bin", LEN, 6), &file).unwrap(),
        }
        if change != "replaced" {
            seeder.wait_for("x.bin is not shared any more: ");
        }
        let mut other = group.peer("other", &address, &["--share", copy.to_str().unwrap()]);
        other.wait_for("Sharing");
        for (peer, name) in peers.iter_mut().zip(names) {
            peer.wait_for("Download successful");
            assert_same(&group.path(name).join("downloaded_x.bin"), &copy, LEN);
            assert!(
                !peer.output().contains("wrong data"),
                "{change}: {}",
                peer.output()
            );
        }
        seeder.say("id");
        assert_eq!(
            seeder.exit_within(Duration::from_millis(200)),
            None,
            "{change}: it lives"
        );
    }
}

/// Shows: a peer that has a file by download and goes on serving it to those who were connected before sees
/// that it changes, as with any file that it shares.
#[test]
fn row_58_a_download_that_is_changed_when_it_is_whole_is_not_served_under_its_id() {
    const LEN: u64 = 30 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 5);
    let right = fs::read(&file).unwrap();
    let share = ["--share", file.to_str().unwrap(), "--up-limit", "8MiB"];
    let mut seeder = group.peer("seeder", &address, &share);
    seeder.wait_for("Sharing");
    let mut ana = group.peer("ana", &address, &["--up-limit", "1MiB"]);
    ana.say("download x.bin");
    wait_until("pieces to come", || {
        count(&pieces_in(&group.path("ana"), &right)) > 2
    });
    // Only from her: the connection is as old as her download.
    let mut bob = group.peer("bob", &address, &[]);
    bob.say("download -b x.bin --from ana");
    ana.wait_for("Download successful");
    drop(seeder);
    wait_until("pieces from her", || {
        count(&pieces_in(&group.path("bob"), &right)) > 8
    });
    let own = group.path("ana/downloaded_x.bin");
    let garbage = group.file("garbage.bin", LEN, 6);
    // In place: reading it never fails.
    let own = fs::File::options().write(true).open(&own).unwrap();
    own.write_all_at(&fs::read(garbage).unwrap(), 0).unwrap();
    let _other = group.sharer("other", &address, &[&file], &[]);
    let line = bob.wait_for("ana is put aside: ");
    assert!(line.contains("it has it no longer"), "{line}");
    ana.wait_for("x.bin is not shared any more: it changed on disk");
    bob.say("cancel 1");
    bob.wait_for("Cancelled 1");
    bob.say("download x.bin");
    bob.wait_for("Download successful");
    assert_same(&group.path("bob/downloaded_x.bin"), &file, LEN);
}

/// Shows: limits of either side are kept, and count at once when they are changed.
#[test]
fn limits_are_kept_and_changed_under_way() {
    const LEN: u64 = 20 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 5);
    let share = ["--share", file.to_str().unwrap(), "--up-limit", "4MiB"];
    let mut seeder = group.peer("seeder", &address, &share);
    seeder.wait_for("Sharing");
    let mut leecher = group.peer("leecher", &address, &["--no-seed"]);
    let out = group.path("leecher");
    let up = rate(&mut leecher, &out, "4 MiB/s up");
    assert!((3.0..4.5).contains(&up), "{up}");
    seeder.say("limit up off");
    seeder.wait_for("Uploads: no limit");
    let free = rate(&mut leecher, &out, "no limit");
    assert!(free > 5.0, "{free}");
    leecher.say("limit down 4MiB");
    leecher.wait_for("downloads: 4.0 MiB/s");
    let down = rate(&mut leecher, &out, "4 MiB/s down");
    assert!((3.0..4.5).contains(&down), "{down}");

    leecher.say("limit down 100KiB");
    leecher.say("download -b x.bin");
    wait_until("the download to begin", || part_in(&out).is_some());
    leecher.say("limit down off");
    let line = leecher.wait_for("Download successful");
    println!("100 KiB/s and then no limit: {:.2} MiB/s", mib_per_s(&line));
    assert!(mib_per_s(&line) > 1.0, "{line}");
}

/// The rate at which `leecher` gets `x.bin`, in MiB a second.
fn rate(leecher: &mut Process, out: &Path, what: &str) -> f64 {
    leecher.say("download x.bin");
    let line = leecher.wait_for("Download successful");
    fs::remove_file(out.join("downloaded_x.bin")).unwrap();
    println!("{what}: {:.2} MiB/s", mib_per_s(&line));
    mib_per_s(&line)
}

/// Shows: people take turns at a limit, however many downloads each of them has.
/// How: one person loads ten files at once, another one a single file.
#[test]
fn who_loads_ten_files_gets_no_more_than_who_loads_one() {
    const LEN: u64 = 40 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let mut seeder = group.peer("seeder", &address, &["--up-limit", "8MiB"]);
    for number in 0..11 {
        let file = group.file(&format!("f{number}"), LEN, number);
        seeder.say(&format!("add {}", file.to_str().unwrap()));
        seeder.wait_for("Sharing");
    }
    let config = group.write_private("greedy.toml", "[limits]\ndownloads = 10\n");
    let mut greedy = group.peer("greedy", &address, &["--config", config.to_str().unwrap()]);
    for number in 0..10 {
        greedy.say(&format!("download -b f{number}"));
    }
    let out = group.path("greedy");
    wait_until("ten downloads to run", || {
        names_in(&out)
            .iter()
            .filter(|name| name.ends_with(".part"))
            .count()
            == 10
    });
    let mut modest = group.peer("modest", &address, &[]);
    modest.say("download f10");
    let line = modest.wait_for("Download successful");
    let mine = mib_per_s(&line);
    println!("one of 8 MiB/s, beside ten downloads of somebody else: {mine:.2} MiB/s");
    assert!(
        !names_in(&out)
            .iter()
            .any(|name| name.starts_with("downloaded_"))
    );
    assert!((2.5..5.5).contains(&mine), "{line}");
}

/// A member that says it has `content`, and answers everybody with `answer`.
fn pretender<F, A>(tracker: &str, name: &str, content: ContentId, len: u64, answer: F) -> Member
where
    F: Fn(Reader, Writer) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let mut member = Member::join(tracker, name);
    member.serve(answer);
    member.publish("x.bin", content, len);
    member
}

/// Answers OPEN: everything is here, or these pieces are.
async fn open(reader: &mut Reader, writer: &mut Writer, len: u64, pieces: Option<PieceSet>) {
    while let Ok(Some(frame)) = reader.next().await {
        if let Frame::Open { file, .. } = frame {
            let opened = Opened { len, pieces };
            let _ = writer.send(&Frame::Opened { file, opened }).await;
            return;
        }
    }
}

/// Says that all is here, and sends so many bytes of a piece at a time.
async fn drip(mut reader: Reader, mut writer: Writer, len: u64, every: Duration, bytes: usize) {
    open(&mut reader, &mut writer, len, None).await;
    let (mut first, mut sent) = (None, 0);
    let mut drops = tokio::time::interval(every);
    loop {
        tokio::select! {
            frame = reader.next() => match frame {
                Ok(Some(Frame::Request { request, wanted })) => {
                    let at = u64::from(wanted.candidates[0]) * MIB;
                    first.get_or_insert((request, at));
                }
                Ok(Some(_)) => {}
                _ => return,
            },
            _ = drops.tick(), if first.is_some() => {
                let (request, at) = first.unwrap();
                let (offset, is_last) = (at + sent, false);
                let bytes = &vec![0; bytes];
                let drop = Frame::Chunk { request, offset, is_last, bytes };
                if writer.send(&drop).await.is_err() {
                    return;
                }
                sent += bytes.len() as u64;
            }
        }
    }
}

/// Shows: a download whose only source sends a little now and then says so, and takes the next source at once.
/// How: one that sends some bytes just before it would be taken for stalled; later an honest one. The file is
/// one piece, which needs no hashes besides its id.
#[test]
fn one_that_drips_is_called_slow_until_another_comes() {
    const LEN: u64 = MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 5);
    let content = ContentId(*hash(&file).as_bytes());
    let every = Duration::from_millis(1900);
    let dripping = move |reader, writer| drip(reader, writer, LEN, every, 100);
    let _member = pretender(&address, "drip", content, LEN, dripping);
    let mut leecher = group.peer("leecher", &address, &[]);
    leecher.say("download -b x.bin");
    leecher.wait_for("slow source");
    assert!(
        !leecher.output().contains("put aside"),
        "{}",
        leecher.output()
    );
    let _seeder = group.sharer("honest", &address, &[&file], &[]);
    let began = Instant::now();
    wait_until("the file to be here", || {
        names_in(&group.path("leecher")) == ["downloaded_x.bin"]
    });
    let took = began.elapsed();
    println!("{took:?} once somebody else was there");
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_same(&group.path("leecher/downloaded_x.bin"), &file, LEN);
}

/// Shows: sources that promise everything and deliver nothing, or a byte now and then, cost little time.
/// How: two of each, made of the library, beside an honest seeder that is slow.
#[test]
fn sources_that_only_promise_hold_nothing_up() {
    const LEN: u64 = 30 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 5);
    let content = ContentId(*hash(&file).as_bytes());
    let share = ["--share", file.to_str().unwrap(), "--up-limit", "5MiB"];
    let mut seeder = group.peer("honest", &address, &share);
    seeder.wait_for("Sharing");
    let mute = |mut reader: Reader, mut writer: Writer| async move {
        open(&mut reader, &mut writer, LEN, None).await;
        while let Ok(Some(_)) = reader.next().await {}
    };
    let dripping = |reader, writer| drip(reader, writer, LEN, Duration::from_secs(5), 1);
    let _members = [
        pretender(&address, "mute1", content, LEN, mute),
        pretender(&address, "mute2", content, LEN, mute),
        pretender(&address, "drip1", content, LEN, dripping),
        pretender(&address, "drip2", content, LEN, dripping),
    ];
    let mut leecher = group.peer("leecher", &address, &[]);
    let began = Instant::now();
    leecher.say("download x.bin");
    let line = leecher.wait_for("Download successful");
    println!("beside two mute and two dripping sources: {line}");
    assert!(line.contains("from 1 peer"), "{line}");
    assert!(began.elapsed() < Duration::from_secs(40), "{line}");
    assert_same(&group.path("leecher/downloaded_x.bin"), &file, LEN);
}

/// Shows: row 51, from a source: pieces beyond the end, and hashes that prove nothing, put it aside.
#[test]
fn row_51_sources_that_talk_nonsense_are_put_aside() {
    const LEN: u64 = 30 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 5);
    let content = ContentId(*hash(&file).as_bytes());
    let beyond = |mut reader: Reader, mut writer: Writer| async move {
        open(&mut reader, &mut writer, LEN, Some(PieceSet(vec![0; 4]))).await;
        let (file, pieces) = (0, vec![30]);
        let _ = writer.send(&Frame::Have { file, pieces }).await;
        while let Ok(Some(_)) = reader.next().await {}
    };
    let field_beyond = |mut reader: Reader, mut writer: Writer| async move {
        open(&mut reader, &mut writer, LEN, Some(PieceSet(vec![255; 4]))).await;
        while let Ok(Some(_)) = reader.next().await {}
    };
    let hashes = |mut reader: Reader, mut writer: Writer| async move {
        open(&mut reader, &mut writer, LEN, None).await;
        while let Ok(Some(frame)) = reader.next().await {
            if let Frame::AskHashes { file, page } = frame {
                let hashes = &[7; 32 * 30];
                let _ = writer.send(&Frame::Hashes { file, page, hashes }).await;
            }
        }
    };
    let mut leecher = group.peer("leecher", &address, &[]);
    for (number, words) in ["a piece beyond the end", "", "hash"]
        .into_iter()
        .enumerate()
    {
        let name = format!("bad{number}");
        let member = match number {
            0 => pretender(&address, &name, content, LEN, beyond),
            1 => pretender(&address, &name, content, LEN, field_beyond),
            _ => pretender(&address, &name, content, LEN, hashes),
        };
        leecher.say("download x.bin");
        let line = leecher.wait_for("p2pfs: ");
        assert!(!line.contains("nobody has it"), "{line}");
        let said = leecher.output();
        println!("{said}");
        assert!(said.contains(words), "{said}");
        drop(member);
    }
    let _seeder = group.sharer("honest", &address, &[&file], &[]);
    leecher.say("download x.bin");
    leecher.wait_for("Download successful");
    assert_same(&group.path("leecher/downloaded_x.bin"), &file, LEN);
}

/// Reads until the connection ends; whether it ended.
async fn ends(reader: &mut Reader) -> bool {
    let reading = async { while let Ok(Some(_)) = reader.next().await {} };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .is_ok()
}

/// Shows: row 51, from downloaders: pieces beyond the end and too many open files end the connection; a
/// million requests that nobody reads the answers of are not read either; others do not notice.
#[test]
fn row_51_downloaders_that_ask_for_too_much_are_cut_off() {
    const LEN: u64 = 30 * MIB;
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let file = group.file("x.bin", LEN, 5);
    let content = ContentId(*hash(&file).as_bytes());
    let seeder = group.sharer("seeder", &address, &[&file], &[]);
    let member = Member::join(&address, "mallory");
    seeder.reset_peak();
    let before = seeder.peak_kib();

    let (mut reader, mut writer) = member.dial(content);
    let cut_off = member.block_on(async {
        for file in 0..17 {
            let _ = writer.send(&Frame::Open { file, content }).await;
        }
        ends(&mut reader).await
    });
    assert!(cut_off, "17 files");
    for candidates in [vec![30], vec![u32::MAX], vec![0, 1, 2, 30]] {
        let (mut reader, mut writer) = member.dial(content);
        let cut_off = member.block_on(async {
            let _ = writer.send(&Frame::Open { file: 0, content }).await;
            let (request, wanted) = (
                1,
                Wanted {
                    file: 0,
                    candidates,
                },
            );
            let _ = writer.send(&Frame::Request { request, wanted }).await;
            ends(&mut reader).await
        });
        assert!(cut_off, "a piece beyond the end");
    }
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let (reader, mut writer) = member.dial(content);
        let sent = member.block_on(async {
            let _ = writer.send(&Frame::Open { file: 0, content }).await;
            let mut sent = 0_u32;
            let asking = async {
                for request in 0..1_000_000 {
                    let candidates = vec![request % 30];
                    let wanted = Wanted {
                        file: 0,
                        candidates,
                    };
                    writer
                        .send(&Frame::Request { request, wanted })
                        .await
                        .unwrap();
                    sent += 1;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(5), asking).await;
            sent
        });
        println!("{sent} requests were taken");
        deaf.push((reader, writer));
    }
    let out = group.folder("out");
    let get = ["get", "x.bin", "--no-seed", "--out", out.to_str().unwrap()];
    assert!(group.once(&address, &get).status.success());
    assert_same(&out.join("downloaded_x.bin"), &file, LEN);
    let grown = seeder.peak_kib() - before;
    println!("the seeder grew by {grown} KiB");
    assert!(grown < 32 * 1024, "{grown} KiB");
}
