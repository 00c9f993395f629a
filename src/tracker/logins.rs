//! Logs users in by password: the desk, the threads that hash, and the users as they are now.
//!
//! Nothing here waits. LOGIN is answered with WAIT at once; the outcome is pushed to the session, and given
//! to whoever asks again. Whose password changed, or who is no user any more, is put out: the session may
//! say no more than LOGIN, and hears at its next heartbeat, if the word does not reach it at once, that its
//! login is void.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::credentials::{Credentials, Users};
use super::desk::{Attempt, Desk, Reply};
use super::hashing::{Outcome, Pool};
use super::metrics::Metrics;
use crate::crypto::ticket::{TicketContent, TicketOffice};
use crate::proto::endpoint::Caller;
use crate::proto::limiter::Source;
use crate::wire::control::{Login, Refusal, Request, Response};
use crate::wire::id::{PeerId, RequestId, SessionId};
use crate::wire::text::UserName;

/// Identities that were put out and may not know it yet.
const MAX_VOID: usize = 65_536;

/// Whom a user and a password have let in.
#[derive(Debug)]
struct Holder {
    user: UserName,
    session: SessionId,
    /// What the password fitted, or the ticket spoke of.
    hash: String,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Ruling {
    /// The service answers it; a LOGIN with what its ticket shall say.
    Pass(Request, Option<[u8; 8]>),
    /// This is the answer.
    Answer(Response),
}

/// All logins of one tracker.
pub struct Logins {
    desk: Desk,
    pool: Pool,
    metrics: Arc<Metrics>,
    credentials: Arc<Credentials>,
    /// The same as the endpoint's, to look at tickets with.
    office: TicketOffice,
    holders: HashMap<PeerId, Holder>,
    void: HashMap<PeerId, Instant>,
}

impl Logins {
    /// Nobody is logged in yet.
    #[must_use]
    pub fn new(
        credentials: Arc<Credentials>,
        office: TicketOffice,
        pool: Pool,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            desk: Desk::new(pool.lanes()),
            pool,
            metrics,
            credentials,
            office,
            holders: HashMap::new(),
            void: HashMap::new(),
        }
    }

    /// A request came: LOGIN is for the desk, and who was put out is told so.
    pub fn receive(
        &mut self,
        now: Instant,
        unix_ms: u64,
        caller: &Caller,
        id: RequestId,
        request: Request,
    ) -> Ruling {
        match request {
            Request::Login(login) => self.receive_login(now, unix_ms, caller, id, login),
            Request::Leave => Ruling::Pass(Request::Leave, None),
            _ if self.void.contains_key(&caller.peer) => {
                Ruling::Answer(Response::Refused(Refusal::LoginVoid))
            }
            request => Ruling::Pass(request, None),
        }
    }

    fn receive_login(
        &mut self,
        now: Instant,
        unix_ms: u64,
        caller: &Caller,
        id: RequestId,
        login: Login,
    ) -> Ruling {
        let refused = |refusal| Ruling::Answer(Response::Refused(refusal));
        if caller.ticket.is_some() {
            return refused(Refusal::Malformed);
        }
        let Login { user, password } = login;
        let Some(password) = password else {
            return refused(Refusal::PasswordNeeded);
        };
        let attempt = Attempt {
            peer: caller.peer,
            session: caller.session,
            request: id,
            source: Source::of(caller.ip),
            user: user.clone(),
        };
        let mut reply = self.desk.receive(now, attempt.clone(), password.clone());
        if matches!(&reply, Reply::Right(hash) if !self.is_current(&user, hash.as_str())) {
            self.desk.forget(&caller.peer);
            reply = self.desk.receive(now, attempt, password);
        }
        self.give_work(now);
        match reply {
            Reply::Right(hash) => {
                let mark = self.office.credential_mark(hash.as_str(), unix_ms);
                let login = Login {
                    user,
                    password: None,
                };
                Ruling::Pass(Request::Login(login), Some(mark))
            }
            other => Ruling::Answer(answer(&other)),
        }
    }

