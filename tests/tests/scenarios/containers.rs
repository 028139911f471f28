//! Containers whose first process and whose children end at different times, by different causes.

use std::time::Duration;

use anyhow::{Result, ensure};
use killwatch_tests::corpus::Scenario;
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;

use crate::{LIMIT, at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[play!(a_childs_oom_kill_and_then_a_plain_stop)];

const POD_UID: &str = "5a1d7c33-0b2e-4c64-9f0a-7e1d3b5f9a21";

/// What the field's best-known flag gets wrong: the container is stopped by SIGTERM, long after a child of it was OOM killed.
fn a_childs_oom_kill_and_then_a_plain_stop(stage: &mut Stage) -> Result<()> {
    let container = format!("{:0>64}", format!("{:x}7", std::process::id())).replace('0', "e");
    let group =
        stage.tree.limited(&format!("kubepods/burstable/pod{POD_UID}/{container}"), LIMIT)?;
    let program = stage.victim().display().to_string();
    let casting = stage.cast().within(&group).args(["parent", "--", &program, "--gate", "hog"]);
    let (mut first, child) = at_the_gate(&casting)?;
    let first_truth = Truth::of(first.pid())?;
    first.go()?;
    ensure!(first.hear("reaped")?["signal"] == 9);
    let named = |expected: Expected| {
        expected
            .is("/workload/container_id", container.clone())
            .is("/workload/pod_uid", POD_UID)
            .is("/workload/qos", "Burstable")
    };
    let node = stage.daemon.node();
    let expected = Expected::death(&child, node).oom(&child, &group, LIMIT);
    stage.holds(&child, &named(expected))?;
    let kills = || {
        sample(
            &stage.daemon.metrics()?,
            "container_oom_killed_total",
            &[("container_id", &container)],
        )
    };
    wait_until(Duration::from_secs(10), "the kill to be counted", || {
        Ok((kills()? == Some(1.0)).then_some(()))
    })?;

    let sender = kill_by_shell("TERM", first_truth.pid, 0)?;
    first.reap_killed_by(15)?;
    let expected = Expected::death(&first_truth, node).signal(15, "SIGTERM").killed_by(&sender);
    stage.holds(&first_truth, &named(expected))?;
    ensure!(kills()? == Some(1.0), "the stop was counted as an OOM kill: {:?}", kills()?);
    Ok(())
}
