//! Jobs that are killed again and again. Pure: time comes from the deaths.
//!
//! What counts is one for each decision of the OOM killer, however many it hit, and one for each other death that does not follow from another: eight ranks
//! that fall together are one failure of their job, not eight. A job that was reported is not reported again until a whole window has passed; the
//! alert then lists what came since.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use jiff::Timestamp;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::alert::{Alert, AlertKind, JobDeath, PoisonJob, SCHEMA};
use crate::config::{Count, Period};
use crate::death::{Cause, Death, Job, State};

/// Jobs that are watched; with one more, the one that was quiet for longest is forgotten.
const MAX_JOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
/// Deaths that are listed of one job; the oldest go first.
const MAX_DEATHS: usize = 100;

/// When a job is reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoisonConfig {
    /// Deaths that make a job a poison job.
    pub deaths: Count<2, 3, 100>,
    /// Within how long.
    pub window: Period<60_000, 3_600_000, 86_400_000>,
}

/// Watches jobs.
#[derive(Debug)]
pub struct Poison {
    config: PoisonConfig,
    jobs: LruCache<Key, Watched>,
}

/// A job: its scheduler, if that is known, and its id.
type Key = (Option<String>, String);

#[derive(Debug, Default)]
struct Watched {
    deaths: VecDeque<JobDeath>,
    /// The decision of the OOM killer that the last death was of.
    incident: Option<u64>,
    reported: Option<Timestamp>,
}

impl Poison {
    /// Watches no job yet.
    #[must_use]
    pub fn new(config: PoisonConfig) -> Self {
        Self { config, jobs: LruCache::new(MAX_JOBS) }
    }

    /// Takes in a death that was told before the daemon was started anew: it counts, and raises nothing.
    pub fn remember(&mut self, death: &Death) {
        let _ = self.count(death);
    }

    /// Takes in an alert that was raised before the daemon was started anew: its job is not reported again within the window.
    pub fn remember_alert(&mut self, alert: &Alert) {
        let AlertKind::PoisonJob(PoisonJob { job, .. }) = &alert.kind else { return };
        if let Some(key) = key(job) {
            let watched = self.watched(key);
            watched.reported = watched.reported.max(Some(alert.time));
        }
    }

    /// Takes in a death. The alert, if it makes its job a poison job.
    pub fn died(&mut self, death: &Death) -> Option<Alert> {
        let (needed, window) = (self.config.deaths.get(), self.config.window.get());
        let job = death.job.as_ref()?;
        let watched = self.count(death)?;
        let is_old = |since: Timestamp| is_before(since, death.time, window);
        if watched.deaths.len() < needed || watched.reported.is_some_and(|since| !is_old(since)) {
            return None;
        }
        watched.reported = Some(death.time);
        let kind = AlertKind::PoisonJob(PoisonJob {
            job: job.clone(),
            window_seconds: window.as_secs(),
            deaths: watched.deaths.iter().cloned().collect(),
        });
        Some(Alert {
            id: follows(death.id),
            schema: SCHEMA,
            node: death.node.clone(),
            time: death.time,
            kind,
        })
    }

    /// Counts a death for its job; `None` if it does not count.
    fn count(&mut self, death: &Death) -> Option<&mut Watched> {
        let window = self.config.window.get();
        let key = key(death.job.as_ref()?)?;
        // What follows from another death is no failure of its own.
        let follows =
            matches!(death.cause, Cause::OomCollateral | Cause::PidnsTeardown | Cause::Relayed);
        if follows || death.state == State::Stuck {
            return None;
        }
        let watched = self.watched(key);
        let incident = death.oom.as_ref().map(|oom| oom.incident_ktime_ns);
        if incident.is_some() && incident == watched.incident {
            return None;
        }
        watched.incident = incident;
        watched.deaths.push_back(JobDeath {
            id: death.id,
            time: death.time,
            cause: death.cause,
            pid: death.victim.pid,
            comm: death.victim.comm.clone(),
            attempt: death.job.as_ref().and_then(|job| job.attempt.clone()),
        });
        let is_old = |first: &mut JobDeath| is_before(first.time, death.time, window);
        while watched.deaths.pop_front_if(is_old).is_some() {}
        if watched.deaths.len() > MAX_DEATHS {
            watched.deaths.pop_front();
        }
        Some(watched)
    }

    fn watched(&mut self, key: Key) -> &mut Watched {
        self.jobs.get_or_insert_mut(key, Watched::default)
    }
}

/// `None` if nothing tells this job from others.
fn key(job: &Job) -> Option<Key> {
    Some((job.scheduler.clone(), job.id.clone()?))
}

/// Whether `then` is longer before `now` than a window.
fn is_before(then: Timestamp, now: Timestamp, window: std::time::Duration) -> bool {
    now.duration_since(then).unsigned_abs() > window && then < now
}

