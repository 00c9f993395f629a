//! `p2pfs demo`: a tracker and two peers on this machine share a file, for everybody to see.
//!
//! They are processes of this very program in a temporary folder, started with the flags that people use,
//! on ports that they choose themselves. Nothing outside the folder is touched.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ring::digest;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exit::{Class, Failure};
use super::passphrase::{WORDS, generate};
use super::screen::Screen;
use super::{own_binary, render};
use crate::disk::write_private;
use crate::wire::text::safe;

/// Length of the file that the demo makes.
const MADE_LEN: usize = 64 << 20;
/// Each process says that it is ready within this time.
const READY_TIME: Duration = Duration::from_secs(30);

/// Runs the demo with `file`, or with one that it makes.
///
/// # Errors
/// When a step fails; the step is named.
pub async fn run(
    file: Option<PathBuf>,
    screen: &Screen,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let dir = tempfile::Builder::new()
        .prefix("p2pfs-demo-")
        .tempdir()
        .map_err(|error| local(&error))?;
    let demo = Demo {
        dir: dir.path().to_owned(),
        binary: own_binary()?,
        screen: screen.clone(),
    };
    tokio::select! {
        () = shutdown.cancelled() => Err(Failure::new(Class::Interrupted, "")),
        done = demo.run(file) => done,
    }
}

struct Demo {
    dir: PathBuf,
    binary: PathBuf,
    screen: Screen,
}

/// A process that runs until it is dropped, and what it prints.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Demo {
    async fn run(&self, file: Option<PathBuf>) -> Result<(), Failure> {
        let file = match file {
            // What is wrong with it is told here, before anything runs.
            Some(file) => std::fs::File::open(&file)
                .map(|_| file.clone())
                .map_err(|error| {
                    let file = safe(&file.to_string_lossy());
                    Failure::new(Class::Local, format!("cannot read {file}: {error}"))
                })?,
            None => self.make_file()?,
        };
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();

        self.step("One passphrase for the group, made by: p2pfs passphrase")?;
        write_private(&self.dir.join("passphrase"), generate(WORDS).as_bytes())
            .map_err(|error| local(&error))?;

        self.step("Machine 1 runs the tracker: p2pfs tracker")?;
        let mut tracker = self.start(
            "tracker",
            &[
                "tracker",
                "--port",
                "0",
                "--bind",
                "127.0.0.1",
                "--no-beacon",
            ],
        )?;
        let listening = tracker.wait_for("Tracker listening on ").await?;
        let address = listening
            .split([' ', ','])
            .next()
            .unwrap_or_default()
            .to_owned();
        self.told(&format!("Tracker listening on {listening}"))?;

        let here = ["--tracker", &address, "--port", "0", "--bind", "127.0.0.1"];
        self.step(&format!(
            "Machine 2 shares a file: p2pfs peer --tracker {address} --share {name}"
        ))?;
        let path = file.to_string_lossy();
        let share = ["--name", "ana", "--no-prompt", "--share", &path];
        let mut ana = self.start("ana", &[&["peer"], &here[..], &share].concat())?;
        let sharing = ana.wait_for("Sharing ").await?;
        self.told(&format!("Sharing {sharing}"))?;

        self.step(&format!("Machine 3 finds it: p2pfs search {name}"))?;
        let found = self
            .finish(
                "bob",
                &[&["search", "--name", "bob"], &here[..], &["--", &name]].concat(),
            )
            .await?;
        self.told(found.trim_end())?;

        self.step(&format!("… and downloads it: p2pfs get {name}"))?;
        let out = self.dir.join("downloads");
        std::fs::create_dir(&out).map_err(|error| local(&error))?;
        let to = [
            "--name",
            "bob",
            "--out",
            &out.to_string_lossy(),
            "--no-seed",
        ]
        .map(str::to_owned);
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let done = self
            .finish(
                "bob",
                &[&["get"], &to[..], &here[..], &["--", &name]].concat(),
            )
            .await?;
        self.told(done.trim_end())?;

        self.step("Both files have the same hashes")?;
        let copy = only_file_in(&out)?;
        let (original, copied) = (hashes(&file)?, hashes(&copy)?);
        self.told(&format!("BLAKE3   {}\nSHA-256  {}", original.0, original.1))?;
        if original != copied {
            return Err(Failure::new(
                Class::Integrity,
                "the copy differs from the original",
            ));
        }
        self.told("equal on both sides")?;
        ana.stop().await;
        tracker.stop().await;
        self.farewell(&name)
    }

    fn farewell(&self, name: &str) -> Result<(), Failure> {
        let name = safe(&shell_words::quote(name));
        self.screen.text(&format!(
            "\nOn three machines of your own you type, with one passphrase of yours:\n  \
             machine 1:  p2pfs tracker\n  \
             machine 2:  p2pfs peer --tracker MACHINE1 --share {name}\n  \
             machine 3:  p2pfs get {name} --tracker MACHINE1\n\
             The tracker prints this line with its own address and key print, ready to be pasted."
        ))
    }

    fn make_file(&self) -> Result<PathBuf, Failure> {
        let path = self.dir.join("holiday.mp4");
        let mut bytes = vec![0; MADE_LEN];
        blake3::Hasher::new_derive_key("p2pfs demo file")
            .finalize_xof()
            .fill(&mut bytes);
        write_private(&path, &bytes).map_err(|error| local(&error))?;
        self.screen.text(&format!(
            "A file to share: {}, {}",
            "holiday.mp4",
            render::size(MADE_LEN as u64)
        ))?;
        Ok(path)
    }

    fn step(&self, text: &str) -> Result<(), Failure> {
        self.screen.text(&format!("\n== {}", safe(text)))
    }

    fn told(&self, text: &str) -> Result<(), Failure> {
        let indented: Vec<_> = text.lines().map(|line| format!("   {line}")).collect();
        self.screen.text(&indented.join("\n"))
    }

    fn command(&self, state: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .env("P2PFS_PASSPHRASE_FILE", self.dir.join("passphrase"))
            .env("P2PFS_STATE_DIR", self.dir.join(state))
            .env_remove("P2PFS_PASSPHRASE")
            .env_remove("P2PFS_CONFIG")
            .env_remove("P2PFS_NETWORK")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        command
    }

    fn start(&self, state: &str, args: &[&str]) -> Result<Running, Failure> {
        let mut child = self
            .command(state, args)
            .spawn()
            .map_err(|error| local(&error))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new(Class::Failed, "no pipe to a process"))?;
        Ok(Running {
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    async fn finish(&self, state: &str, args: &[&str]) -> Result<String, Failure> {
        let output = self
            .command(state, args)
            .output()
            .await
            .map_err(|error| local(&error))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(Failure::new(
                Class::Failed,
                format!("p2pfs {} failed", args.first().unwrap_or(&"")),
            ))
        }
    }
}

