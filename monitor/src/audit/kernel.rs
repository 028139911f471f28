//! What the kernel counts: `/proc/vmstat` for the host, `memory.events` and its like for each cgroup.
//!
//! Which path counts where (mm/memcontrol.c, `memcg_memory_event`): the host's number has every OOM kill. On v2 `memory.events.local`
//! has those of the cgroup itself and `memory.events` those of everything below too, also of what is gone; the root has neither. On v1
//! `memory.oom_control` has those of the cgroup itself, and what is gone is counted by the host alone.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};

use crate::cgroup::mounts::{Hierarchy, Version};

/// The counters are a few lines; `/proc/vmstat` is about 5 KiB.
const MAX_BYTES: u64 = 64 << 10;
/// Name of the counter in each of the files.
const OOM_KILL: &str = "oom_kill";

/// Where the counters are read.
#[derive(Debug, Clone)]
pub struct Counters {
    proc: PathBuf,
    root: PathBuf,
    version: Version,
}

/// A cgroup that is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its id in the hierarchy of the memory controller.
    pub id: u64,
    /// Its path from the root of that hierarchy.
    pub path: Arc<str>,
}

/// OOM kills that the kernel counts for one cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its id in the hierarchy of the memory controller.
    pub id: u64,
    /// Its path from the root of that hierarchy.
    pub path: Arc<str>,
    /// In the cgroup itself.
    pub own: u64,
    /// In it and all below, also in what is gone. `None` on v1.
    pub below: Option<u64>,
}

/// One look at the counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of the host, since boot.
    pub host: u64,
    /// Of cgroups, but for those that are 0 and were not asked for by name.
    pub cgroups: Vec<Counted>,
    /// Cgroups that are not there, of those that were asked for by name.
    pub vanished: Vec<u64>,
}

impl Counters {
    /// `proc` is where the proc file system is, `hierarchy` that of the memory controller.
    #[must_use]
    pub fn new(proc: PathBuf, hierarchy: &Hierarchy) -> Self {
        Self { proc, root: hierarchy.root.clone(), version: hierarchy.version }
    }

    /// Whether a cgroup's counter has what was counted in cgroups below it that are gone.
    #[must_use]
    pub const fn is_hierarchical(&self) -> bool {
        matches!(self.version, Version::V2)
    }

    /// Looks at the host's counter.
    ///
    /// # Errors
    /// If it cannot be read, or is not there (before Linux 4.13).
    pub fn host(&self) -> io::Result<u64> {
        let path = self.proc.join("vmstat");
        let absent = || io::Error::other(format!("{} has no {OOM_KILL}", path.display()));
        counter(&read(File::open(&path)?)?, OOM_KILL).ok_or_else(absent)
    }

    /// Looks at the host's counter, at `named` cgroups, and at `others`, of which only those that are not 0 are kept. The host's comes
    /// first, so that a kill that is in a cgroup's number and not in the host's came in between.
    ///
    /// # Errors
    /// If the host's counter cannot be read. A cgroup that cannot be read is left out.
    pub fn read(&self, named: &[Wanted], others: &[Wanted]) -> io::Result<Reading> {
        let mut reading = Reading { host: self.host()?, ..Reading::default() };
        for wanted in named {
            match self.cgroup(wanted) {
                Ok(counted) => reading.cgroups.extend(counted),
                Err(error) if vanished(&error) => reading.vanished.push(wanted.id),
                Err(_) => {}
            }
        }
        let seen: HashSet<u64> = named.iter().map(|wanted| wanted.id).collect();
        let others = others.iter().filter(|wanted| !seen.contains(&wanted.id));
        let counted = others.filter_map(|wanted| self.cgroup(wanted).ok().flatten());
        reading.cgroups.extend(counted.filter(|c| c.own > 0 || c.below.is_some_and(|n| n > 0)));
        Ok(reading)
    }

    /// `None` if this cgroup has no such counter, as the root of v2.
    fn cgroup(&self, wanted: &Wanted) -> io::Result<Option<Counted>> {
        let directory = File::open(self.root.join(wanted.path.trim_start_matches('/')))?;
        if directory.metadata()?.ino() != wanted.id {
            // Another one by the same name, or a part of the hierarchy is mounted here.
            return Err(io::ErrorKind::NotFound.into());
        }
        let of = |name: &str| -> io::Result<Option<u64>> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            match openat(&directory, name, flags, Mode::empty()) {
                Ok(file) => Ok(counter(&read(File::from(file))?, OOM_KILL)),
                Err(rustix::io::Errno::NOENT) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let (own, below) = match self.version {
            Version::V1 => (of("memory.oom_control")?, None),
            // What is below comes first: it must not be more than what is counted level by level.
            Version::V2 => {
                let below = of("memory.events")?;
                (of("memory.events.local")?, below)
            }
        };
        let (id, path) = (wanted.id, Arc::clone(&wanted.path));
        Ok(own.map(|own| Counted { id, path, own, below }))
    }
}

fn read(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Gone by name, or removed while its directory was open.
fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// The number in the line `key number`.
fn counter(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key)?.1.parse().ok())
}

