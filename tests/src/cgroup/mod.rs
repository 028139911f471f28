//! Cgroups of the tests' own: made, limited, and removed whatever happens.

mod hierarchy;

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

pub use self::hierarchy::{Hierarchy, Version};
use crate::wait::wait_until;

/// No hog runs in a cgroup that may hold more than this many bytes: a test must not press on the host.
pub const CEILING: u64 = 256 << 20;

/// How long a cgroup may take to become empty or to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cgroup under the root of the hierarchy that belongs to one scenario, and everything below it. Dropping it kills what
/// still runs there and removes it all.
#[derive(Debug)]
pub struct Tree {
    top: Group,
}

/// One cgroup.
#[derive(Debug, Clone)]
pub struct Group {
    hierarchy: Hierarchy,
    dir: PathBuf,
}

impl Tree {
    /// A new one, named after this process and a number.
    ///
    /// # Errors
    /// When the host accounts no memory, or this process may not make cgroups.
    pub fn new() -> Result<Self> {
        Self::in_hierarchy(Hierarchy::find()?)
    }

    /// A new one in the cgroup v2 hierarchy, which may account no memory.
    ///
    /// # Errors
    /// When there is no such hierarchy, or this process may not make cgroups.
    pub fn unified() -> Result<Self> {
        Self::in_hierarchy(Hierarchy::find_unified()?)
    }

    fn in_hierarchy(hierarchy: Hierarchy) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "killwatch-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let top = Group { dir: hierarchy.root.join(name), hierarchy };
        std::fs::create_dir(&top.dir).with_context(|| format!("make {}", top.dir.display()))?;
        let tree = Self { top };
        // Before Linux 5.11 a limit of v1 counts what is below only if it is asked for, as every runtime does.
        if tree.top.dir.join("memory.use_hierarchy").exists() {
            tree.top.write("memory.use_hierarchy", "1")?;
        }
        Ok(tree)
    }

    /// The cgroup that the others are in. On v2 no process can be in it once there are others.
    #[must_use]
    pub const fn top(&self) -> &Group {
        &self.top
    }

    /// Makes the cgroup `path` below the top and all between.
    ///
    /// # Errors
    /// When the kernel refuses, such as a name that is taken.
    pub fn make(&self, path: &str) -> Result<Group> {
        let mut group = self.top.clone();
        let names: Vec<&str> = path.split('/').collect();
        for (depth, name) in names.iter().enumerate() {
            // A v2 hierarchy beside a v1 one has no memory to hand on.
            if group.hierarchy.version == Version::V2
                && group.read("cgroup.controllers")?.split_whitespace().any(|name| name == "memory")
            {
                group.write("cgroup.subtree_control", "+memory")?;
            }
            group.dir.push(name);
            match std::fs::create_dir(&group.dir) {
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists && depth + 1 < names.len() => {}
                made => made.with_context(|| format!("make {}", group.dir.display()))?,
            }
        }
        Ok(group)
    }

    /// A cgroup below the top with a limit in bytes: what most scenarios want.
    ///
    /// # Errors
    /// As [`Tree::make`] and [`Group::set_limit`].
    pub fn limited(&self, path: &str, bytes: u64) -> Result<Group> {
        let group = self.make(path)?;
        group.set_limit(bytes)?;
        Ok(group)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = self.top.remove_all() {
            eprintln!("killwatch-tests: {} is left behind: {error:#}", self.top.dir.display());
        }
    }
}

