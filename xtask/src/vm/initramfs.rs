//! The test machine's only file system: busybox, the daemon, the scenarios, and the libraries that these name.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The machine's first process.
pub(crate) const INIT: &str = include_str!("init.sh");
/// What runs the scenarios.
pub(crate) const RUN: &str = include_str!("run.sh");

/// What goes in.
pub(crate) struct Contents<'a> {
    /// The daemon.
    pub(crate) daemon: &'a Path,
    /// The libtest executable with the scenarios.
    pub(crate) scenarios: &'a Path,
    /// The process that they have killed, if the scenarios have one of their own.
    pub(crate) victim: Option<&'a Path>,
    /// A userspace OOM killer, for a scenario in which it kills.
    pub(crate) earlyoom: Option<&'a Path>,
    /// Filters for the scenarios.
    pub(crate) arguments: &'a [String],
}

/// Writes it as `archive`, staging the files in `root`.
pub(crate) fn write(contents: &Contents<'_>, root: &Path, archive: &Path) -> Result<()> {
    empty(root)?;
    for dir in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root", "etc", "killwatch"] {
        fs::create_dir_all(root.join(dir))
            .with_context(|| format!("cannot make {}", root.display()))?;
    }
    let busybox = process::find("busybox").context("busybox is not installed")?;
    copy(&busybox, &root.join("bin/busybox"))?;
    let executables = [
        ("killwatch", Some(contents.daemon)),
        ("scenarios", Some(contents.scenarios)),
        ("victim", contents.victim),
        ("earlyoom", contents.earlyoom),
    ];
    for (name, file) in executables {
        let Some(file) = file else { continue };
        let inside = root.join("killwatch").join(name);
        copy(file, &inside)?;
        // Debug information is most of a test executable, and all of this lives in the machine's memory.
        process::run(Command::new("strip").arg("--strip-debug").arg(&inside))?;
        for library in libraries(file)? {
            let relative =
                library.strip_prefix("/").context("ldd named a library without a path")?;
            copy(&library, &root.join(relative))?;
        }
    }
    fs::write(root.join("init"), INIT).context("cannot write init")?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))
        .context("cannot make init executable")?;
    fs::write(root.join("killwatch/run.sh"), RUN).context("cannot write run.sh")?;
    fs::write(root.join("killwatch/arguments"), lines(contents.arguments)?)
        .context("cannot write the arguments")?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )
    .context("cannot write users")?;
    pack(root, archive)
}

/// Writes the modules of a kernel as an archive of their own, which goes behind the other.
pub(crate) fn write_modules(modules: &Path, root: &Path, archive: &Path) -> Result<()> {
    empty(root)?;
    let to = root.join("killwatch/modules");
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    let entries =
        fs::read_dir(modules).with_context(|| format!("cannot list {}", modules.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", modules.display()))?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    pack(root, archive)
}

/// One file of several archives: the kernel unpacks them one after the other.
pub(crate) fn join(parts: &[&Path], archive: &Path) -> Result<()> {
    let mut file =
        fs::File::create(archive).with_context(|| format!("cannot make {}", archive.display()))?;
    for part in parts {
        let mut from =
            fs::File::open(part).with_context(|| format!("cannot open {}", part.display()))?;
        std::io::copy(&mut from, &mut file)
            .with_context(|| format!("cannot write {}", archive.display()))?;
    }
    Ok(())
}

/// An empty directory there, whatever was there before.
pub(crate) fn empty(root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))
}

/// One argument a line; the shell that reads them cannot tell a line end inside one.
fn lines(arguments: &[String]) -> Result<String> {
    if let Some(bad) = arguments.iter().find(|argument| argument.contains('\n')) {
        bail!("the filter {bad:?} has a line end");
    }
    Ok(arguments.iter().map(|argument| format!("{argument}\n")).collect())
}

/// Copies a file, with directories; what a symbolic link leads to is copied under the link's name.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Shared libraries of an executable, the dynamic loader included. None for a static one.
fn libraries(executable: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(executable).output().context("cannot run ldd")?;
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines are `name => /path (0xaddress)`, or `/path (0xaddress)` for the loader; the vDSO has no path.
pub(crate) fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let path =
        |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

/// Packs all that is below `root`. Not compressed: unpacking is the slow part under emulation.
pub(crate) fn pack(root: &Path, archive: &Path) -> Result<()> {
    let file =
        fs::File::create(archive).with_context(|| format!("cannot make {}", archive.display()))?;
    let mut find = Command::new("find");
    find.current_dir(root).args([".", "-print0"]);
    let mut find = find.stdout(Stdio::piped()).spawn().context("cannot run find")?;
    let names = find.stdout.take().context("find has no output")?;
    let mut cpio = Command::new("cpio");
    cpio.current_dir(root).args([
        "--quiet",
        "--null",
        "--create",
        "--format=newc",
        "--owner=+0:+0",
    ]);
    let packed = process::run(cpio.stdin(names).stdout(file));
    let listed = find.wait().context("cannot wait for find")?;
    packed?;
    if !listed.success() {
        bail!("find failed: {listed}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_come_with_the_loader_and_without_the_vdso() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            parse_ldd(text),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }

    #[test]
    fn arguments_stay_one_a_line() {
        assert_eq!(lines(&["a b".into(), "--skip=x".into()]).unwrap(), "a b\n--skip=x\n");
        assert!(lines(&["a\nb".into()]).is_err());
    }
}
