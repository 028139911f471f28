//! Whose pid, whose uid.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario, not_applicable};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::sender::Sender;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;

use crate::{at_the_gate, kill_by_shell, number};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(a_pid_in_a_namespace),
    play!(a_setuid_program),
    play!(the_same_pid_again).own_daemon().needs(&[Need::Vm]),
];

/// Nobody's user id: any that is not root's.
const SOMEONE: u32 = 65534;

/// Has one number there, and another here: the record tells both.
fn a_pid_in_a_namespace(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let casting = stage.cast().within(&group).args(["pidns", "--", "fork", "--", "sleep"]);
    let (mut outer, _) = at_the_gate(&casting)?;
    let child = Truth::of(number(&outer.hear("child")?, "child")?)?;
    ensure!(child.ns_pid == 2 && child.pid != 2, "{child:?}");
    let sender = kill_by_shell("9", child.pid, 0)?;
    let expected = Expected::death(&child, stage.daemon.node()).signal(9, "SIGKILL");
    stage.holds(&child, &expected.killed_by(&sender).is("/victim/ns_pid", 2))?;
    outer.release();
    ensure!(outer.hear("reaped")?["code"] == 0);
    outer.reap_exited(0)
}

/// Runs as one user for another, and no other process of either may look at it. Its own user is told, and its job.
fn a_setuid_program(stage: &mut Stage) -> Result<()> {
    let dir = tempfile::TempDir::new().context("make a directory")?;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).context("open the directory")?;
    let program = dir.path().join("victim");
    fs::copy(stage.victim(), &program).context("copy the victim")?;
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).context("make it setuid")?;
    let (user, program) = (SOMEONE.to_string(), program.display().to_string());
    let casting = stage
        .cast()
        .within(&stage.tree.make("worker")?)
        .with_env("JOB_ID", "setuid")
        .args(["--uid", &user, "become", "--", &program, "sleep"]);
    let (mut victim, truth) = at_the_gate(&casting)?;
    let status = fs::read_to_string(format!("/proc/{}/status", truth.pid)).context("its status")?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("no Uid:")?;
    let uids: Vec<&str> = uids.split_whitespace().collect();
    if uids.get(1) == Some(&user.as_str()) {
        return Err(not_applicable(format!(
            "{} is on a file system without setuid",
            dir.path().display()
        )));
    }
    ensure!(uids.first() == Some(&user.as_str()) && uids.get(1) == Some(&"0"), "{uids:?}");
    let sender = kill_by_shell("9", truth.pid, 0)?;
    victim.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&sender)
        .job_of_environ("JOB_ID", "setuid")
        .is("/victim/uid", SOMEONE);
    stage.holds(&truth, &expected).map(drop)
}

/// Two processes with one pid, one right after the other: two deaths, each with its own story.
fn the_same_pid_again(stage: &mut Stage) -> Result<()> {
    let all = "/proc/sys/kernel/pid_max";
    let before = fs::read_to_string(all).context("read pid_max")?;
    fs::write(all, "1000").context("make pids few")?;
    let played = one_pid_twice(stage);
    fs::write(all, before).context("make pids many again")?;
    played
}

fn one_pid_twice(stage: &Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let (mut parent, parent_truth) =
        at_the_gate(&stage.cast().within(&group).args(["--gate", "pid-again"]))?;
    let first = Truth::of(number(&parent.hear("child")?, "child")?)?;
    parent.go()?;
    let second = Truth::of(number(&parent.hear("again")?, "again")?)?;
    ensure!(first.pid == second.pid && first.started <= second.started, "{first:?} {second:?}");
    parent.go()?;
    parent.reap_exited(0)?;
    let records = killwatch_tests::wait::wait_until(
        std::time::Duration::from_secs(5),
        "two records of one pid",
        || {
            let records = stage.daemon.deaths(&format!("pid={}", first.pid))?;
            ensure!(records.len() <= 2, "{records:#?}");
            Ok((records.len() == 2).then_some(records))
        },
    )?;
    // Newest first.
    Expected::death(&second, stage.daemon.node())
        .signal(6, "SIGABRT")
        .by_itself("abort", "tgkill", &second)
        .compare(&records[0])?;
    Expected::death(&first, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&Sender::from(&parent_truth))
        .compare(&records[1])
}
