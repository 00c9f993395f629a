//! The prompt at a terminal, as its screen shows it: nothing runs through a half-typed line, whatever comes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rexpect::process::{Signal, WaitStatus};

use crate::support::terminal::Terminal;
use crate::support::{Group, Process, joining};

const MIB: u64 = 1 << 20;

/// A tracker, a slow seeder, and what a peer at a terminal is started with.
struct World {
    group: Group,
    _tracker: Process,
    _seeder: Process,
    args: Vec<String>,
}

impl World {
    fn new(more: &[&str]) -> Self {
        let group = Group::new();
        let (tracker, address) = group.tracker();
        let mut seeder = group.peer("ana", &address, &["--up-limit", "1MiB"]);
        for (seed, name) in (1..).zip(more) {
            let len = if name.ends_with(".bin") {
                20 * MIB
            } else {
                1000
            };
            group.file(name, len, seed);
            seeder.say(&format!("add '{name}'"));
            seeder.wait_for("Sharing");
        }
        let out = group.folder("out");
        let args = [&["peer"][..], &joining(&address, "bob", &out)].concat();
        let args = args.into_iter().map(str::to_owned).collect();
        Self {
            group,
            _tracker: tracker,
            _seeder: seeder,
            args,
        }
    }

    fn bob(&self) -> Terminal {
        self.bob_in(&[])
    }

