//! Programs that do nothing, of the types that the others have: what `cargo xtask bench` subtracts. Attached on request only.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn empty_exit(_: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "signal_generate")]
pub(crate) fn empty_signal(_: BtfTracePointContext) -> i32 {
    0
}
