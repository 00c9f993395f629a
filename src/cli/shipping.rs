//! `p2pfs completions` and `p2pfs man`: what a package brings along beside the program, made by the program.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::exit::{Class, Failure};
use super::screen::Screen;
use super::{topics, usage};
use crate::disk;
use crate::wire::text::safe;

/// Rights of a page: everybody reads manuals.
const PAGE_MODE: u32 = 0o666;

/// `p2pfs completions`
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// `p2pfs man`
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages; those that are there are replaced
    pub dir: PathBuf,
}

/// Prints the completions of a shell.
pub(super) fn completions(args: CompletionsArgs, screen: &Screen) -> Result<(), Failure> {
    let tree = usage::grammar();
    // What is hidden in help is no completion, either.
    let shown = tree.get_subcommands().filter(|sub| !sub.is_hide_set());
    let mut shown = clap::Command::new("p2pfs")
        .version(env!("CARGO_PKG_VERSION"))
        .args(tree.get_arguments())
        .subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown, "p2pfs", &mut script);
    screen.print(String::from_utf8_lossy(&script).trim_end())
}

/// Writes a page for each command.
pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    let mut tree = usage::unabridged(usage::grammar()).disable_help_subcommand(true);
    tree.build();
    pages(&tree, "", &args.dir)
}

fn pages(command: &clap::Command, path: &str, dir: &Path) -> Result<(), Failure> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let path = format!("{path} {}", sub.get_name());
        pages(sub, path.trim_start(), dir)?;
    }
    let man = Man::new(command.clone()).manual("p2pfs");
    let file = dir.join(man.get_filename());
    page(&man, command, path)
        .and_then(|text| disk::write_shown(&file, &text, PAGE_MODE))
        .map_err(|error| {
            let file = safe(&file.to_string_lossy());
            Failure::new(Class::Local, format!("cannot write {file}: {error}"))
        })
}

fn page(man: &Man, command: &clap::Command, path: &str) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if let Some(examples) = usage::examples(path) {
        verbatim("EXAMPLES", examples).to_writer(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    if path.is_empty() {
        for (title, topic) in [
            ("EXIT STATUS", "exit-codes"),
            ("ENVIRONMENT", "environment"),
            ("JSON", "json"),
            ("SECURITY", "security"),
        ] {
            let topic = topics::text(topic).map_err(std::io::Error::other)?;
            verbatim(title, topic).to_writer(&mut text)?;
        }
    }
    if command.get_version().is_some() {
        man.render_version_section(&mut text)?;
    }
    Ok(text)
}

/// A section whose lines stay as they are.
fn verbatim(title: &str, text: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [title]);
    section.control("nf", []);
    for line in text.lines() {
        section.text([roman(line)]);
    }
    section.control("fi", []);
    section
}
