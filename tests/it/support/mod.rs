//! Starts p2pfs processes with state of their own, and waits for what they say.

pub(crate) mod failing;
pub(crate) mod member;
pub(crate) mod memory;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod schema;
pub(crate) mod scrape;
pub(crate) mod terminal;

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const PASSPHRASE: &str = "zebra abandon stable horse battle zoo";
/// Long enough for a busy machine; what is waited for usually comes at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A group on this machine: one passphrase, one folder for all its processes.
pub(crate) struct Group {
    pub(crate) dir: tempfile::TempDir,
}

impl Group {
    pub(crate) fn new() -> Self {
        let group = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        group.write_private("passphrase", PASSPHRASE);
        group
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write_private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A folder of this name, empty.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A file with bytes that only `seed` and `len` determine.
    pub(crate) fn file(&self, name: &str, len: u64, seed: u8) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut reader = blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof();
        let mut file = File::create(&path).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut left = len;
        while left > 0 {
            let part = usize::try_from(left.min(1 << 20)).unwrap();
            reader.fill(&mut buffer[..part]);
            file.write_all(&buffer[..part]).unwrap();
            left -= part as u64;
        }
        path
    }

    /// p2pfs with nothing of this machine's user in its environment.
    pub(crate) fn command(&self, state: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2pfs"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("USER", "tester")
            .env("P2PFS_PASSPHRASE_FILE", self.path("passphrase"))
            .env("P2PFS_STATE_DIR", self.path(state))
            .current_dir(self.dir.path());
        command
    }

    /// The same, run by another program: `wrapper`, which gets p2pfs and its arguments behind its own.
    pub(crate) fn command_under(&self, state: &str, wrapper: &[&str]) -> Command {
        let plain = self.command(state);
        let mut command = Command::new(wrapper[0]);
        command
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .current_dir(self.dir.path())
            .args(&wrapper[1..])
            .arg(plain.get_program());
        command
    }

    pub(crate) fn start(&self, state: &str, args: &[&str]) -> Process {
        let mut command = self.command(state);
        command.args(args);
        self.spawn(state, command)
    }

    pub(crate) fn spawn(&self, state: &str, mut command: Command) -> Process {
        let log = self.path(&format!("{state}.log"));
        let (out, err) = (
            File::create(&log).unwrap(),
            File::options().append(true).open(&log).unwrap(),
        );
        // Both ends append, so that neither overwrites the other.
        drop(out);
        let child = command
            .stdin(Stdio::piped())
            .stdout(err.try_clone().unwrap())
            .stderr(err)
            .spawn()
            .unwrap();
        Process {
            child,
            log,
            read: 0,
            stdin: None,
        }
        .with_stdin()
    }

    /// A tracker on a port that it chooses; the process and `127.0.0.1:PORT`.
    pub(crate) fn tracker(&self) -> (Process, String) {
        self.tracker_on(0)
    }

    pub(crate) fn tracker_on(&self, port: u16) -> (Process, String) {
        let port = port.to_string();
        let mut tracker = self.start(
            "tracker",
            &["tracker", "--bind", "127.0.0.1", "--port", &port],
        );
        let line = tracker.wait_for("Tracker listening on ");
        let address = line
            .split_once(" on ")
            .unwrap()
            .1
            .split(',')
            .next()
            .unwrap()
            .to_owned();
        (tracker, address)
    }

    /// A peer that reads commands from a pipe and downloads into a folder of its name.
    pub(crate) fn peer(&self, name: &str, tracker: &str, more: &[&str]) -> Process {
        let out = self.folder(name);
        let args = [&["peer"][..], &joining(tracker, name, &out), more].concat();
        let mut peer = self.start(&format!("{name}.state"), &args);
        peer.wait_for("Joined ");
        peer
    }

    /// The same, with these files or folders, which it shares by now.
    pub(crate) fn sharer(
        &self,
        name: &str,
        tracker: &str,
        paths: &[&Path],
        more: &[&str],
    ) -> Process {
        let shares = paths
            .iter()
            .flat_map(|path| ["--share", path.to_str().unwrap()]);
        let args: Vec<_> = shares.chain(more.iter().copied()).collect();
        let mut peer = self.peer(name, tracker, &args);
        for _ in paths {
            peer.wait_for("Sharing");
        }
        peer
    }

