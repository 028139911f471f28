//! Series of jobs, and of the sources of names.

use std::time::{Duration, Instant};

use super::tests::{kill, metrics, samples, shown, source};
use super::{Metrics, MetricsConfig};
use crate::containers::SourceState;
use crate::death::{Cause, Death, Job, sample};

fn job(id: &str, attempt: &str) -> Job {
    Job { id: Some(id.into()), attempt: Some(attempt.into()), ..Job::default() }
}

#[test]
fn deaths_of_a_job_count_by_cause_and_expire() {
    let (metrics, now) = (metrics(10), Instant::now());
    let (hour, day) = (Duration::from_secs(3_600), Duration::from_secs(86_400));
    // One decision hits two containers of a job: one for the job.
    for (container, incident, attempt) in [("a", 1, "1"), ("b", 1, "1"), ("a", 2, "2")] {
        let death = Death { job: Some(job("4711", attempt)), ..kill(container, incident) };
        metrics.observe(&death, now);
    }
    let crash = Death { job: Some(job("4711", "1")), ..sample::by_itself(Cause::Crash, 11) };
    metrics.observe(&crash, now + hour);
    metrics.observe(&Death { job: None, ..kill("a", 3) }, now);
    let labels = "job_id=\"4711\",job_name=\"\",scheduler=\"\",namespace=\"\"";
    let caused = |cause: &str| format!("{labels},cause=\"{cause}\"");
    assert_eq!(
        shown(&metrics, "killwatch_job_deaths_total"),
        [(caused("crash"), 1), (caused("oom_memcg"), 3)]
    );
    assert_eq!(shown(&metrics, "killwatch_job_oom_killed_total"), [(labels.to_owned(), 2)]);
    metrics.expire(now + day);
    assert_eq!(shown(&metrics, "killwatch_job_oom_killed_total").len(), 1);
    metrics.expire(now + day + hour);
    assert_eq!(shown(&metrics, "killwatch_job_oom_killed_total"), []);
    assert_eq!(shown(&metrics, "killwatch_job_deaths_total"), []);
}

#[test]
fn jobs_that_do_not_fit_are_counted_in_the_overflow() {
    let max_job_series = 1.try_into().unwrap();
    let metrics = Metrics::new(MetricsConfig { max_job_series, ..MetricsConfig::default() });
    for id in ["1", "2", "3", "1"] {
        metrics.observe(&Death { job: Some(job(id, "1")), ..kill("a", 1) }, Instant::now());
    }
    let text = metrics.encode().unwrap();
    let deaths = samples(&text, "killwatch_job_deaths_total");
    let value = |id: &str| deaths.iter().find(|(l, _)| l.contains(id)).map(|(_, value)| *value);
    assert_eq!((value("\"1\""), value("\"overflow\""), deaths.len()), (Some(2), Some(2), 2));
    assert!(text.contains("killwatch_job_series_overflow_total 2\n"));
}

#[test]
fn sources_show_as_they_are_found() {
    let metrics = metrics(1);
    let shows = |line: &str| metrics.encode().unwrap().lines().any(|shown| shown == line);
    metrics.set_sources(&[source("cri", SourceState::Absent, 0, 0)]);
    assert!(!metrics.encode().unwrap().contains("source=\"cri\""), "it was never there");
    for (state, up) in [
        (SourceState::Up, 1),
        (SourceState::Slow, 0),
        (SourceState::Down, 0),
        (SourceState::Absent, 0),
    ] {
        metrics.set_sources(&[source("cri", state, 5, 2)]);
        assert!(shows(&format!("killwatch_source_up{{source=\"cri\"}} {up}")), "{state:?}");
    }
    // Of two with one name, one is not there and one is down.
    let two = [source("cri", SourceState::Up, 5, 2), source("cri", SourceState::Down, 1, 1)];
    metrics.set_sources(&two);
    assert!(shows("killwatch_source_up{source=\"cri\"} 0"));
    assert!(shows("killwatch_source_requests_total{source=\"cri\"} 9"));
    assert!(shows("killwatch_source_failures_total{source=\"cri\"} 3"));
    metrics.set_containers(5, 2);
    metrics.set_containers(4, 2);
    assert!(shows("killwatch_containers_known 4") && shows("killwatch_containers_refused_total 2"));
}
