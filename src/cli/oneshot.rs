//! Commands without a prompt: through the peer that runs with the state directory, or by one of their own.
//!
//! A peer that stays is asked through its socket: it makes every line, with the width and the style of this
//! screen, and this process only shows them. Where none runs, a short-lived peer joins, does the same work by
//! the same code, and says goodbye.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{GetArgs, JoinArgs, ListArgs, OnceArgs, SendArgs, ShareArgs, TransfersArgs};
use super::client::{self, Showing};
use super::command::Command;
use super::executor::all_there;
use super::exit::{Class, Failure};
use super::host::request_of;
use super::screen::Style;
use super::{Context, ask, opener, screen, setup};
use crate::ipc::{self, AskError, End};
use crate::wire::password::Password;

/// How often `transfers --watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

impl Context {
    /// Through the running peer, or by one of its own.
    pub(super) async fn once(&self, args: &OnceArgs, command: Command) -> Result<(), Failure> {
        match self.through_peer(args, &command).await {
            Some(done) => done,
            None => self.by_own_peer(args, command).await,
        }
    }

    /// Shares through the running peer and returns; without one, until a signal comes.
    pub(super) async fn share(&self, args: ShareArgs) -> Result<(), Failure> {
        let mut what = args.what.clone();
        for path in &mut what.paths {
            *path = absolute(path)?;
        }
        all_there(&args.what.paths)?;
        if what.lock {
            return self.share_with_lock(&args, what).await;
        }
        match self.through_peer(&args.once, &Command::Add(what)).await {
            Some(done) => done,
            None => self.share_here(&args.once, &args.what).await,
        }
    }

    /// Offers files and folders to one person, and waits until they are there.
    pub(super) async fn send(&self, args: SendArgs) -> Result<(), Failure> {
        all_there(&args.paths)?;
        let paths: Result<Vec<_>, _> = args.paths.iter().map(|path| absolute(path)).collect();
        let command = Command::Send {
            user: args.user,
            paths: paths?,
            wait: args.wait,
        };
        self.once(&args.once, command).await
    }

    pub(super) async fn get(&self, args: GetArgs) -> Result<(), Failure> {
        if args.stdout {
            return self.get_to_stdout(args).await;
        }
        let out = self.downloads(&args.once.join);
        let out = Some(absolute(&out)?);
        let (mut options, background) = (args.what, false);
        if let Some(file) = options.lock_password_file.take() {
            options.secret = Some(self.lock_password(file).await?);
        }
        let command = Command::Download {
            options,
            out,
            background,
        };
        self.once(&args.once, command).await
    }

    async fn lock_password(&self, file: PathBuf) -> Result<Password, Failure> {
        let screen = self.screen.clone();
        self.asked(move || ask::lock_password(&file, Class::Integrity, &screen))
            .await
    }

