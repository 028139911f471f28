//! Taking memory until the kernel objects.

use std::hint::black_box;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::libc;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use serde_json::json;

use crate::gate::{self, Gate};

const MIB: usize = 1 << 20;

/// Exit code of a hog that reached its ceiling: nothing killed it.
const SURVIVED: u8 = 3;

/// What to take memory for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The process's own
    Anon,
    /// Mapped and shared
    Shmem,
    /// A file in memory, not mapped
    Tmpfs,
    /// A file on a disk, and so page cache
    Cache,
}

/// A hog.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Hog {
    /// Threads in all, the first one included
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: u16,
    /// Allocate on the last thread instead of the first
    #[arg(long)]
    allocate_on_thread: bool,
    /// Threads that are started after the gate, and allocate too
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=64))]
    helpers: u16,
    /// From this memory node alone
    #[arg(long, value_parser = clap::value_parser!(u8).range(..63))]
    node: Option<u8>,
    /// Ceiling, in MiB: at it, give up with exit code 3
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    limit_mib: u32,
    /// MiB a second; else as fast as it goes
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
    /// Directory on a disk, for the kind cache
    #[arg(long, value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// At the ceiling say `{"held": MIB}` and wait
    #[arg(long)]
    hold: bool,
    /// At the ceiling call abort()
    #[arg(long, conflicts_with = "hold")]
    abort: bool,
    /// What to take
    #[arg(long, value_enum, default_value_t = Kind::Anon)]
    kind: Kind,
}

/// Allocates on the first or the last thread, until killed or the ceiling is held.
pub(crate) fn hog(gate: &Gate, hog: &Hog) -> Result<ExitCode> {
    // For its threads, which end with the process.
    let hog: &'static Hog = Box::leak(Box::new(hog.clone()));
    let Hog { threads, allocate_on_thread, .. } = *hog;
    let allocate_on_last = allocate_on_thread && threads > 1;
    if let Some(node) = hog.node {
        bind(node)?;
    }
    let (start, started) = std::sync::mpsc::sync_channel::<()>(1);
    let mut last = allocate_on_last
        .then(|| {
            std::thread::Builder::new().name("allocator".to_owned()).spawn(move || {
                // An error is the first thread's end, and so the process's.
                if started.recv().is_ok() {
                    take(hog);
                }
            })
        })
        .transpose()
        .context("start the allocating thread")?;
    for _ in 1 + u16::from(allocate_on_last)..threads {
        std::thread::Builder::new()
            .name("bystander".to_owned())
            .spawn(idle)
            .context("start a thread")?;
    }
    gate.pass()?;
    // A thread that starts at the limit may get no stack for its signals, and would abort the process.
    let all_started = Arc::new(Barrier::new(1 + usize::from(hog.helpers)));
    for _ in 0..hog.helpers {
        let all_started = Arc::clone(&all_started);
        let help = move || {
            all_started.wait();
            take(hog);
        };
        std::thread::Builder::new()
            .name("helper".to_owned())
            .spawn(help)
            .context("start a thread")?;
    }
    all_started.wait();
    match last.take() {
        Some(thread) => {
            start.send(()).context("start allocating")?;
            // A panic there has been printed; either way nothing killed this process.
            let _ = thread.join();
        }
        None => take(hog),
    }
    eprintln!("victim: still alive with {} MiB", hog.limit_mib);
    Ok(ExitCode::from(SURVIVED))
}

/// All further memory comes from this node or not at all.
fn bind(node: u8) -> Result<()> {
    let mask = 1_u64 << node;
    // SAFETY: the kernel reads one word, which outlives the call.
    let done = unsafe {
        libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, &raw const mask, u64::BITS)
    };
    nix::errno::Errno::result(done).map(drop).context("bind to a memory node")
}

fn take(hog: &Hog) {
    let limit_mib = hog.limit_mib;
    let pace = Pace::new(hog.rate);
    let held = match hog.kind {
        Kind::Anon => Ok(allocate(limit_mib, &pace)),
        Kind::Shmem => share(limit_mib, &pace),
        Kind::Tmpfs => memfd_create("hog", MemfdFlags::empty())
            .context("make a file in memory")
            .and_then(|file| write(file.into(), limit_mib, &pace)),
        Kind::Cache => std::fs::File::create(hog.directory.join("hog.cache"))
            .context("make a file")
            .and_then(|file| write(file, limit_mib, &pace)),
    };
    let held = held.unwrap_or_else(|error| {
        eprintln!("victim: {error:#}");
        None
    });
    if hog.abort {
        std::process::abort();
    }
    if hog.hold && gate::say(&json!({ "held": limit_mib })).is_ok() {
        idle();
    }
    black_box(&held);
}

/// What keeps memory taken.
type Held = Option<Box<dyn std::any::Any>>;

/// How fast it goes.
struct Pace {
    since: Instant,
    rate: Option<u32>,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self { since: Instant::now(), rate }
    }

    /// Waits until so many MiB may be held.
    fn keep(&self, held: usize) {
        let Some(rate) = self.rate else { return };
        let until = Duration::from_secs_f64(held as f64 / f64::from(rate));
        while let Some(left) = until.checked_sub(self.since.elapsed()) {
            std::thread::park_timeout(left);
        }
    }
}

fn allocate(limit_mib: u32, pace: &Pace) -> Held {
    let mut held = Vec::with_capacity(limit_mib as usize);
    while held.len() < limit_mib as usize {
        pace.keep(held.len());
        let mut block = Vec::new();
        // At the limit the kernel may refuse the mapping itself. Whoever is to be killed there asks again.
        if block.try_reserve_exact(MIB).is_err() {
            std::thread::yield_now();
            continue;
        }
        // Not zeros: those would be pages that are mapped and not yet there.
        block.resize(MIB, 0xa5_u8);
        held.push(black_box(block));
    }
    Some(Box::new(held))
}

fn share(limit_mib: u32, pace: &Pace) -> Result<Held> {
    for held in 0..limit_mib {
        pace.keep(held as usize);
        // SAFETY: a new mapping at a place of the kernel's choice, aliasing nothing; all of it is writable and is never unmapped.
        unsafe {
            let mapped = mmap_anonymous(
                std::ptr::null_mut(),
                MIB,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
            .context("map shared memory")?;
            mapped.cast::<u8>().write_bytes(0xa5, MIB);
        }
    }
    Ok(None)
}

fn write(mut file: std::fs::File, limit_mib: u32, pace: &Pace) -> Result<Held> {
    let chunk = vec![0xa5; MIB];
    for held in 0..limit_mib {
        pace.keep(held as usize);
        file.write_all(&chunk).context("write into the file")?;
    }
    Ok(Some(Box::new(file)))
}

pub(crate) fn idle() {
    loop {
        std::thread::park();
    }
}
