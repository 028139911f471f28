//! The text as a whole, what counts how often, and the bounds. `jobs_tests.rs` has those of jobs and sources, `model.rs` the property tests.

use std::time::{Duration, Instant};

use super::containers::MAX_CONTAINERS;
use super::{LabelsConfig, Metrics, MetricsConfig, Stage, document_tests};
use crate::containers::{MAX_TEXT, SourceReport, SourceState};
use crate::death::{Cause, Death, Job, Workload, sample};
use crate::ledger::Health as LedgerHealth;
use crate::notify::health::{self, Health};
use crate::ops::{Ops, Queue};
use crate::probe::{ProbeReport, ProbeState};
use crate::watch::Counts;

pub(super) fn metrics(max_series: usize) -> Metrics {
    Metrics::new(MetricsConfig {
        max_series: max_series.try_into().unwrap(),
        ..MetricsConfig::default()
    })
}

fn container(id: &str) -> Workload {
    Workload { container_id: Some(id.into()), ..Workload::default() }
}

fn named(id: &str) -> Workload {
    Workload {
        container_id: Some(format!("containerd://{id}")),
        runtime: Some("containerd".into()),
        namespace: Some("shop".into()),
        pod: Some("web-0".into()),
        container: Some(id.into()),
        image: Some("nginx".into()),
        ..Workload::default()
    }
}

pub(super) fn source(
    name: &'static str,
    state: SourceState,
    answered: u64,
    failed: u64,
) -> SourceReport {
    SourceReport {
        name,
        at: "/run/x.sock".into(),
        state,
        why: None,
        version: None,
        events: false,
        answered,
        failed,
        refused: 0,
    }
}

pub(super) fn kill(id: &str, incident: u64) -> Death {
    let mut death = sample::oom_memcg();
    death.workload = container(id);
    death.oom.as_mut().unwrap().incident_ktime_ns = incident;
    death
}

/// The samples of one metric: what is between the braces, and the value.
pub(super) fn samples(text: &str, name: &str) -> Vec<(String, u64)> {
    let of_name = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let parts = of_name.map(|rest| {
        let rest = rest.split(" # {").next().unwrap();
        let (labels, value) = rest.rsplit_once("} ").unwrap();
        (labels.to_owned(), value.parse().unwrap())
    });
    parts.collect()
}

/// The value of a container's sample, if it is there.
fn sample_of(metrics: &Metrics, name: &str, id: &str) -> Option<u64> {
    let start = format!("container_id=\"{id}\",");
    let samples = samples(&metrics.encode().unwrap(), &format!("{name}_total"));
    samples.into_iter().find(|(labels, _)| labels.starts_with(&start)).map(|(_, value)| value)
}

