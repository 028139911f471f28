//! The causes that hang on more than the sender: stops, namespaces, shared memory, heaps, limits, seccomp, userspace OOM killers.

use super::*;
use crate::death::Ancestor;

const SECOND: u64 = 1_000_000_000;

/// SIGTERM by `term`, and `grace_ns` later SIGKILL by `kill`.
fn stopped(term: Sender, kill: Sender, grace_ns: u64) -> Verdict {
    let mut case = Case::sent(kill);
    let sent_ns = case.fatal.as_ref().unwrap().ktime_ns - grace_ns;
    case.term = Some(Sender { ktime_ns: sent_ns, ..term });
    case.judge()
}

#[test]
fn a_stop_that_ran_out_has_one_hand_behind_both_signals() {
    use Cause::{Killed, StopTimeout};
    use Confidence::{Certain, Inferred};
    let below = |parent: &str, sender: Sender| Sender {
        parent: process(50),
        ancestors: vec![Ancestor { pid: 50, comm: parent.into() }],
        ..sender
    };
    let (term, kill) = (|| sender(15, 0, 7), || sender(9, 0, 8));
    let runc = |sender| named("runc", below("containerd-shim", sender));
    let cases = [
        ("one process", term(), sender(9, 0, 7), 10 * SECOND, StopTimeout, Certain),
        (
            "days later",
            term(),
            Sender { ktime_ns: 1 << 60, ..sender(9, 0, 7) },
            1 << 59,
            StopTimeout,
            Inferred,
        ),
        ("a shim's two runs", runc(term()), runc(kill()), SECOND, StopTimeout, Certain),
        (
            "two of one parent",
            below("sh", term()),
            below("sh", kill()),
            SECOND,
            StopTimeout,
            Inferred,
        ),
        ("two of the first process", term(), kill(), SECOND, Killed, Certain),
        (
            "two runtimes",
            named("runc", term()),
            named("crun", kill()),
            SECOND,
            StopTimeout,
            Inferred,
        ),
        (
            "a runtime and a shell",
            named("runc", term()),
            named("bash", kill()),
            SECOND,
            Killed,
            Certain,
        ),
        ("at once", term(), sender(9, 0, 7), 1000, Killed, Certain),
        ("by itself", sender(15, 0, 42), sender(9, 0, 42), SECOND, Killed, Certain),
    ];
    for (what, term, kill, grace_ns, cause, confidence) in cases {
        let verdict = stopped(term, kill, grace_ns);
        assert_eq!(
            (verdict.cause, verdict.confidence()),
            (cause, confidence),
            "{what}: {verdict:?}"
        );
    }
}

#[test]
fn the_grace_is_measured_and_an_init_without_a_handler_is_told_of() {
    let verdict = stopped(sender(15, 0, 7), sender(9, 0, 7), 10 * SECOND);
    let stop = verdict.stop.as_ref().unwrap();
    assert!((stop.grace_seconds - 10.0).abs() < 1e-9 && stop.pid == 7 && !stop.ignored);
    assert!(verdict.advice.contains("within the 10.0 s"), "{}", verdict.advice);
    let ignored = Sender { ignored: true, init_without_handler: true, ..sender(15, 0, 7) };
    let verdict = stopped(ignored, sender(9, 0, 7), 10 * SECOND);
    assert!(verdict.stop.as_ref().unwrap().ignored);
    assert!(verdict.advice.contains("tini") && said(&verdict, "has no handler"), "{verdict:?}");
}

/// The kernel kills for another reason while a stop is under way: the stop is told of, and is not the cause.
#[test]
fn an_oom_kill_during_a_stop_is_an_oom_kill() {
    let mut case = Case::sent(from_kernel(9, 42));
    case.oom = Some(oom("/a"));
    case.term = Some(Sender { ktime_ns: 59 * SECOND, ..sender(15, 0, 7) });
    assert!(case.judge().cause.is_kernel_oom());
}

