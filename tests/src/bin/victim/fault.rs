//! Deaths by the process's own hand.

use std::process::ExitCode;

use anyhow::Result;

use crate::gate::Gate;

pub(crate) fn abort(gate: &Gate) -> Result<ExitCode> {
    gate.pass()?;
    std::process::abort()
}

pub(crate) fn segv(gate: &Gate) -> Result<ExitCode> {
    gate.pass()?;
    let nowhere = std::ptr::without_provenance_mut::<u8>(16);
    // SAFETY: none is needed by what follows: page 0 is never mapped (vm.mmap_min_addr), so the write is a fault that ends the
    // process. Only a real fault makes the kernel send the SIGSEGV that the scenario is about.
    unsafe { nowhere.write_volatile(1) };
    Ok(ExitCode::SUCCESS)
}
