//! What runs as a peer: with a prompt, sharing until a signal, or for one command.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::{JoinArgs, OnceArgs, PeerArgs};
use super::ask::{self, Dialog, Purpose};
use super::command::Command;
use super::dialog::{self, Person};
use super::executor::{self, Executor, Patience};
use super::exit::{Class, Failure};
use super::host::PeerHost;
use super::opener::Asking;
use super::options::{AddArgs, DownloadOptions};
use super::place::Place;
use super::prompt::{self, End};
use super::setup::{Home, WithoutHome, parse_accept};
use super::status::Presence;
use super::telling::{Told, show_events};
use super::{Context, history, join_address};
use crate::crypto::kdf::Group;
use crate::peer::{self, Accept, JoinError, Peer, Restart};
use crate::wire::text::{UserName, safe};

/// How long a wrong passphrase holds up the next question, at first and at most; each doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How a peer is meant to live.
#[derive(Clone, Copy)]
struct Manner {
    /// What to do when its state directory cannot be had.
    without: WithoutHome,
    patience: Patience,
    /// Says that it is there, before anything that happens then.
    greets: bool,
    /// Who has one thing to do neither goes on with what another one left, nor leaves something to go on with.
    unfinished: Restart,
    /// Who may talk to it, if not what the settings say.
    accept: Option<Accept>,
}

impl Manner {
    const fn once(args: &OnceArgs) -> Self {
        Self {
            without: if args.standalone {
                WithoutHome::Unwanted
            } else {
                WithoutHome::Temporary
            },
            patience: Patience::Retries,
            greets: false,
            unfinished: Restart::Ignores,
            // Nobody stays to hear it.
            accept: Some(Accept::None),
        }
    }
}

/// What becomes of downloads that are not done.
fn kept(count: usize, goes_on: bool) -> String {
    let (are, they) = match count {
        1 => ("download is", "it goes on"),
        _ => ("downloads are", "they go on"),
    };
    let when = if goes_on {
        "at the next start of p2pfs peer"
    } else {
        "from there when asked for again"
    };
    format!("{count} {are} not done: {they} {when}")
}

impl Context {
    pub(super) async fn peer(&self, args: PeerArgs) -> Result<(), Failure> {
        let group = self.group(Purpose::Join).await?;
        self.run_peer(args, group).await
    }

    pub(super) async fn run_peer(&self, args: PeerArgs, group: Group) -> Result<(), Failure> {
        let is_attended =
            self.dialog() == Dialog::Terminal && !args.no_prompt && args.command.is_empty();
        let patience = if is_attended {
            Patience::Waits
        } else {
            Patience::Retries
        };
        let has_an_end = args.exit || !args.command.is_empty();
        let manner = Manner {
            without: WithoutHome::Fail,
            patience,
            greets: true,
            unfinished: if has_an_end {
                Restart::Ignores
            } else {
                Restart::Restores
            },
            accept: args.accept.as_deref().map(parse_accept),
        };
        let web = self.web_socket(&args)?;
        let executor = self.join(&args.join, group, manner).await?;
        let ending = CancellationToken::new();
        let _ending = ending.clone().drop_guard();
        let started = web.map(|web| self.start_web(web, &executor, ending));
        if let Some(Err(failure)) = started {
            executor.leave().await;
            return Err(failure);
        }
        if !is_attended {
            let tracker = executor.peer().whereabouts();
            super::service::ready(&format!("joined {tracker} as {}", executor.peer().user()));
        }
        let mut work = Box::pin(self.work(&executor, &args));
        let done = tokio::select! {
            // A peer that stays ends well when asked to; one that had work to finish did not finish it.
            () = self.shutdown.token().cancelled() => {
                if has_an_end {
                    Err(self.interrupted())
                } else {
                    Ok(())
                }
            }
            failure = self.until_logged_out(&executor), if !is_attended => Err(failure),
            done = &mut work => done,
        };
        super::service::stopping();
        let unfinished = executor.peer().transfers().len();
        // The prompt goes, and with it what stands above it.
        drop(work);
        self.screen.prompt(None);
        let goes_on = manner.unfinished == Restart::Restores && executor.is_remembered();
        if unfinished > 0 {
            self.screen.note(&kept(unfinished, goes_on));
        }
        executor.leave().await;
        done
    }

    /// Says that it is there.
    fn greet(&self, peer: &Peer, patience: Patience) -> Result<(), Failure> {
        let address = peer.whereabouts();
        if peer.has_password() {
            self.screen.text(&format!("Logged in as {}", peer.user()))?;
        }
        self.screen.text(&format!(
            "Joined {address} as {}, listening on {}.{}",
            peer.user(),
            peer.port(),
            match patience {
                Patience::Waits => " Type help for commands.",
                Patience::Retries => "",
            }
        ))?;
        self.screen.object(&json!({
            "v": 1, "type": "joined", "user": peer.user().as_str(), "port": peer.port(),
            "tracker": peer.tracker().map(|(at, _)| at),
            "tracker_key": peer.tracker().map(|(_, key)| key.fingerprint().to_string()),
        }))
    }

