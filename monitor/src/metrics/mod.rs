//! The registry; every metric name once. docs/metrics.md describes them for users.
//!
//! Label sets are closed or bounded: those of containers by `metrics.max_series` (`containers.rs`), those of jobs by
//! `metrics.max_job_series` (`jobs.rs`), all others by the program. No method holds a lock across a call into another room.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::containers::SourceReport;
use crate::death::{Cause, Death, State, Workload};
use crate::ledger::Health;
use crate::ops::{Gap, Queue};
use crate::probe::{Loss, ProbeReport, ProbeState};

mod config;
mod containers;
mod delays;
#[cfg(test)]
mod document_tests;
mod jobs;
#[cfg(test)]
mod jobs_tests;
mod labels;
mod ledger;
#[cfg(test)]
mod model;
mod scheme;
mod shelf;
mod sinks;
mod sources;
#[cfg(test)]
mod tests;
mod watch;

pub use config::{LabelsConfig, MetricsConfig};
use containers::Containers;
use delays::Delays;
pub use delays::Stage;
use jobs::Jobs;
pub use labels::Rejected;
use labels::{CauseLabel, GapLabel, ProbeLabel, ProgramLabel, QueueLabel, ReasonLabel};
use ledger::Kept;
pub use sinks::SinkSeries;
use sinks::Sinks;
use sources::Sources;
use watch::Watched;

/// Content type of what [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Numbers that the status page repeats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Deaths, whatever the cause.
    pub deaths: u64,
    /// Records from the kernel that could not be read.
    pub decode_errors: u64,
    /// Records that the kernel side could not put on the ring.
    pub kernel_records_lost: u64,
    /// Records that did not fit into a queue.
    pub queue_dropped: u64,
    /// Deaths that could not be recorded.
    pub not_recorded: u64,
}

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    containers: Arc<Containers>,
    jobs: Arc<Jobs>,
    sources: Sources,
    deaths: Family<CauseLabel, Counter>,
    delays: Delays,
    kernel_lost: Family<ProgramLabel, Counter>,
    kernel_skipped: Family<ProgramLabel, Counter>,
    queues: Family<QueueLabel, Counter>,
    gaps: Family<GapLabel, Counter>,
    sinks: Sinks,
    lost: Family<ReasonLabel, Counter>,
    attached: Family<ProbeLabel, Gauge>,
    ready: Gauge,
    degraded: Gauge,
    stuck: Gauge,
    unaccounted: Gauge,
    missed: Counter,
    cgroups: Gauge,
    ledger: Kept,
    watched: Watched,
    web_config: Gauge,
    tagged: Gauge,
    rejected: Family<ReasonLabel, Counter>,
    pub(crate) decode_errors: Counter,
    pub(crate) not_recorded: Counter,
    pub(crate) poison_jobs: Counter,
}

