//! `lint`: format, lints, dependencies, and what no file may hold.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::context::Ctx;
use crate::process::{self, step};
use crate::setup;

/// Version of cargo-deny that is built when asked for and not at hand.
const DENY_VERSION: &str = "0.20.2";
/// Lines of a source file above which it wants a wall.
const LONG: usize = 500;

/// Arguments of `lint`.
#[derive(clap::Args)]
pub(crate) struct LintArgs {
    /// Check licenses and sources of the dependencies too, building cargo-deny if it is missing (always in CI)
    #[arg(long)]
    deny: bool,
}

/// Runs every check; stops at the first that fails.
pub(crate) fn run(ctx: &Ctx, args: &LintArgs) -> Result<()> {
    step("sources", || check_sources(ctx))?;
    setup::ensure_make()?;
    step("cargo fmt", || process::run(process::cargo(ctx).args(["fmt", "--all", "--check"])))?;
    step("cargo clippy", || {
        process::run(process::cargo(ctx).args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    // The released binary has every feature; who builds without must get a daemon too.
    step("cargo clippy, no features", || {
        process::run(process::cargo(ctx).args([
            "clippy",
            "--package",
            "killwatch",
            "--all-targets",
            "--no-default-features",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    let wanted = args.deny || env::var_os("CI").is_some();
    match deny(ctx, wanted)? {
        // Advisories are not checked: their list is fetched from outside on each run, and not every builder may.
        Some(deny) => step("cargo deny", || {
            process::run(
                Command::new(deny)
                    .current_dir(&ctx.root)
                    .args(["--locked", "check", "bans", "licenses", "sources"]),
            )
        }),
        None => {
            eprintln!("cargo-deny is not here: dependencies not checked (--deny builds it, 5 min)");
            Ok(())
        }
    }
}

/// The program, built first if that is wanted.
fn deny(ctx: &Ctx, wanted: bool) -> Result<Option<PathBuf>> {
    let root = ctx.cache.join(format!("cargo-deny-{DENY_VERSION}"));
    let cached = root.join("bin/cargo-deny");
    if let Some(found) =
        Some(cached.clone()).filter(|file| file.is_file()).or_else(|| process::find("cargo-deny"))
    {
        return Ok(Some(found));
    }
    if !wanted {
        return Ok(None);
    }
    step(&format!("build cargo-deny {DENY_VERSION} into {}", root.display()), || {
        let _lock = ctx.lock_cache()?;
        let mut cargo = process::cargo(ctx);
        cargo
            .args(["install", "cargo-deny", "--version", DENY_VERSION, "--locked", "--root"])
            .arg(&root);
        process::run(cargo.arg("--target-dir").arg(ctx.cache.join("build-deny")))?;
        fs::remove_dir_all(ctx.cache.join("build-deny"))
            .context("cannot remove the build directory of cargo-deny")
    })?;
    Ok(Some(cached))
}

/// What holds for the text of the files: no host that only this machine's builders know, no over-long source.
fn check_sources(ctx: &Ctx) -> Result<()> {
    let listed = process::output(Command::new("git").current_dir(&ctx.root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let hosts = private_hosts();
    let mut found = Vec::new();
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let Ok(text) = fs::read_to_string(ctx.root.join(name)) else {
            continue;
        };
        found.extend(
            hosts
                .iter()
                .filter(|host| text.contains(host.as_str()))
                .map(|_| format!("{name} names a package host of this machine")),
        );
        if name == "Cargo.lock" {
            found.extend(foreign_sources(&text));
        }
        let lines = text.lines().count();
        if name.ends_with(".rs") && lines > LONG {
            eprintln!("warning: {name} has {lines} lines, more than {LONG}");
        }
    }
    if !found.is_empty() {
        bail!("{}", found.join("\n"));
    }
    Ok(())
}

/// Sources in a Cargo.lock other than crates.io under its public name.
fn foreign_sources(lock: &str) -> Vec<String> {
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = "));
    let foreign = sources
        .filter(|source| *source != "\"registry+https://github.com/rust-lang/crates.io-index\"");
    let distinct: BTreeSet<&str> = foreign.collect();
    distinct
        .into_iter()
        .map(|source| format!("Cargo.lock has a source other than crates.io: {source}"))
        .collect()
}

/// Hosts that this machine's package clients are configured with: mirrors, which have no place in the repository.
fn private_hosts() -> BTreeSet<String> {
    let mut files: Vec<PathBuf> =
        ["/etc/apt/sources.list", "/etc/pip.conf", "/etc/npmrc", "/usr/etc/npmrc"]
            .map(PathBuf::from)
            .to_vec();
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    if let Some(home) = env::home_dir() {
        files.extend(
            [".cargo/config.toml", ".pip/pip.conf", ".config/pip/pip.conf", ".npmrc"]
                .map(|name| home.join(name)),
        );
    }
    if let Some(home) = env::var_os("CARGO_HOME") {
        files.push(Path::new(&home).join("config.toml"));
    }
    let mut text: String = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect::<Vec<_>>()
        .join("\n");
    for (name, value) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_REGISTR")
            || name.starts_with("CARGO_SOURCE_")
            || name.starts_with("PIP_")
            || name.to_lowercase().starts_with("npm_config_")
        {
            text.push('\n');
            text.push_str(&value.to_string_lossy());
        }
    }
    hosts(&text).into_iter().filter(|host| !is_public(host)).collect()
}

/// Host of each URL in a text.
fn hosts(text: &str) -> BTreeSet<String> {
    let after = text.split("://").skip(1);
    let host = |rest: &str| {
        let authority =
            rest.split(|c: char| c == '/' || c.is_whitespace() || c == '"' || c == '\'').next()?;
        let host = authority.rsplit('@').next()?.split(':').next()?;
        (!host.is_empty()).then(|| host.to_lowercase())
    };
    after.filter_map(host).collect()
}

/// Hosts that anyone may name.
fn is_public(host: &str) -> bool {
    let public = [
        "debian.org",
        "crates.io",
        "github.com",
        "rust-lang.org",
        "pypi.org",
        "npmjs.org",
        "nodesource.com",
        "google.com",
        "localhost",
    ];
    public.iter().any(|name| host == *name || host.ends_with(&format!(".{name}")))
        || host == "127.0.0.1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_out_of_any_configuration() {
        let text = "deb http://one.test/debian x\nregistry = \"sparse+https://user:key@two.test:8080/index/\"\nURIs: http://THREE.test";
        assert_eq!(hosts(text), ["one.test", "two.test", "three.test"].map(str::to_owned).into());
        assert!(
            is_public("deb.debian.org") && is_public("debian.org") && !is_public("notdebian.org")
        );
    }

    #[test]
    fn a_lock_file_may_name_crates_io_only() {
        let good = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert!(foreign_sources(good).is_empty());
        assert_eq!(
            foreign_sources(&format!("{good}source = \"sparse+https://x.test/\"\n")).len(),
            1
        );
    }
}
