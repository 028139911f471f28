//! systemd and systemd-oomd for the test machine: Debian's programs with their libraries, units of our own, and of the Debian package what systemd is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::initramfs::{self, copy, parse_ldd};
use super::suite::{self, Suite};
use crate::context::Ctx;
use crate::process::{self, step};
use crate::release;

/// Packages; what they depend on comes with them.
const PACKAGES: &[&str] = &["systemd", "systemd-oomd"];

/// Programs, without the directory that releases differ in. The executor came with systemd 255.
const PROGRAMS: &[(&str, bool)] = &[
    ("lib/systemd/systemd", true),
    ("lib/systemd/systemd-oomd", true),
    ("lib/systemd/systemd-executor", false),
    ("bin/systemd-run", true),
    ("bin/systemctl", true),
    ("bin/systemd-tmpfiles", true),
    ("lib/systemd/system/systemd-oomd.socket", true),
];

/// Where libraries are; the last for those that only systemd uses.
const LIBRARIES: &[&str] = &["lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu/systemd"];

/// The dynamic loader, in the package of the C library.
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// What is written beside them.
const FILES: &[(&str, &str)] = &[
    (
        "etc/systemd/system/default.target",
        "[Unit]\nDescription=The scenarios\nRequires=killwatch-scenarios.service\n",
    ),
    (
        "etc/systemd/system/killwatch-scenarios.service",
        "[Unit]\nDescription=Run the scenarios and power off\nDefaultDependencies=no\nRequires=watched.slice systemd-oomd.service\n\
         After=watched.slice systemd-oomd.service\n\n[Service]\nType=oneshot\nExecStart=/bin/busybox sh /killwatch/run.sh\n\
         StandardOutput=file:/dev/ttyS0\nStandardError=file:/dev/ttyS0\nOOMPolicy=continue\n",
    ),
    // What a unit waits for that does not say otherwise.
    (
        "etc/systemd/system/sysinit.target",
        "[Unit]\nDescription=Nothing more is needed\nDefaultDependencies=no\n",
    ),
    (
        "etc/systemd/system/basic.target",
        "[Unit]\nDescription=Nothing more is needed\nDefaultDependencies=no\n",
    ),
    // One second is the least that is taken.
    ("etc/systemd/oomd.conf", "[OOM]\nDefaultMemoryPressureDurationSec=1s\n"),
    (
        "etc/systemd/system/systemd-oomd.service",
        "[Unit]\nDescription=Userspace OOM killer\nDefaultDependencies=no\nRequires=systemd-oomd.socket\nAfter=systemd-oomd.socket\n\n\
         [Service]\nType=notify\nExecStart=@OOMD@\nUser=systemd-oom\nAmbientCapabilities=CAP_KILL CAP_DAC_OVERRIDE\n\
         StandardOutput=file:/dev/kmsg\nStandardError=file:/dev/kmsg\n",
    ),
    // Past 32 MiB everything here is held up, which is pressure; past the limit the kernel would kill.
    (
        "etc/systemd/system/watched.slice",
        "[Unit]\nDescription=What systemd-oomd watches\nDefaultDependencies=no\n\n[Slice]\nMemoryHigh=32M\nMemoryMax=192M\n\
         ManagedOOMMemoryPressure=kill\nManagedOOMMemoryPressureLimit=5%\n",
    ),
    // With an id it is not the first boot, on which systemd would set up much that is not here.
    ("etc/machine-id", "6b696c6c776174636800000000000001\n"),
    ("etc/hostname", "killwatch-vm\n"),
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nsystemd-oom:x:990:990::/:/bin/sh\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\nsystemd-oom:x:990:\n"),
];

