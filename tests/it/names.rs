//! Names that others chose, wherever they are shown: nothing in them acts on a terminal.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use p2pfs::wire::id::ContentId;

use crate::support::member::Member;
use crate::support::terminal::Terminal;
use crate::support::{Group, joining, text, wait_until};

/// As many accents stand on a letter at the most.
const MARKS: usize = 8;

/// What no output may hold; `editor` is where escapes draw the line that is typed.
fn harmful(text: &str, is_editor: bool) -> Option<char> {
    let mut marks = 0;
    text.chars().find(|&c| {
        marks = if c == '\u{301}' { marks + 1 } else { 0 };
        let acts = match c {
            '\n' => false,
            '\r' | '\u{7}' | '\u{8}' | '\u{1b}' => !is_editor,
            c => c.is_control(),
        };
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let hides = matches!(c, '\u{200b}' | '\u{feff}' | '\u{e0041}');
        acts || turns || hides || marks > MARKS
    })
}

/// Shows: names that turn the direction, hide, pile up accents or are as long as they may be reach neither terminal nor
/// completion nor log nor objects but escaped; and so do escapes, line ends and bells in the names of one's own files.
/// How: somebody publishes such names; a tracker with a log of everything, a peer that shares, one at a terminal.
#[test]
fn no_name_acts_on_anything_wherever_it_is_shown() {
    let group = Group::new();
    let log = |role: &str, form: &str| {
        let log = format!("{role}.{form}");
        ["-vvv", "--log-file", &log, "--log-format", form].map(str::to_owned)
    };
    let here = ["tracker", "--bind", "127.0.0.1", "--port", "0"].map(str::to_owned);
    let args = [&here[..], &log("tracker", "json")].concat();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut tracker = group.start("tracker", &args);
    let line = tracker.wait_for("Tracker listening on ");
    let address = line.split([' ', ',']).nth(3).unwrap().to_owned();
    let eve = Member::join(&address, "eve");
    let names = [
        "turned\u{202e}gpj.exe".to_owned(),
        format!("piled{}.txt", "\u{301}".repeat(60)),
        "hidden\u{200b}\u{feff}\u{e0041}\u{2066}.txt".to_owned(),
        "l".repeat(255),
    ];
    for (number, name) in (1..).zip(&names) {
        eve.publish(name, ContentId([number; 32]), 5);
    }
    let own = group.file("own\u{1b}]0;title\u{7}\r\u{9b}2J.txt", 10, 1);
    let ana = log("ana", "text");
    let ana: Vec<_> = ana.iter().map(String::as_str).collect();
    let ana = group.sharer("ana", &address, &[&own], &ana);

    for args in [
        &["files"][..],
        &["files", "--long"],
        &["search", "e"],
        &["list", "eve"],
        &["list", "--all"],
        &["list"],
        &["info", &names[0]],
        &["info", &names[1]],
        &["get", "gone\u{202e}\u{9b}"],
        &["search", &names[1], "--from-nowhere"],
        &["list", &names[0]],
        &["status"],
    ] {
        for more in [&[][..], &["--json"]] {
            let mut command = group.command("ana.state");
            command.args(args).args(more).stdin(Stdio::null());
            let output = command.output().unwrap();
            let all = text(&[&output.stdout[..], &output.stderr].concat());
            assert!(!all.is_empty(), "{args:?}");
            assert_eq!(harmful(&all, false), None, "{args:?} {more:?}: {all:?}");
        }
    }
    assert_eq!(harmful(&ana.output(), false), None, "{}", ana.output());
    assert!(ana.output().contains("Sharing own_]0;title___2J.txt"));

    let out = group.folder("bob");
    let args = [&["peer"][..], &joining(&address, "bob", &out)].concat();
    let passphrase = group.path("passphrase").display().to_string();
    let passphrase = [("P2PFS_PASSPHRASE_FILE", passphrase.as_str())];
    let mut bob = Terminal::start_in(&group, "bob.state", &args, &passphrase);
    bob.wait_end("P2P>");
    bob.type_line("all_files");
    bob.wait_until("listed", |bob| bob.shown().contains("turned"));
    bob.press("get \t\t");
    bob.wait_until("completed", |bob| {
        bob.shown().matches("turned").count() >= 2
    });
    bob.press("\x15get tu\t");
    bob.wait_until("as its id", |bob| bob.shown().contains("P2P> get b3:"));
    bob.press("\x15get pi\t\r");
    bob.read_for(Duration::from_millis(300));
    bob.type_line("\x15quit");
    bob.process.wait().unwrap();
    assert_eq!(harmful(&bob.screen, true), None, "{:?}", bob.screen);
    let logged = |name: &str| fs::read_to_string(group.path(name)).unwrap_or_default();
    wait_until("it is logged", || logged("tracker.json").contains("bob"));
    for name in ["tracker.json", "ana.text"] {
        let log = logged(name);
        assert_eq!(harmful(&log, false), None, "{name}");
    }
}
