//! The daemon itself: its start, its company, its end.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::Group;
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::{scaled, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{LIMIT, at_the_gate};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(all_probes_are_attached),
    play!(a_second_daemon_sees_the_same),
    play!(sigterm_drains_and_ends_well).own_daemon(),
    play!(a_restart_starts_clean).own_daemon().needs(&[Need::NoVm]),
    play!(deaths_while_it_is_stopped).own_daemon(),
    play!(the_service_manager_is_told).needs(&[Need::NoVm]),
    play!(its_start_stays_below_the_bound_of_its_memory).own_daemon().needs(&[Need::NoVm]),
];

/// docs/SPECIFICATION.md, "Memory".
const RESIDENT_KIB: u64 = 32 << 10;

fn all_probes_are_attached(stage: &mut Stage) -> Result<()> {
    probes_are_attached(&stage.daemon)?;
    ensure!(stage.daemon.get("/-/healthy")?.0 == 200);
    ensure!(stage.daemon.metrics()?.ends_with("# EOF\n"), "the metrics page has no end");
    Ok(())
}

/// Two daemons on one host do not disturb each other: both tell each death.
fn a_second_daemon_sees_the_same(stage: &mut Stage) -> Result<()> {
    let mut second = Daemon::start()?;
    let truth = aborts(stage)?;
    for daemon in [&stage.daemon, &second] {
        aborted(&truth, daemon).compare(&daemon.death_of(&truth)?)?;
    }
    ensure!(second.stop()?.code() == Some(0));
    let truth = aborts(stage)?;
    aborted(&truth, &stage.daemon).compare(&stage.daemon.death_of(&truth)?)
}

/// The types of the kernel are read at the start, and are many.
fn its_start_stays_below_the_bound_of_its_memory(stage: &mut Stage) -> Result<()> {
    let truth = aborts(stage)?;
    aborted(&truth, &stage.daemon).compare(&stage.daemon.death_of(&truth)?)?;
    let file = format!("/proc/{}/status", stage.daemon.pid());
    let status = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    let peak: u64 = peak.with_context(|| format!("no peak in {file}"))?.parse()?;
    ensure!(
        peak < RESIDENT_KIB,
        "{peak} KiB were resident at the height, the bound is {RESIDENT_KIB}"
    );
    Ok(())
}

/// A death just before the end is not lost.
fn sigterm_drains_and_ends_well(stage: &mut Stage) -> Result<()> {
    let truth = aborts(stage)?;
    let status = stage.own()?.stop()?;
    ensure!(status.code() == Some(0), "the daemon was to end well, but: {status}");
    ensure!(stage.daemon.get("/-/ready").is_err(), "somebody still answers");
    aborted(&truth, &stage.daemon).compare(&stage.daemon.sunk_death_of(&truth)?)?;
    ensure!(stage.daemon.sink_text()?.ends_with('\n'), "the log sink breaks off");
    Ok(())
}

fn a_restart_starts_clean(stage: &mut Stage) -> Result<()> {
    let before = aborts(stage)?;
    aborted(&before, &stage.daemon).compare(&stage.daemon.death_of(&before)?)?;
    stage.own()?.restart()?;
    probes_are_attached(&stage.daemon)?;
    let after = aborts(stage)?;
    aborted(&after, &stage.daemon).compare(&stage.daemon.death_of(&after)?)?;
    // Told once each, by one daemon or the other.
    stage.daemon.sunk_death_of(&after)?;
    stage.daemon.sunk_death_of(&before)?;
    Ok(())
}

/// What the kernel's side saw waits for it.
fn deaths_while_it_is_stopped(stage: &mut Stage) -> Result<()> {
    const STOPPED: Duration = Duration::from_secs(5);
    signal(stage.daemon.pid(), Signal::STOP)?;
    let began = Instant::now();
    let group = stage.tree.limited("worker", LIMIT)?;
    let (mut hog, hog_truth) = at_the_gate(&stage.cast().within(&group).args(["--gate", "hog"]))?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    let truth = aborts_in(stage, &group)?;
    wait_until(2 * STOPPED, "5 s to pass", || Ok((began.elapsed() >= STOPPED).then_some(())))?;
    signal(stage.daemon.pid(), Signal::CONT)?;
    let expected = Expected::death(&hog_truth, stage.daemon.node())
        .oom(&hog_truth, &group, LIMIT)
        .looked_at_late(2 * STOPPED);
    stage.holds(&hog_truth, &expected)?;
    stage.holds(&truth, &aborted(&truth, &stage.daemon)).map(drop)
}

/// As systemd does: a socket to be told by, and how long its watchdog waits.
fn the_service_manager_is_told(_: &mut Stage) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("killwatch-test-").tempdir()?;
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).context("bind a socket")?;
    socket.set_read_timeout(Some(scaled(Duration::from_secs(10))))?;
    let mut buffer = [0; 256];
    let mut hear = || -> Result<String> {
        let length = socket.recv(&mut buffer).context("the daemon says nothing")?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let script = format!(
        "NOTIFY_SOCKET={} WATCHDOG_PID=$$ WATCHDOG_USEC=2000000 exec \"$@\"",
        path.display()
    );
    let wrapper = vec!["sh".into(), "-c".into(), script.into(), "sh".into()];
    let mut daemon = Daemon::start_as(Launch { wrapper, flags: vec![] })?;
    for word in ["READY=1\n", "WATCHDOG=1\n", "WATCHDOG=1\n", "WATCHDOG=1\n"] {
        let said = hear()?;
        ensure!(said == word, "{said:?} and not {word:?}");
    }
    ensure!(daemon.stop()?.success());
    while hear()? != "STOPPING=1\n" {}
    Ok(())
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a pid")?;
    kill_process(pid, signal).context("signal the daemon")
}

/// Every probe that is required is attached, and none failed where the kernel could have had it.
fn probes_are_attached(daemon: &Daemon) -> Result<()> {
    let status = daemon.json("/api/v1/status")?;
    let probes =
        status.get("probes").and_then(Value::as_array).context("a status without `probes`")?;
    let is = |probe: &Value, state: &str| probe.get("state").is_some_and(|found| found == state);
    let told = |probe: &Value, key: &str| {
        probe.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
    };
    let wrong: Vec<_> = probes
        .iter()
        .filter(|probe| {
            let required = probe.get("required").is_none_or(|required| required != false);
            let in_order = is(probe, "attached")
                || !required && is(probe, "unsupported") && told(probe, "why");
            !(in_order && told(probe, "name") && told(probe, "hook") && told(probe, "purpose"))
        })
        .collect();
    ensure!(
        !probes.is_empty() && wrong.is_empty(),
        "probes that are not in order: {wrong:#?} of {probes:#?}"
    );
    for required in ["mark_victim", "sched_process_exit", "signal_generate", "signal_deliver"] {
        let attached =
            probes.iter().any(|probe| probe["name"] == required && is(probe, "attached"));
        ensure!(attached, "{required} is not among the attached: {probes:#?}");
    }
    Ok(())
}

fn aborts(stage: &Stage) -> Result<Truth> {
    aborts_in(stage, stage.tree.top())
}

fn aborts_in(stage: &Stage, group: &Group) -> Result<Truth> {
    let (mut victim, truth) = at_the_gate(&stage.cast().within(group).args(["--gate", "abort"]))?;
    victim.go()?;
    victim.reap_killed_by(6)?;
    Ok(truth)
}

fn aborted(truth: &Truth, daemon: &Daemon) -> Expected {
    Expected::death(truth, daemon.node()).signal(6, "SIGABRT").by_itself("abort", "tgkill", truth)
}
