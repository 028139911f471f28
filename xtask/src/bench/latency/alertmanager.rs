//! A real Alertmanager, alone, on the loopback.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::daemon::free_port;
use crate::process::{self, Owned};
use crate::stop::Stop;

const PROGRAM: &str = "prometheus-alertmanager";
const CONFIG: &str = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";

/// It ends, and its files go, with this value.
pub(super) struct Alertmanager {
    #[expect(dead_code, reason = "it ends with it")]
    process: Owned,
    base: String,
    #[expect(dead_code, reason = "they go with it")]
    dir: TempDir,
}

impl Alertmanager {
    /// Starts it and waits until it is ready.
    pub(super) fn start(stop: &Stop) -> Result<Self> {
        let program =
            process::find(PROGRAM).with_context(|| format!("{PROGRAM} is not installed"))?;
        let dir = tempfile::Builder::new().prefix("killwatch-bench-").tempdir()?;
        fs::write(dir.path().join("config.yml"), CONFIG).context("cannot write its config")?;
        let log = File::create(dir.path().join("log")).context("cannot make its log")?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let child = Command::new(program)
            .arg(format!("--config.file={}", dir.path().join("config.yml").display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share its log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {PROGRAM}"))?;
        let mut process = Owned { child, grace: Duration::from_secs(5) };
        let base = format!("http://{address}");
        let ready = format!("{base}/-/ready");
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        stop.until(PROGRAM, Duration::from_secs(30), || {
            if let Some(status) = process.child.try_wait().context("cannot watch it")? {
                let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
                bail!("{PROGRAM} ended with {status}: {}", log.trim_end());
            }
            Ok(agent.get(&ready).call().ok())
        })?;
        Ok(Self { process, base, dir })
    }

    /// Scheme, host and port.
    pub(super) fn base(&self) -> String {
        self.base.clone()
    }
}
