//! Users with passwords: the file, the command that keeps it, logins at a terminal and in scripts, and what
//! happens to those who are logged in when the file changes.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use p2pfs::crypto::password::PasswordHash;
use p2pfs::crypto::random::OsRandom;
use p2pfs::wire::password::Password;

use crate::support::scrape::{count, metrics_of};
use crate::support::terminal::Terminal;
use crate::support::{Group, PASSPHRASE, Process, assert_same, text, wait_until};

mod load;

/// How soon a login that is void must have ended.
const OUT: Duration = Duration::from_secs(5);

fn hash(password: &str) -> String {
    let password = Password::parse(password).unwrap();
    PasswordHash::new(&password, &mut OsRandom::new())
        .as_str()
        .to_owned()
}

/// A credentials file with these users and passwords.
fn users(group: &Group, users: &[(&str, &str)]) -> PathBuf {
    let lines = users
        .iter()
        .map(|(user, password)| format!("{user}:{}\n", hash(password)));
    group.write_private("users", &lines.collect::<String>())
}

/// A tracker with these users that counts hashes; the process and its address.
fn tracker(group: &Group, credentials: &Path, port: &str) -> (Process, String) {
    let mut command = group.command("tracker");
    command
        .args([
            "tracker",
            "--bind",
            "127.0.0.1",
            "--port",
            port,
            "--metrics",
            "0",
            "--credentials",
        ])
        .arg(credentials)
        .env("P2PFS_LOG", "p2pfs=debug");
    let mut tracker = group.spawn("tracker", command);
    let line = tracker.wait_for("Tracker listening on ");
    let address = line.split(" on ").nth(1).unwrap();
    let address = address.split(',').next().unwrap().to_owned();
    tracker.wait_for("Metrics at ");
    (tracker, address)
}

fn hashes(tracker: &Process) -> usize {
    count(metrics_of(tracker), "p2pfs_tracker_password_checks_total")
}

