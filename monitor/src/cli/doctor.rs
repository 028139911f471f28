//! `killwatch doctor`: what this host supports, what is therefore missing, and the remedy.
//!
//! Facts come from [`crate::host`]; the decisions are here, and pure. What attaches is found out by attaching it, for a moment.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use caps::Capability;

use crate::cgroup::mounts::{Mode, Mounts};
use crate::config::{AbsolutePath, CgroupRoot, RingBytes};
use crate::host::{Facts, Roots};
use crate::kmsg::{self, reader::Log};
use crate::probe::load::{self, Options};
use crate::probe::pins::PinPath;
use crate::probe::pins::dir::{self, Look};
use crate::probe::{ProbeReport, ProbeState, layout};
use crate::text::one_line;

/// Arguments of `killwatch doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the cgroup hierarchies are mounted [default: /sys/fs/cgroup]
    #[arg(long = "cgroup.root", value_name = "PATH", env = "KILLWATCH_CGROUP_ROOT")]
    cgroup_root: Option<AbsolutePath>,

    /// Directory in which the kernel side is to be pinned, or `none`
    #[arg(long = "probe.pin", value_name = "PATH", default_value_t, env = "KILLWATCH_PROBE_PIN")]
    pin: PinPath,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Something is missing from the records; deaths are seen.
    Lacks,
    /// Not all deaths are seen, or none: the daemon runs degraded, if at all.
    Fails,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    pub(crate) what: String,
    pub(crate) remedy: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what: what.into(), remedy: None }
    }

    pub(crate) fn lacks(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Lacks, what: what.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) fn fails(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fails, what: what.into(), remedy: Some(remedy.into()) }
    }
}

pub(super) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let root = args.cgroup_root.clone().map(CgroupRoot).unwrap_or_default();
    let facts = Facts::gather(&Roots::default());
    let mounts =
        Mounts::detect(Path::new("/proc"), Some(&root.0)).map_err(|error| error.to_string());
    let memory_hierarchy = mounts.as_ref().map_or(0, |mounts| mounts.memory.id);
    let probes = try_probes(memory_hierarchy);
    let mut findings = host(&facts);
    findings.push(cgroups(mounts.as_ref()));
    findings.extend(kernel_side(&probes));
    findings.push(pins(&args.pin));
    findings.push(kernel_log(&mounts));
    super::print(&report(&facts, &findings))?;
    let works = findings.iter().all(|finding| finding.verdict != Verdict::Fails);
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a load of the kernel side showed.
#[derive(Debug)]
struct Tried {
    reports: Vec<ProbeReport>,
    absent: Vec<&'static str>,
}

/// Loads and attaches everything, and lets go of it.
fn try_probes(memory_hierarchy: u32) -> Result<Tried, String> {
    let options = Options {
        ring_bytes: RingBytes::default().get(),
        memory_hierarchy,
        log: None,
        empty_programs: false,
    };
    let configured = load::configure(&options).map_err(|error| error.to_string())?;
    let (mut kernel, _parts) =
        load::load(&options, &configured, None).map_err(|error| error.to_string())?;
    let (reports, _) = kernel.attach(None);
    Ok(Tried { reports, absent: layout::absent(&kernel.config) })
}

/// What the host itself says, before anything is tried: for the daemon, which knows the rest from its own start.
pub(crate) fn of_host(facts: &Facts, mounts: &Mounts) -> Vec<Finding> {
    let mut findings = host(facts);
    findings.push(cgroups(Ok(mounts)));
    findings
}

fn host(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![match facts.version() {
        Some(version) if version < (5, 10) => Finding::fails(
            format!("kernel {} is older than 5.10", facts.kernel),
            "run a kernel of 5.10 or later: the ring and the typed tracepoints came with 5.8 to 5.10",
        ),
        _ => Finding::ok(format!("kernel {}", facts.kernel)),
    }];
    findings.push(match &facts.btf {
        Ok(bytes) => {
            Finding::ok(format!("the kernel describes its types ({} KiB of BTF)", bytes / 1024))
        }
        Err(why) => Finding::fails(
            format!("the kernel does not describe its types: /sys/kernel/btf/vmlinux: {why}"),
            "run a kernel built with CONFIG_DEBUG_INFO_BTF=y; every current distribution has one",
        ),
    });
    findings.push(capabilities(facts));
    if facts.numa_balancing {
        findings.push(Finding::lacks(
            "NUMA balancing is on: of a process that has not looked at its command line and environment for a second or so, BPF can mostly not read them, and a \
             job that is told by a variable alone is not known",
            "echo 0 > /proc/sys/kernel/numa_balancing (sysctl kernel.numa_balancing=0), or have jobs told by path, label or tag (docs/jobs.md)",
        ));
    }
    if facts.lockdown.as_deref() == Some("confidentiality") {
        findings.push(Finding::fails(
            "the kernel is locked down (confidentiality): programs may not read kernel memory",
            "boot with lockdown=integrity or without it",
        ));
    }
    findings
}

