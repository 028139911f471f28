//! The kernel log as a source of deaths, where BPF cannot be had: it tells of OOM kills, and of nothing else.
//!
//! * [`parse`] reads its lines, [`story`] makes kills of them; both pure.
//! * [`reader`] reads `/dev/kmsg` on a thread of its own.

pub mod parse;
pub mod reader;
pub mod story;

/// The log.
pub const PATH: &str = "/dev/kmsg";
