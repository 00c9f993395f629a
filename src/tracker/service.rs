//! Answers one request of one peer at one time.

use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::{debug, info};

use super::index::{NameId, Rank};
use super::reach::{Interface, reach};
use super::registry::{Arrival, Place, Registry};
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::secret::Secret;
use crate::crypto::ticket::{TICKET_LIFE_MS, TicketContent, TicketOffice};
use crate::proto::endpoint::Caller;
use crate::proto::limiter::{Buckets, Rate};
use crate::proto::session::Rhythm;
use crate::wire::MAX_PAGE_ENTRIES;
use crate::wire::codec::{DecodeError, take};
use crate::wire::control::{
    AT_LEAST, Cursor, HeartbeatAck, Hit, Holder, ListFiles, Locate, LoggedIn, PAGE_BUDGET, Page,
    PeerEntry, Refusal, Request, Response, Search, encoded_len,
};
use crate::wire::id::PeerId;
use crate::wire::text::UserName;

/// Names that one search counts.
const MAX_COUNTED: usize = 1000;
/// Searches of one peer.
const SEARCH_RATE: Rate = Rate::new(20.0, 50.0);

/// What a request needs besides the registry.
pub struct Moment<'a> {
    /// Now.
    pub now: Instant,
    /// This machine's clock, Unix time in ms.
    pub unix_ms: u64,
    /// Makes tickets.
    pub office: &'a TicketOffice,
    /// For their nonces.
    pub random: &'a mut dyn Random,
    /// The resumption secret of the caller's session, when it began with a handshake.
    pub resume: Option<&'a Secret<32>>,
    /// What the ticket of a LOGIN says of its password, when one was asked for.
    pub credential_mark: Option<[u8; 8]>,
}

/// The tracker's answers.
pub struct Service {
    registry: Registry,
    rhythm: Rhythm,
    interfaces: Vec<Interface>,
    searches: Buckets<PeerId>,
}

impl Service {
    /// Nobody is here.
    #[must_use]
    pub fn new(max_peers: usize, rhythm: Rhythm, interfaces: Vec<Interface>) -> Self {
        let searches = Buckets::new(SEARCH_RATE, max_peers.max(1));
        Self {
            registry: Registry::new(max_peers),
            rhythm,
            interfaces,
            searches,
        }
    }

    /// The machine's memory, for those who only look.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A name is its user's, who has shown a password, and not whoever's key came first.
    pub fn leave_names_to_passwords(&mut self) {
        self.registry.leave_names_to_passwords();
    }

    /// Answers `request`.
    pub fn answer(&mut self, moment: Moment<'_>, caller: &Caller, request: Request) -> Response {
        let now = moment.now;
        self.registry.follow(caller.peer, caller.ip);
        let answer = match request {
            Request::Login(login) => self.log_in(moment, caller, login.user),
            Request::Heartbeat => Ok(Response::Heartbeat(self.acknowledge(&caller.peer))),
            Request::Leave => {
                if let Some(record) = self.registry.leave(caller.peer) {
                    info!(user = %record.user, peer = ?caller.peer, from = %caller.from, "peer left");
                }
                Ok(Response::Left)
            }
            _ if self.registry.record(&caller.peer).is_none() => Err(Refusal::NotLoggedIn),
            Request::Publish(files) => self
                .registry
                .publish(caller.peer, files.files)
                .map(|()| Response::Published),
            Request::Unpublish(files) => {
                self.registry.unpublish(caller.peer, &files.files);
                Ok(Response::Unpublished)
            }
            Request::Search(search) => self
                .may_search(now, caller.peer)
                .map(|()| Response::Found(self.search(&search))),
            Request::Locate(locate) => Ok(Response::Located(self.locate(caller, &locate))),
            Request::ListPeers(list) => {
                Ok(Response::Peers(self.list_peers(now, caller, &list.cursor)))
            }
            Request::ListFiles(list) => self.list_files(&list).map(Response::Files),
        };
        answer.unwrap_or_else(|refusal| {
            debug!(peer = ?caller.peer, from = %caller.from, ?refusal, "refused");
            Response::Refused(refusal)
        })
    }

    /// May the holder of this ticket come back?
    #[must_use]
    pub fn may_return(&self, ticket: &TicketContent) -> bool {
        self.registry.may_return(&ticket.peer, &ticket.user)
    }

