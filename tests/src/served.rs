//! Programs of others that serve HTTP, each on a port and in a directory of its own: Prometheus, Alertmanager.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::corpus::find_program;
use crate::daemon::free_address;
use crate::http::{Client, escaped};
use crate::wait::wait_until;

/// From the start until it must be ready.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// Times that another port is tried, when somebody took it in between.
const ATTEMPTS: usize = 3;

/// A running one. Dropping it kills it, its files go with it.
#[derive(Debug)]
pub struct Served {
    child: Child,
    client: Client,
    dir: TempDir,
}

impl Served {
    /// A Prometheus with this configuration. The files that it names are relative to it.
    ///
    /// # Errors
    /// When it is not installed, or is not ready in time: with its log.
    pub fn prometheus(config: &str) -> Result<Self> {
        Self::start("prometheus", config, |dir, address| {
            vec![
                format!("--config.file={}", dir.join("config.yml").display()).into(),
                format!("--storage.tsdb.path={}", dir.join("data").display()).into(),
                format!("--web.listen-address={address}").into(),
                "--enable-feature=exemplar-storage".into(),
            ]
        })
    }

    /// An Alertmanager with this configuration, alone.
    ///
    /// # Errors
    /// As there.
    pub fn alertmanager(config: &str) -> Result<Self> {
        Self::start("prometheus-alertmanager", config, |dir, address| {
            vec![
                format!("--config.file={}", dir.join("config.yml").display()).into(),
                format!("--storage.path={}", dir.join("data").display()).into(),
                format!("--web.listen-address={address}").into(),
                "--cluster.listen-address=".into(),
            ]
        })
    }

    fn start(
        program: &str,
        config: &str,
        arguments: impl Fn(&Path, &str) -> Vec<OsString>,
    ) -> Result<Self> {
        let found = find_program(program).with_context(|| format!("{program} is not installed"))?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let dir = TempDir::with_prefix("killwatch-test-").context("make a directory")?;
            std::fs::write(dir.path().join("config.yml"), config).context("write config.yml")?;
            let log = File::create(dir.path().join("log")).context("open a log")?;
            let address = free_address()?;
            let child = Command::new(&found)
                .args(arguments(dir.path(), &address))
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone().context("share the log")?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("start {program}"))?;
            let mut served = Self { child, client: Client::new(address), dir };
            match served.wait_until_ready() {
                Ok(()) => return Ok(served),
                Err(error) => {
                    let log = served.log()?;
                    let taken = log.contains("ddress already in use");
                    let error = error.context(format!("{program} did not start; its log:\n{log}"));
                    if !taken {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.context("no port stays free")?)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        wait_until(STARTS_WITHIN, "it is ready", || {
            if let Some(status) = self.child.try_wait().context("look after it")? {
                bail!("it ended: {status}");
            }
            Ok(self.client.get("/-/ready").is_ok_and(|(status, _)| status == 200).then_some(()))
        })
    }

    /// Its address, such as `127.0.0.1:9090`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.client.address()
    }

    /// What it wrote.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(self.dir.path().join("log")).context("read its log")
    }

    /// Body of a good answer, as JSON.
    ///
    /// # Errors
    /// When there is none.
    pub fn json(&self, path: &str) -> Result<Value> {
        let (status, body) = self.client.get(path)?;
        if status != 200 {
            bail!("GET {path} says {status}: {body}");
        }
        serde_json::from_str(&body).with_context(|| format!("GET {path} is no JSON: {body}"))
    }

    /// Posts to it; a good answer is all that is wanted.
    ///
    /// # Errors
    /// When there is none.
    pub fn post(&self, path: &str, body: &Value) -> Result<()> {
        match self.client.post(path, body)? {
            (200..=299, _) => Ok(()),
            (status, said) => bail!("POST {path} says {status}: {said}"),
        }
    }

    /// Series that a Prometheus has for this query, now.
    ///
    /// # Errors
    /// When it refuses the query.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let answer = self.json(&format!("/api/v1/query?query={}", escaped(query)))?;
        result(&answer).with_context(|| format!("{query}: {answer}"))
    }

    /// Series that a Prometheus has for this query between two times in seconds, at each `step`.
    ///
    /// # Errors
    /// When it refuses the query.
    pub fn query_range(&self, query: &str, from: f64, to: f64, step: f64) -> Result<Vec<Value>> {
        let query_part = escaped(query);
        let path =
            format!("/api/v1/query_range?query={query_part}&start={from}&end={to}&step={step}");
        let answer = self.json(&path)?;
        result(&answer).with_context(|| format!("{query}: {answer}"))
    }
}

fn result(answer: &Value) -> Option<Vec<Value>> {
    let data = answer.get("data")?;
    // A number by itself is one series.
    if data["resultType"] == "scalar" {
        return Some(vec![serde_json::json!({ "metric": {}, "value": data["result"] })]);
    }
    data["result"].as_array().cloned()
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail only when it is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
