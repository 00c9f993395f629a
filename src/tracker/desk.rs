//! Logins that wait for their password to be checked: whose turn it is, and who has to wait for having been
//! wrong too often.
//!
//! Argon2 is dear on purpose, so a check is a place in a queue of bounded length, and only so many are under
//! way at a time. Each source of strangers and each known identity has a line of its own, and the lines take
//! turns: who fills the queue fills his own line, and loses its end to others when the queue is full.
//!
//! Failures are counted where they come from, never for a name alone: a flood in somebody's name from
//! elsewhere does not lock him out. An identity that has logged in as this user before (by password or with
//! a ticket) answers only for its own failures; a stranger answers for those of his source, and for those of
//! his source with this name. A right password forgives what was wrong with the same name from there, not
//! what the source did to others.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypto::password::PasswordHash;
use crate::proto::limiter::Source;
use crate::wire::id::{PeerId, RequestId, SessionId};
use crate::wire::password::Password;
use crate::wire::text::UserName;

/// Logins that may wait for their turn.
pub const MAX_QUEUED: usize = 256;
/// Failures that cost nothing: everybody mistypes.
const FREE_FAILURES: u32 = 5;
/// Longest wait after a failure.
const MAX_PENALTY: Duration = Duration::from_secs(60);
/// Failures are forgotten when none came for so long.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// Places whose failures are remembered, and identities that are known to be somebody's.
const MAX_REMEMBERED: usize = 65_536;
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

