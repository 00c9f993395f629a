//! What the tracker shall know of our files, and what to say when it knows something else.
//!
//! Each heartbeat's answer carries how many files the tracker has of us and a digest of them. Whenever
//! that is not what we published, after a restart of the tracker say, everything is said again.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::wire::MAX_FILES_PER_REQUEST;
use crate::wire::control::{
    Audience, Files, HeartbeatAck, Publication, PublicationKind, Request, batches,
};
use crate::wire::id::ContentId;
use crate::wire::text::FileName;

/// All of a publication: what is being hashed has no id to tell it from another of its name.
type Key = (FileName, ContentId, u64, PublicationKind);

/// Files that are to be published, and those whose withdrawal was not confirmed yet.
#[derive(Debug, Default)]
pub struct Announce {
    published: BTreeMap<Key, Told>,
    withdrawn: BTreeMap<Key, Told>,
    digest: u64,
    /// How far everything has been said again.
    repeated: Option<Repeated>,
}

/// What the tracker is told of a file.
#[derive(Clone, Debug)]
struct Told {
    file: Publication,
    /// Whom it is for; of what was withdrawn that does not matter.
    audience: Audience,
}

/// What was said again, to the key that was said last.
#[derive(Debug)]
enum Repeated {
    Withdrawn(Option<Key>),
    Published(Option<Key>),
}

impl Announce {
    /// Adds a file for `audience`, or changes whom it is for; the request tells the tracker. `None` when it was
    /// there already, for the same.
    pub fn publish(&mut self, file: Publication, audience: Audience) -> Option<Request> {
        let key = key_of(&file);
        self.withdrawn.remove(&key);
        let told = Told {
            file: file.clone(),
            audience: audience.clone(),
        };
        if let Some(before) = self.published.insert(key, told) {
            if before.audience == audience {
                return None;
            }
            self.digest ^= file.mark(&before.audience);
        }
        self.digest ^= file.mark(&audience);
        batches([file], &audience).pop().map(Request::Publish)
    }

    /// Takes a file back; the request tells the tracker. `None` when it was not there.
    pub fn withdraw(&mut self, file: &Publication) -> Option<Request> {
        let Told { file, audience } = self.published.remove(&key_of(file))?;
        self.digest ^= file.mark(&audience);
        let told = Told {
            file: file.clone(),
            audience: Audience::EVERYBODY,
        };
        self.withdrawn.insert(key_of(&file), told);
        batches([file], &Audience::EVERYBODY)
            .pop()
            .map(Request::Unpublish)
    }

    /// The tracker confirmed `request`.
    pub fn confirm(&mut self, request: &Request) {
        if let Request::Unpublish(gone) = request {
            for file in &gone.files {
                self.withdrawn.remove(&key_of(file));
            }
        }
    }

    /// Is there nothing to say?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.published.is_empty() && self.withdrawn.is_empty()
    }

    /// Is what the tracker has of us what we published?
    #[must_use]
    pub fn agrees(&self, ack: &HeartbeatAck) -> bool {
        ack.digest == self.digest && ack.published as usize == self.published.len()
    }

    /// Says everything again, from the beginning: [`Announce::poll_repeat`] gives the requests.
    pub fn repeat(&mut self) {
        self.repeated = Some(Repeated::Withdrawn(None));
    }

    /// Is there more to say again?
    #[must_use]
    pub const fn is_repeating(&self) -> bool {
        self.repeated.is_some()
    }

    /// The next request of what is said again. It is made when it is asked for, so that what was taken back
    /// meanwhile is not published by it.
    pub fn poll_repeat(&mut self) -> Option<Request> {
        if let Repeated::Withdrawn(last) = self.repeated.as_mut()? {
            if let Some(batch) = batch_after(&self.withdrawn, last) {
                return Some(Request::Unpublish(batch));
            }
            self.repeated = Some(Repeated::Published(None));
        }
        if let Some(Repeated::Published(last)) = &mut self.repeated
            && let Some(batch) = batch_after(&self.published, last)
        {
            return Some(Request::Publish(batch));
        }
        self.repeated = None;
        None
    }
}

