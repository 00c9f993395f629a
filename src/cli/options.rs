//! What a running peer can be asked for, the same on the command line and at the prompt.
//!
//! These travel through the socket of a running peer as well, as JSON.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::config::Span;
use crate::wire::control::Hit;
use crate::wire::password::Password;
use crate::wire::text::fold;

/// What to share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct AddArgs {
    /// Files and folders
    #[arg(required = true, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Name under which a single one is shared
    #[arg(long = "as", value_name = "NAME")]
    pub as_name: Option<String>,
    /// Only for these people; may be given again. Nobody else finds it, or gets it
    #[arg(long = "for", value_name = "USER", value_delimiter = ',')]
    pub readers: Vec<String>,
    /// Stop sharing it after this time: 30m, 2h, 24h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub time: Option<Duration>,
    /// Lock each file with a password of its own: whoever downloads it is asked for that
    #[arg(long)]
    pub lock: bool,
    /// File with that password in its first line; - reads a line of standard input
    #[arg(long, value_name = "FILE", requires = "lock")]
    #[serde(skip)]
    pub lock_password_file: Option<PathBuf>,
    /// That password.
    #[arg(skip)]
    #[serde(skip)]
    pub secret: Option<Password>,
    /// A locked copy for each path, made by whoever asks a running peer.
    #[arg(skip)]
    #[serde(default)]
    pub copies: Vec<PathBuf>,
}

impl AddArgs {
    /// `--for 2h` is older than `--for USER`: a time there is one, unless it begins with an @.
    #[must_use]
    pub fn is_time(reader: &str) -> bool {
        parse_time(reader).is_ok()
    }

    /// After which time it ends, and whom it is for.
    ///
    /// # Errors
    /// When there are two times.
    pub fn time_and_readers(&self) -> Result<(Option<Duration>, Vec<&str>), String> {
        let (times, readers): (Vec<_>, Vec<_>) = self
            .readers
            .iter()
            .partition(|reader| Self::is_time(reader));
        let times = times.into_iter().filter_map(|time| parse_time(time).ok());
        let times: Vec<_> = times.chain(self.time).collect();
        if times.len() > 1 {
            return Err("there is more than one time: give one with --time".to_owned());
        }
        let readers = readers.into_iter();
        let readers = readers.map(|reader| reader.strip_prefix('@').unwrap_or(reader));
        Ok((times.first().copied(), readers.collect()))
    }
}

/// What somebody or everybody shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct ListOptions {
    /// Order of the entries [default: name]
    #[arg(long, value_enum)]
    pub sort: Option<Sort>,
    /// Whole ids, and sizes in bytes
    #[arg(short, long)]
    pub long: bool,
}

/// What to search.
#[derive(Clone, Debug, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct SearchOptions {
    /// Part of a name, in any case
    #[arg(required = true, value_name = "TEXT")]
    pub text: Vec<String>,
    /// Most hits to show
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Only names that end so: mp4, or mp4,mkv
    #[arg(long, value_name = "EXT", value_delimiter = ',')]
    pub ext: Vec<String>,
    /// Only files of at least this size: 500K, 10MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub min_size: Option<u64>,
    /// Order of the hits [default: the best first]
    #[arg(long, value_enum)]
    pub sort: Option<Sort>,
}

/// What to download.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct DownloadOptions {
    /// Names, name#1a2b, or ids
    #[arg(required = true, value_name = "NAME|ID")]
    pub items: Vec<String>,
    /// Only from this person
    #[arg(long, value_name = "USER")]
    pub from: Option<String>,
    /// What is given are ids, or their first digits: never names that look like one
    #[arg(long, conflicts_with = "all_matching")]
    pub id: bool,
    /// Everything whose name contains a text that is given
    #[arg(long)]
    pub all_matching: bool,
    /// File with the password of what is locked in its first line; - reads a line of standard input
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub lock_password_file: Option<PathBuf>,
    /// That password.
    #[arg(skip)]
    #[serde(skip)]
    pub secret: Option<Password>,
    /// What is locked is left so.
    #[arg(skip)]
    #[serde(skip)]
    pub stays_locked: bool,
}

/// An order of hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// By name
    Name,
    /// The largest first
    Size,
    /// What most have first
    Peers,
}

impl Sort {
    /// Puts `hits` in this order; equal ones stay as they are.
    pub fn apply(self, hits: &mut [Hit]) {
        use std::cmp::Reverse;
        match self {
            Self::Name => hits.sort_by_cached_key(|hit| fold(hit.file.name.as_str())),
            Self::Size => hits.sort_by_key(|hit| Reverse(hit.file.len)),
            Self::Peers => hits.sort_by_key(|hit| Reverse(hit.holders)),
        }
    }
}

