//! What people type and see: one function per role.

pub mod args;
pub mod ask;
pub mod command;
pub mod demo;
pub mod dialog;
pub mod executor;
pub mod exit;
pub mod passphrase;
pub mod prompt;
pub mod render;
pub mod screen;
pub mod setup;
pub mod table;
pub mod topics;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use self::args::{Action, Cli, Global, JoinArgs, PassphraseArgs, PeerArgs, TrackerArgs};
use self::ask::{Dialog, Purpose};
use self::command::Command;
use self::dialog::{Asker, Person, Role};
use self::executor::{Executor, Patience};
use self::exit::{Class, Failure};
use self::prompt::End;
use self::screen::Screen;
use self::setup::{DEFAULT_PORT, Home, Setup, WithoutHome};
use crate::crypto::kdf::{Group, NetworkName};
use crate::peer::{Event, JoinError, Peer};
use crate::shutdown::Shutdown;
use crate::tracker::Tracker;

/// How long a wrong passphrase holds up the next question, at first and at most; each doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Runs what was asked for.
///
/// # Errors
/// What the program ends with, unless all went well.
pub async fn run(cli: Cli, screen: &Screen) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals(ask::restore_terminal)
        .map_err(|error| Failure::new(Class::Failed, format!("cannot handle signals: {error}")))?;
    crate::net::raise_descriptor_limit();
    let setup = Setup::new(cli.global)?;
    let context = Context {
        setup,
        screen: screen.clone(),
        shutdown,
    };
    let waits = Patience::Retries;
    match cli.action {
        None => context.interactive().await,
        Some(Action::Tracker(args)) => context.tracker(args).await,
        Some(Action::Peer(args)) => context.peer(args).await,
        Some(Action::Share(args)) => {
            let share =
                async |peer: &Executor| peer.share(&args.paths, args.as_name.as_deref()).await;
            context.share(&args.join, share).await
        }
        Some(Action::Get(args)) => {
            let command = Command::Download {
                items: args.items,
                from: args.from,
                out: None,
            };
            context.once(&args.join, waits, vec![command]).await
        }
        Some(Action::Search(args)) => {
            let command = Command::Search {
                text: args.text,
                limit: args.limit,
            };
            context.once(&args.join, waits, vec![command]).await
        }
        Some(Action::List(args)) => context.list(args).await,
        Some(Action::Files(join)) => context.once(&join, waits, vec![Command::AllFiles]).await,
        Some(Action::Peers(args)) => context.once(&args.join, waits, vec![Command::Lap]).await,
        Some(Action::Info(args)) => {
            context
                .once(&args.join, waits, vec![Command::Info { item: args.item }])
                .await
        }
        Some(Action::Passphrase(args)) => context.passphrase(&args),
        Some(Action::Demo(args)) => {
            demo::run(args.file, &context.screen, context.shutdown.token()).await
        }
        Some(Action::Topic { topic }) => context.screen.print(topics::text(&topic)?),
    }
}

struct Context {
    setup: Setup,
    screen: Screen,
    shutdown: Shutdown,
}

impl Context {
    fn global(&self) -> &Global {
        &self.setup.global
    }

    /// Would another passphrase come from a person?
    fn asks_for_passphrase(&self) -> bool {
        self.dialog() == Dialog::Terminal
            && !ask::is_given(self.global().passphrase_file.as_deref())
    }

    fn dialog(&self) -> Dialog {
        Dialog::detect(self.global().no_input)
    }

