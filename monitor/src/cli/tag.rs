//! `killwatch tag KEY=VALUE… -- COMMAND…`: says over the daemon's socket which job it is on, and becomes the command.
//!
//! It becomes it by exec(2), so that process id and start, which a tag belongs to, are the command's. Whether the daemon is there or not, the command
//! runs: a job does not fail for want of a monitor.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;
use tokio::net::UnixStream;

use super::complain;
use super::exchange::exchange;
use crate::config::{AbsolutePath, Refused};
use crate::text::one_line;

/// Longest that the command waits for the daemon.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a shell says if there is no such command, and if it cannot be run.
const NO_SUCH_COMMAND: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// Arguments of `killwatch tag`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The daemon's socket
    #[arg(
        long = "api.socket",
        value_name = "PATH",
        default_value = "/run/killwatch/killwatch.sock",
        env = "KILLWATCH_API_SOCKET"
    )]
    socket: AbsolutePath,

    /// What to say, such as job_id=4711
    #[arg(value_name = "KEY=VALUE", required = true)]
    tags: Vec<Tag>,

    /// The command to become
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<OsString>,
}

/// `KEY=VALUE`. What a key and a value may be, the daemon says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    key: String,
    value: String,
}

impl FromStr for Tag {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) =
            pair.ok_or_else(|| Refused::new("must be KEY=VALUE, such as job_id=4711"))?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    if let Err(error) = tell(args) {
        complain(&format!("{} is not tagged: {error:#}; it runs all the same", name(args)));
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return Ok(ExitCode::FAILURE);
    };
    // It returns only if it failed.
    let error = Command::new(program).args(arguments).exec();
    complain(&format!("{} cannot be run: {error}", name(args)));
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    Ok(ExitCode::from(if missing { NO_SUCH_COMMAND } else { CANNOT_RUN }))
}

fn name(args: &Args) -> String {
    args.command.first().map_or_else(String::new, |program| one_line(&program.to_string_lossy()))
}

fn tell(args: &Args) -> anyhow::Result<()> {
    let mut tags = BTreeMap::new();
    for Tag { key, value } in &args.tags {
        anyhow::ensure!(tags.insert(key, value).is_none(), "{} is given twice", one_line(key));
    }
    let body = serde_json::to_vec(&tags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let told = tokio::time::timeout(PATIENCE, put(&args.socket, body)).await;
        told.unwrap_or_else(|_| anyhow::bail!("no answer from {} within {PATIENCE:?}", args.socket))
    })
}

async fn put(socket: &Path, body: Vec<u8>) -> anyhow::Result<()> {
    let there = || format!("{} does not answer", socket.display());
    let stream = UnixStream::connect(socket).await.with_context(there)?;
    let request = Request::put("/v1/tags/self")
        .header("host", "killwatch")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let (status, answer) = exchange(stream, request).await.with_context(there)?;
    if status.is_success() {
        return Ok(());
    }
    let said = serde_json::from_slice::<Value>(&answer).ok();
    let why = said.as_ref().and_then(|said| said["error"].as_str()).map(one_line);
    anyhow::bail!("the daemon says {status}: {}", why.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_key_and_a_value() {
        let tag = |text: &str| text.parse::<Tag>().ok().map(|tag| (tag.key, tag.value));
        assert_eq!(tag("a=b=c"), Some(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(tag("a="), Some(("a".to_owned(), String::new())));
        assert_eq!((tag("=b"), tag("ab"), tag("")), (None, None, None));
    }
}
