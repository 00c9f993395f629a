//! The download of one file, from what is here of it already to the final name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::control::Control;
use super::drive::{Driven, Driver};
use super::event::{DownloadError, Event};
use super::growing::{Growing, Nursery, Offered};
use super::job::{Job, Pace};
use super::liars::Liars;
use super::membership::Membership;
use super::readers::Reader;
use super::shares::{Contents, Shares};
use super::store::{Here, Partial, StoreError};
use super::target::Target;
use super::throttle::Throttle;
use super::transfers::{Handle, State};
use super::{Downloaded, Origin, Wanted, unlock, unpack};
use crate::crypto::content::{Tree, hash_piece};
use crate::disk::survive_size_limit;
use crate::proto::backoff::Retry;
use crate::proto::meter::Meter;
use crate::wire::control::{Audience, Publication, PublicationKind};
use crate::wire::id::ContentId;
use crate::wire::pieces::Layout;
use crate::wire::text::FileName;

/// A disk that does not take the final name is asked again after this long.
const DISK_PAUSE: Duration = Duration::from_secs(2);
/// How often is told how far a copy is.
const TICK: Duration = Duration::from_millis(250);
/// Whoever does not wait for a disk gives up after this long.
pub const DISK_PATIENCE: Duration = Duration::from_secs(60);

/// What downloads of a peer work with.
#[derive(Clone, Debug)]
pub struct Downloads {
    /// Who has what.
    pub control: Control,
    /// What we greet with.
    pub membership: Membership,
    /// What is here already.
    pub shares: Shares,
    /// What is being fetched.
    pub nursery: Nursery,
    /// Who is not asked.
    pub liars: Liars,
    /// How fast all downloads together may be.
    pub throttle: Throttle,
    /// What names begin with.
    pub prefix: String,
    /// Are verified pieces served to others at once?
    pub seeds: bool,
    /// How often to try.
    pub retry: Retry,
    /// Where to tell what happens.
    pub events: mpsc::Sender<Event>,
}

/// Others are told that a content is here, until this is dropped; for good when it is shared by then.
#[derive(Debug)]
pub struct Announcement {
    _offered: Offered,
    _until: oneshot::Sender<()>,
}

/// A finished download, and what it takes to share it.
#[derive(Debug)]
pub struct Fetched {
    /// What people are told.
    pub downloaded: Downloaded,
    /// The hashes of what lies there.
    pub tree: Tree,
    /// To be dropped once it is shared as a whole, or not to be.
    pub announcement: Option<Announcement>,
}

/// What waits for the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It may be done once more.
    OnTheWay,
    /// The final name: the download is done with it.
    Name,
}

/// A content that is here in full, and hidden.
#[derive(Debug)]
pub struct Arrived {
    /// Its bytes.
    pub partial: Partial,
    /// Its hashes.
    pub tree: Tree,
    /// How it came.
    pub driven: Driven,
}

impl Downloads {
    /// Fetches the file `wanted` into `dir`. What came stays there, hidden, when the future is dropped; the next one
    /// goes on with it.
    ///
    /// # Errors
    /// When no source delivers it, or it cannot be written.
    pub async fn fetch(
        &self,
        wanted: &Wanted,
        dir: &Path,
        handle: &Handle,
    ) -> Result<Fetched, DownloadError> {
        let started = Instant::now();
        let file = &wanted.file;
        let job = Job::new(wanted, dir, handle);
        let Arrived {
            mut partial,
            tree,
            driven,
        } = self.arrive(job, file.content, file.len).await?;
        let (prefix, name) = (self.prefix.clone(), name_on_disk(file));
        let (place, content, layout) = (dir.to_owned(), file.content, tree.layout());
        let finish = move || {
            // One that ran beside another program, and was killed, has left what nobody needs any more. Before the
            // name: what lies here afterwards is taken for a download that is not done.
            Partial::discard_left(&place, content, layout);
            partial.finish(&prefix, &name)
        };
        let path = self.name(job, finish).await?;
        let len = file.len;
        let downloaded = Downloaded {
            path,
            file: file.clone(),
            contents: Contents { files: 1, len },
            fetched: driven.fetched,
            elapsed: started.elapsed(),
            sources: driven.sources,
            brought_by: None,
        };
        Ok(Fetched {
            downloaded,
            tree,
            announcement: driven.announcement,
        })
    }

