//! Follows the memory of cgroups: the minutes before a kill, a warning before it comes, and the scene of a kill.
//!
//! One thread owns all of it, so that nothing here needs a lock and reading files delays no death:
//!
//! * [`book`] knows which cgroups are followed and which is due; [`followed`] is one of them, with its history ([`ring`]), its trend ([`fit`]) and whether it
//!   is near its limit ([`near`]). A look is one read of a file that is kept open; what a cgroup is made of is read only when it matters.
//! * [`files`], [`host`] and [`processes`] read what the kernel says, [`parse`] understands it.
//! * [`thread`] waits for what is due, for files that tell of a change, and for questions, which come through [`handle`]; in [`scenes`] deaths wait for what was
//!   seen ([`scene`]).
//!
//! A spike that takes all the room between two looks cannot be foreseen; the record of its death says how long before it was warned of: not at all. Pressure
//! triggers would need a write to a cgroup's file, which this daemon never does.

mod book;
mod config;
mod files;
mod fit;
mod followed;
mod handle;
mod host;
mod listing;
mod near;
pub mod parse;
mod processes;
mod ring;
mod scene;
mod scenes;
#[cfg(test)]
mod tests;
mod thread;

pub use book::Counts;
pub use config::{NearRule, WatchConfig};
pub use handle::{Ask, Told, Watch};
pub use listing::{CgroupUse, Cgroups};
pub use ring::BYTES as HISTORY_BYTES;
pub use scene::{Hit, LookAt, Scene};
pub use scenes::Scenes;
pub use thread::{Parts, start};

/// Seconds of ns.
fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

/// Seconds of ns, to a tenth.
fn tenths(ns: u64) -> f64 {
    (seconds(ns) * 10.0).round() / 10.0
}
