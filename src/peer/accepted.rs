//! Offers that were accepted here: fetched like any download, and told of to whoever made them.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::event::{DownloadError, Event};
use super::talk::OfferNews;
use super::{Order, Origin, Peer, Wanted};
use crate::proto::talk::OfferId;
use crate::wire::id::PeerId;
use crate::wire::talk::{Offer, OfferState};
use crate::wire::text::UserName;

/// How often the other side is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl Peer {
    /// Fetches what is accepted and passes on what is told of offers, until this peer leaves.
    pub(super) async fn follow_offers(self, mut news: mpsc::Receiver<OfferNews>) {
        loop {
            let news = tokio::select! {
                () = self.0.shutdown.cancelled() => return,
                news = news.recv() => news,
            };
            match news {
                None => return,
                Some(OfferNews::Taken {
                    offer,
                    user,
                    key,
                    what,
                }) => {
                    let peer = self.clone();
                    tokio::spawn(async move { peer.fetch_offer(offer, (user, key), what).await });
                }
                Some(OfferNews::State {
                    offer,
                    user,
                    done,
                    state,
                }) => match self.0.sends.fetched_by(offer) {
                    Some(transfer) if state == OfferState::Withdrawn => {
                        if self.order(transfer, Order::Cancel) {
                            let text = format!("{user} has taken back what was being fetched");
                            self.tell(Event::Warning { text });
                        }
                    }
                    Some(_) => {}
                    None => self.0.sends.note_state(offer, done, state),
                },
                Some(OfferNews::Lost { offer }) => {
                    if self.0.sends.fetched_by(offer).is_none() {
                        self.0.sends.note_lost(offer);
                    }
                }
            }
        }
    }

    async fn fetch_offer(&self, offer: OfferId, (user, key): (UserName, PeerId), what: Offer) {
        let file = what.publication;
        if !file.kind.is_hashed() {
            self.tell_state(offer, 0, OfferState::Failed);
            return;
        }
        let name = file.shown_name();
        self.tell(Event::Receiving { user, name });
        let begun = self.begin(Wanted {
            file: file.clone(),
            from: Some(key),
            directory: None,
            waits: true,
            origin: Origin::Asked,
            is_restricted: true,
        });
        let transfer = || {
            let mut running = self.transfers().into_iter();
            running.find(|transfer| transfer.file == file)
        };
        let id = transfer().map(|transfer| transfer.id);
        self.0.sends.set_fetched(offer, id);
        let finishing = begun.finish();
        tokio::pin!(finishing);
        let (mut ticks, mut last) = (interval(TELL_EVERY), None);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            tokio::select! {
                ended = &mut finishing => break ended,
                _ = ticks.tick() => {
                    let done = transfer().map(|transfer| transfer.done);
                    if let Some(done) = done.filter(|done| last != Some(*done)) {
                        last = Some(done);
                        self.tell_state(offer, done, OfferState::Running);
                    }
                }
            }
        };
        self.0.sends.set_fetched(offer, None);
        let (event, state) = match ended {
            // The next start goes on with it.
            Err(DownloadError::Cancelled { .. }) if self.0.shutdown.is_cancelled() => return,
            Err(DownloadError::Cancelled { .. }) => (None, OfferState::Cancelled),
            Err(error) => {
                let text = error.to_string();
                (Some(Event::Warning { text }), OfferState::Failed)
            }
            Ok(done) => (Some(Event::Fetched(done)), OfferState::Done),
        };
        self.tell_state(offer, what.size, state);
        if let Some(event) = event {
            let _ = self.0.keeper.events.send(event).await;
        }
    }
}
