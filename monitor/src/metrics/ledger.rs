//! How the ledger fares.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::add;
use crate::ledger::Health;

/// Its metrics.
#[derive(Debug)]
pub(super) struct Kept {
    entries: Gauge,
    bytes: Gauge,
    oldest: Gauge<f64, AtomicU64>,
    degraded: Gauge,
    failures: Counter,
    evicted: Counter,
    unsaved: Counter,
    unreadable: Counter,
}

impl Kept {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            entries: add(r, "killwatch_ledger_entries", "Deaths and alerts in the ledger"),
            bytes: add(r, "killwatch_ledger_bytes", "Bytes of JSON in the ledger"),
            oldest: add(
                r,
                "killwatch_ledger_oldest_age_seconds",
                "Age of the oldest death in the ledger",
            ),
            degraded: add(
                r,
                "killwatch_ledger_degraded",
                "Whether deaths are told before they are on the disk, since it is slow or cannot be written",
            ),
            failures: add(
                r,
                "killwatch_ledger_write_failures",
                "Attempts to open or write the file of the ledger that failed",
            ),
            evicted: add(
                r,
                "killwatch_ledger_evicted",
                "Deaths that gave way to newer ones in the ledger",
            ),
            unsaved: add(
                r,
                "killwatch_ledger_unsaved",
                "Deaths that gave way to newer ones before they were in the file of the ledger",
            ),
            unreadable: add(
                r,
                "killwatch_ledger_unreadable",
                "Records in the file of the ledger that are damaged",
            ),
        }
    }

    pub(super) fn set(&self, health: &Health, now: Timestamp) {
        let gauge = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let counter = |counter: &Counter, value: u64| {
            counter.inner().fetch_max(value, Ordering::Relaxed);
        };
        gauge(&self.entries, health.entries);
        gauge(&self.bytes, health.bytes);
        let age = health.oldest.map(|oldest| now.duration_since(oldest).as_secs_f64());
        self.oldest.set(age.unwrap_or(0.0).max(0.0));
        gauge(&self.degraded, u64::from(health.degraded.is_some()));
        counter(&self.failures, health.write_failures);
        counter(&self.evicted, health.evicted);
        counter(&self.unsaved, health.unsaved);
        counter(&self.unreadable, health.unreadable);
    }
}
