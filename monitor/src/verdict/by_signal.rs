//! A death by a signal: who sent it, and what that makes of it.

use killwatch_ebpf::wire::Origin;

use super::{
    facts::{Facts, Sender, Verdict},
    heap, killer, nobody, rlimits, signals,
    stop::{self, Bond},
};
use crate::death::{Cause, Killer, KillerKind, Role, Via};

/// `si_code` of a timer's signal (timer_create(2)), and of a sender that claims to be one.
const SI_TIMER: i32 = -2;
/// `si_code` of sigqueue(3).
const SI_QUEUE: i32 = -1;
/// `si_code` of tgkill(2).
const SI_TKILL: i32 = -6;

/// Judges it.
pub(super) fn judge(facts: &Facts<'_>, signal: u8) -> Verdict {
    // A SIGTERM is remembered on its own, should a later signal have taken its place among the fatal ones.
    let senders = [facts.fatal, facts.term];
    match senders.into_iter().flatten().find(|sender| sender.signal == signal) {
        None => unsent(facts, signal),
        Some(sender) => match sender.origin {
            Origin::Kernel => by_kernel(facts, sender),
            Origin::NoInfo => on_behalf(facts, sender),
            Origin::Info if sender.code > 0 && signals::is_fault(signal) => {
                crash(sender, "of a fault")
            }
            Origin::Info if sender.is_victim => by_itself(facts, sender),
            Origin::Info => by_process(facts, sender, via(sender.code)),
        },
    }
}

/// Nobody was seen to send it.
fn unsent(facts: &Facts<'_>, signal: u8) -> Verdict {
    // Linux: 1 strict, 2 filter; from 5.16 on 3 once either has ended the process (include/uapi/linux/seccomp.h, kernel/seccomp.c).
    let forbidden = match (signal, facts.seccomp) {
        (signals::SIGSYS, Some(2 | 3)) => {
            Some("a filter of its seccomp forbids a system call that it made")
        }
        (signals::SIGKILL, Some(1 | 3)) => Some(
            "it is in strict seccomp and made another system call than read, write, _exit or sigreturn",
        ),
        _ => None,
    };
    let name = signals::name(signal);
    if let Some(why) = forbidden {
        let killer = Killer { via: Some(Via::Fault), ..nobody(KillerKind::Itself) };
        let evidence = vec![format!("it ended by {name}, which nobody sent"), why.to_owned()];
        return Verdict::new(Cause::Crash, killer, evidence);
    }
    let evidence = vec![
        format!("it ended by {name}"),
        "no sender was seen, no mark of the OOM killer, no seccomp that forbids a system call: it was sent before this daemon's start, or what told of it was lost".into(),
    ];
    Verdict::new(Cause::Unknown, nobody(KillerKind::Unknown), evidence)
}

/// `SEND_SIG_PRIV`: the kernel itself, in whosever context it was running.
fn by_kernel(facts: &Facts<'_>, sender: &Sender) -> Verdict {
    let name = signals::name(sender.signal);
    let kernel = || Killer { via: Some(Via::Kernel), ..nobody(KillerKind::Kernel) };
    let who = who(sender);
    if sender.namespace_init && sender.exiting {
        let evidence = vec![
            format!(
                "the kernel sent it SIGKILL as {who}, the first process of its pid namespace, was on its way out"
            ),
            related_end(sender),
        ];
        return Verdict::new(Cause::PidnsTeardown, kernel(), evidence)
            .following(sender.end.clone().map(|end| end.with_role(Role::NamespaceInit)));
    }
    if let Some(victim) = &sender.shared {
        let evidence = vec![
            format!("the OOM killer had just killed {} (pid {}), whose memory it shared", victim.comm, victim.pid),
            "the kernel sent it SIGKILL in the same go, without choosing it: it has no mark and the kernel does not count it".into(),
        ];
        return Verdict::new(Cause::OomCollateral, kernel(), evidence)
            .following(Some(victim.clone()));
    }
    if sender.is_victim
        && let Some(hit) = rlimits::hit(facts, sender)
    {
        return limited(format!("the kernel sent it {name}, in its own context"), hit, kernel());
    }
    if signals::is_timer(sender.signal) {
        return timer(sender, format!("the kernel sent it {name}: a timer that it had set rang"));
    }
    if sender.signal == signals::SIGKILL && sender.exiting && !sender.group {
        let evidence = vec![format!(
            "the kernel sent SIGKILL to one thread of it as {who} was on its way out"
        )];
        return Verdict::new(
            Cause::Killed,
            killer(KillerKind::Process, sender, Via::TracerExit),
            evidence,
        )
        .inferring(format!(
            "that {} traced it and had asked for its end with its own (PTRACE_O_EXITKILL)",
            sender.comm
        ));
    }
    if sender.signal != signals::SIGKILL {
        let evidence = vec![format!("the kernel sent it {name}, in the context of {who}")];
        return Verdict::new(Cause::Killed, kernel(), evidence)
            .inferring("what for: the kernel sends such signals when a terminal hangs up or a key is pressed there");
    }
    let evidence = vec![
        format!("the kernel sent it SIGKILL, in the context of {who}"),
        "the OOM killer did not choose it and killed nobody whose memory it shares; no first process of its pid namespace was ending; no limit on its CPU time was reached".into(),
    ];
    Verdict::new(Cause::Unknown, nobody(KillerKind::Kernel), evidence)
}

