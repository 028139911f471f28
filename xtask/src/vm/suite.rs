//! Another Debian suite through an apt of its own: it sees that suite only, and writes nowhere but in its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::archive;
use super::kernels::ARCH;
use crate::context::Ctx;
use crate::process;

/// Package lists are used for so long before they are renewed.
const FRESH: Duration = Duration::from_secs(3600);

/// A suite, with its package lists at hand.
pub(crate) struct Suite {
    apt: PathBuf,
}

impl Suite {
    /// Fetches the suite's package lists, unless those in the cache are new. The cache must be locked.
    pub(crate) fn open(ctx: &Ctx, suite: &str) -> Result<Self> {
        let apt = ctx.cache.join("apt").join(suite);
        let this = Self { apt };
        let stamp = this.apt.join("updated");
        if age(&stamp).is_some_and(|age| age < FRESH) {
            return Ok(this);
        }
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(this.apt.join(sub))
                .with_context(|| format!("cannot make {}", this.apt.display()))?;
        }
        let sources = archive::derive(Path::new("/etc/apt"), &codename()?, &[suite])?;
        fs::write(this.apt.join("sources.list"), sources).context("cannot write the sources")?;
        fs::write(this.apt.join("status"), "").context("cannot write an empty status")?;
        process::output(this.command("apt-get").args(["-qq", "update"]))?;
        fs::write(stamp, "").context("cannot note the update")?;
        Ok(this)
    }

    /// Names of the packages that begin so.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = process::output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package and unpacks it into `root`.
    pub(crate) fn unpack(&self, package: &str, root: &Path) -> Result<()> {
        let place = tempfile::tempdir_in(&self.apt).context("cannot make a directory")?;
        let mut get = self.command("apt-get");
        process::output(get.current_dir(place.path()).args(["-qq", "download", package]))?;
        unpack_all(place.path(), root).with_context(|| format!("cannot unpack {package}"))
    }

    /// Downloads packages with all that they depend on, as if nothing were installed, and unpacks them into `root`.
    pub(crate) fn unpack_closure(&self, packages: &[&str], root: &Path) -> Result<()> {
        let archives = self.apt.join("cache/archives");
        let clean = || process::output(self.command("apt-get").args(["-qq", "clean"])).map(drop);
        // Another download may have been broken off.
        clean()?;
        let mut get = self.command("apt-get");
        get.args(["-qq", "install", "--yes", "--download-only", "--no-install-recommends"]);
        process::output(get.args(packages))?;
        unpack_all(&archives, root)?;
        clean()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |key: &str, sub: &str| format!("{key}={}", self.apt.join(sub).display());
        let options = [
            path("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=/dev/null".into(),
            path("Dir::State::Lists", "lists"),
            path("Dir::State::status", "status"),
            path("Dir::Cache", "cache"),
            "Acquire::Languages=none".into(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".into(),
            // The unprivileged user of apt cannot write here.
            "APT::Sandbox::User=root".into(),
            format!("APT::Architecture={ARCH}"),
        ];
        for option in options {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// Unpacks every package file in `dir`.
fn unpack_all(dir: &Path, root: &Path) -> Result<()> {
    let files = fs::read_dir(dir).context("cannot list the download")?.flatten();
    let debs = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let mut any = false;
    for deb in debs {
        process::run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(root))?;
        any = true;
    }
    anyhow::ensure!(any, "nothing was downloaded");
    Ok(())
}

/// How long ago a file was written.
pub(crate) fn age(file: &Path) -> Option<Duration> {
    fs::metadata(file).ok()?.modified().ok()?.elapsed().ok()
}

/// Name of this machine's Debian release.
pub(crate) fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(value.context("/etc/os-release names no release")?.trim_matches('"').to_owned())
}
