//! Fetching a kernel: Debian's package is downloaded and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::kernels::{Kernel, SUFFIX, Source};
use super::modules;
use super::suite::{Suite, age};
use crate::context::Ctx;
use crate::process;

/// A cached kernel is used for so long before a newer one is looked for.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// A kernel at hand.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// Its image.
    pub(crate) image: PathBuf,
    /// Its modules, in the order of their names.
    pub(crate) modules: PathBuf,
    /// Where it comes from, in words: the package, and whether it stands in for another.
    pub(crate) origin: String,
}

/// The newest kernel of that series, from the cache if it is fresh.
pub(crate) fn fetch(ctx: &Ctx, kernel: &Kernel) -> Result<Fetched> {
    let dir = ctx.cache.join("kernels").join(kernel.series);
    let _lock = ctx.lock_cache()?;
    // Written last: it vouches for the rest.
    let origin = dir.join("origin");
    if age(&origin).is_none_or(|age| age >= FRESH) {
        let what = format!("fetch a Debian kernel of series {}", kernel.series);
        match process::step(&what, || download(ctx, kernel, &dir)) {
            Ok(()) => {}
            Err(error) if origin.is_file() => {
                eprintln!("warning: {error:#}; going on with the kernel in the cache");
            }
            Err(error) => return Err(error),
        }
    }
    let origin =
        fs::read_to_string(&origin).with_context(|| format!("cannot read {}", origin.display()))?;
    Ok(Fetched { image: dir.join("vmlinuz"), modules: dir.join("modules"), origin })
}

fn download(ctx: &Ctx, kernel: &Kernel, dir: &Path) -> Result<()> {
    let mut obstacles = Vec::new();
    for (place, source) in kernel.sources.iter().enumerate() {
        let where_from = source.suites.join(", ");
        match newest(ctx, source) {
            Ok(Some((suite, package))) => {
                let mut origin = format!("{package} of {where_from}");
                if place > 0 {
                    origin.push_str(", in place of one that is gone");
                }
                eprintln!("    {origin}");
                return unpack(&suite, &package, dir, &origin);
            }
            Ok(None) => {
                obstacles.push(format!("no {}…{SUFFIX} in {where_from}", source.prefix));
            }
            Err(error) => obstacles.push(format!("{where_from}: {error:#}")),
        }
    }
    bail!("no kernel of series {} can be had: {}", kernel.series, obstacles.join("; "))
}

/// The newest package of a source, and the suite that has it. A suite that cannot be read is passed over if another can.
fn newest(ctx: &Ctx, source: &Source) -> Result<Option<(Suite, String)>> {
    let mut found: Vec<(Suite, Vec<String>)> = Vec::new();
    let mut unreadable = None;
    for suite in source.suites {
        let names = Suite::open(ctx, suite).and_then(|suite| {
            let names = suite.names(source.prefix)?;
            Ok((suite, names))
        });
        match names {
            Ok(read) => found.push(read),
            Err(error) => unreadable = Some(error),
        }
    }
    if let Some(error) = unreadable.filter(|_| found.is_empty()) {
        return Err(error);
    }
    let all = found.iter().flat_map(|(_, names)| names.iter().map(String::as_str));
    let Some(package) = source.newest(all).map(str::to_owned) else { return Ok(None) };
    Ok(found
        .into_iter()
        .find(|(_, names)| names.contains(&package))
        .map(|(suite, _)| (suite, package)))
}

fn unpack(suite: &Suite, package: &str, dir: &Path, origin: &str) -> Result<()> {
    let new = dir
        .with_file_name(format!("{}.new", dir.file_name().unwrap_or_default().to_string_lossy()));
    let unpacked = new.join("unpacked");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot empty {}", new.display()))?;
    }
    fs::create_dir_all(&unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
    suite.unpack(package, &unpacked)?;
    // Newer kernels have their modules in a package of their own.
    if let Some(revision) = package.strip_prefix("linux-binary-") {
        suite.unpack(&format!("linux-modules-{revision}"), &unpacked)?;
    }
    let built = vmlinuz(&unpacked).with_context(|| format!("{package} holds no kernel image"))?;
    fs::copy(&built, new.join("vmlinuz")).context("cannot copy the kernel image")?;
    modules::collect(&unpacked, &new.join("modules"))?;
    fs::remove_dir_all(&unpacked).context("cannot remove what was unpacked")?;
    fs::write(new.join("origin"), origin).context("cannot note where the kernel comes from")?;
    if dir.exists() {
        fs::remove_dir_all(dir).context("cannot remove the older kernel")?;
    }
    fs::rename(&new, dir).context("cannot put the kernel in place")
}

/// `boot/vmlinuz-*`, in newer packages `usr/lib/modules/*/vmlinuz`.
fn vmlinuz(root: &Path) -> Option<PathBuf> {
    let list =
        |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut boot = list(root.join("boot")).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    });
    boot.next().or_else(|| {
        list(root.join("usr/lib/modules"))
            .map(|dir| dir.join("vmlinuz"))
            .find(|path| path.is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_is_found_in_old_and_new_packages() {
        for place in ["boot/vmlinuz-6.1.0-48-cloud-amd64", "usr/lib/modules/7.2.1/vmlinuz"] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(place);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            assert_eq!(vmlinuz(dir.path()), Some(file));
        }
        assert_eq!(vmlinuz(Path::new("/nonexistent")), None);
    }
}
