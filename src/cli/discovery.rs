//! Finds a tracker on the local network, and shows one to it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Context;
use super::ask::Dialog;
use super::dialog::{self, Person};
use super::exit::{Class, Failure};
use super::setup::{Home, Setup};
use crate::crypto::identity::Identity;
use crate::crypto::kdf::{Group, NetworkName};
use crate::lan::{self, Beacons};
use crate::peer;
use crate::peer::enrol::{EnrolError, Target, enrol};
use crate::peer::membership::Membership;
use crate::peer::pins::{Pin, Pins};
use crate::proto::neighbours::Seeks;
use crate::tracker::Tracker;
use crate::wire::id::PeerId;
use crate::wire::packet::Role;

/// Two beacons of a tracker that answers to none of ours come within this time.
const PATIENCE: Duration = Duration::from_secs(12);
/// Trackers that are shaken hands with to learn their keys: each is a guess for whoever made them up.
const MAX_TRIED: usize = 5;
/// A small tracker ends within this time.
const FAREWELL: Duration = Duration::from_secs(1);
/// Under which name the key of the tracker is remembered that was found so.
pub(super) const PIN: &str = "auto";

/// A tracker for one peer, which ends after it.
pub(super) struct SmallTracker {
    shutdown: DropGuard,
    running: JoinHandle<()>,
}

impl SmallTracker {
    /// Tells whoever is here, and ends.
    pub(super) async fn end(self) {
        drop(self.shutdown);
        let _ = tokio::time::timeout(FAREWELL, self.running).await;
    }
}

/// One that let us in.
struct Candidate {
    address: SocketAddr,
    key: PeerId,
}

impl Context {
    /// Tells the local network of the tracker on `port`, until `shutdown`.
    pub(super) fn show_tracker(
        &self,
        network: &NetworkName,
        (bind, port): (Option<IpAddr>, u16),
        shutdown: CancellationToken,
    ) {
        let Some(settings) = self.setup.lan(bind) else {
            return;
        };
        match Beacons::open(settings, network, (Role::Tracker, port), Seeks::Nobody) {
            Ok(beacons) => drop(tokio::spawn(beacons.announce(shutdown))),
            Err(error) => self.screen.note(&format!(
                "! the local network is not told of this tracker: port {}: {error}",
                settings.port
            )),
        }
    }

    /// Puts the one tracker into `settings` that answers on the local network.
    pub(super) async fn find_tracker(
        &self,
        settings: &mut peer::Settings,
        group: &Group,
    ) -> Result<(), Failure> {
        let lan = lan_settings(&self.setup, settings.bind)?;
        let found = tokio::select! {
            () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
            found = trackers(lan, group.network()) => found?,
        };
        let address = match found.as_slice() {
            [only] if only.len() == 1 => only[0],
            several => self.choose(settings, group, several).await?,
        };
        let target = Target::at(address);
        (settings.tracker_host, settings.tracker_port) = (target.host, target.port);
        settings.tracker_pin = Some(PIN.to_owned());
        Ok(())
    }

    /// Runs a small tracker for a peer that does without one, and puts that into `settings`.
    pub(super) fn do_without_tracker(
        &self,
        settings: &mut peer::Settings,
        group: &Group,
        identity: &Identity,
    ) -> Result<SmallTracker, Failure> {
        let lan = lan_settings(&self.setup, settings.bind)?;
        let tracker = Tracker::small(settings.bind, group.clone(), identity.clone())?;
        let own = settings.bind.filter(|bind| !bind.is_unspecified());
        let host = own.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        (settings.tracker_host, settings.tracker_port) = (host.to_string(), tracker.port());
        settings.tracker_key = Some(identity.id().fingerprint());
        settings.lan = Some(lan);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(tracker.run(shutdown.clone()));
        Ok(SmallTracker {
            shutdown: shutdown.drop_guard(),
            running,
        })
    }