    /// Fetches a content of `len` bytes into the directory of `job`, hidden there.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn arrive(
        &self,
        job: Job<'_>,
        content: ContentId,
        len: u64,
    ) -> Result<Arrived, DownloadError> {
        survive_size_limit();
        let opened = self.open(job, opening(job, content, len)?).await?;
        self.arrive_in(job, content, opened).await
    }

    /// The same for a content that belongs to others which are here: it waits until there is room for it.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub async fn arrive_when_fit(
        &self,
        job: Job<'_>,
        content: ContentId,
        len: u64,
    ) -> Result<Arrived, DownloadError> {
        let opened = self.persist(job, opening(job, content, len)?).await?;
        self.arrive_in(job, content, opened).await
    }

    async fn arrive_in(
        &self,
        job: Job<'_>,
        content: ContentId,
        (mut partial, here): (Partial, Here),
    ) -> Result<Arrived, DownloadError> {
        let growing = Arc::new(Growing::new(content, partial.part(), &here));
        if !growing.here().is_full() {
            self.copy_own(&growing, job).await?;
        }
        let target = Target::Content(Arc::clone(&growing));
        let driven = Driver::new(self, job, target).run().await?;
        let Some(tree) = growing.whole_tree() else {
            // Each piece was right, and yet the whole is not: the hashes that were kept are damaged.
            partial.discard();
            return Err(corrupt(job));
        };
        Ok(Arrived {
            partial,
            tree,
            driven,
        })
    }

    /// Offers what is here of a content, and tells the tracker.
    pub fn announce(&self, file: Publication, growing: &Arc<Growing>) -> Announcement {
        let (until, ended) = oneshot::channel::<()>();
        let (control, shares) = (self.control.clone(), self.shares.clone());
        let nursery = self.nursery.clone();
        let offered = nursery.offer(&file, growing);
        tokio::spawn(async move {
            // When it does not answer now, the next announcement says it.
            let _ = control.publish(file.clone(), Audience::EVERYBODY).await;
            let _ = ended.await;
            match shares.audience_of(&file) {
                Some(audience) => drop(control.publish(file, audience).await),
                // Another download of the same may still need it.
                None if nursery.has(&file) => {}
                None => drop(control.withdraw(file).await),
            }
        });
        Announcement {
            _offered: offered,
            _until: until,
        }
    }

    /// Removes what is here of a download that nobody wants any more.
    pub async fn discard(wanted: &Wanted, dir: &Path) {
        let (dir, file) = (dir.to_owned(), wanted.file.clone());
        let discarding = spawn_blocking(move || {
            if file.kind == PublicationKind::Folder {
                unpack::discard(&dir, file.content);
            }
            if let Ok(layout) = Layout::new(file.len) {
                Partial::discard_left(&dir, file.content, layout);
            }
        });
        let _ = discarding.await;
    }

    /// Makes the place for something. What was under way before waits for a disk that does not take it.
    ///
    /// # Errors
    /// When the disk does not take it, and nothing is waited for.
    pub async fn open<T: Send + 'static>(
        &self,
        job: Job<'_>,
        open: impl FnMut() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DownloadError> {
        if job.wanted.origin == Origin::Resumed {
            return self.persist(job, open).await;
        }
        blocking(job.handle, open).await?.map_err(local)
    }

    /// Gives a download its final name: once that is under way it is not let go of, for it would be fetched again.
    ///
    /// # Errors
    /// As [`Self::persist`].
    pub async fn name<T: Send + 'static>(
        &self,
        job: Job<'_>,
        finish: impl FnMut() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DownloadError> {
        job.handle.note_finishing().await;
        self.persist_as(Step::Name, job, finish).await
    }

    /// Does something on disk; waits for one that does not take it now.
    ///
    /// # Errors
    /// When the wish is not to wait, and the disk does not take it for long.
    pub async fn persist<T: Send + 'static>(
        &self,
        job: Job<'_>,
        step: impl FnMut() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DownloadError> {
        self.persist_as(Step::OnTheWay, job, step).await
    }

    async fn persist_as<T: Send + 'static>(
        &self,
        step: Step,
        job: Job<'_>,
        finish: impl FnMut() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DownloadError> {
        let started = Instant::now();
        let (mut finish, mut is_told) = (finish, false);
        loop {
            job.handle.set_naming(step == Step::Name);
            let finishing = blocking(job.handle, move || {
                let finished = finish();
                (finish, finished)
            });
            let (back, finished) = finishing.await?;
            let error = match finished {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            job.handle.set_naming(false);
            let is_over = error.is_lasting || started.elapsed() >= DISK_PATIENCE;
            if is_over && (!job.wanted.waits || error.is_hopeless()) {
                return Err(local(error));
            }
            let reason = format!("cannot write {}: {error}", error.path.display());
            job.handle.set_state(State::Waiting(reason.clone()));
            if !is_told {
                let name = job.wanted.file.name.clone();
                is_told = self.events.try_send(Event::Stuck { name, reason }).is_ok();
            }
            finish = back;
            tokio::time::sleep(DISK_PAUSE).await;
        }
    }

    /// Takes a content that we share ourselves from there, as far as that goes. Each piece is verified all the same: the file
    /// may be changing under our hands.
    async fn copy_own(&self, growing: &Arc<Growing>, job: Job<'_>) -> Result<(), DownloadError> {
        let (shares, own) = (self.shares.clone(), Arc::clone(growing));
        let given_up = CancellationToken::new();
        let _until = given_up.clone().drop_guard();
        let copying = blocking(job.handle, move || copy_from(&shares, &own, &given_up));
        tokio::pin!(copying);
        let (started, first) = (Instant::now(), growing.done_len());
        let mut meter = Meter::new(started);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = first;
        let tell = |done, rate| {
            let pace = Pace {
                rate,
                ..Pace::default()
            };
            job.tell_progress(&self.events, done, pace);
        };
        loop {
            tokio::select! {
                // A disk that is full fails again where it is waited for.
                copied = &mut copying => {
                    let came = growing.done_len().saturating_sub(first);
                    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    if came > 0 {
                        let rate = came.saturating_mul(1000) / ms.max(1);
                        tell(growing.done_len(), rate);
                    }
                    return copied.map(drop);
                }
                _ = ticks.tick() => {
                    let (now, done) = (Instant::now(), growing.done_len());
                    let came = done.saturating_sub(before);
                    if came > 0 {
                        before = done;
                        meter.add(now, usize::try_from(came).unwrap_or(usize::MAX));
                        tell(done, meter.rate().unwrap_or(0));
                    }
                }
            }
        }
    }
}

