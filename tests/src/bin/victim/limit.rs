//! Running into limits of one's own.

use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigHandler, Signal};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::gate::Gate;

/// Limits to run into.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Act {
    /// Use up the CPU time that is allowed
    CpuLimit {
        /// Seconds until SIGXCPU
        soft: u64,
        /// Seconds until SIGKILL
        hard: u64,
        /// Ignore SIGXCPU
        #[arg(long)]
        ignore: bool,
    },
    /// Write more into a file than is allowed
    FileLimit {
        /// Size that is allowed, in bytes
        bytes: u64,
    },
}

pub(crate) fn act(act: &Act, gate: &Gate) -> Result<ExitCode> {
    gate.pass()?;
    match *act {
        Act::CpuLimit { soft, hard, ignore } => {
            if ignore {
                // SAFETY: to ignore a signal runs no code of ours in a handler.
                unsafe { nix::sys::signal::signal(Signal::SIGXCPU, SigHandler::SigIgn) }
                    .context("ignore SIGXCPU")?;
            }
            setrlimit(Resource::Cpu, Rlimit { current: Some(soft), maximum: Some(hard) })
                .context("limit the CPU time")?;
            let mut turns = 0_u64;
            loop {
                turns = black_box(turns.wrapping_add(1));
            }
        }
        Act::FileLimit { bytes } => {
            setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: Some(bytes) })
                .context("limit the size of files")?;
            let mut file = tempfile::tempfile().context("make a file")?;
            let chunk = vec![0x5a; usize::try_from(bytes)?];
            // The second one begins at the limit.
            file.write_all(&chunk).and_then(|()| file.write_all(&chunk)).context("write")?;
            bail!("still alive")
        }
    }
}
