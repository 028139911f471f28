//! `setup`: everything that building needs, and nothing else.

use anyhow::Result;

use crate::context::Ctx;
use crate::toolchain;

/// Installs what is missing; quick when nothing is.
pub(crate) fn run(ctx: &Ctx) -> Result<()> {
    let toolchain = toolchain::ensure(ctx)?;
    eprintln!("kernel side: {}", toolchain.name);
    eprintln!("bpf-linker:  {}", toolchain.linker.display());
    Ok(())
}
