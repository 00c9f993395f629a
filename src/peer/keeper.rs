//! Keeps what is offered as it is on disk: from one start to the next, and after each change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::control::Control;
use super::event::{Event, RequestError, ShareError};
use super::locker::{LockedCopy, Locker};
use super::readers::Readers;
use super::shares::{Background, Entry, Shared, Shares, Subject, Taken, Withdrawn};
use super::unfinished::Unfinished;
use super::watch::Watch;
use crate::crypto::content::Tree;
use crate::wire::control::Publication;
use crate::wire::text::{FileName, safe};

/// What is to be remembered is written this often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// What is not hashed within this time is told of by its name meanwhile.
const HASHED_SOON: Duration = Duration::from_millis(500);
/// Publications of which the tracker is told at the same time.
const MAX_PUBLISHING: usize = 16;

/// Names in a line about several shares.
const MAX_NAMED: usize = 5;

/// Whether the shares, or the unfinished downloads, of the last start are taken up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// They are.
    Restores,
    /// This peer has one thing to do.
    Ignores,
}

/// What it works with; cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// What is offered.
    pub shares: Shares,
    /// What is known and wanted of it.
    pub background: Background,
    /// Downloads that are to be gone on with at the next start.
    pub unfinished: Unfinished,
    /// What tells of changes.
    pub watch: Watch,
    /// Where locked copies are.
    pub locker: Locker,
    /// People know that some changes are not told.
    pub warned: Arc<AtomicBool>,
    /// Who is told what is offered.
    pub control: Control,
    /// Who is told what happened.
    pub events: mpsc::Sender<Event>,
}

/// The name of what is being hashed can be found as long as this lives.
#[derive(Debug)]
struct Named {
    _until: oneshot::Sender<()>,
}

impl Keeper {
    /// Hashes, offers and publishes what lies at `path`, for `readers`.
    ///
    /// # Errors
    /// When it cannot be shared, or the tracker does not take it; it is then announced later.
    pub async fn share(
        &self,
        path: &Path,
        name: Option<FileName>,
        readers: Readers,
    ) -> Result<Shared, ShareError> {
        let subject = Subject::Named(path.to_owned(), name, readers);
        self.take(subject, None).await
    }

    /// Hashes, offers and publishes a locked copy of what lies at `path`, for `readers`, in the place of what was shared of it.
    ///
    /// # Errors
    /// As [`Self::share`].
    pub async fn share_locked(
        &self,
        path: &Path,
        name: Option<FileName>,
        readers: Readers,
        copy: LockedCopy,
    ) -> Result<Shared, ShareError> {
        let subject = Subject::Locked {
            path: path.to_owned(),
            name,
            copy: copy.path().to_owned(),
            readers,
        };
        self.take(subject, Some(copy)).await
    }

    /// Takes back what was offered in the place of `shared`: whoever shares something anew wants what it is now
    /// to be had, as they want it now, and nothing else.
    async fn supersede(&self, shared: &Shared, gone: Vec<Shared>) {
        for old in &gone {
            // When it does not answer now, the next announcement says it.
            let _ = self.take_back(old.file.clone()).await;
        }
        let other_copies = gone.into_iter().filter(|old| old.real != shared.real);
        self.discard_copies(other_copies).await;
    }

    /// Removes the locked copies of what is shared no longer.
    async fn discard_copies(&self, gone: impl IntoIterator<Item = Shared>) {
        let copies: Vec<_> = gone.into_iter().filter(Shared::is_locked_copy).collect();
        if copies.is_empty() {
            return;
        }
        let locker = self.locker.clone();
        let discarding =
            spawn_blocking(move || copies.iter().for_each(|gone| locker.discard(gone)));
        let _ = discarding.await;
    }

    /// Removes all locked copies that are shared: nothing is shared again after this.
    pub async fn discard_all_copies(&self) {
        self.discard_copies(self.shares.list()).await;
    }

