//! Whom something is for: names on a line, as keys.

use std::time::Duration;

use super::executor::Executor;
use super::exit::{Class, Failure};
use super::identities::{changed_key, nobody};
use super::options::AddArgs;
use crate::peer::Readers;
use crate::peer::people::Regard;
use crate::wire::MAX_AUDIENCE;
use crate::wire::id::PeerId;
use crate::wire::text::UserName;

impl Executor {
    /// The one who is meant, whom something is for: by the key that the name was met with, else by the one that
    /// it has here.
    pub(super) async fn addressee(&self, user: &str) -> Result<(UserName, PeerId), Failure> {
        let user = self.other(user)?;
        let people = self.peer.people();
        let (known, here) = self.keys_of(&user).await?;
        let key = match (known, here) {
            (Some(known), Some(now)) if known != now => {
                return Err(changed_key(&user, known, now));
            }
            (Some(key), _) | (None, Some(key)) => key,
            (None, None) => return Err(nobody(&user)),
        };
        if people.regard(&user, key) == Regard::Blocked {
            let failure = Failure::new(Class::Refused, format!("{user} is blocked"));
            return Err(failure.hint(format!("unblock {user} first")));
        }
        if known.is_none() {
            let print = key.fingerprint();
            self.screen.note(&format!(
                "{user} was not met before and has the key {print} here; verify {user} tells whether that is so"
            ));
        }
        people.meet(&user, key);
        Ok((user, key))
    }

    /// What is for whom, and for how long. What reads as a time and is somebody's name as well is asked about.
    pub(super) async fn readers(
        &self,
        args: &AddArgs,
    ) -> Result<(Readers, Option<Duration>), Failure> {
        let (time, names) = args.time_and_readers().map_err(Failure::usage)?;
        for word in args.readers.iter().filter(|word| AddArgs::is_time(word)) {
            let Ok(user) = word.parse::<UserName>() else {
                continue;
            };
            let is_known = self.peer.people().key_of(&user).is_some();
            if is_known || matches!(self.key_here(&user).await, Ok(Some(_))) {
                let line = format!("\"{word}\" is a time, and somebody's name");
                let hint = format!("write --time {word}, or --for @{word}");
                return Err(Failure::usage(line).hint(hint));
            }
        }
        if names.is_empty() {
            return Ok((Readers::Everybody, time));
        }
        let mut people = Vec::new();
        for name in names {
            let (user, key) = self.addressee(name).await?;
            people.push((key, user));
        }
        let readers = Readers::of(people);
        let many = || Failure::usage(format!("a share is for at most {MAX_AUDIENCE} people"));
        Ok((readers.ok_or_else(many)?, time))
    }
}
