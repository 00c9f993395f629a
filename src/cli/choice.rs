//! Which file somebody means: by name, by name and digits, by id, or by path.

use std::path::Path;
use std::time::Duration;

use tracing::debug;

use super::executor::{Executor, Patience};
use super::exit::{Class, Failure};
use super::listing::MAX_LISTED;
use super::render;
use crate::peer::Shared;
use crate::proto::backoff::Backoff;
use crate::wire::control::{Hit, Holder};
use crate::wire::id::ContentId;
use crate::wire::text::UserName;

/// Hits that are looked through to find one by its name or id.
const MAX_CANDIDATES: usize = 1000;
/// What is being hashed is looked for again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Executor {
    pub(super) async fn key_of(
        &self,
        hit: &Hit,
        user: &UserName,
    ) -> Result<crate::wire::id::PeerId, Failure> {
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

    /// The one file that `item` means, with its id: what is still being hashed is waited for, visibly. Scripts
    /// look as often as they try anything, and a tracker that has no time is asked again as often.
    pub(super) async fn choose_hashed(
        &self,
        item: &str,
        owner: Option<&UserName>,
    ) -> Result<Hit, Failure> {
        let retry = self.peer.retry();
        let (mut looks, mut silences) = (Backoff::new(retry.clone()), Backoff::new(retry.clone()));
        let mut awaited = None;
        loop {
            let pause = match self.choose(item, owner).await {
                Ok(hit) if hit.file.kind.is_hashed() => return Ok(hit),
                Ok(hit) => {
                    silences.succeed();
                    let awaited = awaited.get_or_insert_with(|| {
                        let still = still_hashed(&hit);
                        let line = &still.message;
                        self.screen
                            .note(&format!("{line}: it comes when that is done"));
                        still
                    });
                    match self.patience {
                        Patience::Waits => ASK_AGAIN,
                        Patience::Retries => looks.fail(1.0).ok_or_else(|| awaited.clone())?,
                    }
                }
                Err(failure) if awaited.is_some() && may_pass(&failure) => {
                    debug!(%failure, "the tracker is asked again soon");
                    silences.fail(1.0).ok_or(failure)?
                }
                Err(failure) => return Err(failure),
            };
            tokio::time::sleep(pause).await;
            if self.screen.is_gone() {
                return Err(Failure::new(
                    Class::Interrupted,
                    "nobody waits for it any more",
                ));
            }
        }
    }

    /// The one file that `item` means: a name, `name#1a2b`, or an id. What is being hashed has nothing but a name.
    pub(super) async fn choose(
        &self,
        item: &str,
        owner: Option<&UserName>,
    ) -> Result<Hit, Failure> {
        let missing = || Failure::new(Class::NotFound, format!("nobody shares \"{item}\""));
        if let Ok(content) = item.parse::<ContentId>() {
            return self.by_content(content, owner).await;
        }
        if let Some(digits) = short_id(item) {
            return self.by_digits(item, &digits, owner).await;
        }
        let Choice {
            name,
            digits,
            is_folder,
        } = split_choice(item);
        let mut hits = self.peer.search(name, MAX_CANDIDATES).await?.hits;
        hits.retain(|hit| {
            let is_chosen = digits.is_none_or(|digits| has_digits(hit, digits));
            let is_meant = is_chosen && (!is_folder || hit.file.kind.is_folder());
            is_owned(hit, owner) && is_meant
        });
        let is_exact = |hit: &Hit| hit.file.name.as_str() == name;
        if hits.iter().any(is_exact) {
            hits.retain(is_exact);
        } else {
            hits.retain(|hit| {
                crate::wire::text::fold(hit.file.name.as_str()) == crate::wire::text::fold(name)
            });
        }
        // What only we have, and not all of it, is nothing that we could want.
        let whole = self.peer.shares();
        let is_ours = |hit: &Hit| {
            hit.holders == 1
                && hit.owners.first() == Some(self.peer.user())
                && whole.iter().all(|own| own.file.content != hit.file.content)
        };
        if !hits.iter().all(is_ours) {
            hits.retain(|hit| !is_ours(hit));
        }
        if hits.iter().any(|hit| hit.file.kind.is_hashed()) {
            hits.retain(|hit| hit.file.kind.is_hashed());
        } else {
            // Whichever is done first.
            hits.truncate(1);
        }
        let hits = believed(hits);
        match hits.as_slice() {
            [] => Err(missing()),
            [only] => Ok(only.clone()),
            several if is_disputed(several) => Err(disputed(item, several)),
            several => {
                let choices = several.iter().map(|hit| {
                    let digits = &hit.file.content.to_hex()[..ContentId::SHORT_LEN / 2];
                    format!(
                        "{}#{digits} ({})",
                        hit.file.shown_name(),
                        render::size_of(&hit.file)
                    )
                });
                let choices = choices.collect::<Vec<_>>().join(", ");
                Err(Failure::usage(format!(
                    "\"{item}\" has several contents: {choices}"
                )))
            }
        }
    }

    /// Everything whose name contains `text`, each content once.
    pub(super) async fn choose_all(
        &self,
        text: &str,
        owner: Option<&UserName>,
    ) -> Result<Vec<Hit>, Failure> {
        let (name, is_folder) = without_slash(text);
        let listing = self.peer.search(name, MAX_CANDIDATES).await?;
        if listing.is_partial || listing.total as usize > listing.hits.len() {
            let line = format!("more than {MAX_CANDIDATES} names contain \"{text}\"");
            return Err(Failure::usage(line).hint("refine it"));
        }
        let own = self.peer.shares();
        let mut hits = listing.hits;
        hits.retain(|hit| {
            let is_here = own.iter().any(|own| own.file.content == hit.file.content);
            let is_meant = hit.file.kind.is_hashed() && (!is_folder || hit.file.kind.is_folder());
            !is_here && is_meant && is_owned(hit, owner)
        });
        let hits = believed(hits);
        if is_disputed(&hits) {
            return Err(disputed(text, &hits));
        }
        if hits.is_empty() {
            let line = format!("nothing that is not here already matches \"{text}\"");
            return Err(Failure::new(Class::NotFound, line));
        }
        Ok(hits)
    }

    /// The one file with this id, or with these first digits of it.
    pub(super) async fn choose_id(
        &self,
        item: &str,
        owner: Option<&UserName>,
    ) -> Result<Hit, Failure> {
        if let Ok(content) = item.parse::<ContentId>() {
            return self.by_content(content, owner).await;
        }
        let digits = item.strip_prefix("b3:").unwrap_or(item);
        match short_id(&format!("b3:{digits}")) {
            Some(digits) => self.by_digits(item, &digits, owner).await,
            None => Err(Failure::usage(format!("\"{item}\" is no id"))
                .hint("give at least four of its digits")),
        }
    }

    async fn by_content(
        &self,
        content: ContentId,
        owner: Option<&UserName>,
    ) -> Result<Hit, Failure> {
        let missing = || Failure::new(Class::NotFound, format!("nobody has {}", content.short()));
        if let Some(hit) = self
            .last()
            .clone()
            .filter(|hit| hit.file.content == content && is_owned(hit, owner))
        {
            return Ok(hit);
        }
        if content == ContentId::NONE {
            return Err(missing());
        }
        let mut holders = self.peer.holders(content).await?;
        holders.retain(|holder| owner.is_none_or(|owner| holder.user.folded() == owner.folded()));
        let claims = |len| holders.iter().filter(|holder| holder.len == len).count();
        let best = holders
            .iter()
            .max_by_key(|holder| claims(holder.len))
            .ok_or_else(missing)?;
        let as_many =
            |other: &Holder| other.len != best.len && claims(other.len) == claims(best.len);
        if holders.iter().any(as_many) {
            let line = format!("people disagree about how long {} is", content.short());
            return Err(Failure::usage(line).hint("--from USER takes it from one of them"));
        }
        let theirs = self.peer.files(Some(&best.user), MAX_LISTED).await?;
        let is_meant = |hit: &Hit| hit.file.content == content && hit.file.len == best.len;
        theirs.hits.into_iter().find(is_meant).ok_or_else(missing)
    }

    /// The short form that tables show. It may fit several contents, so all that is shared is looked through.
    async fn by_digits(
        &self,
        item: &str,
        digits: &str,
        owner: Option<&UserName>,
    ) -> Result<Hit, Failure> {
        let is_meant = |hit: &Hit| has_digits(hit, digits) && is_owned(hit, owner);
        if let Some(hit) = self.last().clone().filter(is_meant) {
            return Ok(hit);
        }
        let mut hits = self.peer.files(None, MAX_LISTED).await?.hits;
        hits.retain(is_meant);
        let mut hits = believed(hits);
        match hits.len() {
            _ if is_disputed(&hits) => Err(disputed(item, &hits)),
            0 => Err(Failure::new(Class::NotFound, format!("nobody has {item}"))),
            1 => Ok(hits.swap_remove(0)),
            count => Err(Failure::usage(format!("{item} fits {count} files"))
                .hint("give more of its digits")),
        }
    }
}

