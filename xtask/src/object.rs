//! The BPF object: one file for every kernel, which the daemon embeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::context::Ctx;
use crate::{process, toolchain};

/// Variable that names the object to the daemon's build script.
pub(crate) const OBJECT_VARIABLE: &str = "KILLWATCH_BPF_OBJECT";

/// Builds it if its sources changed. Returns `target/bpf/killwatch.bpf.o`, which is rewritten only when it differs.
pub(crate) fn build(ctx: &Ctx) -> Result<PathBuf> {
    let toolchain = toolchain::ensure(ctx)?;
    process::step(&format!("build the BPF object with {}", toolchain.name), || {
        let target =
            if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
        let target_dir = ctx.root.join("target/bpf");
        let flags = [
            format!("-Clinker={}", toolchain.linker.display()),
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
        ];
        let mut cargo = process::foreign_cargo(&toolchain.cargo, &toolchain.rustc);
        cargo
            .current_dir(&ctx.root)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo.args([
            "build",
            "--locked",
            "--profile",
            "bpf",
            "-p",
            "killwatch-ebpf",
            "--bin",
            "killwatch-ebpf",
            "-Zbuild-std=core",
        ]);
        cargo.args(["--target", target, "--target-dir"]).arg(&target_dir);
        process::run(&mut cargo)?;
        let object = target_dir.join("killwatch.bpf.o");
        let built = target_dir.join(target).join("bpf/killwatch-ebpf");
        match &toolchain.strip {
            // The daemon carries the object and reads BTF alone; DWARF is five sixths of it.
            Some(strip) => {
                let stripped = target_dir.join("stripped.o");
                process::run(
                    Command::new(strip).arg("--strip-debug").arg(&built).arg("-o").arg(&stripped),
                )?;
                publish(&stripped, &object)?;
            }
            None => publish(&built, &object)?,
        }
        Ok(object)
    })
}

/// Copies `built` unless `object` holds the same: its time of change tells the daemon's build whether to run again.
fn publish(built: &Path, object: &Path) -> Result<()> {
    let bytes =
        fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(object, bytes).with_context(|| format!("cannot write {}", object.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let (built, object) = (dir.path().join("built"), dir.path().join("object"));
        fs::write(&built, "one").unwrap();
        publish(&built, &object).unwrap();
        let before = fs::metadata(&object).unwrap().modified().unwrap();
        publish(&built, &object).unwrap();
        assert_eq!(fs::metadata(&object).unwrap().modified().unwrap(), before);
        fs::write(&built, "two").unwrap();
        publish(&built, &object).unwrap();
        assert_eq!(fs::read(&object).unwrap(), b"two");
    }
}
