//! The few kernel modules that the test machine needs, in the order in which they must be loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Drivers of the disk that is swapped to. What a kernel has built in has no file.
const WANTED: &[&str] = &["virtio_pci", "virtio_blk"];

/// Puts them into `to`, uncompressed, as `NN-name.ko`: a shell loads them in the order of their names.
pub(crate) fn collect(unpacked: &Path, to: &Path) -> Result<()> {
    let mut files = Vec::new();
    for modules in ["lib/modules", "usr/lib/modules"] {
        walk(&unpacked.join(modules), &mut files)?;
    }
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let (mut seen, mut number) = (Vec::new(), 0);
    for wanted in WANTED {
        load(wanted, &files, &mut seen, &mut |name, bytes| {
            number += 1;
            let file = to.join(format!("{number:02}-{name}.ko"));
            fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))
        })?;
    }
    Ok(())
}

/// Writes a module after those that it depends on.
fn load(
    name: &str,
    files: &[PathBuf],
    seen: &mut Vec<String>,
    write: &mut impl FnMut(&str, &[u8]) -> Result<()>,
) -> Result<()> {
    if seen.iter().any(|other| other == name) {
        return Ok(());
    }
    let Some(file) = files.iter().find(|file| module_name(file).as_deref() == Some(name)) else {
        return Ok(());
    };
    // Noted first, so that a circle ends.
    seen.push(name.to_owned());
    let bytes = read(file)?;
    for dependency in depends(&bytes) {
        load(&dependency, files, seen, write)?;
    }
    write(name, &bytes)
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    // Where the modules of a kernel are depends on the release.
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// `virtio-blk.ko.xz` is `virtio_blk`.
fn module_name(file: &Path) -> Option<String> {
    let (stem, _) = file.file_name()?.to_str()?.split_once(".ko")?;
    Some(stem.replace('-', "_"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => fs::read(file).with_context(|| format!("cannot read {}", file.display())),
        Some(compression @ ("xz" | "zst")) => {
            let program = if compression == "xz" { "xz" } else { "zstd" };
            let output = Command::new(program)
                .arg("-dc")
                .arg(file)
                .output()
                .with_context(|| format!("cannot run {program}"))?;
            if !output.status.success() {
                bail!("{program} cannot unpack {}", file.display());
            }
            Ok(output.stdout)
        }
        _ => bail!("{} is compressed in a way that is not known", file.display()),
    }
}

/// Its section `.modinfo` has `depends=a,b`, ended by a zero.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_loaded_first() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("lib/modules/1/kernel");
        fs::create_dir_all(&kernel).unwrap();
        for (name, depends) in [
            ("virtio-pci", "virtio,virtio-ring"),
            ("virtio_ring", "virtio"),
            ("virtio", "virtio_pci"),
            ("virtio_blk", ""),
            ("unrelated", ""),
        ] {
            let text = format!("ELF\0license=GPL\0depends={depends}\0name=x");
            fs::write(kernel.join(format!("{name}.ko")), text).unwrap();
        }
        let to = dir.path().join("out");
        collect(dir.path(), &to).unwrap();
        let mut names: Vec<_> = fs::read_dir(&to)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let order: Vec<_> = names.iter().map(|name| name.split_once('-').unwrap().1).collect();
        assert_eq!(order, ["virtio.ko", "virtio_ring.ko", "virtio_pci.ko", "virtio_blk.ko"]);
    }

    #[test]
    fn built_in_drivers_have_no_files() {
        let dir = tempfile::tempdir().unwrap();
        collect(dir.path(), &dir.path().join("out")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
    }
}
