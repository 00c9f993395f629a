//! Commands that show something and change nothing.

use serde_json::json;

use super::choice::{names, without_slash};
use super::executor::{Executor, parse_user, sha256_of};
use super::exit::{Class, Failure};
use super::options::{ListOptions, SearchOptions, Sort};
use super::render::{self, Scope};
use crate::wire::control::Hit;

/// Entries of a whole listing.
pub(super) const MAX_LISTED: usize = 200_000;
/// Hits of a search among which is chosen.
const MAX_SIFTED: usize = 10_000;

impl Executor {
    pub(super) fn list_own(&self, options: &ListOptions) -> Result<(), Failure> {
        let mut shares = self.peer.shares();
        if options.sort == Some(Sort::Size) {
            shares.sort_by_key(|shared| std::cmp::Reverse(shared.contents.len));
        }
        for shared in &shares {
            self.screen.object(&render::share_json(shared))?;
        }
        if shares.is_empty() {
            self.screen
                .text("You share nothing; add PATH shares a file or folder. (people: peers --all)")
        } else {
            self.screen
                .text(&render::shares(&shares, options.long, self.screen.width()))?;
            self.screen.text("(people: peers --all)")
        }
    }

    /// What the peer under our usual name shares; nothing when it is not here.
    ///
    /// # Errors
    /// When the tracker does not answer.
    pub async fn list_under(&self, user: &str, options: &ListOptions) -> Result<(), Failure> {
        match self.list(Some(user), options).await {
            Err(failure) if failure.class == Class::NotFound => {
                self.screen.text(&format!("{user} shares nothing"))
            }
            listed => listed,
        }
    }

    /// What `user`, or everybody, shares.
    ///
    /// # Errors
    /// When the tracker does not answer, or nobody of that name is here.
    pub async fn list(&self, user: Option<&str>, options: &ListOptions) -> Result<(), Failure> {
        let user = user.map(parse_user).transpose()?;
        let listing = self.peer.files(user.as_ref(), MAX_LISTED).await?;
        let mut hits = listing.hits;
        hits.sort_by(|a, b| a.file.name.cmp(&b.file.name));
        if let Some(sort) = options.sort {
            sort.apply(&mut hits);
        }
        let scope = match user {
            Some(_) => Scope::One,
            None => Scope::Everybody,
        };
        self.show_hits(&hits, scope, options.long)?;
        if hits.is_empty() {
            self.screen.text("nothing is shared")?;
        }
        Ok(())
    }

    /// Names that contain a text.
    ///
    /// # Errors
    /// When nothing does, or the tracker does not answer.
    pub async fn search(&self, options: &SearchOptions) -> Result<(), Failure> {
        let (text, limit) = (options.text.join(" "), options.limit.max(1));
        let (term, is_folder) = without_slash(&text);
        let takes_all = options.takes_all() && !is_folder;
        let sifted = if takes_all {
            limit
        } else {
            limit.max(MAX_SIFTED)
        };
        let mut listing = self.peer.search(term, sifted).await?;
        if !takes_all {
            listing.is_partial |= listing.total as usize > listing.hits.len();
            let is_kind = |hit: &Hit| !is_folder || hit.file.kind.is_folder();
            listing
                .hits
                .retain(|hit| is_kind(hit) && options.takes(hit));
            if let Some(sort) = options.sort {
                sort.apply(&mut listing.hits);
            }
            listing.total = u32::try_from(listing.hits.len()).unwrap_or(u32::MAX);
            listing.hits.truncate(limit);
        }
        let mut hashed = listing.hits.iter().filter(|hit| hit.file.kind.is_hashed());
        *self.last() = hashed.next().cloned();
        if listing.hits.is_empty() {
            return Err(Failure::new(
                Class::NotFound,
                format!("nothing matches \"{text}\""),
            ));
        }
        self.show_hits(&listing.hits, Scope::Everybody, false)?;
        match render::not_shown(&listing) {
            Some(line) => self.screen.text(&line),
            None => Ok(()),
        }
    }

    fn show_hits(&self, hits: &[Hit], scope: Scope, is_long: bool) -> Result<(), Failure> {
        self.seen.hits(hits);
        for hit in hits {
            self.screen.object(&render::hit_json(hit))?;
        }
        if hits.is_empty() {
            Ok(())
        } else {
            self.screen
                .text(&render::hits(hits, scope, is_long, self.screen.width()))
        }
    }

