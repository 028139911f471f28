//! The worked examples of docs/examples, run as they are, with a real OOM kill.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::corpus::{Need, Scenario};
use killwatch_tests::daemon::binary;
use killwatch_tests::play;
use killwatch_tests::stage::Stage;

pub(crate) const SCENARIOS: &[Scenario] = &[
    play!(a_node_pool_tells_why_a_worker_died).needs(&[Need::Program("node")]),
    play!(a_python_pool_tells_why_a_process_died).needs(&[Need::Program("python3")]),
    play!(a_shell_script_tells_why_its_command_died).needs(&[Need::Program("curl")]),
];

fn example(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples")).join(name)
}

fn a_node_pool_tells_why_a_worker_died(stage: &mut Stage) -> Result<()> {
    // Three processes of node have room in it, with what they need to start.
    let said = run(stage, 240 << 20, &["node".into(), example("node/pool.mjs").into()])?;
    let lines: Vec<&str> = said.lines().collect();
    let [small, killed, after] = lines.as_slice() else { anyhow::bail!("it said {said:?}") };
    ensure!(small.starts_with("small: done") && after.starts_with("after: done"), "{said}");
    ensure!(killed.starts_with("4711: FAILED: job 4711: oom_memcg: "), "{said}");
    Ok(())
}

fn a_python_pool_tells_why_a_process_died(stage: &mut Stage) -> Result<()> {
    let said = run(stage, 100 << 20, &["python3".into(), example("python/pool.py").into()])?;
    let lines: Vec<&str> = said.lines().collect();
    let [small, killed] = lines.as_slice() else { anyhow::bail!("it said {said:?}") };
    ensure!(*small == "small: done", "{said}");
    ensure!(killed.starts_with("4711: FAILED: job 4711: oom_memcg: "), "{said}");
    Ok(())
}

fn a_shell_script_tells_why_its_command_died(stage: &mut Stage) -> Result<()> {
    let command = ["sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done"].map(OsString::from);
    let script = ["sh".into(), example("shell/job.sh").into(), "4711".into()];
    let said = run(stage, 32 << 20, &[&script[..], &command[..]].concat())?;
    ensure!(said.starts_with("job 4711 ended with 137; killwatch says:\n"), "{said}");
    ensure!(
        said.contains("\"cause\":\"oom_memcg\"") && said.contains("\"job_id\":\"4711\""),
        "{said}"
    );
    Ok(())
}

/// Runs a command in a cgroup with this limit, the daemon's program in its `PATH` and its socket in its environment; what it printed.
fn run(stage: &Stage, limit: u64, command: &[OsString]) -> Result<String> {
    let group = stage.tree.limited("pool", limit)?;
    let bin = binary().parent().context("the daemon is in no directory")?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?;
    let output = Command::new("sh")
        .args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""])
        .arg(group.dir())
        .args(command)
        .env("PATH", path)
        .env("KILLWATCH_API_SOCKET", stage.daemon.socket())
        .stderr(Stdio::inherit())
        .output()
        .context("run the example")?;
    String::from_utf8(output.stdout).context("what it printed")
}
