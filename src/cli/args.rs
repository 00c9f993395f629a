//! Flags and subcommands.
//!
//! No flag, and no environment variable that clap knows, holds a secret: clap prints their values in
//! `--help`. A test walks the whole tree for that.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, Resettable};
use clap::{ArgAction, Args, Parser, Subcommand};

use super::options::{AddArgs, DownloadOptions, ListOptions, SearchOptions, parse_time};
use super::settings::ConfigAction;
use crate::config::{ACCEPT, Span};
use crate::logging::Format;
use crate::wire::id::Fingerprint;

/// Private file sharing for a group: one passphrase, one tracker, any number of peers.
#[derive(Debug, Parser)]
#[command(
    name = "p2pfs",
    version,
    max_term_width = 100,
    subcommand_precedence_over_arg = true
)]
#[command(after_help = "\
The passphrase is asked for, or read from --passphrase-file FILE, $P2PFS_PASSPHRASE_FILE or
$P2PFS_PASSPHRASE; never from an argument. More: p2pfs help exit-codes, environment, json, security.")]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do; without it p2pfs asks.
    #[command(subcommand)]
    pub action: Option<Action>,
}

impl Cli {
    /// Reads the command line, program first, and the environment.
    ///
    /// # Errors
    /// When they are not understood, or ask for help.
    pub fn read(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let command = without_empty_variables(super::usage::grammar());
        let matches = command.try_get_matches_from(arguments)?;
        <Self as clap::FromArgMatches>::from_arg_matches(&matches)
    }
}

/// What the environment alone says of these options.
///
/// # Errors
/// When a value is not understood.
pub fn from_environment<T: Args>() -> Result<T, clap::Error> {
    let command = without_empty_variables(T::augment_args(clap::Command::new("p2pfs")));
    T::from_arg_matches(&command.try_get_matches_from(["p2pfs"])?)
}

/// A variable that is set to nothing counts as unset: scripts and units clear them so.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| {
            if is_empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(without_empty_variables)
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// File with the passphrase in its first line; - reads a line of standard input
    #[arg(long, value_name = "FILE", global = true)]
    pub passphrase_file: Option<PathBuf>,
    /// Configuration file
    #[arg(
        short = 'C',
        long,
        value_name = "FILE",
        global = true,
        env = "P2PFS_CONFIG"
    )]
    pub config: Option<PathBuf>,
    /// Where keys, and what is shared, are kept
    #[arg(long, value_name = "DIR", global = true, env = "P2PFS_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Name that separates groups, not a secret [default: p2pfs]
    #[arg(long, value_name = "NAME", global = true, env = "P2PFS_NETWORK")]
    pub network: Option<String>,
    /// One JSON object a line on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Never ask; fail instead
    #[arg(long, global = true, env = "P2PFS_NO_INPUT", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_input: bool,
    /// Tell less; twice: errors only
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub quiet: u8,
    /// Tell more; twice: even more
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Add the log to this file instead of standard error
    #[arg(long, value_name = "FILE", global = true)]
    pub log_file: Option<PathBuf>,
    /// Form of its events [default: text]
    #[arg(long, value_name = "FORM", value_enum, global = true)]
    pub log_format: Option<Format>,
}

