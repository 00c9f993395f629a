//! From flags, environment and files to the settings of a role; and the state directory.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::{AppStrategy as _, AppStrategyArgs, choose_app_strategy};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tracing::warn;

use super::args::{Global, JoinArgs, TrackerArgs};
use super::chronicle::Chronicle;
use super::exit::{Class, Failure};
use super::history::Keeps;
use super::place::Place;
use super::screen::Screen;
use super::talking::Talking;
use crate::config::{Config, parse_bind, parse_ports, parse_rate};
use crate::crypto::identity::Identity;
use crate::crypto::kdf::NetworkName;
use crate::crypto::random::OsRandom;
use crate::disk::{self, DirLock, LockError, create_private_dir, lock_dir};
use crate::ipc::Listener;
use crate::keyfile;
use crate::peer::{Accept, Limits};
use crate::proto::backoff::Retry;
use crate::wire::id::Fingerprint;
use crate::wire::text::{UserName, safe};
use crate::{lan, peer, tracker};

/// The tracker's port, and where peers look for it.
pub const DEFAULT_PORT: u16 = 9000;
/// UDP port of beacons.
const DEFAULT_BEACON_PORT: u16 = 9009;
const DEFAULT_PEER_PORTS: (u16, u16) = (8001, 8100);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(2);
const DEFAULT_SILENCE: Duration = Duration::from_secs(3);
const DEFAULT_MAX_PEERS: usize = 10_000;
const DEFAULT_PREFIX: &str = "downloaded_";
const DEFAULT_SIMULTANEOUS: usize = 8;
/// Longest prefix of downloads, in bytes.
const MAX_PREFIX_LEN: usize = 64;
const DEFAULT_DENY_FOR: Duration = Duration::from_secs(300);

/// Who may talk to us, from a word of [`crate::config::ACCEPT`].
pub(super) fn parse_accept(word: &str) -> Accept {
    match word {
        "trusted" => Accept::Trusted,
        "all" => Accept::All,
        "none" => Accept::None,
        _ => Accept::Ask,
    }
}

/// Everything that was said before the role begins.
#[derive(Clone)]
pub struct Setup {
    /// Flags and environment of every command.
    pub global: Global,
    /// The files.
    pub config: Config,
}

