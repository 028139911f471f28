//! Kills by container: series that exist at 0 before the first kill, outlive the container, and are bounded.
//!
//! * A decision of the OOM killer counts once for each container it hit, however its victims' deaths interleave with those
//!   of other decisions. The last [`RECENT`] pairs are remembered; the deaths of one decision arrive within milliseconds.
//! * What was killed outside any container or unit is counted in the series without labels.
//! * When there is no room, the series of a container that is gone and had no kill gives way; else the kill is counted in the
//!   overflow series, which takes nothing from `sum()`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::CounterWithExemplar;

use super::MetricsConfig;
use super::labels::{ContainerLabels, DeathId};
use crate::death::{Death, Workload};

/// Pairs of decision and container that are remembered.
const RECENT: usize = 4096;

/// Kills by container.
#[derive(Debug)]
pub(super) struct Containers {
    config: MetricsConfig,
    overflowed: Counter,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    series: BTreeMap<Arc<ContainerLabels>, Series>,
    overflow: Kills,
    recent: HashSet<(u64, Arc<ContainerLabels>)>,
    order: VecDeque<(u64, Arc<ContainerLabels>)>,
}

#[derive(Debug)]
struct Series {
    kills: Kills,
    /// Since when the container is gone; `None` while it lives.
    gone: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Kills {
    incidents: CounterWithExemplar<DeathId>,
    victims: Counter,
}

impl Containers {
    pub(super) fn new(config: MetricsConfig) -> Self {
        Self { config, overflowed: Counter::default(), state: Mutex::default() }
    }

    /// Deaths that were counted in the overflow series.
    pub(super) fn overflowed(&self) -> Counter {
        self.overflowed.clone()
    }

    pub(super) fn seen(&self, workload: &Workload, now: Instant) {
        let labels = Arc::new(ContainerLabels::from(workload));
        let mut state = self.state();
        if let Some(series) = state.room_for(&labels, self.config.max_series.get(), now) {
            series.gone = None;
        }
    }

    pub(super) fn gone(&self, workload: &Workload, now: Instant) {
        if let Some(series) = self.state().series.get_mut(&ContainerLabels::from(workload)) {
            series.gone.get_or_insert(now);
        }
    }

    pub(super) fn expire(&self, now: Instant) {
        let keep = self.config.keep_gone.get();
        let expired = |series: &Series| {
            series.gone.is_some_and(|gone| now.saturating_duration_since(gone) >= keep)
        };
        self.state().series.retain(|_, series| !expired(series));
    }

    pub(super) fn killed(&self, death: &Death, now: Instant) {
        let labels = Arc::new(ContainerLabels::from(&death.workload));
        let incident = death.oom.as_ref().map_or(death.ktime_ns, |oom| oom.incident_ktime_ns);
        let mut state = self.state();
        let first = state.remember(incident, &labels);
        let kills = match state.room_for(&labels, self.config.max_series.get(), now) {
            Some(series) => {
                // A kill keeps the series of a container that is gone for the whole time once more.
                series.gone = series.gone.map(|_| now);
                series.kills.clone()
            }
            None => {
                self.overflowed.inc();
                state.overflow.clone()
            }
        };
        drop(state);
        kills.victims.inc();
        if first {
            let exemplar = DeathId { death_id: death.id.to_string() };
            kills.incidents.inc_by(1, Some(exemplar), Some(SystemTime::from(death.time)));
        }
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the decision had not hit the container before.
    fn remember(&mut self, incident: u64, labels: &Arc<ContainerLabels>) -> bool {
        let pair = (incident, Arc::clone(labels));
        if !self.recent.insert(pair.clone()) {
            return false;
        }
        self.order.push_back(pair);
        if self.order.len() > RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        true
    }

    /// The series of a container, new if need be and there is room. One that was not announced as living counts as gone, or
    /// it would stay for ever.
    fn room_for(
        &mut self,
        labels: &Arc<ContainerLabels>,
        max: usize,
        now: Instant,
    ) -> Option<&mut Series> {
        if !self.series.contains_key(labels) {
            if self.series.len() >= max {
                let untouched = |s: &Series| s.gone.is_some() && s.kills.victims.get() == 0;
                let oldest =
                    self.series.iter().filter(|(_, s)| untouched(s)).min_by_key(|(_, s)| s.gone);
                let oldest = Arc::clone(oldest?.0);
                self.series.remove(&oldest);
            }
            self.series
                .insert(Arc::clone(labels), Series { kills: Kills::default(), gone: Some(now) });
        }
        self.series.get_mut(labels)
    }
}

impl Collector for Containers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let overflow = Arc::new(ContainerLabels::overflow());
        let state = self.state();
        let mut series: Vec<_> =
            state.series.iter().map(|(labels, s)| (Arc::clone(labels), s.kills.clone())).collect();
        series.push((overflow, state.overflow.clone()));
        drop(state);

        let mut family = encoder.encode_descriptor(
            "container_oom_killed",
            "Decisions of the kernel's OOM killer that killed something in the container.",
            None,
            MetricType::Counter,
        )?;
        for (labels, kills) in &series {
            kills.incidents.encode(family.encode_family(&**labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "container_oom_victims",
            "Processes of the container that the kernel's OOM killer killed.",
            None,
            MetricType::Counter,
        )?;
        for (labels, kills) in &series {
            kills.victims.encode(family.encode_family(&**labels)?)?;
        }
        Ok(())
    }
}
