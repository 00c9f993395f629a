//! How far something is: a line that is drawn again and again, or one now and then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use unicode_width::UnicodeWidthStr as _;

use super::{people, size};
use crate::cli::table::cut;
use crate::peer::{Hashing, Progress};
use crate::wire::text::{UserName, safe};

/// Fewest columns to which the name in a line of progress is cut while facts could go instead.
const MIN_NAME: usize = 8;

/// `↓ talk.mp4  41 %  118.0 MiB/s  00:12  3 peers`; where that is too wide, the name is cut and facts go.
#[must_use]
pub fn progress(progress: &Progress, width: Option<usize>) -> String {
    let mut facts = facts(progress.done, progress.len, progress.rate);
    if progress.rate == 0 && progress.sources == 0 && progress.done >= progress.len {
        facts.truncate(1);
    }
    match progress.sources {
        0 if progress.rate > 0 => facts.push("  from this machine".to_owned()),
        0 if progress.done >= progress.len => {}
        sources => facts.push(format!("  {}", people(sources))),
    }
    if progress.is_slow {
        // Said before anything else gives way to it.
        facts.insert(1, "  slow source".to_owned());
    }
    let slash = if progress.is_folder { "/" } else { "" };
    with_facts(&format!("{}{slash}", progress.name), facts, width)
}

/// `↓ 3 more files  41 %  118.0 MiB/s  00:12`: downloads that have no line of their own.
#[must_use]
pub fn progress_of_more(
    count: usize,
    (done, len): (u64, u64),
    rate: u64,
    width: Option<usize>,
) -> String {
    with_facts(
        &format!("{count} more files"),
        facts(done, len, rate),
        width,
    )
}

fn facts(done: u64, len: u64, rate: u64) -> Vec<String> {
    let mut facts = vec![
        format!("  {} %", percent_of(done, len)),
        format!("  {}/s", size(rate)),
    ];
    let left = len.saturating_sub(done);
    if let Some(seconds) = left.checked_div(rate).filter(|_| left > 0) {
        facts.push(format!("  {:02}:{:02}", seconds / 60, seconds % 60));
    }
    facts
}

fn with_facts(name: &str, mut facts: Vec<String>, width: Option<usize>) -> String {
    let Some(width) = width else {
        return format!("↓ {name}{}", facts.concat());
    };
    let room = |facts: &[String]| width.saturating_sub("↓ ".width() + facts.concat().width());
    while facts.len() > 1 && room(&facts) < name.width().min(MIN_NAME) {
        facts.pop();
    }
    let line = format!("↓ {}{}", cut(name, room(&facts)), facts.concat());
    cut(&line, width)
}

/// How much of a download is here, in percent.
#[must_use]
pub fn percent(progress: &Progress) -> u64 {
    percent_of(progress.done, progress.len)
}

/// How much of `len` is `done`, in percent.
pub(super) fn percent_of(done: u64, len: u64) -> u64 {
    if len == 0 {
        return 100;
    }
    let percent = u128::from(done) * 100 / u128::from(len);
    u64::try_from(percent).unwrap_or(100)
}

/// `# talks  41 %  of 118.0 GiB read`
#[must_use]
pub fn hashing(hashing: &Hashing) -> String {
    let name = hashing.path.file_name().unwrap_or(hashing.path.as_os_str());
    let percent = percent_of(hashing.done, hashing.len);
    format!(
        "# {}  {percent} %  of {} read",
        safe(&name.to_string_lossy()),
        size(hashing.len)
    )
}

/// What was said of a source is not said again within this time: all downloads hear of it at once.
const SAID: Duration = Duration::from_secs(10);

/// Where progress cannot be redrawn: a line each 10 % or 10 s, of each download. And what was said of sources.
#[derive(Debug, Default)]
pub struct Milestones {
    last: HashMap<String, (u64, Instant)>,
    said: HashMap<(UserName, String), Instant>,
}

impl Milestones {
    /// Was this not said of `user` a moment ago?
    pub fn is_news(&mut self, now: Instant, user: &UserName, words: &str) -> bool {
        let is_fresh = |at: &Instant| now.saturating_duration_since(*at) < SAID;
        self.said.retain(|_, at| is_fresh(at));
        let key = (user.clone(), words.to_owned());
        self.said.insert(key, now).is_none()
    }

    /// Was this said of `user` lately?
    #[must_use]
    pub fn is_said(&self, user: &UserName, words: &str) -> bool {
        let key = (user.clone(), words.to_owned());
        self.said.get(&key).is_some_and(|at| at.elapsed() < SAID)
    }

    /// Is it time for a line? The end has its own.
    pub fn is_next(&mut self, progress: &Progress) -> bool {
        let key = progress.content.to_hex();
        if progress.done >= progress.len {
            self.last.remove(&key);
            return false;
        }
        self.is_next_of(key, percent(progress))
    }

    /// The same for a hashing.
    pub fn is_next_hashed(&mut self, hashing: &Hashing) -> bool {
        let key = hashing.path.to_string_lossy().into_owned();
        self.is_next_of(key, percent_of(hashing.done, hashing.len))
    }

    fn is_next_of(&mut self, key: String, percent: u64) -> bool {
        let (tenth, now) = (percent / 10, Instant::now());
        let (last, at) = self.last.entry(key).or_insert((tenth, now));
        let is_next = tenth > *last || now.duration_since(*at) >= Duration::from_secs(10);
        if is_next {
            (*last, *at) = (tenth, now);
        }
        is_next
    }
}
