//! killwatch: who was killed, by what, why, and what to do.
//!
//! A death passes through the rooms of this crate in one direction:
//!
//! ```text
//! probe (ring, decode) -> join -> attribute -> verdict -> ledger -> notify, api, metrics
//! ```
//!
//! * [`probe`] loads the kernel side and turns ring records into values; the only room that knows aya.
//! * [`kmsg`] reads the kernel log, where BPF cannot be had: OOM kills, and nothing else.
//! * [`join`] makes one ended process of its marks, signals and exits. Pure.
//! * [`cgroup`] knows which cgroup an id is, also when it is gone.
//! * [`containers`] knows what container runtimes and the Kubernetes API say of who runs here.
//! * [`attribute`] names the workload and the job.
//! * [`naming`] gives a death the names that are known, and its job.
//! * [`tags`] holds what workers say of themselves before they die.
//! * [`verdict`] tells the cause, the evidence and the advice. Pure.
//! * [`ledger`] keeps deaths; [`notify`], [`api`] and [`metrics`] tell of them.
//! * [`watchdog`] tells systemd that the daemon moves.
//! * [`moment`] reads a time, or how long ago, as people write it.
//! * [`audit`] holds our count of OOM kills to the kernel's.
//! * [`death`] holds the types that flow, [`config`] what a user may set, [`host`] facts about the machine, [`procfs`] what `/proc` says,
//!   [`app`] builds it all, [`cli`] is the command line.
#![forbid(unsafe_code)]

pub mod advice;
pub mod alert;
pub mod api;
pub mod app;
pub mod attribute;
pub mod audit;
pub mod cgroup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod containers;
pub mod death;
mod flags;
pub mod footprint;
#[cfg(test)]
mod golden;
pub mod host;
pub mod join;
pub mod kmsg;
pub mod ledger;
pub mod metrics;
pub mod moment;
pub mod naming;
pub mod notify;
pub mod ops;
pub mod pipeline;
pub mod poison;
pub mod privileges;
pub mod probe;
pub mod procfs;
pub mod protect;
pub mod queue;
pub mod record;
pub mod source;
pub mod tags;
pub mod text;
pub mod verdict;
pub mod watch;
pub mod watchdog;
mod yaml;