    async fn work(&self, executor: &Executor, args: &PeerArgs) -> Result<(), Failure> {
        if !args.share.is_empty() {
            let paths = args.share.clone();
            let what = AddArgs {
                paths,
                ..AddArgs::default()
            };
            executor.share(&what).await?;
        }
        if !args.get.is_empty() {
            let items = args.get.clone();
            let options = DownloadOptions {
                items,
                ..DownloadOptions::default()
            };
            let done = executor.download(&options, None).await;
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

    /// Shares until a signal comes, or the time is over.
    pub(super) async fn share_here(&self, args: &OnceArgs, what: &AddArgs) -> Result<(), Failure> {
        let group = self.group(Purpose::Join).await?;
        let executor = self.join(&args.join, group, Manner::once(args)).await?;
        let shared = tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            shared = executor.share(what) => shared,
        };
        if shared.is_ok() {
            let way = match executor.peer().tracker() {
                None => "none".to_owned(),
                Some((at, key)) => format!(
                    "{} --tracker-key {}",
                    join_address(at.ip().to_canonical(), at.port()),
                    key.fingerprint().brief()
                ),
            };
            let shares = executor.peer().shares();
            let names: Vec<_> = shares
                .iter()
                .map(|shared| shell_words::quote(shared.file.name.as_str()))
                .collect();
            self.screen.text(&format!(
                "Others get it with:  p2pfs get {} --tracker {way}",
                safe(&names.join(" "))
            ))?;
            let time = async {
                match what.time_and_readers() {
                    Ok((Some(time), _)) => tokio::time::sleep(time).await,
                    _ => std::future::pending().await,
                }
            };
            let out = tokio::select! {
                () = self.shutdown.token().cancelled() => Ok(()),
                () = time => Ok(()),
                failure = self.until_logged_out(&executor) => Err(failure),
            };
            executor.leave().await;
            return out;
        }
        executor.leave().await;
        shared.map_err(|failure| match failure.class {
            Class::Partly => {
                failure.hint("the others are not shared either: leave out what cannot be")
            }
            _ => failure,
        })
    }

    /// Joins, does the work, leaves.
    pub(super) async fn by_own_peer(
        &self,
        args: &OnceArgs,
        command: Command,
    ) -> Result<(), Failure> {
        let group = self.group(Purpose::Join).await?;
        let executor = self.join(&args.join, group, Manner::once(args)).await?;
        let fetches = matches!(command, Command::Download { .. });
        // As long as it is there, so are its downloads.
        let mut work = Box::pin(executor.run(command));
        let done = tokio::select! {
            () = self.shutdown.token().cancelled() => {
                let mut failure = self.interrupted();
                if fetches {
                    "interrupted".clone_into(&mut failure.message);
                    let unfinished = executor.peer().transfers().len();
                    failure.hint = (unfinished > 0).then(|| kept(unfinished, false));
                }
                Err(failure)
            }
            failure = self.until_logged_out(&executor) => Err(failure),
            done = &mut work => done,
        };
        drop(work);
        executor.leave().await;
        done
    }

    async fn join(
        &self,
        join: &JoinArgs,
        group: Group,
        manner: Manner,
    ) -> Result<Executor, Failure> {
        let Manner {
            without,
            patience,
            greets,
            unfinished,
            accept,
        } = manner;
        let home = Home::of_peer(self.global(), without, &self.screen)?;
        let restart = match without {
            WithoutHome::Fail => Restart::Restores,
            WithoutHome::Temporary | WithoutHome::Unwanted => Restart::Ignores,
        };
        let stays = unfinished == Restart::Restores;
        // Who asks this early waits in line: a peer that stays is found as soon as the directory is its own.
        let early = stays.then(|| home.listen()).flatten();
        let network = group.network().clone();
        let mut settings = self.setup.peer(join, &home, restart)?;
        settings.unfinished = unfinished;
        settings.accept = accept.unwrap_or(settings.accept);
        let small = match self.setup.place(join)? {
            Place::Host(..) => None,
            Place::Auto => {
                self.find_tracker(&mut settings, &group).await?;
                None
            }
            Place::Nowhere => {
                Some(self.do_without_tracker(&mut settings, &group, &home.identity)?)
            }
        };
        let (file, screen) = (join.password_file.clone(), self.screen.clone());
        settings.password = self
            .asked(move || ask::password_file(file.as_deref(), &screen))
            .await?;
        let login = match &join.login {
            Some(_) => settings.user.clone(),
            None => self.setup.user_name(join)?,
        };
        if settings.password.is_some() {
            // A password is one user's, also where the name would only be borrowed.
            settings.user = login.clone();
        }
        let asks_for_password = self.dialog() == Dialog::Terminal && settings.password.is_none();
        let mut group = group;
        let mut pause = FIRST_PAUSE;
        let (peer, events) = loop {
            let joining = Peer::join(settings.clone(), group.clone(), home.identity.clone());
            let joined = tokio::select! {
                () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
                joined = joining => joined,
            };
            match joined {
                Err(error @ JoinError::WrongPassphrase { .. })
                    if self.asks_for_passphrase() && pause <= LONGEST_PAUSE =>
                {
                    self.screen.tell(&Failure::from(error));
                    self.pause(&mut pause, Duration::ZERO).await?;
                    group = self.group(Purpose::Join).await?;
                }
                Err(JoinError::PasswordNeeded { .. }) if asks_for_password => {
                    let asked = settings.user.clone();
                    self.ask_login(
                        &mut settings,
                        join,
                        if asked == login { asked } else { login.clone() },
                    )
                    .await?;
                }
                Err(error @ (JoinError::WrongLogin | JoinError::LoginTooOften(_)))
                    if asks_for_password && pause <= LONGEST_PAUSE =>
                {
                    let wait = match &error {
                        JoinError::LoginTooOften(wait) => *wait,
                        _ => Duration::ZERO,
                    };
                    self.screen.tell(&Failure::from(error));
                    self.pause(&mut pause, wait).await?;
                    let asked = settings.user.clone();
                    self.ask_login(&mut settings, join, asked).await?;
                }
                joined => break joined?,
            }
        };
        let screen = self.screen.clone();
        let history = home.dir.as_ref().map(|dir| dir.join(history::FILE));
        let asking = match patience {
            Patience::Waits => Asking::AtPrompt,
            Patience::Retries => self.asking(),
        };
        let talking = self.setup.talking();
        let executor = Executor::new(peer, screen.clone(), patience)
            .with_history(history)
            .asking(asking)
            .with_talking(talking.clone(), self.setup.keeps());
        let presence = Arc::new(Presence::default());
        let told = Told::default();
        let host = PeerHost {
            executor: executor.clone(),
            presence: Arc::clone(&presence),
            told: told.clone(),
            since: Timestamp::now(),
            network,
            stays,
        };
        let gone = CancellationToken::new();
        let people = executor.peer().people().clone();
        let listener = early.or_else(|| home.listen());
        let asked = listener.map(|it| tokio::spawn(it.run(Arc::new(host), gone.clone())));
        if greets {
            self.greet(executor.peer(), patience)?;
        }
        executor.tell_with(async move {
            let talks = (&talking, &people);
            show_events(events, &screen, (&*presence, &told), talks, patience).await;
            if let Some(small) = small {
                small.end().await;
            }
            gone.cancel();
            if let Some(asked) = asked {
                let _ = asked.await;
            }
            // The lock on the state directory lives as long as events are shown: until the peer is gone.
            drop(home);
        });
        Ok(executor)
    }
}

impl Context {
    /// Holds up the next question, longer each time.
    async fn pause(&self, pause: &mut Duration, least: Duration) -> Result<(), Failure> {
        let wait = least.max(*pause);
        *pause *= 2;
        tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// Asks somebody, on a thread that may wait.
    pub(super) async fn asked<T: Send + 'static>(
        &self,
        ask: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let asking = tokio::task::spawn_blocking(ask);
        tokio::select! {
            () = self.shutdown.token().cancelled() => Err(self.interrupted()),
            asked = asking => asked.map_err(|error| Failure::new(Class::Failed, error.to_string()))?,
        }
    }

    /// Asks for user, unless `--login` said it, and password.
    async fn ask_login(
        &self,
        settings: &mut peer::Settings,
        join: &JoinArgs,
        user: UserName,
    ) -> Result<(), Failure> {
        let asks_for_user = join.login.is_none();
        let (user, password) = self
            .asked(move || {
                let user = if asks_for_user {
                    dialog::question(&mut Person, "User name", Some(user.as_str()), |answer| {
                        executor::parse_user(answer).map_err(|failure| failure.line())
                    })?
                } else {
                    user
                };
                Ok((user, dialog::password(&mut Person, "Password")?))
            })
            .await?;
        (settings.user, settings.password) = (user, Some(password));
        Ok(())
    }

    /// Ends what runs when the tracker ends the login: nobody can be asked for another password.
    async fn until_logged_out(&self, executor: &Executor) -> Failure {
        let reason = executor.peer().logged_out().await;
        Failure::new(Class::Login, reason)
    }
}
