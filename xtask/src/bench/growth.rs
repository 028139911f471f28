//! How what it costs grows with what drives it: cgroups, deaths, the length of the history, sinks. Each is fitted to a power; above 1.1 it is more than linear.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::bed::Bed;
use super::figure::{Figure, Part, Target, exponent};
use super::footprint::{kill, settle};
use super::plot::{Plot, Shape};
use super::tree::Tree;
use super::usage;
use crate::daemon::{Api, Daemon};
use crate::storm::account::Account;
use crate::storm::receiver::Receiver;

const HOW: &str = "The exponent b of cost = a · driver^b, fitted by least squares to the logarithms of the points of the plot: 0 does not grow, 1 is linear. Fixed parts (what the program \
    holds by itself, an empty page) are taken off first. Promised: nothing above linear, with a tenth for noise. Times of answers are medians.";

/// Thread that follows the memory of cgroups.
pub(super) const WATCH: &str = "killwatch-watch";
/// Cgroups beside which the watch has a target of its own.
pub(super) const WATCHED: usize = 1_000;
/// Steeper is more than linear; the tenth is noise.
const LINEAR: f64 = 1.1;
/// Series of workloads at which `/metrics` has a target, and the target in ms.
const SCRAPE: (usize, f64) = (1_000, 5.0);

/// The daemon beside so many cgroups.
pub(super) struct Step {
    pub(super) cgroups: usize,
    /// A start each.
    pub(super) ready_ms: Vec<f64>,
    pub(super) resident: f64,
    pub(super) anonymous: f64,
    /// The same of a daemon that runs as long without the watch, beside [`WATCHED`].
    pub(super) unwatched: Option<f64>,
    /// In percent of a core, a window each.
    pub(super) cpu: Vec<f64>,
    pub(super) watch: Vec<f64>,
    /// Looks of the watch a second.
    pub(super) looks: Vec<f64>,
    /// Cgroups that it follows.
    pub(super) watched: f64,
    /// Answers of `/metrics`.
    pub(super) scrape_ms: Vec<f64>,
    pub(super) scrape_bytes: f64,
    pub(super) scrape_series: f64,
}

/// A daemon beside more and more cgroups. Measured once a bench.
pub(super) fn ladder<'a>(bed: &'a Bed<'_>) -> Result<&'a [Step]> {
    if let Some(steps) = bed.ladder.get() {
        return Ok(steps);
    }
    let counts: &[usize] = bed.pick(&[0, 100, 300, 1_000, 2_000, 5_000], &[0, 50, 100, 200]);
    let mut tree = Tree::create("ladder")?;
    let mut steps = Vec::new();
    for count in counts {
        eprintln!("    {count} cgroups");
        tree.grow(*count)?;
        steps.push(step(bed, *count)?);
    }
    Ok(bed.ladder.get_or_init(|| steps))
}

/// A daemon with room for all cgroups: what does not fit is left out, which would look like thrift.
fn start(bed: &Bed<'_>, watch: &str) -> Result<Daemon> {
    let dir = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
    let config = dir.path().join("killwatch.yaml");
    fs::write(&config, format!("log_sink: none\nmetrics: {{max_series: 10000}}\n{watch}"))
        .context("cannot write the configuration")?;
    bed.start(&["--config.file", &config.to_string_lossy()])
}

