//! A container of LXC, with a static busybox as all there is inside.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use killwatch_tests::cgroup::{Group, Hierarchy};
use killwatch_tests::corpus::{Need, Scenario, find_program};
use killwatch_tests::play;
use killwatch_tests::record::Expected;
use killwatch_tests::stage::Stage;
use killwatch_tests::truth::Truth;
use killwatch_tests::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::LIMIT;
use killwatch_tests::truth::handles;

pub(crate) const SCENARIOS: &[Scenario] = &[play!(an_oom_kill_in_a_container_of_lxc).needs(&[
    Need::MemoryV1,
    Need::Program("lxc-start"),
    Need::Program("busybox"),
])];

/// A running container. Dropping it kills it and whoever waits for it.
struct Container {
    monitor: Child,
    // What LXC leaves behind in each hierarchy, if nobody's container had left it before.
    pivots: Vec<PathBuf>,
    name: String,
    dir: TempDir,
}

/// A shell that doubles a text until the container's limit is reached. It waits for that until it has been looked at.
fn an_oom_kill_in_a_container_of_lxc(stage: &mut Stage) -> Result<()> {
    let container = Container::start(
        "trap 'go=1' USR1; while [ -z \"$go\" ]; do :; done; x=aaaaaaaa; while :; do x=$x$x; done",
    )?;
    let init = Truth::of(container.init()?)?;
    let path = format!("/lxc.payload.{}", container.name);
    ensure!(init.ns_pid == 1 && init.cgroup == path, "{init:?}");
    let group = Group::at(&Hierarchy::find()?, &path);
    group.require_ceiling()?;
    let pid = i32::try_from(init.pid).ok().and_then(Pid::from_raw).context("a pid")?;
    kill_process(pid, Signal::USR1).context("let the shell go")?;
    let expected = Expected::death(&init, stage.daemon.node())
        .oom(&init, &group, LIMIT)
        // The text that did not fit any more was as long as all before.
        .like("/memory/anon_bytes", "a good part of the limit", |size| {
            size.as_u64().is_some_and(|size| (LIMIT / 4..=LIMIT + LIMIT / 8).contains(&size))
        })
        .is("/workload/container_id", format!("lxc://{}", container.name))
        .is("/workload/runtime", "lxc");
    stage.holds(&init, &expected).map(drop)
}

impl Container {
    /// Starts one that runs this in a shell.
    fn start(script: &str) -> Result<Self> {
        let dir = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
        let name = format!("killwatch-{}", std::process::id());
        let root = dir.path().join(&name).join("rootfs");
        for inside in ["bin", "dev", "proc", "sys"] {
            fs::create_dir_all(root.join(inside)).context("make the container's root")?;
        }
        let busybox = find_program("busybox").context("busybox is not installed")?;
        fs::copy(busybox, root.join("bin/busybox")).context("copy busybox")?;
        let config = format!(
            "lxc.uts.name = {name}\nlxc.rootfs.path = dir:{}\nlxc.net.0.type = none\nlxc.apparmor.profile = unconfined\n\
             lxc.autodev = 1\nlxc.mount.auto = proc\nlxc.cgroup.memory.limit_in_bytes = {LIMIT}\n",
            root.display()
        );
        fs::write(dir.path().join(&name).join("config"), config).context("write its config")?;
        let mut hierarchies = Hierarchy::all_v1()?;
        hierarchies.extend(Hierarchy::find_unified().ok());
        let pivots = hierarchies.iter().map(|hierarchy| hierarchy.root.join("lxc.pivot"));
        let pivots = pivots.filter(|pivot| !pivot.exists()).collect();
        let log = File::create(dir.path().join("log")).context("make a log")?;
        let monitor = Command::new("lxc-start")
            .arg("-P")
            .arg(dir.path())
            .args(["-n", &name, "-F", "--", "/bin/busybox", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .context("start lxc-start")?;
        Ok(Self { monitor, pivots, name, dir })
    }

    /// Its first process, once the shell there has its handler.
    fn init(&self) -> Result<u32> {
        wait_until(Duration::from_secs(10), "the shell to have its handler", || {
            let info = self.lxc("lxc-info").args(["-p", "-H"]).output().context("ask lxc")?;
            let pid = String::from_utf8_lossy(&info.stdout).trim().parse::<u32>();
            // Until it runs there is none.
            Ok(pid.ok().filter(|pid| handles(*pid, 10).unwrap_or(false)))
        })
        .with_context(|| fs::read_to_string(self.dir.path().join("log")).unwrap_or_default())
    }

    fn lxc(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-P").arg(self.dir.path()).args(["-n", &self.name]);
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended already; the monitor ends with it and removes its cgroups.
        let _ = self.lxc("lxc-stop").arg("-k").output();
        let ended = wait_until(Duration::from_secs(5), "lxc-start ends", || {
            self.monitor.try_wait().context("wait for lxc-start")
        });
        if let Err(error) = ended {
            eprintln!("killwatch-tests: {error:#}");
            // Both fail only when it is gone, which is what is wanted.
            let _ = self.monitor.kill();
            let _ = self.monitor.wait();
        }
        for pivot in &self.pivots {
            // Not there, or in use by another container by now.
            let _ = fs::remove_dir(pivot);
        }
    }
}