/// The id of what follows from a death: always the same, with the death's time in it.
fn follows(death: Uuid) -> Uuid {
    // Version, variant and time stay; of the rest, which is random, the last 62 bits are turned around.
    let rest = (1_u128 << 62) - 1;
    Uuid::from_u128(death.as_u128() ^ rest)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::death::sample;

    fn death(n: u64, seconds: i64, job: &str) -> Death {
        let mut death = sample::oom_memcg();
        death.id = Uuid::from_u128(u128::from(n) + 1);
        death.time += SignedDuration::from_secs(seconds);
        if let Some(oom) = &mut death.oom {
            oom.incident_ktime_ns = n;
        }
        death.job = Some(Job { id: Some(job.to_owned()), ..Job::default() });
        death
    }

    fn deaths(alert: Option<Alert>) -> Vec<u128> {
        let Some(Alert { kind: AlertKind::PoisonJob(job), .. }) = alert else { return Vec::new() };
        job.deaths.iter().map(|death| death.id.as_u128() - 1).collect()
    }

    #[test]
    fn the_third_within_the_window_is_told_once_with_all() {
        let mut poison = Poison::new(PoisonConfig::default());
        assert!(poison.died(&death(0, 0, "a")).is_none());
        assert!(poison.died(&death(1, 100, "b")).is_none());
        assert!(poison.died(&death(2, 1800, "a")).is_none());
        assert_eq!(deaths(poison.died(&death(3, 3600, "a"))), [0, 2, 3]);
        assert!(poison.died(&death(4, 3700, "a")).is_none());
        // A window after the report, with what is in the window then.
        assert!(poison.died(&death(5, 7200, "a")).is_none());
        assert_eq!(deaths(poison.died(&death(6, 7201, "a"))), [4, 5, 6]);
    }

    #[test]
    fn a_restart_changes_nothing() {
        // Whenever the daemon is started anew, the same alerts are raised as without.
        let deaths: Vec<Death> = [0, 1800, 3600, 3700, 7200, 7201]
            .iter()
            .zip(0..)
            .map(|(s, n)| death(n, *s, "a"))
            .collect();
        let mut one = Poison::new(PoisonConfig::default());
        let told: Vec<Option<Alert>> = deaths.iter().map(|death| one.died(death)).collect();
        assert_eq!(told.iter().flatten().count(), 2);
        for restart in 0..=deaths.len() {
            let mut other = Poison::new(PoisonConfig::default());
            for (death, alert) in deaths.iter().zip(&told).take(restart) {
                other.remember(death);
                alert.iter().for_each(|alert| other.remember_alert(alert));
            }
            let (rest, as_told) = (&deaths[restart..], &told[restart..]);
            let rest: Vec<_> = rest.iter().map(|death| other.died(death)).collect();
            assert_eq!(rest, as_told, "{restart}");
        }
    }

    #[test]
    fn what_is_spread_is_no_poison() {
        let mut poison = Poison::new(PoisonConfig::default());
        for n in 0..20 {
            assert!(poison.died(&death(n, 1801 * n.cast_signed(), "a")).is_none(), "{n}");
        }
    }

    #[test]
    fn one_failure_counts_once() {
        let mut poison = Poison::new(PoisonConfig::default());
        for n in 0..10 {
            let mut rank = death(n, 1, "a");
            rank.oom.as_mut().unwrap().incident_ktime_ns = 7;
            assert!(poison.died(&rank).is_none());
            let mut follows = death(100 + n, 1, "a");
            (follows.cause, follows.oom) = (Cause::PidnsTeardown, None);
            assert!(poison.died(&follows).is_none());
            let mut stuck = death(200 + n, 1, "a");
            stuck.state = State::Stuck;
            assert!(poison.died(&stuck).is_none());
        }
        assert!(poison.died(&death(300, 2, "a")).is_none());
        assert_eq!(deaths(poison.died(&death(301, 3, "a"))), [0, 300, 301]);
    }

    #[test]
    fn jobs_without_an_id_or_of_another_scheduler_are_others() {
        let mut poison = Poison::new(PoisonConfig::default());
        for n in 0..10 {
            let mut nameless = death(n, 1, "a");
            nameless.job = Some(Job { name: Some("a".into()), ..Job::default() });
            assert!(poison.died(&nameless).is_none());
            let mut jobless = death(n, 1, "a");
            jobless.job = None;
            assert!(poison.died(&jobless).is_none());
            let mut other = death(100 + n, 1, "a");
            other.job.as_mut().unwrap().scheduler = Some(format!("s{n}"));
            assert!(poison.died(&other).is_none());
        }
    }

    #[test]
    fn a_flood_of_jobs_and_deaths_is_bounded() {
        let mut poison = Poison::new(PoisonConfig::default());
        for n in 0..3 * MAX_JOBS.get() as u64 {
            poison.died(&death(n, 0, &n.to_string()));
        }
        assert_eq!(poison.jobs.len(), MAX_JOBS.get());
        for n in 0..300 {
            poison.died(&death(n, 0, "a"));
        }
        assert!(poison.jobs.iter().all(|(_, job)| job.deaths.len() <= MAX_DEATHS));
    }
}
