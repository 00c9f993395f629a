//! How help is laid out: examples first; `-h` leaves out what few people need, `--help` has everything.

use clap::CommandFactory as _;

use super::args::Cli;

const TEMPLATE: &str =
    "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Options that `-h` leaves out, by their ids.
const RARE: [&str; 21] = [
    "accept",
    "config",
    "state_dir",
    "network",
    "no_input",
    "bind",
    "workers",
    "heartbeat",
    "timeout",
    "max_peers",
    "metrics",
    "no_beacon",
    "allow_weak_passphrase",
    "seed",
    "no_seed",
    "up_limit",
    "down_limit",
    "login",
    "standalone",
    "log_file",
    "log_format",
];

/// The commands, as they are typed behind `p2pfs`, and examples of each.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "",
        "p2pfs                                asks for everything that it needs
p2pfs demo                           a tracker and two peers here, to see it work
p2pfs tracker                        runs the tracker and prints the line that others type
p2pfs peer --tracker 192.168.1.100   joins, with a prompt: add, search, download, help
p2pfs get talk.mp4 --tracker HOST    downloads and ends",
    ),
    (
        "tracker",
        "p2pfs tracker                        asks for the passphrase, prints the line for others
p2pfs tracker --port 9100 --qr       another port, and the line as a QR code
p2pfs tracker --credentials users    users with passwords, kept by p2pfs user",
    ),
    (
        "peer",
        "p2pfs peer --tracker HOST                      a prompt: add, search, download, help
p2pfs peer -t HOST --share talks --no-prompt   shares until a signal
p2pfs peer -t HOST -c 'search talk' -c quit    runs commands and ends",
    ),
    (
        "share",
        "p2pfs share report.pdf talks -t HOST     until Ctrl-C
p2pfs share talk.mp4 --as 'My talk.mp4'  under another name; P2PFS_TRACKER says where
p2pfs share report.pdf --lock            asks for a password, which opens it elsewhere",
    ),
    (
        "send",
        "p2pfs send ana report.pdf talks    ana is asked; waits until all of it is there
p2pfs send ana a.pdf --wait 60s    ends when ana does not answer in time",
    ),
    (
        "get",
        "p2pfs get talk.mp4 -t HOST               to ./downloaded_talk.mp4; goes on where it was
p2pfs get talk.mp4 -o Videos --from ana  to another directory, from one person
p2pfs get 'talk.mp4#fa07'                one of several contents of a name",
    ),
    (
        "search",
        "p2pfs search talk -t HOST     names that contain it, in any case
p2pfs search talk --json      one object a line, for scripts",
    ),
    (
        "list",
        "p2pfs list -t HOST     what you share
p2pfs list ana         what ana shares
p2pfs list --all       what everybody shares",
    ),
    (
        "doctor",
        "p2pfs doctor -t HOST                             what is wrong here, and what to do
p2pfs doctor -t HOST --passphrase-file secret    does the tracker take this passphrase?",
    ),
    (
        "info",
        "p2pfs info talk.mp4 -t HOST   size, hashes, and who has it",
    ),
    (
        "passphrase",
        "p2pfs passphrase              makes one of six words
p2pfs passphrase --words 8    of eight
p2pfs passphrase check        rates the one that you type",
    ),
    (
        "passphrase check",
        "p2pfs passphrase check                                 asks for it
p2pfs passphrase check --passphrase-file - <secret.txt reads it",
    ),
    (
        "user",
        "p2pfs user add ana --credentials users   asks for ana's password
p2pfs tracker --credentials users        takes these users only",
    ),
    (
        "completions",
        "p2pfs completions bash >~/.local/share/bash-completion/completions/p2pfs
p2pfs completions zsh  >_p2pfs       in a directory of $fpath",
    ),
    (
        "man",
        "p2pfs man /usr/local/share/man/man1  one page for each command",
    ),
];

/// The whole grammar, laid out.
#[must_use]
pub fn grammar() -> clap::Command {
    arranged(Cli::command(), "")
}

/// The same without anything that `-h` leaves out: a manual has everything.
pub(super) fn unabridged(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| arg.hide_short_help(false))
        .mut_subcommands(unabridged)
}

/// Examples of a command, which is called `path` behind `p2pfs`.
pub(super) fn examples(path: &str) -> Option<&'static str> {
    let mut all = EXAMPLES.iter();
    all.find(|(command, _)| *command == path)
        .map(|(_, text)| *text)
}

fn arranged(command: clap::Command, path: &str) -> clap::Command {
    let examples =
        examples(path).map(|text| format!("Examples:\n  {}", text.replace('\n', "\n  ")));
    let command = command
        .help_template(TEMPLATE)
        .mut_args(|arg| {
            let is_rare = RARE.contains(&arg.get_id().as_str());
            arg.hide_short_help(is_rare)
        })
        .mut_subcommands(|sub| {
            let path = format!("{path} {}", sub.get_name());
            arranged(sub, path.trim_start())
        });
    match examples {
        Some(examples) => command.before_help(examples),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// Visits every command with its path.
    fn walk(
        command: &mut clap::Command,
        path: &str,
        visit: &mut impl FnMut(&str, &mut clap::Command),
    ) {
        visit(path, command);
        for sub in command.get_subcommands_mut() {
            let path = format!("{path} {}", sub.get_name());
            walk(sub, path.trim_start(), visit);
        }
    }

    #[test]
    fn each_example_is_understood_and_belongs_to_a_command() {
        let mut paths = Vec::new();
        walk(&mut grammar(), "", &mut |path, _| {
            paths.push(path.to_owned());
        });
        let mut seen = 0;
        for (path, text) in EXAMPLES {
            assert!(paths.contains(&(*path).to_owned()), "{path}");
            for line in text.lines() {
                // What follows after blanks is what it does; a shell takes what follows after < and >.
                let typed = line.split("  ").next().unwrap_or_default();
                let typed = typed.split(['<', '>']).next().unwrap_or_default();
                let words = shell_words::split(typed).unwrap();
                assert!(Cli::try_parse_from(words).is_ok(), "{line}");
                assert!(line.chars().count() <= 90, "{line}");
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn the_short_help_begins_with_examples_and_is_shorter_than_the_long_one() {
        let mut seen = 0;
        let mut tree = grammar();
        tree.build();
        walk(&mut tree, "", &mut |path, command| {
            let short = command.render_help().to_string();
            let long = command.render_long_help().to_string();
            for argument in command.get_arguments().filter(|it| !it.is_hide_set()) {
                if let Some(flag) = argument.get_long() {
                    assert!(long.contains(&format!("--{flag}")), "{path}: --{flag}");
                }
            }
            if examples(path).is_some() {
                seen += 1;
                let (example, usage) = (short.find("Examples:"), short.find("Usage:"));
                assert!(example.is_some() && example < usage, "{short}");
                assert!(short.lines().count() < long.lines().count(), "{short}");
                // Of p2pfs itself every command is a line.
                let most = if path.is_empty() { 70 } else { 50 };
                assert!(short.lines().count() <= most, "{short}");
                assert!(!short.contains("--heartbeat"), "{short}");
            }
        });
        assert!(seen > 10, "{seen}");
        for rare in RARE {
            let mut is_there = false;
            walk(&mut tree, "", &mut |_, command| {
                is_there |= command.get_arguments().any(|it| it.get_id() == rare);
            });
            assert!(is_there, "{rare}");
        }
    }
}