    /// Downloads one file to a place of its own, where nobody gets it from, and writes it out when all of it
    /// is there and checked.
    async fn get_to_stdout(&self, args: GetArgs) -> Result<(), Failure> {
        if self.screen.style() == Style::Json {
            return Err(Failure::usage(
                "--stdout and --json both want standard output",
            ));
        }
        if args.what.items.len() != 1 || args.what.all_matching {
            return Err(Failure::usage("--stdout takes one file at a time"));
        }
        let local = |error: &std::io::Error| {
            Failure::new(Class::Local, format!("cannot keep the download: {error}"))
        };
        let parent = args
            .once
            .join
            .out
            .clone()
            .unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new()
            .prefix(".p2pfs-stdout-")
            .tempdir_in(parent)
            .map_err(|error| local(&error))?;
        let mut join = args.once.join.clone();
        (join.seed, join.no_seed) = (false, true);
        let once = OnceArgs {
            join,
            standalone: true,
        };
        let mut options = args.what;
        let password = match options.lock_password_file.take() {
            Some(file) => Some(self.lock_password(file).await?),
            None => None,
        };
        // What is in it is nowhere on a disk.
        options.stays_locked = true;
        let command = Command::Download {
            options,
            out: Some(dir.path().to_owned()),
            background: false,
        };
        let quiet = Self {
            setup: self.setup.clone(),
            screen: self.screen.results_to_stderr(),
            shutdown: self.shutdown.clone(),
        };
        let done = quiet.by_own_peer(&once, command).await;
        done.map_err(|failure| match failure.class {
            // Where it was is removed.
            Class::Interrupted | Class::Terminated => Failure {
                hint: Some("nothing of it stays".to_owned()),
                ..failure
            },
            _ => failure,
        })?;
        let entry = std::fs::read_dir(dir.path()).map_err(|error| local(&error))?;
        let path = entry.flatten().map(|entry| entry.path()).next();
        let path = path.ok_or_else(|| Failure::new(Class::Failed, "the download is gone"))?;
        let copying = move || match password {
            Some(password) => opener::copy_out(&path, &password, std::io::stdout().lock()),
            None => copy_to_stdout(&path),
        };
        let copying = tokio::task::spawn_blocking(copying);
        let copied = tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            copied = copying => copied.unwrap_or_else(|error| Err(Failure::new(Class::Failed, error.to_string()))),
        };
        drop(dir);
        copied
    }

    pub(super) async fn list(&self, args: ListArgs) -> Result<(), Failure> {
        let ListArgs {
            user,
            all,
            options,
            once,
        } = args;
        let command = Command::List {
            user: user.filter(|_| !all),
            all,
            options: options.clone(),
        };
        let is_own = matches!(
            command,
            Command::List {
                user: None,
                all: false,
                ..
            }
        );
        if !is_own {
            return self.once(&once, command).await;
        }
        if let Some(done) = self.through_peer(&once, &command).await {
            return done;
        }
        // A peer of its own shares nothing: what is meant is one that runs elsewhere under this name.
        let name = once
            .join
            .name
            .as_ref()
            .or(self.setup.config.peer.name.as_ref());
        let user = name
            .filter(|name| !name.is_empty())
            .cloned()
            .unwrap_or_else(|| setup::login_name().as_str().to_owned());
        self.by_own_peer(&once, Command::ListUnder { user, options })
            .await
    }

    /// What only a running peer can do.
    pub(super) async fn steer(&self, command: Command) -> Result<(), Failure> {
        let done = self.through_peer(&OnceArgs::default(), &command).await;
        done.unwrap_or_else(|| Err(self.no_peer()))
    }

    /// Stops sharing what was named, also by a path from here.
    pub(super) async fn unshare(&self, mut items: Vec<String>) -> Result<(), Failure> {
        for item in &mut items {
            if item.contains('/')
                && let Ok(path) = absolute(Path::new(item))
            {
                *item = path.to_string_lossy().into_owned();
            }
        }
        self.steer(Command::Remove { items }).await
    }

    /// The downloads of the running peer; with `--watch` again and again, until none is under way.
    pub(super) async fn transfers(&self, args: TransfersArgs) -> Result<(), Failure> {
        if !args.watch {
            return self.steer(Command::Transfers).await;
        }
        let redraws = self.screen.style() == Style::Text
            && std::io::stdout().is_terminal()
            && self.screen.is_live();
        let mut drawn = 0;
        loop {
            let mut frame = Vec::new();
            let mut objects = Vec::new();
            for style in [Style::Text, Style::Json] {
                let mut client = client::describe(&self.screen);
                client.json = style == Style::Json;
                let mut heard = |line: serde_json::Value| {
                    let text = line["text"].as_str().unwrap_or_default();
                    let text = client::harmless(style, text);
                    match style {
                        Style::Text => frame.push(text),
                        Style::Json => objects.push(text),
                    }
                };
                let asked = self.ask(&Command::Transfers, client, &mut heard).await;
                asked.unwrap_or_else(|| Err(self.no_peer()))?;
            }
            let shown = match self.screen.style() {
                Style::Text if redraws => fitting(&frame.concat(), screen::terminal_size().rows),
                Style::Text => frame.concat(),
                Style::Json => objects.join("\n"),
            };
            if redraws && drawn > 0 {
                self.screen.print(&format!("\x1b[{drawn}A\x1b[J{shown}"))?;
            } else if !shown.is_empty() {
                self.screen.print(&shown)?;
            }
            drawn = shown.lines().count();
            let is_over = objects.iter().all(|line| {
                let object: Result<serde_json::Value, _> = serde_json::from_str(line);
                object.is_ok_and(|object| object["state"] == "paused")
            });
            if is_over {
                return Ok(());
            }
            tokio::select! {
                // It has no other end than that somebody has seen enough.
                () = self.shutdown.token().cancelled() => return Ok(()),
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
        }
    }

    /// Where downloads go.
    fn downloads(&self, join: &JoinArgs) -> PathBuf {
        let configured = || self.setup.config.peer.downloads.clone();
        join.out
            .clone()
            .or_else(configured)
            .unwrap_or_else(|| ".".into())
    }

    /// `None` where no peer runs that takes commands.
    pub(super) async fn through_peer(
        &self,
        args: &OnceArgs,
        command: &Command,
    ) -> Option<Result<(), Failure>> {
        if args.standalone {
            return None;
        }
        let mut client = client::describe(&self.screen);
        client.tracker = args.join.tracker.clone();
        client.network = self.global().network.clone();
        let mut showing = Showing::new(&self.screen);
        let asking = self.ask(command, client, |line| showing.take(&line));
        let done = tokio::select! {
            () = self.shutdown.token().cancelled() => {
                if matches!(command, Command::Download { .. }) {
                    self.screen.note(
                        "the peer that runs here goes on with it: p2pfs transfers shows it, p2pfs cancel NO ends it",
                    );
                }
                return Some(Err(self.interrupted()));
            }
            done = asking => done?,
        };
        let locked = showing.take_locked();
        let shown = showing.end().and(done);
        let Command::Download { options, .. } = command else {
            return Some(shown);
        };
        let opened = self.open_all(locked, options.secret.as_ref()).await;
        Some(shown.and(opened))
    }

    /// Asks the peer that runs with this state directory; `None` where none takes commands.
    async fn ask(
        &self,
        command: &Command,
        client: ipc::Client,
        heard: impl FnMut(serde_json::Value),
    ) -> Option<Result<(), Failure>> {
        let dir = setup::state_dir(self.global(), "peer")?;
        let Some(request) = request_of(command, client) else {
            return Some(Err(Failure::usage("an argument is not UTF-8 text")));
        };
        let failure = match ipc::ask(&dir, &request, heard).await {
            Ok(End { code: 0, .. }) => return Some(Ok(())),
            Ok(end) => failure_of(end),
            Err(AskError::Nobody(_)) => return None,
            Err(error) => Failure::from(error),
        };
        (failure.class != Class::Held).then_some(Err(failure))
    }

    fn no_peer(&self) -> Failure {
        let failure = match setup::state_dir(self.global(), "peer") {
            Some(dir) => {
                let root = dir.parent().unwrap_or(&dir).display().to_string();
                Failure::new(Class::NotFound, format!("no peer runs with {root}"))
            }
            None => Failure::new(Class::NotFound, "there is no state directory"),
        };
        failure.hint("start one with p2pfs peer, or give its --state-dir")
    }
}

