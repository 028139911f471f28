//! `bench`: what each program costs inside the kernel, and how long a kill takes to reach the API.
//!
//! Costs are the kernel's own count (`kernel.bpf_stats_enabled`), which includes the counting: so each program is
//! quoted against an empty one of the same type that ran on the same events. The load runs pinned to one core, in
//! several rounds, and the median round counts.

mod latency;
mod load;
mod stats;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Serialize;

use self::latency::Latency;
use self::stats::{Cost, Counters};
use crate::apt::{self, Need};
use crate::context::Ctx;
use crate::daemon::Daemon;
use crate::process::{self, step};
use crate::stop::Stop;
use crate::{build, programs};

/// Rounds of each load.
const ROUNDS: usize = 5;
/// Fewer hits are other work of the machine, or of this program.
const MIN_HITS: u64 = 500;
/// What a normal exit may cost more than the empty program, in ns.
const EXIT_TARGET_NS: f64 = 100.0;
/// What the slowest hundredth of the kills may take to the API, in ms.
const LATENCY_TARGET_MS: f64 = 10.0;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    programs: Vec<Row>,
    kill_to_api: Latency,
    kill_to_api_target_ms: f64,
}

/// One program under one load.
#[derive(Serialize)]
struct Row {
    load: &'static str,
    program: String,
    /// Of all rounds.
    hits: u64,
    /// Median round.
    ns_per_hit: f64,
    /// Median round, minus the empty program of the same round; absent where none ran.
    above_empty_ns: Option<f64>,
    target_ns: Option<f64>,
}

/// Measures and prints. Missing a target is shown, not an error: the machine may be busy.
pub(crate) fn run(ctx: &Ctx, args: &BenchArgs) -> Result<()> {
    if process::find("bpftool").is_none() {
        apt::ensure(&[Need::new(
            "bpftool",
            "reads the kernel's count of each program's run time",
        )])?;
    }
    let built = build::daemon(ctx)?;
    let victim = programs::build(ctx, &built.object)?
        .victim
        .context("killwatch-tests has no binary `victim`")?;
    let stop = Stop::install()?;
    let _counting = stats::Enabled::switch_on()?;
    let before = stats::read()?;
    let daemon = step("start the daemon with empty programs beside its own", || {
        Daemon::start(&built.daemon, &["--bench.empty-programs"], &stop)
    })?;
    // From here on this process and the loads that it starts stay on one core; the daemon is free.
    load::pin()?;
    let ours = |now: Counters| -> Counters {
        now.into_iter().filter(|(id, _)| !before.contains_key(id)).collect()
    };
    let mut rows = Vec::new();
    for load in load::LOADS {
        let rounds = step(&format!("{}, {ROUNDS} rounds", load.name), || {
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let start = ours(stats::read()?);
                load.run(&victim, &stop)?;
                rounds.push(stats::since(&start, &ours(stats::read()?)));
            }
            Ok(rounds)
        })?;
        rows.extend(summarize(load, &rounds));
    }
    let kill_to_api = step("time from kill to API", || latency::measure(daemon.api(), &stop))?;
    let kernel = process::output(std::process::Command::new("uname").arg("-r"))?.trim().to_owned();
    let report =
        Report { kernel, programs: rows, kill_to_api, kill_to_api_target_ms: LATENCY_TARGET_MS };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).context("the report does not print")?);
    } else {
        print(&report);
    }
    Ok(())
}

/// Medians over the rounds of one load.
fn summarize(load: &load::Load, rounds: &[BTreeMap<String, Cost>]) -> Vec<Row> {
    let mut names: Vec<&String> = rounds.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let row = |name: &String| {
        let costs = || rounds.iter().filter_map(|round| Some((round, round.get(name)?)));
        let above = costs().filter_map(|(round, cost)| {
            Some(cost.per_hit()? - round.get(baseline(name)?)?.per_hit()?)
        });
        let is_target = load.targets_exit && baseline(name) == Some("empty_exit");
        let hits = costs().map(|(_, cost)| cost.hits).sum();
        if hits < MIN_HITS {
            return None;
        }
        Some(Row {
            load: load.name,
            program: name.clone(),
            hits,
            ns_per_hit: median(costs().filter_map(|(_, cost)| cost.per_hit()).collect())?,
            above_empty_ns: median(above.collect()),
            target_ns: is_target.then_some(EXIT_TARGET_NS),
        })
    };
    names.into_iter().filter_map(row).collect()
}

/// The empty program that runs on the same kind of event. The kernel keeps 15 bytes of a name.
fn baseline(program: &str) -> Option<&'static str> {
    match program {
        _ if program.starts_with("empty_") => None,
        _ if program.contains("signal") => Some("empty_signal"),
        _ if program.contains("exit") || program == "sched_process_e" => Some("empty_exit"),
        _ => None,
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn print(report: &Report) {
    println!("\nLinux {}: in-kernel cost, median of {ROUNDS} rounds\n", report.kernel);
    println!(
        "{:<34} {:<16} {:>8} {:>8} {:>12} {:>8}",
        "load", "program", "hits", "ns/hit", "minus empty", "target"
    );
    for row in &report.programs {
        let above = row.above_empty_ns.map_or_else(|| "-".into(), |ns| format!("{ns:+.0}"));
        let target = row.target_ns.map_or_else(String::new, |ns| format!("<= {ns:.0}"));
        println!(
            "{:<34} {:<16} {:>8} {:>8.0} {above:>12} {target:>8}",
            row.load, row.program, row.hits, row.ns_per_hit
        );
    }
    let Latency { kills, p50_ms, p99_ms, max_ms } = report.kill_to_api;
    println!(
        "\nkill to API, {kills} kills: p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, max {max_ms:.2} ms (target: p99 below {LATENCY_TARGET_MS} ms)"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_medians_above_the_empty_program_of_the_same_round() {
        let round = |exit: u64, empty: u64| -> BTreeMap<String, Cost> {
            [("sched_process_e", 300), ("on_exit", exit), ("empty_exit", empty), ("unused", 0)]
                .map(|(name, ns)| {
                    (
                        name.to_owned(),
                        Cost { hits: if name == "unused" { 1 } else { 200 }, ns: ns * 200 },
                    )
                })
                .into()
        };
        let rounds = [round(150, 100), round(900, 100), round(160, 90)];
        let rows = summarize(&load::LOADS[0], &rounds);
        let row = rows.iter().find(|row| row.program == "on_exit").unwrap();
        assert_eq!((row.hits, row.ns_per_hit, row.above_empty_ns), (600, 160.0, Some(70.0)));
        assert_eq!(row.target_ns, Some(EXIT_TARGET_NS));
        let named = |name: &str| rows.iter().find(|row| row.program == name);
        assert_eq!(named("sched_process_e").unwrap().target_ns, Some(EXIT_TARGET_NS));
        assert_eq!(named("empty_exit").unwrap().above_empty_ns, None);
        assert!(named("unused").is_none());
    }
}
