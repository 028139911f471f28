//! Random lives of containers and jobs, held to a model that only adds up.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::tests::samples;
use super::{LabelsConfig, Metrics, MetricsConfig};
use crate::death::{Cause, Death, Job, Workload, sample};

const KEEP: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone)]
enum Step {
    Seen { id: u8, names: u8 },
    Gone { id: u8 },
    Kill { id: u8, names: u8, incident: u64 },
    Hours(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (id, names) = (0u8..6, 0u8..3);
    let step = prop_oneof![
        3 => (id.clone(), names.clone()).prop_map(|(id, names)| Step::Seen { id, names }),
        2 => id.clone().prop_map(|id| Step::Gone { id }),
        4 => (id, names, 0u64..4).prop_map(|(id, names, incident)| Step::Kill { id, names, incident }),
        1 => (1u8..30).prop_map(Step::Hours),
    ];
    prop::collection::vec(step, 0..80)
}

fn switches() -> impl Strategy<Value = LabelsConfig> {
    any::<[bool; 10]>().prop_map(|[a, b, c, d, e, f, g, h, i, j]| LabelsConfig {
        container_id: a,
        pod_uid: b,
        namespace: c,
        pod: d,
        container: e,
        unit: f,
        image: g,
        job_id: h,
        job_name: i,
        scheduler: j,
    })
}

/// A container as it is known by its path (0), by its pod (1), and in full (2). One is called like the overflow.
fn workload(id: u8, names: u8) -> Workload {
    let bare = if id == 5 { "overflow".to_owned() } else { format!("c{id}") };
    let mut workload = Workload { container_id: Some(bare.clone()), ..Workload::default() };
    workload.unit = (id == 4).then(|| "web.service".to_owned());
    if names > 0 {
        workload.container_id = Some(format!("containerd://{bare}"));
        workload.runtime = Some("containerd".into());
        workload.namespace = Some("shop".into());
        workload.pod = Some(format!("p{}", id / 2));
    }
    if names > 1 {
        workload.container = Some(if id.is_multiple_of(2) { "web" } else { "proxy" }.into());
        workload.image = Some("nginx".into());
    }
    workload
}

fn death(id: u8, names: u8, incident: u64) -> Death {
    let mut death = sample::oom_memcg();
    death.workload = workload(id, names);
    death.oom.as_mut().unwrap().incident_ktime_ns = incident;
    death.job = Some(Job {
        id: Some(format!("j{}", id / 2)),
        name: Some(format!("n{id}")),
        ..Job::default()
    });
    death
}

/// What the text must have between the braces.
fn labels(on: LabelsConfig, workload: &Workload) -> String {
    let all = [
        ("container_id", on.container_id, &workload.container_id),
        ("pod_uid", on.pod_uid, &workload.pod_uid),
        ("namespace", on.namespace, &workload.namespace),
        ("pod", on.pod, &workload.pod),
        ("container", on.container, &workload.container),
        ("unit", on.unit, &workload.unit),
        ("image", on.image, &workload.image),
    ];
    let on = all.into_iter().filter(|(_, on, _)| *on);
    let pairs: Vec<String> =
        on.map(|(name, _, value)| format!("{name}={:?}", value.as_deref().unwrap_or(""))).collect();
    pairs.join(",")
}

#[derive(Debug, Default)]
struct Model {
    containers: BTreeMap<u8, Container>,
    /// Series that have counted: incidents, victims, and when they last counted or were let go.
    series: BTreeMap<String, (u64, u64, Duration)>,
    hits: HashSet<(u64, u8)>,
    now: Duration,
}

#[derive(Debug)]
struct Container {
    names: u8,
    counted: bool,
    lives: bool,
    idle: Duration,
}

impl Model {
    fn name(&mut self, id: u8, names: u8, on: LabelsConfig) -> &mut Container {
        let new = Container { names, counted: false, lives: false, idle: self.now };
        let known = self.containers.entry(id).or_insert(new);
        if !known.counted && names > known.names {
            if known.lives
                && let Some(old) = self.series.get_mut(&labels(on, &workload(id, known.names)))
            {
                old.2 = self.now;
            }
            known.names = names;
        }
        known
    }

    fn step(&mut self, step: &Step, on: LabelsConfig) {
        let now = self.now;
        match *step {
            Step::Seen { id, names } => self.name(id, names, on).lives = true,
            Step::Gone { id } => {
                if let Some(known) = self.containers.get_mut(&id).filter(|known| known.lives) {
                    (known.lives, known.idle) = (false, now);
                    if let Some(series) =
                        self.series.get_mut(&labels(on, &workload(id, known.names)))
                    {
                        series.2 = now;
                    }
                }
            }
            Step::Kill { id, names, incident } => {
                let known = self.name(id, names, on);
                (known.counted, known.idle) = (true, now);
                let series = labels(on, &workload(id, known.names));
                let series = self.series.entry(series).or_default();
                series.0 += u64::from(self.hits.insert((incident, id)));
                series.1 += 1;
                series.2 = now;
            }
            Step::Hours(hours) => {
                self.now += Duration::from_secs(3_600) * u32::from(hours);
                let old = |idle: Duration| self.now - idle >= KEEP;
                self.containers.retain(|_, known| known.lives || !old(known.idle));
                let held = self.held(on);
                let old = |idle: Duration| self.now - idle >= KEEP;
                let series = std::mem::take(&mut self.series).into_iter();
                let kept = series.filter(|(labels, s)| held.contains(labels) || !old(s.2));
                self.series = kept.collect();
            }
        }
    }

