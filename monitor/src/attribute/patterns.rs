//! What container runtimes and batch systems write into cgroup paths, as tables.
//!
//! To add one, add a row here and a path to `golden.txt`. The `regex` crate matches in linear time, whatever the path.

use std::sync::LazyLock;

use regex::Regex;

/// How a container looks. `regex` is searched in the last three components of a path cut off after some component, such as
/// `kubepods/burstable/pod…`; group 1 is the id. The first row that matches wins.
#[derive(Debug)]
pub struct ContainerPattern {
    /// Its runtime, by the name that Kubernetes puts before `://`; `None` where the path does not tell.
    pub runtime: Option<&'static str>,
    /// The pattern.
    pub regex: &'static str,
}

/// Rows for containers. `crio-conmon-<id>` and `libpod-conmon-<id>` are the supervisors beside them, and match none.
pub const CONTAINERS: &[ContainerPattern] = &[
    ContainerPattern {
        runtime: Some("containerd"),
        regex: r"(?:^|/)cri-containerd-([0-9a-f]{64})(?:\.scope)?$",
    },
    // The kubelet and the runtime disagree on the cgroup driver: `<slice>:cri-containerd:<id>`.
    ContainerPattern {
        runtime: Some("containerd"),
        regex: r"(?:^|/)[^:/]+:cri-containerd:([0-9a-f]{64})$",
    },
    ContainerPattern { runtime: Some("cri-o"), regex: r"(?:^|/)crio-([0-9a-f]{64})(?:\.scope)?$" },
    ContainerPattern { runtime: Some("docker"), regex: r"(?:^|/)docker-([0-9a-f]{64})\.scope$" },
    ContainerPattern {
        runtime: Some("podman"),
        regex: r"(?:^|/)libpod-(?:payload-)?([0-9a-f]{64})(?:\.scope)?$",
    },
    ContainerPattern {
        runtime: Some("containerd"),
        regex: r"(?:^|/)nerdctl-([0-9a-f]{64})\.scope$",
    },
    // The cgroupfs driver writes the bare id; only some parents tell whose it is. GitHub's runner passes `actions_job` to Docker.
    ContainerPattern {
        runtime: Some("docker"),
        regex: r"(?:^|/)(?:docker|actions_job)/([0-9a-f]{64})$",
    },
    ContainerPattern { runtime: Some("docker"), regex: r"(?:^|/)ecs/[^/]+/([0-9a-f]{64})$" },
    ContainerPattern { runtime: None, regex: r"(?:^|/)([0-9a-f]{64})$" },
    // ECS on Fargate.
    ContainerPattern { runtime: None, regex: r"(?:^|/)([0-9a-f]{32}-[0-9]+)$" },
    // Cloud Foundry.
    ContainerPattern {
        runtime: Some("garden"),
        regex: r"(?:^|/)([0-9a-f]{8}(?:-[0-9a-f]{4}){4})$",
    },
    ContainerPattern { runtime: Some("lxc"), regex: r"(?:^|/)lxc\.payload\.([^/]+)$" },
    ContainerPattern { runtime: Some("lxc"), regex: r"(?:^|/)lxc(?:\.payload)?/([^/]+)$" },
];

/// A pod's uid within one component; 32 hex digits are a static pod. systemd's slices have `_` for `-`.
pub const POD: &str = concat!(
    r"(?:^|-)pod([0-9a-f]{8}[_-][0-9a-f]{4}[_-][0-9a-f]{4}[_-][0-9a-f]{4}[_-][0-9a-f]{12}|[0-9a-f]{32})",
    r"(?:\.slice)?(?:$|:)"
);

/// How a job looks in a whole path; its named groups are `id` and `name`. The first row that matches wins, and of several places
/// in the path the one nearest the root: what lies below it may be made by the job itself.
#[derive(Debug)]
pub struct JobPattern {
    /// The scheduler, as in [`crate::attribute::jobs::RULES`].
    pub scheduler: &'static str,
    /// Whether an id in the environment is to be preferred: this one is not what the scheduler's commands show.
    pub alias: bool,
    /// The pattern.
    pub regex: &'static str,
}

/// Rows for jobs.
pub const JOBS: &[JobPattern] = &[
    JobPattern {
        scheduler: "slurm",
        alias: false,
        regex: r"(?:^|/)slurm(?:_[^/]+)?/uid_[0-9]+/job_(?<id>[0-9]+)(?:/|$)",
    },
    JobPattern {
        scheduler: "slurm",
        alias: false,
        regex: r"(?:^|/)(?:[^/]+_)?slurmstepd\.scope/job_(?<id>[0-9]+)(?:/|$)",
    },
    // A SLUID: Slurm 26.05 and later, unless CgroupJobIdPaths=yes.
    JobPattern {
        scheduler: "slurm",
        alias: true,
        regex: r"(?:^|/)(?:[^/]+_)?slurmstepd\.scope/(?<id>s[0-9A-HJKMNP-TV-Z]{13})(?:/|$)",
    },
    JobPattern {
        scheduler: "pbs",
        alias: false,
        regex: r"(?:^|/)[^/]+\.service/jobid/(?<id>[^/]+)",
    },
    JobPattern {
        scheduler: "nomad",
        alias: false,
        regex: r"(?:^|/)nomad\.slice/(?:share|reserve)\.slice/(?<id>[0-9a-f-]{36})\.(?<name>[^/]+)\.scope(?:/|$)",
    },
    JobPattern {
        scheduler: "nomad",
        alias: false,
        regex: r"(?:^|/)nomad/(?<id>[0-9a-f-]{36})\.(?<name>[^/]+)",
    },
    JobPattern {
        scheduler: "ecs",
        alias: false,
        regex: r"(?:^|/)ecstasks\.slice/ecstasks-(?<id>[0-9a-f]{32})\.slice(?:/|$)",
    },
    JobPattern {
        scheduler: "ecs",
        alias: false,
        regex: r"(?:^|/)ecs/(?<id>[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:/|$)",
    },
];

/// [`CONTAINERS`], compiled. A row that does not compile is left out; a test holds that none is.
pub(super) static CONTAINER_REGEXES: LazyLock<Vec<(Regex, &'static ContainerPattern)>> =
    LazyLock::new(|| {
        CONTAINERS.iter().filter_map(|row| Some((Regex::new(row.regex).ok()?, row))).collect()
    });

/// [`POD`], compiled.
pub(super) static POD_REGEX: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(POD).ok());

/// [`JOBS`], compiled, as [`CONTAINER_REGEXES`].
pub(super) static JOB_REGEXES: LazyLock<Vec<(Regex, &'static JobPattern)>> = LazyLock::new(|| {
    JOBS.iter().filter_map(|row| Some((Regex::new(row.regex).ok()?, row))).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_compiles() {
        assert_eq!(CONTAINER_REGEXES.len(), CONTAINERS.len());
        assert_eq!(JOB_REGEXES.len(), JOBS.len());
        assert!(POD_REGEX.is_some());
    }

    #[test]
    fn every_row_has_its_groups() {
        for (regex, row) in CONTAINER_REGEXES.iter() {
            assert_eq!(regex.captures_len(), 2, "{}", row.regex);
        }
        for (regex, row) in JOB_REGEXES.iter() {
            assert!(regex.capture_names().flatten().any(|name| name == "id"), "{}", row.regex);
        }
    }
}
