//! The loads: what the victim binary of the end-to-end tests does many times over, and where it runs.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use super::bed::Bed;
use crate::process::Owned;

/// How long one load may take.
const LIMIT: Duration = Duration::from_secs(180);

/// What it said of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) count: u64,
    pub(super) seconds: f64,
}

impl Done {
    /// How many a second.
    pub(super) fn rate(self) -> f64 {
        self.count as f64 / self.seconds
    }
}

/// Starts the victim, its words on a pipe.
pub(super) fn start<S: AsRef<OsStr>>(victim: &Path, arguments: &[S]) -> Result<Owned> {
    let mut command = Command::new(victim);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.spawn().with_context(|| format!("cannot run {}", victim.display()))?;
    Ok(Owned { child, grace: Duration::ZERO })
}

/// Waits for the end of a load that says one line of `count` and `seconds`.
pub(super) fn finish(mut load: Owned, what: &str, bed: &Bed<'_>) -> Result<Done> {
    let status =
        bed.stop.until(what, LIMIT, || load.child.try_wait().context("cannot watch the load"))?;
    let mut said = String::new();
    if let Some(out) = load.child.stdout.as_mut() {
        out.read_to_string(&mut said).context("cannot read what the load says")?;
    }
    if !status.success() {
        bail!("{what}: the load ended with {status}");
    }
    let said: Value = serde_json::from_str(&said)
        .with_context(|| format!("{what}: the load said {said:?}, not one line of JSON"))?;
    let lacks = |key: &str| format!("{what}: the load did not say its {key}");
    let count = said["count"].as_u64().with_context(|| lacks("count"))?;
    let seconds = said["seconds"].as_f64().with_context(|| lacks("seconds"))?;
    Ok(Done { count, seconds })
}

/// A load from start to end.
pub(super) fn run<S: AsRef<OsStr>>(bed: &Bed<'_>, what: &str, arguments: &[S]) -> Result<Done> {
    finish(start(&bed.victim, arguments)?, what, bed)
}

/// This process, and what it starts from now on, is on one core while this lives.
pub(super) struct Pinned(CpuSet);

impl Pinned {
    /// On the last core that it may use.
    pub(super) fn to_last() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot ask for the allowed cores")?;
        let last = (0..CpuSet::MAX_CPU)
            .rev()
            .find(|core| allowed.is_set(*core))
            .context("no core is allowed")?;
        let mut one = CpuSet::new();
        one.set(last);
        sched_setaffinity(None, &one).context("cannot pin to one core")?;
        Ok(Self(allowed))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.0) {
            eprintln!("warning: cannot go back to all cores: {error}");
        }
    }
}

/// Processes that want all cores while this lives: twice as many as there are.
pub(super) struct Saturated(#[expect(dead_code, reason = "they end with it")] Vec<Owned>);

impl Saturated {
    /// From now on.
    pub(super) fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let one = || {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            let child = command.spawn().context("cannot run sh")?;
            Ok(Owned { child, grace: Duration::ZERO })
        };
        (0..2 * cores).map(|_| one()).collect::<Result<_>>().map(Self)
    }
}
