//! The toolchain that compiles the kernel side: a rustc with the sources of `core`, and bpf-linker.
//!
//! Taken as found, in this order: a rustup nightly with `rust-src` and a `bpf-linker` in `PATH`; else Debian's own
//! Rust, whose packages hold those sources, and a bpf-linker built once into the cache against the same LLVM.
//! The versions of LLVM must agree, so its major is asked of rustc and is part of the cached file's name.

use std::cmp::Reverse;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt::{self, Need};
use crate::context::Ctx;
use crate::process;

/// Version of bpf-linker that is built when none is at hand.
const LINKER_VERSION: &str = "0.13.0";
/// Lowest rustc that compiles this workspace (`rust-version` in Cargo.toml), as major and minor.
const RUSTC_MIN: (u32, u32) = (1, 95);
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core/Cargo.toml";

/// What an eBPF build runs.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Its name, for messages.
    pub(crate) name: String,
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Its rustc.
    pub(crate) rustc: PathBuf,
    /// The linker.
    pub(crate) linker: PathBuf,
    /// Takes what only debuggers read out of an object; without it the object stays as it is, six times as large.
    pub(crate) strip: Option<PathBuf>,
}

/// Finds it, or installs what is missing. Quick and silent when all is there.
pub(crate) fn ensure(ctx: &Ctx) -> Result<Toolchain> {
    if let Some(found) = nightly() {
        return Ok(found);
    }
    if let Some(found) = debian(ctx) {
        return Ok(found);
    }
    process::step("set up the eBPF toolchain", || install(ctx))
}

/// A rustup nightly that can build `core`, if there is a linker for it.
fn nightly() -> Option<Toolchain> {
    let linker = process::find("bpf-linker")?;
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".rustup")))?;
    let entries = fs::read_dir(rustup.join("toolchains")).ok()?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_usable_nightly(path))
        .collect();
    // By name: `nightly-x86_64-…` sorts after dated ones, and is the one that rustup updates.
    found.sort_unstable_by_key(|path| Reverse(path.clone()));
    let home = found.into_iter().next()?;
    let name = format!("{} of rustup", home.file_name()?.to_string_lossy());
    let strip = process::find("llvm-strip");
    Some(Toolchain {
        name,
        cargo: home.join("bin/cargo"),
        rustc: home.join("bin/rustc"),
        linker,
        strip,
    })
}

fn is_usable_nightly(toolchain: &Path) -> bool {
    toolchain.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nightly"))
        && toolchain.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
        && toolchain.join("bin/cargo").is_file()
}

/// Debian's Rust and the cached linker, if both are complete.
fn debian(ctx: &Ctx) -> Option<Toolchain> {
    let rust = Rust::installed()?;
    let linker = linker_path(ctx, rust.llvm);
    // An LLVM library that was removed since shows here.
    process::succeeds(Command::new(&linker).arg("--version")).then(|| rust.with(linker))
}

fn linker_path(ctx: &Ctx, llvm: u32) -> PathBuf {
    ctx.cache.join(format!("bpf-linker-{LINKER_VERSION}-llvm-{llvm}/bin/bpf-linker"))
}

/// Debian's Rust as installed.
struct Rust {
    version: (u32, u32),
    llvm: u32,
}

impl Rust {
    /// What is at /usr/bin, if it comes with sources and is new enough.
    fn installed() -> Option<Self> {
        if !Path::new(DEBIAN_CARGO).is_file() || !Path::new(DEBIAN_SOURCES).is_file() {
            return None;
        }
        let output =
            Command::new(DEBIAN_RUSTC).arg("-vV").env_remove("LD_LIBRARY_PATH").output().ok()?;
        let rust = Self::parse(&String::from_utf8_lossy(&output.stdout))?;
        (rust.version >= RUSTC_MIN).then_some(rust)
    }

    /// Reads `rustc -vV`.
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let mut release = value("release:")?.split('.');
        let version = (release.next()?.parse().ok()?, release.next()?.parse().ok()?);
        let llvm = value("LLVM version:")?.split('.').next()?.parse().ok()?;
        Some(Self { version, llvm })
    }

    fn with(&self, linker: PathBuf) -> Toolchain {
        let (major, minor) = self.version;
        let name = format!("Debian's Rust {major}.{minor}, LLVM {}", self.llvm);
        let strip = PathBuf::from(format!("/usr/lib/llvm-{}/bin/llvm-strip", self.llvm));
        let strip = Some(strip).filter(|strip| strip.is_file());
        Toolchain { name, cargo: DEBIAN_CARGO.into(), rustc: DEBIAN_RUSTC.into(), linker, strip }
    }
}

