//! Walks the pages of the tracker's listings.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::control::Control;
use super::event::RequestError;
use super::neighbours::Neighbour;
use crate::wire::control::{
    AT_LEAST, Cursor, Hit, Holder, ListFiles, ListPeers, Locate, Page, PeerEntry, Request,
    Response, Search, Who,
};
use crate::wire::id::ContentId;
use crate::wire::text::{UserName, fold};

/// More pages than any honest listing of a group has: a lying tracker ends here.
const MAX_PAGES: usize = 20_000;

/// A neighbour answers within this time, or is left out.
const NEIGHBOUR_TIME: Duration = Duration::from_secs(3);

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
    let wanted = term.to_owned();
    let request = move |cursor| {
        Request::Search(Search {
            term: wanted.clone(),
            cursor,
        })
    };
    let own = hits(control, limit, request.clone()).await?;
    let Some(neighbours) = control.neighbours() else {
        return Ok(own);
    };
    let others = hits_of(neighbours, limit, request).await;
    Ok(gather(limit, Some(own), others, &fold(term)))
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
    let request = |user: Option<UserName>| {
        move |cursor| {
            Request::ListFiles(ListFiles {
                user: user.clone(),
                cursor,
            })
        }
    };
    let own = hits(control, limit, request(user.cloned())).await;
    let Some(mut neighbours) = control.neighbours() else {
        return own;
    };
    if let Some(user) = user {
        neighbours.retain(|neighbour| neighbour.user.folded() == user.folded());
    }
    let own = match own {
        // Somebody else's name.
        Err(RequestError::NoSuchUser) if !neighbours.is_empty() => None,
        own => Some(own?),
    };
    // All that is at the tracker of somebody is its own.
    let others = hits_of(neighbours, limit, request(None)).await;
    Ok(gather(limit, own, others, ""))
}

/// Who is here.
///
/// # Errors
/// As [`search`].
pub async fn peers(control: &Control) -> Result<Vec<PeerEntry>, RequestError> {
    let mut entries = peers_at(control).await?;
    let Some(neighbours) = control.neighbours() else {
        return Ok(entries);
    };
    // Whoever has joined our small tracker is shown as soon as we have joined its own.
    entries.retain(|entry| entry.peer == control.tracker());
    let asked = ask_all(neighbours, |it| async move { peers_at(&it.control).await }).await;
    let others = asked.into_iter();
    entries.extend(others.filter_map(|(neighbour, found)| neighbour.own_entry(found)));
    Ok(entries)
}

/// Who is here, as this one tracker says.
///
/// # Errors
/// As [`search`].
pub async fn peers_at(control: &Control) -> Result<Vec<PeerEntry>, RequestError> {
    let request = |cursor| Request::ListPeers(ListPeers { cursor });
    let pick = |response| match response {
        Response::Peers(page) => Some(page),
        _ => None,
    };
    let key = |entry: &PeerEntry| entry.peer;
    let (mut found, _) = walk(control, usize::MAX, request, pick, key, |_, _| {}).await?;
    for entry in &mut found {
        on_our_link(control, &mut entry.addresses);
    }
    Ok(found)
}

/// Who has `content`.
///
/// # Errors
/// As [`search`].
pub async fn holders(control: &Control, content: ContentId) -> Result<Vec<Holder>, RequestError> {
    let mut holders = holders_at(control, content).await?;
    let Some(neighbours) = control.neighbours() else {
        return Ok(holders);
    };
    holders.retain(|holder| holder.peer == control.tracker());
    let ask = |it: Neighbour| async move { holders_at(&it.control, content).await };
    let others = ask_all(neighbours, ask).await.into_iter();
    holders.extend(others.filter_map(|(neighbour, found)| neighbour.own_holder(found)));
    Ok(holders)
}

async fn holders_at(control: &Control, content: ContentId) -> Result<Vec<Holder>, RequestError> {
    let request = |cursor| Request::Locate(Locate { content, cursor });
    let pick = |response| match response {
        Response::Located(page) => Some(page),
        _ => None,
    };
    let key = |holder: &Holder| holder.peer;
    let (mut found, _) = walk(control, usize::MAX, request, pick, key, |_, _| {}).await?;
    for holder in &mut found {
        on_our_link(control, &mut holder.addresses);
    }
    Ok(found)
}

