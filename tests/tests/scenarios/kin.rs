//! Deaths that follow from another's: of the first process of a pid namespace, of a process with the same memory, of a child.

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::Scenario;
use killwatch_tests::kernel_log::KernelLog;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Victim;
use killwatch_tests::wait::wait_until;
use serde_json::Value;

use crate::{LIMIT, at_the_gate, kill_by_shell, number};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(the_init_of_its_namespace_exits),
    play!(the_init_of_its_namespace_is_killed),
    play!(the_init_of_its_namespace_is_an_oom_victim),
    play!(the_same_memory_in_the_same_cgroup),
    play!(the_same_memory_in_another_cgroup),
    play!(a_vfork_child),
    play!(relayed_by_a_shell),
];

fn the_init_of_its_namespace_exits(stage: &mut Stage) -> Result<()> {
    let (mut outer, init, child) = namespace(stage, &["exit", "0"], None)?;
    outer.go()?;
    ensure!(outer.hear("reaped")?["code"] == 0);
    torn_down(stage, &child, |expected| expected.follows_exit("namespace_init", &init, 0))
}

fn the_init_of_its_namespace_is_killed(stage: &mut Stage) -> Result<()> {
    let (mut outer, init, child) = namespace(stage, &["exit", "0"], None)?;
    let sender = kill_by_shell("9", init.pid, 0)?;
    ensure!(outer.hear("reaped")?["signal"] == 9);
    let expected = Expected::death(&init, stage.daemon.node()).signal(9, "SIGKILL");
    let record = stage.holds(&init, &expected.killed_by(&sender))?;
    torn_down(stage, &child, |expected| expected.follows("namespace_init", &record))
}

fn the_init_of_its_namespace_is_an_oom_victim(stage: &mut Stage) -> Result<()> {
    let (mut outer, init, child) = namespace(stage, &["hog"], Some(LIMIT))?;
    outer.go()?;
    ensure!(outer.hear("reaped")?["signal"] == 9);
    let group = stage.tree.top().child("worker");
    let expected = Expected::death(&init, stage.daemon.node()).oom(&init, &group, LIMIT);
    let record = stage.holds(&init, &expected)?;
    torn_down(stage, &child, |expected| expected.follows("namespace_init", &record))
}

/// A pid namespace with a child in it beside its init, which waits at its gate.
fn namespace(stage: &Stage, act: &[&str], limit: Option<u64>) -> Result<(Victim, Truth, Truth)> {
    let group = stage.tree.make("worker")?;
    if let Some(limit) = limit {
        group.set_limit(limit)?;
    }
    let casting = stage.cast().within(&group).args(["--gate", "pidns", "--", "fork", "--"]);
    let (mut outer, init) = at_the_gate(&casting.args(act.to_vec()))?;
    let child = Truth::of(number(&outer.hear("child")?, "child")?)?;
    ensure!(init.ns_pid == 1 && child.ns_pid == 2 && child.ppid == init.pid, "{init:?} {child:?}");
    Ok((outer, init, child))
}

fn torn_down(
    stage: &Stage,
    child: &Truth,
    related: impl FnOnce(Expected) -> Expected,
) -> Result<()> {
    let expected = Expected::death(child, stage.daemon.node())
        .signal(9, "SIGKILL")
        .by_kernel("pidns_teardown");
    stage.holds(child, &related(expected)).map(drop)
}

/// Both are candidates, with the same memory: the kernel's log says whom it chose.
fn the_same_memory_in_the_same_cgroup(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let casting = stage.cast().within(&group).args(["--gate", "share", "--", "hog"]);
    let (mut hog, hog_truth) = at_the_gate(&casting)?;
    let sharer = Truth::of(number(&hog.hear("child")?, "child")?)?;
    let mut log = KernelLog::from_now()?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let chosen = log.oom_victim_among(&[hog_truth.pid, sharer.pid])?;
    let (victim, other) =
        if chosen == sharer.pid { (&sharer, &hog_truth) } else { (&hog_truth, &sharer) };
    let expected = Expected::death(victim, stage.daemon.node())
        .oom(victim, &group, LIMIT)
        .is("/killer/trigger/pid", hog_truth.pid)
        .is("/killer/trigger/tid", hog_truth.pid);
    let expected = if chosen == sharer.pid { orphaned(expected, &sharer) } else { expected };
    let record = stage.holds(victim, &expected)?;
    collateral(stage, other, &record)
}

