//! A process that dies on demand. The scenarios and the bench run it; its truth is what records are held to.
//!
//! With `--gate` it says who it is (one line of JSON) and does nothing more until it reads a line or the end of its
//! standard input, so that whoever runs it can look at it in `/proc` while it lives.

mod brief;
mod churn;
mod crowd;
mod family;
mod fault;
mod gate;
mod kin;
mod limit;
mod memory;
mod signals;
mod strings;
mod threads;

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use nix::sys::signal::{SigHandler, Signal};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::gate::Gate;

#[derive(Debug, Parser)]
#[command(
    name = "victim",
    about = "Dies on demand: what the end-to-end scenarios and the bench kill"
)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    act: Act,
}

/// What a victim with another name does: a command line without the place.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Next {
    #[command(subcommand)]
    act: Act,
}

/// Where and as whom to run.
#[derive(Debug, Args)]
struct Place {
    /// Directory of a cgroup to enter first; may be given for several hierarchies
    #[arg(long, value_name = "DIR")]
    cgroup: Vec<PathBuf>,
    /// User and group id to take on
    #[arg(long, value_name = "ID")]
    uid: Option<u32>,
    /// Preference as an OOM victim, -1000 to 1000
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    oom_score_adj: Option<i32>,
    /// Say who this is and wait for a line on standard input before acting
    #[arg(long)]
    gate: bool,
    /// Does nothing: for a victim whose command line is to look like node's
    #[arg(long, value_name = "MIB")]
    max_old_space_size: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Allocate and touch memory until killed, or up to a ceiling
    Hog(memory::Hog),
    #[command(flatten)]
    Brief(brief::Act),
    #[command(flatten)]
    Churn(churn::Act),
    #[command(flatten)]
    Fault(fault::Act),
    #[command(flatten)]
    Limit(limit::Act),
    #[command(flatten)]
    Signal(signals::Act),
    #[command(flatten)]
    Kin(kin::Act),
    /// Print the pid and wait for the end of standard input
    Sleep {
        /// Number of a signal to ignore
        #[arg(long)]
        ignore: Option<i32>,
        /// Threads in all, the first one included
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
        threads: u16,
    },
    /// End the first thread, say `{"leader": "gone"}`, and after one more line do something on another
    Leaderless {
        /// What to do then, as for this program
        #[arg(last = true, required = true)]
        act: Vec<OsString>,
    },
    /// Become this same program again and again, by a thread that is not the first
    BecomeAgain,
    /// Become a command
    Become {
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run a command and pass on its end as a shell does: its exit code, or 128 + its signal
    Relay {
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// A chain of relays, each the parent of the next, with a command at its end
    Nest {
        /// Relays in the chain
        #[arg(value_parser = clap::value_parser!(u8).range(1..=16))]
        depth: u8,
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run a command, print the child's pid, and live on after its end until the end of standard input
    Parent {
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Become a command that the kernel kills when the thread that started it ends
    Tied {
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Become a command that may not use BPF: without the capabilities for it
    Incapable {
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Become a command that can have no capabilities but these
    Bounded {
        /// Their names, such as BPF,PERFMON
        #[arg(value_delimiter = ',')]
        keep: Vec<String>,
        /// Command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Take another process name, then do something
    Named {
        /// Name: 1 to 15 bytes of any kind
        name: OsString,
        /// What to do then, as for this program
        #[arg(last = true, required = true)]
        act: Vec<OsString>,
    },
    /// Start children one after another that exit with 0
    Exits {
        /// How many
        count: u32,
    },
    /// Start children one after another and send each a SIGKILL
    Aborts {
        /// How many
        count: u32,
        /// Be sent no SIGCHLD for them: the only signal of each is the one that kills
        #[arg(long)]
        unheard: bool,
    },
    /// Ignore a signal and send it to this process
    Signals {
        /// How many times
        count: u32,
        /// Number of the signal
        signal: i32,
    },
    /// Start children that wait, kill all of them at once with SIGKILL, and print their pids
    Deaths {
        /// How many
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
    },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    enter(&arguments.place)?;
    act(arguments.act, &Gate::new(arguments.place.gate))
}

/// What a command line without the place asks for.
fn parse(arguments: Vec<OsString>) -> Result<Act> {
    Ok(Next::try_parse_from(arguments)?.act)
}

fn sleep(ignore: Option<i32>, threads: u16) -> Result<ExitCode> {
    if let Some(number) = ignore {
        let signal = Signal::try_from(number).context("a signal number")?;
        // SAFETY: to ignore a signal runs no code of ours in a handler.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }
            .context("ignore the signal")?;
    }
    for _ in 1..threads {
        std::thread::Builder::new()
            .name("bystander".to_owned())
            .spawn(memory::idle)
            .context("start a thread")?;
    }
    gate::say(&gate::who()?)?;
    gate::hold()?;
    Ok(ExitCode::SUCCESS)
}

/// Takes on the place that was asked for, and makes sure that no death leaves a core behind.
fn enter(place: &Place) -> Result<()> {
    for directory in &place.cgroup {
        let file = directory.join("cgroup.procs");
        std::fs::write(&file, std::process::id().to_string())
            .with_context(|| format!("enter {}", file.display()))?;
    }
    if let Some(adj) = place.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", adj.to_string()).context("set oom_score_adj")?;
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("forbid core dumps")?;
    if let Some(id) = place.uid {
        rustix::thread::set_thread_gid(rustix::process::Gid::from_raw(id))
            .context("set the group id")?;
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(id))
            .context("set the user id")?;
    }
    strings::hold()?;
    // A core pattern that is a pipe does not heed the limit.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbid core dumps")
}

fn act(act: Act, gate: &Gate) -> Result<ExitCode> {
    match act {
        Act::Hog(hog) => memory::hog(gate, &hog),
        Act::Brief(act) => brief::act(&act, gate),
        Act::Churn(act) => churn::act(&act, gate),
        Act::Fault(act) => fault::act(&act, gate),
        Act::Limit(act) => limit::act(&act, gate),
        Act::Signal(act) => signals::act(&act, gate),
        Act::Kin(act) => kin::act(act, gate),
        Act::Sleep { ignore, threads } => sleep(ignore, threads),
        Act::Leaderless { act } => threads::leaderless(gate, act),
        Act::BecomeAgain => threads::become_again(gate),
        Act::Become { command } => family::replace(&command),
        Act::Relay { command } => family::relay(gate, &command),
        Act::Nest { depth, command } => family::nest(gate, depth, command),
        Act::Parent { command } => family::parent(gate, &command),
        Act::Tied { command } => family::tied(&command),
        Act::Incapable { command } => family::incapable(&command),
        Act::Bounded { keep, command } => family::bounded(&keep, &command),
        Act::Named { name, act: next } => {
            let name = name.into_vec();
            if name.is_empty() || name.len() > 15 {
                bail!("a process name has 1 to 15 bytes, this one {}", name.len());
            }
            rustix::thread::set_name(&CString::new(name)?).context("set the process name")?;
            self::act(parse(next)?, gate)
        }
        Act::Exits { count } => crowd::exits(gate, count),
        Act::Aborts { count, unheard } => crowd::aborts(gate, count, unheard),
        Act::Signals { count, signal } => crowd::signals(gate, count, signal),
        Act::Deaths { count } => crowd::deaths(gate, count),
    }
}
