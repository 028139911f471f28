//! `fuzz`: the fuzz targets of `tests/fuzz`, each for a while, under AddressSanitizer.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::context::Ctx;
use crate::process::{self, step};

/// Version of cargo-fuzz that is built when none is at hand.
const FUZZ_VERSION: &str = "0.13.2";
/// Memory that one target may use, in MiB: a decoder that takes more for its input is a finding.
const MEMORY_MIB: u32 = 1024;

/// Arguments of `fuzz`.
#[derive(clap::Args)]
pub(crate) struct FuzzArgs {
    /// Only these targets; all unless given
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
}

/// Runs the targets one after the other; the first finding ends it.
pub(crate) fn run(ctx: &Ctx, args: &FuzzArgs) -> Result<()> {
    let program = ensure(ctx)?;
    let dir = ctx.root.join("tests/fuzz");
    // The same versions as the daemon has.
    fs::copy(ctx.root.join("Cargo.lock"), dir.join("Cargo.lock"))
        .context("cannot copy Cargo.lock")?;
    let all = targets(&dir.join("targets"))?;
    if let Some(unknown) = args.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target {unknown:?}; there are: {}", all.join(", "));
    }
    let chosen = if args.targets.is_empty() { &all } else { &args.targets };
    for target in chosen {
        step(&format!("fuzz {target} for {} s", args.seconds), || {
            // What is found in this run stays out of the repository, whose corpus is small and chosen.
            let grown = ctx.target.join("fuzz-corpus").join(target);
            fs::create_dir_all(&grown)
                .with_context(|| format!("cannot make {}", grown.display()))?;
            let mut cargo = process::cargo(ctx);
            cargo
                .env("RUSTC_BOOTSTRAP", "1")
                .env("PATH", with_program(&program)?)
                .args(["fuzz", "run", "--fuzz-dir"])
                .arg(&dir)
                .arg("--target-dir")
                .arg(ctx.target.join("fuzz"))
                .arg(target)
                .arg(&grown)
                .arg(dir.join("corpus").join(target))
                .arg("--")
                .arg(format!("-max_total_time={}", args.seconds))
                .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
                .args(["-timeout=10", "-max_len=65536", "-print_final_stats=1"]);
            process::run(&mut cargo)
        })?;
    }
    Ok(())
}

/// Names of the targets: a file each.
fn targets(dir: &std::path::Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// `PATH` with the directory of cargo-fuzz before the rest.
fn with_program(program: &std::path::Path) -> Result<std::ffi::OsString> {
    let dir = program.parent().context("cargo-fuzz is in no directory")?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(dir).chain(std::env::split_paths(&path)))
        .context("PATH cannot be extended")
}

/// The program, built first if it is missing.
fn ensure(ctx: &Ctx) -> Result<PathBuf> {
    let root = ctx.cache.join(format!("cargo-fuzz-{FUZZ_VERSION}"));
    let cached = root.join("bin/cargo-fuzz");
    if let Some(found) =
        Some(cached.clone()).filter(|file| file.is_file()).or_else(|| process::find("cargo-fuzz"))
    {
        return Ok(found);
    }
    step(&format!("build cargo-fuzz {FUZZ_VERSION} into {}", root.display()), || {
        let _lock = ctx.lock_cache()?;
        let mut cargo = process::cargo(ctx);
        cargo
            .args(["install", "cargo-fuzz", "--version", FUZZ_VERSION, "--locked", "--root"])
            .arg(&root);
        process::run(cargo.arg("--target-dir").arg(ctx.cache.join("build-fuzz")))?;
        fs::remove_dir_all(ctx.cache.join("build-fuzz"))
            .context("cannot remove the build directory of cargo-fuzz")
    })?;
    Ok(cached)
}
