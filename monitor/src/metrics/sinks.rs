//! How the sinks fare. The label values are the configured names: bounded by the sinks that one may configure.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use jiff::Timestamp;

use super::add;
use super::labels::{SinkLabel, SinkStateLabel};
use crate::notify::health::State;

/// The series of all sinks.
#[derive(Debug)]
pub(super) struct Sinks {
    written: Family<SinkLabel, Counter>,
    failed: Family<SinkLabel, Counter>,
    skipped: Family<SinkLabel, Counter>,
    not_applicable: Family<SinkLabel, Counter>,
    lag: Family<SinkLabel, Gauge>,
    last_success: Family<SinkLabel, Gauge>,
    state: Family<SinkStateLabel, Gauge>,
}

/// The series of one sink.
#[derive(Debug, Clone)]
pub struct SinkSeries {
    sink: String,
    pub(crate) written: Counter,
    pub(crate) failed: Counter,
    pub(crate) skipped: Counter,
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(dead_code, reason = "counted by a sink that is left out")
    )]
    pub(crate) not_applicable: Counter,
    pub(crate) lag: Gauge,
    last_success: Family<SinkLabel, Gauge>,
    state: Family<SinkStateLabel, Gauge>,
}

impl Sinks {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            written: add(
                r,
                "killwatch_sink_written",
                "Deaths, alerts and summaries that a sink has delivered",
            ),
            failed: add(r, "killwatch_sink_failed", "Attempts of a sink to deliver that failed"),
            skipped: add(
                r,
                "killwatch_sink_skipped",
                "What a sink was too slow for or its receiver refused for good",
            ),
            not_applicable: add(
                r,
                "killwatch_sink_not_applicable",
                "What a sink has no way to tell",
            ),
            lag: add(
                r,
                "killwatch_sink_lag",
                "Entries of the ledger and summaries that a sink has yet to be told",
            ),
            last_success: add(
                r,
                "killwatch_sink_last_success_timestamp_seconds",
                "When a sink delivered something last",
            ),
            state: add(r, "killwatch_sink_state", "Whether a sink is in this state"),
        }
    }

    /// The series of a sink: the counters at 0 from the first call on, a time only once there is one.
    pub(super) fn of(&self, sink: &str) -> SinkSeries {
        let label = SinkLabel { sink: sink.to_owned() };
        SinkSeries {
            sink: sink.to_owned(),
            written: self.written.get_or_create_owned(&label),
            failed: self.failed.get_or_create_owned(&label),
            skipped: self.skipped.get_or_create_owned(&label),
            not_applicable: self.not_applicable.get_or_create_owned(&label),
            lag: self.lag.get_or_create_owned(&label),
            last_success: self.last_success.clone(),
            state: self.state.clone(),
        }
    }
}

impl SinkSeries {
    pub(crate) fn last_success(&self, time: Timestamp) {
        let label = SinkLabel { sink: self.sink.clone() };
        self.last_success.get_or_create_owned(&label).set(time.as_second());
    }

    pub(crate) fn state(&self, now: State) {
        for state in State::ALL {
            let label = SinkStateLabel { sink: self.sink.clone(), state: state.as_str() };
            self.state.get_or_create_owned(&label).set(i64::from(state == now));
        }
    }
}
