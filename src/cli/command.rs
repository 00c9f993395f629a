//! One typed line to one command; aliases; help texts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory as _, Parser};
use serde::{Deserialize, Serialize};

use super::options::{AddArgs, DownloadOptions, ListOptions, SearchOptions, parse_time};
use super::topics;

/// What can be typed at the prompt, under all names that users of older programs know; also what goes through
/// the socket of a running peer.
#[derive(Clone, Debug, PartialEq, Eq, Parser, Serialize, Deserialize)]
#[serde(tag = "command", content = "arguments", rename_all = "snake_case")]
#[command(
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
#[command(help_template = "{subcommands}", infer_subcommands = false)]
pub enum Command {
    /// Share files and folders
    #[command(visible_aliases = ["pub", "share"])]
    Add(AddArgs),
    /// Stop sharing a file or folder
    #[command(visible_aliases = ["unp", "rm", "unshare"])]
    Remove {
        /// Names, ids or paths
        #[arg(required = true, value_name = "NAME")]
        items: Vec<String>,
    },
    /// What you share; list USER: what somebody shares
    #[command(visible_aliases = ["ls", "lpf"])]
    List {
        /// Whose files
        user: Option<String>,
        /// Everybody's files
        #[arg(short, long)]
        all: bool,
        /// How
        #[command(flatten)]
        options: ListOptions,
    },
    /// What the peer under our usual name shares: `p2pfs list`, where none runs with this state directory
    #[command(skip)]
    ListUnder {
        /// That name
        user: String,
        /// How
        #[command(flatten)]
        options: ListOptions,
    },
    /// What everybody shares
    #[command(visible_alias = "files", name = "all_files")]
    AllFiles(ListOptions),
    /// Find files whose name contains a text
    #[command(visible_alias = "sch")]
    Search(SearchOptions),
    /// Download files and folders: NAME, NAME#1a2b, or an id
    #[command(visible_alias = "get")]
    Download {
        /// What, and from whom
        #[command(flatten)]
        options: DownloadOptions,
        /// Where to
        #[arg(short, long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// In scripts: go on with the next command; the end of the input waits for it, quit does not
        #[arg(short, long)]
        background: bool,
    },
    /// Open a locked file that lies here
    Unlock {
        /// The file
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// File with its password in its first line
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Send files and folders to one person, who is asked; cancel s1 takes one back
    Send {
        /// To whom
        #[arg(value_name = "USER")]
        user: String,
        /// Files and folders
        #[arg(required = true, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
        /// How long to wait for an answer, ten minutes at most
        #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "10m")]
        wait: Duration,
    },
    /// What is being downloaded and sent, with the numbers for pause, resume and cancel
    #[command(visible_aliases = ["downloads", "tr"])]
    Transfers,
    /// Pause downloads: those of these numbers, or all
    Pause {
        /// Numbers, as transfers shows them
        #[arg(value_name = "NO")]
        ids: Vec<String>,
    },
    /// Go on with paused downloads: those of these numbers, or all
    #[command(visible_alias = "continue")]
    Resume {
        /// Numbers, as transfers shows them
        #[arg(value_name = "NO")]
        ids: Vec<String>,
    },
    /// End downloads and remove what came of them
    Cancel {
        /// Numbers, as transfers shows them
        #[arg(required = true, value_name = "NO")]
        ids: Vec<String>,
    },
    /// How fast transfers may be: limit up 5MiB, limit 5MiB (both ways), limit off; limit alone tells
    Limit {
        /// up or down, and bytes a second: 500K, 5MB, 5MiB; off for no limit
        #[arg(num_args = 0..=2, value_name = "[up|down] RATE")]
        words: Vec<String>,
    },
    /// Who has the file searched last; --all: everybody who is here
    Peers {
        /// Everybody
        #[arg(short, long)]
        all: bool,
    },
    /// Everybody who is here
    Lap,
    /// Size, hashes and holders of a file or folder
    Info {
        /// Name or id
        #[arg(value_name = "NAME|ID")]
        item: String,
    },
    /// Your name and key print, and the tracker's
    #[command(visible_alias = "status")]
    Id,
    /// Ask somebody to talk with you
    Connect {
        /// Whom
        user: String,
        /// How long to wait for the answer [default: 1m]
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        wait: Option<Duration>,
    },
    /// End the talk with somebody, or all talks
    Disconnect {
        /// With whom
        user: Option<String>,
    },
    /// Say something to somebody: the rest of the line, as it stands
    Msg {
        /// To whom
        user: String,
        /// What
        #[arg(required = true, value_name = "TEXT")]
        text: Vec<String>,
        /// How long to wait for somebody who has to agree first
        #[arg(skip)]
        wait: Option<Duration>,
    },
    /// Say something to everybody with whom you talk: the rest of the line, as it stands
    #[command(name = "all")]
    #[serde(rename = "all")]
    Everybody {
        /// What
        #[arg(required = true, value_name = "TEXT")]
        text: Vec<String>,
    },
    /// Say yes to who asks you: the first, or USER
    Accept {
        /// Whom
        user: Option<String>,
    },
    /// Say no to who asks you: the first, or USER
    Deny {
        /// Whom
        user: Option<String>,
    },
    /// Yes to the question above
    #[command(visible_alias = "y")]
    Yes,
    /// No to the question above; so does Enter on an empty line
    #[command(visible_alias = "n")]
    No,
    /// Yes to the question above, and trust whoever asks
    Always,
    /// Who is here, how they stand, and with whom you talk
    Who,
    /// Trust the key that somebody has, also a new one; alone: whom you know
    Trust {
        /// Whom
        user: Option<String>,
        /// The key print that is meant
        #[arg(value_name = "PRINT")]
        print: Option<String>,
    },
    /// Trust somebody's key no longer
    Untrust {
        /// Name or key print
        #[arg(value_name = "USER|PRINT")]
        who: String,
    },
    /// Let a key reach you under no name any more
    Block {
        /// Name or key print
        #[arg(value_name = "USER|PRINT")]
        who: String,
    },
    /// Lift a block
    Unblock {
        /// Name or key print
        #[arg(value_name = "USER|PRINT")]
        who: String,
    },
    /// Key prints, and words to compare by voice: is it really this person?
    Verify {
        /// Whom
        user: String,
    },
    /// Log in again, after the tracker ended your login
    Login,
    /// This list; help COMMAND: more of one
    #[command(visible_alias = "?")]
    Help {
        /// A command, or exit-codes, environment, json, security
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
    /// Leave
    #[command(visible_aliases = ["exit", "xit", "q"])]
    Quit,
}

impl Command {
    /// May it take as long as a file is large?
    #[must_use]
    pub const fn is_long(&self) -> bool {
        matches!(
            self,
            Self::Add(_)
                | Self::Download { .. }
                | Self::Info { .. }
                | Self::Send { .. }
                | Self::Unlock { .. }
                | Self::Connect { .. }
                | Self::Msg { .. }
                | Self::Everybody { .. }
        )
    }

    fn at_home(mut self) -> Self {
        match &mut self {
            Self::Add(args) => {
                for path in &mut args.paths {
                    *path = at_home(path);
                }
            }
            Self::Send { paths, .. } => {
                for path in paths {
                    *path = at_home(path);
                }
            }
            Self::Download { out: Some(out), .. } | Self::Unlock { file: out, .. } => {
                *out = at_home(out);
            }
            _ => {}
        }
        self
    }
}

/// Reads a line; `None` when it is empty or a comment.
///
/// # Errors
/// One line that says what is wrong, and what was probably meant.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if let Some(command) = spoken(line) {
        return Ok(Some(command));
    }
    // A quote without its other half is a letter of a name (it's.txt), no reason to refuse the line.
    let mut words = shell_words::split(line)
        .unwrap_or_else(|_| line.split_whitespace().map(str::to_owned).collect());
    let Some(first) = words.first_mut() else {
        return Ok(None);
    };
    // The one clash of names: the chat program's /list lists people.
    let is_people = first.eq_ignore_ascii_case("/list");
    *first = first.strip_prefix('/').unwrap_or(first).to_lowercase();
    if is_people {
        return Ok(Some(Command::Lap));
    }
    if let Some(help) = asked_help(&words) {
        return Ok(Some(help));
    }
    Command::try_parse_from(words)
        .map(|command| Some(command.at_home()))
        .map_err(|error| explain(&error))
}

