//! Kills by container: series that exist at 0 before the first kill, outlive the container, and are bounded.
//!
//! * A container is known by its bare id and its unit ([`Who`]), whatever its labels: its names come later than its cgroup, and with labels switched off
//!   several containers share a series, which stays as long as one of them lives.
//! * Better names move a container to another series until a kill of it is counted. From then on it keeps its labels: what was counted once cannot move.
//! * A decision of the OOM killer counts once for each container that it hit, also where several share a series.
//! * What was killed outside any container or unit is counted in the series without values.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::CounterWithExemplar;

use super::config::{LabelsConfig, MetricsConfig};
use super::labels::DeathId;
use super::scheme::{Read, Scheme, Values};
use super::shelf::{Recent, Shelf, pop_expired};
use crate::containers::cut;
use crate::death::{Death, Workload};

/// Containers whose labels are remembered, unless there may be more series. When there are more, the one that has been gone for longest is forgotten; if all
/// live, a new one's series ages as though it were gone.
pub(super) const MAX_CONTAINERS: usize = 8_192;

/// Kills by container.
#[derive(Debug)]
pub(super) struct Containers {
    scheme: Scheme<Workload>,
    keep: Duration,
    overflowed: Counter,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shelf: Shelf<Kills>,
    overflow: Kills,
    max: usize,
    known: HashMap<Arc<Who>, Known>,
    /// Those that are gone, the oldest first.
    gone: BTreeSet<(Instant, Arc<Who>)>,
    recent: Recent<Arc<Who>>,
}

/// Which container or unit, whatever else is known of it.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Who {
    id: Box<str>,
    unit: Box<str>,
}

/// A cgroup: its id, and its own name, which may change (cgroup v1).
#[derive(Debug, PartialEq, Eq)]
struct Cgroup {
    id: u64,
    name: Box<str>,
}

/// What is remembered of a container.
#[derive(Debug)]
struct Known {
    values: Values,
    /// How much was known as `values` were made.
    names: usize,
    /// Whether a kill was counted under `values`.
    counted: bool,
    /// Since when it is gone, or when it was last killed after that; `None` while it lives.
    gone: Option<Instant>,
    /// The cgroup that went, if it is known: what is heard of that one later does not make the container live.
    left: Option<Cgroup>,
}

#[derive(Debug, Clone, Default)]
struct Kills {
    incidents: CounterWithExemplar<DeathId>,
    victims: Counter,
}

impl Containers {
    pub(super) fn new(config: &MetricsConfig) -> Self {
        let scheme = Scheme::new(labels(config.labels));
        let max = config.max_series.get();
        let state = State {
            shelf: Shelf::new(max, scheme.overflow()),
            overflow: Kills::default(),
            max: max.max(MAX_CONTAINERS),
            known: HashMap::new(),
            gone: BTreeSet::new(),
            recent: Recent::default(),
        };
        Self {
            scheme,
            keep: config.keep_gone.get(),
            overflowed: Counter::default(),
            state: Mutex::new(state),
        }
    }

    /// Deaths that were counted in the overflow series.
    pub(super) fn overflowed(&self) -> Counter {
        self.overflowed.clone()
    }

    pub(super) fn seen(&self, workload: &Workload, now: Instant) {
        let (who, values) = (Arc::new(Who::from(workload)), self.scheme.values(workload));
        let mut state = self.state();
        if state.admit(&who, &values, names(workload), now) {
            state.name(&who, values, names(workload), now);
            state.revive(&who, workload, now);
        } else {
            state.shelf.offer(&values, now);
        }
    }

    pub(super) fn gone(&self, workload: &Workload, now: Instant) {
        let who = Arc::new(Who::from(workload));
        let state = &mut *self.state();
        if let Some(known) = state.known.get_mut(&who)
            && known.gone.is_none()
        {
            known.gone = Some(now);
            known.left = Cgroup::of(workload);
            state.shelf.release(&known.values, now);
            state.gone.insert((now, who));
        }
    }

    pub(super) fn expire(&self, now: Instant) {
        let state = &mut *self.state();
        while let Some((_, who)) = pop_expired(&mut state.gone, now, self.keep) {
            state.known.remove(&who);
        }
        state.shelf.expire(now, self.keep);
    }

    pub(super) fn killed(&self, death: &Death, now: Instant) {
        let workload = &death.workload;
        let (who, values) = (Arc::new(Who::from(workload)), self.scheme.values(workload));
        let incident = death.oom.as_ref().map_or(death.ktime_ns, |oom| oom.incident_ktime_ns);
        let mut state = self.state();
        let first = state.recent.first(incident, &who);
        if state.admit(&who, &values, names(workload), now) {
            state.name(&who, values.clone(), names(workload), now);
        }
        let kills = state.count(&who, &values, now).unwrap_or_else(|| {
            self.overflowed.inc();
            state.overflow.clone()
        });
        drop(state);
        kills.victims.inc();
        if first {
            let exemplar = Some(DeathId::from(death));
            kills.incidents.inc_by(1, exemplar, Some(SystemTime::from(death.time)));
        }
    }

