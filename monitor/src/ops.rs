//! What goes wrong in the daemon itself: the log line and the counter, in one place.
//!
//! ERROR: a death was lost, or an operator must act. WARN: something was lost or late that may be made up for.
//! A line that repeats is logged the 1st, 2nd, 4th, 8th … time, so that a storm of errors is no storm of lines; the
//! counters tell every one.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::alert::{NearLimit, PoisonJob};
use crate::metrics::Metrics;
use crate::probe::pins::state::{How, Pins};
use crate::probe::{Loss, ProbeReport, ProbeState};
use crate::text::one_line;

/// The daemon's own log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// What to log to standard error.
    pub level: LogLevel,
    /// Form of the log: for people, or one object of JSON a line.
    pub format: LogFormat,
}

/// Log levels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// A death was lost, or an operator must act.
    Error,
    /// And what was made up for.
    Warn,
    /// And what an operator may want to know.
    #[default]
    Info,
    /// And what a developer wants to know.
    Debug,
    /// Everything. Of a released build it is what `debug` is: what libraries say of themselves is not compiled in.
    Trace,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one object a line.
    Json,
}

/// The bounded queues of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Between the reader of the ring and the rest.
    Records,
    /// Between the rest and standard error: lines of the daemon's own log.
    Log,
    /// Between the pipeline and the watch over memory: questions and notices.
    Watch,
}

impl Queue {
    /// Every queue, for metrics.
    pub const ALL: &'static [Self] = &[Self::Records, Self::Log, Self::Watch];

    /// Its name in labels and log lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Log => "log",
            Self::Watch => "watch",
        }
    }
}

/// What the daemon had to let go, bounded as it is. Each is a gap in what it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// A process of which something was heard, and whose end did not come before it was forgotten.
    UnfinishedDeath,
    /// A process that the OOM killer marked, and whose mark did not arrive: its cause may be wrong.
    MissingMark,
    /// A cgroup that found no room in the index: its path will be missing.
    UnnamedCgroup,
    /// Messages of the kernel log that were overwritten before they were read: an OOM kill may have been among them.
    KernelLog,
    /// A look at the kernel's counters that failed: whether all OOM kills were told is not known.
    Unaudited,
}

impl Gap {
    /// Every gap, for metrics.
    pub const ALL: &'static [Self] = &[
        Self::UnfinishedDeath,
        Self::MissingMark,
        Self::UnnamedCgroup,
        Self::KernelLog,
        Self::Unaudited,
    ];

    /// Its name in labels and log lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnfinishedDeath => "unfinished_death",
            Self::MissingMark => "missing_mark",
            Self::UnnamedCgroup => "unnamed_cgroup",
            Self::KernelLog => "kernel_log",
            Self::Unaudited => "unaudited",
        }
    }
}

/// Tells of what went wrong.
#[derive(Debug)]
pub struct Ops {
    metrics: Arc<Metrics>,
    decode_errors: AtomicU64,
    drops: AtomicU64,
    kernel_lost: AtomicU64,
    kernel_skipped: AtomicU64,
}

