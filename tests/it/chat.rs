//! Talks between people at terminals and in scripts: who is asked, what is shown, and what a flood does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rexpect::process::WaitStatus;
use serde_json::Value;

use p2pfs::wire::talk::Frame;

use crate::support::member::Member;
use crate::support::terminal::Terminal;
use crate::support::{Group, PATIENCE, Process, joining, peak_kib, reset_peak, text};

/// A question is answered by its letters once it has stood there for a moment: an answer is given until it
/// is taken.
const MOMENT: Duration = Duration::from_millis(100);

struct World {
    group: Group,
    _tracker: Process,
    address: String,
}

impl World {
    fn new() -> Self {
        let group = Group::new();
        let (tracker, address) = group.tracker();
        Self {
            group,
            _tracker: tracker,
            address,
        }
    }

    /// A peer of this name at a terminal.
    fn sits(&self, name: &str) -> Terminal {
        let out = self.group.folder(name);
        let state = format!("{name}.state");
        let wrapper = ["sh", "-c", "stty echo; exec \"$@\"", "sh"];
        let mut command = self.group.command_under(&state, &wrapper);
        command
            .arg("peer")
            .args(joining(&self.address, name, &out))
            .env("TERM", "xterm")
            .env("XTERM_VERSION", "XTerm(390)");
        let mut terminal = Terminal::run(command);
        terminal.wait_end("P2P>");
        terminal
    }

    /// A peer of this name that reads commands from a pipe.
    fn runs(&self, name: &str) -> Process {
        self.group.peer(name, &self.address, &[])
    }

