//! Victims that the OOM killer marked and that do not go.

use std::time::Duration;

use anyhow::{Result, ensure};
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::wait::wait_until;
use serde_json::Value;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[play!(held_on_its_way_out)];

/// From the mark until a victim counts as stuck, in seconds.
const STUCK_AFTER: f64 = 10.0;

/// A tracer holds it as it is about to exit: told once as stuck, and once as dead when it is let go.
fn held_on_its_way_out(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
    let hold = ["--gate", "trace", &truth.pid.to_string(), "--hold-at-exit"];
    let (mut tracer, _) = at_the_gate(&stage.cast().args(hold))?;
    hog.go()?;
    let what = format!("{} to be held", truth.pid);
    wait_until(Duration::from_secs(10), &what, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", truth.pid))?;
        Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('t')).then_some(()))
    })?;
    let since_mark = |most: f64| {
        move |told: &Value| told.as_f64().is_some_and(|told| (STUCK_AFTER..most).contains(&told))
    };
    let expected = || Expected::death(&truth, stage.daemon.node()).oom(&truth, &group, LIMIT);
    let stuck = expected()
        .is("/state", "stuck")
        .like("/stuck_seconds", "10 or a little more", since_mark(STUCK_AFTER + 5.0))
        .absent("/victim/status")
        .absent("/victim/status_meaning")
        .absent("/victim/signal")
        .absent("/victim/signal_name")
        .absent("/victim/core_dumped")
        .absent("/victim/parent_comm")
        .absent("/victim/pid_ns")
        .maybe("/victim/ns_pid", truth.ns_pid)
        .absent("/victim/oom_score_adj")
        .maybe("/victim/oom_score_adj", truth.oom_score_adj);
    let record = stage.daemon.record_of(&truth, "stuck", Duration::from_secs(20))?;
    stuck.compare(&record)?;
    let records = stage.daemon.deaths_of(&truth)?;
    ensure!(records.len() == 1, "it is not dead yet: {records:#?}");
    tracer.go()?;
    tracer.reap_exited(0)?;
    hog.reap_killed_by(9)?;
    let dead = expected().like("/stuck_seconds", "10 or more", since_mark(600.0));
    let dead = stage.holds(&truth, &dead)?;
    ensure!(dead["id"] != record["id"], "two records under one id");
    ensure!(dead["oom"] == record["oom"], "two decisions: {dead:#} {record:#}");
    Ok(())
}
