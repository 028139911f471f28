//! Names, lifetimes and cgroups that try to slip away.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use anyhow::{Result, ensure};
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::{Truth, name_of, since_boot};
use serde_json::json;

use crate::{LIMIT, at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(a_name_that_looks_like_something_else),
    play!(a_name_that_is_not_utf8),
    play!(the_cgroup_is_removed_as_its_victim_is_reaped),
    play!(gone_within_milliseconds_of_its_exec),
];

fn a_name_that_looks_like_something_else(stage: &mut Stage) -> Result<()> {
    dies_under_the_name(stage, b") Z\n\"} 1", ") Z\n\"} 1")
}

fn a_name_that_is_not_utf8(stage: &mut Stage) -> Result<()> {
    dies_under_the_name(stage, b"\xff\xfe \x1b[31m", "\\xff\\xfe \u{1b}[31m")
}

fn dies_under_the_name(stage: &Stage, name: &[u8], on_record: &str) -> Result<()> {
    let name = OsString::from_vec(name.to_vec());
    let group = stage.tree.make("worker")?;
    let casting =
        stage.cast().within(&group).args(["--gate", "named"]).args([name]).args(["--", "sleep"]);
    let (mut victim, truth) = at_the_gate(&casting)?;
    let sender = kill_by_shell("KILL", truth.pid, 0)?;
    victim.reap_killed_by(9)?;
    let record = stage.daemon.death_of(&truth)?;
    // The command line holds the name's bytes too.
    Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&sender)
        .is("/victim/comm", on_record)
        .compare(&record)?;
    ensure!(stage.daemon.sunk_death_of(&truth)? == record, "the log sink tells another story");
    Ok(())
}

fn the_cgroup_is_removed_as_its_victim_is_reaped(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("pod/container", LIMIT)?;
    let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    group.remove()?;
    ensure!(!group.dir().exists());
    Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .compare_removed_at_once(&group, &stage.daemon.death_of(&truth)?)
}

/// So short that nobody can look into `/proc`: all that is known was seen by the kernel side.
fn gone_within_milliseconds_of_its_exec(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let own = Truth::of(std::process::id())?;
    for turn in 0..20 {
        let casting =
            stage.cast().within(&group).with_env("JOB_ID", &turn.to_string()).args(["abort"]);
        let seen = since_boot();
        let mut victim = casting.start()?;
        let pid = victim.pid();
        victim.reap_killed_by(6)?;
        // Written down, not read: the process was never looked at.
        let truth = Truth {
            pid,
            tids: vec![pid],
            ns_pid: pid,
            pid_ns: own.pid_ns,
            ppid: own.pid,
            parent_comm: name_of(own.pid)?,
            ancestors: [(own.pid, own.comm.clone())]
                .into_iter()
                .chain(own.ancestors.clone())
                .collect(),
            comm: "victim".to_owned(),
            cmdline: ["victim", "--cgroup", &group.dir().display().to_string(), "abort"]
                .map(str::to_owned)
                .to_vec(),
            uid: 0,
            oom_score_adj: own.oom_score_adj,
            started: seen,
            cgroup: group.path(),
            cgroup_id: group.id()?,
            seen,
        };
        let lived = since_boot() - seen;
        let mut cmdline = truth.cmdline.clone();
        cmdline[0] = stage.victim().display().to_string();
        Expected::death(&truth, stage.daemon.node())
            .signal(6, "SIGABRT")
            .by_itself("abort", "tgkill", &truth)
            .job_of_environ("JOB_ID", &turn.to_string())
            .is("/victim/cmdline", json!(cmdline))
            .like("/victim/start_ktime_ns", "a moment of the scenario", move |at| {
                at.as_u64().is_some_and(|at| {
                    (seen.as_nanos()..=(seen + lived).as_nanos()).contains(&at.into())
                })
            })
            .like("/victim/lifetime_seconds", &format!("{lived:?} at most"), move |seconds| {
                seconds
                    .as_f64()
                    .is_some_and(|seconds| seconds > 0.0 && seconds <= lived.as_secs_f64())
            })
            .compare(&stage.daemon.death_of(&truth)?)?;
    }
    Ok(())
}