fn capabilities(facts: &Facts) -> Finding {
    let fine_grained = facts.has(Capability::CAP_BPF) && facts.has(Capability::CAP_PERFMON);
    if !fine_grained && !facts.has(Capability::CAP_SYS_ADMIN) {
        return Finding::fails(
            "this process has neither CAP_BPF with CAP_PERFMON nor CAP_SYS_ADMIN",
            "run as root, or give it the capabilities BPF and PERFMON",
        );
    }
    // Before 5.11, maps were charged to the locked-memory limit.
    let old = facts.version().is_some_and(|version| version < (5, 11));
    if old && !facts.has(Capability::CAP_SYS_RESOURCE) {
        return Finding::lacks(
            "without CAP_SYS_RESOURCE this kernel may not give the maps their memory",
            "add the capability SYS_RESOURCE, or raise the locked-memory limit (ulimit -l unlimited)",
        );
    }
    Finding::ok("the capabilities to load and attach programs are there")
}

fn cgroups(mounts: Result<&Mounts, &String>) -> Finding {
    match mounts {
        Ok(mounts) => {
            let root = mounts.memory.root.display();
            let how = match mounts.mode {
                Mode::V2 => "cgroup v2",
                Mode::V1 => "cgroup v1",
                Mode::Hybrid => "cgroup v1, beside a v2 hierarchy without it",
            };
            let what = format!("memory is accounted by {how}, at {root}");
            match mounts.memory.is_whole() {
                Ok(false) => Finding::lacks(
                    format!("{what}, of which only a part is visible here"),
                    "run in the host's cgroup namespace, or name its mount with --cgroup.root",
                ),
                _ => Finding::ok(what),
            }
        }
        Err(why) => Finding::fails(
            why.clone(),
            "mount the cgroup file systems, or name them with --cgroup.root",
        ),
    }
}

fn kernel_side(tried: &Result<Tried, String>) -> Vec<Finding> {
    let tried = match tried {
        Ok(tried) => tried,
        Err(why) => {
            return vec![Finding::fails(
                format!("the kernel side cannot be loaded: {why}"),
                "see the findings above; the cause is one of them, or a security policy that forbids bpf(2)",
            )];
        }
    };
    let mut findings: Vec<_> = tried.reports.iter().map(probe).collect();
    if !tried.absent.is_empty() {
        findings.push(Finding::lacks(
            format!("this kernel lacks the fields {}", tried.absent.join(", ")),
            "none is needed: the records say what they miss",
        ));
    }
    findings
}

/// Whether the kernel side can outlive the daemon, and whether it does.
fn pins(pin: &PinPath) -> Finding {
    let Some(path) = pin.directory() else {
        return Finding::ok("probe.pin is none: the kernel side ends with the daemon");
    };
    let shown = path.display();
    match dir::look(&path) {
        Ok(Look::Free) => Finding::ok(format!(
            "the kernel side can be pinned in {shown}: what happens while no daemon runs is told later"
        )),
        Ok(Look::Taken) => Finding::ok(format!("a daemon runs with what is pinned in {shown}")),
        Ok(Look::Left(sets)) => Finding::ok(format!(
            "no daemon runs with what is pinned in {shown} ({sets} set{}): it goes on, and the next daemon tells what it has seen",
            if sets == 1 { "" } else { "s" }
        )),
        Err(error) => Finding::lacks(
            format!("the kernel side cannot be pinned: {error}"),
            "optional: without it, what happens while no daemon runs is not told",
        ),
    }
}

/// What is left where BPF cannot be had.
fn kernel_log(mounts: &Result<Mounts, String>) -> Finding {
    let Ok(mounts) = mounts else {
        return Finding::lacks("the kernel log was not tried", "mend the cgroups first");
    };
    match Log::open(Path::new(kmsg::PATH), mounts.memory.root.clone(), mounts.memory.id) {
        Ok(_) => Finding::ok(format!(
            "{} can be read: without BPF, OOM kills would be told from it",
            kmsg::PATH
        )),
        Err(error) => Finding::lacks(
            format!("{} cannot be read: {error}; without BPF, no death would be told", kmsg::PATH),
            "run as root, with CAP_SYSLOG where kernel.dmesg_restrict is set; with BPF it is not needed",
        ),
    }
}

