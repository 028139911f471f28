//! A death by a signal: who sent it, and what that makes of it.

use killwatch_ebpf::wire::Origin;

use super::{
    facts::{Facts, Sender, Verdict},
    heap, killer, nobody, rlimits, signals,
    stop::{self, Bond},
    userspace,
};
use crate::death::{Cause, Killer, KillerKind, Role, Via};

/// `si_code` of a timer's signal (timer_create(2)), and of a sender that claims to be one.
const SI_TIMER: i32 = -2;
/// `si_code` of sigqueue(3).
const SI_QUEUE: i32 = -1;
/// `si_code` of tgkill(2).
const SI_TKILL: i32 = -6;
/// `si_code` of a SIGSYS by a seccomp filter.
const SYS_SECCOMP: i32 = 1;

/// What is said of a system call that is not allowed.
const FORBIDDEN: &str = "a filter of its seccomp forbids a system call that it made";

/// Judges it.
pub(super) fn judge(facts: &Facts<'_>, signal: u8) -> Verdict {
    // A SIGTERM is remembered on its own, should a later signal have taken its place among the fatal ones.
    let senders = [facts.fatal, facts.term];
    match senders.into_iter().flatten().find(|sender| sender.signal == signal) {
        None => unsent(facts, signal),
        Some(sender) => match sender.origin {
            Origin::Kernel => by_kernel(facts, sender),
            Origin::NoInfo => on_behalf(facts, sender),
            Origin::Info if sender.code > 0 && signals::is_fault(signal) => fault(sender),
            Origin::Info if sender.is_victim => by_itself(facts, sender),
            Origin::Info => by_process(facts, sender, via(sender.code)),
        },
    }
}

/// Nobody was seen to send it.
fn unsent(facts: &Facts<'_>, signal: u8) -> Verdict {
    // Linux: 1 strict, 2 filter; from 5.16 on 3 once either has ended the process (include/uapi/linux/seccomp.h, kernel/seccomp.c).
    let forbidden = match (signal, facts.seccomp) {
        (signals::SIGSYS, Some(2 | 3)) => Some(FORBIDDEN),
        (signals::SIGKILL, Some(1 | 3)) => Some(
            "it is in strict seccomp and made another system call than read, write, _exit or sigreturn",
        ),
        _ => None,
    };
    let name = signals::name(signal);
    if let Some(why) = forbidden {
        let killer = Killer { via: Some(Via::Fault), ..nobody(KillerKind::Itself) };
        let evidence = vec![format!("it ended by {name}, which nobody sent"), why.to_owned()];
        let verdict = Verdict::new(Cause::Crash, killer, evidence);
        return Verdict { forbidden: true, ..verdict };
    }
    if signal == signals::SIGKILL && facts.marked {
        return unseen_oom_kill("no sender was seen");
    }
    let evidence = vec![
        format!("it ended by {name}"),
        "no sender was seen, no mark of the OOM killer, no seccomp that forbids a system call: it was sent before this daemon's start, a tracer put it in, the kernel ended \
         it for a fault of the kernel's own, or what told of it was lost"
            .into(),
    ];
    Verdict::new(Cause::Unknown, nobody(KillerKind::Unknown), evidence)
}

/// It carries the OOM killer's mark, and what the kernel side said of the kill did not arrive: it came before this daemon, or was lost.
fn unseen_oom_kill(said: &str) -> Verdict {
    let killer = Killer { via: Some(Via::Kernel), ..nobody(KillerKind::Kernel) };
    let evidence = vec![
        "it ended by SIGKILL and carries the mark of an OOM victim".to_owned(),
        said.to_owned(),
    ];
    Verdict::new(Cause::OomMemcg, killer, evidence)
        .inferring("that the OOM killer killed it: its mark was seen, its decision was not")
        .inferring(
            "that a memory cgroup's limit was hit, as is most common: it may have been the host",
        )
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
    if sender.shared.is_some() {
        return collateral(sender, kernel());
    }
    if sender.is_victim
        && let Some(hit) = rlimits::hit(facts, sender)
    {
        return limited(format!("the kernel sent it {name}, in its own context"), hit, kernel());
    }
    if signals::is_timer(sender.signal) {
        return timer(sender, format!("the kernel sent it {name}: a timer that it had set rang"));
    }
    if sender.signal != signals::SIGKILL {
        let evidence = vec![format!("the kernel sent it {name}, in the context of {who}")];
        return Verdict::new(Cause::Killed, kernel(), evidence).inferring(
            "what for: the kernel sends such signals when a terminal hangs up or a key is pressed there",
        );
    }
    if sender.exiting && !sender.group {
        let evidence = vec![format!(
            "the kernel sent SIGKILL to one thread of it as {who} was on its way out"
        )];
        let killer = killer(KillerKind::Process, sender, Via::TracerExit);
        return Verdict::new(Cause::Killed, killer, evidence).inferring(format!(
            "that {} traced it and had asked for its end with its own (PTRACE_O_EXITKILL)",
            sender.comm
        ));
    }
    if facts.marked {
        return unseen_oom_kill("the kernel sent that signal itself");
    }
    let evidence = vec![
        format!("the kernel sent it SIGKILL, in the context of {who}"),
        "the OOM killer did not choose it and killed nobody whose memory it shares; no first process of its pid namespace was ending; no limit on its CPU time was \
         reached; a BPF program may have sent it (bpf_send_signal)"
            .into(),
    ];
    Verdict::new(Cause::Unknown, nobody(KillerKind::Kernel), evidence)
}