fn step(bed: &Bed<'_>, cgroups: usize) -> Result<Step> {
    let has_watch = has_watch(bed)?;
    let watch = if has_watch { "watch: {max: 8192}\n" } else { "" };
    let mut ready_ms = Vec::new();
    let mut timed = || {
        let began = Instant::now();
        let daemon = start(bed, watch)?;
        ready_ms.push(began.elapsed().as_secs_f64() * 1e3);
        anyhow::Ok((daemon, began))
    };
    // One start alone would be told by chance.
    for _ in 0..bed.pick(4, 0) {
        timed()?;
    }
    let (daemon, began) = timed()?;
    let api = daemon.api();
    // What is found at the start is followed step by step, and a container that nobody names waits for its name.
    bed.stop.pause(bed.pick(Duration::from_secs(15), Duration::from_secs(3)))?;
    let (mut cpu, mut watch, mut looks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bed.pick(5, 2) {
        let seen = counted(api, "killwatch_watch_samples_total")?;
        // After the answer: to give it is not to be idle.
        let (before, began) = (usage::cpu(daemon.pid())?, Instant::now());
        bed.stop.pause(bed.pick(Duration::from_secs(10), Duration::from_secs(2)))?;
        let took = began.elapsed();
        let after = usage::cpu(daemon.pid())?;
        let percent = |ns: u64| 100.0 * Duration::from_nanos(ns).as_secs_f64() / took.as_secs_f64();
        cpu.push(percent(usage::since(&before, &after, "")));
        watch.push(percent(usage::since(&before, &after, WATCH)));
        let now = counted(api, "killwatch_watch_samples_total")?;
        looks.push((now - seen) / took.as_secs_f64());
    }
    let memory = usage::memory(daemon.pid())?;
    let ran = began.elapsed();
    let watched = counted(api, "killwatch_watched_cgroups")?;
    let (scrape_ms, scrape_bytes) = answers(api, "/metrics", bed.pick(50, 10))?;
    let scrape_series = series(&api.get("/metrics")?);
    drop(daemon);
    let unwatched = if has_watch && cgroups == WATCHED {
        let daemon = start(bed, "watch: {enabled: false}\n")?;
        bed.stop.pause(ran)?;
        // As often as the other was asked.
        answers(daemon.api(), "/metrics", 2 * cpu.len())?;
        Some(usage::memory(daemon.pid())?.anonymous)
    } else {
        None
    };
    Ok(Step {
        cgroups,
        ready_ms,
        resident: memory.resident,
        anonymous: memory.anonymous,
        unwatched,
        cpu,
        watch,
        looks,
        watched,
        scrape_ms,
        scrape_bytes,
        scrape_series,
    })
}

/// Whether the daemon knows that part of the configuration.
fn has_watch(bed: &Bed<'_>) -> Result<bool> {
    let daemon = bed.start::<&str>(&[])?;
    Ok(usage::cpu(daemon.pid())?.values().any(|(name, _)| name == WATCH))
}

/// A number of `/metrics`; 0 if it is not there.
fn counted(api: &Api, name: &str) -> Result<f64> {
    let text = api.get("/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0))
}

/// Samples of a page of metrics.
fn series(text: &str) -> f64 {
    text.lines().filter(|line| !line.starts_with('#')).count() as f64
}

/// Times in ms of so many answers, and the bytes of the last.
fn answers(api: &Api, path: &str, times: usize) -> Result<(Vec<f64>, f64)> {
    let mut bytes = 0.0;
    let took = (0..times)
        .map(|_| {
            let began = Instant::now();
            bytes = api.get(path)?.len() as f64;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })
        .collect::<Result<_>>()?;
    Ok((took, bytes))
}

/// A cost against its driver.
type Line = (String, Vec<(f64, f64)>);

/// The part.
pub(super) fn measure(bed: &Bed<'_>) -> Result<Part> {
    let mut part = Part::new("growth", "How it grows", HOW);
    let mut by_cgroups = cgroups(bed, &mut part)?;
    let by_deaths = deaths(bed)?;
    let by_sinks = sinks(bed)?;
    for (driver, lines) in [("cgroups", &by_cgroups), ("deaths", &by_deaths), ("sinks", &by_sinks)]
    {
        for (name, points) in lines {
            match exponent(points) {
                Some(b) => part.push(
                    Figure::exact(format!("{name}, by {driver}"), "exponent", b)
                        .promised(Target::AtMost(LINEAR)),
                ),
                None => {
                    part.note(format!("{name}, by {driver}: too few points above zero to fit."))
                }
            }
        }
    }
    by_cgroups.retain(|(_, points)| points.len() > 2);
    for (slug, x, title, lines) in [
        ("growth-cgroups", "cgroups", "Costs by the number of cgroups", by_cgroups),
        ("growth-deaths", "deaths recorded", "Costs by the length of the history", by_deaths),
        ("growth-sinks", "sinks", "CPU of a death by the number of sinks", by_sinks),
    ] {
        let (title, y, shape) = (title.to_owned(), "", Shape::Lines(lines));
        part.plots.push(Plot { slug, title, x, y, shape });
    }
    Ok(part)
}

fn cgroups(bed: &Bed<'_>, part: &mut Part) -> Result<Vec<Line>> {
    let steps = ladder(bed)?;
    let Some(least) = steps.first() else { return Ok(Vec::new()) };
    let middle =
        |values: &[f64]| Figure::runs("", "", values.to_vec()).map_or(0.0, |f| f.spread.middle());
    for step in steps.iter().filter(|step| step.cgroups > 0) {
        let at = format!("/metrics with {} containers", step.cgroups);
        let time = Figure::events(format!("{at}: time of a scrape"), "ms", step.scrape_ms.clone());
        let target = (step.cgroups == SCRAPE.0).then_some(Target::AtMost(SCRAPE.1));
        part.push(time.map(|figure| figure.promised(target)));
        part.push(Figure::exact(format!("{at}: size"), "bytes", step.scrape_bytes));
        part.push(Figure::exact(format!("{at}: series"), "series", step.scrape_series));
    }
    let line = |name: &str, cost: &dyn Fn(&Step) -> f64| -> Line {
        let all: Vec<_> = steps.iter().map(|step| (step.cgroups as f64, cost(step))).collect();
        (name.to_owned(), without_base(cost(least), &all))
    };
    Ok(vec![
        line("memory, MiB", &|step| step.anonymous),
        line("CPU idle, % of a core", &|step| middle(&step.cpu)),
        line("start, ms", &|step| middle(&step.ready_ms)),
        line("scrape, ms", &|step| middle(&step.scrape_ms)),
        line("scrape, bytes", &|step| step.scrape_bytes),
    ])
}

/// The points above zero without what is there by itself: what was measured beside none, or where the line through the first two others begins, if that is less. So
/// what others do on this machine while none is there is not taken for a base.
fn without_base(beside_none: f64, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let points: Vec<_> = points.iter().copied().filter(|(x, _)| *x > 0.0).collect();
    let begins = match points.as_slice() {
        [(x, y), (x2, y2), ..] if x2 > x => y - (y2 - y) / (x2 - x) * x,
        _ => beside_none,
    };
    let base = beside_none.min(begins).max(0.0);
    points.into_iter().map(|(x, y)| (x, y - base)).collect()
}

/// A ledger that keeps all: what a death costs, and an answer, after so many.
fn deaths(bed: &Bed<'_>) -> Result<Vec<Line>> {
    let dir = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
    let config = dir.path().join("killwatch.yaml");
    fs::write(&config, "log_sink: none\nledger: {max_deaths: 1000000, max_bytes: 4GiB}\n")
        .context("cannot write the configuration")?;
    let (config, state) = (config.to_string_lossy(), dir.path().to_string_lossy());
    let daemon = bed.start(&["--config.file", &config, "--state.path", &state])?;
    let first = usage::memory(daemon.pid())?.anonymous;
    let start = Account::of(daemon.api())?;
    let mut lines: [Line; 3] = ["memory, MiB", "CPU of a death, µs", "API of 100 deaths, ms"]
        .map(|name| (name.to_owned(), Vec::new()));
    for total in bed.pick(vec![1_000, 3_000, 10_000, 30_000, 100_000], vec![500, 1_000, 2_000]) {
        let before = Account::of(daemon.api())?;
        let have = usize::try_from(before.since(&start).recorded).unwrap_or(usize::MAX);
        let cpu = usage::total(&usage::cpu(daemon.pid())?);
        kill(bed, total - have.min(total))?;
        let now = settle(bed, &daemon, &before)?;
        let ns = usage::total(&usage::cpu(daemon.pid())?).saturating_sub(cpu);
        let at = total as f64;
        let (took, _) = answers(daemon.api(), "/api/v1/deaths?limit=100", bed.pick(30, 5))?;
        let took = Figure::runs("", "", took).map_or(0.0, |figure| figure.spread.middle());
        let grown = usage::memory(daemon.pid())?.anonymous - first;
        let of_each = ns as f64 / 1e3 / now.recorded.max(1) as f64;
        for (line, cost) in lines.iter_mut().zip([grown, of_each, took]) {
            line.1.push((at, cost));
        }
    }
    Ok(lines.into())
}

/// CPU of a death with more and more webhooks, each told of each death.
fn sinks(bed: &Bed<'_>) -> Result<Vec<Line>> {
    let mut points = Vec::new();
    for count in [1_usize, 2, 4, 8] {
        let receivers =
            (0..count).map(|_| Receiver::reserve()?.open()).collect::<Result<Vec<_>>>()?;
        let dir = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
        let config = dir.path().join("killwatch.yaml");
        let mut yaml = "log_sink: none\nsinks:\n".to_owned();
        for (number, receiver) in receivers.iter().enumerate() {
            yaml += &format!(
                "  - {{webhook: {{url: \"{}\", batch: 50}}, name: r{number}, group: 0s, rate: 10000}}\n",
                receiver.url()
            );
        }
        fs::write(&config, yaml).context("cannot write the configuration")?;
        let (config, state) = (config.to_string_lossy(), dir.path().to_string_lossy());
        let daemon = bed.start(&["--config.file", &config, "--state.path", &state])?;
        points.push((count as f64, with_receivers(bed, &daemon, &receivers)?));
    }
    Ok(vec![("CPU of a death, µs".to_owned(), points)])
}

fn with_receivers(bed: &Bed<'_>, daemon: &Daemon, receivers: &[Receiver]) -> Result<f64> {
    let deaths = bed.pick(10_000, 1_000);
    let (before, cpu) = (Account::of(daemon.api())?, usage::total(&usage::cpu(daemon.pid())?));
    kill(bed, deaths)?;
    let now = settle(bed, daemon, &before)?;
    bed.stop.until("each receiver hears of each death", Duration::from_secs(120), || {
        let least = receivers.iter().map(Receiver::heard).min().unwrap_or(0) as u64;
        Ok((least >= now.recorded).then_some(()))
    })?;
    let ns = usage::total(&usage::cpu(daemon.pid())?).saturating_sub(cpu);
    Ok(ns as f64 / 1e3 / now.recorded.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_what_is_there_by_itself() {
        let line = [(0.0, 15.0), (50.0, 60.0), (100.0, 110.0), (200.0, 210.0)];
        // Beside none 15 were seen, of which 5 were of others.
        let linear = without_base(15.0, &line);
        assert_eq!(linear, [(50.0, 50.0), (100.0, 100.0), (200.0, 200.0)]);
        assert!((exponent(&linear).unwrap() - 1.0).abs() < 1e-9);
        let square = [(0.0, 0.0), (10.0, 100.0), (20.0, 400.0), (40.0, 1_600.0)];
        assert!((exponent(&without_base(0.0, &square)).unwrap() - 2.0).abs() < 1e-9);
    }
}
