//! What busy machines do all day, many times over and timed: programs, threads, signals between processes, cgroups. Nobody dies abnormally of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getppid};

use crate::crowd::{fork, leave, report};
use crate::gate::Gate;

/// What is done again and again.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Act {
    /// Start /bin/true and wait for its end
    Execs {
        /// How many times
        count: u32,
    },
    /// Start a thread and wait for its end
    Spawns {
        /// How many times
        count: u32,
    },
    /// Send a signal to another process, which sends one back
    PingPong {
        /// How many times
        count: u32,
    },
    /// Make a cgroup and remove it
    Cgroups {
        /// How many times
        count: u32,
        /// Directory of the cgroup to make it in
        within: PathBuf,
    },
}

pub(crate) fn act(act: &Act, gate: &Gate) -> Result<ExitCode> {
    gate.pass()?;
    match act {
        Act::Execs { count } => execs(*count),
        Act::Spawns { count } => spawns(*count),
        Act::PingPong { count } => ping_pong(*count),
        Act::Cgroups { count, within } => cgroups(*count, within),
    }
}

fn execs(count: u32) -> Result<ExitCode> {
    let began = Instant::now();
    for _ in 0..count {
        let status = Command::new("/bin/true")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("run /bin/true")?;
        ensure!(status.success(), "/bin/true ended with {status}");
    }
    report(count, began)
}

fn spawns(count: u32) -> Result<ExitCode> {
    let began = Instant::now();
    for _ in 0..count {
        let thread = std::thread::Builder::new().spawn(|| ()).context("start a thread")?;
        ensure!(thread.join().is_ok(), "a thread that does nothing panicked");
    }
    report(count, began)
}

/// Both wait for SIGUSR1, which is blocked, and so never ends either.
fn ping_pong(count: u32) -> Result<ExitCode> {
    let mut usr1 = SigSet::empty();
    usr1.add(Signal::SIGUSR1);
    usr1.thread_block().context("block the signal")?;
    let parent = Pid::this();
    let child = fork(|| {
        let gone = || getppid() != parent;
        let tied =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        if tied.is_err() || gone() {
            leave();
        }
        for _ in 0..count {
            if usr1.wait().is_err() || kill(parent, Signal::SIGUSR1).is_err() {
                leave();
            }
        }
    })?;
    let began = Instant::now();
    for _ in 0..count {
        kill(child, Signal::SIGUSR1).context("send the signal")?;
        usr1.wait().context("wait for the signal")?;
    }
    let done = report(count, began);
    waitpid(child, None).context("wait for the child")?;
    done
}

fn cgroups(count: u32, within: &std::path::Path) -> Result<ExitCode> {
    let dir = within.join("churn");
    let began = Instant::now();
    for _ in 0..count {
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        fs::remove_dir(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    report(count, began)
}
