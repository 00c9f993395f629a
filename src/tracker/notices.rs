//! What is logged of handshakes that come to nothing: a source's first at once, the others summed up.
//!
//! A flood from one source makes one line a minute, and one from many sources one line for all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::net::Turned;

/// How often the others are summed up.
pub const SUM_EVERY: Duration = Duration::from_secs(60);
/// Sources that are told apart between two sums.
const MAX_SOURCES: usize = 1024;
/// Lines of single sources, at once and in one sum.
const MAX_LINES: usize = 10;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub why: Turned,
    /// From where; absent when it is about many sources.
    pub from: Option<IpAddr>,
    /// How often since it was last told.
    pub times: u64,
    /// How many sources; 1 when `from` says which.
    pub sources: usize,
}

/// What has not been told yet; shared by all handshakes.
#[derive(Debug)]
pub struct Notices(Mutex<State>);

#[derive(Debug)]
struct State {
    sum_at: Instant,
    /// How often since the last line about it. One whose first line is told stays with 0.
    sources: HashMap<(IpAddr, &'static str), (Turned, u64)>,
    /// Of sources beyond the bound.
    others: HashMap<&'static str, (Turned, u64)>,
    /// Lines told at once since the last sum.
    told: usize,
}

impl Notices {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            sum_at: now + SUM_EVERY,
            sources: HashMap::new(),
            others: HashMap::new(),
            told: 0,
        }))
    }

    /// It happened; what to tell at once.
    pub fn note(&self, from: IpAddr, why: Turned) -> Option<Notice> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (from.to_canonical(), words(why));
        if let Some((_, times)) = state.sources.get_mut(&key) {
            *times += 1;
            return None;
        }
        if state.sources.len() >= MAX_SOURCES {
            state.others.entry(words(why)).or_insert((why, 0)).1 += 1;
            return None;
        }
        let is_told = state.told < MAX_LINES;
        state.sources.insert(key, (why, u64::from(!is_told)));
        if !is_told {
            return None;
        }
        state.told += 1;
        Some(Notice {
            why,
            from: Some(key.0),
            times: 1,
            sources: 1,
        })
    }

    /// The sum of a minute, when one is over.
    pub fn sum(&self, now: Instant) -> Vec<Notice> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now < state.sum_at {
            return Vec::new();
        }
        state.sum_at = now + SUM_EVERY;
        state.told = 0;
        let others = std::mem::take(&mut state.others);
        // A source that went on is not told as new in the next minute; one that did not is forgotten.
        let mut again: Vec<_> = Vec::new();
        state.sources.retain(|(from, _), (why, times)| {
            let goes_on = *times > 0;
            if goes_on {
                again.push((*from, *why, std::mem::take(times)));
            }
            goes_on
        });
        drop(state);
        again.sort_by_key(|(from, _, times)| (std::cmp::Reverse(*times), *from));
        let rest = again.split_off(again.len().min(MAX_LINES));
        let single = |(from, why, times)| Notice {
            why,
            from: Some(from),
            times,
            sources: 1,
        };
        let mut notices: Vec<_> = again.into_iter().map(single).collect();
        let mut sums: HashMap<&str, Notice> = HashMap::new();
        let unnamed = others.into_values().map(|(why, times)| (why, times, 0));
        let rest = rest.into_iter().map(|(_, why, times)| (why, times, 1));
        for (why, times, sources) in rest.chain(unnamed) {
            let sum = sums.entry(words(why)).or_insert(Notice {
                why,
                from: None,
                times: 0,
                sources: 0,
            });
            sum.times += times;
            sum.sources += sources;
        }
        let mut sums: Vec<_> = sums.into_values().collect();
        sums.sort_by_key(|sum| words(sum.why));
        notices.extend(sums);
        notices
    }
}

impl Notice {
    /// Puts it into the log: a wrong passphrase where it is seen without `-v`, if the tracker `is_watched`.
    pub fn log(&self, is_watched: bool) {
        let (what, times) = (words(self.why), self.times);
        let is_loud = is_watched && matches!(self.why, Turned::Unproved | Turned::Limited);
        match (is_loud, self.from) {
            (true, Some(from)) => tracing::warn!(%from, times, "{what}"),
            (true, None) => {
                tracing::warn!(sources = self.sources, times, "{what}, from many sources");
            }
            (_, Some(from)) => tracing::info!(%from, times, "{what}"),
            (_, None) => {
                tracing::info!(sources = self.sources, times, "{what}, from many sources");
            }
        }
    }
}

const fn words(why: Turned) -> &'static str {
    match why {
        Turned::Unproved => "wrong passphrase",
        Turned::Limited => "too many handshakes, turned away",
        Turned::Refused => "handshake refused, another version",
        Turned::Busy => "handshake put off, all processors are busy",
        Turned::Silent => "not a member, or of another network",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn one_source_is_told_once_and_then_summed_up() {
        let start = Instant::now();
        let notices = Notices::new(start);
        let first = notices.note(ip(1), Turned::Unproved).unwrap();
        assert_eq!((first.from, first.times), (Some(ip(1)), 1));
        for _ in 0..36 {
            assert_eq!(notices.note(ip(1), Turned::Unproved), None);
        }
        assert!(
            notices.note(ip(1), Turned::Silent).is_some(),
            "something else of the same source"
        );
        assert_eq!(notices.sum(start + SUM_EVERY / 2), []);
        let sum = notices.sum(start + SUM_EVERY);
        assert_eq!(sum.len(), 1, "{sum:?}");
        assert_eq!((sum[0].from, sum[0].times), (Some(ip(1)), 36));
        // It goes on: no second first line.
        assert_eq!(notices.note(ip(1), Turned::Unproved), None);
        assert_eq!(notices.sum(start + SUM_EVERY * 2).len(), 1);
        assert_eq!(notices.sum(start + SUM_EVERY * 3), []);
        assert!(notices.note(ip(1), Turned::Unproved).is_some(), "anew");
    }

    #[test]
    fn a_flood_from_everywhere_makes_few_lines_and_loses_no_count() {
        let start = Instant::now();
        let notices = Notices::new(start);
        let at_once = (0..5000).filter_map(|n| notices.note(ip(n), Turned::Unproved));
        let at_once = at_once.count();
        assert_eq!(at_once, MAX_LINES);
        let sum = notices.sum(start + SUM_EVERY);
        assert_eq!(sum.len(), MAX_LINES + 1, "{sum:?}");
        let told: u64 = sum.iter().map(|notice| notice.times).sum();
        assert_eq!(told + at_once as u64, 5000);
        let state = notices.0.lock().unwrap();
        assert!(state.sources.len() <= MAX_SOURCES);
    }
}
