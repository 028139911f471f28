//! `killwatch run`: the daemon in the foreground.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use super::{EX_USAGE, complain};
use crate::config::{Config, Flags};
use crate::ops::{LogConfig, LogFormat, LogLevel};

/// How long a write to a stuck output may hold up the end of the process, after the drain.
const ABANDON: Duration = Duration::from_millis(500);

/// Arguments of `killwatch run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let config = match Config::load(&args.flags) {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return Ok(ExitCode::from(EX_USAGE));
        }
    };
    log_to_stderr(config.log)?;
    // Two threads: what the API is asked must not stand in the way of the ring.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let result = runtime.block_on(crate::app::run(config));
    runtime.shutdown_timeout(ABANDON);
    result.map(|()| ExitCode::SUCCESS)
}

/// Sends the daemon's own log to standard error; standard output belongs to the deaths.
fn log_to_stderr(log: LogConfig) -> anyhow::Result<()> {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = fmt().with_max_level(level).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))
}
