//! Which libraries a program needs: as Debian's packages, and as files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// The packages that a program below `root` depends on, as in a control file.
pub(super) fn packages(root: &Path, program: &str) -> Result<String> {
    let work = root.with_file_name("shlibdeps");
    fs::create_dir_all(work.join("debian")).context("cannot make a directory")?;
    // It wants to know of a source package, and looks at nothing in it.
    let control = "Source: killwatch\n\nPackage: killwatch\nArchitecture: any\n";
    fs::write(work.join("debian/control"), control).context("cannot write a control file")?;
    let mut shlibdeps = Command::new("dpkg-shlibdeps");
    let said = process::output(
        shlibdeps.current_dir(&work).arg("-O").arg(format!("-e{}", root.join(program).display())),
    )?;
    let depends = said.trim().strip_prefix("shlibs:Depends=");
    depends.map(str::to_owned).with_context(|| format!("dpkg-shlibdeps said: {said}"))
}

/// A library.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Library {
    /// Where it is on this machine.
    pub(super) file: PathBuf,
    /// Where the loader looks for it.
    pub(super) path: PathBuf,
}

/// The loader and all libraries that a program needs, and these need, looked up below `sysroot`.
pub(super) fn libraries(program: &Path, sysroot: &Path, triplet: &str) -> Result<Vec<Library>> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![program.to_owned()];
    while let Some(file) = waiting.pop() {
        let text =
            process::output(Command::new("readelf").args(["--wide", "-d", "-l"]).arg(&file))?;
        for path in needs(&text, sysroot, triplet) {
            let path = path.with_context(|| format!("of {}", file.display()))?;
            let library =
                Library { file: sysroot.join(path.strip_prefix("/").unwrap_or(&path)), path };
            if found.insert(library.clone()) {
                waiting.push(library.file);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// What `readelf -d -l` says that a file needs: paths on the machine that it is for.
fn needs<'a>(
    text: &'a str,
    sysroot: &'a Path,
    triplet: &'a str,
) -> impl Iterator<Item = Result<PathBuf>> + use<'a> {
    text.lines().filter_map(move |line| {
        let after = |left: &str| line.split_once(left)?.1.split_once(']').map(|(name, _)| name);
        if let Some(loader) = after("Requesting program interpreter: ") {
            return Some(Ok(PathBuf::from(loader)));
        }
        let name = after("(NEEDED)")?.split_once('[')?.1;
        // The loader is a library, too, and is where programs ask for it.
        if name.starts_with("ld-linux") {
            return None;
        }
        let places = [
            format!("/lib/{triplet}"),
            format!("/usr/lib/{triplet}"),
            format!("/usr/{triplet}/lib"),
        ];
        let mut paths = places.iter().map(|place| Path::new(place).join(name));
        let there =
            paths.find(|path| sysroot.join(path.strip_prefix("/").unwrap_or(path)).exists());
        Some(there.with_context(|| format!("{name} is not below {}", sysroot.display())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_needs() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join("lib/x-linux-gnu");
        fs::create_dir_all(&lib).unwrap();
        fs::write(lib.join("libc.so.6"), "").unwrap();
        let text = "      [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n 0x01 (NEEDED)  Shared library: [libc.so.6]\n \
            0x01 (NEEDED)  Shared library: [ld-linux-x86-64.so.2]\n 0x0f (RUNPATH) Library runpath: [/x]\n";
        let found: Vec<_> = needs(text, root.path(), "x-linux-gnu").map(Result::unwrap).collect();
        let expected = ["/lib64/ld-linux-x86-64.so.2", "/lib/x-linux-gnu/libc.so.6"];
        assert_eq!(found, expected.map(PathBuf::from));
        let lacking = " 0x01 (NEEDED)  Shared library: [libm.so.6]\n";
        assert!(needs(lacking, root.path(), "x-linux-gnu").all(|path| path.is_err()));
    }
}
