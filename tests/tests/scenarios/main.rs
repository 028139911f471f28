//! Real deaths, one a scenario, and the whole record that killwatch makes of each. One file per family.
//!
//! A scenario has cgroups of its own, and a daemon of its own where its table says so, so that they run side by side or one by
//! one. Those of `global` use up the memory of the machine: they run in a virtual machine of our own only, and last when run
//! one by one.

mod crowd;
mod exits;
mod global;
mod hostile;
mod lifecycle;
mod oom;
mod signals;
mod workload;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Hierarchy;
use killwatch_tests::corpus;
use killwatch_tests::facts::Sender;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::{Casting, Victim};

/// The limit that hogs meet, in bytes.
const LIMIT: u64 = 32 << 20;

fn main() -> ExitCode {
    corpus::run(
        option_env!("CARGO_BIN_EXE_victim"),
        &[
            ("crowd", crowd::SCENARIOS),
            ("exits", exits::SCENARIOS),
            ("hostile", hostile::SCENARIOS),
            ("lifecycle", lifecycle::SCENARIOS),
            ("oom", oom::SCENARIOS),
            ("signals", signals::SCENARIOS),
            ("workload", workload::SCENARIOS),
            // Last: they leave no memory to any scenario beside them.
            ("global", global::SCENARIOS),
        ],
    )
}

/// Starts a victim that waits at its gate, and reads the truth of it.
fn at_the_gate(casting: &Casting) -> Result<(Victim, Truth)> {
    let mut victim = casting.start()?;
    let said = victim.hear("tids")?;
    let pid =
        said.get("pid").and_then(serde_json::Value::as_u64).context("the victim says no pid")?;
    let truth = Truth::of(u32::try_from(pid)?)?;
    Ok((victim, truth))
}

/// Sends a signal by a shell's own `kill`, and says who that was.
fn kill_by_shell(signal: &str, pid: u32, uid: u32) -> Result<Sender> {
    use std::os::unix::process::CommandExt as _;
    let mut shell = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {pid}")])
        .uid(uid)
        .spawn()
        .context("start a shell")?;
    let status = shell.wait().context("wait for the shell")?;
    ensure!(status.success(), "the shell could not kill: {status}");
    Ok(Sender {
        pid: shell.id(),
        comm: "sh".to_owned(),
        uid,
        ppid: std::process::id(),
        cgroup: Hierarchy::find()?.path_of("self")?,
    })
}