#[test]
fn the_whole_text() {
    let metrics = std::sync::Arc::new(metrics(10));
    let ops = Ops::new(std::sync::Arc::clone(&metrics));
    let now = Instant::now();
    metrics.container_seen(&container("quiet"), now);
    metrics.container_seen(&named("named"), now);
    for death in [sample::oom_memcg(), sample::oom_global(), sample::killed(), sample::hostile()] {
        metrics.observe(&death, now);
    }
    let mut hostile = sample::hostile();
    hostile.cause = Cause::OomMemcg;
    metrics.observe(&hostile, now);
    ops.kernel_lost("mark_victim", 3);
    ops.kernel_lost("mark_victim", 2);
    let time = sample::oom_memcg().time;
    let ledger = LedgerHealth {
        degraded: Some("the disk is full".into()),
        write_failures: 6,
        entries: 5,
        bytes: 20_000,
        oldest: Some(time),
        evicted: 4,
        unsaved: 2,
        unreadable: 1,
        ..LedgerHealth::default()
    };
    metrics.set_ledger(&ledger, time + jiff::SignedDuration::from_millis(90_500));
    metrics.set_cgroups(17);
    metrics.near_limit(&named("named"), true);
    let nameless = Workload { cgroup: Some("/limited".into()), ..Workload::default() };
    metrics.near_limit(&nameless, true);
    metrics.near_limit(&nameless, true);
    metrics.near_limit(&nameless, false);
    metrics.near_limit(&container("left"), true);
    metrics.near_limit(&container("left"), false);
    metrics.near_limit_told();
    metrics.warned(7.5);
    metrics.delayed(Stage::Read, Duration::from_micros(150));
    metrics.delayed(Stage::Kept, Duration::from_millis(3));
    metrics.delayed(Stage::Kept, Duration::from_secs(60));
    metrics.set_watch(Counts { followed: 3, samples: 400, refused: 2, starved: 1 });
    metrics.set_sources(&[
        source("cri", SourceState::Up, 9, 2),
        source("docker", SourceState::Absent, 0, 0),
    ]);
    metrics.set_containers(3, 1);
    metrics.set_names_late(1);
    metrics.set_ready(true);
    ops.decode_error(&"too short");
    ops.queue_dropped(Queue::Records, 5);
    let sink = Health::new("log", "stdout", metrics.sink("log"));
    sink.written(4, "2026-01-31T12:00:00Z".parse().unwrap());
    sink.set_lag(3, 0);
    sink.failed("no room", health::State::Failing);
    ops.probes(&[ProbeReport {
        name: "mark_victim".into(),
        hook: "tp_btf/oom/mark_victim".into(),
        purpose: "kills by the OOM killer".into(),
        required: true,
        state: ProbeState::Attached,
        why: None,
    }]);
    let text = sorted(&metrics.encode().unwrap());
    crate::golden::check_named("metrics.txt", &text);
    document_tests::check(&text);
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

/// The whole label sets of a metric, with their values.
pub(super) fn shown(metrics: &Metrics, name: &str) -> Vec<(String, u64)> {
    let mut shown = samples(&metrics.encode().unwrap(), name);
    shown.retain(|(labels, _)| !labels.contains("\"overflow\""));
    shown.sort();
    shown
}

fn of_labels(labels: LabelsConfig) -> Metrics {
    Metrics::new(MetricsConfig { labels, ..MetricsConfig::default() })
}

const NAMED: &str = "container_id=\"containerd://a\",pod_uid=\"\",namespace=\"shop\",pod=\"web-0\",container=\"a\",unit=\"\"";
const BARE: &str =
    "container_id=\"a\",pod_uid=\"\",namespace=\"\",pod=\"\",container=\"\",unit=\"\"";

#[test]
fn names_that_come_late_move_a_series_that_has_counted_nothing() {
    let (metrics, now) = (metrics(10), Instant::now());
    metrics.container_seen(&container("a"), now);
    metrics.container_seen(&named("a"), now);
    assert_eq!(shown(&metrics, "container_oom_killed_total"), [(NAMED.to_owned(), 0)]);
    // Who looks once more without the runtime does not take the names away, and the death may be told without them.
    metrics.container_seen(&container("a"), now);
    metrics.observe(&kill("a", 1), now);
    assert_eq!(shown(&metrics, "container_oom_killed_total"), [(NAMED.to_owned(), 1)]);
    // Gone by its bare id, and for good.
    metrics.container_gone(&container("a"), now);
    metrics.expire(now + Duration::from_secs(86_400));
    assert_eq!(shown(&metrics, "container_oom_killed_total"), []);
}

#[test]
fn names_that_come_after_a_kill_move_nothing() {
    let (metrics, now) = (metrics(10), Instant::now());
    metrics.container_seen(&container("a"), now);
    metrics.observe(&kill("a", 1), now);
    metrics.container_seen(&named("a"), now);
    let mut again = kill("a", 2);
    again.workload = named("a");
    metrics.observe(&again, now);
    assert_eq!(shown(&metrics, "container_oom_killed_total"), [(BARE.to_owned(), 2)]);
}

#[test]
fn late_news_of_a_cgroup_that_is_gone_do_not_make_its_container_live() {
    let day = Duration::from_secs(86_400);
    let of = |workload: Workload, id| Workload { cgroup_id: Some(id), ..workload };
    for (back, lives) in [(7, false), (8, true)] {
        let (metrics, now) = (metrics(10), Instant::now());
        metrics.container_seen(&of(container("a"), 7), now);
        metrics.container_gone(&of(container("a"), 7), now);
        metrics.container_seen(&of(named("a"), back), now);
        assert_eq!(shown(&metrics, "container_oom_killed_total"), [(NAMED.to_owned(), 0)]);
        metrics.expire(now + day);
        assert_eq!(!shown(&metrics, "container_oom_killed_total").is_empty(), lives);
    }
}

#[test]
fn containers_that_share_their_labels_share_a_series() {
    let off = LabelsConfig { container_id: false, container: false, ..LabelsConfig::default() };
    let (metrics, now) = (of_labels(off), Instant::now());
    let (hour, day) = (Duration::from_secs(3_600), Duration::from_secs(86_400));
    let labels = "pod_uid=\"\",namespace=\"shop\",pod=\"web-0\",unit=\"\"".to_owned();
    for id in ["a", "b"] {
        metrics.container_seen(&named(id), now);
        // One decision hits both: it counts for each.
        for _ in 0..2 {
            let mut death = kill(id, 1);
            death.workload = named(id);
            metrics.observe(&death, now);
        }
    }
    assert_eq!(shown(&metrics, "container_oom_killed_total"), [(labels.clone(), 2)]);
    assert_eq!(shown(&metrics, "container_oom_victims_total"), [(labels.clone(), 4)]);
    metrics.container_gone(&container("a"), now);
    metrics.container_gone(&container("a"), now);
    metrics.expire(now + day);
    assert_eq!(shown(&metrics, "container_oom_killed_total"), [(labels.clone(), 2)], "b lives");
    metrics.container_gone(&container("b"), now + hour);
    metrics.expire(now + day);
    assert_eq!(shown(&metrics, "container_oom_killed_total"), [(labels, 2)]);
    metrics.expire(now + day + hour);
    assert_eq!(shown(&metrics, "container_oom_killed_total"), []);
}

#[test]
fn without_any_label_there_is_one_series() {
    let none = crate::config::file::parse(
        b"metrics: {labels: {container_id: false, pod_uid: false, namespace: false, pod: false, container: false, \
          unit: false, job_id: false, job_name: false, scheduler: false}}",
    );
    let (metrics, now) = (Metrics::new(none.unwrap().metrics), Instant::now());
    metrics.container_seen(&container("a"), now);
    metrics.observe(&kill("b", 1), now);
    let text = metrics.encode().unwrap();
    assert_eq!(samples(&text, "container_oom_killed_total"), [(String::new(), 1)]);
    assert_eq!(samples(&text, "killwatch_job_oom_killed_total"), [(String::new(), 1)]);
    let cause = "cause=\"oom_memcg\"".to_owned();
    assert_eq!(samples(&text, "killwatch_job_deaths_total"), [(cause, 1)]);
}

#[test]
fn a_label_that_does_not_exist_is_refused() {
    let read = |yaml: &str| crate::config::file::parse(yaml.as_bytes());
    let labels = read("metrics: {labels: {image: true, pod: false}}").unwrap().metrics.labels;
    assert_eq!(labels, LabelsConfig { image: true, pod: false, ..LabelsConfig::default() });
    for yaml in ["metrics: {labels: {pid: true}}", "metrics: {labels: {pod: 2}}"] {
        let error = read(yaml).unwrap_err();
        assert!(error.starts_with("metrics.labels"), "{error}");
    }
    let (metrics, now) = (of_labels(labels), Instant::now());
    metrics.container_seen(&named("a"), now);
    let expected = "container_id=\"containerd://a\",pod_uid=\"\",namespace=\"shop\",container=\"a\",unit=\"\",image=\"nginx\"";
    assert_eq!(shown(&metrics, "container_oom_killed_total"), [(expected.to_owned(), 0)]);
}

#[test]
fn values_are_cut_and_nothing_passes_for_the_overflow() {
    let (metrics, now) = (metrics(10), Instant::now());
    let long = "ü".repeat(4096);
    let mut death = kill(&long, 1);
    death.job = Some(Job { id: Some(long), ..Job::default() });
    metrics.observe(&death, now);
    let cut = "ü".repeat(MAX_TEXT / 2);
    assert_eq!(sample_of(&metrics, "container_oom_killed", &cut), Some(1));
    let mut death = kill("overflow", 1);
    death.job = Some(Job { id: Some("overflow".into()), ..Job::default() });
    metrics.observe(&death, now);
    let text = metrics.encode().unwrap();
    for name in ["container_oom_killed_total", "killwatch_job_oom_killed_total"] {
        let overflow = samples(&text, name);
        let overflow: Vec<_> = overflow.iter().filter(|(l, _)| l.contains("overflow")).collect();
        assert!(matches!(overflow[..], [(_, 1)]), "{overflow:?}");
        assert!(text.lines().all(|line| line.len() < 2 * MAX_TEXT));
    }
}

#[test]
fn of_more_containers_than_can_be_remembered_the_oldest_that_is_gone_is_forgotten() {
    let off = LabelsConfig { container_id: false, ..LabelsConfig::default() };
    let (metrics, now) = (of_labels(off), Instant::now());
    for n in 0..MAX_CONTAINERS + 10 {
        let id = format!("c{n}");
        metrics.container_seen(&container(&id), now);
        if n > 0 {
            metrics.container_gone(&container(&id), now);
        }
    }
    assert_eq!(metrics.remembered(), MAX_CONTAINERS);
    metrics.expire(now + Duration::from_secs(86_400));
    assert_eq!(metrics.remembered(), 1);
    assert_eq!(shown(&metrics, "container_oom_killed_total").len(), 1, "the first lives");
}
