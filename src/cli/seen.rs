//! Names and people that were on the screen, for whoever types them again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::completion::{Known, Name};
use super::executor::Executor;
use crate::peer::Shared;
use crate::wire::control::{Hit, Publication};
use crate::wire::text::UserName;

/// Names that are remembered; the oldest go.
const MAX_NAMES: usize = 5000;
/// People that are remembered.
const MAX_USERS: usize = 1000;

/// What was listed lately; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    names: VecDeque<Name>,
    users: VecDeque<String>,
}

impl Seen {
    /// These were listed, the most fitting first.
    pub fn hits(&self, hits: &[Hit]) {
        let mut lists = self.lock();
        for hit in hits.iter().take(MAX_NAMES).rev() {
            // What is being hashed has no id that could be typed.
            if hit.file.kind.is_hashed() {
                remember(&mut lists.names, name_of(&hit.file), MAX_NAMES);
            }
            for owner in &hit.owners {
                remember(&mut lists.users, owner.as_str().to_owned(), MAX_USERS);
            }
        }
    }

    /// This one was listed.
    pub fn user(&self, user: &UserName) {
        remember(&mut self.lock().users, user.as_str().to_owned(), MAX_USERS);
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember<T: PartialEq>(list: &mut VecDeque<T>, new: T, most: usize) {
    if list.back() == Some(&new) {
        return;
    }
    list.push_back(new);
    if list.len() > most {
        list.pop_front();
    }
}

fn name_of(file: &Publication) -> Name {
    Name {
        name: file.name.as_str().to_owned(),
        id: file.content.short(),
    }
}

impl Known for Executor {
    fn own(&self) -> Vec<Name> {
        let shares = self.peer().shares();
        shares
            .iter()
            .filter(|Shared { file, .. }| file.kind.is_hashed())
            .map(|Shared { file, .. }| name_of(file))
            .collect()
    }
    fn seen(&self) -> Vec<Name> {
        self.seen.lock().names.iter().cloned().collect()
    }
    fn users(&self) -> Vec<String> {
        let known = self.peer().people().list().into_iter();
        let known = known.filter_map(|person| person.name);
        let known = known.map(|name| name.as_str().to_owned());
        let seen = self.seen.lock().users.clone();
        known.chain(seen).collect()
    }
    fn downloads(&self) -> Vec<(String, String)> {
        let transfers = self.peer().transfers();
        let pair = |transfer: &crate::peer::Transfer| {
            (
                transfer.id.to_string(),
                transfer.file.name.as_str().to_owned(),
            )
        };
        transfers.iter().map(pair).collect()
    }
}
