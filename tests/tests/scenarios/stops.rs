//! Stops: SIGTERM, a grace, SIGKILL.

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::sender::Sender;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Victim;

use crate::{at_the_gate, kill_by_shell, number};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(sigterm_is_ignored_until_sigkill),
    play!(two_children_of_one_process_send_one_signal_each),
    play!(the_init_of_a_pid_namespace_gets_no_sigterm),
    play!(both_signals_at_once_are_no_stop),
    play!(two_who_know_nothing_of_each_other_are_no_stop),
];

/// Between the two signals, in milliseconds and in seconds.
const GRACE: (&str, f64) = ("1200", 1.2);

fn sigterm_is_ignored_until_sigkill(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = stubborn(stage)?;
    let sender = stop(stage, truth.pid, GRACE.0)?;
    victim.reap_killed_by(9)?;
    let expected = stopped(stage, &truth, &sender).stopped_before(&sender, GRACE.1, true);
    stage.holds(&truth, &expected).map(drop)
}

/// As a shim does that runs `runc kill` twice: the two senders have a parent in common, and nothing else.
fn two_children_of_one_process_send_one_signal_each(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = stubborn(stage)?;
    let pid = truth.pid.to_string();
    let casting = stage.cast().args(["--gate", "stop", &pid, "--grace", GRACE.0, "--by-children"]);
    let (mut shim, shim_truth) = at_the_gate(&casting)?;
    shim.go()?;
    let child = |said: &serde_json::Value, key: &str| -> Result<Sender> {
        let mut ancestors = vec![(shim_truth.pid, shim_truth.comm.clone())];
        ancestors.extend(shim_truth.ancestors.clone());
        let pid = number(said, key)?;
        Ok(Sender { pid, ppid: shim_truth.pid, ancestors, ..Sender::from(&shim_truth) })
    };
    let term = child(&shim.hear("sent15")?, "sent15")?;
    let kill = child(&shim.hear("sent9")?, "sent9")?;
    shim.reap_exited(0)?;
    victim.reap_killed_by(9)?;
    // Nothing but the parent they share says that both are one stop.
    let expected = stopped(stage, &truth, &kill).stopped_before(&term, GRACE.1, true).inferred();
    stage.holds(&truth, &expected).map(drop)
}

/// The kernel keeps a SIGTERM from an init that has no handler for it, so every stop of it runs out.
fn the_init_of_a_pid_namespace_gets_no_sigterm(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let (mut outer, truth) =
        at_the_gate(&stage.cast().within(&group).args(["pidns", "--", "sleep"]))?;
    ensure!(truth.ns_pid == 1 && truth.ppid == outer.pid(), "{truth:?}");
    let sender = stop(stage, truth.pid, GRACE.0)?;
    ensure!(outer.hear("reaped")?["signal"] == 9);
    outer.reap_exited(0)?;
    let expected = stopped(stage, &truth, &sender)
        .stopped_before(&sender, GRACE.1, true)
        .is("/stop/init_without_handler", true);
    stage.holds(&truth, &expected).map(drop)
}

/// Nobody can use a grace that short.
fn both_signals_at_once_are_no_stop(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = stubborn(stage)?;
    let sender = stop(stage, truth.pid, "0")?;
    victim.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&sender)
        .stopped_before(&sender, 0.0, true)
        .like("/stop/grace_seconds", "less than 0.1", |grace| {
            grace.as_f64().is_some_and(|grace| (0.0..0.1).contains(&grace))
        });
    stage.holds(&truth, &expected).map(drop)
}

/// A SIGTERM by one, and a good second later a SIGKILL by another, with no parent in common.
fn two_who_know_nothing_of_each_other_are_no_stop(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) = stubborn(stage)?;
    let program = stage.victim().display().to_string();
    let (term, kill) = (truth.pid.to_string(), truth.pid.to_string());
    let via = ["relay", "--", &program, "--gate", "send", &term, "15"];
    let (mut first, first_truth) = at_the_gate(&stage.cast().args(via))?;
    first.go()?;
    first.reap_exited(0)?;
    let began = std::time::Instant::now();
    killwatch_tests::wait::wait_until(std::time::Duration::from_secs(5), "the grace", || {
        Ok((began.elapsed().as_secs_f64() > 0.3).then_some(()))
    })?;
    let sender = kill_by_shell("9", truth.pid, 0)?;
    victim.reap_killed_by(9).with_context(|| format!("kill {kill}"))?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&sender)
        .stopped_before(&Sender::from(&first_truth), 0.3, true);
    stage.holds(&truth, &expected).map(drop)
}

fn stopped(stage: &Stage, truth: &Truth, sender: &Sender) -> Expected {
    Expected::death(truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .sent_by("process", sender)
        .is("/cause", "stop_timeout")
}

fn stubborn(stage: &Stage) -> Result<(Victim, Truth)> {
    at_the_gate(&stage.cast().within(&stage.tree.make("worker")?).args(["sleep", "--ignore", "15"]))
}

/// Has a program of ours stop a process, and says who that was.
fn stop(stage: &Stage, pid: u32, grace: &str) -> Result<Sender> {
    let casting = stage.cast().args(["--gate", "stop", &pid.to_string(), "--grace", grace]);
    let (mut stopper, truth) = at_the_gate(&casting)?;
    stopper.go()?;
    stopper.reap_exited(0)?;
    Ok(Sender::from(&truth))
}
