//! `killwatch bundle`: what is known of a death and of its surroundings, in one file for a ticket.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::SignedDuration;

use super::client::{Api, Server};
use super::complain;
use super::deaths::encoded;
use super::subject::{self, Found, Subject, find};

mod files;
mod redact;
#[cfg(test)]
mod tests;

use files::{Asked, Facts, pack};

/// Deaths are told that far from the one that is meant.
const AROUND: SignedDuration = SignedDuration::from_mins(5);
/// At most so many of them, the newest.
const NEIGHBOURS: usize = 50;

/// Arguments of `killwatch bundle`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Process id of the victim, id of a record, container (id, first 12 digits of it, or name), namespace/pod, or job; pod:…, container:… and job:… leave no doubt
    #[arg(value_name = "PID|ID|CONTAINER|NAMESPACE/POD|JOB")]
    what: Subject,

    /// Where to write; - for standard output. What is there is not overwritten [default: killwatch-<ID>.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    server: Server,
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && std::io::stdout().is_terminal() {
        anyhow::bail!("--output -: a terminal is no place for an archive; pipe it, or name a file");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = match runtime.block_on(find(&args.server.api, &args.what)) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(subject::unknown(&args.what)),
        Err(error) => return subject::unanswered(&args.server.api, error),
    };
    let name = format!("killwatch-{}", found.death.id);
    let packed = runtime.block_on(bundle(&args.server.api, &found, &name))?;
    if to_stdout {
        let mut out = std::io::stdout().lock();
        out.write_all(&packed).and_then(|()| out.flush()).context("standard output")?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = args.output.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    write(&path, &packed)?;
    complain(&format!(
        "{} is written; what looks like a secret in command lines is left out: read before you send",
        path.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Asks for the rest, and packs it.
async fn bundle(api: &Api, found: &Found, name: &str) -> anyhow::Result<Vec<u8>> {
    let time = found.death.time;
    let since = time.saturating_sub(AROUND)?.to_string();
    let until = time.saturating_add(AROUND)?.to_string();
    let around = format!(
        "/api/v1/deaths?since={}&until={}&limit={NEIGHBOURS}",
        encoded(&since),
        encoded(&until)
    );
    let facts = Facts {
        record: serde_json::from_str(found.json.get())?,
        neighbours: ask(api, &around).await,
        host: ask(api, "/api/v1/status").await,
    };
    Ok(pack(name, time, &facts.files()?)?)
}

/// What the daemon answers; a bundle lacks what it does not.
async fn ask(api: &Api, path: &str) -> Asked {
    match api.get(path).await {
        Ok(Some(body)) => serde_json::from_slice(&body).map_err(|error| error.to_string()),
        Ok(None) => Err("the daemon knows nothing of it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A new file that only its owner may read. Half of one is none.
fn write(path: &Path, packed: &[u8]) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("{}", path.display()))?;
    file.write_all(packed).and_then(|()| file.sync_all()).inspect_err(|_| {
        // That it cannot be removed either is no other news.
        let _ = std::fs::remove_file(path);
    })?;
    Ok(())
}