    /// A session was shown again: after its silence, or after a resumption.
    ///
    /// # Errors
    /// When its name has been taken meanwhile; the session shall end.
    pub fn show(&mut self, now: Instant, caller: &Caller) -> Result<(), Refusal> {
        let user = match (&caller.ticket, self.registry.record(&caller.peer)) {
            (Some(ticket), _) => ticket.user.clone(),
            (None, Some(record)) => record.user.clone(),
            // Neither a ticket nor a login: LOGIN will come.
            (None, None) => return Ok(()),
        };
        self.registry
            .come_back(now, arrival(caller, user.clone()))?;
        info!(%user, peer = ?caller.peer, from = %caller.from, "peer is back");
        Ok(())
    }

    /// A session fell silent.
    pub fn hide(&mut self, peer: PeerId) {
        if let Some(record) = self.registry.record(&peer) {
            info!(user = %record.user, peer = ?peer, ip = %record.ip, "peer is silent");
        }
        self.registry.hide(peer);
    }

    /// A session ended.
    pub fn end(&mut self, peer: PeerId) {
        if let Some(record) = self.registry.leave(peer) {
            info!(user = %record.user, peer = ?peer, ip = %record.ip, "peer is gone");
        }
    }

    fn log_in(
        &mut self,
        moment: Moment<'_>,
        caller: &Caller,
        user: UserName,
    ) -> Result<Response, Refusal> {
        // A session that was resumed has a ticket already and does not log in.
        let resume = moment.resume.ok_or(Refusal::Malformed)?;
        self.registry
            .log_in(moment.now, arrival(caller, user.clone()))?;
        info!(%user, peer = ?caller.peer, from = %caller.from, "peer joined");
        let content = TicketContent {
            user,
            peer: caller.peer,
            has_password: moment.credential_mark.is_some(),
            credential_mark: moment.credential_mark.unwrap_or_default(),
            issued_ms: moment.unix_ms,
            expires_ms: moment.unix_ms.saturating_add(TICKET_LIFE_MS),
            id: random_bytes(moment.random),
            resume: resume.clone(),
        };
        let ticket = moment.office.issue(&content, moment.random);
        Ok(Response::LoggedIn(LoggedIn {
            ticket,
            observed: caller.from,
        }))
    }

    fn acknowledge(&self, peer: &PeerId) -> HeartbeatAck {
        let record = self.registry.record(peer);
        HeartbeatAck {
            interval_ms: millis(self.rhythm.interval),
            silence_ms: millis(self.rhythm.silence),
            published: record.map_or(0, super::registry::Record::file_count),
            digest: record.map_or(0, super::registry::Record::digest),
        }
    }

    fn may_search(&mut self, now: Instant, peer: PeerId) -> Result<(), Refusal> {
        let busy = Refusal::TooFast { wait_ms: 1000 };
        let bucket = self.searches.of(peer, now).ok_or(busy)?;
        if bucket.take(now) {
            return Ok(());
        }
        // Long enough that whoever waits may ask more than once again.
        let wait = bucket.wait(now).max(Duration::from_secs(1));
        Err(Refusal::TooFast {
            wait_ms: millis(wait),
        })
    }

    fn search(&self, search: &Search) -> Page<Hit> {
        let (place, is_first) = place_of(&search.cursor);
        let mut page = page_of_hits(self.registry.search(&search.term, place));
        if is_first && page.next.is_some() {
            let count = self.registry.count(&search.term, MAX_COUNTED);
            let is_more = if count.is_all { 0 } else { AT_LEAST };
            page.total = clamp(count.names) | is_more;
        }
        page
    }

    fn list_files(&self, list: &ListFiles) -> Result<Page<Hit>, Refusal> {
        let Some(user) = &list.user else {
            let (place, is_first) = place_of(&list.cursor);
            let mut page = page_of_hits(self.registry.files(place));
            if is_first && page.next.is_some() {
                page.total = clamp(self.registry.name_count());
            }
            return Ok(page);
        };
        let after = read_cursor::<8>(&list.cursor).map(u64::from_be_bytes);
        let files = self
            .registry
            .files_of(user, after)
            .ok_or(Refusal::NoSuchUser)?;
        let mut page = fill(files, |mark: &u64| Cursor(mark.to_be_bytes().to_vec()));
        page.total = self.registry.file_count_of(user);
        Ok(page)
    }