#[test]
fn the_end_of_a_pid_namespace_names_its_init() {
    let init = Sender {
        exiting: true,
        namespace_init: true,
        end: Some(related(Role::Parent, 7, 0)),
        ..from_kernel(9, 7)
    };
    let verdict = Case::sent(init.clone()).judge();
    assert_eq!((verdict.cause, verdict.killer.kind), (Cause::PidnsTeardown, KillerKind::Kernel));
    assert_eq!(verdict.related.as_ref().map(|r| (r.role, r.pid)), Some((Role::NamespaceInit, 7)));
    assert!(said(&verdict, "had ended well"), "{verdict:?}");
    // An init that lives and merely allocates is no end of its namespace.
    let living = Sender { exiting: false, ..init };
    assert_eq!(Case::sent(living).judge().cause, Cause::Unknown);
}

#[test]
fn who_shared_a_victims_memory_is_collateral() {
    let shared = related(Role::OomVictim, 43, 137);
    let verdict = Case::sent(Sender { shared: Some(shared), ..from_kernel(9, 7) }).judge();
    assert_eq!((verdict.cause, verdict.confidence()), (Cause::OomCollateral, Confidence::Certain));
    assert_eq!(verdict.related.map(|r| r.pid), Some(43));
    assert!(!verdict.cause.is_kernel_oom(), "the kernel does not count it");
}

#[test]
fn a_resource_limit_needs_its_number() {
    let limits =
        |used, soft, hard| Limits { cpu_seconds: used, cpu: [soft, hard], ..Limits::default() };
    let cases = [
        // By a second more than what was hit.
        (24, limits(Some(1.4), Some(2), Some(5)), Cause::Rlimit, Confidence::Certain),
        (9, limits(Some(2.01), Some(1), Some(2)), Cause::Rlimit, Confidence::Certain),
        (9, limits(Some(1.6), Some(1), Some(2)), Cause::Rlimit, Confidence::Inferred),
        // Far from it: something else of the kernel's, such as bpf_send_signal.
        (9, limits(Some(0.5), Some(1), Some(2)), Cause::Unknown, Confidence::Certain),
        (9, limits(None, None, Some(2)), Cause::Rlimit, Confidence::Inferred),
        // Something else of the kernel's, such as bpf_send_signal.
        (9, limits(Some(5.0), Some(1), None), Cause::Unknown, Confidence::Certain),
    ];
    for (signal, limits, cause, confidence) in cases {
        let verdict = Case { limits, ..Case::sent(from_kernel(signal, 42)) }.judge();
        assert_eq!((verdict.cause, verdict.confidence()), (cause, confidence), "{verdict:?}");
        assert_eq!(verdict.rlimit.is_some(), cause == Cause::Rlimit);
    }
    // The kernel sends the same for the time of a real-time task.
    let real = Limits { realtime: [Some(1000), None], ..limits(Some(0.1), Some(9), Some(9)) };
    let verdict = Case { limits: real, ..Case::sent(from_kernel(24, 42)) }.judge();
    assert_eq!(verdict.rlimit.as_ref().map(|limit| limit.resource.as_str()), Some("RLIMIT_RTTIME"));
    assert_eq!(verdict.confidence(), Confidence::Inferred);
    // In another's context it is no limit of its own.
    let other = limits(Some(9.0), Some(1), Some(1));
    let case = Case { limits: other, ..Case::sent(from_kernel(9, 7)) };
    assert_eq!(case.judge().cause, Cause::Unknown);

    let limits = Limits { file_size: [Some(4096), None], ..Limits::default() };
    let verdict = Case { limits, ..Case::sent(on_behalf(25, 42)) }.judge();
    assert_eq!(verdict.cause, Cause::Rlimit);
    assert!(verdict.advice.contains("4096 bytes"), "{}", verdict.advice);
    assert_eq!(Case::sent(sender(25, 0, 7)).judge().cause, Cause::Killed, "kill -XFSZ");
}

#[test]
fn seccomp_ends_without_a_sender() {
    for (signal, seccomp, cause) in [
        (31, 2, Cause::Crash),
        (31, 3, Cause::Crash),
        (9, 1, Cause::Crash),
        (9, 3, Cause::Crash),
        (9, 2, Cause::Unknown),
        (9, 0, Cause::Unknown),
    ] {
        let verdict = Case { seccomp: Some(seccomp), ..Case::new(Some(signal), None) }.judge();
        assert_eq!(verdict.cause, cause, "{signal} {seccomp}");
        assert_eq!(verdict.advice.contains("seccomp"), cause == Cause::Crash, "{}", verdict.advice);
    }
}

