//! `p2pfs doctor`: looks at what p2pfs needs, and says what to do about what is missing.
//!
//! It changes nothing: no key is made, no tracker is remembered, and nobody logs in.

mod machine;

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};

use self::machine::{clock, configuration, downloads, open_files, state};
use super::args::{Global, JoinArgs, TrackerArgs, from_environment};
use super::ask::{self, Dialog, Purpose};
use super::discovery;
use super::exit::{Class, Failure};
use super::logs;
use super::place::Place;
use super::screen::Screen;
use super::setup::{self, Home, Setup};
use super::status;
use crate::crypto::identity::Identity;
use crate::crypto::kdf::Group;
use crate::crypto::random::OsRandom;
use crate::ipc::{self, AskError, Request};
use crate::net;
use crate::peer::enrol::{self, EnrolError, Enrolled, Target, enrol};
use crate::peer::listen::Listener;
use crate::peer::membership::Membership;
use crate::peer::pins::{Pin, Pins};
use crate::peer::{self, Restart};
use crate::wire::text::safe;

/// What a check comes to.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// Nothing to do.
    Fine(String),
    /// It works, but.
    Warning(String, String),
    /// It does not work.
    Wrong(Failure),
}

impl Finding {
    fn of<E: Into<Failure>>(checked: Result<String, E>) -> Self {
        match checked {
            Ok(message) => Self::Fine(message),
            Err(error) => Self::Wrong(error.into()),
        }
    }

    const fn state(&self) -> &'static str {
        match self {
            Self::Fine(_) => "ok",
            Self::Warning(..) => "warning",
            Self::Wrong(_) => "failed",
        }
    }
}

/// Shows what is found, and counts.
struct Report<'a> {
    screen: &'a Screen,
    checks: usize,
    warnings: usize,
    failed: usize,
}

impl Report<'_> {
    fn tell(&mut self, name: &str, finding: Finding) -> Result<(), Failure> {
        let state = finding.state();
        self.checks += 1;
        let (message, hint) = match finding {
            Finding::Fine(message) => (message, None),
            Finding::Warning(message, hint) => {
                self.warnings += 1;
                (message, Some(hint))
            }
            Finding::Wrong(failure) => {
                self.failed += 1;
                (failure.message, failure.hint)
            }
        };
        let todo = hint.as_ref().map(|hint| format!("; {hint}"));
        let line = format!(
            "{state:<8} {name:<13} {message}{}",
            todo.unwrap_or_default()
        );
        self.screen.text(&safe(&line))?;
        self.screen.object(&json!({
            "v": 1, "type": "check", "name": name, "state": state, "message": message, "hint": hint,
        }))
    }

    fn end(&self) -> Result<(), Failure> {
        let Self { checks, failed, .. } = self;
        if *failed > 0 {
            let line = format!("{failed} of {checks} checks failed");
            return Err(Failure::new(Class::Failed, line));
        }
        self.screen.object(&json!({
            "v": 1, "type": "result", "command": "doctor", "ok": true, "checks": checks,
            "warnings": self.warnings,
        }))
    }
}

/// Looks at everything, as whoever starts a peer with these options would meet it.
///
/// # Errors
/// When something does not work.
pub(super) async fn run(global: &Global, args: &JoinArgs, screen: &Screen) -> Result<(), Failure> {
    let mut report = Report {
        screen,
        checks: 0,
        warnings: 0,
        failed: 0,
    };
    let (config, found) = configuration(global);
    report.tell("configuration", found)?;
    let setup = Setup {
        global: global.clone(),
        config,
    };
    if let Some(path) = logs::file_of(global, &setup.config) {
        let told = logs::check(&path).map(|()| format!("{} can be written", path.display()));
        report.tell("log", Finding::of(told))?;
    }
    for role in ["peer", "tracker"] {
        if let Some(dir) = setup::state_dir(global, role) {
            report.tell("state", state(&dir))?;
        } else {
            let hint = "give --state-dir DIR".to_owned();
            report.tell(
                "state",
                Finding::Warning("there is no home directory".to_owned(), hint),
            )?;
        }
    }
    let named = args
        .tracker
        .as_ref()
        .or(setup.config.tracker.address.as_ref());
    let join = JoinArgs {
        tracker: named.cloned().or_else(|| Some("localhost".to_owned())),
        ..args.clone()
    };
    let is_named = named.is_some();
    match setup.peer(&join, &Home::temporary(), Restart::Ignores) {
        Ok(settings) => {
            report.tell("peer port", peer_port(global, &settings).await)?;
            tracker_port(&setup, &mut report).await?;
            report.tell("downloads", downloads(&settings.downloads))?;
            report.tell("open files", open_files())?;
            if is_named {
                whereabouts(&setup, &join, settings, &mut report).await?;
            } else {
                let hint = "give --tracker HOST to try one".to_owned();
                report.tell(
                    "tracker",
                    Finding::Warning("none is named".to_owned(), hint),
                )?;
                report.tell("clock", clock(SystemTime::now(), None))?;
            }
        }
        Err(failure) => report.tell("settings", Finding::Wrong(failure))?,
    }
    report.end()
}

