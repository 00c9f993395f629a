//! Hears from the system when something below a shared path changes, and marks that path.
//!
//! A file is watched through its folder, since many programs write a new file and give it the old name.
//! Where the system has no more watches, changes are noticed when somebody asks for the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::changes::Changes;

/// Watches what is shared; cheap to clone.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    roots: Roots,
    changes: Changes,
    watchers: Mutex<Watchers>,
}

/// Shared paths, for whoever hears of a change.
type Roots = Arc<Mutex<BTreeSet<PathBuf>>>;

#[derive(Debug, Default)]
struct Watchers {
    /// Of folders in which shares lie, and of how many.
    parents: Option<RecommendedWatcher>,
    lie_in: BTreeMap<PathBuf, usize>,
    /// Of shared folders, with all below. Another one, since both may watch the same folder.
    folders: Option<RecommendedWatcher>,
}

/// Why a path is not watched, in words that people read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unwatched(String);

impl Watch {
    /// Nothing is watched; what changes later is marked in `changes`.
    #[must_use]
    pub fn new(changes: Changes) -> Self {
        Self(Arc::new(Inner {
            roots: Roots::default(),
            changes,
            watchers: Mutex::default(),
        }))
    }

    /// Watches `path`, which is absolute, and what is below it; once more when it is watched already, as
    /// a folder may have taken the place of another one. Blocking.
    ///
    /// # Errors
    /// When the system does not tell of all its changes.
    pub fn add(&self, path: &Path) -> Result<(), Unwatched> {
        if path.parent().is_some_and(|parent| !parent.is_dir()) {
            // Nothing can come back there before the folder does.
            return Ok(());
        }
        let mut watchers = self.watchers();
        let is_new = self.roots().insert(path.to_owned());
        let mut done = Ok(());
        if let Some(parent) = path.parent().filter(|_| is_new) {
            let uses = watchers.lie_in.entry(parent.to_owned()).or_insert(0);
            *uses += 1;
            if *uses == 1 {
                done = self.watch(&mut watchers.parents, parent, RecursiveMode::NonRecursive);
            }
        }
        if path.is_dir() {
            done = done.and(self.watch(&mut watchers.folders, path, RecursiveMode::Recursive));
        }
        if path.is_symlink() {
            // What it leads to changes elsewhere, and is told for itself alone.
            done = done.and(self.watch(&mut watchers.folders, path, RecursiveMode::NonRecursive));
        }
        done
    }

    /// Watches `path` no longer. Blocking.
    pub fn remove(&self, path: &Path) {
        let mut watchers = self.watchers();
        if !self.roots().remove(path) {
            return;
        }
        let Watchers {
            parents,
            lie_in,
            folders,
        } = &mut *watchers;
        if let Some(parent) = path.parent()
            && let Some(uses) = lie_in.get_mut(parent)
        {
            *uses -= 1;
            if *uses == 0 {
                lie_in.remove(parent);
                if let Some(watcher) = parents {
                    let _ = watcher.unwatch(parent);
                }
            }
        }
        // Below and above may lie other shares, which would lose their watches.
        let is_shared = |other: &PathBuf| other.starts_with(path) || path.starts_with(other);
        let is_needed = self.roots().iter().any(is_shared);
        if let Some(watcher) = folders.as_mut().filter(|_| !is_needed) {
            let _ = watcher.unwatch(path);
        }
    }

