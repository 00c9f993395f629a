//! Logins that wait for their password to be checked, and whose turn it is.
//!
//! Argon2 is dear on purpose, so a check is a place in a queue of bounded length, and only so many are under
//! way at a time. Each source of strangers and each known identity has a line of its own, and the lines take
//! turns: who fills the queue fills his own line, and loses its end to others when the queue is full.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failures::Failures;
use crate::crypto::password::PasswordHash;
use crate::proto::limiter::Source;
use crate::wire::id::{PeerId, RequestId, SessionId};
use crate::wire::password::Password;
use crate::wire::text::UserName;

/// Logins that may wait for their turn.
pub const MAX_QUEUED: usize = 256;
/// Logins whose outcome is remembered for those who did not hear it.
const MAX_CLIENTS: usize = 16_384;
/// For how long it is.
const OUTCOME_LIFE: Duration = Duration::from_secs(60);
/// A login that nobody asked after for so long is not checked.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bounds of what is told as the time to ask again.
const WAIT_BOUNDS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// What a check takes, before one was seen.
const FIRST_GUESS: Duration = Duration::from_millis(30);

/// One LOGIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The identity of the session.
    pub peer: PeerId,
    /// The session.
    pub session: SessionId,
    /// The request to answer; a repetition has the same.
    pub request: RequestId,
    /// Where the session comes from.
    pub source: Source,
    /// Who it says it is.
    pub user: UserName,
}

/// What a LOGIN is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Its turn comes; ask again after this time.
    Wait(Duration),
    /// It comes after too many failures; try again after this time.
    TooOften(Duration),
    /// The password does not fit.
    Wrong,
    /// The password fits this hash.
    Right(Arc<PasswordHash>),
}

/// Names a check that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId(u64);

/// A password that is to be checked now.
#[derive(Debug)]
pub struct Check {
    /// To be handed back with the outcome.
    pub id: CheckId,
    /// Whose.
    pub user: UserName,
    /// What was typed.
    pub password: Password,
}

#[derive(Debug)]
enum Stage {
    Queued { line: Line, password: Password },
    Checking,
    Done { reply: Reply, at: Instant },
}

