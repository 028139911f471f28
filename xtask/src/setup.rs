//! `setup`: everything that building needs, and nothing else.

use anyhow::Result;

use crate::apt::{self, Need};
use crate::context::Ctx;
use crate::{process, toolchain};

/// Installs what is missing; quick when nothing is.
pub(crate) fn run(ctx: &Ctx) -> Result<()> {
    ensure_make()?;
    let toolchain = toolchain::ensure(ctx)?;
    eprintln!("kernel side: {}", toolchain.name);
    eprintln!("bpf-linker:  {}", toolchain.linker.display());
    Ok(())
}

/// What the crates of the daemon need beside the C compiler that xtask was linked with.
pub(crate) fn ensure_make() -> Result<()> {
    if process::find("make").is_some() {
        return Ok(());
    }
    apt::ensure(&[Need::new("make", "builds jemalloc, the daemon's allocator")])
}
