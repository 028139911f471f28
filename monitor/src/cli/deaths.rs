//! `killwatch deaths`: lists the deaths that are kept, and follows those to come.
//!
//! The daemon is asked. If none answers on this host, its ledger's file is read, so that what a host that was lost had seen can still be told.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::client::{Server, Unanswered};
use super::look::columns;
use super::{EX_UNAVAILABLE, complain};
use crate::audit::state::StatePath;
use crate::config::{Count, Refused};
use crate::death::Cause;
use crate::ledger::{Filter, LedgerConfig, LedgerPath};
use crate::moment;

#[cfg(feature = "top")]
mod feed;
mod file;
mod follow;
mod page;
mod printer;
mod question;
mod record;
pub(crate) mod row;

#[cfg(test)]
mod tests;

#[cfg(feature = "top")]
pub(super) use feed::Feed;
use page::Place;
use printer::{Out, Printer};
use question::Question;
pub(super) use question::encoded;
use record::Record;

/// Arguments of `killwatch deaths`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Not before: a time such as 2026-01-31T12:00:00Z, or how long ago: 90s, 2h, 3d
    #[arg(long, value_name = "WHEN")]
    since: Option<Moment>,

    /// Before: a time, or how long ago
    #[arg(long, value_name = "WHEN", conflicts_with = "follow")]
    until: Option<Moment>,

    /// Of this job
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    job: Option<String>,

    /// Of this pod: namespace/name, or its uid
    #[arg(long, value_name = "POD")]
    pod: Option<Pod>,

    /// Of this container: its id, with or without containerd://, the first 12 digits of it, or its name
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    container: Option<String>,

    /// Of this cause; may be given more than once
    #[arg(
        long = "cause",
        value_name = "CAUSE",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(Cause::ALL.iter().map(|cause| cause.as_str()))
            .try_map(|name| Cause::named(&name).ok_or("must be a cause"))
    )]
    causes: Vec<Cause>,

    /// At most so many, the newest
    #[arg(short = 'n', long, value_name = "N", default_value = "100")]
    limit: Count<1, 100, 1_000_000>,

    /// Go on with those to come, until interrupted
    #[arg(short, long)]
    follow: bool,

    /// Form of the list
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    output: Output,

    #[command(flatten)]
    server: Server,

    /// Read the ledger's file, and do not ask the daemon
    #[arg(long, conflicts_with = "follow")]
    offline: bool,

    /// The ledger's file, which is read if no daemon answers on this host
    #[arg(long = "ledger.path", value_name = "PATH", env = "KILLWATCH_LEDGER_PATH")]
    ledger: Option<LedgerPath>,

    /// The daemon's directory for what outlives it, in which that file is unless said otherwise [default: /var/lib/killwatch]
    #[arg(long = "state.path", value_name = "PATH", env = "KILLWATCH_STATE_PATH")]
    state: Option<StatePath>,
}

/// Forms of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A line for each, cut to the terminal
    Table,
    /// A longer line for each, not cut
    Wide,
    /// The records as they are kept, one a line
    Json,
}

/// A time, or how long before the start of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(Timestamp);

impl std::str::FromStr for Moment {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        moment::parse(text, Timestamp::now()).map(Self).ok_or_else(|| Refused::new(moment::ALLOWED))
    }
}

/// A pod: `namespace/name`, or its uid.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod(String);

impl std::str::FromStr for Pod {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let parts: Vec<_> = text.split('/').collect();
        if parts.len() <= 2 && parts.iter().all(|part| !part.is_empty()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new("must be namespace/name, or the uid of a pod"))
    }
}

/// Where deaths come from.
#[derive(Debug)]
enum Source {
    /// From the daemon, with the place to go on from.
    Daemon(Place),
    /// From the ledger's file.
    File,
}

/// What was found, oldest first.
struct Found {
    records: Vec<Record>,
    source: Source,
}

impl Args {
    fn question(&self) -> Question {
        Question {
            filter: Filter {
                since: self.since.map(|moment| moment.0),
                until: self.until.map(|moment| moment.0),
                causes: self.causes.clone(),
                job: self.job.clone(),
                pod: self.pod.clone().map(|pod| pod.0),
                container: self.container.clone(),
                ..Filter::default()
            },
            limit: self.limit.get(),
        }
    }

    /// The ledger's file, if there is to be one: where the daemon has it by the same flags.
    fn file(&self) -> Option<PathBuf> {
        let path = self.ledger.clone().unwrap_or_default();
        let state = self.state.clone().unwrap_or_default();
        LedgerConfig { path, ..LedgerConfig::default() }.file(&state)
    }

    /// Whether it was said which file.
    fn names_file(&self) -> bool {
        self.state.is_some() || self.ledger.as_ref().is_some_and(|path| *path != LedgerPath::Auto)
    }
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let question = args.question();
        let Some(found) = find(args, &question).await? else {
            return Ok(ExitCode::from(EX_UNAVAILABLE));
        };
        if found.records.is_empty() && !args.follow {
            complain("no death is kept that is meant");
        } else if found.records.len() == question.limit {
            complain(&format!(
                "these are the newest {}; there may be older ones: --limit, --until",
                question.limit
            ));
        }
        let zone = TimeZone::system();
        let mut printer = Printer::new(args.output, columns(), zone, Out::stdout());
        if !printer.print(&found.records)? {
            return Ok(ExitCode::SUCCESS);
        }
        if let (true, Source::Daemon(place)) = (args.follow, found.source) {
            let shown = found.records.iter().filter_map(Record::id);
            let follower = follow::Follower::new(question, place, shown, Timestamp::now());
            follow::run(&args.server.api, follower, &mut printer).await?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What the daemon or else the file has. `None` if there is neither, which has been said then.
async fn find(args: &Args, question: &Question) -> anyhow::Result<Option<Found>> {
    if args.offline {
        return Ok(from_file(args, question, "as told, no daemon was asked"));
    }
    match page::newest(&args.server.api, question).await {
        Ok((records, place)) => Ok(Some(Found { records, source: Source::Daemon(place) })),
        Err(Unanswered::Silence(error)) => {
            let silent = format!("{} does not answer: {error:#}", args.server.api);
            // Another host's deaths are not in this host's file, and a file does not go on.
            if args.follow || !(args.server.api.is_local() || args.names_file()) {
                complain(&format!("{silent}; is `killwatch run` at work there? See --api"));
                return Ok(None);
            }
            Ok(from_file(args, question, &silent))
        }
        Err(no @ Unanswered::Refused { .. }) => anyhow::bail!("{}: {no}", args.server.api),
        Err(refused) => {
            anyhow::bail!("{}: {refused}; is that daemon of another version?", args.server.api)
        }
    }
}

/// What the ledger's file has; `why` it is read goes before what is said of it.
fn from_file(args: &Args, question: &Question, why: &str) -> Option<Found> {
    let Some(path) = args.file() else {
        complain(&format!("{why}; and no file of a ledger is known: see --ledger.path"));
        return None;
    };
    match file::newest(&path, question) {
        Ok(records) => {
            complain(&format!("{why}; this is what {} holds", path.display()));
            Some(Found { records, source: Source::File })
        }
        Err(error) => {
            complain(&format!("{why}; and {error}"));
            None
        }
    }
}
