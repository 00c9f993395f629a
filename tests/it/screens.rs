//! `docs/terminal.md` shows what a terminal shows: each of its screens is made here, and compared.
//!
//! What differs from one time to the next stands for itself on both sides: addresses, keys, numbers of
//! processes, rates and times. `P2PFS_SHOW_SCREENS=1` prints them all, to be put into the page.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use crate::support::terminal::Terminal;
use crate::support::{Group, PASSPHRASE, Process, text};
use crate::transfer::rot;

const MIB: u64 = 1 << 20;
/// Columns of the page's terminal: the line for others fits.
const COLUMNS: u16 = 100;

/// The blocks of the page, by the names before them.
fn page() -> BTreeMap<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/terminal.md");
    let page = fs::read_to_string(path).unwrap();
    let named = page.split("<!-- screen: ").skip(1);
    named
        .map(|part| {
            let (name, rest) = part.split_once(" -->\n\n```console\n").unwrap();
            let (block, _) = rest.split_once("```\n").unwrap();
            (name.to_owned(), block.trim_end().to_owned())
        })
        .collect()
}

/// The same words, whatever the machine and the moment are.
fn normal(shown: &str) -> String {
    let rows = shown.lines().map(|row| {
        let words: Vec<&str> = row.split(' ').collect();
        let is_list = row.starts_with("  ") && row.trim().split(' ').count() == 6;
        let is_made = is_list
            && row
                .trim()
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c == b' ');
        if is_made {
            return "  (six words)".to_owned();
        }
        let all = words.iter().enumerate();
        let kept = all.map(|(at, word)| {
            let next = words.get(at + 1).copied().unwrap_or_default();
            let before = at.checked_sub(1).map_or("", |at| words[at]);
            one_word(before, word, next)
        });
        kept.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn one_word(before: &str, word: &str, next: &str) -> String {
    let bare = word.trim_end_matches(['.', ',', ':', ';', ')']);
    let end = &word[bare.len()..];
    let host = bare.split(':').next().unwrap_or_default();
    let groups = bare.split('-');
    let is_key = groups.clone().count() >= 4
        && groups
            .clone()
            .all(|group| group.len() == 4 && group.bytes().all(|c| c.is_ascii_alphanumeric()));
    let is_number = !bare.is_empty()
        && bare
            .bytes()
            .all(|c| c.is_ascii_digit() || c == b'.' || c == b':');
    let has_unit =
        ["%", "s", "s,"].contains(&next) || next.starts_with("KiB/s") || next.starts_with("MiB/s");
    let what = if host.parse::<std::net::Ipv4Addr>().is_ok() {
        "ADDRESS"
    } else if is_key {
        "KEY"
    } else if is_number && bare.contains(':') {
        "TIME"
    } else if is_number && (has_unit || ["on", "(pid"].contains(&before)) {
        "NUMBER"
    } else if word.ends_with("iB/s") || word.ends_with("iB/s,") {
        // From below a MiB to above it and back.
        "RATE"
    } else {
        bare
    };
    format!("{what}{end}")
}

/// The screen, and what the page says of it.
struct Screens {
    page: BTreeMap<String, String>,
    wrong: Vec<String>,
}

impl Screens {
    #[expect(clippy::print_stdout, reason = "whoever asked wants to see them")]
    fn compare(&mut self, name: &str, shown: &str) {
        if std::env::var_os("P2PFS_SHOW_SCREENS").is_some() {
            let block = format!("<!-- screen: {name} -->\n\n```console\n{shown}\n```\n");
            println!("{block}");
        }
        let told = self.page.remove(name).unwrap_or_default();
        if normal(&told) != normal(shown) {
            let (told, shown) = (normal(&told), normal(shown));
            self.wrong.push(format!(
                "{name}: the page says\n{told}\nand the terminal\n{shown}\n"
            ));
        }
    }
}

/// p2pfs alone at a terminal, with the line that was typed above.
fn alone(group: &Group, state: &str) -> Terminal {
    let here = [("P2PFS_PORT", "0"), ("P2PFS_BIND", "127.0.0.1")];
    at_terminal(group, state, &[], &here)
}

fn at_terminal(group: &Group, state: &str, args: &[&str], more: &[(&str, &str)]) -> Terminal {
    let plain = group.command(state);
    let program = plain.get_program().to_str().unwrap().to_owned();
    let typed = args.join(" ");
    // As a shell would leave the screen when it starts a program.
    let script = format!(
        "stty -echo; read go; stty echo; echo \"$ p2pfs {typed}\" | sed 's/ *$//'; exec {program} {typed}"
    );
    let mut command = group.command_under(state, &["sh", "-c", &script]);
    command
        .env_remove("P2PFS_PASSPHRASE_FILE")
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .env("XTERM_VERSION", "XTerm(390)")
        .envs(more.iter().copied());
    let mut terminal = Terminal::run(command);
    terminal.set_width(COLUMNS);
    terminal.type_line("");
    terminal
}

/// What it shows, a line in one row however long it is.
fn lines_of(terminal: &Terminal) -> String {
    let (rows, wrapped) = (terminal.rows(), terminal.wrapped_rows());
    let mut shown = String::new();
    for (at, row) in rows.iter().enumerate() {
        if wrapped.contains(&at) {
            shown.push_str(&format!("{row:<width$}", width = usize::from(COLUMNS)));
        } else {
            shown.push_str(row);
            shown.push('\n');
        }
    }
    shown.trim().to_owned()
}

fn seeder(group: &Group, address: &str, name: &str, file: &str) -> Process {
    let slow = ["--up-limit", "1MiB", "--share", file];
    let mut seeder = group.peer(name, address, &slow);
    seeder.wait_for("Sharing");
    seeder
}

#[test]
fn the_page_shows_what_the_terminal_shows() {
    let mut screens = Screens {
        page: page(),
        wrong: Vec::new(),
    };
    let (group, tracker, address) = first_runs(&mut screens);
    talk(&mut screens, &group, &address);
    three_sources(&mut screens, &group, &address);
    drop(tracker);
    errors(&mut screens);
    assert!(screens.wrong.is_empty(), "{}", screens.wrong.join("\n"));
    assert!(screens.page.is_empty(), "nobody makes {:?}", screens.page);
}

/// A group whose tracker and first peer answered the questions of p2pfs alone.
fn first_runs(screens: &mut Screens) -> (Group, Process, String) {
    let group = Group::new();
    let mut tracker = alone(&group, "first");
    tracker.wait_for("Passphrase");
    tracker.type_line("");
    tracker.wait_for("(p)eer?");
    tracker.type_line("t");
    tracker.wait_for("(y/n)");
    tracker.type_line("y");
    tracker.wait_for("Its key: ");
    tracker.wait_until("listening", |tracker| {
        let last = tracker.shown();
        last.lines().last().is_some_and(|row| row.len() == 48)
    });
    screens.compare("tracker", &lines_of(&tracker));
    drop(tracker);

    let (tracker, address) = group.tracker();
    group.file("talk.mp4", 173 * MIB, 3);
    let mut ana = group.peer("ana", &address, &["--share", "talk.mp4"]);
    ana.wait_for("Sharing");
    let mut peer = alone(&group, "second");
    peer.wait_for("Passphrase");
    peer.type_line(PASSPHRASE);
    peer.wait_for("(p)eer?");
    peer.type_line("p");
    peer.wait_for("Tracker host");
    peer.type_line(&address);
    peer.wait_for("Your name");
    peer.type_line("bob");
    peer.wait_end("P2P>");
    peer.type_line("search TALK");
    peer.wait_until("found", |peer| {
        peer.shown().contains("ana") && peer.shown().ends_with("P2P>")
    });
    screens.compare("peer", &lines_of(&peer));
    peer.type_line("quit");
    peer.process.wait().unwrap();
    (group, tracker, address)
}

fn three_sources(screens: &mut Screens, group: &Group, address: &str) {
    group.file("film.mkv", 12 * MIB, 4);
    let _seeders = ["eva", "yoda", "hans"].map(|name| seeder(group, address, name, "film.mkv"));
    let passphrase = group.path("passphrase");
    let args = ["peer", "--tracker", address, "--name", "bob"];
    let more = [
        ("P2PFS_PASSPHRASE_FILE", passphrase.to_str().unwrap()),
        ("P2PFS_PORT", "0"),
        ("P2PFS_BIND", "127.0.0.1"),
    ];
    let mut bob = at_terminal(group, "second", &args, &more);
    bob.wait_end("P2P>");
    bob.type_line("get film.mkv");
    bob.wait_until("from three", |bob| {
        let shown = bob.shown();
        shown.contains("MiB/s") && shown.contains("3 peers") && shown.ends_with("P2P>")
    });
    screens.compare("three sources", &lines_of(&bob));
    bob.wait_until("done", |bob| {
        let shown = bob.shown();
        shown.contains("successful") && !shown.contains('↓') && shown.ends_with("P2P>")
    });
    screens.compare("three sources, done", &lines_of(&bob));
    bob.type_line("quit");
}

/// Two people, one of whom is asked while a line is half typed.
fn talk(screens: &mut Screens, group: &Group, address: &str) {
    let passphrase = group.path("passphrase");
    let more = [
        ("P2PFS_PASSPHRASE_FILE", passphrase.to_str().unwrap()),
        ("P2PFS_PORT", "0"),
        ("P2PFS_BIND", "127.0.0.1"),
    ];
    let [mut luke, mut vader] = ["luke", "vader"].map(|name| {
        let args = ["peer", "--tracker", address, "--name", name];
        let mut terminal = at_terminal(group, name, &args, &more);
        terminal.wait_end("P2P>");
        terminal
    });
    vader.press("search ta");
    vader.wait_end("P2P> search ta");
    luke.type_line("/connect vader");
    vader.wait_until("asked", |vader| {
        vader.shown().contains("[n]") && vader.shown().ends_with("search ta")
    });
    screens.compare("a question", &lines_of(&vader));
    // The question is answered by its letter once it has stood there for a moment.
    vader.read_for(std::time::Duration::from_secs(1));
    vader.press("\x15y\r");
    luke.wait_until("let in", |luke| {
        luke.shown().contains("You talk with vader")
    });
    luke.type_line("/msg vader is that the \"final\" one?");
    luke.wait_until("delivered", |luke| luke.shown().contains("delivered"));
    vader.wait_until("told", |vader| vader.shown().contains("<luke>"));
    vader.type_line("/msg luke it's *nearly* final");
    vader.wait_until("delivered", |vader| {
        vader.shown().contains("delivered") && vader.shown().ends_with("P2P>")
    });
    screens.compare("an answer", &lines_of(&vader));
    luke.wait_until("told", |luke| luke.shown().contains("<vader>"));
    luke.type_line("who");
    luke.wait_until("who is here", |luke| {
        luke.shown().contains("1 new") && luke.shown().ends_with("P2P>")
    });
    screens.compare("a talk", &lines_of(&luke));
    for mut terminal in [luke, vader] {
        terminal.type_line("/exit");
        terminal.process.wait().unwrap();
    }
}

/// One of each class that a command ends with.
fn errors(screens: &mut Screens) {
    let group = Group::new();
    let (_tracker, address) = group.tracker();
    let liar = group.file("liar.d/film.mkv", 2 * MIB, 5);
    let mut seeder = group.peer("ana", &address, &["--share", liar.to_str().unwrap()]);
    seeder.wait_for("Sharing");
    for piece in 0..2 {
        rot(&liar, piece * MIB + 7);
    }
    let bin = group.folder("bin");
    let plain = group.command("s");
    std::os::unix::fs::symlink(plain.get_program(), bin.join("p2pfs")).unwrap();
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    group.file("report.pdf", 10, 1);
    group.write_private("other", "abandon zebra stable horse battle zoo");
    let known: Vec<(String, String)> = screens
        .page
        .iter()
        .filter(|(name, _)| name.starts_with("exit "))
        .map(|(name, block)| (name.clone(), block.clone()))
        .collect();
    assert_eq!(known.len(), 7);
    for (name, block) in known {
        let line = block.lines().next().unwrap();
        let typed = line.strip_prefix("$ ").unwrap();
        let mut shell = std::process::Command::new("sh");
        let real = typed
            .replace("192.0.2.2", &address)
            .replace("192.0.2.9", "127.0.0.1:1");
        shell
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .env("PATH", &path)
            .env("P2PFS_PORT", "0")
            .env("P2PFS_BIND", "127.0.0.1")
            .env("P2PFS_STATE_DIR", "state")
            .env("P2PFS_PASSPHRASE_FILE", "passphrase")
            .current_dir(group.dir.path())
            .args(["-c", &format!("{real} 2>&1; printf '$ echo $?\\n%s\\n' $?")])
            .stdin(Stdio::null());
        let here = group.dir.path().to_str().unwrap();
        let shown = text(&shell.output().unwrap().stdout).replace(here, "/data");
        screens.compare(&name, &format!("{line}\n{}", shown.trim_end()));
        let code = name.trim_start_matches("exit ");
        assert!(shown.ends_with(&format!("\n{code}\n")), "{name}: {shown}");
    }
}
