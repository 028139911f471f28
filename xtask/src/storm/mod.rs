//! `storm`: as many abnormal deaths as this machine can cause, with every receiver down, then up; and what became of each.
//!
//! What must hold is an error if it does not: each death is recorded or counted as dropped by the ring, and each that was recorded
//! reaches each receiver under its own id. Rate and memory are figures: they are shown beside their targets.

pub(crate) mod account;
pub(crate) mod memory;
pub(crate) mod receiver;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use self::account::Account;
use self::memory::Sampler;
use self::receiver::Receiver;
use crate::context::Ctx;
use crate::daemon::Daemon;
use crate::process::{Owned, step};
use crate::stop::Stop;
use crate::{build, programs};

/// How long the deaths, and then the deliveries, may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Receivers.
const RECEIVERS: usize = 2;
/// What the daemon may hold resident, in MiB.
const RESIDENT_TARGET_MIB: f64 = 32.0;

/// Arguments of `storm`.
#[derive(clap::Args)]
pub(crate) struct StormArgs {
    /// Deaths to cause
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    deaths: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Further flags for the daemon
    #[arg(last = true)]
    flags: Vec<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    caused: u64,
    deaths_per_second: f64,
    recorded: u64,
    dropped_by_the_ring: u64,
    told: Vec<Told>,
    resident_before_mib: f64,
    resident_peak_mib: f64,
    resident_after_mib: f64,
    resident_target_mib: f64,
}

/// What one receiver heard.
#[derive(Debug, Serialize)]
struct Told {
    /// Records, each counted once.
    records: usize,
    /// Deliveries of a record that had been delivered before, under the same id.
    repeated: u64,
    seconds_to_catch_up: f64,
}

/// Causes, waits, compares, prints.
pub(crate) fn run(ctx: &Ctx, args: &StormArgs) -> Result<()> {
    let built = build::daemon(ctx)?;
    let victim = programs::build(ctx, &built.object)?
        .victim
        .context("killwatch-tests has no binary `victim`")?;
    let stop = Stop::install()?;
    let dir = tempfile::Builder::new().prefix("killwatch-storm-").tempdir()?;
    let receivers = (0..RECEIVERS).map(|_| Receiver::reserve()).collect::<Result<Vec<_>>>()?;
    let config = dir.path().join("killwatch.yaml");
    fs::write(&config, configuration(&receivers, dir.path()))
        .context("cannot write the configuration")?;
    let config = config.to_str().context("the temporary directory is not UTF-8")?;
    let mut flags = vec!["--config.file", config, "--log.level", "warn"];
    flags.extend(args.flags.iter().map(String::as_str));
    let daemon = step("start the daemon, its receivers down", || {
        Daemon::start(&built.daemon, &flags, &stop)
    })?;
    let sampler = Sampler::start(daemon.pid());
    let before = Account::of(daemon.api())?;
    let workers = thread::available_parallelism()
        .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    let share = args.deaths.div_ceil(workers);
    let caused = u64::from(share * workers);
    let began = Instant::now();
    step(&format!("{caused} deaths, {workers} at a time"), || {
        let mut loads = (0..workers)
            .map(|_| {
                let mut command = Command::new(&victim);
                command
                    .args(["aborts", &share.to_string()])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null());
                let child = command.spawn().context("cannot run the victims")?;
                Ok(Owned { child, grace: Duration::ZERO })
            })
            .collect::<Result<Vec<_>>>()?;
        for load in &mut loads {
            let status = stop.until("the deaths", LIMIT, || {
                load.child.try_wait().context("cannot watch the victims")
            })?;
            ensure!(status.success(), "the victims ended with {status}");
        }
        Ok(())
    })?;
    let deaths_per_second = caused as f64 / began.elapsed().as_secs_f64();
    let account = step("each is recorded, or counted as dropped", || {
        stop.until("caused = recorded + dropped", LIMIT, || {
            let now = Account::of(daemon.api())?.since(&before);
            ensure!(
                now.recorded + now.dropped <= caused,
                "{} recorded and {} dropped, of {caused} that were caused",
                now.recorded,
                now.dropped
            );
            Ok((now.recorded + now.dropped == caused).then_some(now))
        })
        .map_err(|error| daemon.explain(error))
    })?;
    let ids = account::ids(daemon.api())?;
    ensure!(
        ids.len() as u64 == account.recorded,
        "the ledger has {} records, {} were counted",
        ids.len(),
        account.recorded
    );
    let up = Instant::now();
    let mut receivers = receivers.into_iter().map(Receiver::open).collect::<Result<Vec<_>>>()?;
    let mut caught_up = vec![None; receivers.len()];
    step("the receivers come up and hear of each", || {
        stop.until("every record at every receiver", LIMIT, || {
            for (receiver, caught_up) in receivers.iter_mut().zip(&mut caught_up) {
                if caught_up.is_none() && receiver.heard() >= ids.len() {
                    *caught_up = Some(up.elapsed());
                }
            }
            Ok(caught_up.iter().all(Option::is_some).then_some(()))
        })
        .map_err(|error| {
            let heard: Vec<_> = receivers.iter().map(Receiver::heard).collect();
            daemon.explain(error.context(format!("heard of {heard:?}, of {}", ids.len())))
        })
    })?;
    let told = receivers
        .into_iter()
        .zip(caught_up)
        .map(|(receiver, caught_up)| told(receiver, &ids, caught_up.unwrap_or_default()))
        .collect::<Result<Vec<_>>>()?;
    let resident = sampler.stop()?;
    let report = Report {
        caused,
        deaths_per_second,
        recorded: account.recorded,
        dropped_by_the_ring: account.dropped,
        told,
        resident_before_mib: resident.first,
        resident_peak_mib: resident.peak,
        resident_after_mib: resident.last,
        resident_target_mib: RESIDENT_TARGET_MIB,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).context("the report does not print")?);
    } else {
        print(&report);
    }
    Ok(())
}

