//! Receivers of deaths that are away, slow, picky or late. They are a **mock** ([`killwatch_tests::receiver`]): no real one gives these answers on demand.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::receiver::{Answer, Receiver};
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::aborts;

/// They are about the daemon and not about the kernel, and take minutes under emulation.
const NO_VM: &[Need] = &[Need::NoVm];

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(one_that_was_down_is_told_of_all_in_order).needs(NO_VM),
    play!(one_that_hangs_delays_no_other).needs(NO_VM),
    play!(one_that_is_busy_is_asked_later_and_one_that_refuses_is_passed_by).needs(NO_VM),
    play!(a_restart_loses_nothing).needs(NO_VM),
    play!(a_crash_loses_nothing).needs(NO_VM),
];

/// A sink waits a minute at most before it tries again, and a request that hangs is given up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const PATH: &str = "/hook";

/// A daemon that tells these receivers, in place of the stage's. Its configuration is in the directory.
fn telling(stage: &mut Stage, receivers: &[(&str, &Receiver)]) -> Result<TempDir> {
    let dir = TempDir::with_prefix("killwatch-sinks-").context("make a directory")?;
    let sink = |(name, receiver): &(&str, &Receiver)| {
        // Each death by itself: gathering is another test's business.
        json!({ "name": name, "group": "0s", "webhook": { "url": receiver.url(PATH) } })
    };
    let sinks: Vec<Value> = receivers.iter().map(sink).collect();
    let flags = configured(dir.path(), &json!({ "sinks": sinks }))?;
    stage.daemon = Arc::new(Daemon::start_as(Launch { flags, ..Launch::default() })?);
    Ok(dir)
}

/// JSON is YAML.
fn configured(dir: &Path, config: &Value) -> Result<Vec<OsString>> {
    let file = dir.join("killwatch.yaml");
    std::fs::write(&file, config.to_string())
        .with_context(|| format!("write {}", file.display()))?;
    Ok(vec!["--config.file".into(), file.into()])
}

/// Some deaths, and the ids of their records, oldest first.
fn die(stage: &Stage, count: usize) -> Result<Vec<String>> {
    let truths = (0..count).map(|_| aborts(stage)).collect::<Result<Vec<Truth>>>()?;
    let id = |truth: &Truth| {
        let record = stage.daemon.death_of(truth)?;
        record["id"].as_str().map(str::to_owned).context("a record without id")
    };
    truths.iter().map(id).collect()
}

/// Waits until all of these were taken. Others may be among them: the host has deaths of its own.
fn takes(receiver: &Receiver, ids: &[String]) -> Result<()> {
    wait_until(PATIENCE, "the receiver takes them", || {
        let taken = receiver.taken();
        Ok(ids.iter().all(|id| taken.contains(id)).then_some(()))
    })
    .with_context(|| format!("of {ids:?}, taken are {:?}", receiver.taken()))
}

/// These, as they came first.
fn in_order(receiver: &Receiver, ids: &[String]) -> Vec<String> {
    let mut order = Vec::new();
    for id in receiver.taken() {
        if ids.contains(&id) && !order.contains(&id) {
            order.push(id);
        }
    }
    order
}

fn counted(daemon: &Daemon, name: &str, sink: &str) -> Result<f64> {
    let value = sample(&daemon.metrics()?, name, &[("sink", sink)])?;
    value.with_context(|| format!("no {name} of {sink}"))
}

fn one_that_was_down_is_told_of_all_in_order(stage: &mut Stage) -> Result<()> {
    let mut hook = Receiver::down()?;
    let _config = telling(stage, &[("hook", &hook)])?;
    let ids = die(stage, 4)?;
    wait_until(PATIENCE, "an attempt to fail", || {
        Ok((counted(&stage.daemon, "killwatch_sink_failed_total", "hook")? > 0.0).then_some(()))
    })?;
    hook.listen()?;
    takes(&hook, &ids)?;
    ensure!(in_order(&hook, &ids) == ids, "{ids:?} came as {:?}", hook.taken());
    let once = hook.taken().iter().filter(|id| ids.contains(id)).count();
    ensure!(once == ids.len(), "what was taken was sent again: {:?}", hook.taken());
    let event = hook.received().pop().context("nothing was received")?;
    ensure!(event.what == format!("POST {PATH}"), "{event:#?}");
    Ok(())
}

