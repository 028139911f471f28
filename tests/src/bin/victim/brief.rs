//! Short lives, and environments that cannot be read.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::gate::{self, Gate};
use crate::strings;

/// What is brief, or hides.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Act {
    /// Run this program again and again, each time with the turn's number as its only variable, JOB_ID, and say how each ended:
    /// `{"child": PID, "turn": N, "signal": N}`
    Brief {
        /// How many
        #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
        count: u16,
        /// Send each SIGKILL
        #[arg(long, value_enum)]
        kill: Option<Moment>,
        /// What each does, as for this program
        #[arg(last = true, required = true)]
        act: Vec<OsString>,
    },
    /// Give back the memory that holds the environment, whole pages of it, and call abort()
    Forgetful,
}

/// When to kill.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Moment {
    /// When it has said something
    Said,
    /// While it may still be in execve(2)
    AtOnce,
}

pub(crate) fn act(act: &Act, gate: &Gate) -> Result<ExitCode> {
    gate.pass()?;
    match act {
        Act::Brief { count, kill, act } => {
            for turn in 0..*count {
                brief(turn, *kill, act)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Act::Forgetful => {
            strings::give_environment_back()?;
            std::process::abort()
        }
    }
}

fn brief(turn: u16, kill: Option<Moment>, act: &[OsString]) -> Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let mut child = Command::new(own)
        .args(act)
        .env_clear()
        .env("JOB_ID", turn.to_string())
        // Held open, so that nobody ends by itself who waits for a line.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start a child")?;
    let pid = child.id();
    match kill {
        None => {}
        Some(Moment::AtOnce) => child.kill().context("kill the child")?,
        Some(Moment::Said) => kill_when_said(&mut child)?,
    }
    let stdin = child.stdin.take();
    let status = child.wait().context("wait for the child")?;
    drop(stdin);
    gate::say(&json!({ "child": pid, "turn": turn, "signal": status.signal() }))
}

fn kill_when_said(child: &mut Child) -> Result<()> {
    let words = child.stdout.as_mut().context("no pipe from the child")?;
    words.read_exact(&mut [0]).context("hear the child")?;
    child.kill().context("kill the child")
}
