//! Answers one request of one peer at one time.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use tracing::{debug, info};

use super::pages::{
    clamp, cursor_of_file, file_place_of, fill, page_of_hits, place_of, read_number,
};
use super::reach::{Interface, reach};
use super::registry::{Arrival, PeerNumber, Place, Record, Registry};
use crate::crypto::random::{Random, random_bytes};
use crate::crypto::secret::Secret;
use crate::crypto::ticket::{TICKET_LIFE_MS, TicketContent, TicketOffice};
use crate::proto::endpoint::Caller;
use crate::proto::limiter::{Buckets, Rate};
use crate::wire::control::{
    AT_LEAST, Cursor, Hit, HolderRef, Kind, ListFiles, Locate, LoggedIn, Page, PageWriter,
    PathToken, PeerEntry, Plaintext, Refusal, Request, Response, Search,
};
use crate::wire::id::{PeerId, RequestId};
use crate::wire::text::UserName;

/// Names that one search counts.
const MAX_COUNTED: usize = 1000;
/// Steps of one request that find nothing; then it is answered with where to go on.
const MAX_STEPS: usize = 8;
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
    pub resume: Option<Secret<32>>,
    /// What the ticket of a LOGIN says of its password, when one was asked for.
    pub credential_mark: Option<[u8; 8]>,
}

/// Which request an answer is for, and the token of the address that it goes to.
pub type Answer = (RequestId, PathToken);

/// An answer that was written.
pub struct Written {
    /// How many bytes it takes; `None` when it does not fit a datagram.
    pub class: Option<usize>,
    /// Was it this?
    pub refusal: Option<Refusal>,
    /// Did somebody log in by it?
    pub logged_in: bool,
}

impl Written {
    /// Writes `response`.
    pub fn new(response: Response, answer: Answer, plaintext: &mut Plaintext) -> Self {
        Self {
            class: response.write(answer.0, answer.1, plaintext),
            logged_in: matches!(response, Response::LoggedIn(_)),
            refusal: match response {
                Response::Refused(refusal) => Some(refusal),
                _ => None,
            },
        }
    }
}

/// The tracker's answers. Several threads ask at the same time; workers, which must not wait, ask only
/// what has `try` in its name.
pub struct Service {
    registry: RwLock<Registry>,
    interfaces: Vec<Interface>,
    searches: Mutex<Buckets<PeerId>>,
    /// Who alone publishes here, and is not the tracker of all.
    owner: Option<PeerId>,
}

impl Service {
    /// Nobody is here.
    #[must_use]
    pub fn new(max_peers: usize, interfaces: Vec<Interface>) -> Self {
        let searches = Buckets::new(SEARCH_RATE, max_peers.max(1));
        Self {
            registry: RwLock::new(Registry::new(max_peers)),
            interfaces,
            searches: Mutex::new(searches),
            owner: None,
        }
    }

    /// From now on only this peer publishes here; everybody when absent.
    pub const fn set_owner(&mut self, owner: Option<PeerId>) {
        self.owner = owner;
    }

    /// Is it the small tracker of one peer?
    #[must_use]
    pub const fn has_owner(&self) -> bool {
        self.owner.is_some()
    }

    /// The machine's memory, for those who only look.
    pub fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name is its user's, who has shown a password, and not whoever's key came first.
    pub fn leave_names_to_passwords(&mut self) {
        let registry = self.registry.get_mut();
        registry
            .unwrap_or_else(PoisonError::into_inner)
            .leave_names_to_passwords();
    }

