//! Gathers deaths that are much alike: the first of a workload and cause in a window is told at once, the rest are one summary when the window has
//! ended. Pure: deaths bring their time, the caller says what time it is.
//!
//! Windows are cut at fixed phases of the deaths' own time, and the id of a summary comes from the ids of the deaths that it counts: who reads the same
//! deaths again after a restart makes the same summaries. Victims of one decision of the OOM killer are one group, whatever they belonged to.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use super::summary::{MAX_DEATHS, SCHEMA, Summary};
use crate::death::{Cause, Death, Workload};

/// Groups at a time; a death that would need one more is told at once.
pub(super) const MAX_GROUPS: usize = 1024;
/// How long after its end a window waits for deaths that had to wait for their names.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Bytes of job ids that one group keeps.
const MAX_JOB_BYTES: usize = 4096;

/// The windows that are open.
#[derive(Debug)]
pub(super) struct Groups {
    window: Duration,
    groups: HashMap<Key, Group>,
    /// Which group the victims of a decision of the OOM killer are in.
    incidents: HashMap<(u64, Cause), Key>,
}

/// Summary of a window that has ended.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) summary: Summary,
    /// Number of the first death that it counts.
    pub(super) from: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: Option<String>,
    owner: Owner,
    container: Option<String>,
    cause: Cause,
    /// Number of the window.
    window: i128,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Object(String, String),
    Pod(String),
    Unit(String),
    Container(String),
    Cgroup(String),
    Comm(String),
}

#[derive(Debug)]
struct Group {
    /// The death that was told at once.
    follows: Uuid,
    /// When the group was made: a wall clock that is set back must not hold it open.
    made: Instant,
    /// Its summary was told by the last run.
    told: bool,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    from: u64,
    count: u64,
    node: String,
    first: Timestamp,
    last: Timestamp,
    workload: Workload,
    jobs: Vec<String>,
    deaths: VecDeque<Uuid>,
    /// Sum of all ids.
    ids: u128,
}

impl Groups {
    /// `window` is longer than zero.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, groups: HashMap::new(), incidents: HashMap::new() }
    }

    /// Takes in the death numbered `seq`. Whether it is held for a summary; else it is to be told at once.
    pub(super) fn take(&mut self, seq: u64, death: &Death, now: Instant) -> bool {
        match self.of(death, now) {
            Some(group) if !group.told => {
                group.held.get_or_insert_with(|| Held::new(seq, death)).add(death);
                true
            }
            _ => false,
        }
    }

    /// Takes in a death that the last run has dealt with, alone or in a summary.
    pub(super) fn recall(&mut self, death: &Death, now: Instant) {
        if let Some(group) = self.of(death, now) {
            group.told = true;
        }
    }

    /// The group that a death joins; `None` if it begins one, or there is no room.
    fn of(&mut self, death: &Death, now: Instant) -> Option<&mut Group> {
        let incident = death.oom.as_ref().map(|oom| (oom.incident_ktime_ns, death.cause));
        let known = incident.and_then(|incident| self.incidents.get(&incident).cloned());
        let key = known.unwrap_or_else(|| Key::of(death, self.window));
        if !self.groups.contains_key(&key) {
            if self.groups.len() < MAX_GROUPS {
                let group = Group { follows: death.id, made: now, told: false, held: None };
                self.groups.insert(key.clone(), group);
                self.remember(incident, key);
            }
            return None;
        }
        self.remember(incident, key.clone());
        self.groups.get_mut(&key)
    }

    fn remember(&mut self, incident: Option<(u64, Cause)>, key: Key) {
        if let Some(incident) = incident
            && self.incidents.len() < MAX_GROUPS
        {
            self.incidents.insert(incident, key);
        }
    }

    /// Ends the windows that are over at `wall`, and those that have been open for too long by the clock that nobody sets.
    pub(super) fn close(&mut self, wall: Timestamp, now: Instant) -> Vec<Closed> {
        let (window, longest) = (self.window, self.window + 2 * GRACE);
        let over = |key: &Key, group: &Group| {
            remaining(key, window, wall).is_zero() || now.duration_since(group.made) > longest
        };
        let mut closed: Vec<_> = self
            .groups
            .extract_if(|key, group| over(key, group))
            .filter_map(|(key, group)| group.held.map(|held| held.close(key.cause, group.follows)))
            .collect();
        let groups = &self.groups;
        self.incidents.retain(|_, key| groups.contains_key(key));
        closed.sort_by_key(|closed| (closed.summary.time, closed.from));
        closed
    }

    /// How long until a window ends; `None` if none is open.
    pub(super) fn next(&self, wall: Timestamp) -> Option<Duration> {
        self.groups.keys().map(|key| remaining(key, self.window, wall)).min()
    }

    /// Number of the first death that is held.
    pub(super) fn first_held(&self) -> Option<u64> {
        self.groups.values().filter_map(|group| group.held.as_ref().map(|held| held.from)).min()
    }

    /// Deaths that are held.
    pub(super) fn held(&self) -> u64 {
        self.groups.values().filter_map(|group| group.held.as_ref().map(|held| held.count)).sum()
    }
}

