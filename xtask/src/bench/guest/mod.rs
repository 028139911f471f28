//! The part `workload` once more, in a virtual machine whose kernel has kprobes and headers: what some peers need, and what the kernel here may lack.
//!
//! The machine is made of Debian's packages with all that they depend on, unpacked and never installed here, and of this program, which it runs there.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::bed::Bed;
use super::figure::{Figure, Part};
use super::peers;
use crate::process::{self, step};
use crate::stop::Interrupted;
use crate::vm;
use crate::vm::initramfs::{copy, empty, join, pack};
use crate::vm::kernels::{DEFAULT, Kernel};
use crate::vm::package::{self, Fetched};
use crate::vm::qemu::{Machine, Setup};
use crate::vm::suite::{self, Suite};

const INIT: &str = include_str!("init.sh");

const HOW: &str = "As the part before, with the peers that do not run on the kernel of this machine, in a virtual one with a kernel of Debian's, which has kprobes and the headers that bcc compiles \
    with. It runs under software emulation (QEMU), where every instruction is slow alike, and runs are few and short: shares are to be read, and only as far as \"nothing, again\" spreads less. Its two \
    processors take turns on one of this machine: what a program does beside the load is time that the load lacks. Nothing is promised of it.";

/// MiB: all files are in memory, those of the compilers among them.
const MEMORY: u32 = 4096;

/// How long it may run: compilers take their time under emulation.
const LIMIT: Duration = Duration::from_secs(2400);

/// What the machine says before and after the report.
const BEGINS: &str = "killwatch-vm: the report begins";
const ENDS: &str = "killwatch-vm: the report ends";

/// What of its report is of use here.
#[derive(Deserialize)]
struct Report {
    machine: Where,
    parts: Vec<Told>,
}

#[derive(Deserialize)]
struct Where {
    kernel: String,
}