    /// Containers whose labels are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.state().known.len()
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The labels of a container.
pub(super) fn labels(on: LabelsConfig) -> [(&'static str, bool, Read<Workload>); 7] {
    [
        ("container_id", on.container_id, |w| w.container_id.as_deref()),
        ("pod_uid", on.pod_uid, |w| w.pod_uid.as_deref()),
        ("namespace", on.namespace, |w| w.namespace.as_deref()),
        ("pod", on.pod, |w| w.pod.as_deref()),
        ("container", on.container, |w| w.container.as_deref()),
        ("unit", on.unit, |w| w.unit.as_deref()),
        ("image", on.image, |w| w.image.as_deref()),
    ]
}

impl State {
    /// Remembers a container that is not known yet, as one that is gone. False if there is no room.
    fn admit(&mut self, who: &Arc<Who>, values: &Values, names: usize, now: Instant) -> bool {
        if self.known.contains_key(who) {
            return true;
        }
        if self.known.len() >= self.max {
            let Some((_, oldest)) = self.gone.pop_first() else { return false };
            self.known.remove(&oldest);
        }
        let known = Known {
            values: Arc::clone(values),
            names,
            counted: false,
            gone: Some(now),
            left: None,
        };
        self.known.insert(Arc::clone(who), known);
        self.gone.insert((now, Arc::clone(who)));
        true
    }

    /// Moves a container to another series, if no less is known of it now and nothing was counted for it.
    fn name(&mut self, who: &Arc<Who>, values: Values, names: usize, now: Instant) {
        let Some(known) = self.known.get_mut(who) else { return };
        if known.counted || names < known.names {
            return;
        }
        known.names = names;
        if known.values == values {
            return;
        }
        let old = std::mem::replace(&mut known.values, Arc::clone(&values));
        if known.gone.is_none() {
            self.shelf.release(&old, now);
            self.shelf.withdraw(&old);
            self.shelf.hold(&values, now);
        } else {
            self.shelf.withdraw(&old);
            self.shelf.offer(&values, now);
        }
    }

    /// A container lives, unless this is late news of a cgroup of it that is gone.
    fn revive(&mut self, who: &Arc<Who>, workload: &Workload, now: Instant) {
        let Some(known) = self.known.get_mut(who) else { return };
        let late = known.left.is_some() && known.left == Cgroup::of(workload);
        if let Some(since) = known.gone.filter(|_| !late) {
            known.gone = None;
            self.gone.remove(&(since, Arc::clone(who)));
            self.shelf.hold(&known.values, now);
        } else {
            self.shelf.offer(&known.values, now);
        }
    }

    /// The counts of a container that was killed; `None` if there is no room for its series.
    fn count(&mut self, who: &Arc<Who>, values: &Values, now: Instant) -> Option<Kills> {
        let known = self.known.get_mut(who);
        let values = known.as_ref().map_or(values, |known| &known.values);
        let kills = self.shelf.count(values, now)?.clone();
        if let Some(known) = known {
            known.counted = true;
            // A kill keeps the series of a container that is gone for the whole time once more; its labels must not be forgotten before.
            if let Some(since) = known.gone {
                known.gone = Some(now);
                self.gone.remove(&(since, Arc::clone(who)));
                self.gone.insert((now, Arc::clone(who)));
            }
        }
        Some(kills)
    }
}

impl Cgroup {
    fn of(workload: &Workload) -> Option<Self> {
        let path = workload.cgroup.as_deref().unwrap_or_default();
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        Some(Self { id: workload.cgroup_id?, name: cut(name).into() })
    }
}

impl From<&Workload> for Who {
    fn from(workload: &Workload) -> Self {
        let text = |value: Option<&str>| value.map(cut).unwrap_or_default().into();
        let id = workload.container_id.as_deref();
        // The path may tell the bare id alone, of which a runtime tells more.
        let bare = id.map(|id| id.split_once("://").map_or(id, |(_, bare)| bare));
        Self { id: text(bare), unit: text(workload.unit.as_deref()) }
    }
}

/// How much is known of what the labels tell.
fn names(workload: &Workload) -> usize {
    let told = [
        &workload.container_id,
        &workload.runtime,
        &workload.pod_uid,
        &workload.namespace,
        &workload.pod,
        &workload.container,
        &workload.unit,
        &workload.image,
    ];
    told.into_iter().flatten().count()
}

impl Collector for Containers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = self.state();
        let shown = state.shelf.iter().map(|(values, kills)| (Arc::clone(values), kills.clone()));
        let overflow = self.scheme.overflow().map(|values| (values, state.overflow.clone()));
        let series: Vec<_> = shown.chain(overflow).collect();
        drop(state);

        let mut family = encoder.encode_descriptor(
            "container_oom_killed",
            "Decisions of the kernel's OOM killer that killed something in the container.",
            None,
            MetricType::Counter,
        )?;
        for (values, kills) in &series {
            kills.incidents.encode(family.encode_family(&self.scheme.row(values, None))?)?;
        }
        let mut family = encoder.encode_descriptor(
            "container_oom_victims",
            "Processes of the container that the kernel's OOM killer killed.",
            None,
            MetricType::Counter,
        )?;
        for (values, kills) in &series {
            kills.victims.encode(family.encode_family(&self.scheme.row(values, None))?)?;
        }
        Ok(())
    }
}
