//! Many ends, cheap enough to measure: children are forked, not executed.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};
use serde_json::json;

use crate::gate::{self, Gate};

/// `count` children, one after another, that exit with 0.
pub(crate) fn exits(gate: &Gate, count: u32) -> Result<ExitCode> {
    gate.pass()?;
    let began = Instant::now();
    for _ in 0..count {
        waitpid(fork(|| ())?, None).context("wait for a child")?;
    }
    report(count, began)
}

/// `count` children, one after another, each killed by this process.
pub(crate) fn aborts(gate: &Gate, count: u32, unheard: bool) -> Result<ExitCode> {
    gate.pass()?;
    if unheard {
        // SAFETY: to ignore a signal runs no code of ours in a handler.
        unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) }
            .context("ignore SIGCHLD")?;
    }
    let began = Instant::now();
    for _ in 0..count {
        let child = fork(linger)?;
        nix::sys::signal::kill(child, Signal::SIGKILL).context("kill a child")?;
        match waitpid(child, None) {
            // Whose SIGCHLD is ignored is gone without being asked for.
            Err(Errno::ECHILD) if unheard => {}
            waited => drop(waited.context("wait for a child")?),
        }
    }
    report(count, began)
}

/// A signal without effect, `count` times.
pub(crate) fn signals(gate: &Gate, count: u32, signal: i32) -> Result<ExitCode> {
    gate.pass()?;
    let signal = Signal::try_from(signal).context("a signal number")?;
    // SAFETY: to ignore a signal runs no code of ours in a handler.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.context("ignore the signal")?;
    let began = Instant::now();
    let own = Pid::this();
    for _ in 0..count {
        nix::sys::signal::kill(own, signal).context("send the signal")?;
    }
    report(count, began)
}

/// `count` children that wait, and then die all at once.
pub(crate) fn deaths(gate: &Gate, count: u32) -> Result<ExitCode> {
    let children = (0..count).map(|_| fork(linger)).collect::<Result<Vec<_>>>()?;
    let pids: Vec<i32> = children.iter().map(|child| child.as_raw()).collect();
    gate.pass_saying(&json!({ "pid": std::process::id(), "pids": pids }))?;
    let began = Instant::now();
    for child in &children {
        nix::sys::signal::kill(*child, Signal::SIGKILL).context("kill a child")?;
    }
    let seconds = began.elapsed().as_secs_f64();
    for child in &children {
        waitpid(*child, None).context("wait for a child")?;
    }
    gate::say(&json!({ "pids": pids, "seconds": seconds }))?;
    Ok(ExitCode::SUCCESS)
}

/// A child that does `act` and exits with 0.
pub(crate) fn fork(act: impl FnOnce()) -> Result<Pid> {
    // SAFETY: no act of this program that forks has started a thread, so no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            act();
            leave()
        }
    }
}

/// Ends a forked child.
pub(crate) fn leave() -> ! {
    // SAFETY: ends this process and touches nothing of it: no destructor or buffer of the parent's runs twice.
    unsafe { nix::libc::_exit(0) }
}

/// Waits to be killed, by whom it may be: at the latest by the kernel, when the parent is gone.
fn linger() {
    if rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).is_ok()
    {
        loop {
            nix::unistd::pause();
        }
    }
}

/// Says how many, and how long they took.
pub(crate) fn report(count: u32, began: Instant) -> Result<ExitCode> {
    gate::say(&json!({ "count": count, "seconds": began.elapsed().as_secs_f64() }))?;
    Ok(ExitCode::SUCCESS)
}
