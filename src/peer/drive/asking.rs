//! Asks sources for pieces, and for the hashes that prove them.

use std::time::Instant;

use super::Driver;
use crate::crypto::content::Hash;
use crate::peer::source::Ask;
use crate::wire::id::PeerId;
use crate::wire::pieces::PieceIndex;

impl Driver<'_> {
    /// Asks `peer` for as much as it shall have to do.
    pub(super) fn feed(&mut self, now: Instant, peer: PeerId) {
        while let Some(piece) = self.swarm.next_request(now, &peer) {
            self.ask_piece(now, peer, piece);
        }
    }

    pub(super) fn feed_idle(&mut self, now: Instant) {
        for peer in self.links.connected().collect::<Vec<_>>() {
            self.feed(now, peer);
        }
    }

    fn ask_piece(&mut self, now: Instant, peer: PeerId, piece: PieceIndex) {
        let page = match self.target.expected(piece) {
            Ok(expected) => {
                let instead = self.candidates(&peer, piece);
                return self.send(peer, Ask::Piece(piece, expected, instead));
            }
            Err(page) => page,
        };
        let holders = || {
            let peers = self.links.peers();
            peers
                .filter(|peer| self.swarm.has_piece(peer, piece))
                .collect()
        };
        for whom in self.pages.hold(now, (peer, piece), page, holders) {
            self.send(whom, Ask::Page(page));
        }
    }

    /// What may come from `peer` in the place of `piece`, with its hashes.
    fn candidates(&mut self, peer: &PeerId, piece: PieceIndex) -> Vec<(PieceIndex, Hash)> {
        let target = &self.target;
        if !target.has_candidates() {
            return Vec::new();
        }
        let is_known = |piece| target.expected(piece).is_ok();
        let candidates = self.swarm.candidates(peer, piece, is_known);
        let expected = |piece| Some((piece, target.expected(piece).ok()?));
        candidates.into_iter().filter_map(expected).collect()
    }

    /// Goes through the pieces that waited for hashes.
    pub(super) fn ask_held(&mut self, now: Instant) {
        for (peer, piece) in self.pages.take_held() {
            if self.swarm.owes(&peer, piece) {
                self.ask_piece(now, peer, piece);
            }
        }
    }

    pub(super) fn send(&mut self, peer: PeerId, ask: Ask) {
        if !self.links.send(&peer, ask) {
            self.lose(Instant::now(), peer, "it takes no requests".to_owned());
        }
    }
}
