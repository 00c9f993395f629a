//! Walks the pages of the tracker's listings.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

use super::control::Control;
use super::event::RequestError;
use crate::wire::control::{
    AT_LEAST, Cursor, Hit, Holder, ListFiles, ListPeers, Locate, Page, PeerEntry, Request,
    Response, Search,
};
use crate::wire::id::ContentId;
use crate::wire::text::UserName;

/// More pages than any honest listing of a group has: a lying tracker ends here.
const MAX_PAGES: usize = 20_000;

/// Longest pause between two pages.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Entries of a listing, as many as were asked for, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The entries, best first.
    pub hits: Vec<Hit>,
    /// How many the tracker counted.
    pub total: u32,
    /// There are others, which it did not count.
    pub is_partial: bool,
}

/// Names that contain `term`.
///
/// # Errors
/// When the tracker does not answer, or refuses.
pub async fn search(control: &Control, term: &str, limit: usize) -> Result<Listing, RequestError> {
    let request = |cursor| {
        Request::Search(Search {
            term: term.to_owned(),
            cursor,
        })
    };
    hits(control, limit, request).await
}

/// What `user`, or everybody, shares.
///
/// # Errors
/// As [`search`]; also when nobody of that name is here.
pub async fn files(
    control: &Control,
    user: Option<&UserName>,
    limit: usize,
) -> Result<Listing, RequestError> {
    hits(control, limit, |cursor| {
        Request::ListFiles(ListFiles {
            user: user.cloned(),
            cursor,
        })
    })
    .await
}

/// Who is here.
///
/// # Errors
/// As [`search`].
pub async fn peers(control: &Control) -> Result<Vec<PeerEntry>, RequestError> {
    let request = |cursor| Request::ListPeers(ListPeers { cursor });
    let pick = |response| match response {
        Response::Peers(page) => Some(page),
        _ => None,
    };
    Ok(walk(control, usize::MAX, request, pick, |entry| entry.peer)
        .await?
        .0)
}

/// Who has `content`.
///
/// # Errors
/// As [`search`].
pub async fn holders(control: &Control, content: ContentId) -> Result<Vec<Holder>, RequestError> {
    let request = |cursor| Request::Locate(Locate { content, cursor });
    let pick = |response| match response {
        Response::Located(page) => Some(page),
        _ => None,
    };
    Ok(
        walk(control, usize::MAX, request, pick, |holder| holder.peer)
            .await?
            .0,
    )
}

async fn hits(
    control: &Control,
    limit: usize,
    request: impl Fn(Cursor) -> Request,
) -> Result<Listing, RequestError> {
    let pick = |response| match response {
        Response::Found(page) | Response::Files(page) => Some(page),
        _ => None,
    };
    let key = |hit: &Hit| (hit.file.name.clone(), hit.file.content);
    let (hits, total) = walk(control, limit, request, pick, key).await?;
    Ok(Listing {
        hits,
        total: total & !AT_LEAST,
        is_partial: total & AT_LEAST != 0,
    })
}

/// Asks page after page; an entry that shows up twice, since the listing moved meanwhile, counts once.
async fn walk<T, K: Hash + Eq>(
    control: &Control,
    limit: usize,
    request: impl Fn(Cursor) -> Request,
    pick: impl Fn(Response) -> Option<Page<T>>,
    key: impl Fn(&T) -> K,
) -> Result<(Vec<T>, u32), RequestError> {
    let (mut entries, mut seen, mut cursor) = (Vec::new(), HashSet::new(), Cursor::default());
    let (mut first, mut is_end) = (None, false);
    for _ in 0..MAX_PAGES {
        let page = match control.ask(request(cursor.clone())).await {
            // Long listings are walked at the pace that the tracker sets.
            Err(RequestError::TooFast(wait)) if !entries.is_empty() => {
                tokio::time::sleep(wait.min(MAX_WAIT)).await;
                continue;
            }
            answer => pick(answer?).ok_or(RequestError::NoAnswer)?,
        };
        // Only the first page counts those of all.
        first.get_or_insert(page.total);
        entries.extend(
            page.entries
                .into_iter()
                .filter(|entry| seen.insert(key(entry))),
        );
        match page.next {
            Some(next) if entries.len() < limit => cursor = next,
            next => {
                is_end = next.is_none();
                break;
            }
        }
    }
    let found = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    entries.truncate(limit);
    // Whoever has seen all needs no count.
    let total = first.filter(|_| !is_end).unwrap_or(found);
    let bound = total & AT_LEAST;
    Ok((entries, (total & !AT_LEAST).max(found) | bound))
}
