//! A kernel that is locked down: BPF may not read its memory, so the kernel log is all there is.

use anyhow::{Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::stage::Stage;
use serde_json::Value;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] =
    &[play!(an_oom_kill_is_told_from_the_kernel_log).own_daemon().needs(&[Need::Lockdown])];

/// The daemon runs, says what it lacks, and what is therefore missing in a record.
fn an_oom_kill_is_told_from_the_kernel_log(stage: &mut Stage) -> Result<()> {
    let is_list = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    let status = stage.daemon.json("/api/v1/status")?;
    ensure!(is_list(&status["degraded"]), "it does not say what it lacks: {status:#}");
    let group = stage.tree.limited("worker", LIMIT)?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let record = stage.daemon.death_of(&truth)?;
    ensure!(
        record["cause"] == "oom_memcg"
            && record["victim"]["comm"] == truth.comm
            && record["workload"]["cgroup"] == group.path()
            && is_list(&record["missing"]),
        "not as the kernel log has it: {record:#}"
    );
    Ok(())
}