fn failure_of(end: End) -> Failure {
    Failure {
        class: Class::of_code(end.code),
        message: end.message.unwrap_or_default(),
        hint: end.hint,
    }
}

/// The rows of a table that fit above the cursor: what has left the screen cannot be drawn again.
fn fitting(table: &str, rows: usize) -> String {
    let (count, room) = (table.lines().count(), rows.saturating_sub(1).max(1));
    if count <= room {
        return table.to_owned();
    }
    let shown = room.saturating_sub(1);
    let rest = format!("… and {} more", count - shown);
    let lines = table.lines().take(shown).chain([rest.as_str()]);
    lines.collect::<Vec<_>>().join("\n")
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Class::Local, format!("{}: {error}", path.display())))
}

fn copy_to_stdout(path: &Path) -> Result<(), Failure> {
    let found = std::fs::metadata(path);
    if found.is_ok_and(|found| found.is_dir()) {
        return Err(Failure::usage("a folder cannot go to standard output").hint("give --out DIR"));
    }
    let copying = || {
        let mut out = std::io::stdout().lock();
        std::io::copy(&mut std::fs::File::open(path)?, &mut out)?;
        out.flush()
    };
    copying().map_err(|error: std::io::Error| match error.kind() {
        // Whoever reads has had enough.
        std::io::ErrorKind::BrokenPipe => Failure::new(Class::Failed, ""),
        _ => Failure::new(
            Class::Local,
            format!("cannot write to standard output: {error}"),
        ),
    })
}
