//! Asking the daemon over its Unix socket as somebody: with `curl`, as a user of choice and from a cgroup of choice.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cgroup::Group;

/// Somebody at the socket. Root, in the cgroup of the test, unless said otherwise.
#[derive(Debug, Clone)]
pub struct Asker {
    socket: PathBuf,
    uid: u32,
    group: Option<PathBuf>,
}

impl Asker {
    /// Root.
    #[must_use]
    pub fn root(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), uid: 0, group: None }
    }

    /// A user.
    #[must_use]
    pub fn user(socket: &Path, uid: u32) -> Self {
        Self { uid, ..Self::root(socket) }
    }

    /// The same, in this cgroup.
    #[must_use]
    pub fn within(mut self, group: &Group) -> Self {
        self.group = Some(group.dir().to_owned());
        self
    }

    /// Sends a request; status and JSON of the answer.
    ///
    /// # Errors
    /// When there is no answer, or it is not JSON.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Result<(u16, Value)> {
        let mut curl = self.curl(path);
        curl.args(["--max-time", "40", "--write-out", "\n%{http_code}", "--request", method]);
        if let Some(body) = body {
            curl.args(["--data-binary", body]);
        }
        let output = curl.stderr(Stdio::inherit()).output().context("run curl")?;
        ensure!(output.status.success(), "curl {method} {path}: {}", output.status);
        let text = String::from_utf8(output.stdout).context("the answer")?;
        let (json, status) = text.rsplit_once('\n').context("no status")?;
        let json = if json.is_empty() { Value::Null } else { serde_json::from_str(json)? };
        Ok((status.parse().context("the status")?, json))
    }

    /// What it is told of deaths.
    ///
    /// # Errors
    /// When that is no answer of 200.
    pub fn deaths(&self, query: &str) -> Result<Value> {
        let (status, answer) = self.ask("GET", &format!("/v1/deaths?{query}"), None)?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(answer)
    }

    /// Begins to read a stream into a file.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn stream(&self, query: &str, into: &Path) -> Result<Child> {
        let file = std::fs::File::create(into).context("make a file")?;
        let mut curl = self.curl(&format!("/v1/deaths/stream?{query}"));
        curl.arg("--no-buffer").stdout(file).spawn().context("run curl")
    }

    fn curl(&self, path: &str) -> Command {
        // The shell enters the cgroup as root, and only then becomes who asks.
        let enter = self.group.as_ref().map_or_else(String::new, |dir| {
            format!("echo $$ >'{}/cgroup.procs' && ", dir.display())
        });
        let script = format!(
            "{enter}exec setpriv --reuid {} --regid {} --clear-groups curl --silent --show-error --unix-socket \"$@\"",
            self.uid, self.uid
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh"])
            .arg(&self.socket)
            .arg(format!("http://killwatch{path}"));
        command
    }
}