    /// The `copy` stays as soon as it is offered.
    async fn take(&self, subject: Subject, copy: Option<LockedCopy>) -> Result<Shared, ShareError> {
        let (path, own) = (subject.path().to_owned(), subject.clone());
        let looking = spawn_blocking(move || Shares::unhashed(&own).map(drop));
        looking.await.unwrap_or(Ok(())).map_err(|reason| {
            let path = path.clone();
            ShareError::Local { path, reason }
        })?;
        if subject.copy().is_none() {
            // Before it is read: what changes meanwhile is heard of as well.
            self.watch(&path).await;
        }
        // Until the id can be found: there is no moment in which nothing of it can.
        let _named = self.name_unhashed(subject.clone());
        let readers = subject.readers().clone();
        let Taken { shared, gone } = match self.shares.take(subject).await {
            Ok(taken) => taken,
            Err(error) => {
                self.unwatch_unwanted([path]).await;
                return Err(error);
            }
        };
        copy.into_iter().for_each(LockedCopy::keep);
        self.tell_other_readers(&shared, &readers);
        // Whether the new one can be published or not.
        self.supersede(&shared, gone).await;
        self.publish(&shared.file).await?;
        Ok(shared)
    }

    /// Says that it is not for those for whom it was shared, because of another place where the same is shared.
    fn tell_other_readers(&self, shared: &Shared, asked: &Readers) {
        let (Some(names), true) = (shared.readers.names(), shared.readers != *asked) else {
            return;
        };
        let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
        let others = self.background.kept.others(shared);
        let other = others.first().map(|path| path.to_string_lossy());
        self.tell(Event::Warning {
            text: format!(
                "{} is shared from {} too, and not for everybody: from both places it is for {}",
                shared.file.shown_name(),
                safe(&other.unwrap_or_default()),
                if names.is_empty() {
                    "nobody".to_owned()
                } else {
                    names.join(", ")
                },
            ),
        });
    }

    /// Tells the name of what is going to be hashed, unless that is done soon: of an id nobody hears before it is
    /// proved.
    fn name_unhashed(&self, subject: Subject) -> Named {
        let (until, mut ended) = oneshot::channel();
        let control = self.control.clone();
        let Some(audience) = subject.readers().audience() else {
            return Named { _until: until };
        };
        tokio::spawn(async move {
            if timeout(HASHED_SOON, &mut ended).await.is_ok() {
                return;
            }
            let looking = spawn_blocking(move || Shares::unhashed(&subject));
            if let Ok(Ok(file)) = looking.await {
                // When it does not answer now, the next announcement says it.
                let _ = control.publish(file.clone(), audience).await;
                let _ = ended.await;
                let _ = control.withdraw(file).await;
            }
        });
        Named { _until: until }
    }

    /// The next start shares it again.
    pub fn stay(&self, shared: &Shared) {
        self.background.kept.stay(shared);
    }

