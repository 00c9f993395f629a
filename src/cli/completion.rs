//! What a half-typed line may go on with: commands, names, people, paths, numbers of downloads.
//!
//! Names come from others. What could act on a terminal or mislead is offered by its id instead, so that
//! nothing of it enters the line; everything else is quoted as the prompt reads it again.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use unicode_width::UnicodeWidthStr as _;

use super::command::{self, Command};
use super::table::cut;
use super::topics;
use crate::wire::text::{fold, safe};

/// Entries of a directory that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Candidates that are listed.
const MAX_LISTED: usize = 100;
/// Columns between two of them.
const GAP: usize = 2;

/// What is known at the moment.
pub trait Known {
    /// Files and folders that we share: names with their short ids.
    fn own(&self) -> Vec<Name>;
    /// Those that were seen in searches and listings.
    fn seen(&self) -> Vec<Name>;
    /// Users that were seen.
    fn users(&self) -> Vec<String>;
    /// Downloads: numbers with names.
    fn downloads(&self) -> Vec<(String, String)>;
}

/// The name of something that is shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// As its owner chose it.
    pub name: String,
    /// `b3:9f2c41d0`
    pub id: String,
}

/// What to do with the line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Where the word begins that is replaced, and what replaces it.
    pub replacement: Option<(usize, String)>,
    /// Candidates to be shown, safe to print.
    pub shown: Vec<String>,
}

#[derive(Clone, Debug)]
struct Candidate {
    /// What stands in the line, before quoting.
    text: String,
    /// What is listed; safe to print.
    shown: String,
    /// More of the word may follow: a directory.
    is_open: bool,
}

impl Candidate {
    fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            shown: safe(&text),
            text,
            is_open: false,
        }
    }
}

/// Completes `line`, of which only the part before the cursor is given.
#[must_use]
pub fn complete(line: &str, known: &dyn Known) -> Completion {
    let (earlier, word) = split(line);
    let mut candidates = candidates(&earlier, &word.text, known);
    candidates.sort_by(|a, b| a.text.cmp(&b.text));
    candidates.dedup_by(|a, b| a.text == b.text);
    match candidates.as_slice() {
        [] => Completion::default(),
        [only] => {
            let end = if only.is_open {
                End::Open
            } else {
                End::Complete
            };
            Completion {
                replacement: Some((word.start, quote(&only.text, word.quote, end))),
                shown: Vec::new(),
            }
        }
        several => {
            let common = common(several);
            if common.len() > word.text.len() && fold(&common).starts_with(&fold(&word.text)) {
                let text = quote(&common, word.quote, End::Open);
                return Completion {
                    replacement: Some((word.start, text)),
                    shown: Vec::new(),
                };
            }
            Completion {
                replacement: None,
                shown: several.iter().map(|one| one.shown.clone()).collect(),
            }
        }
    }
}

/// Candidates in columns, for a terminal of this width; only as many as are of use.
#[must_use]
pub fn columns(shown: &[String], width: usize) -> String {
    let listed = &shown[..shown.len().min(MAX_LISTED)];
    let longest = listed.iter().map(|text| text.width()).max().unwrap_or(0);
    let cell = (longest + GAP).min(width.max(1));
    let count = (width / cell).max(1);
    let rows = listed.len().div_ceil(count);
    let mut lines: Vec<String> = (0..rows)
        .map(|row| {
            let mut line = String::new();
            for text in listed.iter().skip(row).step_by(rows) {
                let text = cut(text, cell.saturating_sub(GAP).max(1));
                let gap = cell.saturating_sub(text.width());
                line.push_str(&text);
                line.push_str(&" ".repeat(gap));
            }
            line.trim_end().to_owned()
        })
        .collect();
    if shown.len() > listed.len() {
        lines.push(format!("… and {} more", shown.len() - listed.len()));
    }
    lines.join("\n")
}