    async fn group(&self, purpose: Purpose) -> Result<Group, Failure> {
        let network = self.setup.network()?;
        let (file, dialog, screen) = (
            self.global().passphrase_file.clone(),
            self.dialog(),
            self.screen.clone(),
        );
        // A question may stand for hours, and Argon2 takes a while: neither belongs on the tasks' threads.
        let asking = tokio::task::spawn_blocking(move || {
            let passphrase = ask::passphrase(file.as_deref(), dialog, purpose, &screen)?;
            Ok(Group::derive(&passphrase, network))
        });
        tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            group = asking => group.map_err(|error| Failure::new(Class::Failed, error.to_string()))?,
        }
    }

    /// As P2P File Transfer asked: passphrase, role, then where.
    async fn interactive(&self) -> Result<(), Failure> {
        if self.dialog() == Dialog::None {
            return Err(Failure::usage("no terminal to ask in")
                .hint("say what to run: p2pfs tracker, p2pfs peer --tracker HOST, p2pfs --help"));
        }
        let read = |error: clap::Error| Failure::usage(command::explain(&error));
        let questions = Questions {
            // A range of ports is none for a tracker, and who is a peer may have it.
            tracker: args::from_environment().map_err(read),
            join: args::from_environment().map_err(read)?,
            file: self.global().passphrase_file.clone(),
            network: self.setup.network()?,
            is_new_tracker: setup::is_new_tracker(self.global()),
            port: self.setup.config.tracker.port.unwrap_or(DEFAULT_PORT),
            host: self.setup.config.tracker.address.clone(),
            name: self.setup.config.peer.name.clone(),
            screen: self.screen.clone(),
        };
        let asking = tokio::task::spawn_blocking(move || questions.ask(&mut Person));
        let (group, asked) = tokio::select! {
            () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
            asked = asking => asked.map_err(|error| Failure::new(Class::Failed, error.to_string()))??,
        };
        match asked {
            Asked::Tracker(args) => self.run_tracker(&args, group).await,
            Asked::Peer(join) => {
                self.run_peer(
                    PeerArgs {
                        join,
                        ..PeerArgs::default()
                    },
                    group,
                )
                .await
            }
        }
    }

    async fn tracker(&self, args: TrackerArgs) -> Result<(), Failure> {
        let purpose = Purpose::Tracker {
            allow_weak: args.allow_weak_passphrase,
            is_new: setup::is_new_tracker(self.global()),
        };
        let group = self.group(purpose).await?;
        self.run_tracker(&args, group).await
    }

    async fn run_tracker(&self, args: &TrackerArgs, group: Group) -> Result<(), Failure> {
        let (dir, _lock) = Home::of_tracker(self.global())?;
        let settings = self.setup.tracker(args, dir)?;
        let network = group.network().clone();
        let tracker = Tracker::bind(settings, group)?;
        let (port, key) = (tracker.port(), tracker.id().fingerprint());
        let addresses = tracker.addresses();
        let host = addresses
            .first()
            .copied()
            .unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let mut join = format!(
            "p2pfs peer --tracker {} --tracker-key {}",
            join_address(host, port),
            key.brief()
        );
        if network != NetworkName::default() {
            join.push_str(&format!(" --network {}", network.as_str()));
        }
        self.screen.text(&format!(
            "Tracker listening on {}, TCP and UDP",
            with_port(host, port)
        ))?;
        self.screen.text(&format!("Others join with:  {join}"))?;
        self.screen.text(&format!("Its key: {key}"))?;
        self.screen.object(&json!({
            "v": 1, "type": "tracker", "port": port, "key": key.to_string(), "join": join,
            "addresses": addresses,
        }))?;
        tracker.run(self.shutdown.token().clone()).await;
        Ok(())
    }

    async fn peer(&self, args: PeerArgs) -> Result<(), Failure> {
        let group = self.group(Purpose::Join).await?;
        self.run_peer(args, group).await
    }

    async fn run_peer(&self, args: PeerArgs, group: Group) -> Result<(), Failure> {
        let is_attended =
            self.dialog() == Dialog::Terminal && !args.no_prompt && args.command.is_empty();
        let patience = if is_attended {
            Patience::Waits
        } else {
            Patience::Retries
        };
        let executor = self
            .join(&args.join, group, WithoutHome::Fail, patience)
            .await?;
        let peer = executor.peer();
        let address = peer.tracker_address();
        self.screen.text(&format!(
            "Joined {address} as {}, listening on {}.{}",
            peer.user(),
            peer.port(),
            if is_attended {
                " Type help for commands."
            } else {
                ""
            }
        ))?;
        self.screen.object(&json!({
            "v": 1, "type": "joined", "user": peer.user().as_str(), "port": peer.port(),
            "tracker": peer.tracker(), "tracker_key": peer.tracker_key().fingerprint().to_string(),
        }))?;
        let work = self.work(&executor, &args);
        let done = tokio::select! {
            // A peer that stays ends well when asked to; one that had work to finish did not finish it.
            () = self.shutdown.token().cancelled() => {
                if args.exit || !args.command.is_empty() {
                    Err(self.interrupted())
                } else {
                    Ok(())
                }
            }
            done = work => done,
        };
        executor.peer().leave().await;
        self.screen.prompt(None);
        done
    }

    async fn work(&self, executor: &Executor, args: &PeerArgs) -> Result<(), Failure> {
        if !args.share.is_empty() {
            executor.share(&args.share, None).await?;
        }
        if !args.get.is_empty() {
            let done = executor.download(&args.get, None, None).await;
            if args.exit {
                return done;
            }
            if let Err(failure) = done {
                self.screen.failure(&failure);
            }
        }
        if !args.command.is_empty() {
            return prompt::run_lines(executor, &self.screen, &args.command).await;
        }
        if args.exit {
            return Ok(());
        }
        if !args.no_prompt {
            let end = prompt::run(executor, &self.screen, self.dialog()).await?;
            if end == End::Asked || args.share.is_empty() {
                return Ok(());
            }
        }
        self.shutdown.token().cancelled().await;
        Ok(())
    }

    /// Shares until a signal comes.
    async fn share(
        &self,
        join: &JoinArgs,
        share: impl AsyncFnOnce(&Executor) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let group = self.group(Purpose::Join).await?;
        let executor = self
            .join(join, group, WithoutHome::Temporary, Patience::Retries)
            .await?;
        let shared = tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            shared = share(&executor) => shared,
        };
        if shared.is_ok() {
            let key = executor.peer().tracker_key().fingerprint().brief();
            let tracker = executor.peer().tracker();
            let address = join_address(tracker.ip().to_canonical(), tracker.port());
            for shared in executor.peer().shares() {
                let name = shell_words::quote(shared.file.name.as_str()).into_owned();
                self.screen.text(&format!(
                    "Others get it with:  p2pfs get {} --tracker {address} --tracker-key {key}",
                    crate::wire::text::safe(&name)
                ))?;
            }
            self.shutdown.token().cancelled().await;
        }
        executor.peer().leave().await;
        shared
    }

    async fn list(&self, args: args::ListArgs) -> Result<(), Failure> {
        let command = match (args.user, args.all) {
            (user, true) | (user @ Some(_), false) => Command::List {
                all: args.all,
                user: user.filter(|_| !args.all),
            },
            // A one-shot peer shares nothing itself: what is meant is the peer that runs under this name.
            (None, false) => {
                let name = args
                    .join
                    .name
                    .clone()
                    .or_else(|| self.setup.config.peer.name.clone());
                let user = name
                    .filter(|name| !name.is_empty())
                    .unwrap_or_else(|| setup::login_name().as_str().to_owned());
                Command::ListUnder { user }
            }
        };
        self.once(&args.join, Patience::Retries, vec![command])
            .await
    }

    /// Joins, does the work, leaves.
    async fn once(
        &self,
        join: &JoinArgs,
        patience: Patience,
        commands: Vec<Command>,
    ) -> Result<(), Failure> {
        let group = self.group(Purpose::Join).await?;
        let executor = self
            .join(join, group, WithoutHome::Temporary, patience)
            .await?;
        let work = async {
            for command in commands {
                executor.run(command).await?;
            }
            Ok(())
        };
        let done = tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            done = work => done,
        };
        executor.peer().leave().await;
        done
    }

    async fn join(
        &self,
        join: &JoinArgs,
        group: Group,
        without: WithoutHome,
        patience: Patience,
    ) -> Result<Executor, Failure> {
        let home = Home::of_peer(self.global(), without, &self.screen)?;
        let settings = self.setup.peer(join, &home)?;
        let mut group = group;
        let mut pause = FIRST_PAUSE;
        let (peer, events) = loop {
            let joining = Peer::join(settings.clone(), group, home.identity.clone());
            let joined = tokio::select! {
                () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
                joined = joining => joined,
            };
            match joined {
                Err(error @ JoinError::WrongPassphrase { .. })
                    if self.asks_for_passphrase() && pause <= LONGEST_PAUSE =>
                {
                    self.screen.tell(&Failure::from(error));
                }
                joined => break joined?,
            }
            tokio::select! {
                () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
                () = tokio::time::sleep(pause) => pause *= 2,
            }
            group = self.group(Purpose::Join).await?;
        };
        let screen = self.screen.clone();
        tokio::spawn(async move {
            // The lock on the state directory lives as long as events are shown: until the peer is gone.
            let _home = home;
            show_events(events, &screen).await;
        });
        Ok(Executor::new(peer, self.screen.clone(), patience))
    }

    fn passphrase(&self, args: &PassphraseArgs) -> Result<(), Failure> {
        if args.check.is_none() {
            return self
                .screen
                .print(&passphrase::generate(usize::from(args.words)));
        }
        let file = self.global().passphrase_file.as_deref();
        let rating = passphrase::rate(&ask::passphrase_to_rate(file, self.dialog(), &self.screen)?);
        let verdict = if rating.is_enough() {
            "good enough"
        } else {
            "can be guessed"
        };
        self.screen.text(&format!(
            "{verdict}: score {} of 4, about 10^{} guesses",
            rating.score, rating.guesses_log10
        ))?;
        self.screen.object(&json!({
            "v": 1, "type": "rating", "score": rating.score, "guesses_log10": rating.guesses_log10,
            "ok": rating.is_enough(),
        }))?;
        if rating.is_enough() {
            Ok(())
        } else {
            Err(Failure::new(
                Class::Failed,
                "this passphrase can be guessed",
            ))
        }
    }

    fn interrupted(&self) -> Failure {
        let class = if self.shutdown.code() == 143 {
            Class::Terminated
        } else {
            Class::Interrupted
        };
        Failure::new(class, "")
    }
}

