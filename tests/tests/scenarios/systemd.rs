//! Units of a real systemd, in a virtual machine whose first process it is.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::{Group, Hierarchy};
use killwatch_tests::corpus::{Need, Scenario, find_program};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::victim::Casting;
use killwatch_tests::wait::wait_until;
use serde_json::Value;

use crate::{LIMIT, at_the_gate, number};

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(a_scope_is_told_by_its_name).needs(SYSTEMD),
    play!(a_service_is_told_by_its_name).needs(SYSTEMD),
];

const SYSTEMD: &[Need] = &[
    Need::Vm,
    Need::Variable("KILLWATCH_SYSTEMD", "systemd as the first process"),
    Need::Program(RUN),
];

const RUN: &str = "systemd-run";

/// `systemd-run --scope` becomes the command, so that it is a child of ours.
fn a_scope_is_told_by_its_name(stage: &mut Stage) -> Result<()> {
    let unit = "killwatch-tests-scope.scope";
    let program = find_program(RUN).context("no systemd-run")?;
    let casting = Casting::new(program).on_our_own_host()?.args(["--scope"]).args(options(unit));
    let casting = casting.args(["--"]).args([stage.victim()]).args(["--gate", "hog"]);
    let (mut hog, truth) = at_the_gate(&casting)?;
    let scope = limited(&truth, unit)?;
    hog.go()?;
    hog.reap_killed_by(9)?;
    stage.holds(&truth, &killed_in(stage, &truth, unit, &scope)).map(drop)
}

/// systemd is the parent here. The victim talks by way of files.
fn a_service_is_told_by_its_name(stage: &mut Stage) -> Result<()> {
    let unit = "killwatch-tests.service";
    let (leave, words) = (Path::new("/run/killwatch-leave"), Path::new("/run/killwatch-words"));
    let made = Command::new("mkfifo").arg(leave).status().context("start mkfifo")?;
    ensure!(made.success(), "mkfifo: {made}");
    // Open for both, so that neither this nor systemd waits for the other.
    let mut gate = File::options().read(true).write(true).open(leave).context("open the gate")?;
    let output = Command::new(RUN)
        .args(options(unit))
        .arg(format!("--property=StandardInput=file:{}", leave.display()))
        .arg(format!("--property=StandardOutput=file:{}", words.display()))
        .arg("--")
        .arg(stage.victim())
        .args(["--gate", "hog"])
        .output()
        .context("start systemd-run")?;
    ensure!(output.status.success(), "systemd-run: {output:?}");
    let said: Value = wait_until(Duration::from_secs(5), "the service to say who it is", || {
        // It is there before it is written.
        let line = fs::read_to_string(words).ok().filter(|line| line.ends_with('\n'));
        line.map(|line| serde_json::from_str(&line).context("what the service says")).transpose()
    })?;
    let truth = Truth::of(number(&said, "pid")?)?;
    let service = limited(&truth, unit)?;
    gate.write_all(b"\n").context("open the victim's gate")?;
    stage.holds(&truth, &killed_in(stage, &truth, unit, &service)).map(drop)
}

fn killed_in(stage: &Stage, truth: &Truth, unit: &str, group: &Group) -> Expected {
    Expected::death(truth, stage.daemon.node())
        .oom(truth, group, LIMIT)
        .is("/workload/unit", unit)
        // Known as long as the unit is up, which ends with its only process.
        .maybe_like("/workload/invocation_id", "an id of systemd's: 32 hexadecimal digits", |id| {
            id.as_str()
                .is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
}

/// What `systemd-run` is told of a unit.
fn options(unit: &str) -> [String; 6] {
    [
        // The targets that a unit waits for by default are not in this machine.
        "--property=DefaultDependencies=no".to_owned(),
        "--quiet".to_owned(),
        "--collect".to_owned(),
        format!("--unit={unit}"),
        format!("--property=MemoryMax={LIMIT}"),
        "--property=MemorySwapMax=0".to_owned(),
    ]
}

/// The unit's cgroup, which is limited.
fn limited(truth: &Truth, unit: &str) -> Result<Group> {
    ensure!(truth.cgroup == format!("/system.slice/{unit}"), "{truth:?} is not in {unit}");
    let group = Group::at(&Hierarchy::find()?, &truth.cgroup);
    ensure!(group.limit()? == Some(LIMIT), "{unit} is limited to {:?}", group.limit()?);
    Ok(group)
}
