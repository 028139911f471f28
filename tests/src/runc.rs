//! Containers by a real runtime: `runc`, with a static busybox as all there is inside.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::corpus::find_program;
use crate::sender::{Sender, ancestors_of};
use crate::truth::{Truth, name_of};
use crate::wait::wait_until;

/// A running container. Dropping it kills and deletes it.
#[derive(Debug)]
pub struct Container {
    id: String,
    program: PathBuf,
    // Holds the bundle as long as the container is there.
    bundle: TempDir,
}

impl Container {
    /// Starts one with this id, memory limit in bytes, and command.
    ///
    /// # Errors
    /// When runc or busybox is not installed, or runc fails: with what it said.
    pub fn run(id: &str, limit: u64, command: &[&str]) -> Result<Self> {
        let program = find_program("runc").context("runc is not installed")?;
        let busybox = find_program("busybox").context("busybox is not installed")?;
        let bundle = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
        let bin = bundle.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).context("make the container's root")?;
        std::fs::copy(busybox, bin.join("busybox")).context("copy busybox")?;
        let container = Self { id: id.to_owned(), program, bundle };
        container.runc(&["spec"])?;
        container.configure(limit, command)?;
        let pid_file = container.pid_file();
        let pid_file = pid_file.to_str().context("a directory's name")?;
        container.runc(&["run", "--detach", "--pid-file", pid_file, id])?;
        // Until then the first process is runc itself, which becomes the command a little later.
        wait_until(Duration::from_secs(5), "the container to run its command", || {
            Ok((container.init()?.cmdline == command).then_some(()))
        })?;
        Ok(container)
    }

    /// Its first process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn init(&self) -> Result<Truth> {
        let pid = std::fs::read_to_string(self.pid_file()).context("read the pid file")?;
        Truth::of(pid.trim().parse().context("a pid")?)
    }

    /// Has runc send it a signal, and says who that was.
    ///
    /// # Errors
    /// When runc fails.
    pub fn kill(&self, signal: &str) -> Result<Sender> {
        let pid = self.runc(&["kill", &self.id, signal])?;
        let own = std::process::id();
        let mut ancestors = vec![(own, name_of(own)?)];
        ancestors.extend(ancestors_of(own)?);
        let cgroup = Truth::of(own)?.cgroup;
        Ok(Sender {
            pid,
            comm: "runc".to_owned(),
            uid: 0,
            ppid: own,
            cgroup,
            ancestors,
            via: "kill",
        })
    }

    /// Nothing but a pid namespace, /proc and /dev, and a cgroup of its own.
    fn configure(&self, limit: u64, command: &[&str]) -> Result<()> {
        let file = self.bundle.path().join("config.json");
        let text = std::fs::read_to_string(&file).context("read the default config.json")?;
        let mut config: Value = serde_json::from_str(&text).context("the default config.json")?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(command);
        config["linux"]["cgroupsPath"] = json!(format!("/{}", self.id));
        config["linux"]["resources"] = json!({ "memory": { "limit": limit } });
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts
                .retain(|mount| mount["destination"] == "/proc" || mount["destination"] == "/dev");
        }
        std::fs::write(&file, config.to_string()).context("write config.json")
    }

    fn pid_file(&self) -> PathBuf {
        self.bundle.path().join("pid")
    }

    /// Runs it to its end; its pid.
    fn runc(&self, arguments: &[&str]) -> Result<u32> {
        run(&self.program, self.bundle.path(), arguments)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.runc(&["delete", "--force", &self.id]) {
            eprintln!("killwatch-tests: the container {} is left behind: {error:#}", self.id);
        }
    }
}

fn run(program: &Path, dir: &Path, arguments: &[&str]) -> Result<u32> {
    let log = dir.join("runc.log");
    // Not a pipe: the container keeps it open.
    let file = std::fs::File::create(&log).context("make a log")?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("share the log")?)
        .stderr(file)
        .spawn()
        .context("start runc")?;
    let status = child.wait().context("wait for runc")?;
    if !status.success() {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        bail!("runc {}: {status}: {said}", arguments.join(" "));
    }
    Ok(child.id())
}
