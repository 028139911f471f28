//! Deaths by a signal that the OOM killer has no part in.

use anyhow::Result;
use killwatch_tests::corpus::Scenario;
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;

use crate::{at_the_gate, kill_by_shell};

pub(crate) const SCENARIOS: &[Scenario] =
    &[play!(kill_9_by_a_shell_of_another_user), play!(sigterm_by_a_shell), play!(default_actions)];

/// Nobody's user id: any that is not root's.
const SOMEONE: u32 = 65534;

fn kill_9_by_a_shell_of_another_user(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    let user = SOMEONE.to_string();
    let casting =
        stage.cast().within(&group).args(["--uid", &user, "--oom-score-adj", "321", "sleep"]);
    let (mut victim, truth) = at_the_gate(&casting)?;
    let sender = kill_by_shell("9", truth.pid, SOMEONE)?;
    victim.reap_killed_by(9)?;
    Expected::death(&truth, stage.daemon.node())
        .signal(9, "SIGKILL")
        .killed_by(&sender)
        .is("/victim/uid", SOMEONE)
        .is("/victim/oom_score_adj", 321)
        .compare(&stage.daemon.death_of(&truth)?)
}

fn sigterm_by_a_shell(stage: &mut Stage) -> Result<()> {
    let (mut victim, truth) =
        at_the_gate(&stage.cast().within(&stage.tree.make("worker")?).args(["sleep"]))?;
    let sender = kill_by_shell("TERM", truth.pid, 0)?;
    victim.reap_killed_by(15)?;
    Expected::death(&truth, stage.daemon.node())
        .signal(15, "SIGTERM")
        .killed_by(&sender)
        .compare(&stage.daemon.death_of(&truth)?)
}

/// Signals that end a process unless it says otherwise.
fn default_actions(stage: &mut Stage) -> Result<()> {
    let group = stage.tree.make("worker")?;
    for (number, name) in [(1, "SIGHUP"), (2, "SIGINT"), (3, "SIGQUIT"), (10, "SIGUSR1")] {
        let (mut victim, truth) = at_the_gate(&stage.cast().within(&group).args(["sleep"]))?;
        let sender = kill_by_shell(&number.to_string(), truth.pid, 0)?;
        victim.reap_killed_by(i32::from(number))?;
        let expected = Expected::death(&truth, stage.daemon.node()).signal(number, name);
        stage.holds(&truth, &expected.killed_by(&sender))?;
    }
    Ok(())
}
