//! Shows what a peer tells by itself: at its own screen, and to those who wait for some of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{broadcast, mpsc};

use super::executor::Patience;
use super::opener::LockedFile;
use super::render;
use super::screen::Screen;
use super::status::Presence;
use super::talking::Talking;
use crate::peer::Event;
use crate::peer::people::{People, Regard};
use crate::wire::text::safe;

/// What is said of a source that has left.
const LEFT: &str = "has left";
/// Events that somebody who waits has not seen yet; beyond it the oldest are lost.
const QUEUE: usize = 256;

/// Where those who wait hear what the peer tells.
#[derive(Clone, Debug)]
pub struct Told(broadcast::Sender<Event>);

impl Default for Told {
    fn default() -> Self {
        Self(broadcast::Sender::new(QUEUE))
    }
}

impl Told {
    /// Hears what is told from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}

/// What somebody waits for; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Interest(Arc<Mutex<Things>>);

#[derive(Debug, Default)]
struct Things {
    contents: Vec<crate::wire::id::ContentId>,
    names: Vec<crate::wire::text::FileName>,
    paths: Vec<std::path::PathBuf>,
}

impl Interest {
    /// This is being downloaded.
    pub fn in_download(&self, file: &crate::wire::control::Publication) {
        let mut things = self.lock();
        things.contents.push(file.content);
        things.names.push(file.name.clone());
    }

