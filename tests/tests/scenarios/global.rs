//! The host itself runs out of memory, or a node of it: only in a virtual machine of our own.

use std::fs;

use anyhow::{Context as _, Result};
use killwatch_tests::cgroup::Group;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use serde_json::Value;

use crate::at_the_gate;

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(the_nodes_of_a_cpuset).own_daemon().needs(&[Need::Vm, Need::Nodes, Need::MemoryV2]),
    play!(the_nodes_of_a_memory_policy).own_daemon().needs(&[Need::Vm, Need::Nodes]),
    play!(zz_global_oom).own_daemon().needs(&[Need::Vm]),
];

/// Where the kernel has to look for a victim.
struct Domain<'a> {
    cause: &'a str,
    constraint: &'a str,
    /// Bytes of memory there.
    bytes: u64,
    /// Options of the hog.
    options: &'a [&'a str],
}

fn zz_global_oom(stage: &mut Stage) -> Result<()> {
    let bytes = memory_of("/proc/meminfo", "MemTotal:")?;
    let group = stage.tree.make("hog")?;
    runs_out(
        stage,
        &group,
        &Domain { cause: "oom_global", constraint: "none", bytes, options: &[] },
    )
}

/// There is memory on the other node, but not for this cpuset.
fn the_nodes_of_a_cpuset(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("hog")?;
    let top = group.parent().context("no parent")?;
    for level in [top.parent().context("no root")?, top] {
        level.write("cgroup.subtree_control", "+cpuset")?;
    }
    group.write("cpuset.mems", "1")?;
    let (cause, constraint, bytes) = ("oom_cpuset", "cpuset", memory_of_node_1()?);
    runs_out(stage, &group, &Domain { cause, constraint, bytes, options: &[] })
}

/// There is memory on the other node, but the hog wants none of it.
fn the_nodes_of_a_memory_policy(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("hog")?;
    let (cause, constraint, bytes) = ("oom_mempolicy", "memory_policy", memory_of_node_1()?);
    let options = &["--node", "1"];
    runs_out(stage, &group, &Domain { cause, constraint, bytes, options })
}

/// The test and the daemon are spared, the hog offers itself.
fn runs_out(stage: &Stage, group: &Group, domain: &Domain<'_>) -> Result<()> {
    for pid in [std::process::id(), stage.daemon.pid()] {
        fs::write(format!("/proc/{pid}/oom_score_adj"), "-1000")
            .context("spare the test and the daemon")?;
    }
    let more = ((memory_of("/proc/meminfo", "MemTotal:")? >> 20) * 2).to_string();
    let hog = ["--oom-score-adj", "1000", "--gate", "hog", "--limit-mib", &more];
    let casting = stage.cast().on_our_own_host()?.within(group);
    let (mut hog, truth) = at_the_gate(&casting.args(hog).args(domain.options.to_vec()))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let (seen, total) = (truth.seen.as_nanos(), domain.bytes);
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .by_kernel(domain.cause)
        .limit_named(domain.constraint)
        .is("/victim/oom_score_adj", 1000)
        // Whoever allocates next when nothing is left: the hog, or any other.
        .like("/killer/trigger", "a task", |task| task.get("pid").is_some_and(Value::is_u64))
        .like("/oom/incident_ktime_ns", "after the victim was seen", move |at| {
            at.as_u64().is_some_and(|at| u128::from(at) >= seen)
        })
        .is("/oom/group", false)
        // Where there is swap, that too was out of reach as the victim died.
        .maybe("/victim/cmdline", truth.cmdline.clone())
        .like("/memory/anon_bytes", "half the memory or more", move |size| {
            size.as_u64().is_some_and(|size| (total / 2..=total).contains(&size))
        })
        .like("/memory/peak_rss_bytes", "half the memory or more", move |size| {
            size.as_u64().is_some_and(|size| (total / 2..=total + (16 << 20)).contains(&size))
        })
        .maybe_like("/memory/levels", "no level with a limit", |levels| {
            levels
                .as_array()
                .is_some_and(|levels| levels.iter().all(|level| level.get("limit_bytes").is_none()))
        });
    stage.holds(&truth, &expected)?;
    // What is started after this is to be no less a victim than before.
    fs::write("/proc/self/oom_score_adj", "0").context("spare the test no longer")
}

fn memory_of_node_1() -> Result<u64> {
    memory_of("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:")
}

/// Bytes that this line of this file says, in kB.
fn memory_of(file: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let line = line.with_context(|| format!("no {key} in {file}"))?;
    let kib: u64 =
        line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{key} {line:?}"))?;
    Ok(kib << 10)
}
