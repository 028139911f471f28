//! The ways that a fatal signal can come, and from whom.

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Tree;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::sender::Sender;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Victim;

use crate::{at_the_gate, dies_alone, number, write_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(tgkill_to_one_of_its_threads),
    play!(sigqueue),
    play!(real_time_signal),
    play!(a_grandchild_that_is_gone_at_once),
    play!(a_write_to_cgroup_kill).needs(&[Need::CgroupKill]),
    play!(the_parent_exits_and_takes_it_along),
    play!(the_tracer_exits_and_takes_it_along),
    play!(kill_9_to_itself),
    play!(a_pipe_that_nobody_reads),
    play!(an_alarm_clock),
];

/// A thread alone is the target; the process dies.
fn tgkill_to_one_of_its_threads(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let (mut victim, truth) =
        at_the_gate(&stage.cast().within(&group).args(["sleep", "--threads", "4"]))?;
    ensure!(truth.tids.len() == 4, "{truth:?}");
    let tid = truth.tids.iter().find(|tid| **tid != truth.pid).context("no other thread")?;
    let sender = send(stage, truth.pid, 9, &["--how", "tgkill", "--tid", &tid.to_string()])?;
    victim.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node()).signal(9, "SIGKILL");
    stage.holds(&truth, &expected.killed_by(&sender.via("tgkill"))).map(drop)
}

fn sigqueue(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = sleeper(stage)?;
    let sender = send(stage, truth.pid, 15, &["--how", "sigqueue"])?;
    victim.reap_killed_by(15)?;
    let expected = Expected::death(&truth, stage.daemon.node()).signal(15, "SIGTERM");
    stage.holds(&truth, &expected.killed_by(&sender.via("sigqueue"))).map(drop)
}

fn real_time_signal(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = sleeper(stage)?;
    let sender = send(stage, truth.pid, 40, &[])?;
    victim.reap_killed_by(40)?;
    let expected = Expected::death(&truth, stage.daemon.node()).signal(40, "signal 40");
    stage.holds(&truth, &expected.killed_by(&sender)).map(drop)
}

/// Two relays and a sender that all end at once: only the kernel's side can have seen whose child that was.
fn a_grandchild_that_is_gone_at_once(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = sleeper(stage)?;
    let (program, pid) = (stage.victim().display().to_string(), truth.pid.to_string());
    let group = stage.tree.make("killer")?;
    let casting = stage
        .cast()
        .within(&group)
        .args(["nest", "2", "--", &program, "--gate", "send", &pid, "9"]);
    let (mut outer, killer) = at_the_gate(&casting)?;
    ensure!(killer.ancestors.get(1).is_some_and(|(pid, _)| *pid == outer.pid()), "{killer:?}");
    outer.go()?;
    outer.reap_exited(0)?;
    victim.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node()).signal(9, "SIGKILL");
    stage.holds(&truth, &expected.killed_by(&Sender::from(&killer))).map(drop)
}

/// All that is in it dies by the hand of whoever wrote the file.
fn a_write_to_cgroup_kill(stage: &mut Stage) -> Result<()> {
    let unified = Tree::unified()?;
    let (doomed, group) = (unified.make("doomed")?, stage.tree.make("worker")?);
    let (mut first, _) = at_the_gate(&stage.cast().within(&group).args(["sleep"]))?;
    let threads = ["sleep", "--threads", "3"];
    let (mut second, _) = at_the_gate(&stage.cast().within(&group).args(threads))?;
    let mut truths = Vec::new();
    for pid in [first.pid(), second.pid()] {
        doomed.add(pid)?;
        truths.push(Truth::of(pid)?);
    }
    let sender = write_by_shell("1", &doomed.dir().join("cgroup.kill"))?.via("cgroup_kill");
    first.reap_killed_by(9)?;
    second.reap_killed_by(9)?;
    for truth in truths {
        let expected = Expected::death(&truth, stage.daemon.node()).signal(9, "SIGKILL");
        stage.holds(&truth, &expected.killed_by(&sender))?;
    }
    Ok(())
}

/// `PR_SET_PDEATHSIG`. The child has another parent by the time it dies.
fn the_parent_exits_and_takes_it_along(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let casting = stage.cast().within(&group).args(["--gate", "fork", "--tied", "--", "exit", "0"]);
    let (mut parent, parent_truth) = at_the_gate(&casting)?;
    let child = Truth::of(number(&parent.hear("child")?, "child")?)?;
    ensure!(child.ppid == parent_truth.pid, "{child:?}");
    parent.go()?;
    parent.reap_exited(0)?;
    // Whoever adopts orphans here.
    let heirs: Vec<u32> = parent_truth.ancestors.iter().map(|(pid, _)| *pid).collect();
    let names: Vec<String> = parent_truth.ancestors.iter().map(|(_, comm)| comm.clone()).collect();
    let expected = Expected::death(&child, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&Sender::from(&parent_truth).via("parent_death_signal"))
        .follows_exit("parent", &parent_truth, 0)
        .like("/victim/ppid", "an ancestor of its parent", move |ppid| {
            heirs.iter().any(|heir| ppid == heir)
        })
        .like("/victim/parent_comm", "the name of an ancestor of its parent", move |comm| {
            names.iter().any(|name| comm == name)
        });
    stage.holds(&child, &expected).map(drop)
}

/// `PTRACE_O_EXITKILL`. Nothing but the moment says that the tracer is behind it.
fn the_tracer_exits_and_takes_it_along(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = sleeper(stage)?;
    let casting = stage.cast().args(["--gate", "trace", &truth.pid.to_string()]);
    let (mut tracer, tracer_truth) = at_the_gate(&casting)?;
    tracer.go()?;
    tracer.reap_exited(0)?;
    victim.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&Sender::from(&tracer_truth).via("tracer_exit"))
        .inferred();
    stage.holds(&truth, &expected).map(drop)
}

fn kill_9_to_itself(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["raise", "9"], 9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .by_itself("killed", "kill", &truth);
    stage.holds(&truth, &expected).map(drop)
}

fn a_pipe_that_nobody_reads(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["pipe"], 13)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(13, "SIGPIPE")
        .by_itself("killed", "kernel", &truth);
    stage.holds(&truth, &expected).map(drop)
}

/// It rings in the context of whoever is running then: that one is no killer.
fn an_alarm_clock(stage: &mut Stage) -> Result<()> {
    let truth = dies_alone(stage, &["alarm"], 14)?;
    let own = Sender::from(&truth);
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(14, "SIGALRM")
        .is("/cause", "killed")
        .is("/killer/kind", "self")
        .is("/killer/via", "timer")
        .maybe("/killer/pid", own.pid)
        .maybe("/killer/comm", own.comm.clone())
        .maybe("/killer/uid", own.uid)
        .maybe("/killer/ppid", own.ppid)
        .maybe("/killer/cgroup", own.cgroup.clone())
        .maybe("/killer/ancestors", own.told_ancestors());
    stage.holds(&truth, &expected).map(drop)
}

fn sleeper(stage: &Stage) -> Result<(Victim, Truth)> {
    at_the_gate(&stage.cast().within(&stage.tree.make("worker")?).args(["sleep"]))
}

/// Has a program of ours send a signal, from where the tests are.
fn send(stage: &Stage, pid: u32, signal: i32, how: &[&str]) -> Result<Sender> {
    let casting = stage
        .cast()
        .args(["--gate", "send", &pid.to_string(), &signal.to_string()])
        .args(how.to_vec());
    let (mut sender, truth) = at_the_gate(&casting)?;
    sender.go()?;
    sender.reap_exited(0)?;
    Ok(Sender::from(&truth))
}
