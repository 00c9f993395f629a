//! Arguments, logging, role, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use p2pfs::cli::args::Cli;
use p2pfs::cli::exit::{Class, Failure};
use p2pfs::cli::screen::{Screen, Style};
use p2pfs::cli::{logs, modes, setup, topics};

fn main() -> ExitCode {
    setup::keep_private();
    modes::keep();
    let cli = match Cli::read(arguments()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let style = if cli.global.json {
        Style::Json
    } else {
        Style::Text
    };
    let quiet = cli.global.quiet;
    let screen = Screen::new(style, quiet > 0);
    let done = logs::start(&cli.global, &screen).and_then(|()| run(cli, &screen));
    modes::restore();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Interrupted, or nobody reads any more: whoever caused it knows.
        Err(failure) if failure.message.is_empty() && screen.has_failed() => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                screen.failure(&failure);
            }
            ExitCode::from(failure.class.code())
        }
    }
}

fn run(cli: Cli, screen: &Screen) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Class::Failed, format!("cannot start: {error}")))?;
    let done = runtime.block_on(p2pfs::cli::run(cli, screen));
    // A thread that still waits for a line of input must not keep the program.
    runtime.shutdown_background();
    done
}

/// `p2pfs help json` is a topic, `p2pfs help search` a command.
fn arguments() -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if let [_, help, topic] = arguments.as_mut_slice()
        && help == "help"
        && topic.to_str().is_some_and(topics::is_topic)
    {
        *help = "topic".into();
    }
    arguments
}

/// Help and version go to stdout; a mistake is one line, exit code 2.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let written = error.print().and_then(|()| io::stdout().flush());
            match written {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    let message = format!("cannot write to standard output: {error}");
                    let failure = Failure::new(Class::Local, message);
                    Screen::new(Style::Text, false).failure(&failure);
                    ExitCode::from(failure.class.code())
                }
                _ => ExitCode::SUCCESS,
            }
        }
        _ => {
            let failure = Failure::usage(p2pfs::cli::command::explain(error))
                .hint("p2pfs --help lists everything");
            // What could not be parsed may still have said how it wants to be answered.
            let is_json = std::env::args_os().any(|argument| argument == "--json");
            let style = if is_json { Style::Json } else { Style::Text };
            Screen::new(style, false).failure(&failure);
            ExitCode::from(failure.class.code())
        }
    }
}
