//! A daemon of one's own: started, asked, stopped.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::wait::wait_until;

pub use crate::launch::{Launch, binary};

mod records;

/// From the start until the probes must be attached.
const STARTS_WITHIN: Duration = Duration::from_secs(15);
/// From SIGTERM until the end.
const STOPS_WITHIN: Duration = Duration::from_secs(5);
/// Name of its socket for workers, in its directory.
const SOCKET: &str = "killwatch.sock";
/// Of the daemon's own log, this much is shown with a failure.
const LOG_TAIL: u64 = 16 * 1024;

/// Whether daemons here hear from the kernel which limit was hit, as the last one that became ready said.
static HEARS_CONSTRAINTS: AtomicBool = AtomicBool::new(false);

/// Whether daemons here hear from the kernel which limit was hit: the probe `oom_kill_process`, which needs fentry.
#[must_use]
pub fn hears_constraints() -> bool {
    HEARS_CONSTRAINTS.load(Ordering::Relaxed)
}

/// A running killwatch. Dropping it kills it, its files go with it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    status: Option<ExitStatus>,
    node: String,
    client: Client,
    dir: TempDir,
    launch: Launch,
}

impl Daemon {
    /// Starts one in a directory of its own and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time: with the end of its log.
    pub fn start() -> Result<Self> {
        Self::start_as(Launch::default())
    }

    /// Like [`Daemon::start`], run in this way.
    ///
    /// # Errors
    /// As there.
    pub fn start_as(launch: Launch) -> Result<Self> {
        Self::start_in(own_directory()?, launch, None)
    }

    /// Like [`Daemon::start`], and the kernel kills it when the calling thread ends. `victim` is the program that ties it.
    ///
    /// # Errors
    /// As there.
    pub fn start_tied(victim: &Path) -> Result<Self> {
        let wrapper = vec![victim.into(), "tied".into(), "--".into()];
        Self::start_as(Launch { wrapper, ..Launch::default() })
    }

    /// Starts one in this directory; its log sink continues there. If it can be had, at this address.
    fn start_in(dir: TempDir, launch: Launch, address: Option<String>) -> Result<Self> {
        let mut daemon = Self::spawn(dir, launch.clone(), address)?;
        for _ in 0..3 {
            match daemon.wait_until_ready() {
                Ok(()) => {
                    // One that is kept from BPF tells nothing of the host.
                    if daemon.probe_is("sched_process_exit", "attached")? {
                        let attached = daemon.probe_is("oom_kill_process", "attached")?;
                        HEARS_CONSTRAINTS.store(attached, Ordering::Relaxed);
                    }
                    return Ok(daemon);
                }
                // A port that was free may be taken as soon as it is let go: then another is tried.
                Err(_)
                    if daemon.status.is_some()
                        && daemon.log()?.contains("ddress already in use") =>
                {
                    let files = std::mem::replace(
                        &mut daemon.dir,
                        TempDir::new().context("make a directory")?,
                    );
                    daemon = Self::spawn(files, launch.clone(), None)?;
                }
                Err(error) => {
                    return Err(error.context(format!(
                        "the daemon did not start; its log:\n{}",
                        daemon.log()?
                    )));
                }
            }
        }
        bail!("no port stays free for the daemon")
    }

