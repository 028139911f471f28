//! killwatch's kernel side: what runs at each hook, and nothing else.
//!
//! * `probes/`: one file per hook, in the order in which a death passes them.
//! * `kernel/`: reading kernel structs at offsets from BTF, and the ring. The only place with unsafe code.
//! * `maps.rs`: what one hook leaves for a later one.
//!
//! Principles: a normal exit costs a few loads and no helper call. Whoever knows best says it: the exit runs as the victim, the mark as
//! the allocating task, the signal as its sender. A record that does not fit on the ring is counted, never waited for.
//!
//! On any target but BPF this is an empty program, so that the workspace stays whole.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", deny(unsafe_code))]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod probes;
