//! What ended a process, on which evidence, and what to do. Pure: the same facts give the same verdict.
//!
//! `oom` finds the limit that was hit, `kin` remembers dead children, `advice` turns the numbers into a sentence, `signals` has names.

pub mod advice;
pub mod kin;
pub mod oom;
pub mod signals;

use crate::death::{Cause, Child, Constraint, Killer, KillerKind, MemoryStory, Trigger, Victim};

/// `si_code` of signals that the kernel sends by itself.
const SI_KERNEL: i32 = 128;
/// `si_code` of a timer's signal, and of a sender that claims to be one.
const SI_TIMER: i32 = -2;

/// Who sent a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The signal.
    pub signal: u8,
    /// `si_code`: 0 kill(2), -6 tgkill(2), 128 the kernel, other positive numbers faults.
    pub code: i32,
    /// Process id of the task that was running.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its real user id.
    pub uid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// Whether it is the victim itself.
    pub is_victim: bool,
}

/// An OOM kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomFacts {
    /// What the kernel said the constraint was.
    pub constraint: Option<Constraint>,
    /// The cgroup whose limit was hit, as the kernel said: its place in the levels.
    pub level: Option<usize>,
    /// Bytes that the constraint allows, as the kernel said.
    pub allowed_bytes: Option<u64>,
    /// Whether a person asked for it.
    pub sysrq: bool,
    /// Whether the whole cgroup is killed.
    pub group: bool,
    /// The task that made the kernel look for a victim.
    pub trigger: Trigger,
}

/// All that the verdict rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts<'a> {
    /// Who died.
    pub victim: &'a Victim,
    /// Its memory and its cgroups'.
    pub memory: &'a MemoryStory,
    /// The OOM kill, if it was one.
    pub oom: Option<&'a OomFacts>,
    /// Whether the OOM killer had marked it, for whatever reason.
    pub marked: bool,
    /// Who sent the signal that was to end it.
    pub fatal: Option<&'a Sender>,
    /// Who sent its last SIGTERM.
    pub term: Option<&'a Sender>,
    /// The child that this exit code may stand for.
    pub child: Option<&'a Child>,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What ended it.
    pub cause: Cause,
    /// Who.
    pub killer: Killer,
    /// On what this rests.
    pub evidence: Vec<String>,
    /// What to do.
    pub advice: String,
    /// The level whose limit was hit: its place in the levels.
    pub limit: Option<usize>,
}

/// Judges one death.
#[must_use]
pub fn judge(facts: &Facts<'_>) -> Verdict {
    let mut verdict = match (facts.oom, facts.victim.signal) {
        (Some(kill), Some(signals::SIGKILL)) => by_oom_killer(facts, kill),
        (_, Some(signal)) => by_signal(facts, signal),
        (_, None) => by_exit_code(facts),
    };
    let earlier = facts.fatal.filter(|sender| {
        sender.signal == signals::SIGKILL && sender.code != SI_KERNEL && !sender.is_victim
    });
    match (facts.oom, earlier) {
        (None, _) if facts.marked => verdict.evidence.push(
            "the OOM killer marked it without killing it: it was dying already, so this is no OOM kill".into(),
        ),
        (Some(_), _) if !verdict.cause.is_kernel_oom() => verdict
            .evidence
            .push("the OOM killer killed it as well, when it was ending already".into()),
        // The kernel counts it as an OOM kill all the same.
        (Some(_), Some(sender)) => verdict.evidence.push(format!(
            "a SIGKILL from {} (pid {}, uid {}) was on its way before",
            sender.comm, sender.pid, sender.uid
        )),
        _ => {}
    }
    verdict.advice = advice::advise(facts, &verdict);
    verdict
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
    Verdict {
        cause: finding.cause,
        killer: Killer { trigger: Some(trigger.clone()), ..nobody(KillerKind::Kernel) },
        evidence,
        advice: String::new(),
        limit: finding.level,
    }
}