/// What may follow the command that stands in the line, while nothing does.
#[must_use]
pub fn hint(line: &str) -> Option<String> {
    let (earlier, word) = split(line);
    let [command] = earlier.as_slice() else {
        return None;
    };
    if !word.text.is_empty() || !line.ends_with(' ') {
        return None;
    }
    let grammar = Command::command();
    let sub = grammar.find_subcommand(bare(command))?;
    let places = sub.get_positionals().map(|place| {
        let name = place.get_value_names().and_then(<[_]>::first).map_or_else(
            || place.get_id().as_str().to_uppercase(),
            ToString::to_string,
        );
        let more = place
            .get_num_args()
            .is_some_and(|count| count.max_values() > 1);
        let more = if more { "…" } else { "" };
        if place.is_required_set() {
            format!("{name}{more}")
        } else {
            format!("[{name}{more}]")
        }
    });
    let options = sub
        .get_opts()
        .chain(sub.get_arguments().filter(|a| is_flag(a)));
    let mut names: Vec<String> = options
        .filter_map(|option| option.get_long())
        .map(|long| format!("[--{long}]"))
        .collect();
    names.dedup();
    let all: Vec<String> = places.chain(names).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

fn is_flag(argument: &clap::Arg) -> bool {
    !argument.is_positional() && !argument.get_action().takes_values()
}

/// The command's name as the grammar has it.
fn bare(word: &str) -> String {
    word.strip_prefix('/').unwrap_or(word).to_lowercase()
}

fn candidates(earlier: &[String], word: &str, known: &dyn Known) -> Vec<Candidate> {
    let grammar = Command::command();
    let Some((first, arguments)) = earlier.split_first() else {
        let slash = if word.starts_with('/') { "/" } else { "" };
        let typed = bare(word);
        let names = grammar
            .get_subcommands()
            .flat_map(|sub| std::iter::once(sub.get_name()).chain(sub.get_visible_aliases()));
        return names
            .filter(|name| name.starts_with(&typed))
            .map(|name| Candidate::plain(format!("{slash}{name}")))
            .collect();
    };
    let Some(sub) = grammar.find_subcommand(bare(first)) else {
        return Vec::new();
    };
    let is_after = arguments.iter().any(|argument| argument == "--");
    if word.starts_with('-') && !is_after {
        let longs = sub.get_arguments().filter_map(clap::Arg::get_long);
        return longs
            .map(|long| format!("--{long}"))
            .filter(|long| long.starts_with(word))
            .map(Candidate::plain)
            .collect();
    }
    let last = arguments.last().map(String::as_str);
    match (sub.get_name(), last) {
        ("download", Some("--from")) | ("add", Some("--for")) => matching(word, known.users()),
        ("download", Some("--out" | "-o")) => paths(word, Wanted::Directories),
        ("add", Some("--as")) | ("search", _) => Vec::new(),
        ("add", _) => paths(word, Wanted::All),
        ("remove", _) => names(word, known.own()),
        ("download", _) => names(word, known.seen()),
        ("info", _) => names(word, [known.seen(), known.own()].concat()),
        ("list", _)
        | (
            "connect" | "disconnect" | "msg" | "accept" | "deny" | "trust" | "untrust" | "block"
            | "unblock" | "verify",
            None,
        ) => matching(word, known.users()),
        ("pause" | "resume" | "cancel", _) => known
            .downloads()
            .into_iter()
            .filter(|(number, _)| number.starts_with(word) && !arguments.contains(number))
            .map(|(number, name)| Candidate {
                shown: format!("{number} {}", safe(&name)),
                text: number,
                is_open: false,
            })
            .collect(),
        ("limit", None) => matching(word, ["up", "down"].map(str::to_owned).to_vec()),
        ("limit", Some("up" | "down")) => matching(word, vec!["off".to_owned()]),
        ("help", None) => {
            let commands = grammar.get_subcommands().map(clap::Command::get_name);
            let commands = commands.map(str::to_owned);
            let topics = topics::names().map(str::to_owned);
            matching(word, commands.chain(topics).collect())
        }
        _ => Vec::new(),
    }
}

fn matching(word: &str, all: Vec<String>) -> Vec<Candidate> {
    let word = fold(word);
    all.into_iter()
        .filter(|text| fold(text).starts_with(&word))
        .map(Candidate::plain)
        .collect()
}

fn names(word: &str, all: Vec<Name>) -> Vec<Candidate> {
    let typed = fold(word);
    all.into_iter()
        .filter_map(|Name { name, id }| {
            let is_harmless = safe(&name) == name && !name.starts_with('-');
            let text = if is_harmless { &name } else { &id };
            let is_meant = fold(text).starts_with(&typed) || fold(&safe(&name)).starts_with(&typed);
            is_meant.then(|| Candidate {
                shown: if is_harmless {
                    name.clone()
                } else {
                    format!("{id} {}", safe(&name))
                },
                text: text.clone(),
                is_open: false,
            })
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Directories,
}

fn paths(word: &str, wanted: Wanted) -> Vec<Candidate> {
    let (dir, start) = match word.rfind('/') {
        Some(slash) => word.split_at(slash + 1),
        None => ("", word),
    };
    let place = match dir {
        "" => PathBuf::from("."),
        dir => command::at_home(Path::new(dir)),
    };
    let Ok(entries) = std::fs::read_dir(place) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.take(MAX_ENTRIES).flatten() {
        // A name that is not text cannot be typed.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_hidden = name.starts_with('.') && !start.starts_with('.');
        // A downloaded name may be a trap, too, and no id stands for a path.
        if is_hidden || !name.starts_with(start) || safe(&name) != name {
            continue;
        }
        let is_dir = std::fs::metadata(entry.path()).is_ok_and(|found| found.is_dir());
        if wanted == Wanted::Directories && !is_dir {
            continue;
        }
        let slash = if is_dir { "/" } else { "" };
        // A leading dash would be an option.
        let here = if dir.is_empty() && name.starts_with(['-', '~']) {
            "./"
        } else {
            dir
        };
        found.push(Candidate {
            text: format!("{here}{name}{slash}"),
            shown: format!("{name}{slash}"),
            is_open: is_dir,
        });
    }
    found
}

/// The longest beginning that all have; never a part of a character.
fn common(candidates: &[Candidate]) -> String {
    let mut common = candidates.first().map_or("", |one| one.text.as_str());
    for candidate in candidates {
        let same = common
            .chars()
            .zip(candidate.text.chars())
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        common = &common[..same];
    }
    common.to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// The word at the cursor.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    start: usize,
    text: String,
    quote: Quote,
}

/// The words before the cursor as shell-words reads them, and the one that is being typed.
fn split(line: &str) -> (Vec<String>, Word) {
    let mut earlier = Vec::new();
    let (mut start, mut text, mut quote) = (None, String::new(), Quote::None);
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote == Quote::None && matches!(c, ' ' | '\t' | '\n') {
            if start.take().is_some() {
                earlier.push(std::mem::take(&mut text));
            }
            continue;
        }
        start.get_or_insert(at);
        match (quote, c) {
            (Quote::None, '\'') => quote = Quote::Single,
            (Quote::None, '"') => quote = Quote::Double,
            (Quote::Single, '\'') | (Quote::Double, '"') => quote = Quote::None,
            (Quote::None, '\\') => text.extend(chars.next().map(|(_, next)| next)),
            (Quote::Double, '\\') => match chars.next() {
                Some((_, next @ ('$' | '`' | '"' | '\\'))) => text.push(next),
                Some((_, next)) => text.extend(['\\', next]),
                None => {}
            },
            (_, c) => text.push(c),
        }
    }
    let word = Word {
        start: start.unwrap_or(line.len()),
        text,
        quote,
    };
    (earlier, word)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The word goes on.
    Open,
    /// The next one may begin.
    Complete,
}

/// `text` as the prompt reads it again, in the quotes that were begun.
fn quote(text: &str, quote: Quote, end: End) -> String {
    let (open, escaped): (&str, String) = match quote {
        Quote::None => {
            let mut escaped = String::with_capacity(text.len());
            for (at, c) in text.char_indices() {
                if matches!(c, ' ' | '\t' | '\'' | '"' | '\\') || (at == 0 && c == '#') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            ("", escaped)
        }
        Quote::Single => ("'", text.replace('\'', r"'\''")),
        Quote::Double => {
            let mut escaped = String::with_capacity(text.len());
            for c in text.chars() {
                if matches!(c, '$' | '`' | '"' | '\\') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            ("\"", escaped)
        }
    };
    match end {
        End::Open => format!("{open}{escaped}"),
        End::Complete => format!("{open}{escaped}{open} "),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct World {
        seen: Vec<&'static str>,
    }

    impl Known for World {
        fn own(&self) -> Vec<Name> {
            vec![named("my own.txt", 'a')]
        }
        fn seen(&self) -> Vec<Name> {
            self.seen.iter().map(|name| named(name, 'b')).collect()
        }
        fn users(&self) -> Vec<String> {
            vec!["ana".to_owned(), "Hans".to_owned()]
        }
        fn downloads(&self) -> Vec<(String, String)> {
            let one = |number: &str, name: &str| (number.to_owned(), name.to_owned());
            vec![one("1", "a"), one("12", "b\u{202e}c")]
        }
    }

    fn named(name: &str, digit: char) -> Name {
        Name {
            name: name.to_owned(),
            id: format!("b3:{}", digit.to_string().repeat(8)),
        }
    }

    /// The line after the key, or what is listed.
    fn after(line: &str, seen: &[&'static str]) -> Result<String, Vec<String>> {
        let done = complete(
            line,
            &World {
                seen: seen.to_vec(),
            },
        );
        match done.replacement {
            Some((start, text)) => Ok(format!("{}{text}", &line[..start])),
            None => Err(done.shown),
        }
    }

    #[test]
    fn commands_people_numbers_and_options_are_completed() {
        for (line, wanted) in [
            ("dow", "download"),
            ("/CANC", "/cancel "),
            ("trans", "transfers "),
            ("rm ", r"rm my\ own.txt "),
            ("/rm 'my", "/rm 'my own.txt' "),
            ("list H", "list Hans "),
            ("ls h", "ls Hans "),
            ("get x --from a", "get x --from ana "),
            ("get x --fr", "get x --from "),
            ("cancel 12", "cancel 12 "),
            ("limit u", "limit up "),
            ("help exit-c", "help exit-codes "),
        ] {
            assert_eq!(after(line, &[]), Ok(wanted.to_owned()), "{line}");
        }
        assert_eq!(
            after("pause 1", &[]),
            Err(vec!["1 a".to_owned(), "12 b\\u{202e}c".to_owned()])
        );
        assert_eq!(after("nonsense x", &[]), Err(Vec::new()));
    }

    #[test]
    fn names_are_quoted_as_they_were_begun_and_shared_beginnings_are_typed() {
        let two = &["My talk 1.mp4", "My talk 2.mp4"];
        assert_eq!(after("get my", two), Ok(r"get My\ talk\ ".to_owned()));
        assert_eq!(after(r#"get "My"#, two), Ok(r#"get "My talk "#.to_owned()));
        assert_eq!(
            after(r"get My\ talk\ ", two),
            Err(two.map(str::to_owned).to_vec())
        );
        assert_eq!(
            after(r"get My\ talk\ 2", two),
            Ok(r"get My\ talk\ 2.mp4 ".to_owned())
        );
        assert_eq!(
            after("get it", &["it's.txt"]),
            Ok(r"get it\'s.txt ".to_owned())
        );
        assert_eq!(
            after("get 'it", &["it's.txt"]),
            Ok(r"get 'it'\''s.txt' ".to_owned())
        );
        // é and è begin with the same byte.
        assert_eq!(
            after("get c", &["caf\u{e9}", "caf\u{e8}"]),
            Ok("get caf".to_owned())
        );
    }

    #[test]
    fn a_name_that_could_act_on_the_terminal_is_offered_by_its_id() {
        for name in [
            "a\u{202e}b.txt",
            "a\u{1b}[2J",
            "a\rb",
            "a\nb",
            "a\u{200b}",
            "-a",
        ] {
            let name: &'static str = name.to_owned().leak();
            let start = if name == "-a" { "get -- -" } else { "get a" };
            let line = after(start, &[name]).unwrap();
            assert!(line.ends_with("b3:bbbbbbbb "), "{name:?}: {line:?}");
        }
        let Err(shown) = after("get a", &["a\u{1b}]0;x\u{7}", "ab"]) else {
            panic!("two are listed");
        };
        assert!(shown.iter().all(|line| safe(line) == *line), "{shown:?}");
    }

    #[test]
    fn paths_are_completed_with_blanks_at_home_and_never_as_options() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().to_str().unwrap();
        std::fs::create_dir(dir.path().join("my talks")).unwrap();
        for name in ["my talks/one.mp4", ".hidden", "bad\u{1b}name", "zoo"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let line = |text: &str| format!("add {base}/{text}");
        assert_eq!(after(&line("m"), &[]), Ok(line(r"my\ talks/")));
        assert_eq!(
            after(&line(r"my\ talks/"), &[]),
            Ok(line(r"my\ talks/one.mp4 "))
        );
        assert_eq!(after(&line(".h"), &[]), Ok(line(".hidden ")));
        assert_eq!(
            after(&line(""), &[]),
            Err(vec!["my talks/".to_owned(), "zoo".to_owned()])
        );
        assert_eq!(after(&line("bad"), &[]), Err(Vec::new()));
        let only = format!("get x --out {base}/");
        assert_eq!(after(&only, &[]), Ok(format!(r"{only}my\ talks/")));
    }

    #[test]
    fn hints_tell_what_follows_a_command() {
        assert_eq!(hint("cancel "), Some("NO…".to_owned()));
        let get = hint("get ").unwrap();
        assert!(get.starts_with("NAME|ID… [--from]"), "{get}");
        for line in ["", "get", "get x", "get x ", "lap ", "nonsense "] {
            assert_eq!(hint(line), None, "{line:?}");
        }
    }

    #[test]
    fn candidates_stand_in_columns_that_fit() {
        let shown: Vec<String> = (0..150).map(|number| format!("名{number}")).collect();
        for width in [1, 10, 20, 80] {
            let text = columns(&shown, width);
            assert!(text.ends_with("… and 50 more"));
            for line in text.lines().filter(|line| !line.starts_with('…')) {
                assert!(line.width() <= width.max(2), "{width}: {line}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_completed_reads_as_it_is(name in "[^\\x00-\\x1f/]{1,12}", style in 0..3) {
            let begun = ["", "'", "\""][style as usize];
            let quoted = quote(&name, [Quote::None, Quote::Single, Quote::Double][style as usize], End::Complete);
            let line = format!("get {quoted}");
            prop_assert_eq!(shell_words::split(&line).unwrap(), vec!["get".to_owned(), name.clone()], "{} {}", begun, line);
            let (earlier, word) = split(&line);
            prop_assert_eq!(earlier, vec!["get".to_owned(), name]);
            prop_assert_eq!(word.text, "");
        }

        #[test]
        fn no_line_makes_it_panic(line in ".*") {
            let done = complete(&line, &World { seen: vec!["a b"] });
            if let Some((start, _)) = done.replacement {
                prop_assert!(line.is_char_boundary(start));
            }
            let _ = hint(&line);
        }
    }
}