fn probe(report: &ProbeReport) -> Finding {
    let name = format!("{} ({})", report.hook, report.purpose);
    let why = report.why.as_deref().unwrap_or("no reason was given");
    match (report.state, report.required) {
        (ProbeState::Attached, _) => Finding::ok(name),
        (_, true) => Finding::fails(
            format!("{name}: {why}"),
            "without it deaths are not told right, and the daemon says that it is degraded; report this with the kernel's version",
        ),
        (_, false) => Finding::lacks(format!("{name}: {why}"), "optional: the daemon does without"),
    }
}

fn report(facts: &Facts, findings: &[Finding]) -> String {
    let mut text = format!(
        "killwatch {} on {} {}\n\n",
        env!("CARGO_PKG_VERSION"),
        facts.kernel,
        facts.machine
    );
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok   ",
            Verdict::Lacks => "lacks",
            Verdict::Fails => "FAILS",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark}  {}", one_line(&finding.what));
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "       → {}", one_line(remedy));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let outcome = match (count(Verdict::Fails), count(Verdict::Lacks)) {
        (0, 0) => "Everything is there.".to_owned(),
        (0, 1) => "Deaths can be told; one of the extras is missing.".to_owned(),
        (0, lacks) => format!("Deaths can be told; {lacks} of the extras are missing."),
        (fails, _) => format!(
            "Not all deaths can be told on this host as it is: {fails} to mend. Until then the daemon runs degraded, with what it has."
        ),
    };
    let _ = writeln!(text, "\n{outcome}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            kernel: "6.1.0-49-cloud-amd64".into(),
            machine: "x86_64".into(),
            boot_id: None,
            btf: Ok(5 << 20),
            lockdown: Some("none".into()),
            capabilities: vec![(Capability::CAP_SYS_ADMIN, true)],
            page_size: 4096,
            numa_balancing: false,
        }
    }

    fn failing(facts: &Facts) -> Vec<String> {
        let findings = host(facts).into_iter();
        findings
            .filter(|finding| finding.verdict == Verdict::Fails)
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn each_lack_is_named_with_a_remedy() {
        assert_eq!(failing(&facts()), Vec::<String>::new());
        let old = Facts { kernel: "5.4.0-42-generic".into(), ..facts() };
        assert!(failing(&old)[0].contains("older than 5.10"));
        let no_btf = Facts { btf: Err("No such file".into()), ..facts() };
        assert!(failing(&no_btf)[0].contains("/sys/kernel/btf/vmlinux"));
        let nobody = Facts { capabilities: Vec::new(), ..facts() };
        assert!(failing(&nobody)[0].contains("CAP_BPF"));
        let split = [Capability::CAP_BPF, Capability::CAP_PERFMON].map(|cap| (cap, true)).to_vec();
        assert_eq!(failing(&Facts { capabilities: split, ..facts() }), Vec::<String>::new());
        let balanced = host(&Facts { numa_balancing: true, ..facts() });
        assert!(balanced.iter().any(|f| f.verdict == Verdict::Lacks && f.what.contains("NUMA")));
        let locked = Facts { lockdown: Some("confidentiality".into()), ..facts() };
        assert!(failing(&locked)[0].contains("locked down"));
        assert!(host(&locked).iter().all(|f| f.verdict == Verdict::Ok || f.remedy.is_some()));
    }

    #[test]
    fn an_optional_probe_is_no_failure() {
        let report = |required, state| ProbeReport {
            name: "p".into(),
            hook: "fentry/p".into(),
            purpose: "says more".into(),
            required,
            state,
            why: Some("refused".into()),
        };
        assert_eq!(probe(&report(true, ProbeState::Attached)).verdict, Verdict::Ok);
        assert_eq!(probe(&report(false, ProbeState::Failed)).verdict, Verdict::Lacks);
        assert_eq!(probe(&report(true, ProbeState::Unsupported)).verdict, Verdict::Fails);
        let text = super::report(&facts(), &[probe(&report(false, ProbeState::Failed))]);
        assert!(text.contains("lacks  fentry/p (says more): refused"), "{text}");
    }
}
