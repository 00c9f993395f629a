//! The questions of `p2pfs` alone: passphrase, role, then where.

use std::path::PathBuf;

use clap::Parser as _;

use super::args::{Action, Cli, JoinArgs, TrackerArgs};
use super::ask::{self, Purpose};
use super::dialog::{self, Asker, Role};
use super::exit::Failure;
use super::place::Place as Whereabouts;
use super::screen::Screen;
use super::{executor, setup};
use crate::crypto::kdf::{Group, NetworkName};
use crate::wire::id::Fingerprint;

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
    pub(super) host: Option<String>,
    pub(super) name: Option<String>,
    pub(super) screen: Screen,
}

impl Questions {
    /// As P2P File Transfer asked: passphrase, role, then where. What has a usual answer that is right for
    /// nearly everybody, such as the tracker's port, is not asked.
    pub(super) fn ask(self, person: &mut dyn Asker) -> Result<(Group, Asked), Failure> {
        let given = ask::given_passphrase(self.file.as_deref(), Purpose::Join, &self.screen)?;
        let typed = match given {
            Some(_) => None,
            None => {
                person.tell("A group is whoever knows its passphrase. For a new group Enter alone makes one.");
                Some(dialog::hidden(person, "Passphrase")?)
            }
        };
        person.tell("One tracker tells who is here and who has what; everybody else is a peer.");
        let (passphrase, network, asked) = match dialog::role(person)? {
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
                person.tell("(p2pfs tracker --qr shows the line for others as a QR code, too.)");
                (passphrase, self.network, Asked::Tracker(args))
            }
            Role::Peer => {
                let passphrase = match given {
                    Some(given) => given,
                    None => dialog::known_passphrase(person, typed)?,
                };
                let (join, network) = self.peer(person)?;
                let network = network.unwrap_or(self.network);
                (passphrase, network, Asked::Peer(join))
            }
        };
        Ok((Group::derive(&passphrase, network), asked))
    }

    fn peer(&self, person: &mut dyn Asker) -> Result<(JoinArgs, Option<NetworkName>), Failure> {
        let usual = |given: &Option<String>, text: &Option<String>| {
            let text = given.as_ref().or(text.as_ref());
            text.cloned().filter(|text| !text.is_empty())
        };
        person
            .tell("Where it runs: HOST, HOST:PORT, or the whole line that it printed for others;");
        person.tell("auto looks for it on the local network, none does without one there.");
        let host = usual(&self.join.tracker, &self.host).unwrap_or_else(|| "localhost".to_owned());
        let place = dialog::question(person, "Tracker host", Some(&host), parse_place)?;
        let name = usual(&self.join.name, &self.name)
            .unwrap_or_else(|| setup::login_name().as_str().to_owned());
        let name = dialog::question(person, "Your name", Some(&name), |answer| {
            executor::parse_user(answer).map_err(|failure| failure.line())
        })?;
        let join = JoinArgs {
            tracker: Some(place.tracker),
            tracker_key: place.key.or(self.join.tracker_key),
            name: Some(name.as_str().to_owned()),
            ..self.join.clone()
        };
        Ok((join, place.network))
    }
}

/// Where a tracker is, and what else its line for others says.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    tracker: String,
    key: Option<Fingerprint>,
    network: Option<NetworkName>,
}

/// An address, or the line of a tracker with whatever was copied in front of it.
fn parse_place(answer: &str) -> Result<Place, String> {
    const LINE: &str = "p2pfs peer ";
    let mut place = Place {
        tracker: answer.trim().to_owned(),
        key: None,
        network: None,
    };
    if let Some(at) = answer.find(LINE) {
        let Some((tracker, key, network)) = read_line(&answer[at..]) else {
            return Err("that is not the line of a tracker; HOST alone will do".to_owned());
        };
        let network = network.map(|name| name.parse()).transpose();
        place = Place {
            tracker,
            key,
            network: network.map_err(|error| format!("--network {error}"))?,
        };
    }
    Whereabouts::parse(&place.tracker).map_err(|failure| failure.line())?;
    Ok(place)
}

fn read_line(line: &str) -> Option<(String, Option<Fingerprint>, Option<String>)> {
    let words = shell_words::split(line).ok()?;
    let cli = Cli::try_parse_from(words).ok()?;
    match cli.action {
        Some(Action::Peer(args)) => Some((
            args.join.tracker?,
            args.join.tracker_key,
            cli.global.network,
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_and_so_is_the_line_of_a_tracker() {
        let place = |answer: &str| parse_place(answer).unwrap();
        assert_eq!(place("hub:1").tracker, "hub:1");
        assert_eq!(
            (place("auto").tracker, place(" none ").tracker),
            ("auto".into(), "none".into())
        );
        assert_eq!(place(" ::1 ").key, None);
        let line = "p2pfs peer --tracker 192.0.2.2 --tracker-key skeu-3vci-4jc6-d3hp";
        for answer in [line.to_owned(), format!("Others join with:  {line}\n")] {
            let found = place(&answer);
            assert_eq!(found.tracker, "192.0.2.2");
            assert_eq!(found.key, "skeu-3vci-4jc6-d3hp".parse().ok());
            assert!(found.key.is_some() && found.network.is_none());
        }
        let found = place(&format!("{line} --network hikers"));
        assert_eq!(found.network, "hikers".parse().ok());
        for wrong in [
            "",
            "a b",
            "p2pfs peer --name x",
            "p2pfs peer --tracker h --tracker-key zz",
            "p2pfs peer --tracker 'a b'",
            "p2pfs tracker",
        ] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }
}
