//! What people type and see: one function per role.

pub mod args;
pub mod ask;
mod audience;
mod chat;
pub mod choice;
mod chronicle;
pub mod client;
pub mod command;
pub mod completion;
pub mod demo;
pub mod dialog;
mod discovery;
mod doctor;
pub mod editor;
pub mod executor;
pub mod exit;
pub mod history;
pub mod host;
mod identities;
pub mod listing;
pub mod live;
pub mod locking;
pub mod logs;
pub mod member;
pub mod modes;
pub mod oneshot;
pub mod opener;
pub mod options;
pub mod passphrase;
pub mod place;
pub mod prompt;
mod qr;
pub mod questions;
pub mod quests;
pub mod relogin;
pub mod render;
pub mod screen;
pub mod seen;
mod service;
pub mod settings;
pub mod setup;
pub mod shipping;
pub mod status;
pub mod steer;
pub mod table;
mod talking;
pub mod telling;
pub mod topics;
pub mod usage;
pub mod user;
mod web;

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tracing::{info, warn};

use self::args::{
    Action, Cli, ConnectArgs, Global, JoinArgs, PassphraseArgs, PeerArgs, PersonArgs, SomebodyArgs,
    TrackerArgs, TrustArgs, VerifyArgs,
};
use self::ask::{Dialog, Purpose};
use self::command::Command;
use self::dialog::Person;
use self::exit::{Class, Failure};
use self::qr::Squares;
use self::questions::{Asked, Questions};
use self::screen::Screen;
use self::setup::{DEFAULT_PORT, Home, Setup};
use crate::crypto::kdf::{Group, NetworkName};
use crate::ipc::Listener;
use crate::shutdown::Shutdown;
use crate::tracker::Tracker;

/// Runs what was asked for.
///
/// # Errors
/// What the program ends with, unless all went well.
pub async fn run(cli: Cli, screen: &Screen) -> Result<(), Failure> {
    let _restoring = modes::Restoring;
    tell_panics(screen);
    let shutdown = Shutdown::on_signals(modes::restore)
        .map_err(|error| Failure::new(Class::Failed, format!("cannot handle signals: {error}")))?;
    crate::net::raise_descriptor_limit();
    // Also where a file is wrong, or not there yet.
    if let Some(Action::Config(action)) = &cli.action {
        return settings::run(action, &cli.global, screen);
    }
    if let Some(Action::Doctor(args)) = &cli.action {
        return tokio::select! {
            () = shutdown.token().cancelled() => Err(interrupted(&shutdown)),
            done = doctor::run(&cli.global, args, screen) => done,
        };
    }
    let setup = Setup::new(cli.global)?;
    let context = Context {
        setup,
        screen: screen.clone(),
        shutdown,
    };
    match cli.action {
        None => context.interactive().await,
        Some(Action::Tracker(args)) => context.tracker(args).await,
        Some(Action::Peer(args)) => context.peer(args).await,
        Some(Action::Share(args)) => context.share(args).await,
        Some(Action::Send(args)) => context.send(args).await,
        Some(Action::Unshare(args)) => context.unshare(args.items).await,
        Some(Action::Get(args)) => context.get(args).await,
        Some(Action::Unlock(args)) => context.unlock(args).await,
        Some(Action::Search(args)) => context.once(&args.once, Command::Search(args.what)).await,
        Some(Action::List(args)) => context.list(args).await,
        Some(Action::Files(args)) => {
            context
                .once(&args.once, Command::AllFiles(args.options))
                .await
        }
        Some(Action::Peers(args)) => {
            let all = args.all;
            context.once(&args.once, Command::Peers { all }).await
        }
        Some(Action::Lap(once)) => context.once(&once, Command::Lap).await,
        Some(Action::Info(args)) => {
            let item = args.item;
            context.once(&args.once, Command::Info { item }).await
        }
        Some(Action::Transfers(args)) => context.transfers(args).await,
        Some(Action::Pause(args)) => context.steer(Command::Pause { ids: args.ids }).await,
        Some(Action::Resume(args)) => context.steer(Command::Resume { ids: args.ids }).await,
        Some(Action::Cancel(args)) => context.steer(Command::Cancel { ids: args.ids }).await,
        Some(Action::Limit(args)) => context.steer(Command::Limit { words: args.words }).await,
        Some(Action::Connect(ConnectArgs { user, wait })) => {
            context.steer(Command::Connect { user, wait }).await
        }
        Some(Action::Disconnect(SomebodyArgs { user })) => {
            context.steer(Command::Disconnect { user }).await
        }
        Some(Action::Msg(args)) => context.msg(args).await,
        Some(Action::Accept(SomebodyArgs { user })) => {
            context.steer(Command::Accept { user }).await
        }
        Some(Action::Deny(SomebodyArgs { user })) => context.steer(Command::Deny { user }).await,
        Some(Action::Who(once)) => context.once(&once, Command::Who).await,
        Some(Action::Id) => context.about_people(JoinArgs::default(), Command::Id).await,
        Some(Action::Trust(TrustArgs { user, print, join })) => {
            context
                .about_people(join, Command::Trust { user, print })
                .await
        }
        Some(Action::Untrust(PersonArgs { who, join })) => {
            context.about_people(join, Command::Untrust { who }).await
        }
        Some(Action::Block(PersonArgs { who, join })) => {
            context.about_people(join, Command::Block { who }).await
        }
        Some(Action::Unblock(PersonArgs { who, join })) => {
            context.about_people(join, Command::Unblock { who }).await
        }
        Some(Action::Verify(VerifyArgs { user, join })) => {
            context.about_people(join, Command::Verify { user }).await
        }
        Some(Action::Web(args)) => context.web(args).await,
        Some(Action::Status) => tokio::select! {
            () = context.shutdown.token().cancelled() => Err(context.interrupted()),
            shown = status::run(context.global(), &context.screen) => shown,
        },
        // They ran before any file was read.
        Some(Action::Config(_) | Action::Doctor(_)) => Ok(()),
        Some(Action::Passphrase(args)) => context.passphrase(&args),
        Some(Action::Completions(args)) => shipping::completions(args, &context.screen),
        Some(Action::Man(args)) => shipping::man(&args),
        Some(Action::User(action)) => context.user(action).await,
        Some(Action::Demo(args)) => {
            let done = demo::run(args.file, &context.screen, context.shutdown.token()).await;
            done.map_err(|failure| match failure.class {
                Class::Interrupted => context.interrupted(),
                _ => failure,
            })
        }
        Some(Action::Topic { topic }) => context.screen.print(topics::text(&topic)?),
    }
}

