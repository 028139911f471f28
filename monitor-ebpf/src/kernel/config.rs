//! The read-only global that the daemon fills at load.

use killwatch_ebpf::layout::{ABSENT, Config};

/// Overridden by the daemon before the programs are loaded, then frozen: the verifier sees each value as a constant and drops
/// the branches that this kernel does not need.
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Config = zerocopy::transmute!([0_u8; size_of::<Config>()]);

/// Reads one field of [`CONFIG`].
macro_rules! config {
    ($($field:ident).+) => {
        $crate::kernel::config::constant(&$crate::kernel::config::CONFIG.$($field).+)
    };
}
pub(crate) use config;

/// Volatile, since the compiler would else fold the zero that stands in the object file.
#[inline(always)]
pub(crate) fn constant(field: &u32) -> u32 {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::read_volatile(field) }
}

/// Offset of a field, if this kernel has it.
pub(crate) fn present(offset: u32) -> Option<usize> {
    if offset == ABSENT { None } else { Some(offset as usize) }
}
