//! The download of one folder: its listing, its small files in runs, its large ones by their pieces.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::download::Downloads;
use super::drive::Driver;
use super::event::{DownloadError, Event};
use super::job::Job;
use super::meter::Meter;
use super::salvage::salvage;
use super::shares::Shares;
use super::store::{PART_IS_GONE, Part, StoreError, check_space};
use super::target::Target;
use super::transfers::{Handle, Later};
use super::unpack::Unpacking;
use super::{Downloaded, Wanted};
use crate::wire::folder::{Listing, MAX_LISTING_LEN};

impl Downloads {
    /// Fetches the folder `wanted` into `dir`. What came stays there, hidden, when the future is dropped; the
    /// next one goes on with it.
    ///
    /// # Errors
    /// When no source delivers it, or it cannot be written.
    pub async fn fetch_folder(
        &self,
        wanted: &Wanted,
        dir: &Path,
        handle: &Handle,
    ) -> Result<Downloaded, DownloadError> {
        let started = Instant::now();
        let file = &wanted.file;
        let corrupt = || DownloadError::Corrupt {
            name: file.name.clone(),
        };
        if file.len > MAX_LISTING_LEN {
            return Err(corrupt());
        }
        let job = Job::new(wanted, dir, handle);
        let listing = Job {
            is_listing: true,
            ..job
        };
        let listed = self.arrive(listing, file.content, file.len).await?;
        let (mut kept, mut sources) = (listed.partial, listed.driven.sources);
        let (read, place) = (kept.part(), dir.to_owned());
        let (publication, later) = (file.clone(), handle.later());
        let opening = self.looked_for(job, move |shares, meter| {
            let Some(listing) = read_listing(&read) else {
                return Ok(None);
            };
            // What is known not to fit is not begun.
            if !Unpacking::is_begun(&place, publication.content) {
                check_space(&place, listing.total_len())?;
            }
            let folder = Unpacking::open(&place, publication.clone(), listing)?;
            let looked = salvage(&folder, shares, meter);
            let looked = looked.map_err(|error| StoreError::new(&place, &error));
            let fits = looked.and_then(|()| {
                let here = folder.done_len() + folder.parts_len();
                check_space(&place, folder.contents().len.saturating_sub(here))
            });
            if let Err(error) = fits {
                // At once: it may be opened again soon.
                folder.close();
                return Err(error);
            }
            Ok(Some(Opened {
                folder: Arc::new(folder),
                later: later.clone(),
            }))
        });
        let opened = match opening.await {
            Ok(Some(opened)) => opened,
            Ok(None) => {
                kept.discard();
                return Err(corrupt());
            }
            Err(error) => {
                if !Unpacking::is_begun(dir, file.content) {
                    kept.discard();
                }
                return Err(error);
            }
        };
        let folder = &opened.folder;
        let contents = folder.contents();
        let job = Job {
            whole: contents.len,
            ..job
        };
        // Also when all of them are here: what an earlier run left may not be on disk for good.
        let target = Target::Folder(Arc::clone(folder));
        let driven = Driver::new(self, job, target).run().await?;
        let mut fetched = driven.fetched;
        sources = sources.max(driven.sources);
        for (index, entry) in folder.missing_large() {
            let job = Job {
                dir: folder.root(),
                before: folder.done_len(),
                ..job
            };
            let mut arrived = self.arrive_when_fit(job, entry.content, entry.len).await?;
            fetched += arrived.driven.fetched;
            sources = sources.max(arrived.driven.sources);
            let own = Arc::clone(folder);
            let settle = move || {
                let path = own.path(index);
                let finished = arrived.partial.finish_as(&path);
                let settled = finished.and_then(|()| own.note_large(index, &entry));
                settled.map_err(|error| match own.is_removed() {
                    true => StoreError::lasting(&path, PART_IS_GONE),
                    false => error,
                })
            };
            self.persist(job, settle).await?;
        }
        let (own, prefix, name) = (Arc::clone(folder), self.prefix.clone(), file.name.clone());
        let finish = move || own.finish(&prefix, &name);
        let path = self.name(job, finish).await?;
        kept.discard();
        if folder.renamed() > 0 {
            let names = match folder.renamed() {
                1 => "1 name in it was".to_owned(),
                many => format!("{many} names in it were"),
            };
            let text = format!("{}: {names} made fit for every system", file.name);
            let _ = self.events.try_send(Event::Warning { text });
        }
        Ok(Downloaded {
            path,
            file: file.clone(),
            contents,
            fetched,
            elapsed: started.elapsed(),
            sources,
            brought_by: None,
        })
    }

    /// Runs a job that looks for what is here; people are told how far it is, and it ends with the future.
    async fn looked_for<T: Send + 'static>(
        &self,
        job: Job<'_>,
        mut look: impl FnMut(&Shares, &Meter) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DownloadError> {
        let meter = Arc::new(Meter::default());
        let (shares, own_meter) = (self.shares.clone(), Arc::clone(&meter));
        let looking = self.open(job, move || {
            own_meter.restart();
            look(&shares, &own_meter)
        });
        let path = job.dir.join(job.wanted.file.name.as_str());
        meter.in_view(&path, Some(&self.events), looking).await
    }
}

/// A folder that is closed when its download ends, in whatever way.
struct Opened {
    folder: Arc<Unpacking>,
    later: Later,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let folder = Arc::clone(&self.folder);
        // It waits for the disk, and looks at each file: too long for whoever drops this.
        self.later.run(move || folder.close());
    }
}

/// The listing, if it is one. Blocking.
fn read_listing(part: &Part) -> Option<Listing> {
    let len = usize::try_from(part.layout().len()).ok()?;
    let mut bytes = vec![0; len];
    part.read_at(&mut bytes, 0).ok()?;
    let listing = Listing::decode(&bytes).ok()?;
    let empty = *blake3::hash(b"").as_bytes();
    let is_sound = listing
        .files()
        .all(|(_, file)| file.len > 0 || file.content.0 == empty);
    is_sound.then_some(listing)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::transfers::tests::{begin, transfers};
    use super::super::unpack::tests::{entry, unpacking};
    use super::*;

    /// A worker of the runtime has others to look after.
    #[tokio::test]
    async fn whoever_drops_a_folder_does_not_wait_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let listing = Listing::new(vec![entry("a", b"one")]).unwrap();
        let folder = Arc::new(unpacking(dir.path(), &listing));
        let (transfers, root) = (transfers(1), folder.root().to_owned());
        let (handle, _orders) = begin(&transfers, 1);
        let opened = Opened {
            folder: Arc::clone(&folder),
            later: handle.later(),
        };
        let writing = folder.hold();
        let dropping = tokio::task::spawn_blocking(move || drop(opened));
        let dropped = tokio::time::timeout(Duration::from_secs(10), dropping).await;
        let is_held = root.exists();
        drop(writing);
        assert!(dropped.is_ok() && is_held);
        handle.settle().await;
        assert!(!root.exists(), "nothing of it is here");
    }
}