enum Asked {
    Tracker(TrackerArgs),
    Peer(JoinArgs),
}

/// What `p2pfs` alone asks for, and what Enter alone means.
struct Questions {
    tracker: Result<TrackerArgs, Failure>,
    join: JoinArgs,
    file: Option<PathBuf>,
    network: NetworkName,
    is_new_tracker: bool,
    port: u16,
    host: Option<String>,
    name: Option<String>,
    screen: Screen,
}

impl Questions {
    /// As P2P File Transfer asked: passphrase, role, then where.
    fn ask(self, person: &mut dyn Asker) -> Result<(Group, Asked), Failure> {
        let given = ask::given_passphrase(self.file.as_deref(), Purpose::Join, &self.screen)?;
        let typed = match given {
            Some(_) => None,
            None => Some(dialog::hidden(person, "Passphrase")?),
        };
        let (passphrase, asked) = match dialog::role(person)? {
            Role::Tracker => {
                let purpose = Purpose::Tracker {
                    allow_weak: false,
                    is_new: self.is_new_tracker,
                };
                let args = self.tracker.clone()?;
                let passphrase = match given {
                    Some(given) => given,
                    None if self.is_new_tracker => dialog::new_passphrase(person, false, typed)?,
                    None => dialog::known_passphrase(person, typed)?,
                };
                ask::judge(&passphrase, purpose)?;
                (passphrase, self.tracker(args, person)?)
            }
            Role::Peer => {
                let passphrase = match given {
                    Some(given) => given,
                    None => dialog::known_passphrase(person, typed)?,
                };
                (passphrase, self.peer(person)?)
            }
        };
        Ok((Group::derive(&passphrase, self.network), asked))
    }