/// What is said to others is the rest of the line: there quotes and dashes are letters. `None` when that is not
/// what the line is, or something is missing.
fn spoken(line: &str) -> Option<Command> {
    let (first, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    if rest == "--help" || rest == "-h" {
        return None;
    }
    let text = |text: &str| vec![text.to_owned()];
    match first
        .strip_prefix('/')
        .unwrap_or(first)
        .to_lowercase()
        .as_str()
    {
        "msg" => {
            let (user, said) = rest.split_once(char::is_whitespace)?;
            let (user, said) = (user.to_owned(), said.trim_start());
            (!said.is_empty()).then(|| Command::Msg {
                user,
                text: text(said),
                wait: None,
            })
        }
        "all" => Some(Command::Everybody { text: text(rest) }),
        _ => None,
    }
}

/// `get --help` is `help get`: nothing that is meant looks like it.
fn asked_help(words: &[String]) -> Option<Command> {
    let is_help = |word: &String| word == "--help" || word == "-h";
    let (first, rest) = words.split_first()?;
    let mut options = rest.iter().take_while(|word| *word != "--");
    let is_command = Command::command().find_subcommand(first).is_some();
    let command = (is_command && options.any(is_help)).then(|| first.clone());
    (command.is_some() || is_help(first)).then_some(Command::Help { command })
}

/// `~/talks` as a shell would hand it over, which there is none of here.
#[must_use]
pub fn at_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Clap's words, as far as they fit a line.
#[must_use]
pub fn explain(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(" ")),
        _ => None,
    };
    if error.kind() == ErrorKind::InvalidSubcommand {
        let typed = text(ContextKind::InvalidSubcommand).unwrap_or_default();
        return match text(ContextKind::SuggestedSubcommand) {
            Some(meant) => {
                format!("unknown command \"{typed}\"; did you mean \"{meant}\"? (help lists all)")
            }
            None => format!("unknown command \"{typed}\" (help lists all)"),
        };
    }
    if error.kind() == ErrorKind::MissingRequiredArgument {
        let missing = text(ContextKind::InvalidArg).unwrap_or_default();
        // The first of them.
        let missing = missing.split(' ').next().unwrap_or_default();
        let missing = missing.trim_matches(['<', '>', '.']);
        return format!("{missing} is missing; help COMMAND tells more");
    }
    let rendered = error.to_string();
    let mut lines = rendered
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let first = lines
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned();
    let details =
        lines.take_while(|line| !line.starts_with("Usage") && !line.starts_with("For more"));
    let details = details.map(|line| line.trim_start_matches("tip: "));
    let details = details.collect::<Vec<_>>().join("; ");
    if details.is_empty() {
        first
    } else {
        format!("{first}; {details}")
    }
}