    /// A command that the running peer of `name` carries out, to its end.
    pub(crate) fn through(&self, name: &str, args: &[&str]) -> Output {
        let mut command = self.command(&format!("{name}.state"));
        command.env("P2PFS_OUT", self.path(name));
        command.args(args).stdin(Stdio::null()).output().unwrap()
    }

    /// The objects of such a command, which has to succeed.
    pub(crate) fn objects(&self, name: &str, args: &[&str]) -> Vec<serde_json::Value> {
        let output = self.through(name, &[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        let lines = text(&output.stdout);
        let objects = lines.lines();
        objects
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A one-shot command, to its end.
    pub(crate) fn once(&self, tracker: &str, args: &[&str]) -> Output {
        let (command, rest) = args.split_first().unwrap();
        let join = [
            "--tracker",
            tracker,
            "--port",
            "0",
            "--bind",
            "127.0.0.1",
            "--name",
            "once",
        ];
        let args = [&[*command], &join[..], rest].concat();
        self.command("once")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

/// A running p2pfs; killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    log: PathBuf,
    read: u64,
    stdin: Option<ChildStdin>,
}

impl Process {
    fn with_stdin(mut self) -> Self {
        self.stdin = self.child.stdin.take();
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types a line.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Ends its input.
    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Everything that it has said so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// The next line that holds `text`, after those that were waited for before.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.next_line_with(text) {
                return line;
            }
            let is_over = self.child.try_wait().unwrap().is_some();
            assert!(
                Instant::now() < deadline && !(is_over && self.next_line_with(text).is_none()),
                "no \"{text}\" in:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn next_line_with(&mut self, text: &str) -> Option<String> {
        let mut file = File::open(&self.log).unwrap();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let mut start = 0;
        while let Some(len) = bytes[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[start..start + len]).into_owned();
            start += len + 1;
            if line.contains(text) {
                self.read += start as u64;
                return Some(line);
            }
        }
        None
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its exit code, when it ends within `limit`.
    pub(crate) fn exit_within(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Bytes that it has written so far, to files and connections.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.moved_bytes("wchar")
    }

    /// Bytes that it has read so far, from files and connections.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.moved_bytes("rchar")
    }

    fn moved_bytes(&self, kind: &str) -> u64 {
        let counts = fs::read_to_string(format!("/proc/{}/io", self.pid())).unwrap();
        let line = counts.lines().find(|line| line.starts_with(kind)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Forgets the peak of its memory so far.
    pub(crate) fn reset_peak(&self) {
        reset_peak(self.pid());
    }

    /// Peak of its resident memory since, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        peak_kib(self.pid())
    }
}

/// Forgets the peak of a process's memory so far.
pub(crate) fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// Peak of the resident memory of a process since, in KiB.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How `name` joins the tracker at `address`, and downloads into `out`.
pub(crate) fn joining<'a>(address: &'a str, name: &'a str, out: &'a Path) -> Vec<&'a str> {
    let mut args = vec!["--tracker", address, "--port", "0", "--bind", "127.0.0.1"];
    args.extend(["--name", name, "--out", out.to_str().unwrap()]);
    args
}

/// The same for one who shares nothing of what it downloads.
pub(crate) fn only_fetching<'a>(address: &'a str, name: &'a str, out: &'a Path) -> Vec<&'a str> {
    let mut args = joining(address, name, out);
    args.push("--no-seed");
    args
}

/// Asserts that two files are equal, and not empty unless `len` is 0.
pub(crate) fn assert_same(one: &Path, two: &Path, len: u64) {
    assert_eq!(fs::metadata(one).unwrap().len(), len);
    assert_eq!(
        hash(one),
        hash(two),
        "{} and {}",
        one.display(),
        two.display()
    );
}

/// BLAKE3 of a file, read in parts.
pub(crate) fn hash(path: &Path) -> blake3::Hash {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let len = file.metadata().unwrap().len();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let part = usize::try_from((len - at).min(1 << 20)).unwrap();
        file.read_exact_at(&mut buffer[..part], at).unwrap();
        hasher.update(&buffer[..part]);
        at += part as u64;
    }
    hasher.finalize()
}

/// Waits until `is_so`, or fails with `what`.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Names in a folder, hidden ones too, sorted.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A tool that a test needs; the error says how to get it.
pub(crate) fn need(tool: &str) {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(tool).exists());
    assert!(found, "{tool} is missing: run scripts/install-test-needs");
}
