//! Processes whose first thread is not the one that matters.

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Victim;

use crate::{LIMIT, at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(the_leader_is_gone_and_a_worker_is_chosen),
    play!(the_leader_is_gone_and_then_kill_9),
    play!(a_thread_becomes_a_program_while_sigkill_comes),
];

/// The kernel can only choose a thread that has memory: not the first one, which ended before.
fn the_leader_is_gone_and_a_worker_is_chosen(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", LIMIT)?;
    let casting = stage.cast().within(&group).args(["--gate", "leaderless", "--", "hog"]);
    let (mut hog, truth, worker) = leaderless(&casting)?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .oom(&truth, &group, LIMIT)
        .is("/victim/tid", worker)
        .is("/killer/trigger/tid", worker);
    stage.holds(&truth, &one_thread_or_two(expected)).map(drop)
}

fn the_leader_is_gone_and_then_kill_9(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let casting = stage.cast().within(&group).args(["--gate", "leaderless", "--", "sleep"]);
    let (mut victim, truth, _) = leaderless(&casting)?;
    let sender = kill_by_shell("9", truth.pid, 0)?;
    victim.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node()).signal(9, "SIGKILL");
    stage.holds(&truth, &one_thread_or_two(expected.killed_by(&sender))).map(drop)
}

/// A victim whose first thread has ended, as it was before, and the thread that goes on.
fn leaderless(casting: &killwatch_tests::victim::Casting) -> Result<(Victim, Truth, u32)> {
    let (mut victim, truth) = at_the_gate(casting)?;
    let worker = truth.tids.iter().copied().find(|tid| *tid != truth.pid).context("no worker")?;
    victim.go()?;
    victim.hear("leader")?;
    Ok((victim, truth, worker))
}

/// A zombie thread is still a thread to some.
fn one_thread_or_two(expected: Expected) -> Expected {
    expected.like("/victim/threads", "1 or 2", |threads| *threads == 1 || *threads == 2)
}

/// While one thread takes over the process and the others end, SIGKILL comes: one death, one record.
fn a_thread_becomes_a_program_while_sigkill_comes(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    for turn in 0..20 {
        let casting = stage.cast().within(&group).args(["--gate", "become-again"]);
        let (mut victim, truth) = at_the_gate(&casting)?;
        victim.go()?;
        let sender = kill_by_shell("9", truth.pid, 0)?;
        victim.reap_killed_by(9).with_context(|| format!("turn {turn}"))?;
        let cmdline = truth.cmdline.clone();
        let expected = Expected::death(&truth, stage.daemon.node())
            .signal(9, "SIGKILL")
            .killed_by(&sender)
            .like("/victim/tid", "a thread", |tid| tid.is_u64())
            .like("/victim/threads", "8 at most", |threads| {
                threads.as_u64().is_some_and(|threads| (1..=8).contains(&threads))
            })
            // What is being replaced may be between the old and the new.
            .maybe("/victim/cmdline", cmdline);
        let record = stage.holds(&truth, &expected)?;
        let again = stage.daemon.deaths_of(&truth)?;
        ensure!(again == [record], "{again:#?}");
    }
    Ok(())
}
