//! Asking an engine by its API: HTTP over a Unix socket, one request a connection.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::wait::scaled;

/// An answer takes this long at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks one engine.
#[derive(Debug)]
pub(super) struct Api {
    socket: PathBuf,
}

impl Api {
    pub(super) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.ask("GET", path, "application/json", b"")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.ask("POST", path, "application/json", body.to_string().as_bytes())
    }

    /// A POST without a body: one that is not read has the connection reset.
    pub(super) fn act(&self, path: &str) -> Result<Value> {
        self.ask("POST", path, "application/json", b"")
    }

    pub(super) fn delete(&self, path: &str) -> Result<Value> {
        self.ask("DELETE", path, "application/json", b"")
    }

    /// The body of a good answer as JSON; null if it is none. HTTP/1.0, so that an answer ends where its connection does.
    pub(super) fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Value> {
        let what = || format!("{method} {path}");
        let mut stream = UnixStream::connect(&self.socket).with_context(what)?;
        stream.set_read_timeout(Some(scaled(PATIENCE))).with_context(what)?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body))
            .with_context(what)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).with_context(what)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").with_context(what)?;
        let status: u16 = head.split(' ').nth(1).and_then(|s| s.parse().ok()).with_context(what)?;
        if !(200..400).contains(&status) {
            bail!("{} says {status}: {body}", what());
        }
        Ok(serde_json::from_str(body).unwrap_or_default())
    }
}