/// A file that has no id yet.
fn still_hashed(hit: &Hit) -> Failure {
    let (name, users) = (hit.file.shown_name(), render::owners(hit));
    let line = format!("{name} is still being hashed at {users}");
    Failure::new(Class::NotFound, line).hint("try again when that is done")
}

/// Is the tracker silent, or has no time, rather than that the file is not there?
const fn may_pass(failure: &Failure) -> bool {
    matches!(failure.class, Class::Network | Class::Refused)
}

/// Does its id begin so?
fn has_digits(hit: &Hit, digits: &str) -> bool {
    hit.file.kind.is_hashed() && hit.file.content.to_hex().starts_with(digits)
}

/// May `owner` have it? Of several holders only some are named.
fn is_owned(hit: &Hit, owner: Option<&UserName>) -> bool {
    owner.is_none_or(|owner| {
        hit.holders as usize > hit.owners.len()
            || hit.owners.iter().any(|o| o.folded() == owner.folded())
    })
}

/// One content has one length and is one kind of thing: of several claims that counts which most people make
/// under one name. Where as many make another, both are left.
fn believed(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by_key(|hit| (hit.file.content, std::cmp::Reverse(hit.holders)));
    let claim = |hit: &Hit| (hit.file.len, hit.file.kind);
    let mut believed: Vec<Hit> = Vec::new();
    for hit in hits {
        let mut others = believed
            .iter()
            .rev()
            .take_while(|other| other.file.content == hit.file.content);
        if others.all(|other| other.holders == hit.holders && claim(other) != claim(&hit)) {
            believed.push(hit);
        }
    }
    believed
}

