//! `man`: manual pages and completions, from the command line itself.

use std::path::PathBuf;

use anyhow::Result;

use crate::context::Ctx;
use crate::process::{self, step};
use crate::{build, object};

/// Writes them; the directory, with `man/` and `completions/`.
pub(crate) fn write(ctx: &Ctx) -> Result<PathBuf> {
    let object = object::build(ctx)?;
    let directory = ctx.target.join("manual");
    step("manual pages and completions", || {
        // All of the workspace: so the features are those that the tests are built with, and nothing is built twice.
        process::run(build::cargo(ctx, &object).args([
            "build",
            "--locked",
            "--workspace",
            "--example",
            "manual",
        ]))?;
        process::run(
            std::process::Command::new(ctx.target.join("debug/examples/manual")).arg(&directory),
        )
    })?;
    Ok(directory)
}

/// `man`.
pub(crate) fn run(ctx: &Ctx) -> Result<()> {
    let directory = write(ctx)?;
    eprintln!("{}: man -l {0}/man/killwatch.1", directory.display());
    Ok(())
}
