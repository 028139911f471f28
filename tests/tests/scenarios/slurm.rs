//! Jobs of a real batch system: Slurm.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::{Group, Hierarchy};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::slurm::Cluster;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{at_the_gate, number};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(a_step_runs_out_of_its_memory).needs(SLURM),
    play!(each_task_of_an_array_is_told_by_its_index).needs(SLURM),
];

/// On v2 its node daemon wants a systemd to ask for scopes.
const SLURM: &[Need] =
    &[Need::MemoryV1, Need::Program("slurmctld"), Need::Program("slurmd"), Need::Program("munged")];

/// What a job asks for, in MiB, and so its limit.
const MEMORY: u64 = 48;

/// Doubles a text until the job's limit is reached.
const DOUBLE: &str = "x=aaaaaaaa; while :; do x=$x$x; done";

fn a_step_runs_out_of_its_memory(stage: &mut Stage) -> Result<()> {
    let cluster = Cluster::start(stage.victim(), &stage.tree.make("slurm")?)?;
    let memory = format!("--mem={MEMORY}");
    let script = format!("echo \"{{\\\"pid\\\":$$,\\\"tids\\\":[$$]}}\"; read go; {DOUBLE}");
    let casting = cluster.srun()?.args([&memory, "--job-name=doubler", "--", "/bin/sh", "-c"]);
    let (mut srun, truth) =
        at_the_gate(&casting.args([&script])).with_context(|| cluster.logs())?;
    let place = format!("/slurm_{}/uid_0/job_1/step_0/task_0", cluster.node());
    ensure!(truth.cgroup == place, "{} is not {place}", truth.cgroup);
    let step = step_of(&truth)?;
    srun.go()?;
    let ended = srun.reap()?;
    ensure!(!ended.success(), "srun saw no death: {ended}");
    let told = oom(stage, &truth, &step).is(
        "/victim/environ",
        json!({
            "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "doubler", "SLURM_JOB_PARTITION": "main", "SLURM_JOB_USER": "root",
            "SLURM_PROCID": "0", "SLURM_STEP_ID": "0",
        }),
    );
    stage.holds(&truth, &of_job(told, "1", "doubler", ("0", "SLURM_PROCID"))).map(drop)
}

/// Two at once. Each is a job of its own to Slurm, with a number of its own; the array's is the number that was submitted.
fn each_task_of_an_array_is_told_by_its_index(stage: &mut Stage) -> Result<()> {
    let cluster = Cluster::start(stage.victim(), &stage.tree.make("slurm")?)?;
    let said = "{\\\"pid\\\":$$,\\\"job\\\":\\\"$SLURM_JOB_ID\\\",\\\"array\\\":\\\"$SLURM_ARRAY_JOB_ID\\\"}";
    let script = format!(
        "trap go=1 USR1; echo \"{said}\" >said.$SLURM_ARRAY_TASK_ID; while [ -z \"$go\" ]; do :; done; {DOUBLE}\n"
    );
    let memory = format!("--mem={MEMORY}");
    cluster.sbatch(&[&memory, "--array=3-4", "--job-name=many"], &script)?;
    let mut tasks = Vec::new();
    for index in ["3", "4"] {
        let waits = format!("task {index} to wait");
        let said: Value = wait_until(Duration::from_secs(20), &waits, || {
            // It is there before it is written.
            let line = cluster.read(&format!("said.{index}")).filter(|line| line.ends_with('\n'));
            line.map(|line| serde_json::from_str(&line).context("what a task says")).transpose()
        })
        .with_context(|| cluster.logs())?;
        tasks.push((index, Truth::of(number(&said, "pid")?)?, said));
    }
    let ids = |key: &str| [&tasks[0].2[key], &tasks[1].2[key]];
    ensure!(ids("job")[0] != ids("job")[1] && ids("array")[0] == ids("array")[1], "{tasks:?}");
    for (index, truth, said) in &tasks {
        let id = said["job"].as_str().context("no job")?;
        let place = format!("/slurm_{}/uid_0/job_{id}/step_batch/task_0", cluster.node());
        ensure!(truth.cgroup == place, "{} is not {place}", truth.cgroup);
        let step = step_of(truth)?;
        let pid = i32::try_from(truth.pid).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, Signal::USR1).context("let a task go")?;
        let told = oom(stage, truth, &step)
            .is(
                "/victim/environ",
                json!({
                    "SLURM_ARRAY_JOB_ID": said["array"], "SLURM_ARRAY_TASK_ID": index, "SLURM_JOB_ID": id,
                    "SLURM_JOB_NAME": "many", "SLURM_JOB_PARTITION": "main", "SLURM_JOB_USER": "root", "SLURM_PROCID": "0",
                }),
            );
        stage.holds(truth, &of_job(told, id, "many", (index, "SLURM_ARRAY_TASK_ID")))?;
    }
    Ok(())
}

/// The cgroup around a task's own, which Slurm limits.
fn step_of(truth: &Truth) -> Result<Group> {
    let task = Group::at(&Hierarchy::find()?, &truth.cgroup);
    let step = task.parent().context("a task in no step")?;
    step.require_ceiling()?;
    Ok(step)
}

fn oom(stage: &Stage, truth: &Truth, step: &Group) -> Expected {
    let limit = MEMORY << 20;
    Expected::death(truth, stage.daemon.node())
        .oom(truth, step, limit)
        // The text that did not fit any more was as long as all before.
        .like("/memory/anon_bytes", "a good part of the limit", move |size| {
            size.as_u64().is_some_and(|size| (limit / 4..=limit + limit / 8).contains(&size))
        })
        .like("/memory/peak_rss_bytes", "a good part of the limit", move |size| {
            size.as_u64().is_some_and(|size| size >= limit / 4)
        })
}

/// `index` with the variable that it is from.
fn of_job(expected: Expected, id: &str, name: &str, index: (&str, &str)) -> Expected {
    expected
        .is("/job/id", id)
        .is("/job/name", name)
        .is("/job/scheduler", "slurm")
        .is("/job/index", index.0)
        .is("/job/sources/index", format!("environ:{}", index.1))
        .is("/job/sources/id", "cgroup_path")
        .is("/job/sources/name", "environ:SLURM_JOB_NAME")
        .is("/job/sources/scheduler", "cgroup_path")
}
