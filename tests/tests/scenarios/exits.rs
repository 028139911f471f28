//! Exit codes: which are deaths, and whose.

use anyhow::{Result, ensure};
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use serde_json::Value;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(exit_137_relays_the_death_of_a_child),
    play!(a_chain_of_relays_leads_to_the_first_death),
    play!(exit_137_of_ones_own_is_unknown),
    play!(ordinary_exits_leave_no_record),
];

/// What a supervisor sees is the shell's 137; what happened is the child's OOM kill.
fn exit_137_relays_the_death_of_a_child(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let casting = stage
        .cast()
        .within(&group)
        .args(["relay", "--"])
        .args([stage.victim()])
        .args(["--gate", "hog"]);
    let (mut relay, child) = at_the_gate(&casting)?;
    let truth = Truth::of(relay.pid())?;
    ensure!(child.ppid == truth.pid, "{child:?}");
    relay.go()?;
    relay.reap_exited(137)?;
    let record = stage.daemon.death_of(&child)?;
    Expected::death(&child, stage.daemon.node()).oom(&child, &group, LIMIT).compare(&record)?;
    relayed(&truth, 137, &record, stage.daemon.node()).compare(&stage.daemon.death_of(&truth)?)
}

/// A shell in a shell: each record leads to the next, down to the one that was killed.
fn a_chain_of_relays_leads_to_the_first_death(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let casting = stage
        .cast()
        .within(&group)
        .args(["nest", "2", "--"])
        .args([stage.victim()])
        .args(["--gate", "abort"]);
    let (mut outer, killed) = at_the_gate(&casting)?;
    let (outer_truth, inner_truth) = (Truth::of(outer.pid())?, Truth::of(killed.ppid)?);
    ensure!(inner_truth.ppid == outer_truth.pid, "{inner_truth:?}");
    outer.go()?;
    outer.reap_exited(134)?;
    let node = stage.daemon.node();
    let killed_record = stage.daemon.death_of(&killed)?;
    Expected::death(&killed, node)
        .signal(6, "SIGABRT")
        .by_itself("abort", "tgkill", &killed)
        .compare(&killed_record)?;
    let inner_record = stage.daemon.death_of(&inner_truth)?;
    relayed(&inner_truth, 134, &killed_record, node).compare(&inner_record)?;
    relayed(&outer_truth, 134, &inner_record, node).compare(&stage.daemon.death_of(&outer_truth)?)
}

fn exit_137_of_ones_own_is_unknown(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let (mut victim, truth) =
        at_the_gate(&stage.cast().within(&group).args(["--gate", "exit", "137"]))?;
    victim.go()?;
    victim.reap_exited(137)?;
    ended_itself(&truth, 137, stage.daemon.node())
        .is("/cause", "unknown")
        .compare(&stage.daemon.death_of(&truth)?)
}

/// A later death proves that the earlier ends were seen and left out.
fn ordinary_exits_leave_no_record(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let mut silent = Vec::new();
    for code in [0, 1, 2, 127, 128, 193, 255] {
        let code_text = code.to_string();
        let (mut victim, truth) =
            at_the_gate(&stage.cast().within(&group).args(["--gate", "exit", &code_text]))?;
        victim.go()?;
        victim.reap_exited(code)?;
        silent.push(truth);
    }
    let (mut marker, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "abort"]))?;
    marker.go()?;
    marker.reap_killed_by(6)?;
    stage.daemon.death_of(&truth)?;
    let mut told = stage.daemon.deaths("limit=1000")?;
    told.retain(|record| {
        record.pointer("/workload/cgroup").is_some_and(|cgroup| *cgroup == group.path())
    });
    let pids: Vec<_> = told.iter().filter_map(|record| record.pointer("/victim/pid")).collect();
    ensure!(
        pids == [truth.pid],
        "of the exits {silent:?} and the marker {} there are records of {pids:?}",
        truth.pid
    );
    for truth in &silent {
        ensure!(stage.daemon.deaths_of(truth)?.is_empty(), "exit of {} has a record", truth.pid);
    }
    Ok(())
}

/// Exited with this code because of the child of this record.
fn relayed(truth: &Truth, code: u8, child: &Value, node: &str) -> Expected {
    ended_itself(truth, code, node).is("/cause", "relayed").inferred().follows("child", child)
}

/// Nobody sent a signal.
fn ended_itself(truth: &Truth, code: u8, node: &str) -> Expected {
    Expected::death(truth, node).exit_code(code, truth).is("/killer/kind", "self")
}