/// What fits one request of the files behind `last`, which moves on: as far as they are for the same people.
fn batch_after(files: &BTreeMap<Key, Told>, last: &mut Option<Key>) -> Option<Files> {
    let after = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut files = files.range((after, Bound::Unbounded)).map(|(_, told)| told);
    let audience = &files.clone().next()?.audience;
    let same = files
        .by_ref()
        .take_while(|told| told.audience == *audience)
        .map(|told| told.file.clone());
    let batch = batches(same.take(MAX_FILES_PER_REQUEST), audience)
        .into_iter()
        .next()?;
    *last = batch.files.last().map(key_of);
    Some(batch)
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

    fn audience(of: u8) -> Audience {
        let peers = (0..of % 3).map(|number| crate::wire::id::PeerId([number; 32]));
        Audience::of(peers).unwrap_or_default()
    }

    /// A tracker's view, kept by nothing but the requests.
    #[derive(Default)]
    struct Tracker(BTreeMap<Key, Told>);

    impl Tracker {
        fn handle(&mut self, request: &Request) {
            match request {
                Request::Publish(new) => {
                    let told = new.files.iter().map(|file| {
                        let (file, audience) = (file.clone(), new.audience.clone());
                        (key_of(&file), Told { file, audience })
                    });
                    self.0.extend(told);
                }
                Request::Unpublish(gone) => gone
                    .files
                    .iter()
                    .for_each(|f| drop(self.0.remove(&key_of(f)))),
                _ => unreachable!(),
            }
        }

        fn ack(&self) -> HeartbeatAck {
            let marks = self.0.values().map(|told| told.file.mark(&told.audience));
            let digest = marks.fold(0, |digest, mark| digest ^ mark);
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
        assert!(announce.publish(file(1), audience(0)).is_some());
        assert!(announce.publish(file(1), audience(0)).is_none());
        assert!(announce.publish(file(1), audience(1)).is_some());
        assert!(announce.publish(file(1), audience(1)).is_none());
        assert!(announce.withdraw(&file(1)).is_some());
        assert!(announce.withdraw(&file(1)).is_none());
    }

    #[test]
    fn a_restarted_tracker_is_told_everything_again() {
        let mut announce = Announce::default();
        for number in 0..200 {
            announce.publish(file(number), audience(number));
        }
        let mut tracker = Tracker::default();
        assert!(!announce.agrees(&tracker.ack()));
        announce.repeat();
        while let Some(request) = announce.poll_repeat() {
            tracker.handle(&request);
        }
        assert!(announce.agrees(&tracker.ack()));
    }

    #[test]
    fn what_is_taken_back_while_everything_is_said_again_is_not_published_by_it() {
        let (mut announce, mut tracker) = (Announce::default(), Tracker::default());
        for number in 0..200 {
            announce.publish(file(number), audience(number));
        }
        announce.repeat();
        for number in [199, 0, 99] {
            tracker.handle(&announce.poll_repeat().unwrap());
            let gone = announce.withdraw(&file(number)).unwrap();
            tracker.handle(&gone);
            announce.confirm(&gone);
        }
        while let Some(request) = announce.poll_repeat() {
            tracker.handle(&request);
        }
        assert!(announce.agrees(&tracker.ack()) && !announce.is_repeating());
    }

    proptest! {
        #[test]
        fn whatever_was_lost_one_repetition_mends_it(steps: Vec<(bool, u8, u8, bool)>) {
            let (mut announce, mut tracker) = (Announce::default(), Tracker::default());
            for (publishes, number, whom, arrives) in steps {
                let number = number % 64;
                let request = if publishes {
                    announce.publish(file(number), audience(whom))
                } else {
                    announce.withdraw(&file(number))
                };
                if let Some(request) = request.filter(|_| arrives) {
                    tracker.handle(&request);
                    announce.confirm(&request);
                }
            }
            announce.repeat();
            while let Some(request) = announce.poll_repeat() {
                tracker.handle(&request);
            }
            prop_assert!(announce.agrees(&tracker.ack()));
        }
    }
}
