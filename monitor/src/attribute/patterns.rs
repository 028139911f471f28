//! What container runtimes write into cgroup paths, as a table. Batch systems are rules of jobs: `rules.yaml`.
//!
//! To add one, add a row here and a path to `golden.txt`. The `regex` crate matches in linear time, whatever the path.

use std::sync::LazyLock;

use regex::Regex;

/// How a container looks. `regex` is searched in the last three components of a path cut off after some component, such as
/// `kubepods/burstable/pod…`; group 1 is the id. The first row that matches wins.
#[derive(Debug, PartialEq, Eq)]
pub struct ContainerPattern {
    /// What a person calls it, for `killwatch check-config --explain`.
    pub name: &'static str,
    /// Its runtime, by the name that Kubernetes puts before `://`; `None` where the path does not tell.
    pub runtime: Option<&'static str>,
    /// Whether the id is written with systemd's `\xNN`.
    pub escaped: bool,
    /// The pattern.
    pub regex: &'static str,
}

const fn row(
    name: &'static str,
    runtime: Option<&'static str>,
    regex: &'static str,
) -> ContainerPattern {
    ContainerPattern { name, runtime, escaped: false, regex }
}

/// Rows for containers. `crio-conmon-<id>`, `libpod-conmon-<id>` and `lxc.monitor.<name>` are the supervisors beside them, and match none.
pub const CONTAINERS: &[ContainerPattern] = &[
    row("containerd", Some("containerd"), r"(?:^|/)cri-containerd-([0-9a-f]{64})(?:\.scope)?$"),
    // The kubelet and the runtime disagree on the cgroup driver: `<slice>:cri-containerd:<id>`.
    row(
        "containerd, drivers that differ",
        Some("containerd"),
        r"(?:^|/)[^:/]+:cri-containerd:([0-9a-f]{64})$",
    ),
    row("cri-o", Some("cri-o"), r"(?:^|/)crio-([0-9a-f]{64})(?:\.scope)?$"),
    row("docker, systemd driver", Some("docker"), r"(?:^|/)docker-([0-9a-f]{64})\.scope$"),
    row("podman", Some("podman"), r"(?:^|/)libpod-(?:payload-)?([0-9a-f]{64})(?:\.scope)?$"),
    row("nerdctl", Some("containerd"), r"(?:^|/)nerdctl-([0-9a-f]{64})\.scope$"),
    // The cgroupfs driver writes the bare id; only some parents tell whose it is. GitHub's runner passes `actions_job` to Docker.
    row(
        "docker, cgroupfs driver",
        Some("docker"),
        r"(?:^|/)(?:docker|actions_job)/([0-9a-f]{64})$",
    ),
    row("docker in an ECS task", Some("docker"), r"(?:^|/)ecs/[^/]+/([0-9a-f]{64})$"),
    row("cgroupfs driver", None, r"(?:^|/)([0-9a-f]{64})$"),
    row("ECS on Fargate", None, r"(?:^|/)([0-9a-f]{32}-[0-9]+)$"),
    row("Cloud Foundry", Some("garden"), r"(?:^|/)([0-9a-f]{8}(?:-[0-9a-f]{4}){4})$"),
    row("lxc", Some("lxc"), r"(?:^|/)lxc\.payload\.([^/]+)$"),
    row("lxc, old", Some("lxc"), r"(?:^|/)lxc(?:\.payload)?/([^/]+)$"),
    ContainerPattern {
        escaped: true,
        ..row(
            "systemd-nspawn, as a service",
            Some("systemd-nspawn"),
            r"(?:^|/)systemd-nspawn@([^/]+)\.service$",
        )
    },
    // Virtual machines are `machine-….scope` too; only nspawn makes `payload` in it, on cgroup v2.
    ContainerPattern {
        escaped: true,
        ..row(
            "systemd-nspawn, as a scope",
            Some("systemd-nspawn"),
            r"(?:^|/)machine-([^/]+)\.scope/payload$",
        )
    },
];

/// The component in which systemd-nspawn itself runs, beside the container's `payload`: what is above it is a unit and no container.
pub const NSPAWN_ITSELF: &str = "supervisor";

/// A pod's uid within one component; 32 hex digits are a static pod. systemd's slices have `_` for `-`.
pub const POD: &str = concat!(
    r"(?:^|-)pod([0-9a-f]{8}[_-][0-9a-f]{4}[_-][0-9a-f]{4}[_-][0-9a-f]{4}[_-][0-9a-f]{12}|[0-9a-f]{32})",
    r"(?:\.slice)?(?:$|:)"
);

/// [`CONTAINERS`], compiled. A row that does not compile is left out; a test holds that none is.
pub(super) static CONTAINER_REGEXES: LazyLock<Vec<(Regex, &'static ContainerPattern)>> =
    LazyLock::new(|| {
        CONTAINERS.iter().filter_map(|row| Some((Regex::new(row.regex).ok()?, row))).collect()
    });

/// All of [`CONTAINERS`] as one pattern, asked first: most components match none, and all patterns end where the text ends, so it is read
/// backwards, and mostly no further than the last component.
pub(super) static ANY_CONTAINER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let rows: Vec<String> = CONTAINERS.iter().map(|row| format!("(?:{})", row.regex)).collect();
    Regex::new(&rows.join("|")).ok()
});

/// [`POD`], compiled.
pub(super) static POD_REGEX: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(POD).ok());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_compiles() {
        assert_eq!(CONTAINER_REGEXES.len(), CONTAINERS.len());
        assert!(POD_REGEX.is_some() && ANY_CONTAINER.is_some());
    }

    #[test]
    fn every_row_has_its_groups() {
        for (regex, row) in CONTAINER_REGEXES.iter() {
            assert_eq!(regex.captures_len(), 2, "{}", row.regex);
        }
    }
}
