//! Memory and CPU of the daemon: as it starts, idle beside many cgroups, in a storm and after it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::bed::Bed;
use super::figure::{Figure, Part, Target};
use super::growth::{Step, WATCH, WATCHED, ladder};
use super::load;
use super::plot::{Plot, Shape};
use super::usage;
use crate::apt::{self, Need};
use crate::daemon::Daemon;
use crate::process;
use crate::storm::account::Account;
use crate::storm::memory::Sampler;

const HOW: &str = "Resident memory is `VmRSS` of `/proc/PID/status`, CPU the time that the kernel gave to the daemon's threads (`schedstat`, ns) over a window, in percent of one core; the watch over \
    memory is a thread of its own, and its memory what a daemon without it lacks after the same time. Cgroups are named and limited as Docker's containers, below a directory of the bench's own, and empty. *Ready* is from fork to the first good answer \
    of `/-/ready`: probes attached, cgroups walked. The storm is two processes that fork and kill, ledger on disk, default configuration.";

/// Deaths in all.
const DEATHS: (usize, usize) = (1_000_000, 10_000);
/// After the storm, until memory is looked at for good.
const AFTER: Duration = Duration::from_secs(10);

/// The part.
pub(super) fn measure(bed: &Bed<'_>) -> Result<Part> {
    let mut part = Part::new("footprint", "Memory and CPU of the daemon", HOW);
    size(bed, &mut part)?;
    starts(bed, &mut part)?;
    let steps = ladder(bed)?;
    idle(steps, &mut part);
    storm(bed, &mut part)?;
    Ok(part)
}

/// The program without its symbols.
fn size(bed: &Bed<'_>, part: &mut Part) -> Result<()> {
    apt::ensure(&[Need::new("binutils", "strips a copy of the daemon, to tell its size")])?;
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let stripped = dir.path().join("killwatch");
    process::run(Command::new("strip").arg("-o").arg(&stripped).arg(&bed.daemon))?;
    let mib = |path: &Path| -> Result<f64> {
        let length = fs::metadata(path).with_context(|| format!("no {}", path.display()))?.len();
        Ok(length as f64 / f64::from(1 << 20))
    };
    part.push(
        Figure::exact("the program, stripped", "MiB", mib(&stripped)?)
            .promised(Target::AtMost(12.0)),
    );
    Ok(())
}