    fn watch(
        &self,
        slot: &mut Option<RecommendedWatcher>,
        path: &Path,
        mode: RecursiveMode,
    ) -> Result<(), Unwatched> {
        let explain = |error: notify::Error| {
            Unwatched(match error.kind {
                ErrorKind::MaxFilesWatch => {
                    "the system has no more watches (sysctl fs.inotify.max_user_watches)".to_owned()
                }
                ErrorKind::Io(error) => error.to_string(),
                _ => error.to_string(),
            })
        };
        if slot.is_none() {
            let (roots, changes) = (Arc::clone(&self.0.roots), self.0.changes.clone());
            let handle = move |event: notify::Result<notify::Event>| {
                hear(event, &roots, &changes);
            };
            // A link is not shared, so nothing behind one matters.
            let config = Config::default().with_follow_symlinks(false);
            let watcher = RecommendedWatcher::new(handle, config).map_err(explain)?;
            *slot = Some(watcher);
        }
        let Some(watcher) = slot else { return Ok(()) };
        match watcher.watch(path, mode) {
            // Whoever reads it tells that it is not there.
            Err(_) if !path.exists() => Ok(()),
            done => done.map_err(explain),
        }
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.0
            .watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn roots(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hear(event: notify::Result<notify::Event>, roots: &Roots, changes: &Changes) {
    let roots = roots.lock().unwrap_or_else(PoisonError::into_inner);
    let event = match event {
        Ok(event) if !event.need_rescan() => event,
        // Something was not told: everything may have changed.
        _ => {
            roots.iter().for_each(|root| changes.mark(root));
            return;
        }
    };
    let is_change = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    if is_change {
        for path in &event.paths {
            let above = path.ancestors().filter(|above| roots.contains(*above));
            above.for_each(|root| changes.mark(root));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// The next path that is marked; `None` when none is for a while.
    async fn next(changes: &Changes) -> Option<PathBuf> {
        timeout(Duration::from_secs(3), changes.next()).await.ok()
    }

    #[tokio::test]
    async fn a_file_is_heard_of_however_it_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "1").unwrap();
        let changes = Changes::default();
        let watch = Watch::new(changes.clone());
        watch.add(&at("file")).unwrap();
        fs::write(at("file"), "22").unwrap();
        assert_eq!(next(&changes).await, Some(at("file")));
        fs::write(at("other"), "333").unwrap();
        fs::rename(at("other"), at("file")).unwrap();
        assert_eq!(next(&changes).await, Some(at("file")));
        fs::remove_file(at("file")).unwrap();
        assert_eq!(next(&changes).await, Some(at("file")));
        fs::write(at("file"), "4").unwrap();
        assert_eq!(next(&changes).await, Some(at("file")));
        fs::read(at("file")).unwrap();
        fs::write(at("other"), "5").unwrap();
        watch.remove(&at("file"));
        fs::write(at("file"), "6").unwrap();
        assert_eq!(next(&changes).await, None);
    }

    #[tokio::test]
    async fn behind_a_link_changes_are_heard_of_too() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(elsewhere.path().join("folder")).unwrap();
        fs::write(elsewhere.path().join("file"), "1").unwrap();
        let changes = Changes::default();
        let watch = Watch::new(changes.clone());
        for (name, inside) in [("folder", "folder/new"), ("file", "file")] {
            let link = dir.path().join(name);
            std::os::unix::fs::symlink(elsewhere.path().join(name), &link).unwrap();
            watch.add(&link).unwrap();
            fs::write(elsewhere.path().join(inside), "22").unwrap();
            assert_eq!(next(&changes).await, Some(link));
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_no_lack_of_watches() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("gone", &link).unwrap();
        let watch = Watch::new(Changes::default());
        assert_eq!(watch.add(&link), Ok(()));
        assert_eq!(watch.add(&dir.path().join("gone")), Ok(()));
    }

    #[tokio::test]
    async fn a_folder_is_heard_of_to_its_depths() {
        let dir = tempfile::tempdir().unwrap();
        let (top, inner) = (dir.path().join("top"), dir.path().join("top/a/b"));
        fs::create_dir_all(&inner).unwrap();
        let changes = Changes::default();
        let watch = Watch::new(changes.clone());
        watch.add(&top).unwrap();
        watch.add(&inner).unwrap();
        watch.remove(&inner);
        fs::write(inner.join("file"), "1").unwrap();
        assert_eq!(next(&changes).await, Some(top.clone()));
        fs::create_dir(inner.join("new")).unwrap();
        assert_eq!(next(&changes).await, Some(top.clone()));
        fs::write(inner.join("new/file"), "1").unwrap();
        assert_eq!(next(&changes).await, Some(top.clone()));
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(next(&changes).await, Some(top.clone()));
        fs::create_dir(&top).unwrap();
        assert_eq!(next(&changes).await, Some(top.clone()));
        watch.add(&top).unwrap();
        fs::write(top.join("file"), "1").unwrap();
        assert_eq!(next(&changes).await, Some(top));
    }
}