/// Killed with a victim of the OOM killer.
fn collateral(sender: &Sender, killer: Killer) -> Verdict {
    let victim = sender.shared.as_ref();
    let (comm, pid) = victim.map_or(("", 0), |victim| (victim.comm.as_str(), victim.pid));
    let how = if sender.shared_seen {
        "whose memory it shared"
    } else {
        "and its own first thread was gone, so that its memory could not be looked at"
    };
    let evidence = vec![
        format!("the OOM killer had just killed {comm} (pid {pid}), {how}"),
        "the kernel sent it SIGKILL in the same go, without choosing it: it has no mark and the kernel does not count it".into(),
    ];
    let verdict = Verdict::new(Cause::OomCollateral, killer, evidence).following(victim.cloned());
    if sender.shared_seen {
        verdict
    } else {
        verdict.inferring("that it shared that victim's memory: the OOM killer sends SIGKILL to nobody else at that point")
    }
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
    if sender.is_victim && sender.signal == signals::SIGKILL {
        let killer = killer(KillerKind::Itself, sender, Via::CgroupKill);
        let evidence = vec!["it wrote to the cgroup.kill of a cgroup that it was in".to_owned()];
        return Verdict::new(Cause::Killed, killer, evidence);
    }
    if sender.is_victim {
        let what = match sender.signal {
            signals::SIGPIPE => ": it wrote to a pipe or socket that nobody reads any more",
            _ => "",
        };
        let killer = killer(KillerKind::Itself, sender, Via::Kernel);
        let evidence = vec![format!("the kernel sent it {name} for what it did itself{what}")];
        return Verdict::new(Cause::Killed, killer, evidence);
    }
    if sender.exiting && sender.group {
        return parent_died(sender);
    }
    if sender.signal != signals::SIGKILL {
        let evidence =
            vec![format!("the kernel sent it {name}, in the context of {}", who(sender))];
        return Verdict::new(Cause::Killed, nobody(KillerKind::Kernel), evidence)
            .inferring("what for: the kernel did not say it");
    }
    if sender.tracer {
        let killer = killer(KillerKind::Process, sender, Via::Ptrace);
        let evidence = vec![format!("{}, which traced it, had SIGKILL sent to it", who(sender))];
        return Verdict::new(Cause::Killed, killer, evidence).inferring(
            "that it did so by ptrace (PTRACE_KILL) and not by cgroup.kill: the kernel sends both alike",
        );
    }
    if sender.group {
        let evidence = vec![format!(
            "its cgroup was being killed (cgroup.kill) as {} forked it: who wrote to that file is in the records of the others",
            who(sender)
        )];
        let killer = Killer { via: Some(Via::CgroupKill), ..nobody(KillerKind::Unknown) };
        return Verdict::new(Cause::Killed, killer, evidence).inferring(
            "that the cgroup was killed: nothing else sends SIGKILL in this way to a process that is being forked",
        );
    }
    by_process(facts, sender, Via::CgroupKill)
}

/// `PR_SET_PDEATHSIG`.
fn parent_died(sender: &Sender) -> Verdict {
    let name = signals::name(sender.signal);
    let killer = killer(KillerKind::Process, sender, Via::ParentDeathSignal);
    if sender.thread_only {
        let evidence = vec![format!(
            "the thread of its parent, {}, that had started it ended while the parent lived on, and it had asked for {name} then (PR_SET_PDEATHSIG goes by threads)",
            who(sender)
        )];
        return Verdict::new(Cause::Killed, killer, evidence);
    }
    let evidence = vec![
        format!(
            "its parent, {}, was on its way out, and it had asked for {name} then (PR_SET_PDEATHSIG)",
            who(sender)
        ),
        related_end(sender),
    ];
    Verdict::new(Cause::Killed, killer, evidence)
        .following(sender.end.clone().map(|end| end.with_role(Role::Parent)))
}