/// What this program creates is for its owner alone, until it is a finished download; what it has in memory is
/// nobody's: no core dump, and no other program of the same account looks into it.
pub fn keep_private() {
    disk::keep_private();
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Either may be forbidden where it runs; the other one is left then.
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

impl Setup {
    /// Reads the configuration files.
    ///
    /// # Errors
    /// When one cannot be understood.
    pub fn new(global: Global) -> Result<Self, Failure> {
        let config = Config::load(global.config.as_deref(), user_file().as_deref())?;
        Ok(Self { global, config })
    }

    /// The name that separates groups.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn network(&self) -> Result<NetworkName, Failure> {
        match self
            .global
            .network
            .as_ref()
            .or(self.config.group.network.as_ref())
        {
            Some(name) => name
                .parse()
                .map_err(|error| Failure::usage(format!("\"{name}\": {error}"))),
            None => Ok(NetworkName::default()),
        }
    }

    /// How the tracker runs, with its state in `state_dir`.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub fn tracker(
        &self,
        args: &TrackerArgs,
        state_dir: PathBuf,
    ) -> Result<tracker::Settings, Failure> {
        let config = &self.config.tracker;
        let span = |flag: Option<crate::config::Span>,
                    file: Option<crate::config::Span>,
                    default| { flag.or(file).map_or(default, |span| span.0) };
        let heartbeat = span(args.heartbeat, config.heartbeat, DEFAULT_HEARTBEAT);
        let silence = span(
            args.timeout,
            config.timeout,
            DEFAULT_SILENCE.max(heartbeat * 3 / 2),
        );
        if heartbeat < Duration::from_millis(200) || heartbeat > Duration::from_secs(60) {
            return Err(Failure::usage("--heartbeat must be between 200ms and 1m"));
        }
        if silence <= heartbeat || silence > heartbeat * 4 {
            return Err(Failure::usage(
                "--timeout must be longer than --heartbeat, and at most four times as long",
            ));
        }
        Ok(tracker::Settings {
            bind: bind(args.bind.as_ref().or(config.bind.as_ref()))?,
            port: args.port.or(config.port).unwrap_or(DEFAULT_PORT),
            workers: args
                .workers
                .or(config.workers)
                .filter(|workers| *workers > 0),
            heartbeat,
            silence,
            max_peers: args
                .max_peers
                .or(config.max_peers)
                .unwrap_or(DEFAULT_MAX_PEERS),
            state_dir,
            credentials: args
                .credentials
                .clone()
                .or_else(|| config.credentials.clone())
                .filter(|path| !path.as_os_str().is_empty()),
            metrics: metrics_address(args.metrics.as_ref().or(config.metrics.as_ref()))?,
        })
    }

    /// Where users are kept when nobody says otherwise.
    #[must_use]
    pub fn usual_credentials(&self) -> Option<PathBuf> {
        state_dir(&self.global, "tracker").map(|dir| dir.join("credentials"))
    }

    /// Where the tracker is.
    ///
    /// # Errors
    /// When nobody said it, or it makes no sense.
    pub fn place(&self, args: &JoinArgs) -> Result<Place, Failure> {
        let configured = self.config.tracker.address.as_ref();
        let address = args.tracker.as_ref().or(configured);
        let address = address.ok_or_else(|| {
            Failure::usage("no tracker").hint(
                "give --tracker HOST, or set P2PFS_TRACKER; --tracker auto looks for one on the local network",
            )
        })?;
        Place::parse(address)
    }

    /// How the local network is used, by somebody who listens on `bind`; absent where it shall not be.
    #[must_use]
    pub fn lan(&self, bind: Option<IpAddr>) -> Option<lan::Settings> {
        let config = &self.config.discovery;
        config.lan.unwrap_or(true).then(|| lan::Settings {
            port: config.port.unwrap_or(DEFAULT_BEACON_PORT),
            bind,
        })
    }

    /// How the peer joins and works.
    ///
    /// # Errors
    /// When a value makes no sense, or no tracker was named.
    pub fn peer(
        &self,
        args: &JoinArgs,
        home: &Home,
        restart: peer::Restart,
    ) -> Result<peer::Settings, Failure> {
        let config = &self.config.peer;
        let (tracker_host, tracker_port) = match self.place(args)? {
            Place::Host(host, port) => (host, port),
            // Not known yet.
            Place::Auto | Place::Nowhere => ("localhost".to_owned(), DEFAULT_PORT),
        };
        let ports = args.port.as_ref().or(config.port.as_ref());
        let prefix = config
            .prefix
            .clone()
            .unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
        if prefix.len() > MAX_PREFIX_LEN
            || prefix.contains(['/', '\\'])
            || prefix.chars().any(char::is_control)
        {
            return Err(Failure::usage(
                "peer.prefix must be at most 64 bytes, without slashes",
            ));
        }
        let downloads = args
            .out
            .clone()
            .or_else(|| config.downloads.clone())
            .unwrap_or_else(|| ".".into());
        Ok(peer::Settings {
            tracker_host,
            tracker_port,
            tracker_key: self.tracker_key(args)?,
            tracker_pin: None,
            lan: None,
            user: match &args.login {
                Some(login) => super::executor::parse_user(login)?,
                None => home.user_name(self.user_name(args)?)?,
            },
            password: None,
            ports: ports
                .map_or(Ok(DEFAULT_PEER_PORTS), |text| parse_ports(text))
                .map_err(Failure::usage)?,
            bind: bind(args.bind.as_ref().or(config.bind.as_ref()))?,
            downloads,
            prefix,
            seed: !args.no_seed && (args.seed || config.seed.unwrap_or(true)),
            limits: self.limits(args)?,
            simultaneous: self
                .config
                .limits
                .downloads
                .unwrap_or(DEFAULT_SIMULTANEOUS)
                .max(1),
            retry: self.retry(),
            accept: config.accept.as_deref().map_or(Accept::Ask, parse_accept),
            deny_for: config.deny_for.map_or(DEFAULT_DENY_FOR, |span| span.0),
            state_dir: home.dir.clone(),
            restart,
            unfinished: peer::Restart::Ignores,
        })
    }

    /// What becomes of what is said.
    #[must_use]
    pub(super) fn talking(&self) -> Talking {
        let config = &self.config.peer;
        let file = config.chat_file.clone();
        let file = file.filter(|path| !path.as_os_str().is_empty());
        Talking::new(config.bell.unwrap_or(false), file.map(Chronicle::at))
    }

    /// What is kept of typed lines.
    #[must_use]
    pub(super) fn keeps(&self) -> Keeps {
        match self.config.peer.history_private {
            Some(false) => Keeps::WhatIsSaid,
            None | Some(true) => Keeps::Commands,
        }
    }

    fn limits(&self, args: &JoinArgs) -> Result<Limits, Failure> {
        let config = &self.config.limits;
        let rate = |flag: Option<&String>, key: Option<&String>| {
            let text = flag.or(key).filter(|text| !text.is_empty());
            text.map_or(Ok(None), |text| parse_rate(text))
                .map_err(Failure::usage)
        };
        Ok(Limits {
            up: rate(args.up_limit.as_ref(), config.up.as_ref())?,
            down: rate(args.down_limit.as_ref(), config.down.as_ref())?,
        })
    }

    fn tracker_key(&self, args: &JoinArgs) -> Result<Option<Fingerprint>, Failure> {
        match self
            .config
            .tracker
            .key
            .as_deref()
            .filter(|key| !key.is_empty())
        {
            _ if args.tracker_key.is_some() => Ok(args.tracker_key),
            Some(key) => key
                .parse()
                .map(Some)
                .map_err(|error| Failure::usage(format!("tracker.key is {error}"))),
            None => Ok(None),
        }
    }

    /// The name that somebody said, or that of the account.
    ///
    /// # Errors
    /// When it cannot be one.
    pub fn user_name(&self, args: &JoinArgs) -> Result<UserName, Failure> {
        let given = args
            .name
            .as_ref()
            .or(self.config.peer.name.as_ref())
            .filter(|name| !name.is_empty());
        match given {
            Some(name) => super::executor::parse_user(name),
            None => Ok(login_name()),
        }
    }

    fn retry(&self) -> Retry {
        let (config, default) = (&self.config.retry, Retry::default());
        Retry {
            attempts: config.attempts.unwrap_or(default.attempts).max(1),
            first: config.first.map_or(default.first, |span| span.0),
            factor: config
                .factor
                .filter(|factor| factor.is_finite())
                .unwrap_or(default.factor),
            most: config.most.map_or(default.most, |span| span.0),
        }
    }
}

