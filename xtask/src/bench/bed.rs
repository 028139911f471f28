//! What every part is measured with.

use std::cell::OnceCell;
use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::growth::Step;
use crate::context::Ctx;
use crate::daemon::Daemon;
use crate::stop::Stop;
use crate::{build, object, programs};

/// Names a daemon that is measured as it is, instead of one that is built.
const DAEMON: &str = "KILLWATCH_BIN";

/// The daemon, the victim, and how thorough to be.
pub(super) struct Bed<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) stop: Stop,
    pub(super) daemon: PathBuf,
    pub(super) object: PathBuf,
    pub(super) victim: PathBuf,
    pub(super) quick: bool,
    /// Beside more and more cgroups; two parts look at it.
    pub(super) ladder: OnceCell<Vec<Step>>,
}

impl<'a> Bed<'a> {
    /// Builds what is needed.
    pub(super) fn make(ctx: &'a Ctx, quick: bool) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "only root can load BPF programs and make cgroups: run it as root"
        );
        let (daemon, object) = match env::var_os(DAEMON).map(PathBuf::from) {
            Some(given) => {
                ensure!(given.is_file(), "{DAEMON} is {}, which is no file", given.display());
                (given, object::build(ctx)?)
            }
            None => {
                let built = build::daemon(ctx)?;
                (built.daemon, built.object)
            }
        };
        let victim = programs::victim(ctx, &object)?;
        Ok(Self {
            ctx,
            stop: Stop::install()?,
            daemon,
            object,
            victim,
            quick,
            ladder: OnceCell::new(),
        })
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