fn by_itself(facts: &Facts<'_>, sender: &Sender) -> Verdict {
    let name = signals::name(sender.signal);
    let how = how(sender.code);
    if signals::is_fault(sender.signal) {
        return crash(sender, how);
    }
    if sender.code == SI_TIMER {
        return timer(sender, format!("{name} came from a timer, in its own context"));
    }
    let killer = killer(KillerKind::Itself, sender, via(sender.code));
    if sender.signal != signals::SIGABRT {
        return Verdict::new(
            Cause::Killed,
            killer,
            vec![format!("it sent {name} to itself, {how}")],
        );
    }
    let said = format!("it sent SIGABRT to itself, {how}, as abort(3) does");
    let mut verdict = Verdict::new(Cause::Abort, killer, vec![said]);
    if let Some(heap) = heap::exhausted(facts) {
        verdict.evidence.push(heap.evidence);
        verdict = verdict.inferring(
            "that its heap was exhausted: its memory and its flags point there, its own last lines on stderr prove it",
        );
    }
    verdict
}

/// Another process sent it.
fn by_process(facts: &Facts<'_>, sender: &Sender, via: Via) -> Verdict {
    let name = signals::name(sender.signal);
    if via == Via::Timer && sender.signal != signals::SIGKILL {
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
    if let Some(verdict) = userspace::oom_killer(facts, sender, &killer, &evidence) {
        return verdict;
    }
    let bond = stop::ran_out(facts);
    let cause = if bond.is_some() { Cause::StopTimeout } else { Cause::Killed };
    let mut verdict = Verdict::new(cause, killer, evidence);
    if !matches!(via, Via::Kill | Via::Tgkill | Via::Sigqueue | Via::CgroupKill) {
        verdict = verdict.inferring(format!(
            "that {} meant it: a signal with code {} may also come of what another process set up (F_SETSIG, a message queue, a timer), in the context of whoever sets it off",
            sender.comm, sender.code
        ));
    }
    let term = facts.term.map_or("", |term| term.comm.as_str());
    match bond {
        None | Some(Bond::OneHand) => verdict,
        Some(Bond::SameParent) => verdict.inferring(format!(
            "that both signals are one stop: {term} and {} have one parent, or much time lies between them",
            sender.comm
        )),
        Some(Bond::ByName) => verdict.inferring(format!(
            "that both signals are one stop: {term} and {} are names of programs that stop workloads",
            sender.comm
        )),
    }
}

/// The kernel forced the signal of a fault. A sender cannot claim that: codes above 0 are refused but to oneself.
fn fault(sender: &Sender) -> Verdict {
    let name = signals::name(sender.signal);
    if !sender.is_victim {
        let killer = Killer { via: Some(Via::Fault), ..nobody(KillerKind::Kernel) };
        let evidence = vec![format!("the kernel sent it {name} with code {}", sender.code)];
        return Verdict::new(Cause::Crash, killer, evidence).inferring(
            "what for: the kernel sends this from outside when memory of the process is broken (a hardware error)",
        );
    }
    let mut verdict = crash(sender, "of a fault");
    if sender.signal == signals::SIGSYS && sender.code == SYS_SECCOMP {
        verdict.evidence.push(FORBIDDEN.into());
        verdict.forbidden = true;
    }
    verdict
}

fn crash(sender: &Sender, how: &str) -> Verdict {
    let what = format!("{} came {how}, in its own context", signals::name(sender.signal));
    let via = if sender.code > 0 { Via::Fault } else { via(sender.code) };
    Verdict::new(Cause::Crash, killer(KillerKind::Itself, sender, via), vec![what])
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
        Some(status) => format!("{} had ended with status {status}", sender.comm),
        None => format!("how {} ended is not known", sender.comm),
    }
}

fn who(sender: &Sender) -> String {
    format!("{} (pid {}, uid {})", sender.comm, sender.process.tgid, sender.uid)
}

/// By which way a signal came that a process may have sent.
pub(super) const fn via_of(sender: &Sender) -> Via {
    match sender.origin {
        Origin::Info => via(sender.code),
        Origin::NoInfo if sender.exiting => Via::ParentDeathSignal,
        Origin::NoInfo | Origin::Kernel => Via::Kernel,
    }
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