impl Running {
    /// The rest of the first line that begins with `start`.
    async fn wait_for(&mut self, start: &str) -> Result<String, Failure> {
        let lost = || {
            Failure::new(
                Class::Failed,
                format!("a process ended before it said \"{}\"", start.trim()),
            )
        };
        let reading = async {
            while let Some(line) = self
                .lines
                .next_line()
                .await
                .map_err(|error| local(&error))?
            {
                if let Some(rest) = line.strip_prefix(start) {
                    return Ok(rest.trim().to_owned());
                }
            }
            Err(lost())
        };
        timeout(READY_TIME, reading)
            .await
            .unwrap_or_else(|_| Err(lost()))
    }

    /// Ends it as Ctrl-C does.
    async fn stop(&mut self) {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = timeout(Duration::from_secs(6), self.child.wait()).await;
    }
}

fn only_file_in(dir: &Path) -> Result<PathBuf, Failure> {
    let mut entries = std::fs::read_dir(dir).map_err(|error| local(&error))?;
    let entry = entries
        .next()
        .ok_or_else(|| Failure::new(Class::Failed, "nothing was downloaded"))?;
    Ok(entry.map_err(|error| local(&error))?.path())
}

/// BLAKE3 and SHA-256 of a file, in hex.
fn hashes(path: &Path) -> Result<(String, String), Failure> {
    let mut file = std::fs::File::open(path).map_err(|error| local(&error))?;
    let (mut blake3, mut sha256) = (blake3::Hasher::new(), digest::Context::new(&digest::SHA256));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(|error| local(&error))? {
            0 => break,
            len => {
                blake3.update(&buffer[..len]);
                sha256.update(&buffer[..len]);
            }
        }
    }
    let sha256 = data_encoding::HEXLOWER.encode(sha256.finish().as_ref());
    Ok((blake3.finalize().to_hex().to_string(), sha256))
}

fn local(error: &std::io::Error) -> Failure {
    Failure::new(Class::Local, error.to_string())
}