/// What runs with the state directory of a role tells of itself.
async fn running(global: &Global, role: &str) -> Result<Option<Value>, Failure> {
    let Some(dir) = setup::state_dir(global, role) else {
        return Ok(None);
    };
    let mut told = None;
    match ipc::ask(&dir, &Request::new(status::COMMAND), |line| {
        told = Some(line);
    })
    .await
    {
        Ok(_) => Ok(told),
        Err(AskError::Nobody(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn held(told: &Value, role: &str) -> String {
    format!(
        "{} is held by the {role} that runs here, pid {}",
        told["port"], told["pid"]
    )
}

async fn peer_port(global: &Global, settings: &peer::Settings) -> Finding {
    match running(global, "peer").await {
        Err(failure) => Finding::Wrong(failure),
        Ok(Some(told)) => Finding::Fine(held(&told, "peer")),
        Ok(None) => Finding::of(
            Listener::bind(settings.bind, settings.ports)
                .map(|bound| format!("{} is free", bound.port())),
        ),
    }
}

/// The tracker's port, where one runs or ran.
async fn tracker_port(setup: &Setup, report: &mut Report<'_>) -> Result<(), Failure> {
    let global = &setup.global;
    let found = match running(global, "tracker").await {
        Err(failure) => Finding::Wrong(failure),
        Ok(Some(told)) => Finding::Fine(held(&told, "tracker")),
        Ok(None) if setup::is_new_tracker(global) => return Ok(()),
        Ok(None) => {
            // A range of ports is none for a tracker.
            let args: TrackerArgs = from_environment().unwrap_or_default();
            Finding::of(setup.tracker(&args, PathBuf::new()).and_then(|settings| {
                let (bind, port) = (settings.bind, settings.port);
                match net::is_free(bind, port) {
                    Ok(()) => Ok(format!("{port} is free, TCP and UDP")),
                    Err(error) => {
                        let line = format!("{port} cannot be had: {error}");
                        Err(Failure::new(Class::Network, line)
                            .hint("end what has it, or choose another with --port"))
                    }
                }
            }))
        }
    };
    report.tell("tracker port", found)
}

/// The tracker, wherever it is to be.
async fn whereabouts(
    setup: &Setup,
    join: &JoinArgs,
    mut settings: peer::Settings,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let place = setup.place(join)?;
    if let Place::Host(..) = place {
        return tracker(setup, &settings, report).await;
    }
    let lan = match discovery::lan_settings(setup, settings.bind) {
        Ok(lan) => lan,
        Err(failure) => return report.tell("local network", Finding::Wrong(failure)),
    };
    if place == Place::Nowhere {
        return report.tell("local network", Finding::of(discovery::try_port(lan)));
    }
    let network = setup.network()?;
    match discovery::trackers(lan, &network).await {
        Err(failure) => report.tell("local network", Finding::Wrong(failure)),
        Ok(found) => {
            let list: Vec<_> = found.iter().flatten().map(ToString::to_string).collect();
            let line = format!("a tracker answers at {}", list.join(", "));
            report.tell("local network", Finding::Fine(line))?;
            if let Some(address) = found.iter().flatten().next() {
                let target = Target::at(*address);
                (settings.tracker_host, settings.tracker_port) = (target.host, target.port);
                settings.tracker_pin = Some(discovery::PIN.to_owned());
            }
            tracker(setup, &settings, report).await
        }
    }
}

async fn tracker(
    setup: &Setup,
    settings: &peer::Settings,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let target = Target {
        host: settings.tracker_host.clone(),
        port: settings.tracker_port,
        key: settings.tracker_key,
        pin: settings.tracker_pin.clone(),
        pins: None,
    };
    let (address, mut time) = (target.address(), None);
    match enrol::connect(&target).await {
        Err(error) => {
            let line = format!("{address}: {error}");
            report.tell(
                "tracker",
                Finding::Wrong(Failure::new(Class::Network, line)),
            )?;
        }
        Ok(_) => {
            report.tell("tracker", Finding::Fine(format!("{address} answers")))?;
            let dialog = Dialog::detect(setup.global.no_input);
            if dialog == Dialog::Terminal || ask::is_given(setup.global.passphrase_file.as_deref())
            {
                time = admission(setup, &target, dialog, report).await?;
            } else {
                let line = "not tried: none is given".to_owned();
                let hint = "give --passphrase-file FILE".to_owned();
                report.tell("passphrase", Finding::Warning(line, hint))?;
            }
        }
    }
    report.tell("clock", clock(SystemTime::now(), time))
}

/// Shakes hands as somebody who is forgotten at once; returns the tracker's time.
async fn admission(
    setup: &Setup,
    target: &Target,
    dialog: Dialog,
    report: &mut Report<'_>,
) -> Result<Option<u64>, Failure> {
    let network = match setup.network() {
        Ok(network) => network,
        Err(failure) => {
            return report
                .tell("network", Finding::Wrong(failure))
                .map(|()| None);
        }
    };
    let (file, screen) = (setup.global.passphrase_file.clone(), report.screen.clone());
    let own = network.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let passphrase = ask::passphrase(file.as_deref(), dialog, Purpose::Join, &screen)?;
        Ok(Group::derive(&passphrase, own))
    });
    let asked = asking
        .await
        .map_err(|error| Failure::new(Class::Failed, error.to_string()))?;
    let group = match asked {
        Ok(group) => group,
        Err(failure) => {
            return report
                .tell("passphrase", Finding::Wrong(failure))
                .map(|()| None);
        }
    };
    let identity = Identity::generate(&mut OsRandom::new());
    let enrolled = match enrol(target, &Membership::new(group, identity), 0).await {
        Ok(enrolled) => enrolled,
        Err(error) => {
            let (name, hint) = match error {
                EnrolError::WrongPassphrase => {
                    ("passphrase", "all members must use the same passphrase")
                }
                EnrolError::OtherKey { .. } => (
                    "tracker key",
                    "check the key print with whoever runs the tracker",
                ),
                _ => (
                    "handshake",
                    "try again; p2pfs status on the tracker's machine tells more",
                ),
            };
            let failure = Failure::new(Class::Login, error.to_string()).hint(hint);
            return report.tell(name, Finding::Wrong(failure)).map(|()| None);
        }
    };
    let wants = if enrolled.needs_password {
        "; the tracker wants user and password, too"
    } else {
        ""
    };
    report.tell(
        "passphrase",
        Finding::Fine(format!("is that of the tracker{wants}")),
    )?;
    let pins = setup::state_dir(&setup.global, "peer").map(|dir| Pins::in_dir(&dir));
    let pin = match pins {
        Some(pins) => pins.check(&target.pinned_as(), &network, &enrolled.tracker),
        None => Ok(Pin::New),
    };
    report.tell(
        "tracker key",
        match pin {
            Ok(pin) => key(&pin, target, &enrolled),
            Err(error) => Finding::Wrong(error.into()),
        },
    )?;
    Ok(Some(enrolled.established.tracker_unix_ms))
}

fn key(pin: &Pin, target: &Target, enrolled: &Enrolled) -> Finding {
    let found = enrolled.tracker.fingerprint();
    match pin {
        // Handshakes with another key than the typed one fail.
        _ if target.key.is_some() => Finding::Fine(format!("{found} is the one that was given")),
        Pin::Known => Finding::Fine(format!("{found} is the one that it always had")),
        Pin::New => Finding::Warning(
            format!("{found} was never met"),
            "compare it with what p2pfs tracker printed".to_owned(),
        ),
        Pin::Changed(known) => {
            let line = format!("{found} is new, it was {}", known.fingerprint());
            let hint = "check it with whoever runs the tracker; --tracker-key accepts it";
            Finding::Wrong(Failure::new(Class::Login, line).hint(hint))
        }
    }
}