fn install(ctx: &Ctx) -> Result<Toolchain> {
    eprintln!(
        "    The kernel side needs a Rust with the sources of `core`, and bpf-linker. Neither is complete here"
    );
    eprintln!(
        "    (no rustup nightly with rust-src plus a bpf-linker in PATH), so Debian's Rust is used."
    );
    let rust = install_rust()?;
    let lock = ctx.lock_cache()?;
    if let Some(found) = debian(ctx) {
        return Ok(found);
    }
    install_linker(ctx, &rust)?;
    drop(lock);
    debian(ctx).context("bpf-linker was built but does not run")
}

fn install_rust() -> Result<Rust> {
    if let Some(rust) = Rust::installed() {
        return Ok(rust);
    }
    let needs = [
        Need::new("rustc-web", "Debian's Rust compiler, current series"),
        Need::new("cargo-web", "its cargo"),
        Need::new("rust-web-src", "the sources of `core`, which is compiled for BPF"),
    ];
    apt::install(&needs.iter().collect::<Vec<_>>())?;
    if let Some(rust) = Rust::installed() {
        return Ok(rust);
    }
    // The lists at hand may be older than the update that brought a rustc that is new enough.
    apt::update()?;
    apt::install(&needs.iter().collect::<Vec<_>>())?;
    let (major, minor) = RUSTC_MIN;
    Rust::installed().with_context(|| {
        format!("Debian's Rust is older than {major}.{minor} or lacks its sources. By hand: rustup toolchain install nightly --component rust-src, and cargo install bpf-linker")
    })
}

/// Builds bpf-linker against the LLVM of that rustc.
fn install_linker(ctx: &Ctx, rust: &Rust) -> Result<()> {
    let llvm = rust.llvm;
    apt::ensure(&[
        Need::new(format!("llvm-{llvm}-dev"), "LLVM as in that Rust: bpf-linker links to it"),
        Need::new(format!("libpolly-{llvm}-dev"), "part of LLVM that its build asks for"),
        Need::new("libzstd-dev", "a library that LLVM is linked to"),
        Need::new("g++", "C++ library that LLVM is linked to, and a linker"),
        Need::new("libc6-dev", "C library that Rust programs are linked to"),
    ])?;
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if !prefix.is_dir() {
        bail!("{} is missing although llvm-{llvm}-dev is installed", prefix.display());
    }
    let root =
        linker_path(ctx, llvm).ancestors().nth(2).context("the cache has no root")?.to_path_buf();
    eprintln!(
        "    building bpf-linker {LINKER_VERSION} from source into {} (about 2 min)",
        root.display()
    );
    let mut cargo = process::foreign_cargo(Path::new(DEBIAN_CARGO), Path::new(DEBIAN_RUSTC));
    cargo.current_dir(&ctx.cache).env("LLVM_PREFIX", prefix);
    cargo.args([
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
        "--force",
        "--no-default-features",
        "--features",
    ]);
    cargo
        .arg(format!("llvm-{llvm}"))
        .arg("--root")
        .arg(&root)
        .arg("--target-dir")
        .arg(ctx.cache.join("build"));
    process::run(&mut cargo)?;
    // Only the program is kept.
    fs::remove_dir_all(ctx.cache.join("build"))
        .context("cannot remove the build directory of bpf-linker")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_rustc_says() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let rust = Rust::parse(text).unwrap();
        assert_eq!((rust.version, rust.llvm), ((1, 96), 22));
        assert!(Rust::parse("release: 1.96.0-nightly\nLLVM version: 23.0.0").is_some());
        assert!(Rust::parse("release: x\nLLVM version: 22.1.8").is_none());
        assert!(Rust::parse("").is_none());
    }

    #[test]
    fn minimum_is_that_of_the_workspace() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        let text = fs::read_to_string(manifest).unwrap();
        let (major, minor) = RUSTC_MIN;
        assert!(text.contains(&format!("rust-version = \"{major}.{minor}\"")));
    }
}
