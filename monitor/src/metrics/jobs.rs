//! Deaths by job. A job is known with its first death only, so its series begin with it; they are bounded, and expire by age.
//!
//! * A job is told by scheduler, id, name and namespace ([`Key`]); with labels switched off several share a series. Attempts and tasks of a job are one: a label for them would
//!   make a series for each retry.
//! * A decision of the OOM killer counts once for each job that it hit.
//! * What belonged to no job is not counted here.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::CounterWithExemplar;

use super::config::MetricsConfig;
use super::labels::DeathId;
use super::scheme::{Read, Scheme};
use super::shelf::{Recent, Shelf};
use crate::containers::cut;
use crate::death::{Cause, Death};

/// What tells a job.
const PARTS: [(&str, Read<Death>); 4] = [
    ("job_id", |death| death.job.as_ref()?.id.as_deref()),
    ("job_name", |death| death.job.as_ref()?.name.as_deref()),
    ("scheduler", |death| death.job.as_ref()?.scheduler.as_deref()),
    ("namespace", |death| death.workload.namespace.as_deref()),
];

/// Deaths by job.
#[derive(Debug)]
pub(super) struct Jobs {
    scheme: Scheme<Death>,
    keep: Duration,
    overflowed: Counter,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shelf: Shelf<Deaths>,
    overflow: Deaths,
    recent: Recent<Key>,
}

/// Which job, whatever labels are on.
type Key = Arc<[Box<str>; 4]>;

#[derive(Debug, Clone, Default)]
struct Deaths {
    /// Those causes that there were.
    by_cause: Vec<(Cause, CounterWithExemplar<DeathId>)>,
    oom_incidents: CounterWithExemplar<DeathId>,
}

impl Jobs {
    pub(super) fn new(config: &MetricsConfig) -> Self {
        let on = config.labels;
        let on = [on.job_id, on.job_name, on.scheduler, on.namespace];
        let mut on = on.into_iter();
        let scheme = Scheme::new(PARTS.map(|(name, read)| (name, on.next().unwrap_or(true), read)));
        let state = State {
            shelf: Shelf::new(config.max_job_series.get(), scheme.overflow()),
            overflow: Deaths::default(),
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

    pub(super) fn died(&self, death: &Death, now: Instant) {
        if death.job.is_none() {
            return;
        }
        let state = &mut *self.state();
        let deaths = state.shelf.count(&self.scheme.values(death), now).unwrap_or_else(|| {
            self.overflowed.inc();
            &mut state.overflow
        });
        let count = |counter: &CounterWithExemplar<DeathId>| {
            let time = Some(SystemTime::from(death.time));
            counter.inc_by(1, Some(DeathId::from(death)), time);
        };
        match deaths.by_cause.iter().find(|(cause, _)| *cause == death.cause) {
            Some((_, counter)) => count(counter),
            None => {
                let counter = CounterWithExemplar::default();
                count(&counter);
                deaths.by_cause.push((death.cause, counter));
            }
        }
        if death.cause.is_kernel_oom() {
            let incident = death.oom.as_ref().map_or(death.ktime_ns, |oom| oom.incident_ktime_ns);
            let key = PARTS.map(|(_, read)| read(death).map(cut).unwrap_or_default().into());
            if state.recent.first(incident, &Arc::new(key)) {
                count(&deaths.oom_incidents);
            }
        }
    }

    pub(super) fn expire(&self, now: Instant) {
        self.state().shelf.expire(now, self.keep);
    }

    /// A panic elsewhere leaves no half-made state here: nothing between lock and unlock can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Jobs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = self.state();
        let shown = state.shelf.iter().map(|(values, deaths)| (Arc::clone(values), deaths.clone()));
        let overflow = self.scheme.overflow().map(|values| (values, state.overflow.clone()));
        let series: Vec<_> = shown.chain(overflow).collect();
        drop(state);

        let mut family = encoder.encode_descriptor(
            "killwatch_job_deaths",
            "Processes of the job that ended abnormally, by what ended them.",
            None,
            MetricType::Counter,
        )?;
        for (values, deaths) in &series {
            for (cause, counter) in &deaths.by_cause {
                let row = self.scheme.row(values, Some(("cause", cause.as_str())));
                counter.encode(family.encode_family(&row)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "killwatch_job_oom_killed",
            "Decisions of the kernel's OOM killer that killed something of the job.",
            None,
            MetricType::Counter,
        )?;
        for (values, deaths) in &series {
            deaths.oom_incidents.encode(family.encode_family(&self.scheme.row(values, None))?)?;
        }
        Ok(())
    }
}
