//! Longer help on one subject.

use super::exit::Failure;
use crate::nearest::nearest;

const TOPICS: [(&str, &str); 4] = [
    ("exit-codes", EXIT_CODES),
    ("environment", ENVIRONMENT),
    ("json", JSON),
    ("security", SECURITY),
];

const EXIT_CODES: &str = "  0  done (an empty list is done)
  1  failed otherwise
  2  wrong usage or configuration; input needed, but not to be had
  3  wrong passphrase or key, or the tracker does not take the login
  4  network: tracker or peers not reachable, timed out, port not to be had
  5  no such file, user or match; status: nothing runs
  6  refused by the other side
  7  integrity: what came does not fit its hash; a locked file has another password, or was changed
  8  local file: permission, disk full
  9  some of several items failed
 10  another p2pfs holds the state directory
101  a bug
130  interrupted by Ctrl-C before the work was done; 143 by SIGTERM or SIGHUP
Codes that are not listed are failures.";

const ENVIRONMENT: &str = "\
P2PFS_PASSPHRASE_FILE  file with the passphrase in its first line
P2PFS_PASSPHRASE       the passphrase itself; others of your account can see it
P2PFS_PASSWORD_FILE    file with a user's password in its first line
P2PFS_CONFIG           configuration file
P2PFS_STATE_DIR        where identity and keys are kept
P2PFS_NETWORK          name that separates groups
P2PFS_TRACKER          the tracker: HOST, HOST:PORT, auto or none
P2PFS_NAME             your name for the others
P2PFS_PORT             port to listen on
P2PFS_BIND             address to listen on
P2PFS_OUT              where downloads go
P2PFS_METRICS          where the tracker's numbers can be read
P2PFS_WEB              where the HTTP interface of a peer is
P2PFS_NO_INPUT         never ask
P2PFS_LOG              what the log tells: warn, info, p2pfs=debug
NO_COLOR               no colours
CREDENTIALS_DIRECTORY  where systemd puts a file passphrase; NOTIFY_SOCKET: where it is told of start and end
A variable that is empty counts as unset.
A flag wins over the environment, that over the files: --config, the user's, /etc/p2pfs/config.toml.";

const JSON: &str = "With --json each line of standard output is one object. \"v\" is the version of its form, \"type\" says
what it is. Sizes are bytes, rates bytes a second; what is not known is null. Fields may be added.

tracker   what p2pfs tracker runs: port, key, join (the line for others), addresses, metrics (where)
joined    p2pfs peer is in: user, port, tracker, tracker_key
file      kind (file or folder), name, size (of a folder that of its listing), id (null while
          it is hashing), hashing (true or false), locked (true or false)
            found or listed: also peers (some names), holders (how many) and restricted (true when it
            is for chosen people only, you among them)
            shared here: also files (how many), total (bytes of all of them) and for (names; null for
            everybody, none when it came for you alone)
            by info: also peers, holders, sha256 (of a file that lies here), files and total (of what is
            shared here)
peer      who is here: user, files (how many), since_s, addresses, key
holder    who has what was searched: user, addresses, key, id
id        user, key, port, tracker, tracker_key
person    by trust, whom you know: user (null without a name in this group), standing (met, trusted or
            blocked), key
verification  what two people compare by voice: user, key, known_key (that of before, when it was another
            one), own_key, words
chat      what somebody said: user, key, to_all (others were told the same), text
question  what a person here is asked: user, key, kind (talk or offer), more (how many wait behind it),
            name, id, size, files (of an offer)
talk      one began or ended: user, key, state (open or closed), reason
delivery  what became of a message: user, key, state (delivered, too fast, not shown or unknown), wait_s
member    by who: user, key, standing (you, new, met, trusted, blocked or other key), via, talking, idle_s,
            unread (messages since you wrote), addresses
progress  of a download, of a folder first that of its listing: id, name, done, total, rate,
            peers (how many send), slow (true when those send little)
transfer  no, name, id, state (queued, running, waiting or paused), reason (of waiting), done, total,
            rate, peers (how many send)
sending   what is being sent to one person: no (s1), user, name, id (null while it is hashing), state
            (hashing, offered or accepted), done (bytes that are there), total
limits    up, down
web       the HTTP interface of a peer: address, url (by p2pfs web: with the token)
status    what runs: role (tracker or peer), pid, version, since, uptime_s, key, port
            of a tracker: addresses, network, metrics (where), peers, files, names, requests, requests_per_s,
            drops (by reason), wrong_passphrases
            of a peer: user, tracker, tracker_key (null without a tracker), neighbours (who is here then),
            joined, joined_since, shares, transfers, running (of them), up, down (bytes that moved)