/// Who answers for a failure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Blame {
    Source(Source),
    NameAt(String, Source),
    Peer(PeerId),
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn blocked_until(&self) -> Option<Instant> {
        let over = self.count.checked_sub(FREE_FAILURES)?;
        let penalty = Duration::from_secs(1 << over.min(6)).min(MAX_PENALTY);
        Some(self.last + penalty)
    }
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
    failures: HashMap<Blame, Failures>,
    known: HashMap<(PeerId, String), Instant>,
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
            failures: HashMap::new(),
            known: HashMap::new(),
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
        if let Some(wait) = self.penalty(now, &attempt) {
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
            if let Some(wait) = self.penalty(now, &attempt) {
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
                self.forgive(&attempt);
                self.remember(now, attempt.peer, &attempt.user);
                Reply::Right(hash)
            }
            None => {
                self.blame(now, &attempt);
                Reply::Wrong
            }
        };
        self.settle(now, &attempt, reply.clone());
        Some((attempt, reply))
    }

    /// This identity is this user's: it logged in, or came back with a ticket.
    pub fn remember(&mut self, now: Instant, peer: PeerId, user: &UserName) {
        make_place(&mut self.known, |since| *since);
        self.known.insert((peer, user.folded()), now);
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

    fn is_known(&self, attempt: &Attempt) -> bool {
        self.known
            .contains_key(&(attempt.peer, attempt.user.folded()))
    }

    fn line_of(&self, attempt: &Attempt) -> Line {
        if self.is_known(attempt) {
            Line::Known(attempt.peer)
        } else {
            Line::Source(attempt.source)
        }
    }

    fn blamed(&self, attempt: &Attempt) -> Vec<Blame> {
        if self.is_known(attempt) {
            vec![Blame::Peer(attempt.peer)]
        } else {
            let source = attempt.source;
            vec![
                Blame::NameAt(attempt.user.folded(), source),
                Blame::Source(source),
            ]
        }
    }

    fn penalty(&self, now: Instant, attempt: &Attempt) -> Option<Duration> {
        let blamed = self.blamed(attempt);
        let failures = blamed.iter().filter_map(|blame| self.failures.get(blame));
        let until = failures.filter_map(Failures::blocked_until).max()?;
        (until > now).then(|| until - now)
    }

    fn blame(&mut self, now: Instant, attempt: &Attempt) {
        for blame in self.blamed(attempt) {
            if !self.failures.contains_key(&blame) {
                make_place(&mut self.failures, |failures| failures.last);
            }
            let failures = self.failures.entry(blame).or_insert(Failures {
                count: 0,
                last: now,
            });
            if now > failures.last + MEMORY {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last = now;
        }
    }

    fn forgive(&mut self, attempt: &Attempt) {
        let source = attempt.source;
        if self.is_known(attempt) {
            // Not what strangers there did in the same name.
            self.failures.remove(&Blame::Peer(attempt.peer));
            return;
        }
        let own = self
            .failures
            .remove(&Blame::NameAt(attempt.user.folded(), source));
        if let (Some(own), Some(all)) = (own, self.failures.get_mut(&Blame::Source(source))) {
            all.count = all.count.saturating_sub(own.count);
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

/// Room for one more in a table of things that age: the oldest goes.
fn make_place<K: Clone + Eq + Hash, V>(table: &mut HashMap<K, V>, age: impl Fn(&V) -> Instant) {
    if table.len() < MAX_REMEMBERED {
        return;
    }
    let oldest = table
        .iter()
        .min_by_key(|(_, value)| age(value))
        .map(|(key, _)| key.clone());
    if let Some(oldest) = oldest {
        table.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::OsRandom;

    const SECOND: Duration = Duration::from_secs(1);

    fn attempt(peer: u16, ip: u8, user: &str) -> Attempt {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&peer.to_be_bytes());
        Attempt {
            peer: PeerId(key),
            session: SessionId::from_bytes([1; 7]),
            request: RequestId(1),
            source: Source::of([10, 0, 0, ip].into()),
            user: user.parse().unwrap(),
        }
    }

    fn password() -> Password {
        Password::parse("x").unwrap()
    }

    fn hash() -> Arc<PasswordHash> {
        const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$O5EH4ljNFKZ/INmDTO5lGg$zYqv0s5Cvo/mQvWPeXeT+hT4KJlQ99QSrp5U249Rz2c";
        Arc::new(
            PasswordHash::parse(CHEAP)
                .unwrap()
                .decoy(&mut OsRandom::new()),
        )
    }

    /// One LOGIN from its first datagram to its outcome.
    fn log_in(desk: &mut Desk, now: Instant, mut attempt: Attempt, fits: bool) -> Reply {
        attempt.request = RequestId(u32::try_from(desk.next).unwrap() + 1);
        match desk.receive(now, attempt, password()) {
            Reply::Wait(_) => {}
            other => return other,
        }
        let check = desk.poll_check(now).unwrap();
        desk.finish(now, check.id, fits.then(hash)).unwrap().1
    }

    #[test]
    fn a_repeated_login_starts_no_second_check() {
        let (mut desk, now) = (Desk::new(2), Instant::now());
        let ana = attempt(1, 1, "ana");
        for _ in 0..5 {
            assert!(matches!(
                desk.receive(now, ana.clone(), password()),
                Reply::Wait(_)
            ));
        }
        let check = desk.poll_check(now).unwrap();
        assert!(desk.poll_check(now).is_none());
        let other = Attempt {
            request: RequestId(2),
            ..ana.clone()
        };
        for again in [ana.clone(), other] {
            assert!(matches!(
                desk.receive(now, again, password()),
                Reply::Wait(_)
            ));
        }
        assert!(desk.poll_check(now).is_none(), "also under another number");
        assert!(matches!(
            desk.finish(now, check.id, Some(hash())),
            Some((_, Reply::Right(_)))
        ));
        assert!(matches!(
            desk.receive(now, ana, password()),
            Reply::Right(_)
        ));
        assert!(desk.poll_check(now).is_none());
        assert_eq!(desk.finish(now, check.id, None), None, "once");
    }

    #[test]
    fn as_many_at_a_time_as_there_are_lanes_and_memory_is_bounded() {
        let (mut desk, now) = (Desk::new(3), Instant::now());
        for peer in 0..5000 {
            desk.receive(now, attempt(peer, 1, "ana"), password());
        }
        assert_eq!(desk.queued(), MAX_QUEUED);
        assert!(desk.clients.len() <= MAX_QUEUED);
        let checks: Vec<_> = std::iter::from_fn(|| desk.poll_check(now)).collect();
        assert_eq!(checks.len(), 3);
        desk.finish(now, checks[0].id, None);
        assert_eq!(
            std::iter::from_fn(|| desk.poll_check(now)).count(),
            1,
            "the lane came back"
        );
        for wave in 0..200_u16 {
            let later = now + SECOND * u32::from(wave) * 20;
            for peer in 0..300 {
                desk.receive(later, attempt(wave * 300 + peer, 1, "ana"), password());
            }
            while let Some(check) = desk.poll_check(later) {
                desk.finish(later, check.id, Some(hash()));
            }
            assert!(desk.clients.len() <= MAX_CLIENTS && desk.queued() <= MAX_QUEUED);
        }
    }

    #[test]
    fn five_hundred_at_once_are_all_served_each_with_one_check() {
        let (mut desk, mut now) = (Desk::new(2), Instant::now());
        let mut waiting: Vec<_> = (0..500)
            .map(|peer| (now, attempt(peer, 1, "ana")))
            .collect();
        let (mut checks, mut rounds) = (0, 0);
        while !waiting.is_empty() {
            rounds += 1;
            assert!(rounds < 2000, "{} are never served", waiting.len());
            waiting.retain_mut(|(at, attempt)| {
                if *at > now {
                    return true;
                }
                match desk.receive(now, attempt.clone(), password()) {
                    Reply::Right(_) => false,
                    Reply::Wait(wait) => {
                        *at = now + wait;
                        true
                    }
                    other => panic!("{other:?}"),
                }
            });
            let under_way: Vec<_> = std::iter::from_fn(|| desk.poll_check(now)).collect();
            now += Duration::from_millis(20);
            for check in under_way {
                checks += 1;
                desk.finish(now, check.id, Some(hash()));
            }
        }
        assert_eq!(checks, 500);
        assert!(rounds < 600, "{rounds} rounds: the lanes stood idle");
    }

    #[test]
    fn failures_make_slower_and_the_right_password_forgives_its_own() {
        let (mut desk, mut now) = (Desk::new(1), Instant::now());
        let ana = || attempt(1, 1, "ana");
        for _ in 0..4 {
            assert_eq!(log_in(&mut desk, now, ana(), false), Reply::Wrong);
        }
        assert!(
            matches!(log_in(&mut desk, now, ana(), true), Reply::Right(_)),
            "four slips are free"
        );
        let mallory = || attempt(2, 2, "ana");
        for _ in 0..5 {
            assert_eq!(log_in(&mut desk, now, mallory(), false), Reply::Wrong);
        }
        for penalty in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = penalty * SECOND;
            assert_eq!(
                log_in(&mut desk, now, mallory(), true),
                Reply::TooOften(wait)
            );
            now += wait;
            assert_eq!(
                log_in(&mut desk, now, mallory(), false),
                Reply::Wrong,
                "after {penalty} s"
            );
        }
        let other_key = attempt(3, 2, "ana");
        assert!(
            matches!(log_in(&mut desk, now, other_key, true), Reply::TooOften(_)),
            "keys are free"
        );
        now += MEMORY + SECOND;
        assert_eq!(log_in(&mut desk, now, mallory(), false), Reply::Wrong);
        assert_eq!(
            log_in(&mut desk, now, mallory(), false),
            Reply::Wrong,
            "long ago is forgotten"
        );
    }

    #[test]
    fn one_source_cannot_try_many_names_nor_buy_itself_free() {
        let (mut desk, now) = (Desk::new(1), Instant::now());
        for number in 0..4 {
            let name = format!("user{number}");
            assert_eq!(
                log_in(&mut desk, now, attempt(1, 1, &name), false),
                Reply::Wrong
            );
        }
        assert!(matches!(
            log_in(&mut desk, now, attempt(1, 1, "own"), true),
            Reply::Right(_)
        ));
        assert_eq!(
            log_in(&mut desk, now, attempt(1, 1, "user4"), false),
            Reply::Wrong
        );
        let next = log_in(&mut desk, now, attempt(1, 1, "user5"), true);
        assert_eq!(
            next,
            Reply::TooOften(SECOND),
            "its own login did not forgive the others"
        );
        assert!(
            matches!(
                log_in(&mut desk, now, attempt(1, 1, "own"), true),
                Reply::Right(_)
            ),
            "as whom it is known"
        );
    }

    #[test]
    fn a_flood_in_somebodys_name_does_not_slow_him_where_he_is() {
        let (mut desk, mut now) = (Desk::new(1), Instant::now());
        assert!(matches!(
            log_in(&mut desk, now, attempt(1, 1, "ana"), true),
            Reply::Right(_)
        ));
        // From fifty places, one of them the very source of ana.
        for round in 0..100_u16 {
            for ip in 1..=50 {
                log_in(&mut desk, now, attempt(1000 + round, ip, "ANA"), false);
            }
            now += SECOND;
        }
        assert!(matches!(
            log_in(&mut desk, now, attempt(7, 1, "ana"), true),
            Reply::TooOften(_)
        ));
        assert!(
            matches!(
                log_in(&mut desk, now, attempt(1, 1, "ana"), true),
                Reply::Right(_)
            ),
            "her key is known"
        );
        assert!(
            matches!(
                log_in(&mut desk, now, attempt(8, 99, "ana"), true),
                Reply::Right(_)
            ),
            "a new key elsewhere"
        );
        let (bob, ticket) = (attempt(9, 1, "bob"), attempt(9, 1, "bob").peer);
        assert!(matches!(
            log_in(&mut desk, now, bob.clone(), true),
            Reply::TooOften(_)
        ));
        desk.remember(now, ticket, &bob.user);
        assert!(
            matches!(log_in(&mut desk, now, bob, true), Reply::Right(_)),
            "who came with a ticket"
        );
    }

    #[test]
    fn who_fills_the_queue_fills_his_own_line() {
        let (mut desk, now) = (Desk::new(1), Instant::now());
        for peer in 0..1000 {
            desk.receive(now, attempt(peer, 1, "ana"), password());
        }
        assert_eq!(desk.queued(), MAX_QUEUED);
        desk.receive(now, attempt(2000, 2, "bob"), password());
        assert_eq!(desk.queued(), MAX_QUEUED, "the end of the long line left");
        let mut before_bob = 0;
        loop {
            let check = desk.poll_check(now).unwrap();
            desk.finish(now, check.id, None);
            if check.user.as_str() == "bob" {
                break;
            }
            before_bob += 1;
        }
        assert!(before_bob <= 1, "{before_bob} were before him");
        // The others of that source are not even checked after five failures.
        let mut checked = before_bob;
        while let Some(check) = desk.poll_check(now) {
            checked += 1;
            desk.finish(now, check.id, None);
        }
        assert_eq!((checked, desk.queued()), (5, 0));
    }

    #[test]
    fn nobody_is_checked_who_went_away() {
        let (mut desk, now) = (Desk::new(1), Instant::now());
        desk.receive(now, attempt(1, 1, "ana"), password());
        desk.receive(now, attempt(2, 1, "bob"), password());
        desk.forget(&attempt(1, 1, "ana").peer);
        assert_eq!(desk.queued(), 1);
        assert!(desk.poll_check(now + PATIENCE + SECOND).is_none());
        assert!(desk.clients.is_empty() && desk.lines.is_empty() && desk.turns.is_empty());
    }
}
