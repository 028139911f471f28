//! How a victim talks: one line of JSON out, one line in.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Where a victim waits until it may act, if it was told to.
pub(crate) struct Gate {
    closed: bool,
}

impl Gate {
    pub(crate) const fn new(closed: bool) -> Self {
        Self { closed }
    }

    /// Says who this is and waits for leave. Without `--gate`: nothing.
    pub(crate) fn pass(&self) -> Result<()> {
        self.pass_saying(&who()?)
    }

    /// Like [`Gate::pass`], with other words.
    pub(crate) fn pass_saying(&self, words: &Value) -> Result<()> {
        if self.closed {
            say(words)?;
            wait_for_line()?;
        }
        Ok(())
    }
}

/// Who this is: pid, parent and the ids of all threads.
pub(crate) fn who() -> Result<Value> {
    let mut tids = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").context("list the threads")? {
        tids.push(entry?.file_name().to_string_lossy().parse::<u32>()?);
    }
    Ok(
        json!({ "pid": std::process::id(), "ppid": std::os::unix::process::parent_id(), "tids": tids }),
    )
}

/// One line on standard output.
pub(crate) fn say(words: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{words}")?;
    out.flush().context("write to standard output")
}

/// Waits for the end of standard input.
pub(crate) fn hold() -> Result<()> {
    let mut rest = [0; 64];
    while std::io::stdin().lock().read(&mut rest).context("read standard input")? > 0 {}
    Ok(())
}

/// Reads one line byte by byte: what follows it is for a child that shares this standard input.
fn wait_for_line() -> Result<()> {
    let mut byte = [0];
    let input = std::io::stdin().lock();
    let mut input = std::fs::File::from(rustix::io::dup(&input).context("share standard input")?);
    while input.read(&mut byte).context("read standard input")? == 1 && byte != *b"\n" {}
    Ok(())
}