/// Two webhooks, each told of each death singly, and a ledger that keeps all of them.
fn configuration(receivers: &[Receiver], dir: &std::path::Path) -> String {
    let mut yaml = format!(
        "ledger: {{path: {}, max_deaths: 1000000, max_bytes: 4GiB}}\nlog_sink: none\nsinks:\n",
        dir.join("ledger.redb").display()
    );
    for (number, receiver) in receivers.iter().enumerate() {
        yaml += &format!(
            "  - {{webhook: {{url: \"{}\", batch: 50}}, name: receiver-{number}, group: 0s, rate: 10000}}\n",
            receiver.url()
        );
    }
    yaml
}

/// Holds what a receiver heard to what is in the ledger.
fn told(receiver: Receiver, ids: &BTreeSet<String>, caught_up: Duration) -> Result<Told> {
    let heard = receiver.close();
    if let Some(missing) = ids.iter().find(|id| !heard.ids.contains(*id)) {
        bail!("a receiver never heard of {missing}");
    }
    Ok(Told {
        records: ids.len(),
        repeated: heard.deliveries - heard.ids.len() as u64,
        seconds_to_catch_up: caught_up.as_secs_f64(),
    })
}

fn print(report: &Report) {
    println!(
        "\n{} deaths caused, {:.0} a second\n{} recorded + {} dropped by the ring = {}",
        report.caused,
        report.deaths_per_second,
        report.recorded,
        report.dropped_by_the_ring,
        report.recorded + report.dropped_by_the_ring
    );
    for (number, told) in report.told.iter().enumerate() {
        println!(
            "receiver {number}: heard of all {}, {} of them again, {:.1} s after it came up",
            told.records, told.repeated, told.seconds_to_catch_up
        );
    }
    let verdict =
        if report.resident_peak_mib <= report.resident_target_mib { "met" } else { "missed" };
    println!(
        "resident: {:.1} MiB before, {:.1} MiB at most, {:.1} MiB at the end (target: {:.0} MiB, {verdict})",
        report.resident_before_mib,
        report.resident_peak_mib,
        report.resident_after_mib,
        report.resident_target_mib
    );
}