/// It is no candidate, and dies all the same.
fn the_same_memory_in_another_cgroup(stage: &mut Stage) -> Result<()> {
    let casting = stage.cast().within(&stage.tree.limited("worker", LIMIT)?);
    let (mut hog, hog_truth) = at_the_gate(&casting.args(["--gate", "share", "--", "hog"]))?;
    let sharer = number(&hog.hear("child")?, "child")?;
    dies_beside(stage, &mut hog, &hog_truth, sharer)
}

/// The thread that made it waits in the kernel for it, another one allocates.
fn a_vfork_child(stage: &mut Stage) -> Result<()> {
    let casting = stage.cast().within(&stage.tree.limited("worker", LIMIT)?);
    let act = ["--gate", "share", "--vfork", "--", "hog"];
    let (mut hog, hog_truth) = at_the_gate(&casting.args(act))?;
    let what = format!("a child of {}", hog_truth.pid);
    let child = wait_until(std::time::Duration::from_secs(5), &what, || child_of(hog_truth.pid))?;
    // The thread that makes it may have begun after the gate.
    let hog_truth = Truth::of(hog_truth.pid)?;
    dies_beside(stage, &mut hog, &hog_truth, child)
}

/// Moves the sharer to a cgroup without a limit, and has the hog take it along.
fn dies_beside(stage: &Stage, hog: &mut Victim, hog_truth: &Truth, sharer: u32) -> Result<()> {
    let (limited, other) = (stage.tree.top().child("worker"), stage.tree.make("bystander")?);
    other.add(sharer)?;
    let sharer = Truth::of(sharer)?;
    ensure!(sharer.cgroup == other.path() && sharer.ppid == hog_truth.pid, "{sharer:?}");
    hog.go()?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(hog_truth, stage.daemon.node()).oom(hog_truth, &limited, LIMIT);
    let record = stage.holds(hog_truth, &expected)?;
    collateral(stage, &sharer, &record)
}

fn collateral(stage: &Stage, truth: &Truth, record: &Value) -> Result<()> {
    let expected = Expected::death(truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .by_kernel("oom_collateral")
        .fell_with("oom_victim", record);
    stage.holds(truth, &orphaned(expected, truth)).map(drop)
}

/// Its parent dies with it, so it may have another one by the time it ends.
fn orphaned(expected: Expected, truth: &Truth) -> Expected {
    let (pids, names): (Vec<u32>, Vec<String>) = truth.ancestors.iter().cloned().unzip();
    expected
        .like("/victim/ppid", "one of its ancestors", move |ppid| {
            pids.iter().any(|pid| ppid == pid)
        })
        .like("/victim/parent_comm", "the name of one of its ancestors", move |comm| {
            names.iter().any(|name| comm == name)
        })
}

/// `sh -c`, as most containers begin.
fn relayed_by_a_shell(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let script = format!("'{}' --gate abort; exit $?", stage.victim().display());
    let casting = stage.cast().within(&group).args(["become", "--", "sh", "-c", &script]);
    let (mut shell, child) = at_the_gate(&casting)?;
    let truth = Truth::of(shell.pid())?;
    ensure!(truth.comm == "sh" && child.ppid == truth.pid, "{truth:?} {child:?}");
    shell.go()?;
    shell.reap_exited(134)?;
    let expected = Expected::death(&child, stage.daemon.node())
        .signal(6, "SIGABRT")
        .by_itself("abort", "tgkill", &child);
    let record = stage.holds(&child, &expected)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .exit_code(134, &truth)
        .is("/killer/kind", "self")
        .is("/cause", "relayed")
        .inferred()
        .follows("child", &record);
    stage.holds(&truth, &expected).map(drop)
}

/// Any child of a process.
fn child_of(parent: u32) -> Result<Option<u32>> {
    for entry in std::fs::read_dir("/proc").context("list processes")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
        // Others come and go.
        if killwatch_tests::truth::parent_of(pid).is_ok_and(|found| found == parent) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}
