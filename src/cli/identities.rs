//! Commands about who somebody is: trust, untrust, block, unblock, verify.
//!
//! Trust and blocks belong to keys; a name only leads to one. What needs nobody but ourselves works with the
//! state directory alone, where no peer runs.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::Context;
use super::args::{JoinArgs, OnceArgs};
use super::command::Command;
use super::executor::{Executor, parse_user};
use super::exit::{Class, Failure};
use super::passphrase::words_at;
use super::screen::Screen;
use super::setup::{Home, WithoutHome};
use super::table::{Column, table};
use crate::crypto::words;
use crate::peer::people::{People, PeopleError, Person, Regard, Standing};
use crate::wire::id::{Fingerprint, PeerId};
use crate::wire::text::UserName;

/// Somebody who was named: a name, where there is one, and a key.
type Meant = (Option<UserName>, PeerId);

/// Whom we know, and where it is shown.
pub(super) struct Acquaintances<'a> {
    pub(super) people: &'a People,
    pub(super) screen: &'a Screen,
}

impl Acquaintances<'_> {
    pub(super) fn list(&self) -> Result<(), Failure> {
        let people = self.people.list();
        for person in &people {
            self.screen.object(&person_json(person))?;
        }
        if people.is_empty() {
            return self.screen.text("You know nobody yet; trust USER begins.");
        }
        let columns = [
            Column::cut("USER", 0),
            Column::whole("STANDING", 1),
            Column::whole("KEY", 2),
        ];
        let row = |person: &Person| {
            let name = person.name.as_ref();
            vec![
                name.map_or_else(|| "(no name)".to_owned(), ToString::to_string),
                word(person.standing).to_owned(),
                person.key.fingerprint().to_string(),
            ]
        };
        let rows: Vec<_> = people.iter().map(row).collect();
        self.screen
            .text(&table(&columns, &rows, self.screen.width()))
    }

    pub(super) fn untrust(&self, who: &str) -> Result<(), Failure> {
        let (name, key) = self.known(who)?;
        let name = shown(name.as_ref(), key);
        if !self.people.untrust(key)? {
            let line = format!("{name} is not trusted");
            return Err(Failure::new(Class::NotFound, line));
        }
        self.done("untrust", &name, key, "You do not trust", "any more")
    }

    pub(super) fn unblock(&self, who: &str) -> Result<(), Failure> {
        let (name, key) = self.known(who)?;
        let name = shown(name.as_ref(), key);
        if !self.people.unblock(key)? {
            let line = format!("{name} is not blocked");
            return Err(Failure::new(Class::NotFound, line));
        }
        self.done("unblock", &name, key, "You do not block", "any more")
    }

    /// What was done, in one line; what nothing keeps is said to be forgotten.
    fn done(
        &self,
        command: &str,
        name: &str,
        key: PeerId,
        what: &str,
        more: &str,
    ) -> Result<(), Failure> {
        let print = key.fingerprint();
        let more = if more.is_empty() {
            String::new()
        } else {
            format!(", {more}")
        };
        self.screen
            .text(&format!("{what} {name}, key {print}{more}"))?;
        if !self.people.is_kept() {
            self.screen
                .note("! this peer keeps nothing: that ends with it");
        }
        self.screen.object(&json!({
            "v": 1, "type": "result", "command": command, "ok": true, "user": name,
            "key": print.to_string(),
        }))
    }

    /// The one who is meant, of those that we know: a key print before a name that looks like one.
    fn known(&self, who: &str) -> Result<Meant, Failure> {
        self.by_print(who, &[])
            .or_else(|| self.by_name(who))
            .ok_or_else(|| {
                let line = format!("you know nobody who is \"{who}\"");
                Failure::new(Class::NotFound, line).hint("trust alone lists whom you know")
            })
    }

    /// Somebody whose key has this print, among those whom we know and `here`.
    fn by_print(&self, text: &str, here: &[(UserName, PeerId)]) -> Option<Meant> {
        let print: Fingerprint = text.parse().ok()?;
        let known = self.people.list().into_iter();
        let known = known.map(|person| (person.name, person.key));
        let here = here.iter().map(|(name, key)| (Some(name.clone()), *key));
        known.chain(here).find(|(_, key)| print.is_of(key))
    }

    fn by_name(&self, text: &str) -> Option<Meant> {
        let name: UserName = text.parse().ok()?;
        let key = self.people.key_of(&name)?;
        Some((Some(name), key))
    }
}

