//! The ledger's file: what it keeps over the daemon's end, and what becomes of it when the disk fails.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::disk::Disk;
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;
use serde_json::Value;

use crate::{aborts, of};

/// They are about the daemon and not about the kernel, and take minutes under emulation.
const NO_VM: &[Need] = &[Need::NoVm];

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(deaths_outlive_kill_nine).own_daemon().needs(NO_VM),
    play!(a_corrupt_file_is_set_aside).own_daemon().needs(NO_VM),
    play!(a_full_disk_costs_no_death).needs(NO_VM),
    play!(a_read_only_disk_costs_no_death).needs(NO_VM),
    play!(a_follower_outlives_the_daemon).own_daemon().needs(NO_VM),
];

/// How the daemon says that deaths are told before they are on the disk.
const DEGRADED: &str = "killwatch_ledger_degraded";
/// The ledger tries a broken disk again after 30 s at the latest.
const HEALS_WITHIN: Duration = Duration::from_secs(60);
/// Room of a disk: for the file as it begins, and some more.
const ROOM: u64 = 8 << 20;
/// A file that is not full takes some deaths also when the disk is.
const DEATHS_AT_MOST: usize = 500;
/// All that the command tells.
const ALL: &[&str] = &["deaths", "-o", "json", "--limit", "1000000"];

/// The records of these deaths as the command tells them: each once.
fn told(daemon: &Daemon, truths: &[Truth]) -> Result<Vec<Value>> {
    let records = of(truths, &daemon.tell(ALL)?);
    ensure!(
        records.len() == truths.len(),
        "{} records of {} deaths: {records:#?}",
        records.len(),
        truths.len()
    );
    Ok(records)
}

fn die(stage: &Stage, count: usize) -> Result<Vec<Truth>> {
    let truths = (0..count).map(|_| aborts(stage)).collect::<Result<Vec<_>>>()?;
    truths.iter().try_for_each(|truth| stage.daemon.death_of(truth).map(drop))?;
    Ok(truths)
}

fn last(daemon: &Daemon) -> Result<u64> {
    daemon.json("/api/v1/deaths?limit=1")?["last"].as_u64().context("no `last`")
}

fn deaths_outlive_kill_nine(stage: &mut Stage) -> Result<()> {
    let mut truths = die(stage, 5)?;
    let before = told(&stage.daemon, &truths)?;
    let seq = last(&stage.daemon)?;
    ensure!(seq >= 5, "the last number is {seq}");
    stage.own()?.kill()?;
    ensure!(told(&stage.daemon, &truths)? == before, "the file tells other deaths than the daemon");
    stage.own()?.start_again()?;
    ensure!(told(&stage.daemon, &truths)? == before, "the next daemon tells other deaths");
    ensure!(last(&stage.daemon)? >= seq, "the numbers begin anew");
    truths.extend(die(stage, 1)?);
    let after = told(&stage.daemon, &truths)?;
    ensure!(after.starts_with(&before), "what is new comes before what is old");
    ensure!(last(&stage.daemon)? > seq, "a new death has an old number");
    // A cursor from before the end is good after it.
    let news = stage.daemon.json(&format!("/api/v1/deaths?after={seq}"))?;
    let news = news["deaths"].as_array().context("no deaths")?.clone();
    ensure!(of(&truths, &news) == after[5..], "after {seq}: {news:#?}");
    Ok(())
}

fn a_corrupt_file_is_set_aside(stage: &mut Stage) -> Result<()> {
    die(stage, 1)?;
    stage.own()?.kill()?;
    let file = stage.daemon.ledger();
    let garbage = "this is no ledger\n".repeat(10_000);
    std::fs::write(&file, &garbage).context("spoil the ledger")?;
    let refused = stage.daemon.command(ALL).output().context("run the program")?;
    ensure!(refused.status.code() == Some(69), "{refused:?}");
    stage.own()?.start_again()?;
    let truths = die(stage, 2)?;
    told(&stage.daemon, &truths)?;
    let aside = file.with_file_name("ledger.redb.set-aside-1");
    let kept =
        std::fs::read_to_string(&aside).with_context(|| format!("read {}", aside.display()))?;
    ensure!(kept == garbage, "what was set aside was changed");
    let log = stage.daemon.whole_log()?;
    ensure!(log.contains("set-aside-1"), "the log does not say what became of the file");
    Ok(())
}

/// Starts a daemon whose ledger is on this disk, in place of the stage's.
fn on_disk(stage: &mut Stage, disk: &Disk) -> Result<()> {
    let file = disk.path().join("ledger.redb");
    let flags = vec!["--ledger.path".into(), file.into()];
    stage.daemon = Arc::new(Daemon::start_as(Launch { flags, ..Launch::default() })?);
    Ok(())
}

