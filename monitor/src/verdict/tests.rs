//! Each cause from facts made by hand, and what must not be taken for it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;

use super::{names::Names, *};
use crate::{
    death::{
        Cause, Confidence, Constraint, KillerKind, LevelUse, MemoryStory, Related, Role, Trigger,
        Via, Victim,
    },
    join::ProcessId,
};

mod causes;
mod limits;

const MIB: u64 = 1 << 20;

fn victim(signal: Option<u8>, exit_code: Option<u8>) -> Victim {
    Victim {
        pid: 42,
        tgid: 42,
        tid: 42,
        ns_pid: None,
        pid_ns: None,
        start_time: Some(Timestamp::UNIX_EPOCH),
        start_ktime_ns: Some(1),
        lifetime_seconds: Some(1.0),
        ppid: Some(1),
        parent_comm: None,
        comm: "worker".into(),
        cmdline: None,
        cmdline_truncated: false,
        uid: Some(0),
        oom_score_adj: None,
        exit_code,
        signal,
        signal_name: signal.map(signals::name),
        status: signal.map(|signal| 128 + signal).or(exit_code),
        status_meaning: None,
        core_dumped: Some(false),
        threads: None,
        environ: Default::default(),
    }
}

fn process(tgid: u32) -> ProcessId {
    ProcessId { tgid, start_ns: u64::from(tgid) }
}

fn sender(signal: u8, code: i32, pid: u32) -> Sender {
    Sender {
        signal,
        origin: Origin::Info,
        code,
        group: true,
        ignored: false,
        init_without_handler: false,
        ktime_ns: 60_000_000_000,
        process: process(pid),
        parent: process(1),
        comm: "other".into(),
        uid: 0,
        cgroup: None,
        container_id: None,
        unit: None,
        ancestors: Vec::new(),
        exiting: false,
        thread_only: false,
        namespace_init: false,
        tracer: false,
        shared: None,
        shared_seen: true,
        end: None,
        is_victim: pid == 42,
    }
}

fn from_kernel(signal: u8, pid: u32) -> Sender {
    Sender { origin: Origin::Kernel, ..sender(signal, 0, pid) }
}

fn on_behalf(signal: u8, pid: u32) -> Sender {
    Sender { origin: Origin::NoInfo, ..sender(signal, 0, pid) }
}

fn named(comm: &str, sender: Sender) -> Sender {
    Sender { comm: comm.into(), ..sender }
}

fn related(role: Role, pid: u32, status: u8) -> Related {
    Related { role, pid, comm: "other".into(), status: Some(status), id: None, cause: None }
}

fn level(path: &str, usage: u64, limit: Option<u64>) -> LevelUse {
    LevelUse {
        cgroup: Some(path.into()),
        usage_bytes: usage * MIB,
        limit_bytes: limit.map(|limit| limit * MIB),
        ..LevelUse::default()
    }
}

fn oom(trigger: &str) -> OomFacts {
    OomFacts {
        constraint: None,
        level: None,
        allowed_bytes: None,
        sysrq: false,
        group: false,
        trigger: Trigger { pid: 42, tid: 42, comm: "worker".into(), cgroup: Some(trigger.into()) },
    }
}

#[derive(Default)]
struct Case {
    victim: Option<Victim>,
    memory: MemoryStory,
    tightest: Option<LevelUse>,
    oom: Option<OomFacts>,
    marked: bool,
    fatal: Option<Sender>,
    term: Option<Sender>,
    child: Option<Related>,
    limits: Limits,
    seccomp: Option<u32>,
    marks: BTreeMap<String, String>,
}

impl Case {
    fn new(signal: Option<u8>, exit_code: Option<u8>) -> Self {
        Self { victim: Some(victim(signal, exit_code)), ..Self::default() }
    }

    /// Died of the signal that this sender sent.
    fn sent(fatal: Sender) -> Self {
        Self { fatal: Some(fatal.clone()), ..Self::new(Some(fatal.signal), None) }
    }

    fn victim(&mut self) -> &mut Victim {
        self.victim.as_mut().unwrap()
    }

    fn judge(&self) -> Verdict {
        judge(&Facts {
            victim: self.victim.as_ref().unwrap(),
            memory: &self.memory,
            tightest: self.tightest.as_ref(),
            oom: self.oom.as_ref(),
            marked: self.marked || self.oom.is_some(),
            fatal: self.fatal.as_ref(),
            term: self.term.as_ref(),
            child: self.child.as_ref().map(|child| (child, 1.0)),
            limits: self.limits,
            seccomp: self.seccomp,
            marks: &self.marks,
            names: &Names::default(),
        })
    }
}