#[test]
fn a_userspace_oom_killer_is_known_by_name_and_proven_by_its_marks() {
    let marks = BTreeMap::from([("user.oomd_kill".to_owned(), "2".to_owned())]);
    let trusted = BTreeMap::from([("trusted.oomd_kill".to_owned(), "2".to_owned())]);
    let within = |sender: Sender, cgroup: &str| Sender { cgroup: Some(cgroup.into()), ..sender };
    let earlyoom = |signal| named("earlyoom", sender(signal, 0, 7));
    let systemd = named("systemd", Sender { group: false, ..on_behalf(9, 1) });
    let cases = [
        ("by name", earlyoom(9), None, Cause::OomUserspace, Confidence::Inferred),
        ("by its first signal", earlyoom(15), None, Cause::OomUserspace, Confidence::Inferred),
        (
            "in its unit",
            within(earlyoom(9), "/system.slice/earlyoom.service"),
            None,
            Cause::OomUserspace,
            Confidence::Certain,
        ),
        (
            "in a user's unit of that name",
            within(earlyoom(9), "/user.slice/a/system.slice/earlyoom.service"),
            None,
            Cause::OomUserspace,
            Confidence::Inferred,
        ),
        (
            "with a mark that takes root",
            named("oomd", sender(9, 0, 7)),
            Some(&trusted),
            Cause::OomUserspace,
            Confidence::Certain,
        ),
        (
            "with a mark that anybody may leave",
            named("systemd-oomd", sender(9, 0, 7)),
            Some(&marks),
            Cause::OomUserspace,
            Confidence::Inferred,
        ),
        (
            "systemd for it",
            systemd.clone(),
            Some(&marks),
            Cause::OomUserspace,
            Confidence::Inferred,
        ),
        ("systemd for itself", systemd, None, Cause::Killed, Confidence::Certain),
    ];
    for (what, fatal, marks, cause, confidence) in cases {
        let verdict =
            Case { marks: marks.cloned().unwrap_or_default(), ..Case::sent(fatal) }.judge();
        assert_eq!(
            (verdict.cause, verdict.confidence()),
            (cause, confidence),
            "{what}: {verdict:?}"
        );
        assert_eq!(verdict.killer.marks.is_empty(), marks.is_none(), "{what}");
    }
    // SIGTERM first, then SIGKILL, is its way and no stop.
    let verdict = stopped(earlyoom(15), earlyoom(9), SECOND);
    assert_eq!(verdict.cause, Cause::OomUserspace);
    // A mark outlives its kill: systemd that stops the same unit later is systemd that stops a unit.
    let mut case = Case::sent(named("systemd", sender(9, 0, 1)));
    case.marks = BTreeMap::from([("user.oomd_kill".to_owned(), "2".to_owned())]);
    case.term = Some(Sender { ktime_ns: SECOND, ..named("systemd", sender(15, 0, 1)) });
    assert_eq!(case.judge().cause, Cause::StopTimeout);
}

