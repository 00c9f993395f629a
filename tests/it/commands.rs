//! `docs/commands.md` and the program say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Output, Stdio};
use std::time::Duration;

use clap::CommandFactory as _;
use p2pfs::cli::args::Cli;
use p2pfs::cli::exit::Class;
use serde_json::Value;

use crate::support::schema::Schema;
use crate::support::{Group, text, wait_until};

/// What one row says, or one command understands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    aliases: BTreeSet<String>,
    options: BTreeSet<String>,
    variables: BTreeSet<String>,
}

/// Variables that are read without clap, which would show their values: secrets, and the log's filter.
const READ_OTHERWISE: [&str; 3] = ["P2PFS_PASSPHRASE_FILE", "P2PFS_PASSWORD_FILE", "P2PFS_LOG"];

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
    fs::read_to_string(path).unwrap()
}

/// The cells of the rows below a heading.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim_matches('|').split('|');
        inner.map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<_> = rows.skip(2).map(cells).collect();
    assert!(rows.len() > 3, "{heading}");
    rows
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    let words = cell.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

fn options_in(cell: &str) -> BTreeSet<String> {
    let words = quoted(cell).into_iter();
    words.filter(|word| word.starts_with('-')).collect()
}

fn understood(command: &clap::Command) -> Entry {
    let mut entry = Entry {
        aliases: command.get_visible_aliases().map(str::to_owned).collect(),
        ..Entry::default()
    };
    let shown = command.get_arguments().filter(|argument| {
        !argument.is_positional() && !["help", "version"].contains(&argument.get_id().as_str())
    });
    for argument in shown {
        entry
            .options
            .extend(argument.get_long().map(|long| format!("--{long}")));
        entry
            .options
            .extend(argument.get_short().map(|short| format!("-{short}")));
        let variable = argument
            .get_env()
            .map(|name| name.to_string_lossy().into_owned());
        entry.variables.extend(variable);
    }
    entry
}

/// All commands that are shown, with what they understand by themselves.
fn walk(command: &clap::Command, path: &str, found: &mut BTreeMap<String, Entry>) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{path} {}", sub.get_name()).trim().to_owned();
        let is_group = sub.is_subcommand_required_set();
        walk(sub, &name, found);
        if !is_group && sub.get_name() != "help" {
            found.insert(name, understood(sub));
        }
    }
}

#[test]
fn every_command_alias_and_option_is_documented_and_nothing_else() {
    let page = page();
    let group = |heading: &str| {
        let rows = rows(&page, heading);
        let options = rows.iter().flat_map(|row| options_in(&row[0])).collect();
        let variables = rows.iter().flat_map(|row| quoted(&row[1])).collect();
        (options, variables)
    };
    let (join, join_variables): (BTreeSet<String>, BTreeSet<String>) = group("Join options");
    let (global, global_variables) = group("Global options");
    let mut documented = BTreeMap::new();
    for row in rows(&page, "Table of commands") {
        let mut names = quoted(&row[0]).into_iter();
        let name = names.next().unwrap();
        let mut options = options_in(&row[2]);
        if row[2].contains("*join*") {
            options.extend(join.iter().cloned());
        }
        documented.insert(name, (names.collect::<BTreeSet<_>>(), options));
    }
    let mut found = BTreeMap::new();
    walk(&Cli::command(), "", &mut found);
    assert!(found.len() > 20, "{found:#?}");
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, documented.keys().collect::<Vec<_>>());
    for (name, entry) in &found {
        let (aliases, options) = &documented[name];
        assert_eq!(&entry.aliases, aliases, "other names of {name}");
        assert_eq!(&entry.options, options, "options of {name}");
    }
    let own = understood(&Cli::command());
    assert_eq!(own.options, global);
    let all: BTreeSet<_> = found
        .values()
        .chain([&own])
        .flat_map(|entry| entry.variables.iter().map(String::as_str))
        .chain(READ_OTHERWISE)
        // Those of one command, which stand with their options.
        .filter(|name| !["P2PFS_METRICS", "P2PFS_WEB"].contains(name))
        .collect();
    let told: BTreeSet<_> = join_variables
        .iter()
        .chain(&global_variables)
        .map(String::as_str)
        .collect();
    assert_eq!(all, told);
}