/// A name that has another key than before, as one line; what accepts it is the hint.
#[must_use]
pub(super) fn changed_key(user: &UserName, known: PeerId, now: PeerId) -> Failure {
    let (known, now) = (known.fingerprint(), now.fingerprint());
    let line = format!(
        "{user} has another key than before: it was {known} and is {now}; it may be somebody else"
    );
    let hint = format!(
        "ask {user} elsewhere for the key print; when it is this one: trust {user} {}",
        now.brief()
    );
    Failure::new(Class::Login, line).hint(hint)
}

impl Executor {
    pub(super) fn acquaintances(&self) -> Acquaintances<'_> {
        Acquaintances {
            people: self.peer.people(),
            screen: &self.screen,
        }
    }

    /// The key of whoever is here under this name now.
    pub(super) async fn key_here(&self, user: &UserName) -> Result<Option<PeerId>, Failure> {
        Ok(self.peer.who(user).await?.map(|entry| entry.peer))
    }

    /// The key that this name was met with, and the one that it has here now. Whoever is known may be out of
    /// reach, or the tracker.
    pub(super) async fn keys_of(
        &self,
        user: &UserName,
    ) -> Result<(Option<PeerId>, Option<PeerId>), Failure> {
        let known = self.peer.people().key_of(user);
        match self.key_here(user).await {
            Err(_) if known.is_some() => Ok((known, None)),
            here => Ok((known, here?)),
        }
    }

    /// A person other than ourselves.
    pub(super) fn other(&self, text: &str) -> Result<UserName, Failure> {
        let user = parse_user(text)?;
        if user.folded() == self.peer.user().folded() {
            return Err(Failure::usage(format!("{user} is you")));
        }
        Ok(user)
    }

    pub(super) async fn trust(&self, user: &str, print: Option<&str>) -> Result<(), Failure> {
        let user = self.other(user)?;
        let print = print.map(parse_print).transpose()?;
        let (known, here) = self.keys_of(&user).await?;
        let key = match (print, here, known) {
            (_, None, None) => return Err(nobody(&user)),
            (Some(print), ..) => {
                let mut keys = here.into_iter().chain(known);
                let fitting = keys.find(|key| print.is_of(key));
                fitting.ok_or_else(|| other_print(&user, here.or(known), &print))?
            }
            (None, Some(now), Some(known)) if now != known => {
                return Err(changed_key(&user, known, now));
            }
            (None, Some(key), _) | (None, None, Some(key)) => key,
        };
        let was_blocked = self.peer.people().regard(&user, key) == Regard::Blocked;
        block_in_place(|| self.peer.people().trust(&user, key))?;
        let lifted = was_blocked.then(|| "and block it no longer".to_owned());
        let advice = (print.is_none()).then(|| format!("verify {user} compares it by voice"));
        let more: Vec<String> = lifted.into_iter().chain(advice).collect();
        let more = more.join("; ");
        self.acquaintances()
            .done("trust", user.as_str(), key, "You trust", &more)
    }

    pub(super) async fn block(&self, who: &str) -> Result<(), Failure> {
        let acquaintances = self.acquaintances();
        let known = acquaintances.by_name(who);
        let found = match acquaintances.by_print(who, &[]) {
            Some(found) => Some(found),
            None => match self.find_here(who).await {
                Err(_) if known.is_some() => known,
                // Whoever bothers us now is meant, before somebody else who had the name once.
                found => found?.or(known),
            },
        };
        let (name, key) = found.ok_or_else(|| {
            let line = format!("nobody here is \"{who}\", and nobody whom you know");
            Failure::new(Class::NotFound, line)
        })?;
        if key == self.peer.id() {
            return Err(Failure::usage("that is you"));
        }
        if let Some(user) = &name {
            self.peer.people().meet(user, key);
        }
        let name = shown(name.as_ref(), key);
        self.peer.block(key).await?;
        acquaintances.done("block", &name, key, "You block", "under every name")
    }

    /// Who is here with this key print, or under this name.
    async fn find_here(&self, who: &str) -> Result<Option<Meant>, Failure> {
        if who.parse::<Fingerprint>().is_ok() {
            let here = self.peer.peers().await?.into_iter();
            let here: Vec<_> = here.map(|entry| (entry.user, entry.peer)).collect();
            if let Some(found) = self.acquaintances().by_print(who, &here) {
                return Ok(Some(found));
            }
        }
        let Ok(user) = who.parse::<UserName>() else {
            return Ok(None);
        };
        let key = self.key_here(&user).await?;
        Ok(key.map(|key| (Some(user), key)))
    }

    pub(super) async fn verify(&self, user: &str) -> Result<(), Failure> {
        let user = self.other(user)?;
        let (known, here) = self.keys_of(&user).await?;
        let key = here.or(known).ok_or_else(|| nobody(&user))?;
        let own = self.peer.id();
        let places = tokio::task::spawn_blocking(move || words::spoken(&own, &key)).await;
        let places = places.map_err(|error| Failure::new(Class::Failed, error.to_string()))?;
        let words = words_at(&places);
        let before = known.filter(|known| *known != key);
        let print = |key: &PeerId| key.fingerprint().to_string();
        self.screen.object(&json!({
            "v": 1, "type": "verification", "user": user.as_str(), "key": print(&key),
            "known_key": before.as_ref().map(print), "own_key": print(&own), "words": words,
        }))?;
        let mut lines = vec![
            format!("{user} has the key  {}", print(&key)),
            format!("yours is  {}", print(&own)),
            format!("words  {}", words.join(" ")),
        ];
        if let Some(before) = before {
            lines.insert(
                0,
                format!("! {user} had another key before:  {}", print(&before)),
            );
        }
        lines.push(format!(
            "Ask {user} by voice what verify {} shows there. When all words are the same: trust {user} {}",
            self.peer.user(),
            key.fingerprint().brief()
        ));
        self.screen.text(&lines.join("\n"))
    }
}