impl Group {
    /// The one at `path` from the root of the hierarchy, made by somebody else.
    #[must_use]
    pub fn at(hierarchy: &Hierarchy, path: &str) -> Self {
        Self {
            dir: hierarchy.root.join(path.trim_start_matches('/')),
            hierarchy: hierarchy.clone(),
        }
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its hierarchy.
    #[must_use]
    pub const fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Its path from the root of the hierarchy, with a leading `/`.
    #[must_use]
    pub fn path(&self) -> String {
        let below = self.dir.strip_prefix(&self.hierarchy.root).unwrap_or(&self.dir);
        format!("/{}", below.display())
    }

    /// Its id in its hierarchy: the inode of its directory (Linux 5.5).
    ///
    /// # Errors
    /// When it is gone.
    pub fn id(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.dir)
            .with_context(|| format!("look at {}", self.dir.display()))?
            .ino())
    }

    /// A cgroup in it, whether it is there or not.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self { hierarchy: self.hierarchy.clone(), dir: self.dir.join(name) }
    }

    /// The cgroup around it.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let dir = self.dir.parent().filter(|dir| dir.starts_with(&self.hierarchy.root))?.to_owned();
        Some(Self { hierarchy: self.hierarchy.clone(), dir })
    }

    /// Its limit in bytes, as the kernel reads it back; none when it is above every memory.
    ///
    /// # Errors
    /// When it is gone.
    pub fn limit(&self) -> Result<Option<u64>> {
        // The v1 root has a limit file that says "none", the v2 root has none.
        if self.dir == self.hierarchy.root {
            return Ok(None);
        }
        let text = self.read(self.limit_file())?;
        if text.trim() == "max" {
            return Ok(None);
        }
        let bytes: u64 =
            text.trim().parse().with_context(|| format!("{} says {text:?}", self.limit_file()))?;
        Ok((bytes < 1 << 62).then_some(bytes))
    }

    /// Limits it, swap included.
    ///
    /// # Errors
    /// When `bytes` is above [`CEILING`] or the kernel does not hold to it.
    pub fn set_limit(&self, bytes: u64) -> Result<()> {
        if bytes > CEILING {
            bail!("a limit of {bytes} bytes is above the ceiling of {CEILING}");
        }
        self.write(self.limit_file(), &bytes.to_string())?;
        let (swap, value) = match self.hierarchy.version {
            Version::V1 => ("memory.memsw.limit_in_bytes", bytes),
            Version::V2 => ("memory.swap.max", 0),
        };
        // Without swap accounting the file is not there. Without swap a second limit that is as tight would only hide the first.
        if self.dir.join(swap).exists() && host_swaps()? {
            self.write(swap, &value.to_string())?;
        }
        match self.limit()? {
            Some(limit) if limit <= bytes => Ok(()),
            limit => bail!(
                "{} was limited to {bytes} bytes and reads back {limit:?}",
                self.dir.display()
            ),
        }
    }

    /// Refuses unless this cgroup or one around it is limited to [`CEILING`] or less.
    ///
    /// # Errors
    /// When a hog in it would press on the host.
    pub fn require_ceiling(&self) -> Result<()> {
        let mut level = Some(self.clone());
        while let Some(group) = level {
            if group.limit()?.is_some_and(|limit| limit <= CEILING) {
                return Ok(());
            }
            level = group.parent();
        }
        bail!("{} has no limit of {CEILING} bytes or less: no hog runs there", self.dir.display())
    }

    /// Bytes that are charged to it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn usage(&self) -> Result<u64> {
        let file = match self.hierarchy.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        self.read(file)?.trim().parse().with_context(|| format!("{file} is no number"))
    }

    /// OOM kills in it, as the kernel counts them.
    ///
    /// # Errors
    /// When it is gone, or the kernel counts none there (v1 before 4.13).
    pub fn oom_kills(&self) -> Result<u64> {
        let file = match self.hierarchy.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = self.read(file)?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.with_context(|| format!("no oom_kill in {file}"))?.parse().context("a count")
    }

    /// Moves a process into it.
    ///
    /// # Errors
    /// When the process or the cgroup is gone.
    pub fn add(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Processes in it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn processes(&self) -> Result<Vec<u32>> {
        self.read("cgroup.procs")?
            .split_whitespace()
            .map(|pid| pid.parse().context("a pid"))
            .collect()
    }

    /// Removes it as soon as the kernel lets it go.
    ///
    /// # Errors
    /// When it does not within the deadline: something lives in it.
    pub fn remove(&self) -> Result<()> {
        wait_until(PATIENCE, &format!("{} can be removed", self.dir.display()), || {
            match std::fs::remove_dir(&self.dir) {
                Ok(()) => Ok(Some(())),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(())),
                Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(None),
                Err(error) => Err(error).with_context(|| format!("remove {}", self.dir.display())),
            }
        })
    }

    /// Kills what runs in it and below, and removes it and all below. It may be gone already.
    ///
    /// # Errors
    /// When something lives on in it past the deadline.
    pub fn remove_all(&self) -> Result<()> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.with_context(|| format!("list {}", self.dir.display()))?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                Self { hierarchy: self.hierarchy.clone(), dir: entry.path() }.remove_all()?;
            }
        }
        wait_until(PATIENCE, &format!("{} is empty", self.dir.display()), || {
            let processes = match self.processes() {
                // Somebody else may remove it at the same time.
                Err(_) if !self.dir.exists() => return Ok(Some(())),
                processes => processes?,
            };
            for pid in &processes {
                if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                    // It may be gone already; whether it is shows at the next look.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            Ok(processes.is_empty().then_some(()))
        })?;
        self.remove()
    }

    const fn limit_file(&self) -> &'static str {
        match self.hierarchy.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }

    /// Text of one of its files.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn read(&self, file: &str) -> Result<String> {
        let file = self.dir.join(file);
        std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let file = self.dir.join(file);
        std::fs::write(&file, text).with_context(|| format!("write {text:?} to {}", file.display()))
    }
}

/// Whether a cgroup v2 hierarchy is mounted, with memory or without, whose cgroups can be killed (Linux 5.14).
#[must_use]
pub fn has_kill() -> bool {
    Tree::unified().is_ok_and(|tree| tree.top.dir.join("cgroup.kill").exists())
}

/// Whether the host has any swap in use: the file has a heading and a line each.
///
/// # Errors
/// When the kernel does not say.
pub fn host_swaps() -> Result<bool> {
    match std::fs::read_to_string("/proc/swaps") {
        Ok(text) => Ok(text.lines().count() > 1),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("read /proc/swaps"),
    }
}