    fn tracker(&self, args: TrackerArgs, person: &mut dyn Asker) -> Result<Asked, Failure> {
        let port = args.port.unwrap_or(self.port).to_string();
        let port = dialog::question(person, "Port", Some(&port), parse_port)?;
        Ok(Asked::Tracker(TrackerArgs {
            port: Some(port),
            ..args
        }))
    }

    fn peer(&self, person: &mut dyn Asker) -> Result<Asked, Failure> {
        let usual = |given: &Option<String>, text: &Option<String>| {
            let text = given.as_ref().or(text.as_ref());
            text.cloned().filter(|text| !text.is_empty())
        };
        let host = usual(&self.join.tracker, &self.host).unwrap_or_else(|| "localhost".to_owned());
        let (host, port) = dialog::question(person, "Tracker host", Some(&host), |answer| {
            setup::parse_tracker(answer).map_err(|failure| failure.line())
        })?;
        let port = dialog::question(person, "Port", Some(&port.to_string()), parse_port)?;
        let name = usual(&self.join.name, &self.name)
            .unwrap_or_else(|| setup::login_name().as_str().to_owned());
        let name = dialog::question(person, "Your name", Some(&name), |answer| {
            executor::parse_user(answer).map_err(|failure| failure.line())
        })?;
        let host = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        Ok(Asked::Peer(JoinArgs {
            tracker: Some(host),
            name: Some(name.as_str().to_owned()),
            ..self.join.clone()
        }))
    }
}

fn parse_port(answer: &str) -> Result<u16, String> {
    answer
        .parse()
        .map_err(|_| "want a port: a number from 0 to 65535".to_owned())
}

/// Prints what happens by itself, until the peer is gone.
async fn show_events(mut events: mpsc::Receiver<Event>, screen: &Screen) {
    let mut milestones = render::Milestones::default();
    while let Some(event) = events.recv().await {
        match &event {
            Event::Progress(progress) => {
                let _ = screen.object(&render::progress_json(progress));
                let line = render::progress(progress, screen.live_width());
                if !screen.live(&line) && milestones.is_next(progress) {
                    screen.note(&render::progress(progress, None));
                }
            }
            other => {
                if let Some(line) = render::event(other) {
                    screen.note(&line);
                }
            }
        }
    }
}

/// The address as it is typed: without the port when it is the usual one.
fn join_address(host: IpAddr, port: u16) -> String {
    match (host, port) {
        (IpAddr::V6(v6), DEFAULT_PORT) => format!("[{v6}]"),
        (IpAddr::V4(v4), DEFAULT_PORT) => v4.to_string(),
        _ => with_port(host, port),
    }
}

fn with_port(host: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(host, port).to_string()
}

/// Where the demo's processes and others find this very program.
///
/// # Errors
/// When the system does not tell.
pub fn own_binary() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::new(Class::Failed, format!("cannot find this program: {error}")))
}
