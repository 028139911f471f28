//! `killwatch doctor`: what this host supports.

use std::process::ExitCode;

/// Arguments of `killwatch doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn main(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
