//! A batch system: Slurm on one node, with a munge of its own, all on loopback and in a directory of their own.
//!
//! The node has a name that no other has, and Debian's Slurm puts that into its cgroups: `/slurm_NODE/uid_N/job_N/step_N/task_N` on v1.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cgroup::{Group, Hierarchy};
use crate::corpus::find_program;
use crate::victim::Casting;
use crate::wait::wait_until;

/// From the start until the node must take jobs.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// How long what is killed may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// What to run, in this order.
const DAEMONS: [&str; 3] = ["munged", "slurmctld", "slurmd"];

/// A cluster of one node. Dropping it kills its daemons and whatever runs in its jobs, and removes their cgroups.
#[derive(Debug)]
pub struct Cluster {
    daemons: Vec<Child>,
    node: String,
    // Holds keys, configuration, state and logs as long as the daemons run.
    dir: TempDir,
}

impl Cluster {
    /// Starts one, its daemons in `group`, and waits until its node takes jobs. `victim` is the program that ties the daemons to the
    /// calling thread.
    ///
    /// # Errors
    /// When a program is not installed, or the node does not come up: with the ends of all logs.
    pub fn start(victim: &Path, group: &Group) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
        // Whoever speaks with munge must be able to reach its socket.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))
            .context("open a directory")?;
        let node = format!("killwatch{}n{number}", std::process::id());
        let mut cluster = Self { daemons: Vec::new(), node, dir };
        cluster.configure()?;
        for name in DAEMONS {
            let daemon = cluster.spawn(name, victim, group)?;
            cluster.daemons.push(daemon);
            if name == "munged" {
                cluster.wait_until("munge listens", |cluster| Ok(cluster.munge().exists()))?;
            }
        }
        cluster.wait_until("the node takes jobs", |cluster| {
            // Until the controller listens, nobody answers.
            let states = cluster.command("sinfo")?.args(["--noheader", "--format=%T"]).output();
            Ok(states.is_ok_and(|output| output.stdout.trim_ascii() == b"idle"))
        })?;
        Ok(cluster)
    }

    /// `srun`, which runs a command as a step and passes on what that hears and says. To be given options, `--` and the command.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn srun(&self) -> Result<Casting> {
        let program = find_program("srun").context("srun is not installed")?;
        let configuration = self.file("slurm.conf").display().to_string();
        Ok(Casting::new(program).with_env("SLURM_CONF", &configuration))
    }

    /// Submits a shell script as a batch job, with these options of `sbatch`. What it writes into its directory is read by
    /// [`Cluster::read`].
    ///
    /// # Errors
    /// When it is refused: with what sbatch said.
    pub fn sbatch(&self, options: &[&str], script: &str) -> Result<()> {
        let file = self.file("script");
        fs::write(&file, format!("#!/bin/sh\n{script}")).context("write a script")?;
        let mut command = self.command("sbatch")?;
        command.arg("--chdir").arg(self.dir.path()).arg("--output=/dev/null");
        let output = command.args(options).arg(file).output().context("start sbatch")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("sbatch: {}: {said}\n{}", output.status, self.logs());
        }
        Ok(())
    }

    /// What a batch job wrote into a file in its directory; none if there is no such file.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.file(name)).ok()
    }

    /// Name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Ends of the logs of all daemons, for a failure.
    #[must_use]
    pub fn logs(&self) -> String {
        DAEMONS.iter().fold(String::new(), |mut all, name| {
            let text = fs::read(self.file(&format!("{name}.log"))).unwrap_or_default();
            let end = text.get(text.len().saturating_sub(4096)..).unwrap_or_default();
            all.push_str(&format!("the log of {name}:\n{}\n", String::from_utf8_lossy(end)));
            all
        })
    }

    fn configure(&self) -> Result<()> {
        // Held until both are known, so that they differ.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port");
        let ports = [free()?, free()?];
        let port = |at: usize| -> Result<u16> { Ok(ports[at].local_addr()?.port()) };
        let (controller, worker) = (port(0)?, port(1)?);
        let dir = self.dir.path().display();
        let munge = self.munge();
        let (munge, node) = (munge.display(), &self.node);
        for name in ["state", "spool"] {
            fs::create_dir(self.file(name)).with_context(|| format!("make {name}"))?;
        }
        let mut key =
            File::options().create_new(true).write(true).mode(0o400).open(self.file("key"))?;
        let mut random = [0; 128];
        std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
        key.write_all(&random).context("write munge's key")?;
        fs::write(
            self.file("slurm.conf"),
            format!(
                "ClusterName=killwatch\nSlurmctldHost=localhost(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\n\
                 AuthInfo=socket={munge}\nCredType=cred/munge\nSlurmctldPort={controller}\nSlurmdPort={worker}\n\
                 StateSaveLocation={dir}/state\nSlurmdSpoolDir={dir}/spool\nSlurmctldPidFile={dir}/slurmctld.pid\n\
                 SlurmdPidFile={dir}/slurmd.pid\nSlurmctldDebug=info\nSlurmdDebug=info\nProctrackType=proctrack/cgroup\n\
                 TaskPlugin=task/cgroup\nJobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\n\
                 MpiDefault=none\nSwitchType=switch/none\nReturnToService=2\nSelectType=select/cons_tres\n\
                 SelectTypeParameters=CR_Core_Memory\nSlurmdParameters=config_overrides\n\
                 NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=200 State=UNKNOWN\n\
                 PartitionName=main Nodes={node} Default=YES MaxTime=5 State=UP\n"
            ),
        )
        .context("write slurm.conf")?;
        let mounts = Hierarchy::find()?.root;
        let mounts = mounts.parent().context("memory is mounted at the root")?.display();
        fs::write(
            self.file("cgroup.conf"),
            format!(
                "CgroupPlugin=cgroup/v1\nCgroupMountpoint={mounts}\nCgroupAutomount=no\nConstrainRAMSpace=yes\nConstrainSwapSpace=no\n\
                 ConstrainCores=no\nConstrainDevices=no\n"
            ),
        )
        .context("write cgroup.conf")
    }

    /// Starts a daemon in the foreground.
    fn spawn(&self, name: &str, victim: &Path, group: &Group) -> Result<Child> {
        let program = find_program(name).with_context(|| format!("{name} is not installed"))?;
        let option = |name: &str, file: &Path| format!("--{name}={}", file.display());
        let configuration = self.file("slurm.conf");
        let log = File::create(self.file(&format!("{name}.log"))).context("make a log")?;
        let mut command = Command::new(victim);
        command.arg("--cgroup").arg(group.dir()).args(["tied", "--"]).arg(program);
        match name {
            "munged" => command.args([
                "--foreground".to_owned(),
                "--num-threads=2".to_owned(),
                option("key-file", &self.file("key")),
                option("socket", &self.munge()),
                option("pid-file", &self.file("munged.pid")),
                option("log-file", &self.file("munge.log")),
                option("seed-file", &self.file("munge.seed")),
            ]),
            "slurmctld" => command.args(["-D", "-f"]).arg(configuration),
            _ => command.args(["-D", "-N", &self.node, "-f"]).arg(configuration),
        };
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))
    }

    fn wait_until(&mut self, what: &str, look: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let waited = wait_until(STARTS_WITHIN, what, || {
            for (daemon, name) in self.daemons.iter_mut().zip(DAEMONS) {
                if let Some(status) = daemon.try_wait().context("look after a daemon")? {
                    bail!("{name} ended: {status}");
                }
            }
            Ok(look(self)?.then_some(()))
        });
        waited.with_context(|| format!("no Slurm; {}", self.logs()))
    }

    /// A program that speaks with the controller.
    fn command(&self, name: &str) -> Result<Command> {
        let program = find_program(name).with_context(|| format!("{name} is not installed"))?;
        let mut command = Command::new(program);
        command.env_clear().env("SLURM_CONF", self.file("slurm.conf")).stdin(Stdio::null());
        Ok(command)
    }

    /// Kills who lives in the directory: the managers of steps, which are nobody's children, and may stand in the root's cgroups at their end.
    fn end_steps(&self) -> Result<()> {
        wait_until(ENDS_WITHIN, "the managers of steps end", || {
            let mut none = true;
            for entry in fs::read_dir("/proc").context("list processes")? {
                let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
                // Gone, or a kernel thread: neither lives anywhere.
                let Ok(place) = fs::read_link(format!("/proc/{pid}/cwd")) else { continue };
                if place.starts_with(self.dir.path())
                    && let Some(pid) = Pid::from_raw(pid)
                {
                    none = false;
                    // It may be gone by now; whether it is shows at the next look.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            Ok(none.then_some(()))
        })
    }

    fn munge(&self) -> PathBuf {
        self.file("munge.socket")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            // Both fail only when it is gone, which is what is wanted.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if let Err(error) = self.end_steps() {
            eprintln!("killwatch-tests: steps of {} are left behind: {error:#}", self.node);
        }
        for hierarchy in Hierarchy::all_v1().unwrap_or_default() {
            let group = Group::at(&hierarchy, &format!("slurm_{}", self.node));
            if let Err(error) = group.remove_all() {
                eprintln!("killwatch-tests: {} is left behind: {error:#}", group.dir().display());
            }
        }
    }
}
