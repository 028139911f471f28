//! Which deaths a question is about.

use jiff::Timestamp;
use uuid::Uuid;

use crate::death::Death;

/// Conditions that all must hold. The default lets every death through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The record with this id.
    pub id: Option<Uuid>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// The victim's process id.
    pub pid: Option<u32>,
    /// The job's id.
    pub job: Option<String>,
}

impl Filter {
    /// Whether the death meets all conditions.
    #[must_use]
    pub fn matches(&self, death: &Death) -> bool {
        self.id.is_none_or(|id| death.id == id)
            && self.since.is_none_or(|since| death.time >= since)
            && self.pid.is_none_or(|pid| death.victim.pid == pid)
            && self
                .job
                .as_ref()
                .is_none_or(|job| death.job.as_ref().and_then(|j| j.id.as_ref()) == Some(job))
    }
}
