//! The daemon where BPF cannot be had: what it still tells, and that it says what it does not.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{self, Daemon, Launch};
use killwatch_tests::metrics::sample;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::since_boot;
use killwatch_tests::wait::{scaled, wait_until};
use serde_json::{Value, json};

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(without_the_capabilities_the_kernel_log_tells),
    play!(with_the_capabilities_the_log_tells_if_asked),
    play!(who_insists_on_bpf_is_told_why_not).needs(&[Need::NoVm]),
    play!(doctor_names_what_is_lacking).needs(&[Need::NoVm]),
    play!(the_kernel_side_needs_what_the_documents_say_and_no_more),
];

/// docs/install.md, "Capabilities": what BPF needs, what it needs before Linux 5.11, and what the kernel log needs, which stands in for it.
const FOR_BPF: [&str; 2] = ["BPF", "PERFMON"];
const FOR_LOCKED_MEMORY: &str = "SYS_RESOURCE";
const FOR_THE_LOG: &str = "SYSLOG";

/// How many kills may have the kernel leave out its lines, since other scenarios kill at the same time.
const TRIES: usize = 20;

fn without_the_capabilities_the_kernel_log_tells(stage: &mut Stage) -> Result<()> {
    let daemon = Daemon::start_as(Launch { wrapper: incapable(stage), flags: vec![] })?;
    is_degraded(&daemon, "BPF cannot be used")?;
    tells_a_kill(stage, &daemon)
}

fn with_the_capabilities_the_log_tells_if_asked(stage: &mut Stage) -> Result<()> {
    let flags = ["--probe.source", "kmsg"].map(Into::into).to_vec();
    let mut daemon = Daemon::start_as(Launch { wrapper: vec![], flags })?;
    is_degraded(&daemon, "probe.source is kmsg")?;
    tells_a_kill(stage, &daemon)?;
    let ended = daemon.stop()?;
    ensure!(ended.code() == Some(0), "the daemon was to end well, but: {ended}");
    Ok(())
}

fn who_insists_on_bpf_is_told_why_not(stage: &mut Stage) -> Result<()> {
    let output = run(
        stage,
        &[
            "run",
            "--probe.source",
            "bpf",
            "--state.path",
            "none",
            "--log-sink",
            "none",
            "--web.listen-address",
            "127.0.0.1:0",
        ],
    )?;
    ensure!(output.0 == Some(1) && output.1.contains("BPF cannot be used"), "{output:?}");
    Ok(())
}

fn doctor_names_what_is_lacking(stage: &mut Stage) -> Result<()> {
    let (code, said) = run(stage, &["doctor"])?;
    let lines = [
        "FAILS  this process has neither CAP_BPF with CAP_PERFMON nor CAP_SYS_ADMIN",
        "FAILS  the kernel side cannot be loaded",
        "ok     /dev/kmsg can be read",
        "the daemon runs degraded",
    ];
    for line in lines {
        ensure!(said.contains(line), "{line:?} is not in:\n{said}");
    }
    ensure!(code == Some(1), "{code:?}");
    Ok(())
}

fn the_kernel_side_needs_what_the_documents_say_and_no_more(stage: &mut Stage) -> Result<()> {
    let mut needed = FOR_BPF.to_vec();
    if counts_locked_memory()? {
        needed.push(FOR_LOCKED_MEMORY);
    }
    let degraded = |kept: &[&str]| -> Result<Option<String>> {
        let kept = [kept, &[FOR_THE_LOG]].concat().join(",").into();
        let wrapper = vec![stage.victim().into(), "bounded".into(), kept, "--".into()];
        let daemon = Daemon::start_as(Launch { wrapper, flags: vec![] })?;
        Ok(daemon.json("/api/v1/status")?.get("degraded").map(Value::to_string))
    };
    let why = degraded(&needed)?;
    ensure!(why.is_none(), "with {needed:?} it is degraded: {why:?}");
    for left_out in &needed {
        let kept: Vec<_> = needed.iter().copied().filter(|name| name != left_out).collect();
        let why = degraded(&kept)?;
        let no_bpf = why.as_ref().is_some_and(|why| why.contains("BPF cannot be used"));
        ensure!(no_bpf, "without {left_out} it is degraded by: {why:?}");
    }
    Ok(())
}

/// Before Linux 5.11 the memory of BPF maps counts as locked.
fn counts_locked_memory() -> Result<bool> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor) < (5, 11)),
        _ => anyhow::bail!("what kernel is {release}?"),
    }
}

fn incapable(stage: &Stage) -> Vec<std::ffi::OsString> {
    vec![stage.victim().into(), "incapable".into(), "--".into()]
}

