//! A BPF file system of a scenario's own: what is pinned in it goes with it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::corpus::skipped;

/// A mounted BPF file system. Dropping it unmounts it, and the kernel lets go of all that is pinned there.
#[derive(Debug)]
pub struct BpfFs {
    dir: TempDir,
}

impl BpfFs {
    /// Mounts one.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount() -> Result<Self> {
        let dir = TempDir::with_prefix("killwatch-test-bpffs-").context("make a directory")?;
        match mount("bpf", dir.path(), "bpf", MountFlags::empty(), None) {
            Err(rustix::io::Errno::NODEV) => Err(skipped("this kernel has no BPF file system")),
            mounted => mounted.context("mount a BPF file system"),
        }?;
        Ok(Self { dir })
    }

    /// A directory to pin to. The daemon makes it.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.dir.path().join("pins")
    }

    /// What is in that directory; nothing, if there is none.
    #[must_use]
    pub fn sets(&self) -> Vec<PathBuf> {
        files(&self.pins())
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // It is the last chance; a directory that is still mounted is left.
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

/// What is in a directory, in order.
#[must_use]
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    files
}
