//! The records that a daemon tells: over its API, in its log sink, and on the command line.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::Daemon;
use crate::launch::binary;
use crate::schema;
use crate::truth::Truth;
use crate::wait::wait_until;

/// From a death until its record must be out.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

impl Daemon {
    /// Records, newest first, each held to the schema. `query` such as `pid=7`.
    ///
    /// # Errors
    /// When the answer or a record in it is malformed.
    pub fn deaths(&self, query: &str) -> Result<Vec<Value>> {
        let answer = self.json(&format!("/api/v1/deaths?{query}"))?;
        let records =
            answer.get("deaths").and_then(Value::as_array).context("an answer without `deaths`")?;
        records.iter().try_for_each(schema::validate)?;
        Ok(records.clone())
    }

    /// Records of a process: of none that had its pid before.
    ///
    /// # Errors
    /// As [`Daemon::deaths`].
    pub fn deaths_of(&self, truth: &Truth) -> Result<Vec<Value>> {
        let mut records = self.deaths(&format!("pid={}", truth.pid))?;
        records.retain(|record| truth.is_told_in(record));
        Ok(records)
    }

    /// The record of a process's death, as soon as it is there.
    ///
    /// # Errors
    /// When it does not come in time, or twice.
    pub fn death_of(&self, truth: &Truth) -> Result<Value> {
        self.record_of(truth, "dead", TELLS_WITHIN)
    }

    /// The record of a process with this `state`, as soon as it is there.
    ///
    /// # Errors
    /// When it does not come `within` that time, or twice.
    pub fn record_of(&self, truth: &Truth, state: &str, within: Duration) -> Result<Value> {
        let what = format!("a record that process {} is {state}", truth.pid);
        wait_until(within, &what, || {
            let mut records = self.deaths_of(truth)?;
            records.retain(|record| record["state"] == state);
            one(records, &what)
        })
    }

    /// All records of deaths in the log sink so far, oldest first, each held to the schema.
    ///
    /// # Errors
    /// When a whole line is no record.
    pub fn sink(&self) -> Result<Vec<Value>> {
        let mut lines = self.sunk()?;
        lines.retain(|line| line.get("alert").is_none());
        lines.iter().try_for_each(schema::validate)?;
        Ok(lines)
    }

    /// All alerts in the log sink so far, oldest first, each held to the schema.
    ///
    /// # Errors
    /// When a whole line is no record.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        let mut lines = self.sunk()?;
        lines.retain(|line| line.get("alert").is_some());
        lines.iter().try_for_each(schema::validate_alert)?;
        Ok(lines)
    }

    fn sunk(&self) -> Result<Vec<Value>> {
        self.sink_text()?
            .split_inclusive('\n')
            // What has no end yet is being written.
            .filter(|line| line.ends_with('\n'))
            .map(|line| {
                serde_json::from_str(line)
                    .with_context(|| format!("a line of the log sink: {line}"))
            })
            .collect()
    }

    /// The record of a process's death in the log sink, as soon as it is there.
    ///
    /// # Errors
    /// When it does not come in time, or twice.
    pub fn sunk_death_of(&self, truth: &Truth) -> Result<Value> {
        let what = format!("process {} in the log sink", truth.pid);
        wait_until(TELLS_WITHIN, &what, || {
            let mut records = self.sink()?;
            records.retain(|record| truth.is_told_in(record));
            one(records, &what)
        })
    }

    /// The same where the daemon was killed meanwhile, and may have forgotten what the sink had accepted last: once or more, always the same record.
    ///
    /// # Errors
    /// When it does not come in time, or two records tell of it.
    pub fn resunk_death_of(&self, truth: &Truth) -> Result<Value> {
        let what = format!("process {} in the log sink", truth.pid);
        wait_until(TELLS_WITHIN, &what, || {
            let mut records = self.sink()?;
            records.retain(|record| truth.is_told_in(record));
            records.dedup();
            one(records, &what)
        })
    }

    /// What another subcommand of the program prints, as lines of JSON. Asks this daemon, whether it runs or not.
    ///
    /// # Errors
    /// When it does not exit with 0, with what it said on standard error.
    pub fn tell(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = self.command(arguments).output().context("run the program")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("{arguments:?}: {}: {said}", output.status);
        }
        let text = String::from_utf8(output.stdout).context("its output is no text")?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("a line: {line}")))
            .collect()
    }

    /// Another subcommand of the program, which asks this daemon.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env("KILLWATCH_API", format!("http://{}", self.client.address()))
            .env("KILLWATCH_LEDGER_PATH", self.ledger())
            .stdin(Stdio::null());
        command
    }

    /// The file of its ledger, unless a flag says otherwise.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("state").join("ledger.redb")
    }
}

/// The one that there is; none if there is none yet.
fn one(mut records: Vec<Value>, what: &str) -> Result<Option<Value>> {
    match records.len() {
        0 | 1 => Ok(records.pop()),
        count => bail!("{what} is there {count} times: {:#}", Value::from(records)),
    }
}