#[test]
fn an_abort_with_a_full_heap_says_so() {
    let abort = |arguments: &[&str], anon: u64| {
        let mut case = Case::sent(sender(6, -6, 42));
        case.victim().cmdline = Some(arguments.iter().map(|a| (*a).to_owned()).collect());
        case.memory.anon_bytes = Some(anon * MIB);
        case
    };
    for (what, case, hint) in [
        (
            "at V8's limit",
            abort(&["/usr/bin/node", "--max-old-space-size=64", "a.js"], 70),
            Some("--max-old-space-size"),
        ),
        ("far below it", abort(&["node", "--max-old-space-size=64"], 20), None),
        ("V8's default", abort(&["/opt/node", "a.js"], 2000), Some("--max-old-space-size")),
        ("at -Xmx", abort(&["java", "-Xmx1g"], 1000), Some("-Xmx")),
        ("no runtime that is known", abort(&["worker"], 2000), None),
    ] {
        let verdict = case.judge();
        assert_eq!(verdict.cause, Cause::Abort);
        match hint {
            Some(hint) => assert!(
                verdict.advice.contains(hint)
                    && verdict.confidence() == Confidence::Inferred
                    && said(&verdict, hint),
                "{what}: {verdict:?}"
            ),
            None => assert_eq!(verdict.confidence(), Confidence::Certain, "{what}: {verdict:?}"),
        }
    }
    let mut options = abort(&["node"], 70);
    options
        .victim()
        .environ
        .insert("NODE_OPTIONS".into(), "--trace --max_old_space_size=64".into());
    assert_eq!(options.judge().confidence(), Confidence::Inferred);
    let mut tight = abort(&["worker"], 60);
    tight.tightest = Some(level("/a", 63, Some(64)));
    assert!(said(&tight.judge(), "cgroup /a used"));
}

#[test]
fn v1s_second_limit_is_told_apart() {
    let mut case = Case { oom: Some(oom("/a")), ..Case::new(Some(9), None) };
    let swapping = LevelUse {
        memsw_bytes: Some(64 * MIB),
        memsw_limit_bytes: Some(64 * MIB),
        ..level("/a", 30, Some(32))
    };
    case.memory.levels = vec![swapping];
    let verdict = case.judge();
    assert_eq!(verdict.cause, Cause::OomMemcg);
    assert!(
        verdict.limit.unwrap().memsw && said(&verdict, "memory and swap together"),
        "{verdict:?}"
    );
    assert!(verdict.advice.contains("memsw"), "{}", verdict.advice);
    // Both limits the same and nothing swapped: the second adds nothing.
    let same = LevelUse {
        memsw_bytes: Some(32 * MIB),
        memsw_limit_bytes: Some(32 * MIB),
        ..level("/a", 32, Some(32))
    };
    case.memory.levels = vec![same];
    assert!(!case.judge().limit.unwrap().memsw);
}

#[test]
fn a_victim_that_is_stuck_is_judged_by_its_mark() {
    let mut case = Case { oom: Some(oom("/a")), ..Case::new(None, None) };
    case.victim().status = None;
    case.memory.levels = vec![level("/a", 32, Some(32))];
    assert_eq!(case.judge().cause, Cause::OomMemcg);
}

#[test]
fn a_parents_thread_is_not_the_parent() {
    let thread = Sender { exiting: true, thread_only: true, ..on_behalf(9, 7) };
    let verdict = Case::sent(thread).judge();
    assert_eq!((verdict.cause, verdict.related.is_none()), (Cause::Killed, true));
    assert!(said(&verdict, "while the parent lived on"), "{verdict:?}");
}

#[test]
fn what_the_kernel_does_for_two_reasons_alike_is_inferred() {
    let tracer = Sender { tracer: true, group: false, ..on_behalf(9, 7) };
    let unseen = Sender {
        shared: Some(related(Role::OomVictim, 43, 137)),
        shared_seen: false,
        ..from_kernel(9, 7)
    };
    for (fatal, cause, via) in [
        (tracer, Cause::Killed, Via::Ptrace),
        (unseen, Cause::OomCollateral, Via::Kernel),
        // Broken memory, told from outside.
        (sender(7, 5, 8), Cause::Crash, Via::Fault),
    ] {
        let verdict = Case::sent(fatal).judge();
        assert_eq!(
            (verdict.cause, verdict.killer.via, verdict.confidence()),
            (cause, Some(via), Confidence::Inferred),
            "{verdict:?}"
        );
    }
    // Whoever writes to the cgroup.kill of its own cgroup is its own killer.
    let own = Sender { group: false, ..on_behalf(9, 42) };
    assert_eq!(Case::sent(own).judge().killer.kind, KillerKind::Itself);
    // To raise SIGSYS is no system call that is forbidden.
    let verdict = Case::sent(sender(31, -6, 42)).judge();
    assert!(verdict.cause == Cause::Crash && !verdict.advice.contains("seccomp"), "{verdict:?}");
}
