//! Deaths that the process brings about itself: aborts and faults.

use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::sender::Sender;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Casting;
use serde_json::Value;

use crate::{at_the_gate, dies_alone};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(abort),
    play!(nodes_heap_by_its_command_line).needs(&[Need::NoVm]),
    play!(nodes_heap_by_node_options).needs(&[Need::NoVm]),
    play!(nodes_heap_with_room_to_spare).needs(&[Need::NoVm]),
    play!(segfault),
    play!(bus_error),
    play!(illegal_instruction),
    play!(division_by_zero),
    play!(breakpoint),
    play!(a_seccomp_filter_forbids),
    play!(strict_seccomp),
];

fn abort(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["abort"], 6)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(6, "SIGABRT")
        .by_itself("abort", "tgkill", &truth);
    stage.holds(&truth, &expected).map(drop)
}

/// A heap limit, nearly all of it held, and abort(): what Node does when its heap is full.
fn nodes_heap_by_its_command_line(stage: &mut Stage) -> Result<()> {
    let record = node_aborts(stage, &["--max-old-space-size", "24"], None, "24", true)?;
    speaks_of_the_heap(&record)
}

fn nodes_heap_by_node_options(stage: &mut Stage) -> Result<()> {
    let options = "--trace-warnings --max-old-space-size=24";
    let record = node_aborts(stage, &[], Some(options), "24", true)?;
    ensure!(record.pointer("/victim/environ/NODE_OPTIONS").is_some_and(|told| told == options));
    speaks_of_the_heap(&record)
}

/// The same with a heap that is far from full: then nothing points at it.
fn nodes_heap_with_room_to_spare(stage: &mut Stage) -> Result<()> {
    let record = node_aborts(stage, &["--max-old-space-size", "1024"], None, "24", false)?;
    ensure!(speaks_of_the_heap(&record).is_err(), "{record:#}");
    Ok(())
}

/// Has a process named node, with these flags and options, take some MiB and abort.
fn node_aborts(
    stage: &Stage,
    flags: &[&str],
    options: Option<&str>,
    mib: &str,
    exhausted: bool,
) -> Result<Value> {
    let dir = tempfile::TempDir::new().context("make a directory")?;
    let node = dir.path().join("node");
    symlink(stage.victim(), &node).context("name the victim node")?;
    let group = stage.tree.limited("worker", 128 << 20)?;
    let mut casting = Casting::new(node).within(&group);
    if let Some(options) = options {
        casting = casting.with_env("NODE_OPTIONS", options);
    }
    let act = ["--gate", "hog", "--limit-mib", mib, "--abort"];
    let (mut victim, truth) = at_the_gate(&casting.args(flags.to_vec()).args(act))?;
    ensure!(truth.comm == "node", "{truth:?}");
    victim.go()?;
    victim.reap_killed_by(6)?;
    let mut expected = Expected::death(&truth, stage.daemon.node())
        .signal(6, "SIGABRT")
        .by_itself("abort", "tgkill", &truth);
    if exhausted {
        expected = expected.inferred();
    }
    if let Some(options) = options {
        expected = expected.is("/victim/environ/NODE_OPTIONS", options);
    }
    stage.holds(&truth, &expected)
}

fn speaks_of_the_heap(record: &Value) -> Result<()> {
    for key in ["evidence", "advice"] {
        let text = record[key].to_string();
        ensure!(text.contains("--max-old-space-size") && text.contains("heap"), "{key}: {text}");
    }
    Ok(())
}

fn segfault(stage: &mut Stage) -> Result<()> {
    faults(stage, "segv", 11, "SIGSEGV")
}

fn bus_error(stage: &mut Stage) -> Result<()> {
    faults(stage, "bus", 7, "SIGBUS")
}

fn illegal_instruction(stage: &mut Stage) -> Result<()> {
    faults(stage, "ill", 4, "SIGILL")
}

fn division_by_zero(stage: &mut Stage) -> Result<()> {
    faults(stage, "fpe", 8, "SIGFPE")
}

fn breakpoint(stage: &mut Stage) -> Result<()> {
    faults(stage, "trap", 5, "SIGTRAP")
}

fn faults(stage: &Stage, how: &str, number: u8, name: &str) -> Result<()> {
    let truth = dies_alone(stage, &[how], i32::from(number))?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(number, name)
        .by_itself("crash", "fault", &truth);
    stage.holds(&truth, &expected).map(drop)
}

/// Sent as a fault is from Linux 5.16 on, and before that not sent at all.
fn a_seccomp_filter_forbids(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["seccomp-filter"], 31)?;
    let own = Sender::from(&truth);
    let expected = forbidden(stage, &truth, 31, "SIGSYS")
        .maybe("/killer/pid", own.pid)
        .maybe("/killer/comm", own.comm.clone())
        .maybe("/killer/uid", own.uid)
        .maybe("/killer/ppid", own.ppid)
        .maybe("/killer/cgroup", own.cgroup.clone())
        .maybe("/killer/ancestors", own.told_ancestors());
    stage.holds(&truth, &expected).map(drop)
}

/// Not sent: the process ends itself.
fn strict_seccomp(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["seccomp-strict"], 9)?;
    stage.holds(&truth, &forbidden(stage, &truth, 9, "SIGKILL")).map(drop)
}

fn forbidden(stage: &Stage, truth: &Truth, number: u8, name: &str) -> Expected {
    Expected::death(truth, stage.daemon.node())
        .signal(number, name)
        .wordless(truth)
        .is("/cause", "crash")
        .is("/killer/kind", "self")
        .is("/killer/via", "fault")
}
