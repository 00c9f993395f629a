//! Carries out commands with a running peer, from the prompt and from scripts alike.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::command::{Command, help};
use super::exit::{Class, Failure};
use super::render;
use super::screen::{Screen, Style};
use crate::peer::{Peer, Shared, Wanted};
use crate::wire::control::Hit;
use crate::wire::id::ContentId;
use crate::wire::text::{FileName, UserName};

/// Hits that are looked through to find one by its name or id.
const MAX_CANDIDATES: usize = 1000;
/// Entries of a whole listing.
const MAX_LISTED: usize = 200_000;

/// Whether a download without a seeder waits for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It fails after its retries: scripts want an end.
    Retries,
    /// It waits, visibly: somebody sits there.
    Waits,
}

/// A peer with a memory of what was searched last.
#[derive(Clone)]
pub struct Executor {
    peer: Peer,
    screen: Screen,
    patience: Patience,
    last_found: Arc<Mutex<Option<Hit>>>,
}

impl Executor {
    /// Commands go to `peer`, results to `screen`.
    #[must_use]
    pub fn new(peer: Peer, screen: Screen, patience: Patience) -> Self {
        Self {
            peer,
            screen,
            patience,
            last_found: Arc::default(),
        }
    }

    /// The peer.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Carries out one command; `Quit` is the caller's.
    ///
    /// # Errors
    /// What it failed for, to be shown on one line.
    pub async fn run(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Add { paths, as_name } => self.share(&paths, as_name.as_deref()).await,
            Command::Remove { items } => self.unshare(&items).await,
            Command::List {
                user: None,
                all: false,
            } => self.list_own(),
            Command::List { user, .. } => self.list(user.as_deref()).await,
            Command::ListUnder { user } => self.list_under(&user).await,
            Command::AllFiles => self.list(None).await,
            Command::Search { text, limit } => self.search(&text.join(" "), limit).await,
            Command::Download { items, from, out } => {
                self.download(&items, from.as_deref(), out).await
            }
            Command::Peers { all: false } => self.holders_of_last().await,
            Command::Peers { all: true } | Command::Lap => self.people().await,
            Command::Info { item } => self.info(&item).await,
            Command::Id => self.identify(),
            Command::Help { command } => {
                let text = help(command.as_deref()).map_err(Failure::usage)?;
                self.screen.text(&text)
            }
            Command::Quit => Ok(()),
        }
    }

    /// Shares files, each with a line.
    ///
    /// # Errors
    /// The first failure, or that some failed.
    pub async fn share(&self, paths: &[PathBuf], as_name: Option<&str>) -> Result<(), Failure> {
        let name = as_name.map(parse_name).transpose()?;
        if name.is_some() && paths.len() > 1 {
            return Err(Failure::usage("--as names one file, and there are several"));
        }
        let mut failures = Vec::new();
        for path in paths {
            match self.peer.share(path, name.clone()).await {
                Ok(shared) => {
                    self.screen.text(&render::sharing(&shared))?;
                    self.screen.object(&render::file_json(&shared.file))?;
                }
                Err(error) => failures.push(Failure::from(error)),
            }
        }
        self.conclude(paths.len(), failures)
    }

    async fn unshare(&self, items: &[String]) -> Result<(), Failure> {
        let mut failures = Vec::new();
        for item in items {
            let gone = self
                .peer
                .unshare(|shared: &Shared| names(item, shared))
                .await?;
            for shared in &gone {
                self.screen
                    .text(&format!("Not sharing {} any more", shared.file.name))?;
            }
            if gone.is_empty() {
                failures.push(Failure::new(
                    Class::NotFound,
                    format!("you do not share \"{item}\""),
                ));
            }
        }
        self.conclude(items.len(), failures)
    }

    fn list_own(&self) -> Result<(), Failure> {
        let shares = self.peer.shares();
        for shared in &shares {
            self.screen.object(&render::file_json(&shared.file))?;
        }
        if shares.is_empty() {
            self.screen
                .text("You share nothing; add FILE shares one. (people: peers --all)")
        } else {
            self.screen
                .text(&render::shares(&shares, self.screen.width()))?;
            self.screen.text("(people: peers --all)")
        }
    }

    /// What the peer under our usual name shares; nothing when it is not here.
    ///
    /// # Errors
    /// When the tracker does not answer.
    pub async fn list_under(&self, user: &str) -> Result<(), Failure> {
        match self.list(Some(user)).await {
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
    pub async fn list(&self, user: Option<&str>) -> Result<(), Failure> {
        let user = user.map(parse_user).transpose()?;
        let listing = match self.peer.files(user.as_ref(), MAX_LISTED).await {
            Err(crate::peer::RequestError::Refused(reason)) if user.is_some() => {
                return Err(Failure::new(Class::NotFound, reason));
            }
            listing => listing?,
        };
        let mut hits = listing.hits;
        hits.sort_by(|a, b| a.file.name.cmp(&b.file.name));
        self.show_hits(&hits)?;
        if hits.is_empty() {
            self.screen.text("nothing is shared")?;
        }
        Ok(())
    }

    /// Names that contain `text`.
    ///
    /// # Errors
    /// When nothing does, or the tracker does not answer.
    pub async fn search(&self, text: &str, limit: usize) -> Result<(), Failure> {
        let listing = self.peer.search(text, limit.max(1)).await?;
        *self.last() = listing.hits.first().cloned();
        if listing.hits.is_empty() {
            return Err(Failure::new(
                Class::NotFound,
                format!("nothing matches \"{text}\""),
            ));
        }
        self.show_hits(&listing.hits)?;
        let more = (listing.total as usize).saturating_sub(listing.hits.len());
        if more > 0 {
            self.screen
                .text(&format!("… and {more} more: refine, or give --limit"))?;
        }
        Ok(())
    }

    fn show_hits(&self, hits: &[Hit]) -> Result<(), Failure> {
        for hit in hits {
            self.screen.object(&render::hit_json(hit))?;
        }
        if hits.is_empty() {
            Ok(())
        } else {
            self.screen.text(&render::hits(hits, self.screen.width()))
        }
    }

    /// Downloads each item to its end.
    ///
    /// # Errors
    /// The failure of the only one, or that some failed.
    pub async fn download(
        &self,
        items: &[String],
        from: Option<&str>,
        out: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let from = from.map(parse_user).transpose()?;
        let mut failures = Vec::new();
        let mut files = Vec::new();
        for item in items {
            match self.download_one(item, from.as_ref(), out.clone()).await {
                Ok(file) => files.push(file),
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() {
            self.screen.object(&json!({
                "v": 1, "type": "result", "command": "get", "ok": true, "files": files,
            }))?;
        }
        self.conclude(items.len(), failures)
    }

    async fn download_one(
        &self,
        item: &str,
        from: Option<&UserName>,
        out: Option<PathBuf>,
    ) -> Result<serde_json::Value, Failure> {
        let hit = self.choose(item, from).await?;
        let from = match from {
            Some(user) => Some(self.key_of(&hit, user).await?),
            None => None,
        };
        let wanted = Wanted {
            file: hit.file,
            from,
            directory: out,
            waits: self.patience == Patience::Waits,
        };
        let done = self.peer.download(&wanted).await?;
        self.screen.text(&render::downloaded(&done))?;
        if self.peer.seeds() {
            // It is hashed once more: what is shared is what lies on the disk.
            let shared = self
                .peer
                .share(&done.path, Some(done.file.name.clone()))
                .await;
            if let Err(error) = shared {
                self.screen
                    .note(&format!("! {}", Failure::from(error).line()));
            }
        }
        // Another reading of the whole file: only for scripts, which compare.
        let sha256 = match self.screen.style() {
            Style::Json => Some(sha256_of(done.path.clone()).await?),
            Style::Text => None,
        };
        Ok(json!({
            "name": done.file.name.as_str(), "path": done.path.to_string_lossy(),
            "id": done.file.content.to_string(), "sha256": sha256, "size": done.file.len,
            "seconds": done.elapsed.as_secs_f64(), "peers": done.sources,
        }))
    }

    async fn key_of(&self, hit: &Hit, user: &UserName) -> Result<crate::wire::id::PeerId, Failure> {
        let holders = self.peer.holders(hit.file.content).await?;
        let holder = holders
            .into_iter()
            .find(|holder| holder.user.folded() == user.folded());
        let missing = || {
            Failure::new(
                Class::NotFound,
                format!("{user} does not have {}", hit.file.name),
            )
        };
        holder.map(|holder| holder.peer).ok_or_else(missing)
    }

    /// The one file that `item` means: a name, `name#1a2b`, or an id.
    async fn choose(&self, item: &str, owner: Option<&UserName>) -> Result<Hit, Failure> {
        let missing = || Failure::new(Class::NotFound, format!("nobody shares \"{item}\""));
        if let Ok(content) = item.parse::<ContentId>() {
            return self.by_content(content).await;
        }
        if let Some(digits) = short_id(item) {
            return self.by_digits(item, &digits).await;
        }
        let (name, digits) = split_choice(item);
        let mut hits = self.peer.search(name, MAX_CANDIDATES).await?.hits;
        hits.retain(|hit| {
            let is_owned = owner.is_none_or(|owner| {
                hit.holders as usize > hit.owners.len()
                    || hit.owners.iter().any(|o| o.folded() == owner.folded())
            });
            let is_chosen =
                digits.is_none_or(|digits| hit.file.content.to_hex().starts_with(digits));
            is_owned && is_chosen
        });
        let is_exact = |hit: &Hit| hit.file.name.as_str() == name;
        if hits.iter().any(is_exact) {
            hits.retain(is_exact);
        } else {
            hits.retain(|hit| {
                crate::wire::text::fold(hit.file.name.as_str()) == crate::wire::text::fold(name)
            });
        }
        // One content has one length: of several claims the one that most people make counts.
        hits.sort_by_key(|hit| (hit.file.content, std::cmp::Reverse(hit.holders)));
        hits.dedup_by_key(|hit| hit.file.content);
        match hits.as_slice() {
            [] => Err(missing()),
            [only] => Ok(only.clone()),
            several => {
                let choices = several.iter().map(|hit| {
                    let digits = &hit.file.content.to_hex()[..ContentId::SHORT_LEN / 2];
                    format!(
                        "{}#{digits} ({})",
                        hit.file.name,
                        render::size(hit.file.len)
                    )
                });
                let choices = choices.collect::<Vec<_>>().join(", ");
                Err(Failure::usage(format!(
                    "\"{item}\" has several contents: {choices}"
                )))
            }
        }
    }

    async fn by_content(&self, content: ContentId) -> Result<Hit, Failure> {
        let missing = || Failure::new(Class::NotFound, format!("nobody has {}", content.short()));
        if let Some(hit) = self
            .last()
            .clone()
            .filter(|hit| hit.file.content == content)
        {
            return Ok(hit);
        }
        let holders = self.peer.holders(content).await?;
        let claims = |len| holders.iter().filter(|holder| holder.len == len).count();
        let best = holders
            .iter()
            .max_by_key(|holder| claims(holder.len))
            .ok_or_else(missing)?;
        let theirs = self.peer.files(Some(&best.user), MAX_LISTED).await?;
        let is_meant = |hit: &Hit| hit.file.content == content && hit.file.len == best.len;
        theirs.hits.into_iter().find(is_meant).ok_or_else(missing)
    }

    /// The short form that tables show. It may fit several contents, so all that is shared is looked through.
    async fn by_digits(&self, item: &str, digits: &str) -> Result<Hit, Failure> {
        let is_meant = |hit: &Hit| hit.file.content.to_hex().starts_with(digits);
        if let Some(hit) = self.last().clone().filter(is_meant) {
            return Ok(hit);
        }
        let mut hits = self.peer.files(None, MAX_LISTED).await?.hits;
        hits.retain(is_meant);
        hits.sort_by_key(|hit| (hit.file.content, std::cmp::Reverse(hit.holders)));
        hits.dedup_by_key(|hit| hit.file.content);
        match hits.len() {
            0 => Err(Failure::new(Class::NotFound, format!("nobody has {item}"))),
            1 => Ok(hits.swap_remove(0)),
            count => Err(Failure::usage(format!("{item} fits {count} files"))
                .hint("give more of its digits")),
        }
    }

    async fn holders_of_last(&self) -> Result<(), Failure> {
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
                .text(&format!("no peers available for {}", hit.file.name));
        }
        self.screen.text(&format!("{} is at:", hit.file.name))?;
        self.screen
            .text(&render::holders(&holders, self.screen.width()))
    }

    /// Everybody who is here.
    ///
    /// # Errors
    /// When the tracker does not answer.
    pub async fn people(&self) -> Result<(), Failure> {
        let mut peers = self.peer.peers().await?;
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
            .find(|shared| names(item, shared));
        let (file, path) = match own {
            Some(shared) => (shared.file, Some(shared.path)),
            None => (self.choose(item, None).await?.file, None),
        };
        let holders = self.peer.holders(file.content).await?;
        let sha256 = match &path {
            Some(path) => Some(sha256_of(path.clone()).await?),
            None => None,
        };
        let mut object = render::file_json(&file);
        object["peers"] = json!(
            holders
                .iter()
                .map(|holder| holder.user.as_str())
                .collect::<Vec<_>>()
        );
        object["sha256"] = json!(sha256);
        self.screen.object(&object)?;
        let mut lines = vec![
            format!("name     {}", file.name),
            format!("size     {} ({} bytes)", render::size(file.len), file.len),
            format!("BLAKE3   {}", file.content.to_hex()),
        ];
        match (sha256, path) {
            (Some(sha256), Some(path)) => {
                lines.push(format!("SHA-256  {sha256}"));
                lines.push(format!(
                    "path     {}",
                    crate::wire::text::safe(&path.to_string_lossy())
                ));
            }
            _ => lines.push("SHA-256  download it first: it is computed from the file".to_owned()),
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

    fn identify(&self) -> Result<(), Failure> {
        let (own, tracker) = (
            self.peer.id().fingerprint(),
            self.peer.tracker_key().fingerprint(),
        );
        self.screen.object(&json!({
            "v": 1, "type": "id", "user": self.peer.user().as_str(), "key": own.to_string(),
            "port": self.peer.port(), "tracker": self.peer.tracker(), "tracker_key": tracker.to_string(),
        }))?;
        self.screen.text(&format!(
            "you      {}  {own}\ntracker  {}  {tracker}",
            self.peer.user(),
            self.peer.tracker()
        ))
    }

    fn conclude(&self, items: usize, mut failures: Vec<Failure>) -> Result<(), Failure> {
        match (failures.len(), failures.pop()) {
            (0, _) | (_, None) => Ok(()),
            (1, Some(failure)) if items == 1 => Err(failure),
            (failed, Some(last)) => {
                for failure in &failures {
                    self.screen.note(&format!("p2pfs: {}", failure.line()));
                }
                self.screen.note(&format!("p2pfs: {}", last.line()));
                Err(Failure::new(
                    Class::Partly,
                    format!("{failed} of {items} failed"),
                ))
            }
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Hit>> {
        self.last_found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse_name(text: &str) -> Result<FileName, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("the name \"{text}\" {error}")))
}

/// A user's name from the command line.
///
/// # Errors
/// When it cannot be one.
pub fn parse_user(text: &str) -> Result<UserName, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("the name \"{text}\" {error}")))
}

/// `name#1a2b` is a name and the first digits of an id; everything else is a name.
fn split_choice(item: &str) -> (&str, Option<&str>) {
    match item.rsplit_once('#') {
        Some((name, digits))
            if (4..=64).contains(&digits.len())
                && digits.bytes().all(|b| b.is_ascii_hexdigit())
                && !name.is_empty() =>
        {
            (name, Some(digits))
        }
        _ => (item, None),
    }
}

/// The digits of a shortened id: `b3:` and at least four of them.
fn short_id(item: &str) -> Option<String> {
    let digits = item.strip_prefix("b3:")?;
    let is_short = (4..64).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_short.then(|| digits.to_ascii_lowercase())
}

/// Does `item` mean this share: by name, by name and id, by id, or by path?
fn names(item: &str, shared: &Shared) -> bool {
    let hex = shared.file.content.to_hex();
    let (name, digits) = split_choice(item);
    let is_named = shared.file.name.as_str() == item
        || (shared.file.name.as_str() == name
            && digits.is_some_and(|digits| hex.starts_with(digits)));
    let is_id = item.parse() == Ok(shared.file.content)
        || short_id(item).is_some_and(|digits| hex.starts_with(&digits));
    is_named || is_id || Path::new(item) == shared.path
}

async fn sha256_of(path: PathBuf) -> Result<String, Failure> {
    let hashing = spawn_blocking(move || -> std::io::Result<String> {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut file = std::fs::File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(data_encoding::HEXLOWER.encode(context.finish().as_ref())),
                len => context.update(&buffer[..len]),
            }
        }
    });
    let hashed = hashing
        .await
        .map_err(|error| Failure::new(Class::Failed, error.to_string()))?;
    hashed.map_err(|error| Failure::new(Class::Local, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::Publication;

    #[test]
    fn choices_are_told_from_names() {
        assert_eq!(split_choice("talk.mp4#1a2b"), ("talk.mp4", Some("1a2b")));
        assert_eq!(split_choice("talk.mp4"), ("talk.mp4", None));
        assert_eq!(split_choice("C#notes"), ("C#notes", None));
        assert_eq!(split_choice("C#12"), ("C#12", None), "too short for an id");
        assert_eq!(split_choice("#1a2b"), ("#1a2b", None));
    }

    #[test]
    fn a_share_is_meant_by_name_id_or_path() {
        let file = Publication {
            name: "talk.mp4".parse().unwrap(),
            content: ContentId([0x1a; 32]),
            len: 5,
        };
        let shared = Shared {
            file,
            path: "/tmp/talk.mp4".into(),
        };
        for item in [
            "talk.mp4",
            "talk.mp4#1a1a",
            "/tmp/talk.mp4",
            "b3:1a1a",
            &shared.file.content.short(),
            &shared.file.content.to_string(),
        ] {
            assert!(names(item, &shared), "{item}");
        }
        for item in [
            "talk",
            "talk.mp4#2b2b",
            "other#1a1a",
            "b3:",
            "b3:1a1",
            "b3:2b2b",
            "",
        ] {
            assert!(!names(item, &shared), "{item}");
        }
    }
}
