//! A stop that ran out: SIGTERM, a grace, SIGKILL.

use super::{
    facts::{Facts, Sender},
    signals,
};
use crate::death::Stop;

/// A shorter grace is none that a process could use: somebody sent both signals at once.
const LEAST_GRACE_NS: u64 = 100_000_000;

/// With a longer one the two may have nothing to do with each other.
const LONG_GRACE_NS: u64 = 3_600_000_000_000;

/// Why two signals are taken for one stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    /// One process sent both, or two runs of one program that a shim or the like started: `runc kill` twice.
    OneHand,
    /// Two children of one process, whatever that is; or one process with a long time between.
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
    let soon = grace_ns(term, kill) < LONG_GRACE_NS;
    let is_stopper = |comm: &str| facts.names.is_stopper(comm);
    if term.process == kill.process {
        return Some(if soon { Bond::OneHand } else { Bond::SameParent });
    }
    let parent_stops = kill.ancestors.first().is_some_and(|parent| is_stopper(&parent.comm));
    // The first process adopts whoever lost its parent: to have it in common says nothing.
    if term.parent == kill.parent && term.parent.tgid > 1 {
        let one_hand = soon && term.comm == kill.comm && (parent_stops || is_stopper(&kill.comm));
        Some(if one_hand { Bond::OneHand } else { Bond::SameParent })
    } else if soon && is_stopper(&term.comm) && is_stopper(&kill.comm) {
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
