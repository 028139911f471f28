//! What follows from several deaths and is told like one. No I/O, no clock.
//!
//! Its JSON form is a public contract like [`crate::death::Death`]'s, described in docs/events.md and held to docs/alert.schema.json by a test.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::death::{Cause, Job, ProcessMemory, Workload};

/// Version of the JSON form. Rises when a key changes its meaning or goes; new keys do not raise it.
pub const SCHEMA: u32 = 1;

/// An alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Unique id, ordered by time (UUIDv7). Receivers deduplicate by it.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// Version of this format.
    pub schema: u32,
    /// Name of the node.
    pub node: String,
    /// When it was raised: wall clock, RFC 3339.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// Which alert, with what it tells.
    #[serde(flatten)]
    pub kind: AlertKind,
}

/// The alerts that there are. In JSON `alert` says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "alert", rename_all = "snake_case")]
pub enum AlertKind {
    /// One job was killed again and again.
    PoisonJob(PoisonJob),
    /// A cgroup comes near its limit.
    NearLimit(Box<NearLimit>),
}

impl AlertKind {
    /// Its name in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PoisonJob(_) => "poison_job",
            Self::NearLimit(_) => "near_limit",
        }
    }
}

/// A cgroup that is near the limit of its memory, or on a straight way to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NearLimit {
    /// Whose cgroup it is.
    pub workload: Workload,
    /// The job of its processes, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// Why it is told.
    pub reason: NearReason,
    /// What the kernel cannot take back under pressure, bytes: this is held against the limit.
    pub unreclaimable_bytes: u64,
    /// All that is charged, bytes.
    pub usage_bytes: u64,
    /// The tightest limit on its path, bytes.
    pub limit_bytes: u64,
    /// The cgroup that this limit stands on.
    pub limit_cgroup: String,
    /// `unreclaimable_bytes` over `limit_bytes`, 0 to 1.
    pub share: f64,
    /// Growth, bytes per minute, if it is steady.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_bytes_per_minute: Option<f64>,
    /// When it would reach the limit if it went on like that, seconds. Only if a straight line fits well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    /// Its largest processes, the largest first, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessMemory>,
}

/// Why nearness is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NearReason {
    /// Its share of the limit is above `watch.near_limit`.
    Share,
    /// It grows in a straight line that meets the limit within `watch.horizon`.
    Trend,
}

/// A job whose processes are killed again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoisonJob {
    /// The job, as the last of the deaths has it.
    pub job: Job,
    /// Within how many seconds the deaths came, at most.
    pub window_seconds: u64,
    /// The deaths, oldest first.
    pub deaths: Vec<JobDeath>,
}

/// A death of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobDeath {
    /// Id of its record.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// When.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// What ended it.
    pub cause: Cause,
    /// Process id on the node.
    pub pid: u32,
    /// The victim's name.
    pub comm: String,
    /// Which attempt of the job, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_schema_file_is_the_type() {
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(Alert)).unwrap() + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/alert.schema.json");
        crate::golden::check(&path, &schema);
    }

    #[test]
    fn a_near_limit_as_json() {
        let alert = sample::near_limit();
        let text = serde_json::to_string_pretty(&alert).unwrap() + "\n";
        crate::golden::check_named("alert_near_limit.json", &text);
        assert_eq!(serde_json::from_str::<Alert>(&text).unwrap(), alert);
    }

    #[test]
    fn the_example_of_the_documentation_is_an_alert() {
        let docs = include_str!("../../docs/events.md");
        let mut examples =
            docs.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
        let example = examples.find(|example| example.contains("\"near_limit\"")).unwrap();
        let alert: Alert = serde_json::from_str(example).unwrap();
        let example: serde_json::Value = serde_json::from_str(example).unwrap();
        assert_eq!(serde_json::to_value(&alert).unwrap(), example);
    }

    #[test]
    fn every_key_is_described() {
        let schema = serde_json::to_value(schemars::schema_for!(NearLimit)).unwrap();
        let docs = include_str!("../../docs/events.md");
        for key in schema["properties"].as_object().unwrap().keys() {
            assert!(docs.contains(&format!("`{key}`")), "{key} is not described");
        }
    }
}
