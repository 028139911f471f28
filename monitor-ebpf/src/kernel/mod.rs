//! The boundary to the kernel: field reads, the ring, the configuration. All unsafe code is below here.
#![expect(unsafe_code, reason = "reads kernel memory through helpers and verifier-checked loads")]

pub(crate) mod cgroup;
pub(crate) mod config;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod read;
pub(crate) mod ring;
pub(crate) mod task;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program from which this can be reached.
    loop {}
}

/// The helpers that the programs use are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
