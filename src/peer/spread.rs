//! How often each piece was sent, to all who fetch its content: one that may choose sends what it sent least.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::wire::id::ContentId;
use crate::wire::pieces::PieceIndex;

/// Of all contents that somebody fetches now; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spread(Arc<Mutex<HashMap<ContentId, Weak<Sent>>>>);

/// The pieces of one content, and how often each was sent.
#[derive(Debug, Default)]
pub struct Sent(Mutex<HashMap<PieceIndex, u32>>);

impl Spread {
    /// What was sent of `content`, as long as somebody holds it.
    #[must_use]
    pub fn of(&self, content: ContentId) -> Arc<Sent> {
        let mut contents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        contents.retain(|_, sent| sent.strong_count() > 0);
        let known = contents.get(&content).and_then(Weak::upgrade);
        let sent = known.unwrap_or_default();
        contents.insert(content, Arc::downgrade(&sent));
        sent
    }
}

impl Sent {
    /// The one of these that was sent least, the first of several; it counts as sent from here on.
    pub fn choose(&self, candidates: impl IntoIterator<Item = PieceIndex>) -> Option<PieceIndex> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates = candidates.into_iter();
        let least = candidates.min_by_key(|piece| counts.get(piece).copied().unwrap_or(0))?;
        *counts.entry(least).or_insert(0) += 1;
        Some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pieces::Layout;

    #[test]
    fn all_who_fetch_a_content_get_different_pieces() {
        let layout = Layout::new(4 << 20).unwrap();
        let spread = Spread::default();
        let (one, two) = (spread.of(ContentId([1; 32])), spread.of(ContentId([1; 32])));
        let other = spread.of(ContentId([2; 32]));
        let choose = |sent: &Sent| sent.choose(layout.pieces()).map(PieceIndex::get);
        assert_eq!((choose(&one), choose(&two)), (Some(0), Some(1)));
        assert_eq!((choose(&one), choose(&other)), (Some(2), Some(0)));
        assert_eq!((choose(&two), choose(&two)), (Some(3), Some(0)));
        assert_eq!(one.choose([]), None);
        drop((one, two));
        let again = spread.of(ContentId([1; 32]));
        assert_eq!(choose(&again), Some(0), "nobody was left who fetched it");
        assert_eq!(spread.0.lock().unwrap().len(), 2);
    }
}
