//! Deaths by the process's own hand.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use nix::libc;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::Pid;

use crate::gate::Gate;

/// Ways to end oneself.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Act {
    /// Call abort()
    Abort,
    /// Write to an address where nothing is mapped
    Segv,
    /// Read a mapping past the end of its file
    Bus,
    /// Execute an instruction that there is not
    Ill,
    /// Divide by zero
    Fpe,
    /// Run into a breakpoint that nobody waits for
    Trap,
    /// Call what a seccomp filter answers with the process's end
    SeccompFilter,
    /// Call what strict seccomp does not allow
    SeccompStrict,
    /// Write into a pipe that nobody reads
    Pipe,
    /// Let an alarm clock ring
    Alarm,
    /// Send this signal to oneself
    Raise {
        /// Its number
        signal: i32,
    },
    /// Exit with a code
    Exit {
        /// Exit code
        code: u8,
    },
}

pub(crate) fn act(act: &Act, gate: &Gate) -> Result<ExitCode> {
    gate.pass()?;
    match act {
        Act::Abort => std::process::abort(),
        Act::Segv => segv(),
        Act::Bus => bus()?,
        Act::Ill | Act::Fpe | Act::Trap => instruction(act)?,
        Act::SeccompFilter => seccomp_filter()?,
        Act::SeccompStrict => seccomp_strict()?,
        Act::Pipe => pipe()?,
        Act::Alarm => {
            nix::unistd::alarm::set(1);
            nix::unistd::pause();
        }
        Act::Raise { signal } => {
            nix::sys::signal::kill(Pid::this(), Signal::try_from(*signal)?)
                .context("send the signal")?;
        }
        Act::Exit { code } => return Ok(ExitCode::from(*code)),
    }
    bail!("still alive")
}

fn segv() {
    let nowhere = std::ptr::without_provenance_mut::<u8>(16);
    // SAFETY: none is needed by what follows: page 0 is never mapped (vm.mmap_min_addr), so the write is a fault that ends the
    // process. Only a real fault makes the kernel send the SIGSEGV that the scenario is about.
    unsafe { nowhere.write_volatile(1) };
}

fn bus() -> Result<()> {
    let file = rustix::fs::memfd_create("empty", rustix::fs::MemfdFlags::empty())
        .context("make an empty file")?;
    // SAFETY: a new mapping at a place of the kernel's choice, aliasing nothing.
    let page = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            4096,
            rustix::mm::ProtFlags::READ,
            rustix::mm::MapFlags::SHARED,
            &file,
            0,
        )
    }
    .context("map the empty file")?;
    // SAFETY: the page is mapped, and past the end of its file: the read is a fault that ends the process, as is wanted.
    unsafe { page.cast::<u8>().read_volatile() };
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn instruction(act: &Act) -> Result<()> {
    // SAFETY: each raises an exception that ends the process; what it clobbers before that is said.
    unsafe {
        match act {
            Act::Ill => std::arch::asm!("ud2"),
            Act::Trap => std::arch::asm!("int3"),
            Act::Fpe => std::arch::asm!(
                "idiv {zero:e}", zero = in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _
            ),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction(_act: &Act) -> Result<()> {
    bail!("known for x86_64 only")
}

/// Allows all but getppid(), which ends the process with SIGSYS.
fn seccomp_filter() -> Result<()> {
    let statement = |code: u32, k: u32, jt: u8, jf: u8| -> Result<libc::sock_filter> {
        Ok(libc::sock_filter { code: u16::try_from(code)?, jt, jf, k })
    };
    let number = u32::try_from(libc::SYS_getppid)?;
    let mut program = [
        // The first field of seccomp_data is the number of the call.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)?,
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1)?,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS, 0, 0)?,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0)?,
    ];
    let filter =
        libc::sock_fprog { len: u16::try_from(program.len())?, filter: program.as_mut_ptr() };
    // SAFETY: both arguments are numbers; then `filter` and the program that it points at outlive the call, which copies them.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    };
    nix::errno::Errno::result(done).context("set the seccomp filter")?;
    nix::unistd::getppid();
    Ok(())
}

fn seccomp_strict() -> Result<()> {
    // SAFETY: the arguments are numbers.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    nix::errno::Errno::result(done).context("set strict seccomp")?;
    nix::unistd::getppid();
    Ok(())
}

fn pipe() -> Result<()> {
    // SAFETY: the default action runs no code of ours. Rust's runtime has every program ignore the signal.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }
        .context("take the signal's default action")?;
    let (reader, mut writer) = std::io::pipe().context("make a pipe")?;
    drop(reader);
    writer.write_all(b"hello?").context("write into the pipe")
}
