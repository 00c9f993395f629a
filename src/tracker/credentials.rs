//! The file of users: `NAME:HASH` lines, read with patience and changed with care.
//!
//! A line that is not right is skipped and named by its number, for the others must be able to log in.
//! Comments, order and line ends survive a change; the file is replaced as a whole, under a lock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::crypto::password::PasswordHash;
use crate::crypto::random::{OsRandom, Random};
use crate::crypto::ticket::Roll;
use crate::disk::{PrivateFileError, lock_private, read_private, write_private};
use crate::wire::text::{UserName, safe};

const BOM: &[u8] = b"\xef\xbb\xbf";
const HEADER: &str = "# Users of a p2pfs tracker, NAME:HASH, kept by p2pfs user.\n";

/// Why there are no users.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Exposed, foreign or unreadable.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// Not there.
    #[error("there is no {}; make it: p2pfs user add NAME --credentials {}", .0.display(), .0.display())]
    Missing(PathBuf),
    /// It names nobody: blank, or comments alone.
    #[error("{} has no user; add one: p2pfs user add NAME --credentials {}", .0.display(), .0.display())]
    Empty(PathBuf),
    /// None of its lines is right.
    #[error("{} has no user whose line is right; mend it, or add one: p2pfs user add NAME --credentials {}", .0.display(), .0.display())]
    Broken(PathBuf),
}

/// A line that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its number, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

/// The users of one version of the file.
#[derive(Debug, Default)]
pub struct Users {
    by_name: HashMap<String, (UserName, Arc<PasswordHash>)>,
    /// One for each hash, and as dear: for names that are nobody's.
    decoys: Vec<Arc<PasswordHash>>,
    decoy_key: [u8; 32],
}

impl Users {
    /// Reads the file's bytes.
    pub fn parse(bytes: &[u8], random: &mut dyn Random) -> (Self, Vec<Skipped>) {
        let (mut users, mut skipped) = (Self::default(), Vec::new());
        random.fill(&mut users.decoy_key);
        for (index, line) in lines(bytes).enumerate() {
            match users.add(line, random) {
                Ok(()) => {}
                Err(reason) => skipped.push(Skipped {
                    line: index + 1,
                    reason,
                }),
            }
        }
        (users, skipped)
    }

    fn add(&mut self, line: &[u8], random: &mut dyn Random) -> Result<(), String> {
        let line = content(line);
        if is_comment(line) {
            return Ok(());
        }
        let line = std::str::from_utf8(line).map_err(|_| "not UTF-8 text".to_owned())?;
        let (name, hash) = line
            .split_once(':')
            .ok_or_else(|| "not NAME:HASH".to_owned())?;
        let user: UserName = name.parse().map_err(|error| format!("the name {error}"))?;
        let hash = PasswordHash::parse(hash.trim_end()).map_err(|error| error.to_string())?;
        if self.by_name.contains_key(&user.folded()) {
            return Err(format!("{user} is there already, further up"));
        }
        self.decoys.push(Arc::new(hash.decoy(random)));
        self.by_name.insert(user.folded(), (user, Arc::new(hash)));
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Is there nobody?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Their names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&UserName> {
        let mut names: Vec<_> = self.by_name.values().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// The hash of a user, whatever the case of the name.
    #[must_use]
    pub fn find(&self, user: &UserName) -> Option<&Arc<PasswordHash>> {
        self.by_name.get(&user.folded()).map(|(_, hash)| hash)
    }

    /// What a password is checked against: the user's hash, or for nobody's name a decoy, always the same
    /// for one name and as dear as somebody's hash.
    #[must_use]
    pub fn measure(&self, user: &UserName) -> Option<&Arc<PasswordHash>> {
        self.find(user).or_else(|| {
            let mark = blake3::keyed_hash(&self.decoy_key, user.folded().as_bytes());
            let number = u64::from_be_bytes(*mark.as_bytes().first_chunk()?);
            let count = u64::try_from(self.decoys.len()).ok()?;
            let index = usize::try_from(number.checked_rem(count)?).ok()?;
            self.decoys.get(index)
        })
    }
}

/// The users as they are now, for everybody who asks.
#[derive(Debug, Default)]
pub struct Credentials(RwLock<Arc<Users>>);

impl Credentials {
    /// These users, until others take their place.
    #[must_use]
    pub fn new(users: Users) -> Self {
        Self(RwLock::new(Arc::new(users)))
    }

    /// The users of now.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on it is these.
    pub fn replace(&self, users: Users) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
    }
}

impl Roll for Credentials {
    fn hash_of(&self, user: &UserName) -> Option<String> {
        self.users().find(user).map(|hash| hash.as_str().to_owned())
    }
}

/// Reads the file; it must be its owner's alone and have a user.
///
/// # Errors
/// When it cannot be used; whoever has an older version keeps that.
pub fn read(path: &Path) -> Result<(Users, Vec<Skipped>), CredentialsError> {
    let bytes = read_private(path)?.ok_or_else(|| CredentialsError::Missing(path.to_owned()))?;
    let (users, skipped) = Users::parse(&bytes, &mut OsRandom::new());
    if users.is_empty() && skipped.is_empty() {
        return Err(CredentialsError::Empty(path.to_owned()));
    }
    if users.is_empty() {
        // Why there is none says more than that there is none.
        report(path, &skipped);
        return Err(CredentialsError::Broken(path.to_owned()));
    }
    Ok((users, skipped))
}

/// One line of the log for each line that was skipped, up to a number that somebody reads.
pub fn report(path: &Path, skipped: &[Skipped]) {
    const MOST: usize = 20;
    for Skipped { line, reason } in skipped.iter().take(MOST) {
        tracing::warn!("{}:{line}: skipped: {}", path.display(), safe(reason));
    }
    if skipped.len() > MOST {
        tracing::warn!(
            "{}: {} more lines skipped",
            path.display(),
            skipped.len() - MOST
        );
    }
}

/// Why a user was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be read or replaced.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// To be added, and there.
    #[error("{0} is there already")]
    Exists(UserName),
    /// To be changed or removed, and not there.
    #[error("there is no user {0}")]
    Missing(UserName),
}