/// Writes all as `archive`, to go behind the one that all machines have; stages it in `root`.
pub(crate) fn write(ctx: &Ctx, root: &Path, archive: &Path) -> Result<()> {
    let tree = fetch(ctx)?;
    initramfs::empty(root)?;
    process::run(Command::new("cp").arg("-a").arg(tree.join(".")).arg(root))?;
    let oomd = ["/lib/systemd/systemd-oomd", "/usr/lib/systemd/systemd-oomd"];
    let oomd = oomd.iter().find(|path| root.join(path.trim_start_matches('/')).is_file());
    let oomd = oomd.context("there is no systemd-oomd")?;
    for (name, text) in FILES {
        let file = root.join(name);
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        fs::write(&file, text.replace("@OOMD@", oomd))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    for (from, to) in release::units() {
        copy(&ctx.root.join(from), &root.join(to))?;
    }
    // Those that each service has of its own (`PrivateTmp=`) are mounted over it.
    fs::create_dir_all(root.join("var/tmp")).context("cannot make a directory")?;
    initramfs::pack(root, archive)
}

/// The programs and their libraries as a tree, from the cache if they are there.
fn fetch(ctx: &Ctx) -> Result<PathBuf> {
    let release = suite::codename()?;
    let dir = ctx.cache.join("guest").join(&release);
    let tree = dir.join("systemd");
    let _lock = ctx.lock_cache()?;
    if !is_whole(&tree) {
        step("fetch systemd for the test machine", || {
            let unpacked = dir.join("systemd.unpacked");
            let new = dir.join("systemd.new");
            initramfs::empty(&unpacked)?;
            initramfs::empty(&new)?;
            Suite::open(ctx, &release)?.unpack_closure(PACKAGES, &unpacked)?;
            pick(&unpacked, &new)?;
            fs::remove_dir_all(&unpacked).context("cannot remove what was unpacked")?;
            if tree.exists() {
                fs::remove_dir_all(&tree).context("cannot remove an older tree")?;
            }
            fs::rename(&new, &tree).context("cannot put systemd in place")
        })?;
    }
    Ok(tree)
}

/// Whether a tree from the cache has all that is wanted today.
fn is_whole(tree: &Path) -> bool {
    PROGRAMS.iter().all(|(name, required)| !required || find(tree, name).is_some())
}

/// Where a file is in a tree: `/lib` is a link to `/usr/lib`, or will be, so packages have files in either.
fn find(tree: &Path, name: &str) -> Option<String> {
    let names = [name.to_owned(), format!("usr/{name}")];
    names.into_iter().find(|name| tree.join(name).is_file())
}

/// Copies the programs and what they are linked with.
fn pick(unpacked: &Path, tree: &Path) -> Result<()> {
    let find = |name: &str| find(unpacked, name);
    let loader = find(LOADER).context("there is no dynamic loader")?;
    let mut path = Vec::new();
    for dir in LIBRARIES {
        path.push(unpacked.join(dir).display().to_string());
        path.push(unpacked.join("usr").join(dir).display().to_string());
    }
    for (name, required) in PROGRAMS {
        let Some(found) = find(name) else {
            if *required {
                bail!("the packages {} have no {name}", PACKAGES.join(", "));
            }
            continue;
        };
        let program = unpacked.join(&found);
        copy(&program, &tree.join(&found))?;
        if name.ends_with(".socket") {
            continue;
        }
        let mut list = Command::new(unpacked.join(&loader));
        list.arg("--list").arg("--library-path").arg(path.join(":")).arg(&program);
        for library in parse_ldd(&process::output(&mut list)?) {
            // The loader names itself by its place in a running system.
            let Ok(inside) = library.strip_prefix(unpacked) else { continue };
            copy(&library, &tree.join(inside))?;
        }
    }
    copy(&unpacked.join(&loader), &tree.join("lib64/ld-linux-x86-64.so.2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_there() {
        let unit = |name: &str| {
            let path = format!("etc/systemd/system/{name}");
            FILES.iter().find(|(file, _)| *file == path).map(|(_, text)| *text)
        };
        let scenarios = unit("killwatch-scenarios.service").unwrap();
        assert!(unit("default.target").unwrap().contains("killwatch-scenarios.service"));
        for needed in ["watched.slice", "systemd-oomd.service"] {
            assert!(scenarios.contains(needed) && unit(needed).is_some(), "{needed}");
        }
        assert!(initramfs::RUN.contains("/sys/fs/cgroup/watched.slice"));
        assert!(PROGRAMS.iter().any(|(name, _)| name.ends_with("/systemd-oomd.socket")));
    }

    #[test]
    fn a_tree_that_lacks_a_program_is_fetched_anew() {
        let dir = tempfile::tempdir().unwrap();
        for (name, _) in PROGRAMS.iter().filter(|(_, required)| *required) {
            assert!(!is_whole(dir.path()), "{name} is not there yet");
            let file = dir.path().join("usr").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        assert!(is_whole(dir.path()));
    }

    #[test]
    fn programs_are_found_in_either_place() {
        let dir = tempfile::tempdir().unwrap();
        let (unpacked, tree) = (dir.path().join("unpacked"), dir.path().join("tree"));
        assert!(pick(&unpacked, &tree).unwrap_err().to_string().contains("loader"));
        for file in [
            "usr/lib/systemd/systemd",
            "lib/systemd/systemd-oomd",
            "bin/systemd-run",
            "usr/bin/systemctl",
            "bin/systemd-tmpfiles",
        ] {
            let file = unpacked.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let loader = unpacked.join("usr").join(LOADER);
        fs::create_dir_all(loader.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/bin/true", &loader).unwrap();
        let error = pick(&unpacked, &tree).unwrap_err().to_string();
        assert!(error.contains("systemd-oomd.socket"), "{error}");
        assert!(tree.join("usr/lib/systemd/systemd").is_file());
        assert!(tree.join("lib/systemd/systemd-oomd").is_file());
    }
}
