//! What is released: the Debian package and the image, and what both are made of. Built twice from one commit, each is the same to the byte.

pub(crate) mod deb;
mod elf;
pub(crate) mod image;
pub(crate) mod manual;
mod package;
pub(crate) mod root;
mod sbom;
mod tarball;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt::{self, Need};
use crate::context::Ctx;
use crate::process;

/// What is the same for all that is released of one commit.
pub(crate) struct Release {
    /// Version of the workspace.
    pub(crate) version: String,
    /// When the commit was made, seconds since 1970: the age of every file.
    pub(crate) epoch: u64,
    /// The commit; none outside a repository.
    pub(crate) revision: Option<String>,
}

impl Release {
    /// Of what is checked out.
    pub(crate) fn of(ctx: &Ctx) -> Self {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            let output = git.current_dir(&ctx.root).args(arguments).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
            (output.status.success() && !text.is_empty()).then_some(text)
        };
        let epoch = git(&["log", "-1", "--format=%ct"]).and_then(|text| text.parse().ok());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: epoch.unwrap_or_default(),
            revision: git(&["rev-parse", "HEAD"]),
        }
    }
}

/// What the package tells systemd, and the configuration that the unit names: where each file comes from, and where it goes.
pub(crate) fn units() -> impl Iterator<Item = (&'static str, &'static str)> {
    let told = |to: &str| {
        ["lib/systemd/", "usr/lib/tmpfiles.d/", "etc/"].iter().any(|at| to.starts_with(at))
    };
    package::FILES.iter().map(|file| (file.from, file.to)).filter(move |(_, to)| told(to))
}

/// What the tools for it are.
pub(crate) fn ensure_tools() -> Result<()> {
    apt::ensure(&[
        Need::new(
            "binutils",
            "takes the symbols off the released program, and finds its libraries",
        ),
        Need::new("ca-certificates", "is who the image trusts"),
        Need::new("dpkg-dev", "finds out which libraries the package depends on"),
    ])
}

/// The daemon without symbols, made anew if it is older than the daemon.
fn stripped(ctx: &Ctx, daemon: &Path, strip: &str) -> Result<PathBuf> {
    let directory = ctx.target.join("stripped");
    fs::create_dir_all(&directory).context("cannot make a directory")?;
    let out = directory.join("killwatch");
    process::run(
        Command::new(strip)
            .args(["--strip-unneeded", "--remove-section=.comment", "--remove-section=.note", "-o"])
            .args([out.as_path(), daemon]),
    )?;
    Ok(out)
}