    fn spawn(dir: TempDir, launch: Launch, address: Option<String>) -> Result<Self> {
        let address = address.map_or_else(free_address, Ok)?;
        let node = format!("node-of-{}", std::process::id());
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.path().join("log"))
            .context("open the log")?;
        let child = launch
            .command()
            .args([
                "run",
                "--web.listen-address",
                &address,
                "--node",
                &node,
                "--log.level",
                "debug",
                "--log-sink",
            ])
            .arg(dir.path().join("sink"))
            .arg("--state.path")
            .arg(dir.path().join("state"))
            .arg("--api.socket")
            .arg(dir.path().join(SOCKET))
            .args(&launch.flags)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", binary().display()))?;
        Ok(Self { child, status: None, node, client: Client::new(address), dir, launch })
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        wait_until(STARTS_WITHIN, "the daemon is ready", || {
            if let Some(status) = self.child.try_wait().context("look after the daemon")? {
                self.status = Some(status);
                bail!("the daemon ended: {status}");
            }
            // No answer at all is how it begins.
            Ok(self.get("/-/ready").is_ok_and(|(status, _)| status == 200).then_some(()))
        })
    }

    /// Whether a probe is in this state.
    ///
    /// # Errors
    /// When the status cannot be had.
    pub fn probe_is(&self, name: &str, state: &str) -> Result<bool> {
        let status = self.json("/api/v1/status")?;
        let probes = status.get("probes").and_then(Value::as_array).context("no probes")?;
        Ok(probes.iter().any(|probe| probe["name"] == name && probe["state"] == state))
    }

    /// Kills it at once, by SIGKILL.
    ///
    /// # Errors
    /// When it had ended already, or cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("look after the daemon")? {
            self.status = Some(status);
            bail!("the daemon had ended already: {status}; its log:\n{}", self.log()?);
        }
        self.child.kill().context("kill the daemon")?;
        self.status = Some(self.child.wait().context("wait for the daemon")?);
        Ok(())
    }

    /// Starts another one in place of one that has ended, with the same files and, if it is still free, at the same address.
    ///
    /// # Errors
    /// As [`Daemon::start`], and when it runs still.
    pub fn start_again(&mut self) -> Result<()> {
        let (files, launch) = self.take_over()?;
        *self = Self::start_in(files, launch, Some(self.client.address().to_owned()))?;
        Ok(())
    }

    /// The same without waiting for it to be ready.
    ///
    /// # Errors
    /// When it cannot be started, or the one before runs still.
    pub fn start_again_and_go_on(&mut self) -> Result<()> {
        let (files, launch) = self.take_over()?;
        *self = Self::spawn(files, launch, Some(self.client.address().to_owned()))?;
        Ok(())
    }

    /// What the next one goes on with.
    fn take_over(&mut self) -> Result<(TempDir, Launch)> {
        if self.status.is_none() {
            bail!("the daemon runs still");
        }
        let files = std::mem::replace(&mut self.dir, TempDir::new().context("make a directory")?);
        Ok((files, std::mem::take(&mut self.launch)))
    }

    /// Stops it and starts another one in its place, with the same files.
    ///
    /// # Errors
    /// As [`Daemon::stop`] and [`Daemon::start`], and when it did not end well.
    pub fn restart(&mut self) -> Result<()> {
        let status = self.stop()?;
        if !status.success() {
            bail!("the daemon was to end well, but: {status}");
        }
        self.start_again()
    }

    /// The name it was given for this node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Where it answers HTTP, as in `127.0.0.1:9435`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.client.address()
    }

    /// Its socket for workers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    /// The directory that its files are in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Status and body of an answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.client.get(path)
    }

    /// Body of a good answer, as JSON.
    ///
    /// # Errors
    /// When there is none.
    pub fn json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path)?;
        if status != 200 {
            bail!("GET {path} says {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("GET {path} is no JSON: {body}"))
    }

    /// The metrics page.
    ///
    /// # Errors
    /// When there is none.
    pub fn metrics(&self) -> Result<String> {
        match self.get("/metrics")? {
            (200, page) => Ok(page),
            (status, body) => bail!("GET /metrics says {status}: {body}"),
        }
    }

    /// The log sink as it is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn sink_text(&self) -> Result<String> {
        match std::fs::read_to_string(self.dir.path().join("sink")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            text => text.context("read the log sink"),
        }
    }

    /// The end of what it wrote to standard error and standard output.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        tail(&self.dir.path().join("log"), LOG_TAIL)
    }

    /// All that it wrote to standard error and standard output.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn whole_log(&self) -> Result<String> {
        tail(&self.dir.path().join("log"), u64::MAX)
    }

    /// Asks it to stop and waits for that.
    ///
    /// # Errors
    /// When it runs on past the deadline.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if self.status.is_none() {
            let pid = i32::try_from(self.child.id())
                .ok()
                .and_then(Pid::from_raw)
                .context("the daemon's pid")?;
            kill_process(pid, Signal::TERM).context("ask the daemon to stop")?;
        }
        let status = match self.status {
            Some(status) => status,
            None => wait_until(STOPS_WITHIN, "the daemon stops", || {
                self.child.try_wait().context("wait for the daemon")
            })?,
        };
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Both fail only when it is gone, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub(crate) fn free_address() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.to_string())
}

fn own_directory() -> Result<TempDir> {
    let dir = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
    // Other users may reach the socket in it, and list nothing.
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711))
        .context("open the directory")?;
    Ok(dir)
}

fn tail(file: &Path, most: u64) -> Result<String> {
    let mut file = File::open(file).context("open the daemon's log")?;
    let len = file.metadata().context("look at the daemon's log")?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(most))).context("read the daemon's log")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("read the daemon's log")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
