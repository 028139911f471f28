//! A record as it came: its very bytes, and what they mean.

use serde::Deserialize;
use uuid::Uuid;

use crate::death::Death;

/// A record of a death, one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record(String);

impl Record {
    /// A record of this JSON.
    pub(super) fn new(json: impl Into<String>) -> Self {
        Self(json.into())
    }

    /// Its JSON.
    pub(super) fn json(&self) -> &str {
        &self.0
    }

    /// Its id. `None` if it has none, which no record of ours lacks.
    pub(super) fn id(&self) -> Option<Uuid> {
        #[derive(Deserialize)]
        struct Named {
            id: Uuid,
        }
        serde_json::from_str::<Named>(&self.0).ok().map(|named| named.id)
    }

    /// What it tells. `None` if it is of a form that this program does not know: of a newer daemon.
    pub(super) fn death(&self) -> Option<Death> {
        serde_json::from_str(&self.0).ok()
    }
}
