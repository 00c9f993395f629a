//! Keeps the floors of the house apart, by reading what every source file names.
//!
//! Calls go down and values come back up; no room names one above it. The three lower floors hold no
//! socket, file or clock. `ARCHITECTURE.md` draws the floors; this is the drawing that bites.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each room and the rooms that it may name. `lib` declares all and names none.
const FLOORS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("crypto", &["wire"]),
    ("proto", &["crypto", "wire"]),
    ("nearest", &[]),
    ("shutdown", &[]),
    ("logging", &[]),
    ("config", &["nearest", "wire"]),
    ("disk", &["crypto", "wire"]),
    ("ipc", &["disk"]),
    ("keyfile", &["disk", "crypto", "wire"]),
    ("net", &["proto", "crypto", "wire"]),
    ("lan", &["net", "proto", "crypto", "wire"]),
    (
        "tracker",
        &["net", "keyfile", "disk", "proto", "crypto", "wire"],
    ),
    (
        "peer",
        &["lan", "net", "keyfile", "disk", "proto", "crypto", "wire"],
    ),
    ("web", &["peer", "net", "disk", "crypto", "wire"]),
    (
        "cli",
        &[
            "web", "tracker", "peer", "ipc", "lan", "net", "keyfile", "disk", "config", "logging",
            "shutdown", "nearest", "proto", "crypto", "wire",
        ],
    ),
    ("lib", &[]),
    ("main", &["cli", "config", "logging"]),
];

/// Floors that only think: time, randomness and bytes are their arguments.
const PURE: [&str; 3] = ["wire", "crypto", "proto"];

/// What a pure floor does not hold, each as the words that would stand in its code.
const IMPURE: [&[&str]; 8] = [
    &["TcpStream"],
    &["TcpListener"],
    &["UdpSocket"],
    &["tokio"],
    &["SystemTime"],
    &["Instant", "now"],
    &["std", "fs"],
    &["std", "env"],
];

/// What changes the file system; one word may be several tokens.
const WRITING: [&[&str]; 13] = [
    &["write ( true"],
    &["append ( true"],
    &["DirBuilder"],
    &["File", "create"],
    &["File", "create_new"],
    &["fs", "write"],
    &["fs", "copy"],
    &["fs", "rename"],
    &["fs", "hard_link"],
    &["fs", "create_dir"],
    &["fs", "create_dir_all"],
    &["fs", "remove_file"],
    &["fs", "remove_dir_all"],
];

/// The demo works in a temporary folder of its own.
const OWN_FOLDERS: [&str; 1] = ["cli/demo.rs"];

#[test]
fn no_floor_names_one_above_it() {
    let files = source_files();
    assert!(files.len() > 20, "only {} files found", files.len());
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| strays(path, &code_of(text)))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_lower_floors_hold_no_socket_file_or_clock() {
    let files = product_of(&source_files());
    let pure = files
        .iter()
        .filter(|(path, _)| PURE.contains(&room_of(path)));
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, code) in pure {
        seen += 1;
        wrong.extend(found(&IMPURE, code).map(|what| format!("{path} names {what}")));
    }
    assert!(seen > 20, "only {seen} files found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_disk_changes_files() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, code) in product_of(&source_files()) {
        let changes: Vec<_> = found(&WRITING, &code).collect();
        if path == "disk.rs" {
            seen = changes.len();
        } else if !OWN_FOLDERS.contains(&path.as_str()) {
            wrong.extend(changes.iter().map(|what| format!("{path} names {what}")));
        }
    }
    assert!(seen > 0, "disk.rs writes, and that was not seen");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_room_stands_on_a_floor() {
    let known: BTreeSet<&str> = FLOORS.iter().map(|(room, _)| *room).collect();
    let files = source_files();
    let found: BTreeSet<&str> = files.keys().map(|path| room_of(path)).collect();
    assert_eq!(found, known);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mute: Vec<_> = source_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(mute.is_empty(), "no `//!` header: {mute:?}");
}

