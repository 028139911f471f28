//! Cgroups of the bench's own, all below one that is removed with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cgroup::{Hierarchy, write};

/// How long a cgroup may stay busy after its last process is gone.
const BUSY: Duration = Duration::from_secs(10);

/// A tree of cgroups.
pub(super) struct Tree {
    hierarchy: Hierarchy,
    top: PathBuf,
    /// All but the top, each after what it is in.
    made: Vec<PathBuf>,
}

impl Tree {
    /// The top of one.
    pub(super) fn create(name: &str) -> Result<Self> {
        let hierarchy = Hierarchy::find()?;
        let top = hierarchy.mount.join(format!("killwatch-bench-{name}-{}", std::process::id()));
        fs::create_dir(&top).with_context(|| {
            format!("cannot make the cgroup {} (root is needed)", top.display())
        })?;
        let tree = Self { hierarchy, top, made: Vec::new() };
        tree.hand_down(&tree.top)?;
        Ok(tree)
    }

    /// The top.
    pub(super) fn top(&self) -> &Path {
        &self.top
    }

    /// One more, right below the top.
    pub(super) fn add(&mut self, name: &str, limit: Option<u64>) -> Result<PathBuf> {
        let dir = self.top.join(name);
        fs::create_dir(&dir)
            .with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        self.made.push(dir.clone());
        if let Some(limit) = limit {
            self.hierarchy.limit(&dir, limit)?;
        }
        Ok(dir)
    }

    /// So many in all, named and limited as Docker's containers.
    pub(super) fn grow(&mut self, containers: usize) -> Result<()> {
        while self.made.len() < containers {
            let id = format!("docker-{:064x}.scope", self.made.len() as u128 + (1 << 100));
            self.add(&id, Some(64 << 20))?;
        }
        Ok(())
    }

    /// v2: a cgroup's controllers are those that its parent hands down.
    fn hand_down(&self, dir: &Path) -> Result<()> {
        if self.hierarchy.v2 {
            write(&dir.join("cgroup.subtree_control"), "+memory")?;
        }
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let deadline = Instant::now() + BUSY;
        for dir in self.made.iter().rev().chain([&self.top]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_goes_with_its_owner() {
        let mut tree = match Tree::create("test") {
            Ok(tree) => tree,
            Err(error) => {
                eprintln!("SKIPPED, no cgroup can be made here: {error:#}");
                return;
            }
        };
        tree.grow(3).unwrap();
        let top = tree.top().to_path_buf();
        assert!(tree.made.len() == 3 && tree.made[2].exists());
        drop(tree);
        assert!(!top.exists());
    }
}