/// Of what is [`believed`]: are there different claims about one content?
fn is_disputed(hits: &[Hit]) -> bool {
    let same = |two: &[Hit]| two[0].file.content == two[1].file.content;
    hits.windows(2).any(same)
}

fn disputed(item: &str, hits: &[Hit]) -> Failure {
    let claims = hits.iter().map(|hit| {
        let owner = hit.owners.first().map_or("?", UserName::as_str);
        format!(
            "{} of {owner} ({})",
            hit.file.shown_name(),
            render::size_of(&hit.file)
        )
    });
    let claims = claims.collect::<Vec<_>>().join(", ");
    Failure::usage(format!(
        "people disagree about what \"{item}\" is: {claims}"
    ))
    .hint("--from USER takes it from one of them")
}

/// What somebody typed to name one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Choice<'a> {
    name: &'a str,
    /// The first digits of its id.
    digits: Option<&'a str>,
    /// No file is meant.
    is_folder: bool,
}

/// `name#1a2b` is a name and the first digits of an id; everything else is a name. A folder's may be written
/// as it is shown: `name/`, `name/#1a2b`.
fn split_choice(item: &str) -> Choice<'_> {
    let (name, digits) = match item.rsplit_once('#') {
        Some((name, digits))
            if (4..=64).contains(&digits.len())
                && digits.bytes().all(|b| b.is_ascii_hexdigit())
                && !name.is_empty() =>
        {
            (name, Some(digits))
        }
        _ => (item, None),
    };
    let (name, is_folder) = without_slash(name);
    Choice {
        name,
        digits,
        is_folder,
    }
}

