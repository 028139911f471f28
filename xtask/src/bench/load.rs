//! The loads: what the victim binary of the end-to-end tests does many times over, pinned to one core.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::process::Owned;
use crate::stop::Stop;

/// How long one round may take.
const LIMIT: Duration = Duration::from_secs(120);

/// One thing, many times.
pub(crate) struct Load {
    /// What it is, for the table.
    pub(crate) name: &'static str,
    /// Arguments of the victim binary.
    arguments: &'static [&'static str],
    /// Whether the target for normal exits holds here.
    pub(crate) targets_exit: bool,
}

/// All of them. 17 is SIGCHLD, 23 is SIGURG: the two that busy machines send most; 10 is SIGUSR1, which ends whoever has no handler.
pub(crate) const LOADS: &[Load] = &[
    Load { name: "20,000 normal exits", arguments: &["exits", "20000"], targets_exit: true },
    Load {
        name: "2,000 kills by another process",
        arguments: &["aborts", "2000"],
        targets_exit: false,
    },
    Load {
        name: "20,000 ignored SIGCHLD",
        arguments: &["signals", "20000", "17"],
        targets_exit: false,
    },
    Load {
        name: "20,000 ignored SIGURG",
        arguments: &["signals", "20000", "23"],
        targets_exit: false,
    },
    Load {
        name: "20,000 ignored SIGUSR1",
        arguments: &["signals", "20000", "10"],
        targets_exit: false,
    },
];

impl Load {
    /// One round.
    pub(crate) fn run(&self, victim: &Path, stop: &Stop) -> Result<()> {
        let mut command = Command::new(victim);
        command.args(self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot run {}", victim.display()))?;
        let mut process = Owned { child, grace: Duration::ZERO };
        let status = stop.until(self.name, LIMIT, || {
            process.child.try_wait().context("cannot watch the load")
        })?;
        if !status.success() {
            bail!("{}: the load ended with {status}", self.name);
        }
        Ok(())
    }
}

/// Keeps this process, and what it starts from now on, on the last core that it may use.
pub(crate) fn pin() -> Result<()> {
    let allowed = sched_getaffinity(None).context("cannot ask for the allowed cores")?;
    let last = (0..CpuSet::MAX_CPU)
        .rev()
        .find(|core| allowed.is_set(*core))
        .context("no core is allowed")?;
    let mut one = CpuSet::new();
    one.set(last);
    sched_setaffinity(None, &one).context("cannot pin to one core")
}
