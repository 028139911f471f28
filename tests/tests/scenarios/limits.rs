//! Kills by the kernel's OOM killer at limits of all kinds.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;
use serde_json::Value;

use crate::{LIMIT, at_the_gate, number, write_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(the_middle_one_of_three),
    play!(lowered_under_what_is_used).needs(&[Need::MemoryV2]),
    play!(memory_and_swap_together).needs(&[Need::MemoryV1, Need::Swap]),
    play!(memory_and_then_swap).needs(&[Need::MemoryV2, Need::Swap]),
    play!(shared_memory),
    play!(a_file_in_memory),
    play!(a_group_of_twenty).needs(&[Need::MemoryV2]),
];

const POD_UID: &str = "c3d0a6b8-52f1-4d0e-a7a4-19e60d8b7f42";
const MIB: u64 = 1 << 20;

fn the_middle_one_of_three(stage: &mut Stage) -> Result<()> {
    let container = stage.tree.make("pod/middle/container")?;
    let middle = container.parent().context("no parent")?;
    middle.parent().context("no parent")?.set_limit(2 * LIMIT)?;
    middle.set_limit(LIMIT)?;
    container.set_limit(LIMIT + LIMIT / 2)?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&container).args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node()).oom(&truth, &middle, LIMIT);
    stage.holds(&truth, &expected).map(drop)
}

/// The trigger is whoever wrote the limit, in another cgroup.
fn lowered_under_what_is_used(stage: &mut Stage) -> Result<()> {
    const HELD: u64 = 24 * MIB;
    const LOWERED: u64 = 8 * MIB;
    let group = stage.tree.limited("worker", 2 * LIMIT)?;
    let act = ["--gate", "hog", "--limit-mib", "24", "--hold"];
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
    hog.go()?;
    hog.hear("held")?;
    let writer = write_by_shell(&LOWERED.to_string(), &group.dir().join("memory.max"))?;
    hog.reap_killed_by(9)?;
    let is_used =
        |size: &Value| size.as_u64().is_some_and(|size| (LOWERED..2 * HELD).contains(&size));
    let path = group.path();
    let expected = Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LOWERED)
        .is("/killer/trigger/pid", writer.pid)
        .is("/killer/trigger/tid", writer.pid)
        .is("/killer/trigger/comm", "sh")
        .is("/killer/trigger/cgroup", writer.cgroup)
        .like("/memory/anon_bytes", "about 24 MiB", |size| {
            size.as_u64().is_some_and(|size| (HELD - MIB..HELD + 3 * MIB).contains(&size))
        })
        .like("/memory/usage_bytes", "more than the limit", is_used)
        .like("/memory/levels", "more than the limit at the first level", move |levels| {
            let first = &levels[0];
            first["cgroup"] == path
                && first["limit_bytes"] == LOWERED
                && is_used(&first["usage_bytes"])
        });
    stage.holds(&truth, &expected).map(drop)
}

/// v1: 24 MiB of memory, 40 of both together.
fn memory_and_swap_together(stage: &mut Stage) -> Result<()> {
    const BOTH: u64 = 40 * MIB;
    let group = stage.tree.limited("worker", 24 * MIB)?;
    group.write("memory.memsw.limit_in_bytes", &BOTH.to_string())?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, BOTH)
        .is("/memory/limit_counter", "memsw");
    let expected = swapped(&truth, expected, |level| {
        level["limit_bytes"] == 24 * MIB
            && level["memsw_limit_bytes"] == BOTH
            && is_about(&level["memsw_bytes"], BOTH)
    });
    stage.holds(&truth, &expected).map(drop)
}

/// v2: 24 MiB of memory, and 16 of swap.
fn memory_and_then_swap(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", 24 * MIB)?;
    group.write("memory.swap.max", &(16 * MIB).to_string())?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node()).oom(&truth, &group, 24 * MIB);
    let expected = swapped(&truth, expected, |level| {
        is_about(&level["usage_bytes"], 24 * MIB)
            && level["swap_limit_bytes"] == 16 * MIB
            && is_about(&level["swap_bytes"], 16 * MIB)
    });
    stage.holds(&truth, &expected).map(drop)
}

/// A good part of the victim is swapped out, and its cgroup says so.
fn swapped(
    truth: &Truth,
    expected: Expected,
    first_level: impl Fn(&Value) -> bool + 'static,
) -> Expected {
    let some = |size: &Value| size.as_u64().is_some_and(|size| (8 * MIB..48 * MIB).contains(&size));
    expected
        // It may be swapped out too.
        .maybe("/victim/cmdline", truth.cmdline.clone())
        .like("/memory/anon_bytes", "what is not swapped out", some)
        .like("/memory/swap_bytes", "what is swapped out", some)
        .like("/memory/levels", "limits and usages of memory and swap", move |levels| {
            first_level(&levels[0])
        })
}