    /// A check ended: which session is to hear what. A right password is only asked for once more, so that
    /// everybody comes in through the same door.
    pub fn finish(
        &mut self,
        now: Instant,
        outcome: Outcome,
    ) -> Option<(SessionId, RequestId, Response)> {
        let finished = self.desk.finish(now, outcome.id, outcome.fits);
        self.give_work(now);
        let (attempt, reply) = finished?;
        if reply == Reply::Wrong {
            info!(user = %attempt.user, "login failed");
        }
        Some((attempt.session, attempt.request, answer(&reply)))
    }

    /// The service has let this login in.
    pub fn note_login(&mut self, now: Instant, caller: &Caller, user: &UserName) {
        let hash = self.credentials.users().find(user).cloned();
        if let Some(hash) = hash {
            self.hold(caller, user.clone(), hash.as_str().to_owned());
            self.desk.remember(now, caller.peer, user);
        }
    }

    /// A session came back; `false` when its ticket is void by now.
    pub fn may_show(&mut self, now: Instant, unix_ms: u64, caller: &Caller) -> bool {
        let Some(ticket) = &caller.ticket else {
            return true;
        };
        if self.office.renew(ticket, unix_ms).is_err() {
            self.put_out(now, caller.peer);
            return false;
        }
        let TicketContent { user, .. } = &**ticket;
        self.note_login(now, caller, user);
        true
    }

    /// The identity has no session any more.
    pub fn forget(&mut self, peer: &PeerId) {
        self.desk.forget(peer);
        self.holders.remove(peer);
        self.void.remove(peer);
    }

    /// Other users are in force: who may not stay, with the session that shall hear of it.
    pub fn replace(&mut self, now: Instant, users: Users) -> Vec<(PeerId, SessionId)> {
        self.credentials.replace(users);
        let users = self.credentials.users();
        let is_void = |holder: &Holder| {
            let hash = users.find(&holder.user);
            hash.is_none_or(|hash| hash.as_str() != holder.hash)
        };
        let out: Vec<_> = self
            .holders
            .iter()
            .filter(|(_, holder)| is_void(holder))
            .map(|(peer, holder)| (*peer, holder.session))
            .collect();
        for (peer, _) in &out {
            if let Some(Holder { user, .. }) = self.holders.remove(peer) {
                info!(%user, "login is void: the user is gone or has another password");
            }
            self.put_out(now, *peer);
        }
        out
    }

    fn put_out(&mut self, now: Instant, peer: PeerId) {
        self.desk.forget(&peer);
        if self.void.len() >= MAX_VOID {
            let oldest = self.void.iter().min_by_key(|(_, since)| **since);
            let oldest = oldest.map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.void.remove(&peer));
        }
        self.void.insert(peer, now);
    }

    fn hold(&mut self, caller: &Caller, user: UserName, hash: String) {
        self.void.remove(&caller.peer);
        let session = caller.session;
        let holder = Holder {
            user,
            session,
            hash,
        };
        self.holders.insert(caller.peer, holder);
    }

    fn is_current(&self, user: &UserName, hash: &str) -> bool {
        let users = self.credentials.users();
        users
            .find(user)
            .is_some_and(|current| current.as_str() == hash)
    }

    /// Gives the free threads what stands first.
    fn give_work(&mut self, now: Instant) {
        while let Some(check) = self.desk.poll_check(now) {
            let users = self.credentials.users();
            let is_users = users.find(&check.user).is_some();
            match users.measure(&check.user) {
                Some(measure) => self.pool.check(check, Arc::clone(measure), is_users),
                // No users, so no password can be right.
                None => drop(self.desk.finish(now, check.id, None)),
            }
        }
        self.metrics.set_logins_waiting(self.desk.queued());
    }
}

fn answer(reply: &Reply) -> Response {
    let ms = |wait: &Duration| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
    match reply {
        Reply::Wait(wait) => Response::Wait(ms(wait)),
        Reply::TooOften(wait) => Response::Refused(Refusal::LoginTooOften { wait_ms: ms(wait) }),
        Reply::Wrong => Response::Refused(Refusal::WrongLogin),
        // Not the ticket itself: ask again, now.
        Reply::Right(_) => Response::Wait(0),
    }
}
