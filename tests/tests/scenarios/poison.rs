//! A job that is killed again and again, and others that are not.

use std::time::Duration;

use anyhow::{Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(the_third_death_of_a_job_is_told_once_with_all_three).needs(&[Need::NoVm]),
    play!(a_group_that_falls_together_is_one_failure).needs(&[Need::NoVm, Need::MemoryV2]),
];

/// A process of a job runs into its limit.
fn meets_its_limit(stage: &Stage, name: &str, job: &str) -> Result<Truth> {
    let group = stage.tree.limited(name, LIMIT)?;
    let casting = stage.cast().within(&group).with_env("JOB_ID", job);
    let (mut hog, truth) = at_the_gate(&casting.args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    Ok(truth)
}

fn alerts_of(stage: &Stage, job: &str) -> Result<Vec<Value>> {
    let mut alerts = stage.daemon.alerts()?;
    alerts.retain(|alert| alert["job"]["id"] == job);
    Ok(alerts)
}

fn the_third_death_of_a_job_is_told_once_with_all_three(stage: &mut Stage) -> Result<()> {
    // Of this run alone: the daemon may be one that others use too.
    let job = format!("render-{}", std::process::id());
    let other = format!("other-{}", std::process::id());
    let mut told = Vec::new();
    for turn in 0..3 {
        ensure!(alerts_of(stage, &job)?.is_empty(), "told too early, before death {turn}");
        meets_its_limit(stage, &format!("other{turn}"), &format!("{other}{turn}"))?;
        let truth = meets_its_limit(stage, &format!("worker{turn}"), &job)?;
        told.push(stage.daemon.sunk_death_of(&truth)?);
    }
    let alert =
        wait_until(Duration::from_secs(5), "the alert", || Ok(alerts_of(stage, &job)?.pop()))?;
    let deaths: Vec<Value> = told
        .iter()
        .map(|record| {
            json!({
                "id": record["id"],
                "time": record["time"],
                "cause": "oom_memcg",
                "pid": record["victim"]["pid"],
                "comm": record["victim"]["comm"],
            })
        })
        .collect();
    let last = &told[2];
    let expected = json!({
        "id": alert["id"],
        "schema": 1,
        "node": stage.daemon.node(),
        "time": last["time"],
        "alert": "poison_job",
        "job": last["job"],
        "window_seconds": 3600,
        "deaths": deaths,
    });
    ensure!(alert == expected, "is {alert:#}, should be {expected:#}");
    // One more is no news. Its own record in the sink comes after whatever was to come before it.
    let fourth = meets_its_limit(stage, "worker3", &job)?;
    stage.daemon.sunk_death_of(&fourth)?;
    let fifth = meets_its_limit(stage, "worker4", "another")?;
    stage.daemon.sunk_death_of(&fifth)?;
    ensure!(alerts_of(stage, &job)? == [alert], "told again: {:#?}", alerts_of(stage, &job)?);
    let others = stage.daemon.alerts()?;
    ensure!(
        !others
            .iter()
            .any(|alert| alert["job"]["id"].as_str().is_some_and(|id| id.starts_with(&other)))
    );
    Ok(())
}

fn a_group_that_falls_together_is_one_failure(stage: &mut Stage) -> Result<()> {
    let job = format!("ranks-{}", std::process::id());
    let group = stage.tree.limited("worker", LIMIT)?;
    group.write("memory.oom.group", "1")?;
    let casting = stage.cast().within(&group).with_env("JOB_ID", &job);
    let act = ["--gate", "fork", "--count", "3", "--", "hog"];
    let (mut victim, truth) = at_the_gate(&casting.args(act))?;
    for _ in 0..3 {
        victim.hear("child")?;
    }
    victim.go()?;
    victim.reap_killed_by(9)?;
    let first = stage.daemon.sunk_death_of(&truth)?;
    let incident = &first["oom"]["incident_ktime_ns"];
    wait_until(Duration::from_secs(5), "all four of the group", || {
        let mut records = stage.daemon.sink()?;
        records.retain(|record| record["job"]["id"] == job);
        ensure!(records.iter().all(|record| record["oom"]["incident_ktime_ns"] == *incident));
        Ok((records.len() == 4).then_some(()))
    })?;
    // Its own record in the sink comes after whatever was to come before it.
    let last = meets_its_limit(stage, "last", "another")?;
    stage.daemon.sunk_death_of(&last)?;
    let alerts = alerts_of(stage, &job)?;
    ensure!(alerts.is_empty(), "{alerts:#?}");
    Ok(())
}
