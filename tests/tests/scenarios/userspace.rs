//! Userspace OOM killers, by their names and by the marks that they leave. (The real ones run in a virtual machine.)

use anyhow::{Context as _, Result};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::sender::Sender;
use killwatch_tests::stage::Stage;
use rustix::fs::{XattrFlags, setxattr};

use crate::at_the_gate;

pub(crate) const SCENARIOS: &[Scenario] =
    &[play!(by_name_alone), play!(by_its_mark).needs(&[Need::MemoryV2])];

/// Anybody can take a name, so that is not certain.
fn by_name_alone(stage: &mut Stage) -> Result<()> {
    killed_by(stage, "earlyoom", None)
}

fn by_its_mark(stage: &mut Stage) -> Result<()> {
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
        None => expected.inferred(),
    };
    stage.holds(&truth, &expected).map(drop)
}
