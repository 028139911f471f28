//! How the daemon stays alive on a node that is out of memory: it asks the kernel to take others first, and says if its own cgroup leaves it
//! less memory than its configuration may need.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::cgroup::mounts::{Hierarchy, Version};
use crate::config::{Refused, values};
use crate::privileges::Kept;
use crate::procfs::Proc;

/// How the daemon protects itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProtectConfig {
    /// The daemon's own `oom_score_adj`, as far as it may lower it: the lower, the later the OOM killer takes it.
    pub oom_score_adj: OomScoreAdj,
    /// Capabilities that stay after the start, beside those that the daemon itself needs. At most [`ProtectConfig::MAX_KEEP`].
    pub keep: Vec<Kept>,
    /// Whether system calls that the daemon never makes are refused.
    pub filter: bool,
}

impl Default for ProtectConfig {
    fn default() -> Self {
        Self { oom_score_adj: OomScoreAdj::default(), keep: Vec::new(), filter: true }
    }
}

impl ProtectConfig {
    /// There are hardly more.
    pub const MAX_KEEP: usize = 64;
}

/// A value of `/proc/PID/oom_score_adj` (proc_pid_oom_score_adj(5)) that spares a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum OomScoreAdj {
    /// As whoever started the daemon has it.
    Keep,
    /// This value, from -1000 to 0.
    Set(i16),
}

impl Default for OomScoreAdj {
    /// Taken last. With -1000 a daemon that leaks would be spared in its own cgroup too.
    fn default() -> Self {
        Self::Set(-999)
    }
}

impl FromStr for OomScoreAdj {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text == "keep" {
            return Ok(Self::Keep);
        }
        let number = text.parse().ok().filter(|number| (-1000..=0).contains(number));
        number.map(Self::Set).ok_or_else(|| {
            Refused::new("must be `keep`, or a whole number from -1000 (never taken) to 0")
        })
    }
}

impl fmt::Display for OomScoreAdj {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Set(number) => number.fmt(f),
        }
    }
}

impl Serialize for OomScoreAdj {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

values::through_from_str!(OomScoreAdj);

/// Asks the kernel to take others first. What protects the process better already stays.
///
/// # Errors
/// If the kernel does not allow it: lowering the value needs CAP_SYS_RESOURCE.
pub fn from_the_oom_killer(wanted: OomScoreAdj, proc: &Path) -> io::Result<()> {
    let OomScoreAdj::Set(wanted) = wanted else { return Ok(()) };
    let file = proc.join("self/oom_score_adj");
    let now: i16 = fs::read_to_string(&file)?.trim().parse().map_err(io::Error::other)?;
    if now <= wanted {
        return Ok(());
    }
    fs::write(&file, wanted.to_string())
}

/// A limit on the daemon's own memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnLimit {
    /// Bytes.
    pub bytes: u64,
    /// The file that says so.
    pub file: PathBuf,
}

/// The tightest memory limit on the way from the daemon's own cgroup to the root; `None` if there is none, or none that can be seen.
#[must_use]
pub fn own_limit(hierarchy: &Hierarchy, proc: &Proc) -> Option<OwnLimit> {
    let path = proc.cgroup(std::process::id(), hierarchy.id)?;
    let name = match hierarchy.version {
        Version::V1 => "memory.limit_in_bytes",
        Version::V2 => "memory.max",
    };
    let own = hierarchy.root.join(path.trim_start_matches('/'));
    let levels = own.ancestors().take_while(|level| level.starts_with(&hierarchy.root));
    let limits = levels.filter_map(|level| {
        let file = level.join(name);
        // v2 says `max` where there is none, v1 a number that no machine has.
        let bytes = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
        (bytes < i64::MAX as u64 / 2).then_some(OwnLimit { bytes, file })
    });
    limits.min_by_key(|limit| limit.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_spares_is_allowed() {
        for (text, allowed) in [
            ("keep", true),
            ("-1000", true),
            ("0", true),
            ("-1001", false),
            ("1", false),
            ("", false),
        ] {
            let parsed = text.parse::<OomScoreAdj>();
            assert_eq!(parsed.is_ok(), allowed, "{text}");
            if let Ok(parsed) = parsed {
                assert_eq!(parsed.to_string(), text);
            }
        }
    }

    #[test]
    fn what_protects_better_stays() {
        let proc = tempfile::tempdir().unwrap();
        let file = proc.path().join("self/oom_score_adj");
        fs::create_dir(proc.path().join("self")).unwrap();
        for (now, wanted, after) in [
            ("0\n", OomScoreAdj::Set(-999), "-999"),
            ("500\n", OomScoreAdj::Set(-500), "-500"),
            ("-1000\n", OomScoreAdj::Set(-999), "-1000"),
            ("7\n", OomScoreAdj::Keep, "7"),
        ] {
            fs::write(&file, now).unwrap();
            from_the_oom_killer(wanted, proc.path()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap().trim(), after);
        }
        fs::write(&file, "nonsense").unwrap();
        assert!(from_the_oom_killer(OomScoreAdj::Set(-1), proc.path()).is_err());
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let (root, proc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = proc.path().join(std::process::id().to_string());
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup"), "0::/system.slice/killwatch.service\n").unwrap();
        let service = root.path().join("system.slice/killwatch.service");
        fs::create_dir_all(&service).unwrap();
        let hierarchy = Hierarchy { id: 0, version: Version::V2, root: root.path().into() };
        let found = || own_limit(&hierarchy, &Proc::at(proc.path()));
        assert_eq!(found(), None);
        fs::write(service.join("memory.max"), "max\n").unwrap();
        assert_eq!(found(), None);
        let slice = root.path().join("system.slice/memory.max");
        fs::write(&slice, "67108864\n").unwrap();
        assert_eq!(found(), Some(OwnLimit { bytes: 64 << 20, file: slice }));
        fs::write(service.join("memory.max"), "33554432\n").unwrap();
        assert_eq!(found().unwrap().bytes, 32 << 20);
    }
}
