//! The alerts that hold: until when each does, and when it is to be sent again. No I/O; time is what the caller says.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::alert::{Alert, Labels};

/// So many are held at most.
pub const MAX_HELD: usize = 1024;
/// Times that an alert is sent while it holds.
const TIMES: u32 = 3;

/// The alerts that hold, each with labels of its own.
#[derive(Debug)]
pub(super) struct Held {
    alerts: BTreeMap<Labels, One>,
    hold: Duration,
    forgotten: u64,
}

#[derive(Debug)]
struct One {
    alert: Alert,
    /// When it has held long enough.
    until: Instant,
    /// When it is to be sent next.
    next: Instant,
    /// When it ends at the receiver if it is not sent again.
    ends: Instant,
}

/// An alert that is to be sent again.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) alert: Alert,
    /// Whether for the last time, to end it.
    pub(super) over: bool,
}

impl Held {
    /// None yet. Each will hold for `hold` after its last death.
    pub(super) fn new(hold: Duration) -> Self {
        Self { alerts: BTreeMap::new(), hold, forgotten: 0 }
    }

    pub(super) fn hold(&self) -> Duration {
        self.hold
    }

    pub(super) fn len(&self) -> usize {
        self.alerts.len()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub(super) fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values().map(|one| &one.alert)
    }

    /// The alert that was raised last for a death.
    pub(super) fn of_death(&self, id: Uuid) -> Option<&Alert> {
        self.alerts().find(|alert| alert.id == id)
    }

    /// The alert as it is once it is added to what is held: what holds already does so since its own start.
    pub(super) fn merged(&self, alert: &Alert) -> Alert {
        let mut merged = alert.clone();
        if let Some(one) = self.alerts.get(&alert.labels) {
            merged.starts_at = merged.starts_at.min(one.alert.starts_at);
        }
        merged
    }

    /// An alert was accepted at `now`: it holds from now on, anew if it did before.
    pub(super) fn prolong(&mut self, alert: Alert, now: Instant) {
        let one = One {
            until: now + self.hold,
            next: now + self.hold / TIMES,
            ends: now + self.hold,
            alert,
        };
        let known = self.alerts.insert(one.alert.labels.clone(), one).is_some();
        if !known && self.alerts.len() > MAX_HELD {
            let oldest = self.alerts.iter().min_by_key(|(_, one)| one.until);
            if let Some(labels) = oldest.map(|(labels, _)| labels.clone()) {
                self.alerts.remove(&labels);
                self.forgotten += 1;
            }
        }
    }

    /// When the next is to be sent.
    pub(super) fn due(&self) -> Option<Instant> {
        self.alerts.values().map(|one| one.next).min()
    }

    /// At most `max` that are to be sent at `now`, the longest overdue first. Each is due again later, whether it arrives now or not; one that could not be
    /// ended until the receiver did so by itself is let go.
    pub(super) fn take_due(&mut self, now: Instant, max: usize) -> Vec<Due> {
        self.alerts.retain(|_, one| one.until > now || one.ends > now);
        let step = self.hold / TIMES;
        let mut due: Vec<_> = self.alerts.values_mut().filter(|one| one.next <= now).collect();
        due.sort_by_key(|one| one.next);
        due.truncate(max);
        let due = due.into_iter().map(|one| {
            let over = one.until <= now;
            one.next = if over { now + step } else { (now + step).min(one.until) };
            Due { alert: one.alert.clone(), over }
        });
        due.collect()
    }

    /// What was due has arrived at `now`.
    pub(super) fn sent(&mut self, due: &Due, now: Instant) {
        if due.over {
            self.alerts.remove(&due.alert.labels);
        } else if let Some(one) = self.alerts.get_mut(&due.alert.labels) {
            one.ends = now + self.hold;
        }
    }
}