fn degraded_is(daemon: &Daemon, value: f64) -> Result<bool> {
    let degraded = sample(&daemon.metrics()?, DEGRADED, &[])?;
    Ok(degraded.with_context(|| format!("no {DEGRADED}"))? == value)
}

fn heals(daemon: &Daemon) -> Result<()> {
    wait_until(HEALS_WITHIN, "the ledger is on the disk again", || {
        Ok(degraded_is(daemon, 0.0)?.then_some(()))
    })
}

/// After its end the file alone tells all.
fn all_are_in_the_file(stage: &mut Stage, disk: &Disk, truths: &[Truth]) -> Result<()> {
    stage.own()?.kill()?;
    let file = disk.path().join("ledger.redb");
    let file = file.to_str().context("a path")?;
    let offline = [ALL, &["--offline", "--ledger.path", file]].concat();
    let records = of(truths, &stage.daemon.tell(&offline)?);
    ensure!(records.len() == truths.len(), "{} of {}", records.len(), truths.len());
    Ok(())
}

fn a_full_disk_costs_no_death(stage: &mut Stage) -> Result<()> {
    let disk = Disk::of(ROOM)?;
    on_disk(stage, &disk)?;
    let mut truths = die(stage, 2)?;
    ensure!(degraded_is(&stage.daemon, 0.0)?, "it is degraded from the start");
    disk.fill()?;
    while !degraded_is(&stage.daemon, 1.0)? {
        ensure!(truths.len() < DEATHS_AT_MOST, "a full disk takes everything");
        truths.extend(die(stage, 1)?);
    }
    truths.extend(die(stage, 3)?);
    told(&stage.daemon, &truths)?;
    disk.free()?;
    heals(&stage.daemon)?;
    truths.extend(die(stage, 1)?);
    told(&stage.daemon, &truths)?;
    all_are_in_the_file(stage, &disk, &truths)
}

fn a_read_only_disk_costs_no_death(stage: &mut Stage) -> Result<()> {
    let disk = Disk::of(ROOM)?;
    on_disk(stage, &disk)?;
    let mut truths = die(stage, 2)?;
    // The kernel lets nobody make a disk read-only while a file is open for writing.
    stage.own()?.stop()?;
    disk.set_read_only(true)?;
    stage.own()?.start_again()?;
    let news = die(stage, 2)?;
    ensure!(degraded_is(&stage.daemon, 1.0)?, "it does not say that nothing is written");
    told(&stage.daemon, &news)?;
    disk.set_read_only(false)?;
    heals(&stage.daemon)?;
    truths.extend(news);
    told(&stage.daemon, &truths)?;
    all_are_in_the_file(stage, &disk, &truths)
}

/// `killwatch deaths -f` shows each death once, over the daemon's end and start.
fn a_follower_outlives_the_daemon(stage: &mut Stage) -> Result<()> {
    let mut truths = die(stage, 2)?;
    let out = tempfile::NamedTempFile::new().context("make a file")?;
    let mut follower = stage
        .daemon
        .command(&["deaths", "-f", "-o", "json"])
        .stdout(out.reopen().context("open the file")?)
        .spawn()
        .context("start a follower")?;
    let followed = |truths: &[Truth]| {
        wait_until(HEALS_WITHIN, "the follower shows them", || {
            let text = std::fs::read_to_string(out.path()).context("read what it shows")?;
            let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let records = lines
                .map(serde_json::from_str)
                .collect::<Result<Vec<Value>, _>>()
                .context(text.clone())?;
            let shown = of(truths, &records);
            ensure!(shown.len() <= truths.len(), "shown twice: {shown:#?}");
            Ok((shown.len() == truths.len()).then_some(()))
        })
    };
    followed(&truths)?;
    truths.extend(die(stage, 1)?);
    followed(&truths)?;
    // The next daemon must answer at the address that the follower knows.
    stage.own()?.kill()?;
    stage.own()?.start_again()?;
    truths.extend(die(stage, 2)?);
    let shown = followed(&truths);
    let pid = i32::try_from(follower.id()).ok().and_then(rustix::process::Pid::from_raw);
    let interrupt = rustix::process::Signal::INT;
    rustix::process::kill_process(pid.context("a pid")?, interrupt).context("interrupt it")?;
    let status = follower.wait().context("wait for the follower")?;
    shown?;
    ensure!(status.success(), "the follower ended so: {status}");
    Ok(())
}
