//! The daemon is killed again and again while processes die: each death is told once, or is counted as lost.
//!
//! When it is killed is drawn from a seed, which is printed; `KILLWATCH_SEED` plays a run again, `KILLWATCH_ROUNDS` makes it longer.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::bpffs::BpfFs;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::play;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Casting;
use killwatch_tests::wait::{scaled, wait_until};
use serde_json::Value;

use crate::at_the_gate;

/// They are about the daemon and not about the kernel, and take minutes under emulation.
const NO_VM: &[Need] = &[Need::NoVm];

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(kill_nine_at_any_moment).needs(NO_VM),
    play!(kill_nine_at_any_moment_without_pins).needs(NO_VM),
];

/// Rounds unless the environment says otherwise.
const ROUNDS: u64 = 8;
/// A daemon lives so long at most: it is killed while it starts, and while it works.
const LIFE: Duration = Duration::from_millis(1500);
/// Of a stream without end the last deaths would never be told.
const DEATHS_AT_MOST: usize = 20_000;
/// From the last death until all are told.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// Deaths that were seen by nobody, or read from the ring by a daemon that was killed before they were on the disk.
const LOST: &str = "deaths are lost with an earlier daemon";
const ALL: &[&str] = &["deaths", "-o", "json", "--limit", "1000000"];

/// Numbers that look random, the same from the same seed (xorshift64, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn thrown() -> Result<Self> {
        let seed = match std::env::var("KILLWATCH_SEED") {
            Ok(seed) => seed.parse().context("KILLWATCH_SEED is no number")?,
            Err(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                u64::try_from(now.as_nanos() & u128::from(u64::MAX))?
            }
        };
        eprintln!("KILLWATCH_SEED={seed}");
        Ok(Self(seed.max(1)))
    }

    fn below(&mut self, bound: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let parts = u32::try_from(self.0 % 1000).unwrap_or_default();
        bound * parts / 1000
    }
}

fn rounds() -> Result<u64> {
    match std::env::var("KILLWATCH_ROUNDS") {
        Ok(rounds) => rounds.parse().context("KILLWATCH_ROUNDS is no number"),
        Err(_) => Ok(ROUNDS),
    }
}

fn kill_nine_at_any_moment(stage: &mut Stage) -> Result<()> {
    let file_system = BpfFs::mount()?;
    let account = killed_again_and_again(stage, file_system.pins())?;
    ensure!(
        account.missing + account.own <= account.lost,
        "{} deaths and {} of daemons were not told, and {} are counted as lost",
        account.missing,
        account.own,
        account.lost
    );
    Ok(())
}

/// Without pins nobody sees what happens while no daemon runs: what was told is told once all the same, and the ledger is sound.
fn kill_nine_at_any_moment_without_pins(stage: &mut Stage) -> Result<()> {
    killed_again_and_again(stage, "none".into()).map(drop)
}

/// What became of the deaths that were caused.
struct Account {
    missing: usize,
    /// The daemons' own deaths, each of which is one for the next.
    own: usize,
    lost: usize,
}

fn killed_again_and_again(stage: &mut Stage, pins: PathBuf) -> Result<Account> {
    let (mut dice, rounds) = (Dice::thrown()?, rounds()?);
    // Room for all, whatever the default is.
    let mut flags = vec!["--ledger.max-deaths".into(), "1000000".into()];
    flags.extend(["--probe.pin".into(), pins.into_os_string()]);
    stage.daemon = Arc::new(Daemon::start_as(Launch { flags, ..Launch::default() })?);
    let group = stage.tree.make("worker")?;
    let casting = stage.cast().within(&group).args(["--gate", "abort"]);
    let stop = AtomicBool::new(false);
    let mut killed = Vec::new();
    let truths = std::thread::scope(|scope| {
        let victims = scope.spawn(|| stream(&casting, &stop));
        let played = (0..rounds).try_for_each(|_| {
            let daemon = stage.own()?;
            let life = scaled(dice.below(LIFE));
            let began = Instant::now();
            // The moment is what is tested; there is no state to wait for.
            wait_until(2 * LIFE, "its time to come", || {
                Ok((began.elapsed() >= life).then_some(()))
            })?;
            killed.push(daemon.pid());
            daemon.kill()?;
            daemon.start_again_and_go_on()
        });
        stop.store(true, Ordering::Relaxed);
        let truths = victims.join().map_err(|_| anyhow::anyhow!("the stream of victims broke"));
        played.and(truths?)
    })?;
    // Once more, and this one may work in peace.
    let daemon = stage.own()?;
    killed.push(daemon.pid());
    daemon.kill()?;
    daemon.start_again()?;
    let account = settled(daemon, &truths, &killed)?;
    eprintln!(
        "{rounds} rounds: of {} deaths {} were not told, of {} daemons' own {}; {} are counted as lost",
        truths.len(),
        account.missing,
        killed.len(),
        account.own,
        account.lost
    );
    is_sound(daemon)?;
    Ok(account)
}

