//! What the victim belonged to: container, pod, job.

use std::time::Duration;

use anyhow::{Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::Daemon;
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::wait::wait_until;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(a_kubelets_container_is_named_and_counted),
    play!(each_kill_of_a_container_counts).needs(&[Need::NoVm]),
    play!(the_environment_gives_the_job_and_keeps_its_secrets),
];

const POD_UID: &str = "3f6c1a52-9d1e-4b7a-8c55-0d2f7be01234";
/// In the environment of a victim, and to be seen nowhere else. Neither is part of any command line.
const SECRET: [&str; 2] = ["DATABASE_PASSWORD_OF_TEST", "correct-horse-battery-staple"];

/// An id that no other scenario of this or another process has.
fn container_id(digit: char) -> String {
    format!("{:0>64}", format!("{:x}{digit}", std::process::id())).replace('0', "c")
}

fn a_kubelets_container_is_named_and_counted(stage: &mut Stage) -> Result<()> {
    let container = container_id('1');
    let group =
        stage.tree.limited(&format!("kubepods/burstable/pod{POD_UID}/{container}"), LIMIT)?;
    let casting = stage.cast().within(&group).with_env("JOB_ID", "4711").args(["--gate", "hog"]);
    let (mut hog, truth) = at_the_gate(&casting)?;
    count_is(&stage.daemon, &container, 0.0)?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .job_of_environ("JOB_ID", "4711")
        .is("/workload/container_id", container.clone())
        .is("/workload/pod_uid", POD_UID)
        .is("/workload/qos", "Burstable")
        .compare(&stage.daemon.death_of(&truth)?)?;
    count_is(&stage.daemon, &container, 1.0)?;
    ensure!(
        stage
            .daemon
            .deaths("job=4711&limit=1000")?
            .iter()
            .any(|record| record.pointer("/victim/pid").is_some_and(|pid| *pid == truth.pid)),
        "the job does not lead to its death"
    );
    Ok(())
}

fn each_kill_of_a_container_counts(stage: &mut Stage) -> Result<()> {
    let container = container_id('2');
    let group =
        stage.tree.limited(&format!("kubepods/besteffort/pod{POD_UID}/{container}"), LIMIT)?;
    let mut incidents = Vec::new();
    for kills in [1.0, 2.0] {
        let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
        hog.go()?;
        hog.reap_killed_by(9)?;
        let record = stage.daemon.death_of(&truth)?;
        Expected::death(&truth, stage.daemon.node())
            .oom(&truth, &group, LIMIT)
            .is("/workload/container_id", container.clone())
            .is("/workload/pod_uid", POD_UID)
            .is("/workload/qos", "BestEffort")
            .compare(&record)?;
        incidents.push(record["oom"]["incident_ktime_ns"].clone());
        count_is(&stage.daemon, &container, kills)?;
    }
    ensure!(incidents[0] != incidents[1], "two decisions under one time: {incidents:?}");
    Ok(())
}

/// One variable of the environment is on the list; the other must not be anywhere.
fn the_environment_gives_the_job_and_keeps_its_secrets(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let casting = stage
        .cast()
        .within(&group)
        .with_env(SECRET[0], SECRET[1])
        .with_env("JOB_ID", "nightly \"7\"\n");
    let (mut hog, truth) = at_the_gate(&casting.args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let record = stage.daemon.death_of(&truth)?;
    Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .job_of_environ("JOB_ID", "nightly \"7\"\n")
        .compare(&record)?;
    ensure!(stage.daemon.sunk_death_of(&truth)? == record, "the log sink tells another story");
    let daemon = &stage.daemon;
    for (place, text) in [
        ("the API", daemon.get("/api/v1/deaths?limit=1000")?.1),
        ("the status", daemon.get("/api/v1/status")?.1),
        ("the metrics", daemon.metrics()?),
        ("the log sink", daemon.sink_text()?),
        ("the log", daemon.whole_log()?),
    ] {
        ensure!(!text.is_empty(), "{place} is empty: nothing is proven");
        for secret in SECRET {
            ensure!(!text.contains(secret), "{place} tells {secret}");
        }
    }
    Ok(())
}

/// Waits until the container's OOM kills are this many.
fn count_is(daemon: &Daemon, container: &str, kills: f64) -> Result<()> {
    let mut last = None;
    wait_until(
        Duration::from_secs(10),
        &format!("container_oom_killed_total of {container} is {kills}"),
        || {
            last = sample(
                &daemon.metrics()?,
                "container_oom_killed_total",
                &[("container_id", container)],
            )?;
            ensure!(
                last.is_none_or(|counted| counted <= kills),
                "{kills} kills are counted as {last:?}"
            );
            Ok((last == Some(kills)).then_some(()))
        },
    )
}