#[test]
fn every_exit_code_is_in_the_table_and_no_other() {
    let rows = rows(&page(), "Exit codes");
    let codes = rows.iter().flat_map(|row| row[0].split(", "));
    let told: BTreeSet<u8> = codes.map(|code| code.parse().unwrap()).collect();
    // Success, and a panic.
    let known = Class::ALL.map(Class::code).into_iter().chain([0, 101]);
    assert_eq!(told, known.collect());
}

#[test]
fn the_help_on_objects_tells_of_every_type_and_field() {
    let group = Group::new();
    let help = group.command("s").args(["help", "json"]).output().unwrap();
    let help = text(&help.stdout);
    let mut told: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let paragraphs = help.split("\n\n").nth(1).unwrap();
    let mut last = "";
    for line in paragraphs.lines() {
        if !line.starts_with(' ') {
            last = line.split(' ').next().unwrap();
        }
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        told.entry(last).or_default().extend(words);
    }
    let kinds = Schema::load().kinds();
    let names: Vec<_> = kinds.iter().map(|(kind, _)| kind.as_str()).collect();
    let mut documented: Vec<_> = told.keys().copied().collect();
    documented.sort_unstable();
    assert_eq!(documented, {
        let mut names = names.clone();
        names.sort_unstable();
        names
    });
    for (kind, fields) in &kinds {
        for field in fields
            .iter()
            .filter(|field| !["v", "type"].contains(&field.as_str()))
        {
            assert!(
                told[kind.as_str()].contains(field.as_str()),
                "{field} of {kind}"
            );
        }
    }
}

/// Keeps the types that were met.
struct Met {
    schema: Schema,
    kinds: BTreeSet<String>,
}

impl Met {
    fn lines(&mut self, lines: &str) {
        for line in lines.lines() {
            let object: Value = serde_json::from_str(line).expect(line);
            self.kinds.insert(self.schema.check(&object));
        }
    }

    fn output(&mut self, output: &Output, code: i32) {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(!output.stdout.is_empty(), "{output:?}");
        self.lines(&text(&output.stdout));
    }
}