/// A name without the slash that says that it is a folder's, and whether there was one: no name holds any.
pub(super) fn without_slash(name: &str) -> (&str, bool) {
    match name.strip_suffix('/').filter(|bare| !bare.is_empty()) {
        Some(bare) => (bare, true),
        None => (name, false),
    }
}

/// The digits of a shortened id: `b3:` and at least four of them.
fn short_id(item: &str) -> Option<String> {
    let digits = item.strip_prefix("b3:")?;
    let is_short = (4..64).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_short.then(|| digits.to_ascii_lowercase())
}

/// Does `item` mean this share: by name, by name and id, by id, or by path?
pub(super) fn names(item: &str, shared: &Shared) -> bool {
    let hex = shared.file.content.to_hex();
    let choice = split_choice(item);
    let is_named = shared.file.name.as_str() == item
        || (shared.file.name.as_str() == choice.name
            && (!choice.is_folder || shared.file.kind.is_folder())
            && choice.digits.is_none_or(|digits| hex.starts_with(digits)));
    let is_id = item.parse() == Ok(shared.file.content)
        || short_id(item).is_some_and(|digits| hex.starts_with(&digits));
    is_named || is_id || Path::new(item) == shared.path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{Publication, PublicationKind};

    #[test]
    fn choices_are_told_from_names() {
        for (item, name, digits, is_folder) in [
            ("talk.mp4#1a2b", "talk.mp4", Some("1a2b"), false),
            ("talk.mp4", "talk.mp4", None, false),
            ("C#notes", "C#notes", None, false),
            ("C#12", "C#12", None, false),
            ("#1a2b", "#1a2b", None, false),
            ("talks/", "talks", None, true),
            ("talks/#1a2b", "talks", Some("1a2b"), true),
            ("/#1a2b", "/", Some("1a2b"), false),
            ("/", "/", None, false),
        ] {
            let wanted = Choice {
                name,
                digits,
                is_folder,
            };
            assert_eq!(split_choice(item), wanted, "{item}");
        }
    }

    fn hit(content: u8, len: u64, kind: PublicationKind, holders: u32) -> Hit {
        let file = Publication {
            name: "talk.mp4".parse().unwrap(),
            content: ContentId([content; 32]),
            len,
            kind,
        };
        let owners = vec!["bob".parse().unwrap()];
        Hit {
            file,
            owners,
            holders,
            is_restricted: false,
        }
    }

    #[test]
    fn of_several_claims_about_one_content_the_most_common_one_counts() {
        use PublicationKind::{File, Folder};
        let (honest, other) = (hit(1, 500, File, 2), hit(2, 7, File, 1));
        let lies = [hit(1, 1, File, 1), hit(1, 500, Folder, 1)];
        let [short, folder] = lies.clone();
        let told = believed(vec![short.clone(), honest.clone(), folder, other.clone()]);
        assert_eq!(told, [honest.clone(), other]);
        assert!(!is_disputed(&told));
        // The same claim under another name is no other claim.
        assert_eq!(believed(vec![honest.clone(), honest.clone()]), [honest]);
        let told = believed(vec![short, hit(1, 500, File, 1)]);
        assert!(told.len() == 2 && is_disputed(&told));
    }

    #[test]
    fn a_share_is_meant_by_name_id_or_path() {
        let file = Publication {
            name: "talk.mp4".parse().unwrap(),
            content: ContentId([0x1a; 32]),
            len: 5,
            kind: PublicationKind::File,
        };
        let shared = Shared {
            file,
            path: "/tmp/talk.mp4".into(),
            real: "/tmp/talk.mp4".into(),
            is_download: false,
            readers: crate::peer::Readers::Everybody,
            contents: crate::peer::Contents::default(),
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
            "talk.mp4/#1a1a",
            "b3:",
            "b3:1a1",
            "b3:2b2b",
            "",
        ] {
            assert!(!names(item, &shared), "{item}");
        }
    }
}
