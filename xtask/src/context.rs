//! Where things are: the repository, its build directory, and the cache of what chores fetch or build once.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Directories that every chore works in.
pub(crate) struct Ctx {
    /// Root of the repository.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// What is kept between clones: tools built from source, kernels.
    pub(crate) cache: PathBuf,
}

impl Ctx {
    /// Finds the directories; makes none.
    pub(crate) fn new() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .context("the manifest of xtask has no parent directory")?
            .to_path_buf();
        // This program is <target>/<profile>/xtask: true for whatever way the target directory was configured.
        let exe = env::current_exe().context("cannot tell where this program is")?;
        let target = exe.ancestors().nth(2).map_or_else(|| root.join("target"), Path::to_path_buf);
        let cache =
            cache_dir(env::var_os("XDG_CACHE_HOME").map(PathBuf::from), env::home_dir(), &target);
        Ok(Self { root, target, cache })
    }

    /// The daemon, once it is built.
    pub(crate) fn daemon(&self) -> PathBuf {
        self.target.join("release/killwatch")
    }

    /// Makes the cache directory and takes its lock, waiting for other runs. Dropping the file releases it.
    pub(crate) fn lock_cache(&self) -> Result<File> {
        fs::create_dir_all(&self.cache)
            .with_context(|| format!("cannot make the cache directory {}", self.cache.display()))?;
        let path = self.cache.join("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("    waiting for another run that holds {}", path.display());
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(file)
    }
}

/// `$XDG_CACHE_HOME/killwatch`, else `$HOME/.cache/killwatch`, else inside the target directory.
fn cache_dir(xdg: Option<PathBuf>, home: Option<PathBuf>, target: &Path) -> PathBuf {
    let usable = |path: &PathBuf| path.is_absolute();
    if let Some(xdg) = xdg.filter(usable) {
        return xdg.join("killwatch");
    }
    match home.filter(usable) {
        Some(home) => home.join(".cache/killwatch"),
        None => target.join("cache"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_follows_xdg_then_home_then_target() {
        let dir = |xdg: Option<&str>, home: Option<&str>| {
            cache_dir(xdg.map(PathBuf::from), home.map(PathBuf::from), Path::new("/t"))
        };
        assert_eq!(dir(Some("/x"), Some("/h")), Path::new("/x/killwatch"));
        assert_eq!(dir(Some("relative"), Some("/h")), Path::new("/h/.cache/killwatch"));
        assert_eq!(dir(None, Some("")), Path::new("/t/cache"));
        assert_eq!(dir(None, None), Path::new("/t/cache"));
    }
}