impl SearchOptions {
    /// Without any choice among the hits.
    #[must_use]
    pub fn plain(text: Vec<String>, limit: usize) -> Self {
        Self {
            text,
            limit,
            ext: Vec::new(),
            min_size: None,
            sort: None,
        }
    }

    /// Do the first hits that come say all that is wanted?
    #[must_use]
    pub const fn takes_all(&self) -> bool {
        self.ext.is_empty() && self.min_size.is_none() && self.sort.is_none()
    }

    /// Is this hit wanted? How large a folder is stands in its listing only, so no size fits one.
    #[must_use]
    pub fn takes(&self, hit: &Hit) -> bool {
        let name = fold(hit.file.name.as_str());
        let ends = |ext: &String| {
            let ext = fold(ext.trim_start_matches('.'));
            name.strip_suffix(&ext)
                .is_some_and(|rest| rest.ends_with('.'))
        };
        let is_large = |least: u64| hit.file.kind.is_file() && hit.file.len >= least;
        (self.ext.is_empty() || self.ext.iter().any(ends)) && self.min_size.is_none_or(is_large)
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, _> = text.trim().parse();
    size.map(|size| size.as_u64())
        .map_err(|_| "write 500K, 10MB or 10MiB".to_owned())
}

/// A time of at least a second: a share that ends before anybody could see it is a slip.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let span: Span = text
        .parse()
        .map_err(|_| "write 30m, 2h or 24h".to_owned())?;
    if span.0 < Duration::from_secs(1) {
        return Err("at least a second".to_owned());
    }
    Ok(span.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{Publication, PublicationKind};
    use crate::wire::id::ContentId;

    fn hit(name: &str, len: u64, holders: u32, kind: PublicationKind) -> Hit {
        Hit {
            file: Publication {
                name: name.parse().unwrap(),
                content: ContentId([1; 32]),
                len,
                kind,
            },
            owners: Vec::new(),
            holders,
            is_restricted: false,
        }
    }

    #[test]
    fn hits_are_chosen_by_ending_and_size() {
        let mut options = SearchOptions::plain(vec!["x".into()], 50);
        let film = hit("a.MP4", 100, 1, PublicationKind::File);
        let folder = hit("a.mp4", 100, 1, PublicationKind::Folder);
        assert!(options.takes(&film) && options.takes(&folder) && options.takes_all());
        options.ext = vec!["mkv".into(), ".mp4".into()];
        assert!(options.takes(&film) && !options.takes(&hit("amp4", 1, 1, PublicationKind::File)));
        options.min_size = Some(100);
        assert!(options.takes(&film) && !options.takes(&folder));
        options.min_size = Some(101);
        assert!(!options.takes(&film) && !options.takes_all());
    }

    #[test]
    fn an_order_is_the_one_that_was_asked_for() {
        let file = PublicationKind::File;
        let mut hits = [
            hit("b", 1, 9, file),
            hit("A", 5, 1, file),
            hit("c", 3, 2, file),
        ];
        let mut order = |sort: Sort| {
            sort.apply(&mut hits);
            hits.iter()
                .map(|hit| hit.file.name.to_string())
                .collect::<String>()
        };
        assert_eq!(order(Sort::Name), "Abc");
        assert_eq!(order(Sort::Size), "Acb");
        assert_eq!(order(Sort::Peers), "bcA");
    }

    #[test]
    fn what_reads_as_a_time_is_one_and_everything_else_somebody() {
        let args = |readers: &[&str], time: Option<u64>| AddArgs {
            readers: readers.iter().map(ToString::to_string).collect(),
            time: time.map(Duration::from_secs),
            ..AddArgs::default()
        };
        let (two, one) = (
            Some(Duration::from_secs(7200)),
            Some(Duration::from_secs(1)),
        );
        let plain = args(&["bob", "ana"], None);
        assert_eq!(plain.time_and_readers(), Ok((None, vec!["bob", "ana"])));
        assert_eq!(args(&["2h"], None).time_and_readers(), Ok((two, vec![])));
        let both = args(&["bob", "@2h"], Some(1));
        assert_eq!(both.time_and_readers(), Ok((one, vec!["bob", "2h"])));
        assert!(args(&["2h"], Some(1)).time_and_readers().is_err());
    }

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(parse_size("10MiB"), Ok(10 << 20));
        assert_eq!(parse_size("500K"), Ok(500_000));
        assert!(parse_size("big").is_err());
        assert_eq!(parse_time("2h"), Ok(Duration::from_secs(7200)));
        assert!(parse_time("0s").is_err() && parse_time("soon").is_err());
    }
}