impl Ops {
    /// Counts in `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            decode_errors: AtomicU64::new(0),
            drops: AtomicU64::new(0),
            kernel_lost: AtomicU64::new(0),
            kernel_skipped: AtomicU64::new(0),
        }
    }

    /// How the probes fared.
    pub fn probes(&self, reports: &[ProbeReport]) {
        self.metrics.set_probes(reports);
        for report in reports {
            let why = report.why.as_deref().unwrap_or("");
            let (probe, hook) = (&report.name, &report.hook);
            match (report.state, report.required) {
                (ProbeState::Attached, _) => tracing::info!(probe, hook, "probe attached"),
                (state, true) => {
                    tracing::error!(probe, hook, ?state, why, "a required probe is not attached")
                }
                (state, false) => {
                    tracing::warn!(
                        probe,
                        hook,
                        ?state,
                        why,
                        lost = report.purpose,
                        "an optional probe is not attached"
                    );
                }
            }
        }
    }

    /// A record from the kernel could not be read.
    pub fn decode_error(&self, why: &dyn Display) {
        self.metrics.decode_errors.inc();
        if let Some(times) = worth_a_line(&self.decode_errors, 1) {
            tracing::error!(%why, times, "a record from the kernel could not be read");
        }
    }

    /// How many records a kernel program has lost since it was loaded: the sum over all CPUs, of a program in
    /// [`killwatch_ebpf::wire::PROGRAMS`].
    pub fn kernel_lost(&self, program: &'static str, total: u64) {
        let new = self.metrics.set_kernel_lost(program, total);
        if new > 0
            && let Some(times) = worth_a_line(&self.kernel_lost, new)
        {
            tracing::error!(
                program,
                times,
                "records did not fit on the ring: raise probe.ring_bytes"
            );
        }
    }

    /// How often the kernel has skipped a program since it was loaded: what happened then was not seen.
    pub fn kernel_skipped(&self, program: &'static str, total: u64) {
        let new = self.metrics.set_kernel_skipped(program, total);
        if new > 0
            && let Some(times) = worth_a_line(&self.kernel_skipped, new)
        {
            tracing::error!(program, times, "the kernel skipped a program: deaths may be missing");
        }
    }

    /// A queue was full.
    pub fn queue_dropped(&self, queue: Queue, records: u64) {
        self.metrics.queue_dropped(queue).inc_by(records);
        if let Some(times) = worth_a_line(&self.drops, records) {
            tracing::error!(
                queue = queue.as_str(),
                times,
                "a queue of the daemon was full: what did not fit is lost"
            );
        }
    }

    /// Ends of processes that the kernel side has told and nobody will.
    pub fn deaths_lost(&self, why: Loss, deaths: u64) {
        if deaths > 0 {
            self.metrics.deaths_lost(why).inc_by(deaths);
            let reason = why.as_str();
            tracing::error!(reason, deaths, "deaths are lost with an earlier daemon");
        }
    }

    /// What of the kernel side outlives the daemon.
    pub fn pinned(&self, pins: &Pins) {
        match (pins.how(), pins.why()) {
            (How::Unpinned, why) => tracing::warn!(
                why,
                "the kernel side is not pinned: what happens while no daemon runs is not told"
            ),
            (how, _) => {
                tracing::info!(?how, "the kernel side is pinned, and goes on without the daemon")
            }
        }
    }

    /// Something was let go. `times`: more often than when this was last called.
    pub fn gap(&self, gap: Gap, times: u64) {
        if times > 0 {
            self.metrics.gap(gap).inc_by(times);
            tracing::warn!(gap = gap.as_str(), times, "something had to be let go");
        }
    }

    /// A death could not be recorded.
    pub fn not_recorded(&self, why: &dyn Display) {
        self.metrics.not_recorded.inc();
        tracing::error!(%why, "a death was not recorded");
    }

    /// What the next daemon is to know of the ring could not be kept.
    pub fn not_noted(&self, why: &dyn Display) {
        tracing::error!(%why, "how far the ring was read is not kept: if this daemon is killed, the next cannot tell what was lost");
    }

    /// A job was killed again and again.
    pub fn poison_job(&self, PoisonJob { job, deaths, .. }: &PoisonJob) {
        self.metrics.poison_jobs.inc();
        // A storm of these is bounded by the jobs: each is told once in its window.
        tracing::warn!(
            job = job.id,
            scheduler = job.scheduler,
            deaths = deaths.len(),
            "a job is killed again and again"
        );
    }

    /// A cgroup is near the limit of its memory.
    pub fn near_limit(&self, near: &NearLimit) {
        self.metrics.near_limit_told();
        // The same one is told every five minutes at most.
        tracing::warn!(
            cgroup = near.workload.cgroup.as_deref().map(one_line),
            share = near.share,
            seconds_left = near.seconds_left,
            "memory is near its limit"
        );
    }

    /// A sink's attempt failed; it will try again.
    pub fn sink_failed(&self, sink: &str, why: &str) {
        tracing::warn!(sink, why = one_line(why), "deaths cannot be delivered, trying on");
    }

    /// A sink works again.
    pub fn sink_recovered(&self, sink: &str) {
        tracing::info!(sink, "deaths are delivered again");
    }

    /// A receiver will never take a message; what follows it is delivered.
    pub fn sink_refused(&self, sink: &str, why: &str) {
        let why = one_line(why);
        tracing::error!(sink, why, "a message was refused for good: it is lost to this sink");
    }

    /// A sink is told nothing any more.
    pub fn sink_stopped(&self, sink: &str, why: &str) {
        let why = one_line(why);
        tracing::error!(sink, why, "this sink is stopped until the next start");
    }

    /// The ledger had to drop entries before a sink could be told of them.
    pub fn sink_overtaken(&self, sink: &str, entries: u64) {
        tracing::error!(sink, entries, "deaths were lost to this sink: it was too slow");
    }

    /// The daemon ends before a sink was told of all.
    pub fn sink_unfinished(&self, sink: &str, entries: u64) {
        tracing::warn!(
            sink,
            entries,
            "the shutdown left deaths undelivered: the next start goes on with them"
        );
    }
}

/// The count after adding `more`, if it has just reached or passed a power of two.
pub(crate) fn worth_a_line(count: &AtomicU64, more: u64) -> Option<u64> {
    let before = count.fetch_add(more, Ordering::Relaxed);
    let after = before.saturating_add(more);
    (before.checked_ilog2() != after.checked_ilog2()).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_a_few_lines() {
        let count = AtomicU64::new(0);
        let lines: Vec<_> = (0..1000).filter_map(|_| worth_a_line(&count, 1)).collect();
        assert_eq!(lines, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(worth_a_line(&count, 5000), Some(6000));
        assert_eq!(worth_a_line(&count, 0), None);
    }
}
