//! What a scenario plays on, and when it cannot.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::cgroup::{Hierarchy, Tree};
use crate::corpus::skipped;
use crate::daemon::{self, Daemon};
use crate::matrix;
use crate::record::Expected;
use crate::truth::Truth;
use crate::victim::Casting;

/// A daemon and cgroups for one scenario.
#[derive(Debug)]
pub struct Stage {
    /// Watches. Other scenarios may use it too.
    pub daemon: Arc<Daemon>,
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

    /// The daemon, to be stopped or restarted.
    ///
    /// # Errors
    /// When it is shared: the scenario's table lacks `own_daemon`.
    pub fn own(&mut self) -> Result<&mut Daemon> {
        Arc::get_mut(&mut self.daemon).context("this scenario has no daemon of its own")
    }

    /// Waits for the record of a process's death and holds it to what is expected; hands it on.
    ///
    /// # Errors
    /// When there is none in time, or several, or one that differs.
    pub fn holds(&self, truth: &Truth, expected: &Expected) -> Result<Value> {
        let record = self.daemon.death_of(truth).inspect_err(|_| {
            if let Some(caused) = expected.cause() {
                matrix::note(caused, matrix::NO_RECORD);
            }
        })?;
        expected.compare(&record)?;
        Ok(record)
    }
}

/// The daemon that scenarios share: to start one takes seconds in an emulated machine.
static SHARED: Mutex<Option<Arc<Daemon>>> = Mutex::new(None);

/// Sets the stage with the shared daemon and plays. A failure comes with the end of the daemon's log.
///
/// # Errors
/// Those of the scenario; that the stage cannot be set.
pub(crate) fn with_shared(
    victim: Option<&str>,
    play: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<()> {
    on_stage(victim, play, |victim| {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match &*shared {
            Some(daemon) => Arc::clone(daemon),
            None => Arc::clone(shared.insert(Arc::new(kept(victim)?))),
        })
    })
}

/// Like [`with_shared`], with a daemon that nobody else uses.
///
/// # Errors
/// As there.
pub(crate) fn with_own(
    victim: Option<&str>,
    play: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<()> {
    on_stage(victim, play, |_| Ok(Arc::new(Daemon::start()?)))
}

fn on_stage(
    victim: Option<&str>,
    play: impl FnOnce(&mut Stage) -> Result<()>,
    daemon: impl FnOnce(&Path) -> Result<Arc<Daemon>>,
) -> Result<()> {
    if let Some(obstacle) = obstacle() {
        return Err(skipped(obstacle));
    }
    let victim = victim_program(victim)?;
    let mut stage = Stage { daemon: daemon(&victim)?, tree: Tree::new()?, victim };
    match play(&mut stage) {
        Err(error) if !error.is::<crate::corpus::Unplayed>() => {
            let log = stage.daemon.log()?;
            Err(anyhow!("{error:#}\nthe daemon's log:\n{log}"))
        }
        played => played,
    }
}

/// A daemon that ends with this process, however that ends.
fn kept(victim: &Path) -> Result<Daemon> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let victim = victim.to_owned();
    // The kernel sends the parent-death signal when the thread that forked ends: this one never does.
    std::thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || {
            // Nobody receives if this process is at its end.
            let _ = send.send(Daemon::start_tied(&victim));
            loop {
                std::thread::park();
            }
        })
        .context("start a thread")?;
    receive.recv().context("the keeper of the daemon is gone")?
}

/// Stops the shared daemon, if there is one.
///
/// # Errors
/// When it does not end well.
pub(crate) fn end_shared() -> Result<()> {
    let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut shared) = shared else { return Ok(()) };
    let status = Arc::get_mut(&mut shared).context("somebody still uses it")?.stop()?;
    if !status.success() {
        bail!("{status}; its log:\n{}", shared.log()?);
    }
    Ok(())
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
