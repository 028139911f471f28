//! Containers of a real runtime: runc.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use killwatch_tests::cgroup::{Group, Hierarchy};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::runc::Container;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::{Truth, handles};
use killwatch_tests::wait::wait_until;

use crate::LIMIT;

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(runc_kill_term_and_then_kill).needs(RUNC),
    play!(an_oom_kill_in_a_container).needs(RUNC),
];

const RUNC: &[Need] = &[Need::Program("runc"), Need::Program("busybox")];

/// A container id of this process.
fn id(digit: char) -> String {
    format!("{:f>64}", format!("{:x}{digit}", std::process::id()))
}

/// What `docker stop` comes to: the init of the container has no handler, so the grace runs out.
fn runc_kill_term_and_then_kill(stage: &mut Stage) -> Result<()> {
    const GRACE: Duration = Duration::from_secs(1);
    let id = id('a');
    let container = Container::run(&id, LIMIT, &["/bin/busybox", "sleep", "1000"])?;
    let init = container.init()?;
    ensure!(init.ns_pid == 1 && init.cgroup == format!("/{id}"), "{init:?}");
    let term = container.kill("TERM")?;
    let began = Instant::now();
    wait_until(2 * GRACE, "the grace", || Ok((began.elapsed() >= GRACE).then_some(())))?;
    let kill = container.kill("KILL")?;
    let expected = Expected::death(&init, stage.daemon.node())
        .signal(9, "SIGKILL")
        .sent_by("process", &kill)
        .is("/cause", "stop_timeout")
        .stopped_before(&term, GRACE.as_secs_f64(), true)
        .is("/stop/init_without_handler", true);
    stage.holds(&init, &contained(expected, &id)).map(drop)
}

/// A shell that doubles a text until the container's limit is reached. It waits for that until it has been looked at.
fn an_oom_kill_in_a_container(stage: &mut Stage) -> Result<()> {
    let id = id('b');
    let script =
        "trap 'go=1' USR1; while [ -z \"$go\" ]; do :; done; x=aaaaaaaa; while :; do x=$x$x; done";
    let container = Container::run(&id, LIMIT, &["/bin/busybox", "sh", "-c", script])?;
    // Until the shell has a handler for it, the first process of a namespace is sent it in vain.
    let init = container.init()?;
    wait_until(Duration::from_secs(5), "the shell to have its handler", || {
        Ok(handles(init.pid, 10)?.then_some(()))
    })?;
    container.kill("USR1")?;
    let group = Group::at(&Hierarchy::find()?, &format!("/{id}"));
    let expected = oom(&init, &group, stage);
    stage.holds(&init, &contained(expected, &id)).map(drop)
}

fn oom(init: &Truth, group: &Group, stage: &Stage) -> Expected {
    Expected::death(init, stage.daemon.node())
        .oom(init, group, LIMIT)
        // The text that did not fit any more was as long as all before.
        .like("/memory/anon_bytes", "a good part of the limit", |size| {
            size.as_u64().is_some_and(|size| (LIMIT / 4..=LIMIT + LIMIT / 8).contains(&size))
        })
}

fn contained(expected: Expected, id: &str) -> Expected {
    expected.is("/workload/container_id", id)
}