    fn change(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the answer to `request`, which is not a heartbeat: those end at the endpoint.
    pub fn answer(
        &self,
        moment: Moment<'_>,
        caller: &Caller,
        request: Request,
        answer: Answer,
        plaintext: &mut Plaintext,
    ) -> Written {
        let response = match request {
            Request::Locate(locate) if self.registry().record(&caller.peer).is_some() => {
                let registry = self.registry();
                let class = self.locate(&registry, caller, &locate, answer, plaintext);
                return Written {
                    class: Some(class),
                    refusal: None,
                    logged_in: false,
                };
            }
            other => self.respond(moment, caller, other),
        };
        Written::new(response, answer, plaintext)
    }

    fn respond(&self, moment: Moment<'_>, caller: &Caller, request: Request) -> Response {
        let now = moment.now;
        let is_here = || self.registry().record(&caller.peer).is_some();
        let answer = match request {
            Request::Login(login) => self.log_in(moment, caller, login.user),
            Request::Leave => {
                let mut registry = self.change();
                // A newer session of this peer may have logged in meanwhile.
                let is_its = |record: &Record| record.session == caller.session;
                if registry.record(&caller.peer).is_some_and(is_its)
                    && let Some(record) = registry.leave(caller.peer)
                {
                    info!(user = %record.user, peer = ?caller.peer, from = %caller.from, "peer left");
                }
                Ok(Response::Left)
            }
            Request::Heartbeat => Err(Refusal::NotLoggedIn),
            _ if !is_here() => Err(Refusal::NotLoggedIn),
            Request::Publish(_) if self.owner.is_some_and(|owner| owner != caller.peer) => {
                Err(Refusal::TooManyFiles { limit: 0 })
            }
            Request::Publish(files) => self
                .change()
                .publish(caller.peer, files)
                .map(|()| Response::Published),
            Request::Unpublish(files) => {
                self.change().unpublish(caller.peer, &files.files);
                Ok(Response::Unpublished)
            }
            Request::Search(search) => self
                .may_search(now, caller.peer)
                .map(|()| Response::Found(self.search(caller.peer, &search))),
            // Whoever was here a moment ago has left.
            Request::Locate(_) => Err(Refusal::NotLoggedIn),
            Request::ListPeers(list) => {
                Ok(Response::Peers(self.list_peers(now, caller, &list.cursor)))
            }
            Request::ListFiles(list) => self.list_files(caller.peer, &list).map(Response::Files),
            Request::Who(who) => self
                .may_search(now, caller.peer)
                .and_then(|()| self.who(now, caller, &who.user))
                .map(Response::Who),
        };
        answer.unwrap_or_else(|refusal| {
            debug!(peer = ?caller.peer, from = %caller.from, ?refusal, "refused");
            Response::Refused(refusal)
        })
    }

    /// Writes the answer to LOCATE of a member, if nobody is changing the registry.
    pub fn try_locate(
        &self,
        caller: &Caller,
        locate: &Locate,
        answer: Answer,
        plaintext: &mut Plaintext,
    ) -> Option<usize> {
        let registry = match self.registry.try_read() {
            Ok(registry) => registry,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(self.locate(&registry, caller, locate, answer, plaintext))
    }

    /// Who has a content, written without an allocation.
    fn locate(
        &self,
        registry: &Registry,
        caller: &Caller,
        locate: &Locate,
        answer: Answer,
        plaintext: &mut Plaintext,
    ) -> usize {
        let after = read_number(&locate.cursor);
        let mut page = PageWriter::new(plaintext);
        let mut last: Option<u32> = None;
        for (place, record, len) in registry.holders(caller.peer, &locate.content, after) {
            // Whoever asks does not need to hear of itself.
            let port = record.port.filter(|_| record.peer != caller.peer);
            let Some(port) = port else { continue };
            let address = reach(record.ip, port, caller.ip, &self.interfaces);
            let entry = HolderRef {
                user: record.user.as_str(),
                peer: record.peer,
                len,
                addresses: &[address],
            };
            if !page.push(&entry) {
                let next = last.map(u32::to_be_bytes);
                let next = next.as_ref().map(|place| &place[..]);
                return page.finish(Kind::Locate, answer, next, None);
            }
            last = Some(place);
        }
        page.finish(Kind::Locate, answer, None, None)
    }

    /// May the holder of this ticket come back?
    #[must_use]
    pub fn may_return(&self, ticket: &TicketContent) -> bool {
        self.registry().may_return(&ticket.peer, &ticket.user)
    }

    /// A session was shown again: after its silence, or after a resumption. `is_so` is asked when nobody
    /// else can change the registry.
    ///
    /// # Errors
    /// When its name has been taken meanwhile; the session shall end.
    pub fn show(
        &self,
        now: Instant,
        caller: &Caller,
        is_so: impl FnOnce() -> bool,
    ) -> Result<(), Refusal> {
        let mut registry = self.change();
        let user = match (&caller.ticket, registry.record(&caller.peer)) {
            (Some(ticket), _) => ticket.user.clone(),
            (None, Some(record)) => record.user.clone(),
            // It was logged in, and its name was given to another key meanwhile.
            (None, None) if caller.is_member => return Err(Refusal::NotLoggedIn),
            // Neither a ticket nor a login: LOGIN will come.
            (None, None) => return Ok(()),
        };
        if is_so() {
            registry.come_back(now, arrival(caller, user.clone()))?;
            info!(%user, peer = ?caller.peer, from = %caller.from, "peer is back");
        }
        Ok(())
    }

    /// A peer has proved to be at another address.
    pub fn follow(&self, peer: PeerId, ip: IpAddr) {
        self.change().follow(peer, ip);
    }

    /// A session fell silent.
    pub fn hide(&self, peer: PeerId, is_so: impl FnOnce() -> bool) {
        let mut registry = self.change();
        if is_so() {
            if let Some(record) = registry.record(&peer) {
                info!(user = %record.user, peer = ?peer, ip = %record.ip, "peer is silent");
            }
            registry.hide(peer);
        }
    }

    /// A session ended.
    pub fn end(&self, peer: PeerId, is_so: impl FnOnce() -> bool) {
        let mut registry = self.change();
        if is_so()
            && let Some(record) = registry.leave(peer)
        {
            info!(user = %record.user, peer = ?peer, ip = %record.ip, "peer is gone");
        }
    }

    /// Tells how many files a member publishes and the XOR of their marks, which do not change meanwhile.
    pub fn with_published(&self, peer: &PeerId, tell: impl FnOnce(u32, u64)) {
        let registry = self.registry();
        if let Some(record) = registry.record(peer) {
            tell(record.file_count(), record.digest());
        }
    }

    fn log_in(
        &self,
        moment: Moment<'_>,
        caller: &Caller,
        user: UserName,
    ) -> Result<Response, Refusal> {
        // A session that was resumed has a ticket already and does not log in.
        let resume = moment.resume.ok_or(Refusal::Malformed)?;
        self.change()
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
            resume,
        };
        let ticket = moment.office.issue(&content, moment.random);
        Ok(Response::LoggedIn(LoggedIn {
            ticket,
            observed: caller.from,
        }))
    }

    fn may_search(&self, now: Instant, peer: PeerId) -> Result<(), Refusal> {
        let busy = Refusal::TooFast { wait_ms: 1000 };
        let mut searches = self.searches.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = searches.of(peer, now).ok_or(busy)?;
        if bucket.take(now) {
            return Ok(());
        }
        // Long enough that whoever waits may ask more than once again.
        let wait = bucket.wait(now).max(Duration::from_secs(1));
        Err(Refusal::TooFast {
            wait_ms: millis(wait),
        })
    }

    fn search(&self, reader: PeerId, search: &Search) -> Page<Hit> {
        let (mut page, is_first) = self.page_of_hits(&search.cursor, |registry, place| {
            page_of_hits(registry.search(reader, &search.term, place))
        });
        if is_first && page.next.is_some() {
            let count = self.registry().count(reader, &search.term, MAX_COUNTED);
            let is_more = if count.is_all { 0 } else { AT_LEAST };
            page.total = clamp(count.names) | is_more;
        }
        page
    }

    /// The page from `cursor` on, and whether it is the first one. Each step has the registry for itself, so
    /// that whoever wants to change it need not wait for the whole page.
    fn page_of_hits(
        &self,
        cursor: &Cursor,
        step: impl Fn(&Registry, Place) -> Page<Hit>,
    ) -> (Page<Hit>, bool) {
        let (place, is_first) = place_of(cursor);
        let mut page = step(&self.registry(), place);
        for _ in 1..MAX_STEPS {
            let Some(next) = page.next.as_ref().filter(|_| page.entries.is_empty()) else {
                break;
            };
            page = step(&self.registry(), place_of(next).0);
        }
        (page, is_first)
    }

    fn list_files(&self, reader: PeerId, list: &ListFiles) -> Result<Page<Hit>, Refusal> {
        let Some(user) = &list.user else {
            let (mut page, is_first) = self.page_of_hits(&list.cursor, |registry, place| {
                page_of_hits(registry.files(reader, place))
            });
            if is_first && page.next.is_some() {
                page.total = clamp(self.registry().name_count_for(reader));
            }
            return Ok(page);
        };
        let registry = self.registry();
        let files = registry.files_of(reader, user, file_place_of(&list.cursor));
        let mut page = fill(files.ok_or(Refusal::NoSuchUser)?, cursor_of_file);
        page.total = registry.file_count_of(reader, user);
        Ok(page)
    }

    fn list_peers(&self, now: Instant, caller: &Caller, cursor: &Cursor) -> Page<PeerEntry> {
        let after = read_number(cursor);
        let registry = self.registry();
        let entries = registry.peers(after).map(|(number, record)| {
            let files = registry.file_count_at(caller.peer, number);
            (number, self.entry(now, caller, (record, files)))
        });
        let mut page = fill(entries, |number: &PeerNumber| {
            Cursor(number.to_be_bytes().to_vec())
        });
        page.total = registry.peer_count();
        page
    }

    fn who(&self, now: Instant, caller: &Caller, user: &UserName) -> Result<PeerEntry, Refusal> {
        let registry = self.registry();
        let record = registry.named(user).ok_or(Refusal::NoSuchUser)?;
        let files = registry.file_count_of(caller.peer, user);
        Ok(self.entry(now, caller, (record, files)))
    }

    /// What `caller` is told of a peer, which shows it so many files.
    fn entry(&self, now: Instant, caller: &Caller, (record, files): (&Record, u32)) -> PeerEntry {
        let port = record.port.into_iter();
        let addresses = port.map(|port| reach(record.ip, port, caller.ip, &self.interfaces));
        let since = now.saturating_duration_since(record.since).as_secs();
        PeerEntry {
            user: record.user.clone(),
            peer: record.peer,
            addresses: addresses.collect(),
            files,
            since_s: u32::try_from(since).unwrap_or(u32::MAX),
        }
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

#[cfg(test)]
mod tests;