/// Who bears the name `user`, in any case; `None` when nobody of that name is here.
///
/// # Errors
/// When the tracker does not answer, or is asked too fast.
pub async fn who(control: &Control, user: &UserName) -> Result<Option<PeerEntry>, RequestError> {
    let bears_it = |name: &UserName| name.folded() == user.folded();
    let named = control.neighbours().unwrap_or_default();
    let named: Vec<_> = named.into_iter().filter(|it| bears_it(&it.user)).collect();
    if !named.is_empty() {
        let asked = ask_all(named, |it| async move { peers_at(&it.control).await }).await;
        let mut others = asked.into_iter();
        return Ok(others.find_map(|(neighbour, found)| neighbour.own_entry(found)));
    }
    let request = Request::Who(Who { user: user.clone() });
    match control.ask(request).await {
        Ok(Response::Who(mut entry)) if bears_it(&entry.user) => {
            on_our_link(control, &mut entry.addresses);
            Ok(Some(entry))
        }
        Ok(_) => Err(RequestError::NoAnswer),
        Err(RequestError::NoSuchUser) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks the small trackers of all of them at the same time. Whoever does not answer soon says nothing.
async fn ask_all<T, F>(
    neighbours: Vec<Neighbour>,
    ask: impl Fn(Neighbour) -> F,
) -> Vec<(Neighbour, T)>
where
    T: Send + 'static,
    F: Future<Output = Result<T, RequestError>> + Send + 'static,
{
    let mut asking = JoinSet::new();
    for (number, neighbour) in neighbours.into_iter().enumerate() {
        let question = timeout(NEIGHBOUR_TIME, ask(neighbour.clone()));
        asking.spawn(async move { (number, neighbour, question.await) });
    }
    let mut answers = BTreeMap::new();
    while let Some(asked) = asking.join_next().await {
        if let Ok((number, neighbour, Ok(Ok(answer)))) = asked {
            answers.insert(number, (neighbour, answer));
        }
    }
    answers.into_values().collect()
}

/// What the small trackers of `neighbours` answer to this.
async fn hits_of<R>(neighbours: Vec<Neighbour>, limit: usize, request: R) -> Vec<Listing>
where
    R: Fn(Cursor) -> Request + Clone + Send + Sync + 'static,
{
    let ask = |neighbour: Neighbour| {
        let request = request.clone();
        async move { hits(&neighbour.control, limit, request).await }
    };
    let own = |(neighbour, mut listing): (Neighbour, Listing)| {
        let hits = listing.hits.into_iter();
        listing.hits = hits.map(|hit| neighbour.own_hit(hit)).collect();
        listing
    };
    let asked = ask_all(neighbours, ask).await;
    asked.into_iter().map(own).collect()
}

/// One listing of several: hits of one file become one, those whose name is most like `term` first.
fn gather(limit: usize, own: Option<Listing>, others: Vec<Listing>, term: &str) -> Listing {
    let (mut hits, mut seen): (Vec<Hit>, _) = (Vec::new(), HashMap::new());
    let (mut counted, mut is_partial, mut is_whole) = (0_u32, false, true);
    for listing in own.into_iter().chain(others) {
        counted = counted.saturating_add(listing.total);
        is_partial |= listing.is_partial;
        is_whole &= listing.total as usize == listing.hits.len();
        for hit in listing.hits {
            match seen.entry(hit.file.clone()) {
                Entry::Occupied(found) => Hit::merge(&mut hits[*found.get()], hit),
                Entry::Vacant(vacant) => {
                    vacant.insert(hits.len());
                    hits.push(hit);
                }
            }
        }
    }
    if is_whole {
        counted = u32::try_from(hits.len()).unwrap_or(u32::MAX);
    }
    hits.sort_by_cached_key(|hit| {
        let name = fold(hit.file.name.as_str());
        let rank = match name.find(term) {
            Some(0) if name.len() == term.len() => 0,
            Some(0) => 1,
            Some(_) => 2,
            None => 3,
        };
        (rank, name)
    });
    hits.truncate(limit);
    Listing {
        hits,
        total: counted,
        is_partial,
    }
}

/// An address that is good on one link only is on that over which the tracker is reached.
fn on_our_link(control: &Control, addresses: &mut [SocketAddr]) {
    let SocketAddr::V6(tracker) = control.address() else {
        return;
    };
    for address in addresses {
        if let SocketAddr::V6(v6) = address
            && v6.ip().is_unicast_link_local()
        {
            v6.set_scope_id(tracker.scope_id());
        }
    }
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
    // Of one name and content there may be several claims: a length that somebody made up, say.
    let key = |hit: &Hit| hit.file.clone();
    let (hits, total) = walk(control, limit, request, pick, key, Hit::merge).await?;
    Ok(Listing {
        hits,
        total: total & !AT_LEAST,
        is_partial: total & AT_LEAST != 0,
    })
}

/// Asks page after page; of entries with one key, since the listing moved meanwhile or they are for different
/// people, the later ones are merged into the first.
async fn walk<T, K: Hash + Eq>(
    control: &Control,
    limit: usize,
    request: impl Fn(Cursor) -> Request,
    pick: impl Fn(Response) -> Option<Page<T>>,
    key: impl Fn(&T) -> K,
    merge: impl Fn(&mut T, T),
) -> Result<(Vec<T>, u32), RequestError> {
    let (mut entries, mut seen, mut cursor) = (Vec::new(), HashMap::new(), Cursor::default());
    let (mut first, mut is_end) = (None, false);
    for _ in 0..MAX_PAGES {
        let page = match control.ask(request(cursor.clone())).await {
            // Long listings are walked at the pace that the tracker sets.
            Err(RequestError::TooFast(wait)) if first.is_some() => {
                tokio::time::sleep(wait.min(MAX_WAIT)).await;
                continue;
            }
            answer => pick(answer?).ok_or(RequestError::NoAnswer)?,
        };
        // Only the first page counts those of all.
        first.get_or_insert(page.total);
        for entry in page.entries {
            match seen.entry(key(&entry)) {
                Entry::Occupied(found) => merge(&mut entries[*found.get()], entry),
                Entry::Vacant(vacant) => {
                    vacant.insert(entries.len());
                    entries.push(entry);
                }
            }
        }
        match page.next {
            // A page may be empty, and the next one not; but each begins elsewhere.
            Some(next) if entries.len() < limit && next != cursor => cursor = next,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::wire::control::{Publication, PublicationKind};

    fn hit(len: u64, kind: PublicationKind) -> Hit {
        let file = Publication {
            name: "talk.mp4".parse().unwrap(),
            content: ContentId([1; 32]),
            len,
            kind,
        };
        Hit {
            file,
            owners: vec!["bob".parse().unwrap()],
            holders: 1,
            is_restricted: false,
        }
    }

    #[tokio::test]
    async fn what_one_has_for_chosen_people_and_another_for_everybody_is_one_file() {
        let public = hit(1, PublicationKind::File);
        let mine = Hit {
            owners: vec!["ana".parse().unwrap()],
            is_restricted: true,
            ..public.clone()
        };
        let (control, _) = pages(vec![
            (vec![mine.clone(), mine], Some(1)),
            (vec![public], None),
        ]);
        let found = search(&control, "talk", 100).await.unwrap().hits;
        assert_eq!(
            (found.len(), found[0].holders, found[0].is_restricted),
            (1, 2, false)
        );
    }

    /// A tracker with these pages, each of whose cursors is the number of the page that it asks for.
    fn pages(pages: Vec<(Vec<Hit>, Option<u8>)>) -> (Control, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let control = Control::answering(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            let Request::Search(search) = request else {
                panic!("{request:?}")
            };
            let number = search.cursor.0.first().copied().unwrap_or(0);
            let (entries, next) = pages[usize::from(number)].clone();
            let next = next.map(|next| Cursor(vec![next]));
            Ok(Response::Found(Page {
                entries,
                next,
                total: 9,
            }))
        });
        (control, asked)
    }

    #[tokio::test]
    async fn what_is_said_of_one_content_is_listed_once_for_each_claim() {
        use PublicationKind::{File, Folder};
        let claims = [hit(1, File), hit(500, File), hit(500, Folder)];
        let [lie, honest, other] = claims.clone();
        let again = vec![honest.clone(), other];
        let (control, _) = pages(vec![(vec![lie, honest], Some(1)), (again, None)]);
        let listing = search(&control, "talk", 100).await.unwrap();
        assert_eq!((listing.hits, listing.total), (claims.to_vec(), 3));
    }

    #[tokio::test]
    async fn an_empty_page_is_gone_past_and_one_that_leads_to_itself_is_the_last() {
        let one = vec![hit(1, PublicationKind::File)];
        let (control, asked) = pages(vec![
            (Vec::new(), Some(1)),
            (Vec::new(), Some(2)),
            (one.clone(), Some(2)),
        ]);
        let listing = search(&control, "talk", 100).await.unwrap();
        assert_eq!((listing.hits, asked.load(Ordering::Relaxed)), (one, 3));
    }

    #[tokio::test]
    async fn a_name_leads_to_whoever_bears_it_and_to_nobody_else() {
        let entry = |user: &str| PeerEntry {
            user: user.parse().unwrap(),
            peer: crate::wire::id::PeerId([1; 32]),
            addresses: Vec::new(),
            files: 0,
            since_s: 0,
        };
        let bob = entry("bob");
        let known = bob.clone();
        let control = Control::answering(move |request| match request {
            Request::Who(asked) if asked.user.as_str() == "ana" => Err(RequestError::NoSuchUser),
            Request::Who(_) => Ok(Response::Who(known.clone())),
            other => panic!("{other:?}"),
        });
        let ask = async |name: &str| who(&control, &name.parse().unwrap()).await;
        assert_eq!(ask("BOB").await, Ok(Some(bob)));
        assert_eq!(ask("ana").await, Ok(None));
        let other = ask("eve").await;
        assert_eq!(
            other,
            Err(RequestError::NoAnswer),
            "a tracker that mixes up people"
        );
    }
}
