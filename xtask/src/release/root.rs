//! A clean root of Debian, in which the tests install the package: made once by debootstrap, and kept as an archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt::{self, Need};
use crate::context::Ctx;
use crate::process::{self, step};
use crate::vm::archive;

/// The release that packages are made for: that of the machine that builds them.
const SUITE: &str = "bookworm";

/// Its archive, made if it is not there.
pub(crate) fn clean(ctx: &Ctx) -> Result<PathBuf> {
    let archive = ctx.cache.join(format!("debian-{SUITE}-root.tar"));
    if archive.is_file() {
        return Ok(archive);
    }
    apt::ensure(&[Need::new(
        "debootstrap",
        "makes the clean Debian that the package is tried in",
    )])?;
    let _lock = ctx.lock_cache()?;
    step("a clean root of Debian", || {
        let directory = tempfile::Builder::new().prefix("root-").tempdir_in(&ctx.cache)?;
        // It and a device's node in it: another user could not use those where this is mounted `nodev`.
        let root = directory.path().join("root");
        let sources = archive::derive(Path::new("/etc/apt"), SUITE, &[SUITE])?;
        let mirror = sources.split_whitespace().find(|word| word.contains("://"));
        let mirror = mirror.context("no address of an archive")?;
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", SUITE]).arg(&root).arg(mirror);
        process::run(debootstrap.stdout(std::process::Stdio::null()))?;
        let half = archive.with_extension("half");
        let mut tar = Command::new("tar");
        process::run(
            tar.arg("-C").arg(&root).args(["--exclude=./var/cache/*/*", "-cf"]).arg(&half).arg("."),
        )?;
        fs::rename(&half, &archive).context("cannot keep the archive")
    })?;
    Ok(archive)
}
