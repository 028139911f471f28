//! `deb`: the Debian package, put together here and packed by dpkg-deb. A packager of cargo's would be one more tool to build, and knows less of what is
//! wanted: three shell scripts and a list of files.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use super::package::{COMPLETIONS, CONFFILES, DESCRIPTION, FILES, SCRIPTS};
use super::{Release, elf, ensure_tools, manual, sbom, stripped};
use crate::build;
use crate::context::Ctx;
use crate::process::{self, step};

/// Whom to write to.
const MAINTAINER: &str = "The killwatch authors <maintainers@killwatch.example>";

/// Arguments of `deb`.
#[derive(clap::Args)]
pub(crate) struct DebArgs {
    /// The daemon, built already
    #[arg(long)]
    daemon: Option<PathBuf>,
}

/// `deb`.
pub(crate) fn run(ctx: &Ctx, args: &DebArgs) -> Result<()> {
    let package = match &args.daemon {
        Some(daemon) => make(ctx, daemon)?,
        None => make(ctx, &build::daemon(ctx)?.daemon)?,
    };
    eprintln!("{}: {} KiB", package.display(), fs::metadata(&package)?.len() / 1024);
    Ok(())
}

/// Makes it; where it is.
pub(crate) fn make(ctx: &Ctx, daemon: &Path) -> Result<PathBuf> {
    ensure_tools()?;
    let manual = manual::write(ctx)?;
    step("Debian package", || {
        let directory = ctx.target.join("deb");
        let root = directory.join("root");
        if root.exists() {
            fs::remove_dir_all(&root).context("cannot clear the last package's files")?;
        }
        let release = Release::of(ctx);
        let program = stripped(ctx, daemon, "strip")?;
        let stage = Stage { ctx, root: &root };
        stage.files(&release, &program, &manual)?;
        let machine = process::output(Command::new("dpkg").arg("--print-architecture"))?;
        let machine = machine.trim();
        stage.control(&release, machine)?;
        let package = directory.join(format!("killwatch_{}_{machine}.deb", release.version));
        process::run(
            Command::new("dpkg-deb")
                // Times after it are set back to it.
                .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
                .args(["--root-owner-group", "-Zxz", "--build"])
                .args([&root, &package]),
        )?;
        Ok(package)
    })
}

/// What is to be packed.
struct Stage<'a> {
    ctx: &'a Ctx,
    root: &'a Path,
}

impl Stage<'_> {
    fn files(&self, release: &Release, program: &Path, manual: &Path) -> Result<()> {
        self.put("usr/bin/killwatch", 0o755, &read(program)?)?;
        for file in FILES {
            self.put(file.to, file.mode, &read(&self.ctx.root.join(file.from))?)?;
        }
        for file in COMPLETIONS {
            self.put(file.to, file.mode, &read(&manual.join("completions").join(file.from))?)?;
        }
        for entry in fs::read_dir(manual.join("man")).context("cannot list the manual pages")? {
            let entry = entry.context("cannot list the manual pages")?;
            let name = entry.file_name();
            let to = format!("usr/share/man/man1/{}.gz", name.to_string_lossy());
            self.put(&to, 0o644, &read(&entry.path())?)?;
        }
        let sbom = sbom::of(self.ctx, release, &[])?;
        self.put("usr/share/doc/killwatch/sbom.cdx.json", 0o644, sbom.as_bytes())?;
        let at = format!("@{}", release.epoch);
        let date = process::output(Command::new("date").args(["--utc", "-R", "-d", &at]))?;
        let changelog = format!(
            "killwatch ({}) unstable; urgency=medium\n\n  * As /usr/share/doc/killwatch/CHANGELOG.md.gz says.\n\n -- {MAINTAINER}  {date}",
            release.version
        );
        self.put("usr/share/doc/killwatch/changelog.gz", 0o644, changelog.as_bytes())
    }

    fn control(&self, release: &Release, machine: &str) -> Result<()> {
        let depends = elf::packages(self.root, "usr/bin/killwatch")?;
        let bytes = size_of(self.root)?;
        let control = format!(
            "Package: killwatch\nVersion: {}\nArchitecture: {machine}\nMaintainer: {MAINTAINER}\nInstalled-Size: {}\nDepends: {depends}\n\
             Section: admin\nPriority: optional\nDescription: {DESCRIPTION}",
            release.version,
            bytes.div_ceil(1024)
        );
        let sums = sums(self.root)?;
        self.put("DEBIAN/control", 0o644, control.as_bytes())?;
        self.put("DEBIAN/conffiles", 0o644, CONFFILES.as_bytes())?;
        self.put("DEBIAN/md5sums", 0o644, sums.as_bytes())?;
        for script in SCRIPTS {
            let text = read(&self.ctx.root.join("deploy/debian").join(script))?;
            self.put(&format!("DEBIAN/{script}"), 0o755, &text)?;
        }
        Ok(())
    }

    fn put(&self, to: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let file = self.root.join(to);
        let parent = file.parent().context("a file in no directory")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        for directory in parent.ancestors().take_while(|above| above.starts_with(self.root)) {
            fs::set_permissions(directory, Permissions::from_mode(0o755))?;
        }
        let packed = if to.ends_with(".gz") { gzip(bytes)? } else { bytes.to_vec() };
        fs::write(&file, packed).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(&file, Permissions::from_mode(mode)).context("cannot set a mode")
    }
}

/// As `gzip -9n`: neither name nor time in it.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).context("cannot compress")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Files below a directory, in order.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).context("cannot list the package's files")? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn size_of(root: &Path) -> Result<u64> {
    files_below(root)?.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// What dpkg looks files up in that were changed.
fn sums(root: &Path) -> Result<String> {
    let mut text = String::new();
    for file in files_below(root)? {
        let name = file.strip_prefix(root)?.to_str().context("a file's name")?;
        if name.starts_with("etc/") {
            continue;
        }
        let sum = process::output(Command::new("md5sum").current_dir(root).arg(name))?;
        // Writing to a String cannot fail.
        let _ = write!(text, "{sum}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_twice_is_the_same() {
        let once = gzip(b"a text").unwrap();
        assert_eq!(once, gzip(b"a text").unwrap());
        assert_eq!(once.get(4..8), Some([0; 4].as_slice()), "no time in it");
    }
}