    fn locate(&self, caller: &Caller, locate: &Locate) -> Page<Holder> {
        let after = read_cursor::<32>(&locate.cursor).map(PeerId);
        let holders = self.registry.holders(&locate.content, after);
        // Whoever asks does not need to hear of itself.
        let others = holders.filter(|(peer, ..)| **peer != caller.peer);
        let entries = others.filter_map(|(peer, record, len)| {
            let address = reach(record.ip, record.port?, caller.ip, &self.interfaces);
            let holder = Holder {
                user: record.user.clone(),
                peer: *peer,
                len,
                addresses: vec![address],
            };
            Some((*peer, holder))
        });
        fill(entries, |peer: &PeerId| Cursor(peer.0.to_vec()))
    }

    fn list_peers(&self, now: Instant, caller: &Caller, cursor: &Cursor) -> Page<PeerEntry> {
        let after = read_cursor::<32>(cursor).map(PeerId);
        let entries = self.registry.peers(after).map(|(peer, record)| {
            let port = record.port.into_iter();
            let addresses = port.map(|port| reach(record.ip, port, caller.ip, &self.interfaces));
            let since = now.saturating_duration_since(record.since).as_secs();
            let entry = PeerEntry {
                user: record.user.clone(),
                peer: *peer,
                addresses: addresses.collect(),
                files: record.file_count(),
                since_s: u32::try_from(since).unwrap_or(u32::MAX),
            };
            (*peer, entry)
        });
        let mut page = fill(entries, |peer: &PeerId| Cursor(peer.0.to_vec()));
        page.total = self.registry.peer_count();
        page
    }
}

fn arrival(caller: &Caller, user: UserName) -> Arrival {
    Arrival {
        peer: caller.peer,
        user,
        session: caller.session,
        ip: caller.ip,
        port: caller.listening_port,
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// As many entries as one datagram holds; the cursor names the last one.
fn fill<K, T: Serialize>(
    mut entries: impl Iterator<Item = (K, T)>,
    cursor: impl Fn(&K) -> Cursor,
) -> Page<T> {
    let mut page = Page {
        entries: Vec::new(),
        next: None,
        total: 0,
    };
    let (mut left, mut last) = (PAGE_BUDGET, None);
    for (key, entry) in entries.by_ref() {
        let len = encoded_len(&entry);
        if len > left || page.entries.len() >= MAX_PAGE_ENTRIES {
            page.next = last.as_ref().map(&cursor);
            break;
        }
        left -= len;
        last = Some(key);
        page.entries.push(entry);
    }
    page.total = u32::try_from(page.entries.len()).unwrap_or(u32::MAX);
    page
}

/// The same for hits, whose cursor names the next one.
fn page_of_hits(hits: impl Iterator<Item = (Place, Hit)>) -> Page<Hit> {
    let mut page = Page {
        entries: Vec::new(),
        next: None,
        total: 0,
    };
    let mut left = PAGE_BUDGET;
    for (place, hit) in hits {
        let len = encoded_len(&hit);
        if len > left || page.entries.len() >= MAX_PAGE_ENTRIES {
            page.next = Some(cursor_of(place));
            break;
        }
        left -= len;
        page.entries.push(hit);
    }
    page.total = clamp(page.entries.len());
    page
}

fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn cursor_of(place: Place) -> Cursor {
    let mut bytes = vec![place.rank.to_byte()];
    bytes.extend(place.name.to_bytes());
    bytes.extend(place.content);
    Cursor(bytes)
}

/// The place that a cursor names, and whether it is the beginning. A broken one begins anew.
fn place_of(cursor: &Cursor) -> (Place, bool) {
    let parse = || -> Result<Place, DecodeError> {
        let mut rest = cursor.0.as_slice();
        let [rank] = take(&mut rest)?;
        let name = NameId::from_bytes(take(&mut rest)?);
        let content = take(&mut rest)?;
        Ok(Place {
            rank: Rank::from_byte(rank),
            name,
            content,
        })
    };
    parse().map_or((Place::START, true), |place| (place, false))
}

fn read_cursor<const N: usize>(cursor: &Cursor) -> Option<[u8; N]> {
    cursor.0.as_slice().try_into().ok()
}