/// A task's panic is one line of the log: it must not run through a half-typed line.
fn tell_panics(screen: &Screen) {
    let (screen, main) = (screen.clone(), std::thread::current().id());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().id() == main {
            modes::restore();
            usual(panic);
        } else {
            screen.log(tracing::Level::ERROR, &panic.to_string());
        }
    }));
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
        // It reads the users again then.
        self.shutdown.outlive_hangups();
        let (dir, lock) = Home::of_tracker(self.global())?;
        let settings = self.setup.tracker(args, dir.clone())?;
        let network = group.network().clone();
        let bind = settings.bind;
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
        if args.qr {
            self.show_code(&join)?;
        }
        self.screen.text(&format!("Its key: {key}"))?;
        if let Some(address) = tracker.metrics_address() {
            self.screen
                .text(&format!("Metrics at  http://{address}/metrics"))?;
        }
        self.screen.object(&json!({
            "v": 1, "type": "tracker", "port": port, "key": key.to_string(), "join": join,
            "addresses": addresses, "metrics": tracker.metrics_address(),
        }))?;
        let rights = std::fs::metadata(&dir).map_or(0, |found| found.mode() & 0o7777);
        info!(
            address = %with_port(host, port), key = %key.brief(), network = network.as_str(),
            state = %dir.display(), rights = format_args!("{rights:o}"),
            uid = rustix::process::geteuid().as_raw(), version = env!("CARGO_PKG_VERSION"),
            "the tracker starts"
        );
        let answering = status::TrackerHost::new(&tracker, network.as_str());
        let asked = match Listener::bind(&dir, &lock) {
            Ok(listener) => {
                let shutdown = self.shutdown.token().clone();
                Some(tokio::spawn(listener.run(Arc::new(answering), shutdown)))
            }
            Err(error) => {
                warn!(%error, dir = %dir.display(), "p2pfs status will not find this tracker");
                None
            }
        };
        if !args.no_beacon {
            let shutdown = self.shutdown.token().clone();
            self.show_tracker(&network, (bind, port), shutdown);
        }
        service::ready(&format!("listening on {}", with_port(host, port)));
        tracker.run(self.shutdown.token().clone()).await;
        service::stopping();
        // Only who holds the lock removes the socket.
        if let Some(asked) = asked {
            let _ = asked.await;
        }
        drop(lock);
        Ok(())
    }

    /// The line for others, for a camera. It holds no secret: the passphrase is told by other ways.
    fn show_code(&self, join: &str) -> Result<(), Failure> {
        match (Squares::of(join), self.screen.width()) {
            (None, _) => self.screen.note("! this line is too long for a QR code"),
            (Some(code), Some(width)) if width < code.columns() => self.screen.note(&format!(
                "! the QR code needs {} columns, and the terminal has {width}",
                code.columns()
            )),
            (Some(code), _) => self.screen.text(&code.lines(qr::has_colours()))?,
        }
        Ok(())
    }

    fn passphrase(&self, args: &PassphraseArgs) -> Result<(), Failure> {
        if args.check.is_none() {
            return self
                .screen
                .print(&passphrase::generate(usize::from(args.words)));
        }
        let file = self.global().passphrase_file.as_deref();
        let rating = passphrase::rate(&ask::passphrase_to_rate(file, self.dialog(), &self.screen)?);
        self.screen.text(&rating.to_string())?;
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
        interrupted(&self.shutdown)
    }
}

fn interrupted(shutdown: &Shutdown) -> Failure {
    let class = if shutdown.code() == 143 {
        Class::Terminated
    } else {
        Class::Interrupted
    };
    Failure::new(class, "")
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
