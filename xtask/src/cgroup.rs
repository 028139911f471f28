//! A memory cgroup of our own, shaped like one of a kubelet's, under cgroup v1, v2 and both at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use uuid::Uuid;

/// Where memory is accounted on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// Whether it is v2.
    pub(crate) v2: bool,
}

impl Hierarchy {
    /// Finds that of this host. On v2 its root must hand memory down.
    pub(crate) fn find() -> Result<Self> {
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
        let found = Self::parse(&mounts).context("no cgroup hierarchy is mounted here")?;
        if found.v2 {
            check_delegated(&found.mount)?;
        }
        Ok(found)
    }

    /// Finds it in the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)). v1's memory controller, if mounted, has
    /// taken memory away from v2.
    fn parse(mountinfo: &str) -> Option<Self> {
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount) = left.split(' ').nth(4) else {
                continue;
            };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            match kind {
                Some("cgroup") if options.split(',').any(|option| option == "memory") => {
                    return Some(Self { mount: mount.into(), v2: false });
                }
                Some("cgroup2") if unified.is_none() => {
                    unified = Some(Self { mount: mount.into(), v2: true })
                }
                _ => {}
            }
        }
        unified
    }

    /// Limits a cgroup, in bytes, and verifies the limit.
    pub(crate) fn limit(&self, dir: &Path, limit: u64) -> Result<()> {
        let file = dir.join(self.limit_file());
        write(&file, &limit.to_string())?;
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if text.trim().parse::<u64>().ok() != Some(limit) {
            bail!(
                "{} says {} after {limit} was written: no safe limit here",
                file.display(),
                text.trim()
            );
        }
        let swap = dir.join(self.swap_file());
        // Absent without swap accounting; then swapping only delays the kill.
        if swap.exists() {
            write(&swap, &if self.v2 { 0 } else { limit }.to_string())?;
        }
        Ok(())
    }

    fn limit_file(&self) -> &'static str {
        if self.v2 { "memory.max" } else { "memory.limit_in_bytes" }
    }

    fn swap_file(&self) -> &'static str {
        if self.v2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" }
    }
}

/// A container's cgroup with a limit. All directories that were made for it go with this value.
pub(crate) struct Container {
    /// Directory of the innermost.
    dir: PathBuf,
    /// All that were made, outermost first.
    made: Vec<PathBuf>,
}

impl Container {
    /// Makes `killwatch-demo-<pid>/kubepods/burstable/pod<uid>/<id>` with that limit, in bytes, and verifies the limit.
    pub(crate) fn create(limit: u64) -> Result<Self> {
        let hierarchy = Hierarchy::find()?;
        let id = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        // A top directory of our own: a kubelet removes what it does not know from its own.
        let parts = [
            format!("killwatch-demo-{}", std::process::id()),
            "kubepods".into(),
            "burstable".into(),
            format!("pod{}", Uuid::new_v4()),
            id,
        ];
        let mut container = Self { dir: hierarchy.mount.clone(), made: Vec::new() };
        for part in parts {
            // v2: a cgroup's controllers are those that its parent hands down.
            if hierarchy.v2 && !container.made.is_empty() {
                write(&container.dir.join("cgroup.subtree_control"), "+memory")?;
            }
            container.dir.push(part);
            fs::create_dir(&container.dir)
                .with_context(|| format!("cannot make the cgroup {}", container.dir.display()))?;
            container.made.push(container.dir.clone());
        }
        hierarchy.limit(&container.dir, limit)?;
        Ok(container)
    }

    /// Moves a process in.
    pub(crate) fn add(&self, pid: u32) -> Result<()> {
        write(&self.dir.join("cgroup.procs"), &pid.to_string())
    }

    /// The 64 hex digits.
    pub(crate) fn id(&self) -> String {
        self.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Path in the file system.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        for dir in self.made.iter().rev() {
            // Busy until its last process is gone for good.
            while let Err(error) = fs::remove_dir(dir) {
                if Instant::now() >= deadline {
                    eprintln!("warning: cannot remove the cgroup {}: {error}", dir.display());
                    break;
                }
                thread::park_timeout(Duration::from_millis(10));
            }
        }
    }
}

/// An error unless the root of v2 hands memory down to its children.
fn check_delegated(root: &Path) -> Result<()> {
    let file = root.join("cgroup.subtree_control");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if !text.split_whitespace().any(|controller| controller == "memory") {
        bail!(
            "the root cgroup does not account memory for its children. As root: echo +memory > {}",
            file.display()
        );
    }
    Ok(())
}

/// Writes into a file of a cgroup.
pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)
        .with_context(|| format!("cannot write {text} to {} (root is needed)", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "40 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        41 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        42 30 0:32 / /sys/fs/cgroup/memory rw shared:9 master:2 - cgroup cgroup rw,memory\n";

    #[test]
    fn memory_is_found_under_each_layout() {
        let at = |mount: &str, v2| Some(Hierarchy { mount: mount.into(), v2 });
        assert_eq!(Hierarchy::parse(V2), at("/sys/fs/cgroup", true));
        assert_eq!(Hierarchy::parse(HYBRID), at("/sys/fs/cgroup/memory", false));
        assert_eq!(Hierarchy::parse("22 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n"), None);
    }

    #[test]
    fn only_a_root_that_delegates_memory_serves() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cgroup.subtree_control");
        fs::write(&file, "cpu io\n").unwrap();
        assert!(check_delegated(dir.path()).unwrap_err().to_string().contains("echo +memory"));
        fs::write(&file, "cpu memory\n").unwrap();
        assert!(check_delegated(dir.path()).is_ok());
    }

    #[test]
    fn container_is_limited_and_goes_with_its_owner() {
        let container = match Container::create(64 << 20) {
            Ok(container) => container,
            Err(error) => {
                eprintln!("SKIPPED, no cgroup can be made here: {error:#}");
                return;
            }
        };
        let (dir, top) = (container.path().to_path_buf(), container.made[0].clone());
        assert_eq!(container.id().len(), 64);
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        container.add(child.id()).unwrap();
        let inside = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert_eq!(inside.trim(), child.id().to_string());
        child.kill().unwrap();
        child.wait().unwrap();
        drop(container);
        assert!(!top.exists());
    }
}