fn one_that_hangs_delays_no_other(stage: &mut Stage) -> Result<()> {
    let (stuck, quick) = (Receiver::up(Answer::Hang)?, Receiver::up(Answer::Status(200))?);
    let _config = telling(stage, &[("stuck", &stuck), ("quick", &quick)])?;
    let mut ids = die(stage, 1)?;
    wait_until(PATIENCE, "the first to hang", || Ok((stuck.hanging() > 0).then_some(())))?;
    ids.extend(die(stage, 3)?);
    takes(&quick, &ids)?;
    ensure!(stuck.taken().is_empty(), "it was to hang: {:?}", stuck.taken());
    ensure!(in_order(&quick, &ids) == ids, "{ids:?} came as {:?}", quick.taken());
    stuck.answer(Answer::Status(200));
    takes(&stuck, &ids)?;
    ensure!(in_order(&stuck, &ids) == ids, "{ids:?} came as {:?}", stuck.taken());
    Ok(())
}

fn one_that_is_busy_is_asked_later_and_one_that_refuses_is_passed_by(
    stage: &mut Stage,
) -> Result<()> {
    const BUSY: u32 = 2;
    let hook = Receiver::up(Answer::Status(200))?;
    hook.script(&[Answer::Busy(BUSY)]);
    let _config = telling(stage, &[("hook", &hook)])?;
    let ids = die(stage, 1)?;
    takes(&hook, &ids)?;
    let received = hook.received();
    let (first, second) = (received.first().context("none")?, received.get(1).context("one")?);
    ensure!(first.answer == Answer::Busy(BUSY) && first.ids() == second.ids(), "{received:#?}");
    let waited = second.at.duration_since(first.at);
    ensure!(waited >= Duration::from_secs(u64::from(BUSY)), "it came again after {waited:?}");

    hook.script(&[Answer::Status(400)]);
    let refused = die(stage, 1)?;
    let next = die(stage, 1)?;
    takes(&hook, &next)?;
    let skipped = counted(&stage.daemon, "killwatch_sink_skipped_total", "hook")?;
    ensure!(skipped >= 1.0, "what was refused for good is not counted");
    let again =
        hook.received().iter().filter(|request| request.answer == Answer::Status(400)).count();
    ensure!(again == 1, "asked {again} times for what it refuses");
    // Some other death of the host may have been the one that was refused.
    let all = hook.received();
    let sent = all.iter().filter(|request| request.ids() == refused).count();
    ensure!(sent == 1, "{refused:?} was sent {sent} times");
    Ok(())
}

fn a_restart_loses_nothing(stage: &mut Stage) -> Result<()> {
    between_two_daemons(stage, |stage| {
        let status = stage.own()?.stop()?;
        ensure!(status.success(), "the daemon was to end well, but: {status}");
        Ok(())
    })
}

fn a_crash_loses_nothing(stage: &mut Stage) -> Result<()> {
    between_two_daemons(stage, |stage| stage.own()?.kill())
}

/// Deaths that the receiver did not take from one daemon it gets from the next, under the same ids.
fn between_two_daemons(
    stage: &mut Stage,
    end: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<()> {
    let hook = Receiver::up(Answer::Status(200))?;
    let _config = telling(stage, &[("hook", &hook)])?;
    let mut ids = die(stage, 2)?;
    takes(&hook, &ids)?;
    hook.answer(Answer::HangUp);
    ids.extend(die(stage, 3)?);
    end(stage)?;
    hook.answer(Answer::Status(200));
    stage.own()?.start_again()?;
    ids.extend(die(stage, 1)?);
    takes(&hook, &ids)?;
    ensure!(in_order(&hook, &ids) == ids, "{ids:?} came as {:?}", hook.taken());
    Ok(())
}
