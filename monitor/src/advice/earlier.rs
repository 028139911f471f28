//! Deaths at a limit, remembered by job and by workload: whether a limit was met before. Pure: time comes from the deaths.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;

use jiff::Timestamp;
use lru::LruCache;

use super::key;
use crate::death::{Cause, Death, State};

/// Jobs and workloads that are remembered; with one more, the one that was quiet for longest is forgotten.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
/// Deaths of one that are; the oldest go first.
const MAX_DEATHS: usize = 16;

/// Earlier deaths at limits. About 1 MiB when it is full.
#[derive(Debug)]
pub struct Earlier {
    /// By the hash of a key: names may be long, and are strangers'. The hash is keyed, and twice 64 bits, so that nobody can make two meet.
    known: LruCache<[u64; 2], VecDeque<Past>>,
    hashers: [RandomState; 2],
}

/// An earlier death at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// When.
    pub time: Timestamp,
    /// The limit, bytes.
    pub limit_bytes: u64,
    /// The most that was in use, bytes.
    pub peak_bytes: u64,
    /// The decision that it fell to.
    incident: Option<u64>,
}

/// What is known of a death's job, or else of its workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known<'a> {
    /// The job's id, if these are the job's.
    pub(super) job: Option<&'a str>,
    /// Oldest first.
    pub(super) deaths: Vec<Past>,
}

impl Default for Earlier {
    fn default() -> Self {
        Self { known: LruCache::new(MAX_KEYS), hashers: [RandomState::new(), RandomState::new()] }
    }
}

impl Earlier {
    /// Takes in a death, as it is kept or as the ledger has it from before a restart. Only one at a cgroup's limit counts, and of the victims of one decision the first.
    pub fn remember(&mut self, death: &Death) {
        let memory = &death.memory;
        let Some(limit_bytes) = memory.limit_bytes.filter(|limit| *limit > 0) else { return };
        if death.cause != Cause::OomMemcg || death.state == State::Stuck {
            return;
        }
        let peaks =
            [memory.usage_bytes, memory.cgroup.as_ref().and_then(|cgroup| cgroup.peak_bytes)];
        let past = Past {
            time: death.time,
            limit_bytes,
            peak_bytes: peaks.into_iter().flatten().max().unwrap_or(limit_bytes),
            incident: incident(death),
        };
        for key in self.keys(death).into_iter().flatten() {
            let deaths = self.known.get_or_insert_mut(key, VecDeque::new);
            let again = |other: &Past| past.incident.is_some() && other.incident == past.incident;
            if deaths.iter().any(again) {
                continue;
            }
            deaths.push_back(past);
            if deaths.len() > MAX_DEATHS {
                deaths.pop_front();
            }
        }
    }

    /// The earlier deaths of the same job; if there are none, of the same workload. Other victims of the same decision are none.
    pub(super) fn of<'a>(&self, death: &'a Death) -> Known<'a> {
        let [job, workload] = self.keys(death);
        let incident = incident(death);
        let deaths = |key: Option<[u64; 2]>| -> Vec<Past> {
            let deaths = key.and_then(|key| self.known.peek(&key)).into_iter().flatten();
            deaths.filter(|past| incident.is_none() || past.incident != incident).copied().collect()
        };
        let of_job = deaths(job);
        if of_job.is_empty() {
            return Known { job: None, deaths: deaths(workload) };
        }
        let job = death.job.as_ref().and_then(|job| job.id.as_deref());
        Known { job, deaths: of_job }
    }

    /// The keys of a death's job and workload.
    fn keys(&self, death: &Death) -> [Option<[u64; 2]>; 2] {
        let hash = |key: &[&str]| self.hashers.each_ref().map(|hasher| hasher.hash_one(key));
        [
            key::job(death).map(|key| hash(&key)),
            key::workload(&death.workload).map(|key| hash(&key)),
        ]
    }
}

fn incident(death: &Death) -> Option<u64> {
    death.oom.as_ref().map(|oom| oom.incident_ktime_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::sample;

    fn death(n: u64, job: &str) -> Death {
        let mut death = sample::in_a_pod();
        death.oom.as_mut().unwrap().incident_ktime_ns = n;
        death.memory.limit_bytes = Some(n + 1);
        death.job.as_mut().unwrap().id = Some(job.to_owned());
        death
    }

    fn limits(known: &Known<'_>) -> Vec<u64> {
        known.deaths.iter().map(|past| past.limit_bytes).collect()
    }

    #[test]
    fn the_jobs_own_come_first_and_the_workloads_else() {
        let mut earlier = Earlier::default();
        assert_eq!(earlier.of(&death(0, "a")), Known::default());
        for (n, job) in [(1, "a"), (2, "b"), (3, "a")] {
            earlier.remember(&death(n, job));
        }
        let next = death(9, "a");
        let known = earlier.of(&next);
        assert_eq!((known.job, limits(&known)), (Some("a"), vec![2, 4]));
        let next = death(9, "new");
        let known = earlier.of(&next);
        assert_eq!((known.job, limits(&known)), (None, vec![2, 3, 4]));
        let mut other = death(9, "new");
        other.workload.namespace = Some("bank".into());
        assert_eq!(earlier.of(&other), Known::default());
    }

    #[test]
    fn of_one_decision_there_is_one() {
        let mut earlier = Earlier::default();
        for _ in 0..3 {
            earlier.remember(&death(1, "a"));
        }
        assert_eq!(earlier.of(&death(1, "a")).deaths, [], "it is the same");
        assert_eq!(limits(&earlier.of(&death(2, "a"))), [2]);
        let mut stuck = death(5, "a");
        stuck.state = State::Stuck;
        earlier.remember(&stuck);
        earlier.remember(&sample::killed());
        assert_eq!(limits(&earlier.of(&death(2, "a"))), [2]);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut earlier = Earlier::default();
        for n in 0..3000 {
            earlier.remember(&death(n, &n.to_string()));
        }
        assert_eq!(earlier.known.len(), MAX_KEYS.get());
        assert!(earlier.known.iter().all(|(_, deaths)| deaths.len() <= MAX_DEATHS));
        assert_eq!(limits(&earlier.of(&death(9999, "new"))).len(), MAX_DEATHS);
    }
}