/// The user's own configuration file.
#[must_use]
pub fn user_file() -> Option<PathBuf> {
    strategy().map(|strategy| strategy.config_dir().join("config.toml"))
}

/// Does every setting of `config` make sense, whichever role it is for?
///
/// # Errors
/// What does not.
pub fn check(config: &Config) -> Result<(), Failure> {
    let setup = Setup {
        global: Global::default(),
        config: config.clone(),
    };
    setup.network()?;
    setup.tracker(&TrackerArgs::default(), PathBuf::new())?;
    let join = JoinArgs {
        tracker: config
            .tracker
            .address
            .clone()
            .or(Some("localhost".to_owned())),
        ..JoinArgs::default()
    };
    let restart = peer::Restart::Ignores;
    setup.peer(&join, &Home::temporary(), restart).map(drop)
}

/// The name of the account, as far as it can be a user's name; "peer" otherwise.
#[must_use]
pub fn login_name() -> UserName {
    let names = ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(|key| std::env::var(key).ok());
    let fallback = || "peer".parse().expect("letters make a name");
    names
        .filter_map(|name| name.parse().ok())
        .next()
        .unwrap_or_else(fallback)
}

fn bind(text: Option<&String>) -> Result<Option<IpAddr>, Failure> {
    text.map_or(Ok(None), |text| parse_bind(text))
        .map_err(Failure::usage)
}

fn metrics_address(text: Option<&String>) -> Result<Option<SocketAddr>, Failure> {
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| tracker::scrape::parse_address(text))
        .transpose()
        .map_err(Failure::usage)
}

fn strategy() -> Option<impl etcetera::AppStrategy> {
    let args = AppStrategyArgs {
        top_level_domain: "org".to_owned(),
        author: "p2pfs".to_owned(),
        app_name: "p2pfs".to_owned(),
    };
    choose_app_strategy(args).ok()
}

/// Where a role keeps its keys; held as long as this lives.
pub struct Home {
    /// The directory; absent for a peer that keeps nothing.
    pub dir: Option<PathBuf>,
    /// Who we are.
    pub identity: Identity,
    /// This identity is new and will be forgotten.
    is_temporary: bool,
    lock: Option<DirLock>,
}

