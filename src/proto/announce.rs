//! What the tracker shall know of our files, and what to say when it knows something else.
//!
//! Each heartbeat's answer carries how many files the tracker has of us and a digest of them. Whenever
//! that is not what we published, after a restart of the tracker say, everything is said again.

use std::collections::BTreeMap;

use crate::wire::control::{HeartbeatAck, Publication, PublicationKind, Request, batches};
use crate::wire::id::ContentId;
use crate::wire::text::FileName;

/// All of a publication: what is being hashed has no id to tell it from another of its name.
type Key = (FileName, ContentId, u64, PublicationKind);

/// Files that are to be published, and those whose withdrawal was not confirmed yet.
#[derive(Debug, Default)]
pub struct Announce {
    published: BTreeMap<Key, Publication>,
    withdrawn: BTreeMap<Key, Publication>,
    digest: u64,
}

impl Announce {
    /// Adds a file; the request tells the tracker. `None` when it was there already.
    pub fn publish(&mut self, file: Publication) -> Option<Request> {
        let key = key_of(&file);
        self.withdrawn.remove(&key);
        if self.published.insert(key, file.clone()).is_some() {
            return None;
        }
        self.digest ^= file.mark();
        batches([file]).pop().map(Request::Publish)
    }

    /// Takes a file back; the request tells the tracker. `None` when it was not there.
    pub fn withdraw(&mut self, file: &Publication) -> Option<Request> {
        let file = self.published.remove(&key_of(file))?;
        self.digest ^= file.mark();
        self.withdrawn.insert(key_of(&file), file.clone());
        batches([file]).pop().map(Request::Unpublish)
    }

    /// The tracker confirmed `request`.
    pub fn confirm(&mut self, request: &Request) {
        if let Request::Unpublish(gone) = request {
            for file in &gone.files {
                self.withdrawn.remove(&key_of(file));
            }
        }
    }

    /// Is what the tracker has of us what we published?
    #[must_use]
    pub fn agrees(&self, ack: &HeartbeatAck) -> bool {
        ack.digest == self.digest && ack.published as usize == self.published.len()
    }

    /// Everything, from the beginning.
    #[must_use]
    pub fn repeat(&self) -> Vec<Request> {
        let gone = batches(self.withdrawn.values().cloned())
            .into_iter()
            .map(Request::Unpublish);
        let here = batches(self.published.values().cloned())
            .into_iter()
            .map(Request::Publish);
        gone.chain(here).collect()
    }
}

fn key_of(file: &Publication) -> Key {
    (file.name.clone(), file.content, file.len, file.kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Some are being hashed, under one name.
    fn file(number: u8) -> Publication {
        if number % 4 == 3 {
            let name = "being hashed".parse().unwrap();
            return Publication::being_hashed(name, number.into(), PublicationKind::File);
        }
        let name = format!("file {number}").parse().unwrap();
        Publication {
            name,
            content: ContentId([number; 32]),
            len: u64::from(number),
            kind: PublicationKind::File,
        }
    }

    /// A tracker's view, kept by nothing but the requests.
    #[derive(Default)]
    struct Tracker(BTreeMap<Key, Publication>);

    impl Tracker {
        fn handle(&mut self, request: &Request) {
            match request {
                Request::Publish(new) => self
                    .0
                    .extend(new.files.iter().map(|f| (key_of(f), f.clone()))),
                Request::Unpublish(gone) => gone
                    .files
                    .iter()
                    .for_each(|f| drop(self.0.remove(&key_of(f)))),
                _ => unreachable!(),
            }
        }

        fn ack(&self) -> HeartbeatAck {
            let digest = self.0.values().fold(0, |digest, file| digest ^ file.mark());
            let published = u32::try_from(self.0.len()).unwrap();
            HeartbeatAck {
                interval_ms: 2000,
                silence_ms: 3000,
                published,
                digest,
            }
        }
    }

    #[test]
    fn publishing_twice_says_it_once() {
        let mut announce = Announce::default();
        assert!(announce.publish(file(1)).is_some());
        assert!(announce.publish(file(1)).is_none());
        assert!(announce.withdraw(&file(1)).is_some());
        assert!(announce.withdraw(&file(1)).is_none());
    }

    #[test]
    fn a_restarted_tracker_is_told_everything_again() {
        let mut announce = Announce::default();
        for number in 0..200 {
            announce.publish(file(number));
        }
        let mut tracker = Tracker::default();
        assert!(!announce.agrees(&tracker.ack()));
        for request in announce.repeat() {
            tracker.handle(&request);
        }
        assert!(announce.agrees(&tracker.ack()));
    }

    proptest! {
        #[test]
        fn whatever_was_lost_one_repetition_mends_it(steps: Vec<(bool, u8, bool)>) {
            let (mut announce, mut tracker) = (Announce::default(), Tracker::default());
            for (publishes, number, arrives) in steps {
                let request =
                    if publishes { announce.publish(file(number)) } else { announce.withdraw(&file(number)) };
                if let Some(request) = request.filter(|_| arrives) {
                    tracker.handle(&request);
                    announce.confirm(&request);
                }
            }
            for request in announce.repeat() {
                tracker.handle(&request);
            }
            prop_assert!(announce.agrees(&tracker.ack()));
        }
    }
}
