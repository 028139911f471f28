//! Names: which workload a cgroup path stands for, and which job a process worked on. No I/O.
//!
//! * [`path`] reads a cgroup path by the table in [`patterns`]; always there, and as trustworthy as whoever may make cgroups.
//! * [`environ`] picks the allowed variables out of a victim's environment, and never keeps another.
//! * [`names`] puts what a runtime says of a container over that.
//! * [`jobs`] makes a job of all of it and the worker's own tags, by [`rule`]s that are data, and says where each part came from.

use std::collections::BTreeMap;

use crate::death::{Job, Workload};

pub mod environ;
pub mod jobs;
pub mod names;
mod options;
pub mod path;
pub mod patterns;
pub mod rule;

pub use jobs::Rules;
pub use names::{Asked, named, owned};

#[cfg(test)]
mod environ_tests;
#[cfg(test)]
mod jobs_tests;
#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod path_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod systems_tests;

/// The source that is named in `sources` for what a cgroup path says.
pub const CGROUP_PATH: &str = "cgroup_path";

/// The workload of a cgroup. A path that says nothing is still reported.
#[must_use]
pub fn workload(path: Option<&str>, cgroup_id: Option<u64>) -> Workload {
    workload_among(path, cgroup_id, |_| false)
}

/// The workload of a cgroup, held to which containers a source `knows` by their bare ids: see [`path::believed`].
#[must_use]
pub fn workload_among(
    path: Option<&str>,
    cgroup_id: Option<u64>,
    knows: impl Fn(&str) -> bool,
) -> Workload {
    let identity = path.map(|path| identity_among(path, knows)).unwrap_or_default();
    let container_id = identity.container.as_ref().map(path::Container::id);
    let runtime = identity.container.and_then(|container| container.runtime).map(str::to_owned);
    let known = [
        ("container_id", container_id.is_some()),
        ("runtime", runtime.is_some()),
        ("pod_uid", identity.pod_uid.is_some()),
        ("qos", identity.qos.is_some()),
        ("unit", identity.unit.is_some()),
    ];
    let sources = known.into_iter().filter(|(_, known)| *known);
    Workload {
        container_id,
        runtime,
        pod_uid: identity.pod_uid,
        qos: identity.qos,
        unit: identity.unit,
        sources: sources.map(|(key, _)| (key.to_owned(), CGROUP_PATH.to_owned())).collect(),
        ..Workload::of_cgroup(path, cgroup_id)
    }
}

fn identity_among(path: &str, knows: impl Fn(&str) -> bool) -> path::Identity {
    let identity = path::identify(path);
    // Only a container's name can be made up.
    if identity.container.is_none() {
        return identity;
    }
    match path::believed(path, knows) {
        whole if whole.len() == path.len() => identity,
        part => path::identify(part),
    }
}

/// What may say which job a victim worked on.
#[derive(Debug, Clone, Copy)]
pub struct Clues<'a> {
    /// Its job tags.
    pub tags: &'a BTreeMap<String, String>,
    /// Labels of its pod or container.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations of its pod.
    pub annotations: &'a BTreeMap<String, String>,
    /// The path of its cgroup.
    pub path: Option<&'a str>,
    /// The allowed variables of its environment.
    pub environ: &'a BTreeMap<String, String>,
}

/// The job of a victim by the built-in rules, from its cgroup's path and the allowed variables of its environment.
#[must_use]
pub fn job(path: Option<&str>, environ: &BTreeMap<String, String>) -> Option<Job> {
    let none = BTreeMap::new();
    let clues = Clues { tags: &none, labels: &none, annotations: &none, path, environ };
    Rules::built_in().job(&clues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_each_name_came_from() {
        let path = format!(
            "/kubepods/burstable/pod11111111-2222-3333-4444-555555555555/{}",
            "a".repeat(64)
        );
        let workload = workload(Some(&path), Some(42));
        assert_eq!(
            workload.container_id,
            Some("a".repeat(64)),
            "the path does not tell the runtime"
        );
        assert_eq!(workload.runtime, None);
        let sources: Vec<_> =
            workload.sources.iter().map(|(key, source)| (key.as_str(), source.as_str())).collect();
        assert_eq!(
            sources,
            [("container_id", CGROUP_PATH), ("pod_uid", CGROUP_PATH), ("qos", CGROUP_PATH)]
        );
        assert_eq!((workload.cgroup, workload.cgroup_id), (Some(path), Some(42)));
    }

    #[test]
    fn nothing_known_is_nothing_said() {
        assert_eq!(workload(None, None), Workload::default());
        let workload = workload(Some("/a/b"), None);
        assert_eq!(workload, Workload { cgroup: Some("/a/b".to_owned()), ..Workload::default() });
        assert_eq!(job(None, &BTreeMap::new()), None);
    }
}