/// A change of the file.
#[derive(Debug, Clone, Copy)]
pub enum Edit<'a> {
    /// A new user.
    Add(&'a PasswordHash),
    /// Another password.
    Change(&'a PasswordHash),
    /// A user less.
    Remove,
}

/// Changes `user` in the file, which is made when it is not there. Two at once wait for each other.
///
/// # Errors
/// When the file is not ours alone, or the user is there or not there.
pub fn edit(path: &Path, user: &UserName, edit: Edit<'_>) -> Result<Users, EditError> {
    // Where a link leads to is what changes, and a rename would replace the link.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let io = |source| PrivateFileError::Io {
        path: path.to_owned(),
        source,
    };
    let _lock = lock_private(path).map_err(io)?;
    let before = read_private(path)?;
    let before = before
        .as_ref()
        .map_or(HEADER.as_bytes(), |bytes| bytes.as_slice());
    let after = edited(before, user, edit)?;
    write_private(path, &after).map_err(io)?;
    Ok(Users::parse(&after, &mut OsRandom::new()).0)
}

/// The file's bytes after the change.
fn edited(before: &[u8], user: &UserName, edit: Edit<'_>) -> Result<Vec<u8>, EditError> {
    let is_theirs = |line: &[u8]| {
        let name = content(line).split(|byte| *byte == b':').next();
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        let name = name.and_then(|name| name.parse::<UserName>().ok());
        name.is_some_and(|name| name.folded() == user.folded())
    };
    let is_there = lines(before).any(is_theirs);
    let end: &[u8] = if before.windows(2).any(|two| two == b"\r\n") {
        b"\r\n"
    } else {
        b"\n"
    };
    let mut after = Vec::with_capacity(before.len() + 256);
    let write = |out: &mut Vec<u8>, hash: &PasswordHash| {
        out.extend_from_slice(format!("{}:{}", user.as_str(), hash.as_str()).as_bytes());
        out.extend_from_slice(end);
    };
    let mut new = match edit {
        Edit::Add(_) if is_there => return Err(EditError::Exists(user.clone())),
        Edit::Change(_) | Edit::Remove if !is_there => {
            return Err(EditError::Missing(user.clone()));
        }
        Edit::Add(hash) | Edit::Change(hash) => Some(hash),
        Edit::Remove => None,
    };
    if before.starts_with(BOM) {
        after.extend_from_slice(BOM);
    }
    for line in lines(before) {
        if !is_theirs(line) {
            after.extend_from_slice(line);
        } else if let Some(hash) = new.take() {
            write(&mut after, hash);
        }
        // A second line of the same user was skipped so far, and must not take effect now.
    }
    if let Some(hash) = new {
        if !after.is_empty() && !after.ends_with(b"\n") && after != BOM {
            after.extend_from_slice(end);
        }
        write(&mut after, hash);
    }
    Ok(after)
}

/// Lines with their ends, without a byte order mark.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    bytes.split_inclusive(|byte| *byte == b'\n')
}

fn content(line: &[u8]) -> &[u8] {
    line.trim_ascii_end()
}

