//! Programs that are known by their name. A name proves nothing: anybody can take it. What rests on it alone is inferred.

use serde::{Deserialize, Serialize};

use crate::config::{Refused, values};

/// Userspace OOM killers by their process name.
const OOM_KILLERS: [&str; 4] = ["systemd-oomd", "earlyoom", "oomd", "nohang"];
/// What stops workloads: runtimes, their shims, node agents, service managers. A name that ends in `*` stands for all that begin so.
const STOPPERS: [&str; 19] = [
    "systemd",
    "kubelet",
    "containerd",
    "containerd-shim*",
    "dockerd",
    "docker",
    "docker-init",
    "runc*",
    "crun",
    "youki",
    "conmon*",
    "crio",
    "podman",
    "nerdctl",
    "lxc-stop",
    "nomad",
    "slurmstepd",
    "supervisord",
    "s6-supervise",
];

/// How deaths are judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerdictConfig {
    /// Further userspace OOM killers, by process name. At most [`VerdictConfig::MAX_NAMES`].
    pub userspace_oom_killers: Vec<ProcessName>,
}

impl VerdictConfig {
    /// More names than this are refused.
    pub const MAX_NAMES: usize = 32;
}

/// A process name as the kernel keeps it: 1 to 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ProcessName(String);

impl std::str::FromStr for ProcessName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if (1..=15).contains(&text.len()) && !text.contains(['/', '\0', '\n']) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new(
            "must be a process name as in /proc/PID/comm: 1 to 15 bytes, and not a path",
        ))
    }
}

values::through_from_str!(ProcessName);

/// The names in force.
#[derive(Debug, Clone, Default)]
pub struct Names {
    more_oom_killers: Vec<ProcessName>,
}

impl From<VerdictConfig> for Names {
    fn from(config: VerdictConfig) -> Self {
        Self { more_oom_killers: config.userspace_oom_killers }
    }
}

impl Names {
    /// Whether this is the name of a userspace OOM killer.
    #[must_use]
    pub fn is_oom_killer(&self, comm: &str) -> bool {
        OOM_KILLERS.contains(&comm) || self.more_oom_killers.iter().any(|name| name.0 == comm)
    }

    /// Whether this is the name of something that stops workloads.
    #[must_use]
    pub fn is_stopper(&self, comm: &str) -> bool {
        STOPPERS.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => comm.starts_with(start),
            None => comm == *name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_or_begin_so() {
        let names = Names { more_oom_killers: vec!["reaper".parse().unwrap()] };
        assert!(names.is_oom_killer("earlyoom") && names.is_oom_killer("reaper"));
        assert!(!names.is_oom_killer("earlyoomx"));
        // The kernel keeps 15 bytes of containerd-shim-runc-v2.
        assert!(names.is_stopper("containerd-shim") && names.is_stopper("runc:[2:INIT]"));
        assert!(!names.is_stopper("bash") && !names.is_stopper("systemd-oomd"));
    }

    #[test]
    fn a_path_is_no_name() {
        for bad in ["", "/usr/bin/earlyoom", "sixteen-bytes-xx", "a\nb"] {
            assert!(bad.parse::<ProcessName>().is_err(), "{bad:?}");
        }
    }
}
