//! What ended a process, on which evidence, and what to do. Pure: the same facts give the same verdict.
//!
//! * `facts` is what goes in and what comes out.
//! * `by_signal` judges a death by a signal, from its sender; here are those by the OOM killer and by an exit code.
//! * `oom` finds the limit that was hit, `stop` a stop that ran out, `rlimits` a resource limit, `heap` an exhausted heap,
//!   `userspace` a userspace OOM killer.
//! * `kin` remembers the dead, `names` who is known by name, `signals` has names, `advice` turns the numbers into a sentence.

pub mod advice;
mod by_signal;
pub mod facts;
mod heap;
pub mod kin;
pub mod names;
pub mod oom;
mod rlimits;
pub mod signals;
mod stop;
#[cfg(test)]
mod tests;
mod userspace;

use killwatch_ebpf::wire::Origin;

pub use self::facts::{Facts, Limits, OomFacts, Sender, Verdict};
use crate::death::{Cause, Killer, KillerKind, Via};

/// Judges one death, or a victim of the OOM killer that is stuck: that one has neither signal nor exit code yet.
#[must_use]
pub fn judge(facts: &Facts<'_>) -> Verdict {
    let mut verdict = match (facts.oom, facts.victim.signal, facts.victim.exit_code) {
        // The first SIGKILL is what ends a process. One that was dying of it already is not killed by what comes after.
        (Some(kill), Some(signals::SIGKILL), _) if earlier_kill(facts).is_none() => {
            by_oom_killer(facts, kill)
        }
        (Some(kill), None, None) => by_oom_killer(facts, kill),
        (_, Some(signal), _) => by_signal::judge(facts, signal),
        (_, None, _) => by_exit_code(facts),
    };
    verdict.stop = stop::before(facts);
    if let Some(stop) = &verdict.stop {
        let ignored = match (stop.ignored, stop.init_without_handler) {
            (_, true) => {
                ", which never arrived: it is the first process of its pid namespace and has no handler"
            }
            (true, false) => ", which it ignores",
            (false, false) => "",
        };
        verdict.evidence.push(format!(
            "{} (pid {}) had sent it SIGTERM {:.1} s before{ignored}",
            stop.comm, stop.pid, stop.grace_seconds
        ));
    }
    second_thoughts(facts, &mut verdict);
    verdict.advice = advice::advise(facts, &verdict);
    verdict
}

/// The SIGKILL of a process that came before the OOM killer's.
fn earlier_kill<'a>(facts: &Facts<'a>) -> Option<&'a Sender> {
    facts
        .fatal
        .filter(|sender| sender.signal == signals::SIGKILL && sender.origin != Origin::Kernel)
}

/// What else was on its way, or only looked like it.
fn second_thoughts(facts: &Facts<'_>, verdict: &mut Verdict) {
    if facts.oom.is_some() && !verdict.cause.is_kernel_oom() {
        verdict.evidence.push(
            "the OOM killer killed it as well, when it was ending already; the kernel counts that"
                .into(),
        );
    } else if facts.oom.is_none() && facts.marked && verdict.cause != Cause::OomMemcg {
        verdict.evidence.push(
            "the OOM killer marked it, and was not seen to kill it: it marks what is dying already"
                .into(),
        );
    }
}

fn by_oom_killer(facts: &Facts<'_>, kill: &OomFacts) -> Verdict {
    let finding = oom::find(facts.memory, kill);
    let trigger = &kill.trigger;
    let mut evidence = vec![
        "the kernel sent SIGKILL and marked it as its OOM victim, in one go".to_owned(),
        if trigger.pid == facts.victim.pid {
            "it was itself allocating as the kernel decided".to_owned()
        } else {
            format!("{} (pid {}) was running as the kernel decided", trigger.comm, trigger.pid)
        },
    ];
    evidence.extend(finding.evidence);
    if kill.group {
        evidence.push("memory.oom.group is set: the kernel kills the cgroup as a whole".into());
    }
    let killer = Killer {
        via: Some(Via::Kernel),
        trigger: Some(trigger.clone()),
        ..nobody(KillerKind::Kernel)
    };
    let mut verdict = Verdict::new(finding.cause, killer, evidence);
    verdict.limit = finding.hit;
    verdict.inferred.extend(finding.inferred);
    verdict
}

fn by_exit_code(facts: &Facts<'_>) -> Verdict {
    let itself = || nobody(KillerKind::Itself);
    let Some(code) = facts.victim.exit_code else {
        let evidence = vec!["how it ended is not known".to_owned()];
        return Verdict::new(Cause::Unknown, nobody(KillerKind::Unknown), evidence);
    };
    if signals::meaning(code, true).is_none() {
        let evidence = vec![format!("it exited with {code} by itself")];
        return Verdict::new(Cause::Unknown, itself(), evidence);
    }
    let signal = code.wrapping_sub(128);
    let name = signals::name(signal);
    let said = format!(
        "it exited by itself with {code}, which by custom stands for 128 + {signal} ({name})"
    );
    if let Some(term) = facts.term.filter(|term| term.signal == signal && !term.ignored) {
        let evidence = vec![
            said,
            format!(
                "{} (pid {}, uid {}) had sent it {name}",
                term.comm, term.process.tgid, term.uid
            ),
        ];
        let kind = if term.is_victim { KillerKind::Itself } else { KillerKind::Process };
        let killer = killer(kind, term, by_signal::via_of(term));
        return Verdict::new(Cause::Killed, killer, evidence)
            .inferring(format!("that it ended because of that {name}: its exit code says so"));
    }
    if let Some((child, seconds)) = facts.child {
        let cause = child.cause.map_or("unknown", Cause::as_str);
        let evidence = vec![
            said,
            format!(
                "its child {} (pid {}) had ended that way {seconds:.1} s before: {cause}",
                child.comm, child.pid
            ),
        ];
        return Verdict::new(Cause::Relayed, itself(), evidence)
            .following(Some(child.clone()))
            .inferring("that its exit code stands for its child's end: both say the same");
    }
    let mut evidence = vec![said, format!("no child of it was seen to end by {name}")];
    if signal == signals::SIGTERM {
        evidence.push("it was not sent SIGTERM, or ignored it".into());
    }
    Verdict::new(Cause::Unknown, itself(), evidence)
}

fn nobody(kind: KillerKind) -> Killer {
    Killer { kind, ..Killer::default() }
}

fn killer(kind: KillerKind, sender: &Sender, via: Via) -> Killer {
    Killer {
        kind,
        via: Some(via),
        pid: Some(sender.process.tgid),
        comm: Some(sender.comm.clone()),
        uid: Some(sender.uid),
        ppid: Some(sender.parent.tgid),
        cgroup: sender.cgroup.clone(),
        container_id: sender.container_id.clone(),
        unit: sender.unit.clone(),
        ancestors: sender.ancestors.clone(),
        ..Killer::default()
    }
}
