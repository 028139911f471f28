//! Threads that leave, and threads that become another program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::mpsc::sync_channel;

use anyhow::{Context as _, Result, bail};
use nix::libc;
use serde_json::json;

use crate::gate::{self, Gate};

/// Says to a program that becomes itself again that it has been there.
const AGAIN: &str = "VICTIM_AGAIN";

/// End the first thread alone; another one does the act, after a second line on standard input.
pub(crate) fn leaderless(gate: &Gate, next: Vec<OsString>) -> Result<ExitCode> {
    let (leave, left) = sync_channel::<()>(1);
    let worker = std::thread::Builder::new().name("worker".to_owned()).spawn(move || {
        let done = left.recv().context("the first thread is gone too early").and_then(|()| {
            while !gate::first_thread_is_gone()? {
                std::thread::yield_now();
            }
            gate::say(&json!({ "leader": "gone" }))?;
            gate::wait_for_line()?;
            crate::act(crate::parse(next)?, &Gate::new(false))
        });
        // Nobody is left to hand this on to: the process ends with its last thread.
        if let Err(error) = done {
            eprintln!("victim: {error:#}");
        }
    });
    let _worker = worker.context("start a thread")?;
    gate.pass()?;
    leave.send(()).context("tell the worker")?;
    // SAFETY: ends this thread and nothing else. What it holds stays as it is: the worker uses none of it.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    bail!("the first thread lives on")
}

/// Again and again, a thread that is not the first becomes this same program.
pub(crate) fn become_again(gate: &Gate) -> Result<ExitCode> {
    if std::env::var_os(AGAIN).is_none() {
        gate.pass()?;
    }
    for _ in 0..3 {
        std::thread::Builder::new()
            .name("bystander".to_owned())
            .spawn(crate::memory::idle)
            .context("start a thread")?;
    }
    // Named as the program, so that whoever dies in the middle of it has one name.
    let heir = std::thread::Builder::new().name("victim".to_owned()).spawn(|| {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let become_it =
            |program| Command::new(program).arg0(name).args(arguments).env(AGAIN, "1").exec();
        // By its path, so that its name stays.
        let error = std::env::current_exe().map_or_else(|error| error, become_it);
        eprintln!("victim: cannot become itself: {error}");
    });
    // It does not come back from that.
    let _ = heir.context("start a thread")?.join();
    bail!("still the same")
}
