//! The text as a whole, what counts how often, and the bounds.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Metrics, MetricsConfig};
use crate::death::{Cause, Death, Workload, sample};
use crate::ops::{Ops, Queue};
use crate::probe::{ProbeReport, ProbeState};

fn metrics(max_series: usize) -> Metrics {
    Metrics::new(MetricsConfig {
        max_series: max_series.try_into().unwrap(),
        ..MetricsConfig::default()
    })
}

fn container(id: &str) -> Workload {
    Workload { container_id: Some(id.into()), ..Workload::default() }
}

fn kill(id: &str, incident: u64) -> Death {
    let mut death = sample::oom_memcg();
    death.workload = container(id);
    death.oom.as_mut().unwrap().incident_ktime_ns = incident;
    death
}

/// The value of a container's sample, if it is there.
fn sample_of(metrics: &Metrics, name: &str, id: &str) -> Option<u64> {
    let text = metrics.encode().unwrap();
    let start = format!("{name}_total{{container_id=\"{id}\",");
    let line = text.lines().find(|line| line.starts_with(&start))?;
    line.split("} ").nth(1)?.split(' ').next()?.parse().ok()
}

#[test]
fn the_whole_text() {
    let metrics = std::sync::Arc::new(metrics(10));
    let ops = Ops::new(std::sync::Arc::clone(&metrics));
    let now = Instant::now();
    metrics.container_seen(&container("quiet"), now);
    for death in [sample::oom_memcg(), sample::oom_global(), sample::killed(), sample::hostile()] {
        metrics.observe(&death, now);
    }
    let mut hostile = sample::hostile();
    hostile.cause = Cause::OomMemcg;
    metrics.observe(&hostile, now);
    ops.kernel_lost("mark_victim", 3);
    ops.kernel_lost("mark_victim", 2);
    metrics.set_ledger_evicted(4);
    metrics.set_cgroups(17);
    metrics.set_ready(true);
    ops.decode_error(&"too short");
    ops.queue_dropped(Queue::Records, 5);
    ops.sink_written("log", 4);
    ops.probes(&[ProbeReport {
        name: "mark_victim".into(),
        hook: "tp_btf/oom/mark_victim".into(),
        purpose: "kills by the OOM killer".into(),
        required: true,
        state: ProbeState::Attached,
        why: None,
    }]);
    crate::golden::check_named("metrics.txt", &sorted(&metrics.encode().unwrap()));
}

/// Samples of one metric in order; the registry keeps them by hash.
fn sorted(text: &str) -> String {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        match blocks.last_mut() {
            Some(block) if !line.starts_with("# HELP") && line != "# EOF" => block.push(line),
            _ => blocks.push(vec![line]),
        }
    }
    blocks.iter_mut().for_each(|block| block.sort_unstable());
    blocks.concat().join("\n") + "\n"
}

#[test]
fn the_text_is_well_formed() {
    let metrics = metrics(10);
    metrics.observe(&sample::oom_memcg(), Instant::now());
    let text = metrics.encode().unwrap();
    assert!(text.ends_with("# EOF\n"));
    let mut names = std::collections::HashSet::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
            assert!(names.insert(help.split(' ').next().unwrap()), "{line}: twice");
        } else if !line.starts_with('#') {
            let (series, exemplar) =
                line.split_once(" # ").map_or((line, None), |(s, e)| (s, Some(e)));
            let (name, value) = series.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = name.split('{').next().unwrap();
            assert!(names.iter().any(|known| name.starts_with(known)), "{line}: no HELP before");
            assert!(!name.ends_with("_total_total"), "{line}");
            assert!(exemplar.is_none_or(|e| e.split('}').next().unwrap().len() <= 128), "{line}");
        }
    }
}

#[test]
fn every_metric_is_described() {
    let docs = include_str!("../../../docs/metrics.md");
    let text = metrics(1).encode().unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert!(docs.contains(&format!("| `{name}{suffix}` |")), "{name}{suffix}");
    }
}