fn by_signal(facts: &Facts<'_>, signal: u8) -> Verdict {
    let name = signals::name(signal);
    // Up to 5.15 a SIGKILL that comes late takes the place of the signal that a process is dying of already.
    let senders = [facts.fatal, facts.term];
    let Some(sender) = senders.into_iter().flatten().find(|sender| sender.signal == signal) else {
        return plain(
            Cause::Unknown,
            nobody(KillerKind::Unknown),
            vec![
                format!("it ended by {name}"),
                "no sender was seen: strict seccomp sends none, and so does what was before this daemon's start".into(),
            ],
        );
    };
    let by_kernel = sender.code == SI_KERNEL;
    let fault = sender.code > 0 && !by_kernel;
    let (cause, kind) = match signal {
        signals::SIGABRT if sender.is_victim => (Cause::Abort, KillerKind::Itself),
        _ if signals::is_fault(signal) && (fault || sender.is_victim) => {
            (Cause::Crash, KillerKind::Itself)
        }
        _ if by_kernel => (Cause::Unknown, KillerKind::Kernel),
        // A timer rings in the context of whoever is running then.
        _ if sender.code == SI_TIMER => (Cause::Unknown, KillerKind::Unknown),
        _ if sender.is_victim => (Cause::Killed, KillerKind::Itself),
        _ => (Cause::Killed, KillerKind::Process),
    };
    let how = match sender.code {
        SI_KERNEL => "by the kernel".to_owned(),
        code if code > 0 => format!("by the processor's fault (code {code})"),
        0 => "by kill(2)".to_owned(),
        -6 => "by tgkill(2), as abort(3) and raise(3) do".to_owned(),
        SI_TIMER => "by a timer of its own, or by who says so (code -2)".to_owned(),
        code => format!("with code {code}"),
    };
    let who = if sender.is_victim {
        "in its own context".to_owned()
    } else {
        format!("in the context of {} (pid {}, uid {})", sender.comm, sender.pid, sender.uid)
    };
    let mut evidence = vec![format!("{name} was sent {how}, {who}")];
    if by_kernel && signal == signals::SIGKILL && cause == Cause::Unknown && !facts.marked {
        evidence.push(
            "the OOM killer did not choose it; it may share the memory of a process that was chosen, or its pid namespace or CPU time ended".into(),
        );
    }
    match kind {
        KillerKind::Process | KillerKind::Itself => plain(cause, killer(kind, sender), evidence),
        // Whoever was running as the kernel acted is no killer.
        KillerKind::Kernel | KillerKind::Unknown => plain(cause, nobody(kind), evidence),
    }
}

fn by_exit_code(facts: &Facts<'_>) -> Verdict {
    let code = facts.victim.exit_code.unwrap_or(facts.victim.status);
    if code <= 128 {
        return plain(
            Cause::Unknown,
            nobody(KillerKind::Itself),
            vec![format!("it exited with {code} by itself")],
        );
    }
    let signal = code.wrapping_sub(128);
    let name = signals::name(signal);
    let meaning = format!("it exited with {code}, which by custom means 128 + {signal} ({name})");
    if let Some(child) = facts.child {
        let evidence = vec![
            meaning,
            format!(
                "its child {} (pid {}) had ended that way: {}",
                child.comm,
                child.pid,
                child.cause.as_str()
            ),
        ];
        return plain(Cause::Relayed, nobody(KillerKind::Itself), evidence);
    }
    if let Some(term) = facts.term.filter(|term| term.signal == signal) {
        let evidence = vec![
            meaning,
            format!(
                "{} (pid {}, uid {}) had sent it {name}, which it handled",
                term.comm, term.pid, term.uid
            ),
        ];
        let kind = if term.is_victim { KillerKind::Itself } else { KillerKind::Process };
        return plain(Cause::Killed, killer(kind, term), evidence);
    }
    let evidence = vec![
        meaning,
        format!("no child of it was seen to end by {name}, and it was not sent {name}"),
    ];
    plain(Cause::Unknown, nobody(KillerKind::Itself), evidence)
}

const fn plain(cause: Cause, killer: Killer, evidence: Vec<String>) -> Verdict {
    Verdict { cause, killer, evidence, advice: String::new(), limit: None }
}

const fn nobody(kind: KillerKind) -> Killer {
    Killer { kind, pid: None, comm: None, uid: None, ppid: None, cgroup: None, trigger: None }
}

fn killer(kind: KillerKind, sender: &Sender) -> Killer {
    Killer {
        kind,
        pid: Some(sender.pid),
        comm: Some(sender.comm.clone()),
        uid: Some(sender.uid),
        ppid: Some(sender.ppid),
        cgroup: sender.cgroup.clone(),
        trigger: None,
    }
}

#[cfg(test)]
mod tests;
