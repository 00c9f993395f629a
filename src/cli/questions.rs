//! The questions of `p2pfs` alone: passphrase, role, then where.

use std::path::PathBuf;

use super::args::{JoinArgs, TrackerArgs};
use super::ask::{self, Purpose};
use super::dialog::{self, Asker, Role};
use super::exit::Failure;
use super::screen::Screen;
use super::{executor, setup};
use crate::crypto::kdf::{Group, NetworkName};

pub(super) enum Asked {
    Tracker(TrackerArgs),
    Peer(JoinArgs),
}

/// What `p2pfs` alone asks for, and what Enter alone means.
pub(super) struct Questions {
    pub(super) tracker: Result<TrackerArgs, Failure>,
    pub(super) join: JoinArgs,
    pub(super) file: Option<PathBuf>,
    pub(super) network: NetworkName,
    pub(super) is_new_tracker: bool,
    pub(super) port: u16,
    pub(super) host: Option<String>,
    pub(super) name: Option<String>,
    pub(super) screen: Screen,
}

impl Questions {
    /// As P2P File Transfer asked: passphrase, role, then where.
    pub(super) fn ask(self, person: &mut dyn Asker) -> Result<(Group, Asked), Failure> {
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