/// What p2pfs can do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run the tracker, which knows who is here and who has what
    Tracker(TrackerArgs),
    /// Run a peer with its prompt
    Peer(PeerArgs),
    /// Share files and folders, by the peer here or until Ctrl-C
    #[command(visible_aliases = ["add", "pub"])]
    Share(ShareArgs),
    /// Stop sharing files and folders of the peer that runs here
    #[command(visible_aliases = ["remove", "rm", "unp"])]
    Unshare(UnshareArgs),
    /// Download files and folders, and end
    #[command(visible_alias = "download")]
    Get(GetArgs),
    /// Open a locked file that was downloaded
    Unlock(UnlockArgs),
    /// Find shared files whose name contains a text
    #[command(visible_alias = "sch")]
    Search(SearchArgs),
    /// What one person shares: yourself, USER, or everybody with --all
    #[command(visible_aliases = ["ls", "lpf"])]
    List(ListArgs),
    /// What everybody shares
    #[command(visible_alias = "all_files")]
    Files(FilesArgs),
    /// Who has the file searched last, or everybody who is here
    Peers(PeersArgs),
    /// Everybody who is here
    Lap(OnceArgs),
    /// Size, hashes and holders of a file or folder
    Info(InfoArgs),
    /// Send files and folders to one person, who is asked
    Send(SendArgs),
    /// Downloads of the peer that runs here
    #[command(visible_aliases = ["downloads", "tr"])]
    Transfers(TransfersArgs),
    /// Pause downloads of the peer that runs here: those of these numbers, or all
    Pause(OrderArgs),
    /// Go on with paused downloads of the peer that runs here
    #[command(visible_alias = "continue")]
    Resume(OrderArgs),
    /// End downloads of the peer that runs here, and remove what came of them
    Cancel(CancelArgs),
    /// How fast transfers of the peer that runs here may be
    Limit(LimitArgs),
    /// Ask somebody to talk with you
    Connect(ConnectArgs),
    /// End the talk with somebody, or all talks of the peer that runs here
    Disconnect(SomebodyArgs),
    /// Say something to somebody, or to everybody with whom the peer here talks
    Msg(MsgArgs),
    /// Say yes to who asks the peer that runs here: the first, or USER
    Accept(SomebodyArgs),
    /// Say no to who asks the peer that runs here: the first, or USER
    Deny(SomebodyArgs),
    /// Who is here, how they stand, and with whom the peer here talks
    Who(OnceArgs),
    /// Your name and key print
    Id,
    /// Trust the key that somebody has, also a new one; alone: whom you know
    Trust(TrustArgs),
    /// Trust somebody's key no longer
    Untrust(PersonArgs),
    /// Let a key reach you under no name any more
    Block(PersonArgs),
    /// Lift a block
    Unblock(PersonArgs),
    /// Key prints, and words to compare by voice: is it really this person?
    Verify(VerifyArgs),
    /// Address of the web interface of the peer that runs here, with its token
    Web(WebArgs),
    /// What runs with this state directory: tracker, peer, or both
    Status,
    /// Look at keys, ports, tracker, clock and disk, and say what to do
    Doctor(JoinArgs),
    /// Show and change settings
    #[command(subcommand)]
    Config(ConfigAction),
    /// Make a strong passphrase, or rate one
    Passphrase(PassphraseArgs),
    /// Keep the users of a tracker and their passwords
    #[command(subcommand)]
    User(UserAction),
    /// A tracker and two peers on this machine: share, search, download, compare
    Demo(DemoArgs),
    /// Print the completions of a shell, for its configuration
    Completions(super::shipping::CompletionsArgs),
    /// Write the manual pages
    Man(super::shipping::ManArgs),
    /// Help on exit-codes, environment, json or security
    #[command(hide = true)]
    Topic {
        /// Which
        topic: String,
    },
}

/// `p2pfs tracker`
#[derive(Clone, Debug, Default, Args)]
pub struct TrackerArgs {
    /// Port to listen on, TCP and UDP [default: 9000]
    #[arg(short, long, env = "P2PFS_PORT")]
    pub port: Option<u16>,
    /// Address to listen on [default: all]
    #[arg(long, value_name = "ADDR", env = "P2PFS_BIND")]
    pub bind: Option<String>,
    /// Threads that answer datagrams; 0: one for each core, up to 16 [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Time between heartbeats; longer by itself when peers are very many [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub heartbeat: Option<Span>,
    /// Silence after which a peer counts as gone [default: 3s]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// Most peers at the same time [default: 10000]
    #[arg(long, value_name = "N")]
    pub max_peers: Option<usize>,
    /// Numbers for Prometheus, at http://ADDR/metrics: PORT of loopback, or ADDRESS:PORT
    #[arg(long, value_name = "ADDR", env = "P2PFS_METRICS")]
    pub metrics: Option<String>,
    /// Do not show the tracker to the local network
    #[arg(long)]
    pub no_beacon: bool,
    /// Accept a passphrase that can be guessed
    #[arg(long)]
    pub allow_weak_passphrase: bool,
    /// File of users: logins need a password [default: none]
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// Show the line that others type as a QR code, too; the passphrase is not in it
    #[arg(long)]
    pub qr: bool,
}

