//! What is told of deaths that followed another of the same workload and cause: one message that counts. No I/O, no clock.
//!
//! Its JSON form is a public contract, described in docs/events.md.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::death::{Cause, Workload};

/// Version of the JSON form. Rises when a key changes its meaning or goes; new keys do not raise it.
pub const SCHEMA: u32 = 1;
/// Deaths that are listed; `count` counts all.
pub const MAX_DEATHS: usize = 100;

/// The deaths of one window after the one that was told at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Unique id, ordered by time (UUIDv7), the same however often it is made. Receivers deduplicate by it.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// Version of this format.
    pub schema: u32,
    /// Name of the node.
    pub node: String,
    /// When the last of the deaths was: wall clock, RFC 3339.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// What all of them were ended by.
    pub summary: Cause,
    /// How many there were, without the one that was told at once.
    pub count: u64,
    /// When the first of them was.
    #[schemars(with = "String")]
    pub first: Timestamp,
    /// The one that was told at once.
    #[schemars(with = "String")]
    pub follows: Uuid,
    /// What they belonged to, as the last of them has it.
    pub workload: Workload,
    /// Ids of the jobs that they worked on, each once, oldest first; at most [`MAX_DEATHS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<String>,
    /// Ids of their records, oldest first; at most [`MAX_DEATHS`], the newest.
    #[schemars(with = "Vec<String>")]
    pub deaths: Vec<Uuid>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_schema_file_is_the_type() {
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(Summary)).unwrap() + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/summary.schema.json");
        crate::golden::check(&path, &schema);
    }
}
