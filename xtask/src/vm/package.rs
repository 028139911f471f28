//! Fetching a kernel: Debian's package is downloaded and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::archive;
use super::kernels::Kernel;
use crate::context::Ctx;
use crate::process;

/// A cached kernel is used for so long before a newer one is looked for.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// Path of the newest kernel image of that series, from the cache if it is fresh.
pub(crate) fn fetch(ctx: &Ctx, kernel: &Kernel) -> Result<PathBuf> {
    let dir = ctx.cache.join("kernels").join(kernel.series);
    let image = dir.join("vmlinuz");
    if age(&image).is_some_and(|age| age < FRESH) {
        return Ok(image);
    }
    let _lock = ctx.lock_cache()?;
    if age(&image).is_some_and(|age| age < FRESH) {
        return Ok(image);
    }
    match process::step(&format!("fetch a Debian kernel of series {}", kernel.series), || {
        download(kernel, &dir, &image)
    }) {
        Ok(()) => Ok(image),
        Err(error) if image.is_file() => {
            eprintln!("warning: {error:#}; going on with the kernel in the cache");
            Ok(image)
        }
        Err(error) => Err(error),
    }
}

fn age(file: &Path) -> Option<Duration> {
    fs::metadata(file).ok()?.modified().ok()?.elapsed().ok()
}

fn download(kernel: &Kernel, dir: &Path, image: &Path) -> Result<()> {
    let apt = dir.join("apt");
    for sub in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(sub))
            .with_context(|| format!("cannot make {}", apt.display()))?;
    }
    let sources = archive::derive(Path::new("/etc/apt"), &codename()?, kernel.suites)?;
    fs::write(apt.join("sources.list"), sources).context("cannot write a list of sources")?;
    process::run(private("apt-get", &apt, kernel).args(["-q", "update"]))?;
    let names =
        process::output(private("apt-cache", &apt, kernel).args(["pkgnames", kernel.prefix]))?;
    let package = kernel.newest(names.lines()).with_context(|| {
        format!("no package {}…{} in {}", kernel.prefix, kernel.suffix, kernel.suites.join(", "))
    })?;
    eprintln!("    {package}");
    process::run(
        private("apt-get", &apt, kernel).current_dir(&apt).args(["-q", "download", package]),
    )?;
    let files = fs::read_dir(&apt).context("cannot list the download")?;
    let deb = files
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let unpacked = apt.join("unpacked");
    process::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(deb.context("nothing was downloaded")?)
            .arg(&unpacked),
    )?;
    let built = vmlinuz(&unpacked).with_context(|| format!("{package} holds no kernel image"))?;
    fs::copy(&built, dir.join("new")).context("cannot copy the kernel image")?;
    fs::write(dir.join("package"), package).context("cannot note the package's name")?;
    fs::rename(dir.join("new"), image).context("cannot put the kernel image in place")?;
    fs::remove_dir_all(&apt).context("cannot remove the download")
}

/// An apt program that sees the derived sources only, and writes nowhere but in `apt`.
fn private(program: &str, apt: &Path, kernel: &Kernel) -> Command {
    let mut command = Command::new(program);
    let path = |key: &str, sub: &str| format!("{key}={}", apt.join(sub).display());
    let options = [
        path("Dir::Etc::SourceList", "sources.list"),
        "Dir::Etc::SourceParts=/dev/null".into(),
        path("Dir::State::Lists", "lists"),
        path("Dir::Cache", "cache"),
        "Acquire::Languages=none".into(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
        // The unprivileged user of apt cannot write here.
        "APT::Sandbox::User=root".into(),
        format!("APT::Architecture={}", kernel.arch),
    ];
    for option in options {
        command.arg("-o").arg(option);
    }
    command
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

/// Name of this machine's Debian release.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(value.context("/etc/os-release names no release")?.trim_matches('"').to_owned())
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