/// How to join, for everything that needs a tracker.
#[derive(Clone, Debug, Default, Args)]
pub struct JoinArgs {
    /// The tracker: HOST, HOST:PORT, auto (one on the local network) or none (no tracker at all)
    #[arg(short, long, value_name = "HOST[:PORT]", env = "P2PFS_TRACKER", value_parser = NonEmptyStringValueParser::new())]
    pub tracker: Option<String>,
    /// The key print that the tracker must have
    #[arg(long, value_name = "PRINT")]
    pub tracker_key: Option<Fingerprint>,
    /// Your name for the others [default: login name]
    #[arg(short, long, env = "P2PFS_NAME")]
    pub name: Option<String>,
    /// User to log in as, at a tracker with passwords [default: your name]
    #[arg(long, value_name = "USER")]
    pub login: Option<String>,
    /// File with that user's password in its first line; - reads a line of standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Port to listen on: N, A-B, or 0 for any [default: 8001-8100]
    #[arg(short, long, value_name = "PORT", env = "P2PFS_PORT")]
    pub port: Option<String>,
    /// Address to listen on [default: all]
    #[arg(long, value_name = "ADDR", env = "P2PFS_BIND")]
    pub bind: Option<String>,
    /// Where downloads go [default: here]
    #[arg(short, long, value_name = "DIR", env = "P2PFS_OUT")]
    pub out: Option<PathBuf>,
    /// Share on what was downloaded; the default
    #[arg(long, overrides_with = "no_seed")]
    pub seed: bool,
    /// Do not share on what was downloaded
    #[arg(long)]
    pub no_seed: bool,
    /// Most bytes a second that leave, in all uploads together: 500K, 5MB, 5MiB
    #[arg(long, value_name = "RATE")]
    pub up_limit: Option<String>,
    /// Most bytes a second that come, in all downloads together; off for no limit
    #[arg(long, value_name = "RATE")]
    pub down_limit: Option<String>,
}

/// `p2pfs peer`
#[derive(Clone, Debug, Default, Args)]
pub struct PeerArgs {
    /// How to join
    #[command(flatten)]
    pub join: JoinArgs,
    /// Share these files and folders at once; then it stays until Ctrl-C, even where nobody can type
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub share: Vec<PathBuf>,
    /// Download these at once
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub get: Vec<String>,
    /// Leave when --share and --get are done
    #[arg(long)]
    pub exit: bool,
    /// Run this command and leave; may be given again
    #[arg(short, long, value_name = "CMD")]
    pub command: Vec<String>,
    /// No prompt: share until a signal comes
    #[arg(long)]
    pub no_prompt: bool,
    /// Who may talk to you and offer you files: ask, trusted, all or none [default: ask]
    #[arg(long, value_name = "WHO", value_parser = ACCEPT)]
    pub accept: Option<String>,
    /// HTTP interface on this machine, at PORT or ADDRESS:PORT of loopback [default: 127.0.0.1:7070]
    #[arg(
        long,
        value_name = "ADDR",
        env = "P2PFS_WEB",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "127.0.0.1:7070"
    )]
    pub web: Option<String>,
}

/// `p2pfs web`
#[derive(Clone, Copy, Debug, Args)]
pub struct WebArgs {
    /// Make another token: what has the old one is let in no more
    #[arg(long)]
    pub reset_token: bool,
}

/// How a command gets its peer.
#[derive(Clone, Debug, Default, Args)]
pub struct OnceArgs {
    /// Join as a peer of its own, with an identity for once, also where a peer runs that could be asked
    #[arg(long)]
    pub standalone: bool,
    /// How to join, where no peer runs
    #[command(flatten)]
    pub join: JoinArgs,
}