    /// Labels of what lives.
    fn held(&self, on: LabelsConfig) -> BTreeSet<String> {
        let live = self.containers.iter().filter(|(_, known)| known.lives);
        live.map(|(id, known)| labels(on, &workload(*id, known.names))).collect()
    }
}

fn play(metrics: &Metrics, step: &Step, now: Instant) {
    match *step {
        Step::Seen { id, names } => metrics.container_seen(&workload(id, names), now),
        // The path tells the bare id alone.
        Step::Gone { id } => metrics.container_gone(&workload(id, 0), now),
        Step::Kill { id, names, incident } => metrics.observe(&death(id, names, incident), now),
        Step::Hours(_) => metrics.expire(now),
    }
}

fn metrics(max: usize, labels: LabelsConfig) -> Metrics {
    let max_series = max.try_into().unwrap();
    let max_job_series = max.try_into().unwrap();
    Metrics::new(MetricsConfig { max_series, max_job_series, labels, ..MetricsConfig::default() })
}

/// The samples of one metric by labels, no labels twice.
fn by_labels(metrics: &Metrics, name: &str) -> BTreeMap<String, u64> {
    let samples = samples(&metrics.encode().unwrap(), name);
    let count = samples.len();
    let map: BTreeMap<String, u64> = samples.into_iter().collect();
    assert_eq!(map.len(), count, "{name}: the same labels twice: {map:?}");
    map
}

proptest! {
    /// With room for all, each series is what the model says, whatever labels are on, however late names come and whatever expires.
    #[test]
    fn each_series_is_the_sum_of_its_containers(on in switches(), steps in steps()) {
        let (metrics, start) = (metrics(100, on), Instant::now());
        let mut model = Model::default();
        for step in &steps {
            // The one that is called like the overflow is counted there.
            if matches!(step, Step::Seen { id: 5, .. } | Step::Kill { id: 5, .. }) {
                continue;
            }
            model.step(step, on);
            play(&metrics, step, start + model.now);
        }
        let incidents = by_labels(&metrics, "container_oom_killed_total");
        let victims = by_labels(&metrics, "container_oom_victims_total");
        let counted = |shown: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
            shown.iter().filter(|(_, v)| **v > 0).map(|(l, v)| (l.clone(), *v)).collect()
        };
        let expected: BTreeMap<_, _> = model.series.iter().map(|(l, s)| (l.clone(), s.1)).collect();
        prop_assert_eq!(counted(&victims), expected);
        let expected = model.series.iter().filter(|(_, s)| s.0 > 0);
        let expected: BTreeMap<_, _> = expected.map(|(l, s)| (l.clone(), s.0)).collect();
        prop_assert_eq!(counted(&incidents), expected);
        for held in model.held(on) {
            prop_assert!(incidents.contains_key(&held), "{held} lives and has no series: {incidents:?}");
        }
        prop_assert!(incidents.keys().eq(victims.keys()));
    }

    /// With room for few, nothing is lost or counted twice, and no more is shown than is allowed.
    #[test]
    fn sums_hold_where_there_is_no_room(on in switches(), max in 1usize..4, steps in steps()) {
        let (metrics, now) = (metrics(max, on), Instant::now());
        let (mut hits, mut job_hits, mut kills) = (HashSet::new(), HashSet::new(), 0);
        for step in steps.iter().filter(|step| !matches!(step, Step::Hours(_))) {
            play(&metrics, step, now);
            if let Step::Kill { id, names, incident } = step {
                hits.insert((id, incident));
                job_hits.insert((id, names.min(&1), incident));
                kills += 1;
            }
        }
        let sum = |name: &str| {
            let shown = by_labels(&metrics, name);
            (shown.len(), shown.values().sum::<u64>())
        };
        let (series, incidents) = sum("container_oom_killed_total");
        prop_assert!(series <= max + 1);
        prop_assert_eq!(incidents, hits.len() as u64);
        prop_assert_eq!(sum("container_oom_victims_total").1, kills);
        let (series, incidents) = sum("killwatch_job_oom_killed_total");
        prop_assert!(series <= max + 1);
        prop_assert_eq!(incidents, job_hits.len() as u64);
        let (series, deaths) = sum("killwatch_job_deaths_total");
        prop_assert!(series <= (max + 1) * Cause::ALL.len());
        prop_assert_eq!(deaths, kills);
    }

    /// When all is gone for long enough, nothing is left but what is in the overflow.
    #[test]
    fn nothing_stays_for_ever(on in switches(), max in 1usize..8, steps in steps()) {
        let (metrics, start) = (metrics(max, on), Instant::now());
        let mut now = start;
        for step in &steps {
            if let Step::Hours(hours) = step {
                now += Duration::from_secs(3_600) * u32::from(*hours);
            }
            play(&metrics, step, now);
        }
        (0..6).for_each(|id| metrics.container_gone(&workload(id, 0), now));
        metrics.expire(now + KEEP);
        for name in ["container_oom_killed_total", "killwatch_job_oom_killed_total"] {
            let left = by_labels(&metrics, name);
            prop_assert!(left.len() <= 1 && left.keys().all(|l| l.contains("=\"overflow\"")), "{left:?}");
        }
        prop_assert_eq!(metrics.remembered(), 0);
    }
}