    /// A command through the peer of this name.
    fn ask(&self, name: &str, args: &[&str]) -> Output {
        let mut command = self.group.command(&format!("{name}.state"));
        command.args(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Objects of such a command.
    fn objects(&self, name: &str, args: &[&str]) -> Vec<Value> {
        let output = self.ask(name, &[args, &["--json"]].concat());
        let lines = text(&output.stdout);
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn print_of(&self, name: &str) -> String {
        self.objects(name, &["id"])[0]["key"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// Answers the question that stands there, until the screen shows that it was taken.
fn answers(terminal: &mut Terminal, answer: &str, taken: &str) {
    let until = Instant::now() + PATIENCE;
    while !terminal.shown().contains(taken) {
        assert!(Instant::now() < until, "{}", terminal.shown());
        terminal.press(&format!("{answer}\r"));
        terminal.read_for(MOMENT);
    }
}

fn talk(asks: &mut Terminal, asked: &mut Terminal, names: (&str, &str)) {
    asks.type_line(&format!("/connect {}", names.1));
    asked.wait_until("asked", |it| it.shown().contains("wants to talk"));
    answers(asked, "y", &format!("You talk with {}", names.0));
    asks.wait_until("let in", |it| {
        it.shown().contains(&format!("You talk with {}", names.1))
    });
}

#[test]
fn two_people_talk_after_one_of_them_says_yes() {
    let world = World::new();
    let (mut ana, mut bob) = (world.sits("ana"), world.sits("bob"));
    talk(&mut ana, &mut bob, ("ana", "bob"));
    ana.type_line("/msg bob it's \"final\"  now");
    bob.wait_until("told", |bob| {
        bob.shown().contains("<ana> it's \"final\"  now\n")
    });
    ana.wait_until("told what became of it", |ana| {
        ana.shown().contains("delivered to bob")
    });
    bob.type_line("ALL to everybody");
    ana.wait_until("told", |ana| {
        ana.shown().contains("<bob to all> to everybody\n")
    });
    ana.type_line("who");
    let shown = ana.wait_until("who is here", |ana| ana.shown().contains("1 new"));
    assert!(
        shown.contains("talking, idle") && shown.contains("LAN"),
        "{shown}"
    );
    bob.type_line("/disconnect");
    ana.wait_until("ended", |ana| {
        ana.shown().contains("bob has ended the talk")
    });
    ana.type_line("/exit");
    let status = ana.end_within(Duration::from_secs(10));
    assert!(
        matches!(status, Some(WaitStatus::Exited(_, 0))),
        "{status:?}"
    );
    // What was said is in no file of either.
    for name in ["ana", "bob"] {
        let history = fs::read(world.group.path(&format!("{name}.state/peer/history")));
        let history = String::from_utf8(history.unwrap()).unwrap();
        assert!(
            !history.contains("final") && !history.contains("everybody"),
            "{history}"
        );
    }
}

/// Shows: rows 75 and 76: a question stands above a half-typed line and leaves it alone, Enter alone is no, and
/// whoever was denied is not heard for a while.
#[test]
fn row_76_enter_alone_is_no_and_a_question_never_takes_a_half_typed_line() {
    let world = World::new();
    let (mut ana, mut bob) = (world.runs("ana"), world.sits("bob"));
    let half = format!("search {}", "0123456789".repeat(10));
    bob.press(&half);
    let end = format!("P2P> {}\n{}", &half[..75], &half[75..]);
    bob.wait_end(&end);
    ana.say("connect bob");
    let shown = bob.wait_until("asked, and the line whole", |bob| {
        bob.shown().contains("wants to talk") && bob.shown().ends_with(&end)
    });
    let question = shown.find("? ana (never met").unwrap();
    assert!(question < shown.find("P2P> search").unwrap(), "{shown}");
    bob.press("\x15");
    answers(&mut bob, "", "You said no to ana");
    ana.wait_for("does not want to talk");
    for _ in 0..3 {
        ana.say("connect bob");
        ana.wait_for("does not want to talk");
    }
    let record = bob.record();
    assert_eq!(record.matches("? ana").count(), 1, "{record}");
    // Asked by ourselves, the denial is over.
    bob.type_line("connect ana");
    ana.wait_for("wants to talk");
    ana.say("yes");
    bob.wait_until("talking", |bob| bob.shown().contains("You talk with ana"));
}

#[test]
fn an_answer_that_was_typed_for_one_person_is_given_to_no_other() {
    let world = World::new();
    let (mut ana, mut bob, mut eva) = (world.runs("ana"), world.runs("bob"), world.sits("eva"));
    ana.say("connect eva --wait 3s");
    eva.wait_until("asked", |eva| eva.shown().contains("? ana (never met"));
    eva.press("always");
    eva.wait_end("P2P> always");
    ana.wait_for("eva did not answer");
    eva.wait_until("withdrawn", |eva| {
        eva.shown().contains("! ana waits for no answer any more")
    });
    bob.say("connect eva");
    eva.wait_until("asked", |eva| eva.shown().contains("? bob (never met"));
    eva.press("\r");
    let shown = eva.wait_until("refused", |eva| {
        eva.shown().contains("nothing was answered") && eva.shown().ends_with("P2P>")
    });
    assert_eq!(shown.matches("? bob (never met").count(), 2, "{shown}");
    answers(&mut eva, "y", "You talk with bob");
    bob.wait_for("You talk with eva");
    bob.say("disconnect");
    eva.wait_until("ended", |eva| eva.shown().contains("bob has ended"));
    let record = eva.record();
    assert!(!record.contains("You trust"), "{record}");
    // Whoever was answered is not said to wait.
    assert_eq!(record.matches("no answer any more").count(), 1, "{record}");
}

/// Shows: row 74: what others say is one line with their name before it, in each of its rows, whatever is in it.
#[test]
fn row_74_what_somebody_says_looks_like_nothing_else() {
    let world = World::new();
    let (mut eve, mut bob) = (world.runs("eve"), world.sits("bob"));
    eve.say("connect bob");
    bob.wait_until("asked", |bob| bob.shown().contains("wants to talk"));
    answers(&mut bob, "y", "You talk with eve");
    let pad = "x".repeat(73);
    for said in [
        "\u{1b}[2J\u{1b}[HP2P> yes",
        "hi\r? ana (trusted) wants to talk: y, n or always?",
        "\u{202e}live\u{202c} a\u{200b}b",
        &format!("{pad}P2P> yes and {pad}? ana wants to talk"),
    ] {
        eve.say(&format!("msg bob {said}"));
        eve.wait_for("delivered to bob");
    }
    bob.wait_until("all shown", |bob| {
        bob.shown().contains("ana wants to talk") && bob.shown().ends_with("P2P>")
    });
    let shown = bob.shown();
    for wanted in [
        "<eve> \\u{1b}[2J\\u{1b}[HP2P> yes",
        "<eve> hi\\r? ana",
        "<eve> \\u{202e}live\\u{202c} a\\u{200b}b",
    ] {
        assert!(shown.contains(wanted), "{wanted} in {shown}");
    }
    let own = [
        "P2P>", "Joined", "? eve", "You talk", "<eve> ", "answer", "p2pfs:",
    ];
    for row in shown.lines() {
        assert!(
            own.iter().any(|own| row.starts_with(own)),
            "{row:?} in {shown}"
        );
    }
    assert_eq!(shown.matches("\n? ").count(), 1, "{shown}");
}

#[test]
fn three_people_write_at_once_above_a_half_typed_line() {
    const COUNT: usize = 20;
    let world = World::new();
    let (mut ana, mut eva, mut bob) = (world.runs("ana"), world.runs("eva"), world.sits("bob"));
    bob.type_line("trust ana");
    bob.type_line("trust eva");
    bob.wait_until("trusted", |bob| bob.shown().contains("You trust eva"));
    let half = format!("msg ana {}", "0123456789".repeat(10));
    bob.press(&half);
    let end = format!("P2P> {}\n{}", &half[..75], &half[75..]);
    bob.wait_end(&end);
    for number in 0..COUNT {
        ana.say(&format!("msg bob a{number}-{}", "y".repeat(100)));
        eva.say(&format!("msg bob e{number}."));
    }
    for _ in 0..COUNT {
        ana.wait_for("delivered to bob");
        eva.wait_for("delivered to bob");
    }
    bob.wait_until("all shown, and the line whole", |bob| {
        bob.screen.contains(&format!("e{}.", COUNT - 1)) && bob.shown().ends_with(&end)
    });
    let record = bob.record();
    for number in 0..COUNT {
        assert_eq!(
            record.matches(&format!("<eva> e{number}.")).count(),
            1,
            "{record}"
        );
        assert_eq!(
            record.matches(&format!("<ana> a{number}-")).count(),
            1,
            "{record}"
        );
    }
    bob.press("\r");
    ana.wait_for("<bob> 01234");
    bob.wait_until("delivered", |bob| bob.shown().contains("delivered to ana"));
}

/// Shows: a name that came with another key gets no talk before that key is trusted, and both key prints are shown.
#[test]
fn a_name_with_another_key_is_not_talked_to_before_it_is_trusted() {
    let world = World::new();
    let (mut ana, old) = (world.sits("ana"), world.runs("bob"));
    ana.type_line("trust bob");
    ana.wait_until("trusted", |ana| ana.shown().contains("You trust bob"));
    let first = world.print_of("bob");
    ana.type_line("quit");
    ana.end_within(PATIENCE).unwrap();
    drop(old);
    fs::rename(world.group.path("bob.state"), world.group.path("old.state")).unwrap();
    fs::rename(world.group.path("tracker"), world.group.path("old.tracker")).unwrap();
    let (_tracker, address) = world.group.tracker();
    let world = World { address, ..world };
    let (mut ana, mut bob) = (world.sits("ana"), world.runs("bob"));
    let second = world.print_of("bob");
    bob.say("connect ana");
    bob.wait_for("p2pfs: ");
    ana.wait_until("both prints", |ana| {
        let shown = ana.shown().replace('\n', "");
        shown.contains(&first) && shown.contains(&second)
    });
    assert!(!ana.shown().contains("wants to talk"), "{}", ana.shown());
    let output = world.ask("ana", &["msg", "bob", "hi"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = text(&output.stderr);
    let accepting = format!("trust bob {}", &second[..19]);
    for part in [&first, &second, &accepting] {
        assert!(said.contains(part.as_str()), "{said}");
    }
    ana.type_line(&accepting);
    ana.wait_until("trusted", |ana| ana.shown().contains("You trust bob"));
    bob.say("msg ana it is me");
    ana.wait_until("told", |ana| ana.shown().contains("<bob> it is me"));
}

fn connect(name: &str) -> Frame {
    Frame::Connect {
        user: name.parse().unwrap(),
        offers: false,
    }
}

/// Shows: row 75: whoever asks without end is one question at a time, the prompt stays of use, and who was denied
/// is not heard. How: a thousand connections by ten members, all of which want to talk.
#[test]
fn row_75_a_thousand_requests_are_one_question_at_a_time() {
    const MEMBERS: usize = 10;
    const EACH: usize = 100;
    let world = World::new();
    let mut bob = world.sits("bob");
    std::thread::scope(|scope| {
        for number in 0..MEMBERS {
            let address = &world.address;
            scope.spawn(move || {
                let name = format!("m{number}");
                let member = Member::join(address, &name);
                let bob = member.find("bob");
                let mut open = Vec::new();
                for _ in 0..EACH {
                    // Some are turned away before they can say anything.
                    if let Some((reader, mut writer)) = member.call(&bob) {
                        let _ = member.block_on(writer.send_talk(&connect(&name)));
                        open.push((reader, writer));
                        // Whoever waits for an answer keeps its place.
                        open.truncate(1);
                    }
                }
                open
            });
        }
        bob.wait_until("asked", |bob| bob.shown().contains("wants to talk"));
        bob.type_line("id");
        bob.wait_until("answered", |bob| bob.shown().contains("tracker  "));
    });
    let record = bob.record();
    assert_eq!(record.matches("wants to talk").count(), 1, "{record}");
    bob.press("search half");
    bob.wait_end("P2P> search half");
    bob.press("\x15");
    // All have gone by now; whatever question comes next is one at a time, too.
    let asked = |bob: &mut Terminal| bob.record().matches("wants to talk").count();
    let before = asked(&mut bob);
    assert!(before <= 1 + MEMBERS, "{}", bob.record());
    bob.type_line("who");
    bob.wait_until("who is here", |bob| bob.shown().contains("STANDING"));
}

/// Shows: row 77: messages without end are shown at a bounded rate, the prompt takes lines meanwhile, memory is
/// bounded, and disconnect ends it at once.
#[test]
fn row_77_a_hundred_thousand_messages_leave_the_prompt_usable() {
    const COUNT: u32 = 100_000;
    let world = World::new();
    let mut bob = world.sits("bob");
    let eve = Member::join(&world.address, "eve");
    bob.type_line("trust eve");
    bob.wait_until("trusted", |bob| bob.shown().contains("You trust eve"));
    let (mut reader, mut writer) = eve.call(&eve.find("bob")).unwrap();
    eve.block_on(writer.send_talk(&connect("eve"))).unwrap();
    eve.block_on(reader.next_talk()).unwrap();
    let status = &world.objects("bob", &["status"])[0];
    let pid = u32::try_from(status["pid"].as_u64().unwrap()).unwrap();
    reset_peak(pid);
    let before = peak_kib(pid);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eve.block_on(async {
                let flood = async {
                    for number in 1..=COUNT {
                        let text = format!("flood {number}").parse().unwrap();
                        let frame = Frame::Text {
                            number,
                            to_all: false,
                            text,
                        };
                        if writer.send_talk(&frame).await.is_err() {
                            return;
                        }
                    }
                };
                let hear = async { while let Ok(Some(_)) = reader.next_talk().await {} };
                tokio::select! { () = flood => {} () = hear => {} }
            });
        });
        bob.wait_until("flooded", |bob| bob.shown().contains("<eve> flood 20\n"));
        bob.press("sea");
        bob.press("rch nothing-like-it\r");
        bob.wait_until("answered", |bob| {
            bob.shown().contains("nothing matches \"nothing-like-it\"")
        });
        bob.type_line("/disconnect");
        bob.wait_until("ended", |bob| {
            bob.shown().contains("You talk with eve no longer")
        });
    });
    let grown = peak_kib(pid).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
    let record = bob.record();
    let end = record.find("You talk with eve no longer").unwrap();
    assert!(!record[end..].contains("<eve>"), "{record}");
    // Twenty at once, then five a second: far from all of them, whatever this machine is.
    assert!(record.matches("<eve> flood").count() < 1000, "{record}");
    bob.type_line("id");
    bob.wait_until("answered", |bob| bob.shown().contains("tracker  "));
}

#[test]
fn whom_we_trust_is_not_asked_about_and_whom_we_block_is_gone() {
    let world = World::new();
    let (mut ana, mut bob) = (world.runs("ana"), world.sits("bob"));
    ana.say("connect bob");
    bob.wait_until("asked", |bob| bob.shown().contains("wants to talk"));
    answers(&mut bob, "always", "You trust ana");
    ana.wait_for("You talk with bob");
    bob.type_line("/disconnect ana");
    ana.wait_for("bob has ended the talk");
    ana.say("msg bob here again");
    ana.wait_for("delivered to bob");
    let record = bob.record();
    assert_eq!(record.matches("? ana").count(), 1, "{record}");
    let blocked = world.ask("bob", &["block", "ana"]);
    assert_eq!(blocked.status.code(), Some(0), "{blocked:?}");
    let here = world.objects("bob", &["who"]);
    assert_eq!(
        (&here[0]["standing"], &here[0]["talking"]),
        (&"blocked".into(), &false.into())
    );
    ana.wait_for("bob has ended the talk");
    ana.say("msg bob and again");
    ana.wait_for("does not want to talk");
    assert!(!bob.record().contains("and again"));
}

#[test]
fn scripts_talk_through_the_running_peer_and_by_their_own() {
    let world = World::new();
    let (mut ana, mut bob) = (world.runs("ana"), world.runs("bob"));
    for (args, code, why) in [
        (&["msg", "eva", "hi"][..], 5, "eva is not here"),
        (&["msg", "ana", "hi"], 2, "ana is you"),
        (&["msg", "--all", "hi"], 5, "you talk with nobody"),
        (&["msg", "bob"], 2, "what to say to bob is missing"),
        (&["msg", "bob", ""], 2, "a message needs a text"),
        (&["msg", "bob", "hi", "--wait", "1s"], 4, "did not answer"),
        (&["accept"], 5, "nobody asks anything"),
        (&["deny", "bob"], 5, "bob asks nothing"),
        (&["disconnect", "bob"], 5, "you do not talk with bob"),
    ] {
        let output = world.ask("ana", args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let said = text(&output.stderr);
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
    }
    bob.wait_for("? ana");
    bob.wait_for("! ana waits for no answer any more");
    let long = "x".repeat(8193);
    let output = world.ask("ana", &["msg", "bob", &long]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // A line of 1 MiB is one line that is refused, and nothing behind it is a command.
    ana.say(&format!("msg bob {}", "quit ".repeat(200_000)));
    ana.wait_for("a line has at most 64 KiB");
    ana.say("id");
    ana.wait_for("tracker  ");
    let denied = std::thread::scope(|scope| {
        let asking = scope.spawn(|| world.ask("ana", &["msg", "bob", "hi"]));
        bob.wait_for("? ana");
        assert_eq!(world.ask("bob", &["deny", "ana"]).status.code(), Some(0));
        asking.join().unwrap()
    });
    assert_eq!(denied.status.code(), Some(6), "{denied:?}");
    let let_in = std::thread::scope(|scope| {
        let asking = scope.spawn(|| world.objects("bob", &["connect", "ana"]));
        ana.wait_for("? bob");
        assert_eq!(world.ask("ana", &["accept"]).status.code(), Some(0));
        asking.join().unwrap()
    });
    assert_eq!(let_in[0]["user"], "ana");
    let sent = world.objects("ana", &["msg", "bob", "hi", "there"]);
    assert_eq!(sent[0]["state"], "delivered");
    bob.wait_for("<ana> hi there");
    let sent = world.objects("bob", &["msg", "--all", "hi"]);
    assert_eq!(sent[0]["user"], "ana");
    let here = world.objects("bob", &["who"]);
    let (first, second) = (&here[0], &here[1]);
    assert_eq!(
        (&first["talking"], &first["standing"]),
        (&true.into(), &"met".into())
    );
    assert_eq!(
        (&second["standing"], &second["talking"]),
        (&"you".into(), &false.into())
    );
    // Whoever runs no peer joins for one message, and is asked about like anybody.
    let alone = world
        .group
        .once(&world.address, &["msg", "bob", "hi", "--wait", "1s"]);
    assert_eq!(alone.status.code(), Some(4), "{alone:?}");
    bob.wait_for("? once");
}

#[test]
fn talks_are_kept_on_request_for_the_owner_alone() {
    let world = World::new();
    let mut ana = world.runs("ana");
    let settings = world.group.path("settings.toml");
    fs::write(
        &settings,
        "[peer]\nchat_file = \"talks\"\nhistory_private = false\n",
    )
    .unwrap();
    let config = ["--config", settings.to_str().unwrap()];
    let mut bob = world.group.peer("bob", &world.address, &config);
    bob.say("trust ana");
    bob.wait_for("You trust ana");
    ana.say("msg bob one\\ntwo");
    ana.wait_for("delivered to bob");
    bob.say("msg ana three");
    bob.wait_for("delivered to ana");
    let file = world.group.path("talks");
    let kept = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = kept.lines().collect();
    assert!(
        lines[0].ends_with("Z <ana> one\\ntwo") && lines[1].ends_with("Z -> ana: three"),
        "{kept}"
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
