//! Real deaths, one a scenario, and the whole record that killwatch makes of each. One file per family.
//!
//! A scenario has cgroups of its own, and a daemon of its own where its table says so, so that they run side by side or one by
//! one. Those of `global` use up the memory of the machine: they run in a virtual machine of our own only, and last when run
//! one by one.

mod audit;
mod chain;
mod containers;
mod crowd;
mod degraded;
mod engines;
mod environ;
mod examples;
mod exits;
mod faults;
mod global;
mod hostile;
mod kin;
mod ledger;
mod lifecycle;
mod limits;
mod lockdown;
mod lxc;
mod memory;
mod oom;
mod pids;
mod pods;
mod poison;
mod rights;
mod rlimits;
mod runtime;
mod senders;
mod signals;
mod sinks;
mod slurm;
mod socket;
mod sources;
mod stops;
mod stuck;
mod survives;
mod systemd;
mod takeover;
mod threads;
mod unit;
mod userspace;
mod workload;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Hierarchy;
use killwatch_tests::corpus;
use killwatch_tests::sender::{Sender, ancestors_of};
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::{Truth, name_of};
use killwatch_tests::victim::{Casting, Victim};
use serde_json::Value;

/// The limit that hogs meet, in bytes.
const LIMIT: u64 = 32 << 20;

fn main() -> ExitCode {
    corpus::run(
        option_env!("CARGO_BIN_EXE_victim"),
        &[
            ("audit", audit::SCENARIOS),
            ("chain", chain::SCENARIOS),
            ("containers", containers::SCENARIOS),
            ("crowd", crowd::SCENARIOS),
            ("degraded", degraded::SCENARIOS),
            ("engines", engines::SCENARIOS),
            ("environ", environ::SCENARIOS),
            ("examples", examples::SCENARIOS),
            ("exits", exits::SCENARIOS),
            ("faults", faults::SCENARIOS),
            ("hostile", hostile::SCENARIOS),
            ("kin", kin::SCENARIOS),
            ("ledger", ledger::SCENARIOS),
            ("lifecycle", lifecycle::SCENARIOS),
            ("limits", limits::SCENARIOS),
            ("lockdown", lockdown::SCENARIOS),
            ("lxc", lxc::SCENARIOS),
            ("memory", memory::SCENARIOS),
            ("oom", oom::SCENARIOS),
            ("pids", pids::SCENARIOS),
            ("pods", pods::SCENARIOS),
            ("poison", poison::SCENARIOS),
            ("rights", rights::SCENARIOS),
            ("rlimits", rlimits::SCENARIOS),
            ("runtime", runtime::SCENARIOS),
            ("senders", senders::SCENARIOS),
            ("signals", signals::SCENARIOS),
            ("sinks", sinks::SCENARIOS),
            ("slurm", slurm::SCENARIOS),
            ("socket", socket::SCENARIOS),
            ("sources", sources::SCENARIOS),
            ("stops", stops::SCENARIOS),
            ("stuck", stuck::SCENARIOS),
            ("survives", survives::SCENARIOS),
            ("systemd", systemd::SCENARIOS),
            ("takeover", takeover::SCENARIOS),
            ("threads", threads::SCENARIOS),
            ("unit", unit::SCENARIOS),
            ("userspace", userspace::SCENARIOS),
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
    let truth = Truth::of(number(&said, "pid")?)?;
    Ok((victim, truth))
}

/// A number in what a victim says.
fn number(said: &Value, key: &str) -> Result<u32> {
    let number = said.get(key).and_then(Value::as_u64);
    Ok(u32::try_from(number.with_context(|| format!("no number {key} in {said}"))?)?)
}

/// Sends a signal by a shell's own `kill`, and says who that was.
fn kill_by_shell(signal: &str, pid: u32, uid: u32) -> Result<Sender> {
    by_shell(&format!("kill -{signal} {pid}"), uid)
}

/// Has a shell write to a file, and says who that was.
fn write_by_shell(text: &str, file: &Path) -> Result<Sender> {
    by_shell(&format!("echo {text} >'{}'", file.display()), 0)
}

fn by_shell(command: &str, uid: u32) -> Result<Sender> {
    use std::os::unix::process::CommandExt as _;
    let mut shell =
        Command::new("sh").args(["-c", command]).uid(uid).spawn().context("start a shell")?;
    let status = shell.wait().context("wait for the shell")?;
    ensure!(status.success(), "{command}: {status}");
    let own = std::process::id();
    let mut ancestors = vec![(own, name_of(own)?)];
    ancestors.extend(ancestors_of(own)?);
    Ok(Sender {
        pid: shell.id(),
        comm: "sh".to_owned(),
        uid,
        ppid: own,
        cgroup: Hierarchy::find()?.path_of("self")?,
        ancestors,
        via: "kill",
    })
}

/// Has a victim end itself in a cgroup of its own.
fn dies_alone(stage: &Stage, how: &[&str], signal: i32) -> Result<Truth> {
    let group = stage.tree.make(how.first().context("no act")?)?;
    let casting = stage.cast().within(&group).args(["--gate"]).args(how.to_vec());
    let (mut victim, truth) = at_the_gate(&casting)?;
    victim.go()?;
    victim.reap_killed_by(signal)?;
    Ok(truth)
}

/// Has a victim abort in the cgroup of the scenario, and waits until it is gone.
fn aborts(stage: &Stage) -> Result<Truth> {
    let casting = stage.cast().within(stage.tree.top()).args(["--gate", "abort"]);
    let (mut victim, truth) = at_the_gate(&casting)?;
    victim.go()?;
    victim.reap_killed_by(6)?;
    Ok(truth)
}

/// The records of these processes among all, in their order.
fn of(truths: &[Truth], records: &[Value]) -> Vec<Value> {
    let meant = |record: &&Value| truths.iter().any(|truth| truth.is_told_in(record));
    records.iter().filter(meant).cloned().collect()
}
