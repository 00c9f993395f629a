//! Carries out commands with a running peer, from the prompt and from scripts alike.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::digest;
use serde_json::json;
use tokio::task::{JoinSet, block_in_place, spawn_blocking};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::choice::names;
use super::command::{Command, help};
use super::exit::{Class, Failure};
use super::history::Keeps;
use super::opener::{Asking, LockedFile};
use super::options::{AddArgs, DownloadOptions};
use super::quests::Quests;
use super::render;
use super::screen::{Screen, Style};
use super::seen::Seen;
use super::talking::Talking;
use super::telling::Interest;
use super::web::Interface;
use crate::peer::hashing::explain;
use crate::peer::{Begun, DownloadError, Order, Origin, Peer, ShareError, Shared, Wanted};
use crate::proto::talk::Verdict;
use crate::wire::control::Hit;
use crate::wire::text::{FileName, UserName};

/// What was told is shown within this time, unless nobody takes it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whether a download without a seeder waits for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It fails after its retries: scripts want an end.
    Retries,
    /// It waits, visibly: somebody sits there.
    Waits,
}

/// A peer with a memory of what was searched last.
#[derive(Clone)]
pub struct Executor {
    pub(super) peer: Peer,
    pub(super) screen: Screen,
    /// The peer's own screen, where another one is served.
    home: Option<Screen>,
    pub(super) patience: Patience,
    last_found: Arc<Mutex<Option<Hit>>>,
    /// The same of those who ask through the socket.
    clients_last: Arc<Mutex<Option<Hit>>>,
    /// What the one who asks through the socket waits for.
    pub(super) interest: Interest,
    pub(super) seen: Seen,
    /// Who is asked for passwords of locked files.
    pub(super) asking: Asking,
    /// Those questions, where they wait for their turn.
    pub(super) quests: Quests,
    /// What is known of talks here.
    pub(super) talking: Talking,
    /// What is kept of the lines that are typed.
    pub(super) keeps: Keeps,
    /// Where the web interface is.
    pub(super) interface: Interface,
    /// Where lines that were typed are kept.
    pub(super) history: Option<PathBuf>,
    /// Shows what the peer tells by itself.
    telling: TaskTracker,
    /// Downloads that nobody waits for.
    background: TaskTracker,
}

impl Executor {
    /// Commands go to `peer`, results to `screen`.
    #[must_use]
    pub fn new(peer: Peer, screen: Screen, patience: Patience) -> Self {
        Self {
            peer,
            screen,
            home: None,
            patience,
            last_found: Arc::default(),
            clients_last: Arc::default(),
            interest: Interest::default(),
            seen: Seen::default(),
            asking: Asking::Nobody,
            quests: Quests::default(),
            talking: Talking::default(),
            keeps: Keeps::default(),
            interface: Interface::default(),
            history: None,
            telling: TaskTracker::new(),
            background: TaskTracker::new(),
        }
    }

    /// Is anything of it there at the next start?
    #[must_use]
    pub const fn is_remembered(&self) -> bool {
        self.history.is_some()
    }

    /// The same, which keeps what is typed at its prompt in this file.
    #[must_use]
    pub fn with_history(self, file: Option<PathBuf>) -> Self {
        Self {
            history: file,
            ..self
        }
    }

    /// The same, which may ask this way.
    #[must_use]
    pub fn asking(self, asking: Asking) -> Self {
        Self { asking, ..self }
    }

    /// The same, with what is known of talks, and with what is kept of typed lines.
    #[must_use]
    pub(super) fn with_talking(self, talking: Talking, keeps: Keeps) -> Self {
        Self {
            talking,
            keeps,
            ..self
        }
    }

    /// The same for somebody who asks through the socket: scripts, as far as one can tell.
    #[must_use]
    pub fn for_client(&self, screen: Screen) -> Self {
        Self {
            screen,
            patience: Patience::Retries,
            last_found: Arc::clone(&self.clients_last),
            interest: Interest::default(),
            asking: Asking::Nobody,
            home: Some(self.screen.clone()),
            ..self.clone()
        }
    }

    /// Until the downloads that nobody waited for have ended.
    pub async fn finish_background(&self) {
        self.background.close();
        self.background.wait().await;
    }

