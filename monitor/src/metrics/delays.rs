//! How old deaths are at two places on their way through the daemon.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::StageLabel;

/// Seconds: fine where a healthy daemon is, coarse where something is wrong.
const BUCKETS: [f64; 12] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0, 10.0];

/// A place on the way of a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its end was read from the ring.
    Read,
    /// It is in the ledger, and whoever listens may be told.
    Kept,
}

impl Stage {
    /// Its name in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Kept => "kept",
        }
    }
}

/// A histogram for each place.
#[derive(Debug)]
pub(super) struct Delays {
    read: Histogram,
    kept: Histogram,
}

impl Delays {
    pub(super) fn new(r: &mut Registry) -> Self {
        let stages: Family<StageLabel, Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        r.register(
            "killwatch_death_delay_seconds",
            "Time from the end of a process in the kernel to a place on its way through the daemon",
            stages.clone(),
        );
        let of = |stage| stages.get_or_create_owned(&StageLabel::from(stage));
        Self { read: of(Stage::Read), kept: of(Stage::Kept) }
    }

    pub(super) fn observe(&self, stage: Stage, delay: Duration) {
        let of = match stage {
            Stage::Read => &self.read,
            Stage::Kept => &self.kept,
        };
        of.observe(delay.as_secs_f64());
    }
}
