//! Programs of Debian that the test machine runs beside ours, downloaded like its kernel and never installed here.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::suite::{self, Suite};
use crate::context::Ctx;
use crate::process::step;

/// The program earlyoom of this machine's own release, so that this machine's libraries fit it.
pub(crate) fn earlyoom(ctx: &Ctx) -> Result<PathBuf> {
    let release = suite::codename()?;
    let root = ctx.cache.join("guest").join(&release).join("earlyoom");
    let program = root.join("usr/bin/earlyoom");
    let _lock = ctx.lock_cache()?;
    if !program.is_file() {
        step("fetch earlyoom for the test machine", || {
            fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
            Suite::open(ctx, &release)?.unpack("earlyoom", &root)
        })?;
    }
    ensure!(program.is_file(), "the package earlyoom holds no {}", program.display());
    Ok(program)
}
