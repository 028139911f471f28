//! What a user may set of the metrics.

use serde::{Deserialize, Serialize};

use crate::config::{Count, Period};

/// How many series, for how long, and with which labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Label sets of containers. What does not fit is counted in the series `container_id="overflow"`.
    pub max_series: Count<1, 2_000, 1_000_000>,
    /// Label sets of jobs. What does not fit is counted in the series `job_id="overflow"`.
    pub max_job_series: Count<1, 1_000, 1_000_000>,
    /// How long the series of a container outlive it, and those of a job its last death.
    pub keep_gone: Period<1_000, 86_400_000, 2_592_000_000>,
    /// Which labels there are.
    pub labels: LabelsConfig,
}

/// A switch for each label of containers and jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelsConfig {
    /// Id of the container.
    pub container_id: bool,
    /// Kubernetes pod uid.
    pub pod_uid: bool,
    /// Kubernetes namespace, of containers and jobs.
    pub namespace: bool,
    /// Name of the pod.
    pub pod: bool,
    /// Name of the container.
    pub container: bool,
    /// systemd unit.
    pub unit: bool,
    /// Image of the container. Off unless switched on: it makes a new series with each roll-out, and joins with nothing.
    pub image: bool,
    /// Id of the job.
    pub job_id: bool,
    /// Name of the job.
    pub job_name: bool,
    /// Scheduler of the job.
    pub scheduler: bool,
}

impl Default for LabelsConfig {
    fn default() -> Self {
        Self {
            container_id: true,
            pod_uid: true,
            namespace: true,
            pod: true,
            container: true,
            unit: true,
            image: false,
            job_id: true,
            job_name: true,
            scheduler: true,
        }
    }
}
