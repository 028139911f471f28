//! What a scenario plays on, and when it cannot.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cgroup::{Hierarchy, Tree};
use crate::daemon::{self, Daemon};
use crate::victim::Casting;

/// A daemon and cgroups for one scenario.
#[derive(Debug)]
pub struct Stage {
    /// Watches.
    pub daemon: Daemon,
    /// Where victims live.
    pub tree: Tree,
    victim: PathBuf,
}

impl Stage {
    /// A victim to be told where to run and what to do.
    #[must_use]
    pub fn cast(&self) -> Casting {
        Casting::new(self.victim.clone())
    }

    /// Path of the victim's program, for a victim that runs another one.
    #[must_use]
    pub fn victim(&self) -> &Path {
        &self.victim
    }
}

/// Sets the stage, plays the scenario, and shows the daemon's log if it fails. `victim` is the binary that cargo built.
///
/// Where a scenario cannot run it says so aloud and passes; with `KILLWATCH_REQUIRE_E2E=1` it fails.
///
/// # Errors
/// Those of the scenario; that the stage cannot be set.
pub fn scenario(victim: Option<&str>, play: impl FnOnce(&mut Stage) -> Result<()>) -> Result<()> {
    if let Some(obstacle) = obstacle() {
        return skip(&obstacle);
    }
    let victim = victim_program(victim)?;
    let mut stage = Stage { daemon: Daemon::start()?, tree: Tree::new()?, victim };
    let played = play(&mut stage);
    if played.is_err() {
        eprintln!("the daemon's log:\n{}", stage.daemon.log()?);
    }
    played
}

/// Path of the victim's program: the environment's, else what cargo built.
///
/// # Errors
/// When there is neither.
pub fn victim_program(built: Option<&str>) -> Result<PathBuf> {
    std::env::var_os("KILLWATCH_VICTIM")
        .map(PathBuf::from)
        .or_else(|| built.map(PathBuf::from))
        .context("no victim: set KILLWATCH_VICTIM")
}

/// Says that a scenario does not run here.
///
/// # Errors
/// When it must (`KILLWATCH_REQUIRE_E2E=1`).
pub fn skip(why: &str) -> Result<()> {
    if std::env::var_os("KILLWATCH_REQUIRE_E2E").is_some_and(|value| value == "1") {
        bail!("KILLWATCH_REQUIRE_E2E is set, and {why}");
    }
    say_skipped(why)
}

/// Says it past the test runner, which keeps the words of what passes to itself and counts it as passed. `cargo xtask test` takes
/// each such line off what passed.
///
/// # Errors
/// When there is no standard output.
pub fn say_skipped(why: &str) -> Result<()> {
    let thread = std::thread::current();
    let line = format!("SKIPPED: {}: {why}\n", thread.name().unwrap_or("a scenario"));
    // In one piece: scenarios run side by side.
    std::io::stdout().write_all(line.as_bytes()).context("say that a scenario is skipped")
}

/// What stands in the way of any scenario on this host.
fn obstacle() -> Option<String> {
    if let Some(obstacle) = cgroup_obstacle() {
        return Some(obstacle);
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF: the probes cannot be loaded".to_owned());
    }
    let binary = daemon::binary();
    (!binary.exists()).then(|| {
        format!("there is no daemon at {}: build it, or set KILLWATCH_BIN", binary.display())
    })
}

/// What stands in the way of making cgroups on this host.
#[must_use]
pub fn cgroup_obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("this is not root: no cgroup can be made and no probe attached".to_owned());
    }
    Hierarchy::find().err().map(|error| format!("{error:#}"))
}