    /// The tracker with the key that is known; else the only one; else whichever somebody says.
    async fn choose(
        &self,
        settings: &peer::Settings,
        group: &Group,
        found: &[Vec<SocketAddr>],
    ) -> Result<SocketAddr, Failure> {
        let mut candidates = Vec::new();
        let trying = async {
            for addresses in found.iter().take(MAX_TRIED) {
                candidates.extend(self.try_one(group, addresses).await);
            }
        };
        tokio::select! {
            () = self.shutdown.token().cancelled() => return Err(self.interrupted()),
            () = trying => {}
        }
        if let Some(typed) = settings.tracker_key {
            candidates.retain(|candidate| typed.is_of(&candidate.key));
        }
        let pins = settings.state_dir.as_deref().map(Pins::in_dir);
        let is_known = |candidate: &&Candidate| {
            let known = pins
                .as_ref()
                .map(|pins| pins.check(PIN, group.network(), &candidate.key));
            matches!(known, Some(Ok(Pin::Known)))
        };
        if let Some(known) = candidates.iter().find(is_known) {
            return Ok(known.address);
        }
        match candidates.as_slice() {
            // None lets us in: joining the first says why.
            [] => Ok(found.iter().flatten().next().copied().unwrap_or(NOWHERE)),
            [only] => Ok(only.address),
            several if self.dialog() == Dialog::Terminal => self.ask_which(several).await,
            several => {
                let list: Vec<_> = several.iter().map(describe).collect();
                let line = format!(
                    "{} trackers answer on the local network: {}",
                    several.len(),
                    list.join(", ")
                );
                Err(Failure::usage(line).hint("name one with --tracker or --tracker-key"))
            }
        }
    }

    /// The first of its addresses where it lets us in.
    async fn try_one(&self, group: &Group, addresses: &[SocketAddr]) -> Option<Candidate> {
        let stranger = Home::temporary().identity;
        let membership = Membership::new(group.clone(), stranger);
        for address in addresses {
            let target = Target::at(*address);
            match enrol(&target, &membership, 0).await {
                Ok(enrolled) => {
                    return Some(Candidate {
                        address: *address,
                        key: enrolled.tracker,
                    });
                }
                Err(EnrolError::WrongPassphrase) => return None,
                Err(_) => {}
            }
        }
        None
    }

    async fn ask_which(&self, several: &[Candidate]) -> Result<SocketAddr, Failure> {
        let addresses: Vec<_> = several.iter().map(|it| it.address).collect();
        let lines: Vec<_> = several.iter().map(describe).collect();
        self.asked(move || {
            use dialog::Asker as _;
            Person.tell("Several trackers answer on the local network:");
            for (number, line) in (1..).zip(&lines) {
                Person.tell(&format!("  {number}  {line}"));
            }
            dialog::question(&mut Person, "Which one", None, |answer| {
                let number: Option<usize> = answer.trim().parse().ok();
                let chosen = number.and_then(|number| addresses.get(number.checked_sub(1)?));
                chosen
                    .copied()
                    .ok_or_else(|| format!("a number from 1 to {}", addresses.len()))
            })
        })
        .await
    }
}

/// Where nobody is.
const NOWHERE: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(
    std::net::Ipv4Addr::UNSPECIFIED,
    0,
));

fn describe(candidate: &Candidate) -> String {
    let key = candidate.key.fingerprint().brief();
    format!("{} with the key {key}", candidate.address)
}

/// The local network as it is set; a usage error where it shall not be used.
pub(super) fn lan_settings(setup: &Setup, bind: Option<IpAddr>) -> Result<lan::Settings, Failure> {
    setup.lan(bind).ok_or_else(|| {
        Failure::usage("the local network is not to be used: discovery.lan is false")
            .hint("give --tracker HOST, or change it: p2pfs config set discovery.lan true")
    })
}

/// The trackers that answer, at least one, each with its addresses.
pub(super) async fn trackers(
    lan: lan::Settings,
    network: &NetworkName,
) -> Result<Vec<Vec<SocketAddr>>, Failure> {
    let found = Beacons::open(lan, network, (Role::Peer, 0), Seeks::Trackers)
        .map_err(|error| no_beacons(lan, &error))?
        .trackers(PATIENCE)
        .await;
    if !found.is_empty() {
        return Ok(found);
    }
    let line = "no tracker answers on the local network";
    Err(Failure::new(Class::Network, line).hint(format!(
        "is one running here, and does no firewall drop UDP port {}? Otherwise give --tracker HOST, or --tracker none to do without one",
        lan.port
    )))
}

/// Can beacons be sent and heard here?
pub(super) fn try_port(lan: lan::Settings) -> Result<String, Failure> {
    lan::try_port(lan).map_err(|error| no_beacons(lan, &error))?;
    Ok(format!("UDP port {} can be had for beacons", lan.port))
}

/// The port of the beacons cannot be had.
pub(super) fn no_beacons(lan: lan::Settings, error: &std::io::Error) -> Failure {
    let line = format!("UDP port {} cannot be had: {error}", lan.port);
    Failure::new(Class::Network, line)
        .hint("end what has it, or set discovery.port to the same other number everywhere")
}
