//! The download of one folder: its listing, its small files in runs, its large ones by their pieces.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytesize::ByteSize;

use super::download::{Downloads, blocking, local};
use super::drive::{Driver, Job};
use super::event::{DownloadError, Event};
use super::shares::Contents;
use super::store::{PART_IS_GONE, Part, StoreError};
use super::target::Target;
use super::transfers::Handle;
use super::unpack::Unpacking;
use super::{Downloaded, Wanted};
use crate::disk;
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
        let job = Job {
            wanted,
            dir,
            handle,
            before: 0,
            whole: file.len,
        };
        let listed = self.arrive(job, file.content, file.len).await?;
        let (mut kept, mut sources) = (listed.partial, listed.driven.sources);
        let (read, place) = (kept.part(), dir.to_owned());
        let publication = file.clone();
        let part = Arc::clone(&read);
        let reading = blocking(handle, move || read_listing(&part)).await?;
        let Some(listing) = reading else {
            kept.discard();
            return Err(corrupt());
        };
        let mut listing = Some(listing);
        let open = move || {
            let listing = listing.take().or_else(|| read_listing(&read));
            let gone = || StoreError::lasting(&place, PART_IS_GONE);
            Unpacking::open(&place, publication.clone(), listing.ok_or_else(gone)?)
        };
        let folder = Opened(Arc::new(self.open(job, open).await?));
        let folder = &folder.0;
        self.check_space(folder, dir)?;
        let contents = folder.contents();
        let before = folder.done_len();
        let job = Job {
            whole: contents.len,
            ..job
        };
        // Also when all of them are here: what an earlier run left may not be on disk for good.
        let target = Target::Folder(Arc::clone(folder));
        let driven = Driver::new(self, job, target).run().await?;
        sources = sources.max(driven.sources);
        for (index, entry) in folder.missing_large() {
            let job = Job {
                dir: folder.root(),
                before: folder.done_len(),
                ..job
            };
            let mut arrived = self.arrive(job, entry.content, entry.len).await?;
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
        handle.note_finishing().await;
        let path = self.persist(job, finish).await?;
        kept.discard();
        if folder.renamed() > 0 {
            let text = format!(
                "{}: {} names in it were made fit for every system",
                file.name,
                folder.renamed()
            );
            let _ = self.events.try_send(Event::Warning { text });
        }
        Ok(Downloaded {
            path,
            file: file.clone(),
            contents,
            fetched: contents.len.saturating_sub(before),
            elapsed: started.elapsed(),
            sources,
            brought_by: None,
        })
    }

    fn check_space(&self, folder: &Unpacking, dir: &Path) -> Result<(), DownloadError> {
        let Contents { len, .. } = folder.contents();
        let need = len.saturating_sub(folder.done_len());
        match disk::free_space(dir) {
            Ok(free) if free < need => {
                let (need, free) = (ByteSize(need), ByteSize(free));
                let reason = format!("it needs {need}, {free} are free there");
                Err(local(StoreError::lasting(dir, reason)))
            }
            _ => Ok(()),
        }
    }
}

/// A folder that is closed when its download ends, in whatever way.
struct Opened(Arc<Unpacking>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.close();
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