/// `p2pfs share`
#[derive(Clone, Debug, Args)]
pub struct ShareArgs {
    /// What
    #[command(flatten)]
    pub what: AddArgs,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs unshare`
#[derive(Clone, Debug, Args)]
pub struct UnshareArgs {
    /// Names, ids or paths
    #[arg(required = true, value_name = "NAME")]
    pub items: Vec<String>,
}

/// `p2pfs get`
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// What, and from whom
    #[command(flatten)]
    pub what: DownloadOptions,
    /// Write the one file to standard output, once all of it is checked; nothing of it stays
    #[arg(long)]
    pub stdout: bool,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs unlock`
#[derive(Clone, Debug, Args)]
pub struct UnlockArgs {
    /// The file; what is in it comes to lie beside it
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// File with its password in its first line; - reads a line of standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// `p2pfs search`
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// What
    #[command(flatten)]
    pub what: SearchOptions,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs list`
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Whose files
    pub user: Option<String>,
    /// Everybody's files
    #[arg(short, long)]
    pub all: bool,
    /// How
    #[command(flatten)]
    pub options: ListOptions,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs files`
#[derive(Clone, Debug, Args)]
pub struct FilesArgs {
    /// How
    #[command(flatten)]
    pub options: ListOptions,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs peers`
#[derive(Clone, Debug, Args)]
pub struct PeersArgs {
    /// Everybody, as without it when nothing was searched
    #[arg(short, long)]
    pub all: bool,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs info`
#[derive(Clone, Debug, Args)]
pub struct InfoArgs {
    /// Name, name#1a2b, or content id
    #[arg(value_name = "NAME|ID")]
    pub item: String,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs send`
#[derive(Clone, Debug, Args)]
pub struct SendArgs {
    /// To whom
    #[arg(value_name = "USER")]
    pub user: String,
    /// Files and folders
    #[arg(required = true, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// How long to wait for an answer, ten minutes at most
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "10m")]
    pub wait: Duration,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs transfers`
#[derive(Clone, Copy, Debug, Args)]
pub struct TransfersArgs {
    /// Look again every second, until nothing is being downloaded
    #[arg(short, long)]
    pub watch: bool,
}

/// `p2pfs pause`, `p2pfs resume`
#[derive(Clone, Debug, Args)]
pub struct OrderArgs {
    /// Numbers, as transfers shows them [default: all]
    #[arg(value_name = "NO")]
    pub ids: Vec<String>,
}

/// `p2pfs cancel`
#[derive(Clone, Debug, Args)]
pub struct CancelArgs {
    /// Numbers, as transfers shows them
    #[arg(required = true, value_name = "NO")]
    pub ids: Vec<String>,
}

/// `p2pfs limit`
#[derive(Clone, Debug, Args)]
pub struct LimitArgs {
    /// up or down, and bytes a second: 500K, 5MB, 5MiB; off for no limit; nothing tells what holds
    #[arg(num_args = 0..=2, value_name = "[up|down] RATE")]
    pub words: Vec<String>,
}

/// `p2pfs connect`
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// Whom
    pub user: String,
    /// How long to wait for the answer [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub wait: Option<Duration>,
}

/// `p2pfs disconnect`, `p2pfs accept`, `p2pfs deny`
#[derive(Clone, Debug, Args)]
pub struct SomebodyArgs {
    /// Whom
    pub user: Option<String>,
}

/// `p2pfs msg`
#[derive(Clone, Debug, Args)]
pub struct MsgArgs {
    /// To whom, unless it is for all; and what
    #[arg(required = true, value_name = "USER|TEXT")]
    pub words: Vec<String>,
    /// To everybody with whom the peer that runs here talks
    #[arg(long)]
    pub all: bool,
    /// How long to wait for somebody who has to agree first [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub wait: Option<Duration>,
    /// With which peer
    #[command(flatten)]
    pub once: OnceArgs,
}

/// `p2pfs trust`
#[derive(Clone, Debug, Args)]
pub struct TrustArgs {
    /// Whom
    pub user: Option<String>,
    /// The key print that is meant
    #[arg(value_name = "PRINT")]
    pub print: Option<String>,
    /// How to join, where no peer runs
    #[command(flatten)]
    pub join: JoinArgs,
}

/// `p2pfs untrust`, `p2pfs block`, `p2pfs unblock`
#[derive(Clone, Debug, Args)]
pub struct PersonArgs {
    /// Name or key print
    #[arg(value_name = "USER|PRINT")]
    pub who: String,
    /// How to join, where no peer runs
    #[command(flatten)]
    pub join: JoinArgs,
}

/// `p2pfs verify`
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Whom
    pub user: String,
    /// How to join, where no peer runs
    #[command(flatten)]
    pub join: JoinArgs,
}

/// `p2pfs passphrase`
#[derive(Clone, Debug, Args)]
pub struct PassphraseArgs {
    /// How many words
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(4..=24))]
    pub words: u8,
    /// Rate a passphrase instead
    #[command(subcommand)]
    pub check: Option<PassphraseAction>,
}

