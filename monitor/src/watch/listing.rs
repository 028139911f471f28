//! What is followed, at one moment: the answer of `GET /api/v1/cgroups`. docs/api.md is the contract.

use serde::{Deserialize, Serialize};

use crate::death::{HostMemory, Pressure, Workload};

/// The cgroups that are followed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cgroups {
    /// Those that there is reason to look at: with the largest share of their limit first, at most as many as were asked for.
    pub cgroups: Vec<CgroupUse>,
    /// The host's memory at the last look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostMemory>,
    /// How many cgroups are followed.
    pub followed: u64,
    /// How many are not, since there was no room for them.
    pub refused: u64,
}

/// A cgroup at the last look. Bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupUse {
    /// Path from the root of the hierarchy.
    pub cgroup: String,
    /// What it belongs to.
    #[serde(default)]
    pub workload: Workload,
    /// All that is charged to it.
    pub usage_bytes: u64,
    /// What of it the kernel cannot take back under pressure: this is held against the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreclaimable_bytes: Option<u64>,
    /// The kubelet's working set: all but what is inactive of the page cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_set_bytes: Option<u64>,
    /// The tightest limit on its path; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// The cgroup that this limit stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_cgroup: Option<String>,
    /// `unreclaimable_bytes` over `limit_bytes`: 0 to 1, or a little more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// The most that was ever charged to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// How often it was at its limit: `max` of `memory.events`; v1: `memory.failcnt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_limit: Option<u64>,
    /// Its pressure, where the kernel measures that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// Whether it is told as near its limit.
    #[serde(default)]
    pub near: bool,
    /// Growth, bytes per minute, if it is steady.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_bytes_per_minute: Option<f64>,
    /// When it would reach the limit if it went on like that, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_absent_and_may_be() {
        let one = CgroupUse { cgroup: "/a".into(), usage_bytes: 7, ..CgroupUse::default() };
        let all = Cgroups { cgroups: vec![one], followed: 1, ..Cgroups::default() };
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "cgroups": [{"cgroup": "/a", "workload": {}, "usage_bytes": 7, "near": false}],
                "followed": 1,
                "refused": 0
            })
        );
        assert_eq!(serde_json::from_value::<Cgroups>(json).unwrap(), all);
        let bare =
            r#"{"cgroups":[{"cgroup":"/a","usage_bytes":7,"new":1}],"followed":1,"refused":0}"#;
        assert_eq!(serde_json::from_str::<Cgroups>(bare).unwrap(), all);
    }
}
