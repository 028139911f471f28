//! What every part is measured with.

use std::cell::OnceCell;
use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::growth::Step;
use super::peers::{PEERS, Peer};
use crate::context::Ctx;
use crate::daemon::Daemon;
use crate::object::OBJECT_VARIABLE;
use crate::stop::Stop;
use crate::{build, object, programs};

/// Names a daemon that is measured as it is, instead of one that is built.
const DAEMON: &str = "KILLWATCH_BIN";
/// Names a victim that is there, where nothing can be built.
const VICTIM: &str = "KILLWATCH_VICTIM";

/// The daemon, the victim, and how thorough to be.
pub(super) struct Bed<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) stop: Stop,
    pub(super) daemon: PathBuf,
    pub(super) object: PathBuf,
    pub(super) victim: PathBuf,
    pub(super) quick: bool,
    /// Names of the only peers that are wanted; none are all.
    only_peers: Vec<String>,
    /// Beside more and more cgroups; two parts look at it.
    pub(super) ladder: OnceCell<Vec<Step>>,
}

impl<'a> Bed<'a> {
    /// Builds what is needed.
    pub(super) fn make(ctx: &'a Ctx, quick: bool, only_peers: Vec<String>) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "only root can load BPF programs and make cgroups: run it as root"
        );
        let (daemon, object) = match (given(DAEMON)?, given(OBJECT_VARIABLE)?) {
            (Some(daemon), Some(object)) => (daemon, object),
            (Some(daemon), None) => (daemon, object::build(ctx)?),
            (None, _) => {
                let built = build::daemon(ctx)?;
                (built.daemon, built.object)
            }
        };
        let victim = match given(VICTIM)? {
            Some(victim) => victim,
            None => programs::victim(ctx, &object)?,
        };
        Ok(Self {
            ctx,
            stop: Stop::install()?,
            daemon,
            object,
            victim,
            quick,
            only_peers,
            ladder: OnceCell::new(),
        })
    }

    /// The peers that are wanted.
    pub(super) fn peers(&self) -> impl Iterator<Item = &'static Peer> {
        let wanted = |peer: &&Peer| {
            self.only_peers.is_empty() || self.only_peers.iter().any(|name| name == peer.name)
        };
        PEERS.iter().filter(wanted)
    }

    /// One number for a bench that is quoted, one for a trial.
    pub(super) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A daemon with these flags that is ready. It writes no line for each death unless told to: most parts ask it otherwise.
    pub(super) fn start<S: AsRef<OsStr>>(&self, flags: &[S]) -> Result<Daemon> {
        let mut all: Vec<&OsStr> = flags.iter().map(AsRef::as_ref).collect();
        for (flag, value) in [("--log-sink", "none"), ("--log.level", "warn")] {
            if !all.contains(&OsStr::new(flag)) {
                all.extend([OsStr::new(flag), OsStr::new(value)]);
            }
        }
        Daemon::start(&self.daemon, &all, &self.stop)
    }
}

/// The file that a variable names, if it is set.
fn given(variable: &str) -> Result<Option<PathBuf>> {
    let Some(file) = env::var_os(variable).map(PathBuf::from) else { return Ok(None) };
    ensure!(file.is_file(), "{variable} is {}, which is no file", file.display());
    Ok(Some(file))
}