/// One process after another dies, until it is to stop.
fn stream(casting: &Casting, stop: &AtomicBool) -> Result<Vec<Truth>> {
    let mut truths = Vec::new();
    while !stop.load(Ordering::Relaxed) && truths.len() < DEATHS_AT_MOST {
        let (mut victim, truth) = at_the_gate(casting)?;
        victim.go()?;
        victim.reap_killed_by(6)?;
        truths.push(truth);
    }
    ensure!(!truths.is_empty(), "nobody died");
    Ok(truths)
}

/// Waits until all is told that will be, and holds that each was told once.
fn settled(daemon: &Daemon, truths: &[Truth], killed: &[u32]) -> Result<Account> {
    let account = || -> Result<Account> {
        let records = daemon.tell(ALL)?;
        let mut by_pid: HashMap<u64, Vec<&Value>> = HashMap::new();
        for record in &records {
            let pid = record.pointer("/victim/pid").and_then(Value::as_u64);
            by_pid.entry(pid.context("a record without pid")?).or_default().push(record);
        }
        let told = |truth: &Truth| {
            let records = by_pid.get(&u64::from(truth.pid)).into_iter().flatten();
            // The pid may be given anew meanwhile: the start is exact to 1/100 s only.
            let until = truth.seen + Duration::from_millis(10);
            records
                .filter(|record| truth.is_told_in(record) && began(record) <= Some(until))
                .count()
        };
        let mut missing = 0;
        for truth in truths {
            match told(truth) {
                told @ 0..=1 => missing += 1 - told,
                told => anyhow::bail!("the death of {} is told {told} times", truth.pid),
            }
        }
        let told = |pid: &&u32| {
            let records = by_pid.get(&u64::from(**pid)).into_iter().flatten();
            records.into_iter().any(|record| record["victim"]["comm"] == "killwatch")
        };
        let own = killed.len() - killed.iter().filter(told).count();
        Ok(Account { missing, own, lost: lost(&daemon.whole_log()?) })
    };
    let mut last = None;
    let waited = wait_until(SETTLES_WITHIN, "every death to be told or counted as lost", || {
        let now = account()?;
        let even = now.missing + now.own <= now.lost;
        last = Some(now);
        Ok(even.then_some(()))
    });
    match (waited, last) {
        // That the account is not even is for the caller to judge.
        (_, Some(account)) => Ok(account),
        (Err(error), None) => Err(error),
        (Ok(()), None) => anyhow::bail!("no account was made"),
    }
}

/// What all daemons so far have said to be lost: their metrics went with them, their log is one.
fn lost(log: &str) -> usize {
    let lines = log.lines().filter(|line| line.contains(LOST));
    let numbers =
        lines.filter_map(|line| line.rsplit_once("deaths=")?.1.trim().parse::<usize>().ok());
    numbers.sum()
}

/// When the victim of a record was started, since boot.
fn began(record: &Value) -> Option<Duration> {
    record.pointer("/victim/start_ktime_ns").and_then(Value::as_u64).map(Duration::from_nanos)
}

/// The file was never set aside, and tells the same when no daemon runs.
fn is_sound(daemon: &mut Daemon) -> Result<()> {
    let directory = daemon.ledger().parent().context("a directory")?.to_owned();
    for entry in std::fs::read_dir(&directory).context("list the state's directory")? {
        let name = entry?.file_name();
        ensure!(!name.to_string_lossy().contains("set-aside"), "there is {}", name.display());
    }
    let ids = |records: Vec<Value>| -> Result<Vec<String>> {
        let id = |record: &Value| record["id"].as_str().map(str::to_owned);
        records.iter().map(|record| id(record).context("a record without id")).collect()
    };
    let online = ids(daemon.tell(ALL)?)?;
    let distinct: BTreeSet<_> = online.iter().collect();
    ensure!(distinct.len() == online.len(), "an id is there twice");
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon was to end well, but: {status}");
    let offline = ids(daemon.tell(&[ALL, &["--offline"]].concat())?)?;
    // Somebody else may have died meanwhile.
    ensure!(offline.starts_with(&online), "the file tells other deaths than the daemon");
    Ok(())
}
