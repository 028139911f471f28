//! How many deaths a second are recorded without loss, what happens beyond, and how many records one core can take in.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::bed::Bed;
use super::figure::{Figure, Part, Spread, Target};
use super::load;
use crate::build::{self, Rooms};
use crate::daemon::Daemon;
use crate::process::{self, step};
use crate::storm::account::Account;

const HOW: &str = "*Sustained*: so many processes at a time fork children and kill them with SIGKILL as fast as they can, a daemon with its default configuration and its ledger on disk. \
    *At once*: children that wait are all killed in one loop. *Beyond*: the same with the smallest ring that can be set (64 KiB), so that there is something to lose. Recovery is from the last \
    death until each is recorded or counted as lost. *Replay*: records in the kernel's own layout, from memory, through decoding, join, verdict, naming and advice into the ledger, on one core, built as the daemon is.";

/// How long the account of all deaths may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The part.
pub(super) fn measure(bed: &Bed<'_>) -> Result<Part> {
    let mut part = Part::new("loss", "Throughput and loss", HOW);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut best: Option<f64> = None;
    let mut unaccounted = 0.0;
    for at_a_time in [1, cores, 2 * cores] {
        let mut runs = Runs::default();
        for _ in 0..bed.pick(5, 1) {
            let dir = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
            let state = dir.path().to_string_lossy().into_owned();
            let daemon = bed.start(&["--state.path", &state])?;
            let each = bed.pick(20_000, 2_000) / at_a_time;
            runs.add(&storm(bed, &daemon, at_a_time, each)?);
        }
        let name = format!("{at_a_time} at a time");
        if runs.lost.iter().all(|lost| *lost == 0.0) {
            let slowest = runs.rates.iter().copied().reduce(f64::min);
            best = best.into_iter().chain(slowest).reduce(f64::max);
        }
        unaccounted += runs.push(&mut part, &name);
    }
    let sustained = Figure::exact("deaths a second without loss", "a second", best.unwrap_or(0.0));
    part.push(sustained.promised(Target::AtLeast(5_000.0)));
    for (name, ring) in [("at once", "2MiB"), ("beyond: at once, ring of 64 KiB", "64KiB")] {
        let mut runs = Runs::default();
        for _ in 0..bed.pick(5, 1) {
            let dir = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
            let state = dir.path().to_string_lossy().into_owned();
            let daemon = bed.start(&["--state.path", &state, "--probe.ring-bytes", ring])?;
            runs.add(&burst(bed, &daemon, bed.pick(5_000, 2_000))?);
        }
        unaccounted += runs.push(&mut part, name);
    }
    part.push(
        Figure::exact("deaths neither recorded nor counted as lost", "deaths", unaccounted)
            .promised(Target::AtMost(0.0)),
    );
    replay(bed, &mut part)?;
    if part.get("deaths a second without loss").is_some_and(|rate| rate < 5_000.0) {
        part.note("Bound of the sustained rate: forking and killing itself, which shares the cores with the daemon. *At once* shows what the daemon takes when nothing is forked meanwhile.");
    }
    Ok(part)
}

/// One run.
struct Outcome {
    caused: u64,
    seconds: f64,
    recorded: u64,
    lost: u64,
    recovery: Duration,
}

#[derive(Default)]
struct Runs {
    rates: Vec<f64>,
    lost: Vec<f64>,
    recovery: Vec<f64>,
    unaccounted: f64,
    others: u64,
}

impl Runs {
    fn add(&mut self, run: &Outcome) {
        self.rates.push(run.caused as f64 / run.seconds);
        self.lost.push(run.lost as f64);
        self.recovery.push(run.recovery.as_secs_f64() * 1e3);
        let told = run.recorded + run.lost;
        self.unaccounted += run.caused.saturating_sub(told) as f64;
        self.others += told.saturating_sub(run.caused);
    }

    fn push(self, part: &mut Part, name: &str) -> f64 {
        part.push(Figure::runs(format!("{name}: caused"), "deaths a second", self.rates));
        part.push(Figure::runs(format!("{name}: lost, counted"), "deaths", self.lost));
        part.push(Figure::runs(format!("{name}: recovery"), "ms", self.recovery));
        if self.others > 0 {
            part.note(format!(
                "{name}: {} deaths of others were recorded meanwhile; with them the account cannot be exact.",
                self.others
            ));
        }
        self.unaccounted
    }
}

