//! The neighbours of a peer without a tracker: whom it has met, and the session with the small tracker of each.
//!
//! What the tracker of a neighbour says is believed of that neighbour only, whose key it has shown, and what it
//! says of addresses is not: the one at which it answers counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::control::Control;
use crate::wire::beacon::Instance;
use crate::wire::control::{Hit, Holder, PeerEntry};
use crate::wire::id::PeerId;
use crate::wire::text::UserName;

/// Whoever is near has answered our first beacons by then, and is being greeted.
const FIRST_LOOK: Duration = Duration::from_millis(1500);
/// One beacon of whoever answers to none of ours has come by then.
const LAST_LOOK: Duration = Duration::from_millis(6500);

/// Somebody whom we have met.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Under which name.
    pub user: UserName,
    /// Its key, which its small tracker has shown.
    pub peer: PeerId,
    /// The session with that tracker.
    pub control: Control,
    /// Where it listens for peers.
    pub port: u16,
    /// Which start of its program it is.
    pub instance: Instance,
}

impl Neighbour {
    /// Where it listens for peers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let mut address = self.control.address();
        address.set_port(self.port);
        address
    }

    /// What it says of itself.
    #[must_use]
    pub fn own_entry(&self, entries: Vec<PeerEntry>) -> Option<PeerEntry> {
        let own = entries.into_iter().find(|entry| entry.peer == self.peer)?;
        Some(PeerEntry {
            user: self.user.clone(),
            addresses: vec![self.address()],
            ..own
        })
    }

    /// That it has something.
    #[must_use]
    pub fn own_holder(&self, holders: Vec<Holder>) -> Option<Holder> {
        let own = holders.into_iter().find(|it| it.peer == self.peer)?;
        Some(Holder {
            user: self.user.clone(),
            addresses: vec![self.address()],
            ..own
        })
    }

    /// A hit at its tracker is its own, whoever is said to have it.
    #[must_use]
    pub fn own_hit(&self, hit: Hit) -> Hit {
        Hit {
            owners: vec![self.user.clone()],
            holders: 1,
            ..hit
        }
    }
}

/// All of them; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    began: Instant,
    met: Mutex<BTreeMap<PeerId, Met>>,
    /// How many are being greeted.
    greeting: watch::Sender<usize>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            met: Mutex::default(),
            greeting: watch::Sender::new(0),
        }
    }
}

#[derive(Debug)]
struct Met {
    neighbour: Neighbour,
    /// It has not answered for a while.
    is_silent: bool,
}

impl Neighbours {
    /// Those who are here, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Neighbour> {
        let met = self.met();
        let here = met.values().filter(|met| !met.is_silent);
        let mut here: Vec<_> = here.map(|met| met.neighbour.clone()).collect();
        here.sort_by_cached_key(|neighbour| (neighbour.user.folded(), neighbour.peer));
        here
    }

    /// Somebody is here; returns the start of its program that it was met as before.
    pub fn insert(&self, neighbour: Neighbour) -> Option<Instance> {
        let peer = neighbour.peer;
        let met = Met {
            neighbour,
            is_silent: false,
        };
        let before = self.met().insert(peer, met);
        before.map(|before| before.neighbour.instance)
    }

    /// Somebody falls silent, or answers again.
    pub fn set_silent(&self, instance: Instance, is_silent: bool) {
        let mut met = self.met();
        for met in met.values_mut() {
            if met.neighbour.instance == instance {
                met.is_silent = is_silent;
            }
        }
    }

    /// Somebody is gone; who, and whether it was silent before.
    pub fn remove(&self, instance: Instance) -> Option<(Neighbour, bool)> {
        let mut met = self.met();
        let found = met.values().find(|it| it.neighbour.instance == instance);
        let peer = found?.neighbour.peer;
        let gone = met.remove(&peer)?;
        Some((gone.neighbour, gone.is_silent))
    }

    /// So many are being greeted.
    pub fn note_greeting(&self, count: usize) {
        self.0.greeting.send_replace(count);
    }

    /// Until those who were near at the start have been met, as far as they answered.
    pub async fn settle(&self) {
        let began = self.0.began;
        tokio::time::sleep_until(began + FIRST_LOOK).await;
        let mut greeting = self.0.greeting.subscribe();
        let is_settled = |count: &usize| *count == 0 && !self.met().is_empty();
        let _ = timeout_at(began + LAST_LOOK, greeting.wait_for(is_settled)).await;
    }

    fn met(&self) -> MutexGuard<'_, BTreeMap<PeerId, Met>> {
        self.0.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{Publication, PublicationKind};
    use crate::wire::id::ContentId;

    fn neighbour(number: u8) -> Neighbour {
        Neighbour {
            user: "ana".parse().unwrap(),
            peer: PeerId([number; 32]),
            control: Control::to_nobody(),
            port: 8001,
            instance: Instance([number; 8]),
        }
    }

    #[test]
    fn a_neighbour_speaks_for_itself_only_and_its_address_is_where_it_answers() {
        let ana = neighbour(1);
        let elsewhere = vec!["203.0.113.9:22".parse().unwrap()];
        let entry = |number| PeerEntry {
            user: "bob".parse().unwrap(),
            peer: PeerId([number; 32]),
            addresses: elsewhere.clone(),
            files: 3,
            since_s: 5,
        };
        let own = ana.own_entry(vec![entry(2), entry(1)]).unwrap();
        assert_eq!(
            (own.user, own.peer, own.files),
            (ana.user.clone(), ana.peer, 3)
        );
        assert_eq!(own.addresses, ["127.0.0.1:8001".parse().unwrap()]);
        assert_eq!(ana.own_entry(vec![entry(2)]), None);

        let holder = |number| Holder {
            user: "bob".parse().unwrap(),
            peer: PeerId([number; 32]),
            len: 7,
            addresses: elsewhere.clone(),
        };
        let own = ana.own_holder(vec![holder(2), holder(1)]).unwrap();
        assert_eq!((own.user, own.len), (ana.user.clone(), 7));
        assert_eq!(own.addresses, ["127.0.0.1:8001".parse().unwrap()]);
        assert_eq!(ana.own_holder(vec![holder(2)]), None);

        let file = Publication {
            name: "talk.mp4".parse().unwrap(),
            content: ContentId([1; 32]),
            len: 7,
            kind: PublicationKind::File,
        };
        let hit = ana.own_hit(Hit {
            file,
            owners: vec!["bob".parse().unwrap(), "carl".parse().unwrap()],
            holders: 9,
            is_restricted: false,
        });
        assert_eq!((hit.owners, hit.holders), (vec![ana.user.clone()], 1));
    }

    #[test]
    fn whoever_starts_anew_takes_its_own_place_and_the_silent_are_not_here() {
        let neighbours = Neighbours::default();
        assert_eq!(neighbours.insert(neighbour(1)), None);
        let again = Neighbour {
            instance: Instance([9; 8]),
            ..neighbour(1)
        };
        assert_eq!(neighbours.insert(again), Some(Instance([1; 8])));
        assert!(
            neighbours.remove(Instance([1; 8])).is_none(),
            "long replaced"
        );
        assert_eq!(neighbours.list().len(), 1);
        neighbours.set_silent(Instance([9; 8]), true);
        assert!(neighbours.list().is_empty());
        neighbours.set_silent(Instance([9; 8]), false);
        assert_eq!(neighbours.list().len(), 1);
        neighbours.set_silent(Instance([9; 8]), true);
        let (gone, was_silent) = neighbours.remove(Instance([9; 8])).unwrap();
        assert_eq!((gone.peer, was_silent), (PeerId([1; 32]), true));
    }
}
