//! Cgroups: which hierarchies this host has, and which path an id stands for.

use serde::{Deserialize, Serialize};

/// A cgroup: its id is unique within one hierarchy only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CgroupId {
    /// Number of the hierarchy, as in `/proc/cgroups`; 0 is v2.
    pub hierarchy: u32,
    /// Inode of the cgroup's directory.
    pub id: u64,
}