/// As many loads at a time as asked for.
fn storm(bed: &Bed<'_>, daemon: &Daemon, at_a_time: usize, each: usize) -> Result<Outcome> {
    let before = Account::of(daemon.api())?;
    let each = each.to_string();
    let began = Instant::now();
    let loads = (0..at_a_time)
        .map(|_| load::start(&bed.victim, &["aborts", &each]))
        .collect::<Result<Vec<_>>>()?;
    let mut caused = 0;
    for running in loads {
        caused += load::finish(running, "aborts", bed)?.count;
    }
    account(bed, daemon, &before, caused, began.elapsed().as_secs_f64())
}

/// All at once.
fn burst(bed: &Bed<'_>, daemon: &Daemon, count: u64) -> Result<Outcome> {
    let before = Account::of(daemon.api())?;
    #[derive(Deserialize)]
    struct Said {
        pids: Vec<i32>,
        seconds: f64,
    }
    let said = process::output(
        std::process::Command::new(&bed.victim).args(["deaths", &count.to_string()]),
    )?;
    let said: Said =
        serde_json::from_str(&said).context("the victims did not say who they were")?;
    ensure!(said.pids.len() as u64 == count, "{} of {count} died", said.pids.len());
    account(bed, daemon, &before, count, said.seconds)
}

/// Waits until each is accounted for, or nothing more comes.
fn account(
    bed: &Bed<'_>,
    daemon: &Daemon,
    before: &Account,
    caused: u64,
    seconds: f64,
) -> Result<Outcome> {
    let ended = Instant::now();
    let mut told = Account { recorded: 0, dropped: 0 };
    let mut since = Instant::now();
    bed.stop
        .until("caused = recorded + lost", LIMIT, || {
            let now = Account::of(daemon.api())?.since(before);
            if now != told {
                (told, since) = (now, Instant::now());
            }
            let all = now.recorded + now.dropped >= caused;
            // Losses are taken over once a second: when nothing has come for three, nothing will.
            Ok((all || since.elapsed() > Duration::from_secs(3)).then_some(()))
        })
        .map_err(|error| daemon.explain(error))?;
    let recovery = since.duration_since(ended);
    Ok(Outcome { caused, seconds, recorded: told.recorded, lost: told.dropped, recovery })
}

/// What the bench `rooms` of the daemon's crate says, a line of JSON each.
#[derive(Debug, Deserialize)]
struct Room {
    room: String,
    records: u64,
    seconds: f64,
}

/// Decode → verdict → ledger, alone.
fn replay(bed: &Bed<'_>, part: &mut Part) -> Result<()> {
    let bench = step("build the bench of the rooms", || rooms(bed))?;
    let mut rates: std::collections::BTreeMap<String, Vec<f64>> = std::collections::BTreeMap::new();
    let _pinned = load::Pinned::to_last()?;
    for _ in 0..bed.pick(7, 2) {
        let said = process::output(
            std::process::Command::new(&bench).arg("--records").arg(bed.pick("50000", "5000")),
        )?;
        for line in said.lines() {
            let room: Room = serde_json::from_str(line)
                .with_context(|| format!("the bench of the rooms said {line:?}"))?;
            rates.entry(room.room).or_default().push(room.records as f64 / room.seconds);
        }
    }
    for (room, values) in rates {
        let target = (room == "ledger").then_some(Target::AtLeast(20_000.0));
        let (name, unit) = match room.as_str() {
            "ledger" => ("replay: from the ring's bytes into the ledger", "deaths a second"),
            "decode" => ("replay: from the ring's bytes to whole records", "deaths a second"),
            "death" => ("replay: the same, judged, into a ledger in memory", "deaths a second"),
            "json" => ("a record as JSON", "records a second"),
            "metrics" => ("/metrics of 1,000 containers, made", "scrapes a second"),
            other => {
                anyhow::bail!("the bench of the rooms has a room {other} that is not known here")
            }
        };
        let figure = Figure::runs(name, unit, values);
        part.push(figure.map(|figure| figure.promised(target)));
    }
    let last = part.figures.last().map(|figure| figure.spread.clone());
    ensure!(
        !matches!(last, None | Some(Spread::Exact { .. })),
        "the bench of the rooms said nothing"
    );
    Ok(())
}

/// Builds that bench and says where it is.
pub(super) fn rooms(bed: &Bed<'_>) -> Result<std::path::PathBuf> {
    build::rooms(bed.ctx, &bed.object, Rooms::Released)
}