fn said(verdict: &Verdict, text: &str) -> bool {
    verdict.evidence.iter().any(|line| line.contains(text))
}

#[test]
fn tells_who_sent_the_signal() {
    use Confidence::{Certain, Inferred};
    use KillerKind::{Itself, Kernel, Process, Unknown};
    let exiting = |sender: Sender| Sender { exiting: true, ..sender };
    let one_thread = |sender: Sender| Sender { group: false, ..sender };
    let cases = [
        (9, Some(sender(9, 0, 7)), Cause::Killed, Process, Certain, Some(Via::Kill)),
        (9, Some(sender(9, -6, 7)), Cause::Killed, Process, Certain, Some(Via::Tgkill)),
        // A timer, or who says so.
        (9, Some(sender(9, -2, 7)), Cause::Killed, Process, Inferred, Some(Via::Timer)),
        (9, Some(sender(9, -1, 7)), Cause::Killed, Process, Certain, Some(Via::Sigqueue)),
        (9, Some(sender(9, 0, 42)), Cause::Killed, Itself, Certain, Some(Via::Kill)),
        (
            9,
            Some(one_thread(on_behalf(9, 7))),
            Cause::Killed,
            Process,
            Certain,
            Some(Via::CgroupKill),
        ),
        // From 7.3 on kill(2) comes so.
        (9, Some(on_behalf(9, 7)), Cause::Killed, Process, Certain, Some(Via::Kill)),
        (9, Some(on_behalf(9, 42)), Cause::Killed, Itself, Certain, Some(Via::Kill)),
        (6, Some(on_behalf(6, 42)), Cause::Abort, Itself, Certain, Some(Via::Kill)),
        (
            9,
            Some(exiting(on_behalf(9, 7))),
            Cause::Killed,
            Process,
            Certain,
            Some(Via::ParentDeathSignal),
        ),
        (
            15,
            Some(exiting(on_behalf(15, 7))),
            Cause::Killed,
            Process,
            Certain,
            Some(Via::ParentDeathSignal),
        ),
        (
            9,
            Some(exiting(one_thread(from_kernel(9, 7)))),
            Cause::Killed,
            Process,
            Inferred,
            Some(Via::TracerExit),
        ),
        // The kernel's SIGKILL without its mark is no OOM kill.
        (9, Some(from_kernel(9, 7)), Cause::Unknown, Kernel, Certain, None),
        (9, None, Cause::Unknown, Unknown, Certain, None),
        // A sender may claim to be the kernel; that is no more than a claim.
        (9, Some(sender(9, 128, 7)), Cause::Killed, Process, Inferred, Some(Via::Other)),
        // An alarm rings in the context of a bystander.
        (14, Some(from_kernel(14, 7)), Cause::Killed, Itself, Certain, Some(Via::Timer)),
        (14, Some(sender(14, -2, 7)), Cause::Killed, Itself, Inferred, Some(Via::Timer)),
        (
            13,
            Some(one_thread(on_behalf(13, 42))),
            Cause::Killed,
            Itself,
            Certain,
            Some(Via::Kernel),
        ),
        (1, Some(from_kernel(1, 7)), Cause::Killed, Kernel, Inferred, Some(Via::Kernel)),
        // A sender of another signal is not the killer.
        (9, Some(sender(15, 0, 7)), Cause::Unknown, Unknown, Certain, None),
        (15, Some(sender(15, 0, 7)), Cause::Killed, Process, Certain, Some(Via::Kill)),
        (6, Some(sender(6, -6, 42)), Cause::Abort, Itself, Certain, Some(Via::Tgkill)),
        (6, Some(sender(6, 0, 7)), Cause::Killed, Process, Certain, Some(Via::Kill)),
        (11, Some(sender(11, 1, 42)), Cause::Crash, Itself, Certain, Some(Via::Fault)),
        // A fault that the kernel forces without a code of its own.
        (11, Some(sender(11, 128, 42)), Cause::Crash, Itself, Certain, Some(Via::Fault)),
        (11, Some(sender(11, 0, 7)), Cause::Killed, Process, Certain, Some(Via::Kill)),
        (31, Some(sender(31, 1, 42)), Cause::Crash, Itself, Certain, Some(Via::Fault)),
    ];
    for (signal, fatal, cause, kind, confidence, via) in cases {
        let mut case = Case::new(Some(signal), None);
        case.fatal = fatal;
        let verdict = case.judge();
        assert_eq!(
            (verdict.cause, verdict.killer.kind, verdict.confidence(), verdict.killer.via),
            (cause, kind, confidence, via),
            "{:?} {verdict:?}",
            case.fatal
        );
        assert_eq!(
            verdict.killer.pid.is_some(),
            kind == Process || kind == Itself && via != Some(Via::Timer),
            "{verdict:?}"
        );
    }
}

