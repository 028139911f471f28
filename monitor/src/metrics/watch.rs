//! Cgroups near their limit, and how the watch fares.
//!
//! A series of `container_memory_near_limit` exists while a cgroup is near, and at most as many as `metrics.max_series`: what does not fit is counted in
//! `killwatch_near_limit_cgroups` all the same. Several cgroups may share a series, where labels are switched off.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::add;
use super::config::MetricsConfig;
use super::containers::labels;
use super::scheme::{Read, Scheme, Values};
use crate::death::Workload;
use crate::watch::Counts;

/// Seconds of warning: from none to what a slow leak gives.
const LEAD: [f64; 10] = [0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// The series of the watch.
#[derive(Debug)]
pub(super) struct Watched {
    near: Arc<Near>,
    cgroups_near: Gauge,
    followed: Gauge,
    samples: Counter,
    refused: Counter,
    starved: Counter,
    pub(super) warnings: Counter,
    lead: Histogram,
}

/// Which workloads are near, and how many cgroups of each.
#[derive(Debug)]
struct Near {
    scheme: Scheme<Workload>,
    max: usize,
    series: Mutex<BTreeMap<Values, u32>>,
}

impl Watched {
    pub(super) fn new(r: &mut Registry, config: &MetricsConfig) -> Self {
        let near = Arc::new(Near::new(config));
        r.register_collector(Box::new(Arc::clone(&near)));
        let lead = Histogram::new(LEAD);
        r.register(
            "killwatch_oom_warning_lead_seconds",
            "How long before a kill at a cgroup's limit its nearness was told: 0 if it was not",
            lead.clone(),
        );
        Self {
            near,
            cgroups_near: add(
                r,
                "killwatch_near_limit_cgroups",
                "Cgroups that are near the limit of their memory",
            ),
            followed: add(r, "killwatch_watched_cgroups", "Cgroups whose memory is followed"),
            samples: add(r, "killwatch_watch_samples", "Looks at the memory of a cgroup"),
            refused: add(
                r,
                "killwatch_watch_refused",
                "Cgroups that are not followed because there are too many",
            ),
            starved: add(
                r,
                "killwatch_watch_starved",
                "Looks at the memory of a cgroup that failed because no more files could be opened",
            ),
            warnings: add(
                r,
                "killwatch_near_limit_warnings",
                "Times that a cgroup was told to be near the limit of its memory",
            ),
            lead,
        }
    }

    pub(super) fn near(&self, workload: &Workload, near: bool) {
        self.near.set(workload, near);
        if near {
            self.cgroups_near.inc();
        } else {
            self.cgroups_near.dec();
        }
    }

    pub(super) fn warned(&self, seconds: f64) {
        self.lead.observe(seconds);
    }

    pub(super) fn set(&self, counts: Counts) {
        use std::sync::atomic::Ordering::Relaxed;
        self.followed.set(i64::try_from(counts.followed).unwrap_or(i64::MAX));
        self.samples.inner().fetch_max(counts.samples, Relaxed);
        self.refused.inner().fetch_max(counts.refused, Relaxed);
        self.starved.inner().fetch_max(counts.starved, Relaxed);
    }
}

impl Near {
    fn new(config: &MetricsConfig) -> Self {
        let cgroup: (_, _, Read<Workload>) = ("cgroup", true, nameless);
        let scheme = Scheme::new(labels(config.labels).into_iter().chain([cgroup]));
        Self { scheme, max: config.max_series.get(), series: Mutex::default() }
    }

    fn set(&self, workload: &Workload, near: bool) {
        let values = self.scheme.values(workload);
        let mut series = self.series();
        let room = series.len() < self.max;
        match (series.get_mut(&values), near) {
            (Some(cgroups), true) => *cgroups = cgroups.saturating_add(1),
            (Some(cgroups), false) if *cgroups > 1 => *cgroups -= 1,
            (Some(_), false) => {
                series.remove(&values);
            }
            (None, true) if room => {
                series.insert(values, 1);
            }
            (None, _) => {}
        }
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn series(&self) -> MutexGuard<'_, BTreeMap<Values, u32>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of a cgroup that nothing names better.
fn nameless(workload: &Workload) -> Option<&str> {
    let named = workload.container_id.is_some()
        || workload.pod_uid.is_some()
        || workload.unit.is_some()
        || workload.container.is_some();
    workload.cgroup.as_deref().filter(|_| !named)
}

impl Collector for Near {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let near: Vec<Values> = self.series().keys().cloned().collect();
        let mut family = encoder.encode_descriptor(
            "container_memory_near_limit",
            "Whether the memory of the container is near its limit, or on a straight way to it: 1 while it is.",
            None,
            MetricType::Gauge,
        )?;
        for values in &near {
            ConstGauge::new(1i64).encode(family.encode_family(&self.scheme.row(values, None))?)?;
        }
        Ok(())
    }
}