impl Key {
    fn of(death: &Death, window: Duration) -> Self {
        let workload = &death.workload;
        let owner = workload.owners.last().map(|o| Owner::Object(o.kind.clone(), o.name.clone()));
        let pod = workload.pod.as_ref().or(workload.pod_uid.as_ref()).cloned().map(Owner::Pod);
        let container = workload.container.as_ref().or(workload.container_id.as_ref());
        let owner = owner
            .or(pod)
            .or_else(|| container.cloned().map(Owner::Container))
            .or_else(|| workload.unit.clone().map(Owner::Unit))
            .or_else(|| workload.cgroup.clone().map(Owner::Cgroup))
            .unwrap_or_else(|| Owner::Comm(death.victim.comm.clone()));
        let millis = i128::try_from(window.as_millis().max(1)).unwrap_or(i128::MAX);
        Self {
            namespace: workload.namespace.clone(),
            owner,
            container: container.cloned(),
            cause: death.cause,
            window: i128::from(death.time.as_millisecond()).div_euclid(millis),
        }
    }
}

/// How long until a window ends for good, grace included.
fn remaining(key: &Key, window: Duration, wall: Timestamp) -> Duration {
    let millis = i128::try_from(window.as_millis().max(1)).unwrap_or(i128::MAX);
    let grace = i128::try_from(GRACE.as_millis()).unwrap_or(i128::MAX);
    let end = key.window.saturating_add(1).saturating_mul(millis).saturating_add(grace);
    let left = end.saturating_sub(i128::from(wall.as_millisecond()));
    Duration::from_millis(u64::try_from(left.max(0)).unwrap_or(u64::MAX))
}

impl Held {
    fn new(seq: u64, death: &Death) -> Self {
        Self {
            from: seq,
            count: 0,
            node: death.node.clone(),
            first: death.time,
            last: death.time,
            workload: death.workload.clone(),
            jobs: Vec::new(),
            deaths: VecDeque::new(),
            ids: 0,
        }
    }

    fn add(&mut self, death: &Death) {
        self.count += 1;
        self.first = self.first.min(death.time);
        self.last = self.last.max(death.time);
        self.workload.clone_from(&death.workload);
        self.ids = self.ids.wrapping_add(death.id.as_u128());
        if self.deaths.len() >= MAX_DEATHS {
            self.deaths.pop_front();
        }
        self.deaths.push_back(death.id);
        if let Some(id) = death.job.as_ref().and_then(|job| job.id.as_ref())
            && self.jobs.len() < MAX_DEATHS
            && self.jobs.iter().map(String::len).sum::<usize>() + id.len() <= MAX_JOB_BYTES
            && !self.jobs.contains(id)
        {
            self.jobs.push(id.clone());
        }
    }

    fn close(self, cause: Cause, follows: Uuid) -> Closed {
        let summary = Summary {
            id: id(self.last, self.ids.wrapping_add(follows.as_u128())),
            schema: SCHEMA,
            node: self.node,
            time: self.last,
            summary: cause,
            count: self.count,
            first: self.first,
            follows,
            workload: self.workload,
            jobs: self.jobs,
            deaths: self.deaths.into(),
        };
        Closed { summary, from: self.from }
    }
}

/// A UUIDv7 of a time and of what is summed up: its random bits are those of the deaths.
fn id(time: Timestamp, ids: u128) -> Uuid {
    let millis = u64::try_from(
        time.duration_since(Timestamp::UNIX_EPOCH).max(SignedDuration::ZERO).as_millis(),
    );
    let [_, _, _, _, _, _, rest @ ..] = ids.to_be_bytes();
    Builder::from_unix_timestamp_millis(millis.unwrap_or(0), &rest).into_uuid()
}

#[cfg(test)]
mod tests;
