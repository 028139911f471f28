//! Label sets of the program's own, and the exemplar. Those of containers and jobs are in `scheme.rs`.

use prometheus_client::encoding::EncodeLabelSet;

use crate::death::{Cause, Death};
use crate::ops::{Gap, Queue};

/// Exemplar: the record behind the number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeathId {
    death_id: String,
}

impl From<&Death> for DeathId {
    fn from(death: &Death) -> Self {
        Self { death_id: death.id.to_string() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CauseLabel {
    cause: &'static str,
}

impl From<Cause> for CauseLabel {
    fn from(cause: Cause) -> Self {
        Self { cause: cause.as_str() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProgramLabel {
    pub(super) program: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct QueueLabel {
    queue: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct GapLabel {
    gap: &'static str,
}

impl From<Gap> for GapLabel {
    fn from(gap: Gap) -> Self {
        Self { gap: gap.as_str() }
    }
}

impl From<Queue> for QueueLabel {
    fn from(queue: Queue) -> Self {
        Self { queue: queue.as_str() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SinkLabel {
    pub(super) sink: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProbeLabel {
    pub(super) probe: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SourceLabel {
    pub(super) source: &'static str,
}