/// The path above; `None` above what is directly below the root, since the root counts nothing on v2.
#[must_use]
pub fn above(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(above, _)| above).filter(|above| !above.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn wanted(root: &Path, path: &str) -> Wanted {
        let id = fs::metadata(root.join(path.trim_start_matches('/'))).unwrap().ino();
        Wanted { id, path: path.into() }
    }

    fn host(version: Version) -> (tempfile::TempDir, Counters) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        fs::write(dir.path().join("proc/vmstat"), "nr_free_pages 7\noom_kill 41\nx 1\n").unwrap();
        let root = dir.path().join("cgroup");
        fs::create_dir_all(root.join("a/b")).unwrap();
        let hierarchy = Hierarchy { id: 0, version, root };
        let counters = Counters::new(dir.path().join("proc"), &hierarchy);
        (dir, counters)
    }

    #[test]
    fn v2_has_what_is_below_and_v1_has_not() {
        let (dir, counters) = host(Version::V2);
        let root = dir.path().join("cgroup");
        fs::write(root.join("a/memory.events"), "low 0\noom 9\noom_kill 5\noom_group_kill 1\n")
            .unwrap();
        fs::write(root.join("a/memory.events.local"), "oom 4\noom_kill 2\n").unwrap();
        let (top, a, b) = (wanted(&root, "/"), wanted(&root, "/a"), wanted(&root, "/a/b"));
        let reading = counters.read(&[], &[top.clone(), a.clone(), b.clone()]).unwrap();
        let counted = Counted { id: a.id, path: "/a".into(), own: 2, below: Some(5) };
        assert_eq!(reading, Reading { host: 41, cgroups: vec![counted], vanished: vec![] });

        let (dir, counters) = host(Version::V1);
        let root = dir.path().join("cgroup");
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        fs::write(root.join("a/memory.oom_control"), text).unwrap();
        fs::write(root.join("a/b/memory.oom_control"), "oom_kill 0\n").unwrap();
        let (a, b) = (wanted(&root, "/a"), wanted(&root, "/a/b"));
        let reading = counters.read(std::slice::from_ref(&b), &[a.clone(), b.clone()]).unwrap();
        // Asked for by name, 0 is an answer.
        let of = |wanted: &Wanted, own| Counted {
            id: wanted.id,
            path: Arc::clone(&wanted.path),
            own,
            below: None,
        };
        assert_eq!(reading.cgroups, [of(&b, 0), of(&a, 3)]);
    }

    #[test]
    fn another_cgroup_by_the_same_name_is_not_it() {
        let (dir, counters) = host(Version::V1);
        fs::write(dir.path().join("cgroup/a/memory.oom_control"), "oom_kill 3\n").unwrap();
        let other = Wanted { id: 1, path: "/a".into() };
        let gone = Wanted { id: 2, path: "/gone".into() };
        let reading = counters.read(&[other.clone(), gone], &[other]).unwrap();
        assert_eq!((reading.cgroups, reading.vanished), (vec![], vec![1, 2]));
    }

    #[test]
    fn a_host_that_does_not_count_is_an_error() {
        let (dir, counters) = host(Version::V2);
        fs::write(dir.path().join("proc/vmstat"), "oom_killed 1\n").unwrap();
        assert!(counters.read(&[], &[]).unwrap_err().to_string().contains("has no oom_kill"));
    }

    #[test]
    fn what_is_above() {
        assert_eq!(
            (above("/a/b/c"), above("/a"), above("/"), above("")),
            (Some("/a/b"), None, None, None)
        );
    }

    #[test]
    fn reads_this_kernels_own() {
        let hierarchy = Hierarchy { id: 0, version: Version::V2, root: "/".into() };
        Counters::new("/proc".into(), &hierarchy).host().unwrap();
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text: String, key: String) {
            let _ = counter(&text, &key);
            let _ = above(&text);
        }

        #[test]
        fn the_line_is_found_among_others(
            before in proptest::collection::vec(("[a-z_]{1,20}", any::<u64>()), 0..8),
            count: u64,
        ) {
            let lines = before.iter().filter(|(name, _)| name != OOM_KILL);
            let mut text: String = lines.map(|(name, n)| format!("{name} {n}\n")).collect();
            prop_assert_eq!(counter(&text, OOM_KILL), None);
            text.push_str(&format!("oom_kill {count}\noom_group_kill 9\n"));
            prop_assert_eq!(counter(&text, OOM_KILL), Some(count));
        }
    }
}
