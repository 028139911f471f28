//! The host itself runs out of memory: only in a virtual machine of our own.

use std::fs;

use anyhow::{Context as _, Result};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use serde_json::Value;

use crate::at_the_gate;

pub(crate) const SCENARIOS: &[Scenario] = &[play!(zz_global_oom).own_daemon().needs(&[Need::Vm])];

/// The test and the daemon are spared, the hog offers itself.
fn zz_global_oom(stage: &mut Stage) -> Result<()> {
    for pid in [std::process::id(), stage.daemon.pid()] {
        fs::write(format!("/proc/{pid}/oom_score_adj"), "-1000")
            .context("spare the test and the daemon")?;
    }
    let (total, group) = (memory_total()?, stage.tree.make("hog")?);
    let more = ((total >> 20) * 2).to_string();
    let hog = ["--oom-score-adj", "1000", "--gate", "hog", "--limit-mib", &more];
    let (mut hog, truth) = at_the_gate(&stage.cast().on_our_own_host()?.within(&group).args(hog))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let seen = truth.seen.as_nanos();
    Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .by_kernel("oom_global")
        .limit_named("none")
        .is("/victim/oom_score_adj", 1000)
        // Whoever allocates next when nothing is left: the hog, or any other.
        .like("/killer/trigger", "a task", |task| task.get("pid").is_some_and(Value::is_u64))
        .like("/oom/incident_ktime_ns", "after the victim was seen", move |at| {
            at.as_u64().is_some_and(|at| u128::from(at) >= seen)
        })
        .is("/oom/group", false)
        .like("/memory/anon_bytes", "half the memory or more", move |size| {
            size.as_u64().is_some_and(|size| (total / 2..=total).contains(&size))
        })
        .like("/memory/peak_rss_bytes", "half the memory or more", move |size| {
            size.as_u64().is_some_and(|size| (total / 2..=total).contains(&size))
        })
        .maybe_like("/memory/levels", "no level with a limit", |levels| {
            levels
                .as_array()
                .is_some_and(|levels| levels.iter().all(|level| level.get("limit_bytes").is_none()))
        })
        .compare(&stage.daemon.death_of(&truth)?)
}

/// Bytes of memory of this host.
fn memory_total() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .with_context(|| format!("MemTotal says {line:?}"))?;
    Ok(kib << 10)
}
