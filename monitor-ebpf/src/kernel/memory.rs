//! The memory of a process, and texts in it.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use killwatch_ebpf::wire::Memory;

use super::{config::config, read::Address};

const UNKNOWN: i64 = -1;

/// Order of the counters in `mm_struct.rss_stat` (include/linux/mm_types_task.h).
#[derive(Clone, Copy)]
#[repr(u32)]
enum Rss {
    File = 0,
    Anon = 1,
    Swap = 2,
    Shmem = 3,
}

#[inline(always)]
fn rss(mm: Address, kind: Rss) -> i64 {
    let base = config!(layout.mm_rss_stat);
    if base == killwatch_ebpf::layout::ABSENT {
        return UNKNOWN;
    }
    mm.get(base + kind as u32 * config!(rss_stat_stride) + config!(rss_stat_count))
        .unwrap_or(UNKNOWN)
}

/// The memory of `mm`; every field -1 where there is none.
#[inline(always)]
pub(crate) fn describe(mm: Option<Address>) -> Memory {
    let Some(mm) = mm else {
        return Memory {
            file: UNKNOWN,
            anon: UNKNOWN,
            swap: UNKNOWN,
            shmem: UNKNOWN,
            hiwater_rss: UNKNOWN,
            total_vm: UNKNOWN,
            pgtables_bytes: UNKNOWN,
        };
    };
    Memory {
        file: rss(mm, Rss::File),
        anon: rss(mm, Rss::Anon),
        swap: rss(mm, Rss::Swap),
        shmem: rss(mm, Rss::Shmem),
        hiwater_rss: mm.get(config!(layout.mm_hiwater_rss)).unwrap_or(UNKNOWN),
        total_vm: mm.get(config!(layout.mm_total_vm)).unwrap_or(UNKNOWN),
        pgtables_bytes: mm.get(config!(layout.mm_pgtables_bytes)).unwrap_or(UNKNOWN),
    }
}

/// A text in user space, as addresses of the current process.
#[derive(Clone, Copy)]
pub(crate) struct UserText {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl UserText {
    /// From the offsets of its first byte and of one past its last in the `mm_struct`.
    #[inline(always)]
    pub(crate) fn locate(mm: Address, start: u32, end: u32) -> Self {
        let (Some(start), Some(end)) = (mm.get::<u64>(start), mm.get::<u64>(end)) else {
            return Self { start: 0, len: 0 };
        };
        Self { start, len: if end > start { end - start } else { 0 } }
    }
}

/// Copies up to `N` bytes (a power of two) at `offset` of `text` and says how many; 0 if they cannot be read without a fault.
#[inline(always)]
pub(crate) fn copy_text<const N: usize>(text: UserText, offset: u64, to: &mut [u8; N]) -> u32 {
    let left = text.len.saturating_sub(offset);
    let from = (text.start + offset) as *const core::ffi::c_void;
    let to = to.as_mut_ptr().cast();
    // Two calls, since the verifier must see a bound: a constant, or a mask.
    let (copied, failed) = if left >= N as u64 {
        // SAFETY: the helper checks the source; the target has N bytes.
        (N as u64, unsafe { bpf_probe_read_user(to, N as u32, from) })
    } else {
        // Read anew, so that the mask stands right before the call: up to 6.1 a verifier forgets the bound of what was put on the stack in between.
        // SAFETY: a reference is valid for reads.
        let len = unsafe { core::ptr::read_volatile(&left) } & (N as u64 - 1);
        // SAFETY: as above, len < N.
        (len, unsafe { bpf_probe_read_user(to, len as u32, from) })
    };
    if failed == 0 { copied as u32 } else { 0 }
}

/// Copies a zero-terminated kernel string and says how many bytes it has without the zero; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn copy_kernel_text<const N: usize>(from: Address, to: &mut [u8; N]) -> u32 {
    // SAFETY: the helper checks the source; the target has N bytes.
    let copied = unsafe {
        bpf_probe_read_kernel_str(to.as_mut_ptr().cast(), N as u32, from.bits() as *const _)
    };
    if copied > 0 { copied as u32 - 1 } else { 0 }
}