/// `SEND_SIG_NOINFO`: the kernel, for what a process did.
fn on_behalf(facts: &Facts<'_>, sender: &Sender) -> Verdict {
    let name = signals::name(sender.signal);
    if sender.is_victim
        && let Some(hit) = rlimits::hit(facts, sender)
    {
        let kernel = Killer { via: Some(Via::Kernel), ..nobody(KillerKind::Kernel) };
        return limited(format!("the kernel sent it {name}, in its own context"), hit, kernel);
    }
    if sender.is_victim && sender.signal != signals::SIGKILL {
        let what = match sender.signal {
            signals::SIGPIPE => ": it wrote to a pipe or socket that nobody reads any more",
            _ => "",
        };
        let evidence = vec![format!("the kernel sent it {name} for what it did itself{what}")];
        return Verdict::new(
            Cause::Killed,
            killer(KillerKind::Itself, sender, Via::Kernel),
            evidence,
        );
    }
    if sender.exiting && sender.group {
        let evidence = vec![
            format!(
                "its parent, {}, was on its way out, and it had asked for {name} then (PR_SET_PDEATHSIG)",
                who(sender)
            ),
            related_end(sender),
        ];
        let killer = killer(KillerKind::Process, sender, Via::ParentDeathSignal);
        return Verdict::new(Cause::Killed, killer, evidence)
            .following(sender.end.clone().map(|end| end.with_role(Role::Parent)));
    }
    if sender.signal == signals::SIGKILL && sender.group {
        let evidence = vec![format!(
            "its cgroup was being killed (cgroup.kill) as {} forked it: who wrote to that file is in the records of the others",
            who(sender)
        )];
        let killer = Killer { via: Some(Via::CgroupKill), ..nobody(KillerKind::Unknown) };
        return Verdict::new(Cause::Killed, killer, evidence)
            .inferring("that the cgroup was killed: nothing else sends SIGKILL in this way to a process that is being forked");
    }
    if sender.signal == signals::SIGKILL {
        return by_process(facts, sender, Via::CgroupKill);
    }
    let evidence = vec![format!("the kernel sent it {name}, in the context of {}", who(sender))];
    Verdict::new(Cause::Killed, nobody(KillerKind::Kernel), evidence)
        .inferring("what for: the kernel did not say it")
}

fn by_itself(facts: &Facts<'_>, sender: &Sender) -> Verdict {
    let name = signals::name(sender.signal);
    let killer = killer(KillerKind::Itself, sender, via(sender.code));
    let how = how(sender.code);
    if sender.signal == signals::SIGABRT {
        let mut verdict = Verdict::new(
            Cause::Abort,
            killer,
            vec![format!("it sent SIGABRT to itself, {how}, as abort(3) does")],
        );
        if let Some(heap) = heap::exhausted(facts) {
            verdict.evidence.push(heap.evidence);
            verdict = verdict.inferring("that its heap was exhausted: its memory and its flags point there, its own last lines on stderr prove it");
        }
        return verdict;
    }
    if signals::is_fault(sender.signal) {
        return crash(sender, how);
    }
    if sender.code == SI_TIMER {
        return timer(sender, format!("{name} came from a timer, in its own context"));
    }
    Verdict::new(Cause::Killed, killer, vec![format!("it sent {name} to itself, {how}")])
}

