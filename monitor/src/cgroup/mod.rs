//! Cgroups: which hierarchies this host has, and which path an id stands for.
//!
//! * [`mounts`] finds the hierarchy that accounts memory, and the unified one beside it.
//! * [`scan`] walks a hierarchy once, for what was there before the daemon.
//! * [`marks`] reads what userspace OOM killers leave on a cgroup.
//! * [`index`] keeps id → path current by kernel events, also for a while after a cgroup is gone. Pure.

use serde::{Deserialize, Serialize};

pub mod index;
pub mod marks;
pub mod mounts;
pub mod scan;

#[cfg(test)]
mod index_model;

/// A cgroup: its id is unique within one hierarchy only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CgroupId {
    /// Number of the hierarchy, as in `/proc/cgroups`; 0 is v2.
    pub hierarchy: u32,
    /// Inode of the cgroup's directory.
    pub id: u64,
}