    /// Runs beside the commands, until the peer has told its last event.
    pub fn tell_with(&self, telling: impl Future<Output = ()> + Send + 'static) {
        self.telling.spawn(telling);
    }

    /// Leaves; returns when everything that was told is shown.
    pub async fn leave(&self) {
        self.peer.leave().await;
        self.telling.close();
        let _ = timeout(LAST_WORDS, self.telling.wait()).await;
    }

    /// The peer.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Carries out one command; `Quit` is the caller's.
    ///
    /// # Errors
    /// What it failed for, to be shown on one line.
    pub async fn run(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Add(args) => self.share(&args).await,
            Command::Remove { items } => self.unshare(&items).await,
            Command::List {
                user: None,
                all: false,
                options,
            } => self.list_own(&options),
            Command::List { user, options, .. } => self.list(user.as_deref(), &options).await,
            Command::ListUnder { user, options } => self.list_under(&user, &options).await,
            Command::AllFiles(options) => self.list(None, &options).await,
            Command::Search(options) => self.search(&options).await,
            Command::Download {
                options,
                out,
                background: true,
            } => {
                let own = self.clone();
                self.background.spawn(async move {
                    if let Err(failure) = own.download(&options, out).await {
                        own.screen.failure(&failure);
                    }
                });
                Ok(())
            }
            Command::Download { options, out, .. } => self.download(&options, out).await,
            Command::Send { user, paths, wait } => self.send(&user, &paths, wait).await,
            Command::Transfers => self.transfers(),
            Command::Pause { ids } => self.order(&ids, Order::Pause),
            Command::Resume { ids } => self.order(&ids, Order::Run),
            Command::Cancel { ids } => self.order(&ids, Order::Cancel),
            Command::Limit { words } => self.limit(&words),
            Command::Peers { all: false } => self.holders_of_last().await,
            Command::Peers { all: true } | Command::Lap => self.people().await,
            Command::Info { item } => self.info(&item).await,
            Command::Id => self.identify(),
            Command::Connect { user, wait } => self.connect(&user, wait).await,
            Command::Disconnect { user } => self.disconnect(user.as_deref()),
            Command::Msg { user, text, wait } => self.msg(&user, &text, wait).await,
            Command::Everybody { text } => self.all(&text).await,
            Command::Accept { user } => self.answer(user.as_deref(), Verdict::Yes).await,
            Command::Deny { user } => self.answer(user.as_deref(), Verdict::No).await,
            Command::Yes => self.answer(None, Verdict::Yes).await,
            Command::No => self.answer(None, Verdict::No).await,
            Command::Always => self.answer(None, Verdict::Always).await,
            Command::Who => self.who().await,
            Command::Trust { user: None, .. } => self.acquaintances().list(),
            Command::Trust {
                user: Some(user),
                print,
            } => self.trust(&user, print.as_deref()).await,
            Command::Untrust { who } => block_in_place(|| self.acquaintances().untrust(&who)),
            Command::Block { who } => self.block(&who).await,
            Command::Unblock { who } => block_in_place(|| self.acquaintances().unblock(&who)),
            Command::Verify { user } => self.verify(&user).await,
            Command::Help { command } => {
                let text = help(command.as_deref()).map_err(Failure::usage)?;
                self.screen.text(&text)
            }
            Command::Unlock {
                file,
                password_file,
            } => self.unlock(file, password_file.as_deref()).await,
            Command::Login => Err(Failure::usage(
                "nothing to log in to: the login holds, or nobody can be asked",
            )),
            Command::Quit => Ok(()),
        }
    }

    /// Shares files, each with a line.
    ///
    /// # Errors
    /// The first failure, or that some failed.
    pub async fn share(&self, args: &AddArgs) -> Result<(), Failure> {
        let copies = self.copies_of(args);
        let paths = &args.paths;
        let name = args.as_name.as_deref().map(parse_name).transpose()?;
        if name.is_some() && paths.len() > 1 {
            return Err(Failure::usage(
                "--as names one file or folder, and there are several",
            ));
        }
        all_there(paths).map_err(
            |failure| match args.readers.is_empty() || paths.len() == 1 {
                true => failure,
                false => failure.hint("several people are --for ana,bob; nothing was shared"),
            },
        )?;
        let (readers, time) = self.readers(args).await?;
        let mut lock = self.lock_of(args, copies).await?;
        let mut failures = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            let (name, readers) = (name.clone(), readers.clone());
            let shared = match (&mut lock, time) {
                (Some(lock), time) => {
                    self.share_locked((lock, number), path, (name, readers), time)
                        .await
                }
                (None, Some(time)) => self.peer.share_for(path, name, readers, time).await,
                (None, None) => self.peer.share(path, name, readers).await,
            };
            match shared {
                Ok(shared) => {
                    let mut line = render::sharing(&shared);
                    if let Some(time) = time {
                        line.push_str(&format!(", for {}", render::span(time)));
                    }
                    self.screen.text(&line)?;
                    self.screen.object(&render::share_json(&shared))?;
                }
                Err(error) => failures.push(Failure::from(error)),
            }
        }
        self.conclude(paths.len(), failures)
    }

    async fn unshare(&self, items: &[String]) -> Result<(), Failure> {
        let mut failures = Vec::new();
        for item in items {
            let gone = self
                .peer
                .unshare(|shared: &Shared| names(item, shared))
                .await?;
            for shared in &gone {
                self.screen.text(&format!(
                    "Not sharing {} any more",
                    shared.file.shown_name()
                ))?;
                self.screen.object(&json!({
                    "v": 1, "type": "result", "command": "unshare", "ok": true,
                    "name": shared.file.name.as_str(), "id": shared.file.content.to_string(),
                }))?;
            }
            if gone.is_empty() {
                failures.push(Failure::new(
                    Class::NotFound,
                    format!("you do not share \"{item}\""),
                ));
            }
        }
        self.conclude(items.len(), failures)
    }

    /// Downloads each item to its end.
    ///
    /// # Errors
    /// The failure of the only one, or that some failed.
    pub async fn download(
        &self,
        options: &DownloadOptions,
        out: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let from = options.from.as_deref().map(parse_user).transpose()?;
        let password = self.password_of(options)?;
        let (mut failures, mut begun) = (Vec::new(), JoinSet::new());
        let mut items = 0;
        for item in &options.items {
            let found = match (options.all_matching, options.id) {
                (true, _) => self.choose_all(item, from.as_ref()).await,
                (false, true) => self
                    .choose_id(item, from.as_ref())
                    .await
                    .map(|hit| vec![hit]),
                (false, false) => {
                    let hit = self.choose_hashed(item, from.as_ref()).await;
                    hit.map(|hit| vec![hit])
                }
            };
            let hits = match found {
                Ok(hits) => hits,
                Err(failure) => {
                    items += 1;
                    failures.push(failure);
                    continue;
                }
            };
            for hit in hits {
                items += 1;
                match self.wish(hit, from.as_ref(), out.clone()).await {
                    // In the order in which they were typed: the queue decides how many run.
                    Ok(wanted) => {
                        self.interest.in_download(&wanted.file);
                        if wanted.is_restricted {
                            let name = wanted.file.shown_name();
                            self.screen.note(&format!(
                                "{name} is for chosen people: it will not be shared on"
                            ));
                        }
                        let (own, download) = (self.clone(), self.peer.begin(wanted));
                        let number = items;
                        begun.spawn(async move { (number, own.finish(download).await) });
                    }
                    Err(failure) => failures.push(failure),
                }
            }
        }
        let (mut files, mut locked) = (BTreeMap::new(), BTreeMap::new());
        while let Some(ended) = begun.join_next().await {
            match ended {
                Ok((number, Ok(Some(done)))) => {
                    locked.extend(done.locked.map(|locked| (number, locked)));
                    files.insert(number, done.file);
                }
                // Whoever cancelled it was told so.
                Ok((_, Ok(None))) => {}
                Ok((_, Err(failure))) if items > 1 => {
                    // The others may still take long.
                    self.screen.tell(&failure);
                    failures.push(Failure::new(Class::Failed, ""));
                }
                Ok((_, Err(failure))) => failures.push(failure),
                Err(error) => failures.push(Failure::new(Class::Failed, error.to_string())),
            }
        }
        if failures.is_empty() && !files.is_empty() {
            let files: Vec<_> = files.into_values().collect();
            self.screen.object(&render::fetched_json(&files))?;
        }
        for locked in locked.into_values().filter(|_| !options.stays_locked) {
            failures.extend(self.open(locked, password.as_ref()).await.err());
        }
        self.conclude(items, failures)
    }

    async fn wish(
        &self,
        hit: Hit,
        from: Option<&UserName>,
        out: Option<PathBuf>,
    ) -> Result<Wanted, Failure> {
        let from = match from {
            Some(user) => Some(self.key_of(&hit, user).await?),
            None => None,
        };
        Ok(Wanted {
            is_restricted: hit.is_restricted,
            file: hit.file,
            from,
            directory: out,
            waits: self.patience == Patience::Waits,
            origin: Origin::Asked,
        })
    }

    /// `None` when it was cancelled.
    async fn finish(&self, download: Begun) -> Result<Option<Finished>, Failure> {
        let done = match download.finish().await {
            Ok(done) => done,
            // Who cancelled it was told so; somebody else, who waits for it, was not.
            Err(DownloadError::Cancelled { .. }) if !self.screen.is_client() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let line = render::downloaded(&done);
        match &self.home {
            Some(home) if self.screen.is_gone() => home.text(&line)?,
            _ => self.screen.text(&line)?,
        }
        // Another reading of the whole file: only for scripts, which compare.
        let sha256 = match self.screen.style() {
            Style::Json if done.file.kind.is_file() => Some(sha256_of(done.path.clone()).await?),
            Style::Json | Style::Text => None,
        };
        // Whoever brought it for others opens it as well.
        let is_to_open = done.file.kind.is_locked() && done.brought_by.is_none();
        let mut shares = self.peer.shares().into_iter();
        Ok(Some(Finished {
            file: render::downloaded_json(&done, sha256),
            locked: is_to_open.then(|| LockedFile {
                path: done.path,
                stays: self.peer.shares_on() && shares.any(|own| own.file == done.file),
            }),
        }))
    }

    pub(super) fn conclude(&self, items: usize, mut failures: Vec<Failure>) -> Result<(), Failure> {
        match (failures.len(), failures.pop()) {
            (0, _) | (_, None) => Ok(()),
            (1, Some(failure)) if items == 1 => Err(failure),
            (failed, Some(last)) => {
                let all = failures.iter().chain([&last]);
                for failure in all.filter(|failure| !failure.message.is_empty()) {
                    self.screen.tell(failure);
                }
                Err(Failure::new(
                    Class::Partly,
                    format!("{failed} of {items} failed"),
                ))
            }
        }
    }

    pub(super) fn last(&self) -> std::sync::MutexGuard<'_, Option<Hit>> {
        self.last_found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A download that is done.
struct Finished {
    /// What scripts are told of it.
    file: serde_json::Value,
    /// It is locked, and nobody else opens it.
    locked: Option<LockedFile>,
}

/// Is each of these there? Else nothing is shared, rather than a part of what was meant.
///
/// # Errors
/// The first that is not.
pub(super) fn all_there(paths: &[PathBuf]) -> Result<(), Failure> {
    for path in paths {
        if let Err(error) = std::fs::metadata(path) {
            let (path, reason) = (path.clone(), explain(&error));
            let failure = Failure::from(ShareError::Local { path, reason });
            return Err(match paths.len() {
                1 => failure,
                _ => failure.hint("nothing was shared"),
            });
        }
    }
    Ok(())
}

fn parse_name(text: &str) -> Result<FileName, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("the name \"{text}\" {error}")))
}

/// A user's name from the command line.
///
/// # Errors
/// When it cannot be one.
pub fn parse_user(text: &str) -> Result<UserName, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("the name \"{text}\" {error}")))
}

pub(super) async fn sha256_of(path: PathBuf) -> Result<String, Failure> {
    let hashing = spawn_blocking(move || -> std::io::Result<String> {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut file = std::fs::File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(data_encoding::HEXLOWER.encode(context.finish().as_ref())),
                len => context.update(&buffer[..len]),
            }
        }
    });
    let hashed = hashing
        .await
        .map_err(|error| Failure::new(Class::Failed, error.to_string()))?;
    hashed.map_err(|error| Failure::new(Class::Local, error.to_string()))
}
