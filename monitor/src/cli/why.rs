//! `killwatch why`: asks the daemon for a death and tells its story.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::client::Server;
use super::look::Look;
use super::subject::{self, Found, Subject, find};
use super::{print, story};
use crate::text::one_line;

/// Arguments of `killwatch why`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Process id of the victim, id of a record, container (id, first 12 digits of it, or name), namespace/pod, or job; pod:…, container:… and job:… leave no doubt
    #[arg(value_name = "PID|ID|CONTAINER|NAMESPACE/POD|JOB")]
    what: Subject,

    #[command(flatten)]
    server: Server,

    /// Form of the answer
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// Forms of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A page for a person; as wide as the terminal, in colour there unless NO_COLOR is set
    Text,
    /// The record, one line
    Json,
    /// A page for a ticket
    Markdown,
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(find(&args.server.api, &args.what)) {
        Ok(Some(found)) => {
            print(&told(&found, args.output, Look::of_stdout()))?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(None) => Ok(subject::unknown(&args.what)),
        Err(error) => subject::unanswered(&args.server.api, error),
    }
}

/// The newest death, and in text that there were others before it.
fn told(found: &Found, output: Output, look: Look) -> String {
    let Found { json, death, older, about } = found;
    match output {
        Output::Json => format!("{json}\n"),
        Output::Text => {
            let mut text = story::story(death, look);
            // Writing to a String cannot fail.
            if !older.is_empty() {
                let _ = writeln!(text, "\nEarlier deaths {about}:");
            }
            for death in older {
                let victim = one_line(&death.victim.comm);
                let (id, time, pid) = (death.id, death.time, death.victim.pid);
                let cause = death.cause.as_str();
                let line = format!("  {id}  {time}  {cause}  {victim} (pid {pid})\n");
                text.push_str(&look.spelled(line));
            }
            text
        }
        Output::Markdown => {
            let mut text = story::markdown(death);
            if !older.is_empty() {
                let _ = writeln!(text, "\n### Earlier deaths {about}\n");
            }
            for death in older {
                let victim = story::markdown_safe(&death.victim.comm);
                let (id, time, pid) = (death.id, death.time, death.victim.pid);
                let cause = death.cause.as_str();
                let _ = writeln!(text, "- {time} `{cause}` {victim} (pid {pid}), record `{id}`");
            }
            text
        }
    }
}

#[cfg(test)]
mod tests;