fn is_about(size: &Value, bytes: u64) -> bool {
    size.as_u64().is_some_and(|size| (bytes / 8 * 7..=bytes).contains(&size))
}

fn shared_memory(stage: &mut Stage) -> Result<()> {
    let (truth, expected) = takes(stage, "shmem")?;
    let expected = expected
        .like("/memory/shmem_bytes", "most of the limit", |size| {
            // In the test machine programs are files in memory too, and so counted.
            size.as_u64().is_some_and(|size| (LIMIT / 8 * 7..LIMIT + 16 * MIB).contains(&size))
        })
        .like("/memory/anon_bytes", "next to nothing", |size| {
            size.as_u64().is_some_and(|size| size < 4 * MIB)
        });
    stage.holds(&truth, &expected).map(drop)
}

/// Memory that the cgroup is charged for, and no process: the victim itself is small.
fn a_file_in_memory(stage: &mut Stage) -> Result<()> {
    let (truth, expected) = takes(stage, "tmpfs")?;
    let small = |size: &Value| size.as_u64().is_some_and(|size| size < 16 * MIB);
    let expected = expected
        .like("/memory/shmem_bytes", "next to nothing", small)
        .like("/memory/anon_bytes", "next to nothing", small)
        .like("/memory/peak_rss_bytes", "not much", small);
    stage.holds(&truth, &expected).map(drop)
}

fn takes(stage: &Stage, kind: &str) -> Result<(Truth, Expected)> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let act = ["--gate", "hog", "--kind", kind];
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node()).oom(&truth, &group, LIMIT);
    Ok((truth, expected))
}

/// `memory.oom.group`: one decision, twenty victims. The kernel itself counts twenty-one.
fn a_group_of_twenty(stage: &mut Stage) -> Result<()> {
    let container = format!("{:0>64}", format!("{:x}9", std::process::id())).replace('0', "d");
    let group = stage.tree.limited(&format!("kubepods/pod{POD_UID}/{container}"), LIMIT)?;
    group.write("memory.oom.group", "1")?;
    let act = ["--gate", "fork", "--count", "19", "--", "hog"];
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(act))?;
    let mut truths = vec![];
    for _ in 0..19 {
        truths.push(Truth::of(number(&hog.hear("child")?, "child")?)?);
    }
    hog.go()?;
    hog.reap_killed_by(9)?;
    let mut incidents = Vec::new();
    for truth in truths.iter().chain([&truth]) {
        let expected = Expected::death(truth, stage.daemon.node())
            .oom(truth, &group, LIMIT)
            .is("/killer/trigger/pid", hog.pid())
            .is("/killer/trigger/tid", hog.pid())
            .is("/oom/group", true)
            .is("/workload/container_id", container.clone())
            .is("/workload/pod_uid", POD_UID)
            .is("/workload/qos", "Guaranteed")
            .like("/memory/anon_bytes", "no more than the limit", |size| {
                size.as_u64().is_some_and(|size| size <= LIMIT + 2 * MIB)
            })
            .like("/memory/peak_rss_bytes", "no more than the limit", |size| {
                size.as_u64().is_some_and(|size| size <= LIMIT + 8 * MIB)
            });
        let expected = if truth.pid == hog.pid() {
            expected
        } else {
            // Their parent dies with them.
            expected.like("/victim/ppid", "any", Value::is_u64).like(
                "/victim/parent_comm",
                "any",
                Value::is_string,
            )
        };
        incidents.push(stage.holds(truth, &expected)?["oom"]["incident_ktime_ns"].clone());
    }
    incidents.dedup();
    ensure!(incidents.len() == 1, "one decision under several times: {incidents:?}");
    for (metric, wanted) in
        [("container_oom_killed_total", 1.0), ("container_oom_victims_total", 20.0)]
    {
        wait_until(Duration::from_secs(10), &format!("{metric} to be {wanted}"), || {
            let page = stage.daemon.metrics()?;
            let found = sample(&page, metric, &[("container_id", &container)])?;
            ensure!(found.is_none_or(|found| found <= wanted), "{metric} is {found:?}");
            Ok((found == Some(wanted)).then_some(()))
        })?;
    }
    Ok(())
}