#[test]
fn explains_exit_codes() {
    let mut case = Case::new(None, Some(137));
    assert_eq!(case.judge().cause, Cause::Unknown);
    // A SIGKILL that was sent but did not end it explains nothing.
    case.fatal = Some(sender(9, 0, 7));
    assert_eq!(case.judge().cause, Cause::Unknown);
    case.child = Some(related(Role::Child, 43, 137));
    let verdict = case.judge();
    assert_eq!(verdict.cause, Cause::Relayed);
    assert!(verdict.advice.contains("pid 43"), "{}", verdict.advice);

    let mut handled = Case::new(None, Some(143));
    handled.term = Some(sender(15, 0, 7));
    let verdict = handled.judge();
    assert_eq!((verdict.cause, verdict.killer.pid), (Cause::Killed, Some(7)));
}

#[test]
fn a_sigkill_that_comes_late_does_not_hide_who_sent_sigterm() {
    let mut case = Case::new(Some(15), None);
    case.fatal = Some(sender(9, 0, 8));
    case.term = Some(sender(15, 0, 7));
    let verdict = case.judge();
    assert_eq!((verdict.cause, verdict.killer.pid), (Cause::Killed, Some(7)));
}

#[test]
fn an_exit_in_peace_is_not_read_as_a_signal() {
    for code in [0, 1, 128] {
        let verdict = Case { oom: Some(oom("/a")), ..Case::new(None, Some(code)) }.judge();
        let words = format!("{:?} {}", verdict.evidence, verdict.advice);
        assert_eq!(verdict.cause, Cause::Unknown);
        assert!(!words.contains("128 +") && !words.contains("signal"), "{words}");
        assert!(words.contains("as well"), "{words}");
    }
}

#[test]
fn the_first_sigkill_is_what_ends_a_process() {
    let verdict = Case { oom: Some(oom("/a")), ..Case::sent(sender(9, 0, 7)) }.judge();
    assert_eq!((verdict.cause, verdict.killer.pid), (Cause::Killed, Some(7)));
    assert!(said(&verdict, "as well"), "{verdict:?}");
}

/// The mark was seen at the end, and neither the decision nor its signal before: lost, or older than the daemon.
#[test]
fn a_mark_alone_is_not_denied() {
    for case in [Case::new(Some(9), None), Case::sent(from_kernel(9, 7))] {
        let verdict = Case { marked: true, ..case }.judge();
        assert_eq!((verdict.cause, verdict.confidence()), (Cause::OomMemcg, Confidence::Inferred));
    }
    let init = Sender { exiting: true, namespace_init: true, ..from_kernel(9, 7) };
    assert_eq!(Case { marked: true, ..Case::sent(init) }.judge().cause, Cause::PidnsTeardown);
}

#[test]
fn a_mark_without_a_kill_is_no_oom_kill() {
    let verdict = Case { marked: true, ..Case::sent(sender(9, 0, 7)) }.judge();
    assert_eq!(verdict.cause, Cause::Killed);
    assert!(said(&verdict, "it marks what is dying already"), "{verdict:?}");
}

proptest! {
    /// Whatever the facts are, there is one cause with evidence and advice, and the same facts give the same.
    #[test]
    fn always_says_something(
        signal in proptest::option::of(1_u8..65),
        code in any::<u8>(),
        sent in 0_u8..65,
        si_code in any::<i32>(),
        origin in prop_oneof![Just(Origin::Info), Just(Origin::NoInfo), Just(Origin::Kernel)],
        (group, exiting, init, term) in any::<(bool, bool, bool, bool)>(),
        (seccomp, comm) in (0_u32..5, prop_oneof!["earlyoom", "systemd", ".{0,15}"]),
        pid in 40_u32..45,
        with_oom in any::<bool>(),
        usage in 0_u64..64,
        limit in proptest::option::of(0_u64..64),
    ) {
        let mut case = Case::new(signal, signal.is_none().then_some(code));
        let fatal = Sender { origin, group, exiting, namespace_init: init, ..sender(sent, si_code, pid) };
        case.fatal = Some(named(&comm, fatal));
        case.term = term.then(|| sender(15, 0, pid + 1));
        case.seccomp = Some(seccomp);
        case.memory.levels = vec![level("/a", usage, limit)];
        case.oom = with_oom.then(|| oom("/a"));
        let verdict = case.judge();
        prop_assert_eq!(&verdict, &case.judge());
        prop_assert!(!verdict.evidence.is_empty() && !verdict.advice.is_empty());
        if verdict.cause.is_kernel_oom() {
            prop_assert!(with_oom && signal == Some(9));
        }
    }
}
