//! Which hierarchy accounts memory on this host.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Version of the hierarchy that has the memory controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// cgroup v1, also on hybrid hosts.
    V1,
    /// cgroup v2.
    V2,
}

/// The hierarchy that has the memory controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its version.
    pub version: Version,
    /// Where it is mounted.
    pub root: PathBuf,
}

impl Hierarchy {
    /// This host's.
    ///
    /// # Errors
    /// When memory is accounted nowhere, or not handed on to children of the root (v2).
    pub fn find() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
        let found = Self::from_mounts(&mounts).context("no mounted hierarchy accounts memory")?;
        if found.version == Version::V2 {
            let file = found.root.join("cgroup.subtree_control");
            let handed_on = std::fs::read_to_string(&file)
                .with_context(|| format!("read {}", file.display()))?;
            if !handed_on.split_whitespace().any(|controller| controller == "memory") {
                bail!(
                    "{} lacks `memory`: the host accounts no memory below the root",
                    file.display()
                );
            }
        }
        Ok(found)
    }

    /// This host's cgroup v2 hierarchy, whether it accounts memory or not.
    ///
    /// # Errors
    /// When there is none.
    pub fn find_unified() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
        let root = mounted(&mounts, |kind, _| kind == "cgroup2");
        Ok(Self { version: Version::V2, root: root.context("no cgroup v2 is mounted")? })
    }

    /// Every cgroup v1 hierarchy of this host, whatever it controls.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn all_v1() -> Result<Vec<Self>> {
        let mounts = std::fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
        let roots = all_mounted(&mounts, |kind, _| kind == "cgroup");
        Ok(roots.map(|root| Self { version: Version::V1, root }).collect())
    }

    /// The v1 memory hierarchy where there is one, else v2.
    fn from_mounts(mounts: &str) -> Option<Self> {
        let v1 = mounted(mounts, |kind, options| {
            kind == "cgroup" && options.split(',').any(|option| option == "memory")
        });
        let v2 = || mounted(mounts, |kind, _| kind == "cgroup2");
        v1.map(|root| Self { version: Version::V1, root })
            .or_else(|| v2().map(|root| Self { version: Version::V2, root }))
    }

    /// Path of a process's cgroup in this hierarchy, from its root. `process` is a pid or `self`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn path_of(&self, process: &str) -> Result<String> {
        let file = Path::new("/proc").join(process).join("cgroup");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        self.path_in(&text)
            .with_context(|| format!("{} names no cgroup for memory", file.display()))
    }

    fn path_in(&self, text: &str) -> Option<String> {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let fits = match self.version {
                Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
                Version::V2 => number == "0",
            };
            fits.then(|| path.to_owned())
        })
    }
}

/// Where the first mount is whose type and options fit.
fn mounted(mounts: &str, fits: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    all_mounted(mounts, fits).next()
}

/// Where all mounts are whose type and options fit.
fn all_mounted(mounts: &str, fits: impl Fn(&str, &str) -> bool) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        fits(kind, options).then(|| PathBuf::from(place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
";

    #[test]
    fn memory_is_where_its_controller_is() {
        let hybrid = Hierarchy::from_mounts(HYBRID).unwrap();
        assert_eq!(
            hybrid,
            Hierarchy { version: Version::V1, root: "/sys/fs/cgroup/memory".into() }
        );
        let pure = Hierarchy::from_mounts("none /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n").unwrap();
        assert_eq!(pure, Hierarchy { version: Version::V2, root: "/sys/fs/cgroup".into() });
        assert_eq!(Hierarchy::from_mounts("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_process_has_one_path_in_each() {
        let text = "9:name=systemd:/\n4:cpuset,memory:/a:b/c\n0::/other\n";
        let v1 = Hierarchy { version: Version::V1, root: PathBuf::new() };
        let v2 = Hierarchy { version: Version::V2, root: PathBuf::new() };
        assert_eq!(v1.path_in(text).as_deref(), Some("/a:b/c"));
        assert_eq!(v2.path_in(text).as_deref(), Some("/other"));
        assert_eq!(v1.path_in("0::/other\n"), None);
    }
}
