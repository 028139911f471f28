//! Addresses for people that go with a death: its runbook and its dashboard. Who makes them is not known here.

use std::fmt;
use std::sync::Arc;

use crate::death::Death;

/// Makes the address of one death; `None` if there is none for it.
pub type Link = Arc<dyn Fn(&Death) -> Option<String> + Send + Sync>;

/// What makes each of them, if anything does.
#[derive(Clone, Default)]
pub struct Linked {
    /// What to do about such a death.
    pub runbook: Option<Link>,
    /// What its workload did around that time.
    pub dashboard: Option<Link>,
}

impl Linked {
    /// The runbook of a death.
    #[must_use]
    pub fn runbook(&self, death: &Death) -> Option<String> {
        self.runbook.as_ref().and_then(|link| link(death))
    }

    /// The dashboard of a death.
    #[must_use]
    pub fn dashboard(&self, death: &Death) -> Option<String> {
        self.dashboard.as_ref().and_then(|link| link(death))
    }
}

impl fmt::Debug for Linked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linked")
            .field("runbook", &self.runbook.is_some())
            .field("dashboard", &self.dashboard.is_some())
            .finish()
    }
}