#[test]
fn the_code_map_shows_every_file_and_no_other() {
    let page = read(&root().join("ARCHITECTURE.md"));
    let map = page
        .split_once("## Code map")
        .and_then(|(_, rest)| rest.split("\n## ").next())
        .expect("ARCHITECTURE.md has a code map");
    let mapped: BTreeSet<String> = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .filter(|path| path.ends_with(".rs"))
        .map(str::to_owned)
        .collect();
    let found: BTreeSet<String> = source_files().into_keys().collect();
    let missing: Vec<_> = found.difference(&mapped).collect();
    let stale: Vec<_> = mapped.difference(&found).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "the code map of ARCHITECTURE.md lacks {missing:?} and shows {stale:?}, which are not there"
    );
}

#[test]
fn the_list_of_bad_inputs_names_tests_that_exist() {
    let mut sources = files_below("src");
    sources.extend(files_below("tests"));
    let functions: BTreeSet<String> = sources
        .values()
        .flat_map(|text| heads_of_functions(&code_of(text)))
        .collect();
    let page = read(&root().join("docs/bad-inputs.md"));
    let mut named = 0;
    let mut missing = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let last = row.trim_end_matches(" |").rsplit(" | ").next();
        for name in last.unwrap_or_default().split('`').skip(1).step_by(2) {
            named += 1;
            if !functions.contains(name) {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(named > 50, "only {named} tests are named");
    assert!(
        missing.is_empty(),
        "docs/bad-inputs.md names {missing:#?}, which are not there"
    );
}

/// The checker itself: what it must see, and what it must leave alone.
#[test]
fn a_stray_call_is_seen_however_it_is_written() {
    for (path, code, is_stray) in [
        ("wire/id.rs", "use crate::proto::session::Session;", true),
        ("wire/id.rs", "use crate::{proto, wire::text};", true),
        ("wire/id.rs", "use crate::{wire::{id, text}};", false),
        ("wire/id.rs", "fn f() { super::super::peer::join() }", true),
        ("wire/id.rs", "use super::codec::take;", false),
        ("wire/mod.rs", "use super::crypto::secret;", true),
        ("wire/id.rs", "use crate::*;", true),
        ("disk.rs", "use super::peer::Peer;", true),
        ("disk.rs", "use super::wire::text::safe;", false),
        ("peer/mod.rs", "crate :: tracker :: Tracker", true),
        ("tracker/mod.rs", "use crate::peer::Peer;", true),
        (
            "proto/picker.rs",
            "use crate::crypto::random::Random;",
            false,
        ),
        (
            "wire/id.rs",
            "// use crate::peer;\n/* crate::peer /* crate::cli */ */",
            false,
        ),
        (
            "wire/id.rs",
            "let text = \"crate::peer \\\" crate::cli\";",
            false,
        ),
        (
            "wire/id.rs",
            "let text = r#\"crate::peer\"#; let c = '\"';",
            false,
        ),
        (
            "wire/id.rs",
            "let c = '\"'; crate::peer::x(); let d = '\"';",
            true,
        ),
        (
            "wire/id.rs",
            "fn f<'a>(x: &'a str) { crate::cli::run(x) }",
            true,
        ),
        ("main.rs", "use p2pfs::peer::Peer;", true),
        ("main.rs", "use p2pfs::cli::args::Cli;", false),
    ] {
        let found = strays(path, &code_of(code));
        assert_eq!(!found.is_empty(), is_stray, "{path}: {code}\n{found:?}");
    }
}

#[test]
fn an_impure_line_is_seen_unless_it_is_a_test() {
    for (code, is_impure) in [
        ("use std::net::{IpAddr, UdpSocket};", true),
        ("use std::net::{IpAddr, SocketAddr};", false),
        ("let now = Instant::now();", true),
        ("let now = std::time::Instant :: now();", true),
        ("fn f(now: Instant) {}", false),
        ("use std::{fmt, fs};", true),
        ("use std::fs::File;", true),
        ("use tokio::time::sleep;", true),
        ("let fs = 3; let std = fs;", false),
        (
            "#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }",
            false,
        ),
        (
            "#[cfg(test)]\nmod tests { } fn f() { Instant::now(); }",
            true,
        ),
        (
            "#[cfg(test)]\npub(in a::b) mod tests { fn f() { Instant::now(); } }",
            false,
        ),
        ("#[cfg(test)]\npub fn mod_() { Instant::now(); }", true),
    ] {
        let kept = without_tests(&code_of(code));
        assert_eq!(found(&IMPURE, &kept).next().is_some(), is_impure, "{code}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn source_files() -> BTreeMap<String, String> {
    files_below("src")
}

/// Path below `dir`, and text, of every Rust file there.
fn files_below(dir: &str) -> BTreeMap<String, String> {
    let top = root().join(dir);
    let mut files = BTreeMap::new();
    let mut left = vec![top.clone()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{error}"));
            left.extend(entries.map(|entry| entry.expect("a readable directory").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(&top).expect("it was found below");
            files.insert(below.to_string_lossy().replace('\\', "/"), read(&path));
        }
    }
    files
}

/// Names of all functions.
fn heads_of_functions(code: &[String]) -> Vec<String> {
    code.windows(2)
        .filter(|pair| pair[0] == "fn")
        .map(|pair| pair[1].clone())
        .collect()
}

/// The first part of a path below `src`: a directory, or a file on its own.
fn room_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Rooms that `code` names and may not.
fn strays(path: &str, code: &[String]) -> Vec<String> {
    let room = room_of(path);
    let allowed = FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map_or(&[][..], |(_, rooms)| *rooms);
    rooms_named(path, code)
        .into_iter()
        .filter(|named| named != room && !allowed.contains(&named.as_str()))
        .map(|named| format!("src/{path} names {named}, which does not lie below {room}"))
        .collect()
}

/// Every room that is named from the crate's root, in whichever way.
fn rooms_named(path: &str, code: &[String]) -> BTreeSet<String> {
    let mut named = heads(code, &["crate"]);
    if path == "main.rs" {
        named.extend(heads(code, &["p2pfs"]));
    }
    // `super` from a file leads to the root after as many steps as its module is deep; in a module inside
    // the file after one more.
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = module.split('/').count();
    for steps in [depth, depth + 1] {
        let reached = heads(code, &vec!["super"; steps]);
        let is_room = |name: &String| FLOORS.iter().any(|(room, _)| room == name);
        named.extend(reached.into_iter().filter(is_room));
    }
    named
}

/// The first words behind `path::`, or behind each comma of `path::{…}`.
fn heads(code: &[String], path: &[&str]) -> BTreeSet<String> {
    let pattern: Vec<&str> = path.iter().flat_map(|word| [*word, ":", ":"]).collect();
    let mut found = BTreeSet::new();
    for start in 0..code.len() {
        let rest = &code[start..];
        let is_longer_path = start > 1 && code[start - 1] == ":" && code[start - 2] == ":";
        if is_longer_path
            || rest.len() <= pattern.len()
            || !rest.iter().zip(&pattern).all(|(a, b)| a == b)
        {
            continue;
        }
        let behind = &rest[pattern.len()..];
        if behind[0] == "{" {
            found.extend(list_heads(behind));
        } else {
            found.insert(behind[0].clone());
        }
    }
    found
}

/// The first word of each entry of the list that `code` begins with.
fn list_heads(code: &[String]) -> Vec<String> {
    let (mut depth, mut found) = (0_usize, Vec::new());
    for (index, token) in code.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if depth == 1 && matches!(code[index - 1].as_str(), "{" | ",") => {
                found.push(token.clone());
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// Those of `wanted` that `code` names, as a path or in a list of a `use`.
fn found(wanted: &[&[&str]], code: &[String]) -> impl Iterator<Item = String> {
    wanted
        .iter()
        .filter(|words| match words {
            [root, last] => heads(code, &[root]).contains(*last) || names(code, words),
            _ => names(code, words),
        })
        .map(|words| words.join("::"))
}

#[test]
fn a_file_is_left_out_only_where_it_is_declared_as_tests() {
    for (parent, text, is_left_out) in [
        ("a.rs", "#[cfg(test)]\nmod tests;", true),
        ("a/mod.rs", "#[cfg(test)]\nmod tests;", true),
        ("a.rs", "#[cfg(test)]\npub(super) mod tests;", true),
        ("a.rs", "mod tests;", false),
        ("a.rs", "#[cfg(test)]\nmod tests {}", false),
        ("b.rs", "#[cfg(test)]\nmod tests;", false),
    ] {
        let files = [(parent, text), ("a/tests.rs", "fn f() {}")];
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        let product = product_of(&files.into());
        assert_eq!(!product.contains_key("a/tests.rs"), is_left_out, "{text}");
    }
}

/// Does `words[0]::words[1]…` stand anywhere?
fn names(code: &[String], words: &[&str]) -> bool {
    let path = words.join(" : : ");
    let pattern: Vec<&str> = path.split(' ').collect();
    code.windows(pattern.len())
        .any(|window| window.iter().zip(&pattern).all(|(a, b)| a == b))
}

/// Does a module begin here that is compiled for tests only? Where its name stands.
fn name_of_tests(code: &[String]) -> Option<usize> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    if code.len() < MARK.len() || code.iter().zip(MARK).any(|(a, b)| a != b) {
        return None;
    }
    let mut rest = code.iter().enumerate().skip(MARK.len());
    let (mut at, mut word) = rest.next()?;
    if word == "pub" {
        (at, word) = rest.next()?;
        if word == "(" {
            rest.find(|(_, word)| *word == ")")?;
            (at, word) = rest.next()?;
        }
    }
    (word == "mod").then_some(at + 1)
}

/// Path and code of each file, without what is compiled for tests only.
fn product_of(files: &BTreeMap<String, String>) -> BTreeMap<String, Vec<String>> {
    let declares_tests = |path: String| {
        let code = files.get(&path).map(|text| code_of(text));
        code.is_some_and(|code| {
            (0..code.len()).any(|at| {
                let code = &code[at..];
                let declaration = name_of_tests(code).and_then(|name| code.get(name..name + 2));
                declaration.is_some_and(|words| words == ["tests", ";"])
            })
        })
    };
    let is_tests = |path: &str| {
        let room = path.strip_suffix("/tests.rs");
        room.is_some_and(|room| {
            declares_tests(format!("{room}.rs")) || declares_tests(format!("{room}/mod.rs"))
        })
    };
    files
        .iter()
        .filter(|(path, _)| !is_tests(path))
        .map(|(path, text)| (path.clone(), without_tests(&code_of(text))))
        .collect()
}

/// `code` without its modules that are compiled for tests only.
fn without_tests(code: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut index = 0;
    while index < code.len() {
        if name_of_tests(&code[index..]).is_none() {
            kept.push(code[index].clone());
            index += 1;
            continue;
        }
        let mut depth = 0_usize;
        for token in &code[index..] {
            index += 1;
            match token.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => continue,
            }
            if depth == 0 {
                break;
            }
        }
    }
    kept
}

/// The words and signs of Rust source, without comments and literals.
fn code_of(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => block_comment_len(rest),
            '"' => string_len(rest),
            '\'' => char_len(rest),
            'r' | 'b' | 'c' if raw_string_len(rest).is_some() => raw_string_len(rest).unwrap_or(1),
            _ if first.is_alphanumeric() || first == '_' => {
                let is_word = |c: char| c.is_alphanumeric() || c == '_';
                let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(rest[..len].to_owned());
                len
            }
            _ => {
                if !first.is_whitespace() {
                    tokens.push(first.to_string());
                }
                first.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    tokens
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn string_len(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character, or the one quote of a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(text.len(), |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// The length of a raw string that `text` begins with.
fn raw_string_len(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r"]
        .into_iter()
        .find(|prefix| text.starts_with(*prefix))?;
    let behind = &text[prefix.len()..];
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let body = behind[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = body.find(&end)? + end.len();
    Some(prefix.len() + hashes + 1 + len)
}