/// Shows: every object that a command prints with `--json` fits the published schema, and every type of the
/// schema is printed. How: all commands, by a tracker, at a prompt, through a socket and alone.
#[test]
fn every_object_that_is_printed_fits_the_schema() {
    let mut met = Met {
        schema: Schema::load(),
        kinds: BTreeSet::new(),
    };
    let group = Group::new();
    let here = ["--bind", "127.0.0.1", "--port", "0", "--json"];
    let mut tracker = group.start(
        "tracker",
        &[&["tracker", "--metrics", "0"], &here[..]].concat(),
    );
    let line = tracker.wait_for("\"type\":\"tracker\"");
    met.lines(&line);
    let port = serde_json::from_str::<Value>(&line).unwrap()["port"].to_string();
    let address = format!("127.0.0.1:{port}");
    let join = ["--tracker", &address];
    group.file("film.mkv", 6 << 20, 1);
    group.file("folder/one", 10, 2);
    group.file("folder/two", 20, 3);
    let mut bob = group.peer("bob", &address, &[]);
    for name in ["film.mkv", "folder"] {
        bob.say(&format!("add {name}"));
        bob.wait_for("Sharing");
    }
    let ana = group.path("ana.out");
    let mut command = group.command("ana.state");
    let own = [
        "--name",
        "ana",
        "--down-limit",
        "1MiB",
        "--no-seed",
        "--web=127.0.0.1:0",
    ];
    command.args([&["peer"], &join[..], &here[..], &own[..]].concat());
    command
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&ana).unwrap());
    let mut process = command.spawn().unwrap();
    let mut typing = process.stdin.take().unwrap();
    let typed = b"id\ntrust bob\ntrust\nverify bob\nlap\nsearch o\npeers\nadd passphrase\nlist\ninfo passphrase\ninfo folder\nall_files\nblub\n";
    std::io::Write::write_all(&mut typing, typed).unwrap();
    let said = || fs::read_to_string(&ana).unwrap();
    wait_until("the last one is answered", || {
        said().contains("\"type\":\"error\"")
    });
    let ask = |args: &[&str]| {
        let mut command = group.command("ana.state");
        command.args(args).arg("--json").stdin(Stdio::null());
        command.output().unwrap()
    };
    group.folder("to");
    let mut getting = group.command("ana.state");
    let getting = getting.args(["get", "film.mkv", "folder", "--json", "-o", "to"]);
    let getting = getting
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it is under way", || !ask(&["transfers"]).stdout.is_empty());
    met.output(&ask(&["transfers"]), 0);
    met.output(&ask(&["pause"]), 0);
    met.output(&ask(&["transfers"]), 0);
    met.output(&ask(&["status"]), 0);
    met.output(&ask(&["web"]), 0);
    met.output(&ask(&["resume"]), 0);
    met.output(&ask(&["limit", "down", "4MiB"]), 0);
    met.output(&getting.wait_with_output().unwrap(), 0);
    met.output(&ask(&["unshare", "passphrase"]), 0);
    let mut sending = group.command("ana.state");
    let sending = sending.args(["send", "bob", "film.mkv", "--wait", "3s", "--json"]);
    let sending = sending
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it is offered", || {
        text(&ask(&["transfers"]).stdout).contains("\"state\":\"offered\"")
    });
    met.output(&ask(&["transfers"]), 0);
    met.output(&sending.wait_with_output().unwrap(), 4);
    met.output(&ask(&["untrust", "bob"]), 0);
    bob.say("connect ana");
    wait_until("asked", || said().contains("\"type\":\"question\""));
    met.output(&ask(&["accept"]), 0);
    wait_until("talking", || said().contains("\"type\":\"talk\""));
    bob.say("msg ana hi");
    wait_until("told", || said().contains("\"type\":\"chat\""));
    met.output(&ask(&["msg", "bob", "hi"]), 0);
    met.output(&ask(&["who"]), 0);
    met.output(&ask(&["disconnect", "bob"]), 0);
    met.output(&ask(&["search", "no such thing"]), 5);
    met.output(&ask(&["get", "one thing", "another"]), 9);
    met.output(&ask(&["blub"]), 2);
    drop(typing);
    assert!(process.wait().unwrap().success());
    met.lines(&said());
    met.output(
        &group.once(&address, &["search", "o", "--json", "--standalone"]),
        0,
    );
    met.output(&group.once(&address, &["get", "folder", "--json"]), 0);
    let alone = |args: &[&str], code| {
        let mut command = group.command("tracker");
        (command.args(args).arg("--json").output().unwrap(), code)
    };
    let password = group.write_private("password", "a password that is long enough");
    let password = [
        "--credentials",
        "users",
        "--password-file",
        password.to_str().unwrap(),
    ];
    for (output, code) in [
        alone(&["status"], 0),
        alone(&["id"], 0),
        alone(&["unblock", "ana"], 5),
        alone(&["passphrase", "check"], 0),
        alone(&["config", "init"], 0),
        alone(&["config", "set", "peer.name", "ana"], 0),
        alone(&["config", "get", "peer.name"], 0),
        alone(&["config", "show", "--origin"], 0),
        alone(&["config", "path"], 0),
        alone(&["config", "init"], 8),
        alone(&["doctor", "--tracker", &address, "--bind", "127.0.0.1"], 0),
        alone(&[&["user", "add", "ana"], &password[..]].concat(), 0),
        alone(&["user", "list", "--credentials", "users"], 0),
        alone(&[&["user", "verify", "ana"], &password[..]].concat(), 0),
        alone(&[&["user", "passwd", "ana"], &password[..]].concat(), 0),
        alone(&["user", "remove", "ana", "--credentials", "users"], 0),
        alone(&["user", "remove", "ana", "--credentials", "users"], 5),
    ] {
        met.output(&output, code);
    }
    let all = met.schema.kinds().into_iter().map(|(kind, _)| kind);
    assert_eq!(met.kinds, all.collect());
    tracker.signal(rustix::process::Signal::TERM);
    assert_eq!(tracker.exit_within(Duration::from_secs(5)), Some(0));
}
