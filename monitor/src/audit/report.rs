//! What an audit finds, told: log lines, metrics, and the page of the daemon's state. Each is bounded.

use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::book::{Differences, Missed, Place};
use crate::attribute;
use crate::metrics::Metrics;
use crate::ops::{Gap, Ops};
use crate::text::one_line;

/// Places that get a line each in the log; the rest is summed up in one.
const MAX_LINES: usize = 20;
/// Places that are kept for the page of the daemon's state; the rest is summed up in one.
const MAX_PLACES: usize = 100;

/// The state of the count. Shared with whoever shows it.
#[derive(Debug, Clone, Default)]
pub struct Account(Arc<Mutex<Numbers>>);

/// The numbers, as they are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// OOM kills since boot, as the kernel counted at the last look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<u64>,
    /// By how many of them it is ahead of what was told as deaths or reported as missed, for two looks.
    pub unaccounted: i64,
    /// Those that happened while no daemon ran. Absent until that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// Where they were. Shown apart.
    #[serde(skip)]
    pub places: Vec<MissedKills>,
}

/// Kills while no daemon ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MissedKills {
    /// Path of the cgroup. Absent where the kernel does not tell which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Whether they were in cgroups below it that are gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// The container that the cgroup names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The pod that the cgroup names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The systemd unit that the cgroup names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How many.
    pub kills: u64,
}

impl Account {
    /// The numbers as they are.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Missed> for MissedKills {
    fn from(missed: &Missed) -> Self {
        let path = missed.place.as_ref().map(Place::path);
        let gone = matches!(missed.place, Some(Place::GoneBelow { .. }));
        let workload = attribute::workload(path, None);
        Self {
            cgroup: workload.cgroup,
            gone,
            container_id: workload.container_id,
            pod_uid: workload.pod_uid,
            unit: workload.unit,
            kills: missed.kills,
        }
    }
}

/// Tells of what the audit finds.
#[derive(Debug)]
pub struct Reporter {
    metrics: Arc<Metrics>,
    ops: Arc<Ops>,
    account: Account,
    /// The difference that the log was told of last.
    told: i64,
    /// Whether the last write of the state failed.
    unsaved: bool,
}

impl Reporter {
    /// `account` is where the numbers are shown.
    #[must_use]
    pub const fn new(metrics: Arc<Metrics>, ops: Arc<Ops>, account: Account) -> Self {
        Self { metrics, ops, account, told: 0, unsaved: false }
    }

    /// The state cannot be used at all.
    pub(super) fn no_state(&mut self, why: &dyn Display) {
        tracing::warn!(%why, "state.path cannot be used: what happens while no daemon runs will not be told");
    }

    /// A file was there and could not be used.
    pub(super) fn set_aside(&mut self, why: &str) {
        tracing::warn!(
            why = one_line(why),
            "the file in state.path was no use and was set aside: all OOM kills since boot count as missed"
        );
    }