fn is_comment(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    line.is_empty() || line.starts_with(b"#")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$O5EH4ljNFKZ/INmDTO5lGg$zYqv0s5Cvo/mQvWPeXeT+hT4KJlQ99QSrp5U249Rz2c";

    fn parse(text: &str) -> (Vec<String>, Vec<usize>) {
        let (users, skipped) = Users::parse(text.as_bytes(), &mut OsRandom::new());
        let names = users
            .names()
            .iter()
            .map(|name| name.as_str().to_owned())
            .collect();
        (names, skipped.iter().map(|skipped| skipped.line).collect())
    }

    fn hash() -> PasswordHash {
        PasswordHash::parse(HASH).unwrap()
    }

    #[test]
    fn the_example_is_read_as_it_lies_there() {
        let text = include_str!("../../credentials.example");
        assert_eq!(
            parse(text),
            (vec!["ana".to_owned(), "bob".to_owned()], vec![])
        );
    }

    #[test]
    fn bad_lines_are_skipped_and_named_by_their_number() {
        let dear = HASH.replace("m=8", "m=262145");
        let long = "x".repeat(65);
        let text = format!(
            "\u{feff}# users\r\n\r\nana:{HASH}\r\nno colon\r\nbob:{HASH} \r\nANA:{HASH}\r\n:{HASH}\r\nbob :{HASH}\r\n\
             eve:secret\r\nmax:{dear}\r\na\u{202e}b:{HASH}\r\n{long}:{HASH}\r\n  # a comment\r\nzoe:{HASH}"
        );
        let (names, skipped) = parse(&text);
        assert_eq!(names, ["ana", "bob", "zoe"]);
        assert_eq!(skipped, [4, 6, 7, 8, 9, 10, 11, 12]);
        let (users, skipped) = Users::parse(b"ana:\xff\xfe\n", &mut OsRandom::new());
        assert!(users.is_empty());
        assert_eq!(skipped[0].reason, "not UTF-8 text");
    }

    #[test]
    fn a_name_that_is_nobodys_costs_as_much_as_somebodys() {
        let dear = HASH.replace("m=8", "m=64");
        let text = format!("ana:{HASH}\nbob:{dear}\n");
        let (users, _) = Users::parse(text.as_bytes(), &mut OsRandom::new());
        let cost = |name: &str| {
            let name: UserName = name.parse().unwrap();
            let text = users.measure(&name).unwrap().as_str().to_owned();
            text.split('$').nth(3).unwrap().to_owned()
        };
        assert_eq!(
            (cost("ana").as_str(), cost("BOB").as_str()),
            ("m=8,t=1,p=1", "m=64,t=1,p=1")
        );
        let costs: Vec<_> = (0..64)
            .map(|number| cost(&format!("nobody{number}")))
            .collect();
        assert!(
            costs.contains(&cost("ana")) && costs.contains(&cost("bob")),
            "like a user's"
        );
        assert_eq!(cost("nobody7"), costs[7], "the same each time");
        assert!(users.find(&"nobody7".parse().unwrap()).is_none());
    }

    #[test]
    fn a_change_leaves_everything_else_as_it_was() {
        let (ana, other) = (
            "ana".parse().unwrap(),
            PasswordHash::new(
                &crate::wire::password::Password::parse("x").unwrap(),
                &mut OsRandom::new(),
            ),
        );
        let before = format!("\u{feff}# first\r\nbob:{HASH}\r\n\r\nAna:broken\r\n# last");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let changed = text(edited(before.as_bytes(), &ana, Edit::Change(&other)).unwrap());
        assert_eq!(
            changed,
            before.replace("Ana:broken", &format!("ana:{}", other.as_str()))
        );
        let removed = text(edited(before.as_bytes(), &ana, Edit::Remove).unwrap());
        assert_eq!(removed, before.replace("Ana:broken\r\n", ""));
        let zoe = "zoe".parse().unwrap();
        let added = text(edited(before.as_bytes(), &zoe, Edit::Add(&hash())).unwrap());
        assert_eq!(added, format!("{before}\r\nzoe:{HASH}\r\n"));
        let twice = format!("ana:{HASH}\nANA:{HASH}\n");
        assert_eq!(
            text(edited(twice.as_bytes(), &ana, Edit::Remove).unwrap()),
            "",
            "both"
        );
        for (user, edit) in [
            (&ana, Edit::Add(&hash())),
            (&zoe, Edit::Change(&hash())),
            (&zoe, Edit::Remove),
        ] {
            assert!(
                edited(before.as_bytes(), user, edit).is_err(),
                "{user} {edit:?}"
            );
        }
    }

    #[test]
    fn the_file_must_be_there_private_and_not_empty() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        assert!(matches!(read(&path), Err(CredentialsError::Missing(_))));
        for (text, is_broken) in [("", false), ("# nobody\n\n", false), ("bad\n", true)] {
            write_private(&path, text.as_bytes()).unwrap();
            let is_right = match read(&path) {
                Err(CredentialsError::Empty(_)) => !is_broken,
                Err(CredentialsError::Broken(_)) => is_broken,
                _ => false,
            };
            assert!(is_right, "{text:?}");
        }
        edit(&path, &"ana".parse().unwrap(), Edit::Add(&hash())).unwrap();
        assert_eq!(read(&path).unwrap().0.len(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            read(&path),
            Err(CredentialsError::File(PrivateFileError::Exposed(_)))
        ));
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..10 {
                        let user = format!("user{thread}-{number}").parse().unwrap();
                        edit(path, &user, Edit::Add(&hash())).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&path).unwrap().0.len(), 40);
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "the file and its lock");
    }
}