impl Metrics {
    /// A registry with all that is known beforehand at 0.
    #[must_use]
    pub fn new(config: MetricsConfig) -> Self {
        let containers = Arc::new(Containers::new(&config));
        let jobs = Arc::new(Jobs::new(&config));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&containers)));
        registry.register_collector(Box::new(Arc::clone(&jobs)));
        registry.register(
            "killwatch_series_overflow",
            "Deaths by the OOM killer that found no room for a series of their container",
            containers.overflowed(),
        );
        registry.register(
            "killwatch_job_series_overflow",
            "Deaths that found no room for a series of their job",
            jobs.overflowed(),
        );
        let build = vec![("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        registry.register("killwatch_build", "The running program", Info::new(build));
        let r = &mut registry;
        let metrics = Self {
            containers,
            jobs,
            sources: Sources::new(r),
            deaths: add(
                r,
                "killwatch_deaths",
                "Processes that ended abnormally, by what ended them",
            ),
            delays: Delays::new(r),
            kernel_skipped: add(
                r,
                "killwatch_kernel_programs_skipped",
                "Times that the kernel skipped a program because it was running on that CPU already",
            ),
            kernel_lost: add(
                r,
                "killwatch_kernel_records_lost",
                "Records that did not fit on the ring, by the program that wrote them",
            ),
            queues: add(
                r,
                "killwatch_queue_dropped",
                "Records that did not fit into a queue of the daemon",
            ),
            lost: add(
                r,
                "killwatch_deaths_lost",
                "Deaths that the kernel side told and that were lost with an earlier daemon",
            ),
            gaps: add(r, "killwatch_gaps", "Times that the daemon had to let something go"),
            sinks: Sinks::new(r),
            attached: add(r, "killwatch_probe_attached", "Whether a probe is attached"),
            ready: add(r, "killwatch_ready", "Whether deaths are seen"),
            degraded: add(
                r,
                "killwatch_degraded",
                "Whether something is lacking that is required to see and tell all deaths",
            ),
            stuck: add(
                r,
                "killwatch_oom_victims_stuck",
                "Victims of the OOM killer that are still there 10 s after it killed them",
            ),
            unaccounted: add(
                r,
                "killwatch_oom_kills_unaccounted",
                "OOM kills that the kernel counts beyond those that were told",
            ),
            missed: add(
                r,
                "killwatch_oom_kills_missed",
                "OOM kills that the kernel counted while no daemon ran",
            ),
            cgroups: add(r, "killwatch_cgroups", "Cgroups whose path is known"),
            ledger: Kept::new(r),
            watched: Watched::new(r, &config),
            web_config: add(
                r,
                "killwatch_web_config_last_reload_successful",
                "Whether the file of web.config_file, if there is one, could be used as it was last seen",
            ),
            tagged: add(
                r,
                "killwatch_tagged_processes",
                "Processes that have job tags, those that ended within the last seconds included",
            ),
            rejected: add(
                r,
                "killwatch_api_rejected",
                "Requests and connections that the socket for workers rejected",
            ),
            decode_errors: add(
                r,
                "killwatch_decode_errors",
                "Records from the kernel that could not be read",
            ),
            not_recorded: add(
                r,
                "killwatch_deaths_not_recorded",
                "Deaths that could not be written to the ledger",
            ),
            poison_jobs: add(
                r,
                "killwatch_poison_jobs",
                "Jobs that were reported as killed again and again",
            ),
            registry,
        };
        metrics.at_zero();
        metrics
    }

    /// Makes every member of the closed sets visible before its first event.
    fn at_zero(&self) {
        for cause in Cause::ALL {
            drop(self.deaths.get_or_create(&CauseLabel::from(*cause)));
        }
        for program in killwatch_ebpf::wire::PROGRAMS {
            drop(self.kernel_lost.get_or_create(&ProgramLabel { program }));
            drop(self.kernel_skipped.get_or_create(&ProgramLabel { program }));
        }
        for gap in Gap::ALL {
            drop(self.gaps.get_or_create(&GapLabel::from(*gap)));
        }
        for loss in Loss::ALL {
            drop(self.deaths_lost(*loss));
        }
        for rejected in Rejected::ALL {
            drop(self.rejected.get_or_create(&ReasonLabel::from(*rejected)));
        }
        for queue in Queue::ALL {
            drop(self.queues.get_or_create(&QueueLabel::from(*queue)));
        }
    }

    /// Counts a death, once: a victim that was stuck has two records, and counts with the first. `now` is when, for the age of its container's
    /// series.
    pub fn observe(&self, death: &Death, now: Instant) {
        if death.state == State::Dead && death.stuck_seconds.is_some() {
            self.stuck.dec();
            return;
        }
        if death.state == State::Stuck {
            self.stuck.inc();
        }
        self.deaths.get_or_create_owned(&CauseLabel::from(death.cause)).inc();
        self.jobs.died(death, now);
        if death.cause.is_kernel_oom() {
            self.containers.killed(death, now);
        }
    }

    /// A death is so old at a place on its way, by the kernel's stamp on its end.
    pub fn delayed(&self, stage: Stage, delay: Duration) {
        self.delays.observe(stage, delay);
    }

    /// A container lives: its series exist from now on, so that the first kill is an increase. To be called once it has its names, or is known not to get any, and again
    /// when better ones are known: as long as it had no kill, its series then move. Not for a container that is gone, or its series would stay for ever; only news of the very
    /// cgroup that [`Self::container_gone`] was called with are known to be late.
    pub fn container_seen(&self, workload: &Workload, now: Instant) {
        self.containers.seen(workload, now);
    }

    /// A container is gone, known by its bare id and its unit alone. Its series stay for `metrics.keep_gone`, or as long as another container has the same labels.
    pub fn container_gone(&self, workload: &Workload, now: Instant) {
        self.containers.gone(workload, now);
    }

    /// Containers whose labels are remembered.
    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.containers.remembered()
    }

    /// Drops the series of containers that went longer than `metrics.keep_gone` ago, and of jobs whose last death was. To be called every now and then.
    pub fn expire(&self, now: Instant) {
        self.containers.expire(now);
        self.jobs.expire(now);
    }

    /// How the sources of names fare.
    pub fn set_sources(&self, reports: &[SourceReport]) {
        self.sources.set(reports);
    }

    /// Deaths that were told at their deadline since the start, without names that a source still owed.
    pub fn set_names_late(&self, total: u64) {
        self.sources.set_late(total);
    }

    /// Containers that the sources' registry holds, and how often it had no room since the start.
    pub fn set_containers(&self, known: usize, refused: u64) {
        self.sources.set_containers(known, refused);
    }

    /// Records that a kernel program has lost since it was loaded: the sum over all CPUs. Returns how many are new.
    pub(crate) fn set_kernel_lost(&self, program: &'static str, total: u64) -> u64 {
        let counter = self.kernel_lost.get_or_create_owned(&ProgramLabel { program });
        total.saturating_sub(counter.inner().fetch_max(total, Ordering::Relaxed))
    }

    /// Times that the kernel has skipped a program since it was loaded. Returns how many are new.
    pub(crate) fn set_kernel_skipped(&self, program: &'static str, total: u64) -> u64 {
        let counter = self.kernel_skipped.get_or_create_owned(&ProgramLabel { program });
        total.saturating_sub(counter.inner().fetch_max(total, Ordering::Relaxed))
    }

    /// How the ledger fares.
    pub fn set_ledger(&self, health: &Health, now: Timestamp) {
        self.ledger.set(health, now);
    }

    /// OOM kills that the kernel counts beyond those that were told; negative if it counts fewer.
    pub fn set_oom_kills_unaccounted(&self, kills: i64) {
        self.unaccounted.set(kills);
    }

    /// OOM kills that happened while no daemon ran.
    pub fn oom_kills_missed(&self, kills: u64) {
        self.missed.inc_by(kills);
    }

    /// A workload's cgroup has come near its limit, or left it.
    pub fn near_limit(&self, workload: &Workload, near: bool) {
        self.watched.near(workload, near);
    }

    /// How long before a kill at a cgroup's limit its nearness was told, seconds; 0 if it was not.
    pub fn warned(&self, seconds: f64) {
        self.watched.warned(seconds);
    }

    /// Somebody was told that a cgroup is near its limit.
    pub(crate) fn near_limit_told(&self) {
        self.watched.warnings.inc();
    }

    /// How the watch over the memory of cgroups fares.
    pub fn set_watch(&self, counts: crate::watch::Counts) {
        self.watched.set(counts);
    }

    /// Cgroups that the index holds.
    pub fn set_cgroups(&self, count: usize) {
        self.cgroups.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Processes that have job tags.
    pub fn set_tagged(&self, count: usize) {
        self.tagged.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A request or connection over the socket was rejected.
    pub fn rejected(&self, why: Rejected) {
        self.rejected.get_or_create_owned(&ReasonLabel::from(why)).inc();
    }

    /// How the probes fared.
    pub fn set_probes(&self, reports: &[ProbeReport]) {
        for report in reports {
            let attached = i64::from(report.state == ProbeState::Attached);
            self.attached
                .get_or_create_owned(&ProbeLabel { probe: report.name.clone() })
                .set(attached);
        }
    }

    /// Whether deaths are seen.
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Whether something is lacking that is required to see and tell all of them.
    pub fn set_degraded(&self, degraded: bool) {
        self.degraded.set(i64::from(degraded));
    }

    /// Whether the file that says who may look could be used.
    pub fn set_web_config(&self, usable: bool) {
        self.web_config.set(i64::from(usable));
    }

    pub(crate) fn queue_dropped(&self, queue: Queue) -> Counter {
        self.queues.get_or_create_owned(&QueueLabel::from(queue))
    }

    pub(crate) fn gap(&self, gap: Gap) -> Counter {
        self.gaps.get_or_create_owned(&GapLabel::from(gap))
    }

    /// The series of a sink.
    #[must_use]
    pub fn sink(&self, sink: &str) -> SinkSeries {
        self.sinks.of(sink)
    }

    pub(crate) fn deaths_lost(&self, why: Loss) -> Counter {
        self.lost.get_or_create_owned(&ReasonLabel::from(why))
    }

    /// Numbers that the status page repeats.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let deaths =
            Cause::ALL.iter().map(|c| self.deaths.get_or_create_owned(&CauseLabel::from(*c)).get());
        let lost = killwatch_ebpf::wire::PROGRAMS
            .iter()
            .map(|program| self.kernel_lost.get_or_create_owned(&ProgramLabel { program }).get());
        Counters {
            deaths: deaths.sum(),
            decode_errors: self.decode_errors.get(),
            kernel_records_lost: lost.sum(),
            queue_dropped: Queue::ALL.iter().map(|queue| self.queue_dropped(*queue).get()).sum(),
            not_recorded: self.not_recorded.get(),
        }
    }

    /// Everything as OpenMetrics 1.0 text ([`CONTENT_TYPE`]).
    ///
    /// # Errors
    /// If a metric cannot be written, which is a defect.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Makes a metric and registers it. The registry ends each help text with a full stop and each counter with `_total`.
fn add<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: Clone + Default + prometheus_client::registry::Metric,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
