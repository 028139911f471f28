//! Each cause from facts made by hand, and what must not be taken for it.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::death::{LevelUse, MemoryStory};

const MIB: u64 = 1 << 20;

fn victim(signal: Option<u8>, exit_code: Option<u8>) -> Victim {
    Victim {
        pid: 42,
        tgid: 42,
        tid: 42,
        ns_pid: None,
        start_time: Timestamp::UNIX_EPOCH,
        start_ktime_ns: 1,
        lifetime_seconds: 1.0,
        ppid: 1,
        parent_comm: None,
        comm: "worker".into(),
        cmdline: None,
        cmdline_truncated: false,
        uid: 0,
        oom_score_adj: None,
        exit_code,
        signal,
        signal_name: signal.map(signals::name),
        status: signal.map_or(exit_code.unwrap_or(0), |signal| 128 + signal),
        core_dumped: false,
        threads: None,
        environ: Default::default(),
    }
}

fn sender(signal: u8, code: i32, pid: u32) -> Sender {
    Sender {
        signal,
        code,
        pid,
        comm: "other".into(),
        uid: 0,
        ppid: 1,
        cgroup: None,
        is_victim: pid == 42,
    }
}

fn level(path: &str, usage: u64, limit: Option<u64>) -> LevelUse {
    LevelUse {
        cgroup: Some(path.into()),
        usage_bytes: usage * MIB,
        limit_bytes: limit.map(|limit| limit * MIB),
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

struct Case {
    victim: Victim,
    memory: MemoryStory,
    oom: Option<OomFacts>,
    fatal: Option<Sender>,
    term: Option<Sender>,
    child: Option<Child>,
}

impl Case {
    fn new(signal: Option<u8>, exit_code: Option<u8>) -> Self {
        Self {
            victim: victim(signal, exit_code),
            memory: MemoryStory::default(),
            oom: None,
            fatal: None,
            term: None,
            child: None,
        }
    }

    fn judge(&self) -> Verdict {
        judge(&Facts {
            victim: &self.victim,
            memory: &self.memory,
            oom: self.oom.as_ref(),
            marked: self.oom.is_some(),
            fatal: self.fatal.as_ref(),
            term: self.term.as_ref(),
            child: self.child.as_ref(),
        })
    }
}

#[test]
fn finds_the_level_that_was_hit() {
    let own = level("/a/b", 20, Some(64));
    let cases = [
        (
            "own limit",
            "/a/b",
            vec![level("/a/b", 32, Some(32)), level("/a", 40, Some(64))],
            Cause::OomMemcg,
            Some(0),
        ),
        (
            "parent's limit",
            "/a/b",
            vec![own.clone(), level("/a", 32, Some(32)), level("/", 99, None)],
            Cause::OomMemcg,
            Some(1),
        ),
        (
            "both full: the lower one was hit",
            "/a/b",
            vec![level("/a/b", 32, Some(32)), level("/a", 32, Some(32))],
            Cause::OomMemcg,
            Some(0),
        ),
        (
            "a sibling allocated: the shared level",
            "/a/c",
            vec![level("/a/b", 32, Some(32)), level("/a", 64, Some(64))],
            Cause::OomMemcg,
            Some(1),
        ),
        (
            "lowered from outside",
            "/",
            vec![level("/a/b", 50, Some(32)), level("/a", 50, None)],
            Cause::OomMemcg,
            Some(0),
        ),
        (
            "a name that begins like another's is not below it",
            "/a/bc",
            vec![level("/a/b", 32, Some(32)), level("/a", 64, Some(64))],
            Cause::OomMemcg,
            Some(1),
        ),
        (
            "no level full: the host",
            "/a/b",
            vec![own, level("/a", 50, None)],
            Cause::OomGlobal,
            None,
        ),
        ("no level known: the host", "/a/b", vec![], Cause::OomGlobal, None),
    ];
    for (what, trigger, levels, cause, limit) in cases {
        let mut case = Case::new(Some(9), None);
        case.memory.levels = levels;
        case.oom = Some(oom(trigger));
        let verdict = case.judge();
        assert_eq!((verdict.cause, verdict.limit), (cause, limit), "{what}: {verdict:?}");
        assert_eq!(verdict.killer.kind, KillerKind::Kernel);
        assert!(verdict.killer.trigger.is_some());
        assert!(!verdict.advice.is_empty());
    }
}

#[test]
fn the_kernels_own_word_wins() {
    let mut case = Case::new(Some(9), None);
    // A page cache keeps many a cgroup at its limit while the host runs out.
    case.memory.levels = vec![level("/a", 32, Some(32))];
    for (constraint, cause) in [
        (Constraint::None, Cause::OomGlobal),
        (Constraint::Cpuset, Cause::OomCpuset),
        (Constraint::MemoryPolicy, Cause::OomMempolicy),
        (Constraint::Memcg, Cause::OomMemcg),
    ] {
        case.oom = Some(OomFacts { constraint: Some(constraint), ..oom("/a") });
        assert_eq!(case.judge().cause, cause);
    }
}

#[test]
fn tells_who_sent_the_signal() {
    let cases = [
        (9, Some(sender(9, 0, 7)), Cause::Killed, KillerKind::Process),
        (9, Some(sender(9, -6, 7)), Cause::Killed, KillerKind::Process),
        (9, Some(sender(9, 0, 42)), Cause::Killed, KillerKind::Itself),
        // The kernel's SIGKILL without its mark is no OOM kill.
        (9, Some(sender(9, 128, 7)), Cause::Unknown, KillerKind::Kernel),
        (9, None, Cause::Unknown, KillerKind::Unknown),
        // An alarm rings in the context of a bystander.
        (14, Some(sender(14, 128, 7)), Cause::Unknown, KillerKind::Kernel),
        (14, Some(sender(14, -2, 7)), Cause::Unknown, KillerKind::Unknown),
        // A sender of another signal is not the killer.
        (9, Some(sender(15, 0, 7)), Cause::Unknown, KillerKind::Unknown),
        (15, Some(sender(15, 0, 7)), Cause::Killed, KillerKind::Process),
        (6, Some(sender(6, -6, 42)), Cause::Abort, KillerKind::Itself),
        (6, Some(sender(6, 0, 7)), Cause::Killed, KillerKind::Process),
        (11, Some(sender(11, 1, 42)), Cause::Crash, KillerKind::Itself),
        // A fault that the kernel forces without a code of its own.
        (11, Some(sender(11, 128, 42)), Cause::Crash, KillerKind::Itself),
        (11, Some(sender(11, 0, 7)), Cause::Killed, KillerKind::Process),
        (31, Some(sender(31, 1, 42)), Cause::Crash, KillerKind::Itself),
    ];
    for (signal, fatal, cause, kind) in cases {
        let mut case = Case::new(Some(signal), None);
        case.fatal = fatal;
        let verdict = case.judge();
        let named = matches!(kind, KillerKind::Process | KillerKind::Itself);
        assert_eq!(verdict.killer.pid.is_some(), named, "{verdict:?}");
        assert_eq!((verdict.cause, verdict.killer.kind), (cause, kind), "{:?}", case.fatal);
    }
}

#[test]
fn explains_exit_codes() {
    let mut case = Case::new(None, Some(137));
    assert_eq!(case.judge().cause, Cause::Unknown);
    // A SIGKILL that was sent but did not end it explains nothing.
    case.fatal = Some(sender(9, 0, 7));
    assert_eq!(case.judge().cause, Cause::Unknown);
    case.child = Some(Child {
        id: uuid::Uuid::nil(),
        pid: 43,
        comm: "child".into(),
        cause: Cause::OomMemcg,
    });
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
fn an_oom_kill_tells_of_an_earlier_sigkill() {
    let mut case = Case { oom: Some(oom("/a")), ..Case::new(Some(9), None) };
    case.fatal = Some(sender(9, 0, 7));
    let verdict = case.judge();
    assert!(verdict.cause.is_kernel_oom());
    assert!(verdict.evidence.iter().any(|line| line.contains("pid 7")), "{verdict:?}");
}

#[test]
fn a_mark_without_a_kill_is_no_oom_kill() {
    let case = Case { fatal: Some(sender(9, 0, 7)), ..Case::new(Some(9), None) };
    let verdict = judge(&Facts {
        victim: &case.victim,
        memory: &case.memory,
        oom: None,
        marked: true,
        fatal: case.fatal.as_ref(),
        term: None,
        child: None,
    });
    assert_eq!(verdict.cause, Cause::Killed);
    assert!(verdict.evidence.iter().any(|line| line.contains("dying already")), "{verdict:?}");
}

proptest! {
    /// Whatever the facts are, there is one cause with evidence and advice, and the same facts give the same.
    #[test]
    fn always_says_something(
        signal in proptest::option::of(1_u8..65),
        code in any::<u8>(),
        sent in 0_u8..65,
        si_code in any::<i32>(),
        pid in 40_u32..45,
        with_oom in any::<bool>(),
        usage in 0_u64..64,
        limit in proptest::option::of(0_u64..64),
    ) {
        let mut case = Case::new(signal, signal.is_none().then_some(code));
        case.fatal = Some(sender(sent, si_code, pid));
        case.memory.levels = vec![level("/a", usage, limit)];
        case.oom = with_oom.then(|| oom("/a"));
        let verdict = case.judge();
        prop_assert_eq!(&verdict, &case.judge());
        prop_assert!(!verdict.evidence.is_empty() && !verdict.advice.is_empty());
        prop_assert_eq!(verdict.cause.is_kernel_oom(), with_oom && signal == Some(9));
    }
}
