//! Taking memory until the kernel objects.

use std::hint::black_box;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::gate::Gate;

const MIB: usize = 1 << 20;

/// Exit code of a hog that reached its ceiling: nothing killed it.
const SURVIVED: u8 = 3;

/// Allocates on the first or the last of `threads` threads, until killed or `limit_mib` are held.
pub(crate) fn hog(gate: &Gate, threads: u16, on_last: bool, limit_mib: u32) -> Result<ExitCode> {
    let allocate_on_last = on_last && threads > 1;
    let (start, started) = std::sync::mpsc::sync_channel::<()>(1);
    let mut last = allocate_on_last
        .then(|| {
            std::thread::Builder::new().name("allocator".to_owned()).spawn(move || {
                // An error is the first thread's end, and so the process's.
                if started.recv().is_ok() {
                    allocate(limit_mib);
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
    match last.take() {
        Some(thread) => {
            start.send(()).context("start allocating")?;
            // A panic there has been printed; either way nothing killed this process.
            let _ = thread.join();
        }
        None => allocate(limit_mib),
    }
    eprintln!("victim: still alive with {limit_mib} MiB");
    Ok(ExitCode::from(SURVIVED))
}

fn allocate(limit_mib: u32) {
    let mut held = Vec::new();
    for _ in 0..limit_mib {
        // Not zeros: those would be pages that are mapped and not yet there.
        held.push(black_box(vec![0xa5_u8; MIB]));
    }
    black_box(&held);
}

fn idle() {
    loop {
        std::thread::park();
    }
}