#[derive(Deserialize)]
struct Told {
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// The part. A machine that cannot be had is as a peer that does not run: it is said, and is no error.
pub(super) fn measure(bed: &Bed<'_>) -> Result<Part> {
    let mut part = Part::new("guest", "What a workload feels, in a virtual machine", HOW);
    let peers = not_here(bed)?;
    if peers.is_empty() {
        part.note("Every peer runs on the kernel of this machine: there is nothing to add.");
        return Ok(part);
    }
    match boot(bed, &peers) {
        Ok((kernel, report)) => {
            part.note(format!("Linux {} ({kernel}).", report.machine.kernel));
            for told in report.parts {
                let figures = told.figures.into_iter();
                part.figures.extend(figures.map(|figure| figure.promised(None)));
                part.notes.extend(told.notes);
            }
        }
        Err(error) if error.is::<Interrupted>() => return Err(error),
        Err(error) => {
            eprintln!("warning: {error:#}");
            part.note(format!("**Not measured**: {}: {error:#}.", peers.join("; ")));
        }
    }
    Ok(part)
}

/// Has the machine measure these peers. Which kernel it has, and its report.
fn boot(bed: &Bed<'_>, peers: &[&str]) -> Result<(String, Report)> {
    vm::ensure_packages()?;
    let wanted = Kernel::find(DEFAULT).context("there is no such kernel")?;
    let kernel = package::fetch(bed.ctx, wanted)?;
    let dir = bed.ctx.target.join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let place = tempfile::tempdir_in(&dir).context("cannot make a directory")?;
    let (archive, log) = (place.path().join("cpio"), dir.join("bench.log"));
    let trees = [peers_tree(bed)?, headers(bed, wanted, &kernel)?];
    step("pack the machine", || write(bed, &trees, peers, place.path(), &archive))?;
    let mut machine = Machine::start(&Setup {
        kernel: &kernel.image,
        initramfs: &archive,
        swap: None,
        append: String::new(),
        memory: MEMORY,
        limit: LIMIT,
        log: &log,
        shown: false,
    })?;
    let ended = bed.stop.until("the machine is done", LIMIT, || machine.ended().transpose());
    ended.with_context(|| format!("its serial line is in {}", log.display()))?;
    let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let report = parse(&String::from_utf8_lossy(&text))
        .with_context(|| format!("{} has no report", log.display()))?;
    let measured = report.parts.iter().any(|part| !part.figures.is_empty());
    ensure!(measured, "nothing was measured there: {} says why", log.display());
    Ok((kernel.origin, report))
}

/// The peers that do not run on this machine's kernel.
fn not_here(bed: &Bed<'_>) -> Result<Vec<&'static str>> {
    peers::ensure();
    let logs = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
    let mut names = Vec::new();
    for peer in bed.peers() {
        match peer.start(bed, &logs.path().join("peer.log")) {
            Ok(running) => drop(running),
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                eprintln!("    {} does not run here: {error:#}", peer.name);
                names.push(peer.name);
            }
        }
    }
    Ok(names)
}

/// The report on the serial line, whose lines end in two characters.
fn parse(text: &str) -> Result<Report> {
    let (_, rest) = text.split_once(BEGINS).context("the bench did not come to its end there")?;
    let (json, _) = rest.split_once(ENDS).context("it ended within the report")?;
    serde_json::from_str(&json.replace('\r', "")).context("it is not the report of a bench")
}

/// Writes what the machine is made of as `archive`: these trees, and ours behind them, staged in `place`.
fn write(
    bed: &Bed<'_>,
    trees: &[PathBuf],
    peers: &[&str],
    place: &Path,
    archive: &Path,
) -> Result<()> {
    let root = place.join("root");
    for name in ["bin", "dev", "proc", "sys", "run", "tmp", "root", "killwatch"] {
        let dir = root.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let busybox = process::find("busybox").context("busybox is not installed")?;
    let own = env::current_exe().context("cannot tell where this program is")?;
    for (file, name) in [
        (&busybox, "bin/busybox"),
        (&own, "killwatch/xtask"),
        (&bed.daemon, "killwatch/killwatch"),
        (&bed.victim, "killwatch/victim"),
        (&bed.object, "killwatch/object"),
    ] {
        copy(file, &root.join(name))?;
    }
    // Under emulation a short run takes minutes.
    let fixed = ["--only=workload".to_owned(), "--quick".to_owned()];
    let arguments = fixed.into_iter().chain(peers.iter().map(|peer| format!("--peer={peer}")));
    let arguments: String = arguments.map(|argument| argument + "\n").collect();
    fs::write(root.join("killwatch/arguments"), arguments).context("cannot write the arguments")?;
    let init = root.join("init");
    fs::write(&init, INIT).context("cannot write init")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
        .context("cannot make init executable")?;
    let mut parts = Vec::new();
    for (number, tree) in trees.iter().chain([&root]).enumerate() {
        let part = place.join(format!("{number}.cpio"));
        pack(tree, &part)?;
        parts.push(part);
    }
    join(&parts.iter().map(PathBuf::as_path).collect::<Vec<_>>(), archive)
}

/// The peers with all that they depend on, from the cache if they are there. They are of this machine's release, for whose libraries this program was built.
fn peers_tree(bed: &Bed<'_>) -> Result<PathBuf> {
    let release = suite::codename()?;
    cached(bed, &format!("{release}-{}", peers::PACKAGES.join("-")), |tree| {
        Suite::open(bed.ctx, &release)?.unpack_closure(peers::PACKAGES, tree)
    })
}

/// The headers of that kernel, from where it came from.
fn headers(bed: &Bed<'_>, wanted: &Kernel, kernel: &Fetched) -> Result<PathBuf> {
    let image = kernel.origin.split(' ').next().unwrap_or_default();
    let version = image.strip_prefix("linux-image-").context("it has no version")?;
    // Those of all flavours are in a package of their own.
    let (revision, _) = version.split_once("-cloud").context("it is of another flavour")?;
    let packages = [format!("linux-headers-{version}"), format!("linux-headers-{revision}-common")];
    cached(bed, &format!("linux-headers-{version}"), |tree| {
        for package in &packages {
            let mut suites = wanted.sources.iter().flat_map(|source| source.suites);
            let found = suites.find_map(|name| {
                let suite = Suite::open(bed.ctx, name).ok()?;
                suite.names(package).ok()?.contains(package).then_some(suite)
            });
            found
                .with_context(|| format!("there is no package {package}"))?
                .unpack(package, tree)?;
        }
        Ok(())
    })
}

/// A tree of the cache, filled if it is not there.
fn cached(bed: &Bed<'_>, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = bed.ctx.cache.join("guest");
    let (tree, new) = (dir.join(name), dir.join(format!("{name}.new")));
    let _lock = bed.ctx.lock_cache()?;
    if !tree.is_dir() {
        empty(&new)?;
        step(&format!("fetch {name} for the machine"), || fill(&new))?;
        fs::rename(&new, &tree).context("cannot put it in place")?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_found_among_what_the_machine_says() {
        let json = r#"{"machine":{"kernel":"6.1"},"quick":true,"parts":[{"key":"workload","figures":[{"name":"a",
            "spread":{"kind":"runs","median":1.0,"min":0.5,"max":2.0,"n":3},"unit":"a second"}],"notes":["n"]}]}"#;
        let json = json.replace('\n', "\r\n");
        let text = format!("noise\r\n{BEGINS}\r\n{json}\r\n{ENDS}, status 0\r\n");
        let report = parse(&text).unwrap();
        assert_eq!(report.machine.kernel, "6.1");
        assert_eq!(report.parts[0].figures[0].spread.middle(), 1.0);
        assert!(parse("noise").is_err() && parse(&format!("{BEGINS}\r\n{{")).is_err());
        assert!(INIT.contains(BEGINS) && INIT.contains(ENDS));
    }
}
