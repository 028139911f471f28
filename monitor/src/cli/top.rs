//! `killwatch top`: the cgroups that are nearest to their limit as they are, and deaths as they come.
//!
//! [`state`] is what is known and chosen, [`view`] draws it; both are pure. [`watch`] asks the daemon on a thread of its own, [`screen`] is the terminal.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use jiff::tz::TimeZone;

use super::client::{Api, Server};
use super::look::Look;
use super::table::Table;
use super::{EX_UNAVAILABLE, complain, print};
use crate::api::Cgroups;
use crate::config::Period;

mod rows;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use state::State;

/// Arguments of `killwatch top`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How often to look
    #[arg(short, long, value_name = "SPAN", default_value = "2s")]
    interval: Period<500, 2_000, 60_000>,

    #[command(flatten)]
    server: Server,
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() {
        return once(&args.server.api);
    }
    let news = watch::start(args.server.api.clone(), args.interval.get())?;
    let state = State::new(args.server.api.to_string(), Look::of_stdout(), TimeZone::system());
    screen::run(state, &news)?;
    Ok(ExitCode::SUCCESS)
}

/// One table, for a file or a pipe.
fn once(api: &Api) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(watch::cgroups(api)) {
        Ok(cgroups) => {
            print(&plain(&cgroups))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            complain(&format!("{api}: {why}"));
            Ok(ExitCode::from(EX_UNAVAILABLE))
        }
    }
}

/// The table, all of it.
fn plain(cgroups: &Cgroups) -> String {
    let rows: Vec<Vec<String>> = cgroups.cgroups.iter().map(rows::cells).collect();
    let text = Table::new(rows::NAMES, None).lines(&rows);
    if text.is_empty() { format!("{}\n", rows::summary(cgroups)) } else { text }
}