    /// The state was written, or not.
    pub(super) fn saved(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.unsaved = false,
            Err(error) if !self.unsaved => {
                tracing::warn!(%error, "state.path cannot be written: deaths since the last write would be told again as missed");
                self.unsaved = true;
            }
            Err(_) => {}
        }
    }

    /// The kernel's counters could not be read.
    pub(super) fn blind(&mut self, why: &dyn Display) {
        self.ops.gap(Gap::Unaudited, 1);
        tracing::debug!(%why, "the kernel's count of OOM kills could not be read");
    }

    /// What the kernel had counted before the start. `kept`: it is known what was told before.
    pub(super) fn missed(&mut self, missed: &[Missed], kernel: u64, kept: bool) {
        let kills = missed.iter().map(|missed| missed.kills).sum();
        if !kept {
            tracing::info!(
                kills,
                "OOM kills before this start; which of them were told is not known without state.path"
            );
            self.account.lock().kernel = Some(kernel);
            return;
        }
        self.metrics.oom_kills_missed(kills);
        let mut lines = LineLimit::new(missed.len());
        for missed in missed {
            let Some(()) = lines.next(missed.kills) else { continue };
            let MissedKills { cgroup, gone, kills, .. } = missed.into();
            let cgroup = cgroup.as_deref().map(one_line);
            tracing::warn!(cgroup, gone, kills, "OOM kills that nobody told of: no daemon ran");
        }
        if let Some((places, kills)) = lines.rest() {
            tracing::warn!(
                places,
                kills,
                "OOM kills in other places that nobody told of: no daemon ran"
            );
        }
        let mut places: Vec<MissedKills> =
            missed.iter().take(MAX_PLACES).map(MissedKills::from).collect();
        let rest = missed.iter().skip(MAX_PLACES).map(|missed| missed.kills).sum();
        if rest > 0 {
            places.push(MissedKills { kills: rest, ..MissedKills::default() });
        }
        let mut numbers = self.account.lock();
        (numbers.kernel, numbers.missed, numbers.places) = (Some(kernel), Some(kills), places);
    }

    /// What lasts. `whole`: the last look, whose outcome `look` is, was at every cgroup. Says whether such a look is wanted, to tell where.
    pub(super) fn lasting(
        &mut self,
        host: i64,
        look: &Differences,
        whole: bool,
        kernel: u64,
    ) -> bool {
        self.metrics.set_oom_kills_unaccounted(host);
        {
            let mut numbers = self.account.lock();
            (numbers.kernel, numbers.unaccounted) = (Some(kernel), host);
        }
        if host == self.told {
            return false;
        }
        if host == 0 {
            tracing::info!("all OOM kills that the kernel counts are accounted for again");
        } else if !whole {
            return true;
        } else {
            tracing::error!(
                unaccounted = host,
                kernel,
                "the kernel counts other OOM kills than were told (see docs/metrics.md)"
            );
            self.places(look, host.signum());
        }
        self.told = host;
        false
    }

    fn places(&self, look: &Differences, sign: i64) {
        let places: Vec<_> =
            look.places.iter().filter(|(_, ahead)| ahead.signum() == sign).collect();
        let mut lines = LineLimit::new(places.len());
        for (place, ahead) in places {
            let Some(()) = lines.next(ahead.unsigned_abs()) else { continue };
            let gone = matches!(place, Place::GoneBelow { .. });
            tracing::error!(
                cgroup = one_line(place.path()),
                gone,
                unaccounted = ahead,
                "the kernel counts other OOM kills in this cgroup than were told"
            );
        }
        if let Some((places, kills)) = lines.rest() {
            tracing::error!(places, kills, "and in others");
        }
    }

    /// The host's number is right, a cgroup's is not.
    pub(super) fn misplaced(&self, place: &Place, ahead: i64) {
        tracing::debug!(
            cgroup = one_line(place.path()),
            ahead,
            "the kernel counts an OOM kill in another cgroup than the victim's: in that of its memory's owner"
        );
    }
}

/// Some lines, and a sum of the rest.
struct LineLimit {
    left: usize,
    rest: (usize, u64),
}

impl LineLimit {
    const fn new(wanted: usize) -> Self {
        // A last line that says "1 more" is worth no more than that one.
        let left = if wanted <= MAX_LINES { wanted } else { MAX_LINES - 1 };
        Self { left, rest: (0, 0) }
    }

    const fn next(&mut self, kills: u64) -> Option<()> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return Some(());
        }
        self.rest = (self.rest.0 + 1, self.rest.1 + kills);
        None
    }

    fn rest(self) -> Option<(usize, u64)> {
        (self.rest.0 > 0).then_some(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_rest_is_summed() {
        let told = |wanted: usize| {
            let mut lines = LineLimit::new(wanted);
            let shown = (0..wanted).filter(|_| lines.next(2).is_some()).count();
            (shown, lines.rest())
        };
        assert_eq!(told(0), (0, None));
        assert_eq!(told(MAX_LINES), (MAX_LINES, None));
        assert_eq!(told(MAX_LINES + 1), (MAX_LINES - 1, Some((2, 4))));
    }

    #[test]
    fn a_place_has_its_names() {
        let id = "a".repeat(64);
        let path = format!("/docker/{id}");
        let place = Some(Place::GoneBelow { path: path.as_str().into() });
        let shown = MissedKills::from(&Missed { place, kills: 3 });
        let expected = MissedKills {
            cgroup: Some(path),
            gone: true,
            container_id: Some(format!("docker://{id}")),
            kills: 3,
            ..MissedKills::default()
        };
        assert_eq!(shown, expected);
    }
}
