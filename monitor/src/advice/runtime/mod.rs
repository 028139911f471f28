//! Runtimes and servers that have a bound of their own, against the limit of the cgroup. What is said of a flag or a variable is as it was seen.
//!
//! A program is known by its name, which is its own word. One that is none of these may be written in Go, if it has Go's variables.

mod go;
mod java;
mod node;
mod postgres;
mod python;
mod redis;

use crate::death::Victim;

use super::case::{Case, Found};

const MIB: u64 = 1 << 20;

/// A runtime that is known by its programs' names.
struct Runtime {
    /// Whether a victim is one of its programs.
    is: fn(&Victim) -> bool,
    /// What there is to say of it.
    look: fn(&Case<'_>) -> Option<Found>,
}

const KNOWN: [Runtime; 5] = [
    Runtime { is: node::is, look: node::look },
    Runtime { is: java::is, look: java::look },
    Runtime { is: postgres::is, look: postgres::look },
    Runtime { is: redis::is, look: redis::look },
    Runtime { is: python::is, look: python::look },
];

/// What there is to say of the victim's runtime.
pub(super) fn find(case: &Case<'_>) -> Option<Found> {
    let runtime = KNOWN.iter().find(|runtime| (runtime.is)(&case.death.victim));
    runtime.map_or(go::look as fn(&Case<'_>) -> Option<Found>, |runtime| runtime.look)(case)
}

/// Three quarters of a limit: what a heap may have, since a runtime needs more than its heap.
const fn three_quarters(limit: u64) -> u64 {
    limit / 4 * 3
}

/// The command line's first word: programs that tell of themselves write over it.
fn title(victim: &Victim) -> &str {
    victim.cmdline.as_ref().and_then(|arguments| arguments.first()).map_or("", String::as_str)
}