#[test]
fn a_group_kill_is_one_incident_also_when_decisions_interleave() {
    let (metrics, now) = (metrics(10), Instant::now());
    metrics.container_seen(&container("a"), now);
    assert_eq!(
        sample_of(&metrics, "container_oom_killed", "a"),
        Some(0),
        "the first kill must be an increase"
    );
    for incident in [1, 2, 1, 2, 1] {
        metrics.observe(&kill("a", incident), now);
    }
    metrics.observe(&kill("b", 1), now);
    assert_eq!(sample_of(&metrics, "container_oom_killed", "a"), Some(2));
    assert_eq!(sample_of(&metrics, "container_oom_victims", "a"), Some(5));
    assert_eq!(sample_of(&metrics, "container_oom_killed", "b"), Some(1));
}

#[test]
fn only_the_oom_killer_counts_for_a_container() {
    let (metrics, now) = (metrics(10), Instant::now());
    let mut death = sample::killed();
    death.workload = container("a");
    metrics.container_seen(&container("a"), now);
    metrics.observe(&death, now);
    assert_eq!(sample_of(&metrics, "container_oom_killed", "a"), Some(0));
    assert_eq!(metrics.counters().deaths, 1);
}

#[test]
fn series_outlive_the_container_and_then_go() {
    let (metrics, now) = (metrics(10), Instant::now());
    let (hour, day) = (Duration::from_secs(3_600), Duration::from_secs(86_400));
    metrics.container_seen(&container("a"), now);
    metrics.container_seen(&container("alive"), now);
    metrics.container_gone(&container("a"), now);
    metrics.observe(&kill("a", 1), now + hour);
    metrics.expire(now + day);
    assert_eq!(
        sample_of(&metrics, "container_oom_killed", "a"),
        Some(1),
        "its last kill is 23 hours ago"
    );
    metrics.expire(now + day + hour);
    assert_eq!(sample_of(&metrics, "container_oom_killed", "a"), None);
    assert_eq!(sample_of(&metrics, "container_oom_killed", "alive"), Some(0));
    // One that was never announced does not stay for ever either.
    metrics.observe(&kill("late", 2), now);
    metrics.expire(now + day);
    assert_eq!(sample_of(&metrics, "container_oom_killed", "late"), None);
}

#[test]
fn what_does_not_fit_is_counted_in_the_overflow() {
    let (metrics, now) = (metrics(2), Instant::now());
    for id in ["a", "b", "c"] {
        metrics.container_seen(&container(id), now);
    }
    assert_eq!(sample_of(&metrics, "container_oom_killed", "c"), None);
    for (id, incident) in [("a", 1), ("c", 2), ("c", 2), ("d", 2)] {
        metrics.observe(&kill(id, incident), now);
    }
    assert_eq!(sample_of(&metrics, "container_oom_killed", "a"), Some(1));
    assert_eq!(sample_of(&metrics, "container_oom_killed", "overflow"), Some(2));
    assert_eq!(sample_of(&metrics, "container_oom_victims", "overflow"), Some(3));
    assert!(metrics.encode().unwrap().contains("killwatch_series_overflow_total 3\n"));
    // One that is gone and had no kill gives way.
    metrics.container_gone(&container("b"), now);
    metrics.container_seen(&container("c"), now);
    assert_eq!(sample_of(&metrics, "container_oom_killed", "b"), None);
    assert_eq!(sample_of(&metrics, "container_oom_killed", "c"), Some(0));
}

proptest! {
    /// Whatever happens, the sums are right and the series bounded.
    #[test]
    fn sums_hold(kills in prop::collection::vec((0u8..6, 0u64..5, any::<bool>()), 0..60)) {
        let (metrics, now) = (metrics(3), Instant::now());
        let mut incidents = std::collections::HashSet::new();
        for (id, incident, gone) in &kills {
            metrics.observe(&kill(&id.to_string(), *incident), now);
            incidents.insert((id, incident));
            if *gone {
                metrics.container_gone(&container(&id.to_string()), now);
            }
        }
        let text = metrics.encode().unwrap();
        let sum = |name: &str| {
            let values = text.lines().filter(|l| l.starts_with(name)).map(|l| l.split("} ").nth(1).unwrap());
            let values: Vec<u64> = values.map(|v| v.split(' ').next().unwrap().parse().unwrap()).collect();
            (values.len(), values.iter().sum::<u64>())
        };
        let (series, killed) = sum("container_oom_killed_total{");
        prop_assert!(series <= 4);
        prop_assert_eq!(killed, incidents.len() as u64);
        prop_assert_eq!(sum("container_oom_victims_total{").1, kills.len() as u64);
    }
}
