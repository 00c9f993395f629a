//! Whom we know: the key that each name had when it was met, and which keys are trusted or blocked.
//!
//! A name belongs to the key with which it was met first, in the group where it was met; trust and blocks
//! belong to the key alone, whatever it is called. One line each, in a private file that may be edited while
//! no peer runs:
//!
//! ```text
//! name NETWORK NAME KEY      trusted KEY      blocked KEY
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use data_encoding::HEXLOWER;

use crate::crypto::kdf::NetworkName;
use crate::disk::{PrivateFileError, read_private, write_private};
use crate::proto::limiter::{Bucket, Rate};
pub use crate::proto::talk::Regard;
use crate::wire::id::{Fingerprint, PeerId};
use crate::wire::text::UserName;

const FILE: &str = "known_people";
const HEADER: &str = "# Whom this peer knows. Change it while no peer runs, or with trust, untrust, block and unblock.\n";
/// Names at most. Beyond it those who were only met go, whoever was not seen for longest first.
const MAX_NAMES: usize = 4096;
/// Keys at most that are trusted or blocked. With the names they fit a private file.
const MAX_STANDINGS: usize = 2048;
/// New names of those who call us: whoever has many keys shall not wash out whom we met.
const CALLER_RATE: Rate = Rate::new(20.0 / 3600.0, 20.0);

/// What we think of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet: this is the key that the name had when it was met.
    Met,
    /// It may reach us without being asked about.
    Trusted,
    /// It reaches us under no name.
    Blocked,
}

/// Somebody whom we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name that the key has in this group; absent when it was never met here.
    pub name: Option<UserName>,
    /// The key.
    pub key: PeerId,
    /// What we think of it.
    pub standing: Standing,
}

/// Why somebody is not remembered.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The file cannot be read or written, or is not private.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// There is no room left for those whom a person chose.
    #[error("{MAX_STANDINGS} keys are trusted or blocked, which is as many as are kept")]
    Full,
    /// Somebody changed his mind, or the name its key, while a person was asked.
    #[error("{0} was blocked meanwhile, or has another key: nothing was changed")]
    Changed(UserName),
}

/// The people of one group; cheap to clone.
#[derive(Clone, Debug)]
pub struct People(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Absent for a peer that keeps nothing.
    path: Option<PathBuf>,
    network: NetworkName,
    known: Mutex<Known>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    names: HashMap<(String, String), Met>,
    standings: BTreeMap<PeerId, Standing>,
    /// Counts meetings, for who was not seen for longest.
    clock: u64,
    is_dirty: bool,
    /// Somebody is about to write.
    is_awaited: bool,
    /// How many new names of those who call there is time for; full at first.
    callers: Option<Bucket>,
}

#[derive(Debug, Clone)]
struct Met {
    name: UserName,
    key: PeerId,
    seen: u64,
}

