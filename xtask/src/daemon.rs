//! A daemon of our own on a free loopback port, and what its HTTP interface answers.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Owned;
use crate::stop::{Interrupted, Stop};

/// How long a start may take: loading and verifying the programs, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a shutdown may take before it is ended by force.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// A running daemon. It ends, and its files go, with this value.
pub(crate) struct Daemon {
    // Order matters: the process ends before its directory goes.
    process: Owned,
    dir: TempDir,
    api: Api,
}

impl Daemon {
    /// Starts it and waits until its probes are attached.
    pub(crate) fn start<S: AsRef<OsStr>>(program: &Path, flags: &[S], stop: &Stop) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("killwatch-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let port = free_port()?;
        let log = File::create(dir.path().join("daemon.log"))
            .context("cannot make the daemon's log file")?;
        let mut command = Command::new(program);
        command.args(["run", "--web.listen-address", &format!("127.0.0.1:{port}")]);
        let deaths = dir.path().join("deaths.jsonl");
        let own = [
            ("--log-sink", deaths.as_os_str()),
            ("--state.path", "none".as_ref()),
            ("--api.socket", "none".as_ref()),
            ("--probe.pin", "none".as_ref()),
        ];
        for (flag, value) in own {
            // A flag may be given once.
            if !flags.iter().any(|given| given.as_ref() == flag) {
                command.arg(flag).arg(value);
            }
        }
        command.args(flags);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log file")?)
            .stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let process = Owned { child, grace: STOP_GRACE };
        let mut daemon = Self { process, dir, api: Api::new(port) };
        daemon.wait_ready(stop)?;
        Ok(daemon)
    }

    fn wait_ready(&mut self, stop: &Stop) -> Result<()> {
        let api = &self.api;
        let child = &mut self.process.child;
        let ready = stop.until("the daemon is ready", START_LIMIT, || {
            if let Some(status) = child.try_wait().context("cannot watch the daemon")? {
                bail!("the daemon ended: {status}");
            }
            // Refused until it listens, then 503 until the probes are attached.
            Ok(api.get("/-/ready").ok())
        });
        ready.map(drop).map_err(|error| self.explain(error))
    }

    /// Its HTTP interface.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Directory for files that go with the daemon.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// An error together with what the daemon printed.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Interrupted>() {
            return error;
        }
        let log = fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default();
        anyhow!("{error:#}\nthe daemon said:\n{}", log.trim_end())
    }
}

/// A port of the loopback that was free just now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on the loopback")?;
    Ok(listener.local_addr().context("the loopback gave no address")?.port())
}

/// HTTP requests to one daemon, over one connection that is kept open.
pub(crate) struct Api {
    agent: ureq::Agent,
    base: String,
}

impl Api {
    fn new(port: u16) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(5)))
            // The daemon ends connections that say nothing for a while; one that it is about to end is not to be asked.
            .max_idle_age(Duration::from_secs(2));
        Self { agent: config.build().new_agent(), base: format!("http://127.0.0.1:{port}") }
    }

    /// Scheme, host and port.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Body of the answer. Any status but 2xx is an error.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let mut answer = self
            .agent
            .get(format!("{}{path}", self.base))
            .call()
            .with_context(|| format!("GET {path}"))?;
        answer.body_mut().read_to_string().with_context(|| format!("GET {path}: body"))
    }

    /// The newest record of that process, if there is one by now.
    pub(crate) fn death_of(&self, pid: u32) -> Result<Option<Value>> {
        let text = self.get(&format!("/api/v1/deaths?pid={pid}"))?;
        let mut answer: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
        let deaths = answer
            .get_mut("deaths")
            .and_then(Value::as_array_mut)
            .context("the answer has no `deaths`")?;
        Ok(if deaths.is_empty() { None } else { Some(deaths.swap_remove(0)) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::thread;

    use super::*;

    /// Answers one connection's requests with these bodies, in order.
    fn serve(bodies: &'static [&'static str]) -> Api {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for body in bodies {
                let _ = stream.read(&mut [0; 4096]).unwrap();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                    .unwrap();
            }
        });
        Api::new(port)
    }

    #[test]
    fn newest_death_comes_first_and_one_connection_serves_all() {
        let api = serve(&[r#"{"deaths":[]}"#, r#"{"deaths":[{"n":1},{"n":2}]}"#, "nonsense"]);
        assert_eq!(api.death_of(7).unwrap(), None);
        assert_eq!(api.death_of(7).unwrap().unwrap()["n"], 1);
        assert!(api.death_of(7).is_err());
    }
}
