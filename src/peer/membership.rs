//! What this peer shows when it greets another: its identity, and the keys of the group.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use crate::crypto::handshake::Local;
use crate::crypto::identity::Identity;
use crate::crypto::kdf::{EnvelopeKeys, Group, MemberKey};
use crate::crypto::stream::has_aes_hardware;
use crate::wire::id::PeerId;
use crate::wire::packet::Role;

/// Shared by everything that dials or accepts peers.
#[derive(Clone, Debug)]
pub struct Membership(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    group: Group,
    identity: Identity,
    has_aes: bool,
    /// The tracker's member key, newest first; the one before it stays good for whoever has not met the
    /// restarted tracker yet.
    member_keys: RwLock<Vec<MemberKey>>,
    /// Those of the small trackers that neighbours run.
    neighbours: RwLock<HashMap<PeerId, MemberKey>>,
}

impl Membership {
    /// Of this group, under this identity, before any tracker told its member key.
    #[must_use]
    pub fn new(group: Group, identity: Identity) -> Self {
        let member_keys = RwLock::new(Vec::new());
        Self(Arc::new(Inner {
            group,
            identity,
            has_aes: has_aes_hardware(),
            member_keys,
            neighbours: RwLock::default(),
        }))
    }

    /// Takes over what a WELCOME told.
    pub fn learn(&self, key: MemberKey) {
        let mut keys = self
            .0
            .member_keys
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if keys.first() != Some(&key) {
            keys.insert(0, key);
            keys.truncate(2);
        }
    }

    /// Takes over what the small tracker of a neighbour told.
    pub fn learn_of(&self, neighbour: PeerId, key: MemberKey) {
        self.neighbours().insert(neighbour, key);
    }

    /// A neighbour is gone.
    pub fn forget(&self, neighbour: &PeerId) {
        self.neighbours().remove(neighbour);
    }

    fn neighbours(&self) -> RwLockWriteGuard<'_, HashMap<PeerId, MemberKey>> {
        let neighbours = self.0.neighbours.write();
        neighbours.unwrap_or_else(PoisonError::into_inner)
    }

    /// How we greet `peer`: under what its own small tracker told, if it has one.
    #[must_use]
    pub fn envelope_for(&self, peer: &PeerId) -> Option<EnvelopeKeys> {
        let neighbour = self.neighbours().get(peer).map(EnvelopeKeys::closed);
        neighbour.or_else(|| self.envelopes().into_iter().next())
    }

    /// Our side of a handshake.
    #[must_use]
    pub fn local(&self) -> Local<'_> {
        let Inner {
            group,
            identity,
            has_aes,
            ..
        } = &*self.0;
        Local {
            group,
            identity,
            role: Role::Peer,
            has_aes: *has_aes,
        }
    }

    /// What a listening peer accepts; the first is what a dialling one uses.
    #[must_use]
    pub fn envelopes(&self) -> Vec<EnvelopeKeys> {
        let keys = self
            .0
            .member_keys
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(EnvelopeKeys::closed).collect()
    }
}
