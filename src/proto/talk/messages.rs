//! What is said, and what becomes of it.

use std::time::{Duration, Instant};

use super::{Delivery, Event, LinkId, Regard, TalkRefusal, Talks};
use crate::wire::id::PeerId;
use crate::wire::talk::{Frame, Receipt};
use crate::wire::text::ChatText;

/// What a sender hears when so many others send that he is not told apart.
const CROWDED: Duration = Duration::from_secs(1);

impl Talks {
    /// Says something to somebody to whom we talk: over which connection, and under which number there.
    ///
    /// # Errors
    /// When there is no talk, the key is blocked or no longer the name's, or too many messages are on their way.
    pub fn say(
        &mut self,
        now: Instant,
        key: &PeerId,
        to_all: bool,
        text: ChatText,
    ) -> Result<(LinkId, u32), TalkRefusal> {
        let link = self.talk_with(key).ok_or(TalkRefusal::NotOpen)?;
        let line = self.lines.get(&link).ok_or(TalkRefusal::NotOpen)?;
        match self.regard(&line.user, *key) {
            Regard::Blocked => return Err(TalkRefusal::Blocked),
            Regard::OtherKey { known } => return Err(TalkRefusal::OtherKey { known }),
            Regard::Unknown | Regard::Met | Regard::Trusted => {}
        }
        let line = self.lines.get_mut(&link).ok_or(TalkRefusal::NotOpen)?;
        let number = line.number_next(now).ok_or(TalkRefusal::TooMany)?;
        let frame = Frame::Text {
            number,
            to_all,
            text,
        };
        self.send(link, frame);
        Ok((link, number))
    }

    /// What was said was handed to the program that shows it, or could not be.
    pub fn handle_shown(&mut self, link: LinkId, number: u32, is_shown: bool) {
        let receipt = if is_shown {
            Receipt::Shown
        } else {
            Receipt::NotShown
        };
        self.receipt(link, number, receipt);
    }

    pub(super) fn handle_text(
        &mut self,
        now: Instant,
        link: LinkId,
        number: u32,
        to_all: bool,
        text: ChatText,
    ) -> Duration {
        let Some(line) = self.lines.get_mut(&link) else {
            return Duration::ZERO;
        };
        let (user, key) = (line.user.clone(), line.key);
        let before = line.came_before(now, number);
        let wait = self.texts.of(key, now).map_or(CROWDED, |bucket| {
            if bucket.take(now) {
                Duration::ZERO
            } else {
                bucket.wait(now)
            }
        });
        if let Some(receipt) = before {
            self.send(link, Frame::Received { number, receipt });
        } else if wait.is_zero() {
            self.events.push_back(Event::Said {
                link,
                number,
                user,
                key,
                to_all,
                text,
            });
        } else {
            let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
            self.receipt(link, number, Receipt::TooFast { wait_ms });
        }
        wait
    }

    pub(super) fn handle_receipt(&mut self, link: LinkId, number: u32, receipt: Receipt) {
        let line = self.lines.get_mut(&link);
        if line.is_some_and(|line| line.confirm(number)) {
            self.report(link, number, Delivery::from(receipt));
        }
    }

    pub(super) fn report(&mut self, link: LinkId, number: u32, delivery: Delivery) {
        self.events.push_back(Event::Delivery {
            link,
            number,
            delivery,
        });
    }

    fn receipt(&mut self, link: LinkId, number: u32, receipt: Receipt) {
        if let Some(line) = self.lines.get_mut(&link) {
            line.note_receipt(number, receipt);
            self.send(link, Frame::Received { number, receipt });
        }
    }
}

impl From<Receipt> for Delivery {
    fn from(receipt: Receipt) -> Self {
        match receipt {
            Receipt::Shown => Self::Delivered,
            Receipt::TooFast { wait_ms } => {
                Self::TooFast(Duration::from_millis(u64::from(wait_ms)))
            }
            Receipt::NotShown => Self::NotShown,
        }
    }
}
