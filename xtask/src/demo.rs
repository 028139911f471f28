//! `demo`: a real worker, killed by the real kernel in a container-shaped cgroup, and what killwatch says of it.

use std::env;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::cgroup::Container;
use crate::context::Ctx;
use crate::daemon::Daemon;
use crate::process::{self, Owned, step};
use crate::stop::Stop;

/// What the container may use.
const LIMIT: u64 = 32 << 20;
/// How long the record may take to come.
const RECORD_LIMIT: Duration = Duration::from_secs(10);
/// Job that the worker says it works on.
const JOB: &str = "demo-4711";

/// Builds, kills, tells. Cleans up on success, on errors and on Ctrl-C alike.
pub(crate) fn run(ctx: &Ctx) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demo loads BPF programs and makes a cgroup: run it as root");
    }
    let built = build::daemon(ctx)?;
    let stop = Stop::install()?;
    let start = Instant::now();
    let daemon = step("start the daemon", || Daemon::start::<&str>(&built.daemon, &[], &stop))?;
    let container = step("make a container's cgroup, limit 32 MiB", || Container::create(LIMIT))?;
    eprintln!("    {}", container.path().display());
    let pid = step("let a worker allocate until the kernel kills it", || {
        kill(&daemon.dir(), &container, &stop)
    })?;
    let death = step("wait for the record", || {
        stop.until(&format!("a record of process {pid}"), RECORD_LIMIT, || {
            daemon.api().death_of(pid)
        })
    });
    let death = death.map_err(|error| daemon.explain(error))?;

    println!("\n--- killwatch why {pid}\n");
    process::run(Command::new(&built.daemon).args([
        "why",
        &pid.to_string(),
        "--api",
        daemon.api().base(),
    ]))?;
    println!("\n--- GET /api/v1/deaths?pid={pid}\n");
    println!("{}", serde_json::to_string_pretty(&death).context("the record does not print")?);
    println!("\n--- GET /metrics\n");
    let metrics = daemon.api().get("/metrics")?;
    println!(
        "{}",
        metric_line(&metrics, &container.id())
            .context("/metrics has no container_oom_killed_total for the container")?
    );
    println!();
    step("clean up", || {
        drop(container);
        drop(daemon);
        Ok(())
    })?;
    eprintln!("demo: done, {} after the build", process::seconds(start.elapsed()));
    Ok(())
}

/// Has a worker killed and returns its process id.
fn kill(dir: &Path, container: &Container, stop: &Stop) -> Result<u32> {
    let exe = env::current_exe().context("cannot tell where this program is")?;
    // The kernel names a process by the last part of the path that was executed.
    let worker = dir.join("train-worker");
    symlink(exe, &worker).context("cannot make the worker's name")?;
    let mut command = Command::new(&worker);
    // Slow enough for a few looks at it before it is killed.
    command.args(["hog", "--rate", "8"]).env("JOB_ID", JOB).stdin(Stdio::piped());
    let child = command.spawn().context("cannot start the worker")?;
    let mut worker = Owned { child, grace: Duration::ZERO };
    let pid = worker.child.id();
    container.add(pid)?;
    let mut stdin = worker.child.stdin.take().context("the worker has no stdin")?;
    stdin.write_all(b"!").context("the worker does not listen")?;
    let status = stop.until("the worker is killed", RECORD_LIMIT, || {
        worker.child.try_wait().context("cannot watch the worker")
    })?;
    match status.signal() {
        Some(9) => Ok(pid),
        _ => bail!("the worker was not killed, it ended with {status}"),
    }
}

/// The sample of that container. The id may be labelled with the runtime's name before it.
fn metric_line<'a>(metrics: &'a str, container: &str) -> Option<&'a str> {
    let mut lines = metrics.lines().filter(|line| line.starts_with("container_oom_killed_total{"));
    lines.find(|line| line.contains(container))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_container_among_others() {
        let text = "# TYPE container_oom_killed counter\n\
            container_oom_killed_total{container_id=\"aa\"} 0\n\
            container_oom_killed_total{container_id=\"bb\"} 1 # {id=\"x\"} 1\n\
            other_total{container_id=\"bb\"} 1\n";
        assert_eq!(
            metric_line(text, "bb"),
            Some("container_oom_killed_total{container_id=\"bb\"} 1 # {id=\"x\"} 1")
        );
        assert_eq!(metric_line(text, "cc"), None);
    }
}
