//! Running the `victim` binary and talking with it.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::cgroup::Group;
use crate::wait::{in_vm, scaled, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// How to run a victim: program, cgroup, environment. Its environment holds nothing but what is said here.
#[derive(Debug, Clone)]
pub struct Casting {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    group: Option<Group>,
    host_is_ours: bool,
}

/// A running victim. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    unread: Vec<u8>,
    heard: Vec<Value>,
    status: Option<ExitStatus>,
}

impl Casting {
    /// A victim of the program at `program`.
    #[must_use]
    pub const fn new(program: PathBuf) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
            group: None,
            host_is_ours: false,
        }
    }

    /// In this cgroup, which it enters itself before it does anything else.
    #[must_use]
    pub fn within(mut self, group: &Group) -> Self {
        self.arguments.extend(["--cgroup".into(), group.dir().into()]);
        self.group = Some(group.clone());
        self
    }

    /// Free to use up the memory of the host.
    ///
    /// # Errors
    /// When the host is not a virtual machine of our own.
    pub fn on_our_own_host(mut self) -> Result<Self> {
        if !in_vm() {
            bail!("only a virtual machine of our own may run out of memory");
        }
        self.host_is_ours = true;
        Ok(self)
    }

    /// With this variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these arguments, after those that are there.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The program itself, for a victim that runs another one.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started, or would eat the host's memory.
    pub fn start(&self) -> Result<Victim> {
        if !self.host_is_ours && self.arguments.iter().any(|argument| argument == "hog") {
            self.group
                .as_ref()
                .context("a hog runs in a cgroup with a limit")?
                .require_ceiling()?;
        }
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let (stdin, stdout) =
            (child.stdin.take(), child.stdout.take().context("no pipe from the victim")?);
        Ok(Victim { child, stdin, stdout, unread: Vec::new(), heard: Vec::new(), status: None })
    }
}

impl Victim {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first line it said, or says, that has `key`.
    ///
    /// # Errors
    /// When it ends or the deadline passes without such a line.
    pub fn hear(&mut self, key: &str) -> Result<Value> {
        loop {
            if let Some(at) = self.heard.iter().position(|line| line.get(key).is_some()) {
                return Ok(self.heard.remove(at));
            }
            let line = self
                .next_line()
                .with_context(|| format!("waiting for the victim to say {key:?}"))?;
            self.heard.push(serde_json::from_slice(&line).context("a line of the victim")?);
        }
    }

    /// Lets it act that waits at its gate.
    ///
    /// # Errors
    /// When it is gone.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the victim's standard input is closed")?;
        stdin.write_all(b"\n").and_then(|()| stdin.flush()).context("open the victim's gate")
    }

    /// Sends it SIGKILL.
    ///
    /// # Errors
    /// When it has been reaped.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill the victim")
    }

    /// Ends its standard input.
    pub fn release(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// When it lives on past the deadline.
    pub fn reap(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = wait_until(PATIENCE, "the victim ends", || {
            self.child.try_wait().context("wait for the victim")
        })?;
        self.status = Some(status);
        Ok(status)
    }

    /// Like [`Victim::reap`], and it must have died of this signal.
    ///
    /// # Errors
    /// When it ended in another way.
    pub fn reap_killed_by(&mut self, signal: i32) -> Result<()> {
        let status = self.reap()?;
        if status.signal() != Some(signal) {
            bail!("the victim was to die of signal {signal}, but: {status}");
        }
        Ok(())
    }

    /// Like [`Victim::reap`], and it must have exited with this code.
    ///
    /// # Errors
    /// When it ended in another way.
    pub fn reap_exited(&mut self, code: i32) -> Result<()> {
        let status = self.reap()?;
        if status.code() != Some(code) {
            bail!("the victim was to exit with {code}, but: {status}");
        }
        Ok(())
    }

    fn next_line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let rest = self.unread.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            let within = scaled(PATIENCE);
            let timeout = Timespec::try_from(within).context("a deadline")?;
            let mut fds = [PollFd::new(&self.stdout, PollFlags::IN)];
            if poll(&mut fds, Some(&timeout)).context("wait for the victim's words")? == 0 {
                bail!("the victim said nothing for {within:?}");
            }
            let mut bytes = [0; 16 * 1024];
            match self.stdout.read(&mut bytes) {
                Ok(0) => bail!("the victim closed its standard output"),
                Ok(count) => self.unread.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read the victim's words"),
            }
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Both fail only when it is gone, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