/// What to do when the state directory cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutHome {
    /// Fail.
    Fail,
    /// Go on as somebody new for once.
    Temporary,
    /// It is not wanted at all: go on as somebody new for once.
    Unwanted,
}

impl Home {
    /// The tracker's directory, locked.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn of_tracker(global: &Global) -> Result<(PathBuf, DirLock), Failure> {
        let dir = state_dir(global, "tracker").ok_or_else(|| {
            Failure::usage("there is no home directory to keep the tracker's keys in")
                .hint("give --state-dir DIR")
        })?;
        let lock = open(&dir)?;
        Ok((dir, lock))
    }

    /// The peer's directory, locked, and its identity.
    ///
    /// # Errors
    /// When it cannot be had and `without` does not allow for that.
    pub fn of_peer(
        global: &Global,
        without: WithoutHome,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        if without == WithoutHome::Unwanted {
            return Ok(Self::temporary());
        }
        let Some(dir) = state_dir(global, "peer") else {
            screen.note(&forgetting("no home directory"));
            return Ok(Self::temporary());
        };
        match open(&dir) {
            Ok(lock) => {
                let identity = keyfile::identity(&dir, &mut OsRandom::new())?;
                Ok(Self {
                    dir: Some(dir),
                    identity,
                    is_temporary: false,
                    lock: Some(lock),
                })
            }
            Err(failure) if failure.class == Class::Held && without == WithoutHome::Temporary => {
                Ok(Self::temporary())
            }
            Err(failure) if failure.class == Class::Local => {
                screen.note(&forgetting(&safe(&failure.message)));
                Ok(Self::temporary())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Listens in the directory, if there is one.
    #[must_use]
    pub fn listen(&self) -> Option<Listener> {
        let (dir, lock) = (self.dir.as_ref()?, self.lock.as_ref()?);
        match Listener::bind(dir, lock) {
            Ok(listener) => Some(listener),
            Err(error) => {
                warn!(%error, dir = %dir.display(), "p2pfs status will not find this peer");
                None
            }
        }
    }

    /// Somebody new, who is forgotten.
    pub(super) fn temporary() -> Self {
        let identity = Identity::generate(&mut OsRandom::new());
        Self {
            dir: None,
            identity,
            is_temporary: true,
            lock: None,
        }
    }

    /// The name to log in with: one that will be forgotten must not take a name for good.
    fn user_name(&self, name: UserName) -> Result<UserName, Failure> {
        if !self.is_temporary {
            return Ok(name);
        }
        let digits = &self.identity.id().fingerprint().to_string()[..4];
        let room = UserName::MAX_LEN - digits.len() - 1;
        let cut = name.as_str().floor_char_boundary(room);
        super::executor::parse_user(&format!("{}-{digits}", &name.as_str()[..cut]))
    }
}

/// Told to whoever runs a peer that keeps nothing.
fn forgetting(why: &str) -> String {
    format!(
        "! {why}: this peer's identity and its tracker's key will be forgotten (--state-dir DIR keeps them)"
    )
}

/// Has no tracker ever run here?
#[must_use]
pub fn is_new_tracker(global: &Global) -> bool {
    state_dir(global, "tracker").is_none_or(|dir| !dir.join("tracker.seed").exists())
}

/// Where a role keeps its state.
#[must_use]
pub fn state_dir(global: &Global, role: &str) -> Option<PathBuf> {
    let root = match &global.state_dir {
        Some(dir) => dir.clone(),
        None => {
            let strategy = strategy()?;
            strategy.state_dir().unwrap_or_else(|| strategy.data_dir())
        }
    };
    Some(root.join(role))
}

fn open(dir: &Path) -> Result<DirLock, Failure> {
    create_private_dir(dir).map_err(|source| {
        Failure::from(LockError::Io {
            dir: dir.to_owned(),
            source,
        })
    })?;
    Ok(lock_dir(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_forgotten_takes_no_name_for_good() {
        let home = Home::temporary();
        let name = home.user_name("hans".parse().unwrap()).unwrap();
        assert!(name.as_str().starts_with("hans-") && name.as_str().len() == 9);
        let long = home.user_name("ä".repeat(32).parse().unwrap()).unwrap();
        assert!(long.as_str().len() <= UserName::MAX_LEN);
    }
}
