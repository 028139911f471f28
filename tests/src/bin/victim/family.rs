//! Parents and children.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::json;

use crate::gate::{self, Gate};

/// Runs the command and ends as a shell would that ran nothing else.
pub(crate) fn relay(gate: &Gate, command: &[OsString]) -> Result<ExitCode> {
    gate.pass()?;
    let status = start(command)?.wait().context("wait for the child")?;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => bail!("the child ended in no known way: {status}"),
    };
    Ok(ExitCode::from(u8::try_from(code).context("an exit code above 255")?))
}

/// A relay whose child is a relay, `depth` in all.
pub(crate) fn nest(gate: &Gate, depth: u8, command: Vec<OsString>) -> Result<ExitCode> {
    if depth <= 1 {
        return relay(gate, &command);
    }
    let own = std::env::current_exe().context("find this program")?;
    let mut chain: Vec<OsString> =
        vec![own.into(), "nest".into(), (depth - 1).to_string().into(), "--".into()];
    chain.extend(command);
    relay(gate, &chain)
}

/// Runs the command and outlives it.
pub(crate) fn parent(gate: &Gate, command: &[OsString]) -> Result<ExitCode> {
    gate.pass()?;
    let mut child = start(command)?;
    gate::say(&json!({ "child": child.id() }))?;
    let status = child.wait().context("wait for the child")?;
    gate::say(&json!({ "reaped": child.id(), "signal": status.signal(), "code": status.code() }))?;
    gate::hold()?;
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command, with SIGKILL as its parent-death signal.
pub(crate) fn tied(command: &[OsString]) -> Result<ExitCode> {
    let parent = rustix::process::getppid();
    set_parent_process_death_signal(Some(Signal::KILL)).context("tie to the parent")?;
    // A parent that went before that can send nothing any more.
    if rustix::process::getppid() != parent {
        bail!("the parent is gone");
    }
    replace(command)
}

/// Becomes the command, without the capabilities that bpf(2) asks for.
pub(crate) fn incapable(command: &[OsString]) -> Result<ExitCode> {
    let lost = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
    give_up(lost)?;
    replace(command)
}

/// Becomes the command without all capabilities but these.
pub(crate) fn bounded(keep: &[String], command: &[OsString]) -> Result<ExitCode> {
    let mut lost = CapabilitySet::all();
    for name in keep {
        lost.remove(CapabilitySet::from_name(name).with_context(|| format!("no {name}"))?);
    }
    give_up(lost)?;
    replace(command)
}

/// Root gets what the bounding set has, with execve(2).
fn give_up(lost: CapabilitySet) -> Result<()> {
    // The right to give up goes last.
    let others = lost.difference(CapabilitySet::SETPCAP).iter_names().map(|(_, one)| one);
    for capability in others.chain([CapabilitySet::SETPCAP]) {
        if lost.contains(capability) {
            remove_capability_from_bounding_set(capability).context("give up a capability")?;
        }
    }
    Ok(())
}

/// Becomes the command.
pub(crate) fn replace(command: &[OsString]) -> Result<ExitCode> {
    let Some((program, arguments)) = command.split_first() else { bail!("no command") };
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("become {}", program.display()))
}

fn start(command: &[OsString]) -> Result<Child> {
    let Some((program, arguments)) = command.split_first() else { bail!("no command") };
    Command::new(program)
        .args(arguments)
        .spawn()
        .with_context(|| format!("start {}", program.display()))
}
