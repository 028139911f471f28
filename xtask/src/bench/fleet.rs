//! Ten thousand nodes on paper: this node's figures, multiplied in the open, and a simulation of the sinks of as many.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::bed::Bed;
use super::figure::{Figure, Part, Target};
use super::plot::{Plot, Shape};
use crate::build;
use crate::process;

const HOW: &str = "Arithmetic, each step shown as a note, from what the other parts of this same run measured: what they did not measure is left out. The wave is a simulation of discrete events in virtual \
    time that uses the daemon's own code for waiting (`notify/retry.rs`) and grouping (`notify/group.rs`): a test of the daemon, `notify::wave`, which also holds it to bounds. What OTLP weighs is \
    the bodies of the requests that the sink makes of these deaths, each of a pod with all its names.";

const NODES: f64 = 10_000.0;
/// Of Prometheus, seconds between two scrapes.
const SCRAPE_EVERY: f64 = 15.0;
/// Containers of a node, as the ladder has them.
const CONTAINERS: usize = 100;

/// Deaths of a node in a day: one an hour.
const A_DAY: f64 = 24.0;

/// What the simulation says on a line that begins with `WAVE `.
#[derive(Debug, Deserialize)]
struct Wave {
    senders: f64,
    victims_of_each: f64,
    messages: f64,
    deaths: f64,
    capacity_per_second: f64,
    outage_seconds: f64,
    attempts: f64,
    peak_attempts_per_second: f64,
    seconds_until_all_are_told: f64,
    attempts_by_second: Vec<(f64, f64)>,
    otlp_bytes_of_a_death: f64,
    otlp_bytes_of_a_node: f64,
    otlp_bytes_of_a_node_ungrouped: f64,
}

/// The part. `before`: what was measured in this run.
pub(super) fn measure(bed: &Bed<'_>, before: &[Part]) -> Result<Part> {
    let mut part = Part::new("fleet", "Ten thousand nodes, on paper", HOW);
    let of = |key: &str, name: &str| before.iter().find(|part| part.key == key)?.get(name);
    let idle = of("footprint", &format!("idle, {CONTAINERS} cgroups: CPU, all"));
    let resident = of("footprint", &format!("idle, {CONTAINERS} cgroups: resident"));
    let scrape = of("growth", &format!("/metrics with {CONTAINERS} containers: size"));
    let series = of("growth", &format!("/metrics with {CONTAINERS} containers: series"));
    if let Some(percent) = idle {
        let cores = percent / 100.0 * NODES;
        part.push(Figure::exact("CPU of the fleet, idle", "cores", cores));
        part.note(format!("{percent:.4} % of a core a node × {NODES} = {cores:.2} cores."));
    }
    if let Some(mib) = resident {
        let gib = mib * NODES / 1024.0;
        part.push(Figure::exact("memory of the fleet, idle", "GiB", gib));
        part.note(format!("{mib:.1} MiB a node × {NODES} = {gib:.0} GiB."));
    }
    if let Some(bytes) = scrape {
        let rate = bytes * NODES / SCRAPE_EVERY / f64::from(1 << 20);
        part.push(Figure::exact("scraped, uncompressed", "MiB a second", rate));
        part.note(format!("{bytes:.0} bytes of /metrics with {CONTAINERS} containers × {NODES} nodes ÷ {SCRAPE_EVERY} s = {rate:.1} MiB a second."));
    }
    if idle.is_none() || scrape.is_none() {
        part.note(
            "Measured in part only: run it with `--only footprint,growth,fleet`, or all parts.",
        );
    }
    if let Some(of_one) = series {
        let all = of_one * NODES;
        part.push(Figure::exact("series at Prometheus", "series", all));
        part.push(Figure::exact("samples at Prometheus", "a second", all / SCRAPE_EVERY));
        part.note(format!("{of_one:.0} series of /metrics with {CONTAINERS} containers × {NODES} nodes = {all:.0} series, a sample of each every {SCRAPE_EVERY} s."));
    }
    wave(bed, &mut part)?;
    Ok(part)
}

/// What the collectors of logs take in.
fn otlp(wave: &Wave, part: &mut Part) {
    let mib = f64::from(1 << 20);
    let nodes = wave.senders;
    for (how, bytes) in [
        ("grouped", wave.otlp_bytes_of_a_node),
        ("with group: 0s", wave.otlp_bytes_of_a_node_ungrouped),
    ] {
        let volume = bytes * nodes / mib;
        part.push(Figure::exact(format!("OTLP of the wave, {how}"), "MiB", volume));
        part.note(format!(
            "OTLP, {how}: {bytes:.0} bytes for the {} deaths of a node × {nodes} nodes = {volume:.1} MiB.",
            wave.victims_of_each
        ));
    }
    let death = wave.otlp_bytes_of_a_death;
    let a_day = death * A_DAY * nodes / mib / 1024.0;
    part.push(Figure::exact("OTLP a day", "GiB", a_day));
    part.note(format!(
        "OTLP a day: {death:.0} bytes a death × {A_DAY} deaths a node, all told one by one × {nodes} nodes = {a_day:.2} GiB."
    ));
}

fn wave(bed: &Bed<'_>, part: &mut Part) -> Result<()> {
    let mut test = build::cargo(bed.ctx, &bed.object);
    test.args([
        "test",
        "--locked",
        "-p",
        "killwatch",
        "--lib",
        "notify::wave",
        "--",
        "--nocapture",
    ]);
    let said = process::output(&mut test)?;
    let waves = said.lines().filter_map(|line| line.split_once("WAVE ")).map(|(_, json)| {
        serde_json::from_str::<Wave>(json).context("the simulation of the wave said something else")
    });
    let waves = waves.collect::<Result<Vec<_>>>()?;
    anyhow::ensure!(!waves.is_empty(), "the simulation of the wave said nothing");
    if let Some(wave) = waves.first() {
        otlp(wave, part);
    }
    let mut lines = Vec::new();
    for wave in waves {
        let outage = if wave.outage_seconds > 0.0 {
            format!("receiver down for {} s", wave.outage_seconds)
        } else {
            "receiver up".to_owned()
        };
        let named = |what: &str| format!("wave, {outage}: {what}");
        part.push(Figure::exact(named("deaths"), "deaths", wave.deaths));
        part.push(
            Figure::exact(named("messages for them"), "messages", wave.messages)
                .promised(Target::AtMost(wave.senders * 2.0)),
        );
        part.push(Figure::exact(named("requests in all"), "requests", wave.attempts));
        part.push(Figure::exact(
            named("requests in the fullest second"),
            "requests",
            wave.peak_attempts_per_second,
        ));
        part.push(Figure::exact(
            named("until every message is taken"),
            "s",
            wave.seconds_until_all_are_told,
        ));
        part.note(format!(
            "{outage}: {} senders with {} victims each within one second, a receiver that takes {} requests a second and refuses the rest.",
            wave.senders, wave.victims_of_each, wave.capacity_per_second
        ));
        let after_first = wave.attempts_by_second.into_iter().map(|(at, n)| (at + 1.0, n));
        lines.push((outage, after_first.collect()));
    }
    part.plots.push(Plot {
        slug: "wave",
        title: "Requests of 10,000 senders that are struck in the same second".into(),
        x: "seconds, from 1",
        y: "requests a second",
        shape: Shape::Lines(lines),
    });
    Ok(())
}
