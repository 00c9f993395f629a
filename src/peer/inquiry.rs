//! What a peer can be asked about others: who is here, what there is, who has it.

use super::{Listing, Peer, RequestError, listing};
use crate::wire::control::{Holder, PeerEntry};
use crate::wire::id::ContentId;
use crate::wire::text::UserName;

impl Peer {
    /// Names that contain `term`, at most `limit` of them.
    ///
    /// # Errors
    /// When the tracker does not answer, or refuses.
    pub async fn search(&self, term: &str, limit: usize) -> Result<Listing, RequestError> {
        self.look_around().await;
        listing::search(&self.0.control, term, limit).await
    }

    /// What `user`, or everybody, shares, at most `limit` of it.
    ///
    /// # Errors
    /// When the tracker does not answer, or nobody of that name is here.
    pub async fn files(
        &self,
        user: Option<&UserName>,
        limit: usize,
    ) -> Result<Listing, RequestError> {
        self.look_around().await;
        listing::files(&self.0.control, user, limit).await
    }

    /// Who is here.
    ///
    /// # Errors
    /// When the tracker does not answer.
    pub async fn peers(&self) -> Result<Vec<PeerEntry>, RequestError> {
        self.look_around().await;
        listing::peers(&self.0.control).await
    }

    /// Who is here under this name, in any case; `None` when nobody is.
    ///
    /// # Errors
    /// When the tracker does not answer, or is asked too fast.
    pub async fn who(&self, user: &UserName) -> Result<Option<PeerEntry>, RequestError> {
        self.look_around().await;
        listing::who(&self.0.control, user).await
    }

    /// Who has `content`.
    ///
    /// # Errors
    /// When the tracker does not answer.
    pub async fn holders(&self, content: ContentId) -> Result<Vec<Holder>, RequestError> {
        self.look_around().await;
        listing::holders(&self.0.control, content).await
    }
}