/// Another process sent it.
fn by_process(facts: &Facts<'_>, sender: &Sender, via: Via) -> Verdict {
    let name = signals::name(sender.signal);
    if sender.code == SI_TIMER && via != Via::CgroupKill {
        // A timer rings in the context of whoever is running then.
        return timer(
            sender,
            format!("{name} came from a timer, in the context of {}", who(sender)),
        )
        .inferring("that the timer is its own: a sender may claim to be one (code -2)");
    }
    let how = if via == Via::CgroupKill { "by a write to cgroup.kill" } else { how(sender.code) };
    let evidence = vec![format!("{} sent it {name}, {how}", who(sender))];
    let killer = killer(KillerKind::Process, sender, via);
    if let Some(verdict) = userspace_oom(facts, sender, &killer, &evidence) {
        return verdict;
    }
    let Some(bond) = stop::ran_out(facts) else {
        return Verdict::new(Cause::Killed, killer, evidence);
    };
    let verdict = Verdict::new(Cause::StopTimeout, killer, evidence);
    match bond {
        Bond::SameProcess | Bond::SameParent => verdict,
        Bond::ByName => verdict.inferring(format!(
            "that both signals are one stop: {} and {} are names of programs that stop workloads",
            facts.term.map_or("", |term| term.comm.as_str()),
            sender.comm
        )),
    }
}

/// A userspace OOM killer, by its name and by what it leaves.
fn userspace_oom(
    facts: &Facts<'_>,
    sender: &Sender,
    killer: &Killer,
    evidence: &[String],
) -> Option<Verdict> {
    let known = facts.names.is_oom_killer(&sender.comm);
    // systemd kills for systemd-oomd, without a SIGTERM before. Its mark stays: an old one may be what is seen.
    let for_it =
        sender.comm == "systemd" && !facts.marks.is_empty() && stop::before(facts).is_none();
    if !(known || for_it) {
        return None;
    }
    let mut evidence = evidence.to_vec();
    let killer = Killer { marks: facts.marks.clone(), ..killer.clone() };
    for (name, value) in facts.marks {
        evidence.push(format!("the victim's cgroup carries its mark {name}={value}"));
    }
    let own_unit =
        sender.unit.as_deref().and_then(|unit| unit.strip_suffix(".service")) == Some(&sender.comm);
    if own_unit {
        evidence.push(format!("it runs as the systemd unit {}.service", sender.comm));
    }
    let verdict = Verdict::new(Cause::OomUserspace, killer, evidence);
    Some(if for_it {
        verdict
            .inferring("that systemd killed for systemd-oomd: the mark may be of an earlier kill")
    } else if own_unit || !facts.marks.is_empty() {
        verdict
    } else {
        verdict.inferring(format!("that {} is the userspace OOM killer of that name", sender.comm))
    })
}

fn crash(sender: &Sender, how: &str) -> Verdict {
    let what = format!("{} came {how}, in its own context", signals::name(sender.signal));
    let mut evidence = vec![what];
    if sender.signal == signals::SIGSYS {
        evidence.push("a filter of its seccomp forbids a system call that it made".into());
    }
    let via = if sender.code > 0 { Via::Fault } else { via(sender.code) };
    Verdict::new(Cause::Crash, killer(KillerKind::Itself, sender, via), evidence)
}

fn limited(said: String, hit: rlimits::Hit, killer: Killer) -> Verdict {
    let mut verdict = Verdict::new(Cause::Rlimit, killer, vec![said]);
    verdict.evidence.extend(hit.evidence);
    verdict.inferred.extend(hit.inferred);
    verdict.rlimit = Some(hit.rlimit);
    verdict
}

/// Whoever was running as it rang is no killer.
fn timer(sender: &Sender, said: String) -> Verdict {
    let killer = if sender.is_victim {
        killer(KillerKind::Itself, sender, Via::Timer)
    } else {
        Killer { via: Some(Via::Timer), ..nobody(KillerKind::Itself) }
    };
    Verdict::new(Cause::Killed, killer, vec![said])
}

fn related_end(sender: &Sender) -> String {
    match sender.end.as_ref().and_then(|end| end.status) {
        Some(0) => format!("{} had ended well (exit code 0)", sender.comm),
        Some(status) => match signals::meaning(status) {
            Some(meaning) => format!("{} had ended with {meaning}", sender.comm),
            None => format!("{} had exited with {status}", sender.comm),
        },
        None => format!("how {} ended is not known", sender.comm),
    }
}

fn who(sender: &Sender) -> String {
    format!("{} (pid {}, uid {})", sender.comm, sender.process.tgid, sender.uid)
}

const fn via(code: i32) -> Via {
    match code {
        0 => Via::Kill,
        SI_QUEUE => Via::Sigqueue,
        SI_TIMER => Via::Timer,
        SI_TKILL => Via::Tgkill,
        _ => Via::Other,
    }
}

const fn how(code: i32) -> &'static str {
    match code {
        0 => "by kill(2)",
        SI_QUEUE => "by sigqueue(3)",
        SI_TKILL => "by tgkill(2)",
        _ => "in an uncommon way",
    }
}