/// `p2pfs passphrase …`
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum PassphraseAction {
    /// Rate a passphrase that is typed or read from --passphrase-file
    Check,
}

/// `p2pfs user …`
#[derive(Clone, Debug, Subcommand)]
pub enum UserAction {
    /// Add a user
    Add(UserTarget),
    /// Give a user another password; a login with the old one ends
    Passwd(UserTarget),
    /// Remove a user; a login ends
    Remove(UserTarget),
    /// The names of all users
    List {
        /// File of users [default: the configuration's, or tracker/credentials in the state directory]
        #[arg(long, value_name = "FILE")]
        credentials: Option<PathBuf>,
    },
    /// Do user and password fit? Exit code 3 when not
    Verify(UserTarget),
}

/// Which user, in which file.
#[derive(Clone, Debug, Args)]
pub struct UserTarget {
    /// Name of the user
    pub name: String,
    /// File of users [default: the configuration's, or tracker/credentials in the state directory]
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// File with the password in its first line; - reads a line of standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// `p2pfs demo`
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// A file to share; without one the demo makes one of 64 MiB
    pub file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn walk(command: &clap::Command, visit: &mut impl FnMut(&clap::Command)) {
        visit(command);
        for sub in command.get_subcommands() {
            walk(sub, visit);
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_and_no_shown_variable_holds_a_secret() {
        let mut arguments = 0;
        walk(&Cli::command(), &mut |command| {
            for argument in command.get_arguments() {
                arguments += 1;
                let long = argument.get_long().unwrap_or_default();
                assert!(
                    !["passphrase", "password", "secret", "token"].contains(&long),
                    "--{long}"
                );
                let env = argument
                    .get_env()
                    .map(|env| env.to_string_lossy().to_uppercase())
                    .unwrap_or_default();
                let is_secret = ["PASS", "TOKEN", "SECRET", "KEY"]
                    .iter()
                    .any(|word| env.contains(word));
                assert!(!is_secret, "{env}");
            }
        });
        assert!(arguments > 40);
    }

    #[test]
    fn the_old_programs_commands_are_understood() {
        for line in [
            "p2pfs tracker --port 9000",
            "p2pfs peer --tracker host",
            "p2pfs peer --tracker 192.168.1.100 --tracker-key aaaa-aaaa-aaaa-aaaa --name hans",
            "p2pfs pub a.txt --tracker h",
            "p2pfs add a.txt b.txt",
            "p2pfs download a.txt",
            "p2pfs sch talk",
            "p2pfs lpf",
            "p2pfs ls hans",
            "p2pfs all_files",
            "p2pfs lap",
            "p2pfs unp a.txt",
            "p2pfs get a.txt --from ana --id -o d",
            "p2pfs get a.txt --stdout",
            "p2pfs pub a.txt --as b.txt --for 2h",
            "p2pfs add a.txt --for bob,ana --for eve --time 2h",
            "p2pfs sch talk --limit 5 --ext mp4,mkv --min-size 1MiB --sort size",
            "p2pfs ls --all --sort peers --long",
            "p2pfs send ana a.txt b --wait 60s",
            "p2pfs transfers --watch",
            "p2pfs pause",
            "p2pfs resume 1",
            "p2pfs cancel 1 2",
            "p2pfs limit up 5MiB",
            "p2pfs passphrase check",
            "p2pfs connect vader --wait 5s",
            "p2pfs disconnect",
            "p2pfs msg vader hi there",
            "p2pfs msg --all hi",
            "p2pfs accept",
            "p2pfs deny vader",
            "p2pfs who",
            "p2pfs id",
            "p2pfs trust",
            "p2pfs trust ana aaaa-aaaa-aaaa-aaaa",
            "p2pfs untrust ana",
            "p2pfs block aaaa-aaaa-aaaa-aaaa",
            "p2pfs unblock ana",
            "p2pfs verify ana",
            "p2pfs demo file",
            "p2pfs tracker --credentials f",
            "p2pfs peer --tracker h --login ana --password-file f",
            "p2pfs user add ana --credentials f",
            "p2pfs user passwd ana --password-file -",
            "p2pfs user remove ana",
            "p2pfs user list --credentials f",
            "p2pfs user verify ana",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