#[derive(Debug)]
struct Client {
    attempt: Attempt,
    stage: Stage,
    asked: Instant,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Line {
    Source(Source),
    Known(PeerId),
}

/// The machine; [`super::logins`] drives it.
#[derive(Debug)]
pub struct Desk {
    lanes: usize,
    checking: HashMap<CheckId, (Attempt, Instant)>,
    next: u64,
    clients: HashMap<PeerId, Client>,
    lines: HashMap<Line, VecDeque<PeerId>>,
    /// Lines in which somebody stands, in the order of their turns.
    turns: VecDeque<Line>,
    queued: usize,
    failures: Failures,
    /// What a check takes, smoothed.
    pace: Duration,
}

impl Desk {
    /// Nobody waits; `lanes` checks at a time.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self {
            lanes: lanes.max(1),
            checking: HashMap::new(),
            next: 0,
            clients: HashMap::new(),
            lines: HashMap::new(),
            turns: VecDeque::new(),
            queued: 0,
            failures: Failures::default(),
            pace: FIRST_GUESS,
        }
    }

    /// A LOGIN came, perhaps again.
    pub fn receive(&mut self, now: Instant, attempt: Attempt, password: Password) -> Reply {
        if let Some(client) = self.clients.get_mut(&attempt.peer)
            && client.attempt.session == attempt.session
        {
            let is_same =
                client.attempt.request == attempt.request && client.attempt.user == attempt.user;
            match &client.stage {
                Stage::Done { reply, at } if is_same && now < *at + OUTCOME_LIFE => {
                    return reply.clone();
                }
                Stage::Done { .. } => {}
                // One check at a time: whoever asks for another hears of this one first.
                Stage::Queued { .. } | Stage::Checking => {
                    client.asked = now;
                    return Reply::Wait(self.estimate());
                }
            }
        }
        if let Some(wait) = self.failures.penalty(now, &attempt) {
            return Reply::TooOften(wait);
        }
        self.forget(&attempt.peer);
        if !self.make_room(now, self.line_of(&attempt)) {
            return Reply::Wait(self.estimate());
        }
        self.enqueue(now, attempt, password);
        Reply::Wait(self.estimate())
    }

    /// The next password to check, when there is a lane for it.
    pub fn poll_check(&mut self, now: Instant) -> Option<Check> {
        while self.checking.len() < self.lanes {
            let peer = self.next_in_turn()?;
            let client = self
                .clients
                .get_mut(&peer)
                .expect("who stands in a line is a client");
            let Stage::Queued { password, .. } =
                std::mem::replace(&mut client.stage, Stage::Checking)
            else {
                continue;
            };
            let attempt = client.attempt.clone();
            if now > client.asked + PATIENCE {
                self.clients.remove(&peer);
                continue;
            }
            // Others from there may have failed since it came.
            if let Some(wait) = self.failures.penalty(now, &attempt) {
                self.settle(now, &attempt, Reply::TooOften(wait));
                continue;
            }
            let id = CheckId(self.next);
            self.next += 1;
            let user = attempt.user.clone();
            self.checking.insert(id, (attempt, now));
            return Some(Check { id, user, password });
        }
        None
    }

    /// A check ended: the password fits this hash, or does not fit. Tells whom to answer what.
    pub fn finish(
        &mut self,
        now: Instant,
        id: CheckId,
        fits: Option<Arc<PasswordHash>>,
    ) -> Option<(Attempt, Reply)> {
        let (attempt, began) = self.checking.remove(&id)?;
        self.pace = (self.pace * 7 + now.saturating_duration_since(began)) / 8;
        let reply = match fits {
            Some(hash) => {
                self.failures.forgive(&attempt);
                self.failures.remember(now, attempt.peer, &attempt.user);
                Reply::Right(hash)
            }
            None => {
                self.failures.blame(now, &attempt);
                Reply::Wrong
            }
        };
        self.settle(now, &attempt, reply.clone());
        Some((attempt, reply))
    }

    /// This identity is this user's: it logged in, or came back with a ticket.
    pub fn remember(&mut self, now: Instant, peer: PeerId, user: &UserName) {
        self.failures.remember(now, peer, user);
    }

    /// This identity is gone, or its outcome is void: what it asks next is asked anew.
    pub fn forget(&mut self, peer: &PeerId) {
        if let Some(client) = self.clients.remove(peer)
            && let Stage::Queued { line, .. } = client.stage
        {
            self.leave_line(line, *peer);
        }
    }

    /// Logins that wait for their turn.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    fn line_of(&self, attempt: &Attempt) -> Line {
        if self.failures.is_known(attempt) {
            Line::Known(attempt.peer)
        } else {
            Line::Source(attempt.source)
        }
    }

    fn settle(&mut self, now: Instant, attempt: &Attempt, reply: Reply) {
        // A newer session of the same identity has asked for something else meanwhile.
        if let Some(client) = self.clients.get_mut(&attempt.peer)
            && client.attempt == *attempt
        {
            client.stage = Stage::Done { reply, at: now };
        }
    }

    /// Makes place in the queue, at the cost of the longest line; `false` when that is this one.
    fn make_room(&mut self, now: Instant, line: Line) -> bool {
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.retain(|_, client| {
                !matches!(client.stage, Stage::Done { at, .. } if now >= at + OUTCOME_LIFE)
            });
            if self.clients.len() >= MAX_CLIENTS {
                return false;
            }
        }
        if self.queued < MAX_QUEUED {
            return true;
        }
        let own = self.lines.get(&line).map_or(0, VecDeque::len);
        let longest = self.lines.iter().max_by_key(|(_, waiting)| waiting.len());
        let Some((longest, waiting)) = longest else {
            return false;
        };
        if waiting.len() <= own + 1 {
            return false;
        }
        let (longest, last) = (*longest, waiting.back().copied());
        if let Some(last) = last {
            self.clients.remove(&last);
            self.leave_line(longest, last);
        }
        true
    }

    fn enqueue(&mut self, now: Instant, attempt: Attempt, password: Password) {
        let (peer, line) = (attempt.peer, self.line_of(&attempt));
        let waiting = self.lines.entry(line).or_default();
        if waiting.is_empty() {
            self.turns.push_back(line);
        }
        waiting.push_back(peer);
        self.queued += 1;
        let stage = Stage::Queued { line, password };
        self.clients.insert(
            peer,
            Client {
                attempt,
                stage,
                asked: now,
            },
        );
    }

    fn next_in_turn(&mut self) -> Option<PeerId> {
        let line = self.turns.pop_front()?;
        let waiting = self.lines.get_mut(&line)?;
        let peer = waiting.pop_front()?;
        self.queued -= 1;
        if waiting.is_empty() {
            self.lines.remove(&line);
        } else {
            self.turns.push_back(line);
        }
        Some(peer)
    }

    fn leave_line(&mut self, line: Line, peer: PeerId) {
        let Some(waiting) = self.lines.get_mut(&line) else {
            return;
        };
        let before = waiting.len();
        waiting.retain(|other| *other != peer);
        self.queued -= before - waiting.len();
        if waiting.is_empty() {
            self.lines.remove(&line);
            self.turns.retain(|other| *other != line);
        }
    }

    fn estimate(&self) -> Duration {
        let ahead = u32::try_from(self.queued + self.checking.len()).unwrap_or(u32::MAX);
        let lanes = u32::try_from(self.lanes).unwrap_or(u32::MAX);
        (self.pace * ahead / lanes).clamp(WAIT_BOUNDS.0, WAIT_BOUNDS.1)
    }
}

#[cfg(test)]
mod tests;
