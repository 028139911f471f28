//! Writes the manual pages and the completions of shells into a directory: `cargo xtask man` runs it. An example, so that the daemon does not carry them.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::{Generator, Shell, generate_to};
use clap_mangen::Man;

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).context("name a directory")?;
    let command = killwatch::cli::command();
    let name = command.get_name().to_owned();
    completions(command.clone(), &name, &directory)?;
    // `help` has no page of its own.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    pages(command, &name, &directory.join("man"))
}

/// One for each shell that packages know a place for.
fn completions(mut command: Command, name: &str, directory: &Path) -> Result<()> {
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let directory = directory.join("completions");
        fs::create_dir_all(&directory)?;
        generate_to(shell, &mut command, name, &directory)
            .with_context(|| format!("write {}", shell.file_name(name)))?;
    }
    Ok(())
}

/// One for the command and one for each subcommand.
fn pages(command: Command, name: &str, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
    page(command, name, directory)?;
    for subcommand in subcommands {
        let name = format!("{name}-{}", subcommand.get_name());
        page(subcommand, &name, directory)?;
    }
    Ok(())
}

fn page(command: Command, name: &str, directory: &Path) -> Result<()> {
    // Its own name in the heading, not the subcommand's alone.
    let title = name.to_uppercase();
    let man = Man::new(command.display_name(name.to_owned())).title(title).manual("killwatch");
    let file = directory.join(format!("{name}.1"));
    let mut text = Vec::new();
    man.render(&mut text).with_context(|| format!("render {name}"))?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}
