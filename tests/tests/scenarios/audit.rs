//! OOM kills counted against the kernel's own count: what was missed, and that nothing else is.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Group;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::Daemon;
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;
use serde_json::Value;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(missed_while_no_daemon_ran_and_told_once).own_daemon(),
    play!(missed_in_a_cgroup_that_is_gone).own_daemon().needs(&[Need::MemoryV2]),
    play!(a_file_that_is_no_use_is_set_aside).own_daemon().needs(&[Need::NoVm]),
    play!(what_is_told_is_accounted_for).own_daemon(),
    play!(a_group_is_accounted_for_as_the_kernel_counts_it).own_daemon().needs(&[Need::MemoryV2]),
];

/// From the start until it is known what was missed; from a kill until it is counted.
const AUDITS_WITHIN: Duration = Duration::from_secs(40);

fn missed_while_no_daemon_ran_and_told_once(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    settled(&stage.daemon)?;
    stage.own()?.stop()?;
    let mut unseen = Vec::new();
    for _ in 0..2 {
        unseen.push(hog(stage, &group)?);
    }
    stage.own()?.restart()?;
    let missed = settled(&stage.daemon)?;
    let own = of(&missed, &group.path());
    ensure!(own.len() == 1 && own[0]["kills"] == 2 && own[0].get("gone").is_none(), "{missed:#?}");
    let counted = sample(&stage.daemon.metrics()?, "killwatch_oom_kills_missed_total", &[])?;
    ensure!(counted.is_some_and(|kills| kills >= 2.0), "{counted:?}");
    let log = stage.daemon.whole_log()?;
    let line = log
        .lines()
        .find(|line| line.contains("that nobody told of") && line.contains(&group.path()));
    ensure!(line.is_some(), "no line of the log names {}", group.path());
    for truth in unseen {
        ensure!(stage.daemon.deaths_of(&truth)?.is_empty(), "a record of a missed kill");
    }
    // Neither what was missed nor what was told is missed at another start.
    let told = hog(stage, &group)?;
    stage.daemon.death_of(&told)?;
    stage.own()?.restart()?;
    let missed = settled(&stage.daemon)?;
    ensure!(of(&missed, &group.path()).is_empty(), "{missed:#?}");
    Ok(())
}

fn missed_in_a_cgroup_that_is_gone(stage: &mut Stage) -> Result<()> {
    let worker = stage.tree.limited("pod/worker", LIMIT)?;
    let pod = worker.parent().context("no parent")?.path();
    settled(&stage.daemon)?;
    stage.own()?.stop()?;
    hog(stage, &worker)?;
    worker.remove()?;
    stage.own()?.restart()?;
    let missed = settled(&stage.daemon)?;
    let own = of(&missed, &pod);
    ensure!(own.len() == 1 && own[0]["kills"] == 1 && own[0]["gone"] == true, "{missed:#?}");
    stage.own()?.restart()?;
    let missed = settled(&stage.daemon)?;
    ensure!(of(&missed, &pod).is_empty(), "{missed:#?}");
    Ok(())
}

fn a_file_that_is_no_use_is_set_aside(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    settled(&stage.daemon)?;
    let told = hog(stage, &group)?;
    stage.daemon.death_of(&told)?;
    let daemon = stage.own()?;
    daemon.stop()?;
    let file = daemon.directory().join("state/oom-kills.json");
    ensure!(file.exists(), "nothing was kept");
    std::fs::write(&file, "no JSON")?;
    daemon.restart()?;
    // Nobody knows what was told in this boot.
    let missed = settled(&stage.daemon)?;
    ensure!(of(&missed, &group.path()).len() == 1, "{missed:#?}");
    ensure!(stage.daemon.whole_log()?.contains("was set aside"), "the log is silent");
    Ok(())
}

fn what_is_told_is_accounted_for(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    settled(&stage.daemon)?;
    // What is not accounted for at two looks is shown, so there is one after each of two kills.
    for _ in 0..2 {
        let truth = hog(stage, &group)?;
        stage.daemon.death_of(&truth)?;
        adds_up(&stage.daemon)?;
    }
    Ok(())
}

/// The kernel counts the first of a group twice.
fn a_group_is_accounted_for_as_the_kernel_counts_it(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    group.write("memory.oom.group", "1")?;
    settled(&stage.daemon)?;
    for _ in 0..2 {
        let act = ["--gate", "fork", "--count", "3", "--", "hog"];
        let (mut victim, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
        for _ in 0..3 {
            victim.hear("child")?;
        }
        victim.go()?;
        victim.reap_killed_by(9)?;
        stage.daemon.death_of(&truth)?;
        adds_up(&stage.daemon)?;
    }
    Ok(())
}

/// Kills a hog at its cgroup's limit.
fn hog(stage: &Stage, group: &Group) -> Result<Truth> {
    let (mut hog, truth) = at_the_gate(&stage.cast().within(group).args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    Ok(truth)
}

/// What was missed, as soon as that is known.
fn settled(daemon: &Daemon) -> Result<Vec<Value>> {
    wait_until(AUDITS_WITHIN, "it is known what was missed", || {
        let status = daemon.json("/api/v1/status")?;
        Ok(status.get("missed").and_then(Value::as_array).cloned())
    })
}

fn of(missed: &[Value], path: &str) -> Vec<Value> {
    missed.iter().filter(|missed| missed["cgroup"] == path).cloned().collect()
}

/// Waits for a look at all that the kernel has counted by now: all of it was told.
fn adds_up(daemon: &Daemon) -> Result<()> {
    let counted = vmstat()?;
    wait_until(AUDITS_WITHIN, "a look at what the kernel has counted", || {
        let kills = daemon.json("/api/v1/status")?["oom_kills"].clone();
        ensure!(kills["unaccounted"] == 0, "{kills}");
        Ok(kills["kernel"].as_u64().filter(|kernel| *kernel >= counted))
    })?;
    let shown = sample(&daemon.metrics()?, "killwatch_oom_kills_unaccounted", &[])?;
    ensure!(shown == Some(0.0), "{shown:?}");
    Ok(())
}

/// OOM kills since boot, as the kernel counts.
fn vmstat() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").context("read /proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.context("no oom_kill in /proc/vmstat")?.parse().context("a number")
}