    /// Withdraws it after `time`, unless it is shared anew before, or `shutdown` comes first.
    pub fn pass(&self, shared: Shared, time: Duration, shutdown: CancellationToken) {
        let (own, mark) = (self.clone(), self.background.kept.pass(&shared));
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(time) => {}
            }
            if !own.background.kept.is_passing(&shared, mark) {
                return;
            }
            let is_it =
                |other: &Shared| other.file.name == shared.file.name && other.path == shared.path;
            // When it does not answer now, the next announcement says it.
            let _ = own.unshare(is_it).await;
            own.tell(Event::Withdrawn {
                name: shared.file.shown_name(),
                reason: "its time is over".to_owned(),
            });
        });
    }

    /// Offers and publishes the file at `path`, whose hashes are known, for `readers`, unless it is shared from
    /// elsewhere.
    pub async fn adopt(&self, path: &Path, file: Publication, tree: Tree, readers: Readers) {
        if self.lies_here(&file).await {
            return;
        }
        self.watch(path).await;
        let (shares, own) = (self.shares.clone(), path.to_owned());
        let adopting = spawn_blocking(move || shares.adopt(&own, file, tree.into(), readers));
        match adopting.await {
            // When it does not answer now, the next announcement says it.
            Ok(Ok(Taken { shared, gone })) => {
                self.supersede(&shared, gone).await;
                let _ = self.publish(&shared.file).await;
            }
            _ => self.unwatch_unwanted([path.to_owned()]).await,
        }
    }

    /// Hashes, offers and publishes the folder at `path`, which was downloaded, for `readers`, unless it is shared
    /// from elsewhere.
    pub async fn adopt_folder(&self, path: &Path, file: &Publication, readers: Readers) {
        if !self.lies_here(file).await {
            // When it cannot be read, it is no share; when the tracker does not answer, it is announced later.
            let subject = Subject::Downloaded(path.to_owned(), file.name.clone(), readers);
            let _ = self.take(subject, None).await;
        }
    }

    async fn lies_here(&self, file: &Publication) -> bool {
        let (shares, file) = (self.shares.clone(), file.clone());
        let looking = spawn_blocking(move || shares.lies_here(&file));
        looking.await.unwrap_or(false)
    }

    /// Withdraws what `selects`, for good; returns it.
    ///
    /// # Errors
    /// When the tracker does not answer; nothing of it is served any more all the same.
    pub async fn unshare(
        &self,
        selects: impl Fn(&Shared) -> bool,
    ) -> Result<Vec<Shared>, RequestError> {
        let gone = self.shares.remove(selects);
        self.unwatch_unwanted(gone.iter().map(|shared| shared.path.clone()))
            .await;
        let mut done = Ok(());
        for shared in &gone {
            // One that is not answered must not keep the others published.
            done = done.and(self.take_back(shared.file.clone()).await);
        }
        self.discard_copies(gone.iter().cloned()).await;
        done.map(|()| gone)
    }

    /// Works until `shutdown`.
    pub async fn run(
        self,
        restart: Restart,
        mut withdrawn: mpsc::UnboundedReceiver<Withdrawn>,
        shutdown: CancellationToken,
    ) {
        let withdrawing = async {
            while let Some(withdrawn) = withdrawn.recv().await {
                self.withdraw(withdrawn.shared, withdrawn.reason).await;
            }
        };
        let refreshing = async {
            if restart == Restart::Restores {
                self.restore().await;
            }
            loop {
                let path = self.background.changes.next().await;
                self.refresh(&path).await;
            }
        };
        let flushing = async {
            let mut ticks = interval(FLUSH_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.flush().await;
            }
        };
        let noting = async {
            loop {
                self.unfinished.changed().await;
                self.flush_unfinished().await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async { tokio::join!(withdrawing, refreshing, flushing, noting); } => {}
        }
        self.flush_unfinished().await;
        self.flush().await;
    }

    /// Wants to hear of changes at `path`.
    async fn watch(&self, path: &Path) {
        let (watch, path) = (self.watch.clone(), path.to_owned());
        let watching = spawn_blocking(move || {
            // A path that cannot be had is told of by whoever reads it.
            let path = std::path::absolute(path).ok()?;
            watch.add(&path).err()
        });
        if let Ok(Some(error)) = watching.await
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            self.tell(Event::Warning {
                text: format!("changes are noticed only when somebody asks for a file: {error}"),
            });
        }
    }

    async fn unwatch_unwanted(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let (watch, kept) = (self.watch.clone(), self.background.kept.clone());
        let paths: Vec<_> = paths.into_iter().collect();
        let unwatching = spawn_blocking(move || {
            let paths = paths
                .into_iter()
                .filter_map(|path| std::path::absolute(path).ok());
            for path in paths.filter(|path| kept.at(path).is_empty()) {
                watch.remove(&path);
            }
        });
        let _ = unwatching.await;
    }

    async fn flush(&self) {
        let (hashes, kept) = (self.background.hashes.clone(), self.background.kept.clone());
        let flushing = spawn_blocking(move || {
            hashes.flush();
            kept.flush();
        });
        let _ = flushing.await;
    }

    async fn flush_unfinished(&self) {
        let unfinished = self.unfinished.clone();
        let _ = spawn_blocking(move || unfinished.flush()).await;
    }

    /// Whoever it is for finds it, and nobody else does.
    async fn publish(&self, file: &Publication) -> Result<(), RequestError> {
        match self.shares.audience_of(file) {
            Some(audience) => self.control.publish(file.clone(), audience).await,
            None => self.control.withdraw(file.clone()).await,
        }
    }

    /// Nobody finds it any more, unless the same is shared from elsewhere.
    async fn take_back(&self, file: Publication) -> Result<(), RequestError> {
        self.publish(&file).await
    }

    async fn withdraw(&self, shared: Shared, reason: String) {
        self.tell(Event::Withdrawn {
            name: shared.file.shown_name(),
            reason,
        });
        // When it does not answer now, the next announcement says it.
        let _ = self.take_back(shared.file).await;
    }

    /// Offers what was shared at the last start.
    async fn restore(&self) {
        let wanted = self.background.kept.unread();
        if wanted.is_empty() {
            return;
        }
        let (mut publishing, mut shares, mut deleted) = (JoinSet::new(), 0, Vec::new());
        for shared in wanted {
            // It may have been shared anew since the start, for others, locked, or not at all.
            let Some(shared) = self.background.kept.now(&shared) else {
                continue;
            };
            if !self.shares.at(&shared.path, &shared.file.name).is_empty() {
                self.background.kept.set_read(&shared);
                continue;
            }
            let subject = Subject::Before(shared.clone());
            if subject.copy().is_none() {
                self.watch(&shared.path).await;
            }
            let named = self.name_unhashed(subject.clone());
            match self.shares.prepare(subject).await {
                Ok(entry) => {
                    let taken = self.shares.replace(entry);
                    self.background.kept.set_read(&shared);
                    let Some(taken) = taken else { continue };
                    let offered = taken.shared;
                    shares += usize::from(offered.readers != Readers::Nobody);
                    if publishing.len() >= MAX_PUBLISHING {
                        let _ = publishing.join_next().await;
                    }
                    let own = self.clone();
                    // When it does not answer now, the next announcement says it.
                    publishing.spawn(async move {
                        own.supersede(&offered, taken.gone).await;
                        let _ = own.publish(&offered.file).await;
                        drop(named);
                    });
                }
                Err(error) => {
                    self.background.kept.set_read(&shared);
                    if is_deleted_download(&shared).await {
                        deleted.push(shared);
                        continue;
                    }
                    self.tell(Event::Warning {
                        text: format!("not shared again: {error}"),
                    });
                }
            }
        }
        while publishing.join_next().await.is_some() {}
        self.forget(deleted).await;
        let read = self.shares.read_bytes();
        self.tell(Event::Restored { shares, read });
    }

    /// Downloads that somebody deleted are no shares any more.
    async fn forget(&self, found: Vec<Shared>) {
        let mut deleted = Vec::new();
        for shared in found {
            // It may have been downloaded anew since it was looked for.
            if is_deleted_download(&shared).await {
                deleted.push(shared);
            }
        }
        if deleted.is_empty() {
            return;
        }
        let is_same = |one: &Shared, other: &Shared| {
            one.path == other.path && one.file.name == other.file.name
        };
        let gone = self
            .shares
            .remove(|shared| deleted.iter().any(|other| is_same(shared, other)));
        for shared in gone {
            // When it does not answer now, the next announcement says it.
            let _ = self.take_back(shared.file).await;
        }
        self.unwatch_unwanted(deleted.iter().map(|shared| shared.path.clone()))
            .await;
        let names = deleted.iter().take(MAX_NAMED);
        let mut names: Vec<_> = names.map(|shared| shared.file.shown_name()).collect();
        if deleted.len() > MAX_NAMED {
            names.push(format!("and {} more", deleted.len() - MAX_NAMED));
        }
        let what = match deleted.len() {
            1 => "1 download is".to_owned(),
            count => format!("{count} downloads are"),
        };
        let names = names.join(", ");
        self.tell(Event::Warning {
            text: format!("{what} gone and not shared any more: {names}"),
        });
    }

    /// Offers what lies at `path` as it is now.
    async fn refresh(&self, path: &Path) {
        let wanted = self.background.kept.at(path);
        // What happens to a file does not happen to its locked copy.
        if wanted.iter().any(|shared| !shared.is_locked_copy()) {
            self.watch(path).await;
        }
        for shared in wanted {
            // It may have been shared anew while others were looked at.
            let shared = self.background.kept.now(&shared);
            let Some(shared) = shared.filter(|shared| !shared.is_locked_copy()) else {
                continue;
            };
            let before = self.shares.at(path, &shared.file.name);
            let changed = self.changed_files(&before).await;
            let is_download = |entry: &Arc<Entry>| entry.is_adopted();
            if changed.is_empty() && !before.is_empty() && before.iter().all(is_download) {
                // What was heard of is how our own download ended, or a new name.
                continue;
            }
            for entry in changed {
                // Its old id must not be found while the new one is computed.
                if self.shares.take_out(&entry) {
                    let _ = self.take_back(entry.shared().file.clone()).await;
                }
            }
            let subject = Subject::Before(shared);
            let _named = self.name_unhashed(subject.clone());
            match self.shares.prepare(subject).await {
                Ok(entry) => self.offer(&before, entry).await,
                Err(error) => {
                    let reason = match error {
                        ShareError::Local { reason, .. } => reason,
                        ShareError::Request(error) => error.to_string(),
                    };
                    for entry in before {
                        self.shares.take_out(&entry);
                        self.withdraw(entry.shared().clone(), reason.clone()).await;
                    }
                }
            }
        }
    }

    async fn changed_files(&self, before: &[Arc<Entry>]) -> Vec<Arc<Entry>> {
        let before = before.to_vec();
        let looking = spawn_blocking(move || {
            let mut changed = before;
            changed.retain(|entry| entry.is_changed_file());
            changed
        });
        looking.await.unwrap_or_default()
    }

    async fn offer(&self, before: &[Arc<Entry>], entry: Entry) {
        let Some(Taken { shared, gone }) = self.shares.replace(entry) else {
            return;
        };
        let was_offered = before.iter().any(|old| old.shared().file == shared.file);
        self.supersede(&shared, gone).await;
        // It may have been taken out for a moment: the tracker is told what holds, if it does not know.
        let published = self.publish(&shared.file).await;
        if let Err(error) = published {
            self.tell(Event::Warning {
                text: format!("{}: {error}", shared.file.shown_name()),
            });
        }
        if !was_offered {
            self.tell(Event::Changed { shared });
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}

/// Is it a download that lies no more in its folder, which is there?
async fn is_deleted_download(shared: &Shared) -> bool {
    let (is_download, path) = (shared.is_download, shared.path.clone());
    let looking = spawn_blocking(move || {
        let found = path.symlink_metadata();
        let is_missing = found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        is_download && is_missing && path.parent().is_some_and(Path::is_dir)
    });
    looking.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::super::database::Memory;
    use super::*;
    use crate::wire::control::PublicationKind;
    use crate::wire::id::ContentId;

    fn keeper(control: Control) -> Keeper {
        let (background, events) = (Background::default(), mpsc::channel(10).0);
        let memory = Memory::new(None, events.clone());
        Keeper {
            shares: Shares::new(background.clone()).0,
            watch: Watch::new(background.changes.clone()),
            locker: Locker::new(None),
            background,
            unfinished: Unfinished::new(memory, Restart::Ignores),
            warned: Arc::default(),
            control,
            events,
        }
    }

    #[tokio::test]
    async fn what_is_shared_from_elsewhere_is_not_withdrawn() {
        let dir = tempfile::tempdir().unwrap();
        let (control, mut told) = Control::of_a_test();
        let keeper = keeper(control);
        let answering = tokio::spawn(async move {
            let mut published = Vec::new();
            while let Some((is_here, file, answer)) = told.recv().await {
                published.push((is_here, file));
                answer.send(()).unwrap();
            }
            published
        });
        let mut all = Vec::new();
        for place in ["a", "b"] {
            let path = dir.path().join(place).join("x");
            std::fs::create_dir(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "bytes").unwrap();
            all.push(keeper.share(&path, None, Readers::Everybody).await.unwrap());
        }
        let first = |shared: &Shared| shared.path == all[0].path;
        assert_eq!(keeper.unshare(first).await.unwrap().len(), 1);
        assert!(keeper.shares.audience_of(&all[1].file).is_some());
        let second = |shared: &Shared| shared.path == all[1].path;
        assert_eq!(keeper.unshare(second).await.unwrap().len(), 1);
        drop(keeper);
        let withdrawn = answering.await.unwrap().into_iter().filter(|told| !told.0);
        assert_eq!(withdrawn.count(), 1, "only with the last one");
    }

    /// Hears what is told the tracker, which answers all but this kind.
    fn deaf_to(
        kind: PublicationKind,
        mut told: mpsc::UnboundedReceiver<(bool, Publication, oneshot::Sender<()>)>,
    ) -> tokio::task::JoinHandle<Vec<(bool, Publication)>> {
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some((is_here, file, answer)) = told.recv().await {
                if file.kind != kind {
                    answer.send(()).unwrap();
                }
                all.push((is_here, file));
            }
            all
        })
    }

    #[tokio::test]
    async fn the_plain_file_is_gone_as_soon_as_it_is_locked_whatever_the_tracker_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "bytes").unwrap();
        let (control, told) = Control::of_a_test();
        let (keeper, told) = (keeper(control), deaf_to(PublicationKind::LockedFile, told));
        let plain = keeper.share(&path, None, Readers::Everybody).await.unwrap();
        let password = crate::wire::password::Password::parse("open sesame").unwrap();
        let copy = keeper.locker.make(&path, password).await.unwrap();
        let lies = copy.path().to_owned();
        let locked = keeper.share_locked(&path, None, Readers::Everybody, copy);
        assert!(matches!(locked.await, Err(ShareError::Request(_))));
        let offered = keeper.shares.list();
        assert_eq!((offered.len(), &offered[0].real), (1, &lies));
        assert!(lies.exists());

        // The other way round, too; the copy is not needed any more.
        keeper.share(&path, None, Readers::Everybody).await.unwrap();
        assert_eq!(keeper.shares.list(), std::slice::from_ref(&plain));
        assert!(!lies.exists());
        drop(keeper);
        let told = told.await.unwrap();
        assert!(told.contains(&(false, plain.file)));
        assert!(told.contains(&(false, offered[0].file.clone())));
    }

    #[tokio::test]
    async fn what_a_folder_was_is_not_public_any_more_when_it_is_shared_anew_for_few() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        let (control, told) = Control::of_a_test();
        let (keeper, told) = (keeper(control), deaf_to(PublicationKind::LockedFile, told));
        let public = keeper.share(dir.path(), None, Readers::Everybody).await;
        let public = public.unwrap();
        std::fs::write(dir.path().join("b"), "b").unwrap();
        let ana = (crate::wire::id::PeerId([1; 32]), "ana".parse().unwrap());
        let readers = Readers::of([ana]).unwrap();
        let few = keeper.share(dir.path(), None, readers).await.unwrap();
        assert_ne!(few.file, public.file);
        assert_eq!(keeper.shares.list(), std::slice::from_ref(&few));
        drop(keeper);
        assert!(told.await.unwrap().contains(&(false, public.file)));
    }

    /// Whoever waits for the id looks for the name.
    #[tokio::test(start_paused = true)]
    async fn the_name_of_what_is_hashed_stays_until_the_id_can_be_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "bytes").unwrap();
        let (control, mut told) = Control::of_a_test();
        let keeper = keeper(control);
        let own = keeper.clone();
        let sharing = tokio::spawn(async move { own.share(&path, None, Readers::Everybody).await });
        let (mut name, mut publishing) = (None, None);
        while name.is_none() || publishing.is_none() {
            let (is_here, file, answer) = told.recv().await.unwrap();
            assert!(is_here, "{file:?}");
            if file.kind.is_hashed() {
                publishing = Some(answer);
            } else {
                answer.send(()).unwrap();
                assert_eq!((file.content, file.len), (ContentId::NONE, 5));
                name = Some(file);
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(told.try_recv().is_err(), "nobody knows the id yet");
        publishing.unwrap().send(()).unwrap();
        let (is_here, file, answer) = told.recv().await.unwrap();
        assert_eq!((is_here, Some(file)), (false, name));
        answer.send(()).unwrap();
        let shared = sharing.await.unwrap().unwrap();

        // Again, and the tracker answers at once.
        let path = shared.path;
        let sharing =
            tokio::spawn(async move { keeper.share(&path, None, Readers::Everybody).await });
        let (is_here, file, answer) = told.recv().await.unwrap();
        assert_eq!((is_here, file), (true, shared.file));
        answer.send(()).unwrap();
        sharing.await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(told.try_recv().is_err(), "what is hashed soon has its id");
    }
}
