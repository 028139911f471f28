//! How the sources of names fare.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::add;
use super::labels::SourceLabel;
use crate::containers::{SourceReport, SourceState};

/// What is shown of the sources of names, and of what they told.
#[derive(Debug)]
pub(super) struct Sources {
    up: Family<SourceLabel, Gauge>,
    requests: Family<SourceLabel, Counter>,
    failures: Family<SourceLabel, Counter>,
    late: Counter,
    known: Gauge,
    refused: Counter,
}

impl Sources {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            up: add(r, "killwatch_source_up", "Whether a source of names answers in time"),
            requests: add(
                r,
                "killwatch_source_requests",
                "Requests to a source of names that have ended, those that failed included",
            ),
            failures: add(
                r,
                "killwatch_source_failures",
                "Requests to a source of names that failed",
            ),
            late: add(
                r,
                "killwatch_names_late",
                "Deaths that were told without names that a source still owed",
            ),
            known: add(
                r,
                "killwatch_containers_known",
                "Containers that a source told of or is asked for",
            ),
            refused: add(
                r,
                "killwatch_containers_refused",
                "Times that there was no room for what a source told of a container",
            ),
        }
    }

    /// A source that was never there has no series: `killwatch_source_up == 0` is one that went. Of several with one name, all must be up.
    pub(super) fn set(&self, reports: &[SourceReport]) {
        let mut by_name: BTreeMap<&'static str, Vec<&SourceReport>> = BTreeMap::new();
        for report in reports {
            by_name.entry(report.name).or_default().push(report);
        }
        for (source, reports) in by_name {
            let label = SourceLabel { source };
            let there = |report: &&&SourceReport| report.state != SourceState::Absent;
            let up = |report: &&SourceReport| report.state == SourceState::Up;
            let answered: u64 = reports.iter().map(|report| report.answered).sum();
            let failed: u64 = reports.iter().map(|report| report.failed).sum();
            let mut there = reports.iter().filter(there).peekable();
            if there.peek().is_none() && answered + failed == 0 {
                continue;
            }
            let up = there.peek().is_some() && there.all(up);
            self.up.get_or_create_owned(&label).set(i64::from(up));
            raise(&self.requests.get_or_create_owned(&label), answered + failed);
            raise(&self.failures.get_or_create_owned(&label), failed);
        }
    }

    pub(super) fn set_late(&self, total: u64) {
        raise(&self.late, total);
    }

    pub(super) fn set_containers(&self, known: usize, refused: u64) {
        self.known.set(i64::try_from(known).unwrap_or(i64::MAX));
        raise(&self.refused, refused);
    }
}

/// Takes over a total that is counted elsewhere.
fn raise(counter: &Counter, total: u64) {
    counter.inner().fetch_max(total, Ordering::Relaxed);
}
