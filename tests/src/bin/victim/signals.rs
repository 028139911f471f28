//! Sending signals to others, and holding them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::json;

use crate::crowd::fork;
use crate::gate::{self, Gate};

/// What is done to another process.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Act {
    /// Send a signal
    Send {
        /// Process
        pid: i32,
        /// Number of the signal
        signal: i32,
        /// System call
        #[arg(long, value_enum, default_value_t = How::Kill)]
        how: How,
        /// Thread, for tgkill; the first one if not said
        #[arg(long)]
        tid: Option<i32>,
    },
    /// Send SIGTERM, wait, send SIGKILL: what a runtime does to stop something
    Stop {
        /// Process
        pid: i32,
        /// Milliseconds between the two
        #[arg(long, value_parser = clap::value_parser!(u64).range(..=60_000))]
        grace: u64,
        /// Have each signal sent by a child of its own
        #[arg(long)]
        by_children: bool,
    },
    /// Trace a process, and let go of it by exiting after the gate
    Trace {
        /// Process
        pid: i32,
        /// Hold it when it is about to exit; else kill it when the tracer exits
        #[arg(long)]
        hold_at_exit: bool,
    },
}

/// How a signal is sent.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum How {
    Kill,
    Tgkill,
    Sigqueue,
}

pub(crate) fn act(act: &Act, gate: &Gate) -> Result<ExitCode> {
    match *act {
        Act::Send { pid, signal, how, tid } => {
            gate.pass()?;
            send(pid, tid.unwrap_or(pid), signal, how)?;
        }
        Act::Stop { pid, grace, by_children } => {
            gate.pass()?;
            let send = |signal| {
                if !by_children {
                    return send(pid, pid, signal, How::Kill);
                }
                let child = fork(|| {
                    // It may be gone: then nobody dies of it, which the scenario notices.
                    let _ = send(pid, pid, signal, How::Kill);
                })?;
                gate::say(&json!({ format!("sent{signal}"): child.as_raw() }))?;
                waitpid(child, None).context("wait for the child")?;
                Ok(())
            };
            send(libc::SIGTERM)?;
            let began = Instant::now();
            wait_out(Duration::from_millis(grace));
            let waited = began.elapsed();
            send(libc::SIGKILL)?;
            gate::say(&json!({ "grace": waited.as_secs_f64() }))?;
        }
        Act::Trace { pid, hold_at_exit } => {
            let options =
                if hold_at_exit { Options::PTRACE_O_TRACEEXIT } else { Options::PTRACE_O_EXITKILL };
            ptrace::seize(Pid::from_raw(pid), options).context("trace the process")?;
            gate.pass()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn send(pid: i32, tid: i32, signal: i32, how: How) -> Result<()> {
    if pid <= 0 {
        bail!("a pid above 0 is one process");
    }
    // SAFETY: the arguments are numbers. nix knows no realtime signals.
    let done = unsafe {
        match how {
            How::Kill => libc::kill(pid, signal),
            How::Tgkill => i32::try_from(libc::syscall(libc::SYS_tgkill, pid, tid, signal))?,
            How::Sigqueue => {
                libc::sigqueue(pid, signal, libc::sigval { sival_ptr: std::ptr::null_mut() })
            }
        }
    };
    nix::errno::Errno::result(done).map(drop).context("send the signal")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the grace is what is being acted, not a wait for a state"
)]
fn wait_out(grace: Duration) {
    std::thread::sleep(grace);
}
