//! Label sets of the program's own, and the exemplar. Those of containers and jobs are in `scheme.rs`.

use prometheus_client::encoding::EncodeLabelSet;

use crate::death::{Cause, Death};
use crate::ops::{Gap, Queue};
use crate::probe::Loss;

use super::Stage;

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
pub(super) struct StageLabel {
    stage: &'static str,
}

impl From<Stage> for StageLabel {
    fn from(stage: Stage) -> Self {
        Self { stage: stage.as_str() }
    }
}

/// Why a request over the socket was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// It is malformed, or out of bounds.
    BadRequest,
    /// It is about a process that is not the caller's.
    Forbidden,
    /// It is about what is not there.
    NotFound,
    /// A method that its path does not have.
    Method,
    /// It is about a process that has ended.
    Conflict,
    /// Its body is too long.
    TooLarge,
    /// Its body did not come in time.
    Timeout,
    /// The caller asks too often.
    Rate,
    /// There is no room for more tags.
    Full,
    /// There is no room for more connections.
    Connections,
    /// The daemon cannot do it as it runs.
    Unavailable,
}

impl Rejected {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::BadRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::Method,
        Self::Conflict,
        Self::TooLarge,
        Self::Timeout,
        Self::Rate,
        Self::Full,
        Self::Connections,
        Self::Unavailable,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Method => "method",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Rate => "rate",
            Self::Full => "full",
            Self::Connections => "connections",
            Self::Unavailable => "unavailable",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    reason: &'static str,
}

impl From<Rejected> for ReasonLabel {
    fn from(rejected: Rejected) -> Self {
        Self { reason: rejected.as_str() }
    }
}

impl From<Loss> for ReasonLabel {
    fn from(loss: Loss) -> Self {
        Self { reason: loss.as_str() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SinkLabel {
    pub(super) sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SinkStateLabel {
    pub(super) sink: String,
    pub(super) state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProbeLabel {
    pub(super) probe: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SourceLabel {
    pub(super) source: &'static str,
}
