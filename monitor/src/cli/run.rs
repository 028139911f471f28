//! `killwatch run`: the daemon in the foreground.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use super::{EX_USAGE, complain};
use crate::api::guard::Rules;
use crate::config::{Config, Flags};
use crate::notify::config::MAX_SINKS;
use crate::ops::{LogConfig, LogFormat, LogLevel};
use crate::privileges::Opener;

/// How long a write to a stuck output may hold up the end of the process, after the drain.
const ABANDON: Duration = Duration::from_millis(500);

/// Lines of the log that may wait for a slow standard error. Further ones are dropped and counted: a log that nobody reads must not
/// hold up the deaths.
const LOG_LINES: usize = 4096;

/// Threads for what may block: one for each sink that writes to a file, however stuck that is, and 16 for all else.
const BLOCKING: usize = 16 + MAX_SINKS + 1;

/// How long one that has nothing to do stays: longer than from one look of the audit to the next, or each would begin with a new thread.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

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
    if let Some(Err(error)) = config.web.config_file.as_deref().map(Rules::read) {
        complain(&format!("web.config_file: {error}"));
        return Ok(ExitCode::from(EX_USAGE));
    }
    // Before there is any other thread.
    let opener = Opener::split(&config.protect)?;
    let (writer, log) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_LINES)
        .thread_name("killwatch-log")
        .finish(std::io::stderr());
    let log_lost = writer.error_counter();
    log_to_stderr(config.log, writer)?;
    // Two threads: what the API is asked must not stand in the way of the ring.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let result = runtime.block_on(crate::app::run(config, log_lost, opener));
    runtime.shutdown_timeout(ABANDON);
    // Writes what waits, for a moment at most.
    drop(log);
    result.map(|()| ExitCode::SUCCESS)
}

/// Sends the daemon's own log to standard error; standard output belongs to the deaths.
fn log_to_stderr(log: LogConfig, writer: NonBlocking) -> anyhow::Result<()> {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // The loader tells of each relocation, HTTP of each frame; that is for who debugs these.
    let quiet = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let targets = ["aya", "aya_obj", "h2", "hyper", "hyper_util", "kube_client", "rustls", "tower"]
        .into_iter()
        .fold(Targets::new().with_default(level), |targets, name| targets.with_target(name, quiet));
    let layer = fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry();
    match log.format {
        LogFormat::Text => registry
            .with(layer.with_ansi(std::io::stderr().is_terminal()).with_filter(targets))
            .try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_filter(targets)).try_init()
        }
    }
    .map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))
}