/// What `help` prints, or `help COMMAND`.
///
/// # Errors
/// When there is no such command.
pub fn help(command: Option<&str>) -> Result<String, String> {
    let mut grammar = Command::command();
    let Some(name) = command else {
        let rows = grammar.get_subcommands().map(|sub| {
            let aliases = sub.get_visible_aliases().collect::<Vec<_>>().join(", ");
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let names = if aliases.is_empty() {
                sub.get_name().to_owned()
            } else {
                format!("{} ({aliases})", sub.get_name())
            };
            format!("  {names:<26} {about}")
        });
        return Ok(rows.collect::<Vec<_>>().join("\n"));
    };
    let name = name.strip_prefix('/').unwrap_or(name).to_lowercase();
    let Some(sub) = grammar.find_subcommand_mut(&name) else {
        let no_such = |_| format!("there is no command \"{name}\" (help lists all)");
        return topics::text(&name).map(str::to_owned).map_err(no_such);
    };
    let template = "{about}\nUsage: {usage}\n{all-args}";
    let text = sub
        .clone()
        .disable_help_flag(true)
        .help_template(template)
        .render_help()
        .to_string();
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(line: &str) -> Command {
        parse(line).unwrap().unwrap()
    }

    #[test]
    fn all_names_of_a_command_are_one_command() {
        let table: &[(&[&str], &str)] = &[
            (
                &["pub a.txt", "ADD a.txt", "/add a.txt", "share a.txt"],
                "add a.txt",
            ),
            (&["unp a.txt", "rm a.txt", "unshare a.txt"], "remove a.txt"),
            (&["lpf", "ls", "LIST"], "list"),
            (&["ls hans"], "list hans"),
            (&["files", "/all_files"], "all_files"),
            (&["sch talk"], "search talk"),
            (&["get talk.mp4", "/get talk.mp4"], "download talk.mp4"),
            (&["/list", "/LIST"], "lap"),
            (&["xit", "exit", "/exit", "q"], "quit"),
            (&["status"], "id"),
            (&["/help"], "help"),
        ];
        for (lines, same) in table {
            for line in *lines {
                assert_eq!(command(line), command(same), "{line}");
            }
        }
    }

    #[test]
    fn a_tilde_is_the_home_directory_and_only_in_front() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(at_home(Path::new("~/a b")), home.join("a b"));
        assert_eq!(at_home(Path::new("~")), home);
        for path in ["~ana/x", "a/~", "./~/x", "/~"] {
            assert_eq!(at_home(Path::new(path)), Path::new(path));
        }
        let Command::Add(added) = command("add ~/a x/~") else {
            panic!("add is add");
        };
        assert_eq!(added.paths, [home.join("a"), "x/~".into()]);
    }

    #[test]
    fn what_is_missing_is_named_and_topics_are_helped_with() {
        assert!(parse("cancel").unwrap_err().starts_with("NO is missing"));
        assert!(parse("add").unwrap_err().starts_with("PATH is missing"));
        assert!(help(Some("json")).unwrap().contains("transfer"));
        assert!(help(Some("nonsense")).is_err());
    }

    #[test]
    fn help_is_given_where_it_is_asked_for() {
        assert_eq!(command("get --help"), command("help get"));
        assert_eq!(command("/search x -h"), command("help search"));
        assert_eq!(command("--help"), command("help"));
        assert_ne!(command("get -- --help"), command("help get"));
        assert!(parse("serach --help").unwrap_err().contains("did you mean"));
        let error = parse("search --blub").unwrap_err();
        let wanted =
            "unexpected argument '--blub' found; to pass '--blub' as a value, use '-- --blub'";
        assert_eq!(error, wanted);
        let error = parse("get -r x").unwrap_err();
        assert!(error.contains("found; to pass '-r' as a value"), "{error}");
        let error = parse("get --form x").unwrap_err();
        assert!(
            error.contains("found; a similar argument exists: '--from'"),
            "{error}"
        );
    }

    #[test]
    fn quotes_hold_names_together() {
        let wanted = Command::Download {
            options: DownloadOptions {
                items: vec!["my file.txt".into(), "-x".into()],
                ..DownloadOptions::default()
            },
            out: None,
            background: false,
        };
        assert_eq!(command("download 'my file.txt' -- -x"), wanted);
        assert_eq!(
            command("search my report"),
            Command::Search(SearchOptions::plain(vec!["my".into(), "report".into()], 50))
        );
        assert_eq!(command("get it's.txt"), command("get \"it's.txt\""));
    }

    #[test]
    fn what_is_said_is_the_rest_of_the_line_as_it_stands() {
        let said = |line: &str| match command(line) {
            Command::Msg { user, text, .. } => (Some(user), text.join(" ")),
            Command::Everybody { text } => (None, text.join(" ")),
            other => panic!("{other:?}"),
        };
        let vader = Some("vader".to_owned());
        for (line, whom, text) in [
            ("/msg vader it's \"you\"  -x", &vader, "it's \"you\"  -x"),
            ("MSG  vader   --all", &vader, "--all"),
            ("msg vader \\n # no", &vader, "\\n # no"),
            ("/All 'hi", &None, "'hi"),
        ] {
            assert_eq!(said(line), (whom.clone(), text.to_owned()), "{line}");
        }
        for (line, missing) in [("msg", "USER"), ("msg vader", "TEXT"), ("all", "TEXT")] {
            let error = parse(line).unwrap_err();
            assert!(
                error.starts_with(&format!("{missing} is missing")),
                "{error}"
            );
        }
        assert_eq!(command("msg --help"), command("help msg"));
        assert_eq!(command("/Y"), Command::Yes);
        assert_eq!(command("/Connect vader"), command("connect vader"));
    }

    #[test]
    fn nothing_is_no_command_and_a_slip_is_named() {
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("  # a comment"), Ok(None));
        let error = parse("serach x").unwrap_err();
        assert!(
            error.contains("did you mean")
                && error.contains("search")
                && error.lines().count() == 1,
            "{error}"
        );
        for line in [
            "blub",
            "add",
            "download",
            "search",
            "info",
            "list a b",
            "add --blub x",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.lines().count(), 1, "{line}: {error}");
        }
    }

    #[test]
    fn help_tells_all_commands_and_each() {
        let all = help(None).unwrap();
        for name in [
            "add",
            "pub",
            "unp",
            "lpf",
            "sch",
            "get",
            "lap",
            "xit",
            "all_files",
            "peers",
            "quit",
            "info",
        ] {
            assert!(all.contains(name), "{name}");
        }
        assert!(help(Some("download")).unwrap().contains("--from"));
        assert!(help(Some("/sch")).is_ok());
        assert!(help(Some("blub")).is_err());
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in ".*") {
            if let Err(error) = parse(&line) {
                prop_assert!(!error.is_empty());
            }
        }
    }
}