    fn bob_in(&self, variables: &[(&str, &str)]) -> Terminal {
        let mut bob = self.bob_under(r#"exec "$@""#, variables);
        bob.wait_end("P2P>");
        bob
    }

    /// Bob under a shell that runs `script`, with p2pfs and its arguments as `"$@"`.
    fn bob_under(&self, script: &str, variables: &[(&str, &str)]) -> Terminal {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        self.under(script, &args, variables)
    }

    /// The same with other arguments.
    fn under(&self, script: &str, args: &[&str], variables: &[(&str, &str)]) -> Terminal {
        // As a terminal is for a person: the pty of the tests shows nothing of what is typed.
        let script = format!("stty echo; {script}");
        let mut command = self
            .group
            .command_under("bob", &["sh", "-c", &script, "sh"]);
        command
            .args(args)
            .env("TERM", "xterm")
            .env("XTERM_VERSION", "XTerm(390)")
            .envs(variables.iter().copied());
        Terminal::run(command)
    }
}

/// The one row with the progress of a download, and how far it stands above the last row.
fn progress(terminal: &Terminal) -> Option<(String, usize)> {
    let shown = terminal.shown();
    let rows: Vec<&str> = shown.lines().collect();
    let at = rows.iter().rposition(|row| row.starts_with('↓'))?;
    Some((rows[at].to_owned(), rows.len() - 1 - at))
}

fn ends_well(terminal: &mut Terminal) {
    let status = terminal.end_within(Duration::from_secs(10));
    assert!(
        matches!(status, Some(WaitStatus::Exited(_, 0))),
        "{status:?}:\n{}",
        terminal.shown()
    );
    assert!(
        terminal.changed_modes().is_empty(),
        "{:?}",
        terminal.changed_modes()
    );
}

/// Shows: row 15, and commands.md's "never inside the line". How: two hundred files are shared behind the
/// prompt and one is downloaded, while a line of two rows stands half typed.
#[test]
fn messages_and_progress_stand_above_a_half_typed_line() {
    const COUNT: u64 = 200;
    let world = World::new(&["big.bin"]);
    let mut bob = world.bob();
    bob.type_line("get big.bin");
    bob.wait_until("in progress", |bob| progress(bob).is_some());
    for number in 0..COUNT {
        world.group.file(&format!("many/f{number}.txt"), 10, 1);
    }
    let lines: Vec<String> = (0..COUNT).map(|n| format!("add many/f{n}.txt")).collect();
    bob.paste(&lines.join("\n"));
    bob.wait_end("add many/f199.txt");
    let half = format!("search {}", "0123456789".repeat(10));
    bob.press("\r");
    bob.press(&half);
    let (first, second) = (format!("P2P> {}", &half[..75]), &half[75..]);
    let end = format!("{first}\n{second}");
    bob.wait_until("all shared, and the line whole", |bob| {
        bob.shown().ends_with(&end) && bob.screen.contains("f199.txt, 10 B")
    });
    bob.read_for(Duration::from_millis(600));
    let shown = bob.shown();
    assert!(shown.ends_with(&end), "{shown}");
    let (row, above) = progress(&bob).unwrap();
    assert!(row.contains(" %  ") && above == 2, "{shown}");
    assert_eq!(shown.matches('↓').count(), 1, "{shown}");
    let (row, column) = bob.cursor();
    assert_eq!(usize::from(column), second.len());
    assert_eq!(usize::from(row), shown.lines().count() - 1);
    let record = bob.record();
    for number in 0..COUNT {
        let line = format!("Sharing f{number}.txt, 10 B");
        assert_eq!(record.matches(&line).count(), 1, "{line}:\n{record}");
    }
    // Enter leaves the line of the download once, and it goes on below.
    let before = record.matches('↓').count();
    bob.press("\x15id\r");
    bob.wait_until("answered", |bob| {
        bob.shown().contains("tracker  ") && progress(bob).is_some_and(|(_, above)| above == 1)
    });
    bob.read_for(Duration::from_millis(600));
    assert_eq!(
        bob.record().matches('↓').count(),
        before + 1,
        "{}",
        bob.record()
    );
    bob.type_line("cancel 1");
    bob.wait_until("without progress", |bob| {
        let shown = bob.shown();
        shown.ends_with("P2P>")
            && shown.contains("Cancelled 1")
            && !last_rows(&shown, 3).contains('↓')
    });
    bob.type_line("quit");
    ends_well(&mut bob);
}

fn last_rows(shown: &str, count: usize) -> String {
    let rows: Vec<&str> = shown.lines().collect();
    rows[rows.len().saturating_sub(count)..].join("\n")
}

#[test]
fn four_lines_stand_for_many_downloads() {
    let names: Vec<String> = (0..6).map(|number| format!("b{number}.bin")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&names);
    let mut bob = world.bob();
    for name in &names {
        bob.type_line(&format!("get {name}"));
    }
    bob.press("half");
    bob.wait_until("four lines", |bob| {
        let shown = bob.shown();
        let last = last_rows(&shown, 5);
        last.ends_with("P2P> half")
            && last.matches('↓').count() == 4
            && last.contains("↓ 3 more files  ")
    });
}

#[test]
fn a_resize_redraws_the_line_and_its_progress() {
    let world = World::new(&["big.bin"]);
    let mut bob = world.bob();
    bob.type_line("get big.bin");
    bob.wait_until("in progress", |bob| progress(bob).is_some());
    let half = format!("search {}", "0123456789".repeat(10));
    bob.press(&half);
    for columns in [100, 60, 40, 20, 90] {
        bob.set_width(columns);
        let whole = format!("P2P> {half}");
        let rows: Vec<&str> = whole
            .as_bytes()
            .chunks(usize::from(columns))
            .map(|row| std::str::from_utf8(row).unwrap())
            .collect();
        bob.wait_until("drawn anew", |bob| {
            let is_above = progress(bob).is_some_and(|(row, above)| {
                above == rows.len() && row.chars().count() < usize::from(columns)
            });
            bob.shown().ends_with(&rows.join("\n")) && is_above
        });
    }
    // Too few rows for anything but the line.
    bob.set_size(90, 9);
    // Each tenth of the file is a line instead; longer than a frame takes there is none.
    let deadline = Instant::now() + Duration::from_secs(20);
    while bob.shown() != "P2P>" {
        assert!(Instant::now() < deadline, "{}", bob.shown());
        bob.press("\x15\x0c");
        bob.read_for(Duration::from_millis(600));
    }
}

/// Shows: a window that is dragged to another size, through all in between, has one line and one row of progress, and
/// nothing of those before. How: column by column to half its width, and back faster than anything is drawn. (What is
/// on its way to a window that has become narrower meanwhile, nobody can draw right.)
#[test]
fn a_dragged_window_leaves_no_stale_line() {
    let world = World::new(&["big.bin"]);
    let mut bob = world.bob();
    bob.type_line("get big.bin");
    bob.wait_until("in progress", |bob| progress(bob).is_some());
    bob.press("\x0c");
    let half = format!("search {}", "0123456789".repeat(9));
    bob.press(&half);
    let whole = format!("P2P> {half}");
    let has_settled = |bob: &mut Terminal, columns: u16| {
        let rows: Vec<&str> = whole
            .as_bytes()
            .chunks(usize::from(columns))
            .map(|row| std::str::from_utf8(row).unwrap())
            .collect();
        let end = rows.join("\n");
        bob.wait_until("drawn anew, and alone", |bob| {
            let shown = bob.shown();
            shown.ends_with(&end)
                && progress(bob).is_some_and(|(_, above)| above == rows.len())
                && shown.matches("P2P> search").count() == 1
                && shown.matches('↓').count() == 1
        });
    };
    has_settled(&mut bob, 80);
    for columns in (40..80).rev() {
        bob.set_width(columns);
        has_settled(&mut bob, columns);
    }
    for columns in 41..=120 {
        bob.set_width(columns);
    }
    has_settled(&mut bob, 120);
    bob.read_for(Duration::from_millis(600));
    has_settled(&mut bob, 120);
}

/// Shows: a table that is watched is drawn again in its place, in a window that holds only some of it as well, until
/// nothing is under way or somebody has seen enough.
#[test]
fn a_watched_table_is_drawn_again_in_its_place() {
    let names: Vec<String> = (0..6).map(|number| format!("b{number}.bin")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&names);
    let args: Vec<_> = world.args.iter().map(String::as_str).collect();
    let mut bob = world.group.start("bob", &args);
    bob.wait_for("Joined");
    bob.say(&format!("download -b {}", names.join(" ")));
    let watch = ["transfers", "--watch"];
    let once = |watch: &mut Terminal, what: &str| {
        let record = watch.record();
        assert_eq!(record.matches(what).count(), 1, "{record}");
    };
    let mut whole = world.under(r#"exec "$@""#, &watch, &[]);
    let is_whole = |shown: &str| shown.starts_with("NO ") && shown.lines().count() == 7;
    let first = whole.wait_until("all of it", |watch| {
        is_whole(&watch.shown()) && watch.shown().contains("/s from")
    });
    whole.wait_until("drawn again", |watch| {
        is_whole(&watch.shown()) && watch.shown() != first
    });
    once(&mut whole, "NAME");
    let mut small = world.under(r#"stty rows 5; exec "$@""#, &watch, &[]);
    small.set_size(80, 5);
    let is_cut = |shown: &str| shown.starts_with("NO ") && shown.ends_with("\n… and 4 more");
    let first = small.wait_until("what fits", |watch| is_cut(&watch.shown()));
    small.wait_until("drawn again", |watch| {
        is_cut(&watch.shown()) && watch.shown() != first
    });
    once(&mut small, "NAME");
    small.press("\x03");
    ends_well(&mut small);
    bob.say("cancel 1 2 3 4 5 6");
    whole.wait_until("over", |watch| {
        watch.shown() == "Nothing is being downloaded."
    });
    ends_well(&mut whole);
}

/// Shows: row 15, with a line of wide characters that is wrapped in 20 columns.
#[test]
fn row_15_a_wide_line_in_20_columns_stays_whole() {
    let world = World::new(&["big.bin"]);
    let mut bob = world.bob();
    bob.set_width(20);
    bob.type_line("get big.bin");
    bob.wait_until("in progress", |bob| progress(bob).is_some());
    world.group.file("s.txt", 10, 1);
    bob.type_line("add s.txt");
    bob.press("search 名前👍名前é名前");
    let end = "P2P> search 名前👍名\n前é名前";
    bob.wait_until("shared, and the line whole", |bob| {
        let shown = bob.shown();
        shown.contains("Sharing s.txt") && shown.ends_with(end)
    });
    bob.read_for(Duration::from_millis(600));
    assert!(bob.shown().ends_with(end), "{}", bob.shown());
    assert_eq!(progress(&bob).unwrap().1, 2);
    // A hint that does not fit is left out.
    bob.press("\x15download ");
    bob.read_for(Duration::from_millis(300));
    assert!(bob.shown().ends_with("\nP2P> download"), "{}", bob.shown());
}

#[test]
fn lines_are_found_again_at_the_next_start_and_kept_for_the_owner_alone() {
    let world = World::new(&[]);
    let secret = "zebra castle window river planet sugar";
    let mut bob = world.bob();
    for line in ["id", "lap", secret, " search hidden", "lap", "ls"] {
        bob.type_line(line);
        bob.wait_until("answered", |bob| bob.shown().ends_with("\nP2P>"));
    }
    // While earlier lines are searched, a message waits for the next key, and is not lost.
    world.group.file("s.txt", 10, 1);
    bob.press(" add s.txt\r\x12a");
    bob.wait_end("(reverse-i-search)`a': lap");
    bob.read_for(Duration::from_millis(300));
    bob.press("\x07");
    let shown = bob.wait_end("P2P>");
    assert_eq!(shown.matches("Sharing s.txt").count(), 1, "{shown}");
    bob.press("\x04");
    ends_well(&mut bob);
    let file = world.group.path("bob").join("peer/history");
    assert_eq!(fs::read_to_string(&file).unwrap(), "id\nlap\nls\n");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut bob = world.bob();
    bob.press("\x12a");
    bob.wait_end("(reverse-i-search)`a': lap");
    bob.press("\r");
    bob.wait_until("answered", |bob| bob.shown().contains("USER"));
    bob.press("\x1b[A\x1b[A");
    bob.wait_end("P2P> ls");
    bob.type_line("\x15quit");
    ends_well(&mut bob);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let bob = world.bob();
    assert!(
        bob.shown().contains("what you type is not kept"),
        "{}",
        bob.shown()
    );
}

/// Shows: rows 13 and 71, for names of others at the completion.
#[test]
fn completion_lists_above_the_line_and_never_writes_a_foreign_name_raw() {
    let trap = "trap\u{202e}gpj.exe";
    let world = World::new(&["My talk 1.mp4", "My talk 2.mp4", trap]);
    let mut bob = world.bob();
    bob.press("fil\t");
    bob.wait_end("P2P> files [--sort] [--long]");
    bob.press("\r");
    bob.wait_until("listed", |bob| bob.shown().ends_with("\nP2P>"));
    bob.press("get my\t");
    bob.wait_end(r"P2P> get My\ talk\");
    bob.press("\t");
    bob.wait_end("\nMy talk 1.mp4  My talk 2.mp4\nP2P> get My\\ talk\\");
    bob.press("2\t");
    bob.wait_end(r"P2P> get My\ talk\ 2.mp4");
    // In a line of two rows the list leaves both as they are.
    let many = "x".repeat(80);
    bob.press(&format!("\x15get {many} 'My \t"));
    let end = format!("P2P> get {}\n{} 'My talk", &many[..71], &many[71..]);
    bob.wait_end(&end);
    bob.press("\t");
    bob.wait_end(&format!("My talk 1.mp4  My talk 2.mp4\n{end}"));
    bob.press("\x15get tr\t");
    bob.wait_until("the id", |bob| {
        bob.shown()
            .lines()
            .last()
            .is_some_and(|row| row.starts_with("P2P> get b3:"))
    });
    bob.press("\x15get \t");
    bob.wait_until("all", |bob| bob.shown().contains(r"trap\u{202e}gpj.exe"));
    assert!(!bob.screen.contains('\u{202e}'));
    // Own files by path, with a blank and from home.
    world.group.file("my shares/one.txt", 10, 1);
    bob.press("\x15add ~/my\t");
    bob.wait_end(r"P2P> add ~/my\ shares/");
    bob.press("\t\r");
    bob.wait_until("shared", |bob| bob.shown().contains("Sharing one.txt"));
    bob.type_line("quit");
    ends_well(&mut bob);
}

/// Shows: row 14.
#[test]
fn row_14_a_paste_of_many_lines_runs_on_enter_only() {
    let world = World::new(&[]);
    let mut bob = world.bob();
    bob.paste("id\nlap\nsearch \u{9b}31m\x07\u{202e}nothing");
    bob.wait_end("P2P> id\nlap\nsearch 31mnothing");
    bob.read_for(Duration::from_millis(300));
    assert!(
        !bob.shown().contains("tracker  ") && !bob.screen.contains(['\u{9b}', '\u{7}', '\u{202e}'])
    );
    bob.press("\r");
    let shown = bob.wait_until("all run", |bob| {
        bob.shown().ends_with("\nP2P>") && bob.shown().contains("nothing matches")
    });
    let at = |text| {
        shown
            .find(text)
            .unwrap_or_else(|| panic!("{text}:\n{shown}"))
    };
    assert!(at("tracker  ") < at("USER") && at("USER") < at("nothing matches"));
    assert!(bob.has_paste_marks());
    // Typed ahead, while a command runs: nothing is lost and nothing runs twice.
    bob.press("lap\rid\rsearch x");
    bob.wait_until("all run", |bob| {
        bob.shown().ends_with("\nP2P> search x") && bob.shown().matches("tracker  ").count() == 2
    });
    assert_eq!(bob.shown().matches("USER").count(), 2);
}

#[test]
fn ctrl_l_leaves_the_line_and_its_progress() {
    let world = World::new(&["big.bin"]);
    let mut bob = world.bob();
    bob.type_line("get big.bin");
    bob.wait_until("in progress", |bob| progress(bob).is_some());
    bob.press("half\x0c");
    bob.wait_until("alone", |bob| {
        let shown = bob.shown();
        shown.starts_with("↓ big.bin")
            && shown.ends_with("\nP2P> half")
            && shown.lines().count() == 2
    });
    bob.read_for(Duration::from_millis(600));
    assert_eq!(bob.shown().lines().count(), 2, "{}", bob.shown());
}

#[test]
fn a_dumb_terminal_gets_no_escapes() {
    let world = World::new(&["big.bin"]);
    let mut bob = world.bob_in(&[("TERM", "dumb")]);
    bob.type_line("get big.bin");
    bob.wait_for("↓ big.bin");
    bob.type_line("id");
    bob.wait_for("tracker  ");
    bob.type_line("cancel 1");
    bob.wait_for("Cancelled");
    assert!(!bob.has_paste_marks());
    bob.wait_for("P2P> ");
    bob.type_line("quit");
    bob.process.wait().unwrap();
    let record = bob.record();
    assert!(
        !record.contains('\u{1b}') && !bob.screen.contains('\u{1b}'),
        "{record}"
    );
    assert!(
        record.lines().filter(|row| row.starts_with('↓')).count() < 4,
        "{record}"
    );
}

#[test]
fn hints_are_dimmed_and_left_out_without_colour() {
    let world = World::new(&[]);
    let mut bob = world.bob();
    bob.press("cancel ");
    bob.wait_end("P2P> cancel NO…");
    assert!(bob.has_dimmed());
    assert_eq!(bob.cursor().1, 12);
    bob.press("1\r");
    bob.wait_until("refused", |bob| {
        bob.shown().contains("there is no download 1")
    });
    assert!(bob.shown().contains("P2P> cancel 1\n"));
    bob.type_line("quit");
    ends_well(&mut bob);
    let mut bob = world.bob_in(&[("NO_COLOR", "1"), ("P2PFS_LOG", "rustyline=trace")]);
    bob.press("cancel ");
    bob.wait_end("P2P> cancel");
    bob.read_for(Duration::from_millis(300));
    assert!(bob.shown().ends_with("P2P> cancel"), "{}", bob.shown());
    assert!(!bob.has_dimmed() && !bob.record().contains("layout"));
}

/// Shows: row 12. However it ends, the terminal is as it was.
#[test]
fn row_12_the_terminal_is_restored_whatever_ends_the_program() {
    let world = World::new(&[]);
    let mut bob = world.bob();
    assert!(!bob.changed_modes().is_empty());
    bob.press("half typed\x03");
    bob.wait_end("\nP2P>");
    bob.press("\x03");
    ends_well(&mut bob);
    let mut bob = world.bob();
    bob.press("\x04");
    ends_well(&mut bob);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut bob = world.bob();
        let half = "x".repeat(100);
        bob.press(&half);
        bob.wait_end(&format!("P2P> {}\n{}", &half[..75], &half[75..]));
        bob.process.signal(signal).unwrap();
        ends_well(&mut bob);
        assert_eq!(
            bob.cursor().1,
            0,
            "{signal:?}: a shell's prompt begins a line"
        );
    }
}

#[test]
fn a_lone_escape_holds_nothing_up_and_bytes_that_are_no_text_end_nothing() {
    let world = World::new(&[]);
    let mut bob = world.bob();
    world.group.file("s.txt", 10, 1);
    bob.press("add s.txt\rhalf\x1b");
    bob.wait_until("shared", |bob| {
        let shown = bob.shown();
        shown.contains("Sharing s.txt") && shown.ends_with("\nP2P> half")
    });
    bob.press_bytes(b"\xff");
    bob.wait_until("told", |bob| {
        let shown = bob.shown();
        shown.contains("no UTF-8 text") && shown.ends_with("\nP2P>")
    });
    bob.type_line("quit");
    ends_well(&mut bob);
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_goes_on_with_the_line() {
    let world = World::new(&[]);
    let script = r#"set -m; "$@"; echo STOPPED; read line; echo "GOT $line"; fg; echo OVER"#;
    let mut bob = world.bob_under(script, &[]);
    bob.wait_end("P2P>");
    let half = format!("search {}", "y".repeat(90));
    let end = format!("P2P> {}\n{}", &half[..75], &half[75..]);
    bob.press(&half);
    bob.wait_end(&end);
    bob.press("\x1a");
    bob.wait_end("STOPPED");
    assert!(bob.changed_modes().is_empty(), "{:?}", bob.changed_modes());
    // Read by the shell, with the terminal's own line editing.
    bob.type_line("hello");
    let shown = bob.wait_until("going on", |bob| {
        bob.shown().contains("GOT hello") && bob.shown().ends_with(&end)
    });
    assert_eq!(shown.matches("P2P> search").count(), 2, "{shown}");
    // What the shell said in between is still there, the command that goes on above all.
    let between = shown.split("GOT hello\n").nth(1).unwrap();
    assert!(!between.starts_with("P2P>"), "{shown}");
    bob.press("z");
    bob.wait_end(&format!("{end}z"));
    bob.type_line("\x15quit");
    bob.wait_end("OVER");
}

#[test]
fn results_in_a_file_are_results_alone() {
    let world = World::new(&["big.bin"]);
    let mut bob = world.bob_under(r#"exec "$@" > list.txt"#, &[]);
    bob.wait_end("P2P>");
    bob.type_line("all_files");
    bob.wait_until("answered", |bob| bob.shown().matches("P2P>").count() == 2);
    bob.type_line("quit");
    ends_well(&mut bob);
    let list = fs::read_to_string(world.group.path("list.txt")).unwrap();
    assert!(
        list.starts_with("Joined ") && list.contains("big.bin"),
        "{list}"
    );
    assert!(!list.contains("P2P>") && !list.contains('\u{1b}'), "{list}");
    assert!(!bob.shown().contains("big.bin"), "{}", bob.shown());
}

/// Not a test of its own: what the next one runs at a terminal.
#[test]
#[ignore = "run by the test below"]
fn child_that_panics() {
    if std::env::var_os("P2PFS_TEST_CHILD").is_some() {
        p2pfs::cli::modes::keep();
        let _restoring = p2pfs::cli::modes::Restoring;
        p2pfs::cli::modes::quieten();
        panic!("on purpose");
    }
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was() {
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"stty echo; exec "$@""#, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "terminal::child_that_panics"])
        .env("P2PFS_TEST_CHILD", "1");
    let mut child = Terminal::run(command);
    child.wait_for("\x1b[?2004h");
    child.wait_for("1 failed");
    child.process.wait().unwrap();
    assert!(
        child.changed_modes().is_empty(),
        "{:?}",
        child.changed_modes()
    );
}