/// Until it is ready, and what it holds then.
fn starts(bed: &Bed<'_>, part: &mut Part) -> Result<()> {
    let (mut ready, mut resident, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bed.pick(15, 3) {
        let began = Instant::now();
        let daemon = bed.start::<&str>(&[])?;
        ready.push(began.elapsed().as_secs_f64() * 1e3);
        cpu.push(usage::total(&usage::cpu(daemon.pid())?) as f64 / 1e6);
        resident.push(usage::memory(daemon.pid())?.resident);
    }
    let ready = Figure::runs("from start to ready", "ms", ready);
    part.push(ready.map(|figure| figure.promised(Target::AtMost(300.0))));
    part.push(Figure::runs("CPU until then, of threads that live on", "ms", cpu));
    part.push(Figure::runs("resident when ready", "MiB", resident));
    Ok(())
}

fn idle(steps: &[Step], part: &mut Part) {
    let mut memory = Vec::new();
    let mut watch = Vec::new();
    let least = steps.first().map_or(0.0, |step| step.anonymous);
    for step in steps {
        let (n, at) = (step.cgroups as f64, format!("{} cgroups", step.cgroups));
        let resident = Figure::exact(format!("idle, {at}: resident"), "MiB", step.resident);
        let bound = match step.cgroups {
            100 => Some(16.0),
            _ => Some(32.0),
        };
        part.push(resident.promised(bound.map(Target::AtMost)));
        part.push(Figure::exact(format!("idle, {at}: of it, anonymous"), "MiB", step.anonymous));
        let cpu = Figure::runs(format!("idle, {at}: CPU, all"), "% of a core", step.cpu.clone());
        let bound = (step.cgroups <= 100).then_some(Target::AtMost(0.1));
        part.push(cpu.map(|figure| figure.promised(bound)));
        if step.watched == 0.0 {
            continue;
        }
        let cpu =
            Figure::runs(format!("idle, {at}: CPU, the watch"), "% of a core", step.watch.clone());
        let bound = (step.cgroups == WATCHED).then_some(Target::AtMost(1.0));
        watch.push((n, cpu.as_ref().map_or(0.0, |figure| figure.spread.middle())));
        part.push(cpu.map(|figure| figure.promised(bound)));
        part.push(Figure::runs(
            format!("idle, {at}: looks of the watch"),
            "a second",
            step.looks.clone(),
        ));
        if step.cgroups > 0 {
            let grown = (step.anonymous - least).max(0.0);
            let name = format!("idle, {at}: grown since none, by all rooms");
            part.push(Figure::exact(name, "MiB", grown));
            let of_watch = step.unwatched.map(|without| (step.anonymous - without).max(0.0));
            let figure = of_watch
                .map(|mib| Figure::exact(format!("idle, {at}: of it, the watch"), "MiB", mib));
            part.push(figure.map(|figure| figure.promised(Target::AtMost(4.0))));
            part.push(Figure::exact(
                format!("idle, {at}: a cgroup, all rooms"),
                "bytes",
                grown * f64::from(1 << 20) / n,
            ));
        }
        memory.push((n, step.resident));
    }
    if watch.is_empty() {
        part.note(format!("This daemon has no thread `{WATCH}`: it is older than the watch over memory, or it is switched off."));
    }
    part.plots.push(Plot {
        slug: "footprint",
        title: "Idle, by the number of cgroups".into(),
        x: "cgroups",
        y: "MiB, % of a core",
        shape: Shape::Lines(vec![
            ("MiB resident".into(), memory),
            ("% of a core, the watch".into(), watch),
        ]),
    });
}

/// Many deaths: the peak, what is left, and the CPU of each.
fn storm(bed: &Bed<'_>, part: &mut Part) -> Result<()> {
    let deaths = bed.pick(DEATHS.0, DEATHS.1);
    let dir = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
    let state = dir.path().to_string_lossy().into_owned();
    let daemon = bed.start(&["--state.path", &state])?;
    let sampler = Sampler::start(daemon.pid());
    let (cpu, before) = (usage::cpu(daemon.pid())?, Account::of(daemon.api())?);
    kill(bed, deaths)?;
    let account = settle(bed, &daemon, &before)?;
    let cpu = usage::since(&cpu, &usage::cpu(daemon.pid())?, "");
    // What is free goes back, and what was remembered for a while is let go of.
    bed.stop.pause(bed.pick(AFTER, Duration::from_secs(1)))?;
    let resident = sampler.stop()?;
    let named = |what: &str| format!("storm of {deaths} deaths: {what}");
    part.push(
        Figure::exact(named("resident, peak"), "MiB", resident.peak).promised(Target::AtMost(32.0)),
    );
    part.push(
        Figure::exact(named("resident, after"), "MiB", resident.last)
            .promised(Target::AtMost(32.0)),
    );
    part.push(Figure::exact(
        named("CPU of a death, all rooms"),
        "µs",
        cpu as f64 / 1e3 / account.recorded.max(1) as f64,
    ));
    part.push(Figure::exact(named("lost, counted"), "deaths", account.dropped as f64));
    let disk = fs::read_dir(dir.path())?
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.len())
        .sum::<u64>();
    part.push(Figure::exact(named("on disk"), "MiB", disk as f64 / f64::from(1 << 20)));
    Ok(())
}

/// Two processes, half each.
pub(super) fn kill(bed: &Bed<'_>, deaths: usize) -> Result<()> {
    let mut left = deaths;
    while left > 0 {
        // Short enough for the limit that a load has.
        let now = left.min(100_000);
        left -= now;
        let each = now.div_ceil(2).to_string();
        let loads = (0..2)
            .map(|_| load::start(&bed.victim, &["aborts", &each]))
            .collect::<Result<Vec<_>>>()?;
        for running in loads {
            load::finish(running, "aborts", bed)?;
        }
    }
    Ok(())
}

/// Waits until nothing more is recorded.
pub(super) fn settle(bed: &Bed<'_>, daemon: &Daemon, before: &Account) -> Result<Account> {
    let mut told = (Account::of(daemon.api())?, Instant::now());
    bed.stop
        .until("the last death is recorded", Duration::from_secs(120), || {
            let now = Account::of(daemon.api())?;
            if now != told.0 {
                told = (now, Instant::now());
            }
            Ok((told.1.elapsed() > Duration::from_secs(2)).then_some(()))
        })
        .map_err(|error| daemon.explain(error))?;
    Ok(told.0.since(before))
}
