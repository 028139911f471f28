//! Debian packages: which are missing, and their installation, announced first.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A package that a chore needs, and what for.
pub(crate) struct Need {
    /// Name of the package.
    pub(crate) package: String,
    /// What it is for, as a person would say it.
    pub(crate) why: &'static str,
}

impl Need {
    /// One package.
    pub(crate) fn new(package: impl Into<String>, why: &'static str) -> Self {
        Self { package: package.into(), why }
    }
}

/// Installs those that are missing. Does and prints nothing when all are there.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Those of `needs` that dpkg does not call installed.
fn missing(needs: &[Need]) -> Vec<&Need> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["-W", "-f", "${db:Status-Abbrev} ${Package}\n"])
        .args(needs.iter().map(|need| &need.package));
    // A package that dpkg has never heard of makes it fail; the others are listed all the same.
    let text = query
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let installed = installed(&text);
    needs.iter().filter(|need| !installed.contains(need.package.as_str())).collect()
}

fn installed(query: &str) -> BTreeSet<&str> {
    query
        .lines()
        .filter(|line| line.starts_with("ii "))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect()
}

/// Says what and why, then installs; the package lists are renewed if they cannot serve.
pub(crate) fn install(needs: &[&Need]) -> Result<()> {
    let names: Vec<&str> = needs.iter().map(|need| need.package.as_str()).collect();
    let by_hand = format!("apt-get install {}", names.join(" "));
    if process::find("apt-get").is_none() {
        bail!(
            "this needs programs that are missing, and only knows how to install them with apt-get. On Debian: {by_hand}. Elsewhere, their likes."
        );
    }
    eprintln!("    will install with apt-get:");
    for need in needs {
        eprintln!("      {:<18} {}", need.package, need.why);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("only root can install packages. Run as root, or first: sudo {by_hand}");
    }
    if !has_candidates(&names) {
        update()?;
        return process::run(
            apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&names),
        );
    }
    let first =
        process::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&names));
    if first.is_ok() {
        return Ok(());
    }
    // The lists name versions that the archive has since replaced.
    update()?;
    process::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&names))
}

/// Renews the package lists.
pub(crate) fn update() -> Result<()> {
    process::run(apt_get().arg("update"))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-q",
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Dpkg::Use-Pty=0",
    ]);
    command
}

/// Whether the lists at hand know each of them.
fn has_candidates(names: &[&str]) -> bool {
    Path::new("/var/lib/apt/lists").is_dir()
        && names
            .iter()
            .all(|name| process::succeeds(Command::new("apt-cache").args(["show", name])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let text = "ii  cpio\nrc  qemu-system-x86\nun  busybox\nii  gcc\n";
        assert_eq!(installed(text), BTreeSet::from(["cpio", "gcc"]));
    }

    #[test]
    fn nothing_missing_means_nothing_done() {
        let needs = [Need::new("surely-no-such-package", "a test")];
        assert_eq!(missing(&needs).len(), 1);
        assert!(ensure(&[]).is_ok());
    }
}
