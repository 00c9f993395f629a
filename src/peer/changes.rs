//! Shared paths that may have changed, each handed out when it has been quiet for a while.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Whoever writes is left to finish: so long nothing must have happened.
const QUIET: Duration = Duration::from_secs(1);
/// What never is quiet is looked at this long after its first change.
const LONGEST: Duration = Duration::from_secs(10);

/// Marks of changes; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    marks: Mutex<Marks>,
    news: Notify,
}

/// First and last change of each path.
#[derive(Debug, Default)]
struct Marks(BTreeMap<PathBuf, (Instant, Instant)>);

impl Marks {
    fn mark(&mut self, path: &Path, now: Instant) {
        if let Some((_, last)) = self.0.get_mut(path) {
            *last = now;
        } else {
            self.0.insert(path.to_owned(), (now, now));
        }
    }

    /// The next path, or when there may be one.
    fn take(&mut self, now: Instant) -> Result<PathBuf, Option<Instant>> {
        let due = |(first, last): &(Instant, Instant)| (*last + QUIET).min(*first + LONGEST);
        let next = self.0.iter().map(|(path, mark)| (due(mark), path)).min();
        let (due, path) = next.ok_or(None)?;
        if due > now {
            return Err(Some(due));
        }
        let path = path.clone();
        self.0.remove(&path);
        Ok(path)
    }
}

impl Changes {
    /// What is shared at `path` may have changed.
    pub fn mark(&self, path: &Path) {
        self.marks().mark(path, Instant::now());
        self.0.news.notify_one();
    }

    /// Waits for the next path that is to be looked at.
    pub async fn next(&self) -> PathBuf {
        loop {
            let taken = self.marks().take(Instant::now());
            match taken {
                Ok(path) => return path,
                Err(Some(due)) => tokio::time::sleep_until(due.into()).await,
                Err(None) => self.0.news.notified().await,
            }
        }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "/a";

    #[test]
    fn a_path_is_handed_out_once_when_it_is_quiet() {
        let (mut marks, begin) = (Marks::default(), Instant::now());
        marks.mark(Path::new(A), begin);
        marks.mark(Path::new(A), begin + QUIET / 2);
        let due = begin + QUIET / 2 + QUIET;
        assert_eq!(marks.take(begin + QUIET), Err(Some(due)));
        assert_eq!(marks.take(due), Ok(A.into()));
        assert_eq!(marks.take(due + LONGEST), Err(None));
    }

    #[test]
    fn what_never_rests_is_handed_out_all_the_same() {
        let (mut marks, begin) = (Marks::default(), Instant::now());
        let mut now = begin;
        while now < begin + LONGEST {
            marks.mark(Path::new(A), now);
            assert!(marks.take(now).is_err());
            now += QUIET / 2;
        }
        assert_eq!(marks.take(begin + LONGEST), Ok(A.into()));
    }

    #[tokio::test]
    async fn a_mark_wakes_whoever_waits() {
        let changes = Changes::default();
        let marking = async {
            tokio::task::yield_now().await;
            changes.mark(Path::new(A));
        };
        let (path, ()) = tokio::join!(changes.next(), marking);
        assert_eq!(path, Path::new(A));
    }
}
