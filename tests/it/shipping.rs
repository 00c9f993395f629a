//! What a package holds beside the program, and what systemd and the program tell each other.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use p2pfs::cli::args::Cli;
use rustix::process::Signal;

use crate::support::{Group, PASSPHRASE, PATIENCE, names_in, text};

fn packaged(name: &str) -> String {
    let path = format!("{}/packaging/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn completions_are_scripts_and_bash_completes_with_them() {
    let group = Group::new();
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef p2pfs"),
        ("fish", "complete -c p2pfs"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let made = group.command("s").args(["completions", shell]).output();
        let made = made.unwrap();
        let script = text(&made.stdout);
        assert!(made.status.success() && script.contains(word), "{script}");
        assert!(
            !script.contains("topic"),
            "what is hidden stays so: {shell}"
        );
        fs::write(group.path(shell), made.stdout).unwrap();
    }
    let complete = |words: &[&str]| {
        let script = r#"source ./bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _p2pfs p2pfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", script, "bash"])
            .args(words)
            .current_dir(group.dir.path());
        text(&bash.output().unwrap().stdout)
    };
    assert_eq!(complete(&["p2pfs", "trac"]), "tracker\n");
    assert!(complete(&["p2pfs", "get", "--trac"]).contains("--tracker\n"));
    assert_eq!(complete(&["p2pfs", "user", "pass"]), "passwd\n");
}

#[test]
fn there_is_a_page_of_the_manual_for_each_command() {
    let group = Group::new();
    let dir = group.folder("man");
    for _ in 0..2 {
        let made = group.command("s").args(["man", "man"]).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    let pages = names_in(&dir);
    for page in [
        "p2pfs.1",
        "p2pfs-tracker.1",
        "p2pfs-get.1",
        "p2pfs-user-add.1",
    ] {
        assert!(pages.contains(&page.to_owned()), "{page} of {pages:?}");
    }
    assert!(pages.len() >= 20 && !pages.contains(&"p2pfs-topic.1".to_owned()));
    for page in &pages {
        let written = fs::read_to_string(dir.join(page)).unwrap();
        assert!(
            written.contains(".TH") && written.contains(".SH NAME"),
            "{page}"
        );
        assert!(!written.contains('\u{1b}'), "{page}");
        let mode = fs::metadata(dir.join(page)).unwrap().mode() & 0o777;
        assert_eq!(mode & 0o444, 0o444, "{mode:o}");
    }
    let whole = fs::read_to_string(dir.join("p2pfs.1")).unwrap();
    assert!(
        whole.contains("Configuration file"),
        "of what -h leaves out"
    );
    for section in ["EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "SECURITY"] {
        assert!(whole.contains(section), "{section}");
    }
    let output = group.command("s").args(["man", "nowhere"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(8));
    assert!(text(&output.stderr).starts_with("p2pfs: cannot write nowhere/p2pfs"));
}

#[test]
fn systemd_is_told_of_the_start_and_of_the_end_and_gives_the_passphrase() {
    let group = Group::new();
    let credentials = group.folder("credentials");
    group.write_private("credentials/passphrase", PASSPHRASE);
    // Its own way to let the service's user read it and nobody else.
    let rights = fs::Permissions::from_mode(0o440);
    fs::set_permissions(credentials.join("passphrase"), rights).unwrap();
    let socket = UnixDatagram::bind(group.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut address, mut running) = (String::new(), Vec::new());
    let heard = |word: &str| {
        let mut bytes = [0; 4096];
        let len = socket.recv(&mut bytes).unwrap();
        let told = text(&bytes[..len]);
        assert!(told.contains(word), "{told}");
        told
    };
    for unit in ["p2pfs-tracker.service", "p2pfs-peer.service"] {
        // As the unit starts it, but for its places.
        let unit = packaged(unit);
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="));
        let line = line
            .unwrap()
            .replace("%S", group.dir.path().to_str().unwrap());
        let words = shell_words::split(&line).unwrap();
        assert!(
            Cli::read(words.iter().map(Into::into).collect()).is_ok(),
            "{line}"
        );
        group.folder("p2pfs-peer/files");
        let role = words[1].clone();
        let mut command = group.command(&role);
        command
            .args(&words[1..])
            .env_remove("P2PFS_PASSPHRASE_FILE")
            .env("CREDENTIALS_DIRECTORY", &credentials)
            .env("NOTIFY_SOCKET", group.path("notify"))
            .env("P2PFS_PORT", "0")
            .env("P2PFS_BIND", "127.0.0.1")
            .env("P2PFS_TRACKER", &address);
        let mut process = group.spawn(&role, command);
        let told = heard("READY=1");
        assert!(told.contains("STATUS="), "{told}");
        if role == "tracker" {
            let line = process.wait_for("listening on");
            address = line.split([' ', ',']).nth(3).unwrap().to_owned();
        } else {
            process.wait_for("Sharing files/");
        }
        assert!(!process.output().contains("can be read by others"));
        running.push(process);
    }
    // The peer first: it says goodbye to the tracker.
    while let Some(mut process) = running.pop() {
        process.signal(Signal::TERM);
        heard("STOPPING=1");
        assert_eq!(process.exit_within(Duration::from_secs(10)), Some(0));
    }
}

#[test]
fn the_units_lock_everything_that_the_program_does_not_need() {
    for unit in ["p2pfs-tracker.service", "p2pfs-peer.service"] {
        let unit = packaged(unit);
        for line in [
            "Type=notify",
            "LoadCredential=passphrase:/etc/p2pfs/passphrase",
            "DynamicUser=yes",
            "CapabilityBoundingSet=",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "SystemCallFilter=@system-service",
            "LimitCORE=0",
            "UMask=0077",
        ] {
            assert!(unit.lines().any(|it| it == line), "{line}");
        }
        assert!(!unit.contains("PASSPHRASE="), "no secret in an environment");
    }
    let image = packaged("Dockerfile");
    assert!(image.contains("FROM scratch") && image.contains("USER 65532"));
}

/// Shows: the image is built from all that the program takes in. How: each file that the source includes lies in
/// something that the Dockerfile copies.
#[test]
fn the_image_is_built_from_all_that_the_program_takes_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let image = packaged("Dockerfile");
    let copied: Vec<_> = image
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|line| !line.starts_with("--"))
        .flat_map(|line| line.split(' ').rev().skip(1))
        .map(|name| root.join(name))
        .collect();
    let mut included = 0;
    let mut left = vec![root.join("src")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let program = text.split("#[cfg(test)]").next().unwrap();
        for part in program.split("include_str!(\"").skip(1) {
            let name = part.split('"').next().unwrap();
            let file = path.parent().unwrap().join(name).canonicalize().unwrap();
            // What only a test takes in is none of the program.
            if file.starts_with(root.join("tests")) {
                continue;
            }
            assert!(
                copied.iter().any(|dir| file.starts_with(dir)),
                "{} is not copied",
                file.display()
            );
            included += 1;
        }
    }
    assert!(included > 0 && copied.len() > 3, "{copied:?}");
}
