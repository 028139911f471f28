//! Children by fork and clone, pid namespaces, and pids that come again.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use serde_json::json;

use crate::crowd::{fork, leave};
use crate::gate::{self, Gate};

const STACK: usize = 64 << 10;

/// Kinds of company. Each child says `{"child": PID}`, as the outermost namespace knows it.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Act {
    /// Fork children that wait, then do something beside them
    Fork {
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(..=256))]
        count: u16,
        /// Have each killed when this process goes
        #[arg(long)]
        tied: bool,
        /// What to do then, as for this program
        #[arg(last = true, required = true)]
        act: Vec<OsString>,
    },
    /// Make a child that shares this memory and waits, then do something beside it
    Share {
        /// The thread that made it waits for it, as vfork has it
        #[arg(long)]
        vfork: bool,
        /// What to do then, as for this program
        #[arg(last = true, required = true)]
        act: Vec<OsString>,
    },
    /// Do something as the first process of a pid namespace; this process waits for it and says how it ended
    Pidns {
        /// What to do there, as for this program
        #[arg(last = true, required = true)]
        act: Vec<OsString>,
    },
    /// Kill a child, and have another one with the same pid abort; each waits for a line
    PidAgain {
        /// Forks at most
        #[arg(default_value_t = 50_000)]
        most: u32,
    },
}

pub(crate) fn act(act: Act, gate: &Gate) -> Result<ExitCode> {
    match act {
        Act::Fork { count, tied, act } => {
            for _ in 0..count {
                fork(if tied { wait_tied } else { wait })?;
            }
            crate::act(crate::parse(act)?, gate)
        }
        Act::Share { vfork, act } => {
            if vfork {
                // The thread that makes the child is stopped by the kernel until that is gone.
                std::thread::Builder::new()
                    .name("stopped".to_owned())
                    .spawn(|| share(libc::CLONE_VM | libc::CLONE_VFORK))
                    .context("start a thread")?;
            } else {
                let child = share(libc::CLONE_VM)?;
                gate::say(&json!({ "child": child.as_raw() }))?;
            }
            crate::act(crate::parse(act)?, gate)
        }
        Act::Pidns { act } => pidns(act, gate),
        Act::PidAgain { most } => pid_again(gate, most),
    }
}

fn wait() {
    // Without a word out nobody would know of it: then it ends at once.
    if gate::own_pid().and_then(|pid| gate::say(&json!({ "child": pid }))).is_ok() {
        loop {
            nix::unistd::pause();
        }
    }
}

fn wait_tied() {
    if rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).is_ok()
    {
        wait();
    }
}

/// A child in this very memory, on a stack of its own.
fn share(flags: i32) -> Result<Pid> {
    extern "C" fn idle(_: *mut libc::c_void) -> libc::c_int {
        loop {
            nix::unistd::pause();
        }
    }
    // Never freed: the child is on it as long as this process lives. It grows downwards, from an end that is aligned.
    let stack = Box::leak(vec![0_u128; STACK / size_of::<u128>()].into_boxed_slice());
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the child runs on its own stack and does nothing but wait for a signal, so it neither touches this thread's
    // local storage nor any lock, and has no argument that could go.
    let pid = unsafe { libc::clone(idle, top, flags | libc::SIGCHLD, std::ptr::null_mut()) };
    nix::errno::Errno::result(pid)
        .map(Pid::from_raw)
        .context("make a child that shares this memory")
}

fn pidns(act: Vec<OsString>, gate: &Gate) -> Result<ExitCode> {
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).context("make a pid namespace")?;
    // SAFETY: this program has started no thread, so no lock can be held by a thread that the child lacks.
    let init = match unsafe { nix::unistd::fork() }.context("fork")? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => return crate::act(crate::parse(act)?, gate),
    };
    let (code, signal) = match waitpid(init, None).context("wait for the init")? {
        WaitStatus::Exited(_, code) => (Some(code), None),
        WaitStatus::Signaled(_, signal, _) => (None, Some(signal as i32)),
        other => bail!("the init ended in no known way: {other:?}"),
    };
    gate::say(&json!({ "reaped": init.as_raw(), "code": code, "signal": signal }))?;
    Ok(ExitCode::SUCCESS)
}

fn pid_again(gate: &Gate, most: u32) -> Result<ExitCode> {
    let first = fork(wait)?;
    gate.pass()?;
    nix::sys::signal::kill(first, Signal::SIGKILL).context("kill the child")?;
    waitpid(first, None).context("wait for the child")?;
    for _ in 0..most {
        // SAFETY: as in `fork`: this program has started no thread.
        match unsafe { nix::unistd::fork() }.context("fork")? {
            ForkResult::Child if Pid::this() == first => {
                gate::say(&json!({ "again": first.as_raw() }))?;
                gate::wait_for_line()?;
                std::process::abort();
            }
            ForkResult::Child => leave(),
            ForkResult::Parent { child } => {
                waitpid(child, None).context("wait for a child")?;
                if child == first {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
    bail!("no child got the pid {first} again")
}
