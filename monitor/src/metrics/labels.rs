//! Label sets. An empty value is the same to Prometheus as no label: not known.

use prometheus_client::encoding::EncodeLabelSet;

use crate::death::{Cause, Workload};
use crate::ops::{Gap, Queue};

/// What was killed. No job: a series must exist at 0 before any job is known. `namespace`, `pod` and `container` need a container
/// runtime or an API server to tell them and are empty without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct ContainerLabels {
    pub(super) container_id: String,
    pub(super) pod_uid: String,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) unit: String,
}

impl ContainerLabels {
    /// The label set of everything that found no room.
    pub(super) fn overflow() -> Self {
        Self { container_id: "overflow".to_owned(), ..Self::default() }
    }
}

impl From<&Workload> for ContainerLabels {
    fn from(workload: &Workload) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self {
            container_id: text(&workload.container_id),
            pod_uid: text(&workload.pod_uid),
            unit: text(&workload.unit),
            ..Self::default()
        }
    }
}

/// Exemplar: the record behind the number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeathId {
    pub(super) death_id: String,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SinkLabel {
    pub(super) sink: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ProbeLabel {
    pub(super) probe: String,
}