/// Runs the daemon's program without the capabilities: exit code and what it said.
fn run(stage: &Stage, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(stage.victim())
        .args(["incapable", "--"])
        .arg(daemon::binary())
        .args(arguments)
        .env("KILLWATCH_PROBE_PIN", "none")
        .output()
        .context("run the daemon's program")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn is_degraded(daemon: &Daemon, why: &str) -> Result<()> {
    let (code, body) = daemon.get("/-/ready")?;
    ensure!(code == 200 && body.contains("degraded") && body.contains(why), "{code}: {body}");
    let page = daemon.metrics()?;
    for (metric, wanted) in [("killwatch_degraded", 1.0), ("killwatch_ready", 1.0)] {
        ensure!(sample(&page, metric, &[])? == Some(wanted), "{metric} is not {wanted}");
    }
    let status = daemon.json("/api/v1/status")?;
    ensure!(status["source"] == "kmsg" && status["ready"] == true, "{status:#}");
    let reasons = status["degraded"].as_array().context("no reasons")?;
    ensure!(reasons.iter().any(|r| r.as_str().is_some_and(|r| r.contains(why))), "{reasons:?}");
    let probes = status["probes"].as_array().context("no probes")?;
    let lines = probes.iter().all(|probe| probe["state"] == "failed" && probe["why"].is_string());
    ensure!(!probes.is_empty() && lines, "{probes:#?}");
    Ok(())
}

/// A kill with all its lines, and the whole record of it.
fn tells_a_kill(stage: &Stage, daemon: &Daemon) -> Result<()> {
    let group = stage.tree.limited(&format!("worker-{}", daemon.pid()), LIMIT)?;
    for _ in 0..TRIES {
        let before = since_boot();
        let (mut hog, truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
        hog.go()?;
        hog.reap_killed_by(9)?;
        let record = daemon.death_of(&truth)?;
        if record["confidence"] == "inferred" {
            // The kernel left out the line of the decision: then it is said, and the next kill may have it.
            ensure!(record["inferred"].is_array(), "{record:#}");
            continue;
        }
        let size = |size: &Value| size.as_u64().is_some_and(|size| size <= LIMIT * 2);
        let after = since_boot() + scaled(Duration::from_millis(100));
        let then = move |ns: &Value| {
            let at = ns.as_u64().map(Duration::from_nanos);
            // The log's clock is not kept in step with the others.
            at.is_some_and(|at| before.saturating_sub(Duration::from_secs(60)) <= at && at <= after)
        };
        let lacks = [
            "victim.status",
            "victim.start_time",
            "victim.ppid",
            "victim.cmdline",
            "victim.environ",
            "memory.levels",
            "killer.trigger",
        ];
        let (path, id) = (truth.cgroup.clone(), truth.cgroup_id);
        return Expected::new()
            .like("/id", "a text", Value::is_string)
            .is("/schema", 2)
            .like("/boot_id", "a text", Value::is_string)
            .is("/node", daemon.node())
            .is("/state", "dead")
            .is("/cause", "oom_memcg")
            .is("/confidence", "certain")
            .like("/time", "a text", Value::is_string)
            .like("/ktime_ns", "about now", then)
            .is("/victim/pid", truth.pid)
            .is("/victim/tgid", truth.pid)
            .is("/victim/tid", truth.pid)
            .is("/victim/comm", truth.comm.clone())
            .is("/victim/uid", truth.uid)
            .is("/victim/oom_score_adj", truth.oom_score_adj)
            .is("/killer", json!({"kind": "kernel", "via": "kernel"}))
            .is("/oom/group", false)
            .is("/oom/constraint", "memcg")
            .like("/oom/incident_ktime_ns", "about now", then)
            .like("/evidence", "three facts", |facts| {
                facts.as_array().is_some_and(|f| f.len() == 3)
            })
            .with_story(truth.pid)
            .like("/memory/anon_bytes", "nearly the limit", move |size| {
                size.as_u64().is_some_and(|size| size > LIMIT / 2 && size < LIMIT * 2)
            })
            .like("/memory/file_bytes", "a size", size)
            .like("/memory/shmem_bytes", "a size", size)
            .like("/memory/page_tables_bytes", "a size", size)
            .like("/memory/usage_bytes", "the limit, nearly", |size| {
                size.as_u64().is_some_and(|size| size > LIMIT - (1 << 20) && size <= LIMIT)
            })
            .is("/memory/limit_bytes", LIMIT)
            .is("/memory/limit_cgroup", path.clone())
            .is("/workload/cgroup", path)
            .is("/workload/cgroup_id", id)
            .like("/advice", "names the limit", |advice| {
                advice.as_str().is_some_and(|advice| advice.contains("32.0 MiB"))
            })
            .like("/missing", "what the log cannot tell", move |missing| {
                // What this kernel does not tell of a cgroup is no matter of the log.
                let of_log = |lack: &&Value| lack["field"] != "memory.cgroup";
                let fields = missing.as_array().into_iter().flatten().filter(of_log);
                fields.map(|lack| &lack["field"]).collect::<Vec<_>>() == lacks
            })
            .compare(&record);
    }
    wait_until(Duration::ZERO, "a kill whose lines the kernel wrote all", || Ok(None))
}