impl Context {
    /// Through the running peer; else with the state directory alone, or by a peer of its own where somebody
    /// has to be found.
    pub(super) async fn about_people(
        &self,
        join: JoinArgs,
        command: Command,
    ) -> Result<(), Failure> {
        let standalone = false;
        let once = OnceArgs { standalone, join };
        if let Some(done) = self.through_peer(&once, &command).await {
            return done;
        }
        let is_found_alone = match &command {
            Command::Trust { user, .. } => user.is_none(),
            Command::Id | Command::Untrust { .. } | Command::Unblock { .. } => true,
            _ => false,
        };
        if !is_found_alone {
            return self.by_own_peer(&once, command).await;
        }
        let home = Home::of_peer(self.global(), WithoutHome::Fail, &self.screen)?;
        let people = People::open(home.dir.as_deref(), self.setup.network()?)?;
        let acquaintances = Acquaintances {
            people: &people,
            screen: &self.screen,
        };
        match &command {
            Command::Untrust { who } => acquaintances.untrust(who),
            Command::Unblock { who } => acquaintances.unblock(who),
            Command::Id => {
                let user = self.setup.user_name(&once.join)?;
                let key = home.identity.id().fingerprint().to_string();
                self.screen.object(&json!({
                    "v": 1, "type": "id", "user": user.as_str(), "key": key, "port": null,
                    "tracker": null, "tracker_key": null,
                }))?;
                self.screen.text(&format!("you      {user}  {key}"))
            }
            _ => acquaintances.list(),
        }
    }
}

impl From<PeopleError> for Failure {
    fn from(error: PeopleError) -> Self {
        let class = match error {
            PeopleError::Changed(_) => Class::Refused,
            PeopleError::Full | PeopleError::File(_) => Class::Local,
        };
        let failure = Self::new(class, error.to_string());
        match error {
            PeopleError::Full => failure.hint("untrust and unblock make room"),
            PeopleError::File(_) => failure,
            PeopleError::Changed(_) => failure.hint("trust USER looks at it anew"),
        }
    }
}

fn shown(name: Option<&UserName>, key: PeerId) -> String {
    name.map_or_else(
        || key.fingerprint().brief().to_string(),
        UserName::to_string,
    )
}

fn parse_print(text: &str) -> Result<Fingerprint, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("\"{text}\" is {error}")))
}

/// Nobody of that name was ever seen.
pub(super) fn nobody(user: &UserName) -> Failure {
    let line = format!("nobody named {user} is here, and you never met one");
    Failure::new(Class::NotFound, line)
}

fn other_print(user: &UserName, key: Option<PeerId>, wanted: &Fingerprint) -> Failure {
    let found = key.map_or_else(String::new, |key| key.fingerprint().to_string());
    let line = format!("{user} has the key {found}, not {wanted}");
    Failure::new(Class::Login, line).hint("nothing was changed")
}

/// How a person stands, as people and scripts read it.
#[must_use]
pub(super) const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Met => "met",
        Standing::Trusted => "trusted",
        Standing::Blocked => "blocked",
    }
}

fn person_json(person: &Person) -> Value {
    json!({
        "v": 1, "type": "person", "user": person.name.as_ref().map(UserName::as_str),
        "standing": word(person.standing), "key": person.key.fingerprint().to_string(),
    })
}
