//! A stop that ran out: SIGTERM, a grace, SIGKILL.

use super::{
    facts::{Facts, Sender},
    signals,
};
use crate::death::Stop;

/// A shorter grace is none that a process could use: somebody sent both signals at once.
const LEAST_GRACE_NS: u64 = 100_000_000;

/// Why two signals are taken for one stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    /// One process sent both.
    SameProcess,
    /// Two children of one process sent one each, as a shim runs `runc kill` twice.
    SameParent,
    /// Two programs whose names are those of runtimes or node agents.
    ByName,
}

/// The SIGTERM before the SIGKILL that ended the victim.
pub(super) fn before(facts: &Facts<'_>) -> Option<Stop> {
    let (term, kill) = pair(facts)?;
    Some(Stop {
        pid: term.process.tgid,
        comm: term.comm.clone(),
        uid: term.uid,
        grace_seconds: std::time::Duration::from_nanos(grace_ns(term, kill)).as_secs_f64(),
        ignored: term.ignored,
        init_without_handler: term.init_without_handler,
    })
}

/// What makes the two signals one stop that ran out, if they are.
pub(super) fn ran_out(facts: &Facts<'_>) -> Option<Bond> {
    let (term, kill) = pair(facts)?;
    if grace_ns(term, kill) < LEAST_GRACE_NS {
        return None;
    }
    if term.process == kill.process {
        Some(Bond::SameProcess)
    // The first process adopts whoever lost its parent: to have it in common says nothing.
    } else if term.parent == kill.parent && term.parent.tgid > 1 {
        Some(Bond::SameParent)
    } else if facts.names.is_stopper(&term.comm) && facts.names.is_stopper(&kill.comm) {
        Some(Bond::ByName)
    } else {
        None
    }
}

fn pair<'a>(facts: &Facts<'a>) -> Option<(&'a Sender, &'a Sender)> {
    let is = |sender: &&Sender, signal| sender.signal == signal && !sender.is_victim;
    let term = facts.term.filter(|term| is(term, signals::SIGTERM))?;
    let kill = facts.fatal.filter(|kill| is(kill, signals::SIGKILL))?;
    (facts.victim.signal == Some(signals::SIGKILL) && term.ktime_ns <= kill.ktime_ns)
        .then_some((term, kill))
}

const fn grace_ns(term: &Sender, kill: &Sender) -> u64 {
    kill.ktime_ns.saturating_sub(term.ktime_ns)
}
