//! From the kernel to user space: what to attach, loading it, reading the ring, decoding records.
//! The only room that imports aya.

use serde::{Deserialize, Serialize};

/// How one probe fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Name of the program, such as `mark_victim`.
    pub name: String,
    /// What it attaches to, such as `tp_btf/oom/mark_victim`.
    pub hook: String,
    /// What it is for, and so what is lost without it.
    pub purpose: String,
    /// Whether the daemon is ready without it.
    pub required: bool,
    /// Its state.
    pub state: ProbeState,
    /// Why, unless attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// States of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// Not tried yet.
    Pending,
    /// At work.
    Attached,
    /// This kernel cannot have it.
    Unsupported,
    /// It should have attached and did not.
    Failed,
}