impl People {
    /// The people known in `state_dir`, as members of `network`; nobody, and nothing is kept, without one.
    ///
    /// # Errors
    /// When the file cannot be read, or is not private: what others could write says nothing about trust.
    pub fn open(state_dir: Option<&Path>, network: NetworkName) -> Result<Self, PrivateFileError> {
        let path = state_dir.map(|dir| dir.join(FILE));
        let bytes = path.as_deref().map(read_private).transpose()?.flatten();
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Self(Arc::new(Inner {
            path,
            network,
            known: Mutex::new(Known::parse(&text.unwrap_or_default())),
            writing: Mutex::new(()),
        })))
    }

    /// What we think of whoever has this name and this key now.
    #[must_use]
    pub fn regard(&self, name: &UserName, key: PeerId) -> Regard {
        self.lock().regard(&self.place(name), key)
    }

    /// Remembers who was met, unless the name is known: its first key stays. Written in the background; a
    /// file that cannot be written is logged.
    pub fn meet(&self, name: &UserName, key: PeerId) {
        let is_new = self.lock().meet(self.place(name), name, key);
        if is_new {
            self.write_soon();
        }
    }

    /// As [`meet`](Self::meet), for somebody who called us: only so many new ones an hour are remembered.
    pub fn meet_caller(&self, name: &UserName, key: PeerId, now: Instant) {
        let place = self.place(name);
        let is_new = {
            let mut known = self.lock();
            known.has_time_for(&place, now) && known.meet(place, name, key)
        };
        if is_new {
            self.write_soon();
        }
    }

    /// As [`trust`](Self::trust), unless the key is blocked by now, or the name has another one.
    ///
    /// # Errors
    /// As `trust`; [`PeopleError::Changed`] when nothing was done for that reason.
    pub fn trust_still(&self, name: &UserName, key: PeerId) -> Result<(), PeopleError> {
        {
            let mut known = self.lock();
            let place = self.place(name);
            if matches!(
                known.regard(&place, key),
                Regard::Blocked | Regard::OtherKey { .. }
            ) {
                return Err(PeopleError::Changed(name.clone()));
            }
            known.set(key, Standing::Trusted)?;
            known.meet(place, name, key);
        }
        self.write()
    }

    /// From now on this name has this key, also when it had another one, and the key is trusted.
    /// Waits for the disk.
    ///
    /// # Errors
    /// When there is no room, or the file cannot be written; it holds until the end of this peer then.
    pub fn trust(&self, name: &UserName, key: PeerId) -> Result<(), PeopleError> {
        {
            let mut known = self.lock();
            known.set(key, Standing::Trusted)?;
            let place = self.place(name);
            let before = known.names.remove(&place).map(|met| met.key);
            known.meet(place, name, key);
            // Whoever still holds the old key is not the person that was meant.
            if let Some(old) = before.filter(|old| *old != key)
                && known.standings.get(&old) == Some(&Standing::Trusted)
                && !known.names.values().any(|met| met.key == old)
            {
                known.standings.remove(&old);
            }
        }
        self.write()
    }

    /// This key is trusted no longer; `false` when it was not. Waits for the disk.
    ///
    /// # Errors
    /// When the file cannot be written; it holds until the end of this peer then.
    pub fn untrust(&self, key: PeerId) -> Result<bool, PeopleError> {
        self.lift(key, Standing::Trusted)
    }

    /// From now on this key reaches us under no name. Waits for the disk.
    ///
    /// # Errors
    /// As [`trust`](Self::trust).
    pub fn block(&self, key: PeerId) -> Result<(), PeopleError> {
        self.lock().set(key, Standing::Blocked)?;
        self.write()
    }

    /// This key is blocked no longer; `false` when it was not. Waits for the disk.
    ///
    /// # Errors
    /// As [`untrust`](Self::untrust).
    pub fn unblock(&self, key: PeerId) -> Result<bool, PeopleError> {
        self.lift(key, Standing::Blocked)
    }

    /// The key with which this name was met or trusted.
    #[must_use]
    pub fn key_of(&self, name: &UserName) -> Option<PeerId> {
        let known = self.lock();
        known.names.get(&self.place(name)).map(|met| met.key)
    }

    /// Whom we know in this group, and every key that is trusted or blocked: by name, then by print.
    #[must_use]
    pub fn list(&self) -> Vec<Person> {
        let known = self.lock();
        let network = self.0.network.as_str();
        let here = known.names.iter().filter(|(place, _)| place.0 == network);
        let mut people: Vec<Person> = here
            .map(|(_, met)| Person {
                name: Some(met.name.clone()),
                key: met.key,
                standing: known.standing(met.key),
            })
            .collect();
        let named: std::collections::HashSet<PeerId> =
            people.iter().map(|person| person.key).collect();
        let unnamed = known
            .standings
            .iter()
            .filter(|(key, _)| !named.contains(key));
        people.extend(unnamed.map(|(key, standing)| Person {
            name: None,
            key: *key,
            standing: *standing,
        }));
        people.sort_by_cached_key(|person| {
            let name = person.name.as_ref().map(UserName::folded);
            (name.is_none(), name, person.key)
        });
        people
    }

    /// The key that is meant by `print`, of those that we know.
    #[must_use]
    pub fn key_with(&self, print: &Fingerprint) -> Option<PeerId> {
        let people = self.list();
        let mut fitting = people.iter().filter(|person| print.is_of(&person.key));
        fitting.next().map(|person| person.key)
    }

    /// Does it outlive this peer?
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.path.is_some()
    }

    /// Writes what was not written yet. Waits for the disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self) -> Result<(), PeopleError> {
        let Some(path) = &self.0.path else {
            return Ok(());
        };
        let _turn = self
            .0
            .writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let text = {
            let mut known = self.lock();
            if !std::mem::take(&mut known.is_dirty) {
                return Ok(());
            }
            known.to_text()
        };
        write_private(path, text.as_bytes()).map_err(|source| {
            self.lock().is_dirty = true;
            let path = path.clone();
            PeopleError::File(PrivateFileError::Io { path, source })
        })
    }

    fn lift(&self, key: PeerId, standing: Standing) -> Result<bool, PeopleError> {
        {
            let mut known = self.lock();
            if known.standings.get(&key) != Some(&standing) {
                return Ok(false);
            }
            known.standings.remove(&key);
            known.is_dirty = true;
        }
        self.write().map(|()| true)
    }

    fn write_soon(&self) {
        // However many are met: one thread waits for the disk.
        if std::mem::replace(&mut self.lock().is_awaited, true) {
            return;
        }
        let people = self.clone();
        let write = move || {
            people.lock().is_awaited = false;
            if let Err(error) = people.write() {
                tracing::warn!(%error, "whom we met is not remembered");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(write)),
            Err(_) => write(),
        }
    }

    fn place(&self, name: &UserName) -> (String, String) {
        (self.0.network.as_str().to_owned(), name.folded())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What is in the file; lines that somebody broke say nothing.
    fn parse(text: &str) -> Self {
        let mut known = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().take(5).collect();
            match words[..] {
                ["name", network, name, key] => {
                    let name: Result<UserName, _> = name.parse();
                    if let (Ok(name), Some(key)) = (name, parse_key(key)) {
                        known.meet((network.to_owned(), name.folded()), &name, key);
                    }
                }
                [word @ ("trusted" | "blocked"), key] => {
                    let standing = match word {
                        "trusted" => Standing::Trusted,
                        _ => Standing::Blocked,
                    };
                    if let Some(key) = parse_key(key) {
                        let _ = known.set(key, standing);
                    }
                }
                _ => {}
            }
        }
        known.is_dirty = false;
        known
    }

    fn to_text(&self) -> String {
        let mut text = String::from(HEADER);
        for (key, standing) in &self.standings {
            let word = match standing {
                Standing::Trusted => "trusted",
                Standing::Blocked => "blocked",
                Standing::Met => continue,
            };
            let _ = writeln!(text, "{word} {}", HEXLOWER.encode(&key.0));
        }
        // In the order of meeting, which is that of forgetting.
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|(_, met)| met.seen);
        for ((network, _), met) in names {
            let (name, key) = (met.name.as_str(), HEXLOWER.encode(&met.key.0));
            let _ = writeln!(text, "name {network} {name} {key}");
        }
        text
    }

    fn standing(&self, key: PeerId) -> Standing {
        self.standings.get(&key).copied().unwrap_or(Standing::Met)
    }

    fn regard(&self, place: &(String, String), key: PeerId) -> Regard {
        match (self.standings.get(&key), self.names.get(place)) {
            (Some(Standing::Blocked), _) => Regard::Blocked,
            (_, Some(met)) if met.key != key => Regard::OtherKey { known: met.key },
            (Some(Standing::Trusted), _) => Regard::Trusted,
            (_, Some(_)) => Regard::Met,
            (_, None) => Regard::Unknown,
        }
    }

    /// May this name be met, if it is new?
    fn has_time_for(&mut self, place: &(String, String), now: Instant) -> bool {
        let full = || Bucket::new(CALLER_RATE, now);
        self.names.contains_key(place) || self.callers.get_or_insert_with(full).take(now)
    }

    /// Is it somebody new?
    fn meet(&mut self, place: (String, String), name: &UserName, key: PeerId) -> bool {
        self.clock += 1;
        if let Some(met) = self.names.get_mut(&place) {
            if met.key == key {
                met.seen = self.clock;
            }
            return false;
        }
        if self.names.len() >= MAX_NAMES && !self.forget_one() {
            return false;
        }
        let (name, seen) = (name.clone(), self.clock);
        self.names.insert(place, Met { name, key, seen });
        self.is_dirty = true;
        true
    }

    fn forget_one(&mut self) -> bool {
        let only_met = |met: &Met| !self.standings.contains_key(&met.key);
        let names = self.names.iter().filter(|(_, met)| only_met(met));
        let oldest = names.min_by_key(|(_, met)| met.seen);
        let Some(place) = oldest.map(|(place, _)| place.clone()) else {
            return false;
        };
        self.names.remove(&place).is_some()
    }

    fn set(&mut self, key: PeerId, standing: Standing) -> Result<(), PeopleError> {
        if self.standings.len() >= MAX_STANDINGS && !self.standings.contains_key(&key) {
            return Err(PeopleError::Full);
        }
        self.is_dirty |= self.standings.insert(key, standing) != Some(standing);
        Ok(())
    }
}

