//! The wire between killwatch's kernel side and its daemon.
//!
//! * [`wire`]: the records that the programs put on the ring, in the order in which a death produces them.
//! * [`layout`]: which kernel struct fields the programs read. The daemon finds each offset in the running
//!   kernel's BTF and hands the whole table over as one read-only global; no offset is written in the source.
//!
//! The programs themselves are in `main.rs` and its modules and compile for `target_arch = "bpf"` only. This
//! library compiles for both targets, so that one definition of each record serves both sides.
#![no_std]
#![forbid(unsafe_code)]

pub mod layout;
pub mod wire;