result    all that get or download was asked for is here: command (get), ok (true), files, each with
            name, path, id, sha256 (of a file), size, files (how many), seconds, peers (how many sent);
            of pause, resume and cancel: no, name, id; of unshare: name, id; one for each
            of send: user, name, done (false when nothing more is heard of it), one for each;
            of trust, untrust, block, unblock, connect, disconnect, accept and deny: user, key;
            of unlock, or get of a locked file: path, size, sha256 of what was in it;
            of p2pfs user (command: user add): user; of doctor when nothing failed: checks, warnings
            (how many)
user      one of p2pfs user list: user
setting   key, value, origin (flag, environment, file or default), from (which one)
config    the file of p2pfs config: path, exists
check     one of p2pfs doctor: name, state (ok, warning or failed), message, hint (what to do)
rating    of a passphrase: score (0 to 4), guesses_log10, ok
error     class (usage, auth, network, file, refused, integrity, interrupted, other), code (the exit
            code), message, hint; what fails ends with it";

const SECURITY: &str = "\
The passphrase admits to the group; everything on the wire is sealed under keys that a stranger cannot
guess from what he records. It is never read from an argument and never written to disk. Compare the
tracker's key print (--tracker-key) when it matters who runs it. SECURITY.md tells all of it.";

/// The text of a topic.
///
/// # Errors
/// When there is none of that name.
pub fn text(topic: &str) -> Result<&'static str, Failure> {
    if let Some((_, text)) = TOPICS.iter().find(|(name, _)| *name == topic) {
        return Ok(text);
    }
    let names = TOPICS.map(|(name, _)| name);
    let failure = Failure::usage(format!("there is no topic \"{topic}\""));
    Err(match nearest(topic, names) {
        Some(name) => failure.hint(format!("did you mean \"{name}\"?")),
        None => failure.hint(format!("there are {}", names.join(", "))),
    })
}

/// The names of all topics.
pub fn names() -> impl Iterator<Item = &'static str> {
    TOPICS.iter().map(|(topic, _)| *topic)
}

/// Is this the name of a topic?
#[must_use]
pub fn is_topic(name: &str) -> bool {
    TOPICS.iter().any(|(topic, _)| *topic == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Class;

    #[test]
    fn every_exit_code_is_documented() {
        for class in Class::ALL {
            let code = class.code().to_string();
            assert!(EXIT_CODES.contains(&code), "{class:?}");
        }
    }

    /// The type of an object in the code, and the names of its fields.
    fn object_in(code: &str) -> (&str, Vec<&str>) {
        let body = code.split("})").next().unwrap_or_default();
        let kind = body.split('"').next().unwrap_or_default();
        let words: Vec<_> = body.split('"').collect();
        let is_field = |pair: &&[&str]| pair[1].trim_start().starts_with(':');
        let fields = words.windows(2).filter(is_field).map(|pair| pair[0]);
        (kind, fields.collect())
    }

    /// The words of what the topic says of a type.
    fn told_of(kind: &str) -> Vec<&'static str> {
        let mut lines = JSON
            .lines()
            .skip_while(|line| line.split(' ').next() != Some(kind));
        let first = lines.next().unwrap_or_default();
        let more = lines.take_while(|line| line.starts_with("   "));
        std::iter::once(first)
            .chain(more)
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .collect()
    }

    #[test]
    fn every_object_and_each_of_its_fields_is_documented() {
        let mut left = vec![std::path::PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/cli"
        ))];
        let mut kinds = 0;
        while let Some(path) = left.pop() {
            if path.is_dir() {
                let inside = std::fs::read_dir(path).unwrap();
                left.extend(inside.map(|entry| entry.unwrap().path()));
                continue;
            }
            let code = std::fs::read_to_string(path).unwrap();
            let code = code.split("#[cfg(test)]").next().unwrap_or_default();
            for object in code.split("\"v\": 1, \"type\": \"").skip(1) {
                let (kind, fields) = object_in(object);
                let told = told_of(kind);
                assert!(told.contains(&kind), "{kind}");
                for field in fields {
                    assert!(told.contains(&field), "{field} of {kind}");
                }
                kinds += 1;
            }
        }
        assert!(kinds >= 12, "{kinds}");
    }

    #[test]
    fn a_slip_in_a_topic_is_named() {
        assert!(text("json").is_ok());
        assert!(
            text("enviroment")
                .unwrap_err()
                .line()
                .contains("environment")
        );
        assert!(text("x").unwrap_err().line().contains("exit-codes"));
    }
}
