//! `killwatch why <PID|ID>`: asks the daemon for a death and tells its story.

use std::process::ExitCode;

use anyhow::Context as _;
use serde::Deserialize;
use uuid::Uuid;

use super::client::{Api, Unanswered};
use super::{EX_UNAVAILABLE, complain, print};
use crate::death::Death;

/// Deaths of one pid that are asked for: a pid is reused, the newest is told and the others are mentioned.
const SAME_PID: usize = 10;

/// Arguments of `killwatch why`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Process id of the victim, or the id of a record
    #[arg(value_name = "PID|ID")]
    what: What,

    /// Where the daemon answers: http://HOST:PORT, or unix:PATH for its socket
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:9435",
        env = "KILLWATCH_API"
    )]
    api: Api,

    /// Form of the answer
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// Forms of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A page for a person
    Text,
    /// The record, one line
    Json,
}

/// Which death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Pid(u32),
    Id(Uuid),
}

impl std::str::FromStr for What {
    type Err = crate::config::Refused;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pid = text.parse().ok().filter(|pid| *pid > 0 && !text.starts_with('+')).map(Self::Pid);
        pid.or_else(|| text.parse().ok().map(Self::Id)).ok_or_else(|| {
            crate::config::Refused::new(
                "must be a process id such as 4242, or the `id` of a record, a UUID",
            )
        })
    }
}

/// The answer of `/api/v1/deaths`.
#[derive(Debug, Deserialize)]
struct Page {
    deaths: Vec<Death>,
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let path = match args.what {
        What::Pid(pid) => format!("/api/v1/deaths?pid={pid}&limit={SAME_PID}"),
        What::Id(id) => format!("/api/v1/deaths/{id}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = match runtime.block_on(args.api.get(&path)) {
        Ok(body) => body,
        Err(no @ Unanswered::Refused { .. }) => {
            complain(&format!("{}: {no}", args.api));
            return Ok(ExitCode::from(EX_UNAVAILABLE));
        }
        Err(error) => {
            complain(&format!(
                "{} does not answer: {error}; is `killwatch run` at work there? See --api; `killwatch deaths` reads what an ended daemon has kept",
                args.api
            ));
            return Ok(ExitCode::from(EX_UNAVAILABLE));
        }
    };
    let deaths = match (body, args.what) {
        (None, _) => Vec::new(),
        (Some(body), What::Id(_)) => vec![serde_json::from_slice(&body).context(FOREIGN)?],
        (Some(body), What::Pid(_)) => {
            serde_json::from_slice::<Page>(&body).context(FOREIGN)?.deaths
        }
    };
    tell(&deaths, args)
}

/// Most likely the daemon is of another version.
const FOREIGN: &str = "the answer is not one that this killwatch knows";

fn tell(deaths: &[Death], args: &Args) -> anyhow::Result<ExitCode> {
    let Some((newest, older)) = deaths.split_first() else {
        complain(
            "nothing is known of that; it ended normally, before the daemon was started, or too long ago",
        );
        return Ok(ExitCode::FAILURE);
    };
    match args.output {
        Output::Json => print(&(serde_json::to_string(newest)? + "\n"))?,
        Output::Text => {
            let mut text = super::story::story(newest);
            if !older.is_empty() {
                text.push_str("\nEarlier deaths with this pid:\n");
                older
                    .iter()
                    .for_each(|death| text.push_str(&format!("  {}  {}\n", death.id, death.time)));
            }
            print(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