fn parse_key(text: &str) -> Option<PeerId> {
    let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok().map(PeerId)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }

    fn key(number: u16) -> PeerId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        PeerId(key)
    }

    fn open(dir: &Path) -> People {
        People::open(Some(dir), NetworkName::default()).unwrap()
    }

    fn nobody() -> People {
        People::open(None, NetworkName::default()).unwrap()
    }

    #[test]
    fn a_name_keeps_its_first_key_until_another_is_trusted() {
        let people = nobody();
        let ana = name("ana");
        assert_eq!(people.regard(&ana, key(1)), Regard::Unknown);
        people.meet(&ana, key(1));
        people.meet(&ana, key(2));
        assert_eq!(people.regard(&ana, key(1)), Regard::Met);
        let other = Regard::OtherKey { known: key(1) };
        assert_eq!(people.regard(&ana, key(2)), other);
        assert_eq!(
            people.regard(&name("ANA"), key(2)),
            other,
            "case hides nobody"
        );
        people.trust(&ana, key(2)).unwrap();
        assert_eq!(people.regard(&ana, key(2)), Regard::Trusted);
        let other = Regard::OtherKey { known: key(2) };
        assert_eq!(people.regard(&ana, key(1)), other);
        assert_eq!(people.key_of(&ana), Some(key(2)));
    }

    #[test]
    fn trust_is_lost_with_the_key_that_had_it() {
        let people = nobody();
        people.trust(&name("ana"), key(1)).unwrap();
        people.trust(&name("ana"), key(2)).unwrap();
        assert_eq!(people.regard(&name("bob"), key(1)), Regard::Unknown);
        assert!(people.untrust(key(2)).unwrap());
        assert!(!people.untrust(key(2)).unwrap());
        assert_eq!(people.regard(&name("ana"), key(2)), Regard::Met);
    }

    #[test]
    fn a_blocked_key_is_blocked_under_every_name_until_it_is_unblocked_or_trusted() {
        let people = nobody();
        people.trust(&name("ana"), key(1)).unwrap();
        people.block(key(1)).unwrap();
        for user in ["ana", "bob"] {
            assert_eq!(people.regard(&name(user), key(1)), Regard::Blocked);
        }
        assert!(!people.untrust(key(1)).unwrap(), "no way around the block");
        assert!(people.unblock(key(1)).unwrap());
        assert_eq!(people.regard(&name("ana"), key(1)), Regard::Met);
        people.block(key(1)).unwrap();
        people.trust(&name("ana"), key(1)).unwrap();
        assert_eq!(people.regard(&name("ana"), key(1)), Regard::Trusted);
    }

    #[test]
    fn what_is_known_outlives_the_peer_in_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let people = open(dir.path());
        people.meet(&name("ana"), key(1));
        people.trust(&name("Bob"), key(2)).unwrap();
        people.block(key(3)).unwrap();
        let again = open(dir.path());
        assert_eq!(again.list(), people.list());
        let standings: Vec<_> = again.list().iter().map(|person| person.standing).collect();
        assert_eq!(
            standings,
            [Standing::Met, Standing::Trusted, Standing::Blocked]
        );
        let path = dir.path().join(FILE);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(People::open(Some(dir.path()), NetworkName::default()).is_err());
    }

    #[test]
    fn names_belong_to_their_group_and_trust_to_the_key() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).trust(&name("ana"), key(1)).unwrap();
        let lab = People::open(Some(dir.path()), "lab".parse().unwrap()).unwrap();
        assert_eq!(lab.regard(&name("ana"), key(2)), Regard::Unknown);
        assert_eq!(lab.regard(&name("anna"), key(1)), Regard::Trusted);
        assert_eq!(lab.list()[0].name, None);
        lab.meet(&name("ana"), key(2));
        assert_eq!(open(dir.path()).key_of(&name("ana")), Some(key(1)));
    }

    #[test]
    fn a_flood_of_strangers_forgets_only_those_who_were_merely_met() {
        let people = nobody();
        people.trust(&name("friend"), key(1)).unwrap();
        people.meet(&name("foe"), key(2));
        people.block(key(2)).unwrap();
        people.meet(&name("old"), key(3));
        people.meet(&name("seen"), key(4));
        for number in 0..MAX_NAMES - 4 {
            people.meet(&name(&format!("u{number}")), key(100));
        }
        people.meet(&name("seen"), key(4));
        // One too many: whoever was not seen for longest goes.
        people.meet(&name("one-more"), key(5));
        assert_eq!(people.key_of(&name("old")), None);
        for number in 0..2 * MAX_NAMES {
            people.meet(&name(&format!("v{number}")), key(100));
        }
        assert_eq!(people.list().len(), MAX_NAMES);
        assert_eq!(people.regard(&name("friend"), key(1)), Regard::Trusted);
        assert_eq!(people.key_of(&name("foe")), Some(key(2)));
    }

    #[test]
    fn those_who_call_with_many_keys_wash_nobody_out() {
        let (people, start) = (nobody(), Instant::now());
        people.meet_caller(&name("ana"), key(1), start);
        let hours = (0..24 * 3600).map(|second| start + std::time::Duration::from_secs(second));
        for (now, number) in hours.zip(0_u32..) {
            people.meet_caller(&name(&format!("u{number}")), key(2), now);
        }
        assert!(people.list().len() <= 21 + 24 * 20);
        assert_eq!(people.key_of(&name("ana")), Some(key(1)));
        // Whom we ask ourselves is remembered all the same.
        people.meet(&name("bob"), key(3));
        assert_eq!(people.key_of(&name("bob")), Some(key(3)));
    }

    #[test]
    fn a_yes_that_comes_too_late_neither_lifts_a_block_nor_gives_a_name_away() {
        let people = nobody();
        people.block(key(1)).unwrap();
        people.trust(&name("bob"), key(2)).unwrap();
        for (user, asked) in [("ana", key(1)), ("bob", key(3))] {
            let trusted = people.trust_still(&name(user), asked);
            assert!(matches!(trusted, Err(PeopleError::Changed(_))), "{user}");
        }
        assert_eq!(people.regard(&name("ana"), key(1)), Regard::Blocked);
        assert_eq!(people.key_of(&name("bob")), Some(key(2)));
        people.trust_still(&name("carl"), key(4)).unwrap();
        assert_eq!(people.regard(&name("carl"), key(4)), Regard::Trusted);
    }

    #[test]
    fn the_fullest_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let network: NetworkName = "n".repeat(63).parse().unwrap();
        let people = People::open(Some(dir.path()), network.clone()).unwrap();
        {
            let mut known = people.lock();
            for number in 0..MAX_NAMES {
                let user = name(&format!("{number:x>64}"));
                known.meet(people.place(&user), &user, key(1));
            }
            for number in 0..MAX_STANDINGS {
                let number = u16::try_from(number).unwrap();
                known.set(key(number), Standing::Trusted).unwrap();
            }
        }
        assert!(matches!(
            people.block(key(u16::MAX)),
            Err(PeopleError::Full)
        ));
        people.write().unwrap();
        let again = People::open(Some(dir.path()), network).unwrap();
        assert_eq!(again.list().len(), people.list().len());
    }

    #[test]
    fn broken_lines_say_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let hex = HEXLOWER.encode(&[7; 32]);
        let text = format!(
            "trusted\ntrusted xx\nname p2pfs a/b {hex}\nname p2pfs ana {hex} x\nfriend {hex}\n\
             name p2pfs bob {hex}\nblocked {hex} and more\n\n#\n"
        );
        write_private(&dir.path().join(FILE), text.as_bytes()).unwrap();
        let people = open(dir.path());
        let bob = Person {
            name: Some(name("bob")),
            key: PeerId([7; 32]),
            standing: Standing::Met,
        };
        assert_eq!(people.list(), [bob]);
        let print = PeerId([7; 32]).fingerprint().brief();
        assert_eq!(people.key_with(&print), Some(PeerId([7; 32])));
    }
}
