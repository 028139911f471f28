//! How a sink fares: one place that the driver writes to, for the metrics and the status page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use crate::metrics::SinkSeries;
use crate::text::one_line;

/// Longest reason that is kept, in characters.
const MAX_WHY: usize = 500;

/// States of a sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// What it was told last, it took; or it was told nothing yet.
    #[default]
    Up,
    /// What it was told last, it did not take.
    Failing,
    /// It is told nothing any more until the next start.
    Stopped,
}

impl State {
    /// Every state, for metrics.
    pub const ALL: [Self; 3] = [Self::Up, Self::Failing, Self::Stopped];

    /// Its name in JSON and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
        }
    }
}

/// What is known of a sink.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its state.
    pub state: State,
    /// Why it is not up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Entries of the ledger and summaries that it has yet to be told.
    pub lag: u64,
    /// Deaths that are held for a summary.
    pub held: u64,
    /// Messages that it took since the start.
    pub written: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// Messages that were lost to it since the start.
    pub skipped: u64,
    /// When it took something last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
}

/// How a sink fares.
#[derive(Debug)]
pub struct Health {
    report: Mutex<Report>,
    series: SinkSeries,
}

impl Health {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(name: &str, kind: &'static str, series: SinkSeries) -> Arc<Self> {
        series.state(State::Up);
        let report = Report {
            name: name.to_owned(),
            kind,
            state: State::Up,
            why: None,
            lag: 0,
            held: 0,
            written: 0,
            failed: 0,
            skipped: 0,
            last_success: None,
        };
        Arc::new(Self { report: Mutex::new(report), series })
    }

    /// What is known of it.
    #[must_use]
    pub fn report(&self) -> Report {
        self.locked().clone()
    }

    /// How much it has yet to be told, and how much is held.
    pub(crate) fn set_lag(&self, lag: u64, held: u64) {
        let mut report = self.locked();
        (report.lag, report.held) = (lag, held);
        self.series.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    /// It took `messages`.
    pub(crate) fn written(&self, messages: u64, now: Timestamp) {
        if messages > 0 {
            let mut report = self.locked();
            report.written += messages;
            report.last_success = Some(now);
            self.series.written.inc_by(messages);
            self.series.last_success(now);
        }
    }

    /// It took all that it was told. Whether it did not before.
    pub(crate) fn recovered(&self) -> bool {
        let mut report = self.locked();
        report.why = None;
        let before = std::mem::replace(&mut report.state, State::Up);
        self.series.state(State::Up);
        before != State::Up
    }

    /// An attempt failed. Whether the one before did not.
    pub(crate) fn failed(&self, why: &str, state: State) -> bool {
        let mut report = self.locked();
        report.failed += 1;
        report.why = Some(one_line(&why.chars().take(MAX_WHY).collect::<String>()));
        let before = std::mem::replace(&mut report.state, state);
        self.series.failed.inc();
        self.series.state(state);
        before != state
    }

    /// So many messages are lost to it.
    pub(crate) fn skipped(&self, messages: u64) {
        self.locked().skipped += messages;
        self.series.skipped.inc_by(messages);
    }

    fn locked(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
