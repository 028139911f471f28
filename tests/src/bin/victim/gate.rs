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
    Ok(json!({ "pid": own_pid()?, "ppid": std::os::unix::process::parent_id(), "tids": tids }))
}

/// This process's id as the `/proc` of the host knows it, from inside a pid namespace too.
pub(crate) fn own_pid() -> Result<u32> {
    let link = std::fs::read_link("/proc/self").context("look at this process")?;
    link.to_string_lossy()
        .parse()
        .with_context(|| format!("/proc/self leads to {}", link.display()))
}

/// Whether the first thread of this process has ended: it stays as a zombie.
pub(crate) fn first_thread_is_gone() -> Result<bool> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", own_pid()?))
        .context("look at the first thread")?;
    Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
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
pub(crate) fn wait_for_line() -> Result<()> {
    let mut byte = [0];
    let input = std::io::stdin().lock();
    let mut input = std::fs::File::from(rustix::io::dup(&input).context("share standard input")?);
    while input.read(&mut byte).context("read standard input")? == 1 && byte != *b"\n" {}
    Ok(())
}
