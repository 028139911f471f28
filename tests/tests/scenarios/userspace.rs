//! Userspace OOM killers: by their names, by the marks that they leave, and the real ones, which run in a virtual machine.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use killwatch_tests::cgroup::{CEILING, Group, Hierarchy};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::{Daemon, Launch};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::sender::Sender;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::{Truth, name_of};
use killwatch_tests::wait::wait_until;
use rustix::fs::{XattrFlags, setxattr};

use crate::at_the_gate;

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(by_name_alone),
    play!(by_a_mark_that_takes_root).needs(&[Need::MemoryV2]),
    play!(by_a_mark_that_anybody_may_leave).needs(&[Need::MemoryV2]),
    play!(earlyoom_kills).needs(&[Need::Vm, Need::Variable(EARLYOOM, "earlyoom")]),
    play!(systemd_oomd_kills).needs(&[Need::Vm, Need::Variable(OOMD_CGROUP, "systemd-oomd")]),
];

const EARLYOOM: &str = "KILLWATCH_EARLYOOM";
const OOMD_CGROUP: &str = "KILLWATCH_OOMD_CGROUP";
const MIB: u64 = 1 << 20;

/// Anybody can take a name, so that is not certain.
fn by_name_alone(stage: &mut Stage) -> Result<()> {
    killed_by(stage, "earlyoom", None)
}

/// To read it takes a right that the daemon lets go of unless told otherwise.
fn by_a_mark_that_takes_root(stage: &mut Stage) -> Result<()> {
    let flags = ["--protect.keep", "CAP_SYS_ADMIN"].map(Into::into).to_vec();
    stage.daemon = Arc::new(Daemon::start_as(Launch { flags, ..Launch::default() })?);
    killed_by(stage, "oomd", Some("trusted.oomd_kill"))
}

/// Whoever owns a cgroup may write user attributes there.
fn by_a_mark_that_anybody_may_leave(stage: &mut Stage) -> Result<()> {
    killed_by(stage, "systemd-oomd", Some("user.oomd_kill"))
}

fn killed_by(stage: &Stage, name: &str, mark: Option<&str>) -> Result<()> {
    let group = stage.tree.make("worker")?;
    if let Some(mark) = mark {
        setxattr(group.dir(), mark, b"1", XattrFlags::empty()).context("mark the cgroup")?;
    }
    let (mut victim, truth) = at_the_gate(&stage.cast().within(&group).args(["sleep"]))?;
    let act = ["--gate", "named", name, "--", "send", &truth.pid.to_string(), "9"];
    let (mut killer, killer_truth) = at_the_gate(&stage.cast().args(act))?;
    killer.go()?;
    killer.reap_exited(0)?;
    victim.reap_killed_by(9)?;
    let expected = Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .sent_by("process", &Sender::from(&killer_truth))
        .is("/cause", "oom_userspace");
    let expected = match mark {
        Some(mark) => expected.is(&format!("/killer/marks/{mark}"), "1"),
        None => expected,
    };
    let proven = mark.is_some_and(|mark| mark.starts_with("trusted."));
    let expected = if proven { expected } else { expected.inferred() };
    stage.holds(&truth, &expected).map(drop)
}

/// earlyoom looks at the memory of the whole machine: it is told to act a little below what is free now.
fn earlyoom_kills(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.limited("worker", CEILING)?;
    let hog = ["--oom-score-adj", "1000", "--gate", "hog", "--limit-mib", "200", "--hold"];
    let (mut victim, truth) = at_the_gate(&stage.cast().within(&group).args(hog))?;
    let least_kib = available_kib()?.saturating_sub(100 << 10).to_string();
    let program = std::env::var_os(EARLYOOM).context("no earlyoom")?;
    let mut command = Command::new(program);
    // One threshold for SIGTERM and SIGKILL, and all of the swap may be free.
    command.args(["-r", "0", "-M", &format!("{least_kib},{least_kib}"), "-s", "100,100"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let earlyoom = Killer(command.spawn().context("start earlyoom")?);
    let killer = named(earlyoom.0.id(), "earlyoom")?;
    victim.go()?;
    victim.reap_killed_by(9)?;
    let expected = killed_under_pressure(stage, &truth, &killer).inferred();
    // It has the kernel take the victim's memory at once (process_mrelease), which may be before the victim runs again.
    stage.holds(&truth, &expected.wordless(&truth)).map(drop)
}

/// systemd-oomd kills a cgroup of a slice that is told to be watched, and is held up by its `memory.high`.
fn systemd_oomd_kills(stage: &mut Stage) -> Result<()> {
    let hierarchy = Hierarchy::find()?;
    let watched = PathBuf::from(std::env::var_os(OOMD_CGROUP).context("no cgroup")?);
    let below = watched.strip_prefix(&hierarchy.root).context("not in the hierarchy of memory")?;
    let watched = Group::at(&hierarchy, below.to_str().context("not UTF-8")?);
    watched.write("cgroup.subtree_control", "+memory")?;
    let group = watched.child("worker");
    fs::create_dir(group.dir()).context("make a cgroup")?;
    let oomd =
        wait_until(Duration::from_secs(5), "systemd-oomd", || process_named("systemd-oomd"))?;
    let killer = named(oomd, "systemd-oomd")?;
    let hog = ["--gate", "hog", "--limit-mib", "150", "--hold"];
    let (mut victim, truth) = at_the_gate(&stage.cast().within(&group).args(hog))?;
    victim.go()?;
    victim.reap_killed_by(9)?;
    // What it has done it notes on the cgroup: that it acts before, how many it killed after.
    let count = |count: &serde_json::Value| count == "1";
    let expected = killed_under_pressure(stage, &truth, &killer)
        .maybe_like("/killer/marks/user.oomd_ooms", "one time", count)
        .maybe_like("/killer/marks/user.oomd_kill", "one process", count);
    let held = stage.holds(&truth, &expected);
    group.remove()?;
    held.map(drop)
}

fn killed_under_pressure(stage: &Stage, truth: &Truth, killer: &Sender) -> Expected {
    Expected::death(truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .sent_by("process", killer)
        .is("/cause", "oom_userspace")
        .like("/memory/anon_bytes", "some of what it wanted", |size| {
            size.as_u64().is_some_and(|size| (8 * MIB..256 * MIB).contains(&size))
        })
}

/// A process that is ended with its scenario.
struct Killer(Child);

impl Drop for Killer {
    fn drop(&mut self) {
        // Either it runs, or it has ended: nothing else can go wrong.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who that process is, once it has its name.
fn named(pid: u32, name: &str) -> Result<Sender> {
    wait_until(Duration::from_secs(5), &format!("{pid} to be {name}"), || {
        Ok((name_of(pid)? == name).then_some(()))
    })?;
    Ok(Sender::from(&Truth::of(pid)?))
}

/// The first process of that name.
fn process_named(name: &str) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc").context("list processes")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
        // It may be gone by now.
        if name_of(pid).is_ok_and(|other| other == name) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

fn available_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.context("no MemAvailable")?.trim().trim_end_matches(" kB");
    number.parse().with_context(|| format!("MemAvailable says {number:?}"))
}