/// `p2pfs user …` with a password on its standard input.
fn user(group: &Group, args: &[&str], password: Option<&str>) -> Output {
    let mut command = group.command("admin");
    command.arg("user").args(args);
    if password.is_some() {
        command.args(["--password-file", "-"]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(format!("{}\n", password.unwrap_or_default()).as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A peer that logs in with a password file and shares until it is ended.
fn member(group: &Group, name: &str, password: &str, tracker: &str, more: &[&str]) -> Process {
    let file = group.write_private(&format!("{name}.password"), password);
    let login = ["--login", name, "--password-file", file.to_str().unwrap()];
    group.peer(name, tracker, &[&login, more].concat())
}

fn at_terminal(group: &Group, name: &str, tracker: &str) -> Terminal {
    let out = group.folder(&format!("{name}.out"));
    let args = [
        "peer",
        "--tracker",
        tracker,
        "--bind",
        "127.0.0.1",
        "--port",
        "0",
    ];
    let more = ["--name", name, "--out", out.to_str().unwrap()];
    let mut peer = Terminal::start(
        group,
        &format!("{name}.state"),
        &[&args[..], &more].concat(),
    );
    peer.wait_for("Passphrase");
    peer.type_line(PASSPHRASE);
    peer
}

#[test]
fn peer_connect_fs_with_three_users_line_by_line() {
    let group = Group::new();
    let credentials = users(
        &group,
        &[
            ("hans", "h-secret"),
            ("yoda", "y-secret"),
            ("vader", "v-secret"),
        ],
    );
    let (_tracker, address) = tracker(&group, &credentials, "0");
    let file = group.file("song.mp3", 3_000_000, 1);

    let mut yoda = at_terminal(&group, "yoda", &address);
    yoda.wait_for("User name [yoda]");
    yoda.type_line("");
    yoda.wait_for("Password");
    yoda.type_line("h-secret");
    yoda.wait_for("wrong user or password");
    yoda.wait_for("User name [yoda]");
    yoda.type_line("yoda");
    yoda.wait_for("Password");
    yoda.type_line("y-secret");
    yoda.wait_for("Logged in as yoda");
    yoda.wait_for("P2P> ");
    yoda.type_line("pub song.mp3");
    yoda.wait_for("Sharing song.mp3, 2.9 MiB, b3:");

    // Another name than the one it was started with.
    let mut hans = at_terminal(&group, "somebody", &address);
    hans.wait_for("User name [somebody]");
    hans.type_line("hans");
    hans.wait_for("Password");
    hans.type_line("h-secret");
    hans.wait_for("Logged in as hans");
    hans.wait_for("P2P> ");
    hans.type_line("lap");
    hans.wait_for("hans ");
    hans.wait_for("yoda ");
    hans.type_line("sch ONG.M");
    hans.wait_for("song.mp3   2.9 MiB");
    hans.type_line("get song.mp3");
    hans.wait_for("Download successful: song.mp3");
    assert_same(
        &group.path("somebody.out/downloaded_song.mp3"),
        &file,
        3_000_000,
    );

    // Yoda is here already, whoever knows his password.
    let mut vader = at_terminal(&group, "vader", &address);
    vader.wait_for("User name [vader]");
    vader.type_line("yoda");
    vader.wait_for("Password");
    vader.type_line("y-secret");
    let refusal = vader.wait_for("quit there first");
    assert!(
        refusal.contains("yoda is logged in since ") && refusal.contains("from 127.0.0.1"),
        "{refusal}"
    );
    let status = vader.process.wait().unwrap();
    assert!(
        matches!(status, rexpect::process::WaitStatus::Exited(_, 3)),
        "{status:?}"
    );
    for mut peer in [yoda, hans] {
        peer.type_line("xit");
        peer.process.wait().unwrap();
    }
    let log = fs::read_to_string(group.path("tracker.log")).unwrap();
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn row_17_wrong_user_and_wrong_password_are_one_text_and_one_hash() {
    let group = Group::new();
    let credentials = users(&group, &[("ana", "right")]);
    let (tracker, address) = tracker(&group, &credentials, "0");
    let mut told = Vec::new();
    for (name, password) in [("ana", "wrong"), ("nobody", "right")] {
        let file = group.write_private("password", password);
        let login = [
            "search",
            "--login",
            name,
            "--password-file",
            file.to_str().unwrap(),
            "x",
        ];
        let before = hashes(&tracker);
        let output = group.once(&address, &login);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_eq!(
            hashes(&tracker) - before,
            1,
            "{name}: one hash, whoever it is"
        );
        told.push(text(&output.stderr));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].trim(), "p2pfs: wrong user or password");

    let output = group.once(&address, &["search", "x"]);
    assert_eq!(output.status.code(), Some(3));
    let line = text(&output.stderr);
    assert!(
        line.contains("wants a user name and a password; give --login")
            && line.lines().count() == 1,
        "{line}"
    );
    let file = group.write_private("password", "wrong");
    let login = [
        "search",
        "--login",
        "ana",
        "--password-file",
        file.to_str().unwrap(),
        "x",
    ];
    let slower: Vec<_> = (0..6)
        .map(|_| text(&group.once(&address, &login).stderr))
        .collect();
    assert!(
        slower
            .iter()
            .any(|line| line.contains("too many wrong logins: wait ")),
        "{slower:?}"
    );
    assert!(
        hashes(&tracker) < 2 + 6,
        "who is told to wait costs no hash"
    );
}

#[test]
fn users_are_kept_by_a_command() {
    let group = Group::new();
    let path = group.path("users");
    let file = path.to_str().unwrap();
    let with = |args: &[&str], password| {
        let output = user(&group, &[args, &["--credentials", file]].concat(), password);
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        (output.status.code().unwrap(), told)
    };
    let (code, told) = with(&["add", "ana"], Some("hans"));
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("can be guessed") && told.contains("Added ana"),
        "{told}"
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("ana:$argon2id$v=19$m=19456,t=2,p=1$"),
        "{text}"
    );
    fs::write(&path, format!("# ours\r\n{text}# last\r\n")).unwrap();

    assert_eq!(with(&["add", "ANA"], Some("x")).0, 8, "there already");
    assert_eq!(with(&["add", "bob"], Some("tall-green-lamp")).0, 0);
    assert_eq!(with(&["verify", "ana"], Some("hans")).0, 0);
    assert_eq!(with(&["verify", "ana"], Some("Hans")).0, 3);
    assert_eq!(with(&["verify", "eve"], Some("hans")).0, 3);
    assert_eq!(with(&["passwd", "ana"], Some("new")).0, 0);
    assert_eq!(with(&["verify", "ana"], Some("hans")).0, 3);
    assert_eq!(with(&["verify", "ana"], Some("new")).0, 0);
    let (code, listed) = with(&["list"], None);
    assert_eq!(
        (code, listed.as_str()),
        (0, "ana\nbob\n"),
        "names and nothing else"
    );
    assert_eq!(with(&["remove", "bob"], None).0, 0);
    assert_eq!(with(&["remove", "bob"], None).0, 5);
    assert_eq!(with(&["passwd", "bob"], Some("x")).0, 5);
    for name in ["", "ana ", "a\u{202e}b", "a\u{1b}b", &"x".repeat(65)] {
        assert_eq!(with(&["add", name], Some("x")).0, 2, "{name:?}");
    }
    assert_eq!(with(&["add", "eve"], Some("")).0, 2, "no password");
    let output = user(&group, &["add", "eve", "--credentials", file], None);
    assert_eq!(output.status.code(), Some(2), "nobody to ask");
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("# ours\r\n") && text.ends_with("# last\r\n"),
        "{text:?}"
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, told) = with(&["add", "eve"], Some("x"));
    assert!(code == 8 && told.contains("chmod 600"), "{told}");

    let mut admin = Terminal::start(&group, "admin", &["user", "add", "zoe"]);
    admin.wait_for("New password for zoe");
    admin.type_line("one");
    admin.wait_for("The same again");
    admin.type_line("two");
    admin.wait_for("these two differ");
    for question in ["New password for zoe", "The same again"] {
        admin.wait_for(question);
        admin.type_line("tall-green-lamp-42");
    }
    let shown = admin.wait_for("Added zoe to ");
    assert!(!shown.contains("tall"), "{shown}");
    admin.process.wait().unwrap();
    assert!(
        group.path("admin/tracker/credentials").is_file(),
        "the usual place"
    );
}

#[test]
fn row_20_a_file_of_users_that_is_not_right_is_a_line() {
    let group = Group::new();
    let path = group.path("users");
    let start = || {
        let port = ["--bind", "127.0.0.1", "--port", "0"];
        let mut command = group.command("tracker");
        command
            .arg("tracker")
            .args(port)
            .arg("--credentials")
            .arg(&path);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let told = text(&output.stderr);
        assert_eq!(told.lines().count(), 1, "{told}");
        (output.status.code().unwrap(), told)
    };
    let (code, told) = start();
    assert!(
        code == 8 && told.contains("there is no ") && told.contains("p2pfs user add"),
        "{told}"
    );
    group.write_private("users", "");
    let (code, told) = start();
    assert!(code == 8 && told.contains("has no user"), "{told}");
    fs::write(&path, format!("ana:{}\n", hash("x"))).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, told) = start();
    assert!(code == 8 && told.contains("chmod 600"), "{told}");

    let good = format!("\u{feff}ana:{}\r\n\r\n# no more\r\n", hash("x"));
    group.write_private("users", &format!("{good}broken\r\nANA:{}\r\n", hash("y")));
    let (mut tracker, address) = tracker(&group, &path, "0");
    tracker.signal(rustix::process::Signal::HUP);
    for line in [4, 5] {
        tracker.wait_for(&format!("users:{line}: skipped"));
    }
    let _ana = member(&group, "ana", "x", &address, &[]);
    // Broken versions, one after the other: the old users stay, and each is one line.
    let versions: [(&str, u32, &str); 2] = [
        ("garbage", 0o600, "has no user whose line is right"),
        (&good, 0o640, "can be read by others"),
    ];
    for (text, mode, told) in versions {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        tracker.wait_for(told);
    }
    std::thread::sleep(Duration::from_millis(2500));
    let count = |told: &str| tracker.output().matches(told).count();
    assert!(count("can be read by others") <= 2 && count("the users of before stay") <= 5);
    assert!(!tracker.output().contains("login is void"));
    assert_eq!(
        user(
            &group,
            &["list", "--credentials", path.to_str().unwrap()],
            None
        )
        .status
        .code(),
        Some(8)
    );
}

#[test]
fn row_22_a_changed_password_and_a_removed_user_end_a_login() {
    let group = Group::new();
    let credentials = users(
        &group,
        &[("ana", "a-old"), ("bob", "b-old"), ("eva", "e-old")],
    );
    let file = credentials.to_str().unwrap();
    let (tracker, address) = tracker(&group, &credentials, "0");
    group.file("a.txt", 1000, 1);
    let mut eva = member(
        &group,
        "eva",
        "e-old",
        &address,
        &["--share", "a.txt", "--no-prompt"],
    );
    let mut bob = member(&group, "bob", "b-old", &address, &["--no-prompt"]);
    let mut ana = at_terminal(&group, "ana", &address);
    ana.wait_for("User name");
    ana.type_line("");
    ana.wait_for("Password");
    ana.type_line("a-old");
    ana.wait_for("P2P> ");
    assert_eq!(hashes(&tracker), 3);

    let with = |args: &[&str], password| {
        let output = user(&group, &[args, &["--credentials", file]].concat(), password);
        assert!(output.status.success(), "{output:?}");
    };
    with(&["remove", "bob"], None);
    assert_eq!(bob.exit_within(OUT), Some(3), "{}", bob.output());
    let told = bob.output();
    assert_eq!(
        told.matches("the tracker ended this login").count(),
        1,
        "{told}"
    );

    ana.type_line("lap");
    ana.wait_for("eva ");
    with(&["passwd", "ana"], Some("a-new"));
    let began = Instant::now();
    ana.wait_for("the tracker ended this login");
    assert!(began.elapsed() < OUT);
    ana.wait_for("press Enter to log in again");
    ana.type_line("");
    ana.wait_for("Password (Enter alone: later): ");
    ana.type_line("a-old");
    ana.wait_for("wrong user or password");
    ana.wait_for("Password (Enter alone: later): ");
    ana.type_line("");
    ana.wait_for("type login");
    ana.type_line("lap");
    ana.wait_for("wants a login first");
    ana.type_line("login");
    ana.wait_for("Password (Enter alone: later): ");
    ana.type_line("a-new");
    ana.wait_for("Logged in again");
    ana.type_line("get a.txt");
    ana.wait_for("Download successful: a.txt");
    assert!(!eva.output().contains("ended this login"), "others stay");
    assert_eq!(eva.exit_within(Duration::from_millis(10)), None);
    ana.type_line("quit");
    ana.process.wait().unwrap();

    // The last user: nobody is left who could log in, until there is one again.
    with(&["remove", "ana"], None);
    with(&["remove", "eva"], None);
    assert_eq!(eva.exit_within(OUT), Some(3), "{}", eva.output());
    let password = group.path("eva.password");
    let login = [
        "search",
        "--login",
        "eva",
        "--password-file",
        password.to_str().unwrap(),
        "x",
    ];
    let nobody = group.once(&address, &login);
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
    assert_eq!(text(&nobody.stderr), "p2pfs: wrong user or password\n");
    let read = || tracker.output().matches("credentials read again").count();
    let before = read();
    with(&["add", "eva"], Some("e-old"));
    wait_until("eva is a user again", || read() > before);
    let again = group.once(&address, &login);
    assert!(!text(&again.stderr).contains("wrong"), "{again:?}");
    assert_ne!(again.status.code(), Some(3), "{again:?}");
}

#[test]
fn row_18_the_same_identity_takes_over_its_own_session() {
    let group = Group::new();
    let credentials = users(&group, &[("ana", "secret")]);
    let (tracker, address) = tracker(&group, &credentials, "0");
    let mut first = member(&group, "ana", "secret", &address, &[]);
    // Another identity, while she is here.
    let file = group.path("ana.password");
    let login = [
        "search",
        "--login",
        "ana",
        "--password-file",
        file.to_str().unwrap(),
        "x",
    ];
    let output = group.once(&address, &login);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        told.contains("ana is logged in since ") && told.contains("from 127.0.0.1"),
        "{told}"
    );
    assert!(!told.contains("--name"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    // Her own, after a crash: at once.
    first.kill();
    let second = member(&group, "ana", "secret", &address, &[]);
    assert!(second.output().contains("Joined"));
    assert_eq!(hashes(&tracker), 3);
}

#[test]
fn a_restarted_tracker_has_users_back_without_a_question_or_a_hash() {
    let group = Group::new();
    let credentials = users(&group, &[("ana", "secret"), ("bob", "secret")]);
    let (mut first, address) = tracker(&group, &credentials, "0");
    let mut ana = member(&group, "ana", "secret", &address, &[]);
    let mut bob = member(&group, "bob", "secret", &address, &["--no-prompt"]);
    let port = address.rsplit(':').next().unwrap();
    first.kill();
    // What changes meanwhile voids tickets all the same.
    let output = user(
        &group,
        &[
            "passwd",
            "bob",
            "--credentials",
            credentials.to_str().unwrap(),
        ],
        Some("new"),
    );
    assert!(output.status.success());
    let (second, _) = tracker(&group, &credentials, port);
    wait_until("ana is back", || {
        second.output().contains("peer is back user=ana")
    });
    ana.say("lap");
    ana.wait_for("ana");
    assert_eq!(
        bob.exit_within(Duration::from_secs(20)),
        Some(3),
        "{}",
        bob.output()
    );
    assert!(hashes(&second) <= 1, "bob's old password, once");
}
