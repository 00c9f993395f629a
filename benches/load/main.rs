//! Up to a million simulated peers over real UDP sockets on loopback, against a real tracker process.
//!
//! ```text
//! cargo bench --bench load                                           the bound: tracker beside bare echoes
//! cargo bench --bench load -- --peers 1000000 --names 10 --memory    what a million peers take
//! cargo bench --bench load -- --mix heartbeat=90,search=5,locate=4,publish=1 --seconds 20
//! cargo bench --bench load -- --flood 50000 --seconds 60             members' answers while strangers shout
//! ```
//! A million handshakes over TCP would take an hour. Whoever holds the passphrase and the tracker's seed can
//! make tickets, as the tracker does; so the sessions begin with RESUME, as after a restart of the tracker.
//! That is no back door: the seed lies in the state directory, which here is ours.
//!
//! The tracker's processor time is read from `/proc/PID/stat`: what the load itself costs on the other core
//! does not count. The echoes answer datagrams of the same length with themselves, one at a time
//! (`recv_from`, `send_to`) or received in batches as the tracker receives them. All take turns in one run.
#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up shall stop"
)]
#![expect(clippy::print_stdout, reason = "its results")]

mod crowd;
mod target;

use std::time::Duration;

use clap::Parser;

use self::crowd::{Crowd, Kind, Mix, Outcome};
use self::target::{Echo, Target};

/// Simulates peers and measures a tracker.
#[derive(Parser)]
struct Args {
    /// Peers
    #[arg(long, default_value_t = 10_000)]
    peers: usize,
    /// Names that each of them publishes
    #[arg(long, default_value_t = 1)]
    names: u32,
    /// Kinds of requests with their shares, instead of the comparison
    #[arg(long)]
    mix: Option<Mix>,
    /// How long each measurement takes
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often the comparison takes turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests under way
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Workers of the tracker
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Datagrams of garbage a second beside a mix of searches
    #[arg(long)]
    flood: Option<u64>,
    /// Tell only what the tracker's memory is
    #[arg(long)]
    memory: bool,
    /// The tracker's binary; the one that was built with this
    #[arg(long, default_value = env!("CARGO_BIN_EXE_p2pfs"))]
    tracker: std::path::PathBuf,
    /// Be an echo
    #[arg(long, hide = true)]
    echo: Option<Echo>,
    /// What cargo calls a bench with
    #[arg(long, hide = true)]
    bench: bool,
    /// Only show that everything works, in a few seconds
    #[arg(long)]
    test: bool,
}

fn main() {
    let mut args = Args::parse();
    if args.test {
        (args.peers, args.rounds, args.seconds) = (200, 1, 0.2);
    }
    let args = args;
    if let Some(echo) = args.echo {
        echo.run();
    }
    let tracker = Target::tracker(&args.tracker, args.peers, args.workers);
    let empty = tracker.memory_kib();
    let mut crowd = Crowd::new(&tracker, args.peers, args.names);
    let took = crowd.gather();
    let gathered = tracker.memory_kib();
    println!(
        "{} peers came in {took:.1?}; {empty} KiB before, {gathered} KiB then",
        args.peers
    );
    let per_peer = gathered.saturating_sub(empty) * 1024 / args.peers as u64;
    println!("  {per_peer} bytes for each session");
    let took = crowd.publish();
    let full = tracker.memory_kib();
    let names = args.peers as u64 * u64::from(args.names);
    let per_name = full.saturating_sub(gathered) * 1024 / names.max(1);
    println!("{names} names in {took:.1?}; {full} KiB, {per_name} bytes for each name");
    if args.memory {
        return;
    }
    let seconds = Duration::from_secs_f64(args.seconds);
    if let Some(rate) = args.flood {
        flood(&tracker, &mut crowd, rate, seconds);
    } else if let Some(mix) = &args.mix {
        let outcome = crowd.ask(&tracker, mix, seconds, args.window);
        println!("{outcome}");
    } else {
        compare(&tracker, &mut crowd, seconds, &args);
    }
}

/// The bound: sealed requests beside echoes of datagrams of the same length.
fn compare(tracker: &Target, crowd: &mut Crowd, seconds: Duration, args: &Args) {
    let echoes = [Echo::Plain, Echo::Batched].map(Target::echo);
    let kinds = [Kind::Heartbeat, Kind::Locate];
    let mut turns: Vec<Vec<Outcome>> = Vec::new();
    for _ in 0..args.rounds {
        let mut turn = Vec::new();
        for echo in &echoes {
            turn.push(crowd.shout(echo, seconds, args.window));
        }
        for kind in kinds {
            turn.push(crowd.ask(tracker, &Mix::only(kind), seconds, args.window));
        }
        turns.push(turn);
    }
    let names = [
        "echo, one at a time",
        "echo, batches",
        "heartbeat",
        "locate",
    ];
    for (number, name) in names.iter().enumerate() {
        let median = median(turns.iter().map(|turn| turn[number].cpu_us()));
        let ratio =
            |turn: &Vec<Outcome>| turn[number].cpu_us() / turn[0].cpu_us().min(turn[1].cpu_us());
        let ratio = self::median(turns.iter().map(ratio));
        let last = &turns[turns.len() - 1][number];
        println!(
            "{name:20} {median:5.2} CPU s per million, {ratio:4.2} x the quicker echo; {last}"
        );
    }
}

/// Strangers send garbage, members search: not a byte of answer to those, and little waiting for these.
fn flood(tracker: &Target, crowd: &mut Crowd, rate: u64, seconds: Duration) {
    let before = tracker.memory_kib();
    let garbage = crowd::Garbage::start(tracker.address(), rate);
    let mix = "search=50,heartbeat=50".parse().unwrap();
    let outcome = crowd.ask(tracker, &mix, seconds, 8);
    let (sent, answered) = garbage.stop();
    let more = tracker.memory_kib().saturating_sub(before);
    println!("{sent} datagrams of garbage, {answered} answers to them, {more} KiB more memory");
    println!("{outcome}");
    assert_eq!(answered, 0, "strangers were answered");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