/// Copies what is missing from what is shared here, until something is not right, or nobody waits for it. Blocking.
fn copy_from(shares: &Shares, growing: &Growing, given_up: &CancellationToken) -> io::Result<()> {
    let Some(serving) = shares.open(&growing.content(), Reader::Own) else {
        return Ok(());
    };
    let (tree, layout) = (serving.tree(), growing.layout());
    // Somebody may have published our content with a length that it does not have.
    if tree.layout() != layout {
        return Ok(());
    }
    let mut buffer = Vec::new();
    for piece in layout.pieces().filter(|piece| !growing.has(*piece)) {
        if given_up.is_cancelled() {
            return Ok(());
        }
        buffer.resize(layout.piece_len(piece), 0);
        let is_read = serving.read_at(&mut buffer, layout.offset(piece)).is_ok();
        let hash = hash_piece(layout, piece, &buffer);
        if !is_read || tree.hash_of(piece) != Some(hash) {
            return Ok(());
        }
        growing.put(piece, &buffer, &hash)?;
    }
    Ok(())
}

/// A locked file bears the ending of age until it is opened, where there is room for it.
fn name_on_disk(file: &Publication) -> FileName {
    let locked = file
        .kind
        .is_locked()
        .then(|| format!("{}{}", file.name, unlock::SUFFIX));
    let locked = locked.and_then(|name| name.parse().ok());
    locked.unwrap_or_else(|| file.name.clone())
}