    pub(super) async fn holders_of_last(&self) -> Result<(), Failure> {
        let Some(hit) = self.last().clone() else {
            return self.people().await;
        };
        let holders = self.peer.holders(hit.file.content).await?;
        for holder in &holders {
            self.screen.object(&json!({
                "v": 1, "type": "holder", "user": holder.user.as_str(), "addresses": holder.addresses,
                "key": holder.peer.fingerprint().to_string(), "id": hit.file.content.to_string(),
            }))?;
        }
        if holders.is_empty() {
            return self
                .screen
                .text(&format!("no peers available for {}", hit.file.shown_name()));
        }
        self.screen
            .text(&format!("{} is at:", hit.file.shown_name()))?;
        self.screen
            .text(&render::holders(&holders, self.screen.width()))
    }

    /// Everybody who is here.
    ///
    /// # Errors
    /// When the tracker does not answer.
    pub async fn people(&self) -> Result<(), Failure> {
        let mut peers = self.peer.peers().await?;
        for peer in &peers {
            self.seen.user(&peer.user);
        }
        peers.sort_by(|a, b| a.user.cmp(&b.user));
        for peer in &peers {
            self.screen.object(&render::peer_json(peer))?;
        }
        self.screen
            .text(&render::peers(&peers, self.screen.width()))
    }

    /// All that is known of one file; SHA-256 only of one that lies here.
    ///
    /// # Errors
    /// When there is no such file.
    pub async fn info(&self, item: &str) -> Result<(), Failure> {
        let own = self
            .peer
            .shares()
            .into_iter()
            .find(|shared| shared.file.kind.is_hashed() && names(item, shared));
        let (file, path, contents) = match own {
            Some(shared) => (shared.file, Some(shared.path), Some(shared.contents)),
            None => {
                let hit = self.choose(item, None).await?;
                if !hit.file.kind.is_hashed() {
                    let (name, users) = (hit.file.shown_name(), render::owners(&hit));
                    let line = format!("{name} is still being hashed at {users}; try again later");
                    return Err(Failure::new(Class::NotFound, line));
                }
                (hit.file, None, None)
            }
        };
        let holders = self.peer.holders(file.content).await?;
        let is_file = file.kind.is_file();
        let sha256 = match &path {
            Some(path) if is_file => Some(sha256_of(path.clone()).await?),
            _ => None,
        };
        let mut object = render::file_json(&file);
        object["peers"] = json!(
            holders
                .iter()
                .map(|holder| holder.user.as_str())
                .collect::<Vec<_>>()
        );
        object["sha256"] = json!(sha256);
        object["holders"] = json!(holders.len());
        object["files"] = json!(contents.map(|of| of.files));
        object["total"] = json!(contents.map(|of| of.len));
        self.screen.object(&object)?;
        let size = match (is_file, contents) {
            (true, _) => format!("size     {} ({} bytes)", render::size(file.len), file.len),
            (false, Some(of)) => {
                let size = render::size(of.len);
                let files = render::counted(of.files, "file");
                format!("size     {size} ({} bytes) in {files}", of.len)
            }
            (false, None) => "size     stands in the folder's listing".to_owned(),
        };
        let mut lines = vec![
            format!("name     {}", file.shown_name()),
            size,
            format!("BLAKE3   {}", file.content.to_hex()),
        ];
        match &sha256 {
            Some(sha256) => lines.push(format!("SHA-256  {sha256}")),
            None if is_file => {
                lines.push("SHA-256  download it first: it is computed from the file".to_owned());
            }
            None => {}
        }
        if let Some(path) = path {
            let shown = crate::wire::text::safe(&path.to_string_lossy());
            lines.push(format!("path     {shown}"));
        }
        let users = holders
            .iter()
            .map(|holder| holder.user.to_string())
            .collect::<Vec<_>>()
            .join(", ");
        lines.push(format!(
            "others   {}",
            if users.is_empty() { "nobody" } else { &users }
        ));
        self.screen.text(&lines.join("\n"))
    }

    pub(super) fn identify(&self) -> Result<(), Failure> {
        let own = self.peer.id().fingerprint();
        let tracker = self.peer.tracker();
        let (at, key) = tracker.map(|(at, key)| (at, key.fingerprint())).unzip();
        self.screen.object(&json!({
            "v": 1, "type": "id", "user": self.peer.user().as_str(), "key": own.to_string(),
            "port": self.peer.port(), "tracker": at, "tracker_key": key.map(|key| key.to_string()),
        }))?;
        let tracker = match (at, key) {
            (Some(at), Some(key)) => format!("{at}  {key}"),
            _ => "none; whoever is on the local network".to_owned(),
        };
        self.screen.text(&format!(
            "you      {}  {own}\ntracker  {tracker}",
            self.peer.user(),
        ))
    }
}