    /// What lies there is being read, and sent.
    pub fn in_sending(&self, path: &std::path::Path) {
        self.in_path(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.lock()
            .names
            .extend(crate::wire::text::FileName::from_local(&name));
    }

    /// What lies there is being read.
    pub fn in_path(&self, path: &std::path::Path) {
        self.lock().paths.push(path.to_owned());
    }

    /// Is this event about some of it?
    #[must_use]
    pub fn covers(&self, event: &Event) -> bool {
        let things = self.lock();
        match event {
            Event::Progress(progress) => things.contents.contains(&progress.content),
            Event::Hashing(hashing) => things
                .paths
                .iter()
                .any(|path| hashing.path.starts_with(path)),
            Event::Joined { name, .. }
            | Event::Waiting { name, .. }
            | Event::Stuck { name, .. }
            | Event::SourceLeft { name, .. }
            | Event::SourceDropped { name, .. } => things.names.contains(name),
            Event::Sending { sending, .. } => {
                let name = sending.name.trim_end_matches('/');
                things.names.iter().any(|known| known.as_str() == name)
            }
            _ => false,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Things> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows what happens by itself, until the peer is gone.
pub async fn show_events(
    mut events: mpsc::Receiver<Event>,
    screen: &Screen,
    (presence, told): (&Presence, &Told),
    (talking, people): (&Talking, &People),
    patience: Patience,
) {
    let mut milestones = render::Milestones::default();
    while let Some(event) = events.recv().await {
        presence.hear(&event);
        if event == Event::Left {
            return;
        }
        if let Some(line) = namesake(&event, people) {
            screen.note(&line);
        } else if !talking.show(&event, screen, people) {
            show(&event, screen, &mut milestones, patience);
        }
        // Nobody has to wait.
        let _ = told.0.send(event);
    }
}

/// The line of a neighbour who comes or goes under the name of somebody whom we know with another key.
fn namesake(event: &Event, people: &People) -> Option<String> {
    let (user, key, comes) = match event {
        Event::NeighbourMet { user, key } => (user, key, true),
        Event::NeighbourGone { user, key, .. } => (user, key, false),
        _ => return None,
    };
    let Regard::OtherKey { known } = people.regard(user, *key) else {
        return None;
    };
    let (key, known) = (key.fingerprint(), known.fingerprint());
    Some(if comes {
        format!("! somebody else calls himself {user}: key {key}; the {user} you know has {known}")
    } else {
        format!("! whoever called himself {user} with the key {key} is gone")
    })
}

/// Shows one event.
pub fn show(
    event: &Event,
    screen: &Screen,
    milestones: &mut render::Milestones,
    patience: Patience,
) {
    match event {
        Event::Progress(progress) => {
            let _ = screen.object(&render::progress_json(progress));
            let line = render::progress(progress, screen.live_width());
            let is_shown = screen.has_live_lines() || screen.live(&line);
            if !is_shown && milestones.is_next(progress) {
                screen.note(&render::progress(progress, None));
            }
        }
        Event::Hashing(hashing) => {
            if !screen.live(&render::hashing(hashing)) && milestones.is_next_hashed(hashing) {
                screen.note(&render::hashing(hashing));
            }
        }
        Event::Fetched(done) => {
            let _ = screen.text(&render::downloaded(done));
            if done.file.kind.is_locked() {
                let (path, stays) = (done.path.clone(), true);
                screen.note(&LockedFile { path, stays }.how_to_open());
            }
            let _ = screen.object(&render::fetched_json(&[render::downloaded_json(
                done, None,
            )]));
        }
        Event::SourceLeft { user, .. } if !milestones.is_news(Instant::now(), user, LEFT) => {}
        // What it had no time to end is cut when it has left.
        Event::SourceDropped { user, is_liar, .. }
            if !is_liar && milestones.is_said(user, LEFT) => {}
        Event::SourceDropped { user, reason, .. }
            if !milestones.is_news(Instant::now(), user, reason) => {}
        // The program ends with this line, where nobody can be asked.
        Event::LoggedOut { .. } if patience == Patience::Retries => {}
        Event::LoggedOut { reason } if screen.is_edited() => {
            screen.note(&format!("! {}; press Enter to log in again", safe(reason)));
        }
        other => {
            if let Some(line) = render::event(other) {
                screen.note(&line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Progress;
    use crate::wire::control::{Publication, PublicationKind};
    use crate::wire::id::{ContentId, PeerId};

    #[test]
    fn a_neighbour_under_the_name_of_somebody_else_is_shown_with_both_keys() {
        let people = People::open(None, crate::crypto::kdf::NetworkName::default()).unwrap();
        let user: crate::wire::text::UserName = "bob".parse().unwrap();
        let (bob, other) = (PeerId([1; 32]), PeerId([2; 32]));
        let comes = |key| Event::NeighbourMet {
            user: user.clone(),
            key,
        };
        assert_eq!(
            namesake(&comes(other), &people),
            None,
            "nobody is known by it"
        );
        people.meet(&user, bob);
        assert_eq!(namesake(&comes(bob), &people), None);
        let line = namesake(&comes(other), &people).unwrap();
        for key in [bob, other] {
            assert!(line.contains(&key.fingerprint().to_string()), "{line}");
        }
        let goes = Event::NeighbourGone {
            user: user.clone(),
            key: other,
            has_left: true,
        };
        let line = namesake(&goes, &people).unwrap();
        assert!(line.contains(&other.fingerprint().to_string()), "{line}");
    }

    #[test]
    fn who_waits_hears_of_what_it_waits_for_alone() {
        let interest = Interest::default();
        let file = |name: &str, content| Publication {
            name: name.parse().unwrap(),
            content: ContentId([content; 32]),
            len: 1,
            kind: PublicationKind::File,
        };
        interest.in_download(&file("a", 1));
        let progress = |content| {
            Event::Progress(Progress {
                content: ContentId([content; 32]),
                name: "a".parse().unwrap(),
                is_folder: false,
                done: 0,
                len: 1,
                rate: 0,
                sources: 0,
                is_slow: false,
            })
        };
        assert!(interest.covers(&progress(1)) && !interest.covers(&progress(2)));
        let waiting = |name: &str| Event::Waiting {
            name: name.parse().unwrap(),
            reason: String::new(),
        };
        assert!(interest.covers(&waiting("a")) && !interest.covers(&waiting("b")));
        assert!(!interest.covers(&Event::TrackerBack));
    }
}
