//! Longer help on one subject.

use super::exit::Failure;
use crate::nearest::nearest;

const TOPICS: [(&str, &str); 4] = [
    ("exit-codes", EXIT_CODES),
    ("environment", ENVIRONMENT),
    ("json", JSON),
    ("security", SECURITY),
];

const EXIT_CODES: &str = "\
  0  done (an empty list is done)
  1  failed otherwise
  2  wrong usage or configuration; input needed, but not to be had
  3  wrong passphrase or key, or the tracker does not take the login
  4  network: tracker or peers not reachable, timed out, port not to be had
  5  no such file, user or match
  6  refused by the other side
  7  integrity: what came does not fit its hash
  8  local file: permission, disk full
  9  some of several items failed
 10  another p2pfs holds the state directory
101  a bug
130  interrupted by Ctrl-C before the work was done; 143 by SIGTERM
Codes that are not listed are failures.";

const ENVIRONMENT: &str = "\
P2PFS_PASSPHRASE_FILE  file with the passphrase in its first line
P2PFS_PASSPHRASE       the passphrase itself; others of your account can see it
P2PFS_CONFIG           configuration file
P2PFS_STATE_DIR        where identity and keys are kept
P2PFS_NETWORK          name that separates groups
P2PFS_TRACKER          the tracker: HOST or HOST:PORT
P2PFS_NAME             your name for the others
P2PFS_PORT             port to listen on
P2PFS_BIND             address to listen on
P2PFS_OUT              where downloads go
P2PFS_NO_INPUT         never ask
P2PFS_LOG              what the log tells: warn, info, p2pfs=debug
NO_COLOR               no colours
A variable that is empty counts as unset.
A flag wins over the environment, that over the files: --config, the user's, /etc/p2pfs/config.toml.";

const JSON: &str = "\
With --json each line of standard output is one object; \"v\" is the version of its form, \"type\" says
what it is: tracker, joined, file, peer, holder, id, transfer, limits, progress, rating, result, error.
Sizes are bytes.
What fails ends with one object of type \"error\" with class, code, message and hint.";

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
        for class in [
            Class::Failed,
            Class::Usage,
            Class::Login,
            Class::Network,
            Class::NotFound,
            Class::Refused,
            Class::Integrity,
            Class::Local,
            Class::Partly,
            Class::Held,
            Class::Interrupted,
            Class::Terminated,
        ] {
            let code = class.code().to_string();
            assert!(EXIT_CODES.contains(&code), "{class:?}");
        }
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