/// Makes the place for a content of `len` bytes.
fn opening(
    job: Job<'_>,
    content: ContentId,
    len: u64,
) -> Result<impl Fn() -> Result<(Partial, Here), StoreError> + Send + use<>, DownloadError> {
    let layout = Layout::new(len).map_err(|_| corrupt(job))?;
    let dir = job.dir.to_owned();
    Ok(move || Partial::open(&dir, content, layout))
}

fn corrupt(job: Job<'_>) -> DownloadError {
    DownloadError::Corrupt {
        name: job.wanted.file.name.clone(),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    handle: &Handle,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DownloadError> {
    let done = handle.run_blocking(job).await;
    done.ok_or_else(|| DownloadError::Local {
        path: PathBuf::from("."),
        reason: "the work on it broke off".to_owned(),
    })
}

pub(super) fn local(error: StoreError) -> DownloadError {
    DownloadError::Local {
        path: error.path,
        reason: error.reason,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::runtime::Runtime;
    use tokio::time::timeout;

    use super::super::shares::Background;
    use super::super::transfers::tests::{begin, transfers};
    use super::*;
    use crate::crypto::identity::Identity;
    use crate::crypto::kdf::{Group, NetworkName};
    use crate::crypto::random::OsRandom;
    use crate::crypto::secret::Passphrase;

    /// Those of a peer that shares nothing, and whose tracker is gone.
    pub(in crate::peer) fn downloads() -> Downloads {
        let secret = Passphrase::parse("correct horse battery staple").unwrap();
        let group = Group::derive(&secret, NetworkName::default());
        Downloads {
            control: Control::to_nobody(),
            membership: Membership::new(group, Identity::generate(&mut OsRandom::new())),
            shares: Shares::new(Background::default()).0,
            nursery: Nursery::default(),
            liars: Liars::default(),
            throttle: Throttle::default(),
            prefix: String::new(),
            seeds: true,
            retry: Retry::default(),
            events: mpsc::channel(64).0,
        }
    }

    /// A file with these bytes.
    pub(in crate::peer) fn wanted(bytes: &[u8]) -> Wanted {
        Wanted {
            file: Publication {
                name: "x".parse().unwrap(),
                content: ContentId(*blake3::hash(bytes).as_bytes()),
                len: bytes.len() as u64,
                kind: PublicationKind::File,
            },
            from: None,
            directory: None,
            waits: false,
            origin: Origin::Asked,
            is_restricted: false,
        }
    }

    /// People who pause or cancel it do not wait for all of a large file.
    #[test]
    fn a_copy_that_nobody_waits_for_ends_with_its_piece() {
        let (runtime, dir) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
        let bytes = vec![7; 3 << 20];
        let own = dir.path().join("own");
        std::fs::write(&own, &bytes).unwrap();
        let (downloads, wanted) = (downloads(), wanted(&bytes));
        runtime.block_on(downloads.shares.add(&own, None)).unwrap();
        let (content, layout) = (wanted.file.content, Layout::new(wanted.file.len).unwrap());
        for is_given_up in [true, false] {
            let (partial, here) = Partial::open(dir.path(), content, layout).unwrap();
            let growing = Arc::new(Growing::new(content, partial.part(), &here));
            let transfers = transfers(1);
            let (handle, _orders) = begin(&transfers, 1);
            let job = Job::new(&wanted, dir.path(), &handle);
            // The first piece waits for it.
            let part = partial.part();
            let journal = is_given_up.then(|| part.hold_journal());
            let soon = Duration::from_millis(if is_given_up { 100 } else { 30_000 });
            let copied =
                runtime.block_on(async { timeout(soon, downloads.copy_own(&growing, job)).await });
            assert_eq!(copied.is_err(), is_given_up);
            drop(journal);
            runtime.block_on(handle.settle());
            assert_eq!(growing.here().is_full(), !is_given_up);
        }
    }
}
