//! `docs/commands.md` and the program say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use clap::CommandFactory as _;
use p2pfs::cli::args::Cli;
use p2pfs::cli::exit::Class;

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
        let inner = line.trim_matches('|').split(" | ");
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
        // The tracker's own, which stands with its option.
        .filter(|name| *name != "P2PFS_METRICS")
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
