//! Kills by the kernel at a memory cgroup's limit.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;

use crate::{LIMIT, at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(single_thread),
    play!(eight_threads_and_the_first_allocates_nothing),
    play!(not_the_first_process_and_the_parent_lives_on),
    play!(the_limit_of_the_cgroup_above),
    play!(killed_while_the_kernel_finds_no_victim).needs(&[Need::Vm]),
];

fn single_thread(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .compare(&stage.daemon.death_of(&truth)?)
}

/// The kernel's decision runs on the thread that allocates; the process is still one victim, under its own name.
fn eight_threads_and_the_first_allocates_nothing(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let hog = ["--gate", "hog", "--threads", "8", "--allocate-on-thread"];
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(hog))?;
    ensure!(truth.tids.len() == 8, "{truth:?}");
    let allocator = thread_named("allocator", &truth)?;
    ensure!(allocator != truth.pid);
    hog.go()?;
    hog.reap_killed_by(9)?;
    Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .is("/killer/trigger/tid", allocator)
        .compare(&stage.daemon.death_of(&truth)?)
}

fn not_the_first_process_and_the_parent_lives_on(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let casting = stage
        .cast()
        .within(&group)
        .args(["parent", "--"])
        .args([stage.victim()])
        .args(["--gate", "hog"]);
    let (mut parent, truth) = at_the_gate(&casting)?;
    ensure!(truth.ppid == parent.pid() && group.processes()?.contains(&parent.pid()), "{truth:?}");
    parent.go()?;
    ensure!(parent.hear("reaped")?["signal"] == 9);
    Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .compare(&stage.daemon.death_of(&truth)?)?;
    let parent_truth = Truth::of(parent.pid()).context("the parent is gone")?;
    ensure!(stage.daemon.deaths_of(&parent_truth)?.is_empty(), "the living parent has a record");
    parent.release();
    parent.reap_exited(0)
}

/// The cgroup of the victim has no limit; the one around it has.
fn the_limit_of_the_cgroup_above(stage: &mut Stage) -> Result<()> {
    let container = stage.tree.make("pod/container")?;
    let pod = container.parent().context("no parent")?;
    pod.set_limit(LIMIT)?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&container).args(["--gate", "hog"]))?;
    ensure!(container.limit()?.is_none());
    hog.go()?;
    hog.reap_killed_by(9)?;
    Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &pod, LIMIT)
        .is("/workload/cgroup", container.path())
        .compare(&stage.daemon.death_of(&truth)?)
}

/// A process at its limit that may not be chosen: all that the kernel finds when kill -9 comes is that it is dying already,
/// and marks it. That is no OOM kill, and the kernel counts none.
fn killed_while_the_kernel_finds_no_victim(stage: &mut Stage) -> Result<()> {
    for turn in 0..5 {
        let group = stage.tree.limited(&format!("worker{turn}"), LIMIT)?;
        let act = ["--oom-score-adj", "-1000", "--gate", "hog", "--helpers", "8"];
        let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
        hog.go()?;
        wait_until(Duration::from_secs(10), "the cgroup to be full", || {
            Ok((group.usage()? + (1 << 20) > LIMIT).then_some(()))
        })?;
        let sender = kill_by_shell("9", truth.pid, 0)?;
        hog.reap_killed_by(9)?;
        ensure!(group.oom_kills()? == 0, "the kernel counts {} OOM kills", group.oom_kills()?);
        let expected = Expected::death(&truth, stage.daemon.node())
            .signal(9, "SIGKILL")
            .killed_by(&sender)
            .like("/victim/tid", "a thread of it", serde_json::Value::is_u64)
            .is("/victim/threads", 9)
            .is("/victim/oom_score_adj", -1000);
        let record = stage.holds(&truth, &expected)?;
        let marked = record["evidence"].to_string().contains("no OOM kill");
        eprintln!("killed at its limit, turn {turn}: marked {marked}");
    }
    Ok(())
}

/// A thread gets its number before it gives itself its name.
fn thread_named(name: &str, truth: &Truth) -> Result<u32> {
    let named = |tid: &&u32| {
        std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", truth.pid))
            .is_ok_and(|comm| comm.trim() == name)
    };
    wait_until(Duration::from_secs(5), &format!("a thread to be named {name}"), || {
        Ok(truth.tids.iter().find(named).copied())
    })
}
