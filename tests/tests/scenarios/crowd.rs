//! Many deaths at once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::sender::Sender;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::scaled;
use serde_json::Value;

pub(crate) const SCENARIOS: &[Scenario] =
    &[play!(two_hundred_in_one_second_have_one_record_each).own_daemon()];

const CROWD: usize = 200;

fn two_hundred_in_one_second_have_one_record_each(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("crowd")?;
    let crowd = CROWD.to_string();
    let mut parent = stage.cast().within(&group).args(["--gate", "deaths", &crowd]).start()?;
    let waiting = parent.hear("pids")?;
    let killer = Sender::from(&Truth::of(parent.pid())?);
    let pids = waiting.get("pids").and_then(Value::as_array).context("no pids")?;
    let mut truths = Vec::new();
    for pid in pids.iter().filter_map(Value::as_u64) {
        truths.push(Truth::of(u32::try_from(pid)?)?);
    }
    ensure!(truths.len() == CROWD);
    parent.go()?;
    let done = parent.hear("seconds")?;
    let most = scaled(Duration::from_secs(1)).as_secs_f64();
    ensure!(
        done["seconds"].as_f64().is_some_and(|seconds| seconds < most),
        "not within {most} s: {done}"
    );
    parent.reap_exited(0)?;

    for truth in &truths {
        let record = stage.daemon.death_of(truth)?;
        Expected::death(truth, stage.daemon.node())
            .signal(9, "SIGKILL")
            .killed_by(&killer)
            .compare(&record)?;
        ensure!(
            stage.daemon.sunk_death_of(truth)? == record,
            "the log sink tells {} differently",
            truth.pid
        );
    }
    // Every record is in by now: none twice, in neither place, and no id twice.
    let told = stage.daemon.deaths("limit=1000")?;
    one_each(&told, &truths).context("in the answer")?;
    one_each(&stage.daemon.sink()?, &truths).context("in the log sink")
}

fn one_each(records: &[Value], truths: &[Truth]) -> Result<()> {
    let mut ids = BTreeMap::<&str, u32>::new();
    let mut pids = BTreeMap::<u64, u32>::new();
    for record in records {
        *ids.entry(record.pointer("/id").and_then(Value::as_str).context("no id")?).or_default() +=
            1;
        *pids
            .entry(record.pointer("/victim/pid").and_then(Value::as_u64).context("no pid")?)
            .or_default() += 1;
    }
    ids.retain(|_, count| *count > 1);
    ensure!(ids.is_empty(), "ids that are not unique: {ids:?}");
    let wrong: Vec<_> =
        truths.iter().filter(|truth| pids.get(&u64::from(truth.pid)) != Some(&1)).collect();
    ensure!(wrong.is_empty(), "without one record each: {wrong:#?}");
    Ok(())
}
